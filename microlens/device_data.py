"""The packed data set in the memory of a device: batches are gathers there, and what they hold is decoded there.

    source = held(data, device, "auto")          events = source.events(rows)

`source` is a DeviceData, or the memory-mapped PackedDataset itself where the device has no room; both give the same bits.
"""

from __future__ import annotations

import logging

import numpy as np
import torch

from microlens.dataset import STEP, Events, PackedDataset, decode
from microlens.detectability.running import CHANNELS

log = logging.getLogger("microlens")
SHARE = 0.5  # of a GPU's free memory; the rest is for the network and its gradients


def held(data: PackedDataset, device: torch.device, wanted: str):
    """The source of batches for `wanted`, one of auto, yes, no; logged with the reason."""
    size = sum(a.nbytes for a in (data.codes, data.masks, data.added) if a is not None)
    use, reason = wanted == "yes", "asked for"
    if wanted == "auto":
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
        use = size < SHARE * free
        reason = f"{free / 1e9:.1f} GB free on {device}" if free else "no GPU"
    log.info("packed data, %.2f GB: %s (%s)", size / 1e9, f"in the memory of {device}" if use else "mapped from the disk", reason)
    return DeviceData(data, device) if use else data


class DeviceData:
    """A PackedDataset whose arrays lie on `device`."""

    def __init__(self, data: PackedDataset, device: torch.device):
        self.data, self.device = data, device
        self.codes, self.masks, self.added = (None if a is None else torch.from_numpy(np.array(a)).to(device)
                                              for a in (data.codes, data.masks, data.added))
        self.times = torch.from_numpy(data.timestamps).to(device)
        self.flux_of = torch.from_numpy(decode(np.arange(-(2**15), 2**15).astype(np.int16))).to(device)

    def events(self, rows) -> Events:
        """PackedDataset.events, with flux, delta_t and extra as tensors on the device."""
        d = self.data
        return Events(*self.gather(rows), d.labels[rows], d.labels_observable[rows], d.seen_flat[rows], d.seen_pspl[rows])

    def gather(self, rows):
        """PackedDataset.gather: flux, delta_t (n, L) and extra (n, L, k) or None on the device, lengths (n,) as an array."""
        lengths, at = self.data.lengths[rows], torch.as_tensor(rows, device=self.device)
        longest = int(lengths.max())
        beyond = torch.arange(longest, device=self.device) >= torch.as_tensor(lengths, device=self.device)[:, None]
        code = self.codes[at, :longest]
        flux = self.flux_of[code.long() + 2**15] if code.dtype == torch.int16 else code
        bits = torch.arange(7, -1, -1, dtype=torch.uint8, device=self.device)  # as np.packbits has them
        valid = (self.masks[at][..., None] >> bits & 1).flatten(1)[:, : len(self.times)]
        t = self.times[torch.argsort(valid, dim=1, descending=True, stable=True)[:, :longest]]
        delta_t = torch.diff(t, dim=1, prepend=t[:, :1]).float()
        return flux.masked_fill(beyond, 0), delta_t.masked_fill(beyond, 0), lengths, self._extra(at, longest)

    def _extra(self, at, longest):
        """What PackedDataset stores of the view, laid out as the network reads it."""
        if self.added is None:
            return None
        made = self.added[at] * np.float32(STEP)
        if self.data.view == "residual":
            return torch.stack([made[:, :longest], made[:, -1:].expand(-1, longest)], dim=-1)
        n, blocks, width = made.shape
        block = (width - CHANNELS) // 2 + 1  # two channels for each epoch of a block, the others once
        shared = made[:, :, 2 * block :].repeat_interleave(block, dim=1)
        extra = torch.cat([made[:, :, : 2 * block].reshape(n, blocks * block, 2), shared], dim=-1)[:, :longest]
        return torch.nn.functional.pad(extra, (0, 0, 0, longest - extra.shape[1]))
