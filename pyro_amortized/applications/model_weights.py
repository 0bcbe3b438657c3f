r"""Weights of several models for each patient, by Bayes' rule.

.. math:: P(m \mid y_i) \propto P(m)\, p(y_i \mid \hat\Psi_m, m) ,

with the marginal likelihood of the patient's samples. The prior :math:`P(m)` is given; by default
it is proportional to :math:`e^{-\mathrm{BIC}_m / 2}` for fits of the same data (the approximation
of the marginal likelihood of the data of the fit by Schwarz), and equal for other models.

References:
    Uster et al. (2021), A model averaging/selection approach improves the predictive performance of
    model-informed precision dosing.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..cohort import Cohort
from ..errors import SettingError
from .population_source import Source


def prior_weights(
    names: Sequence[str], sources: Sequence[Source], given: Mapping[str, float] | None
) -> Tensor:
    r"""Prior weights of the models, which sum to 1, shape ``(model,)``.

    Raises:
        SettingError: A weight is missing, negative or of an unknown model.
    """
    if given is not None:
        values = [given.get(name, math.nan) for name in names]
        unknown = set(given) - set(names)
        if unknown or not all(v >= 0 for v in values) or not sum(values) > 0:
            raise SettingError(
                f"`model_weights` is {dict(given)}.",
                f"a weight, 0 or larger, for each of the models {list(names)}.",
                "correct `model_weights=`.",
            )
        weights = torch.tensor(values, dtype=torch.float64)
        return weights / weights.sum()
    fits = [source.fit for source in sources if source.fit is not None]
    if len(fits) == len(sources) > 1 and all(_same(fits[0].cohort, f.cohort) for f in fits):
        bic = torch.tensor([f.bic.individuals for f in fits], dtype=torch.float64)
        return (-bic / 2).softmax(0)
    return torch.full((len(sources),), 1 / len(sources), dtype=torch.float64)


def _same(first: Cohort, second: Cohort) -> bool:
    """Whether two cohorts hold the same recorded values."""
    if first.ids != second.ids or set(first.series) != set(second.series):
        return False
    pairs = [(first[name], second[name]) for name in first.series]
    return all(
        a.values.shape == b.values.shape
        and torch.equal(a.observed, b.observed)
        and torch.equal(a.values[a.observed], b.values[b.observed])
        for a, b in pairs
    )


def patient_weights(log_likelihoods: Tensor, prior: Tensor) -> Tensor:
    r"""Weights of the models for each patient, shape ``(model, individual)``.

    Args:
        log_likelihoods: Log p(y_i) of each model, shape ``(model, individual)``.
        prior: Prior weights, shape ``(model,)``.

    Example:
        >>> weights = patient_weights(torch.tensor([[0.0], [0.0]]), torch.tensor([0.25, 0.75]))
        >>> weights[:, 0]
        tensor([0.2500, 0.7500])
    """
    return (log_likelihoods + prior.log().unsqueeze(1)).softmax(0)
