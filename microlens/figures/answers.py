"""Light curves beside what the network says of them: the hardest events of an evaluation, and seasons of files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from microlens.config import BINARY, CLASSES
from microlens.data import open_dataset, read_light_curves, read_predictions, seasons
from microlens.evaluate.light_curves import WHOLE
from microlens.figures.light_curves import PER_PAGE, mistakes, real_light_curves
from microlens.files import PACKAGE

MOST_SEASONS = 12  # pictures of seasons on one page
EXAMPLES = PACKAGE.parent / "notebooks" / "light_curves"  # simulated light curves, written as files


def hardest_calls(folder) -> tuple[pd.DataFrame, str]:
    """Table and caption of figure `mistakes`: the events of an evaluation folder whose observable class got the lowest
    probability, so the most confident mistakes first.
    """
    arrays, attributes = read_predictions(Path(folder) / "predictions.h5")
    p, truth = np.exp(arrays["log_p"].astype(float)), arrays["label_observable"]
    called = p.argmax(1)
    hardest = np.argsort(p[np.arange(len(p)), truth])[:PER_PAGE]
    shown = []
    with open_dataset(attributes["data"]) as data:
        for i in hardest:
            row = int(arrays["row"][i])
            event, flux, sigma = data.params.iloc[row], data.flux(row), data.sigma(row)
            valid = flux != 0
            name = (f"row {row}, {CLASSES[int(event.label)]} observable as {CLASSES[truth[i]]}, "
                    f"delta chi^2 = {event.delta_chi2_pspl:.0f}")
            shown.append((name, data.timestamps[valid], flux[valid], sigma[valid], CLASSES[called[i]], p[i, BINARY]))
    return mistakes(shown, 0, f"The hardest of {len(p)} events, {(called != truth).sum()} of which are called wrongly")


def classified_seasons(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Table and caption of figure `real_light_curves` for a table of `microlens.evaluate.classify`."""
    shown = []
    for answer in table[table["season"] != WHOLE][:MOST_SEASONS].to_dict("records"):
        name = Path(answer["file"]).name.split(".")[0]
        for curve in read_light_curves(answer["file"]):
            if (curve.star, curve.band) != (answer["star"], answer["band"]):
                continue
            season = next(s for s in seasons(curve) if s.number == answer["season"])
            title = f"{name}, season {season.number}"
            shown.append((title, season.time, season.flux, answer["class"] or "flat", answer["p_binary"]))
    simulated = all(Path(file).resolve().parent == EXAMPLES for file in table["file"])
    what = "simulated examples" if simulated else "light-curve files"
    return real_light_curves(shown, f"{table['file'].nunique()} {what}")
