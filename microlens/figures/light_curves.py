"""Figures of light curves that came as files, and of what the network says of them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from microlens.config import CLASSES
from microlens.figures.scores import draw_confusion
from microlens.figures.style import COLOURS, COLUMN, MARKERS, PAGE, figure, subplots
from microlens.fit import fit_single_lens, single_lens_model, smooth_error
from microlens.fit.points import epochs_to_draw

PER_PAGE = 6  # mistakes
MOST = 12  # seasons in the figure real_light_curves
DETAIL = 60  # epochs drawn on each side of the largest residual
SHORT = 8  # epochs whose summed squared residual tells where it is largest
LARGEST_DRAWN = 40  # residuals of a whole curve that are drawn in any case


def real_light_curves(seasons: list, title="light curves"):
    """Seasons as the network reads them: (name, time, flux, called, p_binary) of each; the first MOST are drawn.

    time (n,) days and flux (n,) of valid epochs; title : what they are.
    """
    parts = []
    for name, t, f, called, p in seasons[:MOST]:
        keep = epochs_to_draw(t, np.log(np.maximum(f, 1e-2)), time_steps=200, flux_steps=60)
        drawn = {"t": (t[keep] - t[0]).round(3), "flux": f[keep].round(4)}
        parts.append(pd.DataFrame({"name": name, **drawn, "called": called, "p_binary": round(p, 4)}))
    said = f"{len(parts)} of n = {len(seasons)} seasons, with the class called and P(binary)"
    return pd.concat(parts), f"{title}: {said}."


@figure
def draw_real_light_curves(table):
    groups = list(table.groupby("name", sort=False))
    rows = -(-len(groups) // 3)
    fig, axes = subplots(rows, 3, size=(PAGE, 0.4 + 1.6 * rows), squeeze=False)
    for ax in axes.flat[len(groups) :]:
        ax.set_visible(False)
    for ax, (name, t) in zip(axes.flat, groups, strict=False):
        called = t["called"].iloc[0]
        ax.plot(t["t"], t["flux"], MARKERS[called], ms=1.2, color=COLOURS[called], rasterized=True)
        ax.set_title(f"{name}\n{called}, P(binary) = {t['p_binary'].iloc[0]:.3f}", fontsize=7)
    for ax in axes.flat[max(len(groups) - 3, 0) : len(groups)]:
        ax.set_xlabel("time since the first epoch (d)")
    for ax in axes[:, 0]:
        ax.set_ylabel("flux / baseline")
    return fig


def mistakes(wrong: list, page=0, title="Wrong calls"):
    """Light curves called wrongly, PER_PAGE a page: each with its best single lens, whole and at the largest residual.

    wrong : (name, time, flux, flux_err, called, p_binary) of each, valid epochs only, days and F/F_base.
    """
    parts, here = [], wrong[page * PER_PAGE : (page + 1) * PER_PAGE]
    for name, t, flux, error, called, p in here:
        t, flux, sigma = np.asarray(t, float) - t[0], np.asarray(flux, float), smooth_error(error)
        model = single_lens_model(t, fit_single_lens(t, flux, sigma, finite_source=True))
        z = (flux - model) / sigma
        at = int(np.argmax(np.convolve(z**2, np.ones(min(SHORT, len(z))), "same")))
        near = np.arange(max(at - DETAIL, 0), min(at + DETAIL, len(t)))
        every = np.arange(0, len(t), max(1, len(t) // 700))
        every = np.unique(np.append(every, np.argsort(-np.abs(z))[:LARGEST_DRAWN]))
        for panel, i in (("curve", every), ("detail", near)):
            parts.append(pd.DataFrame({"name": name, "panel": panel, "t": t[i], "flux": flux[i], "model": model[i],
                                       "sigma": sigma[i], "called": called, "p_binary": p}))
    first = page * PER_PAGE + 1
    return pd.concat(parts), (
        f"{title}, {first} to {first + len(here) - 1} of n = {len(wrong)}: the light curve with its best single lens "
        "(line), and the epochs around the largest residual; the class called and P(binary) above.")


@figure
def draw_mistakes(table):
    groups = list(table.groupby("name", sort=False))
    size = (PAGE, 0.4 + 1.25 * len(groups))
    fig, axes = subplots(len(groups), 2, size=size, squeeze=False, width_ratios=(3, 2))
    for (a, b), (name, t) in zip(axes, groups, strict=True):
        called = t["called"].iloc[0]
        for ax, panel in ((a, "curve"), (b, "detail")):
            d = t[t["panel"] == panel]
            if panel == "detail":
                ax.errorbar(d["t"], d["flux"], d["sigma"], fmt="none", ecolor="0.75", elinewidth=0.5)
            ax.plot(d["t"], d["flux"], MARKERS[called], ms=1.3, color=COLOURS[called], rasterized=True)
            ax.plot(d["t"], d["model"], "-", color="0.15", lw=0.7)
        a.set_title(f"{name}: called {called}, P(binary) = {t['p_binary'].iloc[0]:.3f}", fontsize=7, loc="left")
        a.set_ylabel("flux / baseline", fontsize=7)
    for ax in axes[-1]:
        ax.set_xlabel("time (d)")
    return fig


def sets(counts: dict):
    """Confusion of seasons of several sets of light-curve files: {set: (3, 3) counts, truth by called}."""
    table = pd.DataFrame([{"set": name, "truth": a, "called": b, "n": int(np.asarray(c)[i, j])}
                          for name, c in counts.items() for i, a in enumerate(CLASSES) for j, b in enumerate(CLASSES)])
    return table, (
        f"Seasons of other people's light curves, n = {table['n'].sum()}: truth against class called, for each set; a "
        "class without a season has an empty row.")


@figure
def draw_sets(table):
    groups = list(table.groupby("set", sort=False))
    size = (max(COLUMN, min(PAGE, 2.3 * len(groups))), 2.4)
    fig, axes = subplots(1, len(groups), size=size, squeeze=False, sharey=True)
    for ax, (name, t) in zip(axes[0], groups, strict=True):
        counts = t["n"].to_numpy().reshape(len(CLASSES), len(CLASSES))
        draw_confusion(ax, counts)
        ax.set(title=f"{name} (n = {counts.sum()})", xlabel="called")
    axes[0, 0].set_ylabel("truth")
    return fig
