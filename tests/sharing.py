"""What is trained or fitted once in a run of the tests, and read from a file wherever it is used.

The tests run in several processes, each with session fixtures of its own. Without a common file,
every process would train the same guides. The first process that asks for a guide trains and saves
it while the others wait; then all load it, so that a test sees the same object in every process and
however the tests are divided.
"""

import os
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

import pyro_amortized as pa


def common_folder(tmp_path_factory) -> Path:
    """A temporary folder that all processes of this run of the tests see."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base


def make_once(folder: Path, make: Callable, load: Callable):
    """Load from ``folder`` what the first caller in any process makes and saves there."""
    with FileLock(f"{folder}.lock"):
        if not (folder / "complete").exists():
            make().save(folder)
            (folder / "complete").touch()
    return load(folder)


def shared_guide(folder: Path, model: Callable, data, **training):
    """A guide of ``pa.train(model, data, **training)``; ``data`` may be a cohort or a design."""
    return make_once(
        folder,
        lambda: pa.train(model, data, progress=False, **training),
        lambda path: pa.load_guide(path, model, data),
    )


def shared_fit(folder: Path, model: Callable, guide, cohort, **settings):
    """A fit of ``pa.fit_population(model, cohort, guide=guide, **settings)``."""
    return make_once(
        folder,
        lambda: pa.fit_population(model, cohort, guide=guide, **settings),
        lambda path: pa.load_fit(path, model),
    )
