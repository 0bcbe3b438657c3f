"""One line changed: the posterior of population and individuals beside NUTS."""

import time
import warnings

import arviz
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC, NUTS

import pyro_amortized as pa
from pyro_amortized.errors import FitError
from tests.exact import exact_log_marginal, exact_posterior, linear_program


def exact_program(cohort):
    """The population sites of the linear program, with the closed form of the rest."""
    mean = pyro.sample("mean", dist.Normal(torch.tensor([0.5, 0.5]), 1.0).to_event(1))
    omega = pyro.sample("omega", dist.HalfNormal(torch.ones(2)).to_event(1))
    sigma = pyro.sample("sigma", dist.LogNormal(-1.0, 0.5))
    population = {"mean": mean.double(), "omega": omega.double(), "sigma": sigma.double()}
    pyro.factor("marginal", exact_log_marginal(cohort, population).sum())


@pytest.fixture(scope="module")
def mcmc(linear, linear_guide):
    state, before = torch.get_rng_state(), len(pyro.get_param_store())
    chain = pa.AmortizedMCMC(
        linear_program, guide=linear_guide, num_samples=500, num_chains=2, seed=1
    )
    chain.run(linear)
    assert torch.equal(torch.get_rng_state(), state)
    assert len(pyro.get_param_store()) == before
    return chain


def moments(samples):
    return {name: (x.double().mean(0), x.double().std(0)) for name, x in samples.items()}


@pytest.mark.slow
def test_the_population_is_that_of_nuts_on_the_exact_marginal(mcmc, linear):
    pyro.set_rng_seed(1)
    kernel = NUTS(exact_program, max_tree_depth=6)
    # A chain of 500 has an error of up to 0.1 posterior sd, which is too large beside the bound.
    chain = MCMC(kernel, num_samples=1500, warmup_steps=200, disable_progbar=True)
    chain.run(linear)
    ours = moments(mcmc.get_samples())
    for name, (mean, sd) in moments(chain.get_samples()).items():
        assert ((ours[name][0] - mean) / sd).abs().max() < 0.25, name
        assert (ours[name][1] / sd - 1).abs().max() < 0.25, name


@pytest.mark.slow
def test_individuals_carry_the_uncertainty_of_the_population(mcmc, linear):
    samples = mcmc.get_samples()
    rows = torch.arange(0, 1000, 10)
    exact = [
        exact_posterior(linear, {n: samples[n][i].double() for n in ("mean", "omega", "sigma")})
        for i in rows
    ]
    mean = torch.stack([m for m, _ in exact])
    within = torch.stack([c.diagonal(dim1=-2, dim2=-1) for _, c in exact]).mean(0)
    sd = (within + mean.var(0)).sqrt()
    assert samples["phi"].shape == (1000, 40, 2)
    assert ((samples["phi"].mean(0) - mean.mean(0)) / sd).abs().max() < 0.25
    assert (samples["phi"].std(0) / sd - 1).abs().mean() < 0.05


@pytest.mark.slow
def test_it_is_used_like_an_mcmc(mcmc, capsys):
    grouped = mcmc.get_samples(group_by_chain=True)
    assert grouped["mean"].shape == (2, 500, 2)
    assert mcmc.get_samples(num_samples=7)["phi"].shape == (7, 40, 2)
    mcmc.summary(prob=0.8)
    printed = capsys.readouterr().out
    assert "omega[0]" in printed
    assert "phi[39,1]" in printed
    assert "Pareto k" in printed


@pytest.mark.slow
def test_its_diagnostics_are_those_of_independent_draws(mcmc, capsys):
    """There is no chain, so no diagnostic of a chain is reported."""
    diagnostics = mcmc.diagnostics()
    assert set(diagnostics) == {"num_draws", "num_weighted_draws", "ess", "pareto_k", "individuals"}
    assert diagnostics["num_draws"] == 1000
    assert 0 < diagnostics["ess"] <= diagnostics["num_weighted_draws"] == 2000
    assert diagnostics["pareto_k"] < 0.7
    assert diagnostics["individuals"] == {}
    for name in ("divergences", "acceptance rate"):
        assert name not in diagnostics
        with pytest.raises(FitError, match="no chain"):
            diagnostics[name]
    with pytest.raises(KeyError):
        diagnostics["mean"]
    mcmc.summary()
    printed = capsys.readouterr().out
    assert "r_hat" not in printed
    assert "n_eff" not in printed
    rows = {line.split()[0]: line.split()[1:] for line in printed.splitlines() if line.strip()}
    assert rows["mean"] == ["std", "median", "5.0%", "95.0%"]  # the header
    sigma = mcmc.get_samples()["sigma"]
    shown = [float(x) for x in rows["sigma"]]
    assert shown[:3] == [round(float(x), 2) for x in (sigma.mean(), sigma.std(), sigma.median())]
    inside = (sigma >= shown[3] - 0.005) & (sigma <= shown[4] + 0.005)
    assert 0.89 < float(inside.double().mean()) < 0.99


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(arviz, "from_pyro"), reason="ArviZ 1.x has no from_pyro")
def test_arviz_is_not_told_of_a_chain_without_divergences(mcmc):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(FitError, match="no chain") as caught:
            arviz.from_pyro(mcmc)
    assert "to_arviz" in caught.value.fix


def test_what_cannot_be_asked_of_it(linear_guide):
    with pytest.raises(FitError, match="at least 1"):
        pa.AmortizedMCMC(linear_program, guide=linear_guide, num_samples=0)
    with pytest.raises(FitError, match="run"):
        pa.AmortizedMCMC(linear_program, guide=linear_guide).get_samples()


SCRIPT = """
from pyro.infer import MCMC, NUTS
chain = {line}
chain.run(cohort)
samples = chain.get_samples()
"""
BEFORE = "MCMC(NUTS(model, max_tree_depth=6), 400, 200, disable_progbar=True)"
AFTER = "pa.AmortizedMCMC(model, 400, guide=guide)"


@pytest.mark.slow
def test_one_line_of_a_script_changes(linear, linear_guide):
    """The same script, population and individuals; the ratio of the times is printed (pytest -s)
    for 1, 10 and 100 cohorts of the design. `benchmarks/swap_in.py` times it properly.
    """
    cohort, samples, seconds = linear, {}, {}
    for line in (BEFORE, AFTER):
        pyro.set_rng_seed(3)
        names = {"model": linear_program, "cohort": cohort, "guide": linear_guide, "pa": pa}
        begin = time.perf_counter()
        exec(SCRIPT.format(line=line), names)
        seconds[line] = time.perf_counter() - begin
        samples[line] = moments(names["samples"])
    history = linear_guide.history
    training = history.training_seconds + history.simulation_seconds
    ratios = [n * seconds[BEFORE] / (training + n * seconds[AFTER]) for n in (1, 10, 100)]
    print(f"NUTS takes {ratios} times as long for 1, 10, 100 cohorts, training included")  # noqa: T201
    assert samples[AFTER].keys() == samples[BEFORE].keys()
    z = torch.cat(
        [
            (
                (samples[AFTER][name][0] - mean.reshape(samples[AFTER][name][0].shape))
                / sd.reshape(samples[AFTER][name][0].shape)
            ).flatten()
            for name, (mean, sd) in samples[BEFORE].items()
        ]
    )
    assert z.pow(2).mean().sqrt() < 0.2
    assert z.abs().max() < 0.6  # two chains of 400 draws
