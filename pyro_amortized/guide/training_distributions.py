r"""What individual and shared parameters are drawn from when a guide is trained."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from ..cohort import Cohort
from ..errors import TrainingError
from ..model import ModelStructure
from ..numerics.cholesky import factored
from ..runtime.isolation import make_generator


@dataclass(frozen=True, eq=False)
class TrainingDistribution:
    r"""What individual and shared parameters are drawn from when the network is trained.

    Args:
        loc: Mean m of the individual parameters in unconstrained coordinates, shape ``(latent,)``.
        scale_tril: Lower triangular S, shape ``(latent, latent)``.
        shared: Draws of the shared parameters in unconstrained coordinates, shape ``(draw,
            shared)``; training picks among them.
        shared_law: Mean and lower triangular scale of the normal distribution that shared
            parameters are drawn from in place of ``shared``; their density is then known.
        prior: A program without population parameters, whose own distribution of the individual
            parameters is drawn from in place of the normal one; m and S then only set the scale of
            the networks.

    Raises:
        TrainingError: Shapes disagree or a value is not finite.
    """

    loc: Tensor
    scale_tril: Tensor
    shared: Tensor
    prior: ModelStructure | None = None
    shared_law: tuple[Tensor, Tensor] | None = None

    def __post_init__(self) -> None:
        d = len(self.loc)
        finite = all(bool(x.isfinite().all()) for x in (self.loc, self.scale_tril, self.shared))
        if self.scale_tril.shape != (d, d) or self.shared.dim() != 2 or not finite:
            raise TrainingError(
                f"A training distribution of shapes {tuple(self.loc.shape)}, "
                f"{tuple(self.scale_tril.shape)}, "
                f"{tuple(self.shared.shape)}{'' if finite else ', some values not finite'}.",
                "(latent,), (latent, latent), (draw, shared), all finite.",
                "narrow the priors of the population, or pass `training_distribution=` yourself.",
            )

    def draw(self, num_draws: int, generator: Generator) -> Tensor:
        """Individual parameters, shape ``(draw, latent)``."""
        return _normal_draws(self.loc, self.scale_tril, num_draws, generator)

    def draw_for(self, cohort: Cohort, num_draws: int, generator: Generator) -> Tensor:
        """Individual parameters for the individuals of a cohort, shape ``(draw, individual,
        latent)``.
        """
        if self.prior is not None:
            return self.prior.draw_individuals(cohort, {}, num_draws, generator)
        num = len(cohort)
        return self.draw(num_draws * num, generator).reshape(num_draws, num, -1)

    def log_prob_for(self, cohort: Cohort, unconstrained: Tensor) -> Tensor:
        """Log density of what :meth:`draw_for` draws, shape ``(draw, individual)``."""
        if self.prior is not None:
            return self.prior.log_individual(cohort, unconstrained, {})
        return self.log_prob(unconstrained)

    def draw_shared(self, num_draws: int, generator: Generator) -> Tensor:
        """Shared parameters, shape ``(draw, shared)``."""
        if self.shared_law is not None:
            return _normal_draws(*self.shared_law, num_draws, generator)
        return self.shared[torch.randint(len(self.shared), (num_draws,), generator=generator)]

    def log_prob(self, unconstrained: Tensor) -> Tensor:
        """Log density of individual parameters, shape ``(*, latent)``, in unconstrained
        coordinates.
        """
        return _normal_log_prob(self.loc, self.scale_tril, unconstrained)

    def log_prob_shared(self, shared: Tensor) -> Tensor:
        """Log density of unconstrained shared parameters, shape ``(*, shared)``, where it is
        known.
        """
        assert self.shared_law is not None
        return _normal_log_prob(*self.shared_law, shared)

    def with_normal_shared(self, inflation: float = 1.2) -> "TrainingDistribution":
        """The same with a normal distribution of the shared parameters, of inflated moments."""
        if self.shared_law is not None or self.shared.shape[1] == 0:
            return self
        loc, spread = robust_moments(self.shared)
        return replace(self, shared_law=(loc, inflation * spread))


def _normal_draws(loc: Tensor, scale_tril: Tensor, num: int, generator: Generator) -> Tensor:
    noise = torch.randn(num, len(loc), generator=generator, dtype=torch.float64)
    return loc + noise @ scale_tril.T


def _normal_log_prob(loc: Tensor, scale_tril: Tensor, value: Tensor) -> Tensor:
    centered = (value - loc).unsqueeze(-1)
    tril = scale_tril.expand(*centered.shape[:-2], -1, -1)
    z = torch.linalg.solve_triangular(tril, centered, upper=False).squeeze(-1)
    log_det = scale_tril.diagonal().log().sum()
    return -0.5 * z.pow(2).sum(-1) - log_det - 0.5 * len(loc) * math.log(2 * math.pi)


def robust_moments(draws: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and lower triangular scale of draws ``(draw, d)``, of which those beyond three robust
    standard deviations count as three.
    """
    center = draws.median(0).values
    low, high = draws.quantile(0.159, 0), draws.quantile(0.841, 0)
    spread = (high - low).clamp(min=1e-6) / 2
    standard = ((draws - center) / spread).clamp(-3, 3)
    covariance = torch.cov(standard.T).reshape(len(center), len(center))
    jitter = 1e-6 * torch.eye(len(center), dtype=covariance.dtype)
    scale_tril = spread.unsqueeze(-1) * factored(covariance + jitter)
    return center + spread * standard.mean(0), scale_tril


def default_training_distribution(
    structure: ModelStructure,
    cohort: Cohort,
    seed: int | Generator,
    *,
    inflation: float = 1.2,
    num_draws: int = 1000,
) -> TrainingDistribution:
    r"""The moments of the individual parameters under the prior predictive, inflated; c from its
    prior.

    A program without population parameters says itself how they are distributed: it is taken at its
    word.

    Draws beyond three robust standard deviations count as three, so that a prior with heavy tails
    does not make the training distribution arbitrarily wide.

    Args:
        structure: The program.
        cohort: Data or design; individuals enter only where covariates move their parameters.
        seed: Seed or generator.
        inflation: Factor on the standard deviations.
        num_draws: Number of populations drawn from the prior.
    """
    generator = make_generator(seed)
    populations = structure.draw_populations(cohort, num_draws, generator)
    few = cohort[torch.randperm(len(cohort), generator=generator)[:16]]
    draws = torch.cat([structure.draw_individuals(few, p, 1, generator)[0] for p in populations])
    finite = draws.isfinite().all(-1)
    if float(finite.double().mean()) < 0.9:
        raise TrainingError(
            f"{int((~finite).sum())} of {len(draws)} draws of the individual parameters are not "
            "finite.",
            "a prior that gives finite individual parameters.",
            "narrow the priors of the population (for instance HalfNormal in place of HalfCauchy).",
        )
    loc, scale_tril = robust_moments(draws[finite])
    prior = None if structure.population else structure
    if prior is None:
        scale_tril = scale_tril * inflation
    shared = torch.stack(
        [structure.unconstrain_population(p, structure.shared) for p in populations]
    )
    return TrainingDistribution(loc, scale_tril, shared[shared.isfinite().all(-1)], prior)
