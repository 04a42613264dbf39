"""What an evaluation draws: confusion, ROC, calibration, completeness, recall, bias, learning curves, robustness."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
from matplotlib.ticker import NullFormatter

from microlens.config import CLASSES
from microlens.evaluate import metrics
from microlens.figures.style import COLOURS, COLUMN, LINES, MARKERS, PAGE, figure, subplots
from microlens.fit import fit_single_lens, single_lens_model, smooth_error

PER_PAGE, DETAIL = 6, 60  # mistakes a page; epochs on each side of the largest residual

# Parameters of the recall figure: column, label, logarithmic axis.
RECALL = {"delta_chi2_pspl": ("delta chi^2 against the best single lens", True), "u_0": ("u_0 (Einstein radii)", False),
          "q": ("q", True), "m_base": ("m_base (AB mag)", False), "t_E": ("t_E (d)", True), "rho": ("rho (Einstein radii)", True)}


def confusion_matrix(labels, p):
    """Confusion matrix of the most probable class: counts and shares of each true class. labels (N,), p (N, 3)."""
    counts = np.array(metrics.summary(labels, p)["confusion"])
    table = pd.DataFrame([{"truth": a, "called": b, "n": int(counts[i, j])}
                          for i, a in enumerate(CLASSES) for j, b in enumerate(CLASSES)])
    return table, f"Confusion matrix, n = {counts.sum()}; shares are of each true class."


def _confusion(ax, counts):
    """Draw counts (3, 3), truth by called, shaded by the share of each true class."""
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (i, j), n in np.ndenumerate(counts):
        ax.text(j, i, f"{share[i, j]:.3f}\n({n})", ha="center", va="center", color="white" if share[i, j] > 0.6 else "black")
    ax.set_xticks(range(3), CLASSES)
    ax.set_yticks(range(3), CLASSES)


@figure
def draw_confusion_matrix(table):
    fig, ax = subplots(size=(COLUMN, 2.8))
    _confusion(ax, table["n"].to_numpy().reshape(3, 3))
    ax.set(xlabel="called", ylabel="truth (observable class)")
    return fig


def roc_curves(labels, p, rng, n_bootstrap=100):
    """One-vs-rest ROC of each class with the 95 % bootstrap band."""
    grid, parts = np.concatenate([[0], np.geomspace(1e-4, 1, 121)]), []
    for c, name in enumerate(CLASSES):
        truth, score = labels == c, p[:, c]
        if not 0 < truth.sum() < len(truth):
            continue
        value = metrics.roc(truth, score, grid)
        draws = (rng.integers(0, len(truth), len(truth)) for _ in range(n_bootstrap))
        samples = np.array([metrics.roc(truth[i], score[i], grid) for i in draws])
        areas = np.trapezoid(samples, grid, axis=1)
        low, high = np.nanpercentile(samples, [2.5, 97.5], axis=0)
        a, b = np.nanpercentile(areas, [2.5, 97.5])
        parts.append(pd.DataFrame({"class": name, "false_positive_rate": grid, "true_positive_rate": value, "low": low,
                                   "high": high, "auc": np.trapezoid(value, grid), "auc_low": a, "auc_high": b}))
    return pd.concat(parts), f"One-vs-rest ROC curves, n = {len(labels)}; bands and brackets are 95 % bootstrap intervals."


@figure
def draw_roc_curves(table):
    fig, ax = subplots(size=(COLUMN, 2.8))
    for name, t in table.groupby("class", sort=False):
        t = t[t["false_positive_rate"] > 0]
        r = t.iloc[0]
        ax.plot(t["false_positive_rate"], t["true_positive_rate"], LINES[name], color=COLOURS[name],
                label=f"{name}: AUC {r['auc']:.4f} [{r['auc_low']:.4f}, {r['auc_high']:.4f}]")
        ax.fill_between(t["false_positive_rate"], t["low"], t["high"], color=COLOURS[name], alpha=0.25, lw=0)
    ax.set(xscale="log", xlabel="false positive rate", ylabel="true positive rate", xlim=(1e-4, 1),
           ylim=(0.5 if table["low"][table["false_positive_rate"] > 0].min() > 0.7 else 0.0, 1.01))
    ax.legend(loc="lower right")
    return fig


def completeness_purity(labels, observable, scores: dict, weight):
    """Completeness of observable binaries against purity for several scores {name: (N,)}, class mix by `weight`."""
    parts = []
    for name, score in scores.items():
        purity, completeness = metrics.completeness_curve(labels, observable, np.asarray(score, dtype=float), weight)
        parts.append(pd.DataFrame({"score": name, "purity": purity, "completeness": completeness}))
    return pd.concat(parts), (f"Completeness of observable binaries (n = {int((observable == 2).sum())}) against purity at the class "
                              f"mix 50/25/25, n = {len(labels)}; the oracle knows the true delta chi^2.")


@figure
def draw_completeness_purity(table):
    fig, ax = subplots(size=(COLUMN, 2.8))
    styles = ["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1))]
    for i, (name, t) in enumerate(table.groupby("score", sort=False)):
        ax.plot(t["completeness"], t["purity"], ls=styles[i % 5], label=name, color="0.4" if name == "oracle" else f"C{i}")
    ax.axvline(0.95, color="0.8", lw=0.6, zorder=0)
    ax.axhline(0.95, color="0.8", lw=0.6, zorder=0)
    ax.set(xlabel="completeness of observable binaries", ylabel="purity", xlim=(0.4, 1.005), ylim=(0.6, 1.005))
    ax.legend(loc="lower left")
    return fig


def calibration(truth, p, p_scaled, n_bins=15):
    """Reliability of P(binary) before and after temperature scaling, with the histogram of P."""
    parts = []
    for name, value in (("as it is", p), ("temperature scaled", p_scaled)):
        mean, share, n = metrics.reliability(truth, value, n_bins)
        low, high = metrics.binomial_interval(np.nan_to_num(share) * n, n)
        parts.append(pd.DataFrame({"kind": name, "p": mean, "share": share, "low": low, "high": high, "n": n})[n > 0])
    return pd.concat(parts), (f"Reliability of P(binary) against observable binaries, n = {len(truth)}; bars are 68 % binomial "
                              "intervals, the histogram counts events.")


@figure
def draw_calibration(table):
    fig, (ax, below) = subplots(2, 1, size=(COLUMN, 3.6), height_ratios=(3, 1), sharex=True)
    ax.plot([0, 1], [0, 1], "k:", lw=0.8)
    for (name, t), marker, colour, face in zip(table.groupby("kind", sort=False), "os", ("0.3", COLOURS["binary"]),
                                               ("white", COLOURS["binary"]), strict=False):
        bars = [np.maximum(t["share"] - t["low"], 0), np.maximum(t["high"] - t["share"], 0)]
        ax.errorbar(t["p"], t["share"], bars, fmt=marker, ms=3, color=colour, mfc=face, label=name)
    ax.set(ylabel="share of observable binaries", xlim=(0, 1), ylim=(0, 1))
    ax.legend()
    first = table[table["kind"] == table["kind"].iloc[0]]
    below.bar(first["p"], first["n"], width=0.04, color="0.6")
    below.set(xlabel="P(binary)", ylabel="events", yscale="log")
    return fig


def recall(params, hit, n_bins=8):
    """Recall of simulated binaries in bins of each parameter, with the oracle's; params and hit of the binaries only."""
    parts, found = [], params["delta_chi2_pspl"].to_numpy() > 160
    for name, (_, logarithmic) in RECALL.items():
        x = np.abs(params[name].to_numpy(float)) if name == "u_0" else params[name].to_numpy(float)
        if name == "delta_chi2_pspl":
            x, edges = np.maximum(x, 1.0), 10.0 ** np.arange(0, 7.1, 0.5)
        else:
            low, high = x.min(), x.max() * (1 + 1e-9)
            edges = np.geomspace(low, high, n_bins + 1) if logarithmic else np.linspace(low, high, n_bins + 1)
        part = pd.DataFrame(metrics.recall_in_bins(hit, x, edges))
        part["oracle"] = metrics.recall_in_bins(found, x, edges)["recall"]
        parts.append(part.assign(parameter=name))
    return pd.concat(parts), (f"Recall of simulated binaries (n = {len(hit)}) at the frozen threshold, 68 % binomial intervals; "
                              "dotted: the oracle, the share with delta chi^2 > 160.")


def _recall_panel(ax, t, name):
    t = t[t["n"] > 0]
    label, logarithmic = RECALL[name]
    centre = np.sqrt(t["low"] * t["high"]) if logarithmic else (t["low"] + t["high"]) / 2
    bars = np.maximum([t["recall"] - t["recall_low"], t["recall_high"] - t["recall"]], 0)
    ax.plot(centre, t["oracle"], ":", color="0.3", label="oracle")
    ax.errorbar(centre, t["recall"], bars, fmt="o-", ms=3, color=COLOURS["binary"], label="network")
    if logarithmic:
        ax.set_xscale("log")
        ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set(xlabel=label, ylim=(0, 1.03))


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
    """Recall over (log s, log q): of the network, of the oracle, and the number of binaries."""
    s, q = np.log10(params["s"].to_numpy()), np.log10(params["q"].to_numpy())
    s_edges, q_edges = (np.linspace(x.min(), x.max() + 1e-9, 9) for x in (s, q))
    found, rows = params["delta_chi2_pspl"].to_numpy() > 160, []
    for i in range(8):
        for j in range(8):
            at = (s >= s_edges[i]) & (s < s_edges[i + 1]) & (q >= q_edges[j]) & (q < q_edges[j + 1])
            n = int(at.sum())
            rows.append({"log_s": s_edges[i], "log_s_to": s_edges[i + 1], "log_q": q_edges[j], "log_q_to": q_edges[j + 1], "n": n,
                         "recall": hit[at].mean() if n else np.nan, "oracle": found[at].mean() if n else np.nan})
    return pd.DataFrame(rows), f"Recall of simulated binaries over separation and mass ratio, n = {len(hit)}."


@figure
def draw_recall_s_q(table):
    fig, axes = subplots(1, 2, size=(PAGE, 2.7), sharey=True)
    x, y = (np.append(np.unique(table[name]), table[f"{name}_to"].max()) for name in ("log_s", "log_q"))
    for ax, name, title in zip(axes, ("recall", "oracle"), ("network", "oracle: share observable"), strict=True):
        shown = ax.pcolormesh(x, y, table[name].to_numpy().reshape(8, 8).T, cmap="cividis", vmin=0, vmax=1)
        ax.set(title=title, xlabel="log10 s (Einstein radii)")
    axes[0].set_ylabel("log10 q")
    fig.colorbar(shown, ax=axes, label="recall of binaries")
    return fig


def u0_dependency(u_0, labels, right):
    """Accuracy against the impact parameter for single lenses and binaries. All (N,)."""
    edges, parts = np.linspace(0, max(np.nanmax(np.abs(u_0)), 1e-9) * (1 + 1e-9), 11), []
    for c in (1, 2):
        at = labels == c
        parts.append(pd.DataFrame(metrics.recall_in_bins(right[at], np.abs(u_0[at]), edges)).assign(**{"class": CLASSES[c]}))
    return pd.concat(parts), (f"Share called by its observable class against impact parameter, n = {int((labels > 0).sum())}; bars "
                              "are 68 % binomial intervals.")


@figure
def draw_u0_dependency(table):
    fig, ax = subplots(size=(COLUMN, 2.4))
    for name, t in table.groupby("class", sort=False):
        t = t[t["n"] > 0]
        bars = np.maximum([t["recall"] - t["recall_low"], t["recall_high"] - t["recall"]], 0)
        ax.errorbar((t["low"] + t["high"]) / 2, t["recall"], bars, fmt=MARKERS[name] + LINES[name], ms=3, color=COLOURS[name],
                    label=f"simulated as {name}")
    ax.set(xlabel="|u_0| (Einstein radii)", ylabel="share called right", ylim=(0, 1.03))
    ax.legend(loc="lower left")
    return fig


def temporal_bias_check(t_0, labels, right):
    """Cumulative distributions of t_0 of right and wrong predictions, with the KS statistic as effect size beside p."""
    parts = []
    for c in (1, 2):
        at = labels == c
        bias = metrics.temporal_bias(t_0[at], right[at])
        for name, which in (("right", right[at]), ("wrong", ~right[at])):
            x = np.sort(t_0[at][which])
            if len(x):
                keep = np.unique(np.linspace(0, len(x) - 1, min(len(x), 150)).astype(int))
                parts.append(pd.DataFrame({"class": CLASSES[c], "prediction": name, "t_0": x[keep], "share": (keep + 1) / len(x),
                                           "n": len(x), "D": bias["D"], "p": bias["p"]}))
    return pd.concat(parts), f"Distribution of t_0 of right and wrong predictions, n = {int((labels > 0).sum())} (KS test)."


@figure
def draw_temporal_bias_check(table):
    fig, axes = subplots(1, 2, size=(PAGE, 2.4), sharey=True)
    for ax, (name, part) in zip(axes, table.groupby("class", sort=False), strict=False):
        for prediction, line in (("right", "-"), ("wrong", "--")):
            t = part[part["prediction"] == prediction]
            if len(t):
                ax.step(t["t_0"], t["share"], line, where="post", color=COLOURS[name], label=f"{prediction}, n = {t['n'].iloc[0]}")
        d, p = part[["D", "p"]].iloc[0]
        ax.set(xlabel="t_0 (d into the season)", title=f"{name}: " + (f"D = {d:.3f}, p = {p:.2g}" if np.isfinite(d) else "too few"))
        ax.legend(loc="upper left")
    axes[0].set_ylabel("cumulative share")
    return fig


def per_class_metrics(summaries: dict):
    """Precision, recall and F1 of each class for {label policy: metrics.summary}."""
    rows = [{"labels": policy, "class": c, "metric": m, "value": s["per_class"][c][m], "n": s["per_class"][c]["n"]}
            for policy, s in summaries.items() for c in CLASSES for m in ("precision", "recall", "f1")]
    n = next(iter(summaries.values()))["n"]
    return pd.DataFrame(rows), f"Precision, recall and F1 of each class against simulated and observable labels, n = {n}."


@figure
def draw_per_class_metrics(table):
    fig, axes = subplots(1, 2, size=(PAGE, 2.3), sharey=True)
    for ax, (policy, part) in zip(axes, table.groupby("labels", sort=False), strict=False):
        for i, c in enumerate(CLASSES):
            t = part[part["class"] == c]
            bars = ax.bar(np.arange(3) + 0.27 * (i - 1), t["value"], 0.25, color=COLOURS[c], label=f"{c} (n = {t['n'].iloc[0]})",
                          edgecolor="black", lw=0.4, hatch=("", "//", "..")[i])
            ax.bar_label(bars, fmt="%.2f", fontsize=6)
        ax.set_xticks(range(3), ("precision", "recall", "F1"))
        ax.set(title=f"{policy} labels", ylim=(0, 1.12), ylabel="score" if ax is axes[0] else "")
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=3, columnspacing=0.8, handletextpad=0.4)
    return fig


def learning_curves(run):
    """Losses and recall against epoch from a run folder's log.jsonl."""
    records = pd.DataFrame([json.loads(x) for x in (run / "log.jsonl").read_text().splitlines()])
    table = records[["epoch", "train_loss", "val_loss", *(f"recall_{c}" for c in CLASSES)]]
    return table, f"Learning curves of {run.name} over {len(table)} epochs; recall is of the validation part."


@figure
def draw_learning_curves(table):
    fig, (a, b) = subplots(1, 2, size=(PAGE, 2.4))
    a.plot(table["epoch"], table["train_loss"], "o-", ms=3, color="0.3", label="training (sum of all parts)")
    a.plot(table["epoch"], table["val_loss"], "s--", ms=3, color="C1", label="validation (class cross-entropy)")
    for c in CLASSES:
        b.plot(table["epoch"], table[f"recall_{c}"], MARKERS[c] + LINES[c], ms=3, color=COLOURS[c], label=c)
    a.set(xlabel="epoch", ylabel="loss", yscale="log")
    lowest = table[[f"recall_{c}" for c in CLASSES]].min(axis=None)
    b.set(xlabel="epoch", ylabel="recall (validation)", ylim=(0, 1.02) if lowest < 0.8 else (lowest - 0.02, 1.001))
    for ax in (a, b):
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.legend()
    return fig


def mistakes(wrong: list, page=0, title="wrong calls"):
    """Light curves called wrongly, PER_PAGE a page: each as a whole with its best single lens, and where the residual is largest.

    wrong : (name, time, flux, flux_err, called, p_binary) of each, valid epochs only.
    """
    parts, here = [], wrong[page * PER_PAGE : (page + 1) * PER_PAGE]
    for name, t, flux, error, called, p in here:
        t, flux, sigma = np.asarray(t, float) - t[0], np.asarray(flux, float), smooth_error(error)
        model = single_lens_model(t, fit_single_lens(t, flux, sigma, finite_source=True))
        z = (flux - model) / sigma
        at = int(np.argmax(np.convolve(z**2, np.ones(min(8, len(z))), "same")))
        near = slice(max(at - DETAIL, 0), at + DETAIL)
        every = np.unique(np.append(np.arange(0, len(t), max(1, len(t) // 700)), np.argsort(-np.abs(z))[:40]))
        for panel, i in (("curve", every), ("detail", np.arange(len(t))[near])):
            parts.append(pd.DataFrame({"name": name, "panel": panel, "t": t[i], "flux": flux[i], "model": model[i], "sigma": sigma[i],
                                       "called": called, "p_binary": p}))
    first = page * PER_PAGE + 1
    return pd.concat(parts), (f"{title}, {first} to {first + len(here) - 1} of n = {len(wrong)}: the light curve with its best single "
                              "lens (line), and the epochs around the largest residual; the class called and P(binary) above.")


@figure
def draw_mistakes(table):
    groups = list(table.groupby("name", sort=False))
    fig, axes = subplots(len(groups), 2, size=(PAGE, 0.4 + 1.25 * len(groups)), squeeze=False, width_ratios=(3, 2))
    for (a, b), (name, t) in zip(axes, groups, strict=True):
        called = t["called"].iloc[0]
        for ax, panel in ((a, "curve"), (b, "detail")):
            d = t[t["panel"] == panel]
            if panel == "detail":
                ax.errorbar(d["t"], d["flux"], d["sigma"], fmt="none", ecolor="0.75", elinewidth=0.5)
            ax.plot(d["t"], d["flux"], MARKERS[called], ms=1.3, color=COLOURS[called], rasterized=True)
            ax.plot(d["t"], d["model"], "-", color="0.15", lw=0.7)
        a.set_title(f"{name}: called {called}, P(binary) = {t['p_binary'].iloc[0]:.3f}", fontsize=7, loc="left")
        a.set_ylabel("flux / baseline", fontsize=7)
    for ax in axes[-1]:
        ax.set_xlabel("time (d)")
    return fig


def sets(counts: dict):
    """Confusion of seasons of several sets of light-curve files: {set: (3, 3) counts, truth by called}."""
    table = pd.DataFrame([{"set": name, "truth": a, "called": b, "n": int(np.asarray(c)[i, j])}
                          for name, c in counts.items() for i, a in enumerate(CLASSES) for j, b in enumerate(CLASSES)])
    return table, f"Seasons of other people's light curves, n = {table['n'].sum()}: truth against class called, for each set."


@figure
def draw_sets(table):
    groups = list(table.groupby("set", sort=False))
    fig, axes = subplots(1, len(groups), size=(max(COLUMN, min(PAGE, 2.3 * len(groups))), 2.4), squeeze=False, sharey=True)
    for ax, (name, t) in zip(axes[0], groups, strict=True):
        counts = t["n"].to_numpy().reshape(3, 3)
        _confusion(ax, counts)
        ax.set(title=f"{name} (n = {counts.sum()})", xlabel="called")
    axes[0, 0].set_ylabel("truth")
    return fig


def robustness(conditions: dict):
    """Scores under shifted conditions: {name: (shifted, evaluation summary)}, the first as trained."""
    rows = []
    for name, (shifted, summary) in conditions.items():
        head, sure = summary["at_threshold"], summary["most_probable_class"]
        counts = {c: summary["simulated_labels"]["per_class"][c]["n"] for c in CLASSES}
        n = counts["flat"] + counts["pspl"]
        row = {"condition": name + (" (shifted)" if shifted else ""), "shifted": shifted, "n": summary["n"],
               "n_observable": head["n_observable"], "purity": head["purity"]}
        for kind, score in (("", head), ("_most_probable", sure)):
            false = sum(round((score[f"false_alarms_{c}"] or 0) * counts[c]) for c in ("flat", "pspl"))
            found = round((score["completeness_observable"] or 0) * head["n_observable"])
            for what, k, of in (("completeness", found, head["n_observable"]), ("false_alarms", false, n)):
                low, high = metrics.binomial_interval(k, of)
                row |= {f"{what}{kind}": k / of if of else np.nan, f"{what}{kind}_low": float(low), f"{what}{kind}_high": float(high)}
        rows.append(row)
    table = pd.DataFrame(rows)
    return table, (f"Completeness of observable binaries and false alarms under shifted conditions, n = {int(table['n'].min())} "
                   "events each, the first as trained; circles: threshold frozen on validation events, squares: most probable class. "
                   "Bars: 95 % binomial intervals.")


@figure
def draw_robustness(table):
    fig, (a, b) = subplots(1, 2, size=(PAGE, 1.0 + 0.24 * len(table)), sharey=True)
    y = np.arange(len(table))[::-1]
    for ax, name, colour in ((a, "completeness", COLOURS["binary"]), (b, "false_alarms", COLOURS["pspl"])):
        for kind, marker, shift, face in (("", "o", 0.13, colour), ("_most_probable", "s", -0.13, "white")):
            x = table[name + kind]
            bars = np.maximum([x - table[f"{name}{kind}_low"], table[f"{name}{kind}_high"] - x], 0)
            ax.errorbar(x, y + shift, xerr=bars, fmt=marker, ms=3, color=colour, mfc=face, elinewidth=0.8,
                        label="frozen threshold" if not kind else "most probable class")
        ax.axvline(table[name].iloc[0], color="0.7", lw=0.6, zorder=0)
    fig.legend(*a.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    a.set_yticks(y, table["condition"])
    a.set(xlabel="completeness of observable binaries", xlim=(0, 1.02))
    b.set(xlabel="flats and single lenses called binary", xlim=(-0.01, None))
    return fig
