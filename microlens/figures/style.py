"""The style sheet, and saving, reading and redrawing of figures. A figure is always drawn from its table."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from microlens import paths
from microlens.config import CLASSES

COLUMN, PAGE = 3.4, 7.0  # inches: single and double column
PALETTES = {
    "safe": dict(zip(CLASSES, ("#0072B2", "#E69F00", "#CC79A7"), strict=True)),  # Okabe & Ito (2008)
    "plain": dict(zip(CLASSES, ("tab:blue", "tab:green", "tab:red"), strict=True)),
}
COLOURS = dict(PALETTES["safe"])
MARKERS = dict(zip(CLASSES, ("o", "s", "^"), strict=True))  # classes differ in greyscale, too
LINES = dict(zip(CLASSES, ("-", "--", "-."), strict=True))
matplotlib.rcParams.update({
    "font.size": 8, "axes.labelsize": 8, "axes.titlesize": 8, "legend.fontsize": 7, "xtick.labelsize": 7, "ytick.labelsize": 7,
    "figure.dpi": 120, "savefig.dpi": 200, "pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "microlens",
    "lines.linewidth": 1.2, "figure.constrained_layout.use": True, "axes.spines.top": False, "axes.spines.right": False,
    "legend.frameon": False})
DRAW = {}


class Page(Figure):
    """A matplotlib figure that shows itself once in a notebook, whatever the backend, and leaves nothing open."""

    def _repr_png_(self):
        out = io.BytesIO()
        self.savefig(out, format="png", dpi=120)
        return out.getvalue()


def subplots(rows=1, columns=1, size=(COLUMN, 2.6), **kw):
    """(figure, axes) as pyplot.subplots gives, without pyplot."""
    page = Page(figsize=size)
    return page, page.subplots(rows, columns, **kw)


def figure(function):
    """Register draw_<name>(table) -> figure under <name>."""
    DRAW[function.__name__.removeprefix("draw_")] = function
    return function


def use_palette(safe: bool = True):
    """Colours of the classes: colour-blind safe, or matplotlib's own."""
    COLOURS.update(PALETTES["safe" if safe else "plain"])


def kind_of(name: str) -> str | None:
    """The registered figure that `name` is one of: evolution_flat_12 is an 'evolution'."""
    fitting = [k for k in DRAW if name == k or name.startswith(k + "_")]
    return max(fitting, key=len) if fitting else None


def draw(name: str, table: pd.DataFrame) -> Figure:
    """The figure `name` of its table."""
    return DRAW[kind_of(name)](table)


def save(folder, name: str, table: pd.DataFrame, caption: str, formats=("png", "pdf")) -> list[Path]:
    """Draw a table and write the figure in each format beside it (name.csv, the caption in its first line)."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    text = f"# {caption}\n" + table.to_csv(index=False, float_format="%.6g")
    (folder / f"{name}.csv").write_text(text)
    page = draw(name, read_table(folder / f"{name}.csv")[0])
    out = [folder / f"{name}.{f}" for f in formats]
    for path in out:
        page.savefig(path, metadata={"png": {"Description": caption}, "pdf": {"CreationDate": None, "Subject": caption},
                                     "svg": {"Date": None, "Description": caption}}[path.suffix[1:]])
    return out


def read_table(path) -> tuple[pd.DataFrame, str]:
    """Table and caption of a saved figure."""
    return pd.read_csv(path, comment="#"), Path(path).read_text().splitlines()[0].lstrip("# ")


def redraw(folder=None, into=None) -> list[Path]:
    """Draw every figure of a folder again from its table alone, there or into another folder.

    Raises FileNotFoundError if there is no table.
    """
    folder = Path(folder or paths.figures_dir())
    done = []
    for file in sorted(folder.glob("*.csv")):
        if kind_of(file.stem):
            done += save(into or folder, file.stem, *read_table(file))
    if not done:
        raise FileNotFoundError(f"{folder}: holds no figure table; notebook 06_figures makes them.")
    return done
