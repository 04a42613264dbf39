"""What the network costs: answers after every epoch, training, inference, streams, the fresh events that train it."""

import tempfile
from functools import partial

import numpy as np
import torch

import microlens
from benchmarks.timing import report, seconds
from microlens.config import FLUX_VIEW, LENSING_CLASSES, SimulateConfig, TrainConfig
from microlens.data import open_dataset, simulate
from microlens.data.fresh import FreshEvents
from microlens.network.loss import N_PREFIXES, loss_parts
from microlens.network.model import Classifier, from_config, n_parameters

N_EPOCHS, CADENCE = 6912, 1 / 96  # of the thesis' season; the cadence in days


def flat_curves(n, seed=0):
    """n noisy flat light curves of a season: flux, delta_t (n, N_EPOCHS) float32."""
    flux = (1 + 0.01 * np.random.default_rng(seed).normal(size=(n, N_EPOCHS))).astype(np.float32)
    return flux, np.full_like(flux, CADENCE)


def thesis_network(stride) -> Classifier:
    """A network of the thesis' width and depth, which reads the flux alone, at another stride."""
    config = TrainConfig(d_model=64, n_layers=4, stem_stride=stride, view=FLUX_VIEW)
    return from_config(config.to_dict()).eval()


def prefixes(n=7, k=100, stride=8):
    """All answers of a season in one pass, against one answer and against k prefixes of their own length."""
    network, (flux, delta_t) = thesis_network(stride), flat_curves(1)
    ends = np.linspace(N_EPOCHS // k, N_EPOCHS, k).astype(int)
    network.log_prob_prefixes(flux, delta_t)
    once = [seconds(lambda: network.log_prob(flux, delta_t)) for _ in range(n)]
    every = [seconds(lambda: network.log_prob_prefixes(flux, delta_t)) for _ in range(n)]
    many = [seconds(lambda: [network.log_prob(flux[:, :e], delta_t[:, :e]) for e in ends]) for _ in range(n)]
    report(f"stride {stride}: one answer, all {N_EPOCHS} answers in one pass", once, every)
    report(f"stride {stride}: all {N_EPOCHS} answers in one pass, {k} prefixes of their own length", every, many)


def training(n=5, batch=16):
    """One optimiser step on `batch` light curves, with the loss on the whole curve and N_PREFIXES prefixes of each."""
    rng, took, shape = np.random.default_rng(3), {8: [], 1: []}, (batch, 1 + N_PREFIXES)
    flux, delta_t = (torch.from_numpy(a) for a in flat_curves(batch))
    labels, weight = torch.from_numpy(rng.integers(0, len(LENSING_CLASSES), shape)), torch.ones(shape)
    networks = {stride: thesis_network(stride).train() for stride in took}
    optimisers = {stride: torch.optim.AdamW(network.parameters()) for stride, network in networks.items()}

    def step(stride):
        steps = torch.from_numpy(rng.integers(1, N_EPOCHS // stride, shape))
        sum(loss_parts(networks[stride](flux, delta_t, steps), labels, weight).values()).backward()
        optimisers[stride].step()
        optimisers[stride].zero_grad()

    step(8)
    for _ in range(n):
        for stride in took:
            took[stride].append(seconds(lambda s=stride: step(s)) / batch)
    for stride, times in took.items():
        print(f"training, width 64, 4 layers, stride {stride}: {1 / np.mean(times):.0f} events/s, "
              f"{n_parameters(networks[stride])} parameters")
    report("training an event at stride 8, at the thesis' stride 1", took[8], took[1])


def light_curves_of(preset: str, n: int):
    """flux, delta_t (n, T) of a preset: half flat, a quarter each single lenses and binaries."""
    with tempfile.TemporaryDirectory() as folder:
        config = SimulateConfig(n_flat=n // 2, n_pspl=n // 4, n_binary=n // 4, num_workers=1, binary_preset=preset,
                                output=f"{folder}/x.h5")
        with open_dataset(simulate(config, progress=False)) as data:
            return data.flux(), data.delta_t()


def inference(n=5, batch=128):
    """Answers of the shipped networks, their fits included, for whole light curves of two presets."""
    thesis, shipped = "the thesis' stride 1", ("baseline", "sky")
    networks = {**{name: microlens.load(name) for name in shipped}, thesis: thesis_network(1)}
    for preset in shipped:
        flux, delta_t = light_curves_of(preset, batch)
        took = {name: [] for name in networks}
        for network in networks.values():
            network.log_prob(flux[:2], delta_t[:2])
        for _ in range(n):
            for name, network in networks.items():
                k = batch // 8 if name == thesis else batch
                took[name].append(seconds(lambda c=network, f=flux[:k], d=delta_t[:k]: c.log_prob(f, d)) / k)
        for name, times in took.items():
            print(f"preset {preset}: {name} answers {1 / np.mean(times):.0f} events/s on one core, n = {n} x {batch}")
        report(f"an answer of network baseline, of network sky, preset {preset}", took["baseline"], took["sky"])
        report(f"an answer of network sky, of the thesis' stride 1, preset {preset}", took["sky"], took[thesis])


def streaming(n=256, n_curves=1000):
    """A stream of many light curves brought up to date by one epoch."""
    network = microlens.load("baseline")
    stream, stride = network.stream(n_curves), network.stem_stride
    flux, delta_t = np.ones(n_curves), np.full(n_curves, CADENCE)
    took = 1e3 * np.array([seconds(lambda: stream.update(flux, delta_t)) for _ in range(n)])
    full = took[stride - 1 :: stride]
    low, high = np.percentile(full, [16, 84])
    print(f"a stream of {n_curves} light curves, one epoch further: median {np.median(took):.2f} ms; where a patch of "
          f"{stride} epochs is full {full.mean():.2f} ms (16 to 84 %: {low:.2f} to {high:.2f}), n = {n}")


def fresh_events(n=60):
    """New light curves of stored trajectories with their labels, for training with --fresh."""
    with tempfile.TemporaryDirectory() as folder:
        config = SimulateConfig(n_flat=n, n_pspl=n, n_binary=n, num_workers=1, output=f"{folder}/x.h5")
        fresh = FreshEvents(simulate(config, progress=False), 0)
        fresh.events(np.arange(3 * n), 0)
        mean = []
        for c in range(len(LENSING_CLASSES)):
            rows = np.flatnonzero(fresh.labels == c)
            mean.append(np.mean([seconds(partial(fresh.events, rows, epoch)) / n for epoch in (1, 2, 3)]))
        words = ", ".join(f"{name} {1e3 * m:.2f} ms" for name, m in zip(LENSING_CLASSES, mean, strict=True))
        print(f"fresh event with its labels: {words}; {len(mean) / sum(mean):.0f} a second, n = {3 * n} x 3")
