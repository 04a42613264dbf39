"""How the answer depends on an event's parameters: recall and mistakes against them, and time against mistakes."""

from __future__ import annotations

import numpy as np
import pandas as pd

from microlens.config import BINARY, FLAT, LENSING_CLASSES, PSPL, THRESHOLD_PSPL
from microlens.evaluate import metrics
from microlens.figures import style

RECALL = ("delta_chi2_pspl", "u_0", "q", "m_base", "t_E", "rho")  # parameters of the recall figure
SIGNAL_BINS = 10.0 ** np.arange(0, 7.1, 0.5)  # of delta chi^2
N_BINS = 8  # of other parameters
ASIDE = 0.012  # of the width of an axis, by which the points of two classes stand apart


def recall(params, hit):
    """Recall of simulated binaries in bins of each parameter, with the oracle's.

    params, hit : table and (N,) bool of the binaries only.
    """
    parts, found = [], params["delta_chi2_pspl"].to_numpy() > THRESHOLD_PSPL
    for name in RECALL:
        x = params[name].to_numpy(float)
        if name == "delta_chi2_pspl":
            x, edges = np.maximum(x, SIGNAL_BINS[0]), SIGNAL_BINS
        else:
            edges = style.bins_of(x, name, N_BINS)
        part = pd.DataFrame(metrics.recall_in_bins(hit, x, edges))
        part["oracle"] = metrics.recall_in_bins(found, x, edges)["recall"]
        parts.append(part.assign(parameter=name))
    return pd.concat(parts), (
        f"Simulated binaries that are missed ($1 -$ recall), n = {len(hit)}; {style.BARS}; dotted: the oracle, which "
        f"calls those with {style.SIGNAL} > {THRESHOLD_PSPL:g}. The network may find some of the fainter ones, too.")


def _recall_panel(ax, t, name):
    t = t[t["n"] > 0]
    logarithmic = name in style.LOGARITHMIC
    lowest = style.share_axis(ax.yaxis, 1 - t[["recall", "recall_low", "recall_high", "oracle"]])
    centre = np.sqrt(t["low"] * t["high"]) if logarithmic else (t["low"] + t["high"]) / 2
    ax.plot(centre, np.maximum(1 - t["oracle"], lowest), ":", color="0.3", label="oracle", clip_on=False)
    style.draw_shares(ax, centre, t, "recall", lowest, from_one=True, fmt="o-", color=style.COLOURS["binary"],
                      label="network")
    if logarithmic:
        style.log_axis(ax.xaxis, t["low"].min(), t["high"].max())
    ax.set(xlabel=f"{style.SIGNAL}, best single lens" if name == "delta_chi2_pspl" else style.label_of(name))


@style.figure
def draw_recall(table):
    fig, axes = style.subplots(2, 3, size=(style.PAGE, 4.2))
    for ax, name in zip(axes.flat, RECALL, strict=True):
        _recall_panel(ax, table[table["parameter"] == name], name)
    style.legend_above(fig, axes[0, 0])
    for ax in axes[:, 0]:
        ax.set_ylabel(style.from_one("recall of binaries"))
    return fig


def recall_s_q(params, hit):
    """Recall over (log s, log q) of the network and of the oracle, and the number of binaries. As in `recall`."""
    s, q = (np.log10(params[name].to_numpy()) for name in ("s", "q"))
    edges = [np.linspace(x.min(), x.max() + 1e-9, N_BINS + 1) for x in (s, q)]
    found = params["delta_chi2_pspl"].to_numpy() > THRESHOLD_PSPL
    n, n_hit, n_found = (np.histogram2d(s[of], q[of], edges)[0].ravel() for of in (slice(None), hit, found))
    log_s, log_q = (x.ravel() for x in np.meshgrid(*(e[:-1] for e in edges), indexing="ij"))
    to = {"log_s_to": log_s + np.diff(edges[0])[0], "log_q_to": log_q + np.diff(edges[1])[0]}
    with np.errstate(invalid="ignore"):
        table = pd.DataFrame({"log_s": log_s, "log_q": log_q, **to, "n": n.astype(int), "recall": n_hit / n,
                              "oracle": n_found / n})
    return table, f"Recall of simulated binaries over separation and mass ratio, n = {len(hit)}; white: no binary."


@style.figure
def draw_recall_s_q(table):
    fig, axes = style.subplots(1, 2, size=(style.PAGE, 2.7), sharey=True)
    x, y = (np.append(np.unique(table[name]), table[f"{name}_to"].max()) for name in ("log_s", "log_q"))
    for ax, name, title in zip(axes, ("recall", "oracle"), ("network", "oracle: share observable"), strict=True):
        shown = ax.pcolormesh(x, y, table[name].to_numpy().reshape(len(x) - 1, -1).T, cmap="cividis", vmin=0, vmax=1)
        ax.set(title=title, xlabel=rf"$\log_{{10}}(s\,/\,${style.EINSTEIN}$)$")
    axes[0].set_ylabel(r"$\log_{10} q$")
    fig.colorbar(shown, ax=axes, label="recall of binaries")
    return fig


def u0_dependency(u_0, labels, right):
    """Share called wrongly against the impact parameter for single lenses and binaries. All (N,); u_0 in theta_E."""
    edges, parts = np.linspace(0, np.nanmax(u_0) * (1 + 1e-9), 11), []
    for c in (PSPL, BINARY):
        part = pd.DataFrame(metrics.recall_in_bins(right[labels == c], u_0[labels == c], edges))
        parts.append(part.assign(**{"class": LENSING_CLASSES[c]}))
    return pd.concat(parts), (
        "Share of events whose class called is not the observable one against the impact parameter, n = "
        f"{int((labels != FLAT).sum())}; {style.BARS}.")


@style.figure
def draw_u0_dependency(table):
    fig, ax = style.subplots(size=(style.COLUMN, 2.8))
    table = table[table["n"] > 0]
    width = table["high"].max()
    lowest = style.share_axis(ax.yaxis, 1 - table[["recall", "recall_low", "recall_high"]])
    for side, (name, t) in zip((-1, 1), table.groupby("class", sort=False), strict=False):
        centre = (t["low"] + t["high"]) / 2 + side * ASIDE * width
        style.draw_shares(ax, centre, t, "recall", lowest, from_one=True, fmt=style.MARKERS[name],
                          color=style.COLOURS[name], label=f"simulated {style.NAMES[name]}")
    ax.set(xlabel=style.label_of("u_0"), ylabel="share called wrongly", xlim=(0, width))
    style.legend_above(fig, ax)
    return fig


def temporal_bias_check(t_0, labels, right):
    """Cumulative distributions of t_0 (N,) days of right and wrong predictions, with the KS statistic D beside p."""
    parts = []
    for c in (PSPL, BINARY):
        at = labels == c
        bias = metrics.temporal_bias(t_0[at], right[at])
        for name, which in (("right", right[at]), ("wrong", ~right[at])):
            x = np.sort(t_0[at][which])
            if len(x):
                keep = np.unique(np.linspace(0, len(x) - 1, min(len(x), 150)).astype(int))
                parts.append(pd.DataFrame({"class": LENSING_CLASSES[c], "prediction": name, "t_0": x[keep],
                                           "share": (keep + 1) / len(x), "n": len(x), "D": bias["D"], "p": bias["p"]}))
    return pd.concat(parts), (
        "Distribution of $t_0$ of events whose class called is the observable one (right) and of the others (wrong), n "
        f"= {int((labels != FLAT).sum())}, with the Kolmogorov-Smirnov distance $D$ of both and its $p$; a class with "
        f"fewer than {metrics.LEAST_OF_KS_TEST} wrong events is not drawn.")


@style.figure
def draw_temporal_bias_check(table):
    fig, ax = style.subplots(size=(style.COLUMN, 2.9))
    tested = table[table["D"].notna()]
    for (name, prediction), t in tested.groupby(["class", "prediction"], sort=False):
        n, d, p = t[["n", "D", "p"]].iloc[0]
        wrong = prediction == "wrong"
        found = f"; $D$ = {d:.3f}, $p$ = {p:.2g}" if wrong else ""
        ax.step(t["t_0"], t["share"], style.LINES[name] if wrong else "-", where="post", color=style.COLOURS[name],
                lw=1.2 if wrong else 0.6, marker=style.MARKERS[name] if wrong else "", ms=3, markevery=0.1,
                label=f"{style.NAMES[name]}, {prediction} ($n$ = {n:.0f}{found})")
    ax.set(xlabel=f"{style.label_of('t_0')[:-1]} into the season)", ylabel="cumulative share", ylim=(0, 1.02))
    if tested.empty:
        ax.set_title("too few events are wrong")
    else:
        style.legend_above(fig, ax, ncols=1)
    return fig
