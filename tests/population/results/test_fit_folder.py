"""Fits that are interrupted go on with the same numbers; a folder belongs to one fit."""

import json

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.errors import FitError
from pyro_amortized.population.likelihood import likelihood_choice
from pyro_amortized.population.likelihood.likelihood_choice import LikelihoodChoiceSettings
from pyro_amortized.population.results.fit_folder import PROGRESS_FILE, RESULT_FOLDER
from pyro_amortized.population.search import fit_rounds
from tests.exact import linear_cohort, linear_program

QUICK = {"num_draws": 50, "seed": 3, "progress": False}


def fitted(cohort, folder=None, **arguments):
    return pa.fit_population(linear_program, cohort, folder=folder, **QUICK | arguments)


def assert_same(fit, other):
    assert torch.equal(fit.vector, other.vector)
    assert torch.equal(fit.covariance, other.covariance)
    assert torch.equal(fit.individuals.log_weights, other.individuals.log_weights)
    assert torch.equal(fit.marginal.log_likelihood, other.marginal.log_likelihood)
    assert (fit.num_rounds, fit.message) == (other.num_rounds, other.message)


def interrupt_in_round(monkeypatch, number):
    """Ctrl-C in a round with draws of all individuals."""
    ascend, rounds = fit_rounds.Search.ascend, []

    def interrupted(self, likelihood, *arguments, **more):
        if len(self.cohort) > 60 and type(self) is fit_rounds.Search:
            rounds.append(1)
            if len(rounds) == number:
                raise KeyboardInterrupt
        return ascend(self, likelihood, *arguments, **more)

    monkeypatch.setattr(fit_rounds.Search, "ascend", interrupted)


@pytest.mark.parametrize("is_large", [False, True])
def test_an_interrupted_fit_ends_with_the_numbers_of_one_that_was_not(
    monkeypatch, tmp_path, is_large
):
    if is_large:
        monkeypatch.setattr(
            likelihood_choice, "CHOICE", LikelihoodChoiceSettings(min_individuals=100)
        )
    cohort = linear_cohort(130, seed=5)
    whole = fitted(cohort)
    with monkeypatch.context() as patch:
        interrupt_in_round(patch, 2 if is_large else 1)
        with pytest.raises(KeyboardInterrupt):
            fitted(cohort, tmp_path)
    assert (tmp_path / PROGRESS_FILE).is_file()
    assert not (tmp_path / RESULT_FOLDER).exists()
    assert_same(fitted(cohort, tmp_path), whole)


def test_a_finished_fit_is_read(monkeypatch, tmp_path):
    cohort = linear_cohort()
    fit = fitted(cohort, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(fit_rounds.Search, "draw", None)  # no draw is made
        assert_same(fitted(cohort, str(tmp_path)), fit)
    assert_same(pa.load_fit(tmp_path / RESULT_FOLDER, linear_program), fit)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"seed": 4}, "seed = 3"),
        ({"num_draws": 60}, "num_draws = 50"),
        ({"maximum_a_posteriori": True}, "criterion"),
        ({"fixed": {"sigma": torch.tensor(0.4)}}, "values"),
        ({"cohort": 41}, "data"),
        ({"labels": True}, "labels"),
    ],
)
def test_another_fit_is_refused(tmp_path, changed, named):
    cohort = linear_cohort()
    fitted(cohort, tmp_path)
    changed = dict(changed)
    if "cohort" in changed:
        cohort = linear_cohort(changed.pop("cohort"))
    if changed.pop("labels", False):
        ids = tuple(f"patient {i}" for i in range(40))
        cohort = pa.Cohort(cohort.series, cohort.doses, cohort.covariates, ids)
    with pytest.raises(FitError, match=f"holds another fit: .*{named}"):
        fitted(cohort, tmp_path, **changed)


def heavy_tailed(cohort):
    """The linear program, with sites of the same names and another distribution."""
    mean = pyro.sample("mean", dist.Normal(torch.tensor([0.5, 0.5]), 1.0).to_event(1))
    omega = pyro.sample("omega", dist.HalfNormal(torch.ones(2)).to_event(1))
    sigma = pyro.sample("sigma", dist.LogNormal(-1.0, 0.5))
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(mean, omega).to_event(1))
        y = cohort["y"]
        prediction = phi[..., :1] + phi[..., 1:] * y.times
        error = dist.StudentT(4.0, prediction, sigma[..., None])
        pyro.sample("y", error.mask(y.observed).to_event(1), obs=y.values)


def test_another_model_is_refused(tmp_path):
    cohort = linear_cohort()
    fitted(cohort, tmp_path)
    with pytest.raises(FitError, match="holds another fit: model"):
        pa.fit_population(heavy_tailed, cohort, folder=tmp_path, **QUICK)


def test_a_damaged_file_is_named(tmp_path):
    cohort = linear_cohort()
    fitted(cohort, tmp_path)
    for file in (tmp_path / RESULT_FOLDER).iterdir():
        file.unlink()
    (tmp_path / PROGRESS_FILE).write_bytes(b"no tensors")
    with pytest.raises(FitError, match=r"progress.safetensors cannot be used(.|\n)*fit again"):
        fitted(cohort, tmp_path)


def test_the_folder_must_be_a_path(tmp_path):
    cohort = linear_cohort()
    with pytest.raises(FitError, match="folder"):
        fitted(cohort, 3)
    (tmp_path / "file").write_text("x")
    with pytest.raises(pa.AmortizedError, match="cannot be made"):
        fitted(cohort, tmp_path / "file")


def test_the_settings_are_readable(tmp_path):
    fitted(linear_cohort(), tmp_path)
    settings = json.loads((tmp_path / "fit.json").read_text())
    assert settings["seed"] == 3
    assert settings["criterion"] == "maximum likelihood"
