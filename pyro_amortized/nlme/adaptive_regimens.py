r"""Adaptive regimens: what was measured so far decides the next dose.

The rule of an :class:`AdaptiveRegimen` is a function of a :class:`Measured` value and returns the
next amount of every individual. It sees what a clinician would see: values with residual error,
at the limit of quantification where they are below it, and the doses that were given.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ..errors import SettingError
from ..runtime.arguments import check_is
from .regimens import Regimen


@dataclass(frozen=True, eq=False)
class Measured:
    r"""What is known of N individuals when a dose is due.

    Args:
        time: Time of the dose that is due, counted from the begin of the regimen.
        times: Times of the samples so far, shape ``(sample,)``.
        values: Measured values, shape ``(individual, sample)``.
        dose_times: Times of the doses so far, shape ``(dose,)``.
        amounts: Their amounts, shape ``(individual, dose)``.
        covariates: Covariates, shape ``(individual,)`` each.
    """

    time: float
    times: Tensor
    values: Tensor
    dose_times: Tensor
    amounts: Tensor
    covariates: Mapping[str, Tensor]

    @property
    def last(self) -> Tensor:
        """The last measured value, shape ``(individual,)``."""
        return self.values[:, -1]

    @property
    def last_amount(self) -> Tensor:
        """The amount of the last dose, shape ``(individual,)``."""
        return self.amounts[:, -1]


Rule = Callable[[Measured], Tensor]


@dataclass(frozen=True)
class AdaptiveRegimen:
    r"""A regimen whose amounts a rule decides. Made by :func:`adaptive`.

    Args:
        plan: The times of the doses, and the amounts until the first sample.
        rule: The next amount of every individual, shape ``(individual,)``, given what was measured.
        samples: Times of the samples, increasing.
    """

    plan: Regimen
    rule: Rule
    samples: tuple[float, ...]

    @property
    def label(self) -> str:
        """The regimen in a few words."""
        return f"adaptive from {self.plan.label}"


def adaptive(plan: Regimen, rule: Rule, *, samples: Sequence[float]) -> AdaptiveRegimen:
    r"""A regimen whose amounts follow from what was measured so far.

    Args:
        plan: The times of all doses, and the amounts of those before the first sample.
        rule: Called before every dose since whose predecessor there was a sample, in time order;
            takes a :class:`Measured` and returns the next amounts, shape ``(individual,)``. Doses
            without new samples repeat the last amount.
        samples: Times of the samples, counted from the begin of the regimen. A sample at the time
            of a dose is taken before it.

    Raises:
        SettingError: The samples do not increase, or none lies before the last dose.

    Example:
        >>> def rule(measured):
        ...     low = measured.last < 10.0
        ...     return torch.where(low, 1.5 * measured.last_amount, measured.last_amount)
        >>> from pyro_amortized import nlme
        >>> adaptive(nlme.regimen(100, 24, 5), rule, samples=[24, 72]).label
        'adaptive from 100 every 24, 5 doses'
    """
    check_is("plan", plan, Regimen, "pass what `nlme.regimen` gives.")
    if not callable(rule):
        check_is("rule", rule, type(adaptive), "pass a function of what was measured.")
    times = tuple(float(t) for t in samples)
    increasing = all(a < b for a, b in pairwise(times))
    if not times or not increasing or times[0] > max(plan.times):
        raise SettingError(
            f"`samples` is {list(samples)}; the last dose is at {max(plan.times):g}.",
            "increasing times, the first of them not after the last dose.",
            "correct `samples=`.",
        )
    if any(plan.steady_state):
        raise SettingError(
            "The plan of an adaptive regimen is at steady state.",
            "a plan from the first dose on.",
            "leave out `steady_state=`.",
        )
    return AdaptiveRegimen(plan, rule, times)


def decided_amounts(rule: Rule, measured: Measured) -> Tensor:
    r"""The amounts that a rule decides, checked.

    Raises:
        SettingError: The rule does not return one finite amount, 0 or larger, per individual.
    """
    num = len(measured.values)
    amounts = rule(measured)
    ok = isinstance(amounts, Tensor) and amounts.shape == (num,)
    if not (ok and bool(amounts.isfinite().all() & (amounts >= 0).all())):
        found = (
            f"a tensor of shape {tuple(amounts.shape)}"
            if ok or isinstance(amounts, Tensor)
            else f"a {type(amounts).__name__}"
        )
        raise SettingError(
            f"The rule returned {found} at time {measured.time:g}"
            + (", with amounts that are negative or not finite." if ok else "."),
            f"a tensor of shape ({num},): one finite amount, 0 or larger, per individual.",
            "compute all individuals at once, for instance by `torch.where`.",
        )
    return amounts.double()


def measured_so_far(
    regimen: AdaptiveRegimen,
    time: float,
    values: Tensor,
    amounts: Tensor,
    covariates: Mapping[str, Tensor],
) -> Measured:
    """What is known at a time, with the samples and doses until then."""
    times = torch.tensor(regimen.samples[: values.shape[1]], dtype=torch.float64)
    dose_times = torch.tensor(regimen.plan.times[: amounts.shape[1]], dtype=torch.float64)
    known = (values.clone(), dose_times, amounts.clone())  # a rule may change what it is given
    return Measured(time, times, *known, dict(covariates))
