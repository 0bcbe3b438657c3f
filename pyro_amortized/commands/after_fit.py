r"""The commands ``simulate``, ``recommend`` and ``design``.

Each takes a model and either the folder of a fit or a JSON file with known population parameters,
``{"typical": [4, 70], "omega": [0.3, 0.3]}``, or with their errors, ``{"estimates": {...},
"standard_errors": {...}}``. It prints a table and writes tables and a picture.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import pandas as pd

from ..applications import Exposure, Target, evaluate_designs, recommend, simulate
from ..errors import FitError, SettingError
from ..nlme import study
from ..population.known_population import KnownPopulation, population
from ..population.results.fit_result import PopulationFit
from .inputs import add_table, cohort_from, fit_from, model_from, save_figure, say
from .regimen_text import named_regimen, numbers_from, regimen_from, two_numbers, values_from

KINDS = ("auc", "average", "peak", "trough", "smallest", "concentration", "time-above")
DESCRIPTIONS = {
    "simulate": "simulate new individuals under dosing regimens (or those of a table)",
    "recommend": "recommend a dose for patients, from their samples",
    "design": "expected standard errors and power of designs, before a study",
}


def add_options(name: str, parser: argparse.ArgumentParser) -> None:
    """Add the arguments of a command to its parser."""
    if name == "design":
        parser.add_argument("--series", default="dv", help="name of the observations")
    else:
        add_table(parser, optional=True)
    parser.add_argument("--fit", type=Path, help="folder of a fit")
    parser.add_argument("--guide-model", help="FILE:NAME of the model of the guide of the fit")
    parser.add_argument("--population", type=Path, help="JSON file of known parameters")
    parser.add_argument(
        "--values", default="", help="covariates: weight=70,age=40 (of new individuals)"
    )
    _ADD[name](parser)


def _add_simulate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--regimen", action="append", default=[], help='"100 every 12 x 7"; several times'
    )
    parser.add_argument(
        "--arm",
        action="append",
        default=[],
        help='covariates in place of doses, "placebo: DOSE=0"; several times',
    )
    parser.add_argument("--individuals", type=int, help="new individuals")
    parser.add_argument("--draws", type=int, default=200, help="populations, or posterior draws")
    parser.add_argument("--uncertainty", help='"population and individuals", "individuals", "none"')
    parser.add_argument("--times", help="times of prediction, separated by commas")
    _add_window(parser)
    parser.add_argument("--above", type=float, help="threshold of the time above it")
    _add_out(parser, "simulation")


def _add_recommend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--target", choices=KINDS, required=True, help="the metric")
    for name in ("low", "high", "value", "at", "threshold", "probability", "start"):
        parser.add_argument(f"--{name}", type=float, help=HELP[name])
    parser.add_argument("--range", help="smallest and largest amount, separated by a comma")
    parser.add_argument("--doses", help="amounts to choose from, separated by commas")
    parser.add_argument("--regimen", default="1", help="regimen that is scaled to the amount")
    parser.add_argument("--uncertainty", help='"population and individuals", "individuals"')
    _add_window(parser)
    _add_out(parser, "recommendation")


def _add_design(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--times", action="append", required=True, help='"NAME=0.5,2,24"; several times'
    )
    parser.add_argument("--regimen", help="doses of all individuals")
    parser.add_argument("--individuals", type=int, default=1, help="individuals of the study")
    parser.add_argument("--fixed", default="", help="sites that are not estimated")
    parser.add_argument("--effect", help="parameter whose power is computed")
    parser.add_argument("--null", type=float, default=0.0, help="its value without an effect")
    parser.add_argument("--simulated", type=int, default=500, help="simulated individuals")
    _add_out(parser, "design")


HELP = {
    "low": "smallest value that is wanted",
    "high": "largest value that is wanted",
    "value": "value that is aimed at",
    "at": "time of the concentration",
    "threshold": "threshold of the time above it",
    "probability": "wanted probability of the target",
    "start": "time at which the regimen begins; earlier doses still act",
}


def _add_window(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--window", help="begin and end of the exposure, separated by a comma")
    parser.add_argument(
        "--steady-state", action="store_true", help="exposure over one interval at steady state"
    )


def _add_out(parser: argparse.ArgumentParser, folder: str) -> None:
    parser.add_argument(
        "--out", type=Path, default=Path(folder), help="folder to write tables and pictures to"
    )


def _population_of(parsed: argparse.Namespace) -> PopulationFit | KnownPopulation:
    """The fit, or the known parameters."""
    if (parsed.fit is None) == (parsed.population is None):
        raise FitError(
            "Neither or both of --fit and --population are given.",
            "the folder of a fit, or a JSON file of known parameters.",
            "pass `--fit FOLDER` or `--population FILE`.",
        )
    if parsed.fit is not None:
        return fit_from(parsed)
    try:
        contents: Any = json.loads(parsed.population.read_text("utf-8"))
        problem = None if isinstance(contents, dict) else "it holds no object"
    except (ValueError, OSError) as error:
        problem = getattr(error, "strerror", None) or str(error)
    if problem is not None:
        raise FitError(
            f"{parsed.population} is no JSON file of values: {problem}.",
            'an object such as {"typical": [4, 70], "sigma": 0.2}.',
            "correct the file, or the path of `--population`.",
        )
    whole = contents if "estimates" in contents else {"estimates": contents}
    model = model_from(parsed.model)
    return population(model, whole["estimates"], standard_errors=whole.get("standard_errors"))


def _exposure(parsed: argparse.Namespace, above: float | None = None) -> Exposure:
    start, end = two_numbers(parsed.window, "--window") if parsed.window else (None, None)
    return Exposure(start, end, above, parsed.steady_state)


def _write(folder: Path, tables: dict[str, pd.DataFrame], figure: Any, name: str) -> None:
    """Write tables and a picture, and say where."""
    folder.mkdir(parents=True, exist_ok=True)
    for file, table in tables.items():
        table.to_csv(folder / f"{file}.csv", index=False)
    save_figure(figure, folder / f"{name}.png")
    say(f"\nWritten: {folder}")


def run_simulate(parsed: argparse.Namespace) -> None:
    """Simulate individuals under regimens."""
    from ..diagnostics import plots  # matplotlib is an optional dependency

    regimens: dict[str, Any] = dict(named_regimen(text) for text in parsed.regimen)
    for text in parsed.arm:
        name, colon, covariates = text.rpartition(":")
        regimens[name.strip() if colon else text] = values_from(covariates, "--arm")
    values = values_from(parsed.values, "--values")
    result = simulate(
        _population_of(parsed),
        regimens,
        num_individuals=parsed.individuals,
        uncertainty=parsed.uncertainty,
        conditional_on=None if parsed.table is None else cohort_from(parsed),
        times=None if not parsed.times else numbers_from(parsed.times, "--times"),
        covariates=values or None,
        exposure=_exposure(parsed, parsed.above),
        num_draws=parsed.draws,
        seed=parsed.seed,
    )
    say(str(result))
    tables = {"exposures": result.table, "bands": result.bands()}
    _write(parsed.out, tables, plots.simulated_bands(result), "bands")


def run_recommend(parsed: argparse.Namespace) -> None:
    """Recommend a dose for patients."""
    from ..diagnostics import plots

    if bool(parsed.range) == bool(parsed.doses):
        raise SettingError(
            "Neither or both of --range and --doses are given.",
            "a range of amounts, or amounts to choose from.",
            "pass for example `--range 10,1000`.",
        )
    candidates: Any = two_numbers(parsed.range, "--range") if parsed.range else None
    values = values_from(parsed.values, "--values")
    result = recommend(
        _population_of(parsed),
        values if parsed.table is None else cohort_from(parsed),
        candidates or numbers_from(parsed.doses, "--doses"),
        target=_target(parsed),
        regimen=regimen_from(parsed.regimen),
        probability=parsed.probability,
        start=parsed.start,
        uncertainty=parsed.uncertainty,
        seed=parsed.seed,
    )
    say(str(result))
    tables = {"doses": result.table, "candidates": result.to_dataframe()}
    _write(parsed.out, tables, plots.recommended_dose(result), "dose")


def _target(parsed: argparse.Namespace) -> Target:
    """The target that the options describe."""
    for name, kind in (("at", "concentration"), ("threshold", "time-above")):
        if (getattr(parsed, name) is None) == (parsed.target == kind):
            raise SettingError(
                f"--target {parsed.target} {'without' if parsed.target == kind else 'with'} "
                f"--{name}.",
                f"--{name} together with --target {kind}, and with no other.",
                f"correct --target or --{name}.",
            )
    return Target(
        "time above" if parsed.target == "time-above" else parsed.target,
        parsed.low,
        parsed.high,
        parsed.value,
        _exposure(parsed),
        parsed.at,
        parsed.threshold,
    )


def run_design(parsed: argparse.Namespace) -> None:
    """Expected standard errors of designs."""
    from ..diagnostics import plots

    regimen = None if not parsed.regimen else regimen_from(parsed.regimen)
    designs = {}
    for j, text in enumerate(parsed.times):
        name, sign, times = text.partition("=")
        designs[name.strip() if sign else f"design {j + 1}"] = study(
            numbers_from(times if sign else text, "--times"),
            regimen,
            num_individuals=parsed.individuals,
            covariates=values_from(parsed.values, "--values"),
            series=parsed.series,
        )
    result = evaluate_designs(
        _population_of(parsed),
        designs,
        fixed=[x for x in parsed.fixed.split(",") if x],
        num_simulated=parsed.simulated,
        seed=parsed.seed,
    )
    say(str(result))
    for name, errors in result.items() if parsed.effect else ():
        if parsed.effect in errors.undetermined:
            say(f"{name}: does not determine {parsed.effect}")
            continue
        power = errors.power(parsed.effect, null=parsed.null)
        needed = errors.individuals_needed(parsed.effect, null=parsed.null)
        say(f"{name}: power {power:.3f} for {parsed.effect}; {needed} individuals for 0.8")
    _write(parsed.out, {"errors": result.table()}, plots.expected_errors(result), "errors")


_ADD = {"simulate": _add_simulate, "recommend": _add_recommend, "design": _add_design}
COMMANDS = {"simulate": run_simulate, "recommend": run_recommend, "design": run_design}
