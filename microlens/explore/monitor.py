"""TrainingMonitor: loss and recall of a run that is training here or elsewhere, read from its log.jsonl."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import ipywidgets as widgets
import numpy as np
from plotly.subplots import make_subplots

from microlens.config import CLASS_COLOURS, LENSING_CLASSES
from microlens.explore import panels
from microlens.explore.controls import Frame, Message, row
from microlens.files import find_run, runs_dir

LOSSES = {"train_loss": panels.GREY, "val_loss": CLASS_COLOURS["binary"]}
RECALLS = {f"recall_{c}": c for c in LENSING_CLASSES}
LINES = (*LOSSES, *RECALLS)
COLUMNS = ("epoch", *LINES, "val_accuracy", "events_per_second", "seconds")  # of a log that are shown
LATE = 3.0  # passes without a record after which a run is called silent
LEAST_LATE = 60.0  # s


def find_folder(run) -> Path:
    """The folder of a run, which need not exist yet: a path, or a run's name or a unique part of it."""
    path = Path(run).expanduser()
    if path.is_dir() or len(path.parts) > 1:
        return path
    try:
        return find_run(path.name)
    except FileNotFoundError:
        return runs_dir() / path


def read_log(run: Path) -> list[dict]:
    """The records of a run's log so far; a line that is still being written is left for the next look.

    Raises ValueError naming the line that is no record of a training.
    """
    path = run / "log.jsonl"
    text = path.read_text() if path.is_file() else ""
    records = []
    for number, line in enumerate(text[: text.rfind("\n") + 1].splitlines(), start=1):
        try:
            record = json.loads(line)
            missing = [k for k in COLUMNS if k not in record]
        except (ValueError, TypeError):
            record, missing = None, ["JSON"]
        if not isinstance(record, dict) or missing:
            raise ValueError(f"{path}, line {number}: is no record of a training (no {', '.join(missing)}).")
        records.append(record)
    return records


def duration(seconds: float) -> str:
    """A time in words: '42 s', '7 min', '3.1 h'."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def progress(run: Path, records: list[dict]) -> str:
    """How far a run has come, in HTML: passes, scores, time left, and how long ago its last sign of life was."""
    if not records:
        return f"{run}: no pass is finished yet" if run.is_dir() else f"no log of {run} yet"
    last = records[-1]
    try:
        passes = json.loads((run / "config.json").read_text())["epochs"]
    except (OSError, ValueError, KeyError):  # a copied log alone
        passes = None
    said = [f"{run.name}: pass {last['epoch']}" + (f" of {passes}" if passes else ""),
            f"validation loss {last['val_loss']:.4f}", f"accuracy {last['val_accuracy']:.3f}",
            f"{last['events_per_second']:.0f} events/s"]
    if (run / "complete").exists():
        return ", ".join([*said, "complete"])
    age = time.time() - (run / "log.jsonl").stat().st_mtime
    if passes and age < last["seconds"]:
        said.append(f"about {duration((passes - last['epoch']) * last['seconds'] - age)} left")
    said.append(f"last record {duration(age)} ago")
    if age > max(LATE * last["seconds"], LEAST_LATE):
        said[-1] = f"<b>{said[-1]}: has it stopped?</b>"
    return ", ".join(said)


def curves() -> panels.Panel:
    """Empty panels: losses left, recall of each class right."""
    fig = make_subplots(rows=1, cols=2, subplot_titles=("loss", "recall (validation)"))
    for name, colour in LOSSES.items():
        fig.add_scatter(name=name, mode="lines+markers", line={"color": colour}, row=1, col=1)
    for name, c in RECALLS.items():
        line = {"color": CLASS_COLOURS[c], "dash": panels.DASH[c]}
        fig.add_scatter(name=name, mode="lines+markers", line=line, row=1, col=2)
    fig.update_xaxes(title_text="passes", rangemode="tozero")
    fig.update_yaxes(range=[0, 1.02], row=1, col=2)
    return panels.Panel(panels.plain(fig, height=330, margin={"t": 40, "b": 45, "l": 50, "r": 10}, showlegend=True))


class TrainingMonitor:
    """Follows a run; `widget` is what to display.

    run : the path of its folder, which need not exist yet, or its name.   every : seconds between looks of `follow()`.
    """

    def __init__(self, run, every=5.0):
        self.run, self.every, self.panel, self.message = find_folder(run), every, curves(), Message()
        self.button = widgets.ToggleButton(description="follow", tooltip="look again every few seconds")
        self.button.observe(lambda change: self.follow(change["new"]), "value")
        self.stop = threading.Event()
        self.widget = Frame(row(self.button, self.message), self.panel)
        self.refresh()

    def refresh(self, *_):
        """Look at the log now."""
        self.message.attempt(self._read)

    def _read(self) -> str:
        records = read_log(self.run)
        points = {k: np.array([(r["epoch"], r[k]) for r in records], float).reshape(-1, 2) for k in LINES}
        panels.put(self.panel, points)
        return progress(self.run, records)

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
