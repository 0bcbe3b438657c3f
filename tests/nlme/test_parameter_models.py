"""Effects, residual errors, censoring, stochastic dynamics: against integrals and simulation."""

import math
from dataclasses import replace

import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.cohort import Cohort, Doses, Series, concatenate
from pyro_amortized.errors import CohortError, ModelError
from pyro_amortized.model import read_structure
from pyro_amortized.nlme.censored_distributions import log_cdf, log_survival


def d(*values):
    return torch.tensor(values, dtype=torch.float64)


# Residual errors.


def test_combined_errors_of_both_kinds():
    f = d(0.0, 3.0)
    assert nlme.combined_error(f, d(4.0), d(1.0)).scale.tolist() == [4.0, 5.0]
    assert nlme.combined_error(f, d(4.0), d(1.0), kind=1).scale.tolist() == [4.0, 7.0]
    with pytest.raises(ModelError, match="kind=3"):
        nlme.combined_error(f, d(4.0), d(1.0), kind=3)


def test_lognormal_and_student_errors():
    f = d(2.0, 5.0)
    law = nlme.lognormal_error(f, d(0.3))
    exact = scipy.stats.lognorm.logpdf([2.5, 4.0], 0.3, scale=[2.0, 5.0])
    assert law.log_prob(d(2.5, 4.0)).tolist() == pytest.approx(exact.tolist())
    law = nlme.student_error(f, d(0.5), 4.0)
    exact = scipy.stats.t.logpdf([2.5, 4.0], 4, [2.0, 5.0], 0.5)
    assert law.log_prob(d(2.5, 4.0)).tolist() == pytest.approx(exact.tolist())


# Censoring.

BASES = {
    "normal": (dist.Normal(d(1.0), d(2.0)), scipy.stats.norm(1, 2)),
    "lognormal": (dist.LogNormal(d(0.5), d(0.8)), scipy.stats.lognorm(0.8, scale=math.exp(0.5))),
    "student": (dist.StudentT(d(3.0), d(1.0), d(2.0)), scipy.stats.t(3, 1, 2)),
    "laplace": (dist.Laplace(d(1.0), d(2.0)), scipy.stats.laplace(1, 2)),
}


@pytest.mark.parametrize("name", list(BASES))
def test_tails_of_the_laws(name):
    law, exact = BASES[name]
    for x in (0.1, 1.0, 2.5, 30.0):
        assert float(log_cdf(law, d(x))) == pytest.approx(exact.logcdf(x), rel=1e-8, abs=1e-12)
        assert float(log_survival(law, d(x))) == pytest.approx(exact.logsf(x), rel=1e-7, abs=1e-12)


@pytest.mark.parametrize("df", [1.5, 4.0, 30.0, 200.0])
def test_the_distribution_function_of_student(df):
    x = d(-1000.0 if df < 100 else -20.0, -5.0, -0.1, 0.0, 2.0, 40.0)
    law = dist.StudentT(torch.full_like(x, df), d(0.0), d(1.0))
    exact = scipy.stats.t.logcdf(x.numpy(), df)
    assert log_cdf(law, x).tolist() == pytest.approx(exact.tolist(), rel=1e-5, abs=1e-12)


@pytest.mark.parametrize("name", list(BASES))
def test_censored_laws_have_mass_one_and_draw_what_they_say(name):
    base, _ = BASES[name]
    law = nlme.Censored(base, low=0.7, high=3.0)
    grid = torch.linspace(0.7, 3.0, 20_001, dtype=torch.float64)[1:-1]
    ends = [float(law.log_prob(d(x)).exp()) for x in (0.7, 3.0)]
    inside = float(torch.trapezoid(law.log_prob(grid).exp(), grid))
    assert inside + sum(ends) == pytest.approx(1.0, abs=3e-4)
    drawn = law.sample((40_000,))
    for bound, share in zip((0.7, 3.0), ends, strict=True):
        error = math.sqrt(share * (1 - share) / len(drawn))
        assert float((drawn == bound).double().mean()) == pytest.approx(share, abs=4 * error)


def test_interval_below_the_limit():
    base = dist.Normal(d(1.0), d(2.0))
    law = nlme.Censored(base, low=0.5, floor=0.0)
    exact = scipy.stats.norm(1, 2)
    assert float(law.log_prob(d(0.5)).exp()) == pytest.approx(exact.cdf(0.5) - exact.cdf(0.0))
    some = nlme.Censored(base.expand((2,)), low=0.5, floor=d(-math.inf, 0.0))
    assert some.log_prob(d(0.5, 0.5)).exp().tolist() == pytest.approx(
        [exact.cdf(0.5), exact.cdf(0.5) - exact.cdf(0.0)]
    )


@pytest.mark.parametrize("name", ["normal", "lognormal", "student"])
def test_truncated_laws(name):
    base, exact = BASES[name]
    law = nlme.Truncated(base, low=0.8)
    assert float(law.log_prob(d(2.0))) == pytest.approx(
        exact.logpdf(2.0) - exact.logsf(0.8), rel=1e-6
    )
    assert float(law.log_prob(d(0.5))) == -math.inf
    drawn = law.sample((20_000,))
    assert float(drawn.min()) >= 0.8
    share = (exact.cdf(2.0) - exact.cdf(0.8)) / exact.sf(0.8)
    assert float((drawn < 2.0).double().mean()) == pytest.approx(share, abs=0.015)
    below = nlme.Censored(law, low=1.5)  # Beal's M4
    share = (exact.cdf(1.5) - exact.cdf(0.8)) / exact.sf(0.8)
    assert float(below.log_prob(d(1.5)).exp()) == pytest.approx(share, rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.floats(-3, 3), st.floats(0.05, 3), st.floats(0.05, 2))
def test_rounded_laws_sum_to_one(loc, scale, width):
    law = nlme.Rounded(dist.Normal(d(loc), d(scale)), width)
    reach = math.ceil((abs(loc) + 12 * scale) / width) + 1
    values = width * torch.arange(-reach, reach + 1, dtype=torch.float64)
    assert float(law.log_prob(values).exp().sum()) == pytest.approx(1.0, abs=1e-9)


def test_gradients_of_censored_laws_are_finite_far_out():
    loc = d(-200.0, 0.0, 300.0).requires_grad_()
    law = nlme.Censored(dist.Normal(loc, d(1.0)), low=-1.0, high=1.0)
    for value in (-1.0, 0.0, 1.0):
        (gradient,) = torch.autograd.grad(law.log_prob(torch.full_like(loc, value)).sum(), loc)
        assert gradient.isfinite().all()


def test_a_censored_program_keeps_its_masks_and_simulates():
    values = d(2.0, 1.0, math.nan).reshape(1, 3)
    cohort = Cohort({"y": Series(d(0.0, 1.0, 2.0).reshape(1, 3), values)})

    def model(cohort):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
        with pyro.plate("individual", len(cohort)):
            phi = pyro.sample("phi", dist.Normal(mean, 1.0))
            y = cohort["y"]
            f = phi.unsqueeze(-1).expand(y.times.shape)
            law = nlme.Censored(nlme.additive_error(f, sigma[..., None]), low=1.0)
            pyro.sample("y", law.mask(y.observed).to_event(1), obs=y.values)

    structure = read_structure(model, cohort)
    population = {"mean": d(0.5)[0], "sigma": d(0.7)[0]}
    found = structure.log_density(cohort, d(0.3).reshape(1, 1, 1), population).observation
    exact = scipy.stats.norm(0.3, 0.7)
    assert float(found) == pytest.approx(exact.logpdf(2.0) + exact.logcdf(1.0))
    assert structure.shared == ("sigma",)


# Effects.


def test_allometric_power_linear_and_categorical_effects():
    weight = d(70.0, 35.0)
    clearance, volume = nlme.allometric(weight)
    assert clearance.tolist() == pytest.approx([1.0, 0.5**0.75])
    assert volume.tolist() == pytest.approx([1.0, 0.5])
    exponent = d(1.0, 2.0)
    assert nlme.power_effect(weight, 70.0, exponent[..., None]).shape == (2, 2)
    assert nlme.linear_effect(weight, 70.0, 0.01).tolist() == pytest.approx([1.0, 0.65])
    levels = nlme.categorical_effect(d(0.0, 2.0), torch.tensor([[0.1, 0.2], [0.3, 0.4]]).double())
    assert torch.allclose(
        levels, torch.tensor([[1.0, math.exp(0.2)], [1.0, math.exp(0.4)]]).double()
    )
    with pytest.raises(ModelError, match="individual 1"):
        nlme.power_effect(d(1.0, 0.0), 70.0, 1.0)
    for wrong in (3.0, -1.0, 0.5):
        with pytest.raises(ModelError, match="Category"):
            nlme.categorical_effect(d(wrong), d(0.1, 0.2))


def test_random_effects_have_their_covariance():
    omega = d(0.5, 2.0)
    correlation = torch.linalg.cholesky(torch.tensor([[1.0, 0.6], [0.6, 1.0]]).double())
    law = nlme.random_effects(torch.zeros(3, 2).double(), omega, correlation)
    assert law.batch_shape == (3,)
    exact = torch.tensor([[0.25, 0.6], [0.6, 4.0]]).double()
    assert torch.allclose(law.covariance_matrix[0], exact)
    many = nlme.random_effects(torch.zeros(5, 3, 2).double(), omega.expand(5, 2))
    assert many.batch_shape == (5, 3)
    design = torch.tensor([[1.0, 1.0]]).double()
    summed = nlme.random_effects(torch.zeros(3, 1).double(), omega, correlation, design)
    assert float(summed.covariance_matrix[0]) == pytest.approx(0.25 + 4.0 + 1.2)
    with pytest.raises(ModelError, match="one random effect or more"):
        nlme.random_effects(torch.zeros(3, 3).double(), omega, design=torch.ones(3, 2).double())


def test_block_factor_and_design_matrices():
    full = torch.linalg.cholesky(torch.tensor([[1.0, 0.3], [0.3, 2.0]]).double())
    joined = nlme.block_factor([full, torch.eye(1).double()])
    assert torch.allclose((joined @ joined.T)[:2, :2], full @ full.T)
    with pytest.raises(ModelError, match="one column per coefficient"):
        nlme.fixed_effects(torch.ones(2, 2, 3), torch.ones(2))


def test_logitnormal_is_a_density_between_its_bounds():
    law = nlme.logitnormal(d(1.5)[0], d(0.9)[0], 1.0, 4.0)
    grid = torch.linspace(1.0, 4.0, 30_001, dtype=torch.float64)[1:-1]
    assert float(torch.trapezoid(law.log_prob(grid).exp(), grid)) == pytest.approx(1.0, abs=1e-6)
    assert float((law.sample((20_000,)) < 1.5).double().mean()) == pytest.approx(0.5, abs=0.02)


def test_box_cox_is_smooth_in_its_shape():
    eta = d(-1.0, 0.5)
    for shape in (-1e-4, -1e-6, 0.0, 1e-6, 1e-4):
        found = nlme.box_cox(eta, d(shape))
        assert torch.allclose(found, eta + shape * eta**2 / 2, atol=1e-8)
    assert float(nlme.box_cox(d(0.5), d(2.0))) == pytest.approx((math.e - 1) / 2)


def occasions_cohort():
    frame = pd.DataFrame(
        {
            "ID": [1] * 6 + [2] * 3,
            "TIME": [0, 1, 5, 24, 25, 30, 0, 2, 4],
            "DV": [math.nan, 9.0, 5.0, math.nan, 8.0, 4.0, math.nan, 7.0, 5.0],
            "AMT": [100, 0, 0, 100, 0, 0, 100, 0, 0],
            "OCC": [1, 1, 1, 2, 2, 2, 1, 1, 1],
        }
    )
    return nlme.read_table(frame, series="y")


def occasions_model(cohort):
    typical = pyro.sample("typical", dist.Normal(d(0.0, 2.3), 0.3).to_event(1))
    between = pyro.sample("between", dist.HalfNormal(d(0.3)[0]))
    sigma = pyro.sample("sigma", dist.HalfNormal(d(1.0)[0]))
    y = cohort["y"]
    visits = nlme.occasions(cohort.time_varying["OCC"], y.times)
    with pyro.plate("individual", len(cohort), dim=-1):
        phi = pyro.sample("phi", dist.Normal(typical, 0.2).to_event(1))
        with pyro.plate("occasion", visits.number, dim=-2):
            kappa = pyro.sample("kappa", dist.Normal(0.0, between))
        cl = phi[..., 0].exp().unsqueeze(-1) * kappa.mT.exp()
        v = phi[..., 1].exp()
        pieces = nlme.Piecewise(visits.changes, {"cl": cl})
        x = nlme.solve(eliminate, d(0.0), y.times, {"v": v}, doses=cohort.doses, piecewise=pieces)
        law = dist.Normal(x[..., 0] / v.unsqueeze(-1), sigma[..., None])
        pyro.sample("y", law.mask(y.observed).to_event(1), obs=y.values)


def eliminate(t, x, p):
    return -(p["cl"] / p["v"]).unsqueeze(-1) * x


def test_occasions_are_numbered_and_padded():
    cohort = occasions_cohort()
    visits = nlme.occasions(cohort.time_varying["OCC"], cohort["y"].times)
    assert visits.number == 2
    assert visits.index.tolist() == [[0, 0, 1, 1], [0, 0, 0, 0]]
    assert visits.changes.tolist() == [[24.0], [math.inf]]
    values = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert nlme.by_occasion(values, visits.index).tolist() == [[1, 1, 2, 2], [3, 3, 3, 3]]


def test_variability_between_occasions_in_a_program():
    """A nested plate: four latent coordinates per individual, the density by hand."""
    cohort = occasions_cohort()
    structure = read_structure(occasions_model, cohort)
    assert structure.num_latent == 4
    assert structure.shared == ("sigma",)
    population = {"typical": d(0.1, 2.2), "between": d(0.3)[0], "sigma": d(0.8)[0]}
    u = d(0.1, 2.3, 0.2, -0.1, -0.2, 2.1, 0.0, 0.4).reshape(1, 2, 4)
    found = structure.log_density(cohort, u, population)
    normal = scipy.stats.norm
    for i in range(2):
        a, b, first, second = u[0, i].tolist()
        prior = normal.logpdf([a, b], [0.1, 2.2], 0.2).sum()
        prior += normal.logpdf([first, second], 0.0, 0.3).sum()
        assert float(found.individual[0, i]) == pytest.approx(prior)
        amount, now, total = 0.0, 0.0, 0.0
        events = [(0.0, 100.0, None)] + ([(24.0, 100.0, None)] if i == 0 else [])
        y = cohort["y"]
        events += [
            (float(t), 0.0, float(v))
            for t, v, o in zip(y.times[i], y.values[i], y.observed[i], strict=True)
            if o
        ]
        for time, dose, value in sorted(events, key=lambda e: (e[0], -e[1])):
            k = math.exp(a + (second if i == 0 and now >= 24.0 else first) - b)
            amount = amount * math.exp(-k * (time - now)) + dose
            now = time
            if value is not None:
                total += normal.logpdf(value, amount / math.exp(b), 0.8)
        assert float(found.observation[0, i]) == pytest.approx(total, rel=1e-6)


# Cohorts with what varies over time.


def test_time_varying_covariates_travel_with_the_cohort(tmp_path):
    cohort = occasions_cohort()
    both = concatenate([cohort, replace(cohort[[0]], ids=("again",))])
    for found in (
        cohort[[0]],
        cohort.repeat(2)[[0]],
        cohort.to(dtype=torch.float32)[[0]],
        both[[0]],
    ):
        assert found.time_varying["OCC"].values[0, :6].tolist() == [1, 1, 1, 2, 2, 2]
    with pytest.raises(CohortError, match="Time-varying 'OCC'"):
        replace(
            cohort,
            time_varying={"OCC": Series(d(0.0).reshape(1, 1), d(1.0).reshape(1, 1))},
        )


def test_a_guide_reads_occasions_and_events(tmp_path):
    """Trained, saved, loaded: features of steady states and of what varies over time are in it."""
    cohort = occasions_cohort()
    steady = torch.zeros_like(cohort.doses.steady_state)
    steady[0, 0] = 1
    doses = Doses(
        **(vars(cohort.doses) | {"steady_state": steady, "intervals": 24.0 * steady.double()})
    )
    cohort = replace(cohort, doses=doses)
    options = pa.TrainingOptions(max_epochs=4)
    guide = pa.train(
        occasions_model, cohort, num_simulations=400, seed=1, options=options, progress=False
    )
    form = guide.posterior.encoder.form
    assert form.time_varying == ("OCC",)
    assert form.has_events
    guide.save(tmp_path / "guide")
    again = pa.load_guide(tmp_path / "guide", occasions_model, cohort)
    found = [
        pa.sample_individuals(
            g,
            cohort,
            population={"typical": d(0.1, 2.2), "between": d(0.3)[0], "sigma": d(0.8)[0]},
            num_draws=200,
            seed=2,
        )
        for g in (guide, again)
    ]
    assert torch.equal(found[0].estimate.log_mean, found[1].estimate.log_mean)


# Stochastic dynamics.


def ornstein(cohort):
    rate = pyro.sample("rate", dist.LogNormal(0.0, 0.3))
    sigma = pyro.sample("sigma", dist.HalfNormal(0.5))
    with pyro.plate("individual", len(cohort)):
        level = pyro.sample("level", dist.Normal(2.0, 0.5))
        y = cohort["y"]
        path = nlme.euler_maruyama(
            lambda t, x, p: p["rate"].unsqueeze(-1) * (p["level"].unsqueeze(-1) - x),
            lambda t, x, p: 0.5 * torch.ones_like(x),
            torch.zeros(1),
            y.times,
            {"rate": rate.expand(level.shape), "level": level},
            num_steps=100,
        )
        law = dist.Normal(path[..., 0], sigma[..., None]).mask(y.observed).to_event(1)
        pyro.sample("y", law, obs=y.values)


def schedule(num, *times):
    grid = torch.tensor(times, dtype=torch.float64).expand(num, -1)
    return Cohort({"y": Series(grid, torch.ones_like(grid))})


def test_moments_of_a_stochastic_differential_equation():
    """Ornstein-Uhlenbeck: mean and variance of the path are known."""
    num = 20_000
    times = d(0.5, 1.0, 2.0).expand(num, -1)
    with pyro.plate("individual", num):
        x = nlme.euler_maruyama(
            lambda t, x, p: p["k"].unsqueeze(-1) * (2 - x),
            lambda t, x, p: torch.full_like(x, 0.5),
            d(0.0),
            times,
            {"k": torch.full((num,), 1.3).double()},
            num_steps=400,
        )[..., 0]
    mean = 2 * (1 - torch.exp(-1.3 * times[0]))
    variance = 0.25 / 2.6 * (1 - torch.exp(-2.6 * times[0]))
    assert torch.allclose(x.mean(0), mean, atol=0.012)
    assert torch.allclose(x.var(0), variance, rtol=0.05)


def test_moments_of_a_birth_and_death_process():
    num = 5_000
    times = d(1.0, 4.0).expand(num, -1)
    with pyro.plate("individual", num):
        x = nlme.tau_leaping(
            lambda t, x, p: torch.stack([p["birth"], p["death"] * x[:, 0]], -1),
            torch.tensor([[1.0], [-1.0]]),
            d(0.0),
            times,
            {"birth": torch.full((num,), 20.0).double(), "death": torch.ones(num).double()},
            num_steps=200,
        )[..., 0]
    mean = 20 * (1 - torch.exp(-times[0]))  # of a Poisson law: its variance too
    assert torch.allclose(x.mean(0), mean, rtol=0.02)
    assert torch.allclose(x.var(0), mean, rtol=0.1)
    with pytest.raises(ModelError, match="stoichiometry"):
        nlme.tau_leaping(lambda t, x, p: x, torch.ones(1, 2), d(0.0), times, {})


def test_paths_are_simulated_and_dropped():
    cohort = schedule(6, 0.5, 1.0, 2.0)
    structure = read_structure(ornstein, cohort)
    assert structure.layout is not None
    assert structure.shared == ("rate", "sigma")
    assert list(structure.individual) == ["level"]
    assert list(structure.population) == ["rate", "sigma"]
    assert not structure.has_density
    with pytest.raises(ModelError, match="no density"):
        structure.log_density(cohort, torch.zeros(1, 6, 1), structure.initial_population())
    options = pa.TrainingOptions(max_epochs=2)
    guide = pa.train(ornstein, cohort, num_simulations=500, seed=1, options=options, progress=False)
    assert guide is not None


def test_stochastic_simulations_use_fresh_paths():
    cohort = schedule(4, 0.5, 1.0, 2.0)
    structure = read_structure(ornstein, cohort)
    u, shared = torch.zeros(4, 1), torch.zeros(4, 2)
    found = [
        structure.simulate(
            cohort, u, shared, structure.initial_population(), torch.Generator().manual_seed(s)
        )[0]["y"].values
        for s in (1, 1, 2)
    ]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert len({float(x) for x in found[0][:, 0]}) == 4
