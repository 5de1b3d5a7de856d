"use strict";
// The table of candidates. It may have tens of thousands of rows, so the document contains one page at a time. Texts
// always become text nodes.
(() => {
  const source = document.getElementById("data");
  const table = document.getElementById("table");
  if (!table) return;
  const { trajectories, rows, notes, failures, examples } = JSON.parse(source.textContent);
  // The layout of rows in cluster/reporting/candidates.py.
  const [TRAJECTORY, STEP, VAL, INTERVAL, CHANGED, ALLOWED, FLAGS, PROMPT, PARENT, CHANGES, UNSCORED] = Array(11).keys();
  const ACCEPTED = 1, BEST = 2, DROPPED = 4, FIRST = 8, ROWS_A_PAGE = 25;
  const byId = (id) => document.getElementById(id);
  const percent = (value) => (value === null ? "–" : (100 * value).toFixed(1));
  const range = (ends) => (ends === null ? "–" : ends.map(percent).join("–"));
  const plain = (value) => (value === null ? "–" : String(value));
  const number = new Intl.NumberFormat("en");
  const columns = [
    { title: "Task", of: (row) => trajectories[row[TRAJECTORY]][0], shown: String, text: true },
    { title: "Seed", of: (row) => trajectories[row[TRAJECTORY]][1], shown: plain },
    { title: "Step", of: (row) => row[STEP], shown: plain },
    { title: "val, %", of: (row) => row[VAL], shown: percent },
    { title: "90 % interval", of: (row) => row[INTERVAL], shown: range, rank: (ends) => ends[0] },
    { title: "Words changed", of: (row) => row[CHANGED], shown: plain },
    { title: "Allowed", of: (row) => row[ALLOWED], shown: plain },
    { title: "Prompt", of: (row) => row[PROMPT], text: true },
  ];
  const words = new Intl.Collator("en", { numeric: true });
  let lowered = null, shown = rows, sorted = null, descending = false, page = 0;

  function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  // Splits texts like cluster/reporting/diff.py.
  const WORD = new RegExp(String.raw`SPACE*(?:ATOM|(?:(?!ATOM)[^ \t\n\r\f\v])+)|SPACE+$`
    .replaceAll("SPACE", String.raw`[ \t\n\r\f\v]`)
    .replaceAll("ATOM", String.raw`\{\{[^{}\n]*\}\}|\[\[(?:system|user)\]\]`), "g");
  const split = (text) => text.match(WORD) ?? [];

  function diff(row) {
    const before = split(rows[row[PARENT]][PROMPT]), after = split(row[PROMPT]), ranges = row[CHANGES];
    const parts = [];
    let done = 0;
    for (let at = 0; at < ranges.length; at += 4) {
      const [from, to, start, end] = ranges.slice(at, at + 4);
      parts.push(after.slice(done, start).join(""));
      if (to > from) parts.push(element("del", {}, before.slice(from, to).join("")));
      if (end > start) parts.push(element("ins", {}, after.slice(start, end).join("")));
      done = end;
    }
    return [...parts, after.slice(done).join("")];
  }

  function about(row) {
    const parts = [element("p", { class: "prompt" }, row[PROMPT])];
    if (row[PARENT] !== null) {
      const isFirst = row[FLAGS] & FIRST;
      if (isFirst) parts.push(element("p", { class: "aside" }, "A first prompt: given, or written from the goal."));
      const parent = isFirst ? "initial" : "parent";
      parts.push(element("p", { class: "aside" }, `Changes from the ${parent} prompt:`));
      parts.push(element("p", { class: "prompt diff" }, ...diff(row)));
    }
    if (row[UNSCORED]) parts.push(element("p", { class: "aside" }, `${row[UNSCORED]} examples stayed unscored.`));
    for (const [title, text] of Object.entries(notes[`${row[TRAJECTORY]}/${row[STEP]}`] ?? {})) {
      parts.push(element("p", { class: "aside" }, `${title} used in this step:`));
      parts.push(element("p", { class: "prompt" }, text));
    }
    const wrong = failures[`${row[TRAJECTORY]}/${row[STEP]}`];
    if (wrong) parts.push(shownFailures(wrong));
    return parts;
  }

  function shownFailures(wrong) {
    const titles = ["Input", "Correct answer", "The model's answer", "Why it is wrong"];
    const summary = element("summary", { class: "aside" }, "Failures shown to the optimizer model");
    const lists = wrong.map((texts) => element("dl", {}, ...texts.flatMap((text, index) => (
      text ? [element("dt", { class: "aside" }, titles[index]), element("dd", { class: "prompt" }, text)] : []
    ))));
    return element("details", { class: "failures" }, summary, ...lists);
  }

  function promptCell(row) {
    const start = element("span", { class: "start" }, row[PROMPT].slice(0, 400));
    const details = element("details", {}, element("summary", {}, start));
    details.addEventListener("toggle", () => {
      if (details.open && details.children.length === 1) details.append(...about(row));
    });
    const marks = [[BEST, "best"], [ACCEPTED, row[STEP] ? "accepted" : "initial"], [DROPPED, "dropped"], [FIRST, "first"]]
      .filter(([mark]) => row[FLAGS] & mark)
      .flatMap(([, name]) => [element("span", { class: `mark ${name}` }, name), " "]);
    return element("td", { role: "cell", class: "whole" }, ...marks, details);
  }

  function line(row) {
    const cells = columns.slice(0, -1).map((column) => element(
      "td",
      { role: "cell", ...(column.text ? { class: "name whole" } : { class: "number", "data-label": column.title }) },
      column.shown(column.of(row)),
    ));
    return element("tr", { role: "row" }, ...cells, promptCell(row));
  }

  function draw() {
    const pages = Math.max(1, Math.ceil(shown.length / ROWS_A_PAGE));
    page = Math.min(page, pages - 1);
    const first = page * ROWS_A_PAGE, part = shown.slice(first, first + ROWS_A_PAGE);
    byId("rows").replaceChildren(...part.map(line));
    byId("found").textContent = part.length
      ? `${number.format(first + 1)} to ${number.format(first + part.length)} of ${number.format(shown.length)} prompts`
      : "No prompt matches.";
    byId("page").textContent = `Page ${number.format(page + 1)} of ${number.format(pages)}`;
    byId("previous").disabled = page === 0;
    byId("next").disabled = page === pages - 1;
    byId("pages").hidden = pages === 1;
    columns.forEach((column, index) => byId("headings").children[index].setAttribute(
      "aria-sort", column !== sorted ? "none" : descending ? "descending" : "ascending",
    ));
  }

  function select() {
    const wanted = byId("query").value.toLowerCase().split(/\s+/).filter(Boolean);
    const trajectory = byId("trajectory").value, chosen = byId("chosen").checked;
    if (wanted.length) lowered ??= rows.map((row) => `${trajectories[row[TRAJECTORY]][0]} ${row[PROMPT]}`.toLowerCase());
    const found = [];
    rows.forEach((row, index) => {
      if (trajectory !== "" && row[TRAJECTORY] !== Number(trajectory)) return;
      if (chosen && !(row[FLAGS] & ACCEPTED)) return;
      if (wanted.every((word) => lowered[index].includes(word))) found.push(row);
    });
    if (sorted) {
      const { of, text, rank = (value) => value } = sorted, sign = descending ? -1 : 1;
      found.sort((one, other) => {
        const [a, b] = [of(one), of(other)];
        if (a === null || b === null) return (a === null) - (b === null); // unknown values come last in both directions
        return sign * (text ? words.compare(a, b) : rank(a) - rank(b));
      });
    }
    shown = found;
    page = 0;
    draw();
  }

  function sortBy(column) {
    // Numbers are first sorted from high to low.
    descending = sorted === column ? !descending : !column.text;
    sorted = column;
    select();
  }

  for (const column of columns) {
    const button = element("button", { type: "button" }, column.title);
    button.addEventListener("click", () => sortBy(column));
    const kind = column.text ? "" : "number";
    byId("headings").append(element("th", { scope: "col", role: "columnheader", class: kind }, button));
  }
  trajectories.forEach(([task, seed], index) => {
    byId("trajectory").append(element("option", { value: index }, `${task}, seed ${seed}`));
  });
  byId("filter").addEventListener("submit", (event) => event.preventDefault());
  for (const id of ["query", "trajectory", "chosen"]) byId(id).addEventListener("input", select);
  byId("previous").addEventListener("click", () => { page -= 1; draw(); });
  byId("next").addEventListener("click", () => { page += 1; draw(); });
  // A link in the table of results may lead to a collapsed element.
  function openTarget() {
    const target = location.hash.length > 1 && byId(decodeURIComponent(location.hash.slice(1)));
    if (target instanceof HTMLDetailsElement) target.open = true;
  }
  addEventListener("hashchange", openTarget);
  // The table of examples: the layout of rows in cluster/reporting/examples.py.
  function showExamples() {
    const [OF, SPLIT, NUMBER, OUTCOME, INPUT, TARGET, BEFORE, AFTER] = Array(8).keys();
    let found = [], at = 0;
    function answer(title, known) {
      const cell = element("td", { role: "cell", class: "whole", "data-label": title });
      if (known === null) { cell.append(element("span", { class: "aside" }, "not asked")); return cell; }
      const [text, value, why] = known;
      cell.append(element("span", { class: value === null ? "aside" : value >= 1 ? "better" : "worse" },
        value === null ? "unscored" : `${percent(value)} %`));
      cell.append(element("p", { class: "prompt" }, text || "(no text)"));
      if (why) cell.append(element("p", { class: "aside" }, why));
      return cell;
    }
    function exampleLine(row) {
      const name = element("td", { role: "cell", class: "whole" }, `${row[SPLIT]}/${row[NUMBER]} `,
        element("span", { class: `mark ${row[OUTCOME]}` }, row[OUTCOME]));
      return element("tr", { role: "row" }, name,
        element("td", { role: "cell", class: "whole", "data-label": "Input" }, element("p", { class: "prompt" }, row[INPUT])),
        element("td", { role: "cell", class: "whole", "data-label": "Target" }, row[TARGET]),
        answer("Initial prompt", row[BEFORE]), answer("Best prompt", row[AFTER]));
    }
    function drawExamples() {
      const pages = Math.max(1, Math.ceil(found.length / ROWS_A_PAGE));
      at = Math.min(at, pages - 1);
      const first = at * ROWS_A_PAGE, part = found.slice(first, first + ROWS_A_PAGE);
      byId("examples-rows").replaceChildren(...part.map(exampleLine));
      const more = examples.left_out ? `; ${number.format(examples.left_out)} more do not fit on this page` : "";
      byId("examples-found").textContent = part.length
        ? `${number.format(first + 1)} to ${number.format(first + part.length)} of ${number.format(found.length)} examples${more}`
        : "No example matches.";
      byId("examples-page").textContent = `Page ${number.format(at + 1)} of ${number.format(pages)}`;
      byId("examples-previous").disabled = at === 0;
      byId("examples-next").disabled = at === pages - 1;
      byId("examples-pages").hidden = pages === 1;
    }
    function selectExamples() {
      const wanted = byId("examples-query").value.toLowerCase().split(/\s+/).filter(Boolean);
      const of = Number(byId("examples-trajectory").value), outcome = byId("examples-outcome").value;
      found = examples.rows.filter((row) => row[OF] === of && (outcome === "" || row[OUTCOME] === outcome)
        && wanted.every((word) => [row[INPUT], row[TARGET], row[BEFORE]?.[0], row[AFTER]?.[0]]
          .some((text) => (text ?? "").toLowerCase().includes(word))));
      at = 0;
      drawExamples();
    }
    for (const index of new Set(examples.rows.map((row) => row[OF]))) {
      const [task, seed] = trajectories[index];
      byId("examples-trajectory").append(element("option", { value: index }, `${task}, seed ${seed}`));
    }
    byId("examples-filter").addEventListener("submit", (event) => event.preventDefault());
    for (const id of ["query", "trajectory", "outcome"]) byId(`examples-${id}`).addEventListener("input", selectExamples);
    byId("examples-previous").addEventListener("click", () => { at -= 1; drawExamples(); });
    byId("examples-next").addEventListener("click", () => { at += 1; drawExamples(); });
    byId("examples-filter").hidden = byId("examples-table").hidden = false;
    selectExamples();
  }
  if (byId("examples-table")) showExamples();
  byId("filter").hidden = table.hidden = false;
  openTarget();
  draw();
})();
