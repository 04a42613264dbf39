"""make bench: ratios, each pair measured side by side in one run, with the spread over repetitions.

    binary light curve     adaptive nodes against the library at every epoch: at equal tolerance, and at its default
    renderer               light curves with noise from stored nodes
    single-lens fit        fits of 6912 noisy epochs; the observable labels against the simulation they belong to
    simulation             events a second with one process and with two
    storage                size, writing and random batches: the layout of the dataset file against gzip throughout
    prefix output          one forward pass against as many passes as there are prefixes
    training, inference    events a second against the thesis' stride 1 at full length
    streaming              one epoch of 1000 light curves
    fresh events           drawing and labelling new light curves of stored trajectories

`python -m tests.bench prefixes training` runs some of them.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial

import numpy as np
import torch

import microlens
from microlens import magnification, survey
from microlens.config import CLASSES, SimulateConfig, TrainConfig
from microlens.fit import fit_single_lens, observability
from microlens.data.fresh import FreshEvents
from microlens.lens.engine import new_engine
from microlens.network.loss import N_PREFIXES, loss_parts
from microlens.network.model import Classifier, from_config, n_parameters
from microlens.sky.population import draw, load_preset
from microlens.data.simulation import event, event_stream, render_event, simulate
from microlens.data.format import ROWS, open_dataset, param_dtype, write_dataset

T = np.arange(6912) / 96


def seconds(function) -> float:
    """CPU seconds of a call; everything here runs in one thread, so what else the machine does counts less than by the clock."""
    start = time.process_time()
    function()
    return time.process_time() - start


def report(name, fast, slow):
    fast, slow = np.array(fast), np.array(slow)
    low, middle, high = np.percentile(slow / fast, [16, 50, 84])
    print(f"{name}: {1e3 * fast.mean():.2f} ms against {1e3 * slow.mean():.2f} ms; ratio of the means "
          f"{slow.mean() / fast.mean():.1f}, of a pair {middle:.1f} ({low:.1f} to {high:.1f}, lowest {(slow / fast).min():.1f}), "
          f"n = {len(fast)}")


def wall(function) -> float:
    """Seconds by the clock: for several processes, and for the disk."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def binaries(n=150):
    preset, rng = load_preset("baseline"), np.random.default_rng(0)
    events = [{k: v for k, v in draw(preset, "binary", rng, 72.0).items() if k not in ("f_s", "m_base")} for _ in range(n)]
    default = new_engine("VBBinaryLensing", 1e-2)
    default.RelTol = 0.0

    def loop(e):
        x, y = magnification.trajectory(T, e["t_0"], e["u_0"], e["t_E"], e["alpha"])
        for a, b in zip(x, y, strict=True):
            default.BinaryMag2(e["s"], e["q"], a, b, e["rho"])

    def whole(e):
        return magnification.nodes(*(e[k] for k in ("u_0", "rho", "s", "q", "alpha")))

    for e in events[:30]:  # compiles
        magnification.binary(T, **e), whole(e)
    timed = [(seconds(lambda e=e: magnification.binary(T, **e)), seconds(lambda e=e: magnification.binary(T, method="exact", **e)),
              seconds(lambda e=e: loop(e)), seconds(lambda e=e: whole(e))) for e in events]
    fast, exact, naive, nodes = zip(*timed, strict=True)
    report("binary light curve, library's loop at Tol = RelTol = 1e-3", fast, exact)
    report("binary light curve, library's loop at its default tolerance", fast, naive)
    report("whole curve as nodes, library's loop at Tol = RelTol = 1e-3", nodes, exact)
    rows = np.arange(5, len(T), 53)
    errors = [np.abs(magnification.binary(T, **e)[rows] / magnification.binary(T[rows], method="exact", tolerance=1e-5, **e) - 1).max()
              for e in events]
    print(f"largest relative error of a curve against contours at 1e-5 (every 53rd epoch): median {np.median(errors):.1e}, "
          f"max {np.max(errors):.1e}, n = {n}")
    renderer([whole(e) for e in events])


def renderer(curves, n=1500):
    rng = np.random.default_rng(3)

    def render(curve):
        render_event(curve, rng.uniform(7, 65), rng.uniform(5, 30), 1.0, rng.uniform(18, 24), T, rng)

    render(curves[0])
    took = [seconds(lambda i=i: render(curves[i % len(curves)])) for i in range(n)]
    print(f"renderer, 6912 epochs with dropout and noise from stored nodes: {1 / np.mean(took):.0f} events/s and core, n = {n}")


def fits(n=200):
    rng = np.random.default_rng(1)
    curves = []
    for _ in range(n):
        flux = magnification.pspl(T, rng.uniform(7, 65), rng.uniform(0.01, 1), rng.uniform(5, 30))
        sigma = survey.sigma_flux(flux, rng.uniform(18, 24))
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


def network(stride, **options) -> Classifier:
    """An untrained network of the thesis' size and view, with another stride and other options."""
    thesis = {"d_model": 64, "n_layers": 4, "dropout": 0.3, "view": "flux"}
    return from_config(TrainConfig().to_dict() | thesis | {"stem_stride": stride} | options).eval()


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
    rng, took, shape = np.random.default_rng(3), {8: [], 1: []}, (batch, 1 + N_PREFIXES)
    flux, delta_t = (torch.from_numpy(a) for a in curves(batch))
    labels, weight = torch.from_numpy(rng.integers(0, 3, shape)), torch.ones(shape)
    networks = {stride: network(stride).train() for stride in took}
    optimisers = {stride: torch.optim.AdamW(c.parameters()) for stride, c in networks.items()}

    def step(stride):
        steps = torch.from_numpy(rng.integers(1, 6912 // stride, shape))
        sum(loss_parts(networks[stride](flux, delta_t, steps), labels, weight).values()).backward()
        optimisers[stride].step()
        optimisers[stride].zero_grad()

    step(8)
    for _ in range(n):
        for stride in took:
            took[stride].append(seconds(lambda s=stride: step(s)) / batch)
    for stride, times in took.items():
        print(f"training, d_model 64, 4 layers, stride {stride}: {1 / np.mean(times):.0f} events/s, "
              f"{n_parameters(networks[stride])} parameters")
    report("training an event at stride 8, at the thesis' stride 1 (wanted: at least 8)", took[8], took[1])


def inference(n=5, batch=128):
    """Whole curves of preset baseline, half flat, a quarter single lenses, a quarter binaries: a fit of an event costs more."""
    with tempfile.TemporaryDirectory() as folder:
        config = SimulateConfig(n_flat=batch // 2, n_pspl=batch // 4, n_binary=batch // 4, num_workers=1, output=f"{folder}/x.h5")
        with open_dataset(simulate(config, progress=False)) as data:
            flux, delta_t = data.flux(slice(None)), data.delta_t(slice(None))
    shipped, thesis = microlens.load(), network(1)
    fast = network(32, d_model=shipped.d_model, n_layers=shipped.gru.num_layers, view="running")
    for c in (shipped, fast):
        c.log_prob(flux[:2], delta_t[:2])
    timed = [(seconds(lambda: shipped.log_prob(flux, delta_t)) / batch,
              seconds(lambda: fast.log_prob(flux, delta_t)) / batch,
              seconds(lambda: thesis.log_prob(flux[:16], delta_t[:16])) / 16) for _ in range(n)]
    shipped_name = f"shipped (stride {shipped.stem_stride}), its fits included"
    names = (shipped_name, "stride 32, its fits included", "thesis, stride 1")
    times = dict(zip(names, zip(*timed, strict=True), strict=True))
    for name, took in times.items():
        print(f"inference, {name}: {1 / np.mean(took):.0f} events/s on one core (lowest {1 / max(took):.0f}), "
              f"n = {n} x {batch}")
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
    parts = {f.__name__: f for f in (binaries, fits, simulation, storage, prefixes, training, inference, streaming, fresh_events)}
    for name in sys.argv[1:] or parts:
        parts[name]()
