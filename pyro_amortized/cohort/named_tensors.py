r"""A cohort as a dictionary of named tensors, the form in which it is written to files."""

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


def cohort_of(tensors: dict[str, Tensor], labels: Labels) -> Cohort:
    r"""The cohort of named tensors.

    Args:
        tensors: As of :func:`cohort_tensors`.
        labels: Labels of the individuals.
    """

    def under(start: str) -> dict[str, Tensor]:
        return {n.removeprefix(start): x for n, x in tensors.items() if n.startswith(start)}

    def group(start: str) -> dict[str, Series]:
        fields: dict[str, dict[str, Tensor]] = {}
        for name, x in under(start).items():
            owner, field = name.rsplit(".", 1)
            fields.setdefault(owner, {})[field] = x
        return {
            n: Series(f["times"], f["values"].double(), f["observed"]) for n, f in fields.items()
        }

    doses = under("doses.")
    return Cohort(
        group("series."),
        Doses(**doses) if doses else None,
        under("covariates."),
        labels,
        group("varying."),
        categories_of(under("categories.")),
    )
