r"""Stochastic dynamics as Pyro programs: paths are simulated and dropped.

The noise that drives a path is a latent site declared with ``infer={"nuisance": True}``. The
library simulates it with the data and then forgets it: it is no individual parameter, nothing is
inferred about it, and the observations have no tractable density, so that what is learned about
such a program is the *uncorrected* amortized posterior.

References:
    Kloeden and Platen (1992), Numerical Solution of Stochastic Differential Equations; Gillespie
    (2001), Approximate accelerated stochastic simulation of chemically reacting systems.
"""

from collections.abc import Callable, Mapping

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from ..errors import ModelError

Field = Callable[[Tensor, Tensor, Mapping[str, Tensor]], Tensor]
NUISANCE = {"nuisance": True}


def euler_maruyama(
    drift: Field,
    diffusion: Field,
    initial: Tensor,
    times: Tensor,
    parameters: Mapping[str, Tensor],
    *,
    num_steps: int = 200,
    name: str = "path_noise",
) -> Tensor:
    r"""A path of dx = drift dt + diffusion dW with diagonal noise, at every individual's own times.

    Call it inside the plate ``individual`` (of dimension -1); it samples the site ``name``.

    Args:
        drift: ``f(t, x, parameters)`` as for :func:`~pyro_amortized.nlme.ode.interface.solve`.
        diffusion: Of the same form; the standard deviation of each state per square root of time.
        initial: State at time 0, shape ``(state,)`` or ``(individual, state)``.
        times: Observation times, shape ``(individual, time)``, sorted.
        parameters: By name, shape ``(individual,)``.
        num_steps: Steps of equal length from 0 to the individual's last time.
        name: Name of the latent site.

    Returns:
        States, shape ``(individual, time, state)``, linear between steps.
    """
    num, num_states = len(times), initial.shape[-1]
    law = dist.Normal(times.new_zeros(num, num_steps, num_states), 1.0).to_event(2)
    noise = pyro.sample(name, law, infer=NUISANCE)
    step = times[:, -1] / num_steps
    x = initial.to(times.dtype).expand(num, num_states)
    path = [x]
    for j in range(num_steps):
        t = j * step
        wiggle = diffusion(t, x, parameters) * noise[:, j] * step.sqrt().unsqueeze(-1)
        x = x + drift(t, x, parameters) * step.unsqueeze(-1) + wiggle
        path.append(x)
    return _read_off(torch.stack(path, 1), times, step)


def tau_leaping(
    propensities: Field,
    stoichiometry: Tensor,
    initial: Tensor,
    times: Tensor,
    parameters: Mapping[str, Tensor],
    *,
    num_steps: int = 200,
    name: str = "reactions",
) -> Tensor:
    r"""Numbers of molecules under reactions that fire as Poisson processes, by tau-leaping.

    Call it inside the plate ``individual`` (of dimension -1); it samples one site per step.

    Args:
        propensities: ``f(t, x, parameters)`` gives the rate of each reaction, shape ``(individual,
            reaction)``.
        stoichiometry: Change of each state by each reaction, shape ``(reaction, state)``.
        initial: Numbers at time 0, shape ``(state,)`` or ``(individual, state)``.
        times: Observation times, shape ``(individual, time)``, sorted.
        parameters: By name, shape ``(individual,)``.
        num_steps: Steps of equal length from 0 to the individual's last time.
        name: Prefix of the latent sites.

    Returns:
        States, shape ``(individual, time, state)``: the last step's, without interpolation.

    Raises:
        ModelError: The stoichiometry does not fit the states.
    """
    if stoichiometry.shape[-1] != initial.shape[-1]:
        raise ModelError(
            f"`stoichiometry` has shape {tuple(stoichiometry.shape)} for {initial.shape[-1]} "
            "states.",
            "(reaction, state).",
            "transpose it, or correct the initial state.",
        )
    num, num_states = len(times), initial.shape[-1]
    step = times[:, -1] / num_steps
    x = initial.to(times.dtype).expand(num, num_states)
    path = [x]
    for j in range(num_steps):
        rates = propensities(j * step, x, parameters).clamp(min=0.0) * step.unsqueeze(-1)
        law = dist.Poisson(rates.nan_to_num(0.0)).to_event(1)
        fired = pyro.sample(f"{name}_{j}", law, infer=NUISANCE)
        x = (x + fired @ stoichiometry.to(x.dtype)).clamp(min=0.0)
        path.append(x)
    return _read_off(torch.stack(path, 1), times, step, linear=False)


def _read_off(path: Tensor, times: Tensor, step: Tensor, linear: bool = True) -> Tensor:
    last = path.shape[1] - 1
    place = (times / step.clamp(min=1e-300).unsqueeze(-1)).clamp(0, last)
    low = (place + 1e-9).floor().clamp(max=last).long()

    def at(index: Tensor) -> Tensor:
        return path.gather(1, index.unsqueeze(-1).expand(-1, -1, path.shape[-1]))

    if not linear:
        return at(low)
    share = (place - low).clamp(min=0).unsqueeze(-1)
    return (1 - share) * at(low) + share * at((low + 1).clamp(max=last))
