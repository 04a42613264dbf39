"""Finite-source magnification of a binary lens away from caustics, without contours: point source plus hexadecapole.

With a = conj(zeta) the lens equation z - zeta = m1/(conj z - z1) + m2/(conj z - z2) and its conjugate give, for
W = (z - z1)(z - z2), N = m1 (z - z2) + m2 (z - z1) and P_k = (a - z_k) W + N,

    (z - zeta) P_1 P_2 = W (m1 P_2 + m2 P_1),

a quintic in z whose roots hold the images (Witt 1990). Each image has magnification 1/|1 - |kappa|^2| with
kappa = m1/(conj z - z1)^2 + m2/(conj z - z2)^2. The uniform disc is the average over a circle expanded to fourth order (Gould
2008): 13 point sources, whose images are followed from those of the centre by Newton's method on the lens equation itself. Where
an image is lost, the fourth order is not small, or the ring is lopsided, the answer is NaN: the contour integrator's turn.
"""

from __future__ import annotations

import numba
import numpy as np
from scipy.special import beta

from microlens.lens.caustics import inverse

IMAGE = 1e-5  # residual of the lens equation below which a root is an image
NEWTON_STEPS = 8
SAFE = 1.5  # nearest caustic, in source radii, at which the expansion is tried
FAR = 12.0  # beyond so many the second order is enough, where it is small
EXPANSION_TOLERANCE = 0.3  # bound on the fourth order / asked tolerance; the errors are a hundred times smaller
QUADRUPOLE = 3.0  # largest second order, in tolerances
SLOPE = 0.01  # weight of the first order there
RING = np.exp(0.25j * np.pi * np.arange(8))

NEAR = 1.05  # nearest caustic, in source radii, at which rings are tried
RING_POINTS = (8, 16, 24)  # points on the three rings far from a caustic
RING_TOLERANCE = 0.05  # error estimate of the rings / asked tolerance
RADIAL = 0.05  # error along the radius / error of the predicted centre: 7e-3 for one more term, more for a slow series
RADII = np.sqrt(0.5 + np.array([-0.5, 0.0, 0.5]) * np.sqrt(0.6))
GAUSS = np.array([5.0, 8.0, 5.0]) / 18


def _lagrange(k, nodes):
    """Lagrange's polynomial of node k, as numpy has polynomials."""
    others = np.delete(nodes, k)
    return np.polynomial.Polynomial.fromroots(others) / np.prod(nodes[k] - others)


# Weights of centre and rings for the darkened part of the disc, 3/2 sqrt(1 - r^2), whose moments are beta functions.
_NODES = np.concatenate([[0.0], RADII**2])
DARK = np.array([sum(1.5 * beta(j + 1, 1.5) * c for j, c in enumerate(_lagrange(k, _NODES).coef)) for k in range(4)])
AT_CENTRE = np.array([_lagrange(k, RADII**2)(0.0) for k in range(3)])
CURVED = np.array([_lagrange(k, RADII**2).coef[2] for k in range(3)])


@numba.njit(cache=True)
def first_roots(s, roots):
    """Starting points of the root finder (5,), in place: a lopsided ring about the two lenses."""
    for k in range(5):
        roots[k] = (0.7 + 0.4 * s) * np.exp(2j * np.pi * (k + 0.3) / 5) - 0.5 * s


@numba.njit(cache=True)
def _roots(c, roots):
    """Roots of the quintic with coefficients c (6,), from the constant up, by Aberth's iteration. Returns whether it converged."""
    for _ in range(80):
        largest = 0.0
        for i in range(5):
            z = roots[i]
            dp = c[5]
            p = c[5] * z + c[4]
            for k in range(3, -1, -1):
                dp = dp * z + p
                p = p * z + c[k]
            if p == 0:
                continue
            total = 0j
            for j in range(5):
                if j != i and roots[j] != z:
                    total += inverse(z - roots[j])
            below = dp - p * total
            step = p * inverse(below) if below != 0 else 1e-6 + 1e-6j
            roots[i] = z - step
            size = (abs(step.real) + abs(step.imag)) / (1e-3 + abs(z.real) + abs(z.imag))
            largest = max(largest, size)
        if largest < 1e-7:  # convergence is cubic, and Newton's method on the lens equation follows
            return True
    return False


@numba.njit(cache=True)
def _images(zeta, s, m1, m2, c, roots, images):
    """Images of a point source in the frame of the secondary (z1 = -s, z2 = 0); returns their number, 0 if it is unclear.

    c (6,) : scratch.   roots (5,) : where to begin, and the roots on return.
    """
    a = np.conj(zeta)
    # W = z^2 + s z and N = z + e give P_1 P_2 = f W^2 + g W N + N^2 with coefficients p4 .. p0, and the right-hand side.
    e, f, g, h = m2 * s, a * (a + s), 2 * a + s, a + m2 * s
    p4, p3, p2 = f, 2 * s * f + g, s * s * f + (s + e) * g + 1
    p1, p0 = s * e * g + 2 * e, complex(e * e, 0.0)
    c[5] = p4
    c[4] = p3 - zeta * p4 - h
    c[3] = p2 - zeta * p3 - (2 * s * h + 1)
    c[2] = p1 - zeta * p2 - (s * s * h + s + e)
    c[1] = p0 - zeta * p1 - s * e
    c[0] = -zeta * p0
    if not _roots(c, roots):
        return 0
    count = 0
    for i in range(5):
        z = np.conj(roots[i])
        if z == 0 or z == -s:
            return 0
        off = roots[i] - zeta - m1 * inverse(z + s) - m2 * inverse(z)
        if off.real * off.real + off.imag * off.imag < IMAGE * IMAGE:
            images[count] = roots[i]
            count += 1
    return count if count == 3 or count == 5 else 0


@numba.njit(cache=True)
def _follow(zeta, s, m1, m2, start, count, end):
    """Total magnification at zeta from the images `start` of a nearby point, which move to `end`; NaN if one is lost."""
    total = 0.0
    for i in range(count):
        z, sign, jacobian, done = start[i], 0.0, 1.0, False
        for _ in range(NEWTON_STEPS):
            c = np.conj(z)
            u, v = inverse(c + s), inverse(c)
            kappa = m1 * u * u + m2 * v * v
            jacobian = 1.0 - (kappa.real * kappa.real + kappa.imag * kappa.imag)
            if sign == 0.0:
                sign = jacobian
            if done:
                break
            f = z - m1 * u - m2 * v - zeta
            step = (kappa * np.conj(f) - f) * (1.0 / jacobian) if jacobian != 0 else complex(np.nan, np.nan)
            z += step
            done = abs(step.real) + abs(step.imag) < 1e-6 * (1e-3 + abs(z.real) + abs(z.imag))  # quadratic: 1e-12 is next
        if not done or jacobian * sign <= 0:
            return np.nan
        for j in range(i):  # two that have run together would stay together, and one is missing
            if abs(end[j].real - z.real) + abs(end[j].imag - z.imag) < 1e-5:
                return np.nan
        end[i] = z
        total += 1.0 / abs(jacobian)
    return total


@numba.njit(cache=True)
def _rings(zeta, s, m1, m2, rho, gamma, distance, tolerance, centre, images, count, moved):
    """Average over the disc by three rings, Gauss's rule in the square of the radius; NaN where it is not good.

    Without a caustic in the disc the magnification is analytic there, up to `distance` > 1 source radii: the trapezoidal rule
    with m points on a ring of radius r errs as (r/distance)^m, and half of the points tell by how much. How well the rings
    predict the centre, which Gauss's rule does not use, tells the error along the radius.
    """
    moved[:count] = images[:count]
    value, error = DARK[0] * gamma * centre, 0.0
    predicted = curved = 0.0
    for k in range(3):
        n = RING_POINTS[k] if distance > 1.6 else (3 * RING_POINTS[k]) // 2 if distance > 1.3 else 2 * RING_POINTS[k]
        even = odd = 0.0
        for j in range(n):
            a = _follow(zeta + RADII[k] * rho * np.exp(2j * np.pi * j / n), s, m1, m2, moved, count, moved)
            if j % 2 == 0:
                even += a
            else:
                odd += a
        mean = (even + odd) / n
        error += GAUSS[k] * abs(even - odd) / n * (RADII[k] / distance) ** (n // 2)
        value += (GAUSS[k] * (1 - gamma) + DARK[k + 1] * gamma) * mean
        predicted += AT_CENTRE[k] * mean
        curved += CURVED[k] * mean
    # The third order can vanish by chance, not the second with it.
    error += RADIAL * (abs(predicted - centre) + 0.01 * abs(curved))
    return value if error < RING_TOLERANCE * tolerance * value else np.nan


@numba.njit(cache=True)
def expand(x, y, s, q, rho, gamma, distance, tolerance, c, roots, images, moved):
    """Magnification at a centre-of-mass position (x, y); NaN at a caustic and where neither expansion nor rings are good.

    gamma : 2 u/(3 - u) of the linear limb-darkening coefficient u.   distance : to the caustic in source radii.
    tolerance : relative.   c (6,), roots, images, moved (5,) : scratch; roots begin as in first_roots.
    """
    if not distance > NEAR:
        return np.nan
    m1, m2 = 1.0 / (1.0 + q), q / (1.0 + q)
    zeta = complex(x - s * m1, y)
    for j in range(5):  # roots that have fallen together would stay together
        roots[j] += 1e-7 * (j + 1) * (1 + 0.5j)
    count = _images(zeta, s, m1, m2, c, roots, images)
    if count == 0:
        first_roots(s, roots)
        return np.nan
    centre = _follow(zeta, s, m1, m2, images, count, images)
    if not centre >= 1.0 - 1e-9:
        return np.nan
    if distance > SAFE:
        value = _hexadecapole(zeta, s, m1, m2, rho, gamma, distance, tolerance, centre, images, count, moved)
        if value > 0:
            return value
    return _rings(zeta, s, m1, m2, rho, gamma, distance, tolerance, centre, images, count, moved)


@numba.njit(cache=True)
def _hexadecapole(zeta, s, m1, m2, rho, gamma, distance, tolerance, centre, images, count, moved):
    """Average over the disc from 13 point sources, or 5 far from caustics; NaN where it is not good."""
    if distance > FAR:
        east = _follow(zeta + rho, s, m1, m2, images, count, moved)
        north = _follow(zeta + 1j * rho, s, m1, m2, images, count, moved)
        west = _follow(zeta - rho, s, m1, m2, images, count, moved)
        south = _follow(zeta - 1j * rho, s, m1, m2, images, count, moved)
        second = 0.25 * (east + west + north + south) - centre
        # Between two cusps that face each other the map has a ridge far from any caustic, with a scale of its own: the slope over
        # one radius tells.
        slope = abs(east - west) + abs(north - south)
        bound = abs(east + west - 2 * centre) + abs(north + south - 2 * centre) + SLOPE * slope
        if bound < QUADRUPOLE * tolerance * centre:
            return centre + 0.5 * second * (1 - 0.2 * gamma)
    square = turned = half = 0.0
    for j in range(0, 8, 2):
        square += 0.25 * _follow(zeta + rho * RING[j], s, m1, m2, images, count, moved)
        turned += 0.25 * _follow(zeta + rho * RING[j + 1], s, m1, m2, images, count, moved)
        half += 0.25 * _follow(zeta + 0.5 * rho * RING[j], s, m1, m2, images, count, moved)
    second = (16.0 * (half - centre) - (square - centre)) / 3.0
    fourth = 0.5 * (square + turned) - centre - second
    value = centre + 0.5 * second * (1 - 0.2 * gamma) + fourth / 3.0 * (1 - 11.0 * gamma / 35.0)
    # The fourth order bounds what follows it; the difference of the two squares is of fourth order, too, and misses nothing by
    # symmetry.
    return value if abs(fourth) + abs(square - turned) < EXPANSION_TOLERANCE * tolerance * value else np.nan
