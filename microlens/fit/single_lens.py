"""Best single lenses, PSPL and FSPL, with and without annual parallax, from several starts.

    fit = fit_single_lens(t, flux, sigma)       fit.chi2, fit.t_0, fit.u_0, fit.t_E, fit.rho, fit.f_source, fit.f_blend
    fit = fit_single_lens(t, flux, sigma, field=ROMAN_FIELD)                  fit.parallax.pi_EN, fit.parallax.pi_EE
    model = single_lens_model(t, fit)

Points are averaged first where nothing is lost by it: a noise-free curve where it changes by less than a small fraction
of the common error of neighbours, noisy points where the fitted single lens does.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from microlens.fit.kernels import (
    LN_T_E,
    PI_EE,
    PI_EN,
    POINT,
    T_0,
    U_0,
    WITHOUT_PARALLAX,
    Bounds,
    FluxFit,
    Gain,
    Points,
    b0_table,
    best_fluxes,
    bounds_for,
    bounds_with_parallax,
    fluxes_of,
    has_parallax,
    is_finite_source,
    levenberg_marquardt,
    magnification,
    without_parallax,
)
from microlens.fit.points import bins, compress, sample
from microlens.lens import Field, Parallax, parallax_offsets

FEWEST_EPOCHS = 5
"""A single lens goes through 4 points or fewer as they are."""

COMPRESSION = 0.35  # largest flux change inside a bin, in errors of the bin's mean, noise-free curves
NOISY_COMPRESSION = 0.8  # the same for noisy points, whose parameters are known no better than to their errors
BEND = 1.0  # largest bend of the flux inside a straight run, in errors of its mean
AGREE = 0.05  # relative difference of chi^2 over few points and over many up to which the few will do
AGREE_CHI2 = 1.0  # and the difference that is no matter in any case

# that a step must promise: noise-free curves, whose chi^2 is compared with thresholds of 40 and more
GAIN = Gain(1e-2, 1e-5)
NOISY_GAIN = Gain(1e-4, 1e-5)  # and noisy points, whose best parameters are wanted
# Numbers of steps are np.int64: numba compiles a function anew for each Python integer that stands in a call of it.
MANY_STEPS = np.int64(40)  # Levenberg-Marquardt steps of a fit that is to end by itself
REFINEMENTS, SETTLED = 3, 30.0  # of a noisy fit: the most, and the gain in chi^2 below which there is no further one

# Starts of a point source at the brightest point: u_0, and t_E in widths of the peak at half of its height. A peak of
# height A_max - 1 ~ 1/u_0 is as wide as about 3.5 u_0 t_E; the third is a shallow event, the last one that is strongly
# blended.
START_SHAPES = ((0.05, 5.0), (0.3, 1.2), (1.0, 0.5), (0.3, 4.0))
FINE_BINS, FINE_STEPS = 100, np.int64(5)  # coarse bins and steps that choose a start, noise-free curves
START_BINS, COARSE_STEPS = 200, np.int64(5)  # the same for noisy points
# the second best start is followed, too, if its chi^2 is no more than this above the best
CLOSE_CHI2, CLOSE_SHARE = 100.0, 0.2
SAME_LENS = 0.02  # and if a parameter differs by this much

FSPL_CHI2 = 200.0  # delta chi^2 against a constant below which a finite source cannot be seen
FSPL_U_0 = 0.3  # a finite source matters only for a lens passing this close
RHO_FACTORS = (0.5, 1.5)  # starts of rho, in u_0: the source passes beside the lens and across it
SMALLEST_START_RHO = 3e-4
# u_0, in rho, below which a noisy fit is tried again from 0.5: its derivative vanishes in the centre of the source
CENTRAL = 0.1
# u_0 and rho of a large source with the lens across it, for which a rising curve is often taken
LARGE_SOURCE = (0.03, 0.08)
# steps after which that start is left if its chi^2 is so many times the best
LARGE_STEPS, LARGE_HOPE = np.int64(6), 3.0
FSPL_GAIN = 1e-3  # chi^2 by which a finite source must be better than a point

SHARP, POOR = 0.05, 10.0  # u_0 below and excess chi^2 (standard deviations) above which a noisy fit is tried again
SHARP_STARTS = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)  # u_0


BRIGHT_EPOCHS = 5  # whose mean flux decides where a light curve is brightest


class SingleLensFit(NamedTuple):
    """Best single lens through one light curve: F = f_source A + f_blend.

    chi2 : of the points given.   t_0, t_E : days.   u_0, rho : Einstein radii; rho = 0 means a point source.
    f_source, f_blend : in units of the flux that was fitted.   parallax : None where none was fitted.
    """

    chi2: float
    t_0: float
    u_0: float
    t_E: float
    rho: float
    f_source: float
    f_blend: float
    parallax: Parallax | None = None


class Best(NamedTuple):
    """A single lens p and its FluxFit."""

    p: np.ndarray
    fluxes: FluxFit


@numba.njit(cache=True, nogil=True)
def _brightest(points, base):
    """Index of the brightest point: of the largest mean of three neighbours above `base`, in errors of that mean."""
    y, w = points.y, points.w
    n = len(y)
    best, at = -np.inf, 0
    for i in range(n):
        total = weight = 0.0
        for k in range(max(0, i - 1), min(n, i + 2)):
            total += w[k] * (y[k] - base)
            weight += w[k]
        if total / np.sqrt(weight) > best:
            best, at = total / np.sqrt(weight), i
    return at


@numba.njit(cache=True, nogil=True)
def _starts(points, given):
    """Trial point sources (k, 4): those given, and the brightest point with several widths and depths.

    given : (k, 5) t_0, ln t_E, u_0, pi_EN, pi_EE; the last two are left out here.
    """
    t, y = points.t, points.y
    n, base = len(t), np.median(y)
    at = _brightest(points, base)
    half = base + 0.5 * (y[at] - base)
    i = at
    while i > 0 and y[i] > half:
        i -= 1
    j = at
    while j < n - 1 and y[j] > half:
        j += 1
    width = max(t[j] - t[i], 3 * (t[n - 1] - t[0]) / n)
    out = np.full((len(given) + len(START_SHAPES), 4), POINT)
    out[: len(given), :PI_EN] = given[:, :PI_EN]
    out[: len(given), U_0] = np.abs(given[:, U_0])
    k = len(given)
    for u_0, factor in START_SHAPES:
        out[k, T_0], out[k, LN_T_E], out[k, U_0] = t[at], np.log(width * factor), u_0
        k += 1
    return out


@numba.njit(cache=True, nogil=True)
def finite_source(p, factor):
    """The single lens p made one of a finite source with rho = factor u_0."""
    out = p.copy()
    out[-1] = np.log(max(factor * p[U_0], SMALLEST_START_RHO))
    return out


@numba.njit(cache=True, nogil=True)
def _best_starts(coarse, given, table, steps, bounds):
    """The best start after so many steps on coarse bins, and the second best if it is close and not the same.

    Returns (1 or 2, 4).
    """
    starts = _starts(coarse, given)
    chi2 = np.empty(len(starts))
    for k in range(len(starts)):
        chi2[k] = levenberg_marquardt(coarse, starts[k], table, steps, bounds, NOISY_GAIN)[0].chi2
    order = np.argsort(chi2)
    one, other = order[0], order[1]
    close = chi2[other] <= chi2[one] + CLOSE_CHI2 + CLOSE_SHARE * chi2[one]
    return starts[order[: 2 if close and _differ(starts[one], starts[other]) else 1]]


@numba.njit(cache=True, nogil=True)
def _differ(p, other):
    """Whether two single lenses are not the same."""
    return np.abs(other - p).max() >= SAME_LENS


@numba.njit(cache=True, nogil=True)
def _distinct_starts(coarse, given, table, bounds):
    """The best start of noisy points, and the second best where it leads to another single lens on coarse bins."""
    starts = _best_starts(coarse, given, table, COARSE_STEPS, bounds)
    for k in range(len(starts)):  # a loop over `starts` itself would have rows of another type
        levenberg_marquardt(coarse, starts[k], table, MANY_STEPS, bounds, NOISY_GAIN)
    return starts if len(starts) == 2 and _differ(starts[0], starts[1]) else starts[:1]


@numba.njit(cache=True, nogil=True)
def fit_points(points, given, table, bounds):
    """Best single lens, PSPL or FSPL, through noise-free points, as Best: of several starts the two best are refined.

    It has parallax where the points have the Sun's offsets.
    given : (k, 5) t_0, ln t_E, u_0, pi_EN, pi_EE of further starts.
    """
    starts = _best_starts(bins(points, max(1, len(points.t) // FINE_BINS)), given, table, FINE_STEPS, bounds)
    best, reached = _best_refined(points, starts, table, bounds)
    large = best.copy()
    large[U_0], large[-1] = LARGE_SOURCE[0], np.log(LARGE_SOURCE[1])
    trials = [large, finite_source(best, RHO_FACTORS[0]), finite_source(best, RHO_FACTORS[1])]
    for k in range(3 if best[U_0] < FSPL_U_0 else 1):
        p = trials[k]
        if k == 0:
            fluxes, _ = levenberg_marquardt(points, p, table, LARGE_STEPS, bounds, GAIN)
            if fluxes.chi2 > LARGE_HOPE * reached.chi2:
                continue
        fluxes, _ = levenberg_marquardt(points, p, table, MANY_STEPS, bounds, GAIN)
        if fluxes.chi2 < reached.chi2 - FSPL_GAIN:
            reached = fluxes
            best[:] = p
    if len(points.north) == 0:
        return Best(best, reached)
    return _best_refined(points, parallax_starts(best, given), table, bounds_with_parallax(bounds))


@numba.njit(cache=True, nogil=True)
def _best_refined(points, starts, table, bounds):
    """The best of several single lenses (k, 4) or (k, 6), each fitted to noise-free points in place, as Best."""
    best, reached = starts[0].copy(), FluxFit(0.0, 0.0, np.inf)
    for k in range(len(starts)):
        p = starts[k]
        fluxes, _ = levenberg_marquardt(points, p, table, MANY_STEPS, bounds, GAIN)
        if fluxes.chi2 < reached.chi2:
            reached = fluxes
            best[:] = p
    return Best(best, reached)


@numba.njit(cache=True, nogil=True)
def parallax_starts(p, given):
    """Single lenses with parallax (k, 6) to start from: the single lens p without parallax and its mirror, those given.

    A path has parallax 0 on either side of the lens at first, and the fit finds the rest. A source that is large
    without parallax is tried as a point, too: its size may have stood for the parallax.
    """
    n = 4 if p[-1] > POINT else 2
    out = np.zeros((n + len(given), WITHOUT_PARALLAX + 2))
    for k in range(n):
        out[k, :U_0], out[k, U_0], out[k, -1] = p[:U_0], (1 - 2 * (k % 2)) * p[U_0], p[-1] if k < 2 else POINT
    for k in range(len(given)):
        out[n + k, : PI_EE + 1], out[n + k, -1] = given[k], p[-1]
    return out


@numba.njit(cache=True, nogil=True)
def fit_curve(curve, given, table, bounds):
    """Best single lens through a noise-free curve. Returns Best, the points that it was fitted to and their `last`.

    The fit sees few points. Where chi^2 over many says otherwise (a peak of the model between them), it is made again
    with many.
    """
    many, last_of_many = compress(curve, curve.y, COMPRESSION)
    few, last = sample(curve, BEND)
    best = fit_points(few, given, table, bounds)
    fluxes = fluxes_of(many, best.p, table)
    if abs(best.fluxes.chi2 - fluxes.chi2) > AGREE * fluxes.chi2 + AGREE_CHI2:
        return fit_points(many, given, table, bounds), many, last_of_many
    return Best(best.p, fluxes), few, last


@numba.njit(cache=True, nogil=True)
def _better(one, other):
    """The one of two Best that reaches the smaller chi^2."""
    return other if other.fluxes.chi2 < one.fluxes.chi2 else one


@numba.njit(cache=True, nogil=True)
def _refined(points, start, table, bounds):
    """The single lens `start` fitted to noisy points, as Best.

    The fit sees averages of the points within which the single lens itself does not change, so nothing is lost, and
    averages within which the one that was found does not, until that gains little.
    """
    p = start.copy()
    a = magnification(points, p, table)
    best = Best(start.copy(), best_fluxes(points, a))
    for _ in range(REFINEMENTS):
        averages, _ = compress(points, best.fluxes.f_source * a, NOISY_COMPRESSION)
        levenberg_marquardt(averages, p, table, MANY_STEPS, bounds, NOISY_GAIN)
        a = magnification(points, p, table)
        found = Best(p.copy(), best_fluxes(points, a))
        gain = best.fluxes.chi2 - found.fluxes.chi2
        best = _better(best, found)
        if gain < SETTLED:
            break
    return best


@numba.njit(cache=True, nogil=True)
def _best_of(points, starts, table, bounds):
    """The best single lens of several starts (k, 4) or (k, 6), each refined on noisy points, as Best."""
    best = _refined(points, starts[0], table, bounds)
    for k in range(1, len(starts)):
        best = _better(best, _refined(points, starts[k], table, bounds))
    return best


@numba.njit(cache=True, nogil=True)
def _enlarged(points, point, table, bounds):
    """The better one of the point source `point`, a Best, and the best finite source that is found from it."""
    best = point
    for factor in RHO_FACTORS:
        best = _better(best, _refined(points, finite_source(point.p, factor), table, bounds))
    if is_finite_source(best.p) and best.p[U_0] < CENTRAL * np.exp(best.p[-1]):
        beside = best.p.copy()
        beside[U_0] = 0.5 * np.exp(best.p[-1])
        best = _better(best, _refined(points, beside, table, bounds))
    return best


@numba.njit(cache=True, nogil=True)
def _fit_noisy(points, given, table, with_finite_source, bounds):
    """Best single lens through noisy points, as Best."""
    n, w, y = len(points.t), points.w, points.y
    starts = _distinct_starts(bins(points, max(1, n // START_BINS)), given, table, bounds)
    best = _best_of(points, starts, table, bounds)
    if with_finite_source and best.p[U_0] < FSPL_U_0:
        mean = (w * y).sum() / w.sum()
        if (w * (y - mean) ** 2).sum() - best.fluxes.chi2 > FSPL_CHI2:
            best = _enlarged(points, best, table, bounds)
    if best.p[U_0] < SHARP and best.fluxes.chi2 > n + POOR * np.sqrt(2.0 * n):
        # A peak narrower than the coarse bins: u_0 ran to 0, where its derivative vanishes. Start at the brightest
        # epoch.
        for u_0 in SHARP_STARTS:
            p = np.array([points.t[np.argmax(y)], best.p[LN_T_E], u_0, POINT])
            best = _better(best, _refined(points, p, table, bounds))
    if len(points.north) > 0:
        best = _best_of(points, parallax_starts(best.p, given), table, bounds_with_parallax(bounds))
    return best


NO_START = np.empty((0, PI_EE + 1))


def trial_start(start) -> np.ndarray:
    """Trial values as the kernels take them, (k, 5): t_0, ln t_E, u_0, pi_EN, pi_EE.

    start : (k, 3) or (k, 5) of t_0, t_E, u_0[, pi_EN, pi_EE], or one such row, or None.
    """
    if start is None:
        return NO_START
    rows = np.atleast_2d(np.array(start, dtype=float))
    given = np.zeros((len(rows), PI_EE + 1))
    given[:, : rows.shape[1]] = rows
    given[:, LN_T_E] = np.log(given[:, LN_T_E])
    return given


def season_bounds(t) -> Bounds:
    """Bounds of a single lens for epochs t (n,): the peak lies within a season's length of the season."""
    return bounds_for(2 * t[0] - t[-1], 2 * t[-1] - t[0])


def noise_free_points(t, flux_true, sigma) -> Points:
    """Points of a noise-free curve from times, fluxes and errors, each (n,)."""
    t, y, sigma = (np.ascontiguousarray(x, dtype=float) for x in (t, flux_true, sigma))
    return without_parallax(t, y, 1 / sigma**2)


def with_sun(points: Points, field: Field | None, t_0_par: float | None) -> Points:
    """The points with the Sun's offsets from its uniform motion at t_0_par; as they are without a field."""
    if field is None:
        return points
    north, east = parallax_offsets(points.t, t_0_par, field)
    return points._replace(north=north, east=east)


def _valid_points(t, flux, sigma) -> Points:
    """The observed epochs as Points. Raises ValueError for misshapen input or too few valid epochs."""
    t, flux, sigma = (np.ascontiguousarray(x, dtype=float) for x in (t, flux, sigma))
    if not (t.ndim == 1 and t.shape == flux.shape == sigma.shape):
        raise ValueError(f"t, flux, sigma: came shapes {t.shape}, {flux.shape}, {sigma.shape}; "
                         "expected one shape (T,).")
    ok = (flux != 0) & np.isfinite(flux) & (sigma > 0)
    if ok.sum() < FEWEST_EPOCHS:
        raise ValueError(f"{int(ok.sum())} valid epochs: a single-lens fit needs at least {FEWEST_EPOCHS}.")
    return without_parallax(t[ok], flux[ok], 1 / sigma[ok] ** 2)


def reference_time(points: Points, given) -> float:
    """t_0,par of a fit: the t_0 of the first start if it is in the season, else where the curve is brightest."""
    if len(given) and points.t[0] <= given[0, T_0] <= points.t[-1]:
        return float(given[0, T_0])
    mean = np.convolve(points.y, np.ones(BRIGHT_EPOCHS), "same")
    return float(points.t[np.argmax(mean)])


def fit_single_lens(t, flux, sigma, *, start=None, finite_source=False, field: Field | None = None) -> SingleLensFit:
    """Best PSPL (or, with finite_source, the better of PSPL and FSPL) through one light curve.

    t (T,) days; flux (T,) F/F_base, 0.0 or NaN = no observation; sigma (T,) its error. For noisy data give errors of a
    model, not of the measured points, which bias chi^2.   start : (k, 3) further trial values t_0, t_E, u_0, or (k, 5)
    with pi_EN, pi_EE.   field : where in the sky and when, for a fit with annual parallax; t is then days after
    field.season_start, and u_0 may be negative.
    Raises ValueError for misshapen input, fewer than 5 valid epochs, or times that are no dates of the field.
    """
    given = trial_start(start)
    points = _valid_points(t, flux, sigma)
    t_0_par = reference_time(points, given) if field else None
    best = _fit_noisy(with_sun(points, field, t_0_par), given, b0_table(), finite_source, season_bounds(points.t))
    return _result(best, field, t_0_par)


def fit_noise_free(t, flux_true, sigma, start=None, limb_darkening=0.0, field: Field | None = None) -> SingleLensFit:
    """Best single lens (PSPL or FSPL) through a noise-free curve; its chi2 is the delta chi^2 of the labels.

    t, flux_true, sigma (n,): valid epochs only, n >= 5.   start, field : as in fit_single_lens.   limb_darkening :
    linear coefficient of the FSPL's disc.
    """
    given, points = trial_start(start), noise_free_points(t, flux_true, sigma)
    if np.ptp(points.y) == 0:  # a constant is exact
        return SingleLensFit(0.0, float(points.t[0]), 1.0, 1.0, 0.0, 0.0, float(points.y[0]))
    t_0_par = reference_time(points, given) if field else None
    points = with_sun(points, field, t_0_par)
    best, _, _ = fit_curve(points, given, b0_table(limb_darkening), season_bounds(points.t))
    return _result(best, field, t_0_par)


def _result(best: Best, field: Field | None, t_0_par: float | None) -> SingleLensFit:
    """The numbers of a fit by name."""
    p, fluxes = best
    rho = float(np.exp(p[-1])) if p[-1] > POINT else 0.0
    parallax = Parallax(float(p[PI_EN]), float(p[PI_EE]), t_0_par, field) if has_parallax(p) else None
    return SingleLensFit(float(fluxes.chi2), float(p[T_0]), float(p[U_0]), float(np.exp(p[LN_T_E])), rho,
                         float(fluxes.f_source), float(fluxes.f_blend), parallax)


def single_lens_model(t, fit: SingleLensFit) -> np.ndarray:
    """Flux (T,) of a fit at times t (T,) days."""
    t = np.ascontiguousarray(t, dtype=float)
    between = [] if fit.parallax is None else [fit.parallax.pi_EN, fit.parallax.pi_EE]
    p = np.array([fit.t_0, np.log(fit.t_E), fit.u_0, *between, np.log(fit.rho) if fit.rho > 0 else POINT])
    points = without_parallax(t, t, t)
    if fit.parallax is not None:
        points = with_sun(points, fit.parallax.field, fit.parallax.t_0_par)
    return fit.f_source * magnification(points, p, b0_table()) + fit.f_blend
