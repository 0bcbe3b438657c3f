r"""What simulation, dosing and designs need to know of a population, from whatever was passed.

A fit, posterior draws of the population, a bootstrap, or a model with known parameters becomes a
:class:`Source`: the model, the estimates, perhaps their uncertainty, and perhaps data.
"""

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor

from ..cohort import Cohort
from ..cohort.category_alignment import with_categories_of
from ..errors import FitError, GuideError, SettingError
from ..guide import AmortizedGuide
from ..model import Estimator, Model, ModelStructure
from ..population.bootstrapping import Bootstrap
from ..population.known_population import KnownPopulation
from ..population.posterior.population_draws import even_normal_vectors, normal_vectors
from ..population.posterior.population_posterior import PopulationDraws
from ..population.results.fit_result import PopulationFit
from ..runtime.arguments import check_is

FittedPopulation = PopulationFit | PopulationDraws | Bootstrap | KnownPopulation


@dataclass(frozen=True, eq=False)
class Source:
    r"""A population, and where it comes from.

    Args:
        model: The model.
        estimates: Values of the population sites.
        series: Names of the series that the model observes.
        covariates: Names of the covariates that may be given, or None if they are not known.
        cohort: The data of the fit, or the cohort of a known population, or None.
        fit: The fit, or None.
        known: The known population, or None.
        draws: Draws of the population, unconstrained, shape ``(draw, population)``, or None.
    """

    model: Model
    estimates: dict[str, Tensor]
    series: tuple[str, ...]
    covariates: tuple[str, ...] | None
    cohort: Cohort | None
    fit: PopulationFit | None = None
    known: KnownPopulation | None = None
    draws: Tensor | None = None

    def check_covariates(self, given: Iterable[str]) -> None:
        r"""Raise if covariates are given that the model does not read.

        Raises:
            SettingError: A covariate is unknown.
        """
        unknown = [] if self.covariates is None else sorted(set(given) - set(self.covariates))
        if unknown:
            raise SettingError(
                f"The covariate {unknown[0]!r} is given, which the model does not know.",
                f"covariates among {sorted(self.covariates or ())}.",
                "correct the name, or leave it out.",
            )

    def check_complete(self, given: Collection[str]) -> None:
        r"""Raise if a covariate is lacking that the model reads; where there are data, it is not
        known which of their covariates it reads.

        Raises:
            SettingError: A covariate is lacking.
        """
        if self.cohort is not None or self.covariates is None:
            return
        lacking = [name for name in self.covariates if name not in given]
        if lacking:
            raise SettingError(
                f"The covariate {lacking[0]!r} is not given, which the model reads.",
                f"values of {list(self.covariates)}.",
                f"pass for example `{{{lacking[0]!r}: value}}` as the patient.",
            )

    def named(self, cohort: Cohort) -> Cohort:
        r"""A cohort with the categories of covariates as they are in the data of the fit.

        Raises:
            CohortError: An individual has a category that these data do not have.
        """
        return with_categories_of(cohort, {} if self.cohort is None else self.cohort.categories)

    def guide_for(self, cohort: Cohort) -> AmortizedGuide | None:
        """The guide of the fit, or None where there is none, or where it does not take these data
        (a covariate that only the guide reads is missing) and the density of the model is enough.
        """
        guide = None if self.fit is None else self.fit.guide
        if guide is None or self.estimator == "likelihood-free":
            return guide
        try:
            guide.posterior.encoder.check(cohort)
        except GuideError:
            return None
        return guide

    @property
    def estimator(self) -> Estimator | None:
        """The estimator of the fit, or None."""
        return None if self.fit is None else self.fit.estimator

    def structure(self, cohort: Cohort) -> ModelStructure:
        """The structure of the model for some individuals. That of a fit is read again only where
        its plates (occasions) may have another size.
        """
        if self.fit is None:
            assert self.known is not None
            return self.known.structure(cohort)
        sites = self.fit.structure.individual.values()
        if self.fit.estimator == "likelihood-free" or not any(site.plates for site in sites):
            return self.fit.structure
        return KnownPopulation(self.model, self.estimates, {}, None, self.series).structure(cohort)

    def covariance(self, structure: ModelStructure) -> Tensor:
        """Covariance of the unconstrained estimates; NaN in coordinates where it is not known."""
        if self.fit is not None:
            return self.fit.covariance
        assert self.known is not None
        return self.known.covariance(structure)

    def is_uncertain(self, structure: ModelStructure) -> bool:
        """Whether the uncertainty of any population parameter is known."""
        if self.draws is not None:
            return True
        return not bool(self.covariance(structure).diagonal().isnan().all())

    def what_varies(
        self, structure: ModelStructure
    ) -> Literal["population and individuals", "individuals"]:
        """What varies between draws unless the user decides: the population as well where its
        uncertainty is known.
        """
        return "population and individuals" if self.is_uncertain(structure) else "individuals"

    def vectors(self, structure: ModelStructure, num_draws: int, generator: Generator) -> Tensor:
        r"""Draws of the population, unconstrained, shape ``(draw, population)``.

        Raises:
            FitError: No uncertainty is known.
        """
        if self.draws is not None:
            num = len(self.draws)  # each is used equally often
            orders = [torch.randperm(num, generator=generator) for _ in range(-(-num_draws // num))]
            return self.draws[torch.cat(orders)[:num_draws]]
        return normal_vectors(*self._normal(structure), num_draws, generator)

    def grouped_vectors(
        self, structure: ModelStructure, num_draws: int, num_sets: int, generator: Generator
    ) -> tuple[Tensor, Tensor]:
        r"""Different draws of the population, unconstrained, shape ``(draw, population)``, and the
        group of each, shape ``(draw,)``; different groups are independent.

        Args:
            structure: The model.
            num_draws: Wanted number. Of a posterior or a bootstrap there may be fewer, each a group
                of its own.
            num_sets: Sets of quasi-random draws from a normal distribution, which are its groups.
            generator: Source of randomness.

        Raises:
            FitError: No uncertainty is known.
        """
        if self.draws is not None:
            picked = self.draws[torch.randperm(len(self.draws), generator=generator)[:num_draws]]
            return picked, torch.arange(len(picked))
        num_points = 2 ** int(math.log2(max(num_draws // num_sets, 1)))
        sets = even_normal_vectors(*self._normal(structure), num_points, num_sets, generator)
        return sets.flatten(0, 1), torch.arange(num_sets).repeat_interleave(num_points)

    def _normal(self, structure: ModelStructure) -> tuple[Tensor, Tensor]:
        """The unconstrained estimates and their covariance."""
        if not self.is_uncertain(structure):
            raise FitError(
                "The uncertainty of the population parameters is not known.",
                "a fit with standard errors, or `standard_errors=` of known parameters.",
                'pass `uncertainty="individuals"`, or give the standard errors.',
            )
        return structure.unconstrain_population(self.estimates), self.covariance(structure)


def source_of(fit: FittedPopulation) -> Source:
    r"""The population that a fit, draws of it, a bootstrap or known parameters stand for.

    Raises:
        FitError: The argument is something else.
    """
    kinds = (PopulationFit, PopulationDraws, Bootstrap, KnownPopulation)
    fix = "pass what `fit_population` gives, or `population(model, estimates)` without a fit."
    check_is("fit", fit, kinds, fix, FitError)
    if isinstance(fit, KnownPopulation):
        if not fit.series:
            raise FitError(
                "It is not known which series the model observes.",
                "a model that reads `cohort[name]`, or a cohort.",
                "pass `population(model, estimates, cohort=...)`.",
            )
        names = (fit.series, fit.covariates)
        return Source(fit.model, dict(fit.estimates), *names, fit.cohort, known=fit)
    base = fit if isinstance(fit, PopulationFit) else fit.fit
    draws = None if isinstance(fit, PopulationFit) else fit.vectors
    names = (tuple(base.cohort.series), tuple(base.cohort.covariates))
    return Source(base.model, base.estimates, *names, base.cohort, fit=base, draws=draws)
