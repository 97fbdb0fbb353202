"use strict";
/* The data blocks of the page. */
function readJson(id) {
  return JSON.parse(document.getElementById(id).textContent);
}
async function readPacked(id) {
  const block = document.getElementById(id);
  const bytes = Uint8Array.from(atob(block.textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

/* Elements: text goes in as text, never as HTML. */
function make(name, attributes, ...children) {
  const found = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === true) found.setAttribute(key, "");
    else if (value !== null && value !== false && value !== undefined) found.setAttribute(key, value);
  }
  found.append(...children.filter((child) => child !== null && child !== undefined));
  return found;
}

(() => {
  const collator = new Intl.Collator("en", { numeric: true });

  function line(text) {
    return text.trim().replace(/\s+/g, " ");
  }

  function sortBy(table, column, direction) {
    const heads = table.tHead.rows[0].cells;
    const number = heads[column].dataset.kind === "number";
    const body = table.tBodies[0];
    const keyed = Array.from(body.rows, (row) => {
      const cell = row.cells[column];
      const key = number ? (cell.dataset.v === undefined ? null : Number(cell.dataset.v)) : cell.textContent;
      return { row, key };
    });
    /* What is missing stays last in both directions. */
    keyed.sort((a, b) => {
      if (a.key === null || b.key === null) return (a.key === null) - (b.key === null);
      return direction * (number ? a.key - b.key : collator.compare(a.key, b.key));
    });
    body.append(...keyed.map((each) => each.row));
    Array.from(heads).forEach((head, i) => {
      if (i === column) head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    });
  }

  function enable(table) {
    const bar = document.querySelector(`.filters[data-for="${CSS.escape(table.id)}"]`);
    const search = bar && bar.querySelector("input[type=search]");
    const choices = bar ? Array.from(bar.querySelectorAll("select[data-column]")) : [];
    const count = bar && bar.querySelector("output");
    const rows = Array.from(table.tBodies[0].rows);
    const first = Number(table.dataset.shown) || Infinity;
    let limit = first;
    const more = make("button", { type: "button", class: "more" });
    more.hidden = true;
    table.parentElement.after(more);

    function refresh() {
      const wanted = search ? search.value.trim().toLowerCase() : "";
      const picked = choices.filter((choice) => choice.value !== "");
      let matching = 0;
      for (const row of Array.from(table.tBodies[0].rows)) {
        const keep =
          (!wanted || row.textContent.toLowerCase().includes(wanted)) &&
          picked.every((choice) => line(row.cells[Number(choice.dataset.column)].textContent) === choice.value);
        if (keep) matching += 1;
        row.classList.toggle("out", !keep);
        row.classList.toggle("later", keep && matching > limit);
      }
      if (count) count.textContent = matching === rows.length ? `${rows.length} rows` : `${matching} of ${rows.length} rows`;
      more.hidden = matching <= limit;
      more.textContent = `Show all ${matching} rows`;
    }

    Array.from(table.tHead.rows[0].cells).forEach((head, column) => {
      const button = head.querySelector("button.sort");
      if (!button) return;
      button.addEventListener("click", () => {
        const now = head.getAttribute("aria-sort");
        /* Numbers are first wanted from the top, names from A. */
        const begin = head.dataset.kind === "number" ? -1 : 1;
        sortBy(table, column, now ? (now === "ascending" ? -1 : 1) : begin);
        refresh();
      });
    });
    if (search) search.addEventListener("input", () => { limit = first; refresh(); });
    choices.forEach((choice) => choice.addEventListener("change", () => { limit = first; refresh(); }));
    more.addEventListener("click", () => { limit = Infinity; refresh(); });
    refresh();
  }

  document.documentElement.classList.add("js");
  document.querySelectorAll("table.sortable").forEach(enable);
  /* On paper everything is open. */
  const opened = [];
  addEventListener("beforeprint", () => {
    document.querySelectorAll("details:not([open])").forEach((each) => { each.open = true; opened.push(each); });
  });
  addEventListener("afterprint", () => { opened.splice(0).forEach((each) => { each.open = false; }); });
})();
