r"""Categories of one individual over time that depend on the category before (a Markov chain).

With the probabilities :math:`\pi` of the first category and the matrices :math:`A_j` of the
transitions from time j to the next one,

.. math:: p(y) = \pi_{y_1} \prod_j (A_j)_{y_j, y_{j+1}} .

Categories that were not recorded are summed over, exactly. With rates in continuous time the
matrices are :math:`A_j = e^{Q (t_{j+1} - t_j)}`, ``torch.linalg.matrix_exp``.
"""

from collections.abc import Sequence

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from ...errors import ModelError
from ...runtime.arguments import check_is

SMALLEST = 1e-300  # a probability of zero, whose logarithm is finite
# Largest difference of a sum of probabilities from one: beyond the rounding of single precision, or
# of a matrix exponential, and far below any mistake.
SUM_TOLERANCE = 1e-3


class MarkovCategories(TorchDistribution):  # type: ignore[misc]
    r"""Distribution of the categories 0, 1, ... of every individual over time.

    Batch shape ``(individual,)``, event shape ``(time,)``; it needs neither ``.mask`` nor
    ``.to_event``::

        state = cohort["state"]
        distribution = nlme.MarkovCategories(initial, transitions, state.observed)
        pyro.sample("state", distribution, obs=state.values)

    Args:
        initial: Probabilities of the categories at the first time, shape ``(category,)`` or
            ``(individual, category)``.
        transitions: Probabilities from the category in the row to that in the column, shape
            ``(category, category)``, ``(individual, category, category)``, or ``(individual, time -
            1, category, category)``.
        observed: True where the category was recorded, shape ``(individual, time)``.

    Raises:
        ModelError: Shapes do not agree.

    Example:
        >>> stay = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
        >>> observed = torch.tensor([[True, True, False, True]])
        >>> chain = MarkovCategories(torch.tensor([1.0, 0.0]), stay, observed)
        >>> chain.log_prob(torch.tensor([[0.0, 1.0, 0.0, 1.0]])).exp()  # 0.1 (0.2 0.1 + 0.8 0.8)
        tensor([0.0660])
    """

    is_category = True  # figures of shares, not of means
    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012  (torch's own form)
    support = constraints.independent(constraints.nonnegative_integer, 1)

    def __init__(self, initial: Tensor, transitions: Tensor, observed: Tensor) -> None:
        fix = 'pass a tensor; `observed` is that of the series, `cohort["state"].observed`.'
        for name, value in (("initial", initial), ("transitions", transitions)):
            check_is(name, value, Tensor, fix, ModelError)
        check_is("observed", observed, Tensor, fix, ModelError)
        if observed.dim() != 2 or observed.dtype != torch.bool or not initial.dim():
            raise ModelError(
                f"`observed` has shape {tuple(observed.shape)} and dtype {observed.dtype}.",
                "(individual, time), True where the category was recorded.",
                fix,
            )
        num, num_times = observed.shape
        self.num_categories = size = int(initial.shape[-1])
        matrices = transitions
        if matrices.dim() in (2, 3):
            matrices = matrices.unsqueeze(-3)
        try:
            self.initial = initial.expand(num, size)
            self.transitions = matrices.expand(num, num_times - 1, size, size)
        except RuntimeError as error:
            raise ModelError(
                f"The initial probabilities have shape {tuple(initial.shape)}, the transitions "
                f"{tuple(transitions.shape)}.",
                f"(individual={num}, category) and (individual={num}, time={num_times - 1}, "
                "category, category), or fewer dimensions for what all share.",
                "put individuals first and categories last.",
            ) from error
        self.observed = observed
        super().__init__(torch.Size([num]), torch.Size([num_times]), validate_args=False)

    @property
    def probabilities(self) -> Tensor:
        """Probability of each category at each time, shape ``(individual, time, category)``."""
        columns = [self.initial]
        for j in range(self.transitions.shape[1]):
            columns.append((columns[-1].unsqueeze(-2) @ self.transitions[:, j]).squeeze(-2))
        return torch.stack(columns, -2)

    @property
    def mean(self) -> Tensor:
        """Mean of the number of the category, shape ``(individual, time)``."""
        numbers = torch.arange(self.num_categories, dtype=self.initial.dtype)
        return (self.probabilities * numbers).sum(-1)

    @property
    def variance(self) -> Tensor:
        """Variance of the number of the category, shape ``(individual, time)``."""
        numbers = torch.arange(self.num_categories, dtype=self.initial.dtype)
        return (self.probabilities * numbers.square()).sum(-1) - self.mean.square()

    def log_prob(self, value: Tensor) -> Tensor:
        """Log probability of the recorded categories, shape ``(individual,)``."""
        size, value = self.num_categories, value.detach()
        possible = torch.nn.functional.one_hot(value.long().clamp(0, size - 1), size)
        outside = self._outside(value)
        allowed = torch.where(self.observed.unsqueeze(-1), possible.bool(), True)
        log_initial = self.initial.clamp(min=SMALLEST).log()
        log_matrices = self.transitions.clamp(min=SMALLEST).log()
        ahead = torch.where(allowed[..., 0, :], log_initial, -torch.inf)
        for j in range(1, allowed.shape[-2]):
            step = torch.logsumexp(ahead.unsqueeze(-1) + log_matrices[..., j - 1, :, :], -2)
            ahead = torch.where(allowed[..., j, :], step, -torch.inf)
        return torch.where(outside.any(-1), -torch.inf, torch.logsumexp(ahead, -1))

    def _outside(self, value: Tensor) -> Tensor:
        """Which recorded values are no categories, shape ``(*, individual, time)``."""
        whole = value == value.round()
        return ~(whole & (value >= 0) & (value <= self.num_categories - 1)) & self.observed

    def impossible(self, value: Tensor) -> dict[str, Tensor]:
        r"""What no draw could be among recorded values, and probabilities that are none: a mask of
        shape ``(individual, time)`` for each fault, described in words.
        """
        last = self.num_categories - 1
        faults = {f"are none of the categories 0 to {last} of the chain": self._outside(value)}
        starts = _no_probabilities(self.initial).unsqueeze(-1).expand(value.shape)
        faults["follow initial probabilities that are negative or do not add up to one"] = starts
        rows = torch.zeros_like(starts)
        rows[..., 1:] = _no_probabilities(self.transitions).any(-1)
        faults[
            "follow transitions whose rows, from one category to all, have a negative probability "
            "or do not add up to one"
        ] = rows
        return faults

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws, one time after the other, shape ``(*sample_shape, individual, time)``."""
        lead = torch.Size(sample_shape)
        with torch.no_grad():
            weights = self.initial.expand(lead + self.initial.shape)
            columns = [_category(weights)]
            for j in range(self.transitions.shape[1]):
                matrix = self.transitions[:, j]
                matrix = matrix.expand(lead + matrix.shape)
                row = columns[-1][..., None, None].expand(
                    *columns[-1].shape, 1, self.num_categories
                )
                columns.append(_category(matrix.gather(-2, row).squeeze(-2)))
        return torch.stack(columns, -1).to(self.initial.dtype)

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> "MarkovCategories":
        """This distribution itself; it cannot be expanded beyond its individuals."""
        assert torch.Size(batch_shape) == self.batch_shape
        return self


def _no_probabilities(rows: Tensor) -> Tensor:
    """Which rows have a negative entry or another sum than one; NaN is another matter."""
    sums = ((rows.sum(-1) - 1).abs() > SUM_TOLERANCE) & rows.isfinite().all(-1)
    return (rows < -SUM_TOLERANCE).any(-1) | sums


def _category(weights: Tensor) -> Tensor:
    """One category for each row of weights, by inversion."""
    shares = weights.cumsum(-1)
    uniform = torch.rand(shares.shape[:-1], dtype=shares.dtype, device=shares.device)
    place = (uniform.unsqueeze(-1) * shares[..., -1:] > shares).sum(-1)
    return place.clamp(max=shares.shape[-1] - 1)
