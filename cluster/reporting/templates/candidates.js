// The table of candidates. It may have tens of thousands of rows, so the document contains one page at a time.
function showCandidates() {
  const columns = [
    { title: "Task", of: (row) => page.trajectories[row[TRAJECTORY]][0], shown: String, text: true },
    { title: "Seed", of: (row) => page.trajectories[row[TRAJECTORY]][1], shown: plain },
    { title: "Step", of: (row) => row[STEP], shown: plain },
    { title: "val, %", of: (row) => row[VAL], shown: percent },
    { title: "90 % interval", of: (row) => row[INTERVAL], shown: range, rank: (ends) => ends[0] },
    { title: "Words changed", of: (row) => row[CHANGED], shown: plain },
    { title: "Allowed", of: (row) => row[ALLOWED], shown: plain },
    { title: "Prompt", of: (row) => row[PROMPT], text: true },
  ];
  let lowered = null, sorted = null, descending = false;
  const opened = new Set();

  function promptCell(row) {
    const start = element("span", { class: "start" }, row[PROMPT].slice(0, 400));
    const key = `${row[TRAJECTORY]} ${row[ID]}`;
    const details = lazily(element("details", {}, element("summary", {}, start)), () => about(row));
    if (opened.has(key)) details.open = true;
    details.addEventListener("toggle", () => { if (details.open) opened.add(key); else opened.delete(key); });
    return element("td", { role: "cell", class: "whole" }, ...marks(row), details);
  }

  function line(row) {
    const cells = columns.slice(0, -1).map((column) => element(
      "td",
      { role: "cell", ...(column.text ? { class: "name whole" } : { class: "number", "data-label": column.title }) },
      column.shown(column.of(row)),
    ));
    return element("tr", { role: "row" }, ...cells, promptCell(row));
  }

  const draw = paged("", line, "prompts", "No prompt matches.");

  function select(stays = false) {
    const { rows, trajectories } = page, wanted = wantedWords("query");
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
    columns.forEach((column, index) => byId("headings").children[index].setAttribute(
      "aria-sort", column !== sorted ? "none" : descending ? "descending" : "ascending",
    ));
    draw(found, "", stays === true);
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
  trajectoryOptions(byId("trajectory"));
  byId("filter").addEventListener("submit", (event) => event.preventDefault());
  for (const id of ["query", "trajectory", "chosen"]) byId(id).addEventListener("input", () => select());
  onRefresh.push(() => { lowered = null; trajectoryOptions(byId("trajectory")); select(true); });
  byId("filter").hidden = byId("table").hidden = false;
  select();
}

// Adds the trajectories that are not there yet.
function trajectoryOptions(choice, isWanted = () => true) {
  const known = new Set([...choice.options].map((one) => one.value));
  page.trajectories.forEach(([task, seed], index) => {
    if (isWanted(index) && !known.has(String(index))) option(choice, index, `${task}, seed ${seed}`);
  });
}

// The prompts that the best prompt of a trajectory was made from, from the initial one on.
function showLineages() {
  for (const details of document.querySelectorAll("details.lineage")) {
    lazily(details, () => {
      const of = page.trajectories.findIndex(([task, seed]) => `${task}/${seed}` === details.dataset.of);
      let row = page.rows.find((one) => one[TRAJECTORY] === of && one[FLAGS] & BEST);
      const path = [];
      for (; row; row = row[PARENT] === null ? null : page.rows[row[PARENT]]) path.unshift(row);
      const steps = path.map((one) => element("li", {},
        element("p", { class: "aside" }, one[STEP] ? `Step ${one[STEP]} ` : "Initial prompt ", ...marks(one),
          `val ${percent(one[VAL])} % (${range(one[INTERVAL])})`),
        element("p", { class: "prompt diff" }, ...(one[PARENT] === null ? [one[PROMPT]] : diff(one))),
        lazily(element("details", { class: "inner" }, element("summary", { class: "aside" }, "More")), () => about(one))));
      return [element("ol", { class: "path" }, ...steps)];
    });
  }
}

// A link in the table of results may lead to a collapsed element.
function openTarget() {
  const target = location.hash.length > 1 && byId(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) target.open = true;
}

if (byId("table")) {
  onStart.push(showCandidates, showLineages, openTarget);
  onRefresh.push(showLineages);
  addEventListener("hashchange", openTarget);
}
