"""Class probabilities of light-curve files, season by season.

    table, errors = classify(["event.dat"], ClassifyConfig())
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from microlens.config import CLASSES, ClassifyConfig
from microlens.data.lightcurve import LightCurveError, read_light_curve, seasons
from microlens.evaluate import baselines, metrics
from microlens.fit.residual import curve_features
from microlens.network.runs import Run, load_run

log = logging.getLogger("microlens")
MIN_POINTS = 50  # valid epochs of a season that is classified
COLUMNS = ["file", "season", "n_points", "t_first", "t_last", "time_system", "m_base", *(f"p_{c}" for c in CLASSES), "class",
           "flags"]


def classify(files, config: ClassifyConfig, run: Run | None = None) -> tuple[pd.DataFrame, list[str]]:
    """Classify files; a bad one is a line in `errors` and does not stop the others.

    Returns a table (one row a season; p_* sum to 1; flags: 'saturated', 'sparse', 'few points', 'residual', notes of the reader) and
    errors. A season with fewer than MIN_POINTS points has NaN probabilities. Flag 'sparse' marks a cadence that the network
    was not trained on: its answer there means nothing. Flag 'residual' marks an answer that the residual to the best single lens gave
    against the network's.
    """
    run = run or load_run(config.experiment_name, device="auto")
    rows, errors = [], []
    for file in files:
        try:
            curve = read_light_curve(file, config.unit)
            parts = seasons(curve, config.season_gap)
        except LightCurveError as error:
            errors.append(str(error))
            continue
        for s in parts:
            few = len(s.flux) < MIN_POINTS
            p, overruled = np.full(3, np.nan), False
            if not few:
                p, overruled = season_probabilities(s, run.network)
            marks = (("few points", few), ("saturated", s.saturated), ("sparse", s.sparse), ("residual", overruled), (s.note, s.note))
            flags = [w for w, on in marks if on] + curve.notes
            rows.append([str(file), s.number, len(s.flux), s.time[0], s.time[-1], s.time_system, s.m_base, *p,
                         "" if few else CLASSES[int(p.argmax())], "; ".join(flags)])
    return pd.DataFrame(rows, columns=COLUMNS), errors


def season_probabilities(season, network) -> tuple[np.ndarray, bool]:
    """Probabilities (3,) of one season, and whether the literature's thresholds overruled the network (baselines.guarded).

    A sparse season, whose few points a single lens seldom fits to 3 sigma, is left to the network.
    """
    curve = season.flux[None], season.delta_t[None]
    p = np.exp(network.log_prob(*curve).astype(float))
    p /= p.sum()
    if season.sparse:
        return p[0], False
    _, (event, anomaly) = curve_features(season.flux, season.delta_t, season.flux_err)
    out = baselines.guarded(p, np.array([event]), np.array([anomaly]))[0]
    return out, bool(out.argmax() != p[0].argmax())


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


def _brightness(season) -> float:
    """Fifth-largest flux of a season, which no single outlier sets."""
    return float(np.sort(season.flux)[-min(5, len(season.flux))])


def score_folder(folder, truth, run: Run):
    """Classify the files that a truth table names and put the truth beside each season.

    Returns the table of classify() with columns set and truth, the seasons called wrongly as (name, time, flux,
    flux_err, called, P(binary)), and the lines of files that could not be read.
    """
    table, parts, errors, mistakes = read_truth(truth), [], [], []
    for row in table.itertuples():
        unit = str(getattr(row, "unit", ""))
        unit = "flux" if "flux" in unit else "mag" if "mag" in unit else "auto"
        path = Path(folder) / row.file
        made, bad = classify([path], ClassifyConfig(unit=unit), run)
        errors += bad
        if bad:
            continue
        wanted = str(row.class_by_season).split("|")
        if len(wanted) == 1 and len(made) > 1:
            # One class for several seasons is that of the event, which the brightest season shows.
            event = max(seasons(read_light_curve(path, unit), ClassifyConfig().season_gap), key=_brightness).number
            wanted = [wanted[0] if number == event else "" for number in made["season"]]
        if len(wanted) != len(made):
            errors.append(f"{path}: {len(made)} seasons found, the truth table has {len(wanted)}.")
            continue
        made["set"], made["truth"] = row.set, wanted
        parts.append(made)
        wrong = made[(made["truth"] != made["class"]) & made["truth"].isin(CLASSES) & (made["class"] != "")]
        if len(wrong):
            found = {s.number: s for s in seasons(read_light_curve(path, unit), ClassifyConfig().season_gap)}
            mistakes += [(f"{path.name.split('.')[0]} season {m.season}, truth {m.truth}", found[m.season].time, found[m.season].flux,
                          found[m.season].flux_err, wrong.loc[m.Index, "class"], m.p_binary)
                         for m in wrong.itertuples()]
    return (pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[*COLUMNS, "set", "truth"])), mistakes, errors


def score_light_curves(folder, truth, run: Run, output: Path) -> dict:
    """Score a folder of light-curve files season by season against a truth table; returns the numbers of the summary.

    Writes seasons.csv (one row a season, with its truth) and mistakes.csv (the light curves called wrongly) into `output`.
    Raises ValueError where no season could be scored.
    """
    table, mistakes, errors = score_folder(folder, truth, run)
    for line in errors:
        log.warning("%s", line)
    scored = table[table["truth"].isin(CLASSES) & (table["class"] != "")]
    if scored.empty:
        raise ValueError(f"{folder}: no season of a file in {truth} could be scored.")
    table.to_csv(output / "seasons.csv", index=False)
    parts = [pd.DataFrame({"name": name, "t": t, "flux": flux, "flux_err": error, "called": called, "p_binary": p})
             for name, t, flux, error, called, p in mistakes]
    columns = ["name", "t", "flux", "flux_err", "called", "p_binary"]
    (pd.concat(parts) if parts else pd.DataFrame(columns=columns)).to_csv(output / "mistakes.csv", index=False)
    summary = {"run": run.name, "light_curves": str(folder), "errors": errors, "sets": {}}
    for name, part in scored.groupby("set"):
        counts = pd.crosstab(part["truth"], part["class"]).reindex(index=CLASSES, columns=CLASSES, fill_value=0)
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
