r"""The second round: the guide trained further, around a fitted population.

A guide is trained over everything the prior allows. Where the data end at the edge of that, or
where draws from the guide and its refinement stay poor, a training around the fit serves better:
individual parameters from a normal distribution about those of the fitted individuals, shared
parameters about their estimates, the networks from where they are.
"""

import torch

from ..guide import AmortizedGuide
from ..guide.training_distributions import (
    IndividualDistribution,
    NormalDistribution,
    SharedDistribution,
    TrainingDistribution,
    robust_moments,
)
from ..runtime.random_numbers import make_generator
from ..runtime.user_warnings import warn_user
from ..sampling.weight_quality import unreliable
from ..training import TrainingOptions, train
from .fit_result import PopulationFit

EDGE = 3.0  # standard deviations of the training distribution
EDGE_SHARE = 0.1  # of the individuals: 0.003 are expected where the population is the training's
POOR_SHARE, MIN_POOR = 0.05, 2
MIN_EFFICIENCY = 0.05
INFLATION, SHARED_SPREAD = 2.0, 0.5
NUM_SIMULATIONS, NUM_EPOCHS = 30_000, 12


def reasons_to_retrain(fit: PopulationFit) -> list[str]:
    r"""Why a guide trained around the fit would serve better; empty where it would not.

    Args:
        fit: The fit.

    Returns:
        Sentences that name individual parameters of which a tenth of the individuals, or shared
        parameters that, lie beyond three standard deviations of the training distribution; and
        individuals whose weights stay poor.
    """
    training, found = fit.guide.training_distribution, []
    if training.individual.prior is not None:
        return []
    normal = training.individual.normal
    sd = normal.standard_deviations
    beyond = ((fit.individuals.moments()[0] - normal.loc).abs() > EDGE * sd).double().mean(0)
    for name, share in zip(fit.structure.latent_names, beyond.tolist(), strict=True):
        if share > EDGE_SHARE:
            found.append(f"{name} of {share:.0%} of the individuals")
    found += _shared_beyond(fit, training)
    reasons = []
    if found:
        reasons.append(
            f"{', '.join(found)} lie beyond {EDGE:.0f} standard deviations of the training "
            "distribution"
        )
    estimate = fit.individuals.estimate
    poor = unreliable(estimate, fit.individuals.num_draws)
    if int(poor.sum()) >= MIN_POOR and float(poor.double().mean()) > POOR_SHARE:
        reasons.append(
            f"the weights of {int(poor.sum())} of {len(poor)} individuals are unreliable"
        )
    elif float(estimate.ess.median()) < MIN_EFFICIENCY * fit.individuals.num_draws:
        reasons.append("the draws do not follow the population")
    return reasons


def retrained(fit: PopulationFit, reasons: list[str], seed: int) -> AmortizedGuide:
    r"""The guide of a fit, trained further around it.

    Args:
        fit: The fit.
        reasons: Why, for the warning; none where there are none.
        seed: Seed of the training.
    """
    if reasons:
        warn_user(
            f"The guide is trained again around the fit: {'; '.join(reasons)}. Widen "
            "the prior or train longer to do without, or pass `retrain=False`."
        )
    guide = fit.guide
    same = fit.structure.shared == guide.structure.shared
    return train(
        fit.model if same else guide.model,
        fit.cohort,
        num_simulations=NUM_SIMULATIONS,
        seed=seed,
        options=TrainingOptions(max_epochs=NUM_EPOCHS),
        training_distribution=training_around(fit, seed),
        warm_start=guide,
        progress=False,
    )


def training_around(fit: PopulationFit, seed: int = 0) -> TrainingDistribution:
    r"""A training distribution around a fit: twice as wide as its individuals' posterior draws,
    and half as wide in the shared parameters as the guide's own.

    Args:
        fit: The fit.
        seed: Seed of the draws.
    """
    generator, guide = make_generator(seed), fit.guide
    draws = fit.individuals.resampled(50, generator).flatten(0, 1)
    loc, scale_tril = robust_moments(draws)
    training = guide.training_distribution
    shared = guide.shared_vector(fit.estimates)
    normal = NormalDistribution(shared, SHARED_SPREAD * _shared_normal(training).scale_tril)
    noise = torch.randn(1000, len(shared), generator=generator, dtype=torch.float64)
    return TrainingDistribution(
        IndividualDistribution(NormalDistribution(loc, INFLATION * scale_tril)),
        SharedDistribution(shared + noise @ normal.scale_tril.T, normal if len(shared) else None),
    )


def _shared_normal(training: TrainingDistribution) -> NormalDistribution:
    """The normal distribution of the shared parameters, or the one with the moments of their
    draws.
    """
    draws = training.shared.draws
    if training.shared.normal is not None:
        return training.shared.normal
    if training.shared.num_shared == 0:
        return NormalDistribution(draws.new_zeros(0), draws.new_zeros(0, 0))
    return NormalDistribution(*robust_moments(draws))


def _shared_beyond(fit: PopulationFit, training: TrainingDistribution) -> list[str]:
    """Shared parameters of the guide at its edge, but those that the data leave open."""
    structure, guide = fit.structure, fit.guide
    normal = _shared_normal(training)
    distance = (guide.shared_vector(fit.estimates) - normal.loc).abs()
    away = distance > EDGE * normal.standard_deviations
    mine = guide.structure.coordinates(guide.structure.shared).tolist()
    names = [n for n, x in zip(guide.structure.population_names, mine, strict=True) if x]
    known = zip(structure.population_names, fit.estimated.tolist(), strict=True)
    open_ones = {n for n, x in known if not x} if bool(fit.estimated.any()) else set()
    return [n for n, x in zip(names, away.tolist(), strict=True) if x and n not in open_ones]
