import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.errors import ModelError
from pyro_amortized.model.predictions import predict
from tests.applications.kit import VALUES, known, patients


def errors(kind):
    def model(cohort):
        sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
        with pyro.plate("individual", len(cohort)):
            phi = pyro.sample("phi", dist.Normal(0.0, 1.0))
            y = cohort["y"]
            f = phi.exp().unsqueeze(-1) + y.times
            sd = sigma[..., None]
            error = {
                "lognormal": lambda: nlme.lognormal_error(f, sd),
                "student": lambda: nlme.student_error(f, sd + 0 * f, 0.5),
                "censored": lambda: nlme.Censored(nlme.additive_error(f, sd), low=2.5),
                "poisson": lambda: dist.Poisson(f),
            }[kind]()
            pyro.sample("y", error.mask(y.observed).to_event(1), obs=y.values)

    return model


@pytest.mark.parametrize("kind", ["lognormal", "student", "censored", "poisson"])
def test_a_prediction_has_no_residual_error_and_no_limit(kind):
    cohort = nlme.study([0.0, 1.0, 2.0], num_individuals=2, series="y")
    structure = pa.read_structure(errors(kind), cohort)
    draws = torch.zeros(3, 2, 1).double()
    population = {"sigma": torch.tensor(0.5).double()}
    generator = torch.Generator().manual_seed(1)
    result = predict(structure, cohort, draws, population, generator=generator)
    expected = torch.tensor([1.0, 2.0, 3.0]).double().expand(3, 2, 3)
    assert torch.allclose(result.prediction, expected)
    assert not torch.allclose(result.observation, expected)
    if kind == "censored":
        assert float(result.observation.min()) == 2.5
    assert predict(structure, cohort, draws, population).observation is None


def test_each_draw_may_have_a_population_of_its_own():
    """One call for all draws gives what a call for each gives."""
    structure = known().structure(patients(2))
    vector = structure.unconstrain_population(known().estimates)
    vectors = vector + 0.1 * torch.arange(4).double().unsqueeze(1)
    draws = torch.randn(4, 2, 3).double() / 10 + torch.tensor([1.4, 4.2, 0.0]).double()
    together = predict(structure, patients(2), draws, vectors).prediction
    for k in range(4):
        population = structure.constrain_population(vectors[k])
        alone = predict(structure, patients(2), draws[[k]], population).prediction[0]
        assert torch.allclose(together[k], alone)
    own = patients(2).repeat(4)
    unlabelled = pa.Cohort(dict(own.series), own.doses)
    assert torch.equal(predict(structure, unlabelled, draws, vectors).prediction, together)
    noise = predict(
        structure, patients(2), draws, vectors, generator=torch.Generator().manual_seed(1)
    )
    assert noise.observation.shape == together.shape
    assert VALUES["b"] == 0.1


def test_quantities_are_series_or_deterministic_sites():
    structure = known().structure(patients())
    draws = torch.tensor([[[1.4, 4.2, 0.0]]]).double()
    y = predict(structure, patients(), draws, known().estimates).prediction
    effect = predict(structure, patients(), draws, known().estimates, quantity="effect").prediction
    assert torch.allclose(effect, y / (1 + y))
    for name in ("typical", "none"):
        with pytest.raises(ModelError, match="correct `quantity=`"):
            predict(structure, patients(), draws, known().estimates, quantity=name)
