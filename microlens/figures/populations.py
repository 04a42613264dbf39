"""Figures of the presets: events of each, the parameters that are drawn, and how much there is to find."""

from __future__ import annotations

import numpy as np
import pandas as pd

from microlens.config import BINARY, FLAT, LENSING_CLASSES, PARAMETERS, PSPL, THRESHOLD_PSPL
from microlens.evaluate import metrics
from microlens.figures import style
from microlens.figures.inputs import draw_plane, plane
from microlens.fit import single_lens_residual
from microlens.fit.points import epochs_to_draw

DISTRIBUTIONS = ("t_E", "u_0", "s", "q", "rho", "m_base")  # parameters whose histograms are drawn
N_BINS = 18
N_DRAWN = 90  # steps of time in a small light curve
EXAMPLES = {"binary": "binary lens:\nflux / baseline", "residual": "binary lens:\nresidual ($\\sigma$)",
            "pspl": "single lens:\nflux / baseline"}
"""The light curves of preset_examples, and the labels of their rows."""


def typical(params, label: int) -> int:
    """Row of an event of a simulated class at three quarters of its signal.

    params : table of a dataset. The signal is delta chi^2 against a constant or, of observable binaries, against the
    best single lens.
    """
    if label == FLAT:
        return int(params.index[params["label"] == FLAT][0])
    column = "delta_chi2_pspl" if label == BINARY else "delta_chi2_flat"
    of_class = params.loc[(params["label"] == label) & (params["label_observable"] == label), column]
    return int((of_class - of_class.quantile(0.75)).abs().idxmin())


def preset_examples(datasets: dict):
    """A binary and a single lens of each preset, with the binary's lens plane. datasets : {preset: open Dataset}."""
    parts, curves = [], set()
    for name, data in datasets.items():
        for label in (BINARY, PSPL):
            row = typical(data.params, label)
            flux, sigma = data.flux(row).astype(float), data.sigma(row).astype(float)
            curves.add(flux.tobytes())
            seen = flux != 0
            t, f, sigma = data.timestamps[seen], flux[seen], sigma[seen]
            residual = single_lens_residual(t, f, sigma)
            steps = {"time_steps": N_DRAWN, "flux_steps": N_DRAWN // 3}
            keep = epochs_to_draw(t, np.log(np.maximum(f, 1e-2)), residual if label == BINARY else None, **steps)
            shown = {LENSING_CLASSES[label]: f} | ({"residual": residual} if label == BINARY else {})
            parts += [pd.DataFrame({"panel": panel, "x": t[keep].round(2), "y": y[keep].round(3), "preset": name})
                      for panel, y in shown.items()]
            if label == BINARY:
                parts.append(plane(data.params.loc[row].to_dict()).assign(preset=name))
    return pd.concat(parts), (
        f"Simulated events of each preset (n = {len(curves)} different ones): lens plane of a binary (caustics, dotted "
        "critical curves, path of the source), its light curve, its residual to the best single lens in errors, and a "
        f"single lens. Of each class the event at three quarters of the signal is shown ({style.SIGNAL} against the "
        "best single lens; against a constant).")


@style.figure
def draw_preset_examples(table):
    names = table["preset"].unique()
    fig, axes = style.subplots(4, len(names), size=(style.PAGE, 5.6), squeeze=False, height_ratios=(1.5, 1, 1, 1))
    for column, name in zip(axes.T, names, strict=True):
        part = table[table["preset"] == name]
        draw_plane(column[0], part)
        column[0].set(title=name, xlabel=f"$x$ ({style.EINSTEIN})")
        for ax, panel in zip(column[1:], EXAMPLES, strict=True):
            t = part[part["panel"] == panel]
            colour = style.COLOURS.get(panel, style.COLOURS["binary"])
            ax.plot(t["x"], t["y"], ".", ms=1.2, color=colour, rasterized=True)
            ax.tick_params(labelbottom=ax is column[-1])
            ax.margins(y=0.1)
            ax.locator_params(axis="y", nbins=4)
        style.residual_axis(column[2], part.loc[part["panel"] == "residual", "y"])
        column[-1].set_xlabel("time (d)")
    axes[0, 0].set_ylabel(f"$y$ ({style.EINSTEIN})")
    for ax, label in zip(axes[1:, 0], EXAMPLES.values(), strict=True):
        ax.set_ylabel(label)
    return fig


def _histograms(groups: dict, column: str) -> pd.DataFrame:
    """Histograms of DISTRIBUTIONS for {name: table of events}, on common bins; `column` holds the name."""
    parts = []
    for parameter in DISTRIBUTIONS:
        values = {name: params[parameter].dropna().to_numpy() for name, params in groups.items()}
        if parameter in style.LOGARITHMIC:  # without point sources, rho = 0
            values = {name: x[x > 0] for name, x in values.items()}
        edges = style.bins_of(np.concatenate(list(values.values())), parameter, N_BINS)
        parts += [pd.DataFrame({"parameter": parameter, column: name, "low": edges[:-1], "high": edges[1:],
                                "share": np.histogram(x, edges)[0] / len(x)}) for name, x in values.items() if len(x)]
    return pd.concat(parts)


def _draw_histograms(table, column: str, styles: dict):
    """Six panels of histograms, one line for each value of a column; styles : {value: keywords of the line}."""
    fig, axes = style.subplots(2, 3, size=(style.PAGE, 3.4), sharey=True)
    for ax, (name, part) in zip(axes.flat, table.groupby("parameter", sort=False), strict=False):
        for kind, t in part.groupby(column, sort=False):
            ax.stairs(t["share"], [*t["low"], t["high"].iloc[-1]], label=style.NAMES.get(kind, kind), **styles[kind])
        ax.set_xlabel(style.label_of(name))
        if name in style.LOGARITHMIC:
            style.log_axis(ax.xaxis, part["low"].min(), part["high"].max())
    style.legend_above(fig, axes[0, 0], ncols=table[column].nunique())
    for ax in axes[:, 0]:
        ax.set_ylabel("share of events in a bin")
    return fig


def parameter_distributions(params):
    """Histograms of the drawn parameters of binaries and single lenses, from a dataset's table."""
    groups = {LENSING_CLASSES[c]: params[params["label"] == c] for c in (PSPL, BINARY)}
    n = [len(part) for part in groups.values()]
    return _histograms(groups, "class"), (f"Drawn parameters of single lenses (n = {n[0]}) and binaries (n = {n[1]}): "
                                          f"{_meanings()}; bins are common to both.")


@style.figure
def draw_parameter_distributions(table):
    looks = {c: {"color": style.COLOURS[c], "ls": style.LINES[c]} for c in LENSING_CLASSES}
    return _draw_histograms(table, "class", looks)


def preset_distributions(tables: dict):
    """Histograms of the binaries' parameters for each preset; tables {preset: a dataset's params}."""
    groups = {name: params[params["label"] == BINARY] for name, params in tables.items()}
    n = min(len(part) for part in groups.values())
    return _histograms(groups, "preset"), (f"Drawn parameters of the binaries of each preset, n >= {n} a preset: "
                                           f"{_meanings()}; bins are common to all.")


@style.figure
def draw_preset_distributions(table):
    lines = enumerate(zip(table["preset"].unique(), style.SERIES_LINES, strict=False))
    return _draw_histograms(table, "preset", {name: {"ls": line, "color": f"C{i}"} for i, (name, line) in lines})


def _meanings() -> str:
    return ", ".join(f"{PARAMETERS[name].symbol} {PARAMETERS[name].meaning.split(';')[0]}" for name in DISTRIBUTIONS)


def observability(tables: dict):
    """Share of binaries above a delta chi^2 for each preset; tables {preset: a dataset's params}."""
    grid, parts = np.logspace(0, 6, 61), []
    for name, params in tables.items():
        x = params.loc[params["label"] == BINARY, "delta_chi2_pspl"].to_numpy()
        share = (x[:, None] > grid).mean(axis=0)
        parts.append(pd.DataFrame({"preset": name, "delta_chi2": grid, "share": share, "n": len(x)}))
    n = min(int(part["n"].iloc[0]) for part in parts)
    low, high = metrics.binomial_interval(n / 2, n)
    return pd.concat(parts), (
        f"Share of binaries whose best single lens is worse by more than {style.SIGNAL}, n >= {n} a preset, so that a "
        f"share is known to {(high - low) / 2:.2f} or better (half of its 95 % interval); the vertical line is the "
        f"threshold of the observable label, {THRESHOLD_PSPL:g}.")


@style.figure
def draw_observability(table):
    fig, ax = style.subplots(size=(style.COLUMN, 2.9))
    for (name, t), line in zip(table.groupby("preset", sort=False), style.SERIES_LINES, strict=False):
        ax.plot(t["delta_chi2"], t["share"], ls=line, label=f"{name} ($n$ = {t['n'].iloc[0]})", clip_on=False)
    style.log_axis(ax.xaxis, table["delta_chi2"].min(), table["delta_chi2"].max())
    ax.axvline(THRESHOLD_PSPL, color="k", lw=0.7)
    ax.set(xlabel=style.label_of("delta_chi2_pspl"), ylabel="share of binaries above", ylim=(0, 1.02))
    style.legend_above(fig, ax, ncols=2)
    return fig
