"""Long tables: what is read."""

import logging
import math

import pandas as pd
import pytest
import torch

from pyro_amortized import datasets, nlme
from pyro_amortized.errors import TableError

from .kit import same, table


def test_read_table_sorts_pads_and_keeps_order(caplog):
    cohort = nlme.read_table(table(), series="conc", covariates=["WT"])
    assert cohort.ids == ("7", "3")
    assert cohort["conc"].times.tolist() == [[1.0, 2.0], [4.0, 4.0]]
    assert cohort["conc"].observed.tolist() == [[True, True], [True, False]]
    assert cohort["conc"].values[0].tolist() == [6.0, 5.0]
    assert cohort.doses.amounts.tolist() == [[100.0], [50.0]]
    assert cohort.covariates["WT"].tolist() == [70.0, 60.0]
    assert "individuals ['7'] were not sorted" in caplog.text


def test_comments_and_dots_in_files(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text(
        "# a comment\nid,time,dv,amt,evid\n1,0,.,100,1\n1,1,4.5,.,0\n1,2,.,.,0\n", "utf-8"
    )
    cohort = nlme.read_table(path)
    assert cohort["dv"].observed.tolist() == [[True, False]]
    assert cohort.doses.amounts.tolist() == [[100.0]]
    path.write_text("# a comment\nid,time,dv,amt\n1,0,.,100\n\n1,soon,4.5,.\n", "utf-8")
    with pytest.raises(TableError, match="Row 5, column TIME is 'soon'"):
        nlme.read_table(path)


def test_additional_doses_steady_states_and_resets():
    frame = pd.DataFrame(
        {
            "ID": 1,
            "TIME": [0, 1, 60, 61],
            "DV": [math.nan, 1.0, math.nan, 2.0],
            "AMT": [100, 0, 30, 0],
            "EVID": [1, 0, 4, 0],
            "II": [12, 0, 0, 0],
            "ADDL": [3, 0, 0, 0],
            "SS": [1, 0, 0, 0],
            "RATE": [50, 0, -2, 0],
            "CMT": [2, 1, 1, 1],
        }
    )
    doses = nlme.read_table(frame).doses
    assert doses.times.tolist() == [[0, 12, 24, 36, 60]]
    assert doses.steady_state.tolist() == [[1, 0, 0, 0, 0]]
    assert doses.intervals.tolist() == [[12, 0, 0, 0, 0]]
    assert doses.durations.tolist() == [[2, 2, 2, 2, 0]]
    assert doses.rates.tolist() == [[50, 50, 50, 50, -2]]
    assert doses.reset.tolist() == [[False] * 4 + [True]]
    assert doses.compartment.tolist() == [[2, 2, 2, 2, 1]]


@pytest.mark.parametrize(
    ("time", "extra", "expected"),
    [
        (["8:00", "8:30", "14:15"], {}, [8, 8.5, 14.25]),
        (
            ["2024-02-28 20:00", "2024-02-29 08:00", "2024-03-01T08:00:30"],
            {},
            [0, 12, 36 + 1 / 120],
        ),
        (["20:00", "8:00", "9"], {"DATE": ["2/28/2024", "2/29/2024", "3/1/2024"]}, [0, 12, 37]),
        (["20:00", "8:00", "9:00"], {"DAT1": ["28-2-2024", "29-2-2024", "1-3-2024"]}, [0, 12, 37]),
        (
            ["20:00", "8:00", "9:00"],
            {"DATE": ["2024-02-28", "2024-02-29", "2024-03-01"]},
            [0, 12, 37],
        ),
        (["1:00", "8:00", "9:00"], {"DATE": [1, 2, 3]}, [0, 31, 56]),
    ],
)
def test_clock_times_and_dates(time, extra, expected):
    frame = pd.DataFrame({"ID": 1, "TIME": time, "DV": [1.0, 2.0, 3.0]} | extra)
    assert nlme.read_table(frame)["dv"].times[0].tolist() == pytest.approx(expected)
    in_days = nlme.read_table(frame, time_unit="d")["dv"].times[0]
    assert in_days.tolist() == pytest.approx([x / 24 for x in expected])


def test_endpoints_have_their_own_times():
    frame = pd.DataFrame(
        {
            "ID": [1, 1, 1, 1, 2],
            "TIME": [0, 1, 1, 3, 2],
            "DV": [math.nan, 5.0, 80.0, 4.0, 70.0],
            "DVID": [math.nan, "cp", "pca", "cp", "pca"],
            "AMT": [10, 0, 0, 0, 0],
        }
    )
    cohort = nlme.read_table(frame, series={"cp": "concentration", "pca": "response"})
    assert cohort["concentration"].times.tolist() == [[1, 3], [2, 2]]
    assert cohort["concentration"].observed.tolist() == [[True, True], [False, False]]
    assert cohort["response"].values.tolist() == [[80.0], [70.0]]
    assert set(nlme.read_table(frame).series) == {"dv_cp", "dv_pca"}
    by_compartment = frame.drop(columns="DVID").assign(CMT=[1, 2, 3, 2, 3])
    with pytest.raises(TableError, match=r"compartments \[2, 3\]"):
        nlme.read_table(by_compartment)
    reread = nlme.read_table(by_compartment, endpoint="CMT", series={2: "a", 3: "b"})
    assert reread["b"].values.tolist() == [[80.0], [70.0]]


def test_censored_values_and_their_limits():
    frame = pd.DataFrame(
        {
            "ID": [1, 1, 1, 2, 2],
            "TIME": [0, 1, 2, 0, 1],
            "DV": [5.0, 1.0, 9.0, 0.4, 3.0],
            "CENS": [0, 1, -1, 0, 0],
            "LIMIT": [math.nan, 0.2, math.nan, math.nan, math.nan],
        }
    )
    cohort = nlme.read_table(frame)
    low, high = cohort.time_varying["dv_low"], cohort.time_varying["dv_high"]
    assert low.values[0].tolist() == [1.0, 1.0, 1.0]
    assert float(low.values[1, 0]) < 0.4  # a value below another one's limit was measured
    assert high.values.tolist() == [[9.0, 9.0, 9.0], [9.0, 9.0, 9.0]]
    floor = cohort.time_varying["dv_floor"]
    assert floor.observed.tolist() == [[False, True, False], [False, False, False]]
    flagged = pd.DataFrame(
        {"ID": 1, "TIME": [0, 1], "DV": [3.0, 0.0], "BLQ": [0, 1], "LLOQ": [0.5, 0.5]}
    )
    flagged_cohort = nlme.read_table(flagged)
    assert flagged_cohort["dv"].values.tolist() == [[3.0, 0.5]]
    assert flagged_cohort.time_varying["dv_low"].values.tolist() == [[0.5, 0.5]]


def test_time_varying_covariates_are_carried_forward(caplog):
    frame = table(CRCL=[90.0, 80.0, math.nan, math.nan, 60.0], OCC=[1, 2, 1, 1, 1])
    cohort = nlme.read_table(frame, time_varying=["CRCL"])
    clearance = cohort.time_varying["CRCL"]
    assert clearance.at(torch.tensor([[0.5, 1.0, 2.5], [0.0, 5.0, 9.0]]).double()).tolist() == [
        [90.0, 90.0, 80.0],
        [60.0, 60.0, 60.0],
    ]
    assert clearance.at(torch.tensor([[0.5, 1.0, 2.5], [0.0, 5.0, 9.0]]).double(), "next")[
        0
    ].tolist() == [80.0, 80.0, 80.0]
    assert "2 missing values of CRCL are taken from other records" in caplog.text
    assert cohort.time_varying["OCC"].at(cohort["dv"].times).tolist() == [[1, 2], [1, 1]]


def test_an_incomplete_covariate_is_a_series_of_one_value(caplog):
    frame = table(AGE=[math.nan, math.nan, 40.0, math.nan, math.nan])
    cohort = nlme.read_table(frame, incomplete=["AGE"])
    record, known = cohort["AGE"], int(cohort["AGE"].observed.sum())
    assert record.values.shape == (2, 1)
    assert known == 1
    assert record.values[record.observed].tolist() == [40.0]
    assert "AGE is missing for 1 of 2 individuals" in caplog.text
    with pytest.raises(TableError, match="incomplete"):
        nlme.read_table(frame, covariates=["AGE"])
    with pytest.raises(TableError, match="one individual or more"):
        nlme.read_table(table(AGE=[math.nan] * 5), incomplete=["AGE"])
    with pytest.raises(TableError, match="one value for individual"):
        nlme.read_table(table(AGE=[1.0, 2.0, 3.0, 4.0, 5.0]), incomplete=["AGE"])
    with pytest.raises(TableError, match="no column 'HT'"):
        nlme.read_table(frame, incomplete=["HT"])


def test_an_observation_sees_the_doses_that_stand_before_it():
    frame = pd.DataFrame(
        {
            "ID": 1,
            "TIME": [0, 0, 12, 12, 12],
            "DV": [1.0, math.nan, 2.0, math.nan, 3.0],
            "AMT": [0, 10.0, 0, 10.0, 0],
        }
    )
    cohort = nlme.read_table(frame)
    one = torch.ones(1, dtype=torch.float64)
    f = nlme.one_compartment(cohort["dv"].times, cohort.doses, cl=0.1 * one, v=one)[0]
    decayed = 10 * math.exp(-1.2)
    assert f.tolist() == pytest.approx([0.0, decayed, decayed + 10])
    ode = lambda t, x, p: -p["k"].unsqueeze(-1) * x  # noqa: E731
    for solver in ("compiled", "torchdiffeq"):
        x = nlme.solve(
            ode,
            torch.zeros(1).double(),
            cohort["dv"].times,
            {"k": 0.1 * one},
            doses=cohort.doses,
            solver=solver,
        )
        assert x[0, :, 0].tolist() == pytest.approx(f.tolist(), abs=1e-6)
    assert nlme.to_table(cohort)["TIME"].tolist() == [0, 0, 12, 12, 12]
    same(nlme.read_table(nlme.to_table(cohort)), cohort)


def test_what_is_ignored_is_said(caplog):
    frame = table(L2=[1, 1, 2, 1, 1], DV=[3.0, 5.0, 6.0, math.nan, 2.0])
    nlme.read_table(frame)
    assert "L2 is ignored" in caplog.text
    assert "DV of 1 rows that are not observations is ignored, first in row 0" in caplog.text
    caplog.clear()
    alone = nlme.read_table(table(EVID=[1, 0, 0, 1, 2]))
    assert "['3'] have no observation record" in caplog.text
    assert len(alone) == 2
    assert not alone["dv"].observed[1].any()


def test_theophylline_is_read_without_a_word(caplog):
    with caplog.at_level(logging.INFO, "pyro_amortized.nlme"):
        datasets.theophylline()
    assert not caplog.records


def sexes(*texts, **options):
    rows = [(i, t, 1.0, x) for i, x in enumerate(texts) for t in (0.0, 1.0)]
    frame = pd.DataFrame(rows, columns=["ID", "TIME", "DV", "SEX"])
    return nlme.read_table(frame, covariates=["SEX"], **options)


def test_categories_that_no_individual_has():
    """In a table of men alone M would be 0, as F is in the others."""
    assert sexes("M", "M").covariates["SEX"].tolist() == [0.0, 0.0]
    given = sexes("M", "M", categories={"SEX": ["F", "M"]})
    assert given.covariates["SEX"].tolist() == [1.0, 1.0]
    assert given.is_category("SEX", "F").tolist() == [False, False]
    assert dict(given.categories) == {"SEX": ("F", "M")}
    numbers = sexes(1, 2, categories={"SEX": ["2", "1"]})
    assert numbers.covariates["SEX"].tolist() == [1.0, 0.0]
    kind = pd.CategoricalDtype(["M", "F"])
    frame = pd.DataFrame({"ID": [1, 1], "TIME": [0.0, 1.0], "DV": [1.0, 2.0], "SEX": ["M", "M"]})
    declared = nlme.read_table(frame.astype({"SEX": kind}), covariates=["SEX"])
    assert declared.covariates["SEX"].tolist() == [1.0]  # sorted, as those of a file


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        ("MX", {"categories": {"SEX": ["F", "M"]}}, "column SEX is 'X'[\\s\\S]*one of"),
        ("MF", {"categories": {"SEX": "FM"}}, "The categories of 'SEX' are 'FM'"),
        ("MF", {"categories": {"RACE": ["A"]}}, "'RACE', which is not among the covariates"),
        (("M", 1), {}, "column SEX is 'M'[\\s\\S]*because other rows have numbers"),
    ],
)
def test_categories_that_do_not_fit(texts, options, message):
    with pytest.raises(TableError, match=message):
        sexes(*texts, **options)


def test_capitals_and_rows_that_occur_twice_are_named(caplog):
    sexes("M", "m")
    assert "differ in capitals only" in caplog.text
    frame = pd.DataFrame(
        {
            "ID": 1,
            "TIME": [0, 0, 1, 1],
            "DV": [0, 0, 5, 5],
            "AMT": [9, 9, 0, 0],
            "CMT": [1, 2, 1, 1],
        }
    )
    cohort = nlme.read_table(frame)
    assert "1 rows are the same as earlier ones in every column and count again, first row 3" in (
        caplog.text
    )
    assert cohort.doses.amounts.tolist() == [[9.0, 9.0]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('1,1,"9,04",.', "decimal point"),
        ('1,1,"1,000",.', "separators of thousands"),
    ],
)
def test_commas_inside_numbers(tmp_path, line, message):
    path = tmp_path / "data.csv"
    path.write_text(f"ID,TIME,DV,AMT\n1,0,.,100\n{line}\n", "utf-8")
    with pytest.raises(TableError, match=message):
        nlme.read_table(path)


def test_a_row_of_units_and_an_index(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("ID,TIME,DV,AMT\n-,h,mg/L,mg\n1,0,.,100\n1,1,9,.\n", "utf-8")
    with pytest.raises(TableError, match="a row of units below the header"):
        nlme.read_table(path)
    frame = pd.DataFrame({"ID": [1, 1], "TIME": [0, 1], "DV": [1.0, 2.0]})
    with pytest.raises(TableError, match="reset_index"):
        nlme.read_table(frame.set_index(["ID", "TIME"]))
    assert nlme.read_table(frame.set_index("ID").reset_index()).ids == ("1",)


def test_hours_after_midnight_need_a_date():
    frame = pd.DataFrame({"ID": 1, "TIME": ["23:00", "24:00"], "DV": [1.0, 2.0]})
    with pytest.raises(TableError, match=r"from 0:00 to 23:59[\s\S]*DATE"):
        nlme.read_table(frame)


def test_columns_of_monolix_are_read_by_their_purpose(tmp_path, caplog):
    path = tmp_path / "data.csv"
    path.write_text(
        "ID,TIME,Y,AMT,ADM,SS,II,EVID,YTYPE,CENS,LIMIT\n"
        "1,0,.,100,2,1,12,1,.,.,.\n1,1,4.5,.,.,.,.,0,1,0,.\n1,1,22,.,.,.,.,0,2,0,.\n"
        "1,2,0.5,.,.,.,.,0,1,1,0\n1,48,.,80,1,.,.,4,.,.,.\n1,50,3,.,.,.,.,0,1,0,.\n",
        "utf-8",
    )
    with caplog.at_level(logging.WARNING):
        cohort = nlme.read_table(path, series={"1": "cp", "2": "pca"})
    for old, new in (("Y", "DV"), ("ADM", "CMT"), ("YTYPE", "DVID")):
        assert f"The column {old} is read as {new}." in caplog.text
    assert cohort["cp"].values.tolist() == [[4.5, 0.5, 3.0]]
    assert cohort["pca"].values.tolist() == [[22.0]]
    assert cohort.doses.compartment.tolist() == [[2, 1]]
    assert float(cohort.time_varying["cp_floor"].at(cohort["cp"].times)[0, 1]) == 0.0
    # A column of that name with another purpose keeps it.
    frame = pd.read_csv(path, na_values=".").rename(columns={"Y": "DV", "ADM": "CMT"})
    frame["Y"], frame["ADM"] = 3.0, 1.0
    both = nlme.read_table(frame, series={"1": "cp", "2": "pca"}, covariates=["Y", "ADM"])
    assert torch.equal(both["cp"].values, cohort["cp"].values)
    assert both.covariates["Y"].tolist() == [3.0]
