"""What a program leaves out is said before a fit."""

import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_amortized import nlme
from pyro_amortized.diagnostics import check_model


def cohort(side=1):
    """Three of eight values are at the limit of 2, below or above."""
    values = [2.0, 2.0, 5.0, 4.0, 2.0, 6.0, 3.0, 4.0]
    frame = pd.DataFrame({"ID": [1, 1, 2, 2, 3, 3, 4, 4], "TIME": [0, 1] * 4, "DV": values})
    if side == -1:
        frame["DV"] = 8 - frame["DV"]
    frame["CENS"] = [side if x == 2.0 else 0 for x in values]
    return nlme.read_table(frame, series="y")


def program(censored, used=True, high=False):
    def model(cohort):
        center = pyro.sample("center", dist.Normal(4.0, 1.0))
        mean = pyro.sample("mean", dist.Normal(center, 1.0))
        spread = pyro.sample("spread", dist.HalfNormal(1.0))
        sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
        y = cohort["y"]
        with pyro.plate("individual", len(cohort)):
            level = pyro.sample("level", dist.Normal(mean, spread if used else 1.0))
            law = dist.Normal(level[..., None] + 0 * y.times, sigma[..., None])
            if censored:
                side = "high" if high else "low"
                law = nlme.Censored(law, **{side: cohort.time_varying[f"y_{side}"].at(y.times)})
            pyro.sample("y", law.mask(y.observed).to_event(1), obs=y.values)

    return model


@pytest.mark.parametrize("side", [1, -1])
def test_limits_that_the_program_does_not_know(side):
    name = "low" if side == 1 else "high"
    concerns = " ".join(check_model(program(False), cohort(side), num_draws=20).concerns)
    assert "3 values of 'y' are at a limit" in concerns
    assert f"nlme.Censored(distribution, {name}=cohort.time_varying['y_{name}'].at" in concerns
    right = check_model(program(True, high=side == -1), cohort(side), num_draws=20)
    assert right.uncensored == ()
    assert "as measurements" not in str(right)


def test_parameters_that_nothing_depends_on():
    """``center`` has an effect through the prior of another parameter alone."""
    check = check_model(program(True, used=False), cohort(), num_draws=20)
    assert check.unused == ("center", "spread")
    assert "spread: scalar, positive, has a prior; acts on nothing" in str(check)
    assert "depend on 'spread'" in " ".join(check.concerns)
    assert check_model(program(True), cohort(), num_draws=20).unused == ("center",)


def test_values_outside_of_every_limit_are_no_concern():
    data = cohort()
    data = data.with_values({"y": torch.full_like(data["y"].values, 3.0)})
    assert check_model(program(False), data, num_draws=20).uncensored == ()
