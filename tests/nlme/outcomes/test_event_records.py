"""Series of events from times, intervals and tables."""

import math

import numpy as np
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.errors import CohortError

TABLE = """ID,TIME,DV,DVID
1,0,5.1,1
1,2,4.0,1
1,3,1,2
2,0,6.0,1
2,1,5.5,1
2,0,0,2
2,4,0,2
"""


def test_a_table_with_a_marker_and_deaths(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text(TABLE)
    cohort = nlme.read_table(path, series={1: "marker", 2: "death"})
    cohort = nlme.with_events(cohort, "death")
    assert cohort["death"].values[:, 0].tolist() == [[3.0, 1.0], [4.0, 0.0]]
    assert cohort["death"].times[:, 0].tolist() == [4.0, 4.0]
    assert cohort["marker"].num_observations == 4


def test_events_of_a_table_that_recur():
    times = torch.tensor([[0.0, 1.0, 2.0, 5.0], [0.0, 4.0, math.nan, math.nan]])
    values = torch.tensor([[0.0, 1.0, 1.0, 0.0], [0.0, 0.0, math.nan, math.nan]])
    cohort = pa.Cohort({"relapse": pa.Series(times, values)})
    events = nlme.with_events(cohort, "relapse", end=6.0)["relapse"]
    assert events.values[0].tolist() == [[1.0, 1.0], [2.0, 1.0], [5.0, 0.0]]
    assert events.values[1].tolist() == [[4.0, 0.0]] * 3
    assert events.times.unique().tolist() == [6.0]


@pytest.mark.parametrize(
    ("times", "status", "message"),
    [
        ([2.0, -1.0], [1, 0], "negative"),
        ([[2.0, 1.0]], [[1, 1]], "decrease"),
        ([[1.0, 2.0]], [[0, 1]], "after the end"),
        ([[1.0, 2.0]], [[2, 0]], "neither 0 nor 1"),
        ([[math.nan, 2.0]], [[1, 1]], "no time at all"),
    ],
)
def test_impossible_records_are_refused(times, status, message):
    with pytest.raises(CohortError, match=message):
        nlme.event_series(torch.tensor(times), torch.tensor(status))


def test_an_end_before_an_event_and_empty_intervals_are_refused():
    with pytest.raises(CohortError, match="no event and no censoring after the end"):
        nlme.event_series(torch.tensor([2.0]), torch.tensor([1]), end=1.0)
    with pytest.raises(CohortError, match="interval from 3 to 2"):
        nlme.interval_series(torch.tensor([3.0]), torch.tensor([2.0]))
    counts = pa.Cohort({"death": pa.Series(torch.ones(1, 1), 3 * torch.ones(1, 1))})
    with pytest.raises(CohortError, match="no series of events"):
        nlme.with_events(counts, "death")


def test_lists_and_arrays_are_times():
    tensors = nlme.event_series(torch.tensor([1.0, 2.0]).double(), torch.tensor([1, 0]))
    arrays = nlme.event_series(np.array([1.0, 2.0]), np.array([True, False]))
    lists = nlme.event_series([1.0, 2.0], [1, 0], end=[3.0, 3.0])
    assert torch.equal(arrays.values, tensors.values)
    assert torch.equal(lists.values, tensors.values)
    assert lists.times[:, 0].tolist() == [3.0, 3.0]
    assert torch.equal(nlme.interval_series([1.0], [2.0])[0].values[..., 0], torch.tensor([[2.0]]))


def test_events_are_written_to_a_table_and_read_again():
    times = torch.tensor([[1.0, 2.5, 4.0], [3.0, torch.nan, torch.nan], [0.5, 2.0, torch.nan]])
    happened = torch.tensor([[1, 1, 0], [0, 0, 0], [1, 1, 0]])
    marker = pa.Series(torch.zeros(3, 1).double(), torch.ones(3, 1).double())
    events = nlme.event_series(times.double(), happened)
    cohort = pa.Cohort({"marker": marker, "relapse": events})
    table = nlme.to_table(cohort)
    again = nlme.read_table(table, series={"marker": "marker", "relapse": "relapse"})
    again = nlme.with_events(again, "relapse", end=events.times[:, 0])
    assert torch.equal(again["relapse"].values, events.values)
    assert torch.equal(again["relapse"].observed, events.observed)
    assert torch.equal(again["relapse"].times, events.times)
