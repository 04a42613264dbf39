"""EventBrowser: filter, sort and step through the events of a dataset; notes and export.

    browser = EventBrowser("data/raw/test.h5", predictions="runs/quick/eval_test_.../predictions.h5", classifier=microlens.load())
    browser.widget

Parameters are a table in memory (a few hundred bytes an event); curves are read one at a time.
"""

from __future__ import annotations

import ipywidgets as widgets
import numpy as np
import pandas as pd

from microlens.config import CLASSES
from microlens.detectability import fit_single_lens, single_lens_model
from microlens.explore import panels
from microlens.lightcurve import read_light_curve, seasons
from microlens.store import open_dataset, read_predictions

PAGE = 200  # rows in the list; the filters narrow down
COLUMNS = ["class", "observable", "called", "p_binary", "delta_chi2_pspl", "m_base", "t_E", "u_0", "s", "q", "rho"]


def table(dataset, predictions=None) -> pd.DataFrame:
    """One row an event: true parameters and labels by name, and, with predictions, what was called and P(binary)."""
    out = dataset.params.copy()
    out["class"], out["observable"] = np.array(CLASSES)[out["label"]], np.array(CLASSES)[out["label_observable"]]
    out["called"], out["p_binary"] = "", np.nan
    if predictions is not None:
        arrays, _ = read_predictions(predictions)
        rows, p = arrays["row"], np.exp(arrays["log_p"].astype(float))
        if rows.max() >= len(out) or not np.array_equal(arrays["label"], out["label"].to_numpy()[rows]):
            raise ValueError(f"{predictions}: are not predictions of {dataset.path}.")
        out.loc[rows, "called"], out.loc[rows, "p_binary"] = np.array(CLASSES)[p.argmax(1)], p[:, 2]
    return out


def select(events: pd.DataFrame, *, kind="any", called="any", mistakes=False, query="", sort="row", descending=False) -> pd.DataFrame:
    """The events that pass the filters, sorted. query : a pandas expression, e.g. 'q < 1e-3 and m_base < 21'.

    Raises ValueError naming what is wrong with the query.
    """
    keep = np.ones(len(events), dtype=bool)
    if kind != "any":
        keep &= (events["class"] == kind).to_numpy()
    if called != "any":
        keep &= (events["called"] == called).to_numpy()
    if mistakes:
        keep &= ((events["called"] != "") & (events["called"] != events["observable"])).to_numpy()
    out = events[keep]
    if query.strip():
        try:
            out = out.query(query)
        except Exception as error:  # pandas raises whatever the expression provokes
            raise ValueError(f"the filter {query!r} is no expression of columns ({error}).") from error
    return out.sort_index(ascending=not descending) if sort == "row" else out.sort_values(sort, ascending=not descending)


def line(row: int, event: dict) -> str:
    """One event as a line of the list."""
    called = f" called {event['called']:7s} P(binary) {event['p_binary']:.3f}" if event["called"] else ""
    return (f"{row:7d}  {event['class']:7s} observable {event['observable']:7s}{called}  delta chi^2 {event['delta_chi2_pspl']:9.3g}"
            f"  m_base {event['m_base']:.2f}")


def prepare(t, flux, sigma, delta_t, params=None, classifier=None) -> dict:
    """Arrays (m, 2) by trace name of one light curve (valid epochs): curve, best single lens, residual, probabilities, lens plane."""
    fit = fit_single_lens(t, flux, sigma, finite_source=True)
    model = single_lens_model(t, fit)
    keep = np.arange(len(t)) % max(1, len(t) // 2000) == 0
    arrays = {"light curve": np.column_stack([t, np.maximum(flux, 1e-2)])[keep], "best single lens": np.column_stack([t, model])[keep],
              "residual": np.column_stack([t, (flux - model) / sigma])[keep]}
    if params is not None and np.isfinite(params.get("q", np.nan)):
        arrays |= panels.lens_plane(params, t[0], t[-1])
    if classifier is not None:
        p = np.exp(classifier.log_prob_prefixes(flux[None], delta_t[None]))[0]
        step = classifier.stem_stride
        for i, c in enumerate(CLASSES):
            arrays[f"P({c})"] = np.column_stack([t, p[:, i]])[step - 1 :: step]
    return {"arrays": arrays, "chi2": fit.chi2, "n": len(t), "fit": fit}


class EventBrowser:
    """Filters, a list to step through by keys or buttons, and the chosen event's panels; `widget` is what to display.

    path : dataset file.   predictions : a predictions.h5 of that file, optional.   classifier : from microlens.load(), optional.
    A missing or damaged file is a message in the widget.
    """

    def __init__(self, path=None, predictions=None, classifier=None):
        self.dataset, self.events, self.classifier, self.notes = None, pd.DataFrame(), classifier, {}
        self.path = widgets.Text(value=str(path or ""), description="dataset", layout={"width": "420px"})
        self.predictions = widgets.Text(value=str(predictions or ""), description="predictions", layout={"width": "420px"})
        self.open_button = widgets.Button(description="open")
        choices = ("any", *CLASSES)
        self.kind = widgets.Dropdown(options=choices, description="simulated", layout={"width": "190px"})
        self.called = widgets.Dropdown(options=choices, description="called", layout={"width": "190px"})
        self.mistakes = widgets.Checkbox(description="mistakes only", indent=False, layout={"width": "120px"})
        self.query = widgets.Text(placeholder="q < 1e-3 and delta_chi2_pspl > 160 and m_base < 21", description="filter",
                                  continuous_update=False, layout={"width": "420px"})
        self.sort = widgets.Dropdown(options=["row", *COLUMNS], description="sort by", layout={"width": "220px"})
        self.descending = widgets.Checkbox(description="descending", indent=False, layout={"width": "110px"})
        self.list = widgets.Select(rows=9, layout={"width": "880px"})
        self.back, self.forward = widgets.Button(description="< previous"), widgets.Button(description="next >")
        self.note = widgets.Text(description="note", continuous_update=False, layout={"width": "420px"})
        self.file = widgets.Text(value="selection.csv", description="export to", layout={"width": "300px"})
        self.export_button = widgets.Button(description="export selection")
        self.real = widgets.Text(description="light curve", placeholder="file of a real light curve", layout={"width": "420px"})
        self.real_button = widgets.Button(description="load")
        self.message, self.figure = widgets.HTML(), panels.figure(560)
        for w in (self.kind, self.called, self.mistakes, self.query, self.sort, self.descending):
            w.observe(lambda _: self._say(self.filter), "value")
        self.list.observe(panels.Latest(lambda: self._say(self.show)), "value")
        self.note.observe(lambda change: self._say(self.write_note, change["new"]), "value")
        self.open_button.on_click(lambda _: self._say(self.open))
        self.back.on_click(lambda _: self.step(-1))
        self.forward.on_click(lambda _: self.step(1))
        self.export_button.on_click(lambda _: self._say(self.export, self.file.value))
        self.real_button.on_click(lambda _: self._say(self.show_file, self.real.value))
        row = widgets.HBox
        self.widget = widgets.VBox([
            row([self.path, self.predictions, self.open_button]),
            row([self.kind, self.called, self.mistakes, self.sort, self.descending]),
            row([self.query, self.back, self.forward]), self.list, self.message, self.figure,
            row([self.note, self.file, self.export_button]), row([self.real, self.real_button])])
        if path:
            self._say(self.open)

    def _say(self, function, *arguments):
        try:
            self.message.value = function(*arguments) or self.message.value
        except Exception as error:  # whatever goes wrong belongs into the widget, not into a log that nobody sees
            self.message.value = f"<b style='color:#b00'>{error}</b>"

    def open(self):
        """Open the dataset (and predictions) named in the boxes."""
        dataset = open_dataset(self.path.value)
        events = table(dataset, self.predictions.value or None)
        if self.dataset is not None:
            self.dataset.close()
        self.dataset, self.events, self.notes = dataset, events, {}
        return self.filter()

    def filter(self):
        """Apply filters and sorting to the list."""
        self.selected = select(self.events, kind=self.kind.value, called=self.called.value, mistakes=self.mistakes.value,
                               query=self.query.value, sort=self.sort.value,
                               descending=self.descending.value)
        shown = self.selected.head(PAGE)
        lines = [line(i, e) for i, e in zip(shown.index, shown[COLUMNS].to_dict("records"), strict=True)]
        self.list.options = list(zip(lines, shown.index.tolist(), strict=True))
        if not lines:
            panels.put(self.figure, {}, "no event passes the filters")
        listed = f", the first {PAGE} listed" if len(self.selected) > PAGE else ""
        return f"{len(self.selected)} of {len(self.events)} events{listed}"

    def step(self, by: int):
        """Go to the next (1) or previous (-1) event of the list."""
        values = [v for _, v in self.list.options]
        if values:
            at = values.index(self.list.value) if self.list.value in values else 0
            self.list.value = values[min(max(at + by, 0), len(values) - 1)]

    def show(self):
        """Draw the event chosen in the list."""
        row = self.list.value
        if row is None:
            return None
        flux, delta_t, sigma = self.dataset.flux(row), self.dataset.delta_t(row), self.dataset.sigma(row)
        seen, event = flux != 0, self.events.loc[row]
        self.view = prepare(self.dataset.timestamps[seen], flux[seen].astype(float), sigma[seen].astype(float),
                            delta_t[seen].astype(float), event.to_dict(), self.classifier)
        self.note.value = self.notes.get(row, "")
        panels.put(self.figure, self.view["arrays"], f"row {row}: simulated {event['class']}, observable as {event['observable']}"
                   + (f", called {event['called']}" if event["called"] else "") + f"; delta chi^2 = {event['delta_chi2_pspl']:.4g}")
        return None

    def show_file(self, path):
        """Draw the first season of a real light-curve file."""
        season = seasons(read_light_curve(path))[0]
        view = prepare(season.time, season.flux.astype(float), season.flux_err.astype(float), season.delta_t.astype(float), None,
                       self.classifier)
        panels.put(self.figure, view["arrays"], f"{season.name}, season {season.number}: {len(season.time)} epochs")
        return f"{path}: {season.time_system}"

    def write_note(self, text):
        """Keep a note on the chosen event; it goes into the export."""
        if self.list.value is not None:
            self.notes.pop(self.list.value, None)
            if text:
                self.notes[self.list.value] = text

    def export(self, path):
        """Write the selected events with their notes as CSV."""
        out = self.selected.assign(note=[self.notes.get(i, "") for i in self.selected.index])
        out.to_csv(path, index_label="row")
        return f"{len(out)} events written to {path}"
