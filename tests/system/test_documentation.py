"""Pages that are made from the code are up to date; examples in pages run; nothing public is left
out of the reference.
"""

import inspect
import re
import subprocess
import sys
from importlib.metadata import metadata, requires

import pytest

import pyro_amortized as pa
from pyro_amortized import diagnostics, encode, missing, networks, nlme
from pyro_amortized.diagnostics import plots
from tests.paths import ROOT

DOCS = ROOT / "docs"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gallery", "errors", "architecture"])
def test_pages_made_by_scripts_are_up_to_date(name):
    script = ROOT / "scripts" / f"{name}.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_example_of_the_gallery_has_a_figure_and_is_short():
    pages = sorted((DOCS / "gallery").glob("*.md"))
    assert len(pages) >= 10
    for page in pages:
        figure = DOCS / "figures" / "gallery" / f"{page.stem}.png"
        assert 5_000 < figure.stat().st_size < 500_000, figure
        script = re.search(r"literalinclude\} ../../(\S+)", page.read_text("utf-8"))[1]
        assert len((ROOT / script).read_text("utf-8").splitlines()) < 120, script


def public(module):
    """Functions and classes that a module offers."""
    return [
        name
        for name, x in vars(module).items()
        if not name.startswith("_") and (inspect.isclass(x) or inspect.isfunction(x))
    ]


@pytest.mark.parametrize("module", [pa, nlme, diagnostics, plots, encode, networks, missing])
def test_the_reference_is_complete(module):
    page = (DOCS / "api.md").read_text("utf-8")
    documented = re.findall(r"automodule:: (\S+)\n   :members:", page)
    named = set(re.findall(r"auto(?:class|function|exception|data):: (?:\S*\.)?(\w+)", page))
    missing_names = [
        name
        for name in public(module)
        if name not in named and getattr(module, name).__module__ not in documented
    ]
    assert missing_names == []


@pytest.mark.slow
@pytest.mark.usefixtures("rough_training_distributions")
def test_the_extension_points_work(tmp_path, monkeypatch):
    """All code of the page, in order."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "extend.md").read_text("utf-8"), re.DOTALL)
    assert len(blocks) >= 8
    names = {"__name__": "extend"}
    for block in blocks:
        exec(compile(block, "extend.md", "exec"), names)
    assert names["log_marginal"].isfinite()
    assert names["solution"].states.shape == (3, 5, 1)
    assert names["individuals"].estimate.ess.min() > 10


def test_links_between_pages_lead_somewhere():
    for page in DOCS.glob("*.md"):
        for target in re.findall(r"\]\(([\w/]+\.md)[#)]?", page.read_text("utf-8")):
            assert (page.parent / target).is_file(), f"{page.name}: {target}"


PERMISSIVE = re.compile(r"apache|bsd|mit\b|mit license|python software|psf|mpl|isc", re.IGNORECASE)


def test_dependencies_have_permissive_licences():
    """Those that an installation without extras brings."""
    names = [re.match(r"[\w.-]+", r)[0] for r in requires("pyro-amortized") if "extra ==" not in r]
    assert len(names) <= 14
    for name in names:
        description = metadata(name)
        said = " ".join(
            [description.get("License-Expression") or "", (description.get("License") or "")[:200]]
            + [c for c in description.get_all("Classifier") or [] if c.startswith("License")]
        )
        assert PERMISSIVE.search(said), f"{name}: {said[:80]}"
