"""The figures as they are printed, and the tables that they draw."""

import itertools
import re
import shutil
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.ticker import FixedLocator

from microlens import figures, lens
from microlens.__main__ import main
from microlens.config import BINARY, CLASS_COLOURS, VARIABLE_STARS
from microlens.data import open_dataset, quick_dataset
from microlens.figures import inputs, populations, style

ROOT = Path(__file__).parents[1]
TABLES = style.tables_of(ROOT / "figures")
ASCII_MATHEMATICS = re.compile(r"chi\^2|u_0|t_0|t_E|m_base|f_s\b|log10|\brho\b|sigma\b|Einstein radi")


# Machado, Oliveira & Fernandes (2009), severity 1: linear RGB as readers with such eyes see it.
EYES = {
    "all": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])  # of linear sRGB
WHITE = XYZ.sum(axis=1)
LEAST_DISTANCE = dict.fromkeys(EYES, 15.0) | {"grey": 10.0}
"""Least distance of two colours used together (CIELAB 1976), and of their lightness where all else is equal."""


def lab(linear):
    """CIELAB of linear RGB (3,)."""
    x = XYZ @ np.clip(linear, 0, 1) / WHITE
    f = np.where(x > 0.008856, np.cbrt(x), 7.787 * x + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def distances(a, b) -> dict:
    """{eye: distance of two colours}, and the difference of their lightness as `grey`."""
    rgb = [np.array(matplotlib.colors.to_rgb(colour)) for colour in (a, b)]
    a, b = (np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4) for x in rgb)
    out = {eye: float(np.linalg.norm(lab(np.array(seen) @ a) - lab(np.array(seen) @ b))) for eye, seen in EYES.items()}
    return out | {"grey": float(abs(lab(a)[0] - lab(b)[0]))}


def series_of(ax) -> set:
    """(colour, line style, marker, width) of the named series of an axes."""
    found = set()
    for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
        line = handle.lines[0] if isinstance(handle, matplotlib.container.ErrorbarContainer) else handle
        if isinstance(line, matplotlib.lines.Line2D) and label:
            style_of = (str(line.get_linestyle()), str(line._dash_pattern), str(line.get_marker()))
            found.add((matplotlib.colors.to_hex(line.get_color()), *style_of, line.get_linewidth()))
        elif isinstance(line, matplotlib.patches.Patch):
            style_of = (str(line.get_linestyle()), str(line._dash_pattern), "")
            found.add((matplotlib.colors.to_hex(line.get_edgecolor()), *style_of, line.get_linewidth()))
    return found


def test_the_distances_of_colours_are_those_of_eyes():
    """Truth: white and black are 100 apart; to a deuteranope red and green of one lightness are alike."""
    assert distances("w", "k") == pytest.approx(dict.fromkeys((*EYES, "grey"), 100.0), abs=0.5)
    red, green = "#c05030", "#857000"
    seen = distances(red, green)
    assert seen["all"] > 40 and seen["deuteranopia"] < seen["all"] / 2


@pytest.mark.parametrize("colours", [list(CLASS_COLOURS.values()), None], ids=["classes", "series"])
def test_the_colours_used_together_stay_apart(colours):
    if colours is None:
        with matplotlib.style.context(style.STYLE):
            colours = matplotlib.rcParams["axes.prop_cycle"].by_key()["color"]
    for a, b in itertools.combinations(colours, 2):
        seen = distances(a, b)
        assert min(seen[eye] for eye in EYES) > LEAST_DISTANCE["all"], (a, b, seen)
    assert len(set(style.MARKERS.values())) == len(set(style.LINES.values())) == len(CLASS_COLOURS)  # the second cue
    assert len(set(style.SERIES_MARKERS)) == len(set(style.SERIES_LINES)) == 6


def printed(drawn):
    """The texts that are printed: titles, labels, legends, notes, and the tick labels between an axis' ends."""
    for ax in drawn.axes:
        if not ax.get_visible():
            continue
        yield from ax.texts
        if not ax.axison:
            continue
        yield from (ax.title, ax.xaxis.label, ax.yaxis.label)
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = ((axis.get_majorticklabels(), axis.get_majorticklocs()),
                     (axis.get_minorticklabels(), axis.get_minorticklocs()))
            for labels, at in ticks:
                yield from (x for x, where in zip(labels, itertools.cycle(at)) if low <= where <= high)
        yield from ax.get_legend().get_texts() if ax.get_legend() else ()
    for legend in drawn.legends:
        yield from legend.get_texts()


@pytest.fixture(scope="module")
def page(request):
    """A committed figure drawn from its table, and its texts with their boxes in points."""
    drawn = figures.draw(request.param.stem, figures.read_table(request.param)[0])
    with matplotlib.style.context(style.STYLE):
        drawn.draw_without_rendering()
        renderer, scale = drawn._get_renderer(), 72 / drawn.dpi
        texts = [t for t in printed(drawn) if t.get_visible() and t.get_text().strip()]
        return drawn, [(t, t.get_window_extent(renderer).extents * scale) for t in texts]


@pytest.mark.parametrize("page", TABLES, ids=lambda p: p.stem, indirect=True)
def test_committed_figure_can_be_read_at_its_printed_size(page):
    drawn, texts = page
    width, height = drawn.get_size_inches() * 25.4
    assert round(width) in (90, 180) and height < 250
    small = [t.get_text() for t, _ in texts if t.get_fontsize() < 7]
    assert not small, f"smaller than 7 pt: {small}"
    right, top = 72 * drawn.get_size_inches()
    outside = [t.get_text() for t, (a, b, c, d) in texts if a < -1 or b < -1 or c > right + 1 or d > top + 1]
    assert not outside, f"cut off: {outside}"
    # A point of overlap is allowed: the boxes hold the descenders, too.
    touching = [(s.get_text(), t.get_text()) for (s, p), (t, q) in itertools.combinations(texts, 2)
                if min(p[2], q[2]) - max(p[0], q[0]) > 1 and min(p[3], q[3]) - max(p[1], q[1]) > 1]
    assert not touching, f"overlapping: {touching}"


def test_figure_is_the_same_whatever_another_package_set():
    table = figures.read_table(ROOT / "figures" / "variable_stars.csv")[0]
    pictures = []
    for others in ({}, {"xtick.minor.visible": True, "ytick.direction": "in", "xtick.top": True}):
        with matplotlib.rc_context(others):
            pictures.append(figures.draw("variable_stars", table)._repr_png_())
    assert pictures[0] == pictures[1]


@pytest.mark.parametrize("page", TABLES, ids=lambda p: p.stem, indirect=True)
def test_committed_legend_lies_on_no_axes(page):
    drawn, _ = page
    assert not [ax for ax in drawn.axes if ax.get_legend()]
    with matplotlib.style.context(style.STYLE):
        renderer = drawn._get_renderer()
        for legend in drawn.legends:
            box = legend.get_window_extent(renderer)
            assert box.x0 > -1 and box.x1 < drawn.bbox.x1 + 1
            assert not [ax for ax in drawn.axes if ax.get_visible() and ax.bbox.overlaps(box)]


@pytest.mark.parametrize("page", TABLES, ids=lambda p: p.stem, indirect=True)
def test_committed_figure_is_read_by_colour_blind_readers_and_in_greyscale(page):
    for ax in page[0].axes:
        for a, b in itertools.combinations(series_of(ax), 2):
            if a[1:] == b[1:]:  # marker and line are the same: the colours alone tell them apart
                close = {eye: d for eye, d in distances(a[0], b[0]).items() if d < LEAST_DISTANCE[eye]}
                assert not close, (a, b)


@pytest.mark.parametrize("page", TABLES, ids=lambda p: p.stem, indirect=True)
def test_committed_figure_prints_its_mathematics_as_mathematics(page):
    plain = [t.get_text() for t, _ in page[1] if ASCII_MATHEMATICS.search(re.sub(r"\$[^$]*\$", "", t.get_text()))]
    assert not plain


def named(page, ax, which) -> bool:
    """Whether an axis has a label, or one that it shares its scale with, or the outermost one of its row or column."""
    get = f"get_{which}label"
    shared = (ax.get_shared_x_axes() if which == "x" else ax.get_shared_y_axes()).get_siblings(ax)
    box = ax.get_position()
    span = (box.x0, box.x1) if which == "x" else (box.y0, box.y1)

    def beside(other):
        of = other.get_position()
        return (of.x0, of.x1) if which == "x" else (of.y0, of.y1)

    in_line = [other for other in page.axes if np.allclose(beside(other), span, atol=0.03)]
    return any(getattr(other, get)() for other in (*shared, *in_line))


@pytest.mark.parametrize("page", TABLES, ids=lambda p: p.stem, indirect=True)
def test_committed_figure_names_its_axes(page):
    for ax in page[0].axes:
        if not ax.get_visible() or not ax.axison or ax.get_label() == "<colorbar>":
            continue
        for axis in (ax.xaxis, ax.yaxis):
            categories = isinstance(axis.get_major_locator(), FixedLocator)  # they name themselves
            assert categories or named(page[0], ax, axis.axis_name), f"no {axis.axis_name} label"


def test_an_axis_without_a_label_is_noticed():
    """The check above, on a figure of which one panel alone is labelled."""
    drawn, (a, b) = style.subplots(1, 2)
    a.set(xlabel="time", ylabel="flux")
    b.set_position([0.6, 0.3, 0.3, 0.2])
    assert named(drawn, a, "x") and named(drawn, a, "y")
    assert not named(drawn, b, "x") and not named(drawn, b, "y")


def test_make_figures_draws_from_the_tables_alone(tmp_path, capsys):
    """`make figures` on a folder with nothing but tables; the other tables are drawn by the tests above."""
    command = re.search(r"^figures:.*\n\t\$\(BIN\)/microlens (.*)$", (ROOT / "Makefile").read_text(), re.M)[1]
    assert command == "figures --redraw figures"
    names = ("roc_curves", "sets")
    for name in (*names, "published"):  # the last is a table that is no figure
        shutil.copy(ROOT / "figures" / f"{name}.csv", tmp_path)
    assert main(["figures", "--redraw", str(tmp_path)]) == 0
    made = [str(tmp_path / f"{name}.{kind}") for name in names for kind in ("png", "pdf")]
    assert capsys.readouterr().out.split() == made
    assert (tmp_path / "captions.md").read_text().count("\n**") == len(names)
    for name in names:
        assert (tmp_path / f"{name}.pdf").read_bytes().startswith(b"%PDF")


def test_drawing_changes_no_table():
    for path in TABLES:
        table, caption = figures.read_table(path)
        assert path.read_text() == f"# {caption}\n" + table.to_csv(index=False, float_format="%.6g"), path.stem


NO_NETWORK = ("**noise_terms",)  # figures of data that speak of networks


def test_committed_captions_and_texts():
    captions = (ROOT / "figures" / "captions.md").read_text()
    said = [line for line in captions.splitlines() if line.startswith("**")]
    assert len(said) == len(TABLES) and all(re.search(r"\bn >?= \d", line) for line in said)
    assert not ASCII_MATHEMATICS.search(re.sub(r"\$[^$]*\$", "", captions)) and "68 %" not in captions
    assert captions.count(style.INTERVALS) == captions.count("Clopper-Pearson of a share") == 1
    assert "Clopper-Pearson" not in "".join(said)  # what an interval is stands in one place
    assert all(line.endswith(tuple(f"{style.PRINTED}{width}." for width in style.WIDTHS.values())) for line in said)
    of_networks = [line for line in said if "etwork" in line and not line.startswith(NO_NETWORK)]
    assert len(of_networks) > 10 and all(re.search(r"[Nn]etworks?:? \w+", line) for line in of_networks)
    for table in TABLES:
        assert figures.read_table(table)[1] in captions
        pdf = table.with_suffix(".pdf").read_bytes()
        assert b"/Type3" not in pdf and b"/FontFile2" in pdf  # text is text


def test_figures_folder_is_complete_and_small():
    files = list((ROOT / "figures").iterdir())
    for table in TABLES:
        assert {table.with_suffix(s) for s in (".pdf", ".png")} <= set(files), f"{table.stem}: run `make figures`"
    drawn = {f.stem for f in files if f.suffix in (".pdf", ".png")}
    assert drawn == {table.stem for table in TABLES}
    assert sum(f.stat().st_size for f in files) < 3.5e6
    assert {"survey_season", "noise_curve", "preset_examples", "preset_distributions", "observability",
            "learning_curves", "confusion_matrix", "roc_curves", "completeness_purity", "calibration", "recall",
            "recall_s_q", "early_detection_curve", "alerts", "robustness", "classified_light_curves", "sky_conditions",
            "sky_others", "variable_stars", "noise_terms", "annual_parallax"} <= drawn


def test_only_exact_names_and_families_are_figures():
    assert figures.DRAW.keys() >= {"alerts", "recall", "mistakes", "evolution"}
    assert style.kind_of("alerts") == "alerts" and style.kind_of("recall_s_q") == "recall_s_q"
    assert style.kind_of("evolution_binary_12") == "evolution" and style.kind_of("mistakes_3") == "mistakes"
    for name in ("alerts_old", "recall_of_mine", "evolution_of_stars", "evolution_flat_x", "mistakes_old", "seasons"):
        assert style.kind_of(name) is None, name


def test_a_users_own_tables_are_left_alone(tmp_path):
    pd.DataFrame({"a": [1]}).to_csv(tmp_path / "alerts_old.csv")
    pd.DataFrame({"a": [1]}).to_csv(tmp_path / "recall.csv")  # the name of a figure, but without a caption
    with pytest.raises(FileNotFoundError, match="holds no figure table"):
        figures.redraw(tmp_path)
    figures.save(tmp_path, "noise_curve", *figures.noise_curve(), formats=("png",))
    assert (tmp_path / "captions.md").read_text().count("**") == 2


def test_importing_the_figures_leaves_matplotlibs_settings_alone():
    assert matplotlib.rcParams["font.size"] == matplotlib.rcParamsDefault["font.size"]
    drawn = figures.draw("noise_curve", figures.noise_curve()[0])
    assert drawn.axes[0].xaxis.label.get_fontsize() == 8
    assert matplotlib.rcParams["font.size"] == matplotlib.rcParamsDefault["font.size"]


def test_a_palette_lasts_as_long_as_it_is_asked_for():
    with style.palette(safe=False):
        assert figures.COLOURS["flat"] == "tab:blue"
    assert figures.COLOURS == CLASS_COLOURS


def test_captions_with_a_hash_and_names_with_one_are_read_again(tmp_path):
    table = pd.DataFrame({"name": "event #3", "t": np.arange(60.0), "flux": 1.0, "called": "flat", "p_binary": 0.25})
    name = "classified_light_curves"
    figures.save(tmp_path, name, table, "caption # 1", formats=("png",))
    read, caption = figures.read_table(tmp_path / f"{name}.csv")
    figures.save(tmp_path, name, read, caption, formats=("png",))
    assert figures.read_table(tmp_path / f"{name}.csv")[1] == caption  # the width is said once
    assert caption == "caption # 1 Printed 18 cm wide (double column)."
    assert set(read["name"]) == {"event #3"} and len(read) == len(table)


def test_lens_plane_table_is_the_lens():
    p = {"t_0": 10.0, "u_0": 0.3, "t_E": 5.0, "rho": 0.02, "s": 1.3, "q": 0.25, "alpha": 0.7}
    table = inputs.plane(p)
    masses = table.loc[table["panel"] == "lens", ["x", "y"]].to_numpy()
    assert np.allclose(masses[0] + 0.25 * masses[1], 0, atol=1e-3)
    assert np.hypot(*(masses[1] - masses[0])) == pytest.approx(1.3, abs=1e-3)
    source = table.loc[table["panel"] == "source", ["x", "y"]].to_numpy()[:-1]
    assert np.hypot(*source.mean(axis=0)) == pytest.approx(0.3, abs=1e-6)
    assert np.allclose(np.hypot(*(source - source.mean(axis=0)).T), 0.02)
    n_caustics = {"close": 3, "resonant": 1, "wide": 2}[lens.topology(1.3, 0.25)]
    assert table.loc[table["panel"] == "caustic", "part"].nunique() == n_caustics


def test_presets_are_compared_on_common_bins_and_typical_events_chosen(tmp_path, monkeypatch):
    monkeypatch.setenv("MICROLENS_DATA", str(tmp_path))
    with open_dataset(quick_dataset(1, 4, 8, seed=3)) as a, open_dataset(quick_dataset(1, 4, 8, seed=4)) as b:
        table, caption = figures.preset_distributions({"a": a.params, "b": b.params})
        row = figures.typical(b.params, BINARY)
        examples, said = figures.preset_examples({"a": a, "b": b})
        twice = figures.preset_examples({"a": a, "again": a})[1]
        seen = b.params[(b.params.label == BINARY) & (b.params.label_observable == BINARY)]
    assert np.allclose(table.groupby(["preset", "parameter"])["share"].sum(), 1) and "n >= 8" in caption
    assert (table.groupby("parameter")[["low", "high"]].nunique() == populations.N_BINS).all(axis=None)
    assert row in seen.index and (seen.delta_chi2_pspl >= seen.delta_chi2_pspl[row]).mean() <= 0.5
    assert "(n = 4 different ones)" in said and "(n = 2 different ones)" in twice
    for kind in populations.EXAMPLES:
        curves = [part[["x", "y"]].to_numpy() for _, part in examples[examples["panel"] == kind].groupby("preset")]
        assert not np.array_equal(*curves)


def test_what_lies_near_one_is_drawn_as_its_distance_from_one():
    """Truth: the table; 1 - accuracy of 0.001 is at 1e-3 of a logarithmic axis."""
    fraction, recall = np.array([0.5, 1.0]), np.array([[1.0, 0.9, 0.8], [1.0, 0.99, 0.9]])
    accuracy = np.array([0.99, 0.999])
    low, high = accuracy - 0.005, np.minimum(accuracy + 0.005, 1)
    table, _ = figures.early_detection_curve(fraction, accuracy, low, high, recall, 9)
    left, right = figures.draw("early_detection_curve", table).axes
    assert left.get_yscale() == right.get_yscale() == "log"
    assert left.lines[0].get_ydata() == pytest.approx([0.01, 0.001])
    drawn = {line.get_label(): line.get_ydata() for line in right.lines}
    assert drawn["binary lens"] == pytest.approx([0.2, 0.1]) and np.isnan(drawn["flat"]).all()
    end = right.get_ylim()[0]
    assert right.lines[1].get_ydata() == pytest.approx([end, end])  # none of the flats is missed
    assert right.yaxis.get_major_formatter()(end, 0) == "0"


def test_confusion_has_class_other_where_it_was_scored():
    observable, called = np.array([0, 0, 1, 2, 3, 3, 3]), np.array([0, 3, 1, 2, 3, 3, 2])
    table, caption = figures.confusion_matrix(observable, called)
    counts = table.pivot(index="truth", columns="called", values="n")
    assert counts.loc["other", "other"] == 2 and counts.loc["other", "binary"] == counts.loc["flat", "other"] == 1
    assert len(table) == 16 and table["n"].sum() == 7 and "n = 7" in caption
    three, _ = figures.confusion_matrix(observable[:1], called[:1])
    assert len(three) == 9 and three["n"].sum() == 1
    fig = figures.draw("confusion_matrix", table)
    assert [text.get_text() for text in fig.axes[0].get_xticklabels()][-1] == "other"


def test_completeness_and_purity_are_at_their_place():
    """Truth: by hand; the perfect score lies on the frame, the other passes through (1 - 1/2, 1 - 2/3)."""
    labels, weight = np.array([2, 2, 0, 0]), np.ones(4)
    scores = {"network": np.array([0.9, 0.8, 0.2, 0.1]), "other": np.array([0.9, 0.2, 0.5, 0.1])}
    table, _ = figures.completeness_purity(labels, labels, scores, weight)
    other = table[table["score"] == "other"]
    assert other["completeness"].tolist()[:3] == pytest.approx([0.5, 0.5, 1])
    assert other["purity"].tolist()[:3] == pytest.approx([1, 0.5, 2 / 3])
    ax = figures.draw("completeness_purity", table).axes[0]
    assert ax.get_xscale() == ax.get_yscale() == "log"
    assert ax.lines[0].get_xdata()[1] == ax.get_xlim()[0] and ax.lines[0].get_ydata()[1] == ax.get_ylim()[0]


def test_each_kind_of_variable_star_has_a_season_and_what_it_is():
    table, caption = figures.variable_stars(seed=2)
    assert table["subclass"].unique().tolist() == list(VARIABLE_STARS) and f"n = {len(VARIABLE_STARS)}" in caption
    for name, star in table.groupby("subclass"):
        season, beside = star[star["panel"] == "season"], star[~star["panel"].isin(["season", "about"])]
        assert len(season) > 100 and season["x"].between(0, 71).all() and (season["y"] > 0).all(), name
        assert len(beside) > 5 and (beside["panel"].iloc[0] != "phase" or beside["x"].between(0, 1).all()), name
    drawn = figures.draw("variable_stars", table)
    assert sum(ax.get_visible() for ax in drawn.axes) == 2 * len(VARIABLE_STARS)
    assert drawn.axes[0].get_title(loc="left").startswith("RR Lyrae ab: 0.")


def test_the_table_of_the_sky_is_drawn_with_its_intervals(tmp_path):
    """Truth: the text of conditions.csv, by eye."""
    path = tmp_path / "conditions.csv"
    path.write_text(
        "condition,method,n_binary,completeness,n_pspl,single_lenses_called_binary,n_flat,flats_called_binary\n"
        '"OU 0.3 sigma, 1.0 d",net,10,"0.9000 [0.5550, 0.9975]",400,"0.0025 [0.0001, 0.0138]",200,none\n'
        'errors x 1.3,net,12,"1.0000 [0.7354, 1.0000]",400,"0.0000 [0.0000, 0.0092]",200,"0.5 [0.4, 0.6]"\n')
    table, caption = figures.sky_conditions(path)
    assert "n = 400 single lenses, 200 flats and 10 to 12 observable binaries" in caption and "Networks: net" in caption
    axes = figures.draw("sky_conditions", table).axes
    missed, false, flats = (ax.containers[0] for ax in axes)
    assert missed.lines[0].get_xdata() == pytest.approx([0.1, axes[0].get_xlim()[0]])  # none missed: at the end, 0
    assert false.lines[2][0].get_segments()[0][:, 0] == pytest.approx([0.0001, 0.0138])
    assert flats.lines[0].get_xdata() == pytest.approx([0.5])
    assert [t.get_text() for t in axes[0].get_yticklabels()] == [r"OU 0.3 $\sigma$, 1.0 d", "errors × 1.3"]


def test_the_table_of_other_stars_names_each_with_its_number(tmp_path):
    path = tmp_path / "others.csv"
    path.write_text('subclass,method,n,called_binary,observable,observable_called_other\n'
                    'delta_scuti,net,27,"0.0 [0.0, 0.1277]","0.85 [0.66, 0.95]","0.30 [0.13, 0.53]"\n'
                    'flare,net,78,"0.0 [0.0, 0.0462]","0.0 [0.0, 0.0462]",none\n')
    table, caption = figures.sky_others(path)
    assert table["row"].unique().tolist() == [r"$\delta$ Scuti (27)", "flare (78)"] and "n = 27 to 78" in caption
    assert table.loc[table["panel"] == "observable_called_other", "share"].isna().tolist() == [False, True]
    figures.draw("sky_others", table).draw_without_rendering()


def test_robustness_counts_the_false_alarms_of_flats_and_single_lenses():
    """Truth: 1 of 20 flats and 2 of 30 single lenses are called binary, 9 of 10 observable binaries found."""
    score = {"completeness_observable": 0.9, "false_alarms_flat": 0.05, "false_alarms_pspl": 2 / 30, "n_observable": 10}
    summary = {"n": 60, "run": "net", "at_threshold": score, "most_probable_class": score,
               "simulated_labels": {"per_class": {"flat": {"n": 20}, "pspl": {"n": 30}}}}
    table, caption = figures.robustness({"as trained": (False, summary)})
    assert table["share"].tolist() == pytest.approx([0.9, 3 / 50] * 2) and table["n"].tolist() == [10, 50] * 2
    assert "Network net" in caption and "n >= 60" in caption


def test_numbers_of_a_logarithmic_axis_are_of_one_kind():
    _, ax = style.subplots()
    lowest = style.share_axis(ax.yaxis, np.array([0, 1e-5, 0.5]))
    labels = [ax.yaxis.get_major_formatter()(x, 0) for x in ax.yaxis.get_major_locator()()]
    assert labels[0] == "0" and labels[-1] == "1" and all(x.startswith("$10") for x in labels[1:-1])
    assert lowest < 1e-5 and len(labels) <= style.room(ax.yaxis)
    assert style.share_axis(ax.yaxis, np.array([0.02, 0.5])) == pytest.approx(0.02 / 1.3)
    assert "0" not in [ax.yaxis.get_major_formatter()(x, 0) for x in ax.yaxis.get_major_locator()()]
    assert style.power(2e-3) == r"$2\times10^{-3}$" and style.power(1e-4) == "$10^{-4}$"
    assert style.typeset("delta chi^2 of 3e-3 sigma x 2") == r"$\Delta\chi^2$ of $3\times10^{-3}$ $\sigma$ × 2"


def test_calibration_bins_reach_from_0_to_1():
    p = np.array([0.0, 1e-9, 0.5, 1 - 1e-12, 1.0])
    table, _ = figures.calibration(p > 0.6, p, p, n_bins=6)
    of_one = table[table["kind"] == "as it is"]
    assert of_one["n"].tolist() == [2, 1, 2] and of_one["share"].tolist() == [0, 0, 1]


def test_a_bin_without_a_mistake_shows_its_upper_limit():
    u_0, labels = np.tile([0.1, 0.9], 20), np.repeat([1, 2], 20)
    right = (u_0 > 0.5) | (labels == 1)
    table, _ = figures.u0_dependency(u_0, labels, right)
    ax = figures.draw("u0_dependency", table).axes[0]
    lowest = ax.get_ylim()[0]
    points = {c.get_label(): c.lines[0].get_ydata() for c in ax.containers}
    ends = [segment[:, 1] for c in ax.containers for segment in c.lines[2][0].get_segments()]
    limits = [high for low, high in ends if low == pytest.approx(lowest)]
    assert points["simulated single lens"] == pytest.approx([lowest] * 2)
    assert limits == pytest.approx([1 - 0.025**0.1] * 3)


def test_recall_over_s_and_q_counts_every_binary():
    rng = np.random.default_rng(0)
    params = pd.DataFrame({"s": rng.uniform(0.3, 3, 500), "q": 10 ** rng.uniform(-4, 0, 500),
                           "delta_chi2_pspl": rng.uniform(0, 320, 500)})
    hit = params["q"].to_numpy() > 0.01
    table, _ = figures.recall_s_q(params, hit)
    filled = table[table["n"] > 0]
    assert table["n"].sum() == 500 and (filled["recall"] * filled["n"]).sum() == pytest.approx(hit.sum())
    assert (filled["oracle"] * filled["n"]).sum() == pytest.approx((params["delta_chi2_pspl"] > 160).sum())
    assert (filled.loc[filled["log_q"] > -1.9, "recall"] == 1).all()
    assert (filled.loc[filled["log_q_to"] < -2, "recall"] == 0).all()
