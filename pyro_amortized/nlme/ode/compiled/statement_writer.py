r"""Writes Python statements over all states of a system, for the source of a solver."""

import textwrap

from .codes import Event
from .expressions import Node, write
from .symbolic_derivatives import derivatives, hoisted
from .tracing import Traced

UNROLLED = 4  # states up to which loops are written out; longer code compiles slowly

# The error of a step that is tolerated: relative to the state, or to a hundredth of its largest
# value so far, so that a state that has decayed is not followed to the last digit.
SCALE = "(atol + rtol * max(max(abs(x#), abs(y#)), 0.01 * m#))"
MAXIMUM = "m# = max(m#, abs(x#))"


class Writer:
    """Writes statements over all states, written out or as loops."""

    def __init__(self, traced: Traced) -> None:
        self.size, self.num_given = traced.num_states, traced.num_parameters
        self.slopes, self.prepared = hoisted(traced.slopes, "p")
        self.num_parameters = self.num_given + len(self.prepared)
        self.unrolled = self.size <= UNROLLED
        self.arrays: list[str] = []

    def array(self, *names: str) -> None:
        """Declare work arrays with one entry per state."""
        self.arrays += names

    def each(self, *templates: str) -> str:
        """Statements for every state; ``#`` stands for its index."""
        if self.unrolled:
            return "\n".join(
                t.replace("#", f"_{s}").replace("@", str(s))
                for t in templates
                for s in range(self.size)
            )
        body = "\n".join("    " + t.replace("#", "[s]").replace("@", "s") for t in templates)
        return f"for s in range({self.size}):\n{body}"

    def slope(self, result: str, t: str, x: str) -> str:
        """Call of the right-hand side, including infusion rates."""
        if not self.unrolled:
            return f"rhs({t}, {x}, p, r, {result})"
        names = [f"{result}_{s}" for s in range(self.size)]
        args = [t] + [f"{x}_{s}" for s in range(self.size)] + self.parameters
        call = f"{', '.join(names)}, = rhs({', '.join(args)})"
        return call + "\n" + self.each(f"{result}# += r#")

    @property
    def parameters(self) -> list[str]:
        """Names of the parameters in the kernel."""
        return [f"p_{j}" for j in range(self.num_given)] + [
            f"q_{j}" for j in range(len(self.prepared))
        ]

    @property
    def parameter_names(self) -> list[str]:
        """Names of the parameters in the right-hand side."""
        return [f"p{j}" for j in range(self.num_given)] + [
            f"q{j}" for j in range(len(self.prepared))
        ]

    def load(self, piece: str) -> str:
        """Statements that load the parameters of a piece."""
        lines = [f"p{j} = params[i, {piece}, {j}]" for j in range(self.num_given)]
        lines += write(self.prepared, [f"q{j}" for j in range(len(self.prepared))])
        if self.unrolled:
            pairs = zip(self.parameters, self.parameter_names, strict=True)
            lines += [f"{in_kernel} = {name}" for in_kernel, name in pairs]
        else:
            lines += [f"p[{j}] = {name}" for j, name in enumerate(self.parameter_names)]
        return "\n".join(lines) or "pass"

    def pick(self, statement: str) -> str:
        """A statement for the state with index ``at``."""
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
        """Statements that allocate the work arrays."""
        names = [] if self.unrolled else ["x", "r", "m", *self.arrays]
        lines = [f"{name} = np.empty({self.size})" for name in names]
        lines += [] if self.unrolled else [f"p = np.empty({max(1, self.num_parameters)})"]
        return "\n".join(lines) or "pass"

    def events(self) -> str:
        """Statements of an event, by its kind."""
        blocks = [
            (Event.ADD_AMOUNT, self.pick("x# += size") + "\n" + self.each(MAXIMUM)),
            (Event.ADD_RATE, self.pick("r# += size")),
            (Event.RESET, self.each("x# = initial[i, @]", "r# = 0.0")),
            (Event.SET_STATE, self.each("x# = vectors[i, at, @]", "r# = 0.0", MAXIMUM)),
            (Event.ADD_STATE, self.each("x# += vectors[i, at, @]", MAXIMUM)),
            (Event.NEXT_PIECE, self.load("at")),
        ]
        return "\n".join(
            f"{'elif' if j else 'if'} kind == {kind}:\n" + textwrap.indent(body, "    ")
            for j, (kind, body) in enumerate(blocks)
        )

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
        """The function that writes df/dx and df/dt into arrays."""
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
