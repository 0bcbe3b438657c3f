import torch

from pyro_amortized import Resample
from pyro_amortized.missing import Remaskable
from pyro_amortized.missing.designs import as_design
from pyro_amortized.runtime.random_numbers import make_generator
from tests.programs import growth_cohort


def test_design_is_reproducible_and_has_its_size():
    design = Resample(growth_cohort(4))
    one, two = (design(50, make_generator(3)) for _ in range(2))
    assert len(one) == 50
    assert torch.equal(one["y"].observed, two["y"].observed)
    assert not torch.equal(one["y"].observed, design(50, make_generator(4))["y"].observed)


def test_a_design_that_is_a_function_keeps_its_missing_values():
    cohort = growth_cohort(4)
    design = as_design(lambda num, generator: cohort[[0] * num])
    assert isinstance(design, Remaskable)
    drawn = design.complete(3, make_generator(0))
    assert torch.equal(drawn["y"].observed, cohort[[0] * 3]["y"].observed)
    assert design.missing(drawn, make_generator(0)) is drawn
    resample = Resample(cohort)
    assert as_design(resample) is resample
    assert isinstance(as_design(cohort), Resample)
