r"""The learning phase: simulate, then minimise :math:`-E \log q(\phi \mid y, c)` over the
simulations.
"""

from .options import Networks as Networks
from .options import TrainingOptions as TrainingOptions
from .sharpen import sharpen as sharpen
from .tracker import Tracker as Tracker
from .train import train as train
