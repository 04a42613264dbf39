"""Scores recomputed from predictions.h5 by other code, rows of the training, alerts and thresholds by hand."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest, rankdata
from sklearn import metrics as skm

from microlens import figures
from microlens.config import (
    BINARY,
    EVEN_ODDS,
    FALSE_ALARMS,
    FLAT,
    OTHER,
    PSPL,
    PURITY,
    EvaluateConfig,
    SimulateConfig,
)
from microlens.data import DatasetError, open_dataset, quick_dataset, simulate, write_predictions
from microlens.data.events import observable_from
from microlens.data.format import read_predictions
from microlens.data.packed import class_mix, split_rows
from microlens.data.simulation import row_order
from microlens.evaluate import alerts, baselines, check_cadence, choose_rows, evaluate, export, metrics
from microlens.evaluate.thresholds import choose_thresholds
from microlens.figures import draw_evaluation
from microlens.files import runs_dir
from microlens.fit import residual
from microlens.lens import fspl
from microlens.network.predict import alert_scores, alert_steps
from microlens.network.runs import Run, load_run

ROOT = Path(__file__).parents[1]
FOREIGN = Path(os.environ.get("MICROLENS_LIGHT_CURVES", ROOT.parent / "shared" / "light_curves"))
N_FLAT, N_LENSED = 40, 20
QUICK = {"baselines": False, "early_detection": False, "n_evolution_per_type": 0}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Data and runs in a temporary folder, and few bootstrap samples."""
    place = tmp_path_factory.mktemp("evaluate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MICROLENS_DATA", str(place / "data"))
        patch.setenv("MICROLENS_RUNS", str(place / "runs"))
        patch.setattr(metrics, "N_BOOTSTRAP", 20)
        yield place


@pytest.fixture(scope="module")
def made(folders):
    """A dataset and its evaluation by the shipped baseline network, with everything that an evaluation can hold."""
    config = SimulateConfig(n_flat=N_FLAT, n_pspl=N_LENSED, n_binary=N_LENSED, n_other=12, seed=8, split="test",
                            num_workers=1,
                            output=str(folders / "t.h5"))
    data = simulate(config, progress=False)
    return data, evaluate(EvaluateConfig(experiment_name="baseline", data=str(data), n_evolution_per_type=1,
                                         save_formats="svg"), progress=False)


@pytest.fixture(scope="module")
def scored(made):
    """The summary, the arrays and the attributes of the evaluation `made`."""
    summary = json.loads((made[1] / "evaluation_summary.json").read_text())
    return summary, *read_predictions(made[1] / "predictions.h5")


# ---- scores, by formulae of our own ---------------------------------------------------------------------------------


def test_variable_stars_that_are_called_binary_are_false_alarms_and_change_no_other_score(made, scored):
    summary, a, attributes = scored
    with open_dataset(made[0]) as data:
        stars = data.params[data.labels == OTHER]
    assert a["other_row"].tolist() == stars.index.tolist() and not set(a["row"]) & set(stars.index)
    assert summary["n"] == len(a["row"]) and summary["n_other"] == attributes["n_other"] == len(stars) == 12
    p, other = np.exp(a["other_log_p"].astype(float)), summary["other"]
    assert other["observable"]["value"] == pytest.approx((stars["label_observable"] == OTHER).mean())
    for name, of in [(None, other), *other["by_subclass"].items()]:
        among = np.ones(12, bool) if name is None else (stars["subclass"] == name).to_numpy()
        assert of["n"] == among.sum()
        assert of["false_alarms"]["value"] == pytest.approx((p[among, BINARY] >= attributes["threshold"]).mean())
        assert of["false_alerts"]["value"] == pytest.approx(np.isfinite(a["other_t_alert"][among]).mean())
        assert list(of["most_probable_class"].values()) == pytest.approx(np.eye(3)[p[among].argmax(1)].mean(0))
    assert sum(of["n"] for of in other["by_subclass"].values()) == 12


def test_variable_stars_alone_cannot_be_scored(folders):
    config = SimulateConfig(n_flat=0, n_pspl=0, n_binary=0, n_other=3, split="test", num_workers=1,
                            output=str(folders / "stars.h5"))
    data = simulate(config, progress=False)
    with pytest.raises(ValueError, match="holds events of class other alone; a score of baseline needs some of flat"):
        evaluate(EvaluateConfig(experiment_name="baseline", data=str(data), baselines=False), progress=False)


def area(truth, score):
    """Area under the ROC curve by Mann and Whitney's rank sum."""
    n, ranks = truth.sum(), rankdata(score)
    return (ranks[truth].sum() - n * (n + 1) / 2) / (n * (~truth).sum())


def average_precision(truth, score, weight):
    """Sum over the distinct scores of precision times the gain of recall."""
    total = previous = 0.0
    for cut in np.unique(score)[::-1]:
        called = score >= cut
        recall = weight[called & truth].sum() / weight[truth].sum()
        total += (recall - previous) * weight[called & truth].sum() / weight[called].sum()
        previous = recall
    return total


def precision_recall_f1(confusion):
    """(3, 3): precision, recall and F1 of each class of a confusion matrix, truth by called; 0 where not defined."""
    hit, called, true = confusion.diagonal(), confusion.sum(axis=0), confusion.sum(axis=1)
    return np.array([hit / np.maximum(called, 1), hit / np.maximum(true, 1), 2 * hit / np.maximum(called + true, 1)])


def test_scores_of_classes_follow_from_predictions(scored):
    """Truth: the formulae above on predictions.h5 alone."""
    summary, a, _ = scored
    p = np.exp(a["log_p"].astype(float))
    for kind, labels in (("simulated", a["label"]), ("observable", a["label_observable"])):
        scores, shares = summary[f"{kind}_labels"], np.bincount(labels) / len(labels)
        confusion = np.zeros((3, 3), int)
        np.add.at(confusion, (labels, p.argmax(1)), 1)
        assert scores["confusion"] == confusion.tolist()
        assert scores["accuracy"] == pytest.approx(confusion.trace() / len(labels))
        by_class = precision_recall_f1(confusion)
        for name, values in zip(("precision", "recall", "f1"), by_class, strict=True):
            assert scores[f"{name}_macro"] == pytest.approx(values.mean())
            assert scores[f"{name}_weighted"] == pytest.approx(values @ shares)
        areas = [area(labels == c, p[:, c]) for c in range(3)]
        assert scores["auroc_macro"] == pytest.approx(np.mean(areas))
        assert scores["auroc_weighted"] == pytest.approx(areas @ shares)
        square = sum(np.mean((p[:, c] - (labels == c)) ** 2) for c in range(3))
        assert scores["brier"] == pytest.approx(square, rel=1e-5)
    seen, bins = a["label_observable"] == BINARY, np.minimum((p[:, 2] * 15).astype(int), 14)
    off = [abs(seen[bins == b].mean() - p[bins == b, 2].mean()) * (bins == b).mean() for b in np.unique(bins)]
    assert summary["p_binary"]["ece"] == pytest.approx(sum(off))
    assert summary["p_binary"]["brier"] == pytest.approx(np.mean((p[:, 2] - seen) ** 2))


def test_scores_at_thresholds_follow_from_predictions(made, scored):
    summary, a, attrs = scored
    p, seen, binary = np.exp(a["log_p"].astype(float)), a["label_observable"] == BINARY, a["label"] == BINARY
    with open_dataset(made[0]) as d:
        assert np.array_equal(a["label"], d.labels[a["row"]])
        assert np.array_equal(a["label_observable"], d.labels_observable[a["row"]])
        true_signal = np.where(binary, d.delta_chi2_pspl[a["row"]], 0)
    weight = np.where(a["label"] == FLAT, 0.5 / N_FLAT, 0.25 / N_LENSED)

    def compare(scores, score, threshold):
        called = score >= threshold
        assert scores["completeness_observable"] == pytest.approx(called[seen].mean())
        assert scores["purity"] == pytest.approx(weight[called & binary].sum() / weight[called].sum())
        assert scores["purity_observable"] == pytest.approx(weight[called & seen].sum() / weight[called].sum())
        assert scores["false_alarms_pspl"] == pytest.approx(called[a["label"] == PSPL].mean())
        assert scores["false_alarms_flat"] == pytest.approx(called[a["label"] == FLAT].mean())
        for name in ("completeness_observable", "purity", "purity_observable", "false_alarms_flat"):
            low, high = scores[f"{name}_interval_95"]
            assert low <= scores[name] <= high and low < high, name

    compare(summary["at_threshold"], p[:, 2], attrs["threshold"])
    compare(summary["oracle"], true_signal, 160)
    for name in ("chi^2 excess", "largest window", "gradient boosting"):
        key = name.replace(" ", "_")
        compare(summary["baselines"][name], a[f"baseline_{key}"], attrs[f"threshold_{key}"])
    boosting = summary["baselines"]["gradient boosting"], a["baseline_gradient_boosting"]
    for scores, score in ((summary, p[:, 2]), boosting):
        for kind, truth in (("observable", seen), ("simulated", binary)):
            wanted = average_precision(truth, score, weight)
            assert scores[f"average_precision_binary_{kind}"] == pytest.approx(wanted)


def test_alerts_follow_from_predictions(made, scored):
    summary, a, attrs = scored
    report, k = summary["early"]["alerts"], attrs["persistence"]
    with open_dataset(made[0]) as d:
        t_observable, t_premature = d.t_observable_pspl[a["row"]], d.t_premature[a["row"]]
    above = a["p_binary_steps"].astype(np.float32) >= np.float32(attrs["alert_threshold"])
    raised = np.all([above[:, i : above.shape[1] - k + 1 + i] for i in range(k)], axis=0).any(axis=1)
    assert report["n_alerts"] == raised.sum() == np.isfinite(a["t_alert"]).sum() > 0
    binary, seen = raised & (a["label"] == BINARY), a["label_observable"] == BINARY
    too_early = ~(a["t_alert"] >= t_premature)
    assert report["premature_of_binary_alerts"]["value"] == pytest.approx(too_early[binary].mean())
    assert report["within_1_day"]["value"] == pytest.approx((a["t_alert"] <= t_observable + 1)[seen].mean())
    assert (t_premature <= t_observable)[seen].all()  # delta chi^2 passes 40 before 160


def test_every_figure_of_an_evaluation_is_drawn_from_its_folder(made):
    names = {path.name for path in draw_evaluation(made[1])}
    wanted = ("confusion_matrix", "roc_curves", "calibration", "u0_dependency", "temporal_bias_check", "recall",
              "example_light_curves", "per_class_metrics", "completeness_purity", "recall_s_q", "early_detection_curve",
              "alerts")
    assert {f"{name}.svg" for name in wanted} == {name for name in names if not name.startswith("evolution_")}
    assert len(names) == len(wanted) + 3


def test_the_hardest_calls_are_those_of_all_classes_that_the_network_knows(made, scored, tmp_path):
    """What a network of four classes called other was drawn as called flat."""
    _, arrays, attributes = scored
    table, caption = figures.hardest_calls(made[1])
    n_wrong = int((arrays["called"] != arrays["label_observable"]).sum())
    assert "other" not in set(table["called"]) and f"{n_wrong} of which" in caption
    write_predictions(tmp_path / "predictions.h5", arrays | {"called": np.full(len(arrays["row"]), OTHER)}, attributes)
    table, caption = figures.hardest_calls(tmp_path)
    assert set(table["called"]) == {"other"} and f"{len(arrays['row'])} of which" in caption


def test_an_evaluation_without_the_classes_called_is_to_be_made_again(made, scored, tmp_path):
    shutil.copytree(made[1], tmp_path / "e")
    _, arrays, attributes = scored
    write_predictions(tmp_path / "e" / "predictions.h5", {k: v for k, v in arrays.items() if k != "called"}, attributes)
    with pytest.raises(DatasetError, match=r"holds no called, .*`microlens evaluate` makes one"):
        draw_evaluation(tmp_path / "e")


def test_figures_of_an_evaluation_need_the_dataset_that_was_scored(made, tmp_path):
    shutil.copytree(made[1], tmp_path / "e")
    with h5py.File(tmp_path / "e" / "predictions.h5") as f:
        assert Path(f.attrs["data"]) == made[0]
    with pytest.raises(FileNotFoundError, match="no folder of a finished evaluation"):
        draw_evaluation(tmp_path)
    other = made[0].with_name("other.h5")
    made[0].rename(other)
    try:
        with pytest.raises(FileNotFoundError, match=r"t\.h5"):
            draw_evaluation(tmp_path / "e")
    finally:
        other.rename(made[0])


# ---- rows of the training -------------------------------------------------------------------------------------------


def small(folder, name, n, **more):
    """A dataset of n flats, n single lenses and n binaries of seed 5, split train."""
    output = str(folder / f"{name}.h5")
    config = SimulateConfig(n_flat=n, n_pspl=n, n_binary=n, seed=5, num_workers=1, output=output, **more)
    return simulate(config, progress=False)


@pytest.fixture(scope="module")
def training(folders):
    """A small training file, and a run that was trained on some of its rows."""
    path = small(folders, "training", 4)
    with open_dataset(path) as d:
        rows = dict(zip(("train", "val", "test"), np.split(np.arange(d.n_events), [6, 9]), strict=True))
        run = Run("small", folders, {"initial": None}, None, rows, {"config": d.config, "checksum": d.checksum},
                  d.timestamps, {})
    return path, run


def parts_by_content(path, training, column):
    """The part of each row of a file, by looking up its content in the training file: '' where it is not in there."""
    with open_dataset(path) as theirs, open_dataset(training[0]) as own:
        part_of = {}
        for part, rows in training[1].rows.items():
            part_of |= {column(own, row): part for row in rows}
        return [part_of.get(column(theirs, row), "") for row in range(theirs.n_events)]


def flux_of(data, row):
    return data.flux(int(row)).tobytes()


def parameters_of(data, row):
    """Label, brightness and path of an event, which another detector leaves as they are."""
    values = data.params.loc[row, ["label", "m_base", "t_0", "u_0", "t_E", "s", "q"]].to_numpy(float)
    return tuple(np.nan_to_num(values))


def test_a_renamed_training_file_is_recognised(training, tmp_path):
    copy = shutil.copy(training[0], tmp_path / "another_name.h5")
    with open_dataset(copy) as d:
        rows, what = choose_rows("held-out", training[1], d)
        assert rows.tolist() == training[1].rows["test"].tolist() and "the other 9 are left out" in what
        assert choose_rows("val", training[1], d)[0].tolist() == training[1].rows["val"].tolist()


@pytest.mark.parametrize("name, n, more, column", [
    ("smaller", 3, {}, flux_of), ("larger", 6, {}, flux_of), ("crowded", 4, {"detector": "crowded"}, parameters_of)])
def test_files_of_the_same_streams_share_their_training_rows(training, folders, name, n, more, column):
    """Truth: the flux (or, of another detector, the parameters) of every event, looked up in the training file."""
    path = small(folders, name, n, **more)
    wanted = parts_by_content(path, training, column)
    with open_dataset(path) as d:
        assert training[1].parts_of(d.config).tolist() == wanted and "train" in wanted and ("" in wanted) == (n > 4)
        rows, what = choose_rows("held-out", training[1], d)
        assert [wanted[row] for row in rows] == [part for part in wanted if part in ("", "test")]
        assert f"the other {len(wanted) - len(rows)} are left out" in what
        rows, what = choose_rows("all", training[1], d)
        assert len(rows) == len(wanted) and f"was trained on {wanted.count('train')} of them" in what


def test_where_all_rows_are_of_the_training_nothing_is_scored(training):
    run = training[1]
    everything = {"train": np.arange(12), "val": np.array([], int), "test": np.array([], int)}
    greedy = Run(run.name, run.folder, run.config, None, everything, run.data, run.timestamps, {})
    with open_dataset(training[0]) as d, pytest.raises(ValueError, match="no held-out rows to score"):
        choose_rows("held-out", greedy, d)


def test_a_run_that_started_from_another_says_so(training):
    run = training[1]
    started = Run(run.name, run.folder, {"initial": "first"}, None, run.rows, run.data, run.timestamps, {})
    with open_dataset(training[0]) as d:
        assert "started from the weights of first" in choose_rows("held-out", started, d)[1]


def test_other_streams_are_no_training_rows(training, folders):
    """Neither another seed, nor another split; truth: no curve of one file is in the other."""
    for more in ({"split": "test"}, {"split": "quick"}):
        path = small(folders, more["split"], 4, **more)
        assert parts_by_content(path, training, flux_of) == [""] * 12
        with open_dataset(path) as d:
            rows, what = choose_rows("held-out", training[1], d)
        assert len(rows) == 12 and "none of them an event of the training" in what
    other = SimulateConfig(n_flat=4, n_pspl=4, n_binary=4, seed=6)
    assert set(training[1].parts_of(other.to_dict())) == {""}


def test_the_shipped_network_knows_its_training_events_without_the_file(folders):
    """A file of its own streams (seed 1, split train) is recognised, whatever its size; quick_dataset is not."""
    run = load_run("baseline")
    events = row_order(SimulateConfig.from_dict(run.data["config"]))
    labels = np.array([("flat", "pspl", "binary").index(kind) for kind, _ in events])
    for part, rows in zip(("train", "val", "test"), split_rows(labels, run.config["seed"]), strict=True):
        assert np.array_equal(run.rows[part], rows)
    config = SimulateConfig(n_flat=10, n_pspl=10, n_binary=10, seed=1, output=str(folders / "own.h5"), num_workers=1)
    path = simulate(config, progress=False)
    folder = evaluate(EvaluateConfig(experiment_name="baseline", data=str(path), output=str(folders / "own"),
                                     **QUICK), progress=False)
    arrays, _ = read_predictions(folder / "predictions.h5")
    with open_dataset(path) as d:
        parts = run.parts_of(d.config)
    assert set(parts) <= {"train", "val", "test"} and list(parts).count("train") > 10
    assert arrays["row"].tolist() == np.flatnonzero(parts == "test").tolist()
    assert "left out" in json.loads((folder / "evaluation_summary.json").read_text())["rows"]
    with open_dataset(quick_dataset(2, 2, 2)) as d:
        assert set(run.parts_of(d.config)) == {""}


# ---- files that cannot be scored ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind, words", [("cut short", "damaged or cut short"),
                                         ("empty", "no file of this version of the package"),
                                         ("a changed byte", "damaged or cut short")])
def test_unusable_data_is_one_clear_error(made, tmp_path, kind, words):
    content = bytearray(made[0].read_bytes())
    if kind == "a changed byte":
        content[len(content) // 2] ^= 1
    path = tmp_path / "bad.h5"
    path.write_bytes(content[: {"empty": 0, "cut short": len(content) // 3}.get(kind)])
    with pytest.raises(ValueError, match=words) as caught:
        evaluate(EvaluateConfig(experiment_name="baseline", data=str(path), output=str(tmp_path / "out")),
                 progress=False)
    assert "bad.h5" in str(caught.value) and "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_another_cadence_is_refused():
    run = load_run("baseline")
    check_cadence("same.h5", 1.1 * run.timestamps, run)
    with pytest.raises(ValueError, match=r"slow\.h5: an epoch every 0\.03125 d, but .* was trained on 0\.01042 d"):
        check_cadence("slow.h5", 3 * run.timestamps, run)


def test_an_exported_run_needs_no_training_file(made):
    """A copied shipped network answers with the thresholds of its validation rows, and says so."""
    folder = export("baseline", runs_dir() / "copied")
    names = {path.name for path in folder.iterdir()}
    assert names == {"best.pt", "config.json", "log.jsonl", "validation_features.npz"}
    out = evaluate(EvaluateConfig(experiment_name="copied", data=str(made[0]), **QUICK), progress=False)
    (_, attrs), (_, own) = (read_predictions(f / "predictions.h5") for f in (out, made[1]))
    assert attrs["threshold"] == own["threshold"] and attrs["threshold_from"].endswith("of the training of copied")


# ---- thresholds -----------------------------------------------------------------------------------------------------


def test_thresholds_come_from_the_shipped_validation_rows(scored):
    """Truth: the condition itself, tried on the validation rows at the threshold and at the next lower score."""
    attrs, v = scored[2], load_run("baseline").validation
    weight, is_binary = class_mix(v["label"]), v["label"] == BINARY

    def allowed(score, cut):
        called = score >= cut
        purity, false = weight[called & is_binary].sum() / weight[called].sum(), called[v["label"] == PSPL].mean()
        return purity >= PURITY and false <= FALSE_ALARMS

    p = np.exp(v["log_p"][:, BINARY].astype(float))
    assert allowed(p, attrs["threshold"]) and not allowed(p, p[p < attrs["threshold"]].max())

    def alerts_allowed(cut):
        called = v["alert_score"] >= cut
        premature = (v["premature_score"] >= cut).sum() / (called & is_binary).sum()
        purity = weight[called & is_binary].sum() / weight[called].sum()
        return purity >= PURITY and premature <= FALSE_ALARMS

    cut = attrs["alert_threshold"]
    assert alerts_allowed(cut) and not alerts_allowed(v["alert_score"][v["alert_score"] < cut].max())


def test_a_network_for_the_sky_calls_nothing_binary_that_is_more_probably_something_else():
    """Its threshold is even odds where the validation rows permit a lower one, and theirs where they ask for more."""
    run, config = load_run("sky"), EvaluateConfig(data="x", baselines=False)
    found, asked = choose_thresholds(run, config), choose_thresholds(run, config.replace(false_alarms=FALSE_ALARMS))
    assert found.whole_curve == EVEN_ODDS > asked.whole_curve and found.alert == asked.alert
    assert found.reached["whole_curves"]["purity"] > PURITY and "at least 0.5" in found.limits
    sure = run.validation["log_p"].copy()
    sure[:, BINARY] = np.log(0.9)  # of every row: no threshold up to it is pure
    assert choose_thresholds(replace(run, validation={**run.validation, "log_p": sure}), config).whole_curve > EVEN_ODDS


def test_operating_threshold_limits_false_alarms():
    labels, score = np.array([2, 2, 2, 1, 1, 2, 0]), np.array([0.9, 0.8, 0.7, 0.6, 0.2, 0.5, 0.1])
    weight = np.ones(7)
    assert metrics.operating_threshold(labels, score, weight, 0.7, 0.4) == 0.7  # one of two single lenses is too many
    assert metrics.operating_threshold(labels, score, weight, 0.7, 0.5) == 0.5
    assert metrics.operating_threshold(labels, score, weight, 0.7, 1.0) == 0.5  # 5/7 at 0.1 would need the flat curve
    assert metrics.operating_threshold(labels, -score, weight, 0.9, 1.0) == np.inf


@pytest.mark.parametrize("purity, wrong, cut", [(0.75, False, 0.6), (1.0, False, 0.8), (0.9, True, np.inf)])
def test_threshold_at_purity_by_hand(purity, wrong, cut):
    right, score = np.array([1, 1, 0, 1, 0], bool), np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    holds = metrics.purity_holds(right != wrong, np.ones(5), purity)
    assert metrics.lowest_threshold(score, holds) == cut


def test_alert_threshold_keeps_purity_and_premature_share():
    labels, score = np.array([2, 2, 2, 2, 0, 2]), np.array([0.9, 0.8, 0.7, 0.6, 0.55, 0.5], np.float32)
    none = np.zeros(6, np.float32)
    premature = np.array([0, 0, 0.65, 0, 0.55, 0], np.float32)  # the third is too early at thresholds up to 0.65

    def choose(too_early, purity, share):
        return alerts.choose_threshold(labels, score, too_early, np.ones(6), purity, share)

    assert choose(none, 0.8, 0.01) == pytest.approx(0.5)
    assert choose(premature, 0.8, 0.01) == pytest.approx(0.7)
    assert choose(premature, 0.8, 0.25) == pytest.approx(0.5)
    assert choose(none, 1.0, 0.01) == pytest.approx(0.6)


# ---- metrics --------------------------------------------------------------------------------------------------------


def test_binomial_interval_is_scipys():
    for k, n in ((0, 67), (67, 67), (3, 10), (1, 1)):
        wanted = binomtest(k, n).proportion_ci(0.95)
        assert metrics.binomial_interval(k, n) == pytest.approx(tuple(wanted))
    assert [float(x) for x in metrics.binomial_interval(0, 0)] == [0, 1]
    low, high = metrics.binomial_interval(np.array([0, 5]), 5)
    assert low == pytest.approx([0, 0.025**0.2]) and high == pytest.approx([1 - 0.025**0.2, 1])


def test_an_interval_is_never_one_point():
    """A bootstrap of 67 of 67 gives [1, 1]; the interval is then that of a share of 67 events."""
    rng, all_right = np.random.default_rng(0), np.ones(67, bool)
    share = metrics.bootstrap(lambda counts: metrics.share_of(all_right, counts), 67, rng, 67)
    assert share == pytest.approx(metrics.share(67, 67)["interval_95"]) and share[0] == pytest.approx(0.946, abs=1e-3)
    assert metrics.bootstrap(lambda counts: 0.0, 67, rng, 67) == pytest.approx([0, 1 - share[0]])
    assert np.isnan(metrics.bootstrap(lambda counts: np.nan, 67, rng, 67)).all()
    hit = rng.random(200) < 0.3
    low, high = metrics.bootstrap(lambda counts: metrics.share_of(hit, counts), 200, rng, 200)
    assert low < hit.mean() < high and high - low == pytest.approx(3.92 * np.sqrt(0.3 * 0.7 / 200), rel=0.5)


def test_effective_number_counts_equal_weights():
    assert metrics.effective_number(np.full(7, 3.0)) == pytest.approx(7)
    assert metrics.effective_number(np.array([1.0, 1.0, 0.0])) == pytest.approx(2)
    assert metrics.effective_number(np.array([])) == 0


@pytest.mark.parametrize("seed", range(5))
def test_scores_of_resamples_are_those_of_scikit_learn(seed):
    """Scores of weighted events with many ties, and of bootstrap samples, of which one has no event of a class."""
    rng, n, at = np.random.default_rng(seed), 60, np.linspace(0, 1, 23)
    labels, p = rng.integers(0, 3, n), rng.integers(1, 5, (n, 3)) / 4
    p, called, mix = p / p.sum(axis=1, keepdims=True), p.argmax(1), rng.uniform(0.5, 2, n)
    for counts in metrics.resamples(n, 20, rng):
        rows = np.repeat(np.arange(n), counts)
        truth, score = labels[rows] == BINARY, p[rows, BINARY]
        false, true, _ = skm.roc_curve(truth, score)
        f1 = skm.f1_score(labels[rows], called[rows], labels=range(3), average="macro", zero_division=0)
        precision = skm.average_precision_score(truth, score, sample_weight=mix[rows])
        ours = metrics.average_precision(labels == BINARY, p[:, BINARY], mix * counts)
        assert ours == pytest.approx(precision, 1e-12)
        assert metrics.roc_area(labels == BINARY, p[:, BINARY], counts) == pytest.approx(skm.auc(false, true), 1e-12)
        rates = metrics.roc(labels == BINARY, p[:, BINARY], at, counts)
        assert rates == pytest.approx(np.interp(at, false, true), 1e-12)
        assert metrics.f1_macro(labels, called, counts) == pytest.approx(f1, 1e-12)
        for average in ("macro", "weighted"):
            area = skm.roc_auc_score(labels[rows], p[rows], multi_class="ovr", average=average)
            assert metrics.auroc(labels, p, counts, average) == pytest.approx(area, 1e-12)
    without = np.where(labels == BINARY, 0, 1)
    assert np.isnan(metrics.auroc(labels, p, without))
    assert np.isnan(metrics.average_precision(labels == BINARY, p[:, BINARY], without))
    assert metrics.f1_macro(labels[without > 0], np.minimum(called, 1)[without > 0]) == pytest.approx(
        skm.f1_score(labels[without > 0], np.minimum(called, 1)[without > 0], labels=range(3), average="macro",
                     zero_division=0), 1e-12)


def test_completeness_curve_by_hand():
    labels, observable = np.array([2, 2, 1, 2, 0]), np.array([2, 2, 1, 1, 0])
    score = np.array([0.9, 0.5, 0.5, 0.3, 0.1])
    purity, completeness = metrics.completeness_curve(labels, observable, score, np.array([1.0, 1.0, 2.0, 1.0, 1.0]))
    assert purity == pytest.approx([1, 2 / 4, 3 / 5, 3 / 6]) and completeness == pytest.approx([0.5, 1, 1, 1])


def test_recall_in_bins_by_hand():
    x, hit = np.array([0.0, 0.5, 1.0, 1.5, 1.9, 9.0]), np.array([1, 0, 1, 1, 0, 1], bool)
    out = metrics.recall_in_bins(hit, x, np.array([0.0, 1.0, 2.0, 3.0]))
    assert out["n"].tolist() == [2, 3, 0] and out["recall"][:2] == pytest.approx([1 / 2, 2 / 3])
    assert np.isnan(out["recall"][2]) and (out["recall_low"][2], out["recall_high"][2]) == (0, 1)
    assert (out["recall_low"][1], out["recall_high"][1]) == pytest.approx(tuple(binomtest(2, 3).proportion_ci(0.95)))


def test_temporal_bias_by_hand():
    t_0 = np.arange(20.0)
    early_ones_wrong = metrics.temporal_bias(t_0, t_0 >= 10)
    assert early_ones_wrong["D"] == 1 and early_ones_wrong["p"] < 1e-3
    every_second = metrics.temporal_bias(t_0, t_0 % 2 == 0)
    assert every_second["D"] == pytest.approx(0.1) and every_second["p"] > 0.9
    assert metrics.temporal_bias(t_0, t_0 >= 4) == {"D": None, "p": None, "n_right": 16, "n_wrong": 4}


# ---- alerts ---------------------------------------------------------------------------------------------------------


def test_alert_needs_persistence_and_a_premature_one_is_counted():
    score = np.array([[0, 0.9, 0, 0.9, 0.9, 0.9], [0, 0.9, 0.9, 0, 0, 0], [0.9, 0, 0.9, 0, 0.9, 0]])
    assert alert_steps(score, 0.5).tolist() == [4, 2, -1]
    assert alert_scores(score) == pytest.approx([0.9, 0.9, 0], abs=1e-6)
    assert alert_scores(score, np.array([4, 3, 6])) == pytest.approx([0, 0.9, 0], abs=1e-6)
    labels, never = np.array([2, 2, 0, 1]), np.nan
    report = alerts.report(labels, labels, np.array([12.0, 5.0, never, 3.0]), np.array([10.0, 9.0, never, never]),
                           np.array([9.0, 8.0, never, never]), np.ones(4))
    assert report["purity"] == pytest.approx(2 / 3) and report["premature_of_binary_alerts"]["value"] == 0.5
    assert report["within_1_day"]["value"] == 0.5
    assert report["false_alerts_per_1000_light_curves_and_season"] == 500


def test_against_time_by_hand():
    labels, t_alert = np.array([2, 2, 1, 0]), np.array([2.0, np.nan, 3.0, np.nan])
    weight = np.array([1.0, 1.0, 3.0, 1.0])
    purity, completeness = alerts.against_time(np.array([1.0, 2.0, 5.0]), labels, labels, t_alert, weight)
    assert np.isnan(purity[0]) and purity[1:] == pytest.approx([1, 1 / 4])
    assert completeness == pytest.approx([0, 0.5, 0.5])


def test_a_limb_darkened_single_lens_is_never_a_premature_anomaly():
    """Truth: the curve is a single lens, so no alert on it is timely. A uniform disc would leave an anomaly."""
    params = {"t_0": 10.0, "t_E": 10.0, "u_0": 0.002, "m_base": 19.0, "pi_EN": 0.0, "pi_EE": 0.0}
    t = np.arange(0, 20, 0.25 / 24)
    flux = fspl(t, params["t_0"], params["u_0"], params["t_E"], 0.02, limb_darkening=0.6)
    configs = SimulateConfig(limb_darkening=0.6), SimulateConfig()
    darkened, uniform = (observable_from("binary", params, t, flux, config, None) for config in configs)
    assert np.isnan(darkened.t_premature) and np.isfinite(uniform.t_premature)


# ---- baselines ------------------------------------------------------------------------------------------------------


def test_features_see_an_anomaly_of_three_epochs():
    z = np.zeros(2000)
    z[700:703] = 6.0
    x = dict(zip(residual.FEATURES, np.sinh(residual.features(z, np.ones(2000))), strict=True))
    assert x["mean_3"] == pytest.approx(18 / np.sqrt(3)) and x["window_3"] == pytest.approx((108 - 3) / np.sqrt(6))


def test_guards_need_three_in_a_row_and_a_large_excess():
    sigma, flux, z = np.full(3000, 0.01), np.ones(3000), np.zeros(3000)
    flux[1000:1400] += 0.1  # an event of 400 epochs, ten errors high, that the single lens is said to explain
    assert residual.seen(z, flux, sigma) == (True, False)
    for run, height, wanted in ((3, 8.0, True), (2, 10.0, False), (3, 6.0, False)):  # excess 192 - 3, 200 - 2, 108 - 3
        z[:] = 0
        z[1100 : 1100 + run] = height
        assert residual.seen(z, flux, sigma) == (True, wanted), run
    spike = np.ones(3000)
    spike[5] = 2.0  # one outlier of a hundred errors is no event
    assert residual.seen(z * 0, np.ones(3000), sigma) == residual.seen(z * 0, spike, sigma) == (False, False)


def test_guards_only_raise_and_keep_ratios():
    p = np.array([[0.999, 0.0004, 0.0006], [0.2, 0.7, 0.1], [0.1, 0.6, 0.3], [0.0, 0.001, 0.999]])
    out = baselines.guarded(p, np.array([True, False, True, True]), np.array([False, False, True, True]))
    assert out.sum(axis=1) == pytest.approx(1) and out[1] == pytest.approx(p[1]) and out[3] == pytest.approx(p[3])
    assert out[0] == pytest.approx([0.01, 0.99 * 0.4, 0.99 * 0.6])
    assert out[2] == pytest.approx([0.01 / 7, 0.06 / 7, 0.99])


def test_boosting_needs_a_few_of_each_class():
    x, observable = np.random.default_rng(0).normal(size=(60, 4)), np.repeat([0, 1, 2], 20)
    assert baselines.gradient_boosting(x, np.minimum(observable, 1)) == (None, None)
    x[observable == BINARY] += 5
    model, p = baselines.gradient_boosting(x, observable)
    assert p[observable == BINARY].min() > 0.5 > p[observable != BINARY].max()
    assert ((model.predict_proba(x)[:, 1] > 0.5) == (observable == BINARY)).all()


# ---- light-curve files ----------------------------------------------------------------------------------------------


def scored_files(folder, truth, output):
    """The folder of an evaluation of light-curve files, and the scores of each set."""
    made = evaluate(EvaluateConfig(experiment_name="baseline", light_curves=str(folder), truth=str(truth),
                                   output=str(output)))
    return made, json.loads((made / "evaluation_summary.json").read_text())["sets"]


def test_a_folder_of_files_is_scored_and_its_mistakes_drawn(folders, tmp_path):
    """Truth: the three simulated files of the notebooks; then a table that says the binary is a single lens."""
    examples = ROOT / "notebooks" / "light_curves"
    folder, sets = scored_files(examples, examples / "truth.csv", tmp_path / "a")
    assert sets["examples"]["right"]["value"] == 1
    assert {path.name for path in draw_evaluation(folder)} == {"sets.png"}
    wrong = pd.read_csv(examples / "truth.csv").assign(class_by_season=["flat", "pspl", "pspl"])
    wrong.to_csv(tmp_path / "wrong.csv", index=False)
    folder, sets = scored_files(examples, tmp_path / "wrong.csv", tmp_path / "b")
    assert sets["examples"]["right"]["value"] == pytest.approx(2 / 3)
    assert {path.name for path in draw_evaluation(folder)} == {"sets.png", "mistakes_1.png"}


@pytest.mark.validate
@pytest.mark.skipif(not FOREIGN.is_dir(), reason=f"no foreign light curves in {FOREIGN}")
def test_folder_of_foreign_light_curves(tmp_path):
    _, sets = scored_files(FOREIGN, FOREIGN / "truth.csv", tmp_path / "x")
    found = [sets[s]["binaries_called_binary"] for s in ("roman_dc1", "roman_gulls")]
    assert sets["roman_dc1"]["quiet_called_anything"]["value"] < 0.03
    assert sum(f["value"] * f["n"] for f in found) >= 0.9 * sum(f["n"] for f in found)


def test_truth_without_its_columns_names_them(tmp_path):
    (tmp_path / "truth.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="no column class_by_season"):
        scored_files(tmp_path, tmp_path / "truth.csv", tmp_path / "x")
