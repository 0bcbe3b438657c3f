r"""Tables of a fit for a report or a publication: population parameters, and individual parameters.

Names and scales are given once, in the model::

    typical = pyro.sample("typical", prior, infer={"labels": ["CL", "V"], "scale": "log"})
    omega = pyro.sample("omega", prior, infer={"labels": ["CL", "V"], "scale": "sd of log"})
    correlation = pyro.sample("correlation", prior, infer={"labels": ["CL", "V"]})

or in the call (``names=``, ``log=``, ``sd_of_log=``). With the estimate m of a logarithm the table
shows :math:`e^m`, its standard error :math:`e^m\, \mathrm{se}(m)` and the interval
:math:`e^{m \pm 1.96\, \mathrm{se}}`. With the standard deviation :math:`\omega` of a logarithm it
shows the coefficient of variation :math:`100 \sqrt{e^{\omega^2} - 1}` per cent of the log-normal
distribution.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import pandas

from ...errors import SettingError
from ...model import entry_names
from ...numerics.laplace import delta_method
from ...population.levels.level_result import LevelFit
from ...population.results.fit_result import PopulationFit
from ...population.results.reported_parameters import ReportedSite, reported_site
from ...runtime.arguments import check_is
from ...runtime.atomic_files import write_atomically
from ...runtime.text_table import html_rows, text_table
from ...sampling.individuals import IndividualPosteriors
from ..result_selection import individuals_of

HEADING = ("parameter", "estimate", "SE", "RSE %", "95 % CI", "CV %", "shrinkage %", "")
LATEX = {"&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}"}
LATEX |= {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}


@dataclass(frozen=True)
class TableRow:
    r"""One population parameter. Numbers that do not exist are NaN.

    Args:
        parameter: Its name.
        estimate: Estimate, on the scale of the parameter.
        se: Standard error.
        rse: Standard error in per cent of the estimate.
        lower: Lower end of the 95 % confidence interval.
        upper: Upper end.
        cv: Coefficient of variation between individuals in per cent, for the standard deviation of
            a logarithm.
        shrinkage: Shrinkage of the random effect in per cent.
        note: ``"fixed"``, ``"held"`` or ``"not determined by the data"`` (see ``fit.message``), or
            empty.
    """

    parameter: str
    estimate: float
    se: float
    rse: float
    lower: float
    upper: float
    cv: float
    shrinkage: float
    note: str

    @property
    def cells(self) -> tuple[str, ...]:
        """The row as text, with three significant digits."""
        interval = "" if math.isnan(self.lower) else f"{digits(self.lower)} to {digits(self.upper)}"
        numbers = (digits(self.estimate), digits(self.se), digits(self.rse))
        others = (digits(self.cv), digits(self.shrinkage))
        return (self.parameter, *numbers, interval, *others, self.note)


@dataclass(frozen=True)
class ParameterTable:
    r"""The population parameters of a fit for a publication. Made by :func:`parameter_table`.

    Args:
        title: Criterion and sizes of the fit, and -2LL.
        rows: One per parameter.
    """

    title: str
    rows: tuple[TableRow, ...]

    def frame(self) -> pandas.DataFrame:
        """One row per parameter, with all digits."""
        names = [field.name for field in fields(TableRow)]
        data = [[getattr(row, name) for name in names] for row in self.rows]
        return pandas.DataFrame(data, columns=names).set_index("parameter")

    @property
    def cells(self) -> list[tuple[str, ...]]:
        """The table as text with a heading; columns without an entry are left out."""
        rows = [HEADING, *(row.cells for row in self.rows)]
        kept = [j for j in range(len(HEADING)) if any(row[j] for row in rows[1:])]
        return [tuple(row[j] for j in kept) for row in rows]

    def html(self) -> str:
        """An HTML table."""
        return html_rows(self.title, self.cells)

    def latex(self) -> str:
        """A LaTeX table; it needs the package ``booktabs``."""
        heading, *rows = [" & ".join(map(_latex, row)) + r" \\" for row in self.cells]
        columns = "l" + "r" * (len(self.cells[0]) - 1)
        lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", heading, r"\midrule", *rows]
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])

    def write(self, path: str | Path) -> None:
        r"""Write the table to a file, by the ending of its name: ``.csv``, ``.html`` or ``.tex``.

        Raises:
            SettingError: Another ending.
        """
        write_table(path, csv=self.frame().to_csv(), html=self.html(), tex=self.latex())

    def _repr_html_(self) -> str:
        return self.html()

    def __str__(self) -> str:
        return f"{self.title}\n\n{text_table(self.cells)}"


def parameter_table(
    fit: PopulationFit | LevelFit,
    *,
    names: Mapping[str, str] | None = None,
    log: Collection[str] = (),
    sd_of_log: Collection[str] = (),
) -> ParameterTable:
    r"""The population parameters as they are published.

    Args:
        fit: The fit; of a fit with a level the table has no effects of units, which
            ``fit.summary()`` lists.
        names: Names in place of those of ``fit.summary()``, for instance
            ``{"typical[CL]": "CL (L/h)"}``.
        log: Sites or parameters that are logarithms: their exponentials are shown.
        sd_of_log: Sites or parameters that are standard deviations of logarithms: coefficients of
            variation are shown beside them.

    Returns:
        The table; ``print(table)``, ``table.frame()``, ``table.write("table.tex")``.

    Raises:
        SettingError: A name belongs to no parameter.

    Example:
        ``print(parameter_table(fit, log=["typical"], sd_of_log=["omega"]))``
    """
    check_is("fit", fit, (PopulationFit, LevelFit), "pass what `fit_population` gives.")
    sites = [reported_site(fit.structure, name) for name in fit.estimates]
    known = [site.site for site in sites] + [name for site in sites for name in site.names]
    for argument, given in (("names", names or {}), ("log", log), ("sd_of_log", sd_of_log)):
        wrong = [name for name in given if name not in known]
        if wrong or isinstance(given, str):
            raise SettingError(
                f"`{argument}` names {given if isinstance(given, str) else wrong[0]!r}.",
                f"a collection of some of {list(dict.fromkeys(known))}.",
                f"correct `{argument}=`.",
            )
    shrinkage = _shrinkage(fit) if isinstance(fit, PopulationFit) else {}
    rows: list[TableRow] = []
    for site in sites:
        scales = _scales(site, log, sd_of_log)
        rows += _rows(fit, site, scales, names or {}, shrinkage)
    title = f"{_criterion(fit)}, {len(fit.cohort)} individuals, "
    num = fit.structure.num_observations(fit.cohort)
    title += f"{num} observations, -2LL {fit.minus2ll:.2f}"
    return ParameterTable(title, tuple(rows))


def _criterion(fit: PopulationFit | LevelFit) -> str:
    """The criterion, and the units of a fit with a level."""
    if isinstance(fit, PopulationFit):
        return fit.criterion
    return f"maximum likelihood, {fit.level.num_units} units of {fit.level.plate!r}"


def _scales(site: ReportedSite, log: Collection[str], sd_of_log: Collection[str]) -> list[str]:
    """The scale of each value of a site, by the call or else by the model."""
    scales = []
    for name, scale in zip(site.names, site.scales, strict=True):
        scale = "log" if name in log or site.site in log else scale
        scales.append("sd of log" if name in sd_of_log or site.site in sd_of_log else scale)
    return scales


def _rows(
    fit: PopulationFit | LevelFit,
    site: ReportedSite,
    scales: list[str],
    names: Mapping[str, str],
    shrinkage: Mapping[str, float],
) -> list[TableRow]:
    """The rows of one site."""
    values, errors = delta_method(site.values, fit.vector, fit.covariance)
    lower, upper = site.interval(fit.vector, fit.covariance)
    columns = [x.detach().tolist() for x in (values, errors, lower, upper)]
    rows = []
    for j, (value, error, low, high) in enumerate(zip(*columns, strict=True)):
        if scales[j] == "log":
            value, low, high = (math.exp(x) for x in (value, low, high))
            error *= value
        cv = 100 * math.sqrt(math.expm1(value**2)) if scales[j] == "sd of log" else math.nan
        label = site.labels[j]
        of_effect = math.nan
        if scales[j] in ("sd of log", "sd"):
            by_place = shrinkage.get(f"{j} of {len(site.names)}", math.nan)
            of_effect = 100 * (shrinkage.get(label, by_place) if label else by_place)
        rse = 100 * error / abs(value) if value else math.nan
        name = names.get(site.names[j], site.names[j])
        note = _note(fit, site.site, site.names[j], error)
        rows.append(TableRow(name, value, error, rse, low, high, cv, of_effect, note))
    return rows


def _note(fit: PopulationFit | LevelFit, site: str, name: str, error: float) -> str:
    """Why a parameter has no standard error."""
    if site in fit.fixed:
        return "fixed"
    if not math.isnan(error):
        return ""
    is_unknown = isinstance(fit, PopulationFit) and name in fit.undetermined
    return "not determined by the data" if is_unknown else "held"


def _shrinkage(fit: PopulationFit) -> dict[str, float]:
    """Shrinkage of the random effects by their label, and by place and number in their site."""
    values = iter(fit.shrinkage().values())
    by_label: dict[str, float] = {}
    for site in fit.structure.individual.values():
        of_site = [next(values) for _ in range(site.num_unconstrained)]
        if site.plates:  # effects of occasions have several values per individual
            continue
        for j, value in enumerate(of_site):
            by_label.setdefault(f"{j} of {len(of_site)}", value)
            if len(site.labels) == len(of_site):
                by_label[site.labels[j]] = value
    return by_label


def individual_table(
    result: PopulationFit | IndividualPosteriors,
    *,
    names: Mapping[str, str] | None = None,
    log: Collection[str] = (),
) -> pandas.DataFrame:
    r"""The individual parameters, one row per individual.

    Args:
        result: A fit, or individual posteriors.
        names: Names in place of those of the parameters, for instance ``{"phi[CL]": "CL"}``.
        log: Sites or parameters that are logarithms, besides those that the model declares: their
            exponentials are shown, by the name of their label.

    Returns:
        One row per individual, with the labels of the cohort as index. A parameter has three
        columns, its posterior median and the ends of the central 90 % with "5 %" and "95 %" after
        the name. The covariates of the cohort follow, categories by their names.

    Raises:
        SettingError: A name belongs to no parameter.

    Example:
        ``individual_table(fit).to_csv("individuals.csv")``
    """
    individuals = individuals_of(result)
    structure, given = individuals.structure, names or {}
    quantiles = {
        site: x.reshape(*x.shape[:2], -1)
        for site, x in individuals.quantiles([0.5, 0.05, 0.95]).items()
    }
    entries = {
        site: entry_names(site, x.shape[-1], structure.individual[site].labels)
        for site, x in quantiles.items()
    }
    known = [*entries, *(name for of_site in entries.values() for name in of_site)]
    wrong = [x for x in [*given, *log] if x not in known]
    if wrong:
        raise SettingError(
            f"There is no individual parameter {wrong[0]!r}.",
            f"some of {list(dict.fromkeys(known))}.",
            "correct `names=` or `log=`.",
        )
    columns = {}
    for site, levels in quantiles.items():
        scales = structure.individual[site].scales or ("",) * len(entries[site])
        for j, name in enumerate(entries[site]):
            is_log = name in log or site in log or scales[j % len(scales)] == "log"
            values = levels[..., j].exp() if is_log else levels[..., j]
            label = given.get(name) or (_label(name) if is_log else name)
            for ending, of_level in zip(("", " 5 %", " 95 %"), values, strict=True):
                columns[f"{label}{ending}"] = of_level.numpy()
    for name, x in individuals.cohort.covariates.items():
        categories = individuals.cohort.categories.get(name)
        named = x.numpy() if categories is None else [categories[int(k)] for k in x]
        columns.setdefault(name, named)
    return pandas.DataFrame(columns, index=pandas.Index(individuals.cohort.ids, name="individual"))


def _label(name: str) -> str:
    """The label of ``phi[CL]``, or the whole name where there is a number."""
    label = name.partition("[")[2].removesuffix("]")
    return name if not label or label.isdigit() else label


def digits(x: float) -> str:
    """A number with three significant digits; nothing for NaN."""
    if math.isnan(x):
        return ""
    if x == 0 or not math.isfinite(x):
        return f"{x:g}"
    decimals = 2 - math.floor(math.log10(abs(x)))
    return f"{x:.{decimals}f}" if 0 <= decimals <= 6 else f"{x:.3g}"


def _latex(text: str) -> str:
    """Text with the special characters of LaTeX escaped."""
    return "".join(LATEX.get(x, x) for x in text)


def write_table(path: str | Path, *, csv: str, html: str, tex: str) -> None:
    r"""Write one of several forms of a table, by the ending of the file.

    Raises:
        SettingError: Another ending than ``.csv``, ``.html`` or ``.tex``.
    """
    texts = {".csv": csv, ".html": html, ".tex": tex}
    ending = Path(path).suffix.lower()
    if ending not in texts:
        raise SettingError(
            f"The file {str(path)!r} has the ending {ending!r}.",
            "one of .csv, .html, .tex.",
            "pass for instance `parameters.csv`.",
        )
    write_atomically(Path(path), texts[ending].encode())
