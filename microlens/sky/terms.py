"""Terms of noise beside white noise: which a light curve has, drawn from priors, and what each does to the flux.

    terms = read_terms("mine.yaml", {"correlated": {"share": 0.5, "amplitude": {"uniform": [0.1, 0.5]},
                                                    "time": {"log_uniform": [0.02, 10]}}})
    drawn = draw_terms(terms, rng)               {"correlated_amplitude": 0.31, "correlated_time": 2.4}, or nothing
    disturbance = disturb(drawn, epochs, rng)    disturbance.flux, disturbance.spoilt

A term is a function of the epochs, of a random stream and of the term's parameters, and returns what it adds to the
flux (F/F_base) at each epoch. Sizes in `sigma` are in errors of the detector's law at the true flux, which are the ones
that are reported. All terms are small, so they add up. `matern` and the terms after it are families that no shipped
preset has: they are there to test what was trained on the others.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import NamedTuple

import numba
import numpy as np

from microlens.config import Parameter
from microlens.sky.priors import Prior, finite_numbers, read_prior

GAUSSIAN = 1e6  # degrees of freedom of a Student distribution that is as good as a Gaussian
AMPLITUDE = functools.partial(Parameter, "sigma", 0.0, 1e3, "$A$")
TIME = functools.partial(Parameter, "d", 0.01, 1e3, r"$\tau$")

TERMS = {
    "correlated": {
        "amplitude": AMPLITUDE("standard deviation of an Ornstein-Uhlenbeck process"),
        "time": TIME("its correlation time"),
    },
    "dither": {
        "amplitude": Parameter("F", 0.0, 0.1, "$A$", "standard deviation of the positions' relative flux offsets"),
        "positions": Parameter("", 2, 100, "$n$", "visits after which the dither positions repeat, a whole number"),
    },
    "non_linearity": {
        "slope": Parameter("F/dex", -0.1, 0.1, "$s$", "relative change of the measured flux with each factor of ten"),
    },
    "persistence": {
        "electrons": Parameter("e-", 0.0, 1e5, "$N$", "what the star of the exposure before leaves in the aperture"),
        "duration": Parameter("d", 1e-3, 1e3, "$d$", "how long the same star precedes"),
        "interval": Parameter("d", 1e-3, 1e4, "$i$", "mean time from one such step's beginning to that of the next"),
    },
    "outliers": {
        "fraction": Parameter("", 0.0, 1.0, "$f$", "share of the epochs"),
        "size": AMPLITUDE("scale of their deviation"),
        "degrees": Parameter("", 1.0, GAUSSIAN, r"$\nu$", "degrees of freedom of their Student distribution"),
    },
    "error_scale": {
        "factor": Parameter("", 1e-3, 1e3, "$e$", "true white error over the reported one"),
    },
    "matern": {
        "amplitude": AMPLITUDE("standard deviation of a Matern-3/2 process"),
        "time": TIME("its length scale"),
    },
    "random_walk": {
        "amplitude": Parameter("sigma/d^0.5", 0.0, 1e3, "$A$", "standard deviation of the steps of a day"),
    },
    "step": {
        "size": AMPLITUDE("height of a step, up or down, at one moment of the season"),
    },
    "daily": {
        "amplitude": AMPLITUDE("of a sine with a period of a day"),
    },
}
"""Terms by name, and the unit, range and meaning of the parameters of each."""

DEFAULTS = {("outliers", "degrees"): GAUSSIAN}
"""Parameters that a preset may leave out: outliers are Gaussian unless it says otherwise."""

NOISE_PARAMETERS = {f"{term}_{name}": bounds for term, fields in TERMS.items() for name, bounds in fields.items()}
"""The parameters of all terms by the name that they have in a draw and in a dataset."""

CORRELATED_TERMS = ("correlated", "matern", "random_walk")
"""Of these a preset has at most one: labels know the covariance of one."""

LONG_WALK = 1e4  # d; over a season a random walk is an Ornstein-Uhlenbeck process of so long a time and a free level
MATERN_TIME = 2 / np.sqrt(3)  # length scales; an Ornstein-Uhlenbeck process of this time has the same integral


# ---- which terms a light curve has ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Term:
    """A term of a preset: the share of the light curves that have it, and the priors of its parameters by name."""

    share: float
    priors: dict[str, Prior]

    @classmethod
    def from_dict(cls, values: dict) -> Term:
        """Inverse of dataclasses.asdict."""
        return cls(values["share"], {name: Prior(**prior) for name, prior in values["priors"].items()})


def read_terms(where: str, block) -> dict[str, Term]:
    """The terms of a preset's block `noise`, a mapping of term to {share (default 1), parameter: prior}.

    where : what errors begin with, the name of the file.
    Raises ValueError naming file, term, parameter and bound for anything else.
    """
    where = f"{where}: noise"
    if not isinstance(block, dict) or set(block) - set(TERMS):
        raise ValueError(f"{where}: came {block!r}, expected a mapping of some of {', '.join(TERMS)}.")
    several = [name for name in CORRELATED_TERMS if name in block]
    if len(several) > 1:
        raise ValueError(f"{where}: has {' and '.join(several)}, of which a light curve can have one alone.")
    return {name: _term(where, name, block[name]) for name in TERMS if name in block}


def _term(where: str, name: str, entry) -> Term:
    """One term from its entry in the block `noise`."""
    where, parameters = f"{where}: {name}", TERMS[name]
    if not isinstance(entry, dict) or set(entry) - {"share", *parameters}:
        raise ValueError(f"{where}: came {entry!r}, expected priors of {', '.join(parameters)}, and share.")
    (share,) = finite_numbers(where, "share", entry.get("share", 1.0), 1)
    if not 0 <= share <= 1:
        raise ValueError(f"{where}: share came {share:g}, expected 0 to 1: the share of the light curves that have it.")
    given = {p: {"constant": value} for (term, p), value in DEFAULTS.items() if term == name} | entry
    missing = [p for p in parameters if p not in given]
    if missing:
        raise ValueError(f"{where}: no prior of {', '.join(missing)}.")
    return Term(share, {p: read_prior(where, p, given[p], bounds) for p, bounds in parameters.items()})


def draw_terms(terms: dict[str, Term], rng: np.random.Generator) -> dict[str, float]:
    """The parameters, named as in NOISE_PARAMETERS, of the terms that one light curve has."""
    drawn = {}
    for name, term in terms.items():
        if rng.random() < term.share:
            drawn |= {f"{name}_{p}": prior.draw(rng) for p, prior in term.priors.items()}
    return drawn


def _parameters(drawn: dict[str, float], name: str) -> dict[str, float] | None:
    """The parameters of the term `name` in a draw by their own names; None where it is absent."""
    values = {p: drawn[f"{name}_{p}"] for p in TERMS[name] if f"{name}_{p}" in drawn}
    return values or None


# ---- what each term does --------------------------------------------------------------------------------------------


class Epochs(NamedTuple):
    """The epochs of a light curve.

    timestamps (T,) : days.   flux (T,) : true F/F_base.   sigma (T,) : its error by the detector's law.   white (T,) :
    the white noise, in F/F_base.   electrons : of the baseline flux in one exposure.
    """

    timestamps: np.ndarray
    flux: np.ndarray
    sigma: np.ndarray
    white: np.ndarray
    electrons: float


def correlated(epochs: Epochs, rng, amplitude, time) -> np.ndarray:
    """An Ornstein-Uhlenbeck process: covariance amplitude^2 sigma sigma' exp(-|t - t'|/time), stationary.

    Uhlenbeck & Ornstein (1930); as a model of light curves Kelly et al. (2009) and Foreman-Mackey et al. (2017).
    """
    memory = np.exp(-np.diff(epochs.timestamps) / time)
    return amplitude * epochs.sigma * _ornstein_uhlenbeck(rng.standard_normal(len(epochs.flux)), memory)


@numba.njit(cache=True)
def _ornstein_uhlenbeck(kicks, memory):
    """Unit-variance process (T,) from independent normal kicks (T,); memory (T - 1,): correlation of neighbours."""
    out = kicks.copy()
    for i in range(1, len(kicks)):
        out[i] = memory[i - 1] * out[i - 1] + np.sqrt(1 - memory[i - 1] ** 2) * kicks[i]
    return out


def dither(epochs: Epochs, rng, amplitude, positions) -> np.ndarray:
    """A comb: each dither position has a relative flux offset of its own, normal, which repeats with the dither cycle.

    From the position of a star on the pixels and errors of the effective point-spread function: 0.6 to 1.2 % with
    point-spread functions that are made from the images, less with forward modelling (arXiv:2506.04332, 2102.05069).
    A visit that is lost or made in another filter takes its position with it.
    """
    n = round(positions)
    return epochs.flux * amplitude * rng.standard_normal(n)[_visits(epochs.timestamps) % n]


def _visits(timestamps) -> np.ndarray:
    """Number of each visit (T,) from 0 on, counting those that the season of regular visits leaves out."""
    if len(timestamps) < 2:
        return np.zeros(len(timestamps), dtype=int)
    return np.rint((timestamps - timestamps[0]) / np.diff(timestamps).min()).astype(int)


def non_linearity(epochs: Epochs, rng, slope) -> np.ndarray:
    """F becomes F^(1 + slope/ln 10): by `slope` more for each factor of ten above the baseline.

    The calibration of Roman's detectors is known to 1.93e-3 a dex or better, which is 0.4 % at a magnification of 100
    (arXiv:2506.04332).
    """
    return epochs.flux ** (1 + slope / np.log(10)) - epochs.flux


def persistence(epochs: Epochs, rng, electrons, duration, interval) -> np.ndarray:
    """Steps of `electrons` that last for `duration` each and begin at random, every `interval` on average.

    A pixel that was saturated in the field before keeps about 24 and at most 72 electrons in an exposure of 66 s, and
    again in every cycle as long as the same star precedes (Roman technical information, version 1.4.0).
    """
    return electrons / epochs.electrons * _precedes(epochs.timestamps, rng, duration, interval)


def _precedes(t, rng, duration, interval) -> np.ndarray:
    """Whether an epoch (T,) lies in one of the intervals that begin as a Poisson process and last for `duration`."""
    first, last = t[0] - duration, t[-1]
    begins = rng.uniform(first, last, rng.poisson((last - first) / interval))
    out = np.zeros(len(t), dtype=bool)
    for i, j in zip(np.searchsorted(t, begins), np.searchsorted(t, begins + duration), strict=True):
        out[i:j] = True
    return out


def outliers(epochs: Epochs, rng, fraction, size, degrees) -> np.ndarray:
    """A share `fraction` of the epochs, at random, deviates by a Student distribution of scale `size` sigma more.

    A prior and no measurement: most cosmic rays are caught in the fit to the ramp of an exposure.
    """
    out, where = np.zeros(len(epochs.flux)), np.flatnonzero(rng.random(len(epochs.flux)) < fraction)
    out[where] = size * epochs.sigma[where] * rng.standard_t(degrees, len(where))
    return out


def error_scale(epochs: Epochs, rng, factor) -> np.ndarray:
    """White noise `factor` times the reported errors. OGLE's true errors are about 1.3 times those of its photometry's
    formula (Skowron et al. 2016)."""
    return (factor - 1) * epochs.white


def matern(epochs: Epochs, rng, amplitude, time) -> np.ndarray:
    """A Matern-3/2 process: covariance amplitude^2 sigma sigma' (1 + x) exp(-x), x = 3^0.5 |t - t'|/time.

    Rasmussen & Williams (2006), equation 4.17; drawn epoch by epoch in the state space of Hartikainen & Sarkka (2010).
    """
    kicks = rng.standard_normal((len(epochs.flux), 2))
    return amplitude * epochs.sigma * _matern(kicks, np.sqrt(3) / time * np.diff(epochs.timestamps))


@numba.njit(cache=True)
def _matern(kicks, x):
    """Unit-variance process (T,) from independent normal kicks (T, 2); x (T - 1,): 3^0.5 times the time steps over the
    length scale. Its state is the process and its derivative by x, both of variance 1."""
    out = np.empty(len(kicks))
    value, slope = kicks[0]
    out[0] = value
    for i in range(1, len(kicks)):
        step = x[i - 1]
        decay = np.exp(-step)
        # Covariance of what is new since the epoch before: that of the process less what the epoch before explains.
        new_value = 1 - decay**2 * ((1 + step) ** 2 + step**2)
        new_slope = 1 - decay**2 * ((1 - step) ** 2 + step**2)
        both = decay**2 * 2 * step**2
        root = np.sqrt(max(new_slope, 0.0))
        along = both / root if root > 0 else 0.0
        value, slope = decay * ((1 + step) * value + step * slope), decay * ((1 - step) * slope - step * value)
        slope += root * kicks[i, 0]
        value += along * kicks[i, 0] + np.sqrt(max(new_value - along**2, 0.0)) * kicks[i, 1]
        out[i] = value
    return out


def random_walk(epochs: Epochs, rng, amplitude) -> np.ndarray:
    """A Wiener process from 0 at the first epoch on: a difference has the variance amplitude^2 |t - t'|, in sigma^2."""
    steps = np.sqrt(np.diff(epochs.timestamps, prepend=epochs.timestamps[0])) * rng.standard_normal(len(epochs.flux))
    return amplitude * epochs.sigma * np.cumsum(steps)


def step(epochs: Epochs, rng, size) -> np.ndarray:
    """A step of `size` sigma, up or down, at a moment that is uniform in the season."""
    moment, sign = rng.uniform(epochs.timestamps[0], epochs.timestamps[-1]), rng.choice([-1, 1])
    return sign * size * epochs.sigma * (epochs.timestamps >= moment)


def daily(epochs: Epochs, rng, amplitude) -> np.ndarray:
    """A sine of `amplitude` sigma, a period of a day and a random phase."""
    return amplitude * epochs.sigma * np.sin(2 * np.pi * (epochs.timestamps - rng.random()))


FUNCTIONS = {f.__name__: f for f in (correlated, dither, non_linearity, persistence, outliers, error_scale, matern,
                                     random_walk, step, daily)}
SPOILING = ("outliers", "persistence")
"""Terms whose epochs an observer leaves out: what they add is large, and nothing else tells how large."""


class Disturbance(NamedTuple):
    """What all terms of a light curve add to its flux (T,), F/F_base, and which epochs (T,) they spoil (SPOILING)."""

    flux: np.ndarray
    spoilt: np.ndarray


def disturb(drawn: dict[str, float], epochs: Epochs, rng: np.random.Generator) -> Disturbance:
    """What the terms of a draw add to a light curve, in the order of TERMS."""
    total, spoilt = np.zeros(len(epochs.flux)), np.zeros(len(epochs.flux), dtype=bool)
    for name, term in FUNCTIONS.items():
        parameters = _parameters(drawn, name)
        if parameters is None:
            continue
        added = term(epochs, rng, **parameters)
        total += added
        if name in SPOILING:
            spoilt |= added != 0
    return Disturbance(total, spoilt)


# ---- what an observer knows of them ---------------------------------------------------------------------------------


class KnownNoise(NamedTuple):
    """What an observer knows of the noise of a light curve.

    white : true white error over the reported one.   amplitude, time : of an Ornstein-Uhlenbeck process, in reported
    errors and days; amplitude 0 where there is none.
    """

    white: float
    amplitude: float
    time: float


def known_noise(drawn: dict[str, float]) -> KnownNoise:
    """The white noise and the one Ornstein-Uhlenbeck process by which delta chi^2 knows the terms of a draw.

    error_scale and correlated enter as they are. A Matern-3/2 process enters as the Ornstein-Uhlenbeck process of the
    same variance and the same integral of its covariance, a random walk as the one of the same steps and a free level.
    Epochs of outliers and of persistence are left out (Disturbance.spoilt). Dither comb, non-linearity, step and daily
    sine are taken to be known, and do not enter: each has a form that repeats or that other stars of the field share,
    with a few numbers that thousands of epochs determine.
    """
    white = drawn.get("error_scale_factor", 1.0)
    if "matern_amplitude" in drawn:
        return KnownNoise(white, drawn["matern_amplitude"], MATERN_TIME * drawn["matern_time"])
    if "random_walk_amplitude" in drawn:
        return KnownNoise(white, drawn["random_walk_amplitude"] * np.sqrt(LONG_WALK / 2), LONG_WALK)
    return KnownNoise(white, drawn.get("correlated_amplitude", 0.0), drawn.get("correlated_time", 1.0))
