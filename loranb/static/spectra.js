// What the three views of the spectra share: the frames, and the figures of loranb/readings.py.
const short = kind => kind.replace(/_proj$/, "");
const listed = a => a.length > 1 ? `${a.slice(0, -1).join(", ")} and ${a[a.length - 1]}` : a[0];
// The frames: out of the traits, and appended as messages bring them. `st.sigma[t]` is one Float32Array of modules x r.
function frames(model, ask) {
  const st = { modules: [], r: 0, steps: [], sigma: [], band: [] };
  let stale = true;
  const cut = (a, n) => Array.from({ length: n ? Math.floor(a.length / n) : 0 }, (_, i) => a.subarray(i * n, (i + 1) * n));
  const load = () => {
    st.modules = model.get("modules") || []; st.r = Math.max(0, ...st.modules.map(m => m.r));
    st.steps = [...(model.get("steps") || [])]; st.sigma = cut(floats(model.get("frames")), st.modules.length * st.r); st.band = cut(floats(model.get("bands")), st.modules.length * 2);
    stale = false;
  };
  const reload = () => { stale = true; ask(); };
  const hear = (msg, buffers) => {
    if (msg.kind === "clear") { st.steps = []; st.sigma = []; st.band = []; return ask(); }
    if (msg.kind !== "frames") return;
    if (stale) load();
    const sigma = cut(floats(buffers[0]), st.modules.length * st.r), band = cut(floats(buffers[1]), st.modules.length * 2);
    msg.steps.forEach((step, i) => { if (sigma[i] && (!st.steps.length || step > st.steps[st.steps.length - 1])) { st.steps.push(step); st.sigma.push(sigma[i]); st.band.push(band[i]); } });
    if (st.steps.length > 256) for (const k of ["steps", "sigma", "band"]) st[k] = st[k].filter((_, i, a) => i % 2 === 0 || i === a.length - 1);
    ask();
  };
  const heard = [["msg:custom", hear], ...["modules", "steps", "frames", "bands"].map(n => [`change:${n}`, reload])];
  for (const [name, f] of heard) model.on(name, f);
  return { now: () => { if (stale) load(); return st; }, stop: () => { for (const [name, f] of heard) model.off(name, f); } };
}
const spectrumOf = (st, m, t = st.steps.length - 1) => t < 0 || m < 0 ? [] : Array.from(st.sigma[t].subarray(m * st.r, m * st.r + st.modules[m].r));
const bandOf = (st, m, t = st.steps.length - 1) => t < 0 || m < 0 || !st.band[t] ? [NaN, NaN] : [st.band[t][2 * m], st.band[t][2 * m + 1]];
const chosen = (st, name) => { const i = st.modules.findIndex(m => m.name === name); return i < 0 ? Math.floor(st.modules.length / 2) - (st.modules.length ? 0 : 1) : i; };

function figures(sigma, band) {
  let total = 0, sum = 0, entropy = 0, noise = 0;
  const energy = sigma.map(v => total += v * v);
  for (const v of sigma) sum += v;
  for (const v of sigma) { if (v > 0) entropy -= v / sum * Math.log(v / sum); if (v <= band[1]) noise++; }
  const k = share => total ? energy.findIndex(e => e >= share * total) + 1 : 0;
  return { r: sigma.length, norm: Math.sqrt(total), k90: k(0.9), k99: k(0.99), top_share: total ? sigma[0] ** 2 / total : 0, entropy_rank: total ? Math.exp(entropy) : 0, noise: Number.isFinite(band[1]) ? noise : null };
}
function spectrumReading(sigma, f) {
  if (!f.norm) return "All singular values are zero: nothing has been learned here yet.";
  const carry = k => k > 1 ? "carry" : "carries", rest = sigma[f.k99];
  const text = `${f.k90} of ${f.r} direction${f.r > 1 ? "s" : ""} ${carry(f.k90)} 90 % of the update, ${f.k99} ${carry(f.k99)} 99 %.`
    + (f.k99 < f.r ? ` Trimmed to r = ${f.k99}, it would ${rest ? `err by at most ${num(rest)}·‖x‖` : "stay the same"}.` : "");
  if (f.noise === null) return text;
  return text + (f.noise === f.r ? " All lie within the noise." : f.noise ? ` ${f.noise} lie${f.noise === 1 ? "s" : ""} within the noise.` : " None lies within the noise.");
}
// Redraw on everything that a view of the spectra shows. `draw(st, m)` gets the frames and the chosen module.
function follow(model, names, root, draw) {
  let stop = () => {};
  const ask = () => stop.ask && stop.ask(), store = frames(model, ask);
  stop = redraw(model, ["selected", ...names], root, () => { const st = store.now(); draw(st, chosen(st, model.get("selected"))); });
  return () => { stop(); store.stop(); };
}
