"""Whole magnification curves from few epochs.

    A = binary(t, t_0, u_0, t_E, rho, s, q, alpha)                    # interpolated from adaptive nodes
    A = binary(t, t_0, u_0, t_E, rho, s, q, alpha, method="exact")    # the library at every epoch
    curve = nodes(u_0, rho, s, q, alpha)                              # keep the nodes of the whole curve,
    A = render(curve.tau, curve.log_A, (t - t_0) / t_E)               # and draw them at any t_0, t_E

The nodes: march along the trajectory with steps proportional to the distance to the caustic, never shorter than a fraction of
the source radius (the curve has no structure below it). Then leave one out: where log A at a node differs from the cubic through
its four neighbours by more than the tolerance allows, both intervals beside it are halved, until none does. A curve is drawn by
the cubic through the four nearest nodes. Most nodes lie far from caustics and take the hexadecapole, the rest contours.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from microlens.magnification.caustics import N_PHASES, caustic_points, distance_to_caustic
from microlens.magnification.engine import check_finite, check_lens, evaluate, new_engine
from microlens.magnification.expansion import hexadecapole
from microlens.magnification.single import fspl_at

MAX_STEP = 1.0  # Einstein times
CAUSTIC_STEP = 0.5  # step / distance to the caustic
SOURCE_STEP = 0.3  # shortest step / source radius
ENGINE_TOLERANCE = 0.4  # library tolerance / asked tolerance
EXPANSION_TOLERANCE = 3.0  # bound on the fourth order / asked tolerance; the errors are a hundred times smaller
LEFT_OUT = 1.0  # error of a node that is left out, in tolerances: the spacing is doubled there, so the curve itself is better
MAX_ROUNDS = 16
REACH = 8.0  # Einstein radii beyond the lenses where a whole curve ends: log A < 5e-4, and falls with tau^-4 to a fifth of that
CLOSEST = 1e-9  # distance of two nodes / length of the curve


class Nodes(NamedTuple):
    """A magnification curve in Einstein-time units: tau (k,) float64 ascending, log_A (k,) float64 (natural log)."""

    tau: np.ndarray
    log_A: np.ndarray


def trajectory(t, t_0, u_0, t_E, alpha):
    """Source position (x, y), each (n,), Einstein radii, at times t (n,) days. alpha : radians."""
    tau = (np.asarray(t, dtype=float) - t_0) / t_E
    return _position(tau, u_0, alpha)


def _position(tau, u_0, alpha):
    return tau * np.cos(alpha) - u_0 * np.sin(alpha), tau * np.sin(alpha) + u_0 * np.cos(alpha)


@numba.njit(cache=True)
def _march(u_0, rho, alpha, lo, hi, points):
    """Seed epochs in [lo, hi] by marching with steps proportional to the distance to the caustic."""
    c, s = np.cos(alpha), np.sin(alpha)
    out = [lo]
    tau = lo
    while tau < hi:
        d = distance_to_caustic(tau * c - u_0 * s, tau * s + u_0 * c, points)
        edge = abs(d - rho)
        step = min(MAX_STEP, max(CAUSTIC_STEP * edge, SOURCE_STEP * rho, 1e-5))
        tau += step
        out.append(min(tau, hi))
    return np.array(out)


@numba.njit(cache=True)
def _distances(x, y, points):
    """Distance (n,) of each position to the caustic."""
    out = np.empty(len(x))
    for i in range(len(x)):
        out[i] = distance_to_caustic(x[i], y[i], points)
    return out


@numba.njit(cache=True)
def _divided_differences(tau, y, j, x, c):
    """Newton's form of the cubic (or what fewer nodes allow) through nodes j-1 .. j+2: its nodes x, its coefficients c, how many."""
    first, last = max(j - 1, 0), min(j + 2, len(tau) - 1)
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
    """Error (k,) of each inner node against the cubic through its two neighbours on either side; 0 at the ends."""
    n = len(tau)
    out = np.zeros(n)
    for i in range(1, n - 1):
        first, last = max(i - 2, 0), min(i + 2, n - 1)
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
    return out


def _refine(function, seeds, tolerance) -> Nodes:
    """Halve the intervals of `seeds` until log(function) at every node agrees with its neighbours to LEFT_OUT tolerances."""
    seeds = np.unique(seeds)
    apart = np.append(np.diff(seeds) > CLOSEST * (seeds[-1] - seeds[0]), True)  # rounding can bring two seeds together; keep the end
    tau = seeds[apart]
    log_A = np.log(function(tau))
    for _ in range(MAX_ROUNDS):
        wrong = _left_out(tau, log_A) > LEFT_OUT * tolerance
        halve = np.flatnonzero((wrong[:-1] | wrong[1:]) & (np.diff(tau) > CLOSEST * (tau[-1] - tau[0])))
        if len(halve) == 0:
            break
        mid = 0.5 * (tau[halve] + tau[halve + 1])
        tau, log_A = np.insert(tau, halve + 1, mid), np.insert(log_A, halve + 1, np.log(function(mid)))
    return Nodes(tau, log_A)


def nodes(u_0, rho, s, q, alpha, tau_min=None, tau_max=None, tolerance=1e-3, *, engine="VBBinaryLensing",
          limb_darkening=0.0) -> Nodes:
    """Adaptive nodes of a 2L1S curve on [tau_min, tau_max] (Einstein times); without limits, of the whole curve.

    Returns Nodes(tau (k,), log_A (k,)).   tolerance : aimed-at relative error of the rendered magnification.
    Raises ValueError for impossible input and MagnificationError if the library fails.
    """
    check_lens(s, q, rho, limb_darkening)
    tau_min, tau_max = (-REACH - s if tau_min is None else tau_min), (REACH + s if tau_max is None else tau_max)
    check_finite(u_0=u_0, alpha=alpha, tau_min=tau_min, tau_max=tau_max)
    if rho == 0:
        raise ValueError("rho = 0: a curve from nodes needs a finite source, rho > 0; use method='exact' for a point source.")
    if not tau_max > tau_min:
        raise ValueError(f"tau_max = {tau_max!r}: expected more than tau_min = {tau_min!r}.")
    u_0, rho, s, q, alpha = float(u_0), float(rho), float(s), float(q), float(alpha)
    library = []  # made when the first contour is needed
    points = caustic_points(s, q, N_PHASES)

    def magnification(tau):
        x, y = _position(tau, u_0, alpha)
        A = hexadecapole(x, y, s, q, rho, limb_darkening, _distances(x, y, points) / rho, EXPANSION_TOLERANCE * tolerance)
        left = np.flatnonzero(np.isnan(A))
        if len(left):
            if not library:
                library.append(new_engine(engine, max(ENGINE_TOLERANCE * tolerance, 1e-9)))
            A[left] = evaluate(library[0], x[left], y[left], s, q, rho, limb_darkening)
        return A

    return _refine(magnification, _march(u_0, rho, alpha, float(tau_min), float(tau_max), points), tolerance)


def single_nodes(u_0, rho, tau_min=-REACH, tau_max=REACH, tolerance=1e-3, *, limb_darkening=0.0) -> Nodes:
    """Adaptive nodes of a single-lens curve (rho = 0: point source) on [tau_min, tau_max]; without limits, of the whole curve."""
    check_finite(u_0=u_0, rho=rho, tau_min=tau_min, tau_max=tau_max)
    scale = max(abs(u_0), rho, 1e-4)
    reach = max(abs(tau_min), abs(tau_max))
    half = scale * np.sinh(np.linspace(0, np.arcsinh(reach / scale), 25))
    seeds = np.concatenate([-half[:0:-1], half, [tau_min, tau_max], [-rho, rho] if rho > 0 else []])
    seeds = seeds[(seeds >= tau_min) & (seeds <= tau_max)]
    return _refine(lambda tau: fspl_at(np.hypot(u_0, tau), rho, limb_darkening), seeds, tolerance)


def render(nodes_tau, nodes_log_A, tau):
    """Magnification at tau (n,) from a curve's nodes (k,), (k,).

    Outside the nodes log A falls with tau^-4: right beyond a whole curve, meaningless beyond the limits of a part of one.
    """
    return np.exp(_interpolate(np.asarray(nodes_tau, dtype=float), np.asarray(nodes_log_A, dtype=float),
                               np.asarray(tau, dtype=float)))


def binary(t, t_0, u_0, t_E, rho, s, q, alpha, method="fast", *, engine="VBBinaryLensing", tolerance=1e-3,
           limb_darkening=0.0):
    """Binary-lens (2L1S) magnification.

    t : (n,) days, any order    t_0, t_E : days    u_0, rho, s : theta_E of the total mass    alpha : radians
    method : 'fast' interpolates adaptive nodes (error <= tolerance), 'exact' calls the library at every epoch with
    Tol = RelTol = tolerance. A point source (rho = 0) is always exact.
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
        x, y = _position(tau, u_0, alpha)
        return evaluate(new_engine(engine, tolerance), x, y, float(s), float(q), float(rho), limb_darkening)
    curve = nodes(u_0, rho, s, q, alpha, tau.min(), tau.max(), tolerance, engine=engine, limb_darkening=limb_darkening)
    return render(curve.tau, curve.log_A, tau)
