"""The command line: from a model file and a table to a report."""

import runpy
import sys
from dataclasses import replace
from functools import partial
from importlib.resources import files
from pathlib import Path

import pytest
import quickstart

from pyro_amortized import __main__ as command_line
from pyro_amortized.__main__ import main
from pyro_amortized.diagnostics import diagnose
from pyro_amortized.diagnostics.reports import html_report
from pyro_amortized.population.results import retraining
from tests.small import counted

pytestmark = pytest.mark.usefixtures("rough_training_distributions")

TABLE = str(files("pyro_amortized.datasets") / "theophylline.csv")
MODEL = f"{Path(quickstart.__file__)}:model"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cli")


def arguments(*more):
    return [more[0], MODEL, TABLE, "--series", "concentration", *more[1:]]


def test_check_says_what_the_model_is(folder, capsys):
    assert main(arguments("check", "--out", str(folder))) == 0
    output = capsys.readouterr().out
    for part in ("12 individuals", "typical", "sigma", "acts on the observations", "inside the"):
        assert part in output
    assert (folder / "model.svg").read_text().startswith("<svg")
    assert (folder / "prior_predictive.png").stat().st_size > 5000


@pytest.mark.slow
@pytest.mark.usefixtures("small_efforts")
def test_train_fit_report(folder, capsys, monkeypatch):
    monkeypatch.setattr(command_line, "train", counted(command_line.train, 2000, 2))
    short = replace(retraining.RETRAINING, num_simulations=2000, num_epochs=2)
    monkeypatch.setattr(retraining, "RETRAINING", short)  # a guide that is trained so little
    few = partial(diagnose, num_individuals=30, num_draws=200)
    monkeypatch.setattr(html_report, "diagnose", few)
    guide, fit, page = (str(folder / name) for name in ("guide", "fit", "report.html"))
    assert main(arguments("train", "--budget", "15s", "--out", guide)) == 0
    assert "Written" in capsys.readouterr().out
    assert main(arguments("fit", "--guide", guide, "--out", fit)) == 0
    output = capsys.readouterr().out
    assert "-2LL" in output
    assert "typical[0]" in output
    assert main(["report", MODEL, fit, "--out", page, "--title", "Theophylline"]) == 0
    assert "<h1>Theophylline</h1>" in Path(page).read_text()


@pytest.mark.parametrize(
    ("change", "fragment"),
    [
        ({1: "none.py:model"}, "There is no file"),
        ({1: MODEL.replace(":model", ":other")}, "no function 'other'"),
        ({2: "none.csv"}, "no file"),
        ({4: "y"}, "--series NAME"),
    ],
)
def test_mistakes_end_in_a_message_and_status_1(folder, change, fragment, capsys):
    command = arguments("check", "--out", str(folder))
    for place, argument in change.items():
        command[place] = argument
    assert main(command) == 1
    output = capsys.readouterr().err
    assert fragment in output
    assert "To fix:" in output
    assert "Traceback" not in output


def test_help_of_the_installed_command(capsys, monkeypatch):
    """``python -m pyro_amortized --help``, in this process, where torch is imported already."""
    monkeypatch.setattr(sys, "argv", ["pyro_amortized", "--help"])
    monkeypatch.delitem(sys.modules, "pyro_amortized.__main__")
    with pytest.raises(SystemExit) as end:
        runpy.run_module("pyro_amortized", run_name="__main__", alter_sys=True)
    assert not end.value.code
    output = capsys.readouterr().out
    for command in ("check", "train", "fit", "report"):
        assert command in output


def test_an_interrupted_command_has_no_traceback(monkeypatch, capsys):
    def interrupted(parsed):
        raise KeyboardInterrupt

    monkeypatch.setitem(command_line._COMMANDS, "check", interrupted)
    assert main(["check", "model.py", "data.csv"]) == 130
    assert capsys.readouterr().err.startswith("Interrupted.")
