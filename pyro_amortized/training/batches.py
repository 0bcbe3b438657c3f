r"""What the network sees, in which order: shards of the bank, with fresh missingness, encoded.

The order is a function of seed, pass and shard, not of timing: pass 0 takes the shards as they are
made, later passes shuffle them, and every pass draws missingness anew. Under a time budget (a bank
without end) the next shard is a new one if one is ready, else the one that was seen least. Encoding
runs in a thread, a shard ahead of the network.
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
from .simulation.shard_queue import Bank
from .simulation.shard_simulation import shard_generator
from .simulation.training_sets import TrainingSet

PARTS = 8192


class Place(NamedTuple):
    """Where in the training: pass number, position in the pass, shard."""

    epoch: int
    position: int
    shard: int


@dataclass(frozen=True, eq=False)
class Pairs:
    """Encoded simulations in float32, ready to train on."""

    encoded: Encoded
    unconstrained: Tensor
    shared: Tensor

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, rows: Tensor) -> "Pairs":
        return Pairs(self.encoded[rows], self.unconstrained[rows], self.shared[rows])

    def to(self, device: torch.device) -> "Pairs":
        """The same on another device."""
        if self.unconstrained.device == device:
            return self
        e = self.encoded
        moved = Encoded(e.tokens.to(device), e.mask.to(device), e.static.to(device))
        return Pairs(moved, self.unconstrained.to(device), self.shared.to(device))


@dataclass(frozen=True, eq=False)
class Feed:
    r"""Encoded shards in their order.

    Args:
        bank: The simulations.
        encoder: Encodes them.
        seed: Seed of order and missingness.
    """

    bank: Bank
    encoder: Encoder
    seed: int

    def pairs(self, simulations: TrainingSet, *place: int) -> Pairs:
        """A shard with the missingness of a place, encoded."""
        design = self.bank.simulator.design
        cohort = design.missing(simulations.cohort, shard_generator(self.seed, 1, *place))
        parts = []
        with torch.no_grad():
            for start in range(0, len(cohort), PARTS):
                part = self.encoder(cohort[start : start + PARTS])
                parts.append((part.tokens.float(), part.mask, part.static.float()))
        encoded = Encoded(*(torch.cat(x) for x in zip(*parts, strict=True)))
        return Pairs(encoded, simulations.unconstrained.float(), simulations.shared.float())

    def order(self, epoch: int) -> list[int]:
        """Shards of a pass over a bank of fixed size."""
        assert self.bank.num_shards is not None
        if epoch == 0:
            return list(range(self.bank.num_shards))
        generator = shard_generator(self.seed, 2, epoch)
        return torch.randperm(self.bank.num_shards, generator=generator).tolist()

    def rows(self, place: Place, num: int) -> Tensor:
        """Order of the rows of a shard."""
        generator = shard_generator(self.seed, 3, place.epoch, place.shard)
        return torch.randperm(num, generator=generator)

    def places(self, epoch: int, position: int) -> Iterator[Place]:
        """All places from one on, in order."""
        if self.bank.num_shards is None:
            yield from self._growing()
            return
        while True:
            for j, shard in enumerate(self.order(epoch)):
                if j >= position:
                    yield Place(epoch, j, shard)
            epoch, position = epoch + 1, 0

    def _growing(self) -> Iterator[Place]:
        """New shards as they come; between them the ones that were seen least."""
        seen: Counter[int] = Counter()
        position = 0
        while True:
            new = len(seen)
            fresh = not seen or self.bank.ready(new)
            shard = new if fresh else min(seen, key=lambda k: (seen[k], k))
            yield Place(seen[shard], position, shard)
            seen[shard] += 1
            position += 1

    def stream(self, epoch: int, position: int, ahead: int = 1) -> Generator[tuple[Place, Pairs]]:
        """Places with their pairs, prepared in a thread."""
        ready: queue.Queue[tuple[Place, Pairs] | BaseException] = queue.Queue(ahead)
        stop = threading.Event()

        def offer(item: tuple[Place, Pairs] | BaseException) -> None:
            while not stop.is_set():
                try:
                    return ready.put(item, timeout=0.2)
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
            except BaseException as error:  # raised where the pairs are used
                offer(error)

        thread = threading.Thread(target=prepare, daemon=True)
        thread.start()
        try:
            while True:
                item = ready.get()
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            stop.set()
            thread.join(timeout=2.0)  # a daemon: it may still wait for a shard
