"""Models written without this library in mind: densities, draws, and posteriors beside NUTS."""

import json
import warnings

import other_models
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.errors import ModelError
from tests.paths import TESTS

NUTS = json.loads((TESTS / "references" / "other_models.json").read_text("utf-8"))


@pytest.mark.parametrize("name", list(other_models.PROBLEMS))
def test_an_adapted_program_has_the_density_of_the_original(name):
    """At draws of the adapted program. The original cannot leave out what was not recorded."""
    p = other_models.PROBLEMS[name]()
    trace = poutine.trace(p.program).get_trace(p.cohort)
    trace.compute_log_prob()
    latent = (n for n in trace.stochastic_nodes if n != "individual")
    values = {n: trace.nodes[n]["value"] for n in latent}
    original = poutine.trace(poutine.condition(p.original, values)).get_trace(
        *p.arguments(p.cohort)
    )
    original.compute_log_prob()
    series = next(iter(p.cohort.series))
    site = next(
        n for n, s in original.nodes.items() if s.get("is_observed") and n in ("obs", series)
    )
    adapted = trace.nodes[series]["log_prob"]
    seen = p.cohort[series].observed.flatten()
    each = original.nodes[site]["log_prob"].flatten()
    if len(each) == len(seen):
        each = torch.where(seen, each, 0.0)
    assert torch.allclose(adapted.sum(), each.sum())
    assert any(f.name == "individual" for f in trace.nodes[series]["cond_indep_stack"])
    structure = pa.read_structure(p.program, p.cohort)
    assert structure.series == [series]


def test_observations_end_to_end_are_laid_out():
    """Values, masks and simulations; the program itself still sees its own shape."""
    seen = []

    def original(group, y):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("groups", 3):
            a = pyro.sample("a", dist.Normal(mean, 1.0))
        with pyro.plate("all", len(y)):
            seen.append(pyro.sample("obs", dist.Normal(a[..., group], 0.5), obs=y))

    values = torch.arange(6.0, dtype=torch.float64).reshape(3, 2)
    observed = torch.tensor([[True, True], [True, False], [True, True]])
    series = pa.Series(torch.zeros(3, 2).double(), values, observed)
    cohort = pa.Cohort({"y": series})
    program = pa.adapt(
        original,
        lambda c: {"group": pa.end_to_end(c, "y"), "y": c["y"].values.flatten()},
        plate="groups",
        observations={"obs": "y"},
    )
    trace = poutine.trace(program).get_trace(cohort)
    trace.compute_log_prob()
    assert seen[-1].shape == (6,)
    node = trace.nodes["y"]
    assert node["value"].shape == (3, 2)
    a = trace.nodes["a"]["value"]
    each = dist.Normal(a[:, None], 0.5).log_prob(cohort["y"].values)
    assert torch.allclose(node["log_prob"], (each * observed).sum(1))
    simulated = poutine.trace(poutine.uncondition(program)).get_trace(cohort)
    assert simulated.nodes["y"]["value"].shape == (3, 2)
    assert not torch.equal(simulated.nodes["y"]["value"], values)


def test_shapes_that_are_neither(tmp_path):
    def original(y):
        with pyro.plate("groups", 3):
            a = pyro.sample("a", dist.Normal(0.0, 1.0))
        pyro.sample("obs", dist.Normal(a.sum(), 1.0).expand([4]).to_event(1), obs=y)

    observed = torch.tensor([[True, False]] * 3)
    cohort = pa.Cohort({"y": pa.Series(torch.zeros(3, 2), torch.zeros(3, 2), observed)})
    program = pa.adapt(
        original, lambda c: (torch.zeros(4),), plate="groups", observations={"obs": "y"}
    )
    with pytest.raises(ModelError, match="one dimension"):
        program(cohort)


def posterior_draws(name, num_samples):
    """Of the adapted program; without a guide, whose training is not the subject."""
    p = other_models.PROBLEMS[name]()
    mcmc = pa.AmortizedMCMC(p.program, num_samples, seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pa.AmortizedWarning)
        mcmc.run(p.cohort)
    return mcmc.get_samples()


@pytest.mark.example
@pytest.mark.parametrize(("name", "num_draws"), [("seizures", 200), ("orange trees", 250)])
def test_posteriors_beside_nuts(name, num_draws):
    """Radon takes minutes: `benchmarks/swap_in.py` has it."""
    samples = posterior_draws(name, num_draws)
    for site, known in NUTS[name].items():
        mean, sd = (torch.tensor(known[k]) for k in ("mean", "sd"))
        draws = samples[site].double().reshape(num_draws, -1)
        z = (draws.mean(0) - mean) / sd
        assert z.pow(2).mean().sqrt() < 0.2, site  # 200 draws: 0.07, the chain: some 0.05
        assert z.abs().max() < 0.4, site
        assert (draws.std(0) / sd).log().abs().mean() < 0.2, site


@pytest.mark.example
def test_eight_schools_against_quadrature():
    """The population on a grid, the effects in closed form given it."""
    p = other_models.schools_problem()
    y, error = p.cohort["y"].values[:, 0].double(), p.cohort.covariates["se"].double()
    mu = torch.linspace(-20, 30, 500).double()
    log_tau = torch.linspace(-6, 4.5, 500).double()
    m, t = torch.meshgrid(mu, log_tau.exp(), indexing="ij")
    marginal = torch.distributions.Normal(m[..., None], (error**2 + t[..., None] ** 2).sqrt())
    log_p = marginal.log_prob(y).sum(-1) - m**2 / 50 - torch.log1p((t / 5) ** 2) + t.log()
    weights = log_p.flatten().softmax(0).reshape(m.shape)
    mean_mu = (weights * m).sum()
    sd_mu = (weights * (m - mean_mu) ** 2).sum().sqrt()
    share = t[..., None] ** 2 / (t[..., None] ** 2 + error**2)
    within = m[..., None] + share * (y - m[..., None])
    theta = (weights[..., None] * within).sum((0, 1))
    spread = (weights[..., None] * (share * error**2 + (within - theta) ** 2)).sum((0, 1)).sqrt()
    samples = posterior_draws("eight schools", 400)
    assert abs(samples["mu"].mean() - mean_mu) < 0.2 * sd_mu
    z = (samples["theta"].double().mean(0) - theta) / spread
    assert z.abs().max() < 0.25
    assert (samples["theta"].double().std(0) / spread).log().abs().max() < 0.25


def test_a_plate_of_a_fixed_size_follows_the_cohort():
    """A program in long format that writes the number of its groups itself."""
    group, x = torch.tensor([0, 0, 0, 1, 2, 2]), torch.arange(6.0).double()
    y = torch.sin(torch.arange(6.0)).double()

    def program(group, x, y):
        mu = pyro.sample("mu", dist.Normal(0.0, 2.0))
        tau = pyro.sample("tau", dist.HalfNormal(1.0))
        with pyro.plate("groups", 3):
            theta = pyro.sample("theta", dist.Normal(mu, tau))
        with pyro.plate("data", len(x)):
            pyro.sample("obs", dist.Normal(theta[..., group] + 0.5 * x, 0.3), obs=y)

    frame = pd.DataFrame({"ID": group.numpy(), "DV": y.numpy(), "x": x.numpy()})
    frame["TIME"] = frame.groupby("ID").cumcount()
    cohort = nlme.read_table(frame, series="y", time_varying=["x"])

    def arguments(cohort):
        x, y = cohort.time_varying["x"].values, cohort["y"].values
        return pa.end_to_end(cohort, "y"), x.flatten(), y.flatten()

    model = pa.adapt(program, arguments, plate="groups", observations={"obs": "y"})
    structure = pa.read_structure(model, cohort)  # runs it with some of the groups
    theta = torch.tensor([[[0.3], [-0.2], [1.0]]]).double()
    population = {"mu": torch.tensor(0.5).double(), "tau": torch.tensor(0.7).double()}
    of_values = dist.Normal(theta[0, group, 0] + 0.5 * x, 0.3).log_prob(y)
    expected = torch.zeros(3).double().index_add(0, group, of_values)
    prior = dist.Normal(0.5, 0.7).log_prob(theta[0, :, 0])
    for rows in ([0, 1, 2], [2], [1, 0, 0, 2]):
        found = structure.log_density(cohort[torch.tensor(rows)], theta[:, rows], population)
        torch.testing.assert_close(found.observation[0], expected[rows])
        torch.testing.assert_close(found.individual[0], prior[rows])


def test_a_plate_of_a_fixed_size_is_named_where_it_cannot_follow():
    cohort = pa.Cohort({"y": pa.Series(torch.zeros(5, 1), torch.ones(5, 1))})

    def program(cohort):
        with pyro.plate("individual", 5):
            theta = pyro.sample("theta", dist.Normal(0.0, 1.0))
            y = cohort["y"]
            error = dist.Normal(theta[..., None], 1.0).mask(y.observed)
            pyro.sample("y", error.to_event(1), obs=y.values)

    with pytest.raises(ModelError, match=r"has 5 members for 3[\s\S]*len\(cohort\)"):
        pa.read_structure(program, cohort)


def _groups(cohort, write):
    def program(times, y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        write(mu, y)

    def arguments(c):
        return c["y"].times, c["y"].values

    return pa.adapt(program, arguments, plate="groups", observations={"obs": "y"})


def test_loops_and_programs_without_a_plate_are_refused_with_a_way():
    cohort = pa.Cohort({"y": pa.Series(torch.zeros(40, 2), torch.ones(40, 2))})

    def loop(mu, y):
        for i in pyro.plate("groups", 40):
            theta = pyro.sample(f"theta_{i}", dist.Normal(mu, 1.0))
            pyro.sample(f"obs_{i}", dist.Normal(theta, 1.0).expand([2]).to_event(1), obs=y[i])

    def no_plate(mu, y):
        theta = pyro.sample("theta", dist.Normal(mu, 1.0).expand([len(y)]).to_event(1))
        pyro.sample("obs", dist.Normal(theta[..., None], 1.0).expand([40, 2]).to_event(2), obs=y)

    def many_sites(mu, y):
        for i in range(40):
            pyro.sample(f"theta_{i}", dist.Normal(mu, 1.0))

    for write, message in (
        (loop, "'groups' is a loop[\\s\\S]*compute all members at once"),
        (no_plate, "write `with pyro.plate\\('groups', n\\):`"),
        (many_sites, "\\] and others"),
    ):
        with pytest.raises(ModelError, match=message):
            pa.read_structure(_groups(cohort, write), cohort)


def test_a_mask_of_the_observations_is_adapted():
    """Pyro makes two sites of one with ``obs_mask=``."""
    values = torch.tensor([[1.0, 2.0, torch.nan], [0.5, torch.nan, 1.5]]).double()
    cohort = pa.Cohort({"y": pa.Series(torch.arange(3.0).expand(2, -1).double(), values)})

    def program(y, mask):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("groups", len(y), dim=-2):
            theta = pyro.sample("theta", dist.Normal(mu, 1.0))
            with pyro.plate("time", 3, dim=-1):
                pyro.sample("obs", dist.Normal(theta, 0.5), obs=y, obs_mask=mask)

    def arguments(c):
        return c["y"].values, c["y"].observed

    model = pa.adapt(program, arguments, plate="groups", observations={"obs": "y"})
    structure = pa.read_structure(model, cohort)
    theta, mu = torch.tensor([[[0.7], [1.1]]]).double(), torch.tensor(0.2).double()
    found = structure.log_density(cohort, theta, {"mu": mu})
    each = dist.Normal(theta[0], 0.5).log_prob(values.nan_to_num()) * ~values.isnan()
    torch.testing.assert_close(found.observation[0], each.sum(1))
    torch.testing.assert_close(found.individual[0], dist.Normal(mu, 1.0).log_prob(theta[0, :, 0]))
