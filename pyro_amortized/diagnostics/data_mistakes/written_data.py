r"""Whether doses, covariates, times and samples are those of their individuals.

A mistake in the file is one more model of the data: what is written belongs to what would have been
written without it (:mod:`~pyro_amortized.diagnostics.data_mistakes.written_alternatives`). With the
marginal likelihood of individual i as written and as it would have been,

.. math:: g_i = \log p(y_i \mid c_i', \hat\Psi) - \log p(y_i \mid c_i, \hat\Psi),

the likelihood ratio :math:`e^{g_i}` has the mean one if the data are right. By the inequality of
Markov it is larger than x with the probability 1/x at most, in any model and for any kind of
values; the same holds for products over individuals and for means over alternatives. So
:math:`\min(1, m\, e^{-g})` is a p-value of m alternatives. They are: one individual, a pair that
was exchanged, all individuals of a level of another variable (a site), all individuals, and a share
:math:`\pi` of individuals that nothing marks, :math:`\prod_i (1 - \pi + \pi e^{g_i})`.

A mistake in many individuals also moves the population. Both likelihoods are therefore taken at
their own maxima, which have the same number of parameters; the bound then holds for known
populations, and in good approximation for estimated ones.

References:
    Vovk, Wang (2021), E-values: calibration, combination and applications, Annals of Statistics 49.
"""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ...cohort import Cohort
from ...population.results.fit_result import PopulationFit
from ...runtime.short_lists import first_few
from ...runtime.solver_context import failures_reported_by_caller
from ...runtime.threads import threads_for
from ..check_results import P_VALUES, Check, Status
from ..result_selection import outcome_kinds
from ..variables.compared_variables import Variable, variables_of_design
from ..variables.used_covariates import names_of_used_covariates
from .written_alternatives import (
    COLUMNS,
    LEVEL,
    NEIGHBOURS,
    ROWS,
    SAMPLES,
    Alternative,
    written_alternatives,
)
from .written_exchanges import likely_pairs, written_exchanges
from .written_likelihoods import Compared, compare_alternatives, exact_gains, possible_alternatives
from .written_maxima import at_maximum, expected_gain
from .written_outcomes import outcome_alternatives

Sort = Literal["one", "pair", "pairs", "level", "share", "all"]


@dataclass(frozen=True)
class WrittenDataSettings:
    r"""What is compared.

    Args:
        max_individuals: Most individuals of a cohort that is looked at, whose alternatives take
            some seconds.
        min_individuals: Fewest individuals.
        min_in_level: Fewest individuals of a level.
        share_of_level: Smallest share of the individuals of a level for which the mistake is
            possible: a mistake of a site is one of all its individuals.
        shares: Shares of individuals that nothing marks.
        max_of_kind: Most findings of one kind of mistake that are computed again.
        max_verified: Most findings of all kinds that are computed again. A finding about many
            individuals is, if its p-value by the first approximation is below one.
        verified: The same limit for findings about one or two individuals. The product of a ratio
            and a number of alternatives may be larger than one, and so may this limit, because the
            first approximation has the population of the data as written.
        beside: P-value below which a mistake is named beside another deviation from the model.
        max_named: Most findings that are named.
        likely: Probability of a mistake from which an individual is named.
        max_listed: Most individuals that are named in one finding.
    """

    max_individuals: int = 400
    min_individuals: int = 6
    min_in_level: int = 2
    share_of_level: float = 0.8
    shares: tuple[float, ...] = (0.05, 0.15, 0.4)
    max_verified: int = 6
    max_of_kind: int = 3
    verified: float = 20.0
    beside: float = 0.05
    max_named: int = 3
    likely: float = 0.9
    max_listed: int = 8


DEFAULTS = WrittenDataSettings()
NAME = "doses, covariates and times as written"
ADVICE = (
    "Compare the file with its source. If it is wrong, correct it and fit again, before anything "
    "else: other findings may follow from it. If it is right, the model lacks something, for which "
    "the other checks are."
)


class _Claim(NamedTuple):
    """An alternative in some of the individuals that it changes.

    Args:
        alternative: Its index.
        sort: Which individuals.
        weights: Prior probabilities that they are changed, shape ``(case, changed)``.
        ratio: Log likelihood ratio.
        where: The individuals in words, if they have a common mark.
        probability: Probabilities that they are changed, given the data, shape ``(changed,)``;
            None before it is computed.
        log_prior: Logarithm of the prior probability of these pairs among all sets of pairs of
            neighbours, a part of the ratio.
    """

    alternative: int
    sort: Sort
    weights: Tensor
    ratio: float
    where: str = ""
    probability: Tensor | None = None
    log_prior: float = 0.0


def written_data_checks(fit: PopulationFit, *, seed: int = 0, beside: bool = False) -> list[Check]:
    """The check of the data against what they would be without a mistake; an empty list for a
    likelihood that is learned, and for cohorts of few or of many individuals.

    Args:
        fit: The fit.
        seed: Seed of the draws for what is found.
        beside: Whether another check has found a deviation from the model, for which a mistake is
            a possible reason.
    """
    cohort, settings = fit.cohort.to(dtype=torch.float64), DEFAULTS
    in_range = settings.min_individuals <= len(cohort) <= settings.max_individuals
    if fit.estimator != "corrected" or not in_range or not bool(fit.estimated.any()):
        return []
    # What cannot be solved with a mistake undone is an unlikely mistake, and no news.
    with torch.no_grad(), threads_for(cohort.num_values), failures_reported_by_caller():
        kinds = outcome_kinds(fit.structure)
        continuous = [n for n, kind in kinds.items() if kind == "continuous"]
        used = names_of_used_covariates(fit.individuals)
        alternatives = list(written_alternatives(cohort, used))
        alternatives += written_exchanges(cohort, used, continuous)
        alternatives += outcome_alternatives(cohort, kinds)
        alternatives = possible_alternatives(fit, alternatives)
        if not alternatives:
            return []
        compared = compare_alternatives(fit, cohort, alternatives)
        numbers: Counter[tuple[str, Sort]] = Counter()
        claims = []
        for claim, number in _claims(fit, compared, cohort):
            numbers[alternatives[claim.alternative].kind, claim.sort] += number
            claims.append(claim)
        found = _verified(fit, compared, claims, numbers, seed)
    limit = settings.beside if beside else P_VALUES.look
    return [_check(cohort, compared, found, sum(numbers.values()), limit)]


def _claims(fit: PopulationFit, compared: Compared, cohort: Cohort) -> Iterator[tuple[_Claim, int]]:
    """The largest ratio of each alternative and sort, and the number of those it is chosen from."""
    variables = [v for v in variables_of_design(cohort) if v.levels]
    half = (torch.arange(len(cohort)) >= (len(cohort) + 1) // 2).double().numpy()
    variables.append(Variable("the half of the file", half, ("first", "second")))
    for index, alternative in enumerate(compared.alternatives):
        gain = compared.gain(index)
        if alternative.partners is not None:
            yield _pair(index, alternative, gain, len(cohort))
            if alternative.kind == NEIGHBOURS:
                yield from _pairs(index, alternative, gain, len(cohort))
            continue
        is_of_all = alternative.kind == ROWS  # one individual alone is an exchange
        if not is_of_all:
            best = int(gain.argmax())
            weights = torch.zeros(1, len(gain), dtype=torch.float64)
            weights[0, best] = 1.0
            yield _Claim(index, "one", weights, float(gain[best])), len(gain)
        if alternative.kind == SAMPLES:
            for _, weights, where in _levels(alternative, variables):
                yield _Claim(index, "level", weights, float(gain @ weights[0]), where), 1
        if not alternative.moves_population:
            continue
        several: list[tuple[Sort, Tensor, str]] = []
        if not is_of_all:
            several = [*_levels(alternative, variables), ("share", _shares(len(gain)), "")]
        if alternative.kind in (COLUMNS, ROWS) and len(gain) == len(cohort):
            several.append(("all", torch.ones(1, len(gain), dtype=torch.float64), ""))
        for sort, weights, where in several:
            ratio = expected_gain(fit, compared, index, weights)
            yield _Claim(index, sort, weights, ratio, where), 1


def _pair(index: int, alternative: Alternative, gain: Tensor, num: int) -> tuple[_Claim, int]:
    """The pair whose exchange has the largest ratio."""
    partners = alternative.partners
    assert partners is not None
    both = torch.full((num, num), -torch.inf, dtype=torch.float64)
    both[alternative.rows, partners] = gain
    i, j = divmod(int((both + both.T).argmax()), num)
    own = (alternative.rows == i) & (partners == j) | (alternative.rows == j) & (partners == i)
    claim = _Claim(index, "pair", own.double().unsqueeze(0), float(both[i, j] + both[j, i]))
    return claim, len(gain) // 2


def _pairs(
    index: int, alternative: Alternative, gain: Tensor, num: int
) -> Iterator[tuple[_Claim, int]]:
    """Several pairs of neighbours at once, the most likely ones."""
    assert alternative.partners is not None
    first = torch.minimum(alternative.rows, alternative.partners)
    both = torch.zeros(num, dtype=torch.float64).index_add(0, first, gain)
    both[torch.ones(num, dtype=torch.bool).index_fill(0, first, False)] = -torch.inf
    chosen, log_prior = likely_pairs(both, DEFAULTS.shares)
    if len(chosen) > 1:
        own = torch.isin(first, chosen)
        ratio = float(gain[own].sum()) + log_prior
        weights = own.double().unsqueeze(0)
        yield _Claim(index, "pairs", weights, ratio, log_prior=log_prior), 1


def _shares(num: int) -> Tensor:
    return torch.tensor(DEFAULTS.shares, dtype=torch.float64).unsqueeze(1).expand(-1, num)


def _levels(
    alternative: Alternative, variables: list[Variable]
) -> Iterator[tuple[Sort, Tensor, str]]:
    """The individuals of each level of each variable."""
    rows = alternative.rows.numpy()
    for variable in variables:
        for level in variable.levels:
            own = torch.as_tensor(variable.values[rows] == level).double().unsqueeze(0)
            least = DEFAULTS.share_of_level * (variable.values == level).sum()
            if own.sum() >= max(DEFAULTS.min_in_level, least):
                yield "level", own, f"where {variable.name} is {variable.level_name(level)}"


def _verified(
    fit: PopulationFit,
    compared: Compared,
    claims: list[_Claim],
    numbers: Counter[tuple[str, Sort]],
    seed: int,
) -> list[tuple[float, _Claim]]:
    """The p-values of the most likely claims, the smallest first, computed again."""

    def p_value(claim: _Claim) -> float:
        number = numbers[compared.alternatives[claim.alternative].kind, claim.sort]
        return len(numbers) * number * math.exp(-min(max(claim.ratio, 0.0), 700.0))

    result = []
    ordered = sorted(claims, key=lambda x: (p_value(x), -x.ratio))
    seen: Counter[str] = Counter()
    chosen: list[_Claim] = []
    for claim in ordered:
        kind = compared.alternatives[claim.alternative].kind
        seen[kind] += 1
        if seen[kind] <= DEFAULTS.max_of_kind and len(chosen) < DEFAULTS.max_verified:
            chosen.append(claim)
    known = {(x.alternative, x.sort) for x in chosen}
    far = [x for x in ordered if _is_far(compared, x)][: DEFAULTS.max_of_kind]
    chosen += [x for x in far if (x.alternative, x.sort) not in known]
    for claim in chosen:
        exact = claim
        limit = DEFAULTS.verified if claim.sort in ("one", "pair") else 1.0
        if p_value(claim) < limit or _is_far(compared, claim):
            two_groups = claim.sort == "share" and _is_far(compared, claim)
            index, weights = claim.alternative, claim.weights
            ratio, probability = at_maximum(fit, compared, index, weights, split=two_groups)
            ratio += claim.log_prior
            if claim.sort in ("one", "pair"):
                places, alternative = weights[0].nonzero()[:, 0], compared.alternatives[index]
                approximate = compared.gain(index)[places]
                ratio += float((exact_gains(fit, alternative, places, seed) - approximate).sum())
            exact = claim._replace(ratio=ratio, probability=probability)
        result.append((min(1.0, p_value(exact)), exact))
    return sorted(result, key=lambda x: (x[0], -x[1].ratio))


def _is_far(compared: Compared, claim: _Claim) -> bool:
    """Whether the population may move so far that the first approximation does not decide: an
    effect that is found again. These alternatives are few.
    """
    kind = compared.alternatives[claim.alternative].kind
    return claim.sort == "all" or (claim.sort == "share" and kind.startswith(LEVEL))


def _check(
    cohort: Cohort,
    compared: Compared,
    found: list[tuple[float, _Claim]],
    number: int,
    limit: float,
) -> Check:
    """The verdict; of several claims about one kind of mistake the most likely one is named."""

    def is_named(p_value: float, claim: _Claim) -> bool:
        alternative = compared.alternatives[claim.alternative]
        is_of_group = alternative.kind == SAMPLES and claim.sort == "level"  # or another curve
        return p_value < (P_VALUES.look if alternative.may_be_effect or is_of_group else limit)

    named = [x for x in found if is_named(*x)]
    smallest = (named or found)[0][0]
    words = f"None of {number} mistakes that were tried makes the data more likely than chance."
    status: Status = "passed"
    if named:
        status = "failed" if smallest < P_VALUES.failed else "look"
        best: dict[str, str] = {}
        for p_value, claim in named:
            kind = compared.alternatives[claim.alternative].kind
            if kind not in best:
                best[kind] = f"{_words(cohort, compared, claim)} (p = {p_value:.1g})"
        listed = "; or ".join(list(best.values())[: DEFAULTS.max_named])
        words = f"The data would be far more likely if this were a mistake: {listed}. {ADVICE}"
    return Check(NAME, status, smallest, words, "model", number)


def _words(cohort: Cohort, compared: Compared, claim: _Claim) -> str:
    alternative = compared.alternatives[claim.alternative]
    labels = [cohort.ids[i] for i in alternative.rows.tolist()]
    own = [labels[k] for k in claim.weights[0].nonzero()[:, 0].tolist()]
    if claim.sort == "pair":
        return alternative.words.format(*own)
    if claim.sort == "pairs":
        assert alternative.partners is not None
        places = claim.weights[0].nonzero()[:, 0].tolist()
        both = [(int(alternative.rows[k]), int(alternative.partners[k])) for k in places]
        pairs = [f"{cohort.ids[i]} and {cohort.ids[j]}" for i, j in both if i < j]
        listed = first_few(pairs, DEFAULTS.max_listed)
        text = alternative.words.format("the individuals", "their neighbours")
        return f"{len(pairs)} times ({listed}): {text}"
    if claim.sort in ("all", "level"):
        return f"{claim.where or 'in all individuals'}: {alternative.words}"
    if claim.sort == "one":
        return f"individual {own[0]}: {alternative.words}"
    probability = claim.probability
    if probability is None:
        prior = math.log(DEFAULTS.shares[1] / (1 - DEFAULTS.shares[1]))
        probability = torch.sigmoid(compared.gain(claim.alternative) + prior)
    order = probability.argsort(descending=True).tolist()
    likely = [labels[k] for k in order if float(probability[k]) > DEFAULTS.likely]
    listed = first_few(likely, DEFAULTS.max_listed)
    many = f"about {float(probability.sum()):.0f} of {len(cohort)} individuals"
    return f"in {many}{f' ({listed})' if likely else ''}: {alternative.words}"
