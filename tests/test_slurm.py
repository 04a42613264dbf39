"""The batch scripts' own logic, with sbatch, srun and scontrol replaced by ones that write down how they were called;
the parameter files; the model cards. tests/test_cluster.py (`make validate`) runs the scripts on a real SLURM.
"""

import json
import os
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest

from benchmarks import model_card
from microlens.__main__ import parse
from microlens.config import SimulateConfig, TrainConfig
from microlens.data import simulation
from microlens.files import read_parameters, weights_dir
from microlens.network import load_run, runs
from microlens.network.model import from_config, n_parameters
from microlens.notebook import declared_parameters, find_notebook

SLURM = Path(__file__).parents[1] / "slurm"
STUBS = {"sbatch": 'echo "sbatch LINKS=${LINKS:-} REACHED=${REACHED:-} $*" >> calls; echo 9',
         "srun": 'echo "srun $*" >> calls; eval "${TRAINING:-}"',
         "scontrol": "echo n1; echo n2",
         "python": 'echo "python $*" >> calls'}
CHECKPOINT = "runs/chain/checkpoints/checkpoint_latest.pt"


@pytest.fixture
def link(tmp_path):
    """Runs a script in a folder of its own; returns its exit code, the calls that it made, and its errors."""
    (tmp_path / "bin").mkdir()
    for name, body in STUBS.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / "bin" / name).chmod(0o755)

    def link(script="train.sbatch", **variables):
        (tmp_path / "calls").write_text("")
        environment = {
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]",
            "SLURM_JOB_NUM_NODES": "2", "SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_FOLDER": str(SLURM), "NAME": "chain",
            "MICROLENS_RUNS": "runs", "DATA": "x.h5", "LINKS": "3", **variables}
        made = subprocess.run(["bash", str(SLURM / script)], cwd=tmp_path, env=environment, capture_output=True,
                              text=True)
        return made.returncode, (tmp_path / "calls").read_text().splitlines(), made.stderr

    link.place = tmp_path
    (tmp_path / CHECKPOINT).parent.mkdir(parents=True)
    return link


def test_a_link_submits_its_successor_first_and_then_trains(link):
    code, (successor, training), _ = link()
    assert code == 0
    assert successor.startswith("sbatch LINKS=2 REACHED=nothing") and "--dependency=afterany:7" in successor
    assert successor.endswith(f"{SLURM}/train.sbatch")
    assert "--rdzv-endpoint=n1:10007" in training and "--nnodes=2" in training and "--resume auto" in training


def test_a_link_that_wrote_no_checkpoint_is_the_last(link):
    code, calls, error = link(REACHED="nothing")
    assert code == 1 and not calls and "no checkpoint" in error
    (link.place / CHECKPOINT).write_text("one")
    code, (successor, _), _ = link(REACHED="nothing")
    assert code == 0
    # The file is as that link found it.
    code, calls, _ = link(REACHED=successor.split("REACHED=")[1].split()[0])
    assert code == 1 and not calls


def test_a_requeued_link_does_not_submit_another_successor(link):
    code, calls, _ = link(SLURM_RESTART_COUNT="1", REACHED="nothing")
    assert code == 0 and len(calls) == 1 and calls[0].startswith("srun")


def test_a_failed_training_is_a_failed_link_whose_successor_stands(link):
    code, calls, _ = link(TRAINING="exit 3")
    assert code == 3 and len(calls) == 2


@pytest.mark.parametrize("variables, n_trained", [
    ({}, 0),
    ({"LINKS": "0", "TRAINING": "touch runs/chain/complete"}, 1),
])
def test_a_complete_run_is_evaluated_and_drawn(link, variables, n_trained):
    if not n_trained:
        (link.place / "runs/chain/complete").write_text("")
    code, calls, _ = link(**variables)
    assert code == 0 and sum(c.startswith("srun") for c in calls) == n_trained
    evaluated, drawn = calls[n_trained:]
    assert evaluated.endswith("evaluate.sbatch")
    assert drawn.endswith("figures.sbatch") and "--dependency=afterok:9" in drawn


def test_the_figures_are_those_of_the_evaluation_just_made(link):
    _, (evaluated,), _ = link("evaluate.sbatch")
    _, (drawn,), _ = link("figures.sbatch")
    folder = evaluated.split("--output ")[1]
    assert folder == "runs/chain/eval" and f"--evaluation {folder} " in drawn and "--experiment-name chain " in drawn
    assert drawn.startswith("python -m microlens figures ")


def test_a_task_of_a_night_takes_the_epochs_of_its_shard_and_appends_its_alerts(link):
    (link.place / "alerts").mkdir()
    alerts = link.place / "alerts" / "2027-02-14_0012.jsonl"
    alerts.write_text("of the attempt before\n")
    code, (streamed,), error = link("stream.sbatch", NIGHT="nights/2027-02-14", NAME="roman", SLURM_ARRAY_TASK_ID="12")
    assert code == 0, error
    assert streamed == ("python -m microlens stream --experiment-name roman --state states/0012.h5 "
                        "nights/2027-02-14/0012.parquet")
    assert alerts.read_text() == "of the attempt before\n"
    code, calls, error = link("stream.sbatch", SLURM_ARRAY_TASK_ID="12")
    assert code != 0 and not calls and "NIGHT" in error


@pytest.mark.parametrize("script", ["simulate.sbatch", "join.sbatch", "train.sbatch"])
def test_parameter_files_that_scripts_name_exist(script):
    named = [word.strip('"}') for word in (SLURM / script).read_text().split() if word.endswith('.yaml}"')]
    assert named and all((SLURM / name.rsplit("/", 1)[1]).is_file() for name in named)


# ---- parameter files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", runs.shipped_networks())
def test_parameter_files_make_the_shipped_network(name):
    data, stated = load_run(name).data, json.loads((weights_dir() / name / "config.json").read_text())
    simulated = SimulateConfig.from_dict(read_parameters(SLURM / f"simulate_{name}.yaml"))
    assert not simulated.differences(data["config"], simulation.NOT_COMPARED)
    stage = model_card.stage_of(stated["experiment_name"])
    trained = TrainConfig.from_dict(read_parameters(SLURM / f"train_{stage}.yaml"))
    assert not trained.differences(stated, runs.NOT_COMPARED)
    assert trained.experiment_name == stated["experiment_name"]
    if "extra" in data:
        stage = model_card.stage_of(Path(stated["extra_data"]).stem)
        extra = SimulateConfig.from_dict(read_parameters(SLURM / f"simulate_{stage}.yaml"))
        assert not extra.differences(data["extra"]["config"], simulation.NOT_COMPARED)
    for command in model_card.commands(stated, stated["data"]):
        assert Path(SLURM.parent, command.split()[3]).is_file(), command
    if stated["initial"]:  # the first training of the network is the one that has no more than its own
        trained = TrainConfig.from_dict(read_parameters(SLURM / f"train_{name}.yaml"))
        assert trained.experiment_name == stated["initial"]
    # What a parameter file does not say is the default: so the defaults are those of the shipped networks, but for
    # width and depth, which are the thesis', as its run names d64_l4_hier say, and for what `sky` has of its own.
    default = TrainConfig()
    assert runs.default_name(default).startswith("d64_l4_hier_")
    own = {"d_model": default.d_model, "n_layers": default.n_layers}
    if name == "sky":
        own |= {"view": default.view, "epochs": default.epochs, "extra_data": None}
    assert not trained.replace(seed=0, experiment_name=None, **own).differences(default.to_dict())


def test_parameter_file_of_the_thesis_makes_its_network():
    config = TrainConfig.from_dict(read_parameters(SLURM / "train_thesis.yaml"))
    assert runs.default_name(config).startswith("d64_l4_hier_")
    network = from_config(config.to_dict())
    assert (network.stem_stride, network.view, network.gru.num_layers) == (1, "flux", 4)
    assert n_parameters(network) > 100_000


@pytest.mark.parametrize("name", runs.shipped_networks())
def test_model_card_is_what_is_made_of_the_files_beside_it(name):
    folder = weights_dir() / name
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    card = model_card.model_card(load_run(name), log, json.loads((folder / "scores.json").read_text()))
    assert (folder / "README.md").read_text() == card  # if not: python -m benchmarks.model_card NAME
    for file in ("simulate", "train"):
        assert f" -f slurm/{file}_{name}.yaml " in card


def test_scores_of_a_card_are_read_from_an_evaluation(tmp_path):
    share = {"value": 0.9, "interval_95": [0.8, 0.95]}
    called = {"purity": 0.5, "purity_interval_95": [0.4, 0.6], "completeness_observable": None,
              "completeness_observable_interval_95": [None, None]}
    summary = {"n": 9, "average_precision_binary_observable": 0.99, "at_threshold": called,
               "average_precision_binary_observable_interval_95": [0.9, 1],
               "early": {"alerts": {"within_1_day": share, "premature_of_binary_alerts": share}}}
    (tmp_path / "evaluation_summary.json").write_text(json.dumps(summary))
    scores = model_card.scores_of(tmp_path)
    assert scores["purity"] == [0.5, 0.4, 0.6] and scores["alerts within a day of being observable"] == [0.9, 0.8, 0.95]
    assert model_card.score_text(*scores["purity"]) == "0.5 [0.4, 0.6]"
    assert model_card.score_text(*scores["completeness of observable binaries"]) == "not defined"


@pytest.mark.parametrize("network", runs.shipped_networks())
def test_parameter_files_serve_the_command_and_the_notebook(network):
    declared = declared_parameters(find_notebook("03_train"))
    for cls, name in ((SimulateConfig, f"simulate_{network}.yaml"), (TrainConfig, f"train_{network}.yaml")):
        given = read_parameters(SLURM / name)
        assert set(given) <= {f.name for f in fields(cls)} and set(given) <= set(declared)
        config, _ = parse(cls, ["-f", str(SLURM / name)])
        assert config == cls(**given)


@pytest.mark.parametrize("path", sorted(SLURM.glob("*.s*")), ids=lambda p: p.name)
def test_scripts_are_valid_bash_that_stops_at_an_error(path):
    assert subprocess.run(["bash", "-n", str(path)]).returncode == 0
    assert "set -euo pipefail" in path.read_text()
