"""What a run's validation rows decide: thresholds, temperature, the baselines' thresholds and their boosting model.

A calibration (microlens.evaluate.calibration) takes the place of the validation rows for the network's own thresholds.

    thresholds = choose_thresholds(run, config)          called = p_binary >= thresholds.whole_curve

A run's checkpoint holds the network's output on its validation rows, and `validation_features.npz` in the run folder
the features that the baselines read of them. So a run, or a shipped network, can be applied without its training file.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from microlens.config import BINARY, EVEN_ODDS, FALSE_ALARMS, OTHER, PURITY, EvaluateConfig
from microlens.data.packed import class_mix
from microlens.evaluate import alerts, baselines, metrics
from microlens.evaluate.calibration import Calibration
from microlens.network.predict import lensing_log_p
from microlens.network.runs import VALIDATION_FEATURES, Run


class Thresholds(NamedTuple):
    """Everything that is chosen on the validation rows.

    whole_curve : of P(binary) after whole curves.   alert : of the alert score, infinity for no alerts.
    source : what these two were chosen on, in words.   limits, alert_limits : what they keep there, in words.
    reached : scores on the validation rows.   baselines : {name: threshold}.   boosting : a fitted model, or None where
    the validation rows hold too few binaries.
    """

    whole_curve: float
    alert: float
    temperature: float
    source: str
    limits: str
    alert_limits: str
    reached: dict
    baselines: dict
    boosting: object


def choose_thresholds(run: Run, config: EvaluateConfig, calibration: Calibration | None = None) -> Thresholds:
    """The thresholds of a run for PURITY and the share of false alarms that `config` asks for, or of a calibration.

    Without such a share it is FALSE_ALARMS, and a network that knows class other, which is for noise that its
    validation rows do not hold, has at least the threshold EVEN_ODDS for whole curves.

    Raises FileNotFoundError where the baselines are asked for and the run folder lacks their validation features.
    """
    validation = lenses_and_flats(run.validation)
    labels, observable = validation["label"], validation["label_observable"]
    log_p, weight = lensing_log_p(validation["log_p"].astype(float)), class_mix(labels)
    learned = labels if run.config["labels"] == "simulated" else observable
    false_alarms = FALSE_ALARMS if config.false_alarms is None else config.false_alarms
    p_binary, limits = np.exp(log_p[:, BINARY]), (PURITY, false_alarms)
    if calibration is None:
        whole_curve = metrics.operating_threshold(labels, p_binary, weight, *limits)
        alert = alert_threshold(run.validation, *limits) if config.early_detection else np.inf
        source = f"{len(labels)} validation rows of the training of {run.name}"
        words = [f"purity >= {PURITY:g}, false alarms of single lenses and of flats <= {false_alarms:g}",
                 f"purity >= {PURITY:g}, premature <= {false_alarms:g}"]
        if config.false_alarms is None and run.network.tells_other:
            whole_curve = max(whole_curve, EVEN_ODDS)
            words[0] += f", and at least {EVEN_ODDS:g}"
    else:
        whole_curve, alert = calibration.whole_curve, calibration.alert if config.early_detection else np.inf
        source, words = calibration.source, (calibration.limits, calibration.limits)
    reached = {"whole_curves": metrics.completeness_purity(labels, observable, p_binary, weight, whole_curve)}
    if config.early_detection:
        reached["alerts"] = _alerts_reached(validation, alert)
    cuts, boosting = _baseline_thresholds(run, *limits) if config.baselines else ({}, None)
    temperature = metrics.temperature(learned, log_p)
    return Thresholds(whole_curve, alert, temperature, source, *words, reached, cuts, boosting)


def lenses_and_flats(validation: dict) -> dict:
    """The validation outputs of all rows but those of class other, which thresholds are not chosen on."""
    keep = validation["label"] != OTHER
    return {name: values[keep] for name, values in validation.items()}


def alert_threshold(validation: dict, purity: float = PURITY, premature: float = FALSE_ALARMS) -> float:
    """The threshold of alerts that the validation outputs of a run give.

    purity : that it has at least.   premature : share of the alerts on binaries that it has at most.
    """
    validation = lenses_and_flats(validation)
    labels, score, too_early = (validation[name] for name in ("label", "alert_score", "premature_score"))
    return alerts.choose_threshold(labels, score, too_early, class_mix(labels), purity, premature)


def _alerts_reached(validation: dict, cut: float) -> dict:
    """The scores of alerts on the validation rows at a threshold."""
    labels, alerted = validation["label"], validation["alert_score"] >= cut
    premature = (validation["premature_score"] >= cut)[alerted & (labels == BINARY)]
    return {"n_alerts": int(alerted.sum()), "purity": metrics.purity(labels == BINARY, alerted, class_mix(labels)),
            "premature_of_binary_alerts": metrics.share_of(premature)}


def _baseline_thresholds(run: Run, purity: float, false_alarms: float):
    """{name: threshold} of the baselines, and the boosting model fitted on the validation rows."""
    path = run.folder / VALIDATION_FEATURES
    if not path.is_file():
        raise FileNotFoundError(f"{path}: the features of the validation rows are gone, from which the baselines' "
                                "thresholds are chosen. Evaluate with --no-baselines, or train again.")
    kept = lenses_and_flats(dict(np.load(path)))
    x, labels = kept["x"].astype(float), kept["label"]
    boosting, p_boosting = baselines.gradient_boosting(x, kept["observable"])
    scores = baselines.fixed_scores(x) | ({"gradient boosting": p_boosting} if boosting is not None else {})
    return {name: metrics.operating_threshold(labels, score, class_mix(labels), purity, false_alarms)
            for name, score in scores.items()}, boosting
