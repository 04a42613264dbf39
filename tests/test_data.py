"""The dataset file: what is in it, and that neither workers, kills, full disks nor damaged bytes ever make a wrong one."""

import hashlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml
from scipy import stats
from sklearn.linear_model import LogisticRegression

from microlens import files, lens, sky
from microlens.config import SimulateConfig
from microlens.data import (
    DatasetError,
    OversampleError,
    PackedDataset,
    make_event,
    open_dataset,
    quick_dataset,
    read_predictions,
    render_event,
    simulate,
    simulation,
    write_predictions,
)
from microlens.data.events import preset_source
from microlens.data.format import time_since_last, write_checksum
from microlens.data.packed import NEVER, decode_view, encode_view, epochs_until
from microlens.data.simulation import event_stream
from microlens.sky.population import FOLDER

SMALL = {"n_flat": 12, "n_pspl": 12, "n_binary": 12}  # five shards


def make(path, **more):
    return simulate(SimulateConfig(**{**SMALL, "num_workers": 1, "output": str(path), **more}), progress=False)


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def names(folder):
    """Files below a folder, without lock files."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock")


def one_line(error, path):
    return "\n" not in str(error.value) and str(path) in str(error.value)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    """The dataset of SMALL, whose bytes every way of making it must reproduce."""
    return make(tmp_path_factory.mktemp("whole") / "x.h5")


@pytest.fixture
def data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MICROLENS_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


# ---- what is in it --------------------------------------------------------------------------------------------------


def test_bytes_do_not_depend_on_workers_parts_or_interruption(tmp_path, dataset):
    for workers in (2, 4):
        assert digest(make(tmp_path / f"{workers}" / "x.h5", num_workers=workers)) == digest(dataset)
    for part in ("0/2", "1/2"):
        make(tmp_path / "c" / "x.h5", part=part)
    next((tmp_path / "c").glob("x.h5.shards/shard_*.h5")).unlink()  # as if it had been killed before this shard
    assert digest(make(tmp_path / "c" / "x.h5")) == digest(dataset)
    assert names(tmp_path / "c") == ["x.h5"]


def test_splits_share_no_event_and_flat_pulls_are_standard_normal(tmp_path):
    kw = {"n_pspl": 0, "n_binary": 0, "n_flat": 30}
    with open_dataset(make(tmp_path / "a.h5", **kw)) as a, open_dataset(make(tmp_path / "b.h5", split="test", **kw)) as b:
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
            if p.label == 2:  # another t_0, t_E and blending, tails included, against the library at every epoch
                exact = lens.binary(t, 36.0, p.u_0, 3.0, p.rho, p.s, p.q, p.alpha, "exact", tolerance=1e-4)
                _, true = render_event(curve, 36.0, 3.0, 0.5, 20.0, t, np.random.default_rng(0))
                assert true == pytest.approx(1 + 0.5 * (exact - 1), rel=1e-3)


def test_render_event_repeats_what_make_event_draws():
    config = SimulateConfig(missing_fraction=0.0, correlated_noise=0.5, outlier_fraction=0.01)
    t, preset = np.arange(200) / 96, sky.load_preset("baseline")
    e = make_event(preset_source(preset, "binary", t[-1]), config, t, event_stream(config, "binary", 3), max_draws=1)
    rng = event_stream(config, "binary", 3)
    p = sky.draw(preset, "binary", rng, t[-1])
    rng.random(len(t))  # which epochs are lost
    flux = sky.observe(render_event(e.curve, p["t_0"], p["t_E"], p["f_s"], 20.0, t, np.random.default_rng(0))[1],
                       p["m_base"], t, rng, config, np.ones(len(t), bool))
    assert p == e.params and np.array_equal(flux, e.flux)


def test_too_many_draws_are_an_error_that_says_what_to_do(tmp_path):
    preset = yaml.safe_load((FOLDER / "distinct.yaml").read_text())
    preset["parameters"]["u_0"] = {"uniform": [5.0, 6.0]}  # passes every caustic by
    (tmp_path / "far.yaml").write_text(yaml.safe_dump(preset))
    with pytest.raises(OversampleError, match=r"widen the preset or raise --oversample"):
        make(tmp_path / "x.h5", binary_preset=str(tmp_path / "far.yaml"), oversample=2.0)
    assert not (tmp_path / "x.h5").exists()


@pytest.mark.validate
@pytest.mark.parametrize("preset", ["baseline", "roman"])
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


# ---- found again, or refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("interrupted", [False, True], ids=["finished", "interrupted"])
def test_what_was_made_of_other_things_is_refused_by_name(tmp_path, interrupted, monkeypatch):
    path, preset = tmp_path / "x.h5", tmp_path / "mine.yaml"
    preset.write_text((FOLDER / "baseline.yaml").read_text())
    config = {"binary_preset": str(preset), "n_binary": 0, **({"part": "0/2"} if interrupted else {})}
    make(path, **config)
    make(path, **config)  # found again
    with pytest.raises(DatasetError, match="detector: here 'crowded', there 'roman'"):
        make(path, **config, detector="crowded")
    with pytest.raises(DatasetError, match="n_flat: here 13, there 12"):
        make(path, **config | {"n_flat": 13})
    preset.write_text(preset.read_text().replace("u_0: {uniform: [0.001, 1.0]}", "u_0: {uniform: [0.001, 0.5]}"))
    with pytest.raises(DatasetError, match=r"prior of u_0: here .*high=0\.5.*, there .*high=1\.0") as error:
        make(path, **config)
    assert one_line(error, path) and "t_E" not in str(error.value)
    preset.write_text((FOLDER / "baseline.yaml").read_text())
    monkeypatch.setattr(simulation.metadata, "version", lambda name: "99.0")
    with pytest.raises(DatasetError, match=r"package: here microlens 99\.0, there microlens "):
        make(path, **config)


def test_quick_datasets_are_found_again_and_a_changed_preset_makes_another(data_folder, tmp_path):
    preset = tmp_path / "mine.yaml"
    preset.write_text((FOLDER / "baseline.yaml").read_text())
    first = quick_dataset(3, 0, 0, preset=str(preset))
    assert quick_dataset(3, 0, 0, preset=str(preset)) == first and first.parent == data_folder / "quick"
    preset.write_text(preset.read_text().replace("m_base: {uniform: [18.0, 24.0]}", "m_base: {uniform: [18.0, 19.0]}"))
    second = quick_dataset(3, 0, 0, preset=str(preset))
    with open_dataset(second) as d:
        assert second != first and (d.m_base < 19).all()
        assert d.config["split"] == "quick"


# ---- processes ------------------------------------------------------------------------------------------------------


def command(path, *more):
    """The command line of the small simulation."""
    counts = [word for kind, n in SMALL.items() for word in (f"--{kind}", str(n))]
    return [sys.executable, "-m", "microlens", "simulate", *counts, "--output", str(path), *more]


def shards(path):
    return list(path.with_name(path.name + ".shards").glob("shard_*.h5"))


def wait_for(condition, process, seconds=120):
    """Wait until condition() holds; False where the process ends or the time is over before."""
    end = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None or time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def errors_of(run):
    """What a command wrote to its standard error, without the bar."""
    lines = run.stderr.replace("\r", "\n").splitlines()
    return [line for line in lines if line.strip() and "event/s" not in line and "s/event" not in line]


QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def test_killed_again_and_again_it_ends_with_the_same_bytes(tmp_path, dataset):
    path, rng, kills = tmp_path / "x.h5", np.random.default_rng(0), 0
    while not path.exists():
        done = len(shards(path))
        run = subprocess.Popen(command(path, "--num_workers", str(1 + kills % 2)), **QUIET)
        wait_for(lambda done=done: path.exists() or len(shards(path)) > done, run)  # each gets a shard further
        time.sleep(rng.uniform(0, 0.05))
        kills += run.poll() is None
        run.kill()
        run.wait()
    subprocess.run(command(path, "--num_workers", "1"), check=True, capture_output=True)
    assert kills >= 2
    assert digest(path) == digest(dataset) and names(tmp_path) == ["x.h5"]


WITH_WORKERS = """
import os, sys, time
from microlens.config import SimulateConfig
from microlens.data import simulation

def work(path, events):
    print(os.getpid(), flush=True)
    time.sleep(60)

simulation._make_shard = work
if __name__ == "__main__":
    config = SimulateConfig(n_flat=40, n_pspl=0, n_binary=0, num_workers=2, output=sys.argv[1])
    simulation.simulate(config, progress=False)
"""
THREAD = "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"


@pytest.fixture(params=["", THREAD], ids=["fork", "forkserver"])
def with_workers(request, tmp_path):
    """A simulation that never ends, as a process, and the numbers of its two workers."""
    script = tmp_path / "script.py"
    script.write_text(request.param + WITH_WORKERS)
    parent = subprocess.Popen([sys.executable, script, tmp_path / "x.h5"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True)
    yield parent, [int(parent.stdout.readline()) for _ in range(2)]
    parent.kill()
    parent.communicate()


def gone(process, seconds=10):
    end = time.monotonic() + seconds
    while Path(f"/proc/{process}").exists() and time.monotonic() < end:
        time.sleep(0.05)
    return not Path(f"/proc/{process}").exists()


def test_workers_end_with_a_killed_parent_and_the_next_run_starts(tmp_path, with_workers):
    parent, workers = with_workers
    parent.kill()
    parent.wait()
    make(tmp_path / "x.h5", n_flat=9, n_pspl=0, n_binary=0)  # nobody holds the lock
    assert all(gone(worker) for worker in workers)


def test_a_killed_worker_is_an_error_and_not_a_hang(with_workers):
    parent, workers = with_workers
    os.kill(workers[0], signal.SIGKILL)
    _, errors = parent.communicate(timeout=30)
    assert parent.returncode == 1 and "WorkerError: a worker process could not start, or was killed" in errors
    assert all(gone(worker) for worker in workers)


def test_interrupted_by_the_keyboard_it_says_so_in_one_line_and_goes_on_later(tmp_path, dataset):
    path = tmp_path / "x.h5"
    run = subprocess.Popen(command(path, "--num_workers", "2"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                           start_new_session=True)
    assert wait_for(lambda: shards(path), run)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does it: to the workers, too
    _, run.stderr = run.communicate(timeout=60)
    assert run.returncode == 130
    assert errors_of(run) == ["interrupted; the same command goes on where it stopped."]
    assert not any(name.endswith(".tmp") for name in names(tmp_path))
    assert digest(make(path)) == digest(dataset)


@pytest.mark.parametrize("how", ["from standard input", "without a main part"])
def test_a_script_that_workers_cannot_import_is_one_clear_error(tmp_path, how):
    script = tmp_path / "script.py"
    script.write_text(f"{THREAD}from microlens.data import quick_dataset\nquick_dataset(20, 0, 0, num_workers=2)\n")
    file = "-" if how == "from standard input" else script
    with script.open() as text:
        run = subprocess.run([sys.executable, file], stdin=text, env=os.environ | {"MICROLENS_DATA": str(tmp_path)},
                             capture_output=True, text=True, timeout=120)
    last = run.stderr.splitlines()[-1]
    assert run.returncode == 1 and last.startswith("microlens.data.simulation.WorkerError: a worker process could not")
    assert 'Call simulate from a file, under `if __name__ == "__main__":`, or with num_workers=1.' in last


# ---- locks ----------------------------------------------------------------------------------------------------------


def test_parts_run_side_by_side_and_are_not_joined_while_one_runs(tmp_path, dataset):
    path = tmp_path / "x.h5"
    make(path, part="0/2")
    with files.lock(tmp_path / ".x.h5.part0of2.lock"):  # as if part 0 still ran
        make(path, part="1/2")
        for refused in ({}, {"part": "0/2"}):
            with pytest.raises(DatasetError, match="another simulation is writing the same output") as error:
                make(path, **refused)
            assert one_line(error, path)
    with files.lock(tmp_path / ".x.h5.lock"), pytest.raises(DatasetError, match="another simulation"):  # being joined
        make(path, part="0/2")
    assert digest(make(path)) == digest(dataset)


def test_two_runs_with_one_output_do_not_mix(tmp_path, dataset):
    path = tmp_path / "x.h5"
    first = subprocess.Popen(command(path, "--num_workers", "1"), **QUIET)
    assert wait_for(lambda: shards(path), first)
    with pytest.raises(DatasetError, match="another simulation is writing"):
        make(path)
    assert first.wait() == 0 and digest(path) == digest(dataset)


def test_a_quick_dataset_that_another_process_makes_is_waited_for(data_folder):
    path = quick_dataset(3, 0, 0)
    path.unlink()
    holder = "import sys, time; from microlens.files import lock\nwith lock(sys.argv[1]): print(1, flush=True); time.sleep(1)"
    lock = path.with_name(f".{path.name}.lock")
    with subprocess.Popen([sys.executable, "-c", holder, lock], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        start = time.monotonic()
        assert quick_dataset(3, 0, 0) == path and path.exists()
        assert time.monotonic() - start > 0.9


# ---- disks ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A file system of half a megabyte, where the machine lets us mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", folder]
    if shutil.which("mount") is None or subprocess.run(mount, **QUIET).returncode:
        pytest.skip("cannot mount a small file system here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_one_clear_error_and_leaves_no_half_written_file(small_disk, dataset):
    path = small_disk / "x.h5"
    run = subprocess.run(command(path, "--num_workers", "1"), capture_output=True, text=True)
    errors = errors_of(run)
    assert run.returncode == 1 and len(errors) == 1 and "could not be written" in errors[0]
    assert not path.exists() and not [name for name in names(small_disk) if name.endswith(".tmp")]
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)  # room again
    assert digest(make(path)) == digest(dataset)


@pytest.mark.parametrize("limit", [20_000, 300_000, 800_000])  # met by a shard twice, and by the joined file
def test_a_file_size_limit_is_one_clear_error_and_leaves_no_half_written_file(tmp_path, limit):
    path = tmp_path / "x.h5"
    run = subprocess.run(command(path, "--num_workers", "1"), capture_output=True, text=True,
                         preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    errors = errors_of(run)
    assert run.returncode == 1 and len(errors) == 1
    assert errors[0].startswith("error:") and "File too large" in errors[0]
    assert not path.exists() and not [name for name in names(tmp_path) if name.endswith(".tmp")]


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



PARTS = ("timestamps", "flux", "delta_t", "labels", "labels_observable", "status", "n_draws", "delta_chi2_flat", "delta_chi2_pspl",
         "m_base", "t_observable_flat", "t_observable_pspl", "t_premature", "params_flat", "params_pspl", "params_binary",
         "nodes", "nodes/offset", "nodes/tau", "nodes/log_A")
DAMAGES = {f"no {name}": remove(name) for name in PARTS}
DAMAGES |= {f"no attribute {name}": forget(name) for name in ("config", "preset", "classes", "format_version")}
DAMAGES |= {f"a group for {name}": into_group(name) for name in ("flux", "labels", "params_flat", "nodes/tau")}
DAMAGES |= {f"{name} of another type": replace(name, lambda values: values.astype("f2"))
            for name in ("timestamps", "flux", "delta_t", "labels", "status", "m_base", "nodes/offset", "nodes/log_A")}
DAMAGES |= {f"{name} too short": replace(name, lambda values: values[:-1])
            for name in ("timestamps", "flux", "delta_t", "labels", "params_pspl", "nodes/offset", "nodes/tau", "nodes/log_A")}
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


def test_the_cache_holds_no_files_of_other_kernels_or_of_datasets_that_are_gone(tmp_path, data_folder, dataset, monkeypatch):
    path, other = tmp_path / "x.h5", tmp_path / "other.h5"
    shutil.copy(dataset, path)
    first = PackedDataset(path, view="running", progress=False)
    key, cache = first.checksum[:20], data_folder / "cache"
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


def test_where_the_data_folder_cannot_be_written_the_cache_is_in_a_temporary_one(tmp_path, dataset, monkeypatch, caplog):
    monkeypatch.setenv("MICROLENS_DATA", "/dev/null/data")
    monkeypatch.setattr(files.tempfile, "tempdir", str(tmp_path))
    assert len(PackedDataset(dataset).events(np.arange(4)).flux) == 4
    assert [r.getMessage() for r in caplog.records if "is kept in" in r.getMessage()] != []
    assert any(name.endswith(".flux.npy") for name in names(tmp_path))


@pytest.mark.parametrize("n_epochs", [0, 5, 32, 35])
def test_a_running_view_is_what_it_was_to_its_rounding(n_epochs):
    rng, block = np.random.default_rng(1), 8
    view = np.concatenate([rng.uniform(-15, 15, (3, 36, 2)), np.repeat(rng.uniform(-15, 15, (3, 5, 4)), 8, 1)[:, :36]], axis=2)
    view[:, 32:] = 0  # beyond the last whole block
    got = decode_view(encode_view(view, block), block, n_epochs)
    assert got.shape == (3, n_epochs, 6) and got.dtype == np.float32
    assert got == pytest.approx(view[:, :n_epochs], abs=3e-4)


def test_epochs_until_counts_the_epoch_of_the_moment():
    t = np.arange(10) / 96
    assert epochs_until([np.nan, 0.0, 4 / 96, 1.0, -1.0], [t] * 5).tolist() == [NEVER, 1, 5, 10, 0]
