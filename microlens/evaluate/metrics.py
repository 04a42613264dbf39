"""Arrays in, numbers out. scikit-learn where it has the metric.

Labels are class numbers 0 flat, 1 pspl, 2 binary; p is (N, 3) probabilities; `weight` (N,) reweighs classes (class_mix).
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from scipy.stats import binomtest, ks_2samp
from sklearn import metrics as skm

from microlens.config import BINARY, CLASSES, FLAT, PSPL


def average_precision(truth, score, weight=None) -> float:
    """Average precision of a binary truth (N,) bool; NaN if it has only one value."""
    truth = np.asarray(truth, dtype=bool)
    return float(skm.average_precision_score(truth, score, sample_weight=weight)) if 0 < truth.sum() < len(truth) else np.nan


def summary(labels, p, n_bins=15) -> dict:
    """Accuracy, balanced forms, AUROC, ECE, Brier and per-class precision/recall/F1 of probabilities p (N, 3)."""
    labels, p = np.asarray(labels), np.asarray(p, dtype=float)
    p = p / p.sum(axis=1, keepdims=True)
    called = p.argmax(1)
    out = {"n": len(labels), "accuracy": float((called == labels).mean())}
    for average in ("macro", "weighted"):
        a, b, c, _ = skm.precision_recall_fscore_support(labels, called, labels=[0, 1, 2], average=average, zero_division=0)
        out |= {f"precision_{average}": float(a), f"recall_{average}": float(b), f"f1_{average}": float(c)}
        complete = len(np.unique(labels)) == 3
        out[f"auroc_{average}"] = float(skm.roc_auc_score(labels, p, multi_class="ovr", average=average)) if complete else None
    a, b, c, n = skm.precision_recall_fscore_support(labels, called, labels=[0, 1, 2], zero_division=0)
    out["per_class"] = {k: {"precision": float(a[i]), "recall": float(b[i]), "f1": float(c[i]), "n": int(n[i])}
                        for i, k in enumerate(CLASSES)}
    out["confusion"] = skm.confusion_matrix(labels, called, labels=[0, 1, 2]).tolist()
    out["ece"] = expected_calibration_error(called == labels, p.max(1), n_bins)
    out["brier"] = float(((p - np.eye(3)[labels]) ** 2).sum(1).mean())
    return out


def f1_macro(labels, called) -> float:
    return float(skm.f1_score(labels, called, average="macro", zero_division=0))


def auroc_macro(labels, p) -> float | None:
    """Macro one-vs-rest AUROC of p (N, 3); None where a class is missing."""
    if len(np.unique(labels)) < 3:
        return None
    return float(skm.roc_auc_score(labels, p / p.sum(axis=1, keepdims=True), multi_class="ovr"))


def brier(truth, p) -> float:
    """Brier score of a binary truth (N,) bool, 0 to 1."""
    return float(skm.brier_score_loss(np.asarray(truth, dtype=bool), p))


def roc(truth, score, at) -> np.ndarray:
    """True positive rates at the false positive rates `at` (K,) of a one-vs-rest ROC; NaN if truth has one value only."""
    if not 0 < np.sum(truth) < len(truth):
        return np.full(len(at), np.nan)
    false, true, _ = skm.roc_curve(truth, score)
    return np.interp(at, false, true)


def completeness_curve(labels, observable, score, weight, n=400):
    """(purity, completeness) of observable binaries, each (<= n,), as the threshold on score (N,) falls."""
    order = np.argsort(-score, kind="stable")
    called = np.cumsum(weight[order])
    purity = np.cumsum((weight * (labels == BINARY))[order]) / called
    completeness = np.cumsum((observable == BINARY)[order]) / max((observable == BINARY).sum(), 1)
    keep = np.unique(np.linspace(0, len(order) - 1, n).astype(int))
    return purity[keep], completeness[keep]


def reliability(truth, p, n_bins=15):
    """Bins of a reliability diagram: mean p, share of truth and count, each (n_bins,), NaN for an empty bin."""
    truth, p = np.asarray(truth, dtype=float), np.asarray(p, dtype=float)
    which = np.clip((p * n_bins).astype(int), 0, n_bins - 1)
    n = np.bincount(which, minlength=n_bins)
    with np.errstate(invalid="ignore"):
        return np.bincount(which, p, n_bins) / n, np.bincount(which, truth, n_bins) / n, n


def expected_calibration_error(truth, p, n_bins=15) -> float:
    """ECE (Naeini+ 2015): count-weighted mean of |share of truth - mean p| over equal bins of p."""
    mean, share, n = reliability(truth, p, n_bins)
    return float(np.nansum(np.abs(share - mean) * n) / n.sum())


def temperature(labels, log_p) -> float:
    """Temperature (Guo+ 2017) that minimises the log loss of log_p (N, 3)/T on validation data."""
    rows = np.arange(len(labels))
    loss = lambda log_t: -log_softmax(np.asarray(log_p) / np.exp(log_t), axis=1)[rows, labels].mean()  # noqa: E731
    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def lowest_threshold(score, holds) -> float:
    """Lowest value of score (N,) at and above which a condition holds; infinity if there is none.

    holds(order) -> (N,) bool: whether it holds when all down to each place of `order`, the rows from the highest score, are called.
    """
    score = np.asarray(score)
    order = np.argsort(-score, kind="stable")
    last_of_tie = np.append(np.diff(score[order]) != 0, True)
    good = np.flatnonzero(holds(order) & last_of_tie)
    return float(score[order][good[-1]]) if len(good) else np.inf


def purity_holds(right, weight, purity):
    """Condition of lowest_threshold: the weighted share of `right` (N,) bool among the called is >= purity."""
    return lambda order: np.cumsum((weight * right)[order]) >= purity * np.cumsum(weight[order])


def threshold_at_purity(right, score, weight, purity) -> float:
    """Lowest threshold on score (N,) at and above which the weighted share of `right` (N,) bool is >= purity."""
    return lowest_threshold(score, purity_holds(right, weight, purity))


def operating_threshold(labels, score, weight, purity, false_alarms) -> float:
    """Lowest threshold with purity >= purity that calls at most a share false_alarms of the single lenses, and of the flats, binary.

    labels (N,) simulated classes.
    """
    pure = purity_holds(labels == BINARY, weight, purity)

    def holds(order):
        few = [np.cumsum((labels == c)[order]) <= false_alarms * (labels == c).sum() for c in (FLAT, PSPL)]
        return pure(order) & few[0] & few[1]

    return lowest_threshold(score, holds)


def completeness_purity(labels, observable, score, weight, threshold) -> dict:
    """Completeness of observable binaries, and purity (any simulated binary called binary is right), at a frozen threshold.

    labels, observable : class numbers (N,), simulated and observable.   weight : class mix.
    """
    called = np.asarray(score) >= threshold
    binary, seen = labels == BINARY, observable == BINARY
    total = weight[called].sum()
    return {
        "threshold": float(threshold),
        "completeness_observable": _mean(called[seen]),
        "completeness_simulated": _mean(called[binary]),
        "purity": float(weight[called & binary].sum() / total) if total else None,
        "purity_observable": float(weight[called & seen].sum() / total) if total else None,
        "false_alarms_flat": _mean(called[labels == FLAT]),
        "false_alarms_pspl": _mean(called[labels == PSPL]),
        "n_observable": int(seen.sum()), "n_called": int(called.sum()),
    }


def _mean(hit) -> float | None:
    return float(np.mean(hit)) if len(hit) else None


def binomial_interval(k, n, level=0.95):
    """Clopper-Pearson interval (low, high) of a share k/n; arrays allowed; (0, 1) where n = 0."""
    def one(k, n):
        interval = binomtest(int(k), int(n)).proportion_ci(level) if n else (0.0, 1.0)
        return tuple(interval)

    k, n = np.broadcast_arrays(k, n)
    made = np.array([one(*pair) for pair in zip(k.ravel(), n.ravel(), strict=True)]).reshape(*k.shape, 2)
    return made[..., 0], made[..., 1]


def share(k, n) -> dict:
    """A share k of n with its 95 % Clopper-Pearson interval."""
    low, high = binomial_interval(k, n)
    return {"value": float(k / n) if n else None, "interval_95": [float(low), float(high)], "n": int(n)}


N_BOOTSTRAP = 500


def bootstrap(function, n, rng, n_samples=N_BOOTSTRAP):
    """95 % percentile interval of function(rows) over resampled rows of n events; a resample without a value is left out."""
    values = [function(rng.integers(0, n, n)) for _ in range(n_samples)]
    values = np.array([v for v in values if v is not None], dtype=float)
    return [float(x) for x in np.nanpercentile(values, [2.5, 97.5])] if np.isfinite(values).any() else [None, None]


def recall_in_bins(hit, x, edges):
    """Recall of hit (N,) bool in bins of x (N,): DataFrame-ready dict of low, high, recall, recall_low, recall_high, n."""
    which = np.digitize(x, edges) - 1
    n = np.array([(which == i).sum() for i in range(len(edges) - 1)])
    k = np.array([hit[which == i].sum() for i in range(len(edges) - 1)])
    low, high = binomial_interval(k, n)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {"low": edges[:-1], "high": edges[1:], "recall": k / n, "recall_low": low, "recall_high": high, "n": n}


def temporal_bias(t_0, right) -> dict:
    """KS test of t_0 of right against wrong predictions, with the statistic D as effect size beside p."""
    t_0, right = np.asarray(t_0), np.asarray(right, dtype=bool)
    if right.sum() < 5 or (~right).sum() < 5:
        return {"D": None, "p": None, "n_right": int(right.sum()), "n_wrong": int((~right).sum())}
    test = ks_2samp(t_0[right], t_0[~right])
    return {"D": float(test.statistic), "p": float(test.pvalue), "n_right": int(right.sum()), "n_wrong": int((~right).sum())}


