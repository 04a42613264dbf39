"""TrainingMonitor: loss and recall of a run that is training here or elsewhere, read from its log.jsonl."""

from __future__ import annotations

import html
import json
import threading
from pathlib import Path

import ipywidgets as widgets
import numpy as np
from plotly.subplots import make_subplots

from microlens.config import CLASSES
from microlens.explore import panels

LINES = ("train_loss", "val_loss", *(f"recall_{c}" for c in CLASSES))
SAID = ("val_accuracy", "events_per_second")


def prepare(run) -> list[dict]:
    """The records of a run's log so far; a line that is still being written is left for the next look.

    Raises ValueError naming the line that is no record of a training.
    """
    path = Path(run) / "log.jsonl"
    text = path.read_text() if path.is_file() else ""
    records = []
    for number, line in enumerate(text[: text.rfind("\n") + 1].splitlines(), start=1):
        try:
            record = json.loads(line)
            missing = [k for k in ("epoch", *LINES, *SAID) if k not in record]
        except (ValueError, TypeError):
            record, missing = None, ["JSON"]
        if not isinstance(record, dict) or missing:
            raise ValueError(f"{path}, line {number}: is no record of a training (no {', '.join(missing)}).")
        records.append(record)
    return records


def draw() -> panels.Panel:
    """Empty panels: losses left, recall of each class right."""
    fig = make_subplots(rows=1, cols=2, subplot_titles=("loss", "recall (validation)"))
    fig.add_scatter(name="train_loss", mode="lines+markers", line={"color": "#606060"}, row=1, col=1)
    fig.add_scatter(name="val_loss", mode="lines+markers", line={"color": "#D55E00", "dash": "dash"}, row=1, col=1)
    for c in CLASSES:
        fig.add_scatter(name=f"recall_{c}", mode="lines+markers", row=1, col=2,
                        line={"color": panels.COLOUR[c], "dash": panels.DASH[c]})
    fig.update_xaxes(title_text="epoch", rangemode="tozero")
    fig.update_yaxes(range=[0, 1.02], row=1, col=2)
    return panels.Panel(panels.plain(fig, height=330, margin={"t": 40, "b": 45, "l": 50, "r": 10}, showlegend=True))


class TrainingMonitor:
    """Follows a run folder; `widget` is what to display.

    run : path of the run folder (it need not exist yet).   every : seconds between looks while `follow()` is on.
    """

    def __init__(self, run, every=5.0):
        self.run, self.every, self.panel, self.message = Path(run), every, draw(), widgets.HTML()
        self.button = widgets.ToggleButton(description="follow", tooltip="look again every few seconds")
        self.button.observe(lambda change: self.follow(change["new"]), "value")
        self.stop = threading.Event()
        self.widget = widgets.VBox([widgets.HBox([self.button, self.message]), self.panel])
        self.refresh()

    def refresh(self, *_):
        """Look at the log now."""
        try:
            records = prepare(self.run)
        except (ValueError, OSError) as error:  # belongs into the widget, not into a log that nobody sees
            self.message.value = f"<b style='color:#b00'>{html.escape(str(error))}</b>"
            return
        panels.put(self.panel, {line: np.array([(r["epoch"], r[line]) for r in records], float).reshape(-1, 2) for line in LINES})
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
            complete = (self.run / "complete").exists()  # asked first, so that the last record is not missed
            self.refresh()
            if complete:
                return
