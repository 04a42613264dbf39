"""What the errors that a file reports are worth: light curves of which one epoch in five is three times as noisy.

    python -m benchmarks.reported_errors [NETWORK [N]]      # N single lenses, 400 if left out

N single lenses, N flats and N/4 binaries that an observer can tell from single lenses are simulated with preset roman
and white noise. Then noise and reported error of a share SPOILT of the epochs grow by a factor FACTOR: of single epochs
at random, or of whole stretches of STRETCHES days. Each curve is answered as `microlens classify` does it, and with the
epochs as they are, none joined. It is called binary at the network's own threshold, that of its validation rows; "not
flat" is the class that the command calls. Shares have Clopper-Pearson's intervals at 95 %.
"""

import itertools
import sys
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from benchmarks.calibration import FIRST_EPOCH, with_interval
from benchmarks.sky import changed_preset
from microlens.config import BINARY, CLASSES, FLAT, PSPL, EvaluateConfig, SimulateConfig
from microlens.data import lightcurve, open_dataset, simulate
from microlens.evaluate.light_curves import classify_curve
from microlens.evaluate.thresholds import choose_thresholds
from microlens.network import load_run

SPOILT, FACTOR = 0.2, 3.0
STRETCHES = 0.5, 2.0  # d
SEED = 7


def none_spoilt(time, rng):
    """Which epochs (n,) are spoilt: none."""
    return np.zeros(len(time), dtype=bool)


def single_epochs(time, rng):
    """Which epochs (n,) are spoilt: a share SPOILT of them, each by itself."""
    return rng.random(len(time)) < SPOILT


def stretches(time, rng):
    """Which epochs (n,) are spoilt: those of stretches, until a share SPOILT of them is; time (n,) d."""
    spoilt = np.zeros(len(time), dtype=bool)
    while spoilt.mean() < SPOILT:
        start = rng.uniform(time[0], time[-1])
        spoilt |= (time >= start) & (time < start + rng.uniform(*STRETCHES))
    return spoilt


CONDITIONS = {"none": none_spoilt, "single epochs": single_epochs, "stretches": stretches}
LARGE = {"as they are": np.inf, "joined": lightcurve.LARGE}


def simulated(folder: Path, n: int) -> Path:
    """The dataset of n single lenses, n flats and n/4 observable binaries."""
    preset = changed_preset(folder / "preset.yaml", "roman", {"observable_binaries": True})
    return simulate(SimulateConfig(n_flat=n, n_pspl=n, n_binary=n // 4, binary_preset=str(preset), split="test",
                                   seed=SEED, num_workers=1, output=str(folder / "events.h5")), progress=False)


def spoilt_curves(path: Path, spoilt_of):
    """Yield the light curve of each event, in order; spoilt_of(time, rng) says which epochs are spoilt."""
    with open_dataset(path) as data:
        for row in range(data.n_events):
            rng, flux, error = np.random.default_rng([SEED, row]), data.flux(row), data.sigma(row)
            seen = flux != 0
            time, flux, error = FIRST_EPOCH + data.timestamps[seen], flux[seen].astype(float), error[seen].astype(float)
            growth = np.where(spoilt_of(time, rng), FACTOR, 1.0)
            flux = flux + np.sqrt(growth**2 - 1) * error * rng.normal(size=len(flux))
            yield lightcurve.LightCurve(f"event {row}", time, flux, growth * error, "flux", "BJD")


def main(network="sky", n="400"):
    torch.set_num_threads(1)
    run = load_run(network)
    own = choose_thresholds(run, EvaluateConfig(experiment_name=network, data="none is read", baselines=False))
    with tempfile.TemporaryDirectory() as folder:
        path = simulated(Path(folder), int(n))
        with open_dataset(path) as data:
            labels = data.labels
        print(f"network {run.name}, P(binary) >= {own.whole_curve:.7g}")
        print("| spoilt | epochs | single lenses called binary | flats called binary | observable binaries found "
              "| flats called not flat |")
        print("|---|---|---|---|---|---|")
        for (name, spoilt_of), (what, large) in itertools.product(CONDITIONS.items(), LARGE.items()):
            with mock.patch.object(lightcurve, "LARGE", large):
                rows = [classify_curve(curve, run)[0] for curve in spoilt_curves(path, spoilt_of)]
            called = np.array([row["p_binary"] for row in rows]) >= own.whole_curve
            not_flat = np.array([row["class"] for row in rows]) != CLASSES[FLAT]
            cells = [with_interval(called[labels == c]) for c in (PSPL, FLAT, BINARY)]
            print(f"| {name} | {what} | {' | '.join(cells)} | {with_interval(not_flat[labels == FLAT])} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
