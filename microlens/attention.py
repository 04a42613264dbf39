"""Attention pooling of whole curves by an attention kernel: each head's learnable query against all of a curve's keys.

    backend, reason = choose("auto", device, bf16=False)           pooled = pool(query, keys, values, steps, backend)

An attention kernel answers once a curve. An answer after every epoch, and the prefixes of the training loss, need the cumulative
sums of microlens.model, which do for all prefixes what this does for the last one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def flash_attention():
    """(function, reason): flash-attn's kernel for curves of any lengths if it imports on a GPU, else None and why not."""
    if not torch.cuda.is_available():
        return None, "no GPU"
    try:
        from flash_attn import flash_attn_varlen_func
    except Exception as error:  # a half-broken install raises anything, not only ImportError
        return None, f"flash_attn does not import: {type(error).__name__}: {error}"
    return flash_attn_varlen_func, "flash_attn imports"


def choose(wanted: str, device: torch.device, bf16: bool) -> tuple[str, str]:
    """(back end, reason) for `wanted`, one of auto, cumulative, sdpa, flash. ValueError where flash is asked for and cannot be had."""
    if wanted in ("cumulative", "sdpa"):
        return wanted, "asked for"
    function, reason = flash_attention()
    if function is not None and device.type == "cuda" and bf16:
        return "flash", reason
    reason = reason if function is None else "flash-attn works on a GPU in bf16 alone"
    if wanted == "flash":
        raise ValueError(f"attention_backend = 'flash', but {reason}; choose auto or sdpa.")
    return "sdpa", reason


def pool(query, keys, values, steps, backend: str):
    """The softmax over the first `steps` keys of query . key, applied to the values: (n, heads * e), 0 for a curve of no steps.

    query : (heads, e), its scale included.   keys, values : (n, L, heads, e), L >= 1.   steps : (n,) int, 0 to L.
    backend : sdpa, torch's kernel; or flash, flash-attn's in bfloat16.
    """
    counts = steps.clamp_min(1)  # of no keys at all a softmax, and its gradient, would be NaN
    within = torch.arange(keys.shape[1], device=keys.device) < counts[:, None]
    if backend == "flash":
        ends = F.pad(torch.cumsum(counts, 0), (1, 0)).int()  # the kernel takes the curves end to end, without what pads them
        each = torch.arange(len(keys) + 1, dtype=torch.int32, device=keys.device)
        q = query.expand(len(keys), -1, -1)
        out = flash_attention()[0](*(a.bfloat16() for a in (q, keys[within], values[within])), each, ends, 1, keys.shape[1],
                                   softmax_scale=1.0).flatten(1).to(values.dtype)
    else:
        q, k, v = query[:, None].expand(len(keys), -1, -1, -1), keys.transpose(1, 2), values.transpose(1, 2)
        with torch.autocast(keys.device.type, enabled=False):  # in the arithmetic of the cumulative sums
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=within[:, None, None], scale=1.0).flatten(1)
    return torch.where(steps[:, None] > 0, out, 0.0)
