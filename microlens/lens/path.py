"""Where the source and the two lenses are, and the lens equation: the one place of each of these formulas.

The frame has its origin at the centre of mass and the secondary on the positive x axis; lengths are in Einstein radii
of the total mass. The source's path is described by its coordinate tau along the direction of motion and beta across
it. Without parallax tau = (t - t_0)/t_E and beta = u_0; annual parallax shifts both by functions of time (Gould
2004), so that a path with parallax is the same call of `source_position` with tau + delta_tau(t) and u_0 +
delta_beta(t).

The functions work on numbers and arrays in Python, and on numbers in compiled kernels.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numba.extending import register_jitable

from microlens.lens.roots import inverse


class Lens(NamedTuple):
    """A binary lens, the source and its straight path, as the compiled kernels take them.

    u_0, rho, s : Einstein radii.   q : mass ratio.   alpha : radians.
    gamma : 2 u/(3 - u) of the linear limb-darkening coefficient u (An et al. 2002).
    """

    u_0: float
    rho: float
    s: float
    q: float
    alpha: float
    gamma: float


class Masses(NamedTuple):
    """Two point masses m1 + m2 = 1 at z1 and z2 on the real axis."""

    m1: float
    m2: float
    z1: float
    z2: float


@register_jitable
def source_position(tau, beta, alpha):
    """Source position (x, y), Einstein radii, at tau along the path and beta across it. alpha : radians."""
    cos, sin = np.cos(alpha), np.sin(alpha)
    return tau * cos - beta * sin, tau * sin + beta * cos


@register_jitable
def lens_positions(s, q):
    """The x of primary and secondary, Einstein radii from their centre of mass: -q s/(1+q) and s/(1+q)."""
    return -s * (q / (1.0 + q)), s * (1.0 / (1.0 + q))


@register_jitable
def point_masses(s, q):
    """The Masses of a binary lens about its centre of mass."""
    z1, z2 = lens_positions(s, q)
    return Masses(1.0 / (1.0 + q), q / (1.0 + q), z1, z2)


@register_jitable
def masses_about_secondary(s, q):
    """The Masses of a binary lens with the secondary at the origin, where images near a planet keep their digits."""
    return Masses(1.0 / (1.0 + q), q / (1.0 + q), -s, 0.0)


@numba.njit(cache=True)
def lens_equation(z, masses):
    """The source position zeta of an image z, and kappa, whose modulus is 1 on the critical curve (Witt 1990).

    zeta = z - m1/(conj z - z1) - m2/(conj z - z2)
    kappa = m1/(conj z - z1)^2 + m2/(conj z - z2)^2; the Jacobian is 1 - |kappa|^2.
    """
    m1, m2, z1, z2 = masses
    conjugate = np.conj(z)
    to_primary, to_secondary = inverse(conjugate - z1), inverse(conjugate - z2)
    zeta = z - m1 * to_primary - m2 * to_secondary
    kappa = m1 * to_primary * to_primary + m2 * to_secondary * to_secondary
    return zeta, kappa


def trajectory(t, t_0, u_0, t_E, alpha):
    """Source position (x, y), each (n,), Einstein radii, at times t (n,) days.

    t_0, t_E : days.   u_0 : Einstein radii.   alpha : radians.
    """
    tau = (np.asarray(t, dtype=float) - t_0) / t_E
    return source_position(tau, u_0, alpha)
