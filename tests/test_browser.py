"""The widgets in chromium: a panel alone at several widths, and notebook 02 in a real JupyterLab, by keyboard.

MICROLENS_SCREENSHOTS=folder keeps the screenshots.
"""

import base64
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from microlens.explore import LensExplorer
from microlens.explore.scatter import Scatter

ROOT = Path(__file__).parents[1]
CHROMIUM = os.environ.get("BROWSER_PATH") or shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [pytest.mark.browser,
              pytest.mark.skipif(not CHROMIUM, reason="no chromium here (Debian: apt-get install chromium)")]
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync"]


@pytest.fixture
def page():
    """A page of chromium; `page.errors` collects what goes wrong on it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1500, "height": 1400})
        page.errors = []
        page.on("pageerror", lambda e: page.errors.append(str(e)))
        page.on("console", lambda m: page.errors.append(m.text) if m.type == "error" else None)
        yield page
        browser.close()


# ---- a panel alone --------------------------------------------------------------------------------------------------

# anywidget's model, as far as panels.js uses it.
ALONE = """<div class="microlens-explorer"><div id="el"></div></div>
<script type="module">
const state = @STATE@;
for (const name in state)
  if (name.startsWith("curve_") || name === "track") state[name] = new DataView(new Float64Array(state[name]).buffer);
const listeners = {};
const library = { get: () => @SOURCE@ };
window.sent = [];
window.model = {
  widget_manager: { get_model: async () => library },
  get: (name) => state[name],
  set: (values) => { Object.assign(state, values); Object.keys(values).forEach((k) => listeners[`change:${k}`]?.()); },
  on: (event, f) => (listeners[event] = f), off: (event) => delete listeners[event],
  send: (m) => { window.sent.push(m); if ("drawn" in m) window.drawn = (window.drawn ?? 0) + 1; } };
const module = await import(URL.createObjectURL(new Blob([@SCRIPT@], { type: "text/javascript" })));
module.default.render({ model: window.model, el: document.getElementById("el") });
</script>"""
RANGES = "() => ['xaxis', 'yaxis'].map((a) => document.querySelector('.js-plotly-plot')._fullLayout[a].range)"
SCALE = """() => { const { xaxis, yaxis } = document.querySelector('.js-plotly-plot')._fullLayout;
  const scale = (axis) => axis._length / (axis.range[1] - axis.range[0]);
  return scale(xaxis) / scale(yaxis); }"""
OVERLAP = """() => { const box = (s) => document.querySelector(s).getBoundingClientRect();
  const legend = box('.legend'), figure = box('.js-plotly-plot');
  return legend.bottom > figure.bottom + 1 || ['.xtitle', '.x4title'].some((s) => box(s).bottom > legend.top); }"""


def alone(panel, file: Path) -> str:
    """A page with this panel and nothing else; its address."""
    state = {"figure": panel.figure, "config": panel.config, "layout_change": panel.layout_change,
             "pale": [], "serial": 0, "library": "IPY_MODEL_x", "radius": panel.radius, "still": ""}
    numbers = {f"curve_{i}": panel.arrays[name].T.ravel() for i, name in enumerate(panel.names)}
    for name, values in {**numbers, "track": np.frombuffer(panel.track)}.items():
        state[name] = ["NaN" if v != v else float(v) for v in values]
    text = json.dumps(state, default=lambda a: a.tolist()).replace('"NaN"', "NaN")
    script, source = (json.dumps(x).replace("</", "<\\/") for x in (panel._esm, panel.library.source))
    page = ALONE.replace("@STATE@", text).replace("@SCRIPT@", script).replace("@SOURCE@", source)
    file.write_text(f"<style>{panel._css}</style>" + page, encoding="utf-8")
    return file.as_uri()


def open_alone(page, panel, folder):
    """Show a panel on a page of its own, and wait until it is drawn."""
    page.goto(alone(panel, folder / "panel.html"))
    page.wait_for_selector(".js-plotly-plot .legend", timeout=60_000)


def test_a_panel_keeps_its_view_and_its_legend_at_every_width(page, tmp_path):
    panel = LensExplorer().panel
    wanted = [panel.layout_change["xaxis.range"], panel.layout_change["yaxis.range"]]
    open_alone(page, panel, tmp_path)
    for width in (1500, 1300, 1500, 800, 1500, 2560, 1500):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(600)
        assert page.evaluate(RANGES) == [pytest.approx(r) for r in wanted], width
        assert page.evaluate(SCALE) == pytest.approx(1, rel=0.01), width
        assert not page.evaluate(OVERLAP), width
    buttons = page.eval_on_selector_all(".modebar-btn", "all => all.map((b) => b.dataset.title)")
    assert "Zoom" in buttons and not [b for b in buttons if "Share" in b or "Select" in b]
    # What has the focus carries the mark by which JupyterLab leaves its keys alone.
    page.evaluate("() => document.querySelector('.microlens-explorer')"
                  ".insertAdjacentHTML('beforeend', '<button>x</button>')")
    page.get_by_role("button", name="x", exact=True).focus()
    assert page.evaluate("() => document.activeElement.hasAttribute('data-lm-suppress-shortcuts')")
    assert not page.errors


def test_a_zoom_of_the_user_stays_until_another_view_is_chosen(page, tmp_path):
    panel = LensExplorer().panel
    open_alone(page, panel, tmp_path)
    page.wait_for_timeout(300)
    page.evaluate("() => microlensPlotly.then((p) => p.relayout(document.querySelector('.js-plotly-plot'), "
                  "{'xaxis.range': [-0.5, 0.5], 'yaxis.range': [-0.5, 0.5]}))")

    def change(serial, **layout):
        change = {**panel.layout_change, **layout}
        page.evaluate("(s) => model.set(s)", {"layout_change": change, "serial": serial})
        page.wait_for_function(f"() => window.drawn >= {serial}", timeout=20_000)
        return page.evaluate(RANGES)

    moved = {"xaxis.range": [-2, 2], "yaxis.range": [-2, 2]}
    assert change(1, **moved) == [[-0.5, 0.5], [-0.5, 0.5]]  # a slider was moved
    page.set_viewport_size({"width": 1100, "height": 900})
    page.wait_for_timeout(600)
    assert page.evaluate(RANGES)[1] == [-0.5, 0.5]
    another = {"xaxis.range": [-1, 1], "yaxis.range": [-1, 1], "meta": {"plane": "caustics", "event": ""}}
    assert change(2, **another) == [[-1, 1], [-1, 1]]


AT = """() => { const box = (s) => document.querySelector(s).getBoundingClientRect();
  const figure = document.querySelector('.js-plotly-plot'), layout = figure._fullLayout;
  const place = figure.getBoundingClientRect();
  const centre = (b, side, size) => b[side] + b[size] / 2 - place[side];
  const line = box('.microlens-now'), source = box('.microlens-source');
  return [layout.xaxis2.p2l(line.left + 0.5 - place.left - layout.xaxis2._offset),
          layout.xaxis.p2l(centre(source, 'left', 'width') - layout.xaxis._offset),
          layout.yaxis.p2l(centre(source, 'top', 'height') - layout.yaxis._offset)]; }"""
TIME_PANEL = """() => { const figure = document.querySelector('.js-plotly-plot'), l = figure._fullLayout;
  const b = figure.getBoundingClientRect();
  return [b.left + l.xaxis2._offset, l.xaxis2._length, b.top + l.yaxis2._offset + 40]; }"""


def test_the_source_follows_the_pointer_the_slider_of_time_and_plays(page, tmp_path):
    explorer = LensExplorer()
    p = explorer.parameters
    open_alone(page, explorer.panel, tmp_path)
    page.wait_for_timeout(300)

    def in_step():
        t, x, y = page.evaluate(AT)
        tau = (t - p["t_0"]) / p["t_E"]
        assert x == pytest.approx(tau * np.cos(p["alpha"]) - p["u_0"] * np.sin(p["alpha"]), abs=0.02)
        assert y == pytest.approx(tau * np.sin(p["alpha"]) + p["u_0"] * np.cos(p["alpha"]), abs=0.02)
        return t

    left, width, top = page.evaluate(TIME_PANEL)
    page.mouse.move(left + 0.4 * width, top)
    page.mouse.move(left + 0.48 * width, top + 5)
    page.wait_for_timeout(50)
    first = in_step()
    assert "of the baseline; source at (" in page.locator(".microlens-bar output").inner_text()
    took = page.evaluate("""() => { const figure = document.querySelector('.js-plotly-plot');
      const b = figure.getBoundingClientRect(), start = performance.now();
      for (let i = 0; i < 50; i++) figure.dispatchEvent(new PointerEvent('pointermove', { bubbles: true,
        clientX: b.left + figure._fullLayout.xaxis2._offset + 200 + i, clientY: b.top + 120 }));
      document.querySelector('.microlens-source').getBoundingClientRect();
      return (performance.now() - start) / 50; }""")
    assert took < 100, took
    page.locator(".microlens-bar input").focus()
    page.keyboard.press("End")
    page.keyboard.press("Home")
    for _ in range(5):
        page.keyboard.press("PageUp")
    assert in_step() != first
    page.get_by_role("button", name="play the source's way").press("Enter")
    page.wait_for_timeout(800)
    page.get_by_role("button", name="play the source's way").press("Enter")
    played = in_step()
    page.wait_for_timeout(300)
    assert in_step() == played > first - 20  # it stands still again
    page.screenshot(path=str(Path(os.environ.get("MICROLENS_SCREENSHOTS", tmp_path)) / "follow.png"))
    assert not page.errors
    print(f"pointer to source: {took:.1f} ms")


def test_a_zoom_is_reported_and_another_event_ends_it(page, tmp_path):
    panel = LensExplorer().panel
    open_alone(page, panel, tmp_path)
    page.wait_for_timeout(500)
    page.evaluate("() => microlensPlotly.then((p) => p.relayout(document.querySelector('.js-plotly-plot'), "
                  "{'xaxis2.range': [30, 33]}))")
    page.wait_for_function("() => window.sent.at(-1)?.view?.['xaxis2.range']", timeout=20_000)
    view = page.evaluate("() => window.sent.at(-1)")
    assert view["view"]["xaxis2.range"] == [30, 33] and view["width"] > 1000 and not view["zoomed"]
    change = {**panel.layout_change, "meta": {"plane": "lenses", "event": "another"}}
    page.evaluate("(s) => model.set(s)", {"layout_change": change, "serial": 1})
    page.wait_for_function("() => window.drawn >= 1", timeout=20_000)
    low, high = page.evaluate("() => document.querySelector('.js-plotly-plot')._fullLayout.xaxis2.range")
    assert low < 1 and high > 71


def test_a_box_on_logarithmic_axes_is_reported_in_the_units_of_the_columns(page, tmp_path):
    """A drag across s and q: the box that the scatter is told has the s and q of its corners, not their logarithms."""
    s, q = np.geomspace(0.2, 5, 30), np.geomspace(1e-6, 1, 30)
    events = pd.DataFrame({"row": range(30), "class": "binary", "s": s, "q": q})
    boxes = []
    scatter = Scatter(["s", "q"], boxes.append, lambda row: None)
    scatter.draw(events, events)
    open_alone(page, scatter.panel, tmp_path)
    corners = page.evaluate("""([s, q]) => { const figure = document.querySelector('.js-plotly-plot');
        const {xaxis, yaxis} = figure._fullLayout, box = figure.getBoundingClientRect();
        const left = box.left + xaxis._offset, top = box.top + yaxis._offset;
        return s.map((x, i) => [left + xaxis.d2p(x), top + yaxis.d2p(q[i])]); }""", [[0.5, 2.0], [1e-4, 1e-2]])
    page.mouse.move(*corners[0])
    page.mouse.down()
    page.mouse.move(*corners[1], steps=8)
    page.mouse.up()
    page.wait_for_function("() => window.sent.some((m) => m.selected)", timeout=20_000)
    scatter.panel._handle_custom_msg(page.evaluate("() => window.sent.findLast((m) => m.selected)"), [])
    assert boxes[-1]["s"] == pytest.approx((0.5, 2.0), rel=0.05)
    assert boxes[-1]["q"] == pytest.approx((1e-4, 1e-2), rel=0.1)
    assert not page.errors


def test_a_dark_page_has_a_dark_figure(page, tmp_path):
    panel = LensExplorer().panel
    shots = Path(os.environ.get("MICROLENS_SCREENSHOTS", tmp_path))
    open_alone(page, panel, tmp_path)
    ground = "() => document.querySelector('.js-plotly-plot')._fullLayout.plot_bgcolor"
    assert page.evaluate(ground) == "white"
    page.evaluate("() => { document.body.style.background = '#111'; document.body.style.color = '#ddd'; }")
    page.wait_for_function(f"() => ({ground})() === '#15181c'", timeout=20_000)
    lenses = "() => document.querySelector('.js-plotly-plot')._fullData.find(t => t.name == 'lenses').marker.color"
    assert page.evaluate(lenses) == "#f2f2f2"
    page.wait_for_timeout(500)
    page.screenshot(path=str(shots / "dark.png"))
    page.evaluate("() => { document.body.style.background = '#fff'; }")
    page.wait_for_function(f"() => ({ground})() === 'white'", timeout=20_000)
    assert not page.errors


# ---- notebook 02 in JupyterLab --------------------------------------------------------------------------------------

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
N_CELLS = "() => window.jupyterapp.shell.currentWidget.content.widgets.length"
SLIDER_WIDTHS = "() => [...document.querySelectorAll('.widget-slider .noUi-base')].map((s) => s.clientWidth)"


def zoomed_picture(page, zoom: float) -> bytes:
    """Zoom a window of 1500 by 1400 pixels as a browser does: other CSS pixels, of another size. Returns what it shows.

    The picture is not taken by playwright, which ends the zoom.
    """
    session = page.context.new_cdp_session(page)
    size = {"width": round(1500 / zoom), "height": round(1400 / zoom)}
    session.send("Emulation.setDeviceMetricsOverride", size | {"deviceScaleFactor": zoom, "mobile": False})
    page.wait_for_timeout(700)
    return base64.b64decode(session.send("Page.captureScreenshot")["data"])


@contextlib.contextmanager
def server(place: Path, module: str, *arguments, base: str = "/"):
    """A Jupyter application of its own in a folder, with its settings there; yields its address."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    settings = place / "settings" / "@jupyterlab"
    for folder, content in (("apputils-extension/notification", '{"fetchNews": "false", "checkForUpdates": false}'),
                            ("docmanager-extension/plugin", '{"autosave": false}'),
                            ("notebook-extension/tracker", '{"windowingMode": "none"}')):
        path = settings / f"{folder}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    home = {f"JUPYTER_{k}_DIR": str(place / k.lower()) for k in ("CONFIG", "DATA", "RUNTIME")}
    home |= {"JUPYTERLAB_SETTINGS_DIR": str(place / "settings"), "OMP_NUM_THREADS": "1",
             "JUPYTERLAB_WORKSPACES_DIR": str(place / "workspaces")}
    command = [sys.executable, "-m", module, "--no-browser", f"--port={port}", *arguments]
    url = f"http://127.0.0.1:{port}{base}"
    with open(place / "server.log", "w") as log:
        process = subprocess.Popen(command, cwd=place, env={**os.environ, **home}, stdout=log, stderr=log)
        try:
            for _ in range(600):
                try:
                    urllib.request.urlopen(f"{url}api?token=t", timeout=1)
                    break
                except urllib.error.HTTPError:  # it answers
                    break
                except OSError:
                    time.sleep(0.2)
            yield url
        finally:
            process.terminate()
            process.wait(20)


LAB = ("--allow-root", "--ip=127.0.0.1", "--ServerApp.port_retries=0", "--IdentityProvider.token=t")


@pytest.fixture
def lab(tmp_path):
    """The address of notebook 02 in a JupyterLab of its own, and its folder."""
    shutil.copy(ROOT / "notebooks" / "02_explore.ipynb", tmp_path)
    with server(tmp_path, "jupyterlab", *LAB, "--LabApp.expose_app_in_browser=True") as url:
        yield f"{url}lab/tree/02_explore.ipynb?token=t&reset", tmp_path


PREFIX = "/user/someone/"  # as JupyterHub gives each user one
PLACES = {
    "JupyterLab behind a prefix": ("jupyterlab", (*LAB, "--LabApp.expose_app_in_browser=True",
                                                  f"--ServerApp.base_url={PREFIX}"), PREFIX, "lab/tree/small.ipynb"),
    "Notebook 7": ("notebook", (*LAB, "--JupyterNotebookApp.expose_app_in_browser=True"), "/", "notebooks/small.ipynb"),
    "Voila behind a prefix": ("voila", ("small.ipynb", f"--base_url={PREFIX}"), PREFIX, ""),
}


@pytest.mark.parametrize("name", PLACES)
def test_the_explorer_runs_in(name, page, tmp_path):
    import nbformat

    module, arguments, base, path = PLACES[name]
    pytest.importorskip(module, reason=f"{module} is not installed (pip install {module})")
    cell = nbformat.v4.new_code_cell("from microlens.explore import LensExplorer\nLensExplorer().widget")
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=kernel), tmp_path / "small.ipynb")
    with server(tmp_path, module, *arguments, base=base) as url:
        page.goto(f"{url}{path}?token=t", timeout=120_000)
        if module != "voila":
            page.wait_for_function("() => window.jupyterapp", timeout=60_000)
            page.evaluate(READY)
            page.evaluate("async () => { await window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
        page.wait_for_selector(".js-plotly-plot .main-svg", timeout=240_000)
        page.wait_for_function(f"() => ({TITLE})()?.includes('resonant')", timeout=60_000)
        before = page.evaluate(CAUSTIC)
        page.locator(".widget-slider .noUi-handle").nth(4).focus()
        page.keyboard.press("ArrowRight")
        page.wait_for_function(f"() => ({CAUSTIC})() != {before}", timeout=60_000)
        assert page.locator("img[class^=microlens-still]").is_hidden()  # the widget has taken its place
        shots = Path(os.environ.get("MICROLENS_SCREENSHOTS", tmp_path))
        page.screenshot(path=str(shots / f"{name.replace(' ', '_')}.png"))


def test_notebook_02_by_keyboard(lab, page):
    url, place = lab
    shots = Path(os.environ.get("MICROLENS_SCREENSHOTS", place))
    page.goto(url, timeout=60_000)
    page.wait_for_function("() => window.jupyterapp", timeout=60_000)
    page.evaluate(READY)
    page.evaluate("async () => { await window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
    page.wait_for_function("() => document.querySelectorAll('.js-plotly-plot .legend').length > 1", timeout=240_000)
    page.wait_for_function("() => document.body.innerText.includes('ok  A at (0.01, 0.01)')", timeout=240_000)
    page.wait_for_selector(".microlens-table tbody tr", timeout=60_000)
    assert "resonant topology" in page.evaluate(TITLE)

    handles = page.locator(".widget-slider .noUi-handle")
    assert handles.count() == 11
    names = [handles.nth(i).get_attribute("aria-label") for i in range(11)]
    assert names[4] == "s (θ_E)" and all(names)
    assert float(handles.nth(3).get_attribute("aria-valuetext")) == pytest.approx(0.003, rel=0.01)  # not its logarithm
    assert page.locator(".microlens-box input").nth(4).get_attribute("title") == "s (θ_E): 0.2 to 5"
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

    # `d d` deletes a cell of the notebook, `a` inserts one: not while a control has the focus.
    n_cells = page.evaluate(N_CELLS)
    for keys in "dda":
        page.keyboard.press(keys)
    page.get_by_role("button", name="caustics").focus()
    page.keyboard.press("d")
    page.keyboard.press("d")
    page.wait_for_timeout(300)
    assert page.evaluate(N_CELLS) == n_cells and handles.count() == 11

    boxes = page.locator(".microlens-box input")
    boxes.nth(4).fill("2.5")
    boxes.nth(4).press("Enter")
    page.wait_for_function(f"() => ({TITLE})().includes('wide topology')", timeout=20_000)
    assert boxes.nth(4).input_value() == "2.5"
    boxes.nth(5).fill("0,5")
    boxes.nth(5).press("Enter")
    page.wait_for_function("() => document.body.innerText.includes(\"q: came '0,5'\")", timeout=20_000)
    page.wait_for_function("() => document.querySelectorAll('.microlens-box input')[5].value == '0.05'", timeout=20_000)
    page.get_by_role("button", name="caustics").press("Enter")
    page.wait_for_function("() => document.querySelector('.js-plotly-plot')._fullLayout.xaxis.range[1] < 2.6",
                           timeout=20_000)
    old = page.evaluate(TITLE)
    page.get_by_role("button", name="surprise me").press("Enter")
    page.wait_for_function(f"() => ({TITLE})() != {old!r}", timeout=20_000)
    for width in (2560, 1280, 1500, 800):
        page.set_viewport_size({"width": width, "height": 1400})
        page.wait_for_timeout(700)
        page.screenshot(path=str(shots / f"explorer_{width}.png"))
        assert min(page.evaluate(SLIDER_WIDTHS)) > 100, width
    for zoom in (0.8, 1.5):
        (shots / f"explorer_zoom_{zoom}.png").write_bytes(zoomed_picture(page, zoom))
        assert page.evaluate("() => window.devicePixelRatio") == pytest.approx(zoom)
        assert min(page.evaluate(SLIDER_WIDTHS)) > 100, zoom
    page.set_viewport_size({"width": 1500, "height": 1400})

    chosen = page.locator(".microlens-table tr[aria-selected=true]")
    page.locator(".microlens-table").focus()
    first = chosen.inner_text()
    page.keyboard.press("ArrowDown")
    text = "document.querySelector('.microlens-table tr[aria-selected=true]').innerText"
    page.wait_for_function(f"() => {text} != {first!r}", timeout=20_000)
    page.get_by_role("button", name="delta_chi2_pspl").press("Enter")
    page.wait_for_selector(".microlens-table th[aria-sort=ascending] >> text=delta_chi2_pspl", timeout=20_000)
    page.get_by_role("button", name="next >").press("Enter")
    page.wait_for_function("() => document.querySelectorAll('.microlens-table tbody tr')[1].ariaSelected == 'true'",
                           timeout=20_000)
    row = page.locator(".microlens-table tbody tr").nth(1).locator("td").first.inner_text()
    browser_title = TITLE.replace("document", "document.querySelectorAll('.microlens-explorer')[1]")
    browser_title = browser_title.replace("querySelector(", "querySelectorAll(").replace("?._full", "[1]?._full")
    page.wait_for_function(f"() => ({browser_title})().startsWith('row {row}:')", timeout=20_000)
    page.locator(".microlens-table").scroll_into_view_if_needed()
    page.wait_for_timeout(500)
    page.screenshot(path=str(shots / "browser.png"))
    assert not page.errors
    print(f"key press to changed figure: median {sorted(took)[len(took) // 2]:.0f} ms, least {min(took):.0f} ms of "
          f"{len(took)}, load {os.getloadavg()[0]:.1f}; key held for 40 presses: {n_drawn} drawings, the last "
          f"{late:.0f} ms after the last press")
