"""What an astronomer would do without a network, on the same full curves: the fitted single lens, and gradient boosting.

    x = features(z, lengths, flux, delta_t)        scores = {"chi^2 excess": x[:, 0], "window": x[:, 1], ...}

z is the residual to the best single lens in units of the error (`dataset.residual_view`).
"""

from __future__ import annotations

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from microlens.detectability import largest_window

WINDOWS = (1, 3, 8, 24, 72, 216, 648)
FEATURES = ("chi2_excess", "largest_window", *(f"window_{w}" for w in WINDOWS), *(f"mean_{w}" for w in WINDOWS),
            "lag_1", "lag_8", "lag_64", "log_flux_excess", "log_flux_scatter", "largest_flux", "smallest_flux")


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


def gradient_boosting(x, observable, seed=0, folds=5) -> np.ndarray:
    """P(observable binary) (N,) of scikit-learn's histogram gradient boosting, each event by a fit that has not seen it.

    x (N, F) features; observable (N,) class numbers. NaN where a class has fewer events than folds.
    """
    truth = observable == 2
    if min(truth.sum(), (~truth).sum()) < folds:
        return np.full(len(x), np.nan)
    model = HistGradientBoostingClassifier(random_state=seed)
    return cross_val_predict(model, x, truth, cv=StratifiedKFold(folds, shuffle=True, random_state=seed), method="predict_proba")[:, 1]
