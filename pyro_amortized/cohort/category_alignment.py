"""Cohorts whose categories have the numbers of another cohort."""

from collections.abc import Mapping
from dataclasses import replace

from .categories import renumbered
from .cohort import Cohort


def with_categories_of(cohort: Cohort, known: Mapping[str, tuple[str, ...]]) -> Cohort:
    r"""A cohort whose categories have the names and numbers of another one.

    A table numbers the categories that it has: in a table of men alone, M is 0. A model that was
    fitted to F = 0 and M = 1 would read women.

    Args:
        cohort: N individuals.
        known: The names of categories by covariate, ``other.categories``. Covariates that the
            cohort does not have are left out.

    Raises:
        CohortError: An individual has a category that is not known.
    """
    both = {name: tuple(known[name]) for name in known if name in cohort.covariates}
    changed = {x: names for x, names in both.items() if cohort.categories.get(x, ()) != names}
    if not changed:
        return cohort
    covariates = dict(cohort.covariates)
    for name, names in changed.items():
        own = cohort.categories.get(name, ())
        covariates[name] = renumbered(covariates[name], own, names, name)
    return replace(cohort, covariates=covariates, categories={**cohort.categories, **changed})
