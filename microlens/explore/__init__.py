"""Widgets for JupyterLab. The only place that imports plotly and ipywidgets.

    from microlens.explore import LensExplorer, EventBrowser, TrainingMonitor
    LensExplorer(s=1.0, q=0.1).widget;  EventBrowser("data/raw/test.h5").widget;  TrainingMonitor("runs/quick").widget
"""

from microlens.explore.browser import EventBrowser
from microlens.explore.lens import LensExplorer
from microlens.explore.monitor import TrainingMonitor

__all__ = ["EventBrowser", "LensExplorer", "TrainingMonitor"]
