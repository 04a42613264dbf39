"""Hard positions and short windows of binary lenses, with magnifications that share no method with the package.

    python -m benchmarks.torture make      # writes tests/torture_positions.csv and tests/torture_windows.csv
    python -m benchmarks.torture           # tables the share that each library and the package get wrong

The truth is the area of the images on straight rays in the image plane, over the area of the source (as Bennett 2010
shoots rays in polar coordinates). Along a ray from one lens, |zeta(z) - zeta_0|^2 = rho^2 is a polynomial of sixth
degree with real coefficients, whose real roots are the ends of the images on it; Gauss's and Kronrod's rules integrate
over the angle of the ray, and the worst interval is halved until the sum of their differences is small. It knows no
contour, no caustic and no limb.
"""

import csv
import sys
from pathlib import Path

import numba
import numpy as np

from microlens import lens
from microlens.lens.engine import ENGINES, library_values, new_engine
from microlens.lens.expansion import find_candidates, new_scratch
from microlens.lens.limb import GAUSS_WEIGHTS, KRONROD_NODES, KRONROD_WEIGHTS
from microlens.lens.path import lens_positions, masses_about_secondary
from microlens.lens.roots import find_roots, inverse

TESTS = Path(__file__).parent.parent / "tests"
POSITIONS, WINDOWS = TESTS / "torture_positions.csv", TESTS / "torture_windows.csv"
KINDS = ("tangent limb", "cusp", "tiny planet", "resonant", "wide", "planetary caustic", "high magnification")
PER_KIND = 90
N_WINDOWS = 210
EPOCHS = 100  # of a window
STORED = np.array([3, 22, 41, 58, 77, 96])  # epochs of a window whose magnification is stored
SEED = 17
TOLERANCE = 2e-5  # relative, of the truth
MAX_INTERVALS = 20_000
UNIFORM = 100  # intervals of the angle at first, beside those between the hints
REFINEMENTS = 60
CONVERGED = 1e-7  # last step of a root / source radius
REAL = 1e-5  # imaginary part / source radius below which a root is real
HINTS = 48  # point sources on the limb, and as many within, whose images tell where rays are wanted


@numba.njit(cache=True)
def chord_area(theta, zeta, rho, s, mass):
    """The sum of 1/2 |r_2^2 - r_1^2| over the images on the line at angle theta through a lens at the origin.

    zeta : the source's centre.   mass : of that lens; the other one is at s on the real axis.
    """
    e = complex(np.cos(theta), np.sin(theta))
    # The lens equation on the ray, times its denominators, is r^3 + n2 r^2 + n1 r + n0.
    n2, n1, n0 = -(s * e + zeta * np.conj(e)), zeta * s - 1.0, mass * s * e
    c = np.empty(7, np.complex128)
    c[6], c[5], c[4] = 1.0, 2 * n2.real, abs(n2) ** 2 + 2 * n1.real - rho * rho
    c[3] = 2 * n0.real + 2 * (n2 * np.conj(n1)).real + 2 * rho * rho * s * e.real
    c[2] = abs(n1) ** 2 + 2 * (n2 * np.conj(n0)).real - rho * rho * s * s
    c[1], c[0] = 2 * (n1 * np.conj(n0)).real, abs(n0) ** 2
    roots = np.empty(6, np.complex128)
    for k in range(6):
        roots[k] = (0.7 + 0.4 * s) * np.exp(2j * np.pi * (k + 0.3) / 6) + 0.3 * s
    find_roots(c, roots, np.int64(300))
    largest = np.inf
    for _ in range(REFINEMENTS):  # Aberth's steps again, on products that keep the digits the coefficients have lost
        if largest < CONVERGED * rho:
            break
        largest = 0.0
        for k in range(6):
            r = roots[k]
            value, slope = ((r + n2) * r + n1) * r + n0, (3 * r + 2 * n2) * r + n1
            mirrored = ((r + np.conj(n2)) * r + np.conj(n1)) * r + np.conj(n0)
            mirrored_slope = (3 * r + 2 * np.conj(n2)) * r + np.conj(n1)
            down, down_slope = (r - 2 * s * e.real) * r + s * s, 2 * r - 2 * s * e.real
            f = value * mirrored - (rho * r) ** 2 * down
            df = slope * mirrored + value * mirrored_slope - rho * rho * (2 * r * down + r * r * down_slope)
            repulsion = 0j
            for j in range(6):
                if j != k and roots[j] != r:
                    repulsion += inverse(r - roots[j])
            bottom = df - f * repulsion
            if bottom != 0:
                roots[k] = r - f * inverse(bottom)
                largest = max(largest, abs(roots[k] - r))
    ends, n = np.empty(6), 0
    for k in range(6):
        r = roots[k].real
        if abs(roots[k].imag) > REAL * rho:
            continue
        ends[n] = r
        n += 1
    if n % 2 == 1 or largest > REAL * rho:
        return np.nan
    ends = np.sort(ends[:n])
    total = 0.0
    for k in range(0, n, 2):
        total += 0.5 * (ends[k + 1] * abs(ends[k + 1]) - ends[k] * abs(ends[k]))
    return total


@numba.njit(cache=True)
def fill(interval, zeta, rho, s, mass):
    """Set interval[2:] to Kronrod's integral of chord_area from interval[0] to interval[1] and to its error.

    That is the difference to Gauss's integral, and what may end unseen between an end of the interval and a node.
    """
    middle, half = 0.5 * (interval[0] + interval[1]), 0.5 * (interval[1] - interval[0])
    kronrod = gauss = 0.0
    first = chord_area(interval[0], zeta, rho, s, mass)
    last = first = 0.0 if np.isnan(first) else first
    for k in range(15):
        i = min(k, 14 - k)
        value = chord_area(middle + half * (KRONROD_NODES[i] if k > 7 else -KRONROD_NODES[i]), zeta, rho, s, mass)
        last = last if np.isnan(value) else value
        first = abs(first - last) if k == 0 else first
        kronrod += KRONROD_WEIGHTS[i] * half * last
        gauss += GAUSS_WEIGHTS[i] * half * last
    unseen = (1.0 - KRONROD_NODES[0]) * half * (first + abs(chord_area(interval[1], zeta, rho, s, mass) - last))
    interval[2], interval[3] = kronrod, abs(kronrod - gauss) + (0.0 if np.isnan(unseen) else unseen)


@numba.njit(cache=True)
def image_area(cuts, zeta, rho, s, mass, tolerance):
    """Area of the images and the estimate of its error, from intervals of the angle between the ascending `cuts`."""
    n = len(cuts) - 1
    intervals = np.empty((MAX_INTERVALS, 4))
    for i in range(n):
        intervals[i, 0], intervals[i, 1] = cuts[i], cuts[i + 1]
        fill(intervals[i], zeta, rho, s, mass)
    while n < MAX_INTERVALS and intervals[:n, 3].sum() > tolerance * intervals[:n, 2].sum():
        worst = np.argmax(intervals[:n, 3])
        middle = 0.5 * (intervals[worst, 0] + intervals[worst, 1])
        intervals[n, 0], intervals[n, 1], intervals[worst, 1] = middle, intervals[worst, 1], middle
        fill(intervals[worst], zeta, rho, s, mass)
        fill(intervals[n], zeta, rho, s, mass)
        n += 1
    return intervals[:n, 2].sum(), intervals[:n, 3].sum()


def by_rays(x, y, s, q, rho, tolerance=TOLERANCE):
    """Magnification of a uniform disc at (x, y) by rays in the image plane, and the estimate of its relative error."""
    primary, secondary = lens_positions(s, q)
    about_primary = abs(complex(x - primary, y)) <= abs(complex(x - secondary, y))
    turn, host = (1, primary) if about_primary else (-1, secondary)
    mass = (1 if about_primary else q) / (1 + q)
    masses, scratch, angles = masses_about_secondary(s, q), new_scratch(s), []
    # Rays begin where images are: roots of the point source's polynomial, images or not, for points of the disc.
    for k in range(2 * HINTS + 1):
        radius = 1.0 if k < HINTS else np.sqrt((k - HINTS) / HINTS)
        phase = 2 * np.pi * k / HINTS if k < HINTS else 2.399963 * k  # the golden angle spreads the points within
        find_candidates(complex(x - secondary, y) + radius * rho * np.exp(1j * phase), masses, scratch)
        angles += list(np.angle(turn * (scratch.roots + secondary - host)) % np.pi)
    cuts = np.unique(np.concatenate([np.linspace(0, np.pi, UNIFORM + 1), angles]))
    area, error = image_area(cuts, turn * complex(x - host, y), rho, s, mass, tolerance)
    return area / (np.pi * rho**2), error / area


def hard_position(kind, rng):
    """x, y, s, q, rho of a hard position of the kind."""
    s, q, rho = 10 ** rng.uniform(-0.4, 0.4), 10 ** rng.uniform(-6, 0), 10 ** rng.uniform(-4, -1)
    if kind == "tiny planet":
        q = 10 ** rng.uniform(-6, -4)
    if kind == "resonant":
        s = rng.uniform(0.97, 1.03)
    if kind == "wide":
        s = rng.uniform(2, 5)
    if kind == "planetary caustic":
        s, q = 10 ** (rng.choice([-1, 1]) * rng.uniform(0.1, 0.4)), 10 ** rng.uniform(-5, -2)
    curves = lens.caustics(s, q)
    if kind in ("planetary caustic", "high magnification"):
        central = min(range(len(curves)), key=lambda i: np.abs(curves[i]).mean())
        others = [c for i, c in enumerate(curves) if (i == central) == (kind == "high magnification")]
        curves = others or curves
    curve = curves[rng.integers(len(curves))]
    steps = np.hypot(*np.diff(curve, axis=0).T)
    k = rng.choice(np.argsort(steps)[:8]) if kind == "cusp" else rng.integers(len(curve))
    before, after = curve[k - 1 if k > 0 else -2], curve[k + 1 if k + 1 < len(curve) else 1]
    along = (after - before) / max(np.hypot(*(after - before)), 1e-300)
    normal = np.array([-along[1], along[0]])
    if kind in ("tangent limb", "tiny planet"):
        away = normal * rng.choice([-1, 1]) * rho * (1 + rng.choice([-1, 1]) * 10 ** rng.uniform(-7, -1))
    elif kind == "cusp":
        angle = rng.uniform(0, 2 * np.pi)
        away = rho * np.array([np.cos(angle), np.sin(angle)]) * (1 + rng.choice([-1, 1]) * 10 ** rng.uniform(-6, -0.5))
    else:
        away = rho * rng.normal(size=2)
    return (*map(float, curve[k] + away), s, q, rho)


def hard_window(kind, rng):
    """u_0, alpha, s, q, rho of a straight track, and first epoch and spacing of a window of 100 epochs on it."""
    x, y, s, q, rho = hard_position(kind, rng)
    alpha, length = rng.uniform(0, 2 * np.pi), rho * 10 ** rng.uniform(-1.5, 1)
    tau, u_0 = x * np.cos(alpha) + y * np.sin(alpha), y * np.cos(alpha) - x * np.sin(alpha)
    return u_0, alpha, s, q, rho, tau - length * rng.uniform(), length / (EPOCHS - 1)


def make():
    """Write the two files; entries whose truth does not converge are left out, and how many is printed."""
    rng, lost = np.random.default_rng(SEED), 0
    with POSITIONS.open("w", newline="") as file:
        write = csv.writer(file)
        write.writerow(["kind", "x", "y", "s", "q", "rho", "A", "error"])
        for kind in KINDS:
            for _ in range(PER_KIND):
                position = hard_position(kind, rng)
                A, error = by_rays(*position)
                lost += error > TOLERANCE
                if error <= TOLERANCE:
                    write.writerow([kind, *(f"{v:.15g}" for v in position), f"{A:.8g}", f"{error:.1e}"])
            print(kind, lost, flush=True)
    with WINDOWS.open("w", newline="") as file:
        write = csv.writer(file)
        write.writerow(["kind", "u_0", "alpha", "s", "q", "rho", "tau", "spacing", *(f"A{i}" for i in STORED), "error"])
        for k in range(N_WINDOWS):
            kind = KINDS[k % len(KINDS)]
            u_0, alpha, s, q, rho, tau, spacing = window = hard_window(kind, rng)
            truth = [by_rays(*lens.source_position(tau + i * spacing, u_0, alpha), s, q, rho) for i in STORED]
            error = max(e for _, e in truth)
            lost += error > TOLERANCE
            if error <= TOLERANCE:
                write.writerow([kind, *(f"{v:.15g}" for v in window), *(f"{A:.8g}" for A, _ in truth), f"{error:.1e}"])
    print(f"{lost} entries without a converged truth")


def read(path):
    """The rows of one of the two files, dicts of numbers but for the kind."""
    with path.open() as file:
        return [{k: v if k == "kind" else float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def position_error(row, tolerance=1e-4):
    """Relative error of binary_at at a position of the set."""
    return abs(lens.binary_at(*(row[k] for k in ("x", "y", "s", "q", "rho")), tolerance=tolerance) / row["A"] - 1)


def window_error(row):
    """Largest relative error of `binary` at the stored epochs of a window."""
    tau = row["tau"] + np.arange(EPOCHS) * row["spacing"]
    A = lens.binary(tau, 0.0, t_E=1.0, **{k: row[k] for k in ("u_0", "alpha", "s", "q", "rho")})
    return np.abs(A[STORED] / [row[f"A{i}"] for i in STORED] - 1).max()


def wilson(k, n, z=1.96):
    """Share k/n and Wilson's interval at 95 %."""
    share, width = k / n, z * np.sqrt(k / n * (1 - k / n) / n + z * z / (4 * n * n))
    low, high = (share + z * z / (2 * n) + np.array([-1, 1]) * width) / (1 + z * z / n)
    return f"{100 * share:.1f} % [{100 * max(low, 0):.1f}, {100 * high:.1f}]"


def table():
    """Print the shares that the libraries and the package get wrong."""
    rows = read(POSITIONS)
    errors = {"microlens": np.array([position_error(row) for row in rows])}
    for engine in ENGINES:
        found = [library_values(new_engine(engine, 1e-4), [row["x"]], [row["y"]], row["s"], row["q"], row["rho"])[0]
                 for row in rows]
        errors[engine] = np.abs(np.array(found) / [row["A"] for row in rows] - 1)
    errors["microlens, windows"] = np.array([window_error(row) for row in read(WINDOWS)])
    for name, e in errors.items():
        n = len(e)
        print(f"| {name} | {n} | {wilson((e > 1e-3).sum(), n)} | {wilson((e > 1e-2).sum(), n)} | {e.max():.1e} |")
    for kind in KINDS:
        of_kind = np.array([row["kind"] == kind for row in rows])
        wrong = {name: int((e[of_kind] > 1e-3).sum()) for name, e in errors.items() if len(e) == len(rows)}
        print(kind, of_kind.sum(), wrong)


if __name__ == "__main__":
    make() if sys.argv[1:] == ["make"] else table()
