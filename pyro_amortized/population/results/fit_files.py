r"""Saving and loading of a fit.

A fit is a folder: the data, the draws and the estimates are in the file ``fit.safetensors``, and
the guide, if there is one, is in the folder ``guide``. Nothing is pickled, so reading a folder
executes no code in it. :func:`save_fit` writes a :class:`PopulationFit`, :func:`load_fit` gives it
back.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...cohort import Cohort, Labels, are_default_labels
from ...cohort.named_tensors import cohort_of, cohort_tensors, with_prefix
from ...errors import AmortizedError, FitError
from ...guide import AmortizedGuide, load_guide
from ...guide.learned_likelihood import structure_to_fit
from ...model import Model, ModelStructure
from ...runtime.arguments import check_is
from ...runtime.atomic_files import make_folder, read_tensors, write_tensors
from ...runtime.file_formats import Content, Format
from ...sampling.individuals import IndividualPosteriors
from ...sampling.sampling_stage import Stage
from ...sampling.student_mixture import StudentMixture
from ...sampling.weighted_draws import Refinement
from ..likelihood.likelihood_estimate import MarginalLikelihood
from ..search.maximum_search import Search
from .fit_result import PopulationFit

FORMAT = Format("fit again")
FILE, GUIDE = "fit.safetensors", "guide"
ESTIMATES = ("vector", "covariance", "monte_carlo_errors", "standard_error_errors")
DRAWS = ("unconstrained", "log_proposal", "log_weights")
MARGINAL = ("log_likelihood", "mc_error", "ess", "pareto_k", "num_draws")
REFINED = ("stage", "num_modes")
MIXTURES = ("mixture", "guide")
DESCRIBED = (
    *("criterion", "estimator", "population", "converged", "message", "num_rounds", "fixed"),
    *("undetermined", "seconds"),
    *("ids", "numbered", "method", "guided"),
)


class FitContents(NamedTuple):
    """What the file of a fit contains: the cohort, tensors by name, the mixtures of the
    individuals, and the values that JSON can represent.
    """

    cohort: Cohort
    tensors: dict[str, Tensor]
    refinement: Refinement
    description: dict[str, Any]


def save_fit(fit: PopulationFit, path: str | Path) -> None:
    r"""Write a fit to a folder. Each file is replaced only after it was written completely.

    Args:
        fit: The fit.
        path: The folder; it is created if it does not exist.
    """
    folder = Path(path)
    make_folder(folder)
    if fit.guide is not None:
        fit.guide.save(folder / GUIDE)
    write_tensors(folder / FILE, _tensors(fit), FORMAT.stamped(_description(fit)))


def _tensors(fit: PopulationFit) -> dict[str, Tensor]:
    """Data, estimates, draws and mixtures by name."""
    individuals, refinement = fit.individuals, fit.individuals.refinement
    estimates = {name: getattr(fit, name) for name in ESTIMATES}
    estimates["scale"] = fit.search.scale
    tensors = {f"cohort.{name}": x for name, x in cohort_tensors(individuals.cohort).items()}
    tensors |= {f"estimates.{name}": x for name, x in estimates.items()}
    tensors |= draw_tensors(individuals)
    tensors |= {f"marginal.{name}": getattr(fit.marginal, name) for name in MARGINAL}
    return tensors | refinement_tensors(refinement)


def draw_tensors(individuals: IndividualPosteriors) -> dict[str, Tensor]:
    """The weighted draws of the individuals by name."""
    return {f"draws.{name}": getattr(individuals, name) for name in (*DRAWS, "evaluations")}


def refinement_tensors(refinement: Refinement) -> dict[str, Tensor]:
    """The mixtures of the individuals by name."""
    tensors = {f"refinement.{name}": getattr(refinement, name) for name in REFINED}
    for kind in MIXTURES:
        mixture: StudentMixture = getattr(refinement, kind)
        tensors |= {f"refinement.{kind}.{f.name}": vars(mixture)[f.name] for f in fields(mixture)}
    return tensors


def refinement_of(tensors: Mapping[str, Tensor]) -> Refinement:
    """The mixtures that :func:`refinement_tensors` named."""
    mixtures = [StudentMixture(**with_prefix(tensors, f"refinement.{kind}.")) for kind in MIXTURES]
    stage, num_modes = (tensors[f"refinement.{name}"] for name in REFINED)
    return Refinement(stage, mixtures[0], mixtures[1], num_modes)


def _description(fit: PopulationFit) -> dict[str, Any]:
    """All other values, as JSON represents them."""
    return {
        "criterion": fit.criterion,
        "estimator": fit.estimator,
        "population": fit.structure.population_names,
        "converged": fit.converged,
        "message": fit.message,
        "num_rounds": fit.num_rounds,
        "seconds": fit.seconds,
        "fixed": list(fit.fixed),
        "undetermined": list(fit.undetermined),
        "ids": list(fit.individuals.cohort.ids),
        "numbered": are_default_labels(fit.individuals.cohort.ids),
        "method": list(fit.individuals.method),
        "guided": fit.guide is not None,
    }


def load_fit(
    path: str | Path,
    model: Model,
    *,
    guide_model: Model | None = None,
    classes: Sequence[type] = (),
) -> PopulationFit:
    r"""Load a fit that ``fit.save(path)`` wrote, with its data and its guide.

    No code in the folder is executed, and no draws are made: estimates, draws and weights are
    those of the saved fit, so all later steps give the same results as with the original fit.

    Args:
        path: The folder.
        model: The population model that was fitted.
        guide_model: The model that the guide was trained for, if it is a different one.
        classes: As in :func:`~pyro_amortized.load_guide`.

    Returns:
        The fit.

    Raises:
        FitError: The folder contains no fit, or the fit is damaged, has a format that cannot be
            read, or belongs to another model.
        GuideError: The guide in the folder cannot be used.
    """
    check_is("path", path, (str, Path), "pass the folder's path.", FitError)
    folder = Path(path)
    contents = read_fit(folder)
    cohort, description = contents.cohort, contents.description
    guide = (
        load_guide(folder / GUIDE, guide_model or model, cohort, classes=classes)
        if description["guided"]
        else None
    )
    return fit_of(contents, folder, model, guide)


def fit_of(
    contents: FitContents, folder: Path, model: Model, guide: AmortizedGuide | None
) -> PopulationFit:
    r"""The fit of the contents of a folder.

    Args:
        contents: From :func:`read_fit`.
        folder: The folder, for messages.
        model: The population model that was fitted.
        guide: The guide of the fit, or None.

    Raises:
        FitError: The contents belong to another model, or cannot be used.
    """
    cohort, description = contents.cohort, contents.description
    structure = structure_to_fit(model, cohort, guide, description["estimator"])
    expected = description["population"]
    if structure.population_names != expected:
        raise FitError(
            f"The model has the population parameters {structure.population_names}.",
            f"{expected}, as in the fit.",
            "pass the model that was fitted as `model=`, and the model of the guide, if it is a "
            "different one, as `guide_model=`.",
        )
    try:
        return _fit(model, guide, structure, contents)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, AmortizedError):
            raise
        raise unusable(folder, error) from error


def _fit(
    model: Model, guide: AmortizedGuide | None, structure: ModelStructure, contents: FitContents
) -> PopulationFit:
    cohort, tensors, _, description = contents
    criterion, individuals = description["criterion"], _individuals(structure, contents)
    return PopulationFit(
        model=model,
        guide=guide,
        cohort=cohort,
        structure=structure,
        criterion=criterion,
        vector=tensors["estimates.vector"],
        covariance=tensors["estimates.covariance"],
        monte_carlo_errors=tensors["estimates.monte_carlo_errors"],
        standard_error_errors=tensors["estimates.standard_error_errors"],
        individuals=individuals,
        marginal=_marginal(individuals, contents),
        converged=bool(description["converged"]),
        message=str(description["message"]),
        num_rounds=int(description["num_rounds"]),
        seconds=float(description["seconds"]),
        search=Search(structure, guide, cohort, criterion, tensors["estimates.scale"]),
        fixed=tuple(description["fixed"]),
        undetermined=tuple(description["undetermined"]),
    )


def _individuals(structure: ModelStructure, contents: FitContents) -> IndividualPosteriors:
    tensors = contents.tensors
    return IndividualPosteriors(
        structure,
        contents.cohort,
        structure.constrain_population(tensors["estimates.vector"]),
        tensors["draws.unconstrained"],
        tensors["draws.log_proposal"],
        tensors["draws.log_weights"],
        tuple(contents.description["method"]),
        contents.refinement,
        tensors["draws.evaluations"],
    )


def _marginal(individuals: IndividualPosteriors, contents: FitContents) -> MarginalLikelihood:
    tensors = contents.tensors
    return MarginalLikelihood(
        **{name: tensors[f"marginal.{name}"] for name in MARGINAL},
        method=individuals.method,
        estimator=individuals.structure.estimator,
    )


def read_fit(folder: Path) -> FitContents:
    r"""Read and check the file that :func:`save_fit` wrote.

    Raises:
        FitError: The file does not exist, is damaged, or has a format that cannot be read.
    """
    path = folder / FILE
    if not path.is_file():
        raise FitError(
            f"{folder} contains no {FILE}.",
            "a folder written by `fit.save(path)`.",
            "check the path.",
        )
    description, tensors = _content(path)
    try:
        missing = [name for name in DESCRIBED if name not in description]
        if missing:
            raise ValueError(f"{missing} are missing")
        labels = Labels.of(map(str, description["ids"]), bool(description["numbered"]))
        cohort = cohort_of(with_prefix(tensors, "cohort."), labels)
        refinement = refinement_of(tensors)
        names = [f"draws.{name}" for name in (*DRAWS, "evaluations")]
        names += [f"marginal.{name}" for name in MARGINAL]
        names += [f"estimates.{name}" for name in (*ESTIMATES, "scale")]
        contents = FitContents(
            cohort, {name: tensors[name] for name in names}, refinement, description
        )
        _check_shapes(contents)
        return contents
    except (AmortizedError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise unusable(path, error) from error


def _content(path: Path) -> Content:
    """Description and tensors in the newest format."""
    try:
        tensors, description = read_tensors(path)
    except AmortizedError as error:
        raise unusable(path, error) from error
    try:
        return FORMAT.newest(path, description, tensors)
    except AmortizedError as error:
        raise FitError(error.found, error.expected, error.fix) from error


def unusable(path: Path, error: Exception) -> FitError:
    """The error of a saved fit that cannot be read because of another error."""
    reason = error.found if isinstance(error, AmortizedError) else repr(error)
    return FitError(
        f"{path} cannot be used: {reason}",
        "what `save` of a fit, or a fit with `folder=`, wrote, complete.",
        "copy it again, or delete it and fit again.",
    )


def _check_shapes(contents: FitContents) -> None:
    """Raise a ValueError unless the tensors have consistent shapes and usable values."""
    cohort, tensors, refinement, description = contents
    draws, num = tensors["draws.unconstrained"], len(cohort)
    num_parameters = len(tensors["estimates.vector"])
    valid = draws.dim() == 3 and draws.shape[1] == num
    valid &= all(tensors[f"draws.{name}"].shape == draws.shape[:2] for name in DRAWS[1:])
    valid &= all(tensors[f"marginal.{name}"].shape == (num,) for name in MARGINAL)
    valid &= tensors["estimates.covariance"].shape == (num_parameters, num_parameters)
    for name in ("scale", "monte_carlo_errors", "standard_error_errors"):
        valid &= tensors[f"estimates.{name}"].shape == (num_parameters,)
    valid &= (
        refinement.stage.shape == refinement.num_modes.shape == (num,)
        and tensors["draws.evaluations"].shape == (num,)
        and all(stage in list(Stage) for stage in refinement.stage.tolist())
        and len(description["method"]) == num
    )
    valid &= bool(tensors["estimates.vector"].isfinite().all() & draws.isfinite().all())
    valid &= not bool(torch.isnan(tensors["draws.log_weights"]).any())
    if not valid:
        raise ValueError("its tensors have inconsistent shapes, or values that are not finite")
