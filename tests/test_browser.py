"""Notebook 02 in a real JupyterLab in chromium: run all, move sliders and the event browser by keyboard, no console errors.

MICROLENS_SCREENSHOTS=folder keeps the screenshots.
"""

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
WATCH = """() => { window.drawn = []; window.pressed = [];
  document.querySelector('.js-plotly-plot').on('plotly_afterplot', () => drawn.push(performance.now()));
  document.addEventListener('keydown', () => pressed.push(performance.now()), true); }"""


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
def test_notebook_02_by_keyboard(lab):
    from playwright.sync_api import sync_playwright

    url, place = lab
    shots = Path(os.environ.get("MICROLENS_SCREENSHOTS", place))
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1500, "height": 1400})
        errors = []
        page.on("pageerror", lambda e: errors.append(str(e)))
        page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
        page.goto(url, timeout=60_000)
        page.wait_for_function("() => window.jupyterapp", timeout=60_000)
        page.evaluate(READY)
        page.evaluate("async () => { await window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
        page.wait_for_selector(".js-plotly-plot .main-svg", timeout=120_000)
        page.wait_for_function("() => document.body.innerText.includes('ok  A at (0.01, 0.01)')", timeout=120_000)
        page.wait_for_selector(".microlens-table tbody tr", timeout=60_000)
        assert "resonant topology" in page.evaluate(TITLE)

        handles = page.locator(".widget-slider .noUi-handle")
        assert handles.count() == 9
        page.evaluate(WATCH)
        handles.nth(4).focus()  # the fifth slider is s
        before, took = page.evaluate(CAUSTIC), []
        for _ in range(12):
            page.evaluate("() => { drawn.length = pressed.length = 0; }")
            page.keyboard.press("ArrowRight")
            page.wait_for_function("() => drawn.length > 1", timeout=20_000)  # the lens, then the probabilities
            took.append(page.evaluate("() => drawn[0] - pressed[0]"))
        after = page.evaluate(CAUSTIC)
        assert after != before

        # A held key: every press counts, the figure does not draw all of them and ends where the slider is.
        page.evaluate("() => { drawn.length = pressed.length = 0; }")
        for _ in range(40):
            page.keyboard.press("ArrowLeft")
        page.wait_for_function(f"() => Math.abs(({CAUSTIC})() - {after}) > 0.1 && drawn.at(-1) > pressed.at(-1)"
                               " && performance.now() - drawn.at(-1) > 1000", timeout=20_000)
        n_pressed, n_drawn, late = page.evaluate("() => [pressed.length, drawn.length, drawn.at(-1) - pressed.at(-1)]")
        assert n_pressed == 40 and n_drawn < 80

        boxes = page.locator(".microlens-box input")
        boxes.nth(4).fill("2.5")
        boxes.nth(4).press("Enter")
        page.wait_for_function(f"() => ({TITLE})().includes('wide topology')", timeout=20_000)
        assert boxes.nth(4).input_value() == "2.5"
        boxes.nth(5).fill("7")
        boxes.nth(5).press("Enter")
        page.wait_for_function("() => document.body.innerText.includes('q: came 7.0, expected 1e-06 to 1')", timeout=20_000)
        page.wait_for_function("() => document.querySelectorAll('.microlens-box input')[5].value == '0.05'", timeout=20_000)
        page.get_by_role("button", name="caustics").press("Enter")
        page.wait_for_function("() => document.querySelector('.js-plotly-plot')._fullLayout.xaxis.range[1] < 2.6", timeout=20_000)
        old = page.evaluate(TITLE)
        page.get_by_role("button", name="surprise me").press("Enter")
        page.wait_for_function(f"() => ({TITLE})() != {old!r}", timeout=20_000)
        page.wait_for_timeout(500)
        page.screenshot(path=str(shots / "explorer.png"))

        rows = page.locator(".microlens-table tr[aria-selected=true]")
        page.locator(".microlens-table").focus()
        first = rows.inner_text()
        page.keyboard.press("ArrowDown")
        page.wait_for_function(f"() => document.querySelector('.microlens-table tr[aria-selected=true]').innerText != {first!r}",
                               timeout=20_000)
        page.get_by_role("button", name="delta_chi2_pspl").press("Enter")
        page.wait_for_selector(".microlens-table th[aria-sort=ascending] >> text=delta_chi2_pspl", timeout=20_000)
        page.get_by_role("button", name="next >").press("Enter")
        page.wait_for_function("() => document.querySelectorAll('.microlens-table tbody tr')[1].ariaSelected == 'true'",
                               timeout=20_000)
        row = page.locator(".microlens-table tbody tr").nth(1).locator("td").first.inner_text()
        page.wait_for_function("() => document.querySelectorAll('.js-plotly-plot')[1]._fullLayout.title.text"
                               f".startsWith('row {row}:')", timeout=20_000)
        page.locator(".microlens-table").scroll_into_view_if_needed()
        page.wait_for_timeout(500)
        page.screenshot(path=str(shots / "browser.png"))
        browser.close()
    assert not errors
    print(f"key press to changed figure: median {sorted(took)[len(took) // 2]:.0f} ms, least {min(took):.0f} ms of {len(took)}, "
          f"load {os.getloadavg()[0]:.1f}; key held for 40 presses: {n_drawn} drawings, the last {late:.0f} ms after the last press")
