r"""The command line: from a model file and a table to a fit and a report.

    pyro-amortized check  model.py:model data.csv
    pyro-amortized fit    model.py:model data.csv --out fit
    pyro-amortized train  model.py:model data.csv --out guide
    pyro-amortized fit    model.py:model data.csv --guide guide --out fit
    pyro-amortized report model.py:model fit --out report.html
    pyro-amortized search    model.py:model --fit fit --covariates WT,AGE --out search
    pyro-amortized simulate  model.py:model --fit fit --regimen "100 every 12 x 7"
    pyro-amortized recommend model.py:model patient.csv --fit fit --target auc --low 400 ...
    pyro-amortized design    model.py:model --population values.json --times 0.5,2,24 ...

``python -m pyro_amortized`` is the same command. The model file is executed as Python code, so use
only files that you trust. Errors of the library end a command with status 1 and their message; they
have no traceback.
"""

import argparse
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from .commands import after_fit, search_options
from .commands.inputs import (
    add_table,
    cohort_from,
    fit_from,
    fixed_from,
    model_from,
    save_figure,
    say,
)
from .diagnostics import check_model, individual_table, parameter_table, report
from .errors import AmortizedError, AmortizedWarning, CohortError
from .guide import load_guide
from .population.estimation import fit_population
from .training import train

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
            say(f"{type(error).__name__}: {error}", sys.stderr)
            if isinstance(error, CohortError) and "no series" in error.found:
                say("On the command line: pass --series NAME, as in the model.", sys.stderr)
            return 1
        except BrokenPipeError:  # the reader of a pipe (such as `head`) ended before us
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except KeyboardInterrupt:
            say(
                "Interrupted. Nothing was written; a training with --runs can be continued.",
                sys.stderr,
            )
            return INTERRUPTED
        except (ModuleNotFoundError, OSError) as error:
            say(f"{type(error).__name__}: {error}", sys.stderr)
            return 1
    return 0


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
        say(f"Warning: {message}", sys.stderr)


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
        "search": search_options.DESCRIPTION,
    } | after_fit.DESCRIPTIONS
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


def _add_train(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of a training."""
    parser.add_argument(
        "--out", type=Path, default=Path("guide"), help="folder to write the guide to"
    )
    parser.add_argument("--budget", default="5min", help="wall time, such as 30s, 5min, 1h")
    parser.add_argument("--runs", type=Path, help="folder of the run, so that it can be resumed")


def _add_options(parsers: Mapping[str, argparse.ArgumentParser]) -> None:
    """Add the arguments of each command to its parser."""
    for name, parser in parsers.items():
        parser.add_argument("model", help="FILE:NAME of the model")
        if name in after_fit.COMMANDS:
            after_fit.add_options(name, parser)
        elif name == "search":
            search_options.add_search(parser)
        elif name == "report":
            parser.add_argument("fit", type=Path, help="folder of the fit")
        else:
            add_table(parser)
        if name != "check":
            parser.add_argument("--seed", type=int, default=1, help="seed of all random numbers")
    parsers["check"].add_argument(
        "--out", type=Path, default=Path("."), help="folder to write the figures to"
    )
    _add_train(parsers["train"])
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
    parser.add_argument("--fixed", default="", help="sites that are not estimated: hill=1,beta=0:0")
    parser.add_argument(
        "--map",
        action="store_true",
        help="use the prior of the population parameters: maximum a posteriori",
    )


def _check(parsed: argparse.Namespace) -> None:
    check = check_model(model_from(parsed.model), cohort_from(parsed))
    say(str(check))
    parsed.out.mkdir(parents=True, exist_ok=True)
    (parsed.out / "model.svg").write_text(check.drawing, "utf-8")
    from .diagnostics import plots  # matplotlib is an optional dependency

    figures = {"data.png": plots.observations(check.cohort)}
    figures["prior_predictive.png"] = plots.prior_predictive(check)
    for name, figure in figures.items():
        save_figure(figure, parsed.out / name)
    written = [str(parsed.out / name) for name in ("model.svg", *figures)]
    say(f"\nWritten: {', '.join(written)}")


def _train(parsed: argparse.Namespace) -> None:
    guide = train(
        model_from(parsed.model),
        cohort_from(parsed),
        budget=parsed.budget,
        folder=parsed.runs,
        seed=parsed.seed,
    )
    guide.save(parsed.out)
    history = guide.history
    say(f"{history.num_simulations:,} simulations, {history.num_steps:,} steps: {history.stopped}.")
    say(f"{history.advice}\nWritten: {parsed.out}")


def _fit(parsed: argparse.Namespace) -> None:
    model, cohort = model_from(parsed.model), cohort_from(parsed)
    guide = None
    if parsed.guide:
        guide_model = model_from(parsed.guide_model) if parsed.guide_model else model
        guide = load_guide(parsed.guide, guide_model, cohort)
    fit = fit_population(
        model,
        cohort,
        guide=guide,
        fixed=fixed_from(parsed.fixed),
        maximum_a_posteriori=parsed.map,
        seed=parsed.seed,
    )
    say(str(fit.summary()))
    fit.save(parsed.out)
    say(f"\nWritten: {parsed.out}")


def _report(parsed: argparse.Namespace) -> None:
    fit = fit_from(parsed)
    diagnosis = report(fit, parsed.out, title=parsed.title, seed=parsed.seed)
    written = [parsed.out]
    if parsed.parameters:
        parameter_table(fit).write(parsed.parameters)
        written.append(parsed.parameters)
    if parsed.individuals:
        individual_table(fit).to_csv(parsed.individuals)
        written.append(parsed.individuals)
    say(f"{diagnosis.verdict}\nWritten: {', '.join(map(str, written))}")


_COMMANDS = {"check": _check, "train": _train, "fit": _fit, "report": _report}
_COMMANDS |= {"search": search_options.run_search} | after_fit.COMMANDS

if __name__ == "__main__":
    sys.exit(main())
