"""Scores recomputed from predictions.h5 by other code, alerts on hand-made streams, baselines, light-curve folders."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from microlens import baselines, early, metrics
from microlens.config import EvaluateConfig, SimulateConfig
from microlens.dataset import residual_view
from microlens.evaluate import evaluate
from microlens.simulate import simulate, true_curve
from microlens.store import open_dataset, read_predictions

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


def test_every_score_follows_from_predictions(made):
    data, folder = made
    summary = json.loads((folder / "evaluation_summary.json").read_text())
    a, attrs = read_predictions(folder / "predictions.h5")
    p, seen, binary = np.exp(a["log_p"]), a["label_observable"] == 2, a["label"] == 2
    called = p[:, 2] >= attrs["threshold"]
    head = summary["at_threshold"]
    assert head["completeness_observable"] == pytest.approx(called[seen].mean())
    weight = np.select([a["label"] == 0, a["label"] == 1], [0.5 / 60, 0.25 / 30], 0.25 / 30)
    assert head["purity"] == pytest.approx(weight[called & binary].sum() / weight[called].sum())
    assert summary["observable_labels"]["accuracy"] == pytest.approx((p.argmax(1) == a["label_observable"]).mean())
    with open_dataset(data) as d:
        assert np.array_equal(a["label"], d.labels[a["row"]])
    alerts, persistence = summary["early"]["alerts"], attrs["persistence"]
    above = a["p_binary_steps"].astype(np.float32) >= np.float32(attrs["alert_threshold"])
    run = np.all([above[:, i : above.shape[1] - persistence + 1 + i] for i in range(persistence)], axis=0).any(axis=1)
    assert alerts["n_alerts"] == run.sum() == np.isfinite(a["t_alert"]).sum()
    assert {"roc_curves.svg", "u0_dependency.png", "temporal_bias_check.png", "early_detection_curve.png", "alerts.png", "recall.png",
            "per_class_metrics.png", "example_light_curves.png", "completeness_purity.png"} <= {x.name for x in folder.iterdir()}


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
    labels = np.array([2, 2, 0, 1])
    report = early.report(labels, labels, np.array([12.0, 5.0, np.nan, 3.0]), np.array([10.0, 9.0, np.nan, np.nan]),
                          np.array([np.inf, 10.0, np.inf, np.inf]), np.ones(4), 72.0)
    assert report["purity"] == pytest.approx(2 / 3) and report["premature_of_binary_alerts"]["value"] == 0.5
    assert report["within_1_day"]["value"] == 0.5 and report["false_alerts_per_1000_light_curves_and_season"] == 500


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


@pytest.mark.skipif(not FOREIGN.is_dir(), reason=f"no foreign light curves in {FOREIGN}")
def test_folder_of_foreign_light_curves(tmp_path):
    folder = evaluate(EvaluateConfig(light_curves=str(FOREIGN), truth=str(FOREIGN / "truth.csv"), output=str(tmp_path / "x")))
    sets = json.loads((folder / "evaluation_summary.json").read_text())["sets"]
    assert sets["roman_dc1"]["quiet_called_anything"]["value"] < 0.03
    assert sets["roman_dc1"]["binaries_called_binary"]["value"] > 0.5


def test_truth_without_its_columns_names_them(tmp_path):
    (tmp_path / "truth.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="no column class_by_season"):
        evaluate(EvaluateConfig(light_curves=str(tmp_path), truth=str(tmp_path / "truth.csv"), output=str(tmp_path / "x")))
