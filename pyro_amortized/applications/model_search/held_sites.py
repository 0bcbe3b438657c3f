r"""Sites that a fit holds and that a search may estimate: by name, or by what acts through them.

An effect of a covariate that varies over time acts inside the program. The program has its
coefficient, and the fit holds it at the value without an effect. Which of the held sites belongs to
a covariate x is seen from the density: with other values x' of the covariate and another value b'
of the site,

.. math:: \bigl(\ell(b', x') - \ell(b', x)\bigr) - \bigl(\ell(b, x') - \ell(b, x)\bigr)

is zero unless the covariate acts through the site. Where the covariate acts already at the values
that the fit holds, other sites (a residual error) also give a difference, and the user names the
sites.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ...cohort import Cohort, Series
from ...errors import AmortizedError, SettingError
from ...model.freed_parameter import FreedParameter
from ...population.comparison.fixed_parameter_tests import check_fixed
from ...population.results.fit_result import PopulationFit
from ...runtime.random_numbers import make_generator
from .search_settings import SEARCH

WAY = (
    "write its effect into the program (`cohort.time_varying[name].at(times)`, `nlme.completed`) "
    "with a coefficient as a population site, fit with this site fixed at its value without an "
    'effect (`fixed={"beta": torch.tensor(0.0)}`), and search again: the site is then tested, and '
    'estimated if it is needed; or name it by `freed=["beta"]`.'
)


def held_sites(
    fit: PopulationFit, varying: Sequence[str], freed: Sequence[str], asked: bool
) -> tuple[FreedParameter, ...]:
    r"""The held sites that a search may estimate.

    Args:
        fit: The fit.
        varying: Names of covariates that vary over time.
        freed: Names of sites.
        asked: Whether the covariates were named, so that one that acts through no site is an error.

    Raises:
        FitError: The fit does not hold a site of ``freed``, or holds it at an end of its support.
        SettingError: No held site belongs to a covariate, or it cannot be said which.
    """
    if freed:
        check_fixed(fit, list(freed))
    sites: dict[str, list[str]] = {name: [] for name in freed}
    for covariate in varying:
        acting = sites_of(fit, covariate)
        if asked and not acting and not freed:
            _refuse(fit, covariate)
        for name in acting:
            sites.setdefault(name, []).append(covariate)
    return tuple(
        FreedParameter(name, _held_value(fit, name), tuple(covariates))
        for name, covariates in sites.items()
    )


def _held_value(fit: PopulationFit, name: str) -> tuple[float, ...]:
    return tuple(fit.vector[fit.structure.coordinates({name})].tolist())


def sites_of(fit: PopulationFit, covariate: str) -> list[str]:
    """The held sites through which a covariate that varies over time acts, if it acts through no
    other parameter.
    """
    if acts_already(fit, covariate):
        return []
    return [
        name for name in fit.fixed if _has_inner_value(fit, name) and _joint(fit, covariate, name)
    ]


def acts_already(fit: PopulationFit, covariate: str) -> bool:
    """Whether other values of a covariate change the density at the estimates of a fit, or cannot
    be, as the labels of occasions.
    """
    one, other = _cohorts(fit, covariate)
    here = _density(fit, one, fit.vector)
    try:
        there = _density(fit, other, fit.vector)
    except (AmortizedError, RuntimeError, ValueError):
        return True
    return _differs(there - here, here)


def _joint(fit: PopulationFit, covariate: str, name: str) -> bool:
    """Whether other values of a covariate change the density where a held site has another value
    by more than they do where it is held.
    """
    own = fit.structure.coordinates({name})
    moved = torch.where(own, fit.vector + SEARCH.held_step * fit.search.scale, fit.vector)
    one, other = _cohorts(fit, covariate)
    at_held = _density(fit, other, fit.vector) - _density(fit, one, fit.vector)
    before = _density(fit, one, moved)
    return _differs(_density(fit, other, moved) - before - at_held, before)


def _has_inner_value(fit: PopulationFit, name: str) -> bool:
    return bool(fit.vector[fit.structure.coordinates({name})].isfinite().all())


def _cohorts(fit: PopulationFit, covariate: str) -> tuple[Cohort, Cohort]:
    """The data, and the data with the recorded values of a covariate in another order."""
    cohort = fit.individuals.cohort
    series = cohort.time_varying[covariate]
    recorded = series.values[series.observed]
    order = torch.randperm(len(recorded), generator=make_generator(0))
    values = series.values.clone()
    values[series.observed] = recorded[order]
    changed = Series(series.times, values, series.observed)
    return cohort, replace(cohort, time_varying=dict(cohort.time_varying) | {covariate: changed})


def _density(fit: PopulationFit, cohort: Cohort, vector: Tensor) -> Tensor:
    """Log densities of a draw of every individual, shape ``(individual,)``."""
    draws, structure = fit.individuals.resampled(1), fit.structure
    with torch.no_grad():
        density = structure.log_density(cohort, draws, structure.constrain_population(vector))
    return density.total[0].nan_to_num(0.0, 0.0, 0.0)


def _differs(change: Tensor, size: Tensor) -> bool:
    return bool((change.abs() > SEARCH.same_density * (1 + size.abs())).any())


def _refuse(fit: PopulationFit, covariate: str) -> None:
    known = f"the fit holds {list(fit.fixed)}" if fit.fixed else "the fit holds no site"
    if acts_already(fit, covariate):
        raise SettingError(
            f"{covariate!r} varies over time, and acts through parameters that are estimated.",
            f"the names of the held sites that are to be tested besides ({known}).",
            'name them by `freed=["beta"]`, and leave the covariate out of `covariates=`.',
        )
    raise SettingError(
        f"{covariate!r} varies over time, and acts through no site that the fit holds.",
        f"covariates with one known value for each individual, or a held coefficient ({known}).",
        WAY + " Or add a summary, for instance the first value, to `covariates=` of the cohort.",
    )
