"""The house rules that a machine can hold."""

import ast
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml

ROOT = Path(__file__).parents[1]
ORDER = ["kernels", "config", "paths", "survey", "thinning", "magnification", "population", "detectability", "store", "simulate",
         "lightcurve", "dataset", "device_data", "fresh", "attention", "stream", "model", "metrics", "baselines", "early",
         "checkpoint", "ranks", "train", "classify", "figures", "evaluate", "explore", "notebook", "doctor", "__main__"]
ONLY = {"torch": {"dataset", "device_data", "attention", "stream", "model", "checkpoint", "ranks", "train", "evaluate", "doctor"},
        "matplotlib": {"figures"}, "plotly": {"explore"}, "ipywidgets": {"explore"}, "h5py": {"store"},
        "VBBinaryLensing": {"magnification"}, "VBMicrolensing": {"magnification"}}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            if node.module == "microlens":
                yield from (f"microlens.{a.name}" for a in node.names)


def test_modules_import_only_modules_above_them():
    for path in (ROOT / "microlens").rglob("*.py"):
        module = path.relative_to(ROOT / "microlens").parts[0].removesuffix(".py")
        if module == "__init__":
            continue
        for name in imports(path):
            parts = name.split(".")
            if parts[0] == "microlens" and len(parts) > 1 and parts[1] in ORDER and parts[1] != module:
                assert ORDER.index(parts[1]) < ORDER.index(module), f"{path.name} imports {name}"
            assert parts[0] not in ONLY or module in ONLY[parts[0]], f"{path.name} imports {name}"


def test_conda_environment_agrees_with_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert f"python{project['requires-python']}" in conda and "cxx-compiler" in conda
    pip = next(d["pip"] for d in conda if isinstance(d, dict))
    assert any("-e .[dev]" in line for line in pip) and any("constraints.txt" in line for line in pip)


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda p: p.stem)
def test_notebook_is_stripped_checks_something_and_reads_its_parameters(path):
    cells = nbformat.read(path, as_version=4).cells
    code = [c for c in cells if c.cell_type == "code"]
    assert all(not c.outputs for c in code)
    assert any("check(" in c.source for c in code)
    (parameters,) = [c for c in code if "parameters" in c.metadata.get("tags", [])]
    rest = "\n".join(c.source for c in code if c is not parameters)
    used = {n.id for n in ast.walk(ast.parse(rest)) if isinstance(n, ast.Name)}
    assert {t.id for node in ast.parse(parameters.source).body for t in node.targets} <= used


@pytest.mark.parametrize(("given", "kept"), [(None, False), ("mine", True), ("microlens/kernels/older", False)])
def test_compiled_kernels_are_kept_for_their_sources_alone(tmp_path, given, kept):
    """The folder is named after the sources; a user's own is left alone; one inherited from a parent process is not used."""
    known = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"}
    other = {} if given is None else {"NUMBA_CACHE_DIR": str(tmp_path / given)}
    code = "import microlens, numba; from microlens.files import VERSION; print(numba.config.CACHE_DIR, VERSION)"
    run = subprocess.run([sys.executable, "-c", code], env={**known, **other, "XDG_CACHE_HOME": str(tmp_path)}, text=True,
                         capture_output=True, check=True)
    folder, version = run.stdout.split()
    assert folder == str(tmp_path / given if kept else tmp_path / "microlens" / "kernels" / version)
