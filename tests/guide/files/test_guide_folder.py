r"""Guides are saved and loaded."""

import json
import subprocess
import sys

import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.errors import GuideError
from tests.exact import TRUTH, linear_program
from tests.paths import ROOT
from tests.programs import STYLES, growth_cohort


@pytest.mark.slow
def test_saved_guide_draws_the_same_in_a_new_process(linear, linear_guide, tmp_path):
    linear_guide.save(tmp_path / "guide")
    names = {p.name for p in (tmp_path / "guide").iterdir()}
    assert names == {"weights.safetensors", "guide.json"}
    code = (
        "import json, sys, warnings; warnings.simplefilter('ignore')\n"
        "import pyro_amortized as pa\n"
        "from tests.exact import TRUTH, linear_cohort, linear_program\n"
        "cohort = linear_cohort()\n"
        f"guide = pa.load_guide({str(tmp_path / 'guide')!r}, linear_program, cohort)\n"
        "draws = pa.sample_individuals(\n"
        "    linear_program, cohort, TRUTH, guide=guide, num_draws=50, seed=3)\n"
        "print(json.dumps(draws.unconstrained.flatten().tolist()))\n"
    )
    root = ROOT
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=root
    )
    here = pa.sample_individuals(
        linear_program, linear, TRUTH, guide=linear_guide, num_draws=50, seed=3
    )
    there = torch.tensor(json.loads(done.stdout.splitlines()[-1]), dtype=torch.float64)
    assert torch.allclose(here.unconstrained.flatten(), there, rtol=1e-12, atol=1e-12)


def test_loading_refuses_what_does_not_fit(linear, linear_guide, tmp_path):
    with pytest.raises(GuideError, match="holds no"):
        pa.load_guide(tmp_path, linear_program, linear)
    linear_guide.save(tmp_path)
    with pytest.raises(GuideError, match="individual sites"):
        pa.load_guide(tmp_path, STYLES["several_supports"], growth_cohort(4))
    description = json.loads((tmp_path / "guide.json").read_text("utf-8"))
    description["format_version"] = 99
    (tmp_path / "guide.json").write_text(json.dumps(description), "utf-8")
    with pytest.raises(GuideError, match="format version 99"):
        pa.load_guide(tmp_path, linear_program, linear)
