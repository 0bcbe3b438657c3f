r"""The result of a simulation: predictions, observations and exposures by regimen."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from torch import Tensor

from ..errors import SettingError
from ..runtime.arguments import check_number
from ..runtime.text_table import html_rows, text_table
from .exposure import Exposure

TABLE_LEVELS = (0.05, 0.5, 0.95)  # quantiles over the individuals in tables
POPULATION_LEVELS = (0.05, 0.95)  # of the median, over the populations


@dataclass(frozen=True, eq=False)
class Simulation:
    r"""Simulated individuals under one or several regimens. Made by :func:`simulate`.

    Args:
        regimens: Name of each regimen.
        quantity: Name of the series, or of the deterministic site, that was predicted.
        ids: Labels of the individuals.
        times: Times, counted from the begin of the regimens, shape ``(time,)``.
        prediction: Without residual error, by regimen, shape ``(draw, individual, time)``.
        observation: With residual error, or None where the quantity is not observed.
        exposures: By metric and regimen, shape ``(draw, individual)``.
        exposure: Windows and threshold of the metrics.
        amounts: Amount of every dose by regimen, shape ``(draw, individual, dose)``, of adaptive
            regimens; ``(1, individual, dose)`` of others.
        uncertainty: What varies: ``"population and individuals"``, ``"individuals"`` or ``"none"``.
        seen: Whether the individuals are seen ones: draws are then posterior draws of each.
        num_failed: Number of individuals of any draw whose prediction is not finite.
    """

    regimens: tuple[str, ...]
    quantity: str
    ids: tuple[str, ...]
    times: Tensor
    prediction: Mapping[str, Tensor]
    observation: Mapping[str, Tensor] | None
    exposures: Mapping[str, Mapping[str, Tensor]]
    exposure: Exposure
    amounts: Mapping[str, Tensor]
    uncertainty: str
    seen: bool
    num_failed: int = 0

    def __repr__(self) -> str:
        return f"Simulation of {self.title}\n\n{text_table(self._rows())}"

    def _repr_html_(self) -> str:
        """The exposures as a table, for notebooks."""
        return html_rows(f"Simulation of {self.title}", self._rows())

    @property
    def num_draws(self) -> int:
        """Number of populations, or of posterior draws of each seen individual."""
        return len(next(iter(self.prediction.values())))

    @property
    def title(self) -> str:
        """What was simulated, in one line."""
        who = "individuals that were seen" if self.seen else "new individuals"
        draws = f" x {self.num_draws} draws" if self.num_draws > 1 else ""
        failed = f"; {self.num_failed} predictions are not finite" if self.num_failed else ""
        return (
            f"{self.quantity}: {len(self.ids)} {who}{draws} x {len(self.regimens)} regimens, "
            f"uncertainty: {self.uncertainty}{failed}"
        )

    @cached_property
    def table(self) -> pd.DataFrame:
        """Exposures by regimen, with columns ``regimen, metric, p5, median, p95``, over all
        individuals and draws; with several populations also ``median_low`` and ``median_high``, the
        central 90 % of the median over the populations.
        """
        rows = []
        for regimen in self.regimens:
            for metric, values in self.exposures.items():
                x = values[regimen].numpy()
                row = dict(zip(("p5", "median", "p95"), _quantiles(x.ravel(), 0), strict=True))
                if not self.seen and len(x) > 1:
                    medians = _quantiles(x, 1, (0.5,))[0]
                    low, high = _quantiles(medians, 0, POPULATION_LEVELS)
                    row |= {"median_low": low, "median_high": high}
                rows.append({"regimen": regimen, "metric": metric} | row)
        return pd.DataFrame(rows)

    def exposure_table(self) -> pd.DataFrame:
        """Every exposure, with columns ``regimen, draw, individual`` and one per metric."""
        return pd.concat(
            [
                self._frame({m: x[name] for m, x in self.exposures.items()}, name)
                for name in self.regimens
            ],
            ignore_index=True,
        )

    def to_dataframe(self) -> pd.DataFrame:
        """All values as a tidy table with columns ``regimen, draw, individual, time, prediction``
        and, where the quantity is observed, ``observation``.
        """
        parts = []
        for name in self.regimens:
            columns = {"prediction": self.prediction[name]}
            if self.observation is not None:
                columns["observation"] = self.observation[name]
            parts.append(self._frame(columns, name, self.times.numpy()))
        return pd.concat(parts, ignore_index=True)

    def bands(
        self, level: float = 0.9, *, residual_error: bool | None = None, by_individual: bool = False
    ) -> pd.DataFrame:
        r"""Median and central bands over time.

        Args:
            level: Probability of the band.
            residual_error: Of observations (True) or of predictions. Default: of observations where
                the quantity is observed.
            by_individual: One band for each individual, over its draws.

        Returns:
            Columns ``regimen, time, low, median, high``, and ``individual`` with
            ``by_individual``.

        Raises:
            SettingError: The level is not between 0 and 1, or the quantity is not observed.
        """
        check_number("level", level, 0, 1, with_low=False, with_high=False)
        if residual_error and self.observation is None:
            raise SettingError(
                f"{self.quantity!r} is not observed, so it has no residual error.",
                "a series of the model.",
                "pass `residual_error=False`.",
            )
        noisy = self.observation is not None if residual_error is None else residual_error
        values = self.observation if noisy and self.observation is not None else self.prediction
        levels, times = ((1 - level) / 2, 0.5, (1 + level) / 2), self.times.numpy()
        parts = []
        for name in self.regimens:
            x = values[name].numpy()
            groups = enumerate(self.ids) if by_individual else [(None, None)]
            for i, label in groups:
                y = x.reshape(-1, x.shape[-1]) if i is None else x[:, i]
                low, middle, high = _quantiles(y, 0, levels)
                columns = {"regimen": name} | ({} if i is None else {"individual": label})
                frame = {"time": times, "low": low, "median": middle, "high": high}
                parts.append(pd.DataFrame(columns | frame))
        return pd.concat(parts, ignore_index=True)

    def probability(
        self, metric: str, low: float | None = None, high: float | None = None
    ) -> pd.DataFrame:
        r"""Share of the individuals whose exposure lies in a range, by regimen.

        Args:
            metric: A metric of the exposures.
            low: Lower end of the range. Default: none.
            high: Upper end. Default: none.

        Returns:
            Columns ``regimen, probability, low, high``: the share over all individuals and draws,
            and its central 90 % over the draws.

        Raises:
            SettingError: There is no such metric, or no end.
        """
        if metric not in self.exposures or (low is None and high is None):
            raise SettingError(
                f"`metric` is {metric!r}, `low` {low}, `high` {high}.",
                f"a metric among {list(self.exposures)}, and at least one end of the range.",
                "correct the arguments; `time_above` needs `Exposure(above=...)`.",
            )
        rows = []
        for name in self.regimens:
            x = self.exposures[metric][name].numpy()
            inside = (x >= (-np.inf if low is None else low)) & (
                x <= (np.inf if high is None else high)
            )
            known = np.isfinite(x)
            of_draw = inside.sum(1) / np.where(known.any(1), known.sum(1), np.nan)
            by_draw = _quantiles(of_draw, 0, POPULATION_LEVELS)
            share = inside.sum() / known.sum() if known.any() else np.nan
            row = {"probability": share, "low": by_draw[0], "high": by_draw[1]}
            rows.append({"regimen": name} | row)
        return pd.DataFrame(rows)

    def _frame(
        self, columns: Mapping[str, Tensor], regimen: str, times: np.ndarray | None = None
    ) -> pd.DataFrame:
        """Values of shape ``(draw, individual[, time])`` as rows."""
        draws, num = next(iter(columns.values())).shape[:2]
        width = 1 if times is None else len(times)
        frame = {
            "regimen": np.repeat(np.array([regimen], dtype=object), draws * num * width),
            "draw": np.repeat(np.arange(draws), num * width),
            "individual": np.tile(np.repeat(np.array(self.ids, dtype=object), width), draws),
        }
        if times is not None:
            frame["time"] = np.tile(times, draws * num)
        return pd.DataFrame(frame | {n: x.numpy().ravel() for n, x in columns.items()})

    def _rows(self) -> list[tuple[str, ...]]:
        table = self.table
        heading = ("regimen", "metric", "5 %", "median", "95 %")
        has_interval = "median_low" in table
        rows = [heading + (("90 % of the median",) if has_interval else ())]
        for row in table.to_dict("records"):
            cells = [str(row["regimen"]), str(row["metric"])]
            cells += [f"{row[x]:.4g}" for x in ("p5", "median", "p95")]
            if has_interval:
                cells.append(f"{row['median_low']:.4g} to {row['median_high']:.4g}")
            rows.append(tuple(cells))
        return rows


def _quantiles(
    values: np.ndarray, axis: int, levels: tuple[float, ...] = TABLE_LEVELS
) -> np.ndarray:
    """Quantiles of the finite values: the quick way where all are finite."""
    if np.isfinite(values).all():
        result: np.ndarray = np.quantile(values, levels, axis=axis)
        return result
    finite = np.where(np.isfinite(values), values, np.nan)
    with warnings.catch_warnings():  # numpy warns where no value is finite; the result is NaN
        warnings.simplefilter("ignore", RuntimeWarning)
        quantiles: np.ndarray = np.nanquantile(finite, levels, axis=axis)
    return quantiles
