import hashlib
import resource
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml

from microlens import magnification
from microlens.config import SimulateConfig
from microlens.data.format import DatasetError, concatenate, open_dataset
from microlens.data.simulation import event, event_stream, observing, render_event, simulate, stored_curve
from microlens.sky.noise import sigma_flux
from microlens.sky.population import FOLDER, draw, load_preset

SMALL = {"n_flat": 12, "n_pspl": 12, "n_binary": 12, "shard_size": 16}


def make(path, **more):
    return simulate(SimulateConfig(**{**SMALL, "output": str(path), **more}), progress=False)


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_bytes_do_not_depend_on_workers_parts_or_interruption(tmp_path):
    one = digest(make(tmp_path / "a" / "x.h5", num_workers=1))
    assert digest(make(tmp_path / "b" / "x.h5", num_workers=2)) == one
    assert digest(make(tmp_path / "d" / "x.h5", num_workers=4)) == one
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
    preset, rng = load_preset("baseline"), event_stream(config, "binary", 3)
    e = event(config, preset, "binary", event_stream(config, "binary", 3), t, 1)
    p = draw(preset, "binary", rng, t[-1])
    assert p == e.params
    flux, true = render_event(e.curve, p["t_0"], p["t_E"], p["f_s"], p["m_base"], t, rng, **observing(config))
    assert np.array_equal(true, e.flux_true) and np.array_equal(flux, e.flux)


def command(path, *more):
    """The command line of a small simulation with 10 shards."""
    events = [f"--n_{kind}" for kind in ("flat", "pspl", "binary")]
    counts = [word for name in events for word in (name, "12")]
    return [sys.executable, "-m", "microlens", "simulate", *counts, "--shard_size", "4", "--output", str(path), *more]


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_killed_again_and_again_it_ends_with_the_same_bytes(tmp_path):
    make(tmp_path / "whole" / "x.h5", num_workers=1, shard_size=4)
    path, rng, kills = tmp_path / "killed" / "x.h5", np.random.default_rng(0), 0
    folder = path.with_name("x.h5.shards")
    while not path.exists():
        done = len(list(folder.glob("shard_*.h5")))
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        run = subprocess.Popen(command(path, "--num_workers", str(1 + kills % 2)), **quiet)
        while run.poll() is None and not path.exists() and len(list(folder.glob("shard_*.h5"))) < done + 1:
            time.sleep(0.01)  # each run gets at least one shard further, so the test ends
        time.sleep(rng.uniform(0, 0.1))
        kills += run.poll() is None
        run.kill()
        run.wait()
    subprocess.run(command(path, "--num_workers", "1"), check=True, capture_output=True)
    assert kills >= 3
    assert digest(path) == digest(tmp_path / "whole" / "x.h5")
    assert [f for f in files(path.parent) if not f.endswith(".lock")] == ["x.h5"]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of half a megabyte, where the machine lets us mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if shutil.which("mount") is None or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", folder]).returncode:
        pytest.skip("cannot mount a small file system here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_one_clear_error_and_leaves_no_half_written_file(tmp_path, small_disk):
    path = small_disk / "x.h5"
    run = subprocess.run(command(path, "--num_workers", "1"), capture_output=True, text=True)
    errors = [line for line in run.stderr.replace("\r", "\n").splitlines() if line.startswith("error:")]
    assert run.returncode == 1 and len(errors) == 1 and "could not be written" in errors[0]
    assert not path.exists() and not [f for f in files(small_disk) if f.endswith(".tmp")]
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)  # room again
    subprocess.run(command(path, "--num_workers", "1"), check=True, capture_output=True)
    make(tmp_path / "whole" / "x.h5", num_workers=1, shard_size=4)
    assert digest(path) == digest(tmp_path / "whole" / "x.h5")


@pytest.mark.parametrize("limit", [300, 20_000, 300_000, 800_000])  # met by the statement, a shard twice, the joined file
def test_a_file_size_limit_is_one_clear_error_and_leaves_no_half_written_file(tmp_path, limit):
    path = tmp_path / "x.h5"
    run = subprocess.run(command(path, "--num_workers", "1"), capture_output=True, text=True,
                         preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    lines = [line for line in run.stderr.replace("\r", "\n").splitlines() if line and "event/s" not in line and "s/event" not in line]
    assert run.returncode == 1 and len(lines) == 1 and lines[0].startswith("error:") and "File too large" in lines[0]
    assert not path.exists() and not [f for f in files(tmp_path) if f.endswith(".tmp")]


def test_two_runs_with_one_output_do_not_mix(tmp_path):
    path = tmp_path / "x.h5"
    first = subprocess.Popen(command(path, "--num_workers", "1"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while first.poll() is None and not (tmp_path / ".x.h5.lock").exists():
        time.sleep(0.01)
    with pytest.raises(DatasetError, match="another simulation is writing"):
        make(path, num_workers=1, shard_size=4)
    assert first.wait() == 0
    make(tmp_path / "whole" / "x.h5", num_workers=1, shard_size=4)
    assert digest(path) == digest(tmp_path / "whole" / "x.h5")


def test_shards_of_a_virtual_dataset_are_kept(tmp_path):
    path = make(tmp_path / "x.h5", num_workers=1, virtual=True)
    with open_dataset(make(tmp_path / "copy" / "x.h5", num_workers=1)) as copy:
        make(path, num_workers=1)  # finished: nothing to do, whether virtual was asked for or not
        with open_dataset(path) as virtual:
            assert virtual.is_virtual and np.array_equal(virtual.flux(), copy.flux())


def test_merge_joins_shards_and_names_the_one_that_does_not_belong(tmp_path):
    whole = make(tmp_path / "x.h5", num_workers=1, virtual=True)
    shards = sorted((tmp_path / "x.h5.shards").glob("shard_*.h5"))
    merged = tmp_path / "merged.h5"
    subprocess.run([sys.executable, "-m", "microlens", "merge", str(merged), *map(str, shards)], check=True, capture_output=True)
    with open_dataset(merged) as a, open_dataset(whole) as b:
        assert not a.is_virtual and np.array_equal(a.flux(), b.flux()) and np.array_equal(a.delta_t(), b.delta_t())
        assert a.params.equals(b.params)
        assert all(np.array_equal(x, y) for row in range(len(a)) for x, y in zip(a.nodes(row), b.nodes(row), strict=True))
    other = make(tmp_path / "other.h5", num_workers=1, schedule="roman")
    with pytest.raises(DatasetError, match=r"other\.h5: has other epochs"):
        concatenate([*shards, other], tmp_path / "mixed.h5")
    for n in (1, 1000):
        with pytest.raises(DatasetError, match=f"expected {n}"):
            concatenate(iter(shards), tmp_path / "mixed.h5", n_events=n)
    assert not [f for f in files(tmp_path) if "mixed" in f]
