"""Parts of make bench: what simulating a dataset takes, and what its file's layout and checksum cost."""

import hashlib
import os
import subprocess
import sys
import tempfile
import time
import zlib

import h5py
import numpy as np

from benchmarks.timing import seconds, wall
from microlens import sky
from microlens.config import CLASSES, LENSING_CLASSES, SimulateConfig
from microlens.data.events import make_event, preset_source, true_flux
from microlens.data.format import USER_BLOCK
from microlens.data.simulation import event_stream, simulate
from microlens.fit import observability

T = np.arange(6912) / 96


def simulation(n=150):
    config, preset = SimulateConfig(), sky.load_preset("baseline")
    source = preset_source(preset, "binary", T, config)

    def simulated(i):
        return make_event(source, config, T, event_stream(config, "binary", i), max_draws=1)

    for i in range(20):  # compiles
        simulated(i)
    label = whole = 0.0
    for i in range(20, 20 + n):
        e = simulated(i)
        p, seen = e.params, e.flux != 0
        true = true_flux(e.curve, p["t_0"], p["t_E"], p["f_s"], T)[seen]
        sigma, start = sky.sigma_flux(true, p["m_base"]), (p["t_0"], p["t_E"], p["u_0"])
        label += seconds(lambda t=T[seen], f=true, s=sigma, start=start: observability(t, f, s, True, start))
        whole += seconds(lambda i=i: simulated(i))
    print(f"simulated binary: {1e3 * whole / n:.2f} ms, of which observable labels {1e3 * label / n:.2f} ms "
          f"({label / (whole - label):.2f} of the rest), n = {n}")
    counts = [word for kind in LENSING_CLASSES for word in (f"--n_{kind}", "4000")]
    took = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(3):
            for w in took:  # a process of its own, as from a shell
                command = [sys.executable, "-m", "microlens", "simulate", *counts, "--num_workers", str(w),
                           "--output", f"{folder}/{w}{repeat}.h5"]
                took[w].append(wall(lambda c=command: subprocess.run(c, check=True, capture_output=True)))
    one, two = (12000 / np.median(took[w]) for w in took)
    print(f"simulation: {one:.0f} events/s with one process, {two:.0f} with two, start included: ratio "
          f"{two / one:.2f}, median of 3 runs of 12000 events")


def noise(n=200, repeats=4):
    """CPU time of simulating n events of each class with and without the terms of `sky`: the least of some."""
    counts = {f"n_{kind}": n for kind in CLASSES}
    with tempfile.TemporaryDirectory() as folder:
        for preset in ("baseline", "roman"):
            took = {None: [], "sky": []}
            for repeat in range(repeats):
                for terms, seconds_taken in took.items():
                    path = f"{folder}/{preset}_{terms}_{repeat}.h5"
                    config = SimulateConfig(**counts, binary_preset=preset, noise=terms, num_workers=1, output=path)
                    began = time.process_time()
                    simulate(config, progress=False)
                    seconds_taken.append(time.process_time() - began)
            white, noisy = (1e3 * min(s) / (n * len(CLASSES)) for s in took.values())
            print(f"simulate {preset}: {white:.2f} ms an event with white noise, {noisy:.2f} with sky: "
                  f"{noisy / white:.2f} times, {n} of each class")


def storage(n=1000, batch=128, repeats=5):
    """Bytes and CPU seconds of the flux: as the dataset file has it, and otherwise; and of two checksums."""
    rng = np.random.default_rng(4)
    flux = (1 + 0.01 * rng.normal(size=(n, len(T)))).astype(np.float32)
    flux[rng.random(flux.shape) < 0.05] = 0.0
    megabytes = flux.nbytes / 1e6
    chunks = {"chunks": (8, len(T))}
    layouts = {"contiguous float32 (in use)": {}, "chunks of 8 events": chunks,
               "chunks of 8 events, fletcher32": {**chunks, "fletcher32": True},
               "chunks of 8 events, gzip": {**chunks, "compression": "gzip", "compression_opts": 1, "shuffle": True}}
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/x.h5"

        def write(layout):
            with h5py.File(path, "w", userblock_size=USER_BLOCK) as f:
                f.create_dataset("flux", data=flux, **layout)

        def read_rows(f):
            for row in rng.permutation(n)[:batch]:
                f["flux"][int(row)]

        for name, layout in layouts.items():
            wrote = np.median([seconds(lambda: write(layout)) for _ in range(repeats)])  # noqa: B023  (called here)
            with h5py.File(path) as f:
                read = np.median([seconds(lambda f=f: f["flux"][:]) for _ in range(repeats)])
                rows = np.median([seconds(lambda f=f: read_rows(f)) for _ in range(4 * repeats)])
            print(f"{name}: {os.path.getsize(path) / n / 1e6:.4f} MB/event, write {1e3 * wrote / megabytes:.2f} ms/MB, "
                  f"read whole {1e3 * read / megabytes:.2f} ms/MB, random batch of {batch} {batch / rows:.0f} events/s")
        write({})
        with open(path, "rb") as f:
            content = f.read()
    for name, checksum in (("SHA-256 (in use)", hashlib.sha256), ("crc32", zlib.crc32)):
        took = np.median([seconds(lambda c=checksum: c(content)) for _ in range(repeats)])
        print(f"checksum of the file, {name}: {1e9 * took / len(content):.2f} ms/MB")
