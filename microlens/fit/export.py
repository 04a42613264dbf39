"""A solution in the words of other programs: a script for MulensModel, a solution for microlens-submit.

    save_epochs(fit, "light_curve.dat")
    text = to_mulensmodel(fit)                   # Python that prints the same chi^2
    text = to_microlens_submit(fit)              # JSON of microlens_submit.models.Solution

Both have t_0 and u_0 about the centre of mass, lengths in Einstein radii of the total mass, and dates as Julian dates
(this package counts days after the field's season_start where parallax is fitted). MulensModel's alpha is this
package's plus 180 degrees. microlens-submit takes alpha as it is, in radians.
"""

from __future__ import annotations

import json

import numpy as np

from microlens.fit.light_curve import LightCurveFit, Solution

DATA_FILE = "light_curve.dat"
ACCURACY = 1e-5  # asked of the binary lens in MulensModel
NEAR = 1.5  # source radii from the lens within which its Witt & Mao is the better one, beyond which the approximation
BAND = "0"  # microlens-submit numbers the bands; this one is the only one
SUBMIT_NAMES = {"t_0": "t0", "u_0": "u0", "t_E": "tE", "pi_EN": "piEN", "pi_EE": "piEE", "f_source": f"F{BAND}_S",
                "f_blend": f"F{BAND}_B"}
MULENSMODEL_NAMES = {"pi_EN": "pi_E_N", "pi_EE": "pi_E_E"}

MULENSMODEL_SCRIPT = '''"""{model}, fitted by microlens: chi^2 = {chi2:.2f} for {n} epochs.

t_0 and u_0 are those of the path about the centre of mass; alpha (degrees) is that of microlens plus 180.
"""

import MulensModel

data = MulensModel.MulensData(file_name="{data_file}", phot_fmt="flux")
model = MulensModel.Model({parameters}{coords})
{methods}
event = MulensModel.Event(datasets=data, model=model)
print("chi^2 =", event.get_chi2())
print("f_source, f_blend =", event.fluxes)
'''


def time_zero(solution: Solution) -> float:
    """The Julian date of time 0 of a solution with parallax; 0 without, whose times stay as they are."""
    return solution.parallax.field.season_start if solution.parallax else 0.0


def save_epochs(fit: LightCurveFit, path, solution: Solution | None = None) -> None:
    """Write the epochs of a fit as lines of time, flux and error, which the script for MulensModel reads."""
    time = fit.time + time_zero(solution or fit.best)
    np.savetxt(path, np.column_stack([time, fit.flux, fit.flux_err]), fmt=("%.9f", "%.12g", "%.12g"))


def to_mulensmodel(fit: LightCurveFit, solution: Solution | None = None, data_file: str = DATA_FILE) -> str:
    """A Python script in which MulensModel computes chi^2 of a solution, the best if none is given.

    data_file : where save_epochs has written the epochs.
    """
    solution = solution or fit.best
    zero, given = time_zero(solution), dict(solution.parameters)
    given["t_0"] += zero
    if "alpha" in given:
        given["alpha"] = float(np.degrees(given["alpha"]) + 180) % 360
    coords = ""
    if solution.parallax is not None:
        given["t_0_par"] = solution.parallax.t_0_par + zero
        field = solution.parallax.field
        coords = f', coords="{field.ra / 15:.8f}h {field.dec:+.8f}d"'
    named = {MULENSMODEL_NAMES.get(name, name): value for name, value in given.items()}
    lines = ",\n".join(f"    {name!r}: {value!r}" for name, value in named.items())
    return MULENSMODEL_SCRIPT.format(model=solution.model, chi2=solution.chi2, n=solution.n, data_file=data_file,
                                     parameters="{\n" + lines + ",\n}", coords=coords,
                                     methods="\n".join(_methods(solution, fit.time + zero)))


def _methods(solution: Solution, time) -> list[str]:
    """Lines of the script that say how MulensModel computes the magnification of a finite source."""
    if "rho" not in solution.parameters:
        return []
    first, last = f"{time[0] - 1:.3f}", f"{time[-1] + 1:.3f}"
    if solution.model == "binary":
        accuracy = f'{{"accuracy": {ACCURACY}, "relative_accuracy": {ACCURACY}}}'
        lines = [f'model.set_magnification_methods([{first}, "VBM", {last}])',
                 f'model.set_magnification_methods_parameters({{"VBM": {accuracy}}})']
    else:
        is_dark = solution.limb_darkening > 0
        near = f'"finite_source_{"LD" if is_dark else "uniform"}_WittMao94"'
        far = '"finite_source_LD_Yoo04"' if is_dark else '"finite_source_uniform_Gould94"'
        peak = time_zero(solution) + solution.parameters["t_0"]
        half = NEAR * solution.parameters["rho"] * solution.parameters["t_E"]
        spans = f"{first}, {far}, {peak - half:.6f}, {near}, {peak + half:.6f}, {far}, {last}"
        lines = [f"model.set_magnification_methods([{spans}])"]
    if solution.limb_darkening > 0:
        u = float(solution.limb_darkening)
        lines += [f'model.set_limb_coeff_u("I", {u!r})', 'data.bandpass = "I"']
    return lines


def to_microlens_submit(fit: LightCurveFit, solution: Solution | None = None, alias: str | None = None) -> str:
    """JSON of a solution, the best if none is given, for microlens_submit: the fields of its models.Solution.

    alias : the solution's name among those of its event.   The relative probability among the listed solutions is that
    of exp(-chi^2/2).
    """
    solution = solution or fit.best
    zero = time_zero(solution)
    values, errors = solution.parameters | solution.fluxes, solution.errors | solution.flux_errors
    named = {SUBMIT_NAMES.get(name, name): float(value) for name, value in values.items()}
    named["t0"] += zero
    known = {SUBMIT_NAMES.get(name, name): float(error) for name, error in errors.items() if np.isfinite(error)}
    effects = ["parallax"] * (solution.parallax is not None) + ["finite-source"] * ("rho" in values)
    weights = [np.exp(-0.5 * (other.chi2 - fit.best.chi2)) for other in fit.solutions]
    entry = {
        "alias": alias or solution.model,
        "model_type": "1S2L" if solution.model == "binary" else "1S1L",
        "bands": [BAND],
        "higher_order_effects": effects,
        "parameters": named,
        "parameter_uncertainties": known,
        "uncertainty_method": "fisher_matrix",
        "confidence_level": 0.68,
        "log_likelihood": -0.5 * solution.chi2,
        "relative_probability": float(np.exp(-0.5 * (solution.chi2 - fit.best.chi2)) / sum(weights)),
        "n_data_points": solution.n,
        "compute_info": {"wall_time_hours": fit.seconds / 3600},
    }
    if solution.parallax is not None:
        entry["t_ref"] = named["t_ref"] = solution.parallax.t_0_par + zero
    if solution.limb_darkening > 0:
        entry |= {"limb_darkening_model": "linear", "limb_darkening_coeffs": {BAND: [solution.limb_darkening]}}
    return json.dumps(entry, indent=2)
