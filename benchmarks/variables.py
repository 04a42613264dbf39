"""What there is to see of variable stars, and what the shipped networks call them: `python -m benchmarks.variables`.

The first table: for each sub-class of class other, the share of N stars that differs from a constant by delta chi^2 >
500 in a season, with the magnitudes and blends of the presets `baseline` and `roman`, and the processor time that a
curve takes. The second: of a dataset with as many stars of each sub-class, the share that each shipped network calls
binary, by the most probable class and at its threshold; intervals are Clopper-Pearson's at 95 %.
"""

import json
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.sky import changed_preset
from microlens import sky
from microlens.config import SUBCLASSES, THRESHOLD_FLAT, EvaluateConfig, SimulateConfig
from microlens.data import simulate, true_flux
from microlens.evaluate import evaluate
from microlens.fit import delta_chi2_flat
from microlens.network.runs import shipped_networks
from microlens.sky.variables import VariableStar, subclasses

N = 300  # stars of a sub-class in the first table
N_SCORED = 40  # of each in the second
FLATS = 20  # other events that an evaluation needs


def seen(name, preset):
    """Share of N stars of a sub-class that can be told from a constant, and milliseconds a curve."""
    rng, t, n, seconds = np.random.default_rng(1), sky.epochs(preset.schedule), 0, 0.0
    for _ in range(N):
        star = VariableStar(subclasses()[name].draw(rng))
        m_base, f_s = (preset.priors[p].draw(rng) for p in ("m_base", "f_s"))
        begun = time.process_time()
        flux = true_flux(star, np.nan, np.nan, f_s, t)
        seconds += time.process_time() - begun
        n += delta_chi2_flat(flux, sky.sigma_flux(flux, m_base))[-1] > THRESHOLD_FLAT
    return n / N, 1e3 * seconds / N


def scored(name, folder):
    """The scores of class other of a shipped network on a dataset of its own preset and cadence."""
    file = changed_preset(folder / f"{name}.yaml", name, {"other": dict.fromkeys(SUBCLASSES, 1)})
    data = simulate(SimulateConfig(n_flat=FLATS, n_pspl=0, n_binary=0, n_other=N_SCORED * len(SUBCLASSES),
                                   binary_preset=str(file), split="test", seed=5, output=str(folder / f"{name}.h5")))
    config = EvaluateConfig(experiment_name=name, data=str(data), early_detection=False, baselines=False,
                            output=str(folder / name))
    return json.loads((evaluate(config) / "evaluation_summary.json").read_text())["other"]


if __name__ == "__main__":
    presets = [sky.load_preset(name) for name in ("baseline", "roman")]
    print(f"sub-class, stars a square degree, seen in {' and '.join(p.name for p in presets)}, ms a curve (n = {N})")
    for name, subclass in subclasses().items():
        shares = [seen(name, preset) for preset in presets]
        print(f"{name:24s} {subclass.per_deg2:7.1f} {shares[0][0]:6.2f} {shares[1][0]:6.2f} {shares[1][1]:6.2f}")
    with tempfile.TemporaryDirectory() as place:
        for name in shipped_networks():
            other = scored(name, Path(place))
            print(f"\nnetwork {name}: observable, called binary, called binary at its threshold")
            for kind, of in [("all", other), *other["by_subclass"].items()]:
                low, high = of["false_alarms"]["interval_95"]
                print(f"{kind:24s} n = {of['n']:4d} {of['observable']['value']:6.2f} "
                      f"{of['most_probable_class']['binary']:6.2f} {of['false_alarms']['value']:6.2f} "
                      f"[{low:.2f}, {high:.2f}]")
