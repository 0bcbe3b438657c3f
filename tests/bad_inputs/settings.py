"""Settings of training, networks, designs."""

import torch

import pyro_amortized as pa
from tests.exact import linear_program

from .kit import NAN, cohort

FEW = pa.TrainingOptions(max_epochs=1, batch_size=64)


def _train(k, model=linear_program, data=None, **more):
    data = k.cohort if data is None else data
    return pa.train(
        model, data, **({"num_simulations": 200, "options": FEW, "progress": False} | more)
    )


def _other(num):
    return lambda n, generator: cohort(num)


OPTIONS = {
    "batch_size": (0, -1, 1.5, "many"),
    "max_epochs": (0, -3, 2.5),
    "learning_rate": (0.0, -1.0, NAN, "fast"),
    "warmup": (-1,),
    "patience": (0,),
    "validation_share": (0.0, 1.0, NAN),
    "average_decay": (1.0, -0.1),
    "max_gradient": (0.0, NAN),
    "weight_decay": (-0.1,),
    "num_noise": (0,),
    "num_workers": (-1, 1.5),
    "num_threads": (0, -2, 1.5),
    "device": ("abacus", "cuda:99", 3.5),
    "checkpoint_seconds": (-1.0,),
}
NETWORKS = {
    "width": (0, -1, 1.5),
    "num_summary": (0,),
    "set_width": (0,),
    "num_layers": (-1, "two"),
    "num_bins": (0, 1),
    "layer_width": (0,),
    "depth": (-1,),
}
SETTINGS = {
    f"options: {name} is {value!r}": (
        lambda k, name=name, value=value: pa.TrainingOptions(**{name: value}),
        str(value) if name == "device" else name,
    )
    for name, values in OPTIONS.items()
    for value in values
}
SETTINGS |= {
    f"networks: {name} is {value!r}": (
        lambda k, name=name, value=value: pa.Networks(**{name: value}),
        name,
    )
    for name, values in NETWORKS.items()
    for value in values
}
SETTINGS |= {
    f"train: {n}": x
    for n, x in {
        "no simulations": (lambda k: _train(k, num_simulations=0), "`num_simulations` is 0"),
        "fewer than none": (lambda k: _train(k, num_simulations=-5), "is -5"),
        "simulations in words": (lambda k: _train(k, num_simulations="many"), "'many'"),
        "half a simulation": (lambda k: _train(k, num_simulations=1000.5), "1000.5"),
        "no time": (lambda k: _train(k, budget=0), "budget"),
        "sharpened with a word": (lambda k: _train(k, sharpen="yes"), "sharpen"),
        "time without a unit": (lambda k: _train(k, budget="fast"), "'fast'"),
        "time in parsecs": (lambda k: _train(k, budget="5 parsecs"), "parsecs"),
        "time that is no number": (lambda k: _train(k, budget=NAN), "budget"),
        "time before now": (lambda k: _train(k, budget="-5min"), "-5min"),
        "seed 1.5": (lambda k: _train(k, seed=1.5), "1.5"),
        "seed -1": (lambda k: _train(k, seed=-1), "-1"),
        "seed in words": (lambda k: _train(k, seed="one"), "'one'"),
        "no seed": (lambda k: _train(k, seed=None), "None"),
        "data are a tensor": (lambda k: _train(k, data=torch.ones(3, 4)), "Tensor"),
        "data are a dictionary": (lambda k: _train(k, data={"y": 1}), "dict"),
        "a model that is no function": (lambda k: _train(k, model=7), "callable"),
        "a design that gives nothing": (
            lambda k: _train(k, data=lambda num, generator: None),
            "NoneType",
        ),
        "a design of another number": (lambda k: _train(k, data=_other(2)), "2 individuals"),
        "a design without arguments": (lambda k: _train(k, data=lambda: None), "design"),
        "options that are a dictionary": (
            lambda k: _train(k, options={"batch_size": 3}),
            "TrainingOptions",
        ),
        "networks that are a dictionary": (lambda k: _train(k, networks={}), "Networks"),
        "a warm start from a file name": (lambda k: _train(k, warm_start="guide"), "guide"),
        "a tracker that cannot listen": (lambda k: _train(k, tracker=3), "tracker"),
        "a file for a folder": (lambda k: _train(k, folder=_file(k)), "folder"),
        "missing more than everything": (
            lambda k: pa.RandomMissing(max_share=1.5),
            "max_share",
        ),
        "missing less than nothing": (lambda k: pa.RandomMissing(min_share=-0.1), "min_share"),
        "missing from more to less": (
            lambda k: pa.RandomMissing(min_share=0.5, max_share=0.2),
            "min_share",
        ),
        "complete more often than always": (
            lambda k: pa.RandomMissing(complete=2.0),
            "complete",
        ),
        "resampled from nothing": (lambda k: pa.Resample(None), "Cohort"),
    }.items()
}


def _file(k):
    path = k.folder / "file"
    path.write_text("not a folder")
    return path
