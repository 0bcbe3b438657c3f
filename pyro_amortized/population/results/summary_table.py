r"""The summary of a fit as a table of plain text: rows of values, and their layout."""

from dataclasses import dataclass

from ...runtime.text_table import LARGEST, html_rows, number_text, text_table, worst_rows


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

    @property
    def cells(self) -> tuple[str, ...]:
        """The row as text."""
        interval = (number_text(self.lower), number_text(self.upper))
        rse = f"{self.rse:.1f}" if not self.rse >= LARGEST else number_text(self.rse)
        return (
            self.name,
            number_text(self.estimate),
            number_text(self.standard_error),
            rse,
            *interval,
        )


@dataclass(frozen=True)
class IndividualRow:
    """One individual: label, -2 log likelihood with its Monte Carlo error, ESS, Pareto k, and what
    the draws come from.
    """

    name: str
    minus2ll: float
    mc_error: float
    ess: float
    pareto_k: float
    method: str

    @property
    def cells(self) -> tuple[str, ...]:
        """The row as text."""
        likelihood = (f"{self.minus2ll:.3f}", f"{self.mc_error:.3f}")
        return (self.name, *likelihood, f"{self.ess:.0f}", f"{self.pareto_k:.2f}", self.method)


@dataclass(frozen=True)
class FitSummary:
    """Estimates, individuals, shrinkage and criteria of a fit; ``str(summary)`` is the table."""

    title: str
    parameters: list[ParameterRow]
    individuals: list[IndividualRow]
    shrinkage: dict[str, float]
    minus2ll: float
    minus2ll_mc_error: float
    aic: float
    bic_individuals: float
    bic_observations: float
    num_draws: str
    converged: bool
    message: str

    @property
    def parameter_rows(self) -> list[tuple[str, ...]]:
        """The population parameters as text, with a heading."""
        heading = ("parameter", "estimate", "SE", "RSE %", "95 % CI", "")
        return [heading, *(row.cells for row in self.parameters)]

    @property
    def short(self) -> str:
        """One line: criterion, sizes, -2LL, and whether the fit has converged."""
        state = "converged" if self.converged else "NOT CONVERGED"
        title = " ".join(self.title.split())
        return f"{title}, -2LL {self.minus2ll:.3f} ({state})"

    def _repr_html_(self) -> str:
        """The population parameters as a table, for notebooks."""
        return html_rows(self.short, self.parameter_rows)

    def __str__(self) -> str:
        parameters = self.parameter_rows
        individuals: list[tuple[str, ...]] = [
            ("individual", "-2LL", "MC error", "ESS", "Pareto k", "draws from")
        ]
        shown, words = worst_rows(self.individuals, lambda row: row.mc_error)
        individuals += [row.cells for row in shown]
        shrinkage = [("eta shrinkage", "%")]
        shrinkage += [(name, f"{100 * x:.1f}") for name, x in self.shrinkage.items()]
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
            text_table(parameters),
            text_table(criteria, align="<"),
        ]
        blocks += [
            text_table(shrinkage),
            f"{self.num_draws} draws per individual{words}",
            text_table(individuals),
        ]
        return "\n\n".join(blocks)


def estimator_note(estimator: str) -> str:
    """A second line of the title of a summary."""
    if estimator == "corrected":
        return ""
    return (
        "\nLIKELIHOOD-FREE: errors of the guide are not corrected (calibrate it), and -2LL is "
        "known only up to a constant"
    )
