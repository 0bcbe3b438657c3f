"""Files as people bring them: each kind with its right result."""

import logging

import numpy as np
import pandas as pd
import pyro.distributions as dist
import pytest
import torch

from pyro_amortized import nlme
from pyro_amortized.errors import TableError


def read(tmp_path, text, **options):
    path = tmp_path / "table.txt"
    path.write_text(text, "utf-8")
    return nlme.read_table(path, **options)


def concentration(cohort):
    """One compartment with clearance 1 and volume 10 at the times of the first individual."""
    one = torch.ones(len(cohort), dtype=torch.float64)
    times = cohort["dv"].times
    return nlme.one_compartment(times, cohort.doses, cl=one, v=10 * one)[0].tolist()


ROWS = [["1", "0", ".", "100", "1"], ["1", "1.5", "4.25", ".", "0"], ["2", "0.5", "3.5", ".", "0"]]
NAMES = ["ID", "TIME", "DV", "AMT", "EVID"]


def text_of(separator, rows=ROWS, names=NAMES, before=""):
    return before + "".join(separator.join(row) + "\n" for row in [names, *rows])


@pytest.mark.parametrize("separator", [",", ";", "\t", "|", " ", "   ", ", "])
@pytest.mark.parametrize("before", ["", "#", "# ", "TABLE NO.  1\n", "C a title\n", "My study\n\n"])
def test_separators_and_lines_before_the_header(tmp_path, separator, before):
    if before == "C a title\n" and separator == " ":
        before = "C\n"
    cohort = read(tmp_path, text_of(separator, before=before))
    assert cohort.ids == ("1", "2")
    assert cohort["dv"].times[:, 0].tolist() == [1.5, 0.5]
    assert cohort["dv"].values[:, 0].tolist() == [4.25, 3.5]
    assert cohort.doses.amounts.tolist() == [[100.0], [0.0]]


def test_decimal_commas(tmp_path, caplog):
    rows = [[x.replace(".", ",") if len(x) > 1 else x for x in row] for row in ROWS]
    for separator in (";", "\t", " "):
        cohort = read(tmp_path, text_of(separator, rows))
        assert cohort["dv"].values[:, 0].tolist() == [4.25, 3.5]
    assert "decimal comma" in caplog.text


def test_tables_that_nonmem_writes(tmp_path):
    """Titles and headers are repeated, and all numbers have exponents."""
    head = "TABLE NO.  1\n ID          TIME        DV          AMT\n"
    text = (
        head + "  1.0000E+00  0.0000E+00  0.0000E+00  1.0000E+02\n"
        "  1.0000E+00  1.0000E+00  4.2000E+00  0.0000E+00\n"
        + head
        + "  2.0000E+00  1.0000E+00  5.2000E+00  0.0000E+00\n"
    )
    cohort = read(tmp_path, text)
    assert cohort.ids == ("1", "2")
    assert cohort["dv"].values[:, 0].tolist() == [4.2, 5.2]


def test_a_file_without_a_header(tmp_path):
    text = "1 0 . 100 1\n1 1 4.2 . 0\n"
    cohort = read(tmp_path, text, columns=NAMES)
    assert cohort["dv"].values.tolist() == [[4.2]]
    with pytest.raises(TableError, match=r"pass the names of the 5 columns"):
        read(tmp_path, text)


@pytest.mark.parametrize("head", ["C ID TIME DV AMT EVID", "CID TIME DV AMT EVID"])
def test_a_header_that_is_commented_out(tmp_path, head):
    cohort = read(tmp_path, head + "\n1 0 . 100 1\nC 1 7 8 . 0\n1 1 4.2 . 0\n")
    assert cohort["dv"].values.tolist() == [[4.2]]


@pytest.mark.parametrize("separator", [" ", ",", ";"])
def test_an_individual_whose_label_is_c_is_read(tmp_path, separator):
    """A C comments a row out only where a complete row follows."""
    rows = [["C", "0", "5"], ["C", "1", "4"], ["B", "0", "6"]]
    cohort = read(tmp_path, text_of(separator, rows, ["ID", "TIME", "DV"]))
    assert cohort.ids == ("C", "B")
    if separator == ",":
        labelled = read(tmp_path, "ID,TIME,DV\nC 12,0,5\nc 13,0,4\n")
        assert labelled.ids == ("C 12", "c 13")


def test_a_column_that_comments_rows_out(tmp_path, caplog):
    text = "C,ID,TIME,DV,AMT,EVID\n.,1,0,.,100,1\n.,1,1,4.2,.,0\nC,1,2,99,.,0\n.,1,4,3.0,.,0\n"
    cohort = read(tmp_path, text)
    assert cohort["dv"].values.tolist() == [[4.2, 3.0]]
    assert "1 rows are left out, because the column C marks them: ['4']" in caplog.text


def test_a_number_sign_inside_a_cell_is_text(tmp_path):
    text = (
        "ID,TIME,NOTE,DV,AMT,EVID\n1,0,dose #1,.,100,1\n# a comment\n1,1,vial #3,9.0,.,0\n"
        "1,24,dose #2,.,100,1\n"
    )
    cohort = read(tmp_path, text)
    assert cohort["dv"].values.tolist() == [[9.0]]
    assert cohort.doses.times.tolist() == [[0.0, 24.0]]


def test_rows_are_named_by_their_lines(tmp_path):
    text = "# one\n\nID,TIME,DV\n1,0,2\n# five\n1,x,3\n"
    with pytest.raises(TableError, match="Row 6, column TIME is 'x'"):
        read(tmp_path, text)


def test_labels_stay_what_they_are(tmp_path):
    text = "ID,TIME,DV\n101.1,0,1\n101.10,0,1\n007,0,1\n7,0,1\n8.0,0,1\n8,1,1\na b,0,1\n"
    assert read(tmp_path, text).ids == ("101.1", "101.10", "007", "7", "8", "a b")


def test_columns_that_are_not_used_are_named(tmp_path, caplog):
    read(tmp_path, "ID,TIME,DV,SEX,WT\n1,0,1,2,70\n", covariates=["WT"])
    assert "Columns that are not used: SEX." in caplog.text


@pytest.mark.parametrize("name", ["DUR", "dur", "TINF"])
def test_durations_of_infusions(tmp_path, caplog, name):
    cohort = read(tmp_path, f"ID,TIME,DV,AMT,EVID,{name}\n1,0,.,100,1,2\n1,1,4.8,.,0,.\n")
    assert concentration(cohort) == pytest.approx([4.758129098202021])
    assert "durations of 1 infusions" in caplog.text


def test_a_duration_that_is_something_else_is_not_used(tmp_path, caplog):
    cohort = read(tmp_path, "ID,TIME,DV,AMT,EVID,DUR\n1,0,.,100,1,2\n1,1,4.8,.,0,2\n")
    assert concentration(cohort) == pytest.approx([9.048374180359595])
    assert "DUR is not used" in caplog.text
    named = "ID,TIME,DV,AMT,EVID,DUR\n1,0,.,100,1,2\n1,1,4.8,.,0,2\n"
    assert read(tmp_path, named, covariates=["DUR"]).covariates["DUR"].tolist() == [2.0]


def test_flags_without_a_limit(tmp_path, caplog):
    text = "ID,TIME,DV,AMT,EVID,BQL\n1,0,.,100,1,0\n1,1,2.2,.,0,0\n1,30,-4,.,0,1\n"
    cohort = read(tmp_path, text)
    assert cohort["dv"].observed.tolist() == [[True, False]]
    assert "1 values are flagged as below a limit (BLQ) that the table does not give" in caplog.text
    limited = text.replace("BQL", "BQL,LOQ").replace(",0\n", ",0,-3\n").replace(",1\n", ",1,-3\n")
    cohort = read(tmp_path, limited)
    assert cohort["dv"].values.tolist() == [[2.2, -3.0]]
    assert cohort.time_varying["dv_low"].values.tolist() == [[-3.0, -3.0]]


def test_a_censored_value_that_is_not_recorded_is_named(tmp_path, caplog):
    text = "ID,TIME,DV,CENS,MDV\n1,0,5,0,0\n1,1,0.1,1,1\n"
    assert read(tmp_path, text)["dv"].observed.tolist() == [[True, False]]
    assert "1 values with CENS are not used, because MDV is 1 there, first in row 3" in caplog.text


def test_a_limit_of_zero_on_a_logarithmic_scale(tmp_path):
    text = "ID,TIME,DV,CENS\n1,0,1,0\n1,1,-0.5,0\n1,2,0,1\n"
    assert read(tmp_path, text)["dv"].values.tolist() == [[1.0, -0.5, 0.0]]


ADDL = "ID,TIME,DV,AMT,EVID,II,ADDL\n1,0,.,100,1,12,5\n"


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ("1,30,.,.,3,.,.\n1,50,0.1,.,0,.,.\n", 0.0),
        ("1,30,.,200,4,.,.\n1,50,2.7,.,0,.,.\n", 20 * np.exp(-2.0)),
        ("1,36,.,.,3,.,.\n1,50,0.1,.,0,.,.\n", 0.0),  # at the time of an additional dose
        ("1,30,.,.,3,.,.\n1,31,.,50,1,.,.\n1,50,1,.,0,.,.\n", 5 * np.exp(-1.9)),
        ("1,30,.,50,4,6,2\n1,50,1,.,0,.,.\n", 5 * sum(np.exp([-2.0, -1.4, -0.8]))),
    ],
)
def test_a_reset_cancels_pending_additional_doses(tmp_path, rows, expected):
    assert concentration(read(tmp_path, ADDL + rows))[0] == pytest.approx(expected, abs=1e-12)


def test_a_reset_before_a_train_of_doses_cancels_nothing(tmp_path):
    text = "ID,TIME,DV,AMT,EVID,II,ADDL\n1,0,.,.,3,.,.\n1,0,.,100,1,12,1\n1,13,1,.,0,.,.\n"
    expected = 10 * (np.exp(-1.3) + np.exp(-0.1))
    assert concentration(read(tmp_path, text))[0] == pytest.approx(expected)


@pytest.mark.parametrize("interval", [0.333, 0.1, 1 / 3, 0.7])
def test_additional_doses_meet_the_records_of_their_times(tmp_path, interval):
    """An observation at the time of a dose sees it, whatever the rounding of the multiples."""
    times = [float(f"{k * interval:.12g}") for k in range(1, 9)]
    rows = "".join(f"1,{t:.12g},1,.,.,.\n" for t in times)
    text = f"ID,TIME,DV,AMT,II,ADDL\n1,0,.,100,{interval:.15g},9\n{rows}"
    expected = [10 * sum(np.exp(-0.1 * interval * j) for j in range(k + 1)) for k in range(1, 9)]
    assert concentration(read(tmp_path, text)) == pytest.approx(expected, rel=1e-9)


def test_an_individual_that_comes_back_is_named(tmp_path, caplog):
    read(tmp_path, "ID,TIME,DV\n1,0,9\n1,1,9\n2,0,9\n1,24,4\n")
    assert "Individuals come back after others (1 in row 5)" in caplog.text


def test_codes_of_missing_values_are_named(tmp_path, caplog):
    text = "ID,TIME,DV,WT\n1,0,9,70\n2,0,-99,-99\n"
    read(tmp_path, text, covariates=["WT"])
    assert "WT is -99 for individuals ['2']" in caplog.text
    assert "DV is -99 for individuals ['2']" in caplog.text
    caplog.clear()
    read(tmp_path, "ID,TIME,DV,T\n1,0,9,-9\n2,0,9,-3\n", covariates=["T"])  # temperatures
    assert "code of a missing value" not in caplog.text


def test_a_covariate_is_filled_from_the_other_rows(tmp_path):
    text = "ID,TIME,DV,WT\n1,0,9,70\n1,1,8,.\n2,0,7,.\n2,1,6,60\n"
    assert read(tmp_path, text, covariates=["WT"]).covariates["WT"].tolist() == [70.0, 60.0]
    with pytest.raises(TableError, match="make the covariate a site of the model"):
        read(tmp_path, text.replace("60", "."), covariates=["WT"])


def test_time_zones(tmp_path):
    text = "ID,TIME,DV\n1,2024-12-31T08:00Z,1\n1,2024-12-31T10:00+01:00,4.2\n"
    assert read(tmp_path, text)["dv"].times.tolist() == [[0.0, 1.0]]


FRAME = pd.DataFrame(
    {"ID": ["1", "1", "2"], "TIME": [0.0, 1.5, 0.5], "DV": [3.0, 4.0, 5.0], "WT": [70, 70, 60]}
)


@pytest.mark.parametrize(
    "changes",
    [
        {"TIME": pd.to_datetime(["2024-01-01 08:00", "2024-01-01 09:30", "2024-01-02 07:30"])},
        {
            "TIME": pd.to_datetime(
                ["2024-01-01 08:00", "2024-01-01 09:30", "2024-01-02 07:30"], utc=True
            )
        },
        {"TIME": pd.to_timedelta([0, 90, 30], unit="min")},
        {"ID": pd.Categorical(["1", "1", "2"]), "WT": pd.Categorical([70, 70, 60])},
        {"ID": pd.array([1, 1, 2], dtype="Int64"), "WT": pd.array([70, pd.NA, 60], dtype="Int64")},
        {"DV": pd.array([3.0, 4.0, 5.0], dtype="Float64")},
        {"ID": pd.array(["1", "1", "2"], dtype="string")},
    ],
    ids=["dates", "zones", "differences", "categories", "integers", "floats", "strings"],
)
def test_a_frame_is_read_by_its_types(changes):
    cohort = nlme.read_table(FRAME.assign(**changes), covariates=["WT"])
    assert cohort.ids == ("1", "2")
    start = cohort["dv"].times[1, 0]
    assert cohort["dv"].times[0].tolist() == [0.0, 1.5]
    assert float(start) in (0.0, 0.5)  # dates are counted from the first record
    assert cohort["dv"].values[:, 0].tolist() == [3.0, 5.0]
    assert cohort.covariates["WT"].tolist() == [70.0, 60.0]


def test_nothing_is_logged_about_a_plain_table(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        read(tmp_path, text_of(","))
    assert caplog.text == "" or "no observation" in caplog.text


FLAGS = "ID,TIME,DV,{flag}\n1,0,5,0\n1,1,3,0\n2,0,4,{last}\n"


@pytest.mark.parametrize("flag", ["CENS", "BLQ", "BQL"])
def test_a_table_without_censored_values_has_a_limit(tmp_path, caplog, flag):
    """The program of a table with censored values runs, and nothing is censored."""
    cohort = read(tmp_path, FLAGS.format(flag=flag, last=0))
    low = cohort.time_varying["dv_low"].at(cohort["dv"].times)
    assert low.tolist() == [[0.0, 0.0], [0.0, 0.0]]
    normal = dist.Normal(torch.full((2, 2), 4.0).double(), 2.0)
    censored = nlme.Censored(normal, low=low).log_prob(cohort["dv"].values)
    assert torch.equal(censored, normal.log_prob(cohort["dv"].values))
    assert "No value of dv lies below its limit, which the table does not give" in caplog.text


def test_a_limit_that_censors_nothing_lies_below_negative_values(tmp_path):
    cohort = read(tmp_path, "ID,TIME,DV,CENS\n1,0,-1,0\n1,1,2,0\n")
    assert cohort.time_varying["dv_low"].values.tolist() == [[-31.0, -31.0]]


def test_a_table_without_flags_gets_the_limit_of_the_call(tmp_path):
    text = "ID,TIME,DV,DVID\n1,0,5,1\n1,1,3,1\n1,0,40,2\n"
    names = {1: "c", 2: "e"}
    cohort = read(tmp_path, text, series=names, lloq={"c": 0.5}, uloq={"e": 90})
    assert set(cohort.time_varying) == {"c_low", "e_high"}
    assert cohort.time_varying["c_low"].values.tolist() == [[0.5, 0.5]]
    assert cohort.time_varying["e_high"].values.tolist() == [[90.0]]
    everywhere = read(tmp_path, text, lloq=0.5)
    assert set(everywhere.time_varying) == {"dv_1_low", "dv_2_low"}


@pytest.mark.parametrize("value", ["0", "."])
@pytest.mark.parametrize("flag", ["CENS", "BLQ"])
def test_a_limit_of_the_call_in_place_of_the_value(tmp_path, flag, value):
    text = f"ID,TIME,DV,{flag}\n1,0,5,0\n1,1,{value},1\n"
    cohort = read(tmp_path, text, lloq=0.5)
    assert cohort["dv"].values.tolist() == [[5.0, 0.5]]
    assert cohort.time_varying["dv_low"].values.tolist() == [[0.5, 0.5]]
    of_column = read(tmp_path, f"ID,TIME,DV,{flag},LLOQ\n1,0,5,0,0.5\n1,1,{value},1,0.5\n")
    assert of_column["dv"].values.tolist() == [[5.0, 0.5]]


def test_labels_of_occasions_are_numbered(tmp_path, caplog):
    cohort = read(tmp_path, "ID,TIME,DV,OCC\n1,0,9,visit 2\n1,1,9,visit 2\n1,2,9,visit 10\n")
    assert cohort.time_varying["OCC"].values.tolist() == [[1.0, 1.0, 2.0]]
    assert "The labels in OCC are numbered: visit 2 is 1, visit 10 is 2." in caplog.text
