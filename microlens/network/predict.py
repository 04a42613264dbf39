"""The network's output on rows of a packed dataset, in blocks of bounded memory, and the alerts that it raises.

An alert is raised when P(binary) has stayed at or above a threshold for PERSISTENCE network steps. The alert score of a
curve is the highest threshold at which it would still raise one, and its premature score the same before the noise-free
anomaly reaches delta chi^2 = THRESHOLD_PREMATURE, so that the threshold can be chosen on validation curves alone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from tqdm.auto import tqdm

from microlens.config import BINARY, CLASSES, FLAT, LENSING_CLASSES, OTHER, PERSISTENCE, PSPL
from microlens.data.packed import PackedDataset

FRACTIONS = np.arange(1, 101) / 100  # of the season
BLOCK = 128  # curves a forward pass


class Steps(NamedTuple):
    """What a causal network says of n curves as the season unfolds.

    log_p : (n, classes) at the end.   p_binary : (n, K) float32 after 0 .. K - 1 network steps, 0 beyond a curve's last
    step.
    step : (n, F) int, network steps done at each of FRACTIONS.   called : (n, F) int8, the most probable class there of
    lensing_log_p.
    """

    log_p: np.ndarray
    p_binary: np.ndarray
    step: np.ndarray
    called: np.ndarray


def predict(network, data: PackedDataset, rows, progress=True) -> np.ndarray:
    """log_p (n, classes) float32 after whole curves."""
    log_p = np.empty((len(rows), network.n_classes), np.float32)
    with tqdm(total=len(rows), desc="classify", unit="event", disable=not progress) as bar:
        for i in range(0, len(rows), BLOCK):
            part = rows[i : i + BLOCK]
            log_p[i : i + BLOCK] = network.log_prob_packed(*data.gather(part)).float().cpu().numpy()
            bar.update(len(part))
    return log_p


def predict_steps(network, data: PackedDataset, rows, progress=True) -> Steps:
    """The output of a network after every step, from one pass a curve."""
    stride, n = network.stem_stride, len(rows)
    moments = data.timestamps[0] + FRACTIONS * (data.timestamps[-1] - data.timestamps[0]) + 1e-9
    n_steps = len(data.timestamps) // stride + 1
    out = Steps(np.empty((n, network.n_classes), np.float32), np.zeros((n, n_steps), np.float32),
                np.empty((n, len(FRACTIONS)), int), np.empty((n, len(FRACTIONS)), np.int8))
    with tqdm(total=n, desc="classify prefixes", unit="event", disable=not progress) as bar:
        for i in range(0, n, BLOCK):
            part = rows[i : i + BLOCK]
            log_p = network.log_prob_steps(*data.gather(part)).float().cpu().numpy()
            lensing = lensing_log_p(log_p)
            for j, row in enumerate(part):
                times = data.patch_times(row, stride)
                out.p_binary[i + j, : len(times) + 1] = np.exp(log_p[j, : len(times) + 1, BINARY])
                out.step[i + j] = np.searchsorted(times, moments, side="right")
                out.called[i + j] = lensing[j, out.step[i + j]].argmax(1)
            out.log_p[i : i + BLOCK] = log_p[:, -1]
            bar.update(len(part))
    return out


def lensing_log_p(log_p) -> np.ndarray:
    """Log-probabilities (..., 3) of flat, pspl and binary from those of a network's classes (..., 3 or 4).

    What is no lens, flat or other, is one class to the scores of lenses: the first.
    """
    log_p = np.asarray(log_p)
    if log_p.shape[-1] == len(LENSING_CLASSES):
        return log_p
    no_lens = np.logaddexp(log_p[..., FLAT], log_p[..., OTHER])
    return np.concatenate([no_lens[..., None], log_p[..., PSPL : OTHER]], axis=-1)


def step_times(data: PackedDataset, row: int, stride: int) -> np.ndarray:
    """Time (L + 1,), days, of each network step of a curve; step 0, before any patch, at the start of the season."""
    return np.append(data.timestamps[0], data.patch_times(row, stride))


def sustained(score) -> np.ndarray:
    """Smallest of the last PERSISTENCE values of score (n, K) at each step; 0 before that many steps."""
    out = np.array(score, dtype=np.float32)
    for shift in range(1, PERSISTENCE):
        out[:, shift:] = np.minimum(out[:, shift:], score[:, :-shift])
    out[:, : PERSISTENCE - 1] = 0.0
    return out


def alert_scores(score, until=None) -> np.ndarray:
    """The highest threshold (n,) at which each row of score (n, K) raises an alert.

    until : (n,) steps; where it is given, an alert at that step or a later one does not count.
    """
    held = sustained(score)
    if until is not None:
        held[np.arange(held.shape[1]) >= until[:, None]] = 0.0
    return held.max(axis=1)


def alert_steps(score, threshold: float) -> np.ndarray:
    """Step (n,) of each row's alert, -1 where there is none."""
    above = sustained(score) >= np.float32(threshold)
    return np.where(above.any(axis=1), above.argmax(axis=1), -1)


def alert_times(data: PackedDataset, rows, score, threshold: float, stride: int) -> np.ndarray:
    """Days (n,) of the alerts of rows (n,) of a dataset, whose scores are score (n, K); NaN where there is none."""
    return np.array([step_times(data, row, stride)[step] if step >= 0 else np.nan
                     for row, step in zip(rows, alert_steps(score, threshold), strict=True)])


def validation_outputs(network, data: PackedDataset, rows, progress=False) -> dict[str, np.ndarray]:
    """What thresholds are chosen from: labels, log-probabilities, alert and premature scores (n,) of rows, by name."""
    steps, labels = predict_steps(network, data, rows, progress), data.labels[rows]
    until = np.array([np.searchsorted(step_times(data, row, network.stem_stride), data.t_premature[row])
                      for row in rows])  # NaN, for never, is sorted behind all steps
    premature = np.where(labels == BINARY, alert_scores(steps.p_binary, until), 0.0)
    return {
        "label": labels.astype(np.int8),
        "label_observable": data.labels_observable[rows].astype(np.int8),
        "log_p": steps.log_p,
        "alert_score": alert_scores(steps.p_binary),
        "premature_score": premature.astype(np.float32),
    }


def validation_scores(outputs: dict[str, np.ndarray], learned: str) -> dict[str, float | None]:
    """The scores of a pass of training, by their names in log.jsonl, None where they are not defined.

    outputs : see validation_outputs.   learned : the labels that the network learns, simulated or observable.
    """
    labels = outputs["label" if learned == "simulated" else "label_observable"].astype(int)
    log_p = outputs["log_p"].astype(float)
    called = log_p.argmax(axis=1)
    scores = {
        "val_loss": float(-log_p[np.arange(len(labels)), labels].mean()),
        "val_accuracy": float((called == labels).mean()),
    }
    for c, name in enumerate(CLASSES[: log_p.shape[1]]):
        of_class = labels == c
        scores[f"recall_{name}"] = float((called[of_class] == c).mean()) if of_class.any() else None
    return scores
