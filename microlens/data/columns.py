"""Which column of a table is time, brightness, error, band, star: by the names in light_curve_columns.yaml.

    columns = choose_columns(table, ReadConfig())          columns.time, columns.value, columns.error, columns.unit

Nothing is guessed: where two readings are possible, an error shows the columns and says how to choose.
"""

from __future__ import annotations

import functools
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from microlens.config import ReadConfig
from microlens.data.tables import OFFSET, LightCurveError, is_number, named, numbers, plain_name

OWN_NAMES = "MICROLENS_COLUMNS"  # environment variable: a YAML file of names that go before those of the package
MAGNITUDES = 5.0, 30.0  # a magnitude of a star in these files; a relative one is known by its name only
TYPICAL_MAGNITUDES = 8.0, 30.0  # the median of a column without a name that is read as magnitudes
WHOLE = re.compile(r"(\d+\.0)?")  # a number that a library wrote as 7.0, or an empty cell
DATE = re.compile(r"\d{4}-\d\d-\d\d")
SYSTEM = re.compile(r"\b(BJD|HJD|MJD|JD|BTJD|BKJD)(?:[ _]?\(?(TDB|UTC|TCB|TT|TAI)\)?)?\b", re.IGNORECASE)
UNIT_WORDS = {**dict.fromkeys(("mag", "mags", "magnitude", "ab", "mag ab", "vega"), "mag"), "mmag": "mmag",
              **dict.fromkeys(("njy", "nanojansky"), "nJy"),
              **dict.fromkeys(("ujy", "µjy", "microjy", "microjansky"), "uJy"),
              **dict.fromkeys(("mjy", "millijansky"), "mJy"), "jy": "Jy", "flux": "flux"}
NO_BRIGHTNESS = ("deg", "degree", "degrees", "rad", "arcsec", "d", "day", "days", "s", "sec")
LINEAR = re.compile(r"e-|electron|adu|count|ct|erg|nmgy|relative|norm", re.IGNORECASE)  # units of some flux
ZERO_POINTS = {"nJy": 31.4, "uJy": 23.9, "mJy": 16.4, "Jy": 8.9}  # AB magnitude of flux 1


@dataclass(frozen=True)
class Columns:
    """Names of the columns of a table, and what their numbers are.

    error : None where the file has none.   unit : 'mag', 'mmag', 'flux', 'nJy', 'uJy', 'mJy', 'Jy' or 'difference'.
    days : length of the time column's unit in days.   time_system : as stated, 'HJD - 2450000' say; '' where not.
    stars, bands : columns that tell stars and bands apart.   flags : {column: bits that mark a bad epoch}.
    """

    time: str
    value: str
    error: str | None
    unit: str
    error_unit: str
    days: float
    time_system: str
    stars: list[str]
    bands: list[str]
    flags: dict[str, int]

    @property
    def is_mag(self) -> bool:
        return self.unit in ("mag", "mmag")


@functools.cache
def column_names(own: str | None = None) -> dict:
    """The table of names, behind those of the YAML file `own`. Raises LightCurveError where that is no such table."""
    names = yaml.safe_load(Path(__file__).with_name("light_curve_columns.yaml").read_text())
    if not own:
        return names
    try:
        more = yaml.safe_load(Path(own).read_text()) or {}
        unknown = sorted(set(more) - set(names))
        if unknown:
            raise ValueError(f"unknown entries {', '.join(unknown)}; it may have {', '.join(names)}")
        return names | {k: {**v, **names[k]} | v if isinstance(v, dict) else [*v, *names[k]] for k, v in more.items()}
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        raise LightCurveError(f"{own}: is no table of column names ({' '.join(str(error).split())}).") from error


def known_names() -> dict:
    """The table of names, with those of the file that MICROLENS_COLUMNS names."""
    return column_names(os.environ.get(OWN_NAMES))


def bracketed(title: str) -> str:
    """What stands in the brackets of a column's name: 'flux [uJy]' -> 'uJy', or ''."""
    inside = re.search(r"[\[(]\s*([^\])]*)", title)
    return inside[1].strip() if inside else ""


def named_as(wanted, names: dict[str, str]) -> list[str]:
    """The columns {title: plain name} that have one of the wanted plain names, the most wanted first."""
    return [title for word in wanted for title, name in names.items() if name == word]


def choose_columns(table, options: ReadConfig) -> Columns:
    """The columns of a table (see tables.read_tables) by the user's options, its names, or, without names, its values.

    Raises LightCurveError that shows the columns and says how to choose where none, or more than one, reading is
    possible.
    """
    return _Chooser(table, options).columns()


class _Chooser:
    """One choice of columns; `names` holds the plain name of each column."""

    def __init__(self, table, options):
        self.options, self.known = options, known_names()
        self.unit, self.wanted = bracketed(options.value or ""), options.value
        if self.wanted is not None and self.wanted.startswith("["):  # the unit alone
            self.wanted = None
        self.table = self._with_comment_names(table)
        self.names = {title: plain_name(title) for title in self.table.colnames}

    def error(self, what: str) -> LightCurveError:
        shown = ", ".join(self.table.colnames)[:400]
        if not self.table.meta["named"]:
            first = " ".join(str(self.table[c][0]) for c in self.table.colnames)[:120]
            shown = f"{len(self.table.colnames)} without names, first line {first!r}"
        return LightCurveError(f"{what}. Columns: {shown}. Say which are meant with --time, --value, --error (a "
                               "name, or a number from 1).")

    def columns(self) -> Columns:
        o, table = self.options, self.table
        if self.wanted is None and not table.meta["named"]:
            time, value, error = self._by_place()
            group = {"unit": self._unit_of_values(value), "kind": "flux"}
        else:
            value, group = (self._given(self.wanted), None) if self.wanted is not None else self._brightness()
            group = group or self._group_of(value)
            time = self._time()
            error = self._error(value, group["kind"]) if table.meta["named"] else self._next(value)
        error = self._given(o.error) if o.error is not None else error
        if len({time, value, error}) < 3:
            raise self.error(f"time, brightness and error would be the columns {time}, {value} and {error}")
        unit = self._unit(value, self.unit) or group["unit"]
        days, system = self._time_unit(time)
        error_unit = self._unit(error, bracketed(o.error or "")) if error is not None else ""
        rest = {title: name for title, name in self.names.items() if title not in (time, value, error)}
        flags = {title: self.known["flags"][name] for title, name in rest.items() if name in self.known["flags"]}
        stars, bands = (named_as(self.known[role], rest) for role in ("star", "band"))
        self._take_as_words([*stars, *bands])
        return Columns(time, value, error, unit, error_unit or unit, days, system, stars, bands, flags)

    def _take_as_words(self, titles: list[str]):
        """Put the words of the file in place of numbers in some columns: the stars 7 and 007 are not the same.

        Numbers that a library wrote as 7.0, every one of them, are 7.
        """
        words = self.table.meta.pop("words", {})
        for title in titles:
            if title in words:
                whole = all(WHOLE.fullmatch(word) for word in words[title])
                names = [word.removesuffix(".0") for word in words[title]] if whole else words[title]
                self.table[title] = np.array(names, dtype=np.str_)

    # ---- with names

    def _with_comment_names(self, table):
        """The table under the names in a comment, where the comment's words fit its columns."""
        if table.meta["named"]:
            return table
        separator, n = table.meta["separator"], len(table.colnames)
        for comment in reversed(table.meta["comments"]):
            for words in ([w.strip() for w in comment.split(separator)] if separator else [], comment.split()):
                if self._are_names(words, n):
                    return named(table, words)
        return table

    def _are_names(self, words, n_columns: int) -> bool:
        """Whether the words of a comment name columns, and are no sentence.

        A time and a brightness are among them. Either all words are known, or there is one for each column, with an
        error among them.
        """
        plain = [plain_name(w) for w in words]
        times, values = set(self.known["time"]), {n for group in self.known["brightness"] for n in group["names"]}
        if len(words) > n_columns or times.isdisjoint(plain) or values.isdisjoint(plain):
            return False
        errors = {p for p in plain if self._is_error(p)}
        all_known = set(plain) <= times | values | errors | {*self.known["star"], *self.known["band"]}
        return all_known or (len(words) == n_columns and bool(errors))

    def _is_error(self, name: str) -> bool:
        if name in self.known["plain_error"]:
            return True
        words = [w for group in self.known["brightness"] for w in (*group["names"], group["kind"])]
        return any(name == form.format(w) for form in self.known["error"] for w in words)

    def _given(self, wanted: str) -> str:
        """The column of an option: its name as in the file, its plain name, or its number."""
        titles, bare = self.table.colnames, re.sub(r"\s*\[.*", "", wanted)
        alike = [t for t in titles if self.names[t] == plain_name(wanted)]
        if wanted in titles or bare in titles:
            return wanted if wanted in titles else bare
        if len(alike) == 1:
            return alike[0]
        if bare.isdigit() and 1 <= int(bare) <= len(titles):
            return titles[int(bare) - 1]
        raise self.error(f"no column {wanted!r}")

    def _time(self) -> str:
        if self.options.time is not None:
            return self._given(self.options.time)
        if not self.table.meta["named"]:
            return self.table.colnames[0]
        if found := named_as(self.known["time"], self.names):
            return found[0]
        words = tuple(f"{word}_" for word in self.known["time"] if len(word) > 1)
        begun = [title for title, name in self.names.items() if name.startswith(words)]
        if len(begun) != 1:
            raise self.error("several columns may be the time" if begun else "no column is known to hold times")
        return begun[0]

    def _brightness(self) -> tuple[str, dict]:
        for same in (lambda name, wanted: name == wanted, self._begins_with):
            for group in self.known["brightness"]:
                found = [t for t, name in self.names.items() if any(same(name, wanted) for wanted in group["names"])]
                if len(found) > 1:
                    raise self.error(f"the brightness may be {' or '.join(found)}")
                if found:
                    return found[0], group
        raise self.error("no column is known to hold a magnitude or a flux")

    def _begins_with(self, name: str, wanted: str) -> bool:
        """Whether a column's name begins with a known one, and says nowhere that it is something else."""
        if len(wanted) < 3 or not name.startswith(wanted) or self._is_error(name) or name in self.known["truth"]:
            return False
        return not any(word in name[len(wanted) :] for word in self.known["not_brightness"])

    def _group_of(self, value: str) -> dict:
        """The group that a column given by the user falls into: of its name, or of its values."""
        for group in self.known["brightness"]:
            if self.names[value] in group["names"]:
                return group
        return {"unit": self._unit_of_values(value), "kind": "mag" if "mag" in self.names[value] else "flux"}

    def _error(self, value: str, kind: str) -> str | None:
        """The column of a brightness' error; None where no column is one."""
        names = [self.names[value], self.wanted or "", *self.known["kinds"][kind]]
        forms = [form.format(n) for n in names if n for form in self.known["error"]]
        others = {title: name for title, name in self.names.items() if title != value}
        if found := named_as((*forms, *self.known["plain_error"]), others):
            return found[0]
        long = tuple(form for form in forms if len(form) > 3)
        begun = [title for title, name in others.items() if name.startswith(long) and "percent" not in name]
        if len(begun) == 1:
            return begun[0]
        like = [title for title, name in others.items() if re.search(r"err|unc|sigma", name)]
        if (begun or like) and self.options.error is None:
            raise self.error(f"the error of {value} may be {' or '.join(begun or like)}")
        return None

    def _unit(self, title: str, given: str) -> str:
        """Unit of a brightness as an option (`given`) or a header states it, see Columns.unit; '' where none does."""
        if given and given.lower() not in UNIT_WORDS:
            raise self.error(f"the unit [{given}] is unknown; expected mag, mmag, flux, nJy, uJy or mJy")
        stated = self.table.meta.get("unit words", {}).get(title) or self.table[title].unit
        for word in (given, stated, bracketed(title)):
            word = " ".join(str(word or "").split())
            known = UNIT_WORDS.get(word.lower()) or UNIT_WORDS.get(re.split(r"[ (]", word)[0].lower())
            if known and not (known == "mJy" and word.startswith("M")):
                return known
            if word in NO_BRIGHTNESS:
                raise self.error(f"the column {title} is in {word}, so it is no brightness")
            if LINEAR.search(word):
                return "flux"
        return ""

    def _time_unit(self, title: str) -> tuple[float, str]:
        """Length of a time's unit in days, and its time system, both as header, options or comments state them."""
        meta, keywords = self.table.meta, self.table.meta["keywords"]
        stated = meta.get("unit words", {}).get(title) or self.table[title].unit
        words = [str(w) for w in (bracketed(self.options.time or ""), stated, bracketed(title)) if w]
        if not words and keywords.get("timeunit") and not is_number(str(keywords["timeunit"])):
            words.append(str(keywords["timeunit"]))
        suffix = plain_name(title).rsplit("_", 1)[-1]
        if suffix in ("s", "sec", "second", "seconds"):
            words.append("s")
        days = next((d for d in map(_days, words) if d is not None), 1.0)
        if days < 0:
            raise self.error(f"the column {title} is in {words[0]}, so it is no time")
        frame = [str(keywords[k]) for k in ("time_reference_frame", "time_system", "timeref") if k in keywords]
        of_name = self.known["time"].get(plain_name(title), "")
        return days, _time_system([title, *words, *frame], of_name, keywords, meta["comments"])

    # ---- without names

    def _next(self, value: str) -> str | None:
        """The column behind a brightness without a name, which is its error."""
        at = self.table.colnames.index(value) + 1
        return self.table.colnames[at] if at < len(self.table.colnames) else None

    def _values(self, title: str) -> np.ndarray:
        values, _ = numbers(self.table[title])
        return values[np.isfinite(values)]

    def _by_place(self) -> tuple[str, str, str | None]:
        """Time, brightness and error by place, from the user's time on, where no value speaks against it."""
        titles = self.table.colnames
        if self.options.time is not None:
            titles = titles[titles.index(self._given(self.options.time)) :]
        if len(titles) < 2:
            raise self.error("one column only; expected time, brightness and its error")
        time, value, error = [*titles[:3], None][:3]
        if self.options.time is None and not DATE.match(str(self.table[time][0]).strip()):
            self._check_time(time, titles)
        if self.options.error is None and error is not None and np.sum(self._values(error) <= 0) > len(self.table) / 2:
            raise self.error(f"the numbers in column {error} are not errors, most are not positive")
        pairs = [k for k in titles[3:-1] if self._looks_like_magnitudes(k) and self._looks_like_errors(self._next(k))]
        if pairs:
            raise self.error(f"the brightness may be column {value} or {' or '.join(pairs)}")
        if len(titles) < 5 and not self.unit:
            self._check_sense(value, error)
        return time, value, error

    def _check_time(self, time: str, titles):
        """Raise an error where the column is not in order and another one is, or where it does not change."""
        def ascending(title):
            values = self._values(title)
            return len(values) > 1 and (np.diff(values) >= 0).mean() > 0.99 and values[-1] > values[0]

        others = [t for t in titles if t != time and ascending(t)]
        if len(np.unique(self._values(time))) < 2:
            raise self.error(f"column {time} does not change, so it is no time")
        if others and not ascending(time):
            raise self.error(f"column {time} is not in the order of time, column {' and '.join(others)} is")
        if others and titles[1] in others:
            raise self.error(f"both column {time} and column {titles[1]} may be times")

    def _check_sense(self, value: str, error: str | None):
        """Raise an error where numbers that could be magnitudes rise as a flux does in an event, and never fall."""
        if error is None or self._unit_of_values(value) != "mag":
            return
        low, middle, high = np.percentile(self._values(value), [0.5, 50, 99.5])
        noise = np.median(self._values(error))
        if high < 30 and high - middle > max(10 * noise, 3 * (middle - low), 1.0):
            raise self.error(f"column {value} may be a magnitude that fades or a flux that brightens; say --value "
                             "'[mag]' or --value '[flux]'")

    def _looks_like_magnitudes(self, title: str) -> bool:
        values = self._values(title)
        return len(values) > 0 and TYPICAL_MAGNITUDES[0] < np.median(values) < TYPICAL_MAGNITUDES[1]

    def _looks_like_errors(self, title: str) -> bool:
        values = self._values(title)
        return len(values) > 0 and bool((values > 0).mean() > 0.9 and np.median(values) < 1)

    def _unit_of_values(self, title: str) -> str:
        """'mag' where the values, but for sentinels (90 and more, or below 0), are those of magnitudes, else 'flux'."""
        values = self._values(title)
        values = values[(values < 90) & (values > 0)]
        inside = (values > MAGNITUDES[0]) & (values < MAGNITUDES[1])
        return "mag" if self._looks_like_magnitudes(title) and inside.any() and inside.mean() > 0.98 else "flux"


def _days(word: str) -> float | None:
    """Length of a unit of time in days; -1 for a unit that is none of time; None for a word that is no unit."""
    from astropy.units import Unit, day  # astropy takes a second to import, which most commands need not spend

    word = word.strip().lower()
    plain = {"days": "day", "sec": "s", "secs": "s", "seconds": "s", "second": "s", "hours": "h", "minutes": "min",
             "jd": "day", "degree": "deg", "degrees": "deg"}.get(word, word)
    try:
        unit = Unit(plain)
    except ValueError:
        return None
    if not unit.physical_type or unit.physical_type == "dimensionless":
        return None
    return float(unit.to(day)) if unit.is_equivalent(day) else -1.0


def _time_system(words: list[str], of_name: str, keywords: dict, comments: list[str]) -> str:
    """Time system as column, unit, header or a comment states it: 'BJD TDB - 2457000', or ''."""
    offset = next((m[1] for w in words if (m := OFFSET.search(w))), "")
    if not offset and "bjdrefi" in keywords:
        offset = f"{float(keywords['bjdrefi']) + float(keywords.get('bjdreff', 0)):.10g}"
    system = of_name
    stated = [m for w in words if (m := SYSTEM.search(w.replace("_", " ")))]
    if stated and " - " not in of_name:
        name = next((m[1].upper() for m in stated if m[1].upper() != "JD"), stated[0][1].upper())
        scale = next((m[2].upper() for m in stated if m[2]), "")
        system = f"{name} {scale}".strip()
    if offset and " - " not in system:
        scale = str(keywords.get("timesys", "")).upper() if "bjdrefi" in keywords and "TDB" not in system else ""
        system = " ".join(w for w in (system or "BJD", scale) if w) + f" - {offset}"
    if not system:
        for comment in comments:
            if name := SYSTEM.search(comment):
                subtracted = OFFSET.search(comment)
                return f"{name[1].upper()}{f' - {subtracted[1]}' if subtracted else ''} (from a comment)"
    return system
