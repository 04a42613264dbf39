"""Widgets for JupyterLab. The only place that imports plotly and ipywidgets.

    from microlens.explore import LensExplorer;  LensExplorer(s=1.0, q=0.1).widget
"""

from microlens.explore.lens import LensExplorer

__all__ = ["LensExplorer"]
