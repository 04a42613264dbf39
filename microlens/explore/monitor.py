"""TrainingMonitor: loss and recall of a run that is training here or elsewhere, read from its log.jsonl."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import ipywidgets as widgets
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from microlens.config import CLASSES
from microlens.explore.panels import COLOUR, DASH

LINES = ("train_loss", "val_loss", *(f"recall_{c}" for c in CLASSES))


def prepare(run) -> list[dict]:
    """The records of a run's log so far; a line that is being written is left for the next look."""
    path, records = Path(run) / "log.jsonl", []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    return records


def draw() -> go.FigureWidget:
    fig = make_subplots(rows=1, cols=2, subplot_titles=("loss", "recall (validation)"))
    fig.add_scatter(name="train_loss", mode="lines+markers", line={"color": "#606060"}, row=1, col=1)
    fig.add_scatter(name="val_loss", mode="lines+markers", line={"color": "#D55E00", "dash": "dash"}, row=1, col=1)
    for c in CLASSES:
        fig.add_scatter(name=f"recall_{c}", mode="lines+markers", line={"color": COLOUR[c], "dash": DASH[c]}, row=1, col=2)
    fig.update_xaxes(title_text="epoch")
    fig.update_yaxes(range=[0, 1.02], row=1, col=2)
    fig.update_layout(height=330, margin={"t": 40, "b": 40}, template="plotly_white")
    return go.FigureWidget(fig)


class TrainingMonitor:
    """Follows a run folder; `widget` is what to display.

    run : path of the run folder (it need not exist yet).   every : seconds between looks while `follow()` is on.
    """

    def __init__(self, run, every=5.0):
        self.run, self.every, self.figure, self.message = Path(run), every, draw(), widgets.HTML()
        self.button = widgets.ToggleButton(description="follow", tooltip="look again every few seconds")
        self.button.observe(lambda change: self.follow(change["new"]), "value")
        self.stop = threading.Event()
        self.widget = widgets.VBox([widgets.HBox([self.button, self.message]), self.figure])
        self.refresh()

    def refresh(self, *_):
        """Look at the log now."""
        records = prepare(self.run)
        with self.figure.batch_update():
            for trace in self.figure.data:
                trace.x = [r["epoch"] for r in records]
                trace.y = [r[trace.name] for r in records]
        if records:
            last, done = records[-1], " (complete)" if (self.run / "complete").exists() else ""
            self.message.value = (f"{self.run.name}{done}: epoch {last['epoch']}, validation loss {last['val_loss']:.4f}, "
                                  f"accuracy {last['val_accuracy']:.3f}, {last['events_per_second']:.0f} events/s")
        else:
            self.message.value = f"no log of {self.run} yet"

    def follow(self, on: bool = True):
        """Start or stop looking every few seconds, until the run is complete."""
        self.stop.set()
        if on:
            self.stop = threading.Event()
            threading.Thread(target=self._loop, args=(self.stop,), daemon=True).start()

    def _loop(self, stop):
        while not stop.wait(self.every):
            self.refresh()
            if (self.run / "complete").exists():
                return
