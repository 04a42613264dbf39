"""The figures as they are printed, and the tables that they draw."""

import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.ticker import FixedLocator

from microlens import figures, magnification
from microlens.data.format import open_dataset
from microlens.figures import style, survey
from microlens.notebook import quick_dataset

ROOT = Path(__file__).parents[1]
TABLES = sorted(p for p in (ROOT / "figures").glob("*.csv") if style.kind_of(p.stem))


def printed(drawn):
    """The texts that are printed: titles, labels, legends, notes, and tick labels between an axis' ends (others are made, too)."""
    for ax in drawn.axes:
        if not ax.get_visible():
            continue
        yield from ax.texts
        if not ax.axison:
            continue
        yield from (ax.title, ax.xaxis.label, ax.yaxis.label)
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            for labels, at in ((axis.get_majorticklabels(), axis.get_majorticklocs()), (axis.get_minorticklabels(),
                                                                                       axis.get_minorticklocs())):
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
    assert width < 180.1 and height < 250
    small = [t.get_text() for t, _ in texts if t.get_fontsize() < 6]
    assert not small, f"smaller than 6 pt: {small}"
    right, top = 72 * drawn.get_size_inches()
    outside = [t.get_text() for t, (a, b, c, d) in texts if a < -1 or b < -1 or c > right + 1 or d > top + 1]
    assert not outside, f"cut off: {outside}"
    # A point of overlap is allowed: the boxes hold the descenders, too.
    touching = [(s.get_text(), t.get_text()) for (s, p), (t, q) in itertools.combinations(texts, 2)
                if min(p[2], q[2]) - max(p[0], q[0]) > 1 and min(p[3], q[3]) - max(p[1], q[1]) > 1]
    assert not touching, f"overlapping: {touching}"


@pytest.mark.parametrize("page", TABLES, ids=lambda p: p.stem, indirect=True)
def test_committed_figure_names_its_axes(page):
    for ax in page[0].axes:
        if not ax.get_visible() or not ax.axison or ax.get_label() == "<colorbar>":
            continue
        for axis, shared in ((ax.xaxis, ax.get_shared_x_axes()), (ax.yaxis, ax.get_shared_y_axes())):
            labelled = any(getattr(other, f"get_{axis.axis_name}label")() for other in shared.get_siblings(ax))
            row = any(getattr(other, f"get_{axis.axis_name}label")() for other in page[0].axes)
            words = isinstance(axis.get_major_locator(), FixedLocator)  # categories name themselves
            assert labelled or row or words, f"no {axis.axis_name} label"


def test_make_figures_draws_all_from_the_tables_alone(tmp_path):
    """The command of `make figures` on a folder with nothing but the tables."""
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"^figures:.*\n\t\$\(BIN\)/python -m microlens.figures$", makefile, re.M)
    for table in TABLES:
        shutil.copy(table, tmp_path)
    done = subprocess.run([sys.executable, "-m", "microlens.figures"], env={**os.environ, "MICROLENS_FIGURES": str(tmp_path)},
                          cwd=tmp_path, capture_output=True, text=True, check=True)
    assert len(done.stdout.split()) == 2 * len(TABLES)
    captions = (tmp_path / "captions.md").read_text()
    said = [line for line in captions.splitlines() if line.startswith("**")]
    assert all(re.search(r"\bn >?= \d|\b\d+ epochs\b|\d light curves", line) for line in said)
    for table in TABLES:
        assert table.read_bytes() == (tmp_path / table.name).read_bytes()  # drawing changes no table
        pdf = (tmp_path / f"{table.stem}.pdf").read_bytes()
        assert b"/Type3" not in pdf and b"/FontFile2" in pdf  # text is text
        assert f"**{table.stem}**" in captions


def test_figures_folder_is_complete_and_small():
    files = list((ROOT / "figures").iterdir())
    for table in TABLES:
        assert {table.with_suffix(s) for s in (".pdf", ".png")} <= set(files), f"{table.stem}: run `make figures`"
    assert sum(f.stat().st_size for f in files) < 3e6
    assert {"survey_season", "noise_curve", "preset_examples", "preset_distributions", "observability", "network_diagram",
            "learning_curves", "confusion_matrix", "roc_curves", "completeness_purity", "calibration", "recall", "recall_s_q",
            "early_detection_curve", "alerts", "robustness", "real_light_curves"} <= {t.stem for t in TABLES}


def test_importing_the_figures_leaves_matplotlibs_settings_alone():
    assert matplotlib.rcParams["font.size"] == matplotlib.rcParamsDefault["font.size"]
    drawn = figures.draw("noise_curve", figures.noise_curve()[0])
    assert drawn.axes[0].xaxis.label.get_fontsize() == 8
    assert matplotlib.rcParams["font.size"] == matplotlib.rcParamsDefault["font.size"]


def test_lens_plane_table_is_the_lens():
    p = {"t_0": 10.0, "u_0": 0.3, "t_E": 5.0, "rho": 0.02, "s": 1.3, "q": 0.25, "alpha": 0.7}
    table = survey.plane(p)
    lens = table.loc[table["panel"] == "lens", ["x", "y"]].to_numpy()
    assert np.allclose(lens[0] + 0.25 * lens[1], 0, atol=1e-3) and np.hypot(*(lens[1] - lens[0])) == pytest.approx(1.3, abs=1e-3)
    source = table.loc[table["panel"] == "source", ["x", "y"]].to_numpy()[:-1]
    assert np.hypot(*source.mean(axis=0)) == pytest.approx(0.3, abs=1e-6) and np.allclose(
        np.hypot(*(source - source.mean(axis=0)).T), 0.02)
    n_caustics = {"close": 3, "resonant": 1, "wide": 2}[magnification.topology(1.3, 0.25)]
    assert table.loc[table["panel"] == "caustic", "part"].nunique() == n_caustics


def test_presets_are_compared_on_common_bins_and_typical_events_chosen():
    with open_dataset(quick_dataset(1, 4, 8)) as d:
        table, caption = figures.preset_distributions({"a": d.params, "b": d.params})
        row = survey.typical(d.params, 2)
        examples, said = figures.preset_examples({"baseline": d})
        seen = d.params[(d.params.label == 2) & (d.params.label_observable == 2)]
    assert np.allclose(table.groupby(["preset", "parameter"])["share"].sum(), 1) and "n >= 8" in caption
    assert row in seen.index and (seen.delta_chi2_pspl >= seen.delta_chi2_pspl[row]).mean() <= 0.5
    assert set(examples["panel"]) >= {"flat", "pspl", "binary", "caustic", "trajectory"} and "n = 3" in said


def test_unknown_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no figure table"):
        figures.redraw(tmp_path)
    pd.DataFrame({"a": [1]}).to_csv(tmp_path / "seasons.csv")  # a table that is no figure's
    with pytest.raises(FileNotFoundError):
        figures.redraw(tmp_path)
