r"""What limits the result of a training: the number of simulations, the time, or neither.

With n simulations and a network that can learn P numbers from them, the loss on new data exceeds
the best possible by about P / 2n, and the loss on the simulations themselves falls short of it by
as much (Akaike 1974). A gap g between the two losses therefore says that twice as many simulations
would gain about g / 4.
"""

from dataclasses import dataclass

import torch

from ..guide.amortized_posterior import AmortizedPosterior
from .batches import Pairs
from .objective import log_q
from .training_progress import TrainingProgress


@dataclass(frozen=True)
class TrainingAdviceSettings:
    r"""Differences of the loss that are worth telling.

    Args:
        worth: Smallest difference, in nats. The divergence of a good guide from the exact
            posterior is about 0.01 nats (decision 020).
        num_errors: Standard errors that the gap between the losses on simulations and on new data
            must exceed.
        num_checks: Number of checks of the loss from which its fall over the second half of the
            training can be judged.
    """

    worth: float = 0.02
    num_errors: float = 2.5
    num_checks: int = 4


DEFAULTS = TrainingAdviceSettings()


@torch.no_grad()
def advice(
    progress: TrainingProgress, posterior: AmortizedPosterior, seen: Pairs, new: Pairs
) -> str:
    r"""A sentence that says what would improve the result.

    Args:
        progress: The record of the training.
        posterior: The trained networks.
        seen: Pairs they were trained on.
        new: Pairs they were not trained on.
    """
    losses, num_checks = progress.validation_loss, len(progress.validation_loss)
    seen = seen[torch.arange(min(len(seen), len(new)))]
    log_q_seen, log_q_new = (log_q(posterior, pairs).double() for pairs in (seen, new))
    gap = float(log_q_seen.mean() - log_q_new.mean())
    error = float((log_q_seen.var() / len(seen) + log_q_new.var() / len(new)).sqrt())
    worth = DEFAULTS.worth
    if gap > max(worth, DEFAULTS.num_errors * error):
        return (
            "simulations limit the result: the loss on the simulations of the training is "
            f"{gap:.3f} nats lower than on new ones; twice as many would gain about "
            f"{gap / 4:.3f} nats"
        )
    if losses[-1] > min(losses) + worth:
        return (
            "simulations limit the result: the loss on new data was lowest at check "
            f"{progress.best_check + 1} of {num_checks} and rose by "
            f"{losses[-1] - min(losses):.3f} nats afterwards; simulate more"
        )
    longer = "train longer (more passes over the simulations or a larger budget)"
    if num_checks < DEFAULTS.num_checks and not progress.cooling_from:
        return (
            f"time may limit the result: the loss was checked only {num_checks} times, too few to "
            f"tell whether it still falls; {longer}"
        )
    fall = min(losses[: num_checks // 2 + 1]) - min(losses)
    if fall > worth and not progress.cooling_from:
        return (
            f"time limits the result: the loss fell by {fall:.3f} nats over the second half; "
            f"{longer}"
        )
    return f"neither simulations nor time limit the result by more than {worth} nats"
