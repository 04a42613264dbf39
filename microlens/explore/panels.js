// Draws what panels.Panel holds: a plotly figure whose curves arrive as bytes (their columns one behind the other,
// float64, little endian). Only changed curves are drawn again, and each drawing is reported, so that Python sends no
// faster than the page draws. Zooms are reported, too: Python then fills in epochs, and saves what is seen.
const PLANE = ["xaxis.range", "yaxis.range"]; // of the lens plane
const TIME_AXES = ["xaxis2", "xaxis3", "xaxis4"], HEIGHTS = ["yaxis2", "yaxis3"]; // of light curve, residual, probabilities
const PALE = 0.25; // opacity of a curve that shows an older state
const REPORT_AFTER = 120; // ms without a further zoom
const PLAY_SECONDS = 8;
const SMALLEST_SOURCE = 9; // pixels
// What is light on the light theme's ground, by what it is on a dark one.
const DARK = { white: "#15181c", black: "#f2f2f2", "#e5e9f0": "#343a43", "#2a3f5f": "#d8dde5", "#606060": "#b4bac2",
  "#999999": "#7d858f", "#56606b": "#a8b1bb", "#0072b2": "#56b4e9", "#d55e00": "#ff8a3d", "#cc79a7": "#e6a3c8" };

// ---- plotly, which all panels of a page share -----------------------------------------------------------------------

const Plotly = (model) => (globalThis.microlensPlotly ??= load(model));
async function load(model) {
  const library = await model.widget_manager.get_model(model.get("library").replace("IPY_MODEL_", ""));
  const text = `export default () => { ${library.get("source")}\n return globalThis.Plotly; };`;
  const url = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
  return (await import(/* webpackIgnore: true */ url)).default();
}

// ---- colours --------------------------------------------------------------------------------------------------------

function isDark(el) {
  for (let node = el; node; node = node.parentElement) {
    const [r, g, b, a = 1] = (getComputedStyle(node).backgroundColor.match(/[\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
    if (a > 0.5) return 0.3 * r + 0.6 * g + 0.1 * b < 128;
  }
  return false;
}

function darkened(value) {
  if (typeof value === "string") return DARK[value.toLowerCase()] ?? value;
  if (Array.isArray(value)) return value.map(darkened);
  if (value === null || typeof value !== "object" || ArrayBuffer.isView(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([key, x]) => [key, darkened(x)]));
}

// ---- the panel ------------------------------------------------------------------------------------------------------

function columns(view, n) {
  const all = new Float64Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
  const length = all.length / n;
  return Array.from({ length: n }, (_, k) => all.subarray(k * length, (k + 1) * length));
}

async function render({ model, el }) {
  const frame = document.createElement("div"), div = document.createElement("div");
  frame.style.position = "relative";
  frame.append(div);
  el.append(frame);
  const plotly = await Plotly(model);
  const names = model.get("figure").data.map((_, i) => `curve_${i}`);
  const widths = model.get("figure").data.map((trace) => trace.meta?.columns ?? 2);
  const curve = (i) => columns(model.get(names[i]), widths[i]);
  const opacity = (i) => (model.get("pale").includes(i) ? PALE : 1);
  const painted = (value) => (dark ? darkened(value) : value);
  let dark = isDark(el), sent, ready;
  let zoomed = false; // a zoom of the lens plane stays until another view is chosen or by double click

  function build(ranges = {}) {
    const { data, layout } = painted(structuredClone(model.get("figure")));
    const { paper_bgcolor = painted("white"), font } = layout;
    Object.assign(layout, { paper_bgcolor, font: { ...font, color: painted("#2a3f5f") } });
    div.style.height = `${layout.height}px`; // a resize takes it from here
    data.forEach((trace, i) => {
      [trace.x, trace.y, trace.customdata] = curve(i);
      trace.opacity = opacity(i);
    });
    sent = model.get("layout_change");
    ready = plotly.newPlot(div, data, layout, model.get("config")).then(() => plotly.update(div, {}, { ...sent, ...ranges }, []));
  }
  build();

  const changed = new Set();
  async function draw() {
    div.data.forEach((trace, i) => trace.opacity !== opacity(i) && changed.add(i));
    const which = [...changed];
    const curves = which.map(curve);
    changed.clear();
    const asked = model.get("layout_change");
    const relayout = {};
    zoomed &&= asked.meta?.plane === sent.meta?.plane;
    for (const key in asked) {
      const isNew = JSON.stringify(asked[key]) !== JSON.stringify(sent[key]);
      if (isNew && !(zoomed && PLANE.includes(key))) relayout[key] = asked[key];
    }
    if (asked.meta?.event !== sent.meta?.event) // what was zoomed of one event is nothing of another
      [...TIME_AXES, ...HEIGHTS].forEach((axis) => (relayout[`${axis}.autorange`] = true));
    sent = asked;
    const restyle = { x: curves.map((c) => c[0]), y: curves.map((c) => c[1]), opacity: which.map(opacity) };
    if (which.some((i) => widths[i] > 2)) restyle.customdata = curves.map((c) => c[2]);
    await plotly.update(div, which.length ? restyle : {}, relayout, which);
    model.send({ drawn: model.get("serial") });
    cursor.show();
  }

  // ---- what the user looks at ----
  const axes = () => Object.keys(div._fullLayout).filter((key) => /^[xy]axis\d*$/.test(key));
  const ranges = () => Object.fromEntries(axes().filter((a) => !div._fullLayout[a].autorange)
    .map((a) => [`${a}.range`, [...div._fullLayout[a].range]]));
  let timer;
  function report() {
    clearTimeout(timer);
    timer = setTimeout(() => model.send({ view: ranges(), width: div.clientWidth, zoomed }), REPORT_AFTER);
  }
  const listeners = {
    plotly_relayout(event) {
      const keys = Object.keys(event);
      if (!keys.some((key) => /axis/.test(key))) return;
      const ofPlane = keys.some((key) => key.startsWith("xaxis.") || key.startsWith("yaxis."));
      if (ofPlane) zoomed = !("xaxis.autorange" in event);
      cursor.show();
      report();
    },
    plotly_selected: (event) => event?.range && model.send({ selected: event.range }),
    plotly_deselect: () => model.send({ selected: null }),
    plotly_click: (event) => model.send({ clicked: [event.points[0].curveNumber, event.points[0].pointNumber] }),
  };
  const listen = () => Object.entries(listeners).forEach(([name, f]) => div.on(name, f));
  const go = (content) => content.relayout && plotly.relayout(div, content.relayout);

  const cursor = follow(model, frame, div);
  listen();
  const events = names.map((name, i) => [`change:${name}`, () => changed.add(i)]);
  events.push(["change:serial", () => queueMicrotask(draw)]); // after the events of the curves that came with it
  events.push(["change:track", () => cursor.show()], ["msg:custom", go]);
  events.forEach(([name, f]) => model.on(name, f));
  ready.then(() => hideStill(model));

  async function resize() {
    dress(el.closest(".microlens-explorer")); // once the widget stands in the page
    await ready;
    if (!div.clientWidth) return;
    if (isDark(el) !== dark) return repaint();
    await plotly.Plots.resize(div);
    if (!zoomed && PLANE[0] in sent) {
      const wanted = Object.fromEntries(PLANE.map((key) => [key, sent[key]]));
      await plotly.update(div, {}, wanted, []); // not relayout, which would pass for a zoom of the user's
    }
    cursor.show();
    report();
  }
  async function repaint() {
    dark = isDark(el);
    const kept = ranges();
    plotly.purge(div);
    build(kept);
    listen();
    await ready;
    cursor.show();
  }
  const theme = new MutationObserver(() => isDark(el) !== dark && repaint());
  theme.observe(document.body, { attributes: true });
  const watcher = new ResizeObserver(resize);
  watcher.observe(el);
  return () => {
    events.forEach(([name, f]) => model.off(name, f));
    watcher.disconnect();
    theme.disconnect();
    cursor.stop();
    plotly.purge(div);
  };
}

// ---- the source on its way ------------------------------------------------------------------------------------------

// A point of time that all panels share: a line through the time axes and the source in the lens plane. It follows the
// pointer, the slider of time below the figure, or plays. `track` has the columns time, x, y and flux.
function follow(model, frame, div) {
  const make = (tag, values) => frame.appendChild(Object.assign(document.createElement(tag), values));
  const line = make("div", { className: "microlens-now" });
  const source = make("div", { className: "microlens-source" });
  const bar = make("div", { className: "microlens-bar" });
  bar.innerHTML = `<button type="button" aria-label="play the source's way">\u25b6</button>
    <input type="range" min="0" max="1000" value="0" aria-label="time"><output></output>`;
  const [button, slider, said] = bar.children;
  let now = null, playing = null;
  const track = () => (model.get("track")?.byteLength ? columns(model.get("track"), 4) : null);

  function at(t) {
    const [times, ...others] = track();
    let low = 0, high = times.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (times[middle] <= t) low = middle; else high = middle;
    }
    const share = Math.min(1, Math.max(0, (t - times[low]) / (times[high] - times[low] || 1)));
    return others.map((column) => column[low] + share * (column[high] - column[low]));
  }
  function place(node, x, y, inside) {
    node.style.display = inside ? "block" : "none";
    node.style.left = `${x}px`;
    node.style.top = `${y}px`;
  }
  function show() {
    const layout = div._fullLayout, time = layout?.xaxis2;
    bar.style.display = track() ? "flex" : "none";
    if (!time || now === null || !track()) return [line, source].forEach((node) => (node.style.display = "none"));
    const [x, y, flux] = at(now);
    const left = time._offset + time.l2p(now), top = layout.yaxis2._offset;
    place(line, left, top, now >= time.range[0] && now <= time.range[1]);
    line.style.height = `${layout.yaxis4._offset + layout.yaxis4._length - top}px`;
    const plane = [layout.xaxis, layout.yaxis], position = [x, y];
    const within = plane.every((axis, k) => axis.visible !== false && position[k] >= axis.range[0] && position[k] <= axis.range[1]);
    const size = Math.max(SMALLEST_SOURCE, 2 * model.get("radius") * Math.abs(plane[0]._m));
    place(source, plane[0]._offset + plane[0].l2p(x), plane[1]._offset + plane[1].l2p(y), within);
    source.style.width = source.style.height = `${size}px`;
    slider.value = 1000 * (now - time.range[0]) / (time.range[1] - time.range[0]);
    said.textContent = `time ${now.toFixed(3)} d` + (Number.isFinite(flux) ? `: ${flux.toPrecision(4)} of the baseline` : "")
      + (Number.isFinite(x) ? `; source at (${x.toFixed(4)}, ${y.toFixed(4)})` : "");
    slider.setAttribute("aria-valuetext", said.textContent);
  }
  const to = (t) => { now = t; show(); };

  function nearest(axes, px, py) { // the time at which the source is nearest to a point of the lens plane
    const [times, xs, ys] = track(), x = axes[0].p2l(px), y = axes[1].p2l(py);
    let best = 0, least = Infinity;
    for (let i = 0; i < times.length; i++) {
      const distance = (xs[i] - x) ** 2 + (ys[i] - y) ** 2;
      if (distance < least) [best, least] = [i, distance];
    }
    return times[best];
  }
  frame.addEventListener("pointermove", (event) => {
    if (!track() || playing || !div._fullLayout?.xaxis2 || bar.contains(event.target)) return;
    const box = div.getBoundingClientRect(), layout = div._fullLayout;
    const inside = (axis, p) => p >= axis._offset && p <= axis._offset + axis._length;
    const px = event.clientX - box.left, py = event.clientY - box.top;
    const { xaxis, yaxis, xaxis2: time } = layout;
    const ofTime = ["yaxis2", "yaxis3", "yaxis4"].some((axis) => inside(layout[axis], py));
    if (inside(time, px) && ofTime) to(time.p2l(px - time._offset));
    else if (xaxis.visible !== false && inside(xaxis, px) && inside(yaxis, py))
      to(nearest([xaxis, yaxis], px - xaxis._offset, py - yaxis._offset));
  });
  const step = () => {
    const [first, last] = div._fullLayout.xaxis2.range;
    return [first, last, (share) => first + share * (last - first)];
  };
  slider.addEventListener("input", () => { stop(); to(step()[2](slider.value / 1000)); });
  function stop() {
    cancelAnimationFrame(playing);
    playing = null;
    button.textContent = "\u25b6";
  }
  button.addEventListener("click", () => {
    if (playing !== null) return stop();
    const [first, last, time] = step();
    const from = now > first && now < last ? (now - first) / (last - first) : 0;
    const start = performance.now() - 1000 * PLAY_SECONDS * from;
    button.textContent = "\u23f8";
    const tick = () => {
      const share = (performance.now() - start) / (1000 * PLAY_SECONDS);
      to(time(Math.min(share, 1)));
      if (share >= 1) stop(); else playing = requestAnimationFrame(tick);
    };
    playing = requestAnimationFrame(tick);
  });
  return { show, stop };
}

// ---- the controls beside it -----------------------------------------------------------------------------------------

// The picture that stands for the widget where no kernel runs goes when the widget itself is drawn.
function hideStill(model) {
  const still = document.querySelector(`.microlens-still-${model.get("still")}`);
  if (still) still.style.display = "none";
}

// No key pressed in a control reaches the notebook, where `d d` deletes the cell. JupyterLab looks for the mark on the
// element that has the focus before it looks for its shortcuts, so that element itself has to carry it. And ipywidgets
// gives neither the handle of a slider nor a box without a description a name that a screen reader could say.
function dress(explorer) {
  if (!explorer || explorer.dataset.dressed) return;
  explorer.dataset.dressed = "true";
  explorer.addEventListener("focusin", (event) => event.target.setAttribute("data-lm-suppress-shortcuts", "true"));
  let waiting = false;
  const later = () => { waiting ||= setTimeout(() => { waiting = false; nameControls(explorer); }, 50); };
  new MutationObserver(later).observe(explorer, { childList: true, subtree: true });
  nameControls(explorer);
}

function nameControls(explorer) {
  for (const control of explorer.querySelectorAll(".microlens-control")) {
    const handle = control.querySelector(".noUi-handle"), box = control.querySelector(".microlens-box input");
    const name = control.querySelector(".widget-label")?.textContent;
    if (!handle || !box || !name) continue;
    const range = control.querySelector(".microlens-range")?.textContent ?? "";
    for (const part of [handle, box]) {
      part.setAttribute("aria-label", name);
      part.title = `${name}: ${range}`;
    }
    if (handle.dataset.speaks) continue;
    handle.dataset.speaks = "true";
    const speak = () => {
      // The attribute aria-valuenow is rounded to one decimal.
      const position = Number(handle.closest(".noUi-target").noUiSlider.get(true));
      const text = Number((control.matches(".microlens-log") ? 10 ** position : position).toPrecision(4)).toString();
      if (handle.getAttribute("aria-valuetext") !== text) handle.setAttribute("aria-valuetext", text);
    };
    new MutationObserver(speak).observe(handle, { attributeFilter: ["aria-valuenow", "aria-valuetext"] });
    speak();
  }
  for (const input of explorer.querySelectorAll("input:not([aria-label])")) {
    if (!input.closest(".widget-text")?.querySelector(".widget-label:not([style*='none'])")?.textContent && input.placeholder)
      input.setAttribute("aria-label", input.title || input.placeholder);
  }
}
export default { render };
