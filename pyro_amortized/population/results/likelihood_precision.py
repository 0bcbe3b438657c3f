r"""More draws at the result of a fit, for the individuals whose Monte Carlo errors are largest.

An individual has an estimate :math:`\hat Z_0` of its likelihood from :math:`K_0` draws. From
:math:`K_1` new draws comes another one, with control variates of its own, and both together are

.. math:: \hat Z = \frac{K_0^a \hat Z_0 + K_1^a \hat Z_1}{K_0^a + K_1^a} ,

where the variance of an estimate is expected to be proportional to :math:`K^{-a}`. The weights do
not depend on the draws, so the estimate is unbiased. Which individuals get new draws does not
depend on them either, but for exceptional errors: large estimates have large errors, and where
these alone are drawn again, the others leave a bias. A few further draws, which are not used
otherwise, show which individuals are expected to have large errors; of many, those with new draws
are chosen at random. Only the likelihood is kept of the new draws. They come from mixtures, those
of the individuals that a guide or the population served as well: a draw of a mixture costs less
than one of the networks, and the control variates of a smooth proposal leave less of the error.
With a guide that is 0.95 effective, 1,000 individuals needed 1.5 million draws for a precision of
0.1, and need half as many from mixtures.
"""

from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from ...sampling.individuals import IndividualPosteriors
from ...sampling.refinement_settings import NO_CHAINS
from ...sampling.weighted_draws import Refinement
from ...sampling.weighted_fits import refinement_of_draws
from ..likelihood.likelihood_estimate import MarginalLikelihood, summarize_weights
from ..search.maximum_search import Search


@dataclass(frozen=True)
class PrecisionSettings:
    r"""Which individuals get more draws, and how many.

    Args:
        growth: New draws of an individual, as a multiple of those that it has. With more at once
            some individuals would get more than they need.
        exponent: Exponent a. Without control variates it is 1; with more draws, there are more of
            them and the error falls faster: from .50 to .11 with six times the draws of 120
            individuals.
        max_values: Largest number of observed values at all new draws, which take some seconds.
        min_at_random: Individuals from which on those with new draws are chosen at random. For
            3,000 individuals with counts -2LL was 1.7 errors too large in the order of expected
            errors (four seeds), and 0.5 at random.
        pilot_share: Draws that show which individuals are expected to have large errors, as a share
            of those that they have. Where the errors of the estimates themselves showed it, the log
            likelihood of 60 individuals with counts was too small by its error, and that of 3,000
            by four errors (decisions 071 and 091).
        min_pilot: Smallest number of them.
        exceptional: Individuals whose own error is more than this multiple of the median come
            first.
        allowed_errors: Difference of the two estimates, in their errors, beyond which the error of
            both together is larger than theirs: it occurs once in 400 individuals where the errors
            are right.
    """

    growth: int = 3
    exponent: float = 1.5
    max_values: int = 30_000_000
    min_at_random: int = 500
    pilot_share: float = 0.25
    min_pilot: int = 50
    exceptional: float = 5.0
    allowed_errors: float = 3.0


PRECISION = PrecisionSettings()
# Modes were searched for when the draws of the fit were made.
MORE_DRAWS = NO_CHAINS._replace(search_modes=False)


def with_precision(
    search: Search, individuals: IndividualPosteriors, precision: float, generator: Generator
) -> MarginalLikelihood:
    r"""The likelihood with more draws, as long as its Monte Carlo error is too large.

    Args:
        search: The search.
        individuals: The draws of a fit, at its result.
        precision: Monte Carlo standard error of -2LL.
        generator: Source of randomness.

    Returns:
        The likelihood. Its error is larger than the precision where more draws are not affordable,
        or where the error of an individual is not known.
    """
    marginal = summarize_weights(individuals)
    vector = search.structure.unconstrain_population(individuals.population)
    num_values = search.cohort.num_values / len(search.cohort)
    available = PRECISION.max_values / max(1.0, num_values)
    if marginal.minus2ll_mc_error <= precision:
        return marginal
    refinement = refinement_of_draws(individuals.sampled, generator)
    alone = replace(search, guide=None)
    pilot = _pilot_errors(alone, individuals, refinement, generator)
    while marginal.minus2ll_mc_error > precision and bool(marginal.mc_error.isfinite().all()):
        expected = pilot * marginal.num_draws.double() ** (-PRECISION.exponent / 2)
        order = _order(marginal.mc_error, expected)
        rows = _first_rows(marginal.mc_error, order, precision / 2)
        costs = PRECISION.growth * marginal.num_draws[rows]
        rows = rows[costs.cumsum(0) <= available]  # of many individuals, the worst ones
        if len(rows) == 0:
            break
        available -= PRECISION.growth * int(marginal.num_draws[rows].sum())
        for number in marginal.num_draws[rows].unique().tolist():
            same = rows[marginal.num_draws[rows] == number]
            chosen = replace(alone, cohort=search.cohort[same])
            num_new, known = PRECISION.growth * number, refinement.take(same)
            more = chosen.draw(vector, num_new, generator, known, MORE_DRAWS)
            marginal = combined_estimates(marginal, same, summarize_weights(more))
    return marginal


def _pilot_errors(
    search: Search, individuals: IndividualPosteriors, known: Refinement, generator: Generator
) -> Tensor:
    """Errors that do not depend on the draws of the result, shape ``(individual,)``: those of a few
    new ones, or of many individuals random numbers.
    """
    num = len(individuals.cohort)
    if num >= PRECISION.min_at_random:
        return torch.rand(num, generator=generator, dtype=torch.float64)
    vector = search.structure.unconstrain_population(individuals.population)
    num_draws = max(PRECISION.min_pilot, int(PRECISION.pilot_share * individuals.num_draws))
    return search.draw(vector, num_draws, generator, known, MORE_DRAWS).estimate.mc_error


def _order(errors: Tensor, expected: Tensor) -> Tensor:
    """The individuals in the order in which they get more draws: those with exceptional errors
    first, then those with the largest expected ones.
    """
    order = expected.argsort(descending=True)
    is_large = errors[order] > PRECISION.exceptional * errors.median()
    return torch.cat([order[is_large], order[~is_large]])


def _first_rows(errors: Tensor, order: Tensor, target: float) -> Tensor:
    """The smallest number of individuals in this order whose next draws bring the error of the sum
    of the log likelihoods to a target, as far as can be foreseen; all where that is not enough.
    """
    variances = errors[order].square()
    weight = PRECISION.growth**PRECISION.exponent
    kept = 1 / (1 + weight)  # of the variance, with the new draws
    expected = variances.sum() - (1 - kept) * variances.cumsum(0)
    enough = (expected <= target**2).nonzero()[:, 0]
    return order[: int(enough[0]) + 1] if len(enough) else order


def combined_estimates(
    marginal: MarginalLikelihood, rows: Tensor, new: MarginalLikelihood
) -> MarginalLikelihood:
    r"""The likelihood, with that of some individuals combined with estimates from new draws.

    Args:
        marginal: The likelihood of all individuals.
        rows: Indices of some of them.
        new: The likelihood of these, from new draws; with an infinite error where none of the new
            draws has a weight, which counts as an estimate of zero.
    """
    numbers = torch.stack([marginal.num_draws[rows], new.num_draws])
    log_means = torch.stack([marginal.log_likelihood[rows], new.log_likelihood])
    log_weights = (PRECISION.exponent * numbers.double().log()).log_softmax(0)
    terms = log_weights + log_means
    log_mean = terms.logsumexp(0)
    errors = torch.stack([marginal.mc_error[rows], new.mc_error])
    columns = {
        "log_likelihood": log_mean,
        "mc_error": _combined_error(log_weights, log_means - log_mean, errors),
        "ess": marginal.ess[rows] + new.ess,
        "pareto_k": new.pareto_k,
        "num_draws": numbers.sum(0),
    }
    return replace(
        marginal,
        **{name: getattr(marginal, name).index_put((rows,), x) for name, x in columns.items()},
    )


def _combined_error(log_weights: Tensor, log_means: Tensor, errors: Tensor) -> Tensor:
    r"""Monte Carlo error of the logarithm of a weighted mean of two estimates.

    Args:
        log_weights: Logarithms of their weights, shape ``(2, individual)``.
        log_means: Logarithms of the two, less that of their mean, same shape; -inf where no draw
            has a weight.
        errors: Their Monte Carlo errors, same shape; infinite there.

    Returns:
        Shape ``(individual,)``.
    """
    means = log_means.exp()
    absolute = torch.where(means > 0, means * errors, 0.0)
    allowed = (PRECISION.allowed_errors * absolute.norm(dim=0)).clamp(min=1e-300)
    excess = (means[0] - means[1]).abs() / allowed
    return (log_weights.exp() * absolute).norm(dim=0) * excess.clamp(min=1.0)
