"""Light-curve files -> LightCurve: numbers that are no measurements are left out, each kind with a note.

    curve = read_light_curve("blg-0006_phot.dat")
    for curve in read_light_curves("events.parquet", ReadConfig(event="RMDC26_000001", band="F087")): ...

`tables` reads the file, `columns` tells what its columns are, and this module what the numbers are.
docs/light_curve_files.md lists the formats and the rules.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.ndimage import median_filter

from microlens.config import ReadConfig
from microlens.data.columns import DATE, ZERO_POINTS, Columns, choose_columns, known_names, plain_name
from microlens.data.lightcurve import MIN_POINTS, LightCurve, neighbour_scatter, to_flux
from microlens.data.tables import LightCurveError, as_arrow, names_as_text, numbers, read_tables, times_beside

DEFAULT_BANDS = ("F146", "W146", "W149")  # Roman's wide band, under the names it has had
FAINTEST, LARGEST_ERROR = 35.0, 5.0  # mag; nothing beyond is a measurement, it is a sentinel such as 99.999
BRIGHTEST, BRIGHTEST_RELATIVE = 1.0, -15.0  # mag of a star; of a magnitude relative to a reference
RELATIVE = 5.0  # a curve whose median magnitude is below this is relative to a reference
BRIGHT, BEYOND = 3.0, 1e6  # F/F_base that few stars reach, and none
FAR = 10.0  # robust standard deviations from every other number, beyond which a number of nines is a sentinel
LEAST_ERROR = 0.1  # of the running median of the errors in flux; an error below has a cause of its own
ERROR_WINDOW = 51  # epochs of that running median
NOON_OF_2000, JD_OF_2000 = pd.Timestamp("2000-01-01 12:00"), 2451545.0
LATE = 1000.0  # d; times that are all later, but for some of 0 or less, do not begin there
LONGEST_STEP, LONGEST_SPAN = 100.0, 50_000.0  # d; longer ones, in the median and in all, are not days
NINES = re.compile(r"9{2,}0*|9+\.9+|9\.9+e\+\d+|1e\+\d\d")  # digits of 99.99, 999, 9.9e9, 1e30 ...
MOST_PIECES = 10  # of a file of several curves, one behind the other; more pieces are lines in disorder
MIXED = 0.2  # share of times with two different values, from which a file holds more than one star or band


def read_light_curve(path, options: ReadConfig | None = None) -> LightCurve:
    """The one light curve of a file; see read_light_curves. Raises LightCurveError, which lists them, for several."""
    curves = read_light_curves(path, options)
    if len(curves) > 1:
        listed = ", ".join(c.label for c in curves[:20])
        raise LightCurveError(f"{path}: holds {len(curves)} light curves ({listed}); say which with --event or --band.")
    return curves[0]


def read_light_curves(path, options: ReadConfig | None = None) -> list[LightCurve]:
    """The light curves of a file, one for each star and band in it.

    options : what the file does not say of itself. Of several bands F146 is taken unless `options.band` says otherwise.
    Raises LightCurveError, one line that names file and cause, where there is no usable light curve or where two
    readings are possible.
    """
    path, options, known = Path(path), options or ReadConfig(), known_names()
    tables = read_tables(path, options.event, known["star"], known["time"])
    refused: list[str] = []

    def usable(make, *arguments, label=""):
        """What `make` returns, in a list; an empty one where it refuses, and says why."""
        try:
            return [make(*arguments)]
        except LightCurveError as error:
            refused.append(f"{label}: {error}" if label else str(error))
            return []

    parts = [part for table in tables for made in usable(_parts, path, table, options) for part in made]
    if parts:
        parts = [part for made in usable(_chosen_band, parts, options) for part in made]
    curves = []
    for table, columns, star, band, rows in parts:
        label = " ".join(w for w in (star, band) if w)
        curves += usable(_light_curve, path, table[rows], columns, star, band, label=label)
    if not curves:
        raise LightCurveError(f"{path}: {refused[0]}")
    if refused and len(tables) == 1:
        curves[0].notes.append(f"not usable: {'; '.join(refused)[:300]}")
    return curves


# ---- which rows -----------------------------------------------------------------------------------------------------


def _with_times(path: Path, table, options: ReadConfig):
    """A FITS table without times gets those of the NumPy file beside it."""
    known = known_names()["time"]
    if "unit words" not in table.meta or "bitpix" not in table.meta["keywords"] or options.time is not None:
        return table
    if not any(plain_name(name) in known for name in table.colnames):
        vectors = [c for c in table.itercols() if c.ndim > 1]
        n = vectors[0].shape[1] if vectors else len(table)
        times = times_beside(path, n, table.meta.get("band", ""))
        table["time"] = np.tile(times, (len(table), 1)) if vectors else times
    return table


def _exploded(table):
    """A table in which one row is one epoch, where one row was one star with arrays of epochs."""
    long = [c for c in table.colnames
            if table[c].ndim > 1 or (table[c].dtype == object and any(np.ndim(row) == 1 for row in table[c]))]
    if not long:
        return table
    arrays = {c: [[] if row is None else row for row in table[c]] for c in long}
    lengths = [len(row) for row in arrays[long[0]]]
    for c, rows in arrays.items():
        k = next((k for k, row in enumerate(rows) if len(row) not in (0, lengths[k])), None)
        if k is not None and any(0 < len(row) == length for row, length in zip(rows, lengths, strict=True)):
            raise LightCurveError(f"in row {k + 1} the column {c} has {len(rows[k])} numbers and {long[0]} "
                                  f"{lengths[k]}; expected one for each epoch.")
    same = [c for c in long if [len(row) for row in arrays[c]] == lengths]
    columns = {c: np.concatenate([row for row in arrays[c] if len(row)] or [[]]) for c in same}
    columns |= {c: np.repeat(table[c], lengths) for c in table.colnames if c not in long}
    out = type(table)({c: columns[c] for c in table.colnames if c in columns}, meta=table.meta)
    if len(table) > 1 and not {plain_name(c) for c in table.colnames} & set(known_names()["star"]):
        out["star"] = np.repeat(np.arange(1, len(table) + 1), lengths)
    return out


def _words(table, title: str) -> np.ndarray:
    """The names (n,) in a column, '' where there is none."""
    return np.array(names_as_text(as_arrow(table[title])).fill_null("").to_pylist(), dtype=np.str_)


def _labels(table, titles: list[str]) -> np.ndarray:
    """Labels (n,) of the rows by columns of names: those that change join with '/', the first alone where none does."""
    words = [_words(table, title) for title in titles]
    changing = [w for w in words if 1 < len(np.unique(w)) <= len(w) / 2]
    constant = [w for w in words if len(np.unique(w)) == 1]
    out = (changing or constant or [np.full(len(table), "")])[0]
    for more in changing[1:]:
        out = np.char.add(np.char.add(out, "/"), more)
    return out


def names_of_stars(table, titles: list[str]) -> np.ndarray:
    """Names (n,) of the stars of the rows, of the first column of names that tells several apart, else the first.

    A column that differs in every row counts them and names no star. A name that stands once for all is that of all.
    """
    words = [_words(table, title) for title in titles]
    several = [w for w in words if 1 < len(np.unique(w)) <= len(w) / 2]
    constant = [w for w in words if len(np.unique(w[w != ""])) == 1]
    names = (several or constant or [np.full(len(table), "")])[0]
    stated = names[names != ""]
    return np.full(len(names), stated[0]) if len(stated) == 1 else names


def _parts(path: Path, table, options: ReadConfig) -> list[tuple]:
    """(table, columns, star, band, rows) of each star and band in a table."""
    table = _exploded(_with_times(path, table, options))
    columns = choose_columns(table, options)
    stars, bands = names_of_stars(table, columns.stars), _labels(table, columns.bands)
    wanted = options.event
    for title in columns.stars if wanted is not None else ():
        labels = _labels(table, [title])
        if (labels == wanted).any():
            stars = labels
            break
    if wanted is not None and not table.meta.get("truth"):
        if not (stars == wanted).any():
            named = ", ".join(np.unique(stars)[:20])
            raise LightCurveError(f"holds no event {wanted!r}; it has {named or 'no column of names'}.")
    every = wanted is None or bool(table.meta.get("truth"))
    nameless = stars == ""
    if nameless.any() and not nameless.all():
        table.meta["notes"].append(f"{nameless.sum()} rows without a star's name left out")
    groups = pd.DataFrame({"star": stars, "band": bands}).groupby(["star", "band"], sort=False)
    return [(table, columns, star, band or table.meta.get("band", ""), rows.index.to_numpy())
            for (star, band), rows in groups if (every or star == wanted) and (star or nameless.all())]


def _chosen_band(parts: list, options: ReadConfig) -> list:
    """The parts (table, columns, star, band, rows) in the band that is wanted."""
    found = list(dict.fromkeys(band for *_, band, _ in parts))
    if options.band is not None:
        wanted = [b for b in found if options.band.lower() in (b.lower(), *b.lower().split("/"))]
        if not wanted:
            named = ", ".join(b for b in found if b)
            raise LightCurveError(f"holds no band {options.band!r}; it has {named or 'none with a name'}.")
    else:
        wanted = [b for b in found if b.upper() in DEFAULT_BANDS] or found
    chosen = [part for part in parts if part[3] in wanted]
    if len(wanted) < len(found):
        for table in {id(part[0]): part[0] for part in chosen}.values():
            table.meta["notes"].append(f"other bands left out: {', '.join(b for b in found if b not in wanted)}")
    return chosen


# ---- which numbers --------------------------------------------------------------------------------------------------


def times_of(column) -> tuple[np.ndarray, str]:
    """Times (n,) of a column, and the time system of calendar dates ('' for numbers)."""
    if column.dtype.kind == "M":
        dates = pd.Series(np.ma.filled(np.ma.asarray(column), np.datetime64("NaT")))
    elif column.dtype.kind in "US" and any(DATE.match(str(word).strip()) for word in column):
        words = pd.Series(np.ma.filled(np.ma.asarray(column), "").astype(str))
        dates = pd.to_datetime(words, format="ISO8601", utc=True, errors="coerce").dt.tz_localize(None)
        strange = words[dates.isna() & (words.str.strip() != "")]
        if len(strange) > len(words) / 2:
            raise LightCurveError(f"its times, {strange.iloc[0]!r} for example, are no dates in ISO form, such as "
                                  "2027-02-14 or 2027-02-14T03:30:15.5.")
    else:
        return numbers(column)[0], ""
    times = ((dates - NOON_OF_2000) / pd.Timedelta(days=1)).to_numpy(dtype=float, na_value=np.nan) + JD_OF_2000
    known = times[np.isfinite(times)]
    if column.dtype.kind != "M" and len(np.unique(known)) < len(known) and ((known - 0.5) % 1 == 0).all():
        raise LightCurveError(f"its times, in column {column.name}, are dates without the time of day, and several "
                              "epochs share one; expected times as JD, or dates with hours and minutes.")
    return times, "JD UTC (from dates)"


def sentinels(values) -> np.ndarray:
    """Which numbers (n,) stand for "no measurement": of nines only (99.99, -999, 9.9e9 ...), far from all others."""
    values = np.asarray(values, dtype=float)
    size = np.where(np.isfinite(values) & (values != 0), np.abs(values), 1.0)
    tens = 10 ** np.ceil(np.log10(size))
    nines = tens - size <= 0.0101 * tens  # 99 and 9.9e9 are the farthest below a power of ten
    nines[nines] = [NINES.fullmatch(f"{v:.10g}") is not None for v in size[nines]]
    others = np.sort(values[~nines & np.isfinite(values)])
    if not nines.any() or not len(others):
        return nines & False
    spread = max(1.4826 * np.median(np.abs(others - np.median(others))), 1e-9 * abs(np.median(others)), 1e-12)
    return nines & (_distances(values, others) > FAR * spread)


def _distances(values, others) -> np.ndarray:
    """How far each value (n,) is from the nearest of others (m,), m >= 1, which are in order."""
    at = np.searchsorted(others, values)
    below, above = others[np.maximum(at - 1, 0)], others[np.minimum(at, len(others) - 1)]
    return np.minimum(np.abs(values - below), np.abs(values - above))


def marked_bad(column, bits: int) -> np.ndarray:
    """Which epochs (n,) a flag column marks as bad."""
    if column.dtype.kind == "b":
        return np.ma.filled(column, False)
    if column.dtype.kind in "iuf":
        return _has_bits(numbers(column)[0], bits)
    words, place = np.unique(np.ma.filled(column.astype(str), ""), return_inverse=True)
    values = numbers(words)[0][place]
    if np.isfinite(values).mean() > 0.5:  # a few words among numbers say nothing
        return _has_bits(values, bits)
    return ~np.isin([word.strip().lower() for word in words], known_names()["good_words"])[place]


def _has_bits(values, bits: int) -> np.ndarray:
    """Which numbers (n,) have one of the bits; NaN has none."""
    return (np.where(np.isfinite(values), values, 0).astype(np.int64) & bits) != 0


def measured(table, columns: Columns):
    """(time, value, error, limits, system): arrays (n,) of the rows of a table, and the time system of dates, or ''.

    time : d.   value, error : in columns.unit, but mag for mmag; the errors of a file without any are equal.
    limits : which rows are upper limits.
    """
    time, system = times_of(table[columns.time])
    value, limits = numbers(table[columns.value])
    error = numbers(table[columns.error])[0] if columns.error else np.ones(len(value))
    value = value / 1000 if columns.unit == "mmag" else value
    return time * columns.days, value, error * _error_factor(columns), limits, system


def sifted(causes: dict) -> tuple[np.ndarray, dict[str, int]]:
    """Which rows (n,) no cause speaks against, and how many each one takes of those that were left.

    causes : in words, with the rows (n,) that each marks.
    """
    good, counts = True, {}
    for cause, bad in causes.items():
        if n := int((good & bad).sum()):
            counts[cause] = n
        good = good & ~bad
    return good, counts


def julian_date_of_zero(system: str, time) -> str:
    """The Julian date at which times (n,) of a system as Columns states it are 0, as text: '2457000' for 'BTJD'.

    It is '' where neither the system nor the range of the times says it.
    """
    if offset := re.search(r" - (\d+(\.\d+)?)", system):
        return f"{float(offset[1]):.10g}"
    first = time[0] if len(time) else np.nan
    if 2.4e6 < first < 2.6e6:
        return "0"
    return "2400000.5" if system.startswith("MJD") and 4e4 < first < 8e4 else ""


def no_time(time) -> np.ndarray:
    """Which times (n,) stand for "no time": nines alone, or 0 and less where the others count from another day."""
    found, positive = sentinels(time), time[time > 0]
    if found.any():
        others = np.sort(time[~found & np.isfinite(time)])
        found &= _distances(time, others) > LONGEST_STEP  # a night may be at day 9999.9
    return found | ((time <= 0) & (len(positive) > 0 and positive.min() > LATE))


def no_measurement(value, flux, error) -> np.ndarray:
    """Which fluxes (n,) of stars with known baselines stand for "no measurement": 0, nines alone (-999, 9.9e9 ...) that
    no star reaches, and what is beyond every lens.

    value : as in the file, fluxes or magnitudes.   flux, error : F/F_base, NaN for unknown errors.
    """
    far = np.abs(flux - 1) > FAR * np.nan_to_num(error)
    impossible = (flux < 0) | (flux > BRIGHT)
    impossible[impossible] = [NINES.fullmatch(f"{abs(v):.10g}") is not None for v in value[impossible]]
    zero = (value == 0) & ((flux == 0) | (flux > BRIGHT))
    return far & (impossible | zero | (flux > BEYOND))


def _light_curve(path: Path, table, columns: Columns, star: str, band: str) -> LightCurve:
    """The light curve of the rows of one star and band."""
    if columns.unit == "difference":
        raise LightCurveError(f"its brightness, {columns.value}, is a difference flux, without the baseline that the "
                              "network needs. Add the reference flux, or say --value with a column of magnitudes or of "
                              "whole fluxes.")
    notes = list(table.meta["notes"])
    if columns.error and np.isnan(numbers(table[columns.error])[0]).all():
        columns = dataclasses.replace(columns, error=None)  # a column without any number
    time, value, error, limits, date_system = measured(table, columns)
    if not (np.isfinite(value) & np.isfinite(time)).any():
        raise LightCurveError(f"0 usable points: no line has numbers in columns {columns.time} and {columns.value}.")
    if columns.days != 1:
        notes.append(f"times read as units of {columns.days:.6g} d")
    good, counts = sifted({
        "upper limits": limits,
        **{f"epochs marked by {title}": marked_bad(table[title], bits) for title, bits in columns.flags.items()},
        "points with NaN or without a number": ~np.isfinite([time, value, error]).all(axis=0),
        "points with an error <= 0": error <= 0,
        "sentinels": _no_measurement(value, error, columns) | no_time(time)})
    notes += [f"{n} {what} dropped" for what, n in counts.items()]
    if good.sum() < MIN_POINTS:
        raise LightCurveError(f"{good.sum()} usable points ({'; '.join(notes) or 'too few lines'}); at least "
                              f"{MIN_POINTS} are needed.")
    order = _time_order(time[good], value[good], error[good], notes)
    kept = np.flatnonzero(good)[order]
    time, value, error = time[kept], value[kept], error[kept]
    _check_days(time, columns)
    if columns.error is None:
        error = np.full(len(value), neighbour_scatter(value))
        notes.append(f"no errors in the file: {error[0]:.3g}, from the scatter of neighbours, for all")
    unit = "mag" if columns.is_mag else "flux"
    error = _with_least_error(value, error, unit, notes)
    system = date_system or columns.time_system
    return LightCurve(path.name, time, value, error, unit, _stated_system(system, time, table), notes, star, band,
                      ZERO_POINTS.get(columns.unit), dict(table.meta.get("truth", {})))


def _error_factor(columns: Columns) -> float:
    """What brings errors in the unit of their column to that of the brightness; to mag where that is mmag."""
    if columns.error_unit == "mmag":
        return 1e-3
    if columns.error_unit in ZERO_POINTS and columns.unit in ZERO_POINTS:
        return 10 ** (0.4 * (ZERO_POINTS[columns.unit] - ZERO_POINTS[columns.error_unit]))
    return 1.0


def _no_measurement(value, error, columns: Columns) -> np.ndarray:
    """Which values (n,) or errors are none; raises LightCurveError where most numbers cannot be magnitudes."""
    typical = np.median(error[np.isfinite(error)]) if np.isfinite(error).any() else np.inf
    bad = sentinels(value) | (sentinels(error) & (error > FAR * typical))
    if not columns.is_mag:
        known = value[np.isfinite(value)]
        noise = neighbour_scatter(known) if columns.error is None and len(known) >= MIN_POINTS else error
        zero = (value == 0) & (np.abs(np.nanmedian(value)) > FAR * noise)
        return bad | zero | (np.abs(value) > 1e9 * max(np.nanmedian(np.abs(value)), 1e-12))
    middle = np.nanmedian(value) if np.isfinite(value).any() else 0.0
    brightest = BRIGHTEST if middle > RELATIVE else BRIGHTEST_RELATIVE
    outside = (value > FAINTEST) | (value < brightest)
    if outside.sum() > np.isfinite(value).sum() / 2:
        raise LightCurveError(f"most numbers of its brightness (median {middle:g}) are no magnitudes; if they are "
                              "fluxes, say --value '[flux]', or choose another column with --value.")
    return bad | outside | (error > LARGEST_ERROR)


def _time_order(time, value, error, notes: list[str]) -> np.ndarray:
    """Rows in the order of time, each time once. Raises LightCurveError where several stars or bands are mixed."""
    steps = np.diff(time)
    if (steps < 0).any():
        _check_one_curve(np.split(value, np.flatnonzero(steps < -np.ptp(time) / 2) + 1), np.median(error))
        notes.append("times were not sorted")
    order = np.argsort(time, kind="stable")
    repeated = np.append(False, np.diff(time[order]) == 0)
    if repeated.any():
        after = order[repeated]
        before = order[np.append(repeated[1:], False)]
        other = np.abs(value[after] - value[before]) > 5 * np.hypot(error[after], error[before])
        if other.sum() > MIXED * len(time):
            raise LightCurveError(f"{other.sum()} times have two different values, so several stars or bands are "
                                  "mixed, and no column is known to tell them apart. Split the file, or name the "
                                  "column in MICROLENS_COLUMNS.")
        notes.append(f"{int(repeated.sum())} repeated times dropped")
    return order[~repeated]


def _check_one_curve(pieces, error: float):
    """Raise LightCurveError where times start over and the brightness is another one there, beyond its scatter."""
    pieces = [p for p in pieces if len(p) >= MIN_POINTS]
    middles = [np.median(p) for p in pieces]
    scatter = [1.4826 * np.median(np.abs(p - m)) for p, m in zip(pieces, middles, strict=True)]
    if 1 < len(pieces) < MOST_PIECES and np.ptp(middles) > FAR * (error + max(scatter)):
        shown = ", ".join(f"{m:.4g}" for m in middles)
        raise LightCurveError(f"its times start over, at another brightness ({shown}), so several stars or bands "
                              "follow each other without a column that tells them apart. Split the file.")


def _check_days(time, columns: Columns):
    """Raise LightCurveError where the times (n,), in order, cannot be days."""
    if len(time) < MIN_POINTS or time[-1] == time[0]:
        raise LightCurveError(f"{len(time)} points at different times; at least {MIN_POINTS} are needed.")
    step, span = np.median(np.diff(time)), time[-1] - time[0]
    if step > LONGEST_STEP or span > LONGEST_SPAN:
        raise LightCurveError(f"the times in column {columns.time} step by {step:.4g} and span {span:.6g}, so they "
                              f"are not in days. If they are seconds, say --time '{columns.time} [s]'.")


def _with_least_error(value, error, unit: str, notes: list[str]) -> np.ndarray:
    """Errors (n,), none of which is far below those around it: it would have all the weight."""
    _, flux_error, _ = to_flux(value, error, unit)
    least = LEAST_ERROR * median_filter(flux_error, ERROR_WINDOW, mode="nearest")
    low = flux_error < least
    if low.any():
        notes.append(f"{int(low.sum())} errors far below the others raised")
    return np.where(low, error * least / flux_error, error)


def _stated_system(system: str, time, table) -> str:
    """Time system of a curve: as stated, with what the range of the numbers says of it."""
    first = time[0]
    if not system:
        if 2.4e6 < first < 2.6e6:
            ogle = not table.meta["named"] and len(table.colnames) == 5
            return "HJD (OGLE)" if ogle else "JD-like (not stated)"
        return "MJD-like (not stated)" if 4e4 < first < 8e4 else "relative or reduced days (not stated)"
    if system.split()[0] in ("BJD", "HJD", "JD") and " - " not in system and "from" not in system:
        if 1000 < first < 20_000:
            return f"{system} - 2450000 (by the range of its numbers)"
        if 4e4 < first < 8e4:
            return f"{system}, reduced by 2400000 or 2400000.5"
    return system
