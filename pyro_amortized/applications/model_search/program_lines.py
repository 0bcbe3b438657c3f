r"""The lines of Python that a user writes into a program for the terms that a search has chosen.

A search changes the program while it runs. The lines say the same in the words of the program.
"""

from ...model.extended_program import (
    CorrelatedBlock,
    CovariateEffect,
    ErrorPart,
    Extension,
)
from ...model.freed_parameter import FreedParameter
from ...population.results.fit_result import PopulationFit


def program_lines(extension: Extension, fit: PopulationFit) -> str:
    """What to write into the program, with the estimates as comments."""
    outside, inside = [], []
    for effect in extension.effects:
        outside += _coefficients(effect, fit)
        inside += _shift(effect)
    for block in extension.blocks:
        factor = fit.estimates[block.site]
        matrix = (factor @ factor.mT).tolist()
        estimates = "; ".join(", ".join(f"{x:.2f}" for x in row) for row in matrix)
        outside.append(
            f'{block.site} = pyro.sample("{block.site}", dist.LKJCholesky({len(block.entries)}))'
            f"  # correlation matrix {estimates}"
        )
        inside += _correlated(block)
    for error in extension.errors:
        size = float(fit.estimates[error.site])
        outside.append(
            f'{error.site} = pyro.sample("{error.site}", dist.HalfNormal({error.scale:.3g}))'
            f"  # {size:.3g}"
        )
        inside += _error(error)
    freed = [_freed(term, fit) for term in extension.freed]
    if not extension.added:
        return "\n".join(freed)
    return "\n".join([*freed, "# before the plate", *outside, "# in the plate", *inside])


def _freed(term: FreedParameter, fit: PopulationFit) -> str:
    value = fit.estimates[term.site]
    shown = ", ".join(f"{x:.3g}" for x in value.reshape(-1).tolist())
    return f"# {term.site} is estimated: leave it out of `fixed=`  # {shown}"


def _coefficients(effect: CovariateEffect, fit: PopulationFit) -> list[str]:
    value = fit.estimates[effect.site]
    shown = ", ".join(f"{x:.3g}" for x in value.reshape(-1).tolist())
    if effect.form != "category":
        law = f"dist.Normal(0.0, {effect.scale:.3g})"
    else:
        law = f"dist.Normal(torch.zeros({len(effect.levels)}), {effect.scale:.3g}).to_event(1)"
    return [f'{effect.site} = pyro.sample("{effect.site}", {law})  # {shown}']


def _shift(effect: CovariateEffect) -> list[str]:
    x, to = f'cohort.covariates["{effect.covariate}"]', f"mean of {effect.entry.name}"
    if effect.form == "power":
        return [f"{effect.site}[..., None] * ({x} / {effect.reference:g}).log()  # added to {to}"]
    if effect.form == "linear":
        return [f"{effect.site}[..., None] * ({x} - {effect.reference:g})  # added to {to}"]
    lines = []
    for k, level in enumerate(effect.levels):
        indicator = f"({x} == {level:g})"
        if effect.names:
            indicator = f'cohort.is_category("{effect.covariate}", "{effect.names[k]}")'
        lines.append(f"{effect.site}[..., {k}, None] * {indicator}  # added to {to}")
    return lines


def _correlated(block: CorrelatedBlock) -> list[str]:
    names = ", ".join(entry.name for entry in block.entries)
    return [
        f"# one site for {names}, with their means and their standard deviations omega:",
        f"nlme.random_effects(mean, omega, {block.site})",
    ]


def _error(error: ErrorPart) -> list[str]:
    size = f"{error.site}[..., None]"
    part = f"{size} * prediction" if error.kind == "proportional" else size
    return [
        f"# standard deviation of {error.observed}, with its present value sd:",
        f"(sd**2 + ({part}) ** 2).sqrt()",
    ]
