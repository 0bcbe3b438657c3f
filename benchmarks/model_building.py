"""Models that people build: events, counts, sites, occasions. ``--only events,counts`` runs parts.

The last line is JSON: ``claims`` has a value, a bound and whether it holds by the name of the claim.
"""

import argparse
import json
from pathlib import Path

import endpoints

EVENTS = (*endpoints.ENDS, "recurrent", *endpoints.JOINT_BASE)


def events(options):
    claims = endpoints.likelihood_errors([n for n in EVENTS if n != "recurrent"])
    return claims | endpoints.coverage(EVENTS, options.cohorts, options.workers, options.folder)


def counts(options):
    claims = endpoints.likelihood_errors(endpoints.COUNTS)
    names = endpoints.COUNTS
    return claims | endpoints.coverage(names, options.cohorts, options.workers, options.folder)


PARTS = {
    "events": events,
    "counts": counts,
    "sites": lambda options: endpoints.site_claims(),
    "occasions": lambda options: endpoints.occasion_claims(),
}


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
    parser.add_argument("--cohorts", type=int, default=200, help="cohorts of each coverage")
    parser.add_argument("--workers", type=int, default=2, help="processes of the coverage")
    parser.add_argument(
        "--folder", type=Path, default=Path("output/model_building"), help="results of the cohorts"
    )
    main(parser.parse_args())
