"""What an observer can know of an event.

single_lens    the best PSPL or FSPL through a light curve, noisy or noise-free
running        the best single lens through the past of a growing light curve, block by block
labels         delta chi^2, the observable label, the moment of observability, windows of residuals
"""

from microlens.detectability.labels import (
    THRESHOLD_FLAT,
    THRESHOLD_PSPL,
    delta_chi2_flat,
    largest_window,
    observability,
    observable_label,
    prefix_delta_chi2,
)
from microlens.detectability.single_lens import SingleLensFit, fit_noise_free, fit_single_lens, single_lens_model

__all__ = ["THRESHOLD_FLAT", "THRESHOLD_PSPL", "SingleLensFit", "delta_chi2_flat", "fit_noise_free", "fit_single_lens",
           "largest_window", "observability", "observable_label", "prefix_delta_chi2", "single_lens_model"]
