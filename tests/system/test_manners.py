"""Global state is unchanged; the library works in threads, processes and without a terminal."""

import logging
import multiprocessing
import os
import subprocess
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import matplotlib
import pyro
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.diagnostics import plots
from tests.exact import TRUTH, linear_program
from tests.paths import ROOT

pytestmark = pytest.mark.usefixtures("rough_training_distributions")


def everything():
    """Global state that a library may change."""
    root = logging.getLogger()
    return {
        "torch": torch.get_rng_state().sum().item(),
        "numpy": __import__("numpy").random.get_state()[1].sum(),
        "python": hash(__import__("random").getstate()),
        "dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "grad": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "validation": pyro.distributions.is_validation_enabled(),
        "store": sorted(pyro.get_param_store().keys()),
        "stack": len(pyro.poutine.runtime._PYRO_STACK),
        "filters": list(warnings.filters),
        "handlers": list(root.handlers),
        "level": root.level,
        "style": dict(matplotlib.rcParams),
        "backend": matplotlib.get_backend(),
        "cwd": os.getcwd(),
        "environment": dict(os.environ),
    }


@pytest.mark.slow
@pytest.mark.usefixtures("small_populations")
def test_nothing_global_changes(linear, small_fit, tmp_path):
    before = everything()
    options = pa.TrainingOptions(max_epochs=1, batch_size=64)
    guide = pa.train(
        linear_program, linear, num_simulations=300, options=options, progress=False, seed=1
    )
    guide.save(tmp_path)
    pa.load_guide(tmp_path, linear_program, linear)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pa.marginal_likelihood(linear_program, linear, TRUTH, guide=guide, num_draws=100)
    pa.sample_population(small_fit, num_draws=10, num_proposals=100)
    plots.individual_fits(small_fit, num_draws=20)
    after = everything()
    assert {n: x for n, x in after.items() if x != before[n]} == {}


def score(guide, linear):
    likelihood = pa.marginal_likelihood(
        linear_program, linear, TRUTH, guide=guide, num_draws=300, seed=1
    )
    return likelihood.log_likelihood


@pytest.mark.slow
def test_threads_may_read_one_guide(linear, linear_guide):
    """Different cohorts at once; each as it is alone. (Pyro's handlers are one stack for all
    threads, so programs take turns: the lock is the library's.)
    """
    parts = [linear[i : i + 10] for i in (0, 10, 20, 30)]
    alone = [score(linear_guide, part) for part in parts]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda part: score(linear_guide, part), parts))
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one, other)


def _child(guide, cohort):
    torch.set_num_threads(1)
    return score(guide, cohort).tolist()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_guides_go_to_other_processes(method, linear, linear_guide):
    few = linear[:5]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of fork beside threads
        with ProcessPoolExecutor(1, multiprocessing.get_context(method)) as pool:
            scores = pool.submit(_child, linear_guide, few).result(timeout=500)
    assert torch.allclose(torch.tensor(scores).double(), score(linear_guide, few), atol=1e-9)


SCRIPT = """
import pyro_amortized as pa, torch
from tests.exact import linear_cohort, linear_program
from tests.small import training_distribution
pa.train(
    linear_program,
    linear_cohort(10),
    num_simulations=300,
    seed=1,
    training_distribution=training_distribution(),
    options=pa.TrainingOptions(max_epochs=1, batch_size=64),
)
"""


def run(script, **more):
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
        **more,
    )


@pytest.mark.slow
def test_bars_are_silent_without_a_terminal():
    done = run(SCRIPT)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert done.stderr == ""


@pytest.mark.slow
def test_it_works_without_any_standard_stream():
    done = run("import sys; sys.stdin = sys.stdout = None\n" + SCRIPT, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_importing_prints_nothing_and_starts_nothing():
    done = run(
        "import threading, torch\n"
        "dtype, threads = torch.get_default_dtype(), torch.get_num_threads()\n"
        "import pyro_amortized\n"
        "assert torch.get_default_dtype() == dtype and torch.get_num_threads() == threads\n"
        "assert threading.active_count() == 1\n"
        "import sys; assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_the_reader_says_is_logged_not_printed(caplog, capsys):
    import pandas as pd

    frame = pd.DataFrame({"ID": [1, 1], "TIME": [2, 1], "DV": [1.0, 2.0]})
    with caplog.at_level(logging.WARNING, logger="pyro_amortized"):
        pa.nlme.read_table(frame)
    assert "not sorted" in caplog.text
    assert capsys.readouterr() == ("", "")
