"""How a model search decides, and the constants of its tests."""

import math
from dataclasses import dataclass
from typing import Literal

import scipy.special

from ...errors import SettingError
from ...runtime.arguments import check_count, check_number

Criterion = Literal["p", "bic", "penalised"]


@dataclass(frozen=True)
class SearchRule:
    r"""When a term is taken into the model, and when it leaves it.

    Args:
        criterion: ``"p"``: by the p-value of the likelihood-ratio test. ``"bic"``: by the Bayesian
            information criterion with the number of individuals. ``"penalised"``: the supports of
            an adaptive lasso on the quadratic approximation at the first fit are fitted, and the
            one with the smallest BIC is taken; then backward elimination by BIC.
        forward: P-value below which a term is added.
        backward: P-value above which a term is removed. Default: that of ``forward``.
        max_terms: Most terms that are added.
        num_replicates: Bootstrapped cohorts for the inclusion frequencies; 0 for none.

    Raises:
        SettingError: A value is outside its range.
    """

    criterion: Criterion = "p"
    forward: float = 0.01
    backward: float | None = None
    max_terms: int = 10
    num_replicates: int = 200

    def __post_init__(self) -> None:
        if self.criterion not in ("p", "bic", "penalised"):
            raise SettingError(
                f"`criterion` is {self.criterion!r}.",
                '"p", "bic" or "penalised".',
                "correct `criterion=` of the rule.",
            )
        for name in ("forward", "backward"):
            value = getattr(self, name)
            if value is not None:
                check_number(name, value, 0, 1, with_low=False, error=SettingError)
        check_count("max_terms", self.max_terms, error=SettingError)
        check_count("num_replicates", self.num_replicates, least=0, error=SettingError)

    def needed(self, freedom: int, num_individuals: int, *, one_sided: bool = False) -> float:
        """Fall of -2LL that a term with some degrees of freedom needs to be added."""
        if self.criterion != "p":
            return freedom * math.log(num_individuals)
        return quantile(self.forward, freedom, one_sided)

    def kept(self, freedom: int, num_individuals: int, *, one_sided: bool = False) -> float:
        """Rise of -2LL at its removal that a term needs to stay."""
        if self.criterion != "p":
            return freedom * math.log(num_individuals)
        backward = self.forward if self.backward is None else self.backward
        return quantile(backward, freedom, one_sided)


def quantile(p_value: float, freedom: int, one_sided: bool) -> float:
    """Value of the chi-squared statistic with an upper tail, for a variance of half the size."""
    tail = min(1.0, 2 * p_value) if one_sided else p_value
    return float(scipy.special.chdtri(freedom, tail))


def tail(statistic: float, freedom: int, one_sided: bool = False) -> float:
    """P-value of a chi-squared statistic; that of a variance, which is zero under the smaller
    model, is half as large (Self and Liang, 1987).
    """
    p_value = float(scipy.special.chdtrc(freedom, max(statistic, 0.0)))
    return p_value / 2 if one_sided else p_value


@dataclass(frozen=True)
class SearchSettings:
    r"""Constants of a search.

    Args:
        max_levels: Most different whole numbers of a covariate that is a category.
        min_in_level: Fewest individuals of a category: a contrast of fewer is decided by one of
            them.
        min_individuals: Fewest individuals of a search.
        screening: A candidate is fitted if its score statistic is at least this part of what the
            rule needs. The score statistic is smaller than the likelihood ratio for strong effects
            and about the same near the limit.
        max_refused: Refits of one step that are refused, one after another, before the step ends.
        errors: A difference of -2LL that is smaller than this multiple of its Monte Carlo error
            decides nothing.
        sure: A term is kept without a fit of the smaller model if its Wald statistic is above this
            multiple of what it needs.
        max_values: Draws times individuals times parameters of the scores, which limits memory.
        relative_step: Step of differences in the population, in units of the scale of the search.
        law_tolerance: Largest difference of the log density from a normal one, in nats.
        min_information: Smallest part of the information of a candidate that the parameters of the
            model may leave: with less, the model has the candidate already.
        max_rounds: Most rounds of additions and removals.
        num_penalties: Penalties of a penalised path.
    """

    max_levels: int = 6
    min_in_level: int = 3
    min_individuals: int = 8
    screening: float = 0.6
    max_refused: int = 3
    errors: float = 2.0
    sure: float = 3.0
    max_values: int = 10_000_000
    relative_step: float = 1e-3
    law_tolerance: float = 1e-3
    min_information: float = 1e-4
    max_rounds: int = 4
    num_penalties: int = 60


SEARCH = SearchSettings()
