r"""Source of compiled solvers with one loop per individual, which has its own steps and events.

Every individual has a sorted list of events (doses, starts and ends of infusions, resets, changes
of parameters) and its observation times. A step ends at the next event, where the state jumps. The
states at observation times are interpolated within the step. The source is Python over scalars,
which numba compiles. Systems of few states are written out, larger ones loop over arrays.

Explicit: the pairs of order 5(4) of Tsitouras with its free interpolant and a PI controller.
Implicit: Rodas4, an L-stable Rosenbrock method of order 4(3) with a dense output of order 3; the
Jacobian comes from symbolic differentiation.

References:
    Tsitouras (2011), Runge-Kutta pairs of order 5(4) satisfying only the first column simplifying
    assumption; Hairer and Wanner (1996), Solving Ordinary Differential Equations II, IV.2
    (stiffness test), IV.7 and IV.10 (Rodas).
"""

import textwrap

from .codes import SolverStatus
from .statement_writer import MAXIMUM, SCALE, Writer
from .step_control import (
    after_acceptance,
    after_not_finite,
    after_rejection,
    choose_step,
    detect_stiffness,
    first_step,
    growth,
    is_too_small,
)
from .tableaus import DENSE, ERROR, A, C
from .tracing import Traced

PREVIOUS_ERROR = 0.04  # exponent of the error of the step before, in half logarithms

# The loop over individuals, into which the parts of a solver are filled.
_SHELL = """
import math
import numba
import numpy as np

{functions}

@numba.njit(nogil=True, error_model="numpy", cache=True, fastmath={{"contract", "arcp", "nsz"}})
def kernel(start, initial, params, ev_time, ev_kind, ev_where, ev_size, vectors, obs, rtol, atol,
           max_steps, detect, out, status, steps, low, high):
    num_events, num_times = ev_time.shape[1], obs.shape[1]
{allocate}
    for i in range(low, high):
        t = start
{begin}
        e = 0
        o = 0
        count = 0
        code = 0
        fresh = False
        h = 0.0
        last = -9.0
        stiff = 0
        calm = 0
        while True:
            due = ev_time[i, e] if e < num_events else math.inf
            while o < num_times and obs[i, o] <= t and obs[i, o] < due:
{record}
                o += 1
            if o >= num_times:
                break
            if due <= t:
                kind = ev_kind[i, e]
                at = ev_where[i, e]
                size = ev_size[i, e]
{events}
                e += 1
                fresh = False
                continue
            stop = min(due, obs[i, num_times - 1])
            if count >= max_steps:
                code = {TOO_MANY_STEPS}
                break
            count += 1
            if not fresh:
{slope}
                fresh = True
                if h == 0.0:
{first}
{choose}
            if {too_small}:
                code = {STEP_TOO_SMALL}
                break
{stages}
            if not (err < 1e300):
{broken}
                if code != 0:
                    break
                continue
            size = 0.5 * math.log(err) if err > 1e-16 else -18.0
            if err > 1.0:
                {reject}
                continue
            {grow}
            last = max(size, -9.0)
            ahead = stop if hits else t + step
{detect}
            while o < num_times and obs[i, o] <= ahead and obs[i, o] < due:
                w = (obs[i, o] - t) / step
{dense}
                o += 1
            t = ahead
{accept}
{resize}
        steps[i] = count
        status[i] = code
        if code != 0:
            for j in range(num_times):
                for s in range({size}):
                    out[i, j, s] = math.nan
"""


def fill(functions: list[str], size: int, **parts: str) -> str:
    """Source of a kernel from its parts, each with its indentation."""
    depth = {
        "allocate": 1,
        "begin": 2,
        "record": 4,
        "events": 4,
        "slope": 4,
        "first": 5,
        "stages": 3,
        "detect": 3,
        "dense": 4,
        "accept": 3,
        "choose": 3,
        "broken": 4,
        "resize": 3,
    }
    power = f"math.exp({parts['order']} * size)"
    controlled = f"math.exp({parts['order']} * size - {PREVIOUS_ERROR} * last)"
    parts |= {
        "choose": "\n".join(choose_step("h", "hits", "stop")),
        "broken": "\n".join(after_not_finite("h", "hits", "stop")),
        "resize": "\n".join(after_acceptance("h", "hits")),
    }
    return _SHELL.format(
        functions="\n\n".join(functions),
        size=size,
        too_small=is_too_small("hits", "stop"),
        reject=after_rejection("h", power),
        grow=growth(controlled),
        STEP_TOO_SMALL=int(SolverStatus.STEP_TOO_SMALL),
        TOO_MANY_STEPS=int(SolverStatus.TOO_MANY_STEPS),
        **{n: textwrap.indent(parts[n], "    " * d) for n, d in depth.items()},
    )


def write_first_step(writer: Writer, exponent: float) -> str:
    """Source of the size of the first step."""
    change = writer.total("c", "(k1# / (atol + rtol * abs(x#) + rtol * abs(h * k1#))) ** 2")
    return "\n".join(
        first_step(
            [writer.total("a", "(x# / (atol + rtol * abs(x#))) ** 2")],
            [writer.total("b", "(k1# / (atol + rtol * abs(x#))) ** 2")],
            [change, f"c /= {writer.size}"],
            "(stop - t)",
            exponent,
        )
    )


def explicit_source(traced: Traced) -> str:
    """Source of the explicit solver of a system."""
    w = Writer(traced)
    w.array("k1", "k2", "k3", "k4", "k5", "k6", "k7", "y", "g")
    stages = _stages(w)
    counted = detect_stiffness("above", "below", "stiff", "calm")
    detect = [
        "if detect:",
        textwrap.indent(w.total("above", "(k7# - k6#) ** 2"), "    "),
        textwrap.indent(w.total("below", "(y# - g#) ** 2"), "    "),
        textwrap.indent("\n".join(counted), "    "),
        "    if code != 0:",
        "        break",
    ]
    weights = [
        f"b{m + 1} = w * w * ({p!r} + w * ({q!r} + w * {r!r}))" for m, (p, q, r) in enumerate(DENSE)
    ]
    weights[0] += " + w"
    dense = " + ".join(f"b{m} * k{m}#" for m in range(1, 8))
    return fill(
        [w.function(w.slopes)],
        w.size,
        allocate=w.allocate(),
        begin=w.begin(),
        record=w.each("out[i, o, @] = x#"),
        events=w.events(),
        slope=w.slope("k1", "t", "x"),
        first=write_first_step(w, 0.2),
        stages="\n".join(stages),
        detect="\n".join(detect),
        dense="\n".join([*weights, w.each(f"out[i, o, @] = x# + step * ({dense})")]),
        accept=w.each("x# = y#", "k1# = k7#", MAXIMUM),
        order="0.17",
    )


def _stages(w: Writer) -> list[str]:
    """Source of one step: the stages, the new state and its error."""
    stages = []
    for j, row in enumerate(A):
        terms = " + ".join(f"{a!r} * k{m + 1}#" for m, a in enumerate(row))
        target = "g" if j == 4 else "y"
        stages.append(w.each(f"{target}# = x# + step * ({terms})"))
        stages.append(w.slope(f"k{j + 2}", f"t + {C[j]!r} * step", target))
    difference = " + ".join(f"{b!r} * k{m + 1}#" for m, b in enumerate(ERROR))
    stages.append(w.total("err", f"(step * ({difference}) / {SCALE}) ** 2"))
    return [*stages, f"err *= {1 / w.size!r}"]
