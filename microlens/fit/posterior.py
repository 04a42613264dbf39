"""A short Markov chain about a solution: errors where chi^2 is no parabola.

    chain = sample(fit, n_steps=1000)
    chain.summary()["q"]                         # median, distance to the 16th percentile, distance to the 84th

The sampler is emcee (Foreman-Mackey et al. 2013), an optional dependency. The fluxes take their best values at every
step. Priors are uniform in the coordinates of the fit: the logarithms of t_E, rho, s and q, the others as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from microlens.fit.light_curve import LightCurveFit, Solution
from microlens.fit.problem import LOGARITHMIC, FitCancelled, Problem, tolerance_for

WALKERS_PER_PARAMETER = 3
FIRST_SPREAD = 0.3  # of the walkers, in standard errors
LARGEST_SPREAD = 0.1  # of a walker's coordinate, where the standard error is larger or unknown
BURNT = 0.3  # of the steps that are left out
PERCENTILES = (50, 16, 84)


@dataclass(frozen=True)
class Chain:
    """Samples of a solution's parameters.

    names : of the k parameters.   samples (n, k) : days, Einstein radii, radians.   chi2 (n,).   acceptance : share of
    the proposed steps that were taken.
    """

    names: tuple[str, ...]
    samples: np.ndarray
    chi2: np.ndarray
    acceptance: float

    def summary(self) -> dict[str, tuple[float, float, float]]:
        """By name: the median, and the distances from it to the 16th and to the 84th percentile."""
        middle, low, high = np.percentile(self.samples, PERCENTILES, axis=0)
        return {name: (float(m), float(m - a), float(b - m))
                for name, m, a, b in zip(self.names, middle, low, high, strict=True)}


def sample(fit: LightCurveFit, solution: Solution | None = None, n_steps: int = 1000, seed: int = 0,
           progress: Callable[[float, str], None] | None = None, cancel: Callable[[], bool] | None = None) -> Chain:
    """A Markov chain that begins about a solution, the best if none is given.

    n_steps : of each walker, of which there are three a parameter.   progress, cancel : as in fit_light_curve; what was
    sampled before a cancellation is returned.
    Raises ImportError where emcee is not installed, FitCancelled where nothing was sampled.
    """
    try:
        import emcee
    except ImportError as error:
        raise ImportError("a Markov chain needs emcee, which is not installed: pip install emcee.") from error
    solution = solution or fit.best
    parallax = solution.parallax
    problem = Problem(solution.names, fit.time, fit.flux, fit.flux_err, parallax and parallax.field,
                      parallax.t_0_par if parallax else 0.0, solution.limb_darkening,
                      tolerance_for(fit.flux, fit.flux_err), cancel or (lambda: False))
    x, low, high = problem.coordinates(solution.parameters), *problem.limits()

    def log_probability(at):
        return -0.5 * problem.chi2(at) if ((low < at) & (at < high)).all() else -np.inf

    spread = np.array([solution.errors[name] for name in problem.names]) / problem.scales(x)
    spread = FIRST_SPREAD * np.clip(np.where(np.isfinite(spread), spread, np.inf), 0.0, LARGEST_SPREAD)
    rng = np.random.default_rng(seed)
    walkers = np.clip(x + spread * rng.normal(size=(WALKERS_PER_PARAMETER * len(x), len(x))), low + 1e-9, high - 1e-9)
    sampler = emcee.EnsembleSampler(len(walkers), len(x), log_probability)
    sampler.random_state = np.random.RandomState(seed).get_state()
    try:
        for k, _ in enumerate(sampler.sample(walkers, iterations=n_steps)):
            if progress:
                progress((k + 1) / n_steps, "Markov chain")
    except FitCancelled:
        if sampler.iteration < 2:
            raise
    left_out = int(BURNT * sampler.iteration)
    samples = sampler.get_chain(discard=left_out, flat=True)
    logarithmic = np.array([name in LOGARITHMIC for name in problem.names])
    samples = np.where(logarithmic, np.exp(np.where(logarithmic, samples, 0.0)), samples)
    return Chain(problem.names, samples, -2 * sampler.get_log_prob(discard=left_out, flat=True),
                 float(np.mean(sampler.acceptance_fraction)))
