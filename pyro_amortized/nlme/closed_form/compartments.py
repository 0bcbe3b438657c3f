r"""Closed-form pharmacokinetics: concentrations after any number of doses, by superposition.

The models are one, two and three compartments and a metabolite, each with boluses, infusions or
first-order absorption, lag time, bioavailability, steady states and resets. With volume V,
clearance CL and k = CL / V, a dose A at time 0 gives in one compartment

.. math::
   \text{bolus:}\quad & f(t) = \tfrac{A}{V} e^{-kt} \\
   \text{infusion over } D:\quad & f(t) = \tfrac{A}{D\,CL} (1 - e^{-k \min(t, D)})\,
   e^{-k \max(t - D, 0)} \\
   \text{oral:}\quad & f(t) = \tfrac{A\,k_a}{V} \frac{e^{-kt} - e^{-k_a t}}{k_a - k}

Two and three compartments have sums of two and three exponentials in place of one. Each function
takes observation times, doses and parameters, and returns concentrations.

A dose acts from its own time on: an observation at exactly that time includes its effect. For other
models, for instance a chain of transit compartments, solve the ODE with
:func:`~pyro_amortized.nlme.ode.interface.solve`.
"""

import functools
from collections.abc import Mapping

import torch
from torch import Tensor

from ...cohort import Doses
from ...numerics.small_sums import sum_last
from ...runtime.solver_context import CLOSED_FORM, cached_result
from ..dosing import Arrivals, Delivery, arrivals, check_compartments
from ..interoccasion_variability import Occasions
from ..quantities import Quantity, as_quantity, check_times_and_doses
from .copied_individuals import once_per_copy
from .dose_recursion import DoseRecursion, can_be_carried
from .occasion_recursion import by_occasions
from .rate_constants import RATES, cubic_roots
from .superposition import Response, Superposition, through


def one_compartment(
    times: Tensor,
    doses: Doses,
    *,
    cl: Quantity,
    v: Quantity,
    ka: Quantity | None = None,
    delivery: Delivery | None = None,
    occasions: Occasions | None = None,
) -> Tensor:
    r"""Concentration in one compartment.

    Args:
        times: Observation times, shape ``(individual, time)``, in the unit of the times of the
            doses.
        doses: The doses. Without ``ka`` there is one compartment, the central one. With ``ka``
            compartment 1 is the depot from which doses are absorbed, and compartment 2 is the
            central one, as in NONMEM's ADVAN2.
        cl: Clearance, shape ``(*, individual)`` or a number (as all parameters), volume per time.
        v: Volume, shape ``(*, individual)``.
        ka: Absorption rate, shape ``(*, individual)``, per time. It may equal k.
        delivery: Lag time, bioavailability, modelled rates and durations.
        occasions: Occasions between which parameters change, from ``nlme.occasions``; parameters
            have the shape ``(occasion, individual)`` or ``(individual,)`` then. Default: parameters
            are constant.

    Returns:
        Concentration, shape ``(*, individual, time)``, amount per volume.

    Raises:
        ModelError: A dose names a compartment that the model does not have, or needs a quantity
            that the delivery does not give.

    Example:
        >>> doses = Doses(torch.zeros(1, 1), torch.tensor([[100.0]]))
        >>> ten = torch.tensor([10.0])
        >>> one_compartment(torch.tensor([[0.0, 1.0]]), doses, cl=ten, v=ten)
        tensor([[10.0000,  3.6788]])

    References:
        Gibaldi and Perrier (1982), Pharmacokinetics, chapter 1; Bertrand and Mentré (2008),
        Mathematical expressions of the pharmacokinetic models implemented in Monolix.
    """
    if occasions is not None:
        return by_occasions(times, doses, {"cl": cl, "v": v}, ka, delivery, occasions)
    cl, v = _quantities(times, doses, {"cl": cl, "v": v})
    return _central(times, doses, [cl / v], [1 / v + torch.zeros_like(cl)], ka, delivery)


def two_compartments(
    times: Tensor,
    doses: Doses,
    *,
    cl: Quantity,
    v: Quantity,
    q: Quantity,
    v2: Quantity,
    ka: Quantity | None = None,
    delivery: Delivery | None = None,
    occasions: Occasions | None = None,
) -> Tensor:
    r"""Concentration in the central one of two compartments.

    Args:
        times: Observation times, shape ``(individual, time)``.
        doses: The doses, into compartments as in :func:`one_compartment`.
        cl: Clearance, shape ``(*, individual)``, volume per time.
        v: Central volume.
        q: Clearance between the compartments, volume per time.
        v2: Peripheral volume.
        ka: Absorption rate, per time.
        delivery: Lag time, bioavailability, modelled rates and durations.
        occasions: As for :func:`one_compartment`.

    Returns:
        Concentration, shape ``(*, individual, time)``, amount per volume.

    Raises:
        ModelError: As :func:`one_compartment`.

    References:
        Gibaldi and Perrier (1982), Pharmacokinetics, chapter 2.
    """
    if occasions is not None:
        return by_occasions(
            times, doses, {"cl": cl, "v": v, "q": q, "v2": v2}, ka, delivery, occasions
        )
    cl, v, q, v2 = _quantities(times, doses, {"cl": cl, "v": v, "q": q, "v2": v2})
    k10, k12, k21 = cl / v, q / v, q / v2
    total = k10 + k12 + k21
    gap = (total.square() - 4 * k10 * k21).clamp(min=RATES.smallest).sqrt()
    fast = (total + gap) / 2
    slow = (k10 * k21 / fast).clamp(min=RATES.smallest)
    coefficients = [(fast - k21) / (gap * v), (k21 - slow) / (gap * v)]
    return _central(times, doses, [fast, slow], coefficients, ka, delivery)


def three_compartments(
    times: Tensor,
    doses: Doses,
    *,
    cl: Quantity,
    v: Quantity,
    q: Quantity,
    v2: Quantity,
    q3: Quantity,
    v3: Quantity,
    ka: Quantity | None = None,
    delivery: Delivery | None = None,
    occasions: Occasions | None = None,
) -> Tensor:
    r"""Concentration in the central one of three compartments.

    Args:
        times: Observation times, shape ``(individual, time)``.
        doses: The doses, into compartments as in :func:`one_compartment`.
        cl: Clearance, shape ``(*, individual)``, volume per time.
        v: Central volume.
        q: Clearance between the central and the first peripheral compartment.
        v2: First peripheral volume.
        q3: Clearance between the central and the second peripheral compartment.
        v3: Second peripheral volume.
        ka: Absorption rate, per time.
        delivery: Lag time, bioavailability, modelled rates and durations.
        occasions: As for :func:`one_compartment`.

    Returns:
        Concentration, shape ``(*, individual, time)``, amount per volume.

    Raises:
        ModelError: As :func:`one_compartment`.

    References:
        Upton (2004), The two-compartment recirculatory pharmacokinetic model; Bertrand and Mentré
        (2008), section 1.3.
    """
    if occasions is not None:
        return by_occasions(
            times,
            doses,
            {"cl": cl, "v": v, "q": q, "v2": v2, "q3": q3, "v3": v3},
            ka,
            delivery,
            occasions,
        )
    cl, v, q, v2, q3, v3 = _quantities(
        times, doses, {"cl": cl, "v": v, "q": q, "v2": v2, "q3": q3, "v3": v3}
    )
    k10, k12, k21, k13, k31 = cl / v, q / v, q / v2, q3 / v, q3 / v3
    linear = k10 * k31 + k21 * k31 + k21 * k13 + k10 * k21 + k31 * k12
    rates = cubic_roots(k10 + k12 + k13 + k21 + k31, linear, k10 * k21 * k31)
    coefficients = []
    for j, rate in enumerate(rates):
        first, second = (rates[m] - rate for m in range(3) if m != j)
        coefficients.append((k21 - rate) * (k31 - rate) / (first * second * v))
    return _central(times, doses, rates, coefficients, ka, delivery)


def metabolite(
    times: Tensor,
    doses: Doses,
    *,
    cl: Quantity,
    v: Quantity,
    fm: Quantity,
    clm: Quantity,
    vm: Quantity,
    ka: Quantity | None = None,
    delivery: Delivery | None = None,
) -> Tensor:
    r"""Concentration of a metabolite that is formed from a drug with one compartment.

    Args:
        times: Observation times, shape ``(individual, time)``.
        doses: The doses of the parent, into compartments as in :func:`one_compartment`.
        cl: Clearance of the parent, shape ``(*, individual)``, volume per time.
        v: Volume of the parent.
        fm: Fraction of the eliminated amount that becomes metabolite, no unit.
        clm: Clearance of the metabolite, volume per time.
        vm: Volume of the metabolite.
        ka: Absorption rate of the parent, per time.
        delivery: Lag time, bioavailability, modelled rates and durations of the doses.

    Returns:
        Concentration of the metabolite, shape ``(*, individual, time)``, amount per volume.

    Raises:
        ModelError: As :func:`one_compartment`.
    """
    cl, v, fm, clm, vm = _quantities(
        times, doses, {"cl": cl, "v": v, "fm": fm, "clm": clm, "vm": vm}
    )
    formed, cleared = cl / v, clm / vm
    coefficient = fm / vm + torch.zeros_like(formed)
    return _central(times, doses, [cleared], [coefficient], ka, delivery, formed)


def _quantities(times: Tensor, doses: Doses, given: Mapping[str, Quantity]) -> list[Tensor]:
    """The parameters as tensors, after a check of all arguments."""
    check_times_and_doses(times, doses)
    return [as_quantity(name, value, times, len(times)) for name, value in given.items()]


def _central(
    times: Tensor,
    doses: Doses,
    rates: list[Tensor],
    coefficients: list[Tensor],
    absorption: Quantity | None,
    delivery: Delivery | None,
    formation: Tensor | None = None,
) -> Tensor:
    r"""Concentration in the central compartment, or of the metabolite, shape ``(*, individual,
    time)``.

    Args:
        times: Observation times.
        doses: The doses.
        rates: Rates lambda of the exponentials, shape ``(*, individual)`` each.
        coefficients: Factors C of the exponentials, divided by the volume, of the same shape.
        absorption: Absorption rate, or None.
        delivery: How the doses arrive.
        formation: Rate at which the metabolite is formed, or None.
    """
    ka = None if absorption is None else as_quantity("ka", absorption, times, len(times))
    once = once_per_copy(times, doses)
    times, doses, delivery = once.times, once.doses, once.delivery(delivery)
    rates, coefficients = ([once.split(x) for x in values] for values in (rates, coefficients))
    ka, formation = (None if x is None else once.split(x) for x in (ka, formation))
    check_compartments(doses, 2 if ka is not None else 1)
    arriving = arrivals(doses, delivery)
    extra = [x for x in (ka, formation) if x is not None]
    # What differs between calls comes first, so that a search in the cache is short.
    inputs = [*rates, *coefficients, *extra, times, arriving.begin, arriving.amounts]
    inputs += [arriving.durations, arriving.until, *doses.columns.values()]
    if torch.is_grad_enabled() and any(x.requires_grad for x in inputs):
        return once.join(_superposed(times, arriving, rates, coefficients, ka, formation))
    key = (CLOSED_FORM, len(rates), ka is None, formation is None)
    total: Tensor = cached_result(
        key,
        inputs,
        lambda: _superposed(times, arriving, rates, coefficients, ka, formation),
        lambda x: x.numel() * x.element_size(),
    )
    return once.join(total)


def _superposed(
    times: Tensor,
    arriving: Arrivals,
    rates: list[Tensor],
    coefficients: list[Tensor],
    ka: Tensor | None,
    formation: Tensor | None,
) -> Tensor:
    """The sum over doses and exponentials; arguments as for :func:`_central`."""
    if can_be_carried(arriving):
        return _carried(times, arriving, rates, coefficients, ka, formation)
    doses = arriving.doses
    superposition = Superposition(times, arriving)
    direct: Response = superposition.response
    if formation is not None:
        direct = through(direct, formation[..., None, None])
    absorbed = direct if ka is None else through(direct, ka[..., None, None])
    from_depot = (doses.compartment == 1).unsqueeze(-2)
    needs_direct = ka is None or bool((doses.given & (doses.compartment != 1)).any())
    total: Tensor | None = None
    for rate, coefficient in zip(rates, coefficients, strict=True):
        rate = rate[..., None, None]
        unit = absorbed(rate)
        if ka is not None and needs_direct:
            unit = torch.where(from_depot, unit, direct(rate))
        part = coefficient.unsqueeze(-1) * sum_last(superposition.sizes * unit)
        total = part if total is None else total + part
    assert total is not None
    return total


def _carried(
    times: Tensor,
    arriving: Arrivals,
    rates: list[Tensor],
    coefficients: list[Tensor],
    ka: Tensor | None,
    formation: Tensor | None,
) -> Tensor:
    """As :func:`_superposed`, with the amounts carried from dose to dose."""
    recursion, doses = DoseRecursion(times, arriving), arriving.doses
    amounts = torch.where(doses.given, arriving.amounts, 0.0)
    from_depot = doses.compartment == 1
    parts: list[tuple[Tensor, list[Tensor]]] = [(amounts, [])]
    if ka is not None:
        parts = [(torch.where(from_depot, amounts, 0.0), [ka])]
        if bool((doses.given & ~from_depot).any()):
            parts.append((torch.where(from_depot, 0.0, amounts), []))
    terms = []
    for sizes, passed in parts:
        response: Response = functools.partial(recursion.response, sizes=sizes)
        for rate in [*([] if formation is None else [formation]), *passed]:
            response = through(response, rate.unsqueeze(-1))
        terms += [
            coefficient.unsqueeze(-1) * response(rate.unsqueeze(-1))
            for rate, coefficient in zip(rates, coefficients, strict=True)
        ]
    return torch.stack(torch.broadcast_tensors(*terms)).sum(0)
