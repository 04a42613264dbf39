"""The minima of chi^2 of a binary lens: starts are scored, the best few descend, first on softened data.

    for x, chi2 in binary_minima(problem, None, progress): ...

A start that is nearly right has its caustic crossings at wrong epochs, which costs it all of chi^2. Softened errors (a
share of the flux above the baseline is added to them) leave the shape at large to be fitted first.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from operator import itemgetter

import numpy as np

from microlens.fit.kernels import without_parallax
from microlens.fit.points import bins
from microlens.fit.problem import BINARY, LOGARITHMIC, PARALLAX, Problem
from microlens.fit.single_lens import SingleLensFit
from microlens.fit.starts import (
    Anomaly,
    anomalous,
    distinct,
    grid_starts,
    library_starts,
    planetary_starts,
    turn_between,
    two_bump_starts,
)

SOFT, SOFTER, SOFTEST = 0.01, 0.05, 0.2  # errors added, in the flux above the baseline
COARSE = 1e-2  # tolerance of the magnification there
BASELINE = 0.2  # quantile of the flux that stands for the baseline
N_SHAPES, N_SOFTEST = 40, 16  # starts from the library that descend on the softest data, and on softer data
N_PLANETS, N_GRID, N_LIBRARY = 10, 6, 8  # starts of each kind that descend further
AVERAGED = 4  # epochs of the softest data that are joined to one
FEW_TRIALS, SOME_TRIALS, MANY_TRIALS = 8, 12, 80  # of the solver: on softened data, to choose, to the end
N_FOLLOWED, N_POLISHED = 16, 6  # of them, that descend on the data as they are, and to the end
HOPE_CHI2, HOPE_SHARE = 400.0, 1.05  # chi^2 above the best up to which a minimum is followed to the end
BENT_GAIN = 50.0  # chi^2 by which a single lens with parallax must be better, for starts that have parallax
ROUNDS_BETWEEN, GOOD_CHI2 = 3, 1.3  # searches between minima; none once the best chi^2 is so small for an epoch
WIDER = 3  # times as many curves of the library are followed where none describes the light curve
N_BETWEEN = 4  # pairs of minima between which another is looked for
NEAR_LN_S, NEAR_LN_Q, NEAR_LN_T_E, NEAR_ALPHA = 0.4, 1.5, 0.5, 0.4  # the most by which such a pair differs
TWINS_OF = 2  # best minima whose twins are tried
FARTHEST_CROSSING = 3.0  # Einstein radii from the lens at which the source crosses the axis of a twin
COMPARED = ("u_0", "t_E", "s", "q", "alpha")  # coordinates that tell minima apart
SAME_SHARE = 0.02  # difference of coordinates up to which two minima are the same
SAME_CHI2, ABOUT_SAME = 1.0, 0.3  # or of chi^2, where the coordinates differ by less than the second
RIDGE_CHI2 = 10.0  # and where chi^2 half way between them is above both by less than this


def binary_minima(problem: Problem, start: dict | None, progress: Callable[[float, str], None]
                  ) -> Iterator[tuple[np.ndarray, float]]:
    """Distinct minima of a binary lens, as coordinates and chi^2, each as it is found.

    start : parameters by name, whose minimum and its twins are wanted; None for a search.
    Raises FitCancelled where the problem says so.
    """
    starts = searched(problem, progress) if start is None else [start]
    has_parallax = "pi_EN" in problem.names
    polished, done = [], []
    for k, given in enumerate(starts):
        progress(0.7 + 0.15 * k / len(starts), "polishing")
        polished.append(_descended(problem, given, MANY_TRIALS))
    polished.sort(key=itemgetter(1))
    for k, (given, _) in enumerate(polished[:TWINS_OF]):
        progress(0.85 + 0.03 * k, "degenerate twins")
        polished += [_descended(problem, twin, SOME_TRIALS) for twin in twins(given)]
    polished = _hopeful(problem, polished)
    for k, (given, _) in enumerate(polished):
        progress(0.9 + 0.1 * k / len(polished), "last descent")
        bent = dict.fromkeys(PARALLAX, 0.0) | given
        for last in [bent, mirrored(bent)] if has_parallax else [given]:  # parallax tells the lens' two sides apart
            reached, chi2 = _descended(problem, last, MANY_TRIALS)
            x = problem.coordinates(normal_form(reached, has_parallax))
            if is_new(problem, (x, chi2), done):
                done.append((x, chi2))
                yield x, chi2


def _hopeful(problem: Problem, reached: list[tuple[dict, float]]) -> list[tuple[dict, float]]:
    """Those of some parameters and chi^2 that are close to the best, each minimum once, in the order of chi^2."""
    reached = sorted(reached, key=itemgetter(1))
    kept, compared = [], []
    for given, chi2 in reached:
        x = problem.coordinates(normal_form(given, "pi_EN" in given))
        is_close = chi2 < HOPE_SHARE * reached[0][1] + HOPE_CHI2
        if is_close and is_new(problem, (x, chi2), compared):
            kept.append((given, chi2))
            compared.append((x, chi2))
    return kept[:N_POLISHED]


def searched(problem: Problem, progress: Callable[[float, str], None]) -> list[dict]:
    """The most promising parameters of a binary lens, after short descents.

    They have no parallax, unless the light curve of the single lens is plainly bent: then some do.
    """
    time, flux, sigma = problem.time, problem.flux, problem.sigma
    progress(0.0, "anomalies and planets")
    paths = _singles_and_anomalies(problem)
    scored = []
    for singles, anomalies in paths:
        scored += planetary_starts(time, flux, sigma, singles, anomalies, N_PLANETS)
    progress(0.1, "grid of s, q and alpha")
    for singles, _ in paths:
        scored += grid_starts(time, flux, _softened(problem, SOFT).sigma, singles, N_GRID)
    progress(0.2, "library of curves")
    straight = paths[0][0]
    shapes = library_starts(time, flux, _softened(problem, SOFTEST).sigma, straight[-1], WIDER * N_SHAPES)
    bumps = two_bump_starts(time, flux, sigma, straight)
    scored += _after_soft_descents(problem, shapes[:N_SHAPES] + bumps, 1, progress)
    reached = _followed(problem, scored, progress)
    if reached[0][1] > GOOD_CHI2 * len(time):
        reached += _followed(problem, _after_soft_descents(problem, shapes + bumps, WIDER, progress), progress)
        reached = _with_minima_between(problem, reached)
    return distinct(reached, N_POLISHED)


def _after_soft_descents(problem: Problem, shapes: list[dict], width: int, progress) -> list[dict]:
    """What some starts reach on softened data; `width` times as many of them are kept as usual."""
    for share, n_kept in ((SOFTEST, N_SOFTEST), (SOFTER, N_LIBRARY)):
        soft, descended = _averaged(_softened(problem, share)), []
        for k, start in enumerate(shapes):
            progress(0.3 + 0.15 * k / len(shapes), "descent on softened data")
            descended.append(_descended(soft, start, SOME_TRIALS))
        shapes = distinct(descended, width * n_kept)
    return shapes


def _followed(problem: Problem, starts: list[dict], progress) -> list[tuple[dict, float]]:
    """Where starts lead, on slightly softened data and then on the data as they are: parameters and chi^2, in order."""
    soft, reached = _softened(problem, SOFT), []
    for k, start in enumerate(starts):
        progress(0.45 + 0.25 * k / len(starts), "short descents")
        given, _ = _descended(soft, start, FEW_TRIALS)
        straight_or_bent = _problem_of(problem, given)
        reached.append((given, straight_or_bent.chi2(straight_or_bent.coordinates(given))))
    reached = [_descended(problem, given, SOME_TRIALS) for given in distinct(reached, N_FOLLOWED)]
    return _with_minima_between(problem, reached)


def _with_minima_between(problem: Problem, reached: list[tuple[dict, float]]) -> list[tuple[dict, float]]:
    """Minima and those that are found between them, in the order of chi^2, until one describes the light curve."""
    soft, tried = _softened(problem, SOFT), []
    reached = sorted(reached, key=itemgetter(1))
    for _ in range(ROUNDS_BETWEEN):
        if reached[0][1] < GOOD_CHI2 * len(problem.time):
            break
        middles = [x for x in between(distinct(reached, N_POLISHED)) if x not in tried]
        tried += middles
        for middle in middles:
            reached.append(_descended(problem, _descended(soft, middle, SOME_TRIALS)[0], SOME_TRIALS))
        reached.sort(key=itemgetter(1))
    return reached


def between(found: list[dict]) -> list[dict]:
    """Parameters in the middle of neighbours among some minima, the first N_BETWEEN pairs of them.

    A light curve that crosses caustics has false minima on either side of the true one, where some of the crossings
    are at their times.
    """
    pairs = [(a, b) for a, b in itertools.combinations(found, 2) if a.keys() == b.keys() and _are_neighbours(a, b)]
    return [_middle(a, b) for a, b in pairs[:N_BETWEEN]]


def _middle(a: dict, b: dict) -> dict:
    """The parameters half way between two sets, where the directions are no more than half a turn apart."""
    middle = {name: float(np.sqrt(a[name] * b[name]) if name in LOGARITHMIC else 0.5 * (a[name] + b[name]))
              for name in a}
    return middle | {"alpha": float(b["alpha"] + 0.5 * turn_between(a, b))}


def _are_neighbours(a: dict, b: dict) -> bool:
    """Whether two minima differ so little that a third may lie between them."""
    return (abs(np.log(a["s"] / b["s"])) < NEAR_LN_S and abs(np.log(a["q"] / b["q"])) < NEAR_LN_Q
            and abs(np.log(a["t_E"] / b["t_E"])) < NEAR_LN_T_E and abs(turn_between(a, b)) < NEAR_ALPHA
            and a["u_0"] * b["u_0"] > 0)


def _singles_and_anomalies(problem: Problem) -> list[tuple[list[SingleLensFit], list[Anomaly]]]:
    """Single lenses and anomalies as `anomalous` finds them: on a straight path, and on a bent one if plainly better.

    Only a problem that has parallax among its parameters is asked for the second.
    """
    epochs = problem.time, problem.flux, problem.sigma
    singles, anomalies = anomalous(*epochs)
    if "pi_EN" not in problem.names:
        return [(singles, anomalies)]
    start = problem.t_0_par, singles[0].t_E, singles[0].u_0
    bent = anomalous(*epochs, start, problem.field)
    return [(singles, anomalies), bent] if bent[0][0].chi2 < singles[0].chi2 - BENT_GAIN else [(singles, anomalies)]


def _softened(problem: Problem, share: float) -> Problem:
    """The problem with a share of the flux above the baseline added to its errors: a coarse magnification will do."""
    above = np.maximum(problem.flux - np.quantile(problem.flux, BASELINE), 0.0)
    return replace(problem, sigma=np.hypot(problem.sigma, share * above), tolerance=COARSE)


def _averaged(problem: Problem) -> Problem:
    """The problem with AVERAGED neighbouring epochs joined to one."""
    points = bins(without_parallax(problem.time, problem.flux, problem.sigma**-2.0), AVERAGED)
    return replace(problem, time=points.t, flux=points.y, sigma=points.w**-0.5)


def _descended(problem: Problem, start: dict, most_trials: int) -> tuple[dict, float]:
    """The parameters at the end of a descent from a start, and their chi^2. A start without parallax stays without."""
    problem = _problem_of(problem, start)
    x, chi2 = problem.polished(problem.coordinates(start), most_trials)
    return problem.parameters(x), chi2


def _problem_of(problem: Problem, given: dict) -> Problem:
    """The problem whose parameters are those that are given."""
    return replace(problem, names=tuple(name for name in problem.names if name in given))


def twins(given: dict) -> list[dict]:
    """Parameters to start from in search of what is degenerate with a binary lens.

    The close and the wide companion (s to 1/s, Griest & Safizadeh 1998), the planet on the other side of the image that
    it perturbs (s to s_dagger^2/s, Zhang et al. 2022), and each of them with the source on the companion's other side
    (alpha to -alpha at the same u_0, which inverts the path at the axis).
    """
    other_side = given | {"alpha": -given["alpha"]}
    return [other_side] + [one | {"s": s} for one in (given, other_side) for s in _other_separations(one)]


def _other_separations(given: dict) -> list[float]:
    """The separations whose light curves are degenerate with that of a lens.

    s_dagger is where a planet's image lies: s_dagger - 1/s_dagger is the place at which the source crosses the axis.
    """
    s, sin_alpha = given["s"], np.sin(given["alpha"])
    crossing = -given["u_0"] / sin_alpha if sin_alpha != 0 else np.inf
    if abs(crossing) > FARTHEST_CROSSING:
        return [1 / s]
    s_dagger = 0.5 * (crossing + np.hypot(crossing, 2.0))
    return [1 / s, float(s_dagger**2 / s)]


def mirrored(given: dict) -> dict:
    """The mirror image at the binary's axis, with the same light curve without parallax.

    With parallax it is nearly the same near the ecliptic, where the Sun's offsets lie along the east, if pi_EN changes
    its sign (Skowron et al. 2011).
    """
    other_side = given | {"u_0": -given["u_0"], "alpha": -given["alpha"]}
    return other_side | {"pi_EN": -given["pi_EN"]} if "pi_EN" in given else other_side


def normal_form(given: dict, with_parallax: bool) -> dict:
    """The same lens with q <= 1, alpha from 0 to 2 pi and, without parallax, u_0 >= 0."""
    if given["q"] > 1:
        given = given | {"q": 1 / given["q"], "alpha": given["alpha"] + np.pi}
    if given["u_0"] < 0 and not with_parallax:
        given = mirrored(given)
    return given | {"alpha": given["alpha"] % (2 * np.pi)}


def is_new(problem: Problem, minimum: tuple[np.ndarray, float], known: list[tuple[np.ndarray, float]]) -> bool:
    """Whether a minimum, as coordinates and chi^2, is none of those that are known."""
    return not any(_same(problem, minimum, other) for other in known)


def _same(problem: Problem, one: tuple[np.ndarray, float], other: tuple[np.ndarray, float]) -> bool:
    """Whether two minima, as coordinates and chi^2, are one, up to where the descents stopped.

    Those that differ a little are two where chi^2 rises between them. t_0 follows the other coordinates, and rho is
    often unknown.
    """
    (x, chi2), (other_x, other_chi2) = one, other
    compared = [BINARY.index(name) for name in COMPARED]
    difference = np.abs(x - other_x)[compared]
    largest = np.minimum(difference, np.abs(difference - 2 * np.pi)).max()  # alpha is a turn less or more
    if largest < SAME_SHARE:
        return True
    if largest > ABOUT_SAME or abs(chi2 - other_chi2) > SAME_CHI2:
        return False
    middle = _middle(problem.parameters(x), problem.parameters(other_x))
    return problem.chi2(problem.coordinates(middle)) < max(chi2, other_chi2) + RIDGE_CHI2
