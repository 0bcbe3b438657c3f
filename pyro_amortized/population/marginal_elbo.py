r"""A variational bound with importance weights per individual, for Pyro's ``SVI``.

For one draw of the population from the guide's :math:`q(\Psi)` and K draws of every individual,

.. math:: \mathcal L = \log \frac{p(\Psi)}{q(\Psi)} + \frac{N}{B} \sum_{i=1}^{B}
          \log \frac1K \sum_k \frac{p(y_i \mid \phi_{ik}, c)\, p(\phi_{ik} \mid \Psi)}
          {q(\phi_{ik} \mid y_i, c)} ,

for B of N individuals. The logarithm is taken per individual: as K grows the bound nears the
collapsed model's ELBO, and the guide's errors vanish from the population's posterior. Pyro's
``RenyiELBO`` takes one logarithm of the product over all individuals, in which a single poor draw
spoils the rest, and has the scale N / B inside it.
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
        num_particles: Draws K per individual. They are made by calling model and guide with the
            cohort laid end to end K times, so both must take cohorts of any length (an
            :class:`~pyro_amortized.AmortizedGuide` does, Pyro's automatic guides do not).
        num_individuals: N, where SVI steps on minibatches: ``svi.step(cohort[rows])``. Default:
            those of the cohort.

    Raises:
        FitError: A count is not positive; a minibatch is larger than ``num_individuals``; the
            plate ``individual`` is scaled otherwise.

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
        """Traces of the model at what the guide sampled, and of the guide."""
        guided = pyro.poutine.trace(guide).get_trace(*args, **kwargs)
        replayed = pyro.poutine.replay(model, trace=guided)
        return pyro.poutine.trace(replayed).get_trace(*args, **kwargs), guided

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Tensor:
        """The negative bound, differentiable."""
        if not args or not isinstance(args[0], Cohort):
            raise FitError(
                f"The first argument of the program is {type(args[0]).__name__ if args else None}.",
                "a Cohort.",
                "write the program as a function of a cohort (documentation: *Other people's "
                "models*).",
            )
        cohort, num = args[0], len(args[0])
        scale = self._scale(num)
        many = cohort.repeat(self.num_particles)
        modelled, guided = self._get_trace(model, guide, (many, *args[1:]), kwargs)
        population, individual = log_prob_by_individual(modelled, len(many))
        of_guide, of_individual = log_prob_by_individual(guided, len(many))
        log_weights = (individual - of_individual).reshape(self.num_particles, num)
        return -(population - of_guide + scale * log_mean(log_weights).sum())

    def _scale(self, num: int) -> float:
        """Individuals of the whole cohort for each one of a minibatch."""
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
            found: float = torch_item(self.differentiable_loss(model, guide, *args, **kwargs))
        return found

    def loss_and_grads(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """The negative bound; gradients are left in the parameters."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        if loss.requires_grad:
            loss.backward()
        found: float = torch_item(loss)
        return found
