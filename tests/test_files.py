"""Files written whole or not at all, locks, YAML, folders that cannot be written; what configurations refuse."""

import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import filelock
import pytest

from microlens import config as cfg
from microlens import files
from microlens.__main__ import main
from microlens.files import WriteError, atomic, lock, parse_yaml, read_parameters, writable_folder

# ---- writing --------------------------------------------------------------------------------------------------------


def temporary_of(path, process):
    return path.with_name(f".{path.name}.{platform.node()}.{process}.tmp")


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "x.txt"
    with atomic(path) as temporary:
        temporary.write_text("first")
    with pytest.raises(KeyError), atomic(path) as temporary:
        temporary.write_text("half of the sec")
        raise KeyError
    assert path.read_text() == "first" and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("name", ["x.npy", "odd [name].h5"])
def test_what_killed_writers_left_is_removed_by_the_next(tmp_path, name):
    path = tmp_path / name
    killed = subprocess.Popen([sys.executable, "-c", "pass"])
    killed.wait()
    for process in (killed.pid, os.getppid()):
        temporary_of(path, process).write_text("half")
    with atomic(path) as temporary:
        temporary.write_text("whole")
    kept = temporary_of(path, os.getppid())  # of a process that is alive
    assert sorted(tmp_path.iterdir()) == sorted([path, kept])


@pytest.mark.parametrize("place", ["a file/x.h5", "/dev/null/x.h5"])
def test_a_place_that_cannot_be_written_is_one_line(tmp_path, place):
    (tmp_path / "a file").write_text("")
    with pytest.raises(WriteError, match="could not be written") as error, atomic(tmp_path / place):
        pass
    assert str(error.value).startswith(str(tmp_path / place)) and "\n" not in str(error.value)


# ---- locks ----------------------------------------------------------------------------------------------------------

HOLDER = """
import os, sys, time
from microlens.files import lock
with lock(sys.argv[1]):
    if os.fork() == 0:  # a worker that outlives its parent; a fork lets go of the lock with its first steps
        print("held", flush=True)
        time.sleep(20)
        os._exit(0)
    time.sleep(20)
"""


def test_a_lock_is_free_when_its_holder_is_killed_though_its_children_live(tmp_path):
    script = tmp_path / "holder.py"
    script.write_text(HOLDER)
    holder = subprocess.Popen([sys.executable, script, tmp_path / "lock"], stdout=subprocess.PIPE, text=True,
                              start_new_session=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(filelock.Timeout), lock(tmp_path / "lock", wait=False):
            pass
        holder.kill()
        holder.wait()
        with lock(tmp_path / "lock", wait=False):
            os.killpg(holder.pid, 0)  # the child is still there
    finally:
        os.killpg(holder.pid, 9)


# ---- YAML -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "value"), [
    ("1e-3", 1e-3), ("-1E5", -1e5), ("+.5e+2", 50.0), ("1.", 1.0), ("[1e-4, 1e-2]", [1e-4, 1e-2]), ("7", 7),
    (".inf", float("inf")), ("1e", "1e"), ("e3", "e3"), ("1e-3d", "1e-3d"), ("no", False), ("0/2", "0/2"), ("", None)])
def test_numbers_are_read_as_people_write_them(text, value):
    assert parse_yaml(text) == value and type(parse_yaml(text)) is type(value)


@pytest.mark.parametrize("content", [b"lr: [1", b"just words", b"- 1", b"\xff\xfe", b"1: 2\nlr: 3", b""])
def test_a_file_of_parameters_that_is_none_is_one_line_with_its_name(tmp_path, content):
    (tmp_path / "p.yaml").write_bytes(content)
    with pytest.raises(ValueError) as error:
        read_parameters(tmp_path / "p.yaml")
    assert str(error.value).startswith(f"{tmp_path / 'p.yaml'}: ") and "\n" not in str(error.value)


def test_parameters_of_a_file_go_through_the_same_checks_as_flags(tmp_path):
    (tmp_path / "p.yaml").write_text("lr: 1e-3\nn_layers: 2\nfresh: no\n")
    given = read_parameters(tmp_path / "p.yaml")
    config = cfg.TrainConfig.from_dict(given)
    assert (config.lr, config.n_layers, config.fresh) == (1e-3, 2, False)


# ---- folders that cannot be written ---------------------------------------------------------------------------------

WHERE = """
import subprocess, sys
from microlens.files import KERNEL_CACHE, data_dir
print(KERNEL_CACHE, flush=True)
if len(sys.argv) == 1:
    subprocess.run([sys.executable, __file__, "again"], check=True)
"""


@pytest.mark.parametrize("home", [{"HOME": "/dev/null/nobody"}, {"XDG_CACHE_HOME": "/dev/null/cache"},
                                  {"XDG_CACHE_HOME": "a relative path"}], ids=str)
def test_compiled_code_is_kept_in_a_temporary_folder_where_home_cannot_be_written(tmp_path, home):
    kept = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")}
    (tmp_path / "where.py").write_text(WHERE)
    run = subprocess.run([sys.executable, tmp_path / "where.py"], env=kept | home | {"TMPDIR": str(tmp_path)},
                         capture_output=True, text=True, check=True)
    folder = tmp_path / f"microlens-{os.getuid()}" / "microlens-kernels" / files.KERNEL_VERSION
    assert run.stdout.splitlines() == [str(folder)] * 2 and folder.is_dir()  # a child process uses the same
    assert len(run.stderr.splitlines()) == 1 and "compiled code is kept in" in run.stderr  # and does not say it again
    assert (tmp_path / f"microlens-{os.getuid()}").stat().st_mode & 0o077 == 0


def test_compiled_code_is_kept_at_home_without_a_home_variable():
    kept = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "HOME")}
    code = "from microlens.files import KERNEL_CACHE; print(KERNEL_CACHE)"
    run = subprocess.run([sys.executable, "-c", code], env=kept, capture_output=True, text=True, check=True)
    assert run.stdout.strip().endswith(f"microlens-kernels/{files.KERNEL_VERSION}")
    assert len(run.stderr.splitlines()) <= 1


def test_a_temporary_folder_of_another_user_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(os, "getuid", lambda: 2**31)  # its folder will belong to the user who runs the tests
    folder = writable_folder(Path("/dev/null/kernels/1"), "compiled code")
    assert folder.is_dir() and folder.is_relative_to(tmp_path)
    assert not folder.is_relative_to(tmp_path / f"microlens-{2**31}")


# ---- configurations -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "name", "value", "expected"), [
    (cfg.TrainConfig, "fresh", "no", "true or false"), (cfg.TrainConfig, "fresh", 1, "true or false"),
    (cfg.TrainConfig, "epochs", True, ">= 1"), (cfg.TrainConfig, "epochs", 2.5, ">= 1"),
    (cfg.TrainConfig, "epochs", 0, ">= 1"), (cfg.TrainConfig, "lr", "1e-3", "> 0"), (cfg.TrainConfig, "lr", 0, "> 0"),
    (cfg.TrainConfig, "lr", float("nan"), "> 0"), (cfg.TrainConfig, "lr", True, "> 0"),
    (cfg.TrainConfig, "data", 5, "text"), (cfg.TrainConfig, "data", None, "text"),
    (cfg.TrainConfig, "labels", "true", "one of simulated, observable"), (cfg.TrainConfig, "dropout", 1.0, "0 to 0.9"),
    (cfg.TrainConfig, "d_model", 6, "a multiple of 4"), (cfg.TrainConfig, "seed", -1, "0 to 4.29497e+09"),
    (cfg.SimulateConfig, "n_flat", -1, ">= 0 events"), (cfg.SimulateConfig, "missing_fraction", 1.0, "0 to 0.99"),
    (cfg.SimulateConfig, "part", "2/2", "'k/n' with 0 <= k < n"), (cfg.SimulateConfig, "part", "a/b", "'k/n'"),
    (cfg.SimulateConfig, "split", "holdout", "one of train, val, test, quick"),
    (cfg.SimulateConfig, "seed", 2**32, "0 to 4.29497e+09"), (cfg.Noise, "noise_scale", float("inf"), "> 0")])
def test_a_value_of_another_kind_or_out_of_range_names_the_field(kind, name, value, expected):
    with pytest.raises(ValueError) as error:
        kind(**{name: value})
    assert str(error.value).startswith(f"{name}: came {value!r}") and expected in str(error.value)


def test_a_whole_number_is_a_number_and_unset_is_unset():
    config = cfg.TrainConfig(lr=1, experiment_name=None, resume=None)
    assert config.lr == 1.0 and type(config.lr) is float and config.resume is None


@pytest.mark.parametrize("command", [
    ["simulate", "--seed", "123456789012345678901234567890"], ["simulate", "--seed", "-1"],
    ["simulate", "--n_flat", "-3"],
    ["simulate", "--n_flat", "0", "--n_pspl", "0", "--n_binary", "0"], ["simulate", "--output", "."],
    ["simulate", "--binary_preset", "exotic"], ["train", "--experiment-name", "../escape"],
    ["train", "--experiment-name", "a/b"], ["train", "--experiment-name", ""]], ids=" ".join)
def test_what_cannot_be_done_is_one_clear_line(command, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MICROLENS_RUNS", str(tmp_path / "runs"))
    assert main(command) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ")
    assert not list(tmp_path.iterdir())


def test_a_tilde_means_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    config = cfg.SimulateConfig(output="~/x.h5", binary_preset="~/mine.yaml")
    assert (config.output, config.binary_preset) == (str(tmp_path / "x.h5"), str(tmp_path / "mine.yaml"))
    assert cfg.TrainConfig(data="~/x.h5", output="~/runs").output == str(tmp_path / "runs")
    assert files.runs_dir("~/runs") == tmp_path / "runs"
