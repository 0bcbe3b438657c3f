r"""How doses reach the system: lag times, bioavailability, modelled rates and durations.

The semantics are NONMEM's. A dose of amount A into compartment c arrives as F A, a lag time after
its record; at a given rate the bioavailability F changes the duration, at a given duration the
rate. What is pending or running ends at a reset and at a steady state of kind 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..cohort import Doses
from ..errors import ModelError

PerCompartment = Tensor | Mapping[int, Tensor] | None


@dataclass(frozen=True, eq=False)
class Delivery:
    r"""Quantities of the model that change how doses arrive.

    Each is a tensor of shape ``(*, individual)`` for every dose, or a mapping from compartment (1
    first) to such a tensor.

    Args:
        lag: Lag time, unit of the times; not negative.
        bioavailability: Fraction F of the amount that arrives; not negative.
        rate: Rate of the infusions whose rate is a quantity of the model (RATE = -1).
        duration: Duration of the infusions whose duration is a quantity of the model (RATE = -2).

    Example:
        >>> lag, fraction = torch.tensor([0.5]), torch.tensor([0.8])
        >>> doses = Doses(torch.tensor([[1.0]]), torch.tensor([[100.0]]))
        >>> found = arrivals(doses, Delivery(lag=lag, bioavailability={1: fraction}))
        >>> found.begin, found.amounts
        (tensor([[1.5000]]), tensor([[80.]]))
    """

    lag: PerCompartment = None
    bioavailability: PerCompartment = None
    rate: PerCompartment = None
    duration: PerCompartment = None


@dataclass(frozen=True, eq=False)
class Arrivals:
    r"""Doses as they arrive; every tensor broadcasts to ``(*, individual, dose)``.

    Args:
        doses: The records.
        begin: Times of arrival: record plus lag.
        amounts: F times the amount; 0 in the padding.
        durations: Durations of infusion; 0 for boluses.
        until: Time of the next record that ends what this dose does, or infinity.
        lag: Lag times.
    """

    doses: Doses
    begin: Tensor
    amounts: Tensor
    durations: Tensor
    until: Tensor
    lag: Tensor

    @property
    def is_infusion(self) -> Tensor:
        """True for infusions of an amount, and for constant ones."""
        return (self.doses.rates != 0) | (self.doses.durations > 0)

    @property
    def is_constant(self) -> Tensor:
        """True for the steady state of a constant infusion: an amount of 0."""
        return (self.doses.steady_state > 0) & (self.doses.amounts == 0)

    @property
    def rates(self) -> Tensor:
        """Amount per time of every infusion while it runs, 0 for boluses."""
        tiny = torch.finfo(self.amounts.dtype).tiny
        rate = self.amounts / self.durations.clamp(min=tiny)
        rate = torch.where(self.is_constant, self.doses.rates.to(rate.dtype), rate)
        return torch.where(self.is_infusion, rate, torch.zeros_like(rate))


def arrivals(doses: Doses, delivery: Delivery | None = None) -> Arrivals:
    r"""When, how much and for how long each dose reaches the system.

    Raises:
        ModelError: A dose needs a modelled rate or duration that the delivery does not give.
    """
    delivery = delivery or Delivery()
    dtype = doses.amounts.dtype
    lag = _per_dose(delivery.lag, doses, 0.0)
    fraction = _per_dose(delivery.bioavailability, doses, 1.0)
    amounts, durations = doses.amounts * fraction, doses.durations
    known = doses.rates > 0
    if bool(known.any()):
        safe = torch.where(known, doses.rates, torch.ones_like(doses.rates))
        durations = torch.where(known, amounts / safe, durations)
    for code, name, value in ((-1, "rate", delivery.rate), (-2, "duration", delivery.duration)):
        modelled = doses.rates == code
        if not bool(modelled.any()):
            continue
        if value is None:
            raise ModelError(
                f"Individual {int(modelled.any(1).nonzero()[0])} has a dose of RATE {code}: its "
                f"{name} is a quantity of the model.",
                f"`Delivery({name}=...)`.",
                f"pass `delivery=nlme.Delivery({name}=...)`, or correct the column RATE.",
            )
        quantity = _per_dose(value, doses, 1.0)
        durations = torch.where(modelled, amounts / quantity if code == -1 else quantity, durations)
    return Arrivals(
        doses,
        doses.times + lag,
        amounts.to(torch.promote_types(dtype, amounts.dtype)),
        durations,
        _until(doses),
        lag,
    )


def _per_dose(value: PerCompartment, doses: Doses, default: float) -> Tensor:
    if value is None:
        return torch.full_like(doses.amounts[:1, :1], default)
    if isinstance(value, Tensor):
        return value.unsqueeze(-1)
    found = torch.full_like(doses.amounts, default)
    for compartment, quantity in value.items():
        found = torch.where(doses.compartment == compartment, quantity.unsqueeze(-1), found)
    return found


def _until(doses: Doses) -> Tensor:
    """Time of the next later record that resets or starts a steady state of its own."""
    ends = doses.given & (doses.reset | (doses.steady_state == 1))
    if not bool(ends.any()):
        return torch.full_like(doses.times[:1, :1], torch.inf)
    times, order = doses.times, torch.arange(doses.times.shape[1], device=doses.times.device)
    later = times.unsqueeze(1) > times.unsqueeze(2)
    tied = (times.unsqueeze(1) == times.unsqueeze(2)) & (order > order.unsqueeze(-1))
    after = (later | tied) & ends.unsqueeze(1)
    return torch.where(after, times.unsqueeze(1), torch.inf).amin(2)
