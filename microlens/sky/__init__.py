"""What is before the telescope: which events there are, when they are seen, and with what errors.

priors       distributions as data
terms        terms of noise beside white noise, one function each
population   presets: priors of events and of their noise, and draws from them
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
    draw_noise,
    noise_variance,
    observe,
    sigma_flux,
    sigma_mag,
)
from microlens.sky.population import Preset, draw, load_noise, load_preset
from microlens.sky.season import dropout, epochs, season_length
from microlens.sky.terms import NOISE_PARAMETERS, draw_terms, known_noise
from microlens.sky.variables import VariableStar, draw_other, rates, variables_json

__all__ = [
    "DETECTORS", "MAG_PER_RELATIVE_FLUX", "NOISE_PARAMETERS", "QUIET", "SATURATION_MAG", "Preset",
    "VariableStar", "draw", "draw_noise", "draw_other", "draw_terms", "dropout", "epochs", "known_noise", "load_noise",
    "load_preset", "noise_variance", "observe", "rates", "season_length", "sigma_flux", "sigma_mag", "variables_json",
]
