r"""The population: marginal likelihood, fit, uncertainty, comparison and posterior draws.

``pyro_amortized.population(model, estimates)`` is
:func:`~pyro_amortized.population.known_population.population`: the package can be called, because
the word for known parameters of a population is its own name.
"""

import sys
from collections.abc import Mapping
from types import ModuleType

from ..cohort import Cohort
from ..model import Model
from .known_population import GivenValue, KnownPopulation
from .known_population import population as _population


class _CallablePackage(ModuleType):
    """This package, which calls :func:`population`."""

    def __call__(
        self,
        model: Model,
        estimates: Mapping[str, GivenValue] | None = None,
        *,
        standard_errors: Mapping[str, GivenValue] | None = None,
        cohort: Cohort | None = None,
    ) -> KnownPopulation:
        """:func:`~pyro_amortized.population.known_population.population`."""
        return _population(model, estimates, standard_errors=standard_errors, cohort=cohort)


sys.modules[__name__].__class__ = _CallablePackage
