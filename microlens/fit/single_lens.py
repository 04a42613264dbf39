"""Best single lenses, PSPL and FSPL, from several starts.

    fit = fit_single_lens(t, flux, sigma)             fit.chi2, fit.t_0, fit.u_0, fit.t_E, fit.rho, fit.f_source, fit.f_blend
    model = single_lens_model(t, fit)

Points are averaged first where nothing is lost by it: a noise-free curve where it changes by less than a small fraction of the
common error of neighbours, noisy points where the fitted single lens does.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from microlens.fit.kernels import POINT, _b0_table, _bounds, _levenberg, _linear, _magnification, _through
from microlens.fit.points import _bins, _compress, _sample

COMPRESSION = 0.35  # largest flux change inside a bin, in errors of the bin's mean
BEND = 1.0  # largest bend of the flux inside a straight run, in errors of its mean
AGREE = 0.05  # relative difference of chi^2 over few points and over many up to which the few will do
FSPL_CHI2 = 200.0  # delta chi^2 against a constant below which a finite source cannot be seen
FSPL_U_0 = 0.3  # a finite source matters only for a lens passing this close
FINE_BINS, FINE_STEPS = 100, 5  # coarse bins and Levenberg-Marquardt steps that choose a start, noise-free curves
LARGE_STEPS, LARGE_HOPE = 6, 3.0  # steps after which the start with a large source is left if its chi^2 is so many times the best
WORTH, NOISY_WORTH = 1e-2, 1e-4  # gain in chi^2 that a step must promise, noise-free curves and noisy points
WORTH_OF = 1e-5  # the same as a share of chi^2
START_BINS, COARSE_STEPS = 200, 10  # coarse bins and steps for noisy points
SHARP, POOR = 0.05, 10.0  # u_0 below and excess chi^2 (standard deviations) above which a noisy fit is tried again
SHARP_STARTS = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)


class SingleLensFit(NamedTuple):
    """Best single lens through one light curve. chi2 : of the points given; rho = 0 means a point source."""

    chi2: float
    t_0: float
    u_0: float
    t_E: float
    rho: float
    f_source: float
    f_blend: float


@numba.njit(cache=True, nogil=True)
def _starts(t, y, w, given):
    """Trial parameters (k, 4) of point sources: those given, and the brightest smoothed point with several widths and depths."""
    n = len(t)
    base = np.median(y)
    best, at = -np.inf, 0
    for i in range(n):
        lo, hi = max(0, i - 1), min(n, i + 2)
        s = sw = 0.0
        for k in range(lo, hi):
            s += w[k] * (y[k] - base)
            sw += w[k]
        if s / np.sqrt(sw) > best:
            best, at = s / np.sqrt(sw), i
    # Width at half height about the peak sets the scale.
    half = base + 0.5 * (y[at] - base)
    i = at
    while i > 0 and y[i] > half:
        i -= 1
    j = at
    while j < n - 1 and y[j] > half:
        j += 1
    width = max(t[j] - t[i], 3 * (t[n - 1] - t[0]) / n)
    out = np.full((len(given) + 4, 4), POINT)
    out[: len(given), :3] = given
    out[: len(given), 2] = np.abs(given[:, 2])
    k = len(given)
    for u_0, factor in ((0.05, 5.0), (0.3, 1.2), (1.0, 0.5), (0.3, 4.0)):
        out[k, 0], out[k, 1], out[k, 2] = t[at], np.log(width * factor), u_0
        k += 1
    return out


@numba.njit(cache=True, nogil=True)
def _finite(p, factor):
    """The point source p (4,) made a finite one of rho = factor u_0."""
    out = p.copy()
    out[3] = np.log(max(factor * p[2], 3e-4))
    return out


@numba.njit(cache=True, nogil=True)
def _best_starts(t, y, w, given, table, bins, steps, low, high):
    """The best start (4,) after so many steps on about so many bins, and the second where it is close in chi^2 and not the same."""
    tb, yb, wb = _bins(t, y, w, max(1, len(t) // bins))
    starts = _starts(tb, yb, wb, given)
    chi = np.empty(len(starts))
    for k in range(len(starts)):
        chi[k] = _levenberg(tb, yb, wb, starts[k], table, steps, low, high, NOISY_WORTH, WORTH_OF)[0]
    order = np.argsort(chi)
    one, other = order[0], order[1]
    close = chi[other] <= chi[one] + 100.0 + 0.2 * chi[one]
    return starts[order[: 2 if close and np.abs(starts[other] - starts[one]).max() >= 0.02 else 1]]


@numba.njit(cache=True, nogil=True)
def _fit(t, y, w, given, table, low, high):
    """Best single lens, PSPL or FSPL: starts on coarse bins, the two best refined on the points. Returns p (4,), chi2, fs, fb."""
    starts = _best_starts(t, y, w, given, table, FINE_BINS, FINE_STEPS, low, high)
    best, best_chi2, best_fs, best_fb = starts[0].copy(), np.inf, 0.0, 0.0
    for p in starts:
        c, fs, fb, _ = _levenberg(t, y, w, p, table, 40, low, high, WORTH, WORTH_OF)
        if c < best_chi2:
            best_chi2, best_fs, best_fb = c, fs, fb
            best[:] = p
    large = best.copy()  # a large source, the lens across it: what a rising curve is often taken for
    large[2], large[3] = 0.03, np.log(0.08)
    trials = [large, _finite(best, 0.5), _finite(best, 1.5)]
    for k in range(3 if best[2] < FSPL_U_0 else 1):
        p = trials[k]
        if k == 0 and _levenberg(t, y, w, p, table, LARGE_STEPS, low, high, WORTH, WORTH_OF)[0] > LARGE_HOPE * best_chi2:
            continue
        c, fs, fb, _ = _levenberg(t, y, w, p, table, 40, low, high, WORTH, WORTH_OF)
        if c < best_chi2 - 1e-3:
            best_chi2, best_fs, best_fb = c, fs, fb
            best[:] = p
    return best, best_chi2, best_fs, best_fb


@numba.njit(cache=True, nogil=True)
def _fit_noise_free(t, y, w, given, table, low, high):
    """Best single lens through a noise-free curve. Returns p (4,), chi2, fs, fb and the points it was fitted to (ts, ys, ws, last).

    The fit sees few points. Where chi^2 over many says otherwise (a peak of the model between them), it is made again with many.
    """
    tb, yb, wb, last = _compress(t, y, w, y, COMPRESSION)
    ts, ys, ws, ls = _sample(t, y, w, BEND)
    p, few, _, _ = _fit(ts, ys, ws, given, table, low, high)
    fs, fb, chi2 = _through(tb, yb, wb, p, table)
    if abs(few - chi2) > AGREE * chi2 + 1.0:
        p, chi2, fs, fb = _fit(tb, yb, wb, given, table, low, high)
        return p, chi2, fs, fb, tb, yb, wb, last
    return p, chi2, fs, fb, ts, ys, ws, ls


@numba.njit(cache=True, nogil=True)
def _refine(t, y, w, p, table, low, high):
    """Fit p (4,), changed in place, to averages of the points within which the single lens p itself does not change."""
    a = _magnification(t, p, table)
    tc, yc, wc, _ = _compress(t, y, w, _linear(a, y, w)[0] * a, COMPRESSION)
    _levenberg(tc, yc, wc, p, table, 40, low, high, NOISY_WORTH, WORTH_OF)


@numba.njit(cache=True, nogil=True)
def _fit_noisy(t, y, w, given, table, finite_source, low, high):
    """_fit of noisy points. They are averaged where the single lens itself does not change, so nothing of the fit is lost."""
    n = len(t)
    starts = _best_starts(t, y, w, given, table, START_BINS, COARSE_STEPS, low, high)
    best, best_chi2 = starts[0].copy(), np.inf
    for p in starts:
        for stage in range(3):
            c = _through(t, y, w, p, table)[2]
            if c < best_chi2:
                best_chi2 = c
                best[:] = p
            if stage < 2:
                _refine(t, y, w, p, table, low, high)
    mean = (w * y).sum() / w.sum()
    if finite_source and best[2] < FSPL_U_0 and (w * (y - mean) ** 2).sum() - best_chi2 > FSPL_CHI2:
        point = best.copy()
        for factor in (0.5, 1.5):
            p = _finite(point, factor)
            _refine(t, y, w, p, table, low, high)
            c = _through(t, y, w, p, table)[2]
            if c < best_chi2:
                best_chi2 = c
                best[:] = p
    if best[2] < SHARP and best_chi2 > n + POOR * np.sqrt(2.0 * n):
        # A peak narrower than the coarse bins: u_0 ran to 0, where its derivative vanishes. Start again at the brightest point.
        for u_0 in SHARP_STARTS:
            p = np.array([t[np.argmax(y)], best[1], u_0, POINT])
            for _stage in range(2):
                _refine(t, y, w, p, table, low, high)
            c = _through(t, y, w, p, table)[2]
            if c < best_chi2:
                best_chi2 = c
                best[:] = p
    fs, fb, chi2 = _through(t, y, w, best, table)
    return best, chi2, fs, fb


NO_START = np.empty((0, 3))


def _span(t):
    """Bounds of the parameters: the peak within a season's length of the season."""
    return _bounds(2 * t[0] - t[-1], 2 * t[-1] - t[0])


def _check_curve(t, flux, sigma):
    t, flux, sigma = (np.ascontiguousarray(x, dtype=float) for x in (t, flux, sigma))
    if not (t.ndim == 1 and t.shape == flux.shape == sigma.shape):
        raise ValueError(f"t, flux, sigma: came shapes {t.shape}, {flux.shape}, {sigma.shape}; expected one shape (T,).")
    ok = (flux != 0) & np.isfinite(flux) & (sigma > 0)
    if ok.sum() < 5:
        raise ValueError(f"{int(ok.sum())} valid epochs: a single-lens fit needs at least 5.")
    return t[ok], flux[ok], sigma[ok]


def fit_single_lens(t, flux, sigma, *, start=None, finite_source=False) -> SingleLensFit:
    """Best PSPL (or, with finite_source, the better of PSPL and FSPL) through one light curve.

    t (T,) days; flux (T,) F/F_base, 0.0 or NaN = no observation; sigma (T,) its error. For noisy data give errors of a model,
    not of the measured points, which bias chi^2.   start : (k, 3) further trial values t_0, t_E, u_0.
    Raises ValueError for misshapen input or fewer than 5 valid epochs.
    """
    t, flux, sigma = _check_curve(t, flux, sigma)
    given = NO_START
    if start is not None:
        given = np.atleast_2d(np.asarray(start, dtype=float)).copy()
        given[:, 1] = np.log(given[:, 1])
    return _result(*_fit_noisy(t, flux, 1 / sigma**2, given, _b0_table(), finite_source, *_span(t)))


def single_lens_model(t, fit: SingleLensFit) -> np.ndarray:
    """Flux (T,) of a fit at times t (T,) days."""
    t = np.ascontiguousarray(t, dtype=float)
    p = np.array([fit.t_0, np.log(fit.t_E), fit.u_0, np.log(fit.rho) if fit.rho > 0 else POINT])
    return fit.f_source * _magnification(t, p, _b0_table()) + fit.f_blend


def fit_noise_free(t, flux_true, sigma, start=None, limb_darkening=0.0) -> SingleLensFit:
    """Best single lens (PSPL or FSPL) through a noise-free curve; its chi2 is the delta chi^2 of the labels.

    t, flux_true, sigma (n,): valid epochs only, n >= 5.   start : (t_0, t_E, u_0) to try first.   limb_darkening : linear
    coefficient of the FSPL's disc.
    """
    t, y, s = (np.ascontiguousarray(x, dtype=float) for x in (t, flux_true, sigma))
    if np.ptp(y) == 0:  # a constant is exact
        return SingleLensFit(0.0, float(t[0]), 1.0, 1.0, 0.0, 0.0, float(y[0]))
    given = NO_START if start is None else np.array([[start[0], np.log(start[1]), start[2]]])
    return _result(*_fit_noise_free(t, y, 1 / s**2, given, _b0_table(limb_darkening), *_span(t))[:4])


def _result(p, chi2, fs, fb) -> SingleLensFit:
    return SingleLensFit(float(chi2), float(p[0]), float(p[2]), float(np.exp(p[1])),
                         float(np.exp(p[3])) if p[3] > POINT else 0.0, float(fs), float(fb))
