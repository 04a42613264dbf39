"""What an astronomer would do without a network on the same full curves: the fitted single lens, and gradient boosting.

    x, seen = residual_features(data, rows)
    scores = fixed_scores(x)
    model, p = gradient_boosting(x, observable)

The features are of the residual to the best single lens in units of the error (microlens.fit.residual). `seen` is what
the literature's own thresholds say, which nobody here chose.
"""

from __future__ import annotations

import numpy as np

from microlens.config import BINARY, FLAT

FOLDS = 5
GUARD_P = 0.99  # least P of what the guards see; see `guarded`


def guarded(p, event, anomaly) -> np.ndarray:
    """Probabilities p (n, 3) of a network, overruled where the literature's thresholds see more: (n, 3).

    event, anomaly : (n,) bool, see microlens.fit.residual.seen. A curve with an event has P(flat) <= 1 - GUARD_P, one
    with an anomaly P(binary) >= GUARD_P; the other classes keep their ratio. Real data have variable stars and bad
    nights, too, so no more than GUARD_P is claimed.
    """
    p = np.maximum(np.array(p, dtype=float), 1e-12)
    _set(p, FLAT, event & ~anomaly & (p[:, FLAT] > 1 - GUARD_P), 1 - GUARD_P)
    _set(p, BINARY, anomaly & (p[:, BINARY] < GUARD_P), GUARD_P)
    return p


def _set(p, c: int, at, value: float):
    """Give class c of the rows `at` the probability `value`; the other classes keep their ratio and take the rest."""
    p[at, c] = 0.0
    p[at] *= (1 - value) / p[at].sum(axis=1, keepdims=True)
    p[at, c] = value


def fixed_scores(x) -> dict:
    """{name: score (n,)} of the rules that need no labels: chi^2 excess and largest window. x (n, F) features."""
    return {"chi^2 excess": x[:, 0], "largest window": x[:, 1]}


def gradient_boosting(x, observable):
    """scikit-learn's histogram gradient boosting, fitted to tell observable binaries from all others.

    x (N, F) features; observable (N,) class numbers. Returns the model, and P (N,) of the same events, each by a fit
    that has not seen it. (None, None) where a class is too rare.
    """
    truth = observable == BINARY
    if min(truth.sum(), (~truth).sum()) < FOLDS:
        return None, None
    from sklearn.ensemble import HistGradientBoostingClassifier  # a second, which other commands need not spend
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    model = HistGradientBoostingClassifier(random_state=0)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    return model.fit(x, truth), cross_val_predict(model, x, truth, cv=folds, method="predict_proba")[:, 1]
