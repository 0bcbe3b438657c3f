"""The full effort for a few individuals of many."""

import pyro
import pyro.distributions as dist
import torch

import pyro_amortized as pa
from pyro_amortized.sampling.last_steps import with_last_steps

POPULATION = {"scale": torch.tensor(1.0).double()}


def two_modes(cohort):
    """The square of the parameter is observed: every posterior has two modes."""
    scale = pyro.sample("scale", dist.LogNormal(0.0, 0.1))
    with pyro.plate("individual", len(cohort)):
        x = pyro.sample("x", dist.Normal(0.1 * torch.ones(()), scale))
        y = cohort["y"]
        square = x.square()[..., None].expand_as(y.values)
        pyro.sample("y", dist.Normal(square, 0.05).to_event(1), obs=y.values)


def cohort_of(*squares):
    values = torch.tensor(squares).double()[:, None]
    return pa.Cohort({"y": pa.Series(torch.zeros_like(values), values)})


def drawn_at_one_mode(cohort):
    """Draws from which a mode is missing, as a poor block may have them."""
    drawn = pa.sample_individuals(two_modes, cohort, POPULATION, num_draws=200, seed=1)
    mixture = drawn.refinement.mixture
    means = mixture.means.abs()
    draws = drawn.unconstrained.abs()
    one = torch.zeros_like(drawn.refinement.num_modes)
    refinement = type(drawn.refinement)(
        drawn.refinement.stage.clamp(min=1),
        type(mixture)(mixture.log_weights, means, mixture.scale_trils),
        drawn.refinement.guide,
        one,
    )
    return type(drawn)(
        drawn.structure,
        drawn.cohort,
        drawn.population,
        draws,
        drawn.log_proposal,
        drawn.log_weights,
        drawn.method,
        refinement,
        drawn.evaluations,
    )


def test_a_mode_that_was_missed_is_found():
    cohort = cohort_of(1.0, 0.7, 1.4)
    poor = drawn_at_one_mode(cohort)
    assert not bool((poor.unconstrained < 0).any())
    better = with_last_steps(poor, None, torch.Generator().manual_seed(1))
    weights = better.weights
    share = (weights * (better.unconstrained[..., 0] < 0)).sum(0)
    # The prior has its mean at 0.1: the negative mode of x^2 = s has this share, up to the width.
    root = cohort["y"].values[:, 0].sqrt()
    exact = torch.sigmoid(-0.2 * root)
    assert torch.allclose(share, exact, atol=0.08)
    assert bool((better.evaluations > poor.evaluations).all())
    assert list(better.num_modes) == [2, 2, 2]


def test_other_individuals_keep_their_draws(linear):
    from tests.exact import TRUTH, linear_program

    drawn = pa.sample_individuals(linear_program, linear, TRUTH, num_draws=100, seed=1)
    again = with_last_steps(drawn, None, torch.Generator().manual_seed(1))
    assert torch.equal(again.unconstrained, drawn.unconstrained)
    assert torch.equal(again.log_weights, drawn.log_weights)
