"""A folder is recognised by the settings of what was begun in it."""

import json

import pytest

from pyro_amortized.errors import AmortizedError
from pyro_amortized.runtime.claimed_folders import changed_settings

SETTINGS = {"seed": 1, "values": [0.25, 1 / 3], "names": {"a": None}}


def test_a_new_folder_gets_the_settings(tmp_path):
    folder = tmp_path / "inner" / "run"
    assert changed_settings(folder, "run.json", SETTINGS) == ""
    written = json.loads((folder / "run.json").read_text())
    assert {name: written[name] for name in SETTINGS} == SETTINGS


def test_the_same_settings_may_differ_in_the_last_digits(tmp_path):
    changed_settings(tmp_path, "run.json", SETTINGS)
    almost = SETTINGS | {"values": [0.25, 0.33333334]}
    assert changed_settings(tmp_path, "run.json", almost) == ""


@pytest.mark.parametrize(
    "change", [{"seed": 2}, {"values": [0.25, 0.34]}, {"values": [0.25]}, {"names": {"b": None}}]
)
def test_what_is_different_is_named(tmp_path, change):
    changed_settings(tmp_path, "run.json", SETTINGS)
    (name,) = change
    assert changed_settings(tmp_path, "run.json", SETTINGS | change).startswith(f"{name} = ")


def test_a_damaged_file_is_an_error(tmp_path):
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(AmortizedError, match="cannot be read"):
        changed_settings(tmp_path, "run.json", SETTINGS)
