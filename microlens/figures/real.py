"""Figures of light curves that came as files: what the network says of them, and how it does on a folder with known classes."""

from __future__ import annotations

import numpy as np
import pandas as pd

from microlens import metrics
from microlens.config import CLASSES
from microlens.figures.style import COLOURS, MARKERS, PAGE, figure, subplots
from microlens.thinning import thin


def real_light_curves(seasons: list, title="light curves"):
    """Seasons as the network reads them: a list of (name, time, flux, called, p_binary), at most 12."""
    parts = []
    for name, t, f, called, p in seasons[:12]:
        keep = thin(t, np.log(np.maximum(f, 1e-2)), time_steps=200, flux_steps=60)
        at = (t[keep] - t[0]).round(3)
        parts.append(pd.DataFrame({"name": name, "t": at, "flux": f[keep].round(4), "called": called, "p_binary": round(p, 4)}))
    return pd.concat(parts), f"{title}: {len(parts)} of n = {len(seasons)} seasons, with the class called and P(binary)."


@figure
def draw_real_light_curves(table):
    groups = list(table.groupby("name", sort=False))
    rows = -(-len(groups) // 3)
    fig, axes = subplots(rows, 3, size=(PAGE, 0.4 + 1.6 * rows), squeeze=False)
    for ax in axes.flat[len(groups):]:
        ax.set_visible(False)
    for ax, (name, t) in zip(axes.flat, groups, strict=False):
        called = t["called"].iloc[0]
        ax.plot(t["t"], t["flux"], MARKERS[called], ms=1.2, color=COLOURS[called], rasterized=True)
        ax.set_title(f"{name}\n{called}, P(binary) = {t['p_binary'].iloc[0]:.3f}", fontsize=7)
    for ax in axes.flat[max(len(groups) - 3, 0): len(groups)]:
        ax.set_xlabel("time since the first epoch (d)")
    for ax in axes[:, 0]:
        ax.set_ylabel("flux / baseline")
    return fig


def light_curve_scores(summary: dict):
    """Seasons by true and called class for each set of files; summary : of `evaluate --light-curves` (evaluation_summary.json)."""
    rows = []
    for name, one in summary["sets"].items():
        for truth, counts in zip(CLASSES, one["confusion"], strict=True):
            low, high = metrics.binomial_interval(np.array(counts), max(sum(counts), 1), 0.95)
            rows += [{"set": name, "truth": truth, "called": c, "n": k, "n_truth": sum(counts), "low": a, "high": b,
                      "share_sparse": one["share_sparse"]} for c, k, a, b in zip(CLASSES, counts, low, high, strict=True)]
    n = sum(one["n_seasons"] for one in summary["sets"].values())
    return pd.DataFrame(rows), (f"Light curves that were not simulated here, n = {n} seasons: share of each true class (rows) by the "
                                f"class called, run {summary['run']}; numbers count seasons. 'sparse' is the share with a cadence "
                                "that the network does not know.")


@figure
def draw_light_curve_scores(table):
    names = table["set"].unique()
    fig, axes = subplots(1, len(names), size=(PAGE, 1.9), squeeze=False, sharey=True)
    for ax, name in zip(axes[0], names, strict=True):
        part, left = table[table["set"] == name], np.zeros(3)
        for i, c in enumerate(CLASSES):
            t = part[part["called"] == c]
            share = (t["n"] / t["n_truth"].clip(lower=1)).to_numpy()
            ax.barh(range(3), share, left=left, color=COLOURS[c], hatch=("", "///", "...")[i], edgecolor="k", lw=0.4,
                    label=f"called {c}")
            for y, (k, w, x) in enumerate(zip(t["n"], share, left, strict=True)):
                if w > 0.08:
                    ax.text(x + w / 2, y, int(k), ha="center", va="center", fontsize=7, bbox={"fc": "w", "ec": "none", "pad": 1})
            left += share
        n = part.drop_duplicates("truth")["n_truth"]
        ax.set_yticks(range(3), CLASSES)
        ax.invert_yaxis()
        ax.set(title=f"{name}, n = {n.sum()}\nsparse: {part['share_sparse'].iloc[0]:.0%}", xlabel="share of the true class",
               xlim=(0, 1))
    axes[0, 0].set_ylabel("truth")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return fig
