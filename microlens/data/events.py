"""One event, from its parameters to its measured light curve: the one recipe of simulated and of fresh events.

    event = make_event(preset_source(preset, "binary", season=72.0), config, timestamps, rng, max_draws=20)
    flux_true = true_flux(curve, t_0, t_E, f_s, timestamps)

A magnification curve is None for a flat event, the u_0 of a point-source single lens, or nodes (tau, log A) in Einstein
times, from which `true_flux` draws the event at any t_0 and t_E.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from microlens import lens, sky
from microlens.config import Noise, SimulateConfig
from microlens.data.format import STATUS_ANALYTIC, STATUS_NODES, STATUS_REDRAWN
from microlens.fit import NEVER_OBSERVABLE, Observability, observability

TRAJECTORY = ("u_0", "rho", "s", "q", "alpha")  # what a path of the source across a binary lens is made of
SMALLEST_START = 1e-3  # u_0, Einstein radii, from which the fit of a single lens starts at the least


class OversampleError(RuntimeError):
    """Fewer events accepted than asked for within the permitted draws."""


class Source(NamedTuple):
    """Where the events of one class come from.

    draw(rng) : parameters by name, t_0 in days.   curve(params) : their magnification curve, or MagnificationError.
    caustic_crossing : a binary counts only where the source disc meets a caustic at an observed epoch.
    """

    kind: str
    draw: Callable[[np.random.Generator], dict]
    curve: Callable[[dict], tuple | float | None]
    caustic_crossing: bool


class Event(NamedTuple):
    """One event.

    params : by name, t_0 in days.   flux : (T,) float32, measured F/F_base, 0.0 = no observation.
    curve : see the module docstring.   status : see format.STATUS.
    """

    kind: str
    params: dict
    flux: np.ndarray
    curve: tuple | float | None
    status: int
    n_draws: int
    observability: Observability


def preset_source(preset: sky.Preset, kind: str, season: float, limb_darkening: float = 0.0) -> Source:
    """Events of class `kind` of a preset, with the lens library's curves.

    season : days, of which t_0 is drawn as a share.   limb_darkening : linear coefficient of the source.
    """
    return Source(kind, lambda rng: sky.draw(preset, kind, rng, season),
                  lambda params: magnification_curve(kind, params, limb_darkening), preset.caustic_crossing)


def magnification_curve(kind: str, params: dict, limb_darkening: float = 0.0):
    """The magnification curve of an event of class `kind` with these parameters.

    Raises MagnificationError if the lens library fails.
    """
    if kind == "flat":
        return None
    if kind == "binary":
        return lens.nodes(*(params[name] for name in TRAJECTORY), limb_darkening=limb_darkening)
    if params["rho"] == 0:
        return params["u_0"]
    return lens.single_nodes(params["u_0"], params["rho"], limb_darkening=limb_darkening)


def true_flux(curve, t_0, t_E, f_s, timestamps) -> np.ndarray:
    """Noise-free F/F_base (T,) at timestamps (T,) days of a magnification curve.

    t_0, t_E : days.   f_s : share of the baseline flux that is lensed.   For a flat curve the three do not count.
    """
    if curve is None:
        return np.ones(len(timestamps))
    if isinstance(curve, (float, int)):
        magnification = lens.pspl(timestamps, t_0, curve, t_E)
    else:
        magnification = lens.render(*curve, (timestamps - t_0) / t_E)
    return 1.0 + f_s * (magnification - 1.0)


def render_event(curve, t_0, t_E, f_s, m_base, timestamps, rng: np.random.Generator, noise: Noise = sky.QUIET):
    """A measured light curve of a known magnification curve: any t_0, t_E, blending, brightness, epochs and noise.

    curve : see the module docstring, as Dataset.curve gives it.   t_0, t_E : days.   f_s : lensed share of the baseline
    flux.   m_base : mag.   timestamps : (T,) days.
    Returns flux (T,) float32, 0.0 = no observation, and flux_true (T,) float64, both F/F_base.
    """
    flux_true = true_flux(curve, t_0, t_E, f_s, timestamps)
    return sky.observe(flux_true, m_base, timestamps, rng, noise), flux_true


def make_event(source: Source, config: SimulateConfig, timestamps, rng: np.random.Generator, max_draws: int) -> Event:
    """Draw one event until it meets the condition of its source and the lens library answers.

    config : noise, limb darkening and preset's name.   timestamps : (T,) days.
    Raises OversampleError after max_draws draws.
    """
    failed = 0
    for n_draws in range(1, max_draws + 1):
        params = source.draw(rng)
        observed = sky.dropout(rng, len(timestamps), config.missing_fraction)
        if source.caustic_crossing and source.kind == "binary":
            tau = (timestamps[observed] - params["t_0"]) / params["t_E"]
            if not lens.crosses_caustic(tau, *(params[name] for name in TRAJECTORY)):
                continue
        try:
            curve = source.curve(params)
        except lens.MagnificationError:
            failed += 1
            continue
        flux_true = true_flux(curve, params.get("t_0"), params.get("t_E"), params.get("f_s"), timestamps)
        flux = sky.observe(flux_true, params["m_base"], timestamps, rng, config, observed)
        known = observable_from(source.kind, params, timestamps[observed], flux_true[observed], config)
        status = STATUS_REDRAWN if failed else STATUS_NODES if isinstance(curve, tuple) else STATUS_ANALYTIC
        return Event(source.kind, params, flux, curve, status, n_draws, known)
    raise OversampleError(f"a {source.kind} event was not accepted within {max_draws} draws ({failed} failed "
                          f"magnifications) of preset {config.binary_preset}; widen the preset or raise --oversample.")


def observable_from(kind: str, params: dict, t, flux_true, config: SimulateConfig) -> Observability:
    """What an observer can know of an event whose noise-free flux at the observed epochs t (n,) is flux_true (n,)."""
    if kind == "flat" or len(t) < 2:
        return NEVER_OBSERVABLE
    sigma = sky.sigma_flux(flux_true, params["m_base"], config.detector, config.noise_scale)
    start = (params["t_0"], params["t_E"], max(params["u_0"], SMALLEST_START))
    return observability(t, flux_true, sigma, kind == "binary", start, limb_darkening=config.limb_darkening)
