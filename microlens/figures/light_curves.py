"""Light curves beside what the network says of them: seasons of files, and the hardest events of an evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from microlens.config import BINARY, CLASSES, LENSING_CLASSES
from microlens.data import open_dataset, read_light_curves, read_predictions, seasons
from microlens.evaluate.light_curves import WHOLE
from microlens.figures import style
from microlens.figures.inputs import BRIGHT
from microlens.figures.scores import draw_confusion
from microlens.files import PACKAGE
from microlens.fit import fit_single_lens, single_lens_model, smooth_error
from microlens.fit.points import epochs_to_draw

EXAMPLES = PACKAGE.parent / "notebooks" / "light_curves"  # simulated light curves, written as files
PER_PAGE = 6  # mistakes
MOST = 12  # seasons in the figure real_light_curves
DETAIL = 60  # epochs drawn on each side of the largest residual
SHORT = 8  # epochs whose summed squared residual tells where it is largest
LEAST_SETS = 3  # for which there is room, so that a single one is not drawn large
KNOWN_SETS = {"ogle_2025": "real: OGLE", "roman_dc1": "simulated: Data Challenge", "roman_gulls": "simulated: gulls"}
"""What the sets of light curves are that the tests know, and how their names are printed."""
LARGEST_DRAWN = 40  # residuals of a whole curve that are drawn in any case


def classified_light_curves(answers: pd.DataFrame, network: str = ""):
    """The first MOST seasons of a table of `microlens.evaluate.classify`, as the network of that name reads them."""
    of_seasons, parts = answers[answers["season"] != WHOLE], []
    for answer in of_seasons[:MOST].itertuples():
        curves = read_light_curves(answer.file)
        curve = next(c for c in curves if (c.star, c.band) == (answer.star, answer.band))
        season = next(s for s in seasons(curve) if s.number == answer.season)
        keep = epochs_to_draw(season.time, np.log(np.maximum(season.flux, 1e-2)), time_steps=200, flux_steps=60)
        parts.append(pd.DataFrame({
            "name": f"{Path(answer.file).name.split('.')[0]}, season {season.number}",
            "t": (season.time[keep] - season.time[0]).round(3), "flux": season.flux[keep].round(4),
            "called": answers.at[answer.Index, "class"], "p_binary": round(answer.p_binary, 4)}))
    simulated = all(Path(file).resolve().parent == EXAMPLES for file in answers["file"])
    what = "the simulated examples that notebook 05 reads" if simulated else "other people's files"
    return pd.concat(parts), (
        f"Light curves of {what} ({answers['file'].nunique()}): {len(parts)} of n = {len(of_seasons)} seasons, thinned "
        f"where nothing changes, with the class called and {style.P_BINARY}."
        + (f" Network {network}; operating point: the class that `microlens classify` calls." if network else ""))


@style.figure
def draw_classified_light_curves(table):
    groups = list(table.groupby("name", sort=False))
    rows = -(-len(groups) // 3)
    fig, axes = style.subplots(rows, 3, size=(style.PAGE, 0.4 + 1.6 * rows), squeeze=False)
    for ax in axes.flat[len(groups) :]:
        ax.set_visible(False)
    for ax, (name, t) in zip(axes.flat, groups, strict=False):
        called, p = t[["called", "p_binary"]].iloc[0]
        known = called in style.NAMES  # a season of few points is not called anything
        ax.plot(t["t"], t["flux"], style.MARKERS.get(called, "."), ms=1.2, color=style.COLOURS.get(called, "0.6"),
                rasterized=True)
        said = f"{style.NAMES[called]}, {style.P_BINARY} = {p:.3f}" if known else "not classified"
        ax.set_title(f"{name}\n{said}")
        if t["flux"].max() > BRIGHT * t["flux"].min() > 0:
            style.log_axis(ax.yaxis, t["flux"].min(), t["flux"].max(), style.MARGIN)
    for ax in axes.flat[max(len(groups) - 3, 0) : len(groups)]:
        ax.set_xlabel("time since the first epoch (d)")
    for ax in axes[:, 0]:
        ax.set_ylabel("flux / baseline")
    return fig


def mistakes(curves: pd.DataFrame, page=0, title="Wrong calls"):
    """Light curves called wrongly, PER_PAGE a page: each with its best single lens, whole and at the largest residual.

    curves : name, t (days), flux and flux_err (F/F_base), called and p_binary of the valid epochs of each.
    """
    names = curves["name"].unique()
    here = names[page * PER_PAGE : (page + 1) * PER_PAGE]
    parts = []
    for name in here:
        curve = curves[curves["name"] == name]
        t, flux = curve["t"].to_numpy(float), curve["flux"].to_numpy(float)
        t, sigma = t - t[0], smooth_error(curve["flux_err"].to_numpy())
        model = single_lens_model(t, fit_single_lens(t, flux, sigma, finite_source=True))
        z = (flux - model) / sigma
        at = int(np.argmax(np.convolve(z**2, np.ones(min(SHORT, len(z))), "same")))
        near = np.arange(max(at - DETAIL, 0), min(at + DETAIL, len(t)))
        every = np.arange(0, len(t), max(1, len(t) // 700))
        every = np.unique(np.append(every, np.argsort(-np.abs(z))[:LARGEST_DRAWN]))
        drawn = curve[["name", "called", "p_binary"]].assign(t=t, flux=flux, model=model, sigma=sigma)
        parts += [drawn.iloc[i].assign(panel=panel) for panel, i in (("curve", every), ("detail", near))]
    first = page * PER_PAGE + 1
    return pd.concat(parts), (
        f"{title}, {first} to {first + len(here) - 1} of n = {len(names)}: the light curve with its best single lens "
        f"(line), and the epochs around the largest residual; the class called and {style.P_BINARY} above.")


def hardest_calls(folder):
    """Figure `mistakes` of the events of an evaluation folder whose observable class got the lowest probability, so the
    most confident mistakes first.
    """
    arrays, attributes = read_predictions(Path(folder) / "predictions.h5")
    p, truth = np.exp(arrays["log_p"].astype(float)), arrays["label_observable"]
    called, curves = arrays["called"], []
    with open_dataset(attributes["data"]) as data:
        for i in np.argsort(p[np.arange(len(p)), truth])[:PER_PAGE]:
            row = int(arrays["row"][i])
            event, flux, sigma = data.params.iloc[row], data.flux(row), data.sigma(row)
            valid = flux != 0
            name = (f"row {row}, {LENSING_CLASSES[int(event.label)]} observable as {LENSING_CLASSES[truth[i]]}, "
                    f"{style.SIGNAL} = {event.delta_chi2_pspl:.0f}")
            curves.append(pd.DataFrame({
                "name": name, "t": data.timestamps[valid], "flux": flux[valid], "flux_err": sigma[valid],
                "called": CLASSES[called[i]], "p_binary": p[i, BINARY]}))
    n_wrong = int((called != truth).sum())
    return mistakes(pd.concat(curves), 0, f"The hardest of {len(p)} events, {n_wrong} of which are called wrongly")


@style.figure
def draw_mistakes(table):
    groups = list(table.groupby("name", sort=False))
    size = (style.PAGE, 0.4 + 1.25 * len(groups))
    fig, axes = style.subplots(len(groups), 2, size=size, squeeze=False, width_ratios=(3, 2))
    for (a, b), (name, t) in zip(axes, groups, strict=True):
        called = t["called"].iloc[0]
        for ax, panel in ((a, "curve"), (b, "detail")):
            d = t[t["panel"] == panel]
            if panel == "detail":
                ax.errorbar(d["t"], d["flux"], d["sigma"], fmt="none", ecolor="0.75", elinewidth=0.5)
            ax.plot(d["t"], d["flux"], style.MARKERS[called], ms=1.3, color=style.COLOURS[called], rasterized=True)
            ax.plot(d["t"], d["model"], "-", color="0.15", lw=0.7)
        a.set_title(f"{name}: called {called}, {style.P_BINARY} = {t['p_binary'].iloc[0]:.3f}", loc="left")
        a.set_ylabel("flux / baseline")
    for ax in axes[-1]:
        ax.set_xlabel("time (d)")
    return fig


def sets(counts: dict):
    """Confusion of seasons of several sets of light-curve files: {set: (3, 3) counts, truth by called}."""
    classes = list(enumerate(LENSING_CLASSES))
    table = pd.DataFrame([{"set": name, "truth": a, "called": b, "n": int(np.asarray(c)[i, j])}
                          for name, c in counts.items() for i, a in classes for j, b in classes])
    return table, (
        f"Seasons of other people's light curves, n = {table['n'].sum()}: truth against class called, for each set, "
        "shares of each true class and numbers of seasons; a class without a season has an empty row, and what is "
        "called other counts as flat.")


@style.figure
def draw_sets(table):
    groups = list(table.groupby("set", sort=False))
    fig, axes = style.subplots(1, max(len(groups), LEAST_SETS), size=(style.PAGE, 2.5), squeeze=False, sharey=True)
    for ax in axes[0, len(groups) :]:
        ax.set_visible(False)
    for ax, (name, t) in zip(axes[0], groups, strict=False):
        counts = t["n"].to_numpy().reshape(len(LENSING_CLASSES), len(LENSING_CLASSES))
        draw_confusion(ax, counts)
        ax.set(title=f"{KNOWN_SETS.get(name, name)} ($n$ = {counts.sum()})", xlabel="called")
    axes[0, 0].set_ylabel("truth")
    return fig
