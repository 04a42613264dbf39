"""A lens model through a light curve as a problem of least squares: coordinates, residuals, derivatives, covariance.

    problem = Problem(SINGLE, time, flux, sigma)
    x, chi2 = problem.polished(problem.coordinates({"t_0": 31.0, "u_0": 0.1, "t_E": 12.0}))
    problem.parameters(x), problem.covariance(x)

The two fluxes enter linearly and are solved exactly for every trial (variable projection, Golub & Pereyra 1973), so the
solver sees the other parameters alone. Those that are positive are fitted as logarithms. Derivatives are differences
whose steps are short against the source and the caustics.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from microlens import lens
from microlens.config import PARALLAX
from microlens.fit.kernels import (
    LARGEST_U_0,
    LONGEST_LN_T_E,
    SHORTEST_LN_T_E,
    SMALLEST_LN_RHO,
    FluxFit,
    best_fluxes,
    without_parallax,
)

SINGLE = ("t_0", "u_0", "t_E")
"""Parameters of a point source behind a single lens."""
BINARY = (*SINGLE, "rho", "s", "q", "alpha")
"""Parameters of a finite source behind a binary lens."""
LOGARITHMIC = ("t_E", "rho", "s", "q")
"""Parameters whose natural logarithm is the coordinate."""
FLUXES = ("f_source", "f_blend")

LIMITS = {
    "u_0": (-LARGEST_U_0, LARGEST_U_0),
    "t_E": (SHORTEST_LN_T_E, LONGEST_LN_T_E),
    "rho": (SMALLEST_LN_RHO, np.log(0.5)),
    "s": (np.log(0.15), np.log(12.0)),
    "q": (np.log(1e-7), np.log(1e4)),  # above 1 the lenses change their names in the end
    "alpha": (-np.inf, np.inf),
    "pi_EN": (-3.0, 3.0),
    "pi_EE": (-3.0, 3.0),
}
"""Least and largest coordinates. t_0 lies within a season's length of the season."""

LONGEST_STEP, SHORTEST_STEP = 1e-3, 1e-5  # of a difference, in Einstein radii by which the source is moved
STEP_IN_RHO = 0.1  # the same in source radii, as a light curve changes within one of them
LN_RHO_STEP, LONGEST_LN_Q_STEP = 0.02, 0.02
LONGEST_PARALLAX_STEP, PARALLAX_STEP = 0.01, 10.0  # the second over that of u_0: the Sun's offsets are some 0.1 au
STEP_IN_SIGMA = 0.2  # of the final derivatives, in standard errors of the coordinate
SETTLED, SETTLED_X = 5e-6, 1e-7  # relative change of chi^2, and of the coordinates, at which the solver stops
FAILED = 1e4  # residual, in standard deviations, of a trial whose magnification is not known: it is not taken
TOLERANCE = 1e-3  # relative error of a binary's magnification, unless the photometry is finer
TOLERANCE_IN_SIGMA, FINEST_TOLERANCE = 0.3, 1e-5  # that error in the relative error of the best epochs
SINGULAR = 1e-12  # of the largest eigenvalue of a normal matrix whose diagonal is 1: below it is rounding


class FitCancelled(RuntimeError):
    """A fit was cancelled before it had any solution."""


def lens_magnification(time, parameters: dict, parallax: lens.Parallax | None = None, limb_darkening=0.0,
                       tolerance=TOLERANCE) -> np.ndarray:
    """Magnification (n,) at times (n,) days of a single lens, or of a binary one if the parameters have s, q and alpha.

    parameters : by name; without rho the source is a point.   tolerance : relative, of a binary's.
    Raises ValueError for impossible input and lens.MagnificationError where a binary's is not known.
    """
    t_0, u_0, t_E = (parameters[name] for name in SINGLE)
    rho = parameters.get("rho", 0.0)
    if "s" not in parameters:
        return lens.fspl(time, t_0, u_0, t_E, rho, limb_darkening, parallax=parallax)
    return lens.binary(time, t_0, u_0, t_E, rho, parameters["s"], parameters["q"], parameters["alpha"],
                       parallax=parallax, limb_darkening=limb_darkening, tolerance=tolerance)


@dataclass(frozen=True)
class Problem:
    """A lens model and the light curve that it is fitted to.

    names : parameters that are fitted, in the order of the coordinates x.   time, flux, sigma (n,) : the epochs, times
    in days.   field, t_0_par : of the parallax, where it is among the names.   tolerance : relative error of a binary's
    magnification.   cancelled : asked before every trial; where it is true, FitCancelled is raised.
    """

    names: tuple[str, ...]
    time: np.ndarray
    flux: np.ndarray
    sigma: np.ndarray
    field: lens.Field | None = None
    t_0_par: float = 0.0
    limb_darkening: float = 0.0
    tolerance: float = TOLERANCE
    cancelled: Callable[[], bool] = lambda: False

    def coordinates(self, parameters: dict) -> np.ndarray:
        """The coordinates of parameters by name; those of the parallax are 0 where it is not given."""
        values = [parameters.get(name, 0.0) if name in PARALLAX else parameters[name] for name in self.names]
        return np.array([np.log(value) if name in LOGARITHMIC else value
                         for name, value in zip(self.names, values, strict=True)])

    def parameters(self, x) -> dict:
        """The parameters by name at coordinates x."""
        return {name: float(np.exp(value) if name in LOGARITHMIC else value)
                for name, value in zip(self.names, x, strict=True)}

    def scales(self, x) -> np.ndarray:
        """What an error of each coordinate is to be multiplied by to be one of the parameter."""
        values = self.parameters(x)
        return np.array([values[name] if name in LOGARITHMIC else 1.0 for name in self.names])

    def magnification(self, x) -> np.ndarray:
        """Magnification (n,) at the epochs. Raises lens.MagnificationError where it is not known."""
        if self.cancelled():
            raise FitCancelled("the fit was cancelled.")
        given = self.parameters(x)
        return lens_magnification(self.time, given, self.parallax(given), self.limb_darkening, self.tolerance)

    def parallax(self, given: dict) -> lens.Parallax | None:
        """The parallax of parameters by name; None for a straight path."""
        if "pi_EN" not in given:
            return None
        return lens.Parallax(given["pi_EN"], given["pi_EE"], self.t_0_par, self.field)

    def fluxes(self, magnification) -> FluxFit:
        """The best fluxes of source and blend for a magnification (n,), and their chi^2."""
        return best_fluxes(without_parallax(self.time, self.flux, self.sigma**-2.0), magnification)

    def residuals(self, x) -> np.ndarray:
        """Residuals (n,) in standard deviations with the best fluxes."""
        try:
            magnification = self.magnification(x)
        except lens.MagnificationError:
            return np.full(len(self.time), FAILED)
        f_source, f_blend, _ = self.fluxes(magnification)
        return (self.flux - f_source * magnification - f_blend) / self.sigma

    def chi2(self, x) -> float:
        """chi^2 with the best fluxes."""
        return float(np.square(self.residuals(x)).sum())

    def steps(self, x) -> np.ndarray:
        """Steps of differences, that move the source against the caustics by a small part of its radius."""
        given = self.parameters(x)
        move = min(max(STEP_IN_RHO * given.get("rho", np.inf), SHORTEST_STEP), LONGEST_STEP)
        by_name = {"t_0": move * given["t_E"], "rho": LN_RHO_STEP}
        if "q" in given:
            share = given["q"] / (1 + given["q"]) ** 2  # by which the centre of mass moves with ln q
            by_name["q"] = min(LONGEST_LN_Q_STEP, move / (share + 0.5 * np.sqrt(share)))
        by_name |= dict.fromkeys(PARALLAX, min(LONGEST_PARALLAX_STEP, PARALLAX_STEP * move))
        return np.array([by_name.get(name, move) for name in self.names])

    def derivatives(self, x) -> np.ndarray:
        """Derivatives (n, k) of the residuals."""
        here, out = self.residuals(x), np.empty((len(self.time), len(x)))
        for j, step in enumerate(self.steps(x)):
            ahead = np.array(x)
            ahead[j] += step
            out[:, j] = (self.residuals(ahead) - here) / (ahead[j] - x[j])
        return out

    def limits(self) -> tuple[np.ndarray, np.ndarray]:
        """Least and largest coordinates."""
        span = self.time[-1] - self.time[0]
        limits = LIMITS | {"t_0": (self.time[0] - span, self.time[-1] + span)}
        return tuple(np.array([limits[name][side] for name in self.names]) for side in range(2))

    def polished(self, x, most_trials: int = 60) -> tuple[np.ndarray, float]:
        """The coordinates at the end of a descent that begins at x, and their chi^2."""
        low, high = self.limits()
        inside = 1e-9  # a start on a limit is moved off it
        start = np.clip(x, low + inside, high - inside)
        try:
            f_source = self.fluxes(self.magnification(start)).f_source
        except lens.MagnificationError:
            f_source = 0.0
        if f_source == 0:
            return start, self.chi2(start)  # the flux depends on no coordinate
        found = least_squares(self.residuals, start, self.derivatives, (low, high), x_scale="jac", ftol=SETTLED,
                              xtol=SETTLED_X, gtol=None, max_nfev=most_trials)
        return found.x, 2 * float(found.cost)

    def covariance(self, x) -> np.ndarray:
        """Covariance (k + 2, k + 2) of the coordinates and of the two fluxes: the inverse of the normal matrix.

        The derivatives are taken twice: steps of a part of the standard errors average over the noise of the curves.
        """
        magnification = self.magnification(x)
        f_source, _, _ = self.fluxes(magnification)
        linear = np.column_stack([magnification, np.ones(len(magnification))]) / self.sigma[:, None]
        steps = self.steps(x)
        for _ in range(2):
            # Of the residual at fixed fluxes: what the best fluxes take up is given back by the joint matrix.
            jacobian = np.column_stack([self._derivatives_at(x, steps, f_source), linear])
            covariance = inverse_of_normal(jacobian.T @ jacobian)
            sigma = np.sqrt(np.diag(covariance)[: len(x)])
            steps = np.clip(STEP_IN_SIGMA * np.where(np.isfinite(sigma), sigma, 0.0), 0.1 * steps, 10 * steps)
        return covariance

    def _derivatives_at(self, x, steps, f_source) -> np.ndarray:
        """Derivatives (n, k) of the model flux in standard deviations at fixed fluxes, from both sides."""
        out = np.empty((len(self.time), len(x)))
        for j, step in enumerate(steps):
            move = np.zeros(len(x))
            move[j] = step
            out[:, j] = f_source * (self.magnification(x + move) - self.magnification(x - move)) / (2 * step)
        return out / self.sigma[:, None]


def inverse_of_normal(matrix) -> np.ndarray:
    """The inverse of a normal matrix; infinite variances for what the data do not tell."""
    scale = np.sqrt(np.diag(matrix))
    if not (scale > 0).all():
        known = scale > 0
        out = np.diag(np.full(len(scale), np.inf))
        out[np.ix_(known, known)] = inverse_of_normal(matrix[np.ix_(known, known)])
        return out
    values, vectors = np.linalg.eigh(matrix / np.outer(scale, scale))
    values = np.maximum(values, SINGULAR * values[-1])
    return (vectors / values) @ vectors.T / np.outer(scale, scale)


def tolerance_for(flux, sigma) -> float:
    """The relative error of a binary's magnification that matters at no epoch of a light curve."""
    best = np.quantile(sigma / np.maximum(np.abs(flux), sigma), 0.01)
    return float(np.clip(TOLERANCE_IN_SIGMA * best, FINEST_TOLERANCE, TOLERANCE))
