"""The dataset file: schema, writing, validation on opening, joining of shards. The only module that imports h5py.

    with open_dataset("data/raw/test.h5") as data:
        data.params                     # pandas DataFrame, one row an event, true parameters and labels by name
        flux = data.flux([3, 17])       # (2, T) float32, F/F_base, 0.0 = no observation

docs/formats.md lists what a file holds. Flux is not compressed (its digits are noise); delta_t, a mask in disguise,
shrinks to a few hundredths. Errors are a function of measured flux and m_base and are computed on reading.

The first 512 bytes of a file, which HDF5 leaves to its user, hold the SHA-256 of all others, compared once a process.
HDF5's own checksums cost nearly as much at every reading and cover compressed parts alone.
"""

from __future__ import annotations

import contextlib
import functools
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

from microlens.config import (
    CLASS_PARAMETERS,
    CLASSES,
    FLAT,
    LENSING_CLASSES,
    OTHER,
    PARAMETERS,
    SUBCLASSES,
    TWO_SOURCES,
    VARIABLE_PARAMETERS,
    SimulateConfig,
)
from microlens.files import atomic
from microlens.sky import NOISE_PARAMETERS, Preset, VariableStar, sigma_flux

FORMAT_VERSION = 4
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
NODES = {"nodes/offset": "i8", "nodes/tau": "f8", "nodes/log_A": "f4"}  # row i has offset[i] to offset[i + 1]
NOISE = np.dtype([(name, "f8") for name in NOISE_PARAMETERS])  # terms of noise of an event; NaN where it lacks one
PREDICTED = ("row", "log_p", "called")  # arrays that every predictions file has
CURVES = {"flux": "F/F_base, 0.0 = no observation", "delta_t": "d"}
INJECTED_CURVES = CURVES | {"flux_err": "F/F_base"}  # of events in real photometry
STATUS_ANALYTIC, STATUS_NODES, STATUS_REDRAWN = 0, 1, 3
STATUS = {STATUS_ANALYTIC: "analytic", STATUS_NODES: "nodes", STATUS_REDRAWN: "redrawn after a failed magnification"}

CHUNK = 8  # events of a compressed chunk of delta_t
COPIED = 512  # events that are in memory at once when curves are copied
USER_BLOCK = 512  # bytes before the HDF5 part
SPARE = 2**17  # bytes; tables, attributes and the free space that HDF5 leaves in a file


class DatasetError(ValueError):
    """A dataset file that cannot be used; the message names file and cause."""


# ---- files with a checksum ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def new_file(path, n_bytes: int) -> Iterator[h5py.File]:
    """An HDF5 file of about n_bytes that takes its place at `path`, with its checksum, when the block ends well.

    Room for them and a little more is asked for first: HDF5 may crash while it closes a file for which disk, quota or
    file-size limit left none.
    """
    with atomic(path) as temporary:
        with open(temporary, "wb") as f:
            os.posix_fallocate(f.fileno(), 0, int(1.05 * n_bytes) + SPARE)
        with h5py.File(temporary, "w", userblock_size=USER_BLOCK) as f:
            yield f
        write_checksum(temporary)


def _checksum(f) -> str:
    """SHA-256, as hexadecimal digits, of all bytes of an open file behind its user block."""
    f.seek(USER_BLOCK)
    return hashlib.file_digest(f, "sha256").hexdigest()


def write_checksum(path):
    """Write the checksum of a file's bytes into its user block."""
    with open(path, "r+b") as f:
        line = f"microlens sha256 {_checksum(f)}"
        f.seek(0)
        f.write(line.encode().ljust(USER_BLOCK - 1) + b"\n")


_verified: dict[tuple, str] = {}  # files whose checksum this process has compared


def stated_checksum(path) -> str | None:
    """The checksum that stands in a file; None where none does."""
    with open(path, "rb") as f:
        line = re.fullmatch(rb"microlens sha256 ([0-9a-f]{64}) *\n", f.read(USER_BLOCK))
    return line and line[1].decode()


def _verified_checksum(path) -> str:
    """The checksum of a file of this package. Raises DatasetError where it is missing or is that of other bytes."""
    stat = os.stat(path)
    key = (os.path.realpath(path), stat.st_ino, stat.st_size, stat.st_mtime_ns)
    if key not in _verified:
        stated = stated_checksum(path)
        if stated is None:
            raise DatasetError(f"{path}: is no file of this version of the package, or its beginning is damaged; "
                               "make it again.")
        with open(path, "rb") as f:
            if _checksum(f) != stated:
                raise DatasetError(f"{path}: is damaged or cut short: its bytes do not have the checksum that stands "
                                   "in it. Copy it again from a good one, or make it again.")
        _verified[key] = stated
    return _verified[key]


def open_file(path, kind: str) -> tuple[h5py.File, str]:
    """A file of this package, opened for reading, and its checksum. kind : what it is, in words."""
    try:
        checksum = _verified_checksum(path)
        return h5py.File(path, "r"), checksum
    except FileNotFoundError:
        raise
    except IsADirectoryError:
        raise DatasetError(f"{path}: is a folder, expected a {kind}.") from None
    except OSError as error:
        raise DatasetError(f"{path}: not a readable {kind} ({error}).") from error


@contextlib.contextmanager
def expecting(path, kind: str) -> Iterator[None]:
    """Turn what h5py raises for a part that is missing or of another kind into a DatasetError that names the file."""
    try:
        yield
    except DatasetError:
        raise
    except Exception as error:  # h5py raises half a dozen types, with messages of one line or more
        cause = " ".join(f"{type(error).__name__}: {error}".split())
        raise DatasetError(f"{path}: is damaged or no {kind} of this format ({cause}).") from error


# ---- writing --------------------------------------------------------------------------------------------------------


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


def write_dataset(path, *, timestamps, flux, rows: dict, params: dict, noise, nodes, attrs: dict, flux_err=None,
                  star=None) -> Path:
    """Write a dataset atomically.

    timestamps : (T,) days.   flux : (N, T).   rows : arrays (N,) named as in ROWS.   params : structured arrays of
    param_dtype, by class; without `other` the file has three classes.   noise : (N,) of dtype NOISE.   nodes : N pairs
    (tau, log_A), empty ones where there is no curve.   attrs : of the file.   flux_err (N, T), star (N,) : of events in
    real photometry, their errors and the names of their stars as bytes.
    """
    tables = rows | {f"params_{kind}": table for kind, table in params.items()}
    tables["noise"] = noise
    tables["n_nodes"] = [len(tau) for tau, _ in nodes]
    tables["nodes/tau"] = np.concatenate([tau for tau, _ in nodes])
    tables["nodes/log_A"] = np.concatenate([log_A for _, log_A in nodes])
    n_bytes = flux.nbytes + flux.size // 8 + 12 * len(tables["nodes/tau"])  # delta_t is a packed mask
    curves = CURVES if flux_err is None else INJECTED_CURVES
    if flux_err is not None:
        tables["star"] = star
    with new_file(path, n_bytes) as f:
        out = _create_curves(f, timestamps, flux.shape, curves)
        out["flux"][:] = flux
        if flux_err is not None:
            out["flux_err"][:] = flux_err
        for start in range(0, len(flux), COPIED):
            part = slice(start, start + COPIED)
            out["delta_t"][part] = time_since_last(timestamps, flux[part])
        _write_tables(f, tables, attrs)
    return Path(path)


def _create_curves(f, timestamps, shape, curves: dict) -> dict[str, h5py.Dataset]:
    """The epochs, and the empty `curves` (N, T) in the layouts that were measured to be best for them.

    Those of real photometry are mostly zeros where its stars were observed at different times, so all are packed.
    """
    f.create_dataset("timestamps", data=np.asarray(timestamps, dtype="f8")).attrs["unit"] = "d"
    packed = {"chunks": (min(CHUNK, shape[0]), shape[1]), "compression": "gzip", "compression_opts": 1, "shuffle": True}
    for name, unit in curves.items():
        layout = packed if name != "flux" or "flux_err" in curves else {}
        f.create_dataset(name, shape, "f4", **layout).attrs["unit"] = unit
    return {name: f[name] for name in curves}


def _write_tables(f, tables: dict, attrs: dict):
    """Write what a dataset holds beside its curves: attributes, ROWS, `params_<class>`, `noise` and nodes."""
    classes = [kind for kind in CLASSES if f"params_{kind}" in tables]
    f.attrs.update(sorted({**attrs, "format_version": FORMAT_VERSION, "classes": classes}.items()))
    for name, (dtype, unit) in ROWS.items():
        f.create_dataset(name, data=np.asarray(tables[name], dtype=dtype)).attrs["unit"] = unit
    known = PARAMETERS | VARIABLE_PARAMETERS
    for kind in classes:
        table = f.create_dataset(f"params_{kind}", data=tables[f"params_{kind}"])
        table.attrs["units"] = json.dumps({p: known[p].unit for p in CLASS_PARAMETERS[kind]})
        if "subclass" in CLASS_PARAMETERS[kind]:
            table.attrs["subclasses"] = list(SUBCLASSES)
    noise = f.create_dataset("noise", data=tables["noise"])
    noise.attrs["units"] = json.dumps({name: bounds.unit for name, bounds in NOISE_PARAMETERS.items()})
    tables = {**tables, "nodes/offset": np.cumsum([0, *tables["n_nodes"]])}
    for name, dtype in NODES.items():
        f.create_dataset(name, data=np.asarray(tables[name], dtype=dtype))
    if "star" in tables:
        f.create_dataset("star", data=tables["star"])


def param_dtype(kind: str) -> np.dtype:
    """Structured dtype of params_<kind>: the parameters, then `row`. A sub-class is a number in SUBCLASSES."""
    return np.dtype([(p, "i2" if p == "subclass" else "f8") for p in CLASS_PARAMETERS[kind]] + [("row", "i8")])


def join_shards(shards, path, *, n_events: int, attrs: dict) -> Path:
    """One dataset file of the shards, in their order.

    shards : their paths; an iterator may yield each when it is written.   n_events : the events in all of them.
    Raises DatasetError where a shard has other attributes than `attrs`, or they hold another number of events.
    """
    shards, start, tables = iter(shards), 0, []
    with open_dataset(next(shards)) as first:
        n_bytes = int(n_events / len(first) * first.path.stat().st_size)
        with new_file(path, n_bytes) as f:
            out = _create_curves(f, first.timestamps, (n_events, first.n_epochs), first.curves)
            for shard in itertools.chain([first], map(open_dataset, shards)):
                with shard:
                    differing = [name for name, value in attrs.items() if shard.attrs[name] != value]
                    if differing or start + len(shard) > n_events:
                        raise DatasetError(f"{shard.path}: is no shard of this dataset (another "
                                           f"{differing[0] if differing else 'number of events'}); delete it.")
                    for i in range(0, len(shard), COPIED):
                        part = slice(i, min(i + COPIED, len(shard)))
                        for name in first.curves:
                            out[name][start + part.start : start + part.stop] = shard.read(name, part)
                    tables.append(_tables(shard, start))
                    start += len(shard)
            if start != n_events:
                raise DatasetError(f"{path}: its shards hold {start} events, expected {n_events}.")
            _write_tables(f, {name: np.concatenate([t[name] for t in tables]) for name in tables[0]}, attrs)
    return Path(path)


def _tables(shard: Dataset, start: int) -> dict:
    """What _write_tables takes of a shard whose first event becomes row `start` of the whole."""
    out = {name: getattr(shard, name) for name in ROWS}
    for kind in shard.classes:
        out[f"params_{kind}"] = shard.read(f"params_{kind}")
        out[f"params_{kind}"]["row"] += start
    names = ("noise", "nodes/tau", "nodes/log_A", *(["star"] if shard.is_injected else []))
    kept = {name: shard.read(name) for name in names}
    return out | kept | {"n_nodes": np.diff(shard.node_offset)}


# ---- reading --------------------------------------------------------------------------------------------------------


class OpenFile:
    """A file of the package that is held open until the block ends; `_f` is its HDF5 file.

    path, checksum; kind, what it is, in words.   _read : what a kind of files reads when it is opened.
    """

    def __init__(self, path, kind: str):
        self.path, self.kind = Path(path), kind
        self._f, self.checksum = open_file(self.path, kind)
        try:
            with expecting(self.path, kind):
                self._read()
        except DatasetError:
            self.close()
            raise

    def read(self, name: str, rows=None) -> np.ndarray:
        """Rows (None: all, a slice, a number, or several numbers) of the part `name` of the file."""
        with expecting(self.path, self.kind):
            part = self._f[name]
            if rows is None:
                return part[:]
            if isinstance(rows, slice) or np.ndim(rows) == 0:
                return part[rows]
            out = np.empty((len(rows), *part.shape[1:]), part.dtype)
            for i, row in enumerate(rows):  # ten times faster than fancy indexing
                out[i] = part[int(row)]
            return out

    def close(self):
        self._f.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Dataset(OpenFile):
    """An open dataset file, read only; curves are read on demand, parameters are a table in memory.

    path, checksum, attrs; classes, their names; config (dict) and detector of the simulation; n_events, n_epochs,
    timestamps (T,) days; every array of ROWS by its name; params, a pandas DataFrame of one row an event.
    """

    def __init__(self, path):
        try:
            super().__init__(path, "dataset")
        except FileNotFoundError:
            raise FileNotFoundError(f"{path}: no dataset; `microlens simulate --output {path}` makes it.") from None

    def _read(self):
        self._check_parts()
        self._read_tables()
        self._check_values()

    def _check_parts(self):
        """Raise DatasetError where version, classes, or the type or shape of a part are not the format's."""
        f = self._f
        version = f.attrs.get("format_version")
        if version != FORMAT_VERSION:
            raise self._error(f"format version {version}, this package reads {FORMAT_VERSION}; simulate it again")
        self.classes = tuple(f.attrs["classes"])
        if self.classes not in (LENSING_CLASSES, CLASSES):
            raise self._error(f"its classes are {', '.join(self.classes)}, expected {', '.join(LENSING_CLASSES)}, and "
                              "perhaps other")
        n, n_epochs = f["flux"].shape
        if n == 0:
            raise self._error("it holds no events")
        self.is_injected = "photometry" in f.attrs
        self.curves = INJECTED_CURVES if self.is_injected else CURVES
        expected = {"timestamps": ("f8", (n_epochs,)), **dict.fromkeys(self.curves, ("f4", (n, n_epochs)))}
        if self.is_injected:
            expected["star"] = (f["star"].dtype if f["star"].dtype.kind == "S" else "S", (n,))
        expected |= {name: (dtype, (n,)) for name, (dtype, _) in ROWS.items()}
        expected |= {f"params_{kind}": (param_dtype(kind), f[f"params_{kind}"].shape[:1]) for kind in self.classes}
        expected |= {name: (dtype, f["nodes/tau"].shape[:1]) for name, dtype in NODES.items()}
        expected["noise"] = (NOISE, (n,))
        expected["nodes/offset"] = (NODES["nodes/offset"], (n + 1,))
        for name, (dtype, shape) in expected.items():
            if f[name].dtype != np.dtype(dtype) or f[name].shape != shape:
                raise self._error(f"{name} is {f[name].dtype} {f[name].shape}, expected {np.dtype(dtype)} {shape}")

    def _read_tables(self):
        self.attrs = {k: (v.tolist() if isinstance(v, np.ndarray) else v) for k, v in self._f.attrs.items()}
        self.config = json.loads(self.attrs["config"])
        self.detector = SimulateConfig.from_dict(self.config).detector
        self.preset = Preset.from_dict(json.loads(self.attrs["preset"]))
        self.timestamps, self.node_offset = self._f["timestamps"][:], self._f["nodes/offset"][:]
        self.n_events, self.n_epochs = self._f["flux"].shape
        for name in ROWS:
            setattr(self, name, self._f[name][:])

    def _check_values(self):
        """Raise DatasetError where values are none that the format allows."""
        numbers = range(len(self.classes))
        allowed = {"labels": numbers, "labels_observable": numbers, "status": STATUS}
        for name, values in allowed.items():
            if not np.isin(getattr(self, name), list(values)).all():
                raise self._error(f"{name} holds other values than {', '.join(map(str, values))}")
        if not (np.isfinite(self.timestamps).all() and (np.diff(self.timestamps) > 0).all()):
            raise self._error("timestamps do not increase")
        first, last = self.node_offset[[0, -1]]
        if first != 0 or last != len(self._f["nodes/tau"]) or (np.diff(self.node_offset) < 0).any():
            raise self._error("nodes/offset does not divide the nodes among the events")
        if "other" in self.classes and list(self._f["params_other"].attrs["subclasses"]) != list(SUBCLASSES):
            raise self._error("its sub-classes are not those of this package")
        for number, kind in enumerate(self.classes):
            if not np.array_equal(self._f[f"params_{kind}"]["row"], np.flatnonzero(self.labels == number)):
                raise self._error(f"the rows of params_{kind} are not those of the class")

    def _error(self, cause: str) -> DatasetError:
        return DatasetError(f"{self.path}: is damaged or no dataset of this format: {cause}.")

    @functools.cached_property
    def params(self) -> pd.DataFrame:
        """One row an event: true parameters (NaN where a class has none), label, label_observable, the other ROWS.

        Those of variable stars are there where the file has events of class other; the sub-class is text, '' where an
        event has none.
        """
        names = [*PARAMETERS, *(VARIABLE_PARAMETERS if "other" in self.classes else ())]
        tables = [pd.DataFrame(self.read(f"params_{kind}")) for kind in self.classes]
        frame = pd.concat([table for table in tables if len(table)]).set_index("row").sort_index()
        frame = frame.reindex(columns=names).reset_index(drop=True)
        if "other" in self.classes:
            numbers = frame["subclass"].fillna(len(SUBCLASSES)).astype(int)
            frame["subclass"] = np.array([*SUBCLASSES, ""])[numbers]
        rows = {name: getattr(self, name) for name in ROWS if name != "m_base"}
        return frame.assign(**rows).rename(columns={"labels": "label", "labels_observable": "label_observable"})

    @functools.cached_property
    def noise(self) -> pd.DataFrame:
        """One row an event: the parameters of its terms of noise (sky.NOISE_PARAMETERS); NaN where it lacks a term."""
        return pd.DataFrame(self.read("noise"))

    def noise_terms(self, row: int) -> dict[str, float]:
        """The terms of noise of one event, as sky.draw_terms drew them and render_event takes them."""
        return self.noise.loc[row].dropna().to_dict()

    def flux(self, rows=None) -> np.ndarray:
        """F/F_base, (len(rows), T) float32, or (T,) for one row number; 0.0 = no observation. rows : see `read`."""
        return self.read("flux", rows)

    def delta_t(self, rows=None) -> np.ndarray:
        """Days since the previous valid epoch, shaped as flux."""
        return self.read("delta_t", rows)

    def sigma(self, rows=None) -> np.ndarray:
        """Reported error of the measured flux, shaped as flux, F/F_base; NaN where there is no observation."""
        flux = self.flux(rows)
        if self.is_injected:
            return np.where(flux != 0, self.read("flux_err", rows), np.nan).astype(np.float32)
        m_base = self.m_base if rows is None else self.m_base[rows]
        sigma = sigma_flux(flux, m_base, self.detector, self.config["noise_scale"])
        return np.where(flux != 0, sigma, np.nan).astype(np.float32)

    def curve(self, row: int):
        """The curve of one event as `microlens.data.true_flux` takes it: None, u_0, (tau, log_A), or a VariableStar."""
        if self.labels[row] == FLAT:
            return None
        if self.labels[row] == OTHER and self.params.at[row, "subclass"] != TWO_SOURCES:
            return VariableStar({name: self.params.at[row, name] for name in VARIABLE_PARAMETERS})
        part = slice(self.node_offset[int(row)], self.node_offset[int(row) + 1])  # empty for a point source
        tau, log_A = self.read("nodes/tau", part), self.read("nodes/log_A", part).astype(float)
        return (tau, log_A) if len(tau) else float(self.params.loc[row, "u_0"])

    @functools.cached_property
    def stars(self) -> np.ndarray | None:
        """Names (N,) of the real stars that events were put into; None for a file without them."""
        return np.char.decode(self.read("star"), "utf-8") if self.is_injected else None

    def __len__(self):
        return self.n_events


def open_dataset(path) -> Dataset:
    """Open and validate a dataset. Raises FileNotFoundError, or DatasetError naming file and cause."""
    return Dataset(path)


# ---- predictions ----------------------------------------------------------------------------------------------------


def write_predictions(path, arrays: dict, attrs: dict) -> Path:
    """Write named arrays (each (N, ...)) and attributes atomically; the predictions of one evaluation."""
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    with new_file(path, sum(array.nbytes for array in arrays.values())) as f:
        f.attrs.update(sorted({**attrs, "format_version": FORMAT_VERSION}.items()))
        for name, array in arrays.items():
            f.create_dataset(name, data=array)
    return Path(path)


def read_predictions(path, names=None) -> tuple[dict, dict]:
    """(arrays, attributes) of a predictions file: all arrays, with PREDICTED among them, or the arrays `names` alone.

    Raises FileNotFoundError, or DatasetError naming file and cause.
    """
    f, _ = open_file(path, "predictions file")
    with f, expecting(path, "predictions file"):
        missing = sorted(set(names or PREDICTED) - set(f))
        if missing:
            raise DatasetError(f"{path}: holds no {', '.join(missing)}, so it is no predictions file of this format; "
                               "`microlens evaluate` makes one.")
        version = f.attrs["format_version"]
        if version != FORMAT_VERSION:
            raise DatasetError(f"{path}: format version {version}, expected {FORMAT_VERSION}; evaluate again.")
        arrays = {name: f[name][:] for name in names or f}
        if not all(np.issubdtype(array.dtype, np.number) or array.dtype == bool for array in arrays.values()):
            raise DatasetError(f"{path}: holds something else than numbers, so it is no predictions file.")
        if names and len({len(array) for array in arrays.values()}) > 1:
            raise DatasetError(f"{path}: {', '.join(names)} are of different lengths.")
        return arrays, dict(f.attrs)
