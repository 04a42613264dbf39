"""The season as Roman sees it: its epochs, its pauses, and the epochs that are lost.

    timestamps = epochs("roman", seed)          observed = dropout(rng, len(timestamps), 0.05)
"""

from __future__ import annotations

import numpy as np

from microlens.config import PAUSE_STREAM, SCHEDULES

CADENCE_THESIS, SEASON_THESIS = 1.0 / 96.0, 72.0  # d
CADENCE_ROMAN = 12.139 / 1440.0  # d (RMDC26 ephemerides)
SEASON_ROMAN = 70.74  # d
PAUSE_EPOCHS = 30  # that a pause takes: 6.3 h from the last epoch before to the first after (RMDC26: 6.1 to 6.3 h)
FIXED_PAUSES = (0.99, 35.24, 69.49)  # d into the season, every season
EQUAL_STEPS = 1e-6  # d; steps that differ less are equal
MOVING_PAUSES = 4  # with the three above 43.9 h (RMDC26: about 43.5) and 8182 visits (8181 to 8185) a season
COLOUR_VISIT = 30  # visits from one in F087 or F213 to the next, 6.1 h: about every third 2-h bin has one


def epochs(schedule: str, seed: int = 0) -> np.ndarray:
    """Epochs (T,) of one season, days from its start.

    'thesis': 72 d every 15 min, 6912 epochs. 'roman': 70.7 d every 12.139 min without the pauses (they are absent, not
    masked): three recur every season, four are drawn from `seed`. One visit in COLOUR_VISIT is made in another filter,
    from the first one on that is drawn from `seed`, and no F146 epoch. Source: RMDC26 ephemerides; for the colour
    visits the occupancy of 2-h bins in that challenge.
    Raises ValueError for an unknown schedule.
    """
    if schedule == "thesis":
        return np.arange(round(SEASON_THESIS / CADENCE_THESIS)) / 96.0
    if schedule != "roman":
        raise ValueError(f"schedule {schedule!r} is unknown; choose one of {', '.join(SCHEDULES)}.")
    t = np.arange(0.0, SEASON_ROMAN, CADENCE_ROMAN)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(PAUSE_STREAM,)))
    # The moving pauses fall one into each quarter of the season between the fixed ones.
    edges = np.linspace(3.0, SEASON_ROMAN - 3.0, MOVING_PAUSES + 1)
    moving = edges[:-1] + rng.uniform(0.1, 0.9, MOVING_PAUSES) * np.diff(edges)
    keep = np.ones(len(t), dtype=bool)
    for start in (*FIXED_PAUSES, *moving):
        last = int(start / CADENCE_ROMAN)
        keep[last + 1 : last + 1 + PAUSE_EPOCHS] = False
    keep[rng.integers(COLOUR_VISIT) :: COLOUR_VISIT] = False
    return t[keep]


def dropout(rng: np.random.Generator, n: int, missing_fraction: float) -> np.ndarray:
    """Which of n epochs are observed, (n,) bool: each is lost independently with probability missing_fraction."""
    return rng.random(n) >= missing_fraction


def season_length(timestamps) -> float:
    """Days of a season with these epochs (T,), of which t_0 is drawn as a share.

    A season of equal steps ends one step after its last epoch, one with pauses at its last epoch.
    """
    steps, length = np.diff(timestamps), float(timestamps[-1] - timestamps[0])
    if np.ptp(steps) < EQUAL_STEPS:
        return round(length + float(steps[0]), 9)
    return length
