"""Training on a second dataset beside the one that is validated on, and presets whose binaries can all be observed."""

import numpy as np
import pytest
import yaml

from microlens.config import BINARY, SimulateConfig, TrainConfig
from microlens.data import open_dataset, simulate
from microlens.data.packed import JoinedDatasets, PackedDataset
from microlens.network import load_run
from microlens.network.runs import usable_checkpoint
from microlens.network.training import train
from microlens.sky.population import FOLDER

SMALL = {"d_model": 8, "n_layers": 1, "epochs": 1, "batch_size": 16}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two datasets of the same season and of different seeds."""
    folder = tmp_path_factory.mktemp("extra")
    counts = {"n_flat": 20, "n_pspl": 20, "n_binary": 20}
    return [simulate(SimulateConfig(**counts, seed=seed, output=str(folder / f"seed_{seed}.h5")), progress=False)
            for seed in (3, 4)]


def test_rows_of_joined_datasets_are_those_of_each(files):
    first, second = (PackedDataset(path, "robust") for path in files)
    rows = np.array([61, 3, 119, 60, 0])
    both = JoinedDatasets([first, second])
    assert np.array_equal(both.events(rows[rows < 60]).labels, first.labels[[3, 0]]), "rows of one dataset alone"
    joined = both.events(rows)
    for i, row in enumerate(rows):
        alone = (first if row < 60 else second).events([row % 60])
        n = int(alone.lengths[0])
        assert joined.lengths[i] == n and joined.labels[i] == alone.labels[0]
        for name, size in (("flux", n), ("delta_t", n), ("extra", n // first.block)):
            assert np.array_equal(getattr(joined, name)[i, :size], getattr(alone, name)[0, :size])
            assert not getattr(joined, name)[i, size:].any()


def test_extra_events_are_trained_on_and_never_validated_on(files, tmp_path):
    config = TrainConfig(data=str(files[0]), extra_data=str(files[1]), output=str(tmp_path), **SMALL)
    run = load_run(str(train(config, progress=False)))
    assert run.data["extra"]["config"]["seed"] == 4
    with open_dataset(files[0]) as first, open_dataset(files[1]) as second:
        assert len(run.validation["label"]) == np.sum(run.parts_of(first.config) == "val")
        assert np.all(run.parts_of(second.config) == "train"), "rows of the extra file count as training rows"
    steps = usable_checkpoint(run.folder)["scheduler"]["last_epoch"]
    assert steps == int(np.ceil((42 + 60) / 16)), "a pass has the training part of one and all of the other"


def test_resume_asks_for_the_same_extra_data(files, tmp_path):
    config = TrainConfig(data=str(files[0]), output=str(tmp_path), experiment_name="alone", **SMALL)
    train(config, progress=False)
    with pytest.raises(ValueError, match=r"the extra data .*trained without"):
        train(config.replace(extra_data=str(files[1]), resume="alone"), progress=False)


def test_extra_data_of_the_same_seed_is_an_error(files, tmp_path):
    config = TrainConfig(data=str(files[0]), extra_data=str(files[0]), output=str(tmp_path), **SMALL)
    with pytest.raises(ValueError, match=r"--extra-data .*simulate it with another --seed"):
        train(config, progress=False)


def test_extra_data_that_are_none_are_an_error_before_anything_is_packed(files, tmp_path, monkeypatch):
    monkeypatch.setattr("microlens.network.training.PackedDataset", None)
    config = TrainConfig(data=str(files[0]), extra_data=str(tmp_path / "none.h5"), output=str(tmp_path), **SMALL)
    with pytest.raises(FileNotFoundError, match=r"none\.h5: no dataset"):
        train(config, progress=False)


def test_fresh_events_and_extra_data_exclude_each_other():
    with pytest.raises(ValueError, match="fresh, extra_data"):
        TrainConfig(fresh=True, extra_data="x.h5")


def test_all_binaries_of_a_preset_can_be_observable(tmp_path):
    preset = yaml.safe_load((FOLDER / "roman.yaml").read_text()) | {"observable_binaries": True}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(preset))
    config = SimulateConfig(n_flat=0, n_pspl=2, n_binary=6, binary_preset=str(tmp_path / "mine.yaml"), oversample=60,
                            output=str(tmp_path / "x.h5"))
    with open_dataset(simulate(config, progress=False)) as data:
        assert np.all(data.labels_observable[data.labels == BINARY] == BINARY)
        assert data.preset.observable_binaries
