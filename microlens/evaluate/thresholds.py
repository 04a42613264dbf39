"""What a run's validation rows decide: thresholds, temperature, the baselines' thresholds and their boosting model.

`validation.csv` in the run folder keeps the network's output on these rows, and `validation_features.npz` the baselines' features,
so a run (and shipped weights) can be applied without its training file. Both are made once.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from microlens.config import CLASSES, PERSISTENCES, EvaluateConfig
from microlens.data.format import atomic, open_dataset
from microlens.data.packed import PackedDataset
from microlens.evaluate import alerts, baselines, metrics
from microlens.network.predict import predict, predict_steps, step_times
from microlens.network.runs import load_run

KEPT = ("validation.csv", "validation_features.npz")


class Frozen(NamedTuple):
    """threshold : of P(binary) of whole curves; alert_threshold : of the alert score, infinity for no alerts; source : what all were
    chosen on, in words; validation : scores reached there; baselines : {name: threshold}; boosting : a fitted model or None.
    """

    threshold: float
    alert_threshold: float
    temperature: float
    source: str
    validation: dict
    baselines: dict
    boosting: object


def validation_events(classifier, file=None, progress=True):
    """(packed data, rows, words) of a run's validation events: of its training file, or all of another dataset file.

    Raises FileNotFoundError or ValueError where the training file is gone or is another one.
    """
    if file is not None:
        data = PackedDataset(file, classifier.view, classifier.stem_stride, progress)
        with open_dataset(file) as d:
            words = f"{data.n_events} events of {Path(file).name} (split {d.config['split']}, seed {d.config['seed']})"
        return data, np.arange(data.n_events), words
    path = Path(classifier.config["data"])
    if not path.exists():
        raise FileNotFoundError(f"{path}: the training file of run {classifier.run.name} is gone; its validation rows are needed for "
                                "the thresholds. Simulate it again, or `microlens export` the run with --validation FILE.")
    data = PackedDataset(path, classifier.view, classifier.stem_stride, progress)
    if data.identity != classifier.saved["identity"]:
        raise ValueError(f"{path}: is no longer the file that {classifier.run.name} was trained on.")
    rows = classifier.saved["rows"]["val"].numpy()
    return data, rows, f"{len(rows)} validation rows of the run's training file {path.name}"


def make_validation(classifier, folder, file=None, progress=True):
    """Write validation.csv and, where this network answers for whole curves, validation_features.npz into `folder`.

    Table: label, label_observable, log_p_<class>; for a causal network alert_score_<k> and premature_score_<k> for each
    persistence k (see `microlens.early`). Its first line says which events.
    """
    data, rows, words = validation_events(classifier, file, progress)
    table = pd.DataFrame({"label": data.labels[rows], "label_observable": data.labels_observable[rows]})
    causal = classifier.causal
    steps = predict_steps(classifier, data, rows, progress) if causal else None
    log_p = steps.log_p if causal else predict(classifier, data, rows, progress)
    table[[f"log_p_{c}" for c in CLASSES]] = log_p
    with open_dataset(data.path) as d:
        if causal:
            stride, score = classifier.stem_stride, steps.p_binary
            until = np.array([np.searchsorted(step_times(data, r, stride), t) if t == t else score.shape[1]
                              for r, t in zip(rows, alerts.moments(d, rows), strict=True)])
            for k in PERSISTENCES:
                table[f"alert_score_{k}"] = alerts.alert_scores(score, k)
                table[f"premature_score_{k}"] = np.where(table["label"] == 2, alerts.alert_scores(score, k, until), 0.0)
        x, _, _ = baselines.table(d, rows, progress)
    with atomic(Path(folder) / KEPT[1]) as temporary, open(temporary, "wb") as f:
        np.savez_compressed(f, x=x.astype(np.float16), observable=table["label_observable"], label=table["label"])
    with atomic(Path(folder) / KEPT[0]) as temporary:
        temporary.write_text(f"# {words}\n" + table.to_csv(index=False, float_format="%.5g"))


def read_validation(classifier, progress=True) -> tuple[pd.DataFrame, str]:
    """The run's validation table and which events it holds, in words; made first where it is missing."""
    kept = classifier.run / KEPT[0]
    if not all((classifier.run / name).is_file() for name in KEPT):
        make_validation(classifier, classifier.run, None, progress)
    return pd.read_csv(kept, comment="#"), kept.read_text().partition("\n")[0].removeprefix("# ")


def frozen(classifier, config: EvaluateConfig, progress=True) -> Frozen:
    """All that is decided on validation rows."""
    table, source = read_validation(classifier, progress)
    labels, observable = table["label"].to_numpy(), table["label_observable"].to_numpy()
    log_p, weight = table[[f"log_p_{c}" for c in CLASSES]].to_numpy(), metrics.class_mix(labels)
    learned = labels if classifier.config["labels"] == "simulated" else observable
    p, limits = np.exp(log_p[:, 2]), (config.purity, config.false_alarms)
    threshold = metrics.operating_threshold(labels, p, weight, *limits)
    reached = {"whole_curves": metrics.completeness_purity(labels, observable, p, weight, threshold),
               "threshold_for_purity_alone": metrics.threshold_at_purity(labels == 2, p, weight, config.purity)}
    alert = np.inf
    if classifier.causal and config.early_detection:
        alert, reached["alerts"] = _alert_threshold(table, config)
    cuts, boosting = {}, None
    if config.baselines:
        kept = np.load(classifier.run / KEPT[1])
        x, label, seen = kept["x"].astype(float), kept["label"], kept["observable"]
        boosting, p_boosting = baselines.gradient_boosting(x, seen, config.seed)
        for name, score in {**baselines.fixed_scores(x), "gradient boosting": p_boosting}.items():
            if score is not None:
                cuts[name] = metrics.operating_threshold(label, score, metrics.class_mix(label), *limits)
    return Frozen(threshold, alert, metrics.temperature(learned, log_p), source, reached, cuts, boosting)


def _alert_threshold(table, config) -> tuple[float, dict]:
    labels = table["label"].to_numpy()
    score, too_early = (table[f"{kind}_score_{config.persistence}"].to_numpy() for kind in ("alert", "premature"))
    weight = metrics.class_mix(labels)
    cut = alerts.choose_threshold(labels, score, too_early, weight, config.purity, config.premature)
    on_binary, total = int(((score >= cut) & (labels == 2)).sum()), weight[score >= cut].sum()
    return cut, {"n_alerts": int((score >= cut).sum()),
                 "purity": float(weight[(score >= cut) & (labels == 2)].sum() / total) if total else None,
                 "premature_of_binary_alerts": float((too_early >= cut).sum() / on_binary) if on_binary else None}


def export(name: str, folder, validation=None) -> Path:
    """Copy what is needed to use a run (weights, configuration, log, validation outputs) into `folder`, without local paths.

    validation : dataset file of events that no training saw, on which the thresholds are then chosen instead of the run's own
    validation rows.
    """
    classifier, folder = load_run(name), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    saved = {**classifier.saved, "config": {**classifier.config, "data": Path(classifier.config["data"]).name, "output": None}}
    if saved["config"].get("initial"):
        saved["config"]["initial"] = Path(saved["config"]["initial"]).name
    saved["rows"] = {k: v.to(torch.int32) for k, v in saved["rows"].items()}
    with atomic(folder / "best.pt") as temporary:
        torch.save(saved, temporary)
    (folder / "config.json").write_text(json.dumps(saved["config"], indent=1, sort_keys=True) + "\n")
    shutil.copy(classifier.run / "log.jsonl", folder / "log.jsonl")
    if validation is None:
        read_validation(classifier)
        for name in KEPT:
            shutil.copy(classifier.run / name, folder / name)
    else:
        make_validation(classifier, folder, validation)
    return folder
