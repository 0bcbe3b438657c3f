r"""The result of an evaluation of designs: expected errors, efficiency, power."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from operator import itemgetter

import pandas as pd
import scipy.special
import torch
from torch import Size, Tensor

from ..errors import SettingError
from ..model import ModelStructure
from ..runtime.arguments import check_count, check_number
from ..runtime.text_table import html_rows, text_table

NUM_REPLICATES = 100  # bootstrap replicates of the simulated individuals, for Monte Carlo errors
# An eigenvalue of the information in units of its diagonal below which a direction is not
# determined: with it the standard errors are a thousand times as large.
FLAT = 1e-6
FLAT_LOADING = 1e-3  # component of a flat direction from which a parameter takes part in it


@dataclass(frozen=True, eq=False)
class ExpectedErrors:
    r"""Expected errors of the estimates under one design.

    Args:
        name: Name of the design.
        structure: The model.
        vector: The population, unconstrained, shape ``(population,)``.
        scores: Scores of simulated individuals, shape ``(simulated, population)``.
        products: Information of each simulated individual, whose mean is that of an individual of
            the study, shape ``(simulated, population, population)``.
        num_individuals: Number of individuals of the study.
        free: Coordinates that are estimated, shape ``(population,)``.
        num_unreliable: Simulated individuals whose draws are poor.
    """

    name: str
    structure: ModelStructure
    vector: Tensor
    scores: Tensor
    products: Tensor
    num_individuals: int
    free: Tensor
    num_unreliable: int

    def __repr__(self) -> str:
        unreliable = f"; {self.num_unreliable} scores are unreliable" if self.num_unreliable else ""
        title = f"Design {self.name}: {self.num_individuals} individuals"
        note = f"{title}, {len(self.products)} simulated{unreliable}"
        if self.undetermined:
            note += f"\nnot determined by this design: {', '.join(self.undetermined)}"
        return f"{note}\n\n{text_table(self._rows())}"

    def _repr_html_(self) -> str:
        """The expected errors as a table, for notebooks."""
        return html_rows(f"{self.name}: {self.num_individuals} individuals", self._rows())

    def with_individuals(self, num_individuals: int) -> "ExpectedErrors":
        """The same design with another number of individuals."""
        check_count("num_individuals", num_individuals)
        return replace(self, num_individuals=num_individuals)

    @cached_property
    def information(self) -> Tensor:
        """Expected information of the study, unconstrained, shape ``(population, population)``."""
        return self.num_individuals * self.products.mean(0)

    @cached_property
    def covariance(self) -> Tensor:
        """Expected covariance of the unconstrained estimates, shape ``(population, population)``;
        NaN for parameters that are fixed or not determined.
        """
        return self._covariance_of(self.information)

    def _covariance_of(self, information: Tensor) -> Tensor:
        result = torch.full_like(information, torch.nan)
        free = self.free & ~self._is_undetermined
        both = free.unsqueeze(0) & free.unsqueeze(1)
        inner = torch.linalg.pinv(information[free][:, free], hermitian=True)
        return result.masked_scatter(both, inner)

    @cached_property
    def _is_undetermined(self) -> Tensor:
        """Coordinates of which the design determines only a combination, or nothing."""
        information = self.scores.T @ self.scores
        diagonal = information.diagonal()
        scale = diagonal.clamp(min=1e-300).sqrt()
        without = ~(diagonal > 0) & self.free
        used = self.free & ~without
        relative = (information / torch.outer(scale, scale))[used][:, used]
        values, vectors = torch.linalg.eigh(relative)
        flat = (vectors[:, values < FLAT].abs() > FLAT_LOADING).any(1)
        result = without.clone()
        result[used] = flat
        return result

    @property
    def undetermined(self) -> list[str]:
        """Names of the parameters of which the design determines only a combination."""
        names, flags = self.structure.population_names, self._is_undetermined.tolist()
        return [name for name, flag in zip(names, flags, strict=True) if flag]

    @property
    def standard_errors(self) -> dict[str, Tensor]:
        """Expected standard errors by site, in the support (delta method)."""
        return {n: self.standard_error(itemgetter(n)) for n in self.structure.population}

    def standard_error(self, function: Callable[[dict[str, Tensor]], Tensor]) -> Tensor:
        r"""Expected standard error of any function of the population parameters.

        Args:
            function: Takes the values by site and returns a tensor, for instance
                ``lambda p: p["omega"] ** 2``.

        Returns:
            Shape of the value of the function.
        """
        shape, jacobian = self._jacobian(function)
        return _errors(jacobian, self.covariance.unsqueeze(0), self.free)[0].reshape(shape)

    def _jacobian(self, function: Callable[[dict[str, Tensor]], Tensor]) -> tuple[Size, Tensor]:
        """Shape of the value of a function, and its derivatives in the unconstrained population,
        shape ``(value, population)``.
        """

        def of_vector(vector: Tensor) -> Tensor:
            return function(self.structure.constrain_population(vector))

        jacobian = torch.autograd.functional.jacobian(of_vector, self.vector)
        return jacobian.shape[:-1], jacobian.reshape(-1, len(self.vector))

    @cached_property
    def _replicates(self) -> Tensor:
        """Covariances of bootstrapped simulated individuals, shape ``(replicate, population,
        population)``.
        """
        generator, num = torch.Generator().manual_seed(0), len(self.products)
        covariances = []
        for _ in range(NUM_REPLICATES):
            counts = torch.randint(num, (num,), generator=generator).bincount(minlength=num)
            mean = torch.einsum("n,nab->ab", counts.double() / num, self.products)
            covariances.append(self._covariance_of(self.num_individuals * mean))
        return torch.stack(covariances)

    def monte_carlo_error(self, function: Callable[[dict[str, Tensor]], Tensor]) -> Tensor:
        """Monte Carlo standard error of :meth:`standard_error`: other simulated individuals would
        change it by so much (bootstrap of the simulated individuals).
        """
        shape, jacobian = self._jacobian(function)
        return _errors(jacobian, self._replicates, self.free).std(0).reshape(shape)

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row per parameter with its value, its expected standard error, the Monte Carlo error
        of the latter, and the relative standard error in per cent.
        """
        rows = []
        values = self.structure.constrain_population(self.vector)
        for name, site in self.structure.population.items():
            value_of = itemgetter(name)
            error, noise = self.standard_error(value_of), self.monte_carlo_error(value_of)
            columns = (x.reshape(-1).tolist() for x in (values[name], error, noise))
            for label, value, se, mc in zip(site.entry_names, *columns, strict=True):
                rse = 100 * se / abs(value) if value else math.nan
                row = {"parameter": label, "value": value, "standard_error": se}
                rows.append(row | {"monte_carlo_error": mc, "rse": rse})
        return pd.DataFrame(rows)

    @property
    def criterion(self) -> float:
        """Determinant of the information of the free parameters to the power 1 / number of
        parameters (D-optimality); larger is better, 0 where some are not determined.
        """
        if self.undetermined:
            return 0.0
        inner = self.information[self.free][:, self.free]
        return float(torch.exp(torch.linalg.slogdet(inner)[1] / len(inner)))

    def power(self, parameter: str, *, null: float = 0.0, level: float = 0.05) -> float:
        r"""Power of a Wald test that a parameter differs from a value.

        Args:
            parameter: Its name, as in the table, for instance an effect of a covariate.
            null: The value without an effect, such as 0; 1 for a ratio.
            level: Two-sided level of the test.

        Returns:
            Probability of a significant result if the parameter has its value.

        Raises:
            SettingError: There is no such parameter, or it is not estimated.
        """
        check_number("level", level, 0, 1, with_low=False, with_high=False)
        effect, error = self._effect(parameter, null)
        critical = float(scipy.special.ndtri(1 - level / 2))
        z = effect / error
        return float(scipy.special.ndtr(z - critical) + scipy.special.ndtr(-z - critical))

    def individuals_needed(
        self, parameter: str, *, power: float = 0.8, null: float = 0.0, level: float = 0.05
    ) -> int:
        r"""Number of individuals with which the test of :meth:`power` has a given power.

        Args:
            parameter: Its name, as in the table.
            power: Wanted power.
            null: The value without an effect.
            level: Two-sided level of the test.

        Raises:
            SettingError: There is no such parameter, or its value is the null value.
        """
        check_number("level", level, 0, 1, with_low=False, with_high=False)
        check_number("power", power, level, 1, with_low=False, with_high=False)
        effect, error = self._effect(parameter, null)
        if effect == 0:
            raise SettingError(
                f"{parameter!r} has the null value {null:g}.",
                "a value that differs from it: the power is for this value.",
                "give the effect another value in the estimates.",
            )
        wanted = scipy.special.ndtri(1 - level / 2) + scipy.special.ndtri(power)
        needed = math.ceil(self.num_individuals * float(wanted * error / effect) ** 2)
        return max(1, needed)

    def _effect(self, parameter: str, null: float) -> tuple[float, float]:
        """Absolute difference of a parameter from a value, and its expected standard error."""
        table = self.table
        row = table[table["parameter"] == parameter]
        if len(row) != 1 or not math.isfinite(float(row["standard_error"].iloc[0])):
            known = table["parameter"][table["standard_error"] > 0].tolist()
            raise SettingError(
                f"The parameter {parameter!r} has no expected standard error.",
                f"one of {known}.",
                "correct the name; the design may not determine this parameter.",
            )
        value, error = float(row["value"].iloc[0]), float(row["standard_error"].iloc[0])
        return abs(value - null), error

    def _rows(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = [("parameter", "value", "SE", "MC error", "RSE %")]
        for row in self.table.to_dict("records"):
            numbers = (row["value"], row["standard_error"], row["monte_carlo_error"])
            rows.append(
                (str(row["parameter"]), *(f"{x:.4g}" for x in numbers), f"{row['rse']:.1f}")
            )
        return rows


def _errors(jacobian: Tensor, covariances: Tensor, free: Tensor) -> Tensor:
    """Standard errors of values by the delta method, shape ``(covariance, value)``; NaN where a
    value depends on a parameter that is not determined, 0 for fixed parameters.
    """
    jacobian = torch.where(free, jacobian, 0.0)
    unknown = covariances[0].diagonal().isnan() & free
    variances = torch.einsum("vp,rpq,vq->rv", jacobian, covariances.nan_to_num(0.0), jacobian)
    is_unknown = (jacobian[:, unknown] != 0).any(1)
    return variances.clamp(min=0).sqrt().masked_fill(is_unknown, torch.nan)


@dataclass(frozen=True, eq=False)
class DesignEvaluation(Mapping[str, ExpectedErrors]):
    r"""Expected errors of several designs. Made by :func:`evaluate_designs`.

    A mapping from the name of a design to its
    :class:`~pyro_amortized.applications.design_result.ExpectedErrors`.

    Args:
        designs: The designs by name.
    """

    designs: Mapping[str, ExpectedErrors]

    def __getitem__(self, name: str) -> ExpectedErrors:
        return self.designs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.designs)

    def __len__(self) -> int:
        return len(self.designs)

    def __repr__(self) -> str:
        if len(self) == 1:
            return repr(next(iter(self.designs.values())))
        rows: list[tuple[str, ...]] = [("RSE %", *self.designs)]
        table = self.table()
        for parameter in dict.fromkeys(table["parameter"]):
            part = table[table["parameter"] == parameter]
            rows.append((str(parameter), *(f"{x:.1f}" for x in part["rse"])))
        rows.append(("efficiency", *(f"{x:.2f}" for x in self.efficiency().values())))
        rows.append(("individuals", *(str(x.num_individuals) for x in self.designs.values())))
        return text_table(rows)

    def efficiency(self) -> dict[str, float]:
        """Efficiency of each design relative to the first, per individual: with half of it, twice
        as many individuals are needed (D-optimality).
        """
        per_individual = {n: x.criterion / x.num_individuals for n, x in self.designs.items()}
        first = next(iter(per_individual.values()))
        return {n: x / first for n, x in per_individual.items()}

    def table(self, numbers: Sequence[int] | None = None) -> pd.DataFrame:
        r"""Expected errors of every design and, if wanted, of several numbers of individuals.

        Args:
            numbers: Numbers of individuals. Default: that of each design.

        Returns:
            Columns ``design, individuals, parameter, value, standard_error, monte_carlo_error,
            rse``.
        """
        parts = []
        for name, errors in self.designs.items():
            for num in numbers or [errors.num_individuals]:
                part = errors.with_individuals(num).table
                parts.append(part.assign(design=name, individuals=num))
        table = pd.concat(parts, ignore_index=True)
        first = ["design", "individuals"]
        return table[first + [c for c in table if c not in first]]
