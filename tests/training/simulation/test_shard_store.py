import pytest
import torch

from pyro_amortized import Cohort, Doses, Series, datasets
from pyro_amortized.errors import AmortizedError
from pyro_amortized.numerics.gaussians import Gaussians
from pyro_amortized.runtime.atomic_files import read_tensors, write_tensors
from pyro_amortized.training.simulation.shard_store import SimulationStore
from pyro_amortized.training.simulation.training_sets import TrainingSet


def training_set(cohort):
    cohort, num = cohort.to(dtype=torch.float64), len(cohort)
    values = {n: s.values.float().double() for n, s in cohort.series.items()}
    cohort = cohort.with_values(values)
    scale = torch.eye(3) * torch.rand(num, 1, 1)
    priors = Gaussians(torch.randn(num, 3), scale)
    return TrainingSet(cohort, torch.randn(num, 3), torch.randn(num, 1), priors, num_failed=2)


def two_series():
    values = torch.randn(4, 3, 2)
    values[0, 1] = torch.nan
    grid = torch.arange(3.0).expand(4, -1)
    return Cohort({"a.b": Series(grid, values), "y": Series(grid, torch.ones(4, 3))})


@pytest.mark.parametrize("cohort", [datasets.theophylline(), two_series()], ids=["doses", "series"])
def test_what_is_written_is_read(tmp_path, cohort):
    store = SimulationStore(tmp_path / "new" / "folder")
    given = training_set(cohort)
    assert 3 not in store
    store.write(3, given)
    assert 3 in store
    read = store.read(3)
    assert read.num_failed == 2
    assert torch.equal(read.unconstrained, given.unconstrained)
    assert torch.equal(read.shared, given.shared)
    cohort = given.cohort
    for name, series in cohort.series.items():
        for field in ("times", "values", "observed"):
            assert torch.equal(getattr(read.cohort[name], field), getattr(series, field))
    for name, x in cohort.covariates.items():
        assert torch.equal(read.cohort.covariates[name], x)
    if cohort.doses is not None:
        assert isinstance(read.cohort.doses, Doses)
        assert torch.equal(read.cohort.doses.amounts, cohort.doses.amounts)


def test_common_times_are_stored_once(tmp_path):
    times = torch.arange(500.0).expand(2000, -1)
    store = SimulationStore(tmp_path)
    store.write(0, training_set(Cohort({"y": Series(times, torch.randn(2000, 500))})))
    values_alone = 2000 * 500 * 4
    assert store.path(0).stat().st_size < 1.05 * values_alone
    assert torch.equal(store.read(0).cohort["y"].times, times)


def test_a_write_that_dies_leaves_the_old_file(tmp_path, monkeypatch):
    store = SimulationStore(tmp_path)
    old = training_set(two_series())
    store.write(0, old)
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        store.write(0, training_set(two_series()))
    monkeypatch.undo()
    assert torch.equal(store.read(0).unconstrained, old.unconstrained)
    assert [p.name for p in tmp_path.iterdir()] == ["shard-000000.safetensors"]


def test_damaged_and_newer_files_are_refused(tmp_path):
    store = SimulationStore(tmp_path)
    store.write(0, training_set(two_series()))
    tensors, description = read_tensors(store.path(0))
    write_tensors(store.path(1), tensors, description | {"format_version": 99})
    with pytest.raises(AmortizedError, match="format version 99"):
        store.read(1)
    content = store.path(0).read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"not a store"):
        store.path(0).write_bytes(damaged)
        with pytest.raises(AmortizedError, match="shard-000000"):
            store.read(0)
