"""Attention pooling of whole curves by flash-attn's kernel, on a GPU that has it.

    function, reason = flash_attention()          pooled = pool(function, query, keys, values, steps)

The network's own pooling is a ratio of cumulative sums, which answers after every epoch. Where one answer a curve is
wanted, in bf16 on a GPU, flash-attn gives the same number without the sums in between.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def flash_attention():
    """(function, reason): flash-attn's kernel for curves of any lengths where it imports; else None, and why not."""
    if not torch.cuda.is_available():
        return None, "torch finds no GPU"
    try:
        from flash_attn import flash_attn_varlen_func
    except Exception as error:  # a half-broken install raises anything, not only ImportError
        return None, f"flash_attn does not import: {type(error).__name__}: {error}"
    return flash_attn_varlen_func, "flash_attn imports"


def pool(function, query, keys, values, steps):
    """The softmax over the first `steps` keys of query . key, applied to the values: (n, heads * e).

    function : flash_attn_varlen_func, which works in bfloat16.   query : (heads, e), its scale included.
    keys, values : (n, L, heads, e), L >= 1.   steps : (n,) int, 0 to L; a curve of no steps gets 0.
    """
    counts = steps.clamp_min(1)  # of no keys at all a softmax, and its gradient, would be NaN
    within = torch.arange(keys.shape[1], device=keys.device) < counts[:, None]
    ends = F.pad(torch.cumsum(counts, 0), (1, 0)).int()  # the kernel takes curves end to end, without what pads them
    each = torch.arange(len(keys) + 1, dtype=torch.int32, device=keys.device)
    queries = query.expand(len(keys), -1, -1)
    tensors = (a.bfloat16() for a in (queries, keys[within], values[within]))
    out = function(*tensors, each, ends, 1, keys.shape[1], softmax_scale=1.0).flatten(1).to(values.dtype)
    return torch.where(steps[:, None] > 0, out, 0.0)
