r"""How doses reach the system: lag times, bioavailability, modelled rates and durations.

The rules are those of NONMEM. A dose of amount A that is recorded at time t arrives as the amount
F A at time t + lag, where F is the bioavailability. An infusion has

.. math:: \text{duration} = F A / \text{rate} \quad \text{(rate known)}, \qquad
    \text{rate} = F A / \text{duration} \quad \text{(duration known)} .

A reset, and a steady state of kind 1, end the effect of all earlier doses, also of those that are
still running or have not arrived. The module takes the dose records of a cohort and what the model
says about their delivery, and returns the doses as they arrive.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..cohort import Doses
from ..cohort.doses import MODELLED_DURATION, MODELLED_RATE
from ..errors import ModelError
from ..runtime.arguments import check_is
from .quantities import Quantity, as_quantity

PerCompartment = Quantity | Mapping[int, Quantity] | None


@dataclass(frozen=True, eq=False)
class Delivery:
    r"""Quantities of the model that change how doses arrive.

    Each is a tensor of shape ``(*, individual)`` or a number that holds for every dose, or a
    mapping from the number of a compartment (1 first) to such a value. A fraction that depends on
    the dose of an individual is computed from its row,
    ``(cohort.doses.amounts[:, 0] / 100) ** exponent``.

    Args:
        lag: Lag time, unit of the times; not negative. Default: 0.
        bioavailability: Fraction F of the amount that arrives, no unit; not negative. Default: 1.
        rate: Rate of the infusions whose rate the model gives (RATE = -1), amount per time.
        duration: Duration of the infusions whose duration the model gives (RATE = -2), unit of the
            times.

    Example:
        >>> lag, fraction = torch.tensor([0.5]), torch.tensor([0.8])
        >>> doses = Doses(torch.tensor([[1.0]]), torch.tensor([[100.0]]))
        >>> arriving = arrivals(doses, Delivery(lag=lag, bioavailability={1: fraction}))
        >>> arriving.begin, arriving.amounts
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
        begin: Times of arrival: time of the record plus lag time.
        amounts: F times the recorded amount; 0 in the padding.
        durations: Durations of infusion; 0 for boluses.
        until: Time of the next record that ends the effect of this dose, or infinity.
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
        """True for infusions of an amount, and for constant infusions."""
        return (self.doses.rates != 0) | (self.doses.durations > 0)

    @property
    def is_constant(self) -> Tensor:
        """True for the steady state of a constant infusion, which is recorded with amount 0."""
        return (self.doses.steady_state > 0) & (self.doses.amounts == 0)

    @property
    def rates(self) -> Tensor:
        """Amount per time while an infusion runs; 0 for boluses."""
        tiny = torch.finfo(self.amounts.dtype).tiny
        rate = self.amounts / self.durations.clamp(min=tiny)
        rate = torch.where(self.is_constant, self.doses.rates.to(rate.dtype), rate)
        return torch.where(self.is_infusion, rate, torch.zeros_like(rate))


def check_delivery(delivery: Delivery | None) -> None:
    """Refuse what is none, for instance a dictionary of compartments."""
    fix = (
        "write `delivery=nlme.Delivery(lag=..., bioavailability={1: f})`; each of its parts may "
        "be a dictionary of compartments."
    )
    check_is("delivery", delivery, (Delivery, type(None)), fix, ModelError)


def arrivals(doses: Doses, delivery: Delivery | None = None) -> Arrivals:
    r"""Times, amounts and durations with which the doses reach the system.

    Args:
        doses: The records.
        delivery: What the model says about them. Default: nothing changes how they arrive.

    Raises:
        ModelError: A dose needs a modelled rate or duration that the delivery does not give.
    """
    check_delivery(delivery)
    delivery = delivery or Delivery()
    dtype = doses.amounts.dtype
    lag = _per_dose("lag", delivery.lag, doses, 0.0)
    fraction = _per_dose("bioavailability", delivery.bioavailability, doses, 1.0)
    amounts, durations = doses.amounts * fraction, doses.durations
    known = doses.rates > 0
    if bool(known.any()):
        safe = torch.where(known, doses.rates, torch.ones_like(doses.rates))
        durations = torch.where(known, amounts / safe, durations)
    by_model = (
        (MODELLED_RATE, "rate", delivery.rate),
        (MODELLED_DURATION, "duration", delivery.duration),
    )
    for code, name, value in by_model:
        modelled = doses.rates == code
        if not bool(modelled.any()):
            continue
        if value is None:
            raise ModelError(
                f"Individual {int(modelled.any(1).nonzero()[0])} has a dose with "
                f"RATE={code:g}: its {name} is a quantity of the model.",
                f"`Delivery({name}=...)`.",
                f"pass `delivery=nlme.Delivery({name}=...)`, or correct the column RATE.",
            )
        quantity = _per_dose(name, value, doses, 1.0)
        duration = amounts / quantity if code == MODELLED_RATE else quantity
        durations = torch.where(modelled, duration, durations)
    return Arrivals(
        doses,
        doses.times + lag,
        amounts.to(torch.promote_types(dtype, amounts.dtype)),
        durations,
        _until(doses),
        lag,
    )


def _per_dose(name: str, value: PerCompartment, doses: Doses, default: float) -> Tensor:
    """Value of a quantity for each dose, broadcastable to ``(*, individual, dose)``."""
    if value is None:
        return torch.full_like(doses.amounts[:1, :1], default)
    if not isinstance(value, Mapping):
        return _of_individuals(name, value, doses)
    values = torch.full_like(doses.amounts, default)
    for compartment, quantity in value.items():
        is_there = doses.compartment == compartment
        values = torch.where(is_there, _of_individuals(name, quantity, doses), values)
    return values


def _of_individuals(name: str, value: Quantity, doses: Doses) -> Tensor:
    """Value of a quantity for each individual, broadcastable to ``(*, individual, dose)``."""
    shape = doses.amounts.shape
    if isinstance(value, Tensor) and value.shape == shape and shape[0] != shape[1]:
        raise ModelError(
            f"`Delivery({name}=...)` has a value for each dose, shape {tuple(shape)}.",
            "one value for each individual, shape (*, individual).",
            "where it differs between the doses of an individual, change the doses: "
            "`dataclasses.replace(cohort.doses, amounts=fraction * cohort.doses.amounts)` "
            "(`times=` for a lag), which is the same for boluses.",
        )
    return as_quantity(f"Delivery({name}=...)", value, doses.amounts, shape[0]).unsqueeze(-1)


def _until(doses: Doses) -> Tensor:
    """Time of the next record that resets the system or starts a steady state of kind 1."""
    ends = doses.given & (doses.reset | (doses.steady_state == 1))
    if not bool(ends.any()):
        return torch.full_like(doses.times[:1, :1], torch.inf)
    times, order = doses.times, torch.arange(doses.times.shape[1], device=doses.times.device)
    later = times.unsqueeze(1) > times.unsqueeze(2)
    tied = (times.unsqueeze(1) == times.unsqueeze(2)) & (order > order.unsqueeze(-1))
    after = (later | tied) & ends.unsqueeze(1)
    return torch.where(after, times.unsqueeze(1), torch.inf).amin(2)


def check_compartments(doses: Doses, num_compartments: int) -> None:
    """Raise if a dose enters a compartment that does not exist."""
    last = int((doses.compartment * doses.given).amax()) if doses.given.numel() else 0
    if last > num_compartments:
        names = "1 depot, 2 central" if num_compartments == 2 else "1 central"
        raise ModelError(
            f"A dose enters compartment {last}.",
            f"compartments {list(range(1, num_compartments + 1))}: {names}.",
            "correct `doses.compartment`, or write the model as an ODE with `nlme.solve`.",
        )
