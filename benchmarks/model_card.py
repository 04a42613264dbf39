"""The README.md of a shipped network, made from its files and its scores.

    python -m benchmarks.model_card baseline [FOLDER]

FOLDER is an evaluation of the network on an independent test set; its scores are then kept as scores.json beside the
network. Without it the scores that are kept there are used.
"""

import json
import sys
from pathlib import Path

import numpy as np

from microlens.config import CLASSES
from microlens.files import read_parameters, weights_dir
from microlens.network import Run, load_run
from microlens.network.model import n_parameters

SLURM = Path(__file__).parents[1] / "slurm"
CARD = """# {name}: a causal network for the season of preset `{preset}`

**For** telling {classes} apart, after a whole season or at any epoch of it, in a
season of {season:.1f} days with an epoch every {cadence:.1f} minutes, Roman F146, with stars and lenses as in
preset `{preset}`.

**Not for** {not_for}.

| | |
|---|---|
| sees | {sees} (view `{view}`) |
| answers | at every epoch, streams, raises alerts |
| size | {n_parameters:,} parameters: width {d_model}, {n_layers} GRU layers, {stem_stride} epochs a network step |
| training | {n_train:,} of {n_events:,} events{extra}, {epochs} passes{beginning}, {minutes:.0f} minutes on a CPU |
| validation | {n_val:,} events; loss after each pass: {losses} |

On {n:,} independent events of another season (preset `{preset}`, seed 5, split `test`; half of them flat, a quarter
single lenses, a quarter binaries), with intervals of 95 %:

| score | value |
|---|---|
{scores}

`config.json` is the whole configuration with its seeds, `log.jsonl` the learning curve. `best.pt` holds the network,
its data statistics (`mean` and `std` of each feature) and its output on the validation events;
`validation_features.npz` holds the baselines' features of these events. Thresholds, temperature and gradient boosting
are taken from both.

The network is made again, with another split, initialisation and order of its events if trained with `--seed 2`, by

{commands}
    microlens export {experiment_name} FOLDER
"""


TOLD_APART = {3: "flat, single-lens and binary-lens light curves",
              4: "constant stars, single lenses, binary lenses and all else that varies"}
NOT_FOR = {3: "nightly ground-based cadences, correlated noise, variable stars, or more than two lenses",
           4: "nightly ground-based cadences, or more than two lenses"}
SEES = {"running": "flux and time step, and the best single lens through the past",
        "robust": "flux without lone epochs and time step, the best single lens through the past, the noise spectrum"}


def scores_of(evaluation: Path) -> dict:
    """The scores of an evaluation folder that a card states, {name: (value, low, high)}; n is the number of events."""
    summary = json.loads((evaluation / "evaluation_summary.json").read_text())
    called, alerts = summary["at_threshold"], summary["early"]["alerts"]

    def with_interval(group, name):
        return [group[name], *group[f"{name}_interval_95"]]

    def of_share(share):
        return [share["value"], *share["interval_95"]]

    return {
        "n": summary["n"],
        "completeness of observable binaries": with_interval(called, "completeness_observable"),
        "purity": with_interval(called, "purity"),
        "average precision": with_interval(summary, "average_precision_binary_observable"),
        "alerts within a day of being observable": of_share(alerts["within_1_day"]),
        "premature alerts, of those on binaries": of_share(alerts["premature_of_binary_alerts"]),
    }


def score_text(value, low, high) -> str:
    """'0.992 [0.988, 0.995]', without an interval where none is known."""
    if value is None:
        return "not defined"
    return f"{value:.4g}" + ("" if low is None else f" [{low:.4g}, {high:.4g}]")


def stage_of(experiment_name: str) -> str:
    """The name of the parameter files of a training, whose run has the number of its seed behind it."""
    return experiment_name.rsplit("_", 1)[0]


def simulation(dataset: str) -> str:
    """The command that makes a dataset, whose file has the number of its events behind the name of its parameters."""
    name = stage_of(Path(dataset).stem)
    return f"microlens simulate -f slurm/simulate_{name}.yaml --output data/raw/{Path(dataset).name}"


def commands(config: dict, dataset: str) -> list[str]:
    """The commands of a training on a dataset, after those of the training whose weights it starts from."""
    stage = stage_of(config["experiment_name"])
    if config.get("initial"):
        earlier = commands(read_parameters(SLURM / f"train_{stage_of(config['initial'])}.yaml"), dataset)
    else:
        earlier = [simulation(dataset)]
    if config.get("extra_data"):
        earlier.append(simulation(config["extra_data"]))
    return [*earlier, f"microlens train -f slurm/train_{stage}.yaml --data data/raw/{Path(dataset).name}"]


def model_card(run: Run, log: list[dict], scores: dict) -> str:
    """The text of a card. log : the lines of log.jsonl.   scores : as scores_of gives them."""
    rows = [f"| {name} | {score_text(*value)} |" for name, value in scores.items() if name != "n"]
    extra = ""
    if "extra" in run.data:
        config = run.data["extra"]["config"]
        n_extra = sum(config.get(f"n_{kind}", 0) for kind in CLASSES)
        extra = f" and {n_extra:,} further ones"
    initial = run.config["initial"]
    return CARD.format(
        **run.config,
        name=run.name,
        classes=TOLD_APART[run.network.n_classes],
        not_for=NOT_FOR[run.network.n_classes],
        sees=SEES[run.network.view],
        preset=run.data["config"]["binary_preset"],
        season=run.timestamps[-1] - run.timestamps[0],
        cadence=24 * 60 * np.median(np.diff(run.timestamps)),
        n_parameters=n_parameters(run.network),
        n_train=len(run.rows["train"]),
        n_val=len(run.rows["val"]),
        n_events=sum(map(len, run.rows.values())),
        minutes=sum(line["seconds"] for line in log) / 60,
        losses=", ".join(f"{line['val_loss']:.4f}" for line in log),
        n=scores["n"],
        scores="\n".join(rows),
        extra=extra,
        beginning=f" after those of run `{initial}`" if initial else "",
        commands="\n".join(f"    {command}" for command in commands(run.config, run.config["data"])),
    )


def main(name: str, evaluation: str | None = None):
    """Write the card of a shipped network, and its scores where an evaluation is given."""
    folder = weights_dir() / name
    kept = folder / "scores.json"
    if evaluation:
        kept.write_text(json.dumps(scores_of(Path(evaluation)), indent=1) + "\n")
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    (folder / "README.md").write_text(model_card(load_run(name), log, json.loads(kept.read_text())))


if __name__ == "__main__":
    main(*sys.argv[1:])
