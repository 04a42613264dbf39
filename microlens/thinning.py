"""Which epochs of a light curve a screen or a page needs.

    keep = thin(t, np.log(flux));  plot(t[keep], flux[keep])
"""

from __future__ import annotations

import numpy as np

FLUX_STEPS = 120  # a drawn curve has an epoch at least every 1/120 of its range
LARGE = 4.0  # standard deviations; such a residual is always drawn, until there are hundreds of them


def thin(t, y, residual=None, time_steps=220, flux_steps=FLUX_STEPS) -> np.ndarray:
    """Indices of the epochs to draw of a curve y (T,): equal steps of time and of the way that y goes up and down.

    So a narrow feature keeps its points, both sides of a jump are kept, and nothing is averaged or made up.
    time_steps : in the whole season, at least.   flux_steps : in the range of y.
    residual : (T,), in standard deviations; large ones are kept, too.
    """
    t, y = np.asarray(t, dtype=float), np.asarray(y, dtype=float)
    if len(t) < 3:
        return np.arange(len(t))
    change = np.abs(np.diff(y, prepend=y[0]))
    step = max(np.ptp(y) / flux_steps, change.sum() / (4 * flux_steps), 1e-12)
    way = np.diff(t, prepend=t[0]) / max(np.ptp(t), 1e-12) * time_steps + change / step
    if residual is not None:
        large = np.abs(residual) > LARGE
        way += large * min(1.0, 2 * flux_steps / max(large.sum(), 1))
    keep = np.diff(np.floor(np.cumsum(way)), prepend=-1) > 0
    keep[:-1] |= change[1:] > step  # the epoch before a jump
    return np.flatnonzero(keep)
