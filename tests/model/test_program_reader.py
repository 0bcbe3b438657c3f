import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import biject_to

import pyro_amortized as pa
from pyro_amortized.errors import ModelError
from pyro_amortized.model import read_structure
from pyro_amortized.runtime.random_numbers import make_generator
from tests.exact import TRUTH, linear_cohort, linear_program
from tests.programs import STYLES, event_time, growth_cohort

SHARED = {
    "non_centred": ("mean", "omega", "sigma"),
    "indexed": ("mean", "sigma"),
}


@pytest.fixture(params=STYLES, scope="module")
def style(request):
    """Every style; later also with as many individuals as times, where wrong shapes are silent."""
    return request.param, STYLES[request.param]


@pytest.mark.parametrize("num", [5, 7])
def test_roles_and_layout(style, num):
    name, program = style
    structure = read_structure(program, growth_cohort(num))
    assert structure.shared == SHARED.get(name, ("sigma",))
    assert structure.series == ["y"]
    assert (structure.layout is None) == (name == "indexed")
    assert not pyro.get_param_store().keys()


@pytest.mark.parametrize("num", [5, 7])
def test_log_density_is_the_programs_own(style, num):
    """K draws per individual against one ordinary trace per draw, Jacobian by hand."""
    name, program = style
    cohort = growth_cohort(num)
    structure = read_structure(program, cohort)
    population = structure.draw_populations(cohort, 1, make_generator(1))[0]
    draws = structure.draw_individuals(cohort, population, 3, make_generator(2))
    density = structure.log_density(cohort, draws, population)
    for k in range(3):
        values, jacobian = structure.constrain(cohort, draws[k], population)
        data = {**population, **values}
        samples = {
            n: x
            for n, x in data.items()
            if not structure.population.get(n) or not structure.population[n].is_param
        }
        params = {n: x for n, x in data.items() if n not in samples}
        with pyro.poutine.block(), pyro.get_param_store().scope():
            conditioned = pyro.poutine.condition(program, data=samples)
            if params:
                conditioned = pyro.poutine.substitute(conditioned, data=params)
            trace = pyro.poutine.trace(conditioned).get_trace(cohort)
        individual = sum(
            trace.nodes[n]["fn"].log_prob(trace.nodes[n]["value"]).sum()
            for n in structure.individual
        )
        trace.compute_log_prob(lambda n, _: n in structure.observed)
        observation = sum(trace.nodes[n]["log_prob_sum"] for n in structure.observed)
        # The steps of an ODE solver depend on the batch.
        rtol = 1e-4 if name == "ode" else 1e-6
        assert torch.allclose(density.observation[k].sum(), observation, rtol=rtol)
        assert torch.allclose(density.individual[k].sum(), individual + jacobian.sum(), rtol=1e-6)


def test_unconstrain_inverts_constrain(style):
    _, program = style
    cohort = growth_cohort(6)
    structure = read_structure(program, cohort)
    population = structure.draw_populations(cohort, 1, make_generator(1))[0]
    draws = structure.draw_individuals(cohort, population, 1, make_generator(2))[0]
    values, _ = structure.constrain(cohort, draws, population)
    assert torch.allclose(structure.unconstrain(cohort, values, population), draws, atol=1e-6)


def test_simulation_gives_each_individual_its_shared_parameters(style):
    """A tiny residual error in one half and a large one in the other."""
    _, program = style
    cohort = growth_cohort(5, missing=False).repeat(8)
    structure = read_structure(program, cohort)
    population = structure.initial_population()
    vectors = []
    for scale in (1e-4, 3.0):
        values = {n: population[n] for n in structure.shared} | {"sigma": torch.tensor(scale)}
        vectors.append(structure.unconstrain_population(values, structure.shared))
    shared = torch.stack([vectors[int(i >= 20)] for i in range(40)])
    latent = torch.zeros(40, structure.num_latent)
    first, failed = structure.simulate(cohort, latent, shared, population, make_generator(1))
    second, _ = structure.simulate(cohort, latent, shared, population, make_generator(2))
    difference = (first["y"].values - second["y"].values).abs().mean(1)
    assert difference[:20].max() < 1e-2 < 0.3 < difference[20:].min()
    assert not failed.any()


def test_every_parameter_moves_the_simulated_data(style):
    name, program = style
    cohort = growth_cohort(5, missing=False)
    structure = read_structure(program, cohort)
    population = structure.initial_population()
    shared = structure.unconstrain_population(population, structure.shared).expand(5, -1)
    latent = torch.full((5, structure.num_latent), 0.1)
    base, _ = structure.simulate(cohort, latent, shared, population, make_generator(1))
    moving = 0
    for j in range(structure.num_latent):
        moved = latent.clone()
        moved[:, j] += 0.5
        other, _ = structure.simulate(cohort, moved, shared, population, make_generator(1))
        moving += bool((other["y"].values != base["y"].values).any())
    # Of the three parts of the Dirichlet site only the first enters the curve; its coordinates mix.
    assert moving >= structure.num_latent - (1 if name == "several_supports" else 0)


def test_population_vectors_round_trip(style):
    _, program = style
    cohort = growth_cohort(6)
    structure = read_structure(program, cohort)
    population = structure.draw_populations(cohort, 1, make_generator(3))[0]
    vector = structure.unconstrain_population(population)
    back = structure.constrain_population(vector)
    assert len(vector) == len(structure.population_names)
    for name, value in population.items():
        assert torch.allclose(back[name], value, atol=1e-6)


def test_log_prior_is_the_sum_of_the_population_sites():
    cohort = linear_cohort()
    structure = read_structure(linear_program, cohort)
    expected = (
        dist.Normal(0.5, 1.0).log_prob(TRUTH["mean"]).sum()
        + dist.HalfNormal(1.0).log_prob(TRUTH["omega"]).sum()
        + dist.LogNormal(-1.0, 0.5).log_prob(TRUTH["sigma"])
    )
    assert torch.allclose(structure.log_prior(cohort, TRUTH), expected.double(), atol=1e-6)


def test_masks_mean_the_same_in_every_way_of_writing_them():
    """Mask on the distribution, by poutine.mask, by obs_mask: one density."""
    cohort = growth_cohort(6)
    densities = {}
    for name in ("bare_sigma", "plate_time", "time_outside", "obs_mask"):
        structure = read_structure(STYLES[name], cohort)
        population = {"mean": torch.zeros(2), "sigma": torch.tensor(0.2)}
        draws = torch.linspace(-1, 1, 24).reshape(2, 6, 2)
        densities[name] = structure.log_density(cohort, draws, population).observation
    first = densities.pop("bare_sigma")
    for other in densities.values():
        assert torch.allclose(other, first)


def test_unrecorded_values_do_not_matter():
    cohort = growth_cohort(6)
    y = cohort["y"]
    other = pa.Cohort(
        {"y": pa.Series(y.times, torch.where(y.observed, y.values, -99.0), y.observed)},
        covariates=cohort.covariates,
    )
    structure = read_structure(event_time, cohort)
    population = structure.initial_population()
    draws = torch.zeros(1, 6, 2)
    assert torch.equal(
        structure.log_density(cohort, draws, population).observation,
        structure.log_density(other, draws, population).observation,
    )


def test_simplex_jacobian_against_torch():
    cohort = growth_cohort(5)
    structure = read_structure(STYLES["several_supports"], cohort)
    population = structure.initial_population()
    draws = 0.3 * torch.randn(5, 6, dtype=torch.float64)
    values, jacobian = structure.constrain(cohort, draws, population)
    expected = draws[:, 0] + draws[:, 1]  # exp, exp
    unit = biject_to(torch.distributions.constraints.unit_interval)
    expected = expected + unit.log_abs_det_jacobian(draws[:, 2], unit(draws[:, 2]))
    simplex = biject_to(torch.distributions.constraints.simplex)
    expected = expected + simplex.log_abs_det_jacobian(draws[:, 3:5], simplex(draws[:, 3:5]))
    late = biject_to(torch.distributions.constraints.interval(0.0, values["share"]))
    expected = expected + late.log_abs_det_jacobian(draws[:, 5], late(draws[:, 5]))
    assert torch.allclose(jacobian, expected)


# Checks of some individuals stand for all, however the table is sorted.


def test_densities_that_depend_on_others_are_found_in_any_arm():
    """Only the second half of the individuals depend on the others."""

    def model(cohort):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("individual", len(cohort)):
            phi = pyro.sample("phi", dist.Normal(mean, 1.0))
            y = cohort["y"]
            level = phi + cohort.covariates["arm"] * phi.mean(-1, keepdim=True)
            distribution = dist.Normal(level[..., None], 1.0).mask(y.observed).to_event(1)
            pyro.sample("y", distribution, obs=y.values)

    arm = torch.arange(40).ge(20).double()
    cohort = pa.Cohort(linear_cohort().series, covariates={"arm": arm})
    with pytest.raises(ModelError, match="the log density"):
        read_structure(model, cohort)


def test_layout_is_found_where_the_first_individuals_have_no_observation():
    """As many times as individuals are checked: a wrong layout would broadcast."""

    def model(cohort):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        sigma = pyro.sample("sigma", dist.LogNormal(0.0, 1.0))
        with pyro.plate("individual", len(cohort)):
            phi = pyro.sample("phi", dist.Normal(mean, 1.0))
            y = cohort["y"]
            distribution = dist.Normal(phi[..., None].expand(y.values.shape), sigma)
            pyro.sample("y", distribution.mask(y.observed).to_event(1), obs=y.values)

    y = linear_cohort(width=5, missing=0.0)["y"]
    observed = y.observed & (torch.arange(40) >= 10)[:, None]
    cohort = pa.Cohort({"y": pa.Series(y.times, y.values, observed)})
    assert read_structure(model, cohort).layout == {"sigma": 1}
