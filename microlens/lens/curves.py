"""Whole magnification curves from few epochs.

    A = binary(t, t_0, u_0, t_E, rho, s, q, alpha)                    # interpolated from adaptive nodes
    A = binary(t, t_0, u_0, t_E, rho, s, q, alpha, method="exact")    # the library at every epoch
    curve = nodes(u_0, rho, s, q, alpha)                              # keep the nodes of the whole curve,
    A = render(curve.tau, curve.log_A, (t - t_0) / t_E)               # and draw them at any t_0, t_E

The nodes: march along the trajectory with steps proportional to the distance to the caustic, never shorter than a
fraction of the source radius (the curve has no structure below it). Then leave one out: where log A at a node differs
from the cubic through its four neighbours by more than the tolerance allows, both intervals beside it are halved,
until none does. A curve is drawn by the cubic through the four nearest nodes. Most nodes lie far from caustics and
take the hexadecapole, the rest take the limb integral.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from microlens.lens.caustics import (
    N_PHASES,
    caustic_polyline,
    distance_to_arc,
    distance_to_caustic,
    limb_crossings,
    touching_vertex,
)
from microlens.lens.engine import check_finite, check_lens, new_engine
from microlens.lens.expansion import REACH, expand, new_scratch
from microlens.lens.limb import disc_magnification
from microlens.lens.magnification import evaluate
from microlens.lens.parallax import Parallax
from microlens.lens.path import Lens, Track, bent_track, position_on, straight_track, trajectory, velocity_on
from microlens.lens.single import fspl_at

MAX_STEP = 1.0  # Einstein times
FAR_STEP = 0.15  # longest step / distance to the caustic, where that is more
CAUSTIC_STEP = 0.5  # step / distance to the caustic
SOURCE_STEP = 0.3  # shortest step / source radius
FEWEST_STEPS = 8  # of a curve that is all near a caustic
NEAR = 3.0  # distance to the caustic where that holds / source radius
ENGINE_TOLERANCE = 0.1  # tolerance of a node's magnification / asked tolerance
# Error of a node that is left out / tolerance: the spacing is doubled there, so the curve itself is better.
LEFT_OUT = 0.4
GRADING = 5.0  # longest interval / its neighbour
MAX_ROUNDS = 16
END_NODES = 2  # nodes beyond either end
SHORTEST_STEP = 1e-5  # Einstein times
BESIDE_BREAK = 6.0  # weight of the error of a node next to a break
BREAK_STEP = 0.05  # longest interval beside a break / source radius
SCAN = 0.05  # step of the search for epochs at which the limb touches a caustic / source radius
TOUCH = 1e-3  # error of such an epoch, before the caustic's curvature corrects it / source radius
TOUCH_CORRECTIONS = 3  # Newton steps of that correction
LARGEST_CORRECTION = 0.1  # of that correction / source radius
# Where the magnification of a touch is computed, beside it: the library errs by per cents on the spot.
BESIDE_TOUCH = 3e-4
FINEST = 1e-3  # shortest interval that is divided / source radius
SINGLE_SEEDS = 25  # first nodes of a single lens on either side of its peak
SHARPEST = 1e-4  # Einstein radii: their spacing near the peak is no finer
ASIDE = 1e-3  # distance of a new node from the ends of the interval that it divides / its length
CLOSEST = 1e-9  # distance of two nodes / length of the curve


EVERYWHERE = np.empty(0)


class Nodes(NamedTuple):
    """A magnification curve in Einstein-time units: tau (k,) float64 ascending, log_A (k,) float64 (natural log)."""

    tau: np.ndarray
    log_A: np.ndarray


@numba.njit(cache=True)
def _march(track, lens, lo, hi, polyline, epochs):
    """Seed nodes, their distances to the caustic and their shifts, from before lo to beyond hi.

    The steps are proportional to the distance. A shift says how far beside a node its magnification is computed.

    track, lens : path.Track, path.Lens.   epochs : see `nodes`; a step that holds none of them goes on to the next.
    """
    rho = lens.rho
    seeds, distances, shifts = [], [], []
    tau, step, outside, crossings = lo, 0.0, -END_NODES, 0
    while outside < END_NODES:
        x, y = position_on(track, tau)
        d = distance_to_caustic(x, y, polyline)
        if outside > -END_NODES:
            before = crossings
            crossings = limb_crossings(x, y, rho, polyline) if d < rho else 0
            if (before > 0 or crossings > 0) and len(seeds) > 0 and _holds_epoch(seeds[-1], tau, epochs):
                for touch, side in _touches(seeds[-1], tau, before, track, rho, polyline):
                    for _ in range(2):
                        seeds.append(touch)
                        distances.append(0.0)
                        shifts.append(side * BESIDE_TOUCH * rho)
            seeds.append(tau)
            distances.append(d)
            shifts.append(0.0)
            outside += tau >= hi
        way = min(max(MAX_STEP, FAR_STEP * d), max(CAUSTIC_STEP * abs(d - rho), SOURCE_STEP * rho, SHORTEST_STEP))
        if d < NEAR * rho:  # the left-out test says little about few nodes
            way = min(way, max(track.fastest * (hi - lo) / FEWEST_STEPS, SHORTEST_STEP * rho))
        step = way / track.fastest
        if outside == -END_NODES:  # the nodes at the ends are as well surrounded as those within
            tau, outside = lo - END_NODES * step, 0
        else:
            tau += step
            after = np.searchsorted(epochs, seeds[-1], side="right")
            if after < len(epochs):
                tau = max(tau, epochs[after])
    return np.array(seeds), np.array(distances), np.array(shifts)


@numba.njit(cache=True)
def _touches(a, b, before, track, rho, polyline):
    """Epochs between a and b at which the limb touches the caustic, each with the side (-1, 1) of fewer crossings.

    before : how often limb and caustic cross at a.
    """
    n = int(np.ceil(track.fastest * (b - a) / (SCAN * rho)))
    out, tau = [(0.0, 0.0) for _ in range(0)], a
    for k in range(1, n + 1):
        last, tau = tau, a + (b - a) * k / n
        x, y = position_on(track, tau)
        crossings = limb_crossings(x, y, rho, polyline)
        if crossings != before:
            touch = min(max(_touch(last, tau, before, track, rho, polyline), last), tau)
            out.append((touch, 1.0 if crossings < before else -1.0))
        before = crossings
    return out


@numba.njit(cache=True)
def _holds_epoch(a, b, epochs):
    """Whether an epoch lies between a and b; without epochs all do."""
    return len(epochs) == 0 or np.searchsorted(epochs, a, side="right") < np.searchsorted(epochs, b, side="left")


@numba.njit(cache=True)
def _touch(a, b, before, track, rho, polyline):
    """The epoch in a..b at which the limb touches the caustic: they cross `before` times at a, not at b."""
    while b - a > TOUCH * rho:
        tau = 0.5 * (a + b)
        x, y = position_on(track, tau)
        if limb_crossings(x, y, rho, polyline) == before:
            a = tau
        else:
            b = tau
    tau = 0.5 * (a + b)
    start = tau
    at_a, at_b = position_on(track, a), position_on(track, b)
    block, k = touching_vertex(at_a, at_b, rho, polyline)
    direction = velocity_on(track, tau)
    for _ in range(TOUCH_CORRECTIONS):  # the caustic between the vertices is curved
        x, y = position_on(track, tau)
        d = distance_to_arc(x, y, polyline[0][block], k)
        v = polyline[0][block, k]
        slope = ((x - v.real) * direction[0] + (y - v.imag) * direction[1]) / rho
        if not abs(d - rho) < LARGEST_CORRECTION * rho * abs(slope):
            break
        tau -= (d - rho) / slope
    return tau if abs(tau - start) < LARGEST_CORRECTION * rho else start


@numba.njit(cache=True)
def _distances(tau, track, polyline):
    """Distance (n,) to the caustic at epochs tau (n,)."""
    out = np.empty(len(tau))
    for i in range(len(tau)):
        x, y = position_on(track, tau[i])
        out[i] = distance_to_caustic(x, y, polyline)
    return out


@numba.njit(cache=True)
def _computed(tau, distances, track, lens, tolerance, polyline):
    """log A (n,) at epochs tau (n,) by the expansion or the limb integral, NaN where neither is sure."""
    scratch = new_scratch(lens.s)
    out = np.empty(len(tau))
    for i in range(len(tau)):
        x, y = position_on(track, tau[i])
        A = expand(x, y, lens, distances[i] / lens.rho, tolerance, scratch)
        if np.isnan(A):
            A = disc_magnification(x, y, lens, ENGINE_TOLERANCE * tolerance, polyline, scratch)
        out[i] = np.log(A)
    return out


@numba.njit(cache=True)
def _stencil(tau, first, last, size):
    """Nodes first..last grown on either side in turn to `size` nodes, but neither over a break nor over an end."""
    while last - first + 1 < size:
        left = first > 0 and tau[first - 1] < tau[first]
        right = last < len(tau) - 1 and tau[last + 1] > tau[last]
        if left:
            first -= 1
        if right and last - first + 1 < size:
            last += 1
        if not (left or right):
            break
    return first, last


@numba.njit(cache=True)
def _divided_differences(tau, y, j, x, c):
    """Put nodes and coefficients of Newton's form of the cubic about nodes j, j+1 into x and c; returns how many.

    Fewer than four nodes between two breaks make a lower order.
    """
    first, last = _stencil(tau, j, j + 1, 4)
    n = last - first + 1
    for a in range(n):
        x[a], c[a] = tau[first + a], y[first + a]
    for order in range(1, n):
        for a in range(n - 1, order - 1, -1):
            c[a] = (c[a] - c[a - 1]) / (x[a] - x[a - order])
    return n


@numba.njit(cache=True)
def _tail(end, y, t):
    """log A at t beyond the node `end` where it is y: far from the lenses log A goes with tau^-4."""
    return y * (end / t) ** 4 if abs(t) > abs(end) and t * end > 0 else y


@numba.njit(cache=True)
def _interpolate(tau, y, at):
    """Piecewise cubic interpolation of y (k,) at points `at` (n,), any order; beyond the ends the tail of `_tail`."""
    out = np.empty(len(at))
    x, c = np.empty(4), np.empty(4)
    j, ready, n = 0, -1, 0
    for i in range(len(at)):
        t = at[i]
        if t <= tau[0]:
            out[i] = _tail(tau[0], y[0], t)
        elif t >= tau[-1]:
            out[i] = _tail(tau[-1], y[-1], t)
        else:
            if not (tau[j] <= t < tau[j + 1]):
                if j + 2 < len(tau) and tau[j + 1] <= t < tau[j + 2]:
                    j += 1
                else:
                    j = np.searchsorted(tau, t, side="right") - 1
            if ready != j:
                n = _divided_differences(tau, y, j, x, c)
                ready = j
            value = c[n - 1]
            for a in range(n - 2, -1, -1):
                value = value * (t - x[a]) + c[a]
            out[i] = value
    return out


@numba.njit(cache=True)
def _left_out(tau, y):
    """Error (k,) of each node against the cubic through its four neighbours; 0 at the ends and at breaks."""
    n = len(tau)
    out = np.zeros(n)
    for i in range(n):
        first, last = _stencil(tau, i, i, 5)
        if last - first < 4:  # between two breaks: too few to tell
            out[first : last + 1] = np.inf
            continue
        if i == 0 or i == n - 1 or tau[i - 1] == tau[i] or tau[i] == tau[i + 1]:
            continue
        value = 0.0
        for a in range(first, last + 1):
            if a == i:
                continue
            weight = 1.0
            for b in range(first, last + 1):
                if b != a and b != i:
                    weight *= (tau[i] - tau[b]) / (tau[a] - tau[b])
            value += weight * y[a]
        out[i] = abs(value - y[i])
        if tau[max(i - 2, 0)] == tau[i - 1] or tau[min(i + 2, n - 1)] == tau[i + 1]:
            out[i] *= BESIDE_BREAK
    return out


@numba.njit(cache=True)
def _new_nodes(tau, y, tolerance, radius, epochs):
    """Where nodes are wanted: the intervals (their first node), and the epochs (n,) within them near their middles.

    radius : Einstein times in which the source moves by its radius.

    An interval is divided beside a node that its neighbours do not predict, if it is much longer than a neighbour,
    and beside a break, where the curve can begin with h log h, if it is long.
    """
    error = _left_out(tau, y)
    intervals, new, n = np.empty(len(tau), np.int64), np.empty(len(tau)), 0
    for i in range(len(tau) - 1):
        length = tau[i + 1] - tau[i]
        longest = np.inf  # steps that change abruptly amplify the errors of the nodes
        if i > 0:
            longest = GRADING * (tau[i] - tau[i - 1]) if tau[i] > tau[i - 1] else BREAK_STEP * radius
        if i + 2 < len(tau):
            after = GRADING * (tau[i + 2] - tau[i + 1]) if tau[i + 2] > tau[i + 1] else BREAK_STEP * radius
            longest = min(longest, after)
        wrong = max(error[i], error[i + 1]) > LEFT_OUT * tolerance
        shortest = max(CLOSEST * (tau[-1] - tau[0]), FINEST * radius)
        first, last = tau[i] + ASIDE * length, tau[i + 1] - ASIDE * length
        divisible = length > shortest and _holds_epoch(first, last, epochs)
        if not (divisible and (wrong or length > longest)):
            continue
        new[n] = 0.5 * (tau[i] + tau[i + 1])
        if len(epochs) > 0:
            k = np.searchsorted(epochs, new[n])
            below = epochs[k - 1] if k > 0 and epochs[k - 1] > first else -np.inf
            above = epochs[k] if k < len(epochs) and epochs[k] < last else np.inf
            new[n] = below if new[n] - below < above - new[n] else above
        intervals[n] = i
        n += 1
    return intervals[:n], new[:n]


@numba.njit(cache=True)
def _insert(a, after, values):
    """Array (n,) with values (m,) put in behind the places `after` (m,), ascending."""
    out = np.empty(len(a) + len(after))
    i = 0
    for j in range(len(after)):
        out[i + j : after[j] + 1 + j] = a[i : after[j] + 1]
        out[after[j] + 1 + j] = values[j]
        i = after[j] + 1
    out[i + len(after) :] = a[i:]
    return out


@numba.njit(cache=True)
def _refine_expanded(tau, log_A, rounds, track, lens, tolerance, polyline, epochs):
    """Add nodes until no node needs it, or a contour is needed. Returns tau, log_A with NaN for contours, rounds."""
    while rounds < MAX_ROUNDS:
        at, new = _new_nodes(tau, log_A, tolerance, lens.rho / track.fastest, epochs)
        if len(at) == 0:
            return tau, log_A, MAX_ROUNDS
        values = _computed(new, _distances(new, track, polyline), track, lens, tolerance, polyline)
        tau, log_A = _insert(tau, at, new), _insert(log_A, at, values)
        rounds += 1
        if np.isnan(values).any():
            break
    return tau, log_A, rounds


def nodes(u_0, rho, s, q, alpha, tau_min=None, tau_max=None, tolerance=1e-3, **choices) -> Nodes:
    """Adaptive nodes of a 2L1S curve without parallax on [tau_min, tau_max]; without limits, of the whole curve.

    u_0, rho, s : Einstein radii.   alpha : radians.   choices : engine, limb_darkening, epochs of `nodes_along`, which
    says what is returned and raised.
    """
    check_finite(u_0=u_0, alpha=alpha)
    tau_min, tau_max = (-REACH - s if tau_min is None else tau_min), (REACH + s if tau_max is None else tau_max)
    return nodes_along(straight_track(u_0, alpha), rho, s, q, tau_min, tau_max, tolerance, **choices)


def nodes_along(track: Track, rho, s, q, tau_min, tau_max, tolerance=1e-3, *, engine="VBBinaryLensing",
                limb_darkening=0.0, epochs=EVERYWHERE) -> Nodes:
    """Adaptive nodes of a 2L1S curve along a track, straight or bent, on [tau_min, tau_max] (Einstein times).

    Returns Nodes(tau (k,), log_A (k,)).   tolerance : aimed-at relative error of the rendered magnification.
    epochs : (n,) ascending, Einstein times: nodes only as they are needed to render these; unset means any.
    Raises ValueError for impossible input and MagnificationError if the library fails.
    """
    check_lens(s, q, rho, limb_darkening)
    check_finite(tau_min=tau_min, tau_max=tau_max)
    if rho == 0:
        raise ValueError("rho = 0: nodes need a source with rho > 0; binary(..., method='exact') takes a point source.")
    if not tau_max > tau_min:
        raise ValueError(f"tau_max = {tau_max!r}: expected more than tau_min = {tau_min!r}.")
    if q > 1:  # the same lens with the heavier mass as its primary, see `magnification.evaluate`
        track, q = track._replace(alpha=track.alpha + np.pi), 1 / q
    lens = Lens(float(rho), float(s), float(q), 2 * float(limb_darkening) / (3 - limb_darkening))
    polyline = caustic_polyline(lens.s, lens.q, N_PHASES)
    tau, distances, shifts = _march(track, lens, float(tau_min), float(tau_max), polyline, epochs)
    log_A, rounds, library = _computed(tau, distances, track, lens, tolerance, polyline), 0, None
    while True:
        contours = np.flatnonzero(np.isnan(log_A))
        if len(contours):
            library = library or new_engine(engine, max(tolerance, 1e-9))
            at = tau[contours] + shifts[contours] if rounds == 0 else tau[contours]
            once, again = np.unique(at, return_inverse=True)  # a break is there twice
            x, y = _positions(track, once)
            A = evaluate(library, x, y, lens.s, lens.q, lens.rho, limb_darkening)
            log_A[contours] = np.log(A)[again]
        if rounds == MAX_ROUNDS:
            return Nodes(tau, log_A)
        tau, log_A, rounds = _refine_expanded(tau, log_A, rounds, track, lens, tolerance, polyline, epochs)


@numba.njit(cache=True)
def _positions(track, tau):
    """Source positions (x, y), each (n,), at tau (n,) on a track."""
    x, y = np.empty(len(tau)), np.empty(len(tau))
    for i in range(len(tau)):
        x[i], y[i] = position_on(track, tau[i])
    return x, y


class LensedSource(NamedTuple):
    """One of the sources behind a single lens.

    track : its path.   late : Einstein times by which its t_0 is later than that of the first source.
    rho : Einstein radii.   share : of the flux of all sources.
    """

    track: Track
    late: float
    rho: float
    share: float


def single_nodes(u_0, rho, tau_min=-REACH, tau_max=REACH, tolerance=1e-3, *, limb_darkening=0.0) -> Nodes:
    """Adaptive nodes of a single-lens curve without parallax on [tau_min, tau_max]; without limits, the whole curve.

    u_0, rho : Einstein radii; rho = 0 is a point source.   See `single_nodes_along`.
    """
    check_finite(u_0=u_0, rho=rho, tau_min=tau_min, tau_max=tau_max)
    source = LensedSource(straight_track(u_0, 0.0), 0.0, rho, 1.0)
    return single_nodes_along([source], tau_min, tau_max, tolerance, limb_darkening=limb_darkening)


def single_nodes_along(sources: list[LensedSource], tau_min, tau_max, tolerance=1e-3, *, limb_darkening=0.0) -> Nodes:
    """Adaptive nodes of the magnification of one source or more behind a single lens on [tau_min, tau_max].

    tolerance : aimed-at relative error of the rendered magnification.
    Returns Nodes(tau (k,), log_A (k,)).   Raises ValueError for impossible input.
    """
    def log_magnification(tau):
        total = 0.0
        for source in sources:
            u = np.hypot(*_positions(source.track, tau - source.late))
            total = total + source.share * fspl_at(u, source.rho, limb_darkening)
        return np.log(total)

    seeds = np.unique(np.concatenate([_seeds(source, tau_min, tau_max) for source in sources]))
    # Rounding can bring two seeds together; the last one is kept in any case.
    apart = np.append(np.diff(seeds) > CLOSEST * (seeds[-1] - seeds[0]), True)
    tau = seeds[apart]
    log_A = log_magnification(tau)
    radius = min(source.rho / source.track.fastest for source in sources)
    for _ in range(MAX_ROUNDS):
        at, new = _new_nodes(tau, log_A, tolerance, radius, EVERYWHERE)
        if len(at) == 0:
            break
        tau, log_A = _insert(tau, at, new), _insert(log_A, at, log_magnification(new))
    return Nodes(tau, log_A)


def _seeds(source: LensedSource, tau_min, tau_max) -> np.ndarray:
    """First nodes of a source's curve: the closer to its t_0 the denser, the limb on either side of it, the limits."""
    rho = source.rho
    scale = max(abs(source.track.u_0), rho, SHARPEST)
    reach = max(abs(tau_min - source.late), abs(tau_max - source.late))
    half = scale * np.sinh(np.linspace(0, np.arcsinh(reach / scale), SINGLE_SEEDS))
    seeds = source.late + np.concatenate([-half[:0:-1], half, [-rho, rho] if rho > 0 else []])
    return np.concatenate([[tau_min], seeds[(seeds > tau_min) & (seeds < tau_max)], [tau_max]])


def render(nodes_tau, nodes_log_A, tau):
    """Magnification at tau (n,) from a curve's nodes (k,), (k,).

    Outside the nodes log A falls with tau^-4: right beyond a whole curve, meaningless beyond the limits of a part of
    one.
    """
    return np.exp(_interpolate(np.asarray(nodes_tau, dtype=float), np.asarray(nodes_log_A, dtype=float),
                               np.asarray(tau, dtype=float)))


def binary(t, t_0, u_0, t_E, rho, s, q, alpha, method="fast", *, parallax: Parallax | None = None,
           engine="VBBinaryLensing", tolerance=1e-3, limb_darkening=0.0):
    """Binary-lens (2L1S) magnification.

    t : (n,) days, any order    t_0, t_E : days    u_0, rho, s : theta_E of the total mass    alpha : radians
    method : 'fast' interpolates adaptive nodes (error <= tolerance), 'exact' calls the library at every epoch with
    Tol = RelTol = tolerance. A point source (rho = 0) is always exact.
    parallax : see microlens.lens.parallax.
    Returns A : (n,).   Raises ValueError for impossible input, MagnificationError if the library fails.
    """
    if method not in ("fast", "exact"):
        raise ValueError(f"method {method!r} is unknown; choose 'fast' or 'exact'.")
    check_lens(s, q, rho, limb_darkening)
    check_finite(t=t, t_0=t_0, u_0=u_0, t_E=t_E, alpha=alpha)
    if not t_E > 0:
        raise ValueError(f"t_E = {t_E!r}: expected t_E > 0 (days).")
    t = np.atleast_1d(np.asarray(t, dtype=float))
    tau = (t - t_0) / t_E
    if method == "exact" or rho == 0 or len(t) < 2 or np.ptp(tau) == 0:
        x, y = trajectory(t, t_0, u_0, t_E, alpha, parallax)
        return evaluate(new_engine(engine, tolerance), x, y, float(s), float(q), float(rho), limb_darkening)
    track = straight_track(u_0, alpha)
    if parallax is not None:
        track = bent_track(t_0, u_0, t_E, alpha, parallax, t.min(), t.max())
    epochs = np.sort(tau)
    curve = nodes_along(track, rho, s, q, epochs[0], epochs[-1], tolerance, engine=engine,
                        limb_darkening=limb_darkening, epochs=epochs)
    return render(curve.tau, curve.log_A, tau)
