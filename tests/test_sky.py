"""Truth: the published sigma tables (Penny+ 2019; McKinnon & van der Marel; RMDC26), and scipy's distributions."""

import numpy as np
import pytest
import yaml
from scipy import stats

from microlens import config, sky
from microlens.config import BINARY_PRESETS, NOISE_PRESETS, Noise, SimulateConfig
from microlens.data.simulation import season_epochs
from microlens.sky.population import FOLDER

M = [15, 18, 20, 21, 22, 24, 26]
TABLE = {"penny2019": [0.00113, 0.00230, 0.00544, 0.00896, 0.01570, 0.06434, 0.3595],
         "roman": [0.00112, 0.00227, 0.00537, 0.00885, 0.01559, 0.06473, 0.3638],
         "crowded": [0.00110, 0.00216, 0.00569, 0.0108, 0.0229, 0.128, 0.788]}

# ---- noise ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("detector", TABLE)
def test_sigma_table(detector):
    assert sky.sigma_mag(M, detector) == pytest.approx(TABLE[detector], rel=0.01)


@pytest.mark.parametrize("detector", [*TABLE, "thesis"])
def test_noise_of_flux_and_of_magnitude_are_one(detector):
    m_base, flux = 21.0, np.array([0.5, 1.0, 30.0])
    sigma = sky.MAG_PER_RELATIVE_FLUX * sky.sigma_flux(flux, m_base, detector) / flux
    assert sigma == pytest.approx(sky.sigma_mag(m_base - 2.5 * np.log10(flux), detector), rel=1e-9)


def test_every_detector_of_the_configuration_is_there_and_another_is_named():
    assert set(config.DETECTORS) == {*sky.DETECTORS, "thesis"}
    with pytest.raises(ValueError, match="'hubble' is unknown; choose one of penny2019, roman, crowded, thesis"):
        sky.sigma_mag(20.0, "hubble")


def test_a_measured_flux_of_zero_is_not_a_lost_epoch():
    noise, rng = Noise(noise_scale=1e-300), np.random.default_rng(0)
    flux, _ = sky.observe(np.zeros(1000), 20.0, np.arange(1000.0), rng, noise)
    assert ((flux == 0).mean(), (flux > 0).mean()) == (pytest.approx(0.05, abs=0.03), pytest.approx(0.95, abs=0.03))


# ---- season ---------------------------------------------------------------------------------------------------------


def test_schedules(monkeypatch):
    monkeypatch.setattr(sky.season, "COLOUR_VISIT", 10**9)  # none in a season
    assert len(sky.epochs("thesis")) == 6912 and sky.season_length(sky.epochs("thesis")) == 72.0
    for seed in range(20):  # RMDC26: 8181 to 8185 visits, seven pauses of 6.1 to 6.3 h, three fixed
        t = sky.epochs("roman", seed)
        gaps = np.diff(t)
        pauses = np.flatnonzero(gaps > 0.1)
        assert 8181 <= len(t) <= 8185 and len(pauses) == 7
        assert (np.abs(24 * gaps[pauses] - 6.2) < 0.1).all()
        assert 24 * gaps[pauses].sum() == pytest.approx(43.5, abs=0.5)
        assert all(np.abs(t[pauses] - start).min() < 0.02 for start in (0.99, 35.24, 69.49))
    with pytest.raises(ValueError, match="schedule 'hst' is unknown; choose one of thesis, roman"):
        sky.epochs("hst")


def test_colour_visits_take_one_epoch_in_thirty(monkeypatch):
    for seed in range(5):
        seen = sky.epochs("roman", seed)
        with monkeypatch.context() as patched:
            patched.setattr(sky.season, "COLOUR_VISIT", 10**9)
            visits = sky.epochs("roman", seed)
        lost = np.setdiff1d(visits, seen)
        assert np.isin(seen, visits).all() and len(lost) == pytest.approx(8182 / 30, abs=3)
        step = np.diff(lost) * 1440 / 12.139
        assert np.abs(step / 30 - np.rint(step / 30)).max() < 1e-6


def test_the_schedule_is_the_presets_unless_given(tmp_path):
    (tmp_path / "mine.yaml").write_text((FOLDER / "roman.yaml").read_text())
    for schedule, expected in {None: 7910, "thesis": 6912}.items():
        for preset in ("roman", str(tmp_path / "mine.yaml")):
            assert len(season_epochs(SimulateConfig(binary_preset=preset, schedule=schedule))) == expected
    assert len(season_epochs(SimulateConfig(binary_preset="baseline"))) == 6912


# ---- population -----------------------------------------------------------------------------------------------------


def test_every_preset_of_the_configuration_has_a_file():
    assert sorted((*BINARY_PRESETS, *NOISE_PRESETS)) == sorted(path.stem for path in FOLDER.glob("*.yaml"))


def distribution(entry):
    """scipy's distribution of a preset file's entry."""
    if "uniform" in entry:
        low, high = entry["uniform"]
        return stats.uniform(low, high - low).cdf
    if "log_uniform" in entry:
        return stats.loguniform(*entry["log_uniform"]).cdf
    mean, sigma = entry["log_normal"]
    low, high = (np.log10(entry["within"]) - mean) / sigma
    return lambda x: stats.truncnorm(low, high, mean, sigma).cdf(np.log10(x))


@pytest.mark.parametrize("name", BINARY_PRESETS)
def test_every_prior_is_what_its_file_says(name):
    preset, rng = sky.load_preset(name), np.random.default_rng(15)
    draws = [sky.draw(preset, "binary", rng, season=1.0) for _ in range(2000)]
    for parameter, entry in yaml.safe_load((FOLDER / f"{name}.yaml").read_text())["parameters"].items():
        x = np.array([np.hypot(d["pi_EN"], d["pi_EE"]) if parameter == "pi_E" else d[parameter] for d in draws])
        if "constant" in entry:
            assert (x == entry["constant"]).all()
        else:  # of all right samplers of the presets, all have a p value above 1e-4 with a probability of 0.995
            assert stats.kstest(x, distribution(entry)).pvalue > 1e-4, parameter


def test_parallax_points_everywhere_and_thesis_presets_have_none():
    rng = np.random.default_rng(3)
    draws = [sky.draw(sky.load_preset("roman"), "pspl", rng, season=1.0) for _ in range(1000)]
    direction = np.arctan2([d["pi_EE"] for d in draws], [d["pi_EN"] for d in draws])
    assert stats.kstest(direction, "uniform", (-np.pi, 2 * np.pi)).pvalue > 1e-4
    thesis = [sky.draw(sky.load_preset(name), "binary", rng, season=1.0) for name in BINARY_PRESETS
              if name not in ("roman", "sky")]
    assert all(d["pi_EN"] == d["pi_EE"] == 0 for d in thesis)


def test_preset_sky_has_the_lenses_of_roman_under_more_noise():
    ours, theirs = sky.load_preset("sky"), sky.load_preset("roman")
    assert (ours.priors, ours.schedule, ours.field) == (theirs.priors, theirs.schedule, theirs.field)
    assert set(ours.noise) == {"correlated", "dither", "non_linearity", "persistence", "outliers", "error_scale"}
    assert not theirs.noise


def test_second_sources_have_the_stated_share_and_are_fainter():
    rng, preset = np.random.default_rng(4), sky.load_preset("roman")
    draws = [sky.draw(preset, "pspl", rng, 70.0, two_sources=0.3) for _ in range(1000)]
    second = [d for d in draws if d["q_F"] > 0]
    assert len(second) == pytest.approx(300, abs=60)
    apart = [np.hypot((d["t_0_2"] - d["t_0"]) / d["t_E"], d["u_0_2"] - d["u_0"]) for d in second]
    assert 0.05 <= min(apart) and max(apart) <= 2.0 and max(d["q_F"] for d in second) <= 1
    assert all(np.isnan(d["t_0_2"]) for d in draws if d["q_F"] == 0)
    assert not any(sky.draw(preset, "pspl", rng, 70.0)["q_F"] for _ in range(100))


@pytest.mark.parametrize(("field", "message"), [({"ra": 400.0}, "expected degrees"), ({"right": 1}, "expected some of"),
                                                ("bulge", "expected some of"), ({"dec": "low"}, "finite number")])
def test_an_impossible_field_is_one_clear_error(tmp_path, field, message):
    entry = yaml.safe_load((FOLDER / "roman.yaml").read_text()) | {"field": field}
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(entry))
    with pytest.raises(ValueError, match=message):
        sky.load_preset(tmp_path / "x.yaml")


BASELINE = yaml.safe_load((FOLDER / "baseline.yaml").read_text())


def preset_file(folder, **changes):
    """The preset `baseline` in a file of its own, with some of its fields changed."""
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(BASELINE | changes))
    return path


def test_numbers_of_a_preset_may_be_written_as_people_do(tmp_path):
    path = tmp_path / "mine.yaml"
    text = (FOLDER / "baseline.yaml").read_text().replace("[1.0e-4, 1.0]", "[1e-4, 1e-2]")
    path.write_text(text.replace("{constant: 1.0}", "{constant: 1e0}"))
    preset = sky.load_preset(path)
    assert (preset.priors["q"].low, preset.priors["q"].high, preset.priors["f_s"].low) == (1e-4, 1e-2, 1.0)


BAD_PRIORS = {
    "one number for a range": ({"uniform": 0.5}, "uniform came 0.5, expected 2 finite number"),
    "three numbers": ({"uniform": [0.1, 0.2, 0.3]}, "expected 2 finite number"),
    "text": ({"uniform": ["a", "b"]}, r"uniform came \['a', 'b'\]"),
    "true and false": ({"uniform": [False, True]}, "expected 2 finite number"),
    "NaN": ({"uniform": [0.1, float("nan")]}, "expected 2 finite number"),
    "infinity": ({"log_uniform": [0.1, float("inf")]}, "expected 2 finite number"),
    "a number beyond all": ({"uniform": [0.1, 10**400]}, "expected 2 finite number"),
    "two numbers for a constant": ({"constant": [1, 2]}, "constant came"),
    "no kind": ({}, "expected one of uniform, log_uniform, normal, log_normal, constant"),
    "a bare number": (0.5, "came 0.5, expected one of"),
    "a list": ([0.1, 0.5], "expected one of"),
    "nothing": (None, "came None, expected one of"),
    "an unknown kind": ({"gaussian": [0, 1]}, "expected one of"),
    "two kinds": ({"uniform": [0.1, 0.2], "constant": 0.1}, "expected one of"),
    "a word too many": ({"uniform": [0.1, 0.2], "unit": "d"}, "expected one of"),
    "an empty range": ({"uniform": [0.5, 0.5]}, "the range 0.5 to 0.5 is empty"),
    "a range backwards": ({"uniform": [0.9, 0.1]}, "the range 0.9 to 0.1 is empty"),
    "below the bound": ({"uniform": [-1, 1]}, "from -1 is below its bound 0"),
    "above the bound": ({"uniform": [0, 11]}, "to 11 is above its bound 10"),
    "a log range from 0": ({"log_uniform": [0, 1]}, "needs a lower bound above 0, came 0"),
    "within without log_normal": ({"uniform": [0, 1], "within": [0, 1]},
                                  "within belongs to normal and log_normal alone"),
    "log_normal without within": ({"log_normal": [0, 1]}, "log_normal needs"),
    "log_normal without width": ({"log_normal": [0, 0], "within": [0.1, 1]}, "sigma > 0"),
    "log_normal from 0": ({"log_normal": [0, 1], "within": [0, 1]}, "holds less than 0.1%"),
    "log_normal far away": ({"log_normal": [-9, 0.1], "within": [0.1, 1]}, "holds less than 0.1%"),
    "log_normal in a slit": ({"log_normal": [0, 1], "within": [1, 1.0001]}, "holds less than 0.1%"),
}


@pytest.mark.parametrize(("entry", "message"), BAD_PRIORS.values(), ids=BAD_PRIORS)
def test_a_prior_that_is_none_is_one_line_with_file_and_parameter(tmp_path, entry, message):
    path = preset_file(tmp_path, parameters=BASELINE["parameters"] | {"u_0": entry})
    with pytest.raises(ValueError, match=message) as error:
        sky.load_preset(path)
    assert str(error.value).startswith(f"{path}: u_0") and "\n" not in str(error.value)


BAD_FIELDS = {
    "an unknown parameter": ({"parameters": {"v": {"constant": 1}}}, "unknown field v; a parameter is one of t_0, u_0"),
    "parameters without names": ({"parameters": {1: 2, "a": 3}}, "unknown field 1, a"),
    "a missing parameter": ({"parameters": {"u_0": {"constant": 1}}}, "no range for t_0, t_E, rho"),
    "no parameters": ({"parameters": None}, "expected a mapping with name, schedule"),
    "parameters in a list": ({"parameters": [1]}, "expected a mapping with name, schedule"),
    "an unknown field": ({"colour": "red"}, "unknown field colour"),
    "an unknown schedule": ({"schedule": "hst"}, "schedule came 'hst', expected one of thesis, roman"),
    "a schedule in a list": ({"schedule": ["roman"]}, "schedule came"),
    "a flag in words": ({"caustic_crossing": "perhaps"}, "caustic_crossing came 'perhaps', expected true or false"),
    "a flag as number": ({"finite_source": 1}, "finite_source came 1, expected true or false"),
}


@pytest.mark.parametrize(("fields", "message"), BAD_FIELDS.values(), ids=BAD_FIELDS)
def test_a_preset_that_is_none_is_one_line_with_its_file(tmp_path, fields, message):
    path = preset_file(tmp_path, **fields)
    with pytest.raises(ValueError, match=message) as error:
        sky.load_preset(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"a: [1", b"- 1\n- 2", b"\xff\xfe", b"just words"])
def test_a_preset_file_that_is_no_mapping_is_one_line(tmp_path, content):
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    with pytest.raises(ValueError) as error:
        sky.load_preset(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


def test_an_unknown_preset_names_those_that_there_are(tmp_path):
    for name in ("exotic", tmp_path):
        with pytest.raises(FileNotFoundError, match="neither one of distinct, planetary, stellar, baseline, roman"):
            sky.load_preset(name)
