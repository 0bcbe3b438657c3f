"""Search for the model: covariate effects, correlations, residual error, structures."""

from .model_searching import search as search
from .search_result import CandidateTest as CandidateTest
from .search_result import ModelSearch as ModelSearch
from .search_result import SearchStep as SearchStep
from .search_settings import SearchRule as SearchRule
