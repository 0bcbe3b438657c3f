"""One line changed: the posterior of population and individuals beside the exact one."""

import warnings

import arviz
import pyro
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.errors import FitError, ModelError
from tests.exact import exact_posterior, linear_program, unpack
from tests.population.linear_models import exact_population_posterior


@pytest.fixture(scope="module")
def mcmc(linear, linear_guide):
    state, before = torch.get_rng_state(), len(pyro.get_param_store())
    chain = pa.AmortizedMCMC(
        linear_program, guide=linear_guide, num_samples=250, num_chains=2, seed=1
    )
    chain.run(linear)
    assert torch.equal(torch.get_rng_state(), state)
    assert len(pyro.get_param_store()) == before
    return chain


@pytest.mark.slow
def test_the_population_is_that_of_the_exact_marginal(mcmc, linear):
    samples = mcmc.get_samples()
    vectors, weights = exact_population_posterior(linear)
    for name, values in unpack(vectors.mT).items():
        values = values.reshape(-1, len(weights))
        mean = values @ weights
        sd = ((values - mean[:, None]) ** 2 @ weights).sqrt()
        draws = samples[name].double().reshape(len(samples[name]), -1)
        assert ((draws.mean(0) - mean) / sd).abs().max() < 0.2, name
        assert (draws.std(0) / sd - 1).abs().max() < 0.2, name


@pytest.mark.slow
def test_individuals_carry_the_uncertainty_of_the_population(mcmc, linear):
    samples = mcmc.get_samples()
    rows = torch.arange(0, 500, 5)
    exact = [
        exact_posterior(linear, {n: samples[n][i].double() for n in ("mean", "omega", "sigma")})
        for i in rows
    ]
    mean = torch.stack([m for m, _ in exact])
    within = torch.stack([c.diagonal(dim1=-2, dim2=-1) for _, c in exact]).mean(0)
    sd = (within + mean.var(0)).sqrt()
    assert samples["phi"].shape == (500, 40, 2)
    # The error of the mean of 500 draws is 0.045, and that of the mean of 100 populations.
    assert ((samples["phi"].mean(0) - mean.mean(0)) / sd).square().mean().sqrt() < 0.1
    assert (samples["phi"].std(0) / sd - 1).abs().mean() < 0.05


@pytest.mark.slow
def test_it_is_used_like_an_mcmc(mcmc, capsys):
    grouped = mcmc.get_samples(group_by_chain=True)
    assert grouped["mean"].shape == (2, 250, 2)
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
    assert diagnostics["num_draws"] == 500
    assert 0 < diagnostics["ess"] <= diagnostics["num_weighted_draws"] == 1000
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
BEFORE = "MCMC(NUTS(model, max_tree_depth=3), 20, 20, disable_progbar=True)"
AFTER = "pa.AmortizedMCMC(model, 20, guide=guide)"


@pytest.mark.slow
@pytest.mark.usefixtures("small_populations")
def test_one_line_of_a_script_changes(linear, linear_guide):
    """The same script, population and individuals. That the draws are right is tested above with
    exact results; `benchmarks/swap_in.py` compares them, and the times, with long chains.
    """
    samples = {}
    for line in (BEFORE, AFTER):
        names = {"model": linear_program, "cohort": linear[:10], "guide": linear_guide, "pa": pa}
        exec(SCRIPT.format(line=line), names)
        samples[line] = names["samples"]
    assert samples[AFTER].keys() == samples[BEFORE].keys()
    for name, draws in samples[AFTER].items():
        assert draws.squeeze().shape == samples[BEFORE][name].squeeze().shape, name
        assert draws.dtype == samples[BEFORE][name].dtype, name
        assert draws.isfinite().all()


def test_the_arguments_of_another_program_name_the_adapter(linear):
    chain = pa.AmortizedMCMC(linear_program, 10)
    times, values = linear["y"].times, linear["y"].values
    for arguments, named in (((times, values), {}), ((times,), {"y": values})):
        with pytest.raises(ModelError, match=r"got 2 arguments[\s\S]*pa.adapt"):
            chain.run(*arguments, **named)
