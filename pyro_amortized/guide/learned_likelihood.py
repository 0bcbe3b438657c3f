r"""The density of the observations that a guide has learned, for models without a density.

Some models can only be simulated (stochastic differential equations, stochastic simulation
algorithms): :math:`p(y_i \mid \phi, c)` is not known. It follows from the guide by Bayes' rule.
With the training distribution :math:`\tilde p(\phi)\,\tilde p(c)`,

.. math:: \hat p(y_i \mid \phi, c) \propto
          \frac{q(c \mid y_i)\; q(\phi \mid y_i, c)}{\tilde p(c)\; \tilde p(\phi)} .

This density is used in place of the model's own by draws, population fits and profiles. The factor
that is left out is the marginal likelihood of the individual's data under the training
distribution. It does not depend on the population, so differences between populations and between
population models are those of the likelihood. The errors of the networks are not corrected, and add
up over the individuals. Shared parameters outside the training distribution get a penalty.
"""

from dataclasses import dataclass, field, replace
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ..cohort import Cohort
from ..errors import GuideError, ModelError
from ..model import (
    Estimator,
    Model,
    ModelStructure,
    Population,
    check_density_near_prior,
    read_structure,
)
from ..numerics.gaussians import Gaussians
from . import AmortizedGuide, structure_for

ESTIMATORS = ("corrected", "likelihood-free")
# Distance of the shared parameters from the mean of their training distribution, in standard
# deviations, beyond which the networks have seen next to no simulations (one in a thousand of a
# single parameter) and a penalty begins.
MAX_RADIUS = 3.3


@dataclass(frozen=True, eq=False)
class LearnedDensity:
    r"""The density of the observations that a guide has learned.

    Args:
        guide: The guide.
    """

    guide: AmortizedGuide
    _summaries: WeakKeyDictionary[Cohort, Tensor] = field(default_factory=WeakKeyDictionary)

    def log_prob(self, repeated: Cohort, draws: Tensor, population: Population) -> Tensor:
        """Log p(y | phi, c), up to a constant, shape ``(draw, individual)``: see
        :class:`~pyro_amortized.model.observation_density.ObservationDensity`.
        """
        guide, posterior = self.guide, self.guide.networks
        training, num = guide.training_distribution, draws.shape[1]
        summary = self._summary(repeated, num)
        shared = guide.shared_vector(population)
        penalty = torch.zeros((), dtype=torch.float64)
        if training.shared.normal is not None:
            shared, penalty = _within(shared, training.shared.normal)
        observation = posterior.given(summary, shared).log_prob(draws)
        observation = observation - training.individual.normal.log_prob(draws) - penalty
        if posterior.shared_flow is not None:
            log_shared = posterior.shared_given(summary).log_prob(shared.expand(num, -1))
            observation = observation + log_shared - training.shared.log_prob(shared)
        return observation

    def _summary(self, repeated: Cohort, num: int) -> Tensor:
        """The summary of the first ``num`` individuals of a repeated cohort, kept with it."""
        summary = self._summaries.get(repeated)
        if summary is None:
            with torch.no_grad():
                summary = self.guide.networks.summarize(repeated[torch.arange(num)])
            self._summaries[repeated] = summary
        return summary


def _within(shared: Tensor, normal: Gaussians) -> tuple[Tensor, Tensor]:
    """The nearest shared parameters within the training distribution, and a penalty for the
    distance. Outside it both densities of the ratio are close to zero, and the ratio has no
    meaning.
    """
    loc, scale_tril = normal.loc, normal.scale_tril
    z = torch.linalg.solve_triangular(scale_tril, (shared - loc).unsqueeze(-1), upper=False)
    radius = z.norm()
    if radius <= MAX_RADIUS:
        return shared, torch.zeros_like(radius)
    nearest = loc + (scale_tril @ z * (MAX_RADIUS / radius)).squeeze(-1)
    return nearest, 0.5 * (radius - MAX_RADIUS).pow(2)


def structure_to_fit(
    model: Model, cohort: Cohort, guide: AmortizedGuide | None, estimator: Estimator | None
) -> ModelStructure:
    r"""The structure of a model that is used with a guide or without one.

    Args:
        model: The model.
        cohort: Data to read the model with.
        guide: A guide for the individual sites of the model, or None.
        estimator: As in :func:`structure_with`.

    Raises:
        GuideError: The individual sites of the model differ from those of the guide, or the guide
            has not learned what the estimator needs.
        ModelError: The model has no density, and there is no guide that could stand in for it; or
            its density is not finite near the prior.
    """
    structure = (
        read_structure(model, cohort) if guide is None else structure_for(guide, model, cohort)
    )
    structure = structure_with(structure, guide, estimator)
    check_density_near_prior(structure, cohort)
    return structure


def structure_with(
    structure: ModelStructure, guide: AmortizedGuide | None, estimator: Estimator | None
) -> ModelStructure:
    r"""The structure of a model, with the density that an estimator uses.

    Args:
        structure: The structure of the model.
        guide: The guide, or None.
        estimator: ``"corrected"``: the model's own density. ``"likelihood-free"``: the density that
            the guide has learned. Default: the model's own, where it has one.

    Raises:
        GuideError: The estimator is unknown, or the guide has not learned the shared parameters.
        ModelError: The model has no density, and the estimator needs it.
    """
    if estimator is not None and estimator not in ESTIMATORS:
        raise GuideError(
            f"`estimator` is {estimator!r}.", f"one of {ESTIMATORS}.", "correct `estimator=`."
        )
    if guide is None and (estimator == "likelihood-free" or not structure.has_density):
        without = [site.name for site in structure.observed.values() if not site.has_density]
        raise ModelError(
            f"The observations {without} can only be simulated, and there is no guide."
            if without
            else "The likelihood-free estimator without a guide.",
            "a guide that has learned the density of the observations.",
            "train one, `guide = train(model, cohort)`, and pass `guide=guide`.",
        )
    if guide is None or estimator == "corrected" or (estimator is None and structure.has_density):
        structure.check_density()
        return structure
    if guide.training_distribution.individual.prior is not None:
        raise GuideError(
            "The guide was trained on a model without population parameters.",
            "a guide that was trained on a normal distribution of the individual parameters.",
            "write the population parameters into the model, and train again.",
        )
    if structure.shared and guide.networks.shared_flow is None:
        raise GuideError(
            f"The guide has not learned q(c | y) of the shared parameters {structure.shared}.",
            "a guide trained with `Networks(learn_shared=True)`.",
            "train it again with this option, or use the corrected estimator.",
        )
    return replace(structure, learned_density=LearnedDensity(guide))
