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

from microlens.config import (
    CLASS_COLOURS,
    CLASS_PARAMETERS,
    CLASSES,
    PARAMETERS,
    VARIABLE_PARAMETERS,
    ClassifyConfig,
)
from microlens.data import open_dataset, read_light_curve, seasons
from microlens.evaluate import classify
from microlens.explore import panels, traces
from microlens.explore.controls import Message, frame, number, row, user_path
from microlens.explore.events import COLUMNS, cells, event_table, select
from microlens.fit import fit_single_lens, single_lens_model
from microlens.fit.points import epochs_to_draw
from microlens.lens.plane import lens_plane

PAGE = 10  # rows of the table that are shown at once
DATA_STEPS = 500  # steps of time of a measured light curve
FULL_DATE = 2_400_000.0  # d; later times are Julian dates, drawn as days after EPOCH
EPOCH = 2_450_000.0
RANGED = ["delta_chi2_pspl", "m_base", "p_binary", *(p for p in PARAMETERS if p not in ("m_base", "alpha"))]


def prepare(t, flux, sigma, params=None) -> tuple[dict, dict]:
    """Traces of a light curve, its best single lens and, with true parameters, its lens plane; and that plane's ranges.

    t (n,) days, flux and sigma (n,) F/F_base of the valid epochs.
    """
    fit = fit_single_lens(t, flux, sigma, finite_source=True)
    model = single_lens_model(t, fit)
    drawn = epochs_to_draw(t, traces.log_flux(flux), (flux - model) / sigma, time_steps=DATA_STEPS)
    arrays = traces.light_curve_traces(t, flux, sigma, model, drawn)
    if params is None or np.isnan(params["t_E"]):
        return arrays | dict.fromkeys(traces.PLANE, traces.NOTHING), {}
    plane = lens_plane(params, traces.season_tau(params, t))
    arrow, ranges = traces.view_of(plane, "lenses")
    return arrays | traces.plane_traces(plane) | arrow, ranges


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
        elif event["class"] != "other" or np.isfinite(event[name]):  # a sub-class has some of them alone
            words.append(f"{name} = {event[name]:.5g} {known[name].unit}".rstrip())
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
        self.dataset, self.events, self.notes = None, pd.DataFrame(), {}
        self.selected, self.at, self.curve, self.seasons, self.answers = self.events, 0, None, [], {}
        self._make_widgets(str(path or ""), str(predictions or ""))
        attempt = self.message.attempt
        self.drawing = panels.Drawing(self.panel, lambda: attempt(self.show), lambda: attempt(self.show_probabilities))
        limits = [box for pair in self.limits.values() for box in pair]
        for widget in (self.kind, self.called, self.mistakes, self.query, *limits):
            widget.observe(lambda _: attempt(self.filter), "value")
        self.table.on_msg(lambda _, content, __: attempt(self._on_table, content))
        self.note.observe(lambda change: attempt(self.write_note, change["new"]), "value")
        self.season.observe(lambda _: attempt(self.show_season), "value")
        self.open_button.on_click(lambda _: attempt(self.open))
        self.reset_button.on_click(lambda _: attempt(self.clear))
        self.back.on_click(lambda _: attempt(self.step, -1))
        self.forward.on_click(lambda _: attempt(self.step, 1))
        self.export_button.on_click(lambda _: attempt(self.export, self.file.value))
        self.real_button.on_click(lambda _: attempt(self.show_file, self.real.value))
        if path:
            attempt(self.open)

    def _make_widgets(self, path: str, predictions: str):
        box, button = widgets.Text, widgets.Button
        self.path = box(value=path, description="dataset", layout={"width": "420px"})
        self.predictions = box(value=predictions, description="predictions", layout={"width": "420px"})
        self.open_button = button(description="open")
        choices = ("any", *CLASSES)
        self.kind = widgets.Dropdown(options=choices, description="simulated", layout={"width": "190px"})
        self.called = widgets.Dropdown(options=choices, description="called", layout={"width": "190px"})
        self.mistakes = widgets.Checkbox(description="mistakes only", indent=False, layout={"width": "120px"})
        self.query = box(placeholder="s > 1 or q < 1e-3", description="and", continuous_update=False,
                         layout={"width": "330px"})
        self.reset_button = button(description="clear filters")
        self.limits = {name: [box(placeholder=word, continuous_update=False, tooltip=f"{word} {name}",
                                  layout={"width": "72px"}) for word in ("from", "to")] for name in RANGED}
        self.table, self.message, self.truth = Table(), Message(), widgets.HTML()
        self.panel = panels.curves(self.network)
        self.back, self.forward = button(description="< previous"), button(description="next >")
        self.note = box(description="note", continuous_update=False, layout={"width": "420px"})
        self.file = box(value="selection.csv", description="export to", layout={"width": "300px"})
        self.export_button = button(description="export selection")
        self.real = box(description="light curve", placeholder="file of a real light curve", layout={"width": "420px"})
        self.real_button = button(description="load")
        self.season = widgets.BoundedIntText(value=1, min=1, max=1, description="season", layout={"width": "150px"})
        ranges = [widgets.HBox([widgets.Label(name, layout={"width": "110px"}), *pair])
                  for name, pair in self.limits.items()]
        self.widget = frame(
            row(self.path, self.predictions, self.open_button),
            row(self.kind, self.called, self.mistakes, self.query, self.reset_button),
            widgets.GridBox(ranges, layout={"grid_template_columns": "repeat(auto-fill, 270px)"}),
            self.message, self.table, row(self.back, self.forward, self.note), self.truth, self.panel,
            row(self.file, self.export_button), row(self.real, self.real_button, self.season))

    # ---- the dataset ------------------------------------------------------------------------------------------------

    def open(self) -> str:
        """Open the dataset (and predictions) named in the boxes. Notes stay where the same dataset was open before."""
        dataset = open_dataset(user_path(self.path.value))
        try:
            events = event_table(dataset, self.predictions.value or None)
        except BaseException:
            dataset.close()
            raise
        if self.dataset is not None:
            self.dataset.close()
        if self.dataset is None or dataset.checksum != self.dataset.checksum:
            self.notes = {}
        self.dataset, self.events = dataset, events
        return self.filter()

    def filter(self) -> str:
        """Apply filters and sorting."""
        if self.dataset is None:
            raise ValueError("no dataset is open.")
        ranges = {name: tuple(number(box.value, name) for box in pair) for name, pair in self.limits.items()}
        self.selected = select(
            self.events, kind=self.kind.value, called=self.called.value, mistakes=self.mistakes.value, ranges=ranges,
            query=self.query.value, sort=self.table.sort, descending=self.table.descending)
        self.go(0)
        said = f"{len(self.selected)} of {len(self.events)} events"
        return said if len(self.selected) else f"<b>no event passes the filters</b> ({said})"

    def clear(self) -> str:
        """Let every event pass."""
        self.kind.value = self.called.value = "any"
        self.mistakes.value, self.query.value = False, ""
        for pair in self.limits.values():
            for box in pair:
                box.value = ""
        return self.filter()

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
        self.note.value = self.notes.get(self.row, "")
        self.note.disabled = self.row is None
        self.drawing()

    @property
    def row(self) -> int | None:
        """The chosen event's row in the dataset; None if nothing is selected."""
        return int(self.selected["row"].iloc[self.at]) if len(self.selected) else None

    def show(self):
        """Draw the chosen event."""
        self.curve = None
        if self.row is None:
            panels.put(self.panel, dict.fromkeys(self.panel.names, traces.NOTHING), "no event passes the filters")
            self.truth.value = ""
            return
        flux, sigma, delta_t = self.dataset.flux(self.row), self.dataset.sigma(self.row), self.dataset.delta_t(self.row)
        valid, event = flux != 0, self.selected.iloc[self.at].to_dict()
        title = f"row {self.row}: simulated {event['class']}, observable as {event['observable']}"
        if event["called"]:
            title += f", called {event['called']} with P(binary) = {event['p_binary']:.3f}"
        title += f"; delta chi^2 = {event['delta_chi2_pspl']:.4g}"
        self._draw(self.dataset.timestamps[valid], flux[valid], sigma[valid], delta_t[valid], title, "time (d)", event)
        self.truth.value = f"truth: {true_parameters(event)}"

    def _draw(self, t, flux, sigma, delta_t, title: str, time_title: str, event: dict | None = None):
        """Draw a light curve of valid epochs, each (n,); event : its true parameters, of a simulated one."""
        t, flux, sigma = t.astype(float), flux.astype(float), sigma.astype(float)
        self.curve = t, flux, delta_t
        arrays, ranges = prepare(t, flux, sigma, event)
        pale = traces.PROBABILITIES if self.network is not None else ()
        panels.put(self.panel, arrays, html.escape(title), pale, **{panels.TIME_AXIS: time_title}, **ranges)

    def show_probabilities(self):
        """Draw what the classifier says of the chosen event as the season unfolds."""
        if self.network is not None and self.curve is not None:
            panels.put(self.panel, traces.probability_traces(self.network, *self.curve))

    def write_note(self, text: str):
        """Keep a note on the chosen event of the dataset; it goes into the export."""
        if self.note.disabled:  # no event of the dataset is shown
            return
        self.notes.pop(self.row, None)
        if text:
            self.notes[self.row] = text

    def export(self, path) -> str:
        """Write the selected events with their notes as CSV."""
        path = user_path(path)
        if path.suffix != ".csv":
            raise ValueError(f"export to: came {str(path)!r}, expected a name that ends in .csv.")
        if not len(self.selected):
            raise ValueError("no event is selected; nothing was written.")
        out = self.selected.assign(note=[self.notes.get(i, "") for i in self.selected["row"]])
        out.to_csv(path, index=False)
        return html.escape(f"{len(out)} events written to {path}")

    # ---- light-curve files ------------------------------------------------------------------------------------------

    def show_file(self, path) -> str:
        """Draw a season of a real light-curve file; the season box steps through them."""
        path = user_path(path)
        self.seasons = seasons(read_light_curve(path))
        self.answers = season_answers(path, self.network) if self.network is not None else {}
        self.season.max, self.season.value = len(self.seasons), 1
        return self.show_season()

    def show_season(self) -> str:
        """Draw the season of the real light curve that the box names, with the answer of `microlens classify`."""
        if not self.seasons:
            raise ValueError("no light curve is loaded.")
        self.note.disabled, self.note.value = True, ""  # notes belong to the events of the dataset
        s = self.seasons[self.season.value - 1]
        title = f"{s.name}, season {s.number} of {len(self.seasons)}: {len(s.time)} epochs"
        if self.answers:
            title += f", {self.answers[s.number]}"
        is_date = s.time[0] > FULL_DATE
        time_title = f"{s.time_system} - {EPOCH:.0f} (d)" if is_date else "time (d)"
        self._draw(s.time - EPOCH * is_date, s.flux, s.flux_err, s.delta_t, title, time_title)
        self.show_probabilities()
        self.truth.value = ""
        return html.escape(f"{s.name}: time in {s.time_system}" + (f", m_base = {s.m_base:.2f}" if s.m_base else ""))
