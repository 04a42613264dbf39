"""Annual parallax and two sources against MulensModel, and bent tracks against the library at every epoch."""

import numpy as np
import pytest
from MulensModel import Model

from microlens import lens
from microlens.lens.parallax import ROMAN_FIELD, SEASON_START
from microlens.lens.path import position_on, velocity_on

SEASON = np.arange(0.0, 72.0, 0.1)
COORDINATES = "17:52:00 -29:12:00"  # of ROMAN_FIELD
CASES = [  # t_0, u_0, t_E, pi_EN, pi_EE, t_0_par
    (30.0, 0.2, 40.0, 0.1, 0.3, 28.0),
    (30.0, -0.1, 20.0, -0.5, 0.2, 30.0),
    (50.0, 0.5, 100.0, 0.9, -1.0, 36.0),
    (-20.0, 0.01, 80.0, 0.0, 1.0, -20.0),
]


def mulensmodel(t_0, u_0, t_E, pi_EN, pi_EE, t_0_par, **more):
    """Its model of an event whose times are days of the first Roman season."""
    named = {"t_0": t_0 + SEASON_START, "u_0": u_0, "t_E": t_E, "pi_E_N": pi_EN, "pi_E_E": pi_EE,
             "t_0_par": t_0_par + SEASON_START}
    return Model(named | more, coords=COORDINATES)


@pytest.mark.parametrize("case", CASES)
def test_point_source_with_parallax_against_mulensmodel(case):
    t_0, u_0, t_E, pi_EN, pi_EE, t_0_par = case
    A = lens.pspl(SEASON, t_0, u_0, t_E, parallax=lens.Parallax(pi_EN, pi_EE, t_0_par))
    truth = mulensmodel(*case).get_magnification(SEASON + SEASON_START)
    assert A == pytest.approx(truth, rel=1e-6)
    assert np.abs(A / lens.pspl(SEASON, t_0, u_0, t_E) - 1).max() > 1e-3  # the case has something to show


@pytest.mark.parametrize("case", CASES)
def test_binary_with_parallax_against_mulensmodel(case):
    """MulensModel has the secondary on the other side: its alpha is ours + 180 degrees."""
    t_0, u_0, t_E, pi_EN, pi_EE, t_0_par = case
    s, q, rho, alpha = 1.1, 0.1, 1e-2, 0.7
    parallax = lens.Parallax(pi_EN, pi_EE, t_0_par)
    model = mulensmodel(*case, s=s, q=q, rho=rho, alpha=np.degrees(alpha) + 180)
    path = model.get_trajectory(SEASON + SEASON_START)
    x, y = lens.trajectory(SEASON, t_0, u_0, t_E, alpha, parallax)
    assert x == pytest.approx(path.x, abs=1e-6)
    assert y == pytest.approx(path.y, abs=1e-6)
    model.set_magnification_methods([0.0, "VBM", 3e6])
    model.set_magnification_methods_parameters({"VBM": {"accuracy": 1e-6, "relative_accuracy": 1e-6}})
    t = SEASON[::9]
    truth = model.get_magnification(t + SEASON_START)
    exact = lens.binary(t, t_0, u_0, t_E, rho, s, q, alpha, "exact", parallax=parallax, tolerance=1e-5)
    assert exact == pytest.approx(truth, rel=1e-4)


def test_bent_nodes_against_the_library_at_every_epoch():
    """Curves along bent tracks keep the tolerance of 1e-3 that straight ones have."""
    rng, worst = np.random.default_rng(5), 0.0
    t = np.arange(0.0, 72.0, 0.05)
    for _ in range(30):
        t_0, u_0, t_E = rng.uniform(5, 65), rng.uniform(-0.5, 0.5), 10 ** rng.uniform(0.8, 2)
        lens_of = dict(rho=10 ** rng.uniform(-3, -1.5), s=10 ** rng.uniform(-0.3, 0.3), q=10 ** rng.uniform(-3, 0),
                       alpha=rng.uniform(0, 6.28))
        parallax = lens.Parallax(*rng.uniform(-0.7, 0.7, 2))
        fast = lens.binary(t, t_0, u_0, t_E, **lens_of, parallax=parallax)
        exact = lens.binary(t, t_0, u_0, t_E, **lens_of, method="exact", parallax=parallax, tolerance=1e-4)
        worst = max(worst, np.abs(fast / exact - 1).max())
    assert worst < 1e-3


def test_track_is_the_trajectory():
    """A track's cubic between its knots against the trajectory itself, and its velocity against differences."""
    parallax = lens.Parallax(0.6, -0.8, 20.0)
    track = lens.bent_track(30.0, 0.1, 50.0, 1.0, parallax, 0.0, 72.0)
    tau = (SEASON - 30.0) / 50.0
    on_track = np.array([position_on(track, x) for x in tau])
    assert on_track == pytest.approx(np.column_stack(lens.trajectory(SEASON, 30.0, 0.1, 50.0, 1.0, parallax)), abs=1e-7)
    speed = [np.hypot(*velocity_on(track, x)) for x in tau]
    step = np.hypot(*np.gradient(on_track, tau, axis=0).T)
    assert np.array(speed)[1:-1] == pytest.approx(step[1:-1], rel=1e-5)
    assert 0.9 * track.fastest < max(speed) <= track.fastest  # which knots beyond the season may have


def test_parallax_of_zero_is_a_straight_path():
    straight = lens.fspl(SEASON, 36.0, 0.05, 20.0, 0.02)
    assert lens.fspl(SEASON, 36.0, 0.05, 20.0, 0.02, parallax=lens.Parallax(0.0, 0.0)) == pytest.approx(straight)


def test_offsets_vanish_to_second_order_at_the_reference_time():
    north, east = lens.parallax_offsets(np.array([19.9, 20.0, 20.1]), 20.0)
    assert np.abs([north[1], east[1]]).max() < 1e-12
    assert np.abs([north, east]).max() < 0.5 * 0.1**2 * 3.2e-4  # the Earth's acceleration is 3e-4 au/d^2


def test_times_that_are_no_dates_are_refused():
    with pytest.raises(ValueError, match="season_start"):
        lens.pspl([2461450.0], 2461450.0, 0.1, 20.0, parallax=lens.Parallax(0.1, 0.1))
    field = ROMAN_FIELD._replace(season_start=0.0)
    A = lens.pspl(SEASON + SEASON_START, 36.0 + SEASON_START, 0.1, 20.0, parallax=lens.Parallax(0.1, 0.1, field=field))
    assert A == pytest.approx(lens.pspl(SEASON, 36.0, 0.1, 20.0, parallax=lens.Parallax(0.1, 0.1)), rel=1e-6)


def test_two_sources_against_mulensmodel():
    p = {"t_0": 30.0, "u_0": 0.2, "t_E": 20.0, "t_0_2": 45.0, "u_0_2": 0.01}
    model = Model({"t_0_1": 30.0, "u_0_1": 0.2, "t_0_2": 45.0, "u_0_2": 0.01, "t_E": 20.0})
    truth = model.get_magnification(SEASON, source_flux_ratio=0.1)
    assert lens.two_sources(SEASON, **p, q_F=0.1) == pytest.approx(truth, rel=1e-6)
    assert lens.two_sources(SEASON, **p, q_F=0.0) == pytest.approx(lens.pspl(SEASON, 30.0, 0.2, 20.0))


def test_nodes_of_two_sources_with_parallax():
    parallax, t_E = lens.Parallax(0.3, -0.5, 30.0), 20.0
    first = lens.bent_track(30.0, 0.2, t_E, 0.0, parallax, 0.0, 72.0)
    second = lens.bent_track(45.0, 0.01, t_E, 0.0, parallax, 0.0, 72.0)
    sources = [lens.LensedSource(first, 0.0, 1e-3, 1 / 1.1), lens.LensedSource(second, 15.0 / t_E, 0.02, 0.1 / 1.1)]
    curve = lens.single_nodes_along(sources, -30.0 / t_E, 42.0 / t_E)
    A = lens.render(*curve, (SEASON - 30.0) / t_E)
    truth = lens.two_sources(SEASON, 30.0, 0.2, t_E, 45.0, 0.01, 0.1, 1e-3, 0.02, parallax=parallax)
    assert A == pytest.approx(truth, rel=1e-3)
