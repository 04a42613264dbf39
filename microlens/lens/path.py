"""Where the source and the two lenses are, and the lens equation: the one place of each of these formulas.

The frame has its origin at the centre of mass and the secondary on the positive x axis; lengths are in Einstein radii
of the total mass. The source's path is described by its coordinate along the direction of motion and the one across
it. Without parallax these are tau = (t - t_0)/t_E and u_0; annual parallax adds smooth functions of time to both (see
`parallax`). A `Track` is such a path as a function of tau, straight or bent.

The functions work on numbers and arrays in Python, and on numbers in compiled kernels.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numba.extending import register_jitable

from microlens.lens.parallax import Parallax, displacements
from microlens.lens.roots import inverse

KNOT_STEP = 2.0  # d, between the knots of a bent track: a cubic between them is right to 2e-8 au
RATE_STEP = 0.1  # d, on either side of a knot, over which its rate is measured
MARGIN = 4.0  # d, beyond the times for which a track is asked, for nodes outside of them


class Track(NamedTuple):
    """A source's path as a function of tau = (t - t_0)/t_E.

    u_0 : Einstein radii.   alpha : radians.   fastest : the greatest speed, Einstein radii an Einstein time.
    first, step, knots : how parallax bends it. Row k of knots (m, 4), at tau = first + k step, has the displacement
    along and across the straight path and their rates, in Einstein radii and for each `step`. A straight track has
    no rows.
    """

    u_0: float
    alpha: float
    fastest: float
    first: float
    step: float
    knots: np.ndarray


class Lens(NamedTuple):
    """A binary lens and a source's radius, as the compiled kernels take them.

    rho, s : Einstein radii.   q : mass ratio.
    gamma : 2 u/(3 - u) of the linear limb-darkening coefficient u (An et al. 2002).
    """

    rho: float
    s: float
    q: float
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


# ---- along a track --------------------------------------------------------------------------------------------------


def straight_track(u_0, alpha) -> Track:
    """The track without parallax. u_0 : Einstein radii.   alpha : radians."""
    return Track(float(u_0), float(alpha), 1.0, 0.0, 1.0, np.empty((0, 4)))


def bent_track(t_0, u_0, t_E, alpha, parallax: Parallax, earliest, latest) -> Track:
    """The track with parallax for times from `earliest` to `latest` days.

    t_0, t_E : days.   u_0 : Einstein radii.   alpha : radians.
    Beyond those times, by more than MARGIN, the track goes on straight.
    Raises ValueError where times are no dates (see parallax_offsets).
    """
    n = int(np.ceil((latest - earliest + 2 * MARGIN) / KNOT_STEP)) + 1
    knots_t = earliest - MARGIN + KNOT_STEP * np.arange(n)
    around = np.concatenate([knots_t, knots_t - RATE_STEP, knots_t + RATE_STEP])
    moved = np.stack(displacements(around, t_0, parallax)).reshape(2, 3, n)
    rates = (moved[:, 2] - moved[:, 1]) * (0.5 * KNOT_STEP / RATE_STEP)
    knots = np.ascontiguousarray(np.vstack([moved[:, 0], rates]).T)
    step = KNOT_STEP / t_E
    speed = np.hypot(1.0 + knots[:, 2] / step, knots[:, 3] / step).max()
    return Track(float(u_0), float(alpha), float(speed), float((knots_t[0] - t_0) / t_E), float(step), knots)


@register_jitable
def track_displacement(tau, track):
    """Displacement of the source along and across its straight path at tau, and its rates: four numbers.

    Einstein radii, and Einstein radii an Einstein time.
    """
    knots = track.knots
    place = (tau - track.first) / track.step
    k = min(max(int(place), 0), len(knots) - 2)
    f = min(max(place - k, 0.0), 1.0)
    beyond = place - k - f
    here, there = knots[k], knots[k + 1]
    # Hermite's cubic: the values and rates at both knots.
    c00, c10 = (1 + 2 * f) * (1 - f) * (1 - f), f * (1 - f) * (1 - f)
    c01, c11 = f * f * (3 - 2 * f), f * f * (f - 1)
    d0, d10, d11 = 6 * f * (f - 1), (1 - f) * (1 - 3 * f), f * (3 * f - 2)
    rate_along = d0 * (here[0] - there[0]) + d10 * here[2] + d11 * there[2]
    rate_across = d0 * (here[1] - there[1]) + d10 * here[3] + d11 * there[3]
    along = c00 * here[0] + c10 * here[2] + c01 * there[0] + c11 * there[2] + beyond * rate_along
    across = c00 * here[1] + c10 * here[3] + c01 * there[1] + c11 * there[3] + beyond * rate_across
    return along, across, rate_along / track.step, rate_across / track.step


@register_jitable
def position_on(track, tau):
    """Source position (x, y), Einstein radii, at tau on a track."""
    if len(track.knots) == 0:
        return source_position(tau, track.u_0, track.alpha)
    along, across, _, _ = track_displacement(tau, track)
    return source_position(tau + along, track.u_0 + across, track.alpha)


@register_jitable
def velocity_on(track, tau):
    """Velocity (x, y) of the source, Einstein radii an Einstein time, at tau on a track."""
    if len(track.knots) == 0:
        return source_position(1.0, 0.0, track.alpha)
    _, _, along, across = track_displacement(tau, track)
    return source_position(1.0 + along, across, track.alpha)


def trajectory(t, t_0, u_0, t_E, alpha, parallax: Parallax | None = None):
    """Source position (x, y), each (n,), Einstein radii, at times t (n,) days.

    t_0, t_E : days.   u_0 : Einstein radii.   alpha : radians.   parallax : see microlens.lens.parallax.
    """
    tau = (np.asarray(t, dtype=float) - t_0) / t_E
    if parallax is None:
        return source_position(tau, u_0, alpha)
    along, across = displacements(t, t_0, parallax)
    return source_position(tau + along, u_0 + across, alpha)
