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
