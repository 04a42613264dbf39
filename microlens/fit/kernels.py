"""A single lens through points: the model, its two fluxes, and Levenberg-Marquardt steps, as compiled kernels.

A light curve is F = F_s A(t; t_0, u_0, t_E[, rho]) + F_b with the magnification A of Paczynski (1986). The two fluxes
enter linearly and are solved exactly for every trial (variable projection, Golub & Pereyra 1973, in Kaufman's form),
with F_s >= 0. The finite source uses A_FS(u, rho) = A(u) B0(u/rho) (Gould 1994; Yoo et al. 2004), good to about rho^2.

A single lens is an array p (4,) of t_0 (d), ln t_E (d), u_0 and ln rho. With annual parallax it is p (6,): pi_EN and
pi_EE stand before ln rho, which is always the last.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numba
import numpy as np

from microlens.lens import displacement, fspl_at

T_0, LN_T_E, U_0, PI_EN, PI_EE = range(5)
"""Places of the parameters in a single lens p; ln rho is p[-1]."""

WITHOUT_PARALLAX = 4
"""Length of a single lens that has no parallax."""

POINT = -20.0
"""ln rho of a point source: a smaller or equal value means that the source's radius is no parameter of the fit."""

SHORTEST_LN_T_E, LONGEST_LN_T_E = -4.6, 6.9  # 0.01 d and 1000 d, the range that the package's priors permit
LARGEST_U_0 = 4.0  # beyond it a lens magnifies by less than a per cent
LARGEST_PI_E = 1.0  # of either component: the largest parallax that the package's priors permit
SMALLEST_LN_RHO, LARGEST_LN_RHO = -11.5, np.log(0.1)  # 1e-5 is a point; A B0 is good to rho^2 and few stars are larger

B0_MAX, B0_STEP = 40.0, 0.004  # the table of B0(z) ends where 1 + 1/(8 z^2) is right to 1e-6
TABLE_RHO = 1e-4  # small, so that A_FS has its limiting form
EXPANSION = 0.375  # A(u) = (1 + 3/8 u^2 + ...)/u
LEAST_U2 = 1e-14  # u^2 is at least this, so that nothing is divided by 0

TRIES = 8  # dampings tried in a step
FIRST_DAMPING, LEAST_DAMPING = 1e-3, 1e-9  # of the normal matrix's diagonal
DAMPING_DOWN, DAMPING_UP = 0.2, 8.0  # factors after a step that succeeded and one that failed
RIDGE = 1e-12  # keeps the normal matrix regular where the model does not depend on a parameter
LONGEST_STEP = 1.0  # of ln t_E, u_0 and ln rho
LONGEST_STEP_T_0 = 0.5  # of t_0, in t_E
SIDE_BY_SIDE = 4  # sums that grow together, which _row_sums writes out


class Points(NamedTuple):
    """Points of a light curve.

    t (n,) : days.   y (n,) : fluxes.   w (n,) : inverse variances.
    north, east (n,) : the Sun's offsets at these times, au (lens.parallax_offsets); empty where no parallax is fitted.
    """

    t: np.ndarray
    y: np.ndarray
    w: np.ndarray
    north: np.ndarray
    east: np.ndarray


class Bounds(NamedTuple):
    """Least and largest values of the parameters of a single lens, each of the shape of p."""

    low: np.ndarray
    high: np.ndarray


class Gain(NamedTuple):
    """What a step must promise to be tried: a gain in chi^2, and a share of the present chi^2 that is added to it."""

    chi2: float
    share: float


class FluxFit(NamedTuple):
    """Best fluxes for a magnification curve: of the source, of the blend, and the chi^2 that they reach."""

    f_source: float
    f_blend: float
    chi2: float


@functools.cache
def b0_table(limb_darkening: float = 0.0) -> np.ndarray:
    """B0(z), z = u/rho, on a grid of B0_STEP up to B0_MAX; with limb darkening B0 - Gamma B1 (Yoo et al. 2004).

    limb_darkening : linear coefficient of the source, 0 to 1.   B0 = A_FS/A in the limit of a small source, in which
    A = (1 + 3/8 u^2)/u.
    """
    z = np.arange(0.0, B0_MAX + 2 * B0_STEP, B0_STEP)
    table = np.zeros(len(z))
    u = z[1:] * TABLE_RHO
    table[1:] = fspl_at(u, TABLE_RHO, limb_darkening) * z[1:] * TABLE_RHO / (1 + EXPANSION * u**2)
    return table


@numba.njit(cache=True, nogil=True)
def _b0(z, table):
    """B0 and its derivative at z > 0, by linear interpolation; beyond the table 1 + 1/(8 z^2)."""
    if z >= B0_MAX:
        return 1.0 + 0.125 / (z * z), -0.25 / (z * z * z)
    i = int(z / B0_STEP)
    f = z / B0_STEP - i
    return table[i] * (1 - f) + table[i + 1] * f, (table[i + 1] - table[i]) / B0_STEP


@numba.njit(cache=True, nogil=True)
def prefix(points, n):
    """The first n of the points."""
    return Points(points.t[:n], points.y[:n], points.w[:n], points.north[:n], points.east[:n])


@numba.njit(cache=True, nogil=True)
def without_parallax(t, y, w):
    """The Points of times, fluxes and inverse variances, each (n,), to which no parallax is fitted."""
    return Points(t, y, w, t[:0], t[:0])


@numba.njit(cache=True, nogil=True)
def has_parallax(p):
    """Whether the single lens p has parallax."""
    return len(p) > WITHOUT_PARALLAX


@numba.njit(cache=True, nogil=True)
def is_finite_source(p):
    """Whether the source's radius is a parameter of the single lens p."""
    return p[-1] > POINT


@numba.njit(cache=True, nogil=True)
def n_parameters(p):
    """Number of parameters of the single lens p that are fitted: all of them, without ln rho for a point source."""
    return len(p) if is_finite_source(p) else len(p) - 1


@numba.njit(cache=True, nogil=True)
def model(points, p, table, a, d):
    """Magnification a (n,) of the single lens p and its derivatives d (n_parameters, n), in the order of p."""
    u2 = np.empty(len(a))
    if has_parallax(p):
        _bent(points, p, u2, a, d)
    else:
        _straight(points, p, u2, a, d)
    if is_finite_source(p):
        _enlarge_source(u2, p, table, a, d)


@numba.njit(cache=True, nogil=True)
def _straight(points, p, u2, a, d):
    """Squared separation u2, magnification and derivatives of a point source without parallax.

    Nothing in the loop keeps the compiler from taking several epochs at once.
    """
    t = points.t
    rate, d_t_0, d_ln_t_E, d_u_0 = np.exp(-p[LN_T_E]), d[T_0], d[LN_T_E], d[U_0]
    for i in range(len(t)):
        tau = (t[i] - p[T_0]) * rate
        square = p[U_0] * p[U_0] + tau * tau
        u2[i] = square if square > LEAST_U2 else LEAST_U2
        inverse = 1.0 / (u2[i] * (u2[i] + 4.0))
        root = np.sqrt(inverse)
        a[i] = (u2[i] + 2.0) * root
        slope = -8.0 * root * inverse  # dA/du, divided by u
        d_t_0[i], d_ln_t_E[i], d_u_0[i] = -slope * tau * rate, -slope * tau * tau, slope * p[U_0]


@numba.njit(cache=True, nogil=True)
def _bent(points, p, u2, a, d):
    """Squared separation u2, magnification and derivatives of a point source with parallax (see lens.parallax)."""
    t, north, east = points.t, points.north, points.east
    rate, d_t_0, d_ln_t_E, d_u_0, d_pi_EN, d_pi_EE = np.exp(-p[LN_T_E]), d[T_0], d[LN_T_E], d[U_0], d[PI_EN], d[PI_EE]
    for i in range(len(t)):
        straight = (t[i] - p[T_0]) * rate
        along, across = displacement(north[i], east[i], p[PI_EN], p[PI_EE])
        tau, beta = straight + along, p[U_0] + across
        square = beta * beta + tau * tau
        u2[i] = square if square > LEAST_U2 else LEAST_U2
        inverse = 1.0 / (u2[i] * (u2[i] + 4.0))
        root = np.sqrt(inverse)
        a[i] = (u2[i] + 2.0) * root
        slope = -8.0 * root * inverse  # dA/du, divided by u
        d_t_0[i], d_ln_t_E[i], d_u_0[i] = -slope * tau * rate, -slope * tau * straight, slope * beta
        d_pi_EN[i] = slope * (tau * north[i] + beta * east[i])
        d_pi_EE[i] = slope * (tau * east[i] - beta * north[i])


@numba.njit(cache=True, nogil=True)
def _enlarge_source(u2, p, table, a, d):
    """Turn magnification a (n,) and derivatives d of a point source into those of a source of radius rho.

    All parameters but rho act through the separation u alone, so their derivatives grow by one factor.
    """
    per_rho, last = np.exp(-p[-1]), len(p) - 1
    growth, d_ln_rho = np.empty(len(a)), d[last]
    for i in range(len(a)):
        z = np.sqrt(u2[i]) * per_rho
        b, db = _b0(z, table)
        d_ln_rho[i] = -a[i] * db * z
        growth[i] = b - 0.125 * db * z * (u2[i] + 2.0) * (u2[i] + 4.0)  # of dA/du, with A and dA/du of a point source
        a[i] *= b
    for j in range(last):
        row = d[j]
        for i in range(len(a)):
            row[i] *= growth[i]


@numba.njit(cache=True, nogil=True)
def magnification(points, p, table):
    """Magnification (n,) of the single lens p at the times of the points: that of `model`, without derivatives."""
    u2 = _squared_separations(points, p)
    a = np.empty(len(u2))
    for i in range(len(u2)):
        a[i] = (u2[i] + 2.0) * np.sqrt(1.0 / (u2[i] * (u2[i] + 4.0)))
    if is_finite_source(p):
        per_rho = np.exp(-p[-1])
        for i in range(len(u2)):
            a[i] *= _b0(np.sqrt(u2[i]) * per_rho, table)[0]
    return a


@numba.njit(cache=True, nogil=True)
def _squared_separations(points, p):
    """Squared distance (n,) of the source from the single lens p at the times of the points."""
    t, north, east, rate, u2 = points.t, points.north, points.east, np.exp(-p[LN_T_E]), np.empty(len(points.t))
    for i in range(len(t)):
        tau, beta = (t[i] - p[T_0]) * rate, p[U_0]
        if has_parallax(p):
            along, across = displacement(north[i], east[i], p[PI_EN], p[PI_EE])
            tau, beta = tau + along, beta + across
        square = beta * beta + tau * tau
        u2[i] = square if square > LEAST_U2 else LEAST_U2
    return u2


@numba.njit(cache=True, nogil=True)
def best_fluxes(points, a):
    """The weighted fit F_s a + F_b of the points with F_s >= 0, as a FluxFit; a (n,) is the magnification."""
    y, w = points.y, points.w
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
    f_source = say / saa if saa > 0 and say > 0 else 0.0
    return FluxFit(f_source, my - f_source * ma, max(syy - f_source * say, 0.0) if f_source > 0 else syy)


@numba.njit(cache=True, nogil=True)
def fluxes_of(points, p, table):
    """The best fluxes of the single lens p through the points, as a FluxFit."""
    return best_fluxes(points, magnification(points, p, table))


@numba.njit(cache=True, nogil=True)
def _row_sums(x, rows, n_rows, out):
    """Put the sums of x (n,) times each of the first n_rows rows (., n) into out (n_rows,).

    A sum keeps the order of its terms, whatever the compiler would prefer, because files are compared bit for bit. So
    each addition waits for the one before, and SIDE_BY_SIDE sums are made at once.
    """
    last = n_rows - 1
    for first in range(0, n_rows, SIDE_BY_SIDE):
        k, m, j = min(first + 1, last), min(first + 2, last), min(first + 3, last)
        row_0, row_1, row_2, row_3 = rows[first], rows[k], rows[m], rows[j]
        sum_0 = sum_1 = sum_2 = sum_3 = 0.0
        for i in range(len(x)):
            sum_0 += x[i] * row_0[i]
            sum_1 += x[i] * row_1[i]
            sum_2 += x[i] * row_2[i]
            sum_3 += x[i] * row_3[i]
        out[first], out[k], out[m], out[j] = sum_0, sum_1, sum_2, sum_3


@numba.njit(cache=True, nogil=True)
def _normal_equations(points, a, d, fluxes, h, g):
    """Normal matrix h and right side g (n_parameters,) of a step, the columns d projected on the complement of (a, 1).

    d is used up.
    """
    y, w = points.y, points.w
    n_par, n = d.shape
    da, wa, wr, wc = np.empty(n), np.empty(n), np.empty(n), np.empty(n)
    mean, along = np.empty(n_par), np.empty(n_par)
    sw = sa = saa = 0.0
    for i in range(n):
        sw += w[i]
        sa += w[i] * a[i]
    ma = sa / sw
    for i in range(n):
        da[i] = a[i] - ma
        wa[i] = w[i] * da[i]
        wr[i] = w[i] * (y[i] - fluxes.f_source * a[i] - fluxes.f_blend)
    for i in range(n):
        saa += wa[i] * da[i]
    _row_sums(w, d, n_par, mean)
    _row_sums(wa, d, n_par, along)
    for j in range(n_par):
        c, offset, slope = d[j], mean[j] / sw, along[j] / saa
        for i in range(n):
            c[i] = fluxes.f_source * (c[i] - offset - slope * da[i])
    _row_sums(wr, d, n_par, g)
    for j in range(n_par):
        c = d[j]
        for i in range(n):
            wc[i] = w[i] * c[i]
        _row_sums(wc, d, j + 1, h[j])
        for k in range(j):
            h[k, j] = h[j, k]


@numba.njit(cache=True, nogil=True)
def _solution(m, g):
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
def damped_step(h, g, damping):
    """A Levenberg-Marquardt step of normal matrix h and right side g, and the gain in chi^2 that it promises."""
    m, promised = h.copy(), 0.0
    for j in range(len(g)):
        m[j, j] += damping * h[j, j] + RIDGE
    step = _solution(m, g)
    for j in range(len(g)):
        promised += g[j] * step[j]
    return step, promised


@numba.njit(cache=True, nogil=True)
def bounds_for(earliest, latest, shortest=SHORTEST_LN_T_E, closest=0.0):
    """Bounds of a single lens with t_0 from `earliest` to `latest` days, ln t_E >= shortest and u_0 >= closest."""
    return Bounds(np.array([earliest, shortest, closest, SMALLEST_LN_RHO]),
                  np.array([latest, LONGEST_LN_T_E, LARGEST_U_0, LARGEST_LN_RHO]))


@numba.njit(cache=True, nogil=True)
def bounds_with_parallax(bounds):
    """The bounds of a single lens with parallax, whose u_0 has a sign, from those of one without."""
    low, high = np.empty(len(bounds.low) + 2), np.empty(len(bounds.low) + 2)
    low[:PI_EN], low[PI_EN : PI_EE + 1], low[-1] = bounds.low[:-1], -LARGEST_PI_E, bounds.low[-1]
    high[:PI_EN], high[PI_EN : PI_EE + 1], high[-1] = bounds.high[:-1], LARGEST_PI_E, bounds.high[-1]
    low[U_0] = -high[U_0]
    return Bounds(low, high)


@numba.njit(cache=True, nogil=True)
def stepped(p, step, bounds, trial):
    """Put into `trial` the single lens p after a step, which is cut where it goes too far or leaves the bounds."""
    low, high = bounds
    for j in range(len(step)):
        limit = LONGEST_STEP if j != T_0 else LONGEST_STEP_T_0 * np.exp(p[LN_T_E])
        trial[j] = p[j] + min(limit, max(-limit, step[j]))
        if j == U_0 and low[j] >= 0:
            trial[j] = abs(trial[j])
        trial[j] = min(high[j], max(low[j], trial[j]))


@numba.njit(cache=True, nogil=True)
def levenberg_marquardt(points, p, table, steps, bounds, gain):
    """Improve the single lens p in place by Levenberg-Marquardt steps, until one promises too little.

    steps : the most that are made.   gain : Gain that a step must promise.
    Returns a FluxFit and the magnification (n,) of the p that was reached.
    """
    n_par, n = n_parameters(p), len(points.t)
    a, d, other_a, other_d = np.empty(n), np.empty((n_par, n)), np.empty(n), np.empty((n_par, n))
    h, g, trial, damping = np.empty((n_par, n_par)), np.empty(n_par), p.copy(), FIRST_DAMPING
    model(points, p, table, a, d)
    fluxes = best_fluxes(points, a)
    for _ in range(steps):
        if fluxes.f_source == 0.0:
            break
        _normal_equations(points, a, d, fluxes, h, g)
        better = False
        for _try in range(TRIES):
            step, promised = damped_step(h, g, damping)
            if promised < gain.chi2 + gain.share * fluxes.chi2:
                break
            stepped(p, step, bounds, trial)
            model(points, trial, table, other_a, other_d)
            found = best_fluxes(points, other_a)
            if found.chi2 < fluxes.chi2:
                better = True
                p[:n_par] = trial[:n_par]
                a, other_a, d, other_d = other_a, a, other_d, d
                fluxes = found
                damping = max(damping * DAMPING_DOWN, LEAST_DAMPING)
                break
            damping *= DAMPING_UP
        if not better:
            break
    return fluxes, a
