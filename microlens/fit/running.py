"""The best single lens through what has been observed so far, brought up to date with every block of epochs.

    state = new_state(n, block)                  # n light curves, taken `block` epochs at a time
    state = new_state(n, block, robust=True)     # the same for the sky: see below
    view = advance(state, flux, delta_t)         # (n, L // block, k) of the next L epochs, L a multiple of the block
    epochs, shared = channels_of(view, "running")

It reads the flux alone and never looks ahead; the noise is what microlens.fit.scatter makes of it. The past is kept as
at most MAX_BINS averages: epochs where the flux changes inside a block, blocks elsewhere, and neighbours that agree are
joined where the model is smooth. The fit goes on from the one before, when the newest block disagrees or after EVERY
epochs, and is begun again from other starts where its excess has grown; in between its chi^2 is carried on. So an
update takes bounded time and memory at any cadence, and a curve fed block by block gives the same numbers as one fed at
once, since both run this code.

The robust view is for the sky as it is: its path may bend as parallax bends it, an epoch that stands alone counts as
its neighbours do, and it tells how the scatter grows from block to block. For the bend a constant acceleration is
fitted: over a season the Earth's motion about the Sun departs from uniform motion nearly as the square of time, and so
neither the date nor the place in the sky has to be known. The two components of the acceleration stand where a single
lens has pi_EN and pi_EE (Gould 2004 writes parallax in this way to the lowest order), and the offsets of the Sun are
replaced by (omega (t - t_bend))^2/2 along one axis.
"""

from __future__ import annotations

import numba
import numpy as np

from microlens.config import FLUX_VIEW, ROBUST_VIEW, RUNNING_VIEW
from microlens.fit.kernels import (
    LN_T_E,
    PI_EE,
    PI_EN,
    POINT,
    T_0,
    U_0,
    WITHOUT_PARALLAX,
    Gain,
    Points,
    b0_table,
    bounds_for,
    bounds_with_parallax,
    fluxes_of,
    levenberg_marquardt,
    magnification,
    n_parameters,
    without_parallax,
)
from microlens.fit.scatter import (
    FIRST,
    KEPT_BLOCKS,
    LAGS,
    NOISE_MEMORY,
    means_at_lags,
    update_noise,
    update_spectrum,
    variance_at,
    without_lone_epochs,
)
from microlens.fit.single_lens import FSPL_U_0, RHO_FACTORS, finite_source

MAX_BINS, KEPT_BINS = 160, 112  # averages kept, and how many are left after joining
MAX_BLOCK = 64  # epochs; the largest stride of a network

VARIES = 9.0  # standard deviations of a block's chi^2 about its mean beyond which its epochs are kept one by one

# Neighbouring averages are joined where, in units of the variance of their difference, the model's change squared and
# the residuals' difference squared are below these; each round that leaves too many averages multiplies them by these
# factors.
SMOOTH, AGREE = 0.3, 9.0
SMOOTHER, LOOSER = 4.0, 2.0
ROUNDS = 64  # after which averages are joined as they come: 0.3 * 4^64 is more than any two finite averages differ by
LONGEST_SPAN = 3.0  # d, between the neighbours that are joined
SPAN_IN_MEAN_SPANS = 2.0  # the same in mean distances of KEPT_BINS averages, for curves longer than 168 d

STARTED = 40.0  # chi^2 excess over a constant at which an event is fitted
EVERY = 64  # epochs after which the fit is brought up to date even if the newest agree with it
# chi^2 of a block's mean, in units of the fit's reduced chi^2, at which it is brought up to date at once
DISAGREE = 4.0
AGAIN, AGAIN_BY = 30.0, 1.3  # the fit is begun again when its excess has passed 30 and grown by this factor;
HOPELESS, SELDOM_BY = 100.0, 2.0  # beyond 100, where hardly a search finds better, by this one
# Levenberg-Marquardt steps of an update, of each trial start, of the best of these
STEPS, START_STEPS, LAST_STEPS = np.int64(4), np.int64(4), np.int64(30)
FSPL_GAIN = 1.0  # chi^2 by which a finite source must be better than a point
GAIN = Gain(0.01, 1e-4)  # that a step must promise
SHORTEST_LN_T_E = -0.7  # the far wing of a still shorter event is a power law of no scale, lost in rounding
CLOSEST = 1e-3  # u_0: a peak narrower than the time between two epochs says nothing
AHEAD = 60.0  # d after the last epoch at which a peak may lie
BEND_GAIN = 10.0  # chi^2 by which a bent path must be better than a straight one
EARTH_RATE = 2 * np.pi / 365.25  # radians a day

FIRST_LN_T_E, FIRST_U_0 = 2.0, 0.3  # of an event that begins (t_E = 7.4 d); its peak is put at the newest epoch
# Trial starts. Past the peak, which is at the brightest average: t_E = 3, 6.6, 15, 32 d with u_0 = 0.05, 0.1, 0.2, 0.4.
# Still rising: the peak lies 0.6, 1.8, 5.4, 16 d ahead with t_E = 4, 6.8, 12, 20 d and u_0 = 0.2.
PAST_STARTS, RISING_STARTS = 4, 4
PAST_T_E, PAST_T_E_BY, PAST_U_0, PAST_U_0_BY = 3.0, 2.2, 0.05, 2.0
RISING_AHEAD, RISING_AHEAD_BY, RISING_T_E, RISING_T_E_BY, RISING_U_0 = 0.6, 3.0, 4.0, 1.7, 0.2

RUNNING_OWN, ROBUST_OWN = 2, 3
EPOCH_CHANNELS = {RUNNING_VIEW: RUNNING_OWN, ROBUST_VIEW: ROBUST_OWN}
"""Channels of a view that each epoch has of its own: residual after and before the fit has seen the block, standard
deviations; in the robust view then the flux excess without lone epochs, in units of FINE."""
BLOCK_CHANNELS = {RUNNING_VIEW: 4, ROBUST_VIEW: 5 + len(LAGS)}
"""Channels that the epochs of a block share: chi^2 excess of the fit, largest run of three averages, log10 of the
baseline's electrons, chi^2 excess over a constant; in the robust view then chi^2 of the lone epochs that were taken
away, and the spectrum (scatter.update_spectrum). All but electrons and spectrum are asinh of a scaled value."""
AFTER, BEFORE, CLEAN = range(3)
EXCESS, RUN, PHOTONS, FLAT_EXCESS, TAKEN = range(5)
FINE = 0.01  # flux excess at which asinh turns from linear to logarithmic: that of faint anomalies
CHI2_SCALE = 10.0  # chi^2 at which asinh turns from linear to logarithmic
TOGETHER = 256  # blocks whose asinh is taken at once: they stay in a CPU's cache
LARGEST = np.float32(1e18)  # number whose asinh is taken as it is: its square is still a float32

_CAPACITY = MAX_BINS + MAX_BLOCK
STATE = np.dtype([
    ("block", "f8"),           # epochs of a block
    ("time", "f8"),            # of the last epoch, d
    ("first_time", "f8"),      # of the first epoch, d
    ("event_epochs", "f8"),    # epochs since the event began; 0 before there is one
    ("robust", "f8"),          # whether this is the robust view: 1 or 0
    ("is_bent", "f8"),         # whether that of the fit does: 1 or 0
    ("t_bend", "f8"),          # d, where the bend's offset is 0
    ("lens", "f8", (6,)),      # the fit as the kernels take it: 6 numbers if it is bent, else the first 4
    ("f_source", "f8"),        # F/F_base
    ("f_blend", "f8"),         # F/F_base; the constant while there is no event
    ("searched", "f8"),        # chi^2 excess when the fit was last begun again
    ("n_seen", "f8"),          # epochs seen
    ("last_t", "f8"),          # of the last epoch and the one before it: time, flux
    ("last_flux", "f8"),
    ("earlier_t", "f8"),
    ("earlier_flux", "f8"),
    ("variance", "f8"),        # of F/F_base at the baseline
    ("n", "f8"),               # averages
    ("weight", "f8"),          # of all averages together
    ("mean", "f8"),            # the best constant through them
    ("chi2_flat", "f8"),       # against that constant
    ("chi2", "f8"),            # against the fit
    ("largest_run", "f8"),     # chi^2 of the three neighbouring averages that disagree most with the fit
    ("taken", "f8"),           # chi^2 of the lone epochs of the newest block
    ("n_blocks", "f8"),        # blocks seen
    ("spectrum", "f8", (len(LAGS),)),  # see scatter.update_spectrum
    ("block_t", "f8", (KEPT_BLOCKS,)),  # mean time and flux of the last blocks
    ("block_flux", "f8", (KEPT_BLOCKS,)),
    ("t", "f8", (_CAPACITY,)),  # the averages: mean time, mean flux, inverse variance
    ("y", "f8", (_CAPACITY,)),
    ("w", "f8", (_CAPACITY,)),
])
"""What is known of one light curve. All fields are float64, so a state is also a row of numbers (see `as_floats`)."""


def new_state(n: int, block: int, robust: bool = False) -> np.ndarray:
    """The state (n,) of type STATE before the first epoch of n light curves that are taken in blocks of so many epochs.

    robust : whether for the robust view.
    Raises ValueError for a block that is not from 1 to MAX_BLOCK.
    """
    if not 1 <= block <= MAX_BLOCK:
        raise ValueError(f"block: came {block!r}, expected 1 to {MAX_BLOCK} epochs.")
    state = np.zeros(n, STATE)
    state["block"], state["robust"] = block, robust
    return state


def as_floats(state: np.ndarray) -> np.ndarray:
    """A state (n,) as numbers (n, k) float64 that share its memory, for what keeps plain arrays (torch, a file)."""
    return state.view(np.float64).reshape(len(state), STATE.itemsize // 8)


def from_floats(numbers: np.ndarray) -> np.ndarray:
    """The state (n,) of which as_floats made `numbers` (n, k). It shares their memory if they are contiguous."""
    return np.ascontiguousarray(numbers, dtype=np.float64).view(STATE)[:, 0]


# ---- averages -------------------------------------------------------------------------------------------------------


@numba.njit(cache=True, nogil=True)
def _points(state, t, y, w):
    """Points of times, fluxes and inverse variances, each (n,), with the offset by which a path may bend."""
    if state.robust == 0:
        return without_parallax(t, y, w)
    return Points(t, y, w, 0.5 * (EARTH_RATE * (t - state.t_bend)) ** 2, np.zeros(len(t)))


@numba.njit(cache=True, nogil=True)
def _averages(state, first):
    """The averages of the state from `first` on, as Points that share its memory."""
    n = int(state.n)
    return _points(state, state.t[first:n], state.y[first:n], state.w[first:n])


@numba.njit(cache=True, nogil=True)
def _lens(state):
    """The single lens of the fit as the kernels take it; it shares the state's memory."""
    return state.lens[: len(state.lens) if state.is_bent > 0 else WITHOUT_PARALLAX]


@numba.njit(cache=True, nogil=True)
def _model_of(state, t, table):
    """Flux (n,) of the fit at times t (n,): a single lens once there is an event, else a constant."""
    out = np.full(len(t), state.f_blend)
    if state.event_epochs > 0:
        out += state.f_source * magnification(_points(state, t, t, t), _lens(state), table)
    return out


@numba.njit(cache=True, nogil=True)
def _prediction(state, t, table):
    """Flux of the fit so far at the epochs t (block,) of the new block, and at their mean time."""
    block = len(t)
    at = np.empty(block + 1)
    at[:block], at[block] = t, np.mean(t)
    model = _model_of(state, at, table)
    return model[:block], model[block]


@numba.njit(cache=True, nogil=True)
def _varies(flux, photons):
    """Whether the flux (block,) scatters by much more than the noise."""
    mean, total = np.mean(flux), 0.0
    for i in range(len(flux)):
        total += (flux[i] - mean) ** 2
    expected = len(flux) - 1.0
    return total > (expected + VARIES * np.sqrt(2 * expected)) * variance_at(mean, photons)


@numba.njit(cache=True, nogil=True)
def _append(state, t, flux, before, middle, photons):
    """Add a block to the averages: epoch by epoch where its flux varies, else as its mean.

    before (block,), middle : the fit so far at its epochs and at their mean time.
    Returns the number of averages whose weights are as they were: none while the first estimates of the noise are poor,
    in which time all averages take the weight of the newest.
    """
    block, n = len(flux), int(state.n)
    settled = state.n_seen > NOISE_MEMORY
    if settled and _varies(flux, photons):
        for i in range(block):
            state.t[n + i], state.y[n + i], state.w[n + i] = t[i], flux[i], 1 / variance_at(flux[i], photons)
        state.n += block
        return n
    mean = np.mean(flux)
    state.t[n], state.y[n] = np.mean(t), middle + mean - np.mean(before)
    state.w[n] = block / variance_at(mean, photons)
    state.n += 1
    if settled:
        return n
    for i in range(n + 1):
        state.w[i] = block / variance_at(state.y[i], photons)
    return 0


@numba.njit(cache=True, nogil=True)
def _update_constant(state, first):
    """Take the averages from `first` on into the best constant through all of them; first = 0 begins anew."""
    if first == 0:
        state.weight = state.mean = state.chi2_flat = 0.0
    n = int(state.n)
    y, w = state.y[first:n], state.w[first:n]
    for i in range(len(y)):
        state.weight += w[i]
        delta = y[i] - state.mean
        state.mean += delta * w[i] / state.weight
        state.chi2_flat += w[i] * delta * (y[i] - state.mean)


@numba.njit(cache=True, nogil=True)
def _update_chi2(state, averages, model, first):
    """Take the averages from `first` on, less the model, into chi^2 and largest run; first = 0 begins anew.

    averages, model : from max(first - 2, 0) on, so that runs of three are complete.
    """
    if first == 0:
        state.chi2 = state.largest_run = 0.0
    _, y, w, _, _ = averages
    earlier = last = 0.0
    for i in range(len(model)):
        square = w[i] * (y[i] - model[i]) ** 2
        run = earlier + last + square
        earlier, last = last, square
        if i >= min(first, 2):
            state.chi2 += square
            state.largest_run = max(state.largest_run, run)


@numba.njit(cache=True, nogil=True)
def longest_span(t):
    """The largest distance, in days, of neighbours among the averages at times t that may be joined.

    It is LONGEST_SPAN, and more for a curve so long that KEPT_BINS averages could not be so close: fewer than half of
    all distances are larger than twice their mean, so there are always neighbours to join.
    """
    return max(LONGEST_SPAN, SPAN_IN_MEAN_SPANS * (t[-1] - t[0]) / KEPT_BINS)


@numba.njit(cache=True, nogil=True)
def _join_round(t, residual, w, model, n, smooth, agree, span):
    """Join such neighbours among the first n averages as `smooth`, `agree` and `span` permit, until KEPT_BINS are left.

    An infinite span permits all.   Returns how many averages are left, at least KEPT_BINS.
    """
    i = m = 0
    while i < n:
        joins = False
        if i + 1 < n and n - (i - m) > KEPT_BINS:
            common = w[i] * w[i + 1] / (w[i] + w[i + 1])
            change, differ = model[i + 1] - model[i], residual[i + 1] - residual[i]
            agrees = common * change**2 < smooth and common * differ**2 < agree and t[i + 1] - t[i] < span
            joins = agrees or span == np.inf
        if joins:
            total = w[i] + w[i + 1]
            for x in (t, residual, model):
                x[m] = (w[i] * x[i] + w[i + 1] * x[i + 1]) / total
            w[m] = total
            i += 2
        else:
            t[m], residual[m], w[m], model[m] = t[i], residual[i], w[i], model[i]
            i += 1
        m += 1
    return m


@numba.njit(cache=True, nogil=True)
def join(t, residual, w, model, n):
    """Join agreeing neighbours among the first n averages where the model is smooth, until KEPT_BINS are left.

    residual : from the model. Averaging residuals rather than fluxes leaves no error of the curvature inside a long
    average. Each round permits more than the one before, and after ROUNDS all neighbours are joined, which halves at
    most MAX_BINS + MAX_BLOCK = 2 KEPT_BINS averages. Returns how many are left: KEPT_BINS.
    """
    smooth, agree, span = SMOOTH, AGREE, longest_span(t[:n])
    for _ in range(ROUNDS):
        if n <= KEPT_BINS:
            return n
        n = _join_round(t, residual, w, model, n, smooth, agree, span)
        smooth, agree = SMOOTHER * smooth, LOOSER * agree
    return _join_round(t, residual, w, model, n, np.inf, np.inf, np.inf)


@numba.njit(cache=True, nogil=True)
def _shorten(state, table):
    """Join averages until KEPT_BINS are left, and sum up constant and chi^2 again."""
    averages = _averages(state, 0)
    model = _model_of(state, averages.t, table)
    residual = averages.y - model
    n = join(averages.t, residual, averages.w, model, len(averages.t))
    state.n = n
    averages = _averages(state, 0)
    model = _model_of(state, averages.t, table)
    averages.y[:] = model + residual[:n]
    _update_constant(state, 0)
    _update_chi2(state, averages, model, 0)


# ---- fit ------------------------------------------------------------------------------------------------------------


@numba.njit(cache=True, nogil=True)
def _trial_start(averages, k, out):
    """Put the k-th trial start into `out` (4,): first those whose peak is past, then those that still rise."""
    t = averages.t
    if k < PAST_STARTS:
        out[T_0], out[LN_T_E] = t[np.argmax(averages.y)], np.log(PAST_T_E * PAST_T_E_BY**k)
        out[U_0] = PAST_U_0 * PAST_U_0_BY**k
    else:
        k -= PAST_STARTS
        out[T_0], out[LN_T_E] = t[-1] + RISING_AHEAD * RISING_AHEAD_BY**k, np.log(RISING_T_E * RISING_T_E_BY**k)
        out[U_0] = RISING_U_0
    out[-1] = POINT


@numba.njit(cache=True, nogil=True)
def _search(averages, p, table, bounds):
    """The best of several starts, point source and then finite source, into p, if it is better than p itself."""
    best, trial, leader = np.inf, np.empty(4), p.copy()
    for k in range(PAST_STARTS + RISING_STARTS):
        _trial_start(averages, k, trial)
        chi2 = levenberg_marquardt(averages, trial, table, START_STEPS, bounds, GAIN)[0].chi2
        if chi2 < best:
            best = chi2
            leader[:] = trial
    best = levenberg_marquardt(averages, p, table, LAST_STEPS, bounds, GAIN)[0].chi2
    chi2 = levenberg_marquardt(averages, leader, table, LAST_STEPS, bounds, GAIN)[0].chi2
    if chi2 < best:
        best = chi2
        p[:] = leader
    for factor in RHO_FACTORS:
        if p[U_0] < FSPL_U_0:
            trial = finite_source(p, factor)
            chi2 = levenberg_marquardt(averages, trial, table, 2 * LAST_STEPS, bounds, GAIN)[0].chi2
            if chi2 < best - FSPL_GAIN:
                best = chi2
                p[:] = trial


@numba.njit(cache=True, nogil=True)
def _search_bent(averages, straight, p, table, bounds):
    """The best of both bends of the single lens `straight` (4,) and p (6,), into p. Returns its chi^2.

    A path begins straight on either side of the lens, and the steps find its bend.
    """
    best, trial = levenberg_marquardt(averages, p, table, LAST_STEPS, bounds, GAIN)[0].chi2, np.empty(len(p))
    for side in (1.0, -1.0):
        trial[:PI_EN], trial[PI_EN : PI_EE + 1], trial[-1] = straight[:PI_EN], 0.0, straight[-1]
        trial[U_0] *= side
        chi2 = levenberg_marquardt(averages, trial, table, LAST_STEPS, bounds, GAIN)[0].chi2
        if chi2 < best:
            best = chi2
            p[:] = trial
    return best


@numba.njit(cache=True, nogil=True)
def _begin_again(state, averages, table, bounds):
    """Begin the fit of the state again from several starts: its path bends once that is better than a straight one."""
    straight = _lens(state)[:WITHOUT_PARALLAX].copy()
    straight[U_0], straight[-1] = max(abs(straight[U_0]), CLOSEST), _lens(state)[-1]
    _search(averages, straight, table, bounds)
    if state.robust > 0:
        bent = np.zeros(len(state.lens))
        bent[:PI_EN], bent[-1] = straight[:PI_EN], straight[-1]
        if state.is_bent > 0:
            bent[:] = state.lens
        chi2 = fluxes_of(averages, straight, table).chi2
        if _search_bent(averages, straight, bent, table, bounds_with_parallax(bounds)) < chi2 - BEND_GAIN:
            state.is_bent = 1.0
            state.lens[:] = bent
            return
    state.is_bent = 0.0
    state.lens[:WITHOUT_PARALLAX] = straight


@numba.njit(cache=True, nogil=True)
def _is_due(state, flux, before, photons):
    """Whether the fit is to be brought up to date: the block disagrees with it, or it has not been for EVERY epochs."""
    block, difference = len(flux), 0.0
    for i in range(block):
        difference += flux[i] - before[i]
    if state.event_epochs % EVERY < block:
        return True
    poor = max(state.chi2 / state.n, 1.0)
    return difference**2 > DISAGREE * poor * block * variance_at(np.mean(flux), photons)


@numba.njit(cache=True, nogil=True)
def _improve(state, averages, steps, table, bounds):
    """Improve the fit of the state by so many steps. Returns a FluxFit and the magnification (n,) at the averages."""
    if state.is_bent > 0:
        bounds = bounds_with_parallax(bounds)
    return levenberg_marquardt(averages, _lens(state), table, steps, bounds, GAIN)


@numba.njit(cache=True, nogil=True)
def _refit(state, averages, table, bounds):
    """Bring the fit up to date, and begin it again if its excess has grown. Returns its flux (n,) at the averages."""
    n = len(averages.t)
    fluxes, a = _improve(state, averages, STEPS, table, bounds)
    growth = AGAIN_BY if state.searched < HOPELESS else SELDOM_BY
    if fluxes.chi2 - n > max(AGAIN, growth * state.searched):
        _begin_again(state, averages, table, bounds)
        fluxes, a = _improve(state, averages, 4 * STEPS, table, bounds)
        state.searched = max(fluxes.chi2 - n, AGAIN)
    state.f_source, state.f_blend = fluxes.f_source, fluxes.f_blend
    return fluxes.f_source * a + fluxes.f_blend


@numba.njit(cache=True, nogil=True)
def _follow_event(state, t, flux, before, first, photons, table):
    """Bring the single lens up to date with the block t, flux (block,), or only its chi^2 if that will do.

    before (block,) : the fit so far.   first : averages whose weights are as they were.   Returns the fit now,
    (block,).
    """
    bounds = bounds_for(state.first_time - AHEAD, t[-1] + AHEAD, SHORTEST_LN_T_E, CLOSEST)
    begins = state.event_epochs == 0
    if begins:
        state.t_bend = t[-1]
    averages = _averages(state, 0)
    if begins:
        p = _lens(state)
        p[T_0], p[LN_T_E], p[U_0], p[-1] = t[-1], FIRST_LN_T_E, FIRST_U_0, POINT
        _search(averages, p, table, bounds)
    if begins or _is_due(state, flux, before, photons):
        _update_chi2(state, averages, _refit(state, averages, table, bounds), 0)
        state.event_epochs += len(t)
        return _model_of(state, t, table)
    state.event_epochs += len(t)
    newest = _averages(state, max(first - 2, 0))
    _update_chi2(state, newest, _model_of(state, newest.t, table), first)
    return before


@numba.njit(cache=True, nogil=True)
def _follow_constant(state, t, first):
    """Bring the constant up to date where there is no event yet. Returns it at the block's epochs, (block,)."""
    state.f_blend = state.mean
    newest = _averages(state, max(first - 2, 0))
    _update_chi2(state, newest, np.full(len(newest.t), state.mean), first)
    state.chi2 = state.chi2_flat
    return np.full(len(t), state.mean)


# ---- view -----------------------------------------------------------------------------------------------------------


@numba.njit(cache=True, nogil=True)
def _write_channels(state, flux, before, after, photons, out):
    """Put the channels of one block into out (k,), in the order of channels_of, before _compress takes their asinh.

    before, after (block,) : the fit without and with the block.
    """
    n, excess, flat, run = state.n, 0.0, 0.0, 0.0
    if state.n_seen >= FIRST:  # before that there is nothing to go by
        n_par = 2.0 + n_parameters(_lens(state)) if state.event_epochs > 0 else 1.0
        excess, flat, run = state.chi2 - n + n_par, state.chi2_flat - n, state.largest_run
    block, is_robust = len(flux), state.robust > 0
    n_own = ROBUST_OWN if is_robust else RUNNING_OWN
    own, shared = out[: n_own * block].reshape(n_own, block), out[n_own * block :]
    for i in range(block):
        scale = 1 / np.sqrt(variance_at(after[i], photons))
        own[AFTER, i], own[BEFORE, i] = (flux[i] - after[i]) * scale, (flux[i] - before[i]) * scale
        if is_robust:
            own[CLEAN, i] = (flux[i] - 1) / FINE
    shared[EXCESS], shared[RUN] = excess / CHI2_SCALE, run / CHI2_SCALE
    shared[PHOTONS] = np.log10(photons)
    shared[FLAT_EXCESS] = flat / CHI2_SCALE
    if is_robust:
        shared[TAKEN] = state.taken / CHI2_SCALE
        shared[TAKEN + 1 :] = state.spectrum


@numba.njit(cache=True, nogil=True)
def _take_block(state, t, flux, table, out):
    """Take one block t, flux (block,) into the state of its light curve and put its channels into out."""
    if state.n == 0:
        state.first_time = t[0]
        state.f_blend = np.mean(flux)
    before, middle = _prediction(state, t, table)
    if state.robust > 0:
        flux, state.taken = without_lone_epochs(state, flux, before)
    photons = update_noise(state, t, flux)
    first = _append(state, t, flux, before, middle, photons)
    _update_constant(state, first)
    begins = state.n_seen >= FIRST and state.chi2_flat - state.n > STARTED
    if begins or state.event_epochs > 0:
        after = _follow_event(state, t, flux, before, first, photons, table)
    else:
        after = _follow_constant(state, t, first)
    if state.robust > 0:
        times, fluxes = means_at_lags(state, t, flux)
        update_spectrum(state, fluxes, _model_of(state, times, table), photons)
    _write_channels(state, flux, before, after, photons, out)
    if state.n > MAX_BINS:
        _shorten(state, table)


@numba.njit(cache=True, nogil=True)
def _advance(states, flux, delta_t, blocks, table, out):
    """Take so many blocks (n,) of each light curve flux, delta_t (n, L) into its state, the channels into out."""
    for k in range(len(states)):
        state = states[k]
        block = int(state.block)
        t = np.empty(block)
        for b in range(blocks[k]):
            for i in range(block):
                state.time += delta_t[k, b * block + i]
                t[i] = state.time
            part = slice(b * block, (b + 1) * block)
            _take_block(state, t, flux[k, part], table, out[k, b])


def n_numbers(view: str, block: int) -> int:
    """Numbers of a view for each block of so many epochs, see channels_of; 0 for the flux alone."""
    return EPOCH_CHANNELS.get(view, 0) * block + BLOCK_CHANNELS.get(view, 0)


def channels_of(blocks, view: str):
    """The channels of a view, an array or tensor of (n, L, k) numbers for L blocks, which share its memory if they can.

    Returns those of each epoch, (n, L, EPOCH_CHANNELS, block), and those that a block's epochs share, (n, L,
    BLOCK_CHANNELS).
    """
    n_own = EPOCH_CHANNELS[view]
    end = blocks.shape[-1] - BLOCK_CHANNELS[view]
    return blocks[..., :end].reshape(*blocks.shape[:-1], n_own, end // n_own), blocks[..., end:]


def _compress(blocks, first_shared: int, last: int):
    """Take the asinh, in place, of the columns up to and with `last` of blocks (n, k) float32, but of the electrons.

    first_shared : the first column of those that a block's epochs share.   It is good to the rounding of float32 at 1,
    and NumPy takes the logarithm of many numbers at once, the same whatever their number.
    """
    for first in range(0, len(blocks), TOGETHER):
        x = blocks[first : first + TOGETHER, : last + 1]
        photons = x[:, first_shared + PHOTONS].copy()
        size = np.minimum(np.abs(x), LARGEST)
        np.copysign(np.log(size + np.sqrt(size * size + 1)), x, out=x)
        x[:, first_shared + PHOTONS] = photons


def advance(state, flux, delta_t, lengths=None) -> np.ndarray:
    """Take the next L epochs of n light curves; changes `state` (n,), as new_state made it, in place.

    flux (n, L) F/F_base and delta_t (n, L) days of valid epochs; lengths (n,): how many of them each curve has, unset =
    L. Only whole blocks count, so L must be a multiple of the block in all but the last call.
    Returns the view (n, L // block, n_numbers) float32, see channels_of; 0 beyond a curve's last whole block.
    Raises ValueError where there is no light curve.
    """
    flux, delta_t = np.ascontiguousarray(flux, dtype=float), np.ascontiguousarray(delta_t, dtype=float)
    lengths = np.full(len(flux), flux.shape[1]) if lengths is None else np.asarray(lengths)
    if not len(state):
        raise ValueError("state: came no light curve, expected at least one.")
    view = ROBUST_VIEW if state["robust"][0] > 0 else RUNNING_VIEW
    block = int(state["block"][0])
    out = np.zeros((len(flux), flux.shape[1] // block, n_numbers(view, block)), np.float32)
    _advance(state, flux, delta_t, lengths // block, b0_table(), out)
    first_shared = EPOCH_CHANNELS[view] * block
    last = first_shared + (TAKEN if view == ROBUST_VIEW else FLAT_EXCESS)
    _compress(out.reshape(-1, out.shape[2]), first_shared, last)
    return out


def running_view(flux, delta_t, lengths, block, view: str = RUNNING_VIEW) -> np.ndarray | None:
    """The single lens through each epoch's past for packed light curves, as `advance` gives it; None for view flux.

    flux, delta_t : (n, T).   lengths : (n,) valid epochs in front.   block : epochs between two fits, 1 to MAX_BLOCK.
    view : one of VIEWS.
    """
    if view == FLUX_VIEW:
        return None
    if not len(flux):
        return np.zeros((0, np.shape(flux)[1] // block, n_numbers(view, block)), np.float32)
    return advance(new_state(len(flux), block, robust=view == ROBUST_VIEW), flux, delta_t, lengths)
