const median = a => { const b = [...a].sort((x, y) => x - y), i = b.length >> 1; return b.length % 2 ? b[i] : (b[i - 1] + b[i]) / 2; };
function courseAlarms(t, sigma, band, drift) {
  const bad = sigma.findIndex(v => !finite(v)), n = t.length, last = t[n - 1];
  if (bad >= 0) return [{ step: t[bad], kind: "nan", words: sentence("spectrum.diverged_since", { step: t[bad] }) }];
  if (!n || last < 20) return [];
  if (!sigma[n - 1].some(v => v)) return [{ step: last, kind: "still", words: sentence("course.still_zero", { step: last }) }];
  if (drift !== null && drift < 0.01) return [{ step: last, kind: "still", words: sentence("course.still_start", { step: last, drift: percent(drift) }) }];
  const q = sigma.map(v => v[1] > 0 ? v[0] / v[1] : NaN);
  for (let j = 4; j < n; j++) {
    const before = finite(q.slice(j - 4, j)) ? median(q.slice(j - 4, j)) : NaN;
    if (sigma[j][0] > (Number.isFinite(band[j][1]) ? band[j][1] : 0) && q[j] > 2 * before && q[j] > 3)
      return [{ step: t[j], kind: "spike", words: sentence("course.spike", { step: t[j], before: num(before, 2), after: num(q[j], 2) }) }];
  }
  return [];
}
function courseReading(t, sigma, band, alarms) {
  const last = sigma[sigma.length - 1] || [], end = band[band.length - 1] || [NaN, NaN], said = alarms.map(a => a.words);
  if (said.length && !(sigma.every(finite) && last.some(v => v))) return said[0];
  if (t.length < 4 || !last.some(v => v)) return sentence("course.early");
  const top = Number.isFinite(end[1]) ? end[1] : 0, above = last.map(v => v > top), quiet = above.filter(v => !v).length;
  if (quiet === last.length) return [...said, sentence("course.all_noise", { n: quiet })].join(" ");
  said.push(movement(t, sigma, above));
  if (quiet && top) said.push(sentence("spectrum.some_noise", { n: quiet }));
  return said.join(" ");
}
function movement(t, sigma, above) {
  const end = t[t.length - 1], mark = end - (end - t[0]) / 4, i = Math.min(t.findIndex(v => v >= mark), t.length - 2), step = t[i];
  const change = sigma[sigma.length - 1].map((v, j) => sigma[i][j] > 0 ? v / sigma[i][j] - 1 : Infinity).filter((_, j) => above[j]);
  const n = change.length, settled = change.filter(c => Math.abs(c) < 0.05).length;
  if (settled === n) return sentence(n > 1 ? "course.settled" : "course.settled_one", { n, step });
  const way = !Number.isFinite(change[0]) ? "appeared" : change[0] > 0 ? "grew" : "shrank";
  const first = sentence(`course.${way}`, { step, percent: num(100 * Math.abs(change[0]), 2) });
  return sentence("course.moving", { first, n, settled });
}
// A small curve on the steps of the large one, from `floor` up, with what noise would give.
function strip(ax, t, values, noise, top, height, floor, words) {
  const hi = Math.max(floor + 1e-9, ...[...values, ...noise].filter(Number.isFinite)), y = v => top + height * (1 - (Math.min(Math.max(v, floor), hi) - floor) / (hi - floor));
  const line = (a, cls, width) => { const pts = a.map((v, j) => [ax.x(t[j]), y(v)]).filter((_, j) => Number.isFinite(a[j])); return pts.length ? [s("path", { class: cls, d: path(pts), fill: "none", "stroke-width": width })] : []; };
  return [label(2, top - 5, words), s("line", { class: "rule", x1: ax.x0, x2: ax.x1, y1: top + height, y2: top + height }), ...line(noise, "quiet dashed", 1.3), ...line(values, "stem", 1.8)];
}
function render({ model, el }) {
  const H = 300, { root, body, subline, at: when } = asks(el, model, sentence("course.question"), "course"), read = h("p", { class: "read" });
  let t = [], sigma = [], band = [], timer = 0;
  const nearestStep = at => { let best = 0; t.forEach((v, i) => { if (Math.abs(v - at) < Math.abs(t[best] - at)) best = i; }); return best; };
  const clamp = (v, n) => Math.min(Math.max(v, 0), n - 1);
  const plot = chart(H, sentence("course.chart"), {
    near: (x, y, ax) => {
      if (!t.length) return;
      const j = nearestStep((x - ax.x0) / (ax.x1 - ax.x0) * ax.xlim[1]), far = sigma[j].map(v => Math.abs(ax.y(v) - y));
      return { i: Math.max(far.indexOf(least(far)), 0), step: t[j] };
    },
    move: (p, dx, dy) => t.length ? p ? { i: clamp(p.i + dy, sigma[0].length), step: t[clamp(nearestStep(p.step) + dx, t.length)] } : { i: 0, step: t[t.length - 1] } : undefined,
    read: (p, ax) => {
      if (!t.length) return;
      const j = nearestStep(p.step), i = Math.min(p.i, sigma[j].length - 1), x = ax.x(t[j]), v = sigma[j][i];
      return { x, text: sentence("course.value", { i: i + 1, value: num(v), step: count(t[j]) }), marks: [s("path", { d: line(ax, i), fill: "none", stroke: "var(--ink)", "stroke-width": 1.6 }), s("circle", { fill: "var(--accent)", cx: x, cy: ax.y(v), r: 5 })] };
    } });
  const line = (ax, i) => path(t.map((o, j) => [ax.x(o), sigma[j][i]]).filter(p => p[1] > 0).map(([x, v]) => [x, ax.y(v)]));
  // The slider over the frames; its right end follows the run. Replaying takes about eight seconds.
  const go = i => set(model, "at", i >= t.length - 1 ? -1 : t[i]), now = () => shown({ steps: t }, model.get("at") ?? -1);
  const icon = s("path", { fill: "currentColor" }), button = h("button", { type: "button", class: "play" }, s("svg", { viewBox: "0 0 12 12", "aria-hidden": "true" }, icon));
  const range = h("input", { type: "range", min: 0, step: 1, "aria-label": sentence("course.slider"), oninput: e => { pause(); go(+e.target.value); } }), where = h("span", { class: "tiny where" });
  const look = () => {
    const words = sentence(timer ? "course.pause" : "course.replay");
    icon.setAttribute("d", timer ? "M2 1h3v10h-3zM7 1h3v10h-3z" : "M2 1l9 5l-9 5z");
    button.setAttribute("aria-label", words); button.title = words;
  };
  const pause = () => { clearTimeout(timer); timer = 0; look(); };
  const tick = () => {
    const i = now() + 1;
    if (i < t.length) go(i);
    if (i >= t.length - 1) return pause();
    timer = setTimeout(tick, Math.min(400, Math.max(40, 8000 / t.length))); look();
  };
  button.addEventListener("click", () => { if (timer) return pause(); if (now() >= t.length - 1) go(0); timer = setTimeout(tick, 200); look(); });
  look();
  body.append(plot.root, h("div", { class: "replay" }, button, range, where), h("div", { class: "reading" }, read));
  function draw(st, m, shownAt) {
    t = st.steps; sigma = t.map((_, j) => spectrumOf(st, m, j)); band = t.map((_, j) => bandOf(st, m, j));
    const W = plot.width(), r = sigma.length ? sigma[0].length : 0, last = Math.max(1, t[t.length - 1] || 0), name = named(st, m), end = shownAt + 1, drift = measured(st, "drift", m, shownAt);
    const ax = axes(W, H, [0, last], sigmaRange([...sigma.flat(), ...band.flat()]), { top: 14, right: 26, bottom: H - 168 });
    const known = band.map((b, j) => j).filter(j => band[j][0] > 0 && band[j][1] > 0), final = band[band.length - 1], top = final && final[0] > 0 && final[1] > 0 ? final[1] : 0;
    const alarms = courseAlarms(t.slice(0, end), sigma.slice(0, end), band.slice(0, end), drift && drift.values[0]);
    const edge = k => known.map(j => [ax.x(t[j]), ax.y(band[j][k])]), reading = courseReading(t.slice(0, end), sigma.slice(0, end), band.slice(0, end), alarms), lines = [], names = [], used = [];
    for (let i = r - 1; i >= 0; i--) {
      const quiet = sigma[sigma.length - 1][i] <= top, d = line(ax, i);
      if (d) lines.push(s("path", { class: quiet ? "quiet" : "stem", "data-i": i + 1, d, fill: "none", "stroke-width": quiet ? 1 : i < 5 ? 2 : 1.2, "stroke-opacity": quiet ? 0.6 : Math.max(0.4, 1 - 0.13 * i) }));
    }
    for (let i = 0; i < r; i++) {
      const v = sigma[sigma.length - 1][i], y = ax.y(v);
      if (v > top && used.every(u => Math.abs(u - y) >= 11)) { names.push(label(ax.x1 + 4, y + 4, `σ${i + 1}`)); used.push(y); }
    }
    fill(subline, `${sentence("course.sub")} · `, h("span", { class: "mono" }, name || sentence("common.no_module")));
    when(st, shownAt);
    plot.draw(ax, sentence("course.picture", { name: name || sentence("common.one_update"), reading }), ax.grid(t.length ? linTicks(last, 3) : [], H - 184),
      known.length > 0 && [s("path", { class: "noise", d: path([...edge(1), ...edge(0).reverse()]) + "Z" }), ...noiseKey(2, 204)], lines, names, t.length > 0 && strips(st.modules[m], ax, shownAt),
      shownAt < t.length - 1 && [...[[0, ax.y0], [228, 25], [272, 25]].map(([y, height]) => s("rect", { class: "later", x: ax.x(t[shownAt]), y, width: Math.max(0, ax.x1 - ax.x(t[shownAt])) + 1, height })), s("line", { class: "hair", x1: ax.x(t[shownAt]), x2: ax.x(t[shownAt]), y1: ax.y1, y2: H - 4 })],
      alarms.map(a => { const x = ax.x(a.step), left = a.step > last / 2; return [s("line", { class: "alarm", x1: x, x2: x, y1: 2, y2: ax.y0 }), label(x + (left ? -5 : 5), 10, sentence(`course.mark_${a.kind}`), { class: "alarm", "text-anchor": left ? "end" : "start" })]; }).flat(),
      !lines.length && label(W / 2, 90, sentence("common.no_spectrum"), { class: "empty", "text-anchor": "middle" }));
    tell(read, reading); read.classList.toggle("alarm", alarms.length > 0);
    range.max = Math.max(1, t.length - 1); range.disabled = button.disabled = t.length < 2; slide(range, Math.max(shownAt, 0));
    say(where, t.length ? sentence("common.step_of", { step: count(t[shownAt]), last: count(last) }) : sentence("common.no_step")); range.setAttribute("aria-valuetext", where.textContent);
  }
  function strips(o, ax, at) {
    const all = sigma.map(v => figures(v, [NaN, NaN])), rank = all.map(f => f.norm ? f.entropy_rank : NaN), norm = all.map(f => f.norm || NaN), noise = band.map(b => Math.sqrt(o.r) * (b[0] + b[1]) / 2);
    const said = (metric, value, noise) => `${sentence(`metric.${metric}`)} ${num(value)}${Number.isFinite(noise) ? ` · ${sentence("course.noise", { value: num(noise) })}` : ""}`;
    return [...strip(ax, t, rank, t.map(() => noiseRank(o)), 230, 22, 1, said("entropy_rank", rank[at], noiseRank(o))), ...strip(ax, t, norm, noise, 274, 22, 0, said("norm", norm[at], noise[at]))];
  }
  const stop = follow(model, [], root, draw);
  return () => { pause(); stop(); };
}
export default { render };
