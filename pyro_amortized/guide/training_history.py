r"""What a training leaves behind besides the weights."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class TrainingHistory:
    r"""What happened during training. Lists have one entry per check of the validation loss.

    Args:
        training_loss: Mean :math:`-\log q` over the training simulations since the last check.
        validation_loss: The same over the validation simulations, averaged weights.
        learning_rate: Learning rate at the check.
        seconds: Wall time of training at the check, without simulation beforehand.
        best_epoch: Check whose weights were kept, from 0.
        num_simulations: Simulations used, validation included.
        num_failed: Simulations that were not finite and were left out.
        num_steps: Steps of the optimiser.
        num_pairs: Pairs of data and parameters seen, with repetition (fresh missingness and noise
            count).
        num_skipped: Steps whose gradient was not finite, which moved nothing.
        simulation_seconds: Wall time of the simulation in this process.
        training_seconds: Wall time of the training.
        stopped: Why training ended.
        advice: What limits the result: simulations, time, or neither.
    """

    training_loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    learning_rate: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    best_epoch: int = 0
    num_simulations: int = 0
    num_failed: int = 0
    num_steps: int = 0
    num_pairs: int = 0
    num_skipped: int = 0
    simulation_seconds: float = 0.0
    training_seconds: float = 0.0
    stopped: str = ""
    advice: str = ""
