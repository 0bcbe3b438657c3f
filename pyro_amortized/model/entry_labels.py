r"""What the user says about the entries of a site: ``infer={"labels": [...], "scale": ...}``."""

from collections.abc import Mapping
from typing import Any

from torch import Size

from ..errors import ModelError

SCALES = ("", "log", "sd of log", "sd")


def entry_labels(node: Mapping[str, Any], shape: Size) -> tuple[str, ...]:
    r"""The names of the entries of a site, or of the rows of a square matrix.

    Args:
        node: The site in a trace.
        shape: Shape of its value, of one individual for an individual site.

    Raises:
        ModelError: The labels are no list of different names, one for each entry.
    """
    labels, size = node["infer"].get("labels", ()), shape.numel()
    if isinstance(labels, str) or not all(isinstance(x, str) for x in labels):
        raise ModelError(
            f"The labels of the site {node['name']!r} are {labels!r}.",
            "a list of names.",
            "pass `infer={'labels': ['ka', 'cl']}`.",
        )
    is_square = len(shape) == 2 and shape[0] == shape[1]
    allowed = {0, size} | ({shape[0]} if is_square else set())
    if len(labels) not in allowed or len(set(labels)) < len(labels):
        raise ModelError(
            f"The site {node['name']!r} has the labels {list(labels)}, and {size} entries.",
            "a different label for each entry of one value (for each row of a matrix).",
            "correct `infer={'labels': [...]}`.",
        )
    return tuple(labels)


def entry_scales(node: Mapping[str, Any], size: int) -> tuple[str, ...]:
    r"""The scale of each entry of a site, for tables of parameters.

    Args:
        node: The site in a trace.
        size: Number of entries.

    Raises:
        ModelError: A scale is unknown, or their number is not that of the entries.
    """
    given = node["infer"].get("scale", "")
    scales = (given,) * size if isinstance(given, str) else tuple(given)
    if len(scales) != size or not all(x in SCALES for x in scales):
        raise ModelError(
            f"The scale of the site {node['name']!r} is {given!r}.",
            f"one of {SCALES}, or a list with one for each of its {size} entries.",
            "pass `infer={'scale': 'log'}` where the value is a logarithm, 'sd of log' where it is "
            "the standard deviation of one, and 'sd' for another standard deviation.",
        )
    return scales if any(scales) else ()
