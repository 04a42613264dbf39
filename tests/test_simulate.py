"""Simulating a dataset: neither workers, kills, Ctrl-C, locks nor full disks ever make a wrong file or a hang."""

import hashlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import yaml

from microlens import files
from microlens.config import SimulateConfig
from microlens.data import DatasetError, OversampleError, open_dataset, quick_dataset, simulate, simulation
from microlens.sky.population import FOLDER

SMALL = {"n_flat": 12, "n_pspl": 12, "n_binary": 12, "n_other": 4}  # five shards


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


def test_bytes_do_not_depend_on_workers_parts_or_interruption(tmp_path, dataset):
    for workers in (2, 4):
        assert digest(make(tmp_path / f"{workers}" / "x.h5", num_workers=workers)) == digest(dataset)
    for part in ("0/2", "1/2"):
        make(tmp_path / "c" / "x.h5", part=part)
    next((tmp_path / "c").glob("x.h5.shards/shard_*.h5")).unlink()  # as if it had been killed before this shard
    assert digest(make(tmp_path / "c" / "x.h5")) == digest(dataset)
    assert names(tmp_path / "c") == ["x.h5"]


def test_too_many_draws_are_an_error_that_says_what_to_do(tmp_path):
    preset = yaml.safe_load((FOLDER / "distinct.yaml").read_text())
    preset["parameters"]["u_0"] = {"uniform": [5.0, 6.0]}  # passes every caustic by
    (tmp_path / "far.yaml").write_text(yaml.safe_dump(preset))
    with pytest.raises(OversampleError, match=r"widen the preset or raise --oversample"):
        make(tmp_path / "x.h5", binary_preset=str(tmp_path / "far.yaml"), oversample=2.0)
    assert not (tmp_path / "x.h5").exists()


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
PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}


class Forked:
    """The small simulation in a process of its own that is forked from this one, so that it begins at once."""

    def __init__(self, path, **more):
        self.status, self.pid = None, os.fork()
        if self.pid == 0:
            status = 1
            try:
                make(path, **more)
                status = 0
            finally:
                os._exit(status)

    def poll(self, options=os.WNOHANG):
        """Its exit status; None while it runs."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, options)
            self.status = os.waitstatus_to_exitcode(status) if pid else None
        return self.status

    def wait(self):
        return self.poll(0)

    def kill(self):
        """Kill it; returns whether it still ran."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
        return self.wait() == -signal.SIGKILL


def test_killed_again_and_again_it_ends_with_the_same_bytes(tmp_path, dataset):
    path, rng, kills = tmp_path / "x.h5", random.Random(0), 0
    while not path.exists():
        done = len(shards(path))
        run = Forked(path, num_workers=1 + kills % 2)
        wait_for(lambda done=done: path.exists() or len(shards(path)) > done, run)  # each gets a shard further
        time.sleep(rng.uniform(0, 0.05))
        kills += run.kill()
    subprocess.run(command(path, "--num_workers", "1"), check=True, capture_output=True)
    assert kills >= 2
    assert digest(path) == digest(dataset) and names(tmp_path) == ["x.h5"]


WITH_WORKERS = """
import os, sys, time
from microlens.config import SimulateConfig
from microlens.data import simulation

def work(config, path, events):
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
    parent = subprocess.Popen([sys.executable, script, tmp_path / "x.h5"], **PIPES)
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


def test_interrupted_by_the_keyboard_it_says_so_in_one_line_and_goes_on_later(tmp_path):
    path, n_binary = tmp_path / "x.h5", 300  # so many that it cannot end before it is interrupted
    more = "--num_workers", "2", "--n_binary", str(n_binary)
    # The signal is ignored by a process that was started in the background, and by its children.
    listen = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    run = subprocess.Popen(command(path, *more), **PIPES, start_new_session=True, preexec_fn=listen)
    assert wait_for(lambda: shards(path), run)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does it: to the workers, too
    _, run.stderr = run.communicate(timeout=60)
    assert run.returncode == 130
    assert errors_of(run) == ["interrupted; the same command goes on where it stopped."]
    assert not any(name.endswith(".tmp") for name in names(tmp_path))
    whole = make(tmp_path / "whole" / "x.h5", n_binary=n_binary)
    assert digest(make(path, n_binary=n_binary)) == digest(whole)


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
    first = Forked(path)
    assert wait_for(lambda: shards(path), first)
    with pytest.raises(DatasetError, match="another simulation is writing"):
        make(path)
    assert first.wait() == 0 and digest(path) == digest(dataset)


def test_a_quick_dataset_that_another_process_makes_is_waited_for(data_folder):
    path = quick_dataset(3, 0, 0)
    path.unlink()
    holder = ("import sys, time; from microlens.files import lock\n"
              "with lock(sys.argv[1]): print(1, flush=True); time.sleep(1)")
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
