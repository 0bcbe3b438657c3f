"""The README shows what runs; the examples run small.

An example runs in the process of the tests, as ``python example.py --option value`` would run it:
the imports of torch, Pyro and ArviZ alone take seconds. Only its trainings are replaced: where it
asks for a time, it gets a number of simulations, so that the result depends neither on the speed of
the machine nor on its load. The further training of a guide that does not suit the data, as such
guides do not, is as short.
"""

import re
import runpy
import sys
import warnings
from functools import partial
from pathlib import Path

import pytest
import torchdiffeq
from matplotlib import pyplot as plt

import pyro_amortized as pa
from pyro_amortized import datasets
from tests.paths import ROOT
from tests.small import capped, counted

EXAMPLES = ROOT / "examples"


def test_readme_shows_the_quickstart():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert (EXAMPLES / "quickstart.py").read_text("utf-8") in blocks


@pytest.fixture
def run(monkeypatch, capsys, small_efforts):
    """Run a script of ``examples/`` with arguments; returns what it prints."""
    plt.switch_backend("Agg")

    def run(script, *words, num_simulations=2000, max_epochs=2):
        path = EXAMPLES / script
        for name, count in (("sample_individuals", "num_draws"), ("AmortizedMCMC", "num_samples")):
            monkeypatch.setattr(pa, name, capped(getattr(pa, name), count, 200))
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
    printed = run("theophylline.py", "--output", tmp_path, "--calibration", 20)
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
    printed = run("diagnose.py", "censored", "--individuals", 20, "--output", tmp_path)
    assert "checks" in printed
    assert (tmp_path / "censored.html").stat().st_size > 100_000
    assert len(list(tmp_path.glob("*.png"))) == 4


@pytest.mark.example
def test_population_example_runs(run):
    printed = run("population.py", "--replicates", 4)
    for word in ("combined error", "LikelihoodRatio", "sandwich", "profile interval"):
        assert word in printed


@pytest.mark.example
@pytest.mark.parametrize(
    "name",
    [
        "conversion",
        "imputation",
        "missing_covariate",
        "deletion",
        "recording",
        "sinusoid",
        "fitzhugh_nagumo",
        "sir",
    ],
)
def test_missing_data_examples_run(run, tmp_path, name, monkeypatch):
    # The solver of FitzHugh-Nagumo is slow: it gets steps of 1/8, and is called for fewer draws.
    if name == "fitzhugh_nagumo":
        coarse = partial(torchdiffeq.odeint, method="rk4", options={"step_size": 0.125})
        monkeypatch.setattr(torchdiffeq, "odeint", lambda f, x, t, **settings: coarse(f, x, t))
    few = ("--individuals", "10") if name == "missing_covariate" else ()
    assert run(f"missing_data/{name}.py", "--output", tmp_path, *few).strip()
    assert (tmp_path / f"{name}.png").stat().st_size > 10_000


@pytest.mark.example
@pytest.mark.parametrize("name", ["warfarin_turnover", "indometh", "orange"])
def test_pharmacometrics_examples_run(run, tmp_path, name, monkeypatch):
    if name == "warfarin_turnover":  # its dynamics are the dearest
        cohort = datasets.warfarin()[:8]
        monkeypatch.setattr(datasets, "warfarin", lambda: cohort)
    printed = run(f"pharmacometrics/{name}.py", "--output", tmp_path)
    assert "-2LL" in printed
    assert list(tmp_path.glob(f"{name}_*.png"))


@pytest.mark.example
@pytest.mark.parametrize("name", ["seizures", "two_experiments", "single_cells"])
def test_gallery_examples_run(run, tmp_path, name):
    printed = run(f"gallery/{name}.py", "--output", tmp_path)
    assert printed.strip().splitlines()[-1].endswith(".")
    assert (tmp_path / f"{name}.png").stat().st_size > 5_000


@pytest.mark.example
@pytest.mark.parametrize(
    ("name", "words", "printed"),
    [
        ("seizure_counts", (), ("negative binomial", "AIC")),
        ("pain_scores", ("--individuals", 12), ("drug", "-2LL")),
        ("joint_model", ("--individuals", 16), ("link", "died within two years")),
        ("competing_causes", ("--individuals", 40), ("treatment", "died before a relapse")),
        ("sites", ("--individuals", 4), ("units of 'site'", "between")),
        ("occasions", ("--individuals", 8), ("Closed form and ODE differ by", "between[0]")),
    ],
)
def test_examples_of_endpoints_and_levels_run(run, tmp_path, name, words, printed):
    found = run(f"gallery/{name}.py", "--output", tmp_path, *words)
    for word in printed:
        assert word in found
    assert (tmp_path / f"{name}.png").stat().st_size > 5_000


@pytest.mark.example
@pytest.mark.parametrize(
    ("name", "words", "printed"),
    [
        ("regimens", ("--individuals", 20, "--draws", 4), ("adapted to the samples", "AUC of")),
        ("individual_dose", (), ("without samples: 6", "average of two models", "P(target)")),
        ("model_search", ("--replicates", 20), ("weight on phi[V]", "to write into")),
        ("changing_covariates", ("--replicates", 20), ("crcl_on_cl (CRCL)", "leave it out of")),
        ("study_design", ("--simulated", 32), ("efficiency", "individuals for 0.80")),
    ],
)
def test_what_follows_a_fit(run, tmp_path, name, words, printed):
    text = run(f"after_fit/{name}.py", *words, "--output", tmp_path)
    for part in printed:
        assert part in text
    assert (tmp_path / f"{name}.png").stat().st_size > 5000
