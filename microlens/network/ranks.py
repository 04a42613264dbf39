"""This process among those that torchrun started; alone without torchrun.

    ranks = Ranks()          rows = ranks.share(batch)          ranks.sum_gradients(model.parameters())
"""

from __future__ import annotations

import os
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist


class Ranks:
    """rank of size; gloo on CPUs, NCCL on GPUs."""

    def __init__(self):
        self.size, self.rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
        self.started = False
        if self.size > 1 and not dist.is_initialized():
            if torch.cuda.is_available():
                torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
            # Longer than one node may take to pack the data while the others wait for it.
            dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=timedelta(minutes=60))
            self.started = True
        self.device = "cuda" if self.size > 1 and dist.get_backend() == "nccl" else "cpu"

    def total(self, *values: float) -> list[float]:
        """Sums of numbers over ranks."""
        return self.sum_array(np.array(values, np.float64)).tolist()

    def sum_array(self, array: np.ndarray) -> np.ndarray:
        """The sum of equally shaped arrays over ranks."""
        if self.size == 1:
            return array
        t = torch.tensor(array, device=self.device)
        dist.all_reduce(t)
        return t.cpu().numpy()

    def sum_gradients(self, parameters):
        """Every rank's gradients become their sum over ranks."""
        if self.size == 1:
            return
        parameters = list(parameters)
        for p in parameters:
            if p.grad is None:  # a rank without events in this batch
                p.grad = torch.zeros_like(p)
        flat = torch.cat([p.grad.flatten() for p in parameters])
        dist.all_reduce(flat)
        for p, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            p.grad.copy_(part.view_as(p))

    def share(self, rows):
        return rows[self.rank :: self.size]

    def decide(self, function):
        """What `function` gives on rank 0, on every rank; and what it raises there is raised on every rank.

        Ranks never look into the run folder each for itself: one that is later, or on another node, sees another state of it.
        """
        if self.size == 1:
            return function()
        box = [None]
        if self.rank == 0:
            try:
                box = [(function(), None)]
            except (ValueError, OSError) as error:
                box = [(None, error)]
        dist.broadcast_object_list(box, device=torch.device(self.device))
        value, error = box[0]
        if error is not None:
            raise error
        return value

    def close(self):
        if self.started:
            dist.destroy_process_group()
