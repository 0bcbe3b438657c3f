r"""Student-t mixtures fitted to weighted draws: proposals for individuals that the network does not
cover well.

For every individual of a batch on its own, expectation-maximisation on the weighted draws gives the
weights
:math:`\pi_m`, means and covariances of a Gaussian mixture; the proposal is the mixture of Student-t
distributions with these, whose tails are heavier than the target's. Knows only draws and weights.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional

from ..numerics.cholesky import factored

DEGREES_OF_FREEDOM = 4
STRETCH = 4.0  # of the widest axis, at most to the population's width
MAX_TOGETHER = 60_000  # draws times components of the individuals that are fitted together
WIDE = 1e100  # in units of the population, of which nothing is wider
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
        white = (self.scale_trils / sd).clamp(-WIDE, WIDE)
        shares, vectors = torch.linalg.eigh(white @ white.transpose(-1, -2))
        widest = shares[..., -1:].clamp(min=1e-300)
        wider = (STRETCH**2 * widest).clamp(max=1.0).maximum(widest)
        axis = vectors[..., -1:] * sd
        outer = axis @ axis.transpose(-1, -2) * (wider - widest).unsqueeze(-1)
        covariance = self.scale_trils @ self.scale_trils.transpose(-1, -2) + outer
        return StudentMixture(self.log_weights, self.means, factored(covariance))

    def widened(self, factor: float) -> "StudentMixture":
        """The same mixtures, each component wider in all directions."""
        return StudentMixture(self.log_weights, self.means, factor * self.scale_trils)

    def take(self, rows: Tensor) -> "StudentMixture":
        """The mixtures of some individuals."""
        return StudentMixture(self.log_weights[rows], self.means[rows], self.scale_trils[rows])

    @staticmethod
    def cat(parts: Sequence["StudentMixture"]) -> "StudentMixture":
        """The mixtures of all individuals of several parts."""
        return StudentMixture(*(torch.cat(x) for x in zip(*map(_fields, parts), strict=True)))

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
    rows = max(1, MAX_TOGETHER // (len(draws) * num_components))
    if draws.shape[1] > rows:  # what stays in the processor's cache is faster
        parts = [
            fit_student_mixture(
                draws[:, part],
                weights[:, part],
                num_components,
                generator,
                num_steps=num_steps,
                start=None if start is None else start.take(part),
            )
            for part in torch.arange(draws.shape[1]).split(rows)
        ]
        return StudentMixture.cat(parts)
    draws = draws.nan_to_num(0.0, 0.0, 0.0)  # such a draw has no weight
    draws, weights = draws.transpose(0, 1).contiguous(), weights.T.contiguous()
    d = draws.shape[-1]
    overall = _covariance(draws, weights, (weights.unsqueeze(-1) * draws).sum(1))
    floor = 1e-3 * overall.diagonal(dim1=-2, dim2=-1).clamp(min=1e-10).diag_embed()
    if start is None:
        start = _first_mixture(draws, weights, num_components, overall + floor, generator)
        overall = (overall + floor).unsqueeze(1)
    else:
        overall = start.scale_trils @ start.scale_trils.transpose(-1, -2)
    # Modes may lie far apart: their own spread says what is narrow, not that of all together.
    own_floor = floor.unsqueeze(1) * (1.0 if num_components == 1 else 1e-3)
    log_pi, means, scale_trils = _fields(start)
    for _ in range(num_steps if num_components > 1 else 1):
        square = _squared_distance(draws, means, scale_trils)
        log_det = scale_trils.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        log_component = (log_pi - log_det).unsqueeze(-1) - square / 2
        share = log_component.softmax(1) * weights.unsqueeze(1)
        mass = share.sum(-1)
        safe = mass.clamp(min=1e-12).unsqueeze(-1)
        means = share @ draws / safe
        covariances = _covariance(draws.unsqueeze(1), share, means) / safe.unsqueeze(-1)
        # A component of few draws has no covariance of its own: blend it with the overall one.
        effective = mass**2 / share.pow(2).sum(-1).clamp(min=1e-300)
        blend = (2 * d / (effective + 2 * d)).clamp(max=1.0)[..., None, None]
        covariances = (1 - blend) * covariances + blend * overall + own_floor
        scale_trils = factored(covariances)
        log_pi = (mass.clamp(min=1e-3) / mass.clamp(min=1e-3).sum(-1, keepdim=True)).log()
    return StudentMixture(log_pi, means, scale_trils)


def _fields(mixture: StudentMixture) -> tuple[Tensor, Tensor, Tensor]:
    return mixture.log_weights, mixture.means, mixture.scale_trils


def _covariance(draws: Tensor, weights: Tensor, center: Tensor) -> Tensor:
    """Weighted second moments about a center, of draws ``(*, draw, latent)``."""
    offset = draws - center.unsqueeze(-2)
    return (offset * weights.unsqueeze(-1)).transpose(-1, -2) @ offset


def _first_mixture(
    draws: Tensor, weights: Tensor, num_components: int, overall: Tensor, generator: Generator
) -> StudentMixture:
    """Components at draws picked by weight (one alone at their mean); individuals first."""
    num, d = len(draws), draws.shape[-1]
    starts = torch.multinomial(weights, num_components, True, generator=generator)
    means = draws.gather(1, starts.unsqueeze(-1).expand(-1, -1, d))
    if num_components == 1:
        means = (weights.unsqueeze(-1) * draws).sum(1, keepdim=True)
    wide = overall / (1 if num_components == 1 else 2)
    scale_trils = factored(wide).unsqueeze(1).expand(-1, num_components, -1, -1)
    log_pi = draws.new_full((num, num_components), -math.log(num_components))
    return StudentMixture(log_pi, means, scale_trils)


def _squared_distance(draws: Tensor, means: Tensor, scale_trils: Tensor) -> Tensor:
    """Squared Mahalanobis distances ``(individual, component, draw)`` of draws ``(individual, draw,
    latent)``.
    """
    eye = torch.eye(draws.shape[-1], dtype=draws.dtype).expand_as(scale_trils)
    whiten = torch.linalg.solve_triangular(scale_trils, eye, upper=False).transpose(-1, -2)
    white = draws.unsqueeze(1) @ whiten - means.unsqueeze(-2) @ whiten
    return white.pow(2).sum(-1)


def squared_distance(draws: Tensor, means: Tensor, scale_trils: Tensor) -> Tensor:
    """Squared Mahalanobis distances, shape ``(draw, individual, component)``."""
    return _squared_distance(draws.transpose(0, 1), means, scale_trils).permute(2, 0, 1)
