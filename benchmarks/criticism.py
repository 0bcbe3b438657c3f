r"""Which defects of data and models `diagnose` finds, and how often right analyses are blamed.

Cohorts of 48 individuals are simulated from three models (`criticism_studies.py`) and four of other
outcomes (`criticism_outcomes.py`), a defect is planted (`criticism_defects.py`,
`criticism_files.py`, `criticism_practice.py`), and the model without it is fitted. A defect
is found if `diagnose` does not pass, and called by its name if a check of its kind does not pass
and says the word that belongs to it. A cohort is blamed if a check fails, and not only asks for a
look. With a folder, each cohort's result is a file, and a run that was interrupted goes on. The last
line is JSON with ``claims``.

python benchmarks/criticism.py [--models pk growth ode repeated yes_no counts event]
    [--strengths weak middle strong] [--only "pounds|exchanged"] [--cohorts 5] [--first 0]
    [--clean 24] [--workers 2] [--folder results] [--small]
"""

import argparse
import json
import re
import time
import warnings
from pathlib import Path

import joblib
from criticism_files import planted
from criticism_outcomes import ALL as PROBLEMS
from criticism_practice import DEFECTS

import pyro_amortized as pa
from pyro_amortized.diagnostics import diagnose

STRENGTHS = ("weak", "middle", "strong")
CLEAN = "right"


def result_of(model, defect, strength, num, seed, folder, anew):
    """Checks of the fit of one cohort that did not pass, by name: status and words."""
    name = re.sub(r"\W+", "_", f"{model} {defect} {strength} {num} {seed}")
    file = Path(folder) / f"{name}.json" if folder else None
    if file and file.exists() and not anew:
        return json.loads(file.read_text())
    what = DEFECTS.get(defect)
    size = what.sizes[STRENGTHS.index(strength)] if what else 0.0
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = PROBLEMS[model].program
        kept = Path(folder) / "fits" / name / "result" if folder else None
        if kept and kept.exists():
            fit = pa.load_fit(kept, program)
        else:
            cohort = planted(PROBLEMS[model], what, size, num, seed)
            fit = pa.fit_population(program, cohort, num_starts=1, seed=seed)
            if kept:
                fit.save(kept)
        middle = time.perf_counter()
        checks = diagnose(fit, seed=seed).checks
    result = {c.name: (c.status, c.words) for c in checks if c.status != "passed"}
    times = (middle - start, time.perf_counter() - middle)
    answer = {"case": (model, defect, strength, seed), "checks": result, "seconds": times}
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(answer))
    return answer


def is_named(answer):
    """Whether a check of the kind of the defect does not pass, and says its word."""
    defect = DEFECTS[answer["case"][1]]
    words = [x for n, (_, x) in answer["checks"].items() if n in defect.checks]
    return any(re.search(defect.words, x) for x in words)


def share(flags):
    flags = list(flags)
    return sum(flags) / max(1, len(flags))


def of_defects(answers, strength):
    """Rates of each defect in the cohorts of one strength, printed; and claims of the strong ones."""
    cases = [a for a in answers if a["case"][2] == strength]
    for defect in dict.fromkeys(a["case"][1] for a in cases):
        mine = [a for a in cases if a["case"][1] == defect]
        found, named = share(bool(a["checks"]) for a in mine), share(is_named(a) for a in mine)
        parts = "".join(
            f"  {m} {share(is_named(a) for a in mine if a['case'][0] == m):4.0%}"
            for m in dict.fromkeys(a["case"][0] for a in mine)
        )
        print(f"{strength:6} {defect:34} found {found:4.0%}  by its name {named:4.0%} ({parts})")
    return {
        "found": (share(bool(a["checks"]) for a in cases), 0.95, "at least"),
        "called by their name": (share(is_named(a) for a in cases), 0.9, "at least"),
    }


def of_clean(answers):
    """Rates of blame of right analyses."""
    failed = [any(s == "failed" for s, _ in a["checks"].values()) for a in answers]
    looks = [bool(a["checks"]) for a in answers]
    print(
        f"{len(answers)} right analyses: blamed {share(failed):.1%}, or a look {share(looks):.1%}"
    )
    for a in answers:
        for name, (status, words) in a["checks"].items():
            print(f"  {a['case'][0]} {a['case'][3]}: {name} ({status}): {words[:200]}")
    return {
        "right analyses blamed": (share(failed), 0.01, "at most"),
        "right analyses asked for a look": (share(looks), 0.05, "at most"),
    }


def claims_of(answers, models):
    """All rates as claims, in all and for every model."""
    values = {}
    for label, kept in [("all models", models), *((m, [m]) for m in models)]:
        strong = [a for a in answers if a["case"][2] == "strong" and a["case"][0] in kept]
        for name, function in {
            "found": lambda a: bool(a["checks"]),
            "called by their name": is_named,
        }.items():
            if strong:
                bound = 0.95 if name == "found" else 0.9
                values[f"{label}, strong defects {name}"] = (share(map(function, strong)), bound, 1)
        clean = [a for a in answers if a["case"][1] == CLEAN and a["case"][0] in kept]
        if clean:
            failed = share(any(s == "failed" for s, _ in a["checks"].values()) for a in clean)
            values[f"{label}, right analyses blamed"] = (failed, 0.01, -1)
            looks = share(bool(a["checks"]) for a in clean)
            values[f"{label}, right analyses asked for a look"] = (looks, 0.05, -1)
    return {
        name: {"value": value, "bound": bound, "holds": sign * (value - bound) >= 0}
        for name, (value, bound, sign) in values.items()
    }


def has(model, defect):
    """Whether the defect is planted in the model."""
    only = DEFECTS[defect].only
    return model in only if only else not PROBLEMS[model].is_other


def jobs_of(arguments):
    """Model, defect, strength, number of individuals and seed of every cohort."""
    num, defects, clean = 48, list(DEFECTS), arguments.clean
    if arguments.only:
        defects = [d for d in defects if re.search(arguments.only, d)]
    if arguments.small:
        num, defects, clean = 24, defects[:1], 1
        arguments.models, arguments.strengths, arguments.cohorts = ["growth"], ["strong"], 1
    jobs = [
        (model, defect, strength, num, seed)
        for seed in range(arguments.first, arguments.first + arguments.cohorts)
        for defect in defects
        for model in arguments.models
        for strength in arguments.strengths
        if has(model, defect)
    ]
    for k in range(clean):
        model, seed = arguments.models[k % len(arguments.models)], 1000 + arguments.first + k
        jobs.append((model, CLEAN, "", num, seed))
    return jobs


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--strengths", nargs="+", choices=STRENGTHS, default=list(STRENGTHS))
    parser.add_argument("--cohorts", type=int, default=5, help="cohorts of each defect and model")
    parser.add_argument("--first", type=int, default=0, help="seed of the first cohort")
    parser.add_argument("--clean", type=int, default=24, help="cohorts without a defect")
    parser.add_argument("--only", default="", help="defects whose names match this expression")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--folder", default="", help="where the results are kept")
    parser.add_argument("--anew", action="store_true", help="new checks of the fits of the folder")
    parser.add_argument("--small", action="store_true", help="one defect of a small cohort")
    arguments = parser.parse_args()
    run = joblib.delayed(result_of)
    with joblib.Parallel(n_jobs=arguments.workers, verbose=0) as pool:
        answers = pool(run(*job, arguments.folder, arguments.anew) for job in jobs_of(arguments))
    for strength in arguments.strengths:
        of_defects(answers, strength)
    clean = [a for a in answers if a["case"][1] == CLEAN]
    of_clean(clean)
    fits, checks = (
        sum(x) / len(answers) for x in zip(*(a["seconds"] for a in answers), strict=True)
    )
    print(f"{len(answers)} cohorts; {fits:.1f} s for a fit, {checks:.1f} s for the checks")
    claims = claims_of(answers, arguments.models)
    print(json.dumps({"benchmark": "criticism", "claims": claims}))


if __name__ == "__main__":
    main()
