r"""Reads a Pyro model: the roles of its sites, its densities and its simulations.

No other package reads Pyro programs.
"""

from .batch_layout import sites_without_layout as sites_without_layout
from .density_check import check_density_near_prior as check_density_near_prior
from .embedding import collapsed_log_density as collapsed_log_density
from .embedding import constrain_individuals as constrain_individuals
from .embedding import log_prob_by_individual as log_prob_by_individual
from .joint_runs import joint_runs as joint_runs
from .observation_density import Estimator as Estimator
from .observation_density import IndividualLogDensity as IndividualLogDensity
from .outcome_kinds import OutcomeKind as OutcomeKind
from .outcome_kinds import innermost as innermost
from .pointwise_densities import at_limits as at_limits
from .pointwise_densities import individual_prior_terms as individual_prior_terms
from .pointwise_densities import predicted_moments as predicted_moments
from .pointwise_densities import site_values as site_values
from .pointwise_densities import value_log_probs as value_log_probs
from .pointwise_densities import values_by_series as values_by_series
from .population_parameters import Population as Population
from .program_reader import read_structure as read_structure
from .recording_check import check_recorded as check_recorded
from .sites import PLATE as PLATE
from .sites import Model as Model
from .sites import entry_names as entry_names
from .structure import ModelStructure as ModelStructure
