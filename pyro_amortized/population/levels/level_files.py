r"""Saving and loading of a fit with a level above the individuals.

Such a fit is a folder with one file, ``levels.safetensors``: data, estimates and effects. Nothing
is pickled, so reading a folder executes no code in it.
"""

from pathlib import Path
from typing import Any

from ...cohort import Labels, are_default_labels
from ...cohort.named_tensors import cohort_of, cohort_tensors, with_prefix
from ...errors import AmortizedError, FitError
from ...model import Model, ModelStructure, read_structure
from ...runtime.arguments import check_is
from ...runtime.atomic_files import make_folder, read_tensors, write_tensors
from ...runtime.file_formats import Content, Format
from ..results.fit_files import unusable
from .level_result import LevelFit
from .level_sites import Level, the_level

LEVEL_FORMAT = Format("fit again")
LEVEL_FILE = "levels.safetensors"
DESCRIPTION = ("minus2ll", "minus2ll_mc_error", "converged", "message", "num_rounds", "seconds")
ESTIMATED = ("vector", "covariance", "units")


def save_levels(fit: LevelFit, path: str | Path) -> None:
    r"""Write a fit to a folder; the file is replaced only after it was written completely.

    Args:
        fit: The fit.
        path: The folder; it is created if it does not exist.
    """
    folder = Path(path)
    make_folder(folder)
    tensors = {f"cohort.{name}": x for name, x in cohort_tensors(fit.cohort).items()}
    tensors |= {f"fit.{name}": getattr(fit, name) for name in ESTIMATED}
    tensors |= {f"deviations.{name}": x for name, x in fit.effect_deviations.items()}
    description = {name: getattr(fit, name) for name in DESCRIPTION}
    description |= {
        "population": fit.structure.population_names,
        "fixed": list(fit.fixed),
        "ids": list(fit.cohort.ids),
        "numbered": are_default_labels(fit.cohort.ids),
    }
    write_tensors(folder / LEVEL_FILE, tensors, LEVEL_FORMAT.stamped(description))


def load_levels(path: str | Path, model: Model) -> LevelFit:
    r"""Load a fit with a level that ``fit.save(path)`` wrote, with its data.

    No code in the folder is executed, and no draws are made.

    Args:
        path: The folder.
        model: The model that was fitted.

    Returns:
        The fit.

    Raises:
        FitError: The folder contains no such fit, or the fit is damaged, has a format that cannot
            be read, or belongs to another model.
    """
    check_is("path", path, (str, Path), "pass the folder's path.", FitError)
    file = Path(path) / LEVEL_FILE
    if not file.is_file():
        raise FitError(
            f"{path} contains no {LEVEL_FILE}.",
            "a folder that `save` of a fit of `fit_levels` wrote.",
            "check the path; a fit of `fit_population` is read by `load_fit`.",
        )
    try:
        tensors, description = read_tensors(file)
        content = LEVEL_FORMAT.newest(file, description, tensors)
        cohort_columns = with_prefix(content.tensors, "cohort.")
        labels = Labels.of(
            map(str, content.description["ids"]), bool(content.description["numbered"])
        )
        cohort = cohort_of(cohort_columns, labels)
    except (AmortizedError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise unusable(file, error) from error
    structure = read_structure(model, cohort)
    expected = content.description.get("population")
    if structure.population_names != expected:
        raise FitError(
            f"The model has the population parameters {structure.population_names}.",
            f"{expected}, as in the fit.",
            "pass the model that was fitted.",
        )
    level = the_level(structure, cohort)
    try:
        return _loaded(content, structure, level, cohort)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise unusable(file, error) from error


def _loaded(content: Content, structure: ModelStructure, level: Level, cohort: Any) -> LevelFit:
    """The fit; a ValueError if its tensors do not belong together."""
    own, description = with_prefix(content.tensors, "fit."), content.description
    size = len(structure.population_names)
    valid = own["vector"].shape == (size,) and own["covariance"].shape == (size, size)
    valid &= own["units"].shape == (len(cohort),) and bool(own["vector"].isfinite().all())
    if not valid:
        raise ValueError("its tensors have inconsistent shapes, or values that are not finite")
    population = structure.constrain_population(own["vector"])
    deviations = with_prefix(content.tensors, "deviations.")
    return LevelFit(
        structure=structure,
        cohort=cohort,
        level=level,
        vector=own["vector"],
        covariance=own["covariance"],
        units=own["units"],
        effects={name: population[name] for name in level.sites},
        effect_deviations={name: deviations[name] for name in level.sites},
        fixed=tuple(description["fixed"]),
        **{name: description[name] for name in DESCRIPTION},
    )
