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
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock
import numpy as np
import pandas as pd
import torch

from microlens import files as package_files
from microlens.config import BINARY, CLASSES, PERSISTENCE, PURITY, EvaluateConfig, StreamConfig
from microlens.data.lightcurve import COVERED, SEASON_GAP, SPARSE
from microlens.data.nights import Epochs, read_epochs
from microlens.data.readers import LONGEST_SPAN
from microlens.data.states import PIECE, States, new_states
from microlens.evaluate.thresholds import alert_threshold
from microlens.fit import running
from microlens.network.predict import sustained
from microlens.network.runs import Run, load_run
from microlens.network.stream import FIT, Stream

log = logging.getLogger("microlens")
N_REFERENCE = 119
"""Epochs whose median is the reference flux of a star that has no column `baseline`: a day at Roman's 12.1 min. The
median is then good to 0.11 of the error of one epoch."""
COLUMNS_AT_ONCE = 1024  # epochs of a star that are in memory as one row of a table
STAR = np.dtype([
    ("time", "f8"),       # d, of the last epoch
    ("start", "f8"),      # d, of the first epoch of the season; NaN where the stream has not begun
    ("reference", "f8"),  # the flux that is 1 to the network; NaN while the first epochs wait, 0 where they give none
    ("covered", "f8"),    # d of the season in steps no longer than SPARSE
    ("alert", "f8"),      # d, when the season's alert was raised; NaN without one
    ("n_held", "i8"),     # epochs that wait for the reference flux
    ("n_counted", "i8"),  # epochs that were counted, in all seasons
    # P(binary) after the last network steps, 0 before the first; half precision, as the threshold was chosen on
    ("recent", "f2", (PERSISTENCE - 1,)),
])
"""What the file knows of a star beside the state of its stream. Times are as in the epochs' files."""


def stream_nights(files, config: StreamConfig, report: Callable[[str], None], run: Run | None = None) -> Counter:
    """Take the epochs in `files` into the state of every star; returns how many stars, epochs and alerts there were.

    report : called once with all new alerts as text, lines of JSON or a table in CSV, before the state is changed for
    good; where it raises, the state stays as it was. Raises ValueError, or one of its kinds, in one line that says what
    to do, for unreadable files and for a state that is damaged or of another network, unit or band.
    """
    torch.set_num_threads(1)  # the network gains nothing from more, and a product's rounding depends on their number
    run, path = run or load_run(config.network), Path(config.state)
    epochs = read_epochs(files, config)
    night = _Night(run, epochs)
    with _alone(path), contextlib.ExitStack() as opened:
        old = opened.enter_context(States(path, night.layout)) if path.exists() else None
        if old is not None:
            _check_same(old, night.attrs)
        night.take(path, old, lambda alerts: report(_as_text(alerts, night.columns, config.format)))
    for line in night.summary():
        log.info("%s", line)
    return night.counts


def read_stars(path) -> pd.DataFrame:
    """What a state says of its stars: star, time of the last epoch, n_counted epochs, reference flux, when the season's
    alert was raised (NaN without one), and the probabilities p_<class> so far. Times are in days, as in the files.

    Raises FileNotFoundError, or DatasetError naming file and cause.
    """
    with States(path, {"star": (STAR, ())}) as states:
        stars, p = states.read("star", slice(None)), np.exp(states.read("stream/log_p", slice(None)).astype(float))
        columns = {name: stars[name] for name in ("time", "n_counted", "reference", "alert")}
        columns |= {f"p_{name}": p[:, c] for c, name in enumerate(CLASSES[: p.shape[1]])}
        return pd.DataFrame({"star": states.names, **columns})


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep other runs away from a state; wait where one is at work on it."""
    lock = path.with_name(f".{path.name}.lock")
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(package_files.lock(lock, wait=False))
        except filelock.Timeout:
            log.info("another run is at work on %s; waiting for its end", path)
            held.enter_context(package_files.lock(lock))
        yield


def identity(network) -> str:
    """Hexadecimal digits that tell a network, with the fit that it reads, from all others."""
    digest = hashlib.sha256(repr(running.STATE.descr).encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()


def _check_same(old: States, attrs: dict):
    """Raise ValueError where a state is of another network, or of epochs in another unit or band."""
    theirs = old.attrs
    if theirs["network"] != attrs["network"]:
        raise ValueError(f"{old.path}: is the state of another network ({theirs['run']}, {theirs['network'][:8]}) and "
                         f"cannot go on with {attrs['run']} ({attrs['network'][:8]}). Name that one with --network, or "
                         "begin a new state with --state.")
    for what in ("unit", "band"):
        if theirs[what] != attrs[what] and theirs[what] and attrs[what]:
            raise ValueError(f"{old.path}: its epochs had the {what} {theirs[what]}, those of the new files have "
                             f"{attrs[what]}. Give files of one {what}, or begin a new state with --state.")


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

    def __init__(self, run: Run, epochs: Epochs):
        self.network, self.epochs = run.network, epochs
        limits = PURITY, EvaluateConfig.__dataclass_fields__["false_alarms"].default
        self.threshold, _ = alert_threshold(run.validation, *limits)
        self.attrs = {"network": identity(run.network), "run": run.name, "unit": epochs.unit, "band": epochs.band}
        begin = Stream(run.network, 1)
        self.begin = {f"stream/{name}": tensor.numpy() for name, tensor in begin.state().items()}
        self.layout = {"star": (STAR, ()), "held": (np.dtype("f8"), (N_REFERENCE, 2)),
                       **{name: (array.dtype, array.shape[1:]) for name, array in self.begin.items()}}
        self.classes = CLASSES[: begin.probabilities.shape[1]]
        self.columns = ["star", "time", *(f"p_{name}" for name in self.classes), *FIT, "flags"]
        self.alerts, self.counts = [], Counter()

    # ---- all stars

    def take(self, path: Path, old: States | None, report: Callable[[list[dict]], None]):
        """Take the epochs into the states `old` (None: there are none yet) and write the new states to `path`.

        report : called with the alerts before the new file takes its place.
        """
        names, rows = self._rows_of(old)
        known = self._new_stars(len(names))["star"]
        if old is not None:
            known[: len(old)] = old.read("star", slice(None))
        kept = self._kept(rows, known["time"])
        rows, time, flux, baseline = (a[kept] for a in (rows, *self.epochs[2:5]))
        attrs = self.attrs if old is None else self.attrs | {
            what: old.attrs[what] or self.attrs[what] for what in ("unit", "band")}
        if len(rows):
            with new_states(path, names, self.layout, attrs, sparse=("held",)) as write:
                for start in range(0, len(names), PIECE):
                    piece = slice(start, min(start + PIECE, len(names)))
                    arrays = self._piece(old, piece)
                    of_piece = slice(*np.searchsorted(rows, [piece.start, piece.stop]))
                    if of_piece.start < of_piece.stop:
                        self._take_piece(names[piece], arrays, rows[of_piece] - start, time[of_piece], flux[of_piece],
                                         baseline[of_piece])
                    self.counts["waiting"] += int(np.sum(arrays["star"]["n_held"] > 0))
                    write(piece, arrays)
                self.alerts.sort(key=lambda alert: (alert["time"], alert["star"]))
                report(self.alerts)
        else:
            report([])
        self.counts["stars"], self.counts["new stars"] = len(names), len(names) - (0 if old is None else len(old))
        self.counts["alerts"] = len(self.alerts)

    def _rows_of(self, old: States | None) -> tuple[np.ndarray, np.ndarray]:
        """The names (N,) of all stars, those that are new behind the others in alphabetical order, and the row (n,) of
        each epoch; the epochs are then in the order of row and time."""
        epochs = self.epochs
        seen = np.zeros(len(epochs.names), dtype=bool)
        seen[epochs.star] = True
        known = np.array([], dtype=np.str_) if old is None else old.names
        names = np.concatenate([known, np.setdiff1d(epochs.names[seen], known)])
        order = np.argsort(names)
        place = order[np.minimum(np.searchsorted(names, epochs.names, sorter=order), len(names) - 1)]
        rows = place[epochs.star]
        again = np.argsort(rows, kind="stable")
        self.epochs = epochs._replace(**{name: getattr(epochs, name)[again] for name in ("star", "time", "flux",
                                                                                         "baseline")})
        return names, rows[again]

    def _kept(self, rows, last) -> np.ndarray:
        """Which epochs (n,) are later than their star's last one, `last` (N,) d, and than the epoch before them.

        Raises ValueError where the times jump by more than any survey lasts.
        """
        time = self.epochs.time
        previous = np.concatenate([[-np.inf], time[:-1]])
        first = np.append(True, rows[1:] != rows[:-1])[: len(rows)]
        before = last[rows]  # NaN for new stars
        kept = ~(time <= before) & (first | (time > previous))
        jump = np.nanmax(np.abs(time - before), initial=0.0, where=np.isfinite(before))
        if jump > LONGEST_SPAN:
            raise ValueError(f"the new epochs are {jump:.0f} d from those in the state, so their times are in another "
                             "system or unit. Bring them to that of the state, or begin a new state with --state.")
        self.counts["epochs"], self.counts["known already"] = int(kept.sum()), int((~kept).sum())
        return kept

    def _new_stars(self, n: int) -> dict[str, np.ndarray]:
        """The arrays of n stars of which nothing is known."""
        arrays = {name: np.zeros((n, *shape), dtype) for name, (dtype, shape) in self.layout.items() if name == "star"}
        for name in ("time", "start", "reference", "alert"):
            arrays["star"][name] = np.nan
        return arrays

    def _piece(self, old: States | None, piece: slice) -> dict[str, np.ndarray]:
        """The arrays of the stars in `piece`: those of the old states, and behind them new ones."""
        n_old = 0 if old is None else min(max(len(old) - piece.start, 0), piece.stop - piece.start)
        n_new = piece.stop - piece.start - n_old
        fresh = self._new_stars(n_new) | {"held": np.zeros((n_new, N_REFERENCE, 2))}
        fresh |= {name: np.repeat(array, n_new, axis=0) for name, array in self.begin.items()}
        if n_old == 0:
            return fresh
        part = slice(piece.start, piece.start + n_old)
        return {name: np.concatenate([old.read(name, part), fresh[name]]) for name in self.layout}

    # ---- the stars of one piece

    def _take_piece(self, names, arrays: dict[str, np.ndarray], row, time, flux, baseline):
        """Take the epochs (n,) of a piece, in the order of star and time, into its arrays. row (n,) : within these."""
        active, star = np.unique(row, return_inverse=True)
        stars, held = arrays["star"][active], arrays["held"][active]
        star, time, flux, baseline = _with_held(stars, held, star, time, flux, baseline)
        last = np.where(stars["n_held"] > 0, np.nan, stars["time"])
        begins, ends = _bounds(star, len(active))
        for k in np.flatnonzero(np.isnan(stars["reference"])):
            part = slice(begins[k], ends[k])
            stars["reference"][k] = _reference(flux[part], baseline[part])
            stars["n_held"][k], held[k] = 0, 0.0
            if np.isnan(stars["reference"][k]):
                stars["n_held"][k] = n = ends[k] - begins[k]
                held[k, :n] = np.column_stack([time[part], flux[part]])
        stars["time"] = time[ends - 1]
        fed = stars["reference"][star] > 0
        stars["n_counted"] += np.bincount(star[fed], minlength=len(active))
        self.counts["without a positive reference flux"] += int((stars["reference"][star] == 0).sum())
        with np.errstate(over="ignore"):
            relative = (flux[fed] / stars["reference"][star[fed]]).astype(np.float32)
        relative[relative == 0] = np.finfo(np.float32).tiny  # 0 stands for "no observation"
        state = {name.removeprefix("stream/"): torch.from_numpy(arrays[name][active]) for name in self.begin}
        stream = Stream(self.network, len(active)).restore(state)
        self._feed(stream, names[active], stars, last, star[fed], time[fed], relative)
        arrays["star"][active], arrays["held"][active] = stars, held
        for name, tensor in stream.state().items():
            arrays[f"stream/{name}"][active] = tensor.numpy()

    def _feed(self, stream: Stream, names, stars, last, star, time, flux):
        """Feed epochs (n,) to their streams, season by season.

        last (stars,) : time of the last epoch that each stream has seen, NaN for none.   flux : F/F_base.
        """
        first = np.append(True, star[1:] != star[:-1])[: len(star)]
        previous = np.where(first, last[star], np.concatenate([[np.nan], time[:-1]]))
        delta_t = time - previous
        opens = ~(delta_t <= SEASON_GAP)
        delta_t[opens] = 0.0
        n_opened = np.cumsum(opens)
        season = n_opened - (n_opened - opens)[np.flatnonzero(first)][np.cumsum(first) - 1]
        for number in range(season.max(initial=-1) + 1):
            chosen = season == number
            begun = chosen & opens
            self._begin_season(stream, stars, star[begun], time[begun])
            self._feed_season(stream, names, stars, star[chosen], time[chosen], flux[chosen], delta_t[chosen])

    def _begin_season(self, stream: Stream, stars, rows, time):
        """Let the season of the stars `rows` (m,) begin at the times (m,)."""
        stream.begin_again(rows)
        stars["start"][rows], stars["covered"][rows], stars["alert"][rows] = time, 0.0, np.nan
        stars["recent"][rows] = 0.0
        stars["recent"][rows, -1:] = stream.probabilities[rows, BINARY, None]  # before the first step

    def _feed_season(self, stream: Stream, names, stars, star, time, flux, delta_t):
        """Feed epochs (n,) of one season to their streams, as tables with one row a star."""
        begins, ends = _bounds(star, len(stars))
        place = np.arange(len(star)) - begins[star]
        for column in range(0, int((ends - begins).max(initial=0)), COLUMNS_AT_ONCE):
            chosen = (place >= column) & (place < column + COLUMNS_AT_ONCE)
            at = star[chosen], place[chosen] - column
            shape = len(stars), int(at[1].max()) + 1
            f, dt, t = np.full(shape, np.nan, np.float32), np.zeros(shape), np.full(shape, np.nan)
            f[at], dt[at], t[at] = flux[chosen], delta_t[chosen], time[chosen]
            steps = np.where(dt <= SPARSE, dt, 0.0)
            steps[:, 0] += stars["covered"]
            covered = np.cumsum(steps, axis=1)

            def after_step(rows, end, t=t, covered=covered):
                self._after_step(stream, names, stars, rows, t[rows, end], covered[rows, end])

            stream.update(f, dt, after_step)
            stars["covered"] = covered[:, -1]

    def _after_step(self, stream: Stream, names, stars, rows, time, covered):
        """Apply the alert rule to the stars `rows` (m,) after a network step that ended at the times (m,)."""
        p = stream.probabilities[rows]
        score = np.column_stack([stars["recent"][rows], p[:, BINARY].astype(np.float16)])
        stars["recent"][rows] = score[:, 1:]
        raised = (sustained(score)[:, -1] >= np.float32(self.threshold)) & np.isnan(stars["alert"][rows])
        if not raised.any():
            return
        rows, time, p, covered = rows[raised], time[raised], p[raised], covered[raised]
        stars["alert"][rows] = time
        sparse = covered < COVERED * (time - stars["start"][rows])
        fits = stream.fits(rows)
        fits["t_0"] += stars["start"][rows]
        for k, row in enumerate(rows):
            self.alerts.append({
                "star": str(names[row]), "time": float(time[k]),
                **{f"p_{name}": _rounded(p[k, c], 6) for c, name in enumerate(self.classes)},
                **{name: _rounded(values[k], 10 if name == "t_0" else 6) for name, values in fits.items()},
                "flags": "sparse" if sparse[k] else ""})

    def summary(self) -> list[str]:
        """What happened, in lines for the user."""
        c, lines = self.counts, []
        lines.append(f"{c['stars']} stars ({c['new stars']} new), {c['epochs']} epochs counted, {c['alerts']} new "
                     "alerts")
        if c["known already"]:
            lines.append(f"{c['known already']} epochs left out: they are not later than their star's last one")
        for cause, n in self.epochs.dropped.items():
            lines.append(f"{n} rows left out {cause}")
        if c["waiting"]:
            lines.append(f"{c['waiting']} stars wait for their first {N_REFERENCE} epochs, whose median is their "
                         "reference flux")
        if c["without a positive reference flux"]:
            lines.append(f"{c['without a positive reference flux']} epochs of stars without a positive reference flux, "
                         "which cannot be judged")
        if not np.isfinite(self.threshold):
            lines.append(f"{self.attrs['run']} raises no alerts: on its validation rows no threshold reached a purity "
                         f"of {PURITY:g}")
        return lines


def _bounds(star, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the epochs of each of n stars begin and end in `star` (m,), which is in order."""
    edges = np.searchsorted(star, np.arange(n + 1))
    return edges[:-1], edges[1:]


def _with_held(stars, held, star, time, flux, baseline):
    """The epochs (n,) of stars with those that have waited in front of the new ones of each."""
    k, place = np.nonzero(np.arange(N_REFERENCE) < stars["n_held"][:, None])
    if not len(k):
        return star, time, flux, baseline
    star, order = np.concatenate([k, star]), np.argsort(np.concatenate([k, star]), kind="stable")
    waited = held[k, place]
    joined = (np.concatenate(pair) for pair in ((waited[:, 0], time), (waited[:, 1], flux),
                                                (np.full(len(k), np.nan), baseline)))
    return star[order], *(array[order] for array in joined)


def _reference(flux, baseline) -> float:
    """The reference flux of a star with the first epochs (n,): as stated with one of them, else the median of the
    first N_REFERENCE; NaN where there are not so many yet, 0 where it is not positive."""
    stated = baseline[np.isfinite(baseline) & (baseline > 0)]
    if len(stated):
        return float(stated[0])
    if len(flux) < N_REFERENCE:
        return np.nan
    return max(float(np.median(flux[:N_REFERENCE])), 0.0)
