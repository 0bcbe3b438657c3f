r"""Encoding, summary network and flow of a guide: which ones, and how large."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from torch import nn

from ..encode import Encoder, Encoding, Tokens
from ..errors import TrainingError
from ..guide.amortized_posterior import AmortizedPosterior, PriorFeatures
from ..networks import DeepSet, GridNetwork, TokenLayout, summary_size
from ..networks.conditional_flow import ConditionalFlow, FlowSizes
from ..runtime.arguments import check_count

SMALLEST_SIZES = {
    "width": 1,
    "depth": 1,
    "num_summary": 1,
    "set_width": 1,
    "num_layers": 0,
    "num_bins": 2,
    "layer_width": 1,
}
# Parameters up to which a spline layer has 64 hidden units for each of them, where the flow is not
# told the priors; with priors 32 units gave the same loss in four fifths of the time.
MAX_WIDE = 4


@dataclass(frozen=True)
class Networks:
    r"""Encoding, summary network and flow; what is None is chosen from the shape of the problem.

    Args:
        encoding: How incomplete data become numbers, for instance ``Indicator()``.
        summary: The summary network: a class or function of a
            :class:`~pyro_amortized.networks.TokenLayout`, for instance ``AttentionNetwork`` or
            ``partial(AttentionNetwork, width=128)``. Default: ``GridNetwork`` on a common time
            grid, else ``DeepSet``, of the sizes below.
        grid: Read the values in fixed places of a time grid. Default: where all individuals of the
            design share their times.
        width: Width of the hidden layers.
        depth: Hidden layers between context and head. Default: 1 behind a grid where the context
            is the summary alone, else 2.
        num_summary: Length of the summary of a set.
        set_width: Width of the layers that read single tokens.
        num_layers: Spline layers of the flow; 0 gives a Gaussian.
        num_bins: Bins of a spline.
        layer_width: Hidden units of a spline layer per parameter. Default: 64 up to four
            parameters of a model without population parameters, else 32.
        learn_shared: Learn also q(c | y), the posterior of the shared parameters given one
            individual's data, which the likelihood-free estimator needs. Default: where the
            observations have no density.

    Raises:
        TrainingError: A size is not positive.
    """

    encoding: Encoding = field(default_factory=Tokens)
    summary: Callable[[TokenLayout], nn.Module] | None = None
    grid: bool | None = None
    width: int = 128
    depth: int | None = None
    num_summary: int = 64
    set_width: int = 64
    num_layers: int = 2
    num_bins: int = 8
    layer_width: int | None = None
    learn_shared: bool | None = None

    def __post_init__(self) -> None:
        for name, least in SMALLEST_SIZES.items():
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name), least=least, error=TrainingError)

    @property
    def reads_windows(self) -> bool:
        """Whether values near the times of a common schedule have fixed places."""
        return self.grid is None and self.summary is None and isinstance(self.encoding, Tokens)

    @property
    def description(self) -> dict[str, Any]:
        """The choices as JSON."""
        encoding: Any = self.encoding
        constructor: Any = self.summary
        summary = None
        if constructor is not None:
            keywords = {n: str(x) for n, x in getattr(constructor, "keywords", {}).items()}
            constructor = getattr(constructor, "func", constructor)
            summary = [getattr(constructor, "__name__", str(constructor)), keywords]
        return vars(self) | {
            "encoding": [type(encoding).__name__, asdict(encoding)],
            "summary": summary,
        }

    def build(
        self, encoder: Encoder, num_latent: int, num_shared: int, for_populations: bool = False
    ) -> AmortizedPosterior:
        r"""Untrained networks for an encoder.

        Args:
            encoder: The encoder.
            num_latent: Number of individual parameters.
            num_shared: Number of shared parameters.
            for_populations: Whether the flow is told the distribution of the individual parameters
                given the population.
        """
        default: Callable[[TokenLayout], nn.Module] = partial(GridNetwork, width=self.width)
        if encoder.form.num_places == 0:
            default = partial(DeepSet, num_summary=self.num_summary, width=self.set_width)
        summary = (self.summary or default)(encoder.layout)
        features = PriorFeatures(num_latent) if for_populations else None
        num_features = PriorFeatures.num_features(num_latent) if for_populations else 0
        is_simple = isinstance(summary, GridNetwork) and num_shared + num_features == 0
        num_summary = summary_size(summary) + encoder.num_static

        def flow(num: int, num_context: int, has_priors: bool = False) -> ConditionalFlow:
            is_wide = num <= MAX_WIDE and not has_priors
            sizes = FlowSizes(
                num_layers=self.num_layers,
                width=self.width,
                depth=self.depth or (1 if is_simple else 2),
                num_bins=self.num_bins,
                layer_width=self.layer_width or (64 if is_wide else 32),
            )
            return ConditionalFlow(num, num_context, sizes, has_priors)

        individual_flow = flow(num_latent, num_summary + num_shared + num_features, for_populations)
        shared_flow = flow(num_shared, num_summary) if self.learn_shared and num_shared else None
        return AmortizedPosterior(
            encoder, summary, individual_flow, num_shared, shared_flow, features
        )
