"""Epochs of large errors, joined as they come: what the nightly run does where a whole season is joined at once.

    time, flux, waiting = joined(waiting, time, flux, ratio)          waiting = np.zeros((), WAITING)

The network takes all epochs to be equally good (microlens.data.lightcurve). Here nothing is known of epochs to come. So
errors are compared with those of the star's first epochs, and an epoch that begins a group waits for the others.
"""

from __future__ import annotations

import numpy as np

from microlens.data.lightcurve import CADENCE, LARGE, LONGEST_JOINED_STEP, MOST_JOINED

LONGEST_STEP = LONGEST_JOINED_STEP * CADENCE  # d; no longer one lies within epochs that become one
WAITING = np.dtype([
    ("n", "i8"),            # epochs of the group that has begun; 0 for none
    ("first", "f8"),        # d, of its first epoch
    ("last", "f8"),         # d, of its last one
    ("information", "f8"),  # sum of its weights, in those of an ordinary epoch
    ("time", "f8"),         # d, weighted sum of the times since the first
    ("flux", "f8"),         # weighted sum of the fluxes
])
"""The epochs of a star that wait for others."""


def joined(waiting: np.ndarray, time, flux, ratio) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(time, flux, waiting): the epochs (m,) that can be handed on after new ones of one star (n,), and what waits.

    waiting : a WAITING of shape ().   time (n,) d, ascending.   flux (n,) F/F_base.
    ratio (n,) : of the errors to the typical one (lightcurve.error_ratio), NaN where none is known.
    A group begins with an epoch above LARGE. It ends where its mean is as good as an ordinary epoch, where it has
    MOST_JOINED of them, or before a step that is too long; its weights are the inverse squares of the ratios. One epoch
    after another gives the same as all at once.
    """
    waiting, handed_on = waiting.copy(), []
    for t, f, r in zip(time, flux, ratio, strict=True):
        if waiting["n"] and t - waiting["last"] > LONGEST_STEP:
            handed_on.append(_mean(waiting))
            waiting = np.zeros((), WAITING)
        if not waiting["n"]:
            if not r > LARGE:
                handed_on.append((t, f))
                continue
            waiting["first"] = t
        weight = float(r) ** -2 if r > 0 else 1.0
        waiting["n"] += 1
        waiting["last"] = t
        waiting["information"] += weight
        waiting["time"] += weight * (t - waiting["first"])
        waiting["flux"] += weight * f
        if waiting["information"] >= 1 or waiting["n"] == MOST_JOINED:
            handed_on.append(_mean(waiting))
            waiting = np.zeros((), WAITING)
    times, fluxes = np.array(handed_on, dtype=float).reshape(-1, 2).T
    return times, fluxes, waiting


def _mean(waiting) -> tuple[float, float]:
    """Time and flux of the one epoch that a group becomes."""
    weight = float(waiting["information"])
    return float(waiting["first"]) + float(waiting["time"]) / weight, float(waiting["flux"]) / weight
