r"""Structural alternatives: other programs of the same data, compared by BIC.

Their individual parameters differ, so there are no common draws: the difference of -2LL has the
Monte Carlo errors of both fits. An alternative is chosen only if it is better by more than a
multiple of this error.
"""

import math
from collections.abc import Mapping

from ...errors import AmortizedError, FitError
from ...model import Model, read_structure
from ...population.estimation import fit_population
from ...population.results.fit_result import PopulationFit
from ...runtime.arguments import check_program
from ...runtime.workers import run_each
from .search_path import unexplained_variances
from .search_result import SearchStep
from .search_settings import SEARCH


def best_structure(
    fit: PopulationFit, structures: Mapping[str, Model], seed: int
) -> tuple[PopulationFit, str, list[SearchStep]]:
    r"""The fit with the smallest BIC among a fit and other programs, its name, and the rows.

    Args:
        fit: The first fit.
        structures: Programs by name.
        seed: Seed of the fits.

    Raises:
        FitError: -2LL of a structure is not finite.
        SettingError: A structure is no program.
    """
    for program in structures.values():
        check_program(program)
    tasks = [(program, fit, seed) for program in structures.values()]
    results = dict(zip(structures, run_each(_fitted, tasks), strict=True))
    best, name, rows = fit, "", []
    for key, result in results.items():
        if isinstance(result, str):
            why = f"its fit failed: {result}"
            rows.append(SearchStep("structure", key, math.nan, reason=why))
            continue
        row, is_better = _row(key, best, result)
        rows.append(row)
        if is_better:
            best, name = result, key
    return best, name, rows


def _fitted(program: Model, fit: PopulationFit, seed: int) -> PopulationFit | str:
    """The fit of a program, which holds what the first fit holds and the program has."""
    try:
        structure = read_structure(program, fit.cohort)
        held = {name: fit.estimates[name] for name in fit.fixed if name in structure.population}
        return fit_population(program, fit.cohort, fixed=held, seed=seed, progress=False)
    except AmortizedError as error:
        return str(error).splitlines()[0]


def _row(name: str, best: PopulationFit, fit: PopulationFit) -> tuple[SearchStep, bool]:
    """The row of a structure against the best so far, and whether it is better."""
    fall = best.minus2ll - fit.minus2ll
    error = 2 * math.sqrt(sum(float(x.marginal.mc_error.square().sum()) for x in (best, fit)))
    gain = best.bic.individuals - fit.bic.individuals
    if not math.isfinite(gain):
        raise FitError(
            f"-2LL of the structure {name!r} is not finite.",
            "a program under which all data are possible.",
            "leave it out of `structures=`.",
        )
    is_better = gain > SEARCH.errors * error and fit.converged
    reason = f"BIC {'falls' if gain > 0 else 'rises'} by {abs(gain):.2f}"
    if not fit.converged:
        reason += "; not converged"
    elif 0 < gain <= SEARCH.errors * error:
        reason += ", within its Monte Carlo error"
    step = SearchStep(
        action="structure",
        term=name,
        minus2ll=fit.minus2ll,
        difference=fall,
        mc_error=error,
        freedom=fit.num_parameters - best.num_parameters,
        accepted=is_better,
        variance=unexplained_variances(fit),
        reason=reason,
    )
    return step, is_better
