"""The explorers without a browser: numbers, drawing, callbacks, wrong use."""

import asyncio
import base64
import io
import json
import os
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

import microlens
from microlens import fit, sky
from microlens.config import CLASS_PARAMETERS, LENSING_CLASSES, PARAMETERS, ClassifyConfig, SimulateConfig
from microlens.data import open_dataset, read_predictions, simulate, write_predictions
from microlens.data.format import Dataset
from microlens.evaluate import classify
from microlens.explore import EventBrowser, LensExplorer, TrainingMonitor, browser, events, lens, panels, traces
from microlens.explore.frames import FRAMES
from microlens.explore.season_view import SeasonView
from microlens.fit import fit_noise_free
from microlens.fit.points import FLUX_STEPS, epochs_to_draw
from microlens.lens import binary, crosses_caustic, straight_track
from microlens.lens.plane import lens_plane
from microlens.notebook import FOLDER, declared_parameters


def small_dataset(path, seed=0, **more):
    config = SimulateConfig(n_flat=4, n_pspl=4, n_binary=6, **more, seed=seed, output=str(path), num_workers=1)
    return simulate(config, progress=False)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return small_dataset(tmp_path_factory.mktemp("explore") / "x.h5")


def predict(data, path, wrong=0):
    """Predictions of a dataset in which every third event is called `wrong` and the others what they are."""
    with open_dataset(data) as d:
        called = np.where(np.arange(len(d)) % 3 == 0, wrong, d.labels_observable)
        log_p = np.log(0.9 * np.eye(3)[called] + 0.1 / 3).astype("f4")
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {"row": np.arange(len(d)), "log_p": log_p, "called": log_p.argmax(1)}
        return write_predictions(path, arrays, {"data_checksum": d.checksum})


@pytest.fixture(scope="module")
def predictions(data):
    return predict(data, data.with_name("predictions.h5"))


@pytest.fixture(scope="module")
def network():
    return microlens.load("baseline")


def geometry(p):
    return {k: p[k] for k in lens.GEOMETRY if k not in ("pi_EN", "pi_EE")}


# ---- the lens explorer ----------------------------------------------------------------------------------------------


def arrays_of(view):
    """What is drawn of a view."""
    season = SeasonView(panels.curves())
    season.draw(view.curve, traces.plane_traces(view.plane), "")
    return season.panel.arrays


def test_light_curve_shown_is_that_of_the_lens():
    view = lens.prepare(lens.START, seed=1)
    t, flux = arrays_of(view)["light curve"].T
    sigma = 0.0089  # at m = 21; smaller where the event is brighter
    pull = (flux - binary(t, **geometry(lens.START), method="exact")) / sigma
    assert abs(np.median(pull)) < 0.1 and np.abs(pull[t < 5]).max() < 5
    assert view.topology == "resonant" and view.delta_chi2 > 1e4


def test_parallax_bends_the_path_and_the_light_curve():
    straight, bent = (lens.prepare({**lens.START, "t_E": 60.0, "pi_EE": pi_EE}) for pi_EE in (0.0, 0.5))
    assert np.abs(bent.plane.trajectory - straight.plane.trajectory).max() > 0.01
    assert np.abs(bent.curve.lens - straight.curve.lens).max() > 0.01
    first, middle, last = bent.plane.trajectory[[0, 40, -1]]
    assert abs(np.linalg.det([middle - first, last - first])) > 1e-3


def test_delta_chi2_is_that_of_the_fit_and_the_verdict_follows_it():
    p = {**lens.START, "q": 1e-6, "u_0": 0.8}
    t = sky.epochs("thesis")
    flux = binary(t, **geometry(p), method="exact")
    direct = fit_noise_free(t, flux, sky.sigma_flux(flux, p["m_base"]), (36.0, 15.0, 0.8)).chi2
    view = lens.prepare(p)
    assert direct < 160 and view.delta_chi2 == pytest.approx(direct, abs=5)  # nodes are good to 1e-3 of A
    assert "<b>not observable</b>" in lens.title(view)
    assert "<b>observable</b>" in lens.title(lens.prepare(lens.START))


def test_drawn_epochs_show_every_narrow_feature_and_make_up_nothing():
    t, rng = np.arange(6912) / 96.0, np.random.default_rng(0)
    y = np.exp(-0.5 * ((t - 30) / 10) ** 2)
    y[4000:4003] += 0.4  # three epochs
    keep = epochs_to_draw(t, y)
    assert {4000, 4003} <= set(keep) and len(keep) < 800 and np.diff(t[keep]).max() < 0.4
    # Between drawn epochs the curve stays within two of the steps, so a line through them is the curve to the eye.
    assert np.abs(np.interp(t, t[keep], y[keep]) - y).max() <= 2 * np.ptp(y) / FLUX_STEPS
    noise = rng.normal(size=len(t))
    noise[100] = 12.0
    assert 100 in epochs_to_draw(t, noise, noise) and len(epochs_to_draw(t, noise)) < 1000


def test_sliders_stay_within_what_is_possible():
    assert set(lens.SLIDERS) == set(CLASS_PARAMETERS["binary"])
    for name, slider in lens.SLIDERS.items():
        assert slider.low < slider.high and slider.low <= slider.start <= slider.high
        if name not in ("t_0", "u_0"):  # t_0 is a share of the season there; a slider's u_0 may be on the other side
            assert PARAMETERS[name].low <= slider.low and slider.high <= PARAMETERS[name].high


def test_controls_move_the_figure_and_hold_what_was_typed(network):
    explorer = LensExplorer(classifier=network, q=0.01)
    before, s = explorer.panel.arrays["caustics"], explorer.controls["s"]
    s.slider.value = np.log10(2.0)
    assert not np.array_equal(before, explorer.panel.arrays["caustics"])
    assert "wide" in explorer.panel.layout_change["title.text"] and float(s.box.value) == pytest.approx(2.0, rel=1e-3)
    s.box.value = "0.7777"
    assert explorer.parameters["s"] == 0.7777 and abs(s.slider.value - np.log10(0.7777)) <= s.step
    s.slider.value += 0.4 * s.step  # the page moves a slider to its nearest step: no move of the user's
    assert explorer.parameters["s"] == 0.7777
    s.box.value = "99"
    assert explorer.parameters["s"] == float(s.box.value) == 0.7777
    assert "s: came 99.0, expected 0.2 to 5" in explorer.message.value
    flat, pspl, both = (explorer.panel.arrays[f"P({c})"][:, 1] for c in LENSING_CLASSES)
    assert np.allclose(flat + pspl + both, 1, atol=1e-5) and len(flat) > 100
    assert explorer.panel.pale == []


@pytest.mark.parametrize(("typed", "said"), [
    ("1,5", "came &#x27;1,5&#x27;, expected a number with a decimal point"), ("nan", "expected a number"),
    ("1e", "expected a number"), ("", "came None")])
def test_what_is_no_number_is_refused_with_a_word(typed, said):
    explorer = LensExplorer()
    t_0 = explorer.controls["t_0"]
    t_0.box.value = typed
    assert said in explorer.message.value and t_0.box.value == "36" and explorer.parameters["t_0"] == 36.0
    t_0.box.value = "1e1"
    assert explorer.parameters["t_0"] == 10.0 and explorer.message.value == ""


def test_only_what_changed_is_sent():
    explorer, sent = LensExplorer(), []
    explorer.panel.send_state = lambda key=None: sent.append(set(key or ()))
    explorer.controls["m_base"].box.value = "22"
    (changed,) = sent
    names = {explorer.panel.names[int(k.split("_")[1])] for k in changed if k.startswith("curve_")}
    assert {"light curve", "residual"} <= names and not names & set(traces.PLANE)


def test_lens_plane_looks_where_it_is_told():
    explorer = LensExplorer(rho=0.003)
    width = {}
    for look in traces.LOOKS:
        explorer.look.value = look
        (a, b), (c, d) = (explorer.panel.layout_change[f"{axis}.range"] for axis in ("xaxis", "yaxis"))
        assert b - a == pytest.approx(d - c)  # the aspect is kept
        width[look] = b - a
    assert width["lenses"] > width["caustics"] > width["source"] == pytest.approx(2 * 3 * 2 * 0.003)
    path, source = explorer.panel.arrays["trajectory"], explorer.panel.arrays["source"]
    (a, b), (c, d) = path[-1] - path[0], source[:-1].mean(axis=0) - path[0]
    assert a * d - b * c == pytest.approx(0, abs=1e-9)  # the source is on the trajectory


ENDS_EARLY = {"t_0": 62.184, "u_0": 0.99979, "t_E": 25.597, "s": 4.9217, "q": 0.49393, "alpha": 2.8905}


@pytest.mark.parametrize("changes", [{}, ENDS_EARLY])
def test_arrow_lies_on_the_drawn_trajectory_and_points_along_it(changes):
    """The arrow once lay beyond the end of a trajectory that ends early."""
    explorer = LensExplorer(**changes)
    path, (tail, head) = explorer.panel.arrays["trajectory"], explorer.panel.arrays["direction"]
    assert np.hypot(*(path - head).T).min() <= np.hypot(*(path[1] - path[0]))
    arrow, way = head - tail, path[-1] - path[0]
    assert arrow @ way == pytest.approx(np.hypot(*arrow) * np.hypot(*way))


def test_lens_plane_of_a_single_lens_is_its_ring():
    plane = lens_plane({"u_0": 0.3, "rho": 0.0, "s": np.nan, "q": np.nan, "alpha": np.nan}, np.linspace(-1, 1, 5))
    assert np.allclose(np.hypot(*plane.critical_curves[0].T), 1) and plane.lenses.tolist() == [[0, 0]]
    assert plane.trajectory.tolist() == [[x, 0.3] for x in (-1, -0.5, 0, 0.5, 1)]
    assert np.allclose(plane.source, [0, 0.3])


def test_state_goes_round_through_the_notebooks_parameters(tmp_path):
    explorer = LensExplorer(s=2.0, t_E=12.345)
    saved = yaml.safe_load(explorer.save(tmp_path / "state.yaml").read_text())
    assert set(saved) <= set(declared_parameters(FOLDER / "02_explore.ipynb")) and saved == explorer.parameters
    assert LensExplorer(**saved).parameters == saved
    text = explorer.state.value
    explorer.set(s=0.7)
    explorer.from_yaml(text)
    assert explorer.parameters["s"] == 2.0
    explorer.state.value = "q: 1e-3"  # a number to everyone but to YAML 1.1
    explorer.restore.click()
    assert explorer.parameters["q"] == 1e-3 and explorer.message.value == ""
    explorer.state.value = "nonsense"
    explorer.restore.click()
    assert "expected lines" in explorer.message.value
    explorer.state.value = text
    explorer.restore.click()
    assert explorer.message.value == ""
    with pytest.raises(ValueError, match="q: came 7"):
        explorer.set(q=7)
    with pytest.raises(ValueError, match="unknown parameter z"):
        LensExplorer(z=1)


@pytest.mark.parametrize("schedule", ["thesis", "roman"])
@pytest.mark.parametrize("preset", ["distinct", "planetary", "stellar", "baseline", "roman"])
def test_surprise_is_a_binary_of_the_preset_within_the_season(preset, schedule):
    t, rng = sky.epochs(schedule), np.random.default_rng(1)
    for _ in range(10):
        p = lens.draw_binary(sky.load_preset(preset), rng, t)
        low = {"distinct": 0.1, "planetary": 1e-4, "stellar": 0.1, "baseline": 1e-4, "roman": 1e-6}
        assert low[preset] <= p["q"] <= 1 and 0.1 * t[-1] < p["t_0"] < 0.9 * sky.season_length(t) + 1e-4
        if preset == "distinct":
            track = straight_track(p["u_0"], p["alpha"])
            assert crosses_caustic((t - p["t_0"]) / p["t_E"], track, p["rho"], p["s"], p["q"])


def test_surprise_that_meets_no_condition_is_a_message(monkeypatch):
    explorer, shown = LensExplorer(), None
    explorer.preset.value = "distinct"
    explorer.surprise.click()
    assert explorer.message.value == "" and explorer.parameters["s"] != lens.START["s"]
    shown = explorer.parameters
    monkeypatch.setattr(lens, "meets_caustic", lambda *_: False)
    monkeypatch.setattr(lens, "MOST_DRAWS", 20)
    explorer.surprise.click()
    assert "none of 20 binaries of preset distinct" in explorer.message.value and explorer.parameters == shown


def test_export_of_the_view(tmp_path, monkeypatch):
    explorer = LensExplorer()
    monkeypatch.setenv("HOME", str(tmp_path))
    page = explorer.save("~/event.html")
    text = page.read_text()
    assert page == tmp_path / "event.html" and "<title>resonant topology; Δχ²" in text
    assert "plotly.js v" in text and '<script src="http' not in text  # stands alone: the library is inside
    assert '"modeBarButtonsToRemove": ["sendChartToCloud"' in text
    assert "q = 0.05, alpha = 1 rad" in text and "about the centre of mass" in text  # the parameters of the lens
    assert '"title":{"text":"time (d); ' in text
    drawn = {trace.name: trace for trace in explorer.panel.figure_now().data}
    assert len(drawn["caustics"].x) == len(explorer.panel.arrays["caustics"])

    def save(name):
        explorer.file.value = str(name)
        explorer.save_button.click()
        return explorer.message.value

    assert "unknown ending" in save(tmp_path / "event.doc")
    assert "no such folder" in save(tmp_path / "missing" / "event.png")

    def no_browser(*_, **__):
        raise OSError("Kaleido requires Google Chrome to be installed.")

    monkeypatch.setattr("plotly.graph_objects.Figure.write_image", no_browser)
    assert "apt-get install chromium" in save(tmp_path / "event.pdf") and not (tmp_path / "event.pdf").exists()


def test_changes_that_come_while_one_is_drawn_become_one_and_the_slow_part_waits():
    class Page:
        def on(self, event, function):
            assert event == "drawn"
            self.drawn = lambda: function(1)

    page, calls = Page(), []
    drawing = panels.Drawing(page, lambda: calls.append("work"), lambda: calls.append("later"), patience=5)

    async def drag():
        for _ in range(50):
            drawing()
        assert calls == ["work"]  # the page has not answered yet
        page.drawn()
        assert calls == ["work", "work"]  # the newest value, once
        page.drawn()
        drawing()  # a further move within the grace
        assert calls == ["work"] * 3
        page.drawn()
        await asyncio.sleep(2 * drawing.GRACE)
        assert calls == ["work"] * 3 + ["later"]

    asyncio.run(drag())


def test_a_page_that_never_answers_is_not_waited_for():
    calls = []
    page = panels.curves()
    drawing = panels.Drawing(page, lambda: calls.append("work"), lambda: calls.append("later"), patience=0.01)

    async def drag():
        drawing()
        await asyncio.sleep(0.2)

    asyncio.run(drag())
    assert calls == ["work", "later"]


def test_drawn_epochs_are_said_and_a_zoom_draws_them_all():
    explorer = LensExplorer()
    said = explorer.panel.layout_change["xaxis4.title.text"]
    n = len(explorer.panel.arrays["light curve"])
    assert f"{n} of 6912 epochs are drawn" in said
    explorer.panel._hear({"view": {"xaxis2.range": [10.0, 12.0]}, "width": 900, "zoomed": False})
    t = explorer.panel.arrays["light curve"][:, 0]
    assert ((t >= 10) & (t <= 12)).sum() == 193 and len(t) < n + 193
    assert "all 193 epochs in view are drawn" in explorer.panel.layout_change["xaxis4.title.text"]


def test_saved_figure_has_the_ranges_of_the_page_and_the_parameters():
    """The whole season was once saved of a view that was zoomed, without a parameter."""
    explorer = LensExplorer()
    explorer.panel._hear({"view": {"xaxis2.range": [30.0, 33.0]}, "width": 900, "zoomed": False})
    fig = explorer.panel.figure_now(subtitle=lens.in_words(explorer.parameters))
    assert fig.layout.xaxis2.range == (30.0, 33.0) and "u_0 = 0.12 θ_E" in fig.layout.title.subtitle.text
    wanted = explorer.panel.layout_change["xaxis.range"]
    explorer.set(s=3.0)
    assert explorer.panel.figure_now().layout.xaxis.range != tuple(wanted)  # the lens plane follows the lens


def test_undo_goes_back_one_lens_at_a_time():
    explorer = LensExplorer()
    start = explorer.parameters
    explorer.surprise.click()
    one = explorer.parameters
    explorer.surprise.click()
    explorer.undo_button.click()
    assert explorer.parameters == one
    explorer.undo_button.click()
    assert explorer.parameters == start
    explorer.undo_button.click()
    assert "nothing to undo" in explorer.message.value and explorer.parameters == start


@pytest.mark.parametrize("name", list(FRAMES))
def test_a_frame_states_the_same_lens(name):
    explorer = LensExplorer(q=0.5, alpha=2.0)
    p, before = explorer.parameters, explorer.view.curve.lens
    explorer.frames.value = name
    assert explorer.parameters == pytest.approx(p, abs=1e-12)
    shown = {key: control.value for key, control in explorer.controls.items()}
    distance = p["q"] * p["s"] / (1 + p["q"])  # of the primary from the centre of mass
    t = np.linspace(p["t_0"] - 30, p["t_0"] + 30, 60_001)
    tau = (t - p["t_0"]) / p["t_E"]
    x = tau * np.cos(p["alpha"]) - p["u_0"] * np.sin(p["alpha"])
    y = tau * np.sin(p["alpha"]) + p["u_0"] * np.cos(p["alpha"])
    far = np.hypot(x + distance, y) if "primary" in name else np.hypot(x, y)
    assert t[far.argmin()] == pytest.approx(shown["t_0"], abs=0.002) and far.min() == pytest.approx(abs(shown["u_0"]))
    if "MulensModel" in name:
        assert shown["alpha"] == pytest.approx(np.degrees(2.0) + 180)
    explorer.set(q=0.5, alpha=2.0)
    assert np.abs(explorer.view.curve.lens - before).max() < 1e-9


def test_an_angle_beyond_its_range_is_the_same_angle_within():
    explorer = LensExplorer()
    explorer.controls["alpha"].box.value = "-1"
    assert explorer.parameters["alpha"] == pytest.approx(2 * np.pi - 1) and not explorer.message.is_error


def test_source_track_is_in_step_with_the_light_curve():
    explorer = LensExplorer()
    t, x, _, flux = np.frombuffer(explorer.panel.track).reshape(4, -1)
    p = explorer.parameters
    tau = (t - p["t_0"]) / p["t_E"]
    assert np.allclose(x, tau * np.cos(p["alpha"]) - p["u_0"] * np.sin(p["alpha"]))
    assert flux == pytest.approx(binary(t, **geometry(p)), rel=2e-3) and explorer.panel.radius == p["rho"]


def test_the_anomaly_is_found_and_shown():
    explorer = LensExplorer()
    c = explorer.view.curve
    deviation = np.abs(c.lens - c.single) / c.sigma
    explorer.season.anomaly.click()
    low, high = explorer.panel.window()
    assert low < c.t[deviation.argmax()] < high and high - low < 20
    flat = LensExplorer(q=1e-6, u_0=0.8).view.curve
    assert traces.anomaly_window(flat.t, flat.residual()) is None  # noise alone
    assert "in view are drawn" in explorer.panel.layout_change["xaxis4.title.text"]
    explorer.season.whole.click()
    assert explorer.panel.window() is None
    t = np.arange(500) / 96
    assert traces.anomaly_window(t, np.zeros(500)) is None


def test_axis_of_magnitudes_has_the_baseline_magnitude_at_flux_one():
    explorer = LensExplorer(m_base=21.0)
    explorer.season.brightness.value = "magnitude"
    layout = explorer.panel.layout_change
    values, words = layout["yaxis2.tickvals"], [float(w) for w in layout["yaxis2.ticktext"]]
    assert layout["yaxis2.title.text"] == "magnitude" and 3 <= len(values) <= 7
    assert 21 - 2.5 * np.log10(values) == pytest.approx(words, abs=1e-6)
    explorer.season.brightness.value = "flux"
    assert [float(w) for w in explorer.panel.layout_change["yaxis2.ticktext"]] == pytest.approx(
        explorer.panel.layout_change["yaxis2.tickvals"])


def test_a_slow_deviation_that_no_epoch_shows_stands_out_in_the_bins():
    t, rng = np.arange(6912) / 96, np.random.default_rng(0)
    residual = rng.normal(size=len(t)) + 0.8 * np.exp(-0.5 * ((t - 40) / 1.0) ** 2)
    bins = traces.binned_residual(t, residual)
    assert np.abs(residual).max() < 5 and 39 < bins[bins[:, 2].argmax(), 0] < 41 and bins[:, 2].max() > 4.5
    low, high = traces.anomaly_window(t, residual)
    assert 36 < low < 39.5 and 40.5 < high < 44
    assert traces.symlog(np.array([-1000.0, -10, -5, 0, 5, 100])).tolist() == [-3, -1, -0.5, 0, 0.5, 2]


@pytest.mark.parametrize("largest", [1, 4, 6, 12, 25, 40, 900, 5000, 2e5, 3e6])
def test_ticks_of_a_residual_keep_apart(largest):
    """Bins are more significant than epochs: the ticks of these ran into one another."""
    ticks = traces.residual_ticks(np.array([-0.3, 0.2]) * largest, np.array([-0.5, 1.0]) * largest)
    at, end = np.array(ticks["yaxis3__tickvals"]), traces.symlog(np.array([float(largest)]))[0]
    drawn = at[np.abs(at) <= end]
    assert (np.diff(drawn) >= 0.14 * 2 * end).all()


def test_magnification_map_is_brightest_inside_the_caustic():
    from PIL import Image

    explorer = LensExplorer()
    assert explorer.panel.layout_change["images"] == []
    explorer.map.value = True
    (image,) = explorer.panel.layout_change["images"]
    cover = np.asarray(Image.open(io.BytesIO(base64.b64decode(image["source"].split(",")[1]))))[:, :, 1].astype(float)
    size = len(cover)
    x = image["x"] + (np.arange(size) / (size - 1)) * image["sizex"]
    y = image["y"] - (np.arange(size) / (size - 1)) * image["sizey"]
    i, j = np.unravel_index(cover.argmax(), cover.shape)
    caustic = explorer.panel.arrays["caustics"]
    assert np.nanmin(np.hypot(caustic[:, 0] - x[j], caustic[:, 1] - y[i])) < 0.1
    assert cover[size // 2, size // 2] > cover[0, 0]


def test_an_executed_notebook_holds_a_picture_and_plotly_once(tmp_path):
    """Without a kernel a page once showed nothing, and each panel stored 4.6 MB of plotly.js."""
    import nbformat
    from nbconvert import HTMLExporter
    from nbconvert.preprocessors import ExecutePreprocessor

    source = ("from microlens.explore import LensExplorer\none, two = LensExplorer(), LensExplorer(s=2)", "one.widget",
              "two.widget")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in source])
    ExecutePreprocessor(timeout=300, kernel_name="python3").preprocess(notebook, {"metadata": {"path": str(tmp_path)}})
    assert nbformat.writes(notebook).count("plotly.js v") == 1
    for cell in notebook.cells[1:]:
        picture = cell.outputs[0]["data"]["text/html"]
        data = base64.b64decode(picture.split("base64,")[1].split('"')[0])
        assert data.startswith(b"\x89PNG") and len(data) > 10_000
    page, _ = HTMLExporter().from_notebook_node(notebook)
    assert page.count('class="microlens-still-') == 2


# ---- its fits -------------------------------------------------------------------------------------------------------


def test_fit_buttons_fit_what_is_shown_and_draw_it(tmp_path):
    explorer = LensExplorer(t_E=12.0, q=0.03)
    truth, fits = explorer.parameters, explorer.fits
    fits.buttons[0].click()  # PSPL
    fits.wait(120)
    assert explorer.measured.name == "the simulated event" and not explorer.message.is_error
    assert fits.found.best.model == "PSPL" and "t_E" in fits.values.value and fits.cancel.disabled
    assert explorer.single.t_E == fits.found.best.parameters["t_E"]
    explorer.controls["q"].box.value = "0.028"  # not quite the true lens
    worse = explorer.view.chi2
    fits.buttons[2].click()  # from the sliders
    fits.wait(300)
    best = fits.found.best
    assert not explorer.message.is_error and "solution" in fits.words.value and len(fits.solutions.options) >= 1
    assert best.chi2 < worse - 10 and abs(best.parameters["q"] - truth["q"]) < 5 * best.errors["q"]
    assert explorer.parameters["q"] == pytest.approx(best.parameters["q"])
    assert explorer.view.chi2 == pytest.approx(best.chi2, rel=0.01)
    fits.file.value = str(tmp_path / "fit.py")
    fits.export_button.click()
    assert "MulensModel" in (tmp_path / "fit.py").read_text() and (tmp_path / "fit.dat").is_file()
    fits.file.value = str(tmp_path / "fit.json")
    fits.export_button.click()
    assert json.loads((tmp_path / "fit.json").read_text())
    fits.file.value = str(tmp_path / "fit.doc")
    fits.export_button.click()
    assert "ends in .py or .json" in explorer.message.value
    explorer.simulated.click()
    assert explorer.measured is None and "threshold" in explorer.panel.layout_change["title.text"]


def test_a_fit_shows_its_progress_and_can_be_cancelled(monkeypatch):
    explorer, begun, told = LensExplorer(), threading.Event(), []

    def slow(*_, progress, cancel, **__):
        progress(0.25, "a quarter")
        told.append((explorer.fits.progress.value, explorer.fits.words.value))
        begun.set()
        while not cancel():
            time.sleep(0.01)
        raise fit.FitCancelled("cancelled")

    monkeypatch.setattr(fit, "fit_light_curve", slow)
    explorer.fits.buttons[3].click()
    assert begun.wait(10) and told == [(0.25, "a quarter")] and not explorer.fits.cancel.disabled
    explorer.fits.buttons[0].click()
    assert "a fit is running" in explorer.message.value
    explorer.fits.cancel.click()
    explorer.fits.wait(10)
    assert "no solution yet" in explorer.fits.words.value and explorer.fits.cancel.disabled

    def broken(*_, **__):
        raise ValueError("5 epochs are too few.")

    monkeypatch.setattr(fit, "fit_light_curve", broken)
    explorer.fits.buttons[1].click()
    explorer.fits.wait(10)
    assert "microlens-error" in explorer.fits.words.value and "too few" in explorer.fits.words.value


# ---- the event browser ----------------------------------------------------------------------------------------------


def test_browser_filters_sorts_steps_and_exports(data, predictions, tmp_path, monkeypatch):
    b = EventBrowser(data, predictions)
    assert "14 of 14 events" in b.message.value and len(b.table.rows) == browser.PAGE
    assert b.ranges["q"].layout.display is None
    assert b.ranges["t_0_2"].layout.display == "none"  # no event of this dataset has a second source
    b.kind.value = "binary"
    assert len(b.selected) == 6 and (b.selected["class"] == "binary").all()
    middle = float(b.selected["q"].median())
    b.limits["q"][1].value, b.limits["m_base"][0].value = f"{middle}", "18.1"
    assert 0 < len(b.selected) < 6 and (b.selected["q"] <= middle).all() and (b.selected["m_base"] >= 18.1).all()
    b.clear()
    assert len(b.selected) == 14
    b.mistakes.value = True
    assert len(b.selected) and (b.selected["called"] != b.selected["observable"]).all()
    assert (b.selected["row"] % 3 == 0).all()
    b.clear()
    b._on_table({"sort": "delta_chi2_pspl"})
    b._on_table({"sort": "delta_chi2_pspl"})
    assert b.table.descending and (np.diff(b.selected["delta_chi2_pspl"]) <= 0).all()
    first = b.row
    b.step(1)
    assert b.row != first and b.table.chosen == 1 and f"row {b.row}" in b.panel.layout_change["title.text"]
    assert len(b.panel.arrays["caustics"]) > 100 and "alpha =" in b.truth.value
    b._on_table({"move": "page"})
    assert b.at == 1 + browser.PAGE and b.table.chosen == 1
    b._on_table({"move": "last"})
    assert b.at == 13
    b.step(1)
    assert b.at == 13
    b._on_table({"move": "first"})
    b.note.value = "odd one"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert f"{len(b.selected)} events written" in b.export("~/selection.csv")
    kept = pd.read_csv(tmp_path / "selection.csv", index_col="row")
    assert kept.loc[b.row, "note"] == "odd one" and len(kept) == 14 and kept.index[0] == first
    b.step(1)
    b.step(-1)
    assert b.note.value == "odd one"
    b.open_button.click()  # the same dataset again, for instance with other predictions
    assert b.notes.on(first) == "odd one"
    assert EventBrowser(data).dataset_notes.on(first) == "odd one"  # they are kept beside the dataset
    assert EventBrowser(small_dataset(tmp_path / "other.h5", seed=3)).dataset_notes.on(first) == ""


def test_browser_draws_a_single_lens_and_a_flat_event(data, network):
    b = EventBrowser(data, classifier=network)
    b.kind.value = "pspl"
    assert len(b.panel.arrays["P(binary)"]) > 50 and b.panel.pale == []
    assert "nan" not in b.truth.value and "t_0_2" not in b.truth.value  # it has one source
    ring = b.panel.arrays["critical curves"]
    assert np.allclose(np.hypot(*ring[np.isfinite(ring[:, 0])].T), 1)
    b.kind.value = "flat"
    assert len(b.panel.arrays["lenses"]) == 0 and len(b.panel.arrays["light curve"]) > 400


def test_browser_shows_a_variable_star_and_what_a_network_of_three_classes_calls_it(network, tmp_path):
    data = small_dataset(tmp_path / "x.h5", n_other=3)
    with open_dataset(data) as d:
        lensing, other = np.flatnonzero(d.labels < 3), np.flatnonzero(d.labels == 3)
        log_p = np.log(0.9 * np.eye(3)[d.labels[lensing]] + 0.1 / 3).astype("f4")
        stars = np.log(0.9 * np.eye(3)[[2, 0, 2]] + 0.1 / 3).astype("f4")
        arrays = {"row": lensing, "log_p": log_p, "called": log_p.argmax(1), "other_row": other, "other_log_p": stars,
                  "other_called": np.array([2, 0, 2])}
        attributes = {"data_checksum": d.checksum, "n_other": 3}
        file = write_predictions(tmp_path / "predictions.h5", arrays, attributes)
        of_four = write_predictions(tmp_path / "of_four.h5", arrays | {"other_called": np.full(3, 3)}, attributes)
        subclass = d.params["subclass"][other[0]]
    b = EventBrowser(data, file, classifier=network)
    b.kind.value = "other"
    assert b.selected["row"].tolist() == other.tolist()
    assert b.selected["called"].tolist() == ["binary", "flat", "binary"]
    assert b.truth.value.startswith("truth: f_s = 1, m_base = ") and f"subclass = {subclass}" in b.truth.value
    assert "nan" not in b.truth.value and "period = " in b.truth.value
    assert len(b.panel.arrays["lenses"]) == 0 and len(b.panel.arrays["light curve"]) > 400
    assert len(b.panel.arrays["P(binary)"]) > 50
    b.query.value = f"subclass == '{subclass}'"
    assert set(b.selected["subclass"]) == {subclass}
    b = EventBrowser(data, of_four, classifier=network)  # one that knows class other: such stars were "called flat"
    b.kind.value = b.called.value = "other"
    assert len(b.selected) == 3 and "called other with P(binary)" in b.panel.layout_change["title.text"]
    b.mistakes.value = True
    assert (b.selected["observable"] != "other").all()


def test_newest_predictions_of_the_dataset_are_taken(data, tmp_path):
    """The alphabetically last evaluation was taken, and one of another dataset refused the whole run."""
    other = small_dataset(tmp_path / "other.h5", seed=5)
    old = predict(data, tmp_path / "eval_z_20260101_000000" / "predictions.h5")
    new = predict(data, tmp_path / "eval_x_20260102_000000" / "predictions.h5", wrong=1)
    foreign = predict(other, tmp_path / "eval_zz_20260103_000000" / "predictions.h5", wrong=2)
    arrays, attributes = read_predictions(foreign)
    del arrays["called"]  # an earlier version made it
    write_predictions(foreign, arrays, attributes)
    for age, file in enumerate((foreign, new, old)):
        os.utime(file, (time.time() - age, time.time() - age))
    with open_dataset(data) as d:
        assert events.find_predictions(tmp_path, d.checksum) == new
        assert events.find_predictions(old.parent, d.checksum) == old
        assert (events.event_table(d, tmp_path)["called"][::3] == "pspl").all()
    assert "14 of 14" in EventBrowser(data, tmp_path).message.value
    assert "holds predictions of other datasets alone" in EventBrowser(data, foreign.parent).message.value


def test_wrong_use_of_the_browser_is_a_message_in_the_widget(data, predictions, tmp_path):
    assert "no dataset" in EventBrowser(tmp_path / "gone.h5").message.value.lower()
    (tmp_path / "bad.h5").write_bytes(b"not HDF5")
    assert "bad.h5" in EventBrowser(tmp_path / "bad.h5").message.value
    assert "no predictions there" in EventBrowser(data, tmp_path).message.value
    assert "no predictions file of this format" in EventBrowser(data, data).message.value
    empty = EventBrowser()
    empty.kind.value = "flat"
    assert "no dataset is open" in empty.message.value
    empty.open_button.click()
    assert "no file is named" in empty.message.value
    b = EventBrowser(data, predictions.parent)
    b.query.value = "q < 1e-9"
    assert "no event passes" in b.message.value and "0 of 14" in b.message.value and b.row is None
    assert "no event" in b.panel.layout_change["title.text"] and len(b.panel.arrays["light curve"]) == 0
    b.note.value = "about nothing"
    assert b.notes is None and not (data.with_suffix(".notes.csv").exists() and
                                    "nothing" in data.with_suffix(".notes.csv").read_text())
    b.step(1)
    b.file.value = str(tmp_path / "nothing.csv")
    b.export_button.click()
    assert "no event is selected" in b.message.value
    b.query.value = "q <"
    assert "no expression" in b.message.value
    b.query.value = ""
    b.limits["q"][0].value = "0,1"
    assert "expected a number with a decimal point" in b.message.value
    b.limits["q"][0].value = ""
    assert "14 of 14" in b.message.value
    b.file.value = str(data)
    b.export_button.click()
    assert "ends in .csv" in b.message.value
    b.real.value = str(tmp_path / "none.dat")
    b.real_button.click()
    assert "no such file" in b.message.value


def short_light_curve(path):
    """A Roman-like season of 40 points, too few for an answer, at full Julian dates."""
    t = 2_461_000.5 + np.arange(40) / 96
    y = 20 + 0.01 * np.random.default_rng(0).normal(size=40)
    path.write_text("\n".join(f"{a:.5f} {b:.4f} 0.0100" for a, b in zip(t, y, strict=True)) + "\n")
    return path


def test_real_light_curve_gets_the_answer_of_classify(network, tmp_path):
    """The browser once showed the bare network's answer, and one where `classify` gives none."""
    b = EventBrowser(classifier=network)
    folder = FOLDER / "light_curves"
    for file in (folder / "binary.txt.gz", folder / "pspl.csv.gz", short_light_curve(tmp_path / "short.dat")):
        b.real.value = str(file)
        b.real_button.click()
        answer = classify([file], ClassifyConfig(experiment_name="baseline"))[0].iloc[0]
        title = b.panel.layout_change["title.text"]
        if answer["class"]:
            assert f"called {answer['class']} with P(binary) = {answer['p_binary']:.3f}" in title
        else:
            assert "not classified" in title
        assert answer["flags"] in title and ("(" + answer["flags"] + ")" in title or not answer["flags"])
        assert len(b.panel.arrays["residual"]) == len(b.panel.arrays["light curve"]) < 6000
    assert "few points" in title and "- 2450000 (d); all 40 epochs" in b.panel.layout_change["xaxis4.title.text"]
    assert 11_000 < b.panel.arrays["light curve"][0, 0] < 11_002


def test_note_typed_for_a_light_curve_file_goes_to_no_event(data, tmp_path):
    """It once went to the row of the dataset that was shown before."""
    file = Path(shutil.copy(FOLDER / "light_curves" / "pspl.csv.gz", tmp_path))
    b = EventBrowser(data)
    b.step(1)
    row = b.row
    b.show_file(file)
    b.note.value = "about the file"
    assert b.dataset_notes.on(row) == "" and (tmp_path / ".pspl.csv.gz.notes.csv").is_file()
    b.step(1)
    assert b.note.value == ""
    b.show_file(file)
    assert b.note.value == "about the file" and "t_E = " in b.truth.value


def test_notes_that_are_none_are_named(data, tmp_path):
    copy = Path(shutil.copy(data, tmp_path / "x.h5"))
    copy.with_suffix(".notes.csv").write_text("a,b\n1,2\n")
    assert "x.notes.csv: holds no notes" in EventBrowser(copy).message.value


def test_curves_are_read_one_at_a_time(data, monkeypatch):
    read = []
    flux = Dataset.flux
    monkeypatch.setattr(Dataset, "flux", lambda self, rows=None: read.append(rows) or flux(self, rows))
    b = EventBrowser(data)
    b.kind.value = "binary"
    b.step(1)
    assert sorted(set(read)) == [0, 1, 2]  # one event for each of the three steps


def test_filters_by_observable_class_and_the_word_class(data):
    b = EventBrowser(data)
    b.observable.value = "flat"
    assert len(b.selected) and (b.selected["observable"] == "flat").all()
    b.clear()
    b.query.value = 'class == "binary" and s > 0'
    assert len(b.selected) == 6 and not b.message.is_error


def test_brush_of_the_scatter_filters_the_table(data):
    b = EventBrowser(data)
    b.scatter_button.value = True
    s, q = b.events["s"].dropna().sort_values().to_numpy(), b.events["q"].dropna()
    b.scatter.panel._hear({"selected": {"x": [s[1], s[3]], "y": [q.min() / 2, 1.0]}})
    assert 0 < len(b.selected) < 6 and b.selected["s"].between(0.99 * s[1], 1.01 * s[3]).all()
    binaries = b.scatter.panel.names.index("binary")
    b.scatter.panel._hear({"clicked": [binaries, 0]})
    assert b.row == b.scatter.rows["binary"][0]
    b.scatter.panel._hear({"selected": None})
    assert len(b.selected) == 14


def test_an_event_goes_into_the_explorer_and_back(data):
    b = EventBrowser(data)
    b.kind.value = "binary"
    shown = b.row
    b.explore_button.click()
    assert b.workbench.children[1] is b.explorer.widget and not b.message.is_error
    assert b.explorer.parameters["q"] == pytest.approx(b.event["q"]) and b.explorer.measured is b.measured
    view, n = b.explorer.view, len(b.measured.t)
    assert view.chi2 == pytest.approx(n, abs=6 * np.sqrt(2 * n))  # the true lens goes through its light curve
    assert f"row {shown}: χ² of this" in b.explorer.panel.layout_change["title.text"]
    b.close_button.click()
    assert b.workbench.children == () and b.row == shown


def test_without_a_lens_plane_the_light_curve_has_the_whole_width(data):
    b = EventBrowser(data)
    b.kind.value = "flat"
    assert not b.panel.layout_change["xaxis.visible"] and b.panel.layout_change["xaxis2.domain"][0] < 0.1
    b.kind.value = "binary"
    assert b.panel.layout_change["xaxis.visible"] and b.panel.layout_change["xaxis2.domain"][0] > 0.3


# ---- the training monitor -------------------------------------------------------------------------------------------


RECORD = {"epoch": 1, "train_loss": 2.0, "val_loss": 1.0, "val_accuracy": 0.5, "events_per_second": 9.0,
          "seconds": 30.0, "recall_flat": 1.0, "recall_pspl": 0.5, "recall_binary": None}


def write_log(run: Path, n_passes: int, age: float = 0.0):
    log = run / "log.jsonl"
    log.write_text("".join(json.dumps({**RECORD, "epoch": i + 1}) + "\n" for i in range(n_passes)))
    os.utime(log, (time.time() - age,) * 2)


def test_monitor_reads_a_log_that_is_being_written(tmp_path):
    monitor, log = TrainingMonitor(tmp_path / "run"), tmp_path / "run" / "log.jsonl"
    assert "no log" in monitor.message.value
    log.parent.mkdir()
    monitor.refresh()
    assert "no pass is finished" in monitor.message.value
    line = json.dumps(RECORD) + "\n"
    log.write_text(line + line[:40])
    monitor.refresh()
    assert monitor.panel.arrays["val_loss"].tolist() == [[1, 1]] and "pass 1" in monitor.message.value
    assert np.isnan(monitor.panel.arrays["recall_binary"][0, 1])
    log.write_text(line + json.dumps({**RECORD, "epoch": 2, "val_loss": 0.5}) + "\n")
    monitor.refresh()
    assert monitor.panel.arrays["val_loss"].tolist() == [[1, 1], [2, 0.5]]


def test_monitor_says_how_far_a_run_is_and_when_it_is_silent(tmp_path):
    (tmp_path / "config.json").write_text('{"epochs": 25}')
    write_log(tmp_path, 5, age=10)
    monitor = TrainingMonitor(tmp_path)
    assert "pass 5 of 25" in monitor.message.value and "about 10 min left" in monitor.message.value
    assert "last record 10 s ago" in monitor.message.value and "<b>" not in monitor.message.value
    write_log(tmp_path, 5, age=600)
    monitor.refresh()
    said = monitor.message.value
    assert "<b>last record 10 min ago: has it stopped?</b>" in said and "left" not in said
    (tmp_path / "complete").touch()
    monitor.refresh()
    assert "complete" in monitor.message.value and "ago" not in monitor.message.value


def test_monitor_takes_the_name_of_a_run(tmp_path, monkeypatch):
    monkeypatch.setenv("MICROLENS_RUNS", str(tmp_path))
    run = tmp_path / "d64_l4_hier_20260101"
    run.mkdir()
    (run / "config.json").write_text('{"epochs": 3}')
    write_log(run, 2)
    assert "pass 2 of 3" in TrainingMonitor("d64_l4").message.value
    assert TrainingMonitor("later").run == tmp_path / "later"  # a run that is still to come


def test_monitor_follows_until_the_run_is_complete(tmp_path):
    monitor = TrainingMonitor(tmp_path, every=0.02)
    monitor.button.value = True
    write_log(tmp_path, 1)
    (tmp_path / "complete").touch()
    for _ in range(200):
        if "complete" in monitor.message.value:
            break
        time.sleep(0.02)
    assert "pass 1" in monitor.message.value and "complete" in monitor.message.value


@pytest.mark.parametrize("line", ['{"epoch": 1}', "[1]", "not JSON"])
def test_log_of_another_kind_is_a_message(tmp_path, line):
    (tmp_path / "log.jsonl").write_text(line + "\n")
    assert "line 1: is no record of a training" in TrainingMonitor(tmp_path).message.value
