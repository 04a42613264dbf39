"""Notebooks in batch, strictly, and what the notebooks themselves use.

    run_notebook("01_simulate", {"n_each": 500})      run_all()      check("A(u=1)", A, 1.3416407865, 1e-9, "3/sqrt 5")

Plain papermill only warns about a parameter that a notebook does not declare; here it is an error. A notebook runs in
the folder of the caller, so that relative paths among its parameters mean what they mean to a command.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from pathlib import Path

import numpy as np

from microlens import files
from microlens.config import TrainConfig
from microlens.data import quick_dataset

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NOT_CURVES = ("truth.csv", "README.md")  # files beside light curves
__all__ = ["FOLDER", "check", "declared_parameters", "find_notebook", "light_curve_files", "list_notebooks",
           "quick_dataset", "run_all", "run_name", "run_notebook"]


# ---- in notebooks ---------------------------------------------------------------------------------------------------


def check(name, value, expected, rtol, source):
    """Print value beside what is expected and raise AssertionError where they differ by more than rtol (relative).

    expected : a number, or a pair (low, high) between which value must lie; rtol is then not used.
    source : where it comes from.
    """
    value = float(value)
    if isinstance(expected, tuple):
        ok, wanted = expected[0] <= value <= expected[1], f"{expected[0]:g} to {expected[1]:g}"
    else:
        ok, wanted = abs(value - expected) <= rtol * abs(expected), f"{expected:.10g} within {rtol:g}"
    print(f"{'ok ' if ok else 'BAD'} {name}: {value:.10g}, expected {wanted} ({source})")
    if not (ok and np.isfinite(value)):
        raise AssertionError(f"{name} is {value:.10g}, expected {wanted} ({source}).")


def run_name(begin: str, config: TrainConfig) -> str:
    """The name of a run by its settings and data: the same ones continue or find their run, others make another one."""
    settings = {k: v for k, v in config.to_dict().items() if k not in ("experiment_name", "resume", "output", "data")}
    told = json.dumps([settings, Path(config.data).name], sort_keys=True)
    digest = hashlib.sha256(told.encode()).hexdigest()[:6]
    return f"{begin}_{config.epochs}passes_d{config.d_model}_l{config.n_layers}_lr{config.lr:g}_{digest}"


def light_curve_files(folder) -> list[Path]:
    """The files in a folder and below it, without hidden ones, truth.csv and README.md.

    Raises FileNotFoundError where the folder does not exist or holds none.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder.absolute()}: no such folder.")
    found = sorted(p for p in folder.rglob("*") if p.is_file() and p.name not in NOT_CURVES and p.name[0] != ".")
    if not found:
        raise FileNotFoundError(f"{folder.absolute()}: holds no files.")
    return found


# ---- in batch -------------------------------------------------------------------------------------------------------


def list_notebooks() -> list[Path]:
    """The numbered notebooks, in their order."""
    return sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))


def find_notebook(name) -> Path:
    """A notebook by path, name or unique part of it. Raises FileNotFoundError that lists what there is."""
    if Path(name).is_file():
        return Path(name)
    found = [p for p in list_notebooks() if str(name) in p.name]
    if len(found) != 1:
        listed = ", ".join(p.stem for p in (found or list_notebooks()))
        raise FileNotFoundError(f"notebook {name!r} is {'ambiguous' if found else 'unknown'}; there are: {listed}.")
    return found[0]


def declared_parameters(path) -> list[str]:
    """Names in the notebook's parameters cell. Raises ValueError where it has none."""
    import papermill  # 3 s, which every notebook would wait for `check`

    names = list(papermill.inspect_notebook(str(path)))
    if not names:
        raise ValueError(f"{path}: has no cell tagged 'parameters' with a parameter in it.")
    return names


def run_notebook(name, parameters: dict | None = None, output=None, progress: bool = True) -> Path:
    """Execute a notebook with parameters into `output` (unset: runs/notebooks/<name>.ipynb) and return that path.

    Raises ValueError for a parameter that it does not declare, OSError where `output` cannot be written, papermill's
    PapermillExecutionError if a cell fails.
    """
    import papermill

    path = find_notebook(name)
    known = declared_parameters(path)
    unknown = sorted(set(parameters or {}) - set(known))
    if unknown:
        raise ValueError(f"{path.name} has no parameter {', '.join(unknown)}; it declares {', '.join(known)}.")
    output = Path(output or files.runs_dir() / "notebooks" / path.name).expanduser()
    output.parent.mkdir(parents=True, exist_ok=True)
    with open(output, "a"):  # fails now and not after the work
        pass
    logging.getLogger("papermill").setLevel(logging.WARNING)  # run_all prints the names, the bar shows the progress
    papermill.execute_notebook(
        str(path), str(output), parameters=parameters or {}, progress_bar=progress, kernel_name="python3",
        cwd=str(Path.cwd()), extra_arguments=["--log-level=ERROR"])
    return output


def run_all() -> list[Path]:
    """Execute all numbered notebooks in order with their own (quick) parameters; says what was made and where."""
    done, begun = [], time.monotonic()
    notebooks = list_notebooks()
    for i, path in enumerate(notebooks, start=1):
        print(f"[{i}/{len(notebooks)}] {path.stem}", flush=True)
        start = time.monotonic()
        done.append(run_notebook(path))
        print(f"      {time.monotonic() - start:.0f} s -> {done[-1]}", flush=True)
    runs = files.runs_dir()
    print(f"\nDone in {time.monotonic() - begun:.0f} s. Made: executed notebooks in {runs / 'notebooks'}, data in "
          f"{files.data_dir() / 'quick'}, training, evaluations and figures in {runs}.")
    return done
