r"""The data of N individuals: observation series, doses, covariates.

A :class:`Cohort` is what a model is called with. Every tensor has the individuals first:
``(individual, time)`` or ``(individual, time, channel)``. What was not recorded is marked by a
boolean mask (``observed``, True = recorded); the values under it are replaced at the door by a
recorded one, so that no placeholder (NaN, -99) can reach a density, its validation or its gradient.

A *design* is a callable ``(num_individuals, generator) -> Cohort`` whose values are placeholders:
it says when, under which doses and with what missing the training data are simulated.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, overload

import torch
from torch import Generator, Tensor

from ..errors import CohortError
from .doses import Doses
from .lazy import Lazy
from .records import Series, floating

Index = int | slice | Sequence[int] | Tensor
Design = Callable[[int, Generator], "Cohort"]


@dataclass(frozen=True, eq=False)
class Cohort:
    r"""The data of N individuals.

    ``len(cohort)`` is N, ``cohort["name"]`` a series, ``cohort[2:5]`` (an integer, slice, list or
    tensor) the cohort of these individuals.

    Args:
        series: Name of each observed quantity and its :class:`Series`. The observation sites of a
            model bear these names.
        doses: What was given, or None.
        covariates: Name and values, shape ``(individual,)``, of each covariate; finite.
        ids: Labels of the individuals. Default: "1", "2", ...
        time_varying: Name and :class:`Series` of each covariate that varies over time (and of
            occasions and limits of quantification): known to the model, not observed by it.
            ``cohort.time_varying["weight"].at(times)`` carries the last value forward.

    Raises:
        CohortError: The parts disagree about the number of individuals, or a covariate is not
            finite.

    Example:
        >>> times = torch.tensor([[0.0, 1.0], [0.0, 2.0]])
        >>> values = torch.tensor([[5.0, 4.0], [6.0, 3.0]])
        >>> weight = torch.tensor([70.0, 60.0])
        >>> cohort = Cohort({"concentration": Series(times, values)}, covariates={"weight": weight})
        >>> len(cohort), cohort[[1]].covariates["weight"]
        (2, tensor([60.]))
    """

    series: Mapping[str, Series]
    doses: Doses | None = None
    covariates: Mapping[str, Tensor] = field(default_factory=dict)
    ids: tuple[str, ...] = ()
    time_varying: Mapping[str, Series] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.series:
            raise CohortError(
                "The cohort has no series.",
                "at least one observed quantity.",
                'pass series={"concentration": Series(times, values)}.',
            )
        num = len(next(iter(self.series.values())).values)
        covariates = {
            name: floating(torch.as_tensor(x), name) for name, x in self.covariates.items()
        }
        sizes = {f"series {name!r}": len(s.values) for name, s in self.series.items()}
        sizes |= {
            f"covariate {name!r}": len(x) if x.dim() == 1 else -1 for name, x in covariates.items()
        }
        sizes |= {f"time_varying {n!r}": len(s.values) for n, s in self.time_varying.items()}
        sizes |= {"doses": len(self.doses.times)} if self.doses else {}
        sizes |= {"ids": len(self.ids)} if self.ids else {}
        for name, size in sizes.items():
            if size != num:
                raise CohortError(
                    f"{name} has {'the wrong shape' if size < 0 else f'{size} individuals'}.",
                    f"{num} individuals, the number in the first series.",
                    "give every series, dose table and covariate one row per individual, in the "
                    "same order.",
                )
        for name, x in covariates.items():
            if not x.isfinite().all():
                raise CohortError(
                    f"Covariate {name!r} of individual {int((~x.isfinite()).nonzero()[0])} is "
                    "not finite.",
                    "a finite value for every individual.",
                    "impute it (for instance by the median) and, if it matters, add an "
                    "indicator covariate.",
                )
        object.__setattr__(self, "series", MappingProxyType(dict(self.series)))
        object.__setattr__(self, "covariates", MappingProxyType(covariates))
        object.__setattr__(self, "time_varying", MappingProxyType(dict(self.time_varying)))
        ids = tuple(str(x) for x in self.ids) or tuple(str(i + 1) for i in range(num))
        object.__setattr__(self, "ids", ids)

    def __reduce__(self) -> tuple[type["Cohort"], tuple[Any, ...]]:
        parts = (dict(self.series), self.doses, dict(self.covariates), self.ids)
        return Cohort, (*parts, dict(self.time_varying))

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, key: str) -> Series: ...
    @overload
    def __getitem__(self, key: Index) -> "Cohort": ...
    def __getitem__(self, key: str | Index) -> "Series | Cohort":
        if not isinstance(key, str):
            return self._select(_positions(key, len(self)))
        if key not in self.series:
            raise CohortError(
                f"The cohort has no series {key!r}.",
                f"one of {sorted(self.series)}.",
                "check the name of the series.",
            )
        return self.series[key]

    def __iter__(self) -> Iterator["Cohort"]:
        return (self[i] for i in range(len(self)))

    def __contains__(self, name: object) -> bool:
        return name in self.series

    @property
    def num_observations(self) -> int:
        """Number of recorded values over all series and individuals."""
        return sum(s.num_observations for s in self.series.values())

    @property
    def dtype(self) -> torch.dtype:
        """Floating dtype of the first series."""
        return next(iter(self.series.values())).values.dtype

    @property
    def device(self) -> torch.device:
        """Device of the first series."""
        return next(iter(self.series.values())).values.device

    def _select(self, index: Tensor) -> "Cohort":
        ids = tuple(self.ids[i] for i in index.tolist())
        return replace(self._map(lambda x: x[index.to(x.device)]), ids=ids)

    def repeat(self, num_copies: int) -> "Cohort":
        r"""The cohort laid end to end ``num_copies`` times: individual i of copy k is row ``k * len
        + i``.
        """

        def copied(x: Tensor) -> Tensor:
            return x.repeat(num_copies, *[1] * (x.dim() - 1))

        def lazy(group: Mapping[str, Series]) -> Mapping[str, Series]:
            return Lazy(tuple(group), lambda name: group[name].repeat(num_copies))

        # Nothing is checked again, and the series are copied when they are looked at.
        copies = object.__new__(Cohort)
        parts = {
            "series": lazy(self.series),
            "doses": self.doses and Doses(**{n: copied(x) for n, x in vars(self.doses).items()}),
            "covariates": MappingProxyType({n: copied(x) for n, x in self.covariates.items()}),
            "ids": self.ids * num_copies,
            "time_varying": lazy(self.time_varying),
        }
        for name, part in parts.items():
            object.__setattr__(copies, name, part)
        return copies

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> "Cohort":
        """The same cohort on another device or in another floating dtype."""
        if device is None and all(
            x.dtype == dtype for x in self._tensors() if x.is_floating_point()
        ):
            return self
        return replace(
            self._map(lambda x: x.to(device, dtype if x.is_floating_point() else None)),
            ids=self.ids,
        )

    def with_values(self, values: Mapping[str, Tensor]) -> "Cohort":
        r"""The same design with other observations.

        Args:
            values: Per series (all or some) the new values, shape of the old ones; finite where
                recorded.
        """
        series = {
            name: Series(s.times, values[name], s.observed) if name in values else s
            for name, s in self.series.items()
        }
        return replace(self, series=series)

    def with_observed(self, observed: Mapping[str, Tensor]) -> "Cohort":
        r"""The same cohort with less recorded.

        Args:
            observed: Per series (all or some) a mask, shape of the values; it is combined with the
                old one.
        """
        series = {
            name: Series(s.times, s.values, s.observed & observed[name]) if name in observed else s
            for name, s in self.series.items()
        }
        return replace(self, series=series)

    def _tensors(self) -> Iterator[Tensor]:
        for group in (self.series, self.time_varying):
            for s in group.values():
                yield from (s.times, s.values)
        yield from self.covariates.values()
        if self.doses is not None:
            yield from vars(self.doses).values()

    def _map(self, fn: Callable[[Tensor], Tensor]) -> "Cohort":
        series, varying = (
            {n: Series(fn(s.times), fn(s.values), fn(s.observed)) for n, s in group.items()}
            for group in (self.series, self.time_varying)
        )
        doses = self.doses and Doses(**{name: fn(x) for name, x in vars(self.doses).items()})
        covariates = {n: fn(x) for n, x in self.covariates.items()}
        return Cohort(series, doses, covariates, time_varying=varying)


def concatenate(cohorts: Sequence[Cohort]) -> Cohort:
    r"""Lay cohorts of the same series and covariates end to end, padding times and doses.

    Args:
        cohorts: One or more cohorts.

    Raises:
        CohortError: The cohorts differ in their series, covariates or in whether they have doses.
    """
    first = cohorts[0]
    for other in cohorts[1:]:
        if _form(other) != _form(first):
            raise CohortError(
                f"A cohort of {_form(other)} meets one of {_form(first)}.",
                "the same series and covariates in every cohort, and doses in all of them or in "
                "none.",
                "add what is missing as an unrecorded series (`observed` False), or empty doses "
                "(`given` False).",
            )
    series = {name: _end_to_end([c[name] for c in cohorts]) for name in first.series}
    varying = {n: _end_to_end([c.time_varying[n] for c in cohorts]) for n in first.time_varying}
    all_doses = [c.doses for c in cohorts if c.doses is not None]
    doses = None
    if all_doses:
        columns = {n: [getattr(d, n) for d in all_doses] for n in vars(all_doses[0])}
        doses = Doses(**{n: _pad_rows(x, float(n == "compartment")) for n, x in columns.items()})
    covariates = {
        name: torch.cat([c.covariates[name] for c in cohorts]) for name in first.covariates
    }
    return Cohort(series, doses, covariates, sum((c.ids for c in cohorts), ()), varying)


def _form(cohort: Cohort) -> dict[str, object]:
    return {
        "series": sorted(cohort.series),
        "covariates": sorted(cohort.covariates),
        "time-varying covariates": sorted(cohort.time_varying),
        "doses": cohort.doses is not None,
    }


def _end_to_end(parts: Sequence[Series]) -> Series:
    return Series(
        _pad_rows([s.times for s in parts], None),
        _pad_rows([s.values for s in parts], 0.0),
        _pad_rows([s.observed for s in parts], False),
    )


def _pad_rows(tensors: Sequence[Tensor], fill: float | None) -> Tensor:
    length = max(t.shape[1] for t in tensors)

    def pad(t: Tensor) -> Tensor:
        short = length - t.shape[1]
        if fill is None:
            tail = t[:, -1:].expand(-1, short)
        else:
            tail = torch.full((len(t), short, *t.shape[2:]), fill, dtype=t.dtype, device=t.device)
        return torch.cat([t, tail], 1)

    return torch.cat([pad(t) for t in tensors])


def _positions(key: Index, size: int) -> Tensor:
    index = torch.arange(size)
    picked = (
        index[key]
        if isinstance(key, slice | int | Tensor)
        else index[torch.as_tensor(list(key), dtype=torch.long)]
    )
    return picked.reshape(-1)
