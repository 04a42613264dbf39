"""train(config) -> run folder. One code path for the notebook, papermill and torchrun.

    run = train(TrainConfig(data="data/raw/test.h5", epochs=5))
    torchrun --nproc-per-node=2 -m microlens train --data data/raw/test.h5 --epochs 5

Everything random is a function of (seed, epoch, batch, rank): the order of batches, dropout, the prefixes. So a resumed run is
the uninterrupted one, bit for bit on a CPU, also from the middle of an epoch. Ranks share a global batch; losses are sums
divided by global counts and gradients are summed over ranks, so 1 and 2 ranks train alike (exactly so without dropout).

The best epoch is the one of lowest validation loss (cross-entropy of log_p against the chosen labels, whole curves).
"""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from tqdm.auto import tqdm

from microlens import metrics, paths
from microlens.config import CLASSES, TrainConfig
from microlens.dataset import PackedDataset, batches, split_rows
from microlens.model import ARCHITECTURE, from_config, loss_parts, n_parameters, read_checkpoint
from microlens.store import atomic

log = logging.getLogger("microlens")
N_PREFIXES = 16  # they cost a head each, the network itself runs once
# May differ between a run and its continuation.
NOT_COMPARED = ("resume", "wall_minutes", "output", "experiment_name", "save_every", "checkpoint_minutes", "device", "threads",
                "data")


class Interrupted(Exception):
    """Training stopped early, with a good checkpoint, for the stated reason."""


def default_name(config: TrainConfig) -> str:
    """d64_l4_hier_YYYYMMDD_HHMMSS."""
    head = "hier" if config.hierarchical else "flat"
    return f"d{config.d_model}_l{config.n_layers}_{head}_{time.strftime('%Y%m%d_%H%M%S')}"


def choose_device(config: TrainConfig) -> torch.device:
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device = 'cuda', but torch finds no GPU; choose --device cpu or auto.")
    use = "cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu"
    if use == "cuda":
        use = f"cuda:{int(os.environ.get('LOCAL_RANK', 0)) % torch.cuda.device_count()}"
    log.info("device %s (%s)", use, "asked for" if config.device != "auto" else "auto: a GPU if torch finds one")
    return torch.device(use)


class Ranks:
    """This process among those that torchrun started; alone without torchrun."""

    def __init__(self):
        self.size, self.rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
        self.started = False
        if self.size > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
            self.started = True

    def total(self, *values: float) -> list[float]:
        """Sums of numbers over ranks."""
        if self.size == 1:
            return list(values)
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        t = torch.tensor(values, dtype=torch.float64, device=device)
        dist.all_reduce(t)
        return t.tolist()

    def sum_gradients(self, parameters):
        if self.size == 1:
            return
        for p in parameters:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
            dist.all_reduce(p.grad)

    def share(self, rows):
        return rows[self.rank :: self.size]

    def name(self, value: str) -> str:
        """Rank 0's value of a string, everywhere."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box)
        return box[0]

    def close(self):
        if self.started:
            dist.destroy_process_group()


def learning_rate(step: int, total: int, warmup: int, peak: float) -> float:
    """Linear warm-up, then cosine down to a hundredth of the peak."""
    if step < warmup:
        return peak * (step + 1) / warmup
    part = (step - warmup) / max(total - warmup, 1)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(part, 1.0))))


def stream_seed(*key: int) -> int:
    return int(np.random.SeedSequence(key).generate_state(1)[0])


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


class Trainer:
    """The state of one training; `train` is the way to use it."""

    def __init__(self, config: TrainConfig, ranks: Ranks, progress: bool, on_epoch=None):
        self.config, self.ranks, self.progress, self.on_epoch = config, ranks, progress, on_epoch
        self.device = choose_device(config)
        if config.threads:
            torch.set_num_threads(config.threads)
        self.data = PackedDataset(config.data, config.view, progress)
        self.labels = self.data.labels if config.labels == "simulated" else self.data.labels_observable
        self.train_rows, self.val_rows, self.test_rows = split_rows(self.data.labels, config.seed, config.val_fraction,
                                                                    config.test_fraction)
        if not len(self.train_rows) or not len(self.val_rows):
            raise ValueError(f"{config.data}: {self.data.n_events} events leave {len(self.train_rows)} for training and "
                             f"{len(self.val_rows)} for validation; simulate more or change val_fraction, test_fraction.")
        torch.manual_seed(config.seed)
        self.model = from_config(config.to_dict()).to(self.device)
        self.model.set_scaling(*(None if a is None else torch.from_numpy(a) for a in self.data.gather(self.train_rows[:512])))
        decay = [p for p in self.model.parameters() if p.ndim > 1]
        other = [p for p in self.model.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW([{"params": decay, "weight_decay": config.weight_decay},
                                            {"params": other, "weight_decay": 0.0}], lr=config.lr)
        self.bf16 = config.precision == "bf16" or (config.precision == "auto" and self.device.type == "cuda"
                                                   and torch.cuda.is_bf16_supported())
        log.info("precision %s (%s)", "bf16" if self.bf16 else "fp32", config.precision)
        self.epoch = self.batch = self.step = 0
        self.best = math.inf
        self.since_best = 0
        self.sums: dict[str, float] = {}
        self.stop_reason = ""

    def start_from(self, path: Path, saved: dict):
        """Take the weights and the scaling of another run; its training events must not be held out here."""
        if saved.get("identity") == self.data.identity:
            held_out = np.concatenate([self.val_rows, self.test_rows])
            shared = np.intersect1d(saved["rows"]["train"].numpy(), held_out).size
            if shared:
                raise ValueError(f"--initial {path} was trained on {shared} of the {len(held_out)} events that are held out here; "
                                 "give its --seed, --val-fraction and --test-fraction, or other data.")
        self.model.load_state_dict(saved["model"])
        log.info("starting from %s, its epoch %d", path, saved["epoch"])

    # ---- one batch ------------------------------------------------------------------------------------------------------

    def tensors(self, rows):
        f, d, n, extra = self.data.gather(rows)
        f, d, extra = (None if a is None else torch.from_numpy(a).to(self.device) for a in (f, d, extra))
        return f, d, n, extra

    def prefixes(self, rows, lengths, batch_rows):
        """Steps (n, k), labels and weights: the whole curve, then N_PREFIXES random prefixes of what is observable by then."""
        config, stride = self.config, self.config.stem_stride
        full = lengths // stride
        steps, labels = full[:, None], self.labels[rows][:, None]
        weight = np.ones_like(steps, dtype=np.float32)
        if config.labels == "observable" and config.prefix_weight > 0:
            # Drawn for the whole global batch, so that ranks agree with a single process.
            rng = np.random.default_rng(np.random.SeedSequence(config.seed, spawn_key=(13, self.epoch, self.batch)))
            drawn = rng.random((len(batch_rows), N_PREFIXES))[self.ranks.rank :: self.ranks.size]
            random = np.floor(drawn * full[:, None]).astype(np.int64) + 1
            steps = np.concatenate([steps, np.minimum(random, full[:, None])], axis=1)
            labels = np.concatenate([labels, self.data.prefix_labels(rows, steps[:, 1:] * stride)], axis=1)
            weight = np.concatenate([weight, np.full((len(rows), N_PREFIXES), config.prefix_weight / N_PREFIXES,
                                                     np.float32)], axis=1)
        return steps, labels, weight

    def loss(self, batch_rows):
        """Loss of this rank's share, normalised by the global batch; adds to the sums of the epoch."""
        config, ranks = self.config, self.ranks
        rows = ranks.share(batch_rows)
        f, d, n, extra = self.tensors(rows)
        steps, labels, weight = self.prefixes(rows, n, batch_rows)
        w, w_event = ranks.total(float(weight.sum()), float((weight * (labels != 0)).sum()))
        if len(rows) == 0:
            return None
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            out = self.model(f, d, torch.from_numpy(steps).to(self.device), extra)
        parts = loss_parts(out, torch.from_numpy(labels).to(self.device), torch.from_numpy(weight).to(self.device), config)
        scale = {"stage1": config.stage1_weight / w, "stage2": config.stage2_weight / max(w_event, 1e-9),
                 "aux": config.aux_weight / w}
        total = sum(parts[k] * scale[k] for k in parts)
        if not torch.isfinite(total):
            raise FloatingPointError(f"the loss is {total.item()} in batch {self.batch} of epoch {self.epoch}, events "
                                     f"{rows[:20].tolist()}{' ...' if len(rows) > 20 else ''}; lower --lr or look at them.")
        for k, v in parts.items():
            self.sums[k] = self.sums.get(k, 0.0) + float(v.detach()) * scale[k]
        self.sums["loss"] = self.sums.get("loss", 0.0) + float(total.detach())
        return total

    def run_epoch(self, bar):
        config, ranks = self.config, self.ranks
        order = batches(self.train_rows, config.batch_size, config.seed, self.epoch)
        per_epoch = math.ceil(len(order) / config.accumulation_steps)
        total, warmup = per_epoch * config.epochs, round(per_epoch * config.warmup_epochs)
        self.model.train()
        while self.batch < len(order):
            torch.manual_seed(stream_seed(config.seed, 14, self.epoch, self.batch, ranks.rank))
            loss = self.loss(order[self.batch])
            if loss is not None:
                (loss / config.accumulation_steps).backward()
            bar.update(len(order[self.batch]))
            self.batch += 1
            if self.batch % config.accumulation_steps and self.batch < len(order):
                continue
            ranks.sum_gradients(self.model.parameters())
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.grad_clip)
            self.lr = learning_rate(self.step, total, warmup, config.lr)
            for group in self.optimizer.param_groups:
                group["lr"] = self.lr
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.step += 1
            self.maybe_stop(len(order))

    def maybe_stop(self, n_batches):
        """Write a checkpoint when it is time, and stop when a signal or the clock says so (rank 0 decides for all)."""
        now = time.monotonic()
        over = self.config.wall_minutes and now - self.started > 60 * self.config.wall_minutes
        want = 2.0 * bool(self.stop_reason or over) + (now - self.saved_at > 60 * self.config.checkpoint_minutes)
        want = self.ranks.total(want if self.ranks.rank == 0 or self.stop_reason else 0.0)[0]
        if want:
            self.save_latest()
        if want >= 2:
            raise Interrupted(self.stop_reason or f"--wall-minutes {self.config.wall_minutes:g} is used up")

    # ---- validation -----------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def validate(self) -> dict:
        self.model.eval()
        rows = self.ranks.share(self.val_rows)
        log_p = np.zeros((len(self.val_rows), 3))
        for i in range(0, len(rows), self.config.batch_size):
            part = rows[i : i + self.config.batch_size]
            f, d, n, extra = self.tensors(part)
            steps = torch.from_numpy(n // self.config.stem_stride)[:, None].to(self.device)
            at = np.searchsorted(self.val_rows, part)
            log_p[at] = self.model(f, d, steps, extra)["log_p"][:, 0].float().cpu().numpy()
        if self.ranks.size > 1:
            t = torch.from_numpy(log_p).to(self.device if dist.get_backend() == "nccl" else "cpu")
            dist.all_reduce(t)
            log_p = t.cpu().numpy()
        labels, p = self.labels[self.val_rows], np.exp(log_p)
        called = p.argmax(1)
        out = {"val_loss": float(-log_p[np.arange(len(labels)), labels].mean()), "val_accuracy": float((called == labels).mean())}
        for c, name in enumerate(CLASSES):
            out[f"recall_{name}"] = float((called[labels == c] == c).mean()) if (labels == c).any() else None
        ap = metrics.average_precision(labels == 2, p[:, 2], metrics.class_mix(self.data.labels[self.val_rows]))
        out["val_average_precision"] = None if np.isnan(ap) else ap
        return out

    # ---- files ----------------------------------------------------------------------------------------------------------

    def content(self, full: bool) -> dict:
        out = {"model": self.model.state_dict(), "config": self.config.to_dict(), "epoch": self.epoch, "best": self.best,
               "identity": self.data.identity, "timestamps": torch.from_numpy(self.data.timestamps),
               "rows": {k: torch.from_numpy(v.astype(np.int32)) for k, v in zip(("train", "val", "test"),
                                                               (self.train_rows, self.val_rows, self.test_rows), strict=True)}}
        if full:
            out |= {"optimizer": self.optimizer.state_dict(), "batch": self.batch, "step": self.step, "sums": dict(self.sums),
                    "since_best": self.since_best}
        return out

    def save_latest(self):
        self.saved_at = time.monotonic()
        if self.ranks.rank == 0:
            save(self.run / "checkpoints" / "checkpoint_latest.pt", self.content(True))

    def restore(self, saved: dict):
        differing = self.config.differences(saved["config"], NOT_COMPARED)
        if differing:
            raise ValueError(f"{self.run.name} was trained with another configuration: {'; '.join(differing)}. Resume with the "
                             "same one, or start a new run.")
        if saved["identity"] != self.data.identity:
            raise ValueError(f"{self.run.name} was trained on other data than {self.config.data}: {saved['identity'][:200]}.")
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        for k in ("epoch", "batch", "step", "best", "since_best"):
            setattr(self, k, saved[k])
        self.sums = dict(saved["sums"])

    def append_log(self, record: dict):
        if self.ranks.rank:
            return
        path = self.run / "log.jsonl"
        lines = [x for x in (path.read_text().splitlines() if path.exists() else []) if json.loads(x)["epoch"] < record["epoch"]]
        with atomic(path) as temporary:
            temporary.write_text("\n".join([*lines, json.dumps(record)]) + "\n")

    # ---- the whole ------------------------------------------------------------------------------------------------------

    def fit(self, run: Path):
        config = self.config
        self.run, self.started = run, time.monotonic()
        self.saved_at = self.started
        if self.ranks.rank == 0:
            log.info("run %s: %d parameters, %d/%d/%d events to train/validate/hold out", run, n_parameters(self.model),
                     len(self.train_rows), len(self.val_rows), len(self.test_rows))
        with tqdm(total=config.epochs * len(self.train_rows), unit="event", desc=f"train {run.name}",
                  initial=self.epoch * len(self.train_rows) + self.batch * config.batch_size,
                  disable=not self.progress or self.ranks.rank > 0) as bar:
            while self.epoch < config.epochs:
                begun, first = time.monotonic(), self.batch
                self.run_epoch(bar)
                n_batches = math.ceil(len(self.train_rows) / config.batch_size)
                names = sorted(self.sums)
                sums = dict(zip(names, self.ranks.total(*(self.sums[k] for k in names)), strict=True))
                seconds = time.monotonic() - begun
                done = (n_batches - first) * config.batch_size
                record = {"epoch": self.epoch + 1, "step": self.step, "lr": self.lr, "train_loss": sums["loss"] / n_batches,
                          **{k: sums[k] / n_batches for k in sums if k != "loss"}, **self.validate(),
                          "events_per_second": min(done, len(self.train_rows)) / seconds, "seconds": time.monotonic() - begun}
                better = record["val_loss"] < self.best
                self.best, self.since_best = (record["val_loss"], 0) if better else (self.best, self.since_best + 1)
                self.epoch, self.batch, self.sums = self.epoch + 1, 0, {}
                if better and self.ranks.rank == 0:
                    save(run / "best.pt", self.content(False))
                if config.save_every and self.epoch % config.save_every == 0 and self.ranks.rank == 0:
                    save(run / f"epoch_{self.epoch:03d}.pt", self.content(True))
                self.append_log(record)
                self.save_latest()
                if self.on_epoch is not None:
                    self.on_epoch(record)
                bar.set_postfix(val_loss=f"{record['val_loss']:.3f}", val_acc=f"{record['val_accuracy']:.3f}")
                if config.patience and self.since_best >= config.patience:
                    log.info("no improvement for %d epochs: stopping early", config.patience)
                    break
                self.maybe_stop(n_batches)
        if self.ranks.rank == 0:
            (run / "complete").write_text(f"{self.epoch} epochs\n")


def train(config: TrainConfig, progress: bool = True, on_epoch=None) -> Path:
    """Train, and return the run folder: config.json, log.jsonl, best.pt, epoch_NNN.pt, checkpoints/checkpoint_latest.pt.

    on_epoch(record) is called after each epoch with its line of the log. With config.resume a run is continued; a complete one is
    returned as it is. SIGTERM, SIGUSR1 and --wall-minutes stop after
    the batch in hand with a good checkpoint, and log so. Raises ValueError for a configuration or data that do not fit,
    FloatingPointError for a loss that is not finite.
    """
    ranks = Ranks()
    try:
        resumed = find_resume(config)
        run = resumed or paths.runs_dir(config.output) / ranks.name(config.experiment_name or default_name(config))
        if resumed is None and (run / "config.json").exists():
            raise ValueError(f"run {run} exists; continue it with --resume {run.name}, or give another --experiment-name.")
        saved = usable_checkpoint(run) if resumed else None
        initial = read_initial(config) if config.initial is not None and not saved else None
        trainer = Trainer(config, ranks, progress, on_epoch)
        trainer.run = run
        if saved:
            trainer.restore(saved)
            log.info("resuming %s at epoch %d, batch %d", run.name, trainer.epoch, trainer.batch)
            if (run / "complete").exists():
                log.info("%s is complete", run.name)
                return run
        if initial:
            trainer.start_from(*initial)
        if not saved and ranks.rank == 0:
            with atomic(run / "config.json") as temporary:
                temporary.write_text(json.dumps(config.to_dict(), indent=1, sort_keys=True) + "\n")
        previous = {}

        def ask_to_stop(number, _frame):
            trainer.stop_reason = f"signal {signal.Signals(number).name}"

        try:
            for s in (signal.SIGTERM, signal.SIGUSR1):
                previous[s] = signal.signal(s, ask_to_stop)
        except ValueError:
            log.info("not the main thread: signals are left alone")
        try:
            trainer.fit(run)
        except Interrupted as reason:
            log.warning("stopped: %s. Continue with --resume %s.", reason, run.name)
        finally:
            for s, handler in previous.items():
                signal.signal(s, handler)
        return run
    finally:
        ranks.close()
