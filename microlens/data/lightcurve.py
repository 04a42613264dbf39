"""Other people's light curves -> the arrays that the network reads.

    for season in seasons(read_light_curve("blg-0006_phot.dat")): flux, delta_t, flux_err = season.flux, season.delta_t, ...

Reads plain or gzip text: OGLE `phot.dat` (HJD, magnitude, error, seeing, sky), BJD-magnitude-error, BJD-flux-error, and CSV
with a header. Whether the second column is magnitude or flux comes from the header's words; without one, values with a median
between 8 and 30 are magnitudes.

The baseline is estimated from all seasons. First the quiet flux: epochs are averaged in bins of a quarter day, the fainter half
of the bins is taken, bins more than 3 robust standard deviations above its median are dropped until none is, and the median of
the rest is the quiet flux. An event in progress at both ends of the data never shows its baseline, so a single lens is then
fitted to the bins, and its source plus blend flux is taken where t_E is not short against the data (a short event shows its
baseline) and the result is within a factor of the quiet flux.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from microlens.fit import fit_single_lens
from microlens.sky import MAG_PER_RELATIVE_FLUX, SATURATION_MAG

MIN_POINTS = 20
BIN = 0.25  # d
SHORTEST, LONGEST = 0.04, 1.5  # t_E for which the baseline is fitted, in lengths of the data: shorter events show it
LOWEST, HIGHEST = 0.4, 1.05  # believable baseline of the fit / quiet flux
ERROR_TOLERANCE = 0.1  # errors off by more than this from the scatter of neighbours are rescaled
SPARSE, COVERED = 1 / 24, 0.5  # d: a season is sparse where steps no longer than this cover less than such a share of it
TIME_WORDS = ("bjd", "hjd", "jd", "mjd", "time", "date", "t")
MAG_WORDS, FLUX_WORDS = ("mag", "magnitude", "w149", "f146", "i"), ("flux", "relative_flux", "magnification", "rel_flux")
ERROR_WORDS = ("err", "error", "e_mag", "mag_err", "magerr", "flux_err", "sigma", "uncertainty")


class LightCurveError(ValueError):
    """A file that is no usable light curve; the message names file and cause."""


@dataclass(frozen=True)
class LightCurve:
    """time (n,) days ascending; value and error (n,) in `unit` 'mag' or 'flux'; what was done to it in `notes`."""

    name: str
    time: np.ndarray
    value: np.ndarray
    error: np.ndarray
    unit: str
    time_system: str
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Season:
    """One season as the network reads it: flux (n,) F/F_base, delta_t (n,) days, flux_err (n,)."""

    name: str
    number: int
    time: np.ndarray
    flux: np.ndarray
    delta_t: np.ndarray
    flux_err: np.ndarray
    m_base: float | None
    saturated: bool
    sparse: bool
    time_system: str
    note: str = ""


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            raw = gzip.decompress(raw)
    except IsADirectoryError:
        raise LightCurveError(f"{path}: is a folder; give files.") from None
    except FileNotFoundError:
        raise LightCurveError(f"{path}: no such file.") from None
    except (OSError, EOFError) as error:
        raise LightCurveError(f"{path}: cannot be read ({error}).") from error
    except Exception as error:  # zlib.error for damaged gzip data
        raise LightCurveError(f"{path}: damaged gzip file ({error}).") from error
    if not raw.strip():
        raise LightCurveError(f"{path}: the file is empty.")
    if b"\0" in raw[:4096]:
        raise LightCurveError(f"{path}: a binary file; expected text (plain or gzip) with time, magnitude or flux, error.")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise LightCurveError(f"{path}: not a text file; expected time, magnitude or flux, error.") from None


def _split(line: str) -> list[str]:
    return [c.strip() for c in (next(csv.reader([line])) if "," in line else line.split())]


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _pick(header: list[str], words) -> int | None:
    names = [re.sub(r"[\[(].*", "", h.lower()).strip(" _") for h in header]
    for w in words:
        if w in names:
            return names.index(w)
    return next((i for i, n in enumerate(names) if any(len(w) > 2 and n.startswith(w) for w in words)), None)


def read_light_curve(path, unit: str = "auto") -> LightCurve:
    """Read one file; see the module docstring.

    unit : 'mag', 'flux', or 'auto'. Points with NaN or errors <= 0 are dropped and unsorted or repeated times put right, each
    with a note. Raises LightCurveError (file and cause) where fewer than 20 usable points remain or it is no light curve.
    """
    path = Path(path)
    header, rows, bad_lines = [], [], 0
    for line in io.StringIO(_text(path)):
        line = line.strip()
        if not line:
            continue
        words = _split(line.lstrip("#").strip())
        if line.startswith("#") or (not rows and words and not _is_number(words[0])):
            header = words or header
            continue
        if len(words) >= 3 and all(_is_number(w) for w in words[:3]):
            rows.append(words)
        else:
            bad_lines += 1
    if len(rows) < MIN_POINTS or bad_lines > len(rows):
        what = f"{len(rows)} lines of numbers and {bad_lines} others" if rows or bad_lines else "no data lines"
        raise LightCurveError(f"{path}: {what}; expected at least {MIN_POINTS} lines of time, magnitude or flux, error.")
    it, iv, ie = 0, 1, 2
    found_mag, found_flux = _pick(header, MAG_WORDS), _pick(header, FLUX_WORDS)
    named = found_flux if found_flux is not None else found_mag
    if header and named is not None:
        it_, ie_ = _pick(header, TIME_WORDS), _pick([h if i != named else "" for i, h in enumerate(header)], ERROR_WORDS)
        it, iv, ie = (it_ if it_ is not None else 0), named, (ie_ if ie_ is not None else named + 1)
    try:
        data = np.array([[float(r[k]) for k in (it, iv, ie)] for r in rows])
    except (IndexError, ValueError):
        raise LightCurveError(f"{path}: not every line has its columns {header or '1 to 3'} as numbers.") from None
    notes = [f"{bad_lines} unreadable lines skipped"] if bad_lines else []
    ok = np.isfinite(data).all(axis=1)
    if not ok.all():
        notes.append(f"{int((~ok).sum())} points with NaN dropped")
    positive = data[:, 2] > 0
    if (ok & ~positive).any():
        notes.append(f"{int((ok & ~positive).sum())} points with an error <= 0 dropped")
    data = data[ok & positive]
    if len(data) < MIN_POINTS:
        raise LightCurveError(f"{path}: {len(data)} usable points ({'; '.join(notes) or 'too few lines'}); at least {MIN_POINTS} "
                              "are needed.")
    if (np.diff(data[:, 0]) < 0).any():
        notes.append("times were not sorted")
        data = data[np.argsort(data[:, 0], kind="stable")]
    repeated = np.append(False, np.diff(data[:, 0]) == 0)
    if repeated.any():
        notes.append(f"{int(repeated.sum())} repeated times dropped")
        data = data[~repeated]
    if len(data) < MIN_POINTS or data[-1, 0] == data[0, 0]:
        raise LightCurveError(f"{path}: {len(data)} points at different times; at least {MIN_POINTS} are needed.")
    if unit == "auto":
        unit = "flux" if found_flux is not None else "mag" if found_mag is not None else (
            "mag" if 8 < np.median(data[:, 1]) < 30 else "flux")
    if unit == "mag" and not (0 < data[:, 1]).all():
        raise LightCurveError(f"{path}: magnitudes reach {data[:, 1].min():g}; if the second column is flux, say --unit flux.")
    return LightCurve(path.name, *data.T, unit, _time_system(header, data[0, 0], len(rows[0])), notes)


def _time_system(header, first, n_columns) -> str:
    words = " ".join(header).lower()
    for name in ("BJD", "HJD", "MJD"):
        if name.lower() in words:
            return name
    if first > 2.4e6:
        return "HJD (OGLE)" if n_columns == 5 else "JD-like (not stated)"
    return "relative or reduced days (not stated)"


def _bin_means(time, *values):
    """Means of time and values (n,) in bins of BIN days, and the number in each bin."""
    _, index = np.unique(np.floor((time - time[0]) / BIN).astype(int), return_inverse=True)
    n = np.bincount(index)
    return [np.bincount(index, v) / n for v in (time, *values)], n


def quiet_flux(time, flux) -> float:
    """Flux of the faint, quiet part of a light curve: step one of the module docstring. Too bright if the event never ends."""
    (_, bins), _ = _bin_means(time, flux)
    low = np.sort(bins)[: max(len(bins) // 2, min(len(bins), 5))]
    # The lower half of pure noise lies below the baseline; mirror it at its upper edge, which is the median of all bins.
    centre = low[-1]
    spread = 1.4826 * np.median(np.abs(low - centre)) if len(low) > 1 else 0.0
    kept = bins
    for _ in range(20):
        inside = kept[kept <= centre + 3 * max(spread, 1e-12 * abs(centre))]
        if len(inside) == len(kept) or len(inside) < 3:
            break
        kept = inside
        centre = np.median(kept)
        spread = 1.4826 * np.median(np.abs(kept - centre))
    return float(centre)


def baseline_flux(time, flux, error) -> float:
    """Flux of the baseline, robustly: see the module docstring. time (n,) days; flux, error (n,), any linear unit."""
    quiet = quiet_flux(time, flux)
    (t, f, e), n = _bin_means(time, flux, error)
    if not quiet > 0 or len(t) < 10:
        return quiet
    fit = fit_single_lens(t, f / quiet, e / quiet / np.sqrt(n))
    fitted = fit.f_source + fit.f_blend
    in_progress = SHORTEST < fit.t_E / (time[-1] - time[0]) < LONGEST
    believable = fit.f_source > 0 and in_progress and LOWEST < fitted < HIGHEST
    return float(fitted * quiet) if believable else quiet


def error_scale(flux, error) -> float:
    """Factor that brings reported errors (n,) to the scatter of neighbouring fluxes (n,), robustly; 1 for fewer than MIN_POINTS.

    Of a densely sampled curve second differences are noise alone, so half of them lie within 0.6745 of their error.
    """
    if len(flux) < MIN_POINTS:
        return 1.0
    expected = np.sqrt(error[:-2] ** 2 + 4 * error[1:-1] ** 2 + error[2:] ** 2)
    return float(np.median(np.abs(np.diff(flux, 2)) / expected) / 0.6745)


def seasons(curve: LightCurve, gap: float = 30.0) -> list[Season]:
    """Split at gaps longer than `gap` days and bring each season to the network's input, one baseline for all.

    Raises LightCurveError if the baseline flux is not positive.
    """
    if curve.unit == "mag":
        reference = np.median(curve.value)
        flux = 10 ** (-0.4 * (curve.value - reference))
        error = flux * curve.error / MAG_PER_RELATIVE_FLUX
    else:
        reference, flux, error = None, curve.value, curve.error
    base = baseline_flux(curve.time, flux, error)
    if not base > 0:
        raise LightCurveError(f"{curve.name}: the baseline flux is {base:g}; fluxes relative to a positive baseline are needed.")
    m_base = float(reference - 2.5 * np.log10(base)) if reference is not None else None
    out = []
    edges = np.flatnonzero(np.diff(curve.time) > gap) + 1
    for number, part in enumerate(np.split(np.arange(len(curve.time)), edges), start=1):
        t, f = curve.time[part], (flux[part] / base).astype(np.float32)
        f[f == 0] = np.finfo(np.float32).tiny
        step = np.diff(t, prepend=t[0])
        error_here, sparse, note = error[part] / base, bool(step[step <= SPARSE].sum() < COVERED * (t[-1] - t[0])), ""
        scale = 1.0 if sparse else error_scale(f.astype(float), error_here)
        if abs(scale - 1) > max(ERROR_TOLERANCE, 6 / np.sqrt(len(t))):  # the scale of n points is known to about 1.2 / sqrt(n)
            error_here, note = error_here * scale, f"errors x {scale:.2f}, from the scatter of neighbours"
        brightest = np.min(curve.value[part]) if curve.unit == "mag" else np.inf
        out.append(Season(curve.name, number, t, f, step.astype(np.float32), error_here.astype(np.float32), m_base,
                          bool(brightest < SATURATION_MAG), sparse, curve.time_system, note))
    return out
