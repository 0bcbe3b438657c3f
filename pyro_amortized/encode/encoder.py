r"""The interface of encoders: a cohort goes in, tokens come out.

An encoder knows the *form* of the cohorts (names, channels, covariates, common times) and scales
that it took from simulated training data. Its tokens are those of the series, then one per dose;
covariates and dose totals are static.
"""

from abc import ABC, abstractmethod
from dataclasses import asdict
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..cohort import Cohort
from ..cohort.time_grid import onto_grid
from ..errors import GuideError
from ..networks import TokenLayout
from .channels import num_channels
from .cohort_form import Form
from .encoded_data import Encoded
from .standardization import Standardize


class Encoding(Protocol):
    r"""A choice of how incomplete data become numbers; a frozen dataclass.

    Your own: a dataclass with :meth:`encoder`, which returns an :class:`Encoder` of your own.
    """

    def encoder(self, form: Form) -> "Encoder":
        """An encoder for cohorts of a form, its scales still to be fitted."""
        ...


class Encoder(nn.Module, ABC):
    r"""Encodes cohorts of one form.

    A child gives the tokens of a series (:meth:`series_tokens`), their number of features, and fits
    the scales it needs (:meth:`fit_series`).

    Args:
        form: What the cohorts look like.
        encoding: The encoding that made this encoder.
    """

    def __init__(self, form: Form, encoding: Encoding) -> None:
        super().__init__()
        self.form, self.encoding = form, encoding
        self.units: Tensor
        self.register_buffer("units", torch.ones(sum(form.channels) + 1, dtype=torch.float64))
        self.doses = Standardize(form.num_dose_features)
        self.static = Standardize(self.num_static)

    # What a child defines.

    @property
    @abstractmethod
    def num_series_features(self) -> int:
        """Number of features of a token, without those of doses."""

    @property
    @abstractmethod
    def num_values(self) -> int:
        """Leading features of a token that hold values and indicators."""

    @abstractmethod
    def series_tokens(self, cohort: Cohort, j: int) -> tuple[Tensor, Tensor]:
        """Features and mask of series number j, shapes ``(individual, time, feature)`` and
        ``(individual, time)``.
        """

    @abstractmethod
    def fit_series(self, cohort: Cohort) -> None:
        """Take scales from the recorded values and times of training data, in float64."""

    def dose_times(self, times: Tensor, like: Tensor) -> Tensor:
        """Series features of a dose, shape ``(individual, dose, feature)``: its time, if there is
        one.
        """
        return like.new_zeros(*times.shape, self.num_series_features)

    @property
    def num_moments(self) -> int:
        """Number of static features that :meth:`moments` adds."""
        return 0

    def moments(self, cohort: Cohort) -> Tensor:
        """Features of whole individuals, shape ``(individual, moment)``, for instance sums over
        their recorded values.
        """
        return self.units.new_zeros(len(cohort), 0)

    # What all share.

    @property
    def layout(self) -> TokenLayout:
        """What a summary network must know of the tokens."""
        return TokenLayout(
            self.num_series_features
            + (self.form.num_dose_features + 1 if self.form.has_doses else 0),
            self.num_static,
            self.form.num_places,
            self.num_values,
            self.form.has_doses,
        )

    @property
    def num_static(self) -> int:
        """Number of static features: covariates, three values of those that vary over time, two
        totals of the doses, moments.
        """
        known = len(self.form.covariates) + 3 * len(self.form.time_varying)
        return known + (2 if self.form.has_doses else 0) + self.num_moments

    @property
    def settings(self) -> dict[str, Any]:
        """What makes this encoder again, as JSON."""
        encoding: Any = self.encoding
        return {
            "encoding": type(encoding).__name__,
            "encoding_settings": asdict(encoding),
            **asdict(self.form),
        }

    def fit(self, cohort: Cohort) -> "Encoder":
        """Take all scales from simulated training data; recorded values only."""
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
        r"""Raise unless the cohort has what the encoder reads.

        Raises:
            GuideError: A series or covariate is missing, a number of channels differs, or doses
                appear or lack.
        """
        form = self.form
        found = {
            "series": {n: num_channels(cohort, n) for n in form.series if n in cohort},
            "covariates": sorted(set(cohort.covariates) & set(form.covariates)),
            "time-varying covariates": sorted(set(cohort.time_varying) & set(form.time_varying)),
            "doses": cohort.doses is not None,
        }
        wanted = {
            "series": dict(zip(form.series, form.channels, strict=True)),
            "covariates": sorted(form.covariates),
            "time-varying covariates": sorted(form.time_varying),
            "doses": form.has_doses,
        }
        for what, expected in wanted.items():
            if found[what] != expected:
                raise GuideError(
                    f"The cohort has {what} {found[what]}.",
                    f"{what} {expected}, as in the training data of the guide.",
                    "bring the cohort into the form of the training data, or train a guide for "
                    "this cohort.",
                )

    def forward(self, cohort: Cohort) -> Encoded:
        """Encode a cohort, in float64."""
        cohort = cohort.to(dtype=torch.float64)
        if self.form.grid is not None:
            cohort = onto_grid(cohort, self.form.grid)
        found = [self.series_tokens(cohort, j) for j in range(len(self.form.series))]
        parts, masks = [tokens for tokens, _ in found], [mask for _, mask in found]
        if self.form.has_doses and cohort.doses is not None:
            blank = self.form.num_dose_features + 1
            parts = [torch.cat([x, x.new_zeros(*x.shape[:2], blank)], -1) for x in parts]
            parts.append(self._dose_tokens(cohort))
            masks.append(cohort.doses.given)
        mask = torch.cat(masks, 1)
        tokens = torch.cat(parts, 1) * mask.unsqueeze(-1)
        return Encoded(tokens, mask, self.static(self._static_features(cohort)))

    def labels(self, cohort: Cohort, j: int) -> Tensor:
        """Which series a token belongs to, shape ``(individual, time, series)``."""
        shape = cohort[self.form.series[j]].times.shape
        label = self.units.new_zeros(*shape, len(self.form.series))
        label[..., j] = 1.0
        return label

    def _dose_tokens(self, cohort: Cohort) -> Tensor:
        features = self._dose_features(cohort)
        assert cohort.doses is not None
        clock = self.dose_times(cohort.doses.times, features)
        return torch.cat([clock, self.doses(features), torch.ones_like(features[..., :1])], -1)

    def _dose_features(self, cohort: Cohort) -> Tensor:
        assert cohort.doses is not None
        amounts, durations = cohort.doses.amounts, cohort.doses.durations / self.units[-1]
        compartment = cohort.doses.compartment.double()
        columns = [amounts, amounts.clamp(min=1e-12).log(), durations, compartment]
        if self.form.has_events:
            columns.append(cohort.doses.intervals / self.units[-1])
            columns += [cohort.doses.steady_state.double(), cohort.doses.reset.double()]
        return torch.stack(columns, -1)

    def _static_features(self, cohort: Cohort) -> Tensor:
        columns = [cohort.covariates[name] for name in self.form.covariates]
        for name in self.form.time_varying:
            s = cohort.time_varying[name]
            filled = s.at(s.times)
            columns += [filled[:, 0], filled.mean(1), filled[:, -1]]
        if self.form.has_doses and cohort.doses is not None:
            total = cohort.doses.amounts.sum(1)
            columns += [total.clamp(min=1e-12).log(), cohort.doses.given.double().sum(1)]
        known = torch.stack(columns, -1) if columns else self.units.new_zeros(len(cohort), 0)
        return torch.cat([known, self.moments(cohort)], -1) if self.num_moments else known
