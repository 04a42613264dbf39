"""A plotly panel that takes numbers only, its export, and drawing without queueing.

    panel = curves();  put(panel, {"light curve": xy}, "a title");  export(panel, Path("event.html"))

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
import ipywidgets as widgets
import numpy as np
import plotly.graph_objects as go
import traitlets
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from microlens.config import CLASS_COLOURS, CLASSES, LENSING_CLASSES
from microlens.explore.traces import BINNED, NOTHING
from microlens.figures.still import explorer_picture

GREY, PALE_GREY = "#606060", "#999999"  # of data, and of critical curves
DASH = dict(zip(CLASSES, ("solid", "dash", "dashdot", "dot"), strict=True))  # classes differ in greyscale, too
TIME_AXIS = "xaxis4__title__text"  # the lowest of the three linked time axes, for `put`
# "Share chart" uploads the data to a server of plotly's; selecting points does nothing here.
CONFIG = {"displaylogo": False, "modeBarButtonsToRemove": ["sendChartToCloud", "select2d", "lasso2d"]}
IMAGE_WIDTH, LEAST_IMAGE_WIDTH = 1100, 700  # pixels of an exported image where no page shows it, and at least
IMAGE_SCALE = 2  # image pixels for each of the page's
SUBTITLE_HEIGHT = 34  # pixels above a saved figure for its parameters
PLANE_COLUMN, TIME_COLUMN, WHOLE_WIDTH = [0.0, 0.36], [0.45, 1.0], [0.04, 1.0]  # domains of the panels' x axes


class Library(anywidget.AnyWidget):
    """The source text of plotly.js (4.6 MB), which all panels of a kernel share; nothing is drawn of it."""

    _esm = "export default { render() {} };"
    source = traitlets.Unicode().tag(sync=True)


@functools.cache
def _library() -> Library:
    return Library(source=get_plotlyjs())


class Panel(anywidget.AnyWidget):
    """A figure in the notebook: layout and traces without their data, and one (m, 2) array a trace.

    fig : plotly figure whose traces have names; a trace whose meta is {"columns": 3} has the numbers that its labels
    show as customdata in a third column.   `arrays` is what is drawn, by name; `put` changes it.
    `view` has the ranges of the axes that the page shows, {"xaxis.range": [0, 1]}, `width` its pixels (0: no page), and
    `zoomed` says whether the user has zoomed into the lens plane.
    """

    _esm = Path(__file__).with_name("panels.js").read_text()
    _css = Path(__file__).with_name("panels.css").read_text()
    library = traitlets.Instance(Library).tag(sync=True, **widgets.widget_serialization)
    figure = traitlets.Dict().tag(sync=True)
    config = traitlets.Dict(CONFIG).tag(sync=True)
    layout_change = traitlets.Dict().tag(sync=True)  # {"title.text": ..., "xaxis.range": ...}
    pale = traitlets.List().tag(sync=True)  # numbers of the traces that show an older state
    track = traitlets.Bytes(b"").tag(sync=True)  # time, x, y and flux of the source; see put_track
    radius = traitlets.Float(0.0).tag(sync=True)  # of the source
    still = traitlets.Unicode().tag(sync=True)  # name of the picture that this panel takes the place of
    serial = traitlets.Int(0).tag(sync=True)

    def __init__(self, fig: go.Figure, config: dict | None = None):
        self.names = [trace.name for trace in fig.data]
        self.columns = [(trace.meta or {}).get("columns", 2) for trace in fig.data]
        self.arrays = dict.fromkeys(self.names, NOTHING)
        self.view, self.width, self.zoomed = {}, 0, False
        super().__init__(library=_library(), figure=fig.to_plotly_json(), config=CONFIG | (config or {}))
        self.add_traits(**{f"curve_{i}": traitlets.Bytes(b"").tag(sync=True) for i in range(len(self.names))})
        self._listeners = {"drawn": [], "view": [], "selected": [], "clicked": []}
        self.on_msg(lambda _, content, __: self._hear(content))

    def _hear(self, content: dict):
        """What the page reports."""
        if "view" in content:
            self.view, self.width, self.zoomed = content["view"], content["width"], content["zoomed"]
        for name in content:
            for function in self._listeners.get(name, ()):
                function(content[name])

    def on(self, event: str, function):
        """Call a function with what the page reports: 'drawn' (a number) whenever it has drawn what was put, 'view'
        (ranges by axis) after a zoom, 'selected' ({"x": [low, high], "y": ...} or None), 'clicked' ([trace, point])."""
        self._listeners[event].append(function)

    def window(self) -> tuple[float, float] | None:
        """The times to which the user has zoomed; None where the whole season is shown."""
        shown = self.view.get("xaxis2.range")
        return (min(shown), max(shown)) if shown else None

    def go(self, **ranges):
        """Zoom as a user would: go(xaxis2__range=[30, 40]), or go(xaxis2__autorange=True) for the whole season."""
        change = {k.replace("__", "."): v for k, v in ranges.items()}
        for key, value in change.items():
            axis, _, what = key.partition(".")
            self.view.pop(f"{axis}.range", None)
            if what == "range":
                self.view[key] = value
        self.send({"relayout": change})

    def follow(self, change: dict):
        """Know what the page will show after a change of the layout."""
        before, after = self.layout_change.get("meta", {}), change.get("meta", {})
        self.zoomed &= before.get("plane") == after.get("plane", before.get("plane"))
        if not self.zoomed:
            self.view |= {key: change[key] for key in ("xaxis.range", "yaxis.range") if key in change}
        if before.get("event") != after.get("event", before.get("event")):
            for axis in ("xaxis2", "xaxis3", "xaxis4", "yaxis2", "yaxis3"):
                self.view.pop(f"{axis}.range", None)

    def picture(self) -> bytes:
        """What is drawn as PNG, without a browser."""
        title = html.unescape(re.sub("<[^>]*>", "", self.layout_change.get("title.text", "")))
        return explorer_picture(self.arrays, title, self.layout_change)

    def figure_now(self, arrays: dict | None = None, subtitle: str = "") -> go.Figure:
        """The figure with its data as the page shows it.

        arrays : by the name of a trace, in place of what is drawn.   subtitle : a line below the title.
        """
        fig, arrays = go.Figure(self.figure), self.arrays | (arrays or {})
        for trace, columns in zip(fig.data, self.columns, strict=True):
            values = arrays[trace.name]
            trace.x, trace.y = values[:, 0], values[:, 1]
            if columns > 2 and values.shape[1] > 2:
                trace.customdata = values[:, 2]
        fig.update_layout({k.replace(".", "_"): v for k, v in (self.layout_change | self.view).items()})
        if subtitle:
            fig.update_layout(title_subtitle_text=subtitle, title_subtitle_font_size=11,
                              margin_t=fig.layout.margin.t + SUBTITLE_HEIGHT,
                              height=fig.layout.height + SUBTITLE_HEIGHT)
        return fig


def put(panel: Panel, arrays: dict, title: str | None = None, pale: tuple | None = (), **layout):
    """Draw {trace name: array (m, 2)}, x and y; traces not named stay.

    pale : names of the traces that are drawn pale; None: those that are pale now.
    layout : changes as plotly's relayout takes them, with '__' for '.': xaxis__range=[-1, 1]. With meta={"plane": ...,
    "event": ...} a zoom of the user's stays as long as the same plane and the same event are shown.
    """
    change = {k.replace("__", "."): v for k, v in layout.items()}
    if title is not None:
        change["title.text"] = title
    panel.follow(change)
    with panel.hold_sync():
        for i, name in enumerate(panel.names):
            if name in arrays:
                panel.arrays[name] = np.asarray(arrays[name], dtype=float)
                setattr(panel, f"curve_{i}", panel.arrays[name].T.tobytes())
        if pale is not None:
            panel.pale = [panel.names.index(name) for name in pale if name in panel.names]
        panel.layout_change = {**panel.layout_change, **change}
        panel.serial += 1


def put_track(panel: Panel, track, radius: float = 0.0):
    """Let the source follow the time: track (k, 4) days, x and y in Einstein radii, flux; empty: there is none.

    radius : of the source, Einstein radii.
    """
    panel.radius, panel.track = float(radius), np.asarray(track, dtype=float).T.tobytes()


def export(panel: Panel, path: Path, subtitle: str = "", everything: dict | None = None) -> Path:
    """Save the view as .html (stands alone, works offline), .png, .pdf or .svg: ranges and width are the page's.

    subtitle : a line below the title.   everything : arrays with all epochs, for .html, which can be zoomed.
    Raises ValueError for another ending, FileNotFoundError for a folder that is not there, and RuntimeError, saying
    what to install, where there is no browser to draw with.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent}: no such folder.")
    if path.suffix == ".html":
        fig = panel.figure_now(everything, subtitle)
        title = html.escape(re.sub("<[^>]*>", "", fig.layout.title.text or path.stem))
        page = fig.to_html(include_plotlyjs=True, config=panel.config)
        path.write_text(page.replace("<head>", f"<head><title>{title}</title>", 1))
    elif path.suffix in (".png", ".pdf", ".svg"):
        fig = panel.figure_now(subtitle=subtitle)
        width = max(panel.width, LEAST_IMAGE_WIDTH) if panel.width else IMAGE_WIDTH
        try:
            fig.write_image(path, width=width, height=fig.layout.height, scale=IMAGE_SCALE)
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
    flux = "%{x:.4f} d: %{y:.5g} of the baseline"
    fig.add_scatter(name="light curve", **dots, hovertemplate=flux, row=1, **right)
    fig.add_scatter(name="binary lens", mode="lines", line={"color": CLASS_COLOURS["binary"], "width": 1},
                    hovertemplate=flux, row=1, **right)
    fig.add_scatter(name="best single lens", mode="lines", line={"color": CLASS_COLOURS["pspl"]}, hovertemplate=flux,
                    row=1, **right)
    sigmas = {"meta": {"columns": 3}, "hovertemplate": "%{x:.4f} d: %{customdata:.3g} sigma"}
    fig.add_scatter(name="residual", **dots, **sigmas, showlegend=False, row=2, **right)
    fig.add_scatter(name=BINNED, mode="markers", **sigmas, row=2, **right,
                    marker={"color": CLASS_COLOURS["binary"], "size": 4, "symbol": "diamond"})
    for c in CLASSES[: len(LENSING_CLASSES) if network is None else network.n_classes]:
        fig.add_scatter(name=f"P({c})", mode="lines", line={"color": CLASS_COLOURS[c], "dash": DASH[c]}, row=3, **right,
                        hovertemplate="%{x:.3f} d: %{y:.4f}")
    if network is None:
        fig.add_annotation(text="no network was given: microlens.load() is one", xref="x4 domain", yref="y4 domain",
                           x=0.5, y=0.5, showarrow=False)
    fig.update_yaxes(title_text="flux / baseline", type="log", row=1, **right)
    fig.update_yaxes(title_text="residual (sigma)", row=2, **right)
    fig.update_yaxes(title_text="probability", range=[-0.03, 1.03], row=3, **right)
    fig.update_xaxes(domain=TIME_COLUMN, showticklabels=False, row=1, **right)
    fig.update_xaxes(domain=TIME_COLUMN, matches="x2", showticklabels=False, row=2, **right)
    fig.update_xaxes(domain=TIME_COLUMN, matches="x2", title_text="time (d)", row=3, **right)
    # The legend hangs at the lower edge of the figure, below the axis titles, however many lines it takes.
    plain(fig, height=height, margin={"t": 60, "b": 110, "l": 60, "r": 10}, title={"font": {"size": 14}, "x": 0.02},
          legend={"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "font": {"size": 11}})
    return Panel(fig)


def columns_for(has_plane: bool) -> dict:
    """Changes for `put`: with a lens plane it stands on the left, without one the time axes take the whole width."""
    change = {f"{axis}__domain": TIME_COLUMN if has_plane else WHOLE_WIDTH for axis in ("xaxis2", "xaxis3", "xaxis4")}
    return change | {"xaxis__visible": has_plane, "yaxis__visible": has_plane}


def _add_plane(fig: go.Figure):
    """The traces and axes of the lens plane, in the first panel."""
    place = {"row": 1, "col": 1}
    folds, source = CLASS_COLOURS["binary"], CLASS_COLOURS["pspl"]
    thin = {"hovertemplate": "x = %{x:.4f}, y = %{y:.4f} θ_E"}
    fig.add_scatter(name="caustics", mode="lines", line={"color": folds, "width": 1.5}, **thin, **place)
    fig.add_scatter(name="critical curves", mode="lines", line={"color": PALE_GREY, "width": 1, "dash": "dot"}, **thin,
                    **place)
    fig.add_scatter(name="lenses", mode="markers", marker={"color": "black", "size": [10, 7]}, **thin, **place)
    fig.add_scatter(name="trajectory", mode="lines", line={"color": source, "width": 1}, **thin, **place)
    fig.add_scatter(name="direction", mode="markers", showlegend=False, hoverinfo="skip", **place,
                    marker={"symbol": "arrow", "angleref": "previous", "size": [0, 14], "color": source})
    fig.add_scatter(name="source", mode="lines", line={"color": source, "width": 1}, fill="toself", **thin, **place)
    # Axes of one scale keep their ranges at every size of the figure; their panel becomes smaller instead.
    fig.update_xaxes(domain=PLANE_COLUMN, title_text="x (Einstein radii)", constrain="domain", **place)
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

    def __init__(self, panel: Panel, work, later, patience=0.5):
        self.work, self.later, self.patience = work, later, patience
        self.asked = self.owing = self.busy = False
        self.timer = None
        panel.on("drawn", lambda _: self._on())

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
        self.later()

    def _on(self):
        """Go on with what waits: the page has drawn, or does not answer."""
        if self.timer:
            self.timer.cancel()
        self.timer, self.busy = None, False
        if self.asked:
            self.asked, self.owing = False, True
            self._begin(self.work)
        elif self.owing:  # a change within the grace goes first
            self.timer = self.loop.call_later(self.GRACE, self._rest)

    def _rest(self):
        if self.owing:
            self.owing = False
            self._begin(self.later)

    def _begin(self, function):
        self.busy = True
        self.timer = self.loop.call_later(self.patience, self._on)
        function()
