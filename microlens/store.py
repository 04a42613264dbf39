"""The dataset file: schema, atomic writing, validation on opening, concatenation. The only module that imports h5py.

    with open_dataset("data/raw/test.h5") as data:
        data.params                     # pandas DataFrame, one row an event, true parameters and labels by name
        flux = data.flux([3, 17])       # (2, T) float32, F/F_base, 0.0 = no observation

Layout (format version 1): `flux`, `delta_t` (N, T) float32; `timestamps` (T,); `labels`, `labels_observable`, `status` int8;
`n_draws` int16; `delta_chi2_flat`, `delta_chi2_pspl`, `m_base` float32; `t_observable_flat`, `t_observable_pspl` float64;
`params_<class>` structured with `row`; `nodes/offset, tau, log_A`. Flux is not compressed (its digits are noise); delta_t, a
mask in disguise, shrinks to a few hundredths. Errors are a function of measured flux and m_base and are computed on reading.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from microlens.config import CLASSES
from microlens.population import PARAMETERS
from microlens.survey import sigma_flux

FORMAT_VERSION = 1
ROWS = {  # per-event datasets: (dtype, unit)
    "labels": ("i1", ""),
    "labels_observable": ("i1", ""),
    "status": ("i1", ""),
    "n_draws": ("i2", ""),
    "delta_chi2_flat": ("f4", ""),
    "delta_chi2_pspl": ("f4", ""),
    "m_base": ("f4", "mag AB"),
    "t_observable_flat": ("f8", "d"),
    "t_observable_pspl": ("f8", "d"),
}
CURVES = {"flux": "F/F_base, 0.0 = no observation", "delta_t": "d"}
UNITS = {"t_0": "d", "u_0": "theta_E", "t_E": "d", "rho": "theta_E", "s": "theta_E", "q": "", "alpha": "rad", "f_s": "",
         "m_base": "mag AB"}
STATUS = {0: "analytic", 1: "nodes", 2: "exact", 3: "redrawn after a failed magnification"}


SPARE = 2**17  # bytes; tables, attributes and the free space that HDF5 leaves in a file


class DatasetError(ValueError):
    """A dataset file that cannot be used; the message names file and cause."""


@contextlib.contextmanager
def atomic(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well and is removed when it does not.

    Raises DatasetError, naming file and cause, where writing fails (a full disk, a limit on file size).
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb") as f:
            os.fsync(f.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        # HDF5 puts the number into its message, and what fails on closing is a RuntimeError.
        stated = re.search(r"errno = (\d+)", str(error))
        if isinstance(error, RuntimeError) and not stated:
            raise
        number = int(stated[1]) if stated else error.errno
        cause = os.strerror(number) if number else str(error).splitlines()[0]
        raise DatasetError(f"{path}: could not be written ({cause}). Nothing of it was left behind; the same command goes on where it "
                           "stopped.") from error
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _new_file(path, n_bytes: int) -> Iterator[h5py.File]:
    """An HDF5 file of about n_bytes that takes its place at `path` when the block ends well.

    Room for them and a little more is asked for first: HDF5 may crash while it closes a file for which disk, quota or file-size limit
    left none.
    """
    with atomic(path) as temporary:
        with open(temporary, "wb") as f:
            os.posix_fallocate(f.fileno(), 0, int(1.05 * n_bytes) + SPARE)
        with h5py.File(temporary, "w") as f:
            yield f


def remove_leftovers(path: str | os.PathLike) -> None:
    """Remove the temporary files of killed writers of `path`, whose name may hold wildcards, while nobody else may write it."""
    path = Path(path)
    for temporary in path.parent.glob(f".{path.name}.*.tmp"):
        temporary.unlink(missing_ok=True)


def time_since_last(timestamps, flux) -> np.ndarray:
    """delta_t (N, T) float32, days since the previous valid epoch; 0 for the first and where there is no observation.

    timestamps : (T,) days.   flux : (N, T), 0.0 = no observation.
    """
    t = np.asarray(timestamps, dtype=float)
    valid = np.atleast_2d(flux) != 0
    last = np.maximum.accumulate(np.where(valid, np.arange(len(t)), -1), axis=1)
    previous = np.concatenate([np.full((len(valid), 1), -1), last[:, :-1]], axis=1)
    gap = np.where(previous >= 0, t[None, :] - t[previous], 0.0)
    return np.where(valid, gap, 0.0).astype(np.float32)


def _curves(f, name, shape, compress):
    """A dataset (N, T) float32 in the layout that was measured to be best for it: whole, or gzip in chunks of a few events."""
    packed = {"chunks": (min(8, max(shape[0], 1)), shape[1]), "compression": "gzip", "compression_opts": 1, "shuffle": True}
    out = f.create_dataset(name, shape, "f4", **(packed if compress else {}))
    out.attrs["unit"] = CURVES[name]
    return out


def _append_curves(out, part, start: int):
    """Copy the curves `part` (n, T) to out[start : start + n]: compressed chunks as they are, where they fall on chunks of `out`."""
    n, rows = len(part), out.chunks[0] if out.chunks else 512
    if out.chunks and out.chunks == part.chunks and start % rows == 0 and (n % rows == 0 or start + n == len(out)):
        for i in range(0, n, rows):
            mask, packed = part.id.read_direct_chunk((i, 0))
            out.id.write_direct_chunk((start + i, 0), packed, mask)
        return
    for i in range(0, n, rows):
        out[start + i : start + min(i + rows, n)] = part[i : i + rows]


def write_dataset(path, *, timestamps, flux, rows: dict, params: dict, nodes=None, attrs: dict, compress_flux=False) -> Path:
    """Write a dataset atomically.

    timestamps (T,); flux (N, T); rows : arrays (N,) named as in ROWS; params : {class: structured array with 'row'};
    nodes : list of N (tau, log_A) pairs, or None; attrs : file attributes (config as JSON, seed, ...).
    compress_flux : a third smaller and several times slower (make bench).
    """
    n_bytes = flux.nbytes // (2 if compress_flux else 1) + flux.size // 8  # delta_t is a packed mask
    n_bytes += sum(12 * len(a) for a, _ in nodes or ())
    with _new_file(path, n_bytes) as f:
        f.attrs["format_version"] = FORMAT_VERSION
        f.attrs["classes"] = list(CLASSES)
        for name, value in sorted(attrs.items()):
            f.attrs[name] = value
        f.create_dataset("timestamps", data=np.asarray(timestamps, dtype="f8")).attrs["unit"] = "d"
        n = len(flux)
        _curves(f, "flux", flux.shape, compress_flux)[:] = flux
        delta = _curves(f, "delta_t", flux.shape, True)
        for start in range(0, n, 512):
            delta[start : start + 512] = time_since_last(timestamps, flux[start : start + 512])
        tables = {**rows, **{f"params_{kind}": params[kind] for kind in CLASSES}}
        if nodes is not None:
            tables |= {"counts": [len(tau) for tau, _ in nodes], "tau": np.concatenate([tau for tau, _ in nodes]),
                       "log_A": np.concatenate([log_A for _, log_A in nodes])}
        _write_tables(f, tables)
    return Path(path)


def _write_tables(f, tables: dict):
    """What a dataset holds beside its curves: the ROWS, `params_<class>`, and `counts`, `tau`, `log_A` of the nodes, if any."""
    for name, (dtype, unit) in ROWS.items():
        f.create_dataset(name, data=np.asarray(tables[name], dtype=dtype)).attrs["unit"] = unit
    for kind in CLASSES:
        d = f.create_dataset(f"params_{kind}", data=tables[f"params_{kind}"])
        d.attrs["units"] = json.dumps({p: UNITS[p] for p in PARAMETERS[kind]})
    if "counts" in tables:
        group = f.create_group("nodes")
        group.create_dataset("offset", data=np.cumsum([0, *tables["counts"]]).astype("i8"))
        group.create_dataset("tau", data=np.asarray(tables["tau"], "f8"))
        group.create_dataset("log_A", data=np.asarray(tables["log_A"], "f4"))


def param_dtype(kind: str) -> np.dtype:
    """Structured dtype of params_<kind>: the parameters, then `row`."""
    return np.dtype([(p, "f8") for p in PARAMETERS[kind]] + [("row", "i8")])


class Dataset:
    """An open dataset file, read only; curves are read on demand, parameters are a table in memory."""

    def __init__(self, path):
        self.path = Path(path)
        if not self.path.exists():
            raise FileNotFoundError(f"{self.path}: no such dataset. `python -m microlens simulate --output {path}` makes one.")
        try:
            self._f = h5py.File(self.path, "r")
        except OSError as error:
            raise DatasetError(f"{self.path}: not a readable HDF5 file, or a truncated one ({error}).") from error
        try:
            self._validate()
        except BaseException:
            self.close()
            raise
        self.timestamps = self._f["timestamps"][:]
        self.attrs = {k: (v.tolist() if isinstance(v, np.ndarray) else v) for k, v in self._f.attrs.items()}
        self.config = json.loads(self.attrs["config"])
        self.detector = self.config["detector"]
        self.n_events, self.n_epochs = self._f["flux"].shape
        for name in ROWS:
            setattr(self, name, self._f[name][:])
        self.params = self._table()

    def _validate(self):
        f, where = self._f, f"{self.path}"
        version = f.attrs.get("format_version")
        if version != FORMAT_VERSION:
            raise DatasetError(f"{where}: format version {version}, this package reads {FORMAT_VERSION}; simulate it again.")
        needed = ["timestamps", *CURVES, *ROWS, *(f"params_{c}" for c in CLASSES)]
        missing = [n for n in needed if n not in f]
        if missing:
            raise DatasetError(f"{where}: dataset {', '.join(missing)} is missing; simulate it again.")
        if "config" not in f.attrs:
            raise DatasetError(f"{where}: attribute config is missing; simulate it again.")
        if f["flux"].ndim != 2:
            raise DatasetError(f"{where}: flux has shape {f['flux'].shape}, expected (N, T).")
        n, n_t = f["flux"].shape
        shapes = {"timestamps": (n_t,), "delta_t": (n, n_t), **{name: (n,) for name in ROWS}}
        for name, shape in shapes.items():
            if f[name].shape != shape:
                raise DatasetError(f"{where}: {name} has shape {f[name].shape}, expected {shape}.")
        if n == 0:
            raise DatasetError(f"{where}: holds no events.")
        if "nodes" in f and f["nodes/offset"].shape != (n + 1,):
            raise DatasetError(f"{where}: nodes/offset has shape {f['nodes/offset'].shape}, expected {(n + 1,)}.")
        if sum(len(f[f"params_{c}"]) for c in CLASSES) != n:
            raise DatasetError(f"{where}: the params tables do not have one row an event.")

    def _table(self) -> pd.DataFrame:
        columns = {p: np.full(self.n_events, np.nan) for p in PARAMETERS["binary"]}
        for kind in CLASSES:
            table = self._f[f"params_{kind}"][:]
            for p in PARAMETERS[kind]:
                columns[p][table["row"]] = table[p]
        frame = pd.DataFrame(columns)
        frame["label"], frame["label_observable"] = self.labels, self.labels_observable
        for name in ROWS:
            if name not in ("labels", "labels_observable", "m_base"):
                frame[name] = getattr(self, name)
        return frame

    def _read(self, name, rows) -> np.ndarray:
        if rows is None:
            return self._f[name][:]
        if isinstance(rows, slice):
            return self._f[name][rows]
        rows = np.asarray(rows, dtype=int)
        if rows.ndim == 0:
            return self._f[name][int(rows)]
        out = np.empty((len(rows), self.n_epochs), np.float32)
        for i, r in enumerate(rows):  # ten times faster than fancy indexing
            out[i] = self._f[name][int(r)]
        return out

    def flux(self, rows=None) -> np.ndarray:
        """F/F_base, (len(rows), T) float32, or (T,) for one row number; 0.0 = no observation."""
        return self._read("flux", rows)

    def delta_t(self, rows=None) -> np.ndarray:
        """Days since the previous valid epoch, shaped as flux."""
        return self._read("delta_t", rows)

    def sigma(self, rows=None) -> np.ndarray:
        """Reported error of the measured flux, shaped as flux, F/F_base; NaN where there is no observation."""
        flux = self.flux(rows)
        m_base = self.m_base if rows is None else self.m_base[rows]
        sigma = sigma_flux(flux, m_base, self.detector, self.config["noise_scale"])
        return np.where(flux != 0, sigma, np.nan).astype(np.float32)

    @property
    def is_virtual(self) -> bool:
        """Whether the curves are references to shards."""
        return self._f["flux"].is_virtual

    @property
    def has_nodes(self) -> bool:
        return "nodes" in self._f

    def nodes(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """(tau, log_A) of one event's magnification curve, Einstein-time units; empty for a flat event."""
        if not self.has_nodes:
            raise DatasetError(f"{self.path}: keeps no nodes; simulate with --keep-nodes.")
        a, b = self._f["nodes/offset"][int(row) : int(row) + 2]
        return self._f["nodes/tau"][a:b], self._f["nodes/log_A"][a:b].astype(float)

    def close(self):
        self._f.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __len__(self):
        return self.n_events


def open_dataset(path) -> Dataset:
    """Open and validate a dataset. Raises FileNotFoundError, or DatasetError naming file and cause."""
    return Dataset(path)


def concatenate(parts, path, *, n_events: int | None = None, attrs: dict | None = None, virtual: bool = False) -> Path:
    """One dataset from shards, in their order: copied, or with virtual=True by reference to the shards (no copy of curves).

    parts : paths; with n_events, the events in all of them, also an iterator that yields each when it is written.
    Raises DatasetError if the shards are not of one kind (epochs) or hold another number of events.
    """
    if n_events is None:
        parts = list(parts)
        n_events = sum(map(_n_events, parts))
    parts, start, tables = iter(parts), 0, []
    with open_dataset(next(parts)) as first, contextlib.ExitStack() as stack:
        size = int(n_events / len(first) * first.path.stat().st_size)
        f = stack.enter_context(_new_file(path, 0 if virtual else size))
        for name, value in sorted((attrs or first.attrs).items()):
            f.attrs[name] = value
        f.create_dataset("timestamps", data=first.timestamps).attrs["unit"] = "d"
        shape = (n_events, first.n_epochs)
        out = {name: h5py.VirtualLayout(shape, "f4") if virtual else _curves(f, name, shape, name != "flux") for name in CURVES}
        for d in itertools.chain([first], map(open_dataset, parts)):
            with d:
                if not np.array_equal(d.timestamps, first.timestamps):
                    raise DatasetError(f"{d.path}: has other epochs than {first.path}; they are not shards of one dataset.")
                if start + len(d) > n_events:
                    raise DatasetError(f"{d.path}: the shards up to it hold {start + len(d)} events, expected {n_events} in all.")
                for name in CURVES:
                    if virtual:
                        source = os.path.relpath(d.path.resolve(), Path(path).resolve().parent)
                        out[name][start : start + len(d)] = h5py.VirtualSource(source, name, shape=(len(d), d.n_epochs))
                    else:
                        _append_curves(out[name], d._f[name], start)
                tables.append(_tables(d, start))
                start += len(d)
        if start != n_events:
            raise DatasetError(f"{path}: its shards hold {start} events, expected {n_events}.")
        if virtual:
            for name, layout in out.items():
                f.create_virtual_dataset(name, layout).attrs["unit"] = CURVES[name]
        _write_tables(f, {name: np.concatenate([t[name] for t in tables]) for name in tables[0] if all(name in t for t in tables)})
    return Path(path)


def _n_events(path) -> int:
    with open_dataset(path) as d:
        return len(d)


def _tables(d: Dataset, start: int) -> dict:
    """What is kept of a shard beside its curves, as arrays; its first event is row `start` of the whole."""
    out = {name: getattr(d, name) for name in ROWS}
    for kind in CLASSES:
        out[f"params_{kind}"] = d._f[f"params_{kind}"][:]
        out[f"params_{kind}"]["row"] += start
    if d.has_nodes:
        out |= {"counts": np.diff(d._f["nodes/offset"][:]), "tau": d._f["nodes/tau"][:], "log_A": d._f["nodes/log_A"][:]}
    return out


def write_predictions(path, arrays: dict, attrs: dict) -> Path:
    """Write named arrays (each (N, ...)) and attributes atomically; the predictions of one evaluation."""
    with _new_file(path, sum(np.asarray(a).nbytes for a in arrays.values())) as f:
        f.attrs["format_version"] = FORMAT_VERSION
        for name, value in sorted(attrs.items()):
            f.attrs[name] = value
        for name, value in arrays.items():
            f.create_dataset(name, data=np.asarray(value))
    return Path(path)


def read_predictions(path, names=None) -> tuple[dict, dict]:
    """(arrays, attributes) of a predictions file; only the arrays `names`, if given. Raises DatasetError naming file and cause."""
    try:
        with h5py.File(path, "r") as f:
            missing = sorted(set(names or ()) - set(f))
            if missing:
                raise DatasetError(f"{path}: holds no {', '.join(missing)}, so it is no predictions file of this format.")
            return {k: f[k][:] for k in names or f}, dict(f.attrs)
    except OSError as error:
        raise DatasetError(f"{path}: not a readable predictions file ({error}).") from error
