r"""Competing events: which of several causes an event has.

The first of several events has the sum of their hazards, and is of cause k with the probability

.. math:: p_k(t) = h_k(t) / \textstyle\sum_l h_l(t) .

The density of both is :math:`h_k(t) \exp(-\sum_l H_l(t))`, that of competing risks.

References:
    Prentice et al. (1978), The analysis of failure times in the presence of competing risks.
"""

import torch
from pyro.distributions import Categorical, TorchDistribution
from torch import Tensor

from ...errors import ModelError
from .hazards import Hazard

IMPOSSIBLE = -1e9  # logit of a category that cannot be, finite for its gradient


def cause_of_event(event: Tensor, *hazards: Hazard) -> TorchDistribution:
    r"""Distribution of the cause of every event, given its time.

    The categories are 0 for no event and 1, 2, ... for the causes, in the order of the hazards::

        either = pyro.sample("event", nlme.EventTimes(death + relapse, series), obs=series.values)
        distribution = nlme.cause_of_event(either, death, relapse).mask(cause.observed).to_event(1)
        pyro.sample("cause", distribution, obs=cause.values)

    A cause that is not known is masked.

    Args:
        event: Value of the site of the event, shape ``(individual, event, 2)``.
        hazards: The hazards of the causes, two or more, whose sum the event has.

    Returns:
        Batch shape ``(individual, event)``.

    Raises:
        ModelError: There are fewer than two hazards, or ``event`` is no value of an event.

    Example:
        >>> from pyro_amortized import nlme
        >>> causes = nlme.exponential_hazard(torch.tensor(0.3)), nlme.exponential_hazard(0.1)
        >>> event = torch.tensor([[[2.0, 1.0]], [[5.0, 0.0]]])  # an event, and the end
        >>> cause_of_event(event, *causes).probs[:, 0]
        tensor([[0.0000, 0.7500, 0.2500],
                [1.0000, 0.0000, 0.0000]])
    """
    if len(hazards) < 2 or not all(isinstance(h, Hazard) for h in hazards):
        raise ModelError(
            f"There are {len(hazards)} hazards of causes.",
            "two or more hazards.",
            "pass `nlme.cause_of_event(event, first, second)`.",
        )
    if event.dim() < 3 or event.shape[-1] != 2:
        raise ModelError(
            f"The value of the event has shape {tuple(event.shape)}.",
            "(individual, event, 2): time and status.",
            "pass what `pyro.sample` returns for the site of `nlme.EventTimes`.",
        )
    times, status = event.detach().unbind(-1)
    causes = torch.stack([h(times)[0] for h in hazards], -1)
    happened = (status > 0.5).unsqueeze(-1)
    none = torch.where(happened, IMPOSSIBLE, torch.zeros_like(causes[..., :1]))
    causes = torch.where(happened, causes, IMPOSSIBLE)
    return Categorical(logits=torch.cat([none, causes], -1))
