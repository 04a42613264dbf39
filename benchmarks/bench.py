"""make bench: ratios, each pair measured side by side in one run, with the spread over repetitions.

    light_curves           a binary light curve against the lens library at every epoch; what the expansion is worth;
                           rendering
    fits, running_fits     single-lens fits of 6912 noisy epochs; what a path that may bend costs the running fit
    simulation, storage    events a second, the cost of the labels, the layout of the dataset file, its checksum
    noise                  what the terms of noise beside white noise cost, labels included
    prefixes               one forward pass against as many passes as there are prefixes
    training, inference    events a second against the thesis' stride 1 at full length; network sky beside baseline
    streaming              one epoch of 1000 light curves
    nightly                `microlens stream`: 100,000 stars, two nights: seconds and memory a star (docs/scale.md)
    reference_flux         answers where the reference flux is the median of the first epochs
    fresh_events           new light curves of stored trajectories

`python -m benchmarks.bench prefixes training` runs some of them.
"""

import sys

import torch

from benchmarks.datasets import noise, simulation, storage
from benchmarks.fits import fits, running_fits
from benchmarks.light_curves import light_curves
from benchmarks.networks import fresh_events, inference, prefixes, streaming, training
from benchmarks.nightly import nightly, reference_flux

PARTS = {f.__name__: f for f in (light_curves, fits, running_fits, simulation, noise, storage, prefixes, training,
                                 inference, streaming, nightly, reference_flux, fresh_events)}

if __name__ == "__main__":
    torch.set_num_threads(1)
    unknown = sorted(set(sys.argv[1:]) - set(PARTS))
    if unknown:
        sys.exit(f"error: no part {', '.join(unknown)}; there are {', '.join(PARTS)}.")
    for name in sys.argv[1:] or PARTS:
        PARTS[name]()
