"""Folders, finding a run, writing a file whole or not at all, locks, YAML, and where compiled kernels are kept.

    data_dir() / "raw" / "test.h5"        find_run("d64_l4_hier")        with atomic(path) as temporary: ...

MICROLENS_DATA and MICROLENS_RUNS move the folders, which are otherwise `data` and `runs` beside the package's own
folder (a source checkout), or in the current folder where the package is installed elsewhere.

This module is imported before numba: it decides where numba keeps compiled code (KERNEL_CACHE).
"""

from __future__ import annotations

import contextlib
import functools
import glob
import hashlib
import logging
import os
import platform
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import filelock
import yaml

log = logging.getLogger("microlens")
PACKAGE = Path(__file__).resolve().parent


class WriteError(ValueError):
    """A file that could not be written; the message names file and cause."""


# ---- folders ------------------------------------------------------------------------------------------------------


def _root() -> Path:
    checkout = PACKAGE.parent
    return checkout if (checkout / "pyproject.toml").is_file() else Path.cwd()


def data_dir() -> Path:
    """The folder of datasets and of what is packed from them."""
    return Path(os.environ.get("MICROLENS_DATA") or _root() / "data").expanduser()


def runs_dir(output: str | os.PathLike | None = None) -> Path:
    """The folder of run folders: `output` where it is given."""
    return Path(output or os.environ.get("MICROLENS_RUNS") or _root() / "runs").expanduser()


def weights_dir() -> Path:
    """The folder of the trained networks that come with the package."""
    return PACKAGE / "weights"


# ---- runs -----------------------------------------------------------------------------------------------------------


def list_runs(output: str | os.PathLike | None = None) -> list[Path]:
    """Run folders (those with a config.json), oldest first."""
    folder = runs_dir(output)
    if not folder.is_dir():
        return []
    runs = [p for p in folder.iterdir() if (p / "config.json").is_file()]
    return sorted(runs, key=lambda p: ((p / "config.json").stat().st_mtime_ns, p.name))


def find_run(name: str, output: str | os.PathLike | None = None) -> Path:
    """The run folder whose name is, or uniquely contains, `name`.

    Raises FileNotFoundError (unknown) or ValueError (ambiguous); both list the candidates.
    """
    runs = list_runs(output)
    exact = [p for p in runs if p.name == name]
    matches = exact or [p for p in runs if name in p.name]
    if len(matches) == 1:
        return matches[0]
    listed = ", ".join(p.name for p in (matches or runs)) or "none; `microlens train` makes one"
    if matches:
        raise ValueError(f"run name {name!r} is ambiguous in {runs_dir(output)}: {listed}. "
                         "Give a longer part of the name.")
    raise FileNotFoundError(f"no run named {name!r} in {runs_dir(output)}; there are: {listed}.")


# ---- writing --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def atomic(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well and is removed when it does not.

    What killed writers of the same file left behind on this machine is removed first.
    Raises WriteError, naming file and cause, where writing fails (a full disk, a limit on file size).
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        yield temporary
        with open(temporary, "rb") as f:
            os.fsync(f.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        # HDF5 puts the error number into its message, and what fails on closing an HDF5 file is a RuntimeError.
        stated = re.search(r"errno = (\d+)", str(error))
        if isinstance(error, RuntimeError) and not stated:
            raise
        number = int(stated[1]) if stated else error.errno
        cause = os.strerror(number) if number else str(error).splitlines()[0]
        raise WriteError(f"{path}: could not be written ({cause}). Nothing of it was left behind; the same command "
                         "goes on where it stopped.") from error
    finally:
        with contextlib.suppress(OSError):  # it is in its place, or was never made
            temporary.unlink()


def _remove_leftovers(path: Path):
    """Remove the temporary files that killed processes of this machine left beside `path`."""
    for temporary in path.parent.glob(f".{glob.escape(path.name)}.{glob.escape(platform.node())}.*.tmp"):
        if not _runs(temporary.name.split(".")[-2]):
            temporary.unlink(missing_ok=True)


def _runs(process: str) -> bool:
    """Whether a process of this number runs on this machine."""
    try:
        os.kill(int(process), 0)  # signal 0 only asks
    except PermissionError:
        return True
    except (ValueError, OSError):
        return False
    return True


@contextlib.contextmanager
def lock(path: str | os.PathLike, wait: bool = True) -> Iterator[None]:
    """Hold the lock file `path`. Another process that wants it waits, or with wait=False gets filelock.Timeout at once.

    The lock is free as soon as the process that took it ends, however it ends: processes forked from it do not hold it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()  # where that fails, filelock would wait as for another process
    with filelock.FileLock(path, timeout=-1 if wait else 0):
        yield


@contextlib.contextmanager
def lock_in_turn(path: str | os.PathLike, holder: str) -> Iterator[None]:
    """Hold the lock file `path`, and say where another process has it first.

    holder : who that is and what at, as the line says: 'another run is at work on x.h5'.
    """
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(lock(path, wait=False))
        except filelock.Timeout:
            log.info("%s; waiting for its end", holder)
            held.enter_context(lock(path))
        yield


@functools.cache
def writable_folder(wanted: Path, content: str) -> Path:
    """The folder `wanted`, or one of the user's own in the temporary folder where `wanted` cannot be made or written.

    content : what is kept there, as the line says that tells of the other folder, once a process.
    """
    if wanted.is_absolute() and _is_writable(wanted):
        return wanted
    own = Path(tempfile.gettempdir()) / f"microlens-{os.getuid()}"
    own.mkdir(mode=0o700, exist_ok=True)
    if own.stat().st_uid != os.getuid():  # compiled code is run: nobody else may have put it there
        own = Path(tempfile.mkdtemp(prefix="microlens-"))
    folder = own / wanted.parent.name / wanted.name
    folder.mkdir(parents=True, exist_ok=True)
    log.warning("%s: cannot be written; %s is kept in %s.", wanted, content, folder)
    return folder


def _is_writable(folder: Path) -> bool:
    """Whether a file can be made in the folder, which is made itself where it is absent."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


# ---- YAML -----------------------------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """YAML with the numbers of version 1.2: `1e-3` is a number, as everyone writes it."""


_FLOAT = re.compile(r"^([-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


def parse_yaml(text: str):
    """The value of a YAML text, with `1e-3` a number. Raises ValueError where it is no YAML."""
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"no readable YAML ({' '.join(str(error).split())[:200]})") from error


def read_parameters(file: str | os.PathLike) -> dict:
    """A YAML file of `name: value` lines, as a dict.

    Raises ValueError, naming the file, where it is no such file, and FileNotFoundError where it is absent.
    """
    file = Path(file).expanduser()
    try:
        data = parse_yaml(file.read_text())
    except (ValueError, IsADirectoryError) as error:  # a UnicodeDecodeError is a ValueError
        raise ValueError(f"{file}: {error}.") from error
    if not (isinstance(data, dict) and all(isinstance(name, str) for name in data)):
        raise ValueError(f"{file}: expected 'name: value' lines.")
    return data


# ---- compiled kernels -----------------------------------------------------------------------------------------------


def _kernel_version() -> str:
    """A short hash of all sources that hold compiled functions."""
    sources = sorted(p for p in PACKAGE.rglob("*.py") if b"\n@numba.njit" in p.read_bytes())
    return hashlib.sha256(b"".join(p.read_bytes() for p in sources)).hexdigest()[:12]


_KERNELS = "microlens-kernels"
KERNEL_VERSION = _kernel_version()
"""Names what compiled functions computed: cached results of another version are not used."""


def _use_kernel_cache() -> Path:
    """Let numba keep compiled code in a folder of this version's own, and return the folder.

    numba does not notice that a function called from another file has changed, so each version of the sources has a
    folder. NUMBA_CACHE_DIR, where the user has set it, is left alone; one that a parent process of this package has set
    may be of other sources and is not.
    """
    given = os.environ.get("NUMBA_CACHE_DIR")
    if given and (_KERNELS not in given or Path(given).name == KERNEL_VERSION):
        return Path(given)
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = writable_folder(Path(cache) / _KERNELS / KERNEL_VERSION, "compiled code")
    os.environ["NUMBA_CACHE_DIR"] = str(folder)
    return folder


KERNEL_CACHE = _use_kernel_cache()
"""The folder of compiled code; empty before the first use."""
