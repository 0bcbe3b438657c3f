"""A population site that a fit holds at a value, and that a larger model estimates.

An effect inside the program, for instance that of a covariate that varies over time, cannot be
added from outside. The program has its coefficient, a fit holds it at the value without an effect,
and the larger model is the same program with the coefficient estimated.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class FreedParameter:
    r"""A population site of the program that is estimated; without the term it is held.

    Args:
        site: Name of the site.
        value: The value at which it is held without the term, in unconstrained coordinates.
        covariates: Names of the covariates that act through the site, as far as they were asked
            for.
    """

    site: str
    value: tuple[float, ...]
    covariates: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """In words."""
        by = f" ({', '.join(self.covariates)})" if self.covariates else ""
        return f"{self.site}{by}"

    @property
    def num_parameters(self) -> int:
        """Number of its coordinates."""
        return len(self.value)
