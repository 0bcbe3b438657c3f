r"""Bins of the values of a series along a time axis."""

import itertools
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class BinSettings:
    r"""Bins that follow the times of the data.

    Args:
        max_times: With at most so many different times, each time is a bin.
        near: Such times are in one bin if they are closer than this share of the median distance of
            neighbouring times: 11.9 and 12 h are one planned time.
        wide_gap: With more times, bins end in gaps that are this many times as long as the median
            one. The longest of 1,000 gaps between random times is about 10 times as long.
        few: Share of the individuals that a bin has at least as values; smaller ones are joined to
            a neighbour.
        many: Multiple of the individuals from which on a bin is divided into equal parts, if it has
            that many different times.
        many_times: Different times of a bin that may be divided.
        wide: Width of a bin, as a share of the gap that parts it from the nearer neighbour, from
            which on it is not one planned time. A narrower bin is divided only where individuals
            have several values of one course in it: the 6 h after every dose are one planned time,
            however many doses there are.
    """

    max_times: int = 25
    near: float = 0.1
    wide_gap: float = 12.0
    few: float = 0.25
    many: float = 2.0
    many_times: int = 8
    wide: float = 0.5


BINS = BinSettings()


def equal_bins(times: np.ndarray, num_bins: int) -> np.ndarray:
    """Inner edges of bins with about equally many values; fewer bins if many times are equal."""
    edges = np.unique(np.quantile(times, np.linspace(0, 1, num_bins + 1)))
    return edges[1:-1]


def natural_bins(
    times: np.ndarray, num_individuals: int, courses: np.ndarray | None = None
) -> np.ndarray:
    r"""Inner edges of bins that end in the gaps between planned times.

    Args:
        times: Times of the values, shape ``(value,)``.
        num_individuals: Number of individuals, whose values at one planned time are a bin.
        courses: The course that a value belongs to: an individual, or one dose of an individual.
            Integers, shape ``(value,)``. Default: unknown, so that a narrow bin is divided only if
            it has more values than individuals.

    Returns:
        Shape ``(bin - 1,)``.
    """
    distinct = np.unique(times)
    gaps = np.diff(distinct)
    if len(gaps) == 0:
        return np.zeros(0)
    settings = BINS.near if len(distinct) <= BINS.max_times else BINS.wide_gap
    at = gaps > settings * float(np.median(gaps))
    edges = list(distinct[:-1][at] + gaps[at] / 2)
    edges = _without_small_bins(np.sort(times), edges, BINS.few * num_individuals)
    ends = [-np.inf, *edges, np.inf]
    for low, high in itertools.pairwise(ends):
        here = (times > low) & (times <= high)
        inside = times[here]
        if len(np.unique(inside)) < BINS.many_times or len(inside) < BINS.many * num_individuals:
            continue
        num_courses = num_individuals if courses is None else len(np.unique(courses[here]))
        if _is_wide(times, inside) or len(inside) >= BINS.many * num_courses:
            edges += list(equal_bins(inside, round(len(inside) / num_individuals)))
    return np.unique(edges)


def _is_wide(times: np.ndarray, inside: np.ndarray) -> bool:
    """Whether the times of a bin are spread over a stretch that is long beside the gaps around."""
    first, last = inside.min(), inside.max()
    gaps = [first - times[times < first].max(initial=-np.inf)]
    gaps += [times[times > last].min(initial=np.inf) - last]
    nearest = min(gaps)
    return bool(np.isinf(nearest) or last - first >= BINS.wide * nearest)


def _without_small_bins(times: np.ndarray, edges: list[float], least: float) -> list[float]:
    """The edges without those of bins that have too few values: such a bin is joined to the nearer
    neighbour.
    """
    while edges:
        counts = np.bincount(np.digitize(times, edges), minlength=len(edges) + 1)
        small = int(counts.argmin())
        if counts[small] >= least:
            break
        beside = [j for j in (small - 1, small) if 0 <= j < len(edges)]

        def gap(j: int) -> float:
            place = np.searchsorted(times, edges[j])
            return float(times[place] - times[place - 1])

        edges.pop(min(beside, key=gap))
    return edges
