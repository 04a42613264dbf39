"""What a calibration on quiet stars is worth under noise that training never saw.

    python -m benchmarks.calibration [NETWORK [N]]      # the tables on standard output; N stars, 400 if left out

For each kind of noise, N quiet stars are simulated with it, written as light-curve files and read as `microlens
calibrate` reads them. Each has single lenses and one binary lens put into it, drawn from the preset of the network's
training. The network's own threshold, that of its validation rows, is applied to all curves. Thresholds for the rates
RATES are chosen on a half of the stars by the functions of the command and applied to the other half, for SPLITS halves
drawn at random: the guarantee is about the mean over these. One half, the first in the order of the folder, is also
scored alone, with Clopper-Pearson's intervals at 95 %, which take the curves of a star as independent.

A binary is observable where it differs from the best single lens by delta chi^2 > 160 under the covariance of the
noise.
"""

import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch

from microlens import sky
from microlens.config import BINARY, CalibrateConfig, EvaluateConfig, SimulateConfig
from microlens.data import open_dataset, simulate, true_flux
from microlens.data.events import make_event, observable_from, preset_source
from microlens.data.photometry import read_photometry
from microlens.evaluate import metrics
from microlens.evaluate.calibration import choose_threshold, season_scores, star_scores
from microlens.evaluate.thresholds import choose_thresholds
from microlens.fit import observable_label
from microlens.network import load_run

NOISES = {
    "white, as trained": "{}",
    "correlated, 0.3 sigma": "{correlated: {amplitude: {constant: 0.3}, time: {constant: 1}}}",
    "correlated, 1 sigma": "{correlated: {amplitude: {constant: 1}, time: {constant: 1}}}",
    "1 % of outliers, 10 sigma": "{outliers: {fraction: {constant: 0.01}, size: {constant: 10}}}",
    "Matern-3/2, 0.3 sigma": "{matern: {amplitude: {constant: 0.3}, time: {constant: 1}}}",
    "random walk, 0.2 sigma a day": "{random_walk: {amplitude: {constant: 0.2}}}",
}
"""Blocks `noise` of a preset file; red_noise, strong_red_noise and outliers are the second to the fourth."""
RATES = (0.01, 0.05)
SPLITS = 200
INJECTIONS = CalibrateConfig().injections
SEED = 7
MOST_DRAWS = 100
FIRST_EPOCH = 2461447.757  # d


def write_stars(folder: Path, noise: Path, preset: str, n: int):
    """Write n quiet stars, each a file of time, flux and error, into the folder."""
    config = SimulateConfig(n_flat=n, n_pspl=0, n_binary=0, binary_preset=preset, noise=str(noise), split="test",
                            seed=SEED, num_workers=1, output=f"{folder}.h5")
    folder.mkdir()
    with open_dataset(simulate(config, progress=False)) as data:
        for row in range(n):
            flux, error = data.flux(row), data.sigma(row)
            seen = flux != 0
            columns = np.column_stack([FIRST_EPOCH + data.timestamps, flux, error])[seen]
            np.savetxt(folder / f"star_{row:04d}.dat", columns, "%.6f", header="BJD flux flux_err")


def binaries(network, stars, preset: sky.Preset) -> tuple[np.ndarray, np.ndarray]:
    """The scores (S,) of one binary lens in each of S quiet seasons, and whether each is observable, (S,) bool."""
    rng, config, found, observable = np.random.default_rng(SEED), SimulateConfig(), [], []
    field = preset.field if preset.has_parallax else None
    for star in stars:
        event = make_event(preset_source(preset, "binary", star.time, config), config, star.time, rng, MOST_DRAWS, star)
        p = event.params
        flux = true_flux(event.curve, p["t_0"], p["t_E"], p["f_s"], star.time)
        known = observable_from("binary", p, star.time, flux, config, field, sky.draw_terms(preset.noise, rng),
                                event.error)
        observable.append(observable_label([BINARY], [known.delta_chi2_flat], [known.delta_chi2_pspl])[0] == BINARY)
        found.append(season_scores(network, star, [(event.flux, event.error)]))
    return np.concatenate(found), np.array(observable)


def rates(by_kind: dict, binary, observable, stars, threshold: float) -> np.ndarray:
    """Shares of single lenses, of quiet seasons and of observable binaries among the stars (k,) that reach a
    threshold."""
    seen = binary[stars][observable[stars]]
    return np.array([(by_kind["pspl"][stars] >= threshold).mean(), (by_kind["flat"][stars] >= threshold).mean(),
                     (seen >= threshold).mean()])


def with_interval(reach) -> str:
    """A share of reach (n,) bool with its interval, in words."""
    share = metrics.share(int(reach.sum()), reach.size)
    low, high = share["interval_95"]
    return f"{share['value']:.3f} [{low:.3f}, {high:.3f}]"


def row(name: str, by_kind: dict, binary, observable, stars, threshold: float):
    """Print the shares of single lenses, quiet seasons and observable binaries that reach a threshold."""
    seen = binary[stars][observable[stars]]
    cells = [with_interval(values >= threshold) for values in (by_kind["pspl"][stars], by_kind["flat"][stars], seen)]
    print(f"| {name} | {threshold:.7g} | {' | '.join(cells)} |")


def report(what: str, frozen: float, by_kind: dict, binary, observable):
    """Print the table of one score: the frozen threshold, and those of calibrations.

    by_kind : scores (S, k) of S stars.   binary : scores (S,).   observable : (S,) bool.
    """
    n, half, rng = len(binary), len(binary) // 2, np.random.default_rng(SEED)
    print_row = partial(row, by_kind=by_kind, binary=binary, observable=observable)
    print(f"\n| {what} | P(binary) >= | single lenses | quiet seasons | {observable.sum()} observable binaries |")
    print("|---|---|---|---|---|")
    print_row("own threshold, all stars", stars=np.arange(n), threshold=frozen)
    for rate in RATES:
        def threshold(stars, rate=rate):
            return choose_threshold({kind: scores[stars] for kind, scores in by_kind.items()}, stars, rate)

        first = np.arange(n)
        print_row(f"calibrated for {rate:g}, one half", stars=first[half:], threshold=threshold(first[:half]))
        orders = [rng.permutation(n) for _ in range(SPLITS)]
        shares = np.array([rates(by_kind, binary, observable, order[half:], threshold(order[:half]))
                           for order in orders])
        low, high = np.percentile(shares, [5, 95], axis=0)
        cells = [f"{m:.4f} ({a:.3f} to {b:.3f})" for m, a, b in zip(shares.mean(axis=0), low, high, strict=True)]
        print(f"| calibrated for {rate:g}, mean of {SPLITS} (5 to 95 %) | | {' | '.join(cells)} |", flush=True)


def main(network="baseline", n="400"):
    torch.set_num_threads(1)
    run = load_run(network)
    own = choose_thresholds(run, EvaluateConfig(experiment_name=network, data="none is read", baselines=False))
    preset_name = run.data["config"]["binary_preset"]
    with tempfile.TemporaryDirectory() as place:
        for number, (name, terms) in enumerate(NOISES.items()):
            noise = Path(place, f"{number}.yaml")
            noise.write_text(f"noise: {terms}\n")
            write_stars(Path(place, str(number)), noise, preset_name, int(n))
            stars = read_photometry(str(Path(place, str(number))), "quick").seasons
            preset = sky.load_preset(preset_name, noise)
            scores = star_scores(run.network, stars, preset, INJECTIONS, SEED, progress=False)
            binary, observable = binaries(run.network, stars, preset)
            print(f"\n{name}: {len(stars)} quiet stars, network {run.name}, preset {preset_name}")
            for what, kind in (("whole curves", "whole_curve"), ("alerts", "alert")):
                by_kind = {c: of[kind] for c, of in scores.items()}
                report(what, getattr(own, kind), by_kind, binary[kind], observable)


if __name__ == "__main__":
    main(*sys.argv[1:])
