"""One lens: the Paczynski curve and its finite-source form."""

from __future__ import annotations

import numba
import numpy as np
from numba.extending import register_jitable

from microlens.lens.engine import check_finite
from microlens.lens.parallax import Parallax
from microlens.lens.path import trajectory

FAR = 20.0  # source radii beyond which the disc is expanded about its centre, good to 1e-6
ON_LIMB = 1e-12  # least distance of the lens from the limb / source radius: the integrals' limits are finite
MEANS_AGREE = 1e-8  # relative, of the two means that give an elliptic integral: its error is the square


def _rule(n):
    """Nodes (n,) and weights of Gauss's rule on 0..1 in an angle, so that the nodes are dense at both ends."""
    x, weights = np.polynomial.legendre.leggauss(n)
    angle = 0.5 * np.pi * (1 + x)
    return 0.5 * (1 - np.cos(angle)), 0.25 * np.pi * np.sin(angle) * weights


COSINES, COSINE_WEIGHTS = _rule(16)


@register_jitable
def paczynski(u2):
    """Point-source point-lens magnification at the squared separation u2 (Paczynski 1986), number or array."""
    return (u2 + 2.0) / np.sqrt(u2 * (u2 + 4.0))


def pspl_at(u):
    """Point-source point-lens magnification at separation u (Einstein radii), any shape (Paczynski 1986).

    Returns A of u's shape, infinite at u = 0.
    """
    u2 = np.square(np.asarray(u, dtype=float))
    with np.errstate(divide="ignore"):
        return paczynski(u2)


def pspl(t, t_0, u_0, t_E, *, parallax: Parallax | None = None):
    """Point-source point-lens magnification (Paczynski 1986).

    t : (n,) days    t_0 : days    u_0 : theta_E    t_E : days, > 0    parallax : see microlens.lens.parallax
    Returns A : (n,), A >= 1, infinite at u = 0; without parallax even in u_0.   Raises ValueError for t_E <= 0 or
    values that are not finite.
    """
    return pspl_at(separation(t, t_0, u_0, t_E, parallax))


def separation(t, t_0, u_0, t_E, parallax: Parallax | None = None):
    """Separation of source and lens, Einstein radii; sqrt(u_0^2 + ((t - t_0)/t_E)^2) without parallax."""
    check_finite(t=t, t_0=t_0, u_0=u_0, t_E=t_E)
    if not np.all(np.asarray(t_E) > 0):
        raise ValueError(f"t_E = {t_E!r}: expected t_E > 0 (days).")
    if parallax is None:
        return np.hypot(u_0, (np.asarray(t, dtype=float) - t_0) / t_E)
    return np.hypot(*trajectory(t, t_0, u_0, t_E, 0.0, parallax))


def fspl(t, t_0, u_0, t_E, rho, limb_darkening=0.0, *, parallax: Parallax | None = None):
    """Finite-source point-lens magnification of a disc of radius rho (Witt & Mao 1994).

    t : (n,) days    t_0 : days    u_0 : theta_E    t_E : days    rho : theta_E, >= 0 (0 is a point source)
    limb_darkening : linear coefficient, 0 to 1.   parallax : see microlens.lens.parallax.
    Returns A : (n,).   Raises ValueError for impossible input.
    """
    return fspl_at(separation(t, t_0, u_0, t_E, parallax), rho, limb_darkening)


def two_sources(t, t_0, u_0, t_E, t_0_2, u_0_2, q_F, rho=0.0, rho_2=0.0, limb_darkening=0.0, *,
                parallax: Parallax | None = None):
    """Magnification of two sources behind one lens (1L2S), A = (A_1 + q_F A_2)/(1 + q_F).

    t : (n,) days    t_0, t_0_2 : days    u_0, u_0_2, rho, rho_2 : theta_E    t_E : days    q_F : flux ratio, >= 0
    limb_darkening : of both sources.   parallax : of both; its t_0_par is t_0 unless it is given.
    Returns A : (n,), of the flux of both sources together.   Raises ValueError for impossible input.
    """
    if not (np.isfinite(q_F) and q_F >= 0):
        raise ValueError(f"q_F = {q_F!r}: expected q_F >= 0 (flux of the second source over that of the first).")
    if parallax is not None and parallax.t_0_par is None:
        parallax = parallax._replace(t_0_par=t_0)
    first = fspl(t, t_0, u_0, t_E, rho, limb_darkening, parallax=parallax)
    second = fspl(t, t_0_2, u_0_2, t_E, rho_2, limb_darkening, parallax=parallax)
    return (first + q_F * second) / (1 + q_F)


def fspl_at(u, rho, limb_darkening=0.0):
    """Finite-source point-lens magnification at separation u of a disc of radius rho, good to 1e-5.

    u : any shape, theta_E.   rho : scalar, theta_E.   Returns A of u's shape.
    Sources: Witt & Mao (1994) for the uniform disc; far from it its expansion to second order (Gould 2008).
    """
    if not (np.isfinite(rho) and rho >= 0):
        raise ValueError(f"rho = {rho!r}: expected rho >= 0 (Einstein radii); 0 is a point source.")
    if not 0 <= limb_darkening <= 1:
        raise ValueError(f"limb_darkening = {limb_darkening!r}: expected 0 to 1 (linear coefficient).")
    check_finite(u=u)
    u = np.abs(np.asarray(u, dtype=float))
    if rho == 0:
        return pspl_at(u)
    return _discs(np.ravel(u), float(rho), float(limb_darkening)).reshape(u.shape)[()]


@numba.njit(cache=True)
def _discs(u, rho, limb_darkening):
    """Magnification (n,) of a disc at separations u (n,)."""
    out = np.empty(len(u))
    for i in range(len(u)):
        if u[i] > FAR * rho:
            u2 = u[i] * u[i]
            laplacian = 32.0 * (u2 + 1.0) / (u2 * u[i] * (u2 + 4.0) ** 2.5)
            mean_r2 = 0.5 * rho * rho * (1.0 - 7.0 / 15.0 * limb_darkening) / (1.0 - limb_darkening / 3.0)
            out[i] = paczynski(u2) + 0.25 * mean_r2 * laplacian
        elif limb_darkening == 0:
            out[i] = _uniform_disc(u[i], rho)
        else:
            out[i] = _darkened_disc(u[i], rho, limb_darkening)
    return out


@numba.njit(cache=True)
def _uniform_disc(u, rho):
    """Magnification of a uniform disc by complete elliptic integrals (Witt & Mao 1994, equation 9)."""
    apart = u - rho
    if abs(apart) < ON_LIMB * rho:
        apart = ON_LIMB * rho
    both, apart2 = u + rho, apart * apart
    root = np.sqrt(4.0 + apart2)
    complement = abs(apart) * np.sqrt(1.0 + 4.0 / (both * both)) / root  # k' of the modulus k
    second = both * root
    first = -apart * (8.0 + u * u - rho * rho) / root
    third = 4.0 * apart2 * (1.0 + rho * rho) / (both * root)
    total = elliptic_integral(complement, 1.0, second + first, second * complement * complement + first)
    total += third * elliptic_integral(complement, apart2 / (both * both), 1.0, 1.0)
    return total / (2.0 * np.pi * rho * rho)


@numba.njit(cache=True)
def elliptic_integral(k, p, a, b):
    """Bulirsch's (1969) complete elliptic integral, k and p > 0.

    That is the integral over t from 0 to pi/2 of (a cos^2 t + b sin^2 t) / ((cos^2 t + p sin^2 t) sqrt(cos^2 t +
    k^2 sin^2 t)).
    """
    p = np.sqrt(p)
    b, e, m = b / p, k, 1.0
    while True:
        before, g = a, e / p
        a += b / p
        b = 2.0 * (b + before * g)
        p += g
        g = m
        m += k
        if abs(g - k) <= MEANS_AGREE * g:
            return 0.5 * np.pi * (b + a * m) / (m * (m + p))
        k = 2.0 * np.sqrt(e)
        e = k * m


@numba.njit(cache=True)
def _darkened_disc(u, rho, limb_darkening):
    """Magnification of a disc with linear limb darkening as a sum of uniform discs.

    With c the cosine of the angle to the normal it is (1 - u_1) A(rho) + u_1 times the integral over c from 0 to 1 of
    (1 - c^2) A(rho sqrt(1 - c^2)), over 1 - u_1/3. The sum is cut at the disc whose limb passes the lens.
    """
    cut = np.sqrt(1.0 - (u / rho) ** 2) if u < rho else 0.5
    total = 0.0
    for k in range(len(COSINES)):
        for start, length in ((0.0, cut), (cut, 1.0 - cut)):
            area = 1.0 - (start + length * COSINES[k]) ** 2
            if length > 0 and area > 0:
                total += length * COSINE_WEIGHTS[k] * area * _uniform_disc(u, rho * np.sqrt(area))
    return ((1.0 - limb_darkening) * _uniform_disc(u, rho) + limb_darkening * total) / (1.0 - limb_darkening / 3.0)
