"""Distributions as data: a prior is an entry of a YAML file, and a draw from it is a number.

    prior = read_prior("mine.yaml", "t_E", {"log_normal": [1.15, 0.45], "within": [1, 100]}, PARAMETERS["t_E"])
    t_E = prior.draw(rng)
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from sys import float_info

import numpy as np

from microlens.config import Parameter


@dataclass(frozen=True)
class Prior:
    """One parameter's distribution: constant, uniform, log_uniform, normal or log_normal.

    low, high : its range.   mean, sigma : of normal, and of log10 for log_normal; both are cut to the range.
    """

    kind: str
    low: float
    high: float
    mean: float = 0.0
    sigma: float = 0.0

    def draw(self, rng: np.random.Generator) -> float:
        if self.kind == "constant":
            return self.low
        if self.kind == "uniform":
            return float(rng.uniform(self.low, self.high))
        if self.kind == "log_uniform":
            return float(np.exp(rng.uniform(np.log(self.low), np.log(self.high))))
        while True:
            value = float(rng.normal(self.mean, self.sigma))
            value = 10**value if self.kind == "log_normal" else value
            if self.low <= value <= self.high:
                return value


KINDS = {"uniform": 2, "log_uniform": 2, "normal": 2, "log_normal": 2, "constant": 1}
"""Kinds of priors, and how many numbers each takes."""
CUT = ("normal", "log_normal")  # kinds that have a mean and a standard deviation and are cut to a range
LEAST_SHARE = 1e-3  # of such a distribution that its range must hold: draws outside are repeated


def finite_numbers(where: str, what: str, value, expected: int) -> list[float]:
    """`value` as so many finite numbers. Raises ValueError that says what came."""
    values = value if isinstance(value, list) else [value]
    good = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool) and abs(v) <= float_info.max]
    if len(values) != expected or len(good) != expected:
        raise ValueError(f"{where}: {what} came {value!r}, expected {expected} finite number(s).")
    return [float(v) for v in values]


def read_prior(where: str, name: str, entry, bounds: Parameter) -> Prior:
    """One parameter's prior from its entry in a preset file.

    bounds : the unit and the range of the parameter.
    Raises ValueError naming file, parameter and cause.
    """
    where = f"{where}: {name}"
    unit = f" ({bounds.unit})" if bounds.unit else ""
    found = [k for k in entry if k in KINDS] if isinstance(entry, dict) else []
    if len(found) != 1 or set(entry) - {*KINDS, "within"}:
        raise ValueError(f"{where}: came {entry!r}, expected one of {', '.join(KINDS)} ({' and '.join(CUT)} also need "
                         "within).")
    kind, mean, sigma = found[0], 0.0, 0.0
    span = finite_numbers(where, kind, entry[kind], KINDS[kind])
    if kind in CUT:
        mean, sigma = span
        if "within" not in entry or sigma <= 0:
            scale = " of log10" if kind == "log_normal" else ""
            raise ValueError(f"{where}: {kind} needs [mean, sigma > 0]{scale} and within: [low, high].")
        span = finite_numbers(where, "within", entry["within"], 2)
    elif "within" in entry:
        raise ValueError(f"{where}: within belongs to {' and '.join(CUT)} alone.")
    first, last = span[0], span[-1]
    if first < bounds.low:
        raise ValueError(f"{where} from {first:g} is below its bound {bounds.low:g}{unit}.")
    if last > bounds.high:
        raise ValueError(f"{where} to {last:g} is above its bound {bounds.high:g}{unit}.")
    if last < first or (kind != "constant" and last == first):
        raise ValueError(f"{where}: the range {first:g} to {last:g} is empty.")
    if kind == "log_uniform" and first <= 0:
        raise ValueError(f"{where}: log_uniform needs a lower bound above 0, came {first:g}.")
    if kind in CUT and _share_inside(kind, mean, sigma, first, last) < LEAST_SHARE:
        raise ValueError(f"{where}: within {entry['within']!r} holds less than {LEAST_SHARE:.1%} of the distribution "
                         f"{entry[kind]!r}.")
    return Prior(kind, first, last, mean, sigma)


def _share_inside(kind: str, mean: float, sigma: float, first: float, last: float) -> float:
    """The share of a normal or log_normal distribution that lies between first and last."""
    if kind == "log_normal":
        if first <= 0:
            return 0.0
        first, last = np.log10(first), np.log10(last)
    cdf = NormalDist(mean, sigma).cdf
    return cdf(last) - cdf(first)
