r"""The command line: a model file and a table give a report, without Python around them.

    pyro-amortized check  model.py:model data.csv
    pyro-amortized train  model.py:model data.csv --out guide
    pyro-amortized fit    model.py:model data.csv --guide guide --out fit
    pyro-amortized report model.py:model fit --out report.html

The model file is run as it is: it is your own code.
"""

import argparse
import os
import runpy
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from .cohort import Cohort
from .diagnostics import check_model, report
from .errors import AmortizedError, AmortizedWarning, CohortError, ModelError
from .guide import load_guide
from .nlme import read_table
from .population.estimation import fit_population
from .population.fit_files import load_fit
from .training import train

Model = Callable[[Cohort], Any]


def main(arguments: Sequence[str] | None = None) -> int:
    r"""Run a command.

    Args:
        arguments: Words of the command line. Default: those of this process.

    Returns:
        The exit status: 0, 1 where something was wrong with the input, 2 for a wrong command.
    """
    parsed = _parser().parse_args(arguments)
    with warnings.catch_warnings():
        warnings.showwarning = _told
        warnings.simplefilter("always", AmortizedWarning)
        try:
            _COMMANDS[parsed.command](parsed)
            sys.stdout.flush()
        except AmortizedError as error:
            _say(f"{type(error).__name__}: {error}", sys.stderr)
            if isinstance(error, CohortError) and "no series" in error.found:
                _say("On the command line: --series NAME, as the program names it.", sys.stderr)
            return 1
        except BrokenPipeError:  # whoever read our words has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except (ModuleNotFoundError, OSError) as error:
            _say(f"{type(error).__name__}: {error}", sys.stderr)
            return 1
    return 0


def _say(text: str, stream: Any = None) -> None:
    (stream or sys.stdout).write(text + "\n")


def _told(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Our warnings without the line of code that they come from; others say nothing to a user."""
    if issubclass(category, AmortizedWarning):
        _say(f"Warning: {message}", sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pyro-amortized",
        description="Nonlinear mixed-effects models written in Pyro: from a model file and a table "
        "to a report.",
        epilog="A model is written FILE:NAME, for instance model.py:model. A table has NONMEM's "
        "columns (ID, TIME, DV, AMT, EVID, ...).",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    words = {
        "check": "say in words what the model is, and draw its prior predictive",
        "train": "train the guide (minutes, once)",
        "fit": "fit the population (seconds)",
        "report": "write one HTML page about a fit",
    }
    made = {
        name: commands.add_parser(
            name,
            help=text,
            description=text.capitalize() + ".",
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        for name, text in words.items()
    }
    _add_options(made)
    return parser


def _add_options(made: Mapping[str, argparse.ArgumentParser]) -> None:
    """What every command takes."""
    for name, one in made.items():
        one.add_argument("model", help="FILE:NAME of the program")
        if name == "report":
            one.add_argument("fit", type=Path, help="folder of the fit")
        else:
            _add_data(one)
        if name != "check":
            one.add_argument("--seed", type=int, default=1, help="seed of everything")
    made["check"].add_argument("--out", type=Path, default=Path("."), help="folder of the figures")
    made["train"].add_argument("--out", type=Path, default=Path("guide"), help="folder to write")
    made["train"].add_argument("--budget", default="5min", help="time to use: 30s, 5min, 1h")
    made["train"].add_argument("--runs", type=Path, help="keep the run here, to take it up again")
    made["fit"].add_argument(
        "--guide", type=Path, default=Path("guide"), help="folder of the guide"
    )
    made["fit"].add_argument("--out", type=Path, default=Path("fit"), help="folder to write")
    made["fit"].add_argument("--map", action="store_true", help="add the prior of the population")
    made["report"].add_argument("--out", type=Path, default=Path("report.html"), help="the page")
    made["report"].add_argument("--title", default="Population fit", help="heading of the page")
    for name in ("fit", "report"):
        made[name].add_argument(
            "--guide-model", help="FILE:NAME of the program the guide was trained for, if another"
        )


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("table", type=Path, help="CSV file")
    parser.add_argument(
        "--series",
        default="dv",
        help="name of the observations; A=NAME,B=NAME for several endpoints",
    )
    parser.add_argument("--covariates", default="", help="columns, separated by commas")
    parser.add_argument("--time-varying", default="", help="columns, separated by commas")
    parser.add_argument("--endpoint", default="DVID", help="column that tells endpoints apart")
    parser.add_argument("--time-unit", default="h", help="unit of clock times: min, h, d")


def _model(text: str) -> Model:
    """The program that FILE:NAME means."""
    file, colon, name = text.rpartition(":")
    if not colon:
        file, name = text, "model"
    path = Path(file)
    if not path.is_file():
        raise ModelError(
            f"There is no file {file!r}.", "FILE:NAME of a Python file.", "check the path."
        )
    sys.path.insert(0, str(path.resolve().parent))
    try:
        names = runpy.run_path(str(path), run_name="__model__")
    finally:
        sys.path.pop(0)
    found = names.get(name)
    if not callable(found):
        known = [n for n, x in names.items() if callable(x) and not n.startswith("_")]
        raise ModelError(
            f"{file} has no function {name!r}.", f"one of {known}.", f"write {file}:NAME."
        )
    model: Model = found
    return model


def _cohort(parsed: argparse.Namespace) -> Cohort:
    def columns(text: str) -> list[str]:
        return [x.strip() for x in text.split(",") if x.strip()]

    pairs = [x.partition("=") for x in columns(parsed.series)]
    named: Any = {a.strip(): b.strip() for a, sign, b in pairs if sign} or parsed.series
    return read_table(
        parsed.table,
        series=named,
        covariates=columns(parsed.covariates),
        time_varying=columns(parsed.time_varying),
        endpoint=parsed.endpoint,
        time_unit=parsed.time_unit,
    )


def _check(parsed: argparse.Namespace) -> None:
    found = check_model(_model(parsed.model), _cohort(parsed))
    _say(str(found))
    parsed.out.mkdir(parents=True, exist_ok=True)
    (parsed.out / "model.svg").write_text(found.drawing, "utf-8")
    from .diagnostics import plots

    plots.prior_predictive(found).savefig(parsed.out / "prior_predictive.png", dpi=130)
    _say(f"\nWritten: {parsed.out / 'model.svg'}, {parsed.out / 'prior_predictive.png'}")


def _train(parsed: argparse.Namespace) -> None:
    guide = train(
        _model(parsed.model),
        _cohort(parsed),
        budget=parsed.budget,
        folder=parsed.runs,
        seed=parsed.seed,
    )
    guide.save(parsed.out)
    history = guide.history
    _say(
        f"{history.num_simulations:,} simulations, {history.num_steps:,} steps: {history.stopped}."
    )
    _say(f"{history.advice}\nWritten: {parsed.out}")


def _fit(parsed: argparse.Namespace) -> None:
    model, cohort = _model(parsed.model), _cohort(parsed)
    own = _model(parsed.guide_model) if parsed.guide_model else model
    guide = load_guide(parsed.guide, own, cohort)
    found = fit_population(model, guide, cohort, maximum_a_posteriori=parsed.map, seed=parsed.seed)
    _say(str(found.summary()))
    found.save(parsed.out)
    _say(f"\nWritten: {parsed.out}")


def _report(parsed: argparse.Namespace) -> None:
    own = _model(parsed.guide_model) if parsed.guide_model else None
    found = load_fit(parsed.fit, _model(parsed.model), guide_model=own)
    diagnosis = report(found, parsed.out, title=parsed.title, seed=parsed.seed)
    _say(f"{diagnosis.verdict}\nWritten: {parsed.out}")


_COMMANDS = {"check": _check, "train": _train, "fit": _fit, "report": _report}
