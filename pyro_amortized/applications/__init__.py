r"""What follows a fit: simulation under regimens, individual doses, designs of studies, search
for the model.
"""

from .design_evaluation import evaluate_designs as evaluate_designs
from .design_result import DesignEvaluation as DesignEvaluation
from .dose_recommendation import recommend as recommend
from .exposure import Exposure as Exposure
from .model_search import ModelSearch as ModelSearch
from .model_search import SearchRule as SearchRule
from .model_search import search as search
from .recommendation_result import Recommendation as Recommendation
from .regimen_simulation import simulate as simulate
from .simulation_result import Simulation as Simulation
from .targets import Target as Target
