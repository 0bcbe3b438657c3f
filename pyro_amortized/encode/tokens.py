r"""The recommended encoding: one token for every recorded time.

The features of a token are

* for every channel the value on three scales (linear, inverse hyperbolic sine for large ranges, and
  the logarithm of the absolute value), zero where the channel was not recorded, and a 0/1 indicator
  of whether it was;
* the series of the token, as 0/1 indicators;
* the time since the start and the time since the last dose, both linear and logarithmic, and the
  logarithm of the gap to the previous recorded time.

The mask is False for tokens of values that were not recorded and for padding. On a common grid the
tokens have the order of the grid, and a network for fixed places reads only values and indicators.

If the times are individual, a network that sums over tokens reads precise times badly. The sums
that matter are therefore computed here. With K = ``num_frequencies``, the time t of a token, the
first training time :math:`t_0` and the span T of the training times, let
:math:`z = \exp(i \pi (t - t_0) / T)`. The *Fourier moments* of each channel

.. math:: \sum_j y_j z_j^k,\; k = 1..K, \qquad \sum_j z_j^k,\; k = 1..2K

over its recorded values are static features. With Gaussian noise they are sufficient statistics of
every function f of time that K frequencies span: the likelihood depends on the data by
:math:`\sum_j y_j f(t_j)` and :math:`\sum_j f(t_j)^2`, and a product of two such functions has 2K
frequencies.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..cohort import Cohort
from ..errors import GuideError
from .channels import by_channel
from .cohort_form import Form
from .encoder import Encoder
from .standardization import Standardize

NUM_TIME_FEATURES = 5


@dataclass(frozen=True)
class TokenSettings:
    r"""Scales of the features, and the default number of frequencies.

    Args:
        frequencies_per_time: Frequencies per time of the longest series. With many more the network
            learns noise: for 11 times per individual, 8 frequencies gave a loss on new data of
            -0.248, and 24 gave -0.138.
        max_frequencies: Largest default number of frequencies, so that the number of static
            features stays below 150 per channel.
        asinh_slope: Slope at 0 of the inverse hyperbolic sine of a value, in units of the median
            absolute value: it is linear below a tenth of the median and logarithmic above.
        log_offset: Added to an absolute value before its logarithm, in the same unit, so that a
            value of 0 has a finite one.
        largest_feature: Largest absolute value of the features of a value.
        log_time_slope: Slope at 0 of the logarithmic time, in units of the median time: it is
            linear below a twentieth of the median and logarithmic above.
        smallest_unit: Smallest median and smallest span that are divided by.
    """

    frequencies_per_time: float = 0.6
    max_frequencies: int = 24
    asinh_slope: float = 10.0
    log_offset: float = 1e-3
    largest_feature: float = 100.0
    log_time_slope: float = 20.0
    smallest_unit: float = 1e-12


DEFAULTS = TokenSettings()


@dataclass(frozen=True)
class Tokens:
    r"""One token for every recorded time, and Fourier moments of each channel if the times are
    individual. This is the recommended encoding and the default.

    The features of a token are the value on three scales, the indicator, the series, and times. The
    encoding accepts any pattern of missing values, common and individual times, several series and
    channels, and doses. It fails where the network is too small for the information in many
    tokens. A common grid is learned faster and is used if there is one.

    Args:
        num_frequencies: Number K of frequencies of the moments, in half cycles per span of the
            training times. Default: 0.6 per time of the longest series, at most 24, because a
            series determines no more frequencies than that; 0 on a common grid, where a network
            reads fixed places and needs no times.

    Raises:
        GuideError: ``num_frequencies`` is negative.
    """

    num_frequencies: int | None = None

    def __post_init__(self) -> None:
        if self.num_frequencies is not None and self.num_frequencies < 0:
            raise GuideError(
                f"`num_frequencies` is {self.num_frequencies}.",
                "0 or more frequencies.",
                "correct `num_frequencies`.",
            )

    def encoder(self, form: Form) -> "TokenEncoder":
        """The encoder for cohorts of a form."""
        num = self.num_frequencies
        if num is None:
            proposed = round(DEFAULTS.frequencies_per_time * form.num_times)
            num = min(DEFAULTS.max_frequencies, proposed) if form.grid is None else 0
        return TokenEncoder(form, Tokens(num))


class TokenEncoder(Encoder):
    r"""Encoder of :class:`Tokens`.

    Args:
        form: The form of the cohorts.
        encoding: The encoding; ``num_frequencies`` None counts as 0.
    """

    def __init__(self, form: Form, encoding: Tokens) -> None:
        super().__init__(form, encoding)
        self.values = nn.ModuleList(Standardize(3 * n) for n in form.channels)
        self.times = Standardize(NUM_TIME_FEATURES)
        if self.num_frequencies:
            self.span: Tensor
            self.register_buffer("span", torch.tensor([0.0, 1.0], dtype=torch.float64))

    @property
    def num_frequencies(self) -> int:
        """Number of frequencies of the moments."""
        assert isinstance(self.encoding, Tokens)
        return self.encoding.num_frequencies or 0

    @property
    def num_values(self) -> int:
        """Number of values and indicators: three scales and an indicator for every channel."""
        return 4 * sum(self.form.channels)

    @property
    def num_series_features(self) -> int:
        """Number of values, indicators, labels of the series and times."""
        return self.num_values + len(self.form.series) + NUM_TIME_FEATURES

    @property
    def num_moments(self) -> int:
        """Number of moments: K complex ones of the values and 2K of the times for every channel."""
        return 6 * self.num_frequencies * sum(self.form.channels)

    def series_tokens(self, cohort: Cohort, j: int) -> tuple[Tensor, Tensor]:
        """Features and mask of series number j."""
        name, channels = self.form.series[j], self.form.channels
        raw, observed = self._value_features(cohort, j)
        indicator = observed.double()
        values = self.values[j](raw) * indicator.repeat_interleave(3, -1)
        num, width = raw.shape[:2]
        before, after = sum(channels[:j]), sum(channels[j + 1 :])
        parts = [raw.new_zeros(num, width, 4 * before), values, indicator]
        parts += [raw.new_zeros(num, width, 4 * after), self.labels(cohort, j)]
        parts.append(self.times(_time_features(cohort, name, self.units[-1])))
        return torch.cat(parts, -1), cohort[name].present

    def dose_times(self, times: Tensor, like: Tensor) -> Tensor:
        """The time of a dose, linear and logarithmic, in the features of the times of values."""
        features = like.new_zeros(*times.shape, NUM_TIME_FEATURES)
        features[..., 0] = times / self.units[-1]
        features[..., 1] = _log_time(features[..., 0])
        others = like.new_zeros(*times.shape, self.num_values + len(self.form.series))
        return torch.cat([others, self.times(features)], -1)

    def moments(self, cohort: Cohort) -> Tensor:
        """Fourier moments of the recorded values and times of each channel."""
        moments = []
        for j, name in enumerate(self.form.series):
            raw, observed = self._value_features(cohort, j)
            values = self.values[j](raw)[..., ::3] * observed
            indicator = observed.to(torch.complex128)
            phase = (cohort[name].times - self.span[0]) / self.span[1] * math.pi
            step = torch.polar(torch.ones_like(phase), phase)
            power = step
            for k in range(1, 2 * self.num_frequencies + 1):
                moments.append(torch.einsum("nt,ntc->nc", power, indicator))
                if k <= self.num_frequencies:
                    moments.append(torch.einsum("nt,ntc->nc", power, values.to(power.dtype)))
                power = power * step
        return torch.view_as_real(torch.cat(moments, -1)).flatten(1)

    def fit_series(self, cohort: Cohort) -> None:
        """Take the scales of values and times."""
        for j in range(len(self.form.series)):
            self._fit_values(cohort, j)
        names = self.form.series
        features = [_time_features(cohort, n, self.units[-1])[cohort[n].present] for n in names]
        self.times.fit(torch.cat(features))
        if self.num_frequencies:
            times = torch.cat([cohort[n].times[cohort[n].present] for n in names])
            if len(times):
                length = (times.max() - times.min()).clamp(min=DEFAULTS.smallest_unit)
                self.span.copy_(torch.stack([times.min(), length]))

    def _fit_values(self, cohort: Cohort, j: int) -> None:
        """Take the unit of every channel of series number j, and the scales of its features."""
        values, observed = by_channel(cohort, self.form.series[j])
        first = sum(self.form.channels[:j])
        for c in range(self.form.channels[j]):
            recorded = values[..., c][observed[..., c]]
            if len(recorded):
                unit = recorded.abs().median().clamp(min=DEFAULTS.smallest_unit)
                self.units[first + c] = unit
        features, observed = self._value_features(cohort, j)
        scales = self.values[j]
        assert isinstance(scales, Standardize)
        for c in range(self.form.channels[j]):
            scales.fit_columns(3 * c, features[..., 3 * c : 3 * c + 3][observed[..., c]])

    def _value_features(self, cohort: Cohort, j: int) -> tuple[Tensor, Tensor]:
        """Values of a series on three scales, before standardization, and their mask."""
        first = sum(self.form.channels[:j])
        values, observed = by_channel(cohort, self.form.series[j])
        scaled = values / self.units[first : first + self.form.channels[j]]
        asinh = torch.asinh(DEFAULTS.asinh_slope * scaled)
        log = (scaled.abs() + DEFAULTS.log_offset).log()
        largest = DEFAULTS.largest_feature
        features = torch.stack([scaled, asinh, log], -1).clamp(-largest, largest)
        return features.flatten(-2), observed


def _log_time(time: Tensor) -> Tensor:
    """Time on a logarithmic scale that is defined at 0 and for negative times."""
    return torch.asinh(DEFAULTS.log_time_slope * time)


def _time_features(cohort: Cohort, name: str, unit: Tensor) -> Tensor:
    """Time and time since the last dose, both linear and logarithmic, and the logarithmic gap to
    the previous recorded time; shape ``(individual, time, feature)``.
    """
    times, recorded = cohort[name].times / unit, cohort[name].present
    since = times
    if cohort.doses is not None:
        given = torch.where(cohort.doses.given, cohort.doses.times / unit, torch.inf)
        before = given.unsqueeze(1) <= times.unsqueeze(2)
        last = torch.where(before, given.unsqueeze(1), -torch.inf).amax(2)
        since = torch.where(last.isfinite(), times - last, times)
    latest = torch.where(recorded, times, -torch.inf).cummax(1).values
    previous = torch.cat([torch.full_like(latest[:, :1], -torch.inf), latest[:, :-1]], 1)
    gap = torch.where(previous.isfinite(), times - previous, torch.zeros_like(times))
    return torch.stack([times, _log_time(times), since, _log_time(since), _log_time(gap)], -1)
