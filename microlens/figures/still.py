"""The picture that stands for an explorer where no kernel runs: in executed notebooks and in the pages made of them."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.figure import Figure

from microlens.config import CLASS_COLOURS, CLASSES

LINES = {"caustics": "#d55e00", "critical curves": "#999999", "trajectory": "#0072b2", "source": "#0072b2"}
SIZE, RESOLUTION = (9.0, 4.6), 90  # inches, and dots an inch


def explorer_picture(arrays: dict, title: str, ticks: dict) -> bytes:
    """The panels of an explorer as PNG: lens plane, light curve, residual and probabilities.

    arrays : {trace name: (m, 2 or more)}, of panels.curves().   ticks : the layout of its axes as panels.put has it.
    """
    fig = Figure(figsize=SIZE, layout="constrained")
    axes = fig.subplot_mosaic([["plane", "flux"], ["plane", "flux"], ["plane", "residual"], ["plane", "p"]],
                              width_ratios=[0.38, 0.62])
    fig.suptitle(title, fontsize=9)

    def draw(axis, name, style, colour):
        values = arrays.get(name, np.empty((0, 2)))
        axis.plot(values[:, 0], values[:, 1], style, color=colour, markersize=1.5, linewidth=1)

    for name, colour in LINES.items():
        draw(axes["plane"], name, "-", colour)
    draw(axes["plane"], "lenses", "o", "black")
    for axis, key in (("x", "xaxis.range"), ("y", "yaxis.range")):
        if key in ticks:
            axes["plane"].set(**{f"{axis}lim": ticks[key]})
    axes["plane"].set(aspect="equal", xlabel="x (Einstein radii)", ylabel="y (Einstein radii)")
    draw(axes["flux"], "light curve", ".", "#606060")
    draw(axes["flux"], "best single lens", "-", CLASS_COLOURS["pspl"])
    draw(axes["residual"], "residual", ".", "#606060")
    for c in CLASSES:
        draw(axes["p"], f"P({c})", "-", CLASS_COLOURS[c])
    axes["flux"].set(yscale="log", ylabel=ticks.get("yaxis2.title.text", "flux"))
    axes["flux"].set_yticks(ticks.get("yaxis2.tickvals", []), ticks.get("yaxis2.ticktext", []), minor=False)
    axes["flux"].set_yticks([], minor=True)
    limits = axes["residual"].get_ylim()
    axes["residual"].set_yticks(ticks.get("yaxis3.tickvals", []), ticks.get("yaxis3.ticktext", []))
    axes["residual"].set(ylabel="residual (sigma)", ylim=limits)
    axes["residual"].sharex(axes["flux"])
    axes["p"].sharex(axes["flux"])
    axes["p"].set(ylim=(-0.03, 1.03), ylabel="probability", xlabel=ticks.get("xaxis4.title.text", "time (d)"))
    for axis in axes.values():
        axis.tick_params(labelsize=7)
        axis.xaxis.label.set_size(8)
        axis.yaxis.label.set_size(8)
    out = io.BytesIO()
    fig.savefig(out, format="png", dpi=RESOLUTION)
    return out.getvalue()
