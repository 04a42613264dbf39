"""make cross: a network trained on each preset and scored on every preset, and the shipped ones beside them.

    python -m tests.cross [FOLDER] [N]        # figures/cross_evaluation.csv, and the table on standard output

N = 0 scores the shipped ones anew and keeps the others as they are in the table.

All trainings have the same architecture, N events (class mix 20/40/40) and passes; the test sets, the same for all, have 50/25/25.
A threshold (purity 0.95, at most 0.5 % false alarms) is chosen on the validation rows of the network's own training data and
applied unchanged everywhere.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from tests.choices import BASE

from microlens import metrics, paths
from microlens.config import SimulateConfig, TrainConfig
from microlens.data.packed import PackedDataset
from microlens.data.simulation import simulate
from microlens.network.predict import predict
from microlens.network.runs import load_run
from microlens.network.training import train

PRESETS = ("distinct", "planetary", "stellar", "baseline", "roman")
PURITY, FALSE_ALARMS = 0.95, 0.005


def trained(preset, folder, n):
    """The network of one preset, trained here, with labels and P(binary) of its validation rows."""
    training = simulate(SimulateConfig(n_flat=n // 5, n_pspl=2 * n // 5, n_binary=2 * n // 5, binary_preset=preset, seed=40,
                                       output=str(folder / f"{preset}.h5")))
    train(TrainConfig(data=str(training), experiment_name=f"cross_{preset}", threads=1, device="cpu", resume="auto", **BASE))
    classifier = load_run(f"cross_{preset}")
    data, rows = PackedDataset(training, classifier.view, classifier.stem_stride), classifier.saved["rows"]["val"].numpy()
    return classifier, data.labels[rows], np.exp(predict(classifier, data, rows)[:, 2].astype(float))


def shipped(name):
    """A network of the package, with labels and P(binary) of its validation rows."""
    table = pd.read_csv(paths.weights_dir() / name / "validation.csv", comment="#")
    return load_run(name), table["label"].to_numpy(), np.exp(table["log_p_binary"].to_numpy())


def score(name, classifier, cut, preset, test):
    """One cell of the matrix."""
    data = PackedDataset(test, classifier.view, classifier.stem_stride)
    log_p = predict(classifier, data, np.arange(data.n_events))
    p, weight, observable = np.exp(log_p[:, 2].astype(float)), metrics.class_mix(data.labels), data.labels_observable == 2
    made = metrics.completeness_purity(data.labels, data.labels_observable, p, weight, cut)
    return {"trained on": name, "tested on": preset, "n": data.n_events, "n_observable": int(observable.sum()),
            "completeness": made["completeness_observable"], "purity": made["purity"],
            "single lenses called binary": made["false_alarms_pspl"],
            "average precision": metrics.average_precision(observable, p, weight),
            "accuracy on observable labels": float((log_p.argmax(1) == data.labels_observable).mean())}


def main(folder="data/cross", n="6000"):
    folder, n, path = Path(folder), int(n), Path(__file__).parents[1] / "figures" / "cross_evaluation.csv"
    rows = [] if n else [row for row in pd.read_csv(path).to_dict("records") if row["trained on"] in PRESETS]
    tests = {p: simulate(SimulateConfig(n_flat=2000, n_pspl=1000, n_binary=1000, binary_preset=p, seed=41, split="test",
                                        output=str(folder / f"{p}_test.h5"))) for p in PRESETS}
    for name in (*(PRESETS if n else ()), "shipped baseline", "shipped roman"):
        kept = folder / f"{name.replace(' ', '_')}.json"  # an interrupted comparison goes on where it was
        if not kept.exists():
            classifier, labels, p = trained(name, folder, n) if name in PRESETS else shipped(name.removeprefix("shipped "))
            cut = metrics.operating_threshold(labels, p, metrics.class_mix(labels), PURITY, FALSE_ALARMS)
            kept.write_text(json.dumps([score(name, classifier, cut, preset, test) for preset, test in tests.items()]))
        rows += json.loads(kept.read_text())
    table = pd.DataFrame(rows)
    table.to_csv(path, index=False, float_format="%.4g")
    for value in ("completeness", "purity", "average precision"):
        print(f"\n{value}\n" + table.pivot(index="trained on", columns="tested on", values=value)[[*PRESETS]].to_string(
            float_format=lambda x: f"{x:.3f}"))


if __name__ == "__main__":
    main(*sys.argv[1:])
