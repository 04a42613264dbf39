"""Critical curves and caustics of a binary lens, and whether a source disc meets one.

With masses m1 = 1/(1+q) at z1 and m2 = q/(1+q) at z2 the lens equation is zeta = z - m1/(conj z - z1) - m2/(conj z - z2).
Its Jacobian vanishes where m1/(z-z1)^2 + m2/(z-z2)^2 = e^(i phi) (Witt 1990), a quartic in z for each phase phi; the caustic
is the image of that curve under the lens equation.
"""

from __future__ import annotations

import numba
import numpy as np

from microlens.magnification.engine import check_lens

N_PHASES = 400  # 200 leave the polyline off by up to 0.08 rho


@numba.njit(cache=True)
def critical_points(s, q, n):
    """Critical curve, (4, n) complex: the four roots followed from phase to phase by Aberth's iteration."""
    m1, m2 = 1.0 / (1.0 + q), q / (1.0 + q)
    z1, z2 = -s * m2, s * m1
    out = np.empty((4, n), np.complex128)
    roots = np.array([0.9 + 0.4j, -0.65 + 0.72j, 0.1 - 1.1j, 1.3 - 0.3j]) * (0.5 + 0.5 * s)
    for k in range(n):
        w = np.exp(-2j * np.pi * k / n)
        # (z-z1)^2 (z-z2)^2 - w [m1 (z-z2)^2 + m2 (z-z1)^2] = 0
        for _ in range(400 if k == 0 else 60):
            largest = 0.0
            for i in range(4):
                z = roots[i]
                a, b = z - z1, z - z2
                p = a * a * b * b - w * (m1 * b * b + m2 * a * a)
                dp = 2 * a * b * (a + b) - 2 * w * (m1 * b + m2 * a)
                if p == 0:
                    continue
                total = 0j
                for j in range(4):
                    if j != i and roots[i] != roots[j]:
                        total += 1.0 / (roots[i] - roots[j])
                # step = (p/p') / (1 - (p/p') sum), written so that p' = 0 does no harm
                denominator = dp - p * total
                step = p / denominator if denominator != 0 else 1e-3 + 1e-3j
                roots[i] = z - step
                largest = max(largest, abs(step))
            if largest < 1e-13 * (1.0 + s):
                break
        out[:, k] = roots
    return out


@numba.njit(cache=True)
def caustic_points(s, q, n):
    """Caustic points, (4, n) complex: the critical points through the lens equation."""
    m1, m2 = 1.0 / (1.0 + q), q / (1.0 + q)
    z1, z2 = -s * m2, s * m1
    z = critical_points(s, q, n)
    zc = np.conj(z)
    return z - m1 / (zc - z1) - m2 / (zc - z2)


def _branches(curves: np.ndarray) -> list[np.ndarray]:
    """Join the four root tracks over one turn of the phase into closed curves, each (m, 2)."""
    ends = np.abs(curves[:, -1][:, None] - curves[:, 0][None, :])
    order, rest = [], [0, 1, 2, 3]
    while rest:
        chain = [rest.pop(0)]
        while rest:
            nearest = int(np.argmin(ends[chain[-1]]))
            if nearest not in rest:
                break
            rest.remove(nearest)
            chain.append(nearest)
        order.append(chain)
    joined = [np.concatenate([curves[i] for i in chain]) for chain in order]
    return [np.column_stack([c.real, c.imag])[np.r_[0 : len(c), 0]] for c in joined]


def critical_curves(s, q, n=N_PHASES) -> list[np.ndarray]:
    """Closed critical curves, a list of (m, 2) arrays (x, y) in Einstein radii. n : phases.  Source: Witt (1990)."""
    check_lens(s, q)
    return _branches(critical_points(float(s), float(q), int(n)))


def caustics(s, q, n=N_PHASES) -> list[np.ndarray]:
    """Closed caustics, a list of (m, 2) arrays (x, y) in Einstein radii, in the order of critical_curves."""
    m1, m2 = 1.0 / (1.0 + q), q / (1.0 + q)
    out = []
    for c in critical_curves(s, q, n):
        z = c[:, 0] - 1j * c[:, 1]
        zeta = np.conj(z) - m1 / (z + s * m2) - m2 / (z - s * m1)
        out.append(np.column_stack([zeta.real, zeta.imag]))
    return out


def topology(s, q) -> str:
    """'close', 'resonant' or 'wide' (Erdl & Schneider 1993).

    Wide above s_w = sqrt((1 + q^(1/3))^3 / (1 + q)); close below the s_c that solves
    s^8 m1 m2 = ((1 - s^4)/3)^3, m1 m2 = q/(1+q)^2.
    """
    check_lens(s, q)
    if s >= np.sqrt((1 + np.cbrt(q)) ** 3 / (1 + q)):
        return "wide"
    return "close" if s**8 * q / (1 + q) ** 2 <= ((1 - s**4) / 3) ** 3 else "resonant"


@numba.njit(cache=True)
def distance_to_caustic(x, y, points):
    """Distance of (x, y) to the polylines `points` (4, n) complex, each track closed on its neighbours' ends by proximity."""
    best = np.inf
    for i in range(points.shape[0]):
        for k in range(points.shape[1] - 1):
            ax, ay = points[i, k].real, points[i, k].imag
            bx, by = points[i, k + 1].real - ax, points[i, k + 1].imag - ay
            length2 = bx * bx + by * by
            f = 0.0
            if length2 > 0:
                f = min(1.0, max(0.0, ((x - ax) * bx + (y - ay) * by) / length2))
            dx, dy = x - ax - f * bx, y - ay - f * by
            best = min(best, dx * dx + dy * dy)
    return np.sqrt(best)


@numba.njit(cache=True)
def _any_within(tau, u_0, alpha, rho, points):
    c, s = np.cos(alpha), np.sin(alpha)
    i = 0
    while i < len(tau):
        d = distance_to_caustic(tau[i] * c - u_0 * s, tau[i] * s + u_0 * c, points)
        if d <= rho:
            return True
        # The source moves |delta tau|, so no epoch nearer than d - rho can meet the caustic.
        reach = tau[i] + (d - rho)
        i += 1
        while i < len(tau) and tau[i] < reach:
            i += 1
    return False


def crosses_caustic(tau, u_0, rho, s, q, alpha) -> bool:
    """Whether the source disc meets a caustic at one of the epochs tau (n,), ascending, (t - t_0)/t_E.

    This is geometry (distance of the disc's centre to the caustic <= rho), not a test of the light curve.
    """
    check_lens(s, q, rho)
    tau = np.ascontiguousarray(tau, dtype=float)
    return bool(_any_within(tau, float(u_0), float(alpha), float(rho), caustic_points(float(s), float(q), N_PHASES)))
