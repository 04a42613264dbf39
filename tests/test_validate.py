"""Long checks against converged references (make validate): contours of the lens library at 1e-5."""

import numpy as np
import pytest

from microlens import magnification as mg
from microlens.population import draw, load_preset

pytestmark = pytest.mark.validate
T = np.arange(6912) / 96
EVERY = 3  # epochs compared


def errors(events):
    """Largest relative error of each event against the converged curve."""
    out = []
    for e in events:
        exact = mg.binary(T[::EVERY], method="exact", tolerance=1e-5, **e)
        out.append(np.abs(mg.binary(T, **e)[::EVERY] / exact - 1).max())
    return np.array(out)


def lens(preset, rng):
    return {k: v for k, v in draw(preset, "binary", rng, 72.0).items() if k not in ("f_s", "m_base")}


def test_events_of_the_prior():
    rng, preset = np.random.default_rng(11), load_preset("baseline")
    e = errors([lens(preset, rng) for _ in range(300)])
    print(f"largest relative error: median {np.median(e):.1e}, p99 {np.percentile(e, 99):.1e}, max {e.max():.1e}, n = {len(e)}")
    assert np.percentile(e, 99) < 1e-3 and e.max() < 2e-3


def test_events_aimed_at_planetary_caustics():
    rng, events = np.random.default_rng(12), []
    for _ in range(300):
        s, q, rho = 10 ** rng.uniform(-0.3, 0.3), 10 ** rng.uniform(-5, -3), 10 ** rng.uniform(-4, np.log10(3e-3))
        curves = mg.caustics(s, q)
        points = curves[rng.integers(len(curves))]
        x, y = points[rng.integers(len(points))] + rng.normal(size=2) * 2 * rho
        alpha = rng.uniform(0, 2 * np.pi)
        tau, u_0 = x * np.cos(alpha) + y * np.sin(alpha), y * np.cos(alpha) - x * np.sin(alpha)
        t_E = 10 ** rng.uniform(0.7, 1.5)
        events.append({"t_0": 36.0 - tau * t_E, "u_0": u_0, "t_E": t_E, "rho": rho, "s": s, "q": q, "alpha": alpha})
    e = errors(events)
    print(f"largest relative error: median {np.median(e):.1e}, p99 {np.percentile(e, 99):.1e}, max {e.max():.1e}, n = {len(e)}")
    assert e.max() < 1e-2
