"""The command ``search`` prints the path, and writes tables, lines, a picture and a report."""

from pathlib import Path

import pandas as pd
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.__main__ import main
from tests import exact


@pytest.fixture
def folder(tmp_path):
    """A fit in which the slope depends on a covariate, with a residual error that is held."""
    cohort = exact.linear_cohort(num=24, missing=0.0, seed=2)
    y = cohort["y"]
    x = torch.linspace(-1.0, 1.0, 24).double()
    values = y.values + 0.6 * x.unsqueeze(-1) * y.times
    data = pa.Cohort({"y": pa.Series(y.times, values, y.observed)}, covariates={"x": x})
    held = {"sigma": 1.5 * torch.as_tensor(exact.TRUTH["sigma"])}
    fit = pa.fit_population(exact.linear_program, data, fixed=held, num_draws=100, progress=False)
    fit.save(tmp_path / "fit")
    return tmp_path


def test_search(folder, capsys):
    model, out = f"{Path(exact.__file__)}:linear_program", folder / "search"
    command = ["search", model, "--fit", str(folder / "fit"), "--covariates", "x"]
    command += ["--freed", "sigma", "--no-correlations", "--p", "0.05", "--out", str(out)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "x on phi[1]" in printed
    assert "Written:" in printed
    assert {"x on phi[1]", "sigma"} <= set(pd.read_csv(out / "path.csv")["term"].dropna())
    assert len(pd.read_csv(out / "tests.csv")) == 3
    assert "x_on_phi_1" in (out / "lines.py").read_text()
    assert (out / "search.png").stat().st_size > 5000
    assert "Model search" in (out / "report.html").read_text()


def test_an_unknown_covariate_is_named(folder, capsys):
    model = f"{Path(exact.__file__)}:linear_program"
    command = ["search", model, "--fit", str(folder / "fit"), "--covariates", "height"]
    assert main([*command, "--out", str(folder / "search")]) == 1
    assert "height" in capsys.readouterr().err


def test_a_fit_holds_what_is_fixed(tmp_path, capsys):
    model, table = f"{Path(exact.__file__)}:linear_program", tmp_path / "data.csv"
    nlme.to_table(exact.linear_cohort(num=12, seed=2)).to_csv(table, index=False)
    command = ["fit", model, str(table), "--series", "y", "--out", str(tmp_path / "held")]
    assert main([*command, "--fixed", "sigma=a"]) == 1
    assert "NAME=NUMBER" in capsys.readouterr().err
    assert main([*command, "--fixed", "sigma=1.5,mean=1:0.5"]) == 0
    fit = pa.load_fit(tmp_path / "held", exact.linear_program)
    assert set(fit.fixed) == {"sigma", "mean"}
    assert fit.estimates["mean"].tolist() == [1.0, 0.5]
