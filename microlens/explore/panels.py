"""What the explorers share: a plotly panel that takes numbers only, the lens plane, thinning, export, and drawing without queueing.

    panel = curves();  put(panel, {"light curve": xy}, "a title");  export(panel, "event.html")

Panel stands in for plotly's FigureWidget, which after each redraw sends every default it computed back to the kernel: with nine
sliders that traffic took longer than the lens. Here Python sends changed curves as bytes and the page answers one number.
"""

from __future__ import annotations

import asyncio
import functools
from pathlib import Path

import anywidget
import numpy as np
import plotly.graph_objects as go
import traitlets
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from microlens.config import CLASSES
from microlens.lens import caustics, critical_curves

COLOUR = {"flat": "#0072B2", "pspl": "#E69F00", "binary": "#CC79A7", "data": "#606060", "caustic": "#CC79A7", "critical": "#999999",
          "source": "#0072B2"}
DASH = {"flat": "solid", "pspl": "dash", "binary": "dashdot"}
NOTHING = np.empty((0, 2))
PLANE = ("caustics", "critical curves", "lenses", "trajectory", "direction", "source")


@functools.cache
def _script() -> str:
    return f"const loadPlotly = () => {{ {get_plotlyjs()}\n return globalThis.Plotly; }};\n" + (
        Path(__file__).with_name("panels.js").read_text())


class Panel(anywidget.AnyWidget):
    """A figure in the notebook: layout and traces without their data, and one (m, 2) array a trace.

    fig : plotly figure whose traces have names.   `arrays` is what is drawn, by name; `put` changes it.
    """

    figure = traitlets.Dict().tag(sync=True)
    layout_change = traitlets.Dict().tag(sync=True)  # {"title.text": ..., "xaxis.range": ...}
    pale = traitlets.List().tag(sync=True)  # numbers of the traces that show an older state
    serial = traitlets.Int(0).tag(sync=True)

    def __init__(self, fig: go.Figure):
        self.names = [trace.name for trace in fig.data]
        self.arrays = dict.fromkeys(self.names, NOTHING)
        super().__init__(_esm=_script(), figure=fig.to_plotly_json())
        self.add_traits(**{f"curve_{i}": traitlets.Bytes(b"").tag(sync=True) for i in range(len(self.names))})
        self._listeners = []
        self.on_msg(lambda _, content, __: [f() for f in self._listeners] if "drawn" in content else None)

    def on_drawn(self, function):
        """Call a function whenever the page has drawn what was put."""
        self._listeners.append(function)

    def still(self) -> go.Figure:
        """The figure with its data, as it is drawn."""
        fig = go.Figure(self.figure)
        for trace in fig.data:
            trace.x, trace.y = self.arrays[trace.name].T
        return fig.update_layout({k.replace(".", "_"): v for k, v in self.layout_change.items()})


def put(panel: Panel, arrays: dict, title: str | None = None, pale=(), **layout):
    """Draw {trace name: (x, y) array (m, 2)}; traces not named stay, those named in `pale` are drawn pale.

    layout : changes as plotly's relayout takes them, with '__' for '.': xaxis__range=[-1, 1].
    """
    change = {k.replace("__", "."): v for k, v in layout.items()} | ({} if title is None else {"title.text": title})
    with panel.hold_sync():
        for i, name in enumerate(panel.names):
            if name in arrays:
                panel.arrays[name] = np.asarray(arrays[name], dtype=float)
                setattr(panel, f"curve_{i}", panel.arrays[name].T.tobytes())
        panel.pale = [panel.names.index(name) for name in pale]
        panel.layout_change = {**panel.layout_change, **change}
        panel.serial += 1


def export(panel: Panel, path) -> Path:
    """Save the view as .html (stands alone, works offline), .png, .pdf or .svg.

    Raises ValueError for another ending and RuntimeError, saying what to install, where there is no browser to draw with.
    """
    path, fig = Path(path), panel.still()
    if path.suffix == ".html":
        fig.write_html(path, include_plotlyjs=True)
    elif path.suffix in (".png", ".pdf", ".svg"):
        try:
            fig.write_image(path, width=1100, height=fig.layout.height or 600)
        except Exception as error:  # kaleido raises whatever its browser does
            cause = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
            raise RuntimeError(f"{path.name} was not made: images need kaleido and a Chrome or Chromium (Debian: apt-get install "
                               f"chromium); .html needs neither. ({cause})") from error
    else:
        raise ValueError(f"{path.name}: unknown ending; save as .html, .png, .pdf or .svg.")
    return path


# ---- numbers -----------------------------------------------------------------------------------------------------------------


def joined(curves) -> np.ndarray:
    """Closed curves as one (m, 2) array with gaps of NaN between them."""
    return np.vstack([np.vstack([c, [np.nan, np.nan]]) for c in curves]) if curves else NOTHING


def lens_plane(params: dict, t_first: float, t_last: float) -> dict:
    """Arrays of the lens plane of an event: caustics, critical curves, lenses, trajectory, source disc at its closest approach.

    params : a 2L1S event's; a single lens has q = NaN, and its Einstein ring, its point caustic and a horizontal trajectory are given.
    """
    s, q, rho, u_0, alpha = (params[k] for k in ("s", "q", "rho", "u_0", "alpha"))
    phase = np.linspace(0, 2 * np.pi, 121)
    ring = np.column_stack([np.cos(phase), np.sin(phase)])
    if np.isnan(q):
        alpha, lens = 0.0, {"caustics": np.zeros((1, 2)), "critical curves": ring, "lenses": np.zeros((1, 2))}
    else:
        lens = {"caustics": joined(caustics(s, q)), "critical curves": joined(critical_curves(s, q, n=120)),
                "lenses": np.array([[-q * s / (1 + q), 0.0], [s / (1 + q), 0.0]])}
    tau = np.linspace(max((t_first - params["t_0"]) / params["t_E"], -4), min((t_last - params["t_0"]) / params["t_E"], 4), 81)
    c, d = np.cos(alpha), np.sin(alpha)
    path, closest = np.column_stack([tau * c - u_0 * d, tau * d + u_0 * c]), np.array([-u_0 * d, u_0 * c])
    return {**lens, "trajectory": path, "source": closest + rho * ring[::3]}


# ---- drawing -----------------------------------------------------------------------------------------------------------------


def curves(height=580) -> Panel:
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
    fig.update_yaxes(title_text="flux / baseline", type="log", nticks=5, row=1, col=2)
    fig.update_yaxes(title_text="residual (sigma)", row=2, col=2)
    fig.update_yaxes(title_text="probability", range=[-0.03, 1.03], row=3, col=2)
    fig.update_xaxes(matches="x2", showticklabels=False, row=1, col=2)
    fig.update_xaxes(matches="x2", showticklabels=False, row=2, col=2)
    fig.update_xaxes(matches="x2", title_text="time (d)", row=3, col=2)
    plain(fig, height=height, margin={"t": 50, "b": 80, "l": 60, "r": 10},
          legend={"orientation": "h", "y": -0.17, "font": {"size": 11}}, title={"font": {"size": 14}, "x": 0.02})
    return Panel(fig)


def plain(fig, **layout):
    """White ground and faint grids by hand: plotly's templates and its measuring of labels cost a third of a redraw."""
    axis = {"gridcolor": "#e5e9f0", "zeroline": False, "ticklabeloverflow": "allow", "automargin": False}
    fig.update_xaxes(axis)
    fig.update_yaxes(axis)
    return fig.update_layout(template=None, plot_bgcolor="white", font={"size": 11}, **layout)


class Drawing:
    """Draws the newest of many changes on a panel, and what may come later once that is on the screen and nothing newer waits.

    work, later : functions that put something on the panel.   patience : seconds to wait for a page that does not answer.
    In plain Python, without an event loop, both run at once.
    """

    GRACE = 0.03  # s, in which a newer change may still come before `later`

    def __init__(self, panel: Panel, work, later=None, patience=0.5):
        self.work, self.later, self.patience = work, later, patience
        self.asked = self.owing = self.busy = False
        self.timer = None
        panel.on_drawn(self._on)

    def __call__(self, *_):
        try:
            self.loop = asyncio.get_running_loop()
        except RuntimeError:
            self.now()
            return
        self.asked = True
        if not self.busy:
            self._on()

    def now(self):
        """Draw everything at once."""
        self.asked = self.owing = False
        self.work()
        if self.later:
            self.later()

    def _on(self):
        if self.timer:
            self.timer.cancel()
            self.timer = None
        self.busy = True
        if self.asked:
            self.asked, self.owing = False, self.later is not None
            self._wait(self.patience)
            self.work()
        elif self.owing:
            self.busy = False  # a change within the grace goes first
            self.timer = self.loop.call_later(self.GRACE, self._rest)
        else:
            self.busy = False

    def _rest(self):
        self.timer = None
        if self.owing and not self.asked:
            self.busy, self.owing = True, False
            self._wait(self.patience)
            self.later()

    def _wait(self, seconds):
        self.timer = self.loop.call_later(seconds, self._on)
