"""The dataset file: schema, writing, validation on opening, joining of shards. The only module that imports h5py.

    with open_dataset("data/raw/test.h5") as data:
        data.params                     # pandas DataFrame, one row an event, true parameters and labels by name
        flux = data.flux([3, 17])       # (2, T) float32, F/F_base, 0.0 = no observation

Format version 2, N events of T epochs: `flux`, `delta_t` (N, T) float32; `timestamps` (T,); one value an event of everything in
ROWS; `params_<class>` structured with `row`; `nodes/offset, tau, log_A`. Flux is not compressed (its digits are noise); delta_t, a
mask in disguise, shrinks to a few hundredths. Errors are a function of measured flux and m_base and are computed on reading.

The first 512 bytes of a file, which HDF5 leaves to its user, hold the SHA-256 of all others. It is compared once a process when a
file is opened, so a damaged or shortened file never passes for a good one, and it is what two copies of a file have in common.
It costs 0.7 ms a megabyte (`make bench`); checksums of HDF5's own (fletcher32) would need chunks, which cost more on every read.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from microlens.config import CLASS_PARAMETERS, CLASSES, FLAT, PARAMETERS, PSPL
from microlens.files import atomic
from microlens.sky import sigma_flux

FORMAT_VERSION = 2
ROWS = {  # one value an event: (dtype, unit)
    "labels": ("i1", ""),
    "labels_observable": ("i1", ""),
    "status": ("i1", ""),
    "n_draws": ("i2", ""),
    "delta_chi2_flat": ("f4", ""),
    "delta_chi2_pspl": ("f4", ""),
    "m_base": ("f4", PARAMETERS["m_base"].unit),
    "t_observable_flat": ("f8", "d"),
    "t_observable_pspl": ("f8", "d"),
    "t_premature": ("f8", "d"),
}
CURVES = {"flux": "F/F_base, 0.0 = no observation", "delta_t": "d"}
STATUS_ANALYTIC, STATUS_NODES, STATUS_REDRAWN = 0, 1, 3
STATUS = {STATUS_ANALYTIC: "analytic", STATUS_NODES: "nodes", STATUS_REDRAWN: "redrawn after a failed magnification"}

USER_BLOCK = 512  # bytes before the HDF5 part
MAGIC = b"microlens sha256 "
SPARE = 2**17  # bytes; tables, attributes and the free space that HDF5 leaves in a file


class DatasetError(ValueError):
    """A dataset file that cannot be used; the message names file and cause."""


@contextlib.contextmanager
def _new_file(path, n_bytes: int) -> Iterator[h5py.File]:
    """An HDF5 file of about n_bytes that takes its place at `path`, with its checksum, when the block ends well.

    Room for them and a little more is asked for first: HDF5 may crash while it closes a file for which disk, quota or file-size limit
    left none.
    """
    with atomic(path) as temporary:
        with open(temporary, "wb") as f:
            os.posix_fallocate(f.fileno(), 0, int(1.05 * n_bytes) + SPARE)
        with h5py.File(temporary, "w", userblock_size=USER_BLOCK) as f:
            yield f
        with open(temporary, "r+b") as f:
            checksum = _checksum(f)
            f.seek(0)
            f.write((MAGIC + checksum.encode()).ljust(USER_BLOCK - 1) + b"\n")


def _checksum(f) -> str:
    """SHA-256, as hexadecimal digits, of all bytes of an open file behind its user block."""
    f.seek(USER_BLOCK)
    return hashlib.file_digest(f, "sha256").hexdigest()


_verified: dict[tuple, str] = {}  # files whose checksum this process has compared


def verified_checksum(path) -> str:
    """The checksum of a file of this package. Raises DatasetError where it is missing or the file's bytes are others."""
    path = Path(path)
    stat = path.stat()
    key = (str(path.resolve()), stat.st_ino, stat.st_size, stat.st_mtime_ns)
    if key not in _verified:
        with open(path, "rb") as f:
            block = f.read(USER_BLOCK)
            stated = re.fullmatch(rb"microlens sha256 ([0-9a-f]{64}) *\n", block)
            if stated is None:
                older = " It may be of an older version of this package; simulate it again." if block[1:4] == b"HDF" else ""
                raise DatasetError(f"{path}: is no file of this package, or its beginning is damaged.{older}")
            if _checksum(f) != stated[1].decode():
                raise DatasetError(f"{path}: is damaged or cut short: its bytes do not have the checksum that stands in it. "
                                   "Copy it again from a good one, or make it again.")
        _verified[key] = stated[1].decode()
    return _verified[key]


def _open(path, kind: str) -> tuple[h5py.File, str]:
    """A file of this package, opened for reading, and its checksum. kind : what it is, in words."""
    try:
        checksum = verified_checksum(path)
        return h5py.File(path, "r"), checksum
    except IsADirectoryError:
        raise DatasetError(f"{path}: is a folder, expected a {kind}.") from None
    except OSError as error:
        raise DatasetError(f"{path}: not a readable {kind} ({error}).") from error


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


def write_dataset(path, *, timestamps, flux, rows: dict, params: dict, nodes, attrs: dict) -> Path:
    """Write a dataset atomically.

    timestamps (T,); flux (N, T); rows : arrays (N,) named as in ROWS; params : {class: structured array with 'row'};
    nodes : list of N (tau, log_A) pairs, empty ones where there is no curve; attrs : file attributes (config as JSON, seed, ...).
    """
    n_bytes = flux.nbytes + flux.size // 8  # delta_t is a packed mask
    n_bytes += sum(12 * len(tau) for tau, _ in nodes)
    with _new_file(path, n_bytes) as f:
        _write_attributes(f, attrs)
        f.create_dataset("timestamps", data=np.asarray(timestamps, dtype="f8")).attrs["unit"] = "d"
        n = len(flux)
        _curves(f, "flux", flux.shape, False)[:] = flux
        delta = _curves(f, "delta_t", flux.shape, True)
        for start in range(0, n, 512):
            delta[start : start + 512] = time_since_last(timestamps, flux[start : start + 512])
        tables = {**rows, **{f"params_{kind}": params[kind] for kind in CLASSES}}
        tables |= {"counts": [len(tau) for tau, _ in nodes], "tau": np.concatenate([tau for tau, _ in nodes]),
                   "log_A": np.concatenate([log_A for _, log_A in nodes])}
        _write_tables(f, tables)
    return Path(path)


def _write_attributes(f, attrs: dict):
    for name, value in sorted({**attrs, "format_version": FORMAT_VERSION, "classes": list(CLASSES)}.items()):
        f.attrs[name] = value


def _write_tables(f, tables: dict):
    """What a dataset holds beside its curves: the ROWS, `params_<class>`, and `counts`, `tau`, `log_A` of the nodes."""
    for name, (dtype, unit) in ROWS.items():
        f.create_dataset(name, data=np.asarray(tables[name], dtype=dtype)).attrs["unit"] = unit
    for kind in CLASSES:
        d = f.create_dataset(f"params_{kind}", data=tables[f"params_{kind}"])
        d.attrs["units"] = json.dumps({p: PARAMETERS[p].unit for p in CLASS_PARAMETERS[kind]})
    group = f.create_group("nodes")
    group.create_dataset("offset", data=np.cumsum([0, *tables["counts"]]).astype("i8"))
    group.create_dataset("tau", data=np.asarray(tables["tau"], "f8"))
    group.create_dataset("log_A", data=np.asarray(tables["log_A"], "f4"))


def param_dtype(kind: str) -> np.dtype:
    """Structured dtype of params_<kind>: the parameters, then `row`."""
    return np.dtype([(p, "f8") for p in CLASS_PARAMETERS[kind]] + [("row", "i8")])


class Dataset:
    """An open dataset file, read only; curves are read on demand, parameters are a table in memory."""

    def __init__(self, path):
        self.path = Path(path)
        if not self.path.exists():
            raise FileNotFoundError(f"{self.path}: no such dataset. `microlens simulate --output {path}` makes one.")
        self._f, self.checksum = _open(self.path, "dataset")
        try:
            self._validate()
            self._read_tables()
        except DatasetError:
            self.close()
            raise
        except Exception as error:  # a part that is of another kind than the format says
            self.close()
            raise DatasetError(f"{self.path}: is no dataset of this format ({type(error).__name__}: {error}).") from error

    def _read_tables(self):
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
        needed = ["timestamps", *CURVES, *ROWS, *(f"params_{c}" for c in CLASSES), "nodes/offset", "nodes/tau", "nodes/log_A"]
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
        if f["nodes/offset"].shape != (n + 1,):
            raise DatasetError(f"{where}: nodes/offset has shape {f['nodes/offset'].shape}, expected {(n + 1,)}.")
        if sum(len(f[f"params_{c}"]) for c in CLASSES) != n:
            raise DatasetError(f"{where}: the params tables do not have one row an event.")

    def _table(self) -> pd.DataFrame:
        columns = {p: np.full(self.n_events, np.nan) for p in CLASS_PARAMETERS["binary"]}
        for kind in CLASSES:
            table = self._f[f"params_{kind}"][:]
            for p in CLASS_PARAMETERS[kind]:
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

    def nodes(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """(tau, log_A) of one event's magnification curve, Einstein-time units; empty for a flat event and a point source."""
        a, b = self._f["nodes/offset"][int(row) : int(row) + 2]
        return self._f["nodes/tau"][a:b], self._f["nodes/log_A"][a:b].astype(float)

    def curve(self, row: int):
        """The magnification curve of one event as `microlens.data.true_flux` takes it: None, a point source's u_0, or nodes."""
        label, u_0, rho = self.params.loc[row, ["label", "u_0", "rho"]]
        if label == FLAT:
            return None
        return float(u_0) if label == PSPL and rho == 0 else self.nodes(row)

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


def join_shards(shards, path, *, n_events: int, attrs: dict) -> Path:
    """One dataset file of the shards, in their order.

    shards : their paths; an iterator may yield each when it is written.   n_events : the events in all of them.
    Raises DatasetError where the shards have other epochs than the first, or hold another number of events.
    """
    shards, start, tables = iter(shards), 0, []
    with open_dataset(next(shards)) as first, _new_file(path, int(n_events / len(first) * first.path.stat().st_size)) as f:
        _write_attributes(f, attrs)
        f.create_dataset("timestamps", data=first.timestamps).attrs["unit"] = "d"
        out = {name: _curves(f, name, (n_events, first.n_epochs), name != "flux") for name in CURVES}
        for shard in itertools.chain([first], map(open_dataset, shards)):
            with shard:
                if not np.array_equal(shard.timestamps, first.timestamps):
                    raise DatasetError(f"{shard.path}: has other epochs than {first.path}; they are not shards of one dataset.")
                if start + len(shard) > n_events:
                    raise DatasetError(f"{shard.path}: the shards up to it hold {start + len(shard)} events, expected {n_events}.")
                for name in CURVES:
                    _append_curves(out[name], shard._f[name], start)
                tables.append(_tables(shard, start))
                start += len(shard)
        if start != n_events:
            raise DatasetError(f"{path}: its shards hold {start} events, expected {n_events}.")
        _write_tables(f, {name: np.concatenate([t[name] for t in tables]) for name in tables[0]})
    return Path(path)


def _tables(d: Dataset, start: int) -> dict:
    """The tables of a shard (everything beside its curves) as arrays; its first event becomes row `start` of the whole."""
    out = {name: getattr(d, name) for name in ROWS}
    for kind in CLASSES:
        out[f"params_{kind}"] = d._f[f"params_{kind}"][:]
        out[f"params_{kind}"]["row"] += start
    return out | {"counts": np.diff(d._f["nodes/offset"][:]), "tau": d._f["nodes/tau"][:], "log_A": d._f["nodes/log_A"][:]}


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
    f, _ = _open(path, "predictions file")
    with f:
        missing = sorted(set(names or ()) - set(f))
        if missing:
            raise DatasetError(f"{path}: holds no {', '.join(missing)}, so it is no predictions file of this format.")
        return {k: f[k][:] for k in names or f}, dict(f.attrs)
