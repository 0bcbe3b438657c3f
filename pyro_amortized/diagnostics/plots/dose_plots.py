r"""Pictures of recommended doses, and of expected errors of designs."""

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...applications import DesignEvaluation, Recommendation
from ...errors import SettingError
from ...runtime.arguments import check_is
from ...sampling.weighted_quantiles import weighted_quantiles
from .panels import FITTED, MUTED, OBSERVED, label_axes, panel_grid

INTERVAL = 1.64  # standard errors on either side of a central 90 %


def recommended_dose(recommendation: Recommendation, *, individual: str | None = None) -> Figure:
    r"""The probability of the target (or the expected loss) by dose, and the distribution of the
    metric under the recommended dose, for one patient.

    Bands show the Monte Carlo error (90 %).

    Args:
        recommendation: Result of :func:`~pyro_amortized.recommend`.
        individual: Label of the patient. Default: the first.

    Raises:
        SettingError: There is no such patient.
    """
    check_is("recommendation", recommendation, Recommendation, "pass what `recommend` gives.")
    name = recommendation.ids[0] if individual is None else str(individual)
    if name not in recommendation.ids:
        raise SettingError(
            f"There is no patient {name!r}.",
            f"one of {list(recommendation.ids[:5])}.",
            "correct `individual=`.",
        )
    i = recommendation.ids.index(name)
    figure, (left, right) = panel_grid(2, 2, 4.2, 3.0)
    _draw_doses(left, recommendation, i)
    _draw_metric(right, recommendation, i)
    title = f"patient {name}: {recommendation.regimens[i].label}"
    figure.suptitle(title, fontsize=10)
    return figure


def _draw_doses(ax: Axes, result: Recommendation, i: int) -> None:
    """Probability or loss by dose; a line over a range, points for candidates."""
    c = result.candidates
    by_loss = bool(c.loss[:, i].isfinite().any())
    value, error = (c.loss, c.loss_error) if by_loss else (c.probability, c.probability_error)
    y, half = value[:, i].numpy(), INTERVAL * error[:, i].numpy()
    what = "expected loss" if by_loss else "probability of the target"
    if result.names[i]:
        ax.errorbar(range(len(y)), y, half, fmt="o", color=OBSERVED, ms=4, lw=1)
        best = c.names.index(result.names[i])
        ax.plot([best], [y[best]], "o", color=FITTED, ms=7)
        ax.set_xticks(range(len(y)), c.names, rotation=30, ha="right", fontsize=7)
        label_axes(ax, "", what, result.target.label)
        return
    x = c.amounts[:, i].numpy()
    ax.fill_between(x, y - half, y + half, color=OBSERVED, alpha=0.2, lw=0)
    ax.plot(x, y, color=OBSERVED, lw=1.4)
    amount = float(result.amounts[i])
    ax.axvline(amount, color=FITTED, lw=1.4)
    label_axes(ax, "dose", what, f"{result.target.label}; best dose {amount:.4g}")


def _draw_metric(ax: Axes, result: Recommendation, i: int) -> None:
    """Weighted histogram of the metric under the recommended dose, with the target."""
    values, weights = result.metric[:, i].numpy(), result.weights[:, i].numpy()
    levels = torch.tensor([0.002, 0.998], dtype=torch.float64)
    ends = weighted_quantiles(result.metric[:, [i]], result.weights[:, [i]], levels)[:, 0]
    known = [x for x in (result.target.low, result.target.high, result.target.value) if x]
    shown = (min([float(ends[0]), *known]), max([float(ends[1]), *known]))
    ax.hist(values, bins=40, range=shown, weights=weights, color=MUTED, density=True)
    for end in (result.target.low, result.target.high, result.target.value):
        if end is not None:
            ax.axvline(end, color=FITTED, lw=1.4, ls="--")
    share = float(result.probability[i])
    text = f"probability of the target {share:.2f}" if share == share else "expected metric"
    ax.set_yticks([])
    label_axes(ax, result.target.kind, "", text)


def expected_errors(evaluation: DesignEvaluation) -> Figure:
    r"""Expected relative standard errors of every parameter by design, with Monte Carlo errors.

    Args:
        evaluation: Result of :func:`~pyro_amortized.evaluate_designs`.
    """
    check_is("evaluation", evaluation, DesignEvaluation, "pass what `evaluate_designs` gives.")
    table = evaluation.table()
    parameters = list(dict.fromkeys(table["parameter"]))
    figure, (ax,) = panel_grid(1, 1, 5.4, 0.5 + 0.32 * len(parameters) + 0.8)
    num = len(evaluation)
    colors = (OBSERVED, FITTED, MUTED)
    for j, name in enumerate(evaluation):
        part = table[table["design"] == name]
        place = [k + 0.7 * ((j + 0.5) / num - 0.5) for k in range(len(parameters))]
        half = INTERVAL * part["rse"] * part["monte_carlo_error"] / part["standard_error"]
        color, marker = colors[j % len(colors)], "osD^v"[j % 5]
        ax.errorbar(part["rse"], place, xerr=half, fmt=marker, color=color, ms=4, lw=1, label=name)
    ax.set_yticks(range(len(parameters)), parameters)
    ax.invert_yaxis()
    ax.set_xlim(left=0)
    ax.legend(fontsize=7)
    label_axes(ax, "expected relative standard error, %", "")
    return figure
