r"""The amortized posterior: from incomplete data of an individual to the distribution of its
parameters.

With the summary s and the static covariates x of an individual, shared parameters c, and the
distribution :math:`\mathcal N(m, S S^\top)` of its parameters u given the population,

.. math:: q(u \mid y, c, m, S) = \text{flow}\big(S^{-1}(u - m);\;
          s(\text{encode}(y)),\, x,\, c,\, m,\, S\big) \, / \, |S| .

Covariates, correlations and occasions enter through m and S alone, so the population model may
change without another training. Without data the flow has to give a standard normal distribution.
A model without population parameters has no m and S; the flow then has one pair for all values.

A second flow learns :math:`q(c \mid y)` where the observations have no density. These networks know
nothing of Pyro and of the model: they are weights and the scales of the encoder.
"""

import math

import torch
from torch import Tensor, nn

from ..cohort import Cohort
from ..encode import Encoded, Encoder, Standardize
from ..networks.conditional_flow import ConditionalFlow, FlowDistribution
from ..numerics.broadcasting import concatenated
from ..numerics.gaussians import Gaussians
from .training_distributions import PopulationRange


class PriorFeatures(nn.Module):
    r"""Numbers by which a network is told the distribution of an individual's parameters given the
    population: mean, logarithm of the standard deviations, and the Cholesky factor of the
    correlation matrix below its diagonal.

    Args:
        num_latent: Number of parameters.
    """

    def __init__(self, num_latent: int) -> None:
        super().__init__()
        self.location: Tensor
        self.spread: Tensor
        self.scale: Tensor
        self.register_buffer("location", torch.zeros(num_latent))
        self.register_buffer("spread", torch.ones(num_latent))
        self.register_buffer("scale", torch.ones(num_latent))

    @staticmethod
    def num_features(num_latent: int) -> int:
        """Length of the features."""
        return num_latent * (num_latent + 3) // 2

    def fit(self, populations: PopulationRange) -> None:
        """Take the units of the features from the populations of a training."""
        self.location.copy_(populations.location.loc)
        self.spread.copy_(populations.location.standard_deviations)
        self.scale.copy_(populations.largest / math.sqrt(populations.factor))

    def forward(self, priors: Gaussians) -> Tensor:
        """The features, shape ``(*batch, feature)``."""
        location = (priors.loc - self.location) / self.spread
        scale = (priors.standard_deviations / self.scale).log()
        d = location.shape[-1]
        row, column = torch.tril_indices(d, d, -1, device=location.device)
        correlation = priors.correlation_factor()[..., row, column]
        return torch.cat([location, scale, correlation], -1)


class AmortizedPosterior(nn.Module):
    r"""Encoder, summary network and conditional flow.

    Args:
        encoder: Turns a cohort into tokens.
        summary: Turns ``(tokens, mask, static)`` into a summary of length ``num_summary``.
        flow: The inference network.
        num_shared: Number of unconstrained shared parameters.
        shared_flow: The flow of the shared parameters, or None if they are not learned.
        prior_features: How the flow is told m and S, or None where they are the same for all
            individuals.
    """

    def __init__(
        self,
        encoder: Encoder,
        summary: nn.Module,
        flow: ConditionalFlow,
        num_shared: int,
        shared_flow: ConditionalFlow | None = None,
        prior_features: PriorFeatures | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.summary, self.flow = encoder, summary, flow
        self.shared_flow, self.prior_features = shared_flow, prior_features
        self.shared = Standardize(num_shared)

    @property
    def dtype(self) -> torch.dtype:
        """Floating dtype of the weights."""
        return self.flow.loc.dtype

    def condition(
        self, cohort: Cohort, shared: Tensor, priors: Gaussians | None = None
    ) -> FlowDistribution:
        r"""The posterior of every individual's parameters, in unconstrained coordinates.

        Args:
            cohort: N individuals.
            shared: Unconstrained shared parameters, shape ``(shared,)`` or ``(individual,
                shared)``.
            priors: Distribution of each individual's parameters given the population, batch shape
                ``(individual,)``. Default: that of all populations of the training together.

        Returns:
            A distribution with batch shape ``(individual,)`` and event shape ``(latent,)``.

        Raises:
            GuideError: The series, channels or covariates of the cohort are not those of the
                training data.
        """
        return self.given(self.summarize(cohort), shared, priors)

    def for_plate(
        self, cohort: Cohort, shared: Tensor, extra: int, priors: Gaussians | None = None
    ) -> FlowDistribution:
        r"""The same posterior with the batch shape of a Pyro plate.

        Args:
            cohort: N individuals.
            shared: Unconstrained shared parameters, shape ``(*draw, shared)``.
            extra: Number of dimensions of size one to the right of the individual's.
            priors: As in :meth:`condition`, batch shape ``(*draw, individual)``.

        Returns:
            A distribution with batch shape ``(*draw, individual, 1, ..., 1)``.
        """
        summary, ones = self.summarize(cohort), [1] * extra
        if priors is not None:
            priors = priors.reshape(torch.Size([*priors.batch_shape, *ones]))
        return self.given(summary.reshape(len(cohort), *ones, -1), shared, priors)

    def summarize(self, cohort: Cohort) -> Tensor:
        r"""Summary and static covariates of each individual, shape ``(individual, summary)``.

        Raises:
            GuideError: The series, channels or covariates of the cohort are not those of the
                training data.
        """
        self.encoder.check(cohort)
        return self.summarize_encoded(self.encoder(cohort))

    def summarize_encoded(self, encoded: Encoded) -> Tensor:
        """The same for an encoded cohort."""
        tokens, static = encoded.tokens.to(self.dtype), encoded.static.to(self.dtype)
        return torch.cat([self.summary(tokens, encoded.mask, static), static], -1)

    def given(
        self, summary: Tensor, shared: Tensor, priors: Gaussians | None = None
    ) -> FlowDistribution:
        r"""The posterior given summaries, shared parameters and priors; their batch shapes
        broadcast.

        Args:
            summary: Shape ``(*batch, summary)``, from :meth:`summarize`.
            shared: Unconstrained, shape ``(*batch, shared)``.
            priors: Distributions of the parameters given the population, batch shape ``(*batch,)``.
                Default: that of all populations of the training together.
        """
        parts = [summary, self.shared(shared.double()).to(self.dtype)]
        standard = None
        if self.prior_features is not None:
            standard = self.flow.standard if priors is None else priors
            standard = standard.map(lambda x: x.to(self.dtype))
            parts.append(self.prior_features(standard))
        context = concatenated(parts)
        if standard is not None:
            standard = standard.expand(context.shape[:-1])
        distribution: FlowDistribution = self.flow(context, standard)
        return distribution

    def shared_given(self, summary: Tensor) -> FlowDistribution:
        r"""The posterior of the shared parameters given one individual's data, unconstrained.

        Args:
            summary: Shape ``(*batch, summary)``, from :meth:`summarize`.
        """
        assert self.shared_flow is not None
        distribution: FlowDistribution = self.shared_flow(summary)
        return distribution
