"""What alerts are worth at the rates of the sky.

    python -m benchmarks.alert_rates EVALUATION [--prevalence 0.01] [--stars 12000] [--output FOLDER]

EVALUATION is the folder of an evaluation with alerts whose dataset holds all four classes. To its events of class other
are added so many more, simulated with the priors of preset sky at the rates of the sky, so that the common kinds are
many. Of each kind of light curve the share that raises an alert is counted; the kinds are then weighted as the sky has
them in a season:

- 27,000 Roman events with u_0 < 1 in six dense seasons of 1.7 square degrees (a number of the field, second hand), of
  which 5 % have two sources, and the share `prevalence` is binary lenses;
- variable stars a square degree as sky/variables.yaml states them.

The purity of alerts is the expected share of binary lenses among the light curves that raise one. It is given for two
readings of the prevalence: that so many events show a companion (their anomaly is observable), and that so many have
one, whether it shows or not. Penny et al. (2019) expect Roman to find some 1400 planets in its 27,000 events, which is
a prevalence of 0.05 in the first reading. Constant stars are not part of it: nobody knows how many of them a pipeline
looks at. Their false alerts are given for 100,000 stars and season.

Intervals at 95 % are Clopper-Pearson's for shares. Those of the purity are from 2000 draws of all shares from their
posteriors under Jeffreys' prior, in which a kind that raised no alert may still do so. The last table has the purity at
other thresholds of the alert score: they are chosen by nothing, and show what a threshold buys.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.sky import changed_preset
from microlens.config import BINARY, FLAT, OTHER, PSPL, SUBCLASSES, TWO_SOURCES, SimulateConfig
from microlens.data import open_dataset, simulate
from microlens.data.format import read_predictions
from microlens.data.packed import PackedDataset
from microlens.evaluate import metrics
from microlens.files import data_dir
from microlens.network import load_run
from microlens.network.predict import alert_scores, predict_steps
from microlens.sky import rates

EVENTS, SEASONS, AREA = 27_000, 6, 1.7  # events, dense seasons, square degrees
STARS = 100_000
DRAWS, SEED, STARS_SEED = 2000, 0, 91
JEFFREYS = 0.5
OBSERVABLE = "binary, observable"
THRESHOLDS = (0.9, 0.95, 0.97, 0.98, 0.99, 0.995)


class Count(NamedTuple):
    """How many of n light curves raise an alert."""

    alerts: int
    n: int

    @property
    def share(self) -> float:
        return self.alerts / max(self.n, 1)

    def drawn(self, rng) -> np.ndarray:
        """Draws (DRAWS,) of the share from its posterior."""
        return rng.beta(self.alerts + JEFFREYS, self.n - self.alerts + JEFFREYS, DRAWS)


def stars_at_rates(folder: Path, n: int) -> Path:
    """A dataset of n events of class other at the rates of the sky, made where it is absent."""
    folder.mkdir(parents=True, exist_ok=True)
    file = changed_preset(folder / "sky_at_rates.yaml", "sky", {"other": None})  # without shares: those of the sky
    return simulate(SimulateConfig(n_flat=0, n_pspl=0, n_binary=0, n_other=n, binary_preset=str(file), split="test",
                                   seed=STARS_SEED, output=str(folder / f"sky_at_rates_{n}.h5")))


def scores_of_others(network, path) -> tuple[np.ndarray, np.ndarray]:
    """Sub-class and alert score, each (n,), of the events of class other in a dataset."""
    with open_dataset(path) as dataset:
        rows, params = np.flatnonzero(dataset.labels == OTHER), dataset.params
    data = PackedDataset(path, network.view, network.stem_stride)
    return params["subclass"].to_numpy()[rows], alert_scores(predict_steps(network, data, rows).p_binary)


def scores_by_kind(folder: Path, n_stars: int, output: Path) -> tuple[dict[str, np.ndarray], float]:
    """The alert scores of each kind of light curve, {kind: (n,)}, and the network's threshold."""
    arrays, attributes = read_predictions(folder / "predictions.h5", ["label", "label_observable", "p_binary_steps"])
    score, label = alert_scores(arrays["p_binary_steps"]), arrays["label"]
    found = {name: score[label == c] for name, c in (("flat", FLAT), ("pspl", PSPL), ("binary", BINARY))}
    found[OBSERVABLE] = score[arrays["label_observable"] == BINARY]
    network = load_run(attributes["run"]).network
    paths = [attributes["data"]] + ([stars_at_rates(output, n_stars)] if n_stars else [])
    subclass, score = (np.concatenate(parts) for parts in
                       zip(*(scores_of_others(network, path) for path in paths), strict=True))
    return found | {name: score[subclass == name] for name in SUBCLASSES}, float(attributes["alert_threshold"])


def counts_at(scores: dict[str, np.ndarray], threshold: float) -> dict[str, Count]:
    """{kind: Count} at a threshold."""
    return {kind: Count(int((values >= np.float32(threshold)).sum()), len(values)) for kind, values in scores.items()}


def numbers_of_a_season(prevalence: float) -> dict[str, float]:
    """Light curves of each kind without a binary lens that the sky shows in a season, constant stars left out."""
    stars = {name: AREA * n for name, n in rates().items()}
    return stars | {"pspl": (1 - prevalence) * EVENTS / SEASONS - stars[TWO_SOURCES]}


def purity(counts: dict[str, Count], sky: dict[str, float], kind: str, prevalence: float) -> tuple[float, ...]:
    """Expected purity of the alerts where a share `prevalence` of events is of a kind of binary, and its interval."""
    rng, binaries = np.random.default_rng(SEED), prevalence * EVENTS / SEASONS
    right, wrong = binaries * counts[kind].share, sum(n * counts[name].share for name, n in sky.items())
    drawn = binaries * counts[kind].drawn(rng)
    drawn_wrong = sum(n * counts[name].drawn(rng) for name, n in sky.items())
    low, high = np.percentile(drawn / (drawn + drawn_wrong), [2.5, 97.5])
    return right / (right + wrong) if right + wrong > 0 else np.nan, low, high


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("evaluation", type=Path)
    parser.add_argument("--prevalence", type=float, default=0.01)
    parser.add_argument("--stars", type=int, default=12_000, help="further events of class other, at the sky's rates")
    parser.add_argument("--output", type=Path, default=None, help="where they go; unset: alerts/ in the data folder")
    given = parser.parse_args()
    output = given.output or data_dir() / "alerts"
    scores, threshold = scores_by_kind(given.evaluation, given.stars, output)
    counts, sky = counts_at(scores, threshold), numbers_of_a_season(given.prevalence)
    print(f"{'kind':24s}{'a season':>10s}  alerts of light curves, share and interval")
    for kind, (k, n) in counts.items():
        low, high = metrics.binomial_interval(k, n)
        print(f"{kind:24s}{sky.get(kind, np.nan):10.0f}  {k} of {n}, {k / max(n, 1):.4f} [{low:.4f}, {high:.4f}]")
    k, n = counts["flat"]
    low, high = (STARS * x for x in metrics.binomial_interval(k, n))
    print(f"false alerts of {STARS} constant stars in a season: {STARS * k / n:.0f} [{low:.0f}, {high:.0f}]")
    for kind, words in ((OBSERVABLE, "show"), ("binary", "have")):
        value, low, high = purity(counts, sky, kind, given.prevalence)
        print(f"purity of alerts where {given.prevalence:g} of the events {words} a companion: {value:.3f} "
              f"[{low:.3f}, {high:.3f}]")
    print("threshold  alerts on observable binaries  purity where they show, where they are there")
    for cut in (threshold, *THRESHOLDS):
        there = counts_at(scores, cut)
        shown, every = (purity(there, sky, kind, given.prevalence)[0] for kind in (OBSERVABLE, "binary"))
        print(f"{cut:9.3f}  {there[OBSERVABLE].share:29.3f}  {shown:.3f}  {every:.3f}")


if __name__ == "__main__":
    main()
