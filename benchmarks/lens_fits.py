"""Binary lenses that microlens.fit finds without being told, against their truth.

    python -m benchmarks.lens_fits roman [N [SEED]]       # N simulated binaries of preset roman with delta chi^2 > 500
    python -m benchmarks.lens_fits dc1 FOLDER [N]         # Data Challenge 1: FOLDER holds truth.csv and roman_dc1/

A solution is right where the true ln s and ln q both lie within 3 of its standard errors. Two shares are printed: of
events whose best solution is right, and of those where a listed one is (chi^2 up to 100 above the best). The errors
that the fit is given are those of the detector at the true flux, or those of the file. Shares have 95 % intervals
(Clopper-Pearson).
"""

import csv
import json
import sys
import time
from pathlib import Path

import numpy as np
from scipy.stats import binomtest

from microlens import sky
from microlens.config import SimulateConfig
from microlens.data.events import make_event, preset_source, true_flux
from microlens.data.lightcurve import seasons
from microlens.data.readers import read_light_curve
from microlens.fit import fit_light_curve

DELTA_CHI2 = 500.0  # against the best single lens
RIGHT = 3.0  # standard errors
SEASON = np.arange(0.0, 72.0, 15.16 / 1440)  # d


def off_by(solution, truth) -> float:
    """The larger distance of ln s and ln q from the truth, in standard errors."""
    return max(abs(np.log(solution.parameters[name] / truth[name])) * solution.parameters[name] / solution.errors[name]
               for name in ("s", "q"))


def report(name, found, truth, chi2_truth=np.nan) -> tuple[bool, bool, bool, float]:
    """Print a line about one event; returns whether its best solution and a listed one are right, whether the best says
    that it describes the light curve, and the seconds.
    """
    off = [off_by(solution, truth) for solution in found.solutions]
    k = int(np.argmin(off))
    listed = found.solutions[k]
    values = "  ".join(f"{name} {truth[name]:.4g} / {listed.parameters[name]:.4g} +- {listed.errors[name]:.2g}"
                       for name in ("s", "q"))
    above_truth = found.best.chi2 - chi2_truth
    print(f"{name}: {values}  off by {off[k]:.1f} sigma, solution {k + 1} of {len(off)}, chi^2 above the best "
          f"{listed.chi2 - found.best.chi2:.1f}, best chi^2 minus that of the truth {above_truth:.1f}, "
          f"{found.seconds:.0f} s", flush=True)
    return off[0] < RIGHT, off[k] < RIGHT, found.best.describes, found.seconds


def share(flags) -> str:
    """A share and its 95 % interval."""
    test = binomtest(int(sum(flags)), len(flags))
    low, high = test.proportion_ci()
    return f"{test.statistic:.2f} [{low:.2f}, {high:.2f}]"


def summary(rows, cpu):
    """Print the shares of all events."""
    best, listed, described, seconds = zip(*rows, strict=True)
    silent = [says for says, right in zip(described, listed, strict=True) if not right]
    print(f"n = {len(rows)}: right {share(best)} best, {share(listed)} listed; of {len(silent)} without a right one "
          f"{sum(silent)} claim to describe the light curve; seconds a fit: median {np.median(seconds):.0f}, most "
          f"{max(seconds):.0f}; CPU {cpu / len(rows):.0f} s a fit", flush=True)


def roman(n=100, seed=1):
    """Simulated binaries of preset roman, whose planets and stars all have parallax."""
    preset, config = sky.load_preset("roman"), SimulateConfig(binary_preset="roman")
    source, rng, rows = preset_source(preset, "binary", SEASON, config), np.random.default_rng(int(seed)), []
    cpu = 0.0
    while len(rows) < int(n):
        event = make_event(source, config, SEASON, rng, 100)
        if event.observability.delta_chi2_pspl <= DELTA_CHI2:
            continue
        truth, seen = event.params, event.flux != 0
        t, flux = SEASON[seen], event.flux[seen].astype(float)
        noise_free = true_flux(event.curve, truth["t_0"], truth["t_E"], truth["f_s"], t)
        sigma = sky.sigma_flux(noise_free, truth["m_base"])
        began = time.process_time()
        found = fit_light_curve(t, flux, sigma, "binary", preset.field)
        cpu += time.process_time() - began
        rows.append(report(f"event {len(rows)}", found, truth, np.square((flux - noise_free) / sigma).sum()))
        if len(rows) % 5 == 0:
            summary(rows, cpu)
    summary(rows, cpu)


def dc1(folder, n=14):
    """The binaries of Data Challenge 1, each in the season of its event, without parallax."""
    rows, cpu = [], 0.0
    with open(Path(folder) / "truth.csv", newline="") as file:
        every = [row for row in csv.DictReader(file) if row["set"] == "roman_dc1"]
    events = [row for row in every if "binary" in row["class_by_season"]]
    for row in events[: int(n)]:
        truth, k = json.loads(row["params"]), row["class_by_season"].split("|").index("binary")
        season = [part for part in seasons(read_light_curve(Path(folder) / row["file"])) if not part.sparse][k]
        began = time.process_time()
        found = fit_light_curve(season.time, season.flux, season.flux_err, "binary")
        cpu += time.process_time() - began
        rows.append(report(row["event"], found, truth))
    summary(rows, cpu)


if __name__ == "__main__":
    {"roman": roman, "dc1": dc1}[sys.argv[1]](*sys.argv[2:])
