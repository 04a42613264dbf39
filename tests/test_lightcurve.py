import gzip
import os
from pathlib import Path

import numpy as np
import pytest

from microlens.data.lightcurve import LONGEST_JOINED_STEP, MOST_JOINED, LightCurve, seasons
from microlens.data.readers import read_light_curve
from microlens.data.tables import LightCurveError
from microlens.lens import pspl

EXAMPLES = Path(__file__).parents[1] / "notebooks" / "light_curves"
FOREIGN = Path(os.environ.get("MICROLENS_LIGHT_CURVES", Path(__file__).parents[2] / "shared" / "light_curves"))


@pytest.mark.parametrize("name, unit", [("flat_phot.dat", "mag"), ("pspl.csv.gz", "mag"), ("binary.txt.gz", "flux")])
def test_formats_and_baseline(name, unit):
    curve = read_light_curve(EXAMPLES / name)
    assert curve.unit == unit
    (season,) = seasons(curve)
    # The examples were made with m_base = 20. Both lensed ones are in progress all season long; the single lens is
    # recovered by the fit to its quoted precision, the binary to what the single lens leaves.
    if unit == "mag":
        assert season.m_base == pytest.approx(20.0, abs=0.001)
    assert np.percentile(season.flux, 1) == pytest.approx(1.0, abs=0.1)


GOOD = [f"{2461000 + i / 96:.5f} 19.0 0.01" for i in range(60)]
BROKEN = {"empty": b"", "binary": bytes(range(256)) * 4, "text": b"a story\nof words\n" * 30,
          "few": "\n".join(GOOD[:5]).encode(),
          "nan": "\n".join(x.replace("19.0", "nan") for x in GOOD).encode(), "gzip": gzip.compress(b"x" * 999)[:20],
          "errors": "\n".join(x.replace("0.01", "-1") for x in GOOD).encode()}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_one_line_naming_it(kind, tmp_path):
    path = tmp_path / f"{kind}.dat"
    path.write_bytes(BROKEN[kind])
    with pytest.raises(LightCurveError, match=f"{kind}.dat") as caught:
        read_light_curve(path)
    assert "\n" not in str(caught.value)


def test_unsorted_and_repeated_times_are_put_right(tmp_path):
    path = tmp_path / "x.dat"
    path.write_text("\n".join([*GOOD[::-1], GOOD[3]]))
    curve = read_light_curve(path)
    assert (np.diff(curve.time) > 0).all() and len(curve.notes) == 2


def test_errors_are_rescaled_to_the_scatter_of_neighbours(tmp_path):
    """Truth: noise drawn 1.5 times the stated error, under an event that changes slowly."""
    rng, t = np.random.default_rng(3), np.arange(5000) / 96
    flux = pspl(t, 25.0, 0.3, 6.0)
    for factor in (1.0, 1.5, 0.6):
        path = tmp_path / "x.csv"
        noisy = flux + 0.01 * factor * rng.normal(size=len(t))
        rows = [f"{a:.6f},{b:.6f},0.01" for a, b in zip(t, noisy, strict=True)]
        path.write_text("\n".join(["bjd,flux,flux_err", *rows]))
        (season,) = seasons(read_light_curve(path))
        wanted = 0.01 if factor == 1.0 else 0.01 * factor
        assert np.median(season.flux_err) == pytest.approx(wanted, rel=0.08) and bool(season.note) == (factor != 1.0)


def test_nights_with_many_epochs_are_still_sparse(tmp_path):
    """Twenty epochs an hour before dawn every night are no Roman cadence; a season with pauses is."""
    night = np.concatenate([np.arange(60)[:, None] + np.arange(20) / 480]).ravel()
    paused = np.delete(np.arange(6000) / 96, slice(1000, 1100))
    for t, wanted in ((night, True), (paused, False)):
        path = tmp_path / "x.dat"
        path.write_text("\n".join(f"{2461000 + a:.5f} 19.0 0.01" for a in t))
        assert [s.sparse for s in seasons(read_light_curve(path))] == [wanted]


@pytest.mark.skipif(not FOREIGN.is_dir(), reason=f"no foreign light curves in {FOREIGN}")
def test_every_foreign_file_is_read():
    files = [p for p in FOREIGN.glob("*/*") if p.is_file()]
    assert files and all(seasons(read_light_curve(p)) for p in files)


def test_epochs_with_poor_errors_are_left_out_and_peaks_are_not(tmp_path):
    """Three stretches of cloud, whose errors say so; a peak of magnification 100, whose errors in flux grow with it."""
    rng, t = np.random.default_rng(4), np.arange(5000) / 96
    flux = pspl(t, 25.0, 0.01, 6.0)
    error = 0.01 * np.sqrt(flux)
    cloudy = np.isin(np.arange(5000) // 12, (50, 130, 300))
    error[cloudy] *= 20
    path, clean = tmp_path / "x.csv", tmp_path / "clean.csv"
    noisy = flux + error * rng.normal(size=len(t))
    rows = [f"{a:.6f},{b:.6f},{e:.6f}" for a, b, e in zip(t, noisy, error, strict=True)]
    path.write_text("\n".join(["bjd,flux,flux_err", *rows]))
    clean.write_text("\n".join(["bjd,flux,flux_err", *np.array(rows)[~cloudy]]))
    (season,), (wanted,) = (seasons(read_light_curve(p)) for p in (path, clean))
    assert "36 epochs left out" in season.note
    assert np.allclose(season.flux, wanted.flux, rtol=1e-3) and season.flux.max() > 80  # the baseline moves by 2e-5


CADENCE = 1 / 96


def season_of(t, flux, error):
    (season,) = seasons(LightCurve("x", t, flux, error, "flux", ""))
    return season


@pytest.mark.parametrize("kind", ["single epochs", "stretches"])
def test_epochs_of_large_errors_are_joined_until_they_are_as_good_as_the_others(kind):
    """One epoch in five has three times the error, by itself or in stretches off the peak, of which one has a pause."""
    rng, t = np.random.default_rng(5), np.arange(5000) * CADENCE
    t[3700:] += 1.0
    spoilt = rng.random(5000) < 0.2 if kind == "single epochs" else np.isin(np.arange(5000) // 200, (2, 5, 8, 18, 22))
    error = np.where(spoilt, 0.03, 0.01)
    flux = pspl(t, 28.0, 0.3, 2.0) + error * rng.normal(size=5000)
    season = season_of(t, flux, error)
    assert " epochs joined to " in season.note and "left out" not in season.note
    assert np.isin(season.time, t).all() and (np.diff(season.time) > 0).all()
    assert np.mean(season.flux_err > 1.1 * np.median(season.flux_err)) < 1e-3
    # A pause stays, no join is longer than it may be, and a join says as much as the epochs that it is made of.
    assert np.isclose(np.sort(np.diff(season.time))[-1], 1.0, atol=MOST_JOINED * CADENCE)
    assert np.sort(np.diff(season.time))[-2] < MOST_JOINED * LONGEST_JOINED_STEP * CADENCE
    assert np.sum(season.flux_err.astype(float) ** -2) == pytest.approx(np.sum(error**-2.0), rel=0.01)
    residual = (season.flux - pspl(season.time, 28.0, 0.3, 2.0)) / season.flux_err
    assert np.std(residual) == pytest.approx(1.0, abs=0.05) and np.abs(residual).max() < 5


def test_epochs_between_spoilt_ones_stay_as_they_are():
    rng, t = np.random.default_rng(6), np.arange(5000) * CADENCE
    flux, error = 1 + 0.01 * rng.normal(size=5000), np.full(5000, 0.01)
    clean = season_of(t, flux, error)
    error[1000:1009] = 0.03
    season = season_of(t, flux, error)
    assert season.note == "9 epochs joined to 1: errors over 1.5 times those of others"
    assert np.array_equal(np.delete(season.flux, 1000), np.delete(clean.flux, slice(1000, 1009)))
    assert season.flux[1000] == pytest.approx(clean.flux[1000:1009].mean()) and season.time[1000] == t[1004]


def test_a_trough_between_two_peaks_and_its_edges_are_no_poor_epochs():
    """Errors of a faint star, which fall relative to the flux; a caustic that is entered and left, and a steep peak."""
    rng, t = np.random.default_rng(7), np.arange(5000) * CADENCE
    flux = 1 + 60 / np.sqrt(1 + (np.abs(t - 20) / 0.03) ** 2) + 60 / np.sqrt(1 + (np.abs(t - 20.3) / 0.03) ** 2)
    flux += pspl(t, 35.0, 0.01, 2.0)
    flux[2000:2020] = 4.0  # for 5 hours, between 60 and more
    flux[1975:2000] = flux[2020:2045] = 80.0
    error = np.sqrt(0.1**2 + 0.02**2 * flux)
    season = season_of(t, flux + error * rng.normal(size=5000), error)
    assert len(season.flux) == 5000 and "joined" not in season.note and "left out" not in season.note
