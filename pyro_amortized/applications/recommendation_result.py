r"""The result of a dose recommendation."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import pandas as pd
import torch
from torch import Tensor

from ..nlme.regimens import Regimen
from ..runtime.text_table import html_rows, text_table
from ..sampling.individuals import IndividualPosteriors
from ..sampling.weighted_quantiles import weighted_quantiles
from .targets import Target

LEVELS = (0.05, 0.5, 0.95)  # quantiles of the metric in tables
MAX_ROWS = 30  # rows of a printed table: half a page


@dataclass(frozen=True, eq=False)
class Candidates:
    r"""Doses that were compared.

    Args:
        names: Name of each candidate.
        amounts: Amount of the last dose of each candidate, shape ``(candidate, individual)``.
        probability: Probability of the target, same shape; NaN without a range.
        probability_error: Its Monte Carlo standard error.
        loss: Expected loss, same shape; NaN without a loss.
        loss_error: Its Monte Carlo standard error.
    """

    names: tuple[str, ...]
    amounts: Tensor
    probability: Tensor
    probability_error: Tensor
    loss: Tensor
    loss_error: Tensor


@dataclass(frozen=True, eq=False)
class Recommendation:
    r"""The best dose of each patient. Made by :func:`recommend`.

    Args:
        ids: Labels of the patients.
        target: The target.
        criterion: What "best" means, in words.
        regimens: The recommended regimen of each patient.
        names: Name of the best candidate of each patient.
        amounts: Amount of the recommended dose (the last one of the regimen), shape
            ``(individual,)``.
        amount_errors: Its Monte Carlo standard error, same shape; NaN for candidates and at an end
            of the range.
        probability: Probability of the target under this dose, same shape; NaN without a range.
        probability_errors: Its Monte Carlo standard error.
        loss: Expected loss under this dose; NaN without a loss.
        loss_errors: Its Monte Carlo standard error.
        reached: Whether the wanted probability is reached (True without one).
        inside: Whether the best dose lies inside the range that was searched.
        metric: Metric of every draw under the recommended dose, shape ``(draw, individual)``.
        weights: Normalised weights of the draws, same shape.
        candidates: Doses that were compared, or points of the range.
        model_weights: Weight of each model for each patient, shape ``(individual,)``, by name.
        uncertainties: What varies between the draws, ``"population and individuals"`` or
            ``"individuals"``, by name of the model.
        unusual: Patients outside what the model knows: reasons by label.
        posteriors: Weighted draws of each model at the estimates of its population.
        reweighted: Whether earlier draws were weighted by the new samples, without new draws.
    """

    ids: tuple[str, ...]
    target: Target
    criterion: str
    regimens: tuple[Regimen, ...]
    names: tuple[str, ...]
    amounts: Tensor
    amount_errors: Tensor
    probability: Tensor
    probability_errors: Tensor
    loss: Tensor
    loss_errors: Tensor
    reached: Tensor
    inside: Tensor
    metric: Tensor
    weights: Tensor
    candidates: Candidates
    model_weights: Mapping[str, Tensor]
    uncertainties: Mapping[str, str]
    unusual: Mapping[str, str]
    posteriors: tuple[IndividualPosteriors, ...]
    reweighted: bool

    def __repr__(self) -> str:
        lines = [f"Recommendation: {self.target.label}; {self.criterion}"]
        kinds = dict.fromkeys(self.uncertainties.values())
        each = ", ".join(f"{n}: {kind}" for n, kind in self.uncertainties.items())
        lines += [f"uncertainty of {each if len(kinds) > 1 else next(iter(kinds))}", ""]
        lines.append(text_table(self._rows()))
        if len(self.model_weights) > 1 and len(self.ids) == 1:
            shares = ", ".join(f"{n} {float(x[0]):.2f}" for n, x in self.model_weights.items())
            lines.append(f"\nweights of the models: {shares}")
        lines += [f"\nOutside what the model knows: {n}: {why}" for n, why in self.unusual.items()]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """The table, for notebooks."""
        return html_rows(f"{self.target.label}; {self.criterion}", self._rows())

    @cached_property
    def metric_quantiles(self) -> Tensor:
        """5 %, 50 % and 95 % quantiles of the metric under the recommended dose, shape ``(3,
        individual)``.
        """
        levels = torch.tensor(LEVELS, dtype=torch.float64)
        return weighted_quantiles(self.metric, self.weights, levels)

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row per patient with the recommended dose, its Monte Carlo error, probability, loss,
        quantiles of the metric, and whether the wanted probability is reached.
        """
        low, middle, high = self.metric_quantiles.numpy()
        return pd.DataFrame(
            {
                "individual": list(self.ids),
                "regimen": [x.label for x in self.regimens],
                "amount": self.amounts.numpy(),
                "amount_error": self.amount_errors.numpy(),
                "probability": self.probability.numpy(),
                "probability_error": self.probability_errors.numpy(),
                "loss": self.loss.numpy(),
                "loss_error": self.loss_errors.numpy(),
                "metric_p5": low,
                "metric_median": middle,
                "metric_p95": high,
                "reached": self.reached.numpy(),
                "inside": self.inside.numpy(),
            }
        )

    def to_dataframe(self) -> pd.DataFrame:
        """One row per patient and candidate with the probability of the target, the expected loss
        and their Monte Carlo errors.
        """
        c, parts = self.candidates, []
        for i, label in enumerate(self.ids):
            columns = {
                "individual": label,
                "candidate": list(c.names),
                "amount": c.amounts[:, i].numpy(),
                "probability": c.probability[:, i].numpy(),
                "probability_error": c.probability_error[:, i].numpy(),
                "loss": c.loss[:, i].numpy(),
                "loss_error": c.loss_error[:, i].numpy(),
            }
            parts.append(pd.DataFrame(columns))
        return pd.concat(parts, ignore_index=True)

    def _rows(self) -> list[tuple[str, ...]]:
        heading: tuple[str, ...] = ("patient", "dose", "MC error", "P(target)", "MC error")
        heading += ("loss",) if bool(self.loss.isfinite().any()) else ()
        rows: list[tuple[str, ...]] = [(*heading, "5 %", "median", "95 % of the metric", "")]
        low, middle, high = self.metric_quantiles.tolist()
        for i, label in enumerate(self.ids[:MAX_ROWS]):
            name = self.names[i] or f"{float(self.amounts[i]):.5g}"
            cells = [label, name, _number(self.amount_errors[i], ".2g")]
            cells += [_number(self.probability[i], ".3f")]
            cells += [_number(self.probability_errors[i], ".3f")]
            cells += [f"{float(self.loss[i]):.4g}"] if len(heading) > 5 else []
            cells += [f"{x:.4g}" for x in (low[i], middle[i], high[i])]
            rows.append((*cells, self._note(i)))
        if len(self.ids) > MAX_ROWS:
            more = f"... {len(self.ids) - MAX_ROWS} more in `.table`"
            rows.append((more, *[""] * (len(rows[0]) - 1)))
        return rows

    def _note(self, i: int) -> str:
        """What a reader must know about the dose of a patient."""
        if not bool(self.reached[i]):
            return "probability not reached"
        if not bool(self.inside[i]):
            return "at an end of the range"
        return ""


def _number(value: Tensor, form: str) -> str:
    """A number as text; a dash where there is none."""
    return format(float(value), form) if bool(value.isfinite()) else "-"
