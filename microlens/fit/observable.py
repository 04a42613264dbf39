"""What an observer can know: delta chi^2 of noise-free curves, moments of observability, the label.

    seen = observability(timestamps, flux_true, sigma, is_compared, start)

Noise-free delta chi^2 of a growing prefix never falls, and any single lens bounds that of all prefixes from above: the
moment at which it passes a threshold is found from below, in a few fits.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from microlens.config import FLAT, PSPL, THRESHOLD_FLAT, THRESHOLD_PREMATURE, THRESHOLD_PSPL
from microlens.fit.covariance import (
    Correlation,
    Growing,
    best_single_lens,
    chi2_of_prefixes,
    correlated_curve,
    epoch_above,
    growing_curve,
)
from microlens.fit.kernels import (
    PI_EE,
    Bounds,
    Points,
    b0_table,
    bounds_with_parallax,
    fluxes_of,
    has_parallax,
    levenberg_marquardt,
    magnification,
    prefix,
)
from microlens.fit.points import compress
from microlens.fit.single_lens import (
    AGREE,
    COMPRESSION,
    FEWEST_EPOCHS,
    GAIN,
    fit_curve,
    fit_points,
    noise_free_points,
    reference_time,
    season_bounds,
    trial_start,
    with_sun,
)
from microlens.lens import Field

SLACK = 4  # epochs by which few points may find the moment late
CLIMB_STEPS = (4, 25)  # Levenberg-Marquardt steps after which a prefix below the threshold is left, at first and then


class Observability(NamedTuple):
    """What an observer can know of one event.

    delta_chi2_flat, delta_chi2_pspl : of the noise-free curve against a constant and against the best single lens; the
    latter is 0 for single lenses and variable stars.
    t_observable_flat, t_observable_pspl, t_premature : days at which delta chi^2 of the growing prefix passes
    THRESHOLD_FLAT against a constant, THRESHOLD_PSPL and THRESHOLD_PREMATURE against the best single lens; NaN if
    never.
    """

    delta_chi2_flat: float
    delta_chi2_pspl: float
    t_observable_flat: float
    t_observable_pspl: float
    t_premature: float


NEVER_OBSERVABLE = Observability(0.0, 0.0, np.nan, np.nan, np.nan)


# ---- against a constant ---------------------------------------------------------------------------------------------


@numba.njit(cache=True, nogil=True)
def _chi2_of_prefixes(points):
    """chi^2 of every prefix of the points against its best constant, (n,), by Welford's recurrence."""
    y, w = points.y, points.w
    out = np.empty(len(y))
    sw, mean, total = 0.0, 0.0, 0.0
    for i in range(len(y)):
        sw += w[i]
        delta = y[i] - mean
        mean += delta * w[i] / sw
        total += w[i] * delta * (y[i] - mean)
        out[i] = total
    return out


def delta_chi2_flat(flux, sigma) -> np.ndarray:
    """delta chi^2 of a noise-free curve against the best constant, for every prefix of its valid epochs.

    flux, sigma : (n,) valid epochs only.   Returns (n,), never falling; the last is that of the whole curve.
    """
    return _chi2_of_prefixes(noise_free_points(flux, flux, sigma))


# ---- against a single lens ------------------------------------------------------------------------------------------


class Search(NamedTuple):
    """What the search for a moment of observability goes through.

    curve : Points of the noise-free curve, all epochs.   few : fewer Points that stand for it.   last : index of the
    last epoch that each of the few stands for.   given : (k, 5) starts of the fits.   table, bounds : of the fits, the
    bounds without parallax.
    """

    curve: Points
    few: Points
    last: np.ndarray
    given: np.ndarray
    table: np.ndarray
    bounds: Bounds


class SearchEnd(NamedTuple):
    """The end of a search for the prefix that passes a threshold.

    n_below : the prefix of so many epochs is below, and one epoch more is above; all epochs if none is.   p : the best
    single lens of the prefix that is above.   below : the single lens that keeps the shorter one below.
    """

    n_below: int
    p: np.ndarray
    below: np.ndarray


@numba.njit(cache=True, nogil=True)
def _crossing(points, p, table, threshold, begin):
    """Length of the shortest prefix, longer than `begin`, whose chi^2 against the single lens p with its best fluxes
    passes the threshold; one more than the number of points if none does.
    """
    y, w, a = points.y, points.w, magnification(points, p, table)
    sw = ma = my = saa = say = syy = 0.0
    for i in range(len(y)):
        sw += w[i]
        da, dy = a[i] - ma, y[i] - my
        ma += da * w[i] / sw
        my += dy * w[i] / sw
        saa += w[i] * da * (a[i] - ma)
        say += w[i] * da * (y[i] - my)
        syy += w[i] * dy * (y[i] - my)
        chi2 = syy - say * say / saa if say > 0 and saa > 0 else syy
        if i >= begin and chi2 > threshold:
            return i + 1
    return len(y) + 1


@numba.njit(cache=True, nogil=True)
def _climb(points, p, below, begin, threshold, table, bounds):
    """Length of the shortest prefix, longer than `begin`, that stays above the threshold when p is fitted to it.

    Changes p in place, and `below` to the single lens that keeps all shorter prefixes below.

    Any single lens bounds the delta chi^2 of all prefixes from above, so no prefix before its crossing can have passed.
    A fit to the prefix at the crossing moves the crossing to the right, in ever smaller steps, until it gains nothing.
    """
    while True:
        n = _crossing(points, p, table, threshold, begin)
        if n > len(points.t):
            return n
        for steps in CLIMB_STEPS:
            fluxes, _ = levenberg_marquardt(prefix(points, n), p, table, steps, bounds, GAIN)
            if fluxes.chi2 <= threshold:
                break
        else:
            return n
        below[:] = p
        begin = n


@numba.njit(cache=True, nogil=True)
def _resolved(curve, few, n_few, first, end):
    """The first n_few of the few points, then the curve's epochs from `first` to `end` - 1 as they are."""
    return Points(np.concatenate((few.t[:n_few], curve.t[first:end])),
                  np.concatenate((few.y[:n_few], curve.y[first:end])),
                  np.concatenate((few.w[:n_few], curve.w[first:end])),
                  np.concatenate((few.north[:n_few], curve.north[first:end])),
                  np.concatenate((few.east[:n_few], curve.east[first:end])))


@numba.njit(cache=True, nogil=True)
def _first_above(search, start, threshold):
    """How far the growing prefix stays below the threshold when a single lens is fitted to it anew, as a SearchEnd.

    start (4,) or (6,) : the single lens to begin with, the better the more of the curve it keeps below the threshold.
    """
    curve, few, last, given, table, bounds = search
    starts = np.zeros((len(given) + 1, PI_EE + 1))
    starts[1:] = given
    n_given = len(start) - 1  # parameters of a lens that a start states: all but ln rho
    p, below = start.copy(), start.copy()
    if has_parallax(start):
        bounds = bounds_with_parallax(bounds)
    n_below = FEWEST_EPOCHS - 1
    begin = np.int64(0)  # of the few points, those that end within the prefix
    while True:
        n_few = _climb(few, p, below, begin, threshold, table, bounds)
        if n_few > len(few.t):
            return SearchEnd(len(curve.t), p, below)
        # Epoch by epoch within the run in which it passes.
        first, end = last[n_few - 2] + 1 if n_few > 1 else 0, last[n_few - 1] + 1
        resolved = _resolved(curve, few, n_few - 1, first, end)
        skip = max(n_below - first, 0) + n_few - 1
        n = min(_climb(resolved, p, below, skip, threshold, table, bounds), len(resolved.t))
        starts[0, :n_given] = p[:n_given]
        best = fit_points(prefix(resolved, n), starts, table, search.bounds)
        n_below = first + n - (n_few - 1)
        if best.fluxes.chi2 > threshold:
            return SearchEnd(n_below - 1, best.p, below)
        p[:], below[:] = best.p, best.p
        begin = n_few if n == len(resolved.t) else n_few - 1


def checked_first_above(search: Search, p, threshold: float) -> SearchEnd:
    """The end of the search over few points, or over many where the few do not stand for the curve."""
    end = _first_above(search, p, threshold)
    n = max(end.n_below - SLACK, 0)
    if n > 0 and fluxes_of(prefix(search.curve, n), end.below, search.table).chi2 > (1 + AGREE) * threshold:
        many, last = compress(search.curve, search.curve.y, COMPRESSION)
        return _first_above(search._replace(few=many, last=last), p, threshold)
    return end


def _epochs_above(search: Search, p, chi2: float) -> tuple[int | None, int | None]:
    """Indices of the epochs at which delta chi^2 of the growing prefix passes THRESHOLD_PREMATURE and THRESHOLD_PSPL.

    p, chi2 : the best single lens of the whole curve.   None where a threshold is never passed.

    The higher threshold is searched first. The single lens at which that search ends fits the prefix there, so it keeps
    nearly all of the prefix below the lower threshold, too: the second search begins with it, and it ends no later.
    """
    if chi2 <= THRESHOLD_PREMATURE:
        return None, None
    last, high = len(search.curve.t) - 1, None
    if chi2 > THRESHOLD_PSPL:
        end = checked_first_above(search, p, THRESHOLD_PSPL)
        high, p = min(end.n_below, last), end.p
    low = min(checked_first_above(search, p, THRESHOLD_PREMATURE).n_below, last)
    return (low if high is None else min(low, high)), high


def observability(t, flux_true, sigma, is_compared, start=None, limb_darkening=0.0,
                  field: Field | None = None, correlation: Correlation | None = None) -> Observability:
    """delta chi^2 and times of observability of one noise-free light curve.

    t (n,) days, flux_true (n,) F/F_base, sigma (n,) true errors: valid epochs only.   is_compared : whether with the
    best single lens, too.   start : (t_0, t_E, u_0[, pi_EN, pi_EE]) to try first.
    limb_darkening : linear coefficient of the source, for the FSPL that is fitted.
    field : where in the sky and when, for single lenses with parallax; t is then days after field.season_start.
    correlation : of the noise beside the white one; delta chi^2 is then that under the covariance of both, and the best
    single lens the best under it.
    """
    curve = noise_free_points(t, flux_true, sigma)
    correlated = correlated_curve(curve, correlation) if correlation else None
    growing = chi2_of_prefixes(correlated, np.ones(len(t))) if correlation else _chi2_of_prefixes(curve)
    flat = float(growing[-1])
    passed = np.searchsorted(growing, THRESHOLD_FLAT, side="right")
    t_flat = float(curve.t[passed]) if flat > THRESHOLD_FLAT else np.nan
    if not is_compared:
        return Observability(flat, 0.0, t_flat, np.nan, np.nan)
    given, table, bounds = trial_start(start), b0_table(limb_darkening), season_bounds(curve.t)
    curve = with_sun(curve, field, reference_time(curve, given) if field else None)
    best, few, last = fit_curve(curve, given, table, bounds)
    if correlation:
        chi2, epochs = _correlated_epochs_above(growing_curve(curve, correlated, given, table, bounds), best.p)
    else:
        chi2 = float(best.fluxes.chi2)
        epochs = _epochs_above(Search(curve, few, last, given, table, bounds), best.p, chi2)
    t_premature, t_pspl = (np.nan if k is None else float(curve.t[k]) for k in epochs)
    return Observability(flat, chi2, t_flat, t_pspl, t_premature)


def _correlated_epochs_above(search: Growing, p) -> tuple[float, tuple[int | None, int | None]]:
    """delta chi^2 of a curve under correlated noise, and the epochs as _epochs_above gives them.

    p : the best single lens under white noise.
    """
    p, chi2 = best_single_lens(search, p, THRESHOLD_PREMATURE)
    if chi2 <= THRESHOLD_PREMATURE:
        return chi2, (None, None)
    last, high = len(search.curve.t) - 1, None
    if chi2 > THRESHOLD_PSPL:
        high = min(epoch_above(search, p, THRESHOLD_PSPL), last)
    low = min(epoch_above(search, p, THRESHOLD_PREMATURE), last)
    return chi2, (low if high is None else min(low, high), high)


# ---- the label ------------------------------------------------------------------------------------------------------


def observable_label(labels, delta_chi2_flat, delta_chi2_pspl, is_star=False):
    """The class that an observer can know, (N,) int8, from what was simulated (N,) and both delta chi^2 (N,).

    is_star : (N,) bool, whether it is a variable star, of class other.
    flat if delta chi^2 against a constant <= THRESHOLD_FLAT; else other for a star; else what was simulated if delta
    chi^2 > THRESHOLD_PSPL against the best single lens (Penny et al. 2019), which is binary, or other for two sources;
    else pspl.
    """
    labels = np.asarray(labels)
    known = np.asarray(is_star) | (np.asarray(delta_chi2_pspl) > THRESHOLD_PSPL)
    flat = (np.asarray(delta_chi2_flat) <= THRESHOLD_FLAT) | (labels == FLAT)
    return np.where(flat, FLAT, np.where(known, labels, PSPL)).astype(np.int8)
