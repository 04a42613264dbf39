"""Compiled kernels are kept in a folder for each version of their sources, and what they computed is named after it.

numba keeps compiled code beside the source and does not notice that a function called from another file has changed. Set before numba
is imported; NUMBA_CACHE_DIR, where the user has set it, is left alone.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

HERE = Path(__file__).resolve().parent
_sources = sorted(p for p in HERE.rglob("*.py") if b"@numba.njit" in p.read_bytes())
VERSION = hashlib.sha256(b"".join(p.read_bytes() for p in _sources)).hexdigest()[:12]
_folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "microlens" / "kernels"

if Path(os.environ.get("NUMBA_CACHE_DIR", _folder)).is_relative_to(_folder):  # unset, or of a parent process
    os.environ["NUMBA_CACHE_DIR"] = str(_folder / VERSION)
