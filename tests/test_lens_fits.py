"""Lens models through light curves against the truth that they were made from, and their export to other programs."""

import json
import sys

import numpy as np
import pytest

from microlens import fit, lens
from microlens.fit.problem import BINARY, Problem
from microlens.fit.search import between, is_new, mirrored, normal_form
from microlens.fit.starts import wide_pair

T = np.arange(0.0, 72.0, 0.05)
SIGMA = 0.01
FINE = 0.001  # at which chi^2 is a parabola in the parallax, too
SINGLE = {"t_0": 31.0, "u_0": 0.2, "t_E": 14.0}
LARGE = {"t_0": 31.0, "u_0": 0.02, "t_E": 14.0, "rho": 0.05}
BENT = {"t_0": 31.0, "u_0": 0.3, "t_E": 40.0, "pi_EN": 0.3, "pi_EE": -0.2}
PAIR = {"t_0": 35.0, "u_0": 0.15, "t_E": 12.0, "rho": 0.01, "s": 1.1, "q": 0.2, "alpha": 1.0}

EXPORTED = pytest.mark.parametrize(("model", "truth", "field"), [
    ("FSPL", LARGE, None), ("PSPL", BENT, lens.ROMAN_FIELD), ("binary", PAIR, None)],
    ids=["FSPL", "parallax", "binary"])


def light_curve(truth, seed=0, f_s=0.6, sigma=SIGMA):
    """Epochs of an event with a share f_s of lensed light and errors of `sigma`."""
    parallax = lens.Parallax(truth["pi_EN"], truth["pi_EE"], truth["t_0"]) if "pi_EN" in truth else None
    if "s" in truth:
        magnification = lens.binary(T, **truth)
    else:
        magnification = lens.fspl(T, truth["t_0"], truth["u_0"], truth["t_E"], truth.get("rho", 0.0), parallax=parallax)
    flux = 1 + f_s * (magnification - 1) + sigma * np.random.default_rng(seed).normal(size=len(T))
    return T, flux, np.full(len(T), sigma)


def off_by(solution, truth, names=None):
    """Distance of each parameter from the truth, in standard errors."""
    return np.array([(solution.parameters[name] - truth[name]) / solution.errors[name] for name in names or truth])


@pytest.mark.parametrize(("model", "truth", "field"), [
    ("PSPL", SINGLE, None), ("FSPL", LARGE, None), ("PSPL", BENT, lens.ROMAN_FIELD)], ids=["PSPL", "FSPL", "parallax"])
def test_a_single_lens_and_its_errors(model, truth, field):
    """The truth within 4 standard errors in 8 repeats, and the scatter of repeats as large as the errors.

    With parallax the start states t_0,par, on which t_E and the parallax depend.
    """
    off, names = [], [name for name in truth if name != "u_0" or model != "FSPL"]  # u_0 < rho: far from a parabola
    for seed in range(8):
        curve = light_curve(truth, seed, sigma=SIGMA if field is None else FINE)
        found = fit.fit_light_curve(*curve, model, field, start=None if field is None else truth)
        assert abs(found.best.chi2 - len(T)) < 4 * np.sqrt(2 * len(T))
        assert found.residual() @ found.residual() == pytest.approx(found.best.chi2, rel=1e-6)
        off.append(off_by(found.best, truth, names))
    assert np.abs(off).max() < 4
    assert 0.6 < np.sqrt(np.mean(np.square(off))) < 1.5


@pytest.mark.parametrize(("factor", "describes"), [(1.0, True), (0.87, False)])
def test_a_fit_says_whether_it_describes_the_light_curve(factor, describes):
    """chi^2 of a wrong binary lens was up to 1.16 an epoch without a word: 9 of its standard deviations in a season."""
    time, flux, sigma = light_curve(SINGLE)
    best = fit.fit_light_curve(time, flux, factor * sigma).best
    assert best.describes is describes and best.chi2 / best.n < 1.35


def test_parallax_lists_both_sides_of_the_lens():
    found = fit.fit_light_curve(*light_curve(BENT), "PSPL", lens.ROMAN_FIELD)
    assert sorted(np.sign(solution.parameters["u_0"]) for solution in found.solutions) == [-1, 1]


def test_fluxes_and_epochs_that_were_not_observed():
    t, flux, sigma = light_curve(SINGLE)
    flux[::7], flux[3] = 0.0, np.nan
    found = fit.fit_light_curve(t[::-1], 1e3 * flux[::-1], 1e3 * sigma[::-1])
    assert found.best.n == len(found.time) == np.count_nonzero(np.nan_to_num(flux))
    assert (np.diff(found.time) > 0).all()
    for name, truth in (("f_source", 600), ("f_blend", 400)):
        assert abs(found.best.fluxes[name] - truth) < 4 * found.best.flux_errors[name]


def test_a_binary_lens_from_a_start_with_progress():
    """From values some per cent off: the truth within 3 standard errors, and a twin where there is one, by chi^2."""
    words = []
    near = PAIR | {"s": 1.11, "q": 0.21, "alpha": 1.01, "t_0": 35.05}
    found = fit.fit_light_curve(*light_curve(PAIR), "binary", start=near, progress=lambda *said: words.append(said))
    assert np.abs(off_by(found.best, PAIR, ("t_0", "u_0", "t_E", "s", "q", "alpha"))).max() < 3.5
    assert [s.chi2 for s in found.solutions] == sorted(s.chi2 for s in found.solutions)
    assert words[-1] == (1.0, "done") and all(0 <= share <= 1 for share, _ in words)


def test_the_planet_on_the_other_side_of_the_image_is_found():
    """From a planet inside of the image that it perturbs to the true one outside of it; both are listed."""
    truth = {"t_0": 35.0, "u_0": 0.17, "t_E": 16.0, "rho": 0.002, "s": 1.2, "q": 1e-3, "alpha": 4.48}
    found = fit.fit_light_curve(*light_curve(truth), "binary", start=truth | {"s": 0.992})
    assert np.abs(off_by(found.best, truth, ("s", "q"))).max() < 3.5
    assert any(abs(solution.parameters["s"] - 0.992) < 0.02 for solution in found.solutions)


def test_cancelling(monkeypatch):
    """Before there is a solution it is an error; afterwards what was found is returned and says so."""
    curve = light_curve(PAIR)
    with pytest.raises(fit.FitCancelled):
        fit.fit_light_curve(*curve, "binary", cancel=lambda: True)

    def one_minimum(problem, start, progress):
        x = problem.coordinates(start)
        yield x, problem.chi2(x)
        raise fit.FitCancelled

    monkeypatch.setattr("microlens.fit.light_curve.binary_minima", one_minimum)
    found = fit.fit_light_curve(*curve, "binary", start=PAIR)
    assert found.cancelled and len(found.solutions) == 1


@pytest.mark.parametrize(("change", "expected"), [
    ({"model": "triple"}, "model 'triple' is unknown"), ({"flux": T[:5]}, "expected one shape"),
    ({"flux_err": np.where(T == T[4], -1.0, SIGMA)}, "no error above 0"),
    ({"flux": np.zeros(len(T))}, "0 observed epochs"),
    ({"flux": np.ones(len(T))}, "nothing to fit"), ({"limb_darkening": 2.0}, "limb_darkening = 2.0"),
    ({"model": "binary", "start": {"t_0": 3.0}}, "start lacks u_0"),
    ({"model": "binary", "start": PAIR | {"q": -1.0}}, "q = -1.0"),
    ({"model": "binary", "start": PAIR | {"s": 0.1}}, "a fit keeps it from 0.15 to 12"),
    ({"model": "binary", "start": PAIR | {"s": np.nan}}, "not finite")])
def test_input_that_is_none(change, expected):
    given = dict(zip(("time", "flux", "flux_err"), light_curve(SINGLE), strict=True)) | change
    with pytest.raises(ValueError, match=expected):
        fit.fit_light_curve(**given)


def test_the_normal_form_of_a_lens_has_the_same_light_curve():
    swapped = PAIR | {"q": 5.0, "u_0": -0.15}
    normal = normal_form(swapped, with_parallax=False)
    assert normal["q"] == pytest.approx(0.2) and normal["u_0"] > 0
    for other in (normal, mirrored(swapped)):
        assert lens.binary(T, **other) == pytest.approx(lens.binary(T, **swapped), rel=2e-3)


def nearest(found, truth):
    """The listed solution whose s is nearest to the truth, and the larger of its relative errors of s and q."""
    errors = [max(abs(solution.parameters[name] / truth[name] - 1) for name in ("s", "q"))
              for solution in found.solutions]
    return found.solutions[int(np.argmin(errors))], min(errors)


@pytest.mark.parametrize("step", [4, pytest.param(2, marks=pytest.mark.validate)])
def test_a_search_finds_a_pair_of_stars_between_false_minima(step):
    epochs = [values[::step] for values in light_curve(PAIR, f_s=1.0, sigma=0.02)]
    solution, error = nearest(fit.fit_light_curve(*epochs, "binary"), PAIR)
    assert error < 0.03 and solution.chi2 < len(epochs[0]) + 6 * np.sqrt(2 * len(epochs[0]))
    assert solution.describes and not fit.fit_light_curve(*epochs, "PSPL").best.describes


@pytest.mark.validate
def test_a_search_finds_a_planet_although_parallax_bends_the_path():
    planet = {"t_0": 45.7, "u_0": 0.115, "t_E": 35.0, "rho": 5e-3, "s": 0.75, "q": 3e-3, "alpha": 1.77}
    bent = lens.Parallax(-0.3, 0.4, 45.7)
    flux = lens.binary(T, **planet, parallax=bent) + 0.01 * np.random.default_rng(1).normal(size=len(T))
    found = fit.fit_light_curve(T, flux, np.full(len(T), 0.01), "binary", lens.ROMAN_FIELD)
    solution, error = nearest(found, planet)
    assert error < 0.2 and solution.chi2 < len(T) + 6 * np.sqrt(2 * len(T))


def test_between_two_minima_lies_their_middle():
    found = between([PAIR, PAIR | {"s": 1.21, "t_0": 35.2}, PAIR | {"s": 3.0}, PAIR | {"u_0": -0.15}])
    assert found == [pytest.approx(PAIR | {"s": np.sqrt(1.1 * 1.21), "t_0": 35.1})]
    (middle,) = between([PAIR | {"alpha": -0.1}, PAIR | {"alpha": 2 * np.pi - 0.3}])  # a turn apart
    assert middle["alpha"] % (2 * np.pi) == pytest.approx(2 * np.pi - 0.2)


def test_two_minima_are_one_where_no_ridge_parts_them():
    """Directions on either side of 0, which is a whole turn: the middle is at 0 and not half a turn away."""
    truth = PAIR | {"alpha": 0.0}
    problem = Problem(BINARY, *light_curve(truth, sigma=0.05))
    x, other = (problem.coordinates(truth | {"alpha": alpha}) for alpha in (0.03, 2 * np.pi - 0.03))
    chi2 = max(problem.chi2(x), problem.chi2(other))
    assert not is_new(problem, (x, chi2), [(other, chi2)])
    lower = problem.chi2(problem.coordinates(truth)) - 20
    assert is_new(problem, (x, lower), [(other, lower)])  # the middle is above both
    assert is_new(problem, (x, chi2), [(other, chi2 + 2)])


def test_two_single_lenses_make_a_wide_pair():
    """From the single lens of either star alone the descent reaches the truth."""
    truth = {"t_0": 30.0, "u_0": 0.4, "t_E": 12.0, "rho": 1e-3, "s": 3.6, "q": 0.4, "alpha": 0.25}
    t, flux, sigma = light_curve(truth)
    singles, share = [], truth["q"] / (1 + truth["q"])
    for place, mass in ((-share, 1 - share), (1 - share, share)):  # of the lens on the axis, in s, and its mass
        along, across = truth["s"] * place * np.array([np.cos(truth["alpha"]), -np.sin(truth["alpha"])])
        aside = (truth["u_0"] - across) / np.sqrt(mass)
        peak = truth["t_0"] + along * truth["t_E"]
        singles.append(fit.SingleLensFit(0.0, peak, abs(aside), truth["t_E"] * np.sqrt(mass), 0.0, 0.6, 0.4))
    problem = Problem(BINARY, t, flux, sigma)
    starts = [wide_pair(*singles, side) for side in (-1, 1)]
    assert min(problem.polished(problem.coordinates(start))[1] for start in starts) < len(T) + 4 * np.sqrt(2 * len(T))


def test_a_covariance_of_what_the_data_do_not_tell():
    """The radius of a source far from the lens cannot be measured: its error is large, the others' are not."""
    found = fit.fit_light_curve(*light_curve(SINGLE), "FSPL", start=SINGLE | {"rho": 1e-3}).best
    assert found.errors["rho"] > found.parameters["rho"]
    assert found.errors["t_0"] == pytest.approx(fit.fit_light_curve(*light_curve(SINGLE)).best.errors["t_0"], rel=0.2)


@EXPORTED
def test_mulensmodel_finds_the_same_chi2(tmp_path, monkeypatch, capsys, model, truth, field):
    pytest.importorskip("MulensModel", reason="MulensModel is not installed")
    found = fit.fit_light_curve(*light_curve(truth), model, field, start=truth)
    monkeypatch.chdir(tmp_path)
    fit.save_epochs(found, "light_curve.dat")
    exec(compile(fit.to_mulensmodel(found), "script.py", "exec"), {})
    assert float(capsys.readouterr().out.split("chi^2 =")[1].split()[0]) == pytest.approx(found.best.chi2, abs=0.8)


@EXPORTED
def test_microlens_submit_validates_a_solution(model, truth, field):
    """Its validator has nothing to say but warnings, which it gives for a time known to 1e-9 of a Julian date."""
    models = pytest.importorskip("microlens_submit.models.solution", reason="microlens-submit is not installed")
    found = fit.fit_light_curve(*light_curve(truth), model, field, start=truth)
    solution = models.Solution(solution_id="one", **json.loads(fit.to_microlens_submit(found)))
    assert [said for said in solution.run_validation() if not said.startswith("Warning")] == []
    assert solution.log_likelihood == pytest.approx(-0.5 * found.best.chi2)
    entries = [json.loads(fit.to_microlens_submit(found, solution)) for solution in found.solutions]
    assert sum(entry["relative_probability"] for entry in entries) == pytest.approx(1)


def test_a_markov_chain_agrees_with_the_covariance():
    pytest.importorskip("emcee", reason="emcee is not installed")
    found = fit.fit_light_curve(*light_curve(SINGLE))
    chain = fit.sample(found, n_steps=400)
    for name, (middle, below, above) in chain.summary().items():
        assert abs(middle - found.best.parameters[name]) < found.best.errors[name]
        assert 0.6 < 0.5 * (below + above) / found.best.errors[name] < 1.5
    assert chain.samples.shape == (len(chain.chi2), 3) and chain.chi2.min() > found.best.chi2 - 0.1


def test_without_emcee_the_error_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "emcee", None)
    with pytest.raises(ImportError, match="pip install emcee"):
        fit.sample(fit.fit_light_curve(*light_curve(SINGLE)))
