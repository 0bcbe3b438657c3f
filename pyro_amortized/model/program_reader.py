r"""Read a Pyro program: which site plays which role, and does it do what a mixed-effects model
must.

Roles come from the plates: sites outside ``individual`` are population parameters, latent sites
inside it are individual parameters (but those declared with ``infer={"nuisance": True}``, which are
simulated and dropped), observed sites inside it are observations.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_subsample
from torch import Generator, Tensor
from torch.distributions import biject_to

from ..cohort import Cohort, check_indicators
from ..errors import AmortizedError, ModelError
from ..runtime.arguments import check_is, check_program
from ..runtime.isolation import seeded
from ..runtime.random_numbers import fork_seed, make_generator
from .batch_layout import find_layout
from .independence_check import check_same_sites, check_sound
from .shared_parameters import find_shared
from .sites import (
    PLATE,
    Assign,
    IndividualSite,
    Model,
    ObservedSite,
    PopulationSite,
    has_density,
    individual_first,
    plain_support,
    run_program,
    site_log_prob,
    site_mask,
)
from .structure import ModelStructure

NUM_RUNS = 5  # in which the sites must be the same


def read_structure(model: Model, cohort: Cohort) -> ModelStructure:
    r"""Read the roles of a program's sites and check that the library can work with it.

    Args:
        model: A Pyro program of one :class:`Cohort` with a plate ``individual``.
        cohort: Data (or a design with placeholder values) to run it with.

    Returns:
        The structure of the program.

    Raises:
        ModelError: No plate ``individual``, an observation site that no series bears, shapes that
            disagree, a discrete latent site, values under a mask that enter the density, and other
            things that the message names.
    """
    check_program(model, ModelError)
    check_is("cohort", cohort, Cohort, "pass a Cohort, as `read_table` gives.", ModelError)
    cohort = cohort.to(dtype=torch.float64)
    generator = make_generator(0)
    trace, nodes = _stable_run(model, cohort, generator)
    frame = _individual_frame(trace, nodes, cohort)
    population, individual, observed = {}, {}, {}
    nuisance: list[str] = []
    for name, node in nodes.items():
        inside = any(f.name == PLATE for f in node["cond_indep_stack"])
        if node["infer"].get("nuisance", False) and not node["is_observed"]:
            nuisance.append(name)
        elif node["type"] == "param" or (not inside and not node["is_observed"]):
            population[name] = _population_site(node)
        elif not inside:
            raise ModelError(
                f"The observed site {name!r} stands outside the plate {PLATE!r}.",
                "every observation inside the plate, one row per individual.",
                f"move it into `with pyro.plate({PLATE!r}, len(cohort))`.",
            )
        elif node["is_observed"]:
            observed[name] = _observed_site(node, cohort)
        elif name.removesuffix("_unobserved") + "_observed" not in nodes:
            individual[name] = _individual_site(node, frame.size)
    _require(
        individual, "latent", "phi = pyro.sample('phi', dist.Normal(typical, omega).to_event(1))"
    )
    _require(
        observed,
        "observed",
        "pyro.sample('concentration', law, obs=cohort['concentration'].values)",
    )
    if nuisance:  # integrating over it is what nobody can do
        observed = {n: replace(site, has_density=False) for n, site in observed.items()}
    structure = ModelStructure(
        model, population, individual, observed, (), nuisance=tuple(nuisance)
    )
    check_recorded(structure, cohort)
    seed = fork_seed(generator)
    check_sound(structure, cohort, seed)
    shared = find_shared(structure, cohort, seed)
    structure = replace(structure, shared=shared)
    return replace(structure, layout=find_layout(structure, cohort, seed))


def _stable_run(model: Model, cohort: Cohort, generator: Generator) -> tuple[Trace, dict[str, Any]]:
    """A run and its sites, which must be those of some more runs."""
    runs = [_first_run(model, cohort, fork_seed(generator)) for _ in range(NUM_RUNS)]
    nodes, *others = [{n: s for n, s in r.nodes.items() if _is_site(s)} for r in runs]
    for again in others:
        check_same_sites(nodes, again)
    return runs[0], nodes


def _first_run(model: Model, cohort: Cohort, seed: int) -> Trace:
    """One ordinary run.

    Under Pyro's validation as found, so that its messages reach the user; but without it where
    only a value of this draw is at fault (not finite, outside a support).
    """
    try:
        with seeded(seed):
            return run_program(model, cohort, Assign({}), validate=True)
    except AmortizedError:
        raise
    except Exception as error:
        try:
            with seeded(seed):
                return run_program(model, cohort, Assign({}))
        except Exception:
            raise ModelError(
                "The program fails when it is called with the cohort: "
                f"{type(error).__name__}: {error}",
                f"a program that runs for these {len(cohort)} individuals, whose plate {PLATE!r} "
                f"has size {len(cohort)}.",
                "run `pyro.poutine.trace(model).get_trace(cohort)` and fix what it says.",
            ) from error


def _is_site(node: Mapping[str, Any]) -> bool:
    if node["type"] == "param":
        return True
    return (
        node["type"] == "sample"
        and not site_is_subsample(node)
        and not node["infer"].get("_deterministic", False)
    )


def _individual_frame(trace: Trace, nodes: Mapping[str, Any], cohort: Cohort) -> Any:
    frames = {f.name: f for node in nodes.values() for f in node["cond_indep_stack"]}
    if PLATE not in frames:
        raise ModelError(
            "The program has "
            f"{'the plates ' + str(sorted(frames)) if frames else 'no plate with a site in it'}.",
            f"a plate named {PLATE!r} around the individual parameters and the observations.",
            f"write `with pyro.plate({PLATE!r}, len(cohort)):` around them.",
        )
    frame = frames[PLATE]
    if not frame.vectorized:
        raise ModelError(
            f"The plate {PLATE!r} is a sequential loop.",
            "a vectorised plate.",
            f"write `with pyro.plate({PLATE!r}, len(cohort)):` and compute all individuals at "
            "once.",
        )
    full_size = frame.full_size or frame.size
    if frame.size != len(cohort) or full_size != len(cohort):
        raise ModelError(
            f"The plate {PLATE!r} has size {frame.size} of {full_size}; the cohort has "
            f"{len(cohort)} individuals.",
            "a plate over all individuals of the cohort that the program is called with.",
            f"write `pyro.plate({PLATE!r}, len(cohort))`, without subsampling.",
        )
    return frame


def _refuse_discrete(node: Mapping[str, Any]) -> None:
    if plain_support(node["fn"]).is_discrete:
        raise ModelError(
            f"The latent site {node['name']!r} is discrete ({type(node['fn']).__name__}).",
            "latent sites of continuous support.",
            "sum it out by hand (for instance dist.MixtureSameFamily), or make it a continuous "
            "parameter.",
        )


def _population_site(node: Mapping[str, Any]) -> PopulationSite:
    name, value = node["name"], node["value"].detach().double()
    if node["type"] == "param":
        inside = any(f.name == PLATE for f in node["cond_indep_stack"])
        if inside and node["kwargs"].get("event_dim") is not None:
            raise ModelError(
                f"The parameter {name!r} has one value per individual.",
                "individual parameters that are sample sites: without a distribution they have "
                "no marginal.",
                f"write `pyro.sample({name!r}, ...)` inside the plate.",
            )
        support = node["kwargs"].get("constraint", torch.distributions.constraints.real)
        return PopulationSite(name, value.shape, support, True, value)
    _refuse_discrete(node)
    return PopulationSite(name, value.shape, plain_support(node["fn"]), False, value)


def _frame_dim(node: Mapping[str, Any]) -> int:
    return int(next(f.dim for f in node["cond_indep_stack"] if f.name == PLATE))


def _check_batch_shape(node: Mapping[str, Any]) -> None:
    declared = {f.dim: f.size for f in node["cond_indep_stack"] if f.vectorized}
    shape = node["fn"].batch_shape
    wrong = {d: n for d, n in enumerate(shape, -len(shape)) if n > 1 and declared.get(d) != n}
    if wrong:
        raise ModelError(
            f"The site {node['name']!r} has batch shape {tuple(shape)}; its plates are "
            f"{declared} (dimension: size).",
            "every batch dimension to be a plate, every other dimension to be an event.",
            "put the mask on the values and then declare the event: "
            "`.mask(series.observed).to_event(1)`; "
            "or write one more `pyro.plate`.",
        )


def _individual_site(node: Mapping[str, Any], num: int) -> IndividualSite:
    _refuse_discrete(node)
    _check_batch_shape(node)
    fn, dim = node["fn"], _frame_dim(node)
    transform = biject_to(plain_support(fn))
    free = transform.inverse_shape(node["value"].shape)
    axis = dim - (len(free) - len(fn.batch_shape))
    rest = torch.Size([n for j, n in enumerate(free, -len(free)) if j != axis])
    assert free[axis] == num
    plates = tuple(
        (f.name, f.size, f.dim)
        for f in node["cond_indep_stack"]
        if f.vectorized and f.name != PLATE
    )
    return IndividualSite(node["name"], dim, fn.event_dim, rest, plates)


def _observed_site(node: Mapping[str, Any], cohort: Cohort) -> ObservedSite:
    name = node["name"]
    series = name if name in cohort else name.removesuffix("_observed")
    if series not in cohort:
        raise ModelError(
            f"The observation site {name!r} has no series of that name.",
            f"an observation site named like one of the cohort's series, {sorted(cohort.series)}.",
            f"rename the site, or add the series {name!r} to the cohort.",
        )
    values, dim, event_dim = cohort[series].values, _frame_dim(node), node["fn"].event_dim
    found = individual_first(node["value"], dim, event_dim)
    shape = tuple(node["fn"].batch_shape + node["fn"].event_shape)
    if found.shape != values.shape or shape != node["value"].shape:
        raise ModelError(
            f"The observation site {name!r} has a value of shape {tuple(node['value'].shape)} "
            "and a distribution "
            f"of shape {shape}; the series has {tuple(values.shape)}.",
            "a distribution with one value for each value of the series, individuals first.",
            "check the plates and `.to_event(1)`, and pass the whole `obs=cohort[...].values`.",
        )
    _check_batch_shape(node)
    recorded = cohort[series].observed
    if not torch.equal(found.double()[recorded], values[recorded]):
        raise ModelError(
            f"The observation site {name!r} observes something else than the series {series!r}.",
            "the recorded values of the series, unchanged.",
            "transform the values when the cohort is built (for instance log values), not "
            "inside the program.",
        )
    return ObservedSite(name, series, dim, event_dim, has_density(node))


def _require(sites: Mapping[str, Any], kind: str, example: str) -> None:
    if not sites:
        raise ModelError(
            f"The plate {PLATE!r} has no {kind} site.",
            f"at least one {kind} site in it.",
            f"write `{example}`.",
        )


def check_recorded(structure: ModelStructure, cohort: Cohort) -> None:
    r"""Raise unless the program's masks are the cohort's own: nothing more enters, nothing less.

    Raises:
        ModelError: A value that was not recorded enters a density, or a recorded one is masked.
    """
    cohort = cohort.to(dtype=torch.float64)
    check_indicators(cohort)
    population = structure.initial_population()
    draws = structure.draw_individuals(cohort, population, 1, make_generator(0))[0]
    with seeded(0):
        plain = run_program(
            structure.model, cohort, Assign(population, structure.individual, draws)
        )
        values = {
            name: plain.nodes[name]["value"].detach().double().clone().requires_grad_()
            for name in structure.observed
        }
        assign = Assign(population, structure.individual, draws, observations=values)
        trace = run_program(structure.model, cohort, assign)
    for name, site in structure.observed.items():
        node, recorded = trace.nodes[name], cohort[site.series].observed
        mask = torch.as_tensor(site_mask(node)).expand(node["value"].shape)
        masked = ~individual_first(mask, site.dim, site.event_dim)
        grad = None if recorded.all() else _gradient(node, values[name])
        if grad is not None and bool(
            (individual_first(grad.nan_to_num(0.0), site.dim, site.event_dim)[~recorded] != 0).any()
        ):
            raise ModelError(
                f"Values of the series {site.series!r} that were not recorded enter the density "
                f"of {name!r}.",
                "a mask on the observation site.",
                f"write `.mask(cohort[{site.series!r}].observed)` before `.to_event(1)`.",
            )
        if bool((masked & recorded).any()):
            raise ModelError(
                f"The site {name!r} masks {int((masked & recorded).sum())} values that the "
                "cohort calls recorded.",
                "one truth about what was recorded: the mask of the series.",
                "leave them out of the cohort with "
                f"`cohort.with_observed({{{site.series!r}: mask}})`.",
            )


def _gradient(node: Mapping[str, Any], value: Tensor) -> Tensor | None:
    """Gradient of the log density of a site by its value; None where there is none."""
    if not has_density(node):
        return None
    log_prob = site_log_prob(node).sum()
    if not log_prob.requires_grad:
        return None
    return torch.autograd.grad(log_prob, value, allow_unused=True)[0]
