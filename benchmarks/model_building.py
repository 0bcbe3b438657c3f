r"""Models that people build: every part is a module with ``add_arguments`` and ``claims``.

python benchmarks/model_building.py [--only search] [options of the parts]

Each part prints a table; the last line is JSON with ``claims``: name -> {value, bound, holds}.
"""

import argparse
import importlib
import json
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

# Name of a part and its module, which has ``add_arguments(parser)`` and ``claims(arguments)``: rows
# (name, value, bound, "at least" or "at most").
PARTS = {"search": "model_building_search"}


def held(rows):
    """Each claim with its value and bound."""
    return {
        name: {
            "value": value,
            "bound": bound,
            "holds": value >= bound if sense == "at least" else value <= bound,
        }
        for name, value, bound, sense in rows
    }


def main():
    modules = {name: importlib.import_module(module) for name, module in PARTS.items()}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--small", action="store_true", help="some seconds, to see that it runs")
    for module in modules.values():
        module.add_arguments(parser)
    arguments = parser.parse_args()
    rows = [row for name in arguments.only for row in modules[name].claims(arguments)]
    print(json.dumps({"benchmark": "model_building", "claims": held(rows)}))


if __name__ == "__main__":
    main()
