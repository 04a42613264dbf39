"""One event, from its parameters to its measured light curve: the one recipe of simulated and of fresh events.

    event = make_event(preset_source(preset, "binary", timestamps, config), config, timestamps, rng, max_draws=20)
    flux_true = true_flux(curve, t_0, t_E, f_s, timestamps)

A magnification curve is None for a flat event, the u_0 of a point-source single lens, or nodes (tau, log A) in Einstein
times, from which `true_flux` draws the event at any t_0 and t_E; with parallax, at its own alone. In its place a
variable star, of class other, has a VariableStar.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from microlens import lens, sky
from microlens.config import BINARY, VARIABLE_STARS, Noise, SimulateConfig
from microlens.data.format import STATUS_ANALYTIC, STATUS_NODES, STATUS_REDRAWN
from microlens.data.photometry import QuietSeason
from microlens.fit import NEVER_OBSERVABLE, Correlation, Observability, observability, observable_label

WHOLE = 0.99 * lens.REACH  # Einstein times on either side of the peak to which a whole curve reaches
ROUNDING = 1e-6  # Einstein times by which an epoch may lie beyond the ends of a curve
SMALLEST_START = 1e-3  # u_0, Einstein radii, from which the fit of a single lens starts at the least


class OversampleError(RuntimeError):
    """Fewer events accepted than asked for within the permitted draws."""


class Source(NamedTuple):
    """Where the events of one class come from.

    draw(rng) : parameters by name, t_0 in days.   curve(params) : their magnification curve, or MagnificationError.
    preset : whose condition a binary has to meet, and which says whether single lenses have parallax, and the noise.
    """

    kind: str
    draw: Callable[[np.random.Generator], dict]
    curve: Callable[[dict], tuple | float | None]
    preset: sky.Preset


class Event(NamedTuple):
    """One event.

    params : by name, t_0 in days.   flux : (T,) float32, measured F/F_base, 0.0 = no observation.
    curve : see the module docstring.   status : see format.STATUS.   noise : its terms beside white noise, as
    sky.draw_terms gives them.   error : (T,) of an event in real photometry; None where it follows from the detector.
    """

    kind: str
    params: dict
    flux: np.ndarray
    curve: tuple | float | None
    status: int
    n_draws: int
    observability: Observability
    noise: dict
    error: np.ndarray | None = None


def preset_source(preset: sky.Preset, kind: str, timestamps, config: SimulateConfig) -> Source:
    """Events of class `kind` of a preset, with curves computed for a season of epochs timestamps (T,) days.

    config : limb darkening, and the share of single lenses with two sources.
    """
    season = sky.season_length(timestamps)
    window = float(timestamps[0]), float(timestamps[-1])

    def draw(rng):
        if kind == "other":
            return sky.draw_other(preset, rng, season)
        return sky.draw(preset, kind, rng, season, config.two_sources)

    def curve(params):
        if is_star(params):
            return sky.VariableStar(params)
        return magnification_curve(kind, params, preset.field, window, config.limb_darkening)

    return Source(kind, draw, curve, preset)


def is_star(params: dict) -> bool:
    """Whether an event with these parameters is a variable star, and no lens."""
    return params.get("subclass") in VARIABLE_STARS


def magnification_curve(kind: str, params: dict, field: lens.Field, window: tuple, limb_darkening: float = 0.0):
    """The magnification curve of an event of class `kind` with these parameters.

    It is the whole curve, which can be drawn at any t_0 and t_E, or, where it has parallax, that of the season from
    window[0] to window[1] days.
    Raises MagnificationError where a magnification is not known to its tolerance.
    """
    if kind == "flat":
        return None
    parallax = lens.event_parallax(params, field)
    if kind == "binary":
        track = source_track(params, params["alpha"], parallax, window)
        limits = season_limits(params, parallax, window, lens.REACH + params["s"])
        return lens.nodes_along(track, params["rho"], params["s"], params["q"], *limits, limb_darkening=limb_darkening)
    if params["rho"] == 0 and params["q_F"] == 0 and parallax is None:
        return params["u_0"]
    sources = lensed_sources(params, parallax, window)
    reach = lens.REACH + max(abs(source.late) for source in sources)
    return lens.single_nodes_along(sources, *season_limits(params, parallax, window, reach),
                                   limb_darkening=limb_darkening)


def source_track(params: dict, alpha: float, parallax: lens.Parallax | None, window: tuple) -> lens.Track:
    """The path of the source; one with parallax is right from window[0] to window[1] days."""
    if parallax is None:
        return lens.straight_track(params["u_0"], alpha)
    return lens.bent_track(params["t_0"], params["u_0"], params["t_E"], alpha, parallax, *window)


def lensed_sources(params: dict, parallax: lens.Parallax | None, window: tuple) -> list[lens.LensedSource]:
    """The one or two sources of a single lens."""
    q_F = params["q_F"]
    first = lens.LensedSource(source_track(params, 0.0, parallax, window), 0.0, params["rho"], 1 / (1 + q_F))
    if q_F == 0:
        return [first]
    late = second_is_late(params)
    second = params | {"t_0": params["t_0_2"], "u_0": params["u_0_2"]}
    track = source_track(second, 0.0, parallax, window)
    return [first, lens.LensedSource(track, late, params["rho_2"], q_F / (1 + q_F))]


def second_is_late(params: dict) -> float:
    """Einstein times by which the second source's t_0 is later than that of the first."""
    return (params["t_0_2"] - params["t_0"]) / params["t_E"]


def season_limits(params: dict, parallax: lens.Parallax | None, window: tuple, reach: float) -> tuple[float, float]:
    """Einstein times between which a curve is kept: `reach` on either side; with parallax, those of the season alone.

    Beyond `reach` no lens bends the light by more than a known power of the distance.
    """
    if parallax is None:
        return -reach, reach
    first, last = ((t - params["t_0"]) / params["t_E"] for t in window)
    if last <= -reach or first >= reach:  # the event is not in the season
        return -reach, reach
    return max(first, -reach), min(last, reach)


def true_flux(curve, t_0, t_E, f_s, timestamps) -> np.ndarray:
    """Noise-free F/F_base (T,) at timestamps (T,) days of a magnification curve.

    t_0, t_E : days.   f_s : share of the baseline flux that is lensed, or varies.   For a flat curve the three do not
    count, for a variable star t_0 and t_E.
    Raises ValueError for epochs at which a curve with parallax is not known.
    """
    if curve is None:
        return np.ones(len(timestamps))
    if isinstance(curve, sky.VariableStar):
        return 1.0 + f_s * (curve.flux(timestamps) - 1.0)
    if isinstance(curve, (float, int)):
        magnification = lens.pspl(timestamps, t_0, curve, t_E)
    else:
        tau = (timestamps - t_0) / t_E
        first, last = curve[0][0] - ROUNDING, curve[0][-1] + ROUNDING
        if (tau[0] < first and first > -WHOLE) or (tau[-1] > last and last < WHOLE):
            raise ValueError("a curve with parallax is kept for its own season alone, "
                             f"{first:.3g} to {last:.3g} Einstein times; came {tau[0]:.3g} to {tau[-1]:.3g}. Give its "
                             "own t_0 and t_E.")
        magnification = lens.render(*curve, tau)
    return 1.0 + f_s * (magnification - 1.0)


def render_event(curve, t_0, t_E, f_s, m_base, timestamps, rng: np.random.Generator, noise: Noise = sky.QUIET,
                 drawn: dict[str, float] | None = None):
    """A measured light curve of a known magnification curve: any t_0, t_E, blending, brightness, epochs and noise.

    curve : see the module docstring, as Dataset.curve gives it.   t_0, t_E : days.   f_s : lensed share of the baseline
    flux.   m_base : mag.   timestamps : (T,) days.   drawn : terms of noise beside white noise, as sky.draw_terms draws
    them of a preset's and Dataset.noise_terms gives them.
    Returns flux (T,) float32, 0.0 = no observation, and flux_true (T,) float64, both F/F_base.
    """
    flux_true = true_flux(curve, t_0, t_E, f_s, timestamps)
    flux, _ = sky.observe(flux_true, m_base, timestamps, rng, noise, drawn=drawn)
    return flux, flux_true


def make_event(source: Source, config: SimulateConfig, timestamps, rng: np.random.Generator, max_draws: int,
               star: QuietSeason | None = None) -> Event:
    """Draw one event until it meets the condition of its source and the lens library answers.

    config : noise, limb darkening and preset's name.   timestamps : (T,) days.   star : real photometry with these
    epochs, which the event is put into; it then has the noise of the photometry and none of the configuration's.
    Raises OversampleError after max_draws draws.
    """
    failed = 0
    for n_draws in range(1, max_draws + 1):
        params = source.draw(rng)
        observed = sky.dropout(rng, len(timestamps), config.missing_fraction if star is None else 0.0)
        if source.preset.caustic_crossing and source.kind == "binary":
            if not meets_caustic(params, timestamps[observed], source.preset.field):
                continue
        try:
            curve = source.curve(params)
        except lens.MagnificationError:
            failed += 1
            continue
        flux_true = true_flux(curve, params.get("t_0"), params.get("t_E"), params.get("f_s"), timestamps)
        field = source.preset.field if source.preset.has_parallax else None
        status = STATUS_REDRAWN if failed else STATUS_NODES if isinstance(curve, tuple) else STATUS_ANALYTIC
        if star is None:
            drawn, error = sky.draw_terms(source.preset.noise, rng), None
            flux, usable = sky.observe(flux_true, params["m_base"], timestamps, rng, config, observed, drawn)
        else:
            params["m_base"], drawn, usable = star.m_base, {}, slice(None)
            flux, error = star.injected(flux_true)
        known = observable_from(source.kind, params, timestamps[usable], flux_true[usable], config, field, drawn, error)
        if source.kind == "binary" and source.preset.observable_binaries:
            if observable_label(BINARY, known.delta_chi2_flat, known.delta_chi2_pspl) != BINARY:
                continue
        return Event(source.kind, params, flux.astype(np.float32), curve, status, n_draws, known, drawn, error)
    raise OversampleError(f"a {source.kind} event was not accepted within {max_draws} draws ({failed} failed "
                          f"magnifications) of preset {config.binary_preset}; widen the preset or raise --oversample.")


def meets_caustic(params: dict, t, field: lens.Field) -> bool:
    """Whether the source disc of a binary meets a caustic at one of the epochs t (n,), days."""
    track = source_track(params, params["alpha"], lens.event_parallax(params, field), (t[0], t[-1]))
    tau = (t - params["t_0"]) / params["t_E"]
    return lens.crosses_caustic(tau, track, params["rho"], params["s"], params["q"])


def observable_from(kind: str, params: dict, t, flux_true, config: SimulateConfig, field: lens.Field | None,
                    drawn: dict[str, float] | None = None, sigma=None) -> Observability:
    """What an observer can know of an event whose noise-free flux at the usable epochs t (n,) is flux_true (n,).

    field : for single lenses with parallax; None for those without.   drawn : the terms of its noise beside white
    noise, which delta chi^2 takes as sky.known_noise says.   sigma : (n,) white errors where they are not the
    detector's.
    """
    if kind == "flat" or len(t) < 2:
        return NEVER_OBSERVABLE
    known = sky.known_noise(drawn or {})
    if sigma is None:
        sigma = known.white * sky.sigma_flux(flux_true, params["m_base"], config.detector, config.noise_scale)
    correlation = Correlation(known.amplitude / known.white, known.time) if known.amplitude else None
    is_compared = kind != "pspl" and not is_star(params)
    start = None if is_star(params) else fit_start(params)
    return observability(t, flux_true, sigma, is_compared, start, config.limb_darkening, field, correlation)


def fit_start(params: dict) -> tuple:
    """Where the fit of a single lens to an event with these parameters starts: t_0, t_E, u_0, pi_EN, pi_EE."""
    return params["t_0"], params["t_E"], max(abs(params["u_0"]), SMALLEST_START), params["pi_EN"], params["pi_EE"]
