r"""NUTS for single individuals: the last resort where no mixture follows a posterior.

The chain says where the posterior lies; a mixture fitted to it then gives the draws that estimate,
as everywhere else, so that the marginal likelihood and Pareto k keep their meaning.
"""

from collections.abc import Callable

import torch
from pyro.infer import MCMC, NUTS
from torch import Generator, Tensor

from ..runtime.isolation import seeded

NUM_WARMUP, NUM_SAMPLES, MAX_DEPTH = 100, 200, 5


def nuts_draws(
    log_density: Callable[[Tensor], Tensor], start: Tensor, scale_tril: Tensor, generator: Generator
) -> Tensor | None:
    r"""One chain.

    Args:
        log_density: Of one point, shape ``(latent,)``; differentiable.
        start: Where it begins, shape ``(latent,)``.
        scale_tril: Cholesky factor of a rough covariance, which makes the chain's steps equal.
        generator: Source of randomness.

    Returns:
        Draws, shape ``(draw, latent)``; None where the density has no gradient.
    """

    def place(z: Tensor) -> Tensor:
        return start + scale_tril @ z

    def potential(sites: dict[str, Tensor]) -> Tensor:
        return -log_density(place(sites["z"]))

    kernel = NUTS(potential_fn=potential, max_tree_depth=MAX_DEPTH, full_mass=True)
    first = {"z": torch.zeros_like(start)}
    chain = MCMC(
        kernel, NUM_SAMPLES, NUM_WARMUP, initial_params=first, disable_progbar=True, num_chains=1
    )
    with torch.enable_grad(), seeded(generator):
        try:
            chain.run()
        except (RuntimeError, ValueError):  # nothing to differentiate, or nowhere to start
            return None
    found: Tensor = chain.get_samples()["z"]
    return start + found @ scale_tril.T
