r"""Incomplete data -> numbers that a network can read.

Every recorded time of every series becomes one *token*, and so does every dose:

* per channel the 0/1 indicator of being recorded and the value on three scales (multiplied by the
  indicator): linear, inverse hyperbolic sine (large ranges), and log of the size;
* time since the start and since the last dose, linear and logarithmic, and the gap to the previous
  time;
* which series the token belongs to; for a dose its log amount and its duration.

Tokens of what was not recorded, and padding, carry a mask of False. Static covariates and dose
totals stand apart. Means and scales come from recorded values only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .cohort import Cohort, Index
from .errors import GuideError
from .grid import onto_grid


@dataclass(frozen=True, eq=False)
class Encoded:
    r"""N individuals as a network reads them.

    Args:
        tokens: Shape ``(individual, token, feature)``, zero where ``mask`` is False.
        mask: True where the token is there, shape ``(individual, token)``.
        static: Covariates and totals, shape ``(individual, static)``.
    """

    tokens: Tensor
    mask: Tensor
    static: Tensor

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: Index) -> "Encoded":
        return Encoded(self.tokens[index], self.mask[index], self.static[index])


class Standardize(nn.Module):
    """Shift and scale features to mean 0 and sd 1; constant features become 0."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.zeros(num_features, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(num_features, dtype=torch.float64))

    def fit(self, rows: Tensor) -> None:
        """Take mean and scale from rows, shape ``(row, feature)``."""
        if rows.numel():
            sd = rows.std(0, correction=0)
            self.mean.copy_(rows.mean(0))
            self.scale.copy_(
                torch.where(sd > 1e-8 * (1 + rows.abs().amax(0)), 1 / sd, torch.zeros_like(sd))
            )

    def forward(self, x: Tensor) -> Tensor:
        """Standardised features, at most 10 in size: one extreme value cannot drown the others."""
        return ((x - self.mean) * self.scale).clamp(-10, 10)


class Encoder(nn.Module):
    r"""Indicator encoding of a cohort.

    Args:
        series: Names of the series that the model observes.
        channels: Number of channels of each.
        covariates: Names of the covariates.
        has_doses: Whether the cohorts have doses.
        grid: Times of each series if all individuals share them: tokens then stand in the places of
            the grid, recorded or not. None for individual times.
    """

    def __init__(
        self,
        series: Sequence[str],
        channels: Sequence[int],
        covariates: Sequence[str],
        has_doses: bool,
        grid: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        super().__init__()
        self.grid = {name: list(grid[name]) for name in series} if grid is not None else None
        self.series, self.channels, self.covariates = (
            tuple(series),
            tuple(channels),
            tuple(covariates),
        )
        self.has_doses = has_doses
        self.units: Tensor
        self.register_buffer("units", torch.ones(sum(self.channels) + 1, dtype=torch.float64))
        self.values = nn.ModuleList(Standardize(3 * n) for n in self.channels)
        self.times = Standardize(NUM_TIME_FEATURES)
        self.doses = Standardize(NUM_DOSE_FEATURES)
        self.static = Standardize(self.num_static)

    @classmethod
    def fitted(
        cls,
        cohort: Cohort,
        series: Sequence[str],
        grid: Mapping[str, Sequence[float]] | None = None,
    ) -> "Encoder":
        """An encoder with the names, channels and scales of simulated training data."""
        channels = [_channels(cohort, name) for name in series]
        encoder = cls(series, channels, sorted(cohort.covariates), cohort.doses is not None, grid)
        encoder._fit(cohort)
        return encoder

    def check(self, cohort: Cohort) -> None:
        r"""Raise unless the cohort has what the encoder reads.

        Raises:
            GuideError: A series or covariate is missing, a number of channels differs, or doses
                appear or lack.
        """
        found = {
            "series": {n: _channels(cohort, n) for n in self.series if n in cohort},
            "covariates": sorted(set(cohort.covariates) & set(self.covariates)),
            "doses": cohort.doses is not None,
        }
        wanted = {
            "series": dict(zip(self.series, self.channels, strict=True)),
            "covariates": sorted(self.covariates),
            "doses": self.has_doses,
        }
        for what, expected in wanted.items():
            if found[what] != expected:
                raise GuideError(
                    f"The cohort has {what} {found[what]}.",
                    f"{what} {expected}, as in the training data of the guide.",
                    "bring the cohort into the form of the training data, or train a guide for "
                    "this cohort.",
                )

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments that make this encoder again."""
        return {
            "series": list(self.series),
            "channels": list(self.channels),
            "covariates": list(self.covariates),
            "has_doses": self.has_doses,
            "grid": self.grid,
        }

    @property
    def num_places(self) -> int:
        """Tokens in fixed places: the points of the grid, 0 without one."""
        return sum(len(times) for times in self.grid.values()) if self.grid is not None else 0

    @property
    def num_values(self) -> int:
        """Leading features of a token that hold values and indicators."""
        return 4 * sum(self.channels)

    @property
    def num_features(self) -> int:
        """Number of features of a token."""
        dose = NUM_DOSE_FEATURES + 1 if self.has_doses else 0
        return 4 * sum(self.channels) + len(self.series) + NUM_TIME_FEATURES + dose

    @property
    def num_static(self) -> int:
        """Number of static features: covariates, and two totals of the doses."""
        return len(self.covariates) + (2 if self.has_doses else 0)

    def forward(self, cohort: Cohort) -> Encoded:
        """Encode a cohort, in float64."""
        cohort = cohort.to(dtype=torch.float64)
        if self.grid is not None:
            cohort = onto_grid(cohort, self.grid)
        parts = [self._series_tokens(cohort, j) for j in range(len(self.series))]
        masks = [_present(cohort, name) for name in self.series]
        if self.has_doses and cohort.doses is not None:
            parts.append(self._dose_tokens(cohort))
            masks.append(cohort.doses.given)
        mask = torch.cat(masks, 1)
        tokens = torch.cat(parts, 1) * mask.unsqueeze(-1)
        return Encoded(tokens, mask, self.static(self._static_features(cohort)))

    def _fit(self, cohort: Cohort) -> None:
        cohort = cohort.to(dtype=torch.float64)
        offset = 0
        for j, name in enumerate(self.series):
            values, observed = _flat_channels(cohort, name)
            for c in range(self.channels[j]):
                recorded = values[..., c][observed[..., c]]
                if len(recorded):
                    self.units[offset + c] = recorded.abs().median().clamp(min=1e-12)
            raw, observed = self._value_features(cohort, j, offset)
            for c in range(self.channels[j]):
                columns = slice(3 * c, 3 * c + 3)
                part = Standardize(3)
                part.fit(raw[..., columns][observed[..., c]])
                scales = self.values[j]
                assert isinstance(scales, Standardize)
                scales.mean[columns], scales.scale[columns] = part.mean, part.scale
            offset += self.channels[j]
        times = torch.cat(
            [cohort[name].times[_present(cohort, name)].abs() for name in self.series]
        )
        if bool((times > 0).any()):
            self.units[-1] = times[times > 0].median()
        features = [
            _time_features(cohort, n, self.units[-1])[_present(cohort, n)] for n in self.series
        ]
        self.times.fit(torch.cat(features))
        if cohort.doses is not None:
            self.doses.fit(self._dose_features(cohort)[cohort.doses.given])
        self.static.fit(self._static_features(cohort))

    def _value_features(self, cohort: Cohort, j: int, offset: int) -> tuple[Tensor, Tensor]:
        values, observed = _flat_channels(cohort, self.series[j])
        scaled = values / self.units[offset : offset + self.channels[j]]
        features = torch.stack([scaled, torch.asinh(10 * scaled), (scaled.abs() + 1e-3).log()], -1)
        return features.clamp(-100, 100).flatten(-2), observed

    def _series_tokens(self, cohort: Cohort, j: int) -> Tensor:
        offset = sum(self.channels[:j])
        raw, observed = self._value_features(cohort, j, offset)
        indicator = observed.double()
        values = self.values[j](raw) * indicator.repeat_interleave(3, -1)
        num, width = raw.shape[:2]
        before, after = 4 * offset, 4 * (sum(self.channels) - offset - self.channels[j])
        value_part = [
            raw.new_zeros(num, width, before),
            values,
            indicator,
            raw.new_zeros(num, width, after),
        ]
        label = raw.new_zeros(num, width, len(self.series))
        label[..., j] = 1.0
        times = self.times(_time_features(cohort, self.series[j], self.units[-1]))
        dose = raw.new_zeros(num, width, NUM_DOSE_FEATURES + 1 if self.has_doses else 0)
        return torch.cat([*value_part, label, times, dose], -1)

    def _dose_tokens(self, cohort: Cohort) -> Tensor:
        features = self._dose_features(cohort)
        blank = features.new_zeros(*features.shape[:2], 4 * sum(self.channels) + len(self.series))
        assert cohort.doses is not None
        clock = torch.zeros(
            *features.shape[:2], NUM_TIME_FEATURES, dtype=features.dtype, device=features.device
        )
        clock[..., 0] = cohort.doses.times / self.units[-1]
        clock[..., 1] = _log_size(clock[..., 0])
        one = torch.ones_like(features[..., :1])
        return torch.cat([blank, self.times(clock), self.doses(features), one], -1)

    def _dose_features(self, cohort: Cohort) -> Tensor:
        assert cohort.doses is not None
        amounts, durations = cohort.doses.amounts, cohort.doses.durations / self.units[-1]
        return torch.stack(
            [amounts, amounts.clamp(min=1e-12).log(), durations, cohort.doses.compartment.double()],
            -1,
        )

    def _static_features(self, cohort: Cohort) -> Tensor:
        columns = [cohort.covariates[name] for name in self.covariates]
        if self.has_doses and cohort.doses is not None:
            total = cohort.doses.amounts.sum(1)
            columns += [total.clamp(min=1e-12).log(), cohort.doses.given.double().sum(1)]
        return torch.stack(columns, -1) if columns else self.units.new_zeros(len(cohort), 0)


NUM_TIME_FEATURES = 5
NUM_DOSE_FEATURES = 4


def _channels(cohort: Cohort, name: str) -> int:
    values = cohort[name].values
    return 1 if values.dim() == 2 else values.shape[-1]


def _present(cohort: Cohort, name: str) -> Tensor:
    observed = cohort[name].observed
    return observed if observed.dim() == 2 else observed.any(-1)


def _flat_channels(cohort: Cohort, name: str) -> tuple[Tensor, Tensor]:
    s = cohort[name]
    return (
        (s.values, s.observed)
        if s.values.dim() == 3
        else (s.values.unsqueeze(-1), s.observed.unsqueeze(-1))
    )


def _log_size(x: Tensor) -> Tensor:
    return torch.asinh(20 * x)


def _time_features(cohort: Cohort, name: str, unit: Tensor) -> Tensor:
    """Time, log time, time since the last dose (linear, log), gap to the previous recorded time."""
    times, present = cohort[name].times / unit, _present(cohort, name)
    since = times
    if cohort.doses is not None:
        given = torch.where(cohort.doses.given, cohort.doses.times / unit, torch.inf)
        before = given.unsqueeze(1) <= times.unsqueeze(2)
        last = torch.where(before, given.unsqueeze(1), -torch.inf).amax(2)
        since = torch.where(last.isfinite(), times - last, times)
    seen = torch.where(present, times, -torch.inf).cummax(1).values
    previous = torch.cat([torch.full_like(seen[:, :1], -torch.inf), seen[:, :-1]], 1)
    gap = torch.where(previous.isfinite(), times - previous, torch.zeros_like(times))
    return torch.stack([times, _log_size(times), since, _log_size(since), _log_size(gap)], -1)
