"""What the explorers draw, as arrays (m, 2) by the name of the trace in panels.curves().

    put(panel, plane_traces(plane) | light_curve_traces(t, flux, sigma, model, drawn))
"""

from __future__ import annotations

import numpy as np

from microlens.config import CLASSES
from microlens.data import time_since_last
from microlens.fit.points import epochs_to_draw
from microlens.lens.plane import LensPlane

NOTHING = np.empty((0, 2))
PLANE = ("caustics", "critical curves", "lenses", "trajectory", "direction", "source")
PROBABILITIES = tuple(f"P({c})" for c in CLASSES)
LOOKS = ("lenses", "caustics", "source")
"""What the lens plane may show: the lenses with all their curves, the caustics, or the source to scale."""
LEAST_FLUX = 1e-2  # F/F_base; noise below it is drawn there, because the axis is logarithmic
LINE_STEPS, PROBABILITY_STEPS = 100, 150  # steps of time of a smooth line, and of the probabilities
MARGIN, SOURCE_MARGIN = 1.2, 6.0  # width of a view / extent of what it shows; of the source / its diameter
LONGEST_PATH = 4.0  # Einstein times from t_0 to which a trajectory is drawn
PATH_POINTS = 81


def log_flux(flux):
    """Natural logarithm of a flux (n,) as it is drawn."""
    return np.log(np.maximum(flux, LEAST_FLUX))


def season_tau(params: dict, t) -> np.ndarray:
    """Einstein times (PATH_POINTS,) of the trajectory of an event that is observed at t (n,) days."""
    first, last = ((t[i] - params["t_0"]) / params["t_E"] for i in (0, -1))
    return np.linspace(max(first, -LONGEST_PATH), min(last, LONGEST_PATH), PATH_POINTS)


def _joined(curves) -> np.ndarray:
    """Closed curves as one (m, 2) array with gaps of NaN between them."""
    return np.vstack([np.vstack([c, [np.nan, np.nan]]) for c in curves])


def plane_traces(plane: LensPlane) -> dict:
    """The traces of a lens plane without the arrow, whose place depends on the view; see `view_of`."""
    return {"caustics": _joined(plane.caustics), "critical curves": _joined(plane.critical_curves),
            "lenses": plane.lenses, "trajectory": plane.trajectory, "source": plane.source}


def view_of(plane: LensPlane, look: str) -> tuple[dict, dict]:
    """The trace of the arrow along the trajectory and the ranges of the axes, for panels.put.   look : one of LOOKS."""
    shown = {"lenses": [*plane.critical_curves, *plane.caustics, plane.lenses], "caustics": plane.caustics,
             "source": [plane.source]}[look]
    xy = np.vstack(shown)
    low, high = xy.min(axis=0), xy.max(axis=0)
    margin = SOURCE_MARGIN if look == "source" else MARGIN
    centre, half = (low + high) / 2, max(margin * (high - low).max() / 2, 1e-6)
    # The arrow stands ahead of the middle of the view, where it hides neither source nor caustics.
    arrow = plane.arrow(centre + 0.45 * half * plane.direction, length=0.05 * half)
    x, y = ([float(c - half), float(c + half)] for c in centre)
    return {"direction": arrow}, {"xaxis__range": x, "yaxis__range": y}


def light_curve_traces(t, flux, sigma, model, drawn) -> dict:
    """Measured flux, best single lens and residual. t, flux, sigma, model : (n,).   drawn : which epochs to draw."""
    line = epochs_to_draw(t, log_flux(model), time_steps=LINE_STEPS)
    return {"light curve": np.column_stack([t, np.maximum(flux, LEAST_FLUX)])[drawn],
            "best single lens": np.column_stack([t, model])[line],
            "residual": np.column_stack([t, (flux - model) / sigma])[drawn]}


def probability_traces(network, t, flux, delta_t=None) -> dict:
    """Class probabilities after each step of a causal network.

    t (n,) days, flux (n,) F/F_base of the valid epochs; delta_t (n,) days, computed from t where it is not given.
    """
    flux = np.asarray(flux, dtype=np.float32)[None]
    delta_t = time_since_last(t, flux) if delta_t is None else delta_t[None]
    step = network.stem_stride
    p = np.exp(network.log_prob_prefixes(flux, delta_t))[0, step - 1 :: step]
    t = t[step - 1 :: step]
    change = np.abs(np.diff(p, axis=0, prepend=p[:1])).max(axis=1)
    keep = epochs_to_draw(t, np.cumsum(change), time_steps=PROBABILITY_STEPS)
    return {name: np.column_stack([t, column])[keep] for name, column in zip(PROBABILITIES, p.T, strict=False)}
