"use strict";
(() => {
  const data = readJson("records");
  const dialog = document.getElementById("record");
  const title = dialog.querySelector("h2");
  const body = dialog.querySelector(".content");

  function facts(pairs) {
    const list = make("dl");
    for (const [name, value] of pairs) list.append(make("dt", null, name), make("dd", null, value));
    return list;
  }

  function numbers(row, chosen) {
    const head = make("tr", null, ...data.heads.map((each) => make("th", { scope: "col" }, each)));
    const rows = row.numbers.map((cells) => {
      const line = make("tr", null, ...cells.map((cell) => make("td", null, cell)));
      if (chosen !== "" && cells[0] === chosen) line.classList.add("chosen");
      return line;
    });
    return make("div", { class: "scroll", tabindex: 0 }, make("table", null, make("thead", null, head), make("tbody", null, ...rows)));
  }

  function show(id, chosen) {
    if (!Object.hasOwn(data.rows, id)) return;
    const row = data.rows[id];
    title.textContent = row.name;
    body.replaceChildren(
      facts(row.facts),
      make("h3", null, "Numbers"),
      numbers(row, chosen),
      make("h3", null, "To make the record again"),
      make("pre", null, row.command),
      make("h3", null, "Made on"),
      facts(row.environment),
    );
    if (row.notes.length) body.append(make("h3", null, "Notes"), make("ul", null, ...row.notes.map((each) => make("li", null, each))));
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    const line = body.querySelector("tr.chosen");
    if (line) line.scrollIntoView({ block: "center" });
    if (location.hash !== `#row-${id}`) history.replaceState(null, "", `#row-${id}`);
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button.row");
    if (button) {
      show(button.id.slice(4), "");
      return;
    }
    const cell = event.target.closest("td.n");
    const owner = cell && !dialog.contains(cell) && cell.parentElement.querySelector("button.row");
    if (!owner) return;
    const heads = cell.closest("table").tHead.rows[0].cells;
    show(owner.id.slice(4), heads[cell.cellIndex].textContent.trim());
  });
  dialog.querySelector("button.close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("close", () => history.replaceState(null, "", location.pathname + location.search));
  if (location.hash.startsWith("#row-")) show(location.hash.slice(5), "");
})();
