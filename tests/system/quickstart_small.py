"""The quickstart on few simulations, with an installed package: quickstart_small.py PREFIX.

``scripts/wheel.sh`` runs it beside a copy of ``examples/quickstart.py``; the package must come from
the environment PREFIX.
"""

import sys
import warnings
from pathlib import Path

import quickstart

import pyro_amortized as pa


def main(prefix):
    place = Path(pa.__file__).resolve()
    assert place.is_relative_to(Path(prefix).resolve()), f"imported from {place}"
    warnings.simplefilter("ignore", pa.AmortizedWarning)  # of a guide that is trained so little
    options = pa.TrainingOptions(max_epochs=4)
    guide = pa.train(
        quickstart.model,
        quickstart.cohort,
        num_simulations=4000,
        seed=1,
        options=options,
        progress=False,
    )
    fit = pa.fit_population(quickstart.model, quickstart.cohort, guide=guide, seed=1)
    print(fit.summary())  # noqa: T201
    assert abs(fit.minus2ll - 360.70) < 2.0  # the exact maximum, by quadrature


if __name__ == "__main__":
    main(sys.argv[1])
