"""Models that people build: search, events, counts, sites, occasions. ``--only events,counts`` runs
parts.

The last line is JSON: ``claims`` has a value, a bound and whether it holds by the name of the claim.
"""

import argparse
import json
import tempfile
from pathlib import Path

import endpoints
import model_building_search

EVENTS = (*endpoints.ENDS, "recurrent", *endpoints.JOINT_BASE)


def events(options):
    names = ["alone 60 %"] if options.small else EVENTS
    claims = endpoints.likelihood_errors([n for n in names if n != "recurrent"])
    return claims | endpoints.coverage(
        names, options.cohorts or 200, options.workers, options.folder
    )


def counts(options):
    names = ["binary"] if options.small else endpoints.COUNTS
    claims = endpoints.likelihood_errors(names)
    return claims | endpoints.coverage(
        names, options.cohorts or 200, options.workers, options.folder
    )


PARTS = {
    "search": model_building_search.claims,
    "events": events,
    "counts": counts,
    "sites": lambda options: endpoints.site_claims(4 if options.small else 20),
    "occasions": lambda options: endpoints.occasion_claims(6 if options.small else 73),
}


def main(options):
    claims = {}
    if options.small:
        options.cohorts, options.workers, options.folder = 1, 1, Path(tempfile.mkdtemp())
        options.only = "search,counts"
    for name in options.only.split(","):
        claims |= PARTS[name](options)
    for name, claim in claims.items():
        print(
            f"{'holds' if claim['holds'] else 'misses':6s} {name}: {claim['value']:.4g}, bound {claim['bound']}"
        )
    print(json.dumps({"benchmark": "model_building", "claims": claims}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts of {', '.join(PARTS)}")
    parser.add_argument(
        "--small", action="store_true", help="a cohort of some parts, to see that it runs"
    )
    parser.add_argument("--cohorts", type=int, help="cohorts of each part; 200 of a coverage")
    parser.add_argument("--workers", type=int, default=2, help="processes of the coverage")
    parser.add_argument(
        "--folder", type=Path, default=Path("output/model_building"), help="results of the cohorts"
    )
    main(parser.parse_args())
