"""Events in real photometry: epochs, noise and errors stay, and no star is in two parts."""

from pathlib import Path

import numpy as np
import pytest

from microlens.config import SimulateConfig, TrainConfig
from microlens.data import LightCurveError, PackedDataset, open_dataset, simulate
from microlens.data.events import true_flux
from microlens.data.fresh import FreshEvents
from microlens.data.packed import split_rows
from microlens.data.parquet import export_parquet
from microlens.data.photometry import read_photometry, split_of
from microlens.network import load_run
from microlens.network.training import train

SHARED = Path(__file__).parents[2] / "shared" / "light_curves"
N_STARS, ERROR = 24, 0.02
SMALL = {"n_flat": 8, "n_pspl": 12, "n_binary": 12, "seed": 3, "num_workers": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files of quiet stars, each with gaps of its own and with noise that is not Gaussian."""
    rng, out = np.random.default_rng(0), tmp_path_factory.mktemp("stars")
    (out / "README.md").write_text("Quiet stars.\n")
    t = 2461447.757 + np.arange(0, 70, 1 / 96)
    for k in range(N_STARS):
        seen = rng.random(len(t)) > 0.3
        mag = 19 + 0.1 * k + ERROR * np.clip(rng.standard_t(3, len(t)), -6, 6)
        rows = np.column_stack([t, mag, np.full(len(t), ERROR)])[seen]
        np.savetxt(out / f"star_{k:02d}.dat", rows, fmt=["%.6f", "%.4f", "%.4f"])
    return out


@pytest.fixture(scope="module")
def datasets(folder, tmp_path_factory):
    """A training and a test dataset of events in these stars: their paths by split."""
    out = tmp_path_factory.mktemp("injected")
    configs = {split: SimulateConfig(photometry=str(folder), split=split, output=str(out / f"{split}.h5"), **SMALL)
               for split in ("train", "test")}
    return {split: simulate(config, progress=False) for split, config in configs.items()}


def test_an_event_multiplies_what_the_star_shows(folder, datasets):
    photometry = {season.star: season for season in read_photometry(str(folder), "train").seasons}
    with open_dataset(datasets["train"]) as data:
        assert set(data.labels) == {0, 1, 2}
        for row in range(len(data)):
            star, params = photometry[data.stars[row]], data.params.loc[row]
            seen = data.flux(row) != 0
            assert np.array_equal(np.flatnonzero(seen), star.index)
            true = true_flux(data.curve(row), params["t_0"], params["t_E"], params["f_s"], star.time)
            assert data.flux(row)[seen] == pytest.approx(star.flux * true, rel=1e-3)
            assert data.sigma(row)[seen] == pytest.approx(star.error * true, rel=1e-3)
            assert data.m_base[row] == pytest.approx(star.m_base, abs=1e-3)
            if data.labels[row] == 0:  # nothing but the star
                assert data.flux(row)[seen] == pytest.approx(star.flux, rel=1e-6)


def test_no_star_is_in_two_splits_or_in_two_parts_of_a_training(datasets):
    stars = {}
    for split, path in datasets.items():
        with open_dataset(path) as data:
            stars[split] = data.stars
            assert {split_of(star) for star in data.stars} == {split}
    assert not set(stars["train"]) & set(stars["test"])
    parts = split_rows(np.zeros(len(stars["train"]), int), 1, stars["train"])
    names = [set(stars["train"][rows]) for rows in parts]
    assert sum(map(len, parts)) == len(stars["train"]) and all(names)
    assert sum(map(len, names)) == len(set(stars["train"]))


def test_the_file_does_not_depend_on_the_number_of_workers(folder, datasets, tmp_path):
    again = simulate(SimulateConfig(photometry=str(folder), output=str(tmp_path / "again.h5"),
                                    **SMALL | {"num_workers": 2}), progress=False)
    assert again.read_bytes() == datasets["train"].read_bytes()


def test_a_run_knows_its_stars_in_whatever_dataset_they_stand(folder, datasets, tmp_path):
    config = TrainConfig(data=str(datasets["train"]), output=str(tmp_path), experiment_name="own_stars", epochs=1,
                         d_model=8, n_layers=1, batch_size=8)
    train(config)
    run = load_run("own_stars", output=str(tmp_path))
    other = simulate(SimulateConfig(photometry=str(folder), output=str(tmp_path / "other.h5"), **SMALL | {"seed": 9}),
                     progress=False)
    with open_dataset(other) as data:
        parts = run.parts_of(data.config, data.stars)
        assert set(parts) == {"train", "val", "test"}
        assert {run.data["stars"][star] for star in data.stars[parts == "train"]} == {"train"}
    with open_dataset(datasets["test"]) as data:
        assert set(run.parts_of(data.config, data.stars)) == {""}


def test_packing_and_export_read_it(datasets, tmp_path, monkeypatch):
    monkeypatch.setenv("MICROLENS_DATA", str(tmp_path))
    packed = PackedDataset(datasets["test"], view="running", progress=False)
    flux, _, lengths, _ = packed.gather(np.arange(4))
    with open_dataset(datasets["test"]) as data:
        seen = data.flux(2)
        assert np.array_equal(flux[2, : lengths[2]], seen[seen != 0])
    assert len(export_parquet(datasets["test"], tmp_path / "tables")) == 3


def test_noise_cannot_be_drawn_anew(datasets):
    with pytest.raises(ValueError, match="real photometry, which has no noise to draw anew"):
        FreshEvents(datasets["train"], 1)
    with pytest.raises(ValueError, match="photometry, noise: came both"):
        SimulateConfig(photometry="x", noise="sky")


def test_a_file_that_changes_is_read_again(folder, tmp_path):
    first, second = sorted(folder.glob("*.dat"))[:2]
    path = tmp_path / "star.dat"
    path.write_bytes(first.read_bytes())
    before = read_photometry(str(tmp_path), "quick")
    assert read_photometry(str(tmp_path), "quick") is before
    path.write_bytes(second.read_bytes())
    after = read_photometry(str(tmp_path), "quick")
    assert after.digest != before.digest and after.seasons[0].m_base != before.seasons[0].m_base


def test_a_changed_folder_is_another_dataset(folder, datasets, tmp_path):
    other = tmp_path / "stars"
    other.mkdir()
    for path in sorted(folder.glob("*.dat"))[:20]:
        (other / path.name).write_bytes(path.read_bytes())
    copy = tmp_path / "train.h5"
    copy.write_bytes(datasets["train"].read_bytes())
    with pytest.raises(ValueError, match="the photometry that events are put into"):
        simulate(SimulateConfig(photometry=str(other), output=str(copy), **SMALL), progress=False)


def test_stars_with_epochs_of_their_own_are_no_dataset(tmp_path, monkeypatch):
    monkeypatch.setattr("microlens.data.photometry.MOST_EPOCHS", 300)
    for k in range(4):
        t, mag = 2460000 + np.arange(100) / 96, 18 + 0.03 * np.random.default_rng(k).normal(size=100)
        t[1:] += 1e-4 * k
        np.savetxt(tmp_path / f"{k}.dat", np.column_stack([t, mag, np.full(100, 0.03)]), "%.6f")
    with pytest.raises(LightCurveError, match="397 different epochs, more than 300"):
        read_photometry(str(tmp_path), "quick")
    assert len(read_photometry(str(tmp_path), "quick", for_dataset=False).seasons) == 4


def test_files_of_one_name_in_several_folders_are_several_stars(folder, tmp_path):
    for path in sorted(folder.glob("*.dat"))[:3]:
        (tmp_path / path.stem).mkdir()
        (tmp_path / path.stem / "lc.dat").write_bytes(path.read_bytes())
    (tmp_path / "alone.dat").write_bytes(path.read_bytes())
    stars = {season.star for season in read_photometry(str(tmp_path), "quick").seasons}
    assert stars == {"star_00/lc.dat", "star_01/lc.dat", "star_02/lc.dat", "alone.dat"}


def test_what_is_no_folder_is_one_clear_error(tmp_path):
    (tmp_path / "a.dat").write_text("1 2 3\n")
    with pytest.raises(LightCurveError, match=r"a\.dat: is a file; expected a folder"):
        read_photometry(str(tmp_path / "a.dat"), "quick")
    with pytest.raises(LightCurveError, match="b: no such folder; expected a folder"):
        read_photometry(str(tmp_path / "b"), "quick")


@pytest.mark.parametrize("content, message", [
    ({}, "no files are there"),
    ({"a.dat": "no light curve\n"}, r"none of its 1 files has a star with .* epochs\. Give light curves"),
    ({"a.dat": "".join(f"{2460000 + i} 18.0{i % 7} 0.01\n" for i in range(30))}, "quiet season of at least 50 epochs"),
])
def test_a_folder_without_quiet_stars_is_one_clear_error(tmp_path, content, message):
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(LightCurveError, match=message):
        read_photometry(str(tmp_path), "quick")


def test_a_file_that_is_no_light_curve_is_left_out_with_a_word(folder, tmp_path, caplog):
    (tmp_path / "truth.csv").write_text("star,class\na,flat\n")
    for path in sorted(folder.glob("*.dat"))[:2]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert len(read_photometry(str(tmp_path), "quick").seasons) == 2
    assert "left out" in caplog.text and "truth.csv" in caplog.text


def test_seasons_in_which_a_star_varies_are_left_out(tmp_path, caplog):
    t, rng = 2460000 + np.arange(0, 60, 1 / 96), np.random.default_rng(1)
    for name, size in (("sine", 0.2), ("quiet", 0.0)):
        mag = 18 + size * np.sin(t) + 0.01 * rng.normal(size=len(t))
        np.savetxt(tmp_path / f"{name}.dat", np.column_stack([t, mag, np.full(len(t), 0.01)]), fmt="%.6f")
    assert {season.star for season in read_photometry(str(tmp_path), "quick").seasons} == {"quiet.dat"}
    assert "1 of 2 seasons are left out, in which the star varies by more than its noise" in caplog.text


@pytest.mark.skipif(not SHARED.is_dir(), reason="the light curves of others are not beside the checkout")
@pytest.mark.parametrize("source", ["ogle_2025", "roman_dc1"])
def test_events_in_light_curves_of_others(tmp_path, source):
    """Seasons with an event of their own are left out, so the flat ones are flat."""
    numbers = {"n_flat": 9, "n_pspl": 9, "n_binary": 9, "num_workers": 1, "split": "quick"}
    config = SimulateConfig(photometry=str(SHARED / source), output=str(tmp_path / "others.h5"), **numbers)
    path = simulate(config, progress=False)
    with open_dataset(path) as data:
        assert len(set(data.stars)) > 3 and (data.flux() != 0).sum(axis=1).min() >= 50
        flat = data.flux()[data.labels == 0]
        assert np.isfinite(data.m_base).all() and np.median(flat[flat != 0]) == pytest.approx(1.0, abs=0.02)
