"""Finite-source magnification of a binary lens away from caustics, without contours: point source plus hexadecapole.

With a = conj(zeta) the lens equation z - zeta = m1/(conj z - z1) + m2/(conj z - z2) and its conjugate give, for
W = (z - z1)(z - z2), N = m1 (z - z2) + m2 (z - z1) and P_k = (a - z_k) W + N,

    (z - zeta) P_1 P_2 = W (m1 P_2 + m2 P_1),

a quintic in z whose roots hold the images (Witt 1990). Each image has magnification 1/|1 - |kappa|^2|. The disc is
the average over a circle expanded to fourth order (Gould 2008; Pejcha & Heyrovsky 2009): 13 point sources, whose
images are followed from those of the centre by Newton's method on the lens equation itself. Nearer to a caustic three
rings of point sources are averaged by Gauss's rule. Where an image is lost, the fourth order is not small, or the
rings do not agree, the answer is NaN: the limb integral's turn.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numba.extending import register_jitable
from scipy.special import beta

from microlens.lens.path import lens_equation, lens_positions, masses_about_secondary
from microlens.lens.roots import find_roots
from microlens.lens.single import paczynski

REACH = 8.0  # Einstein radii beyond the lenses where a whole curve ends: log A < 5e-4, and falls with tau^-4
SOURCE_REACH = 10.0  # source radii that are added to it for large sources
IMAGE = 1e-5  # residual of the lens equation below which a root of the quintic is an image
APART = 1e-5  # distance of two images below which they have run together
ROOT_STEPS = np.int64(80)  # most steps of the root finder; numba would compile it anew for another Python integer
SEPARATE = 1e-7 * np.arange(1, 6) * (1 + 0.5j)  # added to the last position's roots: equal ones would stay together
NEWTON_STEPS = 8
# Relative step after which an image is done: convergence is quadratic, so the error is about 1e-12.
NEWTON_TOLERANCE = 1e-6
SMALLEST_SCALE = 1e-3  # length against which the steps of images near the secondary are measured

NEAREST = 1.5  # nearest caustic, in source radii, at which the disc is expanded
QUADRUPOLE_NEAREST = 12.0  # nearest caustic, in source radii, at which the second order alone is tried
FOURTH_ORDER = 0.3  # largest fourth order / asked tolerance; the errors are a hundred times smaller
SECOND_ORDER = 3.0  # largest second order, in tolerances, where it is used alone
SLOPE = 0.01  # weight of the first order in that test
EIGHTHS = np.exp(0.25j * np.pi * np.arange(8))  # directions of the point sources of the hexadecapole

RING_POINTS = (8, 16, 24)  # points on the three rings far from a caustic
FEW_POINTS = 1.6  # nearest caustic, in source radii, where so many are enough; nearer there are half as many more
RING_TOLERANCE = 0.05  # error estimate of the rings / asked tolerance
RADIAL = 0.05  # error along the radius / error of the predicted centre: 7e-3 for one more term, more for a slow series
CURVATURE = 0.01  # weight of the second difference of the rings, beside the error of the predicted centre
# Of Gauss's rule with three nodes in the squared radius.
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


class Scratch(NamedTuple):
    """Memory that the positions of one curve share; the roots are the starting points of the next position's."""

    coefficients: np.ndarray  # (6,) complex, of the quintic
    roots: np.ndarray  # (5,) complex
    images: np.ndarray  # (5,) complex, of the disc's centre
    moved: np.ndarray  # (5,) complex, of another point of the disc


class Centre(NamedTuple):
    """The point source at the disc's centre: its position, the lenses, its images (3 or 5,) and its magnification."""

    zeta: complex
    masses: tuple
    images: np.ndarray
    magnification: float


@numba.njit(cache=True, error_model="numpy")
def new_scratch(s):
    """Scratch for a lens of separation s, its roots at their starting points."""
    five = np.empty((3, 5), np.complex128)
    scratch = Scratch(np.empty(6, np.complex128), five[0], five[1], five[2])
    start_roots(s, scratch.roots)
    return scratch


@numba.njit(cache=True, error_model="numpy")
def start_roots(s, roots):
    """Set the starting points of the root finder (5,): a lopsided ring about the two lenses."""
    for k in range(5):
        roots[k] = (0.7 + 0.4 * s) * np.exp(2j * np.pi * (k + 0.3) / 5) - 0.5 * s


@numba.njit(cache=True, error_model="numpy")
def find_candidates(zeta, masses, scratch):
    """Move scratch.roots (5,) to the roots of the quintic, images among them; returns whether all converged.

    masses : about the secondary.
    """
    m2, s = masses.m2, -masses.z1
    c, roots = scratch.coefficients, scratch.roots
    a = np.conj(zeta)
    # W = z^2 + s z and N = z + e give P_1 P_2 = f W^2 + g W N + N^2 with coefficients p4 .. p0, and the right-hand
    # side.
    e, f, g, h = m2 * s, a * (a + s), 2 * a + s, a + m2 * s
    p4, p3, p2 = f, 2 * s * f + g, s * s * f + (s + e) * g + 1
    p1, p0 = s * e * g + 2 * e, complex(e * e, 0.0)
    c[5] = p4
    c[4] = p3 - zeta * p4 - h
    c[3] = p2 - zeta * p3 - (2 * s * h + 1)
    c[2] = p1 - zeta * p2 - (s * s * h + s + e)
    c[1] = p0 - zeta * p1 - s * e
    c[0] = -zeta * p0
    return find_roots(c, roots, ROOT_STEPS)


@numba.njit(cache=True, error_model="numpy")
def count_images(zeta, masses, scratch):
    """Put the images of a point source into scratch.images; returns their number, 3 or 5, or 0 if it is unclear."""
    if not find_candidates(zeta, masses, scratch):
        return 0
    roots, count = scratch.roots, 0
    for i in range(5):
        if roots[i] == masses.z1 or roots[i] == masses.z2:
            return 0
        off = lens_equation(roots[i], masses)[0] - zeta
        if off.real * off.real + off.imag * off.imag < IMAGE * IMAGE:
            scratch.images[count] = roots[i]
            count += 1
    return count if count == 3 or count == 5 else 0


@numba.njit(cache=True, error_model="numpy")
def follow_images(zeta, masses, start, end):
    """Total magnification at zeta; the images move from `start` (n,) of a nearby point to `end`. NaN if one is lost."""
    total = 0.0
    for i in range(len(start)):
        z, sign, jacobian, done = start[i], 0.0, 1.0, False
        for _ in range(NEWTON_STEPS):
            position, kappa = lens_equation(z, masses)
            jacobian = 1.0 - (kappa.real * kappa.real + kappa.imag * kappa.imag)
            if sign == 0.0:
                sign = jacobian
            if done:
                break
            off = position - zeta
            step = (kappa * np.conj(off) - off) * (1.0 / jacobian) if jacobian != 0 else complex(np.nan, np.nan)
            z += step
            done = abs(step.real) + abs(step.imag) < NEWTON_TOLERANCE * (SMALLEST_SCALE + abs(z.real) + abs(z.imag))
        if not done or jacobian * sign <= 0:
            return np.nan
        for j in range(i):  # two that have run together would stay together, and one is missing
            if abs(end[j].real - z.real) + abs(end[j].imag - z.imag) < APART:
                return np.nan
        end[i] = z
        total += 1.0 / abs(jacobian)
    return total


@register_jitable
def far_magnification(x, y, s, rho):
    """Magnification of a point or a disc so far from lenses and caustics that both masses act as one; NaN if nearer.

    The quadrupole of the lens changes A - 1, which is below 5e-4 there, by less than one per cent.
    """
    u2 = x * x + y * y
    return paczynski(u2) if u2 > (REACH + s + 1.0 / s + SOURCE_REACH * rho) ** 2 else np.nan


@numba.njit(cache=True, error_model="numpy")
def expand(x, y, lens, distance, tolerance, scratch):
    """Magnification of the source disc at (x, y); NaN at a caustic and where neither hexadecapole nor rings are good.

    lens : path.Lens.   distance : to the caustic in source radii.   tolerance : relative.   scratch : see new_scratch.
    """
    if not distance > NEAREST:
        return np.nan
    far = far_magnification(x, y, lens.s, lens.rho)
    if far > 0:
        return far
    masses = masses_about_secondary(lens.s, lens.q)
    zeta = complex(x - lens_positions(lens.s, lens.q)[1], y)
    for j in range(5):
        scratch.roots[j] += SEPARATE[j]
    count = count_images(zeta, masses, scratch)
    if count == 0:
        start_roots(lens.s, scratch.roots)
        return np.nan
    images, moved = scratch.images[:count], scratch.moved[:count]
    magnification = follow_images(zeta, masses, images, images)
    if not magnification >= 1.0 - 1e-9:  # the smallest possible, but for rounding; NaN where an image is lost
        return np.nan
    centre = Centre(zeta, masses, images, magnification)
    value = _hexadecapole(centre, lens, distance, tolerance, moved)
    if value > 0:
        return value
    return _rings(centre, lens, distance, tolerance, moved)


@numba.njit(cache=True, error_model="numpy")
def _hexadecapole(centre, lens, distance, tolerance, moved):
    """Average over the disc by 13 point sources (Gould 2008), or by 5 far from caustics; NaN where it is not good."""
    zeta, masses, images, point = centre
    rho, gamma = lens.rho, lens.gamma
    if distance > QUADRUPOLE_NEAREST:
        east = follow_images(zeta + rho, masses, images, moved)
        north = follow_images(zeta + 1j * rho, masses, images, moved)
        west = follow_images(zeta - rho, masses, images, moved)
        south = follow_images(zeta - 1j * rho, masses, images, moved)
        second = 0.25 * (east + west + north + south) - point
        # Between two cusps that face each other the map has a ridge far from any caustic, with a scale of its own:
        # the slope over one radius tells.
        slope = abs(east - west) + abs(north - south)
        bound = abs(east + west - 2 * point) + abs(north + south - 2 * point) + SLOPE * slope
        if bound < SECOND_ORDER * tolerance * point:
            return point + 0.5 * second * (1 - 0.2 * gamma)
    square = turned = half = 0.0
    for j in range(0, 8, 2):
        square += 0.25 * follow_images(zeta + rho * EIGHTHS[j], masses, images, moved)
        turned += 0.25 * follow_images(zeta + rho * EIGHTHS[j + 1], masses, images, moved)
        half += 0.25 * follow_images(zeta + 0.5 * rho * EIGHTHS[j], masses, images, moved)
    second = (16.0 * (half - point) - (square - point)) / 3.0
    fourth = 0.5 * (square + turned) - point - second
    value = point + 0.5 * second * (1 - 0.2 * gamma) + fourth / 3.0 * (1 - 11.0 * gamma / 35.0)
    # The fourth order bounds what follows it; the difference of the two squares is of fourth order, too, and misses
    # nothing by symmetry.
    return value if abs(fourth) + abs(square - turned) < FOURTH_ORDER * tolerance * value else np.nan


@numba.njit(cache=True, error_model="numpy")
def _rings(centre, lens, distance, tolerance, moved):
    """Average over the disc by three rings, Gauss's rule in the square of the radius; NaN where it is not good.

    Without a caustic in the disc the magnification is analytic there, up to `distance` > 1 source radii: the
    trapezoidal rule with m points on a ring of radius r errs as (r/distance)^m, and half of the points tell by how
    much. How well the rings predict the centre, which Gauss's rule does not use, tells the error along the radius.
    """
    zeta, masses, images, point = centre
    moved[:] = images
    value, error = DARK[0] * lens.gamma * point, 0.0
    predicted = curved = 0.0
    for k in range(3):
        n = RING_POINTS[k] if distance > FEW_POINTS else (3 * RING_POINTS[k]) // 2
        even = odd = 0.0
        for j in range(n):
            a = follow_images(zeta + RADII[k] * lens.rho * np.exp(2j * np.pi * j / n), masses, moved, moved)
            if j % 2 == 0:
                even += a
            else:
                odd += a
        mean = (even + odd) / n
        error += GAUSS[k] * abs(even - odd) / n * (RADII[k] / distance) ** (n // 2)
        value += (GAUSS[k] * (1 - lens.gamma) + DARK[k + 1] * lens.gamma) * mean
        predicted += AT_CENTRE[k] * mean
        curved += CURVED[k] * mean
    # The third order can vanish by chance, not the second with it.
    error += RADIAL * (abs(predicted - point) + CURVATURE * abs(curved))
    return value if error < RING_TOLERANCE * tolerance * value else np.nan
