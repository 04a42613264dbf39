"""Ratios of the light curves' speed, each pair measured side by side: `python -m benchmarks.light_curves`.

Adaptive nodes against the library at every epoch, at equal tolerance and at its default; what the expansion away from
caustics is worth; what parallax costs; and how fast light curves with noise are drawn from stored nodes.
"""

from functools import partial

import numba
import numpy as np

from benchmarks.timing import report, seconds
from microlens import lens
from microlens.data.events import render_event
from microlens.lens import curves as lens_curves
from microlens.lens.caustics import N_PHASES, caustic_polyline
from microlens.lens.engine import library_values, new_engine
from microlens.lens.expansion import new_scratch
from microlens.lens.limb import disc_magnification
from microlens.lens.path import Lens, position_on
from microlens.sky.population import draw, load_preset

T = np.arange(6912) / 96


def prior_lenses(n, seed=0):
    """The parameters of n binary lenses of preset baseline, as `lens.binary` takes them."""
    preset, rng = load_preset("baseline"), np.random.default_rng(seed)
    drawn = [draw(preset, "binary", rng, 72.0) for _ in range(n)]
    return [{name: event[name] for name in ("t_0", "u_0", "t_E", "rho", "s", "q", "alpha")} for event in drawn]


def whole_curve(event):
    """The nodes of an event's whole curve."""
    return lens.nodes(*(event[name] for name in ("u_0", "rho", "s", "q", "alpha")))


def light_curves(n=150):
    events = prior_lenses(n)
    default = new_engine("VBBinaryLensing", 1e-2)
    default.RelTol = 0.0

    def loop(e):
        x, y = lens.trajectory(T, e["t_0"], e["u_0"], e["t_E"], e["alpha"])
        for a, b in zip(x, y, strict=True):
            default.BinaryMag2(e["s"], e["q"], a, b, e["rho"])

    def every_epoch(e):
        x, y = lens.trajectory(T, e["t_0"], e["u_0"], e["t_E"], e["alpha"])
        library_values(new_engine(tolerance=1e-3), x, y, e["s"], e["q"], e["rho"])

    for e in events[:30]:  # compiles
        lens.binary(T, **e), whole_curve(e)
    fast, exact, naive, nodes = [], [], [], []
    for e in events:
        fast.append(seconds(partial(lens.binary, T, **e)))
        exact.append(seconds(partial(every_epoch, e)))
        naive.append(seconds(partial(loop, e)))
        nodes.append(seconds(partial(whole_curve, e)))
    report("binary light curve, library's loop at Tol = RelTol = 1e-3", fast, exact)
    report("binary light curve, library's loop at its default tolerance", fast, naive)
    report("whole curve as nodes, library's loop at Tol = RelTol = 1e-3", nodes, exact)
    rows = np.arange(5, len(T), 53)
    errors = []
    for e in events:
        contours = lens.binary(T[rows], method="exact", tolerance=1e-5, **e)
        errors.append(np.abs(lens.binary(T, **e)[rows] / contours - 1).max())
    print("largest relative error of a curve against contours at 1e-5 (every 53rd epoch): "
          f"median {np.median(errors):.1e}, max {np.max(errors):.1e}, n = {n}")
    bent_tracks(events)
    expansion(events[:60])
    renderer([whole_curve(e) for e in events])


@numba.njit
def by_limb_integrals(tau, track, lens, tolerance, polyline):
    """Magnification at tau (n,) on a track by the limb integral alone, as the package had no expansion."""
    scratch, out = new_scratch(lens.s), np.empty(len(tau))
    for i in range(len(tau)):
        x, y = position_on(track, tau[i])
        out[i] = disc_magnification(x, y, lens, tolerance, polyline, scratch)
    return out


def expansion(events):
    """What the expansion away from caustics is worth: the nodes of a curve with it, and by limb integrals alone."""
    with_it, without = [], []
    for e in events:
        track, disc = lens.straight_track(e["u_0"], e["alpha"]), Lens(e["rho"], e["s"], e["q"], 0.0)
        polyline = caustic_polyline(disc.s, disc.q, N_PHASES)
        tau = whole_curve(e).tau
        tolerance = lens_curves.ENGINE_TOLERANCE * 1e-3
        distances = lens_curves._distances(tau, track, polyline)
        computed = partial(lens_curves._computed, tau, distances, track, disc, 1e-3, polyline)
        integrals = partial(by_limb_integrals, tau, track, disc, tolerance, polyline)
        computed(), integrals()
        with_it.append(seconds(computed))
        without.append(seconds(integrals))
    report("nodes of a whole curve, by limb integrals without the expansion", with_it, without)


def bent_tracks(events, n_repeats=3):
    """What annual parallax costs: the same lenses along bent and along straight tracks, medians of n_repeats."""
    parallax = lens.Parallax(0.06, 0.07)
    straight, bent = [], []
    for e in events:
        straight.append(np.median([seconds(partial(lens.binary, T, **e)) for _ in range(n_repeats)]))
        bent.append(np.median([seconds(partial(lens.binary, T, **e, parallax=parallax)) for _ in range(n_repeats)]))
    report("binary light curve, with parallax", straight, bent)


def renderer(curves, n=1500):
    rng = np.random.default_rng(3)

    def render(curve):
        render_event(curve, rng.uniform(7, 65), rng.uniform(5, 30), 1.0, rng.uniform(18, 24), T, rng)

    render(curves[0])
    took = [seconds(lambda i=i: render(curves[i % len(curves)])) for i in range(n)]
    print("renderer, 6912 epochs with dropout and noise from stored nodes: "
          f"{1 / np.mean(took):.0f} events/s and core, n = {n}")


if __name__ == "__main__":
    light_curves()
