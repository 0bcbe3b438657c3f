r"""Programs with further covariate effects, correlations and parts of the residual error.

A model search cannot write into a user's program. It need not: the individual parameters are sample
sites, and an effect handler can change their distribution while the program runs. Where a site is
normal on some scale (normal, lognormal, logit-normal, with or without correlations), with mean m
and standard deviations s on this scale,

.. math:: m_i \to m_i + \beta\, c(x_i), \qquad
    \operatorname{diag}(s) \operatorname{diag}(s) \to \operatorname{diag}(s)\, R \operatorname{diag}
    (s),

with a coefficient :math:`\beta` and a centred covariate :math:`c(x)`, and a correlation matrix R of
entries of one or of several sites. Of normal observations with mean f and standard deviation s, the
variance becomes :math:`s^2 + b^2 f^2` or :math:`s^2 + a^2`. Coefficients, correlations and the new
parts of the error are new population sites. An :class:`ExtendedProgram` is an ordinary model: it
can be fitted, simulated and saved like the program in it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pyro
import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ..cohort import Cohort
from ..errors import ModelError
from .freed_parameter import FreedParameter
from .sites import Model
from .transformed_normals import TransformedNormal, embedded, transformed_normal, with_scale

CovariateForm = Literal["power", "linear", "category"]
ErrorKind = Literal["additive", "proportional"]


@dataclass(frozen=True)
class Entry:
    r"""One individual parameter: an entry of an individual site.

    Args:
        site: Name of the site.
        index: Index of the entry in the site; 0 for a site with one value.
        name: Its name, as in the results of a fit.
    """

    site: str
    index: int
    name: str

    @property
    def word(self) -> str:
        """The name without brackets, for the name of a site."""
        return self.name.replace("[", "_").replace("]", "").replace(" ", "_")


@dataclass(frozen=True)
class CovariateEffect:
    r"""An effect of a covariate on the mean of an individual parameter.

    Args:
        entry: The individual parameter.
        covariate: Name of the covariate.
        form: ``"power"``: log(x / reference); ``"linear"``: x - reference; ``"category"``: one
            difference from the reference category for every other one.
        reference: The reference value: the median, or the most frequent category.
        levels: The other categories; empty for quantities.
        names: Names of these categories, or empty.
        scale: Standard deviation of the prior of the coefficient. It says how large a step of a
            search is; maximum likelihood does not depend on it.
    """

    entry: Entry
    covariate: str
    form: CovariateForm
    reference: float
    levels: tuple[float, ...] = ()
    names: tuple[str, ...] = ()
    scale: float = 1.0

    @property
    def name(self) -> str:
        """In words."""
        return f"{self.covariate} on {self.entry.name}"

    @property
    def site(self) -> str:
        """Name of the population site."""
        return f"{self.covariate}_on_{self.entry.word}"

    @property
    def num_parameters(self) -> int:
        """Number of coefficients."""
        return max(1, len(self.levels))

    def columns(self, cohort: Cohort) -> Tensor:
        """The centred covariate, shape ``(individual, coefficient)``, in float64."""
        x = cohort.covariates[self.covariate].double()
        if self.form == "power":
            return (x / self.reference).log().unsqueeze(-1)
        if self.form == "linear":
            return (x - self.reference).unsqueeze(-1)
        levels = torch.tensor(self.levels, dtype=x.dtype, device=x.device)
        known = torch.cat([levels, levels.new_tensor([self.reference])])
        if bool((x.unsqueeze(-1) != known).all(-1).any()):
            raise ModelError(
                f"The covariate {self.covariate!r} has values besides {sorted(known.tolist())}.",
                "the categories that the effect was made for.",
                "merge the new category with one of them, or search again.",
            )
        return (x.unsqueeze(-1) == levels).double()

    def sample(self) -> Tensor:
        """The coefficients, a new population site, shape ``()`` or ``(category,)``."""
        if self.form != "category":
            return torch.as_tensor(pyro.sample(self.site, dist.Normal(0.0, self.scale)))
        normal = dist.Normal(torch.zeros(len(self.levels)), self.scale).to_event(1)
        labels = list(self.names or (f"{x:g}" for x in self.levels))
        return torch.as_tensor(pyro.sample(self.site, normal, infer={"labels": labels}))


@dataclass(frozen=True)
class CorrelatedBlock:
    r"""Individual parameters with an unrestricted correlation matrix.

    Args:
        entries: Two or more, in the order of the program.
    """

    entries: tuple[Entry, ...]

    @property
    def name(self) -> str:
        """In words."""
        return "correlation of " + ", ".join(x.name for x in self.entries)

    @property
    def site(self) -> str:
        """Name of the population site."""
        return "correlation_of_" + "_".join(x.word for x in self.entries)

    @property
    def num_parameters(self) -> int:
        """Number of correlations."""
        return len(self.entries) * (len(self.entries) - 1) // 2

    def sample(self) -> Tensor:
        """Cholesky factor of the correlation matrix, a new population site."""
        return torch.as_tensor(pyro.sample(self.site, dist.LKJCholesky(len(self.entries), 1.0)))


@dataclass(frozen=True)
class ErrorPart:
    r"""A further part of the standard deviation of normal observations.

    Args:
        observed: Name of the observed site.
        kind: ``"additive"`` or ``"proportional"`` to the mean.
        scale: Scale of the half-normal prior.
    """

    observed: str
    kind: ErrorKind
    scale: float = 1.0

    @property
    def name(self) -> str:
        """In words."""
        return f"{self.kind} error of {self.observed}"

    @property
    def site(self) -> str:
        """Name of the population site."""
        return f"{self.kind}_error_of_{self.observed}"

    num_parameters = 1

    def sample(self) -> Tensor:
        """The standard deviation or coefficient of variation, a new population site."""
        return torch.as_tensor(pyro.sample(self.site, dist.HalfNormal(self.scale)))


AddedTerm = CovariateEffect | CorrelatedBlock | ErrorPart
Term = AddedTerm | FreedParameter


@dataclass(frozen=True)
class Extension:
    """What a model has besides a program and its held sites: covariate effects, correlated blocks,
    parts of the error, and sites that are no longer held.
    """

    effects: tuple[CovariateEffect, ...] = ()
    blocks: tuple[CorrelatedBlock, ...] = ()
    errors: tuple[ErrorPart, ...] = ()
    freed: tuple[FreedParameter, ...] = ()

    @property
    def added(self) -> tuple[AddedTerm, ...]:
        """Those with a population site that the program does not have."""
        return (*self.effects, *self.blocks, *self.errors)

    @property
    def terms(self) -> tuple[Term, ...]:
        """All of them."""
        return (*self.added, *self.freed)

    @property
    def key(self) -> str:
        """The names of all terms, the same for every order in which they were added."""
        return "; ".join(sorted(term.name for term in self.terms))


@dataclass(frozen=True)
class ExtendedProgram:
    r"""A program with further terms; an ordinary model of a cohort.

    Args:
        program: The program of the user.
        extension: What is added to it.
    """

    program: Model
    extension: Extension = field(default_factory=Extension)

    def __call__(self, cohort: Cohort) -> Any:
        """Sample the new population sites, and run the program with them."""
        values = {term.site: term.sample() for term in self.extension.added}
        with _Extending(self.extension, values, cohort):
            return self.program(cohort)

    @property
    def __name__(self) -> str:
        return str(getattr(self.program, "__name__", type(self.program).__name__))


class _Extending(Messenger):  # type: ignore[misc]
    """Changes the distributions of individual and observed sites while a program runs."""

    def __init__(self, extension: Extension, values: Mapping[str, Tensor], cohort: Cohort) -> None:
        super().__init__()
        self.extension, self.values, self.cohort = extension, values, cohort
        self.individual = {x.entry.site for x in extension.effects}
        self.individual |= {e.site for block in extension.blocks for e in block.entries}
        self.observed = {error.observed for error in extension.errors}
        # By block: the independent standard normal variables behind the sites so far.
        self.innovations: dict[str, list[Tensor]] = {b.site: [] for b in extension.blocks}
        # By site: its distribution without correlations, and the blocks that go on after it.
        self.pending: dict[str, tuple[TransformedNormal, list[Any]]] = {}

    def _pyro_sample(self, msg: Any) -> None:
        name = msg["name"]
        if name in self.individual:
            normal = transformed_normal(msg["fn"])
            if normal is None:
                raise _not_normal(name, "individual parameters")
            normal = self._moved(name, normal)
            correlated, kept = self._correlated(name, normal)
            msg["fn"] = correlated.distribution()
            if kept:
                self.pending[name] = normal, kept
        elif name in self.observed:
            msg["fn"] = self._with_errors(name, msg["fn"])

    def _pyro_post_sample(self, msg: Any) -> None:
        if msg["name"] not in self.pending:
            return
        normal, kept = self.pending.pop(msg["name"])
        standard = (normal.on_normal_scale(msg["value"]) - normal.loc) / normal.scale
        for block, mean, factor, places in kept:
            z = standard[..., places] if normal.event_dim else standard.unsqueeze(-1)
            rest = (z - mean).unsqueeze(-1)
            new = torch.linalg.solve_triangular(factor, rest, upper=False).squeeze(-1)
            self.innovations[block.site].append(new)

    def _moved(self, name: str, normal: TransformedNormal) -> TransformedNormal:
        for effect in self.extension.effects:
            if effect.entry.site == name:
                columns = effect.columns(self.cohort).to(normal.loc.dtype)
                beta = self.values[effect.site].to(normal.loc.dtype)
                shift = columns @ beta if effect.form == "category" else columns[..., 0] * beta
                if normal.event_dim:
                    shift = embedded(shift, effect.entry.index, normal.loc.shape[-1])
                normal = normal.moved(shift)
        return normal

    def _correlated(
        self, name: str, normal: TransformedNormal
    ) -> tuple[TransformedNormal, list[Any]]:
        """The distribution given the sites before, and what the sites after it need."""
        blocks = [b for b in self.extension.blocks if any(e.site == name for e in b.entries)]
        if not blocks:
            return normal, []
        scale = normal.scale.expand(normal.loc.shape)
        factor = torch.diag_embed(scale if normal.event_dim else scale.unsqueeze(-1))
        shift, kept = torch.zeros_like(normal.loc), []
        for block in blocks:
            rows = [i for i, e in enumerate(block.entries) if e.site == name]
            places = [block.entries[i].index for i in rows]
            whole = self.values[block.site].to(normal.loc.dtype)
            own = whole[rows][:, rows]
            before = self.innovations[block.site]
            mean = normal.loc.new_zeros(len(rows))
            if before:
                earlier = torch.cat(before, -1)
                mean = earlier @ whole[rows][:, : rows[0]].mT
            at = torch.tensor(places)
            unit = torch.zeros(len(rows), factor.shape[-1], dtype=factor.dtype)
            unit[torch.arange(len(rows)), at] = 1.0
            factor = factor + torch.diag_embed(factor.diagonal(dim1=-2, dim2=-1)) @ (
                unit.mT @ (own - torch.eye(len(rows), dtype=own.dtype)) @ unit
            )
            moved = mean @ unit
            shift = shift + scale * (moved if normal.event_dim else moved[..., 0])
            if rows[-1] + 1 < len(block.entries):
                kept.append((block, mean, own, places))
        normal = normal.moved(shift)
        if normal.event_dim == 0:
            single = factor[..., 0, 0]
            return TransformedNormal(normal.loc, single, None, normal.transforms, 0), kept
        return TransformedNormal(normal.loc, scale, factor, normal.transforms, 1), kept

    def _with_errors(self, name: str, fn: Any) -> Any:
        parts = [(e.kind, self.values[e.site]) for e in self.extension.errors if e.observed == name]

        def change(loc: Tensor, scale: Tensor) -> Tensor:
            variance = scale.square()
            for kind, size in parts:
                variance = variance + (size if kind == "additive" else size * loc).square()
            return variance.sqrt()

        changed = with_scale(fn, change)
        if changed is None:
            raise _not_normal(name, "observations")
        return changed


def _not_normal(name: str, what: str) -> ModelError:
    return ModelError(
        f"The site {name!r} is not normal on any scale.",
        f"normal {what}, or a transformation of normal ones.",
        "write the term into the program.",
    )
