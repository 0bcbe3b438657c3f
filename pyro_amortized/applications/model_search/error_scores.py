r"""Scores of further parts of the variance of normal observations.

With the residual r, the variance :math:`s^2` of an observation, and a further variance :math:`v
g`, where g is :math:`f^2` for a proportional part and 1 for an additive one,

.. math:: \partial_v \log p = \sum_j \frac{g_j}{2 s_j^2} \Bigl(\frac{r_j^2}{s_j^2} - 1\Bigr),
    \qquad -\partial_v \partial_w \log p = \sum_j g_j h_j \Bigl(\frac{r_j^2}{s_j^6} -
    \frac{1}{2 s_j^4}\Bigr)

at v = 0. A variance is not negative, so the test is one-sided.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...model.extended_program import ErrorPart
from ...model.program_run import Assign, run_program
from ...model.sites import site_mask
from ...model.transformed_normals import normal_observation
from ...population.results.fit_result import PopulationFit
from ...sampling.individuals import IndividualPosteriors
from .search_candidates import Candidate
from .search_settings import SEARCH


@dataclass(frozen=True, eq=False)
class ErrorDirections:
    r"""Scores and information of further parts of the residual error.

    Args:
        scores: Shape ``(draw, individual, part)``.
        with_model: Expected information with parameters of the population, shape ``(part,
            parameter)``.
        information: Expected information, shape ``(part, part)``.
    """

    scores: Tensor
    with_model: Tensor
    information: Tensor

    @property
    def num(self) -> int:
        """Number of parts."""
        return len(self.information)


def error_directions(
    fit: PopulationFit,
    individuals: IndividualPosteriors,
    candidates: Sequence[Candidate],
    places: Tensor,
) -> ErrorDirections:
    """Scores and information of parts of the error, on the draws of a fit; ``places`` are the
    coordinates of the population whose information with the parts is needed.
    """
    parts = [c.term for c in candidates if isinstance(c.term, ErrorPart)]
    num_draws, num = individuals.log_weights.shape
    with_model = torch.zeros(len(parts), len(places), dtype=torch.float64)
    if not parts:
        none = torch.zeros(num_draws, num, 0, dtype=torch.float64)
        return ErrorDirections(none, with_model, torch.zeros(0, 0, dtype=torch.float64))
    scores, information = _at(fit, individuals, fit.vector, parts)
    shared = fit.structure.coordinates(fit.structure.shared)
    for column, p in enumerate(places.tolist()):
        if bool(shared[p]):
            step = torch.zeros_like(fit.vector)
            step[p] = SEARCH.relative_step * fit.search.scale[p]
            ahead, behind = (
                torch.einsum(
                    "kn,knp->p", individuals.weights, _at(fit, individuals, vector, parts)[0]
                )
                for vector in (fit.vector + step, fit.vector - step)
            )
            with_model[:, column] = -(ahead - behind) / (2 * step[p])
    expected = torch.einsum("kn,knpq->pq", individuals.weights, information)
    return ErrorDirections(scores, with_model, expected)


def _at(
    fit: PopulationFit, individuals: IndividualPosteriors, vector: Tensor, parts: list[ErrorPart]
) -> tuple[Tensor, Tensor]:
    """Scores ``(draw, individual, part)`` and information ``(draw, individual, part, part)``."""
    structure, draws = fit.structure, individuals.unconstrained
    repeated = individuals.cohort.to(dtype=torch.float64).repeat(len(draws))
    assign = Assign(
        structure.constrain_population(vector), structure.individual, draws.flatten(0, 1)
    )
    with torch.no_grad():
        trace = run_program(structure.model, repeated, assign)
    shape = (len(repeated), len(parts))
    scores = torch.zeros(shape, dtype=torch.float64)
    information = torch.zeros(*shape, len(parts), dtype=torch.float64)
    for name in {part.observed for part in parts}:
        node = trace.nodes[name]
        found = normal_observation(node["fn"])
        assert found is not None
        mean, deviation = (x.expand(node["value"].shape) for x in found)
        recorded = torch.as_tensor(site_mask(node)).expand(mean.shape).double()
        square = ((node["value"] - mean) / deviation).square()
        mine = [i for i, part in enumerate(parts) if part.observed == name]
        kinds = [torch.ones_like(mean) if parts[i].kind == "additive" else mean**2 for i in mine]
        relative = [recorded * g / deviation.square() for g in kinds]
        for i, g in zip(mine, relative, strict=True):
            scores[:, i] = (g * (square - 1) / 2).flatten(1).sum(1)
            for j, h in zip(mine, relative, strict=True):
                information[:, i, j] = (g * h * (square - 0.5)).flatten(1).sum(1)
    return (
        scores.reshape(*draws.shape[:2], -1),
        information.reshape(*draws.shape[:2], len(parts), len(parts)),
    )
