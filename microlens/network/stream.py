"""A causal classifier fed one epoch at a time.

    stream = classifier.stream(1000); p = stream.update(flux_now, delta_t_now)

The same numbers as one pass over the whole curve, for any chunking.
"""

from __future__ import annotations

import numpy as np
import torch

from microlens.config import FLUX_VIEW, ROBUST_VIEW
from microlens.fit import running


class Stream:
    """Feeds a Classifier one epoch of n light curves at a time; constant time and memory an epoch."""

    def __init__(self, classifier, n: int):
        self.classifier, self.n = classifier, n
        device = classifier.mean.device
        self._core = classifier.initial_state(n, device)
        self._pending = torch.zeros(n, classifier.stem_stride, 2, device=device)
        self._count = torch.zeros(n, dtype=torch.long, device=device)
        n_fits = 0 if classifier.view == FLUX_VIEW else n
        fits = running.new_state(n_fits, classifier.stem_stride, robust=classifier.view == ROBUST_VIEW)
        self._fits = torch.from_numpy(running.as_floats(fits))
        with torch.inference_mode():
            start = torch.zeros(n, 2 * classifier.d_model, device=device)
            self._log_p = classifier.heads(start)["log_p"]

    @torch.inference_mode()
    def update(self, flux, delta_t) -> np.ndarray:
        """Take the next epoch (n,) or epochs (n, k); returns probabilities (n, classes) after the last of them.

        flux 0.0 or NaN means that this light curve was not observed.
        """
        device = self._pending.device
        arrays = (np.atleast_1d(np.asarray(a, np.float32)) for a in (flux, delta_t))
        flux, delta_t = (torch.as_tensor(a, device=device) for a in arrays)
        if flux.shape != delta_t.shape or flux.ndim not in (1, 2) or flux.shape[0] != self.n:
            raise ValueError(f"flux, delta_t: came shapes {tuple(flux.shape)} and {tuple(delta_t.shape)}; "
                             f"expected one shape, ({self.n},) or ({self.n}, k).")
        flux, delta_t = (a.reshape(self.n, -1) for a in (flux, delta_t))
        for k in range(flux.shape[1]):
            rows = torch.nonzero(torch.isfinite(flux[:, k]) & (flux[:, k] != 0))[:, 0]
            self._pending[rows, self._count[rows], 0] = flux[rows, k]
            self._pending[rows, self._count[rows], 1] = delta_t[rows, k]
            self._count[rows] += 1
            full = torch.nonzero(self._count == self.classifier.stem_stride)[:, 0]
            if len(full):
                self._step(full)
        return self._log_p.exp().cpu().numpy()

    def _step(self, rows):
        c = self.classifier
        every = len(rows) == self.n  # in place, without a copy of the state
        flux, delta_t, extra = self._pending[rows, :, 0], self._pending[rows, :, 1], None
        if c.view != FLUX_VIEW:
            fits = self._fits if every else self._fits[rows]
            state = running.from_floats(fits.numpy())  # shares the memory of fits
            view = running.advance(state, flux.cpu().numpy(), delta_t.cpu().numpy())
            extra = torch.from_numpy(view).to(flux.device)
            if not every:
                self._fits[rows] = fits
        patches = c.patches(flux, delta_t, extra)
        pooled, new = c.advance(patches, self._core if every else {k: v[rows] for k, v in self._core.items()})
        for k, v in new.items():
            if every:
                self._core[k] = v  # a view of the past and this one step
            else:
                self._core[k][rows] = v
        self._log_p[rows] = c.heads(pooled[:, 0])["log_p"]
        self._count[rows] = 0

    def state(self) -> dict:
        """Everything needed to go on later: a dict of tensors (torch.save-able)."""
        own = {"pending": self._pending, "count": self._count, "log_p": self._log_p, "fits": self._fits}
        return {name: tensor.clone() for name, tensor in {**self._core, **own}.items()}

    def restore(self, state: dict) -> Stream:
        """Go on from what state() gave. Raises ValueError where that is of another number of light curves."""
        if state["count"].shape != (self.n,):
            raise ValueError(f"the state is of {len(state['count'])} light curves, this stream holds {self.n}.")
        state = {name: tensor.clone() for name, tensor in state.items()}
        self._core = {name: state[name] for name in self._core}
        self._pending, self._count, self._log_p, self._fits = (state[k] for k in ("pending", "count", "log_p", "fits"))
        return self
