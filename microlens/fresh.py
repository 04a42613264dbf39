"""Fresh events for every epoch of training: the stored trajectories, each seen at another time, brightness and noise.

    fresh = FreshEvents("data/raw/train.h5", seed=0)            events = fresh.events(rows, epoch=3)

The lens library worked once, when the dataset was simulated. What is drawn anew from the preset's priors is t_0, t_E, f_s and
m_base, then gaps and noise; u_0, rho, s, q and alpha stay, since they are the trajectory. A preset that requires a caustic
crossing is drawn until there is one. Delta chi^2, labels and moments of observability are those of the new light curve. Event and
noise are a function of (seed, epoch, row) alone, so neither the number of ranks nor an interruption changes them.

Each process holds the stored curves of the training rows, 14 MB for 10,000 events of preset `roman` (their light curves take 140 MB
packed), so they need not be shared. Reading them takes half a second a thousand.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from microlens import magnification, survey
from microlens.config import CLASSES, SimulateConfig
from microlens.dataset import NEVER, Events, residual_view, running_view
from microlens.detectability import observability, observable_label
from microlens.magnification.curves import REACH
from microlens.population import load_preset, thesis_singles
from microlens.simulate import observing, season_length, stored_curve, true_flux
from microlens.store import DatasetError, open_dataset

STREAM = 15  # spawn key
MAX_DRAWS = 100  # of t_0 and t_E for a caustic crossing; then the event keeps its own
DRAWN = ("t_0", "t_E", "f_s", "m_base")


class FreshEvents:
    """Draws new light curves of the events of a dataset file.

    view, block : as in PackedDataset.   observable : compute what is observable (a fit of each binary); otherwise labels_observable
    repeats labels and nothing is ever observable, which suits simulated labels.
    Raises DatasetError for a file that keeps no curves, or curves of one season only (made before they were kept whole).
    """

    def __init__(self, path, seed: int, view: str = "flux", block: int = 16, observable: bool = True, rows=None):
        self.path, self.seed, self.view, self.block, self.observable = Path(path), seed, view, block, observable
        with open_dataset(path) as data:
            self.config = SimulateConfig.from_dict(data.config)
            self.timestamps, self.labels = data.timestamps, data.labels.astype(np.int64)
            self.params = {name: data.params[name].to_numpy() for name in data.params}
            self.curves = {int(i): stored_curve(data, int(i)) for i in (np.arange(len(data)) if rows is None else rows)}
        partial = [i for i, c in self.curves.items()
                   if isinstance(c, magnification.Nodes) and min(-c.tau[0], c.tau[-1]) < 0.99 * REACH]
        if partial:
            raise DatasetError(f"{path}: keeps the curves of one season only (row {partial[0]} and {len(partial) - 1} others), which "
                               "cannot be drawn at another t_0 and t_E; simulate it again.")
        preset = load_preset(self.config.binary_preset)
        single = thesis_singles(preset) if self.config.single_prior == "thesis" else preset
        self.presets = (single, single, preset)
        self.season = season_length(self.timestamps)

    def draw(self, row: int, rng: np.random.Generator):
        """New t_0, t_E (days), f_s, m_base of an event, and which epochs are observed, (T,) bool."""
        preset, p = self.presets[self.labels[row]], self.params
        for _ in range(MAX_DRAWS):
            t_0, t_E, f_s, m_base = (preset.priors[name].draw(rng) for name in DRAWN)
            t_0 *= self.season
            observed = survey.dropout(rng, len(self.timestamps), self.config.missing_fraction)
            if self.labels[row] != 2 or not preset.caustic_crossing:
                break
            tau = (self.timestamps[observed] - t_0) / t_E
            if magnification.crosses_caustic(tau, *(p[name][row] for name in ("u_0", "rho", "s", "q", "alpha"))):
                break
        else:
            t_0, t_E = p["t_0"][row], p["t_E"][row]
        return t_0, t_E, f_s, m_base, observed

    def event(self, row: int, epoch: int):
        """One event: t (n,) days, flux (n,) float32 and m_base, valid epochs only; observable class, and the epoch counts at which an
        observer knows it for an event and for a binary."""
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(STREAM, epoch, int(row))))
        t_0, t_E, f_s, m_base, observed = self.draw(row, rng)
        flux_true = true_flux(self.curves[int(row)], t_0, t_E, f_s, self.timestamps)
        flux = survey.observe(flux_true, m_base, self.timestamps, rng, observed=observed, **observing(self.config))[observed]
        t, label, config = self.timestamps[observed], self.labels[row], self.config
        if not self.observable:
            return t, flux, m_base, label, NEVER, NEVER
        if label == 0:
            return t, flux, m_base, 0, NEVER, NEVER
        sigma = survey.sigma_flux(flux_true[observed], m_base, config.detector, config.noise_scale)
        limits = {"threshold_flat": config.threshold_flat, "threshold_pspl": config.threshold_pspl}
        flat, pspl, t_flat, t_pspl = observability(t, flux_true[observed], sigma, label == CLASSES.index("binary"),
                                                   (t_0, t_E, max(self.params["u_0"][row], 1e-3)), **limits,
                                                   limb_darkening=config.limb_darkening)
        counts = [np.searchsorted(t, x + 1e-9, side="right") if np.isfinite(x) else NEVER for x in (t_flat, t_pspl)]
        return t, flux, m_base, int(observable_label(label, flat, pspl, **limits)), *counts

    def events(self, rows, epoch: int) -> Events:
        """The given rows of the file in one epoch of training, packed."""
        made = [self.event(row, epoch) for row in rows]
        lengths = np.array([len(m[0]) for m in made], dtype=np.int64)
        flux, delta_t = np.zeros((2, len(made), lengths.max(initial=0)), np.float32)
        for i, (t, f, *_) in enumerate(made):
            flux[i, : len(t)], delta_t[i, 1 : len(t)] = f, np.diff(t)
        extra = None
        if self.view == "residual":
            error = survey.sigma_flux(flux, np.array([m[2] for m in made]), self.config.detector, self.config.noise_scale)
            extra = residual_view(flux, delta_t, error, lengths)
        elif self.view == "running":
            extra = running_view(flux, delta_t, lengths, self.block)
        known = (np.array([m[k] for m in made], dtype=np.int64) for k in (3, 4, 5))
        return Events(flux, delta_t, lengths, extra, self.labels[rows], *known)
