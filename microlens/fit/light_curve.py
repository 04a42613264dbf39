"""Lens models through one light curve: a single lens or a binary lens, with errors and with all minima that are found.

    fit = fit_light_curve(time, flux, flux_err, model="binary")
    fit.best.parameters, fit.best.errors, fit.best.chi2
    for solution in fit.solutions:                        # ordered by chi^2: degenerate solutions of a binary
        model, residual = fit.model_flux(solution), fit.residual(solution)

Parameters are those of microlens.lens: t_0 and u_0 about the centre of mass, alpha the direction of the source's motion
from the axis that points from the primary to the secondary, in radians, lengths in Einstein radii of the total mass.
"""

from __future__ import annotations

import time as clock
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from microlens import lens
from microlens.fit.problem import (
    BINARY,
    FLUXES,
    LIMITS,
    PARALLAX,
    SINGLE,
    FitCancelled,
    Problem,
    lens_magnification,
    tolerance_for,
)
from microlens.fit.search import binary_minima
from microlens.fit.single_lens import FEWEST_EPOCHS, fit_single_lens
from microlens.lens.engine import check_finite

MODELS = {"PSPL": SINGLE, "FSPL": (*SINGLE, "rho"), "binary": BINARY}
"""Models that can be fitted, and their parameters without parallax."""
LISTED = 100.0  # chi^2 above the best up to which another minimum is listed
MOST_LISTED = 8  # solutions
CHI2_SIGMAS = 3.0  # standard deviations, sqrt(2 n), by which chi^2 of a model that describes n epochs exceeds n at most
RHO_STARTS = (0.5, 1.5)  # in u_0, where the fit without a source's radius found a point
SMALLEST_RHO = 3e-4  # of these starts


@dataclass(frozen=True)
class Solution:
    """One lens model of a light curve, F = f_source A + f_blend.

    model : a key of MODELS.   parameters, errors : values and standard errors by name, in days, Einstein radii and
    radians.   fluxes, flux_errors : f_source and f_blend by name, in the unit of the light curve.   chi2 : of n epochs.
    names, covariance : the latter is that of the parameters in the order of names, and then of the two fluxes.
    parallax : None for a straight path.   limb_darkening : linear coefficient, which is not fitted.
    """

    model: str
    parameters: dict[str, float]
    errors: dict[str, float]
    fluxes: dict[str, float]
    flux_errors: dict[str, float]
    chi2: float
    n: int
    names: tuple[str, ...]
    covariance: np.ndarray
    parallax: lens.Parallax | None = None
    limb_darkening: float = 0.0

    def magnification(self, time) -> np.ndarray:
        """Magnification (n,) at times (n,) days."""
        return lens_magnification(np.asarray(time, dtype=float), self.parameters, self.parallax, self.limb_darkening)

    @property
    def describes(self) -> bool:
        """Whether chi^2 is what the errors allow: no more than CHI2_SIGMAS standard deviations above its mean.

        If not, a better minimum was missed, the errors are too small, or the light curve is something else.
        """
        return bool(self.chi2 < self.n + CHI2_SIGMAS * np.sqrt(2 * self.n))

    def flux(self, time) -> np.ndarray:
        """Model flux (n,) at times (n,) days."""
        return self.fluxes["f_source"] * self.magnification(time) + self.fluxes["f_blend"]


@dataclass(frozen=True)
class LightCurveFit:
    """A light curve and the lens models through it.

    time, flux, flux_err (n,) : the epochs that were fitted.   solutions : ordered by chi^2.   seconds : that it took.
    cancelled : whether it was stopped before its end, so that the list may be short.
    """

    time: np.ndarray
    flux: np.ndarray
    flux_err: np.ndarray
    solutions: list[Solution]
    seconds: float
    cancelled: bool = False

    @property
    def best(self) -> Solution:
        """The solution of least chi^2."""
        return self.solutions[0]

    def model_flux(self, solution: Solution | None = None) -> np.ndarray:
        """Model flux (n,) of a solution, the best if none is given."""
        return (solution or self.best).flux(self.time)

    def residual(self, solution: Solution | None = None) -> np.ndarray:
        """Residual (n,) of a solution, the best if none is given, in standard deviations."""
        return (self.flux - self.model_flux(solution)) / self.flux_err


def fit_light_curve(time, flux, flux_err, model="PSPL", parallax: lens.Field | None = None, start: dict | None = None,
                    progress: Callable[[float, str], None] | None = None, cancel: Callable[[], bool] | None = None, *,
                    limb_darkening=0.0) -> LightCurveFit:
    """The best lens models through one light curve under errors that are known.

    time, flux, flux_err : (T,) days and any unit of flux; epochs whose flux is 0.0 or NaN count as not observed.
    model : "PSPL", "FSPL" or "binary".   parallax : the field, to fit annual parallax, too; times are then days after
    its season_start.   start : parameters by name to begin with. A binary lens is then not searched for: its start and
    the twins of the minimum next to it are polished.   progress : called with the share done and words for it.
    cancel : asked often; once it is true, what has been found so far is returned.
    limb_darkening : linear coefficient of the source.
    Raises ValueError for impossible input, FitCancelled where nothing had been found.
    """
    began = clock.perf_counter()
    epochs = valid_epochs(time, flux, flux_err)
    _check(model, start, limb_darkening)
    progress, cancel = progress or (lambda share, words: None), cancel or (lambda: False)
    names = MODELS[model] + (PARALLAX if parallax is not None else ())
    single = fit_single_lens(*epochs, finite_source=model == "FSPL", field=parallax)
    t_0_par = float(np.clip(single.t_0 if start is None else start["t_0"], epochs[0][0], epochs[0][-1]))
    problem = Problem(names, *epochs, parallax, t_0_par, limb_darkening, tolerance_for(*epochs[1:]), cancel)
    minima, stopped = [], False
    try:
        found = binary_minima(problem, start, progress) if model == "binary" else _single_minima(problem, start, single)
        for minimum in found:
            minima.append(minimum)
    except FitCancelled:
        stopped = True
    if not minima:
        raise FitCancelled("the fit was cancelled before it had any solution.")
    minima.sort(key=lambda pair: pair[1])
    kept = [x for x, chi2 in minima if chi2 < minima[0][1] + LISTED][:MOST_LISTED]
    quiet = replace(problem, cancelled=lambda: False)
    solutions = sorted((_solution(model, quiet, x) for x in kept), key=lambda solution: solution.chi2)
    progress(1.0, "done")
    return LightCurveFit(*epochs, solutions, clock.perf_counter() - began, stopped)


def valid_epochs(time, flux, flux_err) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times, fluxes and errors of the observed epochs, in the order of time.

    Raises ValueError for misshapen input, for errors that are not positive, and for too few epochs.
    """
    time, flux, flux_err = (np.array(values, dtype=float) for values in (time, flux, flux_err))
    if not (time.ndim == 1 and time.shape == flux.shape == flux_err.shape):
        raise ValueError(f"time, flux, flux_err: came shapes {time.shape}, {flux.shape}, {flux_err.shape}; expected "
                         "one shape (T,).")
    observed = np.isfinite(flux) & (flux != 0)
    bad = observed & ~(np.isfinite(time) & np.isfinite(flux_err) & (flux_err > 0))
    if bad.any():
        k = int(np.flatnonzero(bad)[0])
        raise ValueError(f"{int(bad.sum())} observed epochs have no finite time or no error above 0, the first at "
                         f"position {k}: time {time[k]:g}, error {flux_err[k]:g}. Leave them out, or set their flux "
                         "to NaN.")
    if observed.sum() < FEWEST_EPOCHS + len(BINARY):
        raise ValueError(f"{int(observed.sum())} observed epochs: a fit needs at least {FEWEST_EPOCHS + len(BINARY)}.")
    order = np.flatnonzero(observed)[np.argsort(time[observed], kind="stable")]
    if not (flux[order] != flux[order[0]]).any():
        raise ValueError(f"the flux is {flux[order[0]]:g} at all epochs: there is nothing to fit.")
    return time[order], flux[order], flux_err[order]


def _check(model: str, start: dict | None, limb_darkening: float):
    """Raise ValueError for a model that is unknown or for a start that is none of it."""
    if model not in MODELS:
        raise ValueError(f"model {model!r} is unknown; choose one of {', '.join(MODELS)}.")
    if start is not None:
        missing = [name for name in MODELS[model] if name not in start]
        if missing:
            raise ValueError(f"start lacks {', '.join(missing)}; {model} needs {', '.join(MODELS[model])}.")
        check_finite(**{name: start[name] for name in MODELS[model]})
        low = [name for name in ("t_E", "rho", "s", "q") if name in MODELS[model] and not start[name] > 0]
        if low:
            raise ValueError(f"start has {low[0]} = {start[low[0]]!r}; expected a number above 0.")
        for name in ("s", "q") if model == "binary" else ():
            low, high = np.exp(LIMITS[name])
            if not low <= start[name] <= high:
                raise ValueError(f"start has {name} = {start[name]!r}; a fit keeps it from {low:g} to {high:g}.")
    if not 0 <= limb_darkening <= 1:
        raise ValueError(f"limb_darkening = {limb_darkening!r}: expected 0 to 1 (linear coefficient).")


def _single_minima(problem: Problem, start: dict | None, single):
    """Coordinates and chi^2 of the best single lens, or of the one next to a start.

    With parallax there are two, one for each sign of u_0, unless a start says which one is wanted.
    """
    given = {"t_0": single.t_0, "u_0": single.u_0, "t_E": single.t_E, "rho": single.rho}
    if single.parallax is not None:
        given |= {"pi_EN": single.parallax.pi_EN, "pi_EE": single.parallax.pi_EE}
    trials = [given] if start is None else [start]
    if "rho" in problem.names and trials[0]["rho"] == 0:
        size = max(abs(given["u_0"]), SMALLEST_RHO)
        trials = [given | {"rho": factor * size} for factor in RHO_STARTS]
    if start is None and "pi_EN" in problem.names:  # the path passes the lens on either side
        trials += [given | {"u_0": -given["u_0"], "pi_EN": -given["pi_EN"]} for given in trials]
    minima = sorted((problem.polished(problem.coordinates(given)) for given in trials), key=lambda pair: pair[1])
    sides = {}  # the best on either side of the lens, which parallax alone tells apart
    for x, chi2 in minima:
        sides.setdefault("pi_EN" in problem.names and problem.parameters(x)["u_0"] < 0, (x, chi2))
    return list(sides.values())


def _solution(model: str, problem: Problem, x) -> Solution:
    """The solution at coordinates x, with errors."""
    magnification = problem.magnification(x)
    f_source, f_blend, chi2 = problem.fluxes(magnification)
    scales = np.append(problem.scales(x), [1.0, 1.0])
    covariance = problem.covariance(x) * np.outer(scales, scales)
    sigma = np.sqrt(np.diag(covariance))
    given, k = problem.parameters(x), len(x)
    return Solution(model, given, {name: float(s) for name, s in zip(problem.names, sigma, strict=False)},
                    dict(zip(FLUXES, (f_source, f_blend), strict=True)),
                    {name: float(s) for name, s in zip(FLUXES, sigma[k:], strict=True)}, float(chi2), len(problem.time),
                    problem.names, covariance, problem.parallax(given), problem.limb_darkening)
