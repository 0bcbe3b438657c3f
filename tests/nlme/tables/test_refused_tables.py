"""Tables that are refused: the message names the row and the column."""

import math

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyro_amortized import nlme
from pyro_amortized.errors import TableError

from .kit import table

# Changes to the good table, and what the message names.
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


DATES = {"D": pd.date_range("2024-01-01", periods=5)}
ODD = [
    (table(**DATES), {"covariates": ["D"]}, "not dates or time differences"),
    (table(DV=[1j] * 5), {}, "column DV is 1j"),
    (pd.concat({"a": table()}, axis=1), {}, "have 2 levels"),
    (table().rename(columns={"WT": "wt"}), {"covariates": ["WT"]}, "write 'wt' in `covariates=`"),
    (table().drop(columns="TIME"), {}, r"frame\.groupby\('ID'\)\.cumcount"),
    (table().to_dict("list"), {}, r"pandas\.DataFrame\(table\)"),
    (
        table(ID=1, PLOT=["b", "b", "b", "a", "a"]),
        {"covariates": ["PLOT"]},
        "PLOT is 'a'[\\s\\S]*first value is 'b'[\\s\\S]*repeat within PLOT",
    ),
]


@pytest.mark.parametrize(("frame", "options", "message"), ODD)
def test_odd_frames_are_refused_with_a_way(frame, options, message):
    with pytest.raises(TableError, match=message):
        nlme.read_table(frame, **options)


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
