"""A level above the individuals: the linear model has a closed likelihood, the binary one is
integrated by nested quadrature.
"""

import math
from dataclasses import replace

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.errors import FitError, ModelError
from pyro_amortized.numerics.maximization import maximize, observed_information

NUM_SITES, NUM_EACH = 8, 10
TRUTH = {"mu": 1.0, "omega": 0.5, "sigma": 0.3, "tau": 0.6}


def site_of(cohort):
    return cohort.covariates["site"].long()


def linear(cohort):
    mu = pyro.sample("mu", dist.Normal(0.0, 2.0))
    omega = pyro.sample("omega", dist.HalfNormal(1.0))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    tau = pyro.sample("tau", dist.HalfNormal(1.0))
    with pyro.plate("site", NUM_SITES):
        u = pyro.sample("u", dist.Normal(0.0, tau))
    with pyro.plate("individual", len(cohort)):
        b = pyro.sample("b", dist.Normal(mu + u[..., site_of(cohort)], omega))
        y = cohort["y"]
        error = dist.Normal(b[..., None].expand(y.values.shape), sigma[..., None])
        pyro.sample("y", error.mask(y.observed).to_event(1), obs=y.values)


def binary(cohort):
    mu = pyro.sample("mu", dist.Normal(0.0, 2.0))
    omega = pyro.sample("omega", dist.HalfNormal(1.0))
    tau = pyro.sample("tau", dist.HalfNormal(1.0))
    with pyro.plate("site", NUM_SITES):
        u = pyro.sample("u", dist.Normal(0.0, tau))
    with pyro.plate("individual", len(cohort)):
        b = pyro.sample("b", dist.Normal(mu + u[..., site_of(cohort)], omega))
        y = cohort["y"]
        logits = b[..., None].expand(y.values.shape)
        pyro.sample("y", dist.Bernoulli(logits=logits).mask(y.observed).to_event(1), obs=y.values)


def sites(model, seed=1, num_times=3, truth=TRUTH, num_each=NUM_EACH):
    torch.manual_seed(seed)
    num = NUM_SITES * num_each
    site = torch.arange(num).double() // num_each
    design = nlme.study(
        list(range(num_times)), num_individuals=num, series="y", covariates={"site": site}
    )
    design = design.with_values({"y": torch.zeros_like(design["y"].values)})
    structure = pa.read_structure(model, design)
    values = {n: torch.tensor(x).double() for n, x in truth.items() if n in structure.population}
    values["u"] = values["tau"] * torch.randn(NUM_SITES).double()
    return pa.simulate_population(structure, design, values, seed=seed)


def closed_log_likelihood(cohort, values):
    """Log density of all values of a site together, a normal vector."""
    y = cohort["y"].values
    mu, omega, sigma, tau = values
    width = y.shape[1]
    total = 0.0
    for s in range(NUM_SITES):
        rows = y[site_of(cohort) == s]
        own = torch.block_diag(*[torch.ones(width, width).double()] * len(rows))
        size = rows.numel()
        covariance = omega**2 * own + sigma**2 * torch.eye(size).double() + tau**2
        normal = torch.distributions.MultivariateNormal(mu.expand(size), covariance)
        total = total + normal.log_prob(rows.flatten())
    return total


def test_a_linear_model_has_the_exact_estimates_errors_and_likelihood():
    cohort = sites(linear)
    fit = pa.fit_levels(linear, cohort, seed=1)

    def objective(z):
        return closed_log_likelihood(cohort, [z[0], *z[1:].exp()])

    best = maximize(objective, torch.tensor([1.0, -0.7, -1.2, -0.5]).double())
    exact = [best.vector[0], *best.vector[1:].exp()]
    assert fit.converged
    for name, x in zip(("mu", "omega", "sigma", "tau"), exact, strict=True):
        assert abs(float(fit.estimates[name] - x)) < 0.05 * float(fit.standard_errors[name])
    assert abs(fit.minus2ll + 2 * best.value) < 3 * fit.minus2ll_mc_error + 0.02
    # Standard error of the mean: that of the closed information.
    covariance = torch.linalg.inv(observed_information(objective, best.vector))
    assert float(fit.standard_errors["mu"]) == pytest.approx(
        float(covariance[0, 0].sqrt()), rel=0.05
    )
    assert "units of 'site'" in fit.summary()
    mean, error = fit.effects["u"], fit.effect_deviations["u"]
    total = mean.var() + error.square().mean()
    assert fit.shrinkage()["u"] == pytest.approx(float(1 - (mean.var() / total).sqrt()))
    assert float(total.sqrt()) == pytest.approx(float(fit.estimates["tau"]), rel=0.3)
    assert fit.effects["u"].shape == (NUM_SITES,)


def nested_quadrature(cohort, mu, omega, tau, num=60):
    """-2LL of the binary model: Gauss-Hermite over individuals inside that over sites."""
    x, w = np.polynomial.hermite_e.hermegauss(num)
    x, log_w = torch.as_tensor(x), torch.as_tensor(np.log(w / w.sum()))
    y = cohort["y"].values
    total = 0.0
    for s in range(NUM_SITES):
        rows = y[site_of(cohort) == s]
        logits = mu + tau * x[:, None] + omega * x[None, :]  # (site node, individual node)
        log_p = torch.nn.functional.logsigmoid(logits)
        log_q = torch.nn.functional.logsigmoid(-logits)
        ones = rows.sum(1)[:, None, None]
        each = ones * log_p + (rows.shape[1] - ones) * log_q
        of_individuals = torch.logsumexp(each + log_w, -1).sum(0)
        total += float(torch.logsumexp(of_individuals + log_w, 0))
    return -2 * total


def test_a_binary_model_is_integrated_exactly_over_both_levels():
    cohort = sites(binary, truth={"mu": -1.0, "omega": 1.0, "tau": 0.7}, num_times=4)
    fit = pa.fit_levels(binary, cohort, seed=1)
    at = [float(fit.estimates[n]) for n in ("mu", "omega", "tau")]
    exact = nested_quadrature(cohort, *at)
    assert abs(fit.minus2ll - exact) < 3 * fit.minus2ll_mc_error + 0.01
    for j, name in enumerate(("mu", "omega", "tau")):
        for side in (-0.2, 0.2):  # no fifth of a standard error is better
            moved = list(at)
            moved[j] += side * float(fit.standard_errors[name])
            assert nested_quadrature(cohort, *moved) > exact - 0.01


def test_a_fit_without_the_level_is_refused_with_the_way():
    with pytest.raises(FitError, match="random effects of a level") as raised:
        pa.fit_population(linear, sites(linear, num_each=3))
    assert "fit_levels" in str(raised.value)


def crossed(cohort):
    """Each individual is seen at two sites."""
    mu = pyro.sample("mu", dist.Normal(0.0, 2.0))
    tau = pyro.sample("tau", dist.HalfNormal(1.0))
    with pyro.plate("site", NUM_SITES):
        u = pyro.sample("u", dist.Normal(0.0, tau))
    with pyro.plate("individual", len(cohort)):
        site = site_of(cohort)
        both = u[..., site] + u[..., (site + 1) % NUM_SITES]
        b = pyro.sample("b", dist.Normal(mu + both, 0.5))
        y = cohort["y"]
        error = dist.Normal(b[..., None].expand(y.values.shape), 0.3)
        pyro.sample("y", error.mask(y.observed).to_event(1), obs=y.values)


def two_levels(cohort):
    mu = pyro.sample("mu", dist.Normal(0.0, 2.0))
    tau = pyro.sample("tau", dist.HalfNormal(1.0))
    with pyro.plate("site", NUM_SITES):
        u = pyro.sample("u", dist.Normal(0.0, tau))
    with pyro.plate("rater", 2):
        r = pyro.sample("r", dist.Normal(0.0, tau))
    with pyro.plate("individual", len(cohort)):
        site = site_of(cohort)
        b = pyro.sample("b", dist.Normal(mu + u[..., site] + r[..., site % 2], 0.5))
        y = cohort["y"]
        error = dist.Normal(b[..., None].expand(y.values.shape), 0.3)
        pyro.sample("y", error.mask(y.observed).to_event(1), obs=y.values)


def test_crossed_levels_are_refused_with_a_way():
    cohort = sites(linear, num_each=3)
    with pytest.raises(FitError, match="depends on the effects of 2 units"):
        pa.fit_levels(crossed, cohort, num_draws=50)
    with pytest.raises(FitError, match=r"the levels \['rater', 'site'\]"):
        pa.fit_levels(two_levels, cohort)
    with pytest.raises(FitError, match="no level above"):
        pa.fit_levels(lambda c: _plain(c), cohort)


def _plain(cohort):
    mu = pyro.sample("mu", dist.Normal(0.0, 2.0))
    with pyro.plate("individual", len(cohort)):
        b = pyro.sample("b", dist.Normal(mu, 0.5))
        y = cohort["y"]
        error = dist.Normal(b[..., None].expand(y.values.shape), 0.3)
        pyro.sample("y", error.mask(y.observed).to_event(1), obs=y.values)


def test_the_collapsed_model_has_the_density_of_levels():
    """NUTS on the collapsed model is the way for what the fit refuses: its density is exact."""
    cohort = sites(linear, num_each=4)
    values = {n: torch.tensor(x).double() for n, x in TRUTH.items()}
    values["u"] = torch.zeros(NUM_SITES).double()
    collapsed = pa.marginalize(linear, population=values, num_draws=400)
    trace = pyro.poutine.trace(pyro.condition(collapsed, values)).get_trace(cohort)
    found = float(trace.nodes["log_marginal"]["fn"].log_factor)
    y = cohort["y"].values
    covariance = 0.25 * torch.ones(3, 3).double() + 0.09 * torch.eye(3).double()
    normal = torch.distributions.MultivariateNormal(torch.ones(3).double(), covariance)
    assert found == pytest.approx(float(normal.log_prob(y).sum()), abs=0.1)
    assert math.isfinite(found)


def test_a_fit_is_saved_with_its_data_and_read_again(tmp_path):
    cohort = sites(linear, num_each=4)
    names = tuple(f"site {letter}" for letter in "ABCDEFGHIJKL"[:NUM_SITES])
    cohort = replace(cohort, categories={"site": names})
    fit = pa.fit_levels(linear, cohort, fixed={"sigma": torch.tensor(0.3)}, num_draws=100, seed=1)
    assert fit.fixed == ("sigma",)
    assert float(fit.estimates["sigma"]) == pytest.approx(0.3)
    assert fit.standard_errors["sigma"].isnan()
    assert fit.standard_errors["mu"].isfinite()
    assert fit.num_parameters == 3
    fit.save(tmp_path / "levels")
    again = pa.load_levels(tmp_path / "levels", linear)
    assert again.summary() == fit.summary()
    assert "site B" in again.summary()
    assert repr(again) == repr(fit)
    assert again.cohort.ids == cohort.ids
    with pytest.raises(FitError, match="population parameters"):
        pa.load_levels(tmp_path / "levels", binary)
    with pytest.raises(FitError, match="contains no"):
        pa.load_levels(tmp_path, linear)
    file = tmp_path / "levels" / "levels.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(FitError, match="cannot be used"):
        pa.load_levels(tmp_path / "levels", linear)


def test_units_that_do_not_differ_have_no_standard_error_and_it_is_said():
    cohort = sites(linear, num_each=4)
    y, site = cohort["y"].values, site_of(cohort)
    means = torch.stack([y[site == s].mean() for s in range(NUM_SITES)])
    fit = pa.fit_levels(
        linear, cohort.with_values({"y": y - means[site, None] + 1.0}), num_draws=50, seed=1
    )
    assert float(fit.estimates["tau"]) < 0.05
    assert "tau has no standard error: half of it has the same likelihood" in fit.message
    assert fit.standard_errors["tau"].isnan()
    assert fit.standard_errors["mu"].isfinite()


def test_what_cannot_be_fixed_or_has_no_level():
    cohort = sites(linear)
    with pytest.raises(FitError, match="effects of the level"):
        pa.fit_levels(linear, cohort, fixed={"u": torch.zeros(NUM_SITES)})
    with pytest.raises(FitError, match="fit_population"):
        pa.fit_levels(_plain, cohort)


def lines(cohort):
    """Intercept and slope, both different between sites."""
    mu = pyro.sample("mu", dist.Normal(torch.zeros(2), 2.0).to_event(1))
    omega = pyro.sample("omega", dist.HalfNormal(torch.ones(2)).to_event(1))
    tau = pyro.sample("tau", dist.HalfNormal(torch.ones(2)).to_event(1))
    site = cohort.covariates["site"].long()
    with pyro.plate("site", 5):
        effect = pyro.sample("effect", dist.Normal(torch.zeros(2), tau).to_event(1))
    with pyro.plate("individual", len(cohort)):
        b = pyro.sample("b", dist.Normal(mu + effect[..., site, :], omega).to_event(1))
        y = cohort["y"]
        line = b[..., :1] + b[..., 1:] * y.times
        pyro.sample("y", dist.Normal(line, 0.4).mask(y.observed).to_event(1), obs=y.values)


def line_cohort(num_each=4):
    generator = torch.Generator().manual_seed(4)
    site, times = torch.arange(5).repeat_interleave(num_each), torch.arange(3.0).double()

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    scale = torch.tensor([0.9, 0.6]).double()
    b = torch.tensor([1.0, 0.5]) + (normal(5, 2) * scale)[site] + 0.4 * normal(len(site), 2)
    values = b[:, :1] + b[:, 1:] * times + 0.4 * normal(len(site), 3)
    series = pa.Series(times.expand(len(site), -1).clone(), values)
    return pa.Cohort({"y": series}, covariates={"site": site.double()})


@pytest.mark.slow
def test_two_effects_of_a_site_have_the_closed_likelihood():
    cohort, mu = line_cohort(), torch.tensor([1.1, 0.6]).double()
    held = {"omega": torch.tensor([0.4, 0.4]), "mu": mu}
    fit = pa.fit_levels(lines, cohort, fixed=held, num_draws=50, seed=1)
    design = torch.stack([torch.ones(3), torch.arange(3.0)], -1).double().repeat(4, 1)
    own = design[:3] @ design[:3].T * 0.16 + 0.16 * torch.eye(3).double()

    def closed(v):
        between = design @ torch.diag((2 * v).exp()) @ design.T
        law = dist.MultivariateNormal(design @ mu, between + torch.block_diag(*[own] * 4))
        return law.log_prob(cohort["y"].values.reshape(5, 12)).sum()

    best = maximize(closed, torch.tensor([-0.1, -0.5]).double())
    errors = torch.linalg.inv(observed_information(closed, best.vector)).diagonal().sqrt()
    found = fit.estimates["tau"].log()
    assert float(((found - best.vector) / errors).abs().max()) < 0.01
    assert abs(fit.minus2ll + 2 * best.value) < 3 * fit.minus2ll_mc_error + 0.005


@pytest.mark.parametrize(("number", "words"), [(-1.0, "site = -1"), (0.5, "site = 0.5")])
def test_a_number_that_is_read_as_that_of_another_site_is_named(number, words):
    cohort = line_cohort()
    sites = cohort.covariates["site"].clone()
    sites[0] = number
    wrong = pa.Cohort(dict(cohort.series), covariates={"site": sites})
    with pytest.raises(FitError, match=f"Individual 1 has {words}"):
        pa.fit_levels(lines, wrong, num_draws=50, seed=1)


def test_sites_that_begin_at_one_are_an_error_that_says_so():
    cohort = line_cohort()
    wrong = pa.Cohort(dict(cohort.series), covariates={"site": cohort.covariates["site"] + 1})
    with pytest.raises(ModelError, match="begin at 0"):
        pa.fit_levels(lines, wrong, num_draws=50, seed=1)
