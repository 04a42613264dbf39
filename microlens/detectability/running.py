"""The best single lens through what has been observed so far, brought up to date with every block of epochs.

    state = new_state(n)                                   # n light curves, (n, STATE) float64
    view = advance(state, flux, delta_t)                   # (n, L, CHANNELS) of the next L epochs, L a multiple of BLOCK

It reads the flux alone and never looks ahead. The noise is a clipped running mean square of second differences, carried from one
flux to another by the law of detector set `roman`. The past is kept as at most MAX_BINS averages: epochs where the flux changes
inside a block, blocks elsewhere, and neighbours that agree are joined where the model is smooth. The fit goes on from the one
before, and is begun again from other starts where its excess has grown. So an update takes bounded time and memory, and a curve
fed block by block gives the same numbers as one fed at once, since both run this code.
"""

from __future__ import annotations

import numba
import numpy as np

from microlens.detectability.single_lens import FSPL_U_0, _b0_table, _levenberg, _linear, _model
from microlens.survey import DETECTORS, MAG_PER_RELATIVE_FLUX, SYSTEMATIC_MAG

BLOCK = 8  # epochs that make one average
MAX_BINS, KEPT_BINS = 160, 112  # averages kept, and how many are left after joining
NOISE_MEMORY = 150.0  # second differences behind the noise estimate
FIRST = 32  # epochs whose second differences are averaged as they are
CLIP, CLIPPED_MEAN = 6.25, 0.9217  # of a squared normal deviate: where it is clipped, and its mean then
VARIES = 40.0  # chi^2 of a block's epochs about their mean (7 expected) above which they are kept one by one
STARTED = 40.0  # chi^2 excess over a constant at which an event is fitted
LONGEST_SPAN = 3.0  # d, of an average
EVERY = 4  # blocks after which the fit is brought up to date even if the newest agree with it
AGAIN, AGAIN_BY = 30.0, 1.3  # the fit is begun again when its excess has passed 30 and grown by this factor
STEPS, START_STEPS = 2, 6  # Levenberg-Marquardt steps of an update, and of a trial start
SHORTEST = -0.7  # ln t_E: the far wing of a still shorter event is a power law of no scale, lost in rounding
CLOSEST = 1e-3  # u_0: a peak narrower than the time between two epochs says nothing
POINT = -20.0  # ln rho of a point source
AHEAD = 60.0  # d after the last epoch at which a peak may lie
BACKGROUND = DETECTORS["roman"].background
FLOOR = (SYSTEMATIC_MAG / MAG_PER_RELATIVE_FLUX) ** 2

# residual after and before the fit has seen the block, chi^2 excess, largest run of three averages, log10 of the photons, chi^2
# against a constant.
CHANNELS = 6
_HEAD = 17
STATE = _HEAD + 3 * (MAX_BINS + BLOCK)
# Places in the head of the state: time; number of averages; blocks since the event began; t_0, ln t_E, u_0, ln rho; source and
# blend flux; excess at the last new beginning; second differences seen; the last two epochs' time and flux; time of the first epoch;
# variance of F/F_base at the baseline.
_T, _N, _EVENT, _P, _FS, _FB, _SEARCHED, _SEEN, _T1, _F1, _T2, _F2, _T0, _V = 0, 1, 2, 3, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16


def new_state(n: int) -> np.ndarray:
    """The state (n, STATE) before the first epoch of n light curves."""
    return np.zeros((n, STATE))


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
    for i in range(len(t)):
        seen = state[_SEEN]
        if seen >= 2:
            a = (state[_T1] - state[_T2]) / max(t[i] - state[_T2], 1e-9)
            e = state[_F1] - (1 - a) * state[_F2] - a * f[i]
            scale = 1 + a * a + (1 - a) * (1 - a)
            if seen < FIRST:
                state[_V] += (e * e / scale - state[_V]) / (seen - 1)
            else:
                u = e * e / (scale * _variance(state[_F1], _photons(state[_V])))
                state[_V] *= 1 + (min(u, CLIP) / CLIPPED_MEAN - 1) / min(seen, NOISE_MEMORY)
            state[_V] = max(state[_V], 1e-10)
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
def _shape(p):
    """How many of t_0, ln t_E, u_0, ln rho are fitted: a point source has ln rho = POINT."""
    return 4 if p[3] > POINT else 3


@numba.njit(cache=True, nogil=True)
def _chi2(t, y, w, p, table):
    a, d = np.empty(len(t)), np.empty((4, len(t)))
    _model(t, p, _shape(p), table, a, d)
    return _linear(a, y, w)[2]


@numba.njit(cache=True, nogil=True)
def _improve(t, y, w, p, table, steps, t_low, t_high):
    """Levenberg-Marquardt steps from p, kept where they are no worse within ln t_E >= SHORTEST, u_0 >= CLOSEST. Returns chi^2."""
    before, trial = _chi2(t, y, w, p, table), p.copy()
    _levenberg(t, y, w, trial, _shape(p), table, steps, t_low, t_high)
    trial[1], trial[2] = max(trial[1], SHORTEST), max(abs(trial[2]), CLOSEST)
    after = _chi2(t, y, w, trial, table)
    if after > before:
        return before
    p[:] = trial
    return after


@numba.njit(cache=True, nogil=True)
def _search(t, y, w, p, table, t_low, t_high):
    """The best of several starts, point source and then finite source, into p, if it is better than p itself."""
    best = _chi2(t, y, w, p, table)
    at, now, trial = np.argmax(y), t[-1], np.empty(4)
    for k in range(8):
        if k < 4:  # past the peak: the brightest average, narrow to wide
            trial[0], trial[1], trial[2], trial[3] = t[at], np.log(3.0 * 2.2**k), 0.05 * 2.0**k, POINT
        else:  # still rising: the peak lies ahead
            trial[0], trial[1], trial[2], trial[3] = now + 0.6 * 3.0 ** (k - 4), np.log(4.0 * 1.7 ** (k - 4)), 0.2, POINT
        c = _improve(t, y, w, trial, table, START_STEPS, t_low, t_high)
        if c < best:
            best = c
            p[:] = trial
    best = _improve(t, y, w, p, table, START_STEPS, t_low, t_high)
    for factor in (0.5, 1.5):
        if abs(p[2]) < FSPL_U_0:
            trial[:] = p
            trial[3] = np.log(max(factor * abs(p[2]), 3e-4))
            c = _improve(t, y, w, trial, table, 2 * START_STEPS, t_low, t_high)
            if c < best - 1.0:
                best = c
                p[:] = trial


@numba.njit(cache=True, nogil=True)
def _curve(t, p, event, fs, fb, table):
    """Flux (n,) of the fit at times t (n,): a single lens once there is an event, else a constant."""
    out = np.full(len(t), fb)
    if event > 0:
        a, d = np.empty(len(t)), np.empty((4, len(t)))
        _model(t, p, _shape(p), table, a, d)
        out += fs * a
    return out


@numba.njit(cache=True, nogil=True)
def _append(t, y, w, n, time, flux, model, middle, photons, settled):
    """Add a block to the first n averages: one by one where its epochs vary, else as their mean. Returns the new n.

    model (BLOCK,) and middle: the fit so far at the block's epochs and at their mean time.   settled : the noise is well known.
    """
    mean, varies = np.mean(flux), 0.0
    for i in range(BLOCK):
        varies += (flux[i] - mean) ** 2
    if settled and varies > VARIES * _variance(mean, photons):
        for i in range(BLOCK):
            t[n], y[n], w[n] = time[i], flux[i], 1 / _variance(flux[i], photons)
            n += 1
        return n
    t[n], y[n], w[n] = np.mean(time), middle + mean - np.mean(model), BLOCK / _variance(mean, photons)
    return n + 1


@numba.njit(cache=True, nogil=True)
def _take(state, t, f, table, out):
    """One block of one light curve: t, f (BLOCK,) into the state, and its channels into out (BLOCK, CHANNELS)."""
    bins = state[_HEAD:].reshape(3, MAX_BINS + BLOCK)
    bt, by, bw = bins[0], bins[1], bins[2]
    n = int(state[_N])
    if n == 0:
        state[_T0] = t[0]
        state[_FB] = np.mean(f)
    p, at = state[_P : _P + 4], np.empty(BLOCK + 1)
    at[:BLOCK], at[BLOCK] = t, np.mean(t)
    before = _curve(at, p, state[_EVENT], state[_FS], state[_FB], table)
    photons = _noise(state, t, f)
    settled = state[_SEEN] > NOISE_MEMORY
    n = _append(bt, by, bw, n, t, f, before[:BLOCK], before[BLOCK], photons, settled)
    if not settled:  # the first estimates of the noise are poor: the averages so far take the newest
        for i in range(n):
            bw[i] = BLOCK / _variance(by[i], photons)
    tn, yn, wn = bt[:n], by[:n], bw[:n]
    sw = swy = 0.0
    for i in range(n):
        sw += wn[i]
        swy += wn[i] * yn[i]
    mean, flat = swy / sw, 0.0
    for i in range(n):
        flat += wn[i] * (yn[i] - mean) ** 2
    if state[_SEEN] < FIRST:  # nothing to go by yet
        flat = n - 1.0
    fs, fb, chi2, n_par, model = 0.0, mean, flat, 1, np.full(n, mean)
    if state[_EVENT] == 0 and flat - n > STARTED:
        state[_EVENT], p[0], p[1], p[2], p[3] = 1.0, t[-1], 2.0, 0.3, POINT
        _search(tn, yn, wn, p, table, state[_T0] - AHEAD, t[-1] + AHEAD)
    if state[_EVENT] > 0:
        new = 0.0
        for i in range(BLOCK):
            new += f[i] - before[i]
        t_low, t_high = state[_T0] - AHEAD, t[-1] + AHEAD
        if new**2 > BLOCK * _variance(np.mean(f), photons) or state[_EVENT] % EVERY == 0:
            chi2 = _improve(tn, yn, wn, p, table, STEPS, t_low, t_high)
            if chi2 - n > max(AGAIN, AGAIN_BY * state[_SEARCHED]):
                _search(tn, yn, wn, p, table, t_low, t_high)
                state[_SEARCHED] = max(_improve(tn, yn, wn, p, table, 4 * STEPS, t_low, t_high) - n, AGAIN)
        state[_EVENT] += 1
        a, d = np.empty(n), np.empty((4, n))
        _model(tn, p, _shape(p), table, a, d)
        fs, fb, chi2 = _linear(a, yn, wn)
        n_par, model = 2 + _shape(p), fs * a + fb
    state[_FS], state[_FB] = fs, fb
    after = _curve(t, p, state[_EVENT], fs, fb, table)
    largest = run = 0.0
    for i in range(n):
        run += wn[i] * (yn[i] - model[i]) ** 2
        if i >= 3:
            run -= wn[i - 3] * (yn[i - 3] - model[i - 3]) ** 2
        largest = max(largest, run)
    if state[_SEEN] < FIRST:
        largest = 0.0
    out[:, 2], out[:, 3] = np.arcsinh((chi2 - n + n_par) / 10.0), np.arcsinh(largest / 10.0)
    out[:, 4], out[:, 5] = np.log10(photons), np.arcsinh((flat - n) / 10.0)
    for i in range(BLOCK):
        sigma = np.sqrt(_variance(after[i], photons))
        out[i, 0], out[i, 1] = np.arcsinh((f[i] - after[i]) / sigma), np.arcsinh((f[i] - before[i]) / sigma)
    if n > MAX_BINS - BLOCK:
        residual = yn - model
        n = _join(bt, residual, bw, model, n)
        by[:n] = _curve(bt[:n], p, state[_EVENT], fs, fb, table) + residual[:n]
    state[_N] = n


@numba.njit(cache=True, nogil=True)
def _advance(state, flux, delta_t, blocks, table, out):
    t = np.empty(BLOCK)
    for k in range(len(state)):
        for b in range(blocks[k]):
            for i in range(BLOCK):
                state[k, _T] += delta_t[k, b * BLOCK + i]
                t[i] = state[k, _T]
            part = slice(b * BLOCK, (b + 1) * BLOCK)
            _take(state[k], t, flux[k, part], table, out[k, part])


def advance(state, flux, delta_t, lengths=None) -> np.ndarray:
    """Take the next L epochs of n light curves; changes `state` (n, STATE) in place.

    flux (n, L) F/F_base and delta_t (n, L) days of valid epochs; lengths (n,): how many of them each curve has, unset = L. Only whole
    blocks count, so L must be a multiple of BLOCK in all but the last call.
    Returns (n, L, CHANNELS) float32; 0 beyond the last whole block.
    """
    flux, delta_t = np.ascontiguousarray(flux, dtype=float), np.ascontiguousarray(delta_t, dtype=float)
    lengths = np.full(len(flux), flux.shape[1]) if lengths is None else np.asarray(lengths)
    out = np.zeros((*flux.shape, CHANNELS), np.float32)
    _advance(state, flux, delta_t, lengths // BLOCK, _b0_table(), out)
    return out
