r"""The learning phase: simulate, then minimise :math:`-E \log q(\phi \mid y, c)` over the
simulations.
"""

from .guide_training import train as train
from .loss_tracking import Tracker as Tracker
from .network_options import Networks as Networks
from .newton_training import sharpen as sharpen
from .options import TrainingOptions as TrainingOptions
