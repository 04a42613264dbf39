"""What an astronomer would do without a network, on the same full curves: the fitted single lens, and gradient boosting.

    x, seen, seconds = table(data, rows)    scores = {"chi^2 excess": x[:, 0], "largest window": x[:, 1], ...}

The features are of the residual to the best single lens in units of the error (`dataset.residual_view`). `seen` is what the
literature's own thresholds say, which nobody here chose.
"""

from __future__ import annotations

import time

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from tqdm.auto import tqdm

from microlens.dataset import pack, residual_view, smooth_error
from microlens.detectability import THRESHOLD_FLAT, THRESHOLD_PSPL, largest_window

WINDOWS = (1, 3, 8, 24, 72, 216, 648)
FEATURES = ("chi2_excess", "largest_window", *(f"window_{w}" for w in WINDOWS), *(f"mean_{w}" for w in WINDOWS),
            "lag_1", "lag_8", "lag_64", "log_flux_excess", "log_flux_scatter", "largest_flux", "smallest_flux")
BLOCK = 64  # curves read at once
FOLDS = 5
RUN, RUN_SIGMA = 3, 3.0  # consecutive residuals of one sign beyond so many errors: the usual guard of public analyses
GUARD_P = 0.99  # least P of what the guards see; see `guarded`


def features(z, flux) -> np.ndarray:
    """Hand-made features (len(FEATURES),) of one full curve: z, flux (n,) of its valid epochs."""
    n, total, squares = len(z), np.concatenate([[0], np.cumsum(z)]), np.concatenate([[0], np.cumsum(z**2)])
    out = [(squares[-1] - n) / np.sqrt(2 * n), largest_window(z)]
    out += [((squares[w:] - squares[:-w]) - w).max() / np.sqrt(2 * w) if n > w else 0.0 for w in WINDOWS]
    out += [np.abs(total[w:] - total[:-w]).max() / np.sqrt(w) if n > w else 0.0 for w in WINDOWS]
    out += [float(np.mean(z[k:] * z[:-k])) if n > k else 0.0 for k in (1, 8, 64)]
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
    Event: chi^2 falls by more than 500 from the best constant to the single lens. Anomaly: the residual's chi^2 exceeds its
    expectation by more than 160 in a window. Both need RUN consecutive residuals of one sign, so no single outlier counts.
    """
    w = 1 / np.square(sigma)
    constant = (flux - np.sum(w * flux) / np.sum(w)) / sigma
    event = np.sum(constant**2) - np.sum(z**2) > THRESHOLD_FLAT and longest_run(constant) >= RUN
    total = np.concatenate([[0.0], np.cumsum(np.square(z))])
    excess = max(((total[m:] - total[:-m]).max() - m for m in WINDOWS if len(z) >= m), default=0.0)
    return bool(event), bool(event and excess > THRESHOLD_PSPL and longest_run(z) >= RUN)


def guarded(p, event, anomaly) -> np.ndarray:
    """Probabilities p (n, 3) of a network, overruled where the literature's thresholds see more: (n, 3).

    event, anomaly : (n,) bool, see `seen`. A curve with an event has P(flat) <= 1 - GUARD_P, one with an anomaly P(binary) >= GUARD_P;
    the other classes keep their ratio. None of 2125 simulated single lenses and 1750 flat curves shows an anomaly by these thresholds;
    real data have variable stars and bad nights, too, so no more than GUARD_P is claimed.
    """
    p = np.maximum(np.array(p, dtype=float), 1e-12)
    for c, at in ((0, event & ~anomaly & (p[:, 0] > 1 - GUARD_P)), (2, anomaly & (p[:, 2] < GUARD_P))):
        wanted = 1 - GUARD_P if c == 0 else GUARD_P
        rest = np.delete(np.arange(3), c)
        p[np.ix_(at, rest)] *= (1 - wanted) / p[np.ix_(at, rest)].sum(axis=1, keepdims=True)
        p[at, c] = wanted
    return p


def table(data, rows, progress=True):
    """Of rows of an open dataset: features (n, len(FEATURES)), seen (n, 2) bool, and the seconds an event of {'fit', 'features'}."""
    x, spent = np.empty((len(rows), len(FEATURES))), {"fit": 0.0, "features": 0.0}
    guards = np.zeros((len(rows), 2), bool)
    with tqdm(total=len(rows), desc="single-lens fits", unit="event", disable=not progress) as bar:
        for i in range(0, len(rows), BLOCK):
            part = rows[i : i + BLOCK]
            flux, delta_t, error, lengths = pack(data.flux(part), data.delta_t(part), data.sigma(part))
            begun = time.perf_counter()
            residual = np.sinh(residual_view(flux, delta_t, error, lengths)[..., 0].astype(float))
            fitted = time.perf_counter()
            for j, n in enumerate(lengths):
                y = flux[j, :n].astype(float)
                x[i + j] = features(residual[j, :n], y)
                guards[i + j] = seen(residual[j, :n], y, smooth_error(error[j, :n]))
            spent["fit"] += fitted - begun
            spent["features"] += time.perf_counter() - fitted
            bar.update(len(part))
    return x, guards, {k: v / len(rows) for k, v in spent.items()}


def fixed_scores(x) -> dict:
    """{name: score (n,)} of the rules that need no fit to labels: chi^2 excess and largest window. x (n, F) features."""
    return {"chi^2 excess": x[:, 0], "largest window": x[:, 1]}


def gradient_boosting(x, observable, seed=0):
    """scikit-learn's histogram gradient boosting fitted to tell observable binaries, and its P (N,) of the events it was fitted on,
    each by a fit that has not seen it. x (N, F) features; observable (N,) class numbers. (None, None) where a class is too rare.
    """
    truth = observable == 2
    if min(truth.sum(), (~truth).sum()) < FOLDS:
        return None, None
    model = HistGradientBoostingClassifier(random_state=seed)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    return model.fit(x, truth), cross_val_predict(model, x, truth, cv=folds, method="predict_proba")[:, 1]
