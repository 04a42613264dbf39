"""Single lenses through noise-free curves where the noise is correlated: the same questions as for white noise.

    correlated = correlated_curve(curve, Correlation(0.3, 1.0))
    chi2_of_prefixes(correlated, a)              delta chi^2 of every prefix against a magnification a, or a constant
    growing = growing_curve(curve, correlated, given, table, bounds)
    best = best_single_lens(growing, p, 0.0)     best.p, best.chi2
    k = epoch_above(growing, best.p, 160.0)      the epoch at which delta chi^2 passes 160

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
    T_0,
    TRIES,
    U_0,
    Bounds,
    Points,
    bounds_with_parallax,
    damped_step,
    has_parallax,
    magnification,
    model,
    n_parameters,
    prefix,
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
    fit_curve,
)

FLUX, CONSTANT, LENSED = range(3)
"""Columns that are whitened before the derivatives: the flux, the constant 1, the magnification."""

ENOUGH = 0.9  # share of a threshold at which a prefix is below it and its fit need not be the best
LEAST_SHARE = 1e-12  # of a column's square that must be left when a constant is fitted: less is rounding
FEW_STEPS = np.int64(8)  # Levenberg-Marquardt steps that choose between starts


class Correlation(NamedTuple):
    """An Ornstein-Uhlenbeck process beside white noise: its standard deviation in white errors, and its time, d."""

    amplitude: float
    time: float


class CorrelatedPoints(NamedTuple):
    """Points whose noise is correlated, and the factors of its covariance matrix.

    points : of which y is the flux above that of the first epoch, and w the inverse variance of the white noise.
    decay, inside, foretold, learnt, scale (n,) : with z a column times w^1/2 and v what is left of it when the forecast
    is taken away,

        forecast_k = decay_k (inside_(k-1) forecast_(k-1) + learnt_(k-1) v_(k-1)),   v_k = z_k - foretold_k forecast_k

    and scale_k v_k are independent and of variance 1.
    """

    points: Points
    decay: np.ndarray
    inside: np.ndarray
    foretold: np.ndarray
    learnt: np.ndarray
    scale: np.ndarray


@numba.njit(cache=True, nogil=True)
def memory_between(t, correlation):
    """exp(-(t_i - t_(i-1))/time) of epochs t (n,); 0 for the first."""
    out = np.zeros(len(t))
    for i in range(1, len(t)):
        out[i] = np.exp((t[i - 1] - t[i]) / correlation.time)
    return out


@numba.njit(cache=True, nogil=True)
def correlated_points(few, last, memory, amplitude):
    """The CorrelatedPoints of averages `few` of epochs, of which each ends with the epoch `last`.

    memory : of the epochs, from memory_between.   amplitude : of the Ornstein-Uhlenbeck process, in white errors.
    The covariance of averages j < k is amplitude^2 late_j early_k exp(-d/time): d is the time from the last epoch of j
    to the first of k, late_j the mean of exp(-d/time) from each epoch of j to its last, early_k the mean from the first
    of k to each of its epochs; for j = k it is the mean over all pairs of epochs.
    """
    n = len(last)
    decay, inside, foretold, learnt, scale = np.empty(n), np.empty(n), np.empty(n), np.empty(n), np.empty(n)
    known = variance = 0.0  # variances of the forecast, and of what is left of an average when it is taken away
    first = 0
    for k in range(n):
        m = last[k] + 1 - first
        since_first = early = late = 1.0
        pairs = 0.0
        for i in range(first + 1, last[k] + 1):
            since_first *= memory[i]
            early += since_first
            pairs += late * memory[i]
            late = 1 + late * memory[i]
        if m > 1:
            early, late = early / np.sqrt(m), late / np.sqrt(m)
        early *= amplitude**2
        decay[k], inside[k], foretold[k] = memory[first], since_first, early
        if k > 0:
            known = decay[k] ** 2 * (inside[k - 1] ** 2 * known + learnt[k - 1] ** 2 * variance)
        variance = 1 + amplitude**2 * (1 + 2 * pairs / m) - early**2 * known
        learnt[k] = (late - early * known * inside[k]) / variance
        scale[k] = 1 / np.sqrt(variance)
        first = last[k] + 1
    shifted = Points(few.t, few.y - few.y[0], few.w, few.north, few.east)
    return CorrelatedPoints(shifted, decay, inside, foretold, learnt, scale)


@numba.njit(cache=True, nogil=True)
def whitened(points, columns):
    """Columns (k, n) of fluxes at the points, made (n, k) such that their noise is independent and of variance 1."""
    k, n = columns.shape
    out, left, forecast = np.empty((n, k)), np.zeros(k), np.zeros(k)
    w, learnt, inside = points.points.w, 0.0, 0.0
    for i in range(n):
        root, decay, foretold, scale = np.sqrt(w[i]), points.decay[i], points.foretold[i], points.scale[i]
        for j in range(k):
            forecast[j] = decay * (inside * forecast[j] + learnt * left[j])
            left[j] = root * columns[j, i] - foretold * forecast[j]
            out[i, j] = scale * left[j]
        learnt, inside = points.learnt[i], points.inside[i]
    return out


class CorrelatedCurve(NamedTuple):
    """A curve under correlated noise.

    every : CorrelatedPoints of all its epochs.   flux (n, 2) : the whitened flux and the whitened constant 1.
    memory, amplitude : of the noise.
    """

    every: CorrelatedPoints
    flux: np.ndarray
    memory: np.ndarray
    amplitude: float


@numba.njit(cache=True, nogil=True)
def correlated_curve(curve, correlation):
    """The CorrelatedCurve of the Points of a curve."""
    n = len(curve.t)
    memory = memory_between(curve.t, correlation)
    every = correlated_points(curve, np.arange(n), memory, correlation.amplitude)
    columns = np.ones((2, n))
    columns[FLUX] = every.points.y
    return CorrelatedCurve(every, whitened(every, columns), memory, correlation.amplitude)


@numba.njit(cache=True, nogil=True)
def chi2_of_prefixes(curve, a, enough=np.inf):
    """chi^2 of the prefixes of a CorrelatedCurve, (n,), against F_s a + F_b with its best fluxes, F_s >= 0.

    a (n,) : a magnification, or a constant for chi^2 against the best constant.
    enough : chi^2 above which the rest is not wanted and is infinite.
    """
    out = np.full(len(a), np.inf)
    every, flux, w = curve.every, curve.flux, curve.every.points.w
    left = forecast = learnt = inside = 0.0
    yy = yo = ya = oo = oa = aa = 0.0
    for i in range(len(a)):
        forecast = every.decay[i] * (inside * forecast + learnt * left)
        left = np.sqrt(w[i]) * (a[i] - a[0]) - every.foretold[i] * forecast
        learnt, inside = every.learnt[i], every.inside[i]
        y, one, magnified = flux[i, FLUX], flux[i, CONSTANT], every.scale[i] * left
        yy += y * y
        yo += y * one
        ya += y * magnified
        oo += one * one
        oa += one * magnified
        aa += magnified * magnified
        chi2, gain, strength = yy - yo * yo / oo, ya - yo * oa / oo, aa - oa * oa / oo
        if gain > 0 and strength > LEAST_SHARE * aa:
            chi2 -= gain * gain / strength
        out[i] = max(chi2, 0.0)
        if chi2 > enough:
            break
    return out


# ---- the best single lens -------------------------------------------------------------------------------------------


@numba.njit(cache=True, nogil=True)
def _products(points, p, table):
    """Scalar products (3 + n_parameters, same) of the whitened columns, derivatives last."""
    n = len(points.scale)
    columns = np.ones((3 + n_parameters(p), n))
    columns[FLUX] = points.points.y
    model(points.points, p, table, columns[LENSED], columns[LENSED + 1 :])
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
    out, k = np.empty_like(products), len(products)
    for i in range(k):
        for other in range(k):
            out[i, other] = products[i, other] - products[i, j] * products[j, other] / products[j, j]
    return out


class Step(NamedTuple):
    """What a Levenberg-Marquardt step starts from: chi^2, normal matrix and right side (Kaufman's form)."""

    chi2: float
    matrix: np.ndarray
    right: np.ndarray


@numba.njit(cache=True, nogil=True)
def _step_from(points, p, table):
    """The Step of the single lens p through the points; one to nowhere where the source flux would be negative."""
    left = _without(_products(points, p, table), np.int64(CONSTANT))
    strength, gain, chi2 = left[LENSED, LENSED], left[LENSED, FLUX], left[FLUX, FLUX]
    k = len(left)
    if not (gain > 0 and strength > 0):
        return Step(chi2, np.zeros((k - 3, k - 3)), np.zeros(k - 3))
    f_source = gain / strength
    left = _without(left, np.int64(LENSED))
    derivatives = left[LENSED + 1 :]
    return Step(max(left[FLUX, FLUX], 0.0), f_source**2 * derivatives[:, LENSED + 1 :], f_source * derivatives[:, FLUX])


@numba.njit(cache=True, nogil=True)
def improve(points, p, table, steps, bounds):
    """Improve the single lens p in place by so many Levenberg-Marquardt steps at most.

    These are the steps of kernels.levenberg_marquardt, of whitened columns. Returns the chi^2 that was reached.
    """
    trial, damping = p.copy(), FIRST_DAMPING
    now = _step_from(points, p, table)
    n_par = len(now.right)
    for _ in range(steps):
        better = False
        for _try in range(TRIES):
            step, promised = damped_step(now.matrix, now.right, damping)
            if promised < GAIN.chi2 + GAIN.share * now.chi2:
                return now.chi2
            stepped(p, step, bounds, trial)
            found = _step_from(points, trial, table)
            if found.chi2 < now.chi2:
                better, now = True, found
                p[:n_par] = trial[:n_par]
                damping = max(damping * DAMPING_DOWN, LEAST_DAMPING)
                break
            damping *= DAMPING_UP
        if not better:
            break
    return now.chi2


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
def best_of(points, starts, table, bounds, enough):
    """The best single lens through the points, fitted from several starts (k, 4) or (k, 6), as Reached.

    The first makes many steps, the others a few, and the one that is then the best of these many, too.
    enough : chi^2 below which the starts that are left are not tried.
    """
    first = improve(points, starts[0], table, MANY_STEPS, bounds)
    chi2 = np.full(len(starts), np.inf)
    for k in range(1, len(starts)):
        if first < enough or chi2.min() < enough:
            break
        chi2[k] = improve(points, starts[k], table, FEW_STEPS, bounds)
    other = np.argmin(chi2)
    if other > 0 and chi2[other] >= enough:
        chi2[other] = improve(points, starts[other], table, MANY_STEPS, bounds)
    return Reached(starts[other], chi2[other]) if chi2[other] < first else Reached(starts[0], first)


# ---- the growing curve ----------------------------------------------------------------------------------------------


class Growing(NamedTuple):
    """A noise-free curve under correlated noise, of which more and more is seen.

    curve, correlated : its Points and its CorrelatedCurve.   last : the last epoch of each of the averages within which
    the curve is straight.   given : (k, 5) starts of fits.   table, bounds : of the fits, the bounds without parallax.
    """

    curve: Points
    correlated: CorrelatedCurve
    last: np.ndarray
    given: np.ndarray
    table: np.ndarray
    bounds: Bounds


@numba.njit(cache=True, nogil=True)
def growing_curve(curve, correlated, given, table, bounds):
    """The Growing of a noise-free curve, its Points with the Sun's offsets where single lenses have parallax."""
    _, last = sample(curve, BEND)
    return Growing(curve, correlated, last, given, table, bounds)


@numba.njit(cache=True, nogil=True)
def averages(growing, n):
    """The CorrelatedPoints of the first n epochs: averages within which the curve is straight, then what fills none."""
    last = growing.last
    n_whole = np.searchsorted(last, n - 1, side="right")
    first = last[n_whole - 1] + 1 if n_whole > 0 else 0
    ends = np.concatenate((last[:n_whole], np.arange(first, n)))
    noise = growing.correlated
    return correlated_points(means(growing.curve, ends), ends, noise.memory, noise.amplitude)


@numba.njit(cache=True, nogil=True)
def _bounds_of(growing, p):
    """The bounds of single lenses like p, with or without parallax."""
    return bounds_with_parallax(growing.bounds) if has_parallax(p) else growing.bounds


@numba.njit(cache=True, nogil=True)
def _chi2_against(growing, p):
    """chi^2 of all epochs against the single lens p with its best fluxes."""
    return chi2_of_prefixes(growing.correlated, magnification(growing.curve, p, growing.table))[-1]


@numba.njit(cache=True, nogil=True)
def _crossing(growing, p, threshold):
    """The first epoch at which chi^2 against the single lens p passes the threshold; the number of all if none is."""
    a = magnification(growing.curve, p, growing.table)
    return np.searchsorted(chi2_of_prefixes(growing.correlated, a, threshold), threshold, side="right")


@numba.njit(cache=True, nogil=True)
def best_single_lens(growing, p, enough):
    """The best single lens through a whole curve, fitted from p, the one under white noise, as Reached.

    Its chi^2 is that of all epochs.   enough : see best_of.
    """
    starts = _starts(p, growing.given)
    best = best_of(averages(growing, len(growing.curve.t)), starts, growing.table, _bounds_of(growing, p), enough)
    return Reached(best.p, _chi2_against(growing, best.p))


@numba.njit(cache=True, nogil=True)
def epoch_above(growing, p, threshold):
    """The epoch at which delta chi^2 of the growing prefix passes the threshold, its best single lens fitted anew.

    p : the single lens to begin with, changed in place to the best one of the prefix that is above.
    Returns the number of epochs where none is. The search is that of observable: any single lens bounds the delta chi^2
    of all prefixes from above, and a fit to the prefix at the crossing moves it to the right, until it gains nothing.
    """
    n = len(growing.curve.t)
    bounds = _bounds_of(growing, p)
    given = np.zeros((len(growing.given) + 2, PI_EE + 1))
    given[2:] = growing.given
    n_given = len(p) - 1  # parameters of a lens that a start states: all but ln rho
    given[1, :n_given] = p[:n_given]
    k = _crossing(growing, p, threshold)
    while k < n:
        before, points = k, averages(growing, k + 1)
        improve(points, p, growing.table, MANY_STEPS, bounds)
        k = _crossing(growing, p, threshold)
        if k > before:
            continue
        given[0, :n_given] = p[:n_given]
        white, _, _ = fit_curve(prefix(growing.curve, before + 1), given, growing.table, growing.bounds)
        p[:] = best_of(points, _starts(white.p, given), growing.table, bounds, ENOUGH * threshold).p
        k = _crossing(growing, p, threshold)
        if k <= before:
            return before
    return n
