"""Standard deviations that cannot be distinguished from zero."""

import math

from pyro_amortized.population import vanishing_deviations as module
from pyro_amortized.population.exact_likelihood import ExactLikelihood
from pyro_amortized.population.fitted_following import follow


def test_a_change_that_is_no_number_is_not_taken_for_none(fit, monkeypatch):
    likelihood = ExactLikelihood(fit.individuals, follow(fit.individuals, fit.search.scale))
    model = (fit.structure, fit.cohort, likelihood, fit.vector)
    assert not module.vanishing_coordinates(*model, 0).any()
    monkeypatch.setattr(module, "_change", lambda gains: module.Change(0.0, 0.0, 0.0))
    assert module.vanishing_coordinates(*model, 0).any()
    for total, median in ((math.nan, 0.0), (0.0, math.nan)):
        unknown = module.Change(total, 0.0, median)
        monkeypatch.setattr(module, "_change", lambda gains, unknown=unknown: unknown)
        assert not module.vanishing_coordinates(*model, 0).any()
