import copy
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import microlens
from microlens.config import SimulateConfig, TrainConfig
from microlens.data.packed import Events, PackedDataset, batches
from microlens.data.simulation import simulate
from microlens.network.model import Classifier, loss_parts, n_flops
from microlens.network.ranks import Ranks
from microlens.network.runs import read_checkpoint
from microlens.network.training import N_PREFIXES, Trainer, learning_rate, train

TIMES = ("events_per_second", "matmul_share", "seconds")  # of a line of the log, which no two runs share


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a small dataset x.h5: 20 events of each class, of which 14 each are trained on."""
    place = tmp_path_factory.mktemp("train")
    simulate(SimulateConfig(n_flat=20, n_pspl=20, n_binary=20, output=str(place / "x.h5"), num_workers=1), progress=False)
    return place


@pytest.fixture
def config(place, tmp_path, monkeypatch):
    monkeypatch.setenv("MICROLENS_DATA", str(place / "data"))
    monkeypatch.setenv("MICROLENS_RUNS", str(tmp_path / "runs"))
    return TrainConfig(data=str(place / "x.h5"), epochs=2, batch_size=8, d_model=8, n_layers=1, n_heads=2, stem_stride=32, threads=1)


def run(config, name, **changes):
    return train(config.replace(experiment_name=name, **changes), progress=False)


def weights(run):
    return read_checkpoint(run / "checkpoints" / "checkpoint_latest.pt")["model"]


def equal(a, b):
    return all(torch.equal(a[k], b[k]) for k in a) and a.keys() == b.keys()


def close(a, b, atol):
    return all(torch.allclose(a[k], b[k], rtol=0, atol=atol) for k in a) and a.keys() == b.keys()


def records(run):
    return [{k: v for k, v in json.loads(x).items() if k not in TIMES} for x in (run / "log.jsonl").read_text().splitlines()]


# ---- resuming ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{"dropout": 0.3}, {"fresh": True}, {"accumulation_steps": 4}, {"ema": 0.9}], ids=str)
def test_stopped_after_every_step_ends_like_an_uninterrupted_run_bit_for_bit(config, changes):
    whole = run(config, "whole", **changes)
    for links in range(1, 20):  # noqa: B007  (read after the loop)
        part = run(config, "part", resume="auto", wall_minutes=1e-9, **changes)
        if (part / "complete").exists():
            break
    # 42 events make 6 batches, the last of 2; a link takes one step and is stopped in the middle and at the end of an epoch.
    assert links >= 2 * math.ceil(6 / changes.get("accumulation_steps", 1))
    assert equal(weights(whole), weights(part))
    assert records(whole) == records(part) and len(records(part)) == 2
    assert equal(read_checkpoint(whole / "best.pt")["model"], read_checkpoint(part / "best.pt")["model"])


def test_sigterm_stops_with_a_checkpoint_from_which_it_goes_on(config):
    whole = run(config, "whole")
    part = train(config.replace(experiment_name="part"), progress=False, on_epoch=lambda record: os.kill(os.getpid(), signal.SIGTERM))
    assert len(records(part)) == 1 and not (part / "complete").exists()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL  # the handler is gone with the training
    assert equal(weights(whole), weights(run(config, "part", resume="part")))


def killed(config, changes, after):
    """A training in a process of its own that is killed `after(its id)`; it may also kill itself."""
    child = os.fork()
    if child == 0:
        try:
            run(config, "part", resume="auto", **changes)
        finally:
            os._exit(0)
    after(child)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_kill_9_at_any_moment_leaves_a_checkpoint_that_loads(config):
    changes = {"epochs": 4, "checkpoint_minutes": 1e-9}  # a checkpoint after each step
    whole, rng = run(config, "whole", **changes), np.random.default_rng(0)
    latest = whole.parent / "part" / "checkpoints" / "checkpoint_latest.pt"

    def a_moment(child):
        end = time.monotonic() + 30
        while not latest.exists() and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(rng.uniform(0.0, 0.3))

    for _ in range(3):
        killed(config, changes, a_moment)
        read_checkpoint(latest)
    assert equal(weights(whole), weights(run(config, "part", resume="auto", **changes)))


@pytest.mark.parametrize("nth", [2, 8])  # the second step's, and that of the best epoch, which is written before the latest
def test_kill_9_in_the_middle_of_writing_leaves_the_checkpoint_before(config, nth, monkeypatch):
    changes = {"checkpoint_minutes": 1e-9}
    whole, real, calls = run(config, "whole", **changes), torch.save, []

    def half(content, path):
        real(content, path)
        calls.append(path)
        if len(calls) == nth:
            os.truncate(path, os.path.getsize(path) // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", half)
        killed(config, changes, lambda child: os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT))
    part = whole.parent / "part"
    assert not (part / "complete").exists() and read_checkpoint(part / "checkpoints" / "checkpoint_latest.pt")["step"] in (1, 6)
    assert equal(weights(whole), weights(run(config, "part", resume="auto", **changes)))


def test_damaged_latest_checkpoint_falls_back_on_the_epoch_before(config, caplog):
    whole = run(config, "whole")
    part = run(config, "part", wall_minutes=1e-9)
    while len(list(part.glob("epoch_*.pt"))) < 1:
        run(config, "part", resume="part", wall_minutes=1e-9)
    (part / "checkpoints" / "checkpoint_latest.pt").write_bytes(b"truncated")
    run(config, "part", resume="part")
    assert "checkpoint_latest.pt" in caplog.text
    assert equal(weights(whole), weights(part))


def test_auto_continues_the_newest_run_of_the_same_configuration(config):
    other = run(config, "other", wall_minutes=1e-9, lr=1e-4)
    mine = run(config, "mine", wall_minutes=1e-9)
    fresh = train(config.replace(resume="auto", seed=7, wall_minutes=1e-9), progress=False)
    assert fresh not in (mine, other) and re.fullmatch(r"d8_l1_hier_\d{8}_\d{6}", fresh.name)
    assert train(config.replace(resume="auto"), progress=False) == mine
    assert not (other / "complete").exists() and (mine / "complete").exists()
    assert train(config.replace(resume="auto"), progress=False) == mine  # a complete one is returned as it is


def test_resuming_with_another_configuration_names_the_fields(config):
    run(config, "part", wall_minutes=1e-9)
    with pytest.raises(ValueError, match=r"dropout: here 0.1, there 0.3; lr: here 0.0001, there 0.003"):
        run(config, "part", resume="part", lr=1e-4, dropout=0.1)
    with pytest.raises(ValueError, match="--resume part"):
        run(config, "part")
    with pytest.raises(FileNotFoundError, match="part"):
        microlens.load("unknown")


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_checkpoint_from_elsewhere_cannot_run_code(config, tmp_path):
    part = run(config, "part", wall_minutes=1e-9)
    latest, trace = part / "checkpoints" / "checkpoint_latest.pt", tmp_path / "trace"
    torch.save({"model": Evil(trace)}, latest)
    torch.load(latest, weights_only=False)  # the file is as evil as it should be
    assert trace.exists()
    trace.unlink()
    with pytest.raises(ValueError, match=r"checkpoint_latest\.pt"):
        read_checkpoint(latest)
    with pytest.raises(ValueError, match=r"checkpoint_latest\.pt"):
        run(config, "new", initial=str(latest))
    run(config, "part", resume="part")
    assert not trace.exists()


def test_initial_starts_from_the_weights_of_another_run(config):
    first = run(config, "first")
    # A rate this small moves no weight by more than 1e-6 (AdamW moves by the rate a step).
    a, b = (read_checkpoint(r / "best.pt")["model"] for r in (first, run(config, "second", initial="first", lr=1e-9, epochs=1)))
    assert close(a, b, 1e-6) and torch.equal(a["mean"], b["mean"])
    assert json.loads((first.parent / "second" / "config.json").read_text())["initial"] == "first"
    with pytest.raises(ValueError, match=r"d_model: here 16, there 8.*stem_stride"):
        run(config, "wide", initial=str(first / "best.pt"), d_model=16, stem_stride=16)
    with pytest.raises(FileNotFoundError, match="nothing"):
        run(config, "none", initial="nothing")
    with pytest.raises(ValueError, match="held out"):  # another split of the same file
        run(config, "leak", initial="first", seed=5)
    assert not (first.parent / "leak").exists()


# ---- ranks ------------------------------------------------------------------------------------------------------------------


def torchrun(config, name, **changes):
    """Two ranks on this machine."""
    flags = {**{k: v for k, v in config.to_dict().items() if v != getattr(TrainConfig(), k)}, **changes, "experiment_name": name}
    words = [w for k, v in flags.items() for w in ([f"--{k}"] if v is True else [f"--{k}", str(v)])]
    return subprocess.Popen([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "microlens",
                             "train", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            env={**os.environ, "OMP_NUM_THREADS": "1"})


def test_two_ranks_train_like_one(config):
    # 42 events: batches of 20, 21 in two optimiser steps of which the second is one event, so that a rank has none.
    changes = {"batch_size": 41, "epochs": 4, "dropout": 0.0, "fresh": True, "class_weights": "balanced"}
    one, process = run(config, "one", **changes), torchrun(config, "two", **changes)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    two = one.parent / "two"
    assert close(weights(one), weights(two), 1e-5), output  # single precision, added up in another order
    for a, b in zip(records(one), records(two), strict=True):
        assert b == pytest.approx(a, rel=1e-4)


def test_the_other_rank_ends_when_one_dies(config):
    process = torchrun(config, "dying", epochs=100000)
    log = Path(os.environ["MICROLENS_RUNS"]) / "dying" / "log.jsonl"
    end = time.monotonic() + 90
    while not log.exists() and time.monotonic() < end:
        time.sleep(0.1)
    ranks = [int(p.name) for p in Path("/proc").glob("[0-9]*") if is_child(p, process.pid)]
    assert len(ranks) == 2
    os.kill(ranks[1], signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0 and "Signal 9" in output
    assert not any(Path(f"/proc/{r}").exists() for r in ranks)
    assert read_checkpoint(log.parent / "checkpoints" / "checkpoint_latest.pt")["epoch"] >= 1


def is_child(entry, parent):
    try:
        return int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1]) == parent
    except OSError:
        return False


# ---- the loss ---------------------------------------------------------------------------------------------------------------


def whole_loss(trainer, events, class_weights):
    trainer.class_weights = np.array(class_weights, np.float32)
    targets = trainer.targets(events, 0, len(events.labels))
    totals = float(targets[2].sum()), float((targets[2] * (targets[1] != 0)).sum())
    return trainer.loss(events, targets, totals, "").item()


def test_class_weights_count_events_as_often_as_repeating_them(config):
    trainer = Trainer(config.replace(labels="simulated", dropout=0.0), Ranks(), False)
    rows = trainer.train_rows[:30]
    repeated = np.repeat(rows, np.array([1, 2, 3])[trainer.data.labels[rows]])
    weighted = whole_loss(trainer, trainer.data.events(rows), [1, 2, 3])
    assert weighted == pytest.approx(whole_loss(trainer, trainer.data.events(repeated), [1, 1, 1]), rel=1e-5)
    assert weighted != pytest.approx(whole_loss(trainer, trainer.data.events(rows), [1, 1, 1]), rel=1e-3)


def test_balanced_class_weights_give_each_class_a_third(config):
    trainer = Trainer(config.replace(class_weights="balanced"), Ranks(), False)
    counts = np.bincount(trainer.data.labels_observable[trainer.train_rows])
    assert counts * trainer.class_weights == pytest.approx([14, 14, 14])


def test_accumulated_batches_train_like_one_large_one(config):
    changes = {"labels": "simulated", "dropout": 0.0}
    large, small = run(config, "large", batch_size=16, **changes), run(config, "small", accumulation_steps=2, **changes)
    assert close(weights(large), weights(small), 1e-6)


def test_the_average_of_the_weights_is_what_is_kept_and_does_not_touch_the_training(config, monkeypatch):
    seen, step = [], torch.optim.AdamW.step

    def noted(self, *args, **kwargs):
        step(self, *args, **kwargs)
        seen.append(torch.cat([p.detach().flatten() for group in self.param_groups for p in group["params"]]))

    plain = run(config, "plain", dropout=0.0)
    monkeypatch.setattr(torch.optim.AdamW, "step", noted)
    averaged = run(config, "averaged", dropout=0.0, ema=0.75)
    expected = seen[0]
    for weights_then in seen[1:]:
        expected = 0.75 * expected + 0.25 * weights_then
    saved = read_checkpoint(averaged / "checkpoints" / "checkpoint_latest.pt")
    assert equal(saved["trained"], weights(plain))
    model = microlens.load("averaged", "latest")
    parameters = sorted(model.parameters(), key=lambda p: p.ndim <= 1)  # the optimiser's order: decayed ones first
    assert torch.allclose(torch.cat([p.detach().flatten() for p in parameters]), expected, rtol=0, atol=1e-6)
    assert records(averaged)[-1]["val_loss"] != records(plain)[-1]["val_loss"]


def test_compiled_network_trains_like_the_plain_one(config):
    plain, compiled = (run(config, f"compile_{on}", epochs=1, dropout=0.0, compile=on) for on in (False, True))
    assert close(weights(plain), weights(compiled), 1e-5)
    assert read_checkpoint(compiled / "best.pt")["model"].keys() == weights(plain).keys()  # loads without torch.compile


def test_data_on_the_device_train_like_the_memory_map_bit_for_bit(config, caplog):
    caplog.set_level("INFO")
    mapped, there = (run(config, name, data_on_device=name) for name in ("no", "yes"))
    assert "in the memory of cpu (asked for)" in caplog.text
    assert equal(weights(mapped), weights(there)) and records(mapped) == records(there)


def test_loss_that_is_not_finite_names_batch_and_event(config, monkeypatch):
    order = batches(Trainer(config, Ranks(), False).train_rows, 8, 0, 0)
    bad, events = int(order[3][5]), PackedDataset.events

    def poisoned(self, rows):
        made = events(self, rows)
        made.flux[rows == bad] = np.nan
        return made

    monkeypatch.setattr(PackedDataset, "events", poisoned)
    with pytest.raises(FloatingPointError, match=rf"batch 3 of epoch 0, events \[.*\b{bad}\b"):
        run(config, "poisoned")


def test_prefixes_are_labelled_by_what_is_observable_by_then():
    never = 10**9
    known = {"labels": [2, 2, 1, 0], "labels_observable": [2, 1, 1, 0], "seen_flat": [50, 50, 50, never],
             "seen_pspl": [80, 80, never, never]}
    events = Events(None, None, None, None, **{k: np.array(v) for k, v in known.items()})
    counts = np.tile([10, 49, 50, 79, 80, 100], (4, 1))
    assert events.prefix_labels(counts).tolist() == [[0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1], [0] * 6]


def test_simulated_labels_switch_the_prefixes_off(config):
    trainer = Trainer(config.replace(labels="simulated"), Ranks(), False)
    rows = trainer.train_rows[:10]
    steps, labels, weight = trainer.targets(trainer.data.events(rows), 0, 10)
    assert steps.shape == (10, 1) and (weight == 1).all() and labels[:, 0].tolist() == trainer.data.labels[rows].tolist()
    steps, labels, weight = Trainer(config, Ranks(), False).targets(trainer.data.events(rows), 0, 10)
    assert steps.shape == (10, 1 + N_PREFIXES) and weight.sum() == pytest.approx(10 * (1 + config.prefix_weight))
    assert labels[:, 0].tolist() == trainer.data.labels_observable[rows].tolist()


def test_loss_parts_of_a_flat_event_leave_the_second_stage_alone():
    out = {"event": torch.zeros(1, 1), "binary": torch.full((1, 1), 5.0), "aux": torch.zeros(1, 1, 3)}
    parts = loss_parts(out, torch.zeros(1, 1, dtype=torch.long), torch.ones(1, 1), None)
    assert parts["stage2"] == 0 and parts["stage1"] == pytest.approx(math.log(2)) and parts["aux"] == pytest.approx(math.log(3))


# ---- what is written --------------------------------------------------------------------------------------------------------


def test_log_holds_what_a_training_is_judged_by(config, caplog):
    caplog.set_level("INFO")
    first, second = (json.loads(x) for x in (run(config, "logged") / "log.jsonl").read_text().splitlines())
    assert {"epoch", "step", "lr", "train_loss", "stage1", "stage2", "aux", "val_loss", "val_accuracy", "recall_flat", "recall_pspl",
            "recall_binary", "val_average_precision", "events_per_second", "matmul_share", "seconds"} == set(first)
    assert first["train_loss"] == pytest.approx(first["stage1"] + first["stage2"] + first["aux"], rel=1e-6)
    assert second["lr"] == pytest.approx(learning_rate(11, 12, 6, config.lr)) and 0 < first["matmul_share"] < 1
    assert "FLOP" in caplog.text and "events/s" in caplog.text
    if not torch.cuda.is_available():
        assert "attention of whole curves: sdpa (no GPU); of prefixes: cumulative sums" in caplog.text


@pytest.mark.parametrize("changes", [{}, {"labels": "simulated"}], ids=str)
def test_the_attention_trains_like_the_cumulative_sums(config, changes):
    """Truth: the sums; only validation and, without prefixes, the loss may use the kernel. Rounding alone differs."""
    sums, kernel = (run(config, name, attention_backend=name, dropout=0.0, **changes) for name in ("cumulative", "sdpa"))
    assert close(weights(sums), weights(kernel), 1e-5)
    for a, b in zip(records(sums), records(kernel), strict=True):
        assert b == pytest.approx(a, rel=1e-4)
    assert equal(weights(sums), weights(kernel)) == (not changes)


def test_learning_rate_warms_up_and_falls_to_a_hundredth():
    rates = [learning_rate(i, 100, 10, 2.0) for i in range(101)]
    assert rates[9] == 2.0 == max(rates) and rates[0] == pytest.approx(0.2) and rates[-1] == pytest.approx(0.02)
    assert (np.diff(rates[:10]) > 0).all() and (np.diff(rates[10:]) < 0).all()


def test_flops_by_hand():
    c = Classifier(d_model=8, n_layers=2, n_heads=2, window_size=5, stem_stride=4)
    step = 4 * 3 * 8 + 2 * (5 * 8 + 8 * 8) + 2 * (2 * 3 * 8 * 8) + 8 * 16 + 8  # stem, convolutions, GRU layers, keys and values, query
    head = 16 * 8 + 8 + 8 + 3 * 8
    assert n_flops(c, 403, 5) == 2 * (100 * step + 5 * head)


def test_batches_depend_on_seed_and_epoch_alone_and_take_each_event_once():
    rows = np.arange(42)
    first = batches(rows, 8, 3, 5)
    assert [len(b) for b in first] == [8, 8, 8, 8, 8, 2] and sorted(np.concatenate(first)) == rows.tolist()
    assert all(np.array_equal(a, b) for a, b in zip(first, batches(rows, 8, 3, 5), strict=True))
    assert not np.array_equal(first[0], batches(rows, 8, 3, 6)[0]) and not np.array_equal(first[0], batches(rows, 8, 4, 5)[0])


def test_scaling_is_of_training_events_only(config):
    clean = Trainer(config, Ranks(), False)
    data = copy.copy(clean.data)
    assert torch.allclose(clean.model.mean, scaling(data, clean.train_rows), atol=1e-5)
    assert not torch.allclose(clean.model.mean, scaling(data, np.arange(data.n_events)), atol=1e-5)


def scaling(data, rows):
    flux, delta_t, lengths, extra = data.gather(rows)
    valid = np.arange(flux.shape[1]) < lengths[:, None]
    return Classifier.raw_features(*map(torch.from_numpy, (flux, delta_t, extra)))[torch.from_numpy(valid)].mean(0)


def test_training_stops_early_where_nothing_improves(config):
    idle = run(config, "idle", lr=1e-15, patience=2, epochs=9, dropout=0.0)
    assert len(records(idle)) == 3 and (idle / "complete").exists()


def test_bf16_is_close_to_fp32(config):
    full, half = (records(run(config, name, precision=name, dropout=0.0)) for name in ("fp32", "bf16"))
    # bf16 keeps 8 bits, so a loss about 1 may differ by a few thousandths after twelve steps.
    assert [r["val_loss"] for r in half] == pytest.approx([r["val_loss"] for r in full], abs=0.02) and half != full
