r"""The folder of a fit: after every round it holds what the fit has come to.

``fit.json`` states what determines the result, so that a folder is used only by the call that it
was begun with. ``progress.safetensors`` holds the population, the draws (of a large cohort what a
round needs of them), the mixtures of the individuals, the place among the rounds and the state of
the random numbers. It is replaced as one file; an interrupted fit goes on from it and ends with the
numbers of one that was not interrupted. The finished fit is in the folder ``result``
(:func:`~pyro_amortized.load_fit`).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from ...cohort import Cohort
from ...cohort.named_tensors import cohort_tensors, with_prefix
from ...errors import AmortizedError, FitError
from ...guide import AmortizedGuide
from ...model import Model, ModelStructure
from ...runtime.atomic_files import fingerprint, read_tensors, write_tensors
from ...runtime.claimed_folders import changed_settings
from ...runtime.file_formats import Format
from ...runtime.random_numbers import make_generator
from ...sampling.importance_weights import ImportanceEstimate
from ...sampling.individuals import individual_posteriors
from ...sampling.weighted_draws import Sampled, Weighted
from ..following.following_draws import Following
from ..likelihood.large_cohorts.summarized_draws import BlockSummary, RoundDraws, SummarizedDraws
from ..search.maximum_search import Search
from ..search.round_progress import RoundProgress, place_of
from ..search.trust_region import TrustRegion
from .fit_files import (
    DRAWS,
    FILE,
    draw_tensors,
    fit_of,
    read_fit,
    refinement_of,
    refinement_tensors,
    unusable,
)
from .fit_result import PopulationFit

FORMAT = Format("delete the folder and fit again")
SETTINGS_FILE, PROGRESS_FILE, RESULT_FOLDER = "fit.json", "progress.safetensors", "result"
COUNTS = (
    *("near", "num_rounds", "num_jumps", "num_idle", "last_gain"),
    *("num_draws", "most_draws", "has_looked"),
)
FOLLOWING = (
    *("center", "directions", "rates", "mean", "spread", "axes", "reach"),
    *("scores", "bias", "score_covariance"),
)


@dataclass(frozen=True)
class RecognitionSettings:
    r"""The few densities by which the model of a fit is recognised.

    Args:
        num_individuals: Number of individuals, the first ones.
        num_draws: Draws of each of them from the population at the start.
        seed: Seed of these draws.
    """

    num_individuals: int = 5
    num_draws: int = 2
    seed: int = 0


RECOGNITION = RecognitionSettings()


@dataclass(frozen=True)
class FitFolder:
    r"""The folder of a fit.

    Args:
        path: The folder; it is made if there is none.
        arguments: Arguments of the fit that determine its result, as JSON can hold them.
    """

    path: Path
    arguments: Mapping[str, Any]

    def claim(self, search: Search, values: Mapping[str, Tensor]) -> None:
        r"""Begin a fit in the folder, or check that it is the one that was begun there.

        Args:
            search: The search.
            values: Values of population parameters among the arguments.

        Raises:
            FitError: The folder holds another fit.
        """
        structure, cohort, guide = search.structure, search.cohort, search.guide
        settings = {
            **self.arguments,
            "criterion": search.criterion,
            "estimator": structure.estimator,
            "population": structure.population_names,
            "individual": list(structure.latent_names),
            "values": {name: x.reshape(-1).tolist() for name, x in sorted(values.items())},
            "data": fingerprint(cohort_tensors(cohort)),
            "labels": hashlib.sha256(json.dumps(list(cohort.ids)).encode()).hexdigest(),
            "guide": None if guide is None else fingerprint(guide.state_dict()),
            "model": _log_densities(structure, cohort),
        }
        shown = changed_settings(self.path, SETTINGS_FILE, settings)
        if shown:
            raise FitError(
                f"{self.path} holds another fit: {shown}.",
                "the arguments, the model, the data and the guide that the fit was begun with.",
                "continue with these, or pass another folder.",
            )

    def keep(self, progress: RoundProgress, generator: Generator) -> None:
        """Write what the rounds have come to, with the state of the random numbers."""
        place, region = progress.place, progress.region
        individuals = place.individuals
        tensors = {"vector": place.vector, "generator": generator.get_state()}
        tensors |= refinement_tensors(individuals.refinement)
        if isinstance(individuals, SummarizedDraws):
            tensors |= _summary_tensors(individuals.summary)
        else:
            tensors |= draw_tensors(individuals)
        description = {
            "num_drawn": individuals.num_draws,
            "is_summary": isinstance(individuals, SummarizedDraws),
            "region": list(region),
            **{name: getattr(progress, name) for name in COUNTS},
        }
        write_tensors(self.path / PROGRESS_FILE, tensors, FORMAT.stamped(description))

    def restored(self, search: Search, generator: Generator) -> RoundProgress | None:
        r"""What the rounds had come to, and the generator as it was then; None if nothing is kept.

        Raises:
            FitError: The file is damaged, or its format cannot be read.
        """
        path = self.path / PROGRESS_FILE
        if not path.is_file():
            return None
        try:
            tensors, description = read_tensors(path)
            description, tensors = FORMAT.newest(path, description, tensors)
            progress = _progress(search, description, tensors)
            generator.set_state(tensors["generator"])
            return progress
        except (AmortizedError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise unusable(path, error) from error

    def finish(self, fit: PopulationFit) -> None:
        """Write the finished fit."""
        fit.save(self.path / RESULT_FOLDER)

    def finished(self, model: Model, guide: AmortizedGuide | None) -> PopulationFit | None:
        r"""The finished fit, or None.

        Args:
            model: The model of the fit.
            guide: Its guide, or None.
        """
        folder = self.path / RESULT_FOLDER
        if not (folder / FILE).is_file():
            return None
        return fit_of(read_fit(folder), folder, model, guide)


def _log_densities(structure: ModelStructure, cohort: Cohort) -> list[float]:
    """Log densities of a few draws of a few individuals; they differ between models."""
    part, generator = cohort[: RECOGNITION.num_individuals], make_generator(RECOGNITION.seed)
    population = structure.initial_population()
    draws = structure.draw_individuals(part, population, RECOGNITION.num_draws, generator)
    with torch.no_grad():
        density = structure.log_density(part, draws, population)
    values: list[float] = torch.stack([*density]).flatten().tolist()
    return values


def _summary_tensors(summary: BlockSummary) -> dict[str, Tensor]:
    """What is kept of the draws of a large cohort by name, without the mixtures."""
    tensors = {"summary.moments": summary.moments}
    tensors |= {
        f"estimate.{f.name}": vars(summary.estimate)[f.name] for f in fields(ImportanceEstimate)
    }
    return tensors | {f"following.{name}": vars(summary.following)[name] for name in FOLLOWING}


def _progress(
    search: Search, description: Mapping[str, Any], tensors: dict[str, Tensor]
) -> RoundProgress:
    vector = tensors["vector"]
    individuals = _individuals(search, description, tensors)
    counts = {name: description[name] for name in COUNTS}
    region = TrustRegion(*description["region"])
    return RoundProgress(place_of(search, vector, individuals), region=region, **counts)


def _individuals(
    search: Search, description: Mapping[str, Any], tensors: dict[str, Tensor]
) -> RoundDraws:
    """The draws, or what was kept of them."""
    structure, refinement = search.structure, refinement_of(tensors)
    population = structure.constrain_population(tensors["vector"])
    if description["is_summary"]:
        flows = bool(structure.coordinates(structure.shared).all())
        summary = BlockSummary(
            refinement,
            ImportanceEstimate(**with_prefix(tensors, "estimate.")),
            tensors["summary.moments"],
            Following(**with_prefix(tensors, "following."), flows=flows),
        )
        num_draws = int(description["num_drawn"])
        return SummarizedDraws(structure, search.cohort, population, num_draws, summary)
    weighted = Weighted(*(tensors[f"draws.{name}"] for name in DRAWS))
    return individual_posteriors(
        structure,
        search.cohort.to(dtype=torch.float64),
        population,
        Sampled(weighted, refinement),
        tensors["draws.evaluations"],
        "population" if search.guide is None else "guide",
    )
