"""The commands simulate, recommend and design print what the functions give, and write it."""

import json
from pathlib import Path

import pandas as pd
import pytest

from pyro_amortized.__main__ import main
from tests.applications import kit

MODEL = f"{Path(kit.__file__)}:model"
TABLE = "ID,TIME,DV,AMT,EVID\n1,0,.,100,1\n1,1,1.3,.,0\n1,4,1.2,.,0\n"


@pytest.fixture
def values(tmp_path):
    path = tmp_path / "values.json"
    path.write_text(json.dumps(kit.VALUES))
    return str(path)


def test_simulate(values, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["simulate", MODEL, "--population", values, "--individuals", "30", "--out", str(out)]
    command += ["--regimen", "100 every 12 x 3", "--regimen", "b=50 every 12 x 3", "--above", "1"]
    assert main(command) == 0
    assert "time_above" in capsys.readouterr().out
    exposures, bands = (pd.read_csv(out / f"{name}.csv") for name in ("exposures", "bands"))
    assert set(exposures["regimen"]) == {"100 every 12, 3 doses", "b"}
    assert len(bands) == 2 * 41
    assert (out / "bands.png").stat().st_size > 5000


def test_simulated_arms(values, tmp_path, capsys):
    command = ["simulate", f"{Path(kit.__file__)}:weight_model", "--population", values]
    known = tmp_path / "weight.json"
    known.write_text(json.dumps({"cl": 4.0, "omega": 0.3, "slope": 0.75, "sigma": 0.1}))
    command = [*command[:3], str(known), "--individuals", "20", "--times", "1,4"]
    command += ["--arm", "light: weight=50", "--arm", "heavy: weight=90"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    exposures = pd.read_csv(tmp_path / "out" / "exposures.csv")
    assert set(exposures["regimen"]) == {"light", "heavy"}
    assert main(command[:4]) == 1
    assert "no regimens" in capsys.readouterr().err


def test_recommend(values, tmp_path, capsys):
    table = tmp_path / "patient.csv"
    table.write_text(TABLE)
    out = tmp_path / "out"
    command = ["recommend", MODEL, str(table), "--population", values, "--series", "y"]
    command += ["--target", "auc", "--low", "50", "--probability", "0.9", "--steady-state"]
    command += ["--regimen", "1 every 12 x 2", "--range", "20,2000", "--out", str(out)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "auc at least 50; probability 0.9" in printed
    assert "uncertainty of individuals" in printed
    doses = pd.read_csv(out / "doses.csv")
    assert doses["probability"].iloc[0] == pytest.approx(0.9, abs=0.05)
    assert len(pd.read_csv(out / "candidates.csv")) == 41


def test_design(values, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["design", MODEL, "--population", values, "--regimen", "100", "--series", "y"]
    command += ["--times", "rich=1,2,4,8,24", "--times", "1,24", "--individuals", "20"]
    command += ["--simulated", "40", "--effect", "typical[0]", "--null", "3", "--out", str(out)]
    assert main(command) == 0
    output = capsys.readouterr().out
    assert "rich: power" in output
    errors = pd.read_csv(out / "errors.csv")
    assert set(errors["design"]) == {"rich", "design 2"}


@pytest.mark.parametrize(
    ("change", "fragment"),
    [
        (["--regimen", "often"], "The regimen is 'often'"),
        (["--range", ""], "Neither or both of --range and --doses"),
        (["--target", "concentration"], "without --at"),
        (["--at", "3"], "with --at"),
        (["--population", "MISSING"], "No such file"),
        (["--fit", "folder"], "Neither or both of --fit and --population"),
        (["--window", "3"], "two numbers"),
        (["--uncertainty", "all"], "`uncertainty` is 'all'"),
        (["--uncertainty", "population and individuals"], "is not known"),
    ],
)
def test_mistakes_end_in_a_message(values, tmp_path, capsys, change, fragment):
    command = ["recommend", MODEL, "--population", values, "--range", "1,2", "--target", "auc"]
    command += ["--low", "1", "--probability", "0.9", "--out", str(tmp_path / "out"), *change]
    assert main(command) == 1
    assert fragment in capsys.readouterr().err


@pytest.mark.parametrize("text", ["typical: 4", "[4, 70]", None])
def test_a_file_of_values_must_be_json(tmp_path, capsys, text):
    path = tmp_path / "values.json"
    if text is not None:
        path.write_text(text)
    command = ["simulate", MODEL, "--population", str(path), "--regimen", "1 every 2"]
    assert main(command) == 1
    assert "is no JSON file" in capsys.readouterr().err
