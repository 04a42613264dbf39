"""A folder of quiet light curves of real stars, into which events are put.

    photometry = read_photometry("my_stars", "train")        season = photometry.season(17)

Each season of a star that `classify` would read is used as it is: its epochs with their gaps, its residuals, and its
errors as the reader gives them. An event multiplies flux and error alike, so the relative noise at the peak is that of
the baseline: too large for photon noise, right for noise that grows with the flux.

Stars are shared out among training, validation and test by a digest of their names, so that two datasets of different
splits never have a star in common.
"""

from __future__ import annotations

import functools
import hashlib
import logging
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from microlens.config import ReadConfig
from microlens.data.lightcurve import seasons
from microlens.data.readers import read_light_curves
from microlens.data.tables import LightCurveError

log = logging.getLogger("microlens")
SHARES = {"train": (0.0, 0.7), "val": (0.7, 0.85), "test": (0.85, 1.0)}
"""Which stars a split has: those whose digest lies in this part of [0, 1). Small datasets (quick) have all stars."""
NOTES = (".md", ".rst")  # endings of files that hold no light curve
FEWEST_EPOCHS = 50  # of a season
SAME_TIME = 1e-6  # d; epochs of different stars that are closer count as one
MOST_EPOCHS = 50_000  # different epochs of all seasons together, which a dataset has as columns
RESTLESS = 3.0  # reduced chi^2 of a season about its mean above which the star is not quiet in it


class QuietSeason(NamedTuple):
    """One season of a star without an event.

    star : the name of its file, with the folder where several files have it, and its own in that file.
    index (n,) : its epochs among the Photometry's timestamps.   time (n,) : days from its first epoch.
    flux, error (n,) : F/F_base.   m_base : mag, NaN where the file does not say.
    """

    star: str
    index: np.ndarray
    time: np.ndarray
    flux: np.ndarray
    error: np.ndarray
    m_base: float

    def injected(self, flux_true) -> tuple[np.ndarray, np.ndarray]:
        """Flux and error (n,) with an event whose noise-free F/F_base is flux_true (n,)."""
        return self.flux * flux_true, self.error * flux_true


class Photometry(NamedTuple):
    """All quiet seasons of a folder.

    timestamps (T,) : every epoch that one of them has, days from the first epoch of its season.   seasons : of the
    split's stars, in an order that mixes them.   digest : SHA-256 of the files.
    """

    timestamps: np.ndarray
    seasons: tuple[QuietSeason, ...]
    digest: str

    def season(self, index: int) -> QuietSeason:
        """The season that the event with this number of its class is put into: each in turn."""
        return self.seasons[index % len(self.seasons)]


def _digest(text: str) -> int:
    """A number from 0 to 2^64 - 1 that scatters texts evenly."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def split_of(star: str) -> str:
    """The split (train, val or test) to which a star belongs, whatever the folder holds beside it."""
    share = _digest(star) / 2**64
    return next(split for split, (low, high) in SHARES.items() if low <= share < high)


def read_photometry(folder: str, split: str, for_dataset: bool = True) -> Photometry:
    """The quiet light curves in a folder, of the stars that a split has (see SHARES).

    for_dataset : whether the stars have to share so many epochs that these can be the columns of a dataset.
    Files are of any kind that `classify` reads. What cannot be read is left out with a warning that says why.
    Raises LightCurveError for what is no folder or holds no files, for a split without quiet stars, and, for a dataset,
    for more than MOST_EPOCHS different epochs.
    """
    if not Path(folder).expanduser().is_dir():
        what = "is a file" if Path(folder).expanduser().exists() else "no such folder"
        raise LightCurveError(f"{folder}: {what}; expected a folder of light curves of quiet stars.")
    files = (path for path in Path(folder).expanduser().rglob("*") if path.is_file())
    paths = sorted(path for path in files if path.name[0] != "." and path.suffix.lower() not in NOTES)
    if not paths:
        raise LightCurveError(f"{folder}: no files are there; expected a folder of light curves of quiet stars.")
    stamps = tuple((path.stat().st_size, path.stat().st_mtime_ns) for path in paths)
    return _read(folder, split, for_dataset, tuple(paths), stamps)


@functools.lru_cache(maxsize=4)
def _read(folder: str, split: str, for_dataset: bool, paths: tuple[Path, ...], stamps: tuple) -> Photometry:
    """What read_photometry gives of these files; read once while `stamps`, their sizes and times of change, stay."""
    found, digest, n_of_name = [], hashlib.sha256(), Counter(path.name for path in paths)
    root = Path(folder).expanduser()
    for path in paths:
        name = path.name if n_of_name[path.name] == 1 else path.relative_to(root).as_posix()
        digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
        try:
            for curve in read_light_curves(path, ReadConfig()):
                star = f"{name} {curve.star}".strip()
                if split not in SHARES or split_of(star) == split:
                    found += [(star, season) for season in seasons(curve) if len(season.time) >= FEWEST_EPOCHS]
        except LightCurveError as error:
            log.warning("left out: %s", error)
    n_found, found = len(found), [(star, season) for star, season in found if _reduced_chi2(season) <= RESTLESS]
    if len(found) < n_found:  # an event in a star that varies would be labelled as if the star were quiet
        log.warning("%s: %d of %d seasons are left out, in which the star varies by more than its noise (reduced chi^2 "
                    "above %g).", folder, n_found - len(found), n_found, RESTLESS)
    if not found:
        of_split = f"a star of split {split!r}" if split in SHARES else "a star"
        shared_out = ("Stars are shared out by their names, 70 % to train and 15 % each to val and test; give more "
                      "stars, or another --split." if split in SHARES else "Give light curves of quiet stars.")
        raise LightCurveError(f"{folder}: none of its {len(paths)} files has {of_split} with a quiet season of at "
                              f"least {FEWEST_EPOCHS} epochs. {shared_out}")
    found.sort(key=lambda pair: _digest(f"{pair[0]} {pair[1].number}"))  # few events shall be in many stars
    times = [np.round((season.time - season.time[0]) / SAME_TIME) for _, season in found]
    epochs = np.unique(np.concatenate(times))
    if for_dataset and len(epochs) > MOST_EPOCHS:
        raise LightCurveError(f"{folder}: its seasons have {len(epochs)} different epochs, more than "
                              f"{MOST_EPOCHS}; give stars that were observed at the same times, those of one field.")
    made = (QuietSeason(star, np.searchsorted(epochs, time), SAME_TIME * time, season.flux.astype(float),
                        season.flux_err.astype(float), np.nan if season.m_base is None else season.m_base)
            for (star, season), time in zip(found, times, strict=True))
    return Photometry(SAME_TIME * epochs, tuple(made), digest.hexdigest())


def _reduced_chi2(season) -> float:
    weight = 1 / season.flux_err.astype(float) ** 2
    mean = np.average(season.flux, weights=weight)
    return float(np.sum(weight * (season.flux - mean) ** 2) / (len(season.flux) - 1))
