"""Folders and files that are not what they should be, by accident or on purpose."""

import json
import shutil
from hashlib import sha256

import torch
from safetensors.torch import load_file, save_file

import pyro_amortized as pa
from tests.exact import linear_program
from tests.programs import bare_sigma, growth_cohort

from .kit import cohort

BOMB = 10**9


def _saved(k):
    if not (k.folder / "guide.json").exists():
        k.guide.save(k.folder)
    return k.folder


def _load(k, model=linear_program, data=None, path=None):
    return pa.load_guide(path or _saved(k), model, data or k.cohort)


def _text(k, text):
    (_saved(k) / "guide.json").write_text(text)
    return _load(k)


def _described(k, change):
    path = _saved(k) / "guide.json"
    description = json.loads(path.read_text())
    change(description)
    path.write_text(json.dumps(description))
    return _load(k)


def _set(*names, to):
    def change(description):
        for name in names[:-1]:
            description = description[name]
        description[names[-1]] = to

    return change


def _bytes(k, change):
    path = _saved(k) / "weights.safetensors"
    path.write_bytes(change(path.read_bytes()))
    _sealed(k)
    return _load(k)


def _sealed(k):
    """What an attacker would do: the digest of the changed weights in the description."""
    path = k.folder / "guide.json"
    description = json.loads(path.read_text())
    content = (k.folder / "weights.safetensors").read_bytes()
    path.write_text(json.dumps(description | {"weights": sha256(content).hexdigest()}))


def _swapped(k):
    """The weights of one guide with the description of another."""
    path = _saved(k) / "weights.safetensors"
    tensors = load_file(path)
    save_file(
        {n: x * 1.5 if n.startswith("posterior.flow") else x for n, x in tensors.items()}, path
    )
    return _load(k)


def _weights(k, change):
    path = _saved(k) / "weights.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    _sealed(k)
    return _load(k)


def _without(k, name):
    path = _saved(k) / name
    path.unlink()
    return _load(k, path=k.folder)


def _first(tensors):
    return next(n for n in sorted(tensors) if n.startswith("posterior.flow"))


def _nan(tensors):
    tensors[_first(tensors)] = tensors[_first(tensors)] * float("nan")


def _integers(tensors):
    tensors[_first(tensors)] = tensors[_first(tensors)].long()


def _reshaped(tensors):
    tensors[_first(tensors)] = tensors[_first(tensors)].flatten()[:1]


def _long_header(content):
    return (2**62).to_bytes(8, "little") + content[8:]


def _outside(k):
    """A header that points behind the end of the file."""
    header = json.dumps({"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}).encode()
    content = len(header).to_bytes(8, "little") + header
    return _bytes(k, lambda _: content)


def _run(k, change):
    """A training taken up in a folder whose files were changed."""
    options = pa.TrainingOptions(max_epochs=1, batch_size=64)

    def go():
        return pa.train(
            linear_program,
            k.cohort,
            num_simulations=300,
            seed=1,
            training_distribution=k.guide.training_distribution,
            folder=k.folder,
            options=options,
            progress=False,
        )

    go()
    change(k.folder)
    return go()


def _cut(name):
    def change(folder):
        path = next(folder.rglob(name))
        path.write_bytes(path.read_bytes()[:-40])

    return change


def _written(name, text):
    def change(folder):
        next(folder.rglob(name)).write_text(text)

    return change


def _newer(folder):
    path = folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 99}))


def _fit_cut(k):
    k.fit.save(k.folder)
    path = k.folder / "fit.safetensors"
    path.write_bytes(path.read_bytes()[:-16])
    return pa.load_fit(k.folder, linear_program)


def _fit_newer(k):
    k.fit.save(k.folder)
    path = k.folder / "fit.safetensors"
    content = path.read_bytes()
    assert b'\\"format_version\\": 1' in content
    path.write_bytes(content.replace(b'\\"format_version\\": 1', b'\\"format_version\\": 9'))
    return pa.load_fit(k.folder, linear_program)


def _fit_without_guide(k):
    k.fit.save(k.folder)
    shutil.rmtree(k.folder / "guide")
    return pa.load_fit(k.folder, linear_program)


def _fit_other(k):
    k.fit.save(k.folder)
    return pa.load_fit(k.folder, bare_sigma)


FOLDERS = {
    f"folder: {n}": x
    for n, x in {
        "not there": (lambda k: _load(k, path=k.folder / "none"), "none"),
        "empty": (lambda k: _load(k, path=k.folder), "guide.json"),
        "a number": (lambda k: _load(k, path=3), "path"),
        "without description": (lambda k: _without(k, "guide.json"), "guide.json"),
        "without weights": (lambda k: _without(k, "weights.safetensors"), "weights"),
        "description is empty": (lambda k: _text(k, ""), "guide.json"),
        "description is cut": (lambda k: _text(k, '{"format_version": 1, "indi'), "guide.json"),
        "description is a list": (lambda k: _text(k, "[1, 2]"), "guide.json"),
        "description is a number": (lambda k: _text(k, "7"), "guide.json"),
        "description is no text": (lambda k: _text(k, "\x00\x01"), "guide.json"),
        "description is nested without end": (lambda k: _text(k, "[" * 100_000), "guide.json"),
        "description lacks the version": (
            lambda k: _described(k, lambda d: d.pop("format_version")),
            "format version None",
        ),
        "description lacks the flow": (lambda k: _described(k, lambda d: d.pop("flow")), "flow"),
        "description lacks the sites": (
            lambda k: _described(k, lambda d: d.pop("individual")),
            "individual",
        ),
        "newer": (lambda k: _described(k, _set("format_version", to=99)), "99"),
        "version in words": (lambda k: _described(k, _set("format_version", to="new")), "'new'"),
        "version is true": (lambda k: _described(k, _set("format_version", to=True)), "True"),
        "older than any": (lambda k: _described(k, _set("format_version", to=0)), "version 0"),
        "description lacks the digest of the weights": (
            lambda k: _described(k, lambda d: d.pop("weights")),
            "other weights",
        ),
        "description lacks the kind of the summary": (
            lambda k: _described(k, lambda d: d["summary"].pop("kind")),
            "kind",
        ),
        "description lacks the patterns of missing values": (
            lambda k: _described(k, lambda d: d.pop("patterns")),
            "patterns",
        ),
        "a history that lacks a part": (
            lambda k: _described(k, lambda d: d["history"].pop("advice")),
            "advice",
        ),
        "an encoding that is a module": (
            lambda k: _described(k, _set("encoder", "encoding", to="torch")),
            "torch",
        ),
        "an encoding that does not exist": (
            lambda k: _described(k, _set("encoder", "encoding", to="os.system")),
            "os.system",
        ),
        "a summary that is no network": (
            lambda k: _described(k, _set("summary", "kind", to="Callable")),
            "Callable",
        ),
        "a summary that is private": (
            lambda k: _described(k, _set("summary", "kind", to="__loader__")),
            "__loader__",
        ),
        "a setting that no network has": (
            lambda k: _described(k, _set("summary", "command", to="rm")),
            "command",
        ),
        "a network of a billion": (
            lambda k: _described(k, _set("flow", "width", to=BOMB)),
            "flow",
        ),
        "a billion layers": (
            lambda k: _described(k, _set("flow", "num_layers", to=BOMB)),
            "flow",
        ),
        "a billion channels": (
            lambda k: _described(k, _set("encoder", "channels", to=[BOMB])),
            "channels",
        ),
        "a size in words": (lambda k: _described(k, _set("flow", "width", to="wide")), "flow"),
        "a history of something else": (
            lambda k: _described(k, _set("history", to={"command": "rm"})),
            "history",
        ),
        "weights are empty": (lambda k: _bytes(k, lambda b: b""), "weights.safetensors"),
        "weights are cut": (lambda k: _bytes(k, lambda b: b[:-100]), "weights.safetensors"),
        "weights are text": (lambda k: _bytes(k, lambda b: b"weights " * 9), "weights"),
        "weights with an endless header": (lambda k: _bytes(k, _long_header), "weights"),
        "weights that point outside": (_outside, "weights"),
        "weights with a byte flipped in the header": (
            lambda k: _bytes(k, lambda b: b[:30] + bytes([b[30] ^ 255]) + b[31:]),
            "weights",
        ),
        "weights of another training": (_swapped, "other weights"),
        "a weight lacks": (
            lambda k: _weights(k, lambda t: t.pop(_first(t))),
            "posterior.flow",
        ),
        "a weight too many": (
            lambda k: _weights(k, lambda t: t.update({"posterior.more": torch.ones(2)})),
            "posterior.more",
        ),
        "a weight of another shape": (lambda k: _weights(k, _reshaped), "shape"),
        "a weight of integers": (lambda k: _weights(k, _integers), "int64"),
        "a weight that is not a number": (lambda k: _weights(k, _nan), "not finite"),
        "the training distribution lacks": (
            lambda k: _weights(k, lambda t: t.pop("training.loc")),
            "training.loc",
        ),
        "another program": (lambda k: _load(k, bare_sigma, growth_cohort()), "population sites"),
        "other series": (
            lambda k: _load(k, data=pa.Cohort({"z": cohort()["y"]})),
            "'y'",
        ),
        "of a run: shard is cut": (lambda k: _run(k, _cut("shard-000000*")), "shard-000000"),
        "of a run: checkpoint is cut": (lambda k: _run(k, _cut("checkpoint*")), "checkpoint"),
        "of a run: settings are no JSON": (lambda k: _run(k, _written("run.json", "{")), "run"),
        "of a run: settings are a list": (lambda k: _run(k, _written("run.json", "[]")), "run"),
        "of a fit: not there": (
            lambda k: pa.load_fit(k.folder / "none", linear_program),
            "none",
        ),
        "of a fit: is cut": (_fit_cut, "fit.safetensors"),
        "of a run: settings are newer": (lambda k: _run(k, _newer), "format version 99"),
        "of a fit: newer": (_fit_newer, "format version 9"),
        "of a fit: without its guide": (_fit_without_guide, "guide"),
        "of a fit: another program": (_fit_other, "population sites"),
    }.items()
}
