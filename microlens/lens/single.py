"""One lens: the Paczynski curve and its finite-source form."""

from __future__ import annotations

import numpy as np

from microlens.lens.engine import check_finite, single_lens_engine
from microlens.lens.parallax import Parallax
from microlens.lens.path import trajectory

POINT_SOURCE_DISTANCE = 60.0
"""Source radii beyond which the finite-source correction, about (rho/u)^2/8, is below 4e-5."""


def pspl_at(u):
    """Point-source point-lens magnification at separation u (Einstein radii), any shape (Paczynski 1986).

    Returns A of u's shape, infinite at u = 0.
    """
    u2 = np.square(np.asarray(u, dtype=float))
    with np.errstate(divide="ignore"):
        return (u2 + 2.0) / np.sqrt(u2 * (u2 + 4.0))


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
    """Finite-source point-lens magnification at separation u of a disc of radius rho.

    u : any shape, theta_E.   rho : scalar, theta_E.   Returns A of u's shape.
    The library's table interpolates the elliptic integrals of Witt & Mao (1994); far from the disc A is that of a
    point.
    """
    if not (np.isfinite(rho) and rho >= 0):
        raise ValueError(f"rho = {rho!r}: expected rho >= 0 (Einstein radii); 0 is a point source.")
    if not 0 <= limb_darkening <= 1:
        raise ValueError(f"limb_darkening = {limb_darkening!r}: expected 0 to 1 (linear coefficient).")
    check_finite(u=u)
    u = np.abs(np.asarray(u, dtype=float))
    if rho == 0:
        return pspl_at(u)
    values = np.atleast_1d(pspl_at(u)).astype(float)
    flat = values.ravel()
    vb = single_lens_engine()
    vb.Tol = vb.RelTol = 1e-6
    vb.a1 = limb_darkening
    for i in np.flatnonzero(u.ravel() < POINT_SOURCE_DISTANCE * rho):
        ui = float(u.ravel()[i])
        flat[i] = vb.ESPLMagDark(ui, rho) if limb_darkening > 0 else vb.ESPLMag2(ui, rho)
    return flat.reshape(u.shape)[()]
