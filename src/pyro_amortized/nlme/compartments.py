r"""Closed-form pharmacokinetics: concentrations after any number of doses, by superposition.

One compartment with volume V, clearance CL and elimination rate k = CL / V; a dose A at time 0
gives

.. math::
   \text{bolus:}\quad     & f(t) = \tfrac{A}{V} e^{-kt} \\
   \text{infusion over } D:\quad & f(t) = \tfrac{A}{D\,CL} (1 - e^{-k \min(t, D)})\, e^{-k \max(t -
   D, 0)} \\ \text{oral:}\quad      & f(t) = \tfrac{A\,k_a}{V} \frac{e^{-kt} - e^{-k_a t}}{k_a - k}

A dose counts from its own time on: an observation at exactly that time sees it.
"""

import torch
from torch import Tensor

from ..cohort import Doses
from ..errors import ModelError


def one_compartment(
    times: Tensor, doses: Doses, *, cl: Tensor, v: Tensor, ka: Tensor | None = None
) -> Tensor:
    r"""Concentration in one compartment.

    Args:
        times: Observation times, shape ``(individual, time)``, unit of the doses' times.
        doses: The doses. Without ``ka`` every dose enters the central compartment (1). With ``ka``
            compartment 1 is the depot from which doses are absorbed and compartment 2 the central
            one, as in NONMEM's ADVAN2.
        cl: Clearance, shape ``(*, individual)``, volume per time.
        v: Volume, shape ``(*, individual)``.
        ka: Absorption rate, shape ``(*, individual)``, per time. It may equal k.

    Returns:
        Concentration, shape ``(*, individual, time)``, amount per volume.

    Raises:
        ModelError: A dose names a compartment that the model does not have, or is infused into the
            depot.

    Example:
        >>> doses = Doses(torch.zeros(1, 1), torch.tensor([[100.0]]))
        >>> ten = torch.tensor([10.0])
        >>> one_compartment(torch.tensor([[0.0, 1.0]]), doses, cl=ten, v=ten)
        tensor([[10.0000,  3.6788]])

    References:
        Gibaldi and Perrier (1982), Pharmacokinetics, chapter 1; Bertrand and Mentré (2008),
        Mathematical expressions of the pharmacokinetic models implemented in Monolix.
    """
    _check_doses(doses, absorption=ka is not None)
    k = (cl / v)[..., None, None]
    since = (times.unsqueeze(-1) - doses.times.unsqueeze(-2)).to(
        k.dtype
    )  # (individual, time, dose)
    started = since >= 0
    since = since.clamp(min=0)
    durations = doses.durations.unsqueeze(-2)
    safe = torch.where(durations > 0, durations, torch.ones_like(durations))
    infused = (
        -torch.expm1(-k * torch.minimum(since, safe))
        / (k * safe)
        * torch.exp(-k * (since - safe).clamp(min=0))
    )
    unit = torch.where(durations > 0, infused, torch.exp(-k * since))
    if ka is not None:
        absorbed = ka[..., None, None] * _difference_quotient(k, ka[..., None, None], since)
        unit = torch.where(doses.compartment.unsqueeze(-2) == 1, absorbed, unit)
    amounts = torch.where(started, doses.amounts.unsqueeze(-2), torch.zeros_like(since))
    return (amounts * unit).sum(-1) / v.unsqueeze(-1)


def _difference_quotient(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    r"""(exp(-a t) - exp(-b t)) / (b - a), without cancellation where a and b are close."""
    slow, gap = torch.minimum(a, b), (a - b).abs()
    x = gap * t
    small = x < 1e-5
    safe = torch.where(small, torch.ones_like(x), x)
    ratio = torch.where(small, 1 - x / 2 + x * x / 6, -torch.expm1(-safe) / safe)
    return t * torch.exp(-slow * t) * ratio


def _check_doses(doses: Doses, absorption: bool) -> None:
    compartments = doses.compartment[doses.given]
    allowed = {1, 2} if absorption else {1}
    if not set(compartments.unique().tolist()) <= allowed:
        raise ModelError(
            f"A dose enters compartment {max(compartments.tolist())}.",
            f"compartments {sorted(allowed)}: "
            f"{'1 depot, 2 central' if absorption else '1 central'}.",
            "correct `doses.compartment`, or write the model as an ODE with `nlme.solve`.",
        )
    if absorption and bool(((doses.durations > 0) & (doses.compartment == 1) & doses.given).any()):
        raise ModelError(
            "A dose is infused into the depot.",
            "infusions into the central compartment (2) only.",
            "set its duration to 0, or write the model as an ODE with `nlme.solve`.",
        )
