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
