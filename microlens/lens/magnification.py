"""Magnification at single positions, each value on two independent estimates.

    A = binary_at(0.01, 0.01, s=0.8, q=0.1, rho=0.01)

The lens library joins contours of images, which goes wrong by any factor where the limb of the source all but touches
a caustic. The package's own estimate is an integral along the limb that joins nothing, or the expansion far from
caustics. Where the two disagree, the mean of point sources on the disc, good to per mille, tells which is believed.
"""

from __future__ import annotations

import numba
import numpy as np

from microlens.lens.caustics import N_PHASES, caustic_polyline, distance_to_caustic
from microlens.lens.engine import MagnificationError, check_finite, check_lens, library_values, new_engine
from microlens.lens.expansion import expand, new_scratch
from microlens.lens.limb import disc_magnification, point_magnification
from microlens.lens.path import Lens

SAFETY = 0.25  # of the tolerance, that the own value's estimate of its error is asked for: it can be low by three times
AGREEMENT = 2.0  # difference of two estimates that are each within their tolerance / tolerance
PLASTIC = 1.32471795724474602596  # the plastic number, whose powers spread points evenly over a square
FEWEST_POINTS, MOST_POINTS = 2**14, 2**22  # point sources on the disc
BATCHES = 16  # of them, whose spread tells the error of their mean
BELIEVED = 5.0  # standard errors between the mean of point sources and a value that it confirms
COARSE = 0.01  # relative difference of two estimates that the mean of point sources is asked to judge


def binary_at(x, y, s, q, rho=0.0, *, engine="VBBinaryLensing", tolerance=1e-5, limb_darkening=0.0):
    """2L1S magnification at source positions (x, y).

    x, y : scalars or arrays of one shape, Einstein radii.   s, q, rho, limb_darkening : scalars.
    Returns A of that shape. rho = 0 is a point source.
    Raises ValueError for impossible input, MagnificationError where no estimate is known to the tolerance.
    """
    check_lens(s, q, rho, limb_darkening)
    check_finite(x=x, y=y)
    x, y = np.broadcast_arrays(np.asarray(x, dtype=float), np.asarray(y, dtype=float))
    library = new_engine(engine, tolerance)
    values = evaluate(library, x.ravel(), y.ravel(), float(s), float(q), float(rho), limb_darkening)
    return values.reshape(x.shape)[()]


def evaluate(vb, x, y, s, q, rho, limb_darkening=0.0) -> np.ndarray:
    """Magnification (n,) at positions x, y (n,) with an existing library object; inputs already validated.

    It is the package's own value, confirmed by the library's or else by the mean of point sources.
    """
    tolerance = vb.RelTol
    if q > 1:  # the same lens with the heavier mass as its primary, where the images near the lighter keep their digits
        x, y, q = -x, -y, 1 / q
    lens = Lens(rho, s, q, 2 * limb_darkening / (3 - limb_darkening))
    polyline = caustic_polyline(s, q, N_PHASES)
    library = library_values(vb, x, y, s, q, rho, limb_darkening)
    values = own_values(np.ascontiguousarray(x), np.ascontiguousarray(y), lens, SAFETY * tolerance, polyline)
    unknown = np.isnan(values)
    if unknown.any():
        values[unknown] = own_values(x[unknown], y[unknown], lens, tolerance, polyline)
    for i in np.flatnonzero(~(np.abs(library - values) <= AGREEMENT * tolerance * values)):
        values[i] = decide(x[i], y[i], lens, tolerance, values[i], library[i])
    return np.maximum(values, 1.0)


@numba.njit(cache=True)
def own_values(x, y, lens, tolerance, polyline):
    """The package's own magnification (n,) at positions x, y (n,); NaN where it is not known to the tolerance."""
    scratch = new_scratch(lens.s)
    out = np.empty(len(x))
    for i in range(len(x)):
        if lens.rho == 0:
            out[i] = point_magnification(x[i], y[i], lens.s, lens.q, scratch)
            continue
        out[i] = expand(x[i], y[i], lens, distance_to_caustic(x[i], y[i], polyline) / lens.rho, tolerance, scratch)
        if np.isnan(out[i]):
            out[i] = disc_magnification(x[i], y[i], lens, tolerance, polyline, scratch)
    return out


def decide(x, y, lens, tolerance, own, library) -> float:
    """The magnification at a position where the own value, NaN if unknown, and the library's disagree.

    Raises MagnificationError where neither can be confirmed.
    """
    if lens.rho == 0 and own >= 1 - tolerance:
        return own  # its images solve the lens equation and have the right parities
    if abs(library / own - 1) < COARSE:
        return own
    n = FEWEST_POINTS
    while lens.rho > 0:
        mean, error = disc_mean(x, y, lens, n)
        if abs(own - mean) < BELIEVED * error + tolerance * mean and error < COARSE * mean:
            return own
        if np.isnan(own) and error < tolerance * mean / BELIEVED:
            return mean
        if n >= MOST_POINTS:
            break
        n *= 4
    raise MagnificationError(
        f"the magnification at x = {x:.9g}, y = {y:.9g} for s = {lens.s:.9g}, q = {lens.q:.9g}, rho = {lens.rho:.9g} "
        f"is not known to {tolerance:g}: the lens library gave {library:.9g}, the limb integral {own:.9g}. "
        "Ask for a coarser tolerance, or move the position by a part of rho.")


@numba.njit(cache=True)
def disc_mean(x, y, lens, n):
    """Magnification of a disc as the mean of n point sources on it, and its standard error; NaN if unknown.

    The sources are spread evenly by powers of the plastic number. Their images are roots of a polynomial, so that the
    mean shares no contour with the library, and no caustic with the limb integral.
    """
    scratch = new_scratch(lens.s)
    sums, weights = np.zeros(BATCHES), np.zeros(BATCHES)
    for k in range(n):
        r2, angle = (0.5 + k / PLASTIC) % 1, 2 * np.pi * ((0.5 + k / PLASTIC**2) % 1)
        r = lens.rho * np.sqrt(r2)
        value = point_magnification(x + r * np.cos(angle), y + r * np.sin(angle), lens.s, lens.q, scratch)
        if np.isnan(value):
            continue
        weight = 1 - lens.gamma + 1.5 * lens.gamma * np.sqrt(1 - r2)
        sums[k * BATCHES // n] += weight * value
        weights[k * BATCHES // n] += weight
    if weights.min() == 0:  # no point source of a batch has clear images
        return np.nan, np.inf
    return sums.sum() / weights.sum(), np.std(sums / weights) / np.sqrt(BATCHES)
