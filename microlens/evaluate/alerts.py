"""Early detection over a mixed stream: alerts, their purity, completeness and delay. Arrays in, numbers out.

The score of a step is the causal network's P(binary). An alert is raised when it has stayed at or above a threshold
for `persistence` network steps. The alert score of a curve is the highest threshold at which it would still raise one, and its
premature score the same before the noise-free anomaly reaches delta chi^2 = 40, so the threshold can be chosen on validation curves
alone.
"""

from __future__ import annotations

import numpy as np

from microlens.config import PERSISTENCES
from microlens.data.simulation import true_curve
from microlens.evaluate import metrics
from microlens.fit import observability

PREMATURE = 40.0  # noise-free delta chi^2 of the prefix below which an alert is premature
ROWS = 512  # curves whose steps are held as float32 at once


def moments(data, rows) -> np.ndarray:
    """When the noise-free anomaly reaches delta chi^2 = 40, (n,) days: before it an alert is premature; NaN = never or no binary."""
    out = np.full(len(rows), np.nan)
    for i, row in enumerate(rows):
        p = data.params.iloc[int(row)]
        if p["label"] == 2 and p["delta_chi2_pspl"] > PREMATURE:
            start = p["t_0"], p["t_E"], max(p["u_0"], 1e-3)
            out[i] = observability(*true_curve(data, int(row)), True, start, threshold_pspl=PREMATURE)[3]
    return out


def sustained(score, persistence: int) -> np.ndarray:
    """Smallest of the last `persistence` values of score (n, K) at each step; 0 before that many steps."""
    out = np.array(score, dtype=np.float32)
    for shift in range(1, persistence):
        out[:, shift:] = np.minimum(out[:, shift:], score[:, :-shift])
    out[:, : persistence - 1] = 0.0
    return out


def alert_scores(score, persistence: int, until=None) -> np.ndarray:
    """The highest threshold (n,) at which each row of score (n, K) raises an alert; with `until` (n,), at a step before that one."""
    out = np.zeros(len(score), np.float32)
    for i in range(0, len(score), ROWS):
        part = sustained(score[i : i + ROWS], persistence)
        if until is not None:
            part[np.arange(part.shape[1]) >= until[i : i + ROWS, None]] = 0.0
        out[i : i + ROWS] = part.max(axis=1)
    return out


def alert_steps(score, threshold: float, persistence: int) -> np.ndarray:
    """Step (n,) of each row's alert, -1 where there is none."""
    out = np.full(len(score), -1)
    for i in range(0, len(score), ROWS):
        above = sustained(score[i : i + ROWS], persistence) >= np.float32(threshold)
        out[i : i + ROWS] = np.where(above.any(axis=1), above.argmax(axis=1), -1)
    return out


def choose_threshold(labels, alert_score, premature_score, weight, purity: float, premature: float) -> float:
    """Lowest threshold with alert purity >= purity and a share of premature alerts (of those on binaries) <= premature.

    labels (N,) simulated classes; alert_score, premature_score (N,) as alert_scores gives; weight (N,) class mix. Infinity if none.
    """
    binary = labels == 2
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
    alerted, seen, other = np.isfinite(t_alert), observable == 2, labels != 2
    binary = alerted & (labels == 2)
    premature = binary & ~(t_alert >= t_premature)
    delay = t_alert - t_observable
    delay = np.where(premature, delay, np.maximum(delay, 0.0))[alerted & seen]
    total = weight[alerted].sum()

    def share(k, n):
        low, high = metrics.binomial_interval(k, n, 0.95)
        return {"value": float(k / n) if n else None, "interval_95": [float(low), float(high)], "n": int(n)}

    late = np.concatenate([delay, np.full(int((seen & ~alerted).sum()), np.inf)])  # never alerted: infinitely late
    false = share(int((alerted & other).sum()), int(other.sum()))
    return {
        "n": len(labels), "n_alerts": int(alerted.sum()), "season_days": float(season),
        "purity": float(weight[binary].sum() / total) if total else None,
        "purity_unweighted": share(int(binary.sum()), int(alerted.sum())),
        "completeness_observable": share(int((alerted & seen).sum()), int(seen.sum())),
        "within_1_day": share(int((late <= 1.0).sum()), len(late)),
        "median_delay_days_all_observable": float(np.median(late)) if len(late) and np.isfinite(np.median(late)) else None,
        "delay_days_16_50_84": [float(x) for x in np.percentile(delay, [16, 50, 84])] if len(delay) else None,
        "premature_of_binary_alerts": share(int(premature.sum()), int(binary.sum())),
        "false_alerts": false,
        "false_alerts_per_1000_light_curves_and_season": 1000 * false["value"] if other.any() else None,
        "false_alerts_per_1000_interval_95": [1000 * x for x in false["interval_95"]],
    }


def tradeoff(labels, observable, score, times, t_observable, t_premature, weight, n=16) -> list[dict]:
    """Purity, premature share and share alerted within a day of rows of score (N, K) over thresholds, for each persistence.

    times(i) -> (L,) days of the steps of row i; other arrays as report takes them.
    """
    out, active = [], np.flatnonzero(score.max(axis=1) > 0)
    when = np.full((len(active), score.shape[1]), np.nan, np.float32)
    for j, i in enumerate(active):
        t = times(i)
        when[j, : len(t)] = t
    for persistence in PERSISTENCES:
        reached = alert_scores(score[active], persistence)
        for threshold in np.unique(np.round(np.append(np.linspace(0.1, 0.9, n), (0.95, 0.98, 0.99)), 3)):
            if not (reached >= np.float32(threshold)).any():
                continue
            step, t_alert = alert_steps(score[active], threshold, persistence), np.full(len(labels), np.nan)
            t_alert[active] = np.where(step >= 0, when[np.arange(len(active)), step], np.nan)
            made = report(labels, observable, t_alert, t_observable, t_premature, weight, np.nan)
            premature, soon = made["premature_of_binary_alerts"], made["within_1_day"]
            out.append({"persistence": persistence, "threshold": threshold, "purity": made["purity"],
                        "premature": premature["value"], "within_1_day": soon["value"], "n_alerts": made["n_alerts"],
                        "completeness": made["completeness_observable"]["value"]})
    return out


def against_time(time, labels, observable, t_alert, weight):
    """(purity, completeness), each (K,), of the alerts raised up to each time (K,); purity NaN before the first alert."""
    purity, completeness = np.full(len(time), np.nan), np.zeros(len(time))
    for k, t in enumerate(time):
        so_far = t_alert <= t
        total = weight[so_far].sum()
        purity[k] = weight[so_far & (labels == 2)].sum() / total if total else np.nan
        completeness[k] = so_far[observable == 2].mean() if (observable == 2).any() else np.nan
    return purity, completeness
