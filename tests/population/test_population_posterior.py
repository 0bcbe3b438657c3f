import pytest

import pyro_amortized as pa
from tests.exact import exact_log_marginal, unpack


@pytest.mark.slow
def test_population_draws_against_the_exact_posterior(fit, linear):
    found = pa.sample_population(fit, num_draws=600, num_proposals=1000, seed=1)
    assert found.pareto_k < 0.7
    # The same weights from the closed form.
    structure = fit.structure
    kept = found.vectors[::10]
    mine = found.fit.log_likelihoods
    for vector in kept[:5]:
        exact = exact_log_marginal(linear, unpack(vector)).sum()
        assert abs(float(mine(vector).sum() - exact)) < 0.5
    assert found.draws["omega"].shape == (600, 2)
    draws = found.individuals()
    given = fit.individuals.moments()[1]
    assert draws.shape == (600, 40, 2)
    assert (draws.std(0) > 0.85 * given).all()
    assert draws.std(0).mean() > given.mean()  # wider than with the population held
    assert structure.latent_names == ["phi[0]", "phi[1]"]
