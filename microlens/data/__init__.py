"""From parameters to files and batches.

format       the dataset file: schema, writing, checks on opening
events       the one recipe of an event: parameters -> magnification -> light curve -> what an observer can know
simulation   many events in parallel -> shards -> one dataset file
fresh        new light curves of stored trajectories, for training
packed       valid epochs in front, splits and batches
tables       other people's light-curve files -> tables of columns
columns      which column is what, by a table of names
lightcurve   a light curve, its baseline, and its seasons as the network reads them
readers      light-curve files -> light curves
nights       new epochs of many stars in files
states       what is known of every star of a survey, in one file
parquet      a dataset -> tables under the column names of the 2026 data challenge
"""

from microlens.data.events import OversampleError, make_event, render_event, true_flux
from microlens.data.format import DatasetError, open_dataset, read_predictions, time_since_last, write_predictions
from microlens.data.lightcurve import seasons
from microlens.data.packed import PackedDataset
from microlens.data.readers import read_light_curve, read_light_curves
from microlens.data.simulation import quick_dataset, simulate
from microlens.data.tables import LightCurveError

__all__ = [
    "DatasetError", "LightCurveError", "OversampleError", "PackedDataset", "make_event", "open_dataset",
    "quick_dataset", "read_light_curve", "read_light_curves", "read_predictions", "render_event", "seasons", "simulate",
    "time_since_last", "true_flux", "write_predictions",
]
