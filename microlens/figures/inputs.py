"""Figures of what goes in: season, noise, parallax, light curves of each class, one event with its lens plane."""

from __future__ import annotations

import numpy as np
import pandas as pd

from microlens import lens, sky
from microlens.config import DETECTORS, SCHEDULES
from microlens.figures import style
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
BRIGHT = 5.0  # flux over baseline from which a light curve is drawn on a logarithmic axis
BESIDE_LENS, LEAST_REACH = 1.2, 1.6  # Einstein radii drawn of a lens plane beside the outer lens, and about its centre
PASSAGE = 2.0  # Einstein times of a trajectory on either side
RATIOS = 0.4, 3.0  # of errors to those of detector set roman that are drawn

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
        f"{SOURCES}). Below, the same over the error of set roman; that of set thesis is less than {RATIOS[0]:g} of "
        "it.")


@style.figure
def draw_noise_curve(table):
    fig, (ax, below) = style.subplots(2, 1, size=(style.COLUMN, 3.8), height_ratios=(2, 1), sharex=True)
    model, points = table[table["kind"] == "model"], table[table["kind"] == "published"]
    at_points = np.interp(points["m"], model["m"], np.log(model["roman"]))
    for i, (name, (line, marker)) in enumerate(DETECTOR_STYLES.items()):
        width = 2.4 if name == "roman" else 1.2  # penny2019 lies on it
        ax.plot(model["m"], model[name], ls=line, color=f"C{i}", lw=width, label=name)
        below.plot(model["m"], model[name] / model["roman"], ls=line, color=f"C{i}", lw=width)
        if name in PUBLISHED:
            of_points = {"marker": marker, "ls": "", "ms": 4, "color": f"C{i}", "mec": "black", "mew": 0.6}
            ax.plot(points["m"], points[name], **of_points)
            below.plot(points["m"], points[name] / np.exp(at_points), **of_points)
    ax.set(ylabel="error of one epoch (mag)")
    errors = model[list(DETECTOR_STYLES)]
    style.log_axis(ax.yaxis, errors.min(axis=None), errors.max(axis=None), style.MARGIN)
    below.set(xlabel="F146 magnitude (AB)", ylabel="error over that\nof set roman", ylim=RATIOS)
    style.legend_above(fig, ax, ncols=2)
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
        f"What each term of noise adds to one light curve (n = {len(t)} epochs) of a single lens with $u_0$ = "
        rf"{TERM_EVENT[1]:g}, $t_\mathrm{{E}}$ = {TERM_EVENT[2]:g} d and baseline {TERM_MAGNITUDE:g} mag, in "
        "photometric errors: one draw each. The last four are in no shipped set; they test networks on noise that they "
        "have never seen.")


@style.figure
def draw_noise_terms(table):
    terms = list(table.groupby("term", sort=False))
    rows = -(-len(terms) // 2)
    fig, axes = style.subplots(rows, 2, size=(style.PAGE, 1.15 * rows), sharex=True)
    for ax, (name, t) in zip(axes.flat, terms, strict=True):
        ax.plot(t["t"], t["added"], "." if name in SCATTERED else "-", ms=1.5, lw=0.8, color="C0")
        ax.set_title(name.replace("_", " "))
    for ax in axes[-1]:
        ax.set_xlabel("time (d into the season)")
    for ax in axes[:, 0]:
        ax.set_ylabel(r"added ($\sigma$)")
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


@style.figure
def draw_survey_season(table):
    fig, ax = style.subplots(size=(style.COLUMN, 2.2))
    for (name, t), marker in zip(table.groupby("schedule", sort=False), "ox", strict=True):
        ax.plot(t["t"], t["step"], marker, ms=3, label=name)
    ax.set(xlabel="time (d into the season)", ylabel="step to the epoch before (h)")
    style.log_axis(ax.yaxis, table["step"].min(), table["step"].max(), 2 * style.MARGIN)
    style.legend_above(fig, ax)
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
        f"({style.SIGNAL} = {fits['without'].chi2:.3g}) and to the best one that has ({fits['with'].chi2:.2g}); n = "
        f"{len(t)} epochs.")


@style.figure
def draw_annual_parallax(table):
    fig, (left, right) = style.subplots(1, 2, size=(style.PAGE, 2.4))
    for name, line, colour, flux in (("without", "--", "C2", "straight"), ("with", "-", "C1", "bent")):
        left.plot(table["t"], table[flux], line, color=colour, label=f"{name} parallax")
        right.plot(table["t"], table[f"residual_{name}"], line, color=colour)
    left.set(xlabel="time (d)", ylabel="flux / baseline")
    right.set(xlabel="time (d)", ylabel=r"residual of the fit ($\sigma$)")
    style.legend_above(fig, left)
    return fig


def example_light_curves(timestamps, flux, kinds):
    """Light curves, one a class: timestamps (T,) days; flux (k, T), 0.0 = missing; kinds: k class names."""
    table = pd.concat([pd.DataFrame({"class": k, "t": timestamps[f != 0][::8], "flux": f[f != 0][::8]})
                       for k, f in zip(kinds, flux, strict=True)]).round(4)
    return table, (f"Simulated light curves, one of each class that can be observed (n = {len(kinds)}); every eighth "
                   "epoch is drawn.")


@style.figure
def draw_example_light_curves(table):
    fig, axes = style.subplots(1, 3, size=(style.PAGE, 2.1))
    for ax, (kind, part) in zip(axes, table.groupby("class", sort=False), strict=True):
        ax.plot(part["t"], part["flux"], ".", ms=1.5, color=style.COLOURS[kind], rasterized=True)
        ax.set(title=style.NAMES[kind], xlabel="time (d)")
        if part["flux"].max() > BRIGHT:
            style.log_axis(ax.yaxis, part["flux"].min(), part["flux"].max(), style.MARGIN)
    axes[0].set_ylabel("flux / baseline")
    return fig


def plane(params: dict) -> pd.DataFrame:
    """The lens plane of a 2L1S event: panel (caustic, critical, lens, trajectory, source), part, x, y (theta_E).

    params : u_0, rho, s, q, alpha.
    """
    shown = lens_plane(params, np.array([-PASSAGE, 0.0, 0.5, PASSAGE]), n_caustic=160, n_critical=40)
    curves = {"caustic": shown.caustics, "critical": shown.critical_curves}
    parts = [pd.DataFrame(curve.round(3), columns=["x", "y"]).assign(panel=panel, part=i)
             for panel, found in curves.items() for i, curve in enumerate(found)]
    for panel, points in (("lens", shown.lenses), ("trajectory", shown.trajectory)):
        parts.append(pd.DataFrame(points.round(4), columns=["x", "y"]).assign(panel=panel))
    return pd.concat([*parts, pd.DataFrame(shown.source, columns=["x", "y"]).assign(panel="source")])


def draw_plane(ax, table):
    """Draw a lens plane as `plane` gives it, with the direction of the source, so that both lenses are in it."""
    reach = max(LEAST_REACH, BESIDE_LENS + table.loc[table["panel"] == "lens", "x"].abs().max())
    looks = {"critical": {"color": "0.6", "lw": 0.6, "ls": ":"},
             "caustic": {"color": style.COLOURS["binary"], "lw": 0.9}}
    for name, look in looks.items():
        for _, t in table[table["panel"] == name].groupby("part"):
            ax.plot(t["x"], t["y"], **look)
    ax.plot(*table.loc[table["panel"] == "lens", ["x", "y"]].to_numpy().T, "k.", ms=3)
    path = table.loc[table["panel"] == "trajectory", ["x", "y"]].to_numpy()
    ax.plot(*path.T, color="0.3", lw=0.8)
    ax.annotate("", path[2], path[1], arrowprops={"arrowstyle": "->", "color": "0.3", "lw": 0.8})
    ax.fill(*table.loc[table["panel"] == "source", ["x", "y"]].to_numpy().T, color=style.COLOURS["pspl"])
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


@style.figure
def draw_event_by_hand(table):
    fig, axes = style.subplots(1, 2, size=(style.PAGE, 2.9), width_ratios=(1, 1.5))
    draw_plane(axes[0], table)
    axes[0].set(xlabel=f"$x$ ({style.EINSTEIN})", ylabel=f"$y$ ({style.EINSTEIN})")
    box = axes[1].get_subplotspec().subgridspec(2, 1, height_ratios=(3, 2))
    axes[1].remove()
    above = fig.add_subplot(box[0])
    below = fig.add_subplot(box[1], sharex=above)
    t = table[table["panel"] == "curve"].sort_values("x")
    above.plot(t["x"], t["y"], ".", ms=1.5, color="0.4", rasterized=True)
    above.plot(t["x"], t["model"], color=style.COLOURS["pspl"], label="best single lens")
    above.set(ylabel="flux / baseline")
    style.log_axis(above.yaxis, t["y"].min(), t["y"].max(), style.MARGIN)
    above.tick_params(labelbottom=False)
    below.plot(t["x"], t["residual"], ".", ms=1.5, color="0.4", rasterized=True)
    below.axhline(0, color=style.COLOURS["pspl"], lw=0.8)
    below.set(xlabel="time (d)", ylabel=r"residual ($\sigma$)")
    style.residual_axis(below, t["residual"])
    style.legend_above(fig, above)
    fig.align_ylabels([above, below])
    return fig
