"""From a dataset file to batches: packed arrays, splits, batch order.

    data = PackedDataset("data/raw/test.h5")           train, val, test = split_rows(data.labels, seed=0)
    for rows in batches(train, 128, seed=0, epoch=3): events = data.events(rows)

Packed means: only the valid epochs of a curve, moved to the front. Flux is kept as int16 of asinh((F - 1)/SOFTENING), whose
rounding (1.4e-4 of the flux excess, 1e-7 at the baseline) stays far below the 1e-3 noise floor; noise without that floor (the
thesis' detector, a small noise_scale) is kept as float32. The packed file lies in the data folder's cache under the checksum of
the dataset, is made once, and is mapped into memory, so all processes of a node share one copy.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm.auto import tqdm

from microlens.config import BATCH_STREAM, BINARY, CLASSES, FLAT, PSPL, SPLIT_STREAM
from microlens.data.format import open_dataset
from microlens.files import KERNEL_VERSION, atomic, data_dir, lock
from microlens.fit import residual, running

SOFTENING = 1e-3
LARGEST = 16.0  # asinh((F - 1)/SOFTENING) of F = 4400
STEP = LARGEST / 32767
LEAST_NOISE_SCALE = 0.5  # factor on the photometric error below which int16 is too coarse
NEVER = np.iinfo(np.int32).max
BLOCK = 256  # light curves packed at once
CLASS_MIX = (0.5, 0.25, 0.25)
"""Share of each class that scores are stated at, whatever a dataset holds: half of the light curves are flat."""
VAL_FRACTION = TEST_FRACTION = 0.15
"""Share of the events of a training file that are for validation, and that are held out."""


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


def split_rows(labels, seed: int = 0):
    """Row numbers (train, val, test), ascending, stratified by label, a function of labels and seed alone."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(SPLIT_STREAM,)))
    parts = ([], [], [])
    for c in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == c))
        n_val, n_test = round(VAL_FRACTION * len(rows)), round(TEST_FRACTION * len(rows))
        for part, piece in zip(parts, (rows[n_val + n_test :], rows[:n_val], rows[n_val : n_val + n_test]), strict=True):
            part.append(piece)
    return tuple(np.sort(np.concatenate(p)) for p in parts)


def class_mix(labels) -> np.ndarray:
    """Weights (N,) that give the classes of labels (N,) the shares of CLASS_MIX; they add up to N."""
    counts = np.bincount(labels, minlength=len(CLASSES))
    share = np.where(counts > 0, np.array(CLASS_MIX) / np.maximum(counts, 1), 0.0)
    return share[labels] * len(labels) / share[labels].sum()


def batches(rows, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """The batches of an epoch: a shuffle that depends on (seed, epoch) only. The last one may be short."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(BATCH_STREAM, epoch)))
    order = rng.permutation(rows)
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


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
        binary = (counts >= self.seen_pspl[:, None]) & (self.labels_observable == BINARY)[:, None]
        return np.where(flat, FLAT, np.where(binary, BINARY, PSPL))


class PackedDataset:
    """A dataset's curves, packed and memory-mapped, with both labels and the moments of observability as epoch counts.

    view : what `gather` adds to flux and time step, flux (nothing) or running.   block : epochs between two fits of the running view.
    """

    def __init__(self, path, view: str = "flux", block: int = 16, progress: bool = True):
        self.path, self.view, self.block = Path(path), view, block
        with open_dataset(path) as data:
            self.checksum, self.config, self.n_events = data.checksum, data.config, data.n_events
            self.timestamps = data.timestamps
            self.labels, self.labels_observable = data.labels.astype(np.int64), data.labels_observable.astype(np.int64)
            folder, key = data_dir() / "cache", data.checksum[:20]
            codes, masks, running_fits = (folder / f"{key}.{part}.npy" for part in
                                          ("flux", "mask", f"running{block}.{KERNEL_VERSION}"))
            with lock(folder / f"{key}.lock"):  # one process of a node packs, the others wait for it
                if not (codes.exists() and masks.exists()):
                    self._pack(data, codes, masks)
                if view == "running" and not running_fits.exists():
                    for older in folder.glob(f"{key}.running{block}.*.npy"):  # of other kernels
                        older.unlink()
                    self._fit(data, running_fits, progress)
            self.codes, self.masks = np.load(codes, mmap_mode="r"), np.load(masks, mmap_mode="r")
            self.added = np.load(running_fits, mmap_mode="r") if view == "running" else None
            self.lengths = np.array([int(np.unpackbits(m, count=data.n_epochs).sum()) for m in self.masks], dtype=np.int64)
            self.seen_flat, self.seen_pspl = map(self._epoch_counts, (data.t_observable_flat, data.t_observable_pspl))
            self.t_premature = data.t_premature

    @staticmethod
    def _pack(data, codes, masks):
        n, n_t = data.n_events, data.n_epochs
        with atomic(codes) as a, atomic(masks) as b:
            below_noise = data.detector != "thesis" and data.config["noise_scale"] >= LEAST_NOISE_SCALE
            packed = np.lib.format.open_memmap(a, "w+", np.int16 if below_noise else np.float32, (n, n_t))
            bits = np.lib.format.open_memmap(b, "w+", np.uint8, (n, (n_t + 7) // 8))
            for i in range(0, n, BLOCK):
                flux = data.flux(slice(i, i + BLOCK))
                bits[i : i + BLOCK] = np.packbits(flux != 0, axis=1)
                front = pack(flux, flux)[0]
                packed[i : i + BLOCK] = encode(front) if below_noise else front
            packed.flush()
            bits.flush()

    @staticmethod
    def _fit(data, path, progress):
        """Running fits: (N, T // block, 2 block + 4) int16, units of STEP: a block's two residuals for each epoch, then what its
        epochs share.
        """
        block = int(path.name.split(".")[1].removeprefix("running"))
        n, blocks = data.n_events, data.n_epochs // block
        shape, epochs = (blocks, block, running.CHANNELS), blocks * block
        with atomic(path) as temporary:
            out = np.lib.format.open_memmap(temporary, "w+", np.int16, (n, blocks, 2 * block + running.CHANNELS - 2))
            with tqdm(total=n, desc="running fits", unit="event", disable=not progress) as bar:
                for i in range(0, n, BLOCK):
                    part = slice(i, i + BLOCK)
                    flux, delta_t, _, lengths = pack(data.flux(part), data.delta_t(part))
                    made = running.running_view(flux, delta_t, lengths, block)[:, :epochs].reshape(-1, *shape)
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
        """flux, delta_t (n, L) float32, lengths (n,) of the given rows, L the longest of them, and the view's (n, L, k) or None."""
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
        blocks = min(-(-longest // self.block), self.added.shape[1])
        made, used = self.added[rows, :blocks] * np.float32(STEP), min(longest, blocks * self.block)
        extra = np.zeros((len(rows), longest, running.CHANNELS), np.float32)
        extra[:, :used, :2] = made[..., : 2 * self.block].reshape(len(rows), -1, 2)[:, :used]
        extra[:, :used, 2:] = np.repeat(made[..., 2 * self.block :], self.block, axis=1)[:, :used]
        return extra

    def patch_times(self, row: int, stride: int) -> np.ndarray:
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


def residual_features(path, rows, progress: bool = True):
    """What the baselines read of rows of a dataset file: features (n, len(residual.FEATURES)) of the residual to the best single
    lens, and what the literature's thresholds see, (n, 2) bool (see residual.seen).
    """
    rows = np.asarray(rows)
    x, seen = np.empty((len(rows), len(residual.FEATURES))), np.zeros((len(rows), 2), bool)
    with open_dataset(path) as data, tqdm(total=len(rows), desc="single-lens fits", unit="event", disable=not progress) as bar:
        for i in range(0, len(rows), BLOCK):
            part = rows[i : i + BLOCK]
            flux, delta_t, error, lengths = pack(data.flux(part), data.delta_t(part), data.sigma(part))
            for j, n in enumerate(lengths):
                x[i + j], seen[i + j] = residual.curve_features(flux[j, :n], delta_t[j, :n], error[j, :n])
            bar.update(len(part))
    return x, seen
