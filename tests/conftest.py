"""The order of the test files, in which two processes at work on them end at about the same time."""

from pathlib import Path

import microlens  # noqa: F401  before any test imports numba: it says where compiled kernels are kept

COMPILING = ("test_lens.py", "test_fit.py", "test_figures.py", "test_running.py", "test_noise.py")
"""numba compiles for minutes where nothing is compiled yet. The first process compiles the lens and then draws figures,
while the second one compiles the fits. All other files find the kernels of both, so nothing is compiled twice."""
LONG = ("test_training.py", "test_simulate.py", "test_nightly.py", "06_figures.ipynb", "07_robustness.ipynb",
        "test_browser.py", "03_train.ipynb", "04_evaluate.ipynb", "01_simulate.ipynb", "test_notebooks.py",
        "test_evaluate.py", "test_lightcurve.py", "test_cli.py")
"""Files that take half a minute or more, the longest first: one that began last would keep the other waiting."""


def pytest_collection_modifyitems(items):
    order = {name: i for i, name in enumerate(COMPILING + LONG)}
    items.sort(key=lambda item: order.get(Path(item.path).name, len(order)))
