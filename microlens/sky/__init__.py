"""What is before the telescope: which events there are, when they are seen, and with what errors.

population   presets: priors of the parameters as data, and draws from them
season       epochs of a season, pauses, lost epochs
noise        photometric errors of the detector sets, measured light curves
periodic     light of pulsating, eclipsing, ellipsoidal, heartbeat, long-period and spotted stars
eruptive     light of dwarf novae, flares, Be stars; slow trends
variables    everything that varies and is no lens: sub-classes, their rates, draws of their parameters
"""

from microlens.sky.noise import (
    DETECTORS,
    MAG_PER_RELATIVE_FLUX,
    QUIET,
    SATURATION_MAG,
    SYSTEMATIC_MAG,
    draw_noise,
    noise_variance,
    observe,
    sigma_flux,
    sigma_mag,
)
from microlens.sky.population import Preset, Prior, draw, load_preset
from microlens.sky.season import dropout, epochs, season_length
from microlens.sky.variables import VariableStar, draw_other, rates, variables_json

__all__ = [
    "DETECTORS",
    "MAG_PER_RELATIVE_FLUX",
    "QUIET",
    "SATURATION_MAG",
    "SYSTEMATIC_MAG",
    "Preset",
    "Prior",
    "VariableStar",
    "draw",
    "draw_noise",
    "draw_other",
    "dropout",
    "epochs",
    "load_preset",
    "noise_variance",
    "observe",
    "rates",
    "season_length",
    "sigma_flux",
    "sigma_mag",
    "variables_json",
]
