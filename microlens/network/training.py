"""train(config) -> run folder. One code path for the notebook, papermill and torchrun.

    run = train(TrainConfig(data="data/raw/test.h5", epochs=5))
    torchrun --nproc-per-node=2 -m microlens train --data data/raw/test.h5 --epochs 5

One pass is once through the training events (the option --epochs counts passes). Everything random is a function of
(seed, pass, batch, rank): the order of batches, dropout, the prefixes. So a resumed run is the uninterrupted one, bit
for bit on a CPU, also from the middle of a pass. Ranks share a global batch; losses are sums divided by global weights
and gradients are summed over ranks, so 1 and 2 ranks train alike (exactly so without dropout).

Validation events are always those of the file. Only rank 0 looks into the run folder and writes there. The best pass
is the one of lowest validation loss (cross-entropy of log_p against the chosen labels, whole curves).
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from microlens.config import TrainConfig
from microlens.data.format import open_dataset
from microlens.data.fresh import FreshEvents
from microlens.data.packed import JoinedDatasets, PackedDataset, batches, residual_features, split_rows
from microlens.files import atomic
from microlens.network.learner import Learner, Share
from microlens.network.loss import LOSS_PARTS, make_targets, prefix_positions
from microlens.network.model import choose_device, n_parameters
from microlens.network.predict import validation_outputs, validation_scores
from microlens.network.ranks import Ranks
from microlens.network.runs import LATEST, PARTS, VALIDATION_FEATURES, Run, append_log, resolve_run, write_checkpoint

log = logging.getLogger("microlens")
CHECKPOINT_SECONDS = 300.0  # checkpoint_latest.pt is written at least this often
SCALED_BY = 512  # training events that mean and standard deviation of the features are taken from


class Interrupted(Exception):
    """Training stopped early, with a good checkpoint, for the stated reason."""


class StopRequests:
    """Why a training should stop before its end: a signal (SIGTERM, SIGUSR1), or its wall-clock budget is used up."""

    def __init__(self, wall_minutes: float):
        self.signal, self.wall_minutes = "", wall_minutes
        self.end = time.monotonic() + 60 * wall_minutes if wall_minutes else math.inf

    def reason(self) -> str:
        """The reason in words, or ''."""
        if not self.signal and time.monotonic() > self.end:
            return f"--wall-minutes {self.wall_minutes:g} is used up"
        return self.signal

    @contextlib.contextmanager
    def listening(self):
        """Take the signals as requests within the block."""
        def note(number, _frame):
            self.signal = f"signal {signal.Signals(number).name}"

        previous = {}
        try:
            for number in (signal.SIGTERM, signal.SIGUSR1):
                previous[number] = signal.signal(number, note)
        except ValueError:
            log.info("not the main thread: signals are left alone")
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


class Trainer:
    """The state of one training in its run folder; `train` is the way to use it.

    source, source_rows : where the events of a pass come from, and which of its rows they are: the training part of
    the dataset, then all events of the extra one.
    epoch, batch : passes done, and batches done of the pass in hand.   best : lowest validation loss so far.
    validation : the network's output on the validation events after the last whole pass.
    """

    def __init__(self, config: TrainConfig, ranks: Ranks, run: Path, progress: bool = False):
        self.config, self.ranks, self.run, self.progress = config, ranks, run, progress
        if config.extra_data is not None:
            with open_dataset(config.extra_data):  # a file that is none is an error before minutes of running fits
                pass
        self.data = PackedDataset(config.data, config.view, config.stem_stride, progress)
        parts = split_rows(self.data.labels, config.seed, self.data.stars)
        self.rows, (self.train_rows, self.val_rows, self.test_rows) = dict(zip(PARTS, parts, strict=True)), parts
        n_train, n_val = len(self.train_rows), len(self.val_rows)
        if not n_train or not n_val:
            raise ValueError(f"{config.data}: {self.data.n_events} events leave {n_train} for training and {n_val} for "
                             "validation; simulate more.")
        self.fresh = None
        if config.fresh:
            self.fresh = FreshEvents(config.data, config.seed, config.view, config.stem_stride, self.train_rows)
        self.source, self.source_rows = self.data, self.train_rows
        self.extra = None
        if config.extra_data is not None:
            self.extra = self._extra_dataset()
            self.source = JoinedDatasets([self.data, self.extra])
            self.source_rows = np.append(self.train_rows, self.data.n_events + np.arange(self.extra.n_events))
        self.n_batches = math.ceil(len(self.source_rows) / config.batch_size)
        self.n_steps = math.ceil(self.n_batches / config.accumulation_steps)
        self.learner = Learner(config, ranks, self.n_steps, len(self.data.classes))
        curves = self.data.gather(self.train_rows[:SCALED_BY])
        self.learner.network.set_scaling(*(None if a is None else torch.from_numpy(a) for a in curves))
        self.epoch = self.batch = 0
        self.best = math.inf
        self.validation: dict[str, np.ndarray] = {}
        self.saved_at = time.monotonic()

    def _extra_dataset(self) -> PackedDataset:
        """The dataset of config.extra_data. Raises ValueError where it does not fit to the one that is validated on."""
        path, config = self.config.extra_data, self.config
        extra = PackedDataset(path, config.view, config.stem_stride, self.progress)
        streams = [(data.config["seed"], data.config["split"]) for data in (self.data, extra)]
        if extra.stars is None and streams[0] == streams[1]:
            raise ValueError(f"--extra-data {path}: has the seed and the split of {config.data}, so events that are "
                             "held out there could be trained on here; simulate it with another --seed.")
        if extra.stars is not None and self.data.stars is not None and np.isin(extra.stars, self.data.stars).any():
            raise ValueError(f"--extra-data {path}: has stars of {config.data}, which may be held out there; give it "
                             "other photometry or another --split.")
        if len(extra.classes) > len(self.data.classes):
            raise ValueError(f"--extra-data {path}: has the classes {', '.join(extra.classes)}, and {config.data} "
                             f"only {', '.join(self.data.classes)}; simulate both with --n_other, or none.")
        return extra

    def start_from(self, run: Run):
        """Take the weights and the scaling of another run, whose training events must not be held out here."""
        held_out = np.concatenate([self.val_rows, self.test_rows])
        shared = int((run.parts_of(self.data.config, self.data.stars)[held_out] == "train").sum())
        if shared:
            raise ValueError(f"--initial {self.config.initial}: was trained on {shared} of the {len(held_out)} events "
                             "that are held out here; give its --seed, or data of another seed.")
        self.learner.network.load_state_dict(run.network.state_dict())
        log.info("starting from %s", run.folder)

    # ---- one pass ---------------------------------------------------------------------------------------------------

    def prepare(self, order: list[np.ndarray], first: int) -> list[Share]:
        """This rank's shares, where they hold events, of the batches from `first` on that make one optimiser step."""
        shares = []
        for number in range(first, min(first + self.config.accumulation_steps, len(order))):
            rows = self.ranks.share(order[number])
            if len(rows):
                events = self.fresh.events(rows, epoch=self.epoch) if self.fresh else self.source.events(rows)
                positions = prefix_positions(self.config, self.epoch, number, len(order[number]))
                targets = make_targets(events, self.config, self.ranks.share(positions))
                shares.append(Share(self.epoch, number, rows, events, targets))
        return shares

    def train_pass(self, stop: StopRequests, bar):
        """Train on what is left of a pass over the training events. Raises Interrupted after the step in hand."""
        order = batches(self.source_rows, self.config.batch_size, self.config.seed, self.epoch)
        self.learner.network.train()
        with ThreadPoolExecutor(1) as ahead:  # the next step's events are made while the network works on this one's
            following = ahead.submit(self.prepare, order, self.batch)
            while self.batch < len(order):
                shares = following.result()
                end = min(self.batch + self.config.accumulation_steps, len(order))
                following = ahead.submit(self.prepare, order, end)
                self.learner.take_step(shares)
                bar.update(sum(map(len, order[self.batch : end])))
                self.batch = end
                self.save_or_stop(stop)

    def validate(self) -> dict:
        """Set `validation`; returns the scores of the pass by their names in the log."""
        rows = self.ranks.share(self.val_rows)
        outputs = validation_outputs(self.learner.network.eval(), self.data, rows)
        self.validation = {name: self.ranks.join(part, len(self.val_rows)) for name, part in outputs.items()}
        return validation_scores(self.validation, self.config.labels)

    def finish_pass(self, seconds: float, n_batches: int) -> dict:
        """Validate, write the files of the pass, and go to the next one; returns the pass's line of the log.

        seconds, n_batches : how long training on how many of its batches took in this process.
        """
        begun, step = time.monotonic(), self.learner.scheduler.last_epoch  # optimiser steps so far, in all passes
        losses = [x / self.n_steps for x in self.learner.summed_losses()]
        record = {
            "epoch": self.epoch + 1,
            "step": step,
            "lr": self.config.lr * self.learner.rate(step - 1),
            "train_loss": sum(losses),
            **{part: loss for part, loss in zip(LOSS_PARTS, losses, strict=True)
               if part != "lensing" or self.learner.network.tells_other},
            **self.validate(),
            "events_per_second": min(n_batches * self.config.batch_size, len(self.source_rows)) / seconds,
            "seconds": seconds + time.monotonic() - begun,
        }
        better = record["val_loss"] < self.best
        self.best = min(self.best, record["val_loss"])
        self.epoch, self.batch = self.epoch + 1, 0
        self.learner.loss_sums.zero_()
        if better:
            self.save("best.pt", resumable=False)
        if self.config.save_every and self.epoch % self.config.save_every == 0:
            self.save(f"epoch_{self.epoch:03d}.pt")
        if self.ranks.rank == 0:
            append_log(self.run, record)
        self.save(LATEST)
        return record

    # ---- files ------------------------------------------------------------------------------------------------------

    def open_folder(self):
        """Remove what killed trainings left in the run folder; write the configuration and the baselines' features."""
        for remains in [*self.run.glob(".*.tmp"), *self.run.glob(f"{LATEST.parent}/.*.tmp")]:
            remains.unlink()
        if not (self.run / "config.json").exists():
            with atomic(self.run / "config.json") as temporary:
                temporary.write_text(json.dumps(self.config.to_dict(), indent=1, sort_keys=True) + "\n")
        if not (self.run / VALIDATION_FEATURES).exists():
            x, _ = residual_features(self.config.data, self.val_rows, self.progress)
            labels = {"label": self.data.labels, "observable": self.data.labels_observable}
            with atomic(self.run / VALIDATION_FEATURES) as temporary, open(temporary, "wb") as f:
                np.savez_compressed(f, x=x.astype(np.float16), **{k: v[self.val_rows] for k, v in labels.items()})

    def _known_data(self) -> dict:
        """What a checkpoint says of the training files, see runs.Run.data."""
        known = {"checksum": self.data.checksum, "config": self.data.config, "stars": {}}
        if self.data.stars is not None:
            known["stars"] = {str(star): part for part, rows in self.rows.items()
                              for star in np.unique(self.data.stars[rows])}
        if self.extra is not None:
            known["extra"] = {"checksum": self.extra.checksum, "config": self.extra.config}
            if self.extra.stars is not None:
                known["stars"] |= {str(star): "train" for star in np.unique(self.extra.stars)}
        return known

    def save(self, name: str | Path, resumable: bool = True):
        """Write a checkpoint into the run folder, from which a training can go on or not. Every rank has to call it."""
        state = self.learner.state()
        if self.ranks.rank > 0:
            return
        content = {
            "model": state["model"],
            "config": self.config.to_dict(),
            "data": self._known_data(),
            "timestamps": torch.from_numpy(self.data.timestamps),
            "rows": {part: torch.from_numpy(rows.astype(np.int32)) for part, rows in self.rows.items()},
            "validation": {name: torch.from_numpy(values) for name, values in self.validation.items()},
            "epoch": self.epoch,
        }
        if resumable:
            content |= {**state, "batch": self.batch, "best": self.best}
        write_checkpoint(self.run / name, content)

    def restore(self, saved: dict):
        """Go on from a checkpoint. Raises ValueError where it is of another version of the package."""
        try:
            self.learner.restore(saved)
            self.epoch, self.batch, self.best = saved["epoch"], saved["batch"], saved["best"]
            self.validation = {name: values.numpy() for name, values in saved["validation"].items()}
        except KeyError as error:
            raise ValueError(f"{self.run}: was trained by another version of the package, without {error}. "
                             "Give this training a name of its own.") from error
        log.info("resuming %s at pass %d, batch %d", self.run.name, self.epoch, self.batch)

    def save_or_stop(self, stop: StopRequests):
        """Write checkpoint_latest.pt when it is time, and raise Interrupted when a rank was asked to stop."""
        reason = stop.reason()
        due = time.monotonic() - self.saved_at > CHECKPOINT_SECONDS
        stopping, due = self.ranks.total([float(bool(reason)), float(due)])
        if stopping or due:
            self.save(LATEST)
            self.saved_at = time.monotonic()
        if stopping:
            raise Interrupted(reason or "another rank was told to")

    # ---- the whole --------------------------------------------------------------------------------------------------

    def fit(self, stop: StopRequests, on_epoch=None):
        """Train until the last pass is done, and say so in the run folder. Raises Interrupted."""
        first_rank, n_train = self.ranks.rank == 0, len(self.source_rows)
        if first_rank:
            log.info("run %s: %d/%d/%d events to train/validate/hold out, %d parameters", self.run, n_train,
                     len(self.val_rows), len(self.test_rows), n_parameters(self.learner.network))
            self.open_folder()
        done = self.epoch * n_train + self.batch * self.config.batch_size
        with tqdm(total=self.config.epochs * n_train, unit="event", desc=f"train {self.run.name}", initial=done,
                  disable=not self.progress or not first_rank) as bar:
            while self.epoch < self.config.epochs:
                begun, first = time.monotonic(), self.batch
                self.train_pass(stop, bar)
                record = self.finish_pass(time.monotonic() - begun, self.n_batches - first)
                bar.set_postfix(val_loss=f"{record['val_loss']:.3f}", val_acc=f"{record['val_accuracy']:.3f}")
                if bar.disable and first_rank:
                    log.info("pass %(epoch)d: loss %(train_loss).4f, validation %(val_loss).4f, "
                             "accuracy %(val_accuracy).3f, %(events_per_second).0f events/s", record)
                if on_epoch is not None:
                    on_epoch(record)
                if self.epoch < self.config.epochs:
                    self.save_or_stop(stop)
        if first_rank:
            (self.run / "complete").write_text(f"{self.epoch} passes\n")


def train(config: TrainConfig, progress: bool = True, on_epoch=None) -> Path:
    """Train, and return the run folder.

    It holds config.json, log.jsonl, best.pt, epoch_NNN.pt, checkpoints/checkpoint_latest.pt, validation_features.npz.
    on_epoch(record) is called after each pass with its line of the log. With config.resume a run is continued; a
    complete one is returned as it is. SIGTERM, SIGUSR1 and --wall-minutes stop after the optimiser step in hand with a
    good checkpoint, and the log says so.
    Raises ValueError for a configuration or data that do not fit, FloatingPointError for a loss or gradient that is not
    finite.
    """
    stop, ranks = StopRequests(config.wall_minutes), Ranks(choose_device("auto"))
    with contextlib.ExitStack() as held:
        held.callback(ranks.close)
        run, saved, complete, initial = ranks.decide(lambda: resolve_run(config, held))
        if complete:
            log.info("%s is complete", run.name)
            return run
        trainer = Trainer(config, ranks, run, progress)
        if saved is not None:
            trainer.restore(saved)
        if initial is not None:
            trainer.start_from(initial)
        held.enter_context(stop.listening())
        try:
            trainer.fit(stop, on_epoch)
        except Interrupted as reason:
            log.warning("stopped: %s. Continue with --resume %s.", reason, run.name)
        return run
