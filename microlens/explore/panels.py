"""What the explorers share: panel layout, export, and running a callback without queueing up."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from microlens.config import CLASSES
from microlens.magnification import caustics, critical_curves

COLOUR = {"flat": "#0072B2", "pspl": "#E69F00", "binary": "#CC79A7", "data": "#606060", "caustic": "#CC79A7", "critical": "#999999",
          "source": "#0072B2"}
DASH = {"flat": "solid", "pspl": "dash", "binary": "dashdot"}
TRACES = ("caustics", "critical curves", "lenses", "trajectory", "direction", "source", "light curve", "best single lens", "residual",
          *(f"P({c})" for c in CLASSES))


def joined(curves) -> np.ndarray:
    """Closed curves as one (m, 2) array with gaps of NaN between them."""
    return np.vstack([np.vstack([c, [np.nan, np.nan]]) for c in curves]) if curves else np.empty((0, 2))


def lens_plane(params: dict, t_first: float, t_last: float) -> dict:
    """Arrays of the lens plane of a 2L1S event: caustics, critical curves, lenses, trajectory, source disc at its closest approach."""
    s, q, rho, u_0, alpha = (params[k] for k in ("s", "q", "rho", "u_0", "alpha"))
    tau = np.linspace(max((t_first - params["t_0"]) / params["t_E"], -4), min((t_last - params["t_0"]) / params["t_E"], 4), 81)
    c, d = np.cos(alpha), np.sin(alpha)
    path = np.column_stack([tau * c - u_0 * d, tau * d + u_0 * c])
    phase = np.linspace(0, 2 * np.pi, 49)
    disc = np.column_stack([-u_0 * d + rho * np.cos(phase), u_0 * c + rho * np.sin(phase)])
    return {"caustics": joined(caustics(s, q)), "critical curves": joined(critical_curves(s, q)),
            "lenses": np.array([[-q * s / (1 + q), 0.0], [s / (1 + q), 0.0]]), "trajectory": path, "direction": path[[50, 54]],
            "source": disc}


def figure(height=620) -> go.FigureWidget:
    """Empty linked panels: lens plane left; light curve, residual and probabilities on one time axis right."""
    fig = make_subplots(rows=3, cols=2, column_widths=[0.38, 0.62], row_heights=[0.5, 0.25, 0.25], vertical_spacing=0.04,
                        horizontal_spacing=0.09, specs=[[{"rowspan": 3}, {}], [None, {}], [None, {}]])
    line = {"mode": "lines"}
    add = fig.add_scatter
    add(name="caustics", line={"color": COLOUR["caustic"], "width": 1.5}, row=1, col=1, **line)
    add(name="critical curves", line={"color": COLOUR["critical"], "width": 1, "dash": "dot"}, row=1, col=1, **line)
    add(name="lenses", mode="markers", marker={"color": "black", "size": [10, 7]}, row=1, col=1)
    add(name="trajectory", line={"color": COLOUR["source"], "width": 1}, row=1, col=1, **line)
    add(name="direction", mode="markers", row=1, col=1, showlegend=False,
        marker={"symbol": "arrow", "angleref": "previous", "size": [0, 14], "color": COLOUR["source"]})
    add(name="source", line={"color": COLOUR["source"], "width": 1}, fill="toself", row=1, col=1, **line)
    add(name="light curve", mode="markers", marker={"color": COLOUR["data"], "size": 3}, row=1, col=2)
    add(name="best single lens", line={"color": COLOUR["pspl"]}, row=1, col=2, **line)
    add(name="residual", mode="markers", marker={"color": COLOUR["data"], "size": 3}, showlegend=False, row=2, col=2)
    for c in CLASSES:
        add(name=f"P({c})", line={"color": COLOUR[c], "dash": DASH[c]}, row=3, col=2, **line)
    fig.update_xaxes(title_text="x (Einstein radii)", row=1, col=1)
    fig.update_yaxes(title_text="y (Einstein radii)", scaleanchor="x", row=1, col=1)
    fig.update_yaxes(title_text="flux / baseline", type="log", row=1, col=2)
    fig.update_yaxes(title_text="residual (sigma)", row=2, col=2)
    fig.update_yaxes(title_text="probability", range=[-0.03, 1.03], row=3, col=2)
    fig.update_xaxes(matches="x2", showticklabels=False, row=1, col=2)
    fig.update_xaxes(matches="x2", showticklabels=False, row=2, col=2)
    fig.update_xaxes(matches="x2", title_text="time (d into the season)", row=3, col=2)
    fig.update_layout(height=height, width=1000, margin={"t": 70, "b": 45, "l": 60, "r": 10}, template="plotly_white",
                      legend={"orientation": "h", "y": -0.1, "font": {"size": 10}}, title={"font": {"size": 14}})
    return go.FigureWidget(fig)


def put(fig: go.FigureWidget, arrays: dict, title: str):
    """Write {trace name: (x, y) array (m, 2)} and the title into the panels in one update; a trace not named becomes empty."""
    empty = np.empty((0, 2))
    with fig.batch_update():
        for trace in fig.data:
            xy = arrays.get(trace.name, empty)
            trace.x, trace.y = xy[:, 0], xy[:, 1]
        fig.layout.title.text = title


def export(fig: go.FigureWidget, path) -> Path:
    """Save the view as .html (stands alone, works offline), .png, .pdf or .svg. ValueError for another ending."""
    path = Path(path)
    if path.suffix == ".html":
        fig.write_html(path, include_plotlyjs=True)
    elif path.suffix in (".png", ".pdf", ".svg"):
        fig.write_image(path, width=1100, height=fig.layout.height or 600)
    else:
        raise ValueError(f"{path.name}: unknown ending; save as .html, .png, .pdf or .svg.")
    return path


class Latest:
    """Run a callback for the newest of many changes: while one is being drawn, later ones wait as one."""

    def __init__(self, function):
        self.function, self.waiting, self.free_at = function, False, 0.0

    def __call__(self, *_):
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # plain Python: draw at once
            self.function()
            return
        if not self.waiting:
            self.waiting = True
            loop.call_later(max(0.0, self.free_at - time.monotonic()), self._run)

    def _run(self):
        begun = time.monotonic()
        self.waiting = False
        self.function()
        self.free_at = time.monotonic() + 0.5 * (time.monotonic() - begun)  # leave the kernel time to read what has come in
