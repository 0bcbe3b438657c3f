"""The README shows what runs; the examples run small.

An example runs in the process of the tests, as ``python example.py --option value`` would run it:
the imports of torch, Pyro and ArviZ alone take seconds. Only its trainings are replaced: where it
asks for a time, it gets a number of simulations, so that the result depends neither on the speed of
the machine nor on its load.
"""

import re
import runpy
import sys
import warnings
from pathlib import Path

import pytest
from matplotlib import pyplot as plt

import pyro_amortized as pa
from tests.paths import ROOT
from tests.small import counted

EXAMPLES = ROOT / "examples"


def test_readme_shows_the_quickstart():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert (EXAMPLES / "quickstart.py").read_text("utf-8") in blocks


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a script of ``examples/`` with arguments; returns what it prints."""
    plt.switch_backend("Agg")

    def run(script, *words, num_simulations=4000, max_epochs=4):
        path = EXAMPLES / script
        for name in ("train", "sharpen"):
            monkeypatch.setattr(pa, name, counted(getattr(pa, name), num_simulations, max_epochs))
        monkeypatch.setattr(sys, "argv", [str(path), *map(str, words)])
        monkeypatch.setattr(sys, "path", [str(path.parent), *sys.path])
        known = set(sys.modules)
        with warnings.catch_warnings():  # of guides that are trained so little
            warnings.simplefilter("ignore", pa.AmortizedWarning)
            runpy.run_path(str(path), run_name="__main__")
        for name in set(sys.modules) - known:  # other examples, whose names are common words
            if EXAMPLES in Path(getattr(sys.modules[name], "__file__", None) or "/").parents:
                del sys.modules[name]
        plt.close("all")
        return capsys.readouterr().out

    return run


@pytest.mark.example
def test_theophylline_example_runs(run, tmp_path):
    printed = run(
        "theophylline.py",
        *("--output", tmp_path, "--simulations", 10000, "--epochs", 2, "--calibration", 30),
    )
    for word in ("exact", "-2LL", "typical[0]", "Pareto k", str(tmp_path)):
        assert word in printed
    files = {p.name for p in tmp_path.iterdir()}
    assert {"individual_fits.png", "training_curve.png", "ranks.png", "theophylline.nc"} <= files
    assert (tmp_path / "guide" / "weights.safetensors").is_file()


@pytest.mark.example
def test_ode_example_equals_the_closed_form(run):
    assert float(run("theophylline_ode.py").split()[-1]) < 1e-5


@pytest.mark.example
def test_diagnose_example_runs(run, tmp_path):
    printed = run("diagnose.py", "censored", "--individuals", 100, "--output", tmp_path)
    assert "checks" in printed
    assert (tmp_path / "censored.html").stat().st_size > 100_000
    assert len(list(tmp_path.glob("*.png"))) == 4


@pytest.mark.example
def test_population_example_runs(run):
    printed = run("population.py", "--replicates", 10)
    for word in ("combined error", "LikelihoodRatio", "sandwich", "profile interval"):
        assert word in printed


@pytest.mark.example
@pytest.mark.parametrize(
    "name",
    [
        "conversion",
        "imputation",
        "deletion",
        "recording",
        "sinusoid",
        "fitzhugh_nagumo",
        "sir",
    ],
)
def test_missing_data_examples_run(run, tmp_path, name):
    # Its solver is slow, and the number of draws decides how often the corrections call it.
    fewer = ["--draws", 400] if name == "fitzhugh_nagumo" else []
    assert run(f"missing_data/{name}.py", "--output", tmp_path, *fewer).strip()
    assert (tmp_path / f"{name}.png").stat().st_size > 10_000


@pytest.mark.example
@pytest.mark.parametrize("name", ["warfarin_turnover", "indometh", "orange"])
def test_pharmacometrics_examples_run(run, tmp_path, name):
    assert "-2LL" in run(f"pharmacometrics/{name}.py", "--output", tmp_path)
    assert list(tmp_path.glob(f"{name}_*.png"))


@pytest.mark.example
@pytest.mark.parametrize("name", ["seizures", "two_experiments", "single_cells"])
def test_gallery_examples_run(run, tmp_path, name):
    printed = run(f"gallery/{name}.py", "--output", tmp_path)
    assert printed.strip().splitlines()[-1].endswith(".")
    assert (tmp_path / f"{name}.png").stat().st_size > 5_000
