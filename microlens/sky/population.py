"""Priors as data: a preset is a YAML file, and a draw is a dict of named parameters.

    preset = load_preset("baseline")        params = draw(preset, "binary", rng, season=72.0)

The presets are in `presets/`; a path to a file of the same form works wherever a preset's name does. A preset with a
prior of pi_E has annual parallax: it also says where in the sky its field is and when its season starts. A preset with
a block `noise` has the terms of noise that it states (see microlens.sky.terms); one without has white noise. A block
`other` says how often each sub-class of class other is met; a preset without one has the rates of variables.yaml.
"""

from __future__ import annotations

import dataclasses
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from microlens.config import (
    BINARY_PRESETS,
    CLASS_PARAMETERS,
    NOISE_PRESETS,
    PARAMETERS,
    PRIOR_PARAMETERS,
    SCHEDULES,
    SUBCLASSES,
    Parameter,
)
from microlens.files import PACKAGE, read_parameters
from microlens.lens import ROMAN_FIELD, Field
from microlens.sky.priors import Prior, finite_numbers, read_prior
from microlens.sky.terms import Term, read_terms

FOLDER = PACKAGE / "presets"
FLAGS = ("caustic_crossing", "finite_source", "observable_binaries")  # what a preset implies, true or false
PI_E = "pi_E"
"""Modulus of the microlensing parallax, of isotropic direction on the sky: the one prior that a preset may lack."""
PI_E_BOUNDS = Parameter("", 0.0, 1.0, r"$\pi_\mathrm{E}$", "microlensing parallax; the fits behind the labels reach 1")
SECOND_SOURCE_DISTANCE = (0.05, 2.0)  # Einstein radii between two sources, log-uniform, in any direction
SECOND_SOURCE_FLUX = (1e-3, 1.0)  # over that of the first source, log-uniform
RADIUS_OF_FLUX = 0.25  # power of the flux ratio that gives the ratio of radii of main-sequence stars
NO_SECOND_SOURCE = {"t_0_2": float("nan"), "u_0_2": float("nan"), "rho_2": float("nan"), "q_F": 0.0}


@dataclass(frozen=True)
class Preset:
    """A population: priors by parameter name, what it implies, where and when it is observed, and its noise by term.

    caustic_crossing, observable_binaries : binaries are drawn until they meet a caustic; until an observer can tell
    them from a single lens.   finite_source : whether single lenses have one.
    other : weights of sub-classes of class other, by name; empty for the rates of sky/variables.yaml.
    """

    name: str
    schedule: str
    caustic_crossing: bool
    finite_source: bool
    priors: dict[str, Prior]
    field: Field = ROMAN_FIELD
    noise: dict[str, Term] = dataclasses.field(default_factory=dict)
    other: dict[str, float] = dataclasses.field(default_factory=dict)
    observable_binaries: bool = False

    @property
    def has_parallax(self) -> bool:
        return PI_E in self.priors

    def to_dict(self) -> dict:
        """By name; weights of sub-classes and the condition on binaries only where the preset has them."""
        younger = ("other", "observable_binaries")  # files of versions that did not know them lack them
        return {name: value for name, value in asdict(self).items() if value or name not in younger}

    @classmethod
    def from_dict(cls, values: dict) -> Preset:
        """Inverse of to_dict."""
        priors = {name: Prior(**prior) for name, prior in values["priors"].items()}
        noise = {name: Term.from_dict(term) for name, term in values["noise"].items()}
        return cls(**{**values, "priors": priors, "field": Field(*values["field"]), "noise": noise})

    def differences(self, other: Preset) -> list[str]:
        """'name: here ..., there ...' for each field and prior in which another preset differs; names do not count."""
        pairs = [(name, getattr(self, name), getattr(other, name)) for name in ("schedule", *FLAGS, "field", "other")]
        pairs += [(f"prior of {name}", self.priors.get(name), other.priors.get(name))
                  for name in (*PRIOR_PARAMETERS, PI_E)]
        pairs += [(f"noise term {name}", self.noise.get(name), other.noise.get(name))
                  for name in dict.fromkeys((*self.noise, *other.noise))]
        return [f"{name}: here {here}, there {there}" for name, here, there in pairs if here != there]


def _read_file(name: str | Path, names: tuple[str, ...]) -> tuple[Path, dict]:
    """Path and content of the shipped file `name`, one of `names`, or of the YAML file at the path `name`.

    Raises FileNotFoundError for an unknown one and ValueError for one that is no mapping of some of FIELDS.
    """
    path = FOLDER / f"{name}.yaml" if str(name) in names else Path(name).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"preset {str(name)!r}: neither one of {', '.join(names)} nor a YAML file.")
    data = read_parameters(path)
    unknown = [name for name in data if name not in FIELDS]
    if unknown:
        raise ValueError(f"{path}: unknown field {', '.join(unknown)}, expected some of {', '.join(FIELDS)}.")
    return path, data


FIELDS = ("name", "schedule", *FLAGS, "field", "parameters", "noise", "other")
"""Fields of a preset file."""


def load_preset(name: str | Path, noise: str | Path | None = None) -> Preset:
    """A preset by name (see BINARY_PRESETS) or from a YAML file.

    noise : a preset or YAML file whose noise is taken instead of the preset's own, as `load_noise` reads it.
    Raises FileNotFoundError for an unknown one and ValueError, naming field and bound, for an impossible one.
    """
    path, data = _read_file(name, BINARY_PRESETS)
    where = str(path)
    if not isinstance(data.get("parameters"), dict):
        raise ValueError(f"{where}: expected a mapping with {', '.join(FIELDS)}.")
    bounds = {**{p: PARAMETERS[p] for p in PRIOR_PARAMETERS}, PI_E: PI_E_BOUNDS}
    unknown = [str(name) for name in data["parameters"] if name not in bounds]
    if unknown:
        raise ValueError(f"{where}: unknown field {', '.join(unknown)}; a parameter is one of {', '.join(bounds)}.")
    missing = [p for p in PRIOR_PARAMETERS if p not in data["parameters"]]
    if missing:
        raise ValueError(f"{where}: no range for {', '.join(missing)}.")
    schedule = data.get("schedule", "thesis")
    if schedule not in SCHEDULES:
        raise ValueError(f"{where}: schedule came {schedule!r}, expected one of {', '.join(SCHEDULES)}.")
    flags = {name: data.get(name, False) for name in FLAGS}
    for flag, value in flags.items():
        if not isinstance(value, bool):
            raise ValueError(f"{where}: {flag} came {value!r}, expected true or false.")
    priors = {p: read_prior(where, p, entry, bounds[p]) for p, entry in data["parameters"].items()}
    terms = read_terms(where, data.get("noise", {})) if noise is None else load_noise(noise)
    return Preset(name=str(data.get("name", path.stem)), schedule=schedule, priors=priors, noise=terms,
                  field=_field(where, data.get("field", {})), other=_weights(where, data.get("other", {})), **flags)


def _weights(where: str, entry) -> dict[str, float]:
    """The weights of sub-classes in a preset file, by name. Raises ValueError for anything else."""
    unknown = [str(name) for name in entry if name not in SUBCLASSES] if isinstance(entry, dict) else [repr(entry)]
    if unknown:
        raise ValueError(f"{where}: other came {', '.join(unknown)}, expected weights of {', '.join(SUBCLASSES)}.")
    weights = {name: finite_numbers(where, f"other: {name}", value, 1)[0] for name, value in entry.items()}
    if weights and (min(weights.values()) < 0 or sum(weights.values()) == 0):
        raise ValueError(f"{where}: other came {entry!r}, expected weights >= 0, of which one is above 0.")
    return weights


def load_noise(name: str | Path) -> dict[str, Term]:
    """The terms of noise, by name, of a preset or of a YAML file with a block `noise`; a preset without one has none.

    Raises FileNotFoundError for an unknown one and ValueError, naming file, field and bound, for an impossible one.
    """
    path, data = _read_file(name, (*BINARY_PRESETS, *NOISE_PRESETS))
    if not {"noise", "parameters"} & set(data):
        raise ValueError(f"{path}: has neither a block `noise` nor the `parameters` of a preset.")
    return read_terms(str(path), data.get("noise", {}))


def _field(where: str, entry) -> Field:
    """The field of a preset file: a mapping with some of ra, dec, season_start. Raises ValueError for anything else."""
    if not isinstance(entry, dict) or set(entry) - set(Field._fields):
        raise ValueError(f"{where}: field came {entry!r}, expected some of {', '.join(Field._fields)}.")
    values = {name: finite_numbers(where, f"field: {name}", value, 1)[0] for name, value in entry.items()}
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
