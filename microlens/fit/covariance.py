"""Single lenses through noise-free curves where the noise is correlated: the same questions as for white noise.

    few = correlated_points(curve, flux, correlation)      best = best_of(few, n, starts, table, bounds)
    growing = chi2_of_prefixes(every, a)                   delta chi^2 of every prefix, for one magnification curve a

The noise is white plus an Ornstein-Uhlenbeck process. Its covariance matrix is factorised once in O(n), and the
residual is whitened epoch by epoch: of each epoch what the epochs before have foretold is taken away (the innovations
of a Kalman filter; for this process its algebra is that of the semiseparable matrices of Foreman-Mackey et al. 2017).
What has been whitened depends on earlier epochs alone and linearly on the flux. So a prefix of the whitened flux is the
whitened prefix, delta chi^2 of all prefixes comes from one pass, and magnification, constant and derivatives are
whitened as the flux is.

Fits go through averages of neighbours, for which the covariance is exact while the flux within an average is constant;
delta chi^2 itself is that of all epochs.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from microlens.fit.kernels import (
    DAMPING_DOWN,
    DAMPING_UP,
    FIRST_DAMPING,
    LEAST_DAMPING,
    LN_T_E,
    PI_EE,
    POINT,
    RIDGE,
    T_0,
    TRIES,
    U_0,
    Bounds,
    Points,
    has_parallax,
    magnification,
    model,
    n_parameters,
    solution,
    stepped,
)
from microlens.fit.points import means, sample
from microlens.fit.single_lens import (
    BEND,
    FSPL_U_0,
    GAIN,
    MANY_STEPS,
    RHO_FACTORS,
    SMALLEST_START_RHO,
)

FLUX, CONSTANT, LENSED = range(3)
"""Columns that are whitened before the derivatives: the flux, the constant 1, the magnification."""

LEAST_SHARE = 1e-12  # of a column's square that must be left when a constant is fitted: less is rounding
LARGEST_EXPONENT = 50.0  # of what is summed in an average: one that lasts longer shares nothing with its neighbours


class Correlation(NamedTuple):
    """An Ornstein-Uhlenbeck process beside white noise: its standard deviation in white errors, and its time, d."""

    amplitude: float
    time: float


class CorrelatedPoints(NamedTuple):
    """Points whose noise is correlated, and the factors of its covariance matrix.

    points : of which y is the flux above that of the first epoch, and w the inverse variance of the white noise.
    last (n,) : the epoch, counted from 0, that is the last in each.
    decay, foretold, learnt, scale (n,) : with z the column times w^1/2 and v what is left of it when the forecast is
    taken away,  forecast_k = decay_k (forecast_(k-1) + learnt_(k-1) v_(k-1)),  v_k = z_k - foretold_k forecast_k;
    scale_k v_k are independent and of variance 1.
    """

    points: Points
    last: np.ndarray
    decay: np.ndarray
    foretold: np.ndarray
    learnt: np.ndarray
    scale: np.ndarray


@numba.njit(cache=True, nogil=True)
def correlated_points(curve, few, last, correlation):
    """The CorrelatedPoints of averages `few` of the curve's epochs, of which each ends with the epoch `last`.

    The covariance of the averages x_j, each over m_j epochs, of an Ornstein-Uhlenbeck process is amplitude^2 times
    late_j early_k exp(-(t_k - t_j)/time) for j < k, where late and early are the means of exp((t_i - t_j)/time) and of
    exp(-(t_i - t_k)/time) in the average, and times `own`, the mean over all pairs of its epochs, for j = k.
    """
    n, variance = len(few.t), correlation.amplitude**2
    decay, foretold, learnt, scale = np.empty(n), np.empty(n), np.empty(n), np.empty(n)
    known = first = 0
    before = few.t[0]
    uncertain = 0.0  # variance of the forecast
    for k in range(n):
        early = late = pairs = chain = 0.0
        m = last[k] + 1 - first
        for i in range(first, last[k] + 1):
            lag = min(max((curve.t[i] - few.t[k]) / correlation.time, -LARGEST_EXPONENT), LARGEST_EXPONENT)
            early += np.exp(-lag)
            late += np.exp(lag)
            if i > first:
                chain = (chain + 1) * np.exp(-(curve.t[i] - curve.t[i - 1]) / correlation.time)
                pairs += chain
        own = variance * (m + 2 * pairs) / m
        foretold[k], late = variance * early / np.sqrt(m), late / np.sqrt(m)
        decay[k] = np.exp(-(few.t[k] - before) / correlation.time)
        if k > 0:
            known = decay[k] ** 2 * (known + learnt[k - 1] ** 2 / scale[k - 1] ** 2)
        uncertain = 1 + own - foretold[k] ** 2 * known
        learnt[k] = (late - foretold[k] * known) / uncertain
        scale[k] = 1 / np.sqrt(uncertain)
        first, before = last[k] + 1, few.t[k]
    shifted = Points(few.t, few.y - few.y[0], few.w, few.north, few.east)
    return CorrelatedPoints(shifted, last, decay, foretold, learnt, scale)


@numba.njit(cache=True, nogil=True)
def every_epoch(curve, correlation):
    """The CorrelatedPoints of all epochs of a curve."""
    return correlated_points(curve, curve, np.arange(len(curve.t)), correlation)


@numba.njit(cache=True, nogil=True)
def averages(curve, correlation):
    """The CorrelatedPoints of averages of neighbours within which a noise-free curve is straight."""
    _, last = sample(curve, BEND)
    return correlated_points(curve, means(curve, last), last, correlation)


@numba.njit(cache=True, nogil=True)
def whitened(points, columns):
    """Columns (k, n) of fluxes at the points, transformed (n, k) such that their noise is independent, of variance 1."""
    k, n = columns.shape
    out, left, forecast = np.empty((n, k)), np.zeros(k), np.zeros(k)
    w, learnt = points.points.w, 0.0
    for i in range(n):
        root, decay, foretold, scale = np.sqrt(w[i]), points.decay[i], points.foretold[i], points.scale[i]
        for j in range(k):
            forecast[j] = decay * (forecast[j] + learnt * left[j])
            left[j] = root * columns[j, i] - foretold * forecast[j]
            out[i, j] = scale * left[j]
        learnt = points.learnt[i]
    return out


@numba.njit(cache=True, nogil=True)
def chi2_of_prefixes(points, a):
    """chi^2 of every prefix of the points, (n,), against F_s a + F_b with its best fluxes, F_s >= 0.

    a (n,) : a magnification, or a constant for chi^2 against the best constant.
    """
    n = len(a)
    columns = np.ones((3, n))
    columns[FLUX], columns[LENSED] = points.points.y, a - a[0]
    rows, out = whitened(points, columns), np.empty(n)
    yy = yo = ya = oo = oa = aa = 0.0
    for i in range(n):
        y, one, lensed = rows[i]
        yy += y * y
        yo += y * one
        ya += y * lensed
        oo += one * one
        oa += one * lensed
        aa += lensed * lensed
        chi2, gain, strength = yy - yo * yo / oo, ya - yo * oa / oo, aa - oa * oa / oo
        if gain > 0 and strength > LEAST_SHARE * aa:
            chi2 -= gain * gain / strength
        out[i] = max(chi2, 0.0)
    return out


@numba.njit(cache=True, nogil=True)
def _products(points, n, p, table):
    """Scalar products (3 + n_parameters, same) of the whitened columns of the first n points, derivatives last."""
    first = points.points
    first = Points(first.t[:n], first.y[:n], first.w[:n], first.north[:n], first.east[:n])
    columns = np.ones((3 + n_parameters(p), n))
    columns[FLUX] = first.y
    model(first, p, table, columns[LENSED], columns[LENSED + 1 :])
    columns[LENSED] -= columns[LENSED, 0]
    rows = whitened(points, columns)
    k = len(columns)
    out = np.zeros((k, k))
    for i in range(n):
        row = rows[i]
        for j in range(k):
            for other in range(j + 1):
                out[j, other] += row[j] * row[other]
    for j in range(k):
        for other in range(j):
            out[other, j] = out[j, other]
    return out


@numba.njit(cache=True, nogil=True)
def _without(products, j):
    """The products of what is left of the columns when their projections on column j are taken away."""
    return products - np.outer(products[:, j], products[j]) / products[j, j]


class Step(NamedTuple):
    """What a Levenberg-Marquardt step starts from: chi^2, normal matrix and right side (Kaufman's form)."""

    chi2: float
    matrix: np.ndarray
    right: np.ndarray


@numba.njit(cache=True, nogil=True)
def _step_from(points, n, p, table):
    """The Step of the single lens p and the first n points; one to nowhere where the source flux would be negative."""
    left = _without(_products(points, n, p, table), CONSTANT)
    strength, gain, chi2 = left[LENSED, LENSED], left[LENSED, FLUX], left[FLUX, FLUX]
    k = len(left)
    if not (gain > 0 and strength > 0):
        return Step(chi2, np.zeros((k - 3, k - 3)), np.zeros(k - 3))
    f_source = gain / strength
    left = _without(left, LENSED)
    derivatives = left[LENSED + 1 :]
    return Step(max(left[FLUX, FLUX], 0.0), f_source**2 * derivatives[:, LENSED + 1 :], f_source * derivatives[:, FLUX])


@numba.njit(cache=True, nogil=True)
def improve(points, n, p, table, steps, bounds, target=0.0):
    """Improve the single lens p in place by so many Levenberg-Marquardt steps at most.

    These are the steps of kernels.levenberg_marquardt, of whitened columns.   target : chi^2 at which to stop.
    Returns the chi^2 of the first n points that was reached.
    """
    trial, damping = p.copy(), FIRST_DAMPING
    now = _step_from(points, n, p, table)
    n_par = len(now.right)
    for _ in range(steps):
        better = False
        for _try in range(TRIES):
            m, promised = now.matrix.copy(), 0.0
            for j in range(n_par):
                m[j, j] += damping * now.matrix[j, j] + RIDGE
            step = solution(m, now.right)
            for j in range(n_par):
                promised += now.right[j] * step[j]
            if now.chi2 <= target or promised < GAIN.chi2 + GAIN.share * now.chi2:
                return now.chi2
            stepped(p, step, bounds, trial)
            found = _step_from(points, n, trial, table)
            if found.chi2 < now.chi2:
                better, now = True, found
                p[:n_par] = trial[:n_par]
                damping = max(damping * DAMPING_DOWN, LEAST_DAMPING)
                break
            damping *= DAMPING_UP
        if not better:
            break
    return now.chi2


# ---- the best single lens -------------------------------------------------------------------------------------------


class Reached(NamedTuple):
    """A single lens p and the chi^2 that it reaches."""

    p: np.ndarray
    chi2: float


@numba.njit(cache=True, nogil=True)
def _starts(p, given):
    """Single lenses (k, 4) or (k, 6) to start from: p, its mirror where it has parallax, other radii, those given.

    given : (m, 5) t_0, ln t_E, u_0, pi_EN, pi_EE of further starts, which are point sources.
    """
    bent = has_parallax(p)
    out = np.zeros((5 + len(given), len(p)))
    out[:5] = p
    k = 1
    if bent:
        out[k, U_0] = -p[U_0]
        k += 1
    if p[-1] > POINT:
        out[k, -1] = POINT
        k += 1
    if abs(p[U_0]) < FSPL_U_0:
        for factor in RHO_FACTORS:
            out[k, -1] = np.log(max(factor * abs(p[U_0]), SMALLEST_START_RHO))
            k += 1
    for row in given:
        out[k, -1] = POINT
        out[k, T_0], out[k, LN_T_E], out[k, U_0] = row[T_0], row[LN_T_E], row[U_0] if bent else abs(row[U_0])
        if bent:
            out[k, U_0 + 1 : PI_EE + 1] = row[U_0 + 1 : PI_EE + 1]
        k += 1
    return out[:k]


@numba.njit(cache=True, nogil=True)
def best_of(points, n, starts, table, bounds, target=0.0):
    """The best single lens through the first n points, fitted from several starts (k, 4) or (k, 6), as Reached.

    target : chi^2 below which the rest of the starts is left.
    """
    best = Reached(starts[0].copy(), np.inf)
    for start in starts:
        p = start.copy()
        chi2 = improve(points, n, p, table, MANY_STEPS, bounds)
        if chi2 < best.chi2:
            best = Reached(p, chi2)
        if best.chi2 < target:
            break
    return best


class Growing(NamedTuple):
    """A noise-free curve under correlated noise.

    every, few : CorrelatedPoints of all epochs and of averages.   given : (k, 5) starts of fits.   table, bounds : of
    the fits, the bounds those of the single lenses that are fitted.
    """

    every: CorrelatedPoints
    few: CorrelatedPoints
    given: np.ndarray
    table: np.ndarray
    bounds: Bounds


@numba.njit(cache=True, nogil=True)
def best_single_lens(growing, p):
    """The best single lens through a whole curve, fitted from p, the one under white noise, as Reached.

    Its chi^2 is that of all epochs.
    """
    few, n = growing.few, len(growing.few.last)
    best = best_of(few, n, _starts(p, growing.given), growing.table, growing.bounds)
    return Reached(best.p, chi2_against(growing, best.p)[-1])


@numba.njit(cache=True, nogil=True)
def chi2_against(growing, p):
    """chi^2 (n,) of the prefixes of all epochs against the single lens p with its best fluxes."""
    return chi2_of_prefixes(growing.every, magnification(growing.every.points, p, growing.table))


@numba.njit(cache=True, nogil=True)
def epoch_above(growing, p, threshold):
    """The epoch at which delta chi^2 of the growing prefix passes the threshold, its best single lens fitted anew.

    p : the single lens to begin with, changed in place to the last one fitted.
    Returns the number of epochs where none is. The search is that of observable: any single lens bounds the delta chi^2
    of all prefixes from above, and a fit to the prefix at the crossing moves it to the right, until it gains nothing.
    """
    n = len(growing.every.last)
    while True:
        k = np.searchsorted(chi2_against(growing, p), threshold, side="right")
        if k == n:
            return n
        n_few = np.searchsorted(growing.few.last, k) + 1
        best = best_of(growing.few, n_few, _starts(p, growing.given), growing.table, growing.bounds)
        if chi2_against(growing, best.p)[k] > threshold:
            return k
        p[:] = best.p
