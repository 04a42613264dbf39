"""The figures of an evaluation folder, from its predictions.h5 and the dataset that was scored.

    draw_evaluation("runs/quick/eval_test_20261127_120000")
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from microlens.config import BINARY, FLAT, LENSING_CLASSES, PSPL, EvaluateConfig
from microlens.data import open_dataset, read_predictions
from microlens.data.packed import class_mix
from microlens.evaluate import alerts as alert_scores
from microlens.evaluate.report import SEED
from microlens.figures.alerts import alerts, early_detection_curve, evolution
from microlens.figures.dependence import recall, recall_s_q, temporal_bias_check, u0_dependency
from microlens.figures.inputs import example_light_curves
from microlens.figures.light_curves import PER_PAGE, mistakes, sets
from microlens.figures.rows import per_class_metrics
from microlens.figures.scores import calibration, completeness_purity, confusion_matrix, roc_curves
from microlens.figures.style import P_BINARY, palette, save

NEARLY_1 = 0.9995  # from which a number is 1 in three digits
AT_THRESHOLD = ("recall", "recall_s_q")  # figures of what is called binary at the threshold of whole curves
OF_PROBABILITIES = ("roc_curves", "completeness_purity", "calibration", "evolution", "example_light_curves")
"""Figures of probabilities or of data, which have no operating point; all other ones are of the most probable class."""


def draw_evaluation(folder, into=None, formats: tuple[str, ...] | None = None) -> list[Path]:
    """Draw the figures of an evaluation folder; returns their paths.

    into, formats : unset means the folder itself, and the formats that the evaluation was asked for.
    Raises FileNotFoundError where the folder or the dataset that was scored is gone, DatasetError where either is
    damaged.
    """
    folder = Path(folder)
    summary_file = folder / "evaluation_summary.json"
    if not summary_file.is_file():
        raise FileNotFoundError(f"{folder}: is no folder of a finished evaluation; `microlens evaluate` makes one.")
    summary = json.loads(summary_file.read_text())
    config = EvaluateConfig.from_dict(summary["config"])
    with palette(config.colorblind_safe):
        if "sets" in summary:
            made = _light_curves(folder, summary)
        else:
            arrays, attrs = read_predictions(folder / "predictions.h5")
            made = _scored_dataset(folder, summary, config, arrays, attrs)
        return [path for name, figure in made.items()
                for path in save(into or folder, name, *figure, formats or config.formats)]


def _scored_dataset(folder, summary, config, arrays, attrs) -> dict:
    """{name: (table, caption)} of all figures; captions end with dataset, network and operating point."""
    with open_dataset(attrs["data"]) as data:
        if data.checksum != attrs["data_checksum"]:
            raise FileNotFoundError(f"{attrs['data']}: is no longer the dataset that {folder} scored; evaluate again.")
        made = _whole_curves(summary, config, arrays, attrs, data)
        if "t_alert" in arrays:
            made |= _early(summary, arrays, data)
        about = f"Dataset {dataset_in_words(data)}; network {summary['run']}"
    return {name: (table, f"{caption} {about}{operating_point(name, config, attrs)}.")
            for name, (table, caption) in made.items()}


def dataset_in_words(data) -> str:
    """The name of an open Dataset and what of its simulation decides what a network can make of it."""
    said = {"preset": Path(data.config["binary_preset"]).stem}
    said |= {name: data.config[name] for name in ("schedule", "detector", "split") if data.config[name]}
    return f"{Path(data.path).name} ({', '.join(f'{name} {value}' for name, value in said.items())})"


def operating_point(name: str, config, attrs) -> str:
    """The end of the caption of a figure, which states its operating point; '' where it has none.

    config : EvaluateConfig.   attrs : those of predictions.h5.
    """
    if name not in (*AT_THRESHOLD, "alerts"):
        return "" if name.startswith(OF_PROBABILITIES) else "; operating point: the most probable class"
    key = "alert_threshold" if name == "alerts" else "threshold"
    source = attrs["threshold_from"]
    if config.calibration is None:
        limits = attrs[f"{key}_limits"].replace(">=", r"$\geq$").replace("<=", r"$\leq$")
        source = f"{limits} on the validation events"
    threshold = attrs[key]
    printed = f"1 - {1 - threshold:.2g}" if NEARLY_1 <= threshold < 1 else f"{threshold:.3g}"
    return rf"; operating point: {P_BINARY} $\geq$ {printed} ({source})"


def _with_other(arrays: dict, name: str) -> np.ndarray:
    """An array of predictions.h5 with that of the events of class other, where there are any, behind it."""
    return np.concatenate([arrays[key] for key in (name, f"other_{name}") if key in arrays])


def _whole_curves(summary, config, arrays, attrs, data) -> dict:
    """{name: (table, caption)} of the figures of answers after whole curves."""
    params = data.params.iloc[arrays["row"]].reset_index(drop=True)
    labels, observable, p = arrays["label"], arrays["label_observable"], np.exp(arrays["log_p"].astype(float))
    rng, right = np.random.default_rng(SEED), p.argmax(1) == observable
    p_scaled, n_bins = arrays["p_scaled"][:, BINARY], config.calibration_n_bins
    seen, called = (_with_other(arrays, name) for name in ("label_observable", "called"))
    made = {"confusion_matrix": confusion_matrix(seen, called),
            "calibration": calibration(observable == BINARY, p[:, BINARY], p_scaled, n_bins),
            "per_class_metrics": per_class_metrics({k: summary[f"{k}_labels"] for k in ("simulated", "observable")})}
    if len(np.unique(observable)) > 1:
        made["roc_curves"] = roc_curves(observable, p, rng)
    if (labels == BINARY).any() and (labels == PSPL).any():
        scores = {"network": p[:, BINARY]}
        scores |= {key.removeprefix("baseline_").replace("_", " "): score
                   for key, score in arrays.items() if key.startswith("baseline_")}
        scores["oracle"] = np.where(labels == BINARY, params["delta_chi2_pspl"], 0.0)
        binary = params[labels == BINARY].reset_index(drop=True)
        hit = p[labels == BINARY, BINARY] >= attrs["threshold"]
        made |= {"completeness_purity": completeness_purity(labels, observable, scores, class_mix(labels)),
                 "recall": recall(binary, hit), "recall_s_q": recall_s_q(binary, hit),
                 "u0_dependency": u0_dependency(params["u_0"].to_numpy(), labels, right),
                 "temporal_bias_check": temporal_bias_check(params["t_0"].to_numpy(), labels, right)}
    examples = [np.flatnonzero(observable == c) for c in (FLAT, PSPL, BINARY)]
    if all(len(at) for at in examples):
        rows = [arrays["row"][rng.choice(at)] for at in examples]
        made["example_light_curves"] = example_light_curves(data.timestamps, data.flux(rows), LENSING_CLASSES)
    return made


def _early(summary, arrays, data) -> dict:
    """{name: (table, caption)} of the figures of early detection."""
    labels, observable, t_alert = arrays["label"], arrays["label_observable"], arrays["t_alert"]
    t_observable = data.t_observable_pspl[arrays["row"]]
    accuracy, low, high = arrays["fraction_accuracy"].T
    grid = data.timestamps[0] + arrays["fraction"] * (data.timestamps[-1] - data.timestamps[0])
    over_time = alert_scores.against_time(grid, labels, observable, t_alert, class_mix(labels))
    delay = (t_alert - t_observable)[observable == BINARY]
    curve = early_detection_curve(arrays["fraction"], accuracy, low, high, arrays["fraction_recall"], len(labels))
    made = {"early_detection_curve": curve, "alerts": alerts(grid, *over_time, delay, summary["early"]["alerts"])}
    for k, at in enumerate(arrays["example"]):
        row, kind = arrays["row"][at], LENSING_CLASSES[observable[at]]
        flux, sigma, seen = data.flux(int(row)), data.sigma(int(row)), np.isfinite(arrays["example_time"][k])
        valid = flux != 0
        moment = t_observable[at] if observable[at] == BINARY else np.nan
        steps = arrays["example_time"][k, seen], arrays["example_p"][k, seen]
        made[f"evolution_{kind}_{row}"] = evolution(data.timestamps[valid], flux[valid], sigma[valid], *steps,
                                                    truth=kind, t_observable=moment)
    return made


def _light_curves(folder: Path, summary: dict) -> dict:
    """The figures of an evaluation of light-curve files: confusion of each set, and pictures of every mistake."""
    made = {"sets": sets({name: scored["confusion"] for name, scored in summary["sets"].items()})}
    wrong = pd.read_csv(folder / "mistakes.csv")
    for page in range(-(-wrong["name"].nunique() // PER_PAGE)):
        made[f"mistakes_{page + 1}"] = mistakes(wrong, page, "Seasons called wrongly")
    about = f"Network {summary['run']}; operating point: the class that `microlens classify` calls."
    return {name: (table, f"{caption} {about}") for name, (table, caption) in made.items()}
