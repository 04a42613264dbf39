"""The house rules that a machine can hold."""

import ast
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
ORDER = ["config", "files", "lens", "sky", "fit", "data", "network", "evaluate", "figures", "explore", "notebook",
         "__main__"]
ONLY = {"torch": {"network", "evaluate", "__main__"}, "matplotlib": {"figures"},
        "plotly": {"explore"}, "ipywidgets": {"explore"},
        "h5py": {"data.format"}, "VBBinaryLensing": {"lens.engine"}, "VBMicrolensing": {"lens.engine"}}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            if node.module == "microlens":
                yield from (f"microlens.{a.name}" for a in node.names)


def modules():
    """(path, its parts below microlens) of every file of the package."""
    for path in sorted((ROOT / "microlens").rglob("*.py")):
        yield path, path.relative_to(ROOT / "microlens").with_suffix("").parts


def test_every_name_in_the_code_is_defined_and_every_import_used():
    """The lines of a benchmark that no test runs are read at least."""
    found = subprocess.run([sys.executable, "-m", "ruff", "check", "--select", "F", "microlens", "tests", "benchmarks"],
                           cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


def test_a_package_imports_only_packages_above_it():
    for path, (unit, *_) in modules():
        for name in imports(path):
            if unit != "__init__" and name.startswith("microlens."):
                other = name.split(".")[1]
                assert other in ORDER, f"{path.name} imports {name}"
                assert ORDER.index(other) <= ORDER.index(unit), f"{path.name} imports {name}"


def test_the_modules_of_a_package_import_one_another_in_one_direction():
    needs = {}  # {package: {module: the modules of the package that it imports}}
    for path, parts in modules():
        if len(parts) == 2 and parts[1] != "__init__":
            words = [name.split(".") for name in imports(path)]
            own = {w[2] for w in words if w[:2] == ["microlens", parts[0]] and len(w) > 2}
            needs.setdefault(parts[0], {})[parts[1]] = own
    for package, left in needs.items():
        left = {module: own & set(left) for module, own in left.items()}
        while left:
            free = [module for module, own in left.items() if not own & set(left)]
            assert free, f"{package}: {', '.join(sorted(left))} import one another in a circle"
            for module in free:
                del left[module]


def test_heavy_libraries_are_imported_in_their_own_places_alone():
    for path, parts in modules():
        for name in imports(path):
            places = ONLY.get(name.split(".")[0])
            assert places is None or parts[0] in places or ".".join(parts) in places, f"{path.name} imports {name}"


def test_a_name_that_another_file_imports_has_no_underscore():
    for path, _ in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("microlens"):
                private = [a.name for a in node.names if a.name.startswith("_")]
                assert not private, f"{path.name} imports {', '.join(private)}"


def test_conda_environment_agrees_with_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert f"python{project['requires-python']}" in conda and "cxx-compiler" in conda
    pip = next(d["pip"] for d in conda if isinstance(d, dict))
    assert any("-e .[dev]" in line for line in pip) and any("constraints.txt" in line for line in pip)


@pytest.mark.parametrize(("given", "kept"), [(None, False), ("mine", True), ("microlens-kernels/older", False)])
def test_compiled_kernels_are_kept_for_their_sources_alone(tmp_path, given, kept):
    """The folder is named after the sources; a user's own is left alone; one inherited from a parent is not used."""
    known = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"}
    other = {} if given is None else {"NUMBA_CACHE_DIR": str(tmp_path / given)}
    code = ("import microlens, numba; from microlens.files import KERNEL_VERSION; "
            "print(numba.config.CACHE_DIR, KERNEL_VERSION)")
    run = subprocess.run([sys.executable, "-c", code], env={**known, **other, "XDG_CACHE_HOME": str(tmp_path)},
                         text=True, capture_output=True, check=True)
    folder, version = run.stdout.split()
    assert folder == str(tmp_path / given if kept else tmp_path / "microlens-kernels" / version)
