"""LensExplorer: sliders, lens plane, light curve, residual and verdict, and what the classifier says as the season unfolds.

    explorer = LensExplorer(s=1.1, q=0.05, classifier=microlens.load());  explorer.widget
    explorer.set(q=1e-3);  explorer.parameters;  explorer.save("event.html")
"""

from __future__ import annotations

import ipywidgets as widgets
import numpy as np
import yaml

from microlens import survey
from microlens.config import BINARY_PRESETS, CLASSES
from microlens.detectability import THRESHOLD_PSPL, fit_noise_free, single_lens_model
from microlens.explore import panels
from microlens.magnification import nodes, render, topology
from microlens.population import draw, load_preset
from microlens.store import time_since_last

RANGES = {  # low, high, logarithmic, unit
    "t_0": (0.0, 72.0, False, "d"), "u_0": (-1.5, 1.5, False, "Einstein radii"), "t_E": (1.0, 100.0, True, "d"),
    "rho": (1e-4, 0.1, True, "Einstein radii"), "s": (0.2, 5.0, True, "Einstein radii"), "q": (1e-6, 1.0, True, ""),
    "alpha": (0.0, 6.2832, False, "rad"), "f_s": (0.05, 1.0, True, ""), "m_base": (15.5, 25.0, False, "AB mag")}
START = {"t_0": 36.0, "u_0": 0.12, "t_E": 15.0, "rho": 0.003, "s": 1.1, "q": 0.05, "alpha": 1.0, "f_s": 1.0, "m_base": 21.0}
SHOWN = 8  # every eighth epoch is drawn; all are computed


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


def prepare(parameters: dict, classifier=None, detector="roman", seed=0) -> dict:
    """Everything the panels show: arrays (m, 2) by trace name, delta_chi2 of the noise-free curve, topology.

    The magnification is exact to 1e-3 (adaptive nodes); the noise keeps its random numbers while the lens moves.
    """
    p, t = parameters, survey.epochs("thesis")
    tau = (t - p["t_0"]) / p["t_E"]
    curve = nodes(p["u_0"], p["rho"], p["s"], p["q"], p["alpha"], tau[0], tau[-1])
    flux_true = 1 + p["f_s"] * (render(curve.tau, curve.log_A, tau) - 1)
    sigma = survey.sigma_flux(flux_true, p["m_base"], detector)
    flux = flux_true + sigma * np.random.default_rng(seed).normal(size=len(t))
    fit = fit_noise_free(t, flux_true, sigma, (p["t_0"], p["t_E"], max(abs(p["u_0"]), 1e-3)))
    model = single_lens_model(t, fit)
    arrays = panels.lens_plane(p, t[0], t[-1])
    keep = np.arange(len(t)) % SHOWN == 0
    arrays |= {"light curve": np.column_stack([t, np.maximum(flux, 1e-2)])[keep],
               "best single lens": np.column_stack([t, model])[keep],
               "residual": np.column_stack([t, (flux - model) / sigma])[keep]}
    if classifier is not None:
        probability = np.exp(classifier.log_prob_prefixes(flux[None], time_since_last(t, flux)))[0]
        step = classifier.stem_stride
        for i, c in enumerate(CLASSES):
            arrays[f"P({c})"] = np.column_stack([t, probability[:, i]])[step - 1 :: step]
    return {"arrays": arrays, "delta_chi2": fit.chi2, "topology": topology(p["s"], p["q"]), "fit": fit}


def title(view: dict) -> str:
    verdict = "observable" if view["delta_chi2"] > THRESHOLD_PSPL else "not observable"
    return (f"{view['topology']} topology; delta chi^2 against the best single lens = {view['delta_chi2']:.3g}: "
            f"<b>{verdict}</b> (threshold {THRESHOLD_PSPL:g})")


class LensExplorer:
    """Sliders and linked panels of one binary-lens event; `widget` is what to display.

    parameters : values of START to change (t_0 u_0 t_E rho s q alpha f_s m_base).   classifier : from microlens.load(), optional;
    a run of the residual view has no answer for a part of a season.   Raises ValueError for values out of range.
    """

    def __init__(self, classifier=None, detector="roman", seed=0, **parameters):
        start = check(parameters)
        if classifier is not None and classifier.view != "flux":
            raise ValueError("the classifier reads whole seasons; the explorer needs a causal one (trained with --view flux).")
        self.classifier, self.detector, self.seed = classifier, detector, seed
        self.sliders = {}
        redraw = panels.Latest(self.refresh)
        for name, (low, high, logarithmic, unit) in RANGES.items():
            kind = widgets.FloatLogSlider if logarithmic else widgets.FloatSlider
            span = ({"min": np.log10(low), "max": np.log10(high), "step": 0.005} if logarithmic else
                    {"min": low, "max": high, "step": (high - low) / 1000})
            self.sliders[name] = kind(value=start[name], description=f"{name} ({unit})" if unit else name, readout_format=".4g",
                                      style={"description_width": "140px"}, layout={"width": "430px"}, **span)
            self.sliders[name].observe(redraw, "value")
        self.preset = widgets.Dropdown(options=BINARY_PRESETS, value="baseline", description="preset", layout={"width": "200px"})
        self.surprise = widgets.Button(description="surprise me", tooltip="draw a binary from the preset")
        self.state = widgets.Textarea(description="state (YAML)", layout={"width": "430px", "height": "110px"})
        self.restore = widgets.Button(description="restore", tooltip="move the sliders to the state in the box")
        self.file = widgets.Text(value="event.html", description="save as", layout={"width": "300px"})
        self.save_button = widgets.Button(description="save", tooltip=".html, .png, .pdf or .svg")
        self.message = widgets.HTML()
        self.surprise.on_click(lambda _: self.draw_from_preset())
        self.restore.on_click(lambda _: self._say(self.from_yaml, self.state.value))
        self.save_button.on_click(lambda _: self._say(self.save, self.file.value))
        self.figure = panels.figure()
        half = list(self.sliders.values())
        self.widget = widgets.VBox([
            widgets.HBox([widgets.VBox(half[:5]), widgets.VBox(half[5:])]),
            widgets.HBox([self.preset, self.surprise, self.file, self.save_button]), self.message, self.figure,
            widgets.HBox([self.state, self.restore])])
        self.rng = np.random.default_rng(seed)
        self.refresh()

    @property
    def parameters(self) -> dict:
        """Current values by name: what a parameter file of notebook 02 takes."""
        return {name: float(f"{slider.value:.6g}") for name, slider in self.sliders.items()}

    def set(self, **parameters):
        """Move sliders. ValueError for an unknown name or a value out of range; then nothing is moved."""
        check(parameters)
        for name, value in parameters.items():
            self.sliders[name].value = float(value)

    def from_yaml(self, text: str):
        """Move the sliders to a state copied from the text box or a parameter file."""
        values = yaml.safe_load(text)
        if not isinstance(values, dict):
            raise ValueError("expected lines 'name: value'.")
        self.set(**values)

    def draw_from_preset(self):
        """Another binary from the chosen preset, cut to the sliders' ranges."""
        drawn = draw(load_preset(self.preset.value), "binary", self.rng, 72.0)
        self.set(**{k: float(np.clip(v, *RANGES[k][:2])) for k, v in drawn.items() if k in RANGES})

    def save(self, path):
        """Save the view; see panels.export."""
        return panels.export(self.figure, path)

    def _say(self, function, argument):
        try:
            done = function(argument)
            self.message.value = f"saved {done}" if done else ""
        except Exception as error:  # whatever goes wrong belongs into the widget, not into a log that nobody sees
            self.message.value = f"<b style='color:#b00'>{type(error).__name__}: {error}</b>"

    def refresh(self):
        """Compute and draw the current values."""
        try:
            self.view = prepare(self.parameters, self.classifier, self.detector, self.seed)
        except (ValueError, RuntimeError) as error:
            self.message.value = f"<b style='color:#b00'>{error}</b>"
            return
        self.message.value = ""
        self.state.value = yaml.safe_dump(self.parameters, sort_keys=False)
        panels.put(self.figure, self.view["arrays"], title(self.view))
