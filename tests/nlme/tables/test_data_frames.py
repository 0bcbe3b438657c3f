"""DataFrames: categories in their order, and frames of other libraries."""

import pandas as pd
import pytest

from pyro_amortized import nlme

from .kit import same, table


@pytest.mark.parametrize(
    ("texts", "names"),
    [
        (["100 mg", "10 mg", "30.5 mg", "placebo"], ("10 mg", "30.5 mg", "100 mg", "placebo")),
        (["b2", "a10", "b10", "a9"], ("a9", "a10", "b2", "b10")),
        (
            pd.Categorical(["low", "high", "mid", "low"], ["low", "mid", "high"], ordered=True),
            ("low", "mid", "high"),
        ),
    ],
)
def test_categories_are_in_the_order_of_readers(texts, names):
    frame = pd.DataFrame({"ID": range(4), "TIME": 0.0, "DV": 1.0, "ARM": texts})
    cohort = nlme.read_table(frame, covariates=["ARM"])
    assert cohort.categories["ARM"] == names
    assert [names[int(k)] for k in cohort.covariates["ARM"]] == list(texts)


def test_frames_of_other_libraries_periods_and_blanks_in_names():
    class Frame:  # Polars and PyArrow have this method
        def to_pandas(self):
            return table().rename(columns={"DV": " DV "})

    same(nlme.read_table(Frame()), nlme.read_table(table()))
    periods = pd.PeriodIndex(["2024-01-01 00:00", "2024-01-01 02:00"], freq="h")
    frame = pd.DataFrame({"ID": [1, 1], "TIME": periods, "DV": [1.0, 2.0]})
    assert nlme.read_table(frame)["dv"].times.tolist() == [[0.0, 2.0]]
