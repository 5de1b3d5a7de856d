// Renews a page of ``gpo view`` without loading it again: what is open, chosen or written stays.
(() => {
  const everyMs = 1000 * Number(document.body.dataset.everyS);
  const parts = (source) => [...source.querySelectorAll("[data-live]")];
  const content = (source) => new Map(parts(source).map((part) => [part.id, part.innerHTML]));
  let version = document.body.dataset.version, shown = content(document);

  function replace(part, html) {
    const open = new Map([...part.querySelectorAll("details[id]")].map((one) => [one.id, one.open]));
    const focused = part.contains(document.activeElement) ? document.activeElement.id : "";
    part.innerHTML = html; // from our own server, which escapes all texts; the policy of this page runs nothing in it
    for (const [id, isOpen] of open) if (byId(id)) byId(id).open = isOpen;
    if (focused) byId(focused)?.focus();
  }

  async function renew(fresh) {
    const found = content(fresh);
    if ([...found.keys()].join() !== [...shown.keys()].join()) { location.reload(); return; }
    for (const part of parts(document)) if (found.get(part.id) !== shown.get(part.id)) replace(part, found.get(part.id));
    shown = found;
    version = fresh.body.dataset.version;
    document.title = fresh.title;
    await load(fresh);
    for (const call of onRefresh) call();
  }

  async function ask() {
    const began = performance.now();
    let waitMs = everyMs;
    try {
      if (!document.hidden) {
        const reply = await fetch(location.pathname + location.search, { headers: { "If-None-Match": version } });
        if (reply.status === 200) await renew(new DOMParser().parseFromString(await reply.text(), "text/html"));
        else if (reply.status !== 304) throw new Error(`status ${reply.status}`);
        byId("live").textContent = "";
      }
    } catch (problem) {
      byId("live").textContent = `This page is not up to date: ${problem.message}`;
    }
    // A page that takes long to make is asked for less often.
    waitMs = Math.max(waitMs, 4 * (performance.now() - began));
    setTimeout(ask, waitMs);
  }

  if (everyMs) setTimeout(ask, everyMs);
})();
