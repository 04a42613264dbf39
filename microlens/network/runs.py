"""The files of a run: which folder a training uses, its checkpoints, and a run as others read it.

    run = load_run("d64_l4_hier")          run.network.log_prob(flux, delta_t)          run.validation["log_p"]

A checkpoint holds tensors and plain values: the network, the configuration, which events the run was trained, validated and held
out on, and the network's output on the validation events, from which thresholds are chosen. So a checkpoint is complete in itself.
"""

from __future__ import annotations

import json
import logging
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from microlens import files
from microlens.config import SimulateConfig, TrainConfig
from microlens.data.simulation import row_order
from microlens.files import atomic
from microlens.network.model import ARCHITECTURE, Classifier, choose_device, from_config

log = logging.getLogger("microlens")
# May differ between a run and its continuation.
NOT_COMPARED = ("resume", "wall_minutes", "output", "experiment_name", "save_every", "device", "data")
SHIPPED_DEFAULT = "baseline"
PARTS = ("train", "val", "test")
VALIDATION_FEATURES = "validation_features.npz"


@dataclass(frozen=True)
class Run:
    """A trained network and what is known of its training.

    config : its TrainConfig as a dict.   rows : {part: row numbers of the training file} for train, val and test.
    data : {checksum, config} of the training file.   timestamps : (T,) days of its season.
    validation : the network's output on the validation rows, see predict.validation_outputs.
    """

    name: str
    folder: Path
    config: dict
    network: Classifier
    rows: dict
    data: dict
    timestamps: np.ndarray
    validation: dict

    def parts_of(self, config: dict) -> np.ndarray:
        """Which part of this run's events each row of a dataset is: 'train', 'val', 'test', or '' for an event of no part.

        config : the dataset's own configuration. An event is the same where seed, split, class and index are, whatever the
        number of events of the two files.
        """
        return parts_of(self.data, self.rows, config)


def parts_of(data: dict, rows: dict, config: dict) -> np.ndarray:
    """See Run.parts_of. data, rows : those of the run.   config : of the dataset."""
    theirs, mine = SimulateConfig.from_dict(config), SimulateConfig.from_dict(data["config"])
    events = row_order(theirs)
    if (theirs.seed, theirs.split) != (mine.seed, mine.split):
        return np.full(len(events), "", dtype="<U5")
    own = row_order(mine)
    part_of = {own[row]: part for part in PARTS for row in rows[part]}
    return np.array([part_of.get(event, "") for event in events], dtype="<U5")


def shipped_networks() -> list[str]:
    """Names of the trained networks that come with the package."""
    return sorted(p.parent.name for p in files.weights_dir().glob("*/best.pt"))


def read_checkpoint(path) -> dict:
    """A checkpoint's dict; tensors and plain values only, so loading cannot run code. ValueError if it is damaged."""
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch does not compare the checksums of its archive
        if damaged:
            raise ValueError(f"its part {damaged} has another checksum")
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # torch raises a dozen types for a damaged file
        raise ValueError(f"{path}: not a readable checkpoint ({type(error).__name__}: {str(error).splitlines()[0]}).") from error


def find_network(name: str | None, output: str | None = None) -> Path:
    """The folder of a shipped network or of a run, by its name or a unique part of it; unset means the shipped baseline network.

    Raises FileNotFoundError (unknown) or ValueError (ambiguous); both list the candidates.
    """
    if name is None:
        name = SHIPPED_DEFAULT
    if name not in shipped_networks():
        return files.find_run(name, output)
    own = files.runs_dir(output) / name
    if (own / "config.json").is_file():
        raise ValueError(f"{name!r} is a shipped network and also the run {own}: rename the run's folder to tell them apart.")
    return files.weights_dir() / name


def checkpoint_path(folder: Path, checkpoint: str) -> Path:
    """The file of a run's checkpoint best, latest or epoch_NNN. Raises FileNotFoundError that lists what there is."""
    path = folder / ("checkpoints/checkpoint_latest.pt" if checkpoint == "latest" else f"{checkpoint}.pt")
    if Path(checkpoint).name != checkpoint or not path.is_file():
        there = sorted(p.stem for p in folder.glob("*.pt")) + ["latest"] * (folder / "checkpoints/checkpoint_latest.pt").is_file()
        raise FileNotFoundError(f"run {folder.name} has no checkpoint {checkpoint!r}; it has {', '.join(there) or 'none yet'}.")
    return path


def load_run(name: str | None = None, checkpoint: str = "best", device: str = "cpu") -> Run:
    """The run of a name (see find_network) with its network on `device`, ready to answer.

    Raises FileNotFoundError, or ValueError for an ambiguous name or a damaged checkpoint.
    """
    folder = find_network(name)
    path = checkpoint_path(folder, checkpoint)
    saved = read_checkpoint(path)
    try:
        network = from_config(saved["config"])
        network.load_state_dict(saved["model"])
        rows = {part: saved["rows"][part].numpy().astype(int) for part in PARTS}
        validation = {k: v.numpy() for k, v in saved["validation"].items()}
        return Run(folder.name, folder, saved["config"], network.to(choose_device(device)).eval(), rows, saved["data"],
                   saved["timestamps"].numpy(), validation)
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"{path}: is no checkpoint of this version of the package ({error}); train it again.") from error


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
        return files.find_run(config.resume, config.output)
    for run in reversed(files.list_runs(config.output)):
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
        folder = path if (path / "best.pt").is_file() else find_network(config.initial, config.output)
        path = checkpoint_path(folder, "best")
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


def resolve_run(config: TrainConfig):
    """(run folder, checkpoint to go on from or None, whether the run is complete, what --initial gives or None)."""
    if config.experiment_name in shipped_networks():
        raise ValueError(f"experiment_name: {config.experiment_name!r} is the name of a shipped network; give the run another one.")
    run = find_resume(config)
    if run is None:
        run = files.runs_dir(config.output) / (config.experiment_name or default_name(config))
        if (run / "config.json").exists():
            raise ValueError(f"run {run} exists. To continue it, give its configuration and --resume {run.name}; to train another "
                             "one, give another --experiment-name or remove the folder.")
    saved = usable_checkpoint(run)
    initial = read_initial(config) if config.initial is not None and not saved else None
    return run, saved, (run / "complete").exists(), initial
