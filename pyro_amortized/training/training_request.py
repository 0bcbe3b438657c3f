"""The arguments of a training: their kinds, and individuals that the model is read with."""

from typing import Any

from torch import Generator

from ..cohort import Cohort
from ..errors import TrainingError
from ..guide import AmortizedGuide
from ..guide.training_distributions import TrainingDistribution
from ..runtime.arguments import check_count, check_is, check_program
from ..runtime.random_numbers import make_generator
from .loss_tracking import Tracker
from .network_options import Networks
from .options import TrainingOptions

NUM_EXAMPLE = 64  # individuals of a design that the model is read with


def check_request(model: Any, num_simulations: Any, seed: Any, sharpen: Any) -> None:
    """Check the program, the numbers and whether the guide is to be sharpened."""
    check_program(model, TrainingError)
    if num_simulations is not None:
        check_count("num_simulations", num_simulations, least=100, error=TrainingError)
    check_count("seed", seed, least=0, error=TrainingError)
    if sharpen is not None:
        check_is("sharpen", sharpen, bool, "pass True, False or None.", TrainingError)


def check_kinds(
    options: Any, networks: Any, distribution: Any, warm_start: Any, tracker: Any
) -> None:
    """Check the kinds of the other arguments."""
    error = TrainingError
    check_is("options", options, TrainingOptions, "pass TrainingOptions(...).", error)
    check_is("networks", networks, Networks, "pass Networks(...).", error)
    if distribution is not None:
        fix = "leave it out, or pass `TrainingDistribution.normal(loc, scale_tril)`."
        check_is("training_distribution", distribution, TrainingDistribution, fix, error)
    if warm_start is not None:
        fix = "load it first, `load_guide(path, model, cohort)`."
        check_is("warm_start", warm_start, AmortizedGuide, fix, error)
    if tracker is not None and not isinstance(tracker, Tracker):
        raise error(
            f"The tracker is a {type(tracker).__name__}.",
            "an object with `log_params(params)` and `log_metric(key, value, step)`.",
            "pass `mlflow`, or an object with these two.",
        )


def example_of(design: Any, generator: Generator) -> Cohort:
    """A cohort of a design of the user. It is called twice, so that one that ignores the number of
    individuals is found.
    """
    calls = ((NUM_EXAMPLE // 2, make_generator(0)), (NUM_EXAMPLE, generator))
    for num, source in calls:
        if not callable(design):
            raise TrainingError(
                f"The data are {type(design).__name__!r}, which is neither a cohort nor a design.",
                "a Cohort, or a design: a function of a number of individuals and a generator.",
                "make a cohort of the tensors, `Cohort({name: Series(times, values)})`; a model of "
                "several tensors, `model(t, y, x)`, is adapted to it by `pa.adapt`.",
            )
        try:
            cohort = design(num, source)
        except TypeError as error:
            raise TrainingError(
                f"The data are a {type(design).__name__} that is no cohort and fails as a design: "
                f"{error}",
                "a Cohort, or a design: a function of a number of individuals and a generator.",
                "write `def design(num_individuals, generator): ... return cohort`.",
            ) from error
        size = len(cohort) if isinstance(cohort, Cohort) else None
        if size != num:
            what = f"a {type(cohort).__name__}" if size is None else f"{size} individuals"
            raise TrainingError(
                f"The design gives {what} where {num} individuals are asked for.",
                "a Cohort of this number of individuals.",
                "use `num_individuals`, the first argument, for the number of rows.",
            )
    return cohort
