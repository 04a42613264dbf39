"""New epochs of many stars -> their saved state, and the alerts that they raise.

    counts = stream_nights(["night.parquet"], StreamConfig(state="stars.h5"), print)

Every star has a Stream of its own whose state is one row of a file (microlens.data.states). A run reads new epochs,
takes them into the states piece by piece, and writes all states into a new file that takes the old one's place at the
very end. So a run that is killed has changed nothing, and the same command does its work from the beginning. Alerts are
handed out right before the new file takes its place: a killed run may have printed alerts that its repetition prints
again, each with the same numbers, and none is lost.

An epoch that is not later than its star's last one has been counted already and is left out. A star whose epochs pause
for more than SEASON_GAP begins a new season: its stream begins again, and it may raise another alert. The alert rule is
that of the evaluation (microlens.network.predict): P(binary) at or above the run's threshold for PERSISTENCE steps.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from microlens import files as package_files
from microlens.config import BINARY, CLASSES, PERSISTENCE, PURITY, StreamConfig
from microlens.data.joining import WAITING, joined
from microlens.data.lightcurve import CADENCE, COVERED, FAST, LARGE, POOR, SEASON_GAP, SPARSE, error_ratio
from microlens.data.nights import Epochs, read_epochs
from microlens.data.readers import LONGEST_SPAN, no_measurement
from microlens.data.states import PIECE, States, new_states
from microlens.evaluate.calibration import read_calibration
from microlens.evaluate.thresholds import alert_threshold
from microlens.fit import running
from microlens.network.predict import sustained
from microlens.network.runs import Run, load_run
from microlens.network.stream import FIT, Stream

log = logging.getLogger("microlens")
N_REFERENCE = 32
"""Epochs whose median is the reference flux of a star that has no column `baseline`. The running fit has nothing to go
by before that many, and with more the answers are not better (`python -m benchmarks.bench reference_flux`)."""
STREAM = "stream/"  # in front of the names of a stream's arrays in the file
BASELINE_TOLERANCE = 0.01  # by which a stated baseline may differ from the reference flux without a note
COLUMNS_AT_ONCE = 1024  # epochs of a star that are in memory as one row of a table
STAR = np.dtype([
    ("time", "f8"),       # d, of the last epoch
    ("fed", "f8"),        # d, of the last one that the stream has seen; NaN before the first
    ("start", "f8"),      # d, of the first epoch of the season; NaN where the stream has not begun
    ("reference", "f8"),  # the flux that is 1 to the network; NaN while the first epochs wait, 0 where they give none
    ("error", "f8"),      # median error of the first N_REFERENCE epochs, F/F_base; NaN before them or without errors
    ("covered", "f8"),    # d of the season in steps no longer than SPARSE
    ("alert", "f8"),      # d, when the season's alert was raised; NaN without one
    ("n_held", "i8"),     # epochs that wait for the reference flux
    ("n_counted", "i8"),  # epochs that were counted, in all seasons
    ("n_season", "i8"),   # and in this one
    ("waiting", WAITING),  # epochs of large errors that wait for others
    # P(binary) after the last network steps, 0 before the first
    ("recent", "f4", (PERSISTENCE - 1,)),
])
"""What the file knows of a star beside the state of its stream. Times are as in the epochs' files."""
OF_THE_FILES = {"unit": "unit", "band": "band", "zero": "Julian date of time 0"}
"""What a state keeps of the files of its epochs, as in Epochs, and its words."""
NEW = np.dtype([("star", "i8"), ("time", "f8"), ("flux", "f8"), ("error", "f8"), ("baseline", "f8")])
"""A new epoch: the row of its star, time, flux and its error, stated baseline."""


def stream_nights(files, config: StreamConfig, report: Callable[[str], None], run: Run | None = None) -> Counter:
    """Take the epochs in `files` into the state of every star; returns how many stars, epochs and alerts there were.

    report : called once with all new alerts as text, lines of JSON or a table in CSV, before the state is changed for
    good; where it raises, the state stays as it was. Raises ValueError, or one of its kinds, in one line that says what
    to do, for unreadable files and for a state that is damaged or of another network, unit, band or zero of time.
    """
    torch.set_num_threads(1)  # the network gains nothing from more, and a product's rounding depends on their number
    run, path = run or load_run(config.experiment_name), Path(config.state)
    calibration = None if config.calibration is None else read_calibration(config.calibration, run)
    threshold = alert_threshold(run.validation) if calibration is None else calibration.alert
    epochs = read_epochs(files, config)
    night = _Night(run, epochs, threshold)
    alone = package_files.lock_in_turn(path.with_name(f".{path.name}.lock"), f"another run is at work on {path}")
    with alone, contextlib.ExitStack() as opened:
        old = opened.enter_context(States(path)) if path.exists() else None
        if old is not None:
            _check_same(old, night.attrs)
            old.check(night.layout)
        night.take(path, old, lambda alerts: report(_as_text(alerts, night.columns, config.format)))
    for line in night.summary():
        log.info("%s", line)
    return night.counts


def read_stars(path) -> pd.DataFrame:
    """What a state says of its stars: star, time of the last epoch, n_counted epochs, reference flux, when the season's
    alert was raised (NaN without one), and the probabilities p_<class> so far. Times are in days, as in the files.

    Raises FileNotFoundError, or DatasetError naming file and cause.
    """
    with States(path) as states:
        states.check({"star": (STAR, ())})
        stars, p = states.read("star", slice(None)), np.exp(states.read(STREAM + "log_p", slice(None)).astype(float))
        columns = {name: stars[name] for name in ("time", "n_counted", "reference", "alert")}
        columns |= {f"p_{name}": p[:, c] for c, name in enumerate(CLASSES[: p.shape[1]])}
        return pd.DataFrame({"star": states.names, **columns})


def _check_same(old: States, attrs: dict):
    """Raise ValueError where a state is of another network, or of epochs that differ in one of OF_THE_FILES."""
    theirs = old.attrs
    if theirs["network"] != attrs["network"]:
        raise ValueError(f"{old.path}: is the state of another network ({theirs['run']}, {theirs['network'][:8]}) and "
                         f"cannot go on with {attrs['run']} ({attrs['network'][:8]}). Name that one with "
                         "--experiment-name, or begin a new state with --state.")
    for what, words in OF_THE_FILES.items():
        if theirs[what].lower() != attrs[what].lower() and theirs[what] and attrs[what]:
            raise ValueError(f"{old.path}: its epochs had the {words} {theirs[what]}, those of the new files have "
                             f"{attrs[what]}. Give files of one {words}, or begin a new state with --state.")


def _as_text(alerts: list[dict], columns: list[str], form: str) -> str:
    """The alerts as lines of JSON, or as a table in CSV with its header; what is not known is null or empty."""
    if form == "csv":
        return pd.DataFrame(alerts, columns=columns).to_csv(index=False)
    known = [{k: None if isinstance(v, float) and math.isnan(v) else v for k, v in a.items()} for a in alerts]
    return "".join(f"{json.dumps(alert)}\n" for alert in known)


def _rounded(x, digits: int) -> float:
    return float(f"{float(x):.{digits}g}")


class _Night:
    """One run over new epochs: what it needs of the network, and what it finds (alerts, counts)."""

    def __init__(self, run: Run, epochs: Epochs, threshold: float):
        self.network, self.epochs = run.network, epochs
        self.threshold = threshold
        network = hashlib.sha256(f"{run.digest} {running.STATE.descr}".encode()).hexdigest()  # and the fit it reads
        self.attrs = {"network": network, "run": run.name, **{what: getattr(epochs, what) for what in OF_THE_FILES}}
        unknown = np.zeros(1, STAR)
        for name in ("time", "fed", "start", "reference", "error", "alert"):
            unknown[name] = np.nan
        self.blank = {"star": unknown, "held": np.zeros((1, N_REFERENCE, 3)), **_arrays_of(Stream(run.network, 1))}
        self.layout = {name: (array.dtype, array.shape[1:]) for name, array in self.blank.items()}
        self.classes = CLASSES[: self.blank[STREAM + "log_p"].shape[1]]
        self.columns = ["star", "time", *(f"p_{name}" for name in self.classes), *FIT, "flags"]
        self.alerts, self.counts = [], Counter()

    def take(self, path: Path, old: States | None, report: Callable[[list[dict]], None]):
        """Take the epochs into the states `old` (None: there are none yet) and write the new states to `path`.

        report : called with the alerts before the new file takes its place.
        """
        names, rows = self._rows_of(old)
        last = np.full(len(names), np.nan)
        attrs = dict(self.attrs)
        if old is not None:
            last[: len(old)] = old.read("star", slice(None))["time"]
            attrs |= {what: old.attrs[what] for what in OF_THE_FILES if old.attrs[what]}
        new = self._later(rows, last)
        self.counts["stars"], self.counts["new stars"] = len(names), len(names) - (len(old) if old is not None else 0)
        if not len(new):
            report([])
            return
        with new_states(path, names, self.layout, attrs, sparse=("held",)) as write:
            for start in range(0, len(names), PIECE):
                piece = slice(start, min(start + PIECE, len(names)))
                arrays = self._piece(old, piece)
                first, end = np.searchsorted(new["star"], [piece.start, piece.stop])
                self._take_piece(names[piece], arrays, new[first:end], start)
                self.counts["waiting"] += int(np.sum(arrays["star"]["n_held"] > 0))
                write(piece, arrays)
            self.alerts.sort(key=lambda alert: (alert["time"], alert["star"]))
            self.counts["alerts"] = len(self.alerts)
            report(self.alerts)

    def _rows_of(self, old: States | None) -> tuple[np.ndarray, np.ndarray]:
        """Names (N,) of all stars, new ones behind the others in alphabetical order, and the row (n,) of each epoch."""
        epochs = self.epochs
        seen = np.bincount(epochs.star, minlength=len(epochs.names)) > 0
        known = np.array([], dtype=np.str_) if old is None else old.names
        names = np.concatenate([known, np.setdiff1d(epochs.names[seen], known)])
        if not len(names):
            return names, epochs.star
        order = np.argsort(names)
        place = order[np.minimum(np.searchsorted(names, epochs.names, sorter=order), len(names) - 1)]
        return names, place[epochs.star]

    def _later(self, rows, last) -> np.ndarray:
        """The epochs, NEW (n,), in the order of row and time, without those that are not later than their star's last
        one, `last` (N,) d, or than the epoch before them.
        """
        order = np.lexsort((self.epochs.time, rows))
        new = np.empty(len(order), NEW)
        new["star"] = rows[order]
        for name in NEW.names[1:]:
            new[name] = getattr(self.epochs, name)[order]
        times = np.concatenate([new["time"], last[np.isfinite(last)]])
        if len(times) and np.ptp(times) > LONGEST_SPAN:
            raise ValueError(f"the epochs in the files and in the state span {np.ptp(times):.0f} d, so some times are "
                             "in another system or unit. Bring all to one, or begin a new state with --state.")
        later = _is_first(new["star"]) | (np.diff(new["time"], prepend=-np.inf) > 0)
        kept = later & ~(new["time"] <= last[new["star"]])
        self.counts["epochs"], self.counts["known already"] = int(kept.sum()), int((~kept).sum())
        self.counts["contradicted"] = int((~later & (np.diff(new["flux"], prepend=np.nan) != 0)).sum())
        return new if kept.all() else new[kept]

    def _piece(self, old: States | None, piece: slice) -> dict[str, np.ndarray]:
        """The arrays of the stars in `piece`: those of the old states, and behind them new ones."""
        n_old = 0 if old is None else min(max(len(old) - piece.start, 0), piece.stop - piece.start)
        n_new, part = piece.stop - piece.start - n_old, slice(piece.start, piece.start + n_old)
        fresh = {name: np.repeat(array, n_new, axis=0) for name, array in self.blank.items()}
        return {name: np.concatenate([old.read(name, part), fresh[name]]) if n_old else fresh[name] for name in fresh}

    def _take_piece(self, names, arrays: dict[str, np.ndarray], new, start: int):
        """Take epochs into the arrays of a piece, whose first star is row `start` of all."""
        if not len(new):
            return
        new = new.copy()
        active, new["star"] = np.unique(new["star"] - start, return_inverse=True)
        stars = _Stars(self, names[active], {name: array[active] for name, array in arrays.items()})
        stars.take(new)
        for name, array in stars.arrays().items():
            arrays[name][active] = array

    def summary(self) -> list[str]:
        """What happened, in lines for the user."""
        c = self.counts
        lines = [f"{c['stars']} stars ({c['new stars']} new), {c['epochs']} epochs counted, {c['alerts']} new alerts"]
        found = [
            (c["known already"], "epochs left out: they are not later than their star's last one"),
            (c["contradicted"], "of these have another brightness than the epoch of the same star and time that was "
                                "counted: are several bands or apertures mixed?"),
            *((n, f"rows left out {cause}") for cause, n in self.epochs.dropped.items()),
            (c["waiting"], f"stars wait for their first {N_REFERENCE} epochs, whose median is their reference flux"),
            (c["no measurement"], "epochs left out: their brightness is 0 or of nines alone, as where nothing was "
                                  "measured"),
            (c["poor"], f"epochs left out: their errors are over {POOR:g} times those of their star's first ones"),
            (c["without a reference flux"], "epochs of stars without a positive reference flux, which cannot be "
                                            "judged"),
            (c["stars of another baseline"], "stars are stated with another baseline than the reference flux that was "
                                             "fixed by their first epochs, which they keep"),
        ]
        lines += [f"{n} {words}" for n, words in found if n]
        if not np.isfinite(self.threshold):
            lines.append(f"{self.attrs['run']} raises no alerts: on its validation rows no threshold reached a purity "
                         f"of {PURITY:g}")
        return lines


class _Stars:
    """The stars of one piece that have new epochs: what is known of them, and their streams."""

    def __init__(self, night: _Night, names, arrays: dict[str, np.ndarray]):
        """names (m,) and arrays (m, ...) of the stars, as in the file; the arrays are changed."""
        self.night, self.names, self.known, self.held = night, names, arrays["star"], arrays["held"]
        state = {name.removeprefix(STREAM): torch.from_numpy(array) for name, array in arrays.items()
                 if name.startswith(STREAM)}
        self.stream = Stream(night.network, len(names)).restore(state)

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays of the stars as they are now."""
        return {"star": self.known, "held": self.held, **_arrays_of(self.stream)}

    def take(self, new):
        """Take new epochs, in the order of star and time, of every star."""
        known, counts = self.known, self.night.counts
        new = self._with_held(new)
        begins, ends = _bounds(new["star"], len(known))
        for k in np.flatnonzero(np.isnan(known["reference"])):
            self._begin_or_hold(k, new[begins[k] : ends[k]])
        known["time"] = new["time"][ends - 1]
        reference = known["reference"][new["star"]]
        counts["without a reference flux"] += int((reference == 0).sum())
        judged = reference > 0
        other = judged & (np.abs(new["baseline"] - reference) > BASELINE_TOLERANCE * reference)
        counts["stars of another baseline"] += len(np.unique(new["star"][other]))
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            in_magnitudes = self.night.attrs["unit"] == "mag"
            as_in_file = -2.5 * np.log10(new["flux"]) if in_magnitudes else new["flux"]
            none = no_measurement(as_in_file, new["flux"] / reference, new["error"] / reference) & judged
        counts["no measurement"] += int(none.sum())
        new, reference = new[judged & ~none], reference[judged & ~none]
        star = new["star"]
        number = known["n_counted"][star] + np.arange(len(star)) - _bounds(star, len(known))[0][star]
        known["n_counted"] += np.bincount(star, minlength=len(known))
        with np.errstate(over="ignore"):
            flux, error = new["flux"] / reference, new["error"] / reference
            self._learn_typical_errors(star, error, number)
            ratio = error_ratio(flux, error, lambda values: known["error"][star])
            ratio[number < N_REFERENCE] = np.nan  # nothing was known to compare them with
            self._feed(*self._equally_good(star, new["time"], flux, ratio))

    def _learn_typical_errors(self, star, error, number):
        """Let the median error of a star's first N_REFERENCE epochs be its typical one, as soon as there are so many.

        star, error (n,) of new epochs, in F/F_base.   number (n,) : how many epochs of the star came before each.
        """
        first = number < N_REFERENCE
        self.held[star[first], number[first], 2] = error[first]
        complete = np.unique(star[number == N_REFERENCE - 1])
        self.known["error"][complete] = np.median(self.held[complete, :, 2], axis=1)
        self.held[complete] = 0.0

    def _equally_good(self, star, time, flux, ratio):
        """(star, time, flux): the epochs (n,) without those whose errors are over POOR times the typical one of their
        star, and with those of other large errors joined.

        flux (n,) F/F_base.   ratio (n,) of the errors to the typical one, NaN where none is known.
        """
        poor = ratio > POOR
        self.night.counts["poor"] += int(poor.sum())
        star, time, flux, ratio = (array[~poor] for array in (star, time, flux, ratio))
        to_join = self.known["waiting"]["n"] > 0
        to_join[star[ratio > LARGE]] = True
        parts, begins_ends = [], np.transpose(_bounds(star, len(self.known)))
        for k in np.flatnonzero(to_join):
            own = slice(*begins_ends[k])
            t, f, self.known["waiting"][k] = joined(self.known["waiting"][k], time[own], flux[own], ratio[own])
            parts.append((np.full(len(t), k), t, f))
        if not parts:
            return star, time, flux
        as_they_are = ~to_join[star]
        parts.append((star[as_they_are], time[as_they_are], flux[as_they_are]))
        star, time, flux = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        order = np.argsort(star, kind="stable")
        return star[order], time[order], flux[order]

    def _with_held(self, new) -> np.ndarray:
        """The new epochs with those that have waited in front of them."""
        star, place = np.nonzero(np.arange(N_REFERENCE) < self.known["n_held"][:, None])
        held = np.empty(len(star), NEW)
        held["star"], held["baseline"] = star, np.nan
        held["time"], held["flux"], held["error"] = self.held[star, place].T
        both = np.concatenate([held, new])
        return both[np.argsort(both["star"], kind="stable")]

    def _begin_or_hold(self, k: int, epochs):
        """Fix the reference flux of star k by its first epochs, or keep these where they are too few."""
        self.known["reference"][k] = _reference(epochs["flux"], epochs["baseline"])
        self.known["n_held"][k], self.held[k] = 0, 0.0
        if np.isnan(self.known["reference"][k]):
            self.known["n_held"][k] = n = len(epochs)
            self.held[k, :n] = np.column_stack([epochs["time"], epochs["flux"], epochs["error"]])

    def _feed(self, star, time, flux):
        """Feed epochs (n,), flux as F/F_base, to the streams, season by season."""
        flux = flux.astype(np.float32)
        flux[flux == 0] = np.finfo(np.float32).tiny  # 0 stands for "no observation"
        previous = np.where(_is_first(star), self.known["fed"][star], np.concatenate([[np.nan], time])[:-1])
        self.known["fed"][star] = time  # the last one of each star stays
        delta_t = time - previous
        opens = ~(delta_t <= SEASON_GAP)  # whether a season begins with this epoch
        delta_t[opens] = 0.0
        season = pd.Series(opens).groupby(star).cumsum().to_numpy(int)  # 0 is the one that goes on
        for number in range(season.max(initial=-1) + 1):
            chosen = season == number
            begun = chosen & opens
            self._begin_season(star[begun], time[begun])
            self._feed_season(star[chosen], time[chosen], flux[chosen], delta_t[chosen])

    def _begin_season(self, rows, time):
        """Let a season of the stars `rows` (k,) begin at the times (k,)."""
        self.stream.begin_again(rows)
        known, p_binary = self.known, self.stream.probabilities[rows, BINARY]
        known["start"][rows], known["alert"][rows] = time, np.nan
        for name in ("covered", "n_season", "recent"):
            known[name][rows] = 0
        known["recent"][rows, -1] = p_binary  # before the first step

    def _feed_season(self, star, time, flux, delta_t):
        """Feed epochs (n,) of one season to the streams, as tables with one row a star."""
        begins, ends = _bounds(star, len(self.known))
        place = np.arange(len(star)) - begins[star]
        for column in range(0, int((ends - begins).max(initial=0)), COLUMNS_AT_ONCE):
            chosen = (place >= column) & (place < column + COLUMNS_AT_ONCE)
            at = star[chosen], place[chosen] - column
            shape = len(self.known), int(at[1].max()) + 1
            f, dt, t = np.full(shape, np.nan, np.float32), np.zeros(shape), np.full(shape, np.nan)
            f[at], dt[at], t[at] = flux[chosen], delta_t[chosen], time[chosen]
            steps = np.where(dt <= SPARSE, dt, 0.0)
            steps[:, 0] += self.known["covered"]
            covered = np.cumsum(steps, axis=1)  # one sum after another, so that pieces of a night give the same bits
            counted = self.known["n_season"][:, None] + np.cumsum(np.isfinite(t), axis=1)

            def after_step(rows, end, t=t, covered=covered, counted=counted):
                self._after_step(rows, t[rows, end], covered[rows, end], counted[rows, end])

            self.stream.update(f, dt, after_step)
            self.known["covered"], self.known["n_season"] = covered[:, -1], counted[:, -1]

    def _after_step(self, rows, time, covered, counted):
        """Apply the alert rule to the stars `rows` (k,) after a network step that ended at the times (k,).

        covered (k,) : days of the season in short steps.   counted (k,) : epochs of the season; both up to this step.
        """
        known, p = self.known, self.stream.probabilities[rows]
        score = np.column_stack([known["recent"][rows], p[:, BINARY].astype(np.float32)])
        known["recent"][rows] = score[:, 1:]
        raised = (sustained(score)[:, -1] >= np.float32(self.night.threshold)) & np.isnan(known["alert"][rows])
        if raised.any():
            known["alert"][rows[raised]] = time[raised]
            length = time - known["start"][rows]
            flags = np.select([covered < COVERED * length, length < FAST * CADENCE * counted], ["sparse", "fast"], "")
            self._record_alerts(rows[raised], p[raised], flags[raised])

    def _record_alerts(self, rows, p, flags):
        """Note the alerts of the stars `rows` (k,) with probabilities (k, classes); flags (k,) in words."""
        fits = self.stream.fits(rows)
        fits["t_0"] += self.known["start"][rows]
        for k, row in enumerate(rows):
            self.night.alerts.append({
                "star": str(self.names[row]), "time": float(self.known["alert"][row]),
                **{f"p_{name}": _rounded(p[k, c], 6) for c, name in enumerate(self.night.classes)},
                **{name: _rounded(values[k], 10 if name == "t_0" else 6) for name, values in fits.items()},
                "flags": str(flags[k])})


def _arrays_of(stream: Stream) -> dict[str, np.ndarray]:
    """The arrays of a stream's state under their names in the file."""
    return {STREAM + name: tensor.cpu().numpy() for name, tensor in stream.state().items()}


def _is_first(star) -> np.ndarray:
    """Which epochs (n,) are the first of their star; star (n,) is in order."""
    return np.diff(star, prepend=-1) != 0


def _bounds(star, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the epochs of each of n stars begin and end in `star` (m,), which is in order."""
    edges = np.searchsorted(star, np.arange(n + 1))
    return edges[:-1], edges[1:]


def _reference(flux, baseline) -> float:
    """The reference flux of a star with the first epochs (n,): as stated with one of them, else the median of the
    first N_REFERENCE; NaN where there are not so many yet, 0 where it is not positive."""
    stated = baseline[np.isfinite(baseline) & (baseline > 0)]
    if len(stated):
        return float(stated[0])
    if len(flux) < N_REFERENCE:
        return np.nan
    return max(float(np.median(flux[:N_REFERENCE])), 0.0)
