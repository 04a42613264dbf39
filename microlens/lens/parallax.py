"""Annual parallax: how the Earth's motion about the Sun bends the path of a source, as seen from the Earth.

    parallax = Parallax(pi_EN=0.1, pi_EE=-0.05)                            # in the Roman bulge fields, t_0,par = t_0
    A = lens.pspl(t, t_0, u_0, t_E, parallax=parallax)

In the geocentric formalism (Gould 2004) the parameters t_0, u_0 and t_E are those of the straight path along which the
source would move if the Earth kept the velocity that it has at t_0,par. The source's coordinates along and across that
path are

    tau  = (t - t_0)/t_E + pi_EN s_N + pi_EE s_E          beta = u_0 + pi_EN s_E - pi_EE s_N

where s(t) = (s_N, s_E), in au and projected on the sky, is the position of the Sun as seen from the Earth, less its
position and its uniform motion at t_0,par. Signs and numbers are those of MulensModel (Poleski & Yee 2019). The
Earth's position is that of astropy's built-in ephemeris (ERFA's epv00), which needs no file. Roman stands 0.01 au from
the Earth, at L2, which changes no magnification that can be measured.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numba
import numpy as np
from numba.extending import register_jitable

FIELD_RA, FIELD_DEC = 268.0, -29.2
"""Centre of the Roman bulge fields, degrees (ICRS)."""
SEASON_START = 2461447.757
"""Julian date (TDB) of the first epoch of RMDC26's first dense season: time 0 of a simulated light curve."""

STEP = 1.0  # d, between the rows of a table: a cubic between them is right to 1e-9 au
BLOCK = 256  # rows; tables begin and end at multiples of it, so that neighbouring requests share one
JULIAN_DATES = (2_415_000.0, 2_488_000.0)  # 1899 to 2100, where the built-in ephemeris is good


class Field(NamedTuple):
    """Where in the sky and when: direction in degrees (ICRS), and the Julian date (TDB) of time 0."""

    ra: float = FIELD_RA
    dec: float = FIELD_DEC
    season_start: float = SEASON_START


ROMAN_FIELD = Field()


class Parallax(NamedTuple):
    """The microlensing parallax of an event, north and east, and its reference time.

    t_0_par : days, the time at which the path touches the straight one; None means t_0.
    """

    pi_EN: float
    pi_EE: float
    t_0_par: float | None = None
    field: Field = ROMAN_FIELD


@functools.lru_cache(maxsize=16)
def _earth_on_the_sky(ra: float, dec: float, first: float, n: int) -> np.ndarray:
    """The Earth's position and velocity, au and au/d, projected on north and east at a point of the sky.

    ra, dec : degrees.   first : Julian date of the first of n rows, STEP days apart.
    Returns (n, 4): north, east and their rates.
    """
    from astropy.coordinates import get_body_barycentric_posvel, solar_system_ephemeris
    from astropy.time import Time

    dates = Time(first, STEP * np.arange(n), format="jd", scale="tdb")
    with solar_system_ephemeris.set("builtin"):
        position, velocity = get_body_barycentric_posvel("earth", dates)
    position, velocity = position.xyz.to_value("au"), velocity.xyz.to_value("au/d")
    ra, dec = np.radians(ra), np.radians(dec)
    north = np.array([-np.sin(dec) * np.cos(ra), -np.sin(dec) * np.sin(ra), np.cos(dec)])
    east = np.array([-np.sin(ra), np.cos(ra), 0.0])
    return np.column_stack([north @ position, east @ position, north @ velocity, east @ velocity])


@numba.njit(cache=True, nogil=True)
def _cubic(table, k, j):
    """Coefficients of the cubic in (t - t_k)/STEP through rows k and k + 1 of a table; j : 0 is north, 1 is east."""
    here, there = table[k, j], table[k + 1, j]
    rate, other = table[k, j + 2] * STEP, table[k + 1, j + 2] * STEP
    return here, rate, 3 * (there - here) - 2 * rate - other, 2 * (here - there) + rate + other


@numba.njit(cache=True, nogil=True)
def _offsets(table, rows, reference):
    """The Sun's offsets (2, n), au, from its uniform motion at a place of the table.

    rows : (n,), the places wanted.   reference : that of the motion.
    """
    out = np.empty((2, len(rows)))
    k_0 = int(reference)
    f_0 = reference - k_0
    for j in range(2):
        a, b, c, d = _cubic(table, k_0, j)
        position = a + f_0 * (b + f_0 * (c + f_0 * d))
        velocity = b + f_0 * (2 * c + 3 * f_0 * d)
        k = -1
        for i in range(len(rows)):
            if int(rows[i]) != k:
                k = int(rows[i])
                a, b, c, d = _cubic(table, k, j)
            f = rows[i] - k
            # The Sun stands opposite to the Earth.
            out[j, i] = position + velocity * (rows[i] - reference) - (a + f * (b + f * (c + f * d)))
    return out


def parallax_offsets(t, t_0_par: float, field: Field = ROMAN_FIELD) -> tuple[np.ndarray, np.ndarray]:
    """Offsets (s_N, s_E), each (n,) au, of the Sun from its position and uniform motion at t_0_par (Gould 2004).

    t (n,), t_0_par : days after field.season_start.
    Raises ValueError where a time is no date between 1899 and 2100.
    """
    dates = np.atleast_1d(np.asarray(t, dtype=float)) + field.season_start
    reference = float(t_0_par) + field.season_start
    low, high = min(dates.min(), reference), max(dates.max(), reference)
    if not (JULIAN_DATES[0] <= low and high <= JULIAN_DATES[1]):
        raise ValueError(f"times from {low:g} to {high:g} (Julian date): parallax needs dates between "
                         f"{JULIAN_DATES[0]:g} and {JULIAN_DATES[1]:g}. Times are days after season_start = "
                         f"{field.season_start:g}.")
    span = BLOCK * STEP
    first = span * np.floor(low / span)
    n = int(BLOCK * (np.floor((high - first) / span) + 1)) + 1
    table = _earth_on_the_sky(float(field.ra), float(field.dec), float(first), n)
    north, east = _offsets(table, (dates - first) / STEP, (reference - first) / STEP)
    return north, east


@register_jitable
def displacement(north, east, pi_EN, pi_EE):
    """How far parallax moves the source along and across its straight path, Einstein radii: (delta_tau, delta_beta).

    north, east : the Sun's offsets, au.   pi_EN, pi_EE : microlensing parallax.
    """
    return pi_EN * north + pi_EE * east, pi_EN * east - pi_EE * north


def displacements(t, t_0: float, parallax: Parallax):
    """How far a parallax moves the source along and across its straight path, each (n,) Einstein radii.

    t (n,), t_0 : days; t_0 is t_0,par where the parallax states none.   Raises ValueError for times that are no dates.
    """
    reference = t_0 if parallax.t_0_par is None else parallax.t_0_par
    return displacement(*parallax_offsets(t, reference, parallax.field), parallax.pi_EN, parallax.pi_EE)


def event_parallax(params: dict, field: Field = ROMAN_FIELD) -> Parallax | None:
    """The parallax of an event with parameters by name, whose t_0,par is its t_0; None where it is 0 or NaN."""
    pi_EN, pi_EE = params.get("pi_EN", 0.0), params.get("pi_EE", 0.0)
    return Parallax(pi_EN, pi_EE, params["t_0"], field) if np.hypot(pi_EN, pi_EE) > 0 else None
