import numpy as np
import pytest
from scipy.optimize import least_squares

from microlens import fit
from microlens.config import THRESHOLD_PREMATURE, THRESHOLD_PSPL
from microlens.fit import observable, points, residual, single_lens
from microlens.fit.kernels import POINT, Points, b0_table, fluxes_of, prefix, without_parallax
from microlens.lens import ROMAN_FIELD, Parallax, binary, fspl, pspl
from microlens.sky.noise import sigma_flux

T = np.arange(6912) / 96.0


@pytest.mark.parametrize("f_s", [1.0, 0.1])
def test_a_blended_pspl_curve_is_fitted_exactly(f_s):
    flux = 1 + f_s * (pspl(T, 30.0, 0.2, 10.0) - 1)
    found = fit.fit_single_lens(T, flux, sigma_flux(flux, 20.0))
    assert found.chi2 < 0.01
    assert [found.t_0, found.u_0, found.t_E, found.f_source] == pytest.approx([30, 0.2, 10, f_s], rel=1e-3)


def test_a_finite_source_is_no_anomaly():
    flux = fspl(T, 30.0, 0.01, 10.0, 0.03)
    assert fit.observability(T, flux, sigma_flux(flux, 18.0), True).delta_chi2_pspl < 5


def test_a_limb_darkened_source_is_no_anomaly_to_a_fit_of_the_same_profile():
    flux = fspl(T, 30.0, 0.01, 10.0, 0.03, 0.5)
    uniform, darkened = (fit.observability(T, flux, sigma_flux(flux, 18.0), True, limb_darkening=g) for g in (0.0, 0.5))
    assert darkened.delta_chi2_pspl < 20 and uniform.delta_chi2_pspl > THRESHOLD_PSPL


def test_a_single_lens_with_parallax_is_no_anomaly_to_a_fit_that_has_parallax():
    """Single lenses drawn with the parallaxes of Data Challenge 1's hosts, three times as large."""
    rng, alone, together = np.random.default_rng(6), [], []
    for _ in range(40):
        direction, pi_E = rng.uniform(0, 2 * np.pi), 0.27
        parallax = Parallax(pi_E * np.cos(direction), pi_E * np.sin(direction))
        t_0, u_0, t_E = rng.uniform(10, 60), rng.choice([-1, 1]) * rng.uniform(0.02, 0.8), rng.uniform(15, 40)
        flux = pspl(T, t_0, u_0, t_E, parallax=parallax)
        sigma = sigma_flux(flux, 20.0)
        alone.append(fit.fit_noise_free(T, flux, sigma).chi2)
        together.append(fit.fit_noise_free(T, flux, sigma, field=ROMAN_FIELD).chi2)
    assert np.mean(np.array(alone) > THRESHOLD_PSPL) > 0.3 and max(together) < 20


def test_noisy_fit_recovers_parallax():
    rng, parallax = np.random.default_rng(7), Parallax(0.2, -0.4)
    flux = pspl(T, 36.0, 0.15, 30.0, parallax=parallax)
    sigma = sigma_flux(flux, 18.0)
    noisy = flux + sigma * rng.normal(size=len(T))
    found = fit.fit_single_lens(T, noisy, sigma, field=ROMAN_FIELD)
    assert found.parallax.pi_EE == pytest.approx(-0.4, abs=0.05)
    assert found.chi2 <= (((noisy - flux) / sigma) ** 2).sum() + 1
    assert fit.single_lens_model(T, found) == pytest.approx(flux, rel=2e-3)


def test_flat_delta_chi2_against_direct_sum():
    flux = pspl(T, 30.0, 0.5, 10.0)
    sigma = sigma_flux(flux, 22.0)
    w = 1 / sigma**2
    mean = (w * flux).sum() / w.sum()
    assert fit.delta_chi2_flat(flux, sigma)[-1] == pytest.approx((w * (flux - mean) ** 2).sum(), rel=1e-9)


def test_observable_label_rule():
    labels = fit.observable_label([0, 1, 1, 2, 2, 2], [0, 400, 600, 400, 600, 600], [0, 0, 0, 900, 100, 200])
    assert labels.tolist() == [0, 0, 1, 0, 1, 2]
    stars = fit.observable_label([3, 3], [400, 600], [0, 0], is_star=[True, True])
    two_sources = fit.observable_label([3, 3, 3], [400, 600, 600], [300, 100, 200], is_star=[False, False, False])
    assert stars.tolist() == [0, 3] and two_sources.tolist() == [0, 1, 3]


@pytest.mark.parametrize("n", [5, 8, 200])
def test_a_prefix_without_change_is_fitted_exactly(n):
    assert fit.fit_noise_free(T[:n], np.ones(n), np.full(n, 0.01)).chi2 == 0


def by_scipy(t, flux, sigma, starts):
    """chi^2 of the best PSPL over all epochs by scipy, the fluxes solved for: no line shared with the compiled fits."""

    def residual(p):
        a = np.column_stack([pspl(t, p[0], p[2], np.exp(p[1])), np.ones_like(t)]) / sigma[:, None]
        return flux / sigma - a @ np.linalg.lstsq(a, flux / sigma, rcond=None)[0]

    return min(2 * least_squares(residual, s, x_scale=(1.0, 0.1, 0.1)).cost for s in starts)


@pytest.mark.parametrize(("at", "width", "height"), [(30.0, 0.5, 0.02), (44.0, 0.1, 0.05), (38.0, 3.0, 0.03)])
def test_moments_of_observability_against_fits_to_all_epochs(at, width, height):
    """A bump on a single lens: the prefix ending 4 epochs before a moment is below its threshold, 4 after it above."""
    flux = pspl(T, 36.0, 0.4, 12.0) + height * np.exp(-0.5 * ((T - at) / width) ** 2)
    sigma = sigma_flux(flux, 19.0)
    seen = fit.observability(T, flux, sigma, True, (36.0, 12.0, 0.4))
    starts = [(36.0, np.log(t_E), 0.4) for t_E in (8.0, 12.0, 25.0)]
    for moment, threshold in ((seen.t_premature, THRESHOLD_PREMATURE), (seen.t_observable_pspl, THRESHOLD_PSPL)):
        n = np.searchsorted(T, moment) + 1
        before, after = (by_scipy(T[:k], flux[:k], sigma[:k], starts) for k in (n - 4, n + 4))
        assert before < 1.02 * threshold and after > 0.98 * threshold  # few points sum chi^2 to a per cent


@pytest.mark.parametrize(("q", "s", "u_0", "m_base"), [(1e-3, 1.3, 0.1, 21.0), (1e-2, 0.8, 0.3, 20.0),
                                                       (0.3, 1.0, 0.2, 22.0), (0.5, 0.4, 0.6, 20.0)])
def test_moments_found_together_are_those_found_alone(q, s, u_0, m_base):
    """The search for the lower threshold begins where that for the higher one ended; alone it begins anew."""
    flux = binary(T, 36.0, u_0, 15.0, 2e-3, s, q, 1.0)
    curve = single_lens.noise_free_points(T, flux, sigma_flux(flux, m_base))
    given, bounds = single_lens.trial_start((36.0, 15.0, u_0)), single_lens.season_bounds(T)
    best, few, last = single_lens.fit_curve(curve, given, b0_table(), bounds)
    search = observable.Search(curve, few, last, given, b0_table(), bounds)
    alone = [observable.checked_first_above(search, best.p, c).n_below for c in (THRESHOLD_PREMATURE, THRESHOLD_PSPL)]
    seen = fit.observability(T, flux, sigma_flux(flux, m_base), True, (36.0, 15.0, u_0))
    assert seen.t_observable_pspl == T[alone[1]]
    assert np.searchsorted(T, seen.t_premature) == pytest.approx(alone[0], abs=4)


def test_few_points_sum_the_residual_of_a_wrong_lens_as_all_epochs_do():
    flux = pspl(T, 36.0, 0.05, 12.0) + 0.05 * np.exp(-0.5 * ((T - 40.0) / 0.1) ** 2)
    curve = without_parallax(T, flux, 1 / sigma_flux(flux, 18.0) ** 2)
    p = np.array([36.002, np.log(12.1), 0.051, POINT])
    few, _ = points.sample(curve, single_lens.BEND)
    assert fluxes_of(few, p, b0_table()).chi2 == pytest.approx(fluxes_of(curve, p, b0_table()).chi2, rel=0.01)
    assert len(few.t) < len(T) / 10


def test_a_prefix_of_points_is_their_beginning():
    n = 7
    curve = Points(T, T + 1, T + 2, T + 3, T + 4)
    assert all(np.array_equal(a, b[:n]) for a, b in zip(prefix(curve, n), curve, strict=True))


def test_the_residual_of_a_single_lens_with_parallax_is_noise():
    t, rng = np.arange(0, 72, 1 / 96), np.random.default_rng(8)
    true = pspl(t, 40.0, 0.15, 28.0, parallax=Parallax(0.3, 0.2))
    sigma = sigma_flux(true, 19.0)
    noisy = true + sigma * rng.normal(size=len(t))
    straight = residual.single_lens_residual(t, noisy, sigma)
    bent = residual.single_lens_residual(t, noisy, sigma, ROMAN_FIELD)
    assert np.sum(straight**2) > len(t) + 1000 and np.sum(bent**2) < len(t) + 4 * np.sqrt(2 * len(t))
    assert residual.seen(straight, noisy, sigma) == (True, True) and residual.seen(bent, noisy, sigma) == (True, False)
