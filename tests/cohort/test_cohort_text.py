"""What a notebook shows of a cohort and of results is short."""

import torch

import pyro_amortized as pa
from pyro_amortized import datasets


def test_a_cohort_in_words():
    text = repr(datasets.theophylline())
    assert text.startswith("Cohort of 12 individuals (1, 2, 3, ..., 12)\n")
    assert "132 values, 11 per individual, times 0 to 24.65, values 0 to 11.4" in text
    assert "doses" in text
    assert "covariate weight" in text
    assert len(text.splitlines()) < 8
    assert repr(datasets.warfarin().repeat(3)).startswith("Cohort of 96 individuals (")


def test_a_cohort_as_a_table():
    series = pa.Series(torch.zeros(1, 2), torch.tensor([[1.0, torch.nan]]))
    cohort = pa.Cohort({"<y>": series}, ids=("a & b",))
    html = cohort._repr_html_()
    assert html.startswith("<table><caption>Cohort of 1 individual (a &amp; b)</caption>")
    assert "<td>&lt;y&gt;</td><td>1 values, 1 per individual, times 0, values 1</td>" in html


def test_nothing_recorded_is_said():
    series = pa.Series(torch.zeros(2, 2), torch.ones(2, 2), torch.zeros(2, 2, dtype=torch.bool))
    assert "0 values, 0 per individual" in repr(pa.Cohort({"y": series}))


def test_results_in_words(fit):
    text = repr(fit)
    assert text.startswith("PopulationFit: maximum likelihood, 40 individuals")
    assert "mean[1]" in text
    assert len(text.splitlines()) < 14
    assert fit._repr_html_().count("<tr>") == 6
    assert repr(fit.marginal).startswith("MarginalLikelihood of 40 individuals: -2LL")
    assert repr(fit.individuals).startswith("IndividualPosteriors of 40 individuals: 1000 draws of")
