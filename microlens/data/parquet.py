"""A dataset -> Parquet tables under the names of the Roman data challenge 2026 (MachineLearning), for other tools.

    export_parquet("data/raw/events.h5", "events_parquet")          # obs.parquet, epoch.parquet, meta.parquet
    curve = read_light_curve("events_parquet/obs.parquet", ReadConfig(event="microlens_000017"))

obs holds one row an observation, ordered by event; epoch the times; meta one row an event with its parameters. The
season starts where the dataset's preset says. No observer's position is given, since that of the simulation is the
Earth's. Angles are in degrees, as there. A flat light curve, which that challenge does not have, is labelled
microlens_flat, one of class other microlens_other; its sub-class stands in a column of its own.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet

from microlens.config import CLASSES
from microlens.data.columns import ZERO_POINTS
from microlens.data.events import true_flux
from microlens.data.format import open_dataset
from microlens.files import atomic
from microlens.sky import SATURATION_MAG

TWO_SOURCES = "microlens_2S1L"
LABELS = {"flat": "microlens_flat", "pspl": "microlens_1S1L", "binary": "microlens_1S2L", "other": "microlens_other"}
BAND = "F146"
PARAMETERS = {"t_E": "tE_ref", "u_0": "u0lens1", "rho": "rho", "q": "Planet_q", "s": "Planet_s", "f_s": "fs_F146",
              "pi_EN": "piEN", "pi_EE": "piEE", "m_base": "Base_F146", "delta_chi2_pspl": "ObsGroup_0_chi2"}
"""Names of the parameters there; piEN and piEE are those of the simulator gulls. Base_F146, the baseline magnitude, is
this package's; ObsGroup_0_chi2 is against the best single lens."""
EVENTS_AT_ONCE = 128  # one row group: a reader that wants one event skips the others
OBS = pyarrow.schema([("event_id", pyarrow.int64()), ("epoch_id", pyarrow.int32()), ("filt", pyarrow.string()),
                      *((name, pyarrow.float64()) for name in ("flux_uJy", "flux_err_uJy", "true_flux_uJy")),
                      ("saturation_flag", pyarrow.int8())])


def export_parquet(dataset, folder) -> list[Path]:
    """Write a dataset's events as obs.parquet, epoch.parquet and meta.parquet into `folder`; returns their paths.

    Raises FileNotFoundError or DatasetError for the dataset, WriteError where a file cannot be written.
    """
    folder = Path(folder)
    paths = [folder / f"{name}.parquet" for name in ("obs", "epoch", "meta")]
    with open_dataset(dataset) as data:
        with atomic(paths[0]) as temporary, pyarrow.parquet.ParquetWriter(temporary, OBS) as writer:
            for start in range(0, len(data), EVENTS_AT_ONCE):
                rows = range(start, min(start + EVENTS_AT_ONCE, len(data)))
                writer.write_table(pyarrow.concat_tables([observations(data, row) for row in rows]))
        for path, table in zip(paths[1:], (_epochs(data), _events(data)), strict=True):
            with atomic(path) as temporary:
                pyarrow.parquet.write_table(pyarrow.table(table), temporary)
    return paths


def observations(data, row: int) -> pyarrow.Table:
    """The rows of obs (see OBS) of one event of an open dataset."""
    flux, sigma = data.flux(row).astype(float), data.sigma(row).astype(float)
    t_0, t_E, f_s = data.params.loc[row, ["t_0", "t_E", "f_s"]]
    seen = np.flatnonzero(flux)
    true = true_flux(data.curve(row), t_0, t_E, f_s, data.timestamps[seen])
    base = 10 ** (-0.4 * (float(data.m_base[row]) - ZERO_POINTS["uJy"]))
    brightness = ZERO_POINTS["uJy"] - 2.5 * np.log10(np.maximum(true * base, 1e-30))
    columns = [np.full(len(seen), row), seen, np.full(len(seen), BAND), flux[seen] * base, sigma[seen] * base,
               true * base, (brightness < SATURATION_MAG).astype(np.int8)]
    return pyarrow.table(columns, names=OBS.names).cast(OBS)


def _epochs(data) -> dict:
    n = len(data.timestamps)
    nowhere = {f"obs_{axis}": np.full(n, math.nan) for axis in "xyz"}
    bjd = data.preset.field.season_start + data.timestamps
    return {"epoch_id": np.arange(n, dtype=np.int32), "bjd": bjd, **nowhere}


def _events(data) -> dict:
    """Columns of meta: names, labels and parameters of all events of an open dataset."""
    n, params = len(data), data.params
    source = params["m_base"] - 2.5 * np.log10(params["f_s"])
    is_double = (params["q_F"] > 0).to_numpy()
    labels = [TWO_SOURCES if double else LABELS[CLASSES[label]]
              for label, double in zip(data.labels, is_double, strict=True)]
    more = {"subclass": params["subclass"].to_list()} if "subclass" in params else {}
    return {"event_id": np.arange(n), "name": [f"microlens_{row:06d}" for row in range(n)],
            "sim_label": labels, "Source_Is_Binary": is_double,
            "t0lens1": data.preset.field.season_start + params["t_0"].to_numpy(),
            **{there: params[here].to_numpy() for here, there in PARAMETERS.items()},
            "alpha": np.degrees(params["alpha"].to_numpy()), "Source_F146": source.to_numpy(),
            "label_observable": [CLASSES[label] for label in data.labels_observable], **more}
