"""EventBrowser: filter, sort and step through the events of a dataset; notes and export; light-curve files of your own.

    browser = EventBrowser("data/raw/test.h5", predictions="runs/quick", classifier=microlens.load())
    browser.widget

Parameters are a table in memory (a few hundred bytes an event), of which the page holds the visible rows; curves are
read one at a time.
"""

from __future__ import annotations

import html
from pathlib import Path
from types import SimpleNamespace

import anywidget
import ipywidgets as widgets
import numpy as np
import pandas as pd
import traitlets

from microlens.config import CLASS_COLOURS, CLASS_PARAMETERS, CLASSES, PARAMETERS, VARIABLE_PARAMETERS, ClassifyConfig
from microlens.data import open_dataset, read_light_curve, seasons
from microlens.evaluate import classify
from microlens.explore import panels, traces
from microlens.explore.controls import Frame, Message, number, printed_unit, row, user_path
from microlens.explore.events import COLUMNS, cells, event_table, select
from microlens.explore.lens import LensExplorer, source_track
from microlens.explore.notes import Notes, notes_of
from microlens.explore.scatter import Scatter
from microlens.explore.season_view import Curve, SeasonView
from microlens.fit import SingleLensFit, fit_single_lens, single_lens_model
from microlens.lens import Field
from microlens.lens.plane import lens_plane

PAGE = 10  # rows of the table that are shown at once
FULL_DATE = 2_400_000.0  # d; later times are Julian dates, drawn as days after EPOCH
EPOCH = 2_450_000.0
TRACK_POINTS = 400  # times at which the source's place is known to the page
RANGED = ["delta_chi2_pspl", "m_base", "p_binary", *(p for p in PARAMETERS if p not in ("m_base", "alpha"))]


def plane_of(curve: Curve, params: dict | None) -> tuple[dict, dict, np.ndarray]:
    """Traces of the lens plane of an event with true parameters, the ranges of its axes, and the source's track.

    All are empty where the event is no lens or its parameters are not known.
    """
    if params is None or np.isnan(params["t_E"]):
        return dict.fromkeys(traces.PLANE, traces.NOTHING), {}, np.empty((0, 4))
    plane = lens_plane(params, traces.season_tau(params, curve.t))
    arrow, ranges = traces.view_of(plane, "lenses")
    times = np.linspace(curve.t[0], curve.t[-1], TRACK_POINTS)
    single = {**params, "alpha": 0.0} if np.isnan(params["q"]) else params
    track = source_track(single, times, np.full(TRACK_POINTS, np.nan), Field())
    return traces.plane_traces(plane) | arrow, ranges, track


def fit_in_words(fit: SingleLensFit, n: int) -> str:
    """The parameters of a best single lens through n epochs, in words."""
    size = f", rho = {fit.rho:.4g}" if fit.rho > 0 else ""
    return (f"best single lens: t_0 = {fit.t_0:.4f} d, u_0 = {fit.u_0:.4g}, t_E = {fit.t_E:.4g} d{size}, "
            f"source flux = {fit.f_source:.4g}, blend flux = {fit.f_blend:.4g}; χ² = {fit.chi2:.6g} of {n} epochs")


def season_answers(path, network) -> dict[int, str]:
    """What `microlens classify` says of each season of a light-curve file, in words, by the season's number."""
    table, _ = classify([path], ClassifyConfig(), SimpleNamespace(network=network))
    said = {}
    for answer in table.to_dict("records"):
        called = answer["class"]
        words = f"called {called} with P(binary) = {answer['p_binary']:.3f}" if called else "not classified"
        said[answer["season"]] = words + (f" ({answer['flags']})" if answer["flags"] else "")
    return said


def true_parameters(event: dict) -> str:
    """The parameters of an event that its class has, with units, in words."""
    known, words = PARAMETERS | VARIABLE_PARAMETERS, []
    for name in CLASS_PARAMETERS[event["class"]]:
        if isinstance(event[name], str):
            words.append(f"{name} = {event[name]}")
        elif np.isfinite(event[name]):  # an event may have some of them alone
            words.append(f"{name} = {event[name]:.5g} {printed_unit(known[name].unit)}".rstrip())
    return ", ".join(words)


class Table(anywidget.AnyWidget):
    """The visible rows of a table; `on_msg` tells what the user did: {"sort": column}, {"choose": i}, {"move": how}."""

    _esm = (Path(__file__).with_name("table.js")).read_text()
    _css = f""".microlens-table {{ overflow-x: auto; outline-offset: -2px; }}
.microlens-table table {{ border-collapse: collapse; font-size: 12px; min-width: 860px; }}
.microlens-table th button {{ border: 0; background: none; font-weight: 600; cursor: pointer; color: inherit; }}
.microlens-table td, .microlens-table th {{ padding: 1px 10px; text-align: right; height: 20px; }}
.microlens-table tbody tr {{ cursor: pointer; }} .microlens-table tbody tr:hover {{ background: #8882; }}
.microlens-table tr[aria-selected=true] {{ background: {CLASS_COLOURS["pspl"]}40; }}"""
    columns, rows = traitlets.List(COLUMNS).tag(sync=True), traitlets.List().tag(sync=True)
    chosen, sort = traitlets.Int(-1).tag(sync=True), traitlets.Unicode("row").tag(sync=True)
    descending, serial = traitlets.Bool(False).tag(sync=True), traitlets.Int(0).tag(sync=True)


class EventBrowser:
    """Filters, a sortable table to step through by keys or buttons, the chosen event's panels; `widget` is for display.

    path : dataset file.   predictions : a predictions.h5 of that file, or its evaluation or run folder, optional.
    classifier : from microlens.load(), or a Run, optional.   A missing or damaged file is a message in the widget.
    """

    def __init__(self, path=None, predictions=None, classifier=None):
        self.network = getattr(classifier, "network", classifier)
        self.dataset, self.events = None, pd.DataFrame()
        self.dataset_notes: Notes | None = None
        self.notes: Notes | None = None  # those on what is shown
        self.selected, self.at, self.seasons, self.answers = self.events, 0, [], {}
        self.measured, self.event = None, None  # what is shown: its light curve, and its true parameters
        self.explorer, self.setting = None, False
        self._make_widgets(str(path or ""), str(predictions or ""))
        attempt = self.message.attempt
        self.drawing = panels.Drawing(self.panel, lambda: attempt(self.show), lambda: attempt(self.show_probabilities))
        limits = [box for pair in self.limits.values() for box in pair]
        for widget in (self.kind, self.observable, self.called, self.mistakes, self.query, *limits):
            widget.observe(lambda _: None if self.setting else attempt(self.filter), "value")
        self.table.on_msg(lambda _, content, __: attempt(self._on_table, content))
        self.note.observe(lambda change: attempt(self.write_note, change["new"]), "value")
        self.season.observe(lambda _: attempt(self.show_season), "value")
        self.open_button.on_click(lambda _: attempt(self.open))
        self.reset_button.on_click(lambda _: attempt(self.clear))
        self.back.on_click(lambda _: attempt(self.step, -1))
        self.forward.on_click(lambda _: attempt(self.step, 1))
        self.export_button.on_click(lambda _: attempt(self.export, self.file.value))
        self.real_button.on_click(lambda _: attempt(self.show_file, self.real.value))
        self.explore_button.on_click(lambda _: attempt(self.explore))
        self.close_button.on_click(lambda _: attempt(self.close_explorer))
        self.scatter_button.observe(lambda _: attempt(self.show_scatter), "value")
        if path:
            attempt(self.open)

    def _make_widgets(self, path: str, predictions: str):
        box, button = widgets.Text, widgets.Button
        self.path = box(value=path, description="dataset", layout={"width": "420px"})
        self.predictions = box(value=predictions, description="predictions", layout={"width": "420px"})
        self.open_button = button(description="open")
        choices = ("any", *CLASSES)
        self.kind = widgets.Dropdown(options=choices, description="simulated", layout={"width": "190px"})
        self.observable = widgets.Dropdown(options=choices, description="observable as", layout={"width": "200px"},
                                           style={"description_width": "initial"})
        self.called = widgets.Dropdown(options=choices, description="called", layout={"width": "190px"})
        self.mistakes = widgets.Checkbox(description="mistakes only", indent=False, layout={"width": "120px"})
        self.query = box(placeholder="s > 1 or q < 1e-3", description="and", continuous_update=False,
                         layout={"width": "330px"})
        self.reset_button = button(description="clear filters")
        self.limits = {name: [box(placeholder=word, continuous_update=False, tooltip=f"{word} {name}",
                                  layout={"width": "72px"}) for word in ("from", "to")] for name in RANGED}
        self.table, self.message, self.truth = Table(), Message(), widgets.HTML()
        self.panel = panels.curves(self.network)
        self.view = SeasonView(self.panel)
        self.scatter = Scatter(RANGED, lambda box: self.message.attempt(self.brush, box),
                               lambda at: self.message.attempt(self.go_to_row, at))
        self.scatter.widget.layout.display = "none"
        self.scatter_button = widgets.ToggleButton(description="scatter", tooltip="two columns against one another; "
                                                   "drag a box to filter", layout={"width": "90px"})
        self.explore_button = button(description="explore this event", layout={"width": "150px"},
                                     tooltip="put a lens with sliders on this light curve")
        self.close_button = button(description="back to the browser", layout={"width": "170px"})
        self.workbench = widgets.VBox([])
        self.back, self.forward = button(description="< previous"), button(description="next >")
        self.note = box(description="note", continuous_update=False, layout={"width": "420px"})
        self.file = box(value="selection.csv", description="export to", layout={"width": "300px"})
        self.export_button = button(description="export selection")
        self.real = box(description="light curve", placeholder="file of a real light curve", layout={"width": "420px"})
        self.real_button = button(description="load")
        self.season = widgets.BoundedIntText(value=1, min=1, max=1, description="season", layout={"width": "150px"})
        self.ranges = {name: widgets.HBox([widgets.Label(name, layout={"width": "110px"}), *pair])
                       for name, pair in self.limits.items()}
        self.widget = Frame(
            row(self.path, self.predictions, self.open_button),
            row(self.real, self.real_button, self.season),
            row(self.kind, self.observable, self.called, self.mistakes, self.query, self.reset_button,
                self.scatter_button),
            widgets.GridBox(list(self.ranges.values()), layout={"grid_template_columns": "repeat(auto-fill, 270px)"}),
            self.message, self.scatter.widget, self.table,
            row(self.back, self.forward, self.note, self.explore_button), row(*self.view.controls),
            self.truth, self.panel, row(self.file, self.export_button), self.workbench, panel=self.panel)

    # ---- the dataset ------------------------------------------------------------------------------------------------

    def open(self) -> str:
        """Open the dataset (and predictions) named in the boxes, with the notes that are kept beside it."""
        path = user_path(self.path.value)
        dataset = open_dataset(path)
        try:
            events = event_table(dataset, self.predictions.value or None)
            notes = notes_of(path, dataset.checksum)
        except BaseException:
            dataset.close()
            raise
        if self.dataset is not None:
            self.dataset.close()
        self.dataset, self.events, self.dataset_notes = dataset, events, notes
        for name, box in self.ranges.items():  # a column without a value is none to filter by
            box.layout.display = None if events[name].notna().any() else "none"
        return self.filter()

    def filter(self) -> str:
        """Apply filters and sorting."""
        if self.dataset is None:
            raise ValueError("no dataset is open.")
        ranges = {name: tuple(number(box.value, name) for box in pair) for name, pair in self.limits.items()}
        self.selected = select(
            self.events, kind=self.kind.value, observable=self.observable.value, called=self.called.value,
            mistakes=self.mistakes.value, ranges=ranges, query=self.query.value, sort=self.table.sort,
            descending=self.table.descending)
        self.go(0)
        if self.scatter_button.value:
            self.scatter.draw(self.events, self.selected)
        said = f"{len(self.selected)} of {len(self.events)} events"
        return said if len(self.selected) else f"<b>no event passes the filters</b> ({said})"

    def _set(self, values: dict) -> str:
        """Set several filters, {widget: value}, and filter the table once."""
        self.setting = True
        try:
            for widget, value in values.items():
                widget.value = value
        finally:
            self.setting = False
        return self.filter()

    def clear(self) -> str:
        """Let every event pass."""
        choices = dict.fromkeys((self.kind, self.observable, self.called), "any")
        limits = {box: "" for pair in self.limits.values() for box in pair}
        return self._set(choices | limits | {self.mistakes: False, self.query: ""})

    def brush(self, box: dict | None) -> str:
        """Filter by a box that was drawn in the scatter, {column: (low, high)}; None: let what it held back pass."""
        if box is None:
            columns = self.scatter.x.value, self.scatter.y.value
            return self._set({limit: "" for name in columns for limit in self.limits[name]})
        return self._set({limit: f"{x:.6g}" for name, span in box.items()
                          for limit, x in zip(self.limits[name], span, strict=True)})

    def show_scatter(self):
        """Show or hide the scatter."""
        self.scatter.widget.layout.display = None if self.scatter_button.value else "none"
        if self.scatter_button.value and self.dataset is not None:
            self.scatter.draw(self.events, self.selected)

    def go_to_row(self, row: int) -> str | None:
        """Go to the event of a row of the dataset; one that the filters hold back is not shown."""
        found = np.flatnonzero(self.selected["row"] == row)
        if not len(found):
            return f"row {row} does not pass the filters."
        self.go(int(found[0]))
        return None

    def _on_table(self, content):
        """What the user did with the table."""
        if "sort" in content:
            with self.table.hold_sync():
                self.table.descending = content["sort"] == self.table.sort and not self.table.descending
                self.table.sort = content["sort"]
            return self.filter()
        if "choose" in content:
            self.go(self.at // PAGE * PAGE + content["choose"])
        else:
            places = {"first": 0, "last": len(self.selected) - 1, "page": self.at + PAGE, "-page": self.at - PAGE}
            move = content["move"]
            self.go(places[move] if move in places else self.at + move)
        return None

    def step(self, by: int):
        """Go to the next (1) or previous (-1) event of the selection."""
        self.go(self.at + by)

    def go(self, at: int):
        """Go to a position in the selection, as near as there is one, and draw that event."""
        self.at = min(max(at, 0), max(len(self.selected) - 1, 0))
        first = self.at // PAGE * PAGE
        with self.table.hold_sync():
            self.table.rows = cells(self.selected.iloc[first : first + PAGE])
            self.table.chosen = self.at - first
            self.table.serial += 1
        self._show_note(self.dataset_notes, self.row)
        self.drawing()

    def _show_note(self, notes: Notes | None, item: int | None):
        """Show the note on an item, a row of the dataset or a season of a light-curve file; None: on nothing."""
        self.notes, self.noted = None, item  # the box changes by itself now
        self.note.value = "" if item is None else notes.on(item)
        self.note.disabled = item is None
        self.notes = notes if item is not None else None

    @property
    def row(self) -> int | None:
        """The chosen event's row in the dataset; None if nothing is selected."""
        return int(self.selected["row"].iloc[self.at]) if len(self.selected) else None

    def show(self):
        """Draw the chosen event."""
        self.measured = self.event = None
        if self.row is None:
            self.view.draw(None, {}, "no event passes the filters", meta={"event": ""})
            self.truth.value = ""
            return
        flux, sigma, delta_t = self.dataset.flux(self.row), self.dataset.sigma(self.row), self.dataset.delta_t(self.row)
        valid, event = flux != 0, self.selected.iloc[self.at].to_dict()
        title = f"row {self.row}: simulated {event['class']}, observable as {event['observable']}"
        if event["called"]:
            title += f", called {event['called']} with P(binary) = {event['p_binary']:.3f}"
        title += f"; Δχ² = {event['delta_chi2_pspl']:.4g}"
        curve = Curve(f"row {self.row}", self.dataset.timestamps[valid].astype(float), flux[valid].astype(float),
                      sigma[valid].astype(float), delta_t[valid], event["m_base"])
        fitted = self._draw(curve, title, event)
        self.truth.value = f"truth: {true_parameters(event)}<br>{fitted}"

    def _draw(self, curve: Curve, title: str, event: dict | None = None) -> str:
        """Draw a light curve and return its best single lens in words.

        event : its true parameters, of a simulated one.
        """
        fit = fit_single_lens(curve.t, curve.flux, curve.sigma, finite_source=True)
        curve = curve._replace(single=single_lens_model(curve.t, fit))
        self.measured, self.event = curve, event
        arrays, ranges, track = plane_of(curve, event)
        pale = traces.PROBABILITIES if self.network is not None else ()
        panels.put_track(self.panel, track, 0.0 if event is None or not len(track) else event["rho"])
        self.view.draw(curve, arrays, html.escape(title), pale, meta={"event": f"{curve.name} {self.path.value}"},
                       **panels.columns_for(bool(ranges)), **ranges)
        return fit_in_words(fit, len(curve.t))

    def show_probabilities(self):
        """Draw what the classifier says of the chosen event as the season unfolds."""
        if self.network is not None and self.measured is not None:
            panels.put(self.panel, traces.probability_traces(self.network, self.measured))

    def write_note(self, text: str) -> str | None:
        """Keep a note on what is shown, in a file beside it; notes on events go into the export."""
        if self.notes is None:  # nothing is shown, or the box was changed by the browser itself
            return None
        self.notes.write(self.noted, text)
        return html.escape(f"the note is kept in {self.notes.path}")

    # ---- the lens explorer ------------------------------------------------------------------------------------------

    def explore(self):
        """Open a LensExplorer on the light curve that is shown; a simulated binary starts with its true lens."""
        if self.measured is None:
            raise ValueError("no light curve is shown.")
        if self.explorer is None:
            self.explorer = LensExplorer(self.network)
        lens = {}
        if self.event is not None and self.event["class"] == "binary":
            lens = {k: float(self.event[k]) for k in self.explorer.parameters if np.isfinite(self.event[k])}
        self.explorer.observe(self.measured, **lens)
        self.workbench.children = (self.close_button, self.explorer.widget)

    def close_explorer(self):
        """Take the explorer away again; the browser shows the event that it showed before."""
        self.workbench.children = ()

    def export(self, path) -> str:
        """Write the selected events with their notes as CSV."""
        path = user_path(path)
        if path.suffix != ".csv":
            raise ValueError(f"export to: came {str(path)!r}, expected a name that ends in .csv.")
        if not len(self.selected):
            raise ValueError("no event is selected; nothing was written.")
        out = self.selected.assign(note=[self.dataset_notes.on(i) for i in self.selected["row"]])
        out.to_csv(path, index=False)
        return html.escape(f"{len(out)} events written to {path}")

    # ---- light-curve files ------------------------------------------------------------------------------------------

    def show_file(self, path) -> str:
        """Draw a season of a real light-curve file; the season box steps through them."""
        path = user_path(path)
        self.seasons = seasons(read_light_curve(path))
        self.file_notes = notes_of(path)
        self.answers = season_answers(path, self.network) if self.network is not None else {}
        self.season.max, self.season.value = len(self.seasons), 1
        return self.show_season()

    def show_season(self) -> str:
        """Draw the season of the real light curve that the box names, with the answer of `microlens classify`."""
        if not self.seasons:
            raise ValueError("no light curve is loaded.")
        s = self.seasons[self.season.value - 1]
        self._show_note(self.file_notes, s.number)
        title = f"{s.name}, season {s.number} of {len(self.seasons)}: {len(s.time)} epochs"
        if self.answers:
            title += f", {self.answers[s.number]}"
        is_date = s.time[0] > FULL_DATE
        time_title = f"{s.time_system} - {EPOCH:.0f} (d)" if is_date else "time (d)"
        curve = Curve(f"{s.name}, season {s.number}", s.time - EPOCH * is_date, s.flux.astype(float),
                      s.flux_err.astype(float), s.delta_t, s.m_base, time_title,
                      Field(season_start=EPOCH) if is_date else Field())
        self.truth.value = html.escape(self._draw(curve, title))
        self.show_probabilities()
        return html.escape(f"{s.name}: time in {s.time_system}" + (f", m_base = {s.m_base:.2f}" if s.m_base else ""))
