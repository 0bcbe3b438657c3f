r"""Baseline encodings from the literature on missing data.

Each of them has cases that it cannot distinguish, which its docstring names. They serve for
comparisons, and for networks that do not accept a mask. The recommended encoding is
:class:`~pyro_amortized.encode.Tokens`. All scales are taken from recorded values only.

References:
    Wang, Hasenauer and Schälte (2024), Missing data in amortized simulation-based neural posterior
    estimation.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..cohort import Cohort
from ..errors import GuideError
from .channels import by_channel
from .cohort_form import Form
from .encoder import Encoder, Encoding
from .standardization import Standardize


@dataclass(frozen=True)
class FillIn:
    r"""A constant in place of a value that was not recorded.

    It needs a common time grid. **It fails** where the constant could also be a recorded value. The
    network cannot distinguish the two, and its answer is an average over both cases. Rank
    statistics of a calibration hardly show this error.

    Args:
        value: The constant, in the unit of the data.
    """

    value: float

    def encoder(self, form: Form) -> "BaselineEncoder":
        """The encoder for cohorts of a form."""
        return BaselineEncoder(form, self, fill=self.value, has_indicator=False)


@dataclass(frozen=True)
class Indicator:
    r"""A constant in place of a value that was not recorded, and for every channel a 0/1 indicator
    of what was recorded.

    It needs a common time grid. It is correct for every pattern of missing values and every
    constant. **It fails** for individual times, which have no fixed places.

    Args:
        fill: The constant, in the unit of the data.
    """

    fill: float = 0.0

    def encoder(self, form: Form) -> "BaselineEncoder":
        """The encoder for cohorts of a form."""
        return BaselineEncoder(form, self, fill=self.fill, has_indicator=True)


@dataclass(frozen=True)
class TimeLabels:
    r"""The recorded values with their times, as a sequence of varying length.

    It accepts any times and is correct in principle. **It fails** in practice where the answer
    depends on precise times, which a network reads badly from a single number (use
    :class:`~pyro_amortized.encode.Tokens`). It also fails where only some channels of a time were
    recorded: the others are encoded as an average value.

    Args:
        normalise: Divide times by the largest one of the training data. Otherwise they are in the
            unit of the data.
    """

    normalise: bool = False

    def encoder(self, form: Form) -> "BaselineEncoder":
        """The encoder for cohorts of a form."""
        unit = "span" if self.normalise else "data"
        return BaselineEncoder(form, self, time_unit=unit)


@dataclass(frozen=True)
class Deletion:
    """The recorded values in their order, as a sequence of varying length without times.

    It is correct only if the recorded values are the first ones of a common time grid. **It fails**
    everywhere else, because it does not contain which values are missing.
    """

    def encoder(self, form: Form) -> "BaselineEncoder":
        """The encoder for cohorts of a form."""
        return BaselineEncoder(form, self)


class BaselineEncoder(Encoder):
    r"""Encoder of the baseline encodings.

    Args:
        form: The form of the cohorts.
        encoding: The encoding.
        fill: Constant in place of a value that was not recorded, in the unit of the data, or None
            for no token at such a time.
        has_indicator: Whether a 0/1 indicator follows each value.
        time_unit: Unit of the feature of time: ``"data"``, ``"span"`` (the largest time of the
            training data), or None for no such feature.

    Raises:
        GuideError: ``fill`` is given and the times are individual.
    """

    def __init__(
        self,
        form: Form,
        encoding: Encoding,
        *,
        fill: float | None = None,
        has_indicator: bool = False,
        time_unit: str | None = None,
    ) -> None:
        super().__init__(form, encoding)
        if fill is not None and form.grid is None:
            raise GuideError(
                f"The encoding {type(encoding).__name__} was chosen for individual times.",
                "a time grid that all individuals share.",
                "use the encoding Tokens, or a design whose individuals share their times.",
            )
        self.fill, self.has_indicator, self.time_unit = fill, has_indicator, time_unit
        self.values = nn.ModuleList(Standardize(n) for n in form.channels)
        self.longest: Tensor
        self.register_buffer("longest", torch.ones((), dtype=torch.float64))

    @property
    def num_values(self) -> int:
        """Number of values and indicators of a token."""
        return sum(self.form.channels) * (2 if self.has_indicator else 1)

    @property
    def num_series_features(self) -> int:
        """Number of values, indicators, labels (if there are several series) and times."""
        labels = len(self.form.series) if len(self.form.series) > 1 else 0
        return self.num_values + labels + (self.time_unit is not None)

    def series_tokens(self, cohort: Cohort, j: int) -> tuple[Tensor, Tensor]:
        """Features and mask of series number j."""
        name, channels = self.form.series[j], self.form.channels
        values, observed = by_channel(cohort, name)
        scaled = self.values[j](values)
        if self.fill is None:
            scaled = scaled * observed
            mask = cohort[name].present
        else:
            scaled = torch.where(observed, scaled, self.values[j](values.new_tensor(self.fill)))
            mask = torch.ones_like(cohort[name].present)
        own = torch.cat([scaled, observed.double()], -1) if self.has_indicator else scaled
        size = own.shape[-1] // channels[j]
        before, after = sum(channels[:j]), sum(channels[j + 1 :])
        parts = [own.new_zeros(*own.shape[:2], before * size), own]
        parts.append(own.new_zeros(*own.shape[:2], after * size))
        if len(self.form.series) > 1:
            parts.append(self.labels(cohort, j))
        if self.time_unit is not None:
            parts.append(self._in_time_unit(cohort[name].times).unsqueeze(-1))
        return torch.cat(parts, -1), mask

    def dose_times(self, times: Tensor, like: Tensor) -> Tensor:
        """The time of a dose, in the feature that holds the time of a value."""
        features = super().dose_times(times, like)
        if self.time_unit is not None:
            features[..., -1] = self._in_time_unit(times)
        return features

    def fit_series(self, cohort: Cohort) -> None:
        """Take mean and scale of the recorded values, and the largest time."""
        for j, name in enumerate(self.form.series):
            values, observed = by_channel(cohort, name)
            scales = self.values[j]
            assert isinstance(scales, Standardize)
            for c in range(self.form.channels[j]):
                scales.fit_columns(c, values[..., c][observed[..., c]].unsqueeze(-1))
            self.longest = torch.maximum(self.longest, cohort[name].times.abs().max())

    def _in_time_unit(self, times: Tensor) -> Tensor:
        return times / self.longest if self.time_unit == "span" else times
