"""The season as Roman sees it: epochs, pauses, dropout and detector noise.

    timestamps = epochs("roman", rng)          sigma_mag(21.0, "roman")          flux = observe(A_total, m_base, rng)

Photometric noise (shared definition, errors of a total flux in an aperture):

    N(m)      = EE t 10^(0.4 (ZP - m))                   [e-]
    sigma_F/F = sqrt((N + B)/N^2 + (0.001/1.0857)^2)     1 mmag systematic floor

Fluxes here are F/F_base: 1 is the baseline, whose magnitude is m_base (AB, F146).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MAG_PER_RELATIVE_FLUX = 2.5 / np.log(10.0)  # 1.0857
SYSTEMATIC_MAG = 0.001  # noise floor of the Penny+ 2019 table
SATURATION_MAG = 15.2  # one read is usable up to about this F146 AB magnitude (gulls; derived)


@dataclass(frozen=True)
class Detector:
    """Zero point (AB mag of 1 e-/s), exposure (s), encircled energy, and background + read variance (e-^2)."""

    zero_point: float
    exposure: float
    encircled_energy: float
    background: float
    source: str


# Each set reproduces the table named in `source`.
DETECTORS = {
    "penny2019": Detector(27.6146, 46.8, 0.8499, 3218.0, "Penny+ 2019 (mtpenny/wfirst-ml-figures, cycle6_snr_curve)"),
    "roman": Detector(27.584, 66.41, 0.637, 3536.0, "Pandeia-based S/N of McKinnon & van der Marel (arXiv:2602.00310)"),
    "crowded": Detector(27.584, 66.41, 0.76, 24700.0, "RMDC26 (gulls) median errors, the realistic crowded field"),
}

# The thesis' own noise, sigma_F = k sqrt(F + F_sky): 5 sigma at 27.5 AB under a sky of 22.0 AB. It is 7 to 10 times quieter
# than `roman` and is here only to compare with the thesis' published scores.
THESIS_LIMIT_MAG, THESIS_SKY_MAG = 27.5, 22.0


def relative_sigma(m, detector: str = "roman"):
    """sigma_F / F of a total magnitude m (AB).  m : any shape.  Source: Penny+ 2019, module docstring."""
    m = np.asarray(m, dtype=float)
    if detector == "thesis":
        flux, sky = 10 ** (-0.4 * (m - THESIS_LIMIT_MAG)), 10 ** (-0.4 * (THESIS_SKY_MAG - THESIS_LIMIT_MAG))
        k = 0.2 / np.sqrt(1.0 + sky)
        return k * np.sqrt(flux + sky) / flux
    d = _detector(detector)
    n = d.encircled_energy * d.exposure * 10 ** (0.4 * (d.zero_point - m))
    return np.sqrt((n + d.background) / n**2 + (SYSTEMATIC_MAG / MAG_PER_RELATIVE_FLUX) ** 2)


def sigma_mag(m, detector: str = "roman"):
    """Photometric error in magnitudes of a total AB magnitude m.

    m : any shape, mag.   Returns the same shape, mag.   Raises ValueError for an unknown detector.
    """
    return MAG_PER_RELATIVE_FLUX * relative_sigma(m, detector)


def sigma_flux(flux, m_base, detector: str = "roman", noise_scale: float = 1.0):
    """Error of F/F_base, given F/F_base itself.

    flux : (..., T), F/F_base.   m_base : (...,) mag.   Returns (..., T), F/F_base.
    Called with the true flux it is the noise that is drawn; with the measured flux it is the error that is reported.
    A flux below a hundredth of the baseline (possible in noise) gets the error of a hundredth: the background dominates there.
    """
    flux = np.maximum(np.asarray(flux, dtype=float), 0.01)
    m_base = np.asarray(m_base, dtype=float)[..., None]
    return noise_scale * flux * relative_sigma(m_base - 2.5 * np.log10(flux), detector)


def _detector(name: str) -> Detector:
    if name not in DETECTORS:
        raise ValueError(f"detector {name!r} is unknown; choose one of {', '.join([*DETECTORS, 'thesis'])}.")
    return DETECTORS[name]


# ---- the season ---------------------------------------------------------------------------------------------------------

CADENCE_ROMAN = 12.139 / 1440.0  # d (RMDC26 ephemerides)
SEASON_ROMAN = 70.7  # d
PAUSE = 6.2 / 24.0  # d, a pause of the high-cadence visits lasts 6.1 to 6.3 h (RMDC26 ephemerides)
FIXED_PAUSES = (0.99, 35.24, 69.49)  # d into the season, every season
MOVING_PAUSES = 4  # with the three above about 43.5 h a season


def epochs(schedule: str, seed: int = 0) -> np.ndarray:
    """Epochs (T,) of one season, days from its start.

    'thesis': 72 d every 15 min, 6912 epochs. 'roman': 70.7 d every 12.139 min without the pauses (they are absent, not masked):
    three recur every season, four are drawn from `seed`, one of those of 12.1 h. Source: RMDC26 ephemerides.
    Raises ValueError for an unknown schedule.
    """
    if schedule == "thesis":
        return np.arange(6912) / 96.0
    if schedule != "roman":
        raise ValueError(f"schedule {schedule!r} is unknown; choose 'thesis' or 'roman'.")
    t = np.arange(0.0, SEASON_ROMAN, CADENCE_ROMAN)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(77,)))
    # The moving pauses fall one into each quarter of the season between the fixed ones.
    edges = np.linspace(3.0, SEASON_ROMAN - 3.0, MOVING_PAUSES + 1)
    moving = edges[:-1] + rng.uniform(0.1, 0.9, MOVING_PAUSES) * np.diff(edges)
    keep = np.ones(len(t), dtype=bool)
    for start in (*FIXED_PAUSES, *moving):
        keep &= ~((t >= start) & (t < start + PAUSE))
    return t[keep]


def dropout(rng: np.random.Generator, n: int, missing_fraction: float) -> np.ndarray:
    """Which of n epochs are observed, (n,) bool: each is lost independently with probability missing_fraction."""
    return rng.random(n) >= missing_fraction


def draw_noise(rng: np.random.Generator, timestamps, sigma, *, correlated=0.0, timescale=1.0, outlier_fraction=0.0,
               outlier_size=10.0) -> np.ndarray:
    """Noise (T,) in flux for true errors sigma (T,) at timestamps (T,) days.

    White Gaussian noise; plus an Ornstein-Uhlenbeck process of `correlated` sigma and `timescale` days; plus, for a share
    `outlier_fraction` of the epochs, a Gaussian of `outlier_size` sigma. Both extras are off by default.
    """
    noise = rng.normal(size=len(sigma))
    if correlated > 0:
        steps, red = rng.normal(size=len(sigma)), np.empty(len(sigma))
        memory = np.exp(-np.diff(timestamps) / timescale)
        red[0] = steps[0]
        kick = np.sqrt(1 - memory**2)
        for i, (m, k) in enumerate(zip(memory, kick, strict=True), start=1):
            red[i] = m * red[i - 1] + k * steps[i]
        noise += correlated * red
    if outlier_fraction > 0:
        noise += (rng.random(len(sigma)) < outlier_fraction) * outlier_size * rng.normal(size=len(sigma))
    return noise * sigma
