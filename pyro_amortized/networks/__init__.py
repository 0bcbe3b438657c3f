r"""Summary networks: tokens with a mask -> a summary of fixed length.

Every network honours the mask exactly: neither what stands under it, nor how much padding there is,
nor the rest of the batch changes the summary of an individual; one that cannot refuses. They know
no data, only ``(tokens, mask, static)``: shapes ``(individual, token, feature)``, ``(individual,
token)``, ``(individual, static)``.
"""

from .grid_network import GridNetwork as GridNetwork
from .multilayer_perceptron import mlp as mlp
from .sequence_networks import ConvolutionalNetwork as ConvolutionalNetwork
from .sequence_networks import RecurrentNetwork as RecurrentNetwork
from .set_networks import AttentionNetwork as AttentionNetwork
from .set_networks import DeepSet as DeepSet
from .token_layout import TokenLayout as TokenLayout
from .token_layout import summary_size as summary_size
from .unmasked_network import Unmasked as Unmasked
