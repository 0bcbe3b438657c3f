r"""The form of a saved guide: which sites it is for, which networks, and files that are whole or
not there.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..encode import Encoder
from ..errors import GuideError
from ..flows import ConditionalFlow
from ..networks import DeepSet
from ..posterior import AmortizedPosterior

FORMAT_VERSION = 1


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content)
    part.replace(path)


def signature(sites: Mapping[str, Any]) -> dict[str, int]:
    """Name and number of unconstrained coordinates of each site."""
    return {name: site.num_unconstrained for name, site in sites.items()}


def summary_settings(summary: torch.nn.Module) -> dict[str, int]:
    """The arguments that make a summary network again."""
    if not isinstance(summary, DeepSet):
        raise GuideError(
            f"The summary network is a {type(summary).__name__}.",
            "a DeepSet: other networks cannot be rebuilt from a file yet.",
            "save the network's state_dict yourself.",
        )
    return summary.settings


def empty_posterior(
    description: Mapping[str, Any], num_shared: int, num_latent: int
) -> AmortizedPosterior:
    """Networks of the described sizes, in float64, to be filled from a file."""
    encoder = Encoder(**description["encoder"])
    summary = DeepSet(encoder.num_features, encoder.num_static, **description["summary"])
    num_context = summary.num_summary + encoder.num_static + num_shared
    flow = ConditionalFlow(num_latent, num_context, **description["flow"])
    return AmortizedPosterior(encoder, summary, flow, num_shared).double()
