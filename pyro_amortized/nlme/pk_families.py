r"""Ready pharmacokinetic programs, for the choice of a structure.

:func:`pk_candidates` makes programs of one and two compartments, with linear or saturable
elimination, with and without a lag time. They have the same individual parameters: the logarithms
of the absorption rate, of the clearance (linear) or of the largest elimination rate (saturable),
and of the volume, independent and normal. All other parameters have no variability. The residual
error is combined. A model search adds covariate effects and correlations to any of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from ..cohort import Cohort
from ..errors import ModelError
from .closed_form.compartments import one_compartment, two_compartments
from .dosing import Delivery
from .ode import solve
from .residual_error import combined_error


@dataclass(frozen=True)
class PkSettings:
    r"""Priors of the ready programs.

    Args:
        typical_sd: Standard deviation of the logarithms of typical values: the given ones may be
            wrong by a factor of ten.
        omega_scale: Scale of the standard deviations of the random effects.
        error_scale: Scale of the proportional error.
        lag_share: Typical lag time, as a part of 1 / ka.
        rtol: Relative tolerance of the solver.
    """

    typical_sd: float = 1.2
    omega_scale: float = 0.5
    error_scale: float = 0.3
    lag_share: float = 0.2
    rtol: float = 1e-6


DEFAULTS = PkSettings()


@dataclass(frozen=True)
class PkProgram:
    r"""A pharmacokinetic program, a model of a cohort. Made by :func:`pk_candidates`.

    Args:
        series: Name of the concentrations.
        num_compartments: 1 or 2.
        saturable: Whether the elimination is saturable (Michaelis and Menten) in place of linear.
        lag: Whether absorption begins after a lag time.
        typical: Rough typical values: ``cl``, ``v``, and ``ka`` if doses are absorbed.
        largest: A large concentration, for the scale of the additive error and the start of the
            Michaelis constant.
    """

    series: str
    num_compartments: int
    saturable: bool
    lag: bool
    typical: tuple[tuple[str, float], ...]
    largest: float

    @property
    def individual(self) -> dict[str, float]:
        """Parameters with variability, and their rough values."""
        given = dict(self.typical)
        values = {"ka": given["ka"]} if "ka" in given else {}
        if self.saturable:
            return values | {"vmax": given["cl"] * self.largest, "v": given["v"]}
        return values | {"cl": given["cl"], "v": given["v"]}

    @property
    def common(self) -> dict[str, float]:
        """Parameters without variability, and their rough values."""
        given = dict(self.typical)
        values = {"km": self.largest} if self.saturable else {}
        if self.num_compartments == 2:
            values |= {"q": given["cl"], "v2": given["v"]}
        return values | ({"lag": DEFAULTS.lag_share / given["ka"]} if self.lag else {})

    def __call__(self, cohort: Cohort) -> None:
        """Run the program."""
        own, shared = self.individual, self.common
        typical = _log_values("typical", own)
        common = _log_values("common", shared) if shared else None
        scale = DEFAULTS.omega_scale * torch.ones(len(own))
        omega = pyro.sample(
            "omega", dist.HalfNormal(scale).to_event(1), infer={"labels": list(own)}
        )
        a = pyro.sample("additive", dist.HalfNormal(0.1 * self.largest))
        b = pyro.sample("proportional", dist.HalfNormal(DEFAULTS.error_scale))
        with pyro.plate("individual", len(cohort)):
            distribution = dist.Normal(typical, omega).to_event(1)
            phi = pyro.sample("phi", distribution, infer={"labels": list(own), "scale": "log"})
            p = dict(zip(own, phi.exp().unbind(-1), strict=True))
            if common is not None:
                p |= dict(zip(shared, common.exp().unbind(-1), strict=True))
            y = cohort[self.series]
            f = self._concentration(cohort, y.times, p)
            error = combined_error(f, a[..., None], b[..., None])
            pyro.sample(self.series, error.mask(y.observed).to_event(1), obs=y.values)

    def _concentration(self, cohort: Cohort, times: Tensor, p: Mapping[str, Tensor]) -> Tensor:
        doses = cohort.doses
        if doses is None:
            raise ModelError(
                "A pharmacokinetic program of a cohort without doses.",
                "a cohort with doses.",
                "pass `doses=` to the cohort, or read a table with AMT.",
            )
        delivery = Delivery(lag=p["lag"]) if self.lag else None
        if self.saturable:
            two, absorbed = self.num_compartments == 2, "ka" in p
            start = torch.zeros(*p["v"].shape, 1 + two + absorbed, dtype=times.dtype)
            rates = _RATES[two, absorbed]
            spread = {n: x.expand(p["v"].shape) for n, x in p.items() if n != "lag"}
            states = solve(
                rates, start, times, spread, doses=doses, delivery=delivery, rtol=DEFAULTS.rtol
            )
            return states[..., int(absorbed)] / p["v"].unsqueeze(-1)
        ka = p.get("ka")
        if self.num_compartments == 1:
            return one_compartment(times, doses, cl=p["cl"], v=p["v"], ka=ka, delivery=delivery)
        return two_compartments(
            times, doses, cl=p["cl"], v=p["v"], q=p["q"], v2=p["v2"], ka=ka, delivery=delivery
        )


def _log_values(name: str, rough: Mapping[str, float]) -> Tensor:
    center = torch.tensor(list(rough.values())).log()
    distribution = dist.Normal(center, DEFAULTS.typical_sd).to_event(1)
    return torch.as_tensor(
        pyro.sample(name, distribution, infer={"labels": list(rough), "scale": "log"})
    )


def _eliminated(central: Tensor, p: Mapping[str, Tensor]) -> Tensor:
    c = central / p["v"]
    return p["vmax"] * c / (p["km"] + c)


def _central(t: Tensor, x: Tensor, p: Mapping[str, Tensor]) -> Tensor:
    return torch.stack([-_eliminated(x[..., 0], p)], -1)


def _absorbed(t: Tensor, x: Tensor, p: Mapping[str, Tensor]) -> Tensor:
    depot, central = x.unbind(-1)
    return torch.stack([-p["ka"] * depot, p["ka"] * depot - _eliminated(central, p)], -1)


def _peripheral(t: Tensor, x: Tensor, p: Mapping[str, Tensor]) -> Tensor:
    central, other = x.unbind(-1)
    flow = p["q"] * (central / p["v"] - other / p["v2"])
    return torch.stack([-_eliminated(central, p) - flow, flow], -1)


def _absorbed_peripheral(t: Tensor, x: Tensor, p: Mapping[str, Tensor]) -> Tensor:
    depot, central, other = x.unbind(-1)
    flow, absorption = p["q"] * (central / p["v"] - other / p["v2"]), p["ka"] * depot
    return torch.stack([-absorption, absorption - _eliminated(central, p) - flow, flow], -1)


# By (two compartments, absorption).
_RATES = {
    (False, False): _central,
    (False, True): _absorbed,
    (True, False): _peripheral,
    (True, True): _absorbed_peripheral,
}


def pk_candidates(
    cohort: Cohort,
    typical: Mapping[str, float],
    *,
    series: str = "concentration",
    saturable: bool = True,
    lag: bool | None = None,
) -> dict[str, PkProgram]:
    r"""Pharmacokinetic programs of several structures.

    Args:
        cohort: The data; their largest concentration gives the scale of the errors.
        typical: Rough typical values, which may be wrong by a factor of ten: ``cl`` (volume per
            time), ``v`` (volume), and ``ka`` (per time) if the doses are absorbed from a depot.
        series: Name of the concentrations.
        saturable: Whether programs with saturable elimination are among them. They are solved
            numerically and take longer.
        lag: Whether programs with a lag time are among them. Default: if there is ``ka``.

    Returns:
        The simplest program first, by name, for ``pa.search(structures=)``.

    Raises:
        ModelError: A typical value is missing or not positive, or a lag time without ``ka``.

    Example:
        >>> from pyro_amortized import datasets
        >>> list(pk_candidates(datasets.theophylline(), {"cl": 3, "v": 30, "ka": 1}))[:2]
        ['one compartment', 'one compartment, lag time']
    """
    given = {name: float(x) for name, x in typical.items()}
    wanted = {"cl", "v"} <= set(given) <= {"cl", "v", "ka"}
    if not wanted or not all(x > 0 for x in given.values()):
        raise ModelError(
            f"`typical` is {given}.",
            "positive values of cl and v, and of ka if the doses are absorbed.",
            'pass for instance {"cl": 4.0, "v": 40.0, "ka": 1.0}.',
        )
    if lag and "ka" not in given:
        raise ModelError(
            "A lag time without `ka`.", "an absorption that it delays.", "give `ka`, or no lag."
        )
    values = cohort[series].values[cohort[series].observed]
    lags = (False, True) if (lag if lag is not None else "ka" in given) else (False,)
    programs = {}
    for kind, num, late in product((False, True) if saturable else (False,), (1, 2), lags):
        words = ["one compartment" if num == 1 else "two compartments"]
        words += ["saturable elimination"] * kind + ["lag time"] * late
        rough = tuple(given.items())
        programs[", ".join(words)] = PkProgram(series, num, kind, late, rough, float(values.max()))
    return programs
