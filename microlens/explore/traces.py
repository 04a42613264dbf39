"""What the explorers draw, as arrays (m, 2) by the name of the trace in panels.curves().

    put(panel, plane_traces(plane) | light_curve_traces(t, flux, residual, single, drawn))
"""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from microlens.config import CLASSES
from microlens.data import time_since_last
from microlens.fit.points import epochs_to_draw
from microlens.lens.expansion import new_scratch
from microlens.lens.limb import point_magnification
from microlens.lens.plane import LensPlane

NOTHING = np.empty((0, 2))
PLANE = ("caustics", "critical curves", "lenses", "trajectory", "direction", "source")
PROBABILITIES = tuple(f"P({c})" for c in CLASSES)
LOOKS = ("lenses", "caustics", "source")
"""What the lens plane may show: the lenses with all their curves, the caustics, or the source to scale."""
LEAST_FLUX = 1e-2  # F/F_base; noise below it is drawn there, because the axis is logarithmic
SMOOTH_STEPS, NOISY_STEPS = 220, 500  # steps of time of a light curve whose noise-free form is known, and of another
LINE_STEPS, PROBABILITY_STEPS = 100, 150  # steps of time of a smooth line, and of the probabilities
MARGIN, SOURCE_MARGIN = 1.2, 6.0  # width of a view / extent of what it shows; of the source / its diameter
LONGEST_PATH = 4.0  # Einstein times from t_0 to which a trajectory is drawn
PATH_POINTS = 81
MOST_IN_VIEW = 1500  # epochs that are drawn of the part of a season to which the user has zoomed
LINEAR_SIGMAS = 10.0  # standard deviations up to which the axis of the residual is linear
BIN = 0.25  # d, of the binned residual: between the length of a planetary anomaly and that of an event
BINNED = "mean of 6 h, in its own sigma"  # the trace of the binned residual
STRONG = 0.1  # of the largest squared significance; an anomaly ends where it is below
STANDS_OUT = 20.0  # least sum of what is beyond the usual; the 290 bins of a season of noise stay below it
USUAL = 4.0  # squared significance of a bin; noise stays below it in 95 % of the bins
MAGNITUDE_STEPS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
RESIDUAL_STEPS = ((5, (2, 5)), (30, (5, 10)), (1000, (10, 100, 1000)), (np.inf, (100, 10_000, 1_000_000)))
"""The largest residual in standard deviations for which the axis has these ticks on either side of 0."""
FLUX_DIGITS = ((1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,))  # of the ticks in each decade, as many as find room
MOST_TICKS = 6  # of the axis of flux
MAP_PIXELS, MAP_BRIGHTEST, MAP_GREY, MAP_COVER = 91, 100.0, 110, 200
"""Pixels on a side of the map, magnification of its most covered pixel, its grey and its largest cover (of 255)."""


def log_flux(flux):
    """Natural logarithm of a flux (n,) as it is drawn."""
    return np.log(np.maximum(flux, LEAST_FLUX))


def season_tau(params: dict, t) -> np.ndarray:
    """Einstein times (PATH_POINTS,) of the trajectory of an event that is observed at t (n,) days."""
    first, last = ((t[i] - params["t_0"]) / params["t_E"] for i in (0, -1))
    return np.linspace(max(first, -LONGEST_PATH), min(last, LONGEST_PATH), PATH_POINTS)


def _joined(curves) -> np.ndarray:
    """Closed curves as one (m, 2) array with gaps of NaN between them."""
    return np.vstack([np.vstack([c, [np.nan, np.nan]]) for c in curves])


def plane_traces(plane: LensPlane) -> dict:
    """The traces of a lens plane without the arrow, whose place depends on the view; see `view_of`."""
    return {"caustics": _joined(plane.caustics), "critical curves": _joined(plane.critical_curves),
            "lenses": plane.lenses, "trajectory": plane.trajectory, "source": plane.source}


def view_of(plane: LensPlane, look: str) -> tuple[dict, dict]:
    """The trace of the arrow along the trajectory and the ranges of the axes, for panels.put.   look : one of LOOKS."""
    shown = {"lenses": [*plane.critical_curves, *plane.caustics, plane.lenses], "caustics": plane.caustics,
             "source": [plane.source]}[look]
    xy = np.vstack(shown)
    low, high = xy.min(axis=0), xy.max(axis=0)
    margin = SOURCE_MARGIN if look == "source" else MARGIN
    centre, half = (low + high) / 2, max(margin * (high - low).max() / 2, 1e-6)
    # The arrow stands ahead of the middle of the view, where it hides neither source nor caustics.
    arrow = plane.arrow(centre + 0.45 * half * plane.direction, length=0.05 * half)
    x, y = ([float(c - half), float(c + half)] for c in centre)
    return {"direction": arrow}, {"xaxis__range": x, "yaxis__range": y}


def epochs_in_view(t, y, residual=None, window=None, time_steps=SMOOTH_STEPS) -> np.ndarray:
    """Indices of the epochs to draw of a curve y (T,): those of the whole season, and within `window`, the times to
    which the user has zoomed, all of them or, where they are too many, as fine a choice as of a season.

    residual : (T,), in standard deviations.   time_steps : see epochs_to_draw.
    """
    drawn = epochs_to_draw(t, y, residual, time_steps)
    if window is None:
        return drawn
    inside = np.flatnonzero((t >= window[0]) & (t <= window[1]))
    if len(inside) > MOST_IN_VIEW:
        chosen = epochs_to_draw(t[inside], y[inside], None if residual is None else residual[inside], MOST_IN_VIEW // 2)
        inside = inside[chosen]
    return np.union1d(drawn, inside)


def drawn_words(t, drawn, window=None) -> str:
    """How many of the epochs t (T,) are drawn, for the title of the time axis."""
    low, high = window or (-np.inf, np.inf)
    n_all, n_drawn = (int(((x >= low) & (x <= high)).sum()) for x in (t, t[drawn]))
    where = " in view" if window else ""
    if n_drawn == n_all:
        return f"all {n_all} epochs{where} are drawn"
    return f"{n_drawn} of {n_all} epochs{where} are drawn; a zoom draws more"


def symlog(sigmas):
    """Where a residual (n,) in standard deviations is drawn: linear up to LINEAR_SIGMAS, logarithmic beyond."""
    size = np.abs(sigmas) / LINEAR_SIGMAS
    return np.sign(sigmas) * np.where(size <= 1, size, 1 + np.log10(np.maximum(size, 1)))


def residual_ticks(sigmas, binned) -> dict:
    """Ticks of the axis of a residual (n,) and of its bins (m,), as changes of the layout for panels.put."""
    largest = np.abs(np.concatenate([sigmas, binned])).max(initial=1.0)
    steps = next(steps for most, steps in RESIDUAL_STEPS if largest <= most)
    ticks = np.array([*(-x for x in reversed(steps)), 0, *steps], dtype=float)
    return {"yaxis3__tickvals": symlog(ticks).tolist(), "yaxis3__ticktext": [f"{x:g}" for x in ticks]}


def brightness_ticks(low: float, high: float, m_base: float | None = None) -> dict:
    """Ticks and title of the logarithmic axis of flux from `low` to `high`, as changes of the layout for panels.put.

    m_base : magnitude of the baseline, for an axis in magnitudes; None for one in units of the baseline flux.
    """
    low = max(low, LEAST_FLUX)
    high = max(high, 1.001 * low)
    if m_base is not None:
        span = 2.5 * np.log10(high / low)
        step = next(step for step in MAGNITUDE_STEPS if span / step <= MOST_TICKS or step == MAGNITUDE_STEPS[-1])
        faintest, brightest = (m_base - 2.5 * np.log10(x) for x in (low, high))
        marks = step * np.arange(np.ceil(brightest / step), np.floor(faintest / step) + 1)
        values, words, title = 10 ** (-0.4 * (marks - m_base)), [f"{m:.4g}" for m in marks], "magnitude"
    else:
        title = "flux / baseline"
        decades = np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
        for digits in FLUX_DIGITS:
            values = np.sort(np.concatenate([10**decades * digit for digit in digits]))
            values = values[(values >= 0.999 * low) & (values <= 1.001 * high)]
            if len(values) <= MOST_TICKS:
                break
        if len(values) < 2:  # less than a factor of two
            values = np.unique([float(f"{x:.3g}") for x in np.linspace(low, high, 4)])
        words = [f"{x:g}" for x in values]
    return {"yaxis2__tickvals": values.tolist(), "yaxis2__ticktext": words, "yaxis2__title__text": title}


def binned_residual(t, residual) -> np.ndarray:
    """The mean of a residual (n,), in sigma, in bins of BIN days, in units of its own standard deviation.

    Returns (m, 3): mean time of each bin, where it is drawn, and the value. A slow deviation that every epoch hides in
    its noise stands out here.
    """
    if not len(t):
        return np.empty((0, 3))
    _, number = np.unique(np.floor((t - t[0]) / BIN).astype(int), return_inverse=True)
    n = np.bincount(number)
    value = np.bincount(number, residual) / np.sqrt(n)
    return np.column_stack([np.bincount(number, t) / n, symlog(value), value])


def anomaly_window(t, residual) -> tuple[float, float] | None:
    """First and last time of the part of a light curve that deviates most from its best single lens.

    It is the run of bins whose squared significance exceeds what is usual there by the most in all, with a third of its
    length on either side. None where nothing stands out of the noise.
    """
    bins = binned_residual(t, residual)
    squared = bins[:, 2] ** 2
    excess = squared - max(USUAL, STRONG * squared.max(initial=0.0))
    sums = np.concatenate([[0.0], np.cumsum(excess)])  # what a run has in all is the difference of two of these
    gains = sums - np.minimum.accumulate(sums)
    end = gains.argmax()
    if gains[end] < STANDS_OUT:
        return None
    low, high = bins[sums[:end].argmin(), 0], bins[end - 1, 0]
    around = (high - low) / 3 + BIN
    return float(low - around), float(high + around)


def light_curve_traces(t, flux, residual, single, drawn, lens=None) -> dict:
    """Measured flux, best single lens and residual. t, flux, residual (sigma), single : (n,).

    drawn : which epochs to draw.   lens : (n,), the flux of the binary lens that is drawn over them, optional.
    """
    line = epochs_to_draw(t, log_flux(single), time_steps=LINE_STEPS)
    return {"light curve": np.column_stack([t, np.maximum(flux, LEAST_FLUX)])[drawn],
            "binary lens": NOTHING if lens is None else np.column_stack([t, np.maximum(lens, LEAST_FLUX)])[drawn],
            "best single lens": np.column_stack([t, single])[line],
            "residual": np.column_stack([t, symlog(residual), residual])[drawn],
            BINNED: binned_residual(t, residual)}


def magnification_image(x_range, y_range, s: float, q: float) -> dict:
    """A map of the magnification of a point source behind the lens plane, as an image of plotly's layout.

    It is grey with the more cover the larger log A is, so that it suits light and dark grounds.
    """
    xs, ys = (np.linspace(low, high, MAP_PIXELS) for low, high in (x_range, y_range))
    scratch = new_scratch(s)
    magnification = np.array([[point_magnification(x, y, s, q, scratch) for x in xs] for y in ys])
    cover = np.log10(np.clip(magnification, 1.0, MAP_BRIGHTEST)) / np.log10(MAP_BRIGHTEST)
    grey = np.full((MAP_PIXELS, MAP_PIXELS, 2), MAP_GREY, dtype=np.uint8)
    grey[::-1, :, 1] = (MAP_COVER * np.nan_to_num(cover, nan=1.0)).astype(np.uint8)  # the first row is the topmost
    png = io.BytesIO()
    Image.fromarray(grey).save(png, "PNG", compress_level=1)
    return {"source": "data:image/png;base64," + base64.b64encode(png.getvalue()).decode(),
            "xref": "x", "yref": "y", "x": x_range[0], "y": y_range[1], "sizex": x_range[1] - x_range[0],
            "sizey": y_range[1] - y_range[0], "sizing": "stretch", "layer": "below"}


def probability_traces(network, curve) -> dict:
    """Class probabilities after each step of a causal network along a season_view.Curve."""
    flux = np.asarray(curve.flux, dtype=np.float32)[None]
    delta_t = time_since_last(curve.t, flux) if curve.delta_t is None else curve.delta_t[None]
    step = network.stem_stride
    p = np.exp(network.log_prob_prefixes(flux, delta_t))[0, step - 1 :: step]
    t = curve.t[step - 1 :: step]
    change = np.abs(np.diff(p, axis=0, prepend=p[:1])).max(axis=1)
    keep = epochs_to_draw(t, np.cumsum(change), time_steps=PROBABILITY_STEPS)
    return {name: np.column_stack([t, column])[keep] for name, column in zip(PROBABILITIES, p.T, strict=False)}
