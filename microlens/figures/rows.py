"""Shares in rows: classes, conditions that a network may not know, the table of the sky, sub-classes of class other.

All have one form of table, a line for each point: row, series, panel, share, share_low, share_high, n.
"""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from microlens.config import LENSING_CLASSES
from microlens.evaluate import metrics
from microlens.figures import style
from microlens.figures.variables import SUBCLASS_NAMES

ROW, POINT = 0.17, 0.07  # inches: least height of a row, and of one of its series
TALLEST = 9.4  # inches: of a page with its caption
HALF_ROW = 0.4  # of the rows' distance: where the outermost series of a row lie
SHARE = re.compile(r"([\d.]+) \[([\d.]+), ([\d.]+)\]")  # a share with its interval in a table of benchmarks/sky.py
FROZEN = "each network at its own threshold, frozen on its validation events"


def share_of(row: str, series: str, panel: str, k: int, n: int) -> dict:
    """A line of a table of this module: k of n."""
    found = metrics.share(k, n)
    return dict(zip(COLUMNS, (row, series, panel, found["value"], *found["interval_95"], n), strict=True))


COLUMNS = ("row", "series", "panel", "share", "share_low", "share_high", "n")


def draw_rows(table, panels: dict, width: float = style.PAGE):
    """One panel beside the other, their rows in line; series differ in marker and colour.

    panels : {name in the table: (label, whether 1 - share is drawn)}.
    """
    rows, series = list(table["row"].unique()), list(table["series"].unique())
    height = min(0.9 + max(ROW, POINT * len(series)) * len(rows), TALLEST)
    fig, axes = style.subplots(1, len(panels), size=(width, height), sharey=True)
    offsets = np.linspace(-HALF_ROW, HALF_ROW, len(series) + 2)[1:-1]
    for ax, (panel, (label, distant)) in zip(axes, panels.items(), strict=True):
        part = table[(table["panel"] == panel) & table["share"].notna()]
        shares = part[["share", "share_low", "share_high"]]
        lowest = style.share_axis(ax.xaxis, 1 - shares if distant else shares)
        for k in range(0, len(rows), 2):
            ax.axhspan(k - 0.5, k + 0.5, color="0.95", lw=0)
        for i, name in enumerate(series):
            t = part[part["series"] == name]
            style.draw_shares(ax, t["row"].map(rows.index) + offsets[i], t, "share", lowest, sideways=True,
                              from_one=distant, fmt=style.SERIES_MARKERS[i], color=f"C{i}",
                              mfc="white" if i % 2 else f"C{i}", label=style.typeset(name))
        ax.set(xlabel=label)
    axes[0].set_yticks(range(len(rows)), [style.typeset(row) for row in rows])
    axes[0].set_ylim(len(rows) - 0.5, -0.5)
    style.legend_above(fig, axes[0], ncols=min(len(series), 3))
    return fig


def per_class_metrics(summaries: dict):
    """Precision and recall of each class for {label policy: metrics.summary}."""
    lines = []
    for policy, summary in summaries.items():
        counts = np.array(summary["confusion"])
        for i, c in enumerate(LENSING_CLASSES):
            for name, of in (("precision", counts[:, i]), ("recall", counts[i])):
                lines.append(share_of(style.NAMES[c], name, policy, int(counts[i, i]), int(of.sum())))
    n = next(iter(summaries.values()))["n"]
    return pd.DataFrame(lines), (
        f"What each class lacks to a precision and a recall of 1, against simulated and observable labels, n = {n}; "
        f"{style.BARS}.")


@style.figure
def draw_per_class_metrics(table):
    panels = {policy: (style.from_one(f"score\n{policy} labels"), True) for policy in table["panel"].unique()}
    return draw_rows(table, panels, style.COLUMN)


def robustness(conditions: dict):
    """Scores under shifted conditions: {name: (shifted, evaluation summary)}, the first as trained."""
    lines = []
    for name, (_, summary) in conditions.items():
        n_of = {c: summary["simulated_labels"]["per_class"][c]["n"] for c in ("flat", "pspl")}
        n_seen = summary["at_threshold"]["n_observable"]
        for series, key in (("frozen threshold", "at_threshold"), ("most probable class", "most_probable_class")):
            score = summary[key]
            false = sum(round((score[f"false_alarms_{c}"] or 0) * n) for c, n in n_of.items())
            found = round((score["completeness_observable"] or 0) * n_seen)
            lines += [share_of(name, series, "completeness", found, n_seen),
                      share_of(name, series, "false alarms", false, sum(n_of.values()))]
    summaries = [summary for _, summary in conditions.values()]
    n = min(summary["n"] for summary in summaries)
    return pd.DataFrame(lines), (
        "Observable binaries that are missed, and flats and single lenses that are called binary, under shifted "
        f"conditions, n >= {n} events each, the first as trained. Network {summaries[0]['run']}; operating points: the "
        f"threshold frozen on validation events, and the most probable class; {style.BARS}.")


@style.figure
def draw_robustness(table):
    return draw_rows(table, {"completeness": (style.from_one("completeness of observable binaries"), True),
                             "false alarms": ("flats and single lenses called binary", False)})


def _parsed(table, row: str, panels: dict) -> pd.DataFrame:
    """The table of this module from one of benchmarks/sky.py.

    row : column of the names.   panels : {column of a share: column of its n, or None}.
    """
    lines = []
    for line in table.to_dict("records"):
        for panel, n in panels.items():
            found = SHARE.fullmatch(str(line[panel]))
            values = map(float, found.groups()) if found else (np.nan,) * 3
            lines.append(dict(zip(COLUMNS, (line[row], line["method"], panel, *values, line.get(n)), strict=True)))
    return pd.DataFrame(lines)


SKY = {"completeness": (style.from_one("completeness of\nobservable binaries"), True),
       "single_lenses_called_binary": ("single lenses\ncalled binary", False),
       "flats_called_binary": ("flats\ncalled binary", False)}


def _range(n) -> str:
    """The range of some numbers of events in words."""
    return f"{n.min():.0f}" if n.min() == n.max() else f"{n.min():.0f} to {n.max():.0f}"


def sky_conditions(path):
    """The table of the sky: what each method makes of binaries, single lenses and flats under each condition.

    path : of conditions.csv as `make sky` writes it.
    """
    read = pd.read_csv(path)
    table = _parsed(read, "condition", dict(zip(SKY, ("n_binary", "n_pspl", "n_flat"), strict=True)))
    return table, (
        "Observable binaries that are missed, and single lenses and flats that are called binary, under each condition "
        "(lenses of preset roman under white noise, but for what the condition says). Networks: "
        f"{', '.join(style.typeset(name) for name in read['method'].unique())}; operating point: {FROZEN}. n = "
        f"{_range(read['n_pspl'])} single lenses, {_range(read['n_flat'])} flats and {_range(read['n_binary'])} "
        f"observable binaries a condition; {style.BARS}.")


@style.figure
def draw_sky_conditions(table):
    return draw_rows(table, SKY)


OTHERS = {"called_binary": ("all stars:\ncalled binary", False),
          "observable_called_other": ("observable stars:\nnot called other", True)}


def sky_others(path):
    """How often each sub-class of class other is called binary, and other where its variation can be seen.

    path : of others.csv as `make sky` writes it.
    """
    read = pd.read_csv(path)
    read["name"] = [f"{SUBCLASS_NAMES[kind]} ({n})" for kind, n in zip(read["subclass"], read["n"], strict=True)]
    table = _parsed(read, "name", {"called_binary": "n", "observable_called_other": None})
    return table, (
        "Sub-classes of class other, of preset sky: the share that is called binary, and the share of those with an "
        "observable variation that is not called other (a network of three classes has no such answer). Networks: "
        f"{', '.join(read['method'].unique())}; operating points: called binary, {FROZEN}; called other, the most "
        f"probable class. n = {_range(read['n'])} a sub-class, in brackets; {style.BARS}.")


@style.figure
def draw_sky_others(table):
    return draw_rows(table, OTHERS)
