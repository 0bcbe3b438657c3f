"""Ready pharmacokinetic programs: their structure, and predictions against closed forms."""

import pickle
from dataclasses import replace

import pytest
import torch

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.errors import ModelError

TYPICAL = {"cl": 4.0, "v": 40.0, "ka": 1.0}


def cohort(num=3):
    times = torch.tensor([0.5, 1.0, 4.0, 12.0]).double().expand(num, -1).clone()
    doses = pa.Doses(torch.zeros(num, 1).double(), torch.full((num, 1), 100.0).double())
    return pa.Cohort({"concentration": pa.Series(times, torch.ones(num, 4).double())}, doses=doses)


def test_the_families():
    programs = nlme.pk_candidates(cohort(), TYPICAL)
    assert len(programs) == 8
    assert next(iter(programs)) == "one compartment"
    assert "two compartments, saturable elimination, lag time" in programs
    intravenous = {"cl": 4.0, "v": 40.0}
    assert len(nlme.pk_candidates(cohort(), intravenous)) == 4
    assert len(nlme.pk_candidates(cohort(), intravenous, saturable=False)) == 2
    for program in programs.values():
        assert pickle.loads(pickle.dumps(program)) == program
        if program.saturable:  # compiled, see below
            continue
        structure = pa.read_structure(program, cohort())
        assert structure.num_latent == 3
        assert set(structure.shared) >= {"additive", "proportional"}


def predicted(program, common):
    structure = pa.read_structure(program, cohort())
    population = {
        "typical": torch.zeros(len(program.individual)).double(),
        "omega": torch.full((len(program.individual),), 0.3).double(),
        "additive": torch.tensor(0.1).double(),
        "proportional": torch.tensor(0.1).double(),
    }
    if common:
        population["common"] = torch.tensor(common).double().log()
    draws = torch.tensor(list(program.individual.values())).double().log()
    means = structure.predicted_mean(cohort(), draws.expand(1, 3, -1), population)
    return means["concentration"][0]


def test_predictions_are_those_of_the_closed_forms():
    data = cohort()
    programs = nlme.pk_candidates(data, TYPICAL)
    times, doses = data["concentration"].times, data.doses
    one = torch.ones(3).double()
    p = {"cl": 4 * one, "v": 40 * one, "ka": one}
    expected = nlme.one_compartment(times, doses, **p)
    torch.testing.assert_close(predicted(programs["one compartment"], []), expected)
    late = nlme.one_compartment(times, doses, **p, delivery=nlme.Delivery(lag=0.3 * one))
    torch.testing.assert_close(predicted(programs["one compartment, lag time"], [0.3]), late)
    two = nlme.two_compartments(times, doses, **p, q=2 * one, v2=30 * one)
    torch.testing.assert_close(predicted(programs["two compartments"], [2.0, 30.0]), two)
    # With a Michaelis constant far above all concentrations, the elimination is linear.
    large = 1e6
    program = programs["two compartments, saturable elimination"]
    rough = tuple((dict(program.typical) | {"cl": 4.0 * large}).items())
    saturable = replace(program, typical=rough, largest=1.0)
    linear = predicted(saturable, [large, 2.0, 30.0])
    torch.testing.assert_close(linear, two, rtol=1e-4, atol=1e-5)


def test_what_is_refused():
    with pytest.raises(ModelError, match="positive values"):
        nlme.pk_candidates(cohort(), {"cl": 4.0})
    with pytest.raises(ModelError, match="positive values"):
        nlme.pk_candidates(cohort(), {"cl": 4.0, "v": -1.0})
    with pytest.raises(ModelError, match="lag time"):
        nlme.pk_candidates(cohort(), {"cl": 4.0, "v": 40.0}, lag=True)
    without = pa.Cohort({"concentration": cohort()["concentration"]})
    program = nlme.pk_candidates(cohort(), TYPICAL)["one compartment"]
    with pytest.raises(ModelError, match="without doses"):
        program(without)
