r"""The learning phase: simulate, then minimise :math:`-E \log q(\phi \mid y, c)` over the
simulations.
"""

from .guide_training import train as train
from .newton_training import sharpen as sharpen
from .options import Networks as Networks
from .options import TrainingOptions as TrainingOptions
from .tracker import Tracker as Tracker
