"""New epochs of many stars in files: which star, when and how bright.

    epochs = read_epochs(["night.parquet"], ReadConfig())          epochs.names[epochs.star[0]], epochs.time[0]

A file has one row an epoch, with a column that names the star. The columns are found as those of light-curve files are
(docs/light_curve_files.md). Parquet is read in batches and only in the columns that are needed.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow
import pyarrow.compute

from microlens.config import ReadConfig
from microlens.data.columns import Columns, choose_columns, known_names, named_as, plain_name
from microlens.data.readers import (
    BRIGHTEST_RELATIVE,
    DEFAULT_BANDS,
    FAINTEST,
    LARGEST_ERROR,
    julian_date_of_zero,
    marked_bad,
    measured,
    no_time,
    sifted,
)
from microlens.data.tables import (
    LightCurveError,
    as_arrow,
    is_parquet,
    names_as_text,
    naming,
    needs_epochs,
    numbers,
    parquet_source,
    read_tables,
    table_of_parquet,
)
from microlens.sky import MAG_PER_RELATIVE_FLUX

BATCH = 2**20  # rows of a Parquet file that are in memory at once beside the epochs themselves
SAMPLE = 1000  # rows of a Parquet file by which its columns are chosen
TIME = 2  # place of the times in what _part returns


class Epochs(NamedTuple):
    """n epochs of many stars, in the order of the files.

    names : of the stars.   star (n,) : numbers in `names`.   time (n,) d.   flux (n,) : in any linear unit.
    error (n,) : of the flux, NaN where the files have none.
    baseline (n,) : the star's reference flux as the files state it, NaN where they do not.
    unit : of the brightness in the files, as in columns.Columns, mmag being mag.   band : '' where none is stated.
    zero : the Julian date of time 0, as in '2457000'; '' where the files do not say.
    dropped : how many rows are no measurement, by cause.
    """

    names: np.ndarray
    star: np.ndarray
    time: np.ndarray
    flux: np.ndarray
    error: np.ndarray
    baseline: np.ndarray
    unit: str
    band: str
    zero: str
    dropped: Counter


def read_epochs(files, options: ReadConfig) -> Epochs:
    """The epochs of all stars in all files, or of the one star that `options.event` names.

    Raises LightCurveError, one line that names file and cause, where a file cannot be read, where it has no column that
    tells stars apart, and where two files differ in the unit of their brightness or the zero of their times, or where
    one states bands and the other none.
    """
    stars, bands, dropped = _Labels(), _Labels(), Counter()
    parts, units, zeros, with_bands = [], {}, {}, {}
    for path in map(Path, files):
        with naming(path):
            for table, columns, names in _tables(path, options):
                parts.append(_part(table, columns, stars.numbers(names), bands, dropped))
                units["mag" if columns.is_mag else columns.unit] = path
                zeros[julian_date_of_zero(columns.time_system, parts[-1][TIME])] = path
                with_bands["bands" if columns.bands or table.meta.get("band") else "none"] = path
    zeros.pop("", None)
    _check_one(units, "the brightness of the files is in different units",
               "Give files of one unit, or say with --value which columns are meant")
    _check_one(zeros, "the times of the files count from different Julian dates", "Bring all to one")
    _check_one(with_bands, "some files state bands and others do not", "Give the ones without the others")
    if not parts:
        raise LightCurveError("no file holds a row.")
    band, *whole = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    del parts
    kept, band_name = _in_band(band, bands.words(), options)
    dropped.update(sifted({"without a band": (band < 0) & ~kept, "of other bands": ~kept})[1])
    names = np.array(stars.words(), dtype=np.str_)
    if options.event is not None:
        if options.event not in names:
            raise LightCurveError(f"no file holds a star {options.event!r}.")
        kept &= names[whole[0]] == options.event
    rows = whole if kept.all() else (array[kept] for array in whole)
    return Epochs(names, *rows, next(iter(units)), band_name, next(iter(zeros), ""), dropped)


def _check_one(found: dict[str, Path], fault: str, advice: str):
    """Raise LightCurveError where files {what a file has: its path} do not all have the same."""
    if len(found) > 1:
        shown = " and ".join(f"{what} ({path})" for what, path in found.items())
        raise LightCurveError(f"{fault}: {shown}. {advice}.")


def _tables(path: Path, options: ReadConfig) -> Iterator[tuple]:
    """Yield (table, columns, names): names are those of the rows' stars, a pyarrow array."""
    known = known_names()
    if not is_parquet(path):
        for table in read_tables(path, None, known["star"], known["time"]):
            columns = _telling_columns(_columns(table, options), lambda title, t=table: _differ([as_arrow(t[title])]))
            yield table, columns, as_arrow(table[columns.stars[0]])
        return
    source = parquet_source(path, known["time"])
    head = table_of_parquet(path, source.head(SAMPLE), known["time"])
    columns = _telling_columns(
        _columns(head, options),
        lambda title: _differ(batch.column(0) for batch in source.to_batches(columns=[title])))
    needed = {columns.time, columns.value, columns.error, *columns.stars, *columns.bands, *columns.flags,
              _baseline_column(head, columns)}
    if needs_epochs({n.lower() for n in source.schema.names}, known["time"]):
        needed |= {n for n in source.schema.names if n.lower() == "epoch_id"}
    wanted = [n for n in source.schema.names if n in needed]
    star = columns.stars[0]
    batches = source.to_batches(columns=wanted, batch_size=BATCH, batch_readahead=1, fragment_readahead=1)
    for rows in _joined(batches):
        table = table_of_parquet(path, rows.drop_columns([star]), known["time"])
        table.meta["unit words"] = head.meta["unit words"]
        yield table, columns, rows.column(star).combine_chunks()


def _telling_columns(columns: Columns, differ) -> Columns:
    """The columns with one of names of stars: the first that tells several apart, or the first where none does.

    differ : whether the column of a title has several values.
    """
    candidates = columns.stars if len(columns.stars) > 1 else []  # one column alone need not be looked through
    star = next((title for title in candidates if differ(title)), columns.stars[0])
    return dataclasses.replace(columns, stars=[star])


def _differ(parts) -> bool:
    """Whether some of the names in arrays of them differ; missing ones do not count."""
    first = None
    for part in parts:
        for name in names_as_text(part).unique().drop_null().to_pylist():
            if name and first not in (None, name):
                return True
            first = name or first
    return False


def _joined(batches) -> Iterator[pyarrow.Table]:
    """Yield the rows of batches in tables of about BATCH rows: a row group may be as short as one exposure."""
    waiting = []
    for batch in batches:
        waiting.append(batch)
        if sum(b.num_rows for b in waiting) >= BATCH:
            yield pyarrow.Table.from_batches(waiting)
            waiting = []
    if waiting and sum(b.num_rows for b in waiting):
        yield pyarrow.Table.from_batches(waiting)


def _columns(table, options: ReadConfig) -> Columns:
    """The columns of a table of many stars. Raises LightCurveError where none names the star, or for differences."""
    columns = choose_columns(table, options)
    if not columns.stars:
        raise LightCurveError(f"no column is known to name the star. Columns: {', '.join(table.colnames)[:400]}. Call "
                              "one 'star', or add its name to the file of MICROLENS_COLUMNS.")
    arrays = [t for t in (columns.time, columns.value) if table[t].ndim > 1 or table[t].dtype == object]
    if arrays:
        raise LightCurveError(f"its column {arrays[0]} holds arrays, a row a star; expected a row an epoch.")
    if columns.unit == "difference":
        raise LightCurveError(f"its brightness, {columns.value}, is a difference flux. Add the reference flux, or say "
                              "--value with a column of magnitudes or of whole fluxes.")
    return columns


def _baseline_column(table, columns: Columns) -> str | None:
    """The column of the stars' reference brightness, None where there is none."""
    others = [title for title in table.colnames if title not in (columns.time, columns.value, columns.error)]
    return next(iter(named_as(known_names()["baseline"], {t: plain_name(t) for t in others})), None)


class _Labels:
    """Names of stars or bands, and a number for each."""

    def __init__(self):
        self._known = pyarrow.array([], pyarrow.string())

    def words(self) -> list[str]:
        """All names so far; their places are their numbers."""
        return self._known.to_pylist()

    def numbers(self, labels: pyarrow.Array) -> np.ndarray:
        """The numbers (n,) of labels, text or numbers (12 and 12.0 are both '12'), -1 for none; new ones get theirs."""
        words = names_as_text(labels)
        new = words.filter(pyarrow.compute.is_null(pyarrow.compute.index_in(words, self._known))).unique()
        new = new.filter(pyarrow.compute.not_equal(new, ""))  # nulls go, too
        self._known = pyarrow.concat_arrays([self._known, new])
        numbers = pyarrow.compute.index_in(words, self._known, skip_nulls=True)
        return numbers.fill_null(-1).to_numpy(zero_copy_only=False)


def _part(table, columns: Columns, star, bands: _Labels, dropped: Counter) -> tuple[np.ndarray, ...]:
    """The epochs of a table whose rows are of the stars `star` (n,); counts in `dropped` the rows that are none.

    Returns the numbers of their bands, then what stands in Epochs: star, time, flux, error, baseline.
    """
    time, flux, error, limits, _ = measured(table, columns)
    causes = {
        "without a star's name": star < 0,
        "without a time": no_time(time),
        "that are upper limits": limits,
        **{f"marked by {title}": marked_bad(table[title], bits) for title, bits in columns.flags.items()},
        "without a number": ~np.isfinite([time, flux, error]).all(axis=0),
        "with an error that is not positive": error <= 0}
    if columns.is_mag:
        causes["that are no magnitudes"] = (flux >= FAINTEST) | (flux <= BRIGHTEST_RELATIVE) | (error > LARGEST_ERROR)
    good, counts = sifted(causes)
    dropped.update(counts)
    if table.meta.get("skipped"):
        dropped["in lines with another number of columns"] += table.meta["skipped"]
    baseline = _baselines(table, columns)
    if columns.is_mag:  # fluxes relative to that of a star of magnitude 0
        flux, baseline = 10 ** (-0.4 * flux), 10 ** (-0.4 * baseline)
        error = flux * error / MAG_PER_RELATIVE_FLUX
    if not columns.error:
        error = np.full(len(table), np.nan)
    band = bands.numbers(_bands(table, columns)).astype(np.int32)
    return tuple(array[good] for array in (band, star, time, flux, error, baseline))


def _bands(table, columns: Columns) -> pyarrow.Array:
    """The bands (n,) of the rows: the words of all columns of bands joined by '/', that of the table, or none.

    All columns are joined, whether their words differ or not, so that a band has the same name every night.
    """
    if not columns.bands:
        return pyarrow.array([table.meta.get("band") or None] * len(table), pyarrow.string())
    words = [names_as_text(as_arrow(table[title])) for title in columns.bands]
    words = [pyarrow.compute.if_else(pyarrow.compute.equal(part, ""), None, part) for part in words]
    joined = words[0]
    for part in words[1:]:
        both = pyarrow.compute.binary_join_element_wise(joined, part, "/")
        joined = pyarrow.compute.coalesce(both, joined, part)
    return joined


def _baselines(table, columns: Columns) -> np.ndarray:
    """The stars' reference brightness (n,) as the rows state it, in the unit of `measured`; NaN where they do not.

    Raises LightCurveError where the brightness is in magnitudes and none of the numbers is one.
    """
    title = _baseline_column(table, columns)
    if not title:
        return np.full(len(table), np.nan)
    baseline = numbers(table[title])[0]
    if not columns.is_mag:
        return baseline
    baseline = baseline / 1000 if columns.unit == "mmag" else baseline
    is_magnitude = (baseline > BRIGHTEST_RELATIVE) & (baseline < FAINTEST)
    stated = np.isfinite(baseline)
    if stated.any() and not is_magnitude.any():
        raise LightCurveError(f"its column {title} ({baseline[stated][0]:g}) holds no magnitudes, but the brightness, "
                              f"{columns.value}, is in magnitudes. Bring both to one unit, or rename {title}.")
    return np.where(is_magnitude, baseline, np.nan)


def _in_band(band, names: list[str], options: ReadConfig) -> tuple[np.ndarray, str]:
    """Which epochs (n,) are in the wanted band, and its name: that of the options, else F146, else the only one.

    band (n,) : numbers in `names`. Raises LightCurveError where there are several others.
    """
    if options.band is not None:
        wanted = [name for name in names if options.band.lower() in (name.lower(), *name.lower().split("/"))]
    else:
        wanted = [name for name in names if {*name.upper().split("/")} & {*DEFAULT_BANDS}] or names
    if options.band is not None and not wanted:
        raise LightCurveError(f"no file holds a band {options.band!r}; they have {', '.join(names) or 'none by name'}.")
    if len(wanted) > 1:
        raise LightCurveError(f"the files hold the bands {', '.join(wanted)}; say with --band which one is meant.")
    if not wanted:
        return np.ones(len(band), dtype=bool), ""
    return band == names.index(wanted[0]), wanted[0]
