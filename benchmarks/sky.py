"""make sky: what networks make of single lenses, binaries and variable stars under every kind of noise.

    python -m benchmarks.sky [--networks sky roman] [--n 2000] [--baselines] [--part conditions] [--threshold P]
                             [--output FOLDER]

For each condition of CONDITIONS, n single lenses, n/2 flats and n/2 binaries are simulated with the lenses of preset
roman, or of the preset that the condition names. Each network calls them binary at its own frozen threshold, that of
its validation rows, or at P(binary) >= P. Completeness is the share of the binaries that are observable under the
covariance of the noise (delta chi^2 > 160), which is what an oracle finds: its line is 1. With --baselines the
thresholds of the single-lens fit and gradient boosting, of the first network's validation rows, are applied to the same
light curves.

The other part asks for each sub-class of class other, of which n events are simulated, how often it is called binary,
and other.

The tables are printed, and written as conditions.csv and others.csv. Shares have 95 % intervals (Clopper-Pearson).
Datasets that are there are taken as they are.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from microlens.config import BINARY, FLAT, OTHER, PSPL, SUBCLASSES, EvaluateConfig, SimulateConfig
from microlens.data import open_dataset, simulate
from microlens.data.packed import PackedDataset, residual_features
from microlens.evaluate import baselines, metrics
from microlens.evaluate.thresholds import choose_thresholds
from microlens.files import data_dir
from microlens.network import load_run
from microlens.network.predict import lensing_log_p, predict
from microlens.sky.population import FOLDER

SEED = 77


def constant(term: str, **values) -> dict:
    """A block `noise` of one term whose parameters have these values."""
    return {term: {name: {"constant": value} for name, value in values.items()}}


OU = {f"OU {amplitude} sigma, {time} d": constant("correlated", amplitude=amplitude, time=time)
      for amplitude in (0.1, 0.3, 0.5) for time in (0.1, 1.0, 5.0)}
OUTLIERS = {f"outliers {percent} % of {size} sigma": constant("outliers", fraction=percent / 100, size=float(size))
            for percent in (0.1, 1.0) for size in (5, 10, 30)}
UNTRAINED = {
    "Matern-3/2 0.3 sigma, 1 d": constant("matern", amplitude=0.3, time=1.0),
    "random walk 0.1 sigma in a day": constant("random_walk", amplitude=0.1),
    "step of 1 sigma": constant("step", size=1.0),
    "daily sine of 0.3 sigma": constant("daily", amplitude=0.3),
}
INSTRUMENT = {
    "dither comb 0.5 %": constant("dither", amplitude=0.005, positions=8),
    "non-linearity 3e-3 a dex": constant("non_linearity", slope=3e-3),
    "persistence 48 electrons": constant("persistence", electrons=48.0, duration=0.5, interval=10.0),
    "errors x 0.8": constant("error_scale", factor=0.8),
    "errors x 1.3": constant("error_scale", factor=1.3),
}
CONDITIONS = {
    "white": {},
    **{name: {"noise": noise} for name, noise in {**OU, **UNTRAINED, **OUTLIERS, **INSTRUMENT}.items()},
    "30 % missing": {"missing_fraction": 0.3},
    "parallax x 3": {"pi_E": {"log_normal": [-0.569, 0.25], "within": [0.01, 1.0]}},
    **{f"detector {name}": {"detector": name} for name in ("penny2019", "crowded", "thesis")},
    **{f"preset {name}": {"binary_preset": name} for name in ("sky", "baseline", "planetary", "stellar", "distinct")},
}


def file_name(condition: str) -> str:
    """The beginning of the names of a condition's files."""
    return "".join(c if c.isalnum() else "_" for c in condition)


def shipped_preset(name: str) -> dict:
    """The blocks of a shipped preset."""
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text())


def changed_preset(file: Path, name: str, change: dict) -> Path:
    """The file of a preset that is a shipped one with other blocks; a block of None is left out."""
    left_out = [key for key, value in change.items() if value is None]
    blocks = {key: value for key, value in (shipped_preset(name) | change).items() if key not in left_out}
    file.write_text(yaml.safe_dump(blocks))
    return file


def dataset(folder: Path, name: str, condition: dict, counts: dict) -> Path:
    """The dataset of a condition, made where it is absent. counts : the numbers of events, as in SimulateConfig."""
    condition, stem = dict(condition), file_name(name)
    shipped = condition.pop("binary_preset", "roman")
    change = {key: condition.pop(key) for key in ("noise", "other") if key in condition}
    if "pi_E" in condition:
        change["parameters"] = shipped_preset(shipped)["parameters"] | {"pi_E": condition.pop("pi_E")}
    file = changed_preset(folder / f"{stem}.yaml", shipped, change)
    return simulate(SimulateConfig(**counts, **condition, binary_preset=str(file), split="test", seed=SEED,
                                   output=str(folder / f"{stem}_{max(counts.values())}.h5")))


def lensing_counts(n: int) -> dict:
    """The numbers of events of a condition with n single lenses."""
    return {"n_flat": n // 2, "n_pspl": n, "n_binary": n // 2}


def other_counts(n: int) -> dict:
    """The numbers of events where each sub-class of class other has about n."""
    return {"n_flat": 0, "n_pspl": 0, "n_binary": 0, "n_other": n * len(SUBCLASSES)}


def share(called, among) -> str:
    """The share of the events `among` (N,) that are called (N,), with its interval."""
    found = metrics.share(int(called[among].sum()), int(among.sum()))
    if found["value"] is None:
        return "none"
    low, high = found["interval_95"]
    return f"{found['value']:.4f} [{low:.4f}, {high:.4f}]"


def scores(condition: str, method: str, called, labels, observable) -> dict:
    """A line of the table of conditions. called, labels, observable : (N,)."""
    seen = observable == BINARY
    return {"condition": condition, "method": method, "n_binary": int(seen.sum()), "completeness": share(called, seen),
            "n_pspl": int((labels == PSPL).sum()), "single_lenses_called_binary": share(called, labels == PSPL),
            "n_flat": int((labels == FLAT).sum()), "flats_called_binary": share(called, labels == FLAT)}


def by_baselines(path: Path, thresholds) -> dict:
    """{method: called binary (N,)} of the methods without a network, at the thresholds of validation rows."""
    with open_dataset(path) as data:
        n = data.n_events
    x, _ = residual_features(path, np.arange(n))
    found = baselines.fixed_scores(x)
    if thresholds.boosting is not None:
        found["gradient boosting"] = thresholds.boosting.predict_proba(x)[:, 1]
    return {name: score >= thresholds.baselines[name] for name, score in found.items()}


def frozen_thresholds(runs: dict, with_baselines: bool) -> dict:
    """{network: thresholds} of the networks' own validation rows."""
    config = EvaluateConfig(data="none is read", early_detection=False, baselines=with_baselines)
    return {name: choose_thresholds(run, config) for name, run in runs.items()}


def log_probabilities(run, path: Path):
    """log_p (N, classes) of all rows of a dataset."""
    data = PackedDataset(path, run.network.view, run.network.stem_stride)
    return predict(run.network, data, np.arange(data.n_events))


def table_of_conditions(paths: dict[str, Path], runs: dict, thresholds: dict, with_baselines: bool) -> pd.DataFrame:
    """A line for each condition and method; each condition is printed when it is done."""
    lines = []
    for condition, path in paths.items():
        with open_dataset(path) as data:
            labels, observable = data.labels, data.labels_observable
        called = {name: np.exp(lensing_log_p(log_probabilities(run, path))[:, BINARY]) >= thresholds[name].whole_curve
                  for name, run in runs.items()}
        if with_baselines:
            called |= by_baselines(path, next(iter(thresholds.values())))
        lines += [scores(condition, method, values, labels, observable) for method, values in called.items()]
        print(pd.DataFrame(lines[-len(called) :]).to_string(index=False, header=len(lines) == len(called)), flush=True)
    return pd.DataFrame(lines)


def table_of_others(path: Path, runs: dict, thresholds: dict) -> pd.DataFrame:
    """A line for each sub-class of class other and network."""
    with open_dataset(path) as data:
        subclass, observable = data.params["subclass"].to_numpy(), data.labels_observable != FLAT
    lines = []
    for name, run in runs.items():
        log_p = log_probabilities(run, path)
        binary = np.exp(lensing_log_p(log_p)[:, BINARY]) >= thresholds[name].whole_curve
        is_other = log_p.argmax(axis=1) == OTHER
        for kind in SUBCLASSES:
            among = subclass == kind
            lines.append({"subclass": kind, "method": name, "n": int(among.sum()),
                          "called_binary": share(binary, among), "observable": share(observable, among),
                          "observable_called_other": share(is_other, among & observable)})
    return pd.DataFrame(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["sky", "roman"], help="the networks to compare")
    parser.add_argument("--n", type=int, default=2000, help="single lenses a condition, and events of a sub-class")
    parser.add_argument("--baselines", action="store_true", help="also the methods without a network")
    parser.add_argument("--output", default=None, help="where datasets and tables go; unset: sky/ in the data folder")
    parser.add_argument("--threshold", type=float, help="of P(binary), in place of each network's own")
    parser.add_argument("--part", choices=["conditions", "others"], help="one of the two tables; unset: both")
    given = parser.parse_args()
    folder = Path(given.output or data_dir() / "sky")
    folder.mkdir(parents=True, exist_ok=True)
    runs = {name: load_run(name) for name in given.networks}
    thresholds = frozen_thresholds(runs, given.baselines)
    if given.threshold is not None:
        thresholds = {name: own._replace(whole_curve=given.threshold) for name, own in thresholds.items()}
    if given.part != "others":
        paths = {name: dataset(folder, name, condition, lensing_counts(given.n))
                 for name, condition in CONDITIONS.items()}
        table_of_conditions(paths, runs, thresholds, given.baselines).to_csv(folder / "conditions.csv", index=False)
    if given.part != "conditions":
        equal = {"binary_preset": "sky", "other": dict.fromkeys(SUBCLASSES, 1.0)}
        path = dataset(folder, "others", equal, other_counts(given.n))
        table = table_of_others(path, runs, thresholds)
        table.to_csv(folder / "others.csv", index=False)
        print(table.to_string(index=False))


if __name__ == "__main__":
    main()
