r"""Summary networks and conditional flows.

A summary network maps the tokens of an individual to a summary of fixed length. A conditional flow
is a distribution of the individual parameters given a summary.

A summary network reads ``(tokens, mask, static)`` of shapes ``(individual, token, feature)``,
``(individual, token)`` and ``(individual, static)``. Only tokens whose mask is True have an effect:
the summary of an individual depends neither on the values of the other tokens, nor on the amount of
padding, nor on the other individuals of the batch. A network that cannot do this raises an error
for data with masked tokens.
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
