"""Entry point of ``python -m pyro_amortized``: the command line."""

import sys

from .cli import main

sys.exit(main())
