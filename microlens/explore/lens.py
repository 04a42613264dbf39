"""LensExplorer: sliders, lens plane, light curve, residual, verdict, and what the classifier says meanwhile.

    explorer = LensExplorer(s=1.1, q=0.05, classifier=microlens.load());  explorer.widget
    explorer.set(q=1e-3);  explorer.parameters;  explorer.save("event.html")
"""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import NamedTuple

import ipywidgets as widgets
import numpy as np
import yaml

from microlens import sky
from microlens.config import BINARY_PRESETS, PARALLAX, PARAMETERS, THRESHOLD_PSPL
from microlens.data.events import fit_start, meets_caustic
from microlens.explore import panels, traces
from microlens.explore.controls import Control, Message, frame, row, user_path
from microlens.files import parse_yaml
from microlens.fit import fit_noise_free, single_lens_model
from microlens.fit.points import epochs_to_draw
from microlens.lens import ROMAN_FIELD, binary, event_parallax, topology
from microlens.lens.plane import LensPlane, lens_plane
from microlens.sky.season import SEASON_THESIS


class Slider(NamedTuple):
    """The range of a slider, within what config.PARAMETERS permits, and where it begins; units as in PARAMETERS."""

    low: float
    high: float
    logarithmic: bool
    start: float


SLIDERS = {
    "t_0": Slider(0.0, SEASON_THESIS, False, 36.0),
    "u_0": Slider(-2.0, 2.0, False, 0.12),  # negative: the source passes on the other side
    "t_E": Slider(1.0, 100.0, True, 15.0),
    "rho": Slider(1e-4, 0.1, True, 0.003),
    "s": Slider(0.2, 5.0, True, 1.1),
    "q": Slider(1e-6, 1.0, True, 0.05),
    "alpha": Slider(0.0, round(2 * math.pi, 4), False, 1.0),
    "f_s": Slider(0.05, 1.0, True, 1.0),
    "m_base": Slider(15.5, 25.0, False, 21.0),
    "pi_EN": Slider(-1.0, 1.0, False, 0.0),
    "pi_EE": Slider(-1.0, 1.0, False, 0.0),
}
START = {name: slider.start for name, slider in SLIDERS.items()}
GEOMETRY = ("t_0", "u_0", "t_E", "rho", "s", "q", "alpha", "pi_EN", "pi_EE")  # what the magnification depends on
ROWS = 4  # of sliders, in columns side by side
MOST_DRAWS = 1000  # of "surprise me", until a binary meets the condition of its preset


class View(NamedTuple):
    """What is shown of an event.

    arrays : traces by name, without the probabilities.   t (T,) days, flux (T,) F/F_base, with noise.
    delta_chi2 : of the best single lens through the noise-free curve.
    """

    arrays: dict
    plane: LensPlane
    t: np.ndarray
    flux: np.ndarray
    delta_chi2: float
    topology: str


@functools.lru_cache(maxsize=8)
def _magnification(schedule, *geometry):
    """The season's curve of a lens of this GEOMETRY: it does not change while only brightness and blending do."""
    event = dict(zip(GEOMETRY, geometry, strict=True))
    lens = [event[name] for name in GEOMETRY if name not in PARALLAX]
    return binary(sky.epochs(schedule), *lens, parallax=event_parallax(event))


def prepare(parameters: dict, detector="roman", seed=0, schedule="thesis") -> View:
    """What the panels show of an event with these parameters (those of SLIDERS).

    The magnification is exact to 1e-3 (adaptive nodes); the noise keeps its random numbers while the lens moves. Where
    the event has parallax, in the Roman fields and the first season, the best single lens has it, too.
    """
    p, t = parameters, sky.epochs(schedule)
    flux_true = 1 + p["f_s"] * (_magnification(schedule, *(p[name] for name in GEOMETRY)) - 1)
    sigma = sky.sigma_flux(flux_true, p["m_base"], detector)
    flux = flux_true + sigma * np.random.default_rng(seed).normal(size=len(t))
    fit = fit_noise_free(t, flux_true, sigma, fit_start(p), field=ROMAN_FIELD if event_parallax(p) else None)
    plane = lens_plane(p, traces.season_tau(p, t))
    drawn = epochs_to_draw(t, np.log(flux_true))
    arrays = traces.plane_traces(plane) | traces.light_curve_traces(t, flux, sigma, single_lens_model(t, fit), drawn)
    return View(arrays, plane, t, flux, fit.chi2, topology(p["s"], p["q"]))


def title(view: View) -> str:
    """The title of the panels: topology, delta chi^2 and the verdict."""
    verdict = "observable" if view.delta_chi2 > THRESHOLD_PSPL else "not observable"
    return (f"{view.topology} topology; delta chi^2 against the best single lens = {view.delta_chi2:.3g}: "
            f"<b>{verdict}</b> (threshold {THRESHOLD_PSPL:g})")


def draw_binary(preset: sky.Preset, rng: np.random.Generator, timestamps) -> dict:
    """Parameters of a binary of the preset, within the sliders' ranges, for a season of epochs timestamps (T,) days.

    Raises ValueError where none of MOST_DRAWS draws is within the ranges and meets the preset's condition.
    """
    season = sky.season_length(timestamps)
    for _ in range(MOST_DRAWS):
        p = {name: float(f"{value:.5g}") for name, value in sky.draw(preset, "binary", rng, season).items()}
        if not all(slider.low <= p[name] <= slider.high for name, slider in SLIDERS.items()):
            continue
        if not preset.caustic_crossing or meets_caustic(p, timestamps, ROMAN_FIELD):
            return p
    raise ValueError(f"none of {MOST_DRAWS} binaries of preset {preset.name} was within the sliders' ranges"
                     + (" and crossed a caustic." if preset.caustic_crossing else "."))


class LensExplorer:
    """Sliders and linked panels of one binary-lens event; `widget` is what to display.

    parameters : values of START to change (t_0 u_0 t_E rho s q alpha f_s m_base pi_EN pi_EE).
    classifier : from microlens.load(), or a Run, optional.   detector, schedule : see microlens.sky.
    Raises ValueError for values out of range.
    """

    def __init__(self, classifier=None, detector="roman", seed=0, schedule="thesis", **parameters):
        self.network = getattr(classifier, "network", classifier)
        self.observing = {"detector": detector, "seed": seed, "schedule": schedule}
        self.rng, self.message, self.panel = np.random.default_rng(seed), Message(), panels.curves(self.network)
        later = self.show_probabilities if self.network is not None else None
        self.drawing = panels.Drawing(self.panel, self.show, later)
        self.controls = {
            name: Control(name, PARAMETERS[name].unit, (slider.low, slider.high), slider.logarithmic, slider.start,
                          self._moved, self.message.refuse) for name, slider in SLIDERS.items()}
        self.preset = widgets.Dropdown(options=BINARY_PRESETS, value="baseline", description="preset",
                                       layout={"width": "190px"})
        self.surprise = widgets.Button(description="surprise me", tooltip="draw a binary from the preset")
        self.look = widgets.ToggleButtons(
            options=traces.LOOKS, style={"button_width": "80px"},
            tooltips=["lenses and critical curves", "the caustics", "the source, to scale"])
        self.state = widgets.Textarea(description="state (YAML)", style={"description_width": "90px"},
                                      layout={"width": "330px", "height": "180px"})
        self.restore = widgets.Button(description="restore", tooltip="move the sliders to the state in the box")
        self.file = widgets.Text(value="event.html", description="save as", layout={"width": "240px"})
        self.save_button = widgets.Button(
            description="save", tooltip=".html, .png, .pdf or .svg of the view, .yaml of the state")
        self.surprise.on_click(lambda _: self.message.attempt(self.draw_from_preset))
        self.restore.on_click(lambda _: self.message.attempt(self.from_yaml, self.state.value))
        self.save_button.on_click(lambda _: self.message.attempt(lambda: f"saved {self.save(self.file.value)}"))
        self.look.observe(self.drawing, "value")
        self.widget = self._layout()
        self._move(parameters)
        self.drawing.now()

    def _layout(self) -> widgets.VBox:
        boxes = [control.widget for control in self.controls.values()]
        columns = [boxes[i : i + ROWS] for i in range(0, len(boxes), ROWS)]
        sliders = [widgets.VBox(column, layout={"flex": "1 1 340px"}) for column in columns]
        choices = row(self.preset, self.surprise, widgets.Label("lens plane"), self.look)
        files = row(self.state, widgets.VBox([self.restore, row(self.file, self.save_button)]))
        return frame(row(*sliders), choices, self.message, self.panel, files)

    @property
    def parameters(self) -> dict:
        """Current values by name: what a parameter file of notebook 02 takes."""
        return {name: control.value for name, control in self.controls.items()}

    def set(self, **parameters):
        """Move sliders and draw. ValueError for an unknown name or a value out of range; then nothing is moved."""
        self._move(parameters)
        self.drawing.now()

    def _move(self, parameters: dict):
        unknown = sorted(set(parameters) - set(self.controls))
        if unknown:
            raise ValueError(f"unknown parameter {', '.join(unknown)}; there are {', '.join(self.controls)}.")
        for name, value in parameters.items():
            self.controls[name].check(value)
        for name, value in parameters.items():
            self.controls[name].move(float(value))

    def _moved(self):
        """The user has moved a control."""
        self.message.say("")
        self.drawing()

    def from_yaml(self, text: str):
        """Move the sliders to a state copied from the text box or a parameter file."""
        values = parse_yaml(text)
        if not isinstance(values, dict):
            raise ValueError("expected lines 'name: value'.")
        self.set(**values)

    def draw_from_preset(self):
        """Another binary from the chosen preset."""
        self.set(**draw_binary(sky.load_preset(self.preset.value), self.rng, sky.epochs(self.observing["schedule"])))

    def save(self, path) -> Path:
        """Save the view (see panels.export) or, with the ending .yaml, the state as a parameter file of notebook 02."""
        path = user_path(path)
        if path.suffix not in (".yaml", ".yml"):
            return panels.export(self.panel, path)
        path.write_text(yaml.safe_dump(self.parameters, sort_keys=False))
        return path

    def show(self):
        """Compute and draw the current values; the probabilities of the values before turn pale."""
        try:
            self.view = prepare(self.parameters, **self.observing)
        except (ValueError, RuntimeError) as error:
            self.message.refuse(error)
            return
        arrow, ranges = traces.view_of(self.view.plane, self.look.value)
        pale = traces.PROBABILITIES if self.network is not None else ()
        panels.put(self.panel, self.view.arrays | arrow, title(self.view), pale, meta=self.look.value, **ranges)
        if self.network is None:
            self._show_state()

    def show_probabilities(self):
        """What the classifier says of the curve that is shown."""
        panels.put(self.panel, traces.probability_traces(self.network, self.view.t, self.view.flux))
        self._show_state()

    def _show_state(self):
        self.state.value = yaml.safe_dump(self.parameters, sort_keys=False)
