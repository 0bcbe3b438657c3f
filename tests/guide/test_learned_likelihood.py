"""The likelihood-free estimator, beside exact results and the corrected one."""

from dataclasses import replace

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC, NUTS, SVI, Importance, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoNormal

import pyro_amortized as pa
from pyro_amortized import Cohort, Series, nlme
from pyro_amortized.errors import FitError, GuideError, ModelError
from pyro_amortized.population.likelihood import likelihood_choice
from pyro_amortized.population.likelihood.likelihood_choice import LikelihoodChoiceSettings
from tests.exact import exact_fit, exact_log_marginal, linear_cohort, linear_program
from tests.small import NETWORKS

from .write_learned import FOLDER

OPTIONS = pa.TrainingOptions(max_epochs=8, batch_size=256)
SMALL = replace(NETWORKS, learn_shared=True)
TIMES = torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.float64)


@pytest.fixture(scope="module")
def linear_both():
    """The linear Gaussian cohort, and a guide that also learned q(c | y) in a minute."""
    cohort = linear_cohort()
    return cohort, pa.load_guide(FOLDER, linear_program, cohort)


@pytest.mark.slow
def test_both_estimators_find_the_exact_maximum(linear_both):
    whole, guide = linear_both
    cohort = whole[:24]
    vector, _, covariance = exact_fit(cohort)
    errors = covariance.diagonal().sqrt()
    corrected, free = (
        pa.fit_population(
            linear_program, cohort, guide=guide, estimator=estimator, num_draws=400, seed=1
        )
        for estimator in ("corrected", "likelihood-free")
    )
    assert corrected.estimator == "corrected"
    assert free.estimator == free.marginal.estimator == "likelihood-free"
    assert "LIKELIHOOD-FREE" in str(free.summary())
    assert "LIKELIHOOD-FREE" not in str(corrected.summary())
    assert ((corrected.vector - vector) / errors).abs().max() < 0.1
    # The error of a briefly trained network, not Monte Carlo error.
    assert ((free.vector - vector) / errors).abs().max() < 0.8
    off = (free.covariance.diagonal().sqrt() / errors - 1).abs()
    assert off.mean() < 0.15
    assert off.max() < 0.3
    with pytest.raises(FitError, match="likelihood-free"):
        pa.difference(corrected, free)


@pytest.mark.slow
def test_an_expanded_learned_density_has_the_same_maximum(linear_both, monkeypatch):
    """Its logarithm has kinks: with small steps of the differences, rounds promised 50 in log
    likelihood where there was 1, and no tighter limits made them shorter.
    """
    whole, guide = linear_both
    options = {"guide": guide, "estimator": "likelihood-free", "num_draws": 400, "seed": 1}
    exact = pa.fit_population(linear_program, whole[:24], **options)
    monkeypatch.setattr(likelihood_choice, "CHOICE", LikelihoodChoiceSettings(max_exact=1000))
    expanded = pa.fit_population(linear_program, whole[:24], **options)
    assert expanded.converged, expanded.message
    errors = exact.covariance.diagonal().sqrt()
    assert ((expanded.vector - exact.vector) / errors).abs().max() < 0.2
    assert (expanded.covariance.diagonal().sqrt() / errors - 1).abs().max() < 0.2


@pytest.mark.slow
def test_differences_of_the_likelihood_free_score_are_those_of_the_likelihood(linear_both):
    cohort, guide = linear_both
    vector, _, covariance = exact_fit(cohort)
    here = guide.structure.constrain_population(vector)
    shift = 2 * covariance.diagonal().sqrt() * torch.eye(5, dtype=torch.float64)[4]
    there = guide.structure.constrain_population(vector + shift)  # a larger residual error
    exact = exact_log_marginal(cohort, there) - exact_log_marginal(cohort, here)
    score = [
        pa.marginal_likelihood(
            linear_program, cohort, p, guide=guide, estimator="likelihood-free", num_draws=1000
        ).log_likelihood
        for p in (here, there)
    ]
    bias = score[1] - score[0] - exact
    assert exact.abs().mean() > 0.05
    assert bias.pow(2).mean().sqrt() < 0.1


def counted(cohort):
    """Counts that can only be simulated."""
    distribution = lambda mean, shape: nlme.Simulated(lambda: torch.poisson(mean), shape)  # noqa: E731
    return count_program(cohort, distribution)


def counted_twin(cohort):
    """The same with its density."""
    return count_program(cohort, lambda mean, shape: dist.Poisson(mean))


def count_program(cohort, distribution):
    typical = pyro.sample("typical", dist.Normal(1.5, 0.5))
    omega = pyro.sample("omega", dist.LogNormal(-0.7, 0.4))
    rate = pyro.sample("rate", dist.LogNormal(0.0, 0.3))
    with pyro.plate("individual", len(cohort)):
        size = pyro.sample("size", dist.LogNormal(typical, omega))
        y = cohort["y"]
        mean = size[..., None] * -torch.expm1(-rate[..., None] * y.times)
        mean = mean.expand(y.values.shape) + 0.1
        pyro.sample(
            "y", distribution(mean, y.values.shape).mask(y.observed).to_event(1), obs=y.values
        )


@pytest.mark.slow
def test_a_program_without_density_is_fitted_and_says_so(tmp_path):
    num, generator = 60, torch.Generator().manual_seed(3)
    size = (1.5 + 0.5 * torch.randn(num, 1, generator=generator, dtype=torch.float64)).exp()
    values = torch.poisson(size * -torch.expm1(-1.2 * TIMES) + 0.1, generator=generator)
    cohort = Cohort({"y": Series(TIMES.expand(num, -1).clone(), values)})
    guide = pa.train(
        counted,
        cohort,
        num_simulations=60_000,
        seed=1,
        options=OPTIONS,
        networks=SMALL,
        progress=False,
    )
    assert guide.structure.shared == ("rate",)
    assert guide.structure.layout is not None
    guide.save(tmp_path)
    guide = pa.load_guide(tmp_path, counted, cohort)
    free = pa.fit_population(counted, cohort, guide=guide, num_draws=200, seed=1)
    assert free.estimator == "likelihood-free"
    exact = pa.fit_population(counted_twin, cohort, guide=guide, num_draws=1000, seed=1)
    errors = exact.covariance.diagonal().sqrt()
    assert ((free.vector - exact.vector) / errors).abs().max() < 0.6
    assert (free.covariance.diagonal().sqrt() / errors - 1).abs().max() < 0.4
    draws = pa.sample_individuals(guide.model, cohort, free.estimates, guide=guide)
    truth = pa.sample_individuals(exact.structure.model, cohort, free.estimates, guide=guide)
    assert draws.structure.estimator == "likelihood-free"
    mean, sd = truth.moments()[:2]
    assert ((draws.moments()[0] - mean) / sd).abs().mean() < 0.15
    profile = pa.profile_likelihood(free, "rate")
    assert profile.lower < float(free.estimates["rate"]) < profile.upper
    replicates = pa.bootstrap(free, num_replicates=2, parametric=True, num_draws=50, seed=1)
    assert len(replicates.estimates["rate"]) == 2
    with pytest.raises(ModelError, match="no density"):
        pa.fit_population(counted, cohort, guide=guide, estimator="corrected")
    with pytest.raises(ModelError, match="no density"):
        pa.marginalize(counted, guide=guide, population=free.estimates)(cohort)


def test_what_the_likelihood_free_estimator_cannot_do_is_said(linear, linear_guide):
    with pytest.raises(GuideError, match="learn_shared"):
        pa.fit_population(linear_program, linear, guide=linear_guide, estimator="likelihood-free")
    with pytest.raises(GuideError, match="estimator"):
        pa.fit_population(linear_program, linear, guide=linear_guide, estimator="approximate")


# Pyro's own inference has no data where there is no density: it refuses.


def few_counts():
    values = torch.poisson(torch.full((5, 4), 3.0, dtype=torch.float64))
    return Cohort({"y": Series(TIMES.expand(5, -1).clone(), values)})


def test_a_simulated_distribution_refuses_to_give_a_density():
    distribution, value = nlme.Simulated(lambda: torch.zeros(2, 3), (2, 3)), torch.zeros(2, 3)
    mask = torch.ones(2, 3, dtype=torch.bool)
    for wrapped in (
        distribution,
        distribution.to_event(1),
        distribution.mask(mask),
        distribution.mask(mask).to_event(1),
    ):
        with pytest.raises(ModelError, match="no density") as caught:
            wrapped.log_prob(value)
        assert "train(model, cohort)" in caught.value.fix


@pytest.mark.parametrize(
    "run",
    [
        lambda cohort: MCMC(NUTS(counted), 1, 1, disable_progbar=True).run(cohort),
        lambda cohort: step(cohort, Trace_ELBO()),
        lambda cohort: step(cohort, TraceMeanField_ELBO()),
        lambda cohort: step(cohort, pa.MarginalELBO(2)),
        lambda cohort: Importance(counted, num_samples=2).run(cohort),
    ],
    ids=["nuts", "svi", "mean-field", "marginal-elbo", "importance"],
)
def test_no_inference_of_pyro_runs_without_the_data(run):
    """Pyro puts the name of the site before the message, in an error of its own."""
    with pytest.raises(ValueError, match="no density") as caught:
        run(few_counts())
    error = caught.value if isinstance(caught.value, ModelError) else caught.value.__cause__
    assert isinstance(error, ModelError)
    assert "likelihood-free" in error.fix
    assert error.fix in str(caught.value)


def step(cohort, loss):
    guide = AutoNormal(counted)
    return SVI(counted, guide, pyro.optim.Adam({"lr": 0.01}), loss).step(cohort)


def test_a_nuisance_that_can_only_be_simulated_is_read():
    """The rate acts through what has no density: it is found by simulation."""

    def model(cohort):
        rate = pyro.sample("rate", dist.LogNormal(0.0, 0.3))
        with pyro.plate("individual", len(cohort)):
            size = pyro.sample("size", dist.LogNormal(1.5, 0.5))
            y = cohort["y"]
            mean = (size * rate)[..., None].expand(y.values.shape)
            distribution = nlme.Simulated(lambda: torch.poisson(mean), mean.shape).to_event(1)
            count = pyro.sample("count", distribution, infer={"nuisance": True})
            noisy = dist.Normal(count, 0.5).mask(y.observed).to_event(1)
            pyro.sample("y", noisy, obs=y.values)

    structure = pa.read_structure(model, few_counts())
    assert structure.nuisance == ("count",)
    assert structure.shared == ("rate",)
    assert not structure.has_density
