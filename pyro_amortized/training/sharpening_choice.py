r"""Whether a training ends with Newton steps on the density of the model, and how time is shared.

Networks alone read the location of narrow or unusual posteriors roughly; the density of the model
gives it exactly (:mod:`pyro_amortized.guide.newton_posterior`). The networks then only have to lead
to the right mode, for which a short training is enough, and the time is better spent on the second
flow: of warfarin PK/PD, after 105 s of processor time, the draws of the worst individual were .73
effective with a fifth of the time for the networks and .34 with half of it (decision 090).
"""

import time
from dataclasses import dataclass

import torch

from ..model.structure import ModelStructure
from .distributed_training import is_distributed
from .simulation.shard_simulation import Simulator
from .simulation_plan import Plan


@dataclass(frozen=True)
class SharpeningChoiceSettings:
    r"""When a training is sharpened without being asked to.

    Args:
        networks_share: Part of a budget that the networks get.
        min_budget: Seconds of a budget below which the networks get all of it: the second flow
            would have some hundred steps only.
        min_rows: Simulations whose Newton steps must fit into the time for them; the second flow
            overfits with fewer.
        usual_rows: Simulations without a budget.
        max_seconds: Seconds that their Newton steps may take.
        evaluations_per_row: Evaluations of the density for one of them: 32 starts, four of which
            climb some steps.
        preparation_share: Part of the rest of the budget for simulation and Newton steps, which
            cost more than the training of the second flow.
        num_probed: Individuals whose density is evaluated to see what an evaluation costs.
        num_draws: Draws of each of them.
    """

    networks_share: float = 0.25
    min_budget: float = 20.0
    min_rows: int = 2_000
    usual_rows: int = 50_000
    max_seconds: float = 300.0
    evaluations_per_row: int = 250
    preparation_share: float = 0.65
    num_probed: int = 64
    num_draws: int = 16


CHOICE = SharpeningChoiceSettings()


def is_sharpened(plan: Plan) -> bool:
    r"""Whether a training is sharpened where the user does not say so.

    Args:
        plan: What is to be trained. Who says how much is simulated, where a run can be resumed, or
            which networks are trained further, gets nothing else.
    """
    simulator, limit = plan.simulator, plan.limit
    is_plain = plan.num_simulations is None and plan.folder is None and plan.warm_start is None
    if not is_plain or is_distributed() or (limit is not None and limit < CHOICE.min_budget):
        return False
    tells_population = simulator.distribution.individual.populations is not None
    if not (simulator.structure.has_density and tells_population) or plan.networks.learn_shared:
        return False
    num, available = CHOICE.usual_rows, CHOICE.max_seconds
    if limit is not None:
        num = CHOICE.min_rows
        available = CHOICE.preparation_share * (1 - CHOICE.networks_share) * limit
    return num * CHOICE.evaluations_per_row * _seconds_per_density(simulator) <= available


def networks_limit(limit: float | None) -> float | None:
    """Seconds for the simulations and the training of the networks of a guide that is sharpened."""
    return None if limit is None else CHOICE.networks_share * limit


@torch.no_grad()
def _seconds_per_density(simulator: Simulator) -> float:
    """Seconds for the density of the observations of one individual, once."""
    structure: ModelStructure = simulator.structure
    simulated = simulator(0, CHOICE.num_probed)
    draws = simulated.unconstrained.double().expand(CHOICE.num_draws, -1, -1)
    seconds = []
    for _ in range(2):  # what is compiled or cached is not counted
        begin = time.monotonic()
        structure.log_observation(simulated.cohort, draws, simulated.shared.double())
        seconds.append(time.monotonic() - begin)
    return min(seconds) / max(1, draws.shape[:2].numel())
