r"""Fits from files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import AmortizedError, FitError
from ..guide import load_guide, structure_for
from ..guide.learned_likelihood import structure_with
from ..model import Model
from ..runtime.arguments import check_is
from ..sampling.individuals import IndividualPosteriors
from .fit_format import GUIDE, read_fit
from .marginalization import summarize_weights
from .maximum_search import Search
from .population_fit import PopulationFit


def load_fit(
    path: str | Path,
    model: Model,
    *,
    guide_model: Model | None = None,
    classes: Sequence[type] = (),
) -> PopulationFit:
    r"""Load a fit that ``fit.save(path)`` wrote, with its data and its guide.

    Nothing of it is executed, and nothing is drawn again: estimates, draws and weights are those of
    the fit, so that whatever follows a fit follows it too.

    Args:
        path: The folder.
        model: The population model that was fitted.
        guide_model: The program that the guide was trained for, where it is another one.
        classes: As of :func:`~pyro_amortized.load_guide`.

    Raises:
        FitError: The folder holds no fit, a damaged one, one whose format cannot be read, or one of
            another model.
        GuideError: The guide in it cannot be used.
    """
    check_is("path", path, (str, Path), "pass the folder's path.", FitError)
    folder = Path(path)
    cohort, tensors, refinement, description = read_fit(folder)
    guide = load_guide(folder / GUIDE, guide_model or model, cohort, classes=classes)
    structure = structure_with(structure_for(guide, model, cohort), guide, description["estimator"])
    expected = description["population"]
    if structure.population_names != expected:
        raise FitError(
            f"The program has the population parameters {structure.population_names}.",
            f"{expected}, as in the fit.",
            "pass the program that was fitted as `model=`; the guide's own, if it is another one, "
            "as `guide_model=`.",
        )
    try:
        return _fit(model, guide, cohort, structure, tensors, refinement, description)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, AmortizedError):
            raise
        raise FitError(
            f"{folder} cannot be used: {error!r}",
            "a folder that `fit.save(path)` wrote.",
            "copy it again, or fit again.",
        ) from error


def _fit(
    model: Model,
    guide: Any,
    cohort: Any,
    structure: Any,
    tensors: dict[str, Any],
    refinement: Any,
    description: dict[str, Any],
) -> PopulationFit:
    vector, criterion = tensors["estimates.vector"], description["criterion"]
    individuals = IndividualPosteriors(
        structure,
        cohort,
        structure.constrain_population(vector),
        tensors["draws.unconstrained"],
        tensors["draws.log_proposal"],
        tensors["draws.log_weights"],
        tuple(description["method"]),
        refinement,
    )
    return PopulationFit(
        model=model,
        guide=guide,
        cohort=cohort,
        structure=structure,
        criterion=criterion,
        vector=vector,
        covariance=tensors["estimates.covariance"],
        individuals=individuals,
        marginal=summarize_weights(individuals),
        converged=bool(description["converged"]),
        message=str(description["message"]),
        num_rounds=int(description["num_rounds"]),
        search=Search(structure, guide, cohort, criterion, tensors["estimates.scale"]),
        fixed=tuple(description["fixed"]),
    )
