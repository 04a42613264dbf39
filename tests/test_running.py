"""The running fit. Truth: delta chi^2 of the noise-free curve against the best single lens of the whole prefix."""

import faulthandler

import numpy as np
import pytest

from microlens.fit import fit_noise_free, running, scatter
from microlens.lens import Parallax, binary, pspl
from microlens.sky.noise import sigma_flux

T = np.arange(0, 72, 1 / 96.0)
BLOCK = 16


def observed(flux, m_base, rng, missing=0.05):
    """Valid epochs of a noisy curve: flux, delta_t."""
    seen = rng.random(len(T)) >= missing
    sigma = sigma_flux(flux, m_base)
    noisy = flux + sigma * rng.normal(size=len(T))
    return noisy[seen], np.diff(T[seen], prepend=T[seen][0])


def excess_of(view):
    """chi^2 excess over the best single lens of the past, after each block, of a view (n, L, k)."""
    name = "running" if view.shape[-1] == running.n_numbers("running", BLOCK) else "robust"
    return running.CHI2_SCALE * np.sinh(running.channels_of(view, name)[1][..., running.EXCESS])


def test_a_single_lens_never_looks_like_an_anomaly():
    rng, largest = np.random.default_rng(5), []
    for _ in range(25):
        A = pspl(T, rng.uniform(7, 65), rng.uniform(0.003, 1), rng.uniform(5, 30))
        flux, delta_t = observed(A, rng.uniform(18, 24), rng)
        view = running.advance(running.new_state(1, BLOCK), flux[None], delta_t[None])
        largest.append(excess_of(view).max())
    # chi^2 of some 150 averages scatters by sqrt(2 * 150) = 18 at one time; its largest of a season is some forty.
    assert np.median(largest) < 60 and max(largest) < 120


@pytest.mark.parametrize("q, u_0, s, m_base", [(1e-3, 0.1, 1.3, 22.0), (1e-3, 0.3, 1.3, 21.0), (1e-2, 0.6, 2.0, 21.0),
                                               (0.3, 0.8, 0.3, 21.0)])
def test_the_mean_excess_is_the_delta_chi2_of_the_prefix(q, u_0, s, m_base):
    """The mean over 40 draws of the noise has an error of 5 at delta chi^2 = 160; averaging loses some 10 per cent."""
    rng, n = np.random.default_rng(6), 40
    A = binary(T, 36.0, u_0, 15.0, 2e-3, s, q, 1.0)
    seen = rng.random(len(T)) >= 0.05
    t, true, sigma = T[seen], A[seen], sigma_flux(A, m_base)[seen]
    flux = true + sigma * rng.normal(size=(n, len(t)))
    delta_t = np.tile(np.diff(t, prepend=t[0]), (n, 1))
    found = excess_of(running.running_view(flux, delta_t, np.full(n, len(t)), BLOCK)).mean(axis=0)
    for at in (2500, 3500, 4500, 6000):
        truth = fit_noise_free(t[:at], true[:at], sigma[:at]).chi2
        assert abs(found[at // BLOCK - 1] - truth) < 12 + 0.12 * truth


PARALLAX = Parallax(0.25, 0.2)


def test_a_bent_path_takes_up_the_parallax_of_a_single_lens():
    """The parallax is real, that of the Earth: the fit's constant acceleration stands for it."""
    rng, end = np.random.default_rng(11), {"running": [], "robust": []}
    for t_0, u_0, t_E in ((30.0, 0.1, 25.0), (40.0, -0.2, 30.0), (36.0, 0.4, 28.0), (25.0, 0.05, 18.0)):
        flux, delta_t = observed(pspl(T, t_0, u_0, t_E, parallax=PARALLAX), 19.0, rng)
        for view, excesses in end.items():
            seen = running.running_view(flux[None], delta_t[None], np.array([len(flux)]), BLOCK, view)
            excesses.append(excess_of(seen)[0, len(flux) // BLOCK - 1])
    assert min(end["running"]) > 300 and max(end["robust"]) < 120


def test_a_bent_path_takes_up_no_binary_lens():
    rng = np.random.default_rng(12)
    flux, delta_t = observed(binary(T, 36.0, 0.1, 15.0, 2e-3, 1.3, 1e-2, 1.0), 20.0, rng)
    ends = [excess_of(running.running_view(flux[None], delta_t[None], np.array([len(flux)]), BLOCK, view))
            [0, len(flux) // BLOCK - 1] for view in ("running", "robust")]
    assert ends[1] > 1000 and 0.5 * ends[0] < ends[1] < 1.01 * ends[0]


@pytest.mark.parametrize("robust", [False, True])
@pytest.mark.parametrize("block", [8, 16, 32])
def test_block_by_block_is_at_once_bit_for_bit(block, robust):
    rng = np.random.default_rng(7)
    flux, delta_t = observed(binary(T, 30.0, 0.05, 10.0, 1e-3, 1.0, 0.1, 0.5), 20.0, rng)
    n = len(flux) // block * block
    whole = running.advance(running.new_state(1, block, robust), flux[None, :n], delta_t[None, :n])
    state, parts, i = running.new_state(1, block, robust), [], 0
    while i < n:
        k = min(block * int(rng.integers(1, 40)), n - i)
        parts.append(running.advance(state, flux[None, i : i + k], delta_t[None, i : i + k]))
        i += k
    assert np.array_equal(np.concatenate(parts, axis=1), whole)


def test_a_state_goes_through_plain_numbers_and_back_in_the_same_memory():
    flux = 1 + 0.01 * np.random.default_rng(8).normal(size=(3, 4 * BLOCK))
    delta_t = np.full(flux.shape, 1 / 96)
    state = running.new_state(3, BLOCK)
    numbers = running.as_floats(state)
    running.advance(running.from_floats(numbers), flux, delta_t)
    assert np.all(state["n_seen"] == flux.shape[1]) and np.array_equal(state["time"], numbers[:, 1])


@pytest.mark.parametrize("block", [0, 65])
def test_an_impossible_block_is_refused(block):
    with pytest.raises(ValueError, match="expected 1 to 64 epochs"):
        running.new_state(1, block)


# ---- any cadence ----------------------------------------------------------------------------------------------------


@pytest.fixture
def limit():
    """End the process, and say where it was, if a test takes over two minutes: a compiled loop hears no signal."""
    faulthandler.dump_traceback_later(120, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def random_gaps(n):
    """Steps (n,), days, from a minute to a month."""
    return 10 ** np.random.default_rng(9).uniform(-3, 1.5, n)


CADENCES = {"minute": np.full(20_000, 1 / 1440), "15 min": np.full(49_000, 1 / 96), "4 h": np.full(5000, 1 / 6),
            "night": np.full(2000, 1.0), "3 d": np.full(2000, 3.0), "week": np.full(2000, 7.0),
            "month": np.full(2000, 30.0), "random": random_gaps(5000), "at once": np.zeros(2000),
            "seasons": np.tile(np.append(np.full(999, 1 / 96), 180.0), 8)}


@pytest.mark.parametrize("block", [16, 64])
@pytest.mark.parametrize("cadence", CADENCES)
def test_any_cadence_ends_and_sees_the_event(cadence, block, limit):
    """An event that lasts a tenth of the curve stands out from a constant, and a single lens explains it."""
    delta_t = CADENCES[cadence]
    t = np.cumsum(delta_t)
    length = max(np.ptp(t), 1.0)
    flux = pspl(t, t[0] + 0.6 * length, 0.3, np.clip(length / 20, 1.0, 300.0))
    flux += 0.02 * np.random.default_rng(10).normal(size=len(t))
    state = running.new_state(1, block)
    view = running.advance(state, flux[None], delta_t[None])[0]
    assert len(view) == len(t) // block
    assert np.isfinite(view).all() and 0 < state["n"][0] <= running.MAX_BINS
    if cadence != "at once":
        shared = running.channels_of(view, "running")[1]
        flat, excess = (running.CHI2_SCALE * np.sinh(shared[-1, k]) for k in (running.FLAT_EXCESS, running.EXCESS))
        assert flat > 500 and excess < 0.1 * flat


def test_averages_that_never_agree_are_joined_all_the_same(limit):
    n = running.MAX_BINS + running.MAX_BLOCK
    t, w, model = 1e3 * np.arange(n), np.ones(n), np.ones(n)
    residual = np.where(np.arange(n) % 2, 1e200, -1e200)  # the square of their difference is infinite
    assert running.join(t, residual, w, model, n) == running.KEPT_BINS
    assert w[: running.KEPT_BINS].sum() == n and np.all(np.diff(t[: running.KEPT_BINS]) > 0)


def test_a_short_curve_keeps_the_limit_of_three_days():
    """So the numbers of a season do not depend on what a longer curve needs."""
    assert running.longest_span(np.array([0.0, 168.0])) == running.LONGEST_SPAN
    assert running.longest_span(np.array([0.0, 2000.0])) > 2000.0 / running.KEPT_BINS


# ---- the robust view ------------------------------------------------------------------------------------------------


def channels(flux, delta_t, view="robust"):
    """What a view says after the last whole block of one curve: its block channels, chi^2 as it is."""
    seen = running.running_view(flux[None], delta_t[None], np.array([len(flux)]), BLOCK, view)
    return running.channels_of(seen, view)[1][0, len(flux) // BLOCK - 1]


@pytest.mark.parametrize("size", [5.0, 10.0, 30.0])
def test_epochs_that_stand_alone_are_no_event(size):
    """One in a hundred epochs off by so many standard deviations: the fit of the robust view does not see them."""
    rng = np.random.default_rng(21)
    flux, delta_t = observed(np.ones(len(T)), 21.0, rng)
    sigma = sigma_flux(1.0, 21.0)
    off = np.where(rng.random(len(flux)) < 0.01, rng.choice([-1, 1], len(flux)), 0) * size * sigma
    excess = {view: running.CHI2_SCALE * np.sinh(channels(flux + off, delta_t, view)[running.EXCESS])
              for view in ("running", "robust")}
    clean = running.CHI2_SCALE * np.sinh(channels(flux, delta_t)[running.EXCESS])
    assert excess["robust"] < clean + 40 < excess["running"] + 40
    assert size < 10 or excess["running"] > 1000


def clean_flux(flux):
    """The flux (n,) of one curve without its lone epochs, as the robust view has it; n is a multiple of BLOCK."""
    view = running.running_view(flux[None], np.full((1, len(flux)), 1 / 96), np.array([len(flux)]), BLOCK, "robust")
    return 1 + running.FINE * np.sinh(running.channels_of(view, "robust")[0][0, :, running.CLEAN].ravel())


def test_what_two_neighbours_show_is_kept():
    """Two epochs in a row, and the steep rise of a peak, are no noise."""
    flux, sigma = np.ones(1600), 0.01
    flux += sigma * np.random.default_rng(22).normal(size=1600)
    flux[800:802] += 10 * sigma
    clean = clean_flux(flux)
    assert clean[800:802] == pytest.approx(flux[800:802], abs=1e-5)
    peak = pspl(T[:1600], 8.0, 0.02, 1.0)
    noisy = peak + sigma * np.random.default_rng(23).normal(size=1600)
    lost = np.abs(clean_flux(noisy) - noisy) > 0.1 * sigma
    assert lost.sum() <= 4  # where a block ends inside the steepest rise, one epoch


@pytest.mark.parametrize("amplitude, time", [(0.3, 1.0), (0.5, 0.2), (0.2, 3.0)])
def test_the_spectrum_is_that_of_the_noise(amplitude, time):
    """Median of |difference of block means| over that of white noise, from the covariance of white and OU noise."""
    rng, delta = np.random.default_rng(24), 1 / 96
    n = 40 * 6912
    kept = np.exp(-delta / time)
    ou = np.empty(n)
    ou[0] = rng.normal()
    for i, step in enumerate(rng.normal(size=n - 1) * np.sqrt(1 - kept**2)):
        ou[i + 1] = kept * ou[i] + step
    flux = (1 + 0.01 * (rng.normal(size=n) + amplitude * ou)).reshape(40, 6912)
    view = running.running_view(flux, np.full(flux.shape, delta), np.full(40, 6912), BLOCK, "robust")
    found = running.channels_of(view, "robust")[1][:, -1, running.TAKEN + 1 :].mean(axis=0)
    apart = np.arange(-BLOCK + 1, BLOCK)
    pairs = BLOCK - np.abs(apart)  # how many pairs of epochs lie so far apart
    for lag, value in zip(scatter.LAGS, found, strict=True):
        covariance = [(amplitude**2 * np.exp(-np.abs(apart + shift * BLOCK) * delta / time) * pairs).sum()
                      / BLOCK**2 for shift in (0, lag)]
        ratio = (2 * (1 / BLOCK + covariance[0] - covariance[1])) / (2 / BLOCK)
        assert value == pytest.approx(0.5 * np.log(ratio), abs=0.15), lag
