import hashlib

import numpy as np
import pytest
import yaml

from microlens import magnification
from microlens.config import SimulateConfig
from microlens.population import FOLDER, draw, load_preset
from microlens.simulate import event, event_stream, observing, render_event, simulate, stored_curve
from microlens.store import DatasetError, open_dataset
from microlens.survey import sigma_flux

SMALL = {"n_flat": 12, "n_pspl": 12, "n_binary": 12, "shard_size": 16}


def make(path, **more):
    return simulate(SimulateConfig(**{**SMALL, "output": str(path), **more}), progress=False)


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_bytes_do_not_depend_on_workers_parts_or_interruption(tmp_path):
    one = digest(make(tmp_path / "a" / "x.h5", num_workers=1))
    assert digest(make(tmp_path / "b" / "x.h5", num_workers=2)) == one
    for part in ("0/2", "1/2"):
        make(tmp_path / "c" / "x.h5", num_workers=1, part=part)
    next((tmp_path / "c").glob("x.h5.shards/shard_*.h5")).unlink()  # as if it had been killed before this shard
    assert digest(make(tmp_path / "c" / "x.h5", num_workers=1)) == one


def test_another_configuration_for_the_same_output_names_the_field(tmp_path):
    make(tmp_path / "x.h5", num_workers=1)
    with pytest.raises(DatasetError, match="detector"):
        make(tmp_path / "x.h5", detector="crowded")


def test_splits_share_no_event_and_flat_pulls_are_standard_normal(tmp_path):
    kw = {"n_pspl": 0, "n_binary": 0, "n_flat": 30, "num_workers": 1}
    with open_dataset(make(tmp_path / "a.h5", **kw)) as a, open_dataset(make(tmp_path / "b.h5", split="test", **kw)) as b:
        assert not set(a.m_base) & set(b.m_base)
        flux = a.flux().astype(float)
        pull = ((flux - 1) / sigma_flux(np.ones_like(flux), a.m_base, a.detector))[flux != 0]
    n = pull.size
    assert abs(pull.mean()) < 4 / np.sqrt(n) and abs(pull.std() - 1) < 4 / np.sqrt(2 * n)


def test_damaged_file_is_one_clear_error(tmp_path):
    path = make(tmp_path / "x.h5", num_workers=1)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DatasetError, match="truncated"):
        open_dataset(path)


def test_oversample_limit(tmp_path):
    preset = yaml.safe_load((FOLDER / "distinct.yaml").read_text())
    preset["parameters"]["u_0"] = {"uniform": [5.0, 6.0]}  # passes every caustic by
    (tmp_path / "far.yaml").write_text(yaml.safe_dump(preset))
    with pytest.raises(RuntimeError, match="oversample"):
        make(tmp_path / "x.h5", binary_preset=str(tmp_path / "far.yaml"), oversample=2.0, num_workers=1)
    assert not (tmp_path / "x.h5").exists()


@pytest.mark.parametrize("preset", ["baseline", "roman"])
def test_stored_nodes_render_the_simulated_event_and_any_other(tmp_path, preset):
    config = SimulateConfig(n_flat=1, n_pspl=3, n_binary=6, binary_preset=preset, num_workers=1, output=str(tmp_path / "x.h5"))
    t = 36.0 + np.linspace(-30, 30, 40)
    with open_dataset(simulate(config, progress=False)) as d:
        for row, p in d.params.iterrows():
            curve, flux = stored_curve(d, row), d.flux(row)
            rng = np.random.default_rng(row)
            made, true = render_event(curve, p.t_0, p.t_E, p.f_s, p.m_base, d.timestamps, rng, **observing(config))
            seen = flux[flux != 0] - true[flux != 0]
            pull = seen / sigma_flux(true, p.m_base)[flux != 0]
            assert abs(pull.mean()) < 5 / np.sqrt(pull.size) and abs(pull.std() - 1) < 5 / np.sqrt(2 * pull.size)
            assert made.dtype == np.float32 and abs((made == 0).mean() - 0.05) < 0.02
            if p.label == 2:  # another t_0, t_E and blending, tails included, against the library at every epoch
                exact = magnification.binary(t, 36.0, p.u_0, 3.0, p.rho, p.s, p.q, p.alpha, "exact", tolerance=1e-4)
                _, true = render_event(curve, 36.0, 3.0, 0.5, 20.0, t, np.random.default_rng(0))
                assert true == pytest.approx(1 + 0.5 * (exact - 1), rel=1e-3)


def test_render_event_repeats_what_simulate_draws():
    config = SimulateConfig(missing_fraction=0.0, correlated_noise=0.5, outlier_fraction=0.01)
    t = np.arange(200) / 96
    e, rng = event(config, load_preset("baseline"), "binary", event_stream(config, "binary", 3), t, 1), event_stream(config, "binary", 3)
    p = draw(load_preset("baseline"), "binary", rng, t[-1])
    assert p == e.params
    flux, true = render_event(e.curve, p["t_0"], p["t_E"], p["f_s"], p["m_base"], t, rng, **observing(config))
    assert np.array_equal(true, e.flux_true) and np.array_equal(flux, e.flux)
