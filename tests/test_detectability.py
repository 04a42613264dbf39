import numpy as np
import pytest

from microlens import detectability as det
from microlens.magnification import fspl, pspl
from microlens.survey import sigma_flux

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
