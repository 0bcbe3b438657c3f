r"""The form of a saved guide: which sites it is for, which networks, and files that are whole or
not there.
"""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as serialize
from torch import Tensor, nn

from .. import encode, networks
from ..encode import Encoder, Form
from ..errors import GuideError
from ..model import ModelStructure
from ..networks import summary_size
from ..networks.conditional_flow import ConditionalFlow
from ..runtime.atomic_files import make_folder, write_atomically
from ..runtime.file_formats import Format
from .amortized_posterior import AmortizedPosterior
from .newton_posterior import SharpenedPosterior
from .training_distributions import TrainingDistribution

FORMAT = Format("train the guide again")


def signature(sites: Mapping[str, Any]) -> dict[str, int]:
    """Name and number of unconstrained coordinates of each site."""
    return {name: site.num_unconstrained for name, site in sites.items()}


def summary_settings(summary: nn.Module) -> dict[str, Any]:
    """The kind of a summary network and the arguments that make it again."""
    settings = getattr(summary, "settings", None)
    if not isinstance(settings, dict):
        raise GuideError(
            f"The summary network is a {type(summary).__name__} without `settings`.",
            "a network of the library, or one with an attribute `settings`: the keyword arguments, "
            "besides the layout, that make it again.",
            "set `self.settings` in its `__init__`, or save its state_dict yourself.",
        )
    return {"kind": type(summary).__name__, **settings}


def posterior_settings(posterior: AmortizedPosterior | SharpenedPosterior) -> dict[str, Any]:
    """What makes the networks again, without their weights."""
    if isinstance(posterior, SharpenedPosterior):
        second = {**posterior.flow.settings, "num_steps": posterior.num_steps}
        return {**posterior_settings(posterior.first), "sharpened": second}
    settings = {
        "encoder": posterior.encoder.settings,
        "summary": summary_settings(posterior.summary),
        "flow": posterior.flow.settings,
    }
    if posterior.shared_flow is not None:
        settings["shared_flow"] = posterior.shared_flow.settings
    return settings


def sharpened_posterior(
    description: Mapping[str, Any],
    first: AmortizedPosterior,
    structure: ModelStructure,
    training: TrainingDistribution,
) -> SharpenedPosterior:
    """The second flow put behind the first posterior, to be filled from a file."""
    settings = dict(description["sharpened"])
    num_steps = settings.pop("num_steps")
    num_latent = first.flow.num_latent
    width = SharpenedPosterior.num_context(first, num_latent)
    flow = ConditionalFlow(num_latent, width, **settings).double()
    return SharpenedPosterior(first, flow, structure, training, num_steps)


def empty_posterior(
    description: Mapping[str, Any], num_shared: int, num_latent: int, classes: Sequence[type]
) -> AmortizedPosterior:
    """Networks of the described sizes, in float64, to be filled from a file."""
    encoder = _encoder(dict(description["encoder"]), classes)
    settings = dict(description["summary"])
    kind = _class(networks, settings.pop("kind"), classes)
    if "cell" in settings:
        settings["cell"] = {"GRU": nn.GRU, "LSTM": nn.LSTM}[settings["cell"]]
    summary = kind(encoder.layout, **settings)
    num_summary = summary_size(summary) + encoder.num_static
    flow = ConditionalFlow(num_latent, num_summary + num_shared, **description["flow"])
    second = None
    if "shared_flow" in description:
        second = ConditionalFlow(num_shared, num_summary, **description["shared_flow"])
    return AmortizedPosterior(encoder, summary, flow, num_shared, second).double()


def _encoder(settings: dict[str, Any], classes: Sequence[type]) -> Encoder:
    kind = _class(encode, settings.pop("encoding"), classes)
    chosen = settings.pop("encoding_settings")
    names = ("series", "channels", "covariates", "time_varying")
    form = Form(**settings | {name: tuple(settings[name]) for name in names})
    encoder: Encoder = kind(**chosen).encoder(form)
    return encoder


def _class(module: Any, name: str, classes: Sequence[type]) -> Any:
    """A class of the library, or one that the caller brought."""
    own = {c.__name__: c for c in classes}
    found = own.get(name) or _public_class(module, name)
    if found is None:
        raise GuideError(
            f"The guide was trained with a {name} that the library does not have.",
            f"the class, in `load_guide(..., classes=[{name}])`.",
            "import it from where it was defined for the training, and pass it.",
        )
    return found


def _public_class(module: Any, name: str) -> Any:
    """An encoding or a network that a module of the library offers: nothing else that can be
    called.
    """
    found = vars(module).get(name)
    named = isinstance(name, str) and not name.startswith("_")
    wanted = isinstance(found, type) and (issubclass(found, nn.Module) or hasattr(found, "encoder"))
    home = str(getattr(found, "__module__", "")).startswith(f"{__package__.split('.')[0]}.")
    return found if named and wanted and home else None


def posterior_tensors(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The posterior's own tensors of a file."""
    return {
        n.removeprefix("posterior."): x for n, x in tensors.items() if n.startswith("posterior.")
    }


def training_tensors(training: TrainingDistribution) -> dict[str, Tensor]:
    """A training distribution as named tensors."""
    individual, shared = training.individual.normal, training.shared
    tensors = {"loc": individual.loc, "scale_tril": individual.scale_tril, "shared": shared.draws}
    if shared.normal is not None:
        tensors |= {"shared_loc": shared.normal.loc}
        tensors |= {"shared_scale_tril": shared.normal.scale_tril}
    return {f"training.{name}": x for name, x in tensors.items()}


def write_guide(folder: Path, tensors: Mapping[str, Tensor], description: dict[str, Any]) -> None:
    """Write the two files of a guide, each whole or not at all; the description knows the weights
    it belongs to.
    """
    make_folder(folder)
    contiguous = {name: x.contiguous() for name, x in tensors.items()}
    content = serialize(contiguous)
    whole = FORMAT.stamped({**description, "weights": sha256(content).hexdigest()})
    write_atomically(folder / "weights.safetensors", content)
    write_atomically(folder / "guide.json", (json.dumps(whole, indent=2) + "\n").encode())
