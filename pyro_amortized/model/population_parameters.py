r"""The roles of a model's sites, and its population parameters.

Population parameters are given as dictionaries of values by name. An optimizer works with the same
values as a flat vector of unconstrained coordinates.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.distributions import biject_to

from ..cohort import Cohort, Series
from ..errors import ModelError
from ..runtime.isolation import seeded
from .program_run import Assign, run_program
from .sites import IndividualSite, Model, ObservedSite, PopulationSite, site_log_prob

Population = Mapping[str, Tensor]


def _num_event_rows(series: Series) -> int:
    """Number of events, and of individuals whose observation ends without one."""
    recorded = series.observed.all(-1)
    happened = recorded & (series.values[..., 1] > 0)
    ends = (recorded & ~happened).any(-1)
    return int(happened.sum()) + int(ends.sum())


@dataclass(frozen=True, eq=False)
class ParameterRoles:
    r"""The roles of a model's sites.

    Args:
        model: The model.
        population: Sites and parameters outside the plate, by name, in the order of the model.
        individual: Latent sites inside the plate.
        observed: Observed sites inside the plate.
        shared: Names of the population sites on which observations depend directly.
        layout: Number of trailing singleton dimensions that each shared parameter needs when it has
            one value per individual. None if no layout works; simulation then calls the model
            once per value.
        nuisance: Names of latent sites inside the plate that are simulated and not kept.
        readers: Names of observation sites whose distribution reads values of the cohort, so that
            they are simulated in the order of time.
    """

    model: Model
    population: Mapping[str, PopulationSite]
    individual: Mapping[str, IndividualSite]
    observed: Mapping[str, ObservedSite]
    shared: tuple[str, ...]
    layout: Mapping[str, int] | None = None
    nuisance: tuple[str, ...] = ()
    readers: tuple[str, ...] = ()

    @property
    def num_latent(self) -> int:
        """Number of unconstrained coordinates of one individual."""
        return sum(site.num_unconstrained for site in self.individual.values())

    @property
    def num_shared(self) -> int:
        """Number of unconstrained coordinates of the shared parameters."""
        return sum(self.population[name].num_unconstrained for name in self.shared)

    @property
    def latent_names(self) -> list[str]:
        """One label, ``site`` or ``site[j]``, per unconstrained coordinate of an individual."""
        return [name for site in self.individual.values() for name in site.coordinate_names]

    @property
    def population_names(self) -> list[str]:
        """One label per unconstrained coordinate of the population parameters."""
        return [name for site in self.population.values() for name in site.coordinate_names]

    @property
    def series(self) -> list[str]:
        """Names of the series that the model observes."""
        return [site.series for site in self.observed.values()]

    def num_observations(self, cohort: Cohort) -> int:
        """Number of recorded values that the model observes; of events that of the events, and one
        for the end of the observation of each individual that has one.
        """
        return sum(
            _num_event_rows(cohort[site.series])
            if site.kind == "event"
            else cohort[site.series].num_observations
            for site in self.observed.values()
        )

    @property
    def has_density(self) -> bool:
        """Whether all observations have a density, so that none can only be simulated."""
        return all(site.has_density for site in self.observed.values())

    # Population parameters: dictionaries of values and flat unconstrained vectors.

    def initial_population(self) -> dict[str, Tensor]:
        """A population inside the support: a draw from the prior, and the values of parameters."""
        return {name: site.initial for name, site in self.population.items()}

    def constrain_population(
        self, vector: Tensor, names: tuple[str, ...] | None = None
    ) -> dict[str, Tensor]:
        """Values by name from unconstrained coordinates, shape ``(*, population)``."""
        sites = [
            self.population[name] for name in (names if names is not None else self.population)
        ]
        pieces = vector.split([site.num_unconstrained for site in sites], -1)
        return {site.name: site.constrain(piece) for site, piece in zip(sites, pieces, strict=True)}

    def unconstrain_population(
        self, population: Population, names: tuple[str, ...] | None = None
    ) -> Tensor:
        """Unconstrained coordinates of values by name, shape ``(population,)``."""
        names = names if names is not None else tuple(self.population)
        pieces = [self.population[name].unconstrain(population[name].double()) for name in names]
        empty = torch.zeros(0, dtype=torch.float64)
        return torch.cat([empty, *(piece.reshape(-1) for piece in pieces)])

    def log_abs_det(self, vector: Tensor) -> Tensor:
        """Log Jacobian of :meth:`constrain_population` for the sites with a prior, a scalar."""
        pieces = vector.split([site.num_unconstrained for site in self.population.values()], -1)
        total = vector.new_zeros(())
        for site, piece in zip(self.population.values(), pieces, strict=True):
            if not site.is_param:
                transform = biject_to(site.support)
                free = piece.reshape(site.unconstrained_shape)
                total = total + transform.log_abs_det_jacobian(free, transform(free)).sum()
        return total

    def coordinates(self, names: Collection[str]) -> Tensor:
        """Which unconstrained population coordinates belong to the given sites, shape
        ``(population,)``.
        """
        flags = [n in names for n, s in self.population.items() for _ in range(s.num_unconstrained)]
        return torch.tensor(flags, dtype=torch.bool)

    def check_values(self, values: Population) -> dict[str, Tensor]:
        r"""The given values of some sites, checked and in float64.

        Raises:
            ModelError: As in :meth:`check_population`, but sites may be absent.
        """
        checked = self.check_population(self.initial_population() | dict(values))
        return {name: checked[name] for name in values}

    def check_population(self, population: Population) -> dict[str, Tensor]:
        r"""The given values in float64; every site has a value of the right shape in its support.

        Raises:
            ModelError: A value is missing, superfluous, of the wrong shape or outside its support.
        """
        extra, missing = (
            set(population) - set(self.population),
            set(self.population) - set(population),
        )
        if extra or missing:
            raise ModelError(
                "The population has "
                f"{'no ' + str(sorted(missing)) if missing else 'unknown ' + str(sorted(extra))}.",
                f"a value for each of {list(self.population)}.",
                "name every site outside the plate `individual`, and nothing else.",
            )
        checked = {}
        for name, site in self.population.items():
            try:
                value = torch.as_tensor(population[name]).double()
            except (TypeError, ValueError, RuntimeError) as error:
                raise ModelError(
                    f"Population parameter {name!r} is a {type(population[name]).__name__}.",
                    f"a tensor of shape {tuple(site.shape)}.",
                    f"correct population[{name!r}].",
                ) from error
            if value.shape != site.shape or not bool(site.support.check(value).all()):
                raise ModelError(
                    f"Population parameter {name!r} is {value.tolist()}.",
                    f"shape {tuple(site.shape)}, inside its support {site.support}.",
                    f"correct population[{name!r}].",
                )
            checked[name] = value
        return checked

    def log_prior(self, cohort: Cohort, population: Population) -> Tensor:
        """Log prior density of the population sites, a scalar; a ``pyro.param`` has no prior."""
        terms = list(self.log_priors(cohort, population).values())
        return torch.stack(terms).sum() if terms else torch.zeros((), dtype=torch.float64)

    def log_priors(self, cohort: Cohort, population: Population) -> dict[str, Tensor]:
        """Log prior density of each population site, scalars by name."""
        wanted = frozenset(self.population)
        trace = run_program(self.model, cohort.to(dtype=torch.float64), Assign(population), wanted)
        return {
            n: site_log_prob(trace.nodes[n]).sum()
            for n, s in self.population.items()
            if not s.is_param
        }

    def draw_populations(
        self, cohort: Cohort, num_draws: int, generator: Generator
    ) -> list[dict[str, Tensor]]:
        r"""Draws from the prior of the population.

        A ``pyro.param`` has no prior. It is drawn from a normal distribution around its value in
        unconstrained coordinates, with standard deviation 1. If its support is the real line, the
        standard deviation is half of its absolute value where that is larger.
        """
        wanted = frozenset(n for n, s in self.population.items() if not s.is_param)
        one_individual, draws = cohort[:1].to(dtype=torch.float64), []
        params = {n: s for n, s in self.population.items() if s.is_param}
        with seeded(generator):
            for _ in range(num_draws):
                values = {name: site.constrain(_draw_param(site)) for name, site in params.items()}
                trace = run_program(self.model, one_individual, Assign(values), wanted)
                values |= {name: trace.nodes[name]["value"].detach() for name in wanted}
                draws.append({name: values[name] for name in self.population})
        return draws

    def population_scale(self, cohort: Cohort, generator: Generator, num_draws: int = 40) -> Tensor:
        """Standard deviations of the prior, unconstrained, shape ``(population,)``."""
        draws = self.draw_populations(cohort, num_draws, generator)
        spread = torch.stack([self.unconstrain_population(d) for d in draws]).std(0)
        return torch.where(spread.isfinite() & (spread > 0), spread, torch.ones_like(spread))


def _draw_param(site: PopulationSite) -> Tensor:
    center = site.unconstrain(site.initial.double())
    real = torch.equal(center, site.initial.double().reshape(-1))
    sd = (center.abs() / 2).clamp(min=1.0) if real else torch.ones_like(center)
    return center + sd * torch.randn_like(center)
