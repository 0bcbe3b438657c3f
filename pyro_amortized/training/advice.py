r"""What limits the result of a training: simulations, time, or neither.

With n simulations and a network that can learn P numbers from them, the loss on new data exceeds
the best possible by about P / 2n, and the loss on the simulations themselves falls short of it by
as much (Akaike 1974). So a gap g between the two says: twice as many simulations would gain about
g / 4.
"""

import math

import torch

from ..guide.amortized_posterior import AmortizedPosterior
from .batches import Pairs
from .objective import log_q
from .training_loop import Progress

WORTH = 0.02  # nats


@torch.no_grad()
def advice(progress: Progress, posterior: AmortizedPosterior, seen: Pairs, new: Pairs) -> str:
    r"""A sentence that says what would improve the result.

    Args:
        progress: The record of the training.
        posterior: The trained networks.
        seen: Pairs they were trained on.
        new: Pairs they were not trained on.
    """
    losses, last = progress.validation_loss, len(progress.validation_loss)
    seen = seen[torch.arange(min(len(seen), len(new)))]
    old_log_q, new_log_q = (log_q(posterior, pairs).double() for pairs in (seen, new))
    gap = float(old_log_q.mean() - new_log_q.mean())
    error = float((old_log_q.var() / len(seen) + new_log_q.var() / len(new)).sqrt())
    if gap > max(WORTH, 2.5 * error):
        return (
            f"simulations limit the result: on those it saw the loss is {gap:.3f} nats lower "
            f"than on new ones; twice as many would gain about {gap / 4:.3f} nats"
        )
    if losses[-1] > min(losses) + WORTH:
        return (
            "simulations limit the result: the loss on new data was lowest at check "
            f"{progress.best_epoch + 1} of {last} and rose by "
            f"{losses[-1] - min(losses):.3f} nats afterwards; simulate more"
        )
    fall = min(losses[: last // 2 + 1]) - min(losses) if last >= 4 else math.inf
    if fall > WORTH and not progress.cooling_from:
        return (
            f"time limits the result: the loss fell by {fall:.3f} nats over the second half; "
            "train longer (more epochs or a larger budget)"
        )
    return f"neither simulations nor time limit the result by more than {WORTH} nats"
