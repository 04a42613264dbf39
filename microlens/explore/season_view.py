"""The light curve of an explorer's panel: which epochs are drawn, the ticks of its axes, and the way to the anomaly.

    view = SeasonView(panel);  view.draw(curve, arrays, title);  view.controls
"""

from __future__ import annotations

from typing import NamedTuple

import ipywidgets as widgets
import numpy as np

from microlens.explore import panels, traces
from microlens.lens import ROMAN_FIELD, Field

LENSES = ("single lens", "binary lens")
ROOM = 0.05  # of the range of magnitudes and of sigmas beyond what is drawn, where a view is chosen


class Curve(NamedTuple):
    """A light curve of n epochs, and the models over it.

    t : (n,) days after field.season_start.   flux, sigma : (n,) F/F_base, and their errors.
    delta_t : (n,) days since the epoch before; None: computed.   m_base : magnitude of the baseline, None if not known.
    single, lens : (n,) F/F_base, the best single lens and a binary lens; None where there is none.
    """

    name: str
    t: np.ndarray
    flux: np.ndarray
    sigma: np.ndarray
    delta_t: np.ndarray | None = None
    m_base: float | None = None
    time_title: str = "time (d)"
    field: Field = ROMAN_FIELD
    single: np.ndarray | None = None
    lens: np.ndarray | None = None

    def residual(self, lens: str = LENSES[0]) -> np.ndarray:
        """(n,) standard deviations from the model `lens`, one of LENSES."""
        model = self.lens if lens == LENSES[1] and self.lens is not None else self.single
        return (self.flux - model) / self.sigma


class SeasonView:
    """Draws a Curve on a panel of panels.curves(); where the user zooms in, more of its epochs are drawn.

    controls : the widgets that choose how.
    """

    def __init__(self, panel: panels.Panel):
        self.panel, self.curve, self.shown = panel, None, None
        self.brightness = widgets.Dropdown(options=["flux", "magnitude"], description="axis", layout={"width": "180px"})
        self.compared = widgets.Dropdown(options=LENSES, description="residual to", layout={"width": "210px"})
        self.anomaly = widgets.Button(description="to the anomaly", layout={"width": "120px"},
                                      tooltip="zoom to where the light curve deviates most from its best single lens")
        self.whole = widgets.Button(description="whole season", layout={"width": "120px"})
        self.controls = (self.brightness, self.compared, self.anomaly, self.whole)
        self.brightness.observe(lambda _: self.refill(), "value")
        self.compared.observe(lambda _: self.refill(), "value")
        self.anomaly.on_click(lambda _: self.to_anomaly())
        self.whole.on_click(lambda _: self.to_season())
        panel.on("view", lambda _: self._zoomed())

    def draw(self, curve: Curve | None, arrays: dict, title: str, pale=(), **layout):
        """Put a light curve, None for none, and other arrays on the panel; see panels.put."""
        self.curve = curve
        if curve is None:
            panels.put(self.panel, dict.fromkeys(self.panel.names, traces.NOTHING) | arrays, title, **layout)
            return
        more, ticks = self._drawn(layout)
        panels.put(self.panel, more | arrays, title, pale, **{**ticks, **layout})

    def refill(self):
        """Draw the light curve again, as the controls and the zoom ask for it."""
        if self.curve is None:
            return
        arrays, ticks = self._drawn({})
        panels.put(self.panel, arrays, pale=None, **ticks)

    def _zoomed(self):
        shown = [self.panel.view.get(f"{axis}.range") for axis in ("xaxis2", "yaxis2")]
        if shown != self.shown:
            self.shown = shown
            self.refill()

    def _drawn(self, layout: dict) -> tuple[dict, dict]:
        """The traces of the light curve, and the ticks of their axes as changes of the layout."""
        c, window = self.curve, self.panel.window()
        if layout.get("meta", {}).get("event") != self.panel.layout_change.get("meta", {}).get("event") and layout:
            window = None  # another event: its whole season is shown
        sigmas = c.residual(self.compared.value)
        smooth = c.flux if c.lens is None else c.lens
        steps = traces.NOISY_STEPS if c.lens is None else traces.SMOOTH_STEPS
        drawn = traces.epochs_in_view(c.t, traces.log_flux(smooth), sigmas, window, steps)
        arrays = traces.light_curve_traces(c.t, c.flux, sigmas, c.single, drawn, c.lens)
        m_base = c.m_base if self.brightness.value == "magnitude" else None
        heights = self.panel.view.get("yaxis2.range") if window else None
        low, high = (10 ** min(heights), 10 ** max(heights)) if heights else (c.flux.min(), c.flux.max())
        ticks = traces.brightness_ticks(low, high, m_base)
        ticks |= traces.residual_ticks(sigmas[drawn], arrays[traces.BINNED][:, 2])
        return arrays, ticks | {panels.TIME_AXIS: f"{c.time_title}; {traces.drawn_words(c.t, drawn, window)}"}

    def everything(self) -> dict:
        """The traces with all epochs, for a saved page that can be zoomed."""
        c = self.curve
        residual = c.residual(self.compared.value)
        return traces.light_curve_traces(c.t, c.flux, residual, c.single, slice(None), c.lens)

    def to_anomaly(self):
        """Zoom to where the light curve deviates most from its best single lens; without such a place nothing moves."""
        window = traces.anomaly_window(self.curve.t, self.curve.residual()) if self.curve is not None else None
        if window is None:
            return
        inside = (self.curve.t >= window[0]) & (self.curve.t <= window[1])
        height = np.log10(np.maximum(self.curve.flux[inside], traces.LEAST_FLUX))
        room = ROOM * max(np.ptp(height), 0.01)
        sigmas = traces.symlog(self.curve.residual(self.compared.value)[inside])
        around = ROOM * max(np.ptp(sigmas), 0.1)
        self.panel.go(xaxis2__range=list(window),
                      yaxis2__range=[float(height.min() - room), float(height.max() + room)],
                      yaxis3__range=[float(sigmas.min() - around), float(sigmas.max() + around)])
        self._zoomed()

    def to_season(self):
        """Show the whole season again."""
        self.panel.go(xaxis2__autorange=True, yaxis2__autorange=True, yaxis3__autorange=True)
        self._zoomed()
