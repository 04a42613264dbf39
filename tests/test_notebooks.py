"""The notebooks as files, and the runner: parameters, paths, refusals. `make test` executes them all by nbval."""

import ast
import json
import multiprocessing
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from microlens.__main__ import main
from microlens.config import TrainConfig
from microlens.notebook import (
    FOLDER,
    check,
    declared_parameters,
    find_notebook,
    light_curve_files,
    list_notebooks,
    quick_dataset,
    run_name,
)

NOTEBOOKS = pytest.mark.parametrize("path", list_notebooks(), ids=lambda p: p.stem)
LONGEST_LINE = 135
SMALL = """
from microlens.notebook import check
from pathlib import Path
print("cwd", Path.cwd(), "file", Path(data).read_text() if data else "")
check("number", number, (0.0, 1.0), 0, "here")
"""


def cells_of(path, kind="code"):
    return [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == kind]


# ---- what is written in them ----------------------------------------------------------------------------------------


@NOTEBOOKS
def test_notebook_is_stripped_checks_something_and_reads_its_parameters(path):
    code = cells_of(path)
    assert all(not c.outputs for c in code)
    assert any("check(" in c.source for c in code)
    (parameters,) = [c for c in code if "parameters" in c.metadata.get("tags", [])]
    rest = "\n".join(c.source for c in code if c is not parameters)
    used = {n.id for n in ast.walk(ast.parse(rest)) if isinstance(n, ast.Name)}
    assignments = ast.parse(parameters.source).body
    assert {t.id for node in assignments for t in node.targets} <= used
    for node in assignments:
        ast.literal_eval(node.value)  # a plain literal, or ValueError


@NOTEBOOKS
def test_notebook_says_what_comes_and_how_long_it_takes_and_where_to_go_on(path):
    prose = [c.source for c in cells_of(path, "markdown")]
    assert "**You will see**" in prose[0] and re.search(r"(second|minute)s?.* on\s+two\s+cores", prose[0], re.DOTALL)
    assert prose[-1].startswith("**What you saw:**")
    following = [p for p in list_notebooks() if p.name > path.name][:1]
    links = re.findall(r"\]\((\S+)\)", prose[-1])
    assert links == [p.name for p in following] or (not following and "last notebook" in prose[-1])


@NOTEBOOKS
def test_notebook_defines_no_function_and_is_no_wider_than_a_page(path):
    code = "\n".join(c.source for c in cells_of(path))
    tree = list(ast.walk(ast.parse(code)))
    assert not [n for n in tree if isinstance(n, (ast.FunctionDef, ast.ClassDef))]
    assert max(map(len, code.splitlines())) <= LONGEST_LINE


def test_links_between_notebooks_lead_somewhere():
    for path in list_notebooks():
        for link in re.findall(r"\]\(([\w./]+)\)", "\n".join(c.source for c in cells_of(path, "markdown"))):
            assert (FOLDER / link).exists() or link.startswith("../docs/"), (path.name, link)


# ---- the runner -----------------------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path):
    """A small notebook with the parameters number and data."""
    parameters = 'number = 0.5  # a number\ndata = ""  # a file'
    cells = [nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}),
             nbformat.v4.new_code_cell(SMALL)]
    path = tmp_path / "notebooks" / "small.ipynb"
    path.parent.mkdir()
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), path)
    return path


def printed(path) -> str:
    return "".join(o.get("text", "") for c in cells_of(path) for o in c.outputs)


def command(*arguments, cwd, home):
    """The finished `microlens notebook` with these arguments, in a process of its own as a user starts it.

    A process that has had other kernels, as this one has by nbval, once waited for ever for the next one to begin.
    """
    return subprocess.run([sys.executable, "-m", "microlens", "notebook", *arguments], cwd=cwd, timeout=300,
                          env={**os.environ, "HOME": str(home)}, capture_output=True, text=True)


def test_relative_paths_mean_the_callers_folder_and_numbers_are_numbers(small, tmp_path):
    """They once meant the notebook's folder, and 1e-3 was a text."""
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "my.txt").write_text("hello")
    done = command(str(small), "-p", "data", "my.txt", "-p", "number", "1e-3", "-o", "~/out.ipynb",
                   cwd=mine, home=tmp_path)
    assert done.returncode == 0, done.stderr
    said = printed(tmp_path / "out.ipynb")
    assert f"cwd {mine} file hello" in said and "ok  number: 0.001" in said


def test_a_check_that_fails_fails_the_notebook(small, tmp_path):
    done = command(str(small), "-p", "number", "7", "-o", "out.ipynb", cwd=tmp_path, home=tmp_path)
    assert done.returncode == 1 and "number is 7, expected 0 to 1" in done.stderr


def test_wrong_use_is_one_line_before_any_work(small, tmp_path, capsys):
    """A misspelt parameter, a misspelt notebook, an output that cannot be written."""
    (tmp_path / "file").write_text("")
    for arguments, said in ((["-p", "nmber", "5"], "small.ipynb has no parameter nmber; it declares number, data."),
                            (["-o", str(tmp_path / "file" / "out.ipynb")], str(tmp_path / "file")),
                            (["-o", str(tmp_path)], str(tmp_path))):
        assert main(["notebook", str(small), *arguments]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ") and said in line
    assert main(["notebook", "01_simulat_", "-o", str(tmp_path / "x.ipynb")]) == 1
    assert "notebook '01_simulat_' is unknown; there are: 01_simulate" in capsys.readouterr().err
    with pytest.raises(FileNotFoundError, match="'0' is ambiguous"):
        find_notebook("0")
    with pytest.raises(ValueError, match="no cell tagged 'parameters'"):
        empty = tmp_path / "empty.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")]), empty)
        declared_parameters(empty)


# ---- what they use --------------------------------------------------------------------------------------------------


def test_check_has_teeth(capsys):
    check("a third", 1 / 3, 0.333, 0.01, "division")
    assert capsys.readouterr().out == "ok  a third: 0.3333333333, expected 0.333 within 0.01 (division)\n"
    for value, expected in ((0.4, 0.333), (float("nan"), (0.0, 1.0)), (1.1, (0.0, 1.0))):
        with pytest.raises(AssertionError, match="x is"):
            check("x", value, expected, 0.01, "division")
    assert capsys.readouterr().out.count("BAD") == 3


def test_light_curve_files_are_found_or_missed_by_name(tmp_path):
    found = [p.name for p in light_curve_files(FOLDER / "light_curves")]
    assert found == ["binary.txt.gz", "flat_phot.dat", "pspl.csv.gz"]
    with pytest.raises(FileNotFoundError, match="gone: no such folder"):
        light_curve_files(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match="holds no files"):
        light_curve_files(tmp_path)


def test_a_run_of_other_settings_has_another_name():
    """With one name for all, notebook 03 failed when it was run again with another number of passes."""
    config = TrainConfig(data="a/x.h5", epochs=4)
    names = {run_name("quick", c) for c in (config, config.replace(epochs=6), config.replace(lr=1e-4),
                                            config.replace(data="a/y.h5"), config.replace(fresh=True))}
    assert len(names) == 5 and all(name.startswith("quick_") for name in names)
    same = config.replace(data="b/x.h5", resume="auto", experiment_name="other")
    assert run_name("quick", same) == run_name("quick", config)
    TrainConfig(experiment_name=run_name("quick", config.replace(lr=1e-5)))  # a permitted name


def _small_dataset(queue):
    try:
        queue.put(str(quick_dataset(2, 2, 2, seed=77, num_workers=1)))
    except Exception as error:
        queue.put(repr(error))


def test_two_notebooks_that_want_the_same_data_wait_for_each_other(tmp_path, monkeypatch):
    monkeypatch.setenv("MICROLENS_DATA", str(tmp_path))
    context = multiprocessing.get_context("fork")  # begins at once
    queue = context.Queue()
    both = [context.Process(target=_small_dataset, args=(queue,)) for _ in range(2)]
    for process in both:
        process.start()
    made = [queue.get(timeout=120) for _ in both]
    for process in both:
        process.join()
    assert made[0] == made[1] and Path(made[0]).is_file()


def run_here(name, parameters):
    """Execute the cells of a notebook in this process, the parameters behind the cell that declares them.

    A kernel, which begins with importing everything, is what nbval executes it in.
    """
    names = {}
    for cell in cells_of(find_notebook(name)):
        exec(cell.source, names)
        if "parameters" in cell.metadata.get("tags", ()):
            names |= parameters


def test_notebook_03_runs_again_with_other_passes(tmp_path, monkeypatch):
    monkeypatch.setenv("MICROLENS_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("MICROLENS_DATA", str(tmp_path / "data"))
    small = {"n_flat": 12, "n_pspl": 12, "n_binary": 12, "d_model": 8, "n_layers": 1}
    for epochs in (2, 3):
        run_here("03_train", small | {"epochs": epochs})
    runs = sorted((tmp_path / "runs").glob("quick_*"))
    passes = [len((run / "log.jsonl").read_text().splitlines()) for run in runs]
    assert sorted(passes) == [2, 3]
    assert {json.loads((run / "config.json").read_text())["epochs"] for run in runs} == {2, 3}
