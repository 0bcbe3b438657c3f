"""Full disks, killed processes and Ctrl-C: old files stay complete, and runs continue."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.errors import AmortizedError
from pyro_amortized.guide.files import guide_folder
from pyro_amortized.runtime import atomic_files as files
from tests.exact import linear_program
from tests.training.test_run_folder import ROOT, start, weights


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


def longer(folder, out, **more):
    """A run of some seconds with a checkpoint after each pass."""
    arguments = [str(folder), str(out), "--num-simulations", "6000", "--max-epochs", "6"]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.resumable", *arguments], cwd=ROOT, text=True, **more
    )


@pytest.mark.slow
def test_ctrl_c_leaves_a_run_that_goes_on(tmp_path):
    """SIGINT while training: no hang, no half-written files, the same weights in the end."""
    assert longer(tmp_path / "whole", tmp_path / "a").wait() == 0
    process = longer(tmp_path / "torn", tmp_path / "b", stderr=subprocess.PIPE)
    checkpoint = tmp_path / "torn" / "checkpoint.safetensors"
    begin = time.monotonic()
    while not checkpoint.exists() and process.poll() is None and time.monotonic() - begin < 500:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=500)
    assert process.returncode != 0
    assert "KeyboardInterrupt" in said
    assert not list((tmp_path / "torn").rglob("*.part"))
    assert longer(tmp_path / "torn", tmp_path / "b").wait() == 0
    assert weights(tmp_path / "a") == weights(tmp_path / "b")


@pytest.mark.slow
def test_two_processes_may_write_one_store(tmp_path):
    """The same run twice at once, in one folder: both end, with the same weights."""
    runs = [start(tmp_path / "store", tmp_path / name) for name in ("a", "b")]
    assert [run.wait(timeout=500) for run in runs] == [0, 0]
    assert weights(tmp_path / "a") == weights(tmp_path / "b")


def test_what_is_saved_is_loaded(fit, tmp_path):
    """A fit that is loaded from its folder gives the same results."""
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
    draws = [
        pa.sample_population(x, num_draws=20, num_proposals=200, seed=1) for x in (fit, loaded)
    ]
    assert torch.allclose(draws[0].vectors, draws[1].vectors)
    assert pa.difference(fit, loaded).minus2ll == pytest.approx(0.0, abs=1e-9)
