"""The best single lens through what has been observed so far, brought up to date with every block of epochs.

    state = new_state(n, block)                            # n light curves, taken `block` epochs at a time
    view = advance(state, flux, delta_t)                   # (n, L, CHANNELS) of the next L epochs, L a multiple of the block

It reads the flux alone and never looks ahead. The noise is a clipped running mean square of second differences, carried from one
flux to another by the law of detector set `roman`. The past is kept as at most MAX_BINS averages: epochs where the flux changes
inside a block, blocks elsewhere, and neighbours that agree are joined where the model is smooth. The fit goes on from the one
before, when the newest block disagrees or after EVERY epochs, and is begun again from other starts where its excess has grown; in
between its chi^2 is carried on. So an update takes bounded time and memory, and a curve fed block by block gives the same numbers
as one fed at once, since both run this code.
"""

from __future__ import annotations

import numba
import numpy as np

from microlens.fit.kernels import POINT, _b0_table, _bounds, _levenberg, _magnification, _n_par
from microlens.fit.single_lens import FSPL_U_0, _finite
from microlens.sky.noise import DETECTORS, MAG_PER_RELATIVE_FLUX, SYSTEMATIC_MAG

MAX_BINS, KEPT_BINS = 160, 112  # averages kept, and how many are left after joining
NOISE_MEMORY = 150.0  # second differences behind the noise estimate
LEAST_VARIANCE = 1e-10  # of F/F_base
FIRST = 32  # epochs whose second differences are averaged as they are
CLIP, CLIPPED_MEAN = 6.25, 0.9217  # of a squared normal deviate: where it is clipped, and its mean then
VARIES = 9.0  # standard deviations of a block's chi^2 about its mean beyond which its epochs are kept one by one
STARTED = 40.0  # chi^2 excess over a constant at which an event is fitted
LONGEST_SPAN = 3.0  # d, of an average
EVERY = 64  # epochs after which the fit is brought up to date even if the newest agree with it
DISAGREE = 4.0  # chi^2 of a block's mean, in units of the fit's reduced chi^2, at which it is brought up to date at once
AGAIN, AGAIN_BY = 30.0, 1.3  # the fit is begun again when its excess has passed 30 and grown by this factor;
HOPELESS, SELDOM_BY = 100.0, 2.0  # beyond 100, where hardly a search finds better, by this one
STEPS, START_STEPS, LAST_STEPS = 4, 4, 30  # Levenberg-Marquardt steps of an update, of each trial start and of the best of these
WORTH, WORTH_OF = 0.01, 1e-4  # gain that a step must promise: chi^2, and share of the present chi^2
SHORTEST = -0.7  # ln t_E: the far wing of a still shorter event is a power law of no scale, lost in rounding
CLOSEST = 1e-3  # u_0: a peak narrower than the time between two epochs says nothing
AHEAD = 60.0  # d after the last epoch at which a peak may lie
BACKGROUND = DETECTORS["roman"].background
FLOOR = (SYSTEMATIC_MAG / MAG_PER_RELATIVE_FLUX) ** 2

# residual after and before the fit has seen the block, chi^2 excess, largest run of three averages, log10 of the photons, chi^2
# against a constant.
CHANNELS = 6
# Places in the head of the state: time; number of averages; epochs since the event began; t_0, ln t_E, u_0, ln rho; source and
# blend flux; excess at the last new beginning; second differences seen; the last two epochs' time and flux; time of the first epoch;
# variance of F/F_base at the baseline; of the averages: sum of weights, mean, chi^2 against it, chi^2 of the fit, largest run.
_T, _N, _EVENT, _P, _FS, _FB, _SEARCHED, _SEEN, _T1, _F1, _T2, _F2, _T0, _V = 0, 1, 2, 3, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16
_SW, _MEAN, _FLAT, _CHI2, _LARGEST, _HEAD = 17, 18, 19, 20, 21, 22


def new_state(n: int, block: int) -> np.ndarray:
    """The state (n, .) before the first epoch of n light curves that are taken in blocks of so many epochs."""
    return np.zeros((n, _HEAD + 3 * (MAX_BINS + block)))


@numba.njit(cache=True, nogil=True)
def _asinh(x):
    """asinh to float32, three times faster than the library's."""
    size = abs(x)
    return np.copysign(np.log(size + np.sqrt(size * size + 1)), x)


@numba.njit(cache=True, nogil=True)
def _photons(variance):
    """Electrons of the baseline in one epoch for the variance of F/F_base there: (N + B)/N^2 + floor solved for N."""
    v = max(variance - FLOOR, 0.1 * variance)
    return 0.5 * (1 + np.sqrt(1 + 4 * v * BACKGROUND)) / v


@numba.njit(cache=True, nogil=True)
def _variance(flux, photons):
    """Variance of F/F_base at a flux; a flux below 0.3 counts as 0.3."""
    f = max(flux, 0.3)
    return (photons * f + BACKGROUND) / photons**2 + FLOOR * f * f


@numba.njit(cache=True, nogil=True)
def _noise(state, t, f):
    """Electrons of the baseline, from the noise so far; takes in one block (t, f)."""
    photons = _photons(max(state[_V], LEAST_VARIANCE))  # of the blocks before: they carry the noise from one flux to another
    for i in range(len(t)):
        seen = state[_SEEN]
        if seen >= 2:
            a = (state[_T1] - state[_T2]) / max(t[i] - state[_T2], 1e-9)
            e = state[_F1] - (1 - a) * state[_F2] - a * f[i]
            scale = 1 + a * a + (1 - a) * (1 - a)
            if seen < FIRST:
                state[_V] += (e * e / scale - state[_V]) / (seen - 1)
            else:
                u = e * e / (scale * _variance(state[_F1], photons))
                state[_V] *= 1 + (min(u, CLIP) / CLIPPED_MEAN - 1) / min(seen, NOISE_MEMORY)
            state[_V] = max(state[_V], LEAST_VARIANCE)
        state[_T2], state[_F2] = state[_T1], state[_F1]
        state[_T1], state[_F1] = t[i], f[i]
        state[_SEEN] = seen + 1
    return _photons(state[_V])


@numba.njit(cache=True, nogil=True)
def _join(t, residual, w, model, n):
    """Join agreeing neighbours among the first n averages where the model is smooth, until KEPT_BINS are left. Returns how many.

    residual : from the model. Averaging residuals rather than fluxes leaves no error of the curvature inside a long average.
    """
    smooth, agree = 0.3, 9.0
    while n > KEPT_BINS:
        i = m = 0
        while i < n:
            if i + 1 < n and n - (i - m) > KEPT_BINS:
                common = w[i] * w[i + 1] / (w[i] + w[i + 1])
                change, differ = model[i + 1] - model[i], residual[i + 1] - residual[i]
                if common * change**2 < smooth and common * differ**2 < agree and t[i + 1] - t[i] < LONGEST_SPAN:
                    total = w[i] + w[i + 1]
                    for x in (t, residual, model):
                        x[m] = (w[i] * x[i] + w[i + 1] * x[i + 1]) / total
                    w[m] = total
                    i, m = i + 2, m + 1
                    continue
            t[m], residual[m], w[m], model[m] = t[i], residual[i], w[i], model[i]
            i, m = i + 1, m + 1
        n = m
        smooth, agree = 4 * smooth, 2 * agree
    return n


@numba.njit(cache=True, nogil=True)
def _search(t, y, w, p, table, low, high):
    """The best of several starts, point source and then finite source, into p, if it is better than p itself."""
    at, now, best, trial, leader = np.argmax(y), t[-1], np.inf, np.empty(4), p.copy()
    for k in range(8):
        if k < 4:  # past the peak: the brightest average, narrow to wide
            trial[0], trial[1], trial[2], trial[3] = t[at], np.log(3.0 * 2.2**k), 0.05 * 2.0**k, POINT
        else:  # still rising: the peak lies ahead
            trial[0], trial[1], trial[2], trial[3] = now + 0.6 * 3.0 ** (k - 4), np.log(4.0 * 1.7 ** (k - 4)), 0.2, POINT
        c = _levenberg(t, y, w, trial, table, START_STEPS, low, high, WORTH, WORTH_OF)[0]
        if c < best:
            best = c
            leader[:] = trial
    best = _levenberg(t, y, w, p, table, LAST_STEPS, low, high, WORTH, WORTH_OF)[0]
    c = _levenberg(t, y, w, leader, table, LAST_STEPS, low, high, WORTH, WORTH_OF)[0]
    if c < best:
        best = c
        p[:] = leader
    for factor in (0.5, 1.5):
        if p[2] < FSPL_U_0:
            trial = _finite(p, factor)
            c = _levenberg(t, y, w, trial, table, 2 * LAST_STEPS, low, high, WORTH, WORTH_OF)[0]
            if c < best - 1.0:
                best = c
                p[:] = trial


@numba.njit(cache=True, nogil=True)
def _curve(t, p, event, fs, fb, table):
    """Flux (n,) of the fit at times t (n,): a single lens once there is an event, else a constant."""
    out = np.full(len(t), fb)
    if event > 0:
        out += fs * _magnification(t, p, table)
    return out


@numba.njit(cache=True, nogil=True)
def _append(t, y, w, n, time, flux, model, middle, photons, settled):
    """Add a block to the first n averages: one by one where its epochs vary, else as their mean. Returns the new n.

    model (block,) and middle: the fit so far at the block's epochs and at their mean time.   settled : the noise is well known.
    """
    mean, varies, block = np.mean(flux), 0.0, len(flux)
    for i in range(block):
        varies += (flux[i] - mean) ** 2
    expected = block - 1.0
    if settled and varies > (expected + VARIES * np.sqrt(2 * expected)) * _variance(mean, photons):
        for i in range(block):
            t[n], y[n], w[n] = time[i], flux[i], 1 / _variance(flux[i], photons)
            n += 1
        return n
    t[n], y[n], w[n] = np.mean(time), middle + mean - np.mean(model), block / _variance(mean, photons)
    return n + 1


@numba.njit(cache=True, nogil=True)
def _weigh(state, y, w, first):
    """Take the averages from `first` on into the sums of a constant through all of them; first = 0 begins anew."""
    if first == 0:
        state[_SW] = state[_MEAN] = state[_FLAT] = 0.0
    for i in range(first, len(y)):
        state[_SW] += w[i]
        delta = y[i] - state[_MEAN]
        state[_MEAN] += delta * w[i] / state[_SW]
        state[_FLAT] += w[i] * delta * (y[i] - state[_MEAN])


@numba.njit(cache=True, nogil=True)
def _judge(state, y, w, model, first):
    """Take the averages from `first` on, less the model, into chi^2 and the largest run of three; first = 0 begins anew.

    y, w, model : of the averages from max(first - 2, 0) on.
    """
    if first == 0:
        state[_CHI2] = state[_LARGEST] = 0.0
    run = before = last = 0.0
    for i in range(len(y)):
        square = w[i] * (y[i] - model[i]) ** 2
        run = before + last + square
        before, last = last, square
        if i >= min(first, 2):
            state[_CHI2] += square
            state[_LARGEST] = max(state[_LARGEST], run)


@numba.njit(cache=True, nogil=True)
def _take(state, t, f, table, out):
    """One block of one light curve: t, f (block,) into the state, and its channels into out (block, CHANNELS)."""
    block, bins = len(t), state[_HEAD:].reshape(3, -1)
    bt, by, bw = bins[0], bins[1], bins[2]
    first = int(state[_N])
    if first == 0:
        state[_T0] = t[0]
        state[_FB] = np.mean(f)
    p, at = state[_P : _P + 4], np.empty(block + 1)
    at[:block], at[block] = t, np.mean(t)
    before = _curve(at, p, state[_EVENT], state[_FS], state[_FB], table)
    photons = _noise(state, t, f)
    settled = state[_SEEN] > NOISE_MEMORY
    n = _append(bt, by, bw, first, t, f, before[:block], before[block], photons, settled)
    if not settled:  # the first estimates of the noise are poor: the averages so far take the newest
        first = 0
        for i in range(n):
            bw[i] = block / _variance(by[i], photons)
    tn, yn, wn = bt[:n], by[:n], bw[:n]
    _weigh(state, yn, wn, first)
    known = state[_SEEN] >= FIRST  # before that there is nothing to go by
    low, high = _bounds(state[_T0] - AHEAD, t[-1] + AHEAD, SHORTEST, CLOSEST)
    begins = state[_EVENT] == 0 and known and state[_FLAT] - n > STARTED
    if begins:
        p[0], p[1], p[2], p[3] = t[-1], 2.0, 0.3, POINT
        _search(tn, yn, wn, p, table, low, high)
    after = before
    if begins or state[_EVENT] > 0:
        new = 0.0
        for i in range(block):
            new += f[i] - before[i]
        poor = max(state[_CHI2] / n, 1.0)
        if begins or state[_EVENT] % EVERY < block or new**2 > DISAGREE * poor * block * _variance(np.mean(f), photons):
            chi2, state[_FS], state[_FB], a = _levenberg(tn, yn, wn, p, table, STEPS, low, high, WORTH, WORTH_OF)
            growth = AGAIN_BY if state[_SEARCHED] < HOPELESS else SELDOM_BY
            if chi2 - n > max(AGAIN, growth * state[_SEARCHED]):
                _search(tn, yn, wn, p, table, low, high)
                chi2, state[_FS], state[_FB], a = _levenberg(tn, yn, wn, p, table, 4 * STEPS, low, high, WORTH, WORTH_OF)
                state[_SEARCHED] = max(chi2 - n, AGAIN)
            _judge(state, yn, wn, state[_FS] * a + state[_FB], 0)
            state[_EVENT] += block
            after = _curve(t, p, state[_EVENT], state[_FS], state[_FB], table)
        else:
            state[_EVENT] += block
            begin = max(first - 2, 0)
            _judge(state, yn[begin:], wn[begin:], _curve(tn[begin:], p, state[_EVENT], state[_FS], state[_FB], table), first)
        n_par = 2.0 + _n_par(p)
    else:
        state[_FB], n_par = state[_MEAN], 1.0
        after = np.full(block, state[_MEAN])
        begin = max(first - 2, 0)
        _judge(state, yn[begin:], wn[begin:], np.full(n - begin, state[_MEAN]), first)
        state[_CHI2] = state[_FLAT]
    excess, flat, largest = state[_CHI2] - n + n_par, state[_FLAT] - n, state[_LARGEST]
    if not known:
        excess, flat, largest = 0.0, 0.0, 0.0
    out[:, 2], out[:, 3], out[:, 5] = _asinh(excess / 10.0), _asinh(largest / 10.0), _asinh(flat / 10.0)
    out[:, 4] = np.log10(photons)
    for i in range(block):
        scale = 1 / np.sqrt(_variance(after[i], photons))
        out[i, 0], out[i, 1] = _asinh((f[i] - after[i]) * scale), _asinh((f[i] - before[i]) * scale)
    if n > MAX_BINS:
        model = _curve(tn, p, state[_EVENT], state[_FS], state[_FB], table)
        residual = yn - model
        n = _join(bt, residual, bw, model, n)
        model = _curve(bt[:n], p, state[_EVENT], state[_FS], state[_FB], table)
        by[:n] = model + residual[:n]
        _weigh(state, by[:n], bw[:n], 0)
        _judge(state, by[:n], bw[:n], model, 0)
    state[_N] = n


@numba.njit(cache=True, nogil=True)
def _advance(state, flux, delta_t, blocks, block, table, out):
    t = np.empty(block)
    for k in range(len(state)):
        for b in range(blocks[k]):
            for i in range(block):
                state[k, _T] += delta_t[k, b * block + i]
                t[i] = state[k, _T]
            part = slice(b * block, (b + 1) * block)
            _take(state[k], t, flux[k, part], table, out[k, part])


def advance(state, flux, delta_t, lengths=None) -> np.ndarray:
    """Take the next L epochs of n light curves; changes `state` (n, .), as new_state made it, in place.

    flux (n, L) F/F_base and delta_t (n, L) days of valid epochs; lengths (n,): how many of them each curve has, unset = L. Only whole
    blocks count, so L must be a multiple of the block in all but the last call.
    Returns (n, L, CHANNELS) float32; 0 beyond the last whole block.
    """
    block = (state.shape[1] - _HEAD) // 3 - MAX_BINS
    flux, delta_t = np.ascontiguousarray(flux, dtype=float), np.ascontiguousarray(delta_t, dtype=float)
    lengths = np.full(len(flux), flux.shape[1]) if lengths is None else np.asarray(lengths)
    out = np.zeros((*flux.shape, CHANNELS), np.float32)
    _advance(state, flux, delta_t, lengths // block, block, _b0_table(), out)
    return out


def running_view(flux, delta_t, lengths, block) -> np.ndarray:
    """The single lens through each epoch's past for packed light curves: (n, T, CHANNELS) float32.

    flux, delta_t : (n, T).   lengths : (n,) valid epochs in front.   block : epochs between two fits. 0 beyond the last whole block.
    """
    return advance(new_state(len(flux), block), flux, delta_t, lengths)
