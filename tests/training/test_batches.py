r"""The pairs that networks are trained on."""

import pyro_amortized as pa
from pyro_amortized.missing import RandomMissing
from tests.small import train


def test_missingness_is_drawn_anew_on_every_pass(linear):
    seen = []

    def missing(cohort, generator):
        incomplete = RandomMissing()(cohort, generator)
        seen.append(incomplete["y"].observed)
        return incomplete

    design = pa.Resample(linear, missing)
    options = pa.TrainingOptions(max_epochs=3, batch_size=128)
    train(design, options=options)
    masks = [m for m in seen if len(m) == 800]
    assert len(masks) >= 4
    assert len({m.float().mean().item() for m in masks}) >= 3
