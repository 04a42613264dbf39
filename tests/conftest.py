"""The order of the test files, in which two processes at work on them end at about the same time."""

from pathlib import Path

COMPILING = ("test_lens.py", "test_fit.py", "test_figures.py", "test_running.py", "test_noise.py")
"""numba compiles for minutes where nothing is compiled yet. The first process compiles the lens and then draws figures,
while the second one compiles the fits. Every other file finds the kernels of both, so that nothing is compiled twice."""
LONG = ("07_robustness.ipynb", "06_figures.ipynb", "test_nightly.py", "test_training.py", "test_browser.py",
        "test_simulate.py", "01_simulate.ipynb", "test_evaluate.py", "test_notebooks.py", "03_train.ipynb",
        "04_evaluate.ipynb", "test_lightcurve.py", "test_cli.py")
"""Files that take half a minute or more, the longest first: one that began last would keep the other process waiting."""


def pytest_collection_modifyitems(items):
    order = {name: i for i, name in enumerate(COMPILING + LONG)}
    items.sort(key=lambda item: order.get(Path(item.path).name, len(order)))
