"""Files of every format that there has been are read, and an invented older format as well.

``python -m tests.formats.write tests/formats/files_N`` wrote the folders; it says when to do so.
"""

import json
import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save

import pyro_amortized as pa
from pyro_amortized.errors import AmortizedError, FitError, GuideError
from pyro_amortized.guide.files import guide_folder
from pyro_amortized.population.results import fit_files
from pyro_amortized.runtime import claimed_folders
from pyro_amortized.runtime.atomic_files import read_tensors, write_tensors
from pyro_amortized.runtime.file_formats import Content, Format
from pyro_amortized.training import run_folder
from pyro_amortized.training.simulation import shard_store as store
from tests.exact import linear_program
from tests.formats import write
from tests.paths import TESTS

FOLDERS = sorted((TESTS / "formats").glob("files_*"))
NUM_CHECKED = 3  # losses in the checkpoint of the run
every_folder = pytest.mark.parametrize("files", FOLDERS, ids=lambda path: path.name)


def expected(files):
    return json.loads((files / "expected.json").read_text("utf-8"))


def check_guide(files, place):
    guide = pa.load_guide(place, linear_program, write.cohort())
    log_prob = write.log_prob(guide)
    assert torch.allclose(log_prob, torch.tensor(expected(files)["log_prob"]).double(), rtol=1e-6)
    return guide


def check_fit(files, place):
    fit = pa.load_fit(place, linear_program)
    known = expected(files)
    for name in ("estimates", "standard_errors"):
        for site, x in getattr(fit, name).items():
            assert torch.allclose(x, torch.tensor(known[name][site]).to(x), rtol=1e-6), (name, site)
    assert fit.minus2ll == pytest.approx(known["minus2ll"], rel=1e-6)
    assert "sigma" in str(fit.summary())
    return fit


def check_run(files, place):
    """It goes on from the checkpoint, whose losses and seconds it keeps, and ends as the other."""
    known = expected(files)
    before = {path: path.read_bytes() for path in (place / "simulations").iterdir()}
    history = write.train(place).history
    assert history.seconds[:NUM_CHECKED] == known["seconds"][:NUM_CHECKED]
    assert history.validation_loss[:NUM_CHECKED] == known["validation_loss"][:NUM_CHECKED]
    assert history.validation_loss == pytest.approx(known["validation_loss"], abs=0.01)
    assert history.validation_loss[-1] < history.validation_loss[NUM_CHECKED - 1] - 0.05
    assert before == {path: path.read_bytes() for path in (place / "simulations").iterdir()}


@every_folder
def test_a_guide_is_read(files):
    check_guide(files, files / "fit" / "guide")


@every_folder
def test_a_fit_is_read(files):
    check_fit(files, files / "fit")


@pytest.mark.slow
@every_folder
def test_a_run_is_taken_up(files, tmp_path):
    shutil.copytree(files / "run", tmp_path / "run")
    check_run(files, tmp_path / "run")


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(x, other[n]) for n, x in one.items())


def shapes(tensors):
    return {name: x.shape for name, x in tensors.items()}


def test_what_is_written_has_the_form_of_the_newest_folder(tmp_path):
    """Who changes what a file holds gives its format a new version and writes a new folder."""
    files = FOLDERS[-1]
    check_fit(files, files / "fit").save(tmp_path)
    old, new = (read_tensors(place / "fit.safetensors") for place in (files / "fit", tmp_path))
    assert new[1] == old[1]
    assert same(new[0], old[0])
    old, new = (place / "guide" for place in (files / "fit", tmp_path))
    assert json.loads((new / "guide.json").read_text()) == json.loads(
        (old / "guide.json").read_text()
    )
    assert same(*(load_file(place / "weights.safetensors") for place in (new, old)))


@pytest.mark.slow
def test_what_a_run_writes_has_the_form_of_the_newest_folder(tmp_path):
    files = FOLDERS[-1] / "run"
    write.interrupted(tmp_path)
    paths = sorted(path.relative_to(files) for path in files.rglob("*.safetensors"))
    assert paths == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.safetensors"))
    for path in paths:
        (new, described), (old, description) = (
            read_tensors(place / path) for place in (tmp_path, files)
        )
        assert shapes(new) == shapes(old)
        assert described.keys() == description.keys()
        assert described["format_version"] == description["format_version"]
        if "progress" in described:
            assert described["progress"].keys() == description["progress"].keys()
    written, known = (json.loads((place / "run.json").read_text()) for place in (tmp_path, files))
    assert written.keys() == known.keys()
    assert written["format_version"] == known["format_version"]
    for name in ("options", "networks"):
        assert written[name] == known[name]


# An invented version 0: everything lies one floor deeper, and tensors have other names.


def aged(description, tensors):
    rest = {name: x for name, x in description.items() if name != "format_version"}
    return {"format_version": 0, "everything": rest}, {f"old {n}": x for n, x in tensors.items()}


def upgrade(content):
    tensors = {name.removeprefix("old "): x for name, x in content.tensors.items()}
    return Content(content.description["everything"], tensors)


def age_tensors(path):
    tensors, description = read_tensors(path)
    description, tensors = aged(description, tensors)
    write_tensors(path, tensors, description)


def age_guide(place):
    description = json.loads((place / "guide.json").read_text("utf-8"))
    description, tensors = aged(description, load_file(place / "weights.safetensors"))
    content = save(tensors)
    (place / "weights.safetensors").write_bytes(content)
    description["weights"] = sha256(content).hexdigest()  # in its place in every format
    (place / "guide.json").write_text(json.dumps(description), "utf-8")


def age_settings(path):
    description, _ = aged(json.loads(path.read_text("utf-8")), {})
    path.write_text(json.dumps(description), "utf-8")


@pytest.fixture
def old(tmp_path):
    """A copy of the newest folder in which every file is of version 0."""
    shutil.copytree(FOLDERS[-1], tmp_path / "files")
    place = tmp_path / "files"
    for path in place.rglob("*.safetensors"):
        if path.name != "weights.safetensors":
            age_tensors(path)
    age_guide(place / "fit" / "guide")
    age_settings(place / "run" / "run.json")
    return place


def with_upgrade(monkeypatch, *readers):
    for reader in readers:
        formats = {name: x for name, x in vars(reader).items() if isinstance(x, Format)}
        for name, known in formats.items():
            monkeypatch.setattr(reader, name, replace(known, upgrades={0: upgrade}))


def test_a_guide_of_an_older_format_is_read(old, monkeypatch):
    with pytest.raises(GuideError, match=r"guide.json has format version 0(.|\n)*version 1\."):
        check_guide(old, old / "fit" / "guide")
    with_upgrade(monkeypatch, guide_folder)
    check_guide(old, old / "fit" / "guide")


def test_a_fit_of_an_older_format_is_read(old, monkeypatch):
    with pytest.raises(FitError, match=r"fit.safetensors has format version 0(.|\n)*version 1\."):
        check_fit(old, old / "fit")
    with_upgrade(monkeypatch, guide_folder, fit_files)
    check_fit(old, old / "fit")


@pytest.mark.slow
def test_a_run_of_an_older_format_is_taken_up(old, monkeypatch):
    place = old / "run"
    refused = {
        "run.json": lambda: run_folder.claim_folder(place, {}),
        "validation.safetensors": lambda: store.SimulationStore(place / "simulations").read(-1),
        "checkpoint.safetensors": lambda: run_folder.read_checkpoint(
            place / "checkpoint.safetensors"
        ),
    }
    for name, reader in refused.items():
        with pytest.raises(AmortizedError, match=rf"{name} has format version 0"):
            reader()
    with_upgrade(monkeypatch, claimed_folders, run_folder, store)
    check_run(old, place)


# The table of upgrades.


def step(number):
    """Adds its number to a list."""
    return lambda content: Content(
        {**content.description, "steps": [*content.description["steps"], number]}, content.tensors
    )


def read(description, **settings):
    return Format("make it again", **settings).newest(Path("a file"), description, {})


def test_every_version_goes_through_all_that_follow_it():
    upgrades = {1: step(1), 2: step(2), 3: step(3)}
    for version in (1, 2, 3, 4):
        content = read(
            {"format_version": version, "steps": []}, version=4, upgrades=upgrades
        ).description
        assert content == {"format_version": 4, "steps": list(range(version, 4))}


@pytest.mark.parametrize("version", [1, 5, -1, True, 3.0, "4", None])
def test_versions_without_a_way_are_refused(version):
    """Version 1 has an upgrade, but version 2 has none."""
    upgrades = {1: step(1), 3: step(3)}
    with pytest.raises(AmortizedError, match=r"a file has format version .*\n.*version 3 to 4\."):
        read({"format_version": version, "steps": []}, version=4, upgrades=upgrades)


@pytest.mark.parametrize("description", [[], "text", None, 1])
def test_a_description_that_is_none_is_refused(description):
    with pytest.raises(AmortizedError, match=r"format version None.\n.*version 1\."):
        read(description)


def test_an_older_file_that_is_damaged_is_named():
    with pytest.raises(AmortizedError, match=r"a file cannot be used: KeyError\('steps'\)"):
        read({"format_version": 1}, version=2, upgrades={1: step(1)})
