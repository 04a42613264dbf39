"""The nightly run over real files and in real processes: `microlens stream`."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from astropy.io import fits
from astropy.table import Table

from microlens import files
from microlens.__main__ import main
from microlens.config import BINARY, CLASSES, FLUX_VIEW, SimulateConfig, StreamConfig
from microlens.data import open_dataset, simulate
from microlens.data.format import new_file
from microlens.data.joining import WAITING, joined
from microlens.data.lightcurve import CADENCE, error_ratio
from microlens.data.nights import read_epochs
from microlens.data.parquet import export_parquet
from microlens.evaluate import nightly, read_stars, stream_nights
from microlens.network import load_run
from microlens.network.model import from_config
from microlens.network.predict import alert_steps

START = 2_461_450.0  # JD of the season's first epoch
COLUMNS = ["star", "time", "flux", "error", "baseline"]
NAMES = [f"star {k}" for k in (7, 3, 11, 5, 2, 13)]


@pytest.fixture(scope="module")
def run():
    return load_run()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """A dataset of six events."""
    path = tmp_path_factory.mktemp("season") / "x.h5"
    return simulate(SimulateConfig(n_flat=1, n_pspl=1, n_binary=4, binary_preset="distinct", split="quick",
                                   num_workers=1, output=str(path)), progress=False)


@pytest.fixture(scope="module")
def season(dataset):
    """The epochs of six stars, four of them binaries, in half a season: columns COLUMNS and `night`, 12 d each."""
    with open_dataset(dataset) as data:
        flux, base = data.flux().astype(float), 10 ** (-0.4 * (data.m_base.astype(float) - 23.9))
        rows, epochs = np.nonzero(flux)
        t = START + data.timestamps[epochs]
    table = pd.DataFrame({"star": np.array(NAMES)[rows], "time": t, "flux": flux[rows, epochs] * base[rows],
                          "error": 0.01 * base[rows], "baseline": base[rows]})
    table = table.round({"time": 5, "flux": 5, "baseline": 5})  # which text holds exactly
    table = table.assign(night=((t - START) / 12).astype(int))
    return table[table.night < 3]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(table, path, columns=COLUMNS) -> str:
    """A table as a file whose format is that of the path's ending."""
    if str(path).endswith(".parquet"):
        table[columns].to_parquet(path)
    else:
        table[columns].to_csv(path, index=False)
    return str(path)


def streamed(run, files, state="stars.h5", **options):
    """The alerts of a run in this process, as a list of dicts, and its counts."""
    said = []
    counts = stream_nights(files, StreamConfig(state=str(state), **options), said.append, run)
    return [json.loads(line) for line in "".join(said).splitlines()], counts


def arrays(state) -> dict:
    """All arrays of a state by name, the rows in the order of the stars' names."""
    with h5py.File(state) as f:
        order, parts = np.argsort(f["name"][:]), {}
        f.visititems(lambda name, part: parts.update({name: part}))
        return {name: part[:][order] for name, part in parts.items() if isinstance(part, h5py.Dataset)}


def assert_same(one, other):
    one, other = arrays(one), arrays(other)
    assert one.keys() == other.keys()
    for name, values in one.items():
        assert values.tobytes() == other[name].tobytes(), name


def command(*arguments):
    """A process of `microlens stream`."""
    return subprocess.Popen([sys.executable, "-m", "microlens", "stream", *arguments], text=True,
                            env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


# ---- the same as one pass -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(run, season, tmp_path_factory):
    """The state after all epochs in one file, and their alerts."""
    place = tmp_path_factory.mktemp("whole")
    alerts, counts = streamed(run, [written(season, place / "all.parquet")], place / "stars.h5")
    assert (counts["stars"], counts["epochs"], counts["known already"]) == (6, len(season), 0)
    return place / "stars.h5", alerts


def first_alerts(whole) -> list[dict]:
    """The alerts of the first night."""
    found = [alert for alert in whole[1] if alert["time"] < START + 12]
    assert found
    return found


def curve(season, star):
    """F/F_base and delta_t (1, T) of a star as the batch takes them."""
    of_star = season[season.star == star]
    t = of_star.time.to_numpy()
    flux = (of_star.flux / of_star.baseline).to_numpy().astype(np.float32)
    return flux[None], np.diff(t, prepend=t[0]).astype(np.float32)[None]


def test_probabilities_and_alerts_are_those_of_the_batch(run, season, whole):
    state, alerts = whole
    known, raised = read_stars(state).set_index("star"), {alert["star"]: alert for alert in alerts}
    threshold = nightly.alert_threshold(run.validation)
    for star in NAMES:
        flux, delta_t = curve(season, star)
        steps = run.network.log_prob_prefixes(flux, delta_t)[0]
        p = [known.loc[star, f"p_{name}"] for name in CLASSES[: steps.shape[1]]]
        log_p = run.network.log_prob(flux, delta_t)[0].astype(float)
        assert np.array_equal(p, np.exp(log_p)), "bit for bit"
        stride = run.network.stem_stride
        score = np.exp(np.concatenate([steps[:1], steps[stride - 1 :: stride]])[:, BINARY]).astype(np.float32)
        (step,) = alert_steps(score[None], threshold)
        assert (step >= 0) == (star in raised)
        if step >= 0:
            t = season[season.star == star].time.to_numpy()[step * stride - 1]
            assert raised[star]["time"] == t == known.loc[star, "alert"]
            assert raised[star]["p_binary"] >= threshold - 1e-3 and abs(raised[star]["t_0"] - t) < 60
    assert len(raised) >= 2 and len(alerts) == len(raised)


def test_nights_one_by_one_give_the_same_bits_as_all_at_once(run, season, whole, place):
    """In files of any format and order of rows, with a star that is first seen late and one that misses a night."""
    state, wanted = whole
    nights = [part.sample(frac=1, random_state=k) for k, part in season.groupby("night")]
    alerts = []
    for k, night in enumerate(nights):
        files = [written(half, place / f"night {k} {i}.{'parquet' if k % 2 else 'csv'}")
                 for i, half in enumerate((night.iloc[::2], night.iloc[1::2]))]
        alerts += streamed(run, files)[0]
    assert_same(state, "stars.h5")
    assert sorted(alerts, key=lambda a: a["time"]) == wanted


def test_pieces_and_neighbours_change_nothing(run, season, whole, place, monkeypatch):
    monkeypatch.setattr(nightly, "PIECE", 2)
    monkeypatch.setattr(nightly, "COLUMNS_AT_ONCE", 500)
    alerts, _ = streamed(run, [written(season, "all.parquet")])
    assert_same(whole[0], "stars.h5")
    assert alerts == whole[1]
    alone = season[season.star == NAMES[2]]
    streamed(run, [written(alone, "one.parquet")], "one.h5")
    both = arrays(whole[0]), arrays("one.h5")
    row = list(both[0]["name"]).index(NAMES[2].encode())
    for name in both[0].keys() - {"name"}:
        assert both[0][name][row].tobytes() == both[1][name][0].tobytes(), name


# ---- errors that differ ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spoilt(season):
    """The season with three times the noise and error in every fourth half day, and 30 epochs that are far worse."""
    rng, table = np.random.default_rng(3), season.copy()
    half_day = ((table.time - START) * 2).astype(int)
    growth = np.where(half_day % 4 == 3, 3.0, 1.0)
    growth[rng.choice(np.flatnonzero(half_day > 1), 30, replace=False)] = 20.0
    true_error = table.star.map({name: np.std(np.diff(of.flux.to_numpy()[:300], 2)) / np.sqrt(6)
                                 for name, of in table.groupby("star")})
    table["flux"] += np.sqrt(growth**2 - 1) * true_error * rng.normal(size=len(table))
    table["error"] = growth * true_error
    return table.round({"flux": 5, "error": 5})


def test_poor_epochs_are_left_out_and_others_joined_whatever_the_pieces(run, spoilt, place):
    _, counts = streamed(run, [written(spoilt, "all.parquet")], "whole.h5")
    assert 25 <= counts["poor"] <= 30  # on a bright peak an error counts relative to the flux
    for number, (_, part) in enumerate(spoilt.groupby(((spoilt.time - START) * 3.1).astype(int))):
        streamed(run, [written(part, f"{number}.csv")])
    assert_same("whole.h5", "stars.h5")
    assert (read_stars("stars.h5").n_counted == spoilt.groupby("star").size()[sorted(NAMES)].to_numpy()).all()


def test_a_constant_star_stays_constant_where_its_errors_say_that_some_epochs_are_worse(run, spoilt, dataset, place):
    with open_dataset(dataset) as data:
        (flat,) = np.array(NAMES)[data.labels == 0]
    own = spoilt[spoilt.star == flat]
    streamed(run, [written(own, "with.csv")], "with.h5")
    without_error = [name for name in COLUMNS if name != "error"]
    streamed(run, [written(own, "without.csv", without_error)], "without.h5")
    p_flat, taken_for_good = (read_stars(state).p_flat[0] for state in ("with.h5", "without.h5"))
    assert p_flat > 0.95 > taken_for_good


def test_joined_one_by_one_is_joined_at_once():
    rng, time = np.random.default_rng(1), np.cumsum(np.append(0, np.where(np.arange(199) % 50 == 49, 0.5, CADENCE)))
    flux, ratio = 1 + 0.01 * rng.normal(size=200), rng.choice([1.0, 1.6, 3.0, np.nan], 200)
    t, f, waiting = joined(np.zeros((), WAITING), time, flux, ratio)
    parts, state = [], np.zeros((), WAITING)
    for k in range(200):
        *handed_on, state = joined(state, time[k : k + 1], flux[k : k + 1], ratio[k : k + 1])
        parts.append(handed_on)
    assert np.array_equal(np.concatenate([part[0] for part in parts]), t) and (np.diff(t) > 0).all()
    assert np.array_equal(np.concatenate([part[1] for part in parts]), f) and state == waiting
    assert 60 < len(t) < 150
    four = joined(np.zeros((), WAITING), time[:5], np.array([1.0, 2.0, 3.0, 2.0, 7.0]), np.array([2.0, 2, 2, 2, 1]))
    assert four[0] == pytest.approx([1.5 * CADENCE, 4 * CADENCE]) and four[1] == pytest.approx([2.0, 7.0])


def test_a_peak_is_not_poor_for_its_larger_errors():
    """Errors in those of an ordinary epoch at the baseline: of the baseline, of a peak, of poor epochs at both."""
    flux, error = np.array([1.0, 10.0, 1.0, 10.0]), np.array([0.01, 0.032, 0.03, 0.9])
    ratio = error_ratio(flux, error, lambda values: 0.01)
    assert ratio == pytest.approx([1.0, 0.32, 3.0, 12.3], rel=0.02)


def test_a_curve_of_a_stream_does_not_depend_on_the_others(run):
    flux = (1 + 0.01 * np.random.default_rng(0).normal(size=(700, 64))).astype(np.float32)
    delta_t = np.full_like(flux, 1 / 96)
    together = run.network.stream(700).update(flux, delta_t)
    for rows in ([0], [699], range(3, 600, 7)):
        assert np.array_equal(run.network.stream(len(rows)).update(flux[rows], delta_t[rows]), together[rows])


def test_a_network_that_reads_the_flux_alone(season, place, run):
    torch.manual_seed(0)
    config = run.config | {"view": FLUX_VIEW}
    network = from_config(config).eval()
    other = replace(run, network=network, config=config)
    season = season[season.night < 1]
    streamed(other, [written(season, "all.parquet")], "one.h5")
    for part in (season[season.time < START + 5], season[season.time >= START + 5]):
        streamed(other, [written(part, "part.parquet")], "two.h5")
    assert_same("one.h5", "two.h5")
    p = read_stars("one.h5").set_index("star").loc[NAMES[0], [f"p_{c}" for c in CLASSES[:3]]].to_numpy(float)
    assert np.array_equal(p, np.exp(network.log_prob(*curve(season, NAMES[0]))[0].astype(float)))


# ---- nothing twice, nothing lost ------------------------------------------------------------------------------------


def test_the_same_night_twice_changes_nothing(run, season, place):
    files = [written(season[season.night == 0], "a.csv"), written(season[season.night == 1], "b.csv")]
    _, counts = streamed(run, files)
    before = (place / "stars.h5").read_bytes()
    again, counts_again = streamed(run, files[::-1])
    assert (place / "stars.h5").read_bytes() == before and not again
    assert counts_again["epochs"] == 0 and counts_again["known already"] == counts["epochs"]
    # An epoch that is there twice in one file counts once; a late one, before the last, does not.
    more = season[season.night == 2]
    streamed(run, [written(pd.concat([more, more, season[season.night == 0]]), "c.csv")])
    streamed(run, [*files, written(more, "d.csv")], "wanted.h5")
    assert_same("stars.h5", "wanted.h5")


def test_killed_and_run_again_is_as_never_killed(run, season, place):
    """A process that is killed while it writes leaves the state as it was; the same command then does the same work.

    It waits for its turn where another run is at work on the state.
    """
    first, second = (written(season[season.night == k], f"{k}.parquet") for k in (0, 1))
    for state in ("stars.h5", "wanted.h5"):
        streamed(run, [first], state)
    wanted, _ = streamed(run, [second], "wanted.h5")
    before = (place / "stars.h5").read_bytes()
    killed = command("--state", "stars.h5", second)
    while killed.poll() is None and not list(place.glob(".stars.h5.*.tmp")):
        time.sleep(0.001)
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    assert (place / "stars.h5").read_bytes() == before and list(place.glob(".stars.h5.*.tmp"))
    with files.lock(place / ".stars.h5.lock"):
        again = command("--state", "stars.h5", second)
        assert "another run is at work on stars.h5" in again.stderr.readline()
        assert (place / "stars.h5").read_bytes() == before
    output, error = again.communicate(timeout=200)
    assert again.returncode == 0, error
    assert [json.loads(line) for line in output.splitlines()] == wanted
    assert (place / "stars.h5").read_bytes() == (place / "wanted.h5").read_bytes() != before
    assert not list(place.glob(".*.tmp"))


def test_alerts_that_nobody_takes_are_not_lost(run, season, whole, place):
    file = written(season[season.night == 0], "first.parquet")

    def refuse(text):
        raise ValueError("nobody listens")

    with pytest.raises(ValueError, match="nobody listens"):
        stream_nights([file], StreamConfig(), refuse, run)
    assert not list(place.glob("*.h5")) and not list(place.glob(".*.tmp"))
    assert streamed(run, [file])[0] == first_alerts(whole)


# ---- the stars ------------------------------------------------------------------------------------------------------


def test_the_reference_flux_is_the_median_of_the_first_epochs_which_wait(run, season, place):
    n, one = nightly.N_REFERENCE, season[season.star == NAMES[0]]
    without = [name for name in COLUMNS if name != "baseline"]
    _, counts = streamed(run, [written(one[: n - 1], "a.csv", without)])
    assert counts["waiting"] == 1
    stars = read_stars("stars.h5")
    assert np.isnan(stars.reference[0]) and stars.n_counted[0] == 0 and stars.time[0] == one.time.iloc[n - 2]
    _, counts = streamed(run, [written(one[n - 1 : 500], "b.csv", without)])
    assert counts["waiting"] == 0
    stars = read_stars("stars.h5")
    assert stars.reference[0] == np.median(one.flux[:n]) and stars.n_counted[0] == 500
    streamed(run, [written(one[:500].assign(baseline=stars.reference[0]), "c.csv")], "wanted.h5")
    assert_same("stars.h5", "wanted.h5")


def test_another_baseline_than_the_first_one_is_not_taken_and_counted(run, season, place):
    one = season[season.star == NAMES[0]][:200]
    changed = one.assign(baseline=np.where(np.arange(200) < 100, one.baseline, 2 * one.baseline))
    _, counts = streamed(run, [written(changed, "a.csv")])
    assert counts["stars of another baseline"] == 1
    _, counts = streamed(run, [written(one, "b.csv")], "wanted.h5")
    assert counts["stars of another baseline"] == 0
    assert_same("stars.h5", "wanted.h5")


def test_magnitudes(run, season, place):
    one = season[season.star == NAMES[3]][:400]
    for name in ("flux", "baseline"):
        one = one.assign(**{name: -2.5 * np.log10(one[name])})
    streamed(run, [written(one.rename(columns={"flux": "mag"}), "a.csv", ["star", "time", "mag", "error", "baseline"])],
             "mag.h5")
    streamed(run, [written(season[season.star == NAMES[3]][:400], "b.csv")])
    p = [read_stars(state).filter(like="p_").to_numpy() for state in ("mag.h5", "stars.h5")]
    assert p[0] == pytest.approx(p[1], abs=1e-3)


def test_a_new_season_begins_anew_with_the_old_reference_flux(run, season, place):
    one = season[season.star == NAMES[4]]
    first, second = one[:300], one[300:700].assign(time=one.time[300:700] + 100, baseline=np.nan)
    streamed(run, [written(pd.concat([first, second]), "a.parquet")])
    streamed(run, [written(first, "b.parquet")], "two.h5")
    streamed(run, [written(second, "c.parquet")], "two.h5")
    assert_same("stars.h5", "two.h5")
    streamed(run, [written(second.assign(baseline=one.baseline.iloc[0]), "d.parquet")], "alone.h5")
    known, alone = arrays("stars.h5"), arrays("alone.h5")
    assert all(known[name].tobytes() == alone[name].tobytes() for name in known if name.startswith("stream/"))
    assert known["star"]["start"] == second.time.iloc[0] and known["star"]["n_counted"] == 700


def test_a_star_without_new_epochs_stays_as_it_is_and_a_new_one_comes_behind(run, season, place):
    old, new = season[season.star.isin(NAMES[:2])], season[season.star == NAMES[5]]
    streamed(run, [written(old[old.night < 1], "a.parquet")])
    before = arrays("stars.h5")
    _, counts = streamed(run, [written(pd.concat([new, old[(old.star == NAMES[1]) & (old.night == 1)]]), "b.parquet")])
    assert (counts["stars"], counts["new stars"]) == (3, 1)
    after = arrays("stars.h5")
    row, was = (list(known["name"]).index(NAMES[0].encode()) for known in (after, before))
    assert all(after[name][row].tobytes() == before[name][was].tobytes() for name in before if name != "name")


def test_an_alert_at_another_cadence_says_so(run, season, place):
    slow = season.groupby("star").nth(list(range(0, 7000, 12)))
    fast = season.assign(time=START + (season.time - START) / 4)
    for flag, table in (("sparse", slow), ("fast", fast)):
        alerts, _ = streamed(run, [written(table, "a.parquet")], f"{flag}.h5")
        assert alerts and {alert["flags"] for alert in alerts} == {flag}


def test_what_is_no_measurement_is_left_out_and_counted(run, season, place):
    night = season[season.night == 0].reset_index(drop=True)
    bad = night.assign(saturated=0)
    bad.loc[3, "flux"], bad.loc[50, "error"], bad.loc[90, "saturated"], bad.loc[95, "star"] = np.nan, 0, 1, None
    _, counts = streamed(run, [written(bad, "a.parquet", [*COLUMNS, "saturated"])])
    assert counts["epochs"] == len(night) - 4
    streamed(run, [written(night.drop([3, 50, 90, 95]), "b.csv")], "wanted.h5")
    assert_same("stars.h5", "wanted.h5")
    epochs = read_epochs([written(bad, "c.csv", [*COLUMNS, "saturated"])], StreamConfig())
    assert sum(epochs.dropped.values()) == 4


def test_the_wide_band_is_read_of_several(season, place):
    mixed = pd.concat([season.assign(band="F146"), season.assign(band="F087", flux=0.0)])
    epochs = read_epochs([written(mixed, "a.parquet", [*COLUMNS, "band"])], StreamConfig())
    assert epochs.band == "F146" and len(epochs.time) == len(season) and (epochs.flux > 0).all()
    with pytest.raises(ValueError, match="hold the bands F087, F213; say with --band"):
        two = pd.concat([mixed.assign(band="F087"), mixed.assign(band="F213")])
        read_epochs([written(two, "b.parquet", [*COLUMNS, "band"])], StreamConfig())


def test_rows_without_a_band_and_of_other_bands_are_counted(season, place):
    night = season[season.night == 0].reset_index(drop=True)
    some = night.assign(band="F146")
    some.loc[:9, "band"], some.loc[10:14, "band"] = None, "F087"
    for path in ("a.parquet", "a.csv"):
        epochs = read_epochs([written(some, path, [*COLUMNS, "band"])], StreamConfig())
        assert len(epochs.time) == len(night) - 15
        assert epochs.dropped == {"without a band": 10, "of other bands": 5}
    none = written(night, "none.csv")
    for both in (["a.csv", none], [none, "a.csv"]):
        with pytest.raises(ValueError, match=r"some files state bands and others do not: .*none \(none.csv\)"):
            read_epochs(both, StreamConfig())


@pytest.mark.parametrize("value", [-999.0, 9.9e9, 0.0])
def test_a_flux_that_stands_for_no_measurement_is_left_out(run, season, place, value):
    night = season[season.night == 0].reset_index(drop=True)
    bad = np.arange(len(night)) % 50 == 7
    for k, table in enumerate((night, night.drop(columns="error"))):
        columns = [name for name in COLUMNS if name in table]
        marked = written(table.assign(flux=table.flux.mask(bad, value)), "bad.parquet", columns)
        _, counts = streamed(run, [marked], f"bad_{k}.h5")
        assert (counts["epochs"], counts["no measurement"]) == (len(night), bad.sum())
        streamed(run, [written(table[~bad], "good.parquet", columns)], f"good_{k}.h5")
        p = [f"p_{name}" for name in CLASSES]
        assert read_stars(f"bad_{k}.h5")[p].equals(read_stars(f"good_{k}.h5")[p])


def test_a_magnitude_that_stands_for_no_measurement_is_left_out(run, season, place):
    night = season[season.night == 0].reset_index(drop=True)
    night = night.assign(mag=15 - 2.5 * np.log10(night.flux / night.baseline), error=0.01)
    columns, bad = ["star", "time", "mag", "error"], np.arange(len(night)) % 50 == 7
    for value in (9.999, 0.0):
        file = written(night.assign(mag=night.mag.mask(bad, value)), "a.csv", columns)
        _, counts = streamed(run, [file], f"{value}.h5")
        assert (counts["epochs"], counts["no measurement"]) == (len(night), bad.sum())


@pytest.mark.parametrize("value", [9999.0, 0.0, -1.0])
def test_a_time_that_stands_for_none_does_not_silence_its_star(run, season, place, value):
    night = season[season.night == 0].assign(time=lambda table: table.time - 2457000).reset_index(drop=True)
    file = written(night.assign(time=night.time.mask(night.index == 9, value)), "a.csv")
    epochs = read_epochs([file], StreamConfig())
    assert len(epochs.time) == len(night) - 1 and epochs.dropped == {"without a time": 1}


def test_bands_in_the_extensions_of_a_fits_file_and_in_several_columns(season, place):
    night = season[season.night == 0][COLUMNS]
    parts = [fits.BinTableHDU(Table.from_pandas(night.assign(flux=flux)), name=band)
             for band, flux in (("F146", night.flux), ("F087", 0.1 * night.flux))]
    fits.HDUList([fits.PrimaryHDU(), *parts]).writeto("a.fits")
    epochs = read_epochs(["a.fits"], StreamConfig())
    assert epochs.band == "F146" and np.array_equal(epochs.flux, night.flux)
    both = pd.concat([night.assign(filter="W", telescope=which) for which in "AB"])
    for path in ("b.csv", "b.parquet"):
        file = written(both, path, [*COLUMNS, "filter", "telescope"])
        with pytest.raises(ValueError, match="hold the bands W/A, W/B; say with --band"):
            read_epochs([file], StreamConfig())
        assert len(read_epochs([file], StreamConfig(band="B")).time) == len(night)


@pytest.mark.parametrize("path", ["a.csv", "a.parquet"])
def test_the_column_that_tells_stars_apart_names_them(season, place, path):
    night = season[season.night == 0].assign(object="BLG512")
    epochs = read_epochs([written(night, path, [*COLUMNS, "object"])], StreamConfig())
    assert set(epochs.names) == set(NAMES)


def test_stars_that_are_numbers_in_fits(season, place):
    night = season[season.night == 0].assign(star=lambda table: table.star.str[5:].astype(int))
    Table.from_pandas(night[COLUMNS]).write("a.fits")
    assert set(read_epochs(["a.fits"], StreamConfig()).names) == {name[5:] for name in NAMES}


def test_two_values_of_one_star_and_time_are_told(run, season, place):
    night = season[season.night == 0]
    file = written(pd.concat([night, night.assign(flux=2 * night.flux)]), "a.csv")
    _, counts = streamed(run, [file])
    assert counts["contradicted"] == counts["known already"] == counts["epochs"] == len(night)


def test_lines_of_another_length_are_counted(season, place):
    night = season[season.night == 0][COLUMNS].assign(remark="x")
    lines = night.to_csv(index=False).splitlines()
    lines[5], lines[6] = lines[5].rsplit(",", 1)[0], lines[6].rsplit(",", 3)[0]  # the last cell, and three
    (place / "a.csv").write_text("\n".join(lines))
    epochs = read_epochs(["a.csv"], StreamConfig())
    assert len(epochs.time) == len(night) - 1 and epochs.dropped == {"in lines with another number of columns": 1}


def test_arrays_of_epochs_are_refused_in_words(season, place):
    pd.DataFrame({"star": ["a"], "time": [[1.0, 2.0]], "flux": [[1.0, 1.0]]}).to_parquet("a.parquet")
    with pytest.raises(ValueError, match="its column time holds arrays, a row a star; expected a row an epoch"):
        read_epochs(["a.parquet"], StreamConfig())


def test_times_that_count_from_another_day_are_refused(run, season, place):
    night = season[season.night == 0]
    reduced = {}
    for zero in (2450000, 2457000):
        table = night[COLUMNS].assign(time=night.time - zero).rename(columns={"time": f"HJD-{zero}"})
        reduced[zero] = written(table, f"{zero}.csv", list(table.columns))
    whole = written(night, "whole.csv")
    with pytest.raises(ValueError, match=r"count from different Julian dates: 2450000 .* and 2457000 .*\. Bring all"):
        read_epochs(reduced.values(), StreamConfig())
    streamed(run, [reduced[2450000]])
    before = arrays("stars.h5")
    for other, zero in ((reduced[2457000], 2457000), (whole, 0)):
        with pytest.raises(ValueError, match=f"had the Julian date of time 0 2450000, those of the new .* have {zero}"):
            streamed(run, [other])
    assert all(values.tobytes() == before[name].tobytes() for name, values in arrays("stars.h5").items())


def test_a_first_night_without_a_measurement_makes_no_state(run, season, place, caplog):
    night = season[season.night == 0]
    caplog.set_level("INFO", logger="microlens")
    alerts, counts = streamed(run, [written(night.assign(error=0.0), "a.csv")])
    assert (alerts, counts["stars"], counts["epochs"]) == ([], 0, 0) and not (place / "stars.h5").exists()
    assert f"{len(night)} rows left out with an error that is not positive" in caplog.text


def test_a_baseline_in_another_unit_than_the_brightness_is_refused(season, place):
    night = season[season.night == 0]
    magnitudes = night.assign(mag=18.0, error=0.01)
    file = written(magnitudes.assign(baseline=100.0), "a.csv", ["star", "time", "mag", "error", "baseline"])
    with pytest.raises(ValueError, match=r"column baseline \(100\) holds no magnitudes, but the brightness, mag, is"):
        read_epochs([file], StreamConfig())


@pytest.mark.parametrize("star", [[12, 7], [12.0, 7.0], ["12", " 7"], pd.Categorical(["12", "7"])],
                         ids=["numbers", "floats", "text", "categories"])
@pytest.mark.parametrize("path", ["a.parquet", "a.csv"])
def test_a_star_has_one_name_however_it_is_written(place, path, star):
    table = pd.DataFrame({"star": star, "time": [1.0, 2.0], "flux": [3.0, 4.0], "error": 0.1, "baseline": np.nan})
    epochs = read_epochs([written(table, path)], StreamConfig())
    assert list(epochs.names[epochs.star]) == ["12", "7"] and list(epochs.flux) == [3.0, 4.0]


def test_an_exported_dataset_has_its_times_in_the_table_beside(dataset, place):
    obs, *_ = export_parquet(dataset, place / "events")
    (place / "events" / "a.parquet").write_bytes(obs.read_bytes()[:1000])  # a damaged neighbour
    epochs = read_epochs([obs], StreamConfig())
    with open_dataset(dataset) as data:
        flux, start = data.flux(), data.preset.field.season_start
        assert len(epochs.time) + epochs.dropped["marked by saturation_flag"] == np.count_nonzero(flux)
        one = epochs.star == list(epochs.names).index("0")
        assert epochs.time[one] == pytest.approx(start + data.timestamps[flux[0] != 0])
    assert epochs.unit == "uJy" and epochs.band == "F146"


# ---- the command ----------------------------------------------------------------------------------------------------


def test_alerts_are_printed_as_lines_of_json_or_as_csv(season, whole, place, capsys):
    file, wanted = written(season[season.night == 0], "first.parquet"), first_alerts(whole)
    assert main(["stream", "--state", "one.h5", file]) == 0
    output = capsys.readouterr().out
    assert [json.loads(line) for line in output.splitlines()] == wanted
    assert main(["stream", "--state", "two.h5", "--format", "csv", file]) == 0
    table = pd.read_csv(pd.io.common.StringIO(capsys.readouterr().out))
    assert list(table.star) == [alert["star"] for alert in wanted]
    assert list(table.columns) == list(wanted[0]) and list(table.time) == [alert["time"] for alert in wanted]


@pytest.fixture(scope="module")
def inputs(run, season, tmp_path_factory):
    """A folder with a night good.csv, the state stars.h5 after it, and files that do not go with it."""
    place, night = tmp_path_factory.mktemp("inputs"), season[season.night == 0][:2000]
    streamed(run, [written(night, place / "good.csv")], place / "stars.h5")
    state = (place / "stars.h5").read_bytes()
    written(night, place / "nostar.csv", COLUMNS[1:])
    written(night.rename(columns={"flux": "delta_flux"}), place / "difference.csv",
            ["star", "time", "delta_flux", "error"])
    written(night.assign(mag=20.0, time=night.time + 90), place / "mag.csv", ["star", "time", "mag", "error"])
    written(night.assign(time=night.time - 2_400_000.5), place / "mjd.csv")
    (place / "damaged.parquet").write_bytes((b"PAR1" + state)[:3000])
    (place / "cut.h5").write_bytes(state[:-1000])
    (place / "folder").mkdir()
    with new_file(place / "x.h5", 1000) as f:
        f.create_dataset("flux", data=np.zeros(3))
    return place


@pytest.mark.parametrize("arguments, message", [
    ([], "no file given"),
    (["gone.parquet"], "gone.parquet: no such file"),
    (["nostar.csv"], "nostar.csv: no column is known to name the star"),
    (["damaged.parquet"], "damaged.parquet: cannot be read"),
    (["difference.csv"], "difference flux"),
    (["mag.csv"], "had the unit flux, those of the new files have mag"),
    (["mag.csv", "good.csv"], "in different units"),
    (["mjd.csv"], "in another system or unit"),
    (["mjd.csv", "mag.csv", "--state", "new.h5"], "in different units"),
    (["mjd.csv", "good.csv", "--state", "new.h5"], "in another system or unit"),
    (["good.csv", "--experiment-name", "roman"], "is the state of another network (sky"),
    (["good.csv", "--event", "nobody"], "no file holds a star 'nobody'"),
    (["good.csv", "--state", "cut.h5"], "cut.h5: is damaged or cut short"),
    (["good.csv", "--state", "good.csv"], "good.csv: is no file of this version of the package"),
    (["good.csv", "--state", "x.h5"], "x.h5: is damaged or no state of stars"),
    (["good.csv", "--state", "folder"], "folder: is a folder"),
])
def test_a_bad_input_is_one_line_and_leaves_the_state_alone(inputs, place, capsys, arguments, message):
    shutil.copytree(inputs, place, dirs_exist_ok=True)
    kept = (place / "stars.h5").read_bytes()
    assert main(["stream", *arguments]) == 1
    output, error = capsys.readouterr()
    (line,) = [line for line in error.splitlines() if line.startswith("error: ")]
    assert message in line and not output
    assert (place / "stars.h5").read_bytes() == kept


def test_a_closed_pipe_leaves_the_state_alone(season, place):
    file = written(season[season.night == 0], "first.parquet")
    process = command("--state", "stars.h5", file)
    process.stdout.close()
    assert process.wait(timeout=200) == 1
    error = process.stderr.read()
    assert "could not be printed" in error and "Traceback" not in error and not list(place.glob("*.h5"))
