r"""Stochastic dynamics in Pyro models: stochastic differential equations and reaction networks.

With the step :math:`\Delta`, the Euler-Maruyama method and tau-leaping compute

.. math:: x_{j+1} = x_j + f(t_j, x_j)\, \Delta + g(t_j, x_j)\, \sqrt{\Delta}\, \epsilon_j,
    \qquad x_{j+1} = x_j + S^\top n_j,\quad n_j \sim \mathrm{Poisson}(a(t_j, x_j)\, \Delta) ,

with drift f, diffusion g, standard normal noise :math:`\epsilon`, propensities a and stoichiometry
S. Both functions take the dynamics, the parameters and the observation times of each individual,
and return the states at these times.

The noise of a path is a latent site with ``infer={"nuisance": True}``. The library simulates such
a site together with the data and then drops it. It is no individual parameter, and nothing is
inferred about it. The observations have no tractable density, so a guide that is trained on such
a model gives the *uncorrected* amortized posterior.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from ..errors import ModelError

Field = Callable[[Tensor, Tensor, Mapping[str, Tensor]], Tensor]
NUISANCE = {"nuisance": True}


@dataclass(frozen=True)
class PathSettings:
    r"""Defaults of the simulated paths.

    Args:
        num_steps: Steps of a path. The error of the moments of both methods is of the order of one
            over this number.
        grid_tolerance: Observation times this close below a point of the grid, in steps, count as
            that point: they differ from it by rounding only.
        smallest_step: Step that replaces a step of 0, for individuals with all times equal to 0.
    """

    num_steps: int = 200
    grid_tolerance: float = 1e-9
    smallest_step: float = 1e-300


DEFAULTS = PathSettings()


def euler_maruyama(
    drift: Field,
    diffusion: Field,
    initial: Tensor,
    times: Tensor,
    parameters: Mapping[str, Tensor],
    *,
    num_steps: int = DEFAULTS.num_steps,
    name: str = "path_noise",
) -> Tensor:
    r"""A path of dx = drift dt + diffusion dW with diagonal noise, by the Euler-Maruyama method.

    Call it inside the plate ``individual`` (of dimension -1). It samples the site ``name``.

    Args:
        drift: ``f(t, x, parameters)`` as for :func:`~pyro_amortized.nlme.ode.interface.solve`.
        diffusion: Of the same form; the standard deviation of each state per square root of time.
        initial: State at time 0, shape ``(state,)`` or ``(individual, state)``.
        times: Observation times, shape ``(individual, time)``, sorted, not negative.
        parameters: By name, shape ``(individual,)`` each.
        num_steps: Steps of equal length from 0 to the individual's last time.
        name: Name of the latent site.

    Returns:
        States at each individual's own times, shape ``(individual, time, state)``, linear between
        steps.

    References:
        Kloeden and Platen (1992), Numerical Solution of Stochastic Differential Equations.
    """
    num, num_states = len(times), initial.shape[-1]
    standard_normal = dist.Normal(times.new_zeros(num, num_steps, num_states), 1.0).to_event(2)
    noise = pyro.sample(name, standard_normal, infer=NUISANCE)
    step = times[:, -1] / num_steps

    def move(j: int, x: Tensor) -> Tensor:
        t = j * step
        increment = diffusion(t, x, parameters) * noise[:, j] * step.sqrt().unsqueeze(-1)
        return x + drift(t, x, parameters) * step.unsqueeze(-1) + increment

    return _states_at(times, _path(move, initial, times, num_steps), step)


def tau_leaping(
    propensities: Field,
    stoichiometry: Tensor,
    initial: Tensor,
    times: Tensor,
    parameters: Mapping[str, Tensor],
    *,
    num_steps: int = DEFAULTS.num_steps,
    name: str = "reactions",
) -> Tensor:
    r"""Numbers of molecules in a network of random reactions, by tau-leaping.

    Call it inside the plate ``individual`` (of dimension -1). It samples one site per step. States
    that a step makes negative are set to 0.

    Args:
        propensities: ``f(t, x, parameters)`` gives the rate of each reaction, per time, shape
            ``(individual, reaction)``.
        stoichiometry: Change of each state by each reaction, shape ``(reaction, state)``.
        initial: Numbers at time 0, shape ``(state,)`` or ``(individual, state)``.
        times: Observation times, shape ``(individual, time)``, sorted, not negative.
        parameters: By name, shape ``(individual,)`` each.
        num_steps: Steps of equal length from 0 to the individual's last time.
        name: Prefix of the latent sites.

    Returns:
        States at each individual's own times, shape ``(individual, time, state)``. Between steps
        the state is that of the step before, without interpolation.

    Raises:
        ModelError: The number of states differs between ``stoichiometry`` and ``initial``.

    References:
        Gillespie (2001), Approximate accelerated stochastic simulation of chemically reacting
        systems.
    """
    if stoichiometry.shape[-1] != initial.shape[-1]:
        raise ModelError(
            f"`stoichiometry` has shape {tuple(stoichiometry.shape)} for {initial.shape[-1]} "
            "states.",
            "(reaction, state).",
            "transpose the stoichiometry, or correct the initial state.",
        )
    step = times[:, -1] / num_steps

    def move(j: int, x: Tensor) -> Tensor:
        rates = propensities(j * step, x, parameters).clamp(min=0.0) * step.unsqueeze(-1)
        poisson = dist.Poisson(rates.nan_to_num(0.0)).to_event(1)
        num_events: Tensor = pyro.sample(f"{name}_{j}", poisson, infer=NUISANCE)
        return (x + num_events @ stoichiometry.to(x.dtype)).clamp(min=0.0)

    return _states_at(times, _path(move, initial, times, num_steps), step, linear=False)


def _path(
    move: Callable[[int, Tensor], Tensor], initial: Tensor, times: Tensor, num_steps: int
) -> Tensor:
    """States before and after every step, shape ``(individual, step, state)``."""
    x = initial.to(times.dtype).expand(len(times), initial.shape[-1])
    path = [x]
    for j in range(num_steps):
        x = move(j, x)
        path.append(x)
    return torch.stack(path, 1)


def _states_at(times: Tensor, path: Tensor, step: Tensor, linear: bool = True) -> Tensor:
    """States of a path ``(individual, step, state)`` at the observation times."""
    last = path.shape[1] - 1
    position = (times / step.clamp(min=DEFAULTS.smallest_step).unsqueeze(-1)).clamp(0, last)
    low = (position + DEFAULTS.grid_tolerance).floor().clamp(max=last).long()

    def at(index: Tensor) -> Tensor:
        return path.gather(1, index.unsqueeze(-1).expand(-1, -1, path.shape[-1]))

    if not linear:
        return at(low)
    fraction = (position - low).clamp(min=0).unsqueeze(-1)
    return (1 - fraction) * at(low) + fraction * at((low + 1).clamp(max=last))
