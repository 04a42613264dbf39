"""From a dataset file to batches: packed arrays, splits, batch order.

    data = PackedDataset("data/raw/test.h5")           train, val, test = split_rows(data.labels, seed=0)
    for rows in batches(train, 128, seed=0, epoch=3): events = data.events(rows)

Packed means: only the valid epochs of a curve, moved to the front. Flux is kept as int16 of asinh((F - 1)/SOFTENING),
whose rounding (1.4e-4 of the flux excess, 1e-7 at the baseline) stays far below the 1e-3 noise floor; noise without
that floor (the thesis' detector, a small noise_scale) is kept as float32.

The packed file lies in the data folder's cache under the checksum of the dataset, is made once, and is mapped into
memory, so all processes of a node share one copy. Files of datasets that are gone and of older kernels are removed.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import NamedTuple

import filelock
import numpy as np
from tqdm.auto import tqdm

from microlens.config import BATCH_STREAM, BINARY, FLAT, FLUX_VIEW, LENSING_CLASSES, OTHER, PSPL, SPLIT_STREAM
from microlens.data.format import open_dataset, stated_checksum
from microlens.files import KERNEL_VERSION, atomic, data_dir, lock, writable_folder
from microlens.fit import residual, running

SOFTENING = 1e-3
LARGEST = 16.0  # asinh((F - 1)/SOFTENING) of F = 4400
LARGEST_CODE = 2**15 - 1
STEP = LARGEST / LARGEST_CODE
LEAST_NOISE_SCALE = 0.5  # factor on the photometric error below which int16 is too coarse
NEVER = np.iinfo(np.int32).max
SAME_TIME = 1e-9  # d; times that are closer are the same epoch
BLOCK = 256  # light curves packed at once
KEY_DIGITS = 20  # of a dataset's checksum: they name its cached files
CLASS_MIX = (0.5, 0.25, 0.25)
"""Share of each class that scores are stated at, whatever a dataset holds: half of the light curves are flat."""
VAL_FRACTION = TEST_FRACTION = 0.15
"""Share of the events of a training file that are for validation, and that are held out."""


def _code(values) -> np.ndarray:
    """int16 codes of values in units of STEP; the largest code for what is beyond it."""
    return np.clip(np.rint(values / STEP), -LARGEST_CODE, LARGEST_CODE).astype(np.int16)


def encode(flux) -> np.ndarray:
    """int16 code of F/F_base, any shape; a flux beyond 4400 times the baseline keeps the largest code."""
    return _code(np.arcsinh((np.asarray(flux, dtype=np.float64) - 1.0) / SOFTENING))


def decode(code) -> np.ndarray:
    """F/F_base (float32) of an int16 code: the inverse of encode to its rounding. What is float stays as it is."""
    if np.asarray(code).dtype != np.int16:
        return np.array(code, dtype=np.float32)
    return (1.0 + SOFTENING * np.sinh(np.asarray(code, dtype=np.float64) * STEP)).astype(np.float32)


def epochs_until(moments, times) -> np.ndarray:
    """How many valid epochs have passed at each of n moments (days), that epoch included: (n,) int64; NEVER for NaN.

    times : the times of the valid epochs of each event, ascending, days.
    """
    counts = [NEVER if np.isnan(moment) else np.searchsorted(valid, moment + SAME_TIME, side="right")
              for moment, valid in zip(moments, times, strict=True)]
    return np.array(counts, dtype=np.int64)


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


def split_rows(labels, seed: int = 0, stars=None):
    """Row numbers (train, val, test), ascending, stratified by label, a function of the arguments alone.

    stars : (N,) names of the real stars that events were put into; all events of a star are then in one part.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(SPLIT_STREAM,)))
    if stars is not None:
        parts = split_rows(np.zeros(len(np.unique(stars)), int), seed)
        return tuple(np.flatnonzero(np.isin(stars, np.unique(stars)[part])) for part in parts)
    parts = ([], [], [])
    for c in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == c))
        n_val, n_test = round(VAL_FRACTION * len(rows)), round(TEST_FRACTION * len(rows))
        pieces = rows[n_val + n_test :], rows[:n_val], rows[n_val : n_val + n_test]
        for part, piece in zip(parts, pieces, strict=True):
            part.append(piece)
    return tuple(np.sort(np.concatenate(p)) for p in parts)


def class_mix(labels) -> np.ndarray:
    """Weights (N,) that give the classes of labels (N,) the shares of CLASS_MIX; they add up to N.

    Raises ValueError for a class of which CLASS_MIX states no share.
    """
    counts = np.bincount(labels, minlength=len(CLASS_MIX))
    if len(counts) > len(CLASS_MIX):
        raise ValueError(f"the class mix states shares of {', '.join(LENSING_CLASSES)}; came {counts[len(CLASS_MIX)]} "
                         "events of class other, which are scored apart.")
    share = np.where(counts > 0, np.array(CLASS_MIX) / np.maximum(counts, 1), 0.0)
    return share[labels] * len(labels) / share[labels].sum()


def batches(rows, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """The batches of an epoch: a shuffle that depends on (seed, epoch) only. The last one may be short."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(BATCH_STREAM, epoch)))
    order = rng.permutation(rows)
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


class Events(NamedTuple):
    """Packed curves of n events, as PackedDataset.gather gives them, and what is known of them, (n,) int64 each.

    seen_flat, seen_pspl : valid epochs after which the event is seen not to be flat, not to be a single lens, or NEVER.
    """

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
        is_star = (self.labels == OTHER) & (self.labels_observable == OTHER) & (self.seen_pspl == NEVER)
        no_single_lens = is_star | np.isin(self.labels_observable, (BINARY, OTHER))
        known = no_single_lens[:, None] & (is_star[:, None] | (counts >= self.seen_pspl[:, None]))
        return np.where(flat, FLAT, np.where(known, self.labels_observable[:, None], PSPL))


class PackedDataset:
    """A dataset's curves, packed and memory-mapped, with both labels and the moments of observability as epoch counts.

    view : what `gather` adds to flux and time step, nothing for flux (see fit.running_view).   block : epochs between
    two fits.
    """

    def __init__(self, path, view: str = FLUX_VIEW, block: int = 16, progress: bool = True):
        self.path, self.view, self.block = Path(path), view, block
        with open_dataset(path) as data:
            self.checksum, self.config, self.n_events = data.checksum, data.config, data.n_events
            self.classes = data.classes
            self.timestamps, self.t_premature, self.stars = data.timestamps, data.t_premature, data.stars
            self.labels, self.labels_observable = (x.astype(np.int64) for x in (data.labels, data.labels_observable))
            self._map(data, progress)
            valid = [self._times(row) for row in range(self.n_events)]
            self.lengths = np.array([len(times) for times in valid])
            self.seen_flat = epochs_until(data.t_observable_flat, valid)
            self.seen_pspl = epochs_until(data.t_observable_pspl, valid)

    def _map(self, data, progress: bool):
        """Map the cached files of the dataset into memory, made first where they are absent."""
        folder = writable_folder(data_dir() / "cache", "what is packed from datasets")
        key = data.checksum[:KEY_DIGITS]
        fits_name = f"{self.view}{self.block}.{KERNEL_VERSION}"
        codes, masks, fits = (folder / f"{key}.{name}.npy" for name in ("flux", "mask", fits_name))
        with lock(folder / f"{key}.lock"):  # one process of a node packs, the others wait for it
            if not (codes.exists() and masks.exists()):
                _remove_unused(folder)
                (folder / f"{key}.path").write_text(str(self.path.resolve()))
                _write_packed(data, codes, masks)
            if self.view != FLUX_VIEW and not fits.exists():
                for older in folder.glob(f"{key}.{self.view}{self.block}.*.npy"):  # of other kernels
                    older.unlink()
                _write_fits(data, fits, self.block, self.view, progress)
        self._codes, self._masks = np.load(codes, mmap_mode="r"), np.load(masks, mmap_mode="r")
        self._fits = None if self.view == FLUX_VIEW else np.load(fits, mmap_mode="r")

    def _times(self, row: int) -> np.ndarray:
        """Times (L,), days, of the valid epochs of a row."""
        return self.timestamps[np.unpackbits(self._masks[row], count=len(self.timestamps)).astype(bool)]

    def gather(self, rows):
        """The packed curves of n rows: flux, delta_t (n, L) float32, lengths (n,), and what the view adds.

        L : the longest of them.   The view adds (n, L // block, k) float32, see running.channels_of, or None.
        """
        lengths = self.lengths[rows]
        longest = int(lengths.max(initial=0))
        flux = decode(self._codes[rows, :longest])
        delta_t = np.zeros_like(flux)
        for i, row in enumerate(rows):
            delta_t[i, 1 : lengths[i]] = np.diff(self._times(row))
            flux[i, lengths[i] :] = 0.0
        extra = None if self.view == FLUX_VIEW else self._fits[rows, : longest // self.block] * np.float32(STEP)
        return flux, delta_t, lengths, extra

    def patch_times(self, row: int, stride: int) -> np.ndarray:
        """Time (L,), days, of the epoch that fills each patch of `stride` valid epochs."""
        return self._times(row)[stride - 1 :: stride]

    def _known(self, rows) -> tuple[np.ndarray, ...]:
        return self.labels[rows], self.labels_observable[rows], self.seen_flat[rows], self.seen_pspl[rows]

    def events(self, rows) -> Events:
        """The given rows as the training takes them."""
        return Events(*self.gather(rows), *self._known(rows))

    def prefix_labels(self, rows, counts) -> np.ndarray:
        """Events.prefix_labels of the given rows, without their curves."""
        return Events(None, None, None, None, *self._known(rows)).prefix_labels(counts)


class JoinedDatasets:
    """Several packed datasets one after the other: the rows of the second follow those of the first, and so on."""

    def __init__(self, datasets: list[PackedDataset]):
        self.datasets = datasets
        self.first_rows = np.cumsum([0, *(data.n_events for data in datasets[:-1])])

    def events(self, rows) -> Events:
        """The given rows (n,) as the training takes them, zero beyond the lengths."""
        rows = np.asarray(rows)
        owner = np.searchsorted(self.first_rows, rows, side="right") - 1
        where = [np.flatnonzero(owner == k) for k in range(len(self.datasets))]
        parts = [data.events(rows[places] - first)
                 for data, first, places in zip(self.datasets, self.first_rows, where, strict=True)]
        return Events(*(_placed(arrays, where) for arrays in zip(*parts, strict=True)))


def _placed(arrays, where):
    """One array (n, ...) of several, whose rows go to the places `where`; zero beyond the length of each.

    None where all are None.
    """
    if arrays[0] is None:
        return None
    shape = [max(sizes) for sizes in zip(*(array.shape[1:] for array in arrays), strict=True)]
    out = np.zeros((sum(map(len, where)), *shape), arrays[0].dtype)
    for array, places in zip(arrays, where, strict=True):
        out[(places, *map(slice, array.shape[1:]))] = array
    return out


def _remove_unused(folder: Path):
    """Remove what is cached of datasets that are no longer where they were packed from."""
    for source in folder.glob("*.path"):
        dataset, key = Path(source.read_text()), source.stem
        if dataset.is_file() and (stated_checksum(dataset) or "").startswith(key):
            continue
        with contextlib.suppress(filelock.Timeout), lock(folder / f"{key}.lock", wait=False):
            for file in (*folder.glob(f"{key}.*.npy"), source):
                file.unlink(missing_ok=True)


def _write_packed(data, codes: Path, masks: Path):
    """Write flux, packed, and which epochs are valid, one bit each, of an open dataset."""
    n, n_epochs = data.n_events, data.n_epochs
    below_noise = not data.is_injected and data.detector != "thesis" and data.config["noise_scale"] >= LEAST_NOISE_SCALE
    with atomic(codes) as a, atomic(masks) as b:
        packed = np.lib.format.open_memmap(a, "w+", np.int16 if below_noise else np.float32, (n, n_epochs))
        bits = np.lib.format.open_memmap(b, "w+", np.uint8, (n, -(-n_epochs // 8)))
        for i in range(0, n, BLOCK):
            flux = data.flux(slice(i, i + BLOCK))
            bits[i : i + BLOCK] = np.packbits(flux != 0, axis=1)
            front = pack(flux, flux)[0]
            packed[i : i + BLOCK] = encode(front) if below_noise else front
        packed.flush()
        bits.flush()


def _write_fits(data, path: Path, block: int, view: str, progress: bool):
    """Write what a view adds of an open dataset."""
    shape = (data.n_events, data.n_epochs // block, running.n_numbers(view, block))
    bar = tqdm(total=shape[0], desc="running fits", unit="event", disable=not progress)
    with atomic(path) as temporary, bar:
        out = np.lib.format.open_memmap(temporary, "w+", np.int16, shape)
        for i in range(0, shape[0], BLOCK):
            part = slice(i, i + BLOCK)
            flux, delta_t, _, lengths = pack(data.flux(part), data.delta_t(part))
            out[part] = _code(running.running_view(flux, delta_t, lengths, block, view))
            bar.update(len(flux))
        out.flush()


def residual_features(path, rows, progress: bool = True):
    """What the baselines read of n rows of a dataset file.

    Returns features (n, len(residual.FEATURES)) of the residual to the best single lens, and what the literature's
    thresholds see, (n, 2) bool (see residual.curve_features). The single lens has parallax where the preset has it.
    """
    rows = np.asarray(rows)
    features, seen = np.empty((len(rows), len(residual.FEATURES))), np.zeros((len(rows), 2), bool)
    bar = tqdm(total=len(rows), desc="single-lens fits", unit="event", disable=not progress)
    with open_dataset(path) as data, bar:
        field = data.preset.field if data.preset.has_parallax else None
        for i in range(0, len(rows), BLOCK):
            part = rows[i : i + BLOCK]
            flux, delta_t, error, lengths = pack(data.flux(part), data.delta_t(part), data.sigma(part))
            for j, n in enumerate(lengths):
                valid = flux[j, :n], delta_t[j, :n], error[j, :n]
                features[i + j], seen[i + j] = residual.curve_features(*valid, field)
            bar.update(len(part))
    return features, seen
