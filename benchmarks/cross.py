"""make cross: a network trained on each preset and scored on every preset, and the shipped ones beside them.

    python -m benchmarks.cross [FOLDER] [N]        # figures/cross_evaluation.csv, and the table on standard output

N = 0 scores the shipped ones anew and keeps the others as they are in the table.

All trainings have the same architecture, N events (class mix 20/40/40) and passes; the test sets, the same for all,
have 50/25/25. A threshold is chosen on the validation rows of the network's own training data and applied unchanged
everywhere.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.choices import BASE
from microlens.config import BINARY, LENS_PRESETS, SimulateConfig, TrainConfig
from microlens.data import PackedDataset, simulate
from microlens.data.packed import class_mix
from microlens.evaluate import metrics
from microlens.network import Run, load_run
from microlens.network.predict import predict
from microlens.network.training import train

TABLE = Path(__file__).parents[1] / "figures" / "cross_evaluation.csv"
PURITY, FALSE_ALARMS = 0.95, 0.005
N_TEST = {"n_flat": 2000, "n_pspl": 1000, "n_binary": 1000}
TRAIN_SEED, TEST_SEED = 40, 41


def trained(preset, folder, n) -> Run:
    """The network of one preset, trained here on n events."""
    events = {"n_flat": n // 5, "n_pspl": 2 * n // 5, "n_binary": 2 * n // 5}
    output = str(folder / f"{preset}.h5")
    data = simulate(SimulateConfig(**events, binary_preset=preset, seed=TRAIN_SEED, output=output))
    train(TrainConfig(data=str(data), experiment_name=f"cross_{preset}", resume="auto", **BASE))
    return load_run(f"cross_{preset}")


def threshold(run: Run) -> float:
    """The threshold of P(binary) that the run's validation rows choose."""
    labels, p = run.validation["label"], np.exp(run.validation["log_p"][:, BINARY].astype(float))
    return metrics.operating_threshold(labels, p, class_mix(labels), PURITY, FALSE_ALARMS)


def score(name, run: Run, preset, test):
    """One cell of the matrix."""
    data = PackedDataset(test, run.network.view, run.network.stem_stride)
    log_p = predict(run.network, data, np.arange(data.n_events))
    p, weight = np.exp(log_p[:, BINARY].astype(float)), class_mix(data.labels)
    observable = data.labels_observable == BINARY
    made = metrics.completeness_purity(data.labels, data.labels_observable, p, weight, threshold(run))
    return {"trained on": name, "tested on": preset, "n": data.n_events, "n_observable": int(observable.sum()),
            "completeness": made["completeness_observable"], "purity": made["purity"],
            "single lenses called binary": made["false_alarms_pspl"],
            "average precision": metrics.average_precision(observable, p, weight),
            "accuracy on observable labels": metrics.share_of(log_p.argmax(1) == data.labels_observable)}


def main(folder="data/cross", n="6000"):
    """Train (where n > 0) and score all pairs of presets in `folder`; write and print the table."""
    folder, n = Path(folder), int(n)
    torch.set_num_threads(1)
    kept_rows = [] if n else pd.read_csv(TABLE).to_dict("records")
    rows = [row for row in kept_rows if row["trained on"] in LENS_PRESETS]
    tests = {preset: simulate(SimulateConfig(**N_TEST, binary_preset=preset, seed=TEST_SEED, split="test",
                                             output=str(folder / f"{preset}_test.h5"))) for preset in LENS_PRESETS}
    for name in (*(LENS_PRESETS if n else ()), "shipped baseline", "shipped roman"):
        kept = folder / f"{name.replace(' ', '_')}.json"  # an interrupted comparison goes on where it was
        if not kept.exists():
            run = trained(name, folder, n) if name in LENS_PRESETS else load_run(name.removeprefix("shipped "))
            kept.write_text(json.dumps([score(name, run, preset, test) for preset, test in tests.items()]))
        rows += json.loads(kept.read_text())
    table = pd.DataFrame(rows)
    table.to_csv(TABLE, index=False, float_format="%.4g")
    for value in ("completeness", "purity", "average precision"):
        matrix = table.pivot(index="trained on", columns="tested on", values=value)[[*LENS_PRESETS]]
        print(f"\n{value}\n" + matrix.to_string(float_format=lambda x: f"{x:.3f}"))


if __name__ == "__main__":
    main(*sys.argv[1:])
