"""LensExplorer: sliders, lens plane, light curve, residual, verdict, and what the classifier says meanwhile.

    explorer = LensExplorer(s=1.1, q=0.05, classifier=microlens.load());  explorer.widget
    explorer.set(q=1e-3);  explorer.parameters;  explorer.save("event.html")
    explorer.observe(Curve("my star", t, flux, sigma))        # the lens of the sliders over a light curve of your own
"""

from __future__ import annotations

import functools
import html
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
from microlens.explore.controls import Control, Frame, Message, checked_value, printed_unit, row, user_path
from microlens.explore.fits import Fits
from microlens.explore.frames import FRAMES, PACKAGE
from microlens.explore.season_view import LENSES, Curve, SeasonView
from microlens.files import parse_yaml
from microlens.fit import SingleLensFit, fit_noise_free, fit_single_lens, single_lens_model
from microlens.fit.problem import BINARY
from microlens.lens import ROMAN_FIELD, Field, binary, event_parallax, topology, trajectory
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
GEOMETRY = (*BINARY, *PARALLAX)  # what the magnification depends on
SLIDER_COLUMNS = "repeat(auto-fit, minmax(min(390px, 100%), 1fr))"  # as many as there is room for, all as wide
MOST_UNDONE = 100  # states that `undo` goes back
MOST_DRAWS = 1000  # of "surprise me", until a binary meets the condition of its preset


class View(NamedTuple):
    """What is shown of an event.

    delta_chi2 : of the best single lens: in a simulated event against its noise-free curve, in a measured one against
    the binary lens.   chi2 : of that binary lens over a measured light curve, None in a simulated one.
    track : (k, 4) for panels.put_track.
    """

    curve: Curve
    plane: LensPlane
    delta_chi2: float
    chi2: float | None
    topology: str
    track: np.ndarray


@functools.lru_cache(maxsize=8)
def _magnification(schedule, **geometry):
    """The season's curve of a lens of this GEOMETRY: it does not change while only brightness and blending do."""
    return lens_magnification(geometry, sky.epochs(schedule), ROMAN_FIELD)


def lens_magnification(p: dict, t, field: Field) -> np.ndarray:
    """Magnification (n,) of the lens with the parameters of GEOMETRY at t (n,) days after field.season_start."""
    return binary(t, *(p[name] for name in BINARY), parallax=event_parallax(p, field))


def source_track(p: dict, t, flux, field: Field) -> np.ndarray:
    """Where the source is: (k, 4) days, x and y in Einstein radii, flux, at epochs t (k,) with flux (k,)."""
    parallax = event_parallax(p, field)
    x, y = trajectory(t, p["t_0"], p["u_0"], p["t_E"], p["alpha"], parallax)
    return np.column_stack([t, x, y, flux])


def prepare(parameters: dict, detector="roman", seed=0, schedule="thesis") -> View:
    """What the panels show of a simulated event with these parameters (those of SLIDERS).

    The magnification is exact to 1e-3 (adaptive nodes); the noise keeps its random numbers while the lens moves. Where
    the event has parallax, in the Roman fields and the first season, the best single lens has it, too.
    """
    p, t = parameters, sky.epochs(schedule)
    flux_true = 1 + p["f_s"] * (_magnification(schedule, **{name: p[name] for name in GEOMETRY}) - 1)
    sigma = sky.sigma_flux(flux_true, p["m_base"], detector)
    flux = flux_true + sigma * np.random.default_rng(seed).normal(size=len(t))
    fit = fit_noise_free(t, flux_true, sigma, fit_start(p), field=ROMAN_FIELD if event_parallax(p) else None)
    curve = Curve("the simulated event", t, flux, sigma, m_base=p["m_base"], single=single_lens_model(t, fit),
                  lens=flux_true)
    return _view(p, curve, fit.chi2)


def prepare_measured(parameters: dict, measured: Curve, single) -> View:
    """What the panels show of the lens of the sliders over a measured light curve.

    Of the parameters f_s and m_base are not used: the fluxes of source and blend are those that fit best.
    single : the best single lens through the light curve, a SingleLensFit.
    """
    t, flux, sigma = measured.t, measured.flux, measured.sigma
    magnification = lens_magnification(parameters, t, measured.field)
    design = np.column_stack([magnification, np.ones(len(t))]) / sigma[:, None]
    fluxes, *_ = np.linalg.lstsq(design, flux / sigma, rcond=None)
    lens = fluxes[0] * magnification + fluxes[1]
    chi2 = float((((flux - lens) / sigma) ** 2).sum())
    curve = measured._replace(single=single_lens_model(t, single), lens=lens)
    return _view(parameters, curve, single.chi2 - chi2, chi2)


def _view(p: dict, curve: Curve, delta_chi2: float, chi2: float | None = None) -> View:
    plane = lens_plane(p, traces.season_tau(p, curve.t), field=curve.field)
    at = traces.epochs_in_view(curve.t, traces.log_flux(curve.lens))
    track = source_track(p, curve.t[at], curve.lens[at], curve.field)
    return View(curve, plane, delta_chi2, chi2, topology(p["s"], p["q"]), track)


def title(view: View) -> str:
    """The title of the panels: topology, delta chi^2 and the verdict; of a measured light curve its name and chi^2."""
    if view.chi2 is not None:
        compared = "better" if view.delta_chi2 > 0 else "worse"
        return (f"{html.escape(view.curve.name)}: χ² of this {view.topology} lens = {view.chi2:.6g} for "
                f"{len(view.curve.t)} epochs, <b>{abs(view.delta_chi2):.4g} {compared}</b> than the best single lens")
    verdict = "observable" if view.delta_chi2 > THRESHOLD_PSPL else "not observable"
    return (f"{view.topology} topology; Δχ² against the best single lens = {view.delta_chi2:.3g}: "
            f"<b>{verdict}</b> (threshold {THRESHOLD_PSPL:g})")


def in_words(parameters: dict) -> str:
    """The parameters of a lens, with units, and the frame that they are stated in."""
    words = [f"{name} = {value:.6g} {printed_unit(PARAMETERS[name].unit)}".rstrip()
             for name, value in parameters.items()]
    return ", ".join(words) + "; about the centre of mass, alpha from the lens axis to the source's motion"


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
        self.season = SeasonView(self.panel)
        self.drawing = panels.Drawing(self.panel, self.show, self.show_later)
        self.measured, self.single, self.states, self.frame = None, None, [], PACKAGE
        self.controls = {
            name: Control(name, PARAMETERS[name].unit, (slider.low, slider.high), slider.logarithmic, slider.start,
                          self._moved, self.message.refuse) for name, slider in SLIDERS.items()}
        self.spans = {name: control.span for name, control in self.controls.items()}
        self.fits = Fits(self)
        self._make_widgets()
        self.widget = self._layout()
        self._name_frame()
        self._move(parameters)
        self.drawing.now()

    def _make_widgets(self):
        button, attempt = widgets.Button, self.message.attempt
        self.preset = widgets.Dropdown(options=BINARY_PRESETS, value="baseline", description="preset",
                                       layout={"width": "190px"})
        self.surprise = button(description="surprise me", tooltip="draw a binary from the preset")
        self.undo_button = button(description="undo", tooltip="back to the lens before", layout={"width": "80px"})
        self.frames = widgets.Dropdown(options=list(FRAMES), description="frame", layout={"width": "330px"})
        self.look = widgets.ToggleButtons(
            options=traces.LOOKS, style={"button_width": "80px"},
            tooltips=["lenses and critical curves", "the caustics", "the source, to scale"])
        self.map = widgets.Checkbox(description="map", indent=False, layout={"width": "70px"},
                                    tooltip="magnification of a point source behind the caustics")
        self.simulated = button(description="back to simulated events", layout={"width": "200px", "display": "none"})
        self.state = widgets.Textarea(description="state (YAML)", style={"description_width": "90px"},
                                      layout={"width": "330px", "height": "180px"})
        self.restore = button(description="restore", tooltip="move the sliders to the state in the box")
        self.file = widgets.Text(value="event.html", description="save as", layout={"width": "240px"})
        self.save_button = button(
            description="save", tooltip=".html, .png, .pdf or .svg of the view, .yaml of the state")
        self.surprise.on_click(lambda _: attempt(self.draw_from_preset))
        self.undo_button.on_click(lambda _: attempt(self.undo))
        self.simulated.on_click(lambda _: attempt(self.observe, None))
        self.restore.on_click(lambda _: attempt(self.from_yaml, self.state.value))
        self.save_button.on_click(lambda _: attempt(lambda: f"saved {html.escape(str(self.save(self.file.value)))}"))
        self.look.observe(self.drawing, "value")
        self.map.observe(lambda _: self.show_map(), "value")
        self.frames.observe(lambda change: attempt(self.set_frame, change["new"]), "value")
        self.panel.on("view", lambda _: self.show_map())

    def _layout(self) -> widgets.VBox:
        sliders = widgets.GridBox([control.widget for control in self.controls.values()],
                                  layout={"grid_template_columns": SLIDER_COLUMNS})
        choices = row(self.preset, self.surprise, self.undo_button, self.frames, self.simulated)
        looks = row(widgets.Label("lens plane"), self.look, self.map, *self.season.controls)
        files = row(self.state, widgets.VBox([self.restore, row(self.file, self.save_button)]))
        return Frame(sliders, choices, looks, self.message, self.panel, self.fits.widget, files, panel=self.panel)

    # ---- parameters -------------------------------------------------------------------------------------------------

    @property
    def parameters(self) -> dict:
        """Current values by name, in the frame of the package: what a parameter file of notebook 02 takes."""
        return self.frame.parameters({name: control.value for name, control in self.controls.items()})

    def set(self, **parameters):
        """Move sliders and draw. ValueError for an unknown name or a value out of range; then nothing is moved."""
        self._move(parameters)
        self.drawing.now()

    def _move(self, parameters: dict):
        unknown = sorted(set(parameters) - set(self.controls))
        if unknown:
            raise ValueError(f"unknown parameter {', '.join(unknown)}; there are {', '.join(self.controls)}.")
        values = {name: checked_value(name, value, self.spans[name], printed_unit(PARAMETERS[name].unit),
                                      2 * math.pi if name == "alpha" else None) for name, value in parameters.items()}
        for name, value in self.frame.shown(self.parameters | values).items():
            if name in values or value != self.controls[name].value:
                self.controls[name].move(float(value))

    def _moved(self):
        """The user has moved a control."""
        self.message.say("")
        self.drawing()

    def set_frame(self, name: str):
        """State t_0, u_0 and alpha in another frame, one of FRAMES; the lens stays as it is."""
        if name not in FRAMES:
            raise ValueError(f"frame: came {name!r}, expected one of {', '.join(FRAMES)}.")
        parameters, self.frame, self.frames.value = self.parameters, FRAMES[name], name
        self._name_frame()
        for key, value in self.frame.shown(parameters).items():
            if key in ("t_0", "u_0", "alpha"):
                self.controls[key].move(value)

    def _name_frame(self):
        """Give alpha the unit and the range of the frame."""
        turn = self.frame.turn
        span = self.spans["alpha"] if self.frame == PACKAGE else (0.0, turn)
        self.controls["alpha"].set_span(span, self.frame.unit, turn)

    def from_yaml(self, text: str):
        """Move the sliders to a state copied from the text box or a parameter file."""
        values = parse_yaml(text)
        if not isinstance(values, dict):
            raise ValueError("expected lines 'name: value'.")
        self._move(values)
        self.drawing()

    def draw_from_preset(self):
        """Another binary from the chosen preset."""
        self._move(draw_binary(sky.load_preset(self.preset.value), self.rng, sky.epochs(self.observing["schedule"])))
        self.drawing()

    def undo(self) -> str | None:
        """Go back to the lens that was shown before."""
        if self.states and self.states[-1] == self.parameters:
            self.states.pop()
        if not self.states:
            self.states = [self.parameters]
            return "there is nothing to undo."
        self._move(self.states.pop())
        self.drawing()
        return None

    # ---- a measured light curve -------------------------------------------------------------------------------------

    def observe(self, measured: Curve | None, **parameters):
        """Put the lens on a measured light curve (None: on simulated ones again) and move the sliders to `parameters`.

        Without parameters the lens starts as the best single lens with a planet too small to be seen. Ranges widen
        where a value is outside of them. Raises ValueError for an unknown parameter.
        """
        self.measured = measured
        slider = SLIDERS["t_0"]
        self.spans["t_0"] = (slider.low, slider.high)
        if measured is not None:
            self.single = fit_single_lens(measured.t, measured.flux, measured.sigma, finite_source=True)
            self.spans["t_0"] = (float(measured.t[0]), float(measured.t[-1]))
            parameters = parameters or self._as_single_lens()
        low, high = self.spans["t_0"]
        if not low <= self.controls["t_0"].value <= high:
            self.controls["t_0"].move((low + high) / 2)
        self._widen(parameters)
        self.simulated.layout.display = None if measured is not None else "none"
        self._move(parameters)
        self.states = []
        self.drawing.now()

    def _widen(self, parameters: dict):
        """Let the ranges of the sliders hold these values."""
        for name, (low, high) in self.spans.items():
            value = parameters.get(name, low)
            if name != "alpha":
                self.spans[name] = min(low, value), max(high, value)
                self.controls[name].set_span(self.spans[name], PARAMETERS[name].unit)

    def keep_simulated(self):
        """Make the simulated light curve that is shown a measured one, on which other lenses can be tried."""
        self.observe(self.view.curve, **self.parameters)

    def set_lens(self, parameters: dict):
        """Move the sliders to a lens, whose values may be outside their ranges, and draw."""
        self._widen(parameters)
        self._move(parameters)
        self.drawing.now()

    def set_single(self, single: SingleLensFit):
        """Draw another single lens over the measured light curve, and the residual to it."""
        self.single, self.season.compared.value = single, LENSES[0]
        self.drawing.now()

    def _as_single_lens(self) -> dict:
        """The best single lens through the measured light curve as a lens with a negligible companion."""
        fit, near = self.single, {"s": 1.0, "q": SLIDERS["q"].low, "alpha": 1.0, "pi_EN": 0.0, "pi_EE": 0.0}
        values = near | {"t_0": fit.t_0, "u_0": fit.u_0, "t_E": fit.t_E, "rho": fit.rho}
        return {name: float(np.clip(value, *self.spans[name])) for name, value in values.items()}

    # ---- drawing ----------------------------------------------------------------------------------------------------

    def save(self, path) -> Path:
        """Save the view (see panels.export) or, with the ending .yaml, the state as a parameter file of notebook 02."""
        path = user_path(path)
        if path.suffix not in (".yaml", ".yml"):
            return panels.export(self.panel, path, in_words(self.parameters), self.season.everything())
        path.write_text(yaml.safe_dump(self.parameters, sort_keys=False))
        return path

    def show(self):
        """Compute and draw the current values; the probabilities of the values before turn pale."""
        try:
            if self.measured is None:
                self.view = prepare(self.parameters, **self.observing)
            else:
                self.view = prepare_measured(self.parameters, self.measured, self.single)
        except (ValueError, RuntimeError) as error:
            self.message.refuse(error)
            return
        arrow, ranges = traces.view_of(self.view.plane, self.look.value)
        pale = traces.PROBABILITIES if self.network is not None else ()
        meta = {"plane": self.look.value, "event": "" if self.measured is None else self.measured.name}
        self.panel.follow({"meta": meta})  # a zoom ends where another view was chosen
        panels.put_track(self.panel, self.view.track, self.parameters["rho"])
        self.season.draw(self.view.curve, traces.plane_traces(self.view.plane) | arrow, title(self.view), pale,
                         meta=meta, **ranges, **self._map(ranges))

    def show_later(self):
        """What the classifier says of the curve that is shown, and the state in words: what may wait."""
        if self.network is not None:
            panels.put(self.panel, traces.probability_traces(self.network, self.view.curve))
        if self.states[-1:] != [self.parameters]:  # the user has come to rest here
            self.states = [*self.states[-MOST_UNDONE:], self.parameters]
        self.state.value = yaml.safe_dump(self.parameters, sort_keys=False)

    def show_map(self):
        """Draw the magnification map of what the lens plane shows, or take it away."""
        change = self._map({})
        if change["images"] != self.panel.layout_change.get("images"):
            panels.put(self.panel, {}, pale=None, **change)

    def _map(self, ranges: dict) -> dict:
        """The magnification map behind the lens plane as a change of the layout; ranges : those that will be shown."""
        if not self.map.value:
            return {"images": []}
        x, y = (ranges.get(f"{axis}__range") for axis in ("xaxis", "yaxis"))
        if self.panel.zoomed or x is None:
            shown = self.panel.layout_change | self.panel.view
            x, y = shown["xaxis.range"], shown["yaxis.range"]
        p = self.parameters
        return {"images": [traces.magnification_image(x, y, p["s"], p["q"])]}
