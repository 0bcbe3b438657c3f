"""Lists in sentences: the first of several words."""

from collections.abc import Sequence


def first_few(words: Sequence[str], most: int, separator: str = ", ") -> str:
    """Words with a separator between them, and ``...`` in place of those beyond a number.

    Example:
        >>> first_few(["a", "b"], 2), first_few(["a", "b", "c"], 2, "; ")
        ('a, b', 'a; b; ...')
    """
    shown = list(words[:most])
    return separator.join([*shown, "..."] if len(words) > most else shown)
