import hashlib

import numpy as np
import pytest
import yaml

from microlens.config import SimulateConfig
from microlens.population import FOLDER
from microlens.simulate import simulate
from microlens.store import DatasetError, open_dataset
from microlens.survey import sigma_flux

SMALL = {"n_flat": 12, "n_pspl": 12, "n_binary": 12, "shard_size": 16}


def make(path, **more):
    return simulate(SimulateConfig(**{**SMALL, "output": str(path), **more}), progress=False)


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_bytes_do_not_depend_on_workers_parts_or_interruption(tmp_path):
    one = digest(make(tmp_path / "a" / "x.h5", num_workers=1))
    assert digest(make(tmp_path / "b" / "x.h5", num_workers=2)) == one
    for part in ("0/2", "1/2"):
        make(tmp_path / "c" / "x.h5", num_workers=1, part=part)
    next((tmp_path / "c").glob("x.h5.shards/shard_*.h5")).unlink()  # as if it had been killed before this shard
    assert digest(make(tmp_path / "c" / "x.h5", num_workers=1)) == one


def test_another_configuration_for_the_same_output_names_the_field(tmp_path):
    make(tmp_path / "x.h5", num_workers=1)
    with pytest.raises(DatasetError, match="detector"):
        make(tmp_path / "x.h5", detector="crowded")


def test_splits_share_no_event_and_flat_pulls_are_standard_normal(tmp_path):
    kw = {"n_pspl": 0, "n_binary": 0, "n_flat": 30, "num_workers": 1}
    with open_dataset(make(tmp_path / "a.h5", **kw)) as a, open_dataset(make(tmp_path / "b.h5", split="test", **kw)) as b:
        assert not set(a.m_base) & set(b.m_base)
        flux = a.flux().astype(float)
        pull = ((flux - 1) / sigma_flux(np.ones_like(flux), a.m_base, a.detector))[flux != 0]
    n = pull.size
    assert abs(pull.mean()) < 4 / np.sqrt(n) and abs(pull.std() - 1) < 4 / np.sqrt(2 * n)


def test_damaged_file_is_one_clear_error(tmp_path):
    path = make(tmp_path / "x.h5", num_workers=1)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DatasetError, match="truncated"):
        open_dataset(path)


def test_oversample_limit(tmp_path):
    preset = yaml.safe_load((FOLDER / "distinct.yaml").read_text())
    preset["parameters"]["u_0"] = {"uniform": [5.0, 6.0]}  # passes every caustic by
    (tmp_path / "far.yaml").write_text(yaml.safe_dump(preset))
    with pytest.raises(RuntimeError, match="oversample"):
        make(tmp_path / "x.h5", binary_preset=str(tmp_path / "far.yaml"), oversample=2.0, num_workers=1)
    assert not (tmp_path / "x.h5").exists()
