"""The minima of chi^2 of a binary lens: starts are scored, the best few descend, first on softened data.

    for x, chi2 in binary_minima(problem, None, progress): ...

A start that is nearly right has its caustic crossings at wrong epochs, which costs it all of chi^2. Softened errors (a
share of the flux above the baseline is added to them) leave the shape at large to be fitted first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from microlens.fit.problem import BINARY, PARALLAX, Problem
from microlens.fit.starts import (
    anomalous,
    distinct,
    grid_starts,
    library_starts,
    planetary_starts,
    two_bump_starts,
)

SOFT, SOFTER = 0.01, 0.05  # errors added, in the flux above the baseline
COARSE = 1e-2  # tolerance of the magnification there
BASELINE = 0.2  # quantile of the flux that stands for the baseline
N_PLANETS, N_GRID, N_LIBRARY = 10, 10, 14  # starts of each kind that descend
FEW_TRIALS, SOME_TRIALS, MANY_TRIALS = 8, 12, 80  # of the solver: on softened data, to choose, to the end
N_FOLLOWED, N_POLISHED = 16, 6  # of them, that descend on the data as they are, and to the end
HOPE_CHI2, HOPE_SHARE = 400.0, 1.05  # chi^2 above the best up to which a minimum is followed to the end
TWINS_OF = 2  # best minima whose twins are tried
COMPARED = ("u_0", "t_E", "s", "q", "alpha")  # coordinates that tell minima apart
SAME_SHARE = 0.02  # difference of coordinates up to which two minima are the same
SAME_CHI2, ABOUT_SAME = 1.0, 0.3  # or of chi^2, where the coordinates differ by less than the second


def binary_minima(problem: Problem, start: dict | None, progress: Callable[[float, str], None]
                  ) -> Iterator[tuple[np.ndarray, float]]:
    """Distinct minima of a binary lens, as coordinates and chi^2, each as it is found.

    start : parameters by name, whose minimum and its twins are wanted; None for a search.
    Raises FitCancelled where the problem says so.
    """
    straight = replace(problem, names=BINARY)
    if start is None:
        starts = searched(straight, progress)
    else:
        starts = [start]
    polished, done = [], []
    for k, given in enumerate(starts):
        progress(0.7 + 0.15 * k / len(starts), "polishing")
        polished.append(_descended(straight, given, MANY_TRIALS))
    polished.sort(key=lambda pair: pair[1])
    for k, (given, _) in enumerate(polished[:TWINS_OF]):
        progress(0.85 + 0.03 * k, "degenerate twins")
        polished += [_descended(straight, twin, SOME_TRIALS) for twin in twins(given)]
    polished = _hopeful(polished)
    for k, (given, _) in enumerate(polished):
        progress(0.9 + 0.1 * k / len(polished), "last descent")
        for last in _last_starts(problem, given):
            reached, chi2 = _descended(problem, last, MANY_TRIALS)
            x = problem.coordinates(normal_form(reached, "pi_EN" in problem.names))
            if not any(_same(x, chi2, *other) for other in done):
                done.append((x, chi2))
                yield x, chi2


def _hopeful(reached: list[tuple[dict, float]]) -> list[tuple[dict, float]]:
    """Those of some parameters and chi^2 that are close to the best, in the order of chi^2."""
    reached = sorted(reached, key=lambda pair: pair[1])
    return [pair for pair in reached if pair[1] < HOPE_SHARE * reached[0][1] + HOPE_CHI2][:N_POLISHED]


def searched(problem: Problem, progress: Callable[[float, str], None]) -> list[dict]:
    """The most promising parameters of a binary lens without parallax, after short descents."""
    time, flux, sigma = problem.time, problem.flux, problem.sigma
    progress(0.0, "anomalies and planets")
    singles, anomalies = anomalous(time, flux, sigma)
    scored = planetary_starts(time, flux, sigma, singles, anomalies, N_PLANETS)
    progress(0.1, "grid of s, q and alpha")
    scored += grid_starts(time, flux, _softened(problem, SOFT), singles, N_GRID)
    softer = replace(problem, sigma=_softened(problem, SOFTER), tolerance=COARSE)
    progress(0.2, "library of curves")
    shapes = library_starts(time, flux, softer.sigma, singles[-1], N_LIBRARY)
    shapes += two_bump_starts(time, flux, sigma, singles)
    for k, start in enumerate(shapes):
        progress(0.35 + 0.15 * k / len(shapes), "descent on softened data")
        scored.append(_descended(softer, start, FEW_TRIALS)[0])
    soft, reached = replace(problem, sigma=_softened(problem, SOFT), tolerance=COARSE), []
    for k, start in enumerate(scored):
        progress(0.4 + 0.3 * k / len(scored), "short descents")
        given, _ = _descended(soft, start, FEW_TRIALS)
        reached.append((given, problem.chi2(problem.coordinates(given))))
    reached.sort(key=lambda pair: pair[1])
    reached = [_descended(problem, given, SOME_TRIALS) for given in distinct((x for x, _ in reached), N_FOLLOWED)]
    reached.sort(key=lambda pair: pair[1])
    return distinct((given for given, _ in reached), N_POLISHED)


def _softened(problem: Problem, share: float) -> np.ndarray:
    """Errors (n,) with a share of the flux above the baseline added."""
    above = np.maximum(problem.flux - np.quantile(problem.flux, BASELINE), 0.0)
    return np.hypot(problem.sigma, share * above)


def _descended(problem: Problem, start: dict, most_trials: int) -> tuple[dict, float]:
    """The parameters at the end of a descent from a start, and their chi^2."""
    x, chi2 = problem.polished(problem.coordinates(start), most_trials)
    return problem.parameters(x), chi2


def twins(given: dict) -> list[dict]:
    """Parameters to start from in search of what is degenerate with a binary lens.

    The close and the wide companion (s to 1/s, Griest & Safizadeh 1998), and the source on the companion's other side
    (alpha to -alpha at the same u_0, which inverts the path at the axis).
    """
    other_side = given | {"alpha": -given["alpha"]}
    return [given | {"s": 1 / given["s"]}, other_side, other_side | {"s": 1 / given["s"]}]


def _last_starts(problem: Problem, given: dict) -> list[dict]:
    """Where the descent with parallax begins: on either side of the lens; without parallax there is one."""
    if not set(PARALLAX) & set(problem.names):
        return [given]
    straight = {name: value for name, value in given.items() if name not in PARALLAX}
    return [straight, mirrored(straight)]


def mirrored(given: dict) -> dict:
    """The mirror image at the binary's axis: without parallax it has the same light curve."""
    return given | {"u_0": -given["u_0"], "alpha": -given["alpha"]}


def normal_form(given: dict, with_parallax: bool) -> dict:
    """The same lens with q <= 1, alpha from 0 to 2 pi and, without parallax, u_0 >= 0."""
    if given["q"] > 1:
        given = given | {"q": 1 / given["q"], "alpha": given["alpha"] + np.pi}
    if given["u_0"] < 0 and not with_parallax:
        given = mirrored(given)
    return given | {"alpha": given["alpha"] % (2 * np.pi)}


def _same(x, chi2, other, other_chi2) -> bool:
    """Whether two minima are one, up to where the descent stopped; t_0 follows the others, and rho is often unknown."""
    compared = [BINARY.index(name) for name in COMPARED]
    difference = np.abs(x - other)[compared]
    largest = np.minimum(difference, np.abs(difference - 2 * np.pi)).max()  # alpha is a turn less or more
    return bool(largest < SAME_SHARE or (abs(chi2 - other_chi2) < SAME_CHI2 and largest < ABOUT_SAME))
