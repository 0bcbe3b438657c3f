r"""One self-contained HTML page about a fit: verdicts, model, data, estimates, figures, versions.

No script, no network, nothing beside the file. Everything that comes from data or programs is
escaped. The page follows the reader's light or dark setting; figures stand on white.
"""

import base64
import io
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas

from ..errors import SettingError
from ..population.fit_result import PopulationFit
from ..runtime.arguments import check_is
from ..runtime.atomic_files import write_atomically
from .diagnosis import Diagnosis, diagnose
from .model_graph import model_drawing

STYLE = """
:root { color-scheme: light dark; --text: #1f2430; --back: #ffffff; --line: #d5d8de;
  --soft: #f3f4f6; --link: #1f4e8c; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e8ec; --back: #16181d; --line: #3a3f4a;
  --soft: #22262e; --link: #9cc1f2; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 70rem; color: var(--text);
  background: var(--back); font: 16px/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.2; } h2 { margin-top: 2.2rem; font-size: 1.25rem; }
a { color: var(--link); }
nav a { margin-right: 0.9rem; }
.verdict { white-space: pre-wrap; border-left: 4px solid #c8553d; background: var(--soft);
  padding: 0.7rem 1rem; }
.verdict.passed { border-color: #4a8f5a; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: 0.25rem 0.7rem; text-align: right; }
th:first-child, td:first-child, .words { text-align: left; }
td { white-space: nowrap; }
td.words { white-space: normal; min-width: 14rem; }
.wide { margin: 1rem 0; }
figure { margin: 1rem 0; } figure img, figure svg { max-width: 100%; height: auto;
  background: #ffffff; border-radius: 4px; }
figcaption { font-size: 0.9rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.2rem 1rem; }
dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 30rem) { dl { grid-template-columns: 1fr; } dt { font-weight: 600; } }
"""


@dataclass(frozen=True)
class _Section:
    anchor: str
    title: str
    body: str


def report(
    fit: PopulationFit,
    path: str | Path,
    *,
    title: str = "Population fit",
    diagnosis: Diagnosis | None = None,
    seed: int = 0,
) -> Diagnosis:
    r"""Write a page about a fit.

    Args:
        fit: The fit.
        path: The file, ``"report.html"``; it is whole or not there.
        title: Heading of the page.
        diagnosis: The battery's findings, where they are there already. Default: it is run.
        seed: Seed of simulations.

    Returns:
        The battery's findings.

    Raises:
        SettingError: No fit, or a folder that is not there.
        ModuleNotFoundError: matplotlib is missing: install ``pyro-amortized[plots]``.
    """
    check_is("fit", fit, PopulationFit, "pass what `fit_population` gives.")
    if not Path(path).resolve().parent.is_dir():
        raise SettingError(
            f"There is no folder {Path(path).resolve().parent}.",
            "a file in a folder that is there.",
            "make the folder, or pass another path.",
        )
    found = diagnose(fit, seed=seed) if diagnosis is None else diagnosis
    sections = [
        _verdicts(found),
        _Section("model", "Model", _model(fit)),
        _Section("data", "Data", _data(fit)),
        _estimates(fit),
        _Section("individuals", "Individuals", _individuals(fit, found)),
        _Section("figures", "Figures", "".join(_figures(fit, found, seed))),
        _Section("versions", "Versions and seeds", _versions(fit, seed)),
    ]
    links = " ".join(f'<a href="#{s.anchor}">{escape(s.title)}</a>' for s in sections)
    body = "".join(
        f'<section id="{s.anchor}"><h2>{escape(s.title)}</h2>{s.body}</section>' for s in sections
    )
    page = (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>"
        f"<h1>{escape(title)}</h1><nav>{links}</nav>{body}</body></html>\n"
    )
    write_atomically(Path(path), page.encode())
    return found


def _verdicts(found: Diagnosis) -> _Section:
    kind = "verdict passed" if found.passed else "verdict"
    verdict = f'<p class="{kind}">{escape(found.verdict)}</p>'
    return _Section("verdict", "Verdict", verdict + _table(found.table(), words={"words"}))


def _estimates(fit: PopulationFit) -> _Section:
    summary = fit.summary()
    rows = [
        (
            r.name,
            r.estimate,
            r.standard_error,
            100 * r.standard_error / abs(r.estimate) if r.estimate else float("nan"),
            r.lower,
            r.upper,
        )
        for r in summary.parameters
    ]
    names = ["parameter", "estimate", "SE", "RSE %", "95 % from", "95 % to"]
    criteria = [
        ("-2 log likelihood", f"{summary.minus2ll:.3f}"),
        ("its Monte Carlo error", f"{summary.minus2ll_mc_error:.3f}"),
        ("AIC", f"{summary.aic:.3f}"),
        ("BIC, log of individuals", f"{summary.bic_individuals:.3f}"),
        ("BIC, log of observations", f"{summary.bic_observations:.3f}"),
        ("converged", "yes" if summary.converged else "no"),
        ("how it ended", summary.message),
    ]
    shrinkage = pandas.DataFrame(
        [(name, 100 * x) for name, x in summary.shrinkage.items()],
        columns=["random effect", "eta shrinkage %"],
    )
    body = f"<p>{escape(summary.title)}</p>" + _table(pandas.DataFrame(rows, columns=names))
    return _Section("estimates", "Estimates", body + _list(criteria) + _table(shrinkage))


def _model(fit: PopulationFit) -> str:
    structure = fit.structure
    text = [
        ("population", ", ".join(structure.population)),
        ("shared (observations depend on them directly)", ", ".join(structure.shared) or "none"),
        ("individual", ", ".join(structure.individual)),
        ("observed", ", ".join(structure.series)),
        ("held fixed", ", ".join(fit.fixed) or "none"),
        ("estimator", structure.estimator),
        ("criterion", fit.criterion),
    ]
    return f"<figure>{model_drawing(structure, len(fit.cohort))}</figure>" + _list(text)


def _data(fit: PopulationFit) -> str:
    cohort = fit.cohort
    rows = []
    for name in fit.structure.series:
        s = cohort[name]
        seen = s.observed
        times = s.times[seen if seen.dim() == 2 else seen.any(-1)]
        values = s.values[seen]
        per = seen.flatten(1).sum(1)
        rows.append(
            (
                name,
                int(seen.sum()),
                int(per.min()),
                int(per.max()),
                *(float(x) for x in (times.min(), times.max(), values.min(), values.max())),
            )
        )
    names = ["series", "recorded", "least per individual", "most", "first time", "last time"]
    series = pandas.DataFrame(rows, columns=[*names, "smallest", "largest"])
    covariates = pandas.DataFrame(
        [
            (name, *(float(f) for f in (x.min(), x.median(), x.max())))
            for name, x in cohort.covariates.items()
        ],
        columns=["covariate", "smallest", "median", "largest"],
    )
    doses = 0 if cohort.doses is None else int(cohort.doses.given.sum())
    lead = f"<p>{len(cohort)} individuals, {cohort.num_observations} values, {doses} doses.</p>"
    return lead + _table(series) + (_table(covariates) if len(covariates) else "")


def _individuals(fit: PopulationFit, found: Diagnosis) -> str:
    rows = [
        (r.name, r.minus2ll, r.mc_error, r.ess, r.pareto_k, r.method)
        for r in fit.summary().individuals
    ]
    names = ["individual", "-2LL", "MC error", "ESS", "Pareto k", "draws from"]
    table = pandas.DataFrame(rows, columns=names)
    lead = ""
    if found.data is not None:
        lead = f"<p>{escape(found.data.verdict)}</p>"
        table["outside the training"] = [
            "; ".join(found.data.reasons.get(i, [])) for i in fit.cohort.ids
        ]
    return lead + _table(table, words={"outside the training"})


def _figures(fit: PopulationFit, found: Diagnosis, seed: int) -> Iterator[str]:
    from . import plots  # needs matplotlib, an extra

    yield _figure("Rank bands of simulated individuals", plots.rank_bands(found.calibration))
    yield _figure("Recovery of simulated individuals", plots.recovery(found.calibration))
    for r in found.residuals:
        name = r.series
        yield _figure(f"Individual fits of {name}", plots.individual_fits(fit, series=name))
        yield _figure(f"Goodness of fit of {name}", plots.goodness_of_fit(r))
        yield _figure(f"Distribution errors of {name}", plots.distribution_errors(r))
        check = plots.visual_predictive_check(fit, series=name, seed=seed)
        yield _figure(f"Visual predictive check of {name}", check)
    yield _figure("Random effects", plots.random_effects(fit, seed=seed))
    if fit.cohort.covariates:
        yield _figure("Random effects by covariate", plots.effects_by_covariate(fit, seed=seed))
    yield _figure("Estimates and intervals", plots.forest(fit))
    if fit.guide.history.training_loss:
        yield _figure("Training", plots.training_curve(fit.guide.history))


def _figure(caption: str, figure: Any) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    data = base64.b64encode(buffer.getvalue()).decode()
    text = escape(caption)
    return (
        f'<figure><img alt="{text}" src="data:image/png;base64,{data}">'
        f"<figcaption>{text}</figcaption></figure>"
    )


def _versions(fit: PopulationFit, seed: int) -> str:
    packages = ("pyro-amortized", "torch", "pyro-ppl", "arviz", "numpy", "scipy")
    rows = [(name, version(name)) for name in packages]
    history = fit.guide.history
    rows += [
        ("Python", platform.python_version()),
        ("seed of this report", str(seed)),
        ("training", f"{history.num_simulations:,} simulations, {history.training_seconds:.0f} s"),
        ("draws per individual", str(fit.marginal.num_draws)),
        ("written", datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")),
    ]
    return _list(rows)


def _list(rows: list[tuple[str, str]]) -> str:
    cells = "".join(f"<dt>{escape(a)}</dt><dd>{escape(b)}</dd>" for a, b in rows)
    return f"<dl>{cells}</dl>"


def _table(table: pandas.DataFrame, words: set[str] | None = None) -> str:
    head = "".join(
        f'<th scope="col"{" class=words" if c in (words or ()) else ""}>{escape(str(c))}</th>'
        for c in table.columns
    )
    rows = "".join(
        "<tr>"
        + "".join(
            f'<td class="words">{_cell(x)}</td>' if c in (words or ()) else f"<td>{_cell(x)}</td>"
            for c, x in zip(table.columns, row, strict=True)
        )
        + "</tr>"
        for row in table.itertuples(index=False)
    )
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
        "</div>"
    )


def _cell(x: Any) -> str:
    if isinstance(x, float):
        return "" if x != x else f"{x:.4g}"
    return escape(str(x))
