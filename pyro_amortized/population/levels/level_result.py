r"""The fit of a model with a level above the individuals, and its summary."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from ...cohort import Cohort
from ...model import ModelStructure
from ...numerics.laplace import delta_method
from ...runtime.random_numbers import make_generator
from ...runtime.text_table import html_rows, number_text, text_table
from ..results.fit_result import Bic, PopulationFit
from ..results.reported_parameters import reported_site
from ..results.summary_table import ParameterRow
from .level_likelihood import LevelLikelihood, drawn_level_likelihood
from .level_sites import Level


@dataclass(frozen=True, eq=False, repr=False)
class LevelFit:
    r"""A fit with a level above the individuals. Made by :func:`fit_levels`.

    Args:
        structure: The structure of the model.
        cohort: The data.
        level: The level.
        vector: Unconstrained estimates, with the posterior means of the effects, shape
            ``(population,)``.
        covariance: Covariance of the unconstrained estimates, shape ``(population, population)``;
            NaN for the effects, for what was fixed, and for what the data do not determine.
        minus2ll: -2 log likelihood.
        minus2ll_mc_error: Its Monte Carlo standard error.
        effects: Posterior means of the effects by site, shape of the site.
        effect_deviations: Their posterior standard deviations, likewise.
        units: Unit of each individual, shape ``(individual,)``; -1 for none.
        fixed: Names of the population sites that were not estimated.
        converged: Whether the rounds ended by themselves.
        message: How they ended, and what has no standard error.
        num_rounds: Number of rounds.
        seconds: Duration.
        num_draws: Draws of each individual.
        drawn: The likelihood on the last draws of the fit; None for a fit that was loaded.
    """

    structure: ModelStructure
    cohort: Cohort
    level: Level
    vector: Tensor
    covariance: Tensor
    minus2ll: float
    minus2ll_mc_error: float
    effects: Mapping[str, Tensor]
    effect_deviations: Mapping[str, Tensor]
    units: Tensor
    fixed: tuple[str, ...] = ()
    converged: bool = False
    message: str = ""
    num_rounds: int = 0
    seconds: float = 0.0
    num_draws: int = 500
    drawn: LevelLikelihood | None = None

    use_instead: ClassVar[str] = (
        "of a fit with a level, diagnoses, reports, plots and simulations take "
        "`fit.given_effects()`."
    )

    @cached_property
    def likelihood(self) -> LevelLikelihood:
        """The likelihood of the units as a function of the unconstrained parameters, on the draws
        of the fit; on new ones where it was loaded.
        """
        if self.drawn is not None:
            return self.drawn
        parts = (self.structure, self.cohort, self.level, self.vector)
        return drawn_level_likelihood(*parts, self.num_draws, make_generator(0))

    @property
    def estimated(self) -> Tensor:
        """Which unconstrained coordinates were estimated, shape ``(population,)``: neither effects
        nor fixed.
        """
        return ~self.structure.coordinates((*self.level.sites, *self.fixed))

    @property
    def population(self) -> dict[str, Tensor]:
        """Estimates, and posterior means of the effects, of all population sites."""
        return self.structure.constrain_population(self.vector)

    @property
    def estimates(self) -> dict[str, Tensor]:
        """Population parameters by name, without the effects of the level."""
        return {n: x for n, x in self.population.items() if n not in self.level.sites}

    @property
    def standard_errors(self) -> dict[str, Tensor]:
        """Standard errors of the estimates by the delta method, by name; NaN where there is none,
        or the parameter was fixed.
        """
        return {name: self.derived(lambda p, n=name: p[n])[1] for name in self.estimates}  # type: ignore[misc]

    def derived(self, function: Callable[[Mapping[str, Tensor]], Tensor]) -> tuple[Tensor, Tensor]:
        r"""Estimate and standard error of a function of the population parameters, by the delta
        method; effects of the units are taken as known.

        Args:
            function: Differentiable function of the population parameters by name, in their
                support.

        Returns:
            The value and its standard error, shape of the value.

        Example:
            The share of the variance that lies between sites:
            ``fit.derived(lambda p: p["tau"]**2 / (p["tau"]**2 + p["omega"]**2))``.
        """

        def value(vector: Tensor) -> Tensor:
            return function(self.structure.constrain_population(vector))

        return delta_method(value, self.vector, self.covariance)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the unconstrained coordinates that were estimated."""
        both = zip(self.structure.population_names, self.estimated.tolist(), strict=True)
        return tuple(name for name, is_own in both if is_own)

    @property
    def num_parameters(self) -> int:
        """Number of estimated parameters."""
        return len(self.names)

    @property
    def aic(self) -> float:
        """Akaike's information criterion, -2LL + 2 P."""
        return self.minus2ll + 2 * self.num_parameters

    @property
    def bic(self) -> Bic:
        """-2LL + P log(number of individuals), and -2LL + P log(number of observations)."""
        sizes = (len(self.cohort), self.structure.num_observations(self.cohort))
        return Bic(*(self.minus2ll + self.num_parameters * math.log(n) for n in sizes))

    def shrinkage(self) -> dict[str, float]:
        r"""Shrinkage of the effects of the units, by the name of the effect; NaN for one unit.

        .. math:: 1 - \sqrt{\frac{\mathrm{var}(\hat b)}{\mathrm{var}(\hat b) + \overline{s^2}}}

        with the posterior means :math:`\hat b` of the units and their posterior variances
        :math:`s^2`, whose sum is the variance between units.
        """
        found: dict[str, float] = {}
        for name, mean in self.effects.items():
            rows = mean.reshape(self.level.num_units, -1)
            errors = self.effect_deviations[name].reshape(rows.shape).square().mean(0)
            between = rows.var(0)
            values = (1 - (between / (between + errors)).sqrt()).tolist()
            names = [name] if len(values) == 1 else [f"{name}[{j}]" for j in range(len(values))]
            found |= dict(zip(names, values, strict=True))
        return found

    def unit_labels(self) -> tuple[str, ...]:
        """Labels of the units: the names of a category that says the unit of every individual, else
        their numbers.
        """
        numbers = range(self.level.num_units)
        for name, known in self.cohort.categories.items():
            same = torch.equal(self.cohort.covariates[name].long(), self.units.long())
            if same and len(known) == self.level.num_units:
                return tuple(known)
        return tuple(str(i) for i in numbers)

    def save(self, path: str | Path) -> None:
        r"""Write the fit to a folder: data, estimates and effects in ``levels.safetensors``;
        nothing is pickled. :func:`~pyro_amortized.load_levels` reads it.

        Args:
            path: The folder; it is created if it does not exist.
        """
        from .level_files import save_levels

        save_levels(self, path)

    def given_effects(self, num_draws: int = 500, seed: int = 0) -> PopulationFit:
        r"""The individuals given the posterior means of the effects of their units, as a fit of
        individuals, for what takes one: :func:`~pyro_amortized.diagnostics.diagnose`, residuals,
        plots, :func:`~pyro_amortized.simulate`.

        Args:
            num_draws: Draws of each individual.
            seed: Seed of the draws.

        Returns:
            A fit in which estimates and effects are fixed parameters without standard errors. Its
            -2LL is that of the individuals given the effects, not that of this fit.
        """
        from .level_individuals import fit_given_effects

        return fit_given_effects(self, num_draws, seed)

    def _repr_html_(self) -> str:
        """The estimates as a table, for notebooks."""
        return html_rows(repr(self), self._parameter_rows())

    def __repr__(self) -> str:
        state = "converged" if self.converged else "NOT CONVERGED"
        return (
            f"fit of {len(self.cohort)} individuals in {self.level.num_units} units of "
            f"{self.level.plate!r}, -2LL {self.minus2ll:.3f} ({state})"
        )

    def summary(self) -> str:
        """Estimates, standard errors, shrinkage, and effects of the units as text."""
        shrinkage = [("shrinkage of effects", "%")]
        shrinkage += [(name, f"{100 * x:.1f}") for name, x in self.shrinkage().items()]
        num = self.structure.num_observations(self.cohort)
        title = (
            f"maximum likelihood, {len(self.cohort)} individuals in {self.level.num_units} units "
            f"of {self.level.plate!r}, {num} observations"
        )
        words = f"{'converged' if self.converged else 'NOT CONVERGED'}: {self.message}"
        criteria = [
            ("-2LL", f"{self.minus2ll:.3f} (MC error {self.minus2ll_mc_error:.3f})"),
            ("AIC", f"{self.aic:.3f}"),
            ("BIC, log of individuals", f"{self.bic.individuals:.3f}"),
            ("BIC, log of observations", f"{self.bic.observations:.3f}"),
        ]
        blocks = [
            text_table(self._parameter_rows()),
            text_table(criteria, align="<"),
            text_table(shrinkage),
            text_table(self._unit_rows()),
        ]
        return "\n\n".join([title, words, *blocks])

    def _parameter_rows(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = [("parameter", "estimate", "SE", "RSE %", "95 % CI", "")]
        for name in self.estimates:
            reported = reported_site(self.structure, name)
            value, error = delta_method(reported.values, self.vector, self.covariance)
            ends = reported.interval(self.vector, self.covariance)
            columns = (x.tolist() for x in (value, error, *ends))
            rows += [ParameterRow(*row).cells for row in zip(reported.names, *columns, strict=True)]
        return rows

    def _unit_rows(self) -> list[tuple[str, ...]]:
        counts = [int((self.units == i).sum()) for i in range(self.level.num_units)]
        heading: list[str] = [self.level.plate, "individuals"]
        columns = []
        for name, mean in self.effects.items():
            rows = mean.reshape(self.level.num_units, -1)
            errors = self.effect_deviations[name].reshape(rows.shape)
            for j in range(rows.shape[1]):
                heading += [name if rows.shape[1] == 1 else f"{name}[{j}]", "SD"]
                columns += [rows[:, j].tolist(), errors[:, j].tolist()]
        cells = zip(self.unit_labels(), counts, *columns, strict=True)
        return [tuple(heading), *(_unit_cells(*row) for row in cells)]


def _unit_cells(label: str, count: int, *values: float) -> tuple[str, ...]:
    return (label, str(count), *(number_text(x) for x in values))
