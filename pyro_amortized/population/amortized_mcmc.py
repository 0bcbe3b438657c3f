r"""Posterior draws with the interface of ``pyro.infer.MCMC``.

The population is drawn from its posterior by sampling-importance resampling on the collapsed model,
around its mode (see :mod:`pyro_amortized.population.posterior.population_posterior`). Then every
individual is drawn given each draw of the population. The draws are independent; they are only
arranged in chains.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from pyro.infer.mcmc.util import select_samples
from pyro.ops.stats import hpdi
from torch import Tensor

from ..cohort import Cohort
from ..errors import FitError, ModelError
from ..guide import AmortizedGuide
from ..model import Estimator, Model
from ..runtime.arguments import check_count
from ..runtime.progress import showing_progress
from ..runtime.random_numbers import fork_seed, make_generator
from ..sampling.importance_weights import PARETO
from ..sampling.weight_quality import unreliable
from .estimation import FitRequest, fit_once
from .posterior.population_posterior import PopulationDraws, sample_population
from .results.fit_result import PopulationFit

CHAIN_DIAGNOSTICS = ("acceptance rate", "divergences", "r_hat", "n_eff")


@dataclass(frozen=True)
class DrawSettings:
    r"""Effort of the posterior draws.

    Args:
        proposals_per_draw: Weighted draws of the population per draw that is requested.
    """

    proposals_per_draw: int = 2


DRAWS = DrawSettings()


class Kernel(NamedTuple):
    """The model, under the name by which ArviZ and other tools read it from an MCMC object."""

    model: Model


class AmortizedMCMC:
    r"""Posterior draws of a model with the interface of ``pyro.infer.MCMC``.

    Args:
        model: The population model: that of the guide, or another one with the same individual
            sites.
        num_samples: Draws per chain.
        guide: A trained guide. Default: the individuals are drawn without one.
        num_chains: Number of chains that the draws are arranged in; all draws are independent.
        num_draws: Smallest number of weighted draws per individual that the likelihood of the
            population is computed from.
        estimator: As in :func:`~pyro_amortized.fit_population`.
        seed: Seed of all draws.
        progress: Show progress bars on standard error.

    Raises:
        FitError: A count is not positive.

    Example:
        ``mcmc = MCMC(NUTS(model), num_samples=1000, warmup_steps=500)`` becomes
        ``mcmc = AmortizedMCMC(model, num_samples=1000)``; ``mcmc.run(cohort)`` and the lines
        after it remain the same.
    """

    def __init__(
        self,
        model: Model,
        num_samples: int = 1000,
        *,
        guide: AmortizedGuide | None = None,
        num_chains: int = 1,
        num_draws: int = 500,
        estimator: Estimator | None = None,
        seed: int = 0,
        progress: bool = True,
    ) -> None:
        check_count("num_samples", num_samples, error=FitError)
        check_count("num_chains", num_chains, error=FitError)
        self.kernel = Kernel(model)
        self.guide, self.num_samples, self.num_chains = guide, num_samples, num_chains
        self.num_draws, self.estimator, self.seed = num_draws, estimator, seed
        self.progress = progress
        self._args: tuple[Any, ...] = ()
        self._kwargs: dict[str, Any] = {}
        self._result: tuple[PopulationDraws, Mapping[str, Tensor]] | None = None

    def run(self, cohort: Cohort, *others: Any, **more: Any) -> None:
        r"""Draw from the posterior.

        Args:
            cohort: The data.
            others: Further arguments are refused: a model of several arguments is adapted first.
            more: The same for arguments by name.

        Raises:
            ModelError: There are further arguments; the message says how to adapt the model.
            FitError: The posterior mode was not found, or it has no covariance; the message says
                why.
        """
        if others or more:
            named = f" ({', '.join(f'{name}=' for name in more)})" if more else ""
            raise ModelError(
                f"`run` got {1 + len(others) + len(more)} arguments{named}.",
                "one Cohort: models here have one argument.",
                "make a Cohort of the data, and adapt the model, which stays as it is: "
                "`pa.adapt(model, lambda cohort: (...), plate=..., observations={site: series})`.",
            )
        generator = make_generator(self.seed)
        with showing_progress(self.progress):
            request = FitRequest(
                criterion="posterior mode",
                num_draws=self.num_draws,
                estimator=self.estimator,
                seed=fork_seed(generator),
            )
            mode = fit_once(self.kernel.model, cohort, request, self.guide)
        total = self.num_samples * self.num_chains
        draws = sample_population(
            mode,
            num_draws=total,
            num_proposals=DRAWS.proposals_per_draw * total,
            seed=fork_seed(generator),
            progress=self.progress,
        )
        samples = draws.draws | draws.individual_sites(fork_seed(generator))
        self._args = (cohort,)
        self._result = (
            draws,
            {
                name: x.reshape(self.num_chains, self.num_samples, *x.shape[1:])
                for name, x in samples.items()
            },
        )

    def _results(self) -> tuple[PopulationDraws, Mapping[str, Tensor]]:
        if self._result is None:
            raise FitError("There are no draws yet.", "a run.", "call `run(cohort)` first.")
        return self._result

    @property
    def draws(self) -> PopulationDraws:
        """The draws of the population, with the ESS and Pareto k of their weights."""
        return self._results()[0]

    @property
    def mode(self) -> PopulationFit:
        """The posterior mode in unconstrained coordinates, and the draws of the individuals."""
        return self._results()[0].fit

    def get_samples(
        self, num_samples: int | None = None, group_by_chain: bool = False
    ) -> dict[str, Tensor]:
        r"""Draws by site: of the population, shape ``(draw, *site)``, and of the individuals,
        ``(draw, individual, *event)``.

        Args:
            num_samples: Number of draws to resample with replacement. Default: all draws, without
                resampling.
            group_by_chain: Keep a first dimension of chains.

        Raises:
            FitError: ``run`` was not called.
        """
        samples: dict[str, Tensor] = select_samples(
            dict(self._results()[1]), num_samples, group_by_chain
        )
        return samples

    def diagnostics(self) -> "Diagnostics":
        r"""Diagnostics of the importance weights behind the draws.

        The draws are independent: there is no chain that could mix badly or diverge, and no
        acceptance rate. The draws are unreliable if the weights by which they were chosen are.

        Returns:
            ``"num_draws"``: the number of draws. ``"num_weighted_draws"``: the number of weighted
            draws of the population from which they were chosen. ``"ess"`` and ``"pareto_k"``: ESS
            and Pareto k of these weights (above 0.7: not reliable). ``"individuals"``: the
            individuals whose own weights are unreliable, with their Pareto k.

        Raises:
            FitError: ``run`` was not called.
        """
        draws, _ = self._results()
        individuals = draws.individual_posteriors
        estimate = individuals.estimate
        rows = unreliable(estimate, individuals.num_draws).nonzero()[:, 0].tolist()
        ids = draws.fit.cohort.ids
        total = self.num_samples * self.num_chains
        return Diagnostics(
            num_draws=total,
            num_weighted_draws=DRAWS.proposals_per_draw * total,
            ess=draws.ess,
            pareto_k=draws.pareto_k,
            individuals={ids[i]: float(estimate.pareto_k[i]) for i in rows},
        )

    def summary(self, prob: float = 0.9) -> None:
        r"""Print means, standard deviations and intervals of all sites, and the diagnostics.

        Args:
            prob: Probability mass of the intervals of highest density.
        """
        print(_table(self.get_samples(), prob))
        result, limit = self.diagnostics(), PARETO.limit
        note = "" if result["pareto_k"] <= limit else f" (above {limit}: not reliable)"
        print(
            f"Population: {result['num_draws']} draws chosen from {result['num_weighted_draws']} "
            f"weighted ones, of which {result['ess']:.0f} are effective; Pareto k "
            f"{result['pareto_k']:.2f}{note}"
        )
        print(f"Individuals whose weights are unreliable: {len(result['individuals'])}")


class Diagnostics(dict[str, Any]):
    """A dictionary that explains, for names of chain diagnostics, why it does not contain them."""

    def __missing__(self, key: str) -> Any:
        if key not in CHAIN_DIAGNOSTICS:
            raise KeyError(key)
        raise FitError(
            f"`diagnostics()` has no {key!r}: the draws are independent, they are no chain.",
            f"one of {list(self)}.",
            "look at `pareto_k` and `ess`; export by `diagnostics.to_arviz(mcmc)` in place of "
            "`arviz.from_pyro(mcmc)`, which reads divergences.",
        )


def _table(samples: Mapping[str, Tensor], prob: float) -> str:
    """One row for every scalar of every site."""
    names = ["mean", "std", "median", *(f"{50 * (1 + s * prob):.1f}%" for s in (-1, 1))]
    labels, rows = [], []
    for name, x in samples.items():
        columns = (x.mean(0), x.std(0), x.median(0).values, *hpdi(x, prob))
        indices = itertools.product(*map(range, x.shape[1:]))
        labels += [name + (str(list(i)).replace(" ", "") if i else "") for i in indices]
        rows += torch.stack([c.reshape(-1) for c in columns], -1).tolist()
    width = max(10, *map(len, labels))
    lines = [" " * width + "".join(f" {name:>9}" for name in names)]
    lines += [
        label.rjust(width) + "".join(f" {value:>9.2f}" for value in row)
        for label, row in zip(labels, rows, strict=True)
    ]
    return "\n" + "\n".join(lines) + "\n"
