"""The running fit. Truth: delta chi^2 of the noise-free curve against the best single lens of the whole prefix (fit_noise_free)."""

import numpy as np
import pytest

from microlens.fit import prefix_delta_chi2, running
from microlens.lens import binary, pspl
from microlens.sky.noise import sigma_flux

T = np.arange(0, 72, 1 / 96.0)
BLOCK = 16


def observed(flux, m_base, rng, missing=0.05):
    """Valid epochs of a noisy curve: t, flux, delta_t, true flux, true error."""
    seen = rng.random(len(T)) >= missing
    sigma = sigma_flux(flux, m_base)
    noisy = flux + sigma * rng.normal(size=len(T))
    return T[seen], noisy[seen], np.diff(T[seen], prepend=T[seen][0]), flux[seen], sigma[seen]


def excess(flux, delta_t):
    """chi^2 excess over the best single lens of the past, after each block."""
    view = running.advance(running.new_state(1, BLOCK), flux[None], delta_t[None])
    return 10 * np.sinh(view[0, BLOCK - 1 :: BLOCK, 2])


def test_a_single_lens_never_looks_like_an_anomaly():
    rng, largest = np.random.default_rng(5), []
    for _ in range(25):
        A = pspl(T, rng.uniform(7, 65), rng.uniform(0.003, 1), rng.uniform(5, 30))
        _, flux, delta_t, _, _ = observed(A, rng.uniform(18, 24), rng)
        largest.append(excess(flux, delta_t).max())
    # chi^2 of some 150 averages scatters by sqrt(2 * 150) = 18 at one time; its largest of a season is some forty.
    assert np.median(largest) < 60 and max(largest) < 120


@pytest.mark.parametrize("q, u_0, s, m_base", [(1e-3, 0.1, 1.3, 22.0), (1e-3, 0.3, 1.3, 21.0), (1e-2, 0.6, 2.0, 21.0),
                                               (0.3, 0.8, 0.3, 21.0)])
def test_the_excess_is_the_delta_chi2_of_the_prefix(q, u_0, s, m_base):
    rng = np.random.default_rng(6)
    A = binary(T, 36.0, u_0, 15.0, 2e-3, s, q, 1.0)
    t, flux, delta_t, true, sigma = observed(A, m_base, rng)
    found = excess(flux, delta_t)
    for at in (2500, 3500, 4500, 6000):
        truth = prefix_delta_chi2(t[:at], true[:at], sigma[:at])
        # three sigma: delta chi^2 scatters by 2 sqrt of itself, chi^2 of the averages by 18; the errors are known to some per cent
        assert found[at // BLOCK - 1] == pytest.approx(truth, abs=55 + 6 * np.sqrt(truth), rel=0.1)


@pytest.mark.parametrize("block", [8, 16, 32])
def test_block_by_block_is_at_once_bit_for_bit(block):
    rng = np.random.default_rng(7)
    _, flux, delta_t, _, _ = observed(binary(T, 30.0, 0.05, 10.0, 1e-3, 1.0, 0.1, 0.5), 20.0, rng)
    n = len(flux) // block * block
    whole = running.advance(running.new_state(1, block), flux[None, :n], delta_t[None, :n])
    state, parts, i = running.new_state(1, block), [], 0
    while i < n:
        k = min(block * int(rng.integers(1, 40)), n - i)
        parts.append(running.advance(state, flux[None, i : i + k], delta_t[None, i : i + k]))
        i += k
    assert np.array_equal(np.concatenate(parts, axis=1), whole)
