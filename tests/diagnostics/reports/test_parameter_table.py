"""Tables for a report: names, scales, correlations, shrinkage, formats."""

import math
from dataclasses import replace

import pandas
import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.diagnostics import individual_table, parameter_table
from pyro_amortized.errors import FitError, SettingError
from tests.exact import linear_cohort


def program(cohort):
    names = ["base", "slope"]
    mean = pyro.sample(
        "mean",
        dist.Normal(torch.zeros(2), 2.0).to_event(1),
        infer={"labels": names, "scale": ["log", ""]},
    )
    omega = pyro.sample(
        "omega",
        dist.HalfNormal(torch.ones(2)).to_event(1),
        infer={"labels": names, "scale": ["sd of log", "sd"]},
    )
    factor = pyro.sample("factor", dist.LKJCholesky(2, torch.tensor(2.0)), infer={"labels": names})
    sigma = pyro.sample("sigma", dist.LogNormal(torch.tensor(-1.0), 0.3))
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample(
            "phi",
            nlme.random_effects(mean, omega, factor),
            infer={"labels": names, "scale": ["log", ""]},
        )
        y = cohort["y"]
        value = phi[..., :1] + phi[..., 1:] * y.times
        normal = dist.Normal(value, sigma[..., None]).mask(y.observed).to_event(1)
        pyro.sample("y", normal, obs=y.values)


@pytest.fixture(scope="module")
def fit():
    held = {"sigma": torch.tensor(0.4)}
    return pa.fit_population(program, linear_cohort(missing=0.0), fixed=held, seed=1)


def test_estimates_are_on_the_scale_of_the_parameters(fit):
    frame = parameter_table(fit).frame()
    mean, se = (x.tolist() for x in fit.derived("mean"))
    base, slope = frame.loc["mean[base]"], frame.loc["mean[slope]"]
    assert base.estimate == pytest.approx(math.exp(mean[0]))
    assert base.se == pytest.approx(math.exp(mean[0]) * se[0])
    assert base.rse == pytest.approx(100 * se[0])
    assert base.lower == pytest.approx(math.exp(mean[0] - 1.959964 * se[0]))
    assert base.upper == pytest.approx(math.exp(mean[0] + 1.959964 * se[0]))
    assert slope.estimate == pytest.approx(mean[1])
    assert slope.rse == pytest.approx(100 * se[1] / abs(mean[1]))
    assert math.isnan(slope.cv)


def test_variability_as_coefficients_of_variation_with_shrinkage(fit):
    frame = parameter_table(fit).frame()
    omega, shrinkage = fit.estimates["omega"].tolist(), fit.shrinkage()
    assert frame.cv["omega[base]"] == pytest.approx(100 * math.sqrt(math.exp(omega[0] ** 2) - 1))
    assert math.isnan(frame.cv["omega[slope]"])
    for label in ("base", "slope"):
        expected = 100 * shrinkage[f"phi[{label}]"]
        assert frame.shrinkage[f"omega[{label}]"] == pytest.approx(expected)


def test_shrinkage_goes_by_place_where_the_individual_parameters_have_no_labels(fit):
    site = replace(fit.structure.individual["phi"], labels=())
    bare = replace(fit, structure=replace(fit.structure, individual={"phi": site}))
    column = parameter_table(bare).frame().shrinkage
    expected = parameter_table(fit).frame().shrinkage
    assert column["omega[slope]"] == pytest.approx(expected["omega[slope]"])


def test_correlations_are_correlations(fit):
    """Also in the summary: not the entries of a Cholesky factor."""
    factor = fit.estimates["factor"]
    row = parameter_table(fit).frame().loc["factor[base, slope]"]
    assert row.estimate == pytest.approx(float(factor[1, 0]), rel=1e-12)
    assert 0 < row.se < 1
    z, half = math.atanh(row.estimate), 1.959964 * row.se / (1 - row.estimate**2)
    assert row.lower == pytest.approx(math.tanh(z - half), rel=1e-6)
    assert row.upper == pytest.approx(math.tanh(z + half), rel=1e-6)
    names = [row.name for row in fit.summary().parameters]
    assert names == [
        *("mean[base]", "mean[slope]", "omega[base]", "omega[slope]"),
        *("factor[base, slope]", "sigma"),
    ]


def test_a_fixed_parameter_has_a_note(fit):
    row = parameter_table(fit).frame().loc["sigma"]
    assert row.estimate == pytest.approx(0.4)
    assert math.isnan(row.se)
    assert row.note == "fixed"


def test_names_and_scales_of_the_call(fit):
    table = parameter_table(fit, names={"mean[slope]": "slope (1/h)"}, log=["mean"])
    frame = table.frame()
    assert frame.estimate["slope (1/h)"] == pytest.approx(math.exp(float(fit.vector[1])))
    for arguments in ({"names": {"mean[cl]": "CL"}}, {"log": ["typical"]}, {"log": "mean"}):
        with pytest.raises(SettingError, match="names '"):
            parameter_table(fit, **arguments)


def test_formats(fit, tmp_path):
    table = parameter_table(fit, names={"sigma": "sigma_1 & more (%)"})
    for ending in ("csv", "html", "tex"):
        table.write(tmp_path / f"table.{ending}")
    again = pandas.read_csv(tmp_path / "table.csv", index_col="parameter")
    assert again.estimate.tolist() == pytest.approx(table.frame().estimate.tolist())
    text = (tmp_path / "table.tex").read_text("utf-8")
    assert r"sigma\_1 \& more (\%)" in text
    assert text.count(r"\\") == 1 + len(table.rows)
    columns = len(table.cells[0])
    assert all(line.count(" & ") == columns - 1 for line in text.splitlines() if r" \\" in line)
    assert "sigma_1 &amp; more" in (tmp_path / "table.html").read_text("utf-8")
    assert "RSE %" in str(table)
    with pytest.raises(SettingError, match=r"\.csv, \.html, \.tex"):
        table.write(tmp_path / "table.docx")


def test_individual_parameters(fit):
    frame = individual_table(fit)
    levels = fit.individuals.quantiles([0.5, 0.05, 0.95])["phi"]
    assert list(frame.index) == list(fit.cohort.ids)
    assert list(frame.columns)[:4] == ["base", "base 5 %", "base 95 %", "phi[slope]"]
    assert frame["base"].tolist() == pytest.approx(levels[0, :, 0].exp().tolist())
    assert frame["base 95 %"].tolist() == pytest.approx(levels[2, :, 0].exp().tolist())
    assert frame["phi[slope]"].tolist() == pytest.approx(levels[0, :, 1].tolist())
    assert set(fit.cohort.covariates) <= set(frame.columns)
    group = torch.arange(len(fit.cohort)).remainder(2).double()
    named = replace(fit.cohort, covariates={"group": group}, categories={"group": ("new", "old")})
    individuals = replace(fit.individuals, cohort=named)
    assert individual_table(individuals)["group"].tolist()[:2] == ["new", "old"]
    assert "slope" in individual_table(fit, log=["phi"]).columns
    with pytest.raises(SettingError, match="no individual parameter 'eta'"):
        individual_table(fit, log=["eta"])


def test_any_quantity_has_a_standard_error(fit):
    """The difference of two parameters: the variance of a difference."""
    value, error = fit.derived(lambda p: p["mean"][0] - p["mean"][1])
    c = fit.covariance
    assert float(error) == pytest.approx(math.sqrt(float(c[0, 0] + c[1, 1] - 2 * c[0, 1])))
    assert float(value) == pytest.approx(float(fit.vector[0] - fit.vector[1]))
    with pytest.raises(FitError, match="no population site 'typical'"):
        fit.derived("typical")
