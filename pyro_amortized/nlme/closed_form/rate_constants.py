r"""Rate constants of compartment systems: the roots of their characteristic polynomial.

References:
    Upton (2004), The two-compartment recirculatory pharmacokinetic model; Press, Teukolsky,
    Vetterling, Flannery (2007), Numerical Recipes, section 5.6.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RateSettings:
    r"""How singular values of the formulas are avoided.

    Args:
        smallest: Smallest rate, smallest argument of a square root, and distance of a cosine from
            1 and -1. Without it gradients are infinite where two rates of the system coincide.
    """

    smallest: float = 1e-12


RATES = RateSettings()


def cubic_roots(square: Tensor, linear: Tensor, constant: Tensor) -> list[Tensor]:
    r"""Roots of x^3 - square x^2 + linear x - constant, all real and positive, largest first."""
    p = (linear - square.square() / 3).clamp(max=-RATES.smallest)
    q = -2 * square**3 / 27 + square * linear / 3 - constant
    cosine = (1.5 * q / p * (-3 / p).sqrt()).clamp(-1 + RATES.smallest, 1 - RATES.smallest)
    angle, size = torch.acos(cosine) / 3, 2 * (-p / 3).sqrt()
    first = square / 3 + size * torch.cos(angle)
    second = square / 3 + size * torch.cos(angle - 2 * torch.pi / 3)
    third = constant / (first * second)  # more accurate than a difference of the others
    return [first, second, third.clamp(min=RATES.smallest)]
