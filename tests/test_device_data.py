"""The packed data set on a device gives the batches of the memory-mapped one, bit for bit; the device here is the CPU."""

import numpy as np
import pytest
import torch

from microlens.config import SimulateConfig
from microlens.dataset import Events, PackedDataset
from microlens.device_data import DeviceData, held
from microlens.simulate import simulate


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A dataset in int16 codes, and one of the noiseless kind that is kept in float32; a quarter of the epochs is lost."""
    place = tmp_path_factory.mktemp("device")
    config = SimulateConfig(n_flat=4, n_pspl=4, n_binary=4, missing_fraction=0.25, num_workers=1)
    return place, [simulate(config.replace(noise_scale=scale, output=str(place / f"{scale}.h5")), progress=False)
                   for scale in (1.0, 0.1)]


@pytest.mark.parametrize("view", ["flux", "running", "residual"])
@pytest.mark.parametrize("file", [0, 1], ids=["int16", "float32"])
def test_batches_are_those_of_the_memory_map_bit_for_bit(files, file, view, monkeypatch):
    monkeypatch.setenv("MICROLENS_DATA", str(files[0]))
    data = PackedDataset(files[1][file], view)
    source = held(data, torch.device("cpu"), "yes")
    assert isinstance(source, DeviceData) and data.codes.dtype == [np.int16, np.float32][file]
    for rows in (np.arange(12), np.array([7, 2, 9]), np.array([5])):
        expected, made = data.events(rows), source.events(rows)
        for name in Events._fields:
            a, b = getattr(expected, name), getattr(made, name)
            assert (a is None and b is None) or (np.array_equal(a, np.asarray(b)) and a.dtype == np.asarray(b).dtype), name
    assert torch.is_tensor(made.flux) and torch.is_tensor(made.delta_t)


def test_auto_takes_a_gpu_that_has_room(files, monkeypatch, caplog):
    monkeypatch.setenv("MICROLENS_DATA", str(files[0]))
    caplog.set_level("INFO")
    data, cpu, gpu = PackedDataset(files[1][0]), torch.device("cpu"), torch.device("cuda")
    size = data.codes.nbytes + data.masks.nbytes
    assert held(data, cpu, "auto") is data and "mapped from the disk (no GPU)" in caplog.text
    monkeypatch.setattr("microlens.device_data.DeviceData", lambda *given: given)  # there is no GPU to put it on
    for free, fits in ((2 * size - 10, False), (2 * size + 10, True)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 10 * free))
        assert held(data, gpu, "auto") == ((data, gpu) if fits else data)
    assert "in the memory of cuda" in caplog.text and held(data, gpu, "no") is data
