"""A scatter of two columns of a table of events, whose brush is a filter.

    scatter = Scatter(brushed, chosen);  scatter.draw(events, selected);  scatter.widget
"""

from __future__ import annotations

import ipywidgets as widgets
import numpy as np
import pandas as pd
import plotly.graph_objects as go

from microlens.config import CLASS_COLOURS, CLASSES
from microlens.explore import panels
from microlens.explore.controls import row

LOGARITHMIC = ("s", "q", "t_E", "rho", "delta_chi2_pspl")  # columns that are drawn on a logarithmic axis
MOST_POINTS = 4000  # drawn of all events, and of those that pass the filters
ALL = "all events"
SYMBOLS = dict(zip(CLASSES, ("circle", "triangle-up", "diamond", "x"), strict=True))


class Scatter:
    """Two columns of a table of events: all grey, those that pass the filters in the colour of their class.

    columns : names to choose from.   chosen : called with the row of an event that was clicked.
    brushed : called with {column: (low, high)} when the user has drawn a box, and with None when it was taken away.
    """

    def __init__(self, columns, brushed, chosen):
        choice = {"options": list(columns), "layout": {"width": "210px"}}
        self.x = widgets.Dropdown(value="s", description="across", **choice)
        self.y = widgets.Dropdown(value="q", description="up", **choice)
        self.panel, self.rows, self.events, self.selected = _panel(), {}, None, None
        self.x.observe(lambda _: self.draw(self.events, self.selected), "value")
        self.y.observe(lambda _: self.draw(self.events, self.selected), "value")
        self.panel.on("selected", lambda box: brushed(self._limits(box)))
        self.panel.on("clicked", lambda place: chosen(self.rows[self.panel.names[place[0]]][place[1]]))
        hint = widgets.HTML("drag a box to filter the table, double-click to take it away, click an event to see it")
        self.widget = widgets.VBox([row(self.x, self.y, hint), self.panel])

    def _limits(self, box: dict | None) -> dict | None:
        return None if box is None else {self.x.value: tuple(sorted(box["x"])), self.y.value: tuple(sorted(box["y"]))}

    def draw(self, events: pd.DataFrame | None, selected: pd.DataFrame | None):
        """Draw all events and, over them, those that pass the filters; those that have no such columns are left out."""
        self.events, self.selected = events, selected
        if events is None:
            return
        arrays = {}
        parts = {ALL: events} | {c: selected[selected["class"] == c] for c in CLASSES}
        for name, part in parts.items():
            part = part[np.isfinite(part[self.x.value]) & np.isfinite(part[self.y.value])]
            part = part.iloc[:: max(1, -(-len(part) // MOST_POINTS))]
            self.rows[name] = part["row"].to_list()
            arrays[name] = part[[self.x.value, self.y.value]].to_numpy(float)
        n_drawn, n_all = sum(len(arrays[c]) for c in CLASSES), len(selected)
        layout = {}
        for axis, column in (("xaxis", self.x.value), ("yaxis", self.y.value)):
            layout |= {f"{axis}__title__text": column, f"{axis}__autorange": True,
                       f"{axis}__type": "log" if column in LOGARITHMIC else "linear"}
        panels.put(self.panel, arrays, f"{n_drawn} of the {n_all} events that pass the filters are drawn", **layout)


def _panel() -> panels.Panel:
    fig = go.Figure()
    fig.add_scatter(name=ALL, mode="markers", marker={"color": panels.PALE_GREY, "size": 3}, hoverinfo="skip")
    for c in CLASSES:
        fig.add_scatter(name=c, mode="markers", hovertemplate="%{x:.4g}, %{y:.4g}",
                        marker={"color": CLASS_COLOURS[c], "size": 6, "symbol": SYMBOLS[c]})
    panels.plain(fig, height=330, margin={"t": 36, "b": 45, "l": 60, "r": 10}, dragmode="select",
                 title={"font": {"size": 12}, "x": 0.02}, showlegend=True)
    return panels.Panel(fig, {"modeBarButtonsToRemove": ["sendChartToCloud", "lasso2d"]})
