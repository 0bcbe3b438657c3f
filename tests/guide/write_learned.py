"""The guide of ``test_learned_likelihood.py``: ``python -m tests.guide.write_learned``.

It takes a minute of training, and its accuracy differs between kinds of processors. Run this again
when the format of guides or the networks change, and keep what it wrote.
"""

from dataclasses import replace
from pathlib import Path

import pyro_amortized as pa
from tests.exact import linear_cohort, linear_program
from tests.small import NETWORKS

FOLDER = Path(__file__).parent / "learned_linear"
OPTIONS = pa.TrainingOptions(max_epochs=5, batch_size=256)


def main():
    guide = pa.train(
        linear_program,
        linear_cohort(),
        num_simulations=90_000,
        seed=1,
        options=OPTIONS,
        networks=replace(NETWORKS, learn_shared=True),
        progress=False,
    )
    guide.save(FOLDER)


if __name__ == "__main__":
    main()
