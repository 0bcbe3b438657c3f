r"""Distributions from which individual and shared parameters are drawn when a guide is trained.

All of them are distributions of unconstrained coordinates. A training distribution has two
independent parts,

.. math:: \tilde p(u, c) = \tilde p(u)\, \tilde p(c) :

the shared parameters c come from draws of their prior, or from a normal distribution where their
density must be known. The individual parameters come from a normal distribution for each
individual, :math:`u \sim \mathcal N(m, S S^\top)`, whose mean m and scale S vary over the
populations of the prior and beyond (:class:`PopulationRange`): a guide that is told m and S knows
the posterior under any population. A normal distribution that the user states is the same for all
individuals. A model without population parameters states the distribution itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from ..cohort import Cohort
from ..errors import TrainingError
from ..model import ModelStructure
from ..numerics.cholesky import factored
from ..numerics.gaussians import Gaussians
from ..runtime.arguments import check_is


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
        scale_quantile: Quantile of the standard deviations of the individuals over the prior, of
            which the inflated value is the largest standard deviation of training.
        scale_factor: The largest standard deviation of training over the smallest. Fits often end
            at a tenth of a vague prior's standard deviation, and pass through smaller ones.
        correlated_share: Share of the training individuals whose parameters are correlated.
        min_location_share: Smallest standard deviation of the means, as a share of the largest
            standard deviation of the individuals: a model that fixes the means of its individuals
            may be replaced by one that estimates them.
    """

    inflation: float = 1.2
    quantiles: tuple[float, float] = (0.159, 0.841)
    max_deviation: float = 3.0
    min_spread: float = 5e-7
    jitter: float = 1e-6
    max_individuals: int = 16
    min_finite: float = 0.9
    scale_quantile: float = 0.9
    scale_factor: float = 40.0
    correlated_share: float = 0.5
    min_location_share: float = 0.3


DEFAULTS = DistributionSettings()


def _check_normal(normal: Gaussians) -> None:
    """Raise unless one normal distribution has fitting shapes and finite values."""
    finite = bool(normal.loc.isfinite().all()) and bool(normal.scale_tril.isfinite().all())
    d = normal.loc.numel()
    if normal.loc.shape != (d,) or normal.scale_tril.shape != (d, d) or not finite:
        raise TrainingError(
            "A normal distribution for training has a mean and a scale of shapes "
            f"{tuple(normal.loc.shape)} and {tuple(normal.scale_tril.shape)}"
            f"{'' if finite else ', some values not finite'}.",
            "(d,) and (d, d), with one row for each unconstrained coordinate, all finite.",
            "narrow the priors of the population, or pass `training_distribution=` yourself.",
        )


@dataclass(frozen=True, eq=False)
class PopulationRange:
    r"""The populations that a guide is trained for.

    Each training individual has a population of its own: a mean m from a normal distribution,
    standard deviations that are log-uniform between ``largest / factor`` and ``largest``, one for
    each parameter, and for a part of the individuals a random correlation matrix.

    Args:
        location: Normal distribution of the means m, with an empty batch shape.
        largest: Largest standard deviation of each parameter, shape ``(latent,)``.
        factor: Largest standard deviation over the smallest.

    Raises:
        TrainingError: A standard deviation is not positive, a value is not finite, or the shapes
            disagree.
    """

    location: Gaussians
    largest: Tensor
    factor: float = DEFAULTS.scale_factor

    def __post_init__(self) -> None:
        _check_normal(self.location)
        fits = self.largest.shape == self.location.loc.shape
        if not (fits and bool((self.largest > 0).all()) and self.factor >= 1):
            raise TrainingError(
                f"The standard deviations of the populations are {self.largest.tolist()}, with a "
                f"factor of {self.factor:g}.",
                f"{len(self.location.loc)} positive numbers, and a factor of at least one.",
                "widen the priors of the population, or pass `training_distribution=` yourself.",
            )

    def draw(self, num: int, generator: Generator) -> Gaussians:
        """Distributions of ``num`` individuals."""
        d, loc = len(self.largest), self.location.draw(num, generator)
        uniform = torch.rand(num, d, generator=generator, dtype=torch.float64)
        sd = self.largest * self.factor ** (uniform - 1.0)
        root = torch.randn(num, d, d + 1, generator=generator, dtype=torch.float64)
        covariance = root @ root.transpose(1, 2)
        spread = covariance.diagonal(dim1=1, dim2=2).sqrt()
        factor = factored(covariance) / spread.unsqueeze(-1)
        chosen = torch.rand(num, generator=generator, dtype=torch.float64)
        is_correlated = chosen < DEFAULTS.correlated_share
        factor = torch.where(is_correlated[:, None, None], factor, torch.eye(d).double())
        return Gaussians(loc, sd.unsqueeze(-1) * factor)


@dataclass(frozen=True, eq=False)
class IndividualDistribution:
    r"""The distribution of the individual parameters when a guide is trained.

    Args:
        normal: Normal distribution of the unconstrained individual parameters, the same for all
            individuals, with an empty batch shape. Where the populations vary, it has the moments
            of all of them together.
        prior: A model without population parameters. Its own distribution of the individual
            parameters is used in place of ``normal``, which then only sets the scale of the
            networks.
        populations: How the distribution varies between the individuals of the training, or None
            where it does not.

    Raises:
        TrainingError: Shapes disagree or a value is not finite.
    """

    normal: Gaussians
    prior: ModelStructure | None = None
    populations: PopulationRange | None = None

    def __post_init__(self) -> None:
        _check_normal(self.normal)

    def gaussians(self, num: int, generator: Generator) -> Gaussians:
        """The distributions of ``num`` individuals, batch shape ``(individual,)``."""
        if self.populations is not None:
            return self.populations.draw(num, generator)
        return self.normal.expand(torch.Size([num]))

    def draw_with(
        self, cohort: Cohort, gaussians: Gaussians, num_draws: int, generator: Generator
    ) -> Tensor:
        """Draws for the individuals of a cohort from their distributions, shape ``(draw,
        individual, latent)``.
        """
        if self.prior is not None:
            return self.prior.draw_individuals(cohort, {}, num_draws, generator)
        return gaussians.draw(num_draws, generator)

    def draw(self, cohort: Cohort, num_draws: int, generator: Generator) -> Tensor:
        """Draws for the individuals of a cohort, shape ``(draw, individual, latent)``; where the
        populations vary, each draw has a population of its own.
        """
        num = len(cohort)
        gaussians = self.gaussians(num_draws * num, generator)
        if self.prior is not None:
            return self.draw_with(cohort, gaussians, num_draws, generator)
        return gaussians.draw(1, generator)[0].reshape(num_draws, num, -1)

    def log_prob(self, cohort: Cohort, gaussians: Gaussians, unconstrained: Tensor) -> Tensor:
        """Log density, given their distributions, of parameters of shape ``(draw, individual,
        latent)``, shape ``(draw, individual)``.
        """
        if self.prior is not None:
            return self.prior.log_individual(cohort, unconstrained, {})
        return gaussians.log_prob(unconstrained)


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
    normal: Gaussians | None = None

    def __post_init__(self) -> None:
        if self.normal is not None:
            _check_normal(self.normal)
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
        return SharedDistribution(self.draws, Gaussians(loc, inflation * scale_tril))


@dataclass(frozen=True, eq=False)
class TrainingDistribution:
    r"""The distribution of individual and shared parameters when a guide is trained.

    :meth:`normal` is the short way to make one. Without any, :func:`~pyro_amortized.train`
    uses the moments of the prior predictive distribution, see
    :func:`~pyro_amortized.guide.default_distribution.default_training_distribution`.

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
        normal = Gaussians(
            torch.as_tensor(loc, dtype=torch.float64),
            torch.as_tensor(scale_tril, dtype=torch.float64),
        )
        if shared_draws is None:
            shared_draws = torch.zeros(1, 0, dtype=torch.float64)
        shared = SharedDistribution(shared_draws.to(torch.float64))
        return cls(IndividualDistribution(normal), shared)


def robust_moments(draws: Tensor) -> Gaussians:
    """The normal distribution with the moments of draws ``(draw, d)``, of which those beyond three
    robust standard deviations count as three.
    """
    center = draws.median(0).values
    low, high = (draws.quantile(level, 0) for level in DEFAULTS.quantiles)
    spread = ((high - low) / 2).clamp(min=DEFAULTS.min_spread)
    most = DEFAULTS.max_deviation
    standard = ((draws - center) / spread).clamp(-most, most)
    covariance = torch.cov(standard.T).reshape(len(center), len(center))
    jitter = DEFAULTS.jitter * torch.eye(len(center), dtype=covariance.dtype)
    scale_tril = spread.unsqueeze(-1) * factored(covariance + jitter)
    return Gaussians(center + spread * standard.mean(0), scale_tril)
