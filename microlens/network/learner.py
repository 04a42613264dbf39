"""A network and what changes it: one optimiser step on batches that the ranks share.

    learner = Learner(config, ranks, n_steps)          learner.take_step(shares)          learner.state()
"""

from __future__ import annotations

import logging
import math
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch.optim.lr_scheduler import LambdaLR

from microlens.config import DROPOUT_STREAM, LENSING_CLASSES, TrainConfig
from microlens.data.packed import Events
from microlens.network.attention import flash_attention
from microlens.network.loss import LOSS_PARTS, Targets, loss_parts, mean_loss
from microlens.network.model import from_config
from microlens.network.ranks import Ranks

log = logging.getLogger("microlens")
GRADIENT_CLIP = 1.0  # largest norm of the gradient
LOWEST_RATE = 0.01  # share of the peak learning rate at the end
LISTED = 20  # events that a message about a bad batch names


class Share(NamedTuple):
    """This rank's part of one batch: the number of batch and pass, the events, and what is asked about them."""

    epoch: int
    batch: int
    rows: np.ndarray
    events: Events
    targets: Targets


def learning_rate(step: int, total: int, warmup: int) -> float:
    """Share of the peak learning rate at a step of `total`: linear over `warmup` steps, then half a cosine."""
    if step < warmup:
        return (step + 1) / warmup
    part = min((step - warmup) / max(total - warmup, 1), 1.0)
    return LOWEST_RATE + (1 - LOWEST_RATE) * 0.5 * (1 + math.cos(math.pi * part))


def make_optimizer(network, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW, with weight decay for matrices alone."""
    matrices = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.lr)


class Learner:
    """An untrained network on the device of `ranks`, its optimiser, its learning rate, and the losses of its steps.

    n_steps : optimiser steps of one pass.   n_classes : 3, or 4 with the class other.
    loss_sums : (4,) sums of this rank's LOSS_PARTS over the steps of the pass.
    """

    def __init__(self, config: TrainConfig, ranks: Ranks, n_steps: int, n_classes: int = len(LENSING_CLASSES)):
        self.config, self.ranks, self.device = config, ranks, ranks.device
        torch.manual_seed(config.seed)
        self.network = from_config(config.to_dict(), n_classes).to(self.device)
        self.optimizer = make_optimizer(self.network, config)
        warmup = round(n_steps * config.warmup_epochs)
        self.rate = partial(learning_rate, total=n_steps * config.epochs, warmup=warmup)
        self.scheduler = LambdaLR(self.optimizer, self.rate)
        self.loss_sums = torch.zeros(len(LOSS_PARTS), dtype=torch.float64, device=self.device)
        self.bf16 = self.device.type == "cuda" and torch.cuda.is_bf16_supported()
        arithmetic = "bf16" if self.bf16 else "single precision, since bf16 needs a GPU that has it"
        log.info("device %s, %s", self.device, arithmetic)
        if config.attention_pooling:
            flash, reason = flash_attention()
            self.network.flash = flash if self.bf16 else None
            used = "flash-attn" if self.network.flash else "cumulative sums"
            log.info("attention where only whole curves are asked about: %s (%s)", used, reason)

    def share_loss(self, share: Share, total_weights) -> torch.Tensor:
        """The loss of a share, in LOSS_PARTS (4,). total_weights : see loss.mean_loss."""
        inputs = (share.events.flux, share.events.delta_t, share.targets.steps, share.events.extra)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            heads = self.network(*self.network.tensors(*inputs))
        labels, weight = self.network.tensors(share.targets.labels, share.targets.weight)
        return mean_loss(loss_parts(heads, labels, weight), self.config, total_weights)

    def take_step(self, shares: list[Share]):
        """One optimiser step on the shares of all ranks; this rank may have none.

        Raises FloatingPointError, naming batch and events, where loss or gradient is not finite.
        """
        weights = sum((share.targets.total_weights() for share in shares), start=np.zeros(3))
        total_weights = self.ranks.total(weights)
        losses = torch.zeros(len(LOSS_PARTS), device=self.device)
        for share in shares:
            key = (self.config.seed, DROPOUT_STREAM, share.epoch, share.batch, self.ranks.rank)
            torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
            parts = self.share_loss(share, total_weights)
            parts.sum().backward()
            losses += parts.detach()
        self.ranks.sum_gradients(self.network.parameters())
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), GRADIENT_CLIP)
        loss, norm = torch.stack([losses.sum(), norm]).tolist()  # the step's only wait for a GPU
        if not (math.isfinite(loss) and math.isfinite(norm)):
            where = "; ".join(f"batch {s.batch} of pass {s.epoch}, events {s.rows[:LISTED].tolist()}" for s in shares)
            raise FloatingPointError(f"loss {loss:g}, gradient {norm:g} in {where}; lower --lr or look at them.")
        self.loss_sums += losses
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.scheduler.step()

    def summed_losses(self) -> list[float]:
        """loss_sums of all ranks together. Every rank has to call it."""
        return self.ranks.total(self.loss_sums.tolist()).tolist()

    def state(self) -> dict:
        """What restore needs to go on with the next step, as plain values and tensors. Every rank has to call it."""
        return {
            "model": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "loss_sums": self.summed_losses(),
        }

    def restore(self, saved: dict):
        """Go on from what state() gave."""
        self.network.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scheduler.load_state_dict(saved["scheduler"])
        if self.ranks.rank == 0:  # they are sums over ranks already
            self.loss_sums.copy_(torch.tensor(saved["loss_sums"], dtype=torch.float64))
