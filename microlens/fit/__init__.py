"""From a light curve to a model, and what an observer can know of an event.

kernels        the compiled least-squares fit that the other files share
points         light curves by fewer points
single_lens    the best PSPL or FSPL through a light curve, noisy or noise-free
running        the best single lens through the past of a growing light curve, block by block
covariance     the same for noise-free curves under correlated noise
observable     delta chi^2, the observable label, the moments of observability
residual       the residual to the best single lens, its features, and what thresholds of the literature see in it
problem        a lens model through a light curve as a problem of least squares
starts         where the descent to a binary lens begins
search         the minima of chi^2 of a binary lens
light_curve    PSPL, FSPL or a binary lens through one light curve, with errors and degenerate solutions
posterior      a short Markov chain about a solution
export         a solution for MulensModel and for microlens-submit
"""

from microlens.fit.covariance import Correlation
from microlens.fit.export import save_epochs, to_microlens_submit, to_mulensmodel
from microlens.fit.light_curve import LightCurveFit, Solution, fit_light_curve
from microlens.fit.observable import NEVER_OBSERVABLE, Observability, delta_chi2_flat, observability, observable_label
from microlens.fit.posterior import Chain, sample
from microlens.fit.problem import FitCancelled
from microlens.fit.residual import single_lens_residual, smooth_error
from microlens.fit.single_lens import SingleLensFit, fit_noise_free, fit_single_lens, single_lens_model

__all__ = [
    "NEVER_OBSERVABLE", "Chain", "Correlation", "FitCancelled", "LightCurveFit", "Observability", "SingleLensFit",
    "Solution", "delta_chi2_flat", "fit_light_curve", "fit_noise_free", "fit_single_lens", "observability",
    "observable_label", "sample", "save_epochs", "single_lens_model", "single_lens_residual", "smooth_error",
    "to_microlens_submit", "to_mulensmodel",
]
