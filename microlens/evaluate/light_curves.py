"""Class probabilities of light-curve files, season by season, and of each curve as a whole.

    table, errors = classify(["event.dat"], ClassifyConfig())
    rows = classify_curve(read_light_curve("event.dat"), load_run())

A season is called what is most probable after the literature's thresholds have overruled the network
(overruled_probabilities). With a calibration the literature's thresholds, which take the noise for white, have no say:
a season is binary where the network's own P(binary) reaches the calibrated threshold, and else what is most probable of
the other classes.

`classify`, the notebook of real events, the event browser and `evaluate --light-curves` all ask classify_curve, so
that they give one answer.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import multiprocessing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from microlens.config import BINARY, CLASSES, FLAT, LENSING_CLASSES, OTHER, ClassifyConfig, ReadConfig
from microlens.data.lightcurve import LightCurve, Season, seasons
from microlens.data.readers import read_light_curve, read_light_curves
from microlens.data.tables import LightCurveError
from microlens.evaluate import baselines, metrics
from microlens.evaluate.calibration import Calibration, read_calibration
from microlens.fit.residual import curve_features
from microlens.network.runs import Run, load_run

log = logging.getLogger("microlens")
MIN_POINTS = 50  # valid epochs of a season that is classified
WHOLE = "all"  # what the line of a curve as a whole has for its season
PROBABILITIES = [f"p_{c}" for c in CLASSES]  # the last of networks of four classes alone
COLUMNS = ["file", "star", "band", "season", "n_points", "t_first", "t_last", "time_system", "m_base", "brightest",
           *PROBABILITIES, "class", "event_season", "flags", "sim_label"]
MISTAKE = ["name", "t", "flux", "flux_err", "called", "p_binary"]


def classify(files, config: ClassifyConfig, run: Run | None = None,
             progress: bool = False) -> tuple[pd.DataFrame, list[str]]:
    """Classify files; a bad one is a line in `errors` and does not stop the others.

    Returns a table in the order of the files (one row a season, and one a curve of several seasons, see
    classify_curve) and the errors, each a line that names its file. An interruption (Ctrl-C) keeps the files that are
    done, and is the last error. Raises what load_run and read_calibration raise.
    """
    files = [str(f) for f in files]
    calibration = None
    if config.calibration is not None:
        calibration = read_calibration(config.calibration, run or load_run(config.experiment_name))
        log.info("binary at P(binary) >= %.7g, from %s: %s", calibration.whole_curve, calibration.source,
                 calibration.limits)
    rows, errors, done = [], [], 0
    bar = tqdm(total=len(files), unit="file", disable=not progress, leave=False)
    try:
        with contextlib.closing(_answers(files, config, run, calibration)) as answers, bar:
            for made, error in answers:
                rows += made
                errors += [error] if error else []
                done += 1
                bar.update()
    except KeyboardInterrupt:
        errors.append(f"interrupted: {len(files) - done} of {len(files)} files were not classified.")
    return table_of(rows), errors


def table_of(rows: list[dict], more=()) -> pd.DataFrame:
    """The rows that classify_curve gives as a table with COLUMNS and `more`; without p_other where no row has it."""
    columns = [c for c in COLUMNS if c != PROBABILITIES[OTHER] or any(c in row for row in rows)]
    return pd.DataFrame(rows, columns=[*columns, *more])


def _answers(files, config: ClassifyConfig, run: Run | None, calibration: Calibration | None):
    """Yield (rows, error or '') of each file, in order."""
    workers = min(config.num_workers, len(files))
    if workers < 2:
        run = run or load_run(config.experiment_name, device="auto")
        for file in files:
            yield classify_file(file, config, run, calibration)
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy the threads of torch in whatever state they are
    pool = concurrent.futures.ProcessPoolExecutor(workers, context, _start_worker,
                                                  (config, run, calibration))
    try:
        for file, answer in [(file, pool.submit(_worker_answer, file)) for file in files]:
            try:
                yield answer.result()
            except concurrent.futures.BrokenExecutor:
                yield [], (f"{file}: a worker process died on this file or on one beside it (out of memory?); try it "
                           "with --num-workers 1.")
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


_worker: dict = {}  # configuration, run and calibration of a worker process


def _start_worker(config: ClassifyConfig, run: Run | None, calibration: Calibration | None):
    import torch

    torch.set_num_threads(1)
    _worker.update(config=config, run=run or load_run(config.experiment_name), calibration=calibration)


def _worker_answer(file: str):
    return classify_file(file, **_worker)


def classify_file(file: str, config: ClassifyConfig, run: Run,
                  calibration: Calibration | None = None) -> tuple[list[dict], str]:
    """Rows (dicts of COLUMNS) of all curves in a file, and one line that names the file and what went wrong, or ''."""
    rows, errors = [], []
    try:
        for curve in read_light_curves(file, config):
            try:
                rows += [{"file": file, **row} for row in classify_curve(curve, run, calibration)]
            except LightCurveError as cause:
                errors.append(str(cause))
    except LightCurveError as cause:
        errors.append(str(cause))
    except Exception as cause:  # a fault of this package must not take the answers for the other files with it
        log.debug("%s", file, exc_info=True)
        errors.append(f"{type(cause).__name__}: {' '.join(str(cause).split())}; please report it with the file.")
    return rows, " ".join(_with_path(file, error) for error in errors)


def _with_path(file: str, error: str) -> str:
    """A message with the whole path in front, where it does not have it or has the name alone."""
    path = str(Path(file))
    if error.startswith(path):
        return error
    separator = "" if error.startswith(Path(file).name) else ": "
    return f"{path}{separator}{error.removeprefix(Path(file).name)}"


@dataclass(frozen=True)
class _Answer:
    """What is said of one season: probabilities (classes,), NaN for too few points, the class called, and its flags."""

    season: Season
    p: np.ndarray
    called: str
    flags: list[str]


def classify_curve(curve: LightCurve, run: Run, calibration: Calibration | None = None) -> list[dict]:
    """What the network says of a light curve: one dict a season, in order, and one of the curve as a whole where it
    has several.

    Keys are COLUMNS without 'file'. p_* sum to 1, and are NaN for a season of fewer than MIN_POINTS points.
    `brightest` is the fifth-largest F/F_base. The line of the whole has season 'all' and the answer for the season
    that holds the event, named in `event_season`: the brightest of those that are not called flat; without any, the
    brightest of all answers and the curve is flat.

    flags: 'saturated', and those that docs/light_curve_files.md explains; then notes of the reader.
    Raises LightCurveError where the curve has no usable baseline.
    """
    answers = [_answer(season, run.network, calibration) for season in seasons(curve)]
    rows = [_row(curve, [a.season], a, a.season.number, "") for a in answers]
    if len(answers) > 1:
        rows.append(_whole(curve, answers))
    return rows


def _answer(season: Season, network, calibration: Calibration | None) -> _Answer:
    p, called, overruled = np.full(network.n_classes, np.nan), "", False
    few = len(season.flux) < MIN_POINTS
    if not few:
        p = np.exp(network.log_prob(season.flux[None], season.delta_t[None])[0].astype(float))
        p /= p.sum()
        # The literature's thresholds take noise for white and variable stars for lenses: not for a network of the sky.
        if calibration is None and not network.tells_other:
            p, overruled = overruled_probabilities(season, p)
        called = CLASSES[_called_class(p, calibration)]
    marks = {"few points": few, "saturated": season.saturated, "sparse": season.sparse, "long": season.long,
             "residual": overruled, "calibrated": calibration is not None and not few, season.note: bool(season.note)}
    return _Answer(season, p, called, [word for word, on in marks.items() if on])


def _called_class(p, calibration: Calibration | None) -> int:
    """The class of probabilities (classes,): the most probable one, or what a calibration makes of P(binary)."""
    if calibration is None:
        return int(p.argmax())
    if p[BINARY] >= calibration.whole_curve:
        return BINARY
    return int(np.where(np.arange(len(p)) == BINARY, -1.0, p).argmax())


def _whole(curve: LightCurve, answers: list[_Answer]) -> dict:
    """The line of a curve of several seasons."""
    called = [a for a in answers if a.called]
    events = [a for a in called if a.called != LENSING_CLASSES[FLAT]]
    shown = max(events or called or answers, key=lambda a: a.season.brightest)
    return _row(curve, [a.season for a in answers], shown, WHOLE, shown.season.number if events else "")


def _row(curve: LightCurve, parts: list[Season], answer: _Answer, number, event_season) -> dict:
    return {"star": curve.star, "band": curve.band, "season": number, "n_points": sum(len(s.flux) for s in parts),
            "t_first": parts[0].time[0], "t_last": parts[-1].time[-1], "time_system": curve.time_system,
            "m_base": parts[0].m_base, "brightest": max(s.brightest for s in parts),
            **dict(zip(PROBABILITIES, map(float, answer.p), strict=False)), "class": answer.called,
            "event_season": event_season, "flags": "; ".join([*answer.flags, *curve.notes]),
            "sim_label": curve.truth.get("sim_label", "")}


def overruled_probabilities(season: Season, p) -> tuple[np.ndarray, bool]:
    """Probabilities (3,) after the literature's thresholds have overruled the network's p (3,) (baselines.guarded), and
    whether that changed the most probable class.

    A sparse season, whose few points a single lens seldom fits to 3 sigma, is left to the network.
    """
    if season.sparse:
        return p, False
    _, (event, anomaly) = curve_features(season.flux, season.delta_t, season.flux_err)
    out = baselines.guarded(p[None], np.array([event]), np.array([anomaly]))[0]
    return out, bool(out.argmax() != p.argmax())


def read_truth(path) -> pd.DataFrame:
    """A truth table with set, file, class_by_season (one class a season, joined by '|'; 'ambiguous' is not scored;
    a single class for a file of several seasons is that of its brightest one).

    Raises ValueError naming file and cause.
    """
    try:
        table = pd.read_csv(path)
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise ValueError(f"{path}: no readable truth table ({error}).") from error
    missing = {"set", "file", "class_by_season"} - set(table.columns)
    if missing:
        raise ValueError(f"{path}: no column {', '.join(sorted(missing))}; it has {', '.join(table.columns)}.")
    return table


def score_folder(folder, truth, run: Run, calibration: Calibration | None = None):
    """Classify the files that a truth table names and put the truth beside each season.

    Returns the table of classify() with columns set and truth (without the lines of curves as a whole), the epochs of
    the seasons called wrongly, with the columns MISTAKE, and the lines of files that could not be read.
    """
    rows, errors, mistakes = [], [], []
    for row in read_truth(truth).itertuples():
        stated = str(getattr(row, "unit", ""))
        unit = next((f"[{word}]" for word in ("flux", "mag") if word in stated), None)
        path = Path(folder) / row.file
        try:
            curve = read_light_curve(path, ReadConfig(value=unit))
            parts = seasons(curve)
            made = [r for r in classify_curve(curve, run, calibration) if r["season"] != WHOLE]
        except LightCurveError as error:
            errors.append(str(error))
            continue
        wanted = str(row.class_by_season).split("|")
        if len(wanted) == 1:
            # One class for several seasons is that of the event, which the brightest season shows.
            event = max(parts, key=lambda s: s.brightest).number
            wanted = [wanted[0] if s.number == event else "" for s in parts]
        if len(wanted) != len(made):
            errors.append(f"{path}: {len(made)} seasons found, the truth table has {len(wanted)}.")
            continue
        for season, answer, true_class in zip(parts, made, wanted, strict=True):
            rows.append({"file": str(path), **answer, "set": row.set, "truth": true_class})
            if true_class in LENSING_CLASSES and answer["class"] not in ("", true_class):
                title = f"{path.name.split('.')[0]} season {season.number}, truth {true_class}"
                mistakes.append(pd.DataFrame({
                    "name": title, "t": season.time, "flux": season.flux, "flux_err": season.flux_err,
                    "called": answer["class"], "p_binary": answer["p_binary"]}))
    table = table_of(rows, ["set", "truth"])
    return table, pd.concat(mistakes) if mistakes else pd.DataFrame(columns=MISTAKE), errors


def score_light_curves(folder, truth, run: Run, output: Path, calibration: Calibration | None = None) -> dict:
    """Score a folder of light-curve files season by season against a truth table; returns the numbers of the summary.

    Writes seasons.csv (one row a season, with its truth) and mistakes.csv (the light curves called wrongly) into
    `output`. Raises ValueError where no season could be scored.
    """
    table, mistakes, errors = score_folder(folder, truth, run, calibration)
    for line in errors:
        log.warning("%s", line)
    scored = table[table["truth"].isin(LENSING_CLASSES) & (table["class"] != "")]
    if scored.empty:
        raise ValueError(f"{folder}: no season of a file in {truth} could be scored.")
    table.to_csv(output / "seasons.csv", index=False)
    mistakes.to_csv(output / "mistakes.csv", index=False)
    summary = {"run": run.name, "light_curves": str(folder), "errors": errors, "sets": {}}
    if calibration is not None:
        summary |= {"threshold": calibration.whole_curve,
                    "threshold_from": f"{calibration.source}: {calibration.limits}"}
    for name, part in scored.groupby("set"):
        counts = pd.crosstab(part["truth"], part["class"].replace(CLASSES[OTHER], CLASSES[FLAT]))  # what is no lens
        counts = counts.reindex(index=LENSING_CLASSES, columns=LENSING_CLASSES, fill_value=0)
        quiet, binary = part[part["truth"] == "flat"], part[part["truth"] == "binary"]
        ambiguous = (table["set"] == name) & (table["truth"] == "ambiguous")
        summary["sets"][name] = {
            "n_seasons": len(part), "n_ambiguous_left_out": int(ambiguous.sum()),
            "share_sparse": float(part["flags"].str.contains("sparse").mean()), "confusion": counts.to_numpy().tolist(),
            "binaries_called_binary": metrics.share((binary["class"] == "binary").sum(), len(binary)),
            "quiet_called_anything": metrics.share((quiet["class"] != "flat").sum(), len(quiet)),
            "right": metrics.share((part["class"] == part["truth"]).sum(), len(part))}
        print(f"\n{name}: {len(part)} seasons (rows: truth, columns: called)\n{counts.to_string()}")
    return summary
