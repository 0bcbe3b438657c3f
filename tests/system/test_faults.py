"""Full disks and processes that die while they write: old files stay complete.

Killed and interrupted runs are in ``tests/training/test_run_folder.py``.
"""

import errno
import os
from pathlib import Path

import pyro
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.errors import AmortizedError
from pyro_amortized.guide.files import guide_folder
from pyro_amortized.runtime import atomic_files as files
from tests.exact import linear_program


def full_disk(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def written(folder):
    return {p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("what", ["guide", "fit"])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_files(what, call, linear_guide, fit, tmp_path, monkeypatch):
    thing = linear_guide if what == "guide" else fit
    thing.save(tmp_path)
    before = written(tmp_path)
    if call == "fsync":
        monkeypatch.setattr(files.os, "fsync", full_disk)
    else:
        monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(OSError, match="No space left"):
        thing.save(tmp_path)
    monkeypatch.undo()
    assert written(tmp_path) == before  # and nothing half-written beside them


def test_death_between_two_files_is_noticed(linear, linear_guide, tmp_path, monkeypatch):
    """A process that dies between weights and description leaves a pair that is refused, or one
    that agrees.
    """
    linear_guide.save(tmp_path)
    real, calls = files.write_atomically, []

    def dies(path, content):
        calls.append(path.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(path, content)

    monkeypatch.setattr(guide_folder, "write_atomically", dies)
    moved = linear_guide.at(linear_guide.loc + 1.0, linear_guide.scale_tril)
    with pytest.raises(KeyboardInterrupt):
        moved.save(tmp_path)
    with pytest.raises(pa.AmortizedError, match="other weights"):
        pa.load_guide(tmp_path, linear_program, linear)


def test_a_folder_that_cannot_be_made_is_told(linear_guide, tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/none")):
        with pytest.raises(AmortizedError, match="cannot be made"):
            linear_guide.save(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_told(linear_guide, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises((AmortizedError, PermissionError)):
        linear_guide.save(tmp_path / "guide")


@pytest.mark.slow
@pytest.mark.usefixtures("small_populations")
def test_what_is_saved_is_loaded(small_fit, tmp_path):
    """A fit that is loaded from its folder gives the same results."""
    fit = small_fit
    fit.save(tmp_path)
    loaded = pa.load_fit(tmp_path, fit.model)
    assert torch.equal(loaded.vector, fit.vector)
    assert torch.equal(loaded.covariance, fit.covariance)
    assert loaded.minus2ll == fit.minus2ll
    assert loaded.cohort.ids == fit.cohort.ids
    assert str(loaded.summary()) == str(fit.summary())
    assert torch.allclose(loaded.robust_covariance, fit.robust_covariance)
    profiles = [pa.profile_likelihood(x, "sigma") for x in (fit, loaded)]
    assert profiles[0].lower == pytest.approx(profiles[1].lower, rel=1e-9)
    draws = [pa.sample_population(x, num_draws=10, num_proposals=40, seed=1) for x in (fit, loaded)]
    assert torch.allclose(draws[0].vectors, draws[1].vectors)
    assert pa.difference(fit, loaded).minus2ll == pytest.approx(0.0, abs=1e-9)


def test_an_interrupted_fit_leaves_the_process_as_it_was(linear):
    """Ctrl-C inside the user's model: threads, random numbers, dtypes and handlers are restored,
    and the next fit gives the same result.
    """
    small = linear[:8]
    before = pa.fit_population(linear_program, small, num_draws=50, seed=1)
    state = (torch.get_rng_state(), torch.get_num_threads(), torch.get_default_dtype())
    calls = []

    def interrupted(cohort):
        calls.append(1)
        if len(calls) == 60:
            raise KeyboardInterrupt
        linear_program(cohort)

    with pytest.raises(KeyboardInterrupt):
        pa.fit_population(interrupted, small, num_draws=50, seed=1)
    assert torch.equal(torch.get_rng_state(), state[0])
    assert (torch.get_num_threads(), torch.get_default_dtype()) == state[1:]
    assert not pyro.poutine.runtime._PYRO_STACK
    after = pa.fit_population(linear_program, small, num_draws=50, seed=1)
    assert torch.equal(after.vector, before.vector)
