"""Models that people build. ``--only search`` runs parts, separated by commas.

The last line is JSON: ``claims`` has a value, a bound and whether it holds by the name of the claim.
"""

import argparse
import json
from pathlib import Path

import model_building_search

# Each part is a function of the options that gives its claims.
PARTS = {"search": model_building_search.claims}


def main(options):
    claims = {}
    for name in options.only.split(","):
        claims |= PARTS[name](options)
    for name, claim in claims.items():
        print(
            f"{'holds' if claim['holds'] else 'FAILS':6s} {name}: {claim['value']:.4g}, bound {claim['bound']}"
        )
    print(json.dumps({"benchmark": "model_building", "claims": claims}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts of {', '.join(PARTS)}")
    parser.add_argument("--cohorts", type=int, help="cohorts of each part")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--small", action="store_true", help="some seconds, to see that it runs")
    parser.add_argument("--folder", type=Path, help="keeps the results of the cohorts")
    main(parser.parse_args())
