"""The residual of a whole light curve to its best single lens, and what is seen in it.

    z = single_lens_residual(t, flux, sigma)          event, anomaly = seen(z, flux, sigma)
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import median_filter

from microlens.config import THRESHOLD_FLAT, THRESHOLD_PSPL
from microlens.fit.single_lens import fit_single_lens, single_lens_model
from microlens.lens import Field

SMOOTH = 9  # epochs of the running median of the error
WINDOWS = (1, 3, 8, 24, 72, 216, 648)  # epochs
ANOMALOUS = WINDOWS[2:6]  # as long as anomalies are: their largest excess is sharper than the chi^2 of the whole curve
LAGS = (1, 8, 64)  # epochs
FEATURES = ("chi2_excess", "largest_window", *(f"window_{w}" for w in WINDOWS), *(f"mean_{w}" for w in WINDOWS),
            *(f"lag_{k}" for k in LAGS), "log_flux_excess", "log_flux_scatter", "largest_flux", "smallest_flux")
RUN, RUN_SIGMA = 3, 3.0  # consecutive residuals of one sign beyond so many errors: the usual guard of public analyses
FEWEST = 5  # epochs that a single lens does not fit exactly


def smooth_error(flux_err) -> np.ndarray:
    """Running median (n,) of the reported errors (n,), which an epoch's own noise does not enter."""
    return median_filter(np.asarray(flux_err, dtype=float), SMOOTH, mode="nearest")


def single_lens_residual(t, flux, sigma, field: Field | None = None) -> np.ndarray:
    """Residual (n,), in errors, of a light curve to the better of PSPL and FSPL; 0 for fewer than 5 epochs.

    t (n,) days; flux, sigma (n,) F/F_base, valid epochs only.   field : where in the sky and when, for single lenses
    with parallax; t is then days after field.season_start.
    """
    if len(t) < FEWEST:
        return np.zeros(len(t))
    fit = fit_single_lens(t, flux, sigma, finite_source=True, field=field)
    return (flux - single_lens_model(t, fit)) / sigma


def features(z, flux) -> np.ndarray:
    """Hand-made features (len(FEATURES),) of one full curve: z, flux (n,) of its valid epochs.

    Those of chi^2 are its largest excess in so many neighbours, in standard deviations, (sum z^2 - w)/sqrt(2 w).
    """
    n, total, squares = len(z), np.concatenate([[0], np.cumsum(z)]), np.concatenate([[0], np.cumsum(z**2)])
    excess = {w: ((squares[w:] - squares[:-w]) - w).max() / np.sqrt(2 * w) for w in WINDOWS if n >= w}
    out = [(squares[-1] - n) / np.sqrt(2 * n), max((excess[w] for w in ANOMALOUS if n >= w), default=-np.inf)]
    out += [excess[w] if n > w else 0.0 for w in WINDOWS]
    out += [np.abs(total[w:] - total[:-w]).max() / np.sqrt(w) if n > w else 0.0 for w in WINDOWS]
    out += [float(np.mean(z[k:] * z[:-k])) if n > k else 0.0 for k in LAGS]
    smooth = np.convolve(flux, np.ones(8) / 8, "valid") if n >= 8 else flux
    out += [np.log10(max(smooth.max() - 1, 1e-4)), np.log10(np.std(np.diff(flux)) + 1e-6), flux.max(), flux.min()]
    return np.arcsinh(np.array(out, dtype=float))


def longest_run(z) -> int:
    """Length of the longest run of consecutive residuals z (n,) beyond RUN_SIGMA of one sign."""
    side = np.where(np.abs(z) > RUN_SIGMA, np.sign(z), 0)
    edges = np.flatnonzero(np.diff(side, prepend=np.nan, append=np.nan) != 0)
    return int(np.diff(edges)[side[edges[:-1]] != 0].max(initial=0))


def seen(z, flux, sigma) -> tuple[bool, bool]:
    """Whether a measured curve shows an event, and an anomaly on it, by the thresholds that define the labels.

    z : (n,) residual to the best single lens in errors; flux, sigma : (n,) of the valid epochs.
    Event: chi^2 falls by more than 500 from the best constant to the single lens. Anomaly: the residual's chi^2 exceeds
    its expectation by more than 160 in a window. Both need RUN consecutive residuals of one sign, so no single outlier
    counts.
    """
    w = 1 / np.square(sigma)
    constant = (flux - np.sum(w * flux) / np.sum(w)) / sigma
    event = np.sum(constant**2) - np.sum(z**2) > THRESHOLD_FLAT and longest_run(constant) >= RUN
    total = np.concatenate([[0.0], np.cumsum(np.square(z))])
    excess = max(((total[m:] - total[:-m]).max() - m for m in WINDOWS if len(z) >= m), default=0.0)
    return bool(event), bool(event and excess > THRESHOLD_PSPL and longest_run(z) >= RUN)


def curve_features(flux, delta_t, flux_err, field: Field | None = None):
    """Features (len(FEATURES),) of a light curve of valid epochs, and what the literature's thresholds see in it.

    flux (n,) F/F_base, delta_t (n,) days, flux_err (n,).   field : as in single_lens_residual, for a curve that begins
    with the season.
    """
    y, sigma = np.asarray(flux, dtype=float), smooth_error(flux_err)
    z = single_lens_residual(np.cumsum(delta_t, dtype=float), y, sigma, field)
    return features(z, y), seen(z, y, sigma)
