r"""Doses: boluses, infusions, steady states and resets, as in NONMEM's event records."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from ..errors import CohortError
from ..runtime.arguments import check_is
from .copies import Copies, mapped, repeated
from .series import floating

MODELLED_RATE, MODELLED_DURATION = -1.0, -2.0


@dataclass(frozen=True, eq=False)
class Doses:
    r"""The doses of every individual, padded to the same number.

    A dose acts from its own time on, so an observation at exactly that time includes its effect.
    Among doses at the same time the earlier column comes first.

    Args:
        times: Dosing times, shape ``(individual, dose)``, in the unit of the series.
        amounts: Amounts, shape of ``times``, in the unit of amount of the data. Ignored in the
            padding.
        durations: Durations of infusion, shape of ``times``; 0 is a bolus. Default: all 0.
        compartment: Number of the compartment that receives the dose, 1 first, shape of ``times``.
            Default: all 1.
        given: True where a dose was given, False in the padding, shape of ``times``. Default: all
            True.
        rates: Rate of each infusion as in NONMEM's column RATE, shape of ``times``. 0: the duration
            is known and stands in ``durations``. Positive: the rate is known; ``durations`` becomes
            amount / rate and changes with the bioavailability. -1: the model gives the rate. -2:
            the model gives the duration. In the last two cases it comes from a
            :class:`~pyro_amortized.nlme.dosing.Delivery`.
        intervals: Dosing interval of a steady state, shape of ``times``; 0 where there is none.
        steady_state: Shape of ``times``. 0: no steady state. 1: the system is in the steady state
            that infinitely many equal doses lead to, and earlier doses have no effect. 2: this
            steady state is added to the effect of earlier doses. With amount 0 and a positive rate:
            the steady state of a constant infusion, which then ends.
        reset: True where the system returns to its initial state before the dose, and infusions and
            pending doses end; shape of ``times``. With amount 0 it is a reset without a dose.

    Raises:
        CohortError: Shapes differ, a dose is not finite or negative, or its fields contradict each
            other.
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
    # What this is a number of copies of, or None. What depends on the doses alone is then
    # computed once for all copies.
    copied: "Copies[Doses] | None" = field(default=None, init=False, repr=False)

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
        columns = {
            n: d if getattr(self, n) is None else getattr(self, n) for n, d in defaults.items()
        }
        columns |= {"times": times, "amounts": amounts}
        _check_kinds(columns)
        given = columns["given"]
        for name, default in defaults.items():
            fill = torch.zeros_like(default[:1, :1]) if name in ("times", "amounts") else default
            value = columns[name].to(default.dtype)
            columns[name] = value if name == "given" else torch.where(given, value, fill)
        _check_values(columns)
        is_rate = columns["rates"] > 0
        rates = torch.where(is_rate, columns["rates"], torch.ones_like(amounts))
        columns["durations"] = torch.where(
            is_rate, columns["amounts"] / rates, columns["durations"]
        )
        for name, value in columns.items():
            object.__setattr__(self, name, value)

    def map(self, fn: Callable[[Tensor], Tensor]) -> "Doses":
        """The doses with a function applied to every field: a choice or copies of the individuals.

        They are not checked again.
        """
        return mapped(self, fn)

    def repeat(self, num_copies: int) -> "Doses":
        """The individuals ``num_copies`` times one after the other."""
        return repeated(self, num_copies)

    @property
    def columns(self) -> dict[str, Tensor]:
        """All fields by name, shape ``(individual, dose)`` each."""
        return {name: getattr(self, name) for name in FIELDS}

    @property
    def has_events(self) -> bool:
        """Whether there are other events than boluses and infusions of known rate or duration.

        Such events are steady states, resets, and rates or durations that the model gives.
        """
        return bool((self.steady_state > 0).any() | self.reset.any() | (self.rates < 0).any())


FIELDS = tuple(field.name for field in fields(Doses) if field.init)


def _check_kinds(columns: dict[str, Tensor]) -> None:
    """Raise unless all columns are tensors of one shape, and the masks are boolean."""
    amounts = columns["amounts"]
    for name, tensor in columns.items():
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
        if columns[name].dtype != torch.bool:
            raise CohortError(
                f"`{name}` has dtype {columns[name].dtype}.",
                "a boolean mask.",
                f"pass `{name}.bool()`.",
            )


def _check_values(columns: dict[str, Tensor]) -> None:
    """Raise if a dose is not finite or negative, or its fields contradict each other."""
    amounts, durations, rates = columns["amounts"], columns["durations"], columns["rates"]
    intervals, steady = columns["intervals"], columns["steady_state"]
    constant = (steady > 0) & (amounts == 0)
    finite = torch.stack([columns[n].isfinite() for n in ("times", "amounts", "durations")]).all(0)
    wrong = {
        "is not finite or negative": ~finite | (amounts < 0) | (durations < 0),
        "has a rate that is neither positive, 0, -1 nor -2": ~(
            rates.isfinite() & ((rates >= 0) | (rates == -1) | (rates == -2))
        ),
        "has a negative or infinite interval": ~(intervals.isfinite() & (intervals >= 0)),
        "has a steady state other than 0, 1 and 2": (steady < 0) | (steady > 2),
        "is a steady state without an interval": (steady > 0) & ~constant & (intervals <= 0),
        "is a steady state without amount and without rate": constant & ~(rates > 0),
        "enters a compartment below 1": columns["compartment"] < 1,
    }
    for what, where in wrong.items():
        if bool(where.any()):
            raise CohortError(
                f"Individual {int(where.any(1).nonzero()[0])} has a dose that {what}.",
                "finite times, amounts >= 0 and durations >= 0 wherever `given` is True; steady "
                "states with an interval, or with amount 0 and a positive rate.",
                "correct the dose, or set `given` to False if it is padding.",
            )
