/* A table whose rows are made as they are needed, so that twenty thousand of them cost nothing until they are read.
   columns: {title, number, value(row), show(row)}; open(row) gives what a click on the first column unfolds. */
function lazyTable(host, caption, columns, open, page) {
  const PAGE = page || 40;
  const body = make("tbody");
  const status = make("output", { class: "count", role: "status" });
  const more = make("button", { type: "button", class: "more" });
  const heads = columns.map((column) => {
    const button = make("button", { type: "button", class: "sort" }, column.title);
    const head = make("th", { scope: "col", class: column.number ? "n" : null }, button);
    button.addEventListener("click", () => {
      sorted = { column, up: sorted.column === column ? !sorted.up : !column.number };
      heads.forEach((each) => each.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", sorted.up ? "ascending" : "descending");
      fill();
    });
    return head;
  });
  const table = make("table", {}, make("caption", {}, caption), make("thead", {}, make("tr", {}, ...heads)), body);
  const scroll = make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, table);
  host.append(make("p", { class: "count-line" }, status), scroll, more);
  more.addEventListener("click", () => { limit += 4 * PAGE; add(); });

  const collator = new Intl.Collator("en", { numeric: true });
  let rows = [];
  let ordered = [];
  let sorted = { column: null, up: true };
  let limit = PAGE;
  let total = 0;

  function compare(a, b) {
    const [x, y] = [sorted.column.value(a), sorted.column.value(b)];
    if (x === null || x === undefined || y === null || y === undefined) {
      return (x === null || x === undefined) - (y === null || y === undefined);
    }
    const order = sorted.column.number ? x - y : collator.compare(x, y);
    return sorted.up ? order : -order;
  }

  function rowOf(row) {
    const cells = columns.map((column, i) => {
      const shown = column.show ? column.show(row) : String(column.value(row) ?? "—");
      if (i > 0) return make("td", { class: column.number ? "n" : null }, shown);
      if (!open) return make("th", { scope: "row" }, shown);
      const button = make("button", { type: "button", class: "item", "aria-expanded": "false" }, shown);
      button.addEventListener("click", () => toggle(row, button));
      return make("th", { scope: "row" }, button);
    });
    return make("tr", {}, ...cells);
  }

  async function toggle(row, button) {
    const line = button.closest("tr");
    if (button.getAttribute("aria-expanded") === "true") {
      button.setAttribute("aria-expanded", "false");
      line.nextElementSibling.remove();
      return;
    }
    button.setAttribute("aria-expanded", "true");
    const cell = make("td", { colspan: columns.length });
    line.after(make("tr", { class: "opened" }, cell));
    cell.append(await open(row));
  }

  function add() {
    const have = body.querySelectorAll(":scope > tr:not(.opened)").length;
    body.append(...ordered.slice(have, limit).map(rowOf));
    more.hidden = ordered.length <= limit;
    more.textContent = `Show more (${Math.min(limit, ordered.length)} of ${ordered.length} shown)`;
  }

  function fill() {
    ordered = sorted.column ? rows.slice().sort(compare) : rows;
    limit = PAGE;
    body.replaceChildren();
    add();
    status.textContent = total === rows.length ? `${rows.length} rows` : `${rows.length} of ${total} rows`;
  }

  return {
    show(found, all) { rows = found; total = all; fill(); },
    say(text) { status.textContent = text; },
  };
}

function choice(title, values, chosen) {
  const select = make("select", {}, ...values.map(([value, shown]) => make("option", { value }, shown)));
  if (chosen !== undefined) select.value = chosen;
  return [make("label", {}, `${title} `, select), select];
}

function percent(value) {
  return value === null || value === undefined ? "—" : (100 * value).toFixed(1);
}

function badge(text, kind) {
  return make("span", { class: kind }, text);
}
