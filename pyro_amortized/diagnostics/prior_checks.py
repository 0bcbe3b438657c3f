r"""Estimates against their prior.

An estimate by maximum likelihood does not use the prior, and may lie far outside of it: the prior
is wrong, or the units of the data are not those that it was written for. The distance is measured
in unconstrained coordinates, in standard deviations of the prior and of the estimate together: one
that the data hardly determine contradicts no prior.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ..cohort.unit_factors import UNITS, unit_words
from ..population.prior_predictions import compare_with_prior
from ..population.results.fit_result import PopulationFit
from ..runtime.random_numbers import make_generator
from .check_results import P_VALUES, Check


@dataclass(frozen=True)
class PriorCheckSettings:
    r"""How priors and units are compared.

    Args:
        num_draws: Draws of the prior, for its median and standard deviation.
        min_sd: Standard deviation of a prior below which the parameter is a constant.
        common_distance: Prior standard deviations from which several estimates that are moved by
            the same factor are named, although none of them alone is far out. Two estimates of a
            right prior are so far out and so close to one factor in less than one of 100 fits.
    """

    num_draws: int = 400
    min_sd: float = 1e-9
    common_distance: float = 1.5


DEFAULTS = PriorCheckSettings()


def prior_checks(fit: PopulationFit, seed: int = 0) -> list[Check]:
    """The check of the estimates against their prior; empty where there is no prior."""
    structure, generator = fit.structure, make_generator(seed)
    draws = structure.draw_populations(fit.cohort, DEFAULTS.num_draws, generator)
    vectors = torch.stack([structure.unconstrain_population(draw) for draw in draws])
    middle = vectors.median(0).values
    low, high = (vectors.quantile(q, 0) for q in (0.16, 0.84))
    # On the side of the estimate: the prior of a standard deviation is skewed in its logarithm.
    sd = torch.where(fit.vector > middle, high - middle, middle - low)
    # Under the prior, an estimate varies by its standard error as well.
    errors = fit.covariance.diagonal().clamp(min=0.0).nan_to_num(0.0, 0.0, 0.0)
    spread = (sd.square() + errors).sqrt()
    tested = ((sd > DEFAULTS.min_sd) & fit.estimated).nonzero()[:, 0].tolist()
    if not tested:
        return []
    moves = fit.vector - middle
    distances = {j: float(moves[j] / spread[j]) for j in tested}
    worst = max(distances.values(), key=abs)
    p_value = min(1.0, len(tested) * _p_value(worst))
    name, names = "estimates and their prior", structure.population_names
    common = _common_factor({names[j]: (float(moves[j]), z) for j, z in distances.items()})
    if p_value >= P_VALUES.look and common:
        return [Check(name, "look", p_value, common, "model", len(tested))]
    if p_value >= P_VALUES.look:
        words = f"The farthest estimate lies {abs(worst):.1f} prior standard deviations out."
        return [Check(name, "passed", p_value, words, "model", len(tested))]
    limit = P_VALUES.look / len(tested)
    parts = [
        f"{names[j]} lies {z:+.1f} prior standard deviations out{_unit_words(float(moves[j]))}"
        for j, z in sorted(distances.items(), key=lambda x: -abs(x[1]))
        if _p_value(z) < limit
    ]
    words = f"{'; '.join(parts)}. Check the units of times, doses and values, and the prior."
    return [Check(name, "look", p_value, words, "model", len(tested))]


def _p_value(z: float) -> float:
    """Two-sided p-value of a standard normal variable."""
    return math.erfc(abs(z) / math.sqrt(2))


def prior_data_check(fit: PopulationFit) -> Check:
    """The check of the data against the predictions of the model under its prior."""
    compared = compare_with_prior(fit.structure, fit.cohort)
    name, number = "units and scale of the data", len(compared.cohort) + len(compared.individuals)
    if number == 0:
        words = "The data lie where the model expects them under its prior, as far as it is known."
        return Check(name, "passed", number, words, "model")
    return Check(name, "look", number, compared.words, "model")


def _common_factor(moves: Mapping[str, tuple[float, float]]) -> str:
    """Words for estimates that a common factor between units has moved, or an empty string.

    Args:
        moves: The move of each estimate from the median of its prior, and the same in standard
            deviations of the prior.
    """
    for factor, words in UNITS.factors:
        for sign in (1, -1):
            named = [
                name
                for name, (move, z) in moves.items()
                if abs(move - sign * math.log(factor)) < UNITS.max_distance
                and abs(z) > DEFAULTS.common_distance
            ]
            if len(named) > 1:
                return (
                    f"{' and '.join(named)} lie {sign * math.log(factor):+.1f} from the median of "
                    f"their prior. If they are logarithms, this is a factor of {factor:g} "
                    f"({words}): check the units of times, doses and values."
                )
    return ""


def _unit_words(move: float) -> str:
    """The units that may have been mixed up, if the move is the logarithm of their factor."""
    words = unit_words(move)
    return f" (if it is a logarithm, by {words})" if words else ""
