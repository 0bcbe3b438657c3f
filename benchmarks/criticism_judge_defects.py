"""Defects for `criticism_judge.py`: other programs and changes of the file, and their right names."""

from dataclasses import dataclass, replace

import torch

import pyro_amortized as pa

WRITTEN = "doses, covariates and times as written"
ERRORS = "errors|residuals|frequencies"
EFFECTS = "random effects and covariates"


@dataclass(frozen=True)
class Defect:
    """A defect: the model, a word for its program, a change of the file, and its right name.

    Args:
        model: Name of the model.
        variant: What the true program has in addition.
        file: Changes the cohort.
        checks: Expression that matches the names of the checks that are about it.
        words: Expression that the words of one of them must contain.
    """

    model: str
    variant: str = ""
    file: object = None
    checks: str = ERRORS
    words: str = ""


def with_series(cohort, name, values=None, times=None, observed=None):
    s = cohort[name]
    new = pa.Series(
        s.times if times is None else times,
        s.values if values is None else values,
        s.observed if observed is None else observed,
    )
    return replace(cohort, series={**dict(cohort.series.items()), name: new})


def at_site(cohort):
    return cohort.covariates["site"] == 1


def values_changed(name, change, rows=at_site):
    def file(cohort):
        values = cohort[name].values.clone()
        chosen = rows(cohort)
        values[chosen] = change(values[chosen])
        return with_series(cohort, name, values)

    return file


def every(step, start=0):
    return lambda cohort: torch.arange(len(cohort)) % step == start


def exchanged(first, second):
    """Two columns of the values of every fourth individual."""

    def file(cohort):
        values = cohort["y"].values.clone()
        rows = torch.arange(0, len(cohort), 4)
        values[rows, first], values[rows, second] = values[rows, second], values[rows, first]
        return with_series(cohort, "y", values)

    return file


def sex_exchanged(cohort):
    sex = cohort.covariates["sex"].clone()
    sex[at_site(cohort)] = 1 - sex[at_site(cohort)]
    return replace(cohort, covariates={**cohort.covariates, "sex": sex})


def ages_in_months(cohort):
    times = cohort["y"].times.clone()
    times[at_site(cohort)] *= 12
    return with_series(cohort, "y", times=times)


def event_times(factor):
    def file(cohort):
        values, rows = cohort["event"].values.clone(), at_site(cohort)
        values[rows, :, 0] *= factor
        ends = cohort["event"].times.clone()
        ends[rows] *= factor
        return with_series(cohort, "event", values, ends)

    return file


def digits(values):
    """Large counts are rounded to five."""
    return torch.where(values > 4, (values / 5).round() * 5, values)


def rates_wrong(cohort):
    """The infusions of a site took three hours, and one is written."""
    durations = cohort.doses.durations.clone()
    durations[at_site(cohort)] /= 3
    return replace(cohort, doses=replace(cohort.doses, durations=durations))


def loading_dose_lost(cohort):
    """The first dose of a site was double, which is not written."""
    amounts = cohort.doses.amounts.clone()
    amounts[at_site(cohort), 0] /= 2
    return replace(cohort, doses=replace(cohort.doses, amounts=amounts))


def late_dose(cohort):
    """The dose of a site was given six hours later than written."""
    times = cohort.doses.times.clone()
    times[at_site(cohort)] -= 6.0
    return replace(cohort, doses=replace(cohort.doses, times=times.clamp(min=0.0)))


def swapped_series(cohort):
    """Concentration and effect of some individuals are exchanged."""
    c, e = (cohort[n].values.clone() for n in ("y", "effect"))
    rows = torch.arange(0, len(cohort), 8)
    c[rows], e[rows] = e[rows], c[rows]
    return with_series(with_series(cohort, "y", c), "effect", e)


def extremes(values):
    """A rater who uses the ends of the scale only."""
    return torch.where(values < 1.5, 0.0, 3.0).to(values)


DEFECTS = {
    "scale: numbered in the other direction at a site": Defect(
        "ordered",
        file=values_changed("y", lambda x: 3 - x),
        checks=f"{WRITTEN}|{ERRORS}",
        words="site",
    ),
    "scale: a rater who uses its ends only": Defect("ordered", file=values_changed("y", extremes)),
    "scale: the treatment wears off": Defect("ordered", "wears off", words="arm|time"),
    "chain: drifts": Defect("markov", "drift"),
    "chain: sex changes the transitions": Defect(
        "markov", "sex", checks=f"{EFFECTS}|{ERRORS}", words="sex"
    ),
    "marker: another assay at a site": Defect(
        "joint",
        file=values_changed("y", lambda x: 1.6 * x),
        checks=f"{WRITTEN}|{EFFECTS}|{ERRORS}",
        words="site",
    ),
    "marker: events of a site in months": Defect(
        "joint", file=event_times(12.0), checks=f"{WRITTEN}|events", words="site|times of 'event'"
    ),
    "marker: the event does not follow it": Defect("joint", "by sex", checks="events", words="sex"),
    "seizures: more in one season": Defect("counts", "season"),
    "seizures: the form ends at six": Defect(
        "counts", file=values_changed("y", lambda x: x.clamp(max=6.0), every(1))
    ),
    "seizures: counts rounded to five": Defect(
        "counts", file=values_changed("y", digits, every(2)), checks=f"{ERRORS}|recorded"
    ),
    "crossover: two fifths do not respond": Defect(
        "emax", "without response", checks=f"{ERRORS}|distribution|correlations"
    ),
    "crossover: carried over": Defect("emax", "carried over"),
    "crossover: a hook at high doses": Defect("emax", "hook"),
    "crossover: placebo and highest dose exchanged": Defect(
        "emax", file=exchanged(0, 4), checks=f"{WRITTEN}|{ERRORS}|distribution"
    ),
    "heights: sexes exchanged at a site": Defect(
        "heights", file=sex_exchanged, checks=f"{WRITTEN}|interactions|{EFFECTS}", words="sex"
    ),
    "heights: ages in months at a site": Defect(
        "heights", file=ages_in_months, checks=f"{WRITTEN}|{EFFECTS}|{ERRORS}", words="site|times"
    ),
    "heights: inches at a site": Defect(
        "heights",
        file=values_changed("y", lambda x: x / 2.54),
        checks=f"{WRITTEN}|{EFFECTS}|{ERRORS}|units",
        words="site|2.54",
    ),
    "tumours: two observers in turn": Defect("logistic", "observers"),
    "tumours: no limit of growth": Defect("logistic", "no limit", checks=f"{ERRORS}|prior"),
    "tumours: some regress": Defect(
        "logistic", "regress", checks=f"{ERRORS}|distribution|influence|correlations"
    ),
    "infusion: written shorter than it was": Defect(
        "infusion", file=rates_wrong, checks=f"{WRITTEN}|{EFFECTS}|{ERRORS}", words="site"
    ),
    "infusion: a loading dose that is not written": Defect(
        "infusion", file=loading_dose_lost, checks=f"{WRITTEN}|{EFFECTS}|{ERRORS}", words="site"
    ),
    "infusion: samples from the arm of the infusion": Defect(
        "infusion", "contaminated", checks=f"{ERRORS}|distribution|influence"
    ),
    "infusion: clearance between occasions": Defect(
        "infusion", "occasions", checks=f"{ERRORS}|correlations"
    ),
    "effect: milligrams per decilitre at a site": Defect(
        "effect",
        file=values_changed("effect", lambda x: 18.02 * x),
        checks=f"{WRITTEN}|{EFFECTS}|{ERRORS}",
        words="site",
    ),
    "effect: exchanged with the concentration": Defect(
        "effect", file=swapped_series, checks=f"{WRITTEN}|distribution|units|{ERRORS}|influence"
    ),
    "effect: tolerance": Defect("effect", "tolerance"),
    "turnover: the baseline drifts": Defect("turnover", "drift"),
    "turnover: the dose came six hours later": Defect(
        "turnover", file=late_dose, checks=f"{WRITTEN}|{EFFECTS}|{ERRORS}", words="site"
    ),
}
