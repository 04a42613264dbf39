"""The explorers without a browser: numbers, drawing, callbacks, wrong use."""

import asyncio
import json
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import yaml

import microlens
from microlens import survey
from microlens.config import SimulateConfig
from microlens.fit import fit_noise_free
from microlens.explore import EventBrowser, LensExplorer, TrainingMonitor, browser, lens, panels
from microlens.lens import binary
from microlens.notebook import FOLDER, declared_parameters
from microlens.data.simulation import simulate
from microlens.data.format import concatenate, open_dataset, write_predictions
from microlens.fit.points import FLUX_STEPS, thin


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("explore") / "x.h5"
    return simulate(SimulateConfig(n_flat=5, n_pspl=5, n_binary=10, output=str(path), num_workers=1), progress=False)


@pytest.fixture(scope="module")
def predictions(data):
    """Every third event is called flat, the others what they are."""
    with open_dataset(data) as d:
        called = np.where(np.arange(len(d)) % 3 == 0, 0, d.labels_observable)
        log_p = np.log(0.9 * np.eye(3)[called] + 0.1 / 3).astype("f4")
        return write_predictions(data.with_name("predictions.h5"), {"row": np.arange(len(d)), "log_p": log_p, "label": d.labels,
                                                                    "p_binary_steps": np.zeros((len(d), 9), "f2")}, {})


def event(p):
    return {k: v for k, v in p.items() if k not in ("f_s", "m_base")}


# ---- the lens explorer -------------------------------------------------------------------------------------------------------


def test_light_curve_shown_is_that_of_the_lens():
    view = lens.prepare(lens.START, seed=1)
    t, flux = view["arrays"]["light curve"].T
    pull = (flux - binary(t, **event(lens.START), method="exact")) / 0.0089  # sigma at m = 21; smaller where the event is brighter
    assert abs(np.median(pull)) < 0.1 and np.abs(pull[t < 5]).max() < 5
    assert view["topology"] == "resonant" and view["delta_chi2"] > 1e4


def test_delta_chi2_is_that_of_the_fit_and_the_verdict_follows_it():
    p = {**lens.START, "q": 1e-6, "u_0": 0.8}
    t = survey.epochs("thesis")
    flux = binary(t, **event(p), method="exact")
    direct = fit_noise_free(t, flux, survey.sigma_flux(flux, p["m_base"]), (36.0, 15.0, 0.8)).chi2
    view = lens.prepare(p)
    assert direct < 160 and view["delta_chi2"] == pytest.approx(direct, abs=5)  # nodes are good to 1e-3 of A
    assert "<b>not observable</b>" in lens.title(view) and "<b>observable</b>" in lens.title(lens.prepare(lens.START))


def test_drawn_epochs_show_every_narrow_feature_and_make_up_nothing():
    t, rng = np.arange(6912) / 96.0, np.random.default_rng(0)
    y = np.exp(-0.5 * ((t - 30) / 10) ** 2)
    y[4000:4003] += 0.4  # three epochs
    keep = thin(t, y)
    assert {4000, 4003} <= set(keep) and len(keep) < 800 and np.diff(t[keep]).max() < 0.4
    # Between drawn epochs the curve stays within two of the steps, so a line through them is the curve to the eye.
    assert np.abs(np.interp(t, t[keep], y[keep]) - y).max() <= 2 * np.ptp(y) / FLUX_STEPS
    noise = rng.normal(size=len(t))
    noise[100] = 12.0
    assert 100 in thin(t, noise, noise) and len(thin(t, noise)) < 1000
    assert thin(t, np.ones(len(t)), time_steps=100)[0] == 0


def test_controls_move_the_figure_and_hold_what_was_typed():
    explorer = LensExplorer(classifier=microlens.load(), q=0.01)
    before, s = explorer.panel.arrays["caustics"], explorer.controls["s"]
    s.slider.value = np.log10(2.0)
    assert not np.array_equal(before, explorer.panel.arrays["caustics"])
    assert "wide" in explorer.panel.layout_change["title.text"] and s.box.value == pytest.approx(2.0, rel=1e-3)
    s.box.value = 0.7777
    assert explorer.parameters["s"] == 0.7777 and abs(s.slider.value - np.log10(0.7777)) <= s.step
    s.slider.value += 0.4 * s.step  # the page moves a slider to its nearest step: no move of the user's
    assert explorer.parameters["s"] == 0.7777
    s.box.value = 99.0
    assert explorer.parameters["s"] == s.box.value == 0.7777 and "s: came 99.0, expected 0.2 to 5" in explorer.message.value
    flat, pspl, both = (explorer.panel.arrays[f"P({c})"][:, 1] for c in ("flat", "pspl", "binary"))
    assert np.allclose(flat + pspl + both, 1, atol=1e-5) and len(flat) > 100
    assert explorer.panel.pale == []


def test_only_what_changed_is_sent():
    explorer, sent = LensExplorer(), []
    explorer.panel.send_state = lambda key=None: sent.append(set(key or ()))
    explorer.controls["m_base"].box.value = 22.0
    (changed,) = sent
    names = {explorer.panel.names[int(k.split("_")[1])] for k in changed if k.startswith("curve_")}
    assert {"light curve", "residual"} <= names and not names & set(panels.PLANE)


def test_lens_plane_looks_where_it_is_told():
    explorer = LensExplorer(rho=0.003)
    width = {}
    for look in lens.VIEWS:
        explorer.look.value = look
        (a, b), (c, d) = (explorer.panel.layout_change[f"{axis}.range"] for axis in ("xaxis", "yaxis"))
        assert b - a == pytest.approx(d - c)  # the aspect is kept
        width[look] = b - a
    assert width["lenses"] > width["caustics"] > width["source"] == pytest.approx(2 * 3 * 2 * 0.003)
    path, source = explorer.panel.arrays["trajectory"], explorer.panel.arrays["source"]
    (a, b), (c, d) = path[-1] - path[0], source[:-1].mean(axis=0) - path[0]
    assert a * d - b * c == pytest.approx(0, abs=1e-9)  # the source is on the trajectory


def test_state_goes_round_through_the_notebooks_parameters(tmp_path):
    explorer = LensExplorer(s=2.0, t_E=12.345)
    saved = yaml.safe_load(explorer.save(tmp_path / "state.yaml").read_text())
    assert set(saved) <= set(declared_parameters(FOLDER / "02_explore.ipynb")) and saved == explorer.parameters
    assert LensExplorer(**saved).parameters == saved
    text = explorer.state.value
    explorer.set(s=0.7)
    explorer.from_yaml(text)
    assert explorer.parameters["s"] == 2.0
    explorer._say(explorer.from_yaml, "nonsense")
    assert "expected lines" in explorer.message.value
    with pytest.raises(ValueError, match="q: came 7"):
        explorer.set(q=7)
    with pytest.raises(ValueError, match="unknown parameter z"):
        LensExplorer(z=1)


@pytest.mark.parametrize("preset", ["distinct", "planetary", "stellar", "baseline", "roman"])
def test_surprise_is_a_binary_of_the_preset(preset):
    explorer = LensExplorer()
    explorer.preset.value = preset
    explorer.surprise.click()
    assert explorer.message.value == "" and explorer.parameters["s"] != lens.START["s"]
    p, low = explorer.parameters, {"distinct": 0.1, "planetary": 1e-4, "stellar": 0.1, "baseline": 1e-4, "roman": 1e-6}
    assert low[preset] <= p["q"] <= 1


def test_export_of_the_view(tmp_path, monkeypatch):
    explorer = LensExplorer()
    page = explorer.save(tmp_path / "event.html").read_text()
    assert "plotly.js v" in page and '<script src="http' not in page  # stands alone: the library is inside
    assert explorer.panel.still().data[0].x.shape == explorer.panel.arrays["caustics"][:, 0].shape
    explorer._say(explorer.save, tmp_path / "event.doc")
    assert "unknown ending" in explorer.message.value

    def no_browser(*_, **__):
        raise OSError("Kaleido requires Google Chrome to be installed.")

    monkeypatch.setattr("plotly.graph_objects.Figure.write_image", no_browser)
    explorer._say(explorer.save, tmp_path / "event.pdf")
    assert "apt-get install chromium" in explorer.message.value and not (tmp_path / "event.pdf").exists()


def test_changes_that_come_while_one_is_drawn_become_one_and_the_slow_part_waits():
    class Page:
        def on_drawn(self, function):
            self.drawn = function

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
    drawing = panels.Drawing(panels.curves(), lambda: calls.append("work"), lambda: calls.append("later"), patience=0.01)

    async def drag():
        drawing()
        await asyncio.sleep(0.2)

    asyncio.run(drag())
    assert calls == ["work", "later"]


# ---- the event browser -------------------------------------------------------------------------------------------------------


def test_browser_filters_sorts_steps_and_exports(data, predictions, tmp_path):
    b = EventBrowser(data, predictions, microlens.load())
    assert "20 of 20 events" in b.message.value and len(b.table.rows) == browser.PAGE
    b.kind.value = "binary"
    assert len(b.selected) == 10 and (b.selected["class"] == "binary").all()
    b.limits["q"][1].value, b.limits["m_base"][0].value = "0.05", "18.5"
    assert len(b.selected) and (b.selected["q"] <= 0.05).all() and (b.selected["m_base"] >= 18.5).all()
    b.clear()
    assert len(b.selected) == 20
    b.mistakes.value = True
    assert len(b.selected) and (b.selected["called"] != b.selected["observable"]).all() and (b.selected["row"] % 3 == 0).all()
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
    assert b.at == 19
    b.step(1)
    assert b.at == 19
    b._on_table({"move": "first"})
    b.note.value = "odd one"
    assert f"{len(b.selected)} events written" in b.export(tmp_path / "selection.csv")
    kept = pd.read_csv(tmp_path / "selection.csv", index_col="row")
    assert kept.loc[b.row, "note"] == "odd one" and len(kept) == 20 and kept.index[0] == first
    b.step(1)
    b.step(-1)
    assert b.note.value == "odd one"


def test_browser_draws_a_single_lens_and_a_flat_event(data):
    b = EventBrowser(data)
    b.kind.value = "pspl"
    assert np.allclose(np.hypot(*b.panel.arrays["critical curves"].T), 1)
    b.kind.value = "flat"
    assert len(b.panel.arrays["lenses"]) == 0 and len(b.panel.arrays["light curve"]) > 400


def test_wrong_use_of_the_browser_is_a_message_in_the_widget(data, predictions, tmp_path):
    assert "no such dataset" in EventBrowser(tmp_path / "gone.h5").message.value
    (tmp_path / "bad.h5").write_bytes(b"not HDF5")
    assert "not a readable HDF5 file" in EventBrowser(tmp_path / "bad.h5").message.value
    assert "no predictions there" in EventBrowser(data, tmp_path).message.value
    assert "no predictions file of this format" in EventBrowser(data, data).message.value
    wrong = write_predictions(tmp_path / "p.h5", {"row": [10**6], "log_p": np.zeros((1, 3)), "label": [0]}, {})
    assert "are not predictions of" in EventBrowser(data, wrong).message.value
    empty = EventBrowser()
    empty.kind.value = "flat"
    assert "no dataset is open" in empty.message.value
    b = EventBrowser(data, predictions.parent)
    b.query.value = "q < 1e-9"
    assert "no event passes" in b.message.value and "0 of 20" in b.message.value and b.row is None
    assert "no event" in b.panel.layout_change["title.text"] and len(b.panel.arrays["light curve"]) == 0
    b.step(1)
    b._say(b.export, tmp_path / "nothing.csv")
    assert "no event is selected" in b.message.value
    b.query.value = "q <"
    assert "no expression" in b.message.value
    b.query.value = ""
    b.limits["q"][0].value = "small"
    assert "expected a number" in b.message.value
    b.limits["q"][0].value = ""
    b._say(b.export, data)
    assert "ends in .csv" in b.message.value
    b._say(b.show_file, tmp_path / "none.dat")
    assert "no such file" in b.message.value


def test_real_light_curve_is_drawn_with_its_class():
    b = EventBrowser(classifier=microlens.load())
    b.real.value = str(FOLDER / "light_curves" / "binary.txt.gz")
    b.real_button.click()
    assert "called binary" in b.panel.layout_change["title.text"] and len(b.panel.arrays["P(binary)"]) > 50
    assert len(b.panel.arrays["residual"]) == len(b.panel.arrays["light curve"]) < 6000


def test_a_large_file_is_not_read_into_memory(data, tmp_path):
    """20,000 events by reference are 553 MB of flux; opening, filtering and stepping take a hundredth of it."""
    big = concatenate([data] * 1000, tmp_path / "big.h5", virtual=True)
    tracemalloc.start()
    b = EventBrowser(big)
    b.kind.value = "binary"
    b.step(1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(b.selected) == 10_000 and peak < 40e6


# ---- the training monitor ----------------------------------------------------------------------------------------------------


RECORD = {"epoch": 1, "train_loss": 2.0, "val_loss": 1.0, "val_accuracy": 0.5, "events_per_second": 9.0, "recall_flat": 1.0,
          "recall_pspl": 0.5, "recall_binary": None}


def test_monitor_reads_a_log_that_is_being_written(tmp_path):
    monitor, log = TrainingMonitor(tmp_path), tmp_path / "log.jsonl"
    assert "no log" in monitor.message.value
    line = json.dumps(RECORD) + "\n"
    log.write_text(line + line[:40])
    monitor.refresh()
    assert monitor.panel.arrays["val_loss"].tolist() == [[1, 1]] and "epoch 1" in monitor.message.value
    assert np.isnan(monitor.panel.arrays["recall_binary"][0, 1])
    log.write_text(line + json.dumps({**RECORD, "epoch": 2, "val_loss": 0.5}) + "\n")
    monitor.refresh()
    assert monitor.panel.arrays["val_loss"].tolist() == [[1, 1], [2, 0.5]]


def test_monitor_follows_until_the_run_is_complete(tmp_path):
    monitor = TrainingMonitor(tmp_path, every=0.02)
    monitor.button.value = True
    (tmp_path / "log.jsonl").write_text(json.dumps(RECORD) + "\n")
    (tmp_path / "complete").touch()
    for _ in range(200):
        if "(complete)" in monitor.message.value:
            break
        asyncio.run(asyncio.sleep(0.02))
    assert "(complete): epoch 1" in monitor.message.value


@pytest.mark.parametrize("line", ['{"epoch": 1}', "[1]", "not JSON"])
def test_log_of_another_kind_is_a_message(tmp_path, line):
    (tmp_path / "log.jsonl").write_text(line + "\n")
    assert "line 1: is no record of a training" in TrainingMonitor(tmp_path).message.value
