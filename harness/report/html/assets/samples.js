(() => {
  const texts = new Map();
  function textOf(id) {
    if (id === null) return Promise.resolve(null);
    if (!texts.has(id)) texts.set(id, readPacked(id));
    return texts.get(id);
  }

  const STATUS = { o: "", t: "answer cut at the token limit", i: "prompt did not fit (counts as 0)", r: "refused (counts as 0)", e: "failed (counts as 0)" };
  const LENGTHS = { "": [0, Infinity], short: [0, 50], medium: [51, 200], long: [201, 1000], longest: [1001, Infinity] };
  const VERDICTS = {
    changed: (row) => row.verdict !== "same",
    lost: (row) => row.verdict === "lost",
    gained: (row) => row.verdict === "gained",
    same: (row) => row.verdict === "same",
    other: (row) => row.verdict === "same" && !row.same,
    all: () => true,
  };

  /* All pairs of one variant with its baseline, over the suites that both have. */
  function pairsOf(index, variant) {
    const baseline = index.variants[variant].baseline;
    const rows = [];
    for (const mine of index.cells.filter((cell) => cell.variant === variant)) {
      const theirs = index.cells.find((cell) => cell.variant === baseline && cell.suite === mine.suite);
      if (!theirs) continue;
      const suite = index.suites[mine.suite];
      for (let i = 0; i < suite.items.length; i += 1) {
        const [a, b] = [theirs.score[i], mine.score[i]];
        if (a === null || b === null) continue;
        rows.push({
          i, mine, theirs, suite, suiteNumber: mine.suite, item: suite.items[i],
          group: suite.group ? suite.groups[suite.group[i]] : null,
          difficulty: suite.difficulty ? suite.difficulty[i] : null,
          base: a, score: b, verdict: b < a ? "lost" : b > a ? "gained" : "same",
          same: mine.same[i] === "1", length: mine.length[i],
        });
      }
    }
    return rows;
  }

  function plain(output) {
    return typeof output === "string" ? output : output[0];
  }

  /* Words of a text and the spaces between them. */
  function words(text) {
    return text.match(/\s+|[^\s]+/g) || [];
  }

  /* For each word of `mine`, whether it belongs to the longest common subsequence with `other`. */
  function common(mine, other) {
    const width = other.length + 1;
    const best = new Uint16Array((mine.length + 1) * width);
    for (let i = mine.length - 1; i >= 0; i -= 1) {
      for (let j = other.length - 1; j >= 0; j -= 1) {
        best[i * width + j] = mine[i] === other[j]
          ? best[(i + 1) * width + j + 1] + 1
          : Math.max(best[(i + 1) * width + j], best[i * width + j + 1]);
      }
    }
    const kept = new Array(mine.length).fill(false);
    let [i, j] = [0, 0];
    while (i < mine.length && j < other.length) {
      if (mine[i] === other[j]) { kept[i] = true; i += 1; j += 1; }
      else if (best[(i + 1) * width + j] >= best[i * width + j + 1]) i += 1;
      else j += 1;
    }
    return kept;
  }

  /* A text with the words that another lacks marked; of long texts, all between what they share at both ends. */
  function differing(text, other) {
    const [mine, theirs] = [words(text), words(other)];
    let start = 0;
    const most = Math.min(mine.length, theirs.length);
    while (start < most && mine[start] === theirs[start]) start += 1;
    let end = 0;
    while (end < most - start && mine[mine.length - 1 - end] === theirs[theirs.length - 1 - end]) end += 1;
    const [own, rest] = [mine.slice(start, mine.length - end), theirs.slice(start, theirs.length - end)];
    const kept = own.length * rest.length <= 400000 ? common(own, rest) : own.map(() => false);
    const parts = [mine.slice(0, start).join("")];
    own.forEach((word, i) => {
      /* A space between two marked words is marked with them. */
      const marked = !kept[i] || (!word.trim() && i > 0 && i + 1 < own.length && !kept[i - 1] && !kept[i + 1]);
      const last = parts[parts.length - 1];
      if (marked && last instanceof Element) last.append(word);
      else if (marked) parts.push(make("mark", {}, word));
      else if (typeof last === "string") parts[parts.length - 1] = last + word;
      else parts.push(word);
    });
    parts.push((end ? mine.slice(-end) : []).join(""));
    return parts;
  }

  function answers(outputs, others) {
    if (!outputs) return [make("p", { class: "soft" }, "This answer is in the records, not in this file.")];
    if (!outputs.length) return [make("p", { class: "soft" }, "No answer.")];
    return outputs.flatMap((output, turn) => {
      const other = others && others[turn] !== undefined ? plain(others[turn]) : "";
      const shown = [make("div", { class: "answer text", dir: "auto" }, ...differing(plain(output), other))];
      if (typeof output !== "string") {
        shown.push(make("p", { class: "soft" }, `Cut here: ${plain(output).length} of ${output[1]} characters; the rest is in the records.`));
      }
      return shown;
    });
  }

  function side(name, cell, row, score, outputs, others) {
    const remark = STATUS[cell.status[row.i]];
    const about = `score ${percent(score)} %, ${cell.length[row.i]} characters${remark ? `, ${remark}` : ""}`;
    return make("div", {}, make("h4", {}, make("bdi", {}, name)), make("p", { class: "soft" }, about), ...answers(outputs, others));
  }

  async function detail(index, row) {
    const [asked, mine, theirs] = await Promise.all([textOf(row.suite.text), textOf(row.mine.text), textOf(row.theirs.text)]);
    const parts = [];
    const question = asked && asked[row.i];
    if (question) {
      const turns = question[0].map((turn) => make("div", { class: "answer text", dir: "auto" }, plain(turn)));
      parts.push(make("h4", {}, "Question"), ...turns);
      if (plain(question[1])) parts.push(make("h4", {}, "Expected"), make("div", { class: "answer text", dir: "auto" }, plain(question[1])));
    } else {
      parts.push(make("p", { class: "soft" }, "The question is not in this file."));
    }
    const [a, b] = [theirs && theirs[row.i], mine && mine[row.i]];
    const names = index.variants;
    return make("div", {},
      make("div", { class: "asked" }, ...parts),
      make("div", { class: "sides" },
        side(`${names[row.theirs.variant].name} (baseline)`, row.theirs, row, row.base, a, b),
        side(names[row.mine.variant].name, row.mine, row, row.score, b, a)));
  }

  async function matching(rows, wanted) {
    const found = [];
    for (const row of rows) {
      const [asked, mine, theirs] = await Promise.all([textOf(row.suite.text), textOf(row.mine.text), textOf(row.theirs.text)]);
      const question = asked && asked[row.i];
      const parts = [row.item, ...(question ? [...question[0].map(plain), plain(question[1])] : [])];
      for (const side of [mine, theirs]) parts.push(...((side && side[row.i]) || []).map(plain));
      if (parts.some((part) => part.toLowerCase().includes(wanted))) found.push(row);
    }
    return found;
  }

  function samplesView(index, compared) {
    const host = document.getElementById("samples-view");
    const [variantLabel, variant] = choice("variant", compared.map((i) => [String(i), index.variants[i].name]));
    const [suiteLabel, suite] = choice("skill", [["", "all"], ...index.suites.map((each, i) => [String(i), each.name])]);
    const [verdictLabel, verdict] = choice("verdict", [
      ["changed", "score changed"], ["lost", "lost"], ["gained", "gained"], ["same", "same score"],
      ["other", "same score, other answer"], ["all", "all"],
    ]);
    const [lengthLabel, length] = choice("answer length", [
      ["", "any"], ["short", "up to 50"], ["medium", "51 to 200"], ["long", "201 to 1000"], ["longest", "over 1000"],
    ]);
    const search = make("input", { type: "search", autocomplete: "off", spellcheck: "false" });
    host.append(make("div", { class: "filters", role: "group", "aria-label": "Filter: items" },
      variantLabel, suiteLabel, verdictLabel, lengthLabel, make("label", {}, "Search texts ", search)));
    const table = lazyTable(host, "Items of the variant against its baseline", [
      { title: "item", value: (row) => row.item },
      { title: "skill", value: (row) => row.suite.name },
      { title: "verdict", value: (row) => row.verdict, show: (row) => badge(row.verdict, { lost: "bad", gained: "good" }[row.verdict]) },
      { title: "baseline %", number: true, value: (row) => row.base, show: (row) => percent(row.base) },
      { title: "variant %", number: true, value: (row) => row.score, show: (row) => percent(row.score) },
      { title: "answer", value: (row) => (row.same ? "same" : "other") },
      { title: "characters", number: true, value: (row) => row.length },
      { title: "difficulty", number: true, value: (row) => row.difficulty },
      { title: "template or document", value: (row) => row.group },
      { title: "remarks", value: (row) => STATUS[row.mine.status[row.i]] },
    ], (row) => detail(index, row));

    let rows = [];
    let turn = 0;
    async function refresh() {
      const mine = (turn += 1);
      const [low, high] = LENGTHS[length.value];
      const wanted = search.value.trim().toLowerCase();
      let found = rows.filter((row) =>
        VERDICTS[verdict.value](row) && row.length >= low && row.length <= high &&
        (suite.value === "" || row.suiteNumber === Number(suite.value)));
      if (wanted) {
        table.say("Searching …");
        found = await matching(found, wanted);
        /* A later keystroke has begun another search. */
        if (mine !== turn) return;
      }
      table.show(found, rows.length);
    }
    function pick() {
      rows = pairsOf(index, Number(variant.value));
      return refresh();
    }
    variant.addEventListener("change", pick);
    [suite, verdict, length].forEach((each) => each.addEventListener("change", refresh));
    search.addEventListener("input", refresh);
    return pick();
  }

  function groupsView(index, compared) {
    const host = document.getElementById("groups-view");
    const suites = index.suites.map((each, i) => [String(i), each.name]).filter(([i]) => index.suites[Number(i)].groups);
    if (!suites.length) {
      host.append(make("p", {}, "The items of this study are independent: they share no template and no document."));
      return;
    }
    const [variantLabel, variant] = choice("variant", compared.map((i) => [String(i), index.variants[i].name]));
    const [suiteLabel, suite] = choice("skill", [["", "all"], ...suites]);
    host.append(make("div", { class: "filters", role: "group", "aria-label": "Filter: templates" }, variantLabel, suiteLabel));
    const table = lazyTable(host, "Scores by template or document, largest loss first", [
      { title: "template or document", value: (row) => row.name },
      { title: "skill", value: (row) => row.suite },
      { title: "n", number: true, value: (row) => row.n },
      { title: "variant %", number: true, value: (row) => row.score / row.n, show: (row) => percent(row.score / row.n) },
      { title: "baseline %", number: true, value: (row) => row.base / row.n, show: (row) => percent(row.base / row.n) },
      { title: "difference pp", number: true, value: (row) => row.gap, show: (row) => percent(row.gap) },
      { title: "net items", number: true, value: (row) => row.score - row.base, show: (row) => (row.score - row.base).toFixed(1) },
      { title: "lost", number: true, value: (row) => row.lost },
      { title: "gained", number: true, value: (row) => row.gained },
    ], null, 15);
    function pick() {
      const groups = new Map();
      for (const row of pairsOf(index, Number(variant.value))) {
        if (row.group === null || (suite.value !== "" && row.suiteNumber !== Number(suite.value))) continue;
        const key = `${row.suiteNumber} ${row.group}`;
        if (!groups.has(key)) groups.set(key, { name: row.group, suite: row.suite.name, n: 0, score: 0, base: 0, lost: 0, gained: 0 });
        const group = groups.get(key);
        group.n += 1;
        group.score += row.score;
        group.base += row.base;
        group.lost += row.verdict === "lost";
        group.gained += row.verdict === "gained";
      }
      const found = [...groups.values()];
      found.forEach((group) => { group.gap = (group.score - group.base) / group.n; });
      found.sort((a, b) => a.score - a.base - (b.score - b.base));
      table.show(found, found.length);
    }
    [variant, suite].forEach((each) => each.addEventListener("change", pick));
    pick();
  }

  async function linearsView() {
    if (!document.getElementById("linears_data")) return;
    const rows = await readPacked("linears_data");
    const host = document.getElementById("linears-table");
    if (!rows.length) {
      host.append(make("p", {}, "No linear has zeros or a recorded error."));
      return;
    }
    const names = [...new Set(rows.map((row) => row[0]))];
    const [label, variant] = choice("variant", names.map((name, i) => [String(i), name]));
    host.append(make("div", { class: "filters", role: "group", "aria-label": "Filter: linears" }, label));
    const table = lazyTable(host, "Linears of the variant", [
      { title: "linear", value: (row) => row[3] },
      { title: "block", number: true, value: (row) => row[2] },
      { title: "zeros %", number: true, value: (row) => row[4], show: (row) => (row[4] === null ? "—" : (100 * row[4]).toFixed(2)) },
      { title: "error", number: true, value: (row) => row[5], show: (row) => (row[5] === null ? "—" : row[5].toPrecision(4)) },
      { title: "which error", value: (row) => row[1] },
    ]);
    function pick() {
      const own = rows.filter((row) => row[0] === names[Number(variant.value)]);
      table.show(own, own.length);
    }
    variant.addEventListener("change", pick);
    pick();
  }

  async function samples() {
    if (!document.getElementById("samples_index")) return;
    const index = await readPacked("samples_index");
    const has = (variant) => index.cells.some((cell) => cell.variant === variant);
    const compared = index.variants.flatMap((each, i) => (each.baseline !== null && has(i) && has(each.baseline) ? [i] : []));
    if (!compared.length) {
      document.getElementById("samples-view").append(make("p", {}, "No variant has rows beside those of its baseline."));
      return;
    }
    await samplesView(index, compared);
    groupsView(index, compared);
  }

  Promise.all([samples(), linearsView()]).then(() => {
    performance.mark("ready");
    document.documentElement.dataset.ready = "yes";
    const layOut = () => {
      document.documentElement.classList.add("laid-out");
      if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
    };
    /* After two frames: the first view is on the screen. */
    requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(layOut, 50)));
  }).catch((error) => {
    const said = `The data of this page could not be read (${error.message}); it needs a browser of 2023 or later.`;
    document.getElementById("samples").append(make("p", { class: "note warning" }, said));
  });
})();
