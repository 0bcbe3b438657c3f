r"""The marginal likelihood at given population parameters, with its Monte Carlo error.

For draws :math:`u_{ik} \sim q_i` of every individual,

.. math:: \log \hat p(y \mid \Psi) = \sum_i \log \frac1K \sum_k
          \frac{p(y_i \mid u_{ik}, c)\; p(u_{ik} \mid \Psi)}{q_i(u_{ik})} ,

with control variates that reduce the Monte Carlo error
(:mod:`pyro_amortized.sampling.control_variates`).
"""

from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from ...cohort import Cohort
from ...guide import AmortizedGuide
from ...model import Estimator, Model, Population
from ...sampling.individual_draws import sample_individuals
from ...sampling.individuals import IndividualPosteriors
from ..following.fitted_following import follow
from .exact_likelihood import ExactLikelihood


@dataclass(frozen=True, eq=False)
class MarginalLikelihood:
    r"""Log p(y_i | Psi) of every individual, by importance sampling.

    Args:
        log_likelihood: Log p(y_i | Psi) with all constants, shape ``(individual,)``.
        mc_error: Monte Carlo standard error of ``log_likelihood``, same shape.
        ess: Effective sample size, same shape.
        pareto_k: Pareto k of the weights, same shape; above 0.7 the value is not reliable.
        num_draws: Number of draws of each individual, same shape.
        method: For each individual, what the draws come from.
        estimator: ``"corrected"``, or ``"likelihood-free"``: then a constant per individual is
            missing, and errors of the guide are not corrected.
    """

    log_likelihood: Tensor
    mc_error: Tensor
    ess: Tensor
    pareto_k: Tensor
    num_draws: Tensor
    method: tuple[str, ...]
    estimator: Estimator = "corrected"

    def __repr__(self) -> str:
        return (
            f"MarginalLikelihood of {len(self.log_likelihood)} individuals: -2LL "
            f"{self.minus2ll:.3f} (MC error {self.minus2ll_mc_error:.3f}), {self.numbers} draws "
            f"per individual, largest Pareto k {float(self.pareto_k.max()):.2f}"
        )

    @property
    def numbers(self) -> str:
        """The number of draws per individual in words, for instance "300 to 2700"."""
        least, most = int(self.num_draws.min()), int(self.num_draws.max())
        return str(least) if least == most else f"{least} to {most}"

    @property
    def total(self) -> float:
        """Log p(y | Psi), the sum over the individuals."""
        return float(self.log_likelihood.sum())

    @property
    def total_mc_error(self) -> float:
        """Monte Carlo standard error of :attr:`total`."""
        return float(self.mc_error.pow(2).sum().sqrt())

    @property
    def minus2ll(self) -> float:
        """-2 log p(y | Psi) with all constants; the OFV of NONMEM omits n_obs log(2 pi)."""
        return -2 * self.total

    def take(self, rows: Tensor) -> "MarginalLikelihood":
        """That of some individuals."""
        names = ("log_likelihood", "mc_error", "ess", "pareto_k", "num_draws")
        method = tuple(self.method[i] for i in rows.tolist())
        return replace(self, method=method, **{n: getattr(self, n)[rows] for n in names})

    def without_log_bias(self) -> "MarginalLikelihood":
        """With half the squared error added to every logarithm, which is its bias in first order.

        For one individual it is far below the error; the sum over many thousand is above it.
        """
        corrected = self.log_likelihood + 0.5 * self.mc_error.square()
        return replace(self, log_likelihood=corrected)

    @property
    def minus2ll_mc_error(self) -> float:
        """Monte Carlo standard error of :attr:`minus2ll`."""
        return 2 * self.total_mc_error


def summarize_weights(individuals: IndividualPosteriors) -> MarginalLikelihood:
    """The marginal likelihood at the population that the draws were made at."""
    estimate = individuals.marginal_estimate
    return MarginalLikelihood(
        estimate.log_mean,
        estimate.mc_error,
        estimate.ess,
        estimate.pareto_k,
        torch.full_like(estimate.ess, individuals.num_draws, dtype=torch.long),
        individuals.method,
        individuals.structure.estimator,
    )


def marginal_likelihood(
    model: Model,
    cohort: Cohort,
    population: Population,
    *,
    guide: AmortizedGuide | None = None,
    num_draws: int = 1000,
    seed: int | Generator = 0,
    refine: bool = True,
    estimator: Estimator | None = None,
) -> MarginalLikelihood:
    r"""Log p(y_i | Psi) of every individual at given population parameters.

    Args:
        model: The population model: that of the guide, or another one with the same individual
            sites.
        cohort: The data.
        population: Values of all population sites.
        guide: A trained guide. Default: the draws are made without one.
        num_draws: Draws per individual.
        seed: Seed or generator.
        refine: Refine individuals whose weights are poor.
        estimator: ``"corrected"`` by the density of the model, or ``"likelihood-free"`` (see
            :mod:`pyro_amortized.guide.learned_likelihood`). Default: corrected if the model has a
            density.

    Returns:
        The log likelihood of every individual with its Monte Carlo error, ESS and Pareto k.

    Raises:
        GuideError: The individual sites of the model differ from those of the guide, or the guide
            has not learned what the estimator needs.
        ModelError: A population value is missing or outside its support, or the model has no
            density and there is no guide.
    """
    return summarize_weights(
        sample_individuals(
            model,
            cohort,
            population,
            guide=guide,
            num_draws=num_draws,
            seed=seed,
            refine=refine,
            estimator=estimator,
        )
    )


def log_marginal(individuals: IndividualPosteriors, population: Population) -> Tensor:
    r"""Log p(y_i | Psi) at any population, from draws that were made at another one.

    Args:
        individuals: Draws with their proposal density.
        population: Values of all population sites.

    Returns:
        Shape ``(individual,)``, differentiable.
    """
    scale = torch.ones_like(individuals.structure.unconstrain_population(individuals.population))
    return ExactLikelihood(individuals, follow(individuals, scale))(population)
