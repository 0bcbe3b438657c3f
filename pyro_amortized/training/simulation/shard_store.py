r"""Simulations on disk: a folder of shards, written and read; it may be larger than memory.

Shard k is one safetensors file (memory-mapped when read, nothing pickled). The file of a shard is
either complete or absent, and its content depends on the settings of the run and on k alone. A run
that was killed therefore simulates only the shards that are absent, and several processes may
write to one folder.

A tensor whose rows are all equal, for instance times on a common grid, is stored with one row; its
name is then in the list ``once`` of the description.
"""

from dataclasses import dataclass
from pathlib import Path

from ...cohort import Labels
from ...cohort.named_tensors import cohort_of, cohort_tensors
from ...errors import AmortizedError, CohortError, TrainingError
from ...numerics.gaussians import Gaussians
from ...runtime.atomic_files import read_tensors, write_tensors
from ...runtime.file_formats import Format
from .random_streams import VALIDATION
from .training_sets import TrainingSet

FORMAT = Format("pass another folder")


@dataclass(frozen=True)
class SimulationStore:
    r"""A folder of simulated shards.

    Args:
        folder: The folder; made if it is not there.
    """

    folder: Path

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    def path(self, shard: int) -> Path:
        """File of a shard, or of the validation set (``random_streams.VALIDATION``)."""
        name = "validation" if shard == VALIDATION else f"shard-{shard:06d}"
        return self.folder / f"{name}.safetensors"

    def __contains__(self, shard: int) -> bool:
        return self.path(shard).is_file()

    def write(self, shard: int, simulations: TrainingSet) -> None:
        """Write a shard; its file is then complete."""
        tensors = {
            "unconstrained": simulations.unconstrained,
            "shared": simulations.shared,
            "prior_loc": simulations.priors.loc,
            "prior_scale_tril": simulations.priors.scale_tril,
        } | cohort_tensors(simulations.cohort)
        for name in simulations.cohort.series:
            tensors[f"series.{name}.values"] = tensors[f"series.{name}.values"].float()
        constant = [name for name, x in tensors.items() if len(x) > 1 and bool((x == x[:1]).all())]
        stored = {name: x[:1].clone() if name in constant else x for name, x in tensors.items()}
        description = {
            "num_rows": len(simulations),
            "num_failed": simulations.num_failed,
            "once": constant,
        }
        write_tensors(self.path(shard), stored, FORMAT.stamped(description))

    def read(self, shard: int) -> TrainingSet:
        r"""Read a shard.

        Raises:
            AmortizedError: The file is damaged, or its format cannot be read.
        """
        tensors, description = read_tensors(self.path(shard))
        description, tensors = FORMAT.newest(self.path(shard), description, tensors)
        try:
            num = description["num_rows"]
            rows = {
                name: x.expand(num, *x.shape[1:]) if name in description["once"] else x
                for name, x in tensors.items()
            }
            cohort = cohort_of(rows, Labels(("",) * num))
            num_failed = int(description["num_failed"])
            priors = Gaussians(rows["prior_loc"], rows["prior_scale_tril"])
            return TrainingSet(cohort, rows["unconstrained"], rows["shared"], priors, num_failed)
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            if isinstance(error, AmortizedError) and not isinstance(error, CohortError):
                raise
            raise TrainingError(
                f"{self.path(shard)} cannot be used: {error!r}",
                "a complete file that this library wrote.",
                "delete it; its simulations are then made again.",
            ) from error
