"""The conformal threshold against brute force and its theorem; calibrations of real files, and what takes them."""

import dataclasses
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import logit

from microlens.__main__ import main
from microlens.config import BINARY, CalibrateConfig, ClassifyConfig, EvaluateConfig, SimulateConfig
from microlens.data import LightCurveError, PackedDataset, open_dataset, simulate
from microlens.data.format import read_predictions
from microlens.data.lightcurve import LightCurve, seasons
from microlens.data.photometry import QuietSeason, read_photometry, split_of
from microlens.evaluate import calibrate, calibration, classify, evaluate, light_curves, metrics
from microlens.evaluate.calibration import (
    SCORES,
    allowed_stars,
    conformal_threshold,
    network_scores,
    read_calibration,
    season_scores,
    single_lenses,
    write_calibration,
)
from microlens.figures import evaluation as figures
from microlens.network import load_run
from microlens.sky import load_preset

N_STARS, ERROR = 16, 0.01
RATE = 0.1
QUICK = {"baselines": False, "n_evolution_per_type": 0}


@pytest.fixture(scope="module")
def run():
    return load_run("baseline")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files of quiet stars with correlated noise, 20 days each."""
    rng, out = np.random.default_rng(0), tmp_path_factory.mktemp("stars")
    t = 2461447.757 + np.arange(0, 20, 1 / 96)
    for k in range(N_STARS):
        slow = np.convolve(rng.normal(size=len(t) + 95), np.full(96, 96**-0.5), "valid")
        mag = 19 + ERROR * (rng.normal(size=len(t)) + 0.5 * slow)
        np.savetxt(out / f"star_{k:02d}.dat", np.column_stack([t, mag, np.full(len(t), ERROR)]), "%.6f")
    return out


@pytest.fixture(scope="module")
def made(folder, run, tmp_path_factory):
    """The file of a calibration on these stars."""
    output = str(tmp_path_factory.mktemp("made") / "own.json")
    return calibrate(folder, CalibrateConfig(false_alarms=RATE, injections=2, output=output), run, progress=False)


# ---- the threshold --------------------------------------------------------------------------------------------------


def grouped_scores(rng, n_stars):
    """Scores with many ties, of stars with one to five each that depend on one another: scores and stars (N,)."""
    stars = np.repeat(np.arange(n_stars), rng.integers(1, 6, n_stars))
    return np.round(rng.normal(size=n_stars)[stars] + rng.normal(size=len(stars)), 1), stars


def share_reaching(scores, stars, threshold):
    """Sum over stars of the share of their scores at or above a threshold."""
    return sum(Fraction(int((scores[stars == s] >= threshold).sum()), int((stars == s).sum())) for s in set(stars))


@pytest.mark.parametrize("seed", range(20))
def test_threshold_is_the_lowest_that_the_formula_allows(seed):
    rng = np.random.default_rng(seed)
    rate, n_stars = rng.choice([0.05, 0.1, 0.29, 0.5]), int(rng.integers(20, 60))
    scores, stars = grouped_scores(rng, n_stars)
    threshold = conformal_threshold(scores, stars, rate)
    most = Fraction(str(rate)) * (n_stars + 1)
    assert share_reaching(scores, stars, threshold) + 1 <= most
    assert share_reaching(scores, stars, np.nextafter(threshold, -np.inf)) + 1 > most


@pytest.mark.parametrize("seed", range(10))
def test_a_star_reaches_the_threshold_of_the_others_at_most_so_often(seed):
    """The theorem without chance: the mean over which of n + 1 stars is the new one is at most the rate."""
    scores, stars = grouped_scores(np.random.default_rng(seed), 41)
    for rate in (0.025, 0.05, 0.2):
        reached = [np.mean(scores[stars == new] >= conformal_threshold(scores[stars != new], stars[stars != new], rate))
                   for new in range(41)]
        assert np.mean(reached) <= rate + 1e-12
        assert np.mean(reached) > 0 or rate < 0.05  # it is not kept by calling nothing


def test_rate_is_taken_as_it_is_written():
    """0.01 and 0.29 are no binary fractions: 100 times their nearest numbers are above 1, and below 29."""
    assert allowed_stars(99, 0.01) == 0 and allowed_stars(99, 0.29) == 28
    scores = np.arange(99.0)
    assert conformal_threshold(scores, np.arange(99), 0.01) == np.nextafter(98, 99)
    assert (scores >= conformal_threshold(scores, np.arange(99), 0.29)).sum() == 28


def test_threshold_has_the_precision_of_the_scores():
    """An alert is a comparison in single precision, in which the next double is the same number."""
    scores = np.array([0.25, 0.5, 0.75], np.float32)
    threshold = conformal_threshold(scores, np.arange(3), 0.25)
    assert np.float32(threshold) > scores.max() and threshold == np.nextafter(np.float32(0.75), np.float32(1))


@pytest.mark.parametrize("scores, rate, message", [
    (np.zeros(98), 0.01, "98 quiet stars are too few: a share of 0.01 false alarms can be kept with 99 or more. .* "
                         "--false-alarms 0.011 or more"),
    (np.array([0.1, np.nan]), 0.5, "1 of 2 scores are not finite"),
])
def test_scores_that_allow_no_threshold(scores, rate, message):
    with pytest.raises(ValueError, match=message):
        conformal_threshold(scores, np.arange(len(scores)), rate)


# ---- the scores -----------------------------------------------------------------------------------------------------


def test_scores_are_those_of_a_stream(run, folder):
    """Truth: P(binary) epoch by epoch from a stream, held for two network steps."""
    star = read_photometry(str(folder), "quick").seasons[0]
    flux = single_lenses(star, load_preset("baseline"), 3, 0, 0)[:, 0, :340].astype(np.float32)
    delta_t = np.tile(np.diff(star.time, prepend=0.0)[:340], (3, 1)).astype(np.float32)
    scores, stream = network_scores(run.network, flux, delta_t), run.network.stream(3)
    steps = [stream.update(np.zeros(3), np.zeros(3))[:, BINARY]]
    for first in range(0, 336, run.network.stem_stride):
        part = slice(first, first + run.network.stem_stride)
        steps.append(stream.update(flux[:, part], delta_t[:, part])[:, BINARY])
    held = np.minimum(steps[1:], steps[:-1]).max(axis=0)
    assert len(steps) == 22 and scores["alert"].dtype == np.float32
    assert scores["alert"] == pytest.approx(held, rel=1e-3, abs=1e-9)
    assert scores["whole_curve"] == pytest.approx(np.exp(run.network.log_prob(flux, delta_t)[:, BINARY]), rel=1e-3)


def test_single_lenses_are_those_of_seed_and_season(folder):
    star, preset = read_photometry(str(folder), "quick").seasons[0], load_preset("baseline")
    first = single_lenses(star, preset, 2, 5, 0)
    assert first.shape == (2, 2, len(star.time)) and np.array_equal(first, single_lenses(star, preset, 2, 5, 0))
    assert not np.array_equal(first, single_lenses(star, preset, 2, 5, 1))
    assert first[:, 0] / star.flux == pytest.approx(first[:, 1] / star.error, rel=1e-5)
    assert (first[:, 0] / star.flux).max() > 1.01 and (first[:, 0] / star.flux).min() > 0.999


# ---- the file -------------------------------------------------------------------------------------------------------


def test_command_writes_a_file_that_says_what_was_found(folder, run, made, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["calibrate", str(folder), "--experiment-name", "baseline", "--false-alarms", str(RATE),
             "--injections", "2"]
    assert main(words) == 0
    assert capsys.readouterr().out.strip() == "calibration.json"
    assert (tmp_path / "calibration.json").read_bytes() == made.read_bytes()  # the same bytes of the same stars
    found = read_calibration(made, run)
    assert (found.network, found.binary_preset, found.n_stars, found.n_injections) == ("baseline", "baseline", 16, 32)
    assert 0 < found.whole_curve < 1 and 0 < found.alert < 1
    for reached in found.reached.values():
        assert max(reached.values()) <= (RATE * (N_STARS + 1) - 1) / N_STARS
    assert found.knows(["star_03.dat", "star_99.dat"]).tolist() == [True, False]


def test_stars_of_the_training_are_left_out(folder, run, tmp_path, caplog):
    learnt = {f"star_{k:02d}.dat": part for k, part in enumerate(["train"] * 3 + ["val", "test"])}
    own = dataclasses.replace(run, data={**run.data, "stars": learnt})
    config = CalibrateConfig(experiment_name="baseline", false_alarms=RATE, injections=1,
                             output=str(tmp_path / "own.json"))
    found = read_calibration(calibrate(folder, config, own, progress=False), own)
    assert set(found.stars) == {f"star_{k:02d}.dat" for k in range(4, N_STARS)}
    assert "4 of 16 seasons are left out, of stars that baseline was trained on" in caplog.text
    all_learnt = dataclasses.replace(run, data={**run.data, "stars": {f"star_{k:02d}.dat": "train" for k in range(16)}})
    with pytest.raises(ValueError, match="trained on all of its stars"):
        calibrate(folder, config, all_learnt, progress=False)


def test_folders_that_cannot_be_calibrated_on(folder, run, tmp_path, monkeypatch):
    config = CalibrateConfig(output=str(tmp_path / "x.json"))
    with pytest.raises(LightCurveError, match="no files are there"):
        calibrate(tmp_path, config, run, progress=False)
    with pytest.raises(ValueError, match=r"16 quiet stars are too few: .* with 99 or more.* --false-alarms 0.059 or"):
        calibrate(folder, config, run, progress=False)
    sure = np.ones((N_STARS, 1), SCORES)
    monkeypatch.setattr(calibration, "star_scores", lambda *_: {"flat": sure, "pspl": sure})
    with pytest.raises(ValueError, match=r"no threshold keeps the false alarms at 0\.1"):
        calibrate(folder, config.replace(false_alarms=0.1), run, progress=False)
    assert not (tmp_path / "x.json").exists()


def changed(path, **values):
    """The text of a calibration file with other values, its checksum as it was."""
    return json.dumps(json.loads(path.read_text()) | values)


@pytest.mark.parametrize("text, message", [
    (lambda path: path.read_text()[:200], "no readable calibration file"),
    (lambda path: "", "no readable calibration file"),
    (lambda path: "[1, 2]", "no calibration file of this version"),
    (lambda path: changed(path, format="microlens calibration 0"), "no calibration file of this version"),
    (lambda path: changed(path, whole_curve=0.5), "changed by hand"),
    (lambda path: changed(path, more=1), "changed by hand"),
], ids=["cut", "empty", "list", "older", "edited", "added"])
def test_a_file_that_is_no_calibration(made, run, tmp_path, text, message):
    path = tmp_path / "bad.json"
    path.write_text(text(made))
    with pytest.raises(ValueError, match=message) as caught:
        read_calibration(path, run)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_of_another_network_or_none_at_all(made, tmp_path, capsys):
    with pytest.raises(ValueError, match="of another network, baseline, and says nothing of roman"):
        read_calibration(made, load_run("roman"))
    with pytest.raises(FileNotFoundError, match=r"gone.json: no such file; `microlens calibrate FOLDER` makes one"):
        read_calibration(tmp_path / "gone.json", load_run("baseline"))
    assert main(["classify", str(made), "--experiment-name", "roman", "--calibration", str(made)]) == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_a_file_of_another_version_is_taken_with_a_word(made, run, tmp_path, caplog):
    path = tmp_path / "older.json"
    write_calibration(path, dataclasses.replace(read_calibration(made, run), package="microlens 0.1.0"))
    assert not caplog.text
    read_calibration(path, run)
    assert "made by another version of the package" in caplog.text


# ---- what takes it --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def events(folder, tmp_path_factory):
    """Files of six quiet stars, four of them with a single lens, with all digits of their numbers."""
    out = tmp_path_factory.mktemp("events")
    for number, star in enumerate(read_photometry(str(folder), "quick").seasons[:6]):
        flux, error = star.flux, star.error
        if number > 1:
            flux, error = single_lenses(star, load_preset("baseline"), 1, 1, number)[0]
        np.savetxt(out / star.star, np.column_stack([star.time, flux, error]), "%.17g", header="BJD flux err")
    return sorted(out.glob("*.dat"))


def test_classify_calls_binary_what_reaches_the_threshold(events, run, made, tmp_path):
    """A season at the threshold is binary, one just below is the more probable of the others, whatever P(binary) is."""
    path, known = tmp_path / "own.json", read_calibration(made, run)

    def classified(threshold):
        write_calibration(path, dataclasses.replace(known, whole_curve=threshold))
        table, errors = classify(events, ClassifyConfig(calibration=str(path)), run)
        assert not errors and table["flags"].str.contains("calibrated").all()
        return table

    none = classified(1.0)
    assert set(none["class"]) == {"flat", "pspl"}
    assert (none["class"] == np.where(none["p_flat"] > none["p_pspl"], "flat", "pspl")).all()
    for cut in none["p_binary"]:
        some = classified(cut)
        assert (some["class"] == none["class"].where(none["p_binary"] < cut, "binary")).all()
        pd.testing.assert_frame_equal(some.drop(columns="class"), none.drop(columns="class"))
    plain, _ = classify(events, ClassifyConfig(), run)
    assert not plain["flags"].str.contains("calibrated").any()


def test_calibrate_scores_a_light_curve_as_classify_answers_for_its_file(events, folder, run, made):
    """The same events, put into the stars in memory, have the P(binary) that the file has."""
    table, _ = classify(events, ClassifyConfig(calibration=str(made)), run)
    answers = {Path(row.file).name: row.p_binary for row in table.itertuples()}
    for number, star in enumerate(read_photometry(str(folder), "quick").seasons[2:6], 2):
        found = season_scores(run.network, star, single_lenses(star, load_preset("baseline"), 1, 1, number))
        assert logit(found["whole_curve"][0]) == pytest.approx(logit(answers[star.star]), abs=1e-4)


def test_events_of_which_the_reader_joins_other_epochs_are_scored_all_the_same(run, folder):
    """Errors just below where epochs are joined: with an event, some of them are just above."""
    star = read_photometry(str(folder), "quick").seasons[0]
    error = np.where(np.arange(len(star.flux)) % 10 == 0, 1.49, 1.0) * np.median(star.error)
    star = star._replace(error=error)
    events = [(star.flux, error), *single_lenses(star, load_preset("baseline"), 3, 1, 0)]
    read = [seasons(LightCurve(star.star, star.time, *event, "flux", ""))[0] for event in events]
    assert len({len(season.flux) for season in read}) > 1
    found = season_scores(run.network, star, events)
    alone = [run.network.log_prob(season.flux[None], season.delta_t[None])[0, BINARY] for season in read]
    assert logit(found["whole_curve"]) == pytest.approx(logit(np.exp(alone)), abs=1e-3)


def test_the_higher_scores_count_where_the_reader_left_out_an_epoch_between_two_pauses(run):
    """Without that epoch the pause is so long that a second season begins behind it."""
    time = np.concatenate([np.arange(300) / 96, 43 + np.arange(300) / 96])
    error = np.full(600, 0.01)
    star = QuietSeason("x", np.arange(600), time, np.random.default_rng(0).normal(1, error), error, 20.0)
    events = single_lenses(star, load_preset("baseline"), 2, 1, 0)
    read = [seasons(LightCurve("x", time, *event, "flux", "")) for event in events]
    assert [len(parts) for parts in read] == [2, 2]
    found = season_scores(run.network, star, events)
    alone = [max(run.network.log_prob(s.flux[None], s.delta_t[None])[0, BINARY] for s in parts) for parts in read]
    assert logit(found["whole_curve"]) == pytest.approx(logit(np.exp(alone)), abs=1e-3)


def test_workers_take_it_too(events, run, made):
    config = ClassifyConfig(calibration=str(made))
    light_curves._start_worker(config, run, read_calibration(made, run))
    rows, error = light_curves._worker_answer(str(events[0]))
    assert not error and rows[0]["flags"] == "calibrated"


def test_evaluate_takes_it_and_leaves_its_stars_out(folder, run, tmp_path, monkeypatch):
    monkeypatch.setenv("MICROLENS_DATA", str(tmp_path))
    monkeypatch.setattr(metrics, "N_BOOTSTRAP", 20)
    config = SimulateConfig(n_flat=16, n_pspl=16, n_binary=16, photometry=str(folder), split="quick", num_workers=1,
                            output=str(tmp_path / "own.h5"))
    data = simulate(config, progress=False)
    n_train = sum(split_of(f"star_{k:02d}.dat") == "train" for k in range(N_STARS))
    path = calibrate(folder, CalibrateConfig(experiment_name="baseline", false_alarms=RATE, injections=1, split="train",
                                             output=str(tmp_path / "own.json")), run, progress=False)
    # Beyond half precision, in which alerts are found without a calibration, and within single precision.
    known = dataclasses.replace(read_calibration(path, run), alert=0.99995)
    assert known.n_stars == n_train >= 9
    write_calibration(path, known)
    config = EvaluateConfig(experiment_name="baseline", data=str(data), calibration=str(path),
                            output=str(tmp_path / "out"), **QUICK)
    scored = evaluate(config, progress=False)
    arrays, attributes = read_predictions(scored / "predictions.h5")
    summary = json.loads((scored / "evaluation_summary.json").read_text())
    with open_dataset(data) as opened:
        assert {split_of(star) for star in opened.stars[arrays["row"]]} <= {"val", "test"}
    assert summary["n"] == len(arrays["row"]) == 48 - 3 * n_train
    assert f"{3 * n_train} in stars of the calibration are left out" in summary["rows"]
    assert summary["threshold_from"].startswith(f"a calibration on {n_train} quiet stars: false alarms of single")
    assert summary["at_threshold"]["threshold"] == attributes["threshold"] == known.whole_curve
    packed = PackedDataset(data, run.network.view, run.network.stem_stride, progress=False)
    p = np.exp(run.network.log_prob_steps(*packed.gather(arrays["row"])).numpy()[..., BINARY])
    held = np.minimum(p[:, 1:], p[:, :-1]) >= np.float32(known.alert)
    assert np.array_equal(np.isfinite(arrays["t_alert"]), held.any(axis=1))
    _, caption = figures._scored_dataset(scored, summary, config, arrays, attributes)["alerts"]
    assert fr"$P(\mathrm{{binary}})$ $\geq$ 1 - 5e-05 (a calibration on {n_train} quiet stars)." in caption
    write_calibration(path, dataclasses.replace(known, stars=[f"star_{k:02d}.dat" for k in range(N_STARS)]))
    with pytest.raises(ValueError, match="all of its stars are those of the calibration"):
        evaluate(config, progress=False)


def test_evaluate_of_files_takes_it(events, run, made, tmp_path):
    truth = tmp_path / "truth.csv"
    truth.write_text("set,file,class_by_season\n" + "".join(f"own,{path.name},pspl\n" for path in events))
    folder = evaluate(EvaluateConfig(experiment_name="baseline", light_curves=str(events[0].parent), truth=str(truth),
                                     calibration=str(made),
                                     output=str(tmp_path / "out")))
    summary = json.loads((folder / "evaluation_summary.json").read_text())
    assert summary["threshold"] == read_calibration(made, run).whole_curve
    assert "a calibration on 16 quiet stars" in summary["threshold_from"]
    assert pd.read_csv(folder / "seasons.csv")["flags"].str.contains("calibrated").all()
