r"""A cohort as a dictionary of named tensors, the form in which it is written to files."""

from collections.abc import Mapping

from torch import Tensor

from . import Cohort, Doses, Labels, Series
from .categories import categories_of, category_tensors


def cohort_tensors(cohort: Cohort) -> dict[str, Tensor]:
    r"""A cohort as named tensors, without its labels.

    The names are ``series.<name>.<field>``, ``varying.<name>.<field>``, ``doses.<field>``,
    ``covariates.<name>`` and ``categories.<name>``.
    """
    tensors: dict[str, Tensor] = {}
    for kind, group in (("series", cohort.series), ("varying", cohort.time_varying)):
        for name, s in group.items():
            tensors |= {f"{kind}.{name}.{field}": x for field, x in s.columns.items()}
    if cohort.doses is not None:
        tensors |= {f"doses.{field}": x for field, x in cohort.doses.columns.items()}
    tensors |= {f"covariates.{name}": x for name, x in cohort.covariates.items()}
    names = category_tensors(cohort.categories, len(cohort))
    return tensors | {f"categories.{name}": x for name, x in names.items()}


def with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix, by the rest of their names."""
    return {n.removeprefix(prefix): x for n, x in tensors.items() if n.startswith(prefix)}


def cohort_of(tensors: dict[str, Tensor], labels: Labels) -> Cohort:
    r"""The cohort of named tensors.

    Args:
        tensors: As of :func:`cohort_tensors`.
        labels: Labels of the individuals.
    """

    def group(start: str) -> dict[str, Series]:
        fields: dict[str, dict[str, Tensor]] = {}
        for name, x in with_prefix(tensors, start).items():
            owner, field = name.rsplit(".", 1)
            fields.setdefault(owner, {})[field] = x
        return {
            n: Series(f["times"], f["values"].double(), f["observed"]) for n, f in fields.items()
        }

    doses = with_prefix(tensors, "doses.")
    return Cohort(
        group("series."),
        Doses(**doses) if doses else None,
        with_prefix(tensors, "covariates."),
        labels,
        group("varying."),
        categories_of(with_prefix(tensors, "categories.")),
    )
