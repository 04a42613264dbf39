"""Run folder + dataset -> predictions.h5, evaluation_summary.json and figures.

    folder = evaluate(EvaluateConfig(experiment_name="d64_l4_hier", data="data/raw/test.h5"))

The threshold of the completeness at fixed purity and the temperature come from the run's own validation rows and are applied
unchanged. On the run's training file only held-out rows are scored.
"""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from microlens import figures, metrics, paths
from microlens.config import CLASSES, EvaluateConfig
from microlens.dataset import PackedDataset
from microlens.model import load_run
from microlens.store import atomic, open_dataset, write_predictions

log = logging.getLogger("microlens")
ORACLE = 160.0


def predict(classifier, data: PackedDataset, rows, batch_size=128, progress=True) -> np.ndarray:
    """Log-probabilities (len(rows), 3) of whole curves, in batches."""
    out = np.empty((len(rows), 3), np.float32)
    for i in tqdm(range(0, len(rows), batch_size), desc="classify", unit="batch", disable=not progress):
        part = rows[i : i + batch_size]
        out[i : i + len(part)] = classifier.log_prob_packed(*data.gather(part)).cpu()
    return out


def choose_rows(config: EvaluateConfig, data: PackedDataset, saved: dict) -> tuple[np.ndarray, str]:
    """Row numbers to score and what they are, in words."""
    rows, what = np.arange(data.n_events), "all rows of another file than the run was trained on"
    if data.identity == saved["identity"]:
        if config.rows == "all":
            what = "all rows of the run's own training file, most of which it was trained on"
        else:
            rows = saved["rows"]["test" if config.rows == "held-out" else config.rows].numpy()
            what = f"the {config.rows} rows of the run's own training file"
    if len(rows) == 0:
        raise ValueError(f"{config.data}: no {config.rows} rows to score; the run was trained with test_fraction 0.")
    if config.max_events and len(rows) > config.max_events:
        rows = np.sort(np.random.default_rng(config.seed).choice(rows, config.max_events, replace=False))
        what += f", {config.max_events} of them drawn at random"
    return rows, what


def frozen_threshold(classifier, config: EvaluateConfig, progress) -> tuple[float, float, int]:
    """Threshold of P(binary) at the wanted purity, temperature, and n, from the validation rows of the run's training file."""
    kept = classifier.run / "validation.csv"  # beside shipped weights, whose training file is not shipped
    if kept.is_file():
        table = pd.read_csv(kept)
        labels, observable = table["label"].to_numpy(), table["label_observable"].to_numpy()
        return _threshold(classifier, labels, observable, table[[f"log_p_{c}" for c in CLASSES]].to_numpy(), config.purity)
    path = Path(classifier.config["data"])
    if not path.exists():
        raise FileNotFoundError(f"{path}: the run's training file is gone; its validation rows are needed for the threshold.")
    data = PackedDataset(path, classifier.view, progress)
    if data.identity != classifier.saved["identity"]:
        raise ValueError(f"{path}: is no longer the file that {classifier.run.name} was trained on.")
    rows = classifier.saved["rows"]["val"].numpy()
    log_p = predict(classifier, data, rows, config.batch_size, progress)
    return _threshold(classifier, data.labels[rows], data.labels_observable[rows], log_p, config.purity)


def _threshold(classifier, labels, observable, log_p, purity) -> tuple[float, float, int]:
    t = metrics.threshold_at_purity(labels == 2, np.exp(log_p[:, 2]), metrics.class_mix(labels), purity)
    learned = labels if classifier.config["labels"] == "simulated" else observable
    return t, metrics.temperature(learned, log_p), len(labels)


def evaluate(config: EvaluateConfig, progress: bool = True) -> Path:
    """Score a run; returns the folder made. Raises ValueError or FileNotFoundError naming file and cause."""
    if config.light_curves is not None:
        raise ValueError("scoring a folder of light curves is not built yet; use `classify`.")
    classifier = load_run(config.experiment_name, config.checkpoint, "cpu" if config.device == "auto" else config.device)
    data = PackedDataset(config.data, classifier.view, progress)
    known = classifier.saved["timestamps"].numpy()
    if abs(np.median(np.diff(known)) / np.median(np.diff(data.timestamps)) - 1) > 0.3:
        raise ValueError(f"{config.data}: an epoch every {np.median(np.diff(data.timestamps)):.4g} d, but {classifier.run.name} "
                         f"was trained on {np.median(np.diff(known)):.4g} d; simulate with the run's schedule.")
    rows, what = choose_rows(config, data, classifier.saved)
    log.info("scoring %d events: %s", len(rows), what)
    threshold, temperature, n_val = frozen_threshold(classifier, config, progress)
    log_p = predict(classifier, data, rows, config.batch_size, progress)
    with open_dataset(config.data) as d:
        params = d.params.iloc[rows].reset_index(drop=True)
    p = np.exp(log_p.astype(float))
    labels, observable = params["label"].to_numpy(), params["label_observable"].to_numpy()
    weight, rng = metrics.class_mix(labels), np.random.default_rng(config.seed)

    def scores(i, score=p[:, 2], cut=threshold):
        return metrics.completeness_purity(labels[i], observable[i], score[i], weight[i], cut)

    everything = np.arange(len(rows))
    headline = scores(everything)
    for k in ("completeness_observable", "purity", "false_alarms_pspl"):
        headline[f"{k}_interval_95"] = metrics.bootstrap(lambda i, k=k: scores(i)[k], len(rows), rng, config.n_bootstrap)
    oracle = np.where(labels == 2, params["delta_chi2_pspl"], 0.0)
    summary = {
        "run": classifier.run.name, "data": str(config.data), "rows": what, "n": len(rows), "config": config.to_dict(),
        "class_mix": metrics.MIX, "threshold_from": f"{n_val} validation rows, purity {config.purity:g}",
        "simulated_labels": metrics.summary(labels, p, config.calibration_n_bins),
        "observable_labels": metrics.summary(observable, p, config.calibration_n_bins),
        "average_precision_binary_simulated": metrics.average_precision(labels == 2, p[:, 2], weight),
        "average_precision_binary_observable": metrics.average_precision(observable == 2, p[:, 2], weight),
        "at_threshold": headline, "oracle": scores(everything, oracle, ORACLE),
        "oracle_rule": f"knows the true curve and calls delta chi^2 > {ORACLE:g} binary",
        "temperature": temperature,
        "ece_p_binary": metrics.expected_calibration_error(observable == 2, p[:, 2], config.calibration_n_bins),
        "temporal_bias": metrics.temporal_bias(params["t_0"][labels > 0], (p.argmax(1) == observable)[labels > 0]),
    }
    home = paths.runs_dir() / classifier.run.name  # also for shipped weights: the package's own folder stays as it is
    folder = Path(config.output or home / f"eval_{Path(config.data).stem}_{time.strftime('%Y%m%d_%H%M%S')}")
    folder.mkdir(parents=True, exist_ok=True)
    write_predictions(folder / "predictions.h5",
                      {"row": rows, "log_p": log_p, "label": labels, "label_observable": observable},
                      {"data": str(config.data), "run": classifier.run.name, "threshold": threshold, "temperature": temperature})
    drawn = {"confusion_matrix": figures.confusion(observable, p),
             "calibration": figures.calibration(observable == 2, p[:, 2], config.calibration_n_bins)}
    if (labels == 2).any():
        binary = labels == 2
        drawn["recall_delta_chi2"] = figures.recall_curve(p[binary, 2] >= threshold,
                                                          np.maximum(params["delta_chi2_pspl"][binary].to_numpy(), 1.0),
                                                          10.0 ** np.arange(0, 7.1, 0.5), "delta chi^2 against the best single lens")
    for name, made in drawn.items():
        figures.save(*made, folder / name, config.formats)
    with atomic(folder / "evaluation_summary.json") as temporary:
        temporary.write_text(json.dumps(summary, indent=1, default=float) + "\n")
    return folder
