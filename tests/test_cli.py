"""The way from simulation to figures, small, through the command line that users type."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from microlens.__main__ import main, parse
from microlens.config import SimulateConfig, TrainConfig

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "notebooks" / "light_curves"
SMALL = "--batch-size 16 --d-model 8 --n-layers 1 --stem-stride 64 --epochs 1"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a dataset x.h5 of 20 events a class and a run `one` trained on it, both made by the command."""
    place = tmp_path_factory.mktemp("way")
    events = "--n_flat 20 --n_pspl 20 --n_binary 20 --output x.h5 --num_workers 1"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("MICROLENS_DATA", str(place / "data"))
        patch.setenv("MICROLENS_RUNS", str(place / "runs"))
        for command in (f"simulate {events}", f"train --data x.h5 --experiment-name one {SMALL}"):
            assert main(command.split()) == 0
    return place


@pytest.fixture
def command(place, monkeypatch, capsys):
    """Runs a command in that folder, in this process; returns exit status, standard output and standard error."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("MICROLENS_DATA", str(place / "data"))
    monkeypatch.setenv("MICROLENS_RUNS", str(place / "runs"))

    def command(*arguments):
        status = main(list(map(str, arguments)))
        return status, *capsys.readouterr()

    return command


def test_own_training_file_is_scored_on_held_out_rows_only(command, place):
    status, _, error = command("evaluate", "--experiment-name", "one", "--data", "x.h5")
    assert status == 0, error
    (file,) = place.glob("runs/one/eval_x_*/evaluation_summary.json")
    summary = json.loads(file.read_text())
    assert "held-out" in summary["rows"] and summary["n"] == 9
    assert {"confusion_matrix.png", "calibration.png", "predictions.h5"} <= {p.name for p in file.parent.iterdir()}


DROPPED = """
import signal, sys, time
import microlens.__main__ as commands

class Interrupted:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)  # Python drops what a destructor raises

def stage(arguments):
    Interrupted()
    time.sleep(30)

signal.signal(signal.SIGINT, signal.default_int_handler)
commands.STAGES["doctor"] = stage
sys.exit(commands.main(["doctor"]))
"""


def test_an_interrupt_that_python_drops_is_heard_all_the_same():
    run = subprocess.run([sys.executable, "-c", DROPPED], capture_output=True, text=True, timeout=120)
    assert run.returncode == 130
    assert run.stderr == "interrupted; the same command goes on where it stopped.\n"


@pytest.mark.parametrize("arguments, message", [
    (["evaluate", "--experiment-name", "nothing", "--data", "x.h5"], "no run named 'nothing'"),
    (["classify", "x.csv", "--experiment-name", "skye"], "The shipped networks are baseline, roman, sky."),
    (["evaluate", "--experiment-name", "one", "--data", "gone.h5"], "gone.h5"),
    (["train", "--data", "gone.h5"], "gone.h5"),
    (["train", "--data", "x.h5", "--experiment-name", "roman"], "'roman' is the name of a shipped network"),
    (["train", "--data", "x.h5", "--experiment-name", "../out"], "../out"),
    (["simulate", "--binary_preset", "unheard", "--output", "y.h5"], "unheard"),
    (["notebook", "01_simulate", "-p", "n_binaries", "5"], "n_binaries"),
    (["fly"], "fly"),
], ids=lambda x: x if isinstance(x, str) else x[0])
def test_wrong_input_is_one_line_that_names_it(command, arguments, message):
    status, _, error = command(*arguments)
    assert status != 0 and message in error.splitlines()[-1] and error.splitlines()[-1].startswith("error: ")


def test_a_rank_ends_with_its_status_and_all_that_it_printed():
    """Without the interpreter's clearing up, in which a thread of gloo may abort it."""
    arguments = [sys.executable, "-m", "microlens"]
    run = subprocess.run(arguments, env={**os.environ, "WORLD_SIZE": "2"}, capture_output=True, text=True)
    assert run.returncode == 2 and run.stdout == subprocess.run(arguments, capture_output=True, text=True).stdout != ""


def test_output_that_nobody_reads_is_one_clear_error():
    """The reader of a pipe is gone before anything is printed."""
    files = sorted(map(str, EXAMPLES.glob("*.gz")))
    run = subprocess.Popen([sys.executable, "-m", "microlens", "classify", *files], stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, text=True)
    run.stdout.close()
    assert "error: nobody reads the output any more" in run.stderr.read() and run.wait() == 1


def test_classify_goes_on_after_a_broken_file_and_says_so(command, place):
    (place / "broken.dat").write_text("no numbers here\n")
    files = (EXAMPLES / "pspl.csv.gz", "broken.dat")
    status, output, error = command("classify", *files, "--experiment-name", "one", "--format", "json")
    assert status == 1 and "broken.dat" in error
    assert [Path(season["file"]).name for season in json.loads(output)] == ["pspl.csv.gz"]


def test_shipped_weights_call_the_examples_what_they_are(command):
    truth = {"flat_phot.dat": "flat", "pspl.csv.gz": "pspl", "binary.txt.gz": "binary"}
    status, output, error = command("classify", *(EXAMPLES / name for name in truth), "--format", "csv")
    assert status == 0, error
    assert pd.read_csv(io.StringIO(output))["class"].tolist() == list(truth.values())


# ---- parameter files ------------------------------------------------------------------------------------------------


def test_numbers_of_a_parameter_file_are_as_people_write_them_and_flags_have_the_last_word(tmp_path):
    file = tmp_path / "p.yaml"
    file.write_text("lr: 1e-3\nweight_decay: 0\nfresh: yes\nseed: 5\n")
    config, _ = parse(TrainConfig, ["-f", str(file), "--seed", "77"])
    assert config == TrainConfig(lr=0.001, weight_decay=0.0, fresh=True, seed=77)


@pytest.mark.parametrize("cls, text, message", [
    (SimulateConfig, "n_binaries: 5\n", "n_binaries"),
    (SimulateConfig, "- 5\n", "name: value"),
    (TrainConfig, "lr: 1e-3x\n", "lr: came '1e-3x', expected > 0"),
    (TrainConfig, "fresh: 'no'\n", "fresh: came 'no', expected true or false"),
    (TrainConfig, "epochs: [1\n", "no readable YAML"),
])
def test_bad_parameter_file_is_one_line_that_names_the_parameter(tmp_path, cls, text, message):
    file = tmp_path / "p.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        parse(cls, ["-f", str(file)])
    assert "\n" not in str(caught.value)
