r"""A variational bound with importance weights per individual, for Pyro's ``SVI``.

For one draw of the population from the guide's :math:`q(\Psi)` and K draws of every individual,

.. math:: \mathcal L = \log \frac{p(\Psi)}{q(\Psi)} + \frac{N}{B} \sum_{i=1}^{B}
          \log \frac1K \sum_k \frac{p(y_i \mid \phi_{ik}, c)\, p(\phi_{ik} \mid \Psi)}
          {q(\phi_{ik} \mid y_i, c)} ,

for B of N individuals. The logarithm is taken for each individual: as K grows, the bound approaches
the ELBO of the collapsed model, and errors of the guide vanish from the posterior of the
population. ``RenyiELBO`` of Pyro takes one logarithm of the product over all individuals, so that
the weight of a draw is small if the draw of a single individual is poor, and has the scale N / B
inside the logarithm.
"""

from typing import Any

import pyro
import torch
from pyro.infer import ELBO
from pyro.infer.util import torch_item
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ..cohort import Cohort
from ..errors import FitError
from ..model import log_prob_by_individual
from ..runtime.arguments import check_count
from ..sampling.importance_weights import log_mean


class MarginalELBO(ELBO):  # type: ignore[misc]
    r"""Loss for ``SVI(model, guide, optim, loss=MarginalELBO(10))``.

    Args:
        num_particles: Number of draws K per individual. Model and guide are called once with a
            cohort that contains every individual K times, so both must accept cohorts of any
            length (an :class:`~pyro_amortized.AmortizedGuide` does, the automatic guides of Pyro
            do not).
        num_individuals: N, if SVI takes steps on minibatches: ``svi.step(cohort[rows])``. Default:
            the number of individuals of the cohort.

    Raises:
        FitError: A count is not positive; a minibatch is larger than ``num_individuals``; the
            plate ``individual`` has another scale.

    References:
        Burda, Grosse, Salakhutdinov (2016), Importance weighted autoencoders.
    """

    def __init__(self, num_particles: int = 10, *, num_individuals: int | None = None) -> None:
        counts = {"num_particles": num_particles, "num_individuals": num_individuals}
        for name, value in counts.items():
            if value is not None:
                check_count(name, value, error=FitError)
        super().__init__(num_particles=num_particles)
        self.num_individuals = num_individuals

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> tuple[Trace, Trace]:
        """Traces of the model at the values that the guide sampled, and of the guide."""
        guided = pyro.poutine.trace(guide).get_trace(*args, **kwargs)
        replayed = pyro.poutine.replay(model, trace=guided)
        return pyro.poutine.trace(replayed).get_trace(*args, **kwargs), guided

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Tensor:
        """The negative bound, differentiable."""
        if not args or not isinstance(args[0], Cohort):
            raise FitError(
                f"The first argument of the model is {type(args[0]).__name__ if args else None}.",
                "a Cohort.",
                "write the model as a function of a cohort (`adapt` does this for models with "
                "other arguments).",
            )
        cohort, num = args[0], len(args[0])
        scale = self._scale(num)
        repeated_cohort = cohort.repeat(self.num_particles)
        arguments = (repeated_cohort, *args[1:])
        model_trace, guide_trace = self._get_trace(model, guide, arguments, kwargs)
        log_p, log_p_individual = log_prob_by_individual(model_trace, len(repeated_cohort))
        log_q, log_q_individual = log_prob_by_individual(guide_trace, len(repeated_cohort))
        log_weights = (log_p_individual - log_q_individual).reshape(self.num_particles, num)
        return -(log_p - log_q + scale * log_mean(log_weights).sum())

    def _scale(self, num: int) -> float:
        """Number of individuals of the whole cohort for each one of a minibatch, N / B."""
        scale = (self.num_individuals or num) / num
        if scale < 1:
            raise FitError(
                f"A minibatch of {num} of {self.num_individuals} individuals.",
                "at most all of them.",
                "set `num_individuals=` to the size of the whole cohort.",
            )
        return scale

    def loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """The negative bound."""
        with torch.no_grad():
            loss: float = torch_item(self.differentiable_loss(model, guide, *args, **kwargs))
        return loss

    def loss_and_grads(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """The negative bound; gradients are added to the parameters."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        if loss.requires_grad:
            loss.backward()
        value: float = torch_item(loss)
        return value
