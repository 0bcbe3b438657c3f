r"""Reads a Pyro model: the role of each site, and whether the library can work with the model.

The plates give the roles. Sites outside the plate ``individual`` are population parameters. Latent
sites inside it are individual parameters, except those declared with ``infer={"nuisance": True}``,
which are simulated and not kept. Observed sites inside it are observations.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_subsample
from torch import Generator
from torch.distributions import biject_to

from ..cohort import Cohort
from ..errors import AmortizedError, ModelError
from ..runtime.arguments import check_is, check_program
from ..runtime.isolation import seeded
from ..runtime.random_numbers import fork_seed, make_generator
from .batch_layout import find_layout
from .entry_labels import entry_labels, entry_scales
from .independence_check import check_independence, check_same_sites
from .outcome_kinds import outcome_kind
from .program_run import Assign, run_program
from .recording_check import check_recorded
from .refused_sites import (
    is_point,
    refuse_discrete,
    refuse_factors,
    refuse_points,
    reparameterized,
)
from .shared_parameters import find_shared
from .sites import (
    PLATE,
    IndividualSite,
    Model,
    ObservedSite,
    PopulationSite,
    has_density,
    individual_first,
    plain_support,
)
from .structure import ModelStructure
from .value_readers import find_readers

NUM_RUNS = 5  # runs whose sites must agree; a branch of probability one half then escapes 1 in 16
# What torch says where a constant that was made outside the model, in float32, meets float64.
DTYPES = re.compile("dtype|scalar type|same type|Double but")


def read_structure(model: Model, cohort: Cohort) -> ModelStructure:
    r"""Read the roles of a model's sites, and check that the library can work with the model.

    Args:
        model: A Pyro model of one :class:`Cohort` with a plate ``individual``.
        cohort: Data, or a design with placeholder values, to run the model with.

    Returns:
        The structure of the model.

    Raises:
        ModelError: There is no plate ``individual``, an observation site has no series of its name,
            shapes disagree, a latent site is discrete, masked values enter the density, and other
            faults that the message names.
    """
    check_program(model, ModelError)
    fix = (
        "pass a Cohort, for example from `nlme.read_table`, or `Cohort({name: Series(times, "
        "values)})`; a model that takes tensors is adapted by `pa.adapt`."
    )
    check_is("cohort", cohort, Cohort, fix, ModelError)
    cohort = cohort.to(dtype=torch.float64)
    generator = make_generator(0)
    trace, nodes = _stable_run(model, cohort, generator)
    frame = _individual_frame(trace, nodes, cohort)
    sites = _sites_by_role(nodes, frame.size, cohort)
    structure = ModelStructure(
        model, sites.population, sites.individual, sites.observed, (), nuisance=sites.nuisance
    )
    check_recorded(structure, cohort)
    seed = fork_seed(generator)
    check_independence(structure, cohort, seed)
    structure = replace(structure, readers=find_readers(structure, cohort, seed))
    shared = find_shared(structure, cohort, seed)
    structure = replace(structure, shared=shared)
    return replace(structure, layout=find_layout(structure, cohort, seed))


class _Sites(NamedTuple):
    """The sites of a model by their role."""

    population: dict[str, PopulationSite]
    individual: dict[str, IndividualSite]
    observed: dict[str, ObservedSite]
    nuisance: tuple[str, ...]


def _sites_by_role(nodes: Mapping[str, Any], num: int, cohort: Cohort) -> _Sites:
    """The role of every site of a run with ``num`` individuals."""
    population, individual, observed = {}, {}, {}
    nuisance: list[str] = []
    for name, node in nodes.items():
        refuse_factors(node)
        inside = any(f.name == PLATE for f in node["cond_indep_stack"])
        if node["infer"].get("nuisance", False) and not node["is_observed"]:
            nuisance.append(name)
        elif node["type"] == "param" or (not inside and not node["is_observed"]):
            population[name] = _population_site(node)
        elif not inside and is_point(node):
            raise reparameterized(name)
        elif not inside:
            raise ModelError(
                f"The observed site {name!r} is outside the plate {PLATE!r}.",
                "every observation inside the plate, one row per individual.",
                f"move it into `with pyro.plate({PLATE!r}, len(cohort))`.",
            )
        elif node["is_observed"]:
            observed[name] = _observed_site(node, cohort)
        elif name.removesuffix("_unobserved") + "_observed" not in nodes:
            individual[name] = _individual_site(node, num)
    _require(
        individual, "latent", "phi = pyro.sample('phi', dist.Normal(typical, omega).to_event(1))"
    )
    _require(
        observed,
        "observed",
        "pyro.sample('concentration', distribution, obs=cohort['concentration'].values)",
    )
    if nuisance:  # the density of the observations would need an integral over the nuisance
        observed = {n: replace(site, has_density=False) for n, site in observed.items()}
    return _Sites(population, individual, observed, tuple(nuisance))


def _stable_run(model: Model, cohort: Cohort, generator: Generator) -> tuple[Trace, dict[str, Any]]:
    """One run and its sites, which must be the same in further runs."""
    runs = [_first_run(model, cohort, fork_seed(generator)) for _ in range(NUM_RUNS)]
    nodes, *others = [{n: s for n, s in r.nodes.items() if _is_site(s)} for r in runs]
    for other in others:
        check_same_sites(nodes, other)
    return runs[0], nodes


def _first_run(model: Model, cohort: Cohort, seed: int) -> Trace:
    """One ordinary run.

    Pyro's validation stays as the caller set it, so that its messages reach the user. The run is
    repeated without validation, because a single value of this draw (not finite, or outside a
    support) is no fault of the model.
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
                "The model fails when it is called with the cohort: "
                f"{type(error).__name__}: {error}",
                f"a model that runs for these {len(cohort)} individuals and whose plate {PLATE!r} "
                f"has size {len(cohort)}.",
                _cure(error),
            ) from error


def _cure(error: Exception) -> str:
    """What to do about an error of the model itself."""
    text = str(error)
    if isinstance(error, RuntimeError) and DTYPES.search(text):
        return "make constants inside the model, or in float64: it runs in float64."
    if "Shape mismatch inside plate" in text:
        return "write `.to_event(1)` behind the distribution: times are a dimension of each value."
    if "must match the size of tensor" in text or "must match the existing size" in text:
        return (
            f"the plate {PLATE!r} takes all individuals (no `subsample_size`), and parameters of "
            "an individual meet its times as `x[..., None]`; "
            "`pyro.poutine.trace(model).get_trace(cohort)` shows the line."
        )
    if f"Multiple sample sites named '{PLATE}'" in text:
        return (
            f"make the plate once, `individuals = pyro.plate({PLATE!r}, len(cohort))`, and write "
            "`with individuals:` in both places."
        )
    if "ImproperUniform" in text:
        return "write a wide prior that can be drawn from, for instance `dist.Normal(0.0, 10.0)`."
    if isinstance(error, TypeError) and "required positional argument" in text:
        return (
            "give the program one argument, a cohort; a program of other arguments is adapted, "
            "`pa.adapt(model, lambda cohort: (...), plate=..., observations=...)`."
        )
    run = "run `pyro.poutine.trace(model).get_trace(cohort)` and fix what it says."
    if "out of bounds" in text:
        return (
            "numbers of sites, categories and occasions begin at 0, and a plate or a table that is "
            f"read by them has one entry more than the largest number; {run}"
        )
    return run


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
            "The model has "
            f"{'the plates ' + str(sorted(frames)) if frames else 'no plate with a site in it'}.",
            f"a plate named {PLATE!r} around the individual parameters and the observations.",
            f"write `with pyro.plate({PLATE!r}, len(cohort)):` around them.",
        )
    frame = frames[PLATE]
    if not frame.vectorized:
        raise ModelError(
            f"The plate {PLATE!r} is a sequential loop.",
            "a vectorized plate.",
            f"write `with pyro.plate({PLATE!r}, len(cohort)):` and compute all individuals at "
            "once.",
        )
    full_size = frame.full_size or frame.size
    if frame.size != len(cohort) or full_size != len(cohort):
        raise ModelError(
            f"The plate {PLATE!r} has size {frame.size} of {full_size}; the cohort has "
            f"{len(cohort)} individuals.",
            "a plate over all individuals of the cohort that the model is called with.",
            f"write `pyro.plate({PLATE!r}, len(cohort))`, without subsampling.",
        )
    return frame


def _population_site(node: Mapping[str, Any]) -> PopulationSite:
    name, value = node["name"], node["value"].detach().double()
    if node["type"] == "param":
        inside = any(f.name == PLATE for f in node["cond_indep_stack"])
        if inside and node["kwargs"].get("event_dim") is not None:
            raise ModelError(
                f"The parameter {name!r} has one value per individual.",
                "individual parameters that are sample sites, because the marginal likelihood "
                "needs their distribution.",
                f"write `pyro.sample({name!r}, ...)` inside the plate.",
            )
        support = node["kwargs"].get("constraint", torch.distributions.constraints.real)
        return PopulationSite(name, value.shape, support, True, value)
    refuse_discrete(node)
    refuse_points(node)
    labels, scales = entry_labels(node, value.shape), entry_scales(node, value.numel())
    support = plain_support(node["fn"])
    return PopulationSite(name, value.shape, support, False, value, labels, scales)


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
            "a plate for every batch dimension, and every other dimension declared as an event.",
            "put the mask on the values and then declare the event: "
            "`.mask(series.observed).to_event(1)`, "
            "or write one more `pyro.plate`.",
        )


def _individual_site(node: Mapping[str, Any], num: int) -> IndividualSite:
    refuse_discrete(node)
    refuse_points(node)
    _check_batch_shape(node)
    fn, dim = node["fn"], _frame_dim(node)
    transform = biject_to(plain_support(fn))
    free = transform.inv(node["value"]).shape
    axis = dim - (len(free) - len(fn.batch_shape))
    rest = torch.Size([n for j, n in enumerate(free, -len(free)) if j != axis])
    assert free[axis] == num
    plates = tuple(
        (f.name, f.size, f.dim)
        for f in node["cond_indep_stack"]
        if f.vectorized and f.name != PLATE
    )
    labels, scales = entry_labels(node, fn.event_shape), entry_scales(node, fn.event_shape.numel())
    return IndividualSite(node["name"], dim, fn.event_dim, rest, plates, labels, scales)


def _observed_site(node: Mapping[str, Any], cohort: Cohort) -> ObservedSite:
    name = node["name"]
    series = name if name in cohort else name.removesuffix("_observed")
    if series not in cohort and is_point(node):
        raise reparameterized(name)
    if series not in cohort:
        raise ModelError(
            f"The observation site {name!r} has no series of that name.",
            f"an observation site named like a series of the cohort, {sorted(cohort.series)}.",
            f"rename the site, or add the series {name!r} to the cohort.",
        )
    values, dim, event_dim = cohort[series].values, _frame_dim(node), node["fn"].event_dim
    shape = tuple(node["fn"].batch_shape + node["fn"].event_shape)
    has_plate = node["value"].dim() >= event_dim - dim
    observed_values = individual_first(node["value"], dim, event_dim) if has_plate else values
    if not has_plate or observed_values.shape != values.shape or shape != node["value"].shape:
        raise ModelError(
            f"The observation site {name!r} has a value of shape {tuple(node['value'].shape)} "
            "and a distribution "
            f"of shape {shape}; the series has {tuple(values.shape)}.",
            "a distribution with one value for each value of the series, individuals first.",
            "check the plates and `.to_event(1)`, and pass all of `obs=cohort[...].values`.",
        )
    _check_batch_shape(node)
    recorded = cohort[series].observed
    if not torch.equal(observed_values.double()[recorded], values[recorded]):
        raise ModelError(
            f"The observation site {name!r} observes other values than the series {series!r}.",
            "the recorded values of the series, unchanged.",
            "transform the values when the cohort is built (for instance log values), not "
            "inside the model.",
        )
    kind = outcome_kind(node["fn"])
    return ObservedSite(name, series, dim, event_dim, has_density(node), kind)


def _require(sites: Mapping[str, Any], kind: str, example: str) -> None:
    if not sites:
        raise ModelError(
            f"The plate {PLATE!r} has no {kind} site.",
            f"at least one {kind} site inside the plate.",
            f"write `{example}`.",
        )
