"""The scored events of one evaluation, and what is said and drawn of them."""

from __future__ import annotations

import time

import numpy as np

from microlens import figures
from microlens.config import CLASSES, EvaluateConfig
from microlens.data.format import open_dataset
from microlens.data.packed import PackedDataset
from microlens.evaluate import alerts, baselines, metrics
from microlens.evaluate.thresholds import Frozen
from microlens.network.predict import FRACTIONS, Steps, step_times

ORACLE = 160.0


class Page:
    """labels, observable : (N,) classes simulated and observable; p : (N, 3); weight : (N,) class mix; params : true parameters."""

    def __init__(self, config: EvaluateConfig, folder, rows, params, p):
        self.config, self.folder, self.rows, self.params, self.p = config, folder, rows, params, p
        self.labels, self.observable = params["label"].to_numpy(), params["label_observable"].to_numpy()
        self.weight, self.rng = metrics.class_mix(self.labels), np.random.default_rng(config.seed)
        self.right = p.argmax(1) == self.observable

    def interval(self, function):
        return metrics.bootstrap(function, len(self.labels), self.rng, self.config.n_bootstrap)

    def at_threshold(self, score, threshold) -> dict:
        """Completeness, purity and false alarms at a threshold, with bootstrap intervals."""
        def scores(i):
            return metrics.completeness_purity(self.labels[i], self.observable[i], score[i], self.weight[i], threshold)

        out = scores(np.arange(len(self.labels)))
        samples = [scores(self.rng.integers(0, len(self.labels), len(self.labels))) for _ in range(self.config.n_bootstrap)]
        for k in ("completeness_observable", "purity", "purity_observable", "false_alarms_flat", "false_alarms_pspl"):
            values = np.array([s[k] for s in samples if s[k] is not None], dtype=float)
            out[f"{k}_interval_95"] = np.percentile(values, [2.5, 97.5]).tolist() if len(values) else [None, None]
        return out

    def _average_precision(self, score) -> dict:
        """Of binaries by both labels, with intervals; at the class mix."""
        out = {}
        for name, truth in (("simulated", self.labels == 2), ("observable", self.observable == 2)):
            value = lambda i, truth=truth: metrics.average_precision(truth[i], score[i], self.weight[i])  # noqa: E731
            out[f"average_precision_binary_{name}"] = value(slice(None))
            out[f"average_precision_binary_{name}_interval_95"] = self.interval(value)
        return out

    def overall(self, cut: Frozen, p_scaled) -> dict:
        p, config, labels, observable = self.p, self.config, self.labels, self.observable

        def calibration(value):
            seen = observable == 2
            return {"ece": metrics.expected_calibration_error(seen, value, config.calibration_n_bins),
                    "ece_interval_95": self.interval(
                        lambda i: metrics.expected_calibration_error(seen[i], value[i], config.calibration_n_bins)),
                    "brier": metrics.brier(seen, value)}

        called = p.argmax(1)
        return {
            "simulated_labels": metrics.summary(labels, p, config.calibration_n_bins),
            "observable_labels": metrics.summary(observable, p, config.calibration_n_bins),
            "accuracy_observable_interval_95": self.interval(lambda i: self.right[i].mean()),
            "accuracy_simulated_interval_95": self.interval(lambda i: (called[i] == labels[i]).mean()),
            "accuracy_simulated_class_mix": float(np.average(called == labels, weights=self.weight)),
            "accuracy_simulated_class_mix_oracle": float(np.average(observable == labels, weights=self.weight)),
            "f1_macro_observable_interval_95": self.interval(lambda i: metrics.f1_macro(observable[i], called[i])),
            "auroc_macro_observable_interval_95": self.interval(lambda i: metrics.auroc_macro(observable[i], p[i])),
            **self._average_precision(p[:, 2]),
            "at_threshold": self.at_threshold(p[:, 2], cut.threshold),
            "most_probable_class": self.at_threshold((called == 2).astype(float), 0.5),
            "oracle": self.at_threshold(np.where(labels == 2, self.params["delta_chi2_pspl"], 0.0), ORACLE),
            "oracle_rule": f"knows the true curve and calls delta chi^2 > {ORACLE:g} binary",
            "temperature": cut.temperature, "p_binary": calibration(p[:, 2]),
            "p_binary_temperature_scaled": calibration(p_scaled[:, 2]),
            "temporal_bias": {CLASSES[c]: metrics.temporal_bias(self.params["t_0"][labels == c], self.right[labels == c])
                              for c in (1, 2)},
        }

    def baselines(self, cut: Frozen, progress=True):
        """The single-lens fit and gradient boosting on the same curves: {name: scores}, {name: (N,) score}."""
        with open_dataset(self.config.data) as data:
            x, seen, seconds = baselines.table(data, self.rows, progress)
        found, cost = baselines.fixed_scores(x), dict.fromkeys(("chi^2 excess", "largest window"), seconds["fit"])
        if cut.boosting is not None:
            begun = time.perf_counter()
            found["gradient boosting"] = cut.boosting.predict_proba(x)[:, 1]
            cost["gradient boosting"] = sum(seconds.values()) + (time.perf_counter() - begun) / len(x)
        out = {"threshold_from": f"{cut.source}; gradient boosting is fitted on them, its threshold by cross-validation there"}
        for name, score in found.items():
            out[name] = {**self.at_threshold(score, cut.baselines[name]), **self._average_precision(score),
                         "seconds_per_event": cost[name]}
        with_guards = baselines.guarded(self.p, *seen.T)
        out["literature's thresholds"] = {**self.at_threshold(seen[:, 1].astype(float), 0.5), "seconds_per_event": seconds["fit"],
                                          "rule": "an event (delta chi^2 > 500) with a window of chi^2 excess > 160 and three "
                                                  "residuals in a row beyond 3 sigma; nothing chosen here"}
        out["network with the guards of classify"] = {**self.at_threshold((with_guards.argmax(1) == 2).astype(float), 0.5),
                                                      "accuracy_observable": float((with_guards.argmax(1) == self.observable).mean())}
        return out, found, {"seen_event": seen[:, 0], "seen_anomaly": seen[:, 1]}

    def save(self, name, made):
        if self.config.draw:
            figures.save(self.folder, name, *made, self.config.formats)

    def draw(self, cut: Frozen, scores: dict, p_scaled):
        """The figures of whole curves. scores : {name: (N,)} of every classifier."""
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
        examples = [self.some(observable == c, 1) for c in range(3)]
        if all(len(e) for e in examples):
            with open_dataset(self.config.data) as d:
                rows = [self.rows[e[0]] for e in examples]
                self.save("example_light_curves", figures.example_light_curves(d.timestamps, d.flux(rows), CLASSES))

    def some(self, which, n):
        """At most n positions where `which` (N,) holds, drawn at random."""
        at = np.flatnonzero(which)
        return self.rng.choice(at, min(n, len(at)), replace=False)

    def early(self, classifier, data: PackedDataset, steps: Steps, cut: Frozen):
        """Accuracy against the fraction of the season and alerts: numbers, arrays for predictions.h5, figures."""
        config, labels, observable, rows, stride = self.config, self.labels, self.observable, self.rows, classifier.stem_stride
        accuracy = self._against_fraction(data, steps, stride)
        with open_dataset(config.data) as d:
            t_premature = alerts.moments(d, rows)
        t_observable = self.params["t_observable_pspl"].to_numpy()
        season, about = data.timestamps[-1] - data.timestamps[0], (t_observable, t_premature, self.weight)
        step = alerts.alert_steps(steps.p_binary, cut.alert_threshold, config.persistence)
        t_alert = np.array([step_times(data, r, stride)[k] if k >= 0 else np.nan for r, k in zip(rows, step, strict=True)])
        report = alerts.report(labels, observable, t_alert, *about, season)
        out = {"accuracy_at_fraction": accuracy, "persistence_steps": config.persistence,
               "alerts": {"threshold": cut.alert_threshold, **report}}
        grid = data.timestamps[0] + FRACTIONS * season
        self.save("alerts", figures.alerts(grid, *alerts.against_time(grid, labels, observable, t_alert, self.weight),
                                           (t_alert - t_observable)[observable == 2], report))
        times = lambda i: step_times(data, rows[i], stride)  # noqa: E731
        curve = alerts.tradeoff(labels, observable, steps.p_binary, times, *about)
        self.save("alert_tradeoff", figures.alert_tradeoff(curve, config.persistence, cut.alert_threshold, len(rows)))
        if config.draw:
            self._draw_events(classifier, data, t_observable)
        return out, {"p_binary_steps": steps.p_binary, "called_at_fraction": steps.called,
                     "t_alert": t_alert, "t_premature": t_premature, "t_observable": t_observable}

    def _against_fraction(self, data, steps: Steps, stride) -> dict:
        truth = data.prefix_labels(self.rows, steps.step * stride)
        right, n = steps.called == truth, len(truth)
        accuracy = right.mean(axis=0)
        low, high = metrics.binomial_interval(right.sum(axis=0), n, 0.95)
        recall = np.array([[right[truth[:, k] == c, k].mean() if (truth[:, k] == c).any() else np.nan for c in range(3)]
                           for k in range(truth.shape[1])])
        self.save("early_detection_curve", figures.early_detection_curve(FRACTIONS, accuracy, low, high, recall, n))
        marked = [round(100 * f) - 1 for f in figures.early.MARKED]
        return {f"{FRACTIONS[k]:.1f}": {"value": accuracy[k], "interval_95": [low[k], high[k]], "n": n,
                                        **{f"recall_{c}": recall[k, i] for i, c in enumerate(CLASSES)}} for k in marked}

    def _draw_events(self, classifier, data, t_observable):
        for c, name in enumerate(CLASSES):
            for i in self.some(self.observable == c, self.config.n_evolution_per_type):
                row, packed = self.rows[i], data.gather(self.rows[i : i + 1])
                flux, delta_t, lengths, _ = packed
                times, n = step_times(data, row, classifier.stem_stride), int(lengths[0])
                t = data.timestamps[0] + np.cumsum(delta_t[0, :n], dtype=float)
                p = np.exp(classifier.log_prob_steps(*packed)[0, : len(times)].float().cpu().numpy())
                self.save(f"evolution_{name}_{row}", figures.evolution(t, flux[0, :n], times, p, truth=name,
                                                                      t_observable=t_observable[i] if c == 2 else np.nan))
