r"""The encoding we recommend: every recorded time a token that says what, when and after what.

A token has

* per channel the value on three scales (linear, inverse hyperbolic sine for large ranges, log of
  the size), zero where the channel was not recorded, and per channel the 0/1 indicator of that;
* which series it belongs to;
* time since the start and since the last dose, linear and logarithmic, and the gap to the previous
  recorded time.

Tokens of what was not recorded, and padding, carry a mask of False. On a common grid the tokens
stand in its places, and a network over fixed places reads values and indicators alone.

Where times are individual, a network that adds up tokens reads precise times badly. So the sums
that matter are made here: with ``num_frequencies`` K, and z = exp(i pi (t - t0) / T) for the span T
of the training times, the *Fourier moments* of each channel

.. math:: \sum_j y_j z_j^k,\; k = 1..K, \qquad \sum_j z_j^k,\; k = 1..2K

over its recorded values stand among the static features. With Gaussian noise they are sufficient
statistics of every course f that K frequencies span: the likelihood needs
:math:`\sum_j y_j f(t_j)` and :math:`\sum_j f(t_j)^2`, and products of K frequencies have 2K.
"""

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
MAX_FREQUENCIES = 24
PI = 3.141592653589793


@dataclass(frozen=True)
class Tokens:
    r"""Every recorded time a token: value on three scales, indicator, series, times, gaps; and
    Fourier moments of each channel where times are individual.

    The recommended encoding, and the default. For any pattern, fixed and individual times, several
    series and channels, doses. It fails where the network that reads it is too small for the
    information in many tokens; a common grid is learned faster, and used where there is one.

    Args:
        num_frequencies: Number K of frequencies of the moments, in half cycles per span of the
            training times. Default: 0.6 per time of the longest series, at most 24, as that many
            times tell no more apart; 0 on a common grid, whose networks read places, not times.

    Raises:
        GuideError: The number is negative.
    """

    num_frequencies: int | None = None

    def __post_init__(self) -> None:
        if self.num_frequencies is not None and self.num_frequencies < 0:
            raise GuideError(
                f"Tokens with {self.num_frequencies} frequencies.",
                "0 or more.",
                "correct `num_frequencies`.",
            )

    def encoder(self, form: Form) -> "TokenEncoder":
        """The encoder for cohorts of a form."""
        num = self.num_frequencies
        default = min(MAX_FREQUENCIES, round(0.6 * form.num_times)) if form.grid is None else 0
        return TokenEncoder(form, Tokens(default if num is None else num))


class TokenEncoder(Encoder):
    """Encoder of :class:`Tokens`."""

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
        """Three scales and an indicator per channel."""
        return 4 * sum(self.form.channels)

    @property
    def num_series_features(self) -> int:
        """Values and indicators, labels, times."""
        return self.num_values + len(self.form.series) + NUM_TIME_FEATURES

    @property
    def num_moments(self) -> int:
        """Per channel K complex moments of the values and 2K of the times."""
        return 6 * self.num_frequencies * sum(self.form.channels)

    def series_tokens(self, cohort: Cohort, j: int) -> tuple[Tensor, Tensor]:
        """Features and mask of series number j."""
        name, channels = self.form.series[j], self.form.channels
        offset = sum(channels[:j])
        raw, observed = self._value_features(cohort, j)
        indicator = observed.double()
        values = self.values[j](raw) * indicator.repeat_interleave(3, -1)
        num, width = raw.shape[:2]
        after = sum(channels) - offset - channels[j]
        parts = [raw.new_zeros(num, width, 4 * offset), values, indicator]
        parts += [raw.new_zeros(num, width, 4 * after), self.labels(cohort, j)]
        parts.append(self.times(_time_features(cohort, name, self.units[-1])))
        return torch.cat(parts, -1), cohort[name].present

    def dose_times(self, times: Tensor, like: Tensor) -> Tensor:
        """A dose has its time, linear and logarithmic."""
        clock = like.new_zeros(*times.shape, NUM_TIME_FEATURES)
        clock[..., 0] = times / self.units[-1]
        clock[..., 1] = _log_size(clock[..., 0])
        blank = like.new_zeros(*times.shape, self.num_values + len(self.form.series))
        return torch.cat([blank, self.times(clock)], -1)

    def moments(self, cohort: Cohort) -> Tensor:
        """Fourier moments of the recorded values and times of each channel."""
        found = []
        for j, name in enumerate(self.form.series):
            raw, observed = self._value_features(cohort, j)
            values = self.values[j](raw)[..., ::3] * observed
            seen = observed.to(torch.complex128)
            phase = (cohort[name].times - self.span[0]) / self.span[1] * PI
            step = torch.polar(torch.ones_like(phase), phase)
            power = step
            for k in range(1, 2 * self.num_frequencies + 1):
                found.append(torch.einsum("nt,ntc->nc", power, seen))
                if k <= self.num_frequencies:
                    found.append(torch.einsum("nt,ntc->nc", power, values.to(power.dtype)))
                power = power * step
        return torch.view_as_real(torch.cat(found, -1)).flatten(1)

    def fit_series(self, cohort: Cohort) -> None:
        """Scales of values and times."""
        for j, name in enumerate(self.form.series):
            values, observed = by_channel(cohort, name)
            offset = sum(self.form.channels[:j])
            for c in range(self.form.channels[j]):
                recorded = values[..., c][observed[..., c]]
                if len(recorded):
                    self.units[offset + c] = recorded.abs().median().clamp(min=1e-12)
            raw, observed = self._value_features(cohort, j)
            for c in range(self.form.channels[j]):
                columns = slice(3 * c, 3 * c + 3)
                part = Standardize(3)
                part.fit(raw[..., columns][observed[..., c]])
                scales = self.values[j]
                assert isinstance(scales, Standardize)
                scales.mean[columns], scales.scale[columns] = part.mean, part.scale
        names = self.form.series
        features = [_time_features(cohort, n, self.units[-1])[cohort[n].present] for n in names]
        self.times.fit(torch.cat(features))
        if self.num_frequencies:
            times = torch.cat([cohort[n].times[cohort[n].present] for n in names])
            if len(times):
                length = (times.max() - times.min()).clamp(min=1e-12)
                self.span.copy_(torch.stack([times.min(), length]))

    def _value_features(self, cohort: Cohort, j: int) -> tuple[Tensor, Tensor]:
        offset = sum(self.form.channels[:j])
        values, observed = by_channel(cohort, self.form.series[j])
        scaled = values / self.units[offset : offset + self.form.channels[j]]
        features = torch.stack([scaled, torch.asinh(10 * scaled), (scaled.abs() + 1e-3).log()], -1)
        return features.clamp(-100, 100).flatten(-2), observed


def _log_size(x: Tensor) -> Tensor:
    return torch.asinh(20 * x)


def _time_features(cohort: Cohort, name: str, unit: Tensor) -> Tensor:
    """Time, log time, time since the last dose (linear, log), gap to the previous recorded time."""
    times, recorded = cohort[name].times / unit, cohort[name].present
    since = times
    if cohort.doses is not None:
        given = torch.where(cohort.doses.given, cohort.doses.times / unit, torch.inf)
        before = given.unsqueeze(1) <= times.unsqueeze(2)
        last = torch.where(before, given.unsqueeze(1), -torch.inf).amax(2)
        since = torch.where(last.isfinite(), times - last, times)
    seen = torch.where(recorded, times, -torch.inf).cummax(1).values
    previous = torch.cat([torch.full_like(seen[:, :1], -torch.inf), seen[:, :-1]], 1)
    gap = torch.where(previous.isfinite(), times - previous, torch.zeros_like(times))
    return torch.stack([times, _log_size(times), since, _log_size(since), _log_size(gap)], -1)
