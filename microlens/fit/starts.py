"""Where the descent to a binary lens begins: the anomaly, a second bump, a grid, a library of curves.

    singles, anomalies = anomalous(time, flux, sigma)
    starts = planetary_starts(time, flux, sigma, singles, anomalies, 16)            # parameters by name, best first

A planet's anomaly tells where it is (Gould & Loeb 1992; Han 2006): the source then passes one of its caustics, which
lies on the axis at the distance |s - 1/s| from the primary, so that s and alpha follow from the single lens and the
time of the anomaly. Two bumps of a wide pair are two single lenses, whose Einstein times have the ratio sqrt(q) (Di
Stefano & Mao 1996). Curves of two stars at about an Einstein radius are looked for in a library, which is moved and
stretched over the light curve.
"""

from __future__ import annotations

import functools
import itertools
from operator import itemgetter
from typing import NamedTuple

import numpy as np

from microlens.fit.kernels import Points, best_fluxes, without_parallax
from microlens.fit.points import bins
from microlens.fit.single_lens import FEWEST_EPOCHS, SingleLensFit, fit_single_lens, single_lens_model
from microlens.lens.caustics import BLOCK as SEGMENTS
from microlens.lens.magnification import own_values
from microlens.lens.parallax import Field
from microlens.lens.path import Lens, source_position, trajectory

ANOMALIES = 3  # that are looked for, one after the other
FEWEST_IN_ANOMALY = 4  # epochs
LONGEST_ANOMALY = 8  # of the light curve's epochs an anomaly has at most one in so many
ANOMALY_MARGIN = 1.0  # of its duration, on either side, that is left out of the next single-lens fit
LEAST_EXCESS = 6.0  # standard deviations of chi^2 by which a window must be in excess to be an anomaly
FEWEST_LEFT = 0.3  # of the epochs, that must be left for a single-lens fit

PLANET_Q = tuple(np.geomspace(3e-6, 3e-2, 9))
PLANET_RHO = 3e-3
PLANET_OFFSETS = (-2.0, -1.0, -0.4, 0.0, 0.4, 1.0, 2.0)  # of the source's path from the caustic, in the caustic's size
CLOSEST_START = 0.02  # u_0, Einstein radii: a start is no closer
GRID_S = tuple(np.geomspace(0.3, 3.3, 13))
GRID_Q = (1e-4, 1e-3, 1e-2, 0.1, 0.5)
GRID_ALPHA = 32
GRID_RHO = 1e-3
HIGHEST = 1e4  # magnification of a point source that is taken for that of one on a caustic
AROUND_ANOMALY = 2.0  # durations on either side of an anomaly whose epochs score a planet
AT_EINSTEIN_RADIUS = 3 / np.sqrt(5)  # the magnification at u = 1
BUMP_Q = (1e-5, 1.0)  # the range of the mass ratio of two bumps

LIBRARY_S = (0.4, 0.55, 0.7, 0.85, 0.95, 1.05, 1.15, 1.3, 1.5, 1.8, 2.4, 3.4)
LIBRARY_Q = (0.02, 0.06, 0.15, 0.35, 0.7)
LIBRARY_ALPHA = 24
LIBRARY_U_0 = (0.03, 0.12, 0.24, 0.4, 0.6, 0.9, 1.3, 1.8)
LIBRARY_RHO = 3e-3  # of the starts; its curves are those of point sources
LIBRARY_REACH, LIBRARY_STEP = 6.0, 0.04  # Einstein times to which its curves reach, and between their values
LIBRARY_T_E = tuple(np.geomspace(0.35, 2.8, 9))  # in the t_E of the single lens
LONGEST_T_E = 0.5  # of the light curve's length, as the middle of those: a blended peak gives any t_E
LIBRARY_T_0 = tuple(np.linspace(-1.2, 1.2, 17))  # from the t_0 of the single lens, in t_E
REFINED, REFINEMENTS = 400, 5  # curves whose t_0 and t_E are refined, and how often their steps are halved
FIRST_STEP_T_0, FIRST_STEP_LN_T_E = 0.075, 0.13  # the first of these steps: half of those of the search, t_0 in t_E
FEW_POINTS = 300  # averages of the light curve, and epochs around an anomaly, for which starts are scored
BLOCK = 2048  # curves at a time
ALIKE_LN_S, ALIKE_LN_Q, ALIKE_ALPHA, ALIKE_U_0 = 0.1, 0.7, 0.15, 0.1  # differences of starts below which one will do


# A caustic without vertices, as caustic_polyline would return it: a point source has no use for one. A call of that
# function here would compile it wherever the package is imported for the first time.
SOURCELESS = 0.0
NO_CAUSTIC = (np.empty((0, SEGMENTS + 1), complex), np.empty((0, 3)), np.empty((0, SEGMENTS + 1), complex),
              np.empty((0, 2), complex))


class Anomaly(NamedTuple):
    """Part of a light curve that a single lens does not describe: its middle and its duration, days."""

    time: float
    duration: float


def anomalous(time, flux, sigma, start=None, field: Field | None = None) -> tuple[list[SingleLensFit], list[Anomaly]]:
    """Single lenses through a light curve, of which ever more is left out, and the anomalies that were left out.

    time, flux, sigma : (n,).   start, field : as fit_single_lens takes them; with a field the path bends.
    The first single lens is that of all epochs, the last that of the quiet ones.
    """
    kept, anomalies = np.ones(len(time), dtype=bool), []
    singles = [fit_single_lens(time, flux, sigma, start=start, field=field)]
    for _ in range(ANOMALIES):
        residual = (flux - single_lens_model(time, singles[-1])) / sigma
        found = _largest_excess(time, np.where(kept, residual, 1.0))
        if found is None:
            break
        anomalies.append(found)
        kept &= np.abs(time - found.time) > (0.5 + ANOMALY_MARGIN) * found.duration
        if kept.sum() < max(FEWEST_LEFT * len(time), FEWEST_EPOCHS):
            break
        singles.append(fit_single_lens(time[kept], flux[kept], sigma[kept], start=start, field=field))
    return singles, anomalies


def _largest_excess(time, residual) -> Anomaly | None:
    """The window of neighbours whose chi^2 is most standard deviations above its expectation; None if none is.

    residual : (n,), standard deviations.
    """
    total = np.concatenate([[0.0], np.cumsum(residual**2 - 1.0)])
    best, window, n = LEAST_EXCESS, None, FEWEST_IN_ANOMALY
    while n <= len(time) // LONGEST_ANOMALY:
        excess = (total[n:] - total[:-n]) / np.sqrt(2.0 * n)
        k = int(np.argmax(excess))
        if excess[k] > best:
            best, window = excess[k], slice(k, k + n)
        n *= 2
    if window is None:
        return None
    middle = np.average(time[window], weights=residual[window] ** 2)
    return Anomaly(float(middle), float(time[window][-1] - time[window][0]))


def planetary_starts(time, flux, sigma, singles: list[SingleLensFit], anomalies: list[Anomaly], n_best: int
                     ) -> list[dict]:
    """Starts at which a planet's caustic lies where the source was at an anomaly, for several q and offsets.

    time, flux, sigma : (n,).   Those n_best that describe the epochs around their anomaly best.
    """
    scored, usable = [], [single for single in (singles[0], singles[-1]) if single.f_source > 0]
    for single, anomaly in itertools.product(usable[-len(singles) :], anomalies):
        near = np.flatnonzero(np.abs(time - anomaly.time) < (0.5 + AROUND_ANOMALY) * anomaly.duration)
        near = near[:: len(near) // FEW_POINTS + 1]
        expected = ((flux[near] - single_lens_model(time[near], single)) / sigma[near]) ** 2
        path = _path(single, time[near])
        tau, beta = (float(x[0]) for x in _path(single, np.array([anomaly.time])))
        for q, offset in itertools.product(PLANET_Q, PLANET_OFFSETS):
            for start in _planets_at(single, tau, beta, q, offset):
                model = single.f_source * magnification_on(path, start) + single.f_blend
                gain = (expected - ((flux[near] - model) / sigma[near]) ** 2).sum()
                scored.append((start, -gain))
    return distinct(scored, n_best)


def magnification_on(path, given: dict) -> np.ndarray:
    """Magnification (n,) of a point source behind a binary lens; HIGHEST at the most.

    path : its coordinates along and across the direction of motion, each (n,), Einstein radii.   given : s, q, alpha.
    """
    x, y = source_position(*path, given["alpha"])
    point = Lens(0.0, given["s"], given["q"], 0.0)
    values = own_values(np.ascontiguousarray(x), np.ascontiguousarray(y), point, SOURCELESS, NO_CAUSTIC)
    return np.minimum(np.where(np.isnan(values), HIGHEST, values), HIGHEST)


def _path(single: SingleLensFit, time) -> tuple[np.ndarray, np.ndarray]:
    """The path of a start at times (n,), as magnification_on takes it."""
    return trajectory(time, single.t_0, _start_u_0(single), single.t_E, 0.0, single.parallax)


def _planets_at(single: SingleLensFit, tau: float, beta: float, q, offset) -> list[dict]:
    """The wide planet and the close ones, of which each of the two caustics is met, for one anomaly.

    tau, beta : the source's place at the anomaly, as `_path` gives it.
    """
    aside_of_path = beta + offset * max(2 * np.sqrt(q), PLANET_RHO)
    distance, angle = np.hypot(tau, aside_of_path), np.arctan2(aside_of_path, tau)
    wide = 0.5 * (distance + np.sqrt(distance**2 + 4))  # s - 1/s = distance
    aside = np.arctan2(2 * np.sqrt(q * max(1 - wide**-2, 0.0)) * wide, distance)  # of the close planet's two caustics
    pairs = [(wide, -angle)] + [(1 / wide, np.pi - angle + turn) for turn in (-aside, 0.0, aside)]
    return [_start(single, PLANET_RHO, s, q, alpha) for s, alpha in pairs]


def _start_u_0(single: SingleLensFit) -> float:
    """The u_0 of a single lens, on its side, and no closer than CLOSEST_START."""
    return float(np.copysign(max(abs(single.u_0), CLOSEST_START), single.u_0))


def _start(single: SingleLensFit, rho, s, q, alpha) -> dict:
    """Parameters of a start at the values of a single lens, with its parallax if it has one."""
    given = {"t_0": single.t_0, "u_0": _start_u_0(single), "t_E": single.t_E, "rho": float(rho), "s": float(s),
             "q": float(q), "alpha": float(alpha)}
    if single.parallax is None:
        return given
    return given | {"pi_EN": single.parallax.pi_EN, "pi_EE": single.parallax.pi_EE}


def grid_starts(time, flux, sigma, singles: list[SingleLensFit], n_best: int) -> list[dict]:
    """Starts at the values of the quiet single lens, the n_best of a grid of s, q and alpha for averages of epochs."""
    few = bins(without_parallax(time, flux, sigma**-2.0), max(1, len(time) // FEW_POINTS))
    turns = 2 * np.pi * np.arange(GRID_ALPHA) / GRID_ALPHA
    path, scored = _path(singles[-1], few.t), []
    for s, q, alpha in itertools.product(GRID_S, GRID_Q, turns):
        start = _start(singles[-1], GRID_RHO, s, q, alpha)
        scored.append((start, best_fluxes(few, magnification_on(path, start)).chi2))
    return distinct(scored, n_best)


def two_bump_starts(time, flux, sigma, singles: list[SingleLensFit]) -> list[dict]:
    """Starts of a wide binary, from the single lens of the light curve and one through what it leaves over."""
    starts = []
    for first in (singles[0], singles[-1])[: len(singles)]:
        model = single_lens_model(time, first)
        outside = model < first.f_source * AT_EINSTEIN_RADIUS + first.f_blend
        if first.f_source == 0 or outside.sum() < max(FEWEST_LEFT * len(time), FEWEST_EPOCHS):
            continue
        second = fit_single_lens(time[outside], (flux - model + first.f_source)[outside], sigma[outside])
        excess = single_lens_model(time, second) - second.f_source - second.f_blend
        first = fit_single_lens(time, flux - excess, sigma)
        if second.f_source > 0:
            starts += [wide_pair(*pair, side) for side in (-1, 1) for pair in ((first, second), (second, first))]
    return [start for start in starts if BUMP_Q[0] < start["q"] <= BUMP_Q[1]]


def wide_pair(primary: SingleLensFit, secondary: SingleLensFit, side: int) -> dict:
    """The wide binary whose lenses are two single lenses, passed on the same side (1) or on either side (-1).

    In units of the total Einstein radius the track is the axis of an auxiliary frame: each lens stands at the time of
    its peak along it and at its u_0 aside of it.
    """
    q = (secondary.t_E / primary.t_E) ** 2
    t_E = np.hypot(primary.t_E, secondary.t_E)
    asides = -primary.u_0 / np.sqrt(1 + q), -side * secondary.u_0 * np.sqrt(q / (1 + q))
    along, across = (secondary.t_0 - primary.t_0) / t_E, asides[1] - asides[0]
    apart = np.hypot(along, across)
    s = 0.5 * (apart + np.sqrt(apart**2 + 4))  # the bumps are 1/s closer than the lenses: each bends the other's light
    share = q / (1 + q)
    u_0 = -(asides[0] + share * across)
    rho = max(primary.rho, secondary.rho, GRID_RHO)
    return {"t_0": float(primary.t_0 + share * along * t_E), "u_0": float(u_0), "t_E": float(t_E), "rho": float(rho),
            "s": float(s), "q": float(q), "alpha": float(-np.arctan2(across, along))}


# ---- a library of curves --------------------------------------------------------------------------------------------


@functools.cache
def library() -> tuple[np.ndarray, np.ndarray]:
    """Curves of binary lenses: s, q, alpha, u_0 (m, 4) and their magnification (m, k) at equal steps of tau.

    They are computed once in a process.
    """
    turns = 2 * np.pi * np.arange(LIBRARY_ALPHA) / LIBRARY_ALPHA
    tau = np.arange(-LIBRARY_REACH, LIBRARY_REACH + LIBRARY_STEP / 2, LIBRARY_STEP)
    shapes = np.array(list(itertools.product(LIBRARY_S, LIBRARY_Q, turns, LIBRARY_U_0)))
    out = np.empty((len(LIBRARY_S) * len(LIBRARY_Q), LIBRARY_ALPHA, len(LIBRARY_U_0), len(tau)), dtype=np.float32)
    for k, (s, q) in enumerate(itertools.product(LIBRARY_S, LIBRARY_Q)):
        for turn, other in _half_of_the_directions():
            for j, u_0 in enumerate(LIBRARY_U_0):
                path = tau, np.full(len(tau), u_0)
                out[k, turn, j] = magnification_on(path, {"s": s, "q": q, "alpha": turns[turn]})
                out[k, other, j] = out[k, turn, j, ::-1]
    return shapes, out.reshape(len(shapes), len(tau))


def _half_of_the_directions() -> list[tuple[int, int]]:
    """Places of directions in the library, and those of their mirror images pi - alpha.

    The mirror image at the axis of a path that is run through backwards is one with pi - alpha and the same u_0.
    """
    pairs = [(k, (LIBRARY_ALPHA // 2 - k) % LIBRARY_ALPHA) for k in range(LIBRARY_ALPHA)]
    return [(k, other) for k, other in pairs if k <= other]


def library_starts(time, flux, sigma, single: SingleLensFit, n_best: int) -> list[dict]:
    """Starts from the curves of the library that come closest to the light curve, each at its best t_0 and t_E.

    sigma : (n,), errors, so wide that a caustic crossing may be a little elsewhere.
    """
    few = bins(without_parallax(time, flux, sigma**-2.0), max(1, len(time) // FEW_POINTS))
    shapes, curves = library()
    best, where = np.full(len(shapes), np.inf), np.zeros((len(shapes), 2))
    longest = LONGEST_T_E * (time[-1] - time[0])
    for t_E in min(single.t_E, longest) * np.array(LIBRARY_T_E):
        for t_0 in single.t_0 + t_E * np.array(LIBRARY_T_0):
            chi2 = _library_chi2(curves, few, t_0, t_E)
            better = chi2 < best
            best[better], where[better] = chi2[better], (t_0, t_E)
    promising = np.argsort(best)[:REFINED]
    chi2, where = _refined(curves[promising], few, best[promising], where[promising])
    scored = []
    for k in np.argsort(chi2):
        t_0, t_E, s, q, alpha, u_0 = (float(x) for x in (*where[k], *shapes[promising[k]]))
        start = {"t_0": t_0, "u_0": u_0, "t_E": t_E, "rho": LIBRARY_RHO, "s": s, "q": q, "alpha": alpha}
        scored.append((start, chi2[k]))
    return distinct(scored, n_best)


def _refined(curves, few: Points, chi2, where) -> tuple[np.ndarray, np.ndarray]:
    """chi^2 (m,) and t_0, t_E (m, 2) of curves after ever finer steps about where they fit best so far."""
    chi2, where = chi2.copy(), where.copy()
    for k in range(len(curves)):
        step_t_0, step_ln_t_E = FIRST_STEP_T_0, FIRST_STEP_LN_T_E
        for _ in range(REFINEMENTS):
            t_0, t_E = where[k]
            for by, factor in itertools.product((-1, 0, 1), (-1, 0, 1)):
                trial = t_0 + by * step_t_0 * t_E, t_E * np.exp(factor * step_ln_t_E)
                value = _library_chi2(curves[k : k + 1], few, *trial)[0]
                if value < chi2[k]:
                    chi2[k], where[k] = value, trial
            step_t_0, step_ln_t_E = 0.5 * step_t_0, 0.5 * step_ln_t_E
    return chi2, where


def distinct(scored, n: int) -> list[dict]:
    """The n starts of least chi^2 of which no two are alike in s, q, alpha and u_0; scored : (start, chi^2) each."""
    kept = []
    for start, _ in sorted(scored, key=itemgetter(1)):
        if not any(_alike(start, other) for other in kept):
            kept.append(start)
        if len(kept) == n:
            break
    return kept


def _alike(one: dict, other: dict) -> bool:
    """Whether two starts lead to the same minimum as a rule."""
    return (abs(np.log(one["s"] / other["s"])) < ALIKE_LN_S and abs(np.log(one["q"] / other["q"])) < ALIKE_LN_Q
            and abs(turn_between(one, other)) < ALIKE_ALPHA and abs(one["u_0"] - other["u_0"]) < ALIKE_U_0)


def turn_between(one: dict, other: dict) -> float:
    """The angle from the direction of `other` to that of `one`, from -pi to pi."""
    return (one["alpha"] - other["alpha"] + np.pi) % (2 * np.pi) - np.pi


def _library_chi2(curves, few: Points, t_0, t_E) -> np.ndarray:
    """chi^2 (m,) of all curves at one t_0 and t_E, each with its best fluxes."""
    place = np.clip(np.rint(((few.t - t_0) / t_E + LIBRARY_REACH) / LIBRARY_STEP), 0, curves.shape[1] - 1).astype(int)
    y, w = (few.y - np.average(few.y, weights=few.w)), few.w
    columns = np.stack([w, w * y], axis=1).astype(np.float32)
    out = np.empty(len(curves))
    for first in range(0, len(curves), BLOCK):
        a = curves[first : first + BLOCK][:, place] - np.float32(1.0)
        (sa, say), saa = (a @ columns).T.astype(float), (np.square(a) @ columns[:, 0]).astype(float)
        saa -= sa**2 / w.sum()
        gain = np.where((say > 0) & (saa > 0), say, 0.0) ** 2 / np.maximum(saa, 1e-12)
        out[first : first + BLOCK] = (w * y * y).sum() - gain
    return out
