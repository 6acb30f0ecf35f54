const METRICS = { norm: ["size ‖ΔW‖", "How far each module moved: ‖ΔW‖", "Most:", "least:"], entropy_rank: ["entropy rank", "How many directions each update uses", "Most directions:", "fewest:"],
  top_share: ["top share", "Share of the first direction in each update", "Most in one direction:", "least:"] };
// Layers by kinds, the last layer on top; names that do not fit make one column.
function moduleGrid(modules) {
  const key = m => `${m.layer} ${m.kind}`, kinds = [...new Set(modules.map(m => m.kind))], none = v => v === undefined || v === null;
  if (modules.some(m => none(m.layer) || none(m.kind)) || new Set(modules.map(key)).size < modules.length || kinds.length > 12)
    return { fits: false, rows: modules.map(m => m.name), columns: [""], place: modules.map((_, i) => [i]) };
  const layers = [...new Set(modules.map(m => m.layer))].sort((a, b) => b - a), at = new Map(modules.map((m, i) => [key(m), i]));
  return { fits: true, rows: layers.map(l => `layer ${l}`), columns: kinds.map(short), place: layers.map(l => kinds.map(k => at.get(`${l} ${k}`) ?? -1)) };
}
function mapReading(modules, fits, all, metric, show) {
  const v = all.map(f => f[metric]), total = all.reduce((a, f) => a + f.norm ** 2, 0);
  if (!v.length) return "No modules yet.";
  if (!total) return "B is still zero everywhere: nothing has been learned yet.";
  const name = i => `${fits ? `${short(modules[i].kind)} of layer ${modules[i].layer}` : modules[i].name} (${show(v[i])})`;
  let text = `${METRICS[metric][2]} ${name(v.indexOf(most(v)))}, ${METRICS[metric][3]} ${name(v.indexOf(least(v)))}.`;
  const by = new Map();
  modules.forEach((m, i) => by.set(short(m.kind || ""), (by.get(short(m.kind || "")) || 0) + all[i].norm ** 2));
  if (metric !== "norm" || !fits || by.size < 3) return text;
  const names = []; let held = 0;
  for (const [k, e] of [...by].sort((a, b) => b[1] - a[1])) { names.push(k); held += e; if (held >= 2 / 3 * total) break; }
  return `${text} The ${listed(names)} modules hold ${Math.round(100 * held / total)} % of the energy.`;
}
function render({ model, el }) {
  const { root, body, subline } = card(el, { title: "Which layers learned?", cls: "layermap" });
  const grid = h("div", { class: "map", role: "grid", "aria-label": "Modules by layer" }), lo = h("span", {}), hi = h("span", {}), read = h("p", { class: "read" });
  const metrics = h("select", { "aria-label": "Colour by", onchange: e => set(model, "metric", e.target.value) }, Object.entries(METRICS).map(([k, m]) => h("option", { value: k }, m[0])));
  body.append(grid, h("div", { class: "row tiny scale" }, h("div", {}, h("div", { class: "ramp", role: "presentation" }), h("div", { class: "row" }, lo, hi)), metrics), h("div", { class: "reading" }, read));
  let cells = [], drawn = [], place = [], built = null, at = -1, focus = false;
  const choose = m => { set(model, "selected", model.get("modules")[m].name); };
  const keys = e => {
    const d = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0], Home: [0, -99], End: [0, 99] }[e.key];
    if (!d) return;
    e.preventDefault();
    let i = place.findIndex(row => row.includes(at)), j = i < 0 ? 0 : place[i].indexOf(at);
    const far = Math.abs(d[1]) > 1, inside = () => i + d[0] >= 0 && i + d[0] < place.length && j + d[1] / (far ? 99 : 1) >= 0 && j + d[1] / (far ? 99 : 1) < place[0].length;
    let best = at;
    while (inside()) { i += d[0]; j += d[1] / (far ? 99 : 1); if (place[i][j] >= 0) { best = place[i][j]; if (!far) break; } }
    if (best !== at) { choose(best); focus = true; }
  };
  grid.addEventListener("keydown", keys);
  grid.addEventListener("pointerover", e => { const cell = e.target.closest(".cell"); if (cell) cell.title = cell.getAttribute("aria-label"); });
  function build(st) {
    const g = moduleGrid(st.modules), n = g.rows.length, tall = g.fits ? Math.max(5, Math.min(30, Math.floor(168 / Math.max(n, 1)))) : 18, every = Math.ceil(13 / tall);
    ({ place } = g); built = st.modules; cells = []; drawn = [];
    grid.classList.toggle("list", !g.fits); grid.classList.toggle("dense", tall < 11);
    grid.style.gridTemplateColumns = g.fits ? `max-content repeat(${g.columns.length}, minmax(0, 40px))` : "minmax(0, 1fr) 40px";
    fill(grid, g.fits && h("div", { role: "row", class: "head" }, h("span", { role: "columnheader", class: "unseen" }, "layer"), h("span", { "aria-hidden": "true" }), g.columns.map(c => h("span", { role: "columnheader" }, c))),
      g.rows.map((r, i) => h("div", { role: "row" }, h("span", { role: "rowheader", title: g.fits ? null : r, style: `height:${tall}px;line-height:${tall}px` }, i % every === 0 ? r : ""),
        place[i].map(m => {
          if (m < 0) return h("span", { role: "gridcell" });
          const cell = h("div", { role: "gridcell", tabindex: -1, class: "cell", style: `height:${tall}px`, onclick: () => { choose(m); focus = true; } }, h("i", {}));
          cells[m] = cell;
          return cell;
        }))));
    return g;
  }
  let g = { fits: false };
  function draw(st, m) {
    if (built !== st.modules) g = build(st);
    const metric = model.get("metric") || "norm", show = v => metric === "top_share" ? `${Math.round(100 * v)} %` : num(v);
    const all = st.modules.map((_, i) => figures(spectrumOf(st, i), [NaN, NaN])), v = all.map(f => f[metric]), a = v.length ? least(v) : 0, b = v.length ? most(v) : 0;
    say(subline, METRICS[metric][1]); metrics.value = metric;
    v.forEach((o, i) => {
      const share = (7 + 93 * (b > a ? (o - a) / (b - a) : 0)).toFixed(0), text = show(o);
      if (drawn[i] === share + text) return;
      drawn[i] = share + text;
      cells[i].firstChild.style.background = `color-mix(in srgb, var(--accent) ${share}%, transparent)`;
      cells[i].setAttribute("aria-label", `${st.modules[i].name}: ${text}`);
    });
    if (at !== m || !cells[m]?.hasAttribute("aria-selected")) {
      cells.forEach((c, i) => { c.tabIndex = i === m ? 0 : -1; if (i === m) c.setAttribute("aria-selected", "true"); else c.removeAttribute("aria-selected"); });
      at = m;
    }
    if (focus && cells[m]) { focus = false; cells[m].focus(); }
    say(lo, st.steps.length ? show(a) : ""); say(hi, st.steps.length ? show(b) : "");
    tell(read, mapReading(st.modules, g.fits, all, metric, show));
  }
  return follow(model, ["metric"], root, draw);
}
export default { render };
