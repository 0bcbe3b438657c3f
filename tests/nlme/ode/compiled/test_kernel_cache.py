import errno
import os
import subprocess
import sys
import textwrap

import pytest

from pyro_amortized.nlme.ode.compiled import kernel_cache
from pyro_amortized.nlme.ode.compiled.kernel_cache import (
    VARIABLE,
    cache_folder,
    call_kernel,
    load_kernel,
)

SOURCE = textwrap.dedent(
    """
    import numba

    @numba.njit(error_model="numpy", cache=True)
    def kernel(x):
        return 2.0 * x
    """
)


def files_of(folder):
    return {path.suffix for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_second_process_finds_the_machine_code(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "solvers"))
    kernel = load_kernel(SOURCE)
    assert kernel(4.0) == 8.0
    assert sum(kernel.stats.cache_misses.values()) == 1
    assert files_of(tmp_path) == {".py", ".nbi", ".nbc"}
    program = (
        "from pyro_amortized.nlme.ode.compiled.kernel_cache import load_kernel\n"
        f"kernel = load_kernel({SOURCE!r})\n"
        "print(kernel(4.0), sum(kernel.stats.cache_hits.values()))"
    )
    command = [sys.executable, "-c", program]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    assert printed.stdout.split() == ["8.0", "1"]


def test_a_file_with_another_content_is_written_again(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    load_kernel(SOURCE)
    (path,) = tmp_path.glob("*.py")
    path.write_text("kernel = lambda x: 0.0")
    assert load_kernel(SOURCE)(4.0) == 8.0


@pytest.mark.parametrize("setting", ["", "a file"])
def test_without_a_folder_solvers_are_compiled_in_memory(tmp_path, monkeypatch, setting):
    """The folder is switched off, or cannot be made."""
    occupied = tmp_path / "occupied"
    occupied.write_text("no folder")
    monkeypatch.setenv(VARIABLE, str(occupied / "solvers") if setting else "")
    kernel = load_kernel(SOURCE)
    assert kernel(4.0) == 8.0
    assert files_of(tmp_path) == {""}


def test_a_full_disk_leaves_the_machine_code_in_memory(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    kernel = load_kernel(SOURCE)

    def no_space(*arguments):
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(kernel._cache, "save_overload", no_space)
    call_kernel(kernel, 4.0)
    assert kernel(4.0) == 8.0
    assert files_of(tmp_path) == {".py"}


def test_the_folder_follows_the_convention(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "pyro_amortized" / "solvers"
    monkeypatch.delenv("XDG_CACHE_HOME")

    def no_home():
        raise RuntimeError("no home")

    monkeypatch.setattr(kernel_cache.Path, "home", no_home)
    assert cache_folder() is None
