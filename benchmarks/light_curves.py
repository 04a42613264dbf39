"""Ratios of the light curves' speed, each pair measured side by side: `python -m benchmarks.light_curves`.

Adaptive nodes against the library at every epoch, at equal tolerance and at its default; what the expansion away from
caustics is worth; and how fast light curves with noise are drawn from stored nodes.
"""

from functools import partial
from unittest import mock

import numpy as np

from benchmarks.timing import report, seconds
from microlens import lens
from microlens.data.events import render_event
from microlens.lens import curves as lens_curves
from microlens.lens.engine import new_engine
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

    for e in events[:30]:  # compiles
        lens.binary(T, **e), whole_curve(e)
    fast, exact, naive, nodes = [], [], [], []
    for e in events:
        fast.append(seconds(partial(lens.binary, T, **e)))
        exact.append(seconds(partial(lens.binary, T, method="exact", **e)))
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
    expansion(events[:60])
    renderer([whole_curve(e) for e in events])


def expansion(events):
    """What the expansion away from caustics is worth: the same nodes with a contour at every one of them."""
    def no_expansion(tau, distances, event, tolerance, polyline):
        return np.full(len(tau), np.nan)

    def one_round(tau, log_A, rounds, event, tolerance, polyline, epochs):
        at, new = lens_curves._new_nodes(tau, log_A, tolerance, event.rho, epochs)
        if len(at) == 0:
            return tau, log_A, lens_curves.MAX_ROUNDS
        return lens_curves._insert(tau, at, new), lens_curves._insert(log_A, at, np.full(len(new), np.nan)), rounds + 1

    for name, curve in (("season", partial(lens.binary, T)), ("whole curve as nodes", lambda **e: whole_curve(e))):
        with_it, without = [], []
        for e in events:
            with_it.append(seconds(partial(curve, **e)))
            with (mock.patch.object(lens_curves, "_computed", no_expansion),
                  mock.patch.object(lens_curves, "_refine_expanded", one_round)):
                without.append(seconds(partial(curve, **e)))
        report(f"{name}, its nodes without the expansion (contours alone)", with_it, without)


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
