"""Fresh events for every pass of training: the stored trajectories, each seen at another time, brightness and noise.

    fresh = FreshEvents("data/raw/train.h5", seed=0)            events = fresh.events(rows, epoch=3)

The lens library worked once, when the dataset was simulated. What is drawn anew from the preset's priors is t_0, t_E,
f_s and m_base, then gaps and noise; u_0, rho, s, q and alpha stay, since they are the trajectory, and so do t_0 and
t_E of an event with parallax, whose path depends on them, and so does the light of a variable star. A preset that
requires a caustic crossing is drawn until there is one. Delta chi^2, labels and moments of observability are those of
the new light curve. Event and noise are a function of (seed, epoch, row) alone, so neither the number of ranks nor an
interruption changes them. Each process holds the stored curves of the training rows, 14 MB for 10,000 events.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from microlens import sky
from microlens.config import CLASSES, FRESH_STREAM, OTHER, PSPL, SimulateConfig
from microlens.data.events import Event, OversampleError, Source, is_star, make_event, second_is_late
from microlens.data.format import DatasetError, open_dataset, time_since_last
from microlens.data.packed import Events, epochs_until, pack
from microlens.fit import observable_label
from microlens.fit.running import running_view
from microlens.lens import event_parallax

MAX_DRAWS = 100  # of t_0 and t_E for a caustic crossing; then the event keeps its own
DRAWN = ("t_0", "t_E", "f_s", "m_base")


class FreshEvents:
    """Draws new light curves of the events of a dataset file.

    view, block : as in PackedDataset.   rows : the events whose curves are kept in memory; unset means all.
    Raises DatasetError for a file of events in real photometry.
    """

    def __init__(self, path, seed: int, view: str = "flux", block: int = 16, rows=None):
        self.path, self.seed, self.view, self.block = Path(path), seed, view, block
        with open_dataset(path) as data:
            if data.is_injected:
                raise DatasetError(f"{path}: its events are in real photometry, which has no noise to draw anew; train "
                                   "without fresh (on the command line without --fresh).")
            self.config, self.preset = SimulateConfig.from_dict(data.config), data.preset
            self.timestamps, self.labels = data.timestamps, data.labels.astype(np.int64)
            self.params = {name: data.params[name].to_numpy() for name in data.params}
            self.curves = {int(row): data.curve(int(row)) for row in (range(len(data)) if rows is None else rows)}
        self.season = sky.season_length(self.timestamps)

    def stored(self, row: int) -> dict:
        """The parameters of an event as they stand in the file; NaN for those that its class does not have."""
        return {name: values[row] for name, values in self.params.items()}

    def draw(self, row: int, rng: np.random.Generator) -> dict:
        """The stored parameters of an event with new t_0, t_E (days), f_s and m_base."""
        stored = self.stored(row)
        drawn = {name: self.preset.priors[name].draw(rng) for name in DRAWN}
        drawn["t_0"] *= self.season
        if self.labels[row] == OTHER or event_parallax(stored):
            drawn = {name: drawn[name] for name in ("f_s", "m_base")}
        elif self.labels[row] == PSPL and stored["q_F"] > 0:
            drawn["t_0_2"] = drawn["t_0"] + second_is_late(stored) * drawn["t_E"]
        return stored | drawn

    def event(self, row: int, epoch: int) -> Event:
        """The fresh event of a row of the file in one epoch of training."""
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(FRESH_STREAM, epoch, int(row))))
        curve = self.curves[int(row)]
        source = Source(CLASSES[self.labels[row]], lambda rng: self.draw(row, rng), lambda params: curve, self.preset)
        try:
            return make_event(source, self.config, self.timestamps, rng, MAX_DRAWS)
        except OversampleError:
            own = {name: self.params[name][row] for name in ("t_0", "t_E")}
            anywhere = dataclasses.replace(self.preset, caustic_crossing=False)
            source = source._replace(draw=lambda rng: self.draw(row, rng) | own, preset=anywhere)
            return make_event(source, self.config, self.timestamps, rng, 1)

    def events(self, rows, epoch: int) -> Events:
        """The given rows of the file in one epoch of training, packed."""
        made = [self.event(row, epoch) for row in rows]
        flux = np.stack([e.flux for e in made])
        flux, delta_t, _, lengths = pack(flux, time_since_last(self.timestamps, flux))
        longest = int(lengths.max(initial=0))
        flux, delta_t = flux[:, :longest], delta_t[:, :longest]
        extra = running_view(flux, delta_t, lengths, self.block, self.view)
        known = [e.observability for e in made]
        observable = observable_label(self.labels[rows], [k.delta_chi2_flat for k in known],
                                      [k.delta_chi2_pspl for k in known], [is_star(e.params) for e in made])
        times = [self.timestamps[e.flux != 0] for e in made]
        return Events(flux, delta_t, lengths, extra, self.labels[rows], observable.astype(np.int64),
                      epochs_until([k.t_observable_flat for k in known], times),
                      epochs_until([k.t_observable_pspl for k in known], times))
