r"""Inputs of the command line: a model in a file, a table, and text for the user.

The model file is executed as Python code, so use only files that you trust.
"""

import argparse
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..cohort import Cohort
from ..errors import FitError, ModelError, TableError
from ..model.sites import Model
from ..nlme import read_table
from ..population.results.fit_files import load_fit
from ..population.results.fit_result import PopulationFit

DOTS_PER_INCH = 130  # of figures: sharp at the width of a page


def say(text: str, stream: Any = None) -> None:
    """Write a line to the standard output, or to another stream."""
    (stream or sys.stdout).write(text + "\n")


def save_figure(figure: Any, path: Path) -> None:
    """Write a matplotlib figure to a file."""
    figure.savefig(path, dpi=DOTS_PER_INCH)


def words(text: str) -> list[str]:
    """The parts of a list that is separated by commas."""
    return [x.strip() for x in text.split(",") if x.strip()]


def add_table(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """Add the table and the meaning of its columns."""
    number: dict[str, Any] = {"nargs": "?"} if optional else {}
    parser.add_argument("table", type=Path, help="CSV file", **number)
    parser.add_argument(
        "--series",
        default="dv",
        help="name of the observations; A=NAME,B=NAME for several endpoints",
    )
    parser.add_argument(
        "--covariates", default="", help="columns of constant covariates, separated by commas"
    )
    parser.add_argument(
        "--time-varying",
        default="",
        help="columns of covariates that change over time, separated by commas",
    )
    parser.add_argument("--endpoint", default="DVID", help="column with the endpoint of each value")
    parser.add_argument("--time-unit", default="h", help="unit of clock times: min, h, d")
    parser.add_argument(
        "--columns", default="", help="names of the columns of a table that has no header"
    )
    parser.add_argument(
        "--categories",
        default="",
        help="order of the categories of covariates, also of those that the table lacks: "
        "SEX=F:M,RACE=A:B:C",
    )
    for name, text in (("--lloq", "lower"), ("--uloq", "upper")):
        parser.add_argument(
            name,
            default="",
            help=f"{text} limit of quantification where the table gives none: 0.5, or NAME=0.5,...",
        )


def fixed_from(text: str) -> dict[str, Tensor]:
    r"""Values of sites that are not estimated, ``hill=1,beta=0:0``.

    Raises:
        FitError: A part is no name with numbers.

    Example:
        >>> fixed_from("beta=0:0.5")["beta"].tolist()
        [0.0, 0.5]
    """
    found = {}
    for item in words(text):
        name, _, values = item.partition("=")
        try:
            numbers = [float(x) for x in values.split(":")]
        except ValueError:
            raise FitError(
                f"--fixed has {item!r}.",
                "NAME=NUMBER, or NAME=NUMBER:NUMBER for a site of several values.",
                "pass for instance --fixed hill=1,beta=0:0.",
            ) from None
        single = len(numbers) == 1
        found[name.strip()] = torch.tensor(numbers[0] if single else numbers, dtype=torch.float64)
    return found


def model_from(text: str) -> Model:
    r"""The model that is given as FILE:NAME; the name is ``model`` if there is none.

    Raises:
        ModelError: There is no such file, or no function of this name in it.
    """
    file, colon, name = text.rpartition(":")
    if not colon:
        file, name = text, "model"
    path = Path(file)
    if not path.is_file():
        raise ModelError(
            f"There is no file {file!r}.",
            "the path of a Python file and the name of a model in it, FILE:NAME.",
            "check the path.",
        )
    sys.path.insert(0, str(path.resolve().parent))
    try:
        names = runpy.run_path(str(path), run_name="__model__")
    finally:
        sys.path.pop(0)
    model = names.get(name)
    if not callable(model):
        known = [n for n, x in names.items() if callable(x) and not n.startswith("_")]
        raise ModelError(
            f"{file} has no function {name!r}.",
            f"one of its functions {known}.",
            f"pass {file}:NAME with one of these names.",
        )
    checked_model: Model = model
    return checked_model


def fit_from(parsed: argparse.Namespace) -> PopulationFit:
    """The fit in the folder that the command line names, with its model and that of its guide."""
    guide_model = model_from(parsed.guide_model) if parsed.guide_model else None
    return load_fit(parsed.fit, model_from(parsed.model), guide_model=guide_model)


def cohort_from(parsed: argparse.Namespace) -> Cohort:
    """The table, read with the columns that the command line names."""
    pairs = [x.partition("=") for x in words(parsed.series)]
    named: Any = {a.strip(): b.strip() for a, sign, b in pairs if sign} or parsed.series
    return read_table(
        parsed.table,
        series=named,
        covariates=words(parsed.covariates),
        time_varying=words(parsed.time_varying),
        endpoint=parsed.endpoint,
        time_unit=parsed.time_unit,
        columns=words(parsed.columns) or None,
        lloq=_limits("--lloq", words(parsed.lloq)),
        uloq=_limits("--uloq", words(parsed.uloq)),
        categories={
            name.strip(): [x.strip() for x in names.split(":")]
            for name, _, names in (item.partition("=") for item in words(parsed.categories))
        },
    )


def _limits(option: str, items: Sequence[str]) -> float | dict[str, float] | None:
    """A limit of all series, or one of each."""
    pairs = [item.rpartition("=") for item in items]
    try:
        limits = {name.strip(): float(value) for name, _, value in pairs}
    except ValueError:
        raise TableError(
            f"{option} is {','.join(items)!r}.",
            "a number, or NAME=NUMBER for each series.",
            f"pass for instance {option} 0.5.",
        ) from None
    return limits.get("", limits or None) if len(limits) < 2 else limits
