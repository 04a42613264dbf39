"""make choices: one change at a time to a small network, all on the same events and passes, scored on other events.

    python -m tests.choices [FOLDER [CHOICE...]]     # figures/choices.csv, and a table for the README on standard output

Named choices, by how their names begin, are made again and the others kept as they are in the table.

Small data and few passes rank the options on one protocol; they do not say what each reaches in the end. A threshold is chosen on
the validation rows. Costs are CPU time of one core: training an event (forward, backward, step), and answering for one, fits included.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from microlens import metrics
from microlens.config import SimulateConfig, TrainConfig
from microlens.data.format import open_dataset
from microlens.data.packed import PackedDataset
from microlens.data.simulation import simulate
from microlens.network.model import Classifier
from microlens.network.predict import predict
from microlens.network.runs import load_run
from microlens.network.training import train

BASE = {"view": "running", "d_model": 48, "n_layers": 2, "stem_stride": 16, "dropout": 0.1, "batch_size": 64, "epochs": 5, "seed": 1,
        "prefix_weight": 1.0, "save_every": 0}
ANSWERED = 256  # light curves that an answer is timed on, fits included
SEASON = {"view": "residual", "prefix_weight": 0.0}
CHOICES = {
    "running view, stride 16, width 48, 2 layers": {},
    "flux view": {"view": "flux"},
    "residual view (whole season)": SEASON,
    "log flux instead of asinh": {"features": "log"},
    "no noise channel": {"features": "no noise"},
    "stride 8": {"stem_stride": 8},
    "stride 32": {"stem_stride": 32},
    "no prefixes": {"prefix_weight": 0.0},
    "simulated labels, no prefixes": {"labels": "simulated", "prefix_weight": 0.0},
    "4 layers": {"n_layers": 4},
    "width 32": {"d_model": 32},
    "mean pooling": {"attention_pooling": False},
    "flat head": {"hierarchical": False},
    "no auxiliary head": {"use_aux_head": False},
    "an average of the weights (decay 0.98 a step)": {"ema": 0.98},
    "compiled (torch.compile)": {"compile": True},
    "thesis: flux view, stride 1, width 64, 4 layers, simulated labels, half of the events once": {
        "view": "flux", "stem_stride": 1, "d_model": 64, "n_layers": 4, "dropout": 0.3, "labels": "simulated", "prefix_weight": 0.0,
        "epochs": 1, "test_fraction": 0.5, "warmup_epochs": 0.3},
}


def log_features(flux, delta_t, extra=None):
    """Magnitudes in place of the flux on asinh scales, which lose what noise makes negative."""
    magnitude = torch.log(flux.clamp_min(0.01))
    out = torch.stack([100 * magnitude, magnitude, torch.log1p(delta_t * 96.0)], dim=-1)
    return torch.cat([out, extra], dim=-1)


def no_noise(flux, delta_t, extra=None):
    """Without the estimate of the noise in the running view, its last but one channel."""
    return AS_SHIPPED(flux, delta_t, torch.cat([extra[..., :4], torch.zeros_like(extra[..., :1]), extra[..., 5:]], dim=-1))


AS_SHIPPED = Classifier.raw_features
FEATURES = {"log": log_features, "no noise": no_noise, "as shipped": AS_SHIPPED}


def run_name(name):
    return "choice_" + "".join(c if c.isalnum() else "_" for c in name)[:60]


def score(name, changes, training, test):
    """Train one choice and score it; a row of the table."""
    options = {**BASE, **changes}
    Classifier.raw_features = staticmethod(FEATURES[options.pop("features", "as shipped")])
    config = TrainConfig(data=str(training), experiment_name=run_name(name),
                         threads=1, device="cpu", **options)
    # packed and fitted before the clock starts
    data, held = (PackedDataset(p, config.view, config.stem_stride) for p in (training, test))
    begun = time.process_time()
    run = train(config)
    spent = time.process_time() - begun
    classifier = load_run(run.name)
    log_p = predict(classifier, held, np.arange(held.n_events))
    with open_dataset(test) as raw:
        some = slice(None, None, held.n_events // ANSWERED)
        light_curves = raw.flux(some), raw.delta_t(some), None, raw.sigma(some)
    begun = time.process_time()
    classifier.log_prob(*light_curves)
    answer = (time.process_time() - begun) / len(light_curves[0])
    val = classifier.saved["rows"]["val"].numpy()
    tuned, is_binary = np.exp(predict(classifier, data, val)[:, 2].astype(float)), data.labels[val] == 2
    row = {"choice": name, "parameters": sum(p.numel() for p in classifier.parameters()),
           "training, ms an event": 1e3 * spent / (config.epochs * len(classifier.saved["rows"]["train"])),
           "answer, ms an event": 1e3 * answer, "n_test": held.n_events, "n_observable": int((held.labels_observable == 2).sum())}
    p, weight = np.exp(log_p[:, 2].astype(float)), metrics.class_mix(held.labels)
    for purity in (0.9, 0.95):
        cut = metrics.threshold_at_purity(is_binary, tuned, metrics.class_mix(data.labels[val]), purity)
        made = metrics.completeness_purity(held.labels, held.labels_observable, p, weight, cut)
        row |= {f"completeness at {purity:g}": made["completeness_observable"], f"purity reached at {purity:g}": made["purity"]}
    row["average precision"] = metrics.average_precision(held.labels_observable == 2, p, weight)
    return row


def main(folder="data/choices", *named):
    folder, path = Path(folder), Path(__file__).parents[1] / "figures" / "choices.csv"
    events = {"n_flat": 800, "n_pspl": 1600, "n_binary": 1600}
    training = simulate(SimulateConfig(**events, seed=30, output=str(folder / "train.h5")))
    test = simulate(SimulateConfig(n_flat=2000, n_pspl=1000, n_binary=1000, seed=30, split="test", output=str(folder / "test.h5")))
    rows = {row["choice"]: row for row in pd.read_csv(path).to_dict("records")} if named else {}
    for name, changes in CHOICES.items():
        if named and not name.startswith(named):
            continue
        kept = folder / f"{run_name(name)}.json"  # an interrupted comparison goes on where it was
        if not kept.exists():
            kept.write_text(json.dumps(score(name, changes, training, test)))
        rows[name] = json.loads(kept.read_text())
    table = pd.DataFrame([rows[name] for name in CHOICES if name in rows])
    table.to_csv(path, index=False, float_format="%.4g")
    print(table.to_string(index=False, float_format=lambda x: f"{x:.3g}"))


if __name__ == "__main__":
    main(*sys.argv[1:])
