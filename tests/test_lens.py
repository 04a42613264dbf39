"""Magnifications and caustics against truths: analytic values, MulensModel, the libraries' own tests."""

import numpy as np
import pytest
from MulensModel import Model
from scipy.integrate import quad

from benchmarks import torture
from microlens import lens as mg
from microlens.lens import magnification
from microlens.lens.caustics import caustic_polyline, distance_to_caustic
from microlens.lens.expansion import new_scratch
from microlens.lens.limb import limb_integral

BINARY = [  # s, q, x, y, rho, A
    (0.8, 0.1, 0.01, 0.01, 0.0, 18.185448359975954),
    (1.28, 0.05, 0.28, 0.0056, 0.0, 4.26800260473707),
    (0.8, 0.1, 0.01, 0.01, 0.01, 18.2833820123),
    (0.8, 0.1, 0.06, 0.01, 0.01, 11.4030261664),
    (1.0, 0.02, 0.5, 0.5, 0.0033, 1.6310964178),
    (0.8, 0.001, 0.001, 0.001, 0.001, 687.803257),
    (1.0, 1.0, 0.0, 0.0, 0.0, 13 / 3),
]


@pytest.mark.parametrize("engine", mg.ENGINES)
@pytest.mark.parametrize("s, q, x, y, rho, A", BINARY)
def test_binary_reference(s, q, x, y, rho, A, engine):
    assert mg.binary_at(x, y, s, q, rho, engine=engine) == pytest.approx(A, rel=1e-4)


def test_single_lens_reference():
    assert mg.pspl(1.0, 0.0, 0.0, 1.0) == pytest.approx(3 / np.sqrt(5), rel=1e-9)
    t_0, t_E = 5379.57091, 17.94002
    times = np.array([t_0 - 2.5 * t_E, t_0, t_0 + t_E])
    assert mg.pspl(times, t_0, 0.52298, t_E) == pytest.approx([1.028720763, 2.10290259, 1.26317278], rel=1e-6)
    assert mg.fspl_at(0.1, 0.01) == pytest.approx(10.050054583436, rel=1e-6)
    u = np.sqrt(0.25 + np.array([3.5, 2, 1, 0.5, 0]) ** 2)
    expected = [1.01084060513, 1.06962639343, 1.42451408166, 2.02334097551, 2.13919086656]
    assert mg.fspl_at(u, 1.0) == pytest.approx(expected, rel=1e-4)


def test_trajectory_convention_against_mulensmodel():
    p = {"t_0": 36.0, "u_0": 0.15, "t_E": 15.0, "rho": 0.01, "s": 1.2, "q": 0.1, "alpha": 0.7}
    t = np.linspace(20, 55, 60)
    # MulensModel has the secondary on the other side: its alpha is ours + 180 degrees.
    model = Model({**p, "alpha": np.degrees(p["alpha"]) + 180})
    model.set_magnification_methods([0.0, "VBBL", 72.0])
    assert mg.binary(t, **p, method="exact", tolerance=1e-5) == pytest.approx(model.get_magnification(t), rel=1e-3)


TOPOLOGIES = [
    (0.70, 1, "close"),
    (0.72, 1, "resonant"),
    (2.01, 1, "wide"),
    (0.769, 0.1, "close"),
    (0.770, 0.1, "resonant"),
    (1.690, 0.1, "wide"),
    (0.9312, 1e-3, "close"),
]


@pytest.mark.parametrize("s, q, expected", TOPOLOGIES)
def test_topology_erdl_schneider(s, q, expected):
    assert mg.topology(s, q) == expected
    assert len(mg.caustics(s, q)) == {"close": 3, "resonant": 1, "wide": 2}[expected]


def image_positions(x, y, s, q):
    """Images (n,) complex of a point source: roots of Witt's (1990) quintic that solve the lens equation."""
    m1, m2 = 1 / (1 + q), q / (1 + q)
    z1, z2, zeta = -s * m2, s * m1, complex(x, y)
    w, n = np.array([1, -z1 - z2, z1 * z2]), np.array([0, m1 + m2, -m1 * z2 - m2 * z1])  # polynomials of z
    p1, p2 = (zeta.conjugate() - z1) * w + n, (zeta.conjugate() - z2) * w + n
    quintic = np.convolve([1, -zeta], np.convolve(p1, p2)) - np.convolve([0, *w], m1 * p2 + m2 * p1)
    roots = np.roots(quintic)
    off = roots - m1 / (np.conj(roots) - z1) - m2 / (np.conj(roots) - z2) - zeta
    return roots[np.abs(off) < 1e-6]


def test_a_disc_meets_the_caustic_where_its_points_have_three_and_five_images():
    rng = np.random.default_rng(4)
    rho, met = 0.05, 0
    radii, angles = np.meshgrid(np.linspace(0, 1, 12), 2 * np.pi * np.arange(24) / 24)
    for _ in range(60):
        s, q, alpha = 10 ** rng.uniform(-0.3, 0.3), 10 ** rng.uniform(-1, 0), rng.uniform(0, 2 * np.pi)
        curves = mg.caustics(s, q)
        points = curves[rng.integers(len(curves))]
        x, y = points[rng.integers(len(points))] + 2 * rho * rng.uniform(-1, 1, 2)
        u_0 = y * np.cos(alpha) - x * np.sin(alpha)
        tau = [x * np.cos(alpha) + y * np.sin(alpha)]
        disc = x + rho * radii * np.cos(angles), y + rho * radii * np.sin(angles)
        counts = {len(image_positions(a, b, s, q)) for a, b in zip(*map(np.ravel, disc), strict=True)}
        assert counts <= {3, 5}
        if len(counts) == 2:
            # The polyline is good to 1e-3 of this radius.
            assert mg.crosses_caustic(tau, mg.straight_track(u_0, alpha), 1.001 * rho, s, q)
            met += 1
        else:  # the grid of points misses a sliver of the caustic at the limb
            assert not mg.crosses_caustic(tau, mg.straight_track(u_0, alpha), 0.9 * rho, s, q)
    assert 10 < met < 50


def test_the_path_turns_by_alpha_and_shifts_like_parallax():
    assert mg.source_position(2.0, 0.5, 0.0) == (2.0, 0.5)
    assert mg.source_position(2.0, 0.5, np.pi / 2) == pytest.approx((-0.5, 2.0))
    tau, shift = np.linspace(-1, 1, 5), np.linspace(0, 0.1, 5)
    x, y = mg.source_position(tau + shift, 0.3 - shift, 0.7)
    assert x * np.cos(0.7) + y * np.sin(0.7) == pytest.approx(tau + shift)
    assert y * np.cos(0.7) - x * np.sin(0.7) == pytest.approx(0.3 - shift)


def test_lenses_balance_about_the_origin():
    primary, secondary = mg.lens_positions(1.3, 0.2)
    assert secondary - primary == pytest.approx(1.3) and primary + 0.2 * secondary == pytest.approx(0, abs=1e-15)


def disc_over_point_lens(u, rho):
    """Magnification of a uniform disc as an integral over directions from the lens, whose A(r) r is integrable in r."""
    def inner(angle):
        reach = np.sqrt(max(rho**2 - (u * np.sin(angle)) ** 2, 0.0))
        near, far = max(u * np.cos(angle) - reach, 0.0), u * np.cos(angle) + reach
        return far * np.sqrt(far**2 + 4) - near * np.sqrt(near**2 + 4)

    # Beyond the limb the directions end where they touch the disc: there the angle's sine is rho/u.
    if u <= rho:
        halves = [quad(inner, a, a + np.pi / 2, epsrel=1e-10, limit=200)[0] for a in (0, np.pi / 2)]
        return sum(halves) / (np.pi * rho**2)
    widest = np.arcsin(rho / u)
    value = quad(lambda p: inner(widest * np.sin(p)) * widest * np.cos(p), 0, np.pi / 2, epsrel=1e-10, limit=200)[0]
    return value / (np.pi * rho**2)


@pytest.mark.parametrize("rho", [1e-6, 1e-3, 0.01, 1.0, 100.3, 1e4])
def test_finite_source_single_lens_everywhere(rho, capfd):
    for z in (0.0, 0.3, 0.9964, 0.999999, 1.0, 1.00001, 1.01, 2.0, 19.9, 20.1, 59.0, 61.0):
        assert mg.fspl_at(z * rho, rho) == pytest.approx(disc_over_point_lens(z * rho, rho), rel=1e-6)
    assert capfd.readouterr() == ("", "")  # the library printed beyond rho = 100


@pytest.mark.parametrize("z", [0.0, 0.5, 0.999, 1.0, 1.001, 3.0])
def test_limb_darkened_single_lens(z):
    """A disc with linear limb darkening 0.6 is a sum of uniform discs over the cosine of the angle to the normal."""
    def ring(c):
        return (1 - c * c) * disc_over_point_lens(z * 0.01, 0.01 * np.sqrt(1 - c * c))

    cut = [np.sqrt(1 - z * z)] if 0 < z < 1 else None
    summed = 0.4 * disc_over_point_lens(z * 0.01, 0.01) + 0.6 * quad(ring, 0, 1 - 1e-12, points=cut, limit=200)[0]
    assert mg.fspl_at(z * 0.01, 0.01, 0.6) == pytest.approx(summed / 0.8, rel=1e-5)


WRONG_ONCE = [  # x, y, s, q, rho and the area of the images on rays, where one library or both were wrong by 1.3 to 200
    (0.000796295149530126, 0.00060483921924829, 1.0, 1e-5, 1e-3),
    (7.777043948712339e-05, 8.764339150245113e-05, 0.4746497839585447, 4.6790052442189914e-06, 0.00011788709615365094),
    (-0.00013273309556416, -5.98557296944111e-05, 1.48050411012994, 1.44382945683691e-05, 0.00012949636566432),
    (-0.00115639539153139, 0.0013364625684206984, 0.8854140152467853, 2.9657155121190553e-06, 0.0017660753398853386),
]


@pytest.mark.parametrize("position", WRONG_ONCE)
def test_positions_at_which_a_library_was_wrong(position):
    truth, error = torture.by_rays(*position)
    assert error < 1e-4
    assert mg.binary_at(*position, tolerance=1e-4) == pytest.approx(truth, rel=2e-4)


def test_the_torture_set_at_one_twentieth():
    rows = torture.read(torture.POSITIONS)
    assert len(rows) >= 500 and len(torture.read(torture.WINDOWS)) >= 200
    assert max(torture.position_error(row) for row in rows[::20]) < 1e-4
    assert max(torture.window_error(row) for row in torture.read(torture.WINDOWS)[::20]) < 1e-3


def test_a_window_beside_a_caustic():
    """79 of its 100 epochs were once 1 to 3.2 % off."""
    lens = {"s": 0.820581308718, "q": 0.239849420523, "rho": 0.00595176299173, "u_0": -0.120814333364,
            "alpha": 5.56835373729}
    tau = -0.145061384473 + np.arange(-50, 50) * 8 * lens["rho"] / 99
    x, y = mg.source_position(tau, lens["u_0"], lens["alpha"])
    exact = mg.binary_at(x, y, lens["s"], lens["q"], lens["rho"])
    assert mg.binary(tau, 0.0, t_E=1.0, **lens) == pytest.approx(exact, rel=1e-3)


def test_epochs_an_ulp_from_a_node_do_no_harm():
    """The last epoch once fell 1e-17 beside a node, and the cubic through both was off by e^3."""
    event = next(w for w in windows(3) if abs(w[-1] * 99 / w[4] - 0.0316296865121141) < 1e-9)
    u_0, alpha, s, q, rho, tau, spacing = event
    t = tau + np.arange(100) * spacing
    exact = mg.binary_at(*mg.source_position(t, u_0, alpha), s, q, rho, tolerance=1e-4)
    assert mg.binary(t, 0.0, u_0, 1.0, rho, s, q, alpha) == pytest.approx(exact, rel=1e-3)


def windows(seed):
    """The windows of the torture set, of another seed."""
    rng = np.random.default_rng(seed)
    for k in range(1400):
        yield torture.hard_window(torture.KINDS[k % len(torture.KINDS)], rng)


def test_the_limb_integral_estimates_its_error():
    position = (-0.03053738947336, 0.17449238052434, 0.97919289829281, 0.01535955700951, 0.00597867014593)
    polyline = caustic_polyline(*position[2:4], 400)
    best, _, _ = limb_integral(*position, 1e-9, polyline, new_scratch(position[2]))
    for tolerance in (1e-3, 1e-4, 1e-6):
        value, error, gap = limb_integral(*position, tolerance, polyline, new_scratch(position[2]))
        assert abs(value / best - 1) < tolerance and error <= tolerance and gap <= tolerance


def test_a_point_source_against_the_polynomial():
    rng = np.random.default_rng(6)
    for _ in range(100):
        s, q = 10 ** rng.uniform(-0.3, 0.3), 10 ** rng.uniform(-5, 0)
        x, y = rng.normal(size=2)
        m1, m2 = 1 / (1 + q), q / (1 + q)
        z1, z2 = -s * m2, s * m1
        z = image_positions(x, y, s, q)
        kappa = m1 / (np.conj(z) - z1) ** 2 + m2 / (np.conj(z) - z2) ** 2
        assert mg.binary_at(x, y, s, q) == pytest.approx((1 / np.abs(1 - np.abs(kappa) ** 2)).sum(), rel=1e-5)


def test_a_magnification_that_no_estimate_confirms_is_an_error(monkeypatch):
    monkeypatch.setattr(magnification, "own_values", lambda x, *_: np.full(len(x), 99.0))
    with pytest.raises(mg.MagnificationError, match=r"x = 0\.01, y = 0\.01 for s = 0\.8"):
        mg.binary_at(0.01, 0.01, 0.8, 0.1, 0.01)


def test_results_do_not_depend_on_call_history():
    first = mg.nodes(0.1, 0.01, 1.1, 0.2, 1.0, -3, 3)
    mg.nodes(0.3, 0.002, 0.7, 0.01, 2.0, -3, 3)
    again = mg.nodes(0.1, 0.01, 1.1, 0.2, 1.0, -3, 3)
    assert np.array_equal(first.tau, again.tau) and np.array_equal(first.log_A, again.log_A)


@pytest.mark.parametrize("bad", [{"s": np.nan}, {"s": 0}, {"q": 0}, {"rho": -1}, {"t_E": 0}])
def test_impossible_input_is_an_error(bad):
    p = {"t_0": 0.0, "u_0": 0.1, "t_E": 10.0, "rho": 0.01, "s": 1.0, "q": 0.1, "alpha": 0.3, **bad}
    with pytest.raises(ValueError, match=next(iter(bad))):
        mg.binary(np.linspace(-1, 1, 5), **p)


def test_seeds_that_rounding_brings_together_do_no_harm():
    rng = np.random.default_rng(7)
    for _ in range(300):  # a third of these once had two seeds 1e-16 apart at the end of the curve
        t_0, t_E, u_0, rho = rng.uniform(10, 60), rng.uniform(2, 40), rng.uniform(0, 2), 10 ** rng.uniform(-4, -1.5)
        curve = mg.single_nodes(u_0, rho, -t_0 / t_E, (70.7 - t_0) / t_E)
        assert (np.diff(curve.tau) > 0).all()


SEASON = np.arange(6912) / 96
HARD = {  # what went wrong once, largest relative error then
    "ridge between two cusps, 13 radii from any caustic: 2e-2": (27.74, 0.01756, 21.82, 0.01905, 1.697, 0.05765, 6.194),
    "beside a cusp, where the third order vanishes: 2e-2": (35.41, 0.834, 10.62, 0.03225, 1.68, 0.02771, 4.63),
    "event in progress when the season begins: 3e-3": (8.4117, 0.84023, 16.4406, 0.006209, 2.0086, 0.17207, 4.43229),
    "three touches within a fifth of the source radius: 2e-3": (19.13, 0.3302, 8.16, 0.01899, 0.8422, 0.0004856, 1.931),
    "the limb touches a strong fold: 2e-3": (17.92, 0.4116, 22.01, 0.01133, 2.315, 0.3367, 1.774),
}


@pytest.mark.parametrize("event", HARD.values(), ids=HARD)
def test_curves_that_went_wrong_once(event):
    """Against contours at 1e-5, at every 37th epoch and at every third within two source radii of the caustic."""
    t_0, u_0, t_E, rho, s, q, alpha = event
    x, y = mg.trajectory(SEASON, t_0, u_0, t_E, alpha)
    line = caustic_polyline(s, q, 400)
    near = np.array([distance_to_caustic(a, b, line) < 2 * rho for a, b in zip(x[::3], y[::3], strict=True)])
    rows = np.union1d(np.arange(0, 6912, 37), 3 * np.flatnonzero(near))
    exact = mg.binary(SEASON[rows], *event, "exact", tolerance=1e-5)
    assert mg.binary(SEASON, *event)[rows] == pytest.approx(exact, rel=1e-3)
    curve = mg.nodes(u_0, rho, s, q, alpha)
    assert mg.render(*curve, (SEASON[rows] - t_0) / t_E) == pytest.approx(exact, rel=1e-3)


def test_limb_darkened_curve_against_the_library():
    event = (36.0, 0.1, 20.0, 0.01, 1.1, 0.1, 1.0)
    rows = np.arange(0, 6912, 31)
    exact = mg.binary(SEASON[rows], *event, "exact", tolerance=1e-4, limb_darkening=0.5)
    fast = mg.binary(SEASON, *event, limb_darkening=0.5)[rows]
    assert fast == pytest.approx(exact, rel=2e-3)
    assert np.abs(fast / mg.binary(SEASON, *event)[rows] - 1).max() > 3e-3  # it is not the uniform disc


def test_nodes_for_given_epochs_are_fewer_and_render_them_alike():
    event = {"u_0": 0.3, "rho": 0.0015, "s": 1.2, "q": 0.3, "alpha": 3.5}
    epochs = (SEASON - 36.0) / 5.0
    some, all_ = mg.nodes(**event, tau_min=epochs[0], tau_max=epochs[-1], epochs=epochs), mg.nodes(**event)
    assert len(some.tau) < len(all_.tau)
    assert mg.render(*some, epochs) == pytest.approx(mg.render(*all_, epochs), rel=1e-3)


def test_no_interpolation_across_a_break():
    tau = np.array([0.0, 1, 2, 3, 3, 4, 5, 6])
    log_A = np.array([0.0, 1, 2, 3, 3, 3, 3, 3])  # a kink at 3, where the node is given twice
    at = np.array([0.5, 2.9, 3.0, 3.1, 5.5])
    assert np.log(mg.render(tau, log_A, at)) == pytest.approx([0.5, 2.9, 3, 3, 3], abs=1e-12)


@pytest.mark.parametrize(("s", "q", "rho"), [(19.41, 2602.0, 0.01378), (0.05, 7465.0, 9.5e-5), (1.2, 3.0, 0.01)])
def test_the_heavier_mass_may_stand_on_either_side(s, q, rho):
    """q > 1 is the same lens turned round: the first of these took minutes and then failed."""
    t = np.linspace(0.0, 72.0, 300)
    path = {"t_0": 10.29, "u_0": -0.685, "t_E": 3.3, "rho": rho}
    turned = mg.binary(t, **path, s=s, q=1 / q, alpha=5.871 + np.pi)
    assert np.allclose(mg.binary(t, **path, s=s, q=q, alpha=5.871), turned, rtol=2e-3)
    x, y = np.array([0.7, -1.3]), np.array([0.2, 0.4])
    assert np.allclose(mg.binary_at(x, y, s, q, rho), mg.binary_at(-x, -y, s, 1 / q, rho), rtol=1e-9)
