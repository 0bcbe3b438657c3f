r"""The data of N individuals: series of observations, doses and covariates.

A model is called with a :class:`Cohort`. The first dimension of every tensor is the individual:
``(individual, time)`` or ``(individual, time, channel)``. A boolean mask (``observed``, True =
recorded) says what was recorded. When a cohort is made, every value that was not recorded is
replaced by a recorded one, so no placeholder (NaN, -99) can reach a density or its gradient.

A *design* is a callable ``(num_individuals, generator) -> Cohort`` whose values are placeholders.
It determines the times, doses, covariates and missing values of the simulated training data.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, overload

import torch
from torch import Generator, Tensor

from ..errors import CohortError
from ..runtime.arguments import check_count
from ..runtime.text_table import html_rows, text_table
from .categories import checked_categories, place_of_category
from .cohort_text import cohort_rows, title
from .copies import repeated_rows
from .doses import Doses
from .individual_index import Index, positions
from .labels import Labels, are_default_labels, make_labels
from .lazy_series import LazyMapping
from .named_parts import NamedParts
from .series import Series
from .validation import check_kinds, checked_covariate

Design = Callable[[int, Generator], "Cohort"]


@dataclass(frozen=True, eq=False)
class Cohort:
    r"""The data of N individuals.

    ``len(cohort)`` is N, and ``cohort["name"]`` is a series. ``cohort[2:5]`` is the cohort of these
    individuals; the index is an integer, a slice, a list or a tensor.

    Args:
        series: Name of each observed quantity and its :class:`Series`. The observation sites of a
            model have these names.
        doses: The doses, or None.
        covariates: Name and values, shape ``(individual,)``, of each covariate; finite.
        ids: Labels of the individuals. Default: "1", "2", ...
        time_varying: Name and :class:`Series` of each covariate that varies over time, and of
            occasions and limits of quantification. The model reads them and does not observe
            them. ``cohort.time_varying["weight"].at(times)`` carries the last value forward.
        categories: By the name of a covariate, the names of its categories 0, 1, ...;
            ``cohort.is_category("sex", "female")`` is then the indicator of one.

    Raises:
        CohortError: The parts have different numbers of individuals, a covariate is not finite, or
            a category has no name.

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
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_kinds(self.series, self.covariates, self.doses, self.time_varying)
        num = len(next(iter(self.series.values())).values)
        covariates = {name: checked_covariate(name, x) for name, x in self.covariates.items()}
        labels = make_labels(self.ids, num)
        sizes = {f"Series {name!r}": len(s.values) for name, s in self.series.items()}
        sizes |= {f"Covariate {n!r}": len(x) for n, x in covariates.items()}
        sizes |= {f"Time-varying {n!r}": len(s.values) for n, s in self.time_varying.items()}
        sizes |= {"`doses`": len(self.doses.times)} if self.doses else {}
        sizes |= {"`ids`": len(labels)}
        for name, size in sizes.items():
            if size != num:
                raise CohortError(
                    f"{name} has {size} individuals.",
                    f"{num} individuals, the number in the first series.",
                    "give every series, dose table and covariate one row per individual, in the "
                    "same order.",
                )
        object.__setattr__(self, "series", MappingProxyType(dict(self.series)))
        parts: dict[str, NamedParts[Any]] = {
            "covariates": NamedParts(covariates, "covariate"),
            "time_varying": NamedParts(self.time_varying, "time-varying series"),
        }
        for name, part in parts.items():
            object.__setattr__(self, name, MappingProxyType(part))
        object.__setattr__(self, "ids", labels)
        object.__setattr__(self, "categories", checked_categories(self.categories, covariates))

    def __repr__(self) -> str:
        return f"Cohort of {title(self.ids)}\n" + text_table(self._rows(), align="<")

    def _repr_html_(self) -> str:
        """The same as a table, for notebooks."""
        return html_rows(f"Cohort of {title(self.ids)}", [("part", "data"), *self._rows()])

    def _rows(self) -> list[tuple[str, str]]:
        parts = (self.series, self.doses, self.covariates, self.time_varying)
        return cohort_rows(*parts, self.categories)

    def __reduce__(self) -> tuple[type["Cohort"], tuple[Any, ...]]:
        parts = (dict(self.series), self.doses, dict(self.covariates), self.ids)
        return Cohort, (*parts, dict(self.time_varying), dict(self.categories))

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, key: str) -> Series: ...
    @overload
    def __getitem__(self, key: Index) -> "Cohort": ...
    def __getitem__(self, key: str | Index) -> "Series | Cohort":
        if not isinstance(key, str):
            return self._select(positions(key, len(self)))
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

    def is_category(self, covariate: str, name: str) -> Tensor:
        r"""Whether each individual is in a category of a covariate, shape ``(individual,)``.

        Args:
            covariate: Name of the covariate.
            name: Name of the category.

        Raises:
            CohortError: The covariate has no category of that name.

        Example:
            >>> series = {"y": Series(torch.zeros(2, 1), torch.zeros(2, 1))}
            >>> sex = torch.tensor([0.0, 1.0])
            >>> names = {"sex": ("female", "male")}
            >>> cohort = Cohort(series, covariates={"sex": sex}, categories=names)
            >>> cohort.is_category("sex", "male")
            tensor([False,  True])
        """
        return self.covariates[covariate] == place_of_category(self.categories, covariate, name)

    @property
    def num_values(self) -> int:
        """Number of places for values of all series and individuals, recorded or not."""
        return sum(s.values.numel() for s in self.series.values())

    def num_recorded(self, names: Iterable[str]) -> Tensor:
        """Number of recorded values of each individual in some series, shape ``(individual,)``."""
        counts = [self.series[name].observed.flatten(1).sum(1) for name in names]
        return torch.stack([torch.zeros(len(self)).long(), *counts]).sum(0)

    @property
    def dtype(self) -> torch.dtype:
        """Floating dtype of the first series."""
        return next(iter(self.series.values())).values.dtype

    @property
    def device(self) -> torch.device:
        """Device of the first series."""
        return next(iter(self.series.values())).values.device

    def _select(self, index: Tensor) -> "Cohort":
        if torch.equal(index, torch.arange(len(self))):
            return self
        ids = Labels.of((self.ids[i] for i in index.tolist()), are_default_labels(self.ids))
        return self._copied(lambda x: x[index.to(x.device)], ids)

    def repeat(self, num_copies: int) -> "Cohort":
        r"""The individuals ``num_copies`` times one after the other: individual i of copy k is row
        ``k * len(cohort) + i``.

        Raises:
            SettingError: ``num_copies`` is not positive.
        """
        check_count("num_copies", num_copies)
        ids = Labels(self.ids * num_copies)
        return self._copied(lambda x: repeated_rows(x, num_copies), ids, num_copies)

    def _copied(
        self, fn: Callable[[Tensor], Tensor], ids: Labels, num_copies: int | None = None
    ) -> "Cohort":
        """A choice or copies of the individuals. The parts were checked before, and the series are
        copied only when they are read.
        """

        def copy(part: Any) -> Any:
            return part.map(fn) if num_copies is None else part.repeat(num_copies)

        def lazy(group: Mapping[str, Series], kind: str) -> Mapping[str, Series]:
            return LazyMapping(tuple(group), lambda name: copy(group[name]), kind)

        copies = object.__new__(Cohort)
        covariates = {name: fn(x) for name, x in self.covariates.items()}
        parts = {
            "series": lazy(self.series, "series"),
            "doses": self.doses and copy(self.doses),
            "covariates": MappingProxyType(NamedParts(covariates, "covariate")),
            "ids": ids,
            "time_varying": lazy(self.time_varying, "time-varying series"),
            "categories": self.categories,
        }
        for name, part in parts.items():
            object.__setattr__(copies, name, part)
        return copies

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> "Cohort":
        r"""The same cohort on another device or in another floating dtype.

        Raises:
            CohortError: The dtype is not a floating one, or torch does not have the device.
        """
        if dtype is not None and not dtype.is_floating_point:
            raise CohortError(f"`dtype` is {dtype}.", "a floating dtype.", "pass torch.float64.")
        if device is None and all(
            x.dtype == dtype for x in self._tensors() if x.is_floating_point()
        ):
            return self
        try:
            moved = self._map(lambda x: x.to(device, dtype if x.is_floating_point() else None))
        except (RuntimeError, AssertionError) as error:
            raise CohortError(
                f"The cohort cannot be moved to {device!r}: {str(error).splitlines()[0]}",
                "a device that torch can use on this machine.",
                'pass "cpu", or install a build of torch that supports the device.',
            ) from error
        return replace(moved, ids=self.ids)

    def with_values(self, values: Mapping[str, Tensor]) -> "Cohort":
        r"""The same design with other observations.

        Args:
            values: New values by the name of the series, of all series or of some. Their shape is
                that of the old values, and they are finite where recorded.

        Raises:
            CohortError: No series has the name, the shape differs, or a recorded value is not
                finite.
        """
        self._check_names(values)
        series = {
            name: Series(s.times, values[name], s.observed) if name in values else s
            for name, s in self.series.items()
        }
        return replace(self, series=series)

    def with_observed(self, observed: Mapping[str, Tensor]) -> "Cohort":
        r"""The same cohort with fewer recorded values.

        Args:
            observed: Masks by the name of the series, of all series or of some, shape of the
                values. A value stays recorded if both the old mask and the new one are True.

        Raises:
            CohortError: No series has the name, the shape differs, or the mask is not boolean.
        """
        self._check_names(observed)
        for name, mask in observed.items():
            expected = self[name].observed
            if (
                not isinstance(mask, Tensor)
                or mask.dtype != torch.bool
                or mask.shape != expected.shape
            ):
                is_tensor = isinstance(mask, Tensor)
                given = f"{tuple(mask.shape)} of {mask.dtype}" if is_tensor else mask
                raise CohortError(
                    f"The mask of series {name!r} is {given}.",
                    f"a boolean tensor of shape {tuple(expected.shape)}, True = recorded.",
                    "pass a mask for every value of the series.",
                )
        series = {
            name: Series(s.times, s.values, s.observed & observed[name]) if name in observed else s
            for name, s in self.series.items()
        }
        return replace(self, series=series)

    def _check_names(self, names: Iterable[str]) -> None:
        unknown = [name for name in names if name not in self.series]
        if unknown:
            raise CohortError(
                f"The cohort has no series {unknown[0]!r}.",
                f"names among {sorted(self.series)}.",
                "check the name of the series.",
            )

    def _tensors(self) -> Iterator[Tensor]:
        for group in (self.series, self.time_varying):
            for s in group.values():
                yield from (s.times, s.values)
        yield from self.covariates.values()
        if self.doses is not None:
            yield from self.doses.columns.values()

    def _map(self, fn: Callable[[Tensor], Tensor]) -> "Cohort":
        series, varying = (
            {n: Series(fn(s.times), fn(s.values), fn(s.observed)) for n, s in group.items()}
            for group in (self.series, self.time_varying)
        )
        doses = self.doses and Doses(**{name: fn(x) for name, x in self.doses.columns.items()})
        covariates = {n: fn(x) for n, x in self.covariates.items()}
        return Cohort(series, doses, covariates, time_varying=varying, categories=self.categories)
