"""make bench: ratios, each pair measured side by side in one run, with the spread over repetitions.

    binary light curve     adaptive nodes against the library at every epoch: at equal tolerance, and at its default
    single-lens fit        fits of 6912 noisy epochs
    prefix output          one forward pass against as many passes as there are prefixes
    network                shipped networks against the thesis' stride 1; a streaming update of 1000 light curves
"""

import time

import numpy as np
import torch

import microlens
from microlens import magnification, survey
from microlens.detectability import fit_single_lens
from microlens.magnification.engine import new_engine
from microlens.model import Classifier
from microlens.population import draw, load_preset

T = np.arange(6912) / 96


def seconds(function) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def report(name, fast, slow):
    fast, slow = np.array(fast), np.array(slow)
    low, middle, high = np.percentile(slow / fast, [16, 50, 84])
    print(f"{name}: {1e3 * fast.mean():.2f} ms against {1e3 * slow.mean():.2f} ms; ratio of the means "
          f"{slow.mean() / fast.mean():.1f}, of a pair {middle:.1f} ({low:.1f} to {high:.1f}, lowest {(slow / fast).min():.1f}), "
          f"n = {len(fast)}")


def binaries(n=100):
    preset, rng = load_preset("baseline"), np.random.default_rng(0)
    events = [{k: v for k, v in draw(preset, "binary", rng, 72.0).items() if k not in ("f_s", "m_base")} for _ in range(n)]
    magnification.binary(T, **events[0])  # compiles
    default = new_engine("VBBinaryLensing", 1e-2)
    default.RelTol = 0.0

    def loop(e):
        x, y = magnification.trajectory(T, e["t_0"], e["u_0"], e["t_E"], e["alpha"])
        for a, b in zip(x, y, strict=True):
            default.BinaryMag2(e["s"], e["q"], a, b, e["rho"])

    timed = [(seconds(lambda e=e: magnification.binary(T, **e)), seconds(lambda e=e: magnification.binary(T, method="exact", **e)),
              seconds(lambda e=e: loop(e))) for e in events]
    fast, exact, naive = zip(*timed, strict=True)
    report("binary light curve, library's loop at Tol = RelTol = 1e-3", fast, exact)
    report("binary light curve, library's loop at its default tolerance", fast, naive)


def fits(n=200):
    rng = np.random.default_rng(1)
    curves = []
    for _ in range(n):
        flux = magnification.pspl(T, rng.uniform(7, 65), rng.uniform(0.01, 1), rng.uniform(5, 30))
        sigma = survey.sigma_flux(flux, rng.uniform(18, 24))
        curves.append((flux + sigma * rng.normal(size=len(T)), sigma))
    fit_single_lens(T, *curves[0])
    for finite in (False, True):
        took = [seconds(lambda c=c, f=finite: fit_single_lens(T, *c, finite_source=f)) for c in curves]
        print(f"single-lens fit of 6912 epochs{', PSPL and FSPL' if finite else ', PSPL'}: {1 / np.mean(took):.0f} a second, "
              f"median {1e3 * np.median(took):.2f} ms, n = {n}")


def prefixes(n=5, k=100):
    c = Classifier().eval()
    flux, delta_t = np.random.default_rng(0).normal(1, 0.01, (1, 6912)), np.full((1, 6912), 1 / 96)
    ends = np.linspace(6912 // k, 6912, k).astype(int)
    once = [seconds(lambda: c.log_prob(flux, delta_t)) for _ in range(n)]
    every = [seconds(lambda: c.log_prob_prefixes(flux, delta_t)) for _ in range(n)]
    many = [seconds(lambda: [c.log_prob(flux[:, :e], delta_t[:, :e]) for e in ends]) for _ in range(n)]
    report("all 6912 prefixes in one pass, one pass for the last alone", once, every)
    report(f"all 6912 prefixes in one pass, {k} passes", every, many)


def networks(n=128):
    rng = np.random.default_rng(2)
    flux, delta_t = (1 + 0.01 * rng.normal(size=(n, 6912))).astype(np.float32), np.full((n, 6912), 1 / 96, np.float32)
    error = np.full_like(flux, 0.01)
    shipped, thesis = microlens.load(), Classifier(d_model=64, n_layers=4, stem_stride=1).eval()
    rate = {"shipped, causal": n / seconds(lambda: shipped.log_prob(flux, delta_t)),
            "shipped, whole season with its fit": n / seconds(lambda: shipped.log_prob(flux, delta_t, flux_err=error)),
            "thesis' network, stride 1": 16 / seconds(lambda: thesis.log_prob(flux[:16], delta_t[:16]))}
    for name, value in rate.items():
        print(f"inference, {name}: {value:.0f} events/s on one core")
    stream = shipped.stream(1000)
    took = [seconds(lambda: stream.update(np.ones(1000), np.full(1000, 1 / 96))) for _ in range(64)]
    print(f"streaming update of 1000 light curves by one epoch: mean {1e3 * np.mean(took):.2f} ms, median "
          f"{1e3 * np.median(took):.2f} ms")


if __name__ == "__main__":
    torch.set_num_threads(1)
    binaries()
    fits()
    prefixes()
    networks()
