r"""The form of a saved guide: which sites it is for, which networks, and files that are whole or
not there.
"""

from collections.abc import Mapping
from typing import Any

import torch

from ..couplings import CouplingFlow
from ..encode import Encoder
from ..errors import GuideError
from ..flows import ConditionalFlow
from ..networks import DeepSet, GridNetwork
from ..posterior import AmortizedPosterior

FORMAT_VERSION = 2


def signature(sites: Mapping[str, Any]) -> dict[str, int]:
    """Name and number of unconstrained coordinates of each site."""
    return {name: site.num_unconstrained for name, site in sites.items()}


def summary_settings(summary: torch.nn.Module) -> dict[str, Any]:
    """The kind of a summary network and the arguments that make it again."""
    if not isinstance(summary, DeepSet | GridNetwork):
        raise GuideError(
            f"The summary network is a {type(summary).__name__}.",
            "a DeepSet or GridNetwork: other networks cannot be rebuilt from a file yet.",
            "save the network's state_dict yourself.",
        )
    return {"kind": type(summary).__name__, **summary.settings}


def empty_posterior(
    description: Mapping[str, Any], num_shared: int, num_latent: int
) -> AmortizedPosterior:
    """Networks of the described sizes, in float64, to be filled from a file."""
    encoder = Encoder(**description["encoder"])
    settings = dict(description["summary"])
    kind = {"DeepSet": DeepSet, "GridNetwork": GridNetwork}[settings.pop("kind", "DeepSet")]
    summary = kind(encoder.num_features, encoder.num_static, **settings)
    num_context = summary.num_summary + encoder.num_static + num_shared
    kinds = {1: CouplingFlow, 2: ConditionalFlow}
    flow = kinds[description["format_version"]](num_latent, num_context, **description["flow"])
    return AmortizedPosterior(encoder, summary, flow, num_shared).double()
