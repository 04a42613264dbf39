"""The causal CNN-GRU with hierarchical heads, its output at every epoch, and its streaming form.

    classifier = Classifier(d_model=64, n_layers=4, stem_stride=16)
    log_p = classifier.log_prob(flux, delta_t)            # (n, 3) after the whole curve
    log_p = classifier.log_prob_prefixes(flux, delta_t)   # (n, T, 3) after every epoch, from one pass
    stream = classifier.stream(1000); p = stream.update(flux_now, delta_t_now)

(flux, delta t) of each valid epoch, and what the view adds -> patches of `stem_stride` epochs -> two causal depthwise-separable
convolutions -> GRU layers, layer norm, residual -> attention pooling over the steps so far -> heads. Nothing looks ahead: no
normalisation along time, no statistic of the whole curve. Attention compares unit vectors, so its exponent is bounded by MAX_LOGIT
and a prefix's softmax is a ratio of two running sums that needs no maximum, neither global (which would not be causal) nor running.

Views: `flux`; `running`, with the best single lens through the past (microlens.fit.running), brought up to date once a patch.
"""

from __future__ import annotations

import math
import os

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from microlens.config import BINARY, CLASSES, FLAT, N_HEADS
from microlens.data.packed import pack
from microlens.fit import running
from microlens.network import attention
from microlens.network.stream import Stream

N_FEATURES = {"flux": 3, "running": 3 + running.CHANNELS}
MAX_LOGIT = 10.0
PIECE = 72  # network steps taken together where no gradient is asked for: what they need stays in a CPU's cache
ROWS = 128  # curves that log_prob answers together, which bounds its memory
ARCHITECTURE = ("d_model", "n_layers", "dropout", "window_size", "stem_stride", "view", "hierarchical", "use_aux_head",
                "attention_pooling")


def choose_device(wanted: str) -> torch.device:
    """The device for `wanted`, one of auto (a GPU if torch finds one), cpu, cuda: of several GPUs the one of this rank. ValueError
    where cuda is asked for and there is none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ValueError("device = 'cuda', but torch finds no GPU; choose cpu or auto.")
    if wanted == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device(f"cuda:{int(os.environ.get('LOCAL_RANK', 0)) % torch.cuda.device_count()}")


def asinh(x):
    """torch.asinh to rounding, of any shape; torch's own is slow on a CPU."""
    a = x.abs()
    return torch.copysign(torch.log1p(a + a * a / (1 + torch.sqrt(a * a + 1))), x)


class CausalConv(nn.Module):
    """Depthwise-separable convolution that sees the past only, with residual. (n, L, d) -> (n, L, d)."""

    def __init__(self, d, width, dilation, dropout):
        super().__init__()
        self.history = (width - 1) * dilation
        self.depthwise = nn.Conv1d(d, d, width, groups=d, dilation=dilation)
        self.pointwise = nn.Linear(d, d)
        self.norm = nn.LayerNorm(d)  # over channels of one step, never along time
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, past):
        """past : (n, history, d), the inputs before x. Returns output and the new past."""
        joined = torch.cat([past, x], dim=1)
        if x.shape[1] == 1:  # one step of a stream: torch's convolution is ten times slower than these few products
            taps = joined[:, :: self.depthwise.dilation[0]] * self.depthwise.weight[:, 0].T
            y = (taps.sum(dim=1) + self.depthwise.bias)[:, None]
        else:
            y = self.depthwise(joined.transpose(1, 2)).transpose(1, 2)
        y = self.dropout(F.gelu(self.pointwise(y)))
        return self.norm(x + y), joined[:, joined.shape[1] - self.history :]


class Classifier(nn.Module):
    """Flat / PSPL / binary from (flux, delta_t) of the valid epochs. See the module docstring."""

    def __init__(self, *, d_model=64, n_layers=4, dropout=0.3, window_size=5, stem_stride=16, view="flux",
                 hierarchical=True, use_aux_head=True, attention_pooling=True):
        super().__init__()
        self.stem_stride, self.n_heads, self.d_model = stem_stride, N_HEADS, d_model
        self.hierarchical, self.use_aux_head, self.attention_pooling = hierarchical, use_aux_head, attention_pooling
        self.view, n_features = view, N_FEATURES[view]
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("std", torch.ones(n_features))
        self.stem = nn.Linear(stem_stride * n_features, d_model)
        self.convs = nn.ModuleList(CausalConv(d_model, window_size, dilation, dropout) for dilation in (1, 2))
        self.gru = nn.GRU(d_model, d_model, n_layers, batch_first=True, dropout=dropout if n_layers > 1 else 0.0)
        self.norm = nn.LayerNorm(d_model)
        if attention_pooling:
            self.query = nn.Parameter(torch.randn(N_HEADS, d_model // N_HEADS))
            self.key_value = nn.Linear(d_model, 2 * d_model)
            self.sharpness = nn.Parameter(torch.zeros(N_HEADS))
        self.trunk = nn.Sequential(nn.Linear(2 * d_model, d_model), nn.GELU(), nn.Dropout(dropout))
        if hierarchical:
            self.stage1, self.stage2 = nn.Linear(d_model, 1), nn.Linear(d_model, 1)
        else:
            self.flat_head = nn.Linear(d_model, 3)
        if use_aux_head:
            self.aux = nn.Linear(d_model, 3)
        for name, module in self.named_children():
            if name in ("stage1", "stage2", "flat_head", "aux"):
                nn.init.normal_(module.weight, std=0.15)
                nn.init.zeros_(module.bias)
        self.flash = None  # flash-attn's kernel for answers on whole curves: see microlens.network.attention

    # ---- features -------------------------------------------------------------------------------------------------------

    @staticmethod
    def raw_features(flux, delta_t, extra=None):
        """(n, T, 3): flux excess on a fine and on a coarse scale, log of the time step; then `extra` (n, T, k) of the view."""
        out = torch.stack([asinh((flux - 1.0) / 0.01), asinh((flux - 1.0) / 0.5), torch.log1p(delta_t * 96.0)], dim=-1)
        return out if extra is None else torch.cat([out, extra], dim=-1)

    def set_scaling(self, flux, delta_t, lengths, extra=None):
        """Mean and standard deviation of the features over the valid epochs of training curves, (n, T) and (n,)."""
        valid = torch.arange(flux.shape[1]) < lengths[:, None]
        x = self.raw_features(flux, delta_t, extra)[valid]
        self.mean.copy_(x.mean(0))
        self.std.copy_(x.std(0).clamp_min(1e-3))

    def patches(self, flux, delta_t, extra=None):
        """(n, T // stride, stride * features) of standardised features; a last partial patch waits for its epochs."""
        n, steps = flux.shape[0], flux.shape[1] // self.stem_stride
        used = steps * self.stem_stride
        x = self.raw_features(flux[:, :used], delta_t[:, :used], None if extra is None else extra[:, :used])
        return ((x - self.mean) / self.std).reshape(n, steps, self.stem_stride * x.shape[-1])

    # ---- the causal core ------------------------------------------------------------------------------------------------

    def initial_state(self, n, device=None, dtype=torch.float32) -> dict:
        """The state before the first epoch of n curves."""
        def zeros(*shape):
            return torch.zeros(*shape, device=device, dtype=dtype)

        heads = self.n_heads if self.attention_pooling else 1
        return {"past0": zeros(n, self.convs[0].history, self.d_model), "past1": zeros(n, self.convs[1].history, self.d_model),
                "hidden": zeros(n, self.gru.num_layers, self.d_model), "weighted": zeros(n, self.d_model),
                "weight": zeros(n, heads), "last": zeros(n, self.d_model)}

    def _steps(self, patches, state):
        """Take (n, L, .) further patches. Returns the core's output of each, (n, L, d), and its new state."""
        x = self.stem(patches)
        x, past0 = self.convs[0](x, state["past0"])
        x, past1 = self.convs[1](x, state["past1"])
        y, hidden = self.gru(x, state["hidden"].transpose(0, 1).contiguous())
        return self.norm(x + y), {"past0": past0, "past1": past1, "hidden": hidden.transpose(0, 1)}

    def advance(self, patches, state):
        """Take (n, L, .) further patches. Returns the pooled state after each, (n, L, 2 d), and the new state."""
        h, core = self._steps(patches, state)
        values, weights = self._values(h)
        # Running sums in at least single precision; cumsum adds step by step, so a prefix never sees what follows.
        weighted = state["weighted"][:, None] + torch.cumsum(weights.repeat_interleave(
            self.d_model // weights.shape[-1], dim=-1) * values, dim=1)
        weight = state["weight"][:, None] + torch.cumsum(weights, dim=1)
        pooled = weighted / weight.repeat_interleave(self.d_model // weights.shape[-1], dim=-1)
        new = {**core, "weighted": weighted[:, -1], "weight": weight[:, -1], "last": h[:, -1]}
        return torch.cat([pooled, h], dim=-1), new

    def _values(self, h):
        """Values (n, L, d) and positive weights (n, L, heads) of each step."""
        if not self.attention_pooling:
            return h, torch.ones_like(h[..., :1])
        query, keys, values = self._attention(h)
        return values, torch.exp((keys * query).sum(-1))

    def _attention(self, h):
        """Query (heads, e), its learnt scale included, keys (n, L, heads, e) and values (n, L, d) of each step."""
        keys, values = self.key_value(h).float().chunk(2, dim=-1)
        scale = MAX_LOGIT * torch.sigmoid(self.sharpness)
        query = scale[:, None] * F.normalize(self.query, dim=-1)
        return query, F.normalize(keys.unflatten(-1, (self.n_heads, -1)), dim=-1), values

    def heads(self, pooled) -> dict:
        """Log-probabilities `log_p` (..., 3), and the logits the loss needs."""
        z = self.trunk(pooled)
        out = {"aux": self.aux(z)} if self.use_aux_head else {}
        if not self.hierarchical:
            out["log_p"] = F.log_softmax(self.flat_head(z).float(), dim=-1)
            return out
        event, binary = self.stage1(z).float(), self.stage2(z).float()
        out.update(event=event[..., 0], binary=binary[..., 0])
        out["log_p"] = torch.cat([F.logsigmoid(-event), F.logsigmoid(event) + F.logsigmoid(-binary),
                                  F.logsigmoid(event) + F.logsigmoid(binary)], dim=-1)
        return out

    def forward(self, flux, delta_t, steps, extra=None):
        """Heads after `steps` (n, k) full patches of packed curves (n, T); 0 steps: nothing seen yet."""
        if steps.shape[1] == 1 and self.attention_pooling and self.flash is not None:
            return self.heads(self.pooled_once(flux, delta_t, steps[:, 0], extra)[:, None])
        pooled = self.pooled(flux, delta_t, extra)
        return self.heads(torch.gather(pooled, 1, steps[..., None].expand(-1, -1, pooled.shape[-1])))

    def _whole(self, take, flux, delta_t, extra):
        """What `take` (advance or _steps) gives for all patches of packed curves: a list of (n, L, .), pieces along time."""
        n, steps = flux.shape[0], flux.shape[1] // self.stem_stride
        size = steps if torch.is_grad_enabled() or flux.is_cuda else PIECE
        state, out = self.initial_state(n, flux.device), []
        for i in range(0, steps, max(size, 1)):
            part = slice(i * self.stem_stride, min(i + size, steps) * self.stem_stride)
            patches = self.patches(flux[:, part], delta_t[:, part], None if extra is None else extra[:, part])
            made, new = take(patches, state)
            state |= new
            out.append(made)
        return out

    def pooled(self, flux, delta_t, extra=None):
        """Pooled state after 0, 1, ... L full patches of packed curves: (n, L + 1, 2 d)."""
        start = torch.zeros(flux.shape[0], 1, 2 * self.d_model, device=flux.device)
        return torch.cat([start, *self._whole(self.advance, flux, delta_t, extra)], dim=1)

    def pooled_once(self, flux, delta_t, steps, extra=None):
        """Pooled state after `steps` (n,) full patches, (n, 2 d): that of pooled() without the states before, by flash-attn."""
        if flux.shape[1] < self.stem_stride:
            return torch.zeros(flux.shape[0], 2 * self.d_model, device=flux.device)
        h = torch.cat(self._whole(self._steps, flux, delta_t, extra), dim=1)
        query, keys, values = self._attention(h)
        pooled = attention.pool(self.flash, query, keys, values.unflatten(-1, (self.n_heads, -1)), steps)
        last = h[torch.arange(len(h), device=h.device), (steps - 1).clamp_min(0)]
        return torch.cat([pooled, torch.where(steps[:, None] > 0, last, 0.0)], dim=-1)

    # ---- for users ------------------------------------------------------------------------------------------------------

    def _checked(self, flux, delta_t, lengths):
        """The arguments of log_prob as numpy arrays; lengths may be None."""
        f, d, n = (a.detach().cpu().numpy() if torch.is_tensor(a) else a if a is None else np.asarray(a)
                   for a in (flux, delta_t, lengths))
        if f.ndim != 2 or f.shape != d.shape:
            raise ValueError(f"flux, delta_t: came shapes {f.shape} and {d.shape}; expected one shape (n, T).")
        if n is not None and (n.shape != (len(f),) or (n > f.shape[1]).any() or (n < 0).any()):
            raise ValueError(f"lengths: came shape {n.shape}; expected ({len(f)},) within 0..{f.shape[1]}.")
        return f, d, n

    def _packed(self, f, d, n_valid):
        """Packed tensors on the classifier's device, their lengths, and which epochs were valid."""
        if n_valid is None:
            valid = np.isfinite(f) & (f != 0)
            f, d, _, n_valid = pack(f, d)
        else:
            valid = np.arange(f.shape[1]) < n_valid[:, None]
        extra = running.running_view(f, d, n_valid, self.stem_stride) if self.view == "running" else None
        tensors = [None if a is None else torch.as_tensor(np.nan_to_num(a), dtype=torch.float32, device=self.mean.device)
                   for a in (f, d, extra)]
        return tensors, n_valid, valid

    @torch.inference_mode()
    def log_prob(self, flux, delta_t, lengths=None):
        """Log-probabilities (n, 3) of flat, pspl, binary after whole curves.

        flux : (n, T) F/F_base, 0.0 or NaN = no observation.   delta_t : (n, T) days since the previous valid epoch.
        lengths : (n,) if the valid epochs are already in front.
        numpy in, numpy out; tensor in, tensor out. Raises ValueError for misshapen or missing input.
        """
        arrays, out = self._checked(flux, delta_t, lengths), [torch.zeros(0, len(CLASSES), device=self.mean.device)]
        for i in range(0, len(arrays[0]), ROWS):
            (f, d, extra), n_valid, _ = self._packed(*(None if a is None else a[i : i + ROWS] for a in arrays))
            out.append(self.log_prob_packed(f, d, n_valid, extra))
        return torch.cat(out) if torch.is_tensor(flux) else torch.cat(out).cpu().numpy()

    @torch.inference_mode()
    def log_prob_packed(self, flux, delta_t, lengths, extra=None):
        """log_prob of what PackedDataset.gather gives, as a tensor (n, 3)."""
        f, d, extra = (None if a is None else torch.as_tensor(a, device=self.mean.device) for a in (flux, delta_t, extra))
        steps = torch.as_tensor(lengths // self.stem_stride, device=f.device)[:, None]
        return self(f, d, steps, extra)["log_p"][:, 0]

    @torch.inference_mode()
    def log_prob_steps(self, flux, delta_t, lengths, extra=None):
        """Log-probabilities (n, L + 1, 3) after 0 .. L full patches of what PackedDataset.gather gives; the last repeats."""
        f, d, extra = (None if a is None else torch.as_tensor(a, device=self.mean.device) for a in (flux, delta_t, extra))
        out = self.heads(self.pooled(f, d, extra))["log_p"]
        last = torch.as_tensor(lengths // self.stem_stride, device=f.device)[:, None]
        index = torch.minimum(torch.arange(out.shape[1], device=f.device)[None], last)
        return torch.gather(out, 1, index[..., None].expand(-1, -1, len(CLASSES)))

    @torch.inference_mode()
    def log_prob_prefixes(self, flux, delta_t, lengths=None):
        """Log-probabilities (n, T, 3) after every epoch, from one pass; arguments as log_prob.

        A missing epoch, and one that does not fill a patch, repeats the value before it.
        """
        (f, d, extra), n_valid, valid = self._packed(*self._checked(flux, delta_t, lengths))
        table = self.heads(self.pooled(f, d, extra))["log_p"]
        seen = np.minimum(np.cumsum(valid, axis=1), n_valid[:, None]) // self.stem_stride
        index = torch.as_tensor(seen, device=f.device)[..., None].expand(-1, -1, len(CLASSES))
        out = torch.gather(table, 1, index)
        return out if torch.is_tensor(flux) else out.cpu().numpy()

    def stream(self, n: int = 1) -> Stream:
        """A Stream that takes n light curves one observation at a time."""
        return Stream(self, n)


def loss_parts(out: dict, labels, weight) -> dict:
    """Sums (not means) of each loss part: stage1, stage2 (non-flat only), aux. labels (n, k), weight (n, k)."""
    parts = {}
    if "event" in out:
        event = labels != FLAT
        parts["stage1"] = (weight * F.binary_cross_entropy_with_logits(out["event"], event.float(), reduction="none")).sum()
        two = F.binary_cross_entropy_with_logits(out["binary"], (labels == BINARY).float(), reduction="none")
        parts["stage2"] = (weight * event * two).sum()
    else:
        loss = F.nll_loss(out["log_p"].flatten(0, -2), labels.flatten(), reduction="none")
        parts["stage1"] = (weight * loss.view(labels.shape)).sum()
    if "aux" in out:
        loss = F.cross_entropy(out["aux"].float().flatten(0, -2), labels.flatten(), reduction="none")
        parts["aux"] = (weight * loss.view(labels.shape)).sum()
    return parts


def from_config(config: dict) -> Classifier:
    """An untrained classifier with the architecture of a training configuration."""
    return Classifier(**{k: config[k] for k in ARCHITECTURE if k in config})


def n_parameters(network: nn.Module) -> int:
    return sum(math.prod(p.shape) for p in network.parameters())
