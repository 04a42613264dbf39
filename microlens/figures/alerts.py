"""Early detection: mistakes as the season unfolds, alerts, and single events in time."""

from __future__ import annotations

import numpy as np
import pandas as pd

from microlens.config import LENSING_CLASSES, THRESHOLD_PSPL
from microlens.evaluate import metrics
from microlens.evaluate.report import MARKED
from microlens.figures import style
from microlens.fit import single_lens_residual

DELAYS = np.arange(-5, 20.25, 0.25)  # days after the moment of observability at which the alerted are counted
MOST_EPOCHS, MOST_STEPS = 700, 400  # that are drawn of one event
PER_MEAN = 32  # residuals of neighbouring epochs that are averaged


def early_detection_curve(fraction, accuracy, low, high, recall, n):
    """Accuracy (K,) with its interval and recall (K, 3) at fractions (K,) of the season, by the class observable then.

    n : number of events.
    """
    table = pd.DataFrame({"fraction": fraction, "accuracy": accuracy, "accuracy_low": low, "accuracy_high": high})
    for i, c in enumerate(LENSING_CLASSES):
        table[f"recall_{c}"] = recall[:, i]
    table["marked"] = np.isclose(table["fraction"].to_numpy()[:, None], MARKED).any(axis=1)
    return table, (
        "Share of events that are called wrongly after a fraction of the season, of all (left, with the band of its 95 "
        "% interval) and of each class (right); truth is the class observable by then. "
        f"n = {n}; marks at 10, 20, 30, 50, 70 and 100 %.")


@style.figure
def draw_early_detection_curve(table):
    fig, (a, b) = style.subplots(1, 2, size=(style.PAGE, 2.6))
    marked, x = np.flatnonzero(table["marked"]).tolist(), table["fraction"]
    wrong, missed = (1 - table[[name for name in table if name.startswith(kind)]] for kind in ("accuracy", "recall_"))
    lowest = style.share_axis(a.yaxis, wrong)
    a.fill_between(x, *(np.maximum(wrong[f"accuracy_{end}"], lowest) for end in ("high", "low")), color="0.3",
                   alpha=0.25, lw=0)
    style.draw_line(a, x, wrong["accuracy"], lowest, "-o", ms=4, color="0.3", markevery=marked)
    lowest = style.share_axis(b.yaxis, missed)
    for c in LENSING_CLASSES:
        style.draw_line(b, x, missed[f"recall_{c}"], lowest, style.LINES[c] + style.MARKERS[c], ms=3.5,
                        color=style.COLOURS[c], label=style.NAMES[c], markevery=marked)
    for ax, label in ((a, "accuracy"), (b, "recall of the class\nobservable by then")):
        ax.set(xlabel="fraction of the season", ylabel=style.from_one(label), xlim=(0, 1.02))
    style.legend_above(fig, b)
    return fig


def alerts(time, purity, completeness, delay, summary):
    """Alert purity and completeness against time (K,), and t_alert - t_observable (n,) days of the observable binaries.

    delay : NaN where there is no alert.   summary : as evaluate.alerts.report gives it.
    """
    a = pd.DataFrame({"panel": "time", "x": time, "purity": purity, "completeness": completeness})
    raised = np.sum(delay[:, None] <= DELAYS, axis=0)  # NaN is never raised
    low, high = metrics.binomial_interval(raised, len(delay))
    b = pd.DataFrame({"panel": "delay", "x": DELAYS, "share": raised / max(len(delay), 1), "share_low": low,
                      "share_high": high})
    return pd.concat([a, b]), (
        f"Alerts over a mixed stream, n = {summary['n']} light curves. Left: what the alerts so far lack to a purity "
        "and a completeness (of all observable binaries of the season) of 1; the dotted line is 5 %. Right: the share "
        f"of the observable binaries, n = {len(delay)}, without an alert at a time after their anomaly reached "
        f"{style.SIGNAL} = {THRESHOLD_PSPL:g}, with its 95 % interval; {int(np.isfinite(delay).sum())} have one by the "
        "end.")


@style.figure
def draw_alerts(table):
    fig, (a, b) = style.subplots(1, 2, size=(style.PAGE, 2.6))
    t, d = (table[table["panel"] == panel] for panel in ("time", "delay"))
    lowest = style.share_axis(a.yaxis, 1 - t[["purity", "completeness"]])
    style.draw_line(a, t["x"], 1 - t["purity"], lowest, color="0.3", label="purity")
    style.draw_line(a, t["x"], 1 - t["completeness"], lowest, "--", color=style.COLOURS["binary"], label="completeness")
    a.axhline(0.05, color="0.6", lw=0.6, ls=":")
    a.set(xlabel="time (d into the season)", ylabel=style.from_one("share"))
    lowest = style.share_axis(b.yaxis, 1 - d[["share", "share_low", "share_high"]])
    b.fill_between(d["x"], *(np.maximum(1 - d[f"share_{end}"], lowest) for end in ("high", "low")),
                   color=style.COLOURS["binary"], alpha=0.25, lw=0)
    style.draw_line(b, d["x"], 1 - d["share"], lowest, color=style.COLOURS["binary"])
    b.axvline(0, color="0.6", lw=0.6, ls=":")
    b.set(xlabel="time after the moment of observability (d)", ylabel="share not yet alerted")
    style.legend_above(fig, a)
    return fig


def evolution(time, flux, sigma, steps_time, p, *, truth, t_observable=np.nan):
    """One event: its light curve, its residual to the best single lens, the probabilities as the season unfolds.

    time (n,) days, flux and error sigma (n,) of valid epochs; steps_time (K,) days, p (K, 3) after each network step;
    truth : its class; t_observable : days.
    """
    residual = single_lens_residual(time, flux, np.asarray(sigma, dtype=float))
    n_means = len(time) // PER_MEAN
    blocks = residual[: n_means * PER_MEAN].reshape(n_means, PER_MEAN)
    middle = time[: n_means * PER_MEAN].reshape(n_means, PER_MEAN).mean(axis=1)
    every, step = max(1, len(time) // MOST_EPOCHS), max(1, len(steps_time) // MOST_STEPS)
    parts = [pd.DataFrame({"panel": "light curve", "t": time[::every], "y": flux[::every]}),
             pd.DataFrame({"panel": "residual", "t": middle, "y": blocks.sum(axis=1) / np.sqrt(PER_MEAN)})]
    parts += [pd.DataFrame({"panel": c, "t": steps_time[::step], "y": p[::step, i]})
              for i, c in enumerate(LENSING_CLASSES)]
    return pd.concat(parts).round(6).assign(t_observable=t_observable), (
        f"One event (n = 1), {style.NAMES[truth]}: every {every}. epoch of its light curve; the residual to the best "
        f"single lens of the whole season, means of {PER_MEAN} epochs over their errors; class probabilities after "
        "each network step, on an axis that is logarithmic towards 0 and towards 1.")


@style.figure
def draw_evolution(table):
    fig, (a, b, c) = style.subplots(3, 1, size=(style.COLUMN, 4.4), sharex=True, height_ratios=(2, 1.3, 2))
    panels = dict(list(table.groupby("panel", sort=False)))
    a.plot(panels["light curve"]["t"], panels["light curve"]["y"], ".", ms=1.5, color="0.3", rasterized=True)
    b.plot(panels["residual"]["t"], panels["residual"]["y"], ".", ms=2, color="0.3")
    b.axhline(0, color="0.6", lw=0.6)
    style.residual_axis(b, panels["residual"]["y"])
    for name in LENSING_CLASSES:
        t = panels[name]
        c.plot(t["t"], np.clip(t["y"], style.LEAST_P, 1 - style.LEAST_P), style.LINES[name], color=style.COLOURS[name],
               label=style.NAMES[name])
    style.logit_axis(c.yaxis)
    a.set_ylabel("flux / baseline")
    b.set_ylabel(r"residual ($\sigma$)")
    c.set(xlabel="time (d into the season)", ylabel="probability")
    style.legend_above(fig, c)
    moment = table["t_observable"].iloc[0]
    if np.isfinite(moment):
        for ax in (a, b, c):
            ax.axvline(moment, color="k", lw=0.7, ls=":")
        a.set_title("dotted: observable from here", loc="left", fontsize=7)
    fig.align_ylabels([a, b, c])
    return fig
