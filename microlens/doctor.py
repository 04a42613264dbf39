"""python -m microlens doctor: is this installation sound? Each check prints a line; the exit status is 1 if one that matters fails."""

from __future__ import annotations

import os
import shutil
import sys
from importlib import metadata

from microlens import lens
from microlens.network.attention import flash_attention

# Converged with two independent methods at tolerance 1e-7.
REFERENCE = (0.01, 0.01, 0.8, 0.1, 0.01, 18.2833820123)


def doctor() -> int:
    """Run the checks; returns the exit status."""
    import torch

    print(f"python {sys.version.split()[0]}, microlens {metadata.version('microlens')}")
    device = f"cuda ({torch.cuda.get_device_name()})" if torch.cuda.is_available() else "cpu (torch finds no GPU)"
    print(f"ok   torch {torch.__version__}, device {device}")
    x, y, s, q, rho, truth = REFERENCE
    bad = 0
    for engine in lens.ENGINES:
        value = lens.binary_at(x, y, s, q, rho, engine=engine, tolerance=1e-6)
        wrong = abs(value / truth - 1) > 1e-5
        bad += wrong
        print(f"{'BAD ' if wrong else 'ok  '} {lens.engine_version(engine)}: A = {value:.7f}, reference {truth:.7f}")
    function, reason = flash_attention()
    print(f"{'ok  ' if function else 'note'} flash-attn: {reason}" + ("" if function else "; torch's own attention is used"))
    browser = os.environ.get("BROWSER_PATH") or next(
        (p for p in map(shutil.which, ("chromium", "google-chrome", "chrome", "chromium-browser")) if p), None)
    print(f"ok   image export through {browser}" if browser else
          "note no chromium: plotly views cannot be saved as PNG or PDF (HTML works). Install Debian's chromium.")
    return int(bad > 0)
