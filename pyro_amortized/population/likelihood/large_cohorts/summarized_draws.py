r"""What a round of a fit keeps of the draws of many individuals.

A round needs of every individual the likelihood, the scores :math:`S_i`, how its draws follow the
population, and the mixtures that its next draws come from. Their size does not depend on the number
of draws. The draws themselves and their slopes :math:`s_{ik}` are dropped after they have been
summed into the scores and into

.. math:: E = \sum_i \sum_k w_{ik}^2 (s_{ik} - S_i)(s_{ik} - S_i)^\top ,

the covariance of the Monte Carlo error of the sum of the scores, less what control variates remove
of it (decision 072).

The bias of the scores (:mod:`pyro_amortized.population.following.score_bias`), which is taken off,
does not average out over the individuals: its part of the standard error grows with the square root
of their number.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ....cohort import Cohort
from ....model import ModelStructure
from ....sampling.importance_weights import ImportanceEstimate, log_moments
from ....sampling.individuals import IndividualPosteriors
from ....sampling.weighted_draws import Refinement
from ...following.fitted_following import followed
from ...following.following_draws import Following


class BlockSummary(NamedTuple):
    r"""What is kept of the draws of some individuals.

    Args:
        refinement: The mixtures that they come from.
        estimate: Log likelihoods with their Monte Carlo errors, ESS and Pareto k.
        moments: Log mean weight and log ESS, shape ``(2, individual)``.
        following: How the draws follow the population, with the scores and the covariance E of the
            error of their sum; without the bias of the information on moved draws: that of a
            quadratic likelihood is the sum of the outer products of the scores.
    """

    refinement: Refinement
    estimate: ImportanceEstimate
    moments: Tensor
    following: Following

    @staticmethod
    def joined(parts: Sequence["BlockSummary"]) -> "BlockSummary":
        """What is kept of all individuals of several blocks."""
        following = parts[0].following
        joined: dict[str, Any] = {
            n: torch.cat([getattr(p.following, n) for p in parts])
            for n in ("directions", "rates", "mean", "spread", "axes", "reach", "scores", "bias")
        }
        errors = [p.following.score_covariance for p in parts]
        joined["score_covariance"] = torch.stack(errors).sum(0)
        estimates = {
            f.name: torch.cat([getattr(p.estimate, f.name) for p in parts])
            for f in fields(ImportanceEstimate)
        }
        return BlockSummary(
            Refinement.cat([p.refinement for p in parts]),
            ImportanceEstimate(**estimates),
            torch.cat([p.moments for p in parts], 1),
            replace(following, **joined),
        )


def block_summary(individuals: IndividualPosteriors, scale: Tensor) -> BlockSummary:
    r"""What a round needs of the draws of some individuals, of a model with a density.

    Args:
        individuals: The draws.
        scale: Size of a large step in each unconstrained population parameter, shape
            ``(population,)``.
    """
    following = followed(individuals, scale, individuals.num_draws).following
    return BlockSummary(
        individuals.refinement,
        individuals.marginal_estimate,
        log_moments(individuals.log_weights, individuals.factors),
        replace(following, information_bias=None),
    )


@dataclass(frozen=True, eq=False)
class SummarizedDraws:
    r"""What is kept of the draws of a large cohort.

    Args:
        structure: Structure of the model.
        cohort: The data.
        population: The population that the draws were made at.
        num_draws: Number of draws of each individual.
        summary: What is kept of them.
    """

    structure: ModelStructure
    cohort: Cohort
    population: Mapping[str, Tensor]
    num_draws: int
    summary: BlockSummary

    @property
    def refinement(self) -> Refinement:
        """The mixtures that the draws came from."""
        return self.summary.refinement

    @property
    def marginal_estimate(self) -> ImportanceEstimate:
        """Log p(y_i | Psi) with its Monte Carlo error, ESS and Pareto k, shape ``(individual,)``
        each.
        """
        return self.summary.estimate


# The draws of a round: all of them, or what is kept of those of a large cohort.
RoundDraws = IndividualPosteriors | SummarizedDraws
