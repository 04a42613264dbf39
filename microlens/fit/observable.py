"""What an observer can know: delta chi^2 of noise-free curves, the moment at which an event becomes observable, the label.

    seen = observability(timestamps, flux_true, sigma, is_binary, start)

Noise-free delta chi^2 of a growing prefix never falls, and any single lens bounds that of all prefixes from above: the moment at
which it passes a threshold is found from below, in a few fits.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from microlens.config import BINARY, FLAT, PSPL, THRESHOLD_FLAT, THRESHOLD_PREMATURE, THRESHOLD_PSPL
from microlens.fit.kernels import _b0_table, _levenberg, _magnification, _through
from microlens.fit.points import _compress
from microlens.fit.single_lens import (
    AGREE,
    COMPRESSION,
    NO_START,
    WORTH,
    WORTH_OF,
    _fit,
    _fit_noise_free,
    _span,
    fit_noise_free,
)

SHORTEST = 5  # epochs that a single lens does not fit exactly
SLACK = 4  # epochs by which few points may find it late
CLIMB_STEPS = 4  # Levenberg-Marquardt steps after which a prefix below the threshold is left


@numba.njit(cache=True, nogil=True)
def _prefix_flat(y, w):
    """delta chi^2 against a constant of every prefix, (n,)."""
    out = np.empty(len(y))
    sw, mean, total = 0.0, 0.0, 0.0
    for i in range(len(y)):
        sw += w[i]
        delta = y[i] - mean
        mean += delta * w[i] / sw
        total += w[i] * delta * (y[i] - mean)
        out[i] = total
    return out


def delta_chi2_flat(flux, sigma) -> np.ndarray:
    """delta chi^2 of a noise-free curve against the best constant, for every prefix of its valid epochs.

    flux, sigma : (n,) valid epochs only.   Returns (n,), never falling; the last is that of the whole curve.
    """
    return _prefix_flat(np.asarray(flux, dtype=float), 1 / np.asarray(sigma, dtype=float) ** 2)


@numba.njit(cache=True, nogil=True)
def _crossing(t, y, w, p, table, threshold, begin):
    """Length of the shortest prefix, longer than `begin`, whose chi^2 against the single lens p with its best fluxes passes the
    threshold; len(t) + 1 if none does.
    """
    a = _magnification(t, p, table)
    sw = ma = my = saa = say = syy = 0.0
    for i in range(len(t)):
        sw += w[i]
        da, dy = a[i] - ma, y[i] - my
        ma += da * w[i] / sw
        my += dy * w[i] / sw
        saa += w[i] * da * (a[i] - ma)
        say += w[i] * da * (y[i] - my)
        syy += w[i] * dy * (y[i] - my)
        chi2 = syy - say * say / saa if say > 0 and saa > 0 else syy
        if i >= begin and chi2 > threshold:
            return i + 1
    return len(t) + 1


@numba.njit(cache=True, nogil=True)
def _climb(t, y, w, p, below, table, threshold, begin, low, high):
    """Length of the shortest prefix, longer than `begin`, that stays above the threshold when p is fitted to it.

    Changes p in place, and `below` to the single lens that keeps all shorter prefixes below.

    Any single lens bounds the delta chi^2 of all prefixes from above, so no prefix before its crossing can have passed. A fit to
    the prefix at the crossing moves the crossing to the right, in ever smaller steps, until it gains nothing.
    """
    n = len(t)
    while True:
        m = _crossing(t, y, w, p, table, threshold, begin)
        if m > n:
            return m
        for steps in (CLIMB_STEPS, 25):
            c = _levenberg(t[:m], y[:m], w[:m], p, table, steps, low, high, WORTH, WORTH_OF)[0]
            if c <= threshold:
                break
        else:
            return m
        below[:] = p
        begin = m


@numba.njit(cache=True, nogil=True)
def _first_above(t, y, w, ts, ys, ws, last, threshold, p, given, table, low, high):
    """Index of the first epoch at which the prefix's delta chi^2 against a re-fitted single lens passes the threshold.

    ts, ys, ws, last : few points that stand for the curve; p (4,) its best single lens.   Returns that index, len(t) if there is
    none, and the single lens (4,) that keeps the prefix before it below.
    """
    starts = np.empty((len(given) + 1, 3))
    starts[1:] = given
    p, below = p.copy(), p.copy()
    known = SHORTEST - 1  # the prefix of so many epochs is below
    k = 0  # points that end within it
    while True:
        m = _climb(ts, ys, ws, p, below, table, threshold, k, low, high)
        if m > len(ts):
            return len(t), below
        # Epoch by epoch within the run in which it passes.
        first = last[m - 2] + 1 if m > 1 else 0
        extra = last[m - 1] + 1 - first
        te, ye, we = np.empty(m - 1 + extra), np.empty(m - 1 + extra), np.empty(m - 1 + extra)
        te[: m - 1], ye[: m - 1], we[: m - 1] = ts[: m - 1], ys[: m - 1], ws[: m - 1]
        part = slice(first, first + extra)
        te[m - 1 :], ye[m - 1 :], we[m - 1 :] = t[part], y[part], w[part]
        begin = max(known - first, 0) + m - 1
        at = min(_climb(te, ye, we, p, below, table, threshold, begin, low, high), len(te))
        starts[0] = p[:3]
        best, c, _, _ = _fit(te[:at], ye[:at], we[:at], starts, table, low, high)
        known = first + at - (m - 1)
        if c > threshold:
            return known - 1, below
        p[:], below[:] = best, best
        k = m if at == len(te) else m - 1


class Observability(NamedTuple):
    """What an observer can know of one event.

    delta_chi2_flat, delta_chi2_pspl : of the noise-free curve against a constant and against the best single lens, 0 for an event
    that is no binary.   t_observable_flat, t_observable_pspl, t_premature : days at which the growing prefix passes
    THRESHOLD_FLAT against a constant, THRESHOLD_PSPL and THRESHOLD_PREMATURE against the best single lens; NaN if never.
    """

    delta_chi2_flat: float
    delta_chi2_pspl: float
    t_observable_flat: float
    t_observable_pspl: float
    t_premature: float


NEVER_OBSERVABLE = Observability(0.0, 0.0, np.nan, np.nan, np.nan)


def observability(t, flux_true, sigma, is_binary, start=None, limb_darkening=0.0) -> Observability:
    """delta chi^2 and times of observability of one noise-free light curve.

    t (n,) days, flux_true (n,) F/F_base, sigma (n,) true errors: valid epochs only.   start : (t_0, t_E, u_0) to try first.
    limb_darkening : linear coefficient of the source, for the FSPL that is fitted.
    """
    t, y, s = (np.ascontiguousarray(x, dtype=float) for x in (t, flux_true, sigma))
    w = 1 / s**2
    growing = _prefix_flat(y, w)
    flat = float(growing[-1])
    t_flat = float(t[np.searchsorted(growing, THRESHOLD_FLAT, side="right")]) if flat > THRESHOLD_FLAT else np.nan
    if not is_binary:
        return Observability(flat, 0.0, t_flat, np.nan, np.nan)
    given = NO_START if start is None else np.array([[start[0], np.log(start[1]), start[2]]])
    table, bounds = _b0_table(limb_darkening), _span(t)
    p, chi2, _, _, *points = _fit_noise_free(t, y, w, given, table, *bounds)
    times = [_time_above(t, y, w, points, threshold, p, given, table, bounds) if chi2 > threshold else np.nan
             for threshold in (THRESHOLD_PSPL, THRESHOLD_PREMATURE)]
    return Observability(flat, float(chi2), t_flat, *times)


def _time_above(t, y, w, points, threshold, p, given, table, bounds) -> float:
    """The epoch, days, at which the growing prefix passes the threshold against a re-fitted single lens."""
    first, below = _first_above(t, y, w, *points, threshold, p, given, table, *bounds)
    n = max(first - SLACK, 0)
    if n > 0 and _through(t[:n], y[:n], w[:n], below, table)[2] > (1 + AGREE) * threshold:  # not so between the points
        points = _compress(t, y, w, y, COMPRESSION)
        first, _ = _first_above(t, y, w, *points, threshold, p, given, table, *bounds)
    return float(t[min(first, len(t) - 1)])


def prefix_delta_chi2(t, flux_true, sigma) -> float:
    """delta chi^2 of a noise-free curve (n,) against the best single lens; 0 for fewer than 5 epochs."""
    return fit_noise_free(t, flux_true, sigma).chi2 if len(t) >= 5 else 0.0


def observable_label(labels, delta_chi2_flat, delta_chi2_pspl):
    """The class that an observer can know, (N,) int8, from what was simulated (N,) and both delta chi^2 (N,).

    flat if delta chi^2 against a constant <= THRESHOLD_FLAT; else binary if simulated binary and delta chi^2 > THRESHOLD_PSPL
    against the best single lens; else pspl.
    """
    labels = np.asarray(labels)
    binary = (labels == BINARY) & (np.asarray(delta_chi2_pspl) > THRESHOLD_PSPL)
    flat = (np.asarray(delta_chi2_flat) <= THRESHOLD_FLAT) | (labels == FLAT)
    return np.where(flat, FLAT, np.where(binary, BINARY, PSPL)).astype(np.int8)
