"""Every benchmark runs in a small setting: what it calls is there, and it ends in one JSON line."""

import ast
import gc
import importlib.util
import json
import runpy
import shutil
import sys
import warnings
from pathlib import Path

import pyro
import pytest
import torch

from ..paths import ROOT

FOLDER = ROOT / "benchmarks"
# Imported by the others.
PARTS = {
    "after_fit_doses",
    "criticism_clinic",
    "criticism_clinic_models",
    "criticism_defects",
    "criticism_files",
    "criticism_judge_defects",
    "criticism_judge_models",
    "criticism_models",
    "criticism_outcomes",
    "criticism_practice",
    "criticism_studies",
    "dynamics_problems",
    "endpoints",
    "exact_posteriors",
    "first_answer_models",
    "likelihood_free_models",
    "missing_data_rows",
    "model_building_search",
    "population_coverage",
    "problems",
    "transfection",
}
LONG = {"interrupted"}
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in PARTS)
RUNS = [pytest.param(n, marks=pytest.mark.slow if n in LONG else ()) for n in SCRIPTS]
PEERS = sorted((FOLDER / "peers").glob("*.py"))

pytestmark = pytest.mark.benchmark


@pytest.fixture
def run(monkeypatch, capsys, small_efforts):
    """Run a script as the command line does, but in this process: most of the time of a small run
    would be the imports.
    """

    def run_script(path, *arguments):
        monkeypatch.setattr(sys, "argv", [str(path), *arguments])
        monkeypatch.setattr(sys, "path", [str(path.parent), *sys.path])
        dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
        known = set(sys.modules)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                runpy.run_path(str(path), run_name="__main__")
        except SystemExit as end:
            if isinstance(end.code, str) and "references" in end.code:
                pytest.skip(end.code)
            if end.code:
                raise
        finally:
            torch.set_default_dtype(dtype)
            torch.set_num_threads(threads)
            pyro.clear_param_store()
            for name in set(sys.modules) - known:  # `population` of benchmarks is no name for all
                if _is_in(path.parent, sys.modules[name]):
                    del sys.modules[name]
            gc.collect()
        return capsys.readouterr().out

    return run_script


def _is_in(folder, module):
    file = Path(getattr(module, "__file__", None) or "/")
    return folder.resolve() in file.resolve().parents


@pytest.mark.parametrize("name", RUNS)
def test_benchmark_runs_small(run, name):
    text = run(FOLDER / f"{name}.py", "--small")
    assert "failed" not in text.lower()
    table = json.loads(text.splitlines()[-1])
    assert table
    assert not any(x in ({}, []) for x in table.values())
    if name == "dynamics":
        assert table["speedup_over_torchdiffeq"]["conversion_reaction"] > 1


@pytest.mark.slow
@pytest.mark.parametrize("parts", ["mrna,growth", "experiments"])
def test_parts_of_the_population_benchmark_run_small(run, parts):
    """The mRNA data and the growth with their number share one guide."""
    text = run(FOLDER / "population.py", "--small", "--only", parts)
    assert set(parts.split(",")) <= set(json.loads(text.splitlines()[-1])) or "skipped" in text


@pytest.mark.parametrize("name", ["sbibm", "population", "gpu"])
def test_absent_references_are_named(run, name, tmp_path):
    """Beside a copy of the folder there are none."""
    shutil.copytree(FOLDER, tmp_path / "benchmarks")
    place = tmp_path / "benchmarks" / f"{name}.py"
    arguments = ["--only", "mrna,growth"] if name == "population" else []
    if name == "sbibm":
        with pytest.raises(pytest.skip.Exception, match="references"):
            run(place, "--small")
    else:
        assert "skipped" in run(place, "--small", *arguments)


@pytest.mark.parametrize("path", PEERS, ids=lambda path: path.stem)
def test_peer_scripts_import_what_is_installed(path):
    """The peers live in environments of their own; where one is here, its names must be there."""
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module]
            for name in names:
                if importlib.util.find_spec(name.split(".")[0]) is None:
                    pytest.skip(f"{name.split('.')[0]} is not installed in this environment")
                module = importlib.import_module(name)
                if isinstance(node, ast.ImportFrom):
                    assert all(hasattr(module, a.name) for a in node.names)
