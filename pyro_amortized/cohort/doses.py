r"""What was given: doses, with the records that NONMEM knows."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ..errors import CohortError
from ..runtime.arguments import check_is
from .series import floating

MODELLED_RATE, MODELLED_DURATION = -1.0, -2.0


@dataclass(frozen=True, eq=False)
class Doses:
    r"""The doses of every individual, padded to the same number.

    A dose counts from its own time on: an observation at exactly that time sees it. Among doses of
    equal time the earlier column comes first.

    Args:
        times: Dosing times, shape ``(individual, dose)``, in the unit of the series.
        amounts: Amounts, shape of ``times``, in the unit of amount of the data. Ignored in the
            padding.
        durations: Durations of infusion, shape of ``times``; 0 is a bolus. Default: all 0.
        compartment: Number of the compartment that receives the dose, 1 first, shape of ``times``.
            Default: all 1.
        given: True where a dose was given, False in the padding, shape of ``times``. Default: all
            True.
        rates: What is known of an infusion, as in NONMEM's column RATE, shape of ``times``. 0: the
            duration, as in ``durations``. Positive: the rate; ``durations`` becomes amount / rate
            and, where a bioavailability acts, changes with it. -1: the rate is a quantity of the
            model, -2: the duration is; both come from a
            :class:`~pyro_amortized.nlme.dosing.Delivery`.
        intervals: Dosing interval of steady state, shape of ``times``; 0 without.
        steady_state: 0; 1 where the dose is the last of an endless train of its kind and the past
            is forgotten; 2 where that train adds to the past; shape of ``times``. With amount 0 and
            a rate: the steady state of a constant infusion, which then ends.
        reset: True where the system returns to its initial state, and what is pending or running
            ends, before the dose; shape of ``times``. With amount 0 it is a reset alone.

    Raises:
        CohortError: Shapes disagree, a given dose is not finite or negative, or contradicts itself.
    """

    times: Tensor
    amounts: Tensor
    durations: Tensor = None  # type: ignore[assignment]
    compartment: Tensor = None  # type: ignore[assignment]
    given: Tensor = None  # type: ignore[assignment]
    rates: Tensor = None  # type: ignore[assignment]
    intervals: Tensor = None  # type: ignore[assignment]
    steady_state: Tensor = None  # type: ignore[assignment]
    reset: Tensor = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        amounts = floating(self.amounts, "amounts")
        times = floating(self.times, "times of the doses").to(amounts.dtype)
        defaults = {
            "times": times,
            "amounts": amounts,
            "durations": torch.zeros_like(amounts),
            "compartment": torch.ones_like(amounts, dtype=torch.long),
            "given": torch.ones_like(amounts, dtype=torch.bool),
            "rates": torch.zeros_like(amounts),
            "intervals": torch.zeros_like(amounts),
            "steady_state": torch.zeros_like(amounts, dtype=torch.long),
            "reset": torch.zeros_like(amounts, dtype=torch.bool),
        }
        found = {
            n: d if getattr(self, n) is None else getattr(self, n) for n, d in defaults.items()
        }
        found |= {"times": times, "amounts": amounts}
        for name, tensor in found.items():
            check_is(name, tensor, Tensor, "pass a tensor.", CohortError)
            if tensor.shape != amounts.shape or amounts.dim() != 2:
                raise CohortError(
                    f"`{name}` of the doses has shape {tuple(tensor.shape)}, `amounts` "
                    f"{tuple(amounts.shape)}.",
                    "the same shape (individual, dose) for every field of the doses.",
                    "pad every individual to the same number of doses and set `given` to False "
                    "in the padding.",
                )
        for name in ("given", "reset"):
            if found[name].dtype != torch.bool:
                raise CohortError(
                    f"`{name}` has dtype {found[name].dtype}.",
                    "a boolean mask.",
                    f"pass `{name}.bool()`.",
                )
        given = found["given"]
        for name, default in defaults.items():
            fill = torch.zeros_like(default[:1, :1]) if name in ("times", "amounts") else default
            value = found[name].to(default.dtype)
            found[name] = value if name == "given" else torch.where(given, value, fill)
        _check(found)
        known = found["rates"] > 0
        safe = torch.where(known, found["rates"], torch.ones_like(amounts))
        found["durations"] = torch.where(known, found["amounts"] / safe, found["durations"])
        for name, value in found.items():
            object.__setattr__(self, name, value)

    @property
    def has_events(self) -> bool:
        """True where there is more than boluses and infusions, such as steady states, resets, and
        rates or durations of the model.
        """
        return bool((self.steady_state > 0).any() | self.reset.any() | (self.rates < 0).any())


FIELDS = tuple(field.name for field in fields(Doses))


def _check(found: dict[str, Tensor]) -> None:
    amounts, durations, rates = found["amounts"], found["durations"], found["rates"]
    intervals, steady = found["intervals"], found["steady_state"]
    constant = (steady > 0) & (amounts == 0)
    finite = torch.stack([found[n].isfinite() for n in ("times", "amounts", "durations")]).all(0)
    wrong = {
        "is not finite or negative": ~finite | (amounts < 0) | (durations < 0),
        "has a rate that is neither positive, 0, -1 nor -2": ~(
            rates.isfinite() & ((rates >= 0) | (rates == -1) | (rates == -2))
        ),
        "has a negative or infinite interval": ~(intervals.isfinite() & (intervals >= 0)),
        "has a steady state other than 0, 1 and 2": (steady < 0) | (steady > 2),
        "is a steady state without an interval": (steady > 0) & ~constant & (intervals <= 0),
        "is a steady state without amount and without rate": constant & ~(rates > 0),
        "enters a compartment below 1": found["compartment"] < 1,
    }
    for what, where in wrong.items():
        if bool(where.any()):
            raise CohortError(
                f"Individual {int(where.any(1).nonzero()[0])} has a dose that {what}.",
                "finite times, amounts >= 0 and durations >= 0 wherever `given` is True; steady "
                "states with an interval, or with amount 0 and a positive rate.",
                "correct the dose, or set `given` to False if it is padding.",
            )
