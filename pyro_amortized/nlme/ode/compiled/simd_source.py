r"""The explicit solver for eight individuals at once.

The arithmetic of a step is one straight loop over eight lanes, which the compiler turns into vector
instructions; every lane keeps its own time, step, events and individual, and takes the next
individual as soon as its own is done. What differs between lanes (events, observations, acceptance)
is done lane by lane between the steps.
"""

import textwrap

from .derivatives import hoisted
from .expressions import write
from .tableaus import DENSE, ERROR, A, C
from .tracing import Traced

LANES = 8
MAX_STATEMENTS = 400

_SHELL = """
import math
import numba
import numpy as np

@numba.njit(nogil=True, error_model="numpy", fastmath={{"contract", "arcp", "nsz"}})
def advance(w, rtol, atol):
    for l in range(8):
{advance}

@numba.njit(nogil=True, error_model="numpy", fastmath={{"contract", "arcp", "nsz"}})
def first_slope(w, l, rtol, atol, span):
{slope}
    if h == 0.0:
{first}
    return h

@numba.njit(nogil=True, error_model="numpy")
def load(w, l, params, i, piece):
{load}

@numba.njit(nogil=True, error_model="numpy")
def happen(w, l, kind, at, size, initial, params, vectors, i):
{events}

@numba.njit(nogil=True, error_model="numpy")
def read_off(w, l, out, i, o, share):
    step = w[{step} + l]
{dense}

@numba.njit(nogil=True, error_model="numpy")
def kernel(start, initial, params, ev_time, ev_kind, ev_where, ev_size, vectors, obs, rtol, atol,
           max_steps, detect, out, status, steps, low, high):
    num_events, num_times = ev_time.shape[1], obs.shape[1]
    w = np.zeros({rows} * 8)
    row = np.full(8, -1)
    e = np.zeros(8, np.int64)
    o = np.zeros(8, np.int64)
    count = np.zeros(8, np.int64)
    stiff = np.zeros(8, np.int64)
    calm = np.zeros(8, np.int64)
    waits = np.ones(8, np.bool_)
    fresh = np.zeros(8, np.bool_)
    hits = np.zeros(8, np.bool_)
    h = np.zeros(8)
    last = np.ones(8)
    stop = np.zeros(8)
    due = np.zeros(8)
    following = low
    while True:
        busy = False
        for l in range(8):
            while waits[l]:
                if row[l] < 0:
                    if following >= high:
                        waits[l] = False
                        w[{step} + l] = 0.0
                        break
                    i = following
                    following += 1
                    row[l] = i
                    e[l], o[l], count[l], stiff[l], calm[l] = 0, 0, 0, 0, 0
                    h[l], last[l], fresh[l] = 0.0, 0.75, False
                    w[{time} + l] = start
{begin}
                    load(w, l, params, i, 0)
                i = row[l]
                t = w[{time} + l]
                while True:
                    due[l] = ev_time[i, e[l]] if e[l] < num_events else math.inf
                    while o[l] < num_times and obs[i, o[l]] <= t and obs[i, o[l]] < due[l]:
{record}
                        o[l] += 1
                    if o[l] >= num_times or due[l] > t:
                        break
                    happen(w, l, ev_kind[i, e[l]], ev_where[i, e[l]], ev_size[i, e[l]], initial,
                           params, vectors, i)
                    e[l] += 1
                    fresh[l] = False
                if o[l] >= num_times:
                    status[i] = 0
                    steps[i] = count[l]
                    row[l] = -1
                    continue
                stop[l] = min(due[l], obs[i, num_times - 1])
                if not fresh[l]:
                    w[{size} + l] = h[l]
                    h[l] = first_slope(w, l, rtol, atol, stop[l] - t)
                    fresh[l] = True
                waits[l] = False
                gap = stop[l] - t
                step = min(h[l], gap)
                hits[l] = step >= gap
                if not hits[l] and gap - step < 0.1 * step:
                    step = 0.5 * gap
                w[{step} + l] = step
            busy = busy or row[l] >= 0
        if not busy:
            break
        advance(w, rtol, atol)
        for l in range(8):
            i = row[l]
            if i < 0:
                continue
            err, factor, step, t = w[{err} + l], w[{factor} + l], w[{step} + l], w[{time} + l]
            code = 0
            count[l] += 1
            if not (err < 1e300):
                h[l] = 0.1 * step
                hits[l] = False
                if h[l] < 1e-13 * max(1.0, abs(stop[l] - t)):
                    code = 2
            elif err > 1.0:
                h[l] = step / min(5.0, factor / 0.9)
                hits[l] = False
            else:
                grow = max(0.1, min(5.0, factor / (0.9 * last[l])))
                last[l] = max(w[{small} + l], 0.75)
                ahead = stop[l] if hits[l] else t + step
                if detect:
                    if step * step * w[{above} + l] > 10.5 * w[{below} + l] > 0.0:
                        stiff[l] += 1
                        calm[l] = 0
                        if stiff[l] >= 15:
                            code = 5
                    else:
                        calm[l] += 1
                        if calm[l] >= 6:
                            stiff[l] = 0
                while o[l] < num_times and obs[i, o[l]] <= ahead and obs[i, o[l]] < due[l]:
                    read_off(w, l, out, i, o[l], (obs[i, o[l]] - t) / step)
                    o[l] += 1
                w[{time} + l] = ahead
                t = ahead
{accept}
                if step >= h[l] or not hits[l]:
                    h[l] = step / grow
                else:
                    h[l] = max(h[l], step / grow)
                if hits[l]:
                    waits[l] = True
            if code == 0 and count[l] >= max_steps and o[l] < num_times:
                code = 1
            if code == 0 and not waits[l]:
                gap = stop[l] - t
                step = min(h[l], gap)
                hits[l] = step >= gap
                if not hits[l]:
                    if gap - step < 0.1 * step:
                        step = 0.5 * gap
                    if step <= 1e-14 * max(abs(t), abs(stop[l])):
                        code = 3
                w[{step} + l] = step
            if code != 0:
                status[i] = code
                steps[i] = count[l]
                for j in range(num_times):
                    for s in range({states}):
                        out[i, j, s] = math.nan
                row[l] = -1
                waits[l] = True
"""


class _Work:
    """Rows of the work array, one per quantity, eight lanes each."""

    def __init__(self, traced: Traced) -> None:
        self.size = traced.num_states
        self.num_given = traced.num_parameters
        self.slopes, self.prepared = hoisted(traced.slopes, "p")
        self.parameters = [f"p{j}" for j in range(self.num_given)]
        self.parameters += [f"q{j}" for j in range(len(self.prepared))]
        self.rows: dict[str, int] = {}

    def at(self, name: str) -> str:
        """Entry of a quantity in lane l."""
        return f"w[{self.offset(name)} + l]"

    def offset(self, name: str) -> int:
        """Where the lanes of a quantity begin."""
        return LANES * self.rows.setdefault(name, len(self.rows))

    def each(self, template: str) -> list[str]:
        """A statement for every state, ``#`` its number; ``[name]`` is an entry."""
        return [self.filled(template.replace("#", str(s))) for s in range(self.size)]

    def filled(self, text: str) -> str:
        """Text with ``[name]`` replaced by entries."""
        while "<" in text and ">" in text.split("<", 1)[1]:
            before, rest = text.split("<", 1)
            name, after = rest.split(">", 1)
            text = before + self.at(name) + after
        return text

    def loads(self, names: list[str]) -> list[str]:
        """Scalars of the same names as the quantities."""
        return [f"{name} = {self.at(name)}" for name in names]

    def of_states(self, *letters: str) -> list[str]:
        """Names of per-state quantities."""
        return [f"{letter}_{s}" for letter in letters for s in range(self.size)]

    def slope(self, result: str, t: str, state: str) -> list[str]:
        """Statements of the right-hand side, rates included."""
        lines = [f"t = {t}"] + [f"x{s} = {state}_{s}" for s in range(self.size)]
        lines += write(self.slopes, [f"{result}_{s}" for s in range(self.size)])
        return lines + [f"{result}_{s} = {result}_{s} + r_{s}" for s in range(self.size)]


def lanes_source(traced: Traced) -> str | None:
    """Source of the explicit solver over lanes, or None for a system too large for it."""
    w = _Work(traced)
    advance = _step(w)
    if len(advance) > MAX_STATEMENTS:
        return None
    slope = w.loads(["time", *w.parameters, *w.of_states("z", "r")]) + w.slope("k", "time", "z")
    slope += [*w.each("<k1_#> = k_#"), f"h = {w.at('size')}"]
    maximum = w.each("<m_#> = max(<m_#>, abs(<z_#>))")
    # The interpolant as a polynomial: its coefficients are made with the step, for all lanes.
    course = "<k1_#> + share * (<c2_#> + share * (<c3_#> + share * <c4_#>))"
    dense = w.each(f"out[i, o, #] = <z_#> + step * share * ({course})")
    load = [f"p{j} = params[i, piece, {j}]" for j in range(w.num_given)]
    load += write(w.prepared, [f"q{j}" for j in range(len(w.prepared))])
    load += [f"{w.at(name)} = {name}" for name in w.parameters] or ["pass"]
    begin = [
        *w.each("<z_#> = initial[i, #]"),
        *w.each("<r_#> = 0.0"),
        *w.each("<m_#> = abs(<z_#>)"),
    ]
    parts = {
        "advance": (2, advance),
        "slope": (1, slope),
        "first": (2, _first_step(w)),
        "load": (1, load),
        "events": (1, _events(w, maximum)),
        "dense": (1, dense),
        "begin": (5, begin),
        "record": (6, w.each("out[i, o[l], #] = <z_#>")),
        "accept": (4, [*w.each("<z_#> = <y_#>"), *w.each("<k1_#> = <k7_#>"), *maximum]),
    }
    text = {n: textwrap.indent("\n".join(lines), "    " * d) for n, (d, lines) in parts.items()}
    names = ("time", "step", "size", "err", "factor", "small", "above", "below")
    places = {name: w.offset(name) for name in names}
    return _SHELL.format(**text, **places, rows=len(w.rows), states=w.size)


def _step(w: _Work) -> list[str]:
    """One step of all lanes: stages, error and its powers."""
    known = ["time", "step", *w.parameters, *w.of_states("z", "k1", "r", "m")]
    lines = w.loads(known)
    for j, row in enumerate(A):
        target = "g" if j == 4 else "y"
        terms = " + ".join(f"{a!r} * k{m + 1}_#" for m, a in enumerate(row))
        lines += w.each(f"{target}_# = z_# + step * ({terms})")
        lines += w.slope(f"k{j + 2}", f"time + {C[j]!r} * step", target)
    wrong = " + ".join(f"{b!r} * k{m + 1}_#" for m, b in enumerate(ERROR))
    scale = "(atol + rtol * max(max(abs(z_#), abs(y_#)), 0.01 * m_#))"
    lines += w.each(f"d_# = step * ({wrong}) / {scale}")
    states = range(w.size)
    squares = " + ".join(f"d_{s} * d_{s}" for s in states)
    lines.append(f"e1 = math.sqrt(({squares}) * {1 / w.size!r})")
    lines += [f"e{2 ** (j + 1)} = math.sqrt(e{2**j})" for j in range(5)]
    lines.append("above = " + " + ".join(f"(k7_{s} - k6_{s}) * (k7_{s} - k6_{s})" for s in states))
    lines.append("below = " + " + ".join(f"(y_{s} - g_{s}) * (y_{s} - g_{s})" for s in states))
    for power in range(3):
        terms = " + ".join(f"{row[power]!r} * k{m + 1}_#" for m, row in enumerate(DENSE))
        lines += w.each(f"c{power + 2}_# = {terms}")
    kept = w.of_states("y", "k7", "c2", "c3", "c4")
    lines += [f"{w.at(name)} = {name}" for name in kept]
    # err^(3/16), and err^(1/32) of the step before: a PI controller of order 5.
    lines += [f"{w.at('err')} = e1", f"{w.at('factor')} = e8 * e16", f"{w.at('small')} = e32"]
    return [*lines, f"{w.at('above')} = above", f"{w.at('below')} = below"]


def _first_step(w: _Work) -> list[str]:
    """Size of the first step, from the sizes of the state and its slope (Hairer et al., II.4)."""
    states = range(w.size)
    scale = [f"(atol + rtol * abs(z_{s}))" for s in states]
    return [
        "a = " + " + ".join(f"(z_{s} / {scale[s]}) ** 2" for s in states),
        "b = " + " + ".join(f"(k_{s} / {scale[s]}) ** 2" for s in states),
        "h = 0.01 * math.sqrt(a / b) if a > 1e-10 and b > 1e-10 else 1e-6",
        "c = "
        + " + ".join(
            f"(k_{s} / (atol + rtol * (abs(z_{s}) + h * abs(k_{s})))) ** 2" for s in states
        ),
        f"h = max(h, min(0.1 * span, (0.01 / math.sqrt(max(c, 1e-30) / {w.size})) ** 0.2))",
        "if not (h < 1e300):",
        "    h = 1e-6",
    ]


def _events(w: _Work, maximum: list[str]) -> list[str]:
    def block(condition: str, lines: list[str]) -> list[str]:
        return [condition, *("    " + line for line in lines)]

    def pick(name: str) -> list[str]:
        return [
            line
            for s in range(w.size)
            for line in (f"if at == {s}:", f"    {w.at(f'{name}_{s}')} += size")
        ]

    still = w.each("<r_#> = 0.0")
    return [
        *block("if kind == 1:", pick("z") + maximum),
        *block("elif kind == 2:", pick("r")),
        *block("elif kind == 3:", w.each("<z_#> = initial[i, #]") + still),
        *block("elif kind == 4:", w.each("<z_#> = vectors[i, at, #]") + still + maximum),
        *block("elif kind == 5:", w.each("<z_#> += vectors[i, at, #]") + maximum),
        *block("elif kind == 6:", ["load(w, l, params, i, at)"]),
    ]
