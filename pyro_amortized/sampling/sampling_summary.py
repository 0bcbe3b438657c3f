"""Draws of the individuals as a table: where they come from, their quality and their cost."""

from dataclasses import dataclass

from ..runtime.text_table import text_table, worst_rows


@dataclass(frozen=True)
class SamplingRow:
    """One individual: label, what its draws come from, number of evaluated densities, effective
    sample size, Pareto k, and number of modes (0: not searched for).
    """

    name: str
    method: str
    evaluations: int
    ess: float
    pareto_k: float
    num_modes: int

    @property
    def cells(self) -> tuple[str, ...]:
        """The row as text."""
        quality = (f"{self.ess:.0f}", f"{self.pareto_k:.2f}", str(self.num_modes or "-"))
        return (self.name, self.method, str(self.evaluations), *quality)


@dataclass(frozen=True)
class SamplingSummary:
    """The individuals of some draws; ``str(summary)`` is the table."""

    individuals: list[SamplingRow]
    num_draws: int

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [
            ("individual", "draws from", "densities", "ESS", "Pareto k", "modes")
        ]
        shown, words = worst_rows(self.individuals, lambda row: -row.ess)
        rows += [row.cells for row in shown]
        return f"{text_table(rows)}\n\n{self.num_draws} draws of each individual{words}."
