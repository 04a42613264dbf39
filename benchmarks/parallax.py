"""What annual parallax does to labels: `python -m benchmarks.parallax`.

For each preset, the share of its binaries whose delta chi^2 against the best single lens is above the threshold, where
that single lens has parallax and where it has none. And the share of single lenses with the parallaxes of Data
Challenge 1's planet hosts (lognormal, median 0.089, 0.25 dex, isotropic) that would pass it. Noise-free curves, labels'
fit; for the single lenses also the excess of the running fit through noisy curves, with a straight path and with one
that may bend. Intervals are Wilson's at 95 %. Last, how often a search with many random starts finds a single lens with
parallax that is better than that of the labels' fit by more than a twentieth of delta chi^2.
"""

import numpy as np

from microlens import lens, sky
from microlens.config import LENS_PRESETS, THRESHOLD_PSPL
from microlens.data.events import fit_start, magnification_curve, true_flux
from microlens.evaluate.metrics import binomial_interval
from microlens.fit import fit_noise_free, kernels, running, single_lens

LOST = 0.05  # share of the epochs
RANDOM_STARTS, AGREES = 60, 0.05
NEAR = 40, 10_000  # delta chi^2 of the binaries that are searched again
DC1_PI_E = np.log10(0.089), 0.25
BLOCK = 16  # epochs a network step
RUNNING_FITS = {"running, straight": "running", "running, robust": "robust"}
FIELDS = {"without parallax": None, "with parallax": lens.ROMAN_FIELD}


def noise_free(kind, params, preset, t, rng):
    """Times, flux and errors of the observed epochs of an event."""
    seen = t[sky.dropout(rng, len(t), LOST)]
    curve = magnification_curve(kind, params, preset.field, (t[0], t[-1]))
    flux = true_flux(curve, params["t_0"], params["t_E"], params["f_s"], seen)
    return seen, flux, sky.sigma_flux(flux, params["m_base"])


def report(name, passed):
    """Print the shares that pass, each with its interval. passed : {fit: (n,) bool}."""
    words = []
    for fit, values in passed.items():
        low, high = binomial_interval(int(np.sum(values)), len(values))
        words.append(f"{fit} {np.mean(values):.4f} [{low:.4f}, {high:.4f}]")
    print(f"{name}, n = {len(values)}: best single lens {'; '.join(words)}", flush=True)


def binaries(name, n):
    rng, preset = np.random.default_rng(1), sky.load_preset(name)
    t, passed = sky.epochs(preset.schedule), {fit: [] for fit in FIELDS}
    season = sky.season_length(t)
    while len(passed["with parallax"]) < n:
        params = sky.draw(preset, "binary", rng, season)
        curve = noise_free("binary", params, preset, t, rng)
        for fit, field in FIELDS.items():
            passed[fit].append(fit_noise_free(*curve, fit_start(params), field=field).chi2 > THRESHOLD_PSPL)
    report(f"binaries of {name}", passed)


def running_excess(t, flux, view):
    """chi^2 excess of the running fit after the whole of one noisy light curve: t days, flux (n,)."""
    seen = running.running_view(flux[None], np.diff(t, prepend=t[0])[None], np.array([len(t)]), BLOCK, view)
    return running.CHI2_SCALE * np.sinh(float(running.channels_of(seen, view)[1][0, -1, running.EXCESS]))


def single_lenses(n):
    rng, noise, preset = np.random.default_rng(2), np.random.default_rng(3), sky.load_preset("roman")
    t, passed = sky.epochs(preset.schedule), {fit: [] for fit in (*FIELDS, *RUNNING_FITS)}
    season = sky.season_length(t)
    for _ in range(n):
        params = sky.draw(preset, "pspl", rng, season)
        modulus, direction = 10 ** rng.normal(*DC1_PI_E), rng.uniform(0, 2 * np.pi)
        params |= {"pi_EN": modulus * np.cos(direction), "pi_EE": modulus * np.sin(direction)}
        curve = noise_free("pspl", params, preset, t, rng)
        for fit, field in FIELDS.items():
            passed[fit].append(fit_noise_free(*curve, field=field).chi2 > THRESHOLD_PSPL)
        seen, flux, sigma = curve
        noisy = flux + sigma * noise.normal(size=len(flux))
        for fit, view in RUNNING_FITS.items():
            passed[fit].append(running_excess(seen, noisy, view) > THRESHOLD_PSPL)
    report("single lenses of roman with the parallaxes of DC1's hosts", passed)


def random_starts(p, rng):
    """Single lenses with parallax (RANDOM_STARTS, 6) scattered about p."""
    out = np.tile(p, (RANDOM_STARTS, 1))
    out[:, :2] += rng.normal(size=(RANDOM_STARTS, 2)) * (3.0, 0.7)  # t_0 in days, ln t_E
    out[:, 2] *= rng.choice([-1, 1], RANDOM_STARTS) * np.exp(0.7 * rng.normal(size=RANDOM_STARTS))
    out[:, 3:5] = 0.4 * rng.normal(size=(RANDOM_STARTS, 2))
    out[:, 5] = rng.choice([kernels.POINT, np.log(0.01), np.log(0.05)], RANDOM_STARTS)
    return out


def missed(n):
    rng, chance, preset = np.random.default_rng(21), np.random.default_rng(5), sky.load_preset("roman")
    t, table = sky.epochs(preset.schedule), kernels.b0_table()
    season, better = sky.season_length(t), {"better": [], "on the other side of the threshold": []}
    while len(better["better"]) < n:
        params = sky.draw(preset, "binary", rng, season)
        given = single_lens.trial_start(fit_start(params))
        points = single_lens.noise_free_points(*noise_free("binary", params, preset, t, rng))
        points = single_lens.with_sun(points, preset.field, single_lens.reference_time(points, given))
        bounds = single_lens.season_bounds(points.t)
        best, few, _ = single_lens.fit_curve(points, given, table, bounds)
        if not NEAR[0] < best.fluxes.chi2 < NEAR[1]:
            continue
        chi2 = best.fluxes.chi2
        for p in random_starts(best.p, chance):
            kernels.levenberg_marquardt(few, p, table, single_lens.MANY_STEPS, kernels.bounds_with_parallax(bounds),
                                        single_lens.GAIN)
            chi2 = min(chi2, kernels.fluxes_of(points, p, table).chi2)
        better["better"].append(chi2 < (1 - AGREES) * best.fluxes.chi2)
        sides = {found > THRESHOLD_PSPL for found in (chi2, best.fluxes.chi2)}
        better["on the other side of the threshold"].append(len(sides) == 2)
    report(f"binaries of roman with delta chi^2 of {NEAR[0]} to {NEAR[1]}, {RANDOM_STARTS} random starts", better)


if __name__ == "__main__":
    single_lenses(2000)
    missed(200)
    for name in LENS_PRESETS:
        binaries(name, 1000)
