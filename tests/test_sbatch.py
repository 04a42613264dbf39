"""The batch scripts' own logic, with sbatch, srun and scontrol replaced by ones that write down how they were called; the parameter
files. tests/test_slurm.py (`make validate`) runs the scripts on a real SLURM."""

import os
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest

from microlens.__main__ import parse
from microlens.config import SimulateConfig, TrainConfig, read_parameters
from microlens.notebook import declared_parameters, find_notebook

SLURM = Path(__file__).parents[1] / "slurm"
STUBS = {"sbatch": 'echo "sbatch LINKS=${LINKS:-} REACHED=${REACHED:-} $*" >> calls; echo 9',
         "srun": 'echo "srun $*" >> calls; eval "${TRAINING:-}"',
         "scontrol": "echo n1; echo n2"}
CHECKPOINT = "runs/chain/checkpoints/checkpoint_latest.pt"


@pytest.fixture
def link(tmp_path):
    """Runs one link of a chain in a folder of its own; returns its exit code and the calls that it made."""
    (tmp_path / "bin").mkdir()
    for name, body in STUBS.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / "bin" / name).chmod(0o755)

    def link(**variables):
        (tmp_path / "calls").write_text("")
        environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]",
                       "SLURM_JOB_NUM_NODES": "2", "SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_FOLDER": str(SLURM), "NAME": "chain",
                       "MICROLENS_RUNS": "runs", "DATA": "x.h5", "LINKS": "3", **variables}
        made = subprocess.run(["bash", str(SLURM / "train.sbatch")], cwd=tmp_path, env=environment, capture_output=True, text=True)
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
    code, calls, _ = link(REACHED=successor.split("REACHED=")[1].split()[0])  # the file is the same as that link found it
    assert code == 1 and not calls


def test_a_requeued_link_does_not_submit_another_successor(link):
    code, calls, _ = link(SLURM_RESTART_COUNT="1", REACHED="nothing")
    assert code == 0 and len(calls) == 1 and calls[0].startswith("srun")


def test_a_failed_training_is_a_failed_link_whose_successor_stands(link):
    code, calls, _ = link(TRAINING="exit 3")
    assert code == 3 and len(calls) == 2


@pytest.mark.parametrize("variables, n_trained", [({}, 0), ({"LINKS": "0", "TRAINING": "touch runs/chain/complete"}, 1)])
def test_a_complete_run_is_evaluated_and_drawn(link, variables, n_trained):
    if not n_trained:
        (link.place / "runs/chain/complete").write_text("")
    code, calls, _ = link(**variables)
    assert code == 0 and sum(c.startswith("srun") for c in calls) == n_trained
    evaluated, drawn = calls[n_trained:]
    assert evaluated.endswith("evaluate.sbatch") and drawn.endswith("figures.sbatch") and "--dependency=afterok:9" in drawn


def test_parameter_files_serve_the_command_and_the_notebook():
    declared = declared_parameters(find_notebook("03_train"))
    for cls, name in ((SimulateConfig, "simulate.yaml"), (TrainConfig, "train.yaml")):
        given = read_parameters(SLURM / name)
        assert set(given) <= {f.name for f in fields(cls)} and set(given) <= set(declared)
        config, _ = parse(cls, ["-f", str(SLURM / name), "--seed", "77"])
        assert config == cls(**{**given, "seed": 77})  # a flag has the last word


def test_unknown_parameter_of_a_file_is_named(tmp_path):
    file = tmp_path / "p.yaml"
    file.write_text("n_binaries: 5\n")
    with pytest.raises(ValueError, match="n_binaries"):
        parse(SimulateConfig, ["-f", str(file)])
    file.write_text("- 5\n")
    with pytest.raises(ValueError, match="name: value"):
        parse(SimulateConfig, ["-f", str(file)])


@pytest.mark.parametrize("path", sorted(SLURM.glob("*.s*")), ids=lambda p: p.name)
def test_scripts_are_valid_bash_that_stops_at_an_error(path):
    assert subprocess.run(["bash", "-n", str(path)]).returncode == 0
    assert "set -euo pipefail" in path.read_text()
