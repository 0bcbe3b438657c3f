"""The likelihood-free estimator, beside exact results and the corrected one."""

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized import Cohort, Series, nlme
from pyro_amortized.errors import FitError, GuideError, ModelError
from tests.exact import exact_fit, exact_log_marginal, linear_cohort, linear_program

OPTIONS = pa.TrainingOptions(max_epochs=12, batch_size=256)
TIMES = torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.float64)


@pytest.fixture(scope="module")
def linear_both():
    """The linear Gaussian cohort, and a guide that knows q(c | y) too."""
    cohort = linear_cohort()
    networks = pa.Networks(learn_shared=True)
    guide = pa.train(
        linear_program,
        cohort,
        num_simulations=60_000,
        seed=1,
        options=OPTIONS,
        networks=networks,
        progress=False,
    )
    return cohort, guide


def test_both_estimators_find_the_exact_maximum(linear_both):
    cohort, guide = linear_both
    vector, _, covariance = exact_fit(cohort)
    errors = covariance.diagonal().sqrt()
    corrected, free = (
        pa.fit_population(
            linear_program, guide, cohort, estimator=estimator, num_draws=1000, seed=1
        )
        for estimator in ("corrected", "likelihood-free")
    )
    assert corrected.estimator == "corrected"
    assert free.estimator == free.marginal.estimator == "likelihood-free"
    assert "LIKELIHOOD-FREE" in str(free.summary())
    assert "LIKELIHOOD-FREE" not in str(corrected.summary())
    assert ((corrected.vector - vector) / errors).abs().max() < 0.1
    assert ((free.vector - vector) / errors).abs().max() < 0.6
    assert (free.covariance.diagonal().sqrt() / errors - 1).abs().max() < 0.15
    with pytest.raises(FitError, match="likelihood-free"):
        pa.difference(corrected, free)


def test_differences_of_the_likelihood_free_score_are_those_of_the_likelihood(linear_both):
    cohort, guide = linear_both
    vector, _, covariance = exact_fit(cohort)
    here = guide.structure.constrain_population(vector)
    shift = 2 * covariance.diagonal().sqrt() * torch.eye(5, dtype=torch.float64)[4]
    there = guide.structure.constrain_population(vector + shift)  # a larger residual error
    exact = exact_log_marginal(cohort, there) - exact_log_marginal(cohort, here)
    score = [
        pa.marginal_likelihood(
            linear_program, guide, cohort, p, estimator="likelihood-free", num_draws=2000
        ).log_likelihood
        for p in (here, there)
    ]
    bias = score[1] - score[0] - exact
    assert exact.abs().mean() > 0.05
    assert bias.pow(2).mean().sqrt() < 0.1


def counted(cohort):
    """Counts that can only be simulated."""
    law = lambda mean, shape: nlme.Simulated(lambda: torch.poisson(mean), shape)  # noqa: E731
    return count_program(cohort, law)


def counted_twin(cohort):
    """The same with its density."""
    return count_program(cohort, lambda mean, shape: dist.Poisson(mean))


def count_program(cohort, law):
    typical = pyro.sample("typical", dist.Normal(1.5, 0.5))
    omega = pyro.sample("omega", dist.LogNormal(-0.7, 0.4))
    rate = pyro.sample("rate", dist.LogNormal(0.0, 0.3))
    with pyro.plate("individual", len(cohort)):
        size = pyro.sample("size", dist.LogNormal(typical, omega))
        y = cohort["y"]
        mean = size[..., None] * -torch.expm1(-rate[..., None] * y.times)
        mean = mean.expand(y.values.shape) + 0.1
        pyro.sample("y", law(mean, y.values.shape).mask(y.observed).to_event(1), obs=y.values)


def test_a_program_without_density_is_fitted_and_says_so(tmp_path):
    num, generator = 60, torch.Generator().manual_seed(3)
    size = (1.5 + 0.5 * torch.randn(num, 1, generator=generator, dtype=torch.float64)).exp()
    values = torch.poisson(size * -torch.expm1(-1.2 * TIMES) + 0.1, generator=generator)
    cohort = Cohort({"y": Series(TIMES.expand(num, -1).clone(), values)})
    guide = pa.train(
        counted, cohort, num_simulations=60_000, seed=1, options=OPTIONS, progress=False
    )
    assert guide.structure.shared == ("rate",)
    assert guide.structure.layout is not None
    guide.save(tmp_path)
    guide = pa.load_guide(tmp_path, counted, cohort)
    free = pa.fit_population(counted, guide, cohort, num_draws=500, seed=1)
    assert free.estimator == "likelihood-free"
    exact = pa.fit_population(counted_twin, guide, cohort, num_draws=1000, seed=1)
    errors = exact.covariance.diagonal().sqrt()
    assert ((free.vector - exact.vector) / errors).abs().max() < 0.6
    assert (free.covariance.diagonal().sqrt() / errors - 1).abs().max() < 0.4
    draws = pa.sample_individuals(guide, cohort, population=free.estimates)
    truth = pa.sample_individuals(
        guide, cohort, population=free.estimates, structure=exact.structure
    )
    assert draws.structure.estimator == "likelihood-free"
    mean, sd = truth.moments()[:2]
    assert ((draws.moments()[0] - mean) / sd).abs().mean() < 0.15
    profile = pa.profile_likelihood(free, "rate")
    assert profile.lower < float(free.estimates["rate"]) < profile.upper
    replicates = pa.bootstrap(free, num_replicates=3, parametric=True, num_draws=200, seed=1)
    assert len(replicates.estimates["rate"]) == 3
    with pytest.raises(ModelError, match="no density"):
        pa.fit_population(counted, guide, cohort, estimator="corrected")
    with pytest.raises(ModelError, match="no density"):
        pa.marginalize(counted, guide, population=free.estimates)(cohort)


def test_what_the_likelihood_free_estimator_cannot_do_is_said(linear, linear_guide):
    with pytest.raises(GuideError, match="learn_shared"):
        pa.fit_population(linear_program, linear_guide, linear, estimator="likelihood-free")
    with pytest.raises(GuideError, match="estimator"):
        pa.fit_population(linear_program, linear_guide, linear, estimator="approximate")
