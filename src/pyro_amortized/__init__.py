r"""Amortized inference for nonlinear mixed-effects models written in Pyro."""

from . import datasets as datasets
from . import nlme as nlme
from .cohort import Cohort as Cohort
from .cohort import Doses as Doses
from .cohort import Series as Series
from .cohort import concatenate as concatenate
from .errors import AmortizedError as AmortizedError
from .errors import AmortizedWarning as AmortizedWarning
from .fit import PopulationFit as PopulationFit
from .fit import fit_population as fit_population
from .guide import AmortizedGuide as AmortizedGuide
from .guide import load_guide as load_guide
from .history import TrainingHistory as TrainingHistory
from .individual import IndividualPosteriors as IndividualPosteriors
from .individual import sample_individuals as sample_individuals
from .marginal import MarginalLikelihood as MarginalLikelihood
from .marginal import marginal_likelihood as marginal_likelihood
from .marginal import marginalize as marginalize
from .missing import RandomMissing as RandomMissing
from .missing import Resample as Resample
from .simulate import TrainingDistribution as TrainingDistribution
from .structure import ModelStructure as ModelStructure
from .structure import read_structure as read_structure
from .train import TrainingOptions as TrainingOptions
from .train import train as train
from .uncertainty import delta_method as delta_method
