"""A causal classifier fed a few epochs at a time.

    stream = classifier.stream(1000); p = stream.update(flux_now, delta_t_now)

On a CPU the numbers are those of one pass over the whole curve, bit for bit, for any chunking and for any other light
curves beside. microlens.evaluate.nightly keeps the state of many streams in a file.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from microlens.config import FLUX_VIEW, ROBUST_VIEW
from microlens.fit import running
from microlens.fit.kernels import LN_T_E, POINT, T_0, U_0, WITHOUT_PARALLAX

ROWS = 512
"""Light curves that the network takes together; fewer are filled up with empty ones. A matrix product may round in
another way where it has another number of rows, so a fixed number makes a curve's answer independent of the others."""
FIT = ("t_0", "t_E", "u_0", "rho", "f_source", "f_blend", "chi2", "n_averages")
"""What Stream.fits gives. t_0 is in days after the first epoch; chi2 is of so many averages of the epochs so far."""


def filled(tensor: torch.Tensor, n_rows: int) -> torch.Tensor:
    """A tensor (m, ...) with rows of zeros added until it has n_rows; as it is where it has as many."""
    return torch.cat([tensor, tensor.new_zeros(max(n_rows - len(tensor), 0), *tensor.shape[1:])])


class Stream:
    """Feeds a Classifier the epochs of n light curves as they come; constant time and memory an epoch."""

    def __init__(self, classifier, n: int):
        self.classifier, self.n, self.device = classifier, n, classifier.mean.device
        core = classifier.initial_state(n, self.device)
        self._core = tuple(core)
        fits = running.as_floats(running.new_state(n, classifier.stem_stride, classifier.view == ROBUST_VIEW))
        with torch.inference_mode():
            start = torch.zeros(n, 2 * classifier.d_model, device=self.device)
            log_p = classifier.heads(start)["log_p"]
        self._state = {  # one row a light curve in each
            **core,
            "pending": torch.zeros(n, classifier.stem_stride, 2),  # epochs that wait for a full patch
            "count": torch.zeros(n, dtype=torch.long),  # how many
            "log_p": log_p,
            "fits": torch.from_numpy(fits[:, :0] if classifier.view == FLUX_VIEW else fits),
        }

    @property
    def probabilities(self) -> np.ndarray:
        """Probabilities (n, classes) float32 after the last network step of each light curve.

        The exponentials are taken in double precision: in single precision they round by the size of the array.
        """
        return self._state["log_p"].double().exp().float().cpu().numpy()

    def update(self, flux, delta_t, after_step: Callable | None = None) -> np.ndarray:
        """Take the next epoch (n,) or epochs (n, k); returns probabilities (n, classes) after the last of them.

        flux 0.0 or NaN means that this light curve was not observed.
        after_step : called after every network step with the light curves (m,) that took it and the columns (m,) of
        their epochs that completed it; `probabilities` and `fits` are then those after this step.
        """
        epochs, columns, total = self._with_waiting(*self._checked(flux, delta_t))
        stride = self.classifier.stem_stride
        for end in range(stride, int(total.max(initial=0)) + 1, stride):
            rows = np.flatnonzero(total >= end)
            self._step(rows, epochs[rows, end - stride : end])
            if after_step is not None:
                after_step(rows, columns[rows, end - 1])
        done = total // stride * stride
        if done.any():
            left = (done[:, None] + np.arange(stride))[..., None]
            self._state["pending"].numpy()[:] = np.take_along_axis(epochs, left, axis=1)
        self._state["count"].numpy()[:] = total - done
        return self.probabilities

    def _checked(self, flux, delta_t):
        """The arguments of update as arrays (n, k) float32."""
        flux, delta_t = (np.atleast_1d(np.asarray(a, np.float32)) for a in (flux, delta_t))
        if flux.shape != delta_t.shape or flux.ndim not in (1, 2) or flux.shape[0] != self.n:
            raise ValueError(f"flux, delta_t: came shapes {flux.shape} and {delta_t.shape}; "
                             f"expected one shape, ({self.n},) or ({self.n}, k).")
        return flux.reshape(self.n, -1), delta_t.reshape(self.n, -1)

    def _with_waiting(self, flux, delta_t):
        """The epochs (n, K, 2) that wait for a full patch and, behind them, the valid new ones, 0 beyond; the column
        (n, K) of `flux` that each new one is from; how many (n,) there are. Where none fills a patch, the first array
        is that of the waiting epochs itself, K = stride.
        """
        epochs, count = self._state["pending"].numpy(), self._state["count"].numpy()
        valid = np.isfinite(flux) & (flux != 0)
        row, column = np.nonzero(valid)
        place = (count[:, None] + np.cumsum(valid, axis=1))[row, column] - 1
        total = count + valid.sum(axis=1)
        if total.max(initial=0) >= self.classifier.stem_stride:
            epochs = np.concatenate([epochs, np.zeros((self.n, total.max(), 2), np.float32)], axis=1)
        epochs[row, place, 0], epochs[row, place, 1] = flux[row, column], delta_t[row, column]
        columns = np.zeros(epochs.shape[:2], np.int32)
        columns[row, place] = column
        return epochs, columns, total

    @torch.inference_mode()
    def _step(self, rows, epochs):
        """Take one patch, epochs (m, stride, 2), of the light curves rows (m,)."""
        view = self._advance_fits(rows, epochs)
        for i in range(0, len(rows), ROWS):
            part = torch.as_tensor(rows[i : i + ROWS], device=self.device)
            arrays = (None if a is None else self._filled(a[i : i + ROWS]) for a in (epochs, view))
            (both, extra), size = arrays, len(part)
            past = {name: self._filled(self._state[name][part]) for name in self._core}
            patches = self.classifier.patches(both[..., 0], both[..., 1], extra)
            pooled, new = self.classifier.advance(patches, past)
            new["log_p"] = self.classifier.heads(pooled[:, 0])["log_p"]
            for name, a in new.items():
                self._state[name][part] = a[:size]

    def _advance_fits(self, rows, epochs):
        """Bring the fits of the light curves rows (m,) up to date; returns their view of the patch, None without."""
        if self.classifier.view == FLUX_VIEW:
            return None
        every = len(rows) == self.n  # in place, without a copy of the state
        fits = self._state["fits"] if every else self._state["fits"][rows]
        view = running.advance(running.from_floats(fits.numpy()), epochs[..., 0], epochs[..., 1])  # shares its memory
        if not every:
            self._state["fits"][rows] = fits
        return view

    def _filled(self, array) -> torch.Tensor:
        """An array (m, ...) of at most ROWS light curves as a tensor of ROWS, with zeros for those that are none."""
        return filled(torch.as_tensor(array, device=self.device), ROWS)

    def fits(self, rows) -> dict[str, np.ndarray]:
        """The best single lens so far of the light curves rows (m,): arrays (m,) by the names FIT.

        NaN where a light curve shows no event yet, in rho where the source is a point, and for view flux. Where the
        path of the lens bends, these are the parameters of its straight part.
        """
        out = {name: np.full(len(rows), np.nan) for name in FIT}
        if self.classifier.view == FLUX_VIEW:
            return out
        state = running.from_floats(self._state["fits"][rows].numpy())
        event, lens = state["event_epochs"] > 0, state["lens"]
        ln_rho = np.where(state["is_bent"] > 0, lens[:, -1], lens[:, WITHOUT_PARALLAX - 1])
        found = {"t_0": lens[:, T_0], "t_E": np.exp(lens[:, LN_T_E]), "u_0": lens[:, U_0],
                 "rho": np.where(ln_rho > POINT, np.exp(ln_rho), np.nan), "f_source": state["f_source"],
                 "f_blend": state["f_blend"], "chi2": state["chi2"], "n_averages": state["n"]}
        for name, values in found.items():
            out[name][event] = values[event]
        return out

    def begin_again(self, rows):
        """Forget what came so far of the light curves rows (m,)."""
        for name, start in Stream(self.classifier, 1)._state.items():
            self._state[name][rows] = start

    def state(self) -> dict:
        """Everything needed to go on later: a dict of tensors (torch.save-able), one row a light curve in each."""
        return {name: tensor.clone() for name, tensor in self._state.items()}

    def restore(self, state: dict) -> Stream:
        """Go on from what state() gave. Raises ValueError where that is of another number of light curves."""
        if state["count"].shape != (self.n,):
            raise ValueError(f"the state is of {len(state['count'])} light curves, this stream holds {self.n}.")
        self._state = {name: state[name].clone() for name in self._state}
        return self
