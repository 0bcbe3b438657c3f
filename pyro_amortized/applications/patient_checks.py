r"""Whether a patient lies within what a model knows.

Three things are compared with the population: covariates with the range in the data of the fit,
the parameters of the patient with their distribution in the population, and the samples with what
the posterior of the patient predicts for them.
"""

from dataclasses import dataclass

import scipy.special
import torch
from torch import Tensor

from ..cohort import Cohort
from ..errors import AmortizedError
from ..model import at_limits, predicted_moments
from ..model.individual_priors import individual_priors
from ..runtime.short_lists import first_few
from ..runtime.user_warnings import warn_user
from ..sampling.individuals import IndividualPosteriors
from ..sampling.posterior_centers import posterior_centers


@dataclass(frozen=True)
class PatientCheckSettings:
    r"""What is unusual.

    Args:
        covariate_margin: Part of the range of a covariate by which a patient may lie outside it.
        parameter_p_value: Probability of a squared distance from the population as large as that of
            the posterior mean. A patient in a thousand is warned of without a reason.
        residual: Residual of a sample, in standard deviations of the residual error at the
            posterior mean. One sample in 16,000 is larger.
        max_named: Patients that a warning names.
    """

    covariate_margin: float = 0.1
    parameter_p_value: float = 1e-3
    residual: float = 4.0
    max_named: int = 5


CHECKS = PatientCheckSettings()


def unusual_patients(
    posterior: IndividualPosteriors, patients: Cohort, reference: Cohort | None
) -> dict[str, str]:
    r"""Patients outside what the model knows: reasons by label.

    Args:
        posterior: Their draws.
        patients: Their data.
        reference: The data of the fit, or None.
    """
    reasons: dict[str, list[str]] = {label: [] for label in patients.ids}
    if reference is not None:
        for name, values in patients.covariates.items():
            if name in reference.covariates:
                _compare_covariate(reasons, name, values, reference.covariates[name])
    for label, text in _parameters(posterior).items():
        reasons[label].append(text)
    for label, text in _residuals(posterior).items():
        reasons[label].append(text)
    return {label: "; ".join(texts) for label, texts in reasons.items() if texts}


def warn_unusual_patients(unusual: dict[str, str]) -> None:
    """One warning that names patients outside what the model knows."""
    if not unusual:
        return
    named = first_few([f"{x}: {why}" for x, why in unusual.items()], CHECKS.max_named, "; ")
    warn_user(
        f"Outside what the model knows: {len(unusual)} of the patients ({named}). Check the "
        "data; a dose that is recommended here rests on an extrapolation of the model."
    )


def _compare_covariate(
    reasons: dict[str, list[str]], name: str, values: Tensor, known: Tensor
) -> None:
    low, high = float(known.min()), float(known.max())
    margin = CHECKS.covariate_margin * (high - low)
    outside = (values < low - margin) | (values > high + margin)
    for i in outside.nonzero()[:, 0].tolist():
        label = list(reasons)[i]
        text = f"{name} {float(values[i]):g}, in the data of the fit {low:g} to {high:g}"
        reasons[label].append(text)


def _parameters(posterior: IndividualPosteriors) -> dict[str, str]:
    """Patients whose posterior mean is far from the population."""
    cohort, structure = posterior.cohort, posterior.structure
    prior = individual_priors(structure, cohort, posterior.population)
    mean = posterior.moments()[0]
    z = torch.linalg.solve_triangular(
        prior.scale_tril, (mean - prior.loc).unsqueeze(-1), upper=False
    ).squeeze(-1)
    p_values = scipy.special.chdtrc(z.shape[1], z.square().sum(1).numpy())
    result = {}
    scaled = (mean - prior.loc) / prior.standard_deviations
    for i in (torch.as_tensor(p_values) < CHECKS.parameter_p_value).nonzero()[:, 0].tolist():
        j = int(scaled[i].abs().argmax())
        name, distance = structure.latent_names[j], float(scaled[i, j])
        result[cohort.ids[i]] = f"{name} is {distance:+.1f} standard deviations from the population"
    return result


def _residuals(posterior: IndividualPosteriors) -> dict[str, str]:
    """Patients with a sample that their posterior mean does not predict."""
    cohort = posterior.cohort
    mean = posterior_centers(posterior).unsqueeze(0)
    try:
        parts = (posterior.structure, cohort, mean, posterior.population)
        moments, limited = predicted_moments(*parts), at_limits(*parts)
    except (AmortizedError, RuntimeError):
        return {}
    result = {}
    for name, values in moments.items():
        predicted, sd = values[0, ..., 0], values[0, ..., 1]
        series = cohort[name]
        residual = (series.values - predicted) / sd.clamp(min=1e-300)
        counted = series.observed
        if name in limited:  # a censored value says only that it lies beyond the limit
            counted = counted & ~limited[name][0]
        residual = torch.where(counted, residual, 0.0).flatten(1).nan_to_num(0.0)
        largest = residual.abs().amax(1)
        for i in (largest > CHECKS.residual).nonzero()[:, 0].tolist():
            text = f"a sample of {name} is {float(largest[i]):.1f} standard deviations from its"
            result[cohort.ids[i]] = f"{text} prediction"
    return result
