r"""A chain of NUTS for one individual, as the last step where no mixture follows the posterior.

The chain runs in the coordinates z of :math:`u = u_0 + L z`, with a rough Cholesky factor L of the
covariance. It shows where the posterior lies; the draws that enter estimates come from a mixture
that is fitted to it (the module ``unreliable_individuals``).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from pyro.infer import MCMC, NUTS
from torch import Generator, Tensor

from ..runtime.isolation import seeded


@dataclass(frozen=True)
class ChainSettings:
    r"""Length of a chain.

    Args:
        num_warmup: Steps of the warm-up. Only the place and the shape of the posterior are needed,
            so the chain is short.
        num_samples: Steps after it.
        max_tree_depth: Largest depth of a tree: at most 2 ** 5 = 32 evaluations of the gradient in
            each step.
    """

    num_warmup: int = 100
    num_samples: int = 200
    max_tree_depth: int = 5


CHAIN = ChainSettings()


def nuts_draws(
    log_density: Callable[[Tensor], Tensor], start: Tensor, scale_tril: Tensor, generator: Generator
) -> Tensor | None:
    r"""One chain of NUTS.

    Args:
        log_density: Log density of one point, shape ``(latent,)``; differentiable.
        start: First point, shape ``(latent,)``.
        scale_tril: Cholesky factor of a rough covariance, shape ``(latent, latent)``.
        generator: Source of randomness.

    Returns:
        Draws, shape ``(draw, latent)``; None where the density has no gradient or is not finite at
        the start.
    """

    def point(z: Tensor) -> Tensor:
        return start + scale_tril @ z

    def potential(sites: dict[str, Tensor]) -> Tensor:
        return -log_density(point(sites["z"]))

    kernel = NUTS(potential_fn=potential, max_tree_depth=CHAIN.max_tree_depth, full_mass=True)
    chain = MCMC(
        kernel,
        CHAIN.num_samples,
        CHAIN.num_warmup,
        initial_params={"z": torch.zeros_like(start)},
        disable_progbar=True,
        num_chains=1,
    )
    with torch.enable_grad(), seeded(generator):
        try:
            chain.run()
        except (RuntimeError, ValueError):  # no gradient, or no finite density at the start
            return None
    z: Tensor = chain.get_samples()["z"]
    return start + z @ scale_tril.T
