"""What alerts are worth at the rates of the sky.

    python -m benchmarks.alert_rates EVALUATION [--prevalence 0.01]

EVALUATION is the folder of an evaluation with alerts whose dataset holds all four classes, each sub-class of other
among them. Of each kind of light curve the share that raises an alert is counted; the kinds are then weighted as the
sky has them in a season:

- 27,000 Roman events with u_0 < 1 in six dense seasons of 1.7 square degrees (a number of the field, second hand), of
  which the share `prevalence` are binary lenses with planets and 5 % have two sources;
- variable stars a square degree as sky/variables.yaml states them.

The purity of alerts is the expected share of binary lenses among the light curves that raise one, once from the counted
shares and once from draws of them, in which a kind that raised none may still do so. Constant stars are
not part of it: nobody knows how many of them a pipeline looks at. Their false alerts are given for 100,000 stars and
season. Intervals at 95 % are Clopper-Pearson's for shares; those of the purity are from 2000 draws of all shares from
their posteriors under a uniform prior.
"""

import argparse
from pathlib import Path

import numpy as np

from microlens.config import BINARY, FLAT, PSPL, SUBCLASSES, TWO_SOURCES
from microlens.data import open_dataset
from microlens.data.format import read_predictions
from microlens.evaluate import metrics
from microlens.sky import rates

EVENTS, SEASONS, AREA = 27_000, 6, 1.7  # events, dense seasons, square degrees
STARS = 100_000
DRAWS, SEED = 2000, 0


def counts(folder: Path) -> dict[str, tuple[int, int]]:
    """{kind: (alerts, light curves)} of the lensing classes and of each sub-class of other."""
    arrays, attributes = read_predictions(folder / "predictions.h5", ["label", "t_alert"])
    others, _ = read_predictions(folder / "predictions.h5", ["other_row", "other_t_alert"])
    with open_dataset(attributes["data"]) as data:
        subclass = data.params["subclass"].to_numpy()[others["other_row"]]
    alerted, found = np.isfinite(arrays["t_alert"]), {}
    for name, c in (("flat", FLAT), ("pspl", PSPL), ("binary", BINARY)):
        found[name] = int(alerted[arrays["label"] == c].sum()), int((arrays["label"] == c).sum())
    for name in SUBCLASSES:
        among = subclass == name
        found[name] = int(np.isfinite(others["other_t_alert"])[among].sum()), int(among.sum())
    return found


def numbers_of_a_season(prevalence: float) -> dict[str, float]:
    """Light curves of each kind that the sky shows in a season, constant stars left out."""
    stars = {name: AREA * n for name, n in rates().items()}
    lenses = EVENTS / SEASONS
    return stars | {"binary": prevalence * lenses, "pspl": (1 - prevalence) * lenses - stars[TWO_SOURCES]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("evaluation", type=Path)
    parser.add_argument("--prevalence", type=float, default=0.01)
    given = parser.parse_args()
    found, sky = counts(given.evaluation), numbers_of_a_season(given.prevalence)
    print(f"{'kind':24s}{'a season':>10s}  alerts of light curves, share and interval")
    for kind, (k, n) in found.items():
        low, high = metrics.binomial_interval(k, n)
        print(f"{kind:24s}{sky.get(kind, np.nan):10.0f}  {k} of {n}, {k / max(n, 1):.4f} [{low:.4f}, {high:.4f}]")
    k, n = found["flat"]
    low, high = metrics.binomial_interval(k, n)
    low, value, high = (STARS * x for x in (low, k / n, high))
    print(f"false alerts of {STARS} constant stars in a season: {value:.0f} [{low:.0f}, {high:.0f}]")
    rng = np.random.default_rng(SEED)
    drawn = {kind: rng.beta(k + 1, n - k + 1, DRAWS) for kind, (k, n) in found.items() if kind in sky}
    expected = {kind: found[kind][0] / max(found[kind][1], 1) for kind in drawn}
    purity = sky["binary"] * expected["binary"] / sum(sky[kind] * expected[kind] for kind in drawn)
    spread = sky["binary"] * drawn["binary"] / sum(sky[kind] * drawn[kind] for kind in drawn)
    low, median, high = np.percentile(spread, [2.5, 50, 97.5])
    print(f"purity of alerts at a prevalence of {given.prevalence:g}: {purity:.3f} if a kind without an alert raises "
          f"none; {median:.3f} [{low:.3f}, {high:.3f}] if such a kind may")


if __name__ == "__main__":
    main()
