"""Extended programs have the density of the same model written by hand."""

import pickle
from dataclasses import replace

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import ExpTransform

import pyro_amortized as pa
from pyro_amortized.errors import ModelError
from pyro_amortized.model.extended_program import (
    CorrelatedBlock,
    CovariateEffect,
    Entry,
    ErrorPart,
    ExtendedProgram,
    Extension,
)
from tests.exact import TRUTH, linear_cohort, linear_program

NUM = 6
INTERCEPT, SLOPE = Entry("phi", 0, "phi[0]"), Entry("phi", 1, "phi[1]")
WEIGHT = CovariateEffect(INTERCEPT, "weight", "power", 70.0)
ARM = CovariateEffect(SLOPE, "arm", "category", 0.0, (1.0, 2.0))
BETA = torch.tensor(0.7).double()
GAMMA = torch.tensor([0.3, -0.2]).double()
FACTOR = torch.tensor([[1.0, 0.0], [0.6, 0.8]]).double()


def cohort_with_covariates():
    weight = torch.tensor([50.0, 60.0, 70.0, 80.0, 90.0, 75.0]).double()
    arm = torch.tensor([0.0, 1.0, 2.0, 0.0, 1.0, 2.0]).double()
    return replace(linear_cohort(num=NUM), covariates={"weight": weight, "arm": arm})


def observe(cohort, prediction, deviation):
    y = cohort["y"]
    law = dist.Normal(prediction, deviation).mask(y.observed).to_event(1)
    pyro.sample("y", law, obs=y.values)


def by_hand(cohort):
    mean = pyro.sample("mean", dist.Normal(torch.tensor([0.5, 0.5]), 1.0).to_event(1))
    omega = pyro.sample("omega", dist.HalfNormal(torch.ones(2)).to_event(1))
    sigma = pyro.sample("sigma", dist.LogNormal(-1.0, 0.5))
    beta = pyro.sample("weight_on_phi_0", dist.Normal(0.0, 1.0))
    gamma = pyro.sample("arm_on_phi_1", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    factor = pyro.sample("correlation_of_phi_0_phi_1", dist.LKJCholesky(2))
    part = pyro.sample("proportional_error_of_y", dist.HalfNormal(1.0))
    arm, weight = cohort.covariates["arm"], cohort.covariates["weight"]
    shift = torch.stack(
        [beta * (weight / 70).log(), gamma[0] * (arm == 1) + gamma[1] * (arm == 2)], -1
    )
    with pyro.plate("individual", len(cohort)):
        law = dist.MultivariateNormal(mean + shift, scale_tril=omega.unsqueeze(-1) * factor)
        intercept, slope = pyro.sample("phi", law).unbind(-1)
        prediction = intercept[..., None] + slope[..., None] * cohort["y"].times
        observe(cohort, prediction, (sigma**2 + (part * prediction) ** 2).sqrt())


def densities(program, cohort, population, draws):
    structure = pa.read_structure(program, cohort)
    density = structure.log_density(cohort, draws, structure.check_population(population))
    return structure, density


def test_effects_correlations_and_error_have_the_density_of_a_program_by_hand():
    cohort = cohort_with_covariates()
    extension = Extension(
        (WEIGHT, ARM), (CorrelatedBlock((INTERCEPT, SLOPE)),), (ErrorPart("y", "proportional"),)
    )
    population = {
        **TRUTH,
        "weight_on_phi_0": BETA,
        "arm_on_phi_1": GAMMA,
        "correlation_of_phi_0_phi_1": FACTOR,
        "proportional_error_of_y": torch.tensor(0.2).double(),
    }
    draws = torch.randn(3, NUM, 2).double()
    program = ExtendedProgram(linear_program, extension)
    structure, density = densities(program, cohort, population, draws)
    _, expected = densities(by_hand, cohort, population, draws)
    torch.testing.assert_close(density.individual, expected.individual)
    torch.testing.assert_close(density.observation, expected.observation)
    assert set(structure.shared) == {"sigma", "proportional_error_of_y"}
    assert structure.population["arm_on_phi_1"].entry_names == [
        "arm_on_phi_1[1]",
        "arm_on_phi_1[2]",
    ]
    assert pickle.loads(pickle.dumps(program)).extension == extension


def three_sites(cohort):
    omega = pyro.sample("omega", dist.HalfNormal(torch.ones(4)).to_event(1))
    with pyro.plate("individual", len(cohort)):
        a = pyro.sample("a", dist.LogNormal(0.2, omega[..., 0]))
        b = pyro.sample("b", dist.Normal(0.5, omega[..., 1:3]).to_event(1))
        c = pyro.sample("c", dist.LogNormal(-0.5, omega[..., 3]))
        prediction = (a + b[..., 0] * c)[..., None] + b[..., 1, None] * cohort["y"].times
        observe(cohort, prediction, 0.4)


def one_site(cohort):
    omega = pyro.sample("omega", dist.HalfNormal(torch.ones(4)).to_event(1))
    factor = pyro.sample("factor", dist.LKJCholesky(4))
    with pyro.plate("individual", len(cohort)):
        mean = torch.tensor([0.2, 0.5, 0.5, -0.5])
        law = dist.MultivariateNormal(mean, scale_tril=omega.unsqueeze(-1) * factor)
        phi = pyro.sample("phi", law)
        prediction = (phi[..., 0].exp() + phi[..., 1] * phi[..., 3].exp())[..., None]
        observe(cohort, prediction + phi[..., 2, None] * cohort["y"].times, 0.4)


def test_sites_of_different_kinds_are_correlated_as_one_normal_vector():
    cohort = linear_cohort(num=NUM)
    entries = [Entry("a", 0, "a"), Entry("b", 0, "b[0]"), Entry("b", 1, "b[1]"), Entry("c", 0, "c")]
    block = CorrelatedBlock(tuple(entries))
    factor = dist.LKJCholesky(4).sample().double()
    omega = torch.tensor([0.3, 0.5, 0.2, 0.4]).double()
    draws = torch.randn(3, NUM, 4).double()
    program = ExtendedProgram(three_sites, Extension(blocks=(block,)))
    population = {"omega": omega, block.site: factor}
    _, density = densities(program, cohort, population, draws)
    _, expected = densities(one_site, cohort, {"omega": omega, "factor": factor}, draws)
    torch.testing.assert_close(density.individual, expected.individual)
    torch.testing.assert_close(density.observation, expected.observation)


def test_blocks_of_alternating_sites():
    cohort = linear_cohort(num=NUM)
    a, b0, b1, c = (
        Entry("a", 0, "a"),
        Entry("b", 0, "b0"),
        Entry("b", 1, "b1"),
        Entry("c", 0, "c"),
    )
    blocks = CorrelatedBlock((a, b1)), CorrelatedBlock((b0, c))
    omega = torch.tensor([0.3, 0.5, 0.2, 0.4]).double()
    joint = torch.eye(4).double()
    joint[0, 2] = joint[2, 0] = 0.6
    joint[1, 3] = joint[3, 1] = 0.6
    draws = torch.randn(3, NUM, 4).double()
    program = ExtendedProgram(three_sites, Extension(blocks=blocks))
    population = {"omega": omega, blocks[0].site: FACTOR, blocks[1].site: FACTOR}
    _, density = densities(program, cohort, population, draws)
    whole = {"omega": omega, "factor": torch.linalg.cholesky(joint)}
    _, expected = densities(one_site, cohort, whole, draws)
    torch.testing.assert_close(density.individual, expected.individual)


def test_a_transformed_site_keeps_its_transformation():
    def program(cohort):
        with pyro.plate("individual", len(cohort)):
            law = dist.TransformedDistribution(dist.Normal(0.1, 0.3), [ExpTransform()])
            a = pyro.sample("a", law)
            observe(cohort, a[..., None] + 0 * cohort["y"].times, 0.4)

    cohort = cohort_with_covariates()
    effect = replace(WEIGHT, entry=Entry("a", 0, "a"))
    structure = pa.read_structure(ExtendedProgram(program, Extension((effect,))), cohort)
    draws = torch.randn(2, NUM, 1).double()
    density = structure.log_individual(cohort, draws, {effect.site: BETA})
    mean = 0.1 + BETA * (cohort.covariates["weight"] / 70).log()
    torch.testing.assert_close(density, dist.Normal(mean, 0.3).log_prob(draws[..., 0]))


def test_a_new_category_and_a_law_that_is_not_normal_are_refused():
    cohort = cohort_with_covariates()
    new = {"arm": torch.full((NUM,), 7.0).double(), "weight": cohort.covariates["weight"]}
    with pytest.raises(ModelError, match="values besides"):
        ARM.columns(replace(cohort, covariates=new))

    def gamma(cohort):
        with pyro.plate("individual", len(cohort)):
            a = pyro.sample("a", dist.Gamma(2.0, 2.0))
            observe(cohort, a[..., None] + 0 * cohort["y"].times, 0.4)

    effect = replace(WEIGHT, entry=Entry("a", 0, "a"))
    with pytest.raises(ModelError, match="not normal on any scale"):
        pa.read_structure(ExtendedProgram(gamma, Extension((effect,))), cohort)


def test_observations_that_are_not_normal_have_no_further_error():
    def program(cohort):
        with pyro.plate("individual", len(cohort)):
            a = pyro.sample("a", dist.Normal(0.0, 1.0))
            y = cohort["y"]
            law = dist.StudentT(4.0, a[..., None], 0.4).expand(y.values.shape)
            pyro.sample("y", law.mask(y.observed).to_event(1), obs=y.values)

    extension = Extension(errors=(ErrorPart("y", "additive"),))
    with pytest.raises(ModelError, match="observations"):
        pa.read_structure(ExtendedProgram(program, extension), cohort_with_covariates())
