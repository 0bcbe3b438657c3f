r"""A model in words and a picture before anything is trained.

:func:`check_model` says which site has which role, how many values the data have, and which share
of the recorded values lies inside the central 95 % of what the prior can produce. It takes a model
and a cohort; nothing is fitted.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..cohort import Cohort
from ..model import (
    Model,
    ModelStructure,
    check_density_near_prior,
    read_structure,
    sites_without_layout,
)
from ..runtime.arguments import check_count
from ..runtime.random_numbers import make_generator
from .model_graph import model_drawing
from .program_concerns import uncensored_series, unused_parameters
from .result_selection import values_at_limits


@dataclass(frozen=True)
class ModelCheckSettings:
    r"""Limits of the check of a model.

    Args:
        min_inside: Share of the recorded values inside the central 95 % of the prior below which
            the check advises a look: 95 % are expected if the prior is right.
        min_draws: Fewest draws of the prior, from which 2.5 % and 97.5 % quantiles are estimated.
    """

    min_inside: float = 0.9
    min_draws: int = 20


DEFAULTS = ModelCheckSettings()


@dataclass(frozen=True, eq=False)
class ModelCheck:
    r"""What a model is. Made by :func:`check_model`; ``print(check)`` says it in words.

    Args:
        structure: Structure of the model, with the roles of its sites.
        cohort: The data.
        predictive: Observations simulated from the prior by series, shape ``(draw, individual,
            time[, channel])``; NaN where a simulation failed.
        failed: Share of the simulated individuals that are not finite.
        inside: By series, share of the recorded values between the 2.5 % and 97.5 % quantiles of
            the prior predictive distribution for their individual and time.
        unused: Population sites that nothing depends on.
        uncensored: Series with values at a limit that the program takes as measurements.
    """

    structure: ModelStructure
    cohort: Cohort
    predictive: dict[str, Tensor]
    failed: float
    inside: dict[str, float]
    unused: tuple[str, ...] = ()
    uncensored: tuple[str, ...] = ()

    @property
    def drawing(self) -> str:
        """The model as SVG."""
        return model_drawing(self.structure, len(self.cohort))

    @property
    def concerns(self) -> list[str]:
        """What should be looked at before training."""
        concerns = []
        if self.failed > 0:
            concerns.append(
                f"{100 * self.failed:.1f} % of the simulations from the prior are not finite. They "
                "are counted, and left out of the training."
            )
        for name, share in self.inside.items():
            if share < DEFAULTS.min_inside:
                concerns.append(
                    f"Only {share_text(share)} of the recorded values of {name!r} lie inside the "
                    "central 95 % of what the prior can produce. Check the units and the priors."
                )
        concerns += self._left_out()
        if self.structure.shared and self.structure.layout is None:
            concerns.append(
                "The model cannot be run with values of "
                f"{', '.join(sites_without_layout(self.structure, self.cohort, seed=0))} that "
                "differ between individuals. Simulation therefore calls it once for each value, "
                "which is slower. Write expressions that broadcast: `.unbind(-1)` in place of "
                "`[0]`, `[..., None]` before a dimension of times."
            )
        if not self.structure.has_density:
            concerns.append(
                "The observations have no density: fits are likelihood-free and not corrected."
            )
        return concerns

    def _left_out(self) -> list[str]:
        """Parameters that the program does not use, and limits that it does not know."""
        unused = [
            f"Neither observations nor individual parameters depend on {name!r}, unless through "
            "the prior of another parameter: maximum likelihood cannot estimate it. Leave the site "
            "out, or use its value."
            for name in self.unused
        ]
        return unused + [
            f"{int(values_at_limits(self.cohort, name).sum())} values of {name!r} are at a limit "
            "of quantification, and the program takes them as measurements. Write "
            f"`nlme.Censored(distribution, {_limits_in_words(self.cohort, name)})`."
            for name in self.uncensored
        ]

    def __str__(self) -> str:
        concerns = self.concerns
        lines = [
            f"{len(self.cohort)} individuals, {self.cohort.num_observations} recorded values.",
            "",
            *_population_lines(self.structure, self.unused),
            *_individual_lines(self.structure),
            *_data_lines(self.structure, self.cohort),
            "",
            "The density of each individual depends on its own data alone (this was checked).",
        ]
        for name, share in self.inside.items():
            within = f"{share_text(share)} of the recorded values"
            lines.append(f"{name}: {within} lie inside the central 95 % of the prior.")
        lines += ["", "To look at:" if concerns else "No reason against a fit was found."]
        return "\n".join([*lines, *(f"  - {x}" for x in concerns)])


def share_text(share: float) -> str:
    """A share in per cent: 100 % only where it is one, and 0 % only where it is zero.

    Example:
        >>> share_text(0.998), share_text(1.0), share_text(0.0004)
        ('more than 99 %', '100 %', 'less than 1 %')
    """
    percent = 100 * share
    if 99 < percent < 100:
        return "more than 99 %"
    return "less than 1 %" if 0 < percent < 1 else f"{percent:.0f} %"


def _population_lines(structure: ModelStructure, unused: tuple[str, ...]) -> Iterator[str]:
    yield "Population parameters (outside the plate `individual`):"
    for name, site in structure.population.items():
        kind = "a param without prior" if site.is_param else "has a prior"
        target = "the observations" if name in structure.shared else "the individual parameters"
        target = "nothing" if name in unused else target
        shape = f"shape {tuple(site.shape)}" if site.shape else "scalar"
        yield f"  {name}: {shape}, {_support_words(site.support)}, {kind}; acts on {target}"


def _individual_lines(structure: ModelStructure) -> Iterator[str]:
    yield "Individual parameters (latent, inside the plate):"
    for name, site in structure.individual.items():
        yield f"  {name}: {site.num_unconstrained} per individual"
    for name in structure.nuisance:
        yield f"  {name}: a nuisance site, simulated and then dropped"


def _limits_in_words(cohort: Cohort, name: str) -> str:
    """The arguments of `nlme.Censored` for the limits that a series has."""
    sides = [side for side in ("low", "high") if f"{name}_{side}" in cohort.time_varying]
    return ", ".join(f"{x}=cohort.time_varying['{name}_{x}'].at(y.times)" for x in sides)


def _data_lines(structure: ModelStructure, cohort: Cohort) -> Iterator[str]:
    yield "Observations:"
    for name in structure.series:
        num, total = cohort[name].num_observations, cohort[name].values.numel()
        if num == total:
            yield f"  {name}: all {total} values are recorded"
        else:
            yield (
                f"  {name}: {num} of {total} values are recorded; the others are masked and do not "
                "enter the density"
            )
        num_at_limit = int(values_at_limits(cohort, name).sum())
        if num_at_limit:
            yield f"  {name}: {num_at_limit} of them are at a limit of quantification"
    if cohort.doses is not None:
        yield f"Doses: {int(cohort.doses.given.sum())}."
    if cohort.covariates:
        yield f"Covariates: {', '.join(cohort.covariates)}."


def _support_words(support: Any) -> str:
    """A support in words."""
    inner = getattr(support, "base_constraint", support)
    low = getattr(inner, "lower_bound", None)
    high = getattr(inner, "upper_bound", None)
    if low is not None and high is not None:
        return f"between {float(low):g} and {float(high):g}"
    if low is not None:
        return "positive" if float(low) == 0 else f"above {float(low):g}"
    name = type(inner).__name__.strip("_").lower()
    return "any real numbers" if name == "real" else name


def check_model(model: Model, cohort: Cohort, *, num_draws: int = 100, seed: int = 0) -> ModelCheck:
    r"""Read a model, and simulate from its prior.

    Args:
        model: The model, a function of a cohort.
        cohort: The data.
        num_draws: Population parameters drawn from the prior, each with one simulated cohort.
        seed: Seed of the simulations.

    Raises:
        ModelError: The model is not a mixed-effects model, or its density is not finite for an
            individual; the message says why.
        SettingError: ``num_draws`` is smaller than 20.

    Example:
        ``print(check_model(model, cohort))``; ``plots.prior_predictive(check_model(model,
        cohort))``.
    """
    check_count("num_draws", num_draws, least=DEFAULTS.min_draws)
    structure, generator = read_structure(model, cohort), make_generator(seed)
    check_density_near_prior(structure, cohort)
    cohort = cohort.to(dtype=torch.float64)
    draws: list[dict[str, Tensor]] = []
    for population in structure.draw_populations(cohort, num_draws, generator):
        individuals = structure.draw_individuals(cohort, population, 1, generator)
        simulated = structure.predict_draws(cohort, individuals, population, generator)
        draws.append({name: x[0] for name, x in simulated.items()})
    predictive = {name: torch.stack([d[name] for d in draws]) for name in structure.series}
    finite = torch.stack([x.isfinite().flatten(2).all(-1) for x in predictive.values()]).all(0)
    predictive = {n: torch.where(x.isfinite(), x, torch.nan) for n, x in predictive.items()}
    inside = {name: _share_inside(cohort, name, x) for name, x in predictive.items()}
    return ModelCheck(
        structure,
        cohort,
        predictive,
        float((~finite).double().mean()),
        inside,
        unused_parameters(structure, cohort, seed),
        uncensored_series(structure, cohort, seed),
    )


def _share_inside(cohort: Cohort, name: str, simulated: Tensor) -> float:
    """Share of the recorded values inside the central 95 % of draws ``(draw, *)``, each at its own
    individual and time; one if nothing is recorded.
    """
    levels = torch.tensor([0.025, 0.975], dtype=simulated.dtype)
    low, high = simulated.nanquantile(levels, dim=0)
    observed, values = cohort[name].observed, cohort[name].values
    inside = (values >= low) & (values <= high)
    return float(inside[observed].double().mean()) if bool(observed.any()) else 1.0
