"""From a dataset file to batches: packed arrays, splits, batch order.

    data = PackedDataset("data/raw/test.h5")           train, val, test = split_rows(data.labels, seed=0)
    for rows in batches(train, 128, seed=0, epoch=3): flux, delta_t, lengths = data.gather(rows)

Packed means: only the valid epochs of a curve, moved to the front. Flux is kept as int16 of asinh((F - 1)/SOFTENING), whose
rounding (1.4e-4 of the flux excess, 1e-7 at the baseline) stays far below the 1e-3 noise floor; noise without that floor (the
thesis' detector, a small noise_scale) is kept as float32. The packed file lies in the
data folder's cache, is made once, and is mapped into memory, so all processes of a node share one copy.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.ndimage import median_filter
from tqdm.auto import tqdm

from microlens import kernels
from microlens.detectability import fit_single_lens, running, single_lens_model
from microlens.paths import data_dir
from microlens.store import atomic, open_dataset

SOFTENING = 1e-3
LARGEST = 16.0  # asinh((F - 1)/SOFTENING) of F = 4400
STEP = LARGEST / 32767
SMOOTH = 9  # epochs of the running median of the error
MOST_PAUSES, PAUSES = 8, (0.05, 0.6)  # of a thinned curve; their length, d (Roman's: 0.25 and 0.5 d)
NEVER = np.iinfo(np.int32).max


def encode(flux) -> np.ndarray:
    """int16 code of F/F_base, any shape; a flux beyond 4400 times the baseline keeps the largest code."""
    y = np.arcsinh((np.asarray(flux, dtype=np.float64) - 1.0) / SOFTENING)
    return np.clip(np.rint(y / STEP), -32767, 32767).astype(np.int16)


def decode(code) -> np.ndarray:
    """F/F_base (float32) of an int16 code: the inverse of encode to its rounding. What is no code comes back as it is."""
    if np.asarray(code).dtype != np.int16:
        return np.array(code, dtype=np.float32)
    return (1.0 + SOFTENING * np.sinh(np.asarray(code, dtype=np.float64) * STEP)).astype(np.float32)


def pack(flux, delta_t, flux_err=None):
    """Move the valid epochs of each curve to the front.

    flux, delta_t, flux_err : (n, T); an epoch is missing where flux is 0 or NaN.
    Returns flux, delta_t (and flux_err, or None) of shape (n, T), zero beyond `lengths`, and lengths (n,) int64.
    delta_t must be the time since the previous VALID epoch, as the dataset file has it.
    """
    flux = np.asarray(flux)
    valid = np.isfinite(flux) & (flux != 0)
    lengths = valid.sum(axis=1)
    order = np.argsort(~valid, axis=1, kind="stable")
    front = np.arange(flux.shape[1]) < lengths[:, None]
    out = [None if a is None else np.where(front, np.take_along_axis(np.asarray(a), order, 1), 0).astype(np.float32)
           for a in (flux, delta_t, flux_err)]
    return (*out, lengths)


def smooth_error(flux_err) -> np.ndarray:
    """Running median (n,) of the reported errors (n,), which an epoch's own noise does not enter."""
    return median_filter(np.asarray(flux_err, dtype=float), SMOOTH, mode="nearest")


def residual_view(flux, delta_t, flux_err, lengths) -> np.ndarray:
    """What the residual view adds to packed curves: (n, T, 2) float32, zero beyond `lengths`.

    The first channel is asinh of the residual to the best single lens in units of the error (a running median of the reported
    one, which the epoch's own noise does not enter), the second log10 of the median error. flux, delta_t, flux_err : (n, T).
    A curve of fewer than 5 epochs has no fit and residual 0.
    """
    out = np.zeros((*flux.shape, 2), np.float32)
    for i, n in enumerate(lengths):
        if n < 5:
            continue
        y, sigma = flux[i, :n].astype(float), smooth_error(flux_err[i, :n])
        t = np.cumsum(delta_t[i, :n], dtype=float)
        model = single_lens_model(t, fit_single_lens(t, y, sigma, finite_source=True))
        out[i, :n, 0] = np.arcsinh((y - model) / sigma)
        out[i, :n, 1] = np.log10(np.median(sigma))
    return out


def running_view(flux, delta_t, lengths, block) -> np.ndarray:
    """What the running view adds to packed curves: (n, T, running.CHANNELS) float32, the single lens through each epoch's past.

    flux, delta_t : (n, T).   block : epochs between two fits.   Causal: see microlens.detectability.running. 0 beyond the last whole
    block of `lengths`.
    """
    return running.advance(running.new_state(len(flux), block), flux, delta_t, lengths)


def split_rows(labels, seed: int = 0, val_fraction: float = 0.15, test_fraction: float = 0.15):
    """Row numbers (train, val, test), ascending, stratified by label, a function of labels and seed alone."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(11,)))
    parts = ([], [], [])
    for c in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == c))
        n_val, n_test = round(val_fraction * len(rows)), round(test_fraction * len(rows))
        for part, piece in zip(parts, (rows[n_val + n_test :], rows[:n_val], rows[n_val : n_val + n_test]), strict=True):
            part.append(piece)
    return tuple(np.sort(np.concatenate(p)) for p in parts)


def batches(rows, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """The batches of an epoch: a shuffle that depends on (seed, epoch) only. The last one may be short."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(12, epoch)))
    order = rng.permutation(rows)
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def thin(flux, delta_t, lengths, extra, largest, seeds):
    """Packed curves with epochs taken out, as harder seasons would: a random share up to `largest`, and up to MOST_PAUSES pauses.

    flux, delta_t (n, T), lengths (n,), extra (n, T, k) or None; seeds : n integer tuples, one a curve, that decide what is lost.
    What `extra` says of an epoch stays as it was: a fit hardly moves when epochs are lost at random.
    Returns the same four.
    """
    n_left = np.empty_like(lengths)
    flux, delta_t, extra = (None if a is None else a.copy() for a in (flux, delta_t, extra))
    for i, n in enumerate(lengths):
        rng = np.random.default_rng(np.random.SeedSequence(seeds[i]))
        t = np.cumsum(delta_t[i, :n], dtype=float)
        keep = rng.random(n) >= largest * rng.random()
        for _ in range(rng.integers(MOST_PAUSES + 1)):
            start = rng.uniform(t[0], t[-1])
            keep &= (t < start) | (t > start + rng.uniform(*PAUSES))
        left = np.flatnonzero(keep)
        n_left[i] = len(left)
        flux[i, : len(left)], flux[i, len(left) :] = flux[i, left], 0.0
        delta_t[i, : len(left)], delta_t[i, len(left) :] = np.diff(t[left], prepend=t[left[:1]]), 0.0
        if extra is not None:
            extra[i, : len(left)], extra[i, len(left) :] = extra[i, left], 0.0
    longest = int(n_left.max())
    return flux[:, :longest], delta_t[:, :longest], n_left, None if extra is None else extra[:, :longest]


@contextlib.contextmanager
def only_one(path: Path):
    """Hold a lock file; other processes of this machine wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


class Events(NamedTuple):
    """Packed curves of some events and what is known of them: see PackedDataset.gather; seen_* are numbers of valid epochs."""

    flux: np.ndarray
    delta_t: np.ndarray
    lengths: np.ndarray
    extra: np.ndarray | None
    labels: np.ndarray
    labels_observable: np.ndarray
    seen_flat: np.ndarray
    seen_pspl: np.ndarray

    def prefix_labels(self, counts) -> np.ndarray:
        """What an observer can know after `counts` (n, k) valid epochs: (n, k) int64 class numbers."""
        flat = counts < self.seen_flat[:, None]
        binary = (counts >= self.seen_pspl[:, None]) & (self.labels_observable == 2)[:, None]
        return np.where(flat, 0, np.where(binary, 2, 1))


class PackedDataset:
    """A dataset's curves, packed and memory-mapped, with both labels and the moments of observability as epoch counts.

    view : what `gather` adds to flux and time step.   block : epochs between two fits of the running view.
    """

    def __init__(self, path, view: str = "flux", block: int = 16, progress: bool = True):
        self.view, self.block = view, block
        with open_dataset(path) as data:
            self.path, self.n_events = Path(path), data.n_events
            self.timestamps = data.timestamps
            self.labels, self.labels_observable = data.labels.astype(np.int64), data.labels_observable.astype(np.int64)
            self.identity = f"{Path(path).name}:{data.attrs['config']}:{hashlib.sha256(data.labels.tobytes()).hexdigest()[:16]}"
            stat = Path(path).stat()
            key = hashlib.sha256(f"{Path(path).resolve()}:{stat.st_mtime_ns}:{stat.st_size}".encode()).hexdigest()[:20]
            folder = data_dir() / "cache"
            codes, masks = folder / f"{key}.flux.npy", folder / f"{key}.mask.npy"
            with only_one(folder / f"{key}.lock"):  # one process of a node packs, the others wait for it
                if not (codes.exists() and masks.exists()):
                    self._make(data, codes, masks)
                added = folder / f"{key}.{view}{block if view == 'running' else ''}.{kernels.VERSION}.npy"
                if view == "residual" and not added.exists():
                    self._make_residuals(data, added, progress)
                if view == "running" and not added.exists():
                    self._make_running(data, added, block, progress)
            self.codes, self.masks = np.load(codes, mmap_mode="r"), np.load(masks, mmap_mode="r")
            self.added = None if view == "flux" else np.load(added, mmap_mode="r")
            n_t = data.n_epochs
            self.lengths = np.array([int(np.unpackbits(m, count=n_t).sum()) for m in self.masks], dtype=np.int64)
            self.seen_flat = self._epoch_counts(data.t_observable_flat)
            self.seen_pspl = self._epoch_counts(data.t_observable_pspl)

    @staticmethod
    def _make(data, codes, masks):
        n, n_t = data.n_events, data.n_epochs
        with atomic(codes) as a, atomic(masks) as b:
            below_noise = data.detector != "thesis" and data.config["noise_scale"] >= 0.5
            packed = np.lib.format.open_memmap(a, "w+", np.int16 if below_noise else np.float32, (n, n_t))
            bits = np.lib.format.open_memmap(b, "w+", np.uint8, (n, (n_t + 7) // 8))
            for i in range(0, n, 256):
                flux = data.flux(slice(i, i + 256))
                bits[i : i + 256] = np.packbits(flux != 0, axis=1)
                front = pack(flux, flux)[0]
                packed[i : i + 256] = encode(front) if below_noise else front
            packed.flush()
            bits.flush()
            os.sync()

    @staticmethod
    def _make_residuals(data, path, progress):
        """(N, T + 1) int16: asinh of the residuals, and in the last column log10 of the median error, in units of STEP."""
        n, n_t = data.n_events, data.n_epochs
        with atomic(path) as temporary:
            out = np.lib.format.open_memmap(temporary, "w+", np.int16, (n, n_t + 1))
            with tqdm(total=n, desc="fit single lenses", unit="event", disable=not progress) as bar:
                for i in range(0, n, 256):
                    part = slice(i, i + 256)
                    flux, delta_t, error, lengths = pack(data.flux(part), data.delta_t(part), data.sigma(part))
                    made = residual_view(flux, delta_t, error, lengths)
                    out[part, :n_t] = np.clip(np.rint(made[..., 0] / STEP), -32767, 32767)
                    out[part, n_t] = np.rint(made[:, 0, 1] / STEP)
                    bar.update(len(flux))
            out.flush()

    @staticmethod
    def _make_running(data, path, block, progress):
        """(N, T // block, 2 block + 4) int16, units of STEP: a block's two residuals for each epoch, then what its epochs share."""
        n, blocks = data.n_events, data.n_epochs // block
        shape, epochs = (blocks, block, running.CHANNELS), blocks * block
        with atomic(path) as temporary:
            out = np.lib.format.open_memmap(temporary, "w+", np.int16, (n, blocks, 2 * block + running.CHANNELS - 2))
            with tqdm(total=n, desc="running fits", unit="event", disable=not progress) as bar:
                for i in range(0, n, 256):
                    part = slice(i, i + 256)
                    flux, delta_t, _, lengths = pack(data.flux(part), data.delta_t(part))
                    made = running_view(flux, delta_t, lengths, block)[:, :epochs].reshape(-1, *shape)
                    made = np.concatenate([made[..., :2].reshape(*made.shape[:2], -1), made[:, :, 0, 2:]], axis=2)
                    out[part] = np.clip(np.rint(made / STEP), -32767, 32767)
                    bar.update(len(flux))
            out.flush()

    def _epoch_counts(self, times) -> np.ndarray:
        """How many valid epochs have passed when `times` (N,) is reached, that epoch included; NEVER for NaN."""
        out = np.full(self.n_events, NEVER, dtype=np.int64)
        for i in np.flatnonzero(np.isfinite(times)):
            valid = np.unpackbits(self.masks[i], count=len(self.timestamps)).astype(bool)
            out[i] = np.count_nonzero(valid & (self.timestamps <= times[i] + 1e-9))
        return out

    def gather(self, rows):
        """flux, delta_t (n, L) float32, lengths (n,) of the given rows, L the longest of them, and the view's (n, L, 2) or None."""
        lengths = self.lengths[rows]
        longest = int(lengths.max()) if len(lengths) else 0
        flux = decode(self.codes[rows, :longest])
        delta_t = np.zeros_like(flux)
        for i, r in enumerate(rows):
            t = self.timestamps[np.unpackbits(self.masks[r], count=len(self.timestamps)).astype(bool)]
            delta_t[i, 1 : len(t)] = np.diff(t)
            flux[i, len(t) :] = 0.0
        return flux, delta_t, lengths, self._extra(rows, longest)

    def _extra(self, rows, longest):
        """What the view adds, (n, longest, k) float32, or None."""
        if self.view == "flux":
            return None
        if self.view == "residual":
            extra = np.empty((len(rows), longest, 2), np.float32)
            extra[..., 0] = self.added[rows, :longest] * np.float32(STEP)
            extra[..., 1] = self.added[rows, -1][:, None] * np.float32(STEP)
            return extra
        blocks = min(-(-longest // self.block), self.added.shape[1])
        made, used = self.added[rows, :blocks] * np.float32(STEP), min(longest, blocks * self.block)
        extra = np.zeros((len(rows), longest, running.CHANNELS), np.float32)
        extra[:, :used, :2] = made[..., : 2 * self.block].reshape(len(rows), -1, 2)[:, :used]
        extra[:, :used, 2:] = np.repeat(made[..., 2 * self.block :], self.block, axis=1)[:, :used]
        return extra

    def step_times(self, row: int, stride: int) -> np.ndarray:
        """Time (L,), days, of the epoch that fills each patch of `stride` valid epochs."""
        t = self.timestamps[np.unpackbits(self.masks[row], count=len(self.timestamps)).astype(bool)]
        return t[stride - 1 :: stride]

    def events(self, rows) -> Events:
        """The given rows as the training takes them."""
        return Events(*self.gather(rows), self.labels[rows], self.labels_observable[rows], self.seen_flat[rows], self.seen_pspl[rows])

    def prefix_labels(self, rows, counts) -> np.ndarray:
        """Events.prefix_labels of the given rows, without their curves."""
        known = (self.labels[rows], self.labels_observable[rows], self.seen_flat[rows], self.seen_pspl[rows])
        return Events(None, None, None, None, *known).prefix_labels(counts)
