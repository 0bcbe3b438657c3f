r"""Simulation-based calibration: is the truth where the posterior says it is?

Individuals are simulated from the training distribution, :math:`\phi \sim \tilde p`,
:math:`y \sim p(y \mid \phi, c)`. If :math:`p(\phi \mid y, c)` is right, the rank of the true value
among posterior draws is uniform and a central 90 % interval covers it in 90 % of the cases, for
every parameter. Both are computed for the guide as it is (*raw*) and for its draws corrected by the
model's density.

Uniform ranks do not prove a posterior right (the training distribution itself has them); see also
the marginal likelihood against quadrature in the benchmarks.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from scipy.stats import chisquare
from torch import Tensor

from ..cohort import Cohort, Design
from ..errors import SettingError, TrainingError
from ..guide import AmortizedGuide
from ..guide.amortized_posterior import AmortizedPosterior
from ..guide.newton_posterior import SharpenedPosterior
from ..guide.training_distributions import TrainingDistribution
from ..missing import Remaskable, default_design
from ..model import ModelStructure
from ..runtime.arguments import check_count, check_is
from ..runtime.random_numbers import fork_seed, make_generator
from ..runtime.workers import run_each
from ..sampling.adaptive_importance import Sampler
from ..sampling.importance_weights import (
    effective_sample_size,
    finite_or_zero_weight,
    importance_estimate,
    normalized_weights,
    resample,
    weighted_moments,
)
from ..sampling.individuals import MIN_DRAWS
from ..sampling.proposals import FlowProposal
from .uniformity_tests import independence_p_value, uniform_p_value

BLOCK = 100


@dataclass(frozen=True, eq=False)
class Calibration:
    r"""Ranks and probability transforms of simulated individuals.

    Args:
        names: One label per parameter.
        ranks: Rank of the true value among ``num_ranks`` corrected draws, shape ``(individual,
            latent)``.
        raw_ranks: The same for draws of the guide.
        levels: Posterior probability below the true value, corrected, shape ``(individual,
            latent)``.
        raw_levels: The same for the guide.
        num_ranks: Number of draws among which the truth is ranked; ranks run from 0 to
            ``num_ranks``.
        ess: Effective sample size of the corrected draws, shape ``(individual,)``.
        pareto_k: Their Pareto k.
        truth: True individual parameters, unconstrained, shape ``(individual, latent)``.
        means: Their posterior means, corrected, same shape.
        sds: Their posterior standard deviations, corrected, same shape.
        tarp: Posterior probability of what is nearer to a random place than the truth, corrected:
            uniform for a right posterior, whatever the shape; shape ``(individual,)``.
        raw_tarp: The same for the guide.
        raw_efficiency: Share of the guide's own draws that are effective, shape ``(individual,)``.
        num_recorded: Number of recorded values of each individual.
        share_missing: Share of what was scheduled that is not recorded.
        covariates: Covariates of the simulated individuals.

    Where observations have no density nothing can be corrected: ``ranks`` and ``levels`` are those
    of the guide, ``ess`` and ``pareto_k`` NaN.
    """

    names: list[str]
    ranks: Tensor
    raw_ranks: Tensor
    levels: Tensor
    raw_levels: Tensor
    num_ranks: int
    ess: Tensor
    pareto_k: Tensor
    truth: Tensor
    means: Tensor
    sds: Tensor
    tarp: Tensor
    raw_tarp: Tensor
    raw_efficiency: Tensor
    num_recorded: Tensor
    share_missing: Tensor
    covariates: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ranks)

    def where(self, picked: Tensor) -> "Calibration":
        r"""The same of some individuals: those of one experiment, with many values missing, ...

        Args:
            picked: Boolean, shape ``(individual,)``; for instance
                ``calibration.share_missing > 0.3`` or ``calibration.covariates["arm"] == 1``.
        """
        fields: dict[str, Any] = {
            n: x[picked] for n, x in vars(self).items() if isinstance(x, Tensor)
        }
        covariates = {name: x[picked] for name, x in self.covariates.items()}
        return replace(self, **fields, covariates=covariates)

    def uniform_p_values(self, *, raw: bool = False) -> dict[str, float]:
        r"""P-values of the ranks' whole distribution function against simultaneous bands, per
        parameter.

        Args:
            raw: For the guide as it is.
        """
        ranks = self.raw_ranks if raw else self.ranks
        jitter = np.random.default_rng(0).random(tuple(ranks.shape))
        found = uniform_p_value((ranks.numpy() + jitter) / (self.num_ranks + 1))
        return dict(zip(self.names, found.tolist(), strict=True))

    def tarp_p_value(self, *, raw: bool = False) -> float:
        r"""P-value of uniform coverage of the joint posterior.

        Args:
            raw: For the guide as it is.

        References:
            Lemos, Coogan, Hezaveh, Perreault-Levasseur (2023), Sampling-based accuracy testing of
            posterior estimators for general inference.
        """
        return float(uniform_p_value((self.raw_tarp if raw else self.tarp).numpy()[:, None])[0])

    def local_p_values(self, *, raw: bool = False) -> dict[str, float]:
        r"""P-values of levels that do not depend on the data, per parameter: on the posterior mean
        and log sd of all parameters and the number of recorded values. Ranks that are uniform on
        the average may hide errors that cancel between data sets.

        Args:
            raw: For the guide as it is.
        """
        levels = (self.raw_levels if raw else self.levels).numpy()
        data = [self.means, self.sds.clamp(min=1e-12).log(), self.num_recorded[:, None].double()]
        features = torch.cat(data, 1).numpy()
        found = [independence_p_value(column, features) for column in levels.T]
        return dict(zip(self.names, found, strict=True))

    def contraction(self) -> dict[str, float]:
        """Share of the training distribution's variance that the data take away, per parameter: 0
        where they say nothing, 1 where they say all.
        """
        share = 1 - self.sds.pow(2).mean(0) / self.truth.var(0)
        return dict(zip(self.names, share.tolist(), strict=True))

    def recovery(self) -> dict[str, float]:
        """Correlation of posterior means with the truth, per parameter."""
        pairs = zip(self.truth.T, self.means.T, strict=True)
        found = [float(torch.corrcoef(torch.stack(pair))[0, 1]) for pair in pairs]
        return dict(zip(self.names, found, strict=True))

    def p_values(self, *, raw: bool = False, num_bins: int = 10) -> dict[str, float]:
        r"""Chi-square p-value of uniform ranks, per parameter.

        Args:
            raw: For the guide as it is.
            num_bins: Bins of equal width; ``num_ranks + 1`` must be a multiple of it.
        """
        if (self.num_ranks + 1) % num_bins:
            raise TrainingError(
                f"{num_bins} bins for {self.num_ranks + 1} possible ranks.",
                "a divisor of the number of possible ranks.",
                "pass `num_bins=10` or calibrate with another `num_ranks=`.",
            )
        ranks = (self.raw_ranks if raw else self.ranks) * num_bins // (self.num_ranks + 1)
        counts = [torch.bincount(column, minlength=num_bins).numpy() for column in ranks.unbind(1)]
        return {
            name: float(chisquare(c).pvalue) for name, c in zip(self.names, counts, strict=True)
        }

    def coverage(self, level: float, *, raw: bool = False) -> dict[str, float]:
        """Share of individuals whose true value lies in the central interval of a level, per
        parameter.
        """
        below = self.raw_levels if raw else self.levels
        inside = ((below - 0.5).abs() <= level / 2).double().mean(0)
        return dict(zip(self.names, inside.tolist(), strict=True))


def calibrate(
    guide: AmortizedGuide,
    design: Cohort | Design,
    *,
    num_individuals: int = 500,
    num_draws: int = 2000,
    num_ranks: int = 99,
    seed: int = 0,
) -> Calibration:
    r"""Simulate individuals, sample their posteriors, and see where the truth falls.

    Args:
        guide: The trained guide.
        design: Where times, doses, covariates and missingness come from, for instance
            ``Resample(cohort, RandomMissing(0.3, 0.3))``; or a cohort, as for training.
        num_individuals: Number of simulated individuals.
        num_draws: Weighted draws per individual. Resampling few effective draws is overconfident,
            which the ranks of thousands of individuals see; more draws fix it.
        num_ranks: Draws among which the truth is ranked.
        seed: Seed of everything. Blocks of 100 individuals have seeds of their own; under
            ``joblib.parallel_config`` they run in parallel, with the same result.
    """
    check_is("guide", guide, AmortizedGuide, "pass a trained or loaded guide.", SettingError)
    check_count("num_individuals", num_individuals)
    check_count("num_draws", num_draws, least=MIN_DRAWS)
    check_count("num_ranks", num_ranks, most=num_draws)
    if isinstance(design, Cohort):
        design = default_design(design)
    generator = make_generator(seed)
    parts = run_each(
        _calibrate_block,
        [
            (
                *(guide.posterior, guide.structure, guide.training_distribution, design),
                *(min(BLOCK, num_individuals - start), num_draws, num_ranks, fork_seed(generator)),
            )
            for start in range(0, num_individuals, BLOCK)
        ],
    )
    whole = {name: torch.cat([p[name] for p in parts]) for name in parts[0]}
    covariates = {n.split(":", 1)[1]: x for n, x in whole.items() if n.startswith("covariate:")}
    fields = {n: x for n, x in whole.items() if not n.startswith("covariate:")}
    names = guide.structure.latent_names
    return Calibration(names=names, num_ranks=num_ranks, covariates=covariates, **fields)


def _calibrate_block(  # noqa: PLR0913  (what a worker needs, each on its own)
    posterior: AmortizedPosterior | SharpenedPosterior,
    structure: ModelStructure,
    training: TrainingDistribution,
    design: Design,
    num_individuals: int,
    num_draws: int,
    num_ranks: int,
    seed: int,
) -> dict[str, Tensor]:
    """Ranks, levels and weights of some individuals, by field of :class:`Calibration`."""
    generator = make_generator(seed)
    cohort, truth, shared = _fresh(structure, training, design, num_individuals, generator)
    proposal = FlowProposal(posterior.condition(cohort, shared))
    with torch.no_grad():
        raw, log_proposal = proposal.draw(num_draws, torch.arange(len(cohort)), generator)
    place = training.individual.draw(cohort, 1, generator)[0]
    equal = torch.full(raw.shape[:2], 1 / num_draws, dtype=torch.float64)
    raw_levels = (raw < truth).double().mean(0)
    found = {"raw_ranks": (raw[:num_ranks] < truth).sum(0), "raw_levels": raw_levels}
    found |= {"truth": truth, "raw_tarp": _nearer(raw, equal, truth, place)}
    found |= _of_data(structure, cohort)
    if not structure.has_density:
        unknown = torch.full((len(cohort),), torch.nan, dtype=torch.float64)
        same = {"ranks": found["raw_ranks"], "levels": raw_levels, "tarp": found["raw_tarp"]}
        same |= {"means": raw.mean(0), "sds": raw.std(0)}
        return found | same | {"ess": unknown, "pareto_k": unknown, "raw_efficiency": unknown}

    def target(draws: Tensor, rows: Tensor) -> Tensor:
        observation = [
            structure.log_observation(cohort[rows], part, shared[rows]) for part in draws.split(100)
        ]
        return torch.cat(observation) + training.individual.log_prob(cohort[rows], draws)

    def draw_training(num: int, rows: Tensor, generator: torch.Generator) -> Tensor:
        return training.individual.draw(cohort[rows], num, generator)

    def log_training(draws: Tensor, rows: Tensor) -> Tensor:
        return training.individual.log_prob(cohort[rows], draws)

    with torch.no_grad():
        rows = torch.arange(len(cohort))
        own = effective_sample_size(finite_or_zero_weight(target(raw, rows) - log_proposal))
        found |= {"raw_efficiency": own / num_draws}
        sampler = Sampler(target, draw_training, log_training, proposal)
        drawn, _ = sampler.sample(num_draws, len(cohort), generator, refine=True)
    weights = normalized_weights(drawn.log_weights)
    found |= {"tarp": _nearer(drawn.draws, weights, truth, place)}
    return found | _corrected(drawn.draws, drawn.log_weights, truth, num_ranks, generator)


def _nearer(draws: Tensor, weights: Tensor, truth: Tensor, place: Tensor) -> Tensor:
    """Posterior probability of being nearer to a place than the truth, each coordinate in units of
    the truths' spread; shape ``(individual,)``.
    """
    unit = truth.std(0).clamp(min=1e-12) if len(truth) > 1 else torch.ones_like(truth[0])
    near = ((draws - place) / unit).norm(dim=-1) < ((truth - place) / unit).norm(dim=-1)
    return (weights * near).sum(0)


def _of_data(structure: ModelStructure, cohort: Cohort) -> dict[str, Tensor]:
    """What each individual's data are like, by field; covariates by ``covariate:name``."""
    recorded = sum(cohort[n].observed.flatten(1).sum(1) for n in structure.series)
    scheduled = sum(cohort[n].observed[0].numel() for n in structure.series)
    found = {"num_recorded": torch.as_tensor(recorded)}
    found["share_missing"] = 1 - found["num_recorded"].double() / scheduled
    return found | {f"covariate:{name}": x for name, x in cohort.covariates.items()}


def _fresh(
    structure: ModelStructure,
    training: TrainingDistribution,
    design: Design,
    num_individuals: int,
    generator: torch.Generator,
) -> tuple[Cohort, Tensor, Tensor]:
    """Simulated individuals with what is then recorded, their true and shared parameters."""
    complete = design.complete if isinstance(design, Remaskable) else design
    plan = complete(num_individuals, generator)
    truth = training.individual.draw(plan, 1, generator)[0]
    shared = training.shared.draw(num_individuals, generator)
    cohort, failed = structure.simulate(
        plan, truth, shared, structure.initial_population(), generator
    )
    kept = (~failed).nonzero()[:, 0]
    cohort, truth, shared = cohort[kept], truth[kept], shared[kept]
    if isinstance(design, Remaskable):  # a mechanism may look at the values
        cohort = design.missing(cohort, generator)
    return cohort, truth, shared


def _corrected(
    draws: Tensor, log_weights: Tensor, truth: Tensor, num_ranks: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """Ranks, levels, ESS and k of weighted draws."""
    weights = normalized_weights(log_weights)
    picked = resample(weights, num_ranks, generator).unsqueeze(-1).expand(-1, -1, truth.shape[1])
    estimate = importance_estimate(log_weights)
    means, sds, *_ = weighted_moments(draws, weights)
    return {
        "means": means,
        "sds": sds,
        "ranks": (draws.gather(0, picked) < truth).sum(0),
        "levels": (weights.unsqueeze(-1) * (draws < truth)).sum(0),
        "ess": estimate.ess,
        "pareto_k": estimate.pareto_k,
    }
