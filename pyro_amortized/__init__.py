r"""Amortized inference for nonlinear mixed-effects models written in Pyro.

:func:`train` trains a guide for a model and a :class:`Cohort`, :func:`fit_population` estimates the
population parameters with it, and :func:`sample_individuals` draws from the posterior of each
individual. Models are written with :mod:`pyro_amortized.nlme`; example data are in
:mod:`pyro_amortized.datasets`, checks and figures in :mod:`pyro_amortized.diagnostics`.
"""

from . import datasets as datasets
from . import nlme as nlme
from .applications import DesignEvaluation as DesignEvaluation
from .applications import Exposure as Exposure
from .applications import ModelSearch as ModelSearch
from .applications import Recommendation as Recommendation
from .applications import SearchRule as SearchRule
from .applications import Simulation as Simulation
from .applications import Target as Target
from .applications import evaluate_designs as evaluate_designs
from .applications import recommend as recommend
from .applications import search as search
from .applications import simulate as simulate
from .cohort import Cohort as Cohort
from .cohort import Doses as Doses
from .cohort import Series as Series
from .cohort import concatenate as concatenate
from .errors import AmortizedError as AmortizedError
from .errors import AmortizedWarning as AmortizedWarning
from .guide import AmortizedGuide as AmortizedGuide
from .guide import load_guide as load_guide
from .guide.training_distributions import TrainingDistribution as TrainingDistribution
from .guide.training_history import TrainingHistory as TrainingHistory
from .missing import RandomMissing as RandomMissing
from .missing import Resample as Resample
from .model import ModelStructure as ModelStructure
from .model import read_structure as read_structure
from .model.adapter import adapt as adapt
from .model.adapter import end_to_end as end_to_end
from .numerics.laplace import delta_method as delta_method
from .population.amortized_mcmc import AmortizedMCMC as AmortizedMCMC
from .population.bootstrapping import bootstrap as bootstrap
from .population.bootstrapping import simulate_population as simulate_population
from .population.comparison.fixed_parameter_tests import score_tests as score_tests
from .population.comparison.likelihood_profiles import profile_likelihood as profile_likelihood
from .population.comparison.model_comparison import compare as compare
from .population.comparison.model_comparison import difference as difference
from .population.comparison.model_comparison import likelihood_ratio_test as likelihood_ratio_test
from .population.estimation import fit_population as fit_population
from .population.level_fit import fit_levels as fit_levels
from .population.levels.level_files import load_levels as load_levels
from .population.levels.level_result import LevelFit as LevelFit
from .population.likelihood.likelihood_estimate import MarginalLikelihood as MarginalLikelihood
from .population.likelihood.likelihood_estimate import marginal_likelihood as marginal_likelihood
from .population.marginal_elbo import MarginalELBO as MarginalELBO
from .population.posterior.population_posterior import sample_population as sample_population
from .population.results.fit_files import load_fit as load_fit
from .population.results.fit_result import PopulationFit as PopulationFit
from .population.search.collapsed_model import marginalize as marginalize
from .sampling.individual_draws import sample_individuals as sample_individuals
from .sampling.individuals import IndividualPosteriors as IndividualPosteriors
from .training import Networks as Networks
from .training import Tracker as Tracker
from .training import TrainingOptions as TrainingOptions
from .training import sharpen as sharpen
from .training import train as train
