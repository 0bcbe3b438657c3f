r"""Pyro program -> :class:`ModelStructure`: the only reader of Pyro programs."""

from .model import Estimator as Estimator
from .model import IndividualLogDensity as IndividualLogDensity
from .model import ModelStructure as ModelStructure
from .read import check_recorded as check_recorded
from .read import read_structure as read_structure
from .roles import Population as Population
from .sites import PLATE as PLATE
from .sites import Model as Model
from .values import at_limits as at_limits
from .values import individual_prior_terms as individual_prior_terms
from .values import predicted_moments as predicted_moments
from .values import value_log_probs as value_log_probs
from .within import collapsed_log_density as collapsed_log_density
from .within import constrain_individuals as constrain_individuals
from .within import log_prob_by_individual as log_prob_by_individual
