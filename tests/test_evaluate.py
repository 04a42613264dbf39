"""Scores recomputed from predictions.h5 by other code, alerts on hand-made streams, baselines, light-curve folders."""

import json
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as skm

from microlens import baselines, early, metrics, paths
from microlens.config import EvaluateConfig, SimulateConfig
from microlens.data.format import open_dataset, read_predictions
from microlens.data.packed import PackedDataset, residual_view
from microlens.data.simulation import simulate, true_curve
from microlens.evaluate import evaluate, export
from microlens.fit import fit_single_lens
from microlens.lens import pspl
from microlens.sky.noise import sigma_flux

FOREIGN = Path(os.environ.get("MICROLENS_LIGHT_CURVES", Path(__file__).parents[2] / "shared" / "light_curves"))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    place = tmp_path_factory.mktemp("evaluate")
    os.environ["MICROLENS_DATA"], os.environ["MICROLENS_RUNS"] = str(place / "data"), str(place / "runs")
    data = simulate(SimulateConfig(n_flat=60, n_pspl=30, n_binary=30, seed=8, split="test", output=str(place / "t.h5"), num_workers=1),
                    progress=False)
    folder = evaluate(EvaluateConfig(data=str(data), n_bootstrap=20, n_evolution_per_type=1, save_formats="png,svg"), progress=False)
    yield data, folder
    del os.environ["MICROLENS_DATA"], os.environ["MICROLENS_RUNS"]


@pytest.mark.parametrize("early_detection", [True, False])
def test_batch_size_is_that_of_the_forward_passes_and_changes_no_answer(made, early_detection, tmp_path, monkeypatch):
    sizes, gather = [], PackedDataset.gather
    monkeypatch.setattr(PackedDataset, "gather", lambda self, rows: sizes.append(len(rows)) or gather(self, rows))
    folder = evaluate(EvaluateConfig(data=str(made[0]), batch_size=50, early_detection=early_detection, baselines=False, draw=False,
                                     n_bootstrap=20, output=str(tmp_path)), progress=False)
    assert sizes[:3] == [50, 50, 20]
    log_p = [read_predictions(f / "predictions.h5")[0]["log_p"] for f in (folder, made[1])]
    assert log_p[0] == pytest.approx(log_p[1], abs=1e-5)


def test_every_headline_score_follows_from_predictions(made):
    """Truth: scikit-learn and a few lines of numpy on predictions.h5 alone."""
    data, folder = made
    summary = json.loads((folder / "evaluation_summary.json").read_text())
    a, attrs = read_predictions(folder / "predictions.h5")
    p, seen, binary = np.exp(a["log_p"].astype(float)), a["label_observable"] == 2, a["label"] == 2
    with open_dataset(data) as d:
        assert np.array_equal(a["label"], d.labels[a["row"]]) and np.array_equal(a["label_observable"], d.labels_observable[a["row"]])
        chi2 = np.where(binary, d.delta_chi2_pspl[a["row"]], 0)
    weight = np.select([a["label"] == 0, a["label"] == 1], [0.5 / 60, 0.25 / 30], 0.25 / 30)

    def check(scores, score, threshold):
        called = score >= threshold
        assert scores["completeness_observable"] == pytest.approx(skm.recall_score(seen, called & seen))
        assert scores["purity"] == pytest.approx(skm.precision_score(binary, called, sample_weight=weight))
        assert scores["purity_observable"] == pytest.approx(skm.precision_score(seen, called, sample_weight=weight))
        assert scores["false_alarms_pspl"] == pytest.approx(called[a["label"] == 1].mean())
        assert scores["false_alarms_flat"] == pytest.approx(called[a["label"] == 0].mean())
        low, high = scores["purity_interval_95"]
        assert low <= scores["purity"] <= high

    check(summary["at_threshold"], p[:, 2], attrs["threshold"])
    check(summary["oracle"], chi2, 160)
    for name in ("chi^2 excess", "largest window", "gradient boosting"):
        score = a[f"baseline_{name.replace(' ', '_')}"]
        check(summary["baselines"][name], score, attrs[f"threshold_{name.replace(' ', '_')}"])
        for kind, truth in (("observable", seen), ("simulated", binary)):
            assert summary["baselines"][name][f"average_precision_binary_{kind}"] == pytest.approx(
                skm.average_precision_score(truth, score, sample_weight=weight))
    called = p.argmax(1)
    for kind in ("simulated", "observable"):
        labels, scores = a["label" if kind == "simulated" else "label_observable"], summary[f"{kind}_labels"]
        assert scores["accuracy"] == pytest.approx(skm.accuracy_score(labels, called))
        for average in ("macro", "weighted"):
            wanted = skm.precision_recall_fscore_support(labels, called, average=average, zero_division=0)[:3]
            assert [scores[f"{m}_{average}"] for m in ("precision", "recall", "f1")] == pytest.approx(wanted)
            normed = p / p.sum(axis=1, keepdims=True)
            assert scores[f"auroc_{average}"] == pytest.approx(skm.roc_auc_score(labels, normed, multi_class="ovr", average=average))
        assert scores["brier"] == pytest.approx(np.mean([skm.brier_score_loss(labels == c, p[:, c]) for c in range(3)]) * 3, rel=1e-5)
        assert scores["confusion"] == skm.confusion_matrix(labels, called).tolist()
        assert summary[f"average_precision_binary_{kind}"] == pytest.approx(
            skm.average_precision_score(labels == 2, p[:, 2], sample_weight=weight))
    bins = np.minimum((p[:, 2] * 15).astype(int), 14)
    ece = sum(abs(seen[bins == b].mean() - p[bins == b, 2].mean()) * (bins == b).mean() for b in np.unique(bins))
    assert summary["p_binary"]["ece"] == pytest.approx(ece)
    assert summary["p_binary"]["brier"] == pytest.approx(skm.brier_score_loss(seen, p[:, 2]))


def test_alerts_follow_from_predictions(made):
    _, folder = made
    alerts = json.loads((folder / "evaluation_summary.json").read_text())["early"]["alerts"]
    a, attrs = read_predictions(folder / "predictions.h5")
    k = attrs["persistence"]
    above = a["p_binary_steps"].astype(np.float32) >= np.float32(attrs["alert_threshold"])
    raised = np.all([above[:, i : above.shape[1] - k + 1 + i] for i in range(k)], axis=0).any(axis=1)
    assert alerts["n_alerts"] == raised.sum() == np.isfinite(a["t_alert"]).sum()
    binary, seen = raised & (a["label"] == 2), a["label_observable"] == 2
    assert alerts["premature_of_binary_alerts"]["value"] == pytest.approx((~(a["t_alert"] >= a["t_premature"]))[binary].mean())
    assert alerts["within_1_day"]["value"] == pytest.approx((a["t_alert"] <= a["t_observable"] + 1)[seen].mean())
    assert (a["t_premature"] <= a["t_observable"] + 1e-9)[seen].all()  # delta chi^2 passes 40 before 160


def test_thresholds_come_from_the_shipped_validation_rows(made):
    """Truth: the condition itself, tried on validation.csv at the threshold and at the next lower score."""
    _, attrs = read_predictions(made[1] / "predictions.h5")
    config, folder = EvaluateConfig(data="x"), paths.weights_dir() / "baseline"

    def rates(t, score, cut):
        weight, called = metrics.class_mix(t["label"].to_numpy()), (score >= cut).to_numpy()
        return weight[called & (t["label"] == 2)].sum() / weight[called].sum(), called[t["label"] == 1].mean()

    t = pd.read_csv(folder / "validation.csv", comment="#")
    p = np.exp(t["log_p_binary"])
    purity, false = rates(t, p, attrs["threshold"] * (1 - 1e-9))
    assert purity >= config.purity and false <= config.false_alarms
    purity, false = rates(t, p, p[p < attrs["threshold"] * (1 - 1e-9)].max())
    assert purity < config.purity or false > config.false_alarms
    t = pd.read_csv(folder / "validation.csv", comment="#")
    score, too_early, cut = t["alert_score_2"], t["premature_score_2"], attrs["alert_threshold"]
    purity, _ = rates(t, score, cut)
    on_binary = ((score >= cut) & (t["label"] == 2)).sum()
    assert purity >= config.purity and (too_early >= cut).sum() <= config.premature * on_binary
    lower = score[score < cut].max()
    on_binary = ((score >= lower) & (t["label"] == 2)).sum()
    assert rates(t, score, lower)[0] < config.purity or (too_early >= lower).sum() > config.premature * on_binary


def test_an_exported_run_needs_no_training_file(made):
    """Weights copied with a validation file answer with thresholds from that file, and say so."""
    data, _ = made
    folder = export("baseline", paths.runs_dir() / "copied", validation=data)
    assert {"best.pt", "config.json", "log.jsonl", "validation.csv"} <= {x.name for x in folder.iterdir()}
    out = evaluate(EvaluateConfig(experiment_name="copied", data=str(data), n_bootstrap=10, n_evolution_per_type=0, max_events=40,
                                  colorblind_safe=False, save_formats="pdf"), progress=False)
    summary = json.loads((out / "evaluation_summary.json").read_text())
    assert summary["threshold_from"].startswith("120 events of t.h5 (split test, seed 8)") and summary["n"] == 40
    assert (out / "recall.pdf").exists() and not (out / "recall.png").exists()


def _with(path, kind):
    """A damaged copy of a dataset."""
    if kind == "cut short":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    elif kind == "empty":
        path.write_bytes(b"")
    else:
        with h5py.File(path, "a") as f:
            if kind == "other version":
                f.attrs["format_version"] = 99
            elif kind == "other cadence":
                f["timestamps"][:] = 3 * f["timestamps"][:]
            else:
                del f["labels"]
    return path


@pytest.mark.parametrize("kind, words", [("cut short", "truncated"), ("empty", "HDF5"), ("other version", "version 99"),
                                         ("other cadence", "trained on"), ("incomplete", "labels is missing")])
def test_unusable_data_is_one_clear_error(made, tmp_path, kind, words):
    path = tmp_path / "bad.h5"
    shutil.copy(made[0], path)
    with pytest.raises(ValueError, match=words) as caught:
        evaluate(EvaluateConfig(data=str(_with(path, kind)), output=str(tmp_path / "out")), progress=False)
    assert "bad.h5" in str(caught.value) and "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_every_figure_is_there(made):
    names = {x.name for x in made[1].iterdir()}
    wanted = ("confusion_matrix", "roc_curves", "calibration", "u0_dependency", "temporal_bias_check", "early_detection_curve",
              "example_light_curves", "per_class_metrics", "completeness_purity", "recall", "recall_s_q", "alerts", "alert_tradeoff")
    assert {f"{n}.{e}" for n in wanted for e in ("png", "svg", "csv")} <= names
    assert sum(n.startswith("evolution_") and n.endswith(".png") for n in names) == 3


def test_true_curve_is_the_one_that_was_simulated(made):
    with open_dataset(made[0]) as d:
        for row in np.flatnonzero(d.labels == 2)[:5]:
            t, flux, sigma = true_curve(d, int(row))
            pull = (d.flux(int(row))[d.flux(int(row)) != 0] - flux) / sigma
            assert abs(pull.mean()) < 4 / np.sqrt(len(t)) and abs(pull.std() - 1) < 4 / np.sqrt(2 * len(t))


def test_alert_needs_persistence_and_a_premature_one_is_counted():
    score = np.array([[0, 0.9, 0, 0.9, 0.9, 0.9], [0, 0.9, 0.9, 0, 0, 0], [0.9, 0.9, 0.9, 0, 0, 0]])
    assert early.alert_steps(score, 0.5, 3).tolist() == [5, -1, 2]
    assert early.alert_scores(score, 3) == pytest.approx([0.9, 0, 0.9], abs=1e-6)
    assert early.alert_scores(score, 3, np.array([5, 6, 3])) == pytest.approx([0, 0, 0.9], abs=1e-6)
    labels = np.array([2, 2, 0, 1])
    report = early.report(labels, labels, np.array([12.0, 5.0, np.nan, 3.0]), np.array([10.0, 9.0, np.nan, np.nan]),
                          np.array([9.0, 8.0, np.nan, np.nan]), np.ones(4), 72.0)
    assert report["purity"] == pytest.approx(2 / 3) and report["premature_of_binary_alerts"]["value"] == 0.5
    assert report["within_1_day"]["value"] == 0.5 and report["false_alerts_per_1000_light_curves_and_season"] == 500


def test_alert_threshold_keeps_purity_and_premature_share():
    labels, score = np.array([2, 2, 2, 2, 0, 2]), np.array([0.9, 0.8, 0.7, 0.6, 0.55, 0.5], np.float32)
    none = np.zeros(6, np.float32)
    premature = np.array([0, 0, 0.65, 0, 0.55, 0], np.float32)  # the third is too early at thresholds up to 0.65; a flat never is
    choose = lambda early_ones, share: early.choose_threshold(labels, score, early_ones, np.ones(6), 0.8, share)  # noqa: E731
    assert choose(none, 0.01) == pytest.approx(0.5)
    assert choose(premature, 0.01) == pytest.approx(0.7)
    assert choose(premature, 0.25) == pytest.approx(0.5)
    assert early.choose_threshold(labels, score, none, np.ones(6), 1.0, 0.01) == pytest.approx(0.6)


def test_operating_threshold_limits_false_alarms():
    labels, score = np.array([2, 2, 2, 1, 1, 2, 0]), np.array([0.9, 0.8, 0.7, 0.6, 0.2, 0.5, 0.1])
    assert metrics.operating_threshold(labels, score, np.ones(7), 0.7, 0.4) == 0.7  # one of two single lenses is too many
    assert metrics.operating_threshold(labels, score, np.ones(7), 0.7, 0.5) == 0.5
    assert metrics.operating_threshold(labels, score, np.ones(7), 0.7, 1.0) == 0.5  # purity 5/7 at 0.1 needs the flat curve
    assert metrics.operating_threshold(labels, -score, np.ones(7), 0.9, 1.0) == np.inf


def test_threshold_at_purity_by_hand():
    right, score = np.array([1, 1, 0, 1, 0], bool), np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    assert metrics.threshold_at_purity(right, score, np.ones(5), 0.75) == 0.6
    assert metrics.threshold_at_purity(right, score, np.ones(5), 1.0) == 0.8
    assert metrics.threshold_at_purity(~right, score, np.ones(5), 0.9) == np.inf


def test_residual_and_features_of_pure_noise_are_small():
    rng = np.random.default_rng(0)
    flux = (1 + 0.01 * rng.normal(size=(1, 2000))).astype(np.float32)
    z = np.sinh(residual_view(flux, np.full_like(flux, 0.01), np.full_like(flux, 0.01), [2000])[0, :, 0])
    assert (z**2).mean() == pytest.approx(1.0, abs=4 * np.sqrt(2 / 2000))
    assert abs(np.sinh(baselines.features(z, flux[0])[0])) < 4


def test_features_see_an_anomaly_of_three_epochs():
    z = np.zeros(2000)
    z[700:703] = 6.0
    x = dict(zip(baselines.FEATURES, np.sinh(baselines.features(z, np.ones(2000))), strict=True))
    assert x["mean_3"] == pytest.approx(18 / np.sqrt(3)) and x["window_3"] == pytest.approx((108 - 3) / np.sqrt(6))


def test_guards_need_three_in_a_row_and_a_large_excess():
    sigma, flux, z = np.full(3000, 0.01), np.ones(3000), np.zeros(3000)
    flux[1000:1400] += 0.1  # an event of 400 epochs, ten errors high, that the single lens is said to explain
    assert baselines.seen(z, flux, sigma) == (True, False)
    for run, height, wanted in ((3, 8.0, True), (2, 10.0, False), (3, 6.0, False)):  # excess 192 - 3, 200 - 2, 108 - 3
        z[:] = 0
        z[1100 : 1100 + run] = height
        assert baselines.seen(z, flux, sigma) == (True, wanted), run
    z[1101] *= -1
    assert baselines.longest_run(z) == 1
    assert baselines.seen(np.zeros(3000), np.ones(3000), sigma) == (False, False)
    spike = np.ones(3000)
    spike[5] = 2.0  # one outlier of a hundred errors is no event
    assert baselines.seen(z * 0, spike, sigma) == (False, False)


def test_guards_only_raise_and_keep_ratios():
    p = np.array([[0.999, 0.0004, 0.0006], [0.2, 0.7, 0.1], [0.1, 0.6, 0.3], [0.0, 0.001, 0.999]])
    out = baselines.guarded(p, np.array([True, False, True, True]), np.array([False, False, True, True]))
    assert out.sum(axis=1) == pytest.approx(1) and out[1] == pytest.approx(p[1]) and out[3] == pytest.approx(p[3])
    assert out[0] == pytest.approx([0.01, 0.99 * 0.4, 0.99 * 0.6]) and out[2] == pytest.approx([0.01 / 7, 0.06 / 7, 0.99])


def test_a_sharp_single_lens_leaves_no_residual():
    """Truth: the curve is a single lens, so chi^2 a point is 1; u_0 = 0.0014 peaks within one coarse bin of the fit's starts."""
    rng, t = np.random.default_rng(1), np.arange(6912) / 96
    for u_0, t_e in ((0.00135, 15.2), (0.0077, 6.2), (0.0034, 17.4)):
        flux = pspl(t, 20.48, u_0, t_e)
        sigma = sigma_flux(flux, 20.0)
        fit = fit_single_lens(t, flux + sigma * rng.normal(size=len(t)), sigma, finite_source=True)
        assert fit.chi2 / len(t) == pytest.approx(1.0, abs=5 * np.sqrt(2 / len(t)))


@pytest.mark.skipif(not FOREIGN.is_dir(), reason=f"no foreign light curves in {FOREIGN}")
def test_folder_of_foreign_light_curves(tmp_path):
    folder = evaluate(EvaluateConfig(light_curves=str(FOREIGN), truth=str(FOREIGN / "truth.csv"), output=str(tmp_path / "x")))
    sets = json.loads((folder / "evaluation_summary.json").read_text())["sets"]
    found = [sets[s]["binaries_called_binary"] for s in ("roman_dc1", "roman_gulls")]
    assert sets["roman_dc1"]["quiet_called_anything"]["value"] < 0.03
    assert sum(f["value"] * f["n"] for f in found) >= 0.9 * sum(f["n"] for f in found)
    assert (folder / "mistakes_1.png").exists() and (folder / "sets.png").exists()


def test_truth_without_its_columns_names_them(tmp_path):
    (tmp_path / "truth.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="no column class_by_season"):
        evaluate(EvaluateConfig(light_curves=str(tmp_path), truth=str(tmp_path / "truth.csv"), output=str(tmp_path / "x")))
