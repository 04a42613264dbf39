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

IMAGE = 1e-5  # residual of the lens equation below which a root is an image
NEWTON_STEPS = 8
SAFE = 1.5  # nearest caustic, in source radii, at which the expansion is tried
FAR = 12.0  # beyond so many the second order is enough, where it is small
QUADRUPOLE = 3.0  # largest second order, in tolerances


@numba.njit(cache=True)
def _multiply(a, b, out):
    """Product of polynomials (coefficients from the constant up)."""
    out[:] = 0
    for i in range(len(a)):
        for j in range(len(b)):
            out[i + j] += a[i] * b[j]


@numba.njit(cache=True)
def _roots(c, roots):
    """Roots of a polynomial of degree 5 by Aberth's iteration from `roots`. Returns whether it converged."""
    n = len(roots)
    for _ in range(80):
        largest = 0.0
        for i in range(n):
            z = roots[i]
            p, dp = c[n], 0j
            for k in range(n - 1, -1, -1):
                dp = dp * z + p
                p = p * z + c[k]
            if p == 0:
                continue
            total = 0j
            for j in range(n):
                if j != i and roots[j] != z:
                    total += 1.0 / (z - roots[j])
            below = dp - p * total
            step = p / below if below != 0 else 1e-6 + 1e-6j
            roots[i] = z - step
            largest = max(largest, abs(step) / (1e-3 + abs(z)))
        if largest < 1e-12:
            return True
    return False


@numba.njit(cache=True)
def _images(zeta, s, m1, m2, roots, images):
    """Images of a point source in the frame of the secondary (z1 = -s, z2 = 0); returns their number, 0 if it is unclear."""
    a = np.conj(zeta)
    w = np.array([0j, s + 0j, 1 + 0j])  # z (z + s)
    n = np.array([m2 * s + 0j, 1 + 0j, 0j])
    p1, p2 = (a + s) * w + n, a * w + n
    product, left, right = np.empty(5, np.complex128), np.empty(6, np.complex128), np.empty(5, np.complex128)
    _multiply(p1, p2, product)
    _multiply(product, np.array([-zeta, 1 + 0j]), left)
    _multiply(w, m1 * p2 + m2 * p1, right)
    left[:5] -= right
    if not _roots(left, roots):
        return 0
    count = 0
    for i in range(5):
        z = np.conj(roots[i])
        if z == 0 or z == -s:
            return 0
        if abs(np.conj(z) - zeta - m1 / (z + s) - m2 / z) < IMAGE:
            images[count] = roots[i]
            count += 1
    return count if count == 3 or count == 5 else 0


@numba.njit(cache=True)
def _follow(zeta, s, m1, m2, start, count):
    """Total magnification at zeta from the images of a nearby point; NaN if one of them is lost."""
    total = 0.0
    for i in range(count):
        z = start[i]
        kappa, jacobian, done = 0j, 1.0, False
        for _ in range(NEWTON_STEPS):
            c = np.conj(z)
            u, v = 1.0 / (c + s), 1.0 / c
            kappa = m1 * u * u + m2 * v * v
            jacobian = 1.0 - (kappa.real * kappa.real + kappa.imag * kappa.imag)
            if done:
                break
            f = z - m1 * u - m2 * v - zeta
            step = (kappa * np.conj(f) - f) / jacobian
            z += step
            done = abs(step) < 1e-10 * (1e-3 + abs(z))
        if not done or jacobian * (1 if _parity(start[i], s, m1, m2) else -1) <= 0:
            return np.nan
        total += 1.0 / abs(jacobian)
    return total


@numba.njit(cache=True)
def _parity(z, s, m1, m2):
    c = np.conj(z)
    kappa = m1 / (c + s) ** 2 + m2 / c**2
    return abs(kappa) < 1


@numba.njit(cache=True)
def hexadecapole(x, y, s, q, rho, limb_darkening, distance, tolerance):
    """Magnification (n,) at centre-of-mass positions x, y (n,); NaN near a caustic and where the expansion is not good.

    distance : (n,) to the caustic in source radii.   tolerance : bound on the fourth order, relative.
    limb_darkening : linear coefficient u.
    """
    m1, m2 = 1.0 / (1.0 + q), q / (1.0 + q)
    gamma = 2 * limb_darkening / (3 - limb_darkening)
    out = np.full(len(x), np.nan)
    roots, images = np.empty(5, np.complex128), np.empty(5, np.complex128)
    for k in range(5):
        roots[k] = (0.7 + 0.4 * s) * np.exp(2j * np.pi * (k + 0.3) / 5) - 0.5 * s
    ring = np.empty(3)
    for i in range(len(x)):
        if not distance[i] > SAFE:
            continue
        zeta = complex(x[i] - s * m1, y[i])
        for j in range(5):  # roots that have fallen together would stay together
            roots[j] += 1e-7 * (j + 1) * (1 + 0.5j)
        count = _images(zeta, s, m1, m2, roots, images)
        if count == 0:
            for k in range(5):
                roots[k] = (0.7 + 0.4 * s) * np.exp(2j * np.pi * (k + 0.3) / 5) - 0.5 * s
            continue
        centre = _follow(zeta, s, m1, m2, images, count)
        if not centre >= 1.0 - 1e-9:
            continue
        if distance[i] > FAR:
            total = 0.0
            for j in range(4):
                total += _follow(zeta + rho * np.exp(0.5j * np.pi * j), s, m1, m2, images, count)
            second = 0.25 * total - centre
            # Between two cusps that face each other the map has a ridge far from any caustic: the second order must be small, too.
            if abs(second) < QUADRUPOLE * tolerance * centre:
                out[i] = centre + 0.5 * second * (1 - 0.2 * gamma)
                continue
        for r in range(3):  # radius rho, rho turned by 45 degrees, rho/2
            radius, turn = (rho if r < 2 else 0.5 * rho), (0.25 * np.pi if r == 1 else 0.0)
            total = 0.0
            for j in range(4):
                total += _follow(zeta + radius * np.exp(1j * (turn + 0.5 * np.pi * j)), s, m1, m2, images, count)
            ring[r] = 0.25 * total - centre
        second = (16.0 * ring[2] - ring[0]) / 3.0
        fourth = 0.5 * (ring[0] + ring[1]) - second
        value = centre + 0.5 * second * (1 - 0.2 * gamma) + fourth / 3.0 * (1 - 11.0 * gamma / 35.0)
        # The fourth order bounds what follows it; the difference of the two squares is of fourth order, too, and misses nothing
        # by symmetry.
        if abs(fourth) + abs(ring[0] - ring[1]) < 0.5 * tolerance * value:
            out[i] = value
    return out
