r"""Individuals that a cohort contains several times, with other parameters each time.

A model is evaluated at K draws of N individuals as a cohort of K N rows
(:meth:`pyro_amortized.cohort.cohort.Cohort.repeat`). The times and doses of a row are those of its
individual. What depends on them alone is computed for N rows, and broadcasts to the parameters,
whose rows are split:

.. math:: (*, K N) \to (*, K, N) .
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ...cohort import Doses
from ...cohort.copies import are_copies
from ...numerics.broadcasting import broadcast_shape
from ..dosing import Delivery, PerCompartment, check_delivery
from ..quantities import Quantity


@dataclass(frozen=True, eq=False)
class OncePerCopy:
    r"""Times and doses of every individual once.

    Args:
        times: Observation times, shape ``(individual, time)``.
        doses: The doses.
        num_copies: Number of copies K, or None where the individuals are not copies.
    """

    times: Tensor
    doses: Doses
    num_copies: int | None = None

    def split(self, value: Tensor) -> Tensor:
        """Parameters ``(*, copy individual)`` as ``(*, copy, individual)``."""
        if self.num_copies is None or value.dim() == 0:
            return value
        if value.shape[-1] == 1:
            return value.unsqueeze(-1)
        return value.unflatten(-1, (self.num_copies, -1))

    def delivery(self, delivery: Delivery | None) -> Delivery | None:
        """The delivery of the doses, with its parameters split."""
        check_delivery(delivery)
        if self.num_copies is None or delivery is None:
            return delivery
        return Delivery(**{name: self._split_each(x) for name, x in vars(delivery).items()})

    def _split_each(self, value: PerCompartment) -> PerCompartment:
        if isinstance(value, Mapping):
            return {compartment: self._split_quantity(x) for compartment, x in value.items()}
        return None if value is None else self._split_quantity(value)

    def _split_quantity(self, value: Quantity) -> Quantity:
        return self.split(value) if isinstance(value, Tensor) else value

    def join(self, result: Tensor) -> Tensor:
        """A result ``(*, copy, individual, time)`` as ``(*, copy individual, time)``."""
        if self.num_copies is None:
            return result
        shape = broadcast_shape(result.shape, (self.num_copies, 1, 1))
        return result.expand(shape).flatten(-3, -2)


def once_per_copy(times: Tensor, doses: Doses) -> OncePerCopy:
    r"""Every individual once, where the rows are copies of individuals; else all rows.

    Args:
        times: Observation times, shape ``(individual, time)``.
        doses: The doses.
    """
    copied = doses.copied
    if copied is None or len(times) != len(doses.times) or not are_copies(times, copied.num):
        return OncePerCopy(times, doses)
    return OncePerCopy(times[: len(times) // copied.num], copied.original, copied.num)
