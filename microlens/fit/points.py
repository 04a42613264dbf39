"""Light curves by fewer points.

bins, compress, means    averages of neighbours
sample                   a noise-free curve by two points for each straight run
epochs_to_draw           the epochs of a curve that a figure needs
"""

from __future__ import annotations

import numba
import numpy as np

from microlens.fit.kernels import Points, without_parallax

LONGEST_BIN = 64  # epochs of an average
LONGEST_RUN = 192  # epochs of a straight run
TURN_TO_DISTANCE = 0.25
"""A curve whose slope changes by `turn` in all within a time T stays within turn T / 4 of its chord."""
FLUX_STEPS = 120  # a drawn curve has an epoch at least every 1/120 of its range
LARGE = 4.0  # standard deviations; such a residual is always drawn, until there are hundreds of them


@numba.njit(cache=True, nogil=True)
def _with_offsets(points, t, y, w):
    """Points at other times t (m,), ascending, with the Sun's offsets between those of `points`, where these have any.

    The offsets are so smooth that a straight line between neighbouring epochs will do.
    """
    if len(points.north) == 0:
        return without_parallax(t, y, w)
    north, east = np.empty(len(t)), np.empty(len(t))
    k = 0
    for i in range(len(t)):
        while k < len(points.t) - 2 and points.t[k + 1] <= t[i]:
            k += 1
        share = (t[i] - points.t[k]) / (points.t[k + 1] - points.t[k]) if len(points.t) > 1 else 0.0
        after = min(k + 1, len(points.t) - 1)
        north[i] = points.north[k] + share * (points.north[after] - points.north[k])
        east[i] = points.east[k] + share * (points.east[after] - points.east[k])
    return Points(t, y, w, north, east)


@numba.njit(cache=True, nogil=True)
def means(points, last):
    """Weighted means of neighbours, as Points; last (n,) : the index of the last point in each."""
    n = len(last)
    t, y, w = np.zeros(n), np.zeros(n), np.zeros(n)
    first = 0
    for k in range(n):
        for i in range(first, last[k] + 1):
            w[k] += points.w[i]
            t[k] += points.w[i] * points.t[i]
            y[k] += points.w[i] * points.y[i]
        first = last[k] + 1
    return _with_offsets(points, t / w, y / w, w)


@numba.njit(cache=True, nogil=True)
def bins(points, per_bin):
    """Points that are weighted means of `per_bin` neighbours each."""
    n = (len(points.t) + per_bin - 1) // per_bin
    return means(points, np.minimum(np.arange(1, n + 1) * per_bin, len(points.t)) - 1)


@numba.njit(cache=True, nogil=True)
def compress(points, smooth, largest_change):
    """Averages of neighbours within which the `smooth` flux changes by less than `largest_change` errors of their mean.

    smooth : (n,), the noise-free flux or a model's.
    Returns Points and `last`, the index of the last epoch that each of them stands for.
    """
    t, y, w, _, _ = points
    n = len(t)
    tb, yb, wb, last = np.empty(n), np.empty(n), np.empty(n), np.empty(n, np.int64)
    m = i = 0
    while i < n:
        sw, st, sy = w[i], w[i] * t[i], w[i] * y[i]
        low = high = smooth[i]
        j = i + 1
        while j < n and j - i < LONGEST_BIN:
            lower, higher = min(low, smooth[j]), max(high, smooth[j])
            if (higher - lower) ** 2 * (sw + w[j]) > largest_change**2:
                break
            low, high = lower, higher
            sw += w[j]
            st += w[j] * t[j]
            sy += w[j] * y[j]
            j += 1
        tb[m], yb[m], wb[m], last[m] = st / sw, sy / sw, sw, j - 1
        m += 1
        i = j
    return _with_offsets(points, tb[:m], yb[:m], wb[:m]), last[:m]


@numba.njit(cache=True, nogil=True)
def _between(t, y, at, k):
    """Flux at time `at` between epochs k and k + 1, or later, linearly. Returns the flux and k."""
    while k < len(t) - 2 and t[k + 1] <= at:
        k += 1
    return y[k] + (y[k + 1] - y[k]) * (at - t[k]) / (t[k + 1] - t[k]), k


@numba.njit(cache=True, nogil=True)
def _straight_run(points, i, bend):
    """The longest run of neighbours from epoch i on within which the flux is straight.

    It keeps within `bend` errors of the run's mean from its chord.
    Returns the epoch after it, its weight, and the weighted mean and standard deviation of its times after epoch i.
    """
    t, y, w, _, _ = points
    sw, st, stt, turned, slope = w[i], 0.0, 0.0, 0.0, 0.0
    j = i + 1
    while j < len(t) and j - i < LONGEST_RUN:
        new = (y[j] - y[j - 1]) / (t[j] - t[j - 1])
        after = turned + abs(new - slope) if j > i + 1 else 0.0
        if (TURN_TO_DISTANCE * after * (t[j] - t[i])) ** 2 * (sw + w[j]) > bend**2:
            break
        turned, slope = after, new
        sw += w[j]
        st += w[j] * (t[j] - t[i])
        stt += w[j] * (t[j] - t[i]) ** 2
        j += 1
    mean = st / sw
    return j, sw, mean, np.sqrt(stt / sw - mean * mean)


@numba.njit(cache=True, nogil=True)
def sample(points, bend):
    """A noise-free curve by few points: two stand for each run of neighbours within which the flux is straight.

    A run's flux keeps within `bend` errors of its mean from its chord. Its points lie on the curve one standard
    deviation before and after its mean time, with half of its weight each (Gauss' rule with two nodes: the square of a
    residual that is straight in the run is summed exactly), so the residual to a smooth model may be as steep as the
    flux: several times fewer points than `compress` needs.
    Returns Points and `last`, the index of the last epoch that each of them stands for.
    """
    t, y = points.t, points.y
    n = len(t)
    ts, ys, ws, last = np.empty(n), np.empty(n), np.empty(n), np.empty(n, np.int64)
    m = i = 0
    while i < n:
        j, sw, mean, apart = _straight_run(points, i, bend)
        if j == i + 1:
            ts[m], ys[m], ws[m], last[m] = t[i], y[i], sw, i
            m += 1
        else:
            k = i
            for side in range(2):
                ts[m], ws[m] = t[i] + mean + (2 * side - 1) * apart, 0.5 * sw
                ys[m], k = _between(t, y, ts[m], k)
                last[m] = j - 1 if side == 1 else (i + j - 2) // 2
                m += 1
        i = j
    return _with_offsets(points, ts[:m], ys[:m], ws[:m]), last[:m]


def epochs_to_draw(t, y, residual=None, time_steps=220, flux_steps=FLUX_STEPS) -> np.ndarray:
    """Indices of the epochs to draw of a curve y (T,): equal steps of time and of the way that y goes up and down.

    So a narrow feature keeps its points, both sides of a jump are kept, and nothing is averaged or made up.
    time_steps : in the whole season, at least.   flux_steps : in the range of y.
    residual : (T,), in standard deviations; large ones are kept, too.
    """
    t, y = np.asarray(t, dtype=float), np.asarray(y, dtype=float)
    if len(t) < 3:
        return np.arange(len(t))
    change = np.abs(np.diff(y, prepend=y[0]))
    step = max(np.ptp(y) / flux_steps, change.sum() / (4 * flux_steps), 1e-12)
    way = np.diff(t, prepend=t[0]) / max(np.ptp(t), 1e-12) * time_steps + change / step
    if residual is not None:
        large = np.abs(residual) > LARGE
        way += large * min(1.0, 2 * flux_steps / max(large.sum(), 1))
    keep = np.diff(np.floor(np.cumsum(way)), prepend=-1) > 0
    keep[:-1] |= change[1:] > step  # the epoch before a jump
    return np.flatnonzero(keep)
