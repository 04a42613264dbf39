"""Where data, runs and figures are, and how a run is found by a part of its name.

    data_dir() / "raw" / "test.h5"        find_run("d64_l4_hier")

MICROLENS_DATA, MICROLENS_RUNS and MICROLENS_FIGURES move the folders, which are otherwise `data`, `runs` and `figures`
beside the package's own folder (a source checkout), or in the current folder where the package is installed elsewhere.
"""

from __future__ import annotations

import os
from pathlib import Path


def _root() -> Path:
    checkout = Path(__file__).resolve().parents[1]
    return checkout if (checkout / "pyproject.toml").is_file() else Path.cwd()


def data_dir() -> Path:
    return Path(os.environ.get("MICROLENS_DATA") or _root() / "data")


def runs_dir(output: str | os.PathLike | None = None) -> Path:
    return Path(output or os.environ.get("MICROLENS_RUNS") or _root() / "runs")


def figures_dir() -> Path:
    return Path(os.environ.get("MICROLENS_FIGURES") or _root() / "figures")


def weights_dir() -> Path:
    """The trained weights that come with the package."""
    return Path(__file__).resolve().parent / "weights"


def list_runs(output: str | os.PathLike | None = None) -> list[Path]:
    """Run folders (those with a config.json), oldest first."""
    folder = runs_dir(output)
    if not folder.is_dir():
        return []
    runs = [p for p in folder.iterdir() if (p / "config.json").is_file()]
    return sorted(runs, key=lambda p: ((p / "config.json").stat().st_mtime_ns, p.name))


def find_run(name: str, output: str | os.PathLike | None = None) -> Path:
    """The run folder whose name is, or uniquely contains, `name`.

    Raises FileNotFoundError (unknown) or ValueError (ambiguous); both list the candidates.
    """
    runs = list_runs(output)
    exact = [p for p in runs if p.name == name]
    matches = exact or [p for p in runs if name in p.name]
    if len(matches) == 1:
        return matches[0]
    listed = ", ".join(p.name for p in (matches or runs)) or "none; `python -m microlens train` makes one"
    if matches:
        raise ValueError(f"run name {name!r} is ambiguous in {runs_dir(output)}: {listed}. Give a longer part of the name.")
    raise FileNotFoundError(f"no run named {name!r} in {runs_dir(output)}; there are: {listed}.")
