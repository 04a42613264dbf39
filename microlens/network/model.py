"""The causal CNN-GRU with hierarchical heads, its output at every epoch, and its streaming form.

    classifier = microlens.load()
    log_p = classifier.log_prob(flux, delta_t)            # (n, classes) after the whole curve
    log_p = classifier.log_prob_prefixes(flux, delta_t)   # (n, T, classes) after every epoch, from one pass
    stream = classifier.stream(1000); p = stream.update(flux_now, delta_t_now)

(flux, delta t) of each valid epoch, and what the view adds -> patches of `stem_stride` epochs -> two causal
depthwise-separable convolutions -> GRU layers, layer norm, residual -> attention pooling over the steps so far ->
heads. Nothing looks ahead: no normalisation along time, no statistic of the whole curve. Attention compares unit
vectors, so its exponent is bounded by MAX_LOGIT and a prefix's softmax is a ratio of two running sums that needs no
maximum, neither a global one (which would not be causal) nor a running one.

Views: `flux`; `running`, with the best single lens through the past (microlens.fit.running), fitted anew once a patch;
`robust`, the same for the sky as it is, whose flux excess is that without epochs that stand alone.
"""

from __future__ import annotations

import inspect
import math
import os

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from microlens.config import LENSING_CLASSES, N_HEADS, ROBUST_VIEW, VIEWS
from microlens.data.packed import pack
from microlens.fit import running
from microlens.network import attention
from microlens.network.stream import Stream, filled

OWN_FEATURES = {view: 3 + running.EPOCH_CHANNELS.get(view, 0) - (view == ROBUST_VIEW) for view in VIEWS}
N_FEATURES = {view: OWN_FEATURES[view] + running.BLOCK_CHANNELS.get(view, 0) for view in VIEWS}
COARSE = 0.5  # scale of the flux excess beside running.FINE: magnifications of all sizes
EPOCHS_A_DAY = 96.0  # of the thesis' season: the scale of time steps
LEAST_SCALE = 1e-3  # of the standard deviation of a feature that hardly varies
MAX_LOGIT = 10.0  # of the attention: weights of two steps differ by at most exp(20)
HEAD_SCALE = 0.15  # standard deviation of the heads' first weights: first answers near a guess
PIECE = 72  # network steps taken together where no gradient is asked for: what they need stays in a CPU's cache
ROWS = 128  # curves that log_prob answers together, which bounds its memory
SUMS = torch.float64  # of the running sums of the pooling
LEAST_ROWS = 16  # of a matrix product: with fewer it may round in another way


def choose_device(wanted: str) -> torch.device:
    """The device for `wanted`, one of auto (a GPU if torch finds one), cpu, cuda; of several GPUs that of this rank.

    Raises ValueError where cuda is asked for and torch finds no GPU.
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


def column(linear: nn.Linear, x):
    """What a linear map (d -> 1) makes of x (..., d), added up row by row: (..., 1).

    A matrix product with one column rounds in another way for each number of rows.
    """
    return (x * linear.weight[0]).sum(dim=-1, keepdim=True) + linear.bias


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
        if torch.is_grad_enabled():
            y = self.depthwise(joined.transpose(1, 2)).transpose(1, 2)
        else:  # tap by tap, so that one step of a stream and a whole curve round in the same way
            firsts = range(0, self.history + 1, self.depthwise.dilation[0])
            y = self.depthwise.bias.expand_as(x).clone()
            for first, weight in zip(firsts, self.depthwise.weight[:, 0].T, strict=True):
                y.addcmul_(joined[:, first : first + x.shape[1]], weight)
        y = self.dropout(F.gelu(self.pointwise(y)))
        return self.norm(x + y), joined[:, joined.shape[1] - self.history :]


class Classifier(nn.Module):
    """Flat / PSPL / binary, and other, from (flux, delta_t) of the valid epochs.

    The arguments are fields of TrainConfig; n_classes is 3, or 4 with the class other.
    """

    def __init__(self, *, d_model: int, n_layers: int, dropout: float, window_size: int, stem_stride: int, view: str,
                 hierarchical: bool, use_aux_head: bool, attention_pooling: bool,
                 n_classes: int = len(LENSING_CLASSES)):
        super().__init__()
        self.n_classes, self.tells_other = n_classes, n_classes > len(LENSING_CLASSES)
        self.stem_stride, self.n_heads, self.d_model = stem_stride, N_HEADS, d_model
        self.hierarchical, self.use_aux_head, self.attention_pooling = hierarchical, use_aux_head, attention_pooling
        self.view, self.n_own, n_features = view, OWN_FEATURES[view], N_FEATURES[view]
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
            if self.tells_other:
                self.lensing = nn.Linear(d_model, 1)
        else:
            self.flat_head = nn.Linear(d_model, n_classes)
        if use_aux_head:
            self.aux = nn.Linear(d_model, n_classes)
        for name, module in self.named_children():
            if name in ("stage1", "stage2", "lensing", "flat_head", "aux"):
                nn.init.normal_(module.weight, std=HEAD_SCALE)
                nn.init.zeros_(module.bias)
        self.flash = None  # flash-attn's kernel for answers on whole curves: see microlens.network.attention

    # ---- features ---------------------------------------------------------------------------------------------------

    def raw_features(self, flux, delta_t, own=None):
        """Features (n, L, n_own, stride) of the epochs of patches: flux excess on two scales, log of the time step;
        then `own` of the view.

        flux, delta_t : (n, L, stride).   own : what the view says of each epoch, see running.channels_of.
        The robust view has the flux excess without epochs that stand alone, and the network sees no other.
        """
        further = [] if own is None else list(own.unbind(2))
        if self.view == ROBUST_VIEW:
            fine = further.pop(running.CLEAN)
            excess = running.FINE * torch.sinh(fine)
        else:
            excess = flux - 1.0
            fine = asinh(excess / running.FINE)
        return torch.stack([fine, asinh(excess / COARSE), torch.log1p(delta_t * EPOCHS_A_DAY), *further], dim=2)

    def patch_features(self, flux, delta_t, extra=None):
        """Features of each full patch of packed curves: those of its epochs (n, L, n_own, stride), and those that they
        share (n, L, k), or None. A last partial patch waits for its epochs.
        """
        steps = flux.shape[1] // self.stem_stride
        own, shared = (None, None) if extra is None else running.channels_of(extra, self.view)
        flux, delta_t = (a[:, : steps * self.stem_stride].unflatten(1, (steps, self.stem_stride))
                         for a in (flux, delta_t))
        return self.raw_features(flux, delta_t, own), shared

    def set_scaling(self, flux, delta_t, lengths, extra=None):
        """Mean and standard deviation of the features over the full patches of training curves, (n, T) and (n,)."""
        own, shared = self.patch_features(flux, delta_t, extra)
        full = torch.arange(own.shape[1]) < lengths[:, None] // self.stem_stride
        parts = [own[full].transpose(1, 2).flatten(0, 1)] + ([] if shared is None else [shared[full]])
        self.mean.copy_(torch.cat([part.mean(0) for part in parts]))
        self.std.copy_(torch.cat([part.std(0) for part in parts]).clamp_min(LEAST_SCALE))

    def patches(self, flux, delta_t, extra=None):
        """Standardised features (n, T // stride, k) of packed curves: those of the epochs of a patch, feature by
        feature, and then once those that its epochs share.
        """
        own, shared = self.patch_features(flux, delta_t, extra)
        k = self.n_own
        x = ((own - self.mean[:k, None]) / self.std[:k, None]).flatten(2)
        return x if shared is None else torch.cat([x, (shared - self.mean[k:]) / self.std[k:]], dim=-1)

    def _stem(self, patches):
        """The first map of patches (n, L, .): (n, L, d). What the epochs of a patch share has their weights' sum."""
        weight, k = self.stem.weight.unflatten(1, (self.stem_stride, -1)), self.n_own
        weight = torch.cat([weight[..., :k].transpose(1, 2).flatten(1), weight[..., k:].sum(dim=1)], dim=1)
        return F.linear(patches, weight, self.stem.bias)

    # ---- the causal core --------------------------------------------------------------------------------------------

    def initial_state(self, n, device=None) -> dict:
        """The state before the first epoch of n curves."""
        def zeros(*shape, dtype=torch.float32):
            return torch.zeros(n, *shape, device=device, dtype=dtype)

        return {
            "past0": zeros(self.convs[0].history, self.d_model),
            "past1": zeros(self.convs[1].history, self.d_model),
            "hidden": zeros(self.gru.num_layers, self.d_model),
            "weighted": zeros(self.d_model, dtype=SUMS),
            "weight": zeros(self.n_heads if self.attention_pooling else 1, dtype=SUMS),
        }

    def advance(self, patches, state):
        """Take (n, L, .) further patches. Returns the pooled state after each, (n, L, 2 d), and the new state."""
        h, state = self._core(patches, state)
        sums, last = self._sums(h, state)
        return self._pooled(*sums, h), {**state, **last}

    def _core(self, patches, state):
        """The core's output (n, L, d) after each of (n, L, .) further patches, and its new state."""
        x = self._stem(patches)
        x, past0 = self.convs[0](x, state["past0"])
        x, past1 = self.convs[1](x, state["past1"])
        y, hidden = self.gru(x, state["hidden"].transpose(0, 1).contiguous())
        return self.norm(x + y), {**state, "past0": past0, "past1": past1, "hidden": hidden.transpose(0, 1)}

    def _sums(self, h, state):
        """The running sums after each output h (n, L, d) of the core: of weighted values (n, L, d), and of weights
        (n, L, heads). Also the last of them, as the state keeps them.
        """
        if self.attention_pooling:
            query, keys, values = self._attention(h)
            weights = torch.exp((keys * query).sum(-1))
        else:
            values, weights = h, torch.ones_like(h[..., :1])
        dtype = torch.float32 if torch.is_grad_enabled() else SUMS
        terms = (weights[..., None] * values.unflatten(-1, (weights.shape[-1], -1))).flatten(-2)
        weighted = self._running_sums(terms.to(dtype), state["weighted"])
        weight = self._running_sums(weights.to(dtype), state["weight"])
        return (weighted, weight), {"weighted": weighted[:, -1], "weight": weight[:, -1]}

    @staticmethod
    def _running_sums(x, start):
        """The sums of start (n, .) and x (n, L, .) after each of the L steps; x may be used up.

        They are added step by step, so that a prefix never sees what follows and a stream, which goes on from its sums,
        rounds in the same way.
        """
        if torch.is_grad_enabled():  # which never goes on from other sums than 0
            return torch.cumsum(x, dim=1)
        x[:, 0] += start
        return x.cumsum_(dim=1)

    @staticmethod
    def _pooled(weighted, weight, h):
        """The pooled state (n, L, 2 d): the mean values of running sums as _sums gives them, and the outputs h."""
        mean = weighted.unflatten(-1, (weight.shape[-1], -1)) / weight[..., None]
        return torch.cat([mean.flatten(-2).to(h.dtype), h], dim=-1)

    def _attention(self, h):
        """Query (heads, e), its learnt scale included, keys (n, L, heads, e) and values (n, L, d) of each step."""
        keys, values = self.key_value(h).float().chunk(2, dim=-1)
        scale = MAX_LOGIT * torch.sigmoid(self.sharpness)
        query = scale[:, None] * F.normalize(self.query, dim=-1)
        return query, F.normalize(keys.unflatten(-1, (self.n_heads, -1)), dim=-1), values

    def heads(self, pooled) -> dict:
        """Log-probabilities `log_p` (..., n_classes), and the logits the loss needs."""
        rows = pooled.shape[:-1].numel()
        if rows < LEAST_ROWS and not torch.is_grad_enabled():
            answers = self.heads(filled(pooled.reshape(rows, -1), LEAST_ROWS))
            return {name: out[:rows].reshape(*pooled.shape[:-1], *out.shape[1:]) for name, out in answers.items()}
        z = self.trunk(pooled)
        out = {"aux": self.aux(z)} if self.use_aux_head else {}
        if not self.hierarchical:
            out["log_p"] = F.log_softmax(self.flat_head(z).float(), dim=-1)
            return out
        event, binary = column(self.stage1, z).float(), column(self.stage2, z).float()
        out.update(event=event[..., 0], binary=binary[..., 0])
        lensed, other = F.logsigmoid(event), []
        if self.tells_other:
            lensing = column(self.lensing, z).float()
            out["lensing"] = lensing[..., 0]
            other = [lensed + F.logsigmoid(-lensing)]
            lensed = lensed + F.logsigmoid(lensing)
        out["log_p"] = torch.cat([F.logsigmoid(-event), lensed + F.logsigmoid(-binary), lensed + F.logsigmoid(binary),
                                  *other], dim=-1)
        return out

    def forward(self, flux, delta_t, steps, extra=None):
        """Heads after `steps` (n, k) full patches of packed curves (n, T); 0 steps: nothing seen yet."""
        if steps.shape[1] == 1 and self.attention_pooling and self.flash is not None:
            return self.heads(self.pooled_once(flux, delta_t, steps[:, 0], extra)[:, None])
        return self.heads(self.pooled(flux, delta_t, extra, steps))

    def _pieces(self, flux, delta_t, extra):
        """The core's output (n, l, d) after each patch of packed curves, in pieces along time one after the other."""
        n, steps = flux.shape[0], flux.shape[1] // self.stem_stride
        size = max(steps, 1) if torch.is_grad_enabled() or flux.is_cuda else PIECE
        state = self.initial_state(n, flux.device)
        for i in range(0, steps, size):
            part = slice(i * self.stem_stride, min(i + size, steps) * self.stem_stride)
            blocks = None if extra is None else extra[:, i : i + size]
            h, state = self._core(self.patches(flux[:, part], delta_t[:, part], blocks), state)
            yield h

    def _pooled_pieces(self, flux, delta_t, extra):
        """Running sums and outputs, as _pooled takes them, of each of _pieces."""
        state = self.initial_state(len(flux), flux.device)
        for h in self._pieces(flux, delta_t, extra):
            sums, state = self._sums(h, state)
            yield *sums, h

    def pooled(self, flux, delta_t, extra=None, steps=None):
        """Pooled state of packed curves after `steps` (n, k) full patches, or after each of 0, 1, ... L: (n, k, 2 d).

        It is 0 after 0 steps.
        """
        n = len(flux)
        if n < LEAST_ROWS and not torch.is_grad_enabled():  # filled up with empty curves
            given = (flux, delta_t, extra, steps)
            return self.pooled(*(None if a is None else filled(a, LEAST_ROWS) for a in given))[:n]
        pieces = self._pooled_pieces(flux, delta_t, extra)
        found = torch.zeros(n, 1 if steps is None else steps.shape[1], 2 * self.d_model, device=flux.device)
        if steps is None:
            return torch.cat([found, *(self._pooled(*piece) for piece in pieces)], dim=1)
        last = steps[..., None] - 1  # of the steps that the next piece begins with
        for piece in pieces:
            length = piece[-1].shape[1]
            here = (last >= 0) & (last < length)
            asked = (torch.take_along_dim(a, last.clamp(0, length - 1), dim=1) for a in piece)
            found = torch.where(here, self._pooled(*asked), found)
            last = last - length
        return found

    def pooled_once(self, flux, delta_t, steps, extra=None):
        """Pooled state after `steps` (n,) full patches, (n, 2 d): that of pooled(), by flash-attn's kernel."""
        if flux.shape[1] < self.stem_stride:
            return torch.zeros(len(flux), 2 * self.d_model, device=flux.device)
        h = torch.cat(list(self._pieces(flux, delta_t, extra)), dim=1)
        query, keys, values = self._attention(h)
        pooled = attention.pool(self.flash, query, keys, values.unflatten(-1, (self.n_heads, -1)), steps)
        last = h[torch.arange(len(h), device=h.device), (steps - 1).clamp_min(0)]
        return torch.cat([pooled, torch.where(steps[:, None] > 0, last, 0.0)], dim=-1)

    # ---- for users --------------------------------------------------------------------------------------------------

    def _checked(self, flux, delta_t):
        """The arguments of log_prob as numpy arrays."""
        f, d = (a.detach().cpu().numpy() if torch.is_tensor(a) else np.asarray(a) for a in (flux, delta_t))
        if f.ndim != 2 or f.shape != d.shape:
            raise ValueError(f"flux, delta_t: came shapes {f.shape} and {d.shape}; expected one shape (n, T).")
        return f, d

    def _packed(self, f, d):
        """The curves as PackedDataset.gather gives them."""
        f, d, _, lengths = pack(f, d)
        extra = running.running_view(f, d, lengths, self.stem_stride, self.view)
        return f, np.nan_to_num(d, copy=False), lengths, extra if extra is None else np.nan_to_num(extra, copy=False)

    def tensors(self, *arrays) -> list:
        """Arrays as tensors on this network's device; None stays None."""
        return [None if a is None else torch.as_tensor(a, device=self.mean.device) for a in arrays]

    @torch.inference_mode()
    def log_prob(self, flux, delta_t):
        """Log-probabilities (n, n_classes) of flat, pspl, binary, and other after whole curves.

        flux : (n, T) F/F_base, 0.0 or NaN = no observation.   delta_t : (n, T) days since the previous valid epoch.
        numpy in, numpy out; tensor in, tensor out. Raises ValueError for misshapen or missing input.
        """
        arrays = self._checked(flux, delta_t)
        out = [torch.zeros(0, self.n_classes, device=self.mean.device)]
        for i in range(0, len(arrays[0]), ROWS):
            out.append(self.log_prob_packed(*self._packed(*(a[i : i + ROWS] for a in arrays))))
        return torch.cat(out) if torch.is_tensor(flux) else torch.cat(out).cpu().numpy()

    @torch.inference_mode()
    def log_prob_packed(self, flux, delta_t, lengths, extra=None):
        """log_prob of what PackedDataset.gather gives, as a tensor (n, n_classes)."""
        f, d, steps, extra = self.tensors(flux, delta_t, lengths // self.stem_stride, extra)
        return self(f, d, steps[:, None], extra)["log_p"][:, 0]

    @torch.inference_mode()
    def log_prob_steps(self, flux, delta_t, lengths, extra=None):
        """Log-probabilities (n, L + 1, n_classes) after 0 .. L full patches of what PackedDataset.gather gives.

        What follows a curve's own last patch repeats it.
        """
        f, d, last, extra = self.tensors(flux, delta_t, lengths // self.stem_stride, extra)
        out = self.heads(self.pooled(f, d, extra))["log_p"]
        index = torch.minimum(torch.arange(out.shape[1], device=f.device)[None], last[:, None])
        return torch.take_along_dim(out, index[..., None], dim=1)

    @torch.inference_mode()
    def log_prob_prefixes(self, flux, delta_t):
        """Log-probabilities (n, T, n_classes) after every epoch, from one pass; arguments as log_prob.

        A missing epoch, and one that does not fill a patch, repeats the value before it.
        """
        flux_in, delta_t_in = self._checked(flux, delta_t)
        table = self.log_prob_steps(*self._packed(flux_in, delta_t_in))
        (seen,) = self.tensors(np.cumsum(np.isfinite(flux_in) & (flux_in != 0), axis=1) // self.stem_stride)
        out = torch.take_along_dim(table, seen[..., None], dim=1)
        return out if torch.is_tensor(flux) else out.cpu().numpy()

    def stream(self, n: int = 1) -> Stream:
        """A Stream that takes n light curves one observation at a time."""
        return Stream(self, n)


ARCHITECTURE = tuple(name for name in inspect.signature(Classifier).parameters if name != "n_classes")
"""The fields of TrainConfig that make a Classifier."""


def from_config(config: dict, n_classes: int = len(LENSING_CLASSES)) -> Classifier:
    """An untrained classifier with the architecture of a training configuration, for so many classes."""
    return Classifier(**{k: config[k] for k in ARCHITECTURE}, n_classes=n_classes)


def n_parameters(network: nn.Module) -> int:
    return sum(math.prod(p.shape) for p in network.parameters())
