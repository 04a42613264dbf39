"""Style sheet, colours and labels; saving, reading and redrawing. A figure is always drawn from its table."""

from __future__ import annotations

import contextlib
import functools
import io
import re
from pathlib import Path

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from microlens.config import CLASS_COLOURS, CLASSES, PARAMETERS
from microlens.files import atomic

COLUMN, PAGE = 88 / 25.4, 180 / 25.4  # inches: single and double column of an A4 page
STYLE = Path(__file__).with_name("thesis.mplstyle")
PLAIN_COLOURS = dict(zip(CLASSES, ("tab:blue", "tab:green", "tab:red", "tab:purple"), strict=True))  # matplotlib's own
COLOURS = dict(CLASS_COLOURS)
MARKERS = dict(zip(CLASSES, ("o", "s", "^", "D"), strict=True))  # classes differ in greyscale, too
LINES = dict(zip(CLASSES, ("-", "--", "-.", ":"), strict=True))
EINSTEIN = r"$\theta_\mathrm{E}$"
UNITS = {"theta_E": EINSTEIN, "mag AB": "AB mag"}  # units whose name in files is not how it is printed
SIGNAL = r"$\Delta\chi^2$"
LOGARITHMIC = ("delta_chi2_pspl", "t_E", "s", "q", "rho", "f_s")  # quantities that are drawn on a logarithmic axis

DRAW = {}  # {name: function of a table}, filled by @figure
FAMILIES = {"evolution": r"evolution_(flat|pspl|binary)_\d+", "mistakes": r"mistakes_\d+"}
"""Figures of which a folder holds several, and their file names; every other figure has its own name alone."""


# ---- drawing --------------------------------------------------------------------------------------------------------


class Page(Figure):
    """A matplotlib figure that shows itself once in a notebook, whatever the backend, and leaves nothing open."""

    def _repr_png_(self):
        out = io.BytesIO()
        with matplotlib.style.context(STYLE):
            self.savefig(out, format="png", dpi=120)
        return out.getvalue()


def subplots(rows=1, columns=1, size=(COLUMN, 2.6), **kw):
    """(figure, axes) as pyplot.subplots gives, without pyplot. size : width and height, inches."""
    page = Page(figsize=size)
    return page, page.subplots(rows, columns, **kw)


def figure(function):
    """Register draw_<name>(table) -> figure under <name>; it draws in the style of the style sheet."""
    name = function.__name__.removeprefix("draw_")

    @functools.wraps(function)
    def styled(table):
        with matplotlib.style.context(STYLE):
            return function(table)

    styled.__doc__ = f"The figure of the table that {name}() gives, drawn in the style of the style sheet."
    DRAW[name] = styled
    return styled


@contextlib.contextmanager
def palette(safe: bool = True):
    """Draw with the colours of the classes that colour-blind readers can tell apart, or with matplotlib's own."""
    COLOURS.update(CLASS_COLOURS if safe else PLAIN_COLOURS)
    try:
        yield
    finally:
        COLOURS.update(CLASS_COLOURS)


def label_of(name: str) -> str:
    """The axis label of a column of a dataset: symbol, and unit in brackets."""
    if name == "delta_chi2_pspl":
        return f"{SIGNAL} against the best single lens"
    parameter = PARAMETERS[name]
    unit = UNITS.get(parameter.unit, parameter.unit)
    return f"{parameter.symbol} ({unit})" if unit else parameter.symbol


def log_axis(axis, low: float, high: float):
    """A logarithmic axis from low to high, labelled at 1, 2 and 5 in plain numbers where it spans few decades."""
    decades = np.log10(high / low)
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    steps = (1.0, 2.0, 5.0) if decades < 2 else (1.0,)
    axis.set_major_locator(LogLocator(subs=steps, numticks=5 if decades > 4 else 9))
    axis.set_minor_formatter(NullFormatter())
    if decades < 2:
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))


def bins_of(x, name: str, n: int) -> np.ndarray:
    """Edges (n + 1,) of bins over all of x, equal in the logarithm where `name` is LOGARITHMIC."""
    space = np.geomspace if name in LOGARITHMIC else np.linspace
    return space(np.min(x), np.max(x) * (1 + 1e-9), n + 1)


def error_bars(table, name: str) -> np.ndarray:
    """(2, n) lengths of the error bars of a column from its columns <name>_low and <name>_high."""
    return np.maximum([table[name] - table[f"{name}_low"], table[f"{name}_high"] - table[name]], 0)


# ---- saving, reading, redrawing -------------------------------------------------------------------------------------


def kind_of(name: str) -> str | None:
    """The registered figure that the name of a file is one of, or None: evolution_flat_12 is an 'evolution'."""
    return name if name in DRAW else next((k for k, names in FAMILIES.items() if re.fullmatch(names, name)), None)


def draw(name: str, table: pd.DataFrame) -> Figure:
    """The figure `name` of its table. Raises KeyError for a name that is no figure's."""
    return DRAW[kind_of(name)](table)


def save(folder, name: str, table: pd.DataFrame, caption: str, formats=("png", "pdf")) -> list[Path]:
    """Draw a table and write the figure in each format beside it; returns the paths of the figure.

    The table goes to <name>.csv with the caption in its first line, all captions of the folder to captions.md.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.csv").write_text(f"# {caption}\n" + table.to_csv(index=False, float_format="%.6g"))
    page = draw(name, read_table(folder / f"{name}.csv")[0])
    metadata = {"png": {"Description": caption}, "pdf": {"CreationDate": None, "Subject": caption},
                "svg": {"Date": None, "Description": caption}}
    out = [folder / f"{name}.{kind}" for kind in formats]
    with matplotlib.style.context(STYLE):
        page.draw_without_rendering()
        page.set_layout_engine("none")  # the layout, which takes longest, is that of all formats
        for path in out:
            page.savefig(path, metadata=metadata[path.suffix[1:]])
    write_captions(folder)
    return out


def caption_of(path) -> str:
    """The caption of a saved figure: the first line of its table."""
    with open(path) as file:
        return file.readline().strip().removeprefix("# ")


def read_table(path) -> tuple[pd.DataFrame, str]:
    """Table and caption of a saved figure."""
    return pd.read_csv(path, skiprows=1), caption_of(path)


def tables_of(folder) -> list[Path]:
    """The figure tables of a folder: files with the name of a figure and a caption in the first line."""
    named = [path for path in sorted(Path(folder).glob("*.csv")) if kind_of(path.stem)]
    return [path for path in named if path.read_bytes().startswith(b"# ")]


def write_captions(folder) -> Path:
    """captions.md: the caption of every figure of a folder, from the first lines of their tables."""
    lines = [f"\n**{path.stem}** - {caption_of(path)}" for path in tables_of(folder)]
    with atomic(Path(folder) / "captions.md") as temporary:
        temporary.write_text("\n".join(["# Captions", *lines]) + "\n")
    return Path(folder) / "captions.md"


def redraw(folder, into=None, formats=("png", "pdf")) -> list[Path]:
    """Draw every figure of a folder again from its table alone, there or into another folder; returns their paths.

    Raises FileNotFoundError if the folder holds no table.
    """
    done = [path for table in tables_of(folder)
            for path in save(into or folder, table.stem, *read_table(table), formats)]
    if not done:
        raise FileNotFoundError(f"{folder}: holds no figure table; `microlens figures` makes them.")
    return done
