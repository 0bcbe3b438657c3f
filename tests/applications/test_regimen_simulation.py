import dataclasses
import math

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import quickstart
import torch

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.errors import AmortizedError, FitError, SettingError

from .kit import SD, STEADY, concentration, known, patients, weight_model

TWICE = nlme.regimen(100, 12, 3)


def test_the_typical_individual_has_the_exposure_of_the_formula():
    single = nlme.regimen(100, 24)
    result = pa.simulate(
        known(), single, uncertainty="none", times=[0, 2, 12], exposure=pa.Exposure(0, 24)
    )
    expected = [concentration(t) for t in (0, 2, 12)]
    assert result.prediction[single.label].flatten().tolist() == pytest.approx(expected)
    assert result.observation is None
    until = pa.simulate(known(), nlme.regimen(100), uncertainty="none", times=[0, 2, 12])
    whole = pa.Exposure(0, 12)
    within = pa.simulate(known(), nlme.regimen(100), uncertainty="none", exposure=whole)
    assert torch.equal(*(x.exposures["auc"]["100 at 0"] for x in (until, within)))
    steady = pa.simulate(known(), TWICE, uncertainty="none", exposure=STEADY)
    assert float(steady.exposures["auc"][TWICE.label]) == pytest.approx(100 / 4, rel=1e-5)
    average = float(steady.exposures["average"][TWICE.label])
    assert average == pytest.approx(100 / 4 / 12, rel=1e-5)


def test_individuals_vary_as_the_population_says():
    result = pa.simulate(known(), TWICE, num_individuals=2000, exposure=STEADY, seed=1)
    assert result.uncertainty == "individuals"
    log_auc = result.exposures["auc"][TWICE.label].log()
    error = SD / math.sqrt(2000)
    assert abs(float(log_auc.mean()) - math.log(25)) < 4 * error
    assert abs(float(log_auc.std()) - SD) < 4 * error / math.sqrt(2)
    noise = result.observation[TWICE.label] / result.prediction[TWICE.label] - 1
    noise = noise[..., 1:].flatten()
    assert abs(float(noise.std()) - 0.1) < 4 * 0.1 / math.sqrt(2 * len(noise))


def test_uncertainty_of_the_population_widens_the_bands():
    errors = {"typical": [1.2, 0.0, 0.0], "omega": [0.0] * 3, "b": 0.0}
    uncertain = known(standard_errors=errors)
    options = {"num_individuals": 100, "num_draws": 200, "exposure": STEADY, "seed": 1}
    result = pa.simulate(uncertain, TWICE, **options)
    assert result.uncertainty == "population and individuals"
    log_auc = result.exposures["auc"][TWICE.label].log()
    variance = SD**2 + 0.3**2  # of the individuals, and of the logarithm of the typical CL
    assert float(log_auc.std()) == pytest.approx(math.sqrt(variance), rel=0.15)
    assert float(log_auc.mean(1).std()) == pytest.approx(0.3, rel=0.25)
    assert {"median_low", "median_high"} <= set(result.table)
    narrow = pa.simulate(uncertain, TWICE, uncertainty="individuals", **options)
    assert narrow.num_draws == 1
    with pytest.raises(FitError, match="uncertainty of the population parameters is not known"):
        pa.simulate(known(), TWICE, uncertainty="population and individuals")


def test_regimens_are_compared_on_the_same_individuals():
    plans = {"half": nlme.regimen(50, 12, 3), "whole": TWICE}
    result = pa.simulate(known(), plans, num_individuals=50, seed=1)
    half, whole = (result.exposures["auc"][name] for name in plans)
    assert torch.allclose(2 * half, whole)
    table = result.table.set_index(["regimen", "metric"])
    assert table.loc[("whole", "auc"), "median"] == pytest.approx(float(whole.quantile(0.5)))
    assert "whole" in repr(result)
    assert "<table>" in result._repr_html_()


def test_tables_and_bands_have_a_row_for_every_value():
    result = pa.simulate(
        known(), TWICE, num_individuals=30, times=[1, 2], exposure=pa.Exposure(above=1.0)
    )
    frame = result.to_dataframe()
    assert list(frame) == ["regimen", "draw", "individual", "time", "prediction", "observation"]
    assert len(frame) == 60
    one = frame[(frame["individual"] == "7") & (frame["time"] == 2)]
    assert float(one["prediction"].iloc[0]) == float(result.prediction[TWICE.label][0, 6, 1])
    assert len(result.exposure_table()) == 30
    bands = result.bands(0.5, residual_error=False)
    values = result.prediction[TWICE.label][0]
    assert bands["low"].to_numpy() == pytest.approx(np.quantile(values.numpy(), 0.25, axis=0))
    assert len(result.bands(by_individual=True)) == 60
    share = result.probability("auc", low=20)["probability"].iloc[0]
    assert share == float((result.exposures["auc"][TWICE.label] >= 20).double().mean())
    with pytest.raises(SettingError, match="`metric` is 'time below'"):
        result.probability("time below", low=1)
    with pytest.raises(SettingError, match="`level` is 2"):
        result.bands(2)


def test_seen_individuals_under_another_regimen():
    """Patients whose samples are informative: the posterior lies near the truth."""
    design = nlme.study([1, 2, 4, 8, 12, 18, 24], nlme.regimen(100), num_individuals=6, series="y")
    structure = pa.read_structure(known().model, design)
    cohort = pa.simulate_population(structure, design, known().estimates, 3)
    options = {"conditional_on": cohort, "exposure": STEADY, "num_draws": 100, "seed": 1}
    result = pa.simulate(known(), TWICE, **options)
    assert result.seen
    assert result.ids == cohort.ids
    means = pa.simulate(known(), TWICE, uncertainty="none", **options)
    auc, center = (x.exposures["auc"][TWICE.label] for x in (result, means))
    assert bool((auc.log().std(0) < 0.8 * SD).all())
    assert bool(((auc.log().mean(0) - center.log()[0]).abs() < 0.1).all())
    uncertain = known(standard_errors={"typical": [0.1, 1.0, 0.1]})
    wider = pa.simulate(uncertain, TWICE, **options)
    assert wider.uncertainty == "population and individuals"
    assert float((wider.exposures["auc"][TWICE.label].log() - auc.log()).mean(0).abs().max()) < 0.1


def test_earlier_doses_act_where_a_start_is_given():
    options = {"uncertainty": "none", "times": [0.5, 2.0], "exposure": pa.Exposure(0, 12)}
    data = patients(observed=[[False] * 3])
    washed = pa.simulate(known(), nlme.regimen(100), conditional_on=data, **options)
    after = pa.simulate(known(), nlme.regimen(100), conditional_on=data, start=24.0, **options)
    (name,) = washed.regimens
    first = [concentration(0.5), concentration(2.0)]
    # The posterior mean without samples is that of the population, up to Monte Carlo error.
    both = [x + concentration(24 + t) for x, t in zip(first, (0.5, 2.0), strict=True)]
    assert washed.prediction[name].flatten().tolist() == pytest.approx(first, rel=0.03)
    assert after.prediction[name].flatten().tolist() == pytest.approx(both, rel=0.03)
    with pytest.raises(AmortizedError, match="has a dose at 0, and the regimen begins at 0"):
        pa.simulate(known(), nlme.regimen(100), conditional_on=data, start=0.0, **options)


def test_a_design_in_the_place_of_regimens():
    design = nlme.study([1, 12], nlme.regimen(100), num_individuals=5, series="y")
    result = pa.simulate(known(), design, seed=1)
    assert result.regimens == ("design",)
    assert len(result.ids) == 5
    assert result.amounts["design"].shape == (1, 5, 1)
    with pytest.raises(SettingError, match="`num_individuals` together with a design"):
        pa.simulate(known(), design, num_individuals=3)
    with pytest.raises(SettingError, match="at steady state"):
        pa.simulate(known(), design, exposure=STEADY)


def test_covariates_are_given_or_drawn():
    values = {"cl": 4.0, "omega": 0.0001, "slope": 0.75, "sigma": 0.1}
    population = pa.population(weight_model, values)
    plan = nlme.regimen(2, 12, per="weight")
    options = {"exposure": STEADY, "num_individuals": 2, "seed": 1}
    result = pa.simulate(population, plan, covariates={"weight": [70.0, 140.0]}, **options)
    auc = result.exposures["auc"][plan.label][0]
    expected = [140 / 4, 280 / (4 * 2**0.75)]
    assert auc.tolist() == pytest.approx(expected, rel=2e-3)
    cohort = patients(3, covariates={"weight": torch.tensor([50.0, 60.0, 70.0])})
    drawn = pa.population(weight_model, values, cohort=cohort)
    amounts = pa.simulate(drawn, plan, **options | {"num_individuals": 40}).amounts[plan.label]
    assert set(amounts.flatten().tolist()) == {100.0, 120.0, 140.0}
    with pytest.raises(AmortizedError, match="no covariate 'weight'"):
        pa.simulate(population, nlme.regimen(100, 12))
    with pytest.raises(SettingError, match="The covariate 'height' is given"):
        pa.simulate(drawn, plan, covariates={"height": 1.0})
    with pytest.raises(SettingError, match="Covariate 'weight' has shape"):
        pa.simulate(population, plan, covariates={"weight": [1.0, 2.0, 3.0]}, **options)


def test_a_deterministic_site_is_predicted():
    result = pa.simulate(known(), TWICE, uncertainty="none", quantity="effect", times=[1, 2])
    y = pa.simulate(known(), TWICE, uncertainty="none", times=[1, 2]).prediction[TWICE.label]
    assert torch.allclose(result.prediction[TWICE.label], y / (1 + y))
    noisy = pa.simulate(known(), TWICE, num_individuals=5, quantity="effect", times=[1, 2])
    assert noisy.observation is None
    with pytest.raises(SettingError, match="is not observed"):
        noisy.bands(residual_error=True)
    with pytest.raises(AmortizedError, match="no site of the name 'none'"):
        pa.simulate(known(), TWICE, quantity="none")


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((3, TWICE), {}, "`fit` is an int"),
        ((None, 3), {}, "`regimens` is an int"),
        ((None, [3]), {}, "is an int"),
        ((None, {}), {}, "There are no regimens"),
        ((None, TWICE), {"uncertainty": "all"}, "`uncertainty` is 'all'"),
        ((None, TWICE), {"times": [2, 1]}, "increasing finite times"),
        ((None, nlme.regimen(100)), {}, "A single dose"),
        ((None, TWICE), {"num_individuals": 0}, "`num_individuals` is 0"),
        ((None, TWICE), {"conditional_on": 3}, "`conditional_on` is an int"),
        ((None, TWICE), {"exposure": 3}, "`exposure` is an int"),
        ((None, TWICE), {"conditional_on": patients(), "occasion": "next"}, "`occasion` is"),
        ((None, TWICE), {"conditional_on": patients(), "start": "24"}, "`start` is '24'"),
        ((None, TWICE), {"start": 24.0}, "the individuals are new ones"),
        ((None, TWICE), {"times": "abc"}, "increasing finite times"),
        ((None, [TWICE, TWICE]), {}, "more than one '100 every 12, 3 doses'"),
    ],
)
def test_mistakes_are_named(arguments, options, message):
    fit, regimens = arguments
    with pytest.raises(AmortizedError, match=message):
        pa.simulate(known() if fit is None else fit, regimens, **options)


@pytest.fixture(scope="module")
def fit():
    return pa.fit_population(quickstart.model, quickstart.cohort, num_draws=200, seed=1)


def test_fits_and_draws_of_their_population(fit):
    """The spread of the median over the populations is that of the draws."""
    plan = nlme.regimen(320, 24)
    options = {"num_individuals": 200, "num_draws": 60, "exposure": STEADY, "seed": 1}
    draws = pa.sample_population(fit, num_draws=60, num_proposals=300, seed=1)
    replicates = pa.bootstrap(fit, num_replicates=20, num_draws=100, seed=1)
    for source, log_cl in (
        (fit, None),
        (draws, draws.draws["typical"][:, 1]),
        (replicates, replicates.estimates["typical"][:, 1]),
    ):
        result = pa.simulate(source, plan, **options)
        assert result.uncertainty == "population and individuals"
        log_auc = result.exposures["auc"][plan.label].log().mean(1)
        sd = float(fit.standard_errors["typical"][1]) if log_cl is None else float(log_cl.std())
        noise = float(fit.estimates["omega"][1]) / math.sqrt(200)
        assert float(log_auc.std()) == pytest.approx(math.hypot(sd, noise), rel=0.3)


def test_a_fit_recommends_and_plans(fit):
    one = quickstart.cohort[[0]]
    target = pa.Target.auc(100, 150, window=pa.Exposure(0, 24))
    result = pa.recommend(fit, one, (10.0, 2000.0), target=target, num_draws=500)
    low, _, high = result.metric_quantiles[:, 0].tolist()
    assert 95 < low < high < 155
    both = pa.recommend({"a": fit, "b": fit}, one, (10.0, 2000.0), target=target, num_draws=500)
    assert float(both.model_weights["a"][0]) == pytest.approx(0.5, abs=0.05)
    with pytest.raises(SettingError, match="The covariate 'height' is given"):
        pa.recommend(fit, {"height": 1.0}, (10.0, 2000.0), target=target)


def scaled(cohort):
    """A quantity depends on a population parameter on which the observations do not depend."""
    factor = pyro.sample("factor", dist.LogNormal(0.0, 1.0))
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(0.0, 0.1))
        y = cohort["y"]
        f = phi.exp().unsqueeze(-1) * torch.ones_like(y.times)
        pyro.deterministic("scaled", f * factor.unsqueeze(-1))
        error = nlme.additive_error(f, torch.tensor(0.1))
        pyro.sample("y", error.mask(y.observed).to_event(1), obs=y.values)


def test_a_quantity_varies_with_every_population_parameter():
    """Its logarithm is the sum of two normal quantities. It had the first draw of the population
    for all draws.
    """
    population = pa.population(scaled, {"factor": 2.0}, standard_errors={"factor": 1.0})
    result = pa.simulate(
        population,
        nlme.regimen(1.0),
        num_individuals=10,
        times=[0.0, 1.0],
        quantity="scaled",
        num_draws=300,
        seed=1,
    )
    logs = result.prediction["1 at 0"][:, :, 0].log()
    between = logs.mean(1)  # by draw of the population
    assert float(between.mean()) == pytest.approx(math.log(2.0), abs=4 * 0.5 / math.sqrt(300))
    assert float(between.std()) == pytest.approx(0.5, rel=4 / math.sqrt(600))
    within = (logs - between.unsqueeze(1)).square().sum() / (300 * 9)
    assert float(within.sqrt()) == pytest.approx(0.1, rel=0.1)


def test_covariates_may_be_a_table_or_names_of_categories():
    values = {"cl": 4.0, "omega": 0.3, "slope": 0.75, "sigma": 0.1}
    population = pa.population(weight_model, values)
    table = pd.DataFrame({"weight": [50.0, 70.0, 90.0]})
    result = pa.simulate(population, TWICE, covariates=table, uncertainty="none", exposure=STEADY)
    expected = [25 / (w / 70) ** 0.75 for w in table["weight"]]
    found = result.exposures["auc"][TWICE.label].flatten().tolist()
    assert found == pytest.approx(expected, rel=1e-5)
    with pytest.raises(AmortizedError, match="no category 'heavy'"):
        pa.simulate(population, TWICE, num_individuals=2, covariates={"weight": "heavy"})
    design = nlme.study([1.0], covariates={"weight": [0.0, 1.0]}, series="y")
    assert len(design) == 2
    named = dataclasses.replace(design, categories={"weight": ("light", "heavy")})
    of_names = pa.population(weight_model, values, cohort=named)
    given = {"weight": ["heavy", "heavy"]}
    two = pa.simulate(of_names, TWICE, covariates=given, uncertainty="none", exposure=STEADY)
    assert float(two.exposures["auc"][TWICE.label][0, 0]) == pytest.approx(
        25 / (1 / 70) ** 0.75, rel=1e-4
    )
