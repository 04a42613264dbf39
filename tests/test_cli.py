"""The way from simulation to figures, small, through the command line that users type."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from microlens.notebook import check, run_notebook

ROOT = Path(__file__).parents[1]
SMALL = ["--batch-size", "16", "--d-model", "8", "--n-layers", "1", "--n-heads", "2", "--stem-stride", "32", "--dropout", "0.0"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("way")
    env = {**os.environ, "MICROLENS_DATA": str(place / "data"), "MICROLENS_RUNS": str(place / "runs"), "OMP_NUM_THREADS": "1"}

    def run(*arguments, launcher=()):
        return subprocess.run([sys.executable, *launcher, "-m", "microlens", *map(str, arguments)], cwd=place, env=env,
                              capture_output=True, text=True, timeout=300)

    run.place = place
    made = run("simulate", "--n_flat", 60, "--n_pspl", 60, "--n_binary", 60, "--output", "x.h5", "--num_workers", 1)
    assert made.returncode == 0, made.stderr
    made = run("train", "--data", "x.h5", "--epochs", 2, "--experiment-name", "one", *SMALL)
    assert made.returncode == 0, made.stderr
    return run


def test_own_training_file_is_scored_on_held_out_rows_only(run):
    made = run("evaluate", "--experiment-name", "on", "--data", "x.h5")
    assert made.returncode == 0, made.stderr
    (file,) = run.place.glob("runs/one/eval_x_*/evaluation_summary.json")
    summary = json.loads(file.read_text())
    assert "held-out" in summary["rows"] and summary["n"] == 27
    assert {"confusion_matrix.png", "calibration.png", "predictions.h5"} <= {p.name for p in file.parent.iterdir()}


def test_two_ranks_train_like_one(run):
    made = run("train", "--data", "x.h5", "--epochs", 2, "--experiment-name", "two", *SMALL,
               launcher=("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"))
    assert made.returncode == 0, made.stderr
    one, two = ([json.loads(x) for x in (run.place / "runs" / n / "log.jsonl").read_text().splitlines()] for n in ("one", "two"))
    assert [r["val_loss"] for r in two] == pytest.approx([r["val_loss"] for r in one], rel=1e-4)


@pytest.mark.parametrize("arguments, message", [
    (["evaluate", "--experiment-name", "nothing", "--data", "x.h5"], "one"),
    (["evaluate", "--experiment-name", "one", "--data", "gone.h5"], "gone.h5"),
    (["train", "--data", "gone.h5"], "gone.h5"),
    (["simulate", "--binary_preset", "unheard", "--output", "y.h5"], "unheard"),
    (["notebook", "01_simulate", "-p", "n_binaries", "5"], "n_binaries"),
    (["fly"], "fly"),
])
def test_wrong_input_is_one_line_that_names_it(run, arguments, message):
    made = run(*arguments)
    assert made.returncode != 0 and message in made.stderr and "Traceback" not in made.stderr


def test_classify_goes_on_after_a_broken_file_and_says_so(run):
    (run.place / "broken.dat").write_text("no numbers here\n")
    good = ROOT / "notebooks" / "light_curves" / "pspl.csv.gz"
    made = run("classify", good, "broken.dat", "--experiment-name", "one", "--json")
    assert made.returncode == 1 and "broken.dat" in made.stderr and "pspl.csv.gz" in made.stdout


def test_shipped_weights_call_the_examples_what_they_are(run):
    examples = ROOT / "notebooks" / "light_curves"
    truth = {"flat_phot.dat": "flat", "pspl.csv.gz": "pspl", "binary.txt.gz": "binary"}
    made = run("classify", *(examples / name for name in truth), "--csv")
    assert made.returncode == 0, made.stderr
    table = pd.read_csv(io.StringIO(made.stdout))
    assert table["class"].tolist() == list(truth.values())


def test_parameter_that_a_notebook_does_not_declare(tmp_path):
    with pytest.raises(ValueError, match="n_binaries"):
        run_notebook("01_simulate", {"n_binaries": 5}, tmp_path / "x.ipynb")


def test_check_has_teeth():
    check("one", 1.0, 1.0, 1e-9, "definition")
    with pytest.raises(AssertionError, match="one"):
        check("one", 1.1, 1.0, 1e-9, "definition")
