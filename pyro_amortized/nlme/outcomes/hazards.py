r"""Hazards of events, in closed form, as a function of time, or as a state of an ODE.

The hazard h of an event gives the cumulative hazard and the probability of no event,

.. math:: H(t) = \int_0^t h(s)\, \mathrm ds, \qquad S(t) = e^{-H(t)} .

A :class:`Hazard` is one function of times that returns :math:`\log h` and H. The families below
have it in closed form, and the inverse of H, from which events are drawn.
:func:`~pyro_amortized.nlme.outcomes.integrated_hazards.integrated_hazard` integrates any logarithm
of a hazard, for instance one that depends on a marker. An ODE has H as a state with :math:`H' = h`
and :math:`H(0) = 0`.

References:
    Kalbfleisch and Prentice (2002), The Statistical Analysis of Failure Time Data.
    Rizopoulos (2012), Joint Models for Longitudinal and Time-to-Event Data.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import ModelError
from ...runtime.arguments import shortened

SMALLEST_TIME = 1e-300  # a time of zero, whose logarithm is finite
SMALL_SLOPE = 1e-8  # below it a Gompertz hazard is constant to the precision of double numbers

Curves = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class Hazard:
    r"""The hazard of an event as a function of time.

    Args:
        curves: Maps times, shape ``(individual, time)``, which do not decrease along a row, to the
            log hazard and to the cumulative hazard since time 0, same shape each. The unit of the
            hazard is one over that of the times.
        inverse: Maps cumulative hazards, shape ``(individual, time)``, to times; infinite where
            there is none. Default: the times are searched for.
        rate: Maps times to the log hazard alone, where that is much cheaper than both curves.
        finer: The same hazard with a finer integral, which shows the error of this one; None where
            the integral is exact or its error is the user's choice.

    Example:
        A hazard as a state of an ODE, with ``nlme.solve``::

            def rates(t, x, p):
                effect, total = x[..., 0], x[..., 1]
                return torch.stack([-p["k"] * effect, p["base"] * torch.exp(effect)], -1)

            def curves(times):
                x = nlme.solve(rates, start, times, {"k": k, "base": base})
                return base[..., None].log() + x[..., 0], x[..., 1]

            hazard = nlme.Hazard(curves)
    """

    curves: Curves
    inverse: Callable[[Tensor], Tensor] | None = None
    rate: Callable[[Tensor], Tensor] | None = None
    finer: "Hazard | None" = None

    def __call__(self, times: Tensor) -> tuple[Tensor, Tensor]:
        r"""Log hazard and cumulative hazard.

        Args:
            times: Shape ``(individual, time)``.

        Raises:
            ModelError: The function returns no such pair, or the shapes of parameters and times do
                not agree.
        """
        try:
            result = self.curves(times)
        except RuntimeError as error:
            # A solver has errors of its own; this one is of torch, about shapes.
            if isinstance(error, NotImplementedError) or "size" not in str(error):
                raise
            raise ModelError(
                f"The hazard cannot be computed at times of shape {tuple(times.shape)}: {error}",
                "parameters that broadcast to (individual,), and a function of times that returns "
                "their shape.",
                "pass one parameter for each individual, or one for all; inside a function of "
                "times write `parameter[..., None]`.",
            ) from error
        is_pair = isinstance(result, tuple) and len(result) == 2
        if not is_pair or not all(isinstance(x, Tensor) for x in result):
            raise ModelError(
                f"The curves of a hazard are a {type(result).__name__}.",
                "a pair of tensors: log hazard and cumulative hazard at the times.",
                "return `log_hazard, cumulative`; `nlme.integrated_hazard(log_hazard)` computes "
                "the second one.",
            )
        log_hazard, cumulative = result
        shape = torch.broadcast_shapes(log_hazard.shape, cumulative.shape, times.shape)
        if shape[-2:] != times.shape[-2:]:
            raise ModelError(
                f"The hazard at times of shape {tuple(times.shape)} has shape {tuple(shape)}.",
                "one value for each time of each individual.",
                "pass parameters that broadcast to (individual,), one for each individual or one "
                "for all.",
            )
        return log_hazard.expand(shape), cumulative.expand(shape)

    def scaled(self, factor: Tensor | float) -> "Hazard":
        r"""A proportional hazard: this one times a factor.

        Args:
            factor: Positive, one per individual, broadcastable to ``(individual,)``.
        """
        by = torch.as_tensor(factor).unsqueeze(-1)

        def curves(times: Tensor) -> tuple[Tensor, Tensor]:
            log_hazard, cumulative = self(times)
            return log_hazard + by.log(), cumulative * by

        inverse, rate, finer = self.inverse, self.rate, self.finer
        return Hazard(
            curves,
            None if inverse is None else lambda h: inverse(h / by),
            None if rate is None else lambda times: rate(times) + by.log(),
            None if finer is None else finer.scaled(factor),
        )

    def __add__(self, other: "Hazard") -> "Hazard":
        r"""The hazard of the first of two competing events, the sum of their hazards.

        Which of them it is at its time t has the probabilities
        :math:`h_k(t) / (h_1(t) + h_2(t))`: a categorical observation with the log hazards as
        logits.
        """
        if not isinstance(other, Hazard):
            return NotImplemented

        def curves(times: Tensor) -> tuple[Tensor, Tensor]:
            (log_one, one), (log_two, two) = self(times), other(times)
            return torch.logaddexp(log_one, log_two), one + two

        finer = None
        if self.finer is not None or other.finer is not None:
            finer = (self.finer or self) + (other.finer or other)
        first, second = self.rate, other.rate
        if first is None or second is None:
            return Hazard(curves, finer=finer)
        rates = (first, second)
        return Hazard(
            curves, rate=lambda times: torch.logaddexp(*(r(times) for r in rates)), finer=finer
        )


def exponential_hazard(rate: Tensor | float) -> Hazard:
    r"""A constant hazard.

    Args:
        rate: The hazard, broadcastable to ``(individual,)``, one over the unit of time.

    Example:
        >>> hazard = exponential_hazard(torch.tensor([0.5]))
        >>> hazard(torch.tensor([[2.0]]))[1]
        tensor([[1.]])
    """
    r = torch.as_tensor(rate).unsqueeze(-1)
    return Hazard(lambda t: (r.log() + torch.zeros_like(t), r * t), lambda h: h / r)


def weibull_hazard(scale: Tensor | float, shape: Tensor | float) -> Hazard:
    r"""The hazard of a Weibull distribution, :math:`H(t) = (t / \lambda)^k`.

    Args:
        scale: The time :math:`\lambda` by which 63 % have an event, broadcastable to
            ``(individual,)``, unit of time.
        shape: The exponent k, likewise; one for a constant hazard, larger for one that increases.

    Example:
        >>> hazard = weibull_hazard(torch.tensor([2.0]), torch.tensor([3.0]))
        >>> hazard.inverse(torch.tensor([[8.0]]))
        tensor([[4.]])
    """
    lam, k = torch.as_tensor(scale).unsqueeze(-1), torch.as_tensor(shape).unsqueeze(-1)

    def curves(times: Tensor) -> tuple[Tensor, Tensor]:
        log_ratio = times.clamp(min=SMALLEST_TIME).log() - lam.log()
        return k.log() - lam.log() + (k - 1) * log_ratio, torch.exp(k * log_ratio)

    return Hazard(curves, lambda h: lam * h ** (1 / k))


def gompertz_hazard(rate: Tensor | float, slope: Tensor | float) -> Hazard:
    r"""A hazard that changes exponentially, :math:`h(t) = r\, e^{b t}`.

    With a negative slope an event may never happen.

    Args:
        rate: The hazard r at time 0, broadcastable to ``(individual,)``, one over the unit of time.
        slope: b, likewise.
    """
    r, b = torch.as_tensor(rate).unsqueeze(-1), torch.as_tensor(slope).unsqueeze(-1)

    def over_slope(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """``function(b x) / b``, which is x for a slope of zero."""
        is_flat = b.abs() < SMALL_SLOPE
        safe = torch.where(is_flat, torch.ones_like(b), b)
        return torch.where(is_flat, x * (1 + 0 * b), function(safe * x) / safe)

    def curves(times: Tensor) -> tuple[Tensor, Tensor]:
        return r.log() + b * times, r * over_slope(torch.expm1, times)

    def inverse(cumulative: Tensor) -> Tensor:
        # Beyond the limit of H of a falling hazard the logarithm is NaN: no event.
        return over_slope(torch.log1p, cumulative / r).nan_to_num(torch.inf)

    return Hazard(curves, inverse)


def loglogistic_hazard(scale: Tensor | float, shape: Tensor | float) -> Hazard:
    r"""The hazard of a log-logistic distribution, :math:`H(t) = \log(1 + (t / \lambda)^k)`, which
    rises and falls for k above 1.

    Args:
        scale: The median time :math:`\lambda`, broadcastable to ``(individual,)``, unit of time.
        shape: The exponent k, likewise.
    """
    lam, k = torch.as_tensor(scale).unsqueeze(-1), torch.as_tensor(shape).unsqueeze(-1)

    def curves(times: Tensor) -> tuple[Tensor, Tensor]:
        log_ratio = times.clamp(min=SMALLEST_TIME).log() - lam.log()
        cumulative = torch.nn.functional.softplus(k * log_ratio)
        return k.log() - lam.log() + (k - 1) * log_ratio - cumulative, cumulative

    return Hazard(curves, lambda h: lam * torch.expm1(h) ** (1 / k))


def piecewise_hazard(changes: Tensor, rates: Tensor) -> Hazard:
    r"""A hazard that is constant between given times.

    Args:
        changes: Increasing positive times at which the hazard changes, shape ``(piece - 1,)``, unit
            of time.
        rates: The hazard of each piece, shape ``(piece,)`` or ``(individual, piece)``, one over the
            unit of time.

    Raises:
        ModelError: There is not one more piece than changes, or the changes are not positive and
            increasing.
    """
    changes, rates = torch.as_tensor(changes), torch.as_tensor(rates)
    shapes_fit = changes.dim() == 1 and rates.dim() > 0 and rates.shape[-1] == len(changes) + 1
    if not shapes_fit or bool((changes.diff() <= 0).any()) or not bool((changes > 0).all()):
        shown = shortened(str(changes.tolist()))
        raise ModelError(
            f"`changes` is {shown}, and `rates` has shape {tuple(rates.shape)}.",
            "positive increasing changes of shape (piece - 1,), and rates of shape (piece,) or "
            "(individual, piece).",
            "pass one more rate than changes; the first piece begins at time 0.",
        )
    edges = torch.cat([changes.new_zeros(1), changes]).to(rates.dtype)
    ends = torch.cat([edges[1:], edges.new_full((1,), torch.inf)])
    reached = torch.cat(
        [torch.zeros_like(rates[..., :1]), (rates[..., :-1] * edges.diff()).cumsum(-1)], -1
    )

    def curves(times: Tensor) -> tuple[Tensor, Tensor]:
        # Pieces include their right end, so that H is continuous and an event at a change counts.
        piece = torch.searchsorted(changes.to(times.dtype), times.contiguous())
        inside = (torch.minimum(times.unsqueeze(-1), ends) - edges).clamp(min=0.0)
        every = rates.log().unsqueeze(-2).expand(*times.shape, len(edges))
        cumulative = (inside * rates.unsqueeze(-2)).sum(-1)
        return every.gather(-1, piece.unsqueeze(-1)).squeeze(-1), cumulative

    def inverse(cumulative: Tensor) -> Tensor:
        table = reached.expand(*cumulative.shape[:-1], -1).contiguous()
        piece = torch.searchsorted(table, cumulative.contiguous(), right=True).sub(1).clamp(min=0)
        rate = rates.expand(table.shape).gather(-1, piece)
        return edges[piece] + (cumulative - table.gather(-1, piece)) / rate

    return Hazard(curves, inverse)
