"""train(config) -> run folder. One code path for the notebook, papermill and torchrun.

    run = train(TrainConfig(data="data/raw/test.h5", epochs=5))
    torchrun --nproc-per-node=2 -m microlens train --data data/raw/test.h5 --epochs 5

Everything random is a function of (seed, epoch, batch, rank): the order of batches, dropout, the prefixes. So a resumed run is
the uninterrupted one, bit for bit on a CPU, also from the middle of an epoch. Ranks share a global batch; losses are sums
divided by global counts and gradients are summed over ranks, so 1 and 2 ranks train alike (exactly so without dropout).

With --fresh the training part is drawn anew in every pass (microlens.data.fresh); validation stays as it is in the file. Only rank 0
looks into the run folder and writes there.

The best pass is the one of lowest validation loss (cross-entropy of log_p against the chosen labels, whole curves).
"""

from __future__ import annotations

import json
import logging
import math
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import average_precision_score
from tqdm.auto import tqdm

from microlens.config import BINARY, CLASSES, DROPOUT_STREAM, FLAT, PREFIX_STREAM, TrainConfig
from microlens.data.fresh import FreshEvents
from microlens.data.packed import PackedDataset, batches, class_mix, residual_features, split_rows
from microlens.files import atomic
from microlens.network.attention import flash_attention
from microlens.network.model import choose_device, from_config, loss_parts, n_parameters
from microlens.network.predict import validation_outputs
from microlens.network.ranks import Ranks
from microlens.network.runs import NOT_COMPARED, PARTS, VALIDATION_FEATURES, append_log, parts_of, resolve_run, save

log = logging.getLogger("microlens")
N_PREFIXES = 16  # they cost a head each, the network itself runs once
GRADIENT_CLIP = 1.0  # largest norm of the gradient
CHECKPOINT_SECONDS = 300.0  # checkpoint_latest.pt is written at least this often
LOSS_PARTS = ("loss", "stage1", "stage2", "aux")


class Interrupted(Exception):
    """Training stopped early, with a good checkpoint, for the stated reason."""


def learning_rate(step: int, total: int, warmup: int, peak: float) -> float:
    """Linear warm-up, then cosine down to a hundredth of the peak."""
    if step < warmup:
        return peak * (step + 1) / warmup
    part = (step - warmup) / max(total - warmup, 1)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(part, 1.0))))


def stream_seed(*key: int) -> int:
    return int(np.random.SeedSequence(key).generate_state(1)[0])


class Trainer:
    """The state of one training; `train` is the way to use it."""

    def __init__(self, config: TrainConfig, ranks: Ranks, progress: bool, on_epoch=None):
        self.config, self.ranks, self.progress, self.on_epoch = config, ranks, progress, on_epoch
        self.device = choose_device(config.device)
        log.info("device %s (%s)", self.device, "asked for" if config.device != "auto" else "auto: a GPU if torch finds one")
        self.data = PackedDataset(config.data, config.view, config.stem_stride, progress)
        self.labels = self.data.labels if config.labels == "simulated" else self.data.labels_observable
        self.train_rows, self.val_rows, self.test_rows = split_rows(self.data.labels, config.seed)
        if not len(self.train_rows) or not len(self.val_rows):
            raise ValueError(f"{config.data}: {self.data.n_events} events leave {len(self.train_rows)} for training and "
                             f"{len(self.val_rows)} for validation; simulate more.")
        self.fresh = None
        if config.fresh:
            self.fresh = FreshEvents(config.data, config.seed, config.view, config.stem_stride, self.train_rows)
        torch.manual_seed(config.seed)
        self.model = from_config(config.to_dict()).to(self.device)
        self.model.set_scaling(*(None if a is None else torch.from_numpy(a) for a in self.data.gather(self.train_rows[:512])))
        decay = [p for p in self.model.parameters() if p.ndim > 1]
        other = [p for p in self.model.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW([{"params": decay, "weight_decay": config.weight_decay},
                                            {"params": other, "weight_decay": 0.0}], lr=config.lr)
        self.bf16 = self.device.type == "cuda" and torch.cuda.is_bf16_supported()
        log.info("precision %s (%s)", "bf16" if self.bf16 else "fp32", f"what {self.device} does best")
        if config.attention_pooling:
            flash, reason = flash_attention()
            self.model.flash = flash if self.bf16 else None
            log.info("attention of whole curves: %s (%s)", "flash-attn" if self.model.flash else "cumulative sums", reason)
        self.epoch = self.batch = self.step = 0
        self.best = math.inf
        self.sums = dict.fromkeys(LOSS_PARTS, 0.0)
        self.stop_reason = ""
        self.validation: dict = {}

    def start_from(self, path: Path, saved: dict):
        """Take the weights and the scaling of another run; its training events must not be held out here."""
        parts = parts_of(saved["data"], {k: v.numpy() for k, v in saved["rows"].items()}, self.data.config)
        held_out = np.concatenate([self.val_rows, self.test_rows])
        shared = int((parts[held_out] == "train").sum())
        if shared:
            raise ValueError(f"--initial {path} was trained on {shared} of the {len(held_out)} events that are held out here; give "
                             "its --seed, or data of another seed.")
        self.model.load_state_dict(saved["model"])
        log.info("starting from %s, its epoch %d", path, saved["epoch"])

    # ---- one batch ------------------------------------------------------------------------------------------------------

    def prepare(self, order, first):
        """This rank's share of the batches from `first` on that make one optimiser step: [(batch number, rows, events)]."""
        group = range(first, min(first + self.config.accumulation_steps, len(order)))
        shares = [(i, self.ranks.share(order[i])) for i in group]
        return [(i, rows, self.events(rows) if len(rows) else None) for i, rows in shares]

    def events(self, rows):
        """Training events: those of the file, or fresh ones."""
        return self.data.events(rows) if self.fresh is None else self.fresh.events(rows, epoch=self.epoch)

    def heads(self, network, events, steps):
        """The heads of `network` for `events` after `steps` (n, k) patches."""
        f, d, extra = (None if a is None else torch.as_tensor(a, device=self.device)
                       for a in (events.flux, events.delta_t, events.extra))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            return network(f, d, torch.from_numpy(steps).to(self.device), extra)

    def targets(self, events, batch, n_batch):
        """Steps, labels, weights (n, 1 + k): the whole curve, then N_PREFIXES random prefixes with what is observable by then.

        batch, n_batch : number and global size of the batch of which `events` are this rank's share.
        """
        config, stride = self.config, self.config.stem_stride
        full = events.lengths // stride
        steps = full[:, None]
        labels = (events.labels if config.labels == "simulated" else events.labels_observable)[:, None]
        weight = np.ones(steps.shape, dtype=np.float32)
        if config.labels == "observable" and config.prefix_weight > 0:
            # Drawn for the whole global batch, so that ranks agree with a single process.
            rng = np.random.default_rng(np.random.SeedSequence(config.seed, spawn_key=(PREFIX_STREAM, self.epoch, batch)))
            drawn = self.ranks.share(rng.random((n_batch, N_PREFIXES)))
            random = np.minimum(np.floor(drawn * full[:, None]).astype(np.int64) + 1, full[:, None])
            steps = np.concatenate([steps, random], axis=1)
            labels = np.concatenate([labels, events.prefix_labels(random * stride)], axis=1)
            weight = np.concatenate([weight, np.full(random.shape, config.prefix_weight / N_PREFIXES, np.float32)], axis=1)
        return steps, labels, weight

    def loss(self, events, targets, totals, where):
        """Loss of this rank's share of a batch, divided by the weights of the whole optimiser step; adds to the epoch's sums."""
        config, (steps, labels, weight) = self.config, targets
        out = self.heads(self.model, events, steps)
        parts = loss_parts(out, torch.from_numpy(labels).to(self.device), torch.from_numpy(weight).to(self.device))
        w, w_event = totals
        scale = {"stage1": config.stage1_weight / w, "stage2": config.stage2_weight / max(w_event, 1e-9),
                 "aux": config.aux_weight / w}
        total = sum(parts[k] * scale[k] for k in parts)
        if not torch.isfinite(total):
            raise FloatingPointError(f"the loss is {total.item()} in {where}")
        for k, v in parts.items():
            self.sums[k] += float(v.detach()) * scale[k]
        self.sums["loss"] += float(total.detach())
        return total

    def run_epoch(self, bar):
        config, ranks = self.config, self.ranks
        order = batches(self.train_rows, config.batch_size, config.seed, self.epoch)
        per_epoch = math.ceil(len(order) / config.accumulation_steps)
        total, warmup = per_epoch * config.epochs, round(per_epoch * config.warmup_epochs)
        self.model.train()
        with ThreadPoolExecutor(1) as ahead:  # the next step's events are made while the network works on this one's
            following = ahead.submit(self.prepare, order, self.batch)
            while self.batch < len(order):
                group = following.result()
                following = ahead.submit(self.prepare, order, self.batch + config.accumulation_steps)
                targets = [None if e is None else self.targets(e, i, len(order[i])) for i, _, e in group]
                weights = [(float(t[2].sum()), float((t[2] * (t[1] != FLAT)).sum())) for t in targets if t is not None]
                totals = ranks.total(sum(w for w, _ in weights), sum(w for _, w in weights))
                where = (f"batch {self.batch}{f' to {group[-1][0]}' if len(group) > 1 else ''} of epoch {self.epoch}, events "
                         f"{np.concatenate([rows for _, rows, _ in group])[:20].tolist()}; lower --lr or look at them.")
                for (i, rows, events), target in zip(group, targets, strict=True):
                    torch.manual_seed(stream_seed(config.seed, DROPOUT_STREAM, self.epoch, i, ranks.rank))
                    if len(rows):
                        self.loss(events, target, totals, where).backward()
                    bar.update(len(order[i]))
                self.batch += len(group)
                ranks.sum_gradients(self.model.parameters())
                norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), GRADIENT_CLIP)
                if not torch.isfinite(norm):
                    raise FloatingPointError(f"the gradient is {norm.item()} in {where}")
                for g in self.optimizer.param_groups:
                    g["lr"] = learning_rate(self.step, total, warmup, config.lr)
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)
                self.step += 1
                self.maybe_stop()

    def maybe_stop(self):
        """Write a checkpoint when it is time, and stop when a signal or the clock says so (rank 0 decides for all)."""
        now = time.monotonic()
        over = self.config.wall_minutes and now - self.started > 60 * self.config.wall_minutes
        want = 2.0 * bool(self.stop_reason or over) + (now - self.saved_at > CHECKPOINT_SECONDS)
        want = self.ranks.total(want if self.ranks.rank == 0 or self.stop_reason else 0.0)[0]
        if want:
            self.save_latest()
        if want >= 2:
            budget = f"--wall-minutes {self.config.wall_minutes:g} is used up"
            raise Interrupted(self.stop_reason or (budget if over else "another rank was told to"))

    # ---- validation -----------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def validate(self) -> dict:
        network = self.model.eval()
        rows = self.ranks.share(self.val_rows)
        log_p = np.zeros((len(self.val_rows), 3))
        for i in range(0, len(rows), self.config.batch_size):
            part = rows[i : i + self.config.batch_size]
            events, at = self.data.events(part), np.searchsorted(self.val_rows, part)
            out = self.heads(network, events, events.lengths[:, None] // self.config.stem_stride)
            log_p[at] = out["log_p"][:, 0].float().cpu().numpy()
        log_p = self.ranks.sum_array(log_p)
        labels, p = self.labels[self.val_rows], np.exp(log_p)
        called = p.argmax(1)
        out = {"val_loss": float(-log_p[np.arange(len(labels)), labels].mean()), "val_accuracy": float((called == labels).mean())}
        for c, name in enumerate(CLASSES):
            out[f"recall_{name}"] = float((called[labels == c] == c).mean()) if (labels == c).any() else None
        binary, weight = labels == BINARY, class_mix(self.data.labels[self.val_rows])
        both = 0 < binary.sum() < len(binary)
        out["val_average_precision"] = float(average_precision_score(binary, p[:, BINARY], sample_weight=weight)) if both else None
        return out

    # ---- files ----------------------------------------------------------------------------------------------------------

    def content(self, full: bool) -> dict:
        rows = zip(PARTS, (self.train_rows, self.val_rows, self.test_rows), strict=True)
        out = {"model": self.model.state_dict(), "config": self.config.to_dict(), "epoch": self.epoch, "best": self.best,
               "data": {"checksum": self.data.checksum, "config": self.data.config},
               "timestamps": torch.from_numpy(self.data.timestamps),
               "rows": {part: torch.from_numpy(r.astype(np.int32)) for part, r in rows}, "validation": self.validation}
        if full:
            out |= {"optimizer": self.optimizer.state_dict(), "batch": self.batch, "step": self.step, "sums": dict(self.sums)}
        return out

    def save_latest(self):
        """Write checkpoint_latest.pt; the losses of the pass so far are summed over the ranks first."""
        self.saved_at = time.monotonic()
        own = self.sums
        self.sums = self.summed_losses()
        if self.ranks.rank == 0:
            save(self.run / "checkpoints" / "checkpoint_latest.pt", self.content(True))
        self.sums = own

    def summed_losses(self) -> dict[str, float]:
        """The losses of the pass so far, summed over ranks."""
        return dict(zip(LOSS_PARTS, self.ranks.total(*(self.sums[k] for k in LOSS_PARTS)), strict=True))

    def restore(self, saved: dict):
        differing = self.config.differences(saved["config"], NOT_COMPARED)
        if differing:
            raise ValueError(f"{self.run.name} was trained with another configuration: {'; '.join(differing)}. To go on with it, give "
                             "the configuration it has; to train with this one, give another --experiment-name.")
        if saved["data"]["checksum"] != self.data.checksum:
            raise ValueError(f"{self.run.name} was trained on other data than {self.config.data}: its events were made with "
                             f"{saved['data']['config']}.")
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        for k in ("epoch", "batch", "step", "best", "validation"):
            setattr(self, k, saved[k])
        if self.ranks.rank == 0:  # they are sums over ranks
            self.sums = dict(saved["sums"])

    # ---- the whole ------------------------------------------------------------------------------------------------------

    def fit(self, run: Path):
        config = self.config
        self.run, self.started = run, time.monotonic()
        self.saved_at = self.started
        if self.ranks.rank == 0:
            log.info("run %s: %d/%d/%d events to train/validate/hold out, %d parameters", run, len(self.train_rows),
                     len(self.val_rows), len(self.test_rows), n_parameters(self.model))
            self.write_validation_features()
        with tqdm(total=config.epochs * len(self.train_rows), unit="event", desc=f"train {run.name}",
                  initial=self.epoch * len(self.train_rows) + self.batch * config.batch_size,
                  disable=not self.progress or self.ranks.rank > 0) as bar:
            while self.epoch < config.epochs:
                record = self.one_pass(bar)
                bar.set_postfix(val_loss=f"{record['val_loss']:.3f}", val_acc=f"{record['val_accuracy']:.3f}")
                if bar.disable and self.ranks.rank == 0:
                    log.info("epoch %d/%d: loss %.4f, validation %.4f, accuracy %.3f, %.0f events/s", self.epoch, config.epochs,
                             record["train_loss"], record["val_loss"], record["val_accuracy"], record["events_per_second"])
                if self.epoch < config.epochs:
                    self.maybe_stop()
        if self.ranks.rank == 0:
            (run / "complete").write_text(f"{self.epoch} epochs\n")

    def one_pass(self, bar) -> dict:
        """Train for one pass over the training part (or what is left of it), validate, write the files; the log's record."""
        config, begun, first = self.config, time.monotonic(), self.batch
        self.run_epoch(bar)
        n_batches = math.ceil(len(self.train_rows) / config.batch_size)
        n_steps = math.ceil(n_batches / config.accumulation_steps)
        seconds = time.monotonic() - begun
        losses = {"train_loss" if k == "loss" else k: v / n_steps for k, v in self.summed_losses().items()}
        record = {"epoch": self.epoch + 1, "step": self.step, "lr": self.optimizer.param_groups[0]["lr"], **losses,
                  **self.validate(),
                  "events_per_second": min((n_batches - first) * config.batch_size, len(self.train_rows)) / seconds,
                  "seconds": time.monotonic() - begun}
        better = record["val_loss"] < self.best
        self.best = min(self.best, record["val_loss"])
        self.epoch, self.batch, self.sums = self.epoch + 1, 0, dict.fromkeys(LOSS_PARTS, 0.0)
        keep = config.save_every and self.epoch % config.save_every == 0
        if self.ranks.rank == 0:
            if better or keep:
                self.validation = self.validation_outputs()
            if better:
                save(self.run / "best.pt", self.content(False))
            if keep:
                save(self.run / f"epoch_{self.epoch:03d}.pt", self.content(True))
            append_log(self.run, record)
        self.save_latest()
        if self.on_epoch is not None:
            self.on_epoch(record)
        return record

    def validation_outputs(self) -> dict:
        """What thresholds are chosen from: the network's output on the validation rows, as tensors."""
        outputs = validation_outputs(self.model.eval(), self.data, self.val_rows, self.data.t_premature)
        return {k: torch.from_numpy(v) for k, v in outputs.items()}

    def write_validation_features(self):
        """What the baselines read of the validation rows, so that an evaluation needs the run folder and its own dataset alone."""
        path = self.run / VALIDATION_FEATURES
        if path.exists():
            return
        x, _ = residual_features(self.config.data, self.val_rows, self.progress)
        with atomic(path) as temporary, open(temporary, "wb") as f:
            np.savez_compressed(f, x=x.astype(np.float16), label=self.data.labels[self.val_rows],
                                observable=self.data.labels_observable[self.val_rows])


def train(config: TrainConfig, progress: bool = True, on_epoch=None) -> Path:
    """Train, and return the run folder: config.json, log.jsonl, best.pt, epoch_NNN.pt, checkpoints/checkpoint_latest.pt.

    on_epoch(record) is called after each epoch with its line of the log. With config.resume a run is continued; a complete one is
    returned as it is. SIGTERM, SIGUSR1 and --wall-minutes stop after the optimiser step in hand with a good checkpoint, and log so.
    Raises ValueError for a configuration or data that do not fit, FloatingPointError for a loss or gradient that is not finite.
    """
    ranks = Ranks()
    try:
        run, saved, complete, initial = ranks.decide(lambda: resolve_run(config))
        trainer = Trainer(config, ranks, progress, on_epoch)
        trainer.run = run
        if saved:
            trainer.restore(saved)
            log.info("resuming %s at epoch %d, batch %d", run.name, trainer.epoch, trainer.batch)
            if complete:
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
