"""Priors as data: a preset is a YAML file, and a draw is a dict of named parameters.

    preset = load_preset("baseline")        params = draw(preset, "binary", rng, season=72.0)

The five presets are in `presets/`; a path to a file of the same form works wherever a preset's name does. A preset
with a prior of pi_E has annual parallax: it also says where in the sky its field is and when its season starts. A block
`other` says how often each sub-class of class other is met; a preset without one has the rates of variables.yaml.
"""

from __future__ import annotations

import dataclasses
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import NormalDist
from sys import float_info

import numpy as np

from microlens.config import BINARY_PRESETS, CLASS_PARAMETERS, PARAMETERS, PRIOR_PARAMETERS, SCHEDULES, SUBCLASSES
from microlens.files import PACKAGE, parse_yaml
from microlens.lens import ROMAN_FIELD, Field

FOLDER = PACKAGE / "presets"
FLAGS = ("caustic_crossing", "finite_source")  # what a preset implies, true or false
PI_E = "pi_E"
"""Modulus of the microlensing parallax, of isotropic direction on the sky: the one prior that a preset may lack."""
LARGEST_PI_E = 1.0  # the largest that the fits behind the labels reach
SECOND_SOURCE_DISTANCE = (0.05, 2.0)  # Einstein radii between two sources, log-uniform, in any direction
SECOND_SOURCE_FLUX = (1e-3, 1.0)  # over that of the first source, log-uniform
RADIUS_OF_FLUX = 0.25  # power of the flux ratio that gives the ratio of radii of main-sequence stars
NO_SECOND_SOURCE = {"t_0_2": float("nan"), "u_0_2": float("nan"), "rho_2": float("nan"), "q_F": 0.0}


@dataclass(frozen=True)
class Prior:
    """One parameter's distribution: constant, uniform, log_uniform or log_normal.

    low, high : its range.   mean, sigma : of log10, for log_normal, which is cut to the range.
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
            value = float(10 ** rng.normal(self.mean, self.sigma))
            if self.low <= value <= self.high:
                return value


@dataclass(frozen=True)
class Preset:
    """A population: priors by parameter name, what it implies, and where and when it is observed.

    other : weights of sub-classes of class other, by name; empty for the rates of sky/variables.yaml.
    """

    name: str
    schedule: str
    caustic_crossing: bool
    finite_source: bool
    priors: dict[str, Prior]
    field: Field = ROMAN_FIELD
    other: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def has_parallax(self) -> bool:
        return PI_E in self.priors

    def to_dict(self) -> dict:
        """By name; weights of sub-classes only where the preset states some."""
        values = asdict(self)
        return values if self.other else {name: value for name, value in values.items() if name != "other"}

    @classmethod
    def from_dict(cls, values: dict) -> Preset:
        """Inverse of to_dict."""
        priors = {name: Prior(**prior) for name, prior in values["priors"].items()}
        return cls(**{**values, "priors": priors, "field": Field(*values["field"])})

    def differences(self, other: Preset) -> list[str]:
        """'name: here ..., there ...' for each field and prior in which another preset differs; names do not count."""
        pairs = [(name, getattr(self, name), getattr(other, name)) for name in ("schedule", *FLAGS, "field", "other")]
        pairs += [(f"prior of {name}", self.priors.get(name), other.priors.get(name))
                  for name in (*PRIOR_PARAMETERS, PI_E)]
        return [f"{name}: here {here}, there {there}" for name, here, there in pairs if here != there]


KINDS = {"uniform": 2, "log_uniform": 2, "log_normal": 2, "constant": 1}  # of priors, and how many numbers each takes
LEAST_SHARE = 1e-3  # of a log_normal that its range must hold: draws outside are repeated


def _numbers(where: str, what: str, value, expected: int) -> list[float]:
    """`value` as so many finite numbers. Raises ValueError that says what came."""
    values = value if isinstance(value, list) else [value]
    good = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool) and abs(v) <= float_info.max]
    if len(values) != expected or len(good) != expected:
        raise ValueError(f"{where}: {what} came {value!r}, expected {expected} finite number(s).")
    return [float(v) for v in values]


def _prior(where: str, name: str, entry) -> Prior:
    """One parameter's prior from its entry in a preset file. Raises ValueError naming file, parameter and cause."""
    where = f"{where}: {name}"
    unit, low, high = ("", 0.0, LARGEST_PI_E) if name == PI_E else PARAMETERS[name][:3]
    found = [k for k in entry if k in KINDS] if isinstance(entry, dict) else []
    if len(found) != 1 or set(entry) - {*KINDS, "within"}:
        raise ValueError(f"{where}: came {entry!r}, expected one of {', '.join(KINDS)} (log_normal also needs within).")
    kind, mean, sigma = found[0], 0.0, 0.0
    span = _numbers(where, kind, entry[kind], KINDS[kind])
    if kind == "log_normal":
        mean, sigma = span
        if "within" not in entry or sigma <= 0:
            raise ValueError(f"{where}: log_normal needs [mean, sigma > 0] of log10 and within: [low, high].")
        span = _numbers(where, "within", entry["within"], 2)
    elif "within" in entry:
        raise ValueError(f"{where}: within belongs to log_normal alone.")
    first, last = span[0], span[-1]
    if first < low:
        raise ValueError(f"{where} from {first:g} is below its bound {low:g} ({unit}).")
    if last > high:
        raise ValueError(f"{where} to {last:g} is above its bound {high:g} ({unit}).")
    if last < first or (kind != "constant" and last == first):
        raise ValueError(f"{where}: the range {first:g} to {last:g} is empty.")
    if kind == "log_uniform" and first <= 0:
        raise ValueError(f"{where}: log_uniform needs a lower bound above 0, came {first:g}.")
    if kind == "log_normal":
        cdf = NormalDist(mean, sigma).cdf
        if first <= 0 or cdf(np.log10(last)) - cdf(np.log10(first)) < LEAST_SHARE:
            raise ValueError(f"{where}: within {entry['within']!r} holds less than {LEAST_SHARE:.1%} of the "
                             f"distribution {entry[kind]!r}.")
    return Prior(kind, first, last, mean, sigma)


def load_preset(name: str | Path) -> Preset:
    """A preset by name (distinct, planetary, stellar, baseline, roman) or from a YAML file.

    Raises FileNotFoundError for an unknown one and ValueError, naming field and bound, for an impossible one.
    """
    path = FOLDER / f"{name}.yaml" if str(name) in BINARY_PRESETS else Path(name).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"preset {str(name)!r}: neither one of {', '.join(BINARY_PRESETS)} nor a YAML file.")
    try:
        data = parse_yaml(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: {error}.") from error
    fields = ("name", "schedule", *FLAGS, "field", "other", "parameters")
    if not isinstance(data, dict) or not isinstance(data.get("parameters"), dict):
        raise ValueError(f"{path}: expected a mapping with {', '.join(fields)}.")
    unknown = [name for name in data if name not in fields]
    unknown += [name for name in data["parameters"] if name not in (*PRIOR_PARAMETERS, PI_E)]
    if unknown:
        raise ValueError(f"{path}: unknown field {', '.join(map(str, unknown))}; "
                         f"a parameter is one of {', '.join((*PRIOR_PARAMETERS, PI_E))}.")
    missing = [p for p in PRIOR_PARAMETERS if p not in data["parameters"]]
    if missing:
        raise ValueError(f"{path}: no range for {', '.join(missing)}.")
    schedule = data.get("schedule", "thesis")
    if schedule not in SCHEDULES:
        raise ValueError(f"{path}: schedule came {schedule!r}, expected one of {', '.join(SCHEDULES)}.")
    flags = {name: data.get(name, False) for name in FLAGS}
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise ValueError(f"{path}: {name} came {value!r}, expected true or false.")
    priors = {p: _prior(str(path), p, entry) for p, entry in data["parameters"].items()}
    return Preset(name=str(data.get("name", path.stem)), schedule=schedule, priors=priors,
                  field=_field(str(path), data.get("field", {})), other=_weights(str(path), data.get("other", {})),
                  **flags)


def _weights(where: str, entry) -> dict[str, float]:
    """The weights of sub-classes in a preset file, by name. Raises ValueError for anything else."""
    unknown = [str(name) for name in entry if name not in SUBCLASSES] if isinstance(entry, dict) else [repr(entry)]
    if unknown:
        raise ValueError(f"{where}: other came {', '.join(unknown)}, expected weights of {', '.join(SUBCLASSES)}.")
    weights = {name: _numbers(where, f"other: {name}", value, 1)[0] for name, value in entry.items()}
    if weights and (min(weights.values()) < 0 or sum(weights.values()) == 0):
        raise ValueError(f"{where}: other came {entry!r}, expected weights >= 0, of which one is above 0.")
    return weights


def _field(where: str, entry) -> Field:
    """The field of a preset file: a mapping with some of ra, dec, season_start. Raises ValueError for anything else."""
    if not isinstance(entry, dict) or set(entry) - set(Field._fields):
        raise ValueError(f"{where}: field came {entry!r}, expected some of {', '.join(Field._fields)}.")
    values = {name: _numbers(where, f"field: {name}", value, 1)[0] for name, value in entry.items()}
    field = Field(**values)
    if not (0 <= field.ra <= 360 and -90 <= field.dec <= 90):
        raise ValueError(f"{where}: field came ra = {field.ra:g}, dec = {field.dec:g}, expected degrees, 0 to 360 and "
                         "-90 to 90.")
    return field


def draw(preset: Preset, kind: str, rng: np.random.Generator, season: float, two_sources: float = 0.0) -> dict:
    """Parameters of one event of class `kind` by name; t_0 in days from the start of a season of `season` days.

    A single lens has rho = 0 (a point source) unless the preset gives single lenses finite sources.
    two_sources : share of the single lenses that have a second source.
    """
    params = {p: preset.priors[p].draw(rng) for p in CLASS_PARAMETERS[kind] if p in PRIOR_PARAMETERS}
    if "t_0" in params:
        params["t_0"] *= season
    if kind == "pspl" and not preset.finite_source:
        params["rho"] = 0.0
    if kind != "flat":
        params |= _parallax(preset, rng)
    if kind == "pspl":
        params |= _second_source(params, rng) if two_sources and rng.random() < two_sources else NO_SECOND_SOURCE
    return params


def _parallax(preset: Preset, rng: np.random.Generator) -> dict:
    """pi_EN and pi_EE of one event; 0 where the preset has no parallax."""
    if not preset.has_parallax:
        return {"pi_EN": 0.0, "pi_EE": 0.0}
    modulus, direction = preset.priors[PI_E].draw(rng), rng.uniform(0, 2 * np.pi)
    return {"pi_EN": float(modulus * np.cos(direction)), "pi_EE": float(modulus * np.sin(direction))}


def _second_source(params: dict, rng: np.random.Generator) -> dict:
    """The second source of a single lens: somewhere about the first one, fainter and smaller, moving along with it."""
    distance = np.exp(rng.uniform(*np.log(SECOND_SOURCE_DISTANCE)))
    direction = rng.uniform(0, 2 * np.pi)
    q_F = np.exp(rng.uniform(*np.log(SECOND_SOURCE_FLUX)))
    return {"t_0_2": float(params["t_0"] + params["t_E"] * distance * np.cos(direction)),
            "u_0_2": float(params["u_0"] + distance * np.sin(direction)),
            "rho_2": float(params["rho"] * q_F**RADIUS_OF_FLUX), "q_F": float(q_F)}
