"""The experiments of the missing-data benchmark and their encodings."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import conversion
import fitzhugh_nagumo
import recording
import sinusoid
import sir
import torch
from torch import nn

import pyro_amortized as pa
from pyro_amortized.encode import Deletion, FillIn, Indicator, TimeLabels
from pyro_amortized.networks import AttentionNetwork, RecurrentNetwork

Networks = pa.Networks


@dataclass(frozen=True)
class Variant:
    """One way to train and to answer.

    ``design`` trains on another design than the experiment's; ``answer`` gives log q of the truth and
    raw draws in another way than the guide; ``sharpened`` spends half of the budget on ``sharpen``.
    """

    networks: Networks = field(default_factory=Networks)
    design: Any = None
    answer: Callable | None = None
    sharpened: bool = False


@dataclass(frozen=True)
class Experiment:
    """A program, its design, and what is compared on it."""

    name: str
    model: Callable
    design: Any
    variants: dict[str, Variant]
    minutes: float
    reference: str | None
    floor: float | None
    bands: tuple[tuple[int, int], ...]
    num_simulations: int = 1_000_000
    num_noise: int = 1
    num_corrected: int = 1000


def encodings(**chosen):
    return {label.replace("_", " "): Variant(networks) for label, networks in chosen.items()}


lstm = partial(RecurrentNetwork, cell=nn.LSTM)
RECOMMENDED = Networks()
SHARPENED = Variant(sharpened=True)


# Imputation: a network that was trained on complete data.


def linear_imputation(experiment, guide, structure, cohort, truth):
    posterior = guide.individual_posterior(conversion.interpolated(cohort), {})
    return posterior.log_prob(truth), posterior.rsample((1000,))


def proper_imputation(experiment, guide, structure, cohort, truth, num=400):
    """The mean of the complete-data posterior over p(missing | recorded), from the exact posterior."""
    from exact_posteriors import grid_draws

    generator = torch.Generator().manual_seed(4)
    draws = grid_draws(structure, cohort, num, generator)
    predicted = structure.predict_draws(cohort, draws, {}, generator)["y"]
    y, log_q, raw = cohort["y"], [], []
    for values in predicted:
        completed = pa.Cohort({"y": pa.Series(y.times, torch.where(y.observed, y.values, values))})
        posterior = guide.individual_posterior(completed, {})
        log_q.append(posterior.log_prob(truth))
        raw.append(posterior.rsample((3,)))
    log_q = torch.stack(log_q).logsumexp(0) - torch.tensor(float(num)).log()
    return log_q, torch.cat(raw)[torch.randperm(3 * num, generator=generator)][:1000]


three = ((0, 0), (1, 1), (2, 2))
eleven = ((0, 2), (3, 4), (5, 6))
forty = ((0, 7), (8, 14), (15, 21))
variable = ((0, 13), (14, 26), (27, 39))
twenty = ((0, 3), (4, 7), (8, 11))
variable21 = ((0, 6), (7, 12), (13, 19))
fifteen = ((0, 5), (6, 10), (11, 15))

_LIST = [
    Experiment(
        "conversion_3",
        conversion.model,
        conversion.three_points,
        encodings(
            indicator=Networks(Indicator(-1.0)),
            fill_in=Networks(FillIn(-1.0)),
            time_labels=Networks(TimeLabels(), partial(lstm, width=32)),
            recommended=RECOMMENDED,
        )
        | {"recommended, sharpened": SHARPENED},
        1.0,
        "grid",
        -2.514,
        three,
    ),
    Experiment(
        "conversion_ambiguous",
        conversion.model,
        conversion.three_points,
        {
            "fill 0.5": Variant(Networks(FillIn(0.5))),
            "indicator, fill 0.5": Variant(Networks(Indicator(0.5))),
        },
        1.0,
        "grid",
        -2.514,
        three,
    ),
    Experiment(
        "conversion_imputed",
        conversion.model,
        conversion.one_or_two,
        {
            "linear imputation": Variant(design=conversion.complete, answer=linear_imputation),
            "proper imputation": Variant(design=conversion.complete, answer=proper_imputation),
            "indicator": Variant(Networks(Indicator(-1.0)), design=conversion.three_points),
        },
        1.0,
        "grid",
        None,
        three,
    ),
    Experiment(
        "conversion_deleted",
        conversion.model,
        conversion.eleven_points,
        {
            "deletion": Variant(Networks(Deletion(), partial(lstm, width=32))),
            "time labels": Variant(Networks(TimeLabels(), partial(lstm, width=32))),
            "indicator": Variant(Networks(Indicator(-1.0))),
            "recommended": Variant(RECOMMENDED),
            "recommended, sharpened": SHARPENED,
        },
        1.0,
        "grid",
        -4.58,
        eleven,
    ),
    Experiment(
        "missing_number",
        recording.number_model,
        recording.design,
        encodings(indicator=Networks(Indicator(-1.0)), recommended=RECOMMENDED)
        | {"recommended, sharpened": SHARPENED},
        1.0,
        "number",
        -5.493,
        ((0, 2), (3, 5), (6, 8)),
    ),
    Experiment(
        "missing_by_value",
        recording.value_model,
        recording.design,
        encodings(indicator=Networks(Indicator(-1.0)), recommended=RECOMMENDED)
        | {"recommended, sharpened": SHARPENED},
        1.0,
        "coarse grid",
        None,
        ((0, 3), (4, 7), (8, 11)),
        num_corrected=300,
    ),
    Experiment(
        "sinusoid",
        sinusoid.model,
        sinusoid.random_missing,
        {
            "indicator": Variant(Networks(Indicator(-5.0))),
            "fill in -5": Variant(Networks(FillIn(-5.0))),
            "time labels, LSTM": Variant(Networks(TimeLabels(), partial(lstm, width=128))),
            "time labels normalised, LSTM": Variant(
                Networks(TimeLabels(True), partial(lstm, width=128))
            ),
            "time labels, transformer": Variant(Networks(TimeLabels(), AttentionNetwork)),
            "recommended": Variant(RECOMMENDED),
            "recommended, sharpened": SHARPENED,
        },
        2.0,
        "sinusoid",
        -9.787,
        forty,
    ),
    Experiment(
        "sinusoid_own_times",
        sinusoid.model,
        sinusoid.OwnTimes(),
        {
            "time labels, LSTM": Variant(Networks(TimeLabels(), partial(lstm, width=128))),
            "recommended": Variant(RECOMMENDED),
            "recommended, sharpened": SHARPENED,
        },
        2.0,
        "sinusoid",
        None,
        forty,
    ),
    Experiment(
        "sinusoid_variable",
        sinusoid.model,
        sinusoid.first_only,
        {
            "without indicator": Variant(Networks(FillIn(-5.0))),
            "indicator": Variant(Networks(Indicator(-5.0))),
            "recommended": Variant(RECOMMENDED),
            "recommended, sharpened": SHARPENED,
        },
        1.0,
        "sinusoid",
        -8.269,
        variable,
    ),
    Experiment(
        "fitzhugh_nagumo",
        fitzhugh_nagumo.model,
        fitzhugh_nagumo.random_missing,
        {
            "indicator": Variant(Networks(Indicator(-5.0))),
            "fill in -5": Variant(Networks(FillIn(-5.0))),
            "time labels, LSTM": Variant(Networks(TimeLabels(), partial(lstm, width=64))),
            "recommended": Variant(RECOMMENDED),
            "recommended, sharpened": SHARPENED,
        },
        2.0,
        "sampled",
        -4.55,
        twenty,
        250_000,
        4,
        200,
    ),
    Experiment(
        "fitzhugh_nagumo_variable",
        fitzhugh_nagumo.model,
        fitzhugh_nagumo.first_only,
        {
            "without indicator": Variant(Networks(FillIn(-5.0))),
            "indicator": Variant(Networks(Indicator(-5.0))),
            "recommended": Variant(RECOMMENDED),
            "recommended, sharpened": SHARPENED,
        },
        1.0,
        "sampled",
        -3.21,
        variable21,
        250_000,
        4,
        200,
    ),
    Experiment(
        "sir_ode",
        sir.model,
        sir.random_missing,
        {
            "indicator": Variant(Networks(Indicator(-1.0))),
            "fill in -1": Variant(Networks(FillIn(-1.0))),
            "time labels, LSTM": Variant(Networks(TimeLabels(True), partial(lstm, width=64))),
            "recommended": Variant(RECOMMENDED),
            "recommended, sharpened": SHARPENED,
        },
        1.0,
        "sir",
        -4.790,
        fifteen,
        250_000,
        4,
        500,
    ),
    Experiment(
        "sir_stochastic",
        sir.stochastic_model,
        sir.stochastic_design,
        {
            "indicator": Variant(Networks(Indicator(-1.0))),
            "fill in -1": Variant(Networks(FillIn(-1.0))),
            "time labels, LSTM": Variant(Networks(TimeLabels(True), partial(lstm, width=64))),
            "recommended": Variant(RECOMMENDED),
        },
        1.0,
        None,
        None,
        fifteen,
        250_000,
    ),
]
EXPERIMENTS = {e.name: e for e in _LIST}
