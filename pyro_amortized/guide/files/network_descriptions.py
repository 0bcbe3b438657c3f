r"""Networks as a description that JSON can hold, and networks made from such a description.

The description holds classes by name and the arguments of their constructors, without weights. A
class is looked up among the networks and encodings of the library and the classes that the caller
passes; nothing else is called.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Size, Tensor, nn

from ... import encode, networks
from ...encode import Encoder, Form
from ...errors import GuideError
from ...model import ModelStructure
from ...networks import summary_size
from ...networks.conditional_flow import ConditionalFlow, FlowSizes
from ...runtime.isolation import seeded
from ..amortized_posterior import AmortizedPosterior, PriorFeatures
from ..newton_posterior import SharpenedPosterior
from ..training_distributions import TrainingDistribution

Posterior = AmortizedPosterior | SharpenedPosterior


def describe_networks(posterior: Posterior) -> dict[str, Any]:
    """The classes and sizes of the networks, without their weights."""
    if isinstance(posterior, SharpenedPosterior):
        second = {**posterior.flow.settings, "num_steps": posterior.num_steps}
        return {**describe_networks(posterior.first), "sharpened": second}
    description = {
        "encoder": posterior.encoder.settings,
        "summary": _describe_summary(posterior.summary),
        "flow": posterior.flow.settings,
    }
    if posterior.shared_flow is not None:
        description["shared_flow"] = posterior.shared_flow.settings
    return description


def _describe_summary(summary: nn.Module) -> dict[str, Any]:
    """The class of a summary network and the arguments of its constructor."""
    settings = getattr(summary, "settings", None)
    if not isinstance(settings, dict):
        raise GuideError(
            f"The summary network is a {type(summary).__name__} without `settings`.",
            "a network of the library, or one with an attribute `settings`: the keyword arguments "
            "of its constructor, without the layout.",
            "set `self.settings` in its `__init__`, or save its state_dict yourself.",
        )
    return {"kind": type(summary).__name__, **settings}


def networks_of(
    description: Mapping[str, Any],
    structure: ModelStructure,
    training: TrainingDistribution,
    classes: Sequence[type],
) -> Posterior:
    """Networks of the described classes and sizes, in float64, with weights of no meaning yet."""
    first = _first_posterior(description, structure, classes)
    if "sharpened" not in description:
        return first
    settings = dict(description["sharpened"])
    num_steps = settings.pop("num_steps")
    num_context = SharpenedPosterior.num_context(first, structure.num_latent)
    flow = ConditionalFlow(structure.num_latent, num_context, *flow_arguments(settings)).double()
    return SharpenedPosterior(first, flow, structure, training, num_steps)


def shapes_of(build: Callable[[], nn.Module], classes: Sequence[type]) -> dict[str, Size]:
    """Shapes of the weights of networks, by name.

    Without classes of the caller the networks are built on torch's device ``meta``, which takes
    no memory, whatever sizes a file states.
    """
    with seeded(0), torch.device("cpu" if classes else "meta"):
        return {name: x.shape for name, x in build().state_dict().items()}


def with_weights(build: Callable[[], Posterior], weights: Mapping[str, Tensor]) -> Posterior:
    """Networks with these weights; torch's random state stays as it is."""
    with seeded(0):
        posterior = build()
    posterior.load_state_dict(weights)
    return posterior


def _first_posterior(
    description: Mapping[str, Any],
    structure: ModelStructure,
    classes: Sequence[type],
) -> AmortizedPosterior:
    num_shared, num_latent = structure.num_shared, structure.num_latent
    encoder = encoder_of(description["encoder"], classes)
    settings = dict(description["summary"])
    kind = _class(networks, settings.pop("kind"), classes)
    if "cell" in settings:
        settings["cell"] = {"GRU": nn.GRU, "LSTM": nn.LSTM}[settings["cell"]]
    summary = kind(encoder.layout, **settings)
    num_summary = summary_size(summary) + encoder.num_static
    for_populations = bool(description["flow"]["has_priors"])
    features = PriorFeatures(num_latent) if for_populations else None
    num_features = PriorFeatures.num_features(num_latent) if for_populations else 0
    num_context = num_summary + num_shared + num_features
    flow = ConditionalFlow(num_latent, num_context, *flow_arguments(description["flow"]))
    shared_flow = None
    if "shared_flow" in description:
        shared_flow = ConditionalFlow(
            num_shared, num_summary, *flow_arguments(description["shared_flow"])
        )
    posterior = AmortizedPosterior(encoder, summary, flow, num_shared, shared_flow, features)
    return posterior.double()


def flow_arguments(settings: Mapping[str, Any]) -> tuple[FlowSizes, bool]:
    """Sizes of a described flow, and whether it has priors."""
    sizes = dict(settings)
    has_priors = sizes.pop("has_priors")
    return FlowSizes(**sizes), has_priors


def encoder_of(description: Mapping[str, Any], classes: Sequence[type]) -> Encoder:
    """An encoder of the described class and form, not yet fitted."""
    settings = dict(description)
    kind = _class(encode, settings.pop("encoding"), classes)
    chosen = settings.pop("encoding_settings")
    names = ("series", "channels", "covariates", "time_varying")
    form = Form(**settings | {name: tuple(settings[name]) for name in names})
    encoder: Encoder = kind(**chosen).encoder(form)
    return encoder


def _class(module: Any, name: str, classes: Sequence[type]) -> Any:
    """A class that the caller passes, or one of the library."""
    passed = {c.__name__: c for c in classes}
    kind = passed.get(name) or _public_class(module, name)
    if kind is None:
        raise GuideError(
            f"The guide was trained with a {name} that the library does not have.",
            f"the class, in `load_guide(..., classes=[{name}])`.",
            "import it from where it was defined for the training, and pass it.",
        )
    return kind


def _public_class(module: Any, name: str) -> Any:
    """An encoding or a network that a module of the library offers, and None for anything else."""
    thing = vars(module).get(name)
    is_public = isinstance(name, str) and not name.startswith("_")
    is_network = isinstance(thing, type) and (
        issubclass(thing, nn.Module) or hasattr(thing, "encoder")
    )
    package = f"{__package__.split('.')[0]}."
    is_ours = str(getattr(thing, "__module__", "")).startswith(package)
    return thing if is_public and is_network and is_ours else None
