"""Files of the present format, for later tests: ``python -m tests.formats.write FOLDER``.

Run it when the format of any kind of file has got a new version, with the next number,
``tests/formats/files_N``, and keep what it wrote. Users have such files on their disks: a folder
that belongs to a release is never written again. Before the first release nobody has any, and
``files_1`` is written anew.
"""

import argparse
import json
import shutil
import tempfile
import warnings
from pathlib import Path

import torch

import pyro_amortized as pa
from tests.exact import TRUTH, linear_cohort, linear_program

NETWORKS = pa.Networks(
    width=16, depth=1, num_summary=4, set_width=4, num_layers=1, num_bins=4, layer_width=4
)
OPTIONS = pa.TrainingOptions(max_epochs=8, batch_size=32, warmup=5, checkpoint_seconds=0.0)
POINTS = torch.tensor([[0.5, 1.0], [1.0, 0.5], [1.75, 0.0]], dtype=torch.float64)


def cohort():
    """The data of all files."""
    return linear_cohort(num=12, width=6, missing=0.2, seed=3)


def train(folder=None, tracker=None):
    """The training of all files, begun or taken up."""
    return pa.train(
        linear_program,
        cohort(),
        num_simulations=400,
        seed=1,
        folder=folder,
        options=OPTIONS,
        networks=NETWORKS,
        tracker=tracker,
        progress=False,
    )


def log_prob(guide):
    """Log density of the points for every individual at the true population parameters."""
    posterior = guide.individual_posterior(cohort(), TRUTH)
    return posterior.log_prob(POINTS.unsqueeze(1).expand(-1, 12, -1))


class Killer:
    """A tracker that ends a training at its fourth check, with three of eight epochs done."""

    def __init__(self):
        self.num_checks = 0

    def log_params(self, params):
        """Nothing of it is kept."""

    def log_metric(self, key, value, step):
        """Count the checks."""
        self.num_checks += key == "validation_loss"
        if self.num_checks == 4:
            raise KeyboardInterrupt


def interrupted(folder):
    """Leave the folder of a training that was killed."""
    try:
        train(folder, Killer())
    except KeyboardInterrupt:
        return
    raise RuntimeError("the training was not interrupted")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="tests/formats/files_N, not there yet")
    folder = parser.parse_args().folder
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    folder.mkdir()
    interrupted(folder / "run")
    with tempfile.TemporaryDirectory() as place:
        shutil.copytree(folder / "run", Path(place) / "run")
        guide = train(Path(place) / "run")
    fit = pa.fit_population(linear_program, cohort(), guide=guide, num_draws=50, seed=2)
    fit.save(folder / "fit")
    expected = {
        "log_prob": log_prob(guide).tolist(),
        "estimates": {name: x.tolist() for name, x in fit.estimates.items()},
        "standard_errors": {name: x.tolist() for name, x in fit.standard_errors.items()},
        "minus2ll": fit.minus2ll,
        "seconds": guide.history.seconds,
        "validation_loss": guide.history.validation_loss,
    }
    (folder / "expected.json").write_text(json.dumps(expected, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
