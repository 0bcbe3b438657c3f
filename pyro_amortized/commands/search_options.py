r"""The command ``search``: from a fit to the model that a search chooses.

It prints the path, and writes tables, a picture, the lines to write into the program, and a report.
"""

import argparse
from pathlib import Path

from ..applications import SearchRule, search
from ..diagnostics import report
from .inputs import fit_from, model_from, save_figure, say, words

DESCRIPTION = "search for covariate effects, correlations and residual error, from a fit"


def add_search(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to its parser."""
    parser.add_argument("--fit", type=Path, required=True, help="folder of a fit")
    parser.add_argument("--guide-model", help="FILE:NAME of the model of the guide of the fit")
    parser.add_argument(
        "--covariates", default="", help="covariates of the data of the fit (all by default)"
    )
    parser.add_argument(
        "--parameters", default="", help="individual parameters, as in the summary of the fit"
    )
    parser.add_argument("--no-correlations", action="store_true", help="do not add correlations")
    parser.add_argument("--residual", action="store_true", help="add parts of the residual error")
    parser.add_argument(
        "--structure", action="append", default=[], help="NAME=FILE:NAME, another program"
    )
    parser.add_argument(
        "--freed", default="", help="sites that the fit holds and that may be estimated"
    )
    parser.add_argument("--criterion", choices=("p", "bic", "penalised"), default="p")
    parser.add_argument("--p", type=float, default=0.01, help="p-value of inclusion")
    parser.add_argument("--p-out", type=float, help="p-value of elimination")
    parser.add_argument(
        "--out", type=Path, default=Path("search"), help="folder; the search goes on from it"
    )


def run_search(parsed: argparse.Namespace) -> None:
    """Search for the model of a fit."""
    from ..diagnostics import plots  # matplotlib is an optional dependency

    fit = fit_from(parsed)
    named = [text.partition("=") for text in parsed.structure]
    found = search(
        fit,
        covariates=words(parsed.covariates) or None,
        parameters=words(parsed.parameters) or None,
        correlations=not parsed.no_correlations,
        residual=parsed.residual,
        freed=words(parsed.freed),
        structures={name.strip(): model_from(model) for name, _, model in named} or None,
        rule=SearchRule(criterion=parsed.criterion, forward=parsed.p, backward=parsed.p_out),
        folder=parsed.out,
        seed=parsed.seed,
    )
    say(str(found))
    found.table().to_csv(parsed.out / "path.csv", index=False)
    found.test_table().to_csv(parsed.out / "tests.csv", index=False)
    (parsed.out / "lines.py").write_text(found.lines + "\n", "utf-8")
    save_figure(plots.searched_path(found), parsed.out / "search.png")
    diagnosis = report(
        found.best, parsed.out / "report.html", title="Model search", search=found, seed=parsed.seed
    )
    say(f"\n{diagnosis.verdict}\nWritten: {parsed.out}")
