"""Critical curves and caustics of a binary lens, and whether a source disc meets one.

With masses m1 = 1/(1+q) at z1 and m2 = q/(1+q) at z2 the lens equation is

    zeta = z - m1/(conj z - z1) - m2/(conj z - z2).

Its Jacobian vanishes where m1/(z-z1)^2 + m2/(z-z2)^2 = e^(i phi) (Witt 1990), a quartic in z for each phase phi;
the caustic is the image of that curve under the lens equation.
"""

from __future__ import annotations

import numba
import numpy as np

from microlens.lens.engine import check_lens
from microlens.lens.path import Track, lens_equation, lens_positions, point_masses, position_on
from microlens.lens.roots import find_roots

N_PHASES = 400  # phases of the curves; 200 leave the polyline off by up to 0.08 source radii
BLOCK = 16  # segments searched together when the nearest one is looked for
FIRST_STEPS, STEPS = 400, 60  # most steps of the root finder at the first phase and at the others
START = np.array([0.9 + 0.4j, -0.65 + 0.72j, 0.1 - 1.1j, 1.3 - 0.3j])  # of the root finder, without any symmetry


@numba.njit(cache=True)
def critical_points(s, q, n):
    """Critical curve, (4, n) complex for n (even) phases over one turn: the four roots followed from phase to phase.

    With the secondary at the origin the quartic is z^2 (z + s)^2 - w [m1 z^2 + m2 (z + s)^2], w = e^(-i phi). The
    roots of the phase -phi are the conjugates of those of phi, so half a turn is computed and the rest mirrored.
    """
    m2 = q / (1.0 + q)
    secondary = lens_positions(s, q)[1]
    out, coefficients = np.empty((4, n), np.complex128), np.empty(5, np.complex128)
    roots = START * (0.5 + 0.5 * s) - secondary
    half = n // 2
    for k in range(half + 1):
        w = np.exp(-2j * np.pi * k / n)
        coefficients[0], coefficients[1], coefficients[2] = -w * m2 * s * s, -2 * w * m2 * s, s * s - w
        coefficients[3], coefficients[4] = 2 * s, 1.0
        find_roots(coefficients, roots, FIRST_STEPS if k == 0 else STEPS)
        out[:, k] = roots + secondary
        if 0 < k < half:  # where the roots will be, if they go on as they went
            roots = 2 * out[:, k] - out[:, k - 1] - secondary
    taken = np.zeros(4, np.bool_)
    for i in range(4):
        nearest, mirror = np.inf, 0
        for j in range(4):
            apart = abs(np.conj(out[j, half]) - out[i, half])
            if not taken[j] and apart < nearest:
                nearest, mirror = apart, j
        taken[mirror] = True
        for k in range(half + 1, n):
            out[i, k] = np.conj(out[mirror, n - k])
    return out


@numba.njit(cache=True)
def source_points(images, s, q):
    """The source positions (n,) complex of image positions (n,) complex by the lens equation."""
    masses = point_masses(s, q)
    out = np.empty(len(images), np.complex128)
    for i in range(len(images)):
        out[i] = lens_equation(images[i], masses)[0]
    return out


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
    """Closed critical curves, a list of (m, 2) arrays (x, y) in Einstein radii.

    n : phases of the critical curve, even.   Raises ValueError for impossible s or q.   Source: Witt (1990).
    """
    check_lens(s, q)
    return _branches(critical_points(float(s), float(q), int(n)))


def caustics(s, q, n=N_PHASES) -> list[np.ndarray]:
    """Closed caustics, a list of (m, 2) arrays (x, y) in Einstein radii, in the order of critical_curves.

    n : phases of the critical curve.   Raises ValueError for impossible s or q.   Source: Witt (1990).
    """
    images = [c[:, 0] + 1j * c[:, 1] for c in critical_curves(s, q, n)]
    sources = [source_points(z, float(s), float(q)) for z in images]
    return [np.column_stack([zeta.real, zeta.imag]) for zeta in sources]


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
def caustic_polyline(s, q, n):
    """The caustic as (n_blocks, BLOCK + 1) complex vertices, consecutive ones joined, and a disc about each block.

    n : phases, a multiple of BLOCK.   The discs are (n_blocks, 3): x, y and radius.
    """
    critical = critical_points(s, q, n)
    tracks = np.empty((4, n + 1), np.complex128)
    for i in range(4):
        end, nearest = np.inf, 0
        for j in range(4):  # the track goes on where the nearest one begins
            apart = abs(critical[j, 0] - critical[i, n - 1])
            if apart < end:
                end, nearest = apart, j
        tracks[i, :n] = source_points(critical[i], s, q)
        tracks[i, n] = source_points(critical[nearest, :1], s, q)[0]
    per_track = n // BLOCK
    vertices, discs = np.empty((4 * per_track, BLOCK + 1), np.complex128), np.empty((4 * per_track, 3))
    for i in range(4):
        for j in range(per_track):
            piece = tracks[i, j * BLOCK : (j + 1) * BLOCK + 1]
            centre = 0.5 * (piece[0] + piece[BLOCK])
            radius = 0.0
            for v in piece:
                radius = max(radius, abs(v - centre))
            vertices[i * per_track + j] = piece
            discs[i * per_track + j] = np.array([centre.real, centre.imag, radius])
    return vertices, discs


@numba.njit(cache=True)
def _distance2_to_line(x, y, line):
    """Squared distance of (x, y) to the polyline (m,) complex."""
    best = np.inf
    for k in range(len(line) - 1):
        ax, ay = x - line[k].real, y - line[k].imag
        bx, by = line[k + 1].real - line[k].real, line[k + 1].imag - line[k].imag
        length2, along = bx * bx + by * by, ax * bx + ay * by
        if along > 0:
            f = along / length2 if along < length2 else 1.0
            ax, ay = ax - f * bx, ay - f * by
        best = min(best, ax * ax + ay * ay)
    return best


@numba.njit(cache=True)
def distance_to_caustic(x, y, polyline):
    """Distance of (x, y) to the caustic of caustic_polyline; blocks that cannot be the nearest are passed over."""
    vertices, discs = polyline
    first, lowest = 0, np.inf
    for b in range(len(discs)):
        bound = np.sqrt((x - discs[b, 0]) ** 2 + (y - discs[b, 1]) ** 2) - discs[b, 2]
        if bound < lowest:
            lowest, first = bound, b
    best2 = _distance2_to_line(x, y, vertices[first])
    best = np.sqrt(best2)
    for b in range(len(discs)):
        reach = best + discs[b, 2]
        if b != first and (x - discs[b, 0]) ** 2 + (y - discs[b, 1]) ** 2 < reach * reach:
            best2 = min(best2, _distance2_to_line(x, y, vertices[b]))
            best = np.sqrt(best2)
    return best


@numba.njit(cache=True)
def limb_crossings(x, y, rho, polyline):
    """How often the limb of a source of radius rho at (x, y) and the caustic cross.

    The number changes where the limb touches a fold.
    """
    vertices, discs = polyline
    count, rho2 = 0, rho * rho
    for b in range(len(discs)):
        apart = np.sqrt((x - discs[b, 0]) ** 2 + (y - discs[b, 1]) ** 2)
        if abs(apart - rho) > discs[b, 2]:
            continue
        inside = False
        for k in range(BLOCK + 1):
            dx, dy = vertices[b, k].real - x, vertices[b, k].imag - y
            now = dx * dx + dy * dy < rho2
            if k > 0 and now != inside:
                count += 1
            inside = now
    return count


@numba.njit(cache=True)
def touching_vertex(a, b, rho, polyline):
    """Block and number of an inner vertex near the first one that a disc covers either at a (x, y) or at b (x, y)."""
    vertices, discs = polyline
    for block in range(len(discs)):
        apart = np.sqrt((a[0] - discs[block, 0]) ** 2 + (a[1] - discs[block, 1]) ** 2)
        if abs(apart - rho) > discs[block, 2] + rho:
            continue
        for k in range(BLOCK + 1):
            v = vertices[block, k]
            at_a = (v.real - a[0]) ** 2 + (v.imag - a[1]) ** 2 < rho * rho
            at_b = (v.real - b[0]) ** 2 + (v.imag - b[1]) ** 2 < rho * rho
            if at_a != at_b:
                return block, min(max(k, 1), BLOCK - 1)
    return 0, 1


@numba.njit(cache=True)
def distance_to_arc(x, y, line, k):
    """Extreme distance of (x, y) to the curve through the vertices k-1, k, k+1 of a block: a parabola in the phase."""
    centre = complex(x, y)
    before, at, after = abs(line[k - 1] - centre), abs(line[k] - centre), abs(line[k + 1] - centre)
    curvature, slope = before - 2 * at + after, 0.5 * (after - before)
    return at - 0.5 * slope * slope / curvature if curvature != 0 else at


@numba.njit(cache=True)
def _any_within(tau, track, rho, polyline):
    """Whether a source of radius rho is within rho of the caustic at one of the epochs tau (n,), ascending."""
    i = 0
    while i < len(tau):
        x, y = position_on(track, tau[i])
        d = distance_to_caustic(x, y, polyline)
        if d <= rho:
            return True
        # The source does not move d - rho before this time, so no earlier epoch can meet the caustic.
        reach = tau[i] + (d - rho) / track.fastest
        i += 1
        while i < len(tau) and tau[i] < reach:
            i += 1
    return False


def crosses_caustic(tau, track: Track, rho, s, q) -> bool:
    """Whether the source disc meets a caustic at one of the epochs tau (n,), ascending, (t - t_0)/t_E, on its track.

    This is geometry (distance of the disc's centre to the caustic <= rho), not a test of the light curve.
    rho, s : Einstein radii.   Raises ValueError for impossible s, q or rho.
    """
    check_lens(s, q, rho)
    tau = np.ascontiguousarray(tau, dtype=float)
    polyline = caustic_polyline(float(s), float(q), N_PHASES)
    return bool(_any_within(tau, track, float(rho), polyline))
