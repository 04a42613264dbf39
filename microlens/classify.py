"""Class probabilities of light-curve files, season by season.

    table, errors = classify(["event.dat"], ClassifyConfig())
"""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd

from microlens.config import CLASSES, ClassifyConfig
from microlens.lightcurve import LightCurveError, read_light_curve, seasons
from microlens.model import load_run

log = logging.getLogger("microlens")
COLUMNS = ["file", "season", "n_points", "t_first", "t_last", "time_system", "m_base", *(f"p_{c}" for c in CLASSES), "class",
           "flags"]


def classify(files, config: ClassifyConfig, classifier=None) -> tuple[pd.DataFrame, list[str]]:
    """Classify files; a bad one is a line in `errors` and does not stop the others.

    Returns a table (one row a season; p_* sum to 1; flags: 'saturated', 'sparse', 'few points', notes of the reader) and errors.
    A season with fewer than config.min_points points has NaN probabilities. Flag 'sparse' marks a cadence that the network
    was not trained on: its answer there means nothing.
    """
    classifier = classifier or load_run(config.experiment_name, device="cpu" if config.device == "auto" else config.device)
    rows, errors = [], []
    for file in files:
        try:
            curve = read_light_curve(file, config.unit)
            parts = seasons(curve, config.season_gap)
        except LightCurveError as error:
            errors.append(str(error))
            continue
        for s in parts:
            few = len(s.flux) < config.min_points
            p = np.full(3, np.nan)
            if not few:
                p = np.exp(classifier.log_prob(s.flux[None], s.delta_t[None], flux_err=s.flux_err[None])[0].astype(float))
                p /= p.sum()
            flags = [w for w, on in (("few points", few), ("saturated", s.saturated), ("sparse", s.sparse)) if on] + curve.notes
            rows.append([str(file), s.number, len(s.flux), s.time[0], s.time[-1], s.time_system, s.m_base, *p,
                         "" if few else CLASSES[int(p.argmax())], "; ".join(flags)])
    return pd.DataFrame(rows, columns=COLUMNS), errors
