const round = v => Number.isNaN(v) ? "–" : `${Math.round(100 * v)} %`;
// How each figure is written, and the column that it is read from where it has to be measured.
const METRICS = { share: { show: percent, column: "share" }, norm: { show: num }, relative: { show: percent, column: "relative" },
  entropy_rank: { show: num }, top_share: { show: round }, sensitivity: { show: num, column: "effect" } };
const titleOf = metric => sentence(`metric.${metric}`);
const AUTO = st => st.columns.share && st.columns.share.steps.length ? "share" : "norm";
// Layers by kinds, the last layer on top; names that do not fit make one column.
function moduleGrid(modules) {
  const key = m => `${m.layer} ${m.kind}`, kinds = [...new Set(modules.map(m => m.kind))], none = v => v === undefined || v === null;
  if (modules.some(m => none(m.layer) || none(m.kind)) || new Set(modules.map(key)).size < modules.length || kinds.length > 12)
    return { fits: false, rows: modules.map(m => m.name), columns: [""], place: modules.map((_, i) => [i]) };
  const layers = [...new Set(modules.map(m => m.layer))].sort((a, b) => b - a), at = new Map(modules.map((m, i) => [key(m), i]));
  return { fits: true, rows: layers.map(layer => sentence("map.layer", { layer })), columns: kinds.map(short), place: layers.map(l => kinds.map(k => at.get(`${l} ${k}`) ?? -1)) };
}
function valueOf(st, m, t, metric) {
  const { column } = METRICS[metric], found = column && measured(st, column, m, t), sigma = column ? [] : spectrumOf(st, m, t);
  if (column) return found ? { v: found.values.reduce((a, v) => Number.isFinite(v) ? a + v : a, 0), step: found.step } : { v: NaN };
  return { v: finite(sigma) ? figures(sigma, [NaN, NaN])[metric] : NaN };
}
const mean = v => v.length ? v.reduce((a, b) => a + b, 0) / v.length : NaN;
const known = v => v.filter(o => Number.isFinite(o));
// The ends of the colours, and where noise lies between them.
function mapScale(st, t, v, metric) {
  const o = st.modules, edge = m => ((1 + Math.sqrt(m.r / m.m)) * (1 + Math.sqrt(m.r / m.n))) ** 2 / m.r;
  const mark = !o.length ? NaN : metric === "entropy_rank" ? most(o.map(noiseRank)) : metric === "top_share" ? most(o.map(edge))
    : metric === "share" ? mean(known(o.map((_, i) => (measured(st, "chance", i, t) || { values: [NaN] }).values[0])))
    : metric === "norm" ? o.reduce((a, m, i) => { const b = bandOf(st, i, t); return a + Math.sqrt(m.r) * (b[0] + b[1]) / 2; }, 0) / o.length : NaN;
  const lo = metric === "entropy_rank" ? 1 : metric === "top_share" && o.length ? least(o.map(m => 1 / m.r)) : 0;
  return { lo, hi: most(known([...v, mark]), lo), mark };
}
function mapReading(st, t, fits, v, metric, mark) {
  const modules = st.modules, { show, column } = METRICS[metric], sizes = modules.map((_, m) => t < 0 ? 0 : valueOf(st, m, t, "norm").v ** 2), total = sizes.reduce((a, b) => a + b, 0);
  if (!v.length) return sentence("map.none");
  if (t < 0 || total === 0) return sentence("map.zero");
  if (!known(v).length) return column ? sentence("map.unmeasured", { metric: titleOf(metric) }) : sentence("spectrum.diverged");
  const called = ({ kind, layer, name }) => fits ? sentence("map.module", { kind: short(kind), layer }) : name;
  const at = value => { const i = v.indexOf(value); return `${called(modules[i])} (${show(v[i])})`; };
  const said = [sentence(`map.${metric}`, { most: at(most(known(v))), least: at(least(known(v))) })];
  if (metric === "norm") said.push(...fits ? holders(modules, sizes, total) : []);
  else if (!Number.isNaN(mark)) said.push(sentence(`map.chance_${metric}`, { value: show(mark) }));
  return said.join(" ");
}
// The kinds of modules that hold two thirds of the energy.
function holders(modules, sizes, total) {
  const by = new Map(), kinds = [];
  modules.forEach((m, i) => by.set(short(m.kind || ""), (by.get(short(m.kind || "")) || 0) + sizes[i]));
  if (by.size < 3) return [];
  let held = 0;
  for (const [k, e] of [...by].sort((a, b) => b[1] - a[1])) { kinds.push(k); held += e; if (held >= 2 / 3 * total) break; }
  return [sentence("map.holders", { kinds: listed(kinds), percent: Math.round(100 * held / total) })];
}
// Everything about one module, beside its cell: path, shape, spectrum, figures.
function peekAt(st, m, t) {
  const o = st.modules[m], sigma = spectrumOf(st, m, t).map(v => Number.isFinite(v) ? v : 0), band = bandOf(st, m, t), W = 92, H = 30, ax = axes(W, H, [0.5, o.r + 0.5], sigmaRange([...sigma, ...known(band)]), { left: 0, right: 0, top: 2, bottom: 1 });
  const spark = s("svg", { viewBox: `0 0 ${W} ${H}`, "aria-hidden": "true" }, Number.isFinite(band[1]) && s("rect", { class: "noise", x: 0, width: W, y: ax.y(band[1]), height: ax.y(band[0]) - ax.y(band[1]) }),
    s("path", { class: "stems", d: sigma.map((v, i) => v > 0 ? `M${ax.x(i + 1).toFixed(1)} ${H}V${ax.y(v).toFixed(1)}` : "").join(""), "stroke-width": Math.max(0.8, Math.min(3, 60 / o.r)) }));
  const rows = Object.entries(METRICS).map(([k, { show }]) => [titleOf(k), valueOf(st, m, t, k), show]).filter(([, f]) => Number.isFinite(f.v)), old = rows.map(([, f]) => f.step).filter(v => v !== undefined && v !== st.steps[t]);
  return [h("div", { class: "mono" }, o.name), h("div", { class: "row" }, h("span", {}, `${o.m} × ${o.n}`, h("br"), `r ${o.r} · ${sentence("map.scaling", { scaling: num(o.scaling) })}`), spark),
    h("div", { class: "facts" }, rows.map(([name, f, show]) => h("span", {}, `${name} `, h("b", {}, show(f.v).replace(" %", "\u00a0%")), f.step !== undefined && f.step !== st.steps[t] && "*"))), old.length > 0 && h("div", {}, `* ${sentence("map.measured_at", { steps: [...new Set(old)].map(count).join(", ") })}`)];
}
function render({ model, el }) {
  const { root, body, subline, at: when } = asks(el, model, sentence("map.question"), "layermap");
  const grid = h("div", { class: "map", role: "grid", "aria-label": sentence("map.grid") }), lo = h("span", {}), hi = h("span", {}), note = h("div", { class: "tiny note" }), tick = h("i", {}), read = h("p", { class: "read" });
  const options = Object.keys(METRICS).map(k => h("option", { value: k }, titleOf(k))), metrics = h("select", { "aria-label": sentence("map.colour"), onchange: e => set(model, "metric", e.target.value) }, options);
  const peek = h("div", { class: "peek", id: id("peek"), hidden: true });
  body.append(grid, h("div", { class: "row tiny scale" }, h("div", {}, h("div", { class: "ramp", role: "presentation" }, tick), h("div", { class: "row" }, lo, hi)), metrics), note, h("div", { class: "reading" }, read), peek);
  let cells = [], drawn = [], place = [], built = null, at = -1, here = -1, stay = { st: null, t: -1 };
  const choose = m => set(model, "selected", model.get("modules")[m].name);
  const hide = () => { peek.hidden = true; };
  const show = m => {
    if (!stay.st || stay.t < 0) return hide();
    fill(peek, peekAt(stay.st, m, stay.t)); peek.hidden = false;
    const box = root.getBoundingClientRect(), cell = cells[m].getBoundingClientRect(), below = cell.bottom - box.top + 7, fits = below + peek.offsetHeight < box.height;
    peek.style.top = `${fits ? below : Math.max(2, cell.top - box.top - peek.offsetHeight - 7)}px`;
    cells[m].setAttribute("aria-describedby", peek.id);
  };
  const roam = m => { cells.forEach((c, i) => { c.tabIndex = i === m ? 0 : -1; }); here = m; };
  grid.addEventListener("keydown", e => {
    if (e.key === "Enter" || e.key === " ") { e.preventDefault(); return choose(here); }
    if (e.key === "Escape") return hide();
    const d = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0], Home: [0, -1], End: [0, 1] }[e.key], far = e.key === "Home" || e.key === "End";
    if (!d) return;
    e.preventDefault();
    let i = place.findIndex(row => row.includes(here)), j = i < 0 ? 0 : place[i].indexOf(here), best = here;
    while (place[i + d[0]] && place[i + d[0]][j + d[1]] !== undefined) { i += d[0]; j += d[1]; if (place[i][j] >= 0) { best = place[i][j]; if (!far) break; } }
    if (best !== here) { roam(best); cells[best].focus(); }
  });
  const over = e => { const m = cells.indexOf(e.target.closest(".cell")); if (m >= 0) show(m); };
  grid.addEventListener("pointerover", over); grid.addEventListener("focusin", over);
  grid.addEventListener("pointerleave", hide); grid.addEventListener("focusout", e => { if (!grid.contains(e.relatedTarget)) { hide(); if (cells[at]) roam(at); } });
  function build(st) {
    const g = moduleGrid(st.modules), n = g.rows.length, tall = g.fits ? Math.max(5, Math.min(30, Math.floor(168 / Math.max(n, 1)))) : 18, every = Math.ceil(13 / tall);
    ({ place } = g); built = st.modules; cells = []; drawn = []; at = -1; hide();
    grid.classList.toggle("list", !g.fits); grid.classList.toggle("dense", tall < 11);
    grid.style.gridTemplateColumns = g.fits ? `max-content repeat(${g.columns.length}, minmax(0, 40px))` : "minmax(0, 1fr) 40px";
    fill(grid, g.fits && h("div", { role: "row", class: "head" }, h("span", { role: "columnheader", class: "unseen" }, sentence("map.layers")), h("span", { "aria-hidden": "true" }), g.columns.map(c => h("span", { role: "columnheader" }, c))),
      g.rows.map((r, i) => h("div", { role: "row" }, h("span", { role: "rowheader", title: g.fits ? null : r, style: `height:${tall}px;line-height:${tall}px` }, i % every === 0 ? r : ""),
        place[i].map(m => m < 0 ? h("span", { role: "gridcell" }) : cells[m] = h("div", { role: "gridcell", tabindex: -1, class: "cell", style: `height:${tall}px`, onclick: () => choose(m) }, h("i", {}))))));
    return g;
  }
  let g = { fits: false };
  function draw(st, m, t) {
    if (built !== st.modules) g = build(st);
    const asked = model.get("metric") || "auto", metric = asked === "auto" ? AUTO(st) : asked, { show, column } = METRICS[metric];
    const found = st.modules.map((_, i) => t < 0 ? { v: NaN } : valueOf(st, i, t, metric)), v = found.map(f => f.v), ends = mapScale(st, t, v, metric), n = st.steps.length - 1;
    // While an earlier step is shown, the colours keep the scale of the newest, so that the map fills as it did.
    if (t >= 0 && t < n) ends.hi = mapScale(st, n, [...v, ...st.modules.map((_, i) => valueOf(st, i, n, metric).v)], metric).hi;
    const part = o => ends.hi > ends.lo ? Math.min(1, Math.max(0, (o - ends.lo) / (ends.hi - ends.lo))) : 0;
    say(subline, sentence(`map.above_${metric}`)); when(st, t); metrics.value = metric; stay = { st, t };
    options.forEach(o => { const need = METRICS[o.value].column; o.disabled = !!need && !st.columns[need] && o.value !== metric; });
    v.forEach((o, i) => {
      const text = t < 0 ? "–" : show(o), shade = Number.isFinite(o) ? (7 + 93 * part(o)).toFixed(0) : "none";
      if (drawn[i] === shade + text) return;
      drawn[i] = shade + text;
      cells[i].firstChild.style.background = shade === "none" ? "" : `color-mix(in srgb, var(--accent) ${shade}%, transparent)`; cells[i].classList.toggle("unknown", shade === "none");
      cells[i].setAttribute("aria-label", `${st.modules[i].name}: ${text}`);
    });
    if (at !== m) {
      if (cells[at]) cells[at].removeAttribute("aria-selected");
      if (cells[m]) cells[m].setAttribute("aria-selected", "true");
      if (!grid.contains(root.getRootNode().activeElement)) roam(m);
      at = m;
    }
    const steps = known(found.map(f => f.step)), from = steps.length ? most(steps) : NaN;
    say(lo, t < 0 ? "" : show(ends.lo)); say(hi, t < 0 ? "" : show(ends.hi)); tick.hidden = !Number.isFinite(ends.mark) || t < 0; tick.style.left = `${100 * part(ends.mark)}%`;
    const late = column && steps.length && from !== st.steps[t];
    if (!tick.hidden) say(note, `▏ ${sentence(metric === "share" ? "map.mark_chance" : "map.mark_noise", { value: show(ends.mark) })}`);
    else say(note, late ? sentence("map.measured_at", { steps: count(from) }) : "");
    tell(read, mapReading(st, t, g.fits, v, metric, ends.mark));
  }
  return follow(model, ["metric"], root, draw);
}
export default { render };
