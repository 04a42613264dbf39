// A page of a table whose rows stay in Python: the header sorts, a click chooses, arrow keys, Page, Home and End move on.
const MOVES = { ArrowUp: -1, ArrowDown: 1, PageUp: "-page", PageDown: "page", Home: "first", End: "last" };

function render({ model, el }) {
  el.classList.add("microlens-table");
  el.tabIndex = 0;
  el.setAttribute("role", "grid");
  el.setAttribute("aria-label", "events; arrow keys step through them");
  el.setAttribute("data-lm-suppress-shortcuts", "true"); // the arrow keys are ours, not the notebook's
  const cell = (kind, text) => Object.assign(document.createElement(kind), { textContent: text });

  function draw() {
    const focused = el.contains(document.activeElement) ? document.activeElement.dataset.column : undefined;
    const table = document.createElement("table"), head = table.createTHead().insertRow();
    for (const name of model.get("columns")) {
      const th = document.createElement("th"), sorted = model.get("sort") === name;
      const button = cell("button", name + (sorted ? (model.get("descending") ? " ▼" : " ▲") : ""));
      button.title = `sort by ${name}`;
      button.dataset.column = name;
      button.onclick = () => model.send({ sort: name });
      th.setAttribute("aria-sort", sorted ? (model.get("descending") ? "descending" : "ascending") : "none");
      th.append(button);
      head.append(th);
    }
    const body = table.createTBody();
    model.get("rows").forEach((values, i) => {
      const row = body.insertRow();
      values.forEach((value) => row.append(cell("td", value)));
      row.setAttribute("aria-selected", i === model.get("chosen"));
      row.onclick = () => { el.focus(); model.send({ choose: i }); };
    });
    el.replaceChildren(table);
    if (focused) [...el.querySelectorAll("th button")].find((button) => button.dataset.column === focused)?.focus();
  }
  const key = (event) => {
    if (!(event.key in MOVES) || event.target !== el) return;
    event.preventDefault();
    event.stopPropagation();
    model.send({ move: MOVES[event.key] });
  };
  el.addEventListener("keydown", key);
  const later = () => queueMicrotask(draw);
  model.on("change:serial", later);
  draw();
  return () => { el.removeEventListener("keydown", key); model.off("change:serial", later); };
}
export default { render };
