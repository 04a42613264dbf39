"""Priors as data: a preset is a YAML file, and a draw is a dict of named parameters.

    preset = load_preset("baseline")        params = draw(preset, "binary", rng, season=72.0)

The five presets are in `presets/`; a path to a file of the same form works wherever a preset's name does.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from microlens.config import BINARY_PRESETS, SCHEDULES

FOLDER = Path(__file__).parent / "presets"

# What is possible at all: (low, high), and what the numbers are.
BOUNDS = {
    "t_0": (-1.0, 2.0, "fraction of the season"),
    "u_0": (0.0, 10.0, "Einstein radii"),
    "t_E": (0.01, 1000.0, "d"),
    "rho": (1e-6, 2.0, "Einstein radii"),
    "s": (0.05, 20.0, "Einstein radii"),
    "q": (1e-7, 1.0, "mass ratio"),
    "alpha": (-7.0, 7.0, "rad"),
    "f_s": (1e-4, 1.0, "share of the baseline flux"),
    "m_base": (14.0, 28.0, "AB mag"),
}
SINGLE = ("t_0", "u_0", "t_E", "rho", "f_s", "m_base")
PARAMETERS = {"flat": ("m_base",), "pspl": SINGLE, "binary": tuple(BOUNDS)}


@dataclass(frozen=True)
class Prior:
    """One parameter's distribution: uniform, log_uniform, log_normal (mean and sigma of log10, cut to low..high), constant."""

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
    """A population: priors by parameter name, and what it implies."""

    name: str
    schedule: str
    caustic_crossing: bool
    finite_source: bool
    priors: dict[str, Prior]


def _prior(where: str, name: str, entry) -> Prior:
    low, high, unit = BOUNDS[name]
    kinds = ("uniform", "log_uniform", "log_normal", "constant")
    if not isinstance(entry, dict) or len([k for k in entry if k in kinds]) != 1 or set(entry) - {*kinds, "within"}:
        raise ValueError(f"{where}: {name}: came {entry!r}, expected one of {', '.join(kinds)} (log_normal also needs within).")
    kind = next(k for k in entry if k in kinds)
    values = [entry[kind]] if kind == "constant" else entry[kind]
    span = entry.get("within", values) if kind == "log_normal" else values
    numbers = [*np.atleast_1d(values), *np.atleast_1d(span)]
    expected = 1 if kind == "constant" else 2
    if len(values) != expected or not all(isinstance(v, (int, float, np.number)) and np.isfinite(v) for v in numbers):
        raise ValueError(f"{where}: {name}: {kind} came {values!r}, expected {expected} finite numbers.")
    if kind == "log_normal" and ("within" not in entry or len(span) != 2 or values[1] <= 0):
        raise ValueError(f"{where}: {name}: log_normal needs [mean, sigma > 0] of log10 and within: [low, high].")
    first, last = float(span[0]), float(span[-1])
    if first < low:
        raise ValueError(f"{where}: {name} from {first:g} is below its bound {low:g} ({unit}).")
    if last > high:
        raise ValueError(f"{where}: {name} to {last:g} is above its bound {high:g} ({unit}).")
    if last < first or (kind != "constant" and last == first):
        raise ValueError(f"{where}: {name}: the range {first:g} to {last:g} is empty.")
    if kind == "log_uniform" and first <= 0:
        raise ValueError(f"{where}: {name}: log_uniform needs a lower bound above 0, came {first:g}.")
    if kind == "log_normal":
        reach = (np.log10([first, last]) - values[0]) / values[1]
        if reach[0] > 5 or reach[1] < -5:
            raise ValueError(f"{where}: {name}: within {span!r} holds practically nothing of the distribution {values!r}.")
        return Prior(kind, first, last, float(values[0]), float(values[1]))
    return Prior(kind, first, last)


def load_preset(name: str | Path) -> Preset:
    """A preset by name (distinct, planetary, stellar, baseline, roman) or from a YAML file.

    Raises FileNotFoundError for an unknown one and ValueError, naming field and bound, for an impossible one.
    """
    path = FOLDER / f"{name}.yaml" if str(name) in BINARY_PRESETS else Path(name)
    if not path.is_file():
        raise FileNotFoundError(f"preset {str(name)!r}: neither one of {', '.join(BINARY_PRESETS)} nor a YAML file.")
    try:
        data = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: no readable YAML ({str(error).splitlines()[0]}).") from error
    fields = {"name", "schedule", "caustic_crossing", "finite_source", "parameters"}
    if not isinstance(data, dict) or not isinstance(data.get("parameters"), dict):
        raise ValueError(f"{path}: expected a mapping with {', '.join(sorted(fields))}.")
    unknown = sorted(set(data) - fields) + sorted(set(data["parameters"]) - set(BOUNDS))
    if unknown:
        raise ValueError(f"{path}: unknown field {', '.join(map(str, unknown))}; a parameter is one of {', '.join(BOUNDS)}.")
    missing = [p for p in BOUNDS if p not in data["parameters"]]
    if missing:
        raise ValueError(f"{path}: no range for {', '.join(missing)}.")
    schedule = data.get("schedule", "thesis")
    if schedule not in SCHEDULES:
        raise ValueError(f"{path}: schedule came {schedule!r}, expected one of {', '.join(SCHEDULES)}.")
    for flag in ("caustic_crossing", "finite_source"):
        if not isinstance(data.get(flag, False), bool):
            raise ValueError(f"{path}: {flag} came {data[flag]!r}, expected true or false.")
    priors = {p: _prior(str(path), p, data["parameters"][p]) for p in BOUNDS}
    return Preset(str(data.get("name", path.stem)), schedule, data.get("caustic_crossing", False),
                  data.get("finite_source", False), priors)


def thesis_singles(preset: Preset) -> Preset:
    """The preset with the thesis' single lenses: u_0 to 1 and its t_E, f_s and m_base, whatever the binaries draw."""
    baseline = load_preset("baseline")
    changed = {p: baseline.priors[p] for p in ("t_0", "u_0", "t_E", "f_s", "m_base")}
    return Preset(preset.name, preset.schedule, preset.caustic_crossing, False, {**preset.priors, **changed})


def draw(preset: Preset, kind: str, rng: np.random.Generator, season: float, finite_source: bool | None = None) -> dict:
    """Parameters of one event of class `kind` by name; t_0 in days from the start of a season of `season` days.

    A single lens has rho = 0 unless finite sources are asked for (unset: the preset decides).
    """
    params = {p: preset.priors[p].draw(rng) for p in PARAMETERS[kind]}
    if "t_0" in params:
        params["t_0"] *= season
    if kind == "pspl" and not (preset.finite_source if finite_source is None else finite_source):
        params["rho"] = 0.0
    return params
