"""Figures of light curves that came as files, and what the network says of them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from microlens.figures.style import COLOURS, MARKERS, PAGE, figure, subplots
from microlens.fit.points import epochs_to_draw


def real_light_curves(seasons: list, title="light curves"):
    """Seasons as the network reads them: a list of (name, time, flux, called, p_binary), at most 12."""
    parts = []
    for name, t, f, called, p in seasons[:12]:
        keep = epochs_to_draw(t, np.log(np.maximum(f, 1e-2)), time_steps=200, flux_steps=60)
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
