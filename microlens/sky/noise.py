"""Photometric errors of the detector, and light curves with noise.

    sigma_mag(21.0, "roman")          flux, usable = observe(flux_true, m_base, timestamps, rng, Noise())

Photometric noise (shared definition, errors of a total flux in an aperture):

    N(m)      = EE t 10^(0.4 (ZP - m))                   [e-]
    sigma_F/F = sqrt((N + B)/N^2 + (0.001/1.0857)^2)     1 mmag systematic floor

Fluxes here are F/F_base: 1 is the baseline, whose magnitude is m_base (AB, F146).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from microlens.config import Noise
from microlens.sky.season import dropout
from microlens.sky.terms import Epochs, disturb

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

# The set `thesis` is of another form, sigma_F = k sqrt(F + F_sky): 5 sigma at 27.5 AB under a sky of 22.0 AB. It is 7
# to 10 times quieter than `roman` and is here only to compare with the thesis' published scores.
THESIS_LIMIT_MAG, THESIS_SKY_MAG, THESIS_LIMIT_SIGMA = 27.5, 22.0, 5.0
FAINTEST = 0.01  # F/F_base below which the error is that of this flux: the background dominates there


def noise_variance(m_base, detector: str = "roman", noise_scale: float = 1.0):
    """Coefficients (a, b, c) of the flux variance sigma^2 = a + b F + c F^2, with F in units of the baseline flux.

    m_base : any shape, mag.   Returns three arrays of that shape: background, photon noise, systematic floor.
    The definition in the module docstring with N = F N(m_base), so that no magnitude of a noisy flux is ever needed.
    Raises ValueError for an unknown detector.
    """
    m_base = np.asarray(m_base, dtype=float)
    if detector == "thesis":
        flux, sky = 10 ** (-0.4 * (m_base - THESIS_LIMIT_MAG)), 10 ** (-0.4 * (THESIS_SKY_MAG - THESIS_LIMIT_MAG))
        k2 = THESIS_LIMIT_SIGMA**-2 / (1.0 + sky)
        a, b, c = k2 * sky / flux**2, k2 / flux, np.zeros_like(flux)
    elif detector not in DETECTORS:
        raise ValueError(f"detector {detector!r} is unknown; choose one of {', '.join([*DETECTORS, 'thesis'])}.")
    else:
        d = DETECTORS[detector]
        n = d.encircled_energy * d.exposure * 10 ** (0.4 * (d.zero_point - m_base))
        a, b, c = d.background / n**2, 1.0 / n, np.full_like(n, (SYSTEMATIC_MAG / MAG_PER_RELATIVE_FLUX) ** 2)
    return noise_scale**2 * a, noise_scale**2 * b, noise_scale**2 * c


def sigma_mag(m, detector: str = "roman"):
    """Photometric error in magnitudes of a total AB magnitude m.

    m : any shape, mag.   Returns the same shape, mag.   Raises ValueError for an unknown detector.
    """
    return MAG_PER_RELATIVE_FLUX * np.sqrt(sum(noise_variance(m, detector)))


def sigma_flux(flux, m_base, detector: str = "roman", noise_scale: float = 1.0):
    """Error of F/F_base, given F/F_base itself.

    flux : (..., T), F/F_base.   m_base : (...,) mag.   Returns (..., T), F/F_base.
    Called with the true flux it is the noise that is drawn; with the measured flux it is the error that is reported.
    A flux below FAINTEST (possible in noise) gets the error of FAINTEST.
    """
    flux = np.maximum(np.asarray(flux, dtype=float), FAINTEST)
    a, b, c = (x[..., None] for x in noise_variance(m_base, detector, noise_scale))
    return np.sqrt(a + flux * (b + c * flux))


QUIET = Noise()
"""Noise of the default detector."""


def draw_noise(rng: np.random.Generator, sigma) -> np.ndarray:
    """White Gaussian noise (T,) in flux for true errors sigma (T,)."""
    return rng.standard_normal(len(sigma)) * sigma


def observe(flux_true, m_base, timestamps, rng: np.random.Generator, noise: Noise = QUIET, observed=None,
            drawn: dict[str, float] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """One measured light curve: epochs are lost, then noise in flux is added.

    flux_true : (T,) F/F_base at timestamps (T,) days.   m_base : mag.
    observed : (T,) bool, which epochs are kept; drawn by `dropout` unless given.
    drawn : terms of noise beside white noise, as terms.draw_terms gives them.
    Returns flux (T,) float32, 0.0 = no observation, and which epochs (T,) an observer can use: neither lost ones nor
    those that a term of noise has spoilt (terms.Disturbance).
    """
    if observed is None:
        observed = dropout(rng, len(timestamps), noise.missing_fraction)
    sigma = sigma_flux(flux_true, m_base, noise.detector, noise.noise_scale)
    white, usable = draw_noise(rng, sigma), observed
    flux = flux_true + white
    if drawn:
        electrons = 1 / float(noise_variance(m_base, noise.detector)[1])
        disturbance = disturb(drawn, Epochs(timestamps, flux_true, sigma, white, electrons), rng)
        flux, usable = flux + disturbance.flux, observed & ~disturbance.spoilt
    flux = flux.astype(np.float32)
    flux[flux == 0] = np.finfo(np.float32).tiny  # 0.0 is reserved for "no observation"
    flux[~observed] = 0.0
    return flux, usable
