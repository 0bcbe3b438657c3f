r"""Summary networks: tokens with a mask -> a summary of fixed length.

Every network honours the mask exactly: neither what stands under it, nor how much padding there is,
nor the rest of the batch changes the summary of an individual; one that cannot refuses. They know
no data, only ``(tokens, mask, static)``: shapes ``(individual, token, feature)``, ``(individual,
token)``, ``(individual, static)``.
"""

from .grid import GridNetwork as GridNetwork
from .grid import Unmasked as Unmasked
from .layout import TokenLayout as TokenLayout
from .layout import mlp as mlp
from .layout import summary_size as summary_size
from .sequences import ConvolutionalNetwork as ConvolutionalNetwork
from .sequences import RecurrentNetwork as RecurrentNetwork
from .sets import AttentionNetwork as AttentionNetwork
from .sets import DeepSet as DeepSet
