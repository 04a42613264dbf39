"""EventBrowser: filter, sort and step through the events of a dataset; notes and export.

    browser = EventBrowser("data/raw/test.h5", predictions="runs/quick/eval_test_.../predictions.h5", classifier=microlens.load())
    browser.widget

Parameters are a table in memory (a few hundred bytes an event), of which the page holds the visible rows; curves are read one at a
time.
"""

from __future__ import annotations

import html
from pathlib import Path

import anywidget
import ipywidgets as widgets
import numpy as np
import pandas as pd
import traitlets

from microlens.config import CLASS_PARAMETERS, CLASSES, PARAMETERS
from microlens.data.format import open_dataset, read_predictions
from microlens.data.lightcurve import read_light_curve, seasons
from microlens.explore import panels
from microlens.explore.lens import PROBABILITIES, look_at, probabilities
from microlens.fit import fit_single_lens, single_lens_model
from microlens.fit.points import epochs_to_draw

PAGE = 10  # rows of the table that are shown at once
COLUMNS = ["row", "class", "observable", "called", "p_binary", "delta_chi2_pspl", "m_base", "t_E", "u_0", "s", "q", "rho"]
RANGED = ["delta_chi2_pspl", "m_base", "p_binary", *(p for p in PARAMETERS if p not in ("m_base", "alpha"))]


def find_predictions(path) -> Path:
    """A predictions file: itself, an evaluation folder's, or that of a run's newest evaluation.

    Raises FileNotFoundError if there is none.
    """
    path = Path(path)
    found = [path] if not path.is_dir() else [*path.glob("predictions.h5"), *sorted(path.glob("eval_*/predictions.h5"), key=lambda p: p.stat().st_mtime_ns)[::-1]]
    if not found or not found[0].is_file():
        raise FileNotFoundError(f"{path}: no predictions there; `python -m microlens evaluate` makes predictions.h5.")
    return found[0]


def table(dataset, predictions=None) -> pd.DataFrame:
    """One row an event: true parameters and labels by name, and, with predictions, what was called and P(binary).

    predictions : file, evaluation folder or run folder. Raises ValueError where it is not of this dataset.
    """
    out = dataset.params.copy()
    names = pd.CategoricalDtype([*CLASSES, ""])

    def classes(numbers):
        return pd.Categorical.from_codes(np.asarray(numbers), dtype=names)

    out["class"], out["observable"] = classes(out["label"]), classes(out["label_observable"])
    called, p_binary = np.full(len(out), len(CLASSES)), np.full(len(out), np.nan)
    if predictions is not None:
        path = find_predictions(predictions)
        arrays, _ = read_predictions(path, ("row", "log_p", "label"))
        rows, p = arrays["row"], np.exp(arrays["log_p"].astype(float))
        if p.ndim != 2 or p.shape[1] != 3 or rows.max() >= len(out) or (arrays["label"] != out["label"].to_numpy()[rows]).any():
            raise ValueError(f"{path}: are not predictions of {dataset.path}.")
        called[rows], p_binary[rows] = p.argmax(1), p[:, 2]
    out["called"], out["p_binary"] = classes(called), p_binary
    return out.rename_axis("row").reset_index()


def select(events: pd.DataFrame, *, kind="any", called="any", mistakes=False, ranges=None, query="", sort="row",
           descending=False) -> pd.DataFrame:
    """The events that pass the filters, sorted.

    ranges : {column: (low, high)}, None = no limit.   query : a pandas expression, e.g. 'q < 1e-3 and m_base < 21'.
    Raises ValueError naming what is wrong with the query.
    """
    keep = np.ones(len(events), dtype=bool)
    if kind != "any":
        keep &= (events["class"] == kind).to_numpy()
    if called != "any":
        keep &= (events["called"] == called).to_numpy()
    if mistakes:
        keep &= ((events["called"] != "") & (events["called"] != events["observable"])).to_numpy()
    for name, (low, high) in (ranges or {}).items():
        if low is not None:
            keep &= (events[name] >= low).to_numpy()
        if high is not None:
            keep &= (events[name] <= high).to_numpy()
    out = events[keep]
    if query.strip():
        try:
            out = out.query(query)
        except Exception as error:  # pandas raises whatever the expression provokes
            raise ValueError(f"the filter {query!r} is no expression of columns ({error}).") from error
    return out.sort_values(sort, ascending=not descending, kind="stable")


def number(text: str, what: str) -> float | None:
    """A limit from its box; None for an empty one. ValueError for anything else."""
    try:
        return float(text) if text.strip() else None
    except ValueError:
        raise ValueError(f"{what}: came {text!r}, expected a number or nothing.") from None


def cells(events: pd.DataFrame) -> list[list[str]]:
    """Rows as the table shows them."""
    def word(value):
        if isinstance(value, float):
            return "" if np.isnan(value) else f"{value:.4g}"
        return str(value)

    return [[word(e[c]) for c in COLUMNS] for e in events[COLUMNS].to_dict("records")]


def prepare(t, flux, sigma, params=None) -> dict:
    """Arrays (m, 2) by trace name of one light curve (valid epochs): curve, best single lens, residual and, with true parameters,
    the lens plane."""
    fit = fit_single_lens(t, flux, sigma, finite_source=True)
    model = single_lens_model(t, fit)
    residual = (flux - model) / sigma
    data = epochs_to_draw(t, np.log(np.maximum(flux, 1e-2)), residual, time_steps=500)
    line = epochs_to_draw(t, np.log(np.maximum(model, 1e-2)), time_steps=100)
    arrays = dict.fromkeys(panels.PLANE, panels.NOTHING)
    if params is not None and np.isfinite(params["t_E"]):
        arrays = panels.lens_plane(params, t[0], t[-1])
    arrays |= {"light curve": np.column_stack([t, np.maximum(flux, 1e-2)])[data],
               "best single lens": np.column_stack([t, model])[line],
               "residual": np.column_stack([t, residual])[data]}
    return {"arrays": arrays, "chi2": fit.chi2, "n": len(t), "fit": fit}


class Table(anywidget.AnyWidget):
    """The visible rows of a table; `on_msg` tells what the user did: {"sort": column}, {"choose": i} or {"move": how}."""

    _esm = (Path(__file__).with_name("table.js")).read_text()
    _css = """.microlens-table { overflow-x: auto; outline-offset: -2px; }
.microlens-table table { border-collapse: collapse; font-size: 12px; font-variant-numeric: tabular-nums; min-width: 860px; }
.microlens-table th button { border: 0; background: none; font-weight: 600; cursor: pointer; color: inherit; padding: 2px 0; }
.microlens-table td, .microlens-table th { padding: 1px 10px; text-align: right; height: 20px; }
.microlens-table tbody tr { cursor: pointer; } .microlens-table tbody tr:hover { background: #8882; }
.microlens-table tr[aria-selected=true] { background: #0072B240; }"""
    columns, rows = traitlets.List(COLUMNS).tag(sync=True), traitlets.List().tag(sync=True)
    chosen, sort = traitlets.Int(-1).tag(sync=True), traitlets.Unicode("row").tag(sync=True)
    descending, serial = traitlets.Bool(False).tag(sync=True), traitlets.Int(0).tag(sync=True)


class EventBrowser:
    """Filters, a sortable table to step through by keys or buttons, and the chosen event's panels; `widget` is what to display.

    path : dataset file.   predictions : a predictions.h5 of that file, or its evaluation or run folder, optional.
    classifier : from microlens.load(), optional.   A missing or damaged file is a message in the widget.
    """

    def __init__(self, path=None, predictions=None, classifier=None):
        self.dataset, self.events, self.classifier, self.notes = None, pd.DataFrame(), classifier, {}
        self.selected, self.at, self.seasons = self.events, 0, []
        box, button = widgets.Text, widgets.Button
        self.path = box(value=str(path or ""), description="dataset", layout={"width": "420px"})
        self.predictions = box(value=str(predictions or ""), description="predictions", layout={"width": "420px"})
        self.open_button = button(description="open")
        choices = ("any", *CLASSES)
        self.kind = widgets.Dropdown(options=choices, description="simulated", layout={"width": "190px"})
        self.called = widgets.Dropdown(options=choices, description="called", layout={"width": "190px"})
        self.mistakes = widgets.Checkbox(description="mistakes only", indent=False, layout={"width": "120px"})
        self.query = box(placeholder="s > 1 or q < 1e-3", description="and", continuous_update=False, layout={"width": "330px"})
        self.reset_button = button(description="clear filters")
        self.limits = {name: tuple(box(placeholder=word, continuous_update=False, layout={"width": "72px"},
                                       tooltip=f"{word} {name}") for word in ("from", "to")) for name in RANGED}
        self.table = Table()
        self.back, self.forward = button(description="< previous"), button(description="next >")
        self.note = box(description="note", continuous_update=False, layout={"width": "420px"})
        self.file = box(value="selection.csv", description="export to", layout={"width": "300px"})
        self.export_button = button(description="export selection")
        self.real = box(description="light curve", placeholder="file of a real light curve", layout={"width": "420px"})
        self.real_button = button(description="load")
        self.season = widgets.BoundedIntText(value=1, min=1, max=1, description="season", layout={"width": "150px"})
        self.message, self.truth, self.panel = widgets.HTML(), widgets.HTML(), panels.curves()
        self.drawing = panels.Drawing(self.panel, lambda: self._say(self.show), lambda: self._say(self.show_probabilities))
        for w in (self.kind, self.called, self.mistakes, self.query, *(b for pair in self.limits.values() for b in pair)):
            w.observe(lambda _: self._say(self.filter), "value")
        self.table.on_msg(lambda _, content, __: self._say(self._on_table, content))
        self.note.observe(lambda change: self._say(self.write_note, change["new"]), "value")
        self.season.observe(lambda _: self._say(self.show_season), "value")
        for clicked, function in ((self.open_button, self.open), (self.reset_button, self.clear), (self.back, lambda: self.step(-1)),
                                  (self.forward, lambda: self.step(1)), (self.export_button, lambda: self.export(self.file.value)),
                                  (self.real_button, lambda: self.show_file(self.real.value))):
            clicked.on_click(lambda _, f=function: self._say(f))
        row = widgets.HBox
        ranges = [row([widgets.Label(name, layout={"width": "110px"}), *pair]) for name, pair in self.limits.items()]
        self.widget = widgets.VBox([
            row([self.path, self.predictions, self.open_button]),
            row([self.kind, self.called, self.mistakes, self.query, self.reset_button]),
            widgets.GridBox(ranges, layout={"grid_template_columns": "repeat(auto-fill, 270px)"}),
            self.message, self.table, row([self.back, self.forward, self.note]), self.truth, self.panel,
            row([self.file, self.export_button]), row([self.real, self.real_button, self.season])])
        if path:
            self._say(self.open)

    def _say(self, function, *arguments):
        try:
            self.message.value = function(*arguments) or self.message.value
        except Exception as error:  # whatever goes wrong belongs into the widget, not into a log that nobody sees
            self.message.value = f"<b style='color:#b00'>{html.escape(str(error))}</b>"

    def open(self):
        """Open the dataset (and predictions) named in the boxes."""
        dataset = open_dataset(self.path.value)
        try:
            events = table(dataset, self.predictions.value or None)
        except BaseException:
            dataset.close()
            raise
        if self.dataset is not None:
            self.dataset.close()
        self.dataset, self.events, self.notes = dataset, events, {}
        return self.filter()

    def filter(self):
        """Apply filters and sorting."""
        if self.dataset is None:
            raise ValueError("no dataset is open.")
        ranges = {name: tuple(number(b.value, name) for b in pair) for name, pair in self.limits.items()}
        self.selected = select(self.events, kind=self.kind.value, called=self.called.value, mistakes=self.mistakes.value,
                               ranges=ranges, query=self.query.value, sort=self.table.sort, descending=self.table.descending)
        self.go(0)
        said = f"{len(self.selected)} of {len(self.events)} events"
        return said if len(self.selected) else f"<b>no event passes the filters</b> ({said})"

    def clear(self):
        """Let every event pass."""
        self.kind.value = self.called.value = "any"
        self.mistakes.value, self.query.value = False, ""
        for pair in self.limits.values():
            for b in pair:
                b.value = ""
        return self.filter()

    def _on_table(self, content):
        first = self.at // PAGE * PAGE
        if "sort" in content:
            with self.table.hold_sync():
                self.table.descending = content["sort"] == self.table.sort and not self.table.descending
                self.table.sort = content["sort"]
            return self.filter()
        if "choose" in content:
            self.go(first + content["choose"])
        elif "move" in content:
            how = content["move"]
            self.go({"first": 0, "last": len(self.selected) - 1, "page": self.at + PAGE, "-page": self.at - PAGE}[how]
                    if isinstance(how, str) else self.at + how)
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
        self.drawing()

    @property
    def row(self) -> int | None:
        """The chosen event's row in the dataset; None if nothing is selected."""
        return int(self.selected["row"].iloc[self.at]) if len(self.selected) else None

    def show(self):
        """Draw the chosen event."""
        self.curve = None
        if self.row is None:
            panels.put(self.panel, dict.fromkeys(self.panel.names, panels.NOTHING), "no event passes the filters")
            self.truth.value = ""
            return
        flux, sigma, delta_t = self.dataset.flux(self.row), self.dataset.sigma(self.row), self.dataset.delta_t(self.row)
        seen, event = flux != 0, self.selected.iloc[self.at].to_dict()
        title = (f"row {self.row}: simulated {event['class']}, observable as {event['observable']}"
                 + (f", called {event['called']} with P(binary) = {event['p_binary']:.3f}" if event["called"] else "")
                 + f"; delta chi^2 = {event['delta_chi2_pspl']:.4g}")
        self._draw(self.dataset.timestamps[seen], flux[seen], sigma[seen], delta_t[seen], title, event)
        self.truth.value = "truth: " + ", ".join(
            f"{p} = {event[p]:.5g} {PARAMETERS[p].unit}".rstrip() for p in CLASS_PARAMETERS[event["class"]])

    def _draw(self, t, flux, sigma, delta_t, title, event=None):
        t, flux, sigma = t.astype(float), flux.astype(float), sigma.astype(float)
        self.curve = t, flux, delta_t
        self.view = prepare(t, flux, sigma, event)
        arrow, ranges = look_at(self.view["arrays"], "lenses") if len(self.view["arrays"]["lenses"]) else ({}, {})
        panels.put(self.panel, {**self.view["arrays"], **arrow}, title, PROBABILITIES if self.classifier else (), **ranges)

    def show_probabilities(self):
        """Draw what the classifier says of the chosen event as the season unfolds."""
        if self.classifier is not None and self.curve is not None:
            panels.put(self.panel, probabilities(self.classifier, *self.curve))

    def show_file(self, path):
        """Draw a season of a real light-curve file; the season box steps through them."""
        self.seasons = seasons(read_light_curve(path))
        self.season.max, self.season.value = len(self.seasons), 1
        return self.show_season()

    def show_season(self):
        """Draw the season of the real light curve that the box names, and say what the classifier calls it."""
        if not self.seasons:
            raise ValueError("no light curve is loaded.")
        s = self.seasons[self.season.value - 1]
        title = f"{s.name}, season {s.number} of {len(self.seasons)}: {len(s.time)} epochs"
        if self.classifier is not None:
            p = np.exp(self.classifier.log_prob(s.flux[None], s.delta_t[None])[0].astype(float))
            title += f", called {CLASSES[int(p.argmax())]} with P(binary) = {p[2]:.3f}"
            title += " (sparse: not its cadence)" if s.sparse else ""
        self._draw(s.time, s.flux, s.flux_err, s.delta_t, title)
        self.show_probabilities()
        self.truth.value = ""
        return html.escape(f"{s.name}: time in {s.time_system}" + (f", m_base = {s.m_base:.2f}" if s.m_base else ""))

    def write_note(self, text):
        """Keep a note on the chosen event; it goes into the export."""
        if self.row is not None:
            self.notes.pop(self.row, None)
            if text:
                self.notes[self.row] = text

    def export(self, path):
        """Write the selected events with their notes as CSV."""
        if Path(path).suffix != ".csv":
            raise ValueError(f"export to: came {path!s}, expected a name that ends in .csv.")
        if not len(self.selected):
            raise ValueError("no event is selected; nothing was written.")
        out = self.selected.assign(note=[self.notes.get(i, "") for i in self.selected["row"]])
        out.to_csv(path, index=False)
        return html.escape(f"{len(out)} events written to {path}")
