"""The style sheet, and saving, reading and redrawing of figures. A figure is always drawn from its table."""

from __future__ import annotations

import functools
import io
from pathlib import Path

import matplotlib.style
import pandas as pd
from matplotlib.figure import Figure

from microlens import files
from microlens.config import CLASSES
from microlens.files import atomic

COLUMN, PAGE = 88 / 25.4, 180 / 25.4  # inches: single and double column of an A4 page
STYLE = Path(__file__).with_name("thesis.mplstyle")
PALETTES = {
    "safe": dict(zip(CLASSES, ("#0072B2", "#E69F00", "#CC79A7"), strict=True)),  # Okabe & Ito (2008)
    "plain": dict(zip(CLASSES, ("tab:blue", "tab:green", "tab:red"), strict=True)),
}
COLOURS = dict(PALETTES["safe"])
MARKERS = dict(zip(CLASSES, ("o", "s", "^"), strict=True))  # classes differ in greyscale, too
LINES = dict(zip(CLASSES, ("-", "--", "-."), strict=True))
DRAW = {}


class Page(Figure):
    """A matplotlib figure that shows itself once in a notebook, whatever the backend, and leaves nothing open."""

    def _repr_png_(self):
        out = io.BytesIO()
        with matplotlib.style.context(STYLE):
            self.savefig(out, format="png", dpi=120)
        return out.getvalue()


def subplots(rows=1, columns=1, size=(COLUMN, 2.6), **kw):
    """(figure, axes) as pyplot.subplots gives, without pyplot."""
    page = Page(figsize=size)
    return page, page.subplots(rows, columns, **kw)


def figure(function):
    """Register draw_<name>(table) -> figure under <name>; it draws in the style of the style sheet."""
    @functools.wraps(function)
    def styled(table):
        with matplotlib.style.context(STYLE):
            return function(table)

    DRAW[function.__name__.removeprefix("draw_")] = styled
    return styled


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
    """Draw a table and write the figure in each format beside it (name.csv, the caption in its first line; captions.md has all)."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    text = f"# {caption}\n" + table.to_csv(index=False, float_format="%.6g")
    (folder / f"{name}.csv").write_text(text)
    page = draw(name, read_table(folder / f"{name}.csv")[0])
    out = [folder / f"{name}.{f}" for f in formats]
    with matplotlib.style.context(STYLE):
        for path in out:
            page.savefig(path, metadata={"png": {"Description": caption}, "pdf": {"CreationDate": None, "Subject": caption},
                                         "svg": {"Date": None, "Description": caption}}[path.suffix[1:]])
    write_captions(folder)
    return out


def write_captions(folder: Path) -> Path:
    """captions.md: the caption of every figure of a folder, from the first lines of their tables."""
    tables = [path for path in sorted(Path(folder).glob("*.csv")) if kind_of(path.stem)]
    with atomic(Path(folder) / "captions.md") as temporary:
        temporary.write_text("\n".join(["# Captions", *(f"\n**{p.stem}** - {_caption(p)}" for p in tables)]) + "\n")
    return Path(folder) / "captions.md"


def _caption(path: Path) -> str:
    with open(path) as file:
        return file.readline().strip().lstrip("# ")


def read_table(path) -> tuple[pd.DataFrame, str]:
    """Table and caption of a saved figure."""
    return pd.read_csv(path, comment="#"), _caption(Path(path))


def redraw(folder=None, into=None) -> list[Path]:
    """Draw every figure of a folder again from its table alone, there or into another folder.

    Raises FileNotFoundError if there is no table.
    """
    folder = Path(folder or files.figures_dir())
    done = []
    for file in sorted(folder.glob("*.csv")):
        if kind_of(file.stem):
            done += save(into or folder, file.stem, *read_table(file))
    if not done:
        raise FileNotFoundError(f"{folder}: holds no figure table; notebook 06_figures makes them.")
    return done
