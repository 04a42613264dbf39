"""Early detection over a mixed stream: alerts, their purity, completeness and delay. Arrays in, numbers out.

What an alert is stands in microlens.network.predict. An alert is premature where the noise-free anomaly has not yet reached
delta chi^2 = THRESHOLD_PREMATURE.
"""

from __future__ import annotations

import numpy as np

from microlens.config import BINARY
from microlens.evaluate import metrics


def choose_threshold(labels, alert_score, premature_score, weight, purity: float, premature: float) -> float:
    """Lowest threshold with alert purity >= purity and a share of premature alerts (of those on binaries) <= premature.

    labels (N,) simulated classes; alert_score, premature_score (N,) as alert_scores gives; weight (N,) class mix. Infinity if none.
    """
    binary = labels == BINARY
    pure, early_ones = metrics.purity_holds(binary, weight, purity), np.sort(premature_score[binary])

    def holds(order):
        n_early = len(early_ones) - np.searchsorted(early_ones, alert_score[order])
        return pure(order) & (n_early <= premature * np.cumsum(binary[order])) & (alert_score[order] > 0)

    return metrics.lowest_threshold(alert_score, holds)


def report(labels, observable, t_alert, t_observable, t_premature, weight, season: float) -> dict:
    """Alert statistics of a mixed stream.

    labels, observable (N,) class numbers; t_alert (N,) days, NaN = none; t_observable (N,) days when the anomaly passed
    delta chi^2 = 160 and t_premature (N,) when it passed 40, NaN = never; weight (N,) class mix.
    Shares come with 95 % Clopper-Pearson intervals; an alert at delta chi^2 40 to 160 has delay 0.
    """
    alerted, seen, other = np.isfinite(t_alert), observable == BINARY, labels != BINARY
    binary = alerted & (labels == BINARY)
    premature = binary & ~(t_alert >= t_premature)
    delay = t_alert - t_observable
    delay = np.where(premature, delay, np.maximum(delay, 0.0))[alerted & seen]
    total = weight[alerted].sum()

    late = np.concatenate([delay, np.full(int((seen & ~alerted).sum()), np.inf)])  # never alerted: infinitely late
    false = metrics.share(int((alerted & other).sum()), int(other.sum()))
    return {
        "n": len(labels), "n_alerts": int(alerted.sum()), "season_days": float(season),
        "purity": float(weight[binary].sum() / total) if total else None,
        "purity_unweighted": metrics.share(int(binary.sum()), int(alerted.sum())),
        "completeness_observable": metrics.share(int((alerted & seen).sum()), int(seen.sum())),
        "within_1_day": metrics.share(int((late <= 1.0).sum()), len(late)),
        "median_delay_days_all_observable": float(np.median(late)) if len(late) and np.isfinite(np.median(late)) else None,
        "delay_days_16_50_84": [float(x) for x in np.percentile(delay, [16, 50, 84])] if len(delay) else None,
        "premature_of_binary_alerts": metrics.share(int(premature.sum()), int(binary.sum())),
        "false_alerts": false,
        "false_alerts_per_1000_light_curves_and_season": 1000 * false["value"] if other.any() else None,
        "false_alerts_per_1000_interval_95": [1000 * x for x in false["interval_95"]],
    }


def against_time(time, labels, observable, t_alert, weight):
    """(purity, completeness), each (K,), of the alerts raised up to each time (K,); purity NaN before the first alert."""
    purity, completeness = np.full(len(time), np.nan), np.zeros(len(time))
    for k, t in enumerate(time):
        so_far = t_alert <= t
        total = weight[so_far].sum()
        purity[k] = weight[so_far & (labels == BINARY)].sum() / total if total else np.nan
        completeness[k] = so_far[observable == BINARY].mean() if (observable == BINARY).any() else np.nan
    return purity, completeness
