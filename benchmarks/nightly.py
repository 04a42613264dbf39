"""What a night of `microlens stream` costs a star: seconds, memory, bytes of the state (docs/scale.md)."""

import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet

import microlens
from benchmarks.timing import seconds
from microlens.config import CLASSES, SimulateConfig, StreamConfig
from microlens.data import open_dataset, simulate
from microlens.evaluate import stream_nights
from microlens.network import load_run

CADENCE, EPOCHS = 12.1 / 1440, 119  # of a Roman field: days, and epochs of a day
EVENTS, DURATION = 0.01, 10.0  # share of the stars with a single lens, far more than in any field; its t_E in days
MEGABYTE = 1e6
STARS = (10_000, 100_000)
LATE_STARS, LATE_NIGHTS = 4000, 30  # a small state far into a season, where the past is kept as averages


def write_night(path, n_stars: int, night: int):
    """A Parquet file of the epochs of one night in the order of time: star, time, flux, error, baseline."""
    rng = np.random.default_rng(night)
    base = np.random.default_rng(0).uniform(1.0, 100.0, n_stars)  # uJy
    lensed = np.arange(n_stars) < EVENTS * n_stars
    t_0 = np.random.default_rng(1).uniform(0.0, 72.0, n_stars)
    names = pyarrow.array([f"star_{k:09d}" for k in range(n_stars)])
    stars = pyarrow.DictionaryArray.from_arrays(np.arange(n_stars, dtype=np.int32), names)
    writer = None
    for epoch in range(night * EPOCHS, (night + 1) * EPOCHS):
        u = np.hypot(0.1, (epoch * CADENCE - t_0) / DURATION)
        magnification = np.where(lensed, (u**2 + 2) / (u * np.sqrt(u**2 + 4)), 1.0)
        error = 0.01 * base * np.sqrt(magnification)
        flux = base * magnification + error * rng.normal(size=n_stars)
        rows = pyarrow.table({"star": stars.cast(pyarrow.string()), "time": np.full(n_stars, 2461450 + epoch * CADENCE),
                              "flux": flux, "error": error, "baseline": base})
        writer = writer or pyarrow.parquet.ParquetWriter(path, rows.schema)
        writer.write_table(rows)
    writer.close()


def stream(folder, night) -> tuple[float, float, float]:
    """CPU seconds, seconds by the clock and peak memory (MB) of a process that takes one night."""
    begun = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "microlens", "stream", "--state", f"{folder}/stars.h5", night],
                               env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"error: microlens stream ended with status {status}.")
    return used.ru_utime + used.ru_stime, time.perf_counter() - begun, used.ru_maxrss * 1024 / MEGABYTE


def nights(n_stars: int, n_nights: int) -> tuple[float, float, float]:
    """What the last of so many nights costs, as stream() gives it; prints it, and the size of the state."""
    with tempfile.TemporaryDirectory() as folder:
        for k in range(n_nights):
            write_night(f"{folder}/night.parquet", n_stars, k)
            cpu, wall, memory = stream(folder, f"{folder}/night.parquet")
        size = Path(folder, "stars.h5").stat().st_size
    print(f"{n_stars} stars, night {n_nights} of {EPOCHS} epochs: {cpu:.1f} s of CPU time, {wall:.1f} s by the clock; "
          f"peak memory {memory:.0f} MB; state {size / n_stars:.0f} bytes a star", flush=True)
    return cpu, wall, memory


def nightly(stars=STARS, late_stars=LATE_STARS, late_nights=LATE_NIGHTS):
    """Two nights of states of two sizes, whose difference is the cost of a star; then nights far into a season."""
    (small, few), (large, many) = ((nights(n, 2), n) for n in stars)
    more, memory = ((large[i] - small[i]) / (many - few) for i in (0, 2))
    print(f"a further star: {1e3 * more:.3f} ms of CPU time and {1e3 * memory:.2f} kB of memory a night; a run by "
          f"itself {small[0] - few * more:.1f} s and {small[2] - few * memory:.0f} MB", flush=True)
    took, run = [], load_run("baseline")
    with tempfile.TemporaryDirectory() as folder:
        for k in range(late_nights):
            write_night(f"{folder}/night.parquet", late_stars, k)
            config = StreamConfig(state=f"{folder}/stars.h5")
            took.append(seconds(partial(stream_nights, [f"{folder}/night.parquet"], config, len, run)))
    print(f"{late_stars} stars in one process: nights {late_nights - 4} to {late_nights} {np.mean(took[-5:]):.2f} s of "
          f"CPU time each, nights 2 to 6 {np.mean(took[1:6]):.2f} s")


def reference_flux(n=150, epochs=(16, 32, 64, 119, 476)):
    """What the answers after a season lose where the reference flux is the median of the first epochs."""
    with tempfile.TemporaryDirectory() as folder:
        config = SimulateConfig(n_flat=2 * n, n_pspl=n, n_binary=n, num_workers=1, split="test",
                                output=f"{folder}/x.h5")
        with open_dataset(simulate(config, progress=False)) as data:
            flux, delta_t, labels = data.flux(), data.delta_t(), data.labels_observable
    network = microlens.load("baseline")
    called = network.log_prob(flux, delta_t).argmax(axis=1)
    print(f"reference flux known: {np.mean(called == labels):.4f} of {len(labels)} light curves called right")
    for k in epochs:
        reference = np.array([np.median(f[f != 0][:k]) for f in flux])
        there = network.log_prob((flux / reference[:, None]).astype(np.float32), delta_t).argmax(axis=1)
        others = ", ".join(f"{np.sum(there[labels == c] != called[labels == c])} of {np.sum(labels == c)} {name}"
                           for c, name in enumerate(CLASSES) if np.any(labels == c))
        print(f"median of {k} epochs, off by {np.median(abs(reference - 1)):.4f} in the median and too large by more "
              f"than 0.1 in {np.mean(reference > 1.1):.3f}: {np.mean(there == labels):.4f} called right; another "
              f"answer for {others}")
