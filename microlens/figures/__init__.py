"""Figures: (data) -> (table, caption), and draw_<name>(table) -> figure. The only place that imports matplotlib.

    figures.save("figures", "confusion_matrix", *figures.confusion_matrix(labels, p))     # .csv, .png, .pdf
    figures.draw("confusion_matrix", table)                                               # shows itself in a notebook
    figures.redraw("figures")                                                             # from the tables alone
    figures.draw_evaluation(folder)                                                       # all of an evaluation

style       widths, colours, saving             inputs   season, noise, light curves, populations, lens planes, the network
evaluation  all figures of an evaluation        scores   confusion, ROC, calibration, recall, robustness, learning curves
thesis      all figures of the thesis           alerts   early detection, alerts, probabilities in time
real        light curves that came as files
"""

from microlens.figures.alerts import alerts, early_detection_curve, evolution
from microlens.figures.evaluation import draw_evaluation
from microlens.figures.inputs import (
    event_by_hand,
    example_light_curves,
    network_diagram,
    noise_curve,
    observability,
    parameter_distributions,
    preset_distributions,
    preset_examples,
    survey_season,
)
from microlens.figures.real import real_light_curves
from microlens.figures.scores import (
    PER_PAGE,
    calibration,
    completeness_purity,
    confusion_matrix,
    learning_curves,
    mistakes,
    per_class_metrics,
    recall,
    recall_s_q,
    robustness,
    roc_curves,
    sets,
    temporal_bias_check,
    u0_dependency,
)
from microlens.figures.style import COLOURS, DRAW, draw, read_table, redraw, save, use_palette
from microlens.figures.thesis import thesis_figures

__all__ = ["COLOURS", "DRAW", "PER_PAGE", "alerts", "calibration", "completeness_purity", "confusion_matrix",
           "draw", "draw_evaluation", "early_detection_curve", "event_by_hand", "evolution", "example_light_curves", "learning_curves", "mistakes",
           "network_diagram", "noise_curve", "observability", "parameter_distributions", "per_class_metrics", "preset_distributions",
           "preset_examples", "read_table", "real_light_curves", "recall", "recall_s_q", "redraw", "robustness", "roc_curves", "save",
           "sets", "survey_season", "temporal_bias_check", "thesis_figures", "u0_dependency", "use_palette"]
