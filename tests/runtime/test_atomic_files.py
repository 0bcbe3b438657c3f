"""Files that are complete or absent; tensors and their description come back as they were."""

import json

import pytest
import torch

from pyro_amortized.errors import AmortizedError
from pyro_amortized.runtime import atomic_files
from pyro_amortized.runtime.atomic_files import (
    fingerprint,
    make_folder,
    read_json,
    read_tensors,
    write_atomically,
    write_tensors,
)


def test_a_failed_write_leaves_the_old_file_and_no_part(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fail(_):
        raise OSError("no space left")

    monkeypatch.setattr(atomic_files.os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        write_atomically(path, b"new and longer")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_tensors_and_description_come_back(tmp_path):
    tensors = {
        "single": torch.tensor([1.0, float("nan"), float("inf")]),
        "double": torch.randn(3, 2, dtype=torch.float64, requires_grad=True).T,  # not contiguous
        "mask": torch.tensor([True, False]),
        "count": torch.tensor(7),
        "empty": torch.zeros(0, 2),
    }
    description = {"ids": ["ä", "1"], "sizes": [1, 2.5, None], "nested": {"deep": True}}
    write_tensors(tmp_path / "file", tensors, description)
    loaded, described = read_tensors(tmp_path / "file")
    assert described == description
    assert loaded.keys() == tensors.keys()
    for name, x in tensors.items():
        assert loaded[name].dtype == x.dtype
        assert torch.allclose(loaded[name], x.detach(), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("length", [0, 5, 40, -1])
def test_a_file_that_was_cut_is_named(tmp_path, length):
    path = tmp_path / "file"
    write_tensors(path, {"x": torch.randn(100)}, {})
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(AmortizedError, match="file cannot be read"):
        read_tensors(path)


@pytest.mark.parametrize("content", [b"", b"[1, 2]", b'{"a": ', b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_json_object_is_named(tmp_path, content):
    path = tmp_path / "file.json"
    path.write_bytes(content)
    with pytest.raises(AmortizedError, match=r"file\.json cannot be read"):
        read_json(path)


def test_json_objects_up_to_a_size(tmp_path, monkeypatch):
    path = tmp_path / "file.json"
    path.write_text(json.dumps({"a": [1, 2]}), "utf-8")
    assert read_json(path) == {"a": [1, 2]}
    monkeypatch.setattr(atomic_files, "MAX_JSON", 3)
    with pytest.raises(AmortizedError, match="at most 3 are read"):
        read_json(path)
    with pytest.raises(AmortizedError, match="absent"):
        read_json(tmp_path / "absent")


def test_folders_are_made_with_their_parents(tmp_path):
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(AmortizedError, match="cannot be made"):
        make_folder(tmp_path / "file")


def test_fingerprints_see_names_types_shapes_and_values():
    x = torch.arange(6.0)
    known = fingerprint({"x": x, "y": x + 1})
    assert fingerprint({"y": x + 1, "x": x.clone()}) == known
    others = [
        {"y": x, "x": x + 1},
        {"x": x, "z": x + 1},
        {"x": x.double(), "y": x + 1},
        {"x": x.reshape(2, 3), "y": x + 1},
        {"x": x.flip(0), "y": x + 1},
        {"x": x},
    ]
    assert known not in {fingerprint(other) for other in others}


def test_tensors_that_were_read_begin_as_new_ones_do(tmp_path):
    """What is computed from a tensor depends, in its last digits, on where it begins."""
    tensors = {f"x{i}": torch.ones(i + 1, dtype=torch.float64) for i in range(12)}
    write_tensors(tmp_path / "file", tensors, {})
    read, _ = read_tensors(tmp_path / "file")
    assert all(x.data_ptr() % 64 == 0 for x in read.values())
