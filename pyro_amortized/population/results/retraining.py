r"""Further training of a guide around a fitted population.

A guide is trained over the whole prior. If the fit lies at the edge of the training distribution,
or if the weights of many individuals remain unreliable, a training around the fit is better:
individual parameters come from a normal distribution around those of the fitted individuals, shared
parameters from one around their estimates, and the networks start from the present ones.
"""

from dataclasses import dataclass

import torch

from ...guide import AmortizedGuide
from ...guide.newton_posterior import SharpenedPosterior
from ...guide.training_distributions import (
    IndividualDistribution,
    PopulationRange,
    SharedDistribution,
    TrainingDistribution,
    robust_moments,
)
from ...numerics.gaussians import Gaussians
from ...runtime.random_numbers import make_generator
from ...runtime.user_warnings import warn_user
from ...sampling.weight_quality import unreliable
from ...training import TrainingOptions, train
from .fit_result import PopulationFit


@dataclass(frozen=True)
class RetrainingSettings:
    r"""When a guide is trained further, and how.

    Args:
        edge: Distance from the centre of the training distribution, in standard deviations, that
            counts as the edge.
        max_share_beyond: Share of the individuals beyond it above which the guide is trained
            further. It is 0.003 if the individuals follow the training distribution.
        max_unreliable_share: Share of the individuals with unreliable weights above which it is
            trained further.
        min_unreliable: And their smallest number.
        min_efficiency: Median share of effective draws below which the guide is trained further.
        individual_factor: Width of the new training distribution of the individual parameters, as a
            multiple of that of their posterior draws.
        shared_factor: Width of that of the shared parameters, as a part of the present one.
        num_individual_draws: Posterior draws of each individual that it is made from.
        num_shared_draws: Draws of the shared parameters that it is made from.
        num_simulations: Simulations of the training.
        num_epochs: Its passes over them.
    """

    edge: float = 3.0
    max_share_beyond: float = 0.1
    max_unreliable_share: float = 0.05
    min_unreliable: int = 2
    min_efficiency: float = 0.05
    individual_factor: float = 2.0
    shared_factor: float = 0.5
    num_individual_draws: int = 50
    num_shared_draws: int = 1000
    num_simulations: int = 30_000
    num_epochs: int = 12


RETRAINING = RetrainingSettings()


def reasons_to_retrain(fit: PopulationFit) -> list[str]:
    r"""Reasons to train the guide further around the fit.

    Args:
        fit: The fit.

    Returns:
        Sentences that name the individual parameters of which more than a tenth of the individuals
        lie beyond three standard deviations of the training distribution, the shared parameters
        that lie there, and the number of individuals whose weights are unreliable. Empty if there
        are no reasons.
    """
    training, beyond_edge = fit.trained_guide.training_distribution, []
    if training.individual.prior is not None:
        return []
    normal = training.individual.normal
    sd = normal.standard_deviations
    distance = (fit.individuals.moments()[0] - normal.loc).abs()
    shares = (distance > RETRAINING.edge * sd).double().mean(0)
    for name, share in zip(fit.structure.latent_names, shares.tolist(), strict=True):
        if share > RETRAINING.max_share_beyond:
            beyond_edge.append(f"{name} of {share:.0%} of the individuals")
    beyond_edge += _shared_beyond_edge(fit, training)
    reasons = []
    if beyond_edge:
        reasons.append(
            f"{', '.join(beyond_edge)} lie beyond {RETRAINING.edge:.0f} standard deviations of "
            "the training distribution"
        )
    return reasons + _reasons_of_weights(fit)


def _reasons_of_weights(fit: PopulationFit) -> list[str]:
    estimate, num_draws = fit.individuals.estimate, fit.individuals.num_draws
    is_unreliable = unreliable(estimate, num_draws)
    num, share = int(is_unreliable.sum()), float(is_unreliable.double().mean())
    if num >= RETRAINING.min_unreliable and share > RETRAINING.max_unreliable_share:
        return [f"the weights of {num} of {len(is_unreliable)} individuals are unreliable"]
    if float(estimate.ess.median()) < RETRAINING.min_efficiency * num_draws:
        return ["few draws of the guide are effective at the estimates"]
    return []


def retrained(fit: PopulationFit, reasons: list[str], seed: int) -> AmortizedGuide:
    r"""The guide of a fit, trained further around it; one that was sharpened is sharpened again.

    Args:
        fit: The fit.
        reasons: The reasons, for the warning; no warning if there are none.
        seed: Seed of the training.
    """
    if reasons:
        warn_user(
            f"The guide is trained again around the fit: {'; '.join(reasons)}. To avoid this, "
            "widen the prior, train longer, or pass `retrain=False`."
        )
    guide = fit.trained_guide
    same = fit.structure.shared == guide.structure.shared
    return train(
        fit.model if same else guide.model,
        fit.cohort,
        num_simulations=RETRAINING.num_simulations,
        seed=seed,
        options=TrainingOptions(max_epochs=RETRAINING.num_epochs),
        training_distribution=training_around(fit, seed),
        warm_start=guide,
        sharpen=isinstance(guide.posterior, SharpenedPosterior),
        progress=False,
    )


def training_around(fit: PopulationFit, seed: int = 0) -> TrainingDistribution:
    r"""A training distribution around a fit.

    It is twice as wide as the posterior draws of the individuals: the means of its populations are
    as wide as these, their largest standard deviations twice as wide. In the shared parameters it
    is half as wide as the training distribution of the guide.

    Args:
        fit: The fit.
        seed: Seed of the draws.
    """
    generator, guide, settings = make_generator(seed), fit.trained_guide, RETRAINING
    draws = fit.individuals.resampled(settings.num_individual_draws, generator).flatten(0, 1)
    loc, scale_tril = robust_moments(draws)
    shared = guide.shared_vector(fit.estimates)
    present = _shared_normal(guide.training_distribution)
    normal = Gaussians(shared, settings.shared_factor * present.scale_tril)
    shape = (settings.num_shared_draws, len(shared))
    noise = torch.randn(*shape, generator=generator, dtype=torch.float64)
    wide, populations = Gaussians(loc, settings.individual_factor * scale_tril), None
    if guide.training_distribution.individual.populations is not None:
        location = Gaussians(loc, scale_tril)
        populations = PopulationRange(location, wide.standard_deviations)
    return TrainingDistribution(
        IndividualDistribution(wide, populations=populations),
        SharedDistribution(shared + noise @ normal.scale_tril.T, normal if len(shared) else None),
    )


def _shared_normal(training: TrainingDistribution) -> Gaussians:
    """The normal distribution of the shared parameters, or the one with the moments of their
    draws.
    """
    draws = training.shared.draws
    if training.shared.normal is not None:
        return training.shared.normal
    if training.shared.num_shared == 0:
        return Gaussians(draws.new_zeros(0), draws.new_zeros(0, 0))
    return robust_moments(draws)


def _shared_beyond_edge(fit: PopulationFit, training: TrainingDistribution) -> list[str]:
    """Shared parameters of the guide beyond the edge, without those that the data do not
    determine.
    """
    structure, guide = fit.structure, fit.trained_guide
    normal = _shared_normal(training)
    distance = (guide.shared_vector(fit.estimates) - normal.loc).abs()
    is_beyond = (distance > RETRAINING.edge * normal.standard_deviations).tolist()
    is_shared = guide.structure.coordinates(guide.structure.shared).tolist()
    names = [n for n, x in zip(guide.structure.population_names, is_shared, strict=True) if x]
    estimated = zip(structure.population_names, fit.estimated.tolist(), strict=True)
    undetermined = {n for n, x in estimated if not x} if bool(fit.estimated.any()) else set()
    return [n for n, x in zip(names, is_beyond, strict=True) if x and n not in undetermined]
