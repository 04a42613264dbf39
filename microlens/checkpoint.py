"""What a run keeps: which folder a training uses, the checkpoint from which it goes on or starts, the classifier of a run.

    run, saved, complete, initial = look(config)          save(run / "best.pt", content)          classifier = load_run("d64_l4_hier")
"""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path

import torch

from microlens import paths
from microlens.config import TrainConfig
from microlens.model import ARCHITECTURE, Classifier, choose_device, from_config
from microlens.store import atomic

log = logging.getLogger("microlens")
# May differ between a run and its continuation.
NOT_COMPARED = ("resume", "wall_minutes", "output", "experiment_name", "save_every", "checkpoint_minutes", "device",
                "data_on_device", "threads", "data")


def read_checkpoint(path) -> dict:
    """A checkpoint's dict; tensors and plain values only, so loading cannot run code. ValueError if it is damaged."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # torch raises a dozen types for a damaged file
        raise ValueError(f"{path}: not a readable checkpoint ({type(error).__name__}: {str(error).splitlines()[0]}).") from error


def load_run(name=None, checkpoint="best", device="cpu") -> Classifier:
    """See microlens.load."""
    folder = None
    if name is None:
        shipped = paths.weights_dir() / "baseline"
        runs = [r for r in paths.list_runs() if (r / "best.pt").is_file()]
        folder = shipped if (shipped / "best.pt").is_file() else (runs[-1] if runs else None)
        if folder is None:
            raise FileNotFoundError(f"no trained classifier in {paths.runs_dir()}; `python -m microlens train --data FILE` makes "
                                    "one (or `make run` the quick one).")
    else:
        shipped = paths.weights_dir() / str(name)
        folder = shipped if (shipped / "best.pt").is_file() else paths.find_run(str(name))
    file = {"latest": "checkpoints/checkpoint_latest.pt"}.get(checkpoint, f"{checkpoint}.pt")
    path = folder / file
    if not path.is_file():
        raise FileNotFoundError(f"run {folder.name} has no {file}; its training has not got that far.")
    saved = read_checkpoint(path)
    classifier = from_config(saved["config"])
    classifier.load_state_dict(saved["model"])
    classifier.config, classifier.run, classifier.saved = saved["config"], folder, saved
    return classifier.to(choose_device(device)).eval()


def default_name(config: TrainConfig) -> str:
    """d64_l4_hier_YYYYMMDD_HHMMSS."""
    head = "hier" if config.hierarchical else "flat"
    return f"d{config.d_model}_l{config.n_layers}_{head}_{time.strftime('%Y%m%d_%H%M%S')}"


def find_resume(config: TrainConfig) -> Path | None:
    """The run folder to continue, or None. 'auto': the newest unfinished run of the same configuration."""
    if config.resume is None:
        return None
    if config.resume != "auto":
        given = Path(config.resume)
        if given.is_file():
            return given.parent.parent if given.parent.name == "checkpoints" else given.parent
        return paths.find_run(config.resume, config.output)
    for run in reversed(paths.list_runs(config.output)):
        if config.experiment_name is not None and run.name != config.experiment_name:
            continue
        try:
            stated = json.loads((run / "config.json").read_text())
        except ValueError:
            continue
        if not config.differences(stated, NOT_COMPARED) and Path(stated["data"]).name == Path(config.data).name:
            return run
    return None


def usable_checkpoint(run: Path) -> dict | None:
    """The newest readable checkpoint of a run; damaged ones are reported and skipped."""
    for path in [run / "checkpoints" / "checkpoint_latest.pt", *sorted(run.glob("epoch_*.pt"), reverse=True)]:
        if path.is_file():
            try:
                saved = read_checkpoint(path)
            except ValueError as error:
                log.warning("%s Going back to the one before it.", error)
                continue
            if "optimizer" in saved:
                return saved
    return None


def read_initial(config: TrainConfig) -> tuple[Path, dict]:
    """The checkpoint (path and content) that `config.initial` names: a file, a folder, a shipped network, or a part of a run's name.

    Raises FileNotFoundError or ValueError; the latter names the fields of the architecture in which it differs.
    """
    path = Path(config.initial)
    if not path.is_file():
        folders = [path, paths.weights_dir() / config.initial]
        folder = next((f for f in folders if (f / "best.pt").is_file()), None) or paths.find_run(config.initial, config.output)
        path = folder / "best.pt"
        if not path.is_file():
            raise FileNotFoundError(f"run {folder.name} has no best.pt; its training has not got that far.")
    saved = read_checkpoint(path)
    # A field that came after the checkpoint was written had its default then. Dropout has no weights.
    there, here = {**TrainConfig().to_dict(), **saved["config"]}, config.to_dict()
    differing = [f"{k}: here {here[k]!r}, there {there[k]!r}" for k in ARCHITECTURE if k != "dropout" and here[k] != there[k]]
    if differing:
        raise ValueError(f"--initial {path}: another architecture: {'; '.join(differing)}. Give the same one, or start without.")
    return path, saved


def save(path: Path, content: dict):
    with atomic(path) as temporary:
        torch.save(content, temporary)


def append_log(run: Path, record: dict):
    """Add an epoch's line to log.jsonl; lines of that epoch or later, of a run that was set back, go."""
    path = run / "log.jsonl"
    lines = [x for x in (path.read_text().splitlines() if path.exists() else []) if json.loads(x)["epoch"] < record["epoch"]]
    with atomic(path) as temporary:
        temporary.write_text("\n".join([*lines, json.dumps(record)]) + "\n")


def look(config: TrainConfig):
    """(run folder, checkpoint to go on from or None, whether the run is complete, what --initial gives or None)."""
    run = find_resume(config)
    if run is None:
        run = paths.runs_dir(config.output) / (config.experiment_name or default_name(config))
        if (run / "config.json").exists():
            raise ValueError(f"run {run} exists; continue it with --resume {run.name}, or give another --experiment-name.")
    saved = usable_checkpoint(run)
    initial = read_initial(config) if config.initial is not None and not saved else None
    return run, saved, (run / "complete").exists(), initial
