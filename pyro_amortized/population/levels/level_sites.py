r"""Levels above the individuals: studies, sites, families.

A site of the model inside another plate than that of the individuals, and outside theirs, has one
value for each unit of a level::

    with pyro.plate("site", 8):
        effect = pyro.sample("effect", dist.Normal(0.0, between))
    with pyro.plate("individual", len(cohort)):
        clearance = pyro.sample("clearance", dist.Normal(typical + effect[..., site], omega))

Individuals are independent given the effects. Which unit an individual belongs to is found by
changing the effects: its likelihood depends on those of one unit.
"""

from dataclasses import dataclass

import torch
from pyro.poutine.trace_struct import Trace
from torch import Generator, Tensor

from ...cohort import Cohort
from ...errors import FitError
from ...model import ModelStructure, Population
from ...model.program_run import Assign, run_program
from ...model.sites import PLATE, site_log_prob
from ...runtime.isolation import seeded
from ...runtime.random_numbers import make_generator


@dataclass(frozen=True, eq=False)
class Level:
    r"""One level of a model.

    Args:
        plate: Name of its plate.
        sites: Names of the population sites inside it.
        num_units: Number of units.
        size: Number of effects of a unit.
        places: Place of the effects in the vector of the population, shape ``(unit, effect)``.
    """

    plate: str
    sites: tuple[str, ...]
    num_units: int
    size: int
    places: Tensor

    def log_prior(
        self, structure: ModelStructure, cohort: Cohort, population: Population
    ) -> Tensor:
        """Log density of the effects of each unit given the other population parameters, in
        unconstrained coordinates, shape ``(unit,)``.
        """
        trace = _population_run(structure, cohort, population)
        terms = [
            site_log_prob(trace.nodes[n]).reshape(self.num_units, -1).sum(-1) for n in self.sites
        ]
        return torch.stack(terms).sum(0)

    def new_effects(
        self,
        structure: ModelStructure,
        cohort: Cohort,
        population: Population,
        generator: Generator,
    ) -> dict[str, Tensor]:
        """The population with effects of new units, drawn given the other population parameters."""
        others = {n: x for n, x in population.items() if n not in self.sites}
        with torch.no_grad(), seeded(generator):
            trace = _population_run(structure, cohort, others)
        return others | {name: trace.nodes[name]["value"] for name in self.sites}


def _population_run(structure: ModelStructure, cohort: Cohort, population: Population) -> Trace:
    """A run of the model up to its last population site."""
    sites = frozenset(structure.population)
    return run_program(structure.model, cohort[:1], Assign(population), sites)


def levels_of(structure: ModelStructure, cohort: Cohort) -> dict[str, tuple[str, ...]]:
    """Names of the plates above the individuals, with the population sites inside each."""
    double = cohort[:1].to(dtype=torch.float64)
    trace = _population_run(structure, double, structure.initial_population())
    found: dict[str, tuple[str, ...]] = {}
    for name, site in structure.population.items():
        if site.is_param:
            continue
        for frame in trace.nodes[name]["cond_indep_stack"]:
            if frame.name != PLATE and frame.vectorized:
                found[frame.name] = (*found.get(frame.name, ()), name)
    return found


def hierarchical_sites(structure: ModelStructure, cohort: Cohort) -> tuple[str, ...]:
    """Population sites inside a plate above the individuals whose density depends on other
    population sites: their maximum likelihood estimates would ignore this density.
    """
    inside = [name for names in levels_of(structure, cohort).values() for name in names]
    if not inside:
        return ()
    generator = make_generator(0)
    first, second = structure.draw_populations(cohort, 2, generator)
    found = []
    for name in inside:
        densities = []
        for other in (first, second):
            values = dict(other) | {n: first[n] for n in inside}
            densities.append(structure.log_priors(cohort[:1], values)[name])
        if not torch.allclose(densities[0], densities[1]):
            found.append(name)
    return tuple(found)


def check_no_levels(
    structure: ModelStructure, cohort: Cohort, fixed: Population, criterion: str
) -> None:
    r"""Raise if a fit would take random effects of a level for parameters.

    Raises:
        FitError: A site inside a plate above the individuals has a density that is estimated.
    """
    if criterion != "maximum likelihood":
        return
    sites = [name for name in hierarchical_sites(structure, cohort) if name not in fixed]
    if sites:
        raise FitError(
            f"The sites {sites} are random effects of a level above the individuals.",
            "population parameters without a density of their own that is estimated.",
            "call `pa.fit_levels(model, cohort)`, which integrates over them; or draw from the "
            "posterior of the collapsed model, `MCMC(NUTS(pa.marginalize(model)), ...)`.",
        )


def the_level(structure: ModelStructure, cohort: Cohort) -> Level:
    r"""The one level of a model.

    Raises:
        FitError: There is none, there are several, its plate is not the only dimension of its
            sites, or their support is not the real line.
    """
    found = levels_of(structure, cohort)
    if not found:
        raise FitError(
            "The model has no level above the individuals: all plates are those of individuals.",
            "one plate above the individuals with a random effect inside.",
            "call `pa.fit_population(model, cohort)`, or write `with pyro.plate('site', "
            "num_sites):` around a site that the individuals read.",
        )
    if len(found) > 1:
        raise FitError(
            f"The model has the levels {sorted(found)} above the individuals.",
            "one plate above the individuals with a random effect inside, and individuals that are "
            "nested in its units.",
            "crossed levels, and levels above levels, are beyond this fit: estimate the effects of "
            "one of them as parameters without a prior that is estimated, or draw from the "
            "posterior of the collapsed model, `MCMC(NUTS(pa.marginalize(model)), ...)`.",
        )
    ((plate, sites),) = found.items()
    shapes = {name: structure.population[name].shape for name in sites}
    num_units = next(iter(shapes.values()))[0] if all(shapes.values()) else 0
    supports = {str(structure.population[name].support) for name in sites}
    flat = all(len(shape) >= 1 and shape[0] == num_units for shape in shapes.values())
    real = all("Real" in s for s in supports)
    if not flat or not real:
        raise FitError(
            f"The sites of the plate {plate!r} have the shapes "
            f"{[tuple(s) for s in shapes.values()]} and the supports {sorted(supports)}.",
            "shape (unit,) or (unit, effect), and real effects.",
            f"write `with pyro.plate({plate!r}, num_units):` outside of other plates, and "
            "transform the effects inside the plate of the individuals.",
        )
    places, begin = [], 0
    for name, site in structure.population.items():
        if name in sites:
            own = torch.arange(begin, begin + site.num_unconstrained)
            places.append(own.reshape(num_units, -1))
        begin += site.num_unconstrained
    together = torch.cat(places, 1)
    return Level(plate, sites, int(num_units), together.shape[1], together)


def check_numbers(cohort: Cohort, units: Tensor, level: Level) -> None:
    r"""Raise if a covariate seems to number the units, and has numbers that are read as others.

    A negative number is read from the end, and a fraction is cut off: the individual then belongs
    to the unit of others, without a word.

    Args:
        cohort: The data.
        units: Unit of each individual, shape ``(individual,)``.
        level: The level.

    Raises:
        FitError: All numbers of a covariate that are whole and not negative, at least half of them,
            are those of the units, and some are not whole or negative.
    """
    wrongs = []
    for name, x in cohort.covariates.items():
        valid = (x >= 0) & (x == x.round())
        if bool(((x.long() == units) | ~valid).all()) and float(valid.double().mean()) >= 0.5:
            if bool(valid.all()):
                return  # the units are the numbers of this covariate
            wrongs.append((name, int((~valid).nonzero()[0])))
    for name, i in wrongs:
        raise FitError(
            f"Individual {cohort.ids[i]} has {name} = {float(cohort.covariates[name][i]):g}, and "
            f"is taken for one of unit {int(units[i])} of the level {level.plate!r}.",
            "the numbers 0, 1, ... of the units.",
            "correct the covariate; categories by name (`Cohort.categories`) are numbered so.",
        )


def units_of(depends: Tensor, level: Level, ids: tuple[str, ...]) -> Tensor:
    r"""The unit of each individual; -1 for individuals whose likelihood depends on no effect.

    Args:
        depends: Whether the likelihood of an individual depends on the effects of a unit, shape
            ``(individual, unit)``.
        level: The level.
        ids: Labels of the individuals.

    Raises:
        FitError: An individual depends on the effects of several units.
    """
    number = depends.sum(1)
    if bool((number > 1).any()):
        i = int((number > 1).nonzero()[0])
        raise FitError(
            f"Individual {ids[i]} depends on the effects of {int(number[i])} units of the level "
            f"{level.plate!r}.",
            "individuals that are nested in the units: each belongs to one.",
            "for crossed effects, or units that change over time, draw from the posterior of the "
            "collapsed model, `MCMC(NUTS(pa.marginalize(model)), ...)`.",
        )
    return torch.where(number == 1, depends.to(torch.int64).argmax(1), -1)
