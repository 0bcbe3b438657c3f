"""The loop over individuals into which the parts of a solver are filled."""

SHELL = """
import math
import numba
import numpy as np

{functions}

@numba.njit(nogil=True, error_model="numpy", fastmath={{"contract", "arcp", "nsz"}})
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
                code = 1
                break
            count += 1
            if not fresh:
{slope}
                fresh = True
                if h == 0.0:
{first}
            step = min(h, stop - t)
            hits = step >= stop - t
            if not hits and stop - t - step < 0.1 * step:
                step = 0.5 * (stop - t)
            if step <= 1e-14 * max(abs(t), abs(stop)) and not hits:
                code = 3
                break
{stages}
            if not (err < 1e300):
                h = 0.1 * step
                hits = False
                if h < 1e-13 * max(1.0, abs(stop - t)):
                    code = 2
                    break
                if {restart}:
                    fresh = False
                continue
            size = 0.5 * math.log(err) if err > 1e-16 else -18.0
            if err > 1.0:
                h = step / min(5.0, math.exp({order} * size) / 0.9)
                continue
            grow = max(0.1, min(5.0, math.exp({order} * size - 0.04 * last) / 0.9))
            last = max(size, -9.0)
            ahead = stop if hits else t + step
{detect}
            while o < num_times and obs[i, o] <= ahead and obs[i, o] < due:
                w = (obs[i, o] - t) / step
{dense}
                o += 1
            t = ahead
{accept}
            if step >= h or not hits:
                h = step / grow
            else:
                h = max(h, step / grow)
        steps[i] = count
        status[i] = code
        if code != 0:
            for j in range(num_times):
                for s in range({size}):
                    out[i, j, s] = math.nan
"""
