"""Early detection over a mixed stream: alerts, their purity, completeness and delay. Arrays in, numbers out.

What an alert is stands in microlens.network.predict. An alert is premature where the noise-free anomaly has not yet
reached delta chi^2 = THRESHOLD_PREMATURE.
"""

from __future__ import annotations

import numpy as np

from microlens.config import BINARY
from microlens.evaluate import metrics


def choose_threshold(labels, alert_score, premature_score, weight, purity: float, premature: float) -> float:
    """Lowest threshold of alert purity >= purity at which a share <= premature of the alerts on binaries is premature.

    labels (N,) simulated classes; alert_score, premature_score (N,) as predict.alert_scores gives them; weight (N,)
    class mix. Infinity if there is none.
    """
    binary = labels == BINARY
    pure, too_early = metrics.purity_holds(binary, weight, purity), np.sort(premature_score[binary])

    def holds(order):
        n_premature = len(too_early) - np.searchsorted(too_early, alert_score[order])
        return pure(order) & (n_premature <= premature * np.cumsum(binary[order])) & (alert_score[order] > 0)

    return metrics.lowest_threshold(alert_score, holds)


def report(labels, observable, t_alert, t_observable, t_premature, weight) -> dict:
    """Alert statistics of a mixed stream.

    labels, observable (N,) class numbers; t_alert (N,) days, NaN = none; t_observable (N,) days when the anomaly passed
    THRESHOLD_PSPL and t_premature (N,) when it passed THRESHOLD_PREMATURE, NaN = never; weight (N,) class mix.
    Shares come with 95 % Clopper-Pearson intervals; an alert between the two moments has delay 0.
    """
    alerted, seen, other = np.isfinite(t_alert), observable == BINARY, labels != BINARY
    binary = alerted & (labels == BINARY)
    premature = binary & ~(t_alert >= t_premature)
    delay = t_alert - t_observable
    delay = np.where(premature, delay, np.maximum(delay, 0.0))[alerted & seen]
    late = np.concatenate([delay, np.full(int((seen & ~alerted).sum()), np.inf)])  # never alerted: infinitely late
    median = float(np.median(late)) if len(late) else np.inf
    false = metrics.share(int((alerted & other).sum()), int(other.sum()))
    return {
        "n": len(labels), "n_alerts": int(alerted.sum()),
        "purity": metrics.purity(labels == BINARY, alerted, weight),
        "completeness_observable": metrics.share(int((alerted & seen).sum()), int(seen.sum())),
        "within_1_day": metrics.share(int((late <= 1.0).sum()), len(late)),
        "median_delay_days_all_observable": median if np.isfinite(median) else None,
        "delay_days_16_50_84": [float(x) for x in np.percentile(delay, [16, 50, 84])] if len(delay) else None,
        "premature_of_binary_alerts": metrics.share(int(premature.sum()), int(binary.sum())),
        "false_alerts": false,
        "false_alerts_per_1000_light_curves_and_season": 1000 * false["value"] if other.any() else None,
        "false_alerts_per_1000_interval_95": [1000 * x for x in false["interval_95"]],
    }


def against_time(time, labels, observable, t_alert, weight):
    """(purity, completeness), each (K,), of the alerts raised up to each time (K,) days.

    labels, observable, weight (N,) as in `report`; t_alert (N,) days, NaN = none. Purity is NaN before the first alert.
    """
    raised = [t_alert <= t for t in time]
    return (np.array([metrics.purity(labels == BINARY, so_far, weight) for so_far in raised]),
            np.array([metrics.share_of(so_far[observable == BINARY]) for so_far in raised]))
