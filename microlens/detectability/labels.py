"""What an observer can know: delta chi^2 of noise-free curves, the moment at which an event becomes observable, the label.

    seen = observability(timestamps, flux_true, sigma, is_binary, start)

Noise-free delta chi^2 of a growing prefix never falls, so the moment at which it passes a threshold is found by bisection.
"""

from __future__ import annotations

import numba
import numpy as np

from microlens.config import CLASSES
from microlens.detectability.single_lens import (
    COMPRESSION,
    NO_START,
    _b0_table,
    _compress,
    _fit,
    _levenberg,
    fit_noise_free,
)

THRESHOLD_FLAT = 500.0  # literature value (second hand)
THRESHOLD_PSPL = 160.0  # Penny+ 2019 (second hand)
PREFIX_BINS = 500  # the search for the moment of observability coarsens the compression until no more are left


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
def _passes(t, y, w, threshold, warm, table, t_low, t_high):
    """Whether even the best single lens leaves chi^2 above the threshold. `warm` (3,) is tried first and kept up to date."""
    if len(t) < 5:
        return False
    p = np.empty(4)
    p[:3], p[3] = warm, -30.0
    c, _, _ = _levenberg(t, y, w, p, 3, table, 25, t_low, t_high)
    if c <= threshold:
        warm[:] = p[:3]
        return False
    start = np.empty((1, 3))
    start[0] = p[:3]
    _, c, _, _ = _fit(t, y, w, start, table, True, t_low, t_high)
    return c > threshold


@numba.njit(cache=True, nogil=True)
def _first_above(t, y, w, tb, yb, wb, last, threshold, p_full, table, t_low, t_high):
    """Index of the first epoch at which the prefix's delta chi^2 against a re-fitted single lens passes the threshold."""
    lo, hi = 0, len(tb)  # a prefix of lo bins is below, of hi bins above
    warm = p_full[:3].copy()
    while hi - lo > 1:
        mid = (lo + hi) // 2
        if _passes(tb[:mid], yb[:mid], wb[:mid], threshold, warm, table, t_low, t_high):
            hi = mid
        else:
            lo = mid
    first = last[lo - 1] + 1 if lo > 0 else 0
    a, b = first - 1, last[hi - 1]
    while b - a > 1:
        mid = (a + b) // 2
        m = lo + mid - first + 1
        ts, ys, ws = np.empty(m), np.empty(m), np.empty(m)
        ts[:lo], ys[:lo], ws[:lo] = tb[:lo], yb[:lo], wb[:lo]
        ts[lo:], ys[lo:], ws[lo:] = t[first : mid + 1], y[first : mid + 1], w[first : mid + 1]
        if _passes(ts, ys, ws, threshold, warm, table, t_low, t_high):
            b = mid
        else:
            a = mid
    return b


def observability(t, flux_true, sigma, is_binary, start=None, *, threshold_flat=THRESHOLD_FLAT, threshold_pspl=THRESHOLD_PSPL):
    """delta chi^2 and times of observability of one noise-free light curve.

    t (n,) days, flux_true (n,) F/F_base, sigma (n,) true errors: valid epochs only.   start : (t_0, t_E, u_0) to try first.
    Returns (delta_chi2_flat, delta_chi2_pspl, t_observable_flat, t_observable_pspl); the times are NaN where a threshold is
    never passed. delta_chi2_pspl is against the better of PSPL and FSPL, and 0 for an event that is no binary.
    """
    t, y, s = (np.ascontiguousarray(x, dtype=float) for x in (t, flux_true, sigma))
    w = 1 / s**2
    growing = _prefix_flat(y, w)
    flat = float(growing[-1])
    t_flat = float(t[np.searchsorted(growing, threshold_flat, side="right")]) if flat > threshold_flat else np.nan
    if not is_binary:
        return flat, 0.0, t_flat, np.nan
    tb, yb, wb, last = _compress(t, y, w, y, COMPRESSION)
    given = NO_START
    if start is not None:
        given = np.array([[start[0], np.log(start[1]), start[2]]])
    span = t[-1] - t[0]
    bounds = (t[0] - span, t[-1] + span)
    p, chi2, _, _ = _fit(tb, yb, wb, given, _b0_table(), True, *bounds)
    t_pspl = np.nan
    if chi2 > threshold_pspl:
        change = COMPRESSION
        while len(tb) > PREFIX_BINS and change < 8 * COMPRESSION:
            change *= 2
            tb, yb, wb, last = _compress(t, y, w, y, change)
        t_pspl = float(t[_first_above(t, y, w, tb, yb, wb, last, threshold_pspl, p, _b0_table(), *bounds)])
    return flat, float(chi2), t_flat, t_pspl


def prefix_delta_chi2(t, flux_true, sigma) -> float:
    """delta chi^2 of a noise-free curve (n,) against the best single lens; 0 for fewer than 5 epochs."""
    return fit_noise_free(t, flux_true, sigma).chi2 if len(t) >= 5 else 0.0


def observable_label(labels, delta_chi2_flat, delta_chi2_pspl, threshold_flat=THRESHOLD_FLAT, threshold_pspl=THRESHOLD_PSPL):
    """The class that an observer can know, (N,) int8, from what was simulated (N,) and both delta chi^2 (N,).

    flat if delta chi^2 against a constant <= threshold_flat; else binary if simulated binary and delta chi^2 > threshold_pspl
    against the best single lens; else pspl.
    """
    labels = np.asarray(labels)
    binary = (labels == CLASSES.index("binary")) & (np.asarray(delta_chi2_pspl) > threshold_pspl)
    out = np.where(binary, CLASSES.index("binary"), CLASSES.index("pspl"))
    flat = (np.asarray(delta_chi2_flat) <= threshold_flat) | (labels == CLASSES.index("flat"))
    return np.where(flat, CLASSES.index("flat"), out).astype(np.int8)


def largest_window(residual, windows=(8, 24, 72, 216)):
    """Largest chi^2 excess of a run of consecutive standardised residuals (n,), over window lengths, in standard deviations.

    Returns max over windows of (sum r^2 - m)/sqrt(2 m): sharper than the chi^2 of the whole curve for a short anomaly.
    """
    total = np.concatenate([[0.0], np.cumsum(np.square(np.asarray(residual, dtype=float)))])
    best = -np.inf
    for m in windows:
        if len(total) > m:
            best = max(best, float(((total[m:] - total[:-m]) - m).max() / np.sqrt(2 * m)))
    return best
