r"""The amortized posterior: from incomplete data of an individual to the distribution of its
parameters.

With the summary s and the static covariates x of an individual, and shared parameters c,

.. math:: q(u \mid y, c) = \text{flow}\big(u;\; s(\text{encode}(y)),\, x,\, c\big) .

A second flow learns :math:`q(c \mid y)` where the observations have no density. These networks know
nothing of Pyro and of the model: they are weights and the scales of the encoder.
"""

import torch
from torch import Tensor, nn

from ..cohort import Cohort
from ..encode import Encoded, Encoder, Standardize
from ..networks.conditional_flow import ConditionalFlow, FlowDistribution
from ..numerics.broadcasting import broadcast_shape


class AmortizedPosterior(nn.Module):
    r"""Encoder, summary network and conditional flow.

    Args:
        encoder: Turns a cohort into tokens.
        summary: Turns ``(tokens, mask, static)`` into a summary of length ``num_summary``.
        flow: The inference network.
        num_shared: Number of unconstrained shared parameters.
        shared_flow: The flow of the shared parameters, or None if they are not learned.
    """

    def __init__(
        self,
        encoder: Encoder,
        summary: nn.Module,
        flow: ConditionalFlow,
        num_shared: int,
        shared_flow: ConditionalFlow | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.summary, self.flow = encoder, summary, flow
        self.shared_flow = shared_flow
        self.shared = Standardize(num_shared)

    @property
    def dtype(self) -> torch.dtype:
        """Floating dtype of the weights."""
        return self.flow.loc.dtype

    def condition(self, cohort: Cohort, shared: Tensor) -> FlowDistribution:
        r"""The posterior of every individual's parameters, in unconstrained coordinates.

        Args:
            cohort: N individuals.
            shared: Unconstrained shared parameters, shape ``(shared,)`` or ``(individual,
                shared)``.

        Returns:
            A distribution with batch shape ``(individual,)`` and event shape ``(latent,)``.

        Raises:
            GuideError: The series, channels or covariates of the cohort are not those of the
                training data.
        """
        return self.given(self.summarize(cohort), shared)

    def for_plate(self, cohort: Cohort, shared: Tensor, extra: int) -> FlowDistribution:
        r"""The same posterior with the batch shape of a Pyro plate.

        Args:
            cohort: N individuals.
            shared: Unconstrained shared parameters, shape ``(*draw, shared)``.
            extra: Number of dimensions of size one to the right of the individual's.

        Returns:
            A distribution with batch shape ``(*draw, individual, 1, ..., 1)``.
        """
        summary = self.summarize(cohort)
        return self.given(summary.reshape(len(cohort), *[1] * extra, -1), shared)

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

    def given(self, summary: Tensor, shared: Tensor) -> FlowDistribution:
        r"""The posterior given summaries and shared parameters; their batch shapes broadcast.

        Args:
            summary: Shape ``(*batch, summary)``, from :meth:`summarize`.
            shared: Unconstrained, shape ``(*batch, shared)``.
        """
        standard = self.shared(shared.double()).to(self.dtype)
        batch = broadcast_shape(summary.shape[:-1], standard.shape[:-1])
        context = torch.cat([summary.expand(*batch, -1), standard.expand(*batch, -1)], -1)
        distribution: FlowDistribution = self.flow(context)
        return distribution

    def shared_given(self, summary: Tensor) -> FlowDistribution:
        r"""The posterior of the shared parameters given one individual's data, unconstrained.

        Args:
            summary: Shape ``(*batch, summary)``, from :meth:`summarize`.
        """
        assert self.shared_flow is not None
        distribution: FlowDistribution = self.shared_flow(summary)
        return distribution
