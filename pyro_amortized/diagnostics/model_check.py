r"""A model in words and a picture, before anything is trained: which site plays which role, what of
the data enters, whether the program is vectorised, and whether its prior reaches the data.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..cohort import Cohort
from ..model import Model, ModelStructure, read_structure
from ..runtime.arguments import check_count
from ..runtime.random_numbers import make_generator
from .model_graph import model_drawing

REACHES = 0.9  # share of the data inside the prior's bands that is no cause for concern


@dataclass(frozen=True, eq=False)
class ModelCheck:
    r"""What a program is. Made by :func:`check_model`; ``print(check)`` tells it in words.

    Args:
        structure: Roles of the sites.
        cohort: The data.
        predictive: Observations simulated from the prior by series, shape ``(draw, individual,
            time[, channel])``; NaN where a simulation failed.
        failed: Share of the simulated individuals that are not finite.
        inside: By series, share of the recorded values between the 2.5 % and 97.5 % quantiles of
            the prior predictive distribution of their own time and individual.
    """

    structure: ModelStructure
    cohort: Cohort
    predictive: dict[str, Tensor]
    failed: float
    inside: dict[str, float]

    @property
    def drawing(self) -> str:
        """The model as SVG."""
        return model_drawing(self.structure, len(self.cohort))

    @property
    def concerns(self) -> list[str]:
        """What should be looked at before training."""
        found = []
        if self.failed > 0:
            found.append(
                f"{100 * self.failed:.1f} % of the simulations from the prior are not finite: they "
                "are left out of the training, and counted."
            )
        for name, share in self.inside.items():
            if share < REACHES:
                found.append(
                    f"Only {100 * share:.0f} % of the recorded values of {name!r} lie inside the "
                    "central 95 % of what the prior can produce: check units and priors."
                )
        if self.structure.shared and self.structure.layout is None:
            found.append(
                "No layout gives every individual its own shared parameters, so simulation calls "
                "the program once per value of them: slower."
            )
        if not self.structure.has_density:
            found.append(
                "The observations have no density: fits are likelihood-free and not corrected."
            )
        return found

    def __str__(self) -> str:
        structure, cohort = self.structure, self.cohort
        shared = set(structure.shared)
        lines = [f"{len(cohort)} individuals, {cohort.num_observations} recorded values.", ""]
        lines.append("Population parameters (outside the plate `individual`):")
        for name, site in structure.population.items():
            kind = "param, no prior" if site.is_param else "prior"
            acts = "acts on the observations" if name in shared else "acts on the individuals"
            shape = f"{tuple(site.shape)}" if site.shape else "scalar"
            lines.append(f"  {name}: {shape}, {_words(site.support)}, {kind}; {acts}")
        lines.append("Individual parameters (latent, inside the plate):")
        lines += [
            f"  {name}: {site.num_unconstrained} per individual"
            for name, site in structure.individual.items()
        ]
        lines += [f"  {name}: simulated, then dropped (nuisance)" for name in structure.nuisance]
        lines.append("Observations:")
        for series in structure.series:
            s = cohort[series]
            total = s.values.numel()
            lines.append(
                f"  {series}: all {total} values recorded"
                if s.num_observations == total
                else f"  {series}: {s.num_observations} of {total} values recorded; the others are "
                "masked and do not enter the density"
            )
        if cohort.doses is not None:
            lines.append(f"Doses: {int(cohort.doses.given.sum())}.")
        if cohort.covariates:
            lines.append(f"Covariates: {', '.join(cohort.covariates)}.")
        lines += ["", "Every individual's density depends on its own row alone (checked)."]
        for name, share in self.inside.items():
            within = f"{100 * share:.0f} % of the values"
            lines.append(f"{name}: {within} lie inside the central 95 % of the prior.")
        concerns = self.concerns
        lines += ["", "To look at:" if concerns else "Nothing stands against training."]
        return "\n".join([*lines, *(f"  - {x}" for x in concerns)])


def _words(support: Any) -> str:
    """A support as a user would say it."""
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
    r"""Read a program, and simulate from its prior.

    Args:
        model: The program.
        cohort: The data.
        num_draws: Populations drawn from the prior, with one cohort of each.
        seed: Seed of the simulations.

    Raises:
        ModelError: The program is not a mixed-effects model; the message says why.

    Example:
        ``print(check_model(model, cohort))``; ``plots.prior_predictive(check_model(model,
        cohort))``.
    """
    check_count("num_draws", num_draws, least=20)
    structure, generator = read_structure(model, cohort), make_generator(seed)
    cohort = cohort.to(dtype=torch.float64)
    draws: list[dict[str, Tensor]] = []
    for population in structure.draw_populations(cohort, num_draws, generator):
        individuals = structure.draw_individuals(cohort, population, 1, generator)
        found = structure.predict_draws(cohort, individuals, population, generator)
        draws.append({name: x[0] for name, x in found.items()})
    predictive = {name: torch.stack([d[name] for d in draws]) for name in structure.series}
    finite = torch.stack([x.isfinite().flatten(2).all(-1) for x in predictive.values()]).all(0)
    inside = {}
    for name, x in predictive.items():
        known = torch.where(x.isfinite(), x, torch.nan)
        low, high = known.nanquantile(torch.tensor([0.025, 0.975], dtype=x.dtype), dim=0)
        seen, values = cohort[name].observed, cohort[name].values
        within = (values >= low) & (values <= high)
        inside[name] = float(within[seen].double().mean()) if bool(seen.any()) else 1.0
        predictive[name] = known
    return ModelCheck(structure, cohort, predictive, float((~finite).double().mean()), inside)
