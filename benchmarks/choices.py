"""make choices: one change at a time to a small network, all on the same events and passes, scored on other events.

    python -m benchmarks.choices [FOLDER [CHOICE...]]     # figures/choices.csv, and a table on standard output

Named choices, by how their names begin, are made again and the others kept as they are in the table.

Small data and few passes rank the options on one protocol; they do not say what each reaches in the end. A threshold is
chosen on the validation rows. Costs are CPU time of one core: training an event (forward, backward, step), and
answering for one, fits included.
"""

import contextlib
import json
import sys
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import torch

from microlens.config import BINARY, RUNNING_VIEW, SimulateConfig, TrainConfig
from microlens.data import PackedDataset, open_dataset, simulate
from microlens.data.packed import class_mix
from microlens.evaluate import metrics
from microlens.fit.running import PHOTONS, channels_of
from microlens.network import Classifier, load_run, loss, runs, training
from microlens.network.model import from_config
from microlens.network.predict import predict

BASE = {"view": "running", "d_model": 48, "n_layers": 2, "stem_stride": 16, "dropout": 0.1, "batch_size": 64,
        "epochs": 5, "seed": 1, "save_every": 0}
TABLE = Path(__file__).parents[1] / "figures" / "choices.csv"
N_TRAIN = {"n_flat": 800, "n_pspl": 1600, "n_binary": 1600}
N_TEST = {"n_flat": 2000, "n_pspl": 1000, "n_binary": 1000}
SEED = 30
ANSWERED = 256  # light curves that an answer is timed on, fits included
PURITIES = (0.9, 0.95)


class LogFeatures(Classifier):
    """Magnitudes in place of the flux on asinh scales, which lose what noise makes negative."""

    def raw_features(self, flux, delta_t, own=None):
        magnitude = torch.log(flux.clamp_min(0.01))
        out = torch.stack([100 * magnitude, magnitude, torch.log1p(delta_t * 96.0)], dim=2)
        return torch.cat([out, own], dim=2)


class NoNoise(Classifier):
    """Without the estimate of the noise in the running view."""

    def set_scaling(self, flux, delta_t, lengths, extra=None):
        super().set_scaling(flux, delta_t, lengths, without_noise(extra))

    def patches(self, flux, delta_t, extra=None):
        return super().patches(flux, delta_t, without_noise(extra))


def without_noise(extra):
    """The running view (n, L, k) with zeros for the estimate of the noise."""
    extra = extra.clone()
    channels_of(extra, RUNNING_VIEW)[1][..., PHOTONS] = 0.0
    return extra


# Changes to BASE; `network` is a class of its own, `share` the share of the training events, `prefixes` how many of
# each light curve are asked about.
CHOICES = {
    "running view, stride 16, width 48, 2 layers": {},
    "flux view": {"view": "flux"},
    "log flux instead of asinh": {"network": LogFeatures},
    "no noise channel": {"network": NoNoise},
    "stride 8": {"stem_stride": 8},
    "stride 32": {"stem_stride": 32},
    "no prefixes": {"prefixes": 0},
    "simulated labels, no prefixes": {"labels": "simulated"},
    "4 layers": {"n_layers": 4},
    "width 32": {"d_model": 32},
    "mean pooling": {"attention_pooling": False},
    "flat head": {"hierarchical": False},
    "no auxiliary head": {"use_aux_head": False},
    "thesis: flux view, stride 1, width 64, 4 layers, simulated labels, half of the events once": {
        "view": "flux", "stem_stride": 1, "d_model": 64, "n_layers": 4, "dropout": 0.3, "labels": "simulated",
        "epochs": 1, "share": 0.5, "warmup_epochs": 0.3},
}


def run_name(name):
    """The name of the run of a choice: letters, digits and _ alone."""
    return "choice_" + "".join(c if c.isalnum() else "_" for c in name)[:60]


@contextlib.contextmanager
def network_class(kind):
    """Let runs be trained and read as networks of the class `kind`."""
    def made(config):
        network = from_config(config)
        network.__class__ = kind  # the same weights, other features
        return network

    with mock.patch.object(training, "from_config", made), mock.patch.object(runs, "from_config", made):
        yield


def training_file(folder, share):
    """A dataset of this share of the training events."""
    events = {kind: round(share * n) for kind, n in N_TRAIN.items()}
    return simulate(SimulateConfig(**events, seed=SEED, output=str(folder / f"train_{share:g}.h5")))


def seconds_an_answer(network, test):
    """CPU seconds that a network needs for one light curve, from its flux to its answer."""
    with open_dataset(test) as data:
        rows = slice(None, None, max(1, data.n_events // ANSWERED))
        flux, delta_t = data.flux(rows), data.delta_t(rows)
    begun = time.process_time()
    network.log_prob(flux, delta_t)
    return (time.process_time() - begun) / len(flux)


def score(name, changes, folder, test):
    """Train one choice and score it; a row of the table."""
    options = {**BASE, **changes}
    n_prefixes = options.pop("prefixes", loss.N_PREFIXES)
    kind, path = options.pop("network", Classifier), training_file(folder, options.pop("share", 1.0))
    config = TrainConfig(data=str(path), experiment_name=run_name(name), **options)
    # packed and fitted before the clock starts
    data, held = (PackedDataset(p, config.view, config.stem_stride) for p in (path, test))
    with network_class(kind), mock.patch.object(loss, "N_PREFIXES", n_prefixes):
        begun = time.process_time()
        training.train(config)
        spent = time.process_time() - begun
        run = load_run(config.experiment_name)
    log_p = predict(run.network, held, np.arange(held.n_events))
    seen = held.labels_observable == BINARY
    row = {"choice": name, "parameters": sum(p.numel() for p in run.network.parameters()),
           "training, ms an event": 1e3 * spent / (config.epochs * len(run.rows["train"])),
           "answer, ms an event": 1e3 * seconds_an_answer(run.network, test), "n_test": held.n_events,
           "n_observable": int(seen.sum())}
    val = run.rows["val"]
    tuned, known = np.exp(predict(run.network, data, val)[:, BINARY].astype(float)), data.labels[val]
    p, weight = np.exp(log_p[:, BINARY].astype(float)), class_mix(held.labels)
    for purity in PURITIES:
        cut = metrics.operating_threshold(known, tuned, class_mix(known), purity, false_alarms=1.0)
        made = metrics.completeness_purity(held.labels, held.labels_observable, p, weight, cut)
        row |= {f"completeness at {purity:g}": made["completeness_observable"],
                f"purity reached at {purity:g}": made["purity"]}
    row["average precision"] = metrics.average_precision(seen, p, weight)
    return row


def main(folder="data/choices", *named):
    """Make and score all choices, or the named ones, in `folder`; write and print the table."""
    folder = Path(folder)
    torch.set_num_threads(1)
    test = simulate(SimulateConfig(**N_TEST, seed=SEED, split="test", output=str(folder / "test.h5")))
    rows = {row["choice"]: row for row in pd.read_csv(TABLE).to_dict("records")} if named else {}
    for name, changes in CHOICES.items():
        if named and not name.startswith(named):
            continue
        kept = folder / f"{run_name(name)}.json"  # an interrupted comparison goes on where it was
        if not kept.exists():
            kept.write_text(json.dumps(score(name, changes, folder, test)))
        rows[name] = json.loads(kept.read_text())
    table = pd.DataFrame([rows[name] for name in CHOICES if name in rows])
    table.to_csv(TABLE, index=False, float_format="%.4g")
    print(table.to_string(index=False, float_format=lambda x: f"{x:.3g}"))


if __name__ == "__main__":
    main(*sys.argv[1:])
