"""Notebook 02 in a real JupyterLab in chromium: run all, move a slider by keyboard, see the figure follow, no console errors."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CHROMIUM = os.environ.get("BROWSER_PATH") or shutil.which("chromium") or shutil.which("google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update",
             "--disable-sync"]
READY = """async () => { const app = window.jupyterapp; await app.restored;
  for (let i = 0; i < 600 && !app.shell.currentWidget?.context; i++) await new Promise(r => setTimeout(r, 100));
  const panel = app.shell.currentWidget; await panel.context.ready; await panel.sessionContext.ready;
  await panel.sessionContext.session.kernel.info; }"""
TITLE = "() => document.querySelector('.js-plotly-plot')?._fullLayout.title.text"
CAUSTIC = """() => { const d = document.querySelector('.js-plotly-plot')._fullData.find(t => t.name == 'caustics');
  return Array.from(d.x).filter(Number.isFinite).reduce((a, b) => Math.max(a, b), -1e9); }"""


@pytest.fixture
def lab(tmp_path):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    settings = tmp_path / "settings" / "@jupyterlab"
    for folder, content in (("apputils-extension/notification", '{"fetchNews": "false", "checkForUpdates": false}'),
                            ("docmanager-extension/plugin", '{"autosave": false}'),
                            ("notebook-extension/tracker", '{"windowingMode": "none"}')):
        path = settings / f"{folder}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    shutil.copy(ROOT / "notebooks" / "02_explore.ipynb", tmp_path)
    home = {f"JUPYTER_{k}_DIR": str(tmp_path / k.lower()) for k in ("CONFIG", "DATA", "RUNTIME")}
    home |= {"JUPYTERLAB_SETTINGS_DIR": str(tmp_path / "settings"), "JUPYTERLAB_WORKSPACES_DIR": str(tmp_path / "workspaces"),
             "OMP_NUM_THREADS": "1"}
    log = open(tmp_path / "lab.log", "w")
    process = subprocess.Popen([sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
                                "--ServerApp.port_retries=0", "--IdentityProvider.token=t", "--LabApp.expose_app_in_browser=True"],
                               cwd=tmp_path, env={**os.environ, **home}, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    for _ in range(300):
        try:
            urllib.request.urlopen(f"{url}/api?token=t", timeout=1)
            break
        except OSError:
            time.sleep(0.2)
    yield f"{url}/lab/tree/02_explore.ipynb?token=t&reset", tmp_path
    process.terminate()
    process.wait(20)
    log.close()


@pytest.mark.browser
@pytest.mark.skipif(not CHROMIUM, reason="no chromium here (Debian: apt-get install chromium)")
def test_slider_moved_by_keyboard_moves_the_figure(lab):
    from playwright.sync_api import sync_playwright

    url, place = lab
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1500, "height": 1400})
        errors = []
        page.on("pageerror", lambda e: errors.append(str(e)))
        page.goto(url, timeout=60_000)
        page.wait_for_function("() => window.jupyterapp", timeout=60_000)
        page.evaluate(READY)
        page.evaluate("async () => { await window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
        page.wait_for_selector(".js-plotly-plot .main-svg", timeout=120_000)
        page.wait_for_function("() => document.body.innerText.includes('ok  A at (0.01, 0.01)')", timeout=60_000)
        assert "resonant topology" in page.evaluate(TITLE)
        handles = page.locator(".widget-slider .noUi-handle")
        assert handles.count() == 9
        before, took = page.evaluate(CAUSTIC), []
        handles.nth(4).focus()  # the fifth slider is s
        for _ in range(8):
            old = page.evaluate(CAUSTIC)
            begun = time.perf_counter()
            page.keyboard.press("ArrowRight")
            page.wait_for_function(f"() => ({CAUSTIC})() != {old}", polling=20, timeout=20_000)
            took.append(time.perf_counter() - begun)
        after = page.evaluate(CAUSTIC)
        page.screenshot(path=os.environ.get("MICROLENS_SCREENSHOT", str(place / "explore.png")))
        browser.close()
    assert after != before
    assert not errors
    print(f"key press to changed figure: median {1e3 * sorted(took)[len(took) // 2]:.0f} ms of {len(took)}")
