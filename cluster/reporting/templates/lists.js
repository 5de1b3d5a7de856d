// Tables that are sorted by a click on a heading, and whose lines are filtered and chosen.
(() => {
  const chosen = new Set();
  let sorted = null, descending = false;

  function arrange() {
    const query = byId("lists-query");
    const wanted = query ? wantedWords("lists-query") : [];
    for (const table of document.querySelectorAll("table.sortable")) {
      const lines = [...table.tBodies[0].rows];
      if (sorted?.table === table.id) {
        const key = (line) => line.cells[sorted.column].dataset.value ?? line.cells[sorted.column].textContent.trim();
        lines.sort((one, other) => {
          const [a, b] = [key(one), key(other)];
          if (!a || !b) return !a - !b; // unknown values come last in both directions
          return (descending ? -1 : 1) * words.compare(a, b);
        });
        table.tBodies[0].append(...lines);
      }
      for (const heading of table.tHead.rows[0].cells) {
        const isSorted = sorted?.table === table.id && heading.cellIndex === sorted.column;
        heading.setAttribute("aria-sort", isSorted ? (descending ? "descending" : "ascending") : "none");
      }
      for (const line of lines) {
        const text = line.textContent.toLowerCase();
        line.hidden = !wanted.every((word) => text.includes(word));
      }
    }
    for (const box of document.querySelectorAll("input[name=run]")) box.checked = chosen.has(box.value);
    if (byId("compare")) byId("compare").disabled = chosen.size < 2;
  }

  document.addEventListener("click", ({ target }) => {
    const heading = target.closest?.("table.sortable th > button")?.parentElement;
    if (!heading) return;
    const table = heading.closest("table").id, column = heading.cellIndex;
    const isSame = sorted?.table === table && sorted.column === column;
    // Numbers are first sorted from high to low.
    descending = isSame ? !descending : heading.classList.contains("number");
    sorted = { table, column };
    arrange();
  });
  document.addEventListener("change", ({ target }) => {
    if (target.name !== "run") return;
    if (target.checked) chosen.add(target.value); else chosen.delete(target.value);
    arrange();
  });
  byId("lists-query")?.addEventListener("input", arrange);
  byId("lists-filter")?.removeAttribute("hidden");
  for (const box of document.querySelectorAll("input[name=run]:checked")) chosen.add(box.value);
  onRefresh.push(arrange);
  arrange();
})();
