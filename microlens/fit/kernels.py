"""A single lens through points: the model, its two fluxes, and Levenberg-Marquardt steps, as compiled kernels.

A light curve is F = F_s A(t; t_0, u_0, t_E[, rho]) + F_b. The two fluxes enter linearly and are solved exactly for every trial
(variable projection, Golub & Pereyra 1973, in Kaufman's form), with F_s >= 0. The finite source uses
A_FS(u, rho) = A(u) B0(u/rho) (Gould 1994; Yoo et al. 2004), good to about rho^2.
"""

from __future__ import annotations

import functools

import numba
import numpy as np

from microlens.lens import fspl_at

B0_MAX, B0_STEP = 40.0, 0.01
POINT = -20.0  # ln rho of a point source, or less
SHORTEST = -4.6  # ln t_E
LARGEST_RHO = np.log(0.1)  # ln rho; the approximation is good to rho^2, and few stars are larger
TRIES = 8  # dampings tried in a step


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
def _n_par(p):
    """3 for a point source, 4 for a finite one."""
    return 4 if p[3] > POINT else 3


@numba.njit(cache=True, nogil=True)
def _model(t, p, table, a, d):
    """Magnification a (n,) and its derivatives d (n_par, n) by p = (t_0, ln t_E, u_0, ln rho); of a point source no last one."""
    rate, d_0, d_1, d_2 = np.exp(-p[1]), d[0], d[1], d[2]
    for i in range(len(t)):  # nothing in it keeps the compiler from taking several epochs at once
        tau = (t[i] - p[0]) * rate
        u2 = p[2] * p[2] + tau * tau
        u2 = u2 if u2 > 1e-14 else 1e-14
        inverse = 1.0 / (u2 * (u2 + 4.0))
        root = np.sqrt(inverse)
        a[i] = (u2 + 2.0) * root
        slope = -8.0 * root * inverse  # dA/du / u
        d_0[i], d_1[i], d_2[i] = -slope * tau * rate, -slope * tau * tau, slope * p[2]
    if _n_par(p) == 4:
        d_3, per_rho = d[3], np.exp(-p[3])
        for i in range(len(t)):
            tau = (t[i] - p[0]) * rate
            u2 = p[2] * p[2] + tau * tau
            u2 = u2 if u2 > 1e-14 else 1e-14
            z = np.sqrt(u2) * per_rho
            b, db = _b0(z, table)
            bend = a[i] * db * z  # A dB0/dln z
            slope = bend / u2
            d_0[i] = d_0[i] * b - slope * tau * rate
            d_1[i] = d_1[i] * b - slope * tau * tau
            d_2[i] = d_2[i] * b + slope * p[2]
            d_3[i] = -bend
            a[i] *= b


@numba.njit(cache=True, nogil=True)
def _magnification(t, p, table):
    """Magnification (n,) of the single lens p."""
    a, d = np.empty(len(t)), np.empty((4, len(t)))
    _model(t, p, table, a, d)
    return a


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
def _normal(y, w, a, d, fs, fb, h, g):
    """Normal matrix h and right side g (n_par,) of a step, the columns d projected on the complement of (a, 1); d is used up.

    Summed in this order, whatever the compiler would prefer: files are compared bit for bit.
    """
    n_par, n = d.shape
    wa, wr, wc = np.empty(n), np.empty(n), np.empty(n)
    sw = sa = saa = 0.0
    for i in range(n):
        sw += w[i]
        sa += w[i] * a[i]
    ma = sa / sw
    for i in range(n):
        wa[i] = w[i] * (a[i] - ma)
        saa += wa[i] * (a[i] - ma)
        wr[i] = w[i] * (y[i] - fs * a[i] - fb)
    for j in range(n_par):
        c, mean, along = d[j], 0.0, 0.0
        for i in range(n):
            mean += w[i] * c[i]
            along += wa[i] * c[i]
        mean /= sw
        along /= saa
        for i in range(n):
            c[i] = fs * (c[i] - mean - along * (a[i] - ma))
            wc[i] = w[i] * c[i]
        gain = 0.0
        for i in range(n):
            gain += wr[i] * c[i]
        g[j] = gain
        for k in range(j + 1):
            other, product = d[k], 0.0
            for i in range(n):
                product += wc[i] * other[i]
            h[j, k] = h[k, j] = product


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
def _bounds(t_low, t_high, shortest=SHORTEST, closest=0.0):
    """Least and largest p, (4,) each, for a t_0 from t_low to t_high, ln t_E >= shortest and u_0 >= closest."""
    return np.array([t_low, shortest, closest, -11.5]), np.array([t_high, 6.9, 4.0, LARGEST_RHO])


@numba.njit(cache=True, nogil=True)
def _levenberg(t, y, w, p, table, steps, low, high, worth, worth_of):
    """Levenberg-Marquardt steps from p (4,), changed in place, within low, high (4,), until one promises too little.

    worth, worth_of : gain that a step must promise, in chi^2 and as a share of the present chi^2.   u_0 keeps positive.
    Returns chi2, fs, fb, a (n,).
    """
    n_par, n = _n_par(p), len(t)
    a, d, other_a, other_d = np.empty(n), np.empty((n_par, n)), np.empty(n), np.empty((n_par, n))
    h, g, trial, damping = np.empty((n_par, n_par)), np.empty(n_par), p.copy(), 1e-3
    _model(t, p, table, a, d)
    fs, fb, chi2 = _linear(a, y, w)
    for _ in range(steps):
        if fs == 0.0:
            break
        _normal(y, w, a, d, fs, fb, h, g)
        better = False
        for _try in range(TRIES):
            m, promised = h.copy(), 0.0
            for j in range(n_par):
                m[j, j] += damping * h[j, j] + 1e-12
            step = _solve(m, g)
            for j in range(n_par):
                promised += g[j] * step[j]
            if promised < worth + worth_of * chi2:
                break
            for j in range(n_par):
                limit = 1.0 if j != 0 else 0.5 * np.exp(p[1])
                trial[j] = p[j] + min(limit, max(-limit, step[j]))
                if j == 2:
                    trial[j] = abs(trial[j])
                trial[j] = min(high[j], max(low[j], trial[j]))
            _model(t, trial, table, other_a, other_d)
            new_fs, new_fb, c = _linear(other_a, y, w)
            if c < chi2:
                better = True
                p[:n_par] = trial[:n_par]
                a, other_a, d, other_d = other_a, a, other_d, d
                fs, fb, chi2 = new_fs, new_fb, c
                damping = max(damping * 0.2, 1e-9)
                break
            damping *= 8.0
        if not better:
            break
    return chi2, fs, fb, a


@numba.njit(cache=True, nogil=True)
def _through(t, y, w, p, table):
    """The single lens p with its best fluxes through the points. Returns fs, fb, chi2."""
    return _linear(_magnification(t, p, table), y, w)
