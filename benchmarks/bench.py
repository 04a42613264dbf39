"""make bench: ratios, each pair measured side by side in one run, with the spread over repetitions.

    light curves           adaptive nodes against the library at every epoch: at equal tolerance, and at its default; what
                           the expansion away from caustics is worth
    renderer               light curves with noise from stored nodes
    single-lens fit        fits of 6912 noisy epochs; the observable labels against the simulation they belong to
    simulation             events a second with one process and with two
    storage                size, writing and random batches: the layout of the dataset file against gzip throughout
    prefix output          one forward pass against as many passes as there are prefixes
    training, inference    events a second against the thesis' stride 1 at full length
    streaming              one epoch of 1000 light curves
    fresh events           drawing and labelling new light curves of stored trajectories

`python -m benchmarks.bench light_curves` runs one of them.
"""

import json
import os
import subprocess
import sys
import tempfile
from functools import partial

import numpy as np
import torch

import microlens
from benchmarks.light_curves import light_curves
from benchmarks.timing import report, seconds, wall
from microlens import lens, sky
from microlens.config import CLASSES, SimulateConfig, TrainConfig
from microlens.data.format import ROWS, open_dataset, param_dtype, write_dataset
from microlens.data.fresh import FreshEvents
from microlens.data.simulation import event, event_stream, simulate
from microlens.fit import fit_single_lens, observability
from microlens.network.model import Classifier, loss_parts, n_flops, n_parameters
from microlens.network.training import N_PREFIXES, matmul_rate
from microlens.sky.population import load_preset

T = np.arange(6912) / 96


def fits(n=200):
    rng = np.random.default_rng(1)
    curves = []
    for _ in range(n):
        flux = lens.pspl(T, rng.uniform(7, 65), rng.uniform(0.01, 1), rng.uniform(5, 30))
        sigma = sky.sigma_flux(flux, rng.uniform(18, 24))
        curves.append((flux + sigma * rng.normal(size=len(T)), sigma))
    for finite in (False, True):
        fit_single_lens(T, *curves[0], finite_source=finite)  # compiles
        took = [seconds(lambda c=c, f=finite: fit_single_lens(T, *c, finite_source=f)) for c in curves]
        print(f"single-lens fit of 6912 epochs{', PSPL and FSPL' if finite else ', PSPL'}: {1 / np.mean(took):.0f} a second, "
              f"median {1e3 * np.median(took):.2f} ms, n = {n}")


def simulation(n=150):
    config, preset = SimulateConfig(), load_preset("baseline")
    label = magnify = 0.0
    for i in range(-20, n):
        e = event(config, preset, "binary", event_stream(config, "binary", i + 20), T, 1)
        if i < 0:
            continue  # compiles
        seen, p = e.flux != 0, e.params
        label += seconds(lambda e=e, seen=seen, p=p: observability(T[seen], e.flux_true[seen], e.sigma[seen], True,
                                                               (p["t_0"], p["t_E"], p["u_0"])))
        magnify += seconds(lambda i=i: event(config, preset, "binary", event_stream(config, "binary", i + 20), T, 1))
    print(f"simulated binary: {1e3 * magnify / n:.2f} ms, of which observable labels {1e3 * label / n:.2f} ms "
          f"({label / (magnify - label):.2f} of the rest), n = {n}")
    with tempfile.TemporaryDirectory() as folder:
        for how in ([], ["--virtual"]):
            took = {w: [] for w in (1, 2)}
            for repeat in range(3):
                for w in took:  # a process of its own, as from a shell: workers import again what the main program imports
                    counts = [word for kind in ("flat", "pspl", "binary") for word in (f"--n_{kind}", "4000")]
                    command = [sys.executable, "-m", "microlens", "simulate", *counts, *how, "--num_workers", str(w),
                               "--output", f"{folder}/{w}{repeat}{len(how)}.h5"]
                    took[w].append(wall(lambda c=command: subprocess.run(c, check=True, capture_output=True)))
            one, two = (12000 / np.median(took[w]) for w in took)
            print(f"simulation, {'shards as they are (--virtual)' if how else 'shards joined in one file'}: {one:.0f} events/s with "
                  f"one process, {two:.0f} with two, start included: ratio {two / one:.2f}, median of 3 runs of 12000 events")


def storage(n=1000, batch=128, repeats=5):
    """Bytes and speed of the flux: contiguous float32 as the dataset file has it, against chunked gzip."""
    rng = np.random.default_rng(4)
    flux = (1 + 0.01 * rng.normal(size=(n, len(T)))).astype(np.float32)
    flux[rng.random(flux.shape) < 0.05] = 0.0
    rows = {name: np.zeros(n) for name in ROWS}
    params = {kind: np.zeros(n if kind == "flat" else 0, param_dtype(kind)) for kind in ("flat", "pspl", "binary")}
    attrs = {"config": json.dumps({"detector": "roman", "noise_scale": 1.0})}
    with tempfile.TemporaryDirectory() as folder:
        for name, compressed in (("contiguous float32 (the layout in use)", False), ("gzip, chunks of 8 events", True)):
            path = f"{folder}/{compressed}.h5"
            wrote = [wall(lambda p=path, c=compressed: write_dataset(p, timestamps=T, flux=flux, rows=rows, params=params,
                                                                         attrs=attrs, compress_flux=c)) for _ in range(repeats)]
            with open_dataset(path) as d:
                read = [wall(lambda d=d: d.flux(rng.permutation(n)[:batch])) for _ in range(4 * repeats)]
            size = os.path.getsize(path)
            print(f"{name}: {size / n / 1e6:.4f} MB/event, write {n / np.median(wrote):.0f} events/s "
                  f"({flux.nbytes / np.median(wrote) / 1e6:.0f} MB/s), batch of {batch}: {batch / np.median(read):.0f} events/s "
                  f"({4e-6 * batch * len(T) / np.median(read):.0f} MB/s)")


def curves(n, seed=0):
    """n noisy flat curves of 6912 epochs: flux, delta_t (n, 6912) float32."""
    flux = (1 + 0.01 * np.random.default_rng(seed).normal(size=(n, 6912))).astype(np.float32)
    return flux, np.full_like(flux, 1 / 96)


def network(stride) -> Classifier:
    return Classifier(d_model=64, n_layers=4, stem_stride=stride).eval()


def prefixes(n=7, k=100, stride=8):
    c, (flux, delta_t) = network(stride), curves(1)
    ends = np.linspace(6912 // k, 6912, k).astype(int)
    c.log_prob_prefixes(flux, delta_t)
    timed = [(seconds(lambda: c.log_prob(flux, delta_t)), seconds(lambda: c.log_prob_prefixes(flux, delta_t)),
              seconds(lambda: [c.log_prob(flux[:, :e], delta_t[:, :e]) for e in ends])) for _ in range(n)]
    once, every, many = zip(*timed, strict=True)
    report(f"stride {stride}: one pass for the last epoch alone, one pass for all 6912 (wanted: a ratio of at most 1.5)", once, every)
    report(f"stride {stride}: all 6912 prefixes in one pass, {k} prefixes of their true length (wanted: at least 30)", every, many)


def training(n=5, batch=16):
    """One optimiser step on `batch` events of 6912 epochs, with the loss on the whole curve and N_PREFIXES prefixes."""
    config, rng, took, shape = TrainConfig(), np.random.default_rng(3), {8: [], 1: []}, (batch, 1 + N_PREFIXES)
    flux, delta_t = (torch.from_numpy(a) for a in curves(batch))
    labels, weight = torch.from_numpy(rng.integers(0, 3, shape)), torch.ones(shape)
    networks = {stride: network(stride).train() for stride in took}
    optimisers = {stride: torch.optim.AdamW(c.parameters()) for stride, c in networks.items()}

    def step(stride):
        steps = torch.from_numpy(rng.integers(1, 6912 // stride, shape))
        sum(loss_parts(networks[stride](flux, delta_t, steps), labels, weight, config).values()).backward()
        optimisers[stride].step()
        optimisers[stride].zero_grad()

    step(8)
    for _ in range(n):
        for stride in took:
            took[stride].append(seconds(lambda s=stride: step(s)) / batch)
    limit = matmul_rate(torch.device("cpu"), torch.float32)
    for stride, times in took.items():
        flops = 3 * n_flops(networks[stride], 6912, shape[1])
        print(f"training, d_model 64, 4 layers, stride {stride}: {1 / np.mean(times):.0f} events/s, {n_parameters(networks[stride])} "
              f"parameters, {flops:.3g} FLOP an event, {flops / np.mean(times) / limit:.0%} of the matrix-product rate")
    report("training an event at stride 8, at the thesis' stride 1 (wanted: at least 8)", took[8], took[1])


def inference(n=5, batch=128):
    """Whole curves of preset baseline, half flat, a quarter single lenses, a quarter binaries: a fit of an event costs more."""
    with tempfile.TemporaryDirectory() as folder:
        config = SimulateConfig(n_flat=batch // 2, n_pspl=batch // 4, n_binary=batch // 4, num_workers=1, output=f"{folder}/x.h5")
        with open_dataset(simulate(config, progress=False)) as data:
            flux, delta_t = data.flux(slice(None)), data.delta_t(slice(None))
    shipped, thesis = microlens.load(), network(1)
    fast = Classifier(d_model=shipped.d_model, n_layers=shipped.gru.num_layers, stem_stride=32, view="running").eval()
    for c in (shipped, fast):
        c.log_prob(flux[:2], delta_t[:2])
    timed = [(seconds(lambda: shipped.log_prob(flux, delta_t)) / batch, seconds(lambda: fast.log_prob(flux, delta_t)) / batch,
              seconds(lambda: thesis.log_prob(flux[:16], delta_t[:16])) / 16) for _ in range(n)]
    names = (f"shipped (stride {shipped.stem_stride}), its fits included", "stride 32, its fits included", "thesis, stride 1")
    times = dict(zip(names, zip(*timed, strict=True), strict=True))
    for name, took in times.items():
        print(f"inference, {name}: {1 / np.mean(took):.0f} events/s on one core (lowest {1 / max(took):.0f}), n = {n} x {batch}")
    report("inference of an event, shipped network, the thesis' stride 1", *list(times.values())[::2])


def streaming(n=256):
    c = microlens.load()
    stream, stride, ones, steps = c.stream(1000), c.stem_stride, np.ones(1000), np.full(1000, 1 / 96)
    took = 1e3 * np.array([seconds(lambda: stream.update(ones, steps)) for _ in range(n)])
    full = took[stride - 1 :: stride]
    print(f"streaming update of 1000 light curves by one epoch (wanted: below 5 ms): mean {took.mean():.2f} ms, median "
          f"{np.median(took):.2f} ms; where a patch of {stride} epochs is full {full.mean():.2f} ms (16 to 84 %: "
          f"{np.percentile(full, 16):.2f} to {np.percentile(full, 84):.2f}), n = {n}")


def fresh_events(n=60):
    with tempfile.TemporaryDirectory() as folder:
        path = simulate(SimulateConfig(n_flat=n, n_pspl=n, n_binary=n, num_workers=1, output=f"{folder}/x.h5"), progress=False)
        for observable in (False, True):
            fresh = FreshEvents(path, 0, observable=observable)
            fresh.events(np.arange(3 * n), 0)
            mean = [np.mean([seconds(partial(fresh.events, np.flatnonzero(fresh.labels == c), epoch)) / n for epoch in (1, 2, 3)])
                    for c in range(3)]
            words = ", ".join(f"{name} {1e3 * m:.2f} ms" for name, m in zip(CLASSES, mean, strict=True))
            print(f"fresh event{' with its labels' if observable else ''}: {words}; {3 / sum(mean):.0f} a second, n = {3 * n} x 3")


if __name__ == "__main__":
    torch.set_num_threads(1)
    parts = {f.__name__: f for f in (light_curves, fits, simulation, storage, prefixes, training, inference, streaming, fresh_events)}
    for name in sys.argv[1:] or parts:
        parts[name]()
