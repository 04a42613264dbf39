"""Run folder + dataset -> predictions.h5 and evaluation_summary.json.

    folder = evaluate(EvaluateConfig(experiment_name="d64_l4_hier", data="data/raw/test.h5"))

Thresholds come from the run's validation rows, or from a calibration, and are applied unchanged. Events of class other,
which a network of three classes does not know, are scored apart: what it calls binary of them is a false alarm.
`predictions.h5` holds all that the scores and the figures (microlens.figures.draw_evaluation) are made of.

thresholds     what validation rows decide                  report         the numbers of one evaluation
metrics        arrays in, numbers out                       alerts         early detection over a mixed stream
baselines      without a network                            light_curves   classify: files of other people
calibration    thresholds on quiet light curves of the user's own
nightly        stream: new epochs of many stars into their saved state
"""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path

import numpy as np
from scipy.special import log_softmax

from microlens import files
from microlens.config import LENSING_CLASSES, OTHER, PERSISTENCE, EvaluateConfig
from microlens.data.format import open_dataset, write_predictions
from microlens.data.packed import CLASS_MIX, PackedDataset
from microlens.evaluate.calibration import Calibration, calibrate, read_calibration
from microlens.evaluate.light_curves import classify, score_light_curves
from microlens.evaluate.nightly import read_stars, stream_nights
from microlens.evaluate.report import Scores, scores_of_other
from microlens.evaluate.thresholds import Thresholds, choose_thresholds
from microlens.files import atomic
from microlens.network.predict import alert_times, lensing_log_p, predict, predict_steps, step_times
from microlens.network.runs import Run, export, load_run, shipped_networks

__all__ = ["calibrate", "classify", "evaluate", "export", "read_stars", "stream_nights"]
log = logging.getLogger("microlens")
CADENCE_TOLERANCE = 0.3  # relative difference of two median time steps, beyond which a network is out of its training


def choose_rows(wanted: str, run: Run, data: PackedDataset) -> tuple[np.ndarray, str]:
    """Row numbers to score and what they are, in words.

    wanted : held-out, val, train or all. held-out are the rows that the run's training did not use, in whatever file
    they stand: an event is known by its random stream, not by the name of its file. A file without any event of the
    training is scored whole. Raises ValueError where no row is left.
    """
    parts, name = run.parts_of(data.config, data.stars), run.name
    start = run.config.get("initial")
    inherited = f" ({name} started from the weights of {start}, whose training is not compared)" if start else ""
    if not (parts != "").any():
        return np.arange(data.n_events), f"all rows, none of them an event of the training of {name}{inherited}"
    if wanted == "all":
        n_train, n_val = (int((parts == part).sum()) for part in ("train", "val"))
        return np.arange(data.n_events), (f"all rows: {name} was trained on {n_train} of them, and its thresholds are "
                                          f"from {n_val} of them{inherited}")
    rows = np.flatnonzero(np.isin(parts, ("test", "") if wanted == "held-out" else wanted))
    if len(rows) == 0:
        raise ValueError(f"{data.path}: no {wanted} rows to score, its events are those of the training of {name}. "
                         "Simulate others, with another --seed or --split test.")
    return rows, (f"{len(rows)} {wanted} rows; the other {data.n_events - len(rows)} are left out: the file holds "
                  f"events of the training of {name} (the same seed and split){inherited}")


def without_calibration(rows, what: str, data: PackedDataset, calibration: Calibration) -> tuple[np.ndarray, str]:
    """The row numbers whose stars a calibration does not know, and what they are, in words.

    rows, what : as choose_rows gives them. Raises ValueError where no row is left.
    """
    left = rows[~calibration.knows(data.stars[rows])]
    if len(left) == 0:
        raise ValueError(f"{data.path}: all of its stars are those of the calibration, which they cannot test. "
                         "Calibrate with --split train, and simulate with --split test.")
    return left, what + (f"; {len(rows) - len(left)} in stars of the calibration are left out"
                         if len(left) < len(rows) else "")


def check_cadence(path, timestamps, run: Run):
    """Raise ValueError where a dataset's epochs (T,) days are not those that the run was trained on."""
    known, step = np.median(np.diff(run.timestamps)), np.median(np.diff(timestamps))
    if abs(known / step - 1) > CADENCE_TOLERANCE:
        raise ValueError(f"{path}: an epoch every {step:.4g} d, but {run.name} was trained on {known:.4g} d; simulate "
                         "with the run's schedule.")


def _write_summary(folder: Path, summary: dict):
    """Write evaluation_summary.json. A number that is not finite (a threshold that no score reaches) becomes null."""
    finite = json.loads(json.dumps(summary, default=float), parse_constant=lambda word: None)
    with atomic(folder / "evaluation_summary.json") as temporary:
        temporary.write_text(json.dumps(finite, indent=1) + "\n")


def new_folder(config: EvaluateConfig, run: Run) -> Path:
    """The folder that an evaluation makes; that of a shipped network stands in the runs folder, too."""
    stem = Path(config.data or config.light_curves).stem
    home = files.runs_dir() / (f"shipped_{run.name}" if run.name in shipped_networks() else run.name)
    folder = Path(config.output or home / f"eval_{stem}_{time.strftime('%Y%m%d_%H%M%S')}")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def evaluate(config: EvaluateConfig, progress: bool = True) -> Path:
    """Score a run; returns the folder made. Raises ValueError or FileNotFoundError naming file and cause."""
    run = load_run(config.experiment_name, "auto")
    calibration = None if config.calibration is None else read_calibration(config.calibration, run)
    if config.light_curves is not None:
        folder = new_folder(config, run)
        scored = score_light_curves(config.light_curves, config.truth, run, folder, calibration)
        _write_summary(folder, {**scored, "config": config.to_dict()})
        return folder
    with open_dataset(config.data) as dataset:
        check_cadence(config.data, dataset.timestamps, run)
        params = dataset.params
    thresholds = choose_thresholds(run, config, calibration)
    data = PackedDataset(config.data, run.network.view, run.network.stem_stride, progress)
    rows, what = choose_rows(config.rows, run, data)
    if calibration is not None and data.stars is not None and config.rows != "all":
        rows, what = without_calibration(rows, what, data, calibration)
    log.info("scoring %d events: %s", len(rows), what)
    log.info("thresholds from %s", thresholds.source)
    folder = new_folder(config, run)
    rows, other = rows[data.labels[rows] != OTHER], rows[data.labels[rows] == OTHER]
    if len(rows) == 0:
        raise ValueError(f"{config.data}: holds events of class other alone; a score of {run.name} needs some of "
                         f"{', '.join(LENSING_CLASSES)}, too.")
    scored, arrays = _score(config, run, data, rows, params.iloc[rows].reset_index(drop=True), thresholds, progress)
    if len(other):
        known = "knows" if run.network.tells_other else "does not know"
        log.info("%d of the rows are of class other, which %s %s: they are scored apart", len(other), run.name, known)
        scored["other"], more = _score_other(config, run, data, other, params.iloc[other], thresholds, progress)
        arrays |= more
    attributes = _attributes(config, run, data, thresholds) | ({"n_other": len(other)} if len(other) else {})
    write_predictions(folder / "predictions.h5", arrays, attributes)
    _write_summary(folder, {
        "run": run.name, "view": run.network.view, "data": str(config.data),
        "rows": what, "n": len(rows), "n_other": len(other), "config": config.to_dict(), "class_mix": CLASS_MIX,
        "threshold_from": f"{thresholds.source}: {thresholds.limits}; alerts: {thresholds.alert_limits}",
        "on_validation_rows": thresholds.reached, **scored})
    return folder


def _score(config: EvaluateConfig, run: Run, data: PackedDataset, rows, params, thresholds: Thresholds, progress):
    """The scores of the rows for the summary, and the arrays of predictions.h5, by name."""
    begun = time.perf_counter()
    steps = predict_steps(run.network, data, rows, progress) if config.early_detection else None
    log_p = steps.log_p if steps else predict(run.network, data, rows, progress)
    seconds = (time.perf_counter() - begun) / len(rows)
    called = log_p.argmax(axis=1)
    log_p = lensing_log_p(log_p)
    p_scaled = np.exp(log_softmax(log_p.astype(float) / thresholds.temperature, axis=1))
    scores = Scores(config, rows, params, np.exp(log_p.astype(float)))
    scored = {"seconds_per_event": seconds, **scores.whole_curves(thresholds, p_scaled)}
    if run.network.tells_other:
        scored["called_other"] = scores.shares_of_class(called == OTHER)
    arrays = {"row": rows, "log_p": log_p, "p_scaled": p_scaled, "called": called, "label": scores.labels,
              "label_observable": scores.observable}
    if config.baselines:
        scored["baselines"], found, seen = scores.baselines(thresholds, progress)
        arrays |= {f"baseline_{name.replace(' ', '_')}": score for name, score in found.items()}
        arrays |= {"seen_event": seen[:, 0], "seen_anomaly": seen[:, 1]}
    if steps:
        scored["early"], more = scores.early(data, steps, run.network.stem_stride, thresholds.alert)
        arrays |= more | example_evolutions(run, data, rows, scores.examples(config.n_evolution_per_type))
    return scored, arrays


def _score_other(config: EvaluateConfig, run: Run, data: PackedDataset, rows, params, thresholds: Thresholds, progress):
    """What the network makes of the rows of class other for the summary, and their arrays, named `other_...`."""
    steps = predict_steps(run.network, data, rows, progress) if config.early_detection else None
    log_p = steps.log_p if steps else predict(run.network, data, rows, progress)
    arrays = {"other_row": rows, "other_log_p": lensing_log_p(log_p), "other_called": log_p.argmax(axis=1),
              "other_label_observable": params["label_observable"].to_numpy()}
    if steps:
        stride = run.network.stem_stride
        arrays["other_t_alert"] = alert_times(data, rows, steps.p_binary, thresholds.alert, stride)
    p = np.exp(log_p.astype(float))
    return scores_of_other(params, p, thresholds.whole_curve, arrays.get("other_t_alert")), arrays


def _attributes(config: EvaluateConfig, run: Run, data: PackedDataset, thresholds: Thresholds) -> dict:
    """The attributes of predictions.h5: what was scored by whom, and every threshold."""
    cuts = {f"threshold_{name.replace(' ', '_')}": cut for name, cut in thresholds.baselines.items()}
    return {"data": str(Path(config.data).resolve()), "data_checksum": data.checksum, "run": run.name,
            "persistence": PERSISTENCE, "temperature": thresholds.temperature, "threshold_from": thresholds.source,
            "threshold": thresholds.whole_curve, "threshold_limits": thresholds.limits,
            "alert_threshold": thresholds.alert, "alert_threshold_limits": thresholds.alert_limits, **cuts}


def example_evolutions(run: Run, data: PackedDataset, rows, positions) -> dict[str, np.ndarray]:
    """The probabilities of some events after every network step, for figures.

    positions (k,) in rows. Returns example (k,), their positions; example_time (k, L) days and example_p (k, L, 3), NaN
    beyond an event's last step.
    """
    longest = len(data.timestamps) // run.network.stem_stride + 1
    times, p = np.full((len(positions), longest), np.nan), np.full((len(positions), longest, 3), np.nan)
    for i, position in enumerate(positions):
        row = rows[position]
        t = step_times(data, row, run.network.stem_stride)
        log_p = run.network.log_prob_steps(*data.gather(np.array([row])))[0, : len(t)]
        times[i, : len(t)], p[i, : len(t)] = t, np.exp(lensing_log_p(log_p.float().cpu().numpy()))
    return {"example": np.array(positions, dtype=int), "example_time": times, "example_p": p}
