"""The files of a run: which folder a training uses, its checkpoints, and a run as others read it.

    run = load_run("d48_l2_hier")          run.network.log_prob(flux, delta_t)          run.validation["log_p"]

A checkpoint holds tensors and plain values: the network, the configuration, which events the run was trained, validated
and held out on, and the network's output on the validation events, from which thresholds are chosen. So a checkpoint is
complete in itself. It is torch's zip archive, whose comment holds the SHA-256 of the rest, so no damage goes unnoticed.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from microlens import files
from microlens.config import CLASSES, LENSING_CLASSES, SimulateConfig, TrainConfig
from microlens.data.format import open_dataset
from microlens.data.simulation import row_order
from microlens.files import atomic
from microlens.network.model import ARCHITECTURE, Classifier, choose_device, from_config

log = logging.getLogger("microlens")
# May differ between a run and its continuation. Runs of version 0.1.0 state a device.
NOT_COMPARED = ("resume", "wall_minutes", "output", "experiment_name", "save_every", "device", "data", "extra_data")
SHIPPED_DEFAULT = "sky"
PARTS = ("train", "val", "test")
VALIDATION_FEATURES = "validation_features.npz"
LATEST = Path("checkpoints", "checkpoint_latest.pt")
DIGEST_LENGTH = 64  # hexadecimal digits of SHA-256

# ---- checkpoints ----------------------------------------------------------------------------------------------------


def _sealed(archive: bytes) -> bytes:
    """A zip archive without comment (its last two bytes, the comment's length, are 0) with its SHA-256 as comment."""
    digest = hashlib.sha256(archive).hexdigest().encode()
    return archive[:-2] + DIGEST_LENGTH.to_bytes(2, "little") + digest


def write_checkpoint(path: Path, content: dict):
    """Write a dict of tensors and plain values whole or not at all, with its checksum. Raises WriteError."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with atomic(path) as temporary:
        temporary.write_bytes(_sealed(buffer.getvalue()))


def read_checkpoint(path) -> dict:
    """What write_checkpoint wrote; tensors and plain values only, so loading cannot run code.

    Raises FileNotFoundError, or ValueError where the file is damaged or is no checkpoint.
    """
    sealed = Path(path).read_bytes()
    archive = sealed[: -2 - DIGEST_LENGTH] + bytes(2)
    if _sealed(archive) != sealed:
        raise ValueError(f"{path}: is damaged, or no checkpoint: its checksum does not fit.")
    try:
        return torch.load(io.BytesIO(archive), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen types for what it does not want to load
        reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        raise ValueError(f"{path}: is not a readable checkpoint ({reason}).") from error


def usable_checkpoint(run: Path) -> dict | None:
    """The newest readable checkpoint of a run that a training can go on from; damaged ones are reported and skipped."""
    for path in [run / LATEST, *sorted(run.glob("epoch_*.pt"), reverse=True)]:
        if path.is_file():
            try:
                return read_checkpoint(path)
            except ValueError as error:
                log.warning("%s Going back to the one before it.", error)
    return None


# ---- a run as others read it ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """A trained network and what is known of its training.

    config : its TrainConfig as a dict.   rows : {part: row numbers of the training file} for train, val and test.
    data : {checksum, config, stars} of the training file, and in `extra` those of the extra one.
    timestamps : (T,) days of its season.
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

    @property
    def digest(self) -> str:
        """SHA-256 of the network's weights and of what else makes its answers: its architecture and view."""
        digest = hashlib.sha256(json.dumps({name: self.config[name] for name in ARCHITECTURE}, sort_keys=True).encode())
        for name, tensor in sorted(self.network.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} ".encode() + tensor.cpu().numpy().tobytes())
        return digest.hexdigest()

    def parts_of(self, config: dict, stars=None) -> np.ndarray:
        """Which part of this run's events each row (N,) of a dataset is: 'train', 'val', 'test', or '' for none.

        config : the dataset's own configuration. An event is the same where seed, split, class and index are, whatever
        the number of events of the two files.   stars : (N,) names of the real stars that its events were put into; a
        star that this run knows makes the event one of that part, whatever was put into it.
        """
        if stars is not None:
            known = self.data.get("stars", {})
            return np.array([known.get(str(star), "") for star in stars], dtype="<U5")
        theirs, part_of = SimulateConfig.from_dict(config), {}
        mine = SimulateConfig.from_dict(self.data["config"])
        if (theirs.seed, theirs.split) == (mine.seed, mine.split):
            own = row_order(mine)
            part_of = {own[row]: part for part in PARTS for row in self.rows[part]}
        if "extra" in self.data:
            extra = SimulateConfig.from_dict(self.data["extra"]["config"])
            if (theirs.seed, theirs.split) == (extra.seed, extra.split):
                part_of |= dict.fromkeys(row_order(extra), "train")
        return np.array([part_of.get(event, "") for event in row_order(theirs)], dtype="<U5")


def shipped_networks() -> list[str]:
    """Names of the trained networks that come with the package."""
    return sorted(p.parent.name for p in files.weights_dir().glob("*/best.pt"))


def run_folder(checkpoint: Path) -> Path:
    """The run folder of a checkpoint file."""
    return checkpoint.parents[1] if checkpoint.parent.name == LATEST.parent.name else checkpoint.parent


def find_checkpoint(name: str | None, output: str | None = None) -> Path:
    """The checkpoint file of a network; unset means the shipped network `sky`.

    name : a shipped network, or a run's name or a unique part of it, of which the best checkpoint is taken; with a / or
    the ending .pt the path of a run's folder or of any of its checkpoints. output : folder of the runs.
    Raises FileNotFoundError (unknown) or ValueError (ambiguous); both list the candidates.
    """
    is_path = name is not None and ("/" in name or name.endswith(".pt"))
    path = Path(name) if is_path else _folder_of(name or SHIPPED_DEFAULT, output)
    file = path / "best.pt" if path.is_dir() else path
    if not file.is_file():
        there = ", ".join(str(p.relative_to(path)) for p in sorted(path.rglob("*.pt"))) or "none yet"
        raise FileNotFoundError(f"{file}: no such checkpoint; there are: {there}.")
    return file


def _folder_of(name: str, output: str | None) -> Path:
    """The folder of a shipped network or of a run, by name or a unique part of it."""
    if name not in shipped_networks():
        try:
            return files.find_run(name, output)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{error} The shipped networks are {', '.join(shipped_networks())}.") from None
    own = files.runs_dir(output) / name
    if (own / "config.json").is_file():
        raise ValueError(f"{name!r} is a shipped network and also the run {own}: rename the run's folder, "
                         "so that they can be told apart.")
    return files.weights_dir() / name


def load_run(name: str | None = None, device: str = "cpu", output: str | None = None) -> Run:
    """The run of a name or a path (see find_checkpoint) with its network on `device`, ready to answer.

    Raises FileNotFoundError, or ValueError for an ambiguous name, and for a checkpoint that is damaged or of another
    version of the package.
    """
    path = find_checkpoint(name, output)
    saved, folder = read_checkpoint(path), run_folder(path)
    try:
        classes = CLASSES if saved["data"]["config"].get("n_other", 0) else LENSING_CLASSES
        network = from_config(saved["config"], len(classes))
        network.load_state_dict(saved["model"])
        rows = {part: saved["rows"][part].numpy().astype(int) for part in PARTS}
        validation = {k: v.numpy() for k, v in saved["validation"].items()}
        data, timestamps = saved["data"], saved["timestamps"].numpy()
    except (KeyError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path}: is no checkpoint of this version of the package ({reason}); train again.") from error
    if not validation:
        raise ValueError(f"{path}: is of a training that has not finished its first pass; go on with it first.")
    network = network.to(choose_device(device)).eval()
    return Run(folder.name, folder, saved["config"], network, rows, data, timestamps, validation)


def export(name: str, folder) -> Path:
    """Copy what is needed to use a run into `folder`: network, configuration, log, validation features; no local paths.

    Returns the folder. Raises what load_run raises.
    """
    run, folder = load_run(name), Path(folder).expanduser()
    saved = read_checkpoint(find_checkpoint(name))
    own = {"data": Path(run.config["data"]).name, "output": None, "resume": None}
    own |= {name: Path(run.config[name]).name for name in ("initial", "extra_data") if run.config.get(name)}
    saved["config"] |= own
    folder.mkdir(parents=True, exist_ok=True)
    write_checkpoint(folder / "best.pt", saved)
    with atomic(folder / "config.json") as temporary:
        temporary.write_text(json.dumps(saved["config"], indent=1, sort_keys=True) + "\n")
    for kept in ("log.jsonl", VALIDATION_FEATURES):
        shutil.copy(run.folder / kept, folder / kept)
    return folder


# ---- a run as its training finds it ---------------------------------------------------------------------------------


def resolve_run(config: TrainConfig, held: contextlib.ExitStack) -> tuple[Path, dict | None, bool, Run | None]:
    """Where the training of a configuration begins. The folder is this process' own until `held` is closed.

    Returns the run folder; the checkpoint to go on from, or None; whether nothing is left to do; and the run whose
    weights are taken, or None. Raises ValueError, which says what to do, where the folder belongs to a training of
    other settings or data.
    """
    if config.experiment_name in shipped_networks():
        raise ValueError(f"experiment_name: {config.experiment_name!r} is the name of a shipped network; "
                         "give the run another one.")
    new = files.runs_dir(config.output) / (config.experiment_name or default_name(config))
    wanted = find_resume(config) or new
    path = wanted.with_name(f".{wanted.name}.lock")
    held.enter_context(files.lock_in_turn(path, f"another training is at work in {wanted}"))
    run = find_resume(config)  # once more: another training may have made it while this one waited
    if run is None:
        run = new
        if (run / "config.json").exists():
            raise ValueError(_taken(run, config.differences(_stated(run), NOT_COMPARED)))
    saved = usable_checkpoint(run)
    if saved is not None:
        _check_same(run, config, saved)
    initial = read_initial(config) if config.initial is not None and saved is None else None
    return run, saved, saved is not None and (run / "complete").exists(), initial


def default_name(config: TrainConfig) -> str:
    """d48_l2_hier_YYYYMMDD_HHMMSS."""
    head = "hier" if config.hierarchical else "flat"
    return f"d{config.d_model}_l{config.n_layers}_{head}_{time.strftime('%Y%m%d_%H%M%S')}"


def _stated(run: Path) -> dict:
    """A run's configuration; empty where its file is damaged."""
    try:
        return dict(json.loads((run / "config.json").read_text()))
    except (ValueError, TypeError):
        return {}


def find_resume(config: TrainConfig) -> Path | None:
    """The run folder to continue, or None. 'auto': the newest run of the same configuration and data file."""
    if config.resume is None:
        return None
    if config.resume != "auto":
        given = Path(config.resume)
        if given.is_file():
            return run_folder(given)
        return files.find_run(config.resume, config.output)
    for run in reversed(files.list_runs(config.output)):
        if config.experiment_name in (None, run.name):
            stated = _stated(run)
            same_data = all(Path(stated.get(name) or "").name == Path(getattr(config, name) or "").name
                            for name in ("data", "extra_data"))
            if stated and same_data and not config.differences(stated, NOT_COMPARED):
                return run
    return None


def _taken(run: Path, differing: list[str]) -> str:
    """What to do where a run's folder exists, with the same settings or with others."""
    another = ("Give this training a name of its own (experiment_name; on the command line --experiment-name), "
               "or remove the folder.")
    if not differing:
        return f"run {run} exists. Continue it with resume = 'auto' (on the command line --resume auto). {another}"
    return f"run {run} was trained with other settings, with which it can go on: {'; '.join(differing)}. {another}"


def _check_same(run: Path, config: TrainConfig, saved: dict):
    """Raise ValueError where a checkpoint is of another configuration or of other data."""
    differing = config.differences(saved["config"], NOT_COMPARED)
    if differing:
        raise ValueError(_taken(run, differing))
    known = saved["data"]
    for path, there in ((config.data, known), (config.extra_data, known.get("extra"))):
        if path is None and there is None:
            continue
        if path is None or there is None:
            came = "no extra data" if path is None else f"the extra data {path}"
            raise ValueError(f"run {run}: came {came}, and it was trained {'without' if there is None else 'with'} "
                             "such. Give the same files (--extra-data), or this training a name of its own.")
        with open_dataset(path) as data:
            if there["checksum"] != data.checksum:
                raise ValueError(f"run {run} was trained on other data than {path}: its events were made with "
                                 f"{there['config']}. Give that file, or this training a name of its own.")


def read_initial(config: TrainConfig) -> Run:
    """The run that `config.initial` names, as in find_checkpoint.

    Raises FileNotFoundError or ValueError; the latter names the fields of the architecture in which it differs.
    """
    run, here = load_run(config.initial, output=config.output), config.to_dict()
    names = [k for k in ARCHITECTURE if k != "dropout" and here[k] != run.config[k]]  # dropout has no weights
    if names:
        differing = "; ".join(f"{k}: here {here[k]!r}, there {run.config[k]!r}" for k in names)
        raise ValueError(f"--initial {config.initial}: another architecture: {differing}. Give the same one, or start "
                         "without.")
    return run


def append_log(run: Path, record: dict):
    """Add the line of a pass to log.jsonl; lines of that pass or later, of a run that was set back, go."""
    path = run / "log.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    earlier = [line for line in lines if json.loads(line)["epoch"] < record["epoch"]]
    with atomic(path) as temporary:
        temporary.write_text("\n".join([*earlier, json.dumps(record)]) + "\n")
