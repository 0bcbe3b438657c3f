r"""Other starting values, where a fit ended at a place that determines less than the data do.

A mixture of two populations that have become equal does not determine their shares, and the
likelihood has a slope of zero there: a search that has come to such a place cannot leave it, and
cannot know that the maximum is elsewhere (decision 091).
"""

from dataclasses import dataclass

from torch import Generator, Tensor

from ...errors import FitError
from ...model import Population
from ...sampling.refinement_settings import ROUGH_EFFORT
from .fit_rounds import Start, run_rounds
from .flat_directions import flat_directions
from .maximum_search import Search
from .modal_rounds.modal_points import unit_points
from .modal_rounds.modal_search import ModalSearch, has_modal_rounds
from .starting_values import START, candidates


@dataclass(frozen=True)
class OtherStartSettings:
    """When another start is worth the rounds from there."""

    # Rise of the log likelihood on points about the modes. The points are no more exact than this:
    # where rounds on them gain less, the maximum is near (``StartSettings.max_near_gain``).
    min_rise: float = 3.0
    # Starts that are tried, as a multiple of those of the fit. Of two equal populations in a
    # mixture, half of the draws of the prior lead away: with as many starts as before, one of eight
    # seeds did not find the maximum.
    factor: int = 2
    # Of them, those that must have a flat direction, too, if the model is to blame. At one alone, a
    # large residual error may hide what the data determine.
    num_flat: int = 3


OTHER_STARTS = OtherStartSettings()


def other_start(
    search: Search,
    vector: Tensor,
    *,
    num_starts: int,
    fixed: Population | None,
    generator: Generator,
) -> Start | None:
    r"""A start from the prior whose rounds on points about the modes end clearly higher.

    Args:
        search: The search.
        vector: Where the rounds have ended, unconstrained, shape ``(population,)``.
        num_starts: Number of populations that the fit has compared.
        fixed: Values of sites that are held.
        generator: Source of randomness.

    Returns:
        The first of the starts from which it ends clearly higher, the likeliest tried first. None
        where there is none, where the likelihood has a flat direction at the likeliest of them,
        or where a fit does not begin with such points for all individuals.
    """
    if not has_modal_rounds(search) or len(search.cohort) > START.max_whole:
        return None
    modal = ModalSearch.like(search)
    held = search.structure.coordinates(fixed or {})
    schedule = START.modal_schedule(len(unit_points(len(search.structure.latent_names))))
    highest = modal.value_of(modal.draw(vector, 1, generator)) + OTHER_STARTS.min_rise
    num = OTHER_STARTS.factor * num_starts
    starts = candidates(modal, num_starts=num, fixed=fixed, seed=generator)
    some = starts[: OTHER_STARTS.num_flat]
    if all(_is_flat(search, start.vector, held, generator) for start in some):
        return None
    for start in starts:
        try:
            rounds = run_rounds(modal, start, held, schedule, generator)
        except FitError:  # the data of an individual are impossible there
            continue
        if rounds.value > highest:
            near = rounds.ascent.gain < START.max_near_gain
            known = None if search.guide is not None else rounds.individuals.refinement
            return Start(rounds.ascent.optimum.vector, known, near)
    return None


def _is_flat(search: Search, vector: Tensor, held: Tensor, generator: Generator) -> bool:
    """Whether the likelihood has a flat direction at a population far from the fit, too: then the
    model does not determine it anywhere, and other starts only cost time.
    """
    drawn = search.draw(vector, START.num_draws, generator, effort=ROUGH_EFFORT)
    scores = search.likelihood(drawn).following.scores[:, ~held]
    return flat_directions(scores * search.scale[~held])[0].shape[1] > 0
