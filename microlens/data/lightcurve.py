"""A light curve of any telescope, and its seasons as the network reads them.

    for season in seasons(read_light_curve("blg-0006_phot.dat")):
        flux, delta_t, flux_err = season.flux, season.delta_t, season.flux_err

The baseline is estimated from all seasons. First the quiet flux: epochs are averaged in bins of a quarter day, the
fainter half of the bins is taken, bins more than 3 robust standard deviations above its median are dropped until none
is, and the median of the rest is the quiet flux. An event in progress at both ends of the data never shows its
baseline, so a single lens is then fitted to the bins, and its source plus blend flux is taken where t_E is not short
against the data (a short event shows its baseline) and the result is within a factor of the quiet flux.

The network reads the flux alone and takes all epochs to be equally good: where a few are worse, their noise is an
event to it. So an epoch whose reported error is many times that of others is left out, and one whose error is clearly
above is joined with those that follow, until their mean is as good as one of the others. Errors and errors relative to
the flux are compared, so that neither a peak nor the trough between two is taken for poor epochs (error_ratio).

The network has seen seasons of 72 d at an epoch every 12 to 15 minutes. So a faster curve is averaged to Roman's
cadence, and a dense season that is longer than LONGEST_SEASON, or one of more than MOST_EPOCHS epochs, is cut into
equal spans no longer than Roman's season; all have the one baseline of the curve, so an event on an edge is seen as
an event by both spans. A curve too sparse for the network is left whole: its answer means nothing anyway, and the
flag `sparse` says so.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field

import numpy as np
from scipy.ndimage import median_filter

from microlens.data.tables import LightCurveError
from microlens.fit import fit_single_lens
from microlens.sky import MAG_PER_RELATIVE_FLUX, SATURATION_MAG

MIN_POINTS = 20
BIN = 0.25  # d
SHORTEST, LONGEST = 0.04, 1.5  # t_E for which the baseline is fitted, in lengths of the data: shorter events show it
LOWEST, HIGHEST = 0.4, 1.05  # believable baseline of the fit / quiet flux
LEAST_BASELINE = 2.0  # baseline in errors of one epoch; a fainter one is a difference flux or cannot be told from it
ERROR_TOLERANCE = 0.1  # errors off by more than this from the scatter of neighbours are rescaled
QUANTISED = 0.3  # share of neighbours with equal brightness, from which steps of the numbers hide the scatter
SPARSE, COVERED = 1 / 24, 0.5  # d, share: a season is sparse where steps up to the one cover less than the other of it
SEASON_GAP = 30.0  # d; a longer time without an epoch ends a season
CADENCE = 12.1 / 1440  # d; Roman's, to which faster curves are averaged
FAST = 0.5  # a curve is faster where its median step is shorter than this share of CADENCE
LONGEST_SEASON, SPAN = 120.0, 72.0  # d: a dense season longer than the one is cut into spans no longer than the other
MOST_EPOCHS = 8300  # of one span; a Roman season of 70.7 d has 8414 epochs before F087 and F213 take theirs
POOR = 5.0  # an epoch's error, in those of its neighbours, above which it is left out
LARGE = 1.5  # an epoch's error, in those of its neighbours or of the season, above which it is joined with the next
NEIGHBOURS = 49  # epochs, half a day of Roman's, that the errors are compared with
CERTAIN = 3.0  # errors that a flux is lessened by where it is asked whether it is above the baseline
MOST_JOINED = 12  # epochs that become one; of Roman's 2.4 h
LONGEST_JOINED_STEP = 3.0  # in median steps of the season; no longer one lies within epochs that become one
FAINTEST_ROMAN, BRIGHTEST_ROMAN = 35.0, 5.0  # mag; baselines outside are relative magnitudes


@dataclass(frozen=True)
class LightCurve:
    """time (n,) days ascending; value and error (n,) in `unit` 'mag' or 'flux'; what was done to it in `notes`.

    name : of the file.   star, band : of the curve in it, '' where there is only one.
    zero_point : AB magnitude of flux 1, if known.
    truth : what a table of events beside the file says of it (sim_label, t0lens1 ...).
    """

    name: str
    time: np.ndarray
    value: np.ndarray
    error: np.ndarray
    unit: str
    time_system: str
    notes: list[str] = field(default_factory=list)
    star: str = ""
    band: str = ""
    zero_point: float | None = None
    truth: dict = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Name of the curve in its file: star and band, or the file's name."""
        return " ".join(w for w in (self.star, self.band) if w) or self.name

    @property
    def title(self) -> str:
        """Name of the file, with the star and band in it where there are several."""
        return self.name if self.label == self.name else f"{self.name}, {self.label}"


@dataclass(frozen=True)
class Season:
    """One season as the network reads it: flux (n,) F/F_base, delta_t (n,) days, flux_err (n,).

    sparse : its cadence is none that the network knows.   long : it is a span of a longer season.
    """

    name: str
    number: int
    time: np.ndarray
    flux: np.ndarray
    delta_t: np.ndarray
    flux_err: np.ndarray
    m_base: float | None
    saturated: bool
    sparse: bool
    time_system: str
    note: str = ""
    long: bool = False

    @property
    def brightest(self) -> float:
        """Fifth-largest F/F_base, which no single outlier sets."""
        return float(np.sort(self.flux)[-min(5, len(self.flux))])


def to_flux(value, error, unit: str):
    """Fluxes and errors (n,) of values in `unit` 'mag' or 'flux', and the magnitude of flux 1 (None for fluxes)."""
    if unit == "flux":
        return value, error, None
    reference = float(np.median(value))
    flux = 10 ** (-0.4 * (value - reference))
    return flux, flux * error / MAG_PER_RELATIVE_FLUX, reference


def _bin_means(time, *values):
    """Means of time and values (n,) in bins of BIN days, and the number in each bin."""
    _, index = np.unique(np.floor((time - time[0]) / BIN).astype(int), return_inverse=True)
    n = np.bincount(index)
    return [np.bincount(index, v) / n for v in (time, *values)], n


def quiet_flux(time, flux) -> float:
    """Flux of the faint, quiet part of a light curve: step one of the module docstring. Too bright if the event never
    ends.
    """
    (_, bins), _ = _bin_means(time, flux)
    low = np.sort(bins)[: max(len(bins) // 2, min(len(bins), 5))]
    # The lower half of pure noise lies below the baseline; mirror it at its upper edge, the median of all bins.
    centre = low[-1]
    spread = 1.4826 * np.median(np.abs(low - centre)) if len(low) > 1 else 0.0
    kept = bins
    for _ in range(20):
        inside = kept[kept <= centre + 3 * max(spread, 1e-12 * abs(centre))]
        if len(inside) == len(kept) or len(inside) < 3:
            break
        kept = inside
        centre = np.median(kept)
        spread = 1.4826 * np.median(np.abs(kept - centre))
    return float(centre)


def baseline_flux(time, flux, error) -> float:
    """Flux of the baseline, robustly: see the module docstring. time (n,) days; flux, error (n,), any linear unit."""
    quiet = quiet_flux(time, flux)
    (t, f, e), n = _bin_means(time, flux, error)
    if not quiet > 0 or len(t) < 10:
        return quiet
    fit = fit_single_lens(t, f / quiet, e / quiet / np.sqrt(n))
    fitted = fit.f_source + fit.f_blend
    in_progress = SHORTEST < fit.t_E / (time[-1] - time[0]) < LONGEST
    believable = fit.f_source > 0 and in_progress and LOWEST < fitted < HIGHEST
    return float(fitted * quiet) if believable else quiet


def neighbour_scatter(value) -> float:
    """Standard deviation of the noise of values (n,), n > 2, from their second differences; never 0."""
    steps = np.abs(np.diff(value, 2)) / math.sqrt(6)
    scatter = np.median(steps) / 0.6745 or np.mean(steps)  # half of all normal deviates are within 0.6745
    return float(scatter or 1e-3 * max(abs(np.median(value)), 1e-12))


def error_scale(flux, error) -> float:
    """Factor that brings reported errors (n,) to the scatter of neighbouring fluxes (n,), robustly.

    Of a densely sampled curve second differences are noise alone, so half of them lie within 0.6745 of their error.
    The factor is 1 for fewer than MIN_POINTS epochs, and for a constant or quantised curve, which shows the step of
    its numbers and not its noise.
    """
    if len(flux) < MIN_POINTS or is_quantised(flux):
        return 1.0
    expected = np.sqrt(error[:-2] ** 2 + 4 * error[1:-1] ** 2 + error[2:] ** 2)
    return float(np.median(np.abs(np.diff(flux, 2)) / expected) / 0.6745) or 1.0


def is_quantised(flux) -> bool:
    """Whether many neighbours among fluxes (n,) are equal: the numbers are rounded to steps as large as their noise."""
    return bool(np.mean(np.diff(flux) == 0) > QUANTISED)


def seasons(curve: LightCurve) -> list[Season]:
    """Split at gaps longer than SEASON_GAP and bring each season to the network's input, one baseline for all.

    A season that is longer than the network's is cut into spans, and a faster cadence averaged; see the module
    docstring. Raises LightCurveError if the baseline flux is not positive, or lost in the errors of single epochs.
    """
    flux, error, zero_point = to_flux(curve.value, curve.error, curve.unit)
    zero_point = curve.zero_point if zero_point is None else zero_point
    quiet, typical = quiet_flux(curve.time, flux), float(np.median(error))
    base = baseline_flux(curve.time, flux, error) if quiet > LEAST_BASELINE * typical else quiet
    if not base > LEAST_BASELINE * typical:
        raise LightCurveError(f"{curve.title}: its baseline flux, {base:.3g}, is not above the error of one epoch, "
                              f"{typical:.3g}, as that of difference fluxes; fluxes with a positive baseline are "
                              "needed. Add the reference flux, or choose another column with --value.")
    m_base = zero_point - 2.5 * math.log10(base) if zero_point is not None else None
    flux, error = flux / base, error / base
    out = []
    for part, long in _spans(curve.time):
        poor, notes = error_ratio(flux[part], error[part], _median_of_neighbours) > POOR, []
        epochs = _at_roman_cadence(*(values[part][~poor] for values in (curve.time, flux, error)), notes)
        if poor.any():
            notes.append(f"{poor.sum()} epochs left out: their errors are over {POOR:g} times those of others")
        epochs = _with_large_errors_joined(*epochs, notes)
        out.append(_season(curve, len(out) + 1, *epochs, m_base, notes, long))
    return out


def error_ratio(flux, error, median) -> np.ndarray:
    """How many times the error of each epoch (n,) is that of others.

    flux, error : (n,) F/F_base.   median : takes values (n,) to those of others, (n,) or one for all.
    The error is compared with the median error, and the error relative to the flux above the baseline with the median
    of these; the smaller ratio of the two counts. Errors of a detector grow with the flux, and relative to it they
    fall. So an epoch brighter than the others has no larger relative error than they have, and a fainter one no larger
    error. A flux counts as above the baseline by what is more than noise.
    """
    relative = error / np.maximum(flux - CERTAIN * error, 1.0)
    return np.minimum(error / median(error), relative / median(relative))


def _median_of_neighbours(values) -> np.ndarray:
    return median_filter(values, min(NEIGHBOURS, len(values)), mode="nearest")


def _with_large_errors_joined(time, flux, error, notes: list[str]):
    """The arrays (n,) as they are, or with the epochs of large errors joined.

    Errors are compared with those of the neighbours and of the season: a long stretch of large errors is its own
    neighbour. It is not left out, because the network takes a pause in an event for an anomaly.
    Of epochs that become one the mean flux is taken, at that of their times which is nearest to their mean: a folder of
    stars that were observed together keeps its times. Weights are the inverse squares of the errors. A sparse season
    stays as it is.
    """
    if is_sparse(time):
        return time, flux, error
    ratio = np.maximum(error_ratio(flux, error, _median_of_neighbours), error_ratio(flux, error, np.median))
    groups = list(_groups_to_join(time, ratio))
    if not groups:
        return time, flux, error
    time, flux, error, kept = time.copy(), flux.copy(), error.copy(), np.ones(len(time), dtype=bool)
    for start, stop in groups:
        group, weight = slice(start, stop), error[start:stop] ** -2
        time[start] = time[group][np.argmin(np.abs(time[group] - np.average(time[group], weights=weight)))]
        flux[start] = np.average(flux[group], weights=weight)
        error[start] = weight.sum() ** -0.5
        kept[start + 1 : stop] = False
    n_joined = len(groups) + int((~kept).sum())
    notes.append(f"{n_joined} epochs joined to {len(groups)}: errors over {LARGE:g} times those of others")
    return time[kept], flux[kept], error[kept]


def _groups_to_join(time, ratio):
    """Yield the first epoch and the one after the last of each group of epochs that become one, in order.

    time : (n,) d.   ratio : (n,) of the errors to those of others.
    A group begins with an epoch above LARGE and ends where its mean is as good as one of the others, where it has
    MOST_JOINED epochs, or before a step that is too long. It is then joined as it is: a mean of 12 epochs of 4.5 times
    the error is better than they are.
    """
    step = np.diff(time)
    goes_on = np.append(step <= LONGEST_JOINED_STEP * np.median(step), False) if len(step) else [False]
    stop = 0
    for start in np.flatnonzero(ratio > LARGE):
        if start < stop:
            continue
        stop, information = start + 1, ratio[start] ** -2
        while information < 1 and goes_on[stop - 1] and stop - start < MOST_JOINED:
            information += ratio[stop] ** -2
            stop += 1
        if stop - start > 1:
            yield start, stop


def _spans(time):
    """Yield (slice, whether it is cut from a longer season) of each season, in order."""
    edges = [0, *(np.flatnonzero(np.diff(time) > SEASON_GAP) + 1), len(time)]
    for start, stop in itertools.pairwise(edges):
        t = time[start:stop]
        length = t[-1] - t[0]
        n_epochs = len(np.unique((t - t[0]) // CADENCE)) if _is_fast(t) else len(t)  # at Roman's cadence
        pieces = math.ceil(n_epochs / MOST_EPOCHS)
        if length > LONGEST_SEASON and not is_sparse(t):
            pieces = max(pieces, math.ceil(length / SPAN))
        cuts = start + np.searchsorted(t, t[0] + length * np.arange(1, pieces) / pieces) if pieces > 1 else []
        ends = [start, *cuts, stop]
        for a, b in itertools.pairwise(ends):
            if b > a:
                yield slice(a, b), pieces > 1


def is_sparse(time) -> bool:
    """Whether steps no longer than SPARSE cover less than COVERED of the times (n,)."""
    step = np.diff(time, prepend=time[0])
    return bool(step[step <= SPARSE].sum() < COVERED * (time[-1] - time[0]))


def _is_fast(time) -> bool:
    return len(time) > MIN_POINTS and float(np.median(np.diff(time))) < FAST * CADENCE


def _at_roman_cadence(time, flux, error, notes: list[str]):
    """The arrays (n,) as they are, or weighted means in bins of CADENCE where the cadence is faster."""
    if not _is_fast(time):
        return time, flux, error
    _, index = np.unique((time - time[0]) // CADENCE, return_inverse=True)
    weight = 1 / np.square(error)
    total = np.bincount(index, weight)
    means = [np.bincount(index, weight * values) / total for values in (time, flux)]
    notes.append(f"{len(time)} epochs averaged to {len(total)}, Roman's cadence")
    return *means, 1 / np.sqrt(total)


def _season(curve: LightCurve, number: int, time, flux, error, m_base, notes: list[str], long: bool) -> Season:
    """A season of the curve; flux and error (n,) relative to the baseline; notes : what was done to it so far.

    The network takes the noise from the scatter of neighbours, and where rounding hides it, one step looks like an
    event. So a quantised season gets noise of the size of its errors, always the same.
    """
    sparse = is_sparse(time)
    if len(time) >= MIN_POINTS and is_quantised(flux):
        flux = flux + error * np.random.default_rng(number).normal(size=len(flux))
        notes.append("rounded numbers: noise of the size of the errors added")
    f = flux.astype(np.float32)
    f[f == 0] = np.finfo(np.float32).tiny  # 0 stands for "no observation"
    scale = 1.0 if sparse else error_scale(f.astype(float), error)
    known_to = 1.2 / math.sqrt(len(time))  # standard deviation of the scale
    if abs(scale - 1) > max(ERROR_TOLERANCE, 5 * known_to):
        error = error * scale
        notes.append(f"errors x {scale:.2f}, from the scatter of neighbours")
    absolute = m_base is not None and BRIGHTEST_ROMAN < m_base < FAINTEST_ROMAN
    saturated = absolute and m_base - 2.5 * math.log10(max(float(f.max()), 1e-30)) < SATURATION_MAG
    delta_t = np.diff(time, prepend=time[0]).astype(np.float32)
    return Season(curve.name, number, time, f, delta_t, error.astype(np.float32), m_base, bool(saturated), sparse,
                  curve.time_system, "; ".join(notes), long)
