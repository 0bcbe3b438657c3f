r"""The solver for stiff systems: Rodas4, an L-stable Rosenbrock method of order 4(3).

Each step needs one Jacobian, one factorization and six solutions of a linear system. The Jacobian
comes from symbolic differentiation, and the interpolation has order 3.
"""

from .scalar_source import fill, write_first_step
from .statement_writer import MAXIMUM, SCALE, Writer
from .tableaus import RODAS_A, RODAS_C, RODAS_D, RODAS_H, RODAS_TIMES
from .tracing import Traced

_LU = """
@numba.njit(nogil=True, error_model="numpy")
def factor_matrix(a, pivot):
    for c in range({size}):
        best = c
        for b in range(c + 1, {size}):
            if abs(a[b, c]) > abs(a[best, c]):
                best = b
        pivot[c] = best
        if best != c:
            for b in range({size}):
                held = a[c, b]
                a[c, b] = a[best, b]
                a[best, b] = held
        inverse = 1.0 / a[c, c]
        a[c, c] = inverse
        for b in range(c + 1, {size}):
            if a[b, c] != 0.0:
                a[b, c] *= inverse
                for d in range(c + 1, {size}):
                    a[b, d] -= a[b, c] * a[c, d]

@numba.njit(nogil=True, error_model="numpy")
def back_substitute(a, pivot, b):
    for c in range({size}):
        best = pivot[c]
        if best != c:
            held = b[c]
            b[c] = b[best]
            b[best] = held
    for c in range({size}):
        for d in range(c + 1, {size}):
            b[d] -= a[d, c] * b[c]
    for c in range({size} - 1, -1, -1):
        for d in range(c + 1, {size}):
            b[c] -= a[c, d] * b[d]
        b[c] *= a[c, c]
"""


def implicit_source(traced: Traced) -> str:
    """Source of the stiff solver of a system."""
    w = Writer(traced)
    w.array("k1", "k2", "y", "q1", "q2")
    n, stages = w.size, _stages(w)
    first, second = (" + ".join(f"{c!r} * u[{m}, @]" for m, c in enumerate(row)) for row in RODAS_H)
    dense = w.each(
        f"q1# = {first}",
        f"q2# = {second}",
        "out[i, o, @] = (1.0 - w) * x# + w * (y# + (1.0 - w) * (q1# + w * q2#))",
    )
    allocate = [
        f"jac = np.empty(({n}, {n}))",
        f"matrix = np.empty(({n}, {n}))",
        f"dft = np.empty({n})",
    ]
    allocate += [f"pivot = np.empty({n}, np.int64)", f"u = np.empty((6, {n}))", w.allocate()]
    return fill(
        [w.function(w.slopes), w.jacobian(w.slopes), _LU.format(size=n)],
        n,
        allocate="\n".join(allocate),
        begin=w.begin(),
        record=w.each("out[i, o, @] = x#"),
        events=w.events(),
        slope=w.slope("k1", "t", "x"),
        first=write_first_step(w, 0.25),
        stages="\n".join(stages),
        detect="pass",
        dense=dense,
        accept=w.each("x# = y#", MAXIMUM) + "\nfresh = False",
        order="0.21",
    )


def _stages(w: Writer) -> list[str]:
    """Source of one step: the factorized matrix, the stages, the new state and its error."""
    n = w.size
    lines = [w.call_jacobian(), f"for a in range({n}):", f"    for b in range({n}):"]
    lines += ["        matrix[a, b] = -jac[a, b]", "    matrix[a, a] += 4.0 / step"]
    lines += ["factor_matrix(matrix, pivot)", "scale = 1.0 / step"]
    for j in range(6):
        if j:
            if j < 5:
                terms = " + ".join(f"{a!r} * u[{m}, @]" for m, a in enumerate(RODAS_A[j - 1]))
                lines.append(w.each(f"y# = x# + {terms}"))
            else:
                lines.append(w.each("y# = y# + u[4, @]"))
            lines.append(w.slope("k2", f"t + {RODAS_TIMES[j]!r} * step", "y"))
        slope = "k2" if j else "k1"
        later = f" + step * ({RODAS_D[j]!r}) * dft[@]" if j < 4 else ""
        if j:
            terms = " + ".join(f"{c!r} * u[{m}, @]" for m, c in enumerate(RODAS_C[j - 1]))
            later += f" + scale * ({terms})"
        lines.append(w.each(f"u[{j}, @] = {slope}#{later}"))
        lines.append(f"back_substitute(matrix, pivot, u[{j}])")
    lines.append(w.each("y# = y# + u[5, @]"))
    lines += ["err = 0.0"]
    lines.append(w.each(f"err += (u[5, @] / {SCALE}) ** 2"))
    return [*lines, f"err *= {1 / n!r}"]
