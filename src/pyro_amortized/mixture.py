r"""Student-t mixtures fitted to weighted draws: proposals for individuals that the network does not
cover well.

For every individual of a batch on its own, expectation-maximisation on the weighted draws gives the
weights
:math:`\pi_m`, means and covariances of a Gaussian mixture; the proposal is the mixture of Student-t
distributions with these, whose tails are heavier than the target's. Knows only draws and weights.
"""

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional

DEGREES_OF_FREEDOM = 4
STRETCH = 4.0  # of the widest axis, at most to the population's width
UNUSED = -30.0  # log weight of a component that only fills up


@dataclass(frozen=True, eq=False)
class StudentMixture:
    r"""One mixture per individual.

    Args:
        log_weights: Shape ``(individual, component)``.
        means: Shape ``(individual, component, latent)``.
        scale_trils: Shape ``(individual, component, latent, latent)``.
    """

    log_weights: Tensor
    means: Tensor
    scale_trils: Tensor

    def stretched(self, population_sd: Tensor) -> "StudentMixture":
        r"""The same mixtures, each component wider along one axis: the one that is widest as a part
        of the population, where tails and ridges lie that the draws have not shown.

        Args:
            population_sd: Standard deviations under the population, shape ``(individual,
                latent)``.
        """
        sd = population_sd.clamp(min=1e-300)[:, None, :, None]
        white = self.scale_trils / sd
        shares, vectors = torch.linalg.eigh(white @ white.transpose(-1, -2))
        widest = shares[..., -1:].clamp(min=1e-300)
        wider = (STRETCH**2 * widest).clamp(max=1.0).maximum(widest)
        axis = vectors[..., -1:] * sd
        outer = axis @ axis.transpose(-1, -2) * (wider - widest).unsqueeze(-1)
        covariance = self.scale_trils @ self.scale_trils.transpose(-1, -2) + outer
        return StudentMixture(self.log_weights, self.means, torch.linalg.cholesky(covariance))

    def take(self, rows: Tensor) -> "StudentMixture":
        """The mixtures of some individuals."""
        return StudentMixture(self.log_weights[rows], self.means[rows], self.scale_trils[rows])

    def put(self, rows: Tensor, other: "StudentMixture") -> None:
        """Replace the mixtures of some individuals by others of no more components, in place."""
        short = self.means.shape[1] - other.means.shape[1]
        self.means[rows] = torch.cat([other.means, other.means[:, :1].expand(-1, short, -1)], 1)
        first = other.scale_trils[:, :1].expand(-1, short, -1, -1)
        self.scale_trils[rows] = torch.cat([other.scale_trils, first], 1)
        self.log_weights[rows] = functional.pad(other.log_weights, (0, short), value=UNUSED)

    def draw(self, num_draws: int, generator: Generator) -> Tensor:
        """Draws, shape ``(draw, individual, latent)``."""
        num, _, d = self.means.shape
        which = torch.multinomial(self.log_weights.exp(), num_draws, True, generator=generator).T
        rows = torch.arange(num)
        noise = torch.randn(num_draws, num, d, generator=generator, dtype=self.means.dtype)
        chi2 = (
            torch.randn(
                num_draws, num, DEGREES_OF_FREEDOM, generator=generator, dtype=self.means.dtype
            )
            .pow(2)
            .sum(-1, keepdim=True)
        )
        noise = noise * (DEGREES_OF_FREEDOM / chi2).sqrt()
        return self.means[rows, which] + (
            self.scale_trils[rows, which] @ noise.unsqueeze(-1)
        ).squeeze(-1)

    def log_prob(self, draws: Tensor) -> Tensor:
        """Log density, shape ``(draw, individual)``, of draws ``(draw, individual, latent)``."""
        nu, d = DEGREES_OF_FREEDOM, draws.shape[-1]
        square = squared_distance(draws, self.means, self.scale_trils)
        log_det = self.scale_trils.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        constant = math.lgamma((nu + d) / 2) - math.lgamma(nu / 2) - d / 2 * math.log(nu * math.pi)
        component = constant - log_det - (nu + d) / 2 * torch.log1p(square / nu)
        return (self.log_weights + component).logsumexp(-1)


def fit_student_mixture(
    draws: Tensor,
    weights: Tensor,
    num_components: int,
    generator: Generator,
    *,
    num_steps: int = 15,
    start: StudentMixture | None = None,
) -> StudentMixture:
    r"""Fit one mixture per individual to weighted draws.

    Args:
        draws: Shape ``(draw, individual, latent)``.
        weights: Normalised over the draws, shape ``(draw, individual)``.
        num_components: Components per individual; each starts at a draw picked by weight.
        generator: Picks the starts.
        num_steps: Steps of expectation-maximisation.
        start: Mixtures of as many components to begin with.

    Returns:
        Mixtures whose covariances are those of the draws, a little inflated and never singular.

    References:
        Cappé, Douc, Guillin, Marin, Robert (2008), Adaptive importance sampling in general mixture
        classes.
    """
    _, num, d = draws.shape
    center = (weights.unsqueeze(-1) * draws).sum(0)
    spread = draws - center
    covariance = torch.einsum("ki,kid,kie->ide", weights, spread, spread)
    floor = 1e-3 * covariance.diagonal(dim1=-2, dim2=-1).clamp(min=1e-10).diag_embed()
    overall = (covariance + floor).unsqueeze(1).expand(-1, num_components, -1, -1)
    if start is None:
        starts = torch.multinomial(weights.T, num_components, True, generator=generator)
        means = draws.permute(1, 0, 2).gather(1, starts.unsqueeze(-1).expand(-1, -1, d))
        if num_components == 1:
            means = center.unsqueeze(1)
        scale_trils = torch.linalg.cholesky(overall / (1 if num_components == 1 else 2))
        log_pi = torch.full((num, num_components), -math.log(num_components), dtype=draws.dtype)
    else:
        log_pi, means, scale_trils = start.log_weights, start.means, start.scale_trils
        overall = scale_trils @ scale_trils.transpose(-1, -2)
    # Modes may lie far apart: their own spread says what is narrow, not that of all together.
    own_floor = floor.unsqueeze(1) * (1.0 if num_components == 1 else 1e-3)
    for _ in range(num_steps if num_components > 1 else 1):
        square = squared_distance(draws, means, scale_trils)
        log_component = log_pi - scale_trils.diagonal(dim1=-2, dim2=-1).log().sum(-1) - square / 2
        share = log_component.softmax(-1) * weights.unsqueeze(-1)
        mass = share.sum(0)
        safe = mass.clamp(min=1e-12).unsqueeze(-1)
        means = torch.einsum("kim,kid->imd", share, draws) / safe
        offset = draws.unsqueeze(2) - means
        covariances = torch.einsum("kim,kimd,kime->imde", share, offset, offset)
        covariances = covariances / safe.unsqueeze(-1)
        # A component of few draws has no covariance of its own: blend it with the overall one.
        effective = (
            (share.sum(0) ** 2 / (share**2).sum(0).clamp(min=1e-300)).unsqueeze(-1).unsqueeze(-1)
        )
        blend = (2 * d / (effective + 2 * d)).clamp(max=1.0)
        covariances = (1 - blend) * covariances + blend * overall + own_floor
        scale_trils = torch.linalg.cholesky(covariances)
        log_pi = (mass.clamp(min=1e-3) / mass.clamp(min=1e-3).sum(-1, keepdim=True)).log()
    return StudentMixture(log_pi, means, scale_trils)


def squared_distance(draws: Tensor, means: Tensor, scale_trils: Tensor) -> Tensor:
    """Squared Mahalanobis distances, shape ``(draw, individual, component)``."""
    offset = (draws.unsqueeze(2) - means).permute(1, 2, 3, 0)
    return (
        torch.linalg.solve_triangular(scale_trils, offset, upper=False)
        .pow(2)
        .sum(2)
        .permute(2, 0, 1)
    )
