"""One small wrapper around the two lens libraries. It validates first: the libraries hang on NaN and crash on rho < 0.

    library = new_engine(tolerance=1e-3)        A = library_values(library, x, y, s, q, rho)

VBBinaryLensing (Bozza 2010; Bozza et al. 2018) is the default, VBMicrolensing (its successor) can be chosen. Both are
contour integrators by the same author, so their agreement is no independent proof. Both keep state between calls that
moves results by about 1e-12; `new_engine` clears it, and every light curve starts from there.
"""

from __future__ import annotations

from importlib import metadata

import numpy as np

RESET_TOLERANCE = 1e-2
ENGINES = ("VBBinaryLensing", "VBMicrolensing")


class MagnificationError(RuntimeError):
    """No two estimates of a magnification agree, or none is a number."""


def new_engine(engine: str = "VBBinaryLensing", tolerance: float = 1e-3):
    """A fresh library object with Tol = RelTol = tolerance (whichever is met first stops it, so both must be set)."""
    if engine == "VBBinaryLensing":
        import VBBinaryLensing

        vb = VBBinaryLensing.VBBinaryLensing()
    elif engine == "VBMicrolensing":
        import VBMicrolensing

        vb = VBMicrolensing.VBMicrolensing()
    else:
        raise ValueError(f"engine {engine!r} is unknown; choose one of {', '.join(ENGINES)}.")
    if not 1e-9 <= tolerance <= 0.1:
        raise ValueError(f"tolerance = {tolerance!r}: expected 1e-9 to 0.1 (relative).")
    # The libraries keep the last image positions as starting points of their root finder, in variables shared by all
    # objects. Two contours of a fixed configuration leave a state that does not depend on what came before, so
    # results repeat exactly.
    vb.Tol = vb.RelTol = RESET_TOLERANCE
    for _ in range(3):
        vb.BinaryMag2(1.0, 1.0, 0.0, 0.0, 0.3)
    vb.Tol = vb.RelTol = tolerance
    return vb


def engine_version(engine: str = "VBBinaryLensing") -> str:
    """'VBBinaryLensing 3.7.0'."""
    return f"{engine} {metadata.version(engine)}"


def check_lens(s, q, rho=0.0, limb_darkening=0.0) -> None:
    """Raise ValueError unless s > 0, q > 0, rho >= 0 and 0 <= limb_darkening <= 1, all finite."""
    for name, value, ok, wanted in (
        ("s", s, s > 0, "s > 0 (Einstein radii)"),
        ("q", q, q > 0, "q > 0 (mass ratio)"),
        ("rho", rho, rho >= 0, "rho >= 0 (Einstein radii)"),
        ("limb_darkening", limb_darkening, 0 <= limb_darkening <= 1, "0 to 1 (linear coefficient)"),
    ):
        if not (np.isfinite(value) and ok):
            raise ValueError(f"{name} = {value!r}: expected {wanted}.")


def check_finite(**arrays) -> None:
    for name, value in arrays.items():
        bad = np.flatnonzero(~np.isfinite(np.atleast_1d(value)))
        if len(bad):
            raise ValueError(f"{name}: {len(bad)} values are not finite, the first at position {bad[0]}.")


def library_values(vb, x, y, s, q, rho, limb_darkening=0.0) -> np.ndarray:
    """The library's own magnification at 1-d arrays of positions, unchecked; inputs already validated."""
    if rho == 0:
        at = lambda a, b: vb.BinaryMag0(s, q, a, b)  # noqa: E731
    elif limb_darkening > 0:
        vb.a1 = limb_darkening
        at = lambda a, b: vb.BinaryMagDark(s, q, a, b, rho, vb.RelTol)  # noqa: E731
    else:
        at = lambda a, b: vb.BinaryMag2(s, q, a, b, rho)  # noqa: E731
    return np.array([at(a, b) for a, b in zip(x, y, strict=True)])
