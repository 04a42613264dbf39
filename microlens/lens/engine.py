"""One small wrapper around the two lens libraries. It validates first: the libraries hang on NaN and crash on rho < 0.

    A = binary_at(0.01, 0.01, s=0.8, q=0.1, rho=0.01)

VBBinaryLensing (Bozza 2010; Bozza et al. 2018) is the default, VBMicrolensing (its successor) can be chosen. Both are
contour integrators by the same author, so their agreement is no independent proof. Both keep state between calls that
moves results by about 1e-12; `new_engine` clears it, and every light curve starts from there.
"""

from __future__ import annotations

import functools
from importlib import metadata
from pathlib import Path

import numpy as np

RESET_TOLERANCE = 1e-2
NUDGE = 2e-3  # source radii between an unsteady position and those that stand for it
SMALL = 1e-3  # rho of a source below which the libraries err at single positions near the peak
SPREAD = 0.01  # relative, of the middle three of five contours, beyond which none is believed
HIGHEST = 10.0  # A rho, 2 for a single lens, beyond which no contour is believed
RAYS = 400_000  # point sources on the disc then
ENGINES = ("VBBinaryLensing", "VBMicrolensing")


class MagnificationError(RuntimeError):
    """The lens library returned something that is no magnification."""


@functools.cache
def single_lens_engine():
    """The process's one library object for finite-source single lenses, whose table is read from disk only once."""
    import VBBinaryLensing

    vb = VBBinaryLensing.VBBinaryLensing()
    vb.LoadESPLTable(str(Path(VBBinaryLensing.__file__).parent / "data" / "ESPL.tbl"))
    return vb


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


def binary_at(x, y, s, q, rho=0.0, *, engine="VBBinaryLensing", tolerance=1e-5, limb_darkening=0.0):
    """2L1S magnification at source positions (x, y), by the library alone.

    x, y : scalars or arrays of one shape, Einstein radii.   s, q, rho, limb_darkening : scalars.
    Returns A of that shape. rho = 0 is a point source.
    Raises ValueError for impossible input, MagnificationError if the library fails.
    """
    check_lens(s, q, rho, limb_darkening)
    check_finite(x=x, y=y)
    x, y = np.broadcast_arrays(np.asarray(x, dtype=float), np.asarray(y, dtype=float))
    library = new_engine(engine, tolerance)
    values = evaluate(library, x.ravel(), y.ravel(), float(s), float(q), float(rho), limb_darkening)
    return values.reshape(x.shape)[()]


def evaluate(vb, x, y, s, q, rho, limb_darkening=0.0) -> np.ndarray:
    """Magnification at 1-d arrays of positions with an existing library object; inputs already validated."""
    if rho == 0:
        at = lambda a, b: vb.BinaryMag0(s, q, a, b)  # noqa: E731
    elif limb_darkening > 0:
        vb.a1 = limb_darkening
        at = lambda a, b: vb.BinaryMagDark(s, q, a, b, rho, vb.RelTol)  # noqa: E731
    else:
        at = lambda a, b: vb.BinaryMag2(s, q, a, b, rho)  # noqa: E731
    values = np.array([at(a, b) for a, b in zip(x, y, strict=True)])
    if 0 < rho < SMALL:
        for i in np.flatnonzero(values * rho > 0.5):
            values[i] = _steady(at, vb, x[i], y[i], s, q, rho, limb_darkening, values[i])
    # No image configuration demagnifies below 1; contour noise may fall short of it by the tolerance.
    bad = ~np.isfinite(values) | (values < 1 - 2 * vb.RelTol)
    if bad.any():
        i = int(np.flatnonzero(bad)[0])
        raise MagnificationError(f"the lens library gave A = {values[i]} at x = {x[i]:.9g}, y = {y[i]:.9g} for "
                                 f"s = {s:.9g}, q = {q:.9g}, rho = {rho:.9g} ({bad.sum()} of {len(values)} points).")
    return np.maximum(values, 1.0)


def _steady(at, vb, x, y, s, q, rho, limb_darkening, value) -> float:
    """Magnification near the peak of a small source, where the libraries err at single positions by any factor.

    The answer is the median of the value and of the means of four opposite pairs around it, which differ from it by
    about NUDGE^2 where the magnification is smooth. Where they disagree among themselves, it is the mean of point
    sources on the disc, good to some 3e-3.
    """
    found = [value]
    for angle in np.pi * np.arange(4) / 4:
        dx, dy = NUDGE * rho * np.cos(angle), NUDGE * rho * np.sin(angle)
        found.append(0.5 * (at(x + dx, y + dy) + at(x - dx, y - dy)))
    low, middle, high = sorted(found)[1:4]
    believed = high - low < SPREAD * middle and middle * rho < HIGHEST
    return middle if believed else disc_mean(vb, x, y, s, q, rho, limb_darkening, RAYS)


def disc_mean(vb, x, y, s, q, rho, limb_darkening=0.0, n=RAYS) -> float:
    """Magnification of a disc as the mean of n point sources on it, spread evenly by powers of the plastic number.

    It solves the lens equation at each of them, so it shares no contour with the library.
    """
    k, plastic = np.arange(n), 1.32471795724474602596
    r, angle = np.sqrt((0.5 + k / plastic) % 1), 2 * np.pi * ((0.5 + k / plastic**2) % 1)
    dx, dy = rho * r * np.cos(angle), rho * r * np.sin(angle)
    A = np.array([vb.BinaryMag0(s, q, x + a, y + b) for a, b in zip(dx, dy, strict=True)])
    brightness = 1 - limb_darkening * (1 - np.sqrt(1 - r**2))
    return float((A * brightness).mean() / brightness.mean())
