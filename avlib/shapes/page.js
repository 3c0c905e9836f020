(() => {
  const root = document.getElementById("{{ id }}");
  if (!root || root.dataset.on) return;
  root.dataset.on = 1;
  const tree = root.querySelector(".t"), box = document.createElement("input"), told = document.createElement("small");
  box.type = "search";
  box.placeholder = "find a path, operation, size or formula";
  box.setAttribute("aria-label", box.placeholder);
  told.setAttribute("role", "status");
  tree.before(box, told);
  const all = [...tree.querySelectorAll("details")], number = new Map(all.map((e, k) => [e, k]));
  const was = all.map(e => e.open);
  const above = all.map(e => number.get(e.parentElement.closest("details")) ?? -1);
  const panel = e => e.querySelector(":scope > .i > .p")?.textContent ?? "";
  const text = all.map(e => `${e.firstElementChild.textContent} ${panel(e)} ${e.dataset.m ?? ""}`.toLowerCase());
  const groups = all.filter(e => e.dataset.m).map(e => e.dataset.m.toLowerCase().split(" "));
  const tail = path => path.split(".").slice(-2).join(".");
  const asFirst = query => {
    for (const names of groups) for (const name of names.map(tail)) {
      const at = query.indexOf(name);
      if (at >= 0 && !/^\d/.test(query.slice(at + name.length))) query = query.replace(name, tail(names[0]));
    }
    return query;
  };
  box.oninput = () => {
    const query = box.value.trim().toLowerCase();
    if (!query) {
      all.forEach((e, k) => { e.hidden = false; e.open = was[k]; });
      told.textContent = "";
      return;
    }
    let found = text.map(t => t.includes(query));
    if (!found.includes(true)) { const other = asFirst(query); found = text.map(t => t.includes(other)); }
    const leads = all.map(() => false), within = all.map(() => false);
    for (let k = all.length - 1; k >= 0; k--) if ((found[k] || leads[k]) && above[k] >= 0) leads[above[k]] = true;
    all.forEach((e, k) => {
      within[k] = above[k] >= 0 && (within[above[k]] || (found[above[k]] && !leads[above[k]]));
      e.hidden = !(found[k] || leads[k] || within[k]);
      e.open = leads[k];
    });
    told.textContent = `${found.filter(Boolean).length} found`;
  };
  root.addEventListener("click", event => {
    const code = event.target.closest("code");
    if (code && navigator.clipboard)
      navigator.clipboard.writeText(code.textContent).then(() => { code.title = "copied"; }, () => {});
  });
})()
