"""The explorers without a browser: numbers, drawing, callbacks, wrong use."""

import numpy as np
import pandas as pd
import pytest

import microlens
from microlens.config import SimulateConfig
from microlens.explore import EventBrowser, LensExplorer, TrainingMonitor, lens, panels
from microlens.magnification import binary
from microlens.simulate import simulate


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("explore") / "x.h5"
    return simulate(SimulateConfig(n_flat=5, n_pspl=5, n_binary=10, output=str(path), num_workers=1), progress=False)


def trace(figure, name):
    return next(t for t in figure.data if t.name == name)


def test_light_curve_shown_is_that_of_the_lens():
    view = lens.prepare(lens.START, seed=1)
    t, flux = view["arrays"]["light curve"].T
    p = {k: v for k, v in lens.START.items() if k not in ("f_s", "m_base")}
    pull = (flux - binary(t, **p, method="exact")) / 0.0089  # sigma at m = 21; smaller where the event is brighter
    assert abs(np.median(pull)) < 0.1 and np.abs(pull[t < 5]).max() < 5
    assert view["topology"] == "resonant" and view["delta_chi2"] > 1e4


def test_sliders_move_the_figure_and_state_goes_round():
    explorer = LensExplorer(classifier=microlens.load(), q=0.01)
    before = trace(explorer.figure, "caustics").x
    explorer.sliders["s"].value = 2.0
    assert not np.array_equal(before, trace(explorer.figure, "caustics").x) and "wide" in explorer.figure.layout.title.text
    assert trace(explorer.figure, "P(binary)").y[-1] == pytest.approx(1 - trace(explorer.figure, "P(flat)").y[-1]
                                                                     - trace(explorer.figure, "P(pspl)").y[-1], abs=1e-5)
    state = explorer.state.value
    explorer.set(s=0.7)
    explorer.from_yaml(state)
    assert explorer.parameters["s"] == pytest.approx(2.0, rel=1e-5)
    explorer.draw_from_preset()
    with pytest.raises(ValueError, match="q: came 7"):
        explorer.set(q=7)
    with pytest.raises(ValueError, match="unknown parameter z"):
        LensExplorer(z=1)


def test_export_of_the_view(tmp_path):
    explorer = LensExplorer()
    html = explorer.save(tmp_path / "event.html").read_text()
    assert "plotly.js v" in html or len(html) > 1_000_000  # stands alone: the library is inside
    explorer._say(explorer.save, tmp_path / "event.doc")
    assert "unknown ending" in explorer.message.value


def test_browser_filters_steps_and_exports(data, tmp_path):
    browser = EventBrowser(data, classifier=microlens.load())
    assert "20 of 20 events" in browser.message.value
    browser.kind.value = "binary"
    assert len(browser.selected) == 10
    browser.query.value = "q < 1e-9"
    assert "0 of 20" in browser.message.value and "no event" in browser.figure.layout.title.text
    browser.query.value = "q <"
    assert "no expression" in browser.message.value
    browser.query.value = ""
    first = browser.list.value
    browser.step(1)
    assert browser.list.value != first and f"row {browser.list.value}" in browser.figure.layout.title.text
    assert len(trace(browser.figure, "caustics").x) > 100
    browser.note.value = "odd one"
    browser.export(tmp_path / "selection.csv")
    kept = pd.read_csv(tmp_path / "selection.csv", index_col="row")
    assert kept.loc[browser.list.value, "note"] == "odd one" and len(kept) == 10


def test_wrong_files_are_messages_in_the_widget(tmp_path):
    assert "no such dataset" in EventBrowser(tmp_path / "gone.h5").message.value
    (tmp_path / "bad.h5").write_bytes(b"not HDF5")
    assert "not a readable HDF5 file" in EventBrowser(tmp_path / "bad.h5").message.value
    assert "no log" in TrainingMonitor(tmp_path / "gone").message.value


def test_monitor_reads_a_log_that_is_being_written(tmp_path):
    record = '{"epoch": 1, "train_loss": 2.0, "val_loss": 1.0, "val_accuracy": 0.5, "events_per_second": 9, "recall_flat": 1.0, '
    (tmp_path / "log.jsonl").write_text(record + '"recall_pspl": 0.5, "recall_binary": 0.1}\n' + record)
    monitor = TrainingMonitor(tmp_path)
    assert trace(monitor.figure, "val_loss").y == (1.0,) and "epoch 1" in monitor.message.value


def test_changes_that_come_while_one_is_drawn_become_one():
    import asyncio

    calls = []
    latest = panels.Latest(lambda: calls.append(1))

    async def drag():
        for _ in range(50):
            latest()
        await asyncio.sleep(0.05)

    asyncio.run(drag())
    assert len(calls) == 1
