"""The numbers of one evaluation: scores of whole curves, of the baselines beside them, and of alerts."""

from __future__ import annotations

import time

import numpy as np

from microlens.config import (
    BINARY,
    CLASSES,
    FLAT,
    LENSING_CLASSES,
    PERSISTENCE,
    PSPL,
    SUBCLASSES,
    THRESHOLD_FLAT,
    THRESHOLD_PSPL,
    EvaluateConfig,
)
from microlens.data.packed import PackedDataset, class_mix, residual_features
from microlens.evaluate import alerts, baselines, metrics
from microlens.evaluate.thresholds import Thresholds
from microlens.network.predict import FRACTIONS, Steps, alert_times

SEED = 0  # of the bootstrap and of the choice of examples
MARKED = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0)  # fractions of the season that the thesis reported


def scores_of_other(params, p, threshold: float, t_alert=None) -> dict:
    """What a network makes of events of class other, all together and by sub-class.

    params : their true parameters, n rows.   p : (n, 3 or 4) probabilities.
    threshold : of P(binary) after whole curves.
    t_alert : (n,) days of alerts, NaN = none; None where no alerts are scored.
    Each binary called and each alert is a false alarm. `observable` is the share that differs from a constant by more
    than THRESHOLD_FLAT. Shares come with 95 % Clopper-Pearson intervals.
    """
    observable, called = params["label_observable"].to_numpy() != FLAT, p.argmax(1)

    def shares(among) -> dict:
        n = int(among.sum())
        kinds = {kind: float((called[among] == c).mean()) for c, kind in enumerate(CLASSES[: p.shape[1]])}
        out = {"n": n, "observable": metrics.share(observable[among].sum(), n), "most_probable_class": kinds,
               "false_alarms": metrics.share((p[among, BINARY] >= threshold).sum(), n)}
        if t_alert is not None:
            out["false_alerts"] = metrics.share(np.isfinite(t_alert[among]).sum(), n)
        return out

    subclass = params["subclass"].to_numpy()
    return {**shares(np.ones(len(p), dtype=bool)),
            "by_subclass": {name: shares(subclass == name) for name in SUBCLASSES if (subclass == name).any()}}


class Scores:
    """The scored events of one evaluation, and what is said of them.

    rows : (N,) of the dataset.   params : their true parameters.   p : (N, 3) probabilities.   weight : (N,) class mix.
    """

    def __init__(self, config: EvaluateConfig, rows, params, p):
        self.config, self.rows, self.params, self.p = config, rows, params, p
        self.labels, self.observable = params["label"].to_numpy(), params["label_observable"].to_numpy()
        self.weight, self.rng = class_mix(self.labels), np.random.default_rng(SEED)
        self.called = p.argmax(1)

    def shares_of_class(self, called) -> dict:
        """The share of each simulated class, by name, for which called (N,) bool is true, with its interval."""
        return {name: metrics.share(called[self.labels == c].sum(), int((self.labels == c).sum()))
                for c, name in enumerate(LENSING_CLASSES) if (self.labels == c).any()}

    def interval(self, score, n_independent) -> list[float]:
        """95 % bootstrap interval of score(counts), see metrics.bootstrap."""
        return metrics.bootstrap(score, len(self.labels), self.rng, n_independent)

    def at_threshold(self, score, threshold) -> dict:
        """Completeness, purity and false alarms of a score (N,) at a threshold, with intervals."""
        out = metrics.completeness_purity(self.labels, self.observable, score, self.weight, threshold)
        called, seen = score >= threshold, self.observable == BINARY
        counted = {"completeness_observable": seen, "false_alarms_flat": self.labels == FLAT,
                   "false_alarms_pspl": self.labels == PSPL}
        for name, among in counted.items():
            out[f"{name}_interval_95"] = metrics.share(called[among].sum(), among.sum())["interval_95"]
        n_called = metrics.effective_number(self.weight[called])
        for name, right in (("purity", self.labels == BINARY), ("purity_observable", seen)):
            out[f"{name}_interval_95"] = self.interval(
                lambda counts, right=right: metrics.purity(right, called, self.weight * counts), n_called)
        return out

    def _average_precision(self, score) -> dict:
        """Average precision of binaries by both labels, with intervals; at the class mix."""
        out = {}
        for name, truth in (("simulated", self.labels == BINARY), ("observable", self.observable == BINARY)):
            def value(counts, truth=truth):
                return metrics.average_precision(truth, score, self.weight * counts)

            key, rarer = f"average_precision_binary_{name}", min(truth.sum(), (~truth).sum())
            out |= {key: value(1), f"{key}_interval_95": self.interval(value, rarer)}
        return out

    def _calibration(self, p_binary) -> dict:
        seen = self.observable == BINARY

        def ece(counts=None):
            return metrics.expected_calibration_error(seen, p_binary, self.config.calibration_n_bins, counts)

        return {"ece": ece(), "ece_interval_95": self.interval(ece, len(seen)),
                "brier": float(((p_binary - seen) ** 2).mean())}

    def _called_classes(self) -> dict:
        """Scores of the most probable class against both labels, with intervals."""
        labels, observable, called, n = self.labels, self.observable, self.called, len(self.labels)
        rarest = np.bincount(observable, minlength=len(LENSING_CLASSES)).min()
        p = self.p / self.p.sum(axis=1, keepdims=True)
        return {
            "simulated_labels": metrics.summary(labels, self.p, self.config.calibration_n_bins),
            "observable_labels": metrics.summary(observable, self.p, self.config.calibration_n_bins),
            "accuracy_observable_interval_95": metrics.share((called == observable).sum(), n)["interval_95"],
            "accuracy_simulated_interval_95": metrics.share((called == labels).sum(), n)["interval_95"],
            "accuracy_simulated_class_mix": metrics.share_of(called == labels, self.weight),
            "accuracy_simulated_class_mix_oracle": metrics.share_of(observable == labels, self.weight),
            "f1_macro_observable_interval_95":
                self.interval(lambda counts: metrics.f1_macro(observable, called, counts), rarest),
            "auroc_macro_observable_interval_95":
                self.interval(lambda counts: metrics.auroc(observable, p, counts), rarest),
        }

    def whole_curves(self, thresholds: Thresholds, p_scaled) -> dict:
        """Scores of the answers after whole curves. p_scaled : (N, 3) probabilities after temperature scaling."""
        p_binary, delta_chi2 = self.p[:, BINARY], self.params["delta_chi2_pspl"].to_numpy()
        right, t_0 = self.called == self.observable, self.params["t_0"].to_numpy()
        return {
            **self._called_classes(), **self._average_precision(p_binary),
            "at_threshold": self.at_threshold(p_binary, thresholds.whole_curve),
            "most_probable_class": self.at_threshold((self.called == BINARY).astype(float), 0.5),
            "oracle": self.at_threshold(np.where(self.labels == BINARY, delta_chi2, 0.0), THRESHOLD_PSPL),
            "temperature": thresholds.temperature, "p_binary": self._calibration(p_binary),
            "p_binary_temperature_scaled": self._calibration(p_scaled[:, BINARY]),
            "temporal_bias": {LENSING_CLASSES[c]: metrics.temporal_bias(t_0[self.labels == c], right[self.labels == c])
                              for c in (PSPL, BINARY)},
        }

    def baselines(self, thresholds: Thresholds, progress=True):
        """The single-lens fit and gradient boosting on the same curves.

        Returns their scores for the summary, {name: (N,) score}, and what the literature's thresholds see, (N, 2) bool.
        """
        begun = time.perf_counter()
        x, seen = residual_features(self.config.data, self.rows, progress)
        fit_seconds = (time.perf_counter() - begun) / len(x)
        found, cost = baselines.fixed_scores(x), dict.fromkeys(("chi^2 excess", "largest window"), fit_seconds)
        if thresholds.boosting is not None:
            begun = time.perf_counter()
            found["gradient boosting"] = thresholds.boosting.predict_proba(x)[:, 1]
            cost["gradient boosting"] = fit_seconds + (time.perf_counter() - begun) / len(x)
        out = {"threshold_from": f"{thresholds.source}; gradient boosting is fitted on them, its threshold by "
                                 "cross-validation there"}
        for name, score in found.items():
            out[name] = {**self.at_threshold(score, thresholds.baselines[name]), **self._average_precision(score),
                         "seconds_per_event": cost[name]}
        rule = (f"an event (delta chi^2 > {THRESHOLD_FLAT:g}) with a window of chi^2 excess > {THRESHOLD_PSPL:g} and "
                "three residuals in a row beyond 3 sigma; nothing chosen here")
        out["literature's thresholds"] = {**self.at_threshold(seen[:, 1].astype(float), 0.5),
                                          "seconds_per_event": fit_seconds, "rule": rule}
        guarded = baselines.guarded(self.p, *seen.T).argmax(1)
        out["network with the guards of classify"] = {
            **self.at_threshold((guarded == BINARY).astype(float), 0.5),
            "accuracy_observable": metrics.share_of(guarded == self.observable)}
        return out, found, seen

    def early(self, data: PackedDataset, steps: Steps, stride: int, threshold: float):
        """Accuracy against the fraction of the season, and alerts: numbers for the summary, arrays for predictions."""
        accuracy, by_fraction = self._against_fraction(data, steps, stride)
        t_observable, t_premature = (self.params[name].to_numpy() for name in ("t_observable_pspl", "t_premature"))
        t_alert = alert_times(data, self.rows, steps.p_binary, threshold, stride)
        report = alerts.report(self.labels, self.observable, t_alert, t_observable, t_premature, self.weight)
        numbers = {"accuracy_at_fraction": accuracy, "persistence_steps": PERSISTENCE,
                   "alerts": {"threshold": threshold, **report}}
        arrays = {"p_binary_steps": steps.p_binary, "called_at_fraction": steps.called, "t_alert": t_alert}
        return numbers, arrays | by_fraction

    def _against_fraction(self, data, steps: Steps, stride):
        """Accuracy and recall at MARKED fractions of the season for the summary, and at all FRACTIONS as arrays."""
        truth = data.prefix_labels(self.rows, steps.step * stride)
        right, n = steps.called == truth, len(truth)
        accuracy = right.mean(axis=0)
        low, high = metrics.binomial_interval(right.sum(axis=0), n)
        recall = np.array([[metrics.share_of(right[truth[:, k] == c, k]) for c in range(len(LENSING_CLASSES))]
                           for k in range(len(FRACTIONS))])
        marked = [round(len(FRACTIONS) * f) - 1 for f in MARKED]
        numbers = {f"{FRACTIONS[k]:.1f}": {"value": accuracy[k], "interval_95": [low[k], high[k]], "n": n,
                                           **{f"recall_{c}": recall[k, i] for i, c in enumerate(LENSING_CLASSES)}}
                   for k in marked}
        return numbers, {"fraction": FRACTIONS, "fraction_accuracy": np.column_stack([accuracy, low, high]),
                         "fraction_recall": recall}

    def examples(self, n: int) -> list[int]:
        """Positions of at most n events of each observable class, drawn at random."""
        rng = np.random.default_rng(SEED)
        of_class = [np.flatnonzero(self.observable == c) for c in range(len(LENSING_CLASSES))]
        return [int(i) for at in of_class for i in rng.choice(at, min(n, len(at)), replace=False)]
