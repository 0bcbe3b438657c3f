r"""Search for the covariate effects, correlations and residual error of a model.

The search starts from a fit. Every candidate is ranked by its score test on the draws of the fit,
without another fit; the best is added to the program by an effect handler
(:mod:`pyro_amortized.model.extended_program`) and fitted, and the likelihood ratio on common draws
decides. Backward elimination and exchanges of terms follow, and all three are repeated until
nothing changes.

References:
    Jonsson and Karlsson (1998), Automated covariate model building within NONMEM; Ayral, Si
    Abdallah, Magnard and Chauvin (2021), A novel method based on unbiased correlations tests for
    covariate selection in nonlinear mixed effects models.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ...cohort import Cohort
from ...errors import FitError, SettingError
from ...model import Model
from ...model.extended_program import (
    CovariateForm,
    ErrorKind,
    ExtendedProgram,
    Extension,
    Term,
)
from ...model.program_run import Assign, run_program
from ...model.transformed_normals import normal_observation
from ...population.comparison.fixed_parameter_tests import check_fixed
from ...population.results.fit_result import PopulationFit
from ...runtime.arguments import check_is, check_seed
from ...runtime.isolation import seeded
from .held_sites import WAY, held_sites
from .penalised_start import penalised_start
from .search_candidates import (
    Request,
    check_names,
    normal_entries,
    size_without,
)
from .search_exchanges import exchange_terms, quadratic_terms
from .search_path import (
    SearchPath,
    add_terms,
    check_usable,
    first_step,
    remove_terms,
)
from .search_refits import FittedExtension, Refits, check_folder
from .search_removals import wald_statistic
from .search_result import CandidateTest, ModelSearch, SearchStep
from .search_settings import SEARCH, SearchRule
from .selection_frequencies import inclusion_frequencies
from .structure_choice import best_structure

CovariateForms = Sequence[str] | Mapping[str, CovariateForm | None]


def search(
    fit: PopulationFit,
    *,
    covariates: CovariateForms | None = None,
    parameters: Sequence[str] | None = None,
    correlations: bool = True,
    residual: bool = False,
    structures: Mapping[str, Model] | None = None,
    freed: Sequence[str] = (),
    rule: SearchRule | None = None,
    folder: str | Path | None = None,
    seed: int = 0,
) -> ModelSearch:
    r"""Search for covariate effects, correlations and parts of the residual error.

    Args:
        fit: A fit by maximum likelihood; its model is where the search begins.
        covariates: Names of covariates that individual parameters may depend on, or their forms by
            name: ``"power"``, ``"linear"``, ``"category"``, or None to choose by the values.
            A covariate that varies over time is tested through the sites of the program that the
            fit holds at a value without its effect (``fixed=``), and has no form. Default: all
            covariates of the cohort that have one value per individual, and those that vary over
            time and act through such a site.
        parameters: Names of the individual parameters that may depend on covariates, as in the
            summary of the fit (``fit.structure.latent_names``). Default: all.
        correlations: Whether individual parameters that the program draws independently may be
            correlated.
        residual: Whether normal observations may have a further additive or proportional part of
            the error.
        structures: Other programs of the same data by name (other compartments, lag times). They
            are fitted first, and the search continues from the one with the smallest BIC. They
            hold the sites that the fit holds, as far as they have them.
        freed: Names of further sites that the fit holds and that may be estimated, for instance a
            Hill coefficient at 1.
        rule: When a term is added or removed. Default: p-values of 0.01.
        folder: Where every fit is kept; a search that was interrupted goes on from there.
        seed: Seed of the fits and of the bootstrapped cohorts.

    Returns:
        The path, the chosen model and its fit, tests and inclusion frequencies.

    Raises:
        FitError: There are fewer than eight individuals, the fit has no standard errors, is not by
            maximum likelihood or is likelihood-free, the folder holds another search, or a site of
            ``freed`` is not held.
        SettingError: A name or a form is unknown, or a covariate that varies over time acts through
            no site that the fit holds.

    Example:
        ``found = pa.search(fit, covariates=["weight", "sex"])``; ``print(found)`` shows the path,
        the tests and the lines to write into the program, and ``found.best`` is the fit.

    Note:
        Under ``joblib.parallel_config`` the fits of a step are made in several processes, with the
        same result.
    """
    begin, rule = time.perf_counter(), rule or SearchRule()
    check_is("fit", fit, PopulationFit, "pass what `fit_population` gives.", FitError)
    fit.check_likelihood("A search")
    check_usable(fit)
    check_seed(seed, FitError)
    first, name, steps = _first_structure(fit, structures, seed)
    freed = _usable_names(fit, first, freed)
    request, skipped = make_request(first, covariates, parameters, correlations, residual, freed)
    if (place := None if folder is None else Path(folder)) is not None:
        check_folder(place, fit, repr((request, rule, seed, name)))
    program, extension = _parts(first.model)
    refits = Refits(program, seed, place)
    path = SearchPath(FittedExtension(extension, first), tuple(steps), 0, skipped)
    path = _followed_path(path, refits, request, rule)
    tests = _final_tests(path, request, rule, seed)
    return ModelSearch(
        start=fit,
        best=path.current.fit,
        extension=path.current.extension,
        path=path.steps,
        tests=tests,
        num_tests=path.num_tests,
        skipped=path.skipped,
        rule=rule,
        structure=name,
        seconds=time.perf_counter() - begin,
    )


def _first_structure(
    fit: PopulationFit, structures: Mapping[str, Model] | None, seed: int
) -> tuple[PopulationFit, str, list[SearchStep]]:
    """The fit where the search begins, the name of its structure, and the steps to it."""
    if not structures:
        return fit, "", [first_step(fit)]
    fix = 'pass programs by name, for instance `{"two compartments": model}`.'
    check_is("structures", structures, Mapping, fix)
    first, name, more = best_structure(fit, structures, seed)
    return first, name, [first_step(fit), *more]


def _followed_path(
    path: SearchPath, refits: Refits, request: Request, rule: SearchRule
) -> SearchPath:
    """Terms added, removed and exchanged until nothing changes."""
    if rule.criterion == "penalised":
        path = penalised_start(path, refits, request, rule)
    for _ in range(SEARCH.max_rounds):
        path = add_terms(path, refits, request, rule)
        before = path.current
        path = remove_terms(path, refits, rule)
        path = exchange_terms(path, refits, request)
        if path.current is before:
            break
    return path


def _parts(model: Model) -> tuple[Model, Extension]:
    """The program of the user, and what an earlier search has added to it."""
    if isinstance(model, ExtendedProgram):
        return model.program, model.extension
    return model, Extension()


def make_request(
    fit: PopulationFit,
    covariates: CovariateForms | None,
    parameters: Sequence[str] | None,
    correlations: bool,
    residual: bool,
    freed: Sequence[str] = (),
) -> tuple[Request, dict[str, str]]:
    """What is searched, and what is not, and why."""
    constant, varying = list(fit.cohort.covariates), list(fit.cohort.time_varying)
    chosen = [*constant, *varying] if covariates is None else covariates
    if isinstance(chosen, str):
        chosen = [chosen]
    _check_series(fit.cohort, list(chosen))
    check_names("covariates", list(chosen), [*constant, *varying])
    forms = dict(chosen) if isinstance(chosen, Mapping) else dict.fromkeys(chosen)
    changing = {name: forms.pop(name) for name in list(forms) if name not in constant}
    _check_no_forms(changing)
    sites = held_sites(fit, list(changing), freed, covariates is not None)
    entries, skipped = normal_entries(fit)
    names = list(fit.structure.latent_names) if parameters is None else list(parameters)
    check_names("parameters", names, fit.structure.latent_names)
    used = {j: entry for j, entry in entries.items() if entry.name in names}
    skipped = {name: why for name, why in skipped.items() if name in names}
    errors, more = _error_parts(fit) if residual else ((), {})
    request = Request(forms, used, entries if correlations else {}, errors, sites)
    return request, skipped | more


def _usable_names(fit: PopulationFit, first: PopulationFit, freed: Sequence[str]) -> list[str]:
    """Names of held sites, without those that the program of the chosen structure lacks."""
    names = [freed] if isinstance(freed, str) else list(freed)
    if names:
        check_fixed(fit, names)
    return [name for name in names if name in first.fixed]


def _check_series(cohort: Cohort, names: Sequence[str]) -> None:
    """Raise if a name is that of a covariate that some individuals lack."""
    for name in names:
        if name in cohort.series and name not in cohort.covariates:
            raise SettingError(
                f"{name!r} is a series: a covariate that some individuals lack, or observations.",
                "covariates with one known value for each individual.",
                WAY,
            )


def _check_no_forms(changing: Mapping[str, CovariateForm | None]) -> None:
    for name, form in changing.items():
        if form is not None:
            raise SettingError(
                f"The form of the covariate {name!r}, which varies over time, is {form!r}.",
                "None: the program says how it acts.",
                f'pass `covariates={{"{name}": None}}`.',
            )


def _error_parts(
    fit: PopulationFit,
) -> tuple[tuple[tuple[str, ErrorKind], ...], dict[str, str]]:
    """Parts of the residual error that may be added, and why others may not."""
    with seeded(0):
        trace = run_program(fit.structure.model, fit.individuals.cohort, Assign(fit.estimates))
    parts: list[tuple[str, ErrorKind]] = []
    skipped = {}
    for name in fit.structure.observed:
        if normal_observation(trace.nodes[name]["fn"]) is None:
            skipped[f"residual error of {name}"] = "its distribution is not normal"
        else:
            parts += [(name, "additive"), (name, "proportional")]
    return tuple(parts), skipped


def _final_tests(
    path: SearchPath, request: Request, rule: SearchRule, seed: int
) -> tuple[CandidateTest, ...]:
    """Tests at the chosen model, and inclusion frequencies."""
    terms = quadratic_terms(path.current, request)
    named = [x.name for x in (*terms.included, *terms.candidates)]
    frequency = dict.fromkeys(named, float("nan"))
    if rule.num_replicates:
        scores = np.asarray(terms.expansion.scores)
        information = np.asarray(terms.expansion.information)
        values = inclusion_frequencies(scores, information, terms.groups, rule, seed=seed)
        frequency = dict(zip(named, values.tolist(), strict=True))
    rows = [_wald_row(path, term, frequency) for term in path.current.extension.terms]
    for candidate, test, size in zip(terms.candidates, terms.tests, terms.sizes, strict=True):
        p_value, share = size.p_value(test.statistic), frequency[candidate.name]
        row = (test.statistic, test.mc_error, candidate.num_added, p_value, share)
        rows.append(CandidateTest(candidate.name, False, *row))
    return tuple(rows)


def _wald_row(path: SearchPath, term: Term, frequency: Mapping[str, float]) -> CandidateTest:
    fit, freedom = path.current.fit, term.num_parameters
    statistic = wald_statistic(fit, term)
    p_value = size_without(path.current.extension, term, freedom, len(fit.cohort)).p_value(
        statistic
    )
    share = frequency.get(term.name, float("nan"))
    return CandidateTest(term.name, True, statistic, 0.0, freedom, p_value, share)
