"""A plotly panel that takes numbers only, its export, and drawing without queueing.

    panel = curves();  put(panel, {"light curve": xy}, "a title");  export(panel, "event.html")

Panel stands in for plotly's FigureWidget, which after each redraw sends every default it computed back to the kernel.
With nine sliders that traffic took longer than the lens. Here Python sends changed curves as bytes and the page answers
one number.
"""

from __future__ import annotations

import asyncio
import functools
import html
import re
from pathlib import Path

import anywidget
import numpy as np
import plotly.graph_objects as go
import traitlets
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from microlens.config import CLASS_COLOURS, CLASSES, LENSING_CLASSES
from microlens.explore.controls import user_path
from microlens.explore.traces import NOTHING

GREY, PALE_GREY = "#606060", "#999999"  # of data, and of critical curves
DASH = dict(zip(CLASSES, ("solid", "dash", "dashdot", "dot"), strict=True))  # classes differ in greyscale, too
TIME_AXIS = "xaxis4__title__text"  # the lowest of the three linked time axes, for `put`
# "Share chart" uploads the data to a server of plotly's; selecting points does nothing here.
CONFIG = {"displaylogo": False, "modeBarButtonsToRemove": ["sendChartToCloud", "select2d", "lasso2d"]}
IMAGE_WIDTH = 1100  # pixels of an exported image


@functools.cache
def _script() -> str:
    own = Path(__file__).with_name("panels.js").read_text()
    return f"const loadPlotly = () => {{ {get_plotlyjs()}\n return globalThis.Plotly; }};\n{own}"


class Panel(anywidget.AnyWidget):
    """A figure in the notebook: layout and traces without their data, and one (m, 2) array a trace.

    fig : plotly figure whose traces have names.   `arrays` is what is drawn, by name; `put` changes it.
    """

    figure = traitlets.Dict().tag(sync=True)
    config = traitlets.Dict(CONFIG).tag(sync=True)
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
    change = {k.replace("__", "."): v for k, v in layout.items()}
    if title is not None:
        change["title.text"] = title
    with panel.hold_sync():
        for i, name in enumerate(panel.names):
            if name in arrays:
                panel.arrays[name] = np.asarray(arrays[name], dtype=float)
                setattr(panel, f"curve_{i}", panel.arrays[name].T.tobytes())
        panel.pale = [panel.names.index(name) for name in pale if name in panel.names]
        panel.layout_change = {**panel.layout_change, **change}
        panel.serial += 1


def export(panel: Panel, path) -> Path:
    """Save the view as .html (stands alone, works offline), .png, .pdf or .svg.

    Raises ValueError for another ending, FileNotFoundError for a folder that is not there, and RuntimeError, saying
    what to install, where there is no browser to draw with.
    """
    path, fig = user_path(path), panel.still()
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent}: no such folder.")
    if path.suffix == ".html":
        title = html.escape(re.sub("<[^>]*>", "", fig.layout.title.text or path.stem))
        page = fig.to_html(include_plotlyjs=True, config=CONFIG)
        path.write_text(page.replace("<head>", f"<head><title>{title}</title>", 1))
    elif path.suffix in (".png", ".pdf", ".svg"):
        try:
            fig.write_image(path, width=IMAGE_WIDTH, height=fig.layout.height)
        except Exception as error:  # kaleido raises whatever its browser does
            cause = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
            raise RuntimeError(f"{path.name} was not made: images need kaleido and a Chrome or Chromium (Debian: "
                               f"apt-get install chromium); .html needs neither. ({cause})") from error
    else:
        raise ValueError(f"{path.name}: unknown ending; save as .html, .png, .pdf, .svg or .yaml.")
    return path


def curves(network=None, height=600) -> Panel:
    """Empty linked panels: lens plane left; light curve, residual and probabilities on one time axis right.

    network : whose probabilities are to be drawn; it says of which classes. Unset means the three of lensing.
    """
    fig = make_subplots(rows=3, cols=2, column_widths=[0.38, 0.62], row_heights=[0.5, 0.25, 0.25],
                        vertical_spacing=0.04, horizontal_spacing=0.09,
                        specs=[[{"rowspan": 3}, {}], [None, {}], [None, {}]])
    _add_plane(fig)
    right = {"col": 2}
    dots = {"mode": "markers", "marker": {"color": GREY, "size": 3}}
    fig.add_scatter(name="light curve", **dots, row=1, **right)
    fig.add_scatter(name="best single lens", mode="lines", line={"color": CLASS_COLOURS["pspl"]}, row=1, **right)
    fig.add_scatter(name="residual", **dots, showlegend=False, row=2, **right)
    for c in CLASSES[: len(LENSING_CLASSES) if network is None else network.n_classes]:
        fig.add_scatter(name=f"P({c})", mode="lines", line={"color": CLASS_COLOURS[c], "dash": DASH[c]}, row=3, **right)
    fig.update_yaxes(title_text="flux / baseline", type="log", nticks=5, row=1, **right)
    fig.update_yaxes(title_text="residual (sigma)", row=2, **right)
    fig.update_yaxes(title_text="probability", range=[-0.03, 1.03], row=3, **right)
    fig.update_xaxes(showticklabels=False, row=1, **right)
    fig.update_xaxes(matches="x2", showticklabels=False, row=2, **right)
    fig.update_xaxes(matches="x2", title_text="time (d)", row=3, **right)
    # The legend hangs at the lower edge of the figure, below the axis titles, however many lines it takes.
    plain(fig, height=height, margin={"t": 60, "b": 110, "l": 60, "r": 10}, title={"font": {"size": 14}, "x": 0.02},
          legend={"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "font": {"size": 11}})
    return Panel(fig)


def _add_plane(fig: go.Figure):
    """The traces and axes of the lens plane, in the first panel."""
    place = {"row": 1, "col": 1}
    folds, source = CLASS_COLOURS["binary"], CLASS_COLOURS["pspl"]
    fig.add_scatter(name="caustics", mode="lines", line={"color": folds, "width": 1.5}, **place)
    fig.add_scatter(name="critical curves", mode="lines", line={"color": PALE_GREY, "width": 1, "dash": "dot"}, **place)
    fig.add_scatter(name="lenses", mode="markers", marker={"color": "black", "size": [10, 7]}, **place)
    fig.add_scatter(name="trajectory", mode="lines", line={"color": source, "width": 1}, **place)
    fig.add_scatter(name="direction", mode="markers", showlegend=False, **place,
                    marker={"symbol": "arrow", "angleref": "previous", "size": [0, 14], "color": source})
    fig.add_scatter(name="source", mode="lines", line={"color": source, "width": 1}, fill="toself", **place)
    # Axes of one scale keep their ranges at every size of the figure; their panel becomes smaller instead.
    fig.update_xaxes(title_text="x (Einstein radii)", constrain="domain", **place)
    fig.update_yaxes(title_text="y (Einstein radii)", constrain="domain", scaleanchor="x", **place)


def plain(fig, **layout):
    """White ground and faint grids by hand: plotly's templates and its measuring of labels cost a third of a redraw."""
    axis = {"gridcolor": "#e5e9f0", "zeroline": False, "ticklabeloverflow": "allow", "automargin": False}
    fig.update_xaxes(axis)
    fig.update_yaxes(axis)
    return fig.update_layout(template=None, plot_bgcolor="white", font={"size": 11}, **layout)


class Drawing:
    """Draws the newest of many changes on a panel, and then, where nothing newer waits, what may come later.

    work, later : functions that put something on the panel; `later` is called when the page has drawn what `work` put.
    patience : seconds to wait for a page that does not answer.   Without an event loop both run at once.
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
