// What the views of the spectra share: the frames with what was measured, and the figures and sentences of loranb/spectra/readings.py.
const short = kind => kind.replace(/_proj$/, "");
const listed = a => a.length > 1 ? sentence("list.last", { first: a.slice(0, -1).join(", "), last: a[a.length - 1] }) : a[0];
const percent = v => v === null || Number.isNaN(v) ? "–" : `${num(100 * v, 2)} %`;
const bytes = n => { for (const [unit, letter] of [[1e9, "GB"], [1e6, "MB"], [1e3, "kB"]]) if (n >= unit) return `${num(n / unit)} ${letter}`; return `${num(n)} B`; };
const COLUMNS = { aware: 2, effect: 2, share: 1, chance: 1, relative: 1, drift: 1 };
// The frames: out of the traits, and appended as messages bring them. `st.sigma[t]` is one Float32Array of modules x r; `st.columns[name]` holds the steps and rows of a measured column.
function frames(model, ask) {
  const st = { modules: [], r: 0, steps: [], sigma: [], band: [], columns: {} };
  let stale = true;
  const cut = (a, n) => Array.from({ length: n ? Math.floor(a.length / n) : 0 }, (_, i) => a.subarray(i * n, (i + 1) * n));
  const wide = name => st.modules.length * (COLUMNS[name] === 2 ? st.r : 1);
  const load = () => {
    st.modules = model.get("modules") || []; st.r = Math.max(0, ...st.modules.map(m => m.r)); st.columns = {};
    st.steps = [...(model.get("steps") || [])]; st.sigma = cut(floats(model.get("frames")), st.modules.length * st.r); st.band = cut(floats(model.get("bands")), st.modules.length * 2);
    for (const [name, steps] of Object.entries(model.get("columns") || {})) st.columns[name] = { steps: [...steps], rows: cut(floats(model.get(name)), wide(name)) };
    stale = false;
  };
  const reload = () => { stale = true; ask(); };
  const newer = (to, step) => !to.steps.length || step > to.steps[to.steps.length - 1];
  const thin = (o, keys) => { if (o.steps.length > 256) for (const k of keys) o[k] = o[k].filter((_, i, a) => i % 2 === 0 || i === a.length - 1); };
  const hear = (msg, buffers) => {
    if (msg.kind === "clear") { Object.assign(st, { steps: [], sigma: [], band: [], columns: {} }); return ask(); }
    if (msg.kind !== "frames") return;
    if (stale) load();
    const sigma = cut(floats(buffers[0]), st.modules.length * st.r), band = cut(floats(buffers[1]), st.modules.length * 2);
    msg.steps.forEach((step, i) => { if (sigma[i] && newer(st, step)) { st.steps.push(step); st.sigma.push(sigma[i]); st.band.push(band[i]); } });
    Object.keys(COLUMNS).filter(name => msg.columns && msg.columns[name]).forEach((name, b) => {
      const to = st.columns[name] ||= { steps: [], rows: [] }, rows = cut(floats(buffers[2 + b]), wide(name));
      msg.columns[name].forEach((step, i) => { if (rows[i] && newer(to, step)) { to.steps.push(step); to.rows.push(rows[i]); } });
      thin(to, ["rows", "steps"]);
    });
    thin(st, ["sigma", "band", "steps"]);
    ask();
  };
  const heard = [["msg:custom", hear], ...["modules", "steps", "frames", "bands", "columns", ...Object.keys(COLUMNS)].map(n => [`change:${n}`, reload])];
  for (const [name, f] of heard) model.on(name, f);
  return { now: () => { if (stale) load(); return st; }, stop: () => { for (const [name, f] of heard) model.off(name, f); } };
}
// The frame that is shown: the newest, or the last one at or before a step.
const shown = (st, at) => { let t = st.steps.length - 1; if (at >= 0) while (t > 0 && st.steps[t] > at) t--; return t; };
const spectrumOf = (st, m, t) => t < 0 || m < 0 ? [] : Array.from(st.sigma[t].subarray(m * st.r, m * st.r + st.modules[m].r));
const bandOf = (st, m, t) => t < 0 || m < 0 || !st.band[t] ? [NaN, NaN] : [st.band[t][2 * m], st.band[t][2 * m + 1]];
const chosen = (st, name) => { const i = st.modules.findIndex(m => m.name === name); return i < 0 ? Math.floor(st.modules.length / 2) - (st.modules.length ? 0 : 1) : i; };
// What was last measured of module `m` at or before the shown frame: values and step, or null.
function measured(st, name, m, t) {
  const c = st.columns[name], n = COLUMNS[name] === 2 ? st.r : 1;
  if (c && t >= 0 && m >= 0) for (let i = c.steps.length - 1; i >= 0; i--) if (c.steps[i] <= st.steps[t] && Number.isFinite(c.rows[i][m * n]))
    return { step: c.steps[i], values: Array.from(c.rows[i].subarray(m * n, m * n + (n > 1 ? st.modules[m].r : 1))) };
  return null;
}

const finite = a => a.every(v => Number.isFinite(v));
function figures(sigma, band) {
  let total = 0, sum = 0, entropy = 0, noise = 0;
  const s = sigma.map(v => Number.isFinite(v) ? v : 0), energy = s.map(v => total += v * v);
  for (const v of s) sum += v;
  for (const v of s) { if (v > 0) entropy -= v / sum * Math.log(v / sum); if (v <= band[1]) noise++; }
  const k = share => total ? energy.findIndex(e => e >= share * total) + 1 : 0;
  return { r: s.length, norm: Math.sqrt(total), k90: k(0.9), k99: k(0.99), top_share: total ? s[0] ** 2 / total : 0, entropy_rank: total ? Math.exp(entropy) : 0, noise: Number.isFinite(band[1]) ? noise : null };
}
const noiseRank = o => Math.max(1, o.r * Math.exp(-(o.r / o.m + o.r / o.n) / 8));
// What is left of an update cut to rank k, and its error at worst and on average.
function trimFigures(sigma, k, aware) {
  let kept = 0, energy = 0, tail = 0, total = 0;
  sigma.forEach((v, i) => { energy += v * v; if (i === k - 1) kept = energy; });
  for (const v of (aware || []).slice(k)) tail += v * v;
  for (const v of aware || []) total += v * v;
  return { k, share: energy ? kept / energy : 1, worst: k < sigma.length ? sigma[k] : 0, expected: total > 0 ? Math.sqrt(tail / total) : null };
}
// The rank of each module that keeps this share of its energy, and the bytes of their factors.
const equalRanks = (st, t, share) => st.modules.map((o, m) => {
  let total = 0;
  const energy = spectrumOf(st, m, t).map(v => total += v * v);
  return total ? energy.findIndex(e => e / total >= share) + 1 : 1;
});
const adapterSize = (modules, ranks, itemsize) => modules.reduce((a, o, i) => a + ranks[i] * (o.m + o.n), 0) * itemsize;

function spectrumReading(sigma, band, aware, asked) {
  const f = figures(sigma, band);
  if (!finite(sigma)) return sentence("spectrum.diverged");
  if (!f.norm) return sentence("spectrum.zero");
  return [sentence("spectrum.energy", f), ...cutWords(sigma, asked || f.k99, aware), ...noiseWords(f)].join(" ");
}
function cutWords(sigma, k, aware) {
  if (k >= sigma.length) return [];
  const cut = trimFigures(sigma, k, aware), worst = num(cut.worst);
  if (!cut.worst) return [sentence("spectrum.cut_exact", { k })];
  if (cut.expected === null) return [sentence("spectrum.cut", { k, worst })];
  return [sentence("spectrum.cut_on_data", { k, worst, expected: percent(cut.expected) })];
}
function noiseWords({ r, noise: n }) {
  if (n === null) return [];
  if (n === r) return [sentence("spectrum.all_noise")];
  return [n ? sentence("spectrum.some_noise", { n }) : sentence("spectrum.no_noise")];
}
// A card with a question, and behind its "?" what the answer does not prove.
function asks(el, model, title, cls) {
  const doubt = sentence("common.doubt"), text = h("p", {}, model.get("doubt") || "");
  const why = h("details", { class: "why" }, h("summary", { "aria-label": doubt, title: doubt }, "?"), text);
  const made = card(el, { title, cls, extra: why }), when = h("span", { class: "when" });
  why.addEventListener("keydown", e => { if (e.key === "Escape") { why.open = false; why.firstChild.focus(); } });
  made.root.addEventListener("pointerdown", e => { if (!why.contains(e.target)) why.open = false; });
  made.root.querySelector("h3").append(when);
  return { ...made, at: (st, t) => say(when, t >= 0 && t < st.steps.length - 1 ? sentence("common.step", { step: count(st.steps[t]) }) : "") };
}
// Redraw on everything that a view of the spectra shows. `draw(st, m, t)` gets the frames, the chosen module and the frame that is shown.
function follow(model, names, root, draw) {
  let stop = () => {};
  const ask = () => stop.ask && stop.ask(), store = frames(model, ask);
  stop = redraw(model, ["selected", "at", ...names], root, () => { const st = store.now(); draw(st, chosen(st, model.get("selected")), shown(st, model.get("at") ?? -1)); });
  return () => { stop(); store.stop(); };
}
const named = (st, m) => m < 0 ? "" : st.modules[m].name;
