r"""Variability between the occasions of one individual (IOV).

On occasion k the parameters of individual i are

.. math:: \phi_{ik} = \phi_i + \kappa_{ik}, \qquad \kappa_{ik} \sim \mathcal N(0, \pi^2) .

An occasion is a part of the observation time within which the parameters are constant. It starts
where the label of the occasion changes, for instance the column OCC of a table.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..cohort import Series
from ..cohort.copies import are_copies
from ..errors import CohortError, ModelError
from ..runtime.arguments import check_is
from .ode.problem import Piecewise


@dataclass(frozen=True, eq=False)
class Occasions:
    r"""Occasions of every individual.

    Args:
        number: Largest number of occasions of an individual, the size of the plate ``occasion``.
        index: Occasion of each time of the series, 0 first, shape ``(individual, time)``.
        changes: Time at which each further occasion begins, shape ``(individual, occasion - 1)``,
            unit of the times; infinite in the padding. It has the form that
            :class:`~pyro_amortized.nlme.ode.problem.Piecewise` takes.
    """

    number: int
    index: Tensor
    changes: Tensor

    def piecewise(self, parameters: Mapping[str, Tensor]) -> Piecewise:
        r"""Parameters of an ODE on each occasion, for ``nlme.solve(..., piecewise=)``.

        Args:
            parameters: By name, shape ``(occasion, individual)``, as sites of a plate of occasions
                have it.
        """
        return Piecewise(self.changes, {name: x.mT for name, x in parameters.items()})


def occasions(record: Series, times: Tensor) -> Occasions:
    r"""Number the occasions of each individual in the order of time.

    The plate of occasions is padded: every individual has ``number`` of them. The random effects of
    occasions that an individual does not have enter no observation::

        visits = nlme.occasions(cohort.time_varying["OCC"], series.times)
        with pyro.plate("individual", len(cohort), dim=-1):
            phi = pyro.sample("phi", ...)
            with pyro.plate("occasion", visits.number, dim=-2):
                kappa = pyro.sample("kappa", dist.Normal(0.0, iov))      # (occasion, individual)
            cl = (phi[..., 0] + kappa).exp()                             # (occasion, individual)
        closed = nlme.one_compartment(times, doses, cl=cl, v=v, occasions=visits)
        by_ode = nlme.solve(f, start, times, {"v": v}, piecewise=visits.piecewise({"cl": cl}))
        algebraic = nlme.by_occasion(cl.mT, visits.index)                # (individual, time)

    Both carry what an earlier occasion has left into the next one.

    Args:
        record: Label of the occasion over time, as the column OCC of a table gives it.
        times: Observation times, shape ``(individual, time)``, unit of the times of the record.

    Returns:
        Number, index and times of change.

    Raises:
        CohortError: ``record`` is not a series, or ``times`` is not a tensor.
    """
    fix = 'write `nlme.occasions(cohort.time_varying["OCC"], series.times)`.'
    check_is("record", record, Series, fix, CohortError)
    check_is("times", times, Tensor, fix, CohortError)
    if record.copied is not None and are_copies(times, record.copied.num):
        num, original = record.copied
        once = occasions(original, times[: len(times) // num])
        return Occasions(once.number, once.index.repeat(num, 1), once.changes.repeat(num, 1))
    labels = record.at(record.times)
    starts = torch.cat(
        [torch.zeros_like(labels[:, :1], dtype=torch.bool), labels[:, 1:] != labels[:, :-1]], 1
    )
    occasion = starts.long().cumsum(1)
    number = int(occasion.max()) + 1
    begin = torch.full((len(labels), number), torch.inf, dtype=record.times.dtype)
    begin.scatter_reduce_(1, occasion, record.times, "amin")
    index = (times.unsqueeze(-1) >= begin[:, 1:].unsqueeze(1)).sum(-1)
    return Occasions(number, index, begin[:, 1:])


def by_occasion(values: Tensor, index: Tensor) -> Tensor:
    r"""Value of the occasion to which each time belongs.

    Args:
        values: Shape ``(*, individual, occasion)``.
        index: Occasion of each time, shape ``(individual, time)``, from :class:`Occasions`.

    Returns:
        Shape ``(*, individual, time)``.

    Raises:
        ModelError: The shapes do not agree.
    """
    if values.dim() < 2 or index.dim() != 2 or values.shape[-2] != len(index):
        raise ModelError(
            f"`values` has shape {tuple(values.shape)}, `index` {tuple(index.shape)}.",
            "(individual, occasion) and (individual, time).",
            "sites inside the plate of the occasions have the shape (occasion, individual): pass "
            "`values.mT`.",
        )
    return values.gather(-1, index.expand(*values.shape[:-1], index.shape[-1]))
