"""Figures of what goes in: survey, light curves of classes and presets, populations, one event by hand, the network."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from microlens import lens, sky
from microlens.config import CLASSES
from microlens.figures.style import COLOURS, COLUMN, PAGE, figure, subplots
from microlens.fit import fit_single_lens, single_lens_model
from microlens.fit.points import epochs_to_draw

# sigma_mag as published: Penny+ 2019; S/N of McKinnon & van der Marel (2602.00310); RMDC26 medians.
PUBLISHED = {"m": [15, 18, 20, 21, 22, 24, 26], "penny2019": [0.00113, 0.00230, 0.00544, 0.00896, 0.01570, 0.06434, 0.3595],
             "roman": [0.00112, 0.00227, 0.00537, 0.00885, 0.01559, 0.06473, 0.3638],
             "crowded": [0.00110, 0.00216, 0.00569, 0.0108, 0.0229, 0.128, 0.788]}
PRESET_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1)))
LABELS = {"t_E": "t_E (d)", "u_0": "|u_0| (Einstein radii)", "s": "s (Einstein radii)", "q": "q", "rho": "rho (Einstein radii)",
          "m_base": "m_base (AB mag)", "f_s": "f_s"}
LOGARITHMIC = ("t_E", "s", "q", "rho", "f_s")
N_DRAWN = 90  # steps of time in a small light curve


def log_axis(axis, decades: float):
    """A logarithmic axis with plain numbers, at 1, 2 and 5 where the axis spans few decades."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 2 else (1.0,), numticks=5 if decades > 4 else 9))
    axis.set_minor_formatter(NullFormatter())
    if decades < 2:
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))


def noise_curve():
    """Photometric error against magnitude for each detector set, with the published points."""
    m = np.linspace(15, 26, 111)
    curves = pd.DataFrame({"kind": "model", "m": m, **{d: sky.sigma_mag(m, d) for d in (*sky.DETECTORS, "thesis")}})
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
             for t in [sky.epochs(s, seed)]]
    parts = [p[(p["step"] > 1) | (np.arange(len(p)) % 100 == 0)] for p in parts]
    n = {s: len(sky.epochs(s, seed)) for s in ("thesis", "roman")}
    return pd.concat(parts), (f"Time between epochs over one season: thesis (n = {n['thesis']} epochs) and roman (n = {n['roman']}); "
                              "every pause and every hundredth step in between.")


@figure
def draw_survey_season(table):
    fig, ax = subplots(size=(COLUMN, 2.2))
    for (name, t), marker in zip(table.groupby("schedule", sort=False), "ox", strict=True):
        ax.semilogy(t["t"], t["step"], marker, ms=3, label=name)
    ax.set_yticks([0.2, 0.5, 1, 2, 5, 10], ["0.2", "0.5", "1", "2", "5", "10"])
    ax.yaxis.set_minor_locator(NullLocator())
    ax.set(xlabel="time (d into the season)", ylabel="step to the epoch before (h)", ylim=(0.15, 14))
    ax.legend(loc="center right")
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


def plane(params: dict, reach=2.0) -> pd.DataFrame:
    """The lens plane of a 2L1S event as a table: panel (caustic, critical, lens, trajectory, source), part, x, y in Einstein radii.

    reach : Einstein times of the trajectory on either side.   Lines are thinned to what a page shows.
    """
    lens = {k: params[k] for k in ("s", "q")}
    parts = []
    for panel, function, n in (("caustic", lens.caustics, 160), ("critical", lens.critical_curves, 40)):
        curves = enumerate(function(**lens, n=n))
        parts += [pd.DataFrame(c.round(3), columns=["x", "y"]).assign(panel=panel, part=i) for i, c in curves]
    parts.append(pd.DataFrame({"x": [-params["q"] * params["s"] / (1 + params["q"]), params["s"] / (1 + params["q"])], "y": 0.0,
                               "panel": "lens"}).round(4))
    t = params["t_0"] + params["t_E"] * np.array([-reach, 0.0, 0.5, reach])
    path = np.column_stack(lens.trajectory(t, *(params[k] for k in ("t_0", "u_0", "t_E", "alpha"))))
    parts.append(pd.DataFrame(path, columns=["x", "y"]).round(4).assign(panel="trajectory"))
    phase = np.linspace(0, 2 * np.pi, 25)
    disc = path[1] + params["rho"] * np.column_stack([np.cos(phase), np.sin(phase)])
    return pd.concat([*parts, pd.DataFrame(disc, columns=["x", "y"]).assign(panel="source")])


def draw_plane(ax, table, reach=1.6):
    """A lens plane as `plane` gives it, with the direction of the source; reach : half width, Einstein radii."""
    for name, style in (("critical", {"color": "0.6", "lw": 0.6, "ls": ":"}), ("caustic", {"color": COLOURS["binary"], "lw": 0.9})):
        for _, t in table[table["panel"] == name].groupby("part"):
            ax.plot(t["x"], t["y"], **style)
    ax.plot(*table.loc[table["panel"] == "lens", ["x", "y"]].to_numpy().T, "k.", ms=3)
    path = table.loc[table["panel"] == "trajectory", ["x", "y"]].to_numpy()
    ax.plot(*path.T, color="0.3", lw=0.8)
    ax.annotate("", path[2], path[1], arrowprops={"arrowstyle": "->", "color": "0.3", "lw": 0.8})
    ax.fill(*table.loc[table["panel"] == "source", ["x", "y"]].to_numpy().T, color=COLOURS["flat"])
    ax.set(aspect="equal", xlim=(-reach, reach), ylim=(-reach, reach))


def event_by_hand(params: dict, timestamps, flux, sigma):
    """One binary: lens plane with caustics and trajectory, light curve with the best single lens, residual.

    params : t_0, u_0, t_E, rho, s, q, alpha.   flux, sigma (T,) measured, 0.0 = missing.
    """
    seen = flux != 0
    t, f, s = timestamps[seen], flux[seen].astype(float), sigma[seen].astype(float)
    fit = fit_single_lens(t, f, s, finite_source=True)
    model = single_lens_model(t, fit)
    keep = epochs_to_draw(t, np.log(np.maximum(f, 1e-2)), (f - model) / s, 300)
    curve = pd.DataFrame({"panel": "curve", "x": t, "y": f, "model": model, "residual": (f - model) / s}).iloc[keep]
    excess = float((((f - model) / s) ** 2).sum() - len(t))
    return pd.concat([plane(params), curve]), (
        f"A binary lens (s = {params['s']:.3g}, q = {params['q']:.3g}, {lens.topology(params['s'], params['q'])}): lens "
        "plane with caustics, critical curves (dotted) and the path of the source, its disc to scale; light curve with the best "
        f"single lens; its residual, chi^2 - n = {excess:.3g}, n = {len(t)} epochs, {len(keep)} drawn.")


@figure
def draw_event_by_hand(table):
    fig, axes = subplots(1, 2, size=(PAGE, 2.9), width_ratios=(1, 1.5))
    draw_plane(axes[0], table)
    axes[0].set(xlabel="x (Einstein radii)", ylabel="y (Einstein radii)")
    box = axes[1].get_subplotspec().subgridspec(2, 1, height_ratios=(3, 2))
    axes[1].remove()
    above = fig.add_subplot(box[0])
    below = fig.add_subplot(box[1], sharex=above)
    t = table[table["panel"] == "curve"].sort_values("x")
    above.plot(t["x"], t["y"], ".", ms=1.5, color="0.4", rasterized=True)
    above.plot(t["x"], t["model"], color=COLOURS["pspl"], label="best single lens")
    above.set(ylabel="flux / baseline", yscale="log")
    above.tick_params(labelbottom=False)
    above.legend()
    below.plot(t["x"], t["residual"], ".", ms=1.5, color="0.4", rasterized=True)
    below.axhline(0, color=COLOURS["pspl"], lw=0.8)
    below.set(xlabel="time (d)", ylabel="residual (sigma)")
    below.set_yscale("symlog", linthresh=10)
    below.set_yticks([-100, -10, 0, 10, 100], ["-100", "-10", "0", "10", "100"])
    below.yaxis.set_minor_locator(NullLocator())
    fig.align_ylabels([above, below])
    return fig


def typical(params, label: int) -> int:
    """Row of an event of a simulated class at three quarters of its signal.

    The signal is delta chi^2 against a constant or, of observable binaries, against the best single lens.
    """
    if label == 0:
        return int(params.index[params["label"] == 0][0])
    column = "delta_chi2_pspl" if label == 2 else "delta_chi2_flat"
    of_class = params.loc[(params["label"] == label) & (params["label_observable"] == label), column]
    return int((of_class - of_class.quantile(0.75)).abs().idxmin())


def preset_examples(datasets: dict):
    """One event of each class of each preset, with the binary's lens plane. datasets : {preset: open Dataset of all classes}."""
    parts, n = [], 0
    for name, data in datasets.items():
        for label, kind in enumerate(CLASSES):
            row = typical(data.params, label)
            flux = data.flux(row).astype(float)
            seen = flux != 0
            t, f = data.timestamps[seen], flux[seen]
            keep = epochs_to_draw(t, np.log(np.maximum(f, 1e-2)), time_steps=N_DRAWN, flux_steps=N_DRAWN // 3)
            parts.append(pd.DataFrame({"panel": kind, "x": t[keep].round(2), "y": f[keep].round(4), "preset": name}))
            n += 1
            if kind == "binary":
                parts.append(plane(data.params.loc[row].to_dict()).assign(preset=name))
    return pd.concat(parts), (
        f"Simulated events of each preset, n = {n}: lens plane of the binary (caustics, dotted critical curves, path of the source), "
        "its light curve, a single lens and a flat light curve. Of each class the event at three quarters of the signal is shown "
        "(delta chi^2 against the best single lens; against a constant).")


@figure
def draw_preset_examples(table):
    names = table["preset"].unique()
    fig, axes = subplots(4, len(names), size=(PAGE, 5.4), squeeze=False, height_ratios=(1.5, 1, 1, 1))
    for column, name in zip(axes.T, names, strict=True):
        part = table[table["preset"] == name]
        draw_plane(column[0], part, reach=2.2)
        column[0].set(title=name, xlabel="x (Einstein radii)")
        for ax, kind in zip(column[1:], ("binary", "pspl", "flat"), strict=True):
            t = part[part["panel"] == kind]
            ax.plot(t["x"], t["y"], ".", ms=1.2, color=COLOURS[kind], rasterized=True)
            ax.tick_params(labelbottom=kind == "flat")
            ax.margins(y=0.1)
            ax.locator_params(axis="y", nbins=4)
        column[-1].set_xlabel("time (d)")
    axes[0, 0].set_ylabel("y (Einstein radii)")
    for ax, kind in zip(axes[1:, 0], ("binary", "pspl", "flat"), strict=True):
        ax.set_ylabel(f"{kind}:\nflux / baseline")
    return fig


def parameter_distributions(params):
    """Histograms of the drawn parameters of binaries and single lenses, from a dataset's table."""
    parts = []
    for name in ("t_E", "u_0", "s", "q", "rho", "m_base"):
        logarithmic = name in LOGARITHMIC
        for c in (1, 2):
            x = params.loc[params["label"] == c, name].dropna().to_numpy()
            x = np.abs(x[(x != 0) | (not logarithmic)])
            if len(x) == 0:
                continue
            edges = np.geomspace(x.min(), x.max() * 1.000001, 16) if logarithmic else np.linspace(x.min(), x.max() + 1e-9, 16)
            parts.append(pd.DataFrame({"parameter": name, "class": CLASSES[c], "low": edges[:-1], "high": edges[1:],
                                       "share": np.histogram(x, edges)[0] / len(x)}))
    n = params["label"].value_counts()
    return pd.concat(parts), f"Drawn parameters of single lenses (n = {n.get(1, 0)}) and binaries (n = {n.get(2, 0)})."


def _histograms(table, by: str, styles: dict):
    """Six panels of histograms, one line for each value of column `by`; styles {value: keywords}."""
    fig, axes = subplots(2, 3, size=(PAGE, 3.4), sharey=True)
    for ax, (name, part) in zip(axes.flat, table.groupby("parameter", sort=False), strict=False):
        for kind, t in part.groupby(by, sort=False):
            ax.stairs(t["share"], [*t["low"], t["high"].iloc[-1]], label=kind, **styles[kind])
        ax.set_xlabel(LABELS[name])
        if name in LOGARITHMIC:
            ax.set_xscale("log")
            log_axis(ax.xaxis, np.log10(part["high"].max() / part["low"].min()))
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    for ax in axes[:, 0]:
        ax.set_ylabel("share a bin")
    return fig


@figure
def draw_parameter_distributions(table):
    return _histograms(table, "class", {"pspl": {"color": COLOURS["pspl"], "ls": "--"}, "binary": {"color": COLOURS["binary"]}})


def preset_distributions(tables: dict):
    """Histograms of the binaries' parameters for each preset, on common bins; tables {preset: a dataset's params}."""
    binaries, parts = {name: p[p["label"] == 2] for name, p in tables.items()}, []
    for name in ("t_E", "u_0", "s", "q", "rho", "m_base"):
        values = {preset: np.abs(p[name].to_numpy()) for preset, p in binaries.items()}
        everything = np.concatenate(list(values.values()))
        space = np.geomspace if name in LOGARITHMIC else np.linspace
        edges = space(everything.min(), everything.max() * (1 + 1e-9), 19)
        for preset, x in values.items():
            parts.append(pd.DataFrame({"parameter": name, "preset": preset, "low": edges[:-1], "high": edges[1:],
                                       "share": np.histogram(x, edges)[0] / len(x)}))
    n = min(len(p) for p in binaries.values())
    return pd.concat(parts), f"Drawn parameters of the binaries of each preset, n >= {n} a preset; bins are common to all."


@figure
def draw_preset_distributions(table):
    lines = zip(table["preset"].unique(), PRESET_LINES, strict=False)
    return _histograms(table, "preset", {name: {"ls": line, "color": f"C{i}"} for i, (name, line) in enumerate(lines)})


def observability(tables: dict):
    """Share of binaries above a delta chi^2 for each preset; tables {preset: a dataset's params}."""
    grid, parts = np.logspace(0, 6, 61), []
    for name, params in tables.items():
        x = params.loc[params["label"] == 2, "delta_chi2_pspl"].to_numpy()
        parts.append(pd.DataFrame({"preset": name, "delta_chi2": grid, "share": [(x > g).mean() for g in grid], "n": len(x)}))
    n = min(int(p["n"].iloc[0]) for p in parts)
    return pd.concat(parts), (f"Share of binaries whose best single lens is worse by more than delta chi^2, n >= {n} a preset; the "
                              "line is the threshold of the observable label.")


@figure
def draw_observability(table):
    fig, ax = subplots(size=(COLUMN, 2.9))
    for (name, t), line in zip(table.groupby("preset", sort=False), PRESET_LINES, strict=False):
        ax.semilogx(t["delta_chi2"], t["share"], ls=line, label=f"{name} (n = {t['n'].iloc[0]})")
    ax.axvline(160, color="k", lw=0.7)
    ax.set(xlabel="delta chi^2 against the best single lens", ylabel="share of binaries above", ylim=(0, 1.02))
    ax.annotate("160", (160, 0.02), xytext=(2, 0), textcoords="offset points", fontsize=7)
    fig.legend(loc="outside upper center", ncols=2)
    return fig


def network_diagram(config: dict):
    """The stages of the network with their shapes, of a run's configuration."""
    d, k, layers = config["d_model"], config["stem_stride"], config["n_layers"]
    view = config.get("view", "flux")
    features = "flux, time step" + {"flux": "", "running": ",\nbest single lens\nthrough the past",
                                    "residual": ",\nresidual to best\nsingle lens"}[view]
    stages = [("input", f"{features},\nper valid epoch"), ("stem", f"patches of\n{k} epochs\n-> {d} channels"),
              ("conv x 2", f"causal, depthwise\nseparable, kernel {config['window_size']},\ndilation 1 and 2"),
              (f"GRU x {layers}", f"{d} channels,\nlayer norm,\nresidual"),
              ("pooling", f"{config['n_heads']} heads,\nlearnable query,\ncumulative softmax" if config["attention_pooling"] else
               "masked mean"),
              ("heads", "flat / event,\nPSPL / binary" if config["hierarchical"] else "3 classes")]
    return pd.DataFrame(stages, columns=["stage", "what"]), (
        f"The network (n = 1 configuration, {view} view): after the input every stage looks at the past only.")


@figure
def draw_network_diagram(table):
    fig, ax = subplots(size=(PAGE, 1.0))
    ax.set(xlim=(0, len(table)), ylim=(0, 1))
    ax.axis("off")
    for i, row in enumerate(table.itertuples()):
        box = "round,pad=0,rounding_size=0.06"
        ax.add_patch(FancyBboxPatch((i + 0.06, 0.04), 0.84, 0.92, boxstyle=box, fc="0.95", ec="0.4", lw=0.8))
        ax.text(i + 0.48, 0.8, row.stage, ha="center", va="center", fontsize=8, fontweight="bold")
        ax.text(i + 0.48, 0.36, row.what, ha="center", va="center", fontsize=6.5)
        if i + 1 < len(table):
            ax.annotate("", (i + 1.06, 0.5), (i + 0.9, 0.5), arrowprops={"arrowstyle": "->", "color": "0.4"})
    return fig
