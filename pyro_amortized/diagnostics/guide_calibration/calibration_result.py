r"""Results of a simulation-based calibration: ranks, coverage, recovery and contraction.

For individual :math:`i` and parameter :math:`j` with true value :math:`\phi_{ij}` and weighted
posterior draws :math:`\phi_{ij}^{(s)}`, the *level* is the posterior probability below the truth,

.. math:: u_{ij} = \sum_s w_i^{(s)} \, 1\{\phi_{ij}^{(s)} < \phi_{ij}\},

and the *rank* is the number of equally weighted draws below it. Both are uniform if the posterior
is right. *Corrected* results use draws that are weighted by the density of the model; *raw* results
use the draws of the guide as they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from scipy.stats import chisquare
from torch import Tensor

from ...errors import TrainingError
from .uniformity_tests import independence_p_value, uniform_p_value


@dataclass(frozen=True, eq=False)
class Calibration:
    r"""Ranks and posterior probabilities of simulated individuals.

    Made by :func:`~pyro_amortized.diagnostics.calibrate`. Parameters are the unconstrained
    individual parameters. If the observations have no density, nothing can be corrected: then
    ``ranks``, ``levels``, ``means``, ``sds`` and ``tarp`` are those of the guide, and ``ess``,
    ``pareto_k`` and ``raw_efficiency`` are NaN.

    Args:
        names: One label per parameter.
        ranks: Rank of the true value among ``num_ranks`` corrected draws, shape ``(individual,
            parameter)``.
        raw_ranks: The same for draws of the guide.
        levels: Posterior probability below the true value, corrected, shape ``(individual,
            parameter)``.
        raw_levels: The same for the guide.
        num_ranks: Number of draws among which the true value is ranked; ranks run from 0 to
            ``num_ranks``.
        ess: Effective sample size of the corrected draws, shape ``(individual,)``.
        pareto_k: Pareto k of the corrected draws, shape ``(individual,)``.
        truth: True parameters, shape ``(individual, parameter)``.
        means: Posterior means, corrected, same shape.
        sds: Posterior standard deviations, corrected, same shape.
        tarp: Posterior probability of the draws that are nearer to a random reference point than
            the true value is, corrected; shape ``(individual,)``. It is uniform for a right joint
            posterior of any shape.
        raw_tarp: The same for the guide.
        raw_efficiency: Effective share of the guide's own draws, shape ``(individual,)``.
        num_recorded: Number of recorded values of each individual, shape ``(individual,)``.
        share_missing: Share of the scheduled values that are not recorded, shape ``(individual,)``.
        covariates: Covariates of the simulated individuals, each of shape ``(individual,)``.
    """

    names: list[str]
    ranks: Tensor
    raw_ranks: Tensor
    levels: Tensor
    raw_levels: Tensor
    num_ranks: int
    ess: Tensor
    pareto_k: Tensor
    truth: Tensor
    means: Tensor
    sds: Tensor
    tarp: Tensor
    raw_tarp: Tensor
    raw_efficiency: Tensor
    num_recorded: Tensor
    share_missing: Tensor
    covariates: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ranks)

    def where(self, picked: Tensor) -> "Calibration":
        r"""The calibration of a group of individuals, for instance of those of one experiment.

        Args:
            picked: Boolean, shape ``(individual,)``; for instance
                ``calibration.share_missing > 0.3`` or ``calibration.covariates["arm"] == 1``.
        """
        fields: dict[str, Any] = {
            n: x[picked] for n, x in vars(self).items() if isinstance(x, Tensor)
        }
        covariates = {name: x[picked] for name, x in self.covariates.items()}
        return replace(self, **fields, covariates=covariates)

    def uniform_p_values(self, *, raw: bool = False) -> dict[str, float]:
        r"""P-value of uniform ranks, per parameter: the whole empirical distribution function
        against simultaneous bands.

        Args:
            raw: Take the ranks among the draws of the guide.
        """
        ranks = self.raw_ranks if raw else self.ranks
        jitter = np.random.default_rng(0).random(tuple(ranks.shape))
        p_values = uniform_p_value((ranks.numpy() + jitter) / (self.num_ranks + 1))
        return dict(zip(self.names, p_values.tolist(), strict=True))

    def tarp_p_value(self, *, raw: bool = False) -> float:
        r"""P-value of uniform coverage of the joint posterior.

        Args:
            raw: Take the draws of the guide.

        References:
            Lemos, Coogan, Hezaveh, Perreault-Levasseur (2023), Sampling-based accuracy testing of
            posterior estimators for general inference.
        """
        return float(uniform_p_value((self.raw_tarp if raw else self.tarp).numpy()[:, None])[0])

    def local_p_values(self, *, raw: bool = False) -> dict[str, float]:
        r"""P-value of levels that do not depend on the data, per parameter.

        The levels are regressed on the posterior mean and the logarithm of the posterior standard
        deviation of all parameters and on the number of recorded values. Ranks that are uniform on
        average can hide errors that cancel between data sets; this test detects them.

        Args:
            raw: Take the levels of the guide.
        """
        levels = (self.raw_levels if raw else self.levels).numpy()
        data = [self.means, self.sds.clamp(min=1e-12).log(), self.num_recorded[:, None].double()]
        features = torch.cat(data, 1).numpy()
        p_values = [independence_p_value(column, features) for column in levels.T]
        return dict(zip(self.names, p_values, strict=True))

    def contraction(self) -> dict[str, float]:
        """Share of the variance of the training distribution that the data take away, per
        parameter: 0 where the data say nothing about it, 1 where they determine it.
        """
        share = 1 - self.sds.pow(2).mean(0) / self.truth.var(0)
        return dict(zip(self.names, share.tolist(), strict=True))

    def recovery(self) -> dict[str, float]:
        """Correlation of the posterior means with the true values, per parameter."""
        pairs = zip(self.truth.T, self.means.T, strict=True)
        correlations = [float(torch.corrcoef(torch.stack(pair))[0, 1]) for pair in pairs]
        return dict(zip(self.names, correlations, strict=True))

    def p_values(self, *, raw: bool = False, num_bins: int = 10) -> dict[str, float]:
        r"""Chi-square p-value of uniform ranks, per parameter.

        Args:
            raw: Take the ranks among the draws of the guide.
            num_bins: Bins of equal width; ``num_ranks + 1`` must be a multiple of it.

        Raises:
            TrainingError: The ranks cannot be divided into so many bins of equal width.
        """
        if (self.num_ranks + 1) % num_bins:
            raise TrainingError(
                f"{self.num_ranks + 1} possible ranks cannot be divided into {num_bins} bins of "
                "equal width.",
                "a number of bins that divides the number of possible ranks.",
                "pass `num_bins=10`, or calibrate with another `num_ranks=`.",
            )
        ranks = (self.raw_ranks if raw else self.ranks) * num_bins // (self.num_ranks + 1)
        counts = [torch.bincount(column, minlength=num_bins).numpy() for column in ranks.unbind(1)]
        return {
            name: float(chisquare(c).pvalue) for name, c in zip(self.names, counts, strict=True)
        }

    def coverage(self, level: float, *, raw: bool = False) -> dict[str, float]:
        r"""Share of individuals whose true value lies in the central posterior interval, per
        parameter.

        Args:
            level: Probability of the interval, between 0 and 1.
            raw: Take the levels of the guide.
        """
        below = self.raw_levels if raw else self.levels
        inside = ((below - 0.5).abs() <= level / 2).double().mean(0)
        return dict(zip(self.names, inside.tolist(), strict=True))
