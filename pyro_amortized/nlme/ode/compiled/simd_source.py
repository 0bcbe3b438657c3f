r"""Source of the explicit solver for eight individuals at once.

The arithmetic of a step is one loop over eight lanes, which the compiler turns into vector
instructions. Every lane has its own individual, time, step and events, and takes the next
individual when its own is finished. What differs between lanes (events, observations, acceptance)
is done for one lane after the other between the steps.
"""

import textwrap

from .codes import Event, SolverStatus
from .expressions import write
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
from .symbolic_derivatives import hoisted
from .tableaus import DENSE, ERROR, A, C
from .tracing import Traced

LANES = 8  # double precision numbers in the widest vector registers
MAX_STATEMENTS = 400  # larger steps exhaust the registers, and the scalar solver is as fast
# err^(3/16) and err^(1/32) of the step before: both are products of square roots.
SMALLEST_PREVIOUS = 0.75  # of the latter: a very small error must not shorten the next step

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

@numba.njit(nogil=True, error_model="numpy", cache=True)
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
                    h[l], last[l], fresh[l] = 0.0, {SMALLEST_PREVIOUS}, False
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
{choose_first}
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
{broken}
            elif err > 1.0:
                {reject}
                hits[l] = False
            else:
                {grow}
                last[l] = max(w[{small} + l], {SMALLEST_PREVIOUS})
                ahead = stop[l] if hits[l] else t + step
                if detect:
{detect}
                while o[l] < num_times and obs[i, o[l]] <= ahead and obs[i, o[l]] < due[l]:
                    read_off(w, l, out, i, o[l], (obs[i, o[l]] - t) / step)
                    o[l] += 1
                w[{time} + l] = ahead
                t = ahead
{accept}
{resize}
                if hits[l]:
                    waits[l] = True
            if code == 0 and count[l] >= max_steps and o[l] < num_times:
                code = {TOO_MANY_STEPS}
            if code == 0 and not waits[l]:
{choose_next}
                if {too_small}:
                    code = {STEP_TOO_SMALL}
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
    """The work array: one row of eight lanes per quantity."""

    def __init__(self, traced: Traced) -> None:
        self.size = traced.num_states
        self.num_given = traced.num_parameters
        self.slopes, self.prepared = hoisted(traced.slopes, "p")
        self.parameters = [f"p{j}" for j in range(self.num_given)]
        self.parameters += [f"q{j}" for j in range(len(self.prepared))]
        self.rows: dict[str, int] = {}

    def at(self, name: str) -> str:
        """The entry of a quantity in lane l."""
        return f"w[{self.offset(name)} + l]"

    def offset(self, name: str) -> int:
        """The index of the first lane of a quantity."""
        return LANES * self.rows.setdefault(name, len(self.rows))

    def each(self, template: str) -> list[str]:
        """A statement for every state; ``#`` stands for its number, ``<name>`` for an entry."""
        return [self.filled(template.replace("#", str(s))) for s in range(self.size)]

    def filled(self, text: str) -> str:
        """The text with every ``<name>`` replaced by its entry."""
        while "<" in text and ">" in text.split("<", 1)[1]:
            before, rest = text.split("<", 1)
            name, after = rest.split(">", 1)
            text = before + self.at(name) + after
        return text

    def loads(self, names: list[str]) -> list[str]:
        """Statements that load quantities into scalars of the same names."""
        return [f"{name} = {self.at(name)}" for name in names]

    def of_states(self, *letters: str) -> list[str]:
        """Names of quantities that exist once per state."""
        return [f"{letter}_{s}" for letter in letters for s in range(self.size)]

    def slope(self, result: str, t: str, state: str) -> list[str]:
        """Statements of the right-hand side, including infusion rates."""
        lines = [f"t = {t}"] + [f"x{s} = {state}_{s}" for s in range(self.size)]
        lines += write(self.slopes, [f"{result}_{s}" for s in range(self.size)])
        return lines + [f"{result}_{s} = {result}_{s} + r_{s}" for s in range(self.size)]


def lanes_source(traced: Traced) -> str | None:
    """Source of the explicit solver over lanes, or None if the system is too large for it."""
    w = _Work(traced)
    advance = _step(w)
    if len(advance) > MAX_STATEMENTS:
        return None
    parts = {"advance": (2, advance)} | _parts(w)
    text = {n: textwrap.indent("\n".join(lines), "    " * d) for n, (d, lines) in parts.items()}
    names = ("time", "step", "size", "err", "factor", "small", "above", "below")
    places = {name: w.offset(name) for name in names}
    codes = {s.name: int(s) for s in (SolverStatus.TOO_MANY_STEPS, SolverStatus.STEP_TOO_SMALL)}
    return _SHELL.format(
        **text,
        **places,
        **codes,
        rows=len(w.rows),
        states=w.size,
        too_small=is_too_small("hits[l]", "stop[l]"),
        reject=after_rejection("h[l]", "factor"),
        grow=growth("(factor / last[l])"),
        SMALLEST_PREVIOUS=SMALLEST_PREVIOUS,
    )


def _parts(w: _Work) -> dict[str, tuple[int, list[str]]]:
    """The other parts of the solver, each with its depth of indentation."""
    slope = w.loads(["time", *w.parameters, *w.of_states("z", "r")]) + w.slope("k", "time", "z")
    slope += [*w.each("<k1_#> = k_#"), f"h = {w.at('size')}"]
    maximum = w.each("<m_#> = max(<m_#>, abs(<z_#>))")
    # The interpolating polynomial, whose coefficients are computed with the step for all lanes.
    polynomial = "<k1_#> + share * (<c2_#> + share * (<c3_#> + share * <c4_#>))"
    dense = w.each(f"out[i, o, #] = <z_#> + step * share * ({polynomial})")
    load = [f"p{j} = params[i, piece, {j}]" for j in range(w.num_given)]
    load += write(w.prepared, [f"q{j}" for j in range(len(w.prepared))])
    load += [f"{w.at(name)} = {name}" for name in w.parameters] or ["pass"]
    begin = [
        *w.each("<z_#> = initial[i, #]"),
        *w.each("<r_#> = 0.0"),
        *w.each("<m_#> = abs(<z_#>)"),
    ]
    return {
        "slope": (1, slope),
        "first": (2, _first_step(w)),
        "load": (1, load),
        "events": (1, _events(w, maximum)),
        "dense": (1, dense),
        "begin": (5, begin),
        "record": (6, w.each("out[i, o[l], #] = <z_#>")),
        "accept": (4, [*w.each("<z_#> = <y_#>"), *w.each("<k1_#> = <k7_#>"), *maximum]),
        "choose_first": (4, choose_step("h[l]", "hits[l]", "stop[l]")),
        "choose_next": (4, choose_step("h[l]", "hits[l]", "stop[l]")),
        "broken": (4, after_not_finite("h[l]", "hits[l]", "stop[l]")),
        "resize": (4, after_acceptance("h[l]", "hits[l]")),
        "detect": (5, detect_stiffness(w.at("above"), w.at("below"), "stiff[l]", "calm[l]")),
    }


def _step(w: _Work) -> list[str]:
    """Source of one step of all lanes: stages, error and powers of the error."""
    loaded = ["time", "step", *w.parameters, *w.of_states("z", "k1", "r", "m")]
    lines = w.loads(loaded)
    for j, row in enumerate(A):
        target = "g" if j == 4 else "y"
        terms = " + ".join(f"{a!r} * k{m + 1}_#" for m, a in enumerate(row))
        lines += w.each(f"{target}_# = z_# + step * ({terms})")
        lines += w.slope(f"k{j + 2}", f"time + {C[j]!r} * step", target)
    difference = " + ".join(f"{b!r} * k{m + 1}_#" for m, b in enumerate(ERROR))
    scale = "(atol + rtol * max(max(abs(z_#), abs(y_#)), 0.01 * m_#))"
    lines += w.each(f"d_# = step * ({difference}) / {scale}")
    states = range(w.size)
    squares = " + ".join(f"d_{s} * d_{s}" for s in states)
    lines.append(f"e1 = math.sqrt(({squares}) * {1 / w.size!r})")
    lines += [f"e{2 ** (j + 1)} = math.sqrt(e{2**j})" for j in range(5)]
    lines.append("above = " + " + ".join(f"(k7_{s} - k6_{s}) * (k7_{s} - k6_{s})" for s in states))
    lines.append("below = " + " + ".join(f"(y_{s} - g_{s}) * (y_{s} - g_{s})" for s in states))
    for power in range(3):
        terms = " + ".join(f"{row[power]!r} * k{m + 1}_#" for m, row in enumerate(DENSE))
        lines += w.each(f"c{power + 2}_# = {terms}")
    stored = w.of_states("y", "k7", "c2", "c3", "c4")
    lines += [f"{w.at(name)} = {name}" for name in stored]
    lines += [f"{w.at('err')} = e1", f"{w.at('factor')} = e8 * e16", f"{w.at('small')} = e32"]
    return [*lines, f"{w.at('above')} = above", f"{w.at('below')} = below"]


def _first_step(w: _Work) -> list[str]:
    """Source of the size of the first step."""
    states = range(w.size)
    scale = [f"(atol + rtol * abs(z_{s}))" for s in states]
    change = " + ".join(
        f"(k_{s} / (atol + rtol * (abs(z_{s}) + h * abs(k_{s})))) ** 2" for s in states
    )
    return first_step(
        ["a = " + " + ".join(f"(z_{s} / {scale[s]}) ** 2" for s in states)],
        ["b = " + " + ".join(f"(k_{s} / {scale[s]}) ** 2" for s in states)],
        [f"c = ({change}) / {w.size}"],
        "span",
        0.2,
    )


def _events(w: _Work, maximum: list[str]) -> list[str]:
    def block(condition: str, lines: list[str]) -> list[str]:
        return [condition, *("    " + line for line in lines)]

    def pick(name: str) -> list[str]:
        return [
            line
            for s in range(w.size)
            for line in (f"if at == {s}:", f"    {w.at(f'{name}_{s}')} += size")
        ]

    no_rates = w.each("<r_#> = 0.0")
    return [
        *block(f"if kind == {Event.ADD_AMOUNT}:", pick("z") + maximum),
        *block(f"elif kind == {Event.ADD_RATE}:", pick("r")),
        *block(f"elif kind == {Event.RESET}:", w.each("<z_#> = initial[i, #]") + no_rates),
        *block(
            f"elif kind == {Event.SET_STATE}:",
            w.each("<z_#> = vectors[i, at, #]") + no_rates + maximum,
        ),
        *block(f"elif kind == {Event.ADD_STATE}:", w.each("<z_#> += vectors[i, at, #]") + maximum),
        *block(f"elif kind == {Event.NEXT_PIECE}:", ["load(w, l, params, i, at)"]),
    ]
