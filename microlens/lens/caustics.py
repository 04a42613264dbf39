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
from microlens.lens.roots import find_roots, inverse

N_PHASES = 400  # phases of the curves; 200 leave the polyline off by up to 0.08 source radii
BLOCK = 16  # segments searched together when the nearest one is looked for
PROJECTION_STEPS = 30  # most steps of Newton's method onto the critical curve
PROJECTION_TOLERANCE = 1e-9  # its last relative step: convergence is quadratic
MARGIN = 1.3  # a caustic leaves the polyline by less than 0.3 lengths of a segment
SHORT = 0.3  # longest piece of caustic on which the limb is met / source radius
STRAIGHT = 0.02  # its largest sag / source radius
NEAR_TOUCH = 0.3  # distance from the limb of a caustic that all but touches it / source radius
RIDGE = 5.0  # distance to the limb of a cusp whose axis is followed there / source radius
CUSP_STEPS = 50  # bisections for a cusp
MOST_HALVED = 64  # pieces of one segment that wait
TURN_STEPS = 8  # most parabolas for the point of a caustic that is nearest to the limb
OUTSIDE = 0.2  # of its ends, from which the first parabolas lead back / length of the piece
TURNED = 1e-4  # its error / length of the piece
CROSSING_STEPS = 60
CROSSING = 1e-13  # distance from the limb of a crossing / source radius
FIRST_STEPS, STEPS = 400, 60  # most steps of the root finder at the first phase and at the others
START = np.array([0.9 + 0.4j, -0.65 + 0.72j, 0.1 - 1.1j, 1.3 - 0.3j])  # of the root finder, without any symmetry


@numba.njit(cache=True, error_model="numpy")
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


@numba.njit(cache=True, error_model="numpy")
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


@numba.njit(cache=True, error_model="numpy")
def caustic_polyline(s, q, n):
    """The caustic as (n_blocks, BLOCK + 1) complex vertices, consecutive ones joined, and a disc about each block.

    n : phases, a multiple of BLOCK.   The discs are (n_blocks, 3): x, y and radius.
    The third array has the points of the critical curve that belong to the vertices, the fourth, (n_cusps, 2) complex,
    the cusps and the directions in which they point.
    """
    critical = critical_points(s, q, n)
    tracks, images = np.empty((4, n + 1), np.complex128), np.empty((4, n + 1), np.complex128)
    for i in range(4):
        end, nearest = np.inf, 0
        for j in range(4):  # the track goes on where the nearest one begins
            apart = abs(critical[j, 0] - critical[i, n - 1])
            if apart < end:
                end, nearest = apart, j
        images[i, :n], images[i, n] = critical[i], critical[nearest, 0]
        tracks[i] = source_points(images[i], s, q)
    per_track = n // BLOCK
    vertices, discs = np.empty((4 * per_track, BLOCK + 1), np.complex128), np.empty((4 * per_track, 3))
    parents = np.empty_like(vertices)
    for i in range(4):
        for j in range(per_track):
            piece = tracks[i, j * BLOCK : (j + 1) * BLOCK + 1]
            centre = 0.5 * (piece[0] + piece[BLOCK])
            radius = 0.0
            for v in piece:
                radius = max(radius, abs(v - centre))
            vertices[i * per_track + j] = piece
            parents[i * per_track + j] = images[i, j * BLOCK : (j + 1) * BLOCK + 1]
            discs[i * per_track + j] = np.array([centre.real, centre.imag, radius])
    return vertices, discs, parents, find_cusps(vertices, parents, point_masses(s, q))


@numba.njit(cache=True, error_model="numpy")
def _along_caustic(z, masses, like):
    """The direction of the caustic at the point z of the critical curve, and the speed of its point as z moves.

    On the critical curve the lens equation moves a source by 2 Re(conj(r) dz) r, r^2 = kappa. The critical curve runs
    where |kappa| stays 1. like : a step and a direction that tell the signs.
    """
    to_primary, to_secondary = inverse(z - masses.z1), inverse(z - masses.z2)
    kappa = masses.m1 * to_primary * to_primary + masses.m2 * to_secondary * to_secondary
    slope = masses.m1 * to_primary * to_primary * to_primary + masses.m2 * to_secondary * to_secondary * to_secondary
    step = 1j * kappa * np.conj(slope)
    direction = np.sqrt(np.conj(kappa))
    if (step * np.conj(like[0])).real < 0:
        step = -step
    if (direction * np.conj(like[1])).real < 0:
        direction = -direction
    return direction, (np.conj(direction) * step).real


@numba.njit(cache=True, error_model="numpy")
def find_cusps(vertices, parents, masses):
    """The cusps (n, 2) complex of a polyline: their tips, and the directions in which they point."""
    found = [(0j, 0j) for _ in range(0)]
    for block in range(len(vertices)):
        for k in range(BLOCK):
            chord = vertices[block, k + 1] - vertices[block, k]
            before = vertices[block, k] - vertices[block, max(k - 1, 0)]
            after = vertices[block, min(k + 2, BLOCK)] - vertices[block, k + 1]
            # The caustic turns back at a cusp; at the ends of a block it is not seen whether it does.
            if (np.conj(chord) * before).real > 0 and (np.conj(chord) * after).real > 0:
                continue
            a, b = parents[block, k], parents[block, k + 1]
            start, at_start = _along_caustic(a, masses, (b - a, 1 + 0j))
            _, at_end = _along_caustic(b, masses, (b - a, start))
            if (at_start < 0) == (at_end < 0):
                continue
            low, high = 0.0, 1.0
            z, tip, direction = a, vertices[block, k], start
            for _ in range(CUSP_STEPS):
                middle = 0.5 * (low + high)
                z, tip = _critical_between(a, b, middle, masses)
                direction, speed = _along_caustic(z, masses, (b - a, start))
                if (speed < 0) == (at_start < 0):
                    low = middle
                else:
                    high = middle
            found.append((tip, direction if at_start > 0 else -direction))
    out = np.empty((len(found), 2), np.complex128)
    for i in range(len(found)):
        out[i, 0], out[i, 1] = found[i]
    return out


@numba.njit(cache=True, error_model="numpy")
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


@numba.njit(cache=True, error_model="numpy")
def distance_to_caustic(x, y, polyline):
    """Distance of (x, y) to the caustic of caustic_polyline; blocks that cannot be the nearest are passed over."""
    vertices, discs, _, _ = polyline
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


@numba.njit(cache=True, error_model="numpy")
def limb_crossings(x, y, rho, polyline):
    """How often the limb of a source of radius rho at (x, y) and the caustic cross.

    The number changes where the limb touches a fold.
    """
    vertices, discs, _, _ = polyline
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


@numba.njit(cache=True, error_model="numpy")
def _critical_between(a, b, fraction, masses):
    """A point of the critical curve between two near ones a and b, and the point of the caustic that belongs to it.

    Newton's method moves the point at `fraction` of the chord across the curve |kappa| = 1.
    """
    z = a + fraction * (b - a)
    for _ in range(PROJECTION_STEPS):
        to_primary, to_secondary = inverse(z - masses.z1), inverse(z - masses.z2)
        to_primary2, to_secondary2 = to_primary * to_primary, to_secondary * to_secondary
        kappa = masses.m1 * to_primary2 + masses.m2 * to_secondary2
        slope = -2 * (masses.m1 * to_primary2 * to_primary + masses.m2 * to_secondary2 * to_secondary)
        excess = kappa.real * kappa.real + kappa.imag * kappa.imag - 1.0
        step = 0.5 * excess * inverse(np.conj(kappa) * slope)
        z -= step
        if abs(step.real) + abs(step.imag) < PROJECTION_TOLERANCE * (abs(z.real) + abs(z.imag)):
            break
    return z, lens_equation(z, masses)[0]


@numba.njit(cache=True, error_model="numpy")
def _ridges(centre, rho, cusps, angles):
    """Put the angles at which the limb meets the ridges of magnification before cusps into `angles`; returns their
    number."""
    count = 0
    for i in range(len(cusps)):
        offset = (cusps[i, 0] - centre) * np.conj(cusps[i, 1])
        if abs(offset.imag) >= rho:
            continue
        for side in (-1.0, 1.0):
            ahead = side * np.sqrt(rho * rho - offset.imag * offset.imag) - offset.real
            if 0 < ahead < RIDGE * rho and count < len(angles):
                angles[count] = np.angle(cusps[i, 0] + ahead * cusps[i, 1] - centre)
                count += 1
    return count


@numba.njit(cache=True, error_model="numpy")
def limb_angles(centre, rho, masses, polyline, angles):
    """Put the angles at which a disc's limb meets a caustic, nearly does, or meets a cusp's axis into `angles` (m,).

    centre : complex.   masses : about the centre of mass.   Returns their number, m at the most.
    A segment of the polyline that can meet the limb is halved on the critical curve itself until the caustic is nearly
    straight along it and short beside the source. Its distance to the centre is then a parabola.
    """
    vertices, discs, parents, cusps = polyline
    stack = np.empty((MOST_HALVED, 4), np.complex128)
    count = _ridges(centre, rho, cusps, angles)
    for block in range(len(discs)):
        apart = np.sqrt((centre.real - discs[block, 0]) ** 2 + (centre.imag - discs[block, 1]) ** 2)
        if abs(apart - rho) > MARGIN * discs[block, 2] + NEAR_TOUCH * rho:
            continue
        for k in range(BLOCK):
            a, b = vertices[block, k], vertices[block, k + 1]
            # A segment with a cusp inside can be short; those beside it are not.
            first, last = vertices[block, max(k - 1, 0)], vertices[block, min(k + 2, BLOCK)]
            longest = max(abs(b - a), abs(a - first), abs(last - b))
            if abs(abs(a - centre) - rho) > MARGIN * longest + NEAR_TOUCH * rho:
                continue
            stack[0, 0], stack[0, 1], stack[0, 2], stack[0, 3] = parents[block, k], parents[block, k + 1], a, b
            waiting = 1
            while waiting > 0:
                waiting -= 1
                before, after, a, b = stack[waiting]
                between, m = _critical_between(before, after, 0.5, masses)
                sag, length = abs(m - 0.5 * (a + b)), abs(m - a) + abs(b - m)
                at_a, at_m, at_b = abs(a - centre) - rho, abs(m - centre) - rho, abs(b - centre) - rho
                lowest, highest = min(at_a, at_m, at_b), max(at_a, at_m, at_b)
                reach = 0.5 * length + 2 * sag + NEAR_TOUCH * rho
                if lowest > reach or highest < -reach:
                    continue
                if (length > SHORT * rho or sag > STRAIGHT * rho) and waiting + 2 <= MOST_HALVED:
                    stack[waiting, 0], stack[waiting, 1], stack[waiting, 2], stack[waiting, 3] = before, between, a, m
                    waiting += 1
                    stack[waiting, 0], stack[waiting, 1], stack[waiting, 2], stack[waiting, 3] = between, after, m, b
                    waiting += 1
                    continue
                count = _meetings(before, after, (at_a, at_m, at_b), (centre, rho, masses), angles, count)
    return count


@numba.njit(cache=True, error_model="numpy")
def _turning_point(before, after, heights, disc):
    """Where a piece of caustic is nearest to the limb or farthest: fraction of the way, height and position.

    Successive parabolas through three points find it; the fraction is negative where there is none.
    """
    centre, rho, masses = disc
    at, values = np.array([0.0, 0.5, 1.0]), np.array(heights)
    turn, height, zeta, last = -1.0, 0.0, centre, -1.0
    for _ in range(TURN_STEPS):
        first, second = (values[1] - values[0]) / (at[1] - at[0]), (values[2] - values[1]) / (at[2] - at[1])
        curvature = (second - first) / (at[2] - at[0])
        if curvature == 0:
            return -1.0, height, zeta
        turn = 0.5 * (at[0] + at[1] - first / curvature)
        if not -OUTSIDE < turn < 1 + OUTSIDE:
            return -1.0, height, zeta
        turn = min(max(turn, 0.0), 1.0)  # at an end there can be a cusp
        if abs(turn - last) < TURNED:
            break
        zeta = _critical_between(before, after, turn, masses)[1]
        height, last = abs(zeta - centre) - rho, turn
        if turn == at[0] or turn == at[1] or turn == at[2]:
            break
        farthest = 0 if abs(at[0] - turn) > abs(at[2] - turn) else 2
        at[farthest], values[farthest] = turn, height
        order = np.argsort(at)
        at, values = at[order], values[order]
    return last, height, zeta


@numba.njit(cache=True, error_model="numpy")
def _meetings(before, after, heights, disc, angles, count):
    """Append the angles at which a short piece of caustic crosses or nearly touches the limb; returns the new count.

    before, after : its ends on the critical curve.   heights : of its ends and middle beyond the limb.
    disc : centre, rho, masses.
    """
    at_a, at_m, at_b = heights
    centre, rho, _ = disc
    fractions, values, last = np.array([0.0, 0.5, 1.0, 1.0]), np.array([at_a, at_m, at_b, at_b]), 2
    turn, height, zeta = _turning_point(before, after, heights, disc)
    if turn >= 0:
        # The extreme distance is a fourth point of the piece, so that two crossings between the others are not missed.
        if abs(height) < NEAR_TOUCH * rho and count < len(angles):
            angles[count] = np.angle(zeta - centre)
            count += 1
        place = 1 if turn < 0.5 else 2
        fractions[place + 1 :], values[place + 1 :] = fractions[place:-1].copy(), values[place:-1].copy()
        fractions[place], values[place], last = turn, height, 3
    for i in range(last):
        if (values[i] < 0) == (values[i + 1] < 0) or count == len(angles):
            continue
        ends, at_ends = fractions[i : i + 2].copy(), values[i : i + 2].copy()
        angles[count] = _crossing(before, after, ends, at_ends, disc)
        count += 1
    return count


@numba.njit(cache=True, error_model="numpy")
def _crossing(before, after, ends, at_ends, disc):
    """The angle at which the caustic crosses the limb, by false position with the Illinois rule.

    before, after : points of the critical curve.   ends : (2,) fractions of the way between them.
    at_ends : (2,) heights of the caustic beyond the limb there, of opposite sign.
    """
    centre, rho, masses = disc
    zeta, moved = centre, -1
    for _ in range(CROSSING_STEPS):
        middle = (ends[0] * at_ends[1] - ends[1] * at_ends[0]) / (at_ends[1] - at_ends[0])
        zeta = _critical_between(before, after, middle, masses)[1]
        height = abs(zeta - centre) - rho
        if abs(height) < CROSSING * rho:
            break
        side = 1 if (height < 0) == (at_ends[1] < 0) else 0
        ends[side], at_ends[side] = middle, height
        if side == moved:  # the other end stayed
            at_ends[1 - side] *= 0.5
        moved = side
    return np.angle(zeta - centre)


@numba.njit(cache=True, error_model="numpy")
def touching_vertex(a, b, rho, polyline):
    """Block and number of an inner vertex near the first one that a disc covers either at a (x, y) or at b (x, y)."""
    vertices, discs, _, _ = polyline
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


@numba.njit(cache=True, error_model="numpy")
def distance_to_arc(x, y, line, k):
    """Extreme distance of (x, y) to the curve through the vertices k-1, k, k+1 of a block: a parabola in the phase."""
    centre = complex(x, y)
    before, at, after = abs(line[k - 1] - centre), abs(line[k] - centre), abs(line[k + 1] - centre)
    curvature, slope = before - 2 * at + after, 0.5 * (after - before)
    return at - 0.5 * slope * slope / curvature if curvature != 0 else at


@numba.njit(cache=True, error_model="numpy")
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
