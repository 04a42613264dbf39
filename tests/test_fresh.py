"""Fresh events: what they are drawn from, that they are what the lens library says, and that (seed, epoch, row) fixes them."""

import numpy as np
import pytest
from scipy import stats

from microlens import magnification
from microlens.config import SimulateConfig
from microlens.data.format import DatasetError
from microlens.data.fresh import STREAM, FreshEvents
from microlens.data.packed import NEVER, Events
from microlens.data.simulation import simulate
from microlens.fit import delta_chi2_flat, fit_noise_free
from microlens.lens import Nodes
from microlens.sky.noise import sigma_flux

CONFIG = {"n_flat": 12, "n_pspl": 12, "n_binary": 12, "num_workers": 1}


def dataset(folder, **changes):
    return simulate(SimulateConfig(**{**CONFIG, "output": str(folder / "x.h5"), **changes}), progress=False)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("fresh"))


@pytest.fixture(scope="module")
def fresh(path):
    return FreshEvents(path, seed=4)


def rng_of(fresh, row, epoch):
    return np.random.default_rng(np.random.SeedSequence(fresh.seed, spawn_key=(STREAM, epoch, row)))


def test_an_event_is_a_function_of_seed_epoch_and_row_alone(fresh, path):
    rows = np.arange(36)
    all_of_them, some = fresh.events(rows, 2), FreshEvents(path, 4, rows=[30, 7, 12]).events(np.array([30, 7, 12]), 2)
    for name in Events._fields:
        if name != "extra":
            a, b = getattr(all_of_them, name)[[30, 7, 12]], getattr(some, name)
            assert np.array_equal(a[:, : b.shape[1]] if b.ndim == 2 else a, b), name
    for other in (fresh.events(rows, 3), FreshEvents(path, 5).events(rows, 2)):
        assert (other.flux[:, 0] != all_of_them.flux[:, 0]).all()  # flat events have new noise, too
        assert (other.lengths != all_of_them.lengths).mean() > 0.9  # and other gaps


@pytest.mark.parametrize("preset, finite", [("baseline", False), ("roman", True)])
def test_curve_is_that_of_the_lens_library_at_the_drawn_parameters(tmp_path, preset, finite):
    fresh = FreshEvents(dataset(tmp_path, noise_scale=1e-6, binary_preset=preset, n_flat=1), 0)
    errors = []
    for row in range(25):
        t, flux, *_ = fresh.event(row, 1)
        t_0, t_E, f_s, _, observed = fresh.draw(row, rng_of(fresh, row, 1))
        assert np.array_equal(t, fresh.timestamps[observed])
        u_0, rho, s, q, alpha = (fresh.params[k][row] for k in ("u_0", "rho", "s", "q", "alpha"))
        if fresh.labels[row] == 0:
            A = np.ones(len(t))
        elif fresh.labels[row] == 1:
            A = magnification.fspl(t, t_0, u_0, t_E, rho) if finite else magnification.pspl(t, t_0, u_0, t_E)
        else:
            A = magnification.binary(t, t_0, u_0, t_E, rho, s, q, alpha, method="exact", tolerance=1e-4)
        errors.append(np.abs(flux / (1 + f_s * (A - 1)) - 1).max())
    # The nodes are made for 1e-3; a few curves in a thousand reach 3e-3.
    assert max(errors) < 5e-3 and np.median(errors) < 1e-3


def test_what_is_drawn_follows_the_priors_and_the_trajectory_stays(fresh):
    row = int(np.flatnonzero(fresh.labels == 2)[0])
    drawn = np.array([fresh.draw(row, rng_of(fresh, row, epoch))[:4] for epoch in range(300)]).T
    for values, (low, high) in zip(drawn, ((7.2, 64.8), (5, 30), (1, 1), (18, 24)), strict=True):
        if low < high:  # uniform priors of the preset `baseline`, SCIENCE of the thesis; p of a right sampler is above 1e-4
            assert stats.kstest(values, "uniform", (low, high - low)).pvalue > 1e-4
    missing = np.mean([~fresh.draw(row, rng_of(fresh, row, epoch))[4] for epoch in range(20)])
    assert missing == pytest.approx(0.05, abs=4 * np.sqrt(0.05 * 0.95 / (20 * 6912)))


def test_labels_and_moments_are_those_of_the_new_curve(fresh):
    seen = set()
    for row in np.flatnonzero(fresh.labels > 0):
        t, _, m_base, label, n_flat, n_pspl = fresh.event(row, 6)
        t_0, t_E, f_s, _, _ = fresh.draw(row, rng_of(fresh, row, 6))
        if fresh.labels[row] == 1:
            A = magnification.pspl(t, t_0, fresh.params["u_0"][row], t_E)
        else:
            A = magnification.render(*fresh.curves[row], (t - t_0) / t_E)
        flux = 1 + f_s * (A - 1)
        sigma = sigma_flux(flux, m_base)
        growing = delta_chi2_flat(flux, sigma)
        if n_flat == NEVER:
            assert growing[-1] <= 500
        else:  # after n_flat epochs the event is seen, one epoch earlier it is not
            assert growing[n_flat - 1] > 500 >= growing[n_flat - 2]
        excess = fit_noise_free(t, flux, sigma, (t_0, t_E, max(fresh.params["u_0"][row], 1e-3))).chi2
        expected = 0 if growing[-1] <= 500 else 2 if fresh.labels[row] == 2 and excess > 160 else 1
        assert label == expected and (n_pspl == NEVER or fresh.labels[row] == 2)
        if label == 2:
            assert fit_noise_free(t[:n_pspl], flux[:n_pspl], sigma[:n_pspl]).chi2 > 150  # the fits scatter by a few per cent
        seen.add(int(label))
    assert {1, 2} <= seen


def test_required_caustic_crossing_holds_for_fresh_events(tmp_path):
    fresh = FreshEvents(dataset(tmp_path, binary_preset="distinct", n_flat=0, n_pspl=0), 0, observable=False)
    for row in range(12):
        t_0, t_E, _, _, observed = fresh.draw(row, rng_of(fresh, row, 0))
        p = [fresh.params[k][row] for k in ("u_0", "rho", "s", "q", "alpha")]
        assert magnification.crosses_caustic((fresh.timestamps[observed] - t_0) / t_E, *p)
        assert t_0 != fresh.params["t_0"][row]


def test_residual_view_is_fitted_anew(path):
    events = FreshEvents(path, 4, view="residual").events(np.arange(6), 1)
    n = events.lengths.min()
    # The fit takes out what a single lens can: residuals in units of the error scatter by about 1 where there is no anomaly.
    quiet = events.labels_observable < 2
    assert np.std(np.sinh(events.extra[quiet, :n, 0])) == pytest.approx(1.0, abs=0.1)


def test_file_without_whole_curves_is_named(path, tmp_path, monkeypatch):
    with pytest.raises(DatasetError, match="keep-nodes"):
        FreshEvents(dataset(tmp_path, keep_nodes=False), 0)
    monkeypatch.setattr("microlens.data.fresh.stored_curve", lambda data, row: Nodes(np.linspace(-2, 3, 9), np.zeros(9)))
    with pytest.raises(DatasetError, match="one season only"):
        FreshEvents(path, 0)
