// Draws what panels.Panel holds: a plotly figure whose curves arrive as bytes (x then y, float64, little endian).
// `loadPlotly` stands above this text. Only changed curves are drawn again, and each drawing is reported, so that Python
// sends no faster than the page draws.
const Plotly = () => (globalThis.microlensPlotly ??= loadPlotly());
const PLANE = ["xaxis.range", "yaxis.range"]; // of the first panel

function curve(view) {
  const n = view.byteLength / 16;
  const all = new Float64Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
  return [all.subarray(0, n), all.subarray(n)];
}

function render({ model, el }) {
  const div = document.createElement("div");
  el.append(div);
  const { data, layout } = structuredClone(model.get("figure"));
  const names = data.map((_, i) => `curve_${i}`);
  const opacity = (i) => (model.get("pale").includes(i) ? 0.25 : 1);
  data.forEach((trace, i) => {
    [trace.x, trace.y] = curve(model.get(names[i]));
    trace.opacity = opacity(i);
  });
  let sent = model.get("layout_change");
  let zoomed = false; // a zoom of the user's stays until another view is chosen or by double click
  const ready = Plotly().newPlot(div, data, layout, model.get("config")).then(() => Plotly().update(div, {}, sent, []));
  div.on("plotly_relayout", (event) => {
    const ofPlane = Object.keys(event).some((key) => key.startsWith("xaxis.") || key.startsWith("yaxis."));
    if (ofPlane) zoomed = !("xaxis.autorange" in event);
  });

  const changed = new Set();
  const events = names.map((name, i) => [`change:${name}`, () => changed.add(i)]);
  events.push(["change:serial", () => queueMicrotask(draw)]); // after the events of the curves that came with it
  async function draw() {
    div.data.forEach((trace, i) => trace.opacity !== opacity(i) && changed.add(i));
    const which = [...changed];
    const curves = which.map((i) => curve(model.get(names[i])));
    changed.clear();
    const asked = model.get("layout_change");
    const relayout = {};
    zoomed &&= asked.meta === sent.meta;
    for (const key in asked) {
      const isNew = JSON.stringify(asked[key]) !== JSON.stringify(sent[key]);
      if (isNew && !(zoomed && PLANE.includes(key))) relayout[key] = asked[key];
    }
    sent = asked;
    const restyle = { x: curves.map((c) => c[0]), y: curves.map((c) => c[1]), opacity: which.map(opacity) };
    await Plotly().update(div, which.length ? restyle : {}, relayout, which);
    model.send({ drawn: model.get("serial") });
  }
  events.forEach(([name, f]) => model.on(name, f));

  async function resize() {
    keepKeys(el.closest(".microlens-explorer")); // once the widget stands in the page
    await ready;
    if (!div.clientWidth) return;
    await Plotly().Plots.resize(div);
    if (!zoomed && PLANE[0] in sent) {
      const wanted = Object.fromEntries(PLANE.map((key) => [key, sent[key]]));
      await Plotly().update(div, {}, wanted, []); // not relayout, which would pass for a zoom of the user's
    }
  }
  const watcher = new ResizeObserver(resize);
  watcher.observe(el);
  return () => {
    events.forEach(([name, f]) => model.off(name, f));
    watcher.disconnect();
    Plotly().purge(div);
  };
}

// No key pressed in a control reaches the notebook, where `d d` deletes the cell. JupyterLab looks for the mark on the
// element that has the focus before it looks for its shortcuts, so that element itself has to carry it.
function keepKeys(explorer) {
  if (!explorer || explorer.dataset.keepsKeys) return;
  explorer.dataset.keepsKeys = "true";
  explorer.addEventListener("focusin", (event) => event.target.setAttribute("data-lm-suppress-shortcuts", "true"));
}
export default { render };
