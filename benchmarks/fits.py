"""Fits a second: single lenses through noisy light curves of a season, at once and as the season unfolds."""

import numpy as np

from benchmarks.timing import seconds
from microlens import lens, sky
from microlens.data import open_dataset, quick_dataset
from microlens.data.packed import pack
from microlens.fit import fit_single_lens
from microlens.fit.running import running_view

T = sky.epochs("thesis")


def fits(n=200):
    """The best single lens through 6912 noisy epochs, with and without finite sources and annual parallax."""
    rng = np.random.default_rng(1)
    curves = []
    for _ in range(n):
        flux = lens.pspl(T, rng.uniform(7, 65), rng.uniform(0.01, 1), rng.uniform(5, 30))
        sigma = sky.sigma_flux(flux, rng.uniform(18, 24))
        curves.append((flux + sigma * rng.normal(size=len(T)), sigma))
    models = {"PSPL": {}, "PSPL and FSPL": {"finite_source": True}, "PSPL with parallax": {"field": lens.ROMAN_FIELD},
              "PSPL and FSPL with parallax": {"finite_source": True, "field": lens.ROMAN_FIELD}}
    for name, choices in models.items():
        fit_single_lens(T, *curves[0], **choices)  # compiles
        took = [seconds(lambda c=c, k=choices: fit_single_lens(T, *c, **k)) for c in curves]
        print(f"single-lens fit of 6912 epochs, {name}: {1 / np.mean(took):.0f} a second, "
              f"median {1e3 * np.median(took):.2f} ms, n = {n}")


def running_fits(n=100):
    """What the robust view costs the running fit: all curves of preset roman by one view, then by the other."""
    with open_dataset(quick_dataset(n, n, n, preset="roman")) as data:
        flux, delta_t, _, lengths = pack(data.flux(), data.delta_t())
    views = {view: [] for view in ("running", "robust")}
    for row in range(len(flux)):
        one = flux[[row]], delta_t[[row]], lengths[[row]], 16
        if row == 0:
            for view in views:
                running_view(*one, view)  # compiles
        for view, took in views.items():
            took.append(seconds(lambda a=one, v=view: running_view(*a, v)))
    straight, bent = (1e3 * np.mean(took) for took in views.values())
    print(f"running fit of a season of preset roman: {straight:.1f} ms; with a path that may bend {bent:.1f} ms, "
          f"{bent / straight:.2f} times as long, n = {len(flux)} (flat, single and binary in equal parts)")
