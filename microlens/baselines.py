"""What an astronomer would do without a network, on the same full curves: the fitted single lens, and gradient boosting.

    x, seconds = table(data, rows)          scores = {"chi^2 excess": x[:, 0], "largest window": x[:, 1], ...}

The features are of the residual to the best single lens in units of the error (`dataset.residual_view`).
"""

from __future__ import annotations

import time

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from tqdm.auto import tqdm

from microlens.dataset import pack, residual_view
from microlens.detectability import largest_window

WINDOWS = (1, 3, 8, 24, 72, 216, 648)
FEATURES = ("chi2_excess", "largest_window", *(f"window_{w}" for w in WINDOWS), *(f"mean_{w}" for w in WINDOWS),
            "lag_1", "lag_8", "lag_64", "log_flux_excess", "log_flux_scatter", "largest_flux", "smallest_flux")
BLOCK = 64  # curves read at once
FOLDS = 5


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


def table(data, rows, progress=True):
    """Features (n, len(FEATURES)) of rows of an open dataset, and the seconds an event of {'fit', 'features'}."""
    x, spent = np.empty((len(rows), len(FEATURES))), {"fit": 0.0, "features": 0.0}
    with tqdm(total=len(rows), desc="single-lens fits", unit="event", disable=not progress) as bar:
        for i in range(0, len(rows), BLOCK):
            part = rows[i : i + BLOCK]
            flux, delta_t, error, lengths = pack(data.flux(part), data.delta_t(part), data.sigma(part))
            begun = time.perf_counter()
            residual = np.sinh(residual_view(flux, delta_t, error, lengths)[..., 0].astype(float))
            fitted = time.perf_counter()
            for j, n in enumerate(lengths):
                x[i + j] = features(residual[j, :n], flux[j, :n].astype(float))
            spent["fit"] += fitted - begun
            spent["features"] += time.perf_counter() - fitted
            bar.update(len(part))
    return x, {k: v / len(rows) for k, v in spent.items()}


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
