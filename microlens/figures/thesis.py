"""All figures of the thesis, made anew from simulations, a trained run and an evaluation of it.

    made = thesis_figures("figures", evaluation="runs/quick/eval_test_20261127_120000")
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np

from microlens import lens, sky
from microlens.config import LENS_PRESETS, ClassifyConfig, EvaluateConfig
from microlens.data import open_dataset, quick_dataset
from microlens.evaluate import evaluate
from microlens.evaluate.light_curves import classify
from microlens.figures import inputs, populations
from microlens.figures.evaluation import draw_evaluation
from microlens.figures.light_curves import classified_light_curves
from microlens.figures.rows import sky_conditions, sky_others
from microlens.figures.scores import learning_curves
from microlens.figures.style import read_table, redraw, save
from microlens.figures.variables import variable_stars
from microlens.files import runs_dir
from microlens.network.runs import load_run

# The event and its baseline magnitude of the figure event_by_hand.
EVENT, EVENT_MAGNITUDE = {"t_0": 36.0, "u_0": 0.12, "t_E": 15.0, "rho": 0.003, "s": 1.1, "q": 0.05, "alpha": 1.0}, 21.0
SINGLE = {"t_0": 36.0, "u_0": 0.2, "t_E": 30.0}
PARALLAX = 0.1, 0.2  # pi_EN, pi_EE


def thesis_figures(output=None, experiment_name: str | None = None, evaluation=None, robustness=None,
                   light_curves=None, sky_table=None, files=(), n_compared: int = 60, n_flat: int = 200,
                   n_lensed: int = 100, seed: int = 1, formats=("png", "pdf")) -> list[Path]:
    """Draw every figure of the thesis into `output` (unset: figures/ in the runs folder); returns their paths.

    experiment_name : a shipped network or a part of a run's name.   evaluation : folder of a finished evaluation; unset
    means that a test set of n_flat flats and n_lensed events of each other class is simulated and evaluated here.
    robustness : folder of notebook 07's table.   light_curves : folder of an evaluation of light-curve files.
    sky_table : folder of the tables of `make sky`.
    files : light-curve files to classify and draw.
    n_compared : binaries of each preset in the figures that compare presets.   seed : of the simulations.
    formats : of the files, out of png, pdf and svg.
    """
    for given in (evaluation, robustness, light_curves, sky_table):
        if given and not Path(given).is_dir():
            raise FileNotFoundError(f"{given}: no such folder; `microlens evaluate`, notebook 07_robustness and `make "
                                    "sky` make them.")
    output = Path(output or runs_dir() / "figures")
    run = load_run(experiment_name)
    drawn = partial(save, output, formats=formats)
    made = _input_figures(drawn, n_compared, seed)
    made += drawn("learning_curves", *learning_curves(run.folder))
    if evaluation:
        made += redraw(evaluation, output, formats)
    else:
        test = quick_dataset(n_flat, n_lensed, n_lensed, seed=seed + 1)
        config = EvaluateConfig(experiment_name=experiment_name, data=str(test), n_evolution_per_type=1)
        made += draw_evaluation(evaluate(config), output, formats)
    for folder, name in ((robustness, "robustness"), (light_curves, "sets")):
        if folder:
            made += drawn(name, *read_table(Path(folder) / f"{name}.csv"))
    if sky_table:
        made += drawn("sky_conditions", *sky_conditions(Path(sky_table) / "conditions.csv"))
        made += drawn("sky_others", *sky_others(Path(sky_table) / "others.csv"))
    if files:
        answers, _ = classify(files, ClassifyConfig(), run)
        made += drawn("classified_light_curves", *classified_light_curves(answers, run.name))
    return made


def _input_figures(drawn, n_compared: int, seed: int) -> list[Path]:
    """Season, noise, variable stars, one event, presets, and how much there is to find.

    drawn(name, table, caption) saves a figure.
    """
    t = sky.epochs("thesis")
    A = lens.binary(t, **EVENT)
    sigma = sky.sigma_flux(A, EVENT_MAGNITUDE)
    flux = A + sky.draw_noise(np.random.default_rng(seed), sigma)
    made = drawn("survey_season", *inputs.survey_season(seed))
    made += drawn("noise_curve", *inputs.noise_curve())
    made += drawn("variable_stars", *variable_stars(seed))
    made += drawn("noise_terms", *inputs.noise_terms(seed))
    made += drawn("event_by_hand", *inputs.event_by_hand(EVENT, t, flux, sigma))
    made += drawn("annual_parallax", *inputs.annual_parallax(SINGLE, EVENT_MAGNITUDE, *PARALLAX, t))
    with ExitStack() as stack:
        presets = {}
        for i, name in enumerate(LENS_PRESETS):  # a seed each: presets of the same ranges would show the same events
            path = quick_dataset(1, n_compared // 2, n_compared, preset=name, seed=seed + 10 * i)
            presets[name] = stack.enter_context(open_dataset(path))
        params = {name: d.params for name, d in presets.items()}
        made += drawn("preset_examples", *populations.preset_examples(presets))
    made += drawn("preset_distributions", *populations.preset_distributions(params))
    return made + drawn("observability", *populations.observability(params))

