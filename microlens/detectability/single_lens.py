"""Single-lens fits: PSPL and FSPL by variable projection and Levenberg-Marquardt from several starts, as compiled kernels.

    fit = fit_single_lens(t, flux, sigma)             fit.chi2, fit.t_0, fit.u_0, fit.t_E, fit.rho, fit.f_source, fit.f_blend
    model = single_lens_model(t, fit)

A light curve is F = F_s A(t; t_0, u_0, t_E[, rho]) + F_b. The two fluxes enter linearly and are solved exactly for every trial
(variable projection, Golub & Pereyra 1973, in Kaufman's form), with F_s >= 0. The finite source uses
A_FS(u, rho) = A(u) B0(u/rho) (Gould 1994; Yoo et al. 2004), good to about rho^2.

Points are averaged first where nothing is lost by it: a noise-free curve where it changes by less than a small fraction of the
common error of neighbours, noisy points where the fitted single lens does.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numba
import numpy as np

from microlens.magnification import fspl_at

B0_MAX, B0_STEP = 40.0, 0.01
COMPRESSION = 0.35  # largest flux change inside a bin, in errors of the bin's mean
BEND, LONGEST = 1.0, 192  # largest bend of the flux inside a run (errors of its mean), largest number of its epochs
AGREE = 0.05  # relative difference of chi^2 over few points and over many up to which the few will do
MAX_BIN = 64
FSPL_CHI2 = 200.0  # delta chi^2 against a constant below which a finite source cannot be seen
FSPL_U_0 = 0.3  # a finite source matters only for a lens passing this close
FINE_BINS, FINE_STEPS = 100, 5  # coarse bins and Levenberg-Marquardt steps that choose a start, noise-free curves
LEAST_GAIN = 1e-2  # in chi^2, of a step that is followed by another, noise-free curves
START_BINS, COARSE_STEPS = 200, 10  # the same for noisy points
SHARP, POOR = 0.05, 10.0  # |u_0| below and excess chi^2 (standard deviations) above which a noisy fit is tried again
SHARP_STARTS = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)



class SingleLensFit(NamedTuple):
    """Best single lens through one light curve. chi2 : of the points given; rho = 0 means a point source."""

    chi2: float
    t_0: float
    u_0: float
    t_E: float
    rho: float
    f_source: float
    f_blend: float


@functools.cache
def _b0_table(limb_darkening: float = 0.0) -> np.ndarray:
    """B0(z), z = u/rho, on a regular grid; beyond it 1 + 1/(8 z^2). With limb darkening B0 - Gamma B1 (Yoo et al. 2004)."""
    z = np.arange(0.0, B0_MAX + 2 * B0_STEP, B0_STEP)
    rho = 1e-4
    table = np.empty(len(z))
    table[1:] = fspl_at(z[1:] * rho, rho, limb_darkening) * z[1:] * rho / (1 + 0.375 * (z[1:] * rho) ** 2)
    table[0] = 0.0
    return table


@numba.njit(cache=True, nogil=True)
def _b0(z, table):
    """B0(z)/z-safe value and derivative of A_FS(u)/A(u) by linear interpolation; z > 0."""
    if z >= B0_MAX:
        return 1.0 + 0.125 / (z * z), -0.25 / (z * z * z)
    i = int(z / B0_STEP)
    f = z / B0_STEP - i
    return table[i] * (1 - f) + table[i + 1] * f, (table[i + 1] - table[i]) / B0_STEP


@numba.njit(cache=True, nogil=True)
def _model(t, p, n_par, table, a, d):
    """Magnification a (n,) and its derivatives d (n_par, n) by p = (t_0, ln t_E, u_0[, ln rho])."""
    t_e = np.exp(p[1])
    rho = np.exp(p[3]) if n_par == 4 else 0.0
    for i in range(len(t)):
        tau = (t[i] - p[0]) / t_e
        u2 = max(p[2] * p[2] + tau * tau, 1e-14)
        u = np.sqrt(u2)
        root = np.sqrt(u2 + 4.0)
        value = (u2 + 2.0) / (u * root)
        slope = -8.0 / (u2 * root * root * root)
        if n_par == 4:
            b, db = _b0(u / rho, table)
            d[3, i] = -value * db * u / rho
            slope = slope * b + value * db / rho
            value *= b
        a[i] = value
        d[0, i] = -slope * tau / (t_e * u)
        d[1, i] = -slope * tau * tau / u
        d[2, i] = slope * p[2] / u


@numba.njit(cache=True, nogil=True)
def _linear(a, y, w):
    """Weighted fit y = fs a + fb with fs >= 0; returns fs, fb, chi2."""
    sw = sa = sy = 0.0
    for i in range(len(a)):
        sw += w[i]
        sa += w[i] * a[i]
        sy += w[i] * y[i]
    ma, my = sa / sw, sy / sw
    saa = say = syy = 0.0
    for i in range(len(a)):
        da, dy = a[i] - ma, y[i] - my
        saa += w[i] * da * da
        say += w[i] * da * dy
        syy += w[i] * dy * dy
    fs = say / saa if saa > 0 and say > 0 else 0.0
    return fs, my - fs * ma, max(syy - fs * say, 0.0) if fs > 0 else syy


@numba.njit(cache=True, nogil=True)
def _solve(m, g):
    """x of m x = g for a small symmetric m > 0 by Gaussian elimination (m is used up).

    LAPACK's result depends on how memory happens to be aligned, in the last bits; files are compared bit for bit.
    """
    n = len(g)
    x = g.copy()
    for j in range(n):
        pivot = m[j, j]
        for i in range(j + 1, n):
            f = m[i, j] / pivot
            for k in range(j, n):
                m[i, k] -= f * m[j, k]
            x[i] -= f * x[j]
    for j in range(n - 1, -1, -1):
        for k in range(j + 1, n):
            x[j] -= m[j, k] * x[k]
        x[j] /= m[j, j]
    return x


@numba.njit(cache=True, nogil=True)
def _levenberg(t, y, w, p, n_par, table, max_iterations, t_low, t_high, least_gain=1e-4):
    """Levenberg-Marquardt from p (changed in place), until a step gains less than `least_gain` in chi^2. Returns chi2, fs, fb."""
    n = len(t)
    a, d = np.empty(n), np.empty((n_par, n))
    _model(t, p, n_par, table, a, d)
    fs, fb, chi2 = _linear(a, y, w)
    damping = 1e-3
    for _ in range(max_iterations):
        if fs == 0.0:
            break
        # Project the columns on the complement of (a, 1), weighted.
        sw = sa = 0.0
        for i in range(n):
            sw += w[i]
            sa += w[i] * a[i]
        ma = sa / sw
        saa = 0.0
        for i in range(n):
            saa += w[i] * (a[i] - ma) ** 2
        h, g = np.zeros((n_par, n_par)), np.zeros(n_par)
        md, pd = np.zeros(n_par), np.zeros(n_par)
        for j in range(n_par):
            s1 = s2 = 0.0
            for i in range(n):
                s1 += w[i] * d[j, i]
                s2 += w[i] * d[j, i] * (a[i] - ma)
            md[j], pd[j] = s1 / sw, s2 / saa
        for i in range(n):
            r = y[i] - fs * a[i] - fb
            ca = a[i] - ma
            for j in range(n_par):
                cj = fs * (d[j, i] - md[j] - pd[j] * ca)
                g[j] += w[i] * cj * r
                for k in range(j + 1):
                    h[j, k] += w[i] * cj * fs * (d[k, i] - md[k] - pd[k] * ca)
        for j in range(n_par):
            for k in range(j):
                h[k, j] = h[j, k]
        improved = False
        for _try in range(8):
            m = h.copy()
            for j in range(n_par):
                m[j, j] += damping * h[j, j] + 1e-12
            step = _solve(m, g)
            trial = p.copy()
            for j in range(n_par):
                limit = 1.0 if j != 0 else 0.5 * np.exp(p[1])
                trial[j] = p[j] + min(limit, max(-limit, step[j]))
            trial[0] = min(t_high, max(t_low, trial[0]))
            trial[1] = min(6.9, max(-4.6, trial[1]))
            trial[2] = min(4.0, max(-4.0, trial[2]))
            if n_par == 4:
                trial[3] = min(0.7, max(-11.5, trial[3]))
            _model(t, trial, n_par, table, a, d)
            fs2, fb2, c2 = _linear(a, y, w)
            if c2 < chi2:
                improved = True
                gain = chi2 - c2
                p[:] = trial
                fs, fb, chi2 = fs2, fb2, c2
                damping = max(damping * 0.2, 1e-9)
                break
            damping *= 6.0
        if not improved:
            _model(t, p, n_par, table, a, d)
            break
        if gain < least_gain * (1.0 + 1e-3 * chi2):
            break
    return chi2, fs, fb


@numba.njit(cache=True, nogil=True)
def _bins(t, y, w, per_bin):
    """Weighted means of `per_bin` neighbours; w are inverse variances."""
    n = (len(t) + per_bin - 1) // per_bin
    tb, yb, wb = np.zeros(n), np.zeros(n), np.zeros(n)
    for i in range(len(t)):
        k = i // per_bin
        wb[k] += w[i]
        tb[k] += w[i] * t[i]
        yb[k] += w[i] * y[i]
    return tb / wb, yb / wb, wb


@numba.njit(cache=True, nogil=True)
def _compress(t, y, w, smooth, largest_change):
    """Average neighbours while the `smooth` flux (noise-free, or a model) changes by less than `largest_change` errors of their mean.

    Returns tb, yb, wb and `last` (index of each bin's last epoch).
    """
    n = len(t)
    tb, yb, wb, last = np.empty(n), np.empty(n), np.empty(n), np.empty(n, np.int64)
    m = i = 0
    while i < n:
        sw, st, sy = w[i], w[i] * t[i], w[i] * y[i]
        low = high = smooth[i]
        j = i + 1
        while j < n and j - i < MAX_BIN:
            lo, hi = min(low, smooth[j]), max(high, smooth[j])
            if (hi - lo) ** 2 * (sw + w[j]) > largest_change**2:
                break
            low, high = lo, hi
            sw += w[j]
            st += w[j] * t[j]
            sy += w[j] * y[j]
            j += 1
        tb[m], yb[m], wb[m], last[m] = st / sw, sy / sw, sw, j - 1
        m += 1
        i = j
    return tb[:m], yb[:m], wb[:m], last[:m]


@numba.njit(cache=True, nogil=True)
def _between(t, y, at, k):
    """Flux at time `at` between epochs k and k + 1, or later, linearly. Returns the flux and k."""
    while k < len(t) - 2 and t[k + 1] <= at:
        k += 1
    return y[k] + (y[k + 1] - y[k]) * (at - t[k]) / (t[k + 1] - t[k]), k


@numba.njit(cache=True, nogil=True)
def _sample(t, y, w, bend):
    """A noise-free curve by few points: two stand for each run of neighbours within which the flux is straight.

    A run's flux keeps within `bend` errors of its mean from its chord. Its points lie on the curve one standard deviation before and
    after its mean time, with half of its weight each (Gauss' rule: the square of a residual that is straight in the run is summed
    exactly), so the residual to a smooth model may be as steep as the flux: several times fewer points than _compress needs.
    Returns ts, ys, ws and `last` (index of the last epoch that a point stands for).
    """
    n = len(t)
    ts, ys, ws, last = np.empty(n), np.empty(n), np.empty(n), np.empty(n, np.int64)
    m = i = 0
    while i < n:
        sw, st, stt, turned, slope = w[i], 0.0, 0.0, 0.0, 0.0
        j = i + 1
        while j < n and j - i < LONGEST:
            new = (y[j] - y[j - 1]) / (t[j] - t[j - 1])
            after = turned + abs(new - slope) if j > i + 1 else 0.0
            if (0.25 * after * (t[j] - t[i])) ** 2 * (sw + w[j]) > bend**2:  # a curve that turns by `after` keeps this close
                break
            turned, slope = after, new
            sw += w[j]
            st += w[j] * (t[j] - t[i])
            stt += w[j] * (t[j] - t[i]) ** 2
            j += 1
        if j == i + 1:
            ts[m], ys[m], ws[m], last[m] = t[i], y[i], sw, i
            m += 1
        else:
            mean, k = st / sw, i
            apart = np.sqrt(stt / sw - mean * mean)
            for side in range(2):
                ts[m], ws[m] = t[i] + mean + (2 * side - 1) * apart, 0.5 * sw
                ys[m], k = _between(t, y, ts[m], k)
                last[m] = j - 1 if side == 1 else (i + j - 2) // 2
                m += 1
        i = j
    return ts[:m], ys[:m], ws[:m], last[:m]


@numba.njit(cache=True, nogil=True)
def _starts(t, y, w, given):
    """Trial parameters (k, 3): those given, and the brightest smoothed point with several widths and depths."""
    n = len(t)
    base = np.median(y)
    best, at = -np.inf, 0
    for i in range(n):
        lo, hi = max(0, i - 1), min(n, i + 2)
        s = sw = 0.0
        for k in range(lo, hi):
            s += w[k] * (y[k] - base)
            sw += w[k]
        if s / np.sqrt(sw) > best:
            best, at = s / np.sqrt(sw), i
    # Width at half height about the peak sets the scale.
    half = base + 0.5 * (y[at] - base)
    i = at
    while i > 0 and y[i] > half:
        i -= 1
    j = at
    while j < n - 1 and y[j] > half:
        j += 1
    width = max(t[j] - t[i], 3 * (t[n - 1] - t[0]) / n)
    out = np.empty((len(given) + 4, 3))
    out[: len(given)] = given
    k = len(given)
    for u_0, factor in ((0.05, 5.0), (0.3, 1.2), (1.0, 0.5), (0.3, 4.0)):
        out[k, 0], out[k, 1], out[k, 2] = t[at], np.log(width * factor), u_0
        k += 1
    return out


@numba.njit(cache=True, nogil=True)
def _fit(t, y, w, given, table, finite_source, t_low, t_high):
    """Best single lens: starts on coarse bins, the two best refined on the points. Returns p (4,), chi2, fs, fb."""
    per_bin = max(1, len(t) // FINE_BINS)
    tb, yb, wb = _bins(t, y, w, per_bin)
    starts = _starts(tb, yb, wb, given)
    chi = np.empty(len(starts))
    for k in range(len(starts)):
        chi[k], _, _ = _levenberg(tb, yb, wb, starts[k], 3, table, FINE_STEPS, t_low, t_high)
    order = np.argsort(chi)
    best = np.array([0.0, 0.0, 0.0, -30.0])
    best_chi2, best_fs, best_fb = np.inf, 0.0, 0.0
    for k in range(min(2, len(order))):
        if k == 1 and chi[order[1]] > chi[order[0]] + 100.0 + 0.2 * chi[order[0]]:
            break
        if k == 1 and np.abs(starts[order[1]] - starts[order[0]]).max() < 0.02:
            break
        p = starts[order[k]].copy()
        c, fs, fb = _levenberg(t, y, w, p, 3, table, 40, t_low, t_high, LEAST_GAIN)
        if c < best_chi2:
            best_chi2, best_fs, best_fb = c, fs, fb
            best[:3] = p
    if finite_source and abs(best[2]) < FSPL_U_0:
        for factor in (0.5, 1.5):
            p = np.empty(4)
            p[:3] = best[:3]
            p[3] = np.log(max(factor * abs(best[2]), 3e-4))
            c, fs, fb = _levenberg(t, y, w, p, 4, table, 40, t_low, t_high, LEAST_GAIN)
            if c < best_chi2 - 1e-3:
                best_chi2, best_fs, best_fb = c, fs, fb
                best[:] = p
    return best, best_chi2, best_fs, best_fb


@numba.njit(cache=True, nogil=True)
def _n_par(p):
    """3 for a point source, 4 for a finite one."""
    return 4 if p[3] > -20.0 else 3


@numba.njit(cache=True, nogil=True)
def _through(t, y, w, p, table):
    """The single lens p with its best fluxes through the points. Returns fs, fb, chi2."""
    a, d = np.empty(len(t)), np.empty((4, len(t)))
    _model(t, p, _n_par(p), table, a, d)
    return _linear(a, y, w)


@numba.njit(cache=True, nogil=True)
def _fit_noise_free(t, y, w, given, table, t_low, t_high):
    """Best single lens through a noise-free curve. Returns p (4,), chi2, fs, fb and the points it was fitted to (ts, ys, ws, last).

    The fit sees few points. Where chi^2 over many says otherwise (a peak of the model between them), it is made again with many.
    """
    tb, yb, wb, last = _compress(t, y, w, y, COMPRESSION)
    ts, ys, ws, ls = _sample(t, y, w, BEND)
    p, few, _, _ = _fit(ts, ys, ws, given, table, True, t_low, t_high)
    fs, fb, chi2 = _through(tb, yb, wb, p, table)
    if abs(few - chi2) > AGREE * chi2 + 1.0:
        p, chi2, fs, fb = _fit(tb, yb, wb, given, table, True, t_low, t_high)
        return p, chi2, fs, fb, tb, yb, wb, last
    return p, chi2, fs, fb, ts, ys, ws, ls


@numba.njit(cache=True, nogil=True)
def _fit_noisy(t, y, w, given, table, finite_source, t_low, t_high):
    """_fit of noisy points. They are averaged where the single lens itself does not change, so nothing of the fit is lost."""
    n = len(t)
    per_bin = max(1, n // START_BINS)
    tb, yb, wb = _bins(t, y, w, per_bin)
    starts = _starts(tb, yb, wb, given)
    chi = np.empty(len(starts))
    for k in range(len(starts)):
        chi[k], _, _ = _levenberg(tb, yb, wb, starts[k], 3, table, COARSE_STEPS, t_low, t_high)
    order = np.argsort(chi)
    best = np.array([0.0, 0.0, 0.0, -30.0])
    best_chi2, best_fs, best_fb = np.inf, 0.0, 0.0
    a, d = np.empty(n), np.empty((4, n))
    mean = (w * y).sum() / w.sum()
    flat = (w * (y - mean) ** 2).sum()
    for k in range(min(2, len(order))):
        if k == 1 and chi[order[1]] > chi[order[0]] + 100.0 + 0.2 * chi[order[0]]:
            break
        if k == 1 and np.abs(starts[order[1]] - starts[order[0]]).max() < 0.02:
            break
        p = np.array([0.0, 0.0, 0.0, -30.0])
        p[:3] = starts[order[k]]
        for stage in range(4 if finite_source else 2):
            if stage >= 2 and (abs(best[2]) > FSPL_U_0 or flat - best_chi2 < FSPL_CHI2):
                break
            _model(t, p, _n_par(p), table, a, d)
            fs, fb, c = _linear(a, y, w)
            if c < best_chi2:
                best_chi2, best_fs, best_fb = c, fs, fb
                best[:] = p
            if fs == 0.0:
                break
            tc, yc, wc, _ = _compress(t, y, w, fs * a, COMPRESSION)
            if stage < 2:
                _levenberg(tc, yc, wc, p, 3, table, 30, t_low, t_high)
            else:
                p[:3], p[3] = best[:3], np.log(max((0.5 if stage == 2 else 1.5) * abs(best[2]), 3e-4))
                _levenberg(tc, yc, wc, p, 4, table, 30, t_low, t_high)
        _model(t, p, _n_par(p), table, a, d)
        fs, fb, c = _linear(a, y, w)
        if c < best_chi2:
            best_chi2, best_fs, best_fb = c, fs, fb
            best[:] = p
    if abs(best[2]) < SHARP and best_chi2 > n + POOR * np.sqrt(2.0 * n):
        # A peak narrower than the coarse bins: u_0 ran to 0, where its derivative vanishes. Start again at the brightest point.
        for u_0 in SHARP_STARTS:
            p = np.array([t[np.argmax(y)], best[1], u_0, -30.0])
            for _stage in range(2):
                _model(t, p, 3, table, a, d)
                fs, fb, c = _linear(a, y, w)
                tc, yc, wc, _ = _compress(t, y, w, fs * a, COMPRESSION)
                _levenberg(tc, yc, wc, p, 3, table, 40, t_low, t_high)
            _model(t, p, 3, table, a, d)
            fs, fb, c = _linear(a, y, w)
            if c < best_chi2:
                best_chi2, best_fs, best_fb = c, fs, fb
                best[:] = p
    return best, best_chi2, best_fs, best_fb


NO_START = np.empty((0, 3))


def _check_curve(t, flux, sigma):
    t, flux, sigma = (np.ascontiguousarray(x, dtype=float) for x in (t, flux, sigma))
    if not (t.ndim == 1 and t.shape == flux.shape == sigma.shape):
        raise ValueError(f"t, flux, sigma: came shapes {t.shape}, {flux.shape}, {sigma.shape}; expected one shape (T,).")
    ok = (flux != 0) & np.isfinite(flux) & (sigma > 0)
    if ok.sum() < 5:
        raise ValueError(f"{int(ok.sum())} valid epochs: a single-lens fit needs at least 5.")
    return t[ok], flux[ok], sigma[ok]


def fit_single_lens(t, flux, sigma, *, start=None, finite_source=False) -> SingleLensFit:
    """Best PSPL (or, with finite_source, the better of PSPL and FSPL) through one light curve.

    t (T,) days; flux (T,) F/F_base, 0.0 or NaN = no observation; sigma (T,) its error. For noisy data give errors of a model,
    not of the measured points, which bias chi^2.   start : (k, 3) further trial values t_0, t_E, u_0.
    Raises ValueError for misshapen input or fewer than 5 valid epochs.
    """
    t, flux, sigma = _check_curve(t, flux, sigma)
    given = NO_START
    if start is not None:
        given = np.atleast_2d(np.asarray(start, dtype=float)).copy()
        given[:, 1] = np.log(given[:, 1])
    span = t[-1] - t[0]
    p, chi2, fs, fb = _fit_noisy(t, flux, 1 / sigma**2, given, _b0_table(), finite_source, t[0] - span, t[-1] + span)
    return _result(p, chi2, fs, fb)


def single_lens_model(t, fit: SingleLensFit) -> np.ndarray:
    """Flux (T,) of a fit at times t (T,) days."""
    t = np.ascontiguousarray(t, dtype=float)
    n_par = 4 if fit.rho > 0 else 3
    p = np.array([fit.t_0, np.log(fit.t_E), fit.u_0, np.log(fit.rho) if fit.rho > 0 else -30.0])
    a, d = np.empty(len(t)), np.empty((n_par, len(t)))
    _model(t, p, n_par, _b0_table(), a, d)
    return fit.f_source * a + fit.f_blend


def fit_noise_free(t, flux_true, sigma, start=None, limb_darkening=0.0) -> SingleLensFit:
    """Best single lens (PSPL or FSPL) through a noise-free curve; its chi2 is the delta chi^2 of the labels.

    t, flux_true, sigma (n,): valid epochs only, n >= 5.   start : (t_0, t_E, u_0) to try first.   limb_darkening : linear
    coefficient of the FSPL's disc.
    """
    t, y, s = (np.ascontiguousarray(x, dtype=float) for x in (t, flux_true, sigma))
    if np.ptp(y) == 0:  # a constant is exact
        return SingleLensFit(0.0, float(t[0]), 1.0, 1.0, 0.0, 0.0, float(y[0]))
    given = NO_START if start is None else np.array([[start[0], np.log(start[1]), start[2]]])
    span = t[-1] - t[0]
    return _result(*_fit_noise_free(t, y, 1 / s**2, given, _b0_table(limb_darkening), t[0] - span, t[-1] + span)[:4])


def _result(p, chi2, fs, fb) -> SingleLensFit:
    return SingleLensFit(float(chi2), float(p[0]), float(abs(p[2])), float(np.exp(p[1])),
                         float(np.exp(p[3])) if p[3] > -20 else 0.0, float(fs), float(fb))
