r"""The pairs of data and parameters that the network is trained on, and their order.

A pair is a simulated individual, encoded, with missing values drawn anew in every pass. In a bank
of fixed size the order is a function of seed, pass and shard: pass 0 takes the shards by number,
later passes in a random order. In a bank without fixed size (under a time budget) the next shard is
a new one if one is available, else the one that was used least. Encoding runs in a thread, a shard
ahead of the network.
"""

import queue
import threading
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..encode import Encoded, Encoder
from ..numerics.gaussians import Gaussians
from .simulation.random_streams import Purpose, random_stream
from .simulation.shard_queue import SimulationBank
from .simulation.training_sets import TrainingSet

ENCODED_AT_ONCE = 8192  # individuals; bounds the memory of the encoding
FULL_SECONDS = 0.2  # time after which a thread with a full queue looks whether it has to end
JOIN_SECONDS = 2.0  # longest time to wait for its end


class ShardPlace(NamedTuple):
    """A place in the training: number of the pass, position in the pass, number of the shard."""

    epoch: int
    position: int
    shard: int


@dataclass(frozen=True, eq=False)
class Pairs:
    r"""Encoded simulations in float32.

    Args:
        encoded: The data, one row per pair.
        unconstrained: Individual parameters, shape ``(pair, latent)``.
        shared: Shared parameters, unconstrained, shape ``(pair, shared)``.
        priors: Distributions that the individual parameters were drawn from, batch shape
            ``(pair,)``.
    """

    encoded: Encoded
    unconstrained: Tensor
    shared: Tensor
    priors: Gaussians

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, rows: Tensor) -> "Pairs":
        return Pairs(
            self.encoded[rows], self.unconstrained[rows], self.shared[rows], self.priors.take(rows)
        )

    def to(self, device: torch.device) -> "Pairs":
        """The same on another device."""
        if self.unconstrained.device == device:
            return self
        encoded = Encoded(
            self.encoded.tokens.to(device),
            self.encoded.mask.to(device),
            self.encoded.static.to(device),
        )
        priors = self.priors.map(lambda x: x.to(device))
        return Pairs(encoded, self.unconstrained.to(device), self.shared.to(device), priors)


@dataclass(frozen=True, eq=False)
class Feed:
    r"""Encoded shards in their order.

    Args:
        bank: The simulations.
        encoder: Encodes them.
        seed: Seed of order and missingness.
    """

    bank: SimulationBank
    encoder: Encoder
    seed: int

    def pairs(self, simulations: TrainingSet, epoch: int, shard: int) -> Pairs:
        """A shard with the missing values of a pass, encoded."""
        design = self.bank.simulator.design
        generator = random_stream(self.seed, Purpose.MISSING_VALUES, epoch, shard)
        cohort = design.missing(simulations.cohort, generator)
        parts = []
        with torch.no_grad():
            for start in range(0, len(cohort), ENCODED_AT_ONCE):
                part = self.encoder(cohort[start : start + ENCODED_AT_ONCE])
                parts.append((part.tokens.float(), part.mask, part.static.float()))
        encoded = Encoded(*(torch.cat(x) for x in zip(*parts, strict=True)))
        return Pairs(
            encoded,
            simulations.unconstrained.float(),
            simulations.shared.float(),
            simulations.priors.map(Tensor.float),
        )

    def shard_order(self, epoch: int) -> list[int]:
        """Shards of a pass over a bank of fixed size."""
        assert self.bank.num_shards is not None
        if epoch == 0:
            return list(range(self.bank.num_shards))
        generator = random_stream(self.seed, Purpose.SHARD_ORDER, epoch)
        return torch.randperm(self.bank.num_shards, generator=generator).tolist()

    def row_order(self, place: ShardPlace, num: int) -> Tensor:
        """A random order of the ``num`` rows of a shard."""
        generator = random_stream(self.seed, Purpose.ROW_ORDER, place.epoch, place.shard)
        return torch.randperm(num, generator=generator)

    def places(self, epoch: int, position: int) -> Iterator[ShardPlace]:
        """The places in their order, from a position of a pass on."""
        if self.bank.num_shards is None:
            yield from self._places_without_end()
            return
        while True:
            for j, shard in enumerate(self.shard_order(epoch)):
                if j >= position:
                    yield ShardPlace(epoch, j, shard)
            epoch, position = epoch + 1, 0

    def _places_without_end(self) -> Iterator[ShardPlace]:
        """A new shard wherever one is available, else the one that was used least."""
        num_uses: Counter[int] = Counter()
        position = 0
        while True:
            new = len(num_uses)
            is_available = not num_uses or self.bank.is_ready(new)
            shard = new if is_available else min(num_uses, key=lambda k: (num_uses[k], k))
            yield ShardPlace(num_uses[shard], position, shard)
            num_uses[shard] += 1
            position += 1

    def stream(
        self, epoch: int, position: int, ahead: int = 1
    ) -> Generator[tuple[ShardPlace, Pairs]]:
        r"""Places with their pairs, prepared in a thread.

        Args:
            epoch: Pass to begin with.
            position: Position in this pass to begin with.
            ahead: Number of shards that are prepared ahead.
        """
        prepared: queue.Queue[tuple[ShardPlace, Pairs] | BaseException] = queue.Queue(ahead)
        stop = threading.Event()

        def offer(item: tuple[ShardPlace, Pairs] | BaseException) -> None:
            while not stop.is_set():
                try:
                    return prepared.put(item, timeout=FULL_SECONDS)
                except queue.Full:
                    continue

        def prepare() -> None:
            try:
                torch.set_num_threads(1)
                for place in self.places(epoch, position):
                    if stop.is_set():
                        return
                    simulations = self.bank.get(place.shard)
                    offer((place, self.pairs(simulations, place.epoch, place.shard)))
            except BaseException as error:  # Raised where the pairs are used.
                offer(error)

        thread = threading.Thread(target=prepare, daemon=True)
        thread.start()
        try:
            while True:
                item = prepared.get()
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            stop.set()
            # The thread is a daemon, so one that still waits for a shard holds up nothing.
            thread.join(timeout=JOIN_SECONDS)
