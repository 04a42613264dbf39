"""The lens plane of an event as arrays: what stands beside a light curve in the explorers and in the figures.

    plane = lens_plane(params, tau=np.linspace(-2, 2, 81))
    plane.caustics, plane.trajectory, plane.arrow(plane.closest, length=0.1)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from microlens.lens.caustics import caustics, critical_curves
from microlens.lens.parallax import ROMAN_FIELD, event_parallax
from microlens.lens.path import trajectory

N_OUTLINE = 41  # points of the outline of the source
N_RING = 121  # points of a single lens' Einstein ring


class LensPlane(NamedTuple):
    """Positions (x, y) in Einstein radii, in the frame of microlens.lens.

    lenses : (1 or 2, 2).   critical_curves, caustics : lists of closed curves (m, 2).
    trajectory : (k, 2), of the source's centre.   closest : (2,), its centre at t_0.
    source : (N_OUTLINE, 2), the outline of its disc there.
    """

    lenses: np.ndarray
    critical_curves: list[np.ndarray]
    caustics: list[np.ndarray]
    trajectory: np.ndarray
    closest: np.ndarray
    source: np.ndarray

    @property
    def direction(self) -> np.ndarray:
        """Unit vector (2,) of the source's motion."""
        way = self.trajectory[-1] - self.trajectory[0]
        return way / np.hypot(*way)

    def arrow(self, near, length: float) -> np.ndarray:
        """Tail and head (2, 2) of an arrow of `length` Einstein radii in the direction of motion.

        Its head is the point of the drawn trajectory that is nearest to the point `near` (2,).
        """
        first, along = self.trajectory[0], self.direction
        longest = (self.trajectory[-1] - first) @ along
        head = first + along * np.clip((np.asarray(near) - first) @ along, 0.0, longest)
        return np.array([head - length * along, head])


def circle(centre, radius: float, n: int) -> np.ndarray:
    """A closed circle as n points (n, 2)."""
    phase = np.linspace(0, 2 * np.pi, n)
    return np.asarray(centre) + radius * np.column_stack([np.cos(phase), np.sin(phase)])


def lens_plane(params: dict, tau, n_caustic: int = 400, n_critical: int = 120, field=ROMAN_FIELD) -> LensPlane:
    """The lens plane of an event with the parameters u_0, rho, s, q and alpha.

    A single lens has q = NaN: its caustic is a point, its critical curve a circle, and the source moves along x. The
    path is bent where it has pi_EN or pi_EE, too, and then t_0, days after the start of the season of `field`, and t_E.
    tau : (k,) Einstein times from t_0 at which the trajectory is given.
    n_caustic, n_critical : phases of the curves of two lenses.
    Raises ValueError for an impossible lens.
    """
    s, q, u_0, alpha = (params[name] for name in ("s", "q", "u_0", "alpha"))
    if np.isnan(q):
        alpha = 0.0
        lenses = np.zeros((1, 2))
        critical, folds = [circle((0.0, 0.0), 1.0, N_RING)], [np.zeros((1, 2))]
    else:
        lenses = np.array([[-q * s / (1 + q), 0.0], [s / (1 + q), 0.0]])
        critical, folds = critical_curves(s, q, n_critical), caustics(s, q, n_caustic)
    parallax = event_parallax(params, field)
    t_0, t_E = (0.0, 1.0) if parallax is None else (params["t_0"], params["t_E"])
    path = np.column_stack(trajectory(t_0 + np.asarray(tau) * t_E, t_0, u_0, t_E, alpha, parallax))
    closest = np.column_stack(trajectory([t_0], t_0, u_0, t_E, alpha, parallax))[0]
    return LensPlane(lenses, critical, folds, path, closest, circle(closest, params["rho"], N_OUTLINE))
