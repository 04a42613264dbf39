"""Stars whose light repeats: pulsation, eclipses, ellipsoidal stars, heartbeat stars, long-period variables, spots.

    flux = FLUX["pulsation"](params, t)          # (T,) F/F_base at t (T,) days, 1 in the mean

The first four repeat exactly: they are functions of the phase t/period + phase, and their mean over a period is 1. The
light of long-period variables and of spotted stars repeats approximately; the mean over a long time is 1. A seed in
the parameters fixes what is random in it. Parameters and units: microlens.config.VARIABLE_PARAMETERS.
"""

from __future__ import annotations

import numpy as np
from scipy.special import i0

from microlens.sky.noise import MAG_PER_RELATIVE_FLUX

N_PHASES = 2048  # phases at which a shape is computed; in between it is a straight line
N_HARMONICS = 8  # of a pulsating star: those beyond the third go on as the first three do
FALL = 0.85  # of the ratio of neighbouring harmonics' amplitudes, from each to the next: as in OGLE-BLG-RRLYR-03350
LIMB_DARKENING = 0.3  # linear coefficient of stars in H (Claret & Bloemen 2011: 0.2 to 0.4)
N_RINGS = 8  # discs of constant brightness that make up a limb-darkened star
ELLIPTICITY = 1.3  # of a star's light by the pull of its companion (Morris & Naftilan 1993, eq. 1; convective stars)
ALBEDO = 0.5  # bolometric, of a convective star (Rucinski 1969)
KEPLER_STEPS = 8  # of Newton's method; 1e-12 is reached for eccentricities to 0.8
N_LINES = 4  # lines of one period of a long-period variable, whose beats are the slow changes of its amplitude
LINE_WEIGHTS = np.array([0.8, 0.35, 0.35, 0.35])  # amplitudes of these lines; their squares add up to 1
N_SPOTS = 3
N_WAVES = 6  # of a smooth random function
SPOT_CONTRAST_SPREAD = 0.6  # standard deviation of the logarithm of a spot's size while it lives


def relative_flux(magnitude):
    """Flux over that of magnitude 0, any shape."""
    return np.exp(-np.asarray(magnitude) / MAG_PER_RELATIVE_FLUX)


def _on_phase(shape):
    """FLUX entry of a star whose light is a function of the phase, shape(params, phase (n,)) -> flux (n,) > 0."""
    def flux(params: dict, t) -> np.ndarray:
        grid = np.arange(N_PHASES) / N_PHASES
        values = shape(params, grid)
        values = np.append(values, values[0]) / values.mean()
        phase = (np.asarray(t) / params["period"] + params["phase"]) % 1.0
        return np.interp(phase, np.append(grid, 1.0), values)

    return flux


def fourier_coefficients(params: dict) -> np.ndarray:
    """Complex amplitudes (N_HARMONICS,) of the cosine series of magnitudes; the first is 1.

    The first three are R_21, phi_21, R_31, phi_31 (Simon & Lee 1981). Beyond them the step of phases from the second to
    the third harmonic goes on, and the ratio of their amplitudes falls by FALL from each to the next.
    """
    R_21, R_31 = params["R_21"], params["R_31"]
    ratio = min(R_31 / R_21, 1.0) if R_21 > 0 else 0.0
    more = np.arange(1, N_HARMONICS - 2)
    sizes = np.concatenate([[1.0, R_21, R_31], R_31 * np.cumprod(ratio * FALL**more)])
    step = params["phi_31"] - params["phi_21"]
    phases = np.concatenate([[0.0, params["phi_21"], params["phi_31"]], params["phi_31"] + more * step])
    return sizes * np.exp(1j * phases)


def pulsation(params: dict, phase) -> np.ndarray:
    """RR Lyrae stars, Cepheids, delta Scuti stars: a Fourier series of magnitudes of the given amplitude."""
    wave = np.exp(2j * np.pi * phase)
    series = np.real(np.polyval(np.append(fourier_coefficients(params)[::-1], 0.0), wave))
    return relative_flux(params["amplitude"] * series / np.ptp(series))


def true_anomaly(mean_anomaly, eccentricity: float):
    """True anomaly and distance over the semi-major axis, both (n,), of a Kepler orbit. mean_anomaly (n,) rad."""
    M = np.asarray(mean_anomaly, dtype=float)
    E = M + eccentricity * np.sin(M)
    for _ in range(KEPLER_STEPS):
        E = E - (E - eccentricity * np.sin(E) - M) / (1.0 - eccentricity * np.cos(E))
    nu = 2.0 * np.arctan2(np.sqrt(1 + eccentricity) * np.sin(E / 2), np.sqrt(1 - eccentricity) * np.cos(E / 2))
    return nu, 1.0 - eccentricity * np.cos(E)


def conjunction_anomaly(eccentricity: float, omega: float) -> float:
    """Mean anomaly, rad, at which the cooler star stands in front: true anomaly + omega = 90 deg."""
    nu = np.pi / 2 - omega
    E = 2.0 * np.arctan2(np.sqrt(1 - eccentricity) * np.sin(nu / 2), np.sqrt(1 + eccentricity) * np.cos(nu / 2))
    return float(E - eccentricity * np.sin(E))


def overlap(distance, a, b):
    """Area that two discs of radii a and b have in common when their centres are `distance` apart; arrays broadcast."""
    d = np.clip(distance, np.abs(a - b), a + b)
    d = np.maximum(d, 1e-12)
    along_a = np.clip((d**2 + a**2 - b**2) / (2 * d * a), -1, 1)
    along_b = np.clip((d**2 + b**2 - a**2) / (2 * d * b), -1, 1)
    kite = np.sqrt(np.maximum((a + b - d) * (d + a - b) * (d - a + b) * (d + a + b), 0.0)) / 2
    return a**2 * np.arccos(along_a) + b**2 * np.arccos(along_b) - kite


def hidden_share(distance, radius: float, by: float) -> np.ndarray:
    """Share (n,) of the light of a limb-darkened star that a disc of radius `by` at a distance (n,) hides.

    The star is N_RINGS concentric discs of constant brightness, of the linear law with LIMB_DARKENING.
    """
    radii = radius * np.sqrt(1 - (np.arange(N_RINGS) / N_RINGS) ** 2)
    weight = np.full(N_RINGS, LIMB_DARKENING / N_RINGS)
    weight[0] = 1 - LIMB_DARKENING  # the light at the limb
    light = (weight * np.pi * radii**2).sum()
    hidden = np.zeros(len(distance))
    touched = distance < radius + by
    hidden[touched] = (weight * overlap(distance[touched, None], radii, by)).sum(axis=1) / light
    return hidden


def eclipses(params: dict, phase) -> np.ndarray:
    """Eclipsing stars: two limb-darkened spheres, drawn out by tides, that shine on each other.

    Phase 0 is the middle of the primary eclipse, of the hotter star. Geometry: Hilditch (2001), chapter 5; the light of
    a tidally distorted star to first order: Morris & Naftilan (1993), 1 - ELLIPTICITY q r^3 sin^2 i cos 2 theta.
    """
    e, omega, J = params["eccentricity"], params["omega"], params["brightness_ratio"]
    r_1 = params["radius_sum"] / (1 + params["radius_ratio"])
    r_2 = params["radius_sum"] - r_1
    cos_i = params["impact"] * params["radius_sum"]
    sin2_i = 1 - cos_i**2
    nu, distance = true_anomaly(2 * np.pi * phase + conjunction_anomaly(e, omega), e)
    theta = nu + omega - np.pi / 2  # 0 where the cooler star is in front
    apart = distance * np.sqrt(1 - sin2_i * np.cos(theta) ** 2)
    in_front = np.cos(theta) > 0
    light_1, light_2 = r_1**2, J * r_2**2
    q = params["mass_ratio"]
    pulled = [1 - ELLIPTICITY * pull * (r / distance) ** 3 * sin2_i * np.cos(2 * theta)
              for pull, r in ((q, r_1), (1 / q, r_2))]
    hidden_1, hidden_2 = np.zeros(len(phase)), np.zeros(len(phase))
    hidden_1[in_front] = hidden_share(apart[in_front], r_1, r_2)
    hidden_2[~in_front] = hidden_share(apart[~in_front], r_2, r_1)
    lit = ALBEDO * (1 - np.sqrt(sin2_i) * np.cos(theta)) / 2 / distance**2  # share of the near side that faces us
    lit_2, lit_1 = lit * light_1 * r_2**2, (ALBEDO / distance**2 - lit) * light_2 * r_1**2
    flux_1 = (light_1 * pulled[0] + lit_1) * (1 - hidden_1)
    flux_2 = (light_2 * pulled[1] + lit_2) * (1 - hidden_2)
    return flux_1 + flux_2


def ellipsoid(params: dict, phase) -> np.ndarray:
    """Ellipsoidal stars: two equal maxima and two unequal minima in a period, the deeper one at phase 0."""
    theta = 2 * np.pi * phase
    magnitude = np.cos(2 * theta) / 2 + params["asymmetry"] * np.cos(theta) / 2
    return relative_flux(params["amplitude"] * magnitude / np.ptp(magnitude))


def heartbeat(params: dict, phase) -> np.ndarray:
    """Heartbeat stars: (1 - 3 sin^2 i cos^2(nu - omega))/(r/a)^3 (Kumar, Ao & Quataert 1995, eq. 44).

    Phase 0 is the periastron; omega is measured as there.
    """
    nu, distance = true_anomaly(2 * np.pi * phase, params["eccentricity"])
    form = (1 - 3 * np.sin(params["inclination"]) ** 2 * np.cos(nu - params["omega"]) ** 2) / distance**3
    return relative_flux(-params["amplitude"] * form / np.ptp(form))


def smooth_function(rng: np.random.Generator, timescale: float, t) -> np.ndarray:
    """A smooth random function (T,) of t (T,) days, of N_WAVES waves (Rahimi & Recht 2007).

    It has mean 0, variance 1 and in the mean over realisations the covariance exp(-(t/timescale)^2/2).
    """
    frequencies, phases = rng.standard_normal(N_WAVES) / timescale, rng.uniform(0, 2 * np.pi, N_WAVES)
    total = sum(np.cos(w * t + p) for w, p in zip(frequencies, phases, strict=True))
    return np.sqrt(2 / N_WAVES) * total


def modes(params: dict, t) -> np.ndarray:
    """Long-period variables: three periods, each of N_LINES close lines.

    The amplitude of a period is that of a sine wave of the same variance. The mean is that over all phases.
    """
    rng = np.random.default_rng(int(params["seed"]))
    magnitude, mean = np.zeros(len(t)), 1.0
    periods = (params["period"], params["period_2"], params["period_3"])
    sizes = (1.0, params["ratio_2"], params["ratio_3"])
    for period, size in zip(periods, sizes, strict=True):
        amplitudes = 0.5 * params["amplitude"] * size * LINE_WEIGHTS
        detuned = 1 + params["bandwidth"] * np.append(0.0, rng.standard_normal(N_LINES - 1))
        phases = rng.uniform(0, 2 * np.pi, N_LINES)
        if period == params["period"]:
            phases[0] = 2 * np.pi * params["phase"]
        for amplitude, factor, phase in zip(amplitudes, detuned, phases, strict=True):
            magnitude += amplitude * np.cos(2 * np.pi * factor / period * t + phase)
            mean *= i0(amplitude / MAG_PER_RELATIVE_FLUX)
    return relative_flux(magnitude) / mean


def spots(params: dict, t) -> np.ndarray:
    """Spotted stars: N_SPOTS cool spots that rotate with the star, grow and shrink within `duration` days.

    A spot at the longitude l dims the star by its size times max(0, cos(theta - l)), less the mean of that over a
    rotation. The sizes are such that one spot alone, at its usual size, has the star's amplitude divided by
    sqrt(N_SPOTS).
    """
    rng = np.random.default_rng(int(params["seed"]))
    turned = 2 * np.pi * (t / params["period"] + params["phase"])
    dimming = np.zeros(len(t))
    for longitude in rng.uniform(0, 2 * np.pi, N_SPOTS):
        size = np.exp(SPOT_CONTRAST_SPREAD * smooth_function(rng, params["duration"], t))
        dimming += size * (np.maximum(np.cos(turned - longitude), 0.0) - 1 / np.pi)
    return relative_flux(params["amplitude"] / np.sqrt(N_SPOTS) * dimming)


FLUX = {
    "pulsation": _on_phase(pulsation),
    "eclipses": _on_phase(eclipses),
    "ellipsoid": _on_phase(ellipsoid),
    "heartbeat": _on_phase(heartbeat),
    "modes": modes,
    "spots": spots,
}
"""{model: function of (params, t (T,) days) -> F/F_base (T,)}."""
