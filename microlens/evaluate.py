"""Run folder + dataset -> predictions.h5, evaluation_summary.json and figures.

    folder = evaluate(EvaluateConfig(experiment_name="d64_l4_hier", data="data/raw/test.h5"))

Thresholds (of the whole curve and of alerts) and the temperature come from the run's own validation rows and are applied
unchanged. On the run's training file only held-out rows are scored. `predictions.h5` holds all that the scores are made of.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.special import log_softmax
from tqdm.auto import tqdm

from microlens import baselines, early, figures, metrics, paths
from microlens.classify import score_folder
from microlens.config import CLASSES, EvaluateConfig
from microlens.dataset import PackedDataset
from microlens.model import load_run
from microlens.simulate import true_curve
from microlens.store import atomic, open_dataset, write_predictions

log = logging.getLogger("microlens")
ORACLE = 160.0
FRACTIONS = np.arange(1, 101) / 100
BLOCK = 64  # events whose outputs at every step are held at once


class Output(NamedTuple):
    """What the network says of n curves: log_p (n, 3) at the end; p_steps (n, K, 3) float16 after each step, or None."""

    log_p: np.ndarray
    p_steps: np.ndarray | None


class Frozen(NamedTuple):
    """What validation rows decide: thresholds of P(binary) and of the alert score, temperature, number of rows."""

    threshold: float
    alert_threshold: float
    temperature: float
    n: int


def predict(classifier, data: PackedDataset, rows, steps=False, progress=True) -> Output:
    """The network's output on rows of a packed dataset, in blocks of bounded memory."""
    log_p, p_steps = np.empty((len(rows), 3), np.float32), None
    if steps:
        p_steps = np.empty((len(rows), len(data.timestamps) // classifier.stem_stride + 1, 3), np.float16)
    with tqdm(total=len(rows), desc="classify", unit="event", disable=not progress) as bar:
        for i in range(0, len(rows), BLOCK):
            part, at = rows[i : i + BLOCK], slice(i, i + BLOCK)
            packed = data.gather(part)
            if steps:
                out = classifier.log_prob_steps(*packed).float().cpu().numpy()
                p_steps[at] = np.exp(np.concatenate([out, np.repeat(out[:, -1:], p_steps.shape[1] - out.shape[1], axis=1)], axis=1))
                log_p[at] = out[:, -1]
            else:
                log_p[at] = classifier.log_prob_packed(*packed).float().cpu().numpy()
            bar.update(len(part))
    return Output(log_p, p_steps)


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


def validation_table(classifier, persistence: int, progress=True) -> pd.DataFrame:
    """Labels, log-probabilities and alert scores of the run's validation rows; kept in the run folder as validation.csv."""
    kept = classifier.run / "validation.csv"
    if kept.is_file():
        table = pd.read_csv(kept, comment="#")
        if int(kept.read_text().splitlines()[0].split()[-1]) == persistence:
            return table
        raise_if_shipped = paths.weights_dir() in kept.parents
        if raise_if_shipped:
            raise ValueError(f"the validation rows shipped with {classifier.run.name} are for another --persistence: "
                             f"{kept.read_text().splitlines()[0].split()[-1]}; use that one.")
    path = Path(classifier.config["data"])
    if not path.exists():
        raise FileNotFoundError(f"{path}: the run's training file is gone; its validation rows are needed for the threshold.")
    data = PackedDataset(path, classifier.view, progress)
    if data.identity != classifier.saved["identity"]:
        raise ValueError(f"{path}: is no longer the file that {classifier.run.name} was trained on.")
    rows = classifier.saved["rows"]["val"].numpy()
    out = predict(classifier, data, rows, classifier.view == "flux", progress)
    table = pd.DataFrame({"label": data.labels[rows], "label_observable": data.labels_observable[rows],
                          **{f"log_p_{c}": out.log_p[:, i] for i, c in enumerate(CLASSES)}})
    if out.p_steps is not None:
        table["alert_score"] = early.alert_scores(out.p_steps[..., 2].astype(np.float32), persistence)
    with atomic(kept) as temporary:
        temporary.write_text(f"# alert_score for persistence {persistence}\n" + table.to_csv(index=False, float_format="%.5g"))
    return table


def frozen(classifier, config: EvaluateConfig, progress=True) -> Frozen:
    """Thresholds and temperature from the run's validation rows; the whole-season network's own for whole curves."""
    whole = classifier.season or classifier
    table = validation_table(whole, config.persistence, progress)
    labels, observable = table["label"].to_numpy(), table["label_observable"].to_numpy()
    log_p, weight = table[[f"log_p_{c}" for c in CLASSES]].to_numpy(), metrics.class_mix(labels)
    learned = labels if whole.config["labels"] == "simulated" else observable
    alert = np.inf
    if classifier.view == "flux":
        streamed = table if whole is classifier else validation_table(classifier, config.persistence, progress)
        is_binary = streamed["label"].to_numpy() == 2
        alert = metrics.threshold_at_purity(is_binary, streamed["alert_score"].to_numpy(),
                                            metrics.class_mix(streamed["label"].to_numpy()), config.purity)
    return Frozen(metrics.threshold_at_purity(labels == 2, np.exp(log_p[:, 2]), weight, config.purity), alert,
                  metrics.temperature(learned, log_p), len(labels))


def export(name: str, folder, persistence: int = 3) -> Path:
    """Copy what is needed to use a run (weights, configuration, log, validation rows) into `folder`, without local paths."""
    classifier, folder = load_run(name), Path(folder)
    validation_table(classifier, persistence)
    folder.mkdir(parents=True, exist_ok=True)
    saved = {**classifier.saved, "config": {**classifier.config, "data": Path(classifier.config["data"]).name, "output": None}}
    saved["rows"] = {k: v.to(torch.int32) for k, v in saved["rows"].items()}
    with atomic(folder / "best.pt") as temporary:
        torch.save(saved, temporary)
    (folder / "config.json").write_text(json.dumps(saved["config"], indent=1, sort_keys=True) + "\n")
    for file in ("log.jsonl", "validation.csv"):
        shutil.copy(classifier.run / file, folder / file)
    return folder


def check_cadence(path, timestamps, classifier):
    known = np.median(np.diff(classifier.saved["timestamps"].numpy()))
    step = np.median(np.diff(timestamps))
    if abs(known / step - 1) > 0.3:
        raise ValueError(f"{path}: an epoch every {step:.4g} d, but {classifier.run.name} was trained on {known:.4g} d; simulate with "
                         "the run's schedule.")


def evaluate(config: EvaluateConfig, progress: bool = True) -> Path:
    """Score a run; returns the folder made. Raises ValueError or FileNotFoundError naming file and cause."""
    classifier = load_run(config.experiment_name, config.checkpoint, "cpu" if config.device == "auto" else config.device,
                          config.whole_season)
    whole = classifier.season or classifier
    home = paths.runs_dir() / classifier.run.name  # also for shipped weights: the package's own folder stays as it is
    stem = Path(config.data or config.light_curves).stem
    folder = Path(config.output or home / f"eval_{stem}_{time.strftime('%Y%m%d_%H%M%S')}")
    figures.use_palette(config.colorblind_safe)
    if config.light_curves is not None:
        return score_light_curves(config, classifier, folder)
    data = PackedDataset(config.data, whole.view, progress)
    check_cadence(config.data, data.timestamps, classifier)
    rows, what = choose_rows(config, data, classifier.saved)
    log.info("scoring %d events: %s", len(rows), what)
    cut = frozen(classifier, config, progress)
    begun = time.perf_counter()
    stream = config.early_detection and classifier.view == "flux"
    out = predict(whole, data, rows, stream and whole is classifier, progress)
    seconds = (time.perf_counter() - begun) / len(rows)
    p_steps = out.p_steps
    if stream and whole is not classifier:
        p_steps = predict(classifier, PackedDataset(config.data), rows, True, progress).p_steps
    with open_dataset(config.data) as d:
        params = d.params.iloc[rows].reset_index(drop=True)
    p = np.exp(out.log_p.astype(float))
    labels, observable = params["label"].to_numpy(), params["label_observable"].to_numpy()
    weight, rng = metrics.class_mix(labels), np.random.default_rng(config.seed)
    page = Page(config, folder, params, labels, observable, weight, p, rng)
    folder.mkdir(parents=True, exist_ok=True)
    scaled = log_softmax(out.log_p.astype(float) / cut.temperature, axis=1)
    summary = {
        "run": classifier.run.name, "answers_whole_curves": f"{whole.view} view", "checkpoint": config.checkpoint,
        "data": str(config.data), "rows": what, "n": len(rows),
        "config": config.to_dict(), "class_mix": metrics.MIX,
        "threshold_from": f"{cut.n} validation rows, purity {config.purity:g}", "seconds_per_event": seconds,
        **page.overall(cut, np.exp(scaled)),
    }
    arrays = {"row": rows, "log_p": out.log_p, "label": labels, "label_observable": observable}
    scores = {"network": p[:, 2]}
    if config.baselines:
        summary["baselines"], made = score_baselines(config, page, rows, progress)
        scores |= made
        arrays |= {f"baseline_{k.replace(' ', '_')}": v for k, v in made.items()}
    scores["oracle"] = np.where(labels == 2, params["delta_chi2_pspl"], 0.0)
    page.draw(cut, scores, np.exp(scaled))
    if p_steps is not None:
        summary["early"], more = page.early(data, rows, classifier.stem_stride, p_steps, cut)
        arrays |= more
    write_predictions(folder / "predictions.h5", arrays,
                      {"data": str(config.data), "run": classifier.run.name, "threshold": cut.threshold,
                       "alert_threshold": cut.alert_threshold, "temperature": cut.temperature, "persistence": config.persistence})
    with atomic(folder / "evaluation_summary.json") as temporary:
        temporary.write_text(json.dumps(summary, indent=1, default=float) + "\n")
    return folder


def score_baselines(config: EvaluateConfig, page: Page, rows, progress):
    """The single-lens fit and gradient boosting on the same curves: {name: scores}, {name: (N,) score}.

    Their thresholds are chosen on the scored events themselves, which favours them.
    """
    data = PackedDataset(config.data, "residual", progress)
    x = np.empty((len(rows), len(baselines.FEATURES)))
    begun = time.perf_counter()
    for i in tqdm(range(0, len(rows), BLOCK), desc="features", unit="block", disable=not progress):
        flux, _, lengths, extra = data.gather(rows[i : i + BLOCK])
        for j, n in enumerate(lengths):
            x[i + j] = baselines.features(np.sinh(extra[j, :n, 0].astype(float)), flux[j, :n].astype(float))
    seconds = (time.perf_counter() - begun) / len(rows)
    scores = {"chi^2 excess": x[:, 0], "largest window": x[:, 1],
              "gradient boosting": baselines.gradient_boosting(x, page.observable, config.seed)}
    scores = {k: v for k, v in scores.items() if np.isfinite(v).all()}
    out = {"threshold_from": "the scored events themselves, which favours these baselines", "seconds_per_event_without_fit": seconds}
    for name, score in scores.items():
        threshold = metrics.threshold_at_purity(page.labels == 2, score, page.weight, config.purity)
        out[name] = {**page.at_threshold(score, threshold),
                     "average_precision_observable": metrics.average_precision(page.observable == 2, score, page.weight)}
    return out, scores


class Page:
    """The scored events of one evaluation, and what is said and drawn of them."""

    def __init__(self, config, folder, params, labels, observable, weight, p, rng):
        self.config, self.folder, self.params, self.rng = config, folder, params, rng
        self.labels, self.observable, self.weight, self.p = labels, observable, weight, p
        self.right = p.argmax(1) == observable

    def interval(self, function):
        return metrics.bootstrap(function, len(self.labels), self.rng, self.config.n_bootstrap)

    def at_threshold(self, score, threshold) -> dict:
        """Completeness, purity and false alarms at a threshold, with bootstrap intervals."""
        def scores(i):
            return metrics.completeness_purity(self.labels[i], self.observable[i], score[i], self.weight[i], threshold)

        out = scores(np.arange(len(self.labels)))
        samples = [scores(self.rng.integers(0, len(self.labels), len(self.labels))) for _ in range(self.config.n_bootstrap)]
        for k in ("completeness_observable", "purity", "false_alarms_pspl"):
            values = np.array([s[k] for s in samples if s[k] is not None], dtype=float)
            out[f"{k}_interval_95"] = np.percentile(values, [2.5, 97.5]).tolist() if len(values) else [None, None]
        return out

    def overall(self, cut: Frozen, p_scaled) -> dict:
        p, config, labels, observable = self.p, self.config, self.labels, self.observable
        binary = observable == 2

        def ece(value):
            return metrics.expected_calibration_error(binary, value, config.calibration_n_bins)

        def average_precision(truth, i=slice(None)):
            return metrics.average_precision(truth[i], p[i, 2], self.weight[i])

        return {
            "simulated_labels": metrics.summary(labels, p, config.calibration_n_bins),
            "observable_labels": metrics.summary(observable, p, config.calibration_n_bins),
            "accuracy_observable_interval_95": self.interval(lambda i: self.right[i].mean()),
            "accuracy_simulated_class_mix": float(np.average(p.argmax(1) == labels, weights=self.weight)),
            "accuracy_simulated_class_mix_oracle": float(np.average(observable == labels, weights=self.weight)),
            "average_precision_binary_simulated": average_precision(labels == 2),
            "average_precision_binary_observable": average_precision(binary),
            "average_precision_binary_observable_interval_95": self.interval(lambda i: average_precision(binary, i)),
            "at_threshold": self.at_threshold(p[:, 2], cut.threshold),
            "oracle": self.at_threshold(np.where(labels == 2, self.params["delta_chi2_pspl"], 0.0), ORACLE),
            "oracle_rule": f"knows the true curve and calls delta chi^2 > {ORACLE:g} binary",
            "temperature": cut.temperature, "ece_p_binary": ece(p[:, 2]), "ece_p_binary_temperature_scaled": ece(p_scaled[:, 2]),
            "temporal_bias": {CLASSES[c]: metrics.temporal_bias(self.params["t_0"][labels == c], self.right[labels == c])
                              for c in (1, 2)},
        }

    def save(self, name, made):
        figures.save(self.folder, name, *made, self.config.formats)

    def draw(self, cut: Frozen, scores: dict, p_scaled):
        """The figures of whole curves."""
        p, labels, observable, params = self.p, self.labels, self.observable, self.params
        self.save("confusion_matrix", figures.confusion_matrix(observable, p))
        if len(np.unique(observable)) > 1:
            self.save("roc_curves", figures.roc_curves(observable, p, self.rng))
        self.save("calibration", figures.calibration(observable == 2, p[:, 2], p_scaled[:, 2], self.config.calibration_n_bins))
        policies = {"simulated": labels, "observable": observable}
        self.save("per_class_metrics", figures.per_class_metrics({k: metrics.summary(v, p) for k, v in policies.items()}))
        if (labels == 2).any() and (labels == 1).any():
            binary = params[labels == 2].reset_index(drop=True)
            hit = p[labels == 2, 2] >= cut.threshold
            self.save("completeness_purity", figures.completeness_purity(labels, observable, scores, self.weight))
            self.save("recall", figures.recall(binary, hit))
            self.save("recall_s_q", figures.recall_s_q(binary, hit))
            t_0, u_0 = params["t_0"].to_numpy(), params["u_0"].to_numpy()
            self.save("u0_dependency", figures.u0_dependency(u_0, labels, self.right))
            self.save("temporal_bias_check", figures.temporal_bias_check(t_0, labels, self.right))
        with open_dataset(self.config.data) as d:
            examples = [c for c in range(3) if (observable == c).any()]
            if len(examples) == 3:
                rows = [int(self.rows_of(observable == c, 1)[0]) for c in examples]
                self.save("example_light_curves", figures.example_light_curves(d.timestamps, d.flux(params.index[rows]), CLASSES))

    def rows_of(self, which, n):
        """At most n positions where `which` (N,) holds, drawn at random."""
        at = np.flatnonzero(which)
        return self.rng.choice(at, min(n, len(at)), replace=False)

    def early(self, data: PackedDataset, rows, stride, p_steps, cut: Frozen):
        """Accuracy against the fraction of the season and alerts: numbers, arrays for predictions.h5, figures."""
        config, labels, observable = self.config, self.labels, self.observable
        p_binary, n_steps = p_steps[..., 2].astype(np.float32), p_steps.shape[1]
        season = data.timestamps[-1] - data.timestamps[0]
        times = np.full((len(rows), n_steps), np.inf)
        times[:, 0] = data.timestamps[0]
        for i, r in enumerate(rows):
            t = data.step_times(r, stride)
            times[i, 1 : len(t) + 1] = t
        accuracy, recall = np.empty(len(FRACTIONS)), np.full((len(FRACTIONS), 3), np.nan)
        for k, fraction in enumerate(FRACTIONS):
            step = (times <= data.timestamps[0] + fraction * season + 1e-9).sum(axis=1) - 1
            truth = data.prefix_labels(rows, (step * stride)[:, None])[:, 0]
            called = p_steps[np.arange(len(rows)), step].argmax(1)
            accuracy[k] = (called == truth).mean()
            for c in range(3):
                recall[k, c] = (called[truth == c] == c).mean() if (truth == c).any() else np.nan
        self.save("early_detection_curve", figures.early_detection_curve(FRACTIONS, accuracy, recall, len(rows)))
        step = early.alert_steps(p_binary, cut.alert_threshold, config.persistence)
        t_alert = np.where(step >= 0, times[np.arange(len(rows)), step], np.nan)
        t_observable, chi2 = self.params["t_observable_pspl"].to_numpy(), np.full(len(rows), np.nan)
        unclear = np.flatnonzero((labels == 2) & np.isfinite(t_alert) & ~(t_alert >= t_observable))
        with open_dataset(config.data) as d:
            chi2[unclear] = early.alert_delta_chi2((true_curve(d, int(rows[i])) for i in unclear), t_alert[unclear])
        report = early.report(labels, observable, t_alert, t_observable, np.where(np.isnan(chi2), np.inf, chi2), self.weight, season)
        grid = data.timestamps[0] + FRACTIONS * season
        purity, completeness = early.against_time(grid, labels, observable, t_alert, self.weight)
        delay = (t_alert - t_observable)[(observable == 2) & np.isfinite(t_alert)]
        self.save("alerts", figures.alerts(grid, purity, completeness, delay, report))
        self.draw_events(data, rows, times, p_steps, t_observable)
        marked = [round(100 * f) - 1 for f in figures.early.MARKED]
        return ({"accuracy_at_fraction": {f"{FRACTIONS[k]:.1f}": accuracy[k] for k in marked}, "alert_threshold": cut.alert_threshold,
                 "persistence_steps": config.persistence, "alerts": report},
                {"p_binary_steps": p_steps[..., 2], "t_alert": t_alert, "delta_chi2_at_alert": chi2})

    def draw_events(self, data, rows, times, p_steps, t_observable):
        for c, name in enumerate(CLASSES):
            for i in self.rows_of(self.observable == c, self.config.n_evolution_per_type):
                flux, delta_t, lengths, _ = data.gather(rows[i : i + 1])
                valid, n = np.isfinite(times[i]), int(lengths[0])
                t = data.timestamps[0] + np.cumsum(delta_t[0, :n], dtype=float)
                self.save(f"evolution_{name}_{rows[i]}", figures.evolution(
                    t, flux[0, :n], times[i][valid], p_steps[i][valid].astype(float), truth=name,
                    t_observable=t_observable[i] if c == 2 else np.nan))


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
            "quiet_called_anything": _share((quiet["class"] != "flat").to_numpy())}
        print(f"\n{name}: {len(part)} seasons (rows: truth, columns: called)\n{counts.to_string()}")
    if mistakes:
        figures.save(folder, "real_light_curves", *figures.real_light_curves(mistakes, "seasons called wrongly"), config.formats)
        for i in range(12, len(mistakes), 12):
            figures.save(folder, f"real_light_curves_{i // 12 + 1}",
                         *figures.real_light_curves(mistakes[i:], "seasons called wrongly, continued"), config.formats)
    with atomic(folder / "evaluation_summary.json") as temporary:
        temporary.write_text(json.dumps(summary, indent=1) + "\n")
    return folder


def _share(hit) -> dict:
    low, high = metrics.binomial_interval(int(hit.sum()), len(hit), 0.95)
    return {"value": float(hit.mean()) if len(hit) else None, "interval_95": [float(low), float(high)], "n": len(hit)}
