"""Figures of what goes in: season, noise, light curves of classes and presets, populations, one event by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.ticker import NullLocator

from microlens import lens, sky
from microlens.config import (
    BINARY,
    DETECTORS,
    FLAT,
    LENSING_CLASSES,
    PARAMETERS,
    PSPL,
    SCHEDULES,
    THRESHOLD_PSPL,
)
from microlens.figures.style import (
    COLOURS,
    COLUMN,
    EINSTEIN,
    LINES,
    LOGARITHMIC,
    PAGE,
    SIGNAL,
    bins_of,
    figure,
    label_of,
    log_axis,
    subplots,
)
from microlens.fit import fit_noise_free, fit_single_lens, single_lens_model
from microlens.fit.points import epochs_to_draw
from microlens.lens.plane import lens_plane
from microlens.sky.terms import FUNCTIONS, Epochs

# sigma_mag as published: Penny+ 2019; S/N of McKinnon & van der Marel (2602.00310); RMDC26 medians.
PUBLISHED = {"m": [15, 18, 20, 21, 22, 24, 26],
             "penny2019": [0.00113, 0.00230, 0.00544, 0.00896, 0.01570, 0.06434, 0.3595],
             "roman": [0.00112, 0.00227, 0.00537, 0.00885, 0.01559, 0.06473, 0.3638],
             "crowded": [0.00110, 0.00216, 0.00569, 0.0108, 0.0229, 0.128, 0.788]}
SOURCES = "crosses: Penny et al. 2019; circles: McKinnon & van der Marel 2026; squares: medians of RMDC26"
DETECTOR_STYLES = {"roman": ("-", "o"), "penny2019": ("--", "x"), "crowded": (":", "s"), "thesis": ("-.", "")}
PRESET_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1)))
DISTRIBUTIONS = ("t_E", "u_0", "s", "q", "rho", "m_base")  # parameters whose histograms are drawn
N_BINS = 18
N_DRAWN = 90  # steps of time in a small light curve

TERM_EVENT = (40.0, 0.02, 12.0)  # t_0 (d), u_0 and t_E (d) of the single lens that terms of noise are added to
TERM_MAGNITUDE = 20.0  # of its baseline
TERM_EXAMPLES = {
    "correlated": {"amplitude": 0.3, "time": 1.0},
    "dither": {"amplitude": 0.005, "positions": 6},
    "non_linearity": {"slope": 1.5e-3},
    "persistence": {"electrons": 72.0, "duration": 1.0, "interval": 10.0},
    "outliers": {"fraction": 0.005, "size": 10.0, "degrees": 5.0},
    "error_scale": {"factor": 1.3},
    "matern": {"amplitude": 0.3, "time": 1.0},
    "random_walk": {"amplitude": 0.1},
    "step": {"size": 0.3},
    "daily": {"amplitude": 0.3},
}
SCATTERED = ("dither", "outliers", "error_scale")  # terms of which neighbours differ, drawn by points


def noise_curve():
    """Photometric error against magnitude for each detector set, with the published points."""
    m = np.linspace(15, 26, 111)
    curves = pd.DataFrame({"kind": "model", "m": m, **{d: sky.sigma_mag(m, d) for d in DETECTORS}})
    return pd.concat([curves, pd.DataFrame(PUBLISHED).assign(kind="published")]), (
        "F146 photometric error of one epoch for each detector set (lines) and published values (marks, n = 7 each; "
        f"{SOURCES}).")


@figure
def draw_noise_curve(table):
    fig, ax = subplots(size=(COLUMN, 2.6))
    model, points = table[table["kind"] == "model"], table[table["kind"] == "published"]
    for i, (name, (line, marker)) in enumerate(DETECTOR_STYLES.items()):
        width = 2.6 if name == "roman" else 1.0  # penny2019 lies on it
        ax.semilogy(model["m"], model[name], line, color=f"C{i}", lw=width, label=name)
        if name in PUBLISHED:
            ax.plot(points["m"], points[name], marker, ms=4, color=f"C{i}", mec="black", mew=0.6)
    ax.set(xlabel="F146 magnitude (AB)", ylabel="error of one epoch (mag)")
    ax.legend()
    return fig


def noise_terms(seed=0):
    """What each term of noise adds to one single lens, in errors, with the parameters of TERM_EXAMPLES."""
    t, parts = sky.epochs("roman", seed), []
    flux = lens.pspl(t, *TERM_EVENT)
    sigma = sky.sigma_flux(flux, TERM_MAGNITUDE)
    electrons = float(1 / sky.noise_variance(TERM_MAGNITUDE)[1])
    for name, parameters in TERM_EXAMPLES.items():
        rng = np.random.default_rng(seed)
        epochs = Epochs(t, flux, sigma, sigma * rng.standard_normal(len(t)), electrons)
        added = FUNCTIONS[name](epochs, rng, **parameters) / sigma
        shown = epochs_to_draw(t, added, added if name == "outliers" else None)
        parts.append(pd.DataFrame({"term": name, "t": t[shown], "added": added[shown]}))
    return pd.concat(parts), (
        f"What each term of noise adds to one light curve (n = {len(t)} epochs) of a single lens with u_0 = "
        f"{TERM_EVENT[1]:g}, t_E = {TERM_EVENT[2]:g} d and baseline {TERM_MAGNITUDE:g} mag, in photometric errors: one "
        "draw each. The last four are in no shipped set; they test networks on noise that these have never seen.")


@figure
def draw_noise_terms(table):
    terms = list(table.groupby("term", sort=False))
    fig, axes = subplots(-(-len(terms) // 2), 2, size=(PAGE, 1.15 * -(-len(terms) // 2)), sharex=True)
    for ax, (name, t) in zip(axes.flat, terms, strict=True):
        ax.plot(t["t"], t["added"], "." if name in SCATTERED else "-", ms=1.5, lw=0.8, color="C0")
        ax.set_title(name.replace("_", " "))
    for ax in axes[-1]:
        ax.set_xlabel("time (d into the season)")
    for ax in axes[:, 0]:
        ax.set_ylabel("added (errors)")
    return fig


def survey_season(seed=0):
    """Step between epochs against time for both schedules: pauses stand out."""
    parts, counts = [], []
    for schedule in SCHEDULES:
        t = sky.epochs(schedule, seed)
        step = np.diff(t) * 24
        shown = (step > 1) | (np.arange(len(step)) % 100 == 0)
        parts.append(pd.DataFrame({"schedule": schedule, "t": t[1:][shown], "step": step[shown]}))
        counts.append(f"{schedule} (n = {len(t)} epochs)")
    return pd.concat(parts), (f"Time between epochs over one season: {' and '.join(counts)}; every pause and every "
                              "hundredth step in between.")


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


def annual_parallax(params: dict, magnitude: float, pi_EN: float, pi_EE: float, timestamps):
    """One single lens with and without annual parallax, and what the best straight-line single lens leaves of it.

    params : t_0, u_0, t_E.   magnitude : of the baseline.   pi_EN, pi_EE : its parallax.   timestamps : (T,) days.
    """
    t, parallax = np.asarray(timestamps), lens.Parallax(pi_EN, pi_EE)
    straight, bent = lens.pspl(t, **params), lens.pspl(t, **params, parallax=parallax)
    sigma = sky.sigma_flux(bent, magnitude)
    fits = {"without": fit_noise_free(t, bent, sigma), "with": fit_noise_free(t, bent, sigma, field=lens.ROMAN_FIELD)}
    table = pd.DataFrame({"t": t, "straight": straight, "bent": bent})
    for name, fit in fits.items():
        table[f"residual_{name}"] = (bent - single_lens_model(t, fit)) / sigma
    keep = epochs_to_draw(t, np.log(bent), table["residual_without"], 200)
    return table.iloc[keep], (
        rf"A single lens ($t_\mathrm{{E}}$ = {params['t_E']:g} d) without and with annual parallax "
        rf"($\pi_\mathrm{{E,N}}$ = {pi_EN:g}, $\pi_\mathrm{{E,E}}$ = {pi_EE:g}) in the Roman fields, and the "
        "noise-free residual to the best single lens that has no parallax "
        f"(delta chi^2 = {fits['without'].chi2:.3g}) and to the best one that has ({fits['with'].chi2:.2g}).")


@figure
def draw_annual_parallax(table):
    fig, (left, right) = subplots(1, 2, size=(PAGE, 2.4))
    left.plot(table["t"], table["straight"], "--", color="0.4", label="without parallax")
    left.plot(table["t"], table["bent"], color=COLOURS["pspl"], label="with parallax")
    left.set(xlabel="time (d)", ylabel="flux / baseline")
    left.legend()
    right.plot(table["t"], table["residual_without"], color=COLOURS["binary"], label="fit without parallax")
    right.plot(table["t"], table["residual_with"], color=COLOURS["pspl"], label="fit with parallax")
    right.set(xlabel="time (d)", ylabel="residual / error")
    right.legend()
    return fig


def example_light_curves(timestamps, flux, kinds):
    """Light curves, one a class: timestamps (T,) days; flux (k, T), 0.0 = missing; kinds: k class names."""
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


# ---- the lens plane -------------------------------------------------------------------------------------------------


def plane(params: dict, reach=2.0) -> pd.DataFrame:
    """The lens plane of a 2L1S event: panel (caustic, critical, lens, trajectory, source), part, x, y (theta_E).

    params : u_0, rho, s, q, alpha.   reach : Einstein times of the trajectory on either side.
    """
    shown = lens_plane(params, np.array([-reach, 0.0, 0.5, reach]), n_caustic=160, n_critical=40)
    curves = {"caustic": shown.caustics, "critical": shown.critical_curves}
    parts = [pd.DataFrame(curve.round(3), columns=["x", "y"]).assign(panel=panel, part=i)
             for panel, found in curves.items() for i, curve in enumerate(found)]
    for panel, points in (("lens", shown.lenses), ("trajectory", shown.trajectory)):
        parts.append(pd.DataFrame(points.round(4), columns=["x", "y"]).assign(panel=panel))
    return pd.concat([*parts, pd.DataFrame(shown.source, columns=["x", "y"]).assign(panel="source")])


def draw_plane(ax, table, reach=1.6):
    """Draw a lens plane as `plane` gives it, with the direction of the source; reach : half width, Einstein radii."""
    styles = {"critical": {"color": "0.6", "lw": 0.6, "ls": ":"}, "caustic": {"color": COLOURS["binary"], "lw": 0.9}}
    for name, style in styles.items():
        for _, t in table[table["panel"] == name].groupby("part"):
            ax.plot(t["x"], t["y"], **style)
    ax.plot(*table.loc[table["panel"] == "lens", ["x", "y"]].to_numpy().T, "k.", ms=3)
    path = table.loc[table["panel"] == "trajectory", ["x", "y"]].to_numpy()
    ax.plot(*path.T, color="0.3", lw=0.8)
    ax.annotate("", path[2], path[1], arrowprops={"arrowstyle": "->", "color": "0.3", "lw": 0.8})
    ax.fill(*table.loc[table["panel"] == "source", ["x", "y"]].to_numpy().T, color=COLOURS["pspl"])
    ax.set(aspect="equal", xlim=(-reach, reach), ylim=(-reach, reach))


def event_by_hand(params: dict, timestamps, flux, sigma):
    """One binary: lens plane with caustics and trajectory, light curve with the best single lens, residual.

    params : t_0, u_0, t_E, rho, s, q, alpha.   timestamps (T,) days.   flux, sigma (T,) measured, 0.0 = missing.
    """
    seen = flux != 0
    t, f, error = timestamps[seen], flux[seen].astype(float), sigma[seen].astype(float)
    model = single_lens_model(t, fit_single_lens(t, f, error, finite_source=True))
    residual = (f - model) / error
    keep = epochs_to_draw(t, np.log(np.maximum(f, 1e-2)), residual, 300)
    curve = pd.DataFrame({"panel": "curve", "x": t, "y": f, "model": model, "residual": residual}).iloc[keep]
    excess, topology = (residual**2).sum() - len(t), lens.topology(params["s"], params["q"])
    return pd.concat([plane(params), curve]), (
        rf"A binary lens ($s$ = {params['s']:.3g}, $q$ = {params['q']:.3g}, {topology}): lens plane with caustics, "
        "critical curves (dotted) and the path of the source, its disc to scale; light curve with the best single "
        rf"lens; its residual in units of the error, $\chi^2 - n$ = {excess:.3g}, n = {len(t)} epochs, {len(keep)} "
        "drawn.")


@figure
def draw_event_by_hand(table):
    fig, axes = subplots(1, 2, size=(PAGE, 2.9), width_ratios=(1, 1.5))
    draw_plane(axes[0], table)
    axes[0].set(xlabel=f"$x$ ({EINSTEIN})", ylabel=f"$y$ ({EINSTEIN})")
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
    below.set(xlabel="time (d)", ylabel=r"residual ($\sigma$)")
    below.set_yscale("symlog", linthresh=10)
    below.set_yticks([-100, -10, 0, 10, 100], ["-100", "-10", "0", "10", "100"])
    below.yaxis.set_minor_locator(NullLocator())
    fig.align_ylabels([above, below])
    return fig


# ---- presets and their populations ----------------------------------------------------------------------------------


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
    """One event of each class of each preset, with the binary's lens plane. datasets : {preset: open Dataset}."""
    parts, curves = [], set()
    for name, data in datasets.items():
        for label, kind in enumerate(LENSING_CLASSES):
            row = typical(data.params, label)
            flux = data.flux(row).astype(float)
            curves.add(flux.tobytes())
            seen = flux != 0
            t, f = data.timestamps[seen], flux[seen]
            keep = epochs_to_draw(t, np.log(np.maximum(f, 1e-2)), time_steps=N_DRAWN, flux_steps=N_DRAWN // 3)
            parts.append(pd.DataFrame({"panel": kind, "x": t[keep].round(2), "y": f[keep].round(4), "preset": name}))
            if label == BINARY:
                parts.append(plane(data.params.loc[row].to_dict()).assign(preset=name))
    return pd.concat(parts), (
        f"Simulated events of each preset, n = {len(curves)}: lens plane of the binary (caustics, dotted critical "
        "curves, path of the source), its light curve, a single lens and a flat light curve. Of each class the event "
        f"at three quarters of the signal is shown ({SIGNAL} against the best single lens; against a constant).")


@figure
def draw_preset_examples(table):
    names = table["preset"].unique()
    fig, axes = subplots(4, len(names), size=(PAGE, 5.4), squeeze=False, height_ratios=(1.5, 1, 1, 1))
    for column, name in zip(axes.T, names, strict=True):
        part = table[table["preset"] == name]
        draw_plane(column[0], part, reach=2.2)
        column[0].set(title=name, xlabel=f"$x$ ({EINSTEIN})")
        for ax, kind in zip(column[1:], reversed(LENSING_CLASSES), strict=True):
            t = part[part["panel"] == kind]
            ax.plot(t["x"], t["y"], ".", ms=1.2, color=COLOURS[kind], rasterized=True)
            ax.tick_params(labelbottom=kind == "flat")
            ax.margins(y=0.1)
            ax.locator_params(axis="y", nbins=4)
        column[-1].set_xlabel("time (d)")
    axes[0, 0].set_ylabel(f"$y$ ({EINSTEIN})")
    for ax, kind in zip(axes[1:, 0], reversed(LENSING_CLASSES), strict=True):
        ax.set_ylabel(f"{kind}:\nflux / baseline")
    return fig


def _histograms(groups: dict, column: str) -> pd.DataFrame:
    """Histograms of DISTRIBUTIONS for {name: table of events}, on common bins; `column` holds the name."""
    parts = []
    for parameter in DISTRIBUTIONS:
        values = {name: params[parameter].dropna().to_numpy() for name, params in groups.items()}
        if parameter in LOGARITHMIC:  # without point sources, rho = 0
            values = {name: x[x > 0] for name, x in values.items()}
        edges = bins_of(np.concatenate(list(values.values())), parameter, N_BINS)
        parts += [pd.DataFrame({"parameter": parameter, column: name, "low": edges[:-1], "high": edges[1:],
                                "share": np.histogram(x, edges)[0] / len(x)}) for name, x in values.items() if len(x)]
    return pd.concat(parts)


def _draw_histograms(table, column: str, styles: dict):
    """Six panels of histograms, one line for each value of a column; styles : {value: keywords of the line}."""
    fig, axes = subplots(2, 3, size=(PAGE, 3.4), sharey=True)
    for ax, (name, part) in zip(axes.flat, table.groupby("parameter", sort=False), strict=False):
        for kind, t in part.groupby(column, sort=False):
            ax.stairs(t["share"], [*t["low"], t["high"].iloc[-1]], label=kind, **styles[kind])
        ax.set_xlabel(label_of(name))
        if name in LOGARITHMIC:
            log_axis(ax.xaxis, part["low"].min(), part["high"].max())
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    for ax in axes[:, 0]:
        ax.set_ylabel("share of events in a bin")
    return fig


def parameter_distributions(params):
    """Histograms of the drawn parameters of binaries and single lenses, from a dataset's table."""
    groups = {LENSING_CLASSES[c]: params[params["label"] == c] for c in (PSPL, BINARY)}
    n = [len(part) for part in groups.values()]
    return _histograms(groups, "class"), (f"Drawn parameters of single lenses (n = {n[0]}) and binaries (n = {n[1]}): "
                                          f"{_meanings()}; bins are common to both.")


@figure
def draw_parameter_distributions(table):
    return _draw_histograms(table, "class", {c: {"color": COLOURS[c], "ls": LINES[c]} for c in LENSING_CLASSES})


def preset_distributions(tables: dict):
    """Histograms of the binaries' parameters for each preset; tables {preset: a dataset's params}."""
    groups = {name: params[params["label"] == BINARY] for name, params in tables.items()}
    n = min(len(part) for part in groups.values())
    return _histograms(groups, "preset"), (f"Drawn parameters of the binaries of each preset, n >= {n} a preset: "
                                           f"{_meanings()}; bins are common to all.")


@figure
def draw_preset_distributions(table):
    lines = enumerate(zip(table["preset"].unique(), PRESET_LINES, strict=False))
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
    return pd.concat(parts), (
        f"Share of binaries whose best single lens is worse by more than {SIGNAL}, n >= {n} a preset; the vertical "
        f"line is the threshold of the observable label, {THRESHOLD_PSPL:g}.")


@figure
def draw_observability(table):
    fig, ax = subplots(size=(COLUMN, 2.9))
    for (name, t), line in zip(table.groupby("preset", sort=False), PRESET_LINES, strict=False):
        ax.semilogx(t["delta_chi2"], t["share"], ls=line, label=f"{name} (n = {t['n'].iloc[0]})")
    ax.axvline(THRESHOLD_PSPL, color="k", lw=0.7)
    ax.set(xlabel=label_of("delta_chi2_pspl"), ylabel="share of binaries above", ylim=(0, 1.02))
    ax.annotate(f"{THRESHOLD_PSPL:g}", (THRESHOLD_PSPL, 0.02), xytext=(2, 0), textcoords="offset points", fontsize=7)
    fig.legend(loc="outside upper center", ncols=2)
    return fig
