r"""How a fit ended, in words: for the summary and for ``fit.message``."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ...model import Population
from ...numerics.laplace import Curvature
from ...numerics.maximization import Objective
from ..search.fit_rounds import Rounds
from ..search.parameter_limits import Limit
from ..search.vanishing_deviations import what_vanishes


@dataclass(frozen=True)
class MessageSettings:
    r"""What is said about a fit.

    Args:
        min_flat_share: Part of the largest component of a flat direction from which a parameter is
            named.
        min_named_error: Monte Carlo error of an estimate, in standard errors, from which it is
            named: it then adds half a per cent to the width of a confidence interval.
        min_named_change: The same of a standard error, as a part of it.
        difference_step: Where the optimiser failed, its gradient is compared with differences over
            this part of a large step.
        shorter_step: Part of a large step of the shorter differences, in which a third order, large
            in rates that all share, is smaller.
        lasting_share: Part of a disagreement that has to remain with the shorter differences.
        wrong_share: Relative disagreement from which the gradient is called wrong.
        wrong_slope: And its smallest size for a large step, in log likelihood: rounding and kinks
            do not reach it.
    """

    min_flat_share: float = 0.05
    min_named_error: float = 0.1
    min_named_change: float = 0.1
    difference_step: float = 1e-3
    shorter_step: float = 1e-4
    lasting_share: float = 0.5
    wrong_share: float = 0.1
    wrong_slope: float = 0.1


MESSAGE = MessageSettings()


def has_ended(rounds: Rounds) -> bool:
    """Whether the optimiser has converged. At a kink of a learned density it cannot; the gain of
    the last round alone then shows how the fit ended.
    """
    return rounds.ascent.optimum.converged or rounds.search.structure.estimator == "likelihood-free"


def cut_gradients(rounds: Rounds) -> list[str]:
    """Parameters whose gradient is none of the likelihood: the model takes values out of torch."""
    ascent, search = rounds.ascent, rounds.search
    objective, center = search.objective(ascent.likelihood), ascent.optimum.vector.detach()
    vector = center.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(objective(vector), vector)
    found = []
    for j in (~ascent.held).nonzero()[:, 0].tolist():
        step, slope = torch.zeros_like(center), gradient[j] * search.scale[j]
        step[j] = search.scale[j]
        by_differences, shorter = (
            _slope(objective, center, step, size)
            for size in (MESSAGE.difference_step, MESSAGE.shorter_step)
        )
        wrong = (by_differences - slope).abs()
        largest = torch.maximum(by_differences.abs(), slope.abs())
        is_wrong = (wrong > MESSAGE.wrong_slope) & (wrong > MESSAGE.wrong_share * largest)
        if bool(is_wrong & ((shorter - slope).abs() > MESSAGE.lasting_share * wrong)):
            found.append(search.structure.population_names[j])
    return found


def _slope(objective: Objective, center: Tensor, step: Tensor, size: float) -> Tensor:
    """The slope along a large step, from differences over a part of it."""
    with torch.no_grad():
        return (objective(center + size * step) - objective(center - size * step)) / (2 * size)


def error_message(names: list[str], relative_errors: Tensor, changes: Tensor) -> str:
    r"""The largest Monte Carlo errors of the estimates and of the standard errors, if they are
    large enough to matter; else "".

    Args:
        names: Labels of the parameters.
        relative_errors: Monte Carlo errors in standard errors, shape ``(population,)``.
        changes: Those of the standard errors, as parts of these, same shape.
    """
    error, j = relative_errors.nan_to_num(0.0).max(0)
    change, k = changes.nan_to_num(0.0).max(0)
    found = []
    if float(error) >= MESSAGE.min_named_error:
        found.append(f"of {names[int(j)]} is {float(error):.2f} of its standard error")
    if float(change) >= MESSAGE.min_named_change:
        name = names[int(k)]
        found.append(f"of the standard error of {name} is {100 * float(change):.0f} % of it")
    if not found:
        return ""
    return f"; the Monte Carlo error {' and that '.join(found)} (`num_draws=` makes more draws)"


def rounds_in_words(num_rounds: int) -> str:
    """A number of rounds with draws, in words."""
    return "one round of draws" if num_rounds == 1 else f"{num_rounds} rounds of draws"


def fit_message(
    rounds: Rounds,
    curvature: Curvature,
    covered: bool,
    fixed: Population,
    limits: Mapping[int, Limit],
) -> str:
    r"""How a fit ended, in words.

    Args:
        rounds: Its rounds.
        curvature: The curvature at the estimates.
        covered: Whether the draws are good enough for standard errors.
        fixed: Values of the sites that were not estimated.
        limits: Parameters at the limit of their support, by the index of the flat direction.
    """
    ascent, structure = rounds.ascent, rounds.search.structure
    names_of_all, scale = structure.population_names, rounds.search.scale
    parts = [
        f"{rounds_in_words(rounds.num_rounds)}; the last gained {ascent.gain:.3f} in log likelihood"
    ]
    cut: list[str] = []
    if not has_ended(rounds) or len(curvature.flat) > len(limits):
        cut = cut_gradients(rounds)
        if not has_ended(rounds):
            parts.append(f"the optimiser did not converge: {ascent.optimum.message}")
        if cut:
            parts.append(
                f"the gradient of {', '.join(cut)} is not that of the likelihood: `.detach()`, "
                "`.item()`, `float(...)` or NumPy in the model takes values out of torch"
            )
    if ascent.gain >= rounds.min_gain:
        parts.append("more rounds would still gain")
    vanishing = (ascent.held & ~structure.coordinates(fixed)).nonzero()[:, 0].tolist()
    vector, search = ascent.optimum.vector, rounds.search
    parts += [
        f"{what_vanishes(structure, search.cohort, vector, search.seed, j)} cannot be "
        f"distinguished from zero, and {names_of_all[j]} is held"
        for j in vanishing
    ]
    if not covered:
        parts.append(
            "there are no standard errors, because few draws are effective at the estimates or the "
            "last round still gained much"
        )
    if cut:
        return "; ".join(parts)  # a curvature by wrong gradients says nothing about the data
    return "; ".join(parts + _of_curvature(curvature, names_of_all, scale, limits))


def _of_curvature(
    curvature: Curvature, names: list[str], scale: Tensor, limits: Mapping[int, Limit]
) -> list[str]:
    """What the curvature says of the estimates and of their standard errors."""
    source = [
        "the standard errors are those of the scores of the individuals, because the Monte Carlo "
        "error hides the curvature"
    ]
    flat = [
        str(limits[i]) if i in limits else _flat_direction(names, scale, x)
        for i, x in enumerate(curvature.flat)
    ]
    if curvature.by_scores:
        return source + flat
    if curvature.is_maximum or flat:
        return flat
    return [
        "the likelihood has no proper maximum: a standard deviation of the individual parameters "
        "may be zero"
    ]


def flat_places(direction: Tensor) -> list[int]:
    """Coordinates that take part in a flat direction."""
    share = direction.abs() / direction.abs().max()
    return [j for j, x in enumerate(share.tolist()) if x > MESSAGE.min_flat_share]


def _flat_direction(names: list[str], scale: Tensor, direction: Tensor) -> str:
    """A direction that the data do not determine, in words."""
    places = flat_places(direction)
    if len(places) == 1:
        return f"the data do not determine {names[places[0]]}"
    moves = direction * scale
    first = max(places, key=lambda j: abs(float(direction[j])))
    relative = (moves / moves[first]).tolist()
    together = ", ".join(f"{names[j]} by {relative[j]:+.2f}" for j in places)
    return (
        f"the data do not determine {', '.join(names[j] for j in places[:-1])} and "
        f"{names[places[-1]]} separately: the likelihood is the same when they change together "
        f"({together}, unconstrained); fix one of them, or use the prior "
        "(`maximum_a_posteriori=True`, `AmortizedMCMC`)"
    )
