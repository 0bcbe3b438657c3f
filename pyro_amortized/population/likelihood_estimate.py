r"""The marginal likelihood of a population, and the collapsed model as a Pyro program.

For draws :math:`u_{ik} \sim q_i` of every individual, which stay as they are while Psi moves,

.. math:: \log \hat p(y \mid \Psi) = \sum_i \log \frac1K \sum_k
          \frac{p(y_i \mid u_{ik}, c)\; p(u_{ik} \mid \Psi)}{q_i(u_{ik})}

is a smooth function of Psi, and its gradient is exact (Fisher's identity: draws and log q are
constants).
"""

from dataclasses import dataclass

from torch import Generator, Tensor

from ..cohort import Cohort
from ..guide import AmortizedGuide, structure_for
from ..model import Estimator, Model, Population
from ..sampling.individuals import IndividualPosteriors, sample_individuals
from .exact_likelihood import ExactLikelihood


@dataclass(frozen=True, eq=False)
class MarginalLikelihood:
    r"""log p(y_i | Psi) of every individual, by importance sampling. Fields have the shape
    ``(individual,)``.

    Args:
        log_likelihood: log p(y_i | Psi), all constants included.
        mc_error: Monte Carlo standard error of ``log_likelihood``.
        ess: Effective sample size.
        pareto_k: Pareto k of the weights; above 0.7 the value is not to be trusted.
        num_draws: Draws per individual.
        method: What the draws of each individual come from.
        estimator: ``"corrected"``, or ``"likelihood-free"``: then a constant per individual is
            missing, and nothing corrects the guide's errors.
    """

    log_likelihood: Tensor
    mc_error: Tensor
    ess: Tensor
    pareto_k: Tensor
    num_draws: int
    method: tuple[str, ...]
    estimator: Estimator = "corrected"

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
        """-2 log p(y | Psi), all constants included (NONMEM's OFV leaves out n_obs log 2 pi)."""
        return -2 * self.total

    @property
    def minus2ll_mc_error(self) -> float:
        """Monte Carlo standard error of :attr:`minus2ll`."""
        return 2 * self.total_mc_error


def summarize_weights(individuals: IndividualPosteriors) -> MarginalLikelihood:
    """The marginal likelihood at the population that the draws are conditioned on."""
    estimate = individuals.estimate
    return MarginalLikelihood(
        estimate.log_mean,
        estimate.mc_error,
        estimate.ess,
        estimate.pareto_k,
        individuals.num_draws,
        individuals.method,
        individuals.structure.estimator,
    )


def marginal_likelihood(
    model: Model,
    guide: AmortizedGuide,
    cohort: Cohort,
    population: Population,
    *,
    num_draws: int = 1000,
    seed: int | Generator = 0,
    refine: bool = True,
    estimator: Estimator | None = None,
) -> MarginalLikelihood:
    r"""Log p(y_i | Psi) of every individual at given population parameters.

    Args:
        model: The population model: the guide's program, or another one with the same individual
            sites.
        guide: The trained guide.
        cohort: The data.
        population: Values of all population sites.
        num_draws: Draws per individual.
        seed: Seed or generator.
        refine: Refine individuals whose weights are poor.
        estimator: ``"corrected"`` by the model's density, or ``"likelihood-free"`` (see
            :mod:`pyro_amortized.guide.learned_likelihood`). Default: corrected where the model has
            a density.

    Raises:
        GuideError: The individual sites of the model differ from the guide's, or it has not
            learned what the estimator needs.
        ModelError: A population value is missing or outside its support.
    """
    structure = structure_for(guide, model, cohort)
    return summarize_weights(
        sample_individuals(
            guide,
            cohort,
            population=population,
            num_draws=num_draws,
            seed=seed,
            refine=refine,
            structure=structure,
            estimator=estimator,
        )
    )


def log_marginal(individuals: IndividualPosteriors, population: Population) -> Tensor:
    r"""Log p(y_i | Psi) at any population from the same draws, differentiable, shape
    ``(individual,)``.

    Args:
        individuals: Draws with their proposal density.
        population: Values of all population sites.
    """
    return ExactLikelihood(individuals)(population)
