"""LensExplorer: sliders, lens plane, light curve, residual and verdict, and what the classifier says as the season unfolds.

    explorer = LensExplorer(s=1.1, q=0.05, classifier=microlens.load());  explorer.widget
    explorer.set(q=1e-3);  explorer.parameters;  explorer.save("event.html")
"""

from __future__ import annotations

import functools
from pathlib import Path

import ipywidgets as widgets
import numpy as np
import yaml

from microlens import sky
from microlens.config import BINARY_PRESETS, CLASSES, THRESHOLD_PSPL
from microlens.data.format import time_since_last
from microlens.explore import panels
from microlens.files import parse_yaml
from microlens.fit import fit_noise_free, single_lens_model
from microlens.fit.points import epochs_to_draw
from microlens.lens import binary, crosses_caustic, topology

RANGES = {  # low, high, logarithmic, unit
    "t_0": (0.0, 72.0, False, "d"), "u_0": (-2.0, 2.0, False, "Einstein radii"), "t_E": (1.0, 100.0, True, "d"),
    "rho": (1e-4, 0.1, True, "Einstein radii"), "s": (0.2, 5.0, True, "Einstein radii"), "q": (1e-6, 1.0, True, ""),
    "alpha": (0.0, 6.2832, False, "rad"), "f_s": (0.05, 1.0, True, ""), "m_base": (15.5, 25.0, False, "AB mag")}
START = {"t_0": 36.0, "u_0": 0.12, "t_E": 15.0, "rho": 0.003, "s": 1.1, "q": 0.05, "alpha": 1.0, "f_s": 1.0, "m_base": 21.0}
PROBABILITIES = tuple(f"P({c})" for c in CLASSES)
VIEWS = ("lenses", "caustics", "source")


@functools.lru_cache(maxsize=8)
def _magnification(schedule, *lens):
    """The season's curve of a lens (t_0, u_0, t_E, rho, s, q, alpha): it does not change while only brightness and blending do."""
    return binary(sky.epochs(schedule), *lens)


def check(parameters: dict) -> dict:
    """START with the given parameters. ValueError naming an unknown name or a value out of range."""
    unknown = sorted(set(parameters) - set(RANGES))
    if unknown:
        raise ValueError(f"unknown parameter {', '.join(unknown)}; there are {', '.join(RANGES)}.")
    for name, value in parameters.items():
        low, high, _, unit = RANGES[name]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            raise ValueError(f"{name}: came {value!r}, expected {low:g} to {high:g} {unit}".rstrip())
    return {**START, **{k: float(v) for k, v in parameters.items()}}


def prepare(parameters: dict, detector="roman", seed=0, schedule="thesis") -> dict:
    """What the panels show but the probabilities: arrays (m, 2) by trace name, t and flux (T,), delta_chi2 of the noise-free
    curve, topology.

    The magnification is exact to 1e-3 (adaptive nodes); the noise keeps its random numbers while the lens moves.
    """
    p, t = parameters, sky.epochs(schedule)
    lens = (p[name] for name in ("t_0", "u_0", "t_E", "rho", "s", "q", "alpha"))
    flux_true = 1 + p["f_s"] * (_magnification(schedule, *lens) - 1)
    sigma = sky.sigma_flux(flux_true, p["m_base"], detector)
    flux = flux_true + sigma * np.random.default_rng(seed).normal(size=len(t))
    fit = fit_noise_free(t, flux_true, sigma, (p["t_0"], p["t_E"], max(abs(p["u_0"]), 1e-3)))
    model = single_lens_model(t, fit)
    data, line = epochs_to_draw(t, np.log(flux_true)), epochs_to_draw(t, np.log(np.maximum(model, 1e-2)), time_steps=100)
    arrays = {**panels.lens_plane(p, t[0], t[-1]),
              "light curve": np.column_stack([t, np.maximum(flux, 1e-2)])[data],
              "best single lens": np.column_stack([t, model])[line],
              "residual": np.column_stack([t, (flux - model) / sigma])[data]}
    return {"arrays": arrays, "t": t, "flux": flux, "delta_chi2": fit.chi2, "topology": topology(p["s"], p["q"]), "fit": fit}


def probabilities(classifier, t, flux, delta_t=None) -> dict:
    """Class probabilities after each step of a causal classifier: arrays (m, 2) by trace name, thinned; t, flux (T,) valid epochs."""
    delta_t = time_since_last(t, flux) if delta_t is None else delta_t[None]
    p = np.exp(classifier.log_prob_prefixes(np.asarray(flux, dtype=np.float32)[None], delta_t))[0]
    step = classifier.stem_stride
    t, p = t[step - 1 :: step], p[step - 1 :: step]
    keep = epochs_to_draw(t, np.cumsum(np.abs(np.diff(p, axis=0, prepend=p[:1])).max(axis=1)), time_steps=150)
    return {name: np.column_stack([t, p[:, i]])[keep] for i, name in enumerate(PROBABILITIES)}


def title(view: dict) -> str:
    verdict = "observable" if view["delta_chi2"] > THRESHOLD_PSPL else "not observable"
    return (f"{view['topology']} topology; delta chi^2 against the best single lens = {view['delta_chi2']:.3g}: "
            f"<b>{verdict}</b> (threshold {THRESHOLD_PSPL:g})")


def look_at(arrays: dict, look: str) -> tuple[dict, dict]:
    """What the lens plane shows: the lenses with their critical curves, the caustics, or the source.

    arrays : of panels.lens_plane. Returns the arrow of the trajectory as an array by name, and the ranges for panels.put.
    """
    shown = {"lenses": ("critical curves", "lenses", "caustics"), "caustics": ("caustics",), "source": ("source",)}[look]
    xy = np.vstack([arrays[name] for name in shown])
    low, high = np.nanmin(xy, axis=0), np.nanmax(xy, axis=0)
    centre, half = (low + high) / 2, max((high - low).max() * (3.0 if look == "source" else 0.6), 1e-6)
    path = arrays["trajectory"]
    along, middle = path[-1] - path[0], arrays["source"][:-1].mean(axis=0)
    along = along / np.hypot(*along)
    # The arrow stands a little behind the point of the trajectory that is nearest to the middle of the view.
    at = middle + along * ((centre - middle) @ along + 0.45 * half)
    x, y = ([float(c - half), float(c + half)] for c in centre)
    return {"direction": np.array([at - 0.05 * half * along, at])}, {"xaxis__range": x, "yaxis__range": y}


class Control:
    """One parameter: a slider (its position logarithmic where the field's is) and a number box, which holds the value exactly."""

    def __init__(self, name, value, changed, refused):
        self.name, (low, high, self.log, unit) = name, RANGES[name]
        self.changed, self.refused, self.moving, self.value = changed, refused, False, value
        a, b = self._position(low), self._position(high)
        self.step = 0.005 if self.log else (b - a) / 1000
        label = f"{name} ({unit})" if unit else name
        self.slider = widgets.FloatSlider(value=self._position(value), min=a, max=b, step=self.step, readout=False, description=label,
                                          style={"description_width": "132px"}, layout={"width": "290px"})
        self.box = widgets.FloatText(value=value, layout={"width": "86px"}, tooltip=f"{label}: {low:g} to {high:g}")
        self.box.add_class("microlens-box")
        self.slider.observe(self._on_slider, "value")
        self.box.observe(self._on_box, "value")
        self.widget = widgets.HBox([self.slider, self.box])

    def _position(self, value):
        return float(np.log10(value)) if self.log else value

    def _on_slider(self, change):
        # The page moves a slider to its nearest step and reports that: no move of the user's.
        if self.moving or abs(change["new"] - self._position(self.value)) <= 0.5001 * self.step:
            return
        value = 10 ** change["new"] if self.log else change["new"]
        low, high, *_ = RANGES[self.name]
        self.move(float(f"{min(max(value, low), high):.4g}"))
        self.changed()

    def _on_box(self, change):
        if self.moving:
            return
        try:
            check({self.name: change["new"]})
        except ValueError as error:
            self.move(self.value)
            self.refused(error)
            return
        self.move(change["new"])
        self.changed()

    def move(self, value: float):
        """Show a value without telling anyone."""
        self.moving, self.value = True, value
        self.box.value = value
        if abs(self.slider.value - self._position(value)) > 0.5001 * self.step:
            self.slider.value = self._position(value)
        self.moving = False


class LensExplorer:
    """Sliders and linked panels of one binary-lens event; `widget` is what to display.

    parameters : values of START to change (t_0 u_0 t_E rho s q alpha f_s m_base).   classifier : from microlens.load(), optional.
    detector, schedule : see microlens.sky.noise.
    Raises ValueError for values out of range.
    """

    def __init__(self, classifier=None, detector="roman", seed=0, schedule="thesis", **parameters):
        start = check(parameters)
        self.classifier, self.observing = classifier, {"detector": detector, "seed": seed, "schedule": schedule}
        self.rng, self.message, self.panel = np.random.default_rng(seed), widgets.HTML(), panels.curves()
        later = self.show_probabilities if classifier is not None else None
        self.drawing = panels.Drawing(self.panel, self.show, later)
        self.controls = {name: Control(name, start[name], self.drawing, self._refuse) for name in RANGES}
        self.preset = widgets.Dropdown(options=BINARY_PRESETS, value="baseline", description="preset", layout={"width": "190px"})
        self.surprise = widgets.Button(description="surprise me", tooltip="draw a binary from the preset")
        self.look = widgets.ToggleButtons(options=VIEWS, style={"button_width": "80px"},
                                          tooltips=["lenses and critical curves", "the caustics", "the source, to scale"])
        label = widgets.Label("lens plane", layout={"margin": "2px 8px 2px 40px"})
        self.state = widgets.Textarea(description="state (YAML)", style={"description_width": "90px"},
                                      layout={"width": "330px", "height": "180px"})
        self.restore = widgets.Button(description="restore", tooltip="move the sliders to the state in the box")
        self.file = widgets.Text(value="event.html", description="save as", layout={"width": "240px"})
        self.save_button = widgets.Button(description="save", tooltip=".html, .png, .pdf or .svg of the view, .yaml of the state")
        self.surprise.on_click(lambda _: self._say(self.draw_from_preset))
        self.restore.on_click(lambda _: self._say(self.from_yaml, self.state.value))
        self.save_button.on_click(lambda _: self._say(self.save, self.file.value))
        self.look.observe(self.drawing, "value")
        boxes, row = [c.widget for c in self.controls.values()], widgets.HBox
        self.widget = widgets.VBox([
            row([widgets.VBox(boxes[i : i + 3]) for i in (0, 3, 6)]),
            row([self.preset, self.surprise, label, self.look]), self.message, self.panel,
            row([self.state, widgets.VBox([self.restore, row([self.file, self.save_button])])])])
        self.drawing.now()

    @property
    def parameters(self) -> dict:
        """Current values by name: what a parameter file of notebook 02 takes."""
        return {name: control.value for name, control in self.controls.items()}

    def set(self, **parameters):
        """Move sliders and draw. ValueError for an unknown name or a value out of range; then nothing is moved."""
        check(parameters)
        for name, value in parameters.items():
            self.controls[name].move(float(value))
        self.drawing.now()

    def from_yaml(self, text: str):
        """Move the sliders to a state copied from the text box or a parameter file."""
        values = parse_yaml(text)
        if not isinstance(values, dict):
            raise ValueError("expected lines 'name: value'.")
        self.set(**values)

    def draw_from_preset(self):
        """Another binary from the chosen preset."""
        preset, tau = sky.load_preset(self.preset.value), sky.epochs(self.observing["schedule"])
        for _ in range(1000):
            p = sky.draw(preset, "binary", self.rng, sky.season_length(tau))
            geometry = [p[k] for k in ("u_0", "rho", "s", "q", "alpha")]
            if not preset.caustic_crossing or crosses_caustic((tau - p["t_0"]) / p["t_E"], *geometry):
                break
        self.set(**{k: float(f"{np.clip(p[k], low, high):.5g}") for k, (low, high, *_) in RANGES.items()})

    def save(self, path):
        """Save the view (.html, .png, .pdf, .svg; see panels.export) or the state (.yaml, a parameter file of notebook 02)."""
        if Path(path).suffix in (".yaml", ".yml"):
            Path(path).write_text(yaml.safe_dump(self.parameters, sort_keys=False))
            return Path(path)
        return panels.export(self.panel, path)

    def _refuse(self, error):
        self.message.value = f"<b style='color:#b00'>{error}</b>"

    def _say(self, function, *arguments):
        try:
            done = function(*arguments)
        except Exception as error:  # whatever goes wrong belongs into the widget, not into a log that nobody sees
            self._refuse(error)
        else:
            self.message.value = f"saved {done}" if done else ""

    def show(self):
        """Compute and draw the current values; the probabilities of the values before turn pale."""
        try:
            self.view = prepare(self.parameters, **self.observing)
        except (ValueError, RuntimeError) as error:
            self._refuse(error)
            return
        if self.message.value:
            self.message.value = ""
        arrow, ranges = look_at(self.view["arrays"], self.look.value)
        panels.put(self.panel, {**self.view["arrays"], **arrow}, title(self.view), PROBABILITIES if self.classifier else (),
                   meta=self.look.value, **ranges)
        if self.classifier is None:
            self._show_state()

    def show_probabilities(self):
        """What the classifier says of the curve that is shown."""
        panels.put(self.panel, probabilities(self.classifier, self.view["t"], self.view["flux"]))
        self._show_state()

    def _show_state(self):
        self.state.value = yaml.safe_dump(self.parameters, sort_keys=False)
