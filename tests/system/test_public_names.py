"""The names that users import: a name goes or comes only together with this list."""

import importlib
import subprocess
import sys

import pytest

import pyro_amortized

PUBLIC = {
    "pyro_amortized": (
        "AmortizedError AmortizedGuide AmortizedMCMC AmortizedWarning Cohort DesignEvaluation "
        "Doses Exposure IndividualPosteriors LevelFit MarginalELBO MarginalLikelihood "
        "ModelSearch ModelStructure Networks PopulationFit RandomMissing Recommendation "
        "Resample SearchRule Series Simulation Target Tracker TrainingDistribution "
        "TrainingHistory TrainingOptions adapt bootstrap compare concatenate datasets "
        "delta_method difference end_to_end evaluate_designs fit_levels fit_population "
        "likelihood_ratio_test load_fit load_guide load_levels marginal_likelihood marginalize "
        "nlme population profile_likelihood read_structure recommend sample_individuals "
        "sample_population score_tests search sharpen simulate simulate_population train"
    ),
    "pyro_amortized.applications": (
        "DesignEvaluation Exposure ModelSearch Recommendation SearchRule Simulation Target "
        "evaluate_designs recommend search simulate"
    ),
    "pyro_amortized.cohort": (
        "Cohort Design Doses Index Labels RECORDED Series after_dropout are_default_labels "
        "as_recorded as_scheduled check_indicators concatenate dropout_of end_to_end "
        "series_with_indicator with_recorded"
    ),
    "pyro_amortized.datasets": "indometh orange phenobarbital theophylline warfarin",
    "pyro_amortized.diagnostics": (
        "Calibration CaseInfluence Check DataCheck Diagnosis EventResiduals ModelCheck "
        "ParameterTable RandomEffectTests Residuals calibrate case_influence check_data "
        "check_model diagnose event_residuals individual_table influence model_drawing "
        "parameter_table random_effect_tests report residuals to_arviz"
    ),
    "pyro_amortized.diagnostics.plots": (
        "battery category_shares covariates cumulative_incidences distribution_errors "
        "effects_by_covariate event_curves event_errors expected_errors forest "
        "goodness_of_fit individual_fits "
        "observations prior_predictive profile random_effects rank_bands rank_histogram "
        "recommended_dose recovery searched_path simulated_bands training_curve "
        "visual_predictive_check"
    ),
    "pyro_amortized.encode": (
        "Deletion Encoded Encoder Encoding FillIn Form Indicator Standardize TimeLabels "
        "TokenEncoder Tokens"
    ),
    "pyro_amortized.errors": (
        "AmortizedError AmortizedWarning CohortError FitError GuideError ModelError "
        "SettingError TableError TrainingError"
    ),
    "pyro_amortized.missing": (
        "AllOf BelowLimit BernoulliMissing ChannelMissing Dropout Gaps Mechanism "
        "NumberMissing OneOf OnlySeries PatternsOf RandomMissing Remaskable Resample Schedule "
        "default_design nothing_missing"
    ),
    "pyro_amortized.networks": (
        "AttentionNetwork ConvolutionalNetwork DeepSet GridNetwork RecurrentNetwork "
        "TokenLayout Unmasked mlp summary_size"
    ),
    "pyro_amortized.nlme": (
        "AdaptiveRegimen Censored Delivery EventTimes Hazard MarkovCategories Measured "
        "Occasions Piecewise Regimen Rounded Simulated Solution Truncated adaptive "
        "additive_error allometric block_factor box_cox by_occasion categorical_effect "
        "cause_of_event combined_error completed euler_maruyama event_series "
        "exponential_hazard fixed_effects "
        "gompertz_hazard integrate integrated_hazard interval_series linear_effect logitnormal "
        "loglogistic_hazard lognormal lognormal_error merge_times metabolite occasions "
        "one_compartment piecewise_hazard pk_candidates power_effect proportional_error "
        "random_effects read_table recording_probability regimen scale_factor solve "
        "student_error study tau_leaping three_compartments to_table two_compartments "
        "weibull_hazard with_events"
    ),
}


def _own(package):
    """Functions and classes of the library that a package offers."""
    return {
        name
        for name, thing in vars(package).items()
        if not name.startswith("_")
        and str(getattr(thing, "__module__", "")).startswith("pyro_amortized")
    }


@pytest.mark.parametrize("package", PUBLIC)
def test_public_names(package):
    module = importlib.import_module(package)
    wanted = set(PUBLIC[package].split())
    names = {name for name in vars(module) if not name.startswith("_")}
    assert wanted <= names, f"gone: {sorted(wanted - names)}"
    extra = _own(module) - wanted
    assert not extra, f"new, add them to the list on purpose: {sorted(extra)}"


def test_the_package_has_as_many_names_as_the_documentation_says():
    assert len(PUBLIC["pyro_amortized"].split()) == 57
    assert pyro_amortized.__doc__


IMPORT = """
import sys, time
import pyro, pyro.infer, scipy.optimize, scipy.stats, joblib, tqdm.auto, torchdiffeq, pandas
import safetensors.torch
start = time.process_time()
import pyro_amortized
own = time.process_time() - start
heavy = {"arviz", "matplotlib", "numba", "xarray", "dask", "sympy", "IPython"} & set(sys.modules)
print(own, *sorted(heavy))
"""


@pytest.mark.slow
def test_importing_brings_no_heavy_library_and_does_no_work():
    """The processor time of our own modules: .2 to .4 s on an idle core.

    The bound is ten times as large, so that only work done at import, such as a compilation or a
    file that is read, can break it.
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", IMPORT], capture_output=True, text=True, check=True
    )
    own, *heavy = done.stdout.split()
    assert not heavy
    assert float(own) < 4.0
