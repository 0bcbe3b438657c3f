r"""The encodings of the missing-data literature, with what each cannot tell apart.

All of them standardise by recorded values only. They are here to compare with, and for networks
that know no masks; :class:`~pyro_amortized.encode.Tokens` is what we recommend.

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
    r"""A constant in place of what was not recorded; nothing says that it is one.

    Needs a common time grid. **Fails** where the constant could be a recorded value: the network
    cannot tell them apart, and its answer is an average over both. Rank statistics hardly see it.

    Args:
        value: The constant, in the unit of the data.
    """

    value: float

    def encoder(self, form: Form) -> "PublishedEncoder":
        """The encoder for cohorts of a form."""
        return PublishedEncoder(form, self, fill=self.value, has_indicator=False)


@dataclass(frozen=True)
class Indicator:
    r"""A constant in place of what was not recorded, and per channel a 0/1 indicator beside it.

    Needs a common time grid. Right for every pattern, whatever the constant. **Fails** on
    individual times, which have no places.

    Args:
        fill: The constant, in the unit of the data.
    """

    fill: float = 0.0

    def encoder(self, form: Form) -> "PublishedEncoder":
        """The encoder for cohorts of a form."""
        return PublishedEncoder(form, self, fill=self.fill, has_indicator=True)


@dataclass(frozen=True)
class TimeLabels:
    r"""The recorded values with their times, as a sequence of varying length.

    For any times. Right in principle; **fails** in practice where the answer depends on precise
    times, which a network reads badly from one number (use
    :class:`~pyro_amortized.encode.Tokens`), and where some channels of a time were not recorded:
    they count as average.

    Args:
        normalise: Divide times by the largest of the training data; without it they are in the unit
            of the data.
    """

    normalise: bool = False

    def encoder(self, form: Form) -> "PublishedEncoder":
        """The encoder for cohorts of a form."""
        unit = "span" if self.normalise else "data"
        return PublishedEncoder(form, self, time_unit=unit)


@dataclass(frozen=True)
class Deletion:
    """The recorded values in their order, as a sequence of varying length without times.

    Right only where what was recorded is the beginning of a common time grid. **Fails** everywhere
    else: which values were left out is lost.
    """

    def encoder(self, form: Form) -> "PublishedEncoder":
        """The encoder for cohorts of a form."""
        return PublishedEncoder(form, self)


class PublishedEncoder(Encoder):
    r"""Encoder of the published encodings.

    Args:
        form: What the cohorts look like.
        encoding: The encoding.
        fill: What stands for a value that was not recorded, or None to leave the token out.
        has_indicator: Whether a 0/1 indicator stands beside each value.
        time_unit: ``"data"`` or ``"span"`` (the largest time) for a feature of time, None for none.

    Raises:
        GuideError: Filling in on individual times.
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
                f"{type(encoding).__name__} for individuals with times of their own.",
                "a time grid that all individuals share, in whose places to fill in.",
                "use the encoding Tokens, or a design with common times.",
            )
        self.fill, self.has_indicator, self.time_unit = fill, has_indicator, time_unit
        self.values = nn.ModuleList(Standardize(n) for n in form.channels)
        self.longest: Tensor
        self.register_buffer("longest", torch.ones((), dtype=torch.float64))

    @property
    def num_values(self) -> int:
        """A value per channel, and its indicator."""
        return sum(self.form.channels) * (2 if self.has_indicator else 1)

    @property
    def num_series_features(self) -> int:
        """Values and indicators, labels of several series, time."""
        labels = len(self.form.series) if len(self.form.series) > 1 else 0
        return self.num_values + labels + (self.time_unit is not None)

    def series_tokens(self, cohort: Cohort, j: int) -> tuple[Tensor, Tensor]:
        """Features and mask of series number j."""
        name, channels = self.form.series[j], self.form.channels
        values, observed = by_channel(cohort, name)
        scaled = self.values[j](values)
        if self.fill is None:
            scaled = scaled * observed
            there = cohort[name].present
        else:
            scaled = torch.where(observed, scaled, self.values[j](values.new_tensor(self.fill)))
            there = torch.ones_like(cohort[name].present)
        own = torch.cat([scaled, observed.double()], -1) if self.has_indicator else scaled
        size = own.shape[-1] // channels[j]
        before, after = sum(channels[:j]), sum(channels[j + 1 :])
        parts = [own.new_zeros(*own.shape[:2], before * size), own]
        parts.append(own.new_zeros(*own.shape[:2], after * size))
        if len(self.form.series) > 1:
            parts.append(self.labels(cohort, j))
        if self.time_unit is not None:
            parts.append(self._clock(cohort[name].times).unsqueeze(-1))
        return torch.cat(parts, -1), there

    def dose_times(self, times: Tensor, like: Tensor) -> Tensor:
        """A dose has its time where values have theirs."""
        found = super().dose_times(times, like)
        if self.time_unit is not None:
            found[..., -1] = self._clock(times)
        return found

    def fit_series(self, cohort: Cohort) -> None:
        """Mean and scale of the recorded values, and the largest time."""
        for j, name in enumerate(self.form.series):
            values, observed = by_channel(cohort, name)
            scales = self.values[j]
            assert isinstance(scales, Standardize)
            for c in range(self.form.channels[j]):
                part = Standardize(1)
                part.fit(values[..., c][observed[..., c]].unsqueeze(-1))
                scales.mean[c], scales.scale[c] = part.mean[0], part.scale[0]
            self.longest = torch.maximum(self.longest, cohort[name].times.abs().max())

    def _clock(self, times: Tensor) -> Tensor:
        return times / self.longest if self.time_unit == "span" else times
