import numpy as np
import pytest
from scipy.optimize import least_squares

from microlens import detectability as det
from microlens.fit import sampling, single_lens
from microlens.fit.kernels import POINT, _b0_table, _through
from microlens.lens import fspl, pspl
from microlens.sky.noise import sigma_flux

T = np.arange(6912) / 96.0


@pytest.mark.parametrize("f_s", [1.0, 0.1])
def test_a_blended_pspl_curve_is_fitted_exactly(f_s):
    flux = 1 + f_s * (pspl(T, 30.0, 0.2, 10.0) - 1)
    fit = det.fit_single_lens(T, flux, sigma_flux(flux, 20.0))
    assert fit.chi2 < 0.01
    assert [fit.t_0, fit.u_0, fit.t_E, fit.f_source] == pytest.approx([30, 0.2, 10, f_s], rel=1e-3)


def test_a_finite_source_is_no_anomaly():
    flux = fspl(T, 30.0, 0.01, 10.0, 0.03)
    assert det.observability(T, flux, sigma_flux(flux, 18.0), True)[1] < 5


def test_a_limb_darkened_source_is_no_anomaly_to_a_fit_of_the_same_profile():
    flux = fspl(T, 30.0, 0.01, 10.0, 0.03, 0.5)
    uniform, darkened = (det.observability(T, flux, sigma_flux(flux, 18.0), True, limb_darkening=g)[1] for g in (0.0, 0.5))
    assert darkened < 20 and uniform > det.THRESHOLD_PSPL


def test_flat_delta_chi2_against_direct_sum():
    flux = pspl(T, 30.0, 0.5, 10.0)
    sigma = sigma_flux(flux, 22.0)
    w = 1 / sigma**2
    mean = (w * flux).sum() / w.sum()
    assert det.delta_chi2_flat(flux, sigma)[-1] == pytest.approx((w * (flux - mean) ** 2).sum(), rel=1e-9)


def test_observable_label_rule():
    labels = det.observable_label([0, 1, 1, 2, 2, 2], [0, 400, 600, 400, 600, 600], [0, 0, 0, 900, 100, 200])
    assert labels.tolist() == [0, 0, 1, 0, 1, 2]


@pytest.mark.parametrize("n", [5, 8, 200])
def test_a_prefix_without_change_is_fitted_exactly(n):
    assert det.prefix_delta_chi2(T[:n], np.ones(n), np.full(n, 0.01)) < 1e-6


def by_scipy(t, flux, sigma, starts):
    """chi^2 of the best PSPL over all epochs by scipy, the fluxes solved for: no line shared with the compiled fits."""

    def residual(p):
        a = np.column_stack([pspl(t, p[0], p[2], np.exp(p[1])), np.ones_like(t)]) / sigma[:, None]
        return flux / sigma - a @ np.linalg.lstsq(a, flux / sigma, rcond=None)[0]

    return min(2 * least_squares(residual, s, x_scale=(1.0, 0.1, 0.1)).cost for s in starts)


@pytest.mark.parametrize(("at", "width", "height"), [(30.0, 0.5, 0.02), (44.0, 0.1, 0.05), (38.0, 3.0, 0.03)])
def test_moment_of_observability_against_fits_to_all_epochs(at, width, height):
    """A bump on a single lens: the prefix that ends 4 epochs before the moment is below the threshold, 4 epochs after it above."""
    flux = pspl(T, 36.0, 0.4, 12.0) + height * np.exp(-0.5 * ((T - at) / width) ** 2)
    sigma = sigma_flux(flux, 19.0)
    moment = det.observability(T, flux, sigma, True, (36.0, 12.0, 0.4))[3]
    n, starts = np.searchsorted(T, moment) + 1, [(36.0, np.log(t_E), 0.4) for t_E in (8.0, 12.0, 25.0)]
    before, after = (by_scipy(T[:k], flux[:k], sigma[:k], starts) for k in (n - 4, n + 4))
    assert before < 1.02 * det.THRESHOLD_PSPL and after > 0.98 * det.THRESHOLD_PSPL  # few points sum chi^2 to a per cent


def test_few_points_sum_the_residual_of_a_wrong_lens_as_all_epochs_do():
    flux = pspl(T, 36.0, 0.05, 12.0) + 0.05 * np.exp(-0.5 * ((T - 40.0) / 0.1) ** 2)
    w, p = 1 / sigma_flux(flux, 18.0) ** 2, np.array([36.002, np.log(12.1), 0.051, POINT])
    points = sampling._sample(T, flux, w, single_lens.BEND)[:3]
    few, every = (_through(*curve, p, _b0_table())[2] for curve in (points, (T, flux, w)))
    assert few == pytest.approx(every, rel=0.01) and len(points[0]) < len(T) / 10
