r"""A page about a population fit: verdict, model, data, estimates, individuals, figures, versions.

The page is one HTML file without scripts and without references to other files.
"""

import platform
from collections.abc import Iterator
from datetime import UTC, datetime
from html import escape
from importlib.metadata import version
from pathlib import Path

import pandas

from ...applications.model_search import ModelSearch
from ...cohort import Cohort, Series
from ...errors import SettingError
from ...population.results.fit_result import PopulationFit
from ...runtime.arguments import check_is
from ...runtime.atomic_files import write_atomically
from ..check_results import Check
from ..diagnosis import Diagnosis, diagnose
from ..model_graph import model_drawing
from ..result_selection import outcome_kinds, recorded_at_limit, spans_orders
from ..variables.compared_variables import Variable
from .html_elements import Section, html_figure, html_list, html_page, html_table
from .parameter_table import parameter_table
from .search_section import search_section


def report(
    fit: PopulationFit,
    path: str | Path,
    *,
    title: str = "Population fit",
    diagnosis: Diagnosis | None = None,
    search: ModelSearch | None = None,
    seed: int = 0,
) -> Diagnosis:
    r"""Write an HTML page about a fit.

    Args:
        fit: The fit.
        path: The file, for instance ``"report.html"``. It is written atomically: an interrupted
            call leaves no partial file.
        title: Heading of the page.
        diagnosis: Results of :func:`~pyro_amortized.diagnostics.diagnose`, if there are any.
            Default: the checks are run.
        search: The search that found the model, if there was one.
        seed: Seed of all simulations.

    Returns:
        The results of the checks.

    Raises:
        SettingError: ``fit`` is not a fit, or the folder of ``path`` does not exist.
        ModuleNotFoundError: matplotlib is missing; install ``pyro-amortized[plots]``.
    """
    check_is("fit", fit, PopulationFit, "pass what `fit_population` gives.")
    if not Path(path).resolve().parent.is_dir():
        raise SettingError(
            f"The folder {Path(path).resolve().parent} does not exist.",
            "a file in a folder that exists.",
            "create the folder, or pass another path.",
        )
    if diagnosis is None:
        diagnosis = diagnose(fit, seed=seed)
    sections = [
        _verdict_section(diagnosis),
        _model_section(fit),
        _data_section(fit),
        _estimates_section(fit),
        *([] if search is None else [search_section(search)]),
        Section("figures", "Figures", "".join(_figures(fit, diagnosis, seed))),
        _individuals_section(fit, diagnosis),
        _versions_section(fit, seed),
    ]
    write_atomically(Path(path), html_page(title, sections).encode())
    return diagnosis


def _verdict_section(diagnosis: Diagnosis) -> Section:
    kind = "verdict passed" if diagnosis.passed else "verdict"
    body = f'<p class="{kind}">{escape(diagnosis.verdict)}</p>'
    body += (
        "<p>The p-value of a check that consists of tests is the smallest of them times their "
        "number (Bonferroni). A check fails below 0.001 and asks for a look below 0.005.</p>"
    )
    parts = {
        "inference": "Inference: are the numbers right for this model?",
        "model": "Data and model: are the data what they seem, and does the model describe them?",
    }
    for about, heading in parts.items():
        rows = [_check_row(c) for c in diagnosis.checks if c.about == about]
        if rows:
            names = ["check", "status", "p-value", "tests", "words", "documentation page"]
            table = html_table(pandas.DataFrame(rows, columns=names), frozenset({"words"}))
            body += f"<h3>{escape(heading)}</h3>{table}"
    return Section("verdict", "Verdict", body)


def _check_row(check: Check) -> tuple[str, ...]:
    """One row of the table of checks; the words of what did not pass stand in the verdict."""
    words = check.words if check.status == "passed" else "See the verdict."
    p_value = f"{check.value:.2g}" if check.num_tests else ""
    tests = f"{check.num_tests:,}" if check.num_tests else ""
    return check.name, check.status, p_value, tests, words, check.page


def _model_section(fit: PopulationFit) -> Section:
    structure = fit.structure
    roles = [
        ("population parameters", ", ".join(structure.population)),
        (
            "shared parameters (observations depend on them directly)",
            ", ".join(structure.shared) or "none",
        ),
        ("individual parameters", ", ".join(structure.individual)),
        ("observed series", ", ".join(structure.series)),
        ("fixed during the fit", ", ".join(fit.fixed) or "none"),
        ("estimator", structure.estimator),
        ("criterion", fit.criterion),
    ]
    drawing = f"<figure>{model_drawing(structure, len(fit.cohort))}</figure>"
    return Section("model", "Model", drawing + html_list(roles))


def _data_section(fit: PopulationFit) -> Section:
    cohort = fit.cohort
    names = [
        "series",
        "recorded values",
        "fewest per individual",
        "most per individual",
        "first time",
        "last time",
        "smallest",
        "largest",
    ]
    kinds = outcome_kinds(fit.structure)
    rows = [
        (name, *_series_summary(cohort[name], kinds[name] == "event"))
        for name in fit.structure.series
    ]
    doses = 0 if cohort.doses is None else int(cohort.doses.given.sum())
    counts = f"<p>{len(cohort)} individuals, {cohort.num_observations} recorded values"
    counts += f", {doses} doses.</p>" if doses else ".</p>"
    for name in fit.structure.series:
        if kinds[name] in ("continuous", "count") and cohort[name].values.dim() == 2:
            num = int(recorded_at_limit(fit.individuals, name).sum())
            if num:
                counts += f"<p>{num} values of {escape(name)} are at a limit of quantification.</p>"
    tables = [pandas.DataFrame(rows, columns=names), *_covariate_tables(cohort)]
    return Section("data", "Data", counts + "".join(html_table(x) for x in tables if len(x)))


def _covariate_tables(cohort: Cohort) -> list[pandas.DataFrame]:
    """The covariates that are quantities, and those that are categories."""
    quantities, categories = [], []
    for name, x in cohort.covariates.items():
        variable = Variable(name, x.double().numpy(), cohort.categories.get(name, ()))
        levels = [float(j) for j in range(len(variable.categories))] or variable.levels
        if levels and x.dim() == 1:
            pairs = [f"{variable.level_name(j)}: {int((x == j).sum())}" for j in levels]
            others = len(x) - int(sum((x == j).sum() for j in levels))
            categories.append((name, ", ".join(pairs) + (f", others: {others}" if others else "")))
        else:
            quantities.append((name, *(float(f) for f in (x.min(), x.median(), x.max()))))
    return [
        pandas.DataFrame(quantities, columns=["covariate", "smallest", "median", "largest"]),
        pandas.DataFrame(categories, columns=["covariate", "individuals by category"]),
    ]


def _series_summary(series: Series, is_event: bool) -> tuple[float, ...]:
    """Recorded values in all, fewest and most per individual; ranges of times and values. Values of
    events are their status, and their times are values.
    """
    if is_event:
        times, status = series.values.unbind(-1)
        series = Series(times.cummax(1).values, status, series.observed.all(-1))
    observed = series.observed
    times, values = series.times[series.present], series.values[observed]
    per_individual = observed.flatten(1).sum(1)
    return (
        int(observed.sum()),
        int(per_individual.min()),
        int(per_individual.max()),
        *(float(x) for x in (times.min(), times.max(), values.min(), values.max())),
    )


def _estimates_section(fit: PopulationFit) -> Section:
    summary = fit.summary()
    heading, *rows = parameter_table(fit).cells
    criteria = [
        ("-2 log likelihood", f"{summary.minus2ll:.3f}"),
        ("Monte Carlo error of -2 log likelihood", f"{summary.minus2ll_mc_error:.3f}"),
        ("AIC", f"{summary.aic:.3f}"),
        ("BIC, log of the number of individuals", f"{summary.bic_individuals:.3f}"),
        ("BIC, log of the number of observations", f"{summary.bic_observations:.3f}"),
        ("converged", "yes" if summary.converged else "no"),
        ("message", summary.message),
    ]
    shrinkage = pandas.DataFrame(
        [(name, 100 * x) for name, x in summary.shrinkage.items()],
        columns=["random effect", "eta shrinkage %"],
    )
    body = f"<p>{escape(summary.title)}</p>" + html_table(
        pandas.DataFrame(rows, columns=list(heading))
    )
    return Section("estimates", "Estimates", body + html_list(criteria) + html_table(shrinkage))


def _individuals_section(fit: PopulationFit, diagnosis: Diagnosis) -> Section:
    rows = [
        (r.name, r.minus2ll, r.mc_error, r.ess, r.pareto_k, r.method)
        for r in fit.summary().individuals
    ]
    names = ["individual", "-2LL", "Monte Carlo error", "ESS", "Pareto k", "source of the draws"]
    table, verdict, outside = pandas.DataFrame(rows, columns=names), "", "outside the training data"
    if diagnosis.data is not None:
        verdict = f"<p>{escape(diagnosis.data.verdict)}</p>"
        table[outside] = ["; ".join(diagnosis.data.reasons.get(i, [])) for i in fit.cohort.ids]
    body = verdict + html_table(table, text_columns=frozenset({outside}))
    return Section("individuals", "Individuals", body)


def _figures(fit: PopulationFit, diagnosis: Diagnosis, seed: int) -> Iterator[str]:
    from .. import plots  # matplotlib is an optional dependency

    if diagnosis.calibration is not None:
        ranks = plots.rank_bands(diagnosis.calibration)
        yield html_figure("Rank bands of simulated individuals", ranks)
        recovery = plots.recovery(diagnosis.calibration)
        yield html_figure("Recovery of the parameters of simulated individuals", recovery)
    for r in diagnosis.residuals:
        name = r.series
        log = r.kind == "continuous" and spans_orders(fit.cohort[name])
        yield html_figure(f"Data: {name}", plots.observations(fit.cohort, series=name, log=log))
        fits = plots.individual_fits(fit, series=name, log=log)
        yield html_figure(f"Individual fits of {name}", fits)
        if r.kind != "category":  # the number of a category has no residual error
            yield html_figure(f"Goodness of fit of {name}", plots.goodness_of_fit(r, log=log))
        errors = plots.distribution_errors(r)
        yield html_figure(f"Normalised prediction distribution errors of {name}", errors)
        check = plots.visual_predictive_check(fit, series=name, log=log, seed=seed)
        yield html_figure(f"Visual predictive check of {name}", check)
        is_course = r.kind in ("continuous", "count")
        if (
            is_course
            and fit.cohort.doses is not None
            and bool((fit.cohort.doses.given.sum(1) > 1).any())
        ):
            check = plots.visual_predictive_check(
                fit, series=name, x="time after dose", log=log, seed=seed
            )
            yield html_figure(f"Visual predictive check of {name}, time after dose", check)
    yield from _event_figures(fit, diagnosis, seed)
    yield html_figure("Random effects", plots.random_effects(fit, seed=seed))
    if fit.cohort.covariates:
        by_covariate = plots.effects_by_covariate(fit, seed=seed)
        yield html_figure("Random effects by covariate", by_covariate)
    yield html_figure("Estimates and 95 % intervals", plots.forest(fit))
    if fit.guide is not None and fit.guide.history.training_loss:
        yield html_figure("Training", plots.training_curve(fit.guide.history))


def _event_figures(fit: PopulationFit, diagnosis: Diagnosis, seed: int) -> Iterator[str]:
    from .. import plots
    from ..plots.incidence_plots import series_of_causes

    for events in diagnosis.events:
        name = events.series
        check = plots.event_curves(fit, series=name, seed=seed)
        yield html_figure(f"Individuals without {name}, or number of events", check)
        for cause in series_of_causes(fit.structure, fit.cohort, name):
            shares = plots.cumulative_incidences(fit, series=name, cause=cause, seed=seed)
            yield html_figure(f"Cumulative incidences of the causes of {name}", shares)
        yield html_figure(f"Residuals of {name}", plots.event_errors(events))


def _versions_section(fit: PopulationFit, seed: int) -> Section:
    packages = ("pyro-amortized", "torch", "pyro-ppl", "arviz", "numpy", "scipy")
    rows = [(name, version(name)) for name in packages]
    trained = "no guide was used"
    if fit.guide is not None:
        history = fit.guide.history
        trained = f"{history.num_simulations:,} simulations, {history.training_seconds:.0f} s"
    rows += [
        ("Python", platform.python_version()),
        ("seed of this report", str(seed)),
        ("training", trained),
        ("draws per individual", fit.marginal.numbers),
        ("written", datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")),
    ]
    return Section("versions", "Versions and seeds", html_list(rows))
