"""Fresh events: their distribution, that they are what the lens library says, that (seed, epoch, row) fixes them."""

import numpy as np
import pytest
from scipy import stats

from microlens import lens
from microlens.config import BINARY, FLAT, FRESH_STREAM, OTHER, PSPL, SimulateConfig
from microlens.data import make_event, simulate, true_flux
from microlens.data.events import Source
from microlens.data.fresh import FreshEvents
from microlens.data.packed import NEVER, Events
from microlens.fit import delta_chi2_flat, fit_noise_free
from microlens.sky import VariableStar, sigma_flux

CONFIG = {"n_flat": 12, "n_pspl": 12, "n_binary": 12, "n_other": 4, "num_workers": 1}


def dataset(folder, **changes):
    return simulate(SimulateConfig(**{**CONFIG, "output": str(folder / "x.h5"), **changes}), progress=False)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("fresh"))


@pytest.fixture(scope="module")
def fresh(path):
    return FreshEvents(path, seed=4)


def rng_of(fresh, row, epoch):
    return np.random.default_rng(np.random.SeedSequence(fresh.seed, spawn_key=(FRESH_STREAM, epoch, row)))


def test_an_event_is_a_function_of_seed_epoch_and_row_alone(fresh, path):
    rows, few = np.arange(40), np.array([30, 7, 12])
    everything, some = fresh.events(rows, 2), FreshEvents(path, 4, rows=few).events(few, 2)
    for name in Events._fields:
        if name != "extra":
            a, b = getattr(everything, name)[few], getattr(some, name)
            assert np.array_equal(a[:, : b.shape[1]] if b.ndim == 2 else a, b), name
    for other in (fresh.events(rows, 3), FreshEvents(path, 5).events(rows, 2)):
        assert (other.flux[:, 0] != everything.flux[:, 0]).all()  # flat events have new noise, too
        assert (other.lengths != everything.lengths).mean() > 0.9  # and other gaps


@pytest.mark.parametrize("preset", ["baseline", "roman"])
def test_curve_is_that_of_the_lens_library_at_the_drawn_parameters(tmp_path, preset):
    fresh = FreshEvents(dataset(tmp_path, noise_scale=1e-6, binary_preset=preset, n_flat=1), 0)
    errors = []
    for row in range(25):
        e = fresh.event(row, 1)
        seen, p = e.flux != 0, e.params
        t = fresh.timestamps[seen]
        if e.kind == "flat":
            A = np.ones(len(t))
        elif e.kind == "other":
            A = VariableStar(p).flux(t)
        elif e.kind == "pspl" and preset == "roman":
            A = lens.fspl(t, p["t_0"], p["u_0"], p["t_E"], p["rho"], parallax=lens.event_parallax(p))
        elif e.kind == "pspl":
            A = lens.pspl(t, p["t_0"], p["u_0"], p["t_E"])
        else:
            path = (p[name] for name in ("t_0", "u_0", "t_E", "rho", "s", "q", "alpha"))
            A = lens.binary(t, *path, method="exact", tolerance=1e-4, parallax=lens.event_parallax(p))
        errors.append(np.abs(e.flux[seen] / (1 + (p["f_s"] * (A - 1) if e.kind != "flat" else 0)) - 1).max())
    # The nodes are made for 1e-3; a few curves in a thousand reach 3e-3.
    assert max(errors) < 5e-3 and np.median(errors) < 1e-3


def test_what_is_drawn_follows_the_priors_and_the_trajectory_stays(fresh):
    row = int(np.flatnonzero(fresh.labels == BINARY)[0])
    drawn = [fresh.draw(row, rng_of(fresh, row, epoch)) for epoch in range(300)]
    for name, (low, high) in {"t_0": (7.2, 64.8), "t_E": (5, 30), "m_base": (18, 24)}.items():
        values = [d[name] for d in drawn]  # uniform priors of the preset `baseline`; p of a right sampler is above 1e-4
        assert stats.kstest(values, "uniform", (low, high - low)).pvalue > 1e-4
    for name in ("u_0", "rho", "s", "q", "alpha"):
        assert {d[name] for d in drawn} == {fresh.params[name][row]}
    lost = np.mean([fresh.event(row, epoch).flux == 0 for epoch in range(20)])
    assert lost == pytest.approx(0.05, abs=4 * np.sqrt(0.05 * 0.95 / (20 * 6912)))


def test_a_variable_star_keeps_its_light_and_is_seen_with_another_brightness_and_noise(fresh):
    row = int(np.flatnonzero(fresh.labels == OTHER)[0])
    first, second = fresh.event(row, 1), fresh.event(row, 2)
    for name, value in first.params.items():
        assert name == "m_base" or value == second.params[name] == fresh.params[name][row] or np.isnan(value), name
    assert first.params["m_base"] != second.params["m_base"] and (first.flux != second.flux).mean() > 0.9


def test_an_event_with_parallax_keeps_its_time_and_a_second_source_its_place(tmp_path):
    bent = FreshEvents(dataset(tmp_path, binary_preset="roman", n_flat=1), 0)
    row = int(np.flatnonzero(bent.labels == BINARY)[0])
    drawn = bent.draw(row, rng_of(bent, row, 0))
    assert all(drawn[name] == bent.params[name][row] for name in ("t_0", "t_E", "pi_EN", "pi_EE"))
    assert drawn["m_base"] != bent.params["m_base"][row]
    two = FreshEvents(dataset(tmp_path / "two", two_sources=1.0, n_flat=0, n_binary=0, n_other=0), 0)
    before, after = {k: v[0] for k, v in two.params.items()}, two.draw(0, rng_of(two, 0, 0))
    late = [(p["t_0_2"] - p["t_0"]) / p["t_E"] for p in (before, after)]
    assert late[0] == pytest.approx(late[1]) and after["t_0"] != before["t_0"]


def test_labels_and_moments_are_those_of_the_new_curve(fresh):
    rows = np.flatnonzero(fresh.labels > 0)
    packed, found = fresh.events(rows, 6), set()
    for i, row in enumerate(rows):
        e, label, n_flat, n_pspl = fresh.event(row, 6), *(getattr(packed, name)[i] for name in Events._fields[5:])
        p, seen = e.params, e.flux != 0
        t = fresh.timestamps[seen]
        flux = true_flux(fresh.curves[row], p["t_0"], p["t_E"], p["f_s"], t)
        sigma = sigma_flux(flux, p["m_base"])
        growing = delta_chi2_flat(flux, sigma)
        if n_flat == NEVER:
            assert growing[-1] <= 500
        else:  # after n_flat epochs the event is seen, one epoch earlier it is not
            assert growing[n_flat - 1] > 500 >= growing[n_flat - 2]
        if fresh.labels[row] == OTHER:
            assert label == (FLAT if n_flat == NEVER else OTHER) and n_pspl == NEVER
            found.add(int(label))
            continue
        excess = fit_noise_free(t, flux, sigma, (p["t_0"], p["t_E"], max(p["u_0"], 1e-3))).chi2
        is_binary = fresh.labels[row] == BINARY and excess > 160
        assert label == (0 if growing[-1] <= 500 else BINARY if is_binary else PSPL)
        assert n_pspl == NEVER or fresh.labels[row] == BINARY
        if label == BINARY:  # the fits scatter by a few per cent
            assert fit_noise_free(t[:n_pspl], flux[:n_pspl], sigma[:n_pspl]).chi2 > 150
        found.add(int(label))
    assert {PSPL, BINARY, OTHER} <= found


def n_images(x, y, s, q):
    """Images of a point source at (x, y) behind a binary lens (centre of mass at 0): 5 inside a caustic, 3 outside.

    Roots of the lens equation's polynomial (Witt & Mao 1995) that solve the lens equation itself.
    """
    m1, m2, zeta = 1 / (1 + q), q / (1 + q), x + 1j * y
    z1, z2 = -s * m2, s * m1
    P = np.polynomial.Polynomial
    z = P([0, 1])
    both, pull = (z - z1) * (z - z2), m1 * (z - z2) + m2 * (z - z1)  # conj(z) = conj(zeta) + pull / both
    first = (np.conj(zeta) - z1) * both + pull
    second = (np.conj(zeta) - z2) * both + pull
    # z = zeta + m1 / (conj(z) - z1) + m2 / (conj(z) - z2), times both denominators
    roots = ((z - zeta) * first * second - both * (m1 * second + m2 * first)).roots()
    back = roots - m1 / (np.conj(roots) - z1) - m2 / (np.conj(roots) - z2)
    return int((np.abs(back - zeta) < 1e-5).sum())


def test_required_caustic_crossing_holds_for_fresh_events(tmp_path):
    """Where the curve bends most, parts of the source disc have five images and others three: a caustic is between."""
    fresh = FreshEvents(dataset(tmp_path, binary_preset="distinct", n_flat=0, n_pspl=0, n_binary=5, n_other=0), 0)
    disc = np.outer([0.0, 0.5, 1.0], np.exp(2j * np.pi * np.arange(10) / 10)).ravel()
    for row in range(5):
        e = fresh.event(row, 0)
        p, t = e.params, fresh.timestamps[e.flux != 0]
        bend = np.abs(np.diff(np.log(true_flux(e.curve, p["t_0"], p["t_E"], p["f_s"], t)), n=2))
        x, y = lens.trajectory(t[1:-1][np.argsort(bend)[-12:]], p["t_0"], p["u_0"], p["t_E"], p["alpha"])
        points = ((x + 1j * y)[:, None] + p["rho"] * disc).ravel()
        assert {n_images(z.real, z.imag, p["s"], p["q"]) for z in points} == {3, 5}
        assert p["t_0"] != fresh.params["t_0"][row]


def test_an_event_whose_path_no_longer_crosses_keeps_its_own_time(fresh, monkeypatch):
    row = int(np.flatnonzero(fresh.labels == BINARY)[0])
    monkeypatch.setattr(fresh, "preset", fresh.preset.__class__(**vars(fresh.preset) | {"caustic_crossing": True}))
    monkeypatch.setattr(lens, "crosses_caustic", lambda *args: False)
    p = fresh.event(row, 0).params
    assert (p["t_0"], p["t_E"]) == (fresh.params["t_0"][row], fresh.params["t_E"][row])
    assert p["m_base"] != fresh.params["m_base"][row]


def test_a_lens_library_that_fails_is_asked_again_for_another_event(fresh):
    answers = iter([lens.MagnificationError("no"), lens.MagnificationError("no"), None])

    def curve(params):
        answer = next(answers)
        if answer is not None:
            raise answer

    source = Source("flat", lambda rng: {"m_base": rng.uniform(18, 24)}, curve, fresh.preset)
    e = make_event(source, fresh.config, fresh.timestamps, np.random.default_rng(0), max_draws=3)
    assert (e.n_draws, e.status) == (3, 3)
