// What all parts of the page use. Texts always become text nodes.
const byId = (id) => document.getElementById(id);
let page = {};
// The layout of rows in cluster/reporting/candidates.py.
const [TRAJECTORY, STEP, VAL, INTERVAL, CHANGED, ALLOWED, FLAGS, PROMPT, PARENT, CHANGES, UNSCORED, ID] = Array(12).keys();
const ACCEPTED = 1, BEST = 2, DROPPED = 4, FIRST = 8, ROWS_A_PAGE = 25;
const percent = (value) => (value === null ? "–" : (100 * value).toFixed(1));
const range = (ends) => (ends === null ? "–" : ends.map(percent).join("–"));
const plain = (value) => (value === null ? "–" : String(value));
const number = new Intl.NumberFormat("en");
const words = new Intl.Collator("en", { numeric: true });
// Called when ``page`` has its data for the first time, and whenever it has new data.
const onStart = [], onRefresh = [];

// The data are in a report, and beside a page of ``gpo view``.
async function load(source) {
  const known = JSON.parse(source.getElementById("data")?.textContent ?? "{}");
  if (!known.live) { page = known; return; }
  const reply = await fetch(`/data/${known.live}`);
  if (!reply.ok) throw new Error(`status ${reply.status}`);
  page = { ...await reply.json(), ...known };
}

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function option(select, value, text) {
  select.append(element("option", { value }, text));
}

// Shows one page of lines; ``prefix`` begins the IDs of the elements.
function paged(prefix, line, many, none) {
  let lines = [], at = 0, more = "";
  function draw() {
    const pages = Math.max(1, Math.ceil(lines.length / ROWS_A_PAGE));
    at = Math.max(0, Math.min(at, pages - 1));
    const first = at * ROWS_A_PAGE, part = lines.slice(first, first + ROWS_A_PAGE);
    byId(`${prefix}rows`).replaceChildren(...part.map(line));
    byId(`${prefix}found`).textContent = part.length
      ? `${number.format(first + 1)} to ${number.format(first + part.length)} of ${number.format(lines.length)} ${many}${more}`
      : none;
    byId(`${prefix}page`).textContent = `Page ${number.format(at + 1)} of ${number.format(pages)}`;
    byId(`${prefix}previous`).disabled = at === 0;
    byId(`${prefix}next`).disabled = at === pages - 1;
    byId(`${prefix}pages`).hidden = pages === 1;
  }
  byId(`${prefix}previous`).addEventListener("click", () => { at -= 1; draw(); });
  byId(`${prefix}next`).addEventListener("click", () => { at += 1; draw(); });
  return (found, note = "", stays = false) => { lines = found; more = note; at = stays ? at : 0; draw(); };
}

const wantedWords = (id) => byId(id).value.toLowerCase().split(/\s+/).filter(Boolean);

// Splits texts like cluster/reporting/diff.py.
const WORD = new RegExp(String.raw`SPACE*(?:ATOM|(?:(?!ATOM)[^ \t\n\r\f\v])+)|SPACE+$`
  .replaceAll("SPACE", String.raw`[ \t\n\r\f\v]`)
  .replaceAll("ATOM", String.raw`\{\{[^{}\n]*\}\}|\[\[(?:system|user)\]\]`), "g");
const split = (text) => text.match(WORD) ?? [];

function diff(row) {
  const before = split(page.rows[row[PARENT]][PROMPT]), after = split(row[PROMPT]), ranges = row[CHANGES];
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

const marks = (row) => [
  [BEST, "best"], [ACCEPTED, row[STEP] ? "accepted" : "initial"], [DROPPED, "dropped"], [FIRST, "first"],
].filter(([mark]) => row[FLAGS] & mark).flatMap(([, name]) => [element("span", { class: `mark ${name}` }, name), " "]);

// Elements that are filled when they are opened, since most never are.
function lazily(details, content) {
  details.addEventListener("toggle", () => {
    if (details.open && details.children.length === 1) details.append(...content());
  });
  return details;
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
  const place = `${row[TRAJECTORY]}/${row[STEP]}`;
  for (const [title, text] of Object.entries(page.notes[place] ?? {})) {
    parts.push(element("p", { class: "aside" }, `${title} used in this step:`));
    parts.push(element("p", { class: "prompt" }, text));
  }
  if (page.shown[place]) parts.push(shownPrompts(page.shown[place].map((index) => page.rows[index])));
  if (page.failures[place]) parts.push(shownFailures(page.failures[place]));
  parts.push(element("p", { class: "aside" }, `ID ${row[ID]}`));
  return parts;
}

function shownPrompts(rows) {
  const summary = element("summary", { class: "aside" }, "Earlier prompts shown to the optimizer model");
  return lazily(element("details", { class: "inner" }, summary), () => rows.map((row) => element("p", { class: "prompt" },
    element("span", { class: "aside" }, `Step ${row[STEP]}, val ${percent(row[VAL])} %: `), row[PROMPT])));
}

function shownFailures(wrong) {
  const titles = ["Input", "Correct answer", "The model's answer", "Why it is wrong"];
  const summary = element("summary", { class: "aside" }, "Failures shown to the optimizer model");
  return lazily(element("details", { class: "inner" }, summary), () => wrong.map((texts) => element("dl", {},
    ...texts.flatMap((text, index) => (
      text ? [element("dt", { class: "aside" }, titles[index]), element("dd", { class: "prompt" }, text)] : []
    )))));
}
