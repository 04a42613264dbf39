"""Early detection over a mixed stream: alerts, their purity, completeness and delay. Arrays in, numbers out.

An alert is raised when P(binary) has stayed at or above a threshold for `persistence` network steps. The alert score of a curve
is the highest threshold at which it would still raise one, so a threshold can be chosen on validation curves alone.
"""

from __future__ import annotations

import numpy as np

from microlens import metrics
from microlens.detectability import prefix_delta_chi2

PREMATURE = 40.0  # noise-free delta chi^2 of the prefix below which an alert is premature


def sustained(score, persistence: int) -> np.ndarray:
    """Smallest of the last `persistence` values of score (n, K) at each step; 0 before that many steps."""
    out = np.array(score, dtype=np.float32)
    for shift in range(1, persistence):
        out[:, shift:] = np.minimum(out[:, shift:], score[:, :-shift])
    out[:, : persistence - 1] = 0.0
    return out


def alert_scores(score, persistence: int) -> np.ndarray:
    """The highest threshold (n,) at which each row of score (n, K) raises an alert."""
    return sustained(score, persistence).max(axis=1)


def alert_steps(score, threshold: float, persistence: int) -> np.ndarray:
    """Step (n,) of each row's alert, -1 where there is none."""
    above = sustained(score, persistence) >= threshold
    return np.where(above.any(axis=1), above.argmax(axis=1), -1)


def alert_delta_chi2(curves, t_alert) -> np.ndarray:
    """Noise-free delta chi^2 (n,) against the best single lens of each curve up to its alert.

    curves : iterable of (t, flux_true, sigma), valid epochs only; t_alert (n,) days.
    """
    return np.array([prefix_delta_chi2(t[t <= at + 1e-9], f[t <= at + 1e-9], s[t <= at + 1e-9])
                     for (t, f, s), at in zip(curves, t_alert, strict=True)])


def report(labels, observable, t_alert, t_observable, delta_chi2, weight, season: float) -> dict:
    """Alert statistics of a mixed stream.

    labels, observable (N,) class numbers; t_alert (N,) days, NaN = none; t_observable (N,) days when the anomaly passed
    delta chi^2 = 160, NaN = never; delta_chi2 (N,) of the prefix at the alert (NaN where not needed); weight (N,) class mix.
    Shares come with 95 % Clopper-Pearson intervals; an alert at delta chi^2 40 to 160 has delay 0.
    """
    alerted, seen, other = np.isfinite(t_alert), observable == 2, labels != 2
    delay = (t_alert - t_observable)[alerted & seen]
    early = (delta_chi2[alerted & seen] >= PREMATURE) & (delay < 0)
    delay = np.where(early, 0.0, delay)
    binary = alerted & (labels == 2)
    premature = binary & (delta_chi2 < PREMATURE)
    total = weight[alerted].sum()
    years = len(labels[other]) / 1000

    def share(k, n):
        low, high = metrics.binomial_interval(k, n, 0.95)
        return {"value": float(k / n) if n else None, "interval_95": [float(low), float(high)], "n": int(n)}

    late = np.concatenate([delay, np.full(int((seen & ~alerted).sum()), np.inf)])  # never alerted: infinitely late
    return {
        "n": len(labels), "n_alerts": int(alerted.sum()), "season_days": float(season),
        "purity": float(weight[binary].sum() / total) if total else None,
        "purity_counts": share(int(binary.sum()), int(alerted.sum())),
        "completeness_observable": share(int((alerted & seen).sum()), int(seen.sum())),
        "within_1_day": share(int((late <= 1.0).sum()), len(late)),
        "median_delay_days_all_observable": float(np.median(late)) if len(late) and np.isfinite(np.median(late)) else None,
        "delay_days_16_50_84": [float(x) for x in np.percentile(delay, [16, 50, 84])] if len(delay) else None,
        "premature_of_binary_alerts": share(int(premature.sum()), int(binary.sum())),
        "false_alerts_per_1000_light_curves_and_season": float((alerted & other).sum() / years) if years else None,
        "false_alerts": share(int((alerted & other).sum()), int(other.sum())),
    }


def against_time(time, labels, observable, t_alert, weight):
    """(purity, completeness), each (K,), of the alerts raised up to each time (K,); purity NaN before the first alert."""
    purity, completeness = np.full(len(time), np.nan), np.zeros(len(time))
    for k, t in enumerate(time):
        so_far = t_alert <= t
        total = weight[so_far].sum()
        purity[k] = weight[so_far & (labels == 2)].sum() / total if total else np.nan
        completeness[k] = so_far[observable == 2].mean() if (observable == 2).any() else np.nan
    return purity, completeness
