"""The events of a dataset as a table: true parameters, labels, predictions; filters and sorting."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd

from microlens.config import BINARY, CLASSES
from microlens.data import read_predictions
from microlens.explore.controls import user_path

COLUMNS = ["row", "class", "observable", "called", "p_binary", "delta_chi2_pspl",
           "m_base", "t_E", "u_0", "s", "q", "rho"]


def find_predictions(path, checksum: str) -> Path:
    """The predictions.h5 of the dataset with this checksum.

    path : the file itself, an evaluation's folder, or a run's folder: then its newest evaluation of that dataset.
    Raises FileNotFoundError where there is none, ValueError where all that there are belong to other datasets.
    """
    path = user_path(path)
    found = [path] if path.is_file() else [*path.glob("predictions.h5"), *path.glob("eval_*/predictions.h5")]
    if not found:
        raise FileNotFoundError(f"{path}: no predictions there; `microlens evaluate` makes predictions.h5.")
    newest_first = sorted(found, key=lambda p: p.stat().st_mtime_ns, reverse=True)
    for file in newest_first:
        _, attributes = read_predictions(file, ["row", "log_p"])
        if attributes.get("data_checksum") == checksum:
            return file
    raise ValueError(f"{path}: holds predictions of other datasets alone; `microlens evaluate` makes this one's.")


def _predictions(file) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows (n,), P(binary) (n,) and the classes called (n,) of a predictions file, those of class other at the end."""
    names = ["row", "log_p", "called"]
    arrays, attributes = read_predictions(file, names)
    parts = [[arrays[name] for name in names]]
    if attributes.get("n_other"):
        other, _ = read_predictions(file, [f"other_{name}" for name in names])
        parts.append(list(other.values()))
    rows, log_p, called = (np.concatenate(both) for both in zip(*parts, strict=True))
    return rows, np.exp(log_p[:, BINARY].astype(float)), called


def event_table(dataset, predictions=None) -> pd.DataFrame:
    """One row an event: true parameters and labels by name, and, with predictions, what was called and P(binary).

    predictions : file, evaluation folder or run folder, see find_predictions.
    """
    out = dataset.params.copy()
    names = pd.CategoricalDtype([*CLASSES, ""])

    def classes(numbers):
        return pd.Categorical.from_codes(np.asarray(numbers), dtype=names)

    out["class"], out["observable"] = classes(out["label"]), classes(out["label_observable"])
    called, p_binary = np.full(len(out), len(CLASSES)), np.full(len(out), np.nan)
    if predictions is not None:
        rows, predicted, most_probable = _predictions(find_predictions(predictions, dataset.checksum))
        p_binary[rows], called[rows] = predicted, most_probable
    out["called"], out["p_binary"] = classes(called), p_binary
    return out.rename_axis("row").reset_index()


def select(events: pd.DataFrame, *, kind="any", observable="any", called="any", mistakes=False, ranges=None,
           query="", sort="row", descending=False) -> pd.DataFrame:
    """The events that pass the filters, sorted.

    ranges : {column: (low, high)}, None = no limit.   query : a pandas expression, e.g. 'q < 1e-3 and m_base < 21'.
    Raises ValueError naming what is wrong with the query.
    """
    keep = np.ones(len(events), dtype=bool)
    for column, wanted in (("class", kind), ("observable", observable), ("called", called)):
        if wanted != "any":
            keep &= (events[column] == wanted).to_numpy()
    if mistakes:
        keep &= ((events["called"] != "") & (events["called"] != events["observable"])).to_numpy()
    for name, (low, high) in (ranges or {}).items():
        if low is not None:
            keep &= (events[name] >= low).to_numpy()
        if high is not None:
            keep &= (events[name] <= high).to_numpy()
    out = events[keep]
    if query.strip():
        in_backticks = re.sub(r"(?<![`'\"\w.])class(?![`'\"\w])", "`class`", query)  # a word of Python's
        try:
            out = out.query(in_backticks)
        except Exception as error:  # pandas raises whatever the expression provokes
            raise ValueError(f"the filter {query!r} is no expression of columns ({error}).") from error
    return out.sort_values(sort, ascending=not descending, kind="stable")


def cells(events: pd.DataFrame) -> list[list[str]]:
    """Rows as the table shows them."""
    def word(value):
        if isinstance(value, float):
            return "" if np.isnan(value) else f"{value:.4g}"
        return str(value)

    return [[word(e[c]) for c in COLUMNS] for e in events[COLUMNS].to_dict("records")]
