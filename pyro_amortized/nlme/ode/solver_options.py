r"""Options of the ODE solvers."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from ...errors import ModelError

Solver = Literal["auto", "compiled", "explicit", "implicit", "torchdiffeq"]
SOLVERS = ("auto", "compiled", "explicit", "implicit", "torchdiffeq")


class Tolerance(NamedTuple):
    """Relative and absolute tolerance of every row, and its largest number of steps."""

    rtol: float
    atol: float
    max_steps: int


@dataclass(frozen=True)
class SolverOptions:
    r"""How dynamics are solved; the fields are arguments of :func:`~pyro_amortized.nlme.solve`.

    Args:
        solver: The solver.
        rtol: Relative tolerance. The default is far below the Monte Carlo error of any likelihood.
        atol: Absolute tolerance. Default: a hundredth of the relative one (decision 014).
        max_steps: Largest number of steps of an individual; stiff systems need fewer.

    Raises:
        ModelError: The solver does not exist, or a tolerance is not positive.
    """

    solver: Solver = "auto"
    rtol: float = 1e-7
    atol: float | None = None
    max_steps: int = 20_000

    def __post_init__(self) -> None:
        if self.solver not in SOLVERS:
            raise ModelError(
                f"solver={self.solver!r}.", f"one of {list(SOLVERS)}.", "correct the name."
            )
        if not (self.rtol > 0 and (self.atol is None or self.atol > 0) and self.max_steps > 0):
            raise ModelError(
                f"rtol={self.rtol}, atol={self.atol}, max_steps={self.max_steps}.",
                "positive tolerances and a positive number of steps.",
                "correct the setting.",
            )

    @property
    def tolerance(self) -> Tolerance:
        """Both tolerances and the number of steps."""
        atol = self.rtol / 100 if self.atol is None else self.atol
        return Tolerance(self.rtol, atol, self.max_steps)


DEFAULTS = SolverOptions()
