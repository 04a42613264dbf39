"""make bench: ratios, each pair measured side by side in one run, with the spread over repetitions.

    binary light curve     adaptive nodes against the library at every epoch, both at 1e-3
    prefix output          one forward pass against as many passes as there are prefixes
"""

import time

import numpy as np
import torch

from microlens import magnification
from microlens.model import Classifier
from microlens.population import draw, load_preset


def seconds(function) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def report(name, fast, slow):
    ratio = np.array(slow) / np.array(fast)
    low, middle, high = np.percentile(ratio, [16, 50, 84])
    print(f"{name}: {1e3 * np.mean(fast):.2f} ms against {1e3 * np.mean(slow):.2f} ms; ratio of the means "
          f"{np.mean(slow) / np.mean(fast):.1f}, of a pair {middle:.1f} ({low:.1f} to {high:.1f}), n = {len(ratio)}")


def binaries(n=40):
    t, preset, rng = np.arange(6912) / 96, load_preset("baseline"), np.random.default_rng(0)
    events = [{k: v for k, v in draw(preset, "binary", rng, 72.0).items() if k not in ("f_s", "m_base")} for _ in range(n)]
    magnification.binary(t, **events[0])  # compiles
    pairs = [(seconds(lambda e=e: magnification.binary(t, **e)), seconds(lambda e=e: magnification.binary(t, method="exact", **e)))
             for e in events]
    report("binary light curve of 6912 epochs", *zip(*pairs, strict=True))


def prefixes(n=5, k=20):
    torch.set_num_threads(1)
    c = Classifier().eval()
    flux, delta_t = np.random.default_rng(0).normal(1, 0.01, (1, 6912)), np.full((1, 6912), 1 / 96)
    ends = np.linspace(6912 // k, 6912, k).astype(int)
    pairs = [(seconds(lambda: c.log_prob_prefixes(flux, delta_t)),
              seconds(lambda: [c.log_prob(flux[:, :e], delta_t[:, :e]) for e in ends])) for _ in range(n)]
    report(f"all 6912 prefixes in one pass against {k} passes", *zip(*pairs, strict=True))


if __name__ == "__main__":
    binaries()
    prefixes()
