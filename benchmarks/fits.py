"""Fits a second: single lenses through noisy light curves of a season."""

import numpy as np

from benchmarks.timing import seconds
from microlens import lens, sky
from microlens.fit import fit_single_lens

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
