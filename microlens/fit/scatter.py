"""What a light curve's own past says of its noise: white variance, lone epochs, and how the scatter grows with time.

The white variance is a clipped running mean square of second differences, carried from one flux to another by the law
of detector set `roman`. It is blind to slow noise, which the spectrum is there for: the median difference of the means
of two blocks at several lags, in units of what white noise gives. An epoch that stands alone is no event: it is
replaced by its neighbours, and how much was taken away is kept. All of it is causal and takes bounded memory.
"""

from __future__ import annotations

import numba
import numpy as np

from microlens.sky.noise import DETECTORS, MAG_PER_RELATIVE_FLUX, SYSTEMATIC_MAG

NOISE_MEMORY = 150.0  # second differences behind the noise estimate
LEAST_VARIANCE = 1e-10  # of F/F_base
LEAST_FLUX = 0.3  # F/F_base: the noise of a fainter flux is taken to be that of this one
LEAST_PHOTON_SHARE = 0.1  # of the variance, which is not left to the systematic floor alone
FIRST = 32  # epochs whose second differences are averaged as they are
CLIP, CLIPPED_MEAN = 6.25, 0.9217  # of a squared normal deviate: where it is clipped, and its mean then
BACKGROUND = DETECTORS["roman"].background  # e-^2 an epoch
FLOOR = (SYSTEMATIC_MAG / MAG_PER_RELATIVE_FLUX) ** 2  # systematic variance of F/F_base

ALONE = 3.0  # standard deviations by which a lone epoch is beyond its neighbours and the fit
LAGS = (1, 4, 16, 64)  # blocks between two means whose difference is compared with white noise
KEPT_BLOCKS = LAGS[-1]  # means kept for it
NORMAL_MEDIAN = np.log(0.67449)  # of the logarithm of a normal deviate's size
MEDIAN_GAIN = 1.17  # 1/(2 f), where f is the density of that logarithm at its median
SPECTRUM_MEMORY = 300.0  # differences behind the median
SMALLEST = 1e-6  # size of a difference, standard deviations, whose logarithm is taken


@numba.njit(cache=True, nogil=True)
def photons_of(variance):
    """Electrons N of the baseline in one epoch, from the variance of F/F_base: (N + B)/N^2 + floor solved for N."""
    v = max(variance - FLOOR, LEAST_PHOTON_SHARE * variance)
    return 0.5 * (1 + np.sqrt(1 + 4 * v * BACKGROUND)) / v


@numba.njit(cache=True, nogil=True)
def variance_at(flux, photons):
    """Variance of F/F_base at a flux, if the baseline gives so many electrons."""
    f = max(flux, LEAST_FLUX)
    return (photons * f + BACKGROUND) / photons**2 + FLOOR * f * f


@numba.njit(cache=True, nogil=True)
def update_noise(state, t, flux):
    """Take one block into the noise estimate. Returns the electrons of the baseline.

    An epoch's second difference is its distance from the straight line through the two epochs before. The estimate
    before the block carries the noise from one flux to another.
    """
    photons = photons_of(max(state.variance, LEAST_VARIANCE))
    for i in range(len(t)):
        seen = state.n_seen
        if seen >= 2:
            a = (state.last_t - state.earlier_t) / max(t[i] - state.earlier_t, 1e-9)
            e = state.last_flux - (1 - a) * state.earlier_flux - a * flux[i]
            scale = 1 + a * a + (1 - a) * (1 - a)
            if seen < FIRST:
                state.variance += (e * e / scale - state.variance) / (seen - 1)
            else:
                u = e * e / (scale * variance_at(state.last_flux, photons))
                state.variance *= 1 + (min(u, CLIP) / CLIPPED_MEAN - 1) / min(seen, NOISE_MEMORY)
            state.variance = max(state.variance, LEAST_VARIANCE)
        state.earlier_t, state.earlier_flux = state.last_t, state.last_flux
        state.last_t, state.last_flux = t[i], flux[i]
        state.n_seen = seen + 1
    return photons_of(state.variance)


@numba.njit(cache=True, nogil=True)
def without_lone_epochs(state, flux, before):
    """The flux (block,) of the next block, in which an epoch that nothing supports is replaced by its neighbours.

    before (block,) : the fit so far. An epoch is supported by the one before, the one after, and the fit: it is
    replaced where it is more than ALONE standard deviations beyond all of them. What follows the last epoch of a block
    is not yet known, and the straight line through the two epochs before stands for it.
    Returns the new flux and chi^2 of what was taken away. Before the noise is known, nothing is.
    """
    out, taken = flux.copy(), 0.0
    if state.n_seen < FIRST:
        return out, taken
    photons = photons_of(state.variance)
    earlier, last = state.earlier_flux, state.last_flux
    for i in range(len(flux)):
        following = flux[i + 1] if i + 1 < len(flux) else 2 * last - earlier
        low, high = min(last, following, before[i]), max(last, following, before[i])
        beyond = max(flux[i] - high, low - flux[i]) / np.sqrt(variance_at(high, photons))
        if beyond > ALONE:
            out[i] = 0.5 * (last + following) if i + 1 < len(flux) else last
            taken += (flux[i] - out[i]) ** 2 / variance_at(out[i], photons)
        earlier, last = last, out[i]
    return out, taken


@numba.njit(cache=True, nogil=True)
def means_at_lags(state, t, flux):
    """Mean time and flux of a block, then of those so many LAGS blocks before it: two arrays (1 + len(LAGS),).

    Where there was no such block, the flux is NaN and the time that of the newest. The block is kept for later ones.
    """
    times, fluxes = np.full(1 + len(LAGS), np.mean(t)), np.full(1 + len(LAGS), np.nan)
    fluxes[0] = np.mean(flux)
    k = int(state.n_blocks)
    for j, lag in enumerate(LAGS):
        if k >= lag:
            place = (k - lag) % KEPT_BLOCKS
            times[1 + j], fluxes[1 + j] = state.block_t[place], state.block_flux[place]
    state.block_t[k % KEPT_BLOCKS], state.block_flux[k % KEPT_BLOCKS] = times[0], fluxes[0]
    state.n_blocks += 1
    return times, fluxes


@numba.njit(cache=True, nogil=True)
def update_spectrum(state, fluxes, model, photons):
    """Take the differences of a block's mean from earlier ones into account.

    fluxes, model : those of the means and of the fit, as means_at_lags has them.
    The spectrum is the logarithm of the median size of the differences over that of white noise, found step by step
    (Robbins & Monro 1951): a step has one size whatever the difference, so that a few large ones change little.
    """
    now = variance_at(model[0], photons)
    for j in range(len(LAGS)):
        if np.isnan(fluxes[1 + j]):
            continue
        n = state.n_blocks - LAGS[j]
        sigma = np.sqrt((now + variance_at(model[1 + j], photons)) / state.block)
        difference = abs(fluxes[0] - model[0] - fluxes[1 + j] + model[1 + j]) / sigma
        side = np.sign(np.log(max(difference, SMALLEST)) - NORMAL_MEDIAN - state.spectrum[j])
        state.spectrum[j] += side * MEDIAN_GAIN / min(n, SPECTRUM_MEMORY)
