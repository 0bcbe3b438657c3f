"""Programs that the library must refuse, each with what its message names."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.reparam import LocScaleReparam

from pyro_amortized import Cohort, Series
from pyro_amortized.errors import ModelError
from pyro_amortized.model import read_structure
from tests.programs import curve, growth_cohort


def _refused(program, match, cohort=None):
    with pytest.raises(ModelError, match=match) as caught:
        read_structure(program, cohort if cohort is not None else growth_cohort(6))
    text = str(caught.value)
    assert "Expected: " in text
    assert "To fix: " in text


def _with(latent=None, observe=None, plate="individual", size=None):
    def program(cohort):
        sigma = pyro.sample("sigma", dist.HalfNormal(0.5))
        y = cohort["y"]
        with pyro.plate(plate, size or len(cohort)):
            rate = latent() if latent else pyro.sample("rate", dist.LogNormal(0.0, 0.5))
            prediction = curve(y.times, torch.ones_like(rate), rate)
            if observe:
                observe(prediction, sigma, y)
            else:
                distribution = dist.Normal(prediction, sigma[..., None]).mask(y.observed)
                pyro.sample("y", distribution.to_event(1), obs=y.values)

    return program


def test_no_plate_individual():
    _refused(_with(plate="subject"), "no plate|plates \\['subject'\\]")


def test_observation_without_series():
    def observe(prediction, sigma, y):
        distribution = dist.Normal(prediction, sigma[..., None]).mask(y.observed).to_event(1)
        pyro.sample("concentration", distribution, obs=y.values)

    _refused(_with(observe=observe), "'concentration' has no series")


def test_shapes_that_disagree():
    def observe(prediction, sigma, y):
        distribution = (
            dist.Normal(prediction[:, :2], sigma[..., None]).mask(y.observed[:, :2]).to_event(1)
        )
        pyro.sample("y", distribution, obs=y.values[:, :2])

    _refused(_with(observe=observe), "shape")


def test_discrete_latent():
    def latent():
        return 1.0 + pyro.sample("kind", dist.Bernoulli(0.5))

    _refused(_with(latent=latent), "'kind' is discrete")


def test_no_mask():
    def observe(prediction, sigma, y):
        pyro.sample("y", dist.Normal(prediction, sigma[..., None]).to_event(1), obs=y.values)

    _refused(_with(observe=observe), "not recorded enter the density")


def test_mask_that_hides_recorded_values():
    def observe(prediction, sigma, y):
        mask = y.observed & (y.times > 1.0)
        pyro.sample(
            "y", dist.Normal(prediction, sigma[..., None]).mask(mask).to_event(1), obs=y.values
        )

    _refused(_with(observe=observe), "masks .* values that the cohort declares as recorded")


def test_mask_after_the_event_when_sizes_agree():
    """With as many times as individuals this broadcasts without an error."""

    def observe(prediction, sigma, y):
        distribution = dist.Normal(prediction, sigma[..., None]).to_event(1).mask(y.observed)
        pyro.sample("y", distribution, obs=y.values)

    with pytest.raises((ModelError, ValueError)):
        read_structure(_with(observe=observe), growth_cohort(5))


def test_transformed_observation():
    def observe(prediction, sigma, y):
        distribution = dist.Normal(prediction, sigma[..., None]).mask(y.observed).to_event(1)
        pyro.sample("y", distribution, obs=2 * y.values)

    _refused(_with(observe=observe), "observes other values")


def test_plate_of_another_size():
    _refused(_with(size=1), "size 6")


def test_subsampled_plate():
    def program(cohort):
        with pyro.plate("individual", len(cohort), subsample_size=3):
            pyro.sample("rate", dist.LogNormal(0.0, 0.5))

    _refused(program, "3 of 6")


def test_sequential_plate():
    def program(cohort):
        for i in pyro.plate("individual", len(cohort)):
            rate = pyro.sample(f"rate_{i}", dist.LogNormal(0.0, 0.5))
            y = cohort["y"]
            pyro.sample(
                f"y_{i}",
                dist.Normal(curve(y.times[i], rate, rate), 1.0).to_event(1),
                obs=y.values[i],
            )

    _refused(program, "sequential")


def test_no_latent_site():
    def latent():
        return torch.ones(6)

    _refused(_with(latent=latent), "no latent site")


def test_observation_outside_the_plate():
    def program(cohort):
        _with()(cohort)
        pyro.sample("z", dist.Normal(0.0, 1.0), obs=torch.tensor(1.0))

    _refused(program, "outside the plate")


def test_discrete_population_site():
    def program(cohort):
        pyro.sample("switch", dist.Bernoulli(0.5))
        _with()(cohort)

    _refused(program, "'switch' is discrete")


def _reparameterized(centred):
    handler = LocScaleReparam(centred)
    return pyro.poutine.reparam(_normal_program, config={"phi": handler})


def _normal_program(cohort):
    mean = pyro.sample("mean", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(0.5))
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(mean, torch.ones(2)).to_event(1))
        y = cohort["y"]
        normal = dist.Normal(curve(y.times, *phi.exp().unbind(-1)), sigma[..., None])
        pyro.sample("y", normal.mask(y.observed).to_event(1), obs=y.values)


@pytest.mark.parametrize("centred", [0.0, 0.5, None])
def test_reparameterized_sites_name_the_handler(centred):
    _refused(_reparameterized(centred), "'phi' is computed from another one .*LocScaleReparam")


def test_latent_sites_of_one_value():
    def latent():
        return pyro.sample("rate", dist.Delta(torch.full((6,), 0.5, dtype=torch.float64)))

    _refused(_with(latent=latent), "'rate' has one possible value")
    _refused(_fixed_population, "'scale' has one possible value")


def _fixed_population(cohort):
    pyro.sample("scale", dist.Delta(torch.tensor(1.0)))
    _normal_program(cohort)


def test_a_plate_in_a_dimension_that_the_values_do_not_have():
    def program(cohort):
        y = cohort["y"]
        with pyro.plate("individual", len(cohort), dim=-2):
            rate = pyro.sample("rate", dist.LogNormal(0.0, 0.5))
            mean = curve(y.times, torch.ones_like(rate), rate)
            pyro.sample("y", dist.Normal(mean, 1.0).mask(y.observed).to_event(1), obs=y.values)

    _refused(program, "distribution of shape|plates and")


def test_what_to_do_about_usual_mistakes_with_shapes():
    def no_event(prediction, sigma, y):
        pyro.sample("y", dist.Normal(prediction, sigma[..., None]).mask(y.observed), obs=y.values)

    def subsampled(cohort):
        y = cohort["y"]
        with pyro.plate("individual", len(cohort), subsample_size=4):
            rate = pyro.sample("rate", dist.LogNormal(0.0, 0.5))
            mean = rate[..., None] * y.times
            pyro.sample("y", dist.Normal(mean, 1.0).mask(y.observed).to_event(1), obs=y.values)

    _refused(_with(observe=no_event), r"write `.to_event\(1\)` behind the distribution")
    _refused(subsampled, "no `subsample_size`")


def test_what_to_do_about_other_usual_mistakes():
    def two_plates(cohort):
        with pyro.plate("individual", len(cohort)):
            rate = pyro.sample("rate", dist.LogNormal(0.0, 0.5))
        with pyro.plate("individual", len(cohort)):
            y = cohort["y"]
            error = dist.Normal(rate[..., None] * y.times, 1.0).mask(y.observed)
            pyro.sample("y", error.to_event(1), obs=y.values)

    def improper(cohort):
        pyro.sample("mu", dist.ImproperUniform(dist.constraints.real, (), ()))

    _refused(two_plates, "make the plate once")
    _refused(improper, "a wide prior that can be drawn from")
    _refused(lambda cohort, times: None, "pa.adapt")


def _outside(cohort, mean=0.0, observe=None):
    """A program that reads what belongs to individuals from variables of its own."""
    y = cohort["y"]
    values = y.values if observe is None else observe
    times = y.times if observe is None else y.times[:1]
    with pyro.plate("individual", len(cohort)):
        rate = pyro.sample("rate", dist.LogNormal(mean, 0.5))
        error = dist.Normal(rate[..., None] * times, 1.0).to_event(1)
        pyro.sample("y", error, obs=values)


@pytest.mark.parametrize("size", [4, 6])
def test_data_of_individuals_that_are_not_in_the_cohort(size):
    times = torch.linspace(0.0, 2.0, 4).expand(size, -1).double()
    cohort = Cohort({"y": Series(times, torch.ones(size, 4).double())})
    weight, values = torch.linspace(0.0, 1.0, size), cohort["y"].values
    message = r"fails with \d of the individuals[\s\S]*from the cohort and not from variables"
    _refused(lambda c: _outside(c, mean=weight), message, cohort)
    _refused(lambda c: _outside(c, observe=values), message, cohort)
