"""A light-curve file -> tables of columns: text line by line, Parquet by pyarrow, and the other formats by astropy.

    for table in read_tables("event.dat"): table.colnames, table.meta["named"], table.meta["notes"]

A table's `meta` says: `named`, whether the file names its columns (else they are called 1, 2, 3 ...); `comments`, its
comment lines; `notes`, what was done on reading; `band`, where a whole table has one; `keywords`, those of a FITS or
IPAC header; `words`, the words of each column of a text that does not state its format, until choose_columns has told
which of them are names of stars and bands: these stay text; `skipped`, how many of its lines have another number of
columns.

astropy is imported where it is needed: it takes a second, which most commands need not spend.
"""

from __future__ import annotations

import bz2
import contextlib
import csv
import gzip
import io
import itertools
import lzma
import re
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute
import pyarrow.dataset
import pyarrow.parquet

if TYPE_CHECKING:
    from astropy.table import Table

MAX_BYTES = 2**27  # of text, unpacked: some three million epochs, which need about three gigabytes of memory
MAX_ROWS = 2_000_000  # of a Parquet table that is read whole
IN_ORDER = 0.9  # share of steps that are forward, above which a column without a name may be the time
SAMPLE = 300  # lines from which the separator is told
COMMENT_SIGNS = "#%!"
SEPARATORS = (",", ";", "\t", "|", None)  # None: any white space
NUMBER = re.compile(r"[<>]?\s*[+-]?((\d+\.?\d*|\.\d+)([eEdD][+-]?\d+)?|nan|inf)", re.IGNORECASE)
OFFSET = re.compile(r"\s*[-–_]\s*(24\d{5}(?:\.\d+)?)")  # of "HJD - 2450000"
DECIMAL_COMMA = re.compile(r"[<>]?\s*[+-]?\d+,\d+([eEdD][+-]?\d+)?")
THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+")  # 1,234 may be one thousand or about one
MIXED_THOUSANDS = 0.05  # share of a column's numbers without a comma above which those with one are thousands
OF_THE_FOLDER = "(of the folder)"  # in place of the type of a column that folders named as in star=501 give
TEXT = (pyarrow.types.is_string, pyarrow.types.is_large_string, pyarrow.types.is_binary, pyarrow.types.is_dictionary)
PACKINGS = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
FOREIGN = {b"\x89PNG": "a PNG image", b"\xff\xd8\xff": "a JPEG image", b"GIF8": "a GIF image",
           b"%PDF": "a PDF document", b"PK\x03\x04": "a ZIP archive; unpack it first", b"\x89HDF": "an HDF5 file",
           b"\x93NUMPY": "a NumPy array without names of columns"}


class LightCurveError(ValueError):
    """A file that is no usable light curve; the message names file and cause."""


def read_tables(path, event: str | None = None, star_names=(), time_names=()) -> list[Table]:
    """The tables of one file.

    event : name or number of the one event that is read of a Parquet file.   star_names, time_names : names, in lower
    case, of the columns that tell events apart and that hold times. Raises LightCurveError, one line that names file
    and cause, where the file is none of the formats or is damaged.
    """
    path = Path(path)
    with naming(path):
        tables = [table for table in _tables(path, event, star_names, time_names) if len(table)]
        if not tables:
            raise LightCurveError("holds a table without rows.")
        return tables


def _tables(path: Path, event, star_names, time_names) -> list[Table]:
    """The tables of a file, those without rows too; arguments as in read_tables."""
    if is_parquet(path):
        return [_parquet_table(path, event, star_names, time_names)]
    raw = _unpacked(path)
    for magic, what in FOREIGN.items():
        if raw.startswith(magic):
            raise LightCurveError(f"is {what}; expected a table of time, brightness and its error.")
    return _fits_tables(raw) if raw.startswith(b"SIMPLE  =") else _text_tables(_decoded(raw))


@contextlib.contextmanager
def naming(path):
    """Turn whatever a damaged or unknown file provokes into a LightCurveError, one line that names file and cause."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # units and keywords that the FITS standard does not know
            yield
    except LightCurveError as error:
        if str(error).startswith(f"{path}: "):  # a block within this one has named it
            raise
        raise LightCurveError(f"{path}: {error}") from error.__cause__
    except FileNotFoundError:
        raise LightCurveError(f"{path}: no such file.") from None
    except Exception as error:  # the libraries raise whatever a damaged file provokes
        cause = " ".join(str(error).split())[:200] or type(error).__name__
        raise LightCurveError(f"{path}: cannot be read; it is damaged or of an unknown format ({cause}).") from error


def is_parquet(path: Path) -> bool:
    """Whether a path is a Parquet file or a folder of them. Raises LightCurveError for a folder without any."""
    if not path.is_dir():
        return _beginning(path).startswith(b"PAR1")
    if next(path.rglob("*.parquet"), None) is None:
        raise LightCurveError("is a folder without Parquet files; give files.")
    return True


def _beginning(path: Path) -> bytes:
    """The first bytes of a file. Raises LightCurveError where it is empty."""
    with open(path, "rb") as f:
        head = f.read(8)
    if not head:
        raise LightCurveError("the file is empty.")
    return head


def _unpacked(path: Path) -> bytes:
    """The bytes of a file, unpacked where it is gzip, bzip2 or xz."""
    head = _beginning(path)
    opener = next((o for magic, o in PACKINGS.items() if head.startswith(magic)), open)
    try:
        with opener(path, "rb") as f:
            raw = f.read(MAX_BYTES + 1)
    except Exception as error:  # zlib.error, EOFError, OSError ...
        raise LightCurveError(f"cannot be unpacked; the file is damaged or cut short ({error}).") from error
    if len(raw) > MAX_BYTES:
        raise LightCurveError(f"holds more than {MAX_BYTES >> 20} MB of text; cut it into files of one star each, "
                              "or write Parquet.")
    return raw


def _decoded(raw: bytes) -> str:
    """Text of the encodings that occur: UTF-8 and UTF-16, with or without byte-order mark, and Latin-1 comments."""
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return raw.decode("utf-16")
    zeros = raw[:4096].count(0)
    if zeros and zeros >= 0.4 * len(raw[:4096]):
        return raw.decode("utf-16-be" if raw[:1] == b"\0" else "utf-16-le")
    control = sum(raw[:4096].count(bytes([c])) for c in range(32) if c not in b"\t\n\r\f\v")
    if control:
        raise LightCurveError("a binary file of an unknown kind; expected text, FITS, VOTable or Parquet.")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


# ---- text -----------------------------------------------------------------------------------------------------------


def _from_library(table: Table) -> Table:
    """A table whose format says what the columns are called; times that astropy understands become days."""
    from astropy.table import Table
    from astropy.time import Time

    table = Table(table)
    words = {}
    for name in [n for n in table.colnames if isinstance(table[n], Time)]:
        reduced = "MJD" if table[name].format == "mjd" else "JD"
        words[name] = f"{reduced} {table[name].scale.upper()}"
        table[name] = getattr(table[name], reduced.lower())
    table.remove_columns([n for n in table.colnames if not hasattr(table[n], "dtype")])  # places in the sky
    keywords = dict(table.meta.get("keywords", table.meta))
    keywords = {k.lower(): v["value"] if isinstance(v, dict) and "value" in v else v for k, v in keywords.items()}
    comments = [str(c) for c in table.meta.get("comments", [])]
    table.meta = {"named": True, "comments": comments, "notes": [], "keywords": keywords, "unit words": words}
    return table


def _text_tables(text: str) -> list[Table]:
    """The tables of a text: of one that states its format, or lines of separated columns."""
    from astropy.io import ascii, votable

    start = text.lstrip()[:2000].lower()
    if not start:
        raise LightCurveError("the file is empty.")
    if start.startswith("<!doctype html") or "<html" in start:
        raise LightCurveError("is a web page (HTML), not a light curve; download the data file itself.")
    if "<votable" in start:
        return [_from_library(table.to_table()) for table in votable.parse(io.BytesIO(text.encode())).iter_tables()]
    if text.startswith(("\\", "|")) and re.search(r"^\|.*\|\s*$", text, re.MULTILINE):
        return [_ipac_table(text)]
    if "Byte-by-byte Description" in text:
        return [_from_library(ascii.read(text, format="mrt", guess=False))]
    if text.startswith("# %ECSV"):
        try:
            return [_from_library(ascii.read(text, format="ecsv", guess=False))]
        except ValueError:
            pass  # a time format that only lightkurve knows: the columns are read as those of any CSV file
    return [_separated_columns(text)]


def _ipac_table(text: str) -> Table:
    """An IPAC table. Its columns are told by white space where every line has a word for each, since many tables that
    were written by hand do not stand under their headers; else by their places.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    keywords = dict(m.groups() for line in lines if (m := re.match(r"""\\\s*(\w+)\s*=\s*['"]?(.*?)['"]?\s*$""", line)))
    bare = [line.strip().removeprefix("|").removesuffix("|") for line in lines if line.startswith("|")]
    header = [[word.strip() for word in line.split("|")] for line in bare]
    body = [line for line in lines if line[0] not in "\\|"]
    if any(len(line.split()) != len(header[0]) for line in body):
        from astropy.io import ascii

        return _from_library(ascii.read(text, format="ipac", guess=False))
    table = _separated_columns("\n".join([" ".join(header[0]), *body]))
    units = header[2] if len(header) > 2 else []
    table.meta["keywords"] = {k.lower(): v for k, v in keywords.items()}
    table.meta["unit words"] = dict(zip(table.colnames, units, strict=False))
    return table


def plain_name(title: str) -> str:
    """A column's name as the table of names has it: 'Flux Err [e-/s]' -> 'flux_err', 'HJD-2450000' -> 'hjd'."""
    without_unit = re.sub(r"[\[(].*", "", OFFSET.sub("", title)).strip() or title
    return re.sub(r"[^a-z0-9]+", "_", without_unit.lower()).strip("_")


def is_number(word: str) -> bool:
    """Whether a word of a file is a number, with Fortran's exponents, NaN and the signs of limits among them."""
    return NUMBER.fullmatch(word.strip()) is not None


def numbers(column) -> tuple[np.ndarray, np.ndarray]:
    """Numbers (n,) of a column, NaN where a cell holds none, and which cells (n,) are limits: '>18.5'."""
    if column.dtype.kind in "iufb":
        return np.asarray(np.ma.filled(column.astype(float), np.nan)), np.zeros(len(column), dtype=bool)
    words = [str(w).strip() for w in np.ma.filled(column.astype(str), "")]
    limits = np.array([w[:1] in ("<", ">") for w in words])
    values = [float(re.sub("[dD]", "e", w)) if is_number(w) and w[0] not in "<>" else np.nan for w in words]
    return np.array(values), limits


def _split(line: str, separator: str | None) -> list[str]:
    if separator is None:
        return line.split()
    return [word.strip() for word in next(csv.reader([line], delimiter=separator, skipinitialspace=True))]


def _number_share(lines, separator) -> tuple[float, int]:
    """How well a separator fits: the share of cells that are numbers, and how many columns most lines have."""
    cells = [_split(line, separator) for line in lines]
    n_columns = Counter(map(len, cells)).most_common(1)[0][0]
    words = [w for row in cells if len(row) == n_columns for w in row if w]
    numbers = sum(is_number(w) or (separator != "," and DECIMAL_COMMA.fullmatch(w) is not None) for w in words)
    return (numbers / len(words) if n_columns > 1 and words else 0.0), n_columns


def _separated_columns(text: str) -> Table:
    """Lines of columns with any separator, with a header line, a header in a comment, or none."""
    from astropy.table import Table

    lines = [line.strip("\r\n\f ") for line in text.splitlines() if line.strip()]
    comments = [line.strip(COMMENT_SIGNS + " \t") for line in lines if line[0] in COMMENT_SIGNS]
    lines = [line for line in lines if line[0] not in COMMENT_SIGNS]
    if not lines:
        raise LightCurveError("no data lines, only comments.")
    sample = lines[len(lines) // 2 :][:SAMPLE]  # from the middle, behind any header
    separator = max(SEPARATORS, key=lambda s: _number_share(sample, s))
    share, n_columns = _number_share(sample, separator)
    if share == 0:
        raise LightCurveError(f"no lines of numbers in columns; it begins with {lines[0][:60]!r}. "
                              "Expected time, brightness and its error.")
    cells = [_split(line, separator) for line in lines]
    commas = separator != "," and any("," in line for line in lines)
    decimal_comma = _columns_with_decimal_commas([row for row in cells if len(row) == n_columns]) if commas else []
    if decimal_comma:
        cells = [[w.replace(",", ".") if i in decimal_comma and DECIMAL_COMMA.fullmatch(w) else w
                  for i, w in enumerate(row)] for row in cells]
    head = list(itertools.takewhile(lambda row: not any(map(is_number, row)), cells))
    may_be_short = separator is not None and any(len(row) == n_columns for row in head)
    shortest = n_columns - 1 if may_be_short else n_columns  # of a line that leaves out its last cell, an empty one
    body = [row if len(row) == n_columns else [*row, ""] for row in cells[len(head) :]
            if shortest <= len(row) <= n_columns]
    _check_one_header(head, body)
    skipped = len(cells) - len(head) - len(body)
    if skipped > len(body):
        raise LightCurveError(f"{len(body)} lines of {n_columns} columns and {skipped} others; expected one table.")
    titles = [row for row in head if not all(set(w) <= set("-=+|: ") for w in row)]
    words = {str(i + 1): column for i, column in enumerate(zip(*body, strict=True))}
    table = Table({name: _numbers_or_words(column) for name, column in words.items()})
    table.meta = {"named": False, "comments": comments, "notes": [], "keywords": {}, "separator": separator,
                  "words": words, "skipped": skipped}
    if skipped:
        table.meta["notes"].append(f"{skipped} unreadable lines skipped")
    if decimal_comma:
        table.meta["notes"].append("decimal commas read as points")
    return _with_names(table, titles)


def _columns_with_decimal_commas(cells: list[list[str]]) -> list[int]:
    """The places of columns of numbers, in lines of cells, with commas for points.

    Raises LightCurveError where the commas of a column separate thousands, as in 905 and 1,234.
    """
    found = []
    for place, column in enumerate(zip(*cells, strict=True)):
        commas = [word for word in column if DECIMAL_COMMA.fullmatch(word)]
        if len(commas) + sum(map(is_number, column)) > len(column) / 2 and commas:
            found.append(place)
        whole = sum(word.isdigit() for word in column)
        if commas and all(map(THOUSANDS.fullmatch, commas)) and whole > MIXED_THOUSANDS * len(column):
            whole_number = next(word for word in column if word.isdigit())
            raise LightCurveError(f"its numbers have commas that may separate thousands or decimals ({commas[0]} "
                                  f"beside {whole_number}). Write them without.")
    return found


def _check_one_header(head: list[list[str]], body: list[list[str]]):
    """Raise LightCurveError where a line of the body is a header with the words of `head` in another order."""
    for names in head:
        known = set(names)
        for row in body:
            if known.issuperset(row) and row != names and sorted(row) == sorted(names):
                raise LightCurveError(f"its header is repeated in another order ({' '.join(row)[:120]}). Split the "
                                      "file there.")


def _numbers_or_words(words: tuple[str, ...]) -> np.ndarray:
    """A column (n,) of the nearest integers or floats where all words but empty ones are numbers, else of the words.

    Empty cells are masked in a column of numbers.
    """
    empty = np.array([not word for word in words])
    filled = ["0" if not word else word for word in words]
    for read in (int, float, lambda word: float(re.sub("[dD]", "e", word, count=1))):
        try:
            values = np.array([read(word) for word in filled])
        except ValueError:
            continue
        if values.dtype.kind in "if" and not any("_" in word for word in words):
            return np.ma.array(values, mask=empty) if empty.any() else values
    return np.array(words, dtype=np.str_)


def _with_names(table: Table, titles: list[list[str]]) -> Table:
    """The table with the names, and units, of its header lines `titles`."""
    n = len(table.colnames)
    if not titles:
        return _without_index(table)
    names = next((row for row in titles if len(row) == n), titles[-1])
    if len(names) > n:
        raise LightCurveError(f"its header has {len(names)} words ({' '.join(names)[:120]}), its lines {n} columns. "
                              "Separate both in the same way, or remove the header and say --time 1 --value 2 "
                              "--error 3.")
    if len(names) == n - 1 and _counts_rows(table["1"]):
        names = ["row", *names]
    if len(names) < n and table.meta["separator"] is None:
        raise LightCurveError(f"its header has {len(names)} words ({' '.join(names)[:120]}), its lines {n} columns. "
                              "Separate the columns with commas, or remove the header and say --time 1 --value 2 "
                              "--error 3.")
    table = named(table, names)
    rest = titles[titles.index(names) + 1 :] if names in titles else []
    if rest and len(rest[0]) == n:
        table.meta["unit words"] = dict(zip(table.colnames, rest[0], strict=True))
    return table


def named(table: Table, names: list[str]) -> Table:
    """The table under the names of a header (fewer names than columns: the last columns keep their numbers)."""
    used = Counter()
    full = [*(w.strip("<>'\"") or f"column {i + 1}" for i, w in enumerate(names)), *table.colnames[len(names) :]]
    for old, name in zip(list(table.colnames), full, strict=True):
        used[name] += 1
        name = name if used[name] == 1 else f"{name} ({used[name]})"
        table.rename_column(old, name)
        if "words" in table.meta:
            table.meta["words"][name] = table.meta["words"].pop(old)
    table.meta["named"] = True
    return table


def _counts_rows(column) -> bool:
    """Whether a column is 0, 1, 2 ... or 1, 2, 3 ..., which a row number is and a time is not."""
    if column.dtype.kind not in "if" or not len(column):
        return False
    return bool(column[0] in (0, 1) and np.array_equal(column, column[0] + np.arange(len(column))))


def _without_index(table: Table) -> Table:
    """A table without names, and without the row numbers that a data frame's CSV begins with."""
    second = table.columns[1]
    is_time = second.dtype.kind == "f" and (np.diff(second) > 0).mean() > IN_ORDER
    if len(table.colnames) > 3 and _counts_rows(table["1"]) and is_time:
        table.remove_column("1")
        table.meta["notes"].append("column 1 counts rows and was left out")
    return table


# ---- FITS -----------------------------------------------------------------------------------------------------------


def _fits_tables(raw: bytes) -> list[Table]:
    """The binary tables of a FITS file; times that are in a NumPy file beside are put in."""
    from astropy.io import fits
    from astropy.table import Table

    tables = []
    with fits.open(io.BytesIO(raw)) as units:
        primary = units[0].header
        for unit in units:
            if isinstance(unit, (fits.BinTableHDU, fits.TableHDU)) and len(unit.data):
                table = Table.read(unit)
                words = {c.name: str(c.unit or "") for c in unit.columns}
                header = {k.lower(): v for k, v in (*primary.items(), *unit.header.items()) if isinstance(k, str)}
                table.meta = {"named": True, "comments": [], "notes": [], "keywords": header, "unit words": words,
                              "band": unit.name}
                tables.append(table)
    if not tables:
        raise LightCurveError("is a FITS file without a table (an image?); expected time, brightness and its error.")
    if len(tables) == 1:
        tables[0].meta["band"] = ""
    return tables


def times_beside(path: Path, n: int, band: str) -> np.ndarray:
    """The times (n,) of a table without any, from the one .npy file beside it that has as many numbers (or whose name
    has the band's).

    Raises LightCurveError where there is none, or more than one.
    """
    found = {}
    for file in sorted(Path(path).parent.glob("*.npy")):
        times = np.load(file, mmap_mode="r", allow_pickle=False)
        if times.ndim == 1 and len(times) == n and times.dtype.kind in "iuf":
            found[file] = times
    for wanted in (band, Path(path).name.split(".")[0]):
        some = {file: times for file, times in found.items() if wanted and wanted.lower() in file.stem.lower()}
        found = some or found
    if len(found) != 1:
        what = ", ".join(f.name for f in found) or "none"
        raise LightCurveError(f"has no column of times, and the NumPy files beside it with {n} times are: {what}. "
                              "Expected exactly one.")
    return np.array(next(iter(found.values())), dtype=float)


# ---- Parquet --------------------------------------------------------------------------------------------------------


def _parquet_table(path: Path, event, star_names, time_names) -> Table:
    """The rows of a Parquet file, or of a folder of them; of one event where it is given, without reading the others.

    Where the rows have no times but `epoch_id`, the table of epochs beside gives them; a table beside with event_id
    and name gives the event's number and truth.
    """
    source = parquet_source(path, time_names)
    names = {plain_name(n): n for n in source.schema.names}
    star = next((names[n] for n in star_names if n in names), None)
    if star is None and len(source.files) > 1:
        raise LightCurveError(f"is a folder of {len(source.files)} Parquet files without a column that names the star; "
                              "give them one by one.")
    truth, chosen = {}, None
    if event is not None:
        if star is None:
            raise LightCurveError(f"has no column that tells events apart, so --event cannot choose; it has "
                                  f"{', '.join(names)}.")
        truth = _truth_beside(path, event)
        chosen = _event_filter(source.schema.field(star), truth.get("event_id", event))
    elif source.count_rows() > MAX_ROWS:
        raise LightCurveError(f"has {source.count_rows()} rows; say which event is meant with --event NAME "
                              f"(column {star}).")
    found = source.to_table(filter=chosen)
    if event is not None and not found.num_rows:
        first = source.head(1).column(star)[0].as_py()
        raise LightCurveError(f"holds no event {event!r}; the first one there is {first}.")
    for name in {names[n] for n in star_names if n in names}:
        found = found.set_column(found.column_names.index(name), name, names_as_text(found.column(name)))
    table = table_of_parquet(path, found, time_names)
    table.meta["truth"] = truth
    return table


def as_arrow(column) -> pyarrow.Array:
    """A column of a table as a pyarrow array; what is masked is null."""
    mask = np.ma.getmaskarray(np.ma.asarray(column))
    values = np.ma.getdata(column)
    return pyarrow.array(values.astype(values.dtype.newbyteorder("=")), mask=mask)


def names_as_text(labels):
    """Names, a pyarrow array of text or numbers (12 and 12.0 are both '12'), as text without blanks around."""
    if pyarrow.types.is_dictionary(labels.type):
        labels = labels.cast(labels.type.value_type)
    if pyarrow.types.is_floating(labels.type):
        labels = pyarrow.compute.if_else(pyarrow.compute.is_nan(labels), None, labels)
        whole = pyarrow.compute.all(pyarrow.compute.equal(labels, pyarrow.compute.trunc(labels)))
        labels = labels.cast(pyarrow.int64()) if whole.as_py() else labels
    return pyarrow.compute.utf8_trim_whitespace(labels.cast(pyarrow.string()))


def table_of_parquet(path: Path, rows, time_names) -> Table:
    """The table of some rows, a pyarrow.Table, of a Parquet file or folder.

    Where they have no times but `epoch_id`, these are put in from the table of epochs beside the file.
    """
    from astropy.table import Table

    frame, names = rows.to_pandas(), {n.lower(): n for n in rows.column_names}
    table = Table({name: _plain_array(frame[name]) for name in frame})
    if needs_epochs(names, time_names):
        table["bjd"] = _epoch_times(path, np.asarray(table[names["epoch_id"]]))
    units = {field.name: (field.metadata or {}).get(b"unit", b"").decode() for field in rows.schema}
    table.meta = {"named": True, "comments": [], "notes": [], "keywords": {}, "unit words": units}
    return table


def needs_epochs(names, time_names) -> bool:
    """Whether a Parquet file with columns of these names, in lower case, has its times in a table of epochs beside."""
    return "epoch_id" in names and not set(time_names) & set(names)


def _plain_array(series) -> np.ndarray:
    """A pandas column as numbers, text ('' where it is missing), or an array of arrays."""
    if getattr(series.dtype, "tz", None) is not None:
        series = series.dt.tz_convert("UTC").dt.tz_localize(None)
    values = series.to_numpy()
    first = next((value for value in values if value is not None), None) if values.dtype == object else None
    vectors = np.ndim(first) == 1
    if vectors or values.dtype.kind in "iufbM":
        return values
    return series.astype(object).where(series.notna(), "").astype(str).to_numpy(dtype=str)


def parquet_source(path: Path, time_names):
    """The Parquet file, or all files of observations in a folder, as pyarrow sees them.

    A folder named star=501 gives its files a column `star` of the words '501'.   time_names : as in read_tables.
    Raises LightCurveError for a folder without any, and where two of them differ in their columns, or in the type or
    unit of one.
    """
    if path.is_file():
        return pyarrow.dataset.dataset(path, format="parquet")
    schemas = _schemas_of_observations(path, time_names)
    columns = {file: _described(file.relative_to(path), schema) for file, schema in schemas.items()}
    first = max(columns, key=lambda file: sum(map(bool, columns[file].values())))  # its types are those of all
    for file, own in columns.items():
        different = _differences(columns[first], own)
        if different:
            raise LightCurveError(f"holds tables with different columns: only one of {first.relative_to(path)} and "
                                  f"{file.relative_to(path)} has {', '.join(different)}. Give the files of one kind, "
                                  "one by one.")
    keys = pyarrow.schema([(key, pyarrow.string()) for key, kind in columns[first].items() if kind == OF_THE_FOLDER])
    ordered = [first, *(file for file in columns if file != first)]
    return pyarrow.dataset.dataset([str(file) for file in ordered], format="parquet", partition_base_dir=str(path),
                                   partitioning=pyarrow.dataset.partitioning(keys, flavor="hive") if keys else None)


def _schemas_of_observations(folder: Path, time_names) -> dict:
    """The schemas {path: schema} of the Parquet files in a folder that hold observations.

    Raises LightCurveError where there is none, or where a file is damaged.
    """
    found = {}
    for file in sorted(file for file in folder.rglob("*.parquet") if file.name[0] not in "._"):
        with naming(file.relative_to(folder)):
            part = pyarrow.parquet.ParquetFile(file)
        if part.metadata.num_rows and _has_brightness(part.schema_arrow.names):
            found[file] = part.schema_arrow
    if not found:
        raise LightCurveError("none of the Parquet files in this folder has a column of fluxes or magnitudes.")
    timed = {file: schema for file, schema in found.items() if _has_times(schema.names, time_names)}
    return timed or found  # a catalogue of the stars beside has no times


def _has_brightness(names) -> bool:
    """Whether some of the names of a Parquet file's columns are those of fluxes or magnitudes of observations."""
    plain = [plain_name(name) for name in names]
    return "sim_label" not in plain and any("flux" in n or re.search(r"(?<![a-z])mag|mag$", n) for n in plain)


def _has_times(names, time_names) -> bool:
    """Whether a Parquet file with columns of these names has times, or the numbers of epochs in a table beside."""
    return bool({plain_name(name) for name in names} & {*time_names, "epoch_id"})


def _described(file: Path, schema) -> dict[str, str]:
    """The columns of a Parquet file as {name: type and unit}, '' for one without any number.

    Text is text, however it is stored. The folders above that are named as in star=501 give columns, too.
    """
    found = {}
    for field in schema:
        kind = "text" if any(is_text(field.type) for is_text in TEXT) else str(field.type)
        unit = (field.metadata or {}).get(b"unit", b"").decode()
        found[field.name] = "" if pyarrow.types.is_null(field.type) else f"({kind}) {unit}".strip()
    keys = [part.split("=")[0] for part in file.parts[:-1] if "=" in part]
    return found | {key: OF_THE_FOLDER for key in keys if key not in found}


def _differences(one: dict[str, str], other: dict[str, str]) -> list[str]:
    """Names with type and unit of the columns that two files, as _described gives them, do not have alike."""
    names = [name for name in sorted({**one, **other}) if one.get(name) != other.get(name)
             and not (name in one and name in other and "" in (one[name], other[name]))]
    return sorted(f"{name} {columns[name]}" for name in names for columns in (one, other) if name in columns)


def _beside(path: Path, *columns: str):
    """The Parquet table with all these columns in the folder of `path`, beside it or inside it; None without any."""
    folder = path if path.is_dir() else path.parent
    places = ("*.parquet", "*/*.parquet", "../*.parquet", "../*/*.parquet")
    for file in itertools.chain(*(sorted(folder.glob(p)) for p in places)):
        try:
            table = pyarrow.dataset.dataset(file, format="parquet")
        except (pyarrow.ArrowInvalid, OSError):  # a damaged neighbour is no table of epochs or events
            continue
        if file != path and set(columns) <= set(table.schema.names):
            return table
    return None


def _truth_beside(path: Path, event: str) -> dict:
    """The row, as a dict, of the event of this name or number in the table of events beside; empty without one."""
    events = _beside(path, "event_id", "name", "sim_label")
    if events is None:
        return {}
    chosen = pyarrow.dataset.field("name") == event
    if event.isdigit():
        chosen = _event_filter(events.schema.field("event_id"), event)
    rows = events.to_table(filter=chosen).to_pylist()
    if not rows:
        raise LightCurveError(f"the table of events beside it holds no event {event!r}.")
    return rows[0]


def _event_filter(field, event):
    """The condition that a column has the event's name or number."""
    try:
        return pyarrow.dataset.field(field.name) == pyarrow.scalar(event).cast(field.type)
    except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError):
        raise LightCurveError(f"its column {field.name} holds numbers of events ({field.type}), and there is no "
                              f"table with event_id and name beside it that gives the number of {event!r}.") from None


def _epoch_times(path: Path, epoch_id) -> np.ndarray:
    """Times (n,) of the epochs (n,) from the table of epochs beside; its order is not that of time."""
    epochs = _beside(path, "epoch_id", "bjd")
    if epochs is None:
        raise LightCurveError("has epoch_id but no times, and no Parquet table with epoch_id and bjd is beside it.")
    known = epochs.to_table(columns=["epoch_id", "bjd"]).to_pandas().drop_duplicates("epoch_id").set_index("epoch_id")
    at = known.index.get_indexer(epoch_id)
    if (at < 0).any():
        raise LightCurveError("some of its epochs are not in the table of epochs beside it.")
    return known["bjd"].to_numpy(dtype=float)[at]
