"""Series, doses and cohorts."""

import numpy as np
import torch

import pyro_amortized as pa

from .kit import INF, NAN, changed, cohort, rows, times, values


def _series(**more):
    return pa.Series(**({"times": times(), "values": values()} | more))


def _doses(**more):
    plain = {"times": rows([0.0, 1.0]), "amounts": rows([10.0, 10.0])}
    return pa.Doses(**(plain | more))


def _two(a, b):
    return pa.concatenate([a, b])


SERIES = {
    "values are a list": (lambda k: _series(values=[[1.0]]), "is a list"),
    "values are a NumPy array": (lambda k: _series(values=np.ones((3, 4))), "is a ndarray"),
    "values are None": (lambda k: _series(values=None), "is a NoneType"),
    "values are complex": (lambda k: _series(values=values() + 1j), "complex"),
    "times are a list": (lambda k: _series(times=[[1.0, 2.0]]), "is a list"),
    "values of one dimension": (lambda k: _series(values=torch.ones(3)), "shape (3,)"),
    "values of four dimensions": (lambda k: _series(values=torch.ones(3, 4, 1, 1)), "(3, 4, 1, 1)"),
    "no individual": (lambda k: _series(values=torch.ones(0, 4)), "(0, 4)"),
    "no time": (lambda k: _series(values=torch.ones(3, 0)), "(3, 0)"),
    "no channel": (lambda k: _series(values=torch.ones(3, 4, 0)), "(3, 4, 0)"),
    "times transposed": (lambda k: _series(times=times().T), "`times` has shape (4, 3)"),
    "one common grid of times": (lambda k: _series(times=times()[0]), "expand"),
    "times decrease": (lambda k: _series(times=times().flip(1)), "individual 0 are not sorted"),
    "times of one individual decrease": (
        lambda k: _series(times=changed(times(), (1, 3), 0.0)),
        "individual 1 are not sorted",
    ),
    "a recorded value without a time": (
        lambda k: _series(times=changed(times(), (2, 1), NAN)),
        "Individual 2",
    ),
    "an infinite time": (lambda k: _series(times=changed(times(), (0, 3), INF)), "not finite"),
    "a time of minus infinity": (
        lambda k: _series(times=changed(times(), (0, 0), -INF)),
        "not finite",
    ),
    "no first time": (
        lambda k: _series(times=changed(times(), (0, 0), NAN), observed=torch.zeros(3, 4).bool()),
        "individual 0",
    ),
    "a gap in the times": (
        lambda k: _series(times=changed(times(), (0, 1), NAN), observed=torch.zeros(3, 4).bool()),
        "individual 0",
    ),
    "a recorded infinite value": (
        lambda k: _series(values=changed(values(), (1, 2), INF)),
        "Individual 1",
    ),
    "a recorded value of minus infinity": (
        lambda k: _series(values=changed(values(), (1, 2), -INF)),
        "time index 2",
    ),
    "a recorded NaN": (
        lambda k: _series(values=changed(values(), (2, 0), NAN), observed=torch.ones(3, 4).bool()),
        "Individual 2",
    ),
    "a mask of numbers": (lambda k: _series(observed=torch.ones(3, 4)), "boolean"),
    "a mask of integers": (lambda k: _series(observed=torch.ones(3, 4).long()), "boolean"),
    "a mask of lists": (lambda k: _series(observed=[[True] * 4] * 3), "is a list"),
    "a mask per individual": (lambda k: _series(observed=torch.ones(3).bool()), "shape (3,)"),
    "a mask transposed": (lambda k: _series(observed=torch.ones(4, 3).bool()), "shape (4, 3)"),
    "a mask without the channels": (
        lambda k: _series(values=torch.ones(3, 4, 2), observed=torch.ones(3, 4).bool()),
        "shape (3, 4)",
    ),
    "asked at times of other individuals": (
        lambda k: _series().at(torch.ones(2, 1)),
        "individual",
    ),
    "channels asked at a time": (
        lambda k: _series(values=torch.ones(3, 4, 2)).at(times()),
        "split the channels",
    ),
}
DOSES = {
    "negative amount": (lambda k: _doses(amounts=rows([10.0, -1.0])), "negative"),
    "amount is NaN": (lambda k: _doses(amounts=rows([NAN, 1.0])), "Individual 0"),
    "amount is infinite": (lambda k: _doses(amounts=rows([INF, 1.0])), "not finite"),
    "amounts are a list": (lambda k: _doses(amounts=[[1.0, 1.0]]), "is a list"),
    "time is NaN": (lambda k: _doses(times=rows([NAN, 1.0])), "not finite"),
    "time is infinite": (lambda k: _doses(times=rows([0.0, INF])), "not finite"),
    "times are a list": (lambda k: _doses(times=[[0.0, 1.0]]), "is a list"),
    "fewer times than amounts": (lambda k: _doses(times=rows([0.0])), "same shape"),
    "one dimension": (
        lambda k: pa.Doses(torch.zeros(2), torch.ones(2)),
        "(individual, dose)",
    ),
    "negative duration": (lambda k: _doses(durations=rows([-1.0, 0.0])), "negative"),
    "duration is NaN": (lambda k: _doses(durations=rows([NAN, 0.0])), "not finite"),
    "durations are numbers": (lambda k: _doses(durations=1.0), "is a float"),
    "a mask of integers": (lambda k: _doses(given=torch.ones(1, 2).long()), "boolean"),
    "a reset of numbers": (lambda k: _doses(reset=torch.ones(1, 2)), "boolean"),
    "compartment 0": (lambda k: _doses(compartment=torch.zeros(1, 2).long()), "compartment"),
    "rate of -3": (lambda k: _doses(rates=rows([-3.0, 0.0])), "rate"),
    "rate is NaN": (lambda k: _doses(rates=rows([NAN, 0.0])), "rate"),
    "negative interval": (lambda k: _doses(intervals=rows([-1.0, 0.0])), "interval"),
    "infinite interval": (lambda k: _doses(intervals=rows([INF, 0.0])), "interval"),
    "steady state without interval": (
        lambda k: _doses(steady_state=torch.ones(1, 2).long()),
        "interval",
    ),
    "steady state 3": (
        lambda k: _doses(steady_state=torch.full((1, 2), 3), intervals=rows([12.0, 12.0])),
        "other than 0, 1 and 2",
    ),
    "steady state of nothing": (
        lambda k: _doses(amounts=rows([0.0, 0.0]), steady_state=torch.ones(1, 2).long()),
        "without amount",
    ),
}
COHORT = {
    "no series": (lambda k: pa.Cohort({}), "no series"),
    "a tensor for a series": (lambda k: pa.Cohort({"y": values()}), "Series"),
    "a series for the series": (lambda k: pa.Cohort(_series()), "Series"),
    "a name that is no text": (lambda k: pa.Cohort({1: _series()}), "name"),
    "series of different individuals": (
        lambda k: pa.Cohort({"y": _series(), "z": pa.Series(times(2), values(2))}),
        "2 individuals",
    ),
    "doses of other individuals": (lambda k: cohort(doses=_doses()), "doses"),
    "doses that are a tensor": (lambda k: cohort(doses=torch.ones(3, 1)), "Doses"),
    "a covariate of other individuals": (
        lambda k: cohort(covariates={"weight": torch.ones(2)}),
        "2 individuals",
    ),
    "a covariate per time": (
        lambda k: cohort(covariates={"weight": torch.ones(3, 4)}),
        "wrong shape",
    ),
    "a covariate that is missing": (
        lambda k: cohort(covariates={"weight": torch.tensor([70.0, NAN, 60.0])}),
        "individual 1",
    ),
    "a covariate that is infinite": (
        lambda k: cohort(covariates={"weight": torch.tensor([70.0, INF, 60.0])}),
        "not finite",
    ),
    "a covariate of words": (
        lambda k: cohort(covariates={"sex": ["m", "f", "m"]}),
        "'sex'",
    ),
    "labels for too few": (lambda k: cohort(ids=("a", "b")), "ids"),
    "labels that repeat": (lambda k: cohort(ids=("a", "b", "a")), "'a'"),
    "a tensor that varies over time": (
        lambda k: cohort(time_varying={"weight": values()}),
        "Series",
    ),
    "time-varying of other individuals": (
        lambda k: cohort(time_varying={"weight": pa.Series(times(2), values(2))}),
        "2 individuals",
    ),
    "an unknown series": (lambda k: cohort()["z"], "no series 'z'"),
    "an individual too many": (lambda k: cohort()[7], "3 individuals"),
    "a mask of individuals that is too long": (
        lambda k: cohort()[torch.ones(5).bool()],
        "3 individuals",
    ),
    "half an individual": (lambda k: cohort()[1.5], "1.5"),
    "nobody": (lambda k: cohort()[[]], "individual"),
    "repeated no times": (lambda k: cohort().repeat(0), "`num_copies` is 0"),
    "moved to an unknown device": (lambda k: cohort().to("abacus"), "abacus"),
    "cast to integers": (lambda k: cohort().to(dtype=torch.long), "floating"),
    "values for an unknown series": (lambda k: cohort().with_values({"z": values()}), "'z'"),
    "values of another shape": (lambda k: cohort().with_values({"y": values(3, 5)}), "(3, 5)"),
    "values that are not finite": (
        lambda k: cohort().with_values({"y": changed(values(), (0, 0), NAN).nan_to_num(INF)}),
        "not finite",
    ),
    "a mask for an unknown series": (
        lambda k: cohort().with_observed({"z": torch.ones(3, 4).bool()}),
        "'z'",
    ),
    "a mask of another shape": (
        lambda k: cohort().with_observed({"y": torch.ones(3, 1).bool()}),
        "(3, 1)",
    ),
    "a mask that is no mask": (
        lambda k: cohort().with_observed({"y": torch.ones(3, 4)}),
        "boolean",
    ),
    "no cohorts end to end": (lambda k: pa.concatenate([]), "at least one"),
    "a tensor end to end": (lambda k: _two(cohort(), values()), "Cohort"),
    "other series end to end": (
        lambda k: _two(cohort(), pa.Cohort({"z": _series()})),
        "same series",
    ),
    "doses in one of two": (lambda k: _two(cohort(1), cohort(1, doses=_doses())), "doses"),
    "the same labels end to end": (
        lambda k: _two(cohort(ids=("a", "b", "c")), cohort(ids=("c", "d", "e"))),
        "'c'",
    ),
}
COHORTS = (
    {f"series: {n}": x for n, x in SERIES.items()}
    | {f"doses: {n}": x for n, x in DOSES.items()}
    | {f"cohort: {n}": x for n, x in COHORT.items()}
)
