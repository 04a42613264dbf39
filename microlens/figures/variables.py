"""Everything that varies and is no lens: one star of each sub-class, as a season shows it and as it is."""

from __future__ import annotations

import numpy as np
import pandas as pd

from microlens import sky
from microlens.config import SUBCLASSES, VARIABLE_STARS
from microlens.figures import style
from microlens.fit.points import epochs_to_draw
from microlens.sky.variables import VariableStar, subclasses

N_DRAWN = 40  # stars of a sub-class, of which one is shown
SHOWN = 0.75  # quantile of their range in a season at which the shown one lies
SHOWN_FLARE = 0.95  # the same of flares, most of which are lost in the noise
MAGNITUDE = 19.0  # of the stars that are shown, F146
N_SEASON = 200  # epochs in the season of a periodic star
N_FOLDED = 100  # epochs in a phase-folded panel
N_LONG = 300  # points in a panel of several years
YEARS = 4.0 * 365.25  # d
DETAIL = {"dwarf_nova": (-3.0, 25.0), "flare": (-0.03, 0.1)}  # d about the highest point that are drawn beside
LONG = ("osarg", "semiregular", "mira", "be_outburst", "trend")  # sub-classes of which several years are drawn beside
COLUMNS = 3
SUBCLASS_NAMES = {name: name.replace("_", " ") for name in SUBCLASSES} | {
    "rr_lyrae_ab": "RR Lyrae ab", "rr_lyrae_c": "RR Lyrae c", "delta_scuti": r"$\delta$ Scuti",
    "cepheid_1": "classical cepheid", "cepheid_2": "type-II cepheid", "osarg": "OSARG", "mira": "Mira",
    "be_outburst": "Be outburst", "eclipsing_detached": "detached", "eclipsing_semidetached": "semidetached",
    "eclipsing_contact": "contact"}
"""How the sub-classes are printed; the last three are eclipsing binaries."""
BESIDE = {"phase": "phase", "days": "time (d)", "years": "time (yr)"}


def variable_stars(seed=1):
    """One star of each kind of variable stars: a season with noise; beside it its phase curve, its highest outburst
    or four years.

    seed : of the draws.
    """
    rng, t = np.random.default_rng(seed), sky.epochs("roman", seed)
    parts = [_star(subclass, rng, t) for subclass in subclasses().values()]
    return pd.concat(parts), (
        f"One star of each kind of variable stars (n = {len(parts)}): left a season with the noise of a star of "
        f"{MAGNITUDE:g} mag that is not blended, right the same epochs against the phase, the highest outburst, or "
        f"four years without noise (line). Of {N_DRAWN} stars drawn the one at {SHOWN:.0%} of the range in a season is "
        f"shown (flares {SHOWN_FLARE:.0%}); its period (the mean time between outbursts) and its "
        "range in the season are given above. Detached, semidetached and contact are eclipsing binaries; two sources "
        "behind one lens, the last sub-class of class other, are no variable star.").replace("%", " %")


def _star(subclass, rng, t) -> pd.DataFrame:
    """The panels of one sub-class, x and y: season; phase, days or years; `about` holds period and range."""
    drawn = [VariableStar(subclass.draw(rng)) for _ in range(N_DRAWN)]
    span = np.array([np.ptp(star.flux(t)) for star in drawn])
    shown = SHOWN_FLARE if subclass.model == "flares" else SHOWN
    star = drawn[int(np.argsort(span)[int(shown * N_DRAWN)])]
    flux_true = star.flux(t)
    flux = flux_true + sky.sigma_flux(flux_true, MAGNITUDE) * rng.standard_normal(len(t))
    if subclass.is_periodic:  # at random: equal steps would show a period that is not there
        keep = np.sort(rng.choice(len(t), N_SEASON, replace=False))
    else:
        keep = epochs_to_draw(t, flux, time_steps=120, flux_steps=20)
        keep = np.union1d(keep, np.argmax(flux))
    season = pd.DataFrame({"panel": "season", "x": t[keep].round(3), "y": flux[keep]})
    if subclass.name in LONG:
        at = np.linspace(0, YEARS, N_LONG)
        beside = pd.DataFrame({"panel": "years", "x": at / 365.25, "y": star.flux(at)})
    elif subclass.name in DETAIL:
        since = t - t[np.argmax(flux_true)]
        near = (since > DETAIL[subclass.name][0]) & (since < DETAIL[subclass.name][1])
        step = max(1, near.sum() // N_FOLDED)
        beside = pd.DataFrame({"panel": "days", "x": since[near][::step], "y": flux[near][::step]})
    else:
        phase = (t / star.params["period"] + star.params["phase"]) % 1.0
        order = np.argsort(phase)
        order = order[epochs_to_draw(phase[order], flux_true[order], time_steps=N_FOLDED, flux_steps=25)]
        beside = pd.DataFrame({"panel": "phase", "x": phase[order], "y": flux[order]})
    brightest, faintest = flux_true.max(), flux_true.min()
    about = {"panel": "about", "x": star.params["period"], "y": 2.5 * np.log10(brightest / faintest)}
    return pd.concat([pd.DataFrame([about]), season, beside]).round(4).assign(subclass=subclass.name)


@style.figure
def draw_variable_stars(table):
    names = [name for name in VARIABLE_STARS if (table["subclass"] == name).any()]
    rows = -(-len(names) // COLUMNS)
    fig, axes = style.subplots(rows, 2 * COLUMNS, size=(style.PAGE, 0.3 + 1.5 * rows), squeeze=False,
                               width_ratios=(1.5, 1) * COLUMNS)
    for ax in axes.flat[2 * len(names) :]:
        ax.set_visible(False)
    for i, name in enumerate(names):
        left, right = axes.flat[2 * i], axes.flat[2 * i + 1]
        star = table[table["subclass"] == name]
        (beside,) = set(star["panel"]) - {"about", "season"}
        for ax, panel in ((left, "season"), (right, beside)):
            part = star[star["panel"] == panel].sort_values("x")
            look = {"ls": "-", "lw": 0.6, "color": "0.3"} if panel == "years" else {"ls": "", "marker": ".", "ms": 1.5}
            ax.plot(part["x"], part["y"], **{"color": style.COLOURS["other"], "rasterized": True} | look)
            ax.tick_params(pad=1)
            ax.locator_params(nbins=3)
            ax.margins(y=0.08)
        period, size = star.loc[star["panel"] == "about", ["x", "y"]].iloc[0]
        left.set_title(f"{SUBCLASS_NAMES[name]}: {period:.3g} d, {size:.2g} mag", loc="left")
        right.set_xlabel(BESIDE[beside], labelpad=1)
        right.locator_params(axis="x", nbins=2)
    for ax in axes[-1, ::2]:
        ax.set_xlabel("time (d)", labelpad=1)
    for ax in axes[:, 0]:
        ax.set_ylabel("flux / baseline")
    return fig
