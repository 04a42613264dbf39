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
