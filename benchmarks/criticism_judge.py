r"""Defects of real studies over models that `criticism.py` does not have, and many right analyses.

Ten models: categories, a Markov chain, a marker with an event, repeated seizures, a dose response
in a crossover study, children's heights, a logistic growth, infusions into two compartments with
two occasions, a concentration with its effect, and a turnover solved as an ODE. A defect is another
program, from which the data are simulated, or a change of the file; the program without it is
fitted. Right analyses are of all sizes (6 to 400 individuals), sparse and rich.

A second list, ``clinic``, has ten more models (`criticism_clinic_models.py`).

python benchmarks/criticism_judge.py [--list judge|clinic] [--only "scale|growth"] [--cohorts 2]
    [--first 0] [--clean 30] [--folder results] [--anew] [--small]
"""

import argparse
import json
import re
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import pyro
import torch
from criticism_clinic import CLINIC
from criticism_clinic_models import MODELS as CLINIC_MODELS
from criticism_judge_defects import DEFECTS as JUDGED
from criticism_judge_models import MODELS as JUDGED_MODELS, design_of

import pyro_amortized as pa
from pyro_amortized.diagnostics import diagnose

MODELS = {**JUDGED_MODELS, **CLINIC_MODELS}
DEFECTS = {**JUDGED, **CLINIC}
LISTS = {"judge": (JUDGED, JUDGED_MODELS), "clinic": (CLINIC, CLINIC_MODELS)}
LARGE = ("ordered", "counts", "emax", "heights", "joint", "infusion")


def right_cases(models):
    """Right analyses: model, individuals, share of the values that are recorded, further
    covariates.
    """
    sizes = ((48, 1.0, 0), (7, 1.0, 0), (24, 0.6, 3), (48, 0.3, 10), (150, 0.7, 1), (9, 0.8, 10))
    cases = [(model, *size) for size in sizes for model in models]
    return cases + [(model, 400, 0.5, 2) for model in LARGE if model in models]


@dataclass(frozen=True)
class Job:
    """One cohort: its model and variant, a change of its file, its size and its seed."""

    label: str
    model: str
    seed: int
    variant: str = ""
    file: object = None
    num: int = 48
    share: float = 1.0
    more: int = 0


def simulated(job):
    """A cohort of a model, with a variant of its program."""
    case = MODELS[job.model]
    design = design_of(case, job.num, job.seed, share=job.share, more=job.more)

    def program(cohort):
        return case.program(cohort, job.variant)

    structure = pa.read_structure(program, design)
    truth = {n: torch.as_tensor(x).double() for n, x in case.truth.items()}
    return pa.simulate_population(structure, design, truth, seed=job.seed)


def result_of(job, folder, anew):
    """Checks of one cohort that did not pass, by name: status and words."""
    name = re.sub(r"\W+", "_", f"{job.label} {job.num} {job.share} {job.more} {job.seed}")
    kept = Path(folder) / f"{name}.json" if folder else None
    if kept and kept.exists() and not anew:
        return json.loads(kept.read_text())
    pyro.clear_param_store()
    start = time.perf_counter()
    program = MODELS[job.model].program
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fits = Path(folder) / "fits" / name if folder else None
        if fits and fits.exists():
            fit = pa.load_fit(fits, program)
        else:
            cohort = simulated(job)
            cohort = job.file(cohort) if job.file else cohort
            fit = pa.fit_population(program, cohort, num_starts=1, seed=job.seed)
            if fits:
                fit.save(fits)
        middle = time.perf_counter()
        checks = diagnose(fit, seed=job.seed).checks
    found = {c.name: (c.status, c.words) for c in checks if c.status != "passed"}
    seconds = (middle - start, time.perf_counter() - middle)
    answer = {"label": job.label, "seed": job.seed, "num": job.num, "checks": found}
    answer["seconds"] = seconds
    if kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(answer))
    return answer


def is_named(answer):
    defect = DEFECTS[answer["label"]]
    words = [x for n, (_, x) in answer["checks"].items() if re.search(defect.checks, n)]
    return any(re.search(defect.words, x) for x in words)


def of_model(answer):
    """The findings that are about model and data: convergence of a small cohort is none."""
    inference = ("convergence", "Pareto k", "Monte Carlo")
    return {n: x for n, x in answer["checks"].items() if not n.startswith(inference)}


def of_defect(label, seed, num, arguments):
    """Whether a defect of one cohort is found, and by its name; printed."""
    d = DEFECTS[label]
    job = Job(label, d.model, seed, d.variant, d.file, num)
    answer = result_of(job, arguments.folder, arguments.anew)
    is_found, named = bool(answer["checks"]), is_named(answer)
    print(f"{label:50} found {is_found!s:5} named {named!s:5}", flush=True)
    for name, (status, words) in answer["checks"].items():
        print(f"    {name} ({status}): {words[:160]}", flush=True)
    return is_found, named


def of_right(index, case, arguments):
    """Whether a right analysis is blamed, and whether it is asked for a look; printed."""
    model, size, share, more = case
    size = 12 if arguments.small else size
    seed = 5000 + arguments.first + index
    job = Job(f"right {model}", model, seed, num=size, share=share, more=more)
    answer = result_of(job, arguments.folder, arguments.anew)
    for name, (status, words) in answer["checks"].items():
        line = f"right {model} {size} {share} {more}: {name} ({status}): {words[:200]}"
        print(line, flush=True)
    checks = of_model(answer)
    return any(s == "failed" for s, _ in checks.values()), bool(checks)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--list", choices=LISTS, default="judge", help="which list of defects")
    parser.add_argument("--only", default="", help="defects whose names match this expression")
    parser.add_argument("--cohorts", type=int, default=1, help="cohorts of each defect")
    parser.add_argument("--first", type=int, default=0, help="seed of the first cohort")
    parser.add_argument("--clean", type=int, default=66, help="cohorts without a defect")
    parser.add_argument("--folder", default="", help="where the results are kept")
    parser.add_argument("--anew", action="store_true", help="new checks of the fits of the folder")
    parser.add_argument("--small", action="store_true", help="one defect of a small cohort")
    arguments = parser.parse_args()
    defects, models = LISTS[arguments.list]
    names = [n for n in defects if re.search(arguments.only, n)]
    num, clean = (24, 1) if arguments.small else (48, arguments.clean)
    found = [
        of_defect(label, seed, num, arguments)
        for label in (names[:1] if arguments.small else names)
        for seed in range(arguments.first, arguments.first + arguments.cohorts)
    ]
    right = [of_right(k, case, arguments) for k, case in enumerate(right_cases(models)[:clean])]
    blamed, looks = [x for x, _ in right], [x for _, x in right]
    claims = {}
    for name, flags, bound, sign in (
        ("strong defects found", [x for x, _ in found], 0.95, 1),
        ("strong defects called by their name", [x for _, x in found], 0.9, 1),
        ("right analyses blamed", blamed, 0.01, -1),
        ("right analyses asked for a look", looks, 0.05, -1),
    ):
        if flags:
            value = sum(flags) / len(flags)
            print(f"{name}: {sum(flags)} of {len(flags)}")
            claims[name] = {"value": value, "bound": bound, "holds": sign * (value - bound) >= 0}
    print(json.dumps({"benchmark": "criticism_judge", "claims": claims}))


if __name__ == "__main__":
    main()
