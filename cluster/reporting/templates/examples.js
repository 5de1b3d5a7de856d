// The table of examples, with the answers to two prompts side by side.
function showExamples() {
  // The layout of rows in cluster/reporting/examples.py.
  const [SPLIT, NUMBER, TEXT, VALUE, READ, WHY, FLAW, TOKENS, SECONDS, CACHED, LENGTH] = Array(11).keys();
  const INPUT = 2, TARGETS = 3, NO_READING = "(nothing)", MOST_LABELS = 12, MOST_PAIRS = 20;
  const OUTCOMES = ["broken", "fixed", "wrong", "right", "unscored", "unasked"];
  const SPLITS = ["train", "val", "test"];
  const place = (row) => `${row[SPLIT]}/${row[NUMBER]}`;
  const value = (id) => byId(`examples-${id}`).value;
  let known = new Map(), rows = [], cell = null, turn = 0;

  // Of a trajectory: its examples, and the number of recorded answers of each prompt.
  function beginning(of) {
    const [task] = page.trajectories[of];
    return page.live ? asked(of, "") : { examples: page.examples.examples[task] ?? [], recorded: page.examples.recorded[of] ?? {} };
  }

  async function answers(of, prompt) {
    if (!page.live) return page.examples.answers[of]?.[prompt] ?? [];
    return prompt ? (await asked(of, prompt)).answers : [];
  }

  function asked(of, prompt) {
    const [task, seed] = page.trajectories[of], key = `${of} ${prompt}`;
    const query = new URLSearchParams({ task, seed, ...(prompt && { prompt }) });
    if (!known.has(key)) known.set(key, fetch(`/answers/${page.live}?${query}`).then((reply) => {
      if (!reply.ok) throw new Error(`status ${reply.status}`);
      return reply.json();
    }));
    return known.get(key);
  }

  // The prompts whose answers can be shown: the initial and the best one, then later ones before earlier ones.
  function promptOptions(of, recorded) {
    const own = page.rows.filter((row) => row[TRAJECTORY] === of);
    const isThere = (row) => (page.live ? recorded[row[ID]] : page.examples.answers[of]?.[row[ID]]);
    const found = own.filter(isThere).reverse();
    const best = own.find((row) => row[FLAGS] & BEST), initial = own[0];
    for (const [id, row] of [["before", initial], ["after", best]]) {
      const choice = byId(`examples-${id}`), chosen = choice.value;
      choice.replaceChildren();
      for (const one of new Set([initial, best, ...found].filter((row) => row && isThere(row)))) {
        const name = one === best ? "best, " : "";
        const step = one === initial ? "initial prompt" : `${name}step ${one[STEP]}`;
        option(choice, one[ID], `${step}, val ${percent(one[VAL])} %: ${one[PROMPT].slice(0, 60)}`);
      }
      choice.value = found.some((one) => one[ID] === chosen) ? chosen : row?.[ID] ?? "";
    }
    const missing = Object.keys(recorded).length - found.length;
    byId("examples-more").textContent = missing > 0
      ? `The recorded answers to ${number.format(missing)} more prompts do not fit on this page. gpo view shows all.` : "";
  }

  function outcome(before, after) {
    if (!after) return "unasked";
    if (after[VALUE] === null || (before && before[VALUE] === null)) return "unscored";
    if (!before) return "unasked";
    if (after[VALUE] !== before[VALUE]) return after[VALUE] > before[VALUE] ? "fixed" : "broken";
    return after[VALUE] >= 1 ? "right" : "wrong";
  }

  async function load(stays = false) {
    const mine = ++turn, of = Number(value("trajectory"));
    try {
      const { examples, recorded } = await beginning(of);
      if (mine !== turn) return;
      promptOptions(of, recorded);
      const sides = await Promise.all([answers(of, value("before")), answers(of, value("after"))]);
      if (mine !== turn) return;
      const [before, after] = sides.map((side) => new Map(side.map((row) => [place(row), row])));
      const texts = new Map(examples.map((row) => [place(row), row]));
      rows = [...new Set([...before.keys(), ...after.keys()])].map((at) => {
        const [answer, other] = [before.get(at), after.get(at)];
        const example = texts.get(at) ?? [...at.split("/"), "(the example is not recorded)", []];
        return { at, example, sides: [answer, other], outcome: outcome(answer, other) };
      });
      if (!stays) cell = null;
      drawConfusion();
      select(stays);
    } catch (problem) {
      byId("examples-found").textContent = `The answers cannot be loaded: ${problem.message}`;
      known = new Map();
    }
  }

  const SORTS = {
    longest: (answer) => answer[LENGTH], tokens: (answer) => answer[TOKENS], slowest: (answer) => answer[SECONDS],
  };

  function select(stays = false) {
    const wanted = wantedWords("examples-query"), flaw = value("flaw"), kind = value("outcome"), sort = SORTS[value("sort")];
    const found = rows.filter((row) => {
      const { example, sides } = row;
      if (kind !== "" && row.outcome !== kind) return false;
      if (flaw !== "" && !sides.some((answer) => answer?.[FLAW] === flaw)) return false;
      if (cell && !isIn(cell, row)) return false;
      const texts = [example[INPUT], ...example[TARGETS], ...sides.map((answer) => answer?.[TEXT] ?? "")];
      return wanted.every((word) => texts.some((text) => text.toLowerCase().includes(word)));
    });
    const most = (row) => Math.max(...row.sides.map((answer) => (answer ? sort(answer) : 0)));
    found.sort((one, other) => (sort ? most(other) - most(one) : 0)
      || OUTCOMES.indexOf(one.outcome) - OUTCOMES.indexOf(other.outcome)
      || SPLITS.indexOf(one.example[SPLIT]) - SPLITS.indexOf(other.example[SPLIT])
      || one.example[NUMBER] - other.example[NUMBER]);
    const left = page.examples.left_out;
    draw(found, left ? `; ${number.format(left)} more answers do not fit on this page` : "", stays);
    byId("examples-cell").hidden = !cell;
    byId("examples-cell").textContent = cell ? `Only ${cell.target} read as ${cell.read}. Show all` : "";
  }

  function shownAnswer(title, answer) {
    const made = element("td", { role: "cell", class: "whole", "data-label": title });
    if (!answer) { made.append(element("span", { class: "aside" }, "not asked")); return made; }
    const score = answer[VALUE];
    made.append(element("span", { class: score === null ? "aside" : score >= 1 ? "better" : "worse" },
      score === null ? "unscored" : `${percent(score)} %`));
    if (answer[READ] && !answer[WHY]) made.append(element("span", { class: "aside" }, ` read as ${answer[READ]}`));
    if (answer[FLAW]) made.append(" ", element("span", { class: "mark broken" }, answer[FLAW]));
    made.append(element("p", { class: "prompt" }, answer[TEXT] || "(no text)"));
    if (answer[WHY]) made.append(element("p", { class: "aside" }, answer[WHY]));
    const time = answer[CACHED] ? "from the cache" : `${answer[SECONDS].toFixed(1)} s`;
    made.append(element("p", { class: "aside" },
      `${number.format(answer[TOKENS])} tokens · ${time} · ${number.format(answer[LENGTH])} characters`));
    return made;
  }

  const draw = paged("examples-", ({ at, example, sides, outcome }) => element("tr", { role: "row" },
    element("td", { role: "cell", class: "whole" }, `${at} `, element("span", { class: `mark ${outcome}` }, outcome)),
    element("td", { role: "cell", class: "whole", "data-label": "Input" }, element("p", { class: "prompt" }, example[INPUT])),
    element("td", { role: "cell", class: "whole", "data-label": "Target" }, example[TARGETS].join(" | ")),
    shownAnswer("First prompt", sides[0]), shownAnswer("Second prompt", sides[1]),
  ), "examples", "No example matches.");

  // Which labels are read where others are right. Several targets are alternatives.
  const target = ({ example }, answer) => (
    example[TARGETS].includes(answer[READ]) ? answer[READ] : example[TARGETS][0] ?? "");
  const reading = (answer) => answer[READ] || NO_READING;
  const isIn = (wanted, row) => {
    const answer = row.sides[wanted.side];
    return answer && answer[VALUE] !== null && target(row, answer) === wanted.target && reading(answer) === wanted.read;
  };

  function counts(side) {
    const found = new Map();
    for (const row of rows) {
      const answer = row.sides[side];
      if (!answer || answer[VALUE] === null) continue;
      const pair = JSON.stringify([target(row, answer), reading(answer)]);
      found.set(pair, (found.get(pair) ?? 0) + 1);
    }
    return found;
  }

  function count(side, found, of, as) {
    const times = found.get(JSON.stringify([of, as])) ?? 0;
    const cellOf = element("td", { class: `number ${times ? (of === as ? "better" : "worse") : "aside"}` });
    if (!times) { cellOf.append("0"); return cellOf; }
    const button = element("button", { type: "button", class: "plain", "aria-label": `${of} read as ${as}: ${times}` }, String(times));
    button.addEventListener("click", () => { cell = { side, target: of, read: as }; select(); });
    cellOf.append(button);
    return cellOf;
  }

  function drawConfusion() {
    const sides = [counts(0), counts(1)], isRead = rows.some((row) => row.sides.some((answer) => answer?.[READ]));
    byId("confusion").hidden = !isRead;
    if (!isRead) return;
    const pairs = [...new Set(sides.flatMap((side) => [...side.keys()]))].map((pair) => JSON.parse(pair));
    const labels = [...new Set(pairs.flat())].filter((label) => label !== NO_READING).sort(words.compare);
    const columns = pairs.some(([, as]) => as === NO_READING) ? [...labels, NO_READING] : labels;
    const titles = ["First prompt", "Second prompt"];
    const head = (cells) => element("thead", {}, element("tr", {}, ...cells));
    const column = (text) => element("th", { scope: "col", class: "number" }, text);
    let tables;
    if (labels.length <= MOST_LABELS) {
      tables = sides.map((found, side) => {
        const lines = labels.map((of) => element("tr", {}, element("th", { scope: "row" }, of),
          ...columns.map((as) => count(side, found, of, as))));
        return element("table", {}, element("caption", {}, titles[side]),
          head([element("th", { scope: "col" }, "Target ↓ read as →"), ...columns.map(column)]), element("tbody", {}, ...lines));
      });
    } else {
      const wrong = pairs.filter(([of, as]) => of !== as);
      const times = (pair) => Math.max(...sides.map((found) => found.get(JSON.stringify(pair)) ?? 0));
      const lines = wrong.sort((one, other) => times(other) - times(one)).slice(0, MOST_PAIRS).map(([of, as]) => element("tr", {},
        element("th", { scope: "row" }, of), element("td", {}, as), ...sides.map((found, side) => count(side, found, of, as))));
      tables = [element("table", {}, element("caption", {}, `The ${Math.min(MOST_PAIRS, wrong.length)} most frequent confusions`),
        head([element("th", { scope: "col" }, "Target"), element("th", { scope: "col" }, "Read as"), ...titles.map(column)]),
        element("tbody", {}, ...lines))];
    }
    byId("confusion-tables").replaceChildren(...tables.map((table) => element("div", { class: "scroll", tabindex: "0" }, table)));
  }

  const hasAnswers = (index) => page.live || page.examples.recorded[index];
  trajectoryOptions(byId("examples-trajectory"), hasAnswers);
  byId("examples-filter").addEventListener("submit", (event) => event.preventDefault());
  for (const id of ["query", "outcome", "flaw", "sort"]) byId(`examples-${id}`).addEventListener("input", () => select());
  for (const id of ["trajectory", "before", "after"]) byId(`examples-${id}`).addEventListener("input", () => load());
  byId("examples-cell").addEventListener("click", () => { cell = null; select(); });
  onRefresh.push(() => { known = new Map(); trajectoryOptions(byId("examples-trajectory"), hasAnswers); load(true); });
  byId("examples-filter").hidden = byId("examples-table").hidden = false;
  load();
}

if (byId("examples-table")) onStart.push(showExamples);
