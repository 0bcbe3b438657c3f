"""Tables of other programs and of worksheets: the right value, or an error that says what to do."""

import logging

import pandas as pd
import pytest
import torch

from pyro_amortized import nlme
from pyro_amortized.errors import TableError

HEAD = "ID,TIME,DV,AMT,EVID\n"


def read(tmp_path, text, **options):
    path = tmp_path / "table.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return nlme.read_table(path, **options)


def concentrations(cohort):
    """One compartment, clearance 1 and volume 10, at the recorded times of the first individual."""
    one = torch.ones(len(cohort), dtype=torch.float64)
    series = next(iter(cohort.series.values()))
    curve = nlme.one_compartment(series.times, cohort.doses, cl=one, v=10 * one)
    return curve[0, series.observed[0]].tolist()


READ = {
    "a semicolon and decimal commas": (
        "ID;TIME;DV;AMT;EVID\n1;0;;100;1\n1;0,5;9,51;;0\n",
        [0.5],
        [9.5123],
    ),
    "empty rows of a worksheet": (HEAD + "1,0,,100,1\n1,1,9.05,,0\n,,,,\n,,,,\n", [1.0], [9.0484]),
    "the end of a file of DOS": (
        (HEAD + "1,0,.,100,1\n1,1,9.05,.,0\n\x1a").replace("\n", "\r\n"),
        [1.0],
        [9.0484],
    ),
    "a header that occurs again with blanks": (
        HEAD + "1,0,.,100,1\n1,1,9.05,.,0\nID, TIME, DV, AMT, EVID\n2,0,.,50,1\n2,1,4.5,.,0\n",
        [1.0],
        [9.0484],
    ),
    "names of rows, as R writes them": (
        '"","ID","TIME","DV","AMT","EVID"\n"1",1,0,NA,100,1\n"2",1,1,9.05,NA,0\n',
        [1.0],
        [9.0484],
    ),
    "two formats of dates": (
        "ID,DATE,TIME,DV,AMT,EVID\n1,2020-02-13,22:00,.,100,1\n1,02/14/2020,00:30,7.79,.,0\n",
        [2.5],
        [7.7880],
    ),
    "summer time begins": (
        HEAD + "1,2020-03-29T01:30:00+01:00,.,100,1\n1,2020-03-29T03:30:00+02:00,9.05,.,0\n",
        [1.0],
        [9.0484],
    ),
    "a steady state before the first time": (
        "ID,TIME,DV,AMT,EVID,SS,II\n1,-12,.,100,1,1,12\n1,-0.1,4.3,.,0,0,0\n1,0,.,100,1,0,0\n"
        "1,1,12.9,.,0,0,0\n",
        [-0.1, 1.0],
        [4.3534, 12.9483],
    ),
    "a steady state that replaces the doses before": (
        "ID,TIME,DV,AMT,EVID,SS,II\n1,0,.,100,1,0,0\n1,10,.,100,4,1,12\n1,11,9,.,0,0,0\n",
        [11.0],
        [12.9483],
    ),
    "additional infusions with a record in between": (
        "ID,TIME,DV,AMT,EVID,RATE,II,ADDL\n1,0,.,100,1,50,12,1\n1,12,.,.,2,.,.,.\n"
        "1,13,9,.,0,0,0,0\n",
        [13.0],
        [7.7751],
    ),
    "UTF-16": (
        "ID\tTIME\tDV\tAMT\tEVID\r\n1\t0\t.\t100\t1\r\n1\t1\t9.05\t.\t0\r\n".encode("utf-16"),
        [1.0],
        [9.0484],
    ),
    "another character set": (
        "ID,TIME,DV,AMT,EVID,µg\n1,0,.,100,1,1\n1,1,9.05,.,0,1\n".encode("latin-1"),
        [1.0],
        [9.0484],
    ),
    "dates of SAS": (
        "ID,DATE,TIME,DV,AMT,EVID\n1,13FEB2020,22:00,.,100,1\n1,14FEB2020,00:30,7.79,.,0\n",
        [2.5],
        [7.7880],
    ),
    "times of SAS": (
        HEAD + "1,13FEB2020:22:00:00,.,100,1\n1,14FEB2020:00:30:00.000,7.79,.,0\n",
        [2.5],
        [7.7880],
    ),
    "dates with the name of the month": (
        HEAD + "1,13-Feb-2020 22:00,.,100,1\n1,14-Feb-2020 00:30,7.79,.,0\n",
        [2.5],
        [7.7880],
    ),
    "month, day, year": (
        HEAD + "1,2/13/2020 22:00,.,100,1\n1,2/14/2020 0:30,7.79,.,0\n",
        [2.5],
        [7.7880],
    ),
    "day, month, year with AM and PM": (
        HEAD + "1,13.02.2020 10:00 PM,.,100,1\n1,14.02.2020 12:30 am,7.79,.,0\n",
        [2.5],
        [7.7880],
    ),
    "either order, on one day": (
        HEAD + "1,3/2/2020 20:00,.,100,1\n1,3/2/2020 22:30,7.79,.,0\n",
        [2.5],
        [7.7880],
    ),
    "AM and PM": (HEAD + "1,8:00 AM,.,100,1\n1,1:30 PM,5.77,.,0\n", [13.5], [5.7695]),
    "midnight and noon": (HEAD + "1,12:30 AM,.,100,1\n1,12:00 p.m.,3,.,0\n", [12.0], [3.1664]),
    "a time before the dose": (
        HEAD + "1,-1,0,.,0\n1,0,.,100,1\n1,1,9,.,0\n",
        [-1.0, 1.0],
        [0.0, 9.0484],
    ),
    "steady state, additional doses, and another dose in between": (
        "ID,TIME,DV,AMT,EVID,SS,II,ADDL\n1,0,.,100,1,1,12,2\n1,1,12.9,.,0,0,0,0\n"
        "1,13,12.9,.,0,0,0,0\n1,30,.,50,1,0,0,0\n1,31,8,.,0,0,0,0\n",
        [1.0, 13.0, 31.0],
        [12.9483, 12.9483, 11.6304],
    ),
    "two doses in a row of another order": (
        HEAD + "1,0,.,100,1\n1,1,9.05,.,0\n1,12,.,100,1\n1,6,.,100,1\n1,13,9,.,0\n",
        [1.0, 13.0],
        [9.0484, 9.0484 + 10 * 0.272532 + 10 * 0.496585],
    ),
}


@pytest.mark.parametrize(("text", "times", "curve"), READ.values(), ids=READ.keys())
def test_tables_with_known_concentrations(tmp_path, text, times, curve):
    cohort = read(tmp_path, text)
    series = cohort["dv"]
    assert series.times[0, series.observed[0]].tolist() == pytest.approx(times)
    assert concentrations(cohort) == pytest.approx(curve, abs=1e-4)


DATED = "ID,DATE,TIME,DV,AMT,EVID\n"
REFUSED = {
    "time after each dose": (
        HEAD + "1,0,.,100,1\n1,1,9.05,.,0\n1,4,7,.,0\n1,0,.,100,1\n1,1,12,.,0\n",
        r"Row 5, column TIME[\s\S]*dose of the same time in row 2[\s\S]*time after each dose",
    ),
    "a clock for each occasion": (
        "ID,OCC,TIME,DV,AMT,EVID\n1,1,0,.,100,1\n1,1,8,4,.,0\n1,2,-0.5,0,.,0\n1,2,0,.,100,1\n"
        "1,2,1,9.05,.,0\n",
        r"Row 5, column TIME[\s\S]*starts again at each occasion",
    ),
    "fractions of a day": (
        DATED + "1,43874,0.9166667,.,100,1\n1,43875,0.0208333,7.79,.,0\n",
        "fractions of a day by 24",
    ),
    "military times": (
        DATED + "1,2020-02-13,2200,.,100,1\n1,2020-02-14,0030,7.79,.,0\n",
        "22:00 for 2200",
    ),
    "hours since the first dose beside dates": (
        DATED + "1,2020-02-13,0,.,100,1\n1,2020-02-15,48,0.08,.,0\n",
        "leave out DATE, if TIME counts from the first dose",
    ),
    "day, month, year in DATE": (
        DATED + "1,13/02/2020,22:00,.,100,1\n1,14/02/2020,00:30,7.79,.,0\n",
        r"mm/dd/yyyy[\s\S]*dd/mm/yyyy has the name DAT1",
    ),
    "dates of either order": (
        HEAD + "1,3/2/2020 22:00,.,100,1\n1,4/2/2020 0:30,7.79,.,0\n",
        "one order of day and month",
    ),
    "dates of no order": (
        HEAD + "1,13/2/2020 22:00,.,100,1\n1,2/14/2020 0:30,7.79,.,0\n",
        "Row 3, column TIME",
    ),
    "an amount in every row": (
        "ID,TIME,DV,AMT\n1,0,0,100\n1,1,9.05,100\n",
        "without EVID such a row is a dose",
    ),
    "a placebo": (HEAD + "1,0,.,0,1\n1,1,9.05,.,0\n", "a placebo is EVID 2"),
    "compartments by name": (
        "ID,TIME,DV,AMT,EVID,CMT\n1,0,.,100,1,depot\n1,1,9.05,.,0,central\n",
        "number the compartments",
    ),
    "not sampled": (HEAD + "1,0,.,100,1\n1,1,NS,.,0\n", "`.` for a value that was not recorded"),
    "a missing value of SAS": (HEAD + "1,0,.,100,1\n1,1,.B,.,0\n", "`.` for a value that was not"),
    "events by TRUE and FALSE": (
        HEAD + "1,0,.,100,TRUE\n1,1,9.05,.,FALSE\n",
        "0 for an observation and 1 for a dose",
    ),
    "flags by Y and N": (
        "ID,TIME,DV,AMT,EVID,BLQ\n1,0,.,100,1,N\n1,40,0.1,.,0,Y\n",
        "1 for a value below the limit",
    ),
    "names of rows without a name in the header": (
        '"ID" "TIME" "DV" "AMT"\n"1" 1 0 NA 100\n"2" 1 1 9.05 NA\n',
        "row.names=FALSE",
    ),
    "the same labels in two studies": (
        "STUDY,ID,TIME,DV,AMT\n1,1,0,.,100\n1,1,1,9,.\n2,1,0,.,100\n2,1,1,9,.\n",
        "a label of its own",
    ),
    "exponents of Fortran": (HEAD + "1,0,.,100,1\n1,1,9.05D+00,.,0\n", r"1\.5E\+02"),
    "thousands by an apostrophe": (HEAD + "1,0,.,1'000,1\n1,1,90,.,0\n", "separators of thousands"),
    "thousands by a point": (
        "ID;TIME;DV;AMT;EVID\n1;0;;1.000,0;1\n1;0,5;95,1;;0\n",
        "separators of thousands",
    ),
    "thousands by a narrow blank": (
        "ID;TIME;DV;AMT;EVID\n1;0;;1\u00a0000;1\n1;0,5;95,1;;0\n",
        "separators of thousands",
    ),
    "units without an ID": (
        HEAD + ",h,mg/L,mg,\n1,0,.,100,1\n1,1,9.05,.,0\n",
        "a row of units or of totals",
    ),
    "a wide table": ("ID,T0,T1,T2\n1,0,9,8\n", "made long first"),
    "names with units": ("ID,TIME (h),DV [mg/L]\n1,0,9\n", r"not Time \(h\)"),
    "clock times across midnight": (
        HEAD + "1,22:00,.,100,1\n1,00:30,7.79,.,0\n",
        "add a column DATE",
    ),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_tables_that_are_refused_with_a_way(tmp_path, text, message):
    with pytest.raises(TableError, match=message):
        read(tmp_path, text)


NAMED = {
    "dates that may be of either order": (
        DATED + "1,03/02/2020,8:00,.,100,1\n1,04/02/2020,8:00,0.9,.,0\n",
        "read as mm/dd/yyyy. A column of dates dd/mm/yyyy has the name DAT1",
    ),
    "the same doses as rows and as additional doses": (
        "ID,TIME,DV,AMT,EVID,II,ADDL\n1,0,.,100,1,24,2\n1,1,9.05,.,0,.,.\n1,24,.,100,1,.,.\n"
        "1,25,9.9,.,0,.,.\n1,48,.,100,1,.,.\n",
        "2 doses are given in a row of their own and as additional doses (ADDL) of an earlier row; "
        "both count, first row 4",
    ),
    "an interval of a single dose": (
        "ID,TIME,DV,AMT,EVID,II\n1,0,.,100,1,24\n1,30,0.5,.,0,.\n",
        "they are single doses, first in row 2",
    ),
    "a limit that is the value": (
        "ID,TIME,DV,AMT,EVID,BLQ\n1,0,.,100,1,0\n1,1,9.05,.,0,0\n1,40,0.1,.,0,1\n",
        "The limit of 1 values that BLQ flags is their DV, 0.1",
    ),
    "values in rows of doses": (
        "ID,TIME,DV,AMT\n1,0,0,100\n1,24,0.9,100\n1,25,9.9,.\n",
        "ignored (rows with an amount are doses, without EVID), first in row 3",
    ),
}


@pytest.mark.parametrize(("text", "message"), NAMED.values(), ids=NAMED.keys())
def test_what_may_be_meant_otherwise_is_named(tmp_path, caplog, text, message):
    with caplog.at_level(logging.WARNING):
        read(tmp_path, text)
    assert message in caplog.text


def test_additional_doses_after_a_reset_do_not_count_twice(tmp_path, caplog):
    text = (
        "ID,TIME,DV,AMT,EVID,II,ADDL\n1,0,.,100,1,24,3\n1,30,.,.,3,.,.\n1,48,.,100,1,.,.\n"
        "1,49,9.05,.,0,.,.\n"
    )
    with caplog.at_level(logging.WARNING):
        assert concentrations(read(tmp_path, text)) == pytest.approx([9.0484], abs=1e-4)
    assert "both count" not in caplog.text


def test_doses_of_another_table_and_wide_tables():
    """As the page on tables says."""
    doses = pd.DataFrame({"ID": [1, 2], "TIME": [0.0, 0.0], "AMT": [100.0, 50.0]})
    samples = pd.DataFrame({"ID": [1, 1, 2], "TIME": [0.0, 1.0, 1.0], "DV": [10.0, 9.0, 4.5]})
    for parts, at_zero in (([doses, samples], 10.0), ([samples, doses], 0.0)):
        rows = pd.concat(parts).sort_values(["ID", "TIME"], kind="stable")
        assert concentrations(nlme.read_table(rows)) == pytest.approx([at_zero, 9.0484], abs=1e-4)
    merged = samples.merge(doses[["ID", "AMT"]], on="ID")
    with pytest.raises(TableError, match="leave AMT empty in the rows of observations"):
        nlme.read_table(merged)
    wide = pd.DataFrame({"ID": [1, 2], "WT": [70.0, 60.0], "0.5": [3.0, 4.0], "2": [1.0, 2.0]})
    long = wide.melt(id_vars=["ID", "WT"], var_name="TIME", value_name="DV")
    cohort = nlme.read_table(long, covariates=["WT"])
    assert cohort["dv"].times.tolist() == [[0.5, 2.0], [0.5, 2.0]]
    assert cohort["dv"].values.tolist() == [[3.0, 1.0], [4.0, 2.0]]
    assert cohort.covariates["WT"].tolist() == [70.0, 60.0]
