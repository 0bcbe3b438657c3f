r"""Compares doses on common draws: the optimum of a range, or the best of some candidates."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas
import torch
from torch import Tensor

from ..errors import SettingError
from ..nlme.regimens import Regimen
from ..runtime.arguments import check_is, check_number
from ..runtime.user_warnings import warn_user
from .dose_criterion import DoseCriterion
from .dose_optimum import DoseOptimum, optimum
from .dose_response import DoseResponse, Mixture, dose_response
from .draw_weights import DrawWeights
from .recommendation_result import Candidates
from .regimen_names import check_names


@dataclass(frozen=True)
class RangeSettings:
    r"""How a range of amounts is searched.

    Args:
        num_knots: Amounts at which the models are evaluated first.
        num_knots_many: The same for many draws.
        many: Draws of all patients together that count as many.
        max_added: Most knots that are added around optima.
        tolerance: The search ends when the optimum moves by less, relatively.
        num_points: Amounts of the picture, equally spaced on the logarithmic scale.
        points_deviations: They lie within so many standard deviations of the logarithm of the
            metric from the best dose.
        points_factors: And within factors of the best dose between these.
        slack: Part of a probability that may be missing, for rounding.
    """

    num_knots: int = 5
    num_knots_many: int = 3
    many: int = 50_000
    max_added: int = 6
    tolerance: float = 1e-3
    num_points: int = 41
    points_deviations: float = 5.0
    points_factors: tuple[float, float] = (1.2, 4.0)
    slack: float = 1e-9


SETTINGS = RangeSettings()


def named_candidates(candidates: Any, regimen: Regimen) -> dict[str, Regimen]:
    r"""Regimens by name, from amounts or regimens.

    Raises:
        SettingError: They are neither, or there are none.
    """
    if isinstance(candidates, Mapping):
        named = {str(name): x for name, x in candidates.items()}
    else:
        if isinstance(candidates, pandas.DataFrame) and candidates.shape[1] == 1:
            candidates = candidates.iloc[:, 0]
        if isinstance(candidates, pandas.Series):
            candidates = candidates.to_numpy()
        if isinstance(candidates, Tensor | np.ndarray):
            candidates = candidates.reshape(-1).tolist()
        fix = "pass `(low, high)`, a list of amounts, or regimens in a list or by name."
        check_is("candidates", candidates, Sequence, fix)
        pairs = []
        for x in candidates:
            if isinstance(x, Regimen):
                pairs.append((x.label, x))
            else:
                check_number("candidates", x, 0, with_low=False)
                pairs.append((f"{x:.12g}", regimen.with_amount(float(x))))
        check_names("candidates", [name for name, _ in pairs])
        named = dict(pairs)
    for name, x in named.items():
        check_is(f"candidates[{name!r}]", x, Regimen, "pass what `nlme.regimen` gives.")
    if not named:
        raise SettingError("There are no candidates.", "one or more.", "pass amounts or regimens.")
    return named


def best_in_range(
    mixture: Mixture,
    regimen: Regimen,
    ends: tuple[float, float],
    criterion: DoseCriterion,
) -> dict[str, Any]:
    r"""The best amount of a range for each patient: fields of a recommendation.

    Raises:
        SettingError: The range is empty.
    """
    if not ends[1] > ends[0]:
        raise SettingError(
            f"The range of amounts goes from {ends[0]:g} to {ends[1]:g}.",
            "a positive smallest amount and a larger one.",
            "correct `candidates=`.",
        )
    is_many = mixture.weights.values.numel() > SETTINGS.many
    num_knots = SETTINGS.num_knots_many if is_many else SETTINGS.num_knots
    response = dose_response(mixture, regimen, criterion.target, ends, num_knots)
    _warn_of_no_effect(response, mixture)

    def optimum_of(current: DoseResponse) -> DoseOptimum:
        return optimum(current, mixture.weights, criterion)

    def metric_at(amounts: Tensor) -> Tensor:
        return mixture.metric(regimen, criterion.target, amounts)

    response, best = _settled_optimum(response, optimum_of, metric_at)
    amounts = best.log_amount.exp()
    metric = response.at(best.log_amount.unsqueeze(0))[0]  # a knot is near
    fields = _quality(metric, mixture.weights, criterion)
    unwanted = criterion.probability is None
    reached = _all(amounts) if unwanted else _reached(fields, best, criterion)
    return fields | {
        "regimens": tuple(regimen.with_amount(float(x)) for x in amounts),
        "names": ("",) * len(amounts),
        "amounts": amounts,
        "amount_errors": (amounts * best.error).masked_fill(~best.is_inside, torch.nan),
        "reached": reached,
        "inside": best.is_inside,
        "metric": metric,
        "candidates": _points(response, best.log_amount, mixture.weights, criterion),
    }


def _reached(fields: Mapping[str, Tensor], best: DoseOptimum, criterion: DoseCriterion) -> Tensor:
    """Whether the best amounts have a probability, shape ``(individual,)``. That of a root is known
    up to the Monte Carlo error of the interpolated quantile.
    """
    assert criterion.probability is not None
    found, errors = fields["probability"], fields["probability_errors"]
    missing = criterion.probability - found
    below = missing > SETTINGS.slack
    short = below if criterion.is_range else missing > 3 * errors + SETTINGS.slack
    return ~(short | (~best.is_inside & below))


def _settled_optimum(
    response: DoseResponse,
    optimum_of: Callable[[DoseResponse], DoseOptimum],
    metric_at: Callable[[Tensor], Tensor],
) -> tuple[DoseResponse, DoseOptimum]:
    """The response with knots at the optimum of each patient, until this no longer moves."""
    best = optimum_of(response)
    for _ in range(SETTINGS.max_added):
        response = response.with_knot(best.log_amount, metric_at(best.log_amount.exp()))
        before, best = best.log_amount, optimum_of(response)
        if bool(((best.log_amount - before).abs() < SETTINGS.tolerance).all()):
            break
    return response, best


def _warn_of_no_effect(response: DoseResponse, mixture: Mixture) -> None:
    """Warn of patients whose metric is the same at the smallest and the largest amount."""
    same = (response.metric[-1] == response.metric[0]).all(0)
    if bool(same.any()):
        ids = mixture.parts[0].posterior.cohort.ids
        names = ", ".join(ids[i] for i in same.nonzero()[:5, 0].tolist())
        warn_user(
            f"The dose does not change the metric of {int(same.sum())} of the patients ({names}). "
            "Check the window of the target (`at=`, `window=`), `start=` and `quantity=`: the dose "
            "may arrive later. Where the program reads the dose as a covariate, compare arms by "
            "`pa.simulate(fit, {name: {covariate: dose}})`."
        )


def _all(like: Tensor) -> Tensor:
    return torch.ones_like(like, dtype=torch.bool)


def _quality(metric: Tensor, weights: DrawWeights, criterion: DoseCriterion) -> dict[str, Tensor]:
    """Probability of the target and expected loss, with Monte Carlo errors, shape
    ``(individual,)``.
    """
    nothing = torch.full(metric.shape[-1:], torch.nan, dtype=torch.float64)
    share, share_error, mean, mean_error = nothing, nothing, nothing, nothing
    target = criterion.target
    if target.low is not None or target.high is not None:
        share, share_error = weights.mean_error(target.inside(metric).double())
    if criterion.loss is not None:
        mean, mean_error = weights.mean_error(criterion.losses(metric))
    return {
        "probability": share,
        "probability_errors": share_error,
        "loss": mean,
        "loss_errors": mean_error,
    }


def _points(
    response: DoseResponse,
    best: Tensor,
    weights: DrawWeights,
    criterion: DoseCriterion,
) -> Candidates:
    """Points of the range around the best dose for the picture and the table, by interpolation."""
    at_best = response.at(best.unsqueeze(0))[0].clamp(min=1e-300).log()
    mean = (weights.values * at_best).sum(0)
    deviation = (weights.values * (at_best - mean).square()).sum(0).sqrt()
    least, most = (math.log(x) for x in SETTINGS.points_factors)
    spread = (SETTINGS.points_deviations * deviation).clamp(least, most)
    low = torch.maximum(response.log_amounts[0], best - spread)
    high = torch.minimum(response.log_amounts[-1], best + spread)
    steps = torch.linspace(0, 1, SETTINGS.num_points, dtype=torch.float64)
    rows = []
    for step in steps:
        log_amount = low + step * (high - low)
        metric = response.at(log_amount.unsqueeze(0))[0]
        rows.append(_quality(metric, weights, criterion) | {"amounts": log_amount.exp()})
    names = tuple(f"{float(x['amounts'][0]):.4g}" for x in rows)
    return _candidates(names, rows)


def _candidates(names: tuple[str, ...], rows: list[dict[str, Tensor]]) -> Candidates:
    columns = ("amounts", "probability", "probability_errors", "loss", "loss_errors")
    return Candidates(names, *(torch.stack([row[c] for row in rows]) for c in columns))


def best_candidate(
    mixture: Mixture,
    named: Mapping[str, Regimen],
    criterion: DoseCriterion,
) -> dict[str, Any]:
    """The best of some regimens for each patient: fields of a recommendation."""
    num = mixture.weights.values.shape[1]
    metrics, rows = [], []
    for regimen in named.values():
        metric = mixture.metric(regimen, criterion.target)
        amount = torch.full((num,), regimen.amounts[-1], dtype=torch.float64)
        metrics.append(metric)
        rows.append(_quality(metric, mixture.weights, criterion) | {"amounts": amount})
    table = _candidates(tuple(named), rows)
    best = _choice(table, named, criterion)
    index = best.unsqueeze(0)
    metric = torch.stack(metrics).gather(0, best.reshape(1, 1, -1).expand(1, *metrics[0].shape))[0]
    chosen = table.probability.gather(0, index)[0]
    wanted = criterion.probability
    names = list(named)
    return {
        "regimens": tuple(named[names[j]] for j in best.tolist()),
        "names": tuple(names[j] for j in best.tolist()),
        "amounts": table.amounts.gather(0, index)[0],
        "amount_errors": torch.full((num,), torch.nan, dtype=torch.float64),
        "probability": chosen,
        "probability_errors": table.probability_error.gather(0, index)[0],
        "loss": table.loss.gather(0, index)[0],
        "loss_errors": table.loss_error.gather(0, index)[0],
        "reached": _all(chosen) if wanted is None else chosen >= wanted - SETTINGS.slack,
        "inside": torch.ones(num, dtype=torch.bool),
        "metric": metric,
        "candidates": table,
    }


def _choice(
    table: Candidates,
    named: Mapping[str, Regimen],
    criterion: DoseCriterion,
) -> Tensor:
    """Index of the best candidate of each patient."""
    target, probability = criterion.target, criterion.probability
    if criterion.loss is not None:
        return table.loss.argmin(0)
    if probability is None or criterion.is_range:
        return table.probability.argmax(0)
    total = torch.tensor([sum(x.amounts) for x in named.values()], dtype=torch.float64)
    order = total if target.low is not None else -total  # the smallest, or the largest, that does
    enough = table.probability >= probability - SETTINGS.slack
    ranked = order.unsqueeze(1).masked_fill(~enough, torch.inf)
    return torch.where(enough.any(0), ranked.argmin(0), table.probability.argmax(0))
