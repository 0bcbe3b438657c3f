"""Constants of the expansion of the observations about the draws, and what it costs."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ExpansionSettings:
    """Constants of the expansion."""

    # Draws times individuals that are evaluated together; limits the memory.
    max_rows: int = 400_000
    # Step of the finite differences in a parameter of the population, in units of its scale, where
    # the density is a learned one, whose logarithm has kinks: about the largest move
    # in a round. With the usual step (``FOLLOWING``), rounds promised 50 in log likelihood where
    # there was 1.
    learned_step: float = 0.25
    # Rise of the log density of the observations of a draw, above that of the best draw of the
    # individual, beyond which it rises logarithmically only. Far from the center an expansion with
    # positive curvature has no bound: rounds promised gains of 1e19 and more. With 5, single draws
    # took all of the weight in four of 120 individuals with four samples each, and a round that
    # promised 8.1 lost 1.1; with 2 one promised 7.0 and gained 5.0.
    free_rise: float = 2.0
    # Largest number of individual and shared parameters for which all mixed derivatives are
    # differences: 21 to 43 evaluations of the observations for 4 to 6. Beyond it, they are found by
    # regression, with two evaluations per parameter and two per pair of shared ones. The regression
    # is linear in the draw: for 50 cells with two modes each, rounds promised up to 18 where there
    # was nothing, and a standard error was a third too small.
    max_coordinates: int = 6
    # Number of them from which differences of gradients by automatic differentiation, where these
    # hold, take less time: 13 gradients for 6 parameters in place of 43 evaluations, and a gradient
    # takes the time of two or three.
    min_by_torch: int = 6
    # Largest number of elements of all Hessians, 800 MB; beyond it the coordinates are the shared
    # parameters alone.
    max_elements: int = 100_000_000


EXPANSION = ExpansionSettings()


def num_evaluations(num_latent: int, num_shared: int) -> int:
    """Evaluations of the observations at every draw for given numbers of individual and of shared
    parameters: two for each of them, and two for each pair of those whose mixed derivatives are
    differences.
    """
    num = num_latent + num_shared
    paired = num if num <= EXPANSION.max_coordinates else num_shared
    return 2 * num + paired * (paired - 1)
