"""When the rounds of a fit end, how many draws they use, and when there are standard errors."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EstimationSettings:
    """When the rounds of a fit end, and how many draws they use."""

    max_rounds: int = 40
    # Default number of draws per individual: numerator / sqrt(number of individuals), within the
    # first two limits; up to the third one where the Monte Carlo errors of the estimates need more
    # (``RoundSettings.max_estimate_error``).
    draws_numerator: float = 3_000.0
    min_draws: int = 100
    usual_draws: int = 300
    max_draws: int = 2_000
    # Draws of the result: at least the first number; of a large cohort for every control variate
    # of degree 2 the second one, with which the Monte Carlo error of -2LL is a third (150 draws for
    # three parameters), at most so many of all individuals together, a gigabyte for three
    # parameters, and of each the usual number.
    min_result_draws: int = 200
    result_draws_per_variate: int = 15
    max_result_draws: int = 20_000_000
    # Values times draws times evaluations of a round up to which more draws are made for the sake
    # of the Monte Carlo errors; some seconds. 50 cells with 180 values each have estimates with
    # errors of at most .05 standard errors; .03 took twice the time of the whole fit.
    max_evaluated: int = 125_000_000
    # What a value costs whose dynamics are solved, in values of a closed form, where the affordable
    # number of draws is computed.
    cost_of_dynamics: int = 10
    # Factor for a likelihood-free estimate, whose draws do not follow the population.
    learned_factor: float = 7.0
    # Monte Carlo standard error of -2LL: a twentieth of a difference that matters between models.
    precision: float = 0.1
    # The first rounds use this share of the draws, and at least the second number.
    first_rounds_share: float = 0.25
    min_first_draws: int = 100
    # Gain of a round, in log likelihood, below which the next round uses all draws; in a cohort
    # of more than six individuals half of their number.
    near_gain: float = 3.0
    # The rounds end when one gains less than the first number, plus a multiple of the number of
    # parameters divided by the number of draws, an allowance for the gain that Monte Carlo error
    # alone can give. It is smaller for draws that are stretched with the population (decision 051).
    min_gain: float = 0.02
    min_gain_per_draw: float = 2.0
    min_gain_per_stretched_draw: float = 0.5
    # The standard errors are those on the draws of the last round if it gained less (a third of a
    # standard error from there to the estimates). Farther away the curvature may be another one.
    max_gain_of_same_draws: float = 0.05
    # Part of the information of the scores that is Monte Carlo error in some direction, from which
    # they give the standard errors in place of the curvature: an estimate then has a Monte Carlo
    # error of a third of its standard error. Of 300 cells along curved ridges it was 0.6, and the
    # curvature made a standard error a quarter of what the likelihood shows. There must be so many
    # individuals for each parameter.
    max_noise_share: float = 0.1
    min_scores: int = 10
    # The same above which the scores do not determine a direction that is flat on the draws; at
    # most so much of the information is taken off.
    max_flat_noise: float = 0.7
    # A fit whose last round gained more, or whose draws have a smaller median share of effective
    # ones, has no standard errors.
    max_final_gain: float = 1.0
    min_final_efficiency: float = 0.1
    # Step of the differences that give the curvature of a learned density, in units of the prior
    # scale. The log density of a spline flow has kinks: with a step of 0.001 the standard error of
    # a shared rate was 0.025, with 0.2 to 0.5 it was 0.14 to 0.17, and the exact one is 0.15.
    learned_difference: float = 0.25


ESTIMATION = EstimationSettings()
