r"""What a training leaves behind besides the weights."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class TrainingHistory:
    r"""What happened during training.

    Args:
        training_loss: Mean :math:`-\log q` over the training simulations, per epoch, nats.
        validation_loss: The same over the validation simulations, averaged weights.
        learning_rate: Learning rate at the end of each epoch.
        best_epoch: Epoch whose weights were kept, from 0.
        num_simulations: Simulations used, validation included.
        num_failed: Simulations that were not finite and were left out.
        simulation_seconds: Wall time of the simulation.
        training_seconds: Wall time of the training.
        stopped: Why training ended.
    """

    training_loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    learning_rate: list[float] = field(default_factory=list)
    best_epoch: int = 0
    num_simulations: int = 0
    num_failed: int = 0
    simulation_seconds: float = 0.0
    training_seconds: float = 0.0
    stopped: str = ""
