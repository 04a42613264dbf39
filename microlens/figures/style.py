"""Widths, colours, axes, intervals, legends and labels of all figures; saving, reading and redrawing.

A figure is always drawn from its table.
"""

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
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from microlens.config import CLASS_COLOURS, CLASSES, PARAMETERS
from microlens.evaluate.metrics import LEVEL
from microlens.files import atomic

COLUMN, PAGE = 90 / 25.4, 180 / 25.4  # inches: single and double column of an A4 page
WIDTHS = {COLUMN: "9 cm wide (single column)", PAGE: "18 cm wide (double column)"}
PRINTED = " Printed "  # where a caption goes on with the width of its figure
INTERVALS = (f"Bars, bands and brackets are {LEVEL:.0%} intervals: Clopper-Pearson of a share of counted events, the "
             "percentiles of a bootstrap over events of any other score. A score of 1, of which a bootstrap knows no "
             "spread, has that of a share of its rarest events.").replace("%", " %")
"""What an interval is, in every figure; captions.md says it once."""
BARS = f"bars are {LEVEL:.0%} intervals".replace("%", " %")
STYLE = ("default", Path(__file__).with_name("thesis.mplstyle"))
"""Matplotlib's own settings first: other packages change them when they are imported (MulensModel the ticks)."""
PLAIN_COLOURS = dict(zip(CLASSES, ("tab:blue", "tab:green", "tab:red", "tab:purple"), strict=True))  # matplotlib's own
COLOURS = dict(CLASS_COLOURS)
MARKERS = dict(zip(CLASSES, ("o", "s", "^", "D"), strict=True))  # classes differ in greyscale, too
LINES = dict(zip(CLASSES, ("-", "--", "-.", ":"), strict=True))
NAMES = dict(zip(CLASSES, ("flat", "single lens", "binary lens", "other"), strict=True))  # as they are printed
SERIES_MARKERS = ("o", "s", "^", "D", "v", "P")  # of series that are no classes, in the colours C0, C1, ...
SERIES_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1)), (0, (5, 1, 1, 1, 1, 1)))
EINSTEIN = r"$\theta_\mathrm{E}$"
UNITS = {"theta_E": EINSTEIN, "mag AB": "AB mag"}  # units whose name in files is not how it is printed
SIGNAL = r"$\Delta\chi^2$"
P_BINARY = r"$P(\mathrm{binary})$"
MATHEMATICS = (
    (r"delta[ _]chi\^?2", r"$\\Delta\\chi^2$"), (r"(?<!\\)\bchi\^2", r"$\\chi^2$"), (r" sigma\b", r" $\\sigma$"),
    (r" x (?=\d)", " × "), (r"\b(\d+)e-0*(\d+)", r"$\1\\times10^{-\2}$"),
)
"""How the plain letters in names of conditions and methods are printed: (regular expression, text of re.sub)."""
STEPS = (1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)  # of ticks in a decade; powers of ten have the last alone
HALFWAY = 0.3  # share from which a logarithmic axis of shares reaches to 1
PLAIN = 2e-4, 1e4  # a logarithmic axis between these has plain numbers
MARGIN = 0.04  # of a logarithmic axis, beyond its data
LABEL = 0.42, 0.28  # inches that a label needs along the x axis and along the y axis
NOTHING = 0.1  # where a logarithmic axis of shares ends that are all 0
LINEAR, CROWDED = 10.0, 2e3  # errors: beyond the first a logarithmic axis is drawn, beyond both fewer labels
LEAST_P = 10**-4.5  # distance of a probability from 0 and from 1 beyond which an axis ends
N_COLOURS = 64  # of a PNG file
ROUNDING = 1e-9  # below which the distance of a share from 1 is 0
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
    """(figure, axes) as pyplot.subplots gives, without pyplot. size : width (COLUMN or PAGE) and height, inches."""
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


def from_one(words: str) -> str:
    """The label of what is drawn as its distance from 1."""
    return f"1 \N{MINUS SIGN} {words}"


def typeset(name: str) -> str:
    """The name of a condition or a method with its mathematics set as mathematics."""
    for written, printed in MATHEMATICS:
        name = re.sub(written, printed, name)
    return name


def scientific(x: float) -> str:
    """A number of two digits in mathematics, with a power of ten where it is small."""
    if x == 0 or x >= 0.01:
        return f"{x:.2g}"
    digits, exponent = f"{x:.1e}".split("e")
    return rf"${digits}\times10^{{{int(exponent)}}}$"


def numbers(lowest: float, highest: float):
    """The formatter of a logarithmic axis: plain numbers where all of it lies between the bounds PLAIN, else powers."""
    plain = PLAIN[0] <= lowest and highest <= PLAIN[1]
    return FuncFormatter(lambda x, _: f"{x:g}" if plain or x == 1 else power(x))


def power(x: float) -> str:
    """A number of one digit as a power of ten, in mathematics."""
    exponent = int(np.floor(np.log10(x) + ROUNDING))
    digit = round(x / 10.0**exponent)
    return rf"$10^{{{exponent}}}$" if digit == 1 else rf"${digit}\times10^{{{exponent}}}$"


def room(axis) -> int:
    """How many labels there is room for along an axis, from the size of its figure and its place in the grid."""
    cell = axis.axes.get_subplotspec()
    grid, (width, height) = cell.get_gridspec(), axis.axes.figure.get_size_inches()
    along, size, ratios, at = ((0, width, grid.get_width_ratios(), cell.colspan.start) if axis.axis_name == "x" else
                               (1, height, grid.get_height_ratios(), cell.rowspan.start))
    return max(2, int(size * ratios[at] / sum(ratios) / LABEL[along]))


def log_ticks(low: float, high: float, most: int) -> np.ndarray:
    """Round numbers from low to high for a logarithmic axis: as many as there are of a kind, but not more than most."""
    exponents = np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    plain = PLAIN[0] <= low and high <= PLAIN[1]
    sets = [np.outer(10.0**exponents, steps).ravel() for steps in (STEPS if plain else STEPS[-1:])]
    sets += [10.0 ** exponents[exponents % each == 0] for each in range(2, 10)]
    for ticks in sets:
        within = ticks[(ticks >= low * (1 - ROUNDING)) & (ticks <= high * (1 + ROUNDING))]
        if len(within) <= most:
            return within
    return within


def log_axis(axis, low: float, high: float, margin: float = 0.0):
    """A logarithmic axis from low to high, and beyond both by `margin` of its length."""
    beyond = (high / low) ** margin
    low, high = low / beyond, high * beyond
    ticks = log_ticks(low, high, room(axis))
    axis.axes.set(**{f"{axis.axis_name}scale": "log", f"{axis.axis_name}lim": (low, high)})
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(numbers(low, high))
    axis.set_minor_formatter(NullFormatter())
    axis.set_minor_locator(NullLocator() if high < 10 * low else LogLocator(subs=range(2, 10)))


def share_axis(axis, shares) -> float:
    """Make an axis logarithmic for all of some shares, and return its lower end.

    Where one of the shares is 0, the lower end is labelled 0: draw such a share there (np.maximum with the lower end).
    """
    values = np.ravel(shares)
    values = values[np.isfinite(values)]
    positive = values[values > ROUNDING]
    least, most = (positive.min(), positive.max()) if len(positive) else (NOTHING, NOTHING)
    zero = len(positive) < len(values)
    lowest, highest = least / (3 if zero else 1.3), 1.0 if most > HALFWAY else 1.3 * most
    log_axis(axis, lowest, highest)
    if zero:
        axis.set_major_locator(FixedLocator([lowest, *log_ticks(2 * lowest, highest, room(axis) - 1)]))
        printed = numbers(least, highest)
        axis.set_major_formatter(FuncFormatter(lambda x, at: "0" if x < 1.01 * lowest else printed(x, at)))
    return lowest


def logit_axis(axis):
    """An axis of shares or probabilities that is logarithmic towards 0 and towards 1, from LEAST_P to 1 - LEAST_P.

    Its ends are labelled 0 and 1: draw there what lies beyond (np.clip).
    """
    end = LEAST_P
    decades = np.arange(1, -np.log10(end) - 1)  # the last one keeps off the label of the end
    powers = 10.0 ** -decades[:: max(1, -(-2 * len(decades) // (room(axis) - 2)))]
    axis.axes.set(**{f"{axis.axis_name}scale": "logit", f"{axis.axis_name}lim": (end, 1 - end)})
    axis.set_major_locator(FixedLocator([end, *powers, 0.5, *(1 - powers), 1 - end]))
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{round(x)}" if min(x, 1 - x) < 1.01 * end else f"{x:.4g}"))
    axis.set_minor_locator(NullLocator())


def draw_line(ax, x, share, lowest: float, style: str = "-", **keywords):
    """A line of shares over x on a share_axis: points on its lower end where a share is 0, so that none is missed."""
    x, share = np.asarray(x, dtype=float), np.asarray(share, dtype=float)
    zero = share <= ROUNDING
    ax.plot(x, np.where(zero, np.nan, share), style, **keywords)
    if zero.any():
        ax.plot(x[zero], np.full(zero.sum(), lowest), ".", ms=2, color=keywords["color"], clip_on=False)


def residual_axis(ax, values):
    """The y axis of residuals in errors: logarithmic on either side of LINEAR where some values are beyond it."""
    largest = np.nanmax(np.abs(values))
    if largest <= LINEAR:
        return
    ax.set_yscale("symlog", linthresh=LINEAR)
    decades = 10.0 ** np.arange(np.log10(LINEAR), np.log10(largest) + 1e-9, 1 + (largest > CROWDED))
    ax.yaxis.set_major_locator(FixedLocator([*-decades[::-1], 0, *decades]))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}".replace("-", "\N{MINUS SIGN}")))
    ax.yaxis.set_minor_locator(NullLocator())


def draw_shares(ax, at, table, name: str, lowest: float, sideways=False, from_one=False, highest=1.0, **style):
    """Points with their intervals on a share_axis that starts at `lowest`, or on a logit_axis from lowest to highest.

    at (n,) : their places on the other axis.   name : of a column that has <name>_low and <name>_high beside it.
    sideways : the shares are along x.   from_one : 1 - share is drawn.   style : of errorbar.
    """
    share, low, high = (table[f"{name}{end}"].to_numpy(float) for end in ("", "_low", "_high"))
    if from_one:
        share, low, high = 1 - share, 1 - high, 1 - low
    share, low, high = (np.clip(np.where(x < ROUNDING, 0, x), lowest, highest) for x in (share, low, high))
    bars = np.maximum([share - low, high - share], 0)
    style = {"fmt": "o", "ms": 3, "elinewidth": 0.8} | style
    drawn = ax.errorbar(share, at, xerr=bars, **style) if sideways else ax.errorbar(at, share, bars, **style)
    drawn.lines[0].set(clip_on=False, zorder=3)  # a marker on the end of the axis is seen whole
    return drawn


def legend_above(page, ax, ncols: int = 3, title: str | None = None):
    """The legend of an axes above all axes of the page, so that it lies on no data."""
    page.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=ncols, title=title)


def bins_of(x, name: str, n: int) -> np.ndarray:
    """Edges (n + 1,) of bins over all of x, equal in the logarithm where `name` is LOGARITHMIC."""
    space = np.geomspace if name in LOGARITHMIC else np.linspace
    return space(np.min(x), np.max(x) * (1 + 1e-9), n + 1)


# ---- saving, reading, redrawing -------------------------------------------------------------------------------------


def kind_of(name: str) -> str | None:
    """The registered figure that the name of a file is one of, or None: evolution_flat_12 is an 'evolution'."""
    return name if name in DRAW else next((k for k, names in FAMILIES.items() if re.fullmatch(names, name)), None)


def draw(name: str, table: pd.DataFrame) -> Figure:
    """The figure `name` of its table. Raises KeyError for a name that is no figure's."""
    return DRAW[kind_of(name)](table)


def save(folder, name: str, table: pd.DataFrame, caption: str, formats=("png", "pdf")) -> list[Path]:
    """Draw a table and write the figure in each format beside it; returns the paths of the figure.

    The table goes to <name>.csv with the caption in its first line, all captions of the folder to captions.md. The
    width that the figure is printed at is added to the caption.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    numbers = table.to_csv(index=False, float_format="%.6g")
    page = draw(name, pd.read_csv(io.StringIO(numbers)))
    caption = f"{caption.split(PRINTED)[0]}{PRINTED}{WIDTHS[page.get_figwidth()]}."
    (folder / f"{name}.csv").write_text(f"# {caption}\n{numbers}")
    metadata = {"png": {"Description": caption}, "pdf": {"CreationDate": None, "Subject": caption},
                "svg": {"Date": None, "Description": caption}}
    out = [folder / f"{name}.{kind}" for kind in formats]
    with matplotlib.style.context(STYLE):
        page.draw_without_rendering()
        page.set_layout_engine("none")  # the layout, which takes longest, is that of all formats
        for path in out:
            page.savefig(path, metadata=metadata[path.suffix[1:]])
            if path.suffix == ".png":
                reduce_colours(path)
    write_captions(folder)
    return out


def reduce_colours(path):
    """Write a PNG file anew with a palette of N_COLOURS, which is seen by nobody and halves its size."""
    with Image.open(path) as image:
        said = PngInfo()
        said.add_text("Description", image.info["Description"])
        image.convert("RGB").quantize(N_COLOURS).save(path, pnginfo=said, dpi=image.info["dpi"], optimize=True)


def caption_of(path) -> str:
    """The caption of a saved figure: the first line of its table."""
    with open(path) as file:
        return file.readline().strip().removeprefix("# ")


def read_table(path) -> tuple[pd.DataFrame, str]:
    """Table and caption of a saved figure."""
    return pd.read_csv(path, skiprows=1), caption_of(path)


def tables_of(folder) -> list[Path]:
    """The figure tables of a folder: files with the name of a figure and a caption in the first line."""
    return [path for path in sorted(Path(folder).glob("*.csv"))
            if kind_of(path.stem) and path.read_bytes().startswith(b"# ")]


def write_captions(folder) -> Path:
    """captions.md: what an interval is, and the caption of every figure of a folder, the first line of its table."""
    lines = [f"\n**{path.stem}** - {caption_of(path)}" for path in tables_of(folder)]
    with atomic(Path(folder) / "captions.md") as temporary:
        temporary.write_text("\n".join(["# Captions", "", INTERVALS, *lines]) + "\n")
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
