r"""The structure of a user's model: its roles, densities and simulations.

With the individual parameters in unconstrained coordinates u (``latent`` of them per individual),
population parameters Psi and shared parameters c (the part of Psi that observations depend on
directly), a :class:`ModelStructure` gives

.. math:: \log p(y_i \mid \phi(u_i), c), \qquad \log p(\phi(u_i) \mid \Psi) + \log |\partial\phi /
    \partial u|

for K draws per individual at once. For this purpose the cohort is repeated K times.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pyro.poutine.trace_struct import Trace
from torch import Generator, Tensor

from ..cohort import Cohort
from ..errors import ModelError
from ..runtime.isolation import seeded
from ..runtime.solver_context import caching_here
from .observation_density import Estimator, IndividualLogDensity, ObservationDensity
from .outcome_kinds import site_mean
from .population_parameters import ParameterRoles, Population
from .program_run import Assign, run_program
from .program_simulation import lay_out, simulate_repeatedly, simulated_values
from .sites import individual_log_prob, individual_rows, plain_support, unconstrain_site


@dataclass(frozen=True)
class CallSettings:
    r"""Number of observed values in one call of the model.

    Args:
        max_values: In calls whose result is used once: calls that fit in the processor's cache are
            several times faster than larger ones.
        max_values_kept: In calls that are repeated with gradients: each part keeps its own graph,
            so fewer and larger parts are better.
    """

    max_values: int = 150_000
    max_values_kept: int = 500_000


CALLS = CallSettings()


@dataclass(frozen=True, eq=False)
class ModelStructure(ParameterRoles):
    r"""The structure of a model: roles of its sites, densities and simulations.

    :func:`read_structure` makes it, with the roles of the sites, the fields of its base class.

    Args:
        learned_density: A density of the observations in place of the program's own, or None.
    """

    learned_density: ObservationDensity | None = None

    # Individual parameters.

    def constrain(
        self, cohort: Cohort, unconstrained: Tensor, population: Population
    ) -> tuple[dict[str, Tensor], Tensor]:
        r"""Values of the individual sites, in the layout of the model, and the log Jacobian.

        Args:
            cohort: N individuals.
            unconstrained: Shape ``(individual, latent)``.
            population: Values of the population sites.
        """
        assign = Assign(population, self.individual, unconstrained)
        trace = run_program(self.model, cohort, assign, frozenset(self.individual))
        return {name: trace.nodes[name]["value"] for name in self.individual}, assign.log_abs_det()

    def unconstrain(self, cohort: Cohort, values: Population, population: Population) -> Tensor:
        """Unconstrained coordinates, shape ``(individual, latent)``, of values in the layout of the
        model.
        """
        assign = Assign(population, values=values)
        trace = run_program(self.model, cohort, assign, frozenset(self.individual))
        return self._unconstrained(trace)

    def _unconstrained(self, trace: Trace) -> Tensor:
        """Unconstrained coordinates ``(individual, latent)`` of the values of a run."""
        nodes = [(site, trace.nodes[name]) for name, site in self.individual.items()]
        pieces = [unconstrain_site(s, plain_support(x["fn"]), x["value"]) for s, x in nodes]
        return torch.cat(pieces, -1)

    def draw_individuals(
        self, cohort: Cohort, population: Population, num_draws: int, generator: Generator
    ) -> Tensor:
        r"""Draws of the individual parameters from :math:`p(\phi \mid \Psi)`, in unconstrained
        coordinates, shape ``(draw, individual, latent)``.
        """
        repeated = cohort.to(dtype=torch.float64).repeat(num_draws)
        with seeded(generator):
            trace = run_program(
                self.model, repeated, Assign(population), frozenset(self.individual)
            )
        return self._unconstrained(trace).detach().reshape(num_draws, len(cohort), -1)

    def constrained_draws(
        self, cohort: Cohort, unconstrained: Tensor, population: Population
    ) -> dict[str, Tensor]:
        r"""Values of the individual sites, individuals first.

        Args:
            cohort: N individuals.
            unconstrained: Shape ``(draw, individual, latent)``.
            population: Values of the population sites.

        Returns:
            By name, shape ``(draw, individual, *event)``.
        """
        num_draws, num = unconstrained.shape[:2]
        repeated = cohort.to(dtype=torch.float64).repeat(num_draws)
        values, _ = self.constrain(repeated, unconstrained.reshape(num_draws * num, -1), population)
        rows = {n: individual_rows(s, values[n]) for n, s in self.individual.items()}
        return {name: x.reshape(num_draws, num, *x.shape[1:]) for name, x in rows.items()}

    # Densities.

    @property
    def estimator(self) -> Estimator:
        """Which density of the observations :meth:`log_density` uses: ``"corrected"`` is that of
        the model itself, ``"likelihood-free"`` a learned one.
        """
        return "corrected" if self.learned_density is None else "likelihood-free"

    def check_density(self) -> None:
        r"""Raise unless all observations have a density.

        Raises:
            ModelError: Some observations can only be simulated.
        """
        without = [site.name for site in self.observed.values() if not site.has_density]
        if without and self.learned_density is None:
            raise ModelError(
                f"The observations {without} can be simulated, but have no density.",
                "observations with a density, which weights and marginal likelihood need.",
                'pass `estimator="likelihood-free"` and calibrate the guide, or use a distribution '
                "with a density.",
            )

    def log_density(
        self, cohort: Cohort, unconstrained: Tensor, population: Population
    ) -> IndividualLogDensity:
        r"""Log densities of K draws per individual, in float64, differentiable in the population.

        Args:
            cohort: N individuals.
            unconstrained: Shape ``(draw, individual, latent)``.
            population: Values of the population sites.

        Returns:
            Shape ``(draw, individual)`` each. Values that are not finite are returned, not raised.
        """
        parts = self._parts(cohort, unconstrained, CALLS.max_values)
        densities = [self._log_density_of(repeated, draws, population) for repeated, draws in parts]
        return IndividualLogDensity.joined(densities)

    def _parts(
        self, cohort: Cohort, unconstrained: Tensor, max_values: int
    ) -> Iterator[tuple[Cohort, Tensor]]:
        """Parts of the draws, each with the cohort repeated once per draw."""
        for draws in unconstrained.double().split(self.draws_per_call(cohort, max_values)):
            yield cohort.to(dtype=torch.float64).repeat(len(draws)), draws

    def draws_per_call(self, cohort: Cohort, max_values: int = CALLS.max_values) -> int:
        """Number of draws of every individual in one call of the model."""
        return max(1, max_values // max(sum(cohort[n].values.numel() for n in self.series), 1))

    def prepared_density(
        self, cohort: Cohort, unconstrained: Tensor
    ) -> Callable[[Population, Tensor], IndividualLogDensity]:
        """:meth:`log_density` as a function of the population and of the draws, which have the
        shape of ``unconstrained``; the cohort is prepared.
        """
        parts = list(self._parts(cohort, unconstrained, CALLS.max_values_kept))
        sizes = [len(x) for _, x in parts]

        def density(population: Population, draws: Tensor) -> IndividualLogDensity:
            densities = [
                self._log_density_of(repeated, x, population)
                for (repeated, _), x in zip(parts, draws.split(sizes), strict=True)
            ]
            return IndividualLogDensity.joined(densities)

        return density

    def _log_density_of(
        self, repeated: Cohort, draws: Tensor, population: Population
    ) -> IndividualLogDensity:
        """Densities of draws ``(draw, individual, latent)``; ``repeated`` is the cohort repeated
        once per draw.
        """
        if self.learned_density is not None:
            return IndividualLogDensity(
                self.learned_density.log_prob(repeated, draws, population),
                self.log_individual_of(repeated, draws, population),
            )
        self.check_density()
        shape, rows = draws.shape[:2], draws.flatten(0, 1)
        assign = Assign(population, self.individual, rows)
        trace = run_program(self.model, repeated, assign)
        observation = self.total(self.observed, trace, len(rows))
        individual = self.total(self.individual, trace, len(rows)) + assign.log_abs_det()
        return IndividualLogDensity(observation.reshape(shape), individual.reshape(shape))

    def _log_observation_of(
        self, repeated: Cohort, draws: Tensor, population: Population
    ) -> Tensor:
        """The first part of :meth:`_log_density_of` alone, shape ``(draw, individual)``."""
        if self.learned_density is not None:
            return self.learned_density.log_prob(repeated, draws, population)
        self.check_density()
        shape, rows = draws.shape[:2], draws.flatten(0, 1)
        trace = run_program(self.model, repeated, Assign(population, self.individual, rows))
        return self.total(self.observed, trace, len(rows)).reshape(shape)

    def log_observations(
        self, cohort: Cohort, unconstrained: Tensor, populations: Sequence[Population]
    ) -> list[Tensor]:
        """The first part of :meth:`log_density` at several populations.

        Dynamics that are the same for several populations are solved once.
        """
        densities = []
        for repeated, draws in self._parts(cohort, unconstrained, CALLS.max_values):
            with caching_here():
                parts = [self._log_observation_of(repeated, draws, p) for p in populations]
            densities.append(parts)
        return [torch.cat(x) for x in zip(*densities, strict=True)]

    def log_individual(
        self, cohort: Cohort, unconstrained: Tensor, population: Population
    ) -> Tensor:
        """Only the second part of :meth:`log_density`; the observations are not computed."""
        repeated = cohort.to(dtype=torch.float64).repeat(len(unconstrained))
        return self.log_individual_of(repeated, unconstrained.double(), population)

    def log_individual_of(self, repeated: Cohort, draws: Tensor, population: Population) -> Tensor:
        """As :meth:`log_individual`, for a cohort that is already repeated once per draw."""
        shape, rows = draws.shape[:2], draws.flatten(0, 1)
        assign = Assign(population, self.individual, rows)
        trace = run_program(self.model, repeated, assign, frozenset(self.individual))
        total = self.total(self.individual, trace, len(rows)) + assign.log_abs_det()
        return total.reshape(shape)

    @staticmethod
    def total(sites: Mapping[str, Any], trace: Trace, num: int) -> Tensor:
        """Sum of the log densities of some sites, per individual."""
        terms = [individual_log_prob(s, trace.nodes[n], num) for n, s in sites.items()]
        return torch.stack(terms).sum(0)

    def log_observation(self, cohort: Cohort, unconstrained: Tensor, shared: Tensor) -> Tensor:
        r"""Log p(y | phi, c) with one value of the shared parameters per individual.

        Args:
            cohort: N individuals.
            unconstrained: Shape ``(draw, individual, latent)``.
            shared: Unconstrained shared parameters, shape ``(individual, shared)``.

        Returns:
            Shape ``(draw, individual)``.
        """
        population, num_draws = self.initial_population(), len(unconstrained)
        if self.layout is not None:
            laid_out = population | lay_out(self, shared.double().repeat(num_draws, 1), self.layout)
            repeated = cohort.to(dtype=torch.float64).repeat(num_draws)
            return self._log_observation_of(repeated, unconstrained.double(), laid_out)
        columns = []
        for i in range(len(cohort)):
            one = population | self.constrain_population(shared[i].double(), self.shared)
            density = self.log_density(cohort[i], unconstrained[:, i : i + 1], one)
            columns.append(density.observation)
        return torch.cat(columns, 1)

    def predicted_mean(
        self, cohort: Cohort, unconstrained: Tensor, population: Population
    ) -> dict[str, Tensor]:
        """Means of the observations given each draw, by series, shape ``(draw, individual, time[,
        channel])``; series whose distribution has no mean, and events, are left out.
        """
        num_draws, num = unconstrained.shape[:2]
        repeated = cohort.to(dtype=torch.float64).repeat(num_draws)
        rows = unconstrained.reshape(num_draws * num, -1).double()
        with torch.no_grad():
            trace = run_program(self.model, repeated, Assign(population, self.individual, rows))
        means = {}
        for n, s in self.observed.items():
            mean = site_mean(trace.nodes[n]["fn"])
            if mean is not None:
                rows = individual_rows(s, mean)
                means[s.series] = rows.reshape(num_draws, num, *rows.shape[1:])
        return means

    def predict_draws(
        self, cohort: Cohort, unconstrained: Tensor, population: Population, generator: Generator
    ) -> dict[str, Tensor]:
        """Posterior predictive observations, one per draw and individual, by series, shape
        ``(draw, individual, time[, channel])``.
        """
        num_draws, num = unconstrained.shape[:2]
        repeated = cohort.to(dtype=torch.float64).repeat(num_draws)
        rows = unconstrained.reshape(num_draws * num, -1).double()
        with seeded(generator):
            values = simulated_values(self, repeated, rows, population)[0]
        return {name: x.reshape(num_draws, num, *x.shape[1:]) for name, x in values.items()}

    # Simulation of training data.

    def simulate(
        self,
        design: Cohort,
        unconstrained: Tensor,
        shared: Tensor,
        population: Population,
        generator: Generator,
    ) -> tuple[Cohort, Tensor]:
        r"""Draw observations given individual and shared parameters.

        Args:
            design: Times, doses, covariates and what is recorded of N individuals; its values are
                ignored.
            unconstrained: Individual parameters, shape ``(individual, latent)``.
            shared: Unconstrained shared parameters of each individual, shape ``(individual,
                shared)``. Without a layout the model is called once per distinct row.
            population: Values of the other population sites, which do not affect the observations.
            generator: Source of randomness.

        Returns:
            The design with simulated values, and whether each simulation failed, shape
            ``(individual,)``. A simulation has failed if a value that should be recorded is not
            finite in single precision; no value of that individual is marked as recorded then.
        """
        drawn = simulate_repeatedly(self, design, unconstrained, shared, population, generator)
        return drawn[0][0], drawn[1]

    def simulate_cohort(
        self, design: Cohort, population: Population, generator: Generator
    ) -> tuple[Cohort, Tensor]:
        """As :meth:`simulate`, with individual parameters that are drawn given the population."""
        draws = self.draw_individuals(design, population, 1, generator)[0]
        shared = self.unconstrain_population(population, self.shared).expand(len(design), -1)
        return self.simulate(design, draws, shared, population, generator)
