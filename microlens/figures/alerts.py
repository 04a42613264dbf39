"""Early detection: accuracy as the season unfolds, alerts, and single events in time."""

from __future__ import annotations

import numpy as np
import pandas as pd

from microlens.config import CLASSES
from microlens.evaluate.report import MARKED
from microlens.figures.style import COLOURS, LINES, MARKERS, PAGE, figure, subplots


def early_detection_curve(fraction, accuracy, low, high, recall, n):
    """Accuracy (K,) with its interval and recall (K, 3) at fractions (K,) of the season, by the class observable then; n events."""
    table = pd.DataFrame({"fraction": fraction, "accuracy": accuracy, "accuracy_low": low, "accuracy_high": high})
    for i, c in enumerate(CLASSES):
        table[f"recall_{c}"] = recall[:, i]
    table["marked"] = [any(abs(f - m) < 1e-9 for m in MARKED) for f in fraction]
    return table, (f"Accuracy and recall of the causal network after a fraction of the season, against the class observable by then, "
                   f"n = {n}; marks at 10, 20, 30, 50, 70 and 100 %; band: 95 % binomial interval.")


@figure
def draw_early_detection_curve(table):
    fig, (a, b) = subplots(1, 2, size=(PAGE, 2.4), sharey=True)
    marked = table[table["marked"]]
    a.fill_between(table["fraction"], table["accuracy_low"], table["accuracy_high"], color="0.3", alpha=0.25, lw=0)
    a.plot(table["fraction"], table["accuracy"], color="0.3")
    a.plot(marked["fraction"], marked["accuracy"], "o", ms=4, color="0.3")
    for c in CLASSES:
        b.plot(table["fraction"], table[f"recall_{c}"], LINES[c] + MARKERS[c], ms=3.5, color=COLOURS[c], label=c,
               markevery=np.flatnonzero(table["marked"]).tolist())
    a.set(xlabel="fraction of the season", ylabel="accuracy", ylim=(0, 1.02))
    b.set(xlabel="fraction of the season", ylabel="recall of the class\nobservable by then")
    b.legend(loc="lower right")
    return fig


def alerts(time, purity, completeness, delay, summary):
    """Alert purity and completeness against time (K,), and t_alert - t_observable (n,) days of the observable binaries, NaN = none."""
    a = pd.DataFrame({"panel": "time", "x": time, "purity": purity, "completeness": completeness})
    raised = delay[np.isfinite(delay)]
    edges = np.arange(-10, 20.5, 0.5)
    counts, _ = np.histogram(np.clip(raised, edges[0], edges[-1] - 1e-9), edges)
    b = pd.DataFrame({"panel": "delay", "x": edges[:-1], "count": counts,
                      "share": [np.mean(raised <= x) * len(raised) / max(len(delay), 1) if len(raised) else 0.0 for x in edges[1:]]})
    return pd.concat([a, b]), (f"Alerts over a mixed stream of {summary['n']} light curves: purity and completeness of observable "
                               f"binaries so far; delay of {len(raised)} alerts after the anomaly of {len(delay)} binaries became "
                               "observable (ends of the histogram hold what lies beyond), and the share of all alerted by then.")


@figure
def draw_alerts(table):
    fig, (a, b) = subplots(1, 2, size=(PAGE, 2.4))
    t = table[table["panel"] == "time"]
    a.plot(t["x"], t["purity"], color="0.3", label="purity of the alerts so far")
    a.plot(t["x"], t["completeness"], "--", color=COLOURS["binary"], label="completeness, all observable binaries")
    a.set(xlabel="time (d into the season)", ylabel="share", ylim=(0, 1.02))
    a.legend(loc="upper left", bbox_to_anchor=(0.0, 0.94))
    d = table[table["panel"] == "delay"]
    b.bar(d["x"], d["count"], width=0.5, align="edge", color=COLOURS["binary"], edgecolor="black", lw=0.3)
    b.axvline(0, color="k", lw=0.8)
    b.set(xlabel="alert - moment of observability (d)", ylabel="observable binaries (bars)")
    right = b.twinx()
    right.spines["right"].set_visible(True)
    right.tick_params(bottom=False, labelbottom=False)
    right.plot(d["x"] + 0.5, d["share"], color="0.3")
    right.set(ylabel="share alerted by then (line)", ylim=(0, 1.02))
    return fig


def evolution(time, flux, steps_time, p, *, truth, t_observable=np.nan, max_points=1500):
    """One event: its light curve, the probabilities as the season unfolds, and the confidence.

    time, flux (n,) valid epochs; steps_time (K,), p (K, 3) after each network step.
    """
    every = max(1, len(time) // max_points)
    a = pd.DataFrame({"panel": "light curve", "t": time[::every], "flux": flux[::every]})
    every = max(1, len(steps_time) // 400)
    b = pd.DataFrame(p[::every], columns=[f"p_{c}" for c in CLASSES]).assign(panel="probability", t=steps_time[::every])
    table = pd.concat([a, b]).assign(t_observable=t_observable)
    return table, f"One {truth} event (n = 1): light curve, class probabilities and confidence after each network step."


@figure
def draw_evolution(table):
    fig, (a, b, c) = subplots(3, 1, size=(PAGE, 4.2), sharex=True, height_ratios=(2, 2, 1))
    t = table[table["panel"] == "light curve"]
    a.plot(t["t"], t["flux"], ".", ms=1.5, color="0.3", rasterized=True)
    a.set_ylabel("flux / baseline")
    t = table[table["panel"] == "probability"]
    for name in CLASSES:
        b.plot(t["t"], t[f"p_{name}"], LINES[name], color=COLOURS[name], label=name)
    b.set(ylabel="probability", ylim=(-0.02, 1.02))
    fig.legend(*b.get_legend_handles_labels(), loc="outside upper right", ncols=3)
    c.plot(t["t"], t[[f"p_{name}" for name in CLASSES]].max(axis=1), color="0.3")
    c.set(xlabel="time (d into the season)", ylabel="confidence", ylim=(0.3, 1.02))
    moment = table["t_observable"].iloc[0]
    if np.isfinite(moment):
        for ax in (a, b, c):
            ax.axvline(moment, color="k", lw=0.7, ls=":")
        a.annotate("observable", (moment, 1), xycoords=("data", "axes fraction"), xytext=(0, 2), textcoords="offset points",
                   fontsize=6, ha="center")
    return fig
