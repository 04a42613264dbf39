"""Notebooks in batch, strictly, and the check that gives them teeth.

    run_notebook("01_simulate", {"n_binary": 500})        run_all()        check("A(u=1)", A, 1.3416407865, 1e-9, "3/sqrt 5")

Plain papermill only warns about a parameter that a notebook does not declare; here it is an error.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

import nbformat
import numpy as np
import papermill

from microlens import files
from microlens.data import quick_dataset

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
__all__ = ["check", "find_notebook", "list_notebooks", "quick_dataset", "run_all", "run_notebook"]


def check(name, value, expected, rtol, source):
    """Print value beside what is expected and raise AssertionError where they differ by more than rtol (relative).

    expected may be a (low, high) pair, then value must lie between them and rtol is not used.   source : where it comes from.
    """
    value = float(value)
    if isinstance(expected, tuple):
        ok, wanted = expected[0] <= value <= expected[1], f"{expected[0]:g} to {expected[1]:g}"
    else:
        ok, wanted = abs(value - expected) <= rtol * abs(expected), f"{expected:.10g} within {rtol:g}"
    print(f"{'ok ' if ok else 'BAD'} {name}: {value:.10g}, expected {wanted} ({source})")
    if not (ok and np.isfinite(value)):
        raise AssertionError(f"{name} is {value:.10g}, expected {wanted} ({source}).")


def list_notebooks() -> list[Path]:
    return sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))


def find_notebook(name) -> Path:
    """A notebook by path, name or unique part of it."""
    if Path(name).is_file():
        return Path(name)
    found = [p for p in list_notebooks() if str(name) in p.name]
    if len(found) != 1:
        listed = ", ".join(p.stem for p in (found or list_notebooks()))
        raise FileNotFoundError(f"notebook {name!r} is {'ambiguous' if found else 'unknown'}; there are: {listed}.")
    return found[0]


def declared_parameters(path) -> list[str]:
    """Names in the notebook's parameters cell. Raises ValueError where it has none."""
    nb = nbformat.read(path, as_version=4)
    if not any("parameters" in c.metadata.get("tags", []) for c in nb.cells):
        raise ValueError(f"{path}: has no cell tagged 'parameters'.")
    return list(papermill.inspect_notebook(str(path)))


def run_notebook(name, parameters: dict | None = None, output=None, progress: bool = True) -> Path:
    """Execute a notebook with parameters into `output` (default runs/notebooks/<name>.ipynb) and return that path.

    Raises ValueError for a parameter that it does not declare, papermill's PapermillExecutionError if a cell fails.
    """
    path = find_notebook(name)
    known = declared_parameters(path)
    unknown = sorted(set(parameters or {}) - set(known))
    if unknown:
        raise ValueError(f"{path.name} has no parameter {', '.join(unknown)}; it declares {', '.join(known)}.")
    output = Path(output or files.runs_dir() / "notebooks" / path.name)
    output.parent.mkdir(parents=True, exist_ok=True)
    logging.getLogger("papermill").setLevel(logging.WARNING)  # the bar shows the progress; names are printed by run_all
    papermill.execute_notebook(str(path), str(output), parameters=parameters or {}, progress_bar=progress, kernel_name="python3",
                               cwd=str(path.parent), extra_arguments=["--log-level=ERROR"])
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
    print(f"\nDone in {time.monotonic() - begun:.0f} s. Made:")
    for label, place in (("executed notebooks", files.runs_dir() / "notebooks"), ("data", files.data_dir() / "quick"),
                         ("trained run", files.runs_dir() / "quick"), ("evaluations", files.runs_dir() / "baseline"),
                         ("figures", files.runs_dir() / "figures")):
        if place.exists():
            print(f"  {label:20s} {place}")
    return done
