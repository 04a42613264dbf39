"""Early detection: accuracy as the season unfolds, alerts, and single events in time."""

from __future__ import annotations

import numpy as np
import pandas as pd

from microlens.config import LENSING_CLASSES, THRESHOLD_PSPL
from microlens.evaluate.report import MARKED
from microlens.figures.style import COLOURS, LINES, MARKERS, PAGE, SIGNAL, figure, subplots

DELAYS = np.arange(-10, 20.25, 0.25)  # days: edges of the histogram of delays
LEAST_SHARE = 0.002  # of the alerts in a bin at the ends of the histogram that is drawn
MOST_EPOCHS, MOST_STEPS = 1500, 400  # that are drawn of one event


def early_detection_curve(fraction, accuracy, low, high, recall, n):
    """Accuracy (K,) with its interval and recall (K, 3) at fractions (K,) of the season, by the class observable then.

    n : number of events.
    """
    table = pd.DataFrame({"fraction": fraction, "accuracy": accuracy, "accuracy_low": low, "accuracy_high": high})
    for i, c in enumerate(LENSING_CLASSES):
        table[f"recall_{c}"] = recall[:, i]
    table["marked"] = np.isclose(table["fraction"].to_numpy()[:, None], MARKED).any(axis=1)
    return table, (
        "Share of events that the most probable class gets wrong after a fraction of the season, of all (left) and "
        f"of each class (right); truth is the class observable by then. n = {n}; marks at 10, 20, 30, 50, 70 and 100 "
        "%; band: 95 % Clopper-Pearson interval; a class without a wrong event is not drawn.")


@figure
def draw_early_detection_curve(table):
    fig, (a, b) = subplots(1, 2, size=(PAGE, 2.5))
    marked, x = np.flatnonzero(table["marked"]).tolist(), table["fraction"]
    a.fill_between(x, 1 - table["accuracy_high"], 1 - table["accuracy_low"], color="0.3", alpha=0.25, lw=0)
    a.plot(x, 1 - table["accuracy"], "-o", ms=4, color="0.3", markevery=marked)
    for c in LENSING_CLASSES:
        missed = 1 - table[f"recall_{c}"]
        b.plot(x, missed.where(missed > 0), LINES[c] + MARKERS[c], ms=3.5, color=COLOURS[c], label=c, markevery=marked)
    for ax, label in ((a, "1 - accuracy"), (b, "1 - recall of the class\nobservable by then")):
        ax.set(xlabel="fraction of the season", ylabel=label, yscale="log", xlim=(0, 1.02))
    fig.legend(*b.get_legend_handles_labels(), loc="outside upper right", ncols=3)
    return fig


def alerts(time, purity, completeness, delay, summary):
    """Alert purity and completeness against time (K,), and t_alert - t_observable (n,) days of the observable binaries.

    delay : NaN where there is no alert.   summary : as evaluate.alerts.report gives it.
    """
    a = pd.DataFrame({"panel": "time", "x": time, "purity": purity, "completeness": completeness})
    raised = delay[np.isfinite(delay)]
    counts, _ = np.histogram(np.clip(raised, DELAYS[0], DELAYS[-1] - 1e-9), DELAYS)
    by_then = (raised[:, None] <= DELAYS[1:]).sum(axis=0) / max(len(delay), 1)
    b = pd.DataFrame({"panel": "delay", "x": DELAYS[:-1], "width": np.diff(DELAYS), "count": counts, "share": by_then})
    return pd.concat([a, b]), (
        f"Alerts over a mixed stream, n = {summary['n']} light curves: purity and completeness of observable binaries "
        f"so far; delay of {len(raised)} alerts after the anomaly of {len(delay)} binaries reached {SIGNAL} = "
        f"{THRESHOLD_PSPL:g} (drawn where a bin holds more than {100 * LEAST_SHARE:g} % of them), and the share of all "
        "alerted by then.")


@figure
def draw_alerts(table):
    fig, (a, b) = subplots(1, 2, size=(PAGE, 2.5))
    t = table[table["panel"] == "time"]
    a.plot(t["x"], t["purity"], color="0.3", label="purity of the alerts so far")
    a.plot(t["x"], t["completeness"], "--", color=COLOURS["binary"], label="completeness,\nall observable binaries")
    a.set(xlabel="time (d into the season)", ylabel="share", ylim=(0, 1.02))
    a.legend(loc="lower right")
    d = table[table["panel"] == "delay"]
    width, filled = d["width"].iloc[0], d["x"][d["count"] > LEAST_SHARE * d["count"].sum()]
    b.bar(d["x"], d["count"], width=width, align="edge", color=COLOURS["binary"], edgecolor="black", lw=0.3)
    b.axvline(0, color="k", lw=0.8)
    b.set(xlabel="alert - moment of observability (d)", ylabel="observable binaries (bars)")
    if len(filled):
        b.set_xlim(filled.min() - width, filled.max() + 2 * width)
    right = b.twinx()
    right.spines["right"].set_visible(True)
    right.tick_params(bottom=False, labelbottom=False)
    right.plot(d["x"] + width, d["share"], color="0.3")
    right.set(ylabel="share alerted by then (line)", ylim=(0, 1.02))
    return fig


def evolution(time, flux, steps_time, p, *, truth, t_observable=np.nan):
    """One event: its light curve, the probabilities as the season unfolds, and the confidence.

    time (n,) days, flux (n,) of valid epochs; steps_time (K,) days, p (K, 3) after each network step; truth : its
    class; t_observable : days.
    """
    every = max(1, len(time) // MOST_EPOCHS)
    a = pd.DataFrame({"panel": "light curve", "t": time[::every], "flux": flux[::every]})
    every = max(1, len(steps_time) // MOST_STEPS)
    b = pd.DataFrame(p[::every], columns=[f"p_{c}" for c in LENSING_CLASSES])
    b = b.assign(panel="probability", t=steps_time[::every])
    table = pd.concat([a, b]).assign(t_observable=t_observable)
    return table, (
        f"One {truth} event (n = 1): light curve, class probabilities and the largest of them (confidence) after each "
        "network step.")


@figure
def draw_evolution(table):
    fig, (a, b, c) = subplots(3, 1, size=(PAGE, 4.2), sharex=True, height_ratios=(2, 2, 1))
    t = table[table["panel"] == "light curve"]
    a.plot(t["t"], t["flux"], ".", ms=1.5, color="0.3", rasterized=True)
    a.set_ylabel("flux / baseline")
    t = table[table["panel"] == "probability"]
    for name in LENSING_CLASSES:
        b.plot(t["t"], t[f"p_{name}"], LINES[name], color=COLOURS[name], label=name)
    b.set(ylabel="probability", ylim=(-0.02, 1.02))
    fig.legend(*b.get_legend_handles_labels(), loc="outside upper right", ncols=3)
    c.plot(t["t"], t[[f"p_{name}" for name in LENSING_CLASSES]].max(axis=1), color="0.3")
    c.set(xlabel="time (d into the season)", ylabel="confidence", ylim=(0.3, 1.02))
    moment = table["t_observable"].iloc[0]
    if np.isfinite(moment):
        for ax in (a, b, c):
            ax.axvline(moment, color="k", lw=0.7, ls=":")
        a.annotate("observable", (moment, 1), xycoords=("data", "axes fraction"), xytext=(0, 2),
                   textcoords="offset points", fontsize=6, ha="center")
    return fig
