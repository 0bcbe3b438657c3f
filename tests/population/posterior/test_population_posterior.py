import pytest

from tests.exact import exact_log_marginal, unpack


@pytest.mark.slow
def test_population_draws_against_the_exact_posterior(fit, population_draws, linear):
    posterior = population_draws
    assert posterior.pareto_k < 0.7
    # The same weights from the closed form.
    structure = fit.structure
    kept = posterior.vectors[::40]
    log_likelihoods = posterior.fit.log_likelihoods
    for vector in kept[:5]:
        exact = exact_log_marginal(linear, unpack(vector)).sum()
        assert abs(float(log_likelihoods(vector).sum() - exact)) < 0.5
    assert posterior.draws["omega"].shape == (200, 2)
    draws = posterior.individuals()
    given = fit.individuals.moments()[1]
    assert draws.shape == (200, 40, 2)
    assert (draws.std(0) > 0.85 * given).all()
    assert draws.std(0).mean() > given.mean()  # wider than with the population held
    assert structure.latent_names == ["phi[0]", "phi[1]"]


def test_draws_are_printed_as_a_table(population_draws):
    text = repr(population_draws)
    assert text.startswith("200 draws of the population, of weighted ones with ESS ")
    values = population_draws.draws["sigma"]
    row = next(line for line in text.splitlines() if line.startswith("sigma")).split()
    assert abs(float(row[1]) - float(values.mean())) < 1e-4
    assert abs(float(row[4]) - float(values.quantile(0.5))) < 1e-4
