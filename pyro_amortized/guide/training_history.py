r"""The history of a training: losses, counts, times, and what would improve the result."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class TrainingHistory:
    r"""The history of a training. Lists have one entry per check of the validation loss.

    Args:
        training_loss: Mean :math:`-\log q` over the training simulations since the last check.
        validation_loss: The same over the validation simulations, with averaged weights.
        learning_rate: Learning rate at the check.
        seconds: Wall time of the training at the check, without the simulation before it.
        best_check: Number of the check whose weights are the result, from 0.
        num_simulations: Simulations used, with those for validation.
        num_failed: Simulations that were not finite and were not used.
        num_steps: Steps of the optimizer.
        num_pairs: Pairs of data and parameters used, with repetition: one simulation gives several
            pairs, with other missing values and other noise.
        num_skipped: Steps that were skipped because their gradient was not finite.
        simulation_seconds: Wall time of the simulation in this process.
        training_seconds: Wall time of the training.
        stopped: Why training ended.
        advice: What limits the result: simulations, time, or neither.
    """

    training_loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    learning_rate: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    best_check: int = 0
    num_simulations: int = 0
    num_failed: int = 0
    num_steps: int = 0
    num_pairs: int = 0
    num_skipped: int = 0
    simulation_seconds: float = 0.0
    training_seconds: float = 0.0
    stopped: str = ""
    advice: str = ""

    @property
    def words(self) -> str:
        """Length of the training in a few words."""
        seconds = self.simulation_seconds + self.training_seconds
        return f"trained on {self.num_simulations:,} simulations in {seconds:.0f} s"
