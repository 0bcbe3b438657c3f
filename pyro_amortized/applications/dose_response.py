r"""The target metric of a patient as a function of the dose, on common posterior draws.

For posterior draws k of a patient, from one or several models, :class:`DoseResponse` gives the
metric :math:`M_k(d)` under a regimen that is scaled to the amount d. It evaluates the models at
some amounts (knots) and interpolates between them: linearly in log M and log d where M is positive,
which is exact where the metric is a power of the dose (linear kinetics), else linearly in M.
Knots are added where an optimum was found, until the interpolation agrees there.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..model.predictions import predicted_parts
from ..nlme.regimens import Regimen
from ..sampling.individuals import IndividualPosteriors
from .draw_weights import DrawWeights
from .recipients import Recipients
from .targets import Target
from .uncertain_draws import UncertainDraws


@dataclass(frozen=True, eq=False)
class PatientDraws:
    r"""Posterior draws of N patients from one model, and who they are for its predictions.

    Args:
        posterior: Weighted draws at the estimates of the population.
        who: The patients, with the begin of the regimen.
        draws: The same draws, perhaps each with a population of its own.
    """

    posterior: IndividualPosteriors
    who: Recipients
    draws: UncertainDraws

    def metric(self, regimen: Regimen, target: Target, amounts: Tensor | None) -> Tensor:
        r"""The metric of every draw.

        Args:
            regimen: The regimen.
            target: The target.
            amounts: Amount of the last dose of each patient, to which the regimen is scaled, shape
                ``(individual,)``; None leaves the regimen as it is.

        Returns:
            Shape ``(draw, individual)``.
        """
        factor: Tensor | float = 1.0
        if amounts is not None:
            regimen, factor = regimen.with_amount(1.0), amounts
        plan = target.regimen_of(regimen)
        times, metric = target.nodes(plan)
        who, posterior = self.who.after(plan), self.posterior
        doses = plan.doses(len(who), who.covariates, start=who.start, factor=factor)
        cohort = who.cohort(times, doses)
        parts = predicted_parts(
            posterior.structure,
            cohort,
            self.draws.unconstrained,
            self.draws.population,
            quantity=target.quantity,
        )
        return torch.cat([metric(part.prediction) for _, part in parts])


@dataclass(frozen=True, eq=False)
class Mixture:
    r"""Draws of N patients from one or several models.

    Args:
        parts: The draws of each model.
        weights: Weights of the draws of all models.
    """

    parts: tuple[PatientDraws, ...]
    weights: DrawWeights

    def metric(self, regimen: Regimen, target: Target, amounts: Tensor | None = None) -> Tensor:
        """The metric of every draw, shape ``(draw, individual)``."""
        return torch.cat([part.metric(regimen, target, amounts) for part in self.parts])


@dataclass(frozen=True, eq=False)
class DoseResponse:
    r"""The metric at some amounts, for interpolation between them.

    Args:
        log_amounts: Logarithms of the amounts, increasing, shape ``(knot, individual)``.
        metric: Metric at the knots, shape ``(knot, draw, individual)``.
    """

    log_amounts: Tensor
    metric: Tensor

    @property
    def is_positive(self) -> Tensor:
        """Draws whose values are all positive, so that their logarithms are interpolated, shape
        ``(draw, individual)``. A single draw that is zero by rounding must not change the others:
        it made doses of linear kinetics up to 15 % too small.
        """
        return (self.metric > 0).all(0)

    @property
    def transformed(self) -> Tensor:
        """What is interpolated, either logarithms or the metric itself."""
        tiny = torch.finfo(self.metric.dtype).tiny
        return torch.where(self.is_positive, self.metric.clamp(min=tiny).log(), self.metric)

    @property
    def is_increasing(self) -> bool:
        """Whether the metric increases with the dose on the whole."""
        return bool(self.metric[-1].nanmean() >= self.metric[0].nanmean())

    def with_knot(self, log_amounts: Tensor, metric: Tensor) -> "DoseResponse":
        """With one more knot for every patient, shapes ``(individual,)`` and ``(draw,
        individual)``.
        """
        amounts = torch.cat([self.log_amounts, log_amounts.unsqueeze(0)])
        values = torch.cat([self.metric, metric.unsqueeze(0)])
        amounts, order = amounts.sort(0)
        index = order.unsqueeze(1).expand_as(values)
        return DoseResponse(amounts, values.gather(0, index))

    def at(self, log_amounts: Tensor) -> Tensor:
        """Interpolated metric, shape ``(amount, draw, individual)``, for log amounts of shape
        ``(amount, individual)``.
        """
        knots = self.log_amounts
        place = torch.searchsorted(knots.T.contiguous(), log_amounts.T.contiguous()).T
        place = place.clamp(1, len(knots) - 1)
        low, high = knots.gather(0, place - 1), knots.gather(0, place)
        share = (log_amounts - low) / (high - low).clamp(min=1e-12)
        values = self.transformed
        wide = place.unsqueeze(1).expand(-1, values.shape[1], -1)
        before, after = values.gather(0, wide - 1), values.gather(0, wide)
        mixed = before + share.clamp(0.0, 1.0).unsqueeze(1) * (after - before)
        return torch.where(self.is_positive, mixed.exp(), mixed)

    def reached_at(self, level: float) -> Tensor:
        """Log amount at which each draw reaches a level of an increasing metric, shape ``(draw,
        individual)``; -inf where it lies above the level at the smallest amount, inf where it never
        reaches it.
        """
        values, knots = self.transformed, self.log_amounts
        above = self.metric >= level
        first = above.to(torch.uint8).argmax(0)  # 0 also where none is above
        place = first.clamp(min=1).unsqueeze(0)
        high, low = values.gather(0, place)[0], values.gather(0, place - 1)[0]
        tiny = torch.finfo(high.dtype).tiny
        goal = torch.full_like(high, level)
        goal = torch.where(self.is_positive, goal.clamp(min=tiny).log(), goal)
        share = ((goal - low) / torch.where(high == low, 1.0, high - low)).clamp(0.0, 1.0)
        wide = knots.unsqueeze(1).expand_as(values)
        start, end = wide.gather(0, place - 1)[0], wide.gather(0, place)[0]
        result = start + share * (end - start)
        result = result.masked_fill(above[0], -torch.inf)
        return result.masked_fill(~above.any(0), torch.inf)

    def some(self, patients: slice) -> "DoseResponse":
        """Some of the patients."""
        return replace(
            self, log_amounts=self.log_amounts[:, patients], metric=self.metric[..., patients]
        )


def dose_response(
    mixture: Mixture, regimen: Regimen, target: Target, ends: tuple[float, float], num_knots: int
) -> DoseResponse:
    r"""The metric at amounts that are equally spaced on the logarithmic scale.

    Args:
        mixture: Draws of N patients.
        regimen: The regimen that is scaled.
        target: The target.
        ends: Smallest and largest amount, both positive.
        num_knots: Number of amounts.
    """
    num = mixture.weights.values.shape[1]
    low, high = (torch.tensor(x, dtype=torch.float64).log() for x in ends)
    log_amounts = torch.linspace(float(low), float(high), num_knots, dtype=torch.float64)
    metric = [mixture.metric(regimen, target, x.exp().expand(num)) for x in log_amounts]
    return DoseResponse(log_amounts.unsqueeze(1).expand(-1, num).clone(), torch.stack(metric))
