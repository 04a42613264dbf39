"""The dataset file and what is packed from it: what is in them, and that damaged bytes never pass for good ones."""

import json
import shutil

import h5py
import numpy as np
import pytest
import yaml
from scipy import stats
from sklearn.linear_model import LogisticRegression

from microlens import files, lens, sky
from microlens.config import OTHER, SUBCLASSES, SimulateConfig
from microlens.data import (
    DatasetError,
    PackedDataset,
    make_event,
    open_dataset,
    read_predictions,
    render_event,
    simulate,
    write_predictions,
)
from microlens.data.events import magnification_curve, preset_source, true_flux
from microlens.data.format import CURVES, NODES, ROWS, time_since_last, write_checksum
from microlens.data.packed import LARGEST, NEVER, epochs_until, pack
from microlens.data.simulation import event_stream
from microlens.fit import running
from microlens.sky.population import FOLDER

SMALL = {"n_flat": 12, "n_pspl": 12, "n_binary": 12}  # five shards


def make(path, **more):
    return simulate(SimulateConfig(**{**SMALL, "num_workers": 1, "output": str(path), **more}), progress=False)


def names(folder):
    """Files below a folder, without lock files."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock")


def one_line(error, path):
    return "\n" not in str(error.value) and str(path) in str(error.value)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    """The dataset of SMALL, whose bytes every way of making it must reproduce."""
    return make(tmp_path_factory.mktemp("whole") / "x.h5")


# ---- what is in it --------------------------------------------------------------------------------------------------


def test_variable_stars_are_what_their_parameters_in_the_file_say(tmp_path):
    preset = yaml.safe_load((FOLDER / "roman.yaml").read_text())
    preset["other"] = {"rr_lyrae_ab": 2, "dwarf_nova": 1, "mira": 1, "flare": 0}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(preset))
    path = make(tmp_path / "x.h5", n_other=60, n_pspl=3, n_binary=0, binary_preset=str(tmp_path / "mine.yaml"))
    with open_dataset(path) as data:
        stars = data.params[data.labels == OTHER]
        counts = stars["subclass"].value_counts()
        assert set(counts.index) == {"rr_lyrae_ab", "dwarf_nova", "mira"}
        assert counts["rr_lyrae_ab"] == pytest.approx(30, abs=4 * np.sqrt(15))  # half of 60; four standard deviations
        assert data.preset.other == preset["other"] and (data.params["subclass"][data.labels != OTHER] == "").all()
        for row, star in stars.iterrows():
            flux = data.flux(row).astype(float)
            seen = flux != 0
            true = true_flux(data.curve(row), star.t_0, star.t_E, star.f_s, data.timestamps)[seen]
            unblended = sky.VariableStar(star.to_dict()).flux(data.timestamps)[seen]
            assert np.array_equal(true, 1 + star.f_s * (unblended - 1))
            sigma = sky.sigma_flux(true, star.m_base)
            assert np.std((flux[seen] - true) / sigma) == pytest.approx(1, abs=0.05)
            weight = sigma**-2
            chi2 = (weight * (true - (weight * true).sum() / weight.sum()) ** 2).sum()
            assert star.delta_chi2_flat == pytest.approx(chi2, rel=1e-4) and star.delta_chi2_pspl == 0
            assert star.label_observable == (OTHER if chi2 > 500 else 0)
            assert np.isfinite(star.t_observable_flat) == (chi2 > 500) and np.isnan(star.t_observable_pspl)
        assert {0, OTHER} <= set(stars["label_observable"])
        packed = PackedDataset(path, progress=False)
        row = int(stars.index[stars["label_observable"] == OTHER][0])
        until = packed.seen_flat[row]
        assert packed.prefix_labels(np.array([row]), np.array([[until - 1, until]])).tolist() == [[0, OTHER]]
    with h5py.File(path) as f:
        table = f["params_other"]
        assert list(table.attrs["subclasses"]) == list(SUBCLASSES) and table.dtype["subclass"] == np.int16
        assert list(f.attrs["classes"]) == ["flat", "pspl", "binary", "other"]


def test_two_sources_are_other_once_no_single_lens_explains_them(tmp_path):
    preset = yaml.safe_load((FOLDER / "roman.yaml").read_text())
    preset["other"] = {"two_sources": 1}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(preset))
    path = make(tmp_path / "x.h5", n_other=40, n_pspl=3, n_binary=0, binary_preset=str(tmp_path / "mine.yaml"))
    packed = PackedDataset(path, progress=False)
    with open_dataset(path) as data:
        events = data.params[data.labels == OTHER]
        assert (events["subclass"] == "two_sources").all() and events["period"].isna().all()
        assert (events["q_F"] > 0).all() and events["q_F"].between(1e-3, 1).all()
        seen = events["delta_chi2_flat"] > 500
        apart = seen & (events["delta_chi2_pspl"] > 160)
        expected = np.where(apart, OTHER, np.where(seen, 1, 0))
        assert events["label_observable"].tolist() == expected.tolist() and set(expected) == {0, 1, OTHER}
        for row, event in events.iterrows():
            flux = true_flux(data.curve(row), event.t_0, event.t_E, event.f_s, data.timestamps)
            parallax = lens.event_parallax(event.to_dict(), data.preset.field)
            both = [(event.t_0, event.u_0, event.rho), (event.t_0_2, event.u_0_2, event.rho_2)]
            tracks = [lens.trajectory(data.timestamps, t_0, u_0, event.t_E, 0.0, parallax) for t_0, u_0, _ in both]
            one, two = (lens.fspl_at(np.hypot(*track), rho) for track, (_, _, rho) in zip(tracks, both, strict=True))
            A = (one + event.q_F * two) / (1 + event.q_F)
            assert flux == pytest.approx(1 + event.f_s * (A - 1), rel=2e-3)
        row = int(events.index[apart][0])
        flat, single = packed.seen_flat[row], packed.seen_pspl[row]
        counts = np.array([[min(flat, single) - 1, max(flat, single) - 1, max(flat, single)]])
        expected = [0, 1 if single > flat else 0, OTHER]
        assert packed.prefix_labels(np.array([row]), counts).tolist() == [expected]


def test_a_dataset_without_variable_stars_does_not_speak_of_them(dataset):
    """So its bytes are those that versions without class other made."""
    with open_dataset(dataset) as data, h5py.File(dataset) as f:
        assert data.classes == ("flat", "pspl", "binary") == tuple(f.attrs["classes"])
        assert "n_other" not in data.config and "variables" not in f.attrs and "params_other" not in f
        assert "other" not in json.loads(f.attrs["preset"]) and "subclass" not in data.params


@pytest.mark.parametrize(("entry", "message"), [
    ({"cepheid": 1}, "other came cepheid, expected weights of rr_lyrae_ab"), ("all", "other came 'all'"),
    ({"mira": -1}, "expected weights >= 0"), ({"mira": 0}, "of which one is above 0"),
    ({"mira": "often"}, "other: mira came 'often', expected 1 finite number")])
def test_weights_of_subclasses_are_checked(tmp_path, entry, message):
    preset = yaml.safe_load((FOLDER / "roman.yaml").read_text()) | {"other": entry}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(preset))
    with pytest.raises(ValueError, match=message):
        sky.load_preset(tmp_path / "mine.yaml")


def test_splits_share_no_event_and_flat_pulls_are_standard_normal(tmp_path):
    kw = {"n_pspl": 0, "n_binary": 0, "n_flat": 30}
    one, other = make(tmp_path / "a.h5", **kw), make(tmp_path / "b.h5", split="test", **kw)
    with open_dataset(one) as a, open_dataset(other) as b:
        assert not set(a.m_base) & set(b.m_base)
        flux = a.flux().astype(float)
        pull = ((flux - 1) / sky.sigma_flux(np.ones_like(flux), a.m_base, a.detector))[flux != 0]
    n = pull.size
    assert abs(pull.mean()) < 4 / np.sqrt(n) and abs(pull.std() - 1) < 4 / np.sqrt(2 * n)


@pytest.mark.parametrize("preset", ["baseline", "roman"])
def test_stored_nodes_render_the_simulated_event_and_any_other(tmp_path, preset):
    config = SimulateConfig(n_flat=1, n_pspl=3, n_binary=6, binary_preset=preset, num_workers=1,
                            output=str(tmp_path / "x.h5"))
    t = 36.0 + np.linspace(-30, 30, 40)
    with open_dataset(simulate(config, progress=False)) as d:
        assert np.array_equal(d.delta_t(), time_since_last(d.timestamps, d.flux()))
        for row, p in d.params.iterrows():
            curve, flux, rng = d.curve(row), d.flux(row), np.random.default_rng(row)
            made, true = render_event(curve, p.t_0, p.t_E, p.f_s, p.m_base, d.timestamps, rng, config)
            pull = ((flux - true) / sky.sigma_flux(true, p.m_base))[flux != 0]
            assert abs(pull.mean()) < 5 / np.sqrt(pull.size) and abs(pull.std() - 1) < 5 / np.sqrt(2 * pull.size)
            assert made.dtype == np.float32 and abs((made == 0).mean() - 0.05) < 0.02
            if p.label == 2 and preset == "roman":  # its path is bent by parallax, so it keeps t_0 and t_E
                if p.t_E < 9:  # the season is nearly the whole curve
                    continue
                with pytest.raises(ValueError, match="parallax"):
                    render_event(curve, p.t_0, 0.1 * p.t_E, 0.5, 20.0, d.timestamps, rng)
            elif p.label == 2:  # another t_0, t_E and blending, tails included, against the library at every epoch
                exact = lens.binary(t, 36.0, p.u_0, 3.0, p.rho, p.s, p.q, p.alpha, "exact", tolerance=1e-4)
                _, true = render_event(curve, 36.0, 3.0, 0.5, 20.0, t, np.random.default_rng(0))
                assert true == pytest.approx(1 + 0.5 * (exact - 1), rel=1e-3)


def test_render_event_repeats_what_make_event_draws():
    config = SimulateConfig(missing_fraction=0.0)
    t, preset = np.arange(200) / 96, sky.load_preset("baseline", "sky")
    source = preset_source(preset, "binary", t, config)
    e = make_event(source, config, t, event_stream(config, "binary", 3), max_draws=1)
    rng = event_stream(config, "binary", 3)
    p = sky.draw(preset, "binary", rng, sky.season_length(t))
    rng.random(len(t))  # which epochs are lost
    drawn = sky.draw_terms(preset.noise, rng)
    _, true = render_event(e.curve, p["t_0"], p["t_E"], p["f_s"], 20.0, t, np.random.default_rng(0))
    flux, _ = sky.observe(true, p["m_base"], t, rng, config, np.ones(len(t), bool), drawn)
    assert drawn and drawn == e.noise and p == e.params and np.array_equal(flux, e.flux)


@pytest.mark.parametrize("t_E", [1.58, 0.05])
def test_a_short_event_with_parallax_is_followed_as_far_as_its_lens_reaches(t_E):
    """Far from a lens of so small a planet no image of it is clear; the season of a short event once ended there."""
    params = {"t_0": 41.45, "u_0": 0.957, "t_E": t_E, "rho": 0.0026, "s": 0.2006, "q": 1.04e-6, "alpha": 3.851,
              "pi_EN": -0.2, "pi_EE": -0.09}
    t = sky.epochs("roman")
    tau, log_A = magnification_curve("binary", params, lens.ROMAN_FIELD, (t[0], t[-1]))
    parallax = lens.event_parallax(params)
    A = true_flux((tau, log_A), params["t_0"], t_E, 1.0, t)
    assert A == pytest.approx(lens.pspl(t, 41.45, 0.957, t_E, parallax=parallax), rel=1e-3)


@pytest.mark.validate
@pytest.mark.parametrize("preset", ["baseline", "roman", "sky"])
def test_nothing_but_the_flux_tells_the_class(tmp_path, preset):
    """A classifier that sees the times of the valid epochs and m_base alone has an area under the ROC curve of 0.5."""
    path = make(tmp_path / "x.h5", n_flat=400, n_pspl=400, n_binary=400, binary_preset=preset, seed=16, num_workers=0)
    with open_dataset(path) as d:
        valid, gap, labels = d.flux() != 0, d.delta_t(), d.labels
        shares = [valid[:, part].mean(1) for part in np.array_split(np.arange(d.n_epochs), 40)]
        x = np.column_stack([d.m_base, valid.sum(1), gap.max(1), gap.std(1), *shares])
    x = (x - x.mean(0)) / x.std(0)
    train = np.arange(len(x)) % 2 == 0
    for kind in range(3):
        y = labels == kind
        score = LogisticRegression(C=0.1).fit(x[train], y[train]).decision_function(x[~train])
        a, b = score[y[~train]], score[~y[~train]]
        auc = stats.mannwhitneyu(a, b).statistic / len(a) / len(b)
        assert abs(auc - 0.5) < 4 * np.sqrt((len(a) + len(b) + 1) / 12 / len(a) / len(b))


# ---- damage ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def predictions(tmp_path_factory):
    arrays = {"row": np.arange(400), "label": np.arange(400) % 3, "log_p": np.log(np.full((400, 3), 1 / 3))}
    return write_predictions(tmp_path_factory.mktemp("predictions") / "predictions.h5", arrays, {"run": "baseline"})


def read(path):
    """Read a dataset, or predictions, as the rest of the package does."""
    if path.name.startswith("predictions"):
        read_predictions(path, ("row", "label", "log_p"))
        return
    with open_dataset(path) as data:
        data.params, data.flux(), data.delta_t(), [data.curve(row) for row in range(len(data))]


@pytest.mark.parametrize("kind", ["dataset", "predictions"])
def test_every_damaged_byte_and_every_cut_is_noticed(tmp_path, kind, request):
    good = request.getfixturevalue(kind)
    whole, rng, path = good.read_bytes(), np.random.default_rng(7), tmp_path / good.name
    read(good)
    damaged = [b"", whole + b"\0", *(whole[:n] for n in rng.integers(1, len(whole), 10))]
    for at in (*range(0, 512, 73), *rng.integers(0, len(whole), 60)):  # the first 512 bytes hold the checksum
        flipped = whole[at] ^ int(rng.integers(1, 256))
        damaged.append(whole[:at] + bytes([flipped]) + whole[at + 1 :])
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(DatasetError) as error:
            read(path)
        assert one_line(error, path)


@pytest.mark.parametrize("name", ["x.h5", "predictions.h5"])
def test_what_is_no_file_of_this_package_is_named(tmp_path, name):
    path = tmp_path / name
    with pytest.raises(FileNotFoundError, match=name):
        read(path)
    with h5py.File(path, "w") as f:
        f["flux"] = np.ones((3, 4))
    with pytest.raises(DatasetError, match="is no file of this version of the package") as error:
        read(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(DatasetError, match="is a folder") as error:
        read(path)
    assert one_line(error, path)


def replace(name, change):
    """A change of a file: its part `name` becomes change(its values), with the attributes that it had."""
    def apply(f):
        values, attributes = f[name][:], dict(f[name].attrs)
        del f[name]
        f[name] = change(values)
        f[name].attrs.update(attributes)
    return apply


def put(name, at, value):
    """A change of a file: one value of its part `name`."""
    def apply(f):
        f[name][at] = value
    return apply


def remove(name):
    def apply(f):
        del f[name]
    return apply


def state(name, value):
    def apply(f):
        f.attrs[name] = value
    return apply


def forget(name):
    def apply(f):
        del f.attrs[name]
    return apply


def into_group(name):
    def apply(f):
        del f[name]
        f.create_group(name)
    return apply


def shift_a_row(f):
    table = f["params_binary"][:]
    table["row"][0] += 1
    f["params_binary"][:] = table



PARTS = ("timestamps", *CURVES, *ROWS, "params_flat", "params_pspl", "params_binary", "nodes", *NODES)
DAMAGES = {f"no {name}": remove(name) for name in PARTS}
DAMAGES |= {f"no attribute {name}": forget(name) for name in ("config", "preset", "classes", "format_version")}
DAMAGES |= {f"a group for {name}": into_group(name) for name in ("flux", "labels", "params_flat", "nodes/tau")}
DAMAGES |= {f"{name} of another type": replace(name, lambda values: values.astype("f2"))
            for name in ("timestamps", "flux", "delta_t", "labels", "status", "m_base", "nodes/offset", "nodes/log_A")}
DAMAGES |= {f"{name} too short": replace(name, lambda values: values[:-1])
            for name in ("timestamps", *CURVES, "labels", "params_pspl", *NODES)}
DAMAGES |= {
    "flux of one curve": replace("flux", lambda values: values[0]),
    "flux of no event": replace("flux", lambda values: values[:0]),
    "labels as words": replace("labels", lambda values: np.array([b"flat"] * len(values))),
    "parameters without rows": replace("params_flat", lambda table: table[["m_base"]]),
    "a label of 3": put("labels", 0, 3),
    "an observable label of -1": put("labels_observable", 5, -1),
    "a status of 9": put("status", 0, 9),
    "a row of another class": shift_a_row,
    "a time that goes back": put("timestamps", 100, 0.0),
    "a time that is NaN": put("timestamps", 6911, np.nan),
    "nodes that go back": put("nodes/offset", 3, 10**9),
    "nodes from the middle": put("nodes/offset", 0, 1),
    "an older format": state("format_version", 1),
    "classes in another order": state("classes", ["flat", "binary", "pspl"]),
    "a configuration that is no JSON": state("config", "{"),
    "a configuration in a list": state("config", "[1]"),
    "an unknown detector": state("config", '{"detector": "hubble"}'),
    "a preset that is none": state("preset", '{"name": "x"}'),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_dataset_with_a_right_checksum_and_wrong_content_is_named(tmp_path, dataset, damage):
    path = tmp_path / "x.h5"
    shutil.copy(dataset, path)
    with h5py.File(path, "r+") as f:
        damage(f)
    write_checksum(path)
    with pytest.raises(DatasetError) as error:
        open_dataset(path)
    assert one_line(error, path)


def test_compressed_curves_that_cannot_be_unpacked_are_named(tmp_path, dataset):
    path = tmp_path / "x.h5"
    shutil.copy(dataset, path)
    with h5py.File(path, "r") as f:
        chunk = f["delta_t"].id.get_chunk_info(0)
    with open(path, "r+b") as f:
        f.seek(chunk.byte_offset)
        f.write(b"\xff" * chunk.size)
    write_checksum(path)
    with open_dataset(path) as data, pytest.raises(DatasetError) as error:
        data.delta_t(0)
    assert one_line(error, path)


PREDICTION_DAMAGES = {
    "no row": remove("row"), "a group for row": into_group("row"), "an older format": state("format_version", 1),
    "no format": forget("format_version"), "rows too short": replace("row", lambda values: values[:-1]),
    "labels as words": replace("label", lambda values: np.array([b"flat"] * len(values))),
    "one number": replace("log_p", lambda values: 1.0),
}


@pytest.mark.parametrize("damage", PREDICTION_DAMAGES.values(), ids=PREDICTION_DAMAGES)
def test_predictions_with_a_right_checksum_and_wrong_content_are_named(tmp_path, predictions, damage):
    path = tmp_path / "predictions.h5"
    shutil.copy(predictions, path)
    with h5py.File(path, "r+") as f:
        damage(f)
    write_checksum(path)
    with pytest.raises(DatasetError) as error:
        read(path)
    assert one_line(error, path)


# ---- packed ---------------------------------------------------------------------------------------------------------


def test_the_cache_holds_no_files_of_other_kernels_or_of_datasets_that_are_gone(tmp_path, dataset, monkeypatch):
    monkeypatch.setenv("MICROLENS_DATA", str(tmp_path / "data"))
    path, other, cache = tmp_path / "x.h5", tmp_path / "other.h5", tmp_path / "data" / "cache"
    shutil.copy(dataset, path)
    first = PackedDataset(path, view="running", progress=False)
    key = first.checksum[:20]
    assert names(cache) == sorted(f"{key}.{what}" for what in ("flux.npy", "mask.npy", "path",
                                                               f"running16.{files.KERNEL_VERSION}.npy"))
    monkeypatch.setattr("microlens.data.packed.KERNEL_VERSION", "newer")
    again = PackedDataset(path, view="running", progress=False)
    assert f"{key}.running16.newer.npy" in names(cache) and len(names(cache)) == 4
    assert np.array_equal(again.gather(np.arange(5))[3], first.gather(np.arange(5))[3])
    make(other, n_flat=3, n_pspl=0, n_binary=0)
    PackedDataset(other)
    assert len(names(cache)) == 7
    other.unlink()
    make(other, n_flat=4, n_pspl=0, n_binary=0)  # another dataset at the same place
    path.unlink()
    last = PackedDataset(other).checksum[:20]
    assert names(cache) == sorted(f"{last}.{what}" for what in ("flux.npy", "mask.npy", "path"))


def test_where_the_data_folder_cannot_be_written_a_temporary_one_serves(tmp_path, dataset, monkeypatch, caplog):
    monkeypatch.setenv("MICROLENS_DATA", "/dev/null/data")
    monkeypatch.setattr(files.tempfile, "tempdir", str(tmp_path))
    assert len(PackedDataset(dataset).events(np.arange(4)).flux) == 4
    assert [r.getMessage() for r in caplog.records if "is kept in" in r.getMessage()] != []
    assert any(name.endswith(".flux.npy") for name in names(tmp_path))


@pytest.mark.parametrize("view", ["running", "robust"])
def test_a_packed_view_is_that_of_the_curves_to_its_rounding(dataset, view):
    with open_dataset(dataset) as data:
        flux, delta_t, _, lengths = pack(data.flux(), data.delta_t())
    packed = PackedDataset(dataset, view, 8)
    rows = np.arange(packed.n_events)
    extra = packed.gather(rows)[3]
    truth = np.clip(running.running_view(flux, delta_t, lengths, 8, view), -LARGEST, LARGEST)
    assert extra.dtype == np.float32 and extra.shape[1] == lengths.max() // 8
    assert extra == pytest.approx(truth[:, : extra.shape[1]], abs=3e-4) and np.abs(extra).max() > 1


def test_epochs_until_counts_the_epoch_of_the_moment():
    t = np.arange(10) / 96
    assert epochs_until([np.nan, 0.0, 4 / 96, 1.0, -1.0], [t] * 5).tolist() == [NEVER, 1, 5, 10, 0]
