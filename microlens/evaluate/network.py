"""The network's output on rows of a packed dataset, in blocks of bounded memory."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from tqdm.auto import tqdm

from microlens.dataset import PackedDataset

FRACTIONS = np.arange(1, 101) / 100  # of the season
BLOCK = 128  # curves a forward pass


class Steps(NamedTuple):
    """What a causal network says of n curves as the season unfolds.

    log_p : (n, 3) at the end.   p_binary : (n, K) float16 after 0 .. K - 1 network steps, 0 beyond a curve's last step.
    step : (n, F) int, network steps done at each of FRACTIONS.   called : (n, F) int8, the most probable class there.
    """

    log_p: np.ndarray
    p_binary: np.ndarray
    step: np.ndarray
    called: np.ndarray


def predict(classifier, data: PackedDataset, rows, progress=True, batch_size=BLOCK) -> np.ndarray:
    """log_p (n, 3) float32 after whole curves."""
    log_p = np.empty((len(rows), 3), np.float32)
    with tqdm(total=len(rows), desc=f"classify ({classifier.view} view)", unit="event", disable=not progress) as bar:
        for i in range(0, len(rows), batch_size):
            part = rows[i : i + batch_size]
            log_p[i : i + batch_size] = classifier.log_prob_packed(*data.gather(part)).float().cpu().numpy()
            bar.update(len(part))
    return log_p


def predict_steps(classifier, data: PackedDataset, rows, progress=True, batch_size=BLOCK) -> Steps:
    """The output of a causal classifier after every step, from one pass a curve."""
    stride, n = classifier.stem_stride, len(rows)
    moments = data.timestamps[0] + FRACTIONS * (data.timestamps[-1] - data.timestamps[0]) + 1e-9
    out = Steps(np.empty((n, 3), np.float32), np.zeros((n, len(data.timestamps) // stride + 1), np.float16),
                np.empty((n, len(FRACTIONS)), int), np.empty((n, len(FRACTIONS)), np.int8))
    with tqdm(total=n, desc="classify prefixes", unit="event", disable=not progress) as bar:
        for i in range(0, n, batch_size):
            part = rows[i : i + batch_size]
            log_p = classifier.log_prob_steps(*data.gather(part)).float().cpu().numpy()
            for j, row in enumerate(part):
                times = data.step_times(row, stride)
                out.p_binary[i + j, : len(times) + 1] = np.exp(log_p[j, : len(times) + 1, 2])
                out.step[i + j] = np.searchsorted(times, moments, side="right")
                out.called[i + j] = log_p[j, out.step[i + j]].argmax(1)
            out.log_p[i : i + batch_size] = log_p[:, -1]
            bar.update(len(part))
    return out


def step_times(data: PackedDataset, row: int, stride: int) -> np.ndarray:
    """Time (L + 1,), days, of each network step of a curve; step 0, before any patch, at the start of the season."""
    return np.append(data.timestamps[0], data.step_times(row, stride))
