"""Stars that brighten now and then: dwarf novae, flares, outbursts of Be stars; and slow trends.

    flux = FLUX["flares"](params, t)          # (T,) F/F_base at t (T,) days, 1 in quiescence; a trend's mean is 1

Outbursts are numbered through all time and each has a random stream of its own, so a curve is a function of its
parameters and of the time alone. Parameters and units: microlens.config.VARIABLE_PARAMETERS.
"""

from __future__ import annotations

import numpy as np
from scipy.special import i0

from microlens.sky.noise import MAG_PER_RELATIVE_FLUX
from microlens.sky.periodic import N_WAVES, relative_flux, smooth_function

JITTER = 0.2  # standard deviation of the time of an outburst, in times between outbursts; cut at twice that
RISE = 0.12  # of a dwarf nova's outburst: share of its duration, from quiescence to maximum (Warner 2003: about a day)
DECAY = 0.4  # share of its duration that the decline from the plateau to quiescence takes
PLATEAU_SLOPE = 0.03  # mag/d, decline of the plateau
CORNER = 0.06  # of the amplitude: how far the corners of an outburst are rounded
SUPER_BRIGHTER, SUPER_LONGER = 0.6, 2.0  # mag, and factor on the duration, of a super-outburst (Warner 2003)
SUPERHUMP_PERIOD, SUPERHUMP = 0.065, 0.1  # d and mag: waves on a super-outburst (Kato et al. 2009: 0.06 to 0.08 d)
AMPLITUDE_SPREAD = 0.15  # relative scatter of the amplitudes of a star's outbursts
DISC_REACH = 25.0  # decay times after which a Be outburst is over: 1e-11 of it is left
DISC_RISE = 0.15  # time scale of a Be outburst's rise over that of its decay
FLARE_BLOCK = 10.0  # d of which the flares are drawn from one random stream
LONGEST_FLARE = 30.0  # widths at half height after which a flare is over: 1e-4 of its peak is left
# The template of Davenport et al. (2014), eqs. 1 and 4; time in widths at half height, flux in units of the peak.
FLARE_RISE = (1.0, 1.941, -0.175, -2.246, -1.125)
FLARE_DECAY = ((0.6890, 1.600), (0.3030, 0.2783))


def _outburst_streams(params: dict, t, before: float):
    """(start, random stream) of each outburst that may be seen at t (T,) days.

    Outburst k begins about (k + phase) periods after time 0.   before : days that an outburst lasts at the most.
    """
    period, reach = params["period"], 2 * JITTER
    first = int(np.floor((t[0] - before) / period - params["phase"] - reach))
    last = int(np.ceil(t[-1] / period - params["phase"] + reach))
    for k in range(first, last + 1):
        rng = np.random.default_rng([int(params["seed"]), k % 2**32])
        late = np.clip(JITTER * rng.standard_normal(), -reach, reach)
        yield (k + params["phase"] + late) * period, rng


def outburst_magnitudes(t, amplitude: float, duration: float) -> np.ndarray:
    """Magnitudes above quiescence, (T,) >= 0, of an outburst that begins at time 0; t (T,) days.

    The magnitude rises in a straight line, declines slowly on a plateau and then in a straight line, an exponential
    decay of the flux. Its corners are rounded.
    """
    rise = amplitude * t / (RISE * duration)
    plateau = amplitude - PLATEAU_SLOPE * (t - RISE * duration)
    decay = amplitude * (duration - t) / (DECAY * duration)
    corner = CORNER * amplitude
    lines = -np.stack([rise, plateau, decay]) / corner
    return np.maximum(-corner * np.logaddexp.reduce(lines, axis=0), 0.0)


def outbursts(params: dict, t) -> np.ndarray:
    """Dwarf novae: normal outbursts and, as `super_share` of them, longer and brighter super-outbursts with superhumps.

    duration : of a normal outburst.
    """
    excess = np.zeros(len(t))
    for start, rng in _outburst_streams(params, t, SUPER_LONGER * params["duration"]):
        amplitude = params["amplitude"] * np.exp(AMPLITUDE_SPREAD * rng.standard_normal())
        is_super, duration = rng.random() < params["super_share"], params["duration"]
        if is_super:
            amplitude, duration = amplitude + SUPER_BRIGHTER, SUPER_LONGER * duration
        here = slice(*np.searchsorted(t, (start, start + duration)))
        if here.start == here.stop:
            continue
        since = t[here] - start
        magnitude = outburst_magnitudes(since, amplitude, duration)
        if is_super:
            hump = np.maximum(np.cos(2 * np.pi * since / SUPERHUMP_PERIOD), -0.5)
            magnitude = np.maximum(magnitude + SUPERHUMP * hump * magnitude / amplitude, 0.0)
        excess[here] += relative_flux(-magnitude) - 1
    return 1 + excess


def discs(params: dict, t) -> np.ndarray:
    """Be stars: matter thrown into a disc brightens the star and is lost again, as exp(-t/duration) - exp(-t/rise).

    The mean of an outburst's peak is the amplitude.
    """
    decay, rise = params["duration"], DISC_RISE * params["duration"]
    at_peak = decay * rise / (decay - rise) * np.log(decay / rise)
    peak = np.exp(-at_peak / decay) - np.exp(-at_peak / rise)
    excess = np.zeros(len(t))
    for start, rng in _outburst_streams(params, t, DISC_REACH * decay):
        size = (relative_flux(-params["amplitude"]) - 1) * np.exp(AMPLITUDE_SPREAD * rng.standard_normal())
        since = t[np.searchsorted(t, start) :] - start
        excess[len(t) - len(since) :] += size * (np.exp(-since / decay) - np.exp(-since / rise)) / peak
    return 1 + excess


def flare_template(x) -> np.ndarray:
    """Flux of a flare over its peak (Davenport et al. 2014), x (n,): time since the peak in widths at half height."""
    rise = np.polyval(FLARE_RISE[::-1], np.clip(x, -1.0, 0.0))
    decay = sum(a * np.exp(-b * np.maximum(x, 0.0)) for a, b in FLARE_DECAY)
    return np.where(x < -1.0, 0.0, np.where(x < 0.0, rise, decay))


def flares_between(params: dict, first: float, last: float) -> np.ndarray:
    """Flares of a star from `first` to `last` days: (n, 3), time of the peak (d), width at half height (d), peak.

    A Poisson process of one flare in `period` days; widths and peaks are log-normal about `duration` and `amplitude`.
    """
    made = []
    for block in range(int(np.floor(first / FLARE_BLOCK)), int(np.floor(last / FLARE_BLOCK)) + 1):
        rng = np.random.default_rng([int(params["seed"]), block % 2**32])
        n = rng.poisson(FLARE_BLOCK / params["period"])
        peak = (block + rng.random(n)) * FLARE_BLOCK
        width = params["duration"] * 10 ** (params["duration_scatter"] * rng.standard_normal(n))
        height = params["amplitude"] * 10 ** (params["amplitude_scatter"] * rng.standard_normal(n))
        made.append(np.column_stack([peak, width, height]))
    return np.concatenate(made)


def flares(params: dict, t) -> np.ndarray:
    """Flaring M dwarfs: flares at random moments, each of the template of Davenport et al. (2014)."""
    flux = np.ones(len(t))
    for peak, width, height in flares_between(params, t[0] - FLARE_BLOCK, t[-1] + FLARE_BLOCK):
        here = slice(*np.searchsorted(t, (peak - width, peak + LONGEST_FLARE * width)))
        flux[here] += height * flare_template((t[here] - peak) / width)
    return flux


def trend(params: dict, t) -> np.ndarray:
    """Slow irregular changes: a smooth Gaussian process of magnitudes; the mean over all phases of its waves is 1."""
    rng = np.random.default_rng(int(params["seed"]))
    magnitude = params["amplitude"] * smooth_function(rng, params["period"], t)
    mean = i0(params["amplitude"] * np.sqrt(2 / N_WAVES) / MAG_PER_RELATIVE_FLUX) ** N_WAVES
    return relative_flux(magnitude) / mean


FLUX = {"outbursts": outbursts, "discs": discs, "flares": flares, "trend": trend}
"""{model: function of (params, t (T,) days, ascending) -> F/F_base (T,)}."""
