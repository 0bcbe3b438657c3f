r"""A fit as a table of plain text."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ParameterRow:
    """One population parameter: name, estimate, standard error, 95 % confidence interval, in its
    support.
    """

    name: str
    estimate: float
    standard_error: float
    lower: float
    upper: float

    @property
    def rse(self) -> float:
        """Relative standard error in per cent of the estimate."""
        return 100 * self.standard_error / abs(self.estimate) if self.estimate else float("nan")


@dataclass(frozen=True)
class IndividualRow:
    """One individual: label, -2 log likelihood, its Monte Carlo error, ESS, Pareto k, origin of the
    draws.
    """

    name: str
    minus2ll: float
    mc_error: float
    ess: float
    pareto_k: float
    method: str


@dataclass(frozen=True)
class FitSummary:
    """Everything that a fit has to say, as rows; ``str(summary)`` is the table."""

    title: str
    parameters: list[ParameterRow]
    individuals: list[IndividualRow]
    shrinkage: dict[str, float]
    minus2ll: float
    minus2ll_mc_error: float
    aic: float
    bic_individuals: float
    bic_observations: float
    num_draws: int
    converged: bool
    message: str

    def __str__(self) -> str:
        parameters = [("parameter", "estimate", "SE", "RSE %", "95 % CI", "")]
        for p in self.parameters:
            parameters.append(
                (
                    p.name,
                    f"{p.estimate:.4f}",
                    f"{p.standard_error:.4f}",
                    f"{p.rse:.1f}",
                    f"{p.lower:.4f}",
                    f"{p.upper:.4f}",
                )
            )
        individuals = [("individual", "-2LL", "MC error", "ESS", "Pareto k", "draws from")]
        for i in self.individuals:
            individuals.append(
                (
                    i.name,
                    f"{i.minus2ll:.3f}",
                    f"{i.mc_error:.3f}",
                    f"{i.ess:.0f}",
                    f"{i.pareto_k:.2f}",
                    i.method,
                )
            )
        shrinkage = [("eta shrinkage", "%")] + [
            (n, f"{100 * x:.1f}") for n, x in self.shrinkage.items()
        ]
        criteria = [
            ("-2LL", f"{self.minus2ll:.3f} (MC error {self.minus2ll_mc_error:.3f})"),
            ("AIC", f"{self.aic:.3f}"),
            ("BIC, log of individuals", f"{self.bic_individuals:.3f}"),
            ("BIC, log of observations", f"{self.bic_observations:.3f}"),
        ]
        state = "converged" if self.converged else "NOT CONVERGED"
        blocks = [
            self.title,
            f"{state}: {self.message}",
            _table(parameters),
            _table(criteria, align="<"),
        ]
        blocks += [_table(shrinkage), f"{self.num_draws} draws per individual", _table(individuals)]
        return "\n\n".join(blocks)


def _table(rows: Sequence[tuple[str, ...]], align: str = ">") -> str:
    widths = [max(len(row[j]) for row in rows) for j in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            f"{row[0]:<{widths[0]}}",
            *(f"{c:{align}{w}}" for c, w in zip(row[1:], widths[1:], strict=True)),
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
