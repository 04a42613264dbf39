"""make choices: one change at a time to a small network, all on the same events and passes, scored on other events.

    python -m tests.choices [FOLDER]        # figures/choices.csv, and a table for the README on standard output

Small data and few passes rank the options on one protocol; they do not say what each reaches in the end. A threshold is chosen on
the validation rows. Costs are CPU time of one core: training an event (forward, backward, step), and answering for one.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

from microlens import metrics
from microlens.config import SimulateConfig, TrainConfig
from microlens.dataset import PackedDataset
from microlens.evaluate.network import predict
from microlens.model import load_run
from microlens.simulate import simulate
from microlens.train import train

BASE = {"view": "running", "d_model": 48, "n_layers": 2, "stem_stride": 8, "dropout": 0.1, "batch_size": 64, "epochs": 5, "seed": 1,
        "prefix_weight": 1.0, "save_every": 0}
SEASON = {"view": "residual", "prefix_weight": 0.0}
CHOICES = {
    "running view, stride 8, width 48, 2 layers": {},
    "flux view": {"view": "flux"},
    "residual view (whole season)": SEASON,
    "stride 16": {"stem_stride": 16},
    "no prefixes": {"prefix_weight": 0.0},
    "simulated labels, no prefixes": {"labels": "simulated", "prefix_weight": 0.0},
    "4 layers": {"n_layers": 4},
    "width 32": {"d_model": 32},
    "mean pooling": {"attention_pooling": False},
    "flat head": {"hierarchical": False},
    "thesis: flux view, stride 1, width 64, 4 layers, simulated labels, half of the events once": {
        "view": "flux", "stem_stride": 1, "d_model": 64, "n_layers": 4, "dropout": 0.3, "labels": "simulated", "prefix_weight": 0.0,
        "epochs": 1, "test_fraction": 0.5, "warmup_epochs": 0.3},
}


def score(name, changes, training, test):
    """Train one choice and score it; a row of the table."""
    options = {**BASE, **changes}
    config = TrainConfig(data=str(training), experiment_name="choice_" + "".join(c if c.isalnum() else "_" for c in name)[:60],
                         threads=1, device="cpu", **options)
    # packed and fitted before the clock starts
    data, held = (PackedDataset(p, config.view, config.stem_stride) for p in (training, test))
    begun = time.process_time()
    run = train(config)
    spent = time.process_time() - begun
    classifier = load_run(run.name)
    begun = time.process_time()
    log_p = predict(classifier, held, np.arange(held.n_events))
    answer = (time.process_time() - begun) / held.n_events
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


def main(folder="data/choices"):
    folder, rows = Path(folder), []
    events = {"n_flat": 800, "n_pspl": 1600, "n_binary": 1600}
    training = simulate(SimulateConfig(**events, seed=30, output=str(folder / "train.h5")))
    test = simulate(SimulateConfig(n_flat=2000, n_pspl=1000, n_binary=1000, seed=30, split="test", output=str(folder / "test.h5")))
    for name, changes in CHOICES.items():
        kept = folder / f"{len(rows):02d}.json"  # an interrupted comparison goes on where it was
        if not kept.exists():
            kept.write_text(json.dumps(score(name, changes, training, test)))
        rows.append(json.loads(kept.read_text()))
    table = pd.DataFrame(rows)
    table.to_csv(Path(__file__).parents[1] / "figures" / "choices.csv", index=False, float_format="%.4g")
    print(table.to_string(index=False, float_format=lambda x: f"{x:.3g}"))


if __name__ == "__main__":
    main(*sys.argv[1:])
