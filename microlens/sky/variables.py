"""All else that varies: which variable star, with which parameters, and its light; or two sources behind one lens.

    params = draw_other(preset, rng, season)  flux = VariableStar(params).flux(t)          # noise-free F/F_base

The sub-classes, how often each is met, and the priors of their parameters are data: `sky/variables.yaml`. The same
parameters give the same light at any times. A seed among them fixes what is random in the light. Amplitudes are those
in F146: those of the priors times the factor of the sub-class.

Two lensed sources are drawn as single lenses are, and their light is that of a lens: see microlens.data.events.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass

import numpy as np

from microlens.config import CLASS_PARAMETERS, TWO_SOURCES, VARIABLE_PARAMETERS, VARIABLE_STARS
from microlens.files import PACKAGE, parse_yaml
from microlens.sky import eruptive, periodic
from microlens.sky.population import Preset, draw
from microlens.sky.priors import read_prior

FILE = PACKAGE / "sky" / "variables.yaml"
FLUX = periodic.FLUX | eruptive.FLUX
"""{model: function of (params, t) -> flux}."""
LARGEST_SEED = 2**32
BLEND = ("f_s", "m_base")  # what a preset's priors say of every star
FAINTEST_SHARE = 1e-6  # least F/F_base of a star whose light is all its own


@dataclass(frozen=True)
class Quantiles:
    """A distribution of positive numbers by its quantiles: values (k,) at shares (k,) from 0 to 1.

    In between, the logarithm of the value is a straight line.
    """

    shares: tuple[float, ...]
    values: tuple[float, ...]

    def draw(self, rng: np.random.Generator) -> float:
        return float(np.exp(np.interp(rng.random(), self.shares, np.log(self.values))))


@dataclass(frozen=True)
class Relation:
    """A parameter that depends on another one: values (k,) at positive values (k,) of that, with a Gaussian scatter.

    of : the other parameter, by name.   log : the logarithm of the value is interpolated, and the scatter is in dex.
    In between, the value is a straight line in the logarithm of the other.   low, high : range to which draws are cut.
    """

    of: str
    at: tuple[float, ...]
    values: tuple[float, ...]
    scatter: float
    log: bool
    low: float
    high: float

    def draw(self, rng: np.random.Generator, params: dict) -> float:
        """A value for the other parameter in `params`."""
        values = np.log10(self.values) if self.log else self.values
        value = np.interp(np.log(params[self.of]), np.log(self.at), values) + self.scatter * rng.standard_normal()
        return float(np.clip(10**value if self.log else value, self.low, self.high))


@dataclass(frozen=True)
class Subclass:
    """One kind of variable star.

    model : its light, a name in FLUX.   per_deg2 : stars a square degree.   factor : amplitude in F146 over that of the
    priors' band.   priors : of its parameters, by name.
    """

    name: str
    model: str
    per_deg2: float
    factor: float
    priors: dict

    @property
    def is_periodic(self) -> bool:
        """Whether F/F_base is 1 in the mean; else it is 1 in quiescence."""
        return self.model in periodic.FLUX

    def draw(self, rng: np.random.Generator) -> dict:
        """Parameters of one star, by name; NaN for those of VARIABLE_PARAMETERS that the sub-class does not have."""
        params = dict.fromkeys(VARIABLE_PARAMETERS, float("nan"))
        params |= {"subclass": self.name, "phase": float(rng.random()), "seed": float(rng.integers(LARGEST_SEED))}
        for name, prior in self.priors.items():
            params[name] = prior.draw(rng, params) if isinstance(prior, Relation) else prior.draw(rng)
        params["amplitude"] *= self.factor
        return params


def _prior(name: str, entry: dict):
    """The distribution of one entry of the file, that of the parameter `name`."""
    if "quantiles" in entry:
        return Quantiles(tuple(entry["quantiles"]), tuple(entry["quantiles"].values()))
    if "relation" in entry:
        relation = entry["relation"]
        low, high = relation.get("within", (-np.inf, np.inf))
        return Relation(relation["of"], tuple(relation["at"]), tuple(relation["value"]), relation["scatter"],
                        relation.get("log", False), low, high)
    return read_prior(str(FILE), name, entry, VARIABLE_PARAMETERS[name])


@functools.cache
def _file() -> dict:
    """What stands in sky/variables.yaml."""
    return parse_yaml(FILE.read_text())


def variables_json() -> str:
    """The rates and priors of all sub-classes as JSON: what a draw of class other is a function of."""
    return json.dumps(_file(), sort_keys=True)


@functools.cache
def subclasses() -> dict[str, Subclass]:
    """The sub-classes that are variable stars, by name, in the order of VARIABLE_STARS."""
    data = _file()
    return {name: Subclass(name, data[name]["model"], data[name]["per_deg2"], data[name]["factor"],
                           {p: _prior(p, entry) for p, entry in data[name]["parameters"].items()})
            for name in VARIABLE_STARS}


def rates() -> dict[str, float]:
    """Light curves of each sub-class a square degree: the weights of a preset that states none."""
    return {name: entry["per_deg2"] for name, entry in _file().items()}


def draw_other(preset: Preset, rng: np.random.Generator, season: float) -> dict:
    """Parameters of one event of class other, by name; NaN for those that its sub-class does not have.

    A star has those of Subclass.draw, and f_s and m_base; a lens with two sources those of population.draw, t_0 in days
    from the start of a season of `season` days. The sub-class is drawn with the weights of the preset, or with `rates`.
    Share and magnitude of the star are drawn from the preset's priors, as those of all events are, so that neither
    tells the classes apart.
    """
    weights = preset.other or rates()
    shares = np.array(list(weights.values()))
    name = list(weights)[rng.choice(len(weights), p=shares / shares.sum())]
    params = dict.fromkeys(CLASS_PARAMETERS["other"], float("nan")) | {"subclass": name}
    if name == TWO_SOURCES:
        return params | draw(preset, "pspl", rng, season, two_sources=1.0)
    return params | {p: preset.priors[p].draw(rng) for p in BLEND} | subclasses()[name].draw(rng)


@dataclass(frozen=True)
class VariableStar:
    """A variable star: params holds VARIABLE_PARAMETERS by name, the sub-class as text."""

    params: dict

    def flux(self, t) -> np.ndarray:
        """Noise-free F/F_base (T,) > 0, were the light all the star's own, at t (T,) days in ascending order."""
        model = FLUX[subclasses()[self.params["subclass"]].model]
        return np.maximum(model(self.params, np.asarray(t, dtype=float)), FAINTEST_SHARE)
