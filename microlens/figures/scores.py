"""What an evaluation draws of its scores: confusion, ROC, completeness and purity, calibration; and learning curves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from microlens.config import BINARY, CLASSES, LENSING_CLASSES
from microlens.evaluate import metrics
from microlens.figures import style

N_ROC_SAMPLES = 100  # bootstrap samples of the ROC curves
FALSE_POSITIVE_RATES = np.concatenate([[0], np.geomspace(1e-4, 1, 121)])
WHITE_ON = 0.6  # share of a shaded field from which its text is white


def confusion_matrix(observable, called):
    """Confusion matrix: how many events of each observable class are called each class.

    observable, called : (N,) class numbers. Class other has a row and a column where either holds it.
    """
    import sklearn.metrics as skm  # a second, which other figures need not spend

    n_classes = max(len(LENSING_CLASSES), int(np.max(observable)) + 1, int(np.max(called)) + 1)
    counts = skm.confusion_matrix(observable, called, labels=range(n_classes))
    classes = list(enumerate(CLASSES[:n_classes]))
    table = pd.DataFrame([{"truth": a, "called": b, "n": int(counts[i, j])} for i, a in classes for j, b in classes])
    unseen = (" A variable star whose variation cannot be seen counts as flat." if n_classes > len(LENSING_CLASSES)
              else "")
    return table, (
        f"Class called against the observable class, n = {counts.sum()}: shares of each true class, and numbers of "
        f"events.{unseen}")


def draw_confusion(ax, counts):
    """Draw counts (k, k), truth by called, shaded by the share of each true class; an absent class has no shares.

    k : 3 for the lensing classes, 4 with class other.
    """
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (i, j), n in np.ndenumerate(counts):
        text = f"{share[i, j]:.3f}\n({n})" if counts[i].any() else "–"
        ax.text(j, i, text, ha="center", va="center", color="white" if share[i, j] > WHITE_ON else "black")
    names = [style.NAMES[c].replace(" ", "\n") for c in CLASSES[: len(counts)]]
    ax.set_xticks(range(len(counts)), names)
    ax.set_yticks(range(len(counts)), names)


@style.figure
def draw_confusion_matrix(table):
    n_classes = table["truth"].nunique()
    fig, ax = style.subplots(size=(style.COLUMN, 2.9))
    draw_confusion(ax, table["n"].to_numpy().reshape(n_classes, n_classes))
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
        f"One-vs-rest ROC curves of the three probabilities against the observable class, n = {n}: the share of a "
        "class that is missed. Bands and brackets are 95 % intervals.")


@style.figure
def draw_roc_curves(table):
    fig, ax = style.subplots(size=(style.COLUMN, 3.1))
    table = table[table["false_positive_rate"] > 0]
    lowest = style.share_axis(ax.yaxis, 1 - table["true_positive_rate"])
    for name, t in table.groupby("class", sort=False):
        x, first = t["false_positive_rate"], t.iloc[0]
        missed, high, low = (np.maximum(1 - t[column], lowest) for column in ("true_positive_rate", "low", "high"))
        area, least, most = (style.scientific(max(1 - first[key], 0)) for key in ("auc", "auc_high", "auc_low"))
        ax.plot(x, missed, style.LINES[name], color=style.COLOURS[name], clip_on=False,
                label=f"{style.NAMES[name]}: {area} [{least}, {most}]")
        ax.fill_between(x, low, high, color=style.COLOURS[name], alpha=0.25, lw=0)
    ax.set(xlabel="false positive rate", ylabel=style.from_one("true positive rate"))
    style.log_axis(ax.xaxis, table["false_positive_rate"].min(), 1)
    style.legend_above(fig, ax, ncols=1, title=style.from_one("area under the curve"))
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
        f"Share of observable binaries that is missed ($1 -$ completeness, n = {n_observable}) against the share of "
        f"false ones among the called ($1 -$ purity, at the class mix 50/25/25), n = {len(labels)}, at every "
        "threshold; less is better, and a mark stands where the sum of both is least. The oracle knows the true "
        f"{style.SIGNAL}; grey lines: completeness and purity of 95 %. The intervals at the operating point are in the "
        "summary of the evaluation.")


@style.figure
def draw_completeness_purity(table):
    fig, ax = style.subplots(size=(style.COLUMN, 3.3))
    ends = [style.share_axis(axis, 1 - table[x]) for axis, x in ((ax.xaxis, "completeness"), (ax.yaxis, "purity"))]
    for i, (name, t) in enumerate(table.groupby("score", sort=False)):
        missed, false = (np.maximum(1 - t[x], end) for x, end in zip(("completeness", "purity"), ends, strict=True))
        best = int(np.argmin(2 - t["completeness"] - t["purity"]))
        colour = style.COLOURS["binary"] if name == "network" else f"C{i}"
        ax.plot(missed, false, ls=style.SERIES_LINES[i % 6], marker=style.SERIES_MARKERS[i % 6], markevery=[best], ms=4,
                label=style.typeset(name), color=colour, clip_on=False, zorder=3)
    ax.axvline(0.05, color="0.8", lw=0.6, zorder=0)
    ax.axhline(0.05, color="0.8", lw=0.6, zorder=0)
    ax.set(xlabel=style.from_one("completeness of observable binaries"), ylabel=style.from_one("purity"))
    style.legend_above(fig, ax, ncols=2)
    return fig


def calibration(truth, p, p_scaled, n_bins=15):
    """Reliability of P(binary) before and after temperature scaling, with its histogram. truth (N,) bool, p (N,).

    n_bins : of equal width in the log-odds, since nearly all events lie near 0 or 1; the outermost reach to 0 and 1.
    """
    inner = expit(np.linspace(logit(style.LEAST_P), -logit(style.LEAST_P), n_bins - 1))
    edges, parts = np.concatenate([[0], inner, [1 + 1e-9]]), []
    for name, value in (("as it is", p), ("temperature scaled", p_scaled)):
        found, n = metrics.recall_in_bins(truth, value, edges), np.histogram(value, edges)[0]
        mean = np.histogram(value, edges, weights=value)[0] / np.maximum(n, 1)
        shares = {f"share{end}": found[f"recall{end}"] for end in ("", "_low", "_high")}
        parts.append(pd.DataFrame({"kind": name, "p": mean, **shares, "n": n})[n > 0])
    return pd.concat(parts), (
        f"Reliability of {style.P_BINARY} against observable binaries, n = {len(truth)}: both axes are logarithmic "
        f"towards 0 and towards 1; {style.BARS}, the histogram counts events.")


@style.figure
def draw_calibration(table):
    fig, (ax, below) = style.subplots(2, 1, size=(style.COLUMN, 4.2), height_ratios=(3, 1), sharex=True)
    diagonal = expit(np.linspace(logit(style.LEAST_P), -logit(style.LEAST_P), 50))
    ax.plot(diagonal, diagonal, ":", color="0.6", lw=0.8)
    binary = style.COLOURS["binary"]
    looks = {"as it is": ("o", "C0", "white"), "temperature scaled": ("s", binary, binary)}
    for name, (marker, colour, face) in looks.items():
        t = table[table["kind"] == name]
        at = np.clip(t["p"], style.LEAST_P, 1 - style.LEAST_P)
        style.draw_shares(ax, at, t, "share", style.LEAST_P, highest=1 - style.LEAST_P, fmt=marker, color=colour,
                          mfc=face, label=name)
        below.plot(at, t["n"], marker, ms=3, color=colour, mfc=face, clip_on=False)
    for axis in (ax.xaxis, ax.yaxis):
        style.logit_axis(axis)
    ax.set(ylabel="share of observable binaries")
    below.set(xlabel=style.P_BINARY, ylabel="events")
    style.log_axis(below.yaxis, 1, table["n"].max())
    style.legend_above(fig, ax)
    return fig


def learning_curves(run):
    """Losses and recall against the pass from a run folder's log.jsonl."""
    records = pd.DataFrame([json.loads(line) for line in (Path(run) / "log.jsonl").read_text().splitlines()])
    table = records[["epoch", "train_loss", "val_loss", *(f"recall_{c}" for c in LENSING_CLASSES)]]
    config = json.loads((Path(run) / "config.json").read_text())
    return table, (
        f"Learning curves of network {Path(run).name}, n = {len(table)} passes over dataset "
        f"{Path(config['data']).name}: loss of the training part (the sum of all its terms), class cross-entropy of "
        "the validation part, and the share of each class that is missed there by the most probable class.")


@style.figure
def draw_learning_curves(table):
    fig, axes = style.subplots(1, 3, size=(style.PAGE, 2.3))
    for ax, name, label in zip(axes, ("train_loss", "val_loss"), ("training loss", "validation loss"), strict=False):
        ax.plot(table["epoch"], table[name], "o-", ms=3, color="0.3")
        ax.set(ylabel=label)
        style.log_axis(ax.yaxis, table[name].min(), table[name].max(), style.MARGIN)
    missed = 1 - table[[f"recall_{c}" for c in LENSING_CLASSES]].set_axis(LENSING_CLASSES, axis=1)
    lowest = style.share_axis(axes[2].yaxis, missed)
    for c in LENSING_CLASSES:
        style.draw_line(axes[2], table["epoch"], missed[c], lowest, style.MARKERS[c] + style.LINES[c], ms=3,
                        color=style.COLOURS[c], label=style.NAMES[c])
    axes[2].set(ylabel=style.from_one("recall (validation)"))
    style.legend_above(fig, axes[2])
    for ax in axes:
        ax.set(xlabel="pass over the training part")
        ax.xaxis.get_major_locator().set_params(integer=True)
    return fig
