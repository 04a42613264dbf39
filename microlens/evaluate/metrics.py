"""Arrays in, numbers out. scikit-learn where it has the metric.

Labels are class numbers (microlens.config); p is (N, 3) probabilities; `weight` (N,) is packed.class_mix.
A score that the events do not define, such as the purity of no called event, is NaN.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from scipy.stats import beta, ks_2samp

from microlens.config import BINARY, FLAT, LENSING_CLASSES, PSPL

LEVEL = 0.95
"""Level of every interval: Clopper-Pearson for a share of counted events, percentile bootstrap for other scores."""
N_BOOTSTRAP = 500
LEAST_OF_KS_TEST = 5  # events on each side, below which the test says nothing


def _falling(score):
    """Rows (N,) from the highest score to the lowest, and whether each is the last of its score."""
    order = np.argsort(-score, kind="stable")
    return order, np.append(np.diff(score[order]) != 0, True)


def _called(truth, score, weight):
    """Weight of the right and of the wrong events, each (<= N,), that are called as the threshold on score falls."""
    truth, score = np.asarray(truth, dtype=bool), np.asarray(score)
    weight = np.ones(len(truth)) if weight is None else weight
    order, last_of_tie = _falling(score)
    right = np.cumsum((weight * truth)[order])[last_of_tie]
    wrong = np.cumsum((weight * ~truth)[order])[last_of_tie]
    return right, wrong


def average_precision(truth, score, weight=None) -> float:
    """Average precision of a binary truth (N,) bool; NaN if it has only one value."""
    right, wrong = _called(truth, score, weight)
    if right[-1] == 0 or wrong[-1] == 0:
        return np.nan
    called = right + wrong
    precision = np.divide(right, called, out=np.zeros(len(right)), where=called > 0)
    return float(np.diff(right, prepend=0) @ precision / right[-1])


def roc_area(truth, score, weight=None) -> float:
    """Area under the ROC curve of a binary truth (N,) bool; NaN if it has only one value."""
    right, wrong = _called(truth, score, weight)
    if right[-1] == 0 or wrong[-1] == 0:
        return np.nan
    area = np.trapezoid(np.append(0, right), np.append(0, wrong))
    return float(area / (right[-1] * wrong[-1]))


def roc(truth, score, at, weight=None) -> np.ndarray:
    """True positive rates at the false positive rates `at` (K,) of a one-vs-rest ROC; NaN if truth has one value."""
    right, wrong = _called(truth, score, weight)
    if right[-1] == 0 or wrong[-1] == 0:
        return np.full(len(at), np.nan)
    return np.interp(at, np.append(0, wrong) / wrong[-1], np.append(0, right) / right[-1])


def auroc(labels, p, weight=None, average="macro") -> float:
    """One-vs-rest area under the ROC curve of p (N, 3), averaged over the classes; NaN where a class is missing.

    average : 'macro', each class counts the same, or 'weighted', by its number of events.
    """
    areas = [roc_area(labels == c, p[:, c], weight) for c in range(len(LENSING_CLASSES))]
    shares = np.bincount(labels, weight, len(LENSING_CLASSES)) if average == "weighted" else None
    return float(np.average(areas, weights=shares))


def f1_macro(labels, called, weight=None) -> float:
    """F1 score of classes called (N,) averaged over the classes; that of a class neither true nor called is 0."""
    n = len(LENSING_CLASSES)
    counts = np.bincount(n * labels + called, weight, n * n).reshape(n, n)
    both = counts.sum(axis=0) + counts.sum(axis=1)
    return float(np.divide(2 * counts.diagonal(), both, out=np.zeros(n), where=both > 0).mean())


def summary(labels, p, n_bins=15) -> dict:
    """Accuracy, balanced forms, AUROC, ECE, Brier and per-class precision, recall, F1 of probabilities p (N, 3).

    n_bins : of the expected calibration error of the most probable class. The Brier score adds up the classes, 0 to 2.
    """
    from sklearn import metrics as skm  # a second, which other commands need not spend

    labels, p = np.asarray(labels), np.asarray(p, dtype=float)
    p = p / p.sum(axis=1, keepdims=True)
    called, every = p.argmax(1), range(len(LENSING_CLASSES))
    out = {"n": len(labels), "accuracy": float((called == labels).mean())}
    for average in ("macro", "weighted"):
        scores = skm.precision_recall_fscore_support(labels, called, labels=every, average=average, zero_division=0)
        out |= {f"{name}_{average}": float(x) for name, x in zip(("precision", "recall", "f1"), scores, strict=False)}
        out[f"auroc_{average}"] = auroc(labels, p, average=average)
    scores = np.transpose(skm.precision_recall_fscore_support(labels, called, labels=every, zero_division=0))
    out["per_class"] = {name: {"precision": a, "recall": b, "f1": c, "n": int(n)}
                        for name, (a, b, c, n) in zip(LENSING_CLASSES, scores.tolist(), strict=True)}
    out["confusion"] = skm.confusion_matrix(labels, called, labels=every).tolist()
    out["ece"] = expected_calibration_error(called == labels, p.max(1), n_bins)
    out["brier"] = float(((p - np.eye(len(LENSING_CLASSES))[labels]) ** 2).sum(1).mean())
    return out


def completeness_curve(labels, observable, score, weight):
    """(purity, completeness) of observable binaries, each (<= N,), as the threshold on score (N,) falls."""
    order, last_of_tie = _falling(score)
    purity = np.cumsum((weight * (labels == BINARY))[order]) / np.cumsum(weight[order])
    completeness = np.cumsum((observable == BINARY)[order]) / max((observable == BINARY).sum(), 1)
    return purity[last_of_tie], completeness[last_of_tie]


def expected_calibration_error(truth, p, n_bins=15, weight=None) -> float:
    """ECE (Naeini+ 2015): count-weighted mean of |share of truth - mean p| over equal bins of p."""
    p = np.asarray(p, dtype=float)
    weight = np.ones(len(p)) if weight is None else weight
    which = np.clip((p * n_bins).astype(int), 0, n_bins - 1)
    return float(np.abs(np.bincount(which, weight * (truth - p), n_bins)).sum() / weight.sum())


def temperature(labels, log_p) -> float:
    """Temperature (Guo+ 2017) that minimises the log loss of log_p (N, 3)/T on validation data."""
    rows = np.arange(len(labels))
    loss = lambda log_t: -log_softmax(np.asarray(log_p) / np.exp(log_t), axis=1)[rows, labels].mean()  # noqa: E731
    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def lowest_threshold(score, holds) -> float:
    """Lowest value of score (N,) at and above which a condition holds; infinity if there is none.

    holds(order) -> (N,) bool: whether it holds when all rows down to each place of `order` are called.
    """
    score = np.asarray(score)
    order, last_of_tie = _falling(score)
    good = np.flatnonzero(holds(order) & last_of_tie)
    return float(score[order][good[-1]]) if len(good) else np.inf


def purity_holds(right, weight, purity):
    """Condition of lowest_threshold: the weighted share of `right` (N,) bool among the called is >= purity."""
    return lambda order: np.cumsum((weight * right)[order]) >= purity * np.cumsum(weight[order])


def operating_threshold(labels, score, weight, purity, false_alarms) -> float:
    """Lowest threshold of purity >= purity that calls at most a share false_alarms of single lenses binary, and of
    flat curves. labels (N,) simulated classes.
    """
    pure = purity_holds(labels == BINARY, weight, purity)

    def holds(order):
        few = [np.cumsum((labels == c)[order]) <= false_alarms * (labels == c).sum() for c in (FLAT, PSPL)]
        return pure(order) & few[0] & few[1]

    return lowest_threshold(score, holds)


def purity(right, called, weight) -> float:
    """Weighted share of `right` among the called events, all (N,); NaN where none is called."""
    return share_of(right[called], weight[called])


def completeness_purity(labels, observable, score, weight, threshold) -> dict:
    """Completeness of observable binaries, and purity (any simulated binary called binary is right), at a threshold.

    labels, observable : class numbers (N,), simulated and observable.   weight : class mix.
    """
    called = np.asarray(score) >= threshold
    binary, seen = labels == BINARY, observable == BINARY
    return {
        "threshold": float(threshold),
        "completeness_observable": share_of(called[seen]),
        "completeness_simulated": share_of(called[binary]),
        "purity": purity(binary, called, weight),
        "purity_observable": purity(seen, called, weight),
        "false_alarms_flat": share_of(called[labels == FLAT]),
        "false_alarms_pspl": share_of(called[labels == PSPL]),
        "n_observable": int(seen.sum()), "n_called": int(called.sum()),
    }


def share_of(hit, weight=None) -> float:
    """Share of hit (n,) bool, weighted by weight (n,) if given; NaN of no event, or where all weights are 0."""
    defined = len(hit) and (weight is None or weight.any())
    return float(np.average(hit, weights=weight)) if defined else np.nan


def binomial_interval(k, n, level=LEVEL):
    """Clopper-Pearson interval (low, high) of a share k/n; arrays allowed; (0, 1) where n = 0.

    n may be an effective number of weighted events, which is no whole number.
    """
    k, n = np.broadcast_arrays(np.asarray(k, dtype=float), np.asarray(n, dtype=float))
    tail = (1 - level) / 2
    low = np.where(k > 0, beta.ppf(tail, k, n - k + 1), 0.0)
    high = np.where(k < n, beta.ppf(1 - tail, k + 1, n - k), 1.0)
    return low, high


def share(k, n) -> dict:
    """A share k of n with its 95 % Clopper-Pearson interval."""
    low, high = binomial_interval(k, n)
    return {"value": float(k / n) if n else None, "interval_95": [float(low), float(high)], "n": int(n)}


def effective_number(weight) -> float:
    """The number of equal weights (Kish 1965) that average as well as weight (n,) does; 0 of none."""
    weight = np.asarray(weight, dtype=float)
    return float(weight.sum() ** 2 / (weight**2).sum()) if len(weight) else 0.0


def percentile_interval(values, n_independent) -> list[float]:
    """95 % interval [low, high] of a score between 0 and 1 from its values (k,) in bootstrap samples.

    A value that is NaN is left out; [NaN, NaN] where all are. Where all are 1, or all 0, the bootstrap knows no spread.
    Then the interval is the Clopper-Pearson interval of a share 1, or 0, of n_independent events: the called events of
    a purity; the rarest class of an AUROC, whose events form that many independent pairs with events of the other
    classes.
    """
    values = np.asarray(values, dtype=float)
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return [np.nan, np.nan]
    low, high = np.percentile(values, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    if low == high and low in (0.0, 1.0):
        low, high = binomial_interval(low * n_independent, n_independent)
    return [float(low), float(high)]


def resamples(n, n_samples, rng):
    """Yield how often each of n events stands in a bootstrap sample, (n,); n_samples of them."""
    for _ in range(n_samples):
        yield np.bincount(rng.integers(0, n, n), minlength=n)


def bootstrap(score, n, rng, n_independent) -> list[float]:
    """percentile_interval of score(counts) over bootstrap samples; counts (n,) is how often each event stands in it."""
    return percentile_interval([score(counts) for counts in resamples(n, N_BOOTSTRAP, rng)], n_independent)


def recall_in_bins(hit, x, edges) -> dict:
    """Recall of hit (N,) bool in bins of x (N,): {low, high, recall, recall_low, recall_high, n}, each (K,).

    edges : (K + 1,) ascending; a bin holds its lower edge. An empty bin has recall NaN and the interval 0 to 1.
    """
    n, k = np.histogram(x, edges)[0], np.histogram(x[hit], edges)[0]
    low, high = binomial_interval(k, n)
    recall = np.divide(k, n, out=np.full(len(n), np.nan), where=n > 0)
    return {"low": edges[:-1], "high": edges[1:], "recall": recall, "recall_low": low, "recall_high": high, "n": n}


def temporal_bias(t_0, right) -> dict:
    """KS test of t_0 (N,) of right against wrong predictions, D is the effect size; None of too few."""
    t_0, right = np.asarray(t_0), np.asarray(right, dtype=bool)
    out = {"D": None, "p": None, "n_right": int(right.sum()), "n_wrong": int((~right).sum())}
    if min(out["n_right"], out["n_wrong"]) >= LEAST_OF_KS_TEST:
        test = ks_2samp(t_0[right], t_0[~right])
        out |= {"D": float(test.statistic), "p": float(test.pvalue)}
    return out
