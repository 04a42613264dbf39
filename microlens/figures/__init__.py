"""Figures: name(data) -> (table, caption), and draw_name(table) -> figure. The only place that imports matplotlib.

    figures.save("figures", "confusion_matrix", *figures.confusion_matrix(labels, p))     # .csv, .png, .pdf
    figures.draw("confusion_matrix", table)                                               # shows itself in a notebook
    figures.redraw("figures")                                                             # from the tables alone
    figures.draw_evaluation(folder)                                                       # all of an evaluation

style        widths, colours, axes, intervals, labels, saving   thesis       all figures of the thesis
inputs       season, noise, light curves, lens planes           evaluation   all figures of an evaluation
populations  presets, their events and parameters               variables    everything that varies and is no lens
scores       confusion, ROC, calibration, learning curves       dependence   recall and mistakes against parameters
alerts       early detection, alerts, probabilities in time     rows         classes, conditions, the table of the sky
light_curves light curves of files, and the hardest events
"""

from microlens.figures.alerts import alerts, early_detection_curve, evolution
from microlens.figures.dependence import recall, recall_s_q, temporal_bias_check, u0_dependency
from microlens.figures.evaluation import draw_evaluation
from microlens.figures.inputs import (
    annual_parallax,
    event_by_hand,
    example_light_curves,
    noise_curve,
    noise_terms,
    survey_season,
)
from microlens.figures.light_curves import classified_light_curves, hardest_calls, mistakes, sets
from microlens.figures.populations import (
    observability,
    parameter_distributions,
    preset_distributions,
    preset_examples,
    typical,
)
from microlens.figures.rows import per_class_metrics, robustness, sky_conditions, sky_others
from microlens.figures.scores import calibration, completeness_purity, confusion_matrix, learning_curves, roc_curves
from microlens.figures.style import COLOURS, DRAW, draw, read_table, redraw, save
from microlens.figures.thesis import thesis_figures
from microlens.figures.variables import variable_stars

__all__ = [
    "COLOURS", "DRAW", "alerts", "annual_parallax", "calibration", "classified_light_curves", "completeness_purity",
    "confusion_matrix", "draw", "draw_evaluation", "early_detection_curve", "event_by_hand", "evolution",
    "example_light_curves", "hardest_calls", "learning_curves", "mistakes", "noise_curve", "noise_terms",
    "observability", "parameter_distributions", "per_class_metrics", "preset_distributions", "preset_examples",
    "read_table", "recall", "recall_s_q", "redraw", "robustness", "roc_curves", "save", "sets", "sky_conditions",
    "sky_others", "survey_season", "temporal_bias_check", "thesis_figures", "typical", "u0_dependency",
    "variable_stars",
]
