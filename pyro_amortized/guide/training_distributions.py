r"""Distributions from which individual and shared parameters are drawn when a guide is trained.

All of them are distributions of unconstrained coordinates. A training distribution has two
independent parts,

.. math:: \tilde p(u, c) = \tilde p(u)\, \tilde p(c) :

the individual parameters u come from a normal distribution, or from the model's own distribution
where the model has no population parameters; the shared parameters c come from draws of their
prior, or from a normal distribution where their density must be known.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from ..cohort import Cohort
from ..errors import TrainingError
from ..model import ModelStructure
from ..numerics.cholesky import factored
from ..runtime.arguments import check_is
from ..runtime.random_numbers import make_generator


@dataclass(frozen=True)
class DistributionSettings:
    r"""How training distributions follow from draws of the prior.

    Args:
        inflation: Factor on the standard deviations: the data may move parameters to where the
            prior predictive distribution has few draws, and networks learn little there.
        quantiles: Half the distance between them is the robust standard deviation; these are the
            probabilities one standard deviation below and above the mean of a normal distribution.
        max_deviation: Robust standard deviations from the median; draws beyond it count as it.
        min_spread: Smallest robust standard deviation, for a parameter that does not vary.
        jitter: Added to the variances of the standardized draws, for parameters that do not vary
            or depend on each other exactly.
        max_individuals: Individuals whose covariates are used; the rest of a cohort would move the
            moments little, and every population is drawn for all of them.
        min_finite: Smallest share of the draws that is finite; with less, the moments describe a
            part of the prior only.
    """

    inflation: float = 1.2
    quantiles: tuple[float, float] = (0.159, 0.841)
    max_deviation: float = 3.0
    min_spread: float = 5e-7
    jitter: float = 1e-6
    max_individuals: int = 16
    min_finite: float = 0.9


DEFAULTS = DistributionSettings()


@dataclass(frozen=True, eq=False)
class NormalDistribution:
    r"""A normal distribution :math:`\mathcal N(m, S S^\top)` of unconstrained coordinates.

    Args:
        loc: Mean m, shape ``(d,)``.
        scale_tril: Lower triangular S, shape ``(d, d)``.

    Raises:
        TrainingError: Shapes disagree or a value is not finite.
    """

    loc: Tensor
    scale_tril: Tensor

    def __post_init__(self) -> None:
        finite = bool(self.loc.isfinite().all()) and bool(self.scale_tril.isfinite().all())
        d = self.loc.numel()
        if self.loc.shape != (d,) or self.scale_tril.shape != (d, d) or not finite:
            raise TrainingError(
                "A normal distribution for training has a mean and a scale of shapes "
                f"{tuple(self.loc.shape)} and {tuple(self.scale_tril.shape)}"
                f"{'' if finite else ', some values not finite'}.",
                "(d,) and (d, d), with one row for each unconstrained coordinate, all finite.",
                "narrow the priors of the population, or pass `training_distribution=` yourself.",
            )

    @property
    def standard_deviations(self) -> Tensor:
        """Standard deviation of each coordinate, shape ``(d,)``."""
        return self.scale_tril.pow(2).sum(1).sqrt()

    def draw(self, num_draws: int, generator: Generator) -> Tensor:
        """Draws, shape ``(draw, d)``."""
        noise = torch.randn(num_draws, len(self.loc), generator=generator, dtype=torch.float64)
        return self.loc + noise @ self.scale_tril.T

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of values of shape ``(*, d)``, shape ``(*)``."""
        centered = (value - self.loc).unsqueeze(-1)
        tril = self.scale_tril.expand(*centered.shape[:-2], -1, -1)
        z = torch.linalg.solve_triangular(tril, centered, upper=False).squeeze(-1)
        log_det = self.scale_tril.diagonal().log().sum()
        return -0.5 * z.pow(2).sum(-1) - log_det - 0.5 * len(self.loc) * math.log(2 * math.pi)


@dataclass(frozen=True, eq=False)
class IndividualDistribution:
    r"""The distribution of the individual parameters when a guide is trained.

    Args:
        normal: Normal distribution of the unconstrained individual parameters.
        prior: A model without population parameters. Its own distribution of the individual
            parameters is used in place of ``normal``, which then only sets the scale of the
            networks.
    """

    normal: NormalDistribution
    prior: ModelStructure | None = None

    def draw(self, cohort: Cohort, num_draws: int, generator: Generator) -> Tensor:
        """Draws for the individuals of a cohort, shape ``(draw, individual, latent)``."""
        if self.prior is not None:
            return self.prior.draw_individuals(cohort, {}, num_draws, generator)
        num = len(cohort)
        return self.normal.draw(num_draws * num, generator).reshape(num_draws, num, -1)

    def log_prob(self, cohort: Cohort, unconstrained: Tensor) -> Tensor:
        """Log density of parameters of shape ``(draw, individual, latent)``, shape ``(draw,
        individual)``.
        """
        if self.prior is not None:
            return self.prior.log_individual(cohort, unconstrained, {})
        return self.normal.log_prob(unconstrained)


@dataclass(frozen=True, eq=False)
class SharedDistribution:
    r"""The distribution of the shared parameters when a guide is trained.

    Args:
        draws: Draws of the unconstrained shared parameters, shape ``(draw, shared)``. Training
            picks among them, with replacement.
        normal: Normal distribution that is used in place of the draws. Its density is known,
            which a guide that learns the posterior of the shared parameters needs.

    Raises:
        TrainingError: Shapes disagree or a value is not finite.
    """

    draws: Tensor
    normal: NormalDistribution | None = None

    def __post_init__(self) -> None:
        size = self.draws.shape[-1:]
        fits = self.normal is None or self.normal.loc.shape == size
        finite = bool(self.draws.isfinite().all())
        if self.draws.dim() != 2 or not fits or not finite:
            raise TrainingError(
                f"The draws of the shared parameters have shape {tuple(self.draws.shape)}"
                f"{'' if fits else ', their normal distribution another number of coordinates'}"
                f"{'' if finite else ', some values not finite'}.",
                "(draw, shared), all finite.",
                "narrow the priors of the population, or pass `training_distribution=` yourself.",
            )

    @property
    def num_shared(self) -> int:
        """Number of unconstrained shared parameters."""
        return self.draws.shape[1]

    def draw(self, num_draws: int, generator: Generator) -> Tensor:
        """Draws, shape ``(draw, shared)``."""
        if self.normal is not None:
            return self.normal.draw(num_draws, generator)
        return self.draws[torch.randint(len(self.draws), (num_draws,), generator=generator)]

    def log_prob(self, shared: Tensor) -> Tensor:
        """Log density of shared parameters of shape ``(*, shared)``, shape ``(*)``; it is known
        only for the normal distribution.
        """
        assert self.normal is not None
        return self.normal.log_prob(shared)

    def as_normal(self, inflation: float = DEFAULTS.inflation) -> "SharedDistribution":
        r"""The same with a normal distribution, unless there is one already or there are no
        shared parameters.

        Args:
            inflation: Factor on the standard deviations of the draws.
        """
        if self.normal is not None or self.num_shared == 0:
            return self
        loc, scale_tril = robust_moments(self.draws)
        return SharedDistribution(self.draws, NormalDistribution(loc, inflation * scale_tril))


@dataclass(frozen=True, eq=False)
class TrainingDistribution:
    r"""The distribution of individual and shared parameters when a guide is trained.

    :meth:`normal` is the short way to make one. Without any, :func:`~pyro_amortized.train`
    uses the moments of the prior predictive distribution, see
    :func:`~pyro_amortized.guide.training_distributions.default_training_distribution`.

    Args:
        individual: The distribution of the individual parameters.
        shared: The distribution of the shared parameters.

    Raises:
        TrainingError: One of them is something else.
    """

    individual: IndividualDistribution
    shared: SharedDistribution

    def __post_init__(self) -> None:
        fix = "write `TrainingDistribution.normal(loc, scale_tril, shared_draws)`."
        check_is("individual", self.individual, IndividualDistribution, fix, TrainingError)
        check_is("shared", self.shared, SharedDistribution, fix, TrainingError)

    @classmethod
    def normal(
        cls,
        loc: Tensor | Sequence[float],
        scale_tril: Tensor | Sequence[Sequence[float]],
        shared_draws: Tensor | None = None,
    ) -> "TrainingDistribution":
        r"""A normal distribution of the individual parameters, and draws of the shared ones.

        Args:
            loc: Mean m of the individual parameters in unconstrained coordinates, shape
                ``(latent,)``, in the order of ``guide.structure.latent_names``.
            scale_tril: Lower triangular S with covariance :math:`S S^\top`, shape ``(latent,
                latent)``.
            shared_draws: Draws of the unconstrained shared parameters, shape ``(draw, shared)``.
                Default: the model has no shared parameters.

        Raises:
            TrainingError: Shapes disagree or a value is not finite.

        Example:
            >>> training = TrainingDistribution.normal([0.0, 1.0], [[1.0, 0.0], [0.5, 2.0]])
            >>> training.individual.normal.standard_deviations
            tensor([1.0000, 2.0616], dtype=torch.float64)
        """
        normal = NormalDistribution(
            torch.as_tensor(loc, dtype=torch.float64),
            torch.as_tensor(scale_tril, dtype=torch.float64),
        )
        if shared_draws is None:
            shared_draws = torch.zeros(1, 0, dtype=torch.float64)
        shared = SharedDistribution(shared_draws.to(torch.float64))
        return cls(IndividualDistribution(normal), shared)


def robust_moments(draws: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and lower triangular scale of draws ``(draw, d)``, of which those beyond three robust
    standard deviations count as three.
    """
    center = draws.median(0).values
    low, high = (draws.quantile(level, 0) for level in DEFAULTS.quantiles)
    spread = ((high - low) / 2).clamp(min=DEFAULTS.min_spread)
    most = DEFAULTS.max_deviation
    standard = ((draws - center) / spread).clamp(-most, most)
    covariance = torch.cov(standard.T).reshape(len(center), len(center))
    jitter = DEFAULTS.jitter * torch.eye(len(center), dtype=covariance.dtype)
    scale_tril = spread.unsqueeze(-1) * factored(covariance + jitter)
    return center + spread * standard.mean(0), scale_tril


def default_training_distribution(
    structure: ModelStructure,
    cohort: Cohort,
    seed: int | Generator,
    *,
    inflation: float = DEFAULTS.inflation,
    num_draws: int = 1000,
) -> TrainingDistribution:
    r"""The distribution that :func:`~pyro_amortized.train` uses unless it is given another one.

    Individual parameters are normal with the moments of their prior predictive distribution and
    inflated standard deviations. Draws beyond three robust standard deviations count as three, so
    that a prior with heavy tails does not make the distribution arbitrarily wide. Shared
    parameters are drawn from their prior.

    A model without population parameters states the distribution of its individual parameters
    itself; this distribution is then used without change.

    Args:
        structure: The model.
        cohort: Data or design; individuals enter only where covariates move their parameters.
        seed: Seed or generator.
        inflation: Factor on the standard deviations.
        num_draws: Number of populations drawn from the prior.

    Raises:
        TrainingError: More than a tenth of the draws of the individual parameters are not finite.
    """
    generator = make_generator(seed)
    populations = structure.draw_populations(cohort, num_draws, generator)
    picked = torch.randperm(len(cohort), generator=generator)[: DEFAULTS.max_individuals]
    sample = cohort[picked]
    draws = torch.cat([structure.draw_individuals(sample, p, 1, generator)[0] for p in populations])
    finite = draws.isfinite().all(-1)
    if float(finite.double().mean()) < DEFAULTS.min_finite:
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
    return TrainingDistribution(
        IndividualDistribution(NormalDistribution(loc, scale_tril), prior),
        SharedDistribution(shared[shared.isfinite().all(-1)]),
    )
