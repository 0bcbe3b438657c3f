r"""Times of events, with censoring: deaths, relapses, discontinuations.

A series of events has two channels, the time and the status. Status 1 is an event at this time;
status 0 says that no (further) event had happened by this time. With the hazard h, the cumulative
hazard H, and observation from a to c,

.. math:: \log p = \sum_j \log h(t_j) - \big(H(c) - H(a)\big)

for events that are recorded exactly, and :math:`\log(e^{-H(l)} - e^{-H(t)})` for an event that a
visit at t has found and the visit before, at l, has not. With several columns the events of an
individual recur, with a hazard that depends on the time since the begin (an inhomogeneous Poisson
process), or since the event before (a renewal process: gap times), where H is taken over each gap.
"""

import copy
from collections.abc import Sequence

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from ...cohort import Series
from ...errors import ModelError
from ...runtime.arguments import check_is
from .event_arguments import EVENTS, Clock, check_clock, finite_visits, of_each
from .hazards import Hazard


class EventTimes(TorchDistribution):  # type: ignore[misc]
    r"""Distribution of the times of events of every individual.

    Batch shape ``(individual,)``, event shape ``(event, 2)``: it needs neither ``.mask`` nor
    ``.to_event``, because the series says what was recorded::

        death = cohort["death"]
        hazard = nlme.weibull_hazard(scale, shape)
        pyro.sample("death", nlme.EventTimes(hazard, death), obs=death.values)

    Args:
        hazard: The hazard of the event.
        record: The series of the events, from ``nlme.event_series``. Its times are the ends of the
            planned follow-up, and simulated events end there.
        begin: Time at which an individual enters, event-free (left truncation), shape
            ``(individual,)`` or a number, unit of time. No recorded time lies before it. Default:
            0.
        end: End of the follow-up in simulations, shape ``(individual,)`` or a number, for instance
            another event that ends it. Default: the times of the series.
        visits: Times at which an event can be found (interval censoring), a series of the cohort's
            ``time_varying`` or a tensor ``(individual, visit)``. Individuals whose visits are all
            not recorded, or not finite, have exact times. The event of the others is at one of
            their visits. Default: exact times.
        clock: What the hazard of events that recur is a function of: ``"forward"``, the time since
            the begin, or ``"reset"``, the time since the event before, or since 0 for the first
            one (gap times).

    Raises:
        ModelError: The series has no two channels, there are visits and several events, or a shape
            does not agree with the series.

    Example:
        >>> from pyro_amortized import nlme
        >>> record = nlme.event_series(torch.tensor([2.0, 5.0]), torch.tensor([True, False]))
        >>> hazard = nlme.exponential_hazard(torch.tensor(0.5))
        >>> nlme.EventTimes(hazard, record).log_prob(record.values)
        tensor([-1.6931, -2.5000])
    """

    is_event = True  # figures and residuals of events, not those of concentrations
    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012  (torch's own form)
    support = constraints.independent(constraints.real, 2)

    def __init__(
        self,
        hazard: Hazard,
        record: Series,
        *,
        begin: Tensor | float | None = None,
        end: Tensor | float | None = None,
        visits: Series | Tensor | None = None,
        clock: Clock = "forward",
    ) -> None:
        fix = "pass a hazard, for instance `nlme.weibull_hazard(scale, shape)`."
        check_is("hazard", hazard, Hazard, fix, ModelError)
        fix = 'pass the series of the events, `cohort["death"]`.'
        check_is("record", record, Series, fix, ModelError)
        shape = record.values.shape
        if record.values.dim() != 3 or shape[-1] != 2:
            raise ModelError(
                f"The series of events has values of shape {tuple(shape)}.",
                "(individual, event, 2): time and status.",
                "make it by `nlme.event_series(times, happened)`, or of a series of a table by "
                "`nlme.with_events(cohort, name)`.",
            )
        if visits is not None and shape[1] > 1:
            raise ModelError(
                f"There are visits, and up to {shape[1]} events of an individual.",
                "one event of each individual where visits find it.",
                "count the events between visits, with `dist.Poisson` and the difference of the "
                "cumulative hazard.",
            )
        check_clock(clock)
        self.resets = clock == "reset"
        self.hazard, self.recorded = hazard, record.observed.all(-1)
        dtype = record.values.dtype
        self.begin = None if begin is None else of_each("begin", begin, shape[0], dtype)
        ends = record.times if end is None else of_each("end", end, shape[0], dtype)
        self.ends = ends.expand(shape[:2])
        self.visits = None if visits is None else finite_visits(visits, shape[0])
        super().__init__(shape[:1], shape[1:], validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density, shape ``(*, individual)``; values that were not recorded do not count.

        It is minus infinity for a time before the begin, and NaN where the cumulative hazard falls,
        which no hazard does.
        """
        known = self.recorded
        # Times are data: no gradient goes through them, which an ODE solver would not have.
        times, status = value.detach().unbind(-1)
        start = self._start(times)
        happened = known & (status > 0.5)
        times = torch.where(known, times, start).cummax(-1).values
        points = [] if self.begin is None else [start]
        if self.visits is not None:
            points.append(torch.maximum(self._visit_before(times), start))
        num = times.shape[-1]
        if num > 1 and self.resets:
            log_hazard, total = self._over_gaps(times)
            cumulative = torch.stack([self._entered(start), total], -1)
        elif num > 1 and self.hazard.rate is not None:  # the integral between events is not needed
            log_hazard, cumulative = self.hazard.rate(times), self._cumulative(points, times)
        else:
            log_hazard, cumulative = self.hazard(torch.cat([*points, times], -1))
        total, entered = cumulative[..., -1], 0.0 if self.begin is None else cumulative[..., 0]
        rate = torch.where(happened, log_hazard[..., -num:], 0.0).sum(-1)
        exact = rate - (total - entered)
        falls = total - entered < -EVENTS.fall_tolerance * (1 + total.abs())
        exact = torch.where(falls, torch.nan, exact)
        if self.begin is not None:
            exact = torch.where((times < start).any(-1), -torch.inf, exact)
        if self.visits is None:
            return exact
        before = cumulative[..., -2]
        gap = (total - before).clamp(min=EVENTS.smallest_gap)
        found = torch.log(-torch.expm1(-gap)) - (before - entered)
        by_visit = self.visits.isfinite().any(-1) & happened[..., 0] & (exact > -torch.inf)
        return torch.where(by_visit, found, exact)

    def _start(self, times: Tensor) -> Tensor:
        """Time from which an individual is observed, shape ``(*, individual, 1)``."""
        start = torch.zeros_like(times[..., :1]) if self.begin is None else self.begin
        return start.expand(*times.shape[:-1], 1)

    def _over_gaps(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """Log hazard at each time since the event before it, shape of ``times``, and the sum of the
        cumulative hazards of the gaps.
        """
        before = torch.cat([torch.zeros_like(times[..., :1]), times[..., :-1]], -1)
        gaps, order = (times - before).sort(-1)  # times of a hazard do not decrease
        log_hazard, cumulative = self.hazard(gaps)
        return log_hazard.gather(-1, order.argsort(-1)), cumulative.sum(-1)

    def _singular(self, times: Tensor) -> Tensor:
        """Where the hazard is zero or infinite, shape of ``times``."""
        first = torch.zeros_like(times[..., :1])
        every = torch.cat([first, times], -1).cummax(-1).values
        zero = every.diff(dim=-1) <= 0 if self.resets else every[..., 1:] <= 0
        if not bool(zero.any()):
            return zero
        return zero & (self.hazard(first)[0].abs() > EVENTS.largest_log)

    def _entered(self, start: Tensor) -> Tensor:
        """Cumulative hazard at the begin, shape ``(*, individual)``."""
        return self.hazard(start)[1][..., 0]

    def _cumulative(self, points: list[Tensor], times: Tensor) -> Tensor:
        return self.hazard(torch.cat([*points, times[..., -1:]], -1))[1]

    def quadrature_error(self, value: Tensor) -> Tensor | None:
        """By how much twice the nodes of the integrals change the log density, shape ``(*,
        individual)``; None for a hazard that is not integrated by quadrature.
        """
        if self.hazard.finer is None:
            return None
        other = copy.copy(self)
        other.hazard = self.hazard.finer
        return (other.log_prob(value) - self.log_prob(value)).abs()

    def impossible(self, value: Tensor) -> dict[str, Tensor]:
        r"""What no draw could be among recorded values: a mask of shape ``(individual, event)`` for
        each fault, described in words.
        """
        times, status = value.detach().unbind(-1)
        known = self.recorded
        happened = known & (status > 0.5)
        faults = {
            "are events whose status is neither 0 nor 1": known & (status != 0) & (status != 1)
        }
        if self.visits is None:
            faults[
                "are events at a time, since the begin or the event before, at which the hazard is "
                "zero or infinite (time 0, which is recorded as half of the unit of time, or as an "
                "interval)"
            ] = happened & self._singular(torch.where(known, times, 0.0))
        if self.begin is not None:
            late = torch.where(self.begin.isfinite(), times < self.begin, True)
            faults["are events before the `begin` of their individual, or it is no time"] = (
                known & late
            )
        if self.visits is not None:
            gap = (self.visits.unsqueeze(-2) - times.unsqueeze(-1)).abs().amin(-1)
            by_visit = self.visits.isfinite().any(-1, keepdim=True)
            far = gap > EVENTS.visit_tolerance * times.abs().clamp(min=1.0)
            faults["are events at a time that is none of the `visits` of their individual"] = (
                happened & by_visit & far
            )
        return faults

    def first_event(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Cumulative hazards since the begin between which the first event lies, shape ``(*,
        individual)`` each: equal for an exact time, the second one infinite where there is no
        event.
        """
        times, status = (x[..., :1] for x in value.detach().unbind(-1))
        start = self._start(times)
        before = start if self.visits is None else torch.maximum(self._visit_before(times), start)
        cumulative = self.hazard(torch.cat([start, before, times], -1))[1]
        _, lower, upper = (cumulative - cumulative[..., :1]).unbind(-1)
        happened = status[..., 0] > 0.5
        by_visit = torch.zeros_like(happened)
        if self.visits is not None:
            by_visit = self.visits.isfinite().any(-1) & happened
        return torch.where(by_visit, lower, upper), torch.where(happened, upper, torch.inf)

    def total_hazard(self, value: Tensor) -> Tensor:
        """Cumulative hazard over the recorded follow-up, shape ``(*, individual)``."""
        times = value.detach()[..., 0]
        start = self._start(times)
        if times.shape[-1] > 1 and self.resets:
            every = torch.where(self.recorded, times, start).cummax(-1).values
            return self._over_gaps(every)[1] - self._entered(start)
        last = torch.where(self.recorded, times, start).amax(-1, keepdim=True)
        cumulative = self.hazard(torch.cat([start, torch.maximum(last, start)], -1))[1]
        return cumulative[..., -1] - cumulative[..., 0]

    def survival(self, times: Tensor) -> Tensor:
        """Probability of no event until each time for an individual without one at the begin.

        Args:
            times: Times that do not decrease, shape ``(individual, time)``.
        """
        start = self._start(times)
        places = torch.cat([start, torch.maximum(times, start)], -1)
        cumulative = self.hazard(places)[1]
        return torch.exp(cumulative[..., :1] - cumulative[..., 1:])

    def _visit_before(self, times: Tensor) -> Tensor:
        """The last visit before each time, or the begin."""
        assert self.visits is not None
        # A visit that is the time up to rounding has found the event; it is not the one before.
        margin = EVENTS.visit_tolerance * times.abs().clamp(min=1.0)
        earlier = self.visits.unsqueeze(-2) < (times - margin).unsqueeze(-1)
        begin = 0.0 if self.begin is None else self.begin.unsqueeze(-1)
        return torch.where(earlier, self.visits.unsqueeze(-2), begin).amax(-1)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws, shape ``(*sample_shape, individual, event, 2)``, by inversion of the cumulative
        hazard.
        """
        if sample_shape:
            num = torch.Size(sample_shape).numel()
            draws = torch.stack([self.sample() for _ in range(num)])
            return draws.reshape(*sample_shape, *draws.shape[1:])
        with torch.no_grad():
            uniform = torch.rand(self.ends.shape, dtype=self.ends.dtype, device=self.ends.device)
            target = -torch.log1p(-uniform)
            if not self.resets:
                target = target.cumsum(-1)
            if self.begin is not None:
                entered = self.hazard(self.begin)[1]
                first = torch.arange(target.shape[-1]) == 0
                target = target + torch.where(first | (not self.resets), entered, 0.0)
            times = self._times_of(target)
            if self.resets:
                times = times.cumsum(-1)
            return self._recorded_as(times)

    def _recorded_as(self, times: Tensor) -> Tensor:
        """Times of events, infinite where there is none, as they are recorded."""
        ends = self.ends
        happened = times <= ends
        values = torch.where(happened, times, ends)
        if self.visits is None:
            return torch.stack([values, happened.to(values.dtype)], -1)
        # The last visit of the follow-up is the end, and the first visit not before an event finds
        # it.
        planned = torch.where(self.visits <= ends, self.visits, torch.inf)
        by_visit = planned.isfinite().any(-1, keepdim=True)
        after = torch.where(planned >= times, planned, torch.inf).amin(-1, keepdim=True)
        last = torch.where(planned.isfinite(), planned, -torch.inf).amax(-1, keepdim=True)
        found = after.isfinite()
        visit = torch.where(found, after, last)
        values = torch.where(by_visit, visit, values)
        happened = torch.where(by_visit, found, happened)
        return torch.stack([values, happened.to(values.dtype)], -1)

    def _times_of(self, target: Tensor) -> Tensor:
        """Times at which the cumulative hazard reaches targets; infinite beyond the end."""
        if self.hazard.inverse is not None:
            return self.hazard.inverse(target)
        shares = torch.linspace(0, 1, EVENTS.num_points, dtype=target.dtype, device=target.device)
        first = None if self.resets else self.begin
        low = (self.ends * 0 if first is None else first).expand(target.shape)
        high = self.ends
        for number in range(EVENTS.num_rounds):
            grid = low.unsqueeze(-1) + (high - low).unsqueeze(-1) * shares
            flat, order = grid.flatten(-2).sort(-1)
            cumulative = self.hazard(flat)[1]
            at_grid = torch.empty_like(flat).scatter(-1, order, cumulative).reshape(grid.shape)
            reached = at_grid >= target.unsqueeze(-1)
            never = ~reached.any(-1)
            right = reached.to(torch.uint8).argmax(-1).clamp(min=1).unsqueeze(-1)
            low, high = grid.gather(-1, right - 1)[..., 0], grid.gather(-1, right)[..., 0]
            below, above = at_grid.gather(-1, right - 1)[..., 0], at_grid.gather(-1, right)[..., 0]
            if number == 0:
                beyond = never
        share = ((target - below) / (above - below)).nan_to_num(1.0).clamp(0.0, 1.0)
        unknown = ~at_grid.isfinite().all(-1)  # a trajectory that cannot be computed
        times = torch.where(unknown, torch.nan, low + share * (high - low))
        return torch.where(beyond, torch.inf, times)

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> "EventTimes":
        """This distribution itself; it cannot be expanded beyond its individuals."""
        assert torch.Size(batch_shape) == self.batch_shape
        return self
