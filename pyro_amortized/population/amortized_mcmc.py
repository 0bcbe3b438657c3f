r"""In the place of ``pyro.infer.MCMC``: one line of a script changes.

The population is drawn from its posterior by sampling-importance resampling on the collapsed model,
about its mode (see :mod:`pyro_amortized.population.population_posterior`); then every individual
given each draw of the population. Draws are independent, so that chains are a matter of form.
"""

import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from pyro.infer.mcmc.util import select_samples
from pyro.ops.stats import hpdi
from torch import Tensor

from ..cohort import Cohort
from ..errors import FitError
from ..guide import AmortizedGuide
from ..model import Estimator, Model
from ..runtime.arguments import check_count
from ..runtime.random_numbers import fork_seed, make_generator
from ..sampling.weight_quality import unreliable
from .estimation import fit_once
from .fit_result import PopulationFit
from .population_posterior import PopulationDraws, sample_population

PROPOSALS = 2  # weighted draws per draw that is asked for
OF_CHAINS = ("acceptance rate", "divergences", "r_hat", "n_eff")


class Kernel(NamedTuple):
    """What made the draws, for those who ask an MCMC for its kernel's model (as ArviZ does)."""

    model: Model


class AmortizedMCMC:
    r"""Posterior draws of a program with the interface of ``pyro.infer.MCMC``.

    Args:
        model: The population model: the guide's program, or another one with the same individual
            sites.
        guide: The trained guide.
        num_samples: Draws per chain.
        num_chains: Chains that the draws are said to be in; all draws are independent.
        num_draws: Weighted draws per individual behind them, at least.
        estimator: As of :func:`~pyro_amortized.fit_population`.
        seed: Seed of everything.

    Raises:
        FitError: A count is not positive.

    Example:
        ``mcmc = MCMC(NUTS(model), num_samples=1000, warmup_steps=500)`` becomes
        ``mcmc = AmortizedMCMC(model, guide, num_samples=1000)``; ``mcmc.run(cohort)`` and what
        follows stay.
    """

    def __init__(
        self,
        model: Model,
        guide: AmortizedGuide,
        num_samples: int = 1000,
        *,
        num_chains: int = 1,
        num_draws: int = 400,
        estimator: Estimator | None = None,
        seed: int = 0,
    ) -> None:
        check_count("num_samples", num_samples, error=FitError)
        check_count("num_chains", num_chains, error=FitError)
        self.kernel = Kernel(model)
        self.guide, self.num_samples, self.num_chains = guide, num_samples, num_chains
        self.num_draws, self.estimator, self.seed = num_draws, estimator, seed
        self._args: tuple[Any, ...] = ()
        self._kwargs: dict[str, Any] = {}
        self._found: tuple[PopulationDraws, Mapping[str, Tensor]] | None = None

    def run(self, cohort: Cohort) -> None:
        r"""Draw from the posterior.

        Args:
            cohort: The data.

        Raises:
            FitError: The posterior mode was not found; the message says why.
        """
        generator = make_generator(self.seed)
        mode = fit_once(
            self.kernel.model,
            self.guide,
            cohort,
            criterion="posterior mode",
            num_draws=self.num_draws,
            estimator=self.estimator,
            seed=fork_seed(generator),
        )
        total = self.num_samples * self.num_chains
        draws = sample_population(
            mode, num_draws=total, num_proposals=PROPOSALS * total, seed=fork_seed(generator)
        )
        samples = draws.draws | draws.individual_sites(fork_seed(generator))
        self._args = (cohort,)
        self._found = (
            draws,
            {
                name: x.reshape(self.num_chains, self.num_samples, *x.shape[1:])
                for name, x in samples.items()
            },
        )

    def _ran(self) -> tuple[PopulationDraws, Mapping[str, Tensor]]:
        if self._found is None:
            raise FitError("There are no draws yet.", "a run.", "call `run(cohort)` first.")
        return self._found

    @property
    def draws(self) -> PopulationDraws:
        """The draws of the population, with their effective number and Pareto k."""
        return self._ran()[0]

    @property
    def mode(self) -> PopulationFit:
        """The posterior mode in unconstrained coordinates, and the draws of the individuals."""
        return self._ran()[0].fit

    def get_samples(
        self, num_samples: int | None = None, group_by_chain: bool = False
    ) -> dict[str, Tensor]:
        r"""Draws by site: of the population, shape ``(draw, *site)``, and of the individuals,
        ``(draw, individual, *event)``.

        Args:
            num_samples: Resample so many, with replacement. Default: all draws as they are.
            group_by_chain: Keep a leading dimension of chains.
        """
        found: dict[str, Tensor] = select_samples(dict(self._ran()[1]), num_samples, group_by_chain)
        return found

    def diagnostics(self) -> "Diagnostics":
        r"""How far the draws are to be trusted.

        The draws are independent: there is no chain that could mix badly or diverge, and no
        acceptance rate. What can fail are the weights that the draws were picked by.

        Returns:
            ``"num_draws"``: the number of draws. ``"num_weighted_draws"``: of the weighted draws of
            the population that they were picked from; ``"ess"`` and ``"pareto_k"``: their effective
            number and Pareto k (above 0.7: not to be trusted). ``"individuals"``: those whose own
            weights are unreliable, with their Pareto k.
        """
        draws, _ = self._ran()
        individuals = draws.individual_posteriors
        estimate = individuals.estimate
        poor = unreliable(estimate, individuals.num_draws).nonzero()[:, 0].tolist()
        ids = draws.fit.cohort.ids
        total = self.num_samples * self.num_chains
        return Diagnostics(
            num_draws=total,
            num_weighted_draws=PROPOSALS * total,
            ess=draws.ess,
            pareto_k=draws.pareto_k,
            individuals={ids[i]: float(estimate.pareto_k[i]) for i in poor},
        )

    def summary(self, prob: float = 0.9) -> None:
        r"""Print means, standard deviations and intervals, and how far the draws are to be trusted.

        Args:
            prob: Probability mass of the intervals of highest density.
        """
        print(_table(self.get_samples(), prob))
        found = self.diagnostics()
        print(
            f"Population: {found['num_draws']} draws picked from {found['num_weighted_draws']} "
            f"weighted ones, of which {found['ess']:.0f} are effective; Pareto k "
            f"{found['pareto_k']:.2f}"
            f"{'' if found['pareto_k'] <= 0.7 else ' (above 0.7: not to be trusted)'}"
        )
        print(f"Individuals whose weights are unreliable: {len(found['individuals'])}")


class Diagnostics(dict[str, Any]):
    """A dictionary that says why the diagnostics of a chain are not in it."""

    def __missing__(self, key: str) -> Any:
        if key not in OF_CHAINS:
            raise KeyError(key)
        raise FitError(
            f"`diagnostics()` has no {key!r}: the draws are independent, they are no chain.",
            f"one of {list(self)}.",
            "look at `pareto_k` and `ess`; export by `diagnostics.to_arviz(mcmc)` in the place of "
            "`arviz.from_pyro(mcmc)`, which asks for divergences.",
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
