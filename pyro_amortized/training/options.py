r"""How to train: batches, learning rate, regularisation, processes, device."""

from dataclasses import dataclass, replace

import torch

from ..errors import TrainingError
from ..runtime.arguments import check_count, check_number

SMALLEST_COUNTS = {
    "batch_size": 1,
    "max_epochs": 1,
    "warmup": 0,
    "patience": 1,
    "num_noise": 1,
    "num_workers": 0,
    "num_threads": 1,
}


@dataclass(frozen=True)
class OptionDefaults:
    r"""Values of options that depend on the number of training pairs.

    With few pairs the networks overfit. With 10,000 simulations of SLCP, the loss on new data was
    3.35 with batches of 512 and no weight decay, and 2.48 with batches of 128 and a decay of 0.5
    (decision 021).

    Args:
        small: Largest number of training pairs that counts as small.
        medium: Largest number of training pairs that counts as medium.
        batch_sizes: Batch size for small, medium and large numbers.
        learning_rates: Largest learning rate for small, medium and large numbers. Batches of 1,024
            with 0.02 gave a lower loss after the same time than 512 with 0.01: after 45 s 1.968
            against 1.909 on doses, after 30 s 2.970 against 2.961 on the conversion reaction.
        population_rate: Largest learning rate of networks that are told the population and have
            more than ``few_latent`` individual parameters. With three parameters, 0.02 is as good
            or better (decision 086).
        few_latent: Number of individual parameters up to which ``learning_rates`` are used.
        weight_decays: Weight decay for small, medium and large numbers.
        min_steps: Steps that a training has at least; a small number of pairs is passed more often.
        min_epochs: Passes that a training has at least.
        max_epochs: Passes that a training has at most for the sake of ``min_steps``: 2,000
            simulations of theophylline are a quick trial, which took 58 s with 2,156 steps and 25 s
            with 80 passes, for 0.04 nats.
    """

    small: int = 20_000
    medium: int = 150_000
    batch_sizes: tuple[int, int, int] = (128, 256, 1024)
    learning_rates: tuple[float, float, float] = (0.01, 0.01, 0.02)
    population_rate: float = 0.01
    few_latent: int = 4
    weight_decays: tuple[float, float, float] = (0.5, 0.2, 0.0)
    min_steps: int = 6000
    min_epochs: int = 12
    max_epochs: int = 80


DEFAULTS = OptionDefaults()


@dataclass(frozen=True)
class TrainingOptions:
    r"""How to train.

    Args:
        batch_size: Simulations per step, over all processes. Default: 1,024; with few simulations
            fewer (128 up to 20,000, 256 up to 150,000), because the noise of small batches keeps
            the networks from overfitting.
        max_epochs: Passes over the simulations; the learning rate reaches zero at the end of the
            last. Default: 12; more, up to 80, where that makes fewer than 6,000 steps.
        learning_rate: Largest learning rate. Default: 0.02; 0.01 up to 150,000 simulations, and
            for more than four individual parameters with population parameters.
        warmup: Number of steps over which the learning rate rises, at most a tenth of all.
        patience: After this many checks without a better validation loss the learning rate falls
            to zero in a short time, from the best weights, and training ends.
        min_improvement: Smallest fall of the validation loss, in nats, that counts as better.
        validation_share: Share of the simulations that is kept for validation.
        average_decay: Decay of the exponential average of the weights.
        max_gradient: Norm at which gradients are clipped.
        weight_decay: Decoupled decay of the weight matrices, per unit of learning rate. Default: 0;
            with few simulations 0.5 (up to 20,000) or 0.2 (up to 150,000).
        num_noise: Observations drawn per simulation. Where solving the model takes long, one
            solution then gives several training pairs.
        num_workers: Processes that simulate ahead. Default: those of the active
            ``joblib.parallel_config``; without one, the other processors of this process where
            simulation takes long, none where it does not.
        num_threads: Threads of torch while training, or None to leave them as they are. At these
            sizes a second thread makes a training faster by a tenth, and slower tenfold where
            another process uses the same core.
        device: Where the networks are trained: ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
        autocast: Precision of the summary network's matrix products, for instance
            ``torch.bfloat16`` on a GPU, or None for float32.
        checkpoint_seconds: Least time between two checkpoints, if there is a folder for them.

    Raises:
        TrainingError: A setting is outside its range.
    """

    batch_size: int | None = None
    max_epochs: int | None = None
    learning_rate: float | None = None
    warmup: int = 100
    patience: int = 4
    min_improvement: float = 1e-4
    validation_share: float = 0.05
    average_decay: float = 0.998
    max_gradient: float = 5.0
    weight_decay: float | None = None
    num_noise: int = 1
    num_workers: int | None = None
    num_threads: int | None = 1
    device: str = "cpu"
    autocast: torch.dtype | None = None
    checkpoint_seconds: float = 20.0

    def __post_init__(self) -> None:
        for name, least in SMALLEST_COUNTS.items():
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name), least=least, error=TrainingError)
        for name in ("learning_rate", "max_gradient"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), 0, with_low=False, error=TrainingError)
        for name in ("min_improvement", "checkpoint_seconds"):
            check_number(name, getattr(self, name), 0, error=TrainingError)
        if self.weight_decay is not None:
            check_number("weight_decay", self.weight_decay, 0, error=TrainingError)
        for name, with_zero in (("validation_share", False), ("average_decay", True)):
            value = getattr(self, name)
            check_number(
                name, value, 0, 1, with_low=with_zero, with_high=False, error=TrainingError
            )
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError, TypeError) as error:
            raise TrainingError(
                f"The device {self.device!r} cannot be used: {str(error).splitlines()[0]}",
                "a device that torch sees here.",
                'pass `device="cpu"`, or install a build of torch for the device.',
            ) from error

    @property
    def chosen(self) -> tuple[int, int]:
        """Batch size and number of passes of :meth:`resolved` options."""
        assert self.batch_size is not None
        assert self.max_epochs is not None
        return self.batch_size, self.max_epochs

    @property
    def peak_rate(self) -> float:
        """Largest learning rate of :meth:`resolved` options."""
        assert self.learning_rate is not None
        return self.learning_rate

    def resolved(self, num_pairs: int | None, num_latent: int = 0) -> "TrainingOptions":
        r"""The same options, with a value for all that was left open.

        Args:
            num_pairs: Number of training pairs, or None for a number without limit.
            num_latent: Number of individual parameters of networks that are told the population, 0
                for other networks.
        """
        defaults = DEFAULTS
        is_small = num_pairs is not None and num_pairs <= defaults.small
        is_medium = num_pairs is not None and num_pairs <= defaults.medium
        which = 0 if is_small else 1 if is_medium else 2
        size = self.batch_size or defaults.batch_sizes[which]
        decay = defaults.weight_decays[which] if self.weight_decay is None else self.weight_decay
        epochs = self.max_epochs
        if epochs is None:
            steps_per_pass = max(1, (num_pairs or defaults.min_steps * size) // size)
            epochs = min(defaults.max_epochs, -(-defaults.min_steps // steps_per_pass))
            epochs = max(defaults.min_epochs, epochs)
        rate = defaults.learning_rates[which]
        if num_latent > defaults.few_latent:
            rate = min(rate, defaults.population_rate)
        rate = self.learning_rate or rate
        return replace(
            self, batch_size=size, weight_decay=decay, max_epochs=epochs, learning_rate=rate
        )
