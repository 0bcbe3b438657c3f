r"""The command line: from a model file and a table to a fit and a report.

    pyro-amortized check  model.py:model data.csv
    pyro-amortized fit    model.py:model data.csv --out fit
    pyro-amortized train  model.py:model data.csv --out guide
    pyro-amortized fit    model.py:model data.csv --guide guide --out fit
    pyro-amortized report model.py:model fit --out report.html

``python -m pyro_amortized`` is the same command. The model file is executed as Python code, so use
only files that you trust. Errors of the library end a command with status 1 and their message; they
have no traceback.
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
from .diagnostics import check_model, individual_table, parameter_table, report
from .errors import AmortizedError, AmortizedWarning, CohortError, ModelError, TableError
from .guide import load_guide
from .nlme import read_table
from .population.estimation import fit_population
from .population.fit_files import load_fit
from .training import train

Model = Callable[[Cohort], Any]
INTERRUPTED = 130  # exit status of a command that was ended by Ctrl-C, as shells have it


def main(arguments: Sequence[str] | None = None) -> int:
    r"""Run a command.

    Args:
        arguments: Arguments of the command line. Default: those of this process.

    Returns:
        The exit status: 0 for success, 1 for an error in the input, 130 after Ctrl-C. A wrong
        command line ends the process with status 2.
    """
    parsed = _parser().parse_args(arguments)
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        warnings.simplefilter("always", AmortizedWarning)
        try:
            _COMMANDS[parsed.command](parsed)
            sys.stdout.flush()
        except AmortizedError as error:
            _say(f"{type(error).__name__}: {error}", sys.stderr)
            if isinstance(error, CohortError) and "no series" in error.found:
                _say("On the command line: pass --series NAME, as in the model.", sys.stderr)
            return 1
        except BrokenPipeError:  # the reader of a pipe (such as `head`) ended before us
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except KeyboardInterrupt:
            _say(
                "Interrupted. Nothing was written; a training with --runs can be continued.",
                sys.stderr,
            )
            return INTERRUPTED
        except (ModuleNotFoundError, OSError) as error:
            _say(f"{type(error).__name__}: {error}", sys.stderr)
            return 1
    return 0


def _say(text: str, stream: Any = None) -> None:
    (stream or sys.stdout).write(text + "\n")


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Show warnings of the library without a line of code, and no others: a user of the command
    line has no Python program that they could point at.
    """
    if issubclass(category, AmortizedWarning):
        _say(f"Warning: {message}", sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pyro-amortized",
        description="Fit nonlinear mixed-effects models that are written in Pyro: from a model "
        "file and a table to a report.",
        epilog="A model is given as FILE:NAME, for instance model.py:model. A table has the "
        "columns of NONMEM (ID, TIME, DV, AMT, EVID, ...).",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    descriptions = {
        "check": "describe the model in words, and draw its prior predictive distribution",
        "fit": "fit the population parameters (takes seconds; a guide is not needed)",
        "train": "train a guide for many individuals or cohorts (takes minutes)",
        "report": "write one HTML page about a fit",
    }
    parsers = {
        name: commands.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        for name, text in descriptions.items()
    }
    _add_options(parsers)
    return parser


def _add_options(parsers: Mapping[str, argparse.ArgumentParser]) -> None:
    """Add the arguments of each command to its parser."""
    for name, parser in parsers.items():
        parser.add_argument("model", help="FILE:NAME of the model")
        if name == "report":
            parser.add_argument("fit", type=Path, help="folder of the fit")
        else:
            _add_data(parser)
        if name != "check":
            parser.add_argument("--seed", type=int, default=1, help="seed of all random numbers")
    parsers["check"].add_argument(
        "--out", type=Path, default=Path("."), help="folder to write the figures to"
    )
    parsers["train"].add_argument(
        "--out", type=Path, default=Path("guide"), help="folder to write the guide to"
    )
    parsers["train"].add_argument(
        "--budget", default="5min", help="wall time, such as 30s, 5min, 1h"
    )
    parsers["train"].add_argument(
        "--runs", type=Path, help="folder of the run, so that it can be resumed"
    )
    _add_fit(parsers["fit"])
    parsers["report"].add_argument(
        "--out", type=Path, default=Path("report.html"), help="HTML file to write"
    )
    parsers["report"].add_argument("--title", default="Population fit", help="heading of the page")
    parsers["report"].add_argument(
        "--parameters", type=Path, help="also write the estimates: FILE.csv, .html or .tex"
    )
    parsers["report"].add_argument(
        "--individuals", type=Path, help="also write the individual parameters: FILE.csv"
    )
    for name in ("fit", "report"):
        parsers[name].add_argument(
            "--guide-model",
            help="FILE:NAME of the model that the guide was trained for, if it is another one",
        )


def _add_fit(parser: argparse.ArgumentParser) -> None:
    """Add the folders and the criterion of a fit."""
    parser.add_argument("--guide", type=Path, help="folder of a trained guide, if there is one")
    parser.add_argument("--out", type=Path, default=Path("fit"), help="folder to write the fit to")
    parser.add_argument(
        "--map",
        action="store_true",
        help="use the prior of the population parameters: maximum a posteriori",
    )


def _add_data(parser: argparse.ArgumentParser) -> None:
    """Add the table and the meaning of its columns."""
    parser.add_argument("table", type=Path, help="CSV file")
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
    for name, text in (("--lloq", "lower"), ("--uloq", "upper")):
        parser.add_argument(
            name,
            default="",
            help=f"{text} limit of quantification where the table gives none: 0.5, or NAME=0.5,...",
        )


def _model(text: str) -> Model:
    """The model that is given as FILE:NAME; the name is ``model`` if there is none."""
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


def _cohort(parsed: argparse.Namespace) -> Cohort:
    """The table, read with the columns that the command line names."""

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
        columns=columns(parsed.columns) or None,
        lloq=_limits("--lloq", columns(parsed.lloq)),
        uloq=_limits("--uloq", columns(parsed.uloq)),
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


def _check(parsed: argparse.Namespace) -> None:
    check = check_model(_model(parsed.model), _cohort(parsed))
    _say(str(check))
    parsed.out.mkdir(parents=True, exist_ok=True)
    (parsed.out / "model.svg").write_text(check.drawing, "utf-8")
    from .diagnostics import plots  # matplotlib is an optional dependency

    figures = {"data.png": plots.observations(check.cohort)}
    figures["prior_predictive.png"] = plots.prior_predictive(check)
    for name, figure in figures.items():
        figure.savefig(parsed.out / name, dpi=130)
    written = [str(parsed.out / name) for name in ("model.svg", *figures)]
    _say(f"\nWritten: {', '.join(written)}")


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
    guide = None
    if parsed.guide:
        guide_model = _model(parsed.guide_model) if parsed.guide_model else model
        guide = load_guide(parsed.guide, guide_model, cohort)
    fit = fit_population(
        model, cohort, guide=guide, maximum_a_posteriori=parsed.map, seed=parsed.seed
    )
    _say(str(fit.summary()))
    fit.save(parsed.out)
    _say(f"\nWritten: {parsed.out}")


def _report(parsed: argparse.Namespace) -> None:
    guide_model = _model(parsed.guide_model) if parsed.guide_model else None
    fit = load_fit(parsed.fit, _model(parsed.model), guide_model=guide_model)
    diagnosis = report(fit, parsed.out, title=parsed.title, seed=parsed.seed)
    written = [parsed.out]
    if parsed.parameters:
        parameter_table(fit).write(parsed.parameters)
        written.append(parsed.parameters)
    if parsed.individuals:
        individual_table(fit).to_csv(parsed.individuals)
        written.append(parsed.individuals)
    _say(f"{diagnosis.verdict}\nWritten: {', '.join(map(str, written))}")


_COMMANDS = {"check": _check, "train": _train, "fit": _fit, "report": _report}

if __name__ == "__main__":
    sys.exit(main())
