"""Magnification of a finite source behind a binary lens by an integral along its limb, without joined image contours.

By Green's theorem the area of the images of a disc is 1/2 Im of the integral of conj(z) dz along their boundaries. The
lens equation gives conj(z) = conj(zeta) + m1/(z - z1) + m2/(z - z2) there. What does not contain conj(zeta - zeta_0) is
analytic in z, without a pole in an image, and drops out. With zeta = zeta_0 + rho e^(i phi) this leaves

    A = 1/(2 pi) integral over phi of the sum over images of (1 + Re(kappa e^(-2 i phi))) / |1 - |kappa|^2|.

The sum is symmetric in the images, so that none is followed around the limb or joined to another, which is where
contour integrators go wrong; the images at an angle are roots of Witt's (1990) quintic. The integrand is analytic but
for inverse square roots where the limb crosses a caustic: the integral is cut there, and the substitution
phi = middle - half cos(psi) takes them away. Gauss's and Kronrod's rules give value and error of each piece.

Two sums check the result: each point has one image of negative parity more than of positive, and the boundaries of
the images are closed, so that the integral of dz over all of them vanishes.
"""

from __future__ import annotations

import numba
import numpy as np

from microlens.lens.caustics import limb_angles
from microlens.lens.expansion import SEPARATE, SMALLEST_SCALE, far_magnification, find_candidates, start_roots
from microlens.lens.path import lens_equation, lens_positions, masses_about_secondary, point_masses

CANDIDATE = 1e-3  # residual of the lens equation below which a root of the quintic may be an image
POLISH_STEPS = 10
POLISHED = 1e-13  # last step of a polished image, relative, or residual of the lens equation that rounding leaves
SAME = 1e-7  # distance, relative, below which two images of one parity are the same
CLOSEST = 1e-9  # radians between two cuts of the limb
MAX_ANGLES = 100  # at which the limb crosses the caustic
MAX_PIECES = 300  # of the limb
MAX_DARK_PIECES = 40  # of the cosine in the sum over discs
UNIFORM_SHARE = 0.2  # tolerance of a disc in that sum / tolerance of the sum
WORST = 200.0  # of Gauss's error estimate, as in QUADPACK (Piessens et al. 1983): (200 e)^1.5 is Kronrod's error
# Nodes in 0..1 and weights of Kronrod's rule with 15 points, and the weights of Gauss's with 7 (QUADPACK's qk15).
KRONROD_NODES = np.array([
    0.991455371120812639206854697526329, 0.949107912342758524526189684047851, 0.864864423359769072789712788640926,
    0.741531185599394439863864773280788, 0.586087235467691130294144691693970, 0.405845151377397166906606412076961,
    0.207784955007898467600689403773245, 0.0])
KRONROD_WEIGHTS = np.array([
    0.022935322010529224963732008058970, 0.063092092629978553290700663189204, 0.104790010322250183839876322541518,
    0.140653259715525918745189590510238, 0.169004726639267902826583426598550, 0.190350578064785409913256402421014,
    0.204432940075298892414161999234649, 0.209482141084727828012999174891714])
GAUSS_WEIGHTS = np.array([
    0.0, 0.129484966168869693270611432679082, 0.0, 0.279705391489276667901467771423780, 0.0,
    0.381830050505118944950369775488975, 0.0, 0.417959183673469387755102040816327])


@numba.njit(cache=True, error_model="numpy")
def polish(z, zeta, masses):
    """An image near z by Newton's method on the lens equation: its position, kappa there, and whether there is one."""
    best, kappa = np.inf, 0j
    for _ in range(POLISH_STEPS):
        position, kappa = lens_equation(z, masses)
        off = position - zeta
        size = abs(off.real) + abs(off.imag)
        if size < POLISHED * (1.0 + abs(z.real) + abs(z.imag)) and size >= 0.5 * best:
            return z, kappa, True
        best = min(best, size)
        jacobian = 1.0 - (kappa.real * kappa.real + kappa.imag * kappa.imag)
        if jacobian == 0 or size > CANDIDATE:
            return z, kappa, False
        z += (kappa * np.conj(off) - off) * (1.0 / jacobian)
    return z, kappa, best < POLISHED * (1.0 + abs(z.real) + abs(z.imag))


@numba.njit(cache=True, error_model="numpy")
def limb_sums(phi, disc, scratch):
    """The integrand at angle phi, and the sum over images of dz/dphi/rho with their parities; NaN if one is unclear.

    disc : its centre relative to the secondary, rho, and masses about the secondary.
    """
    centre, rho, masses = disc
    e = complex(np.cos(phi), np.sin(phi))
    zeta = centre + rho * e
    total, closing = 0.0, 0j
    count = clear_images(zeta, masses, scratch)
    for i in range(count):
        kappa = lens_equation(scratch.images[i], masses)[1]
        scale = 1.0 / abs(scratch.moved[i].real)
        total += (1.0 + (kappa * np.conj(e * e)).real) * scale
        closing += 1j * (e + kappa * np.conj(e)) * scale
    return (total if count > 0 else np.nan), closing


@numba.njit(cache=True, error_model="numpy")
def clear_images(zeta, masses, scratch):
    """Put a point source's images into scratch.images and their Jacobians into scratch.moved; returns their number.

    That is 0 where they are unclear: one image more must be of negative parity than of positive.
    masses : about the secondary.
    """
    for j in range(5):
        scratch.roots[j] += SEPARATE[j]
    parity, count = 0, 0
    if find_candidates(zeta, masses, scratch):
        for i in range(5):
            z = scratch.roots[i]
            if z == masses.z1 or z == masses.z2:
                continue
            z, kappa, found = polish(z, zeta, masses)
            jacobian = 1.0 - (kappa.real * kappa.real + kappa.imag * kappa.imag)
            if not found or repeated(z, jacobian, scratch, count):
                continue
            scratch.images[count], scratch.moved[count] = z, jacobian
            count += 1
            parity += 1 if jacobian > 0 else -1
    if parity != -1:
        start_roots(-masses.z1, scratch.roots)
        return 0
    return count


@numba.njit(cache=True, error_model="numpy")
def repeated(z, jacobian, scratch, count):
    """Whether z is one of the images found so far: a root that is no image may have led to one of them.

    Two images beside a caustic have different parity, so that they are not taken for one.
    """
    for i in range(count):
        apart = scratch.images[i] - z
        near = abs(apart.real) + abs(apart.imag) < SAME * (SMALLEST_SCALE + abs(z.real) + abs(z.imag))
        if near and scratch.moved[i].real * jacobian > 0:
            return True
    return False


@numba.njit(cache=True, error_model="numpy")
def integrate_piece(start, end, disc, scratch):
    """The integral over a piece of the limb, its estimated error, and the integral of dz/rho over the images.

    At an angle where the images are unclear, beside a cusp, the value before it is taken, and counts wholly as error.
    """
    middle, half = 0.5 * (start + end), 0.5 * (end - start)
    kronrod = gauss = unclear = last = 0.0
    closing = 0j
    for k in range(15):
        i = min(k, 14 - k)
        psi = 0.5 * np.pi * (1.0 + (KRONROD_NODES[i] if k > 7 else -KRONROD_NODES[i]))
        scale = 0.5 * np.pi * half * np.sin(psi)
        value, step = limb_sums(middle - half * np.cos(psi), disc, scratch)
        if np.isnan(value):
            value = last
            unclear += KRONROD_WEIGHTS[i] * scale * max(1.0, abs(last))
        last = value
        kronrod += KRONROD_WEIGHTS[i] * scale * value
        gauss += GAUSS_WEIGHTS[i] * scale * value
        closing += KRONROD_WEIGHTS[i] * scale * step
    difference = abs(kronrod - gauss)
    error = difference * min(1.0, np.sqrt(WORST * difference / max(abs(kronrod), half)))
    return kronrod, error + unclear, closing


@numba.njit(cache=True, error_model="numpy")
def apart(angles):
    """The ascending angles (n,) but for those that all but repeat the one before."""
    keep = np.ones(len(angles), np.bool_)
    for i in range(1, len(angles)):
        keep[i] = angles[i] - angles[i - 1] > CLOSEST
    return angles[keep]


@numba.njit(cache=True, error_model="numpy")
def limb_integral(x, y, s, q, rho, tolerance, polyline, scratch):
    """Magnification of a uniform disc, its estimated relative error, and how far the images' boundaries fail to close.

    The last is in units of the images' size. NaN and infinity where an image is unclear or the error stays large.
    x, y, s, rho : Einstein radii.   tolerance : relative.   polyline : of caustic_polyline.   scratch : of new_scratch.
    """
    masses = masses_about_secondary(s, q)
    disc = (complex(x - lens_positions(s, q)[1], y), rho, masses)
    angles = np.empty(MAX_ANGLES)
    n = limb_angles(complex(x, y), rho, point_masses(s, q), polyline, angles)
    if n == 0:
        n, angles[0] = 1, 0.0
    cuts = apart(np.sort(angles[:n]))
    n = len(cuts)
    pieces, sums = np.empty((MAX_PIECES, 4)), np.empty(MAX_PIECES, np.complex128)
    for i in range(n):
        pieces[i, 0], pieces[i, 1] = cuts[i], cuts[i + 1] if i + 1 < n else cuts[0] + 2 * np.pi
        pieces[i, 2], pieces[i, 3], sums[i] = integrate_piece(pieces[i, 0], pieces[i, 1], disc, scratch)
    while n < MAX_PIECES:
        total, error, open_by = pieces[:n, 2].sum(), pieces[:n, 3].sum(), abs(sums[:n].sum())
        if error <= tolerance * total and open_by <= tolerance * total:
            break
        # Where only the images do not close, the nodes have missed something narrow: long pieces are cut in turn.
        by_length = error <= tolerance * total and n % 2 == 1
        worst = np.argmax(pieces[:n, 1] - pieces[:n, 0]) if by_length else np.argmax(pieces[:n, 3])
        middle = 0.5 * (pieces[worst, 0] + pieces[worst, 1])
        if not (np.isfinite(error) and middle > pieces[worst, 0]):
            return np.nan, np.inf, np.inf
        pieces[n, 0], pieces[n, 1], pieces[worst, 1] = middle, pieces[worst, 1], middle
        for i in (worst, n):
            pieces[i, 2], pieces[i, 3], sums[i] = integrate_piece(pieces[i, 0], pieces[i, 1], disc, scratch)
        n += 1
    total = pieces[:n, 2].sum()
    return total / (2 * np.pi), pieces[:n, 3].sum() / total, abs(sums[:n].sum()) / total


@numba.njit(cache=True, error_model="numpy")
def disc_magnification(x, y, lens, tolerance, polyline, scratch):
    """Magnification of a limb-darkened disc, NaN where it is not known to the relative tolerance.

    lens : path.Lens.   polyline : see caustic_polyline.   scratch : see new_scratch.
    A disc with linear limb darkening is a sum of uniform discs: with Gamma as in path.Lens and c the cosine of the
    angle to the normal, A = (1 - Gamma) A(rho) + 3/2 Gamma integral over c of (1 - c^2) A(rho sqrt(1 - c^2)).
    """
    share = tolerance if lens.gamma == 0 else UNIFORM_SHARE * tolerance
    whole = sure_limb_integral(x, y, lens, lens.rho, share, polyline, scratch)
    if lens.gamma == 0 or np.isnan(whole):
        return whole
    pieces, n = np.zeros((MAX_DARK_PIECES, 4)), 1
    pieces[0, 1] = 1.0
    _sum_discs(x, y, lens, share, polyline, scratch, pieces[0])
    while True:
        total = (1 - lens.gamma) * whole + 1.5 * lens.gamma * pieces[:n, 2].sum()
        error = 1.5 * lens.gamma * pieces[:n, 3].sum()
        if error + share * total <= tolerance * total:
            return total
        if not np.isfinite(error) or n == MAX_DARK_PIECES:
            return np.nan
        worst = np.argmax(pieces[:n, 3])
        middle = 0.5 * (pieces[worst, 0] + pieces[worst, 1])
        pieces[n, 0], pieces[n, 1], pieces[worst, 1] = middle, pieces[worst, 1], middle
        _sum_discs(x, y, lens, share, polyline, scratch, pieces[worst])
        _sum_discs(x, y, lens, share, polyline, scratch, pieces[n])
        n += 1


@numba.njit(cache=True, error_model="numpy")
def sure_limb_integral(x, y, lens, rho, tolerance, polyline, scratch):
    """Magnification of a uniform disc of radius rho, NaN where its error or the images' gap exceeds the tolerance."""
    value, error, gap = limb_integral(x, y, lens.s, lens.q, rho, tolerance, polyline, scratch)
    return value if max(error, gap) <= tolerance and value >= 1.0 - tolerance else np.nan


@numba.njit(cache=True, error_model="numpy")
def _sum_discs(x, y, lens, tolerance, polyline, scratch, piece):
    """Set piece[2:] to the integral over c from piece[0] to piece[1] of a darkened disc's discs, and to its error."""
    middle, half = 0.5 * (piece[0] + piece[1]), 0.5 * (piece[1] - piece[0])
    kronrod = gauss = 0.0
    for k in range(15):
        i = min(k, 14 - k)
        c = middle + half * (KRONROD_NODES[i] if k > 7 else -KRONROD_NODES[i])
        area = 1.0 - c * c
        value = area * sure_limb_integral(x, y, lens, lens.rho * np.sqrt(area), tolerance, polyline, scratch)
        kronrod += KRONROD_WEIGHTS[i] * half * value
        gauss += GAUSS_WEIGHTS[i] * half * value
    difference = abs(kronrod - gauss)
    piece[2], piece[3] = kronrod, difference * min(1.0, np.sqrt(WORST * difference / kronrod))


@numba.njit(cache=True, error_model="numpy")
def point_magnification(x, y, s, q, scratch):
    """Magnification of a point source, NaN where its images are unclear.   scratch : see new_scratch."""
    far = far_magnification(x, y, s, 0.0)
    if far > 0:
        return far
    masses = masses_about_secondary(s, q)
    count = clear_images(complex(x - lens_positions(s, q)[1], y), masses, scratch)
    total = 0.0
    for i in range(count):
        total += 1.0 / abs(scratch.moved[i].real)
    return total if count > 0 else np.nan
