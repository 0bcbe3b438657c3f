r"""The density of the observations as the guide has learned it, for programs that have none.

A program of which only simulations are known (a stochastic differential equation, a stochastic
simulation) says nothing about :math:`p(y_i \mid \phi, c)`. Bayes' rule turns the guide around: with
the training distribution :math:`\tilde p(\phi)\,\tilde p(c)`,

.. math:: \hat p(y_i \mid \phi, c) \propto
          \frac{q(c \mid y_i)\; q(\phi \mid y_i, c)}{\tilde p(c)\; \tilde p(\phi)} .

Put in the place of the density it serves whatever needs one: draws, population fits, profiles. The
constant is that of the individual's data under the training distribution, so differences between
populations and between population models keep their meaning. Nothing corrects the network: its
errors are those of the result, and add up over the individuals. Shared parameters beyond those of
the training distribution are held off by a penalty.
"""

from dataclasses import dataclass, field, fields
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ..cohort import Cohort
from ..errors import GuideError
from ..model import Estimator, IndividualLogDensity, ModelStructure, Population
from . import AmortizedGuide
from .amortized_posterior import AmortizedPosterior
from .training_distributions import NormalDistribution

ESTIMATORS = ("corrected", "likelihood-free")
MAX_RADIUS = 3.3  # of shared parameters, in standard deviations of the training distribution


@dataclass(frozen=True, eq=False, kw_only=True)
class SurrogateStructure(ModelStructure):
    r"""A program whose observations have the density that a guide has learned.

    Args:
        guide: The guide.
    """

    guide: AmortizedGuide
    _summaries: WeakKeyDictionary[Cohort, Tensor] = field(default_factory=WeakKeyDictionary)

    @property
    def estimator(self) -> Estimator:
        """``"likelihood-free"``."""
        return "likelihood-free"

    def check_density(self) -> None:
        """There is one."""

    def _log_density_of(
        self, many: Cohort, draws: Tensor, population: Population, observation_only: bool = False
    ) -> IndividualLogDensity:
        guide, posterior = self.guide, learned(self.guide)
        training, num = guide.training_distribution, draws.shape[1]
        summary = self._summaries.get(many)
        if summary is None:
            with torch.no_grad():
                summary = posterior.summarize(many[torch.arange(num)])
            self._summaries[many] = summary
        shared = guide.shared_vector(population)
        outside = torch.zeros((), dtype=torch.float64)
        if training.shared.normal is not None:
            shared, outside = _within(shared, training.shared.normal)
        observation = posterior.given(summary, shared).log_prob(draws)
        observation = observation - training.individual.normal.log_prob(draws) - outside
        if posterior.shared_flow is not None:
            known = posterior.shared_given(summary).log_prob(shared.expand(num, -1))
            observation = observation + known - training.shared.log_prob(shared)
        if observation_only:
            return IndividualLogDensity(observation, torch.zeros_like(observation))
        individual = self.log_individual_of(many, draws, population)
        return IndividualLogDensity(observation, individual)


def _within(shared: Tensor, normal: NormalDistribution) -> tuple[Tensor, Tensor]:
    """The nearest shared parameters that training has seen, and a penalty for the distance: beyond
    them the networks know nothing, and the ratio of two vanishing densities may be anything.
    """
    loc, scale_tril = normal.loc, normal.scale_tril
    z = torch.linalg.solve_triangular(scale_tril, (shared - loc).unsqueeze(-1), upper=False)
    radius = z.norm()
    if radius <= MAX_RADIUS:
        return shared, torch.zeros_like(radius)
    nearest = loc + (scale_tril @ z * (MAX_RADIUS / radius)).squeeze(-1)
    return nearest, 0.5 * (radius - MAX_RADIUS).pow(2)


def learned(guide: AmortizedGuide) -> AmortizedPosterior:
    """The networks that know the data, without Newton steps behind them."""
    posterior = guide.posterior
    return posterior if isinstance(posterior, AmortizedPosterior) else posterior.first


def structure_with(
    structure: ModelStructure, guide: AmortizedGuide, estimator: Estimator | None
) -> ModelStructure:
    r"""The structure with the density that an estimator works with.

    Args:
        structure: The program.
        guide: The guide.
        estimator: ``"corrected"``: the program's own density. ``"likelihood-free"``: what the guide
            has learned. Default: the program's own, where it has one.

    Raises:
        GuideError: The estimator is unknown, or the guide has not learned the shared parameters.
    """
    if estimator is not None and estimator not in ESTIMATORS:
        raise GuideError(
            f"`estimator` is {estimator!r}.", f"one of {ESTIMATORS}.", "correct `estimator=`."
        )
    if estimator == "corrected" or (estimator is None and structure.has_density):
        structure.check_density()
        return structure
    if guide.training_distribution.individual.prior is not None:
        raise GuideError(
            "The guide was trained on a program without population parameters.",
            "a guide that was trained on a distribution of its own, to be turned around.",
            "write the population parameters into the program, and train again.",
        )
    if structure.shared and learned(guide).shared_flow is None:
        raise GuideError(
            f"The guide has not learned q(c | y) of the shared parameters {structure.shared}.",
            "a guide trained with `Networks(learn_shared=True)`.",
            "train it again with this option, or use the corrected estimator.",
        )
    parts = {f.name: getattr(structure, f.name) for f in fields(ModelStructure)}
    return SurrogateStructure(**parts, guide=guide)
