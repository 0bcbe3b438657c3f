"""The command line: from a model file and a table to a report."""

import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from pyro_amortized.cli import main

TABLE = str(files("pyro_amortized.datasets") / "theophylline.csv")
MODEL = """
import pyro, torch
import pyro.distributions as dist
from pyro_amortized import nlme

def model(cohort):
    typical = pyro.sample("typical", dist.Normal(torch.tensor([0.5, 1.0, 3.5]), 1.0).to_event(1))
    omega = pyro.sample("omega", dist.HalfNormal(torch.ones(3)).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(typical, omega).to_event(1))
        ka, cl, v = phi.exp().unbind(-1)
        y = cohort["concentration"]
        f = nlme.one_compartment(y.times, cohort.doses, ka=ka, cl=cl, v=v)
        law = dist.Normal(f, sigma[..., None]).mask(y.observed).to_event(1)
        pyro.sample("concentration", law, obs=y.values)
"""


@pytest.fixture(scope="module")
def where(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    (folder / "model.py").write_text(MODEL)
    return folder


def words(where, *more):
    return [more[0], str(where / "model.py:model"), TABLE, "--series", "concentration", *more[1:]]


def test_check_says_what_the_model_is(where, capsys):
    assert main(words(where, "check", "--out", str(where))) == 0
    said = capsys.readouterr().out
    for part in ("12 individuals", "typical", "sigma", "acts on the observations", "inside the"):
        assert part in said
    assert (where / "model.svg").read_text().startswith("<svg")
    assert (where / "prior_predictive.png").stat().st_size > 5000


def test_train_fit_report(where, capsys):
    guide, fit, page = (str(where / name) for name in ("guide", "fit", "report.html"))
    assert main(words(where, "train", "--budget", "15s", "--out", guide)) == 0
    assert "Written" in capsys.readouterr().out
    assert main(words(where, "fit", "--guide", guide, "--out", fit)) == 0
    said = capsys.readouterr().out
    assert "-2LL" in said
    assert "typical[0]" in said
    model = str(where / "model.py:model")
    assert main(["report", model, fit, "--out", page, "--title", "Theophylline"]) == 0
    assert "<h1>Theophylline</h1>" in Path(page).read_text()


@pytest.mark.parametrize(
    ("change", "fragment"),
    [
        ({1: "none.py:model"}, "There is no file"),
        ({1: "MODEL:other"}, "no function 'other'"),
        ({2: "none.csv"}, "no file"),
        ({4: "y"}, "--series NAME"),
    ],
)
def test_mistakes_end_in_a_message_and_status_1(where, change, fragment, capsys):
    given = words(where, "check", "--out", str(where))
    for place, word in change.items():
        given[place] = word.replace("MODEL", str(where / "model.py"))
    assert main(given) == 1
    said = capsys.readouterr().err
    assert fragment in said
    assert "To mend it:" in said
    assert "Traceback" not in said


def test_help_of_the_installed_command():
    done = subprocess.run(
        [sys.executable, "-m", "pyro_amortized", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0
    for command in ("check", "train", "fit", "report"):
        assert command in done.stdout
