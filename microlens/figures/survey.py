"""Figures of what goes in: survey, light curves, populations, one event by hand, the network, real light curves."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.ticker import NullFormatter

from microlens import magnification, survey
from microlens.config import CLASSES
from microlens.detectability import fit_single_lens, single_lens_model
from microlens.figures.style import COLOURS, COLUMN, MARKERS, PAGE, figure, subplots

# sigma_mag as published: Penny+ 2019; S/N of McKinnon & van der Marel (2602.00310); RMDC26 medians.
PUBLISHED = {"m": [15, 18, 20, 21, 22, 24, 26], "penny2019": [0.00113, 0.00230, 0.00544, 0.00896, 0.01570, 0.06434, 0.3595],
             "roman": [0.00112, 0.00227, 0.00537, 0.00885, 0.01559, 0.06473, 0.3638],
             "crowded": [0.00110, 0.00216, 0.00569, 0.0108, 0.0229, 0.128, 0.788]}


def noise_curve():
    """Photometric error against magnitude for each detector set, with the published points."""
    m = np.linspace(15, 26, 111)
    curves = pd.DataFrame({"kind": "model", "m": m, **{d: survey.sigma_mag(m, d) for d in (*survey.DETECTORS, "thesis")}})
    return pd.concat([curves, pd.DataFrame(PUBLISHED).assign(kind="published")]), (
        "F146 photometric error of one epoch for each detector set (lines) and the published points (n = 7 each, marks).")


@figure
def draw_noise_curve(table):
    fig, ax = subplots(size=(COLUMN, 2.6))
    model, points = table[table["kind"] == "model"], table[table["kind"] == "published"]
    sets = zip(("roman", "penny2019", "crowded", "thesis"), ("-", "--", ":", "-."), "osD ", strict=True)
    for i, (d, line, marker) in enumerate(sets):
        ax.semilogy(model["m"], model[d], line, color=f"C{i}", label=d)
        if d in PUBLISHED:
            ax.plot(points["m"], points[d], marker, ms=3, color=f"C{i}")
    ax.set(xlabel="F146 magnitude (AB)", ylabel="error of one epoch (mag)")
    ax.legend()
    return fig


def survey_season(seed=0):
    """Step between epochs against time for both schedules: pauses stand out."""
    parts = [pd.DataFrame({"schedule": s, "t": t[1:], "step": np.diff(t) * 24}) for s in ("thesis", "roman")
             for t in [survey.epochs(s, seed)]]
    parts = [p[(p["step"] > 1) | (np.arange(len(p)) % 40 == 0)] for p in parts]
    n = {s: len(survey.epochs(s, seed)) for s in ("thesis", "roman")}
    return pd.concat(parts), f"Time between epochs over one season: thesis (n = {n['thesis']} epochs) and roman (n = {n['roman']})."


@figure
def draw_survey_season(table):
    fig, ax = subplots(size=(COLUMN, 2.2))
    for (name, t), marker in zip(table.groupby("schedule", sort=False), "ox", strict=True):
        ax.semilogy(t["t"], t["step"], marker, ms=3, label=name)
    ax.set(xlabel="time (d into the season)", ylabel="step to the epoch before (h)")
    ax.legend()
    return fig


def example_light_curves(timestamps, flux, kinds):
    """Light curves, one a class: flux (3, T), 0.0 = missing; kinds: class names."""
    table = pd.concat([pd.DataFrame({"class": k, "t": timestamps[f != 0][::8], "flux": f[f != 0][::8]})
                       for k, f in zip(kinds, flux, strict=True)])
    return table, f"Simulated Roman light curves, one a class (n = {len(kinds)}); every eighth epoch is drawn."


@figure
def draw_example_light_curves(table):
    fig, axes = subplots(1, 3, size=(PAGE, 2.1))
    for ax, (kind, part) in zip(axes, table.groupby("class", sort=False), strict=True):
        ax.plot(part["t"], part["flux"], ".", ms=1.5, color=COLOURS[kind], rasterized=True)
        ax.set(title=kind, xlabel="time (d)")
    axes[0].set_ylabel("flux / baseline")
    return fig


def event_by_hand(params: dict, timestamps, flux, sigma):
    """One binary: lens plane with caustics and trajectory, light curve with the best single lens, residual.

    params : t_0, u_0, t_E, rho, s, q, alpha.   flux, sigma (T,) measured, 0.0 = missing.
    """
    lens = {k: params[k] for k in ("s", "q")}
    plane = [pd.DataFrame({"panel": f"caustic {i}", "x": c[:, 0], "y": c[:, 1]})
             for i, c in enumerate(magnification.caustics(**lens))]
    t = np.linspace(params["t_0"] - 2 * params["t_E"], params["t_0"] + 2 * params["t_E"], 101)
    x, y = magnification.trajectory(t, params["t_0"], params["u_0"], params["t_E"], params["alpha"])
    plane.append(pd.DataFrame({"panel": "trajectory", "x": x, "y": y}))
    seen = flux != 0
    t, f, s = timestamps[seen], flux[seen].astype(float), sigma[seen].astype(float)
    fit = fit_single_lens(t, f, s, finite_source=True)
    model = single_lens_model(t, fit)
    keep = np.arange(len(t)) % 4 == 0
    curve = pd.DataFrame({"panel": "curve", "x": t, "y": f, "model": model, "residual": (f - model) / s})[keep]
    excess = float((((f - model) / s) ** 2).sum() - len(t))
    return pd.concat([*plane, curve]), (
        f"A binary lens (s = {params['s']:.3g}, q = {params['q']:.3g}, {magnification.topology(**lens)}): lens plane; light curve "
        f"with the best single lens; its residual, chi^2 - n = {excess:.0f}, n = {len(t)} epochs, every fourth drawn.")


@figure
def draw_event_by_hand(table):
    fig, axes = subplots(1, 2, size=(PAGE, 2.8), width_ratios=(1, 1.6))
    plane = axes[0]
    for name, t in table.groupby("panel", sort=False):
        if str(name).startswith("caustic"):
            plane.plot(t["x"], t["y"], color=COLOURS["binary"])
    path = table[table["panel"] == "trajectory"]
    plane.plot(path["x"], path["y"], color="0.3", lw=0.8)
    plane.annotate("", path[["x", "y"]].iloc[60], path[["x", "y"]].iloc[40], arrowprops={"arrowstyle": "->", "color": "0.3"})
    plane.set(xlabel="x (Einstein radii)", ylabel="y (Einstein radii)", aspect="equal")
    box = axes[1].get_subplotspec().subgridspec(2, 1, height_ratios=(2, 1))
    axes[1].remove()
    above = fig.add_subplot(box[0])
    below = fig.add_subplot(box[1], sharex=above)
    t = table[table["panel"] == "curve"].sort_values("x")
    above.plot(t["x"], t["y"], ".", ms=1.5, color="0.4", rasterized=True)
    above.plot(t["x"], t["model"], color=COLOURS["pspl"], label="best single lens")
    above.set(ylabel="flux / baseline", yscale="log")
    above.legend()
    below.plot(t["x"], t["residual"], ".", ms=1.5, color="0.4", rasterized=True)
    below.axhline(0, color=COLOURS["pspl"], lw=0.8)
    below.set(xlabel="time (d)", ylabel="residual (sigma)", yscale="symlog")
    return fig


def parameter_distributions(params):
    """Histograms of the drawn parameters of binaries and single lenses, from a dataset's table."""
    parts = []
    for name, logarithmic in (("t_E", True), ("u_0", False), ("s", True), ("q", True), ("rho", True), ("m_base", False)):
        for c in (1, 2):
            x = params.loc[params["label"] == c, name].dropna().to_numpy()
            x = np.abs(x[(x != 0) | (not logarithmic)])
            if len(x) == 0:
                continue
            edges = np.geomspace(x.min(), x.max() * 1.000001, 16) if logarithmic else np.linspace(x.min(), x.max() + 1e-9, 16)
            parts.append(pd.DataFrame({"parameter": name, "class": CLASSES[c], "low": edges[:-1], "high": edges[1:],
                                       "share": np.histogram(x, edges)[0] / len(x), "log": logarithmic}))
    n = params["label"].value_counts()
    return pd.concat(parts), f"Drawn parameters of single lenses (n = {n.get(1, 0)}) and binaries (n = {n.get(2, 0)})."


@figure
def draw_parameter_distributions(table):
    labels = {"t_E": "t_E (d)", "u_0": "|u_0| (Einstein radii)", "s": "s (Einstein radii)", "q": "q", "rho": "rho (Einstein radii)",
              "m_base": "m_base (AB mag)"}
    fig, axes = subplots(2, 3, size=(PAGE, 3.2), sharey=True)
    for ax, (name, part) in zip(axes.flat, table.groupby("parameter", sort=False), strict=False):
        for kind, t in part.groupby("class", sort=False):
            ax.stairs(t["share"], [*t["low"], t["high"].iloc[-1]], color=COLOURS[kind], label=kind,
                      ls="--" if kind == "pspl" else "-")
        ax.set(xlabel=labels[name], xscale="log" if part["log"].iloc[0] else "linear")
        ax.xaxis.set_minor_formatter(NullFormatter())
    axes[0, 0].legend()
    for ax in axes[:, 0]:
        ax.set_ylabel("share a bin")
    return fig


def observability(tables: dict):
    """Share of binaries above a delta chi^2 for each preset; tables {preset: a dataset's params}."""
    grid, parts = np.logspace(0, 6, 61), []
    for name, params in tables.items():
        x = params.loc[params["label"] == 2, "delta_chi2_pspl"].to_numpy()
        parts.append(pd.DataFrame({"preset": name, "delta_chi2": grid, "share": [(x > g).mean() for g in grid], "n": len(x)}))
    n = min(int(p["n"].iloc[0]) for p in parts)
    return pd.concat(parts), f"Share of binaries whose best single lens is worse by more than delta chi^2, n >= {n} a preset."


@figure
def draw_observability(table):
    fig, ax = subplots(size=(COLUMN, 2.5))
    for (name, t), line in zip(table.groupby("preset", sort=False), ("-", "--", "-.", ":", (0, (5, 1, 1, 1))), strict=False):
        ax.semilogx(t["delta_chi2"], t["share"], ls=line, label=f"{name} (n = {t['n'].iloc[0]})")
    ax.axvline(160, color="k", lw=0.7, ls=":")
    ax.set(xlabel="delta chi^2 against the best single lens", ylabel="share of binaries above", ylim=(0, 1.38))
    ax.legend(loc="upper center", ncols=2)
    return fig


def network_diagram(config: dict):
    """The stages of the network with their shapes, of a run's configuration."""
    d, k, layers = config["d_model"], config["stem_stride"], config["n_layers"]
    view = config.get("view", "flux")
    features = "flux, time step" if view == "flux" else "flux, time step,\nresidual to the single lens"
    stages = [("input", f"{features},\nper valid epoch"), ("stem", f"patches of {k} epochs\n-> {d} channels"),
              ("conv x 2", f"causal, depthwise separable\nkernel {config['window_size']}, dilation 1 and 2"),
              (f"GRU x {layers}", f"{d} channels\nlayer norm + residual"),
              ("pooling", f"{config['n_heads']} heads, learnable query\ncumulative softmax" if config["attention_pooling"] else
               "masked mean"),
              ("heads", "flat / event\nPSPL / binary" if config["hierarchical"] else "3 classes")]
    return pd.DataFrame(stages, columns=["stage", "what"]), "The network: every stage looks at the past only (n = 1 configuration)."


@figure
def draw_network_diagram(table):
    fig, ax = subplots(size=(PAGE, 1.3))
    ax.set(xlim=(0, len(table)), ylim=(0, 1))
    ax.axis("off")
    for i, row in enumerate(table.itertuples()):
        ax.text(i + 0.5, 0.5, f"$\\bf{{{row.stage.replace(' ', '~')}}}$\n{row.what}", ha="center", va="center", fontsize=6,
                bbox={"boxstyle": "round,pad=0.4", "fc": "0.95", "ec": "0.4"})
        if i + 1 < len(table):
            ax.annotate("", (i + 1.04, 0.12), (i + 0.96 - 0.5, 0.12), arrowprops={"arrowstyle": "->", "color": "0.4"})
    return fig


def real_light_curves(seasons: list, title="light curves"):
    """Seasons as the network reads them: a list of (name, time, flux, called, p_binary), at most 12."""
    parts = []
    for name, t, f, called, p in seasons[:12]:
        every = max(1, len(t) // 800)
        parts.append(pd.DataFrame({"name": name, "t": t[::every] - t[0], "flux": f[::every], "called": called, "p_binary": p}))
    return pd.concat(parts), f"{title}: {len(parts)} of n = {len(seasons)} seasons, with the class called and P(binary)."


@figure
def draw_real_light_curves(table):
    groups = list(table.groupby("name", sort=False))
    rows = -(-len(groups) // 3)
    fig, axes = subplots(rows, 3, size=(PAGE, 0.3 + 1.6 * rows), squeeze=False)
    for ax in axes.flat[len(groups):]:
        ax.set_visible(False)
    for ax, (name, t) in zip(axes.flat, groups, strict=False):
        called = t["called"].iloc[0]
        ax.plot(t["t"], t["flux"], MARKERS[called], ms=1.2, color=COLOURS[called], rasterized=True)
        ax.set_title(f"{name}\n{called}, P(binary) = {t['p_binary'].iloc[0]:.3f}", fontsize=6)
    for ax in axes[-1]:
        ax.set_xlabel("time (d)")
    for ax in axes[:, 0]:
        ax.set_ylabel("flux / baseline")
    return fig
