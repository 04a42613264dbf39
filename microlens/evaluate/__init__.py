"""Run folder + dataset -> predictions.h5, evaluation_summary.json and figures.

    folder = evaluate(EvaluateConfig(experiment_name="d64_l4_hier", data="data/raw/test.h5"))

Thresholds (of whole curves, of alerts and of the baselines) and the temperature come from the run's validation rows and are applied
unchanged. On the run's training file only held-out rows are scored. `predictions.h5` holds all that the scores are made of.

network       what the network says, in blocks         page        numbers and figures of one evaluation
validation    what validation rows decide; export
"""

from __future__ import annotations

import json
import logging
import math
import time
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import log_softmax

from microlens import figures, files
from microlens.config import CLASSES, EvaluateConfig
from microlens.data.format import atomic, open_dataset, write_predictions
from microlens.data.packed import PackedDataset
from microlens.evaluate import metrics
from microlens.evaluate.light_curves import score_folder
from microlens.evaluate.report import Page
from microlens.evaluate.thresholds import export, frozen
from microlens.network.predict import predict, predict_steps
from microlens.network.runs import load_run

__all__ = ["evaluate", "export"]
log = logging.getLogger("microlens")


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


def check_cadence(path, timestamps, classifier):
    known = np.median(np.diff(classifier.saved["timestamps"].numpy()))
    step = np.median(np.diff(timestamps))
    if abs(known / step - 1) > 0.3:
        raise ValueError(f"{path}: an epoch every {step:.4g} d, but {classifier.run.name} was trained on {known:.4g} d; simulate with "
                         "the run's schedule.")


def _write_summary(folder, summary: dict):
    """evaluation_summary.json; a value that is not finite (a threshold that no score reaches) becomes null."""
    def clean(x):
        if isinstance(x, dict):
            return {k: clean(v) for k, v in x.items()}
        if isinstance(x, (list, tuple)):
            return [clean(v) for v in x]
        if isinstance(x, (float, np.floating)):
            return float(x) if math.isfinite(x) else None
        return x

    with atomic(folder / "evaluation_summary.json") as temporary:
        temporary.write_text(json.dumps(clean(summary), indent=1) + "\n")


def evaluate(config: EvaluateConfig, progress: bool = True) -> Path:
    """Score a run; returns the folder made. Raises ValueError or FileNotFoundError naming file and cause."""
    classifier = load_run(config.experiment_name, config.checkpoint, config.device)
    home = files.runs_dir() / classifier.run.name  # also for shipped weights: the package's own folder stays as it is
    stem = Path(config.data or config.light_curves).stem
    folder = Path(config.output or home / f"eval_{stem}_{time.strftime('%Y%m%d_%H%M%S')}")
    figures.use_palette(config.colorblind_safe)
    if config.light_curves is not None:
        return score_light_curves(config, classifier, folder)
    with open_dataset(config.data) as d:
        check_cadence(config.data, d.timestamps, classifier)
    data = PackedDataset(config.data, classifier.view, classifier.stem_stride, progress)
    rows, what = choose_rows(config, data, classifier.saved)
    log.info("scoring %d events: %s", len(rows), what)
    cut = frozen(classifier, config, progress)
    log.info("thresholds from %s", cut.source)
    begun = time.perf_counter()
    every = config.early_detection and classifier.causal
    steps = predict_steps(classifier, data, rows, progress, config.batch_size) if every else None
    log_p = steps.log_p if every else predict(classifier, data, rows, progress, config.batch_size)
    seconds = (time.perf_counter() - begun) / len(rows)
    with open_dataset(config.data) as d:
        params = d.params.iloc[rows].reset_index(drop=True)
    folder.mkdir(parents=True, exist_ok=True)
    p = np.exp(log_p.astype(float))
    scaled = np.exp(log_softmax(log_p.astype(float) / cut.temperature, axis=1))
    page = Page(config, folder, rows, params, p)
    summary = {
        "run": classifier.run.name, "view": classifier.view, "checkpoint": config.checkpoint,
        "data": str(config.data), "rows": what, "n": len(rows), "config": config.to_dict(), "class_mix": metrics.MIX,
        "threshold_from": f"{cut.source}: purity >= {config.purity:g}, false alarms of single lenses and of flats <= "
                          f"{config.false_alarms:g}; alerts: purity >= {config.purity:g}, premature <= {config.false_alarms:g}",
        "on_validation_rows": cut.validation, "seconds_per_event": seconds, **page.overall(cut, scaled)}
    arrays = {"row": rows, "log_p": log_p, "label": page.labels, "label_observable": page.observable}
    scores = {"network": p[:, 2]}
    if config.baselines:
        summary["baselines"], made, seen = page.baselines(cut, progress)
        scores |= made
        arrays |= seen | {f"baseline_{k.replace(' ', '_')}": v for k, v in made.items()}
    scores["oracle"] = np.where(page.labels == 2, params["delta_chi2_pspl"], 0.0)
    if config.draw:
        page.draw(cut, scores, scaled)
    if steps is not None:
        summary["early"], more = page.early(classifier, data, steps, cut)
        arrays |= more
    cuts = {"threshold": cut.threshold, "alert_threshold": cut.alert_threshold,
            **{f"threshold_{k.replace(' ', '_')}": v for k, v in cut.baselines.items()}}
    write_predictions(folder / "predictions.h5", arrays,
                      {"data": str(config.data), "run": classifier.run.name, "temperature": cut.temperature,
                       "persistence": config.persistence, "threshold_from": cut.source, **cuts})
    _write_summary(folder, summary)
    return folder


def score_light_curves(config: EvaluateConfig, classifier, folder: Path) -> Path:
    """Score a folder of light-curve files season by season against a truth table; see EvaluateConfig."""
    table, mistakes, errors = score_folder(config.light_curves, config.truth, classifier)
    for line in errors:
        log.warning("%s", line)
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / "seasons.csv", index=False)
    scored = table[table["truth"].isin(CLASSES) & (table["class"] != "")]
    if scored.empty:
        raise ValueError(f"{config.light_curves}: no season of a file in {config.truth} could be scored.")
    summary = {"run": classifier.run.name, "light_curves": str(config.light_curves), "errors": errors, "sets": {}}
    for name, part in scored.groupby("set"):
        counts = pd.crosstab(part["truth"], part["class"]).reindex(index=CLASSES, columns=CLASSES, fill_value=0)
        quiet, binary = part[part["truth"] == "flat"], part[part["truth"] == "binary"]
        summary["sets"][name] = {
            "n_seasons": len(part), "n_ambiguous_left_out": int(((table["set"] == name) & (table["truth"] == "ambiguous")).sum()),
            "share_sparse": float(part["flags"].str.contains("sparse").mean()), "confusion": counts.to_numpy().tolist(),
            "binaries_called_binary": _share((binary["class"] == "binary").to_numpy()),
            "quiet_called_anything": _share((quiet["class"] != "flat").to_numpy()),
            "right": _share((part["class"] == part["truth"]).to_numpy())}
        print(f"\n{name}: {len(part)} seasons (rows: truth, columns: called)\n{counts.to_string()}")
    counts = {name: made["confusion"] for name, made in summary["sets"].items()}
    figures.save(folder, "sets", *figures.sets(counts), config.formats)
    for page in range(-(-len(mistakes) // figures.PER_PAGE)):
        figures.save(folder, f"mistakes_{page + 1}", *figures.mistakes(mistakes, page, "Seasons called wrongly"), config.formats)
    _write_summary(folder, summary)
    return folder


def _share(hit) -> dict:
    low, high = metrics.binomial_interval(int(hit.sum()), len(hit), 0.95)
    return {"value": float(hit.mean()) if len(hit) else None, "interval_95": [float(low), float(high)], "n": len(hit)}
