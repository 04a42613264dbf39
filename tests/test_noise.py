"""Terms of noise. Truth: the definition of each, scipy's distributions, dense matrices, and celerite2."""

import json

import numpy as np
import pytest
import yaml
from scipy import stats
from scipy.optimize import least_squares

from microlens import fit, sky
from microlens.config import BINARY, PSPL, THRESHOLD_PREMATURE, THRESHOLD_PSPL, Noise, SimulateConfig
from microlens.data import DatasetError, open_dataset, render_event, simulate
from microlens.data.events import observable_from
from microlens.data.fresh import FreshEvents
from microlens.fit import covariance, points, single_lens
from microlens.fit.covariance import Correlation
from microlens.lens import pspl
from microlens.sky.population import FOLDER
from microlens.sky.terms import FUNCTIONS, MATERN_TIME, NOISE_PARAMETERS, TERMS, Epochs, disturb

T = sky.epochs("thesis")
ROMAN = sky.epochs("roman")
SOME = np.sort(np.random.default_rng(3).choice(ROMAN, 400, replace=False))  # irregular


def epochs_at(t, flux=1.0, sigma=1.0, white=None, electrons=1000.0):
    flux, sigma = np.full(len(t), flux), np.full(len(t), sigma)
    return Epochs(t, flux, sigma, sigma if white is None else white, electrons)


def many(term, n, t=SOME, **parameters):
    """n draws (n, T) of a term at epochs t."""
    rng = np.random.default_rng(11)
    return np.array([FUNCTIONS[term](epochs_at(t), rng, **parameters) for _ in range(n)])


# ---- each term against its definition -------------------------------------------------------------------------------


def test_every_term_has_one_function_and_one_formula():
    assert list(FUNCTIONS) == list(TERMS)
    for function in FUNCTIONS.values():
        assert function.__doc__


@pytest.mark.parametrize(("term", "covariance_of"), [
    ("correlated", lambda x: np.exp(-x)),
    ("matern", lambda x: (1 + np.sqrt(3) * x) * np.exp(-np.sqrt(3) * x))])
@pytest.mark.parametrize("time", [0.05, 2.0])
def test_covariance_of_a_stationary_process(term, covariance_of, time):
    n, A = 4000, 0.7
    draws = many(term, n, amplitude=A, time=time)
    expected = A**2 * covariance_of(np.abs(SOME[:, None] - SOME) / time)
    found = draws.T @ draws / n
    # The variance of a product of Gaussians is C_ii C_jj + C_ij^2; the largest of 80,000 such deviates is below 5.5.
    error = np.sqrt((A**4 + expected**2) / n)
    assert np.abs((found - expected) / error).max() < 5.5


def test_structure_function_of_a_random_walk():
    n, A = 4000, 0.3
    draws = many("random_walk", n, amplitude=A)
    assert (draws[:, 0] == 0).all()
    for lag in (1, 20, 200):
        structure = (draws[:, lag:] - draws[:, :-lag]) ** 2
        expected = A**2 * (SOME[lag:] - SOME[:-lag])
        assert np.abs(structure.mean(0) / expected - 1).max() < 5.5 * np.sqrt(2 / n)


def test_a_dither_comb_repeats_with_its_cycle_through_pauses_and_colour_visits():
    comb = FUNCTIONS["dither"](epochs_at(ROMAN, flux=2.0), np.random.default_rng(0), amplitude=0.01, positions=7.4)
    visit = np.rint((ROMAN - ROMAN[0]) * 1440 / 12.139).astype(int)
    assert visit[-1] > len(ROMAN)
    for position in range(7):
        assert np.ptp(comb[visit % 7 == position]) == 0
    offsets = many("dither", 2000, t=ROMAN[:8], amplitude=0.01, positions=8)
    assert stats.kstest(offsets.ravel() / 0.01, "norm").pvalue > 1e-3


def test_non_linearity_is_a_power_of_the_flux():
    """1.93e-3 a dex are 0.4 % at a magnification of 100 (arXiv:2506.04332)."""
    flux = np.array([0.5, 1.0, 10.0, 100.0])
    added = FUNCTIONS["non_linearity"](epochs_at(flux, flux=flux), None, slope=1.93e-3)
    assert added / flux == pytest.approx(1.93e-3 * np.log10(flux), rel=5e-3, abs=1e-12)
    assert (added / flux)[-1] == pytest.approx(0.0039, abs=1e-4)


def test_persistence_is_there_for_its_share_of_the_time_and_of_its_size():
    steps = many("persistence", 2000, t=ROMAN[::50], electrons=72.0, duration=1.5, interval=6.0)
    assert set(np.unique(steps)) == {0.0, 0.072}
    # No step covers an epoch where none began in the duration before: exp(-duration/interval).
    share = (steps > 0).mean()
    assert share == pytest.approx(1 - np.exp(-1.5 / 6.0), abs=4 * np.sqrt(0.2 * 1.5 / 70 / 2000))
    # 72 electrons are 1 % of a star of 22 mag and 6 % at 24 (Roman technical information, one pixel).
    for m_base, relative in ((22.0, 0.01), (24.0, 0.063)):
        drawn = {"persistence_electrons": 72.0, "persistence_duration": 999.0, "persistence_interval": 1e-2}
        flux, usable = sky.observe(np.ones(200), m_base, T[:200], np.random.default_rng(0), Noise(noise_scale=1e-6),
                                   drawn=drawn)
        assert flux[flux != 0] - 1 == pytest.approx(relative, rel=0.02) and not usable.any()


@pytest.mark.parametrize("degrees", [3.0, 1e6])
def test_outliers_have_their_share_and_their_distribution(degrees):
    added = many("outliers", 300, fraction=0.02, size=10.0, degrees=degrees).ravel()
    hit = added != 0
    assert hit.mean() == pytest.approx(0.02, abs=5 * np.sqrt(0.02 / hit.size))
    assert stats.kstest(added[hit] / 10.0, stats.t(degrees).cdf).pvalue > 1e-3


def test_the_error_scale_is_that_of_the_pulls():
    for m_base in (18.0, 24.0):
        flux, _ = sky.observe(np.ones(len(T)), m_base, T, np.random.default_rng(0), drawn={"error_scale_factor": 1.3})
        pull = (flux[flux != 0] - 1) / sky.sigma_flux(np.ones(1), m_base)
        assert pull.std() == pytest.approx(1.3, abs=4 * 1.3 / np.sqrt(2 * len(T)))


def test_a_step_and_a_daily_sine_have_their_forms():
    steps = many("step", 200, size=3.0)
    assert (np.sort(np.unique(steps)) == [-3, 0, 3]).all()
    assert (np.count_nonzero(np.diff(steps, axis=1), axis=1) <= 1).all()
    waves = many("daily", 50, t=np.arange(96 * 4) / 96, amplitude=2.0)
    assert waves[:, 96:] == pytest.approx(waves[:, :-96], abs=1e-9)
    assert np.sqrt((waves**2).mean(1)) == pytest.approx(np.sqrt(2), rel=1e-6)


def test_terms_add_up_and_spoilt_epochs_are_those_of_outliers_and_persistence():
    rng = np.random.default_rng(5)
    drawn = {"correlated_amplitude": 0.3, "correlated_time": 1.0, "outliers_fraction": 0.01, "outliers_size": 10.0,
             "outliers_degrees": 1e6, "error_scale_factor": 1.2}
    white = rng.standard_normal(len(T))
    both = disturb(drawn, epochs_at(T, white=white), np.random.default_rng(1))
    expected = np.random.default_rng(1)
    parts = [FUNCTIONS["correlated"](epochs_at(T), expected, 0.3, 1.0),
             FUNCTIONS["outliers"](epochs_at(T), expected, 0.01, 10.0, 1e6)]
    assert both.flux == pytest.approx(sum(parts) + 0.2 * white)
    assert np.array_equal(both.spoilt, parts[1] != 0) and 0 < both.spoilt.sum() < 200


# ---- priors ---------------------------------------------------------------------------------------------------------


def test_draws_of_the_sky_are_what_its_file_says():
    entries = yaml.safe_load((FOLDER / "sky.yaml").read_text())["noise"]
    terms, rng, n = sky.load_noise("sky"), np.random.default_rng(2), 4000
    draws = [sky.draw_terms(terms, rng) for _ in range(n)]
    for name, entry in entries.items():
        first = f"{name}_{next(iter(TERMS[name]))}"
        share = np.mean([first in d for d in draws])
        assert share == pytest.approx(entry["share"], abs=4 * np.sqrt(0.25 / n))
    amplitude = np.array([d["correlated_amplitude"] for d in draws if "correlated_amplitude" in d])
    assert stats.kstest(amplitude, stats.loguniform(0.05, 0.5).cdf).pvalue > 1e-3
    slope = np.array([d["non_linearity_slope"] for d in draws if "non_linearity_slope" in d])
    assert stats.kstest(slope, stats.truncnorm(-4, 4, 0, 1.5e-3).cdf).pvalue > 1e-3


BAD_NOISE = {
    "an unknown term": ({"pink": {}}, "noise: came .*pink.*expected a mapping of some of correlated, dither"),
    "a list": ([1], "noise: came"),
    "no prior": ({"correlated": {"amplitude": {"constant": 0.3}}}, "noise: correlated: no prior of time"),
    "an unknown field": ({"correlated": {"colour": 1}}, "correlated: came .*priors of amplitude, time, and share"),
    "a share above 1": ({"error_scale": {"share": 2, "factor": {"constant": 1}}}, "error_scale: share came 2"),
    "a share in words": ({"error_scale": {"share": "all", "factor": {"constant": 1}}}, "error_scale: share came 'all'"),
    "a negative size": ({"daily": {"amplitude": {"constant": -1}}}, "daily: amplitude from -1 is below its bound 0"),
    "a time of a second": ({"matern": {"amplitude": {"constant": 1}, "time": {"uniform": [1e-5, 1]}}},
                           r"matern: time from 1e-05 is below its bound 0.01 \(d\)"),
    "a fraction above 1": ({"outliers": {"fraction": {"constant": 3}, "size": {"constant": 1}}},
                           "outliers: fraction to 3 is above its bound 1"),
    "a normal without range": ({"non_linearity": {"slope": {"normal": [0, 1]}}}, "slope: normal needs"),
    "two correlated terms": ({"random_walk": {"amplitude": {"constant": 1}},
                              "correlated": {"amplitude": {"constant": 1}, "time": {"constant": 1}}},
                             "has correlated and random_walk, of which a light curve can have one alone"),
}


@pytest.mark.parametrize(("block", "message"), BAD_NOISE.values(), ids=BAD_NOISE)
def test_noise_that_is_none_is_one_line_with_file_term_and_bound(tmp_path, block, message):
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps({"noise": block}))
    with pytest.raises(ValueError, match=message) as error:
        sky.load_noise(path)
    assert str(error.value).startswith(f"{path}: noise") and "\n" not in str(error.value)


def test_an_unknown_noise_and_a_file_without_noise_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"preset 'loud': neither one of .*sky.* nor a YAML file"):
        sky.load_preset("baseline", "loud")
    path = tmp_path / "mine.yaml"
    path.write_text("name: x")
    with pytest.raises(ValueError, match="has neither a block `noise` nor"):
        sky.load_noise(path)
    assert sky.load_noise("baseline") == {}


# ---- the dataset ----------------------------------------------------------------------------------------------------

SMALL = {"n_flat": 10, "n_pspl": 10, "n_binary": 12, "noise": "sky", "seed": 4}


def make(path, **more):
    return simulate(SimulateConfig(**{**SMALL, "num_workers": 1, "output": str(path), **more}), progress=False)


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    return make(tmp_path_factory.mktemp("noisy") / "x.h5")


def test_bytes_with_noise_do_not_depend_on_workers(tmp_path, noisy):
    assert make(tmp_path / "x.h5", num_workers=2).read_bytes() == noisy.read_bytes()


def test_what_each_event_drew_is_stored_and_makes_the_same_noise_again(noisy):
    with open_dataset(noisy) as d:
        assert list(d.noise.columns) == list(NOISE_PARAMETERS) and d.preset.noise == sky.load_noise("sky")
        assert 0.1 < d.noise.correlated_amplitude.notna().mean() < 0.9 and d.noise.matern_time.isna().all()
        excess = []
        for row, p in d.params.iterrows():
            terms = d.noise_terms(row)
            assert set(terms) == set(d.noise.columns[d.noise.loc[row].notna()])
            flux, true = render_event(d.curve(row), p.t_0, p.t_E, p.f_s, p.m_base, d.timestamps,
                                      np.random.default_rng(row), drawn=terms)
            excess.append(np.std((flux - true)[flux != 0]) / np.std((d.flux(row) - true)[d.flux(row) != 0]))
    assert np.median(excess) == pytest.approx(1, abs=0.03)  # one realisation of correlated noise is not another


def test_another_noise_is_another_dataset(noisy):
    with pytest.raises(DatasetError, match=r"noise: here 'red_noise', there 'sky'.*noise term correlated: here"):
        make(noisy, noise="red_noise")


def test_a_preset_may_have_noise_of_its_own_and_the_option_replaces_it(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text((FOLDER / "baseline.yaml").read_text() + "noise: {daily: {amplitude: {constant: 2.0}}}\n")
    kw = {"n_flat": 4, "n_pspl": 0, "n_binary": 0, "binary_preset": str(mine)}
    with open_dataset(make(tmp_path / "own.h5", noise=None, **kw)) as own:
        assert (own.noise.daily_amplitude == 2).all()
        flux = own.flux().astype(float)
        pull = ((flux - 1) / sky.sigma_flux(np.ones_like(flux), own.m_base))[flux != 0]
        assert pull.std() == pytest.approx(np.sqrt(1 + 2), rel=0.02)
    with open_dataset(make(tmp_path / "white.h5", noise="baseline", **kw)) as white:
        assert white.noise.isna().all().all()


def test_fresh_events_have_fresh_noise_of_the_same_terms(noisy):
    fresh = FreshEvents(noisy, seed=0)
    drawn = [fresh.event(row, 0).noise for row in range(len(fresh.labels))]
    with open_dataset(noisy) as d:
        assert all(drawn[row] != d.noise_terms(row) for row in range(len(d)) if drawn[row])
    assert 0.2 < np.mean(["correlated_amplitude" in d for d in drawn]) < 0.8
    assert fresh.event(3, 0).noise == drawn[3] != fresh.event(3, 1).noise


def test_configurations_of_older_files_are_read_where_they_mean_white_noise():
    old = {"correlated_noise": 0.0, "correlated_timescale": 1.0, "outlier_fraction": 0.0, "outlier_size": 10.0}
    assert SimulateConfig.from_dict(old) == SimulateConfig()
    with pytest.raises(ValueError, match="no field correlated_noise"):
        SimulateConfig.from_dict(old | {"correlated_noise": 0.3})


# ---- correlated noise in the fit ------------------------------------------------------------------------------------


def bumpy(t, at=44.0, width=0.3, height=0.02):
    return pspl(t, 36.0, 0.3, 15.0) + height * np.exp(-0.5 * ((t - at) / width) ** 2)


def dense(t, correlation):
    """Covariance (n, n) of the noise in white errors."""
    return np.eye(len(t)) + correlation.amplitude**2 * np.exp(-np.abs(t[:, None] - t) / correlation.time)


@pytest.mark.parametrize("correlation", [Correlation(0.3, 1.0), Correlation(2.0, 0.02), Correlation(0.5, 30.0)])
def test_whitening_is_that_of_celerite2(correlation):
    celerite2 = pytest.importorskip("celerite2")
    t = np.sort(np.random.default_rng(0).choice(T, 6500, replace=False))
    flux, sigma = bumpy(t), sky.sigma_flux(bumpy(t), 20.0)
    curve = covariance.correlated_curve(single_lens.noise_free_points(t, flux, sigma), correlation)
    process = celerite2.GaussianProcess(celerite2.terms.RealTerm(a=correlation.amplitude**2, c=1 / correlation.time))
    process.compute(t, diag=np.ones(len(t)))
    columns = np.array([flux, np.ones(len(t)), pspl(t, 30.0, 0.5, 9.0)])
    found = covariance.whitened(curve.every, columns)
    scaled = columns / sigma
    expected = scaled @ process.apply_inverse(scaled.T.copy())
    assert found.T @ found == pytest.approx(expected, rel=1e-9)
    assert -2 * np.log(curve.every.scale).sum() == pytest.approx(process._log_det, rel=1e-9)


def test_chi2_of_prefixes_is_that_of_dense_matrices():
    t, correlation = SOME[:300], Correlation(0.8, 0.7)
    flux = bumpy(t, at=20.0, height=0.2)
    sigma, a = sky.sigma_flux(flux, 21.0), pspl(t, 35.0, 0.4, 12.0)
    found = covariance.chi2_of_prefixes(
        covariance.correlated_curve(single_lens.noise_free_points(t, flux, sigma), correlation), a)
    assert (np.diff(found) > -1e-6).all()
    for n in (3, 10, 150, 300):
        root = np.linalg.inv(np.linalg.cholesky(dense(t[:n], correlation)))
        y, design = root @ (flux / sigma)[:n], root @ (np.column_stack([a, np.ones(len(t))]) / sigma[:, None])[:n]
        f_source = np.linalg.lstsq(design, y, rcond=None)[0][0]
        if f_source < 0:
            design = design[:, 1:]
        residual = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
        assert found[n - 1] == pytest.approx(residual @ residual, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("correlation", [Correlation(0.5, 0.05), Correlation(0.5, 5.0)])
def test_averages_have_the_covariance_of_averages(correlation):
    t = np.sort(np.random.default_rng(1).choice(T[:600], 500, replace=False))
    curve = single_lens.noise_free_points(t, np.ones(len(t)) + t, np.full(len(t), 0.1))
    last = np.array([0, 1, 30, 31, 90, 200, 260, 490, 499])
    few = points.means(curve, last)
    made = covariance.correlated_points(few, last, covariance.memory_between(t, correlation), correlation.amplitude)
    mean = np.zeros((len(last), len(t)))
    for k, (first, end) in enumerate(zip([0, *(last[:-1] + 1)], last, strict=True)):
        mean[k, first : end + 1] = 1 / (end + 1 - first)
    expected = mean @ dense(t, correlation) @ mean.T * 0.1**2
    y = np.random.default_rng(2).normal(size=len(last))
    white = covariance.whitened(made, y[None])
    assert (white**2).sum() == pytest.approx(y @ np.linalg.solve(expected, y), rel=1e-9)


def test_weak_correlation_gives_the_labels_of_white_noise():
    """Averages of the two searches differ, and so do delta chi^2 by a per cent and moments by few epochs."""
    for at, width, height in ((30.0, 0.5, 0.02), (44.0, 0.1, 0.05), (38.0, 3.0, 0.03)):
        flux = bumpy(T, at, width, height)
        sigma = sky.sigma_flux(flux, 19.0)
        white, weak = (fit.observability(T, flux, sigma, True, (36.0, 15.0, 0.3), correlation=c)
                       for c in (None, Correlation(1e-6, 1.0)))
        assert weak.delta_chi2_flat == pytest.approx(white.delta_chi2_flat, rel=1e-6)
        assert weak.t_observable_flat == white.t_observable_flat
        assert weak.delta_chi2_pspl == pytest.approx(white.delta_chi2_pspl, rel=0.02)
        for name in ("t_observable_pspl", "t_premature"):
            assert getattr(weak, name) == pytest.approx(getattr(white, name), abs=5 / 96)


def by_scipy(t, flux, sigma, correlation, starts):
    """delta chi^2 against the best PSPL of several starts under a dense covariance matrix."""
    root = np.linalg.inv(np.linalg.cholesky(dense(t, correlation)))

    def residual(p):
        a = pspl(t, p[0], p[2], np.exp(p[1]))
        design, y = root @ (np.column_stack([a, np.ones(len(t))]) / sigma[:, None]), root @ (flux / sigma)
        return y - design @ np.linalg.lstsq(design, y, rcond=None)[0]

    return min((least_squares(residual, start, x_scale=[1, 0.1, 0.1]).fun ** 2).sum() for start in starts)


@pytest.mark.parametrize("correlation", [Correlation(0.5, 1.0), Correlation(0.3, 0.1)])
def test_moments_under_correlated_noise_against_fits_to_all_epochs(correlation):
    """The prefix that ends 4 epochs before a moment is below its threshold, 4 after it above. Every sixth epoch."""
    t = T[::6]
    flux = bumpy(t, 42.0, 0.4, 0.1)
    sigma = sky.sigma_flux(flux, 19.0)
    seen = fit.observability(t, flux, sigma, True, (36.0, 15.0, 0.3), correlation=correlation)
    starts = [(36.0, np.log(t_E), 0.4) for t_E in (8.0, 15.0, 25.0)]
    assert seen.delta_chi2_pspl == pytest.approx(by_scipy(t, flux, sigma, correlation, starts), rel=0.02)
    for moment, threshold in ((seen.t_premature, THRESHOLD_PREMATURE), (seen.t_observable_pspl, THRESHOLD_PSPL)):
        n = np.searchsorted(t, moment) + 1
        before, after = (by_scipy(t[:k], flux[:k], sigma[:k], correlation, starts) for k in (n - 4, n + 4))
        assert before < 1.02 * threshold and after > 0.98 * threshold


def test_a_binary_signal_below_the_red_noise_is_a_single_lens():
    flux = bumpy(T)
    sigma = sky.sigma_flux(flux, 20.0)
    labels = []
    for correlation in (None, Correlation(0.3, 1.0)):
        seen = fit.observability(T, flux, sigma, True, (36.0, 15.0, 0.3), correlation=correlation)
        labels.append(int(fit.observable_label(BINARY, seen.delta_chi2_flat, seen.delta_chi2_pspl)))
    assert labels == [BINARY, PSPL]


def test_correlated_noise_never_makes_more_observable():
    """White noise alone has the smaller covariance, so chi^2 of any residual is larger under it."""
    for correlation in (Correlation(0.1, 0.1), Correlation(0.5, 5.0)):
        flux = bumpy(T, 40.0, 1.0, 0.03)
        args = T, flux, sky.sigma_flux(flux, 19.0), True, (36.0, 15.0, 0.3)
        white, red = fit.observability(*args), fit.observability(*args, correlation=correlation)
        assert red.delta_chi2_flat < white.delta_chi2_flat and red.delta_chi2_pspl < white.delta_chi2_pspl
        assert not red.t_observable_flat < white.t_observable_flat


def test_spoilt_epochs_and_the_error_scale_count_in_the_labels():
    """With half of the epochs spoilt delta chi^2 is half as large, with errors of 2 sigma a quarter."""
    flux = bumpy(T, height=0.1)
    params = {"t_0": 36.0, "t_E": 15.0, "u_0": 0.3, "f_s": 1.0, "m_base": 19.0, "pi_EN": 0.0, "pi_EE": 0.0}
    half = {"outliers_fraction": 0.5, "outliers_size": 10.0, "outliers_degrees": 1e6}
    config = SimulateConfig(missing_fraction=0.0)

    def known(drawn):
        _, usable = sky.observe(flux, 19.0, T, np.random.default_rng(0), config, drawn=drawn)
        return observable_from("binary", params, T[usable], flux[usable], config, None, drawn)

    plain, spoilt, scaled = known({}), known(half), known({"error_scale_factor": 2.0})
    assert spoilt.delta_chi2_pspl == pytest.approx(0.5 * plain.delta_chi2_pspl, rel=0.1)
    assert scaled.delta_chi2_pspl == pytest.approx(0.25 * plain.delta_chi2_pspl, rel=0.02)
    assert scaled.delta_chi2_flat == pytest.approx(0.25 * plain.delta_chi2_flat, rel=1e-6)


def test_matern_and_random_walk_enter_as_the_process_of_their_variance_and_integral():
    known = sky.known_noise({"matern_amplitude": 0.4, "matern_time": 3.0})
    x = np.linspace(0, 300, 100_001)
    integral = np.trapezoid((1 + np.sqrt(3) * x / 3) * np.exp(-np.sqrt(3) * x / 3), x)
    assert (known.amplitude, known.time) == (0.4, pytest.approx(integral, rel=1e-4)) and MATERN_TIME * 3 == known.time
    walk = sky.known_noise({"random_walk_amplitude": 0.2})
    for lag in (0.01, 1.0, 70.0):  # its structure function: amplitude^2 lag
        assert 2 * walk.amplitude**2 * -np.expm1(-lag / walk.time) == pytest.approx(0.04 * lag, rel=4e-3)
