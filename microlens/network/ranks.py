"""This process among those that torchrun started; alone without torchrun.

    ranks = Ranks(device)          rows = ranks.share(batch)          ranks.sum_gradients(model.parameters())
"""

from __future__ import annotations

import os
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.utils import parameters_to_vector, vector_to_parameters

PATIENCE = timedelta(minutes=60)
"""How long ranks wait for each other: longer than one node may take to pack the data."""


class Ranks:
    """Process `rank` of `size`, talking over NCCL where the training is on a GPU, else over gloo."""

    def __init__(self, device: torch.device):
        self.size, self.rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
        self.device = device
        if self.size > 1:
            if device.type == "cuda":
                torch.cuda.set_device(device)
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)

    def share(self, rows):
        """This rank's part of an array: every size-th row."""
        return rows[self.rank :: self.size]

    def join(self, part: np.ndarray, n: int) -> np.ndarray:
        """The array of n rows, on every rank, of which each rank has the part that `share` gives."""
        whole = np.zeros((n, *part.shape[1:]), part.dtype)
        whole[self.rank :: self.size] = part
        return self.total(whole)

    def total(self, values) -> np.ndarray:
        """The sum over ranks of arrays of one shape."""
        if self.size == 1:
            return np.asarray(values)
        tensor = torch.tensor(values, device=self.device)
        dist.all_reduce(tensor)
        return tensor.cpu().numpy()

    def sum_gradients(self, parameters):
        """Replace every rank's gradients by their sum over ranks, in one message."""
        if self.size == 1:
            return
        parameters = list(parameters)
        for p in parameters:
            if p.grad is None:  # a rank without events in this batch
                p.grad = torch.zeros_like(p)
        gradients = [p.grad for p in parameters]
        vector = parameters_to_vector(gradients)
        dist.all_reduce(vector)
        vector_to_parameters(vector, gradients)

    def decide(self, function):
        """What `function` returns on rank 0, on every rank; and what it raises there is raised on every rank.

        Ranks never look into the run folder each for itself: one that is later, or on another node, sees another
        state of it.
        """
        if self.size == 1:
            return function()
        outcome = [None]
        if self.rank == 0:
            try:
                outcome = [(function(), None)]
            except (ValueError, OSError) as error:
                outcome = [(None, error)]
        dist.broadcast_object_list(outcome, device=self.device)
        value, error = outcome[0]
        if error is not None:
            raise error
        return value

    def close(self):
        """End the conversation with the other ranks."""
        if self.size > 1:
            dist.destroy_process_group()
