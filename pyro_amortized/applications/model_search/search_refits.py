r"""Fits of the models of a search: from the values that the score test promises, with the mixtures
of the individuals of the fit before. A folder keeps every fit, so that a search can go on.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ...errors import AmortizedError, FitError
from ...model import Model, Population
from ...model.extended_program import (
    CorrelatedBlock,
    Entry,
    ErrorPart,
    ExtendedProgram,
    Extension,
)
from ...model.freed_parameter import FreedParameter
from ...numerics.cholesky import factored
from ...population.estimation import refit
from ...population.results.fit_files import load_fit
from ...population.results.fit_result import PopulationFit
from ...runtime.atomic_files import make_folder, read_json, write_atomically
from ...runtime.workers import run_each
from .score_expansion import ScoreTest
from .search_candidates import Candidate

MAX_CORRELATION = 0.9  # of a start: a promised correlation may lie beyond 1
# Rise of -2LL from a model to a larger one above which the larger is fitted from another start.
MAX_RISE = 0.5
SMALLEST = 1e-4  # variance of a start, of that of the prior
MANIFEST = "search.json"


class FittedExtension(NamedTuple):
    """A fit, and what its program has besides that of the user."""

    extension: Extension
    fit: PopulationFit


@dataclass(frozen=True, eq=False)
class Refits:
    r"""The fits of a search.

    Args:
        program: The program of the user.
        seed: Seed of every fit.
        folder: Where fits are kept, or None.
    """

    program: Model
    seed: int
    folder: Path | None = None

    def of(
        self, current: FittedExtension, tasks: Sequence[tuple[Extension, *tuple[Population, ...]]]
    ) -> list[FittedExtension | str]:
        """Fits of extensions from their starts (a second start is used if the first is poor), in
        workers if joblib is configured that way; in place of a fit that failed, why.
        """
        return run_each(_fitted_or_reason, [(self, current, *task) for task in tasks])

    def place(self, extension: Extension) -> Path | None:
        """The folder of a fit."""
        if self.folder is None:
            return None
        return self.folder / "fits" / hashlib.sha1(extension.key.encode()).hexdigest()[:16]


def held_values(current: FittedExtension, extension: Extension) -> dict[str, Tensor]:
    """The sites that a model holds, with their values: those of the present fit which its extension
    does not free, and those which it no longer frees.
    """
    fit, freed = current.fit, {term.site for term in extension.freed}
    held = {name: fit.estimates[name] for name in fit.fixed if name not in freed}
    for term in current.extension.freed:
        if term.site not in freed:
            value = torch.tensor(term.value, dtype=torch.float64)
            held[term.site] = fit.structure.population[term.site].constrain(value)
    return held


def _refitted(
    refits: Refits,
    current: FittedExtension,
    model: Model,
    held: Population,
    start: Population,
    neutral: Population | None,
) -> PopulationFit:
    """The fit from the promised start; from the present estimates without an effect, if there is
    such a start, where the first one ends below the smaller model.
    """
    try:
        fit = refit(current.fit, model, start, refits.seed, held)
    except AmortizedError:
        if neutral is None:
            raise
        return refit(current.fit, model, neutral, refits.seed, held)
    if neutral is None or fit.minus2ll < current.fit.minus2ll + MAX_RISE:
        return fit
    again = refit(current.fit, model, neutral, refits.seed, held)
    return min(fit, again, key=lambda x: x.minus2ll)


def _fitted_or_reason(
    refits: Refits,
    current: FittedExtension,
    extension: Extension,
    start: Population,
    without_term: Population | None = None,
) -> FittedExtension | str:
    model = ExtendedProgram(refits.program, extension) if extension.terms else refits.program
    place = refits.place(extension)
    if place is not None and (place / "fit.safetensors").exists():
        return FittedExtension(extension, load_fit(place, model))
    try:
        held = held_values(current, extension)
        fit = _refitted(refits, current, model, held, start, without_term)
    except AmortizedError as error:
        return str(error).splitlines()[0]
    if place is not None:
        fit.save(place)
    return FittedExtension(extension, fit)


def check_folder(folder: Path, fit: PopulationFit, asked: str) -> None:
    r"""Begin a search in a folder, or check that it is the one that was begun there.

    Raises:
        FitError: Another search was begun in the folder.
    """
    make_folder(folder)
    digest = hashlib.sha1(fit.vector.numpy().tobytes()).hexdigest()
    manifest = {"fit": digest, "asked": asked}
    file = folder / MANIFEST
    if file.exists():
        if read_json(file) != manifest:
            raise FitError(
                f"Another search was begun in {folder}.",
                "the same fit, candidates and rule as before.",
                "choose another `folder=`, or delete this one.",
            )
        return
    write_atomically(file, json.dumps(manifest).encode())


def start_with(current: FittedExtension, candidate: Candidate, test: ScoreTest) -> Population:
    """The population that the score test promises for a model with a candidate."""
    fit, term = current.fit, candidate.term
    extension = candidate.added_to(current.extension)
    moved = fit.structure.constrain_population(fit.vector + test.change)
    start = {name: value for name, value in moved.items() if bool(value.isfinite().all())}
    start = dict(fit.estimates) | start
    if isinstance(term, CorrelatedBlock):
        inside = [b for b in current.extension.blocks if set(b.entries) <= set(term.entries)]
        for block in inside:
            start.pop(block.site)
        start[term.site] = _correlations(current, term, inside, candidate, test.estimate)
    elif isinstance(term, FreedParameter):
        own = fit.structure.coordinates({term.site})
        value = fit.vector[own] + test.estimate
        start[term.site] = fit.structure.population[term.site].constrain(value)
    elif isinstance(term, ErrorPart):
        start[term.site] = test.estimate[0].clamp(min=SMALLEST * term.scale**2).sqrt()
    else:
        start[term.site] = test.estimate if term.form == "category" else test.estimate[0]
    assert {t.site for t in extension.terms} <= set(start)
    return start


def neutral_start(current: FittedExtension, candidate: Candidate) -> Population:
    """The estimates of a fit, with the parameters of a candidate at (or near) zero."""
    zero = ScoreTest(
        0.0, 0.0, torch.zeros(candidate.num_added).double(), torch.zeros_like(current.fit.vector)
    )
    return start_with(current, candidate, zero)


def _correlations(
    current: FittedExtension,
    term: CorrelatedBlock,
    inside: Sequence[CorrelatedBlock],
    candidate: Candidate,
    estimate: Tensor,
) -> Tensor:
    """Cholesky factor of the correlations: those of the blocks, and the promised ones."""
    place: dict[Entry, int] = {entry: i for i, entry in enumerate(term.entries)}
    matrix = torch.eye(len(term.entries), dtype=torch.float64)
    for block in inside:
        factor = current.fit.estimates[block.site]
        rows = torch.tensor([place[e] for e in block.entries])
        matrix[rows.unsqueeze(-1), rows] = factor @ factor.mT
    names = {name: j for j, name in enumerate(current.fit.structure.latent_names)}
    by_coordinate = {names[entry.name]: i for entry, i in place.items()}
    for (j, k), value in zip(candidate.pairs, estimate, strict=True):
        a, b = by_coordinate[j], by_coordinate[k]
        matrix[a, b] = matrix[b, a] = value.clamp(-MAX_CORRELATION, MAX_CORRELATION)
    factor = factored(matrix)
    return factor / factor.square().sum(-1, keepdim=True).sqrt()
