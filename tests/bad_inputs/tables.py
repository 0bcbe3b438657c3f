"""Tables that cannot be read as a cohort."""

import numpy as np
import pandas as pd

from pyro_amortized import nlme

PLAIN = {
    "ID": [1, 1, 1, 2, 2],
    "TIME": [0.0, 1.0, 2.0, 0.0, 1.0],
    "DV": [None, 4.0, 3.0, None, 5.0],
    "AMT": [100.0, None, None, 80.0, None],
    "EVID": [1, 0, 0, 1, 0],
    "WT": [70.0, 70.0, 70.0, 60.0, 60.0],
}


def _read(*drop, add=None, options=None, **more):
    columns = {n: list(x) for n, x in PLAIN.items() if n not in drop}
    for name, (row, value) in more.items():
        columns.setdefault(name, [0] * 5)[row] = value
    columns |= add or {}
    return nlme.read_table(pd.DataFrame(columns), **(options or {}))


def _file(k, text, mode="w", **options):
    path = k.folder / "table.csv"
    with path.open(mode) as file:
        file.write(text)
    return nlme.read_table(path, **options)


TABLES = {
    f"table: {n}": x
    for n, x in {
        "not there": (lambda k: nlme.read_table(k.folder / "none.csv"), "none.csv"),
        "a folder": (lambda k: nlme.read_table(k.folder), "cannot be read"),
        "a dictionary": (lambda k: nlme.read_table(dict(PLAIN)), "dict"),
        "an address in the net": (
            lambda k: nlme.read_table("https://example.org/table.csv"),
            "no file",
        ),
        "empty file": (lambda k: _file(k, ""), "has no rows"),
        "comments alone": (lambda k: _file(k, "# a\n# b\n"), "has no rows"),
        "no header": (lambda k: _file(k, "1,0,.,100\n1,1,4.2,.\n"), "columns=['ID', 'TIME'"),
        "a header of other names": (
            lambda k: _file(k, "Subject,Hours,Conc\n1,0,2\n"),
            "No line of",
        ),
        "columns for a frame": (
            lambda k: nlme.read_table(pd.DataFrame(PLAIN), columns=["ID"]),
            "together with a DataFrame",
        ),
        "too few columns": (
            lambda k: _file(k, "1 0 .\n1 1 4\n", columns=["ID", "TIME"]),
            "3 cells",
        ),
        "a column without a name": (lambda k: _file(k, "ID,TIME,DV,\n1,0,2,7\n"), "no name"),
        "two decimal marks": (
            lambda k: _file(k, "ID;TIME;DV\n1;0;2,5\n1;1;2.5\n"),
            "one decimal mark",
        ),
        "a value below a limit as text": (
            lambda k: _read(add={"DV": [".", "<0.1", "3", ".", "5"]}),
            "CENS",
        ),
        "a limit of zero": (
            lambda k: _read(DV=(1, 0.0), CENS=(1, 1)),
            "the limit of quantification where CENS or BLQ is 1",
        ),
        "some time zones": (
            lambda k: _file(k, "ID,TIME,DV\n1,2024-01-01T08:00Z,2\n1,2024-01-01T09:00,3\n"),
            "a time zone",
        ),
        "duration and another rate": (
            lambda k: _read(DUR=(0, 2.0), RATE=(0, 10.0)),
            "leave out RATE or DUR",
        ),
        "no covariate of an individual": (
            lambda k: _read(
                add={"WT": [None, None, None, 60.0, 60.0]}, options={"covariates": ["WT"]}
            ),
            "for individual 1",
        ),
        "no rows": (lambda k: _file(k, "ID,TIME,DV\n"), "no rows"),
        "a picture": (lambda k: _file(k, b"\x89PNG\r\n\x1a\n\xff\xfe\x00", "wb"), "binary data"),
        "ragged": (lambda k: _file(k, "ID,TIME,DV\n1,0,2\n1,1,2,3,4\n"), "has 5 cells"),
        "no ID": (lambda k: _read("ID"), "no column ID"),
        "no TIME": (lambda k: _read("TIME"), "no column TIME"),
        "no DV": (lambda k: _read("DV"), "no column DV"),
        "a column twice": (lambda k: _read(add={"dv": [1.0] * 5}), "more than once"),
        "ID is blank": (lambda k: _read(ID=(2, None)), "Row 2, column ID"),
        "time is blank": (lambda k: _read(TIME=(1, None)), "Row 1, column TIME"),
        "time in words": (lambda k: _read(add={"TIME": ["0", "soon", "2", "0", "1"]}), "'soon'"),
        "time is infinite": (lambda k: _read(TIME=(1, np.inf)), "column TIME"),
        "clock times go back": (
            lambda k: _read(add={"TIME": ["10:00", "09:00", "11:00", "10:00", "11:00"]}),
            "decrease",
        ),
        "an hour that is none": (
            lambda k: _read(add={"TIME": ["10:00", "25:00", "11:00", "10:00", "11:00"]}),
            "25:00",
        ),
        "an unknown unit of time": (lambda k: _read(options={"time_unit": "weeks"}), "weeks"),
        "DV in words": (lambda k: _read(add={"DV": [".", "low", "3", ".", "5"]}), "'low'"),
        "DV is infinite": (lambda k: _read(DV=(1, np.inf)), "column DV"),
        "a formula for DV": (
            lambda k: _read(add={"DV": [".", "=1+1", "3", ".", "5"]}),
            "'=1+1'",
        ),
        "a command for DV": (
            lambda k: _read(add={"DV": [".", "@SUM(1;cmd|' /C calc'!A0)", "3", ".", "5"]}),
            "calc",
        ),
        "EVID 7": (lambda k: _read(EVID=(1, 7)), "Row 1, column EVID"),
        "MDV 2": (lambda k: _read(MDV=(1, 2)), "column MDV"),
        "negative amount": (lambda k: _read(AMT=(0, -5.0)), "column AMT"),
        "a dose without amount": (lambda k: _read(AMT=(0, 0.0)), "column AMT"),
        "an amount without dose": (lambda k: _read(AMT=(1, 5.0)), "column AMT"),
        "rate -7": (lambda k: _read(RATE=(0, -7.0)), "column RATE"),
        "a rate without dose": (lambda k: _read(RATE=(1, 2.0)), "column RATE"),
        "compartment 0": (lambda k: _read(add={"CMT": [0, 1, 1, 1, 1]}), "column CMT"),
        "compartment 1.5": (lambda k: _read(add={"CMT": [1.5, 1, 1, 1, 1]}), "column CMT"),
        "steady state without interval": (lambda k: _read(SS=(0, 1)), "column II"),
        "more doses without interval": (lambda k: _read(ADDL=(0, 3)), "column II"),
        "half a dose more": (lambda k: _read(ADDL=(0, 1.5), II=(0, 12.0)), "column ADDL"),
        "a million doses more": (
            lambda k: _read(ADDL=(0, 10_000_000), II=(0, 12.0)),
            "column ADDL",
        ),
        "censored 5": (lambda k: _read(CENS=(1, 5)), "column CENS"),
        "no observation": (lambda k: _read(add={"EVID": [1, 2, 2, 1, 2]}), "no observation"),
        "a covariate that is not there": (
            lambda k: _read(options={"covariates": ["AGE"]}),
            "'AGE'",
        ),
        "a covariate that changes": (
            lambda k: _read(WT=(1, 71.0), options={"covariates": ["WT"]}),
            "column WT",
        ),
        "a covariate that is blank": (
            lambda k: _read(add={"WT": [None] * 5}, options={"covariates": ["WT"]}),
            "column WT",
        ),
        "a covariate in words and numbers": (
            lambda k: _read(add={"SEX": ["m", "m", "m", 2, 2]}, options={"covariates": ["SEX"]}),
            "column SEX",
        ),
        "an endpoint that is not there": (
            lambda k: _read(options={"series": {1: "pk"}}),
            "DVID",
        ),
        "covariates in one word": (lambda k: _read(options={"covariates": "WT"}), "covariates"),
    }.items()
}
