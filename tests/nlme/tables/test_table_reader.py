"""Long tables: what is read, what is refused, and the way back."""

import logging
import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pyro_amortized import datasets, nlme
from pyro_amortized.cohort import Cohort, Doses, Series
from pyro_amortized.errors import TableError


def table(**changes):
    columns = {
        "ID": [7, 7, 7, 3, 3],
        "TIME": [0.0, 2.0, 1.0, 0.0, 4.0],
        "DV": [math.nan, 5.0, 6.0, math.nan, 2.0],
        "AMT": [100.0, 0.0, 0.0, 50.0, 0.0],
        "EVID": [1, 0, 0, 1, 0],
        "WT": [70.0, 70.0, 70.0, 60.0, 60.0],
    }
    return pd.DataFrame(columns | changes)


def same(a, b):
    assert a.ids == b.ids
    assert set(a.series) == set(b.series)
    assert set(a.time_varying) == set(b.time_varying)
    for name, first in a.series.items():
        assert torch.equal(first.observed, b[name].observed), name
        # A sample before a dose at its time is moved by a rounding error, each time it is read.
        assert torch.allclose(first.times, b[name].times, rtol=1e-14, atol=0.0), name
    for one, other in ((a.series, b.series), (a.time_varying, b.time_varying)):
        for name in one:  # what was recorded, when
            for i in range(len(a)):
                records = [
                    torch.stack([s.times[i], s.values[i]])[:, s.observed[i]]
                    for s in (one[name], other[name])
                ]
                assert torch.allclose(*records, rtol=1e-14), (name, i)
    assert (a.doses is None) == (b.doses is None)
    if a.doses is not None:
        for name, value in vars(a.doses).items():
            assert torch.allclose(getattr(b.doses, name).double(), value.double(), rtol=1e-14), name
    for name, value in a.covariates.items():
        assert torch.equal(b.covariates[name], value)


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
    assert "2 missing values of CRCL were carried forward" in caplog.text
    assert cohort.time_varying["OCC"].at(cohort["dv"].times).tolist() == [[1, 2], [1, 1]]


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


# Tables that are refused: changes to the good table above, and what the message names.
BAD = [
    ({"TIME": ["0", "soon", "1", "0", "4"]}, "Row 1, column TIME is 'soon'"),
    ({"TIME": [0.0, math.nan, 1.0, 0.0, 4.0]}, "Row 1, column TIME is missing"),
    ({"TIME": [0.0, math.inf, 1.0, 0.0, 4.0]}, "Row 1, column TIME is inf"),
    ({"TIME": ["8:00", "25:00", "9:00", "8:00", "9:00"]}, "Row 1, column TIME is '25:00'"),
    ({"TIME": ["8:00", "9:00", "8:30", "8:00", "9:00"]}, "Row 2, column TIME is '8:30'"),
    ({"TIME": ["8:00", 3.0, "9:00", "8:00", "9:00"]}, "Row 1, column TIME is 3.0"),
    ({"DATE": ["1/2/2024", "1/32/2024", *["1/3/2024"] * 3]}, "Row 1, column DATE is '1/32/2024'"),
    ({"DATE": ["1/2/2024", None, *["1/3/2024"] * 3]}, "Row 1, column DATE is missing"),
    ({"DV": [0.0, "low", 1.0, 0.0, 4.0]}, "Row 1, column DV is 'low'"),
    ({"DV": [0.0, math.inf, 1.0, 0.0, 4.0]}, "Row 1, column DV is inf"),
    ({"AMT": ["much", 0.0, 0.0, 50.0, 0.0]}, "Row 0, column AMT is 'much'"),
    ({"AMT": [-1.0, 0.0, 0.0, 50.0, 0.0]}, "Row 0, column AMT is -1.0"),
    ({"AMT": [math.inf, 0.0, 0.0, 50.0, 0.0]}, "Row 0, column AMT is inf"),
    ({"AMT": [0.0, 0.0, 0.0, 50.0, 0.0]}, "Row 0, column AMT is 0.0"),
    ({"AMT": [100.0, 0.0, 30.0, 50.0, 0.0]}, "Row 2, column AMT is 30.0"),
    ({"EVID": [1, 0, 5, 1, 0]}, "Row 2, column EVID is 5"),
    ({"EVID": [1, 0.5, 0, 1, 0]}, "Row 1, column EVID is 0.5"),
    ({"EVID": [1, 0, 0, 3, 0]}, "Row 3, column AMT is 50.0"),
    ({"EVID": [1, 0, 0, 1, 4]}, "Row 4, column AMT is 0.0"),
    ({"EVID": [4, 0, 0, 1, 0]}, "Row 2, column TIME is 1.0"),
    ({"RATE": [-3.0, 0, 0, 0, 0]}, "Row 0, column RATE is -3.0"),
    ({"RATE": [math.inf, 0, 0, 0, 0]}, "Row 0, column RATE is inf"),
    ({"RATE": [0, 5.0, 0, 0, 0]}, "Row 1, column RATE is 5.0"),
    ({"II": [-12, 0, 0, 0, 0]}, "Row 0, column II is -12"),
    ({"ADDL": [3, 0, 0, 0, 0]}, "Row 0, column II is missing"),
    ({"ADDL": [-1, 0, 0, 0, 0], "II": [12, 0, 0, 0, 0]}, "Row 0, column ADDL is -1"),
    ({"ADDL": [1.5, 0, 0, 0, 0], "II": [12, 0, 0, 0, 0]}, "Row 0, column ADDL is 1.5"),
    ({"ADDL": [0, 2, 0, 0, 0], "II": [12, 12, 0, 0, 0]}, "Row 1, column ADDL is 2"),
    ({"SS": [1, 0, 0, 0, 0]}, "Row 0, column II is missing"),
    ({"SS": [3, 0, 0, 0, 0], "II": 12}, "Row 0, column SS is 3"),
    ({"SS": [0, 1, 0, 0, 0], "II": 12}, "Row 1, column SS is 1"),
    ({"CMT": [0, 1, 1, 1, 1]}, "Row 0, column CMT is 0"),
    ({"CMT": [1, -2, 1, 1, 1]}, "Row 1, column CMT is -2"),
    ({"CMT": [1.5, 1, 1, 1, 1]}, "Row 0, column CMT is 1.5"),
    ({"MDV": [1, 2, 0, 1, 0]}, "Row 1, column MDV is 2"),
    ({"CENS": [0, 2, 0, 0, 0]}, "Row 1, column CENS is 2"),
    ({"CENS": [0, 1, 0, 0, 0], "DV": [0, None, 1, 0, 2]}, "Row 1, column DV is missing"),
    ({"CENS": [0, 1, 0, 0, 0], "LIMIT": [None, 9.0, None, None, None]}, "column LIMIT is 9.0"),
    ({"CENS": [0, -1, 0, 0, 0], "LIMIT": [None, 1.0, None, None, None]}, "column LIMIT is 1.0"),
    ({"BLQ": [0, 1, 0, 0, 0], "DV": [0, None, 1, 0, 2]}, "Row 1, column LLOQ is missing"),
    ({"BLQ": [0, 2, 0, 0, 0]}, "Row 1, column BLQ is 2"),
    ({"LLOQ": 5.5}, "Row 1, column DV is 5.0"),
    ({"ULOQ": 5.5}, "Row 2, column DV is 6.0"),
    ({"WT": [70.0, 71.0, 70.0, 60.0, 60.0]}, "Row 1, column WT is 71.0"),
    ({"WT": [None, None, None, 60.0, 60.0]}, "Row 0, column WT is missing"),
    ({"WT": ["heavy", 70.0, 70.0, 60.0, 60.0]}, "Row 0, column WT is 'heavy'"),
    ({"OCC": [1, 1, 1, None, None]}, "Row 3, column OCC is missing"),
    ({"DVID": ["a", None, "a", "a", "a"]}, "Row 1, column DVID is missing"),
    ({"ID": [7, None, 7, 3, 3]}, "Row 1, column ID is missing"),
    ({"ID": [7, " ", 7, 3, 3]}, "Row 1, column ID is missing"),
    ({"id": [7, 7, 7, 3, 3]}, "column ID more than once"),
    ({"EVID": [1, 2, 2, 1, 2]}, "no observation"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_bad_tables_name_the_row_and_the_column(changes, message):
    with pytest.raises(TableError) as caught:
        nlme.read_table(table(**changes), covariates=["WT"])
    assert message in str(caught.value)
    assert "Expected: " in str(caught.value)
    assert "To fix: " in str(caught.value)


def test_missing_columns_and_files(tmp_path):
    for name in ("ID", "TIME", "DV"):
        with pytest.raises(TableError, match=f"no column {name}"):
            nlme.read_table(table().drop(columns=name))
    with pytest.raises(TableError, match="no column 'AGE'"):
        nlme.read_table(table(), covariates=["AGE"])
    with pytest.raises(TableError, match="no column 'AGE'"):
        nlme.read_table(table(), time_varying=["AGE"])
    with pytest.raises(TableError, match="no rows"):
        nlme.read_table(table()[:0])
    with pytest.raises(TableError, match="no file"):
        nlme.read_table(tmp_path / "none.csv")
    path = tmp_path / "ragged.csv"
    path.write_text("ID,TIME,DV\n1,0,1\n1,1,2,3,4\n", "utf-8")
    with pytest.raises(TableError, match=r"Line 3 of .*ragged\.csv has 5 cells"):
        nlme.read_table(path)
    with pytest.raises(TableError, match="no column DVID"):
        nlme.read_table(table(), series={"cp": "conc"})
    with pytest.raises(TableError, match="endpoint 'x'"):
        nlme.read_table(table(DVID="cp"), series={"x": "conc"})
    with pytest.raises(TableError, match="`time_unit` is 'weeks'"):
        nlme.read_table(table(), time_unit="weeks")


BREAKING = {
    "TIME": ["x", math.nan, math.inf],
    "DV": ["x", -math.inf],
    "AMT": ["x", -1.0, math.inf],
    "EVID": ["x", 7, -1, 1.5],
    "MDV": ["x", 2, 0.5],
    "CMT": ["x", -1, 0, 2.5],
    "RATE": ["x", -3, math.inf],
    "II": ["x", -1.0],
    "ADDL": ["x", -1, 0.5],
    "SS": ["x", 4, -1],
    "CENS": ["x", 3],
    "ID": [None, ""],
}


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(sorted(BREAKING)), st.data())
def test_one_broken_entry_anywhere_is_named(name, data):
    """Whatever entry of whatever row breaks, its row and column are named."""
    row = data.draw(st.integers(0, 4))
    frame = table()
    defaults = {"MDV": 0, "CMT": 1, "RATE": 0, "II": 0, "ADDL": 0, "SS": 0, "CENS": 0}
    for column, default in defaults.items():
        frame[column] = default
    frame[name] = frame[name].astype(object)
    frame.loc[row, name] = data.draw(st.sampled_from(BREAKING[name]))
    with pytest.raises(TableError, match=f"Row {row}, column {name} is"):
        nlme.read_table(frame)


# And back.


def test_round_trip_through_a_table():
    cohort = datasets.theophylline()
    reread = nlme.read_table(
        nlme.to_table(cohort, "concentration"), series="concentration", covariates=["weight"]
    )
    same(reread, cohort)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
@example(4517)  # two samples before a dose at their time, of which one is not recorded
@example(34249)  # three values of CRCL at a time of which two rows are left
def test_a_round_trip_loses_nothing(seed):
    rng = np.random.default_rng(seed)
    rows = []
    for who in ("a", "b", "c"):
        times = np.sort(rng.integers(0, 30, rng.integers(2, 9))).astype(float)
        for time in times:
            dose = rng.random() < 0.4
            steady = int(dose and rng.random() < 0.3)
            below = not dose and rng.random() < 0.3
            rows.append(
                {
                    "ID": who,
                    "TIME": time,
                    "DV": math.nan if dose else 0.5 if below else 0.5 + rng.random(),
                    "EVID": (4 if rng.random() < 0.2 else 1) if dose else 0,
                    "MDV": int(dose or rng.random() < 0.2),
                    "AMT": rng.random() + 0.1 if dose else 0.0,
                    "RATE": rng.choice([0.0, 2.0, -1.0, -2.0]) if dose else 0.0,
                    "II": 12.0 if steady else 0.0,
                    "SS": steady,
                    "CMT": rng.integers(1, 3),
                    "CENS": int(below),
                    "DVID": rng.choice(["x", "y"]),
                    "WT": {"a": 1.0, "b": 2.0, "c": 3.0}[who],
                    "CRCL": rng.choice([math.nan, rng.random()]) if time > times[0] else 1.0,
                }
            )
    rows.append({"ID": "c", "TIME": 40.0, "DV": 1.0, "EVID": 0, "DVID": "x", "WT": 3.0})
    rows.append({"ID": "c", "TIME": 40.0, "DV": 1.0, "EVID": 0, "DVID": "y", "WT": 3.0})
    frame = pd.DataFrame(rows)
    names = {"x": "x", "y": "y"}
    options = {"series": names, "covariates": ["WT"], "time_varying": ["CRCL"]}
    cohort = nlme.read_table(frame, **options)
    reread = nlme.read_table(nlme.to_table(cohort), **options)
    same(reread, cohort)


def test_covariates_with_times_of_their_own_keep_them():
    series = Series(torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0, 2.0]]))
    weight = Series(torch.tensor([[0.5, 1.0]]), torch.tensor([[70.0, 68.0]]))
    cohort = Cohort(
        {"y": series}, Doses(torch.zeros(1, 1), torch.ones(1, 1)), time_varying={"WT": weight}
    )
    frame = nlme.to_table(cohort)
    assert frame["EVID"].tolist() == [1, 0, 2, 2, 0]
    reread = nlme.read_table(frame, series="y", time_varying=["WT"]).time_varying["WT"]
    when = torch.tensor([[0.0, 0.7, 1.5]]).double()
    assert reread.at(when).tolist() == [[70.0, 70.0, 68.0]]


def test_theophylline_is_read_without_a_word(caplog):
    with caplog.at_level(logging.INFO, "pyro_amortized.nlme"):
        datasets.theophylline()
    assert not caplog.records
