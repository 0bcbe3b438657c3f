"""Fits and what follows them."""

from dataclasses import replace

import torch

import pyro_amortized as pa
from pyro_amortized import diagnostics
from pyro_amortized.diagnostics import plots
from tests.exact import TRUTH, linear_program

from .kit import NAN, cohort, values


def _fit(k, model=linear_program, guide=None, data=None, **more):
    guide, data = k.guide if guide is None else guide, k.cohort if data is None else data
    return pa.fit_population(model, data, guide=guide, **{"num_draws": 100, "num_starts": 1} | more)


def _draw(k, population=TRUTH, **more):
    return pa.sample_individuals(k.guide.model, k.cohort, population, guide=k.guide, **more)


def _score(k, population=TRUTH, **more):
    return pa.marginal_likelihood(linear_program, k.cohort, population, guide=k.guide, **more)


def _in_wrong_unit(data):
    series = data["y"]
    measured = series.values.clone()
    measured[1, 1] *= 1e6
    return replace(data, series={"y": replace(series, values=measured)})


def _with(**more):
    return dict(TRUTH) | more


def _without(name):
    return {n: x for n, x in TRUTH.items() if n != name}


def _renamed(k):
    return pa.Cohort({"z": k.cohort["y"]})


def _chain(k, **more):
    return pa.AmortizedMCMC(linear_program, guide=k.guide, **more)


FITS = {
    f"fit: {n}": x
    for n, x in {
        "no starts": (lambda k: _fit(k, num_starts=0), "`num_starts`"),
        "half a start": (lambda k: _fit(k, num_starts=1.5), "`num_starts`"),
        "no draws": (lambda k: _fit(k, num_draws=0), "`num_draws`"),
        "fewer draws than none": (lambda k: _fit(k, num_draws=-10), "`num_draws`"),
        "half a draw": (lambda k: _fit(k, num_draws=100.5), "`num_draws`"),
        "draws in words": (lambda k: _fit(k, num_draws="all"), "`num_draws`"),
        "seed 1.5": (lambda k: _fit(k, seed=1.5), "`seed`"),
        "seed -1": (lambda k: _fit(k, seed=-1), "`seed`"),
        "no seed": (lambda k: _fit(k, seed=None), "`seed`"),
        "an unknown estimator": (lambda k: _fit(k, estimator="magic"), "'magic'"),
        "data are a tensor": (lambda k: _fit(k, data=values()), "Tensor"),
        "another series": (lambda k: _fit(k, data=_renamed(k)), "'y'"),
        "guide from a file name": (lambda k: _fit(k, guide="guide"), "AmortizedGuide"),
        "a model that is no function": (lambda k: _fit(k, model=None), "callable"),
        "start without a site": (lambda k: _fit(k, start=_without("omega")), "omega"),
        "start with a site too many": (
            lambda k: _fit(k, start=_with(beta=torch.ones(()))),
            "beta",
        ),
        "start outside the support": (
            lambda k: _fit(k, start=_with(sigma=torch.tensor(-1.0))),
            "sigma",
        ),
        "start that is not a number": (
            lambda k: _fit(k, start=_with(mean=torch.tensor([NAN, 0.0]))),
            "mean",
        ),
        "start of another shape": (lambda k: _fit(k, start=_with(mean=torch.zeros(3))), "mean"),
        "start in words": (lambda k: _fit(k, start=_with(mean="zero")), "mean"),
        "an unknown site fixed": (lambda k: _fit(k, fixed={"beta": torch.ones(())}), "beta"),
        "fixed outside the support": (
            lambda k: _fit(k, fixed={"sigma": torch.tensor(-1.0)}),
            "sigma",
        ),
        "everything fixed": (lambda k: _fit(k, fixed=TRUTH), "fixed"),
        "without a guide: data are a tensor": (
            lambda k: pa.fit_population(linear_program, values()),
            "Tensor",
        ),
        "without a guide: a guide in place of the data": (
            lambda k: pa.fit_population(linear_program, k.guide),
            "AmortizedGuide",
        ),
        "without a guide: train it again": (
            lambda k: pa.fit_population(linear_program, k.cohort, retrain=True),
            "`retrain=True` without a guide",
        ),
        "without a guide: a value in a wrong unit": (
            lambda k: pa.fit_population(linear_program, _in_wrong_unit(k.cohort)),
            "all but impossible",
        ),
        "without a guide: likelihood-free": (
            lambda k: pa.fit_population(linear_program, k.cohort, estimator="likelihood-free"),
            "without a guide",
        ),
        "without a guide: an unknown estimator": (
            lambda k: pa.marginal_likelihood(linear_program, k.cohort, TRUTH, estimator="magic"),
            "'magic'",
        ),
        "without a guide: a population without a site": (
            lambda k: pa.sample_individuals(linear_program, k.cohort, _without("mean")),
            "mean",
        ),
        "without a guide: no draws of the collapsed model": (
            lambda k: pa.marginalize(linear_program, num_draws=0),
            "`num_draws`",
        ),
        "draws: 24": (lambda k: _draw(k, num_draws=24), "at least 25"),
        "draws: none": (lambda k: _draw(k, num_draws=0), "`num_draws`"),
        "draws: a population without a site": (lambda k: _draw(k, _without("mean")), "mean"),
        "draws: seed 1.5": (lambda k: _draw(k, seed=1.5), "`seed`"),
        "score: a population outside the support": (
            lambda k: _score(k, _with(omega=torch.tensor([0.5, -0.5]))),
            "omega",
        ),
        "score: no draws": (lambda k: _score(k, num_draws=0), "`num_draws`"),
        "score: an unknown estimator": (lambda k: _score(k, estimator="magic"), "'magic'"),
        "population: no draws": (
            lambda k: pa.sample_population(k.fit, num_draws=0),
            "`num_draws`",
        ),
        "population: no proposals": (
            lambda k: pa.sample_population(k.fit, num_proposals=0),
            "`num_proposals`",
        ),
        "population: no fit": (lambda k: pa.sample_population(None), "PopulationFit"),
        "bootstrap: none": (lambda k: pa.bootstrap(k.fit, num_replicates=0), "`num_replicates`"),
        "bootstrap: few draws": (lambda k: pa.bootstrap(k.fit, num_draws=0), "`num_draws`"),
        "bootstrap: no fit": (lambda k: pa.bootstrap("fit"), "PopulationFit"),
        "search: no fit": (lambda k: pa.search("fit"), "PopulationFit"),
        "search: unknown covariate": (lambda k: pa.search(k.fit, covariates=["WT"]), "WT"),
        "search: unknown parameter": (lambda k: pa.search(k.fit, parameters=["CL"]), "CL"),
        "search: rule": (lambda k: pa.SearchRule(forward=2.0), "`forward`"),
        "search: criterion": (lambda k: pa.SearchRule(criterion="AIC"), "`criterion`"),
        "profile: unknown parameter": (
            lambda k: pa.profile_likelihood(k.fit, "beta"),
            "beta",
        ),
        "profile: level 1": (lambda k: pa.profile_likelihood(k.fit, "sigma", 1.0), "level"),
        "profile: level 95": (lambda k: pa.profile_likelihood(k.fit, "sigma", 95), "level"),
        "compare: nothing": (lambda k: pa.compare({}), "fit"),
        "compare: no fits": (lambda k: pa.compare({"a": 1, "b": 2}), "PopulationFit"),
        "test: a model against itself": (
            lambda k: pa.likelihood_ratio_test(k.fit, k.fit),
            "parameter",
        ),
        "chain: no draws": (lambda k: _chain(k, num_samples=0), "`num_samples`"),
        "chain: no chains": (lambda k: _chain(k, num_chains=0), "`num_chains`"),
        "chain: half a draw": (lambda k: _chain(k, num_samples=0.5), "`num_samples`"),
        "chain: asked before it ran": (lambda k: _chain(k).get_samples(), "no draws yet"),
        "chain: run with a tensor": (lambda k: _chain(k).run(values()), "Tensor"),
        "marginalize: no draws": (
            lambda k: pa.marginalize(linear_program, guide=k.guide, num_draws=0),
            "`num_draws`",
        ),
        "elbo: no particles": (lambda k: pa.MarginalELBO(0), "`num_particles`"),
        "elbo: nobody": (lambda k: pa.MarginalELBO(5, num_individuals=0), "`num_individuals`"),
        "sharpen: no simulations": (
            lambda k: pa.sharpen(k.guide, k.cohort, num_simulations=0),
            "`num_simulations`",
        ),
        "sharpen: no steps": (
            lambda k: pa.sharpen(k.guide, k.cohort, num_simulations=200, num_steps=0),
            "`num_steps`",
        ),
        "calibrate: nobody": (
            lambda k: diagnostics.calibrate(k.guide, k.cohort, num_individuals=0),
            "`num_individuals`",
        ),
        "calibrate: no ranks": (
            lambda k: diagnostics.calibrate(k.guide, k.cohort, num_ranks=0),
            "`num_ranks`",
        ),
        "calibrate: more ranks than draws": (
            lambda k: diagnostics.calibrate(k.guide, k.cohort, num_draws=50, num_ranks=99),
            "`num_ranks`",
        ),
        "diagnose: a guide without a design": (
            lambda k: diagnostics.diagnose(k.guide),
            "design",
        ),
        "diagnose: a cohort": (lambda k: diagnostics.diagnose(k.cohort), "Cohort"),
        "check_data: another series": (
            lambda k: diagnostics.check_data(k.guide, _renamed(k)),
            "'y'",
        ),
        "residuals: an unknown series": (
            lambda k: diagnostics.residuals(k.fit, series="z"),
            "'z'",
        ),
        "residuals: of a cohort": (lambda k: diagnostics.residuals(k.cohort), "Cohort"),
        "arviz: of a cohort": (lambda k: diagnostics.to_arviz(k.cohort), "Cohort"),
        "arviz: no draws": (
            lambda k: diagnostics.to_arviz(k.fit, num_draws=0),
            "`num_draws`",
        ),
        "report: in a folder that is not there": (
            lambda k: diagnostics.report(k.fit, k.folder / "none" / "report.html"),
            "none",
        ),
        "report: of a cohort": (
            lambda k: diagnostics.report(k.cohort, k.folder / "report.html"),
            "Cohort",
        ),
        "plot: an unknown series": (lambda k: plots.individual_fits(k.fit, series="z"), "'z'"),
        "plot: an unknown stratum": (
            lambda k: plots.visual_predictive_check(k.fit, stratify="sex"),
            "'sex'",
        ),
        "plot: no covariates": (lambda k: plots.effects_by_covariate(k.fit), "covariate"),
        "plot: no bins": (
            lambda k: plots.visual_predictive_check(k.fit, num_bins=0),
            "`num_bins`",
        ),
        "plot: of a cohort": (lambda k: plots.goodness_of_fit(k.cohort), "Cohort"),
        "minibatch: unknown individuals": (lambda k: k.fit.cohort[[0, 99]], "40 individuals"),
        "simulate: a population without a site": (
            lambda k: pa.simulate_population(k.fit.structure, k.cohort, _without("mean"), 1),
            "mean",
        ),
        "adapt: a plate that is not there": (
            lambda k: pa.read_structure(
                pa.adapt(linear_program, lambda c: (c,), plate="school", observations={"y": "y"}),
                cohort(4),
            ),
            "school",
        ),
    }.items()
}
