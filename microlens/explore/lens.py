"""LensExplorer: sliders, lens plane and light curve. prepare() computes, draw() draws, the callback only joins them."""

from __future__ import annotations

import ipywidgets as widgets
import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from microlens.magnification import caustics, nodes, pspl_at, render, topology

RANGES = {"s": (0.2, 5.0, True), "q": (1e-5, 1.0, True), "u_0": (-1.5, 1.5, False), "alpha": (0.0, 6.2832, False),
          "rho": (1e-3, 0.1, True)}
UNITS = {"s": "s (Einstein radii)", "q": "q", "u_0": "u_0 (Einstein radii)", "alpha": "alpha (rad)",
         "rho": "rho (Einstein radii)"}
REACH = 2.0


def prepare(s, q, u_0, alpha, rho) -> dict:
    """Everything the panels show: caustic (m, 2), trajectory (n,), tau (n,), magnification A and that of a single lens."""
    curve = nodes(u_0, rho, s, q, alpha, -REACH, REACH)
    tau = np.union1d(np.linspace(-REACH, REACH, 801), curve.tau)
    gaps = [np.vstack([c, [np.nan, np.nan]]) for c in caustics(s, q)]
    return {"caustic": np.vstack(gaps), "x": tau * np.cos(alpha) - u_0 * np.sin(alpha),
            "y": tau * np.sin(alpha) + u_0 * np.cos(alpha), "tau": tau, "A": render(curve.tau, curve.log_A, tau),
            "single": pspl_at(np.hypot(max(abs(u_0), 1e-3), tau)), "lens_x": [-q * s / (1 + q), s / (1 + q)],
            "topology": topology(s, q)}


def draw(data) -> go.FigureWidget:
    """The linked panels of prepare()'s data."""
    fig = go.FigureWidget(make_subplots(rows=1, cols=2, subplot_titles=("lens plane", "magnification")))
    fig.add_scatter(x=data["caustic"][:, 0], y=data["caustic"][:, 1], mode="lines", name="caustic", line={"color": "#CC79A7"})
    fig.add_scatter(x=data["x"], y=data["y"], mode="lines", name="source", line={"color": "#0072B2"})
    fig.add_scatter(x=data["lens_x"], y=[0, 0], mode="markers", name="lenses", marker={"color": "black"})
    fig.add_scatter(x=data["tau"], y=data["A"], mode="lines", name="binary", line={"color": "#0072B2"}, row=1, col=2)
    fig.add_scatter(x=data["tau"], y=data["single"], mode="lines", name="single lens", row=1, col=2,
                    line={"color": "#E69F00", "dash": "dash"})
    fig.update_xaxes(title_text="x (Einstein radii)", range=[-REACH, REACH], row=1, col=1)
    fig.update_yaxes(title_text="y (Einstein radii)", scaleanchor="x", row=1, col=1)
    fig.update_xaxes(title_text="(t - t_0)/t_E", row=1, col=2)
    fig.update_yaxes(title_text="A", type="log", row=1, col=2)
    fig.update_layout(height=420, margin={"t": 40, "b": 40}, title_text=data["topology"])
    return fig


class LensExplorer:
    """Sliders beside lens plane and light curve; `widget` is what to display, `parameters` the current values."""

    def __init__(self, s=1.0, q=0.1, u_0=0.1, alpha=1.0, rho=0.01):
        start = {"s": s, "q": q, "u_0": u_0, "alpha": alpha, "rho": rho}
        self.sliders = {}
        for name, (low, high, logarithmic) in RANGES.items():
            kind = widgets.FloatLogSlider if logarithmic else widgets.FloatSlider
            span = {"min": np.log10(low), "max": np.log10(high), "step": 0.01} if logarithmic else {
                "min": low, "max": high, "step": 0.01}
            self.sliders[name] = kind(value=start[name], description=UNITS[name], style={"description_width": "160px"},
                                      readout_format=".4g", **span)
            self.sliders[name].observe(self._moved, "value")
        self.message = widgets.HTML()
        self.figure = draw(prepare(**start))
        self.widget = widgets.VBox([*self.sliders.values(), self.message, self.figure])

    @property
    def parameters(self) -> dict:
        return {name: slider.value for name, slider in self.sliders.items()}

    def _moved(self, _change):
        try:
            data = prepare(**self.parameters)
        except (ValueError, RuntimeError) as error:
            self.message.value = str(error)
            return
        self.message.value = ""
        with self.figure.batch_update():
            caustic, source, lenses, binary, single = self.figure.data
            caustic.x, caustic.y = data["caustic"][:, 0], data["caustic"][:, 1]
            source.x, source.y, lenses.x = data["x"], data["y"], data["lens_x"]
            binary.x, binary.y, single.x, single.y = data["tau"], data["A"], data["tau"], data["single"]
            self.figure.layout.title.text = data["topology"]
