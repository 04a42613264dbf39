"""What a run's validation rows decide: thresholds, temperature, the baselines' thresholds and their boosting model.

    thresholds = choose_thresholds(run, config)          called = p_binary >= thresholds.whole_curve

A run's checkpoint holds the network's output on its validation rows, and `validation_features.npz` in the run folder
the features that the baselines read of them. So a run, or a shipped network, can be applied without its training file.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np

from microlens.config import BINARY, FALSE_ALARMS, PURITY, EvaluateConfig
from microlens.data.packed import class_mix
from microlens.evaluate import alerts, baselines, metrics
from microlens.files import atomic
from microlens.network.runs import (
    VALIDATION_FEATURES,
    Run,
    find_checkpoint,
    load_run,
    read_checkpoint,
    write_checkpoint,
)


class Thresholds(NamedTuple):
    """Everything that is chosen on the validation rows.

    whole_curve : of P(binary) after whole curves.   alert : of the alert score, infinity for no alerts.
    source : what all were chosen on, in words.   reached : scores on the validation rows.   baselines : {name:
    threshold}. boosting : a fitted model, or None where the validation rows hold too few binaries.
    """

    whole_curve: float
    alert: float
    temperature: float
    source: str
    reached: dict
    baselines: dict
    boosting: object


def choose_thresholds(run: Run, config: EvaluateConfig) -> Thresholds:
    """The thresholds of a run for PURITY and the share of false alarms that `config` asks for.

    Raises FileNotFoundError where the baselines are asked for and the run folder lacks their validation features.
    """
    labels, observable = run.validation["label"], run.validation["label_observable"]
    log_p, weight = run.validation["log_p"].astype(float), class_mix(labels)
    learned = labels if run.config["labels"] == "simulated" else observable
    p_binary, limits = np.exp(log_p[:, BINARY]), (PURITY, config.false_alarms)
    whole_curve = metrics.operating_threshold(labels, p_binary, weight, *limits)
    reached = {"whole_curves": metrics.completeness_purity(labels, observable, p_binary, weight, whole_curve)}
    alert, cuts, boosting = np.inf, {}, None
    if config.early_detection:
        alert, reached["alerts"] = alert_threshold(run.validation, *limits)
    if config.baselines:
        cuts, boosting = _baseline_thresholds(run, *limits)
    source = f"{len(labels)} validation rows of the training of {run.name}"
    return Thresholds(whole_curve, alert, metrics.temperature(learned, log_p), source, reached, cuts, boosting)


def alert_threshold(validation: dict, purity: float = PURITY, premature: float = FALSE_ALARMS) -> tuple[float, dict]:
    """The threshold of alerts, and the scores that it reaches on the validation rows of a run, `validation`.

    purity : that it has at least.   premature : share of the alerts on binaries that it has at most.
    """
    labels, score, too_early = (validation[name] for name in ("label", "alert_score", "premature_score"))
    weight = class_mix(labels)
    cut = alerts.choose_threshold(labels, score, too_early, weight, purity, premature)
    alerted = score >= cut
    return cut, {"n_alerts": int(alerted.sum()), "purity": metrics.purity(labels == BINARY, alerted, weight),
                 "premature_of_binary_alerts": metrics.share_of((too_early >= cut)[alerted & (labels == BINARY)])}


def _baseline_thresholds(run: Run, purity: float, false_alarms: float):
    """{name: threshold} of the baselines, and the boosting model fitted on the validation rows."""
    path = run.folder / VALIDATION_FEATURES
    if not path.is_file():
        raise FileNotFoundError(f"{path}: the features of the validation rows are gone, from which the baselines' "
                                "thresholds are chosen. Evaluate with --no-baselines, or train again.")
    kept = np.load(path)
    x, labels = kept["x"].astype(float), kept["label"]
    boosting, p_boosting = baselines.gradient_boosting(x, kept["observable"])
    scores = baselines.fixed_scores(x) | ({"gradient boosting": p_boosting} if boosting is not None else {})
    return {name: metrics.operating_threshold(labels, score, class_mix(labels), purity, false_alarms)
            for name, score in scores.items()}, boosting


def export(name: str, folder) -> Path:
    """Copy what is needed to use a run into `folder`: network, configuration, log, validation features; no local paths.

    Returns the folder. Raises what load_run raises.
    """
    run, folder = load_run(name), Path(folder).expanduser()
    saved = read_checkpoint(find_checkpoint(name))
    own = {"data": Path(run.config["data"]).name, "output": None, "resume": None}
    if run.config["initial"]:
        own["initial"] = Path(run.config["initial"]).name
    saved["config"] |= own
    folder.mkdir(parents=True, exist_ok=True)
    write_checkpoint(folder / "best.pt", saved)
    with atomic(folder / "config.json") as temporary:
        temporary.write_text(json.dumps(saved["config"], indent=1, sort_keys=True) + "\n")
    for kept in ("log.jsonl", VALIDATION_FEATURES):
        shutil.copy(run.folder / kept, folder / kept)
    return folder
