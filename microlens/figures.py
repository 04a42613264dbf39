"""One function a figure: data -> (matplotlib figure, table, caption). The only module that imports matplotlib.

    fig, table, caption = confusion(labels, p);  save(fig, table, caption, "figures/confusion_matrix", ("png", "pdf"))
    python -m microlens.figures        # redraws the figures of the figures folder from their tables alone

Each function also has a `_draw` half that takes the table, so a committed CSV is enough to draw the figure again.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from microlens import metrics, paths, survey
from microlens.config import CLASSES

COLOURS = {"flat": "#0072B2", "pspl": "#E69F00", "binary": "#CC79A7"}  # Okabe & Ito (2008), colour-blind safe
COLUMN, PAGE = 3.4, 7.0  # inches
STYLE = {"font.size": 8, "axes.labelsize": 8, "legend.fontsize": 7, "xtick.labelsize": 7, "ytick.labelsize": 7,
         "figure.dpi": 120, "savefig.dpi": 200, "pdf.fonttype": 42, "svg.fonttype": "none", "lines.linewidth": 1.2,
         "figure.constrained_layout.use": True, "axes.spines.top": False, "axes.spines.right": False}
plt.rcParams.update(STYLE)


def save(fig, table: pd.DataFrame, caption: str, path, formats=("png", "pdf")) -> list[Path]:
    """Write the figure in each format, and beside it its table (.csv, first line the caption as a comment)."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    out = []
    for f in formats:
        fig.savefig(path.with_suffix(f".{f}"), metadata={"CreationDate": None} if f == "pdf" else None)
        out.append(path.with_suffix(f".{f}"))
    path.with_suffix(".csv").write_text(f"# {caption}\n" + table.to_csv(index=False, float_format="%.6g"))
    plt.close(fig)
    return out


def read_table(path) -> tuple[pd.DataFrame, str]:
    """Table and caption of a saved figure."""
    return pd.read_csv(path, comment="#"), Path(path).read_text().splitlines()[0].lstrip("# ")


def noise_curve(m=None):
    """Photometric error against magnitude for each detector set."""
    m = np.linspace(15, 26, 111) if m is None else m
    table = pd.DataFrame({"m": m, **{d: survey.sigma_mag(m, d) for d in (*survey.DETECTORS, "thesis")}})
    return draw_noise_curve(table), table, "F146 photometric error of one epoch for each detector set (AB magnitudes)."


def draw_noise_curve(table):
    fig, ax = plt.subplots(figsize=(COLUMN, 2.6))
    for d, style in zip(table.columns[1:], ("-", "--", ":", "-."), strict=True):
        ax.semilogy(table["m"], table[d], style, label=d)
    ax.set(xlabel="F146 magnitude (AB)", ylabel="error of one epoch (mag)")
    ax.legend()
    return fig


def example_light_curves(timestamps, flux, kinds):
    """Three light curves, one a class: flux (3, T), 0.0 = missing; kinds: class names."""
    table = pd.concat([pd.DataFrame({"class": k, "t": timestamps[f != 0][::8], "flux": f[f != 0][::8]})
                       for k, f in zip(kinds, flux, strict=True)])
    return draw_example_light_curves(table), table, "Simulated Roman light curves, one a class; every eighth epoch is drawn."


def draw_example_light_curves(table):
    fig, axes = plt.subplots(1, 3, figsize=(PAGE, 2.1))
    for ax, (kind, part) in zip(axes, table.groupby("class", sort=False), strict=True):
        ax.plot(part["t"], part["flux"], ".", ms=1.5, color=COLOURS[kind], rasterized=True)
        ax.set(title=kind, xlabel="time (d)")
    axes[0].set_ylabel("flux / baseline")
    return fig


def confusion(labels, p):
    """Confusion matrix of the most probable class, counts and row shares."""
    counts = np.array(metrics.summary(labels, p)["confusion"])
    table = pd.DataFrame([{"truth": a, "called": b, "n": int(counts[i, j])}
                          for i, a in enumerate(CLASSES) for j, b in enumerate(CLASSES)])
    return draw_confusion(table), table, f"Confusion matrix, n = {counts.sum()}; shares are of each true class."


def draw_confusion(table):
    counts = table["n"].to_numpy().reshape(3, 3)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    fig, ax = plt.subplots(figsize=(COLUMN, 2.8))
    ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (i, j), n in np.ndenumerate(counts):
        ax.text(j, i, f"{share[i, j]:.2f}\n({n})", ha="center", va="center", color="white" if share[i, j] > 0.6 else "black")
    ax.set_xticks(range(3), CLASSES)
    ax.set_yticks(range(3), CLASSES)
    ax.set(xlabel="called", ylabel="truth")
    return fig


def calibration(truth, p, n_bins=15):
    """Reliability of P(binary)."""
    mean, share, n = metrics.reliability(truth, p, n_bins)
    low, high = metrics.binomial_interval(np.nan_to_num(share) * n, n)
    table = pd.DataFrame({"p": mean, "share": share, "low": low, "high": high, "n": n})[n > 0]
    return draw_calibration(table), table, f"Reliability of P(binary), n = {int(n.sum())}; bars are 68 % binomial intervals."


def draw_calibration(table):
    fig, (ax, below) = plt.subplots(2, 1, figsize=(COLUMN, 3.4), height_ratios=(3, 1), sharex=True)
    ax.plot([0, 1], [0, 1], "k:", lw=0.8)
    bars = [np.maximum(table["share"] - table["low"], 0), np.maximum(table["high"] - table["share"], 0)]
    ax.errorbar(table["p"], table["share"], bars, fmt="o", ms=3, color=COLOURS["binary"])
    ax.set(ylabel="share of binaries", xlim=(0, 1), ylim=(0, 1))
    below.bar(table["p"], table["n"], width=0.04, color="0.6")
    below.set(xlabel="P(binary)", ylabel="n", yscale="log")
    return fig


def recall_curve(hit, x, edges, xlabel):
    """Recall in bins of x, with 68 % binomial intervals."""
    table = pd.DataFrame(metrics.recall_in_bins(hit, x, edges)).assign(xlabel=xlabel)
    return draw_recall_curve(table), table, f"Recall of simulated binaries against {xlabel}, n = {int(table['n'].sum())}."


def draw_recall_curve(table):
    t = table[table["n"] > 0]
    fig, ax = plt.subplots(figsize=(COLUMN, 2.4))
    centre = np.sqrt(t["low"] * t["high"]) if (t["low"] > 0).all() and t["high"].max() > 50 else (t["low"] + t["high"]) / 2
    bars = [t["recall"] - t["recall_low"], t["recall_high"] - t["recall"]]
    ax.errorbar(centre, t["recall"], np.maximum(bars, 0), fmt="o-", ms=3, color=COLOURS["binary"])
    if t["high"].max() > 50:
        ax.set_xscale("log")
    ax.set(xlabel=t["xlabel"].iloc[0], ylabel="recall of binaries", ylim=(0, 1.02))
    return fig


def learning_curves(log: pd.DataFrame):
    """Loss and recall against epoch; log: the records of log.jsonl."""
    table = log[["epoch", "train_loss", "val_loss", *(f"recall_{c}" for c in CLASSES)]]
    return draw_learning_curves(table), table, f"Learning curves over {len(table)} epochs."


def draw_learning_curves(table):
    fig, (a, b) = plt.subplots(1, 2, figsize=(PAGE, 2.4))
    a.plot(table["epoch"], table["train_loss"], "o-", ms=3, label="training (all parts)")
    a.plot(table["epoch"], table["val_loss"], "s--", ms=3, label="validation")
    for c in CLASSES:
        b.plot(table["epoch"], table[f"recall_{c}"], "o-", ms=3, color=COLOURS[c], label=c)
    a.set(xlabel="epoch", ylabel="loss")
    b.set(xlabel="epoch", ylabel="recall (validation)", ylim=(0, 1.02))
    a.legend()
    b.legend()
    return fig


REDRAW = {"noise_curve": draw_noise_curve, "example_light_curves": draw_example_light_curves, "confusion_matrix": draw_confusion,
          "calibration": draw_calibration, "recall_delta_chi2": draw_recall_curve, "learning_curves": draw_learning_curves}


def redraw(folder=None) -> list[Path]:
    """Draw every figure of a folder again from its table alone. Raises FileNotFoundError if there is no table."""
    folder = Path(folder or paths.figures_dir())
    done = []
    for name, draw in REDRAW.items():
        file = folder / f"{name}.csv"
        if file.is_file():
            table, caption = read_table(file)
            done += save(draw(table), table, caption, folder / name)
    if not done:
        raise FileNotFoundError(f"{folder}: holds no figure table; notebook 06_figures makes them.")
    return done


if __name__ == "__main__":
    for made in redraw():
        print(made)
