"""The README shows what runs; the examples run small."""

import json
import re
import subprocess
import sys

import pytest

from tests.paths import ROOT


def test_readme_shows_the_quickstart():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert (ROOT / "examples" / "quickstart.py").read_text("utf-8") in blocks


@pytest.mark.example
def test_theophylline_example_runs(tmp_path):
    command = [
        sys.executable,
        str(ROOT / "examples" / "theophylline.py"),
        "--output",
        str(tmp_path),
    ]
    command += ["--simulations", "10000", "--epochs", "2", "--calibration", "30"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=500)
    for word in ("exact", "-2LL", "typical[0]", "Pareto k", str(tmp_path)):
        assert word in done.stdout
    files = {p.name for p in tmp_path.iterdir()}
    assert {"individual_fits.png", "training_curve.png", "ranks.png", "theophylline.nc"} <= files
    assert (tmp_path / "guide" / "weights.safetensors").is_file()


@pytest.mark.example
def test_ode_example_equals_the_closed_form():
    command = [sys.executable, str(ROOT / "examples" / "theophylline_ode.py")]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    difference = float(done.stdout.split()[-1])
    assert difference < 1e-5


@pytest.mark.example
def test_diagnose_example_runs(tmp_path):
    script = ROOT / "examples" / "diagnose.py"
    command = [sys.executable, str(script), "censored", "--budget", "10s", "--individuals", "100"]
    command += ["--output", str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=500)
    assert "checks" in done.stdout
    assert (tmp_path / "censored.html").stat().st_size > 100_000
    assert len(list(tmp_path.glob("*.png"))) == 4


@pytest.mark.example
def test_population_example_runs():
    script = ROOT / "examples" / "population.py"
    command = [sys.executable, str(script), "--budget", "15s", "--replicates", "10"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=500)
    for word in ("combined error", "LikelihoodRatio", "sandwich", "profile interval"):
        assert word in done.stdout


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
def test_missing_data_examples_run(tmp_path, name):
    script = ROOT / "examples" / "missing_data" / f"{name}.py"
    command = [sys.executable, str(script), "--output", str(tmp_path), "--budget", "3s"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    assert done.stdout.strip()
    assert (tmp_path / f"{name}.png").stat().st_size > 10_000


@pytest.mark.example
@pytest.mark.parametrize("name", ["warfarin_turnover", "indometh", "orange"])
def test_pharmacometrics_examples_run(tmp_path, name):
    script = ROOT / "examples" / "pharmacometrics" / f"{name}.py"
    command = [sys.executable, str(script), "--output", str(tmp_path), "--budget", "3s"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=500)
    assert "-2LL" in done.stdout
    assert list(tmp_path.glob(f"{name}_*.png"))


@pytest.mark.benchmark
def test_benchmark_of_dynamics_runs():
    command = [sys.executable, str(ROOT / "benchmarks" / "dynamics.py"), "--quick"]
    command += ["--problems", "conversion_reaction"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=500)
    row = json.loads(done.stdout.splitlines()[-1])
    assert row["speedup_over_torchdiffeq"]["conversion_reaction"] > 1


@pytest.mark.example
@pytest.mark.parametrize("name", ["seizures", "two_experiments", "single_cells"])
def test_gallery_examples_run(tmp_path, name):
    script = ROOT / "examples" / "gallery" / f"{name}.py"
    command = [sys.executable, "-W", "ignore", str(script)]
    command += ["--output", str(tmp_path), "--budget", "5s"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=400)
    assert done.stdout.strip().splitlines()[-1].endswith(".")
    assert (tmp_path / f"{name}.png").stat().st_size > 5_000
