"""Names that the user gives to the entries of a site appear in every result."""

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.diagnostics import random_effect_tests, to_arviz
from pyro_amortized.errors import ModelError
from tests.exact import linear_cohort


def program(labels, of_phi=("base", "slope")):
    def labelled(cohort):
        infer = {"labels": labels}
        mean = pyro.sample("mean", dist.Normal(torch.zeros(2), 2.0).to_event(1), infer=infer)
        omega = pyro.sample("omega", dist.HalfNormal(torch.ones(2)).to_event(1), infer=infer)
        with pyro.plate("individual", len(cohort)):
            phi = pyro.sample("phi", dist.Normal(mean, omega).to_event(1), infer={"labels": of_phi})
            y = cohort["y"]
            value = phi[..., :1] + phi[..., 1:] * y.times
            pyro.sample("y", dist.Normal(value, 0.4).mask(y.observed).to_event(1), obs=y.values)

    return labelled


@pytest.mark.slow
def test_labels_name_parameters_everywhere():
    cohort = linear_cohort(num=12, seed=1)
    fit = pa.fit_population(program(["base", "slope"]), cohort, num_draws=50, seed=1)
    assert fit.structure.population_names == [
        *("mean[base]", "mean[slope]", "omega[base]", "omega[slope]")
    ]
    assert fit.structure.latent_names == ["phi[base]", "phi[slope]"]
    assert [row.name for row in fit.summary().parameters] == fit.structure.population_names
    assert "mean[slope]" in repr(fit)
    assert "phi[base]" in repr(fit.individuals)
    effects = {t.effect for t in random_effect_tests(fit).tests}
    assert effects == {"phi[base]", "phi[slope]", "phi[base] and phi[slope]"}
    posterior = to_arviz(fit)["posterior"]
    assert posterior["mean"].coords["mean_dim_0"].values.tolist() == ["base", "slope"]
    assert posterior["phi"].coords["phi_dim_0"].values.tolist() == ["base", "slope"]


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        (["one"], r"has the labels \['one'\], and 2 entries"),
        (["a", "a"], "a different label"),
        ("ab", "a list of names"),
        ([1, 2], "a list of names"),
    ],
)
def test_wrong_labels_are_refused(labels, match):
    with pytest.raises(ModelError, match=match):
        pa.read_structure(program(labels), linear_cohort(num=3))
    with pytest.raises(ModelError, match=match):
        pa.read_structure(program(["a", "b"], labels), linear_cohort(num=3))


@pytest.mark.parametrize("scale", ["exp", ["log"], ["log", "log", "log"], [1, 2]])
def test_wrong_scales_are_refused(scale):
    def scaled(cohort):
        infer = {"scale": scale}
        mean = pyro.sample("mean", dist.Normal(torch.zeros(2), 2.0).to_event(1), infer=infer)
        with pyro.plate("individual", len(cohort)):
            phi = pyro.sample("phi", dist.Normal(mean, 1.0).to_event(1))
            y = cohort["y"]
            normal = dist.Normal(phi[..., :1] + 0 * y.times, 0.4).mask(y.observed).to_event(1)
            pyro.sample("y", normal, obs=y.values)

    with pytest.raises(ModelError, match="The scale of the site 'mean'"):
        pa.read_structure(scaled, linear_cohort(num=3))
