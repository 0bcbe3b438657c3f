from pyro_amortized.population.results.summary_table import ParameterRow


def test_summary_contains_all_quantities(fit):
    summary = fit.summary()
    text = str(summary)
    for word in (
        "omega[1]",
        "RSE",
        "95 % CI",
        "-2LL",
        "AIC",
        "BIC",
        "shrinkage",
        "Pareto k",
        "ESS",
    ):
        assert word in text
    assert len(summary.parameters) == 5
    assert len(summary.individuals) == 40
    assert all(p.lower < p.estimate < p.upper for p in summary.parameters)
    assert summary.parameters[2].lower > 0  # a standard deviation has no negative bound


def test_small_and_large_numbers_keep_their_digits():
    """Rates of 2e-6 per second are estimates, too, and bounds of 1e49 are not of 50 digits."""
    row = ParameterRow("rate", 2.134e-6, 1.2e-7, 1.9e-6, 4.76e48)
    assert row.cells == ("rate", "2.13e-06", "1.2e-07", "5.6", "1.9e-06", "4.76e+48")
    row = ParameterRow("typical", 1e-9, 13208.1082, -25887.4251, float("nan"))
    assert row.cells == ("typical", "1e-09", "13208.1082", "1.32e+15", "-25887.4251", "nan")
