"""How a model search decides, and the constants of its tests."""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import scipy.special

from ...errors import SettingError
from ...runtime.arguments import check_count, check_number

SelectionCriterion = Literal["p", "bic", "penalised"]


@dataclass(frozen=True)
class SearchRule:
    r"""When a term is taken into the model, and when it leaves it.

    Args:
        criterion: ``"p"``: by the p-value of the likelihood-ratio test
            (:class:`~pyro_amortized.applications.model_search.search_settings.RatioDistribution`).
            ``"bic"``: by the Bayesian information criterion with the number of individuals.
            ``"penalised"``: of the supports of an adaptive lasso on the quadratic at the first fit,
            the one with the smallest BIC is fitted; the search goes on from it by BIC.
        forward: P-value below which a term is added.
        backward: P-value above which a term is removed. Default: that of ``forward``.
        max_terms: Most terms that are added.
        num_replicates: Bootstrapped cohorts for the inclusion frequencies; 0 for none.

    Raises:
        SettingError: A value is outside its range.
    """

    criterion: SelectionCriterion = "p"
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

    def needed(self, size: "RatioDistribution") -> float:
        """Fall of -2LL that a term needs to be added."""
        if self.criterion != "p":
            return size.freedom * math.log(size.num_individuals)
        return size.quantile(self.forward)

    def kept(self, size: "RatioDistribution") -> float:
        """Rise of -2LL at its removal that a term needs to stay."""
        if self.criterion != "p":
            return size.freedom * math.log(size.num_individuals)
        return size.quantile(self.forward if self.backward is None else self.backward)


class RatioDistribution(NamedTuple):
    r"""What the distribution of a fall of -2LL depends on if a term has no effect.

    In a regression of N values with n coefficients besides the d tested ones, the likelihood ratio
    :math:`N \log(1 + F d / (N - n - d))` has the distribution of this function of Fisher's F,
    which is wider than the chi-squared distribution; a random effect that the data determine well
    is such a value, one per individual. The statistic of a part of the residual error, a variance
    that is zero under the smaller model, is zero with probability one half and chi-squared else.

    Args:
        freedom: d, number of parameters of the term.
        num_individuals: N.
        used: n, number of coefficients of the same individual parameter: its mean, its covariate
            effects and its correlations with others.
        one_sided: Whether the parameter is a part of the residual error.

    References:
        Anderson (2003), An introduction to multivariate statistical analysis, chapter 8; Self and
        Liang (1987), Asymptotic properties of maximum likelihood estimators under nonstandard
        conditions.
    """

    freedom: int
    num_individuals: int
    used: int = 1
    one_sided: bool = False

    @property
    def spare(self) -> int:
        """Individuals beyond the coefficients."""
        return max(1, self.num_individuals - self.used - self.freedom)

    def quantile(self, p_value: float) -> float:
        """Fall of -2LL with a p-value."""
        if self.one_sided:
            return float(scipy.special.chdtri(self.freedom, min(1.0, 2 * p_value)))
        f = float(scipy.special.fdtri(self.freedom, self.spare, 1 - p_value))
        return self.num_individuals * math.log1p(f * self.freedom / self.spare)

    def p_value(self, statistic: float) -> float:
        """P-value of a fall of -2LL; NaN for NaN."""
        if not math.isfinite(statistic):
            return math.nan
        if self.one_sided:
            return float(scipy.special.chdtrc(self.freedom, max(statistic, 0.0))) / 2
        f = math.expm1(max(statistic, 0.0) / self.num_individuals) * self.spare / self.freedom
        return float(scipy.special.fdtrc(self.freedom, self.spare, f))


@dataclass(frozen=True)
class ModelSearchSettings:
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
        near_exchange: An exchange of terms is fitted if the quadratic promises that -2LL rises by
            less than this: the quadratic is centred at the present model and favours it.
        max_values: Draws times individuals times parameters of the scores, which limits memory.
        min_draws: Draws of every individual that are used even beyond this.
        relative_step: Step of differences in the population, in units of the scale of the search.
        normal_tolerance: Largest difference of the log density from a normal one, in nats.
        min_information: Smallest part of the information of a candidate that the parameters of the
            model may leave: with less, the model has the candidate already.
        max_rounds: Most rounds of additions and removals.
        num_penalties: Penalties of a penalised path.
        weakest_penalty: The weakest of them, as a part of the strongest: nearly none.
        max_sweeps: Most sweeps of the coordinate descent of a penalised path.
        settled: Relative move of its coefficients below which it ends.
        held_step: Move of a held site, in units of its scale, that shows which covariates act
            through it.
        same_density: Relative change of a log density below which it is the same: rounding.
    """

    max_levels: int = 6
    min_in_level: int = 3
    min_individuals: int = 8
    screening: float = 0.6
    max_refused: int = 3
    errors: float = 2.0
    sure: float = 3.0
    near_exchange: float = 2.0
    max_values: int = 10_000_000
    min_draws: int = 25
    relative_step: float = 1e-3
    normal_tolerance: float = 1e-3
    min_information: float = 1e-4
    max_rounds: int = 4
    num_penalties: int = 60
    weakest_penalty: float = 1e-4
    max_sweeps: int = 500
    settled: float = 1e-10
    held_step: float = 0.1
    same_density: float = 1e-9


SEARCH = ModelSearchSettings()
