r"""Runs an adaptive regimen in time order: sample, decide, dose.

Every draw of every individual has doses of its own, so draws become individuals: row ``k * N + i``
is individual i in draw k. Before each dose the samples since the last decision are drawn from the
model under the doses so far. Residual errors of different samples are taken to be independent given
the parameters, as in nearly all models.
"""

from dataclasses import replace

import torch
from torch import Generator, Tensor

from ..cohort import Doses
from ..errors import ModelError
from ..model.predictions import predict
from ..nlme.adaptive_regimens import AdaptiveRegimen, decided_amounts, measured_so_far
from .recipients import AFTER_SAMPLE, Recipients
from .simulated_individuals import Individuals


def run_adaptive(
    regimen: AdaptiveRegimen,
    who: Recipients,
    individuals: Individuals,
    quantity: str | None,
    generator: Generator,
) -> tuple[Recipients, Doses]:
    r"""The doses that an adaptive regimen leads to.

    Args:
        regimen: The regimen.
        who: N individuals.
        individuals: Their parameters in K draws.
        quantity: The measured quantity. Default: the first series.
        generator: Source of the residual errors.

    Returns:
        The K N rows as individuals of their own, and their doses.

    Raises:
        SettingError: The rule does not return one amount per row.
        ModelError: The quantity is not observed.
    """
    rows = who.repeat(len(individuals.unconstrained))
    plan = regimen.plan
    planned = plan.doses(len(rows), rows.covariates, start=rows.start)
    amounts = planned.amounts.clone()
    values = torch.zeros(len(rows), 0, dtype=torch.float64)
    for j, time in enumerate(plan.times):
        due = [t for t in regimen.samples if t <= time]
        new = due[values.shape[1] :]
        if new:
            given = _first(planned, amounts, j)
            measured = _measured(new, rows, individuals, given, quantity, generator)
            values = torch.cat([values, measured], 1)
        if j and new:
            known = measured_so_far(regimen, time, values, amounts[:, :j], rows.covariates)
            amounts[:, j] = decided_amounts(regimen.rule, known)
        elif j and due:
            amounts[:, j] = amounts[:, j - 1]
    return rows, replace(planned, amounts=amounts)


def _first(planned: Doses, amounts: Tensor, count: int) -> Doses:
    """The first doses, with the amounts that were decided; before the first, one of amount 0."""
    columns = {name: x[:, : max(count, 1)] for name, x in planned.columns.items()}
    given = amounts[:, : max(count, 1)] * (1.0 if count else 0.0)
    return Doses(**columns | {"amounts": given})


def _measured(
    times: list[float],
    rows: Recipients,
    individuals: Individuals,
    doses: Doses,
    quantity: str | None,
    generator: Generator,
) -> Tensor:
    """Samples at some times, shape ``(row, sample)``."""
    before = torch.tensor(times, dtype=torch.float64)
    before = before - AFTER_SAMPLE * before.abs().clamp(min=1.0)
    predicted = predict(
        individuals.structure,
        rows.cohort(before, doses),
        individuals.unconstrained,
        individuals.population,
        quantity=quantity,
        generator=generator,
    )
    if predicted.observation is None:
        raise ModelError(
            f"The quantity {quantity!r} is not observed, so a rule cannot measure it.",
            f"a series of the model: {individuals.structure.series}.",
            "correct `quantity=`.",
        )
    return predicted.observation.flatten(0, 1)
