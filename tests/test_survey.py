"""Truth: the published sigma tables (Penny+ 2019; McKinnon & van der Marel; RMDC26)."""

import numpy as np
import pytest

from microlens import survey
from microlens.config import SimulateConfig
from microlens.data.simulation import season_epochs
from microlens.sky.population import FOLDER

M = [15, 18, 20, 21, 22, 24, 26]
TABLE = {"penny2019": [0.00113, 0.00230, 0.00544, 0.00896, 0.01570, 0.06434, 0.3595],
         "roman": [0.00112, 0.00227, 0.00537, 0.00885, 0.01559, 0.06473, 0.3638],
         "crowded": [0.00110, 0.00216, 0.00569, 0.0108, 0.0229, 0.128, 0.788]}


@pytest.mark.parametrize("detector", TABLE)
def test_sigma_table(detector):
    assert survey.sigma_mag(M, detector) == pytest.approx(TABLE[detector], rel=0.01)


def test_schedules():
    assert len(survey.epochs("thesis")) == 6912
    for seed in range(20):  # RMDC26: 8181 to 8185 epochs, pauses of 6.1 to 6.3 h, about 43.5 h of them, three at the same place
        t = survey.epochs("roman", seed)
        gaps = np.diff(t)
        pauses = np.flatnonzero(gaps > 0.1)
        assert 8181 <= len(t) <= 8185 and len(pauses) == 7
        assert (np.abs(24 * gaps[pauses] - 6.2) < 0.1).all() and 24 * gaps[pauses].sum() == pytest.approx(43.5, abs=0.5)
        assert all(np.abs(t[pauses] - start).min() < 0.02 for start in (0.99, 35.24, 69.49))


def test_the_schedule_is_the_presets_unless_given(tmp_path):
    text = (FOLDER / "roman.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(text)
    n = {None: 8182, "thesis": 6912}
    for schedule, expected in n.items():
        for preset in ("roman", str(tmp_path / "mine.yaml")):
            assert len(season_epochs(SimulateConfig(binary_preset=preset, schedule=schedule))) == expected
    assert len(season_epochs(SimulateConfig(binary_preset="baseline"))) == 6912


@pytest.mark.parametrize("detector", [*TABLE, "thesis"])
def test_noise_of_flux_and_of_magnitude_are_one(detector):
    m_base, flux = 21.0, np.array([0.5, 1.0, 30.0])
    sigma = survey.MAG_PER_RELATIVE_FLUX * survey.sigma_flux(flux, m_base, detector) / flux
    assert sigma == pytest.approx(survey.sigma_mag(m_base - 2.5 * np.log10(flux), detector), rel=1e-9)


def test_correlated_noise_and_outliers_have_their_sizes():
    rng, t = np.random.default_rng(0), survey.epochs("thesis")
    noise = np.array([survey.draw_noise(rng, t, np.ones(len(t)), correlated=2.0, timescale=1.0) for _ in range(100)])
    assert noise.var() == pytest.approx(5.0, rel=0.1)
    lag = int(1.0 / (t[1] - t[0]))  # one correlation time: 4/e of the variance is shared
    assert (noise[:, lag:] * noise[:, :-lag]).mean() == pytest.approx(4 / np.e, rel=0.15)
    noise = survey.draw_noise(rng, np.arange(1e5), np.ones(100_000), outlier_fraction=0.1, outlier_size=10.0)
    assert noise.var() == pytest.approx(11.0, rel=0.1)


def test_systematics_disturb_their_share_of_the_curves_and_no_others():
    t, ones, rng = np.arange(2000) / 96, np.ones(2000), np.random.default_rng(3)
    curves = [survey.observe(ones, 20.0, t, rng, missing_fraction=0, correlated_noise=20.0, systematics=0.3) for _ in range(300)]
    z = np.array([(c - 1) / survey.sigma_flux(ones, 20.0) for c in curves])
    disturbed = np.mean(z**2, axis=1) > 1.3  # of white noise it is 1 within 0.03
    assert disturbed.mean() == pytest.approx(0.3, abs=4 * np.sqrt(0.3 * 0.7 / 300))
    assert z[~disturbed].std() == pytest.approx(1.0, abs=0.01)
    assert np.mean(z[disturbed] ** 2) == pytest.approx(1 + 20**2 / 3, rel=0.3)  # amplitudes uniform up to 20
