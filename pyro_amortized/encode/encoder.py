r"""The interface of encoders, which turn a cohort into tokens.

An encoder holds the *form* of the cohorts (names, channels, covariates, common times) and scales
that were taken from simulated training data. The tokens of an individual are those of its series,
followed by one token for each dose. Covariates and totals of the doses are static features.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..cohort import Cohort
from ..cohort.time_grid import onto_grid
from ..networks import TokenLayout
from .cohort_form import Form, check_form
from .encoded_data import Encoded
from .standardization import Standardize
from .window_places import in_windows

SMALLEST_AMOUNT = 1e-12  # stands for a dose of amount 0 (a reset), so that its logarithm is finite


class Encoding(Protocol):
    r"""The settings of an encoding; a frozen dataclass.

    To add an encoding, write a frozen dataclass with the method :meth:`encoder`, which returns your
    subclass of :class:`Encoder`.
    """

    def encoder(self, form: Form) -> "Encoder":
        """An encoder for cohorts of a form, before :meth:`Encoder.fit`."""
        ...


class Encoder(nn.Module, ABC):
    r"""Encodes cohorts of one form.

    A subclass defines the tokens of a series (:meth:`series_tokens`), their number of features, and
    takes the scales that it needs (:meth:`fit_series`).

    Args:
        form: The form of the cohorts.
        encoding: The encoding that made this encoder.
    """

    def __init__(self, form: Form, encoding: Encoding) -> None:
        super().__init__()
        self.form, self.encoding = form, encoding
        self.units: Tensor
        self.register_buffer("units", torch.ones(sum(form.channels) + 1, dtype=torch.float64))
        self.doses = Standardize(form.num_dose_features)
        self.static = Standardize(self.num_static)

    # Defined by a subclass.

    @property
    @abstractmethod
    def num_series_features(self) -> int:
        """Number of features of a token, without those that only doses have."""

    @property
    @abstractmethod
    def num_values(self) -> int:
        """Number of the first features of a token that hold values and indicators."""

    @abstractmethod
    def series_tokens(self, cohort: Cohort, j: int) -> tuple[Tensor, Tensor]:
        r"""Tokens of one series.

        Args:
            cohort: N individuals, in float64.
            j: Number of the series in the form.

        Returns:
            Features, shape ``(individual, time, feature)``, and mask, shape ``(individual, time)``.
        """

    @abstractmethod
    def fit_series(self, cohort: Cohort) -> None:
        """Take scales from the recorded values and times of training data, in float64."""

    def dose_times(self, times: Tensor, like: Tensor) -> Tensor:
        r"""The features of a dose that tokens of series have too; here all zero.

        A subclass whose tokens have a feature of time puts the times of the doses there.

        Args:
            times: Times of the doses, shape ``(individual, dose)``.
            like: A tensor with the dtype and device of the result.

        Returns:
            Shape ``(individual, dose, feature)``.
        """
        return like.new_zeros(*times.shape, self.num_series_features)

    @property
    def num_moments(self) -> int:
        """Number of static features that :meth:`moments` adds."""
        return 0

    def moments(self, cohort: Cohort) -> Tensor:
        """Static features that are computed from the recorded values, for example sums; shape
        ``(individual, moment)``.
        """
        return self.units.new_zeros(len(cohort), 0)

    # Common to all encoders.

    @property
    def layout(self) -> TokenLayout:
        """Sizes of the tokens, from which a summary network is made."""
        has_windows = self.form.windows is not None
        return TokenLayout(
            self.num_series_features
            + (self.form.num_dose_features + 1 if self.form.has_doses else 0),
            self.num_static,
            self.form.num_places,
            self.num_series_features if has_windows else self.num_values,
            self.form.has_doses or has_windows,
        )

    @property
    def num_static(self) -> int:
        """Number of static features: covariates, three values of each covariate that varies over
        time, two totals of the doses, moments.
        """
        num_covariates = len(self.form.covariates) + 3 * len(self.form.time_varying)
        return num_covariates + (2 if self.form.has_doses else 0) + self.num_moments

    @property
    def settings(self) -> dict[str, Any]:
        """Encoding and form, from which this encoder can be made again, as JSON."""
        encoding: Any = self.encoding
        return {
            "encoding": type(encoding).__name__,
            "encoding_settings": asdict(encoding),
            **{n: x for n, x in asdict(self.form).items() if n != "categories" or x},
        }

    def fit(self, cohort: Cohort) -> "Encoder":
        """Take all scales from the recorded values of simulated training data; returns the encoder
        itself.
        """
        cohort = cohort.to(dtype=torch.float64)
        times = torch.cat(
            [cohort[name].times[cohort[name].present].abs() for name in self.form.series]
        )
        if bool((times > 0).any()):
            self.units[-1] = times[times > 0].median()
        self.fit_series(cohort)
        if cohort.doses is not None:
            self.doses.fit(self._dose_features(cohort)[cohort.doses.given])
        self.static.fit(self._static_features(cohort))
        return self

    def check(self, cohort: Cohort) -> None:
        r"""Raise unless the cohort has the form of the training data.

        Raises:
            GuideError: A series or covariate is missing, a number of channels differs, or only one
                of the cohort and the training data has doses.
        """
        check_form(cohort, self.form)

    def forward(self, cohort: Cohort) -> Encoded:
        """Encode a cohort, in float64."""
        cohort = cohort.to(dtype=torch.float64)
        if self.form.grid is not None:
            cohort = onto_grid(cohort, self.form.grid)
        encoded = [self.series_tokens(cohort, j) for j in range(len(self.form.series))]
        if self.form.windows is not None:
            encoded = self._in_windows(cohort, encoded)
        parts, masks = [tokens for tokens, _ in encoded], [mask for _, mask in encoded]
        if self.form.has_doses and cohort.doses is not None:
            # Features that only doses have: theirs, and an indicator of a dose.
            num_more = self.form.num_dose_features + 1
            parts = [torch.cat([x, x.new_zeros(*x.shape[:2], num_more)], -1) for x in parts]
            parts.append(self._dose_tokens(cohort))
            masks.append(cohort.doses.given)
        mask = torch.cat(masks, 1)
        tokens = torch.cat(parts, 1) * mask.unsqueeze(-1)
        return Encoded(tokens, mask, self.static(self._static_features(cohort)))

    def _in_windows(
        self, cohort: Cohort, encoded: Sequence[tuple[Tensor, Tensor]]
    ) -> list[tuple[Tensor, Tensor]]:
        """Tokens and mask of each window, and after them those of all further values."""
        assert self.form.windows is not None
        places, others = [], []
        for name, (tokens, mask) in zip(self.form.series, encoded, strict=True):
            edges = torch.tensor(self.form.windows[name], dtype=torch.float64).to(tokens.device)
            place, other = in_windows(cohort[name].times, edges, tokens, mask)
            places.append(place)
            others.append(other)
        return [*places, *others]

    def labels(self, cohort: Cohort, j: int) -> Tensor:
        """The series of a token as 0/1 indicators, shape ``(individual, time, series)``."""
        shape = cohort[self.form.series[j]].times.shape
        label = self.units.new_zeros(*shape, len(self.form.series))
        label[..., j] = 1.0
        return label

    def _dose_tokens(self, cohort: Cohort) -> Tensor:
        """Tokens of the doses, shape ``(individual, dose, feature)``."""
        features = self._dose_features(cohort)
        assert cohort.doses is not None
        times = self.dose_times(cohort.doses.times, features)
        return torch.cat([times, self.doses(features), torch.ones_like(features[..., :1])], -1)

    def _dose_features(self, cohort: Cohort) -> Tensor:
        """Features that only doses have, before standardization."""
        assert cohort.doses is not None
        amounts, durations = cohort.doses.amounts, cohort.doses.durations / self.units[-1]
        compartment = cohort.doses.compartment.double()
        columns = [amounts, _log_amount(amounts), durations, compartment]
        if self.form.has_events:
            columns.append(cohort.doses.intervals / self.units[-1])
            columns += [cohort.doses.steady_state.double(), cohort.doses.reset.double()]
        return torch.stack(columns, -1)

    def _static_features(self, cohort: Cohort) -> Tensor:
        """Static features before standardization, shape ``(individual, static)``."""
        columns = [cohort.covariates[name] for name in self.form.covariates]
        for name in self.form.time_varying:
            s = cohort.time_varying[name]
            values = s.at(s.times)
            columns += [values[:, 0], values.mean(1), values[:, -1]]
        if self.form.has_doses and cohort.doses is not None:
            total = cohort.doses.amounts.sum(1)
            columns += [_log_amount(total), cohort.doses.given.double().sum(1)]
        features = torch.stack(columns, -1) if columns else self.units.new_zeros(len(cohort), 0)
        return torch.cat([features, self.moments(cohort)], -1) if self.num_moments else features


def _log_amount(amounts: Tensor) -> Tensor:
    return amounts.clamp(min=SMALLEST_AMOUNT).log()
