import json

import pytest
import torch

import microlens
from microlens.config import SimulateConfig, TrainConfig
from microlens.simulate import simulate
from microlens.train import train


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setenv("MICROLENS_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("MICROLENS_RUNS", str(tmp_path / "runs"))
    simulated = SimulateConfig(n_flat=20, n_pspl=20, n_binary=20, output=str(tmp_path / "x.h5"), num_workers=1)
    data = simulate(simulated, progress=False)
    return TrainConfig(data=str(data), epochs=2, batch_size=8, d_model=8, n_layers=1, n_heads=2, stem_stride=32, threads=1)


def weights(run):
    return torch.load(run / "checkpoints" / "checkpoint_latest.pt", weights_only=True)["model"]


def test_resumed_is_uninterrupted_bit_for_bit(config):
    whole = train(config.replace(experiment_name="whole"), progress=False)
    part = train(config.replace(experiment_name="part", wall_minutes=1e-6), progress=False)
    assert not (part / "complete").exists()
    part = train(config.replace(experiment_name="part", resume="part"), progress=False)
    a, b = weights(whole), weights(part)
    assert all(torch.equal(a[k], b[k]) for k in a)
    with pytest.raises(ValueError, match="lr"):
        train(config.replace(resume="part", lr=1e-4), progress=False)
    with pytest.raises(FileNotFoundError, match="whole"):
        microlens.load("unknown")
    (part / "checkpoints" / "checkpoint_latest.pt").write_bytes(b"truncated")
    assert train(config.replace(resume="part"), progress=False) == part


def test_initial_starts_from_the_weights_of_another_run(config):
    first = train(config.replace(experiment_name="first"), progress=False)
    # A peak rate this small moves no weight by more than 1e-6 (AdamW moves by the rate a step).
    second = config.replace(experiment_name="second", initial="first", lr=1e-9, epochs=1)
    a, b = (torch.load(r / "best.pt", weights_only=True)["model"] for r in (first, train(second, progress=False)))
    assert all(torch.allclose(a[k], b[k], atol=1e-6) for k in a) and torch.equal(a["mean"], b["mean"])
    stated = json.loads((first.parent / "second" / "config.json").read_text())
    assert stated["initial"] == "first"
    with pytest.raises(ValueError, match=r"d_model: here 16, there 8.*stem_stride"):
        train(config.replace(experiment_name="wide", initial=str(first / "best.pt"), d_model=16, stem_stride=16), progress=False)
    with pytest.raises(FileNotFoundError, match="nothing"):
        train(config.replace(experiment_name="none", initial="nothing"), progress=False)
    with pytest.raises(ValueError, match="held out"):  # another split of the same file
        train(config.replace(experiment_name="leak", initial="first", seed=5), progress=False)
    assert not (first.parent / "leak").exists()
