"""Versions of file formats, with formats made up for the test."""

import pytest
import torch

from pyro_amortized.errors import AmortizedError
from pyro_amortized.runtime.file_formats import Content, Format


def doubled(content):
    return Content(content.description, {"x": 2 * content.tensors["x"]})


def renamed(content):
    description = dict(content.description)
    description["size"] = description.pop("length")
    return Content(description, content.tensors)


FORMAT = Format("make it again", version=3, upgrades={1: renamed, 2: doubled})


@pytest.mark.parametrize(
    ("version", "description", "factor"),
    [(1, {"length": 5}, 2.0), (2, {"size": 5}, 2.0), (3, {"size": 5}, 1.0)],
)
def test_older_content_is_brought_to_the_newest_version(tmp_path, version, description, factor):
    newest = FORMAT.newest(
        tmp_path, {"format_version": version} | description, {"x": torch.ones(2)}
    )
    assert newest.description == {"size": 5, "format_version": 3}
    assert torch.equal(newest.tensors["x"], factor * torch.ones(2))


@pytest.mark.parametrize("version", [0, 4, "3", 3.0, True, None])
def test_versions_that_cannot_be_read(tmp_path, version):
    with pytest.raises(AmortizedError, match="format version") as caught:
        FORMAT.check(tmp_path / "file", {"format_version": version})
    assert caught.value.expected == "version 1 to 3."
    assert "make it again" in caught.value.fix


@pytest.mark.parametrize("description", [{}, [], None, "text"])
def test_a_file_without_a_version_is_refused(tmp_path, description):
    with pytest.raises(AmortizedError, match="format version None"):
        FORMAT.check(tmp_path, description)


def test_a_gap_in_the_upgrades_ends_what_can_be_read():
    assert Format("", version=4, upgrades={3: doubled, 1: renamed}).oldest == 3
    assert Format("").oldest == 1


def test_content_that_does_not_agree_with_its_version_is_named(tmp_path):
    with pytest.raises(AmortizedError, match="cannot be used") as caught:
        FORMAT.newest(tmp_path / "file", {"format_version": 1}, {})
    assert "format version 1" in caught.value.expected


def test_the_version_is_written_first():
    assert list(FORMAT.stamped({"a": 1}).items()) == [("format_version", 3), ("a", 1)]
