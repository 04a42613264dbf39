"""What the network is asked about a batch of light curves, and the loss of its answers.

    targets = make_targets(events, config, positions)          parts = loss_parts(heads, labels, weight)

Each curve is asked about after its last epoch, and after N_PREFIXES random prefixes of it, labelled by what an observer
can know by then. So the network learns to answer early without guessing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from microlens.config import BINARY, FLAT, OTHER, PREFIX_STREAM, TrainConfig
from microlens.data.packed import Events

N_PREFIXES = 16
"""Random prefixes of a light curve. They cost a head each; the network itself runs once over the whole curve."""
LOSS_PARTS = ("stage1", "lensing", "stage2", "aux")
"""Flat or not; a lens or other (0 for a network of three classes); single lens or binary; all classes at once."""


class Targets(NamedTuple):
    """Questions about n light curves: network steps seen, right answer (class number) and weight, (n, k) each."""

    steps: np.ndarray
    labels: np.ndarray
    weight: np.ndarray

    def total_weights(self) -> np.ndarray:
        """The sum of the weights, of those of answers other than flat, and of those that are a lens: (3,)."""
        events = self.labels != FLAT
        lenses = events & (self.labels != OTHER)
        return np.array([self.weight.sum(), self.weight[events].sum(), self.weight[lenses].sum()], dtype=float)


def prefix_positions(config: TrainConfig, epoch: int, batch: int, n: int) -> np.ndarray:
    """Where the random prefixes of the n events of a batch end, as shares of the curve in [0, 1): (n, N_PREFIXES).

    They are drawn for the batch of all ranks, so that any number of ranks draws the same. (n, 0) where the training
    asks about whole curves alone.
    """
    whole_only = config.labels == "simulated"
    rng = np.random.default_rng(np.random.SeedSequence(config.seed, spawn_key=(PREFIX_STREAM, epoch, batch)))
    return rng.random((n, 0 if whole_only else N_PREFIXES))


def make_targets(events: Events, config: TrainConfig, positions: np.ndarray) -> Targets:
    """The questions about n events: the whole curve, and the prefixes that end at `positions` (n, k)."""
    all_steps = events.lengths[:, None] // config.stem_stride
    labels = events.labels if config.labels == "simulated" else events.labels_observable
    whole = Targets(all_steps, labels[:, None], np.ones(all_steps.shape, dtype=np.float32))
    steps = np.minimum(np.floor(positions * all_steps).astype(np.int64) + 1, all_steps)
    weight = np.full(steps.shape, 1 / max(steps.shape[1], 1), dtype=np.float32)  # together as much as the whole curve
    prefixes = Targets(steps, events.prefix_labels(steps * config.stem_stride), weight)
    return Targets(*(np.concatenate(pair, axis=1) for pair in zip(whole, prefixes, strict=True)))


def loss_parts(heads: dict, labels, weight) -> dict:
    """Weighted sums (not means) of the parts of the loss, by their names in LOSS_PARTS.

    heads : what Classifier.heads gives for (n, k) questions.   labels : (n, k) int64.   weight : (n, k).
    A network without hierarchical heads has the loss of all its classes as stage1.
    """
    def of_all(log_p):
        loss = F.nll_loss(log_p.flatten(0, -2), labels.flatten(), reduction="none")
        return (weight * loss.view(labels.shape)).sum()

    def of_two(logit, yes, weight):
        return (weight * F.binary_cross_entropy_with_logits(logit, yes.float(), reduction="none")).sum()

    parts = {}
    if "event" in heads:
        event, lens = labels != FLAT, (labels != FLAT) & (labels != OTHER)
        parts["stage1"] = of_two(heads["event"], event, weight)
        parts["stage2"] = of_two(heads["binary"], labels == BINARY, weight * lens)
        if "lensing" in heads:
            parts["lensing"] = of_two(heads["lensing"], lens, weight * event)
    else:
        parts["stage1"] = of_all(heads["log_p"])
    if "aux" in heads:
        parts["aux"] = of_all(F.log_softmax(heads["aux"].float(), dim=-1))
    return parts


def mean_loss(parts: dict, config: TrainConfig, total_weights) -> torch.Tensor:
    """The parts of the loss in the order of LOSS_PARTS, (4,), scaled so that their sum is what training lowers.

    total_weights : Targets.total_weights of the whole optimiser step, over all ranks and accumulated batches.
    """
    total, of_events, of_lenses = total_weights
    scale = {
        "stage1": config.stage1_weight / total,
        "lensing": config.stage2_weight / max(of_events, 1e-9),  # a step without any event has a part of zero
        "stage2": config.stage2_weight / max(of_lenses, 1e-9),
        "aux": config.aux_weight / total,
    }
    zero = torch.zeros_like(parts["stage1"])
    return torch.stack([parts[name] * scale[name] if name in parts else zero for name in LOSS_PARTS])
