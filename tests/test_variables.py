"""Variable stars: shapes against their definitions, distributions and light curves against those of OGLE."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ks_2samp

from microlens import sky
from microlens.config import VARIABLE_PARAMETERS, VARIABLE_STARS
from microlens.sky import eruptive, periodic
from microlens.sky.variables import VariableStar, subclasses

OGLE = Path(__file__).parents[2] / "shared" / "variables"
needs_ogle = pytest.mark.skipif(not OGLE.is_dir(), reason="no OGLE variables in ../shared/variables")
T = sky.epochs("roman", 3)
EXACT = [name for name, s in subclasses().items() if s.model in ("pulsation", "eclipses", "ellipsoid", "heartbeat")]


def drawn(name, n=1, seed=0):
    """Parameters of n stars of a sub-class."""
    rng = np.random.default_rng(seed)
    return [subclasses()[name].draw(rng) for _ in range(n)]


@pytest.mark.parametrize("name", VARIABLE_STARS)
def test_light_is_positive_and_a_function_of_the_parameters_alone(name):
    for params in drawn(name, 20):
        assert list(params) == list(VARIABLE_PARAMETERS)
        flux = VariableStar(params).flux(T)
        assert flux.shape == T.shape and np.isfinite(flux).all() and flux.min() > 0
        again = VariableStar(dict(params)).flux(T[2000:2500])  # the same at some of the times alone
        assert again == pytest.approx(flux[2000:2500], abs=1e-10)
        for parameter, value in params.items():
            if parameter != "subclass" and np.isfinite(value):
                low, high = VARIABLE_PARAMETERS[parameter][1:3]
                assert low <= value <= high, parameter
    assert not np.array_equal(VariableStar(drawn(name, 1, 1)[0]).flux(T), flux)


@pytest.mark.parametrize("name", VARIABLE_STARS)
def test_the_mean_or_the_quiescence_is_one(name):
    for params in drawn(name, 5):
        if subclasses()[name].is_periodic or name == "trend":
            if name in EXACT:
                t, tolerance = params["period"] * np.arange(20000) / 20000, 1e-6
            else:  # the mean over many times the longest period, which few waves reach slowly
                scale = np.nanmax([params["period"], params["period_2"], params["period_3"], params["duration"]])
                t, tolerance = np.linspace(0, 3000 * scale, 40000), 0.05
            assert VariableStar(params).flux(t).mean() == pytest.approx(1, abs=tolerance)
        else:
            assert VariableStar(params).flux(np.linspace(0, 5000, 50000)).min() >= 1


@pytest.mark.parametrize("name", EXACT)
def test_periodic_stars_repeat_with_their_period_and_have_their_amplitude(name):
    for params in drawn(name, 5):
        star, t = VariableStar(params), np.linspace(0, 2.7 * params["period"], 9000)
        assert star.flux(t) == pytest.approx(star.flux(t + 7 * params["period"]), abs=1e-9)
        assert np.ptp(star.flux(t / 2)) > 0 and np.std(star.flux(t) - star.flux(t + 0.31 * params["period"])) > 1e-4
        if np.isfinite(params["amplitude"]):
            assert np.ptp(-2.5 * np.log10(star.flux(t))) == pytest.approx(params["amplitude"], rel=2e-3)


def test_fourier_ratios_of_a_pulsating_star_are_those_of_its_parameters():
    for params in drawn("rr_lyrae_ab", 5):
        t = params["period"] * np.arange(8192) / 8192
        magnitude = -2.5 * np.log10(VariableStar(params).flux(t))
        c = np.fft.rfft(magnitude)[1:4]
        amplitude, phase = np.abs(c), np.angle(c)
        for k in (2, 3):
            assert amplitude[k - 1] / amplitude[0] == pytest.approx(params[f"R_{k}1"], rel=5e-3)
            difference = phase[k - 1] - k * phase[0] - params[f"phi_{k}1"]
            assert np.angle(np.exp(1j * difference)) == pytest.approx(0, abs=5e-3)


# ---- two stars ------------------------------------------------------------------------------------------------------

PAIR = {"period": 2.0, "phase": 0.0, "radius_sum": 0.3, "radius_ratio": 0.5, "impact": 0.0, "brightness_ratio": 0.4,
        "mass_ratio": 0.7, "eccentricity": 0.0, "omega": 0.0}


def dips(flux, depth):
    """Where, as shares of the period, an eclipse deeper than `depth` is deepest. flux (n,) of one period."""
    low = np.flatnonzero(flux < 1 - depth)
    groups = np.split(low, np.flatnonzero(np.diff(low) > 1) + 1)
    if len(groups) > 1 and groups[0][0] == 0 and groups[-1][-1] == len(flux) - 1:  # an eclipse over the end
        groups = [np.append(groups.pop() - len(flux), groups[0]), *groups[1:]]
    return [float(np.mean(g)) / len(flux) for g in groups]


def test_stars_eclipse_each_other_twice_a_period_the_hotter_one_deeper():
    flux = VariableStar({"subclass": "eclipsing_detached"} | PAIR).flux(np.linspace(0, 2, 20000, endpoint=False))
    assert dips(flux, 0.05) == pytest.approx([0.0, 0.5], abs=1e-3)
    first, second = 1 - flux[0] / flux.max(), 1 - flux[10000] / flux.max()
    # A total eclipse hides the cooler star's whole light; tides and reflection change the sum by one or two per cent.
    light_2 = 0.4 * 0.25
    assert second == pytest.approx(light_2 / (1 + light_2), abs=0.02) and second < first
    # The hotter star loses the middle of its disc, of a quarter of its area and a little brighter than the rest.
    assert 0.25 / (1 + light_2) - 0.01 < first < 1.2 * 0.25 / (1 + light_2)
    for name in ("eclipsing_detached", "eclipsing_semidetached"):
        for params in drawn(name, 20):
            one = VariableStar(params | {"phase": 0.0}).flux(params["period"] * np.arange(4000) / 4000)
            if params["eccentricity"] < 1e-3 and min(one[0], one[2000]) < 0.9:
                assert one[0] <= one[2000] + 0.01  # the primary eclipse is the deeper one


def test_an_eccentric_orbit_moves_the_secondary_eclipse():
    params = {"subclass": "eclipsing_detached"} | PAIR | {"eccentricity": 0.3, "omega": 0.0}
    flux = VariableStar(params).flux(np.linspace(0, 2, 20000, endpoint=False))
    first, second = dips(flux, 0.05)
    # Mean anomaly between the conjunctions at true anomalies of +-90 deg for omega = 0 (Kepler's equation).
    E = np.arccos(0.3)
    expected = (2 * np.pi - 2 * (E - 0.3 * np.sin(E))) / (2 * np.pi)
    assert first == pytest.approx(0, abs=1e-3) and second == pytest.approx(expected, abs=2e-3)


def test_keplers_equation_is_solved():
    M = np.linspace(0, 2 * np.pi, 1000)
    for e in (0.0, 0.3, 0.75):
        nu, distance = periodic.true_anomaly(M, e)
        assert distance == pytest.approx((1 - e**2) / (1 + e * np.cos(nu)), abs=1e-10)
        E = 2 * np.arctan2(np.sqrt(1 - e) * np.sin(nu / 2), np.sqrt(1 + e) * np.cos(nu / 2)) % (2 * np.pi)
        assert np.cos(E - e * np.sin(E)) == pytest.approx(np.cos(M), abs=1e-10)


def test_the_area_that_two_discs_share():
    assert periodic.overlap(0.0, 1.0, 0.4) == pytest.approx(np.pi * 0.16)  # one inside the other
    assert periodic.overlap(1.4, 1.0, 0.4) == pytest.approx(0, abs=1e-8)
    x = np.random.default_rng(0).uniform(-1, 1, (400_000, 2))
    inside = (np.hypot(*x.T) < 1) & (np.hypot(x[:, 0] - 0.8, x[:, 1]) < 0.4)
    assert periodic.overlap(0.8, 1.0, 0.4) == pytest.approx(4 * inside.mean(), abs=0.005)  # its error is .001
    assert periodic.hidden_share(np.array([0.0]), 0.2, 0.5) == pytest.approx([1])


def test_ellipsoidal_stars_have_two_maxima_a_period_and_heartbeat_stars_one_passage():
    for params in drawn("ellipsoidal", 5):
        flux = VariableStar(params).flux(params["period"] * np.arange(3000) / 3000)
        inner = (flux > np.roll(flux, 1)) & (flux >= np.roll(flux, -1))
        assert inner.sum() == 2
    for params in drawn("heartbeat", 10):
        if params["eccentricity"] > 0.6:  # away from the periastron, at phase 0, the star is quiet
            flux = VariableStar(params | {"phase": 0.0}).flux(params["period"] * np.arange(3000) / 3000)
            assert np.ptp(flux[1200:1800]) < 0.1 * np.ptp(flux)


# ---- outbursts ------------------------------------------------------------------------------------------------------


def test_a_flare_is_as_wide_as_its_width_at_half_height_says():
    x = np.linspace(-2, 40, 420_001)
    flare = eruptive.flare_template(x)
    assert flare.max() == pytest.approx(1, abs=0.01)
    half = x[flare > 0.5 * flare.max()]
    assert np.ptp(half) == pytest.approx(0.913, abs=0.002)  # what the published coefficients give for a width of 1
    assert flare[x < -1].max() == 0 and flare[x > 30].max() < 1e-3 and np.argmax(flare) == pytest.approx(20000, abs=5)


def test_flares_are_as_many_as_large_and_as_wide_as_published():
    """Guenther et al. 2020: 7 flares a star in 54 d; quantiles of amplitude and width of 8695 flares."""
    rng = np.random.default_rng(4)
    stars = [subclasses()["flare"].draw(rng) for _ in range(1500)]
    found = [eruptive.flares_between(p, 0.0, 53.9) for p in stars]
    n = np.array([len(f) for f in found]) / 6  # blocks of 10 d: 60 d
    assert np.median(n * 5.4) == pytest.approx(7, rel=0.15)
    every = np.concatenate(found)
    amplitude, width = every[:, 2] / subclasses()["flare"].factor, every[:, 1]
    published = {"amplitude": (amplitude, (0.0043, 0.013, 0.032, 0.088, 0.40)),
                 "width": (width, (0.0010, 0.0025, 0.0046, 0.0090, 0.027))}
    for name, (values, wanted) in published.items():
        ratio = np.quantile(values, (0.05, 0.25, 0.5, 0.75, 0.95)) / wanted
        assert np.abs(np.log10(ratio)).max() < 0.2, name  # a log-normal for a distribution that is none


def test_the_factor_of_flares_is_that_of_blackbodies():
    def planck(micron, kelvin):
        return 1 / np.expm1(14387.77 / micron / kelvin)  # over a power of the wavelength, which drops out

    contrast = [planck(band, 10000) / planck(band, 3200) for band in (1.46, 0.8)]
    assert subclasses()["flare"].factor == pytest.approx(contrast[0] / contrast[1], rel=0.02)


def test_a_dwarf_nova_rises_fast_stays_and_decays_exponentially():
    t = np.linspace(-1, 12, 13001)
    magnitude = eruptive.outburst_magnitudes(t, 3.0, 10.0)
    assert magnitude.max() == pytest.approx(3.0, abs=0.35)
    assert magnitude[t < 0].max() == 0 and magnitude[t > 10].max() == 0
    half = t[magnitude > 1.5]
    assert half[0] < 1.0 and 7 < np.ptp(half) < 8.5  # the rise takes about a day
    decay = (t > 7.5) & (t < 9.5)
    slope = np.gradient(magnitude[decay], t[decay])
    assert np.ptp(slope) < 0.15 * abs(slope.mean())  # a straight line in magnitudes: exponential in flux
    assert slope.mean() == pytest.approx(-3.0 / 4.0, rel=0.1)


def test_dwarf_novae_recur_and_some_outbursts_are_super_outbursts():
    params = drawn("dwarf_nova")[0] | {"period": 40.0, "duration": 6.0, "amplitude": 2.0}
    t = np.arange(0, 8000, 0.05)
    for share, longest in ((0.0, 6.0), (1.0, 12.0)):
        on = VariableStar(params | {"super_share": share}).flux(t) > 1
        starts = np.flatnonzero(np.diff(on.astype(int)) == 1)
        assert len(starts) == pytest.approx(200, abs=5)
        lengths = [np.argmin(on[s + 1 :]) * 0.05 for s in starts[:-1]]
        assert np.median(lengths) == pytest.approx(longest, rel=0.1)
        recurrence = np.diff(t[starts])
        assert recurrence.mean() == pytest.approx(40, rel=0.03) and 0.1 < recurrence.std() / 40 < 0.4


def test_spots_and_long_periods_change_from_turn_to_turn():
    for name, scale in (("spotted", "duration"), ("semiregular", "period")):
        changed = []
        for params in drawn(name, 10):
            n = round(40 * params[scale] / params["period"]) + 1
            t = params["period"] * (np.arange(200) / 200)
            first, later = (VariableStar(params).flux(t + k * params["period"]) for k in (0, n))
            changed.append(np.std(first - later) / np.std(first))
        assert np.median(changed) > 0.2, name


# ---- OGLE -----------------------------------------------------------------------------------------------------------

KINDS = {"rr_lyrae_ab": "RRab", "rr_lyrae_c": "RRc", "osarg": "OSARG", "semiregular": "SRV", "mira": "Mira"}
COLUMNS = {"period": "P_1", "R_21": "R21_1", "phi_21": "phi21_1", "R_31": "R31_1", "phi_31": "phi31_1",
           "period_2": "P_2", "period_3": "P_3"}


@needs_ogle
@pytest.mark.parametrize("name", KINDS)
def test_distributions_are_those_of_ogle(name):
    """Largest distance of the cumulative distributions. Of n stars it scatters by about 1/sqrt(n) (95 %: 1.36/sqrt(n));
    .1 more is the price of a few straight lines for a distribution.
    """
    table = pd.read_csv(OGLE / "ogle_roman_field_variables.csv.gz")
    table = table[table["Subtype"] == KINDS[name]]
    ours = pd.DataFrame(drawn(name, 3000, 5))
    theirs = {ours_name: table[column] for ours_name, column in COLUMNS.items()}
    theirs["amplitude"] = table["A_1"] * subclasses()[name].factor
    theirs |= {f"ratio_{k}": table[f"A_{k}"] / table["A_1"] for k in (2, 3)}
    compared = 0
    for parameter, values in theirs.items():
        values, mine = values.dropna(), ours[parameter].dropna()
        if name == "rr_lyrae_c" and parameter.startswith(("R_", "phi_")):
            values = values[values > 0]  # 0 stands for a harmonic that was not found
        if len(values) and len(mine):
            distance = ks_2samp(values, mine % (2 * np.pi) if parameter == "phi_31" else mine).statistic
            assert distance < 0.1 + 1.36 / np.sqrt(len(values)), (parameter, distance)
            compared += 1
    assert compared >= 6


@needs_ogle
def test_relations_between_the_parameters_of_rr_lyrae_stars_are_those_of_ogle():
    """Rank correlations, whose standard error is .09 for 128 stars."""
    table = pd.read_csv(OGLE / "ogle_roman_field_variables.csv.gz")
    table, ours = table[table["Subtype"] == "RRab"], pd.DataFrame(drawn("rr_lyrae_ab", 3000, 6))
    for a, b in (("period", "amplitude"), ("period", "phi_31"), ("phi_21", "phi_31"), ("R_21", "R_31")):
        x, y = (table[COLUMNS.get(name, "A_1")] for name in (a, b))
        assert ours[a].corr(ours[b], "spearman") == pytest.approx(x.corr(y, "spearman"), abs=0.25), (a, b)


@needs_ogle
def test_distributions_of_dwarf_novae_are_those_of_ogle():
    magnitude, per_year, days = np.loadtxt(OGLE / "ogle4_dwarf_novae.txt", usecols=(2, 3, 4)).T
    ours, factor = pd.DataFrame(drawn("dwarf_nova", 3000, 7)), subclasses()["dwarf_nova"].factor
    recurring = 365.25 / per_year[per_year > 0]
    for parameter, theirs in (("amplitude", magnitude * factor), ("duration", days), ("period", recurring)):
        assert ks_2samp(theirs, ours[parameter]).statistic < 0.1, parameter


def folded_residual(name, subclass, n_bins=40):
    """Standard deviation (mag) of an OGLE light curve, averaged in bins of the phase, about the curve of its catalogue
    entry, at the best phase; and that of the averages themselves.
    """
    table = pd.read_csv(OGLE / "ogle_roman_field_variables.csv.gz").set_index("ID")
    t, magnitude = np.loadtxt(OGLE / f"{name}.dat", usecols=(0, 1)).T
    entry = table.loc[name]
    params = drawn(subclass)[0] | {"phase": 0.0, "period": entry["P_1"], "amplitude": entry["A_1"],
                                   "R_21": entry["R21_1"], "phi_21": entry["phi21_1"], "R_31": entry["R31_1"],
                                   "phi_31": entry["phi31_1"]}
    which = ((t / entry["P_1"]) % 1 * n_bins).astype(int)
    mean = np.array([np.median(magnitude[which == k]) for k in range(n_bins)])
    best = np.inf
    for shift in np.arange(200) / 200:
        model = -2.5 * np.log10(VariableStar(params).flux(((np.arange(n_bins) + 0.5) / n_bins + shift) * entry["P_1"]))
        best = min(best, np.std(mean - model))
    return best, np.std(mean)


@needs_ogle
@pytest.mark.parametrize(("name", "subclass"), [("OGLE-BLG-RRLYR-03350", "rr_lyrae_ab"),
                                                ("OGLE-BLG-T2CEP-078", "cepheid_2")])
def test_a_pulsating_star_of_ogle_has_the_shape_of_its_catalogue_entry(name, subclass):
    left, whole = folded_residual(name, subclass)
    assert left < 0.15 * whole  # 98 % of the variance


@needs_ogle
@pytest.mark.parametrize(("number", "subclass"), [("048013", "semiregular"), ("048338", "mira"), ("048414", "osarg")])
def test_long_period_variables_of_ogle_vary_as_much_as_their_catalogue_entries(number, subclass):
    """Standard deviation of eight years: it is among those of forty realisations of the same periods and amplitudes."""
    name = f"OGLE-BLG-LPV-{number}"
    entry = pd.read_csv(OGLE / "ogle_roman_field_variables.csv.gz").set_index("ID").loc[name]
    t, magnitude = np.loadtxt(OGLE / f"{name}.dat", usecols=(0, 1)).T
    fixed = {"period": entry["P_1"], "amplitude": entry["A_1"], "period_2": entry["P_2"], "period_3": entry["P_3"],
             "ratio_2": entry["A_2"] / entry["A_1"], "ratio_3": entry["A_3"] / entry["A_1"]}
    spread = [np.std(-2.5 * np.log10(VariableStar(params | fixed).flux(t))) for params in drawn(subclass, 40, 8)]
    assert min(spread) < np.std(magnitude) < max(spread)
