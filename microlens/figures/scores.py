"""What an evaluation draws: confusion, ROC, calibration, completeness, recall, bias, learning curves, robustness.

Intervals are those of evaluate.metrics, at 95 %. What lies near 1 is drawn as its distance from 1 on a logarithmic
axis.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from microlens.config import BINARY, FLAT, LENSING_CLASSES, PSPL, THRESHOLD_PSPL
from microlens.evaluate import metrics
from microlens.figures.style import (
    COLOURS,
    COLUMN,
    EINSTEIN,
    LINES,
    LOGARITHMIC,
    MARKERS,
    PAGE,
    SIGNAL,
    bins_of,
    error_bars,
    figure,
    label_of,
    log_axis,
    subplots,
)

RECALL = ("delta_chi2_pspl", "u_0", "q", "m_base", "t_E", "rho")  # parameters of the recall figure
SIGNAL_BINS = 10.0 ** np.arange(0, 7.1, 0.5)  # of delta chi^2
N_BINS = 8  # of other parameters
N_ROC_SAMPLES = 100  # bootstrap samples of the ROC curves
FALSE_POSITIVE_RATES = np.concatenate([[0], np.geomspace(1e-4, 1, 121)])
INTERVAL = "95 % Clopper-Pearson intervals"


def confusion_matrix(labels, p):
    """Confusion matrix of the most probable class: counts and shares of each true class. labels (N,), p (N, 3)."""
    counts = np.array(metrics.summary(labels, p)["confusion"])
    table = pd.DataFrame([{"truth": a, "called": b, "n": int(counts[i, j])}
                          for i, a in enumerate(LENSING_CLASSES) for j, b in enumerate(LENSING_CLASSES)])
    return table, (
        f"Confusion matrix of the most probable class against the observable class, n = {counts.sum()}; shares are of "
        "each true class.")


def draw_confusion(ax, counts):
    """Draw counts (3, 3), truth by called, shaded by the share of each true class; an absent class has no shares."""
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (i, j), n in np.ndenumerate(counts):
        text = f"{share[i, j]:.3f}\n({n})" if counts[i].any() else "–"
        ax.text(j, i, text, ha="center", va="center", color="white" if share[i, j] > 0.6 else "black")
    ax.set_xticks(range(3), LENSING_CLASSES)
    ax.set_yticks(range(3), LENSING_CLASSES)


@figure
def draw_confusion_matrix(table):
    fig, ax = subplots(size=(COLUMN, 2.8))
    draw_confusion(ax, table["n"].to_numpy().reshape(len(LENSING_CLASSES), len(LENSING_CLASSES)))
    ax.set(xlabel="called", ylabel="truth (observable class)")
    return fig


def roc_curves(labels, p, rng):
    """One-vs-rest ROC of each class with the 95 % bootstrap band. labels (N,), p (N, 3)."""
    grid, parts = FALSE_POSITIVE_RATES, []
    for c, name in enumerate(LENSING_CLASSES):
        truth, score, n = labels == c, p[:, c], len(labels)
        if truth.all() or not truth.any():
            continue
        samples = np.array([metrics.roc(truth, score, grid, counts)
                            for counts in metrics.resamples(n, N_ROC_SAMPLES, rng)])
        low, high = np.nanpercentile(samples, [2.5, 97.5], axis=0)
        rarer = min(truth.sum(), (~truth).sum())
        auc_low, auc_high = metrics.percentile_interval(np.trapezoid(samples, grid, axis=1), rarer)
        parts.append(pd.DataFrame({
            "class": name, "false_positive_rate": grid, "true_positive_rate": metrics.roc(truth, score, grid),
            "low": low, "high": high, "auc": metrics.roc_area(truth, score), "auc_low": auc_low, "auc_high": auc_high}))
    return pd.concat(parts), (
        f"One-vs-rest ROC curves of the three probabilities against the observable class, n = {n}: share of a class "
        "that is missed. A curve ends where nothing is missed; bands and brackets are 95 % bootstrap intervals, of an "
        "area of 1 the Clopper-Pearson interval of the rarer class.")


@figure
def draw_roc_curves(table):
    fig, ax = subplots(size=(COLUMN, 3.0))
    table = table[table["false_positive_rate"] > 0]
    missed = 1 - table["true_positive_rate"]
    lowest = missed[missed > 1e-9].min() / 2 if (missed > 1e-9).any() else 1e-4
    for name, t in table.groupby("class", sort=False):
        x, r = t["false_positive_rate"], t.iloc[0]
        beyond = [f"{max(1 - r[key], 0):.1e}" if r[key] < 1 else "0" for key in ("auc", "auc_high", "auc_low")]
        ax.plot(x, (1 - t["true_positive_rate"]).where(t["true_positive_rate"] < 1), LINES[name], color=COLOURS[name],
                label="{}: 1 - AUC = {} [{}, {}]".format(name, *beyond))
        ax.fill_between(x, np.maximum(1 - t["high"], lowest), np.maximum(1 - t["low"], lowest), color=COLOURS[name],
                        alpha=0.25, lw=0)
    ax.set(xscale="log", yscale="log", xlabel="false positive rate", ylabel="1 - true positive rate", xlim=(1e-4, 1),
           ylim=(lowest, 1))
    fig.legend(loc="outside upper center")
    return fig


def completeness_purity(labels, observable, scores: dict, weight):
    """Completeness of observable binaries against purity for several scores {name: (N,)}; weight (N,) : class mix."""
    parts, n_observable = [], int((observable == BINARY).sum())
    for name, score in scores.items():
        purity, completeness = metrics.completeness_curve(labels, observable, np.asarray(score, dtype=float), weight)
        with np.errstate(divide="ignore"):
            shown = np.round(np.log10([1 - purity, 1 - completeness]), 2)  # what a page can show
        _, keep = np.unique(shown, axis=1, return_index=True)
        keep.sort()
        parts.append(pd.DataFrame({"score": name, "purity": purity[keep], "completeness": completeness[keep]}))
    return pd.concat(parts), (
        f"Share of observable binaries that is missed (1 - completeness, n = {n_observable}) against the share of "
        f"false ones among the called (1 - purity, at the class mix 50/25/25), n = {len(labels)}, at every threshold; "
        f"less is better, what is zero is drawn on the frame. The oracle knows the true {SIGNAL}; grey lines: "
        "completeness and purity of 95 %.")


@figure
def draw_completeness_purity(table):
    fig, ax = subplots(size=(COLUMN, 3.0))
    missed, false = 1 - table["completeness"], 1 - table["purity"]
    lowest = [x[x > 1e-9].min() / 2 if (x > 1e-9).any() else 1e-4 for x in (missed, false)]
    styles = ["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1))]
    for i, (name, t) in enumerate(table.groupby("score", sort=False)):
        colour = {"oracle": "0.4", "network": COLOURS["binary"]}.get(name, f"C{i - 1}")
        x, y = np.maximum(1 - t["completeness"], lowest[0]), np.maximum(1 - t["purity"], lowest[1])
        ax.plot(x, y, ls=styles[i % 5], label=name.replace("chi^2", r"$\chi^2$"), color=colour, clip_on=False)
    ax.axvline(0.05, color="0.8", lw=0.6, zorder=0)
    ax.axhline(0.05, color="0.8", lw=0.6, zorder=0)
    ax.set(xscale="log", yscale="log", xlabel="1 - completeness of observable binaries", ylabel="1 - purity",
           xlim=(lowest[0], 1), ylim=(lowest[1], 1))
    fig.legend(loc="outside upper center", ncols=2)
    return fig


def calibration(truth, p, p_scaled, n_bins=15):
    """Reliability of P(binary) before and after temperature scaling, with its histogram. truth (N,) bool, p (N,)."""
    parts = []
    for name, value in (("as it is", p), ("temperature scaled", p_scaled)):
        mean, share, n = metrics.reliability(truth, value, n_bins)
        low, high = metrics.binomial_interval(np.rint(np.nan_to_num(share) * n), n)
        table = pd.DataFrame({"kind": name, "p": mean, "share": share, "share_low": low, "share_high": high, "n": n})
        parts.append(table[n > 0])
    return pd.concat(parts), (
        f"Reliability of P(binary) against observable binaries, n = {len(truth)}; bars are {INTERVAL}, the histogram "
        "counts events.")


@figure
def draw_calibration(table):
    fig, (ax, below) = subplots(2, 1, size=(COLUMN, 3.6), height_ratios=(3, 1), sharex=True)
    ax.plot([0, 1], [0, 1], "k:", lw=0.8)
    styles = (("o", "0.3", "white"), ("s", COLOURS["binary"], COLOURS["binary"]))
    for (name, t), (marker, colour, face) in zip(table.groupby("kind", sort=False), styles, strict=True):
        ax.errorbar(t["p"], t["share"], error_bars(t, "share"), fmt=marker, ms=3, color=colour, mfc=face, label=name)
    ax.set(ylabel="share of observable binaries", xlim=(0, 1), ylim=(0, 1))
    fig.legend(loc="outside upper center", ncols=2)
    first = table[table["kind"] == table["kind"].iloc[0]]
    below.bar(first["p"], first["n"], width=0.04, color="0.6")
    below.set(xlabel="P(binary)", ylabel="events", yscale="log")
    return fig


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
            edges = bins_of(x, name, N_BINS)
        part = pd.DataFrame(metrics.recall_in_bins(hit, x, edges))
        part["oracle"] = metrics.recall_in_bins(found, x, edges)["recall"]
        parts.append(part.assign(parameter=name))
    return pd.concat(parts), (
        f"Recall of simulated binaries (n = {len(hit)}), {INTERVAL}; dotted: the oracle, the share with {SIGNAL} > "
        f"{THRESHOLD_PSPL:g}. The network may find some of the fainter ones, too.")


def _recall_panel(ax, t, name):
    t = t[t["n"] > 0]
    logarithmic = name in LOGARITHMIC
    centre = np.sqrt(t["low"] * t["high"]) if logarithmic else (t["low"] + t["high"]) / 2
    ax.plot(centre, t["oracle"], ":", color="0.3", label="oracle")
    ax.errorbar(centre, t["recall"], error_bars(t, "recall"), fmt="o-", ms=3, color=COLOURS["binary"], label="network")
    if logarithmic:
        log_axis(ax.xaxis, t["low"].min(), t["high"].max())
    ax.set(xlabel=f"{SIGNAL}, best single lens" if name == "delta_chi2_pspl" else label_of(name), ylim=(0, 1.03))


@figure
def draw_recall(table):
    fig, axes = subplots(2, 3, size=(PAGE, 3.8), sharey=True)
    for ax, name in zip(axes.flat, RECALL, strict=True):
        _recall_panel(ax, table[table["parameter"] == name], name)
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    for ax in axes[:, 0]:
        ax.set_ylabel("recall of binaries")
    return fig


def recall_s_q(params, hit):
    """Recall over (log s, log q) of the network and of the oracle, and the number of binaries. As in `recall`."""
    s, q = (np.log10(params[name].to_numpy()) for name in ("s", "q"))
    edges = [np.linspace(x.min(), x.max() + 1e-9, N_BINS + 1) for x in (s, q)]
    found = params["delta_chi2_pspl"].to_numpy() > THRESHOLD_PSPL
    n, n_hit, n_found = (np.histogram2d(s[of], q[of], edges)[0].ravel() for of in (slice(None), hit, found))
    at = {name: x.ravel() for name, x in zip(("log_s", "log_q"), np.meshgrid(*(e[:-1] for e in edges), indexing="ij"),
                                             strict=True)}
    to = {f"{name}_to": at[name] + np.diff(e)[0] for name, e in zip(at, edges, strict=True)}
    with np.errstate(invalid="ignore"):
        table = pd.DataFrame({**at, **to, "n": n.astype(int), "recall": n_hit / n, "oracle": n_found / n})
    return table, f"Recall of simulated binaries over separation and mass ratio, n = {len(hit)}; white: no binary."


@figure
def draw_recall_s_q(table):
    fig, axes = subplots(1, 2, size=(PAGE, 2.7), sharey=True)
    x, y = (np.append(np.unique(table[name]), table[f"{name}_to"].max()) for name in ("log_s", "log_q"))
    for ax, name, title in zip(axes, ("recall", "oracle"), ("network", "oracle: share observable"), strict=True):
        shown = ax.pcolormesh(x, y, table[name].to_numpy().reshape(len(x) - 1, -1).T, cmap="cividis", vmin=0, vmax=1)
        ax.set(title=title, xlabel=rf"$\log_{{10}}(s\,/\,${EINSTEIN}$)$")
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
        "Share whose most probable class is not the observable one against impact parameter, n = "
        f"{int((labels != FLAT).sum())}; bars are {INTERVAL}, triangles the upper ends where none is wrong.")


@figure
def draw_u0_dependency(table):
    fig, ax = subplots(size=(COLUMN, 2.6))
    for name, t in table.groupby("class", sort=False):
        t = t[t["n"] > 0]
        centre, wrong, none = (t["low"] + t["high"]) / 2, 1 - t["recall"], t["recall"] == 1
        ax.errorbar(centre[~none], wrong[~none], error_bars(t, "recall")[::-1, ~none], fmt=MARKERS[name], ms=3,
                    color=COLOURS[name], label=f"simulated as {name}")
        ax.plot(centre[none], 1 - t["recall_low"][none], "v", ms=4, mfc="white", color=COLOURS[name],
                label=None if (~none).any() else f"simulated as {name}: none wrong")
    ax.set(xlabel=label_of("u_0"), ylabel="share called wrongly", yscale="log", ylim=(None, 1))
    ax.legend(loc="upper left")
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
        "Distribution of $t_0$ of events whose most probable class is the observable one (right) and of the others "
        f"(wrong), n = {int((labels != FLAT).sum())}, with the Kolmogorov-Smirnov test of both.")


@figure
def draw_temporal_bias_check(table):
    fig, axes = subplots(1, 2, size=(PAGE, 2.4), sharey=True)
    for ax, (name, part) in zip(axes, table.groupby("class", sort=False), strict=False):
        for prediction, line in (("right", "-"), ("wrong", "--")):
            t = part[part["prediction"] == prediction]
            if len(t):
                ax.step(t["t_0"], t["share"], line, where="post", color=COLOURS[name],
                        label=f"{prediction}, n = {t['n'].iloc[0]}")
        d, p = part[["D", "p"]].iloc[0]
        found = f"$D$ = {d:.3f}, $p$ = {p:.2g}" if np.isfinite(d) else f"fewer than {metrics.LEAST_OF_KS_TEST} wrong"
        ax.set(xlabel=f"{label_of('t_0')[:-1]} into the season)", title=f"{name}: {found}")
        ax.legend(loc="upper left")
    axes[0].set_ylabel("cumulative share")
    return fig


def per_class_metrics(summaries: dict):
    """Precision, recall and F1 of each class for {label policy: metrics.summary}."""
    rows = [{"labels": policy, "class": c, "metric": m, "value": s["per_class"][c][m], "n": s["per_class"][c]["n"]}
            for policy, s in summaries.items() for c in LENSING_CLASSES for m in ("precision", "recall", "f1")]
    n = next(iter(summaries.values()))["n"]
    return pd.DataFrame(rows), (
        f"Precision, recall and F1 of each class against simulated and observable labels, n = {n}; of the most "
        "probable class.")


@figure
def draw_per_class_metrics(table):
    fig, axes = subplots(1, 2, size=(PAGE, 2.3), sharey=True)
    for ax, (policy, part) in zip(axes, table.groupby("labels", sort=False), strict=False):
        for i, c in enumerate(LENSING_CLASSES):
            bars = ax.bar(np.arange(3) + 0.29 * (i - 1), part.loc[part["class"] == c, "value"], 0.26, color=COLOURS[c],
                          edgecolor="black", lw=0.4, hatch=("", "//", "..")[i], label=c)
            ax.bar_label(bars, fmt="%.3f", fontsize=6)
        counts = ", ".join(str(n) for n in part.groupby("class", sort=False)["n"].first())
        ax.set_xticks(range(3), ("precision", "recall", "F1"))
        ax.set(title=f"{policy} labels (n = {counts})", ylim=(0, 1.12))
    axes[0].set_ylabel("score")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return fig


def learning_curves(run):
    """Losses and recall against the pass from a run folder's log.jsonl."""
    records = pd.DataFrame([json.loads(line) for line in (Path(run) / "log.jsonl").read_text().splitlines()])
    table = records[["epoch", "train_loss", "val_loss", *(f"recall_{c}" for c in LENSING_CLASSES)]]
    return table, (
        f"Learning curves of {Path(run).name} over n = {len(table)} passes: loss of the training part (the sum of all "
        "its parts), class cross-entropy of the validation part, and the share of each class that is missed there; a "
        "curve ends where none is.")


@figure
def draw_learning_curves(table):
    fig, axes = subplots(1, 3, size=(PAGE, 2.3))
    for ax, name, label in zip(axes, ("train_loss", "val_loss"), ("training loss", "validation loss"), strict=False):
        ax.plot(table["epoch"], table[name], "o-", ms=3, color="0.3")
        ax.set(ylabel=label)
        log_axis(ax.yaxis, table[name].min(), table[name].max())
    missed = 1 - table[[f"recall_{c}" for c in LENSING_CLASSES]].set_axis(LENSING_CLASSES, axis=1)
    for c in LENSING_CLASSES:
        shown, line = missed[c].where(missed[c] > 0), MARKERS[c] + LINES[c]
        axes[2].plot(table["epoch"], shown, line, ms=3, color=COLOURS[c], label=c)
    axes[2].set(ylabel="1 - recall (validation)", yscale="log")
    fig.legend(*axes[2].get_legend_handles_labels(), loc="outside upper right", ncols=3)
    for ax in axes:
        ax.set(xlabel="pass over the training part")
        ax.xaxis.get_major_locator().set_params(integer=True)
    return fig


def robustness(conditions: dict):
    """Scores under shifted conditions: {name: (shifted, evaluation summary)}, the first as trained."""
    rows = []
    for name, (shifted, summary) in conditions.items():
        n_of = {c: summary["simulated_labels"]["per_class"][c]["n"] for c in LENSING_CLASSES}
        head, n_other = summary["at_threshold"], n_of["flat"] + n_of["pspl"]
        row = {"condition": name + (" (shifted)" if shifted else ""), "shifted": shifted, "n": summary["n"],
               "n_observable": head["n_observable"], "purity": head["purity"]}
        for kind, score in (("", head), ("_most_probable", summary["most_probable_class"])):
            false = sum(round((score[f"false_alarms_{c}"] or 0) * n_of[c]) for c in ("flat", "pspl"))
            found = round((score["completeness_observable"] or 0) * head["n_observable"])
            for what, k, n in (("completeness", found, head["n_observable"]), ("false_alarms", false, n_other)):
                share = metrics.share(k, n)
                low, high = share["interval_95"]
                row |= {f"{what}{kind}": share["value"], f"{what}{kind}_low": low, f"{what}{kind}_high": high}
        rows.append(row)
    table = pd.DataFrame(rows)
    return table, (
        f"Completeness of observable binaries and false alarms under shifted conditions, n = {int(table['n'].min())} "
        "events each, the first as trained; circles: threshold frozen on validation events, squares: most probable "
        f"class. Bars: {INTERVAL}.")


@figure
def draw_robustness(table):
    fig, (a, b) = subplots(1, 2, size=(PAGE, 1.0 + 0.24 * len(table)), sharey=True)
    y = np.arange(len(table))[::-1]
    for ax, name, colour in ((a, "completeness", COLOURS["binary"]), (b, "false_alarms", COLOURS["pspl"])):
        for kind, marker, shift, face in (("", "o", 0.13, colour), ("_most_probable", "s", -0.13, "white")):
            bars, label = error_bars(table, name + kind), "most probable class" if kind else "frozen threshold"
            ax.errorbar(table[name + kind], y + shift, xerr=bars, fmt=marker, ms=3, color=colour, mfc=face,
                        elinewidth=0.8, label=label)
        ax.axvline(table[name].iloc[0], color="0.7", lw=0.6, zorder=0)
    fig.legend(*a.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    a.set_yticks(y, table["condition"])
    a.set(xlabel="completeness of observable binaries", xlim=(0, 1.02))
    b.set(xlabel="flats and single lenses called binary", xlim=(-0.01, None))
    return fig
