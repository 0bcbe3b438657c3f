r"""Source of compiled solvers: one loop per individual, with its own steps and events.

Every individual has a sorted list of events (doses, starts and ends of infusions, resets, changes
of parameters) and its observation times. Steps end at events, where the state jumps; observations
are read off the continuous extension of the step that covers them. The source is plain Python over
scalars, compiled by numba; systems of few states are written out, larger ones loop over arrays.

Explicit: the pairs of order 5(4) of Tsitouras with its free interpolant and a PI controller.
Implicit: Rodas4, an L-stable Rosenbrock method of order 4(3) with a dense output of order 3; the
Jacobian comes from symbolic differentiation.

References:
    Tsitouras (2011), Runge-Kutta pairs of order 5(4) satisfying only the first column simplifying
    assumption; Hairer and Wanner (1996), Solving Ordinary Differential Equations II, IV.2
    (stiffness test), IV.7 and IV.10 (Rodas).
"""

import textwrap

from .derivatives import derivatives, hoisted
from .expressions import Node, write
from .shell import SHELL
from .tableaus import DENSE, ERROR, A, C
from .tracing import Traced

UNROLLED = 4
OK, TOO_MANY_STEPS, NOT_FINITE, STEP_TOO_SMALL, NO_STEADY_STATE, STIFF = range(6)
# What a step may err by: relative to the state, or to a hundredth of its largest value so far.
SCALE = "(atol + rtol * max(max(abs(x#), abs(y#)), 0.01 * m#))"
MAXIMUM = "m# = max(m#, abs(x#))"

ADD, RATE, RESET, SET_STATE, ADD_STATE, PIECE = range(1, 7)


class Writer:
    """Statements over all states, written out or as loops."""

    def __init__(self, traced: Traced) -> None:
        self.size, self.num_given = traced.num_states, traced.num_parameters
        self.slopes, self.prepared = hoisted(traced.slopes, "p")
        self.num_parameters = self.num_given + len(self.prepared)
        self.unrolled = self.size <= UNROLLED
        self.arrays: list[str] = []

    def array(self, *names: str) -> None:
        """Name work arrays, one entry per state."""
        self.arrays += names

    def each(self, *templates: str) -> str:
        """Statements for every state; ``#`` is its place."""
        if self.unrolled:
            return "\n".join(
                t.replace("#", f"_{s}").replace("@", str(s))
                for t in templates
                for s in range(self.size)
            )
        body = "\n".join("    " + t.replace("#", "[s]").replace("@", "s") for t in templates)
        return f"for s in range({self.size}):\n{body}"

    def slope(self, result: str, t: str, x: str) -> str:
        """Call of the right-hand side, rates included."""
        if not self.unrolled:
            return f"rhs({t}, {x}, p, r, {result})"
        names = [f"{result}_{s}" for s in range(self.size)]
        args = [t] + [f"{x}_{s}" for s in range(self.size)] + self.parameters
        call = f"{', '.join(names)}, = rhs({', '.join(args)})"
        return call + "\n" + self.each(f"{result}# += r#")

    @property
    def parameters(self) -> list[str]:
        """Names of the parameters, kept between the steps."""
        return [f"p_{j}" for j in range(self.num_given)] + [
            f"q_{j}" for j in range(len(self.prepared))
        ]

    @property
    def parameter_names(self) -> list[str]:
        """Their names inside the right-hand side."""
        return [f"p{j}" for j in range(self.num_given)] + [
            f"q{j}" for j in range(len(self.prepared))
        ]

    def load(self, piece: str) -> str:
        """Parameters of a piece."""
        lines = [f"p{j} = params[i, {piece}, {j}]" for j in range(self.num_given)]
        lines += write(self.prepared, [f"q{j}" for j in range(len(self.prepared))])
        if self.unrolled:
            pairs = zip(self.parameters, self.parameter_names, strict=True)
            lines += [f"{kept} = {name}" for kept, name in pairs]
        else:
            lines += [f"p[{j}] = {name}" for j, name in enumerate(self.parameter_names)]
        return "\n".join(lines) or "pass"

    def pick(self, statement: str) -> str:
        """A statement for the state in place ``at``."""
        if self.unrolled:
            return "\n".join(
                f"if at == {s}:\n    {statement.replace('#', f'_{s}')}" for s in range(self.size)
            )
        return statement.replace("#", "[at]")

    def total(self, name: str, term: str) -> str:
        """Sum of a term over all states."""
        if self.unrolled:
            return f"{name} = " + " + ".join(term.replace("#", f"_{s}") for s in range(self.size))
        return f"{name} = 0.0\n" + self.each(f"{name} += {term}")

    def begin(self) -> str:
        """Statements before the first step of an individual."""
        return self.each("x# = initial[i, @]", "r# = 0.0", "m# = abs(x#)") + "\n" + self.load("0")

    def allocate(self) -> str:
        """Statements that make the work arrays."""
        names = [] if self.unrolled else ["x", "r", "m", *self.arrays]
        lines = [f"{name} = np.empty({self.size})" for name in names]
        lines += [] if self.unrolled else [f"p = np.empty({max(1, self.num_parameters)})"]
        return "\n".join(lines) or "pass"

    def events(self) -> str:
        """Statements of an event, by its kind."""
        blocks = [
            ("kind == 1", self.pick("x# += size") + "\n" + self.each(MAXIMUM)),
            ("kind == 2", self.pick("r# += size")),
            ("kind == 3", self.each("x# = initial[i, @]", "r# = 0.0")),
            ("kind == 4", self.each("x# = vectors[i, at, @]", "r# = 0.0", MAXIMUM)),
            ("kind == 5", self.each("x# += vectors[i, at, @]", MAXIMUM)),
            ("kind == 6", self.load("at")),
        ]
        text = []
        for j, (condition, body) in enumerate(blocks):
            text.append(
                f"{'if' if j == 0 else 'elif'} {condition}:\n" + textwrap.indent(body, "    ")
            )
        return "\n".join(text)

    def function(self, roots: list[Node]) -> str:
        """The right-hand side as a function of scalars or of arrays."""
        lines = write(roots, [f"y_{s}" for s in range(self.size)])
        loads, ends = self._loads()
        if self.unrolled:
            head = ["t"] + [f"x{s}" for s in range(self.size)] + self.parameter_names
            ends = ["return (" + ", ".join(f"y_{s}" for s in range(self.size)) + ",)"]
            return define("rhs", head, lines + ends)
        ends = [f"out[{s}] = y_{s} + r[{s}]" for s in range(self.size)]
        return define("rhs", ["t", "x", "p", "r", "out"], loads + lines + ends)

    def _loads(self) -> tuple[list[str], list[str]]:
        loads = [f"x{s} = x[{s}]" for s in range(self.size)]
        return loads + [f"{name} = p[{j}]" for j, name in enumerate(self.parameter_names)], []

    def jacobian(self, roots: list[Node]) -> str:
        """df/dx and df/dt, written into arrays."""
        names = [f"x{s}" for s in range(self.size)] + ["t"]
        rows = [derivatives(root, names) for root in roots]
        entries, results = [], []
        for a in range(self.size):
            for b in range(self.size + 1):
                if not (rows[a][b].is_const and rows[a][b].value == 0):
                    entries.append(rows[a][b])
                    results.append(f"jac[{a}, {b}]" if b < self.size else f"dft[{a}]")
        loads, _ = self._loads()
        clear = [f"for a in range({self.size}):", "    dft[a] = 0.0"]
        clear += [f"    for b in range({self.size}):", "        jac[a, b] = 0.0"]
        if self.unrolled:
            head = ["t"] + [f"x{s}" for s in range(self.size)] + self.parameter_names
            return define("jacobian", [*head, "jac", "dft"], clear + write(entries, results))
        return define(
            "jacobian", ["t", "x", "p", "jac", "dft"], clear + loads + write(entries, results)
        )

    def call_jacobian(self) -> str:
        """Statement that fills the Jacobian."""
        if not self.unrolled:
            return "jacobian(t, x, p, jac, dft)"
        args = ["t"] + [f"x_{s}" for s in range(self.size)] + self.parameters
        return f"jacobian({', '.join(args)}, jac, dft)"


def define(name: str, args: list[str], lines: list[str]) -> str:
    """Source of a compiled function."""
    body = textwrap.indent("\n".join(lines), "    ")
    header = '@numba.njit(nogil=True, error_model="numpy", fastmath={"contract", "arcp", "nsz"})'
    return f"{header}\ndef {name}({', '.join(args)}):\n{body}\n"


def fill(functions: list[str], size: int, **parts: str) -> str:
    """Source of a kernel from its parts, each indented to its place."""
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
    }
    filled = {n: textwrap.indent(parts[n], "    " * d) for n, d in depth.items()}
    rest = {n: parts[n] for n in ("restart", "order")}
    return SHELL.format(functions="\n\n".join(functions), size=size, **filled, **rest)


def first_step(writer: Writer, order: float) -> str:
    """Size of the first step, from the sizes of the state and its slope (Hairer et al., II.4)."""
    return "\n".join(
        [
            writer.total("a", "(x# / (atol + rtol * abs(x#))) ** 2"),
            writer.total("b", "(k1# / (atol + rtol * abs(x#))) ** 2"),
            "h = 0.01 * math.sqrt(a / b) if a > 1e-10 and b > 1e-10 else 1e-6",
            writer.total("c", "(k1# / (atol + rtol * abs(x#) + rtol * abs(h * k1#))) ** 2"),
            f"c = (0.01 / math.sqrt(max(c, 1e-30) / {writer.size})) ** {order}",
            "h = max(h, min(0.1 * (stop - t), c))",
            "if not (h < 1e300):",
            "    h = 1e-6",
        ]
    )


def explicit_source(traced: Traced) -> str:
    """Source of the explicit solver of a system."""
    w = Writer(traced)
    w.array("k1", "k2", "k3", "k4", "k5", "k6", "k7", "y", "g")
    stages = []
    for j, row in enumerate(A):
        terms = " + ".join(f"{a!r} * k{m + 1}#" for m, a in enumerate(row))
        target = "g" if j == 4 else "y"
        stages.append(w.each(f"{target}# = x# + step * ({terms})"))
        stages.append(w.slope(f"k{j + 2}", f"t + {C[j]!r} * step", target))
    wrong = " + ".join(f"{b!r} * k{m + 1}#" for m, b in enumerate(ERROR))
    stages.append(w.total("err", f"(step * ({wrong}) / {SCALE}) ** 2"))
    stages.append(f"err *= {1 / w.size!r}")
    detect = [
        "if detect:",
        textwrap.indent(w.total("above", "(k7# - k6#) ** 2"), "    "),
        textwrap.indent(w.total("below", "(y# - g#) ** 2"), "    "),
        "    if step * step * above > 10.5 * below and below > 0.0:",
        "        stiff += 1",
        "        calm = 0",
        "        if stiff >= 15:",
        "            code = 5",
        "            break",
        "    else:",
        "        calm += 1",
        "        if calm >= 6:",
        "            stiff = 0",
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
        first=first_step(w, 0.2),
        stages="\n".join(stages),
        detect="\n".join(detect),
        dense="\n".join([*weights, w.each(f"out[i, o, @] = x# + step * ({dense})")]),
        accept=w.each("x# = y#", "k1# = k7#", MAXIMUM),
        restart="False",
        order="0.17",
    )
