r"""Trajectories per second at equal error: compiled solver, torchdiffeq, torchode, SciPy, formula.

Four problems, batches of 1, 128 and 4,096 individuals with parameters of their own. Every solver
runs at the loosest tolerance of a list whose error on 512 individuals is at most 1e-4: the 99th percentile over the
individuals of the largest error over their times and states, relative to the individual's largest
value of that state (of the central compartment alone for the pharmacokinetics), against the compiled explicit (for the stiff problem implicit) solver at rtol
1e-11, which agrees with SciPy's Radau (``--check``). Runs of all solvers are interleaved; a run is
a tenth of a second of calls, or one call; the figure is the median of seven runs. The last line is JSON.

    python benchmarks/dynamics.py            # minutes
    python benchmarks/dynamics.py --small    # a few seconds, one problem
"""

import argparse
import json
import statistics
import time
import warnings

import numpy as np
import torch
from scipy.integrate import solve_ivp

from pyro_amortized import nlme
from pyro_amortized.cohort import Doses
from pyro_amortized.nlme.ode.compiled import systems as compiled

from dynamics_problems import PROBLEMS, Conversion

TARGET = 1e-4
TOLERANCES = [float(10.0**-k) for k in np.arange(0, 11.5, 0.25)]
HELD_SECONDS = 30.0


def ours(problem, solver, rtol):
    with torch.no_grad():
        return nlme.solve(
            problem.f,
            problem.initial,
            problem.times,
            problem.p,
            doses=problem.doses,
            solver=solver,
            rtol=rtol,
            atol=rtol * 1e-2,
            max_steps=100_000,
        )


def scipy_lsoda(problem, rtol, method="LSODA"):
    """One call per trajectory and interval between doses, the right-hand side in plain Python."""
    f = SCALAR[problem.name]
    num = len(problem.times)
    out = np.empty((num, problem.times.shape[1], problem.states))
    values = np.stack([v.numpy() for v in problem.p.values()], -1)
    for i in range(num):
        p, times = tuple(values[i].tolist()), problem.times[i].numpy()
        stops = [] if problem.doses is None else problem.doses.times[i].tolist()
        state, now, end = problem.initial.numpy().copy(), 0.0, float(times[-1])
        for j, stop in enumerate([*stops, end]):
            stop = min(stop, end)
            inside = (times >= now) & ((times < stop) if j < len(stops) else (times <= stop))
            if stop > now:
                grid = np.unique(np.append(times[inside], stop))
                solution = solve_ivp(
                    f, (now, stop), state, method, grid, args=p, rtol=rtol, atol=rtol * 1e-2
                )
                out[i, inside] = solution.y.T[np.searchsorted(grid, times[inside])]
                state = solution.y[:, -1].copy()
            elif inside.any():
                out[i, inside] = state
            now = stop
            if j < len(stops) and stops[j] <= end:
                state[0] += float(problem.doses.amounts[i, j])
    return torch.from_numpy(out)


SCALAR = {
    "conversion_reaction": lambda t, x, k1, k2: (-(k1 * x[0] - k2 * x[1]), k1 * x[0] - k2 * x[1]),
    "pk": lambda t, x, ka, cl, v: (-ka * x[0], ka * x[0] - cl / v * x[1]),
    "fitzhugh_nagumo": lambda t, x, a, b, c: (
        c * (x[0] - x[0] ** 3 / 3 + x[1]),
        -(x[0] - a + b * x[1]) / c,
    ),
    "stiff": lambda t, x, k1, k2, k3, on, off: (
        -k1 * x[0] + k3 * x[1] * x[2],
        k1 * x[0] - k3 * x[1] * x[2] - k2 * x[1] * x[1],
        k2 * x[1] * x[1] - on * x[2] * x[3] + off * x[4],
        off * x[4] - on * x[2] * x[3],
        on * x[2] * x[3] - off * x[4],
    ),
}


def torchode_solve(problem, rtol):
    """Tsit5 of torchode, every individual with its own steps; between doses in rescaled time."""
    import torchode as to

    num = len(problem.times)

    def advance(x, begin, end, grid):
        def field(t, y):
            return problem.f(t, y, problem.p)

        term = to.ODETerm(field)
        method = to.Tsit5(term=term)
        controller = to.IntegralController(atol=rtol * 1e-2, rtol=rtol, term=term)
        solution = to.AutoDiffAdjoint(method, controller).solve(
            to.InitialValueProblem(y0=x, t_start=begin, t_end=end, t_eval=grid)
        )
        return solution.ys

    x = problem.initial.expand(num, -1).contiguous()
    with torch.no_grad():
        if problem.doses is None:
            begin = torch.zeros(num, dtype=torch.float64)
            return advance(x, begin, problem.times[:, -1].contiguous(), problem.times.contiguous())
        merged = torch.cat([problem.doses.times, problem.times], 1)
        knots, order = merged.sort(1)
        before, path = torch.zeros(num, dtype=torch.float64), []
        for j in range(knots.shape[1]):
            end = torch.maximum(knots[:, j], before + 1e-9)
            x = advance(x, before, end, end.unsqueeze(1))[:, -1]
            dose = order[:, j] < problem.doses.times.shape[1]
            amount = problem.doses.amounts.gather(
                1, order[:, j : j + 1].clamp(max=problem.doses.times.shape[1] - 1)
            )[:, 0]
            x = x + torch.stack([amount * dose, torch.zeros_like(amount)], -1)
            path.append(x)
            before = end
        position = order.argsort(1)[:, problem.doses.times.shape[1] :]
        return torch.stack(path, 1).gather(1, position.unsqueeze(-1).expand(-1, -1, problem.states))


def error(solution, truth, observed=None):
    if observed is not None:
        solution, truth = solution[..., observed:], truth[..., observed:]
    scale = truth.abs().amax(1, keepdim=True).clamp(min=1e-12)
    worst = ((solution - truth).abs() / scale).flatten(1).amax(1)
    return float(torch.nan_to_num(worst, nan=1e9).quantile(0.99))


def tolerance_for(solve, truth, observed=None):
    """The loosest tolerance that reaches the error, by bisection; and the error."""
    low, high, best = 0, len(TOLERANCES) - 1, None
    begun = time.perf_counter()
    while low <= high:
        middle = (low + high) // 2
        try:
            reached = error(solve(TOLERANCES[middle]), truth, observed)
        except Exception as reason:
            return None, type(reason).__name__
        if reached <= TARGET:
            best, high = (TOLERANCES[middle], reached), middle - 1
        else:
            low = middle + 1
        if time.perf_counter() - begun > HELD_SECONDS and best is None:
            return None, "too slow"
    return best or (None, "misses the error")


def solvers_of(problem):
    solvers = {
        "compiled": lambda rtol: ours(problem, "implicit" if problem.stiff else "explicit", rtol),
        "torchdiffeq": lambda rtol: ours(problem, "torchdiffeq", rtol),
        "torchode": lambda rtol: torchode_solve(problem, rtol),
        "scipy": lambda rtol: scipy_lsoda(problem, rtol),
    }
    return solvers


def subset(problem_class, num, size):
    problem = problem_class(num)
    problem.p = {n: x[:size] for n, x in problem.p.items()}
    problem.times = problem.times[:size]
    if problem.doses is not None:
        problem.doses = Doses(**{n: x[:size] for n, x in vars(problem.doses).items()})
    return problem


def seconds(action):
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def per_call(action):
    """Seconds of a call, in a row of calls that takes a tenth of a second or more."""
    first = seconds(action)
    if first > 0.1:
        return first
    calls = int(0.1 / first) + 1
    return seconds(lambda: [action() for _ in range(calls)]) / calls


def tune(problem_class, size, scipy_rows):
    """Tolerance and error of every solver."""
    problem = problem_class(size)
    few = subset(problem_class, size, min(size, scipy_rows))
    settings = {}
    for name, solve in solvers_of(problem).items():
        own_problem = few if name == "scipy" else problem
        truth = ours(own_problem, "implicit" if own_problem.stiff else "explicit", 1e-11)
        tuned = (lambda rtol: scipy_lsoda(few, rtol)) if name == "scipy" else solve
        rtol, reached = tolerance_for(tuned, truth, getattr(problem, "observed", None))
        settings[name] = {"rtol": rtol, "error": reached}
        print(f"    {problem.name}, {name}: {settings[name]}", flush=True)
    return settings


def measure(problem_class, batch, tuned, repeats, scipy_rows):
    """Trajectories per second of every solver, runs interleaved."""
    problem = problem_class(batch)
    few = subset(problem_class, batch, min(batch, scipy_rows))
    solvers, runs = solvers_of(problem), {}
    for name, setting in tuned.items():
        if setting["rtol"] is not None:
            own_problem, solve = (few, None) if name == "scipy" else (problem, solvers[name])
            runs[name] = (
                lambda m=own_problem, s=solve, r=setting["rtol"]: s(r) if s else scipy_lsoda(m, r),
                len(own_problem.times),
            )
    if hasattr(problem, "closed"):
        runs["formula"] = (problem.closed, batch)
    taken = {name: [] for name in runs}
    for _ in range(repeats):
        for name, (full, _) in runs.items():
            if sum(taken[name]) < HELD_SECONDS or not taken[name]:
                taken[name].append(per_call(full))
    return {
        name: {"per_second": size / statistics.median(taken[name]), "runs": len(taken[name])}
        for name, (_, size) in runs.items()
    }


def compile_seconds(problems):
    durations = {}
    for problem_class in problems:
        problem = problem_class(2)
        compiled._kernels.clear()
        compiled._systems.clear()
        solver = "implicit" if problem.stiff else "explicit"
        durations[problem.name] = seconds(lambda p=problem, s=solver: ours(p, s, 1e-4))
    return durations


def check_reference(problem_class):
    """Compare the reference with SciPy's Radau."""
    p = problem_class(8)
    difference = error(
        scipy_lsoda(p, 1e-11, "Radau"),
        ours(p, "implicit" if p.stiff else "explicit", 1e-11),
    )
    print(problem_class.name, "reference against Radau:", difference, flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--small", action="store_true", help="a few seconds, to see that it runs")
    parser.add_argument(
        "--check", action="store_true", help="compare the reference with SciPy's Radau"
    )
    parser.add_argument("--problems", nargs="*")
    arguments = parser.parse_args()
    small = arguments.small
    if small:
        arguments.problems = [Conversion.name]
    problems = [p for p in PROBLEMS if not arguments.problems or p.name in arguments.problems]
    warnings.simplefilter("ignore")
    torch.set_default_dtype(torch.float64)
    compiling = compile_seconds(problems)
    print(
        "seconds to trace and compile (the first includes numba's own start):",
        {n: round(s, 2) for n, s in compiling.items()},
        flush=True,
    )
    batches, repeats, scipy_rows = ((64,), 1, 4) if small else ((1, 128, 4096), 7, 32)
    table = {}
    for problem_class in problems:
        if arguments.check:
            check_reference(problem_class)
        tuned = tune(problem_class, 64 if small else 512, scipy_rows)
        for batch in batches:
            row = measure(problem_class, batch, tuned, repeats, scipy_rows)
            table.setdefault(problem_class.name, {"tolerances": tuned})[batch] = row
            shown = {n: f"{r['per_second']:,.0f}" for n, r in row.items()}
            print(problem_class.name, batch, shown, flush=True)
    largest = batches[-1]
    speedup = {
        name: rows[largest]["compiled"]["per_second"] / rows[largest]["torchdiffeq"]["per_second"]
        for name, rows in table.items()
        if "torchdiffeq" in rows[largest]
    }
    result = {"speedup_over_torchdiffeq": speedup, "threads": torch.get_num_threads()}
    print(json.dumps(result | {"compile_seconds": compiling, "table": table}))


if __name__ == "__main__":
    main()
