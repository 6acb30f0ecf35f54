function courseReading(t, sigma, band) {
  const last = sigma[sigma.length - 1] || [], end = band[band.length - 1] || [NaN, NaN];
  if (t.length < 4 || !last.some(v => v)) return "Too early to say.";
  const top = Number.isFinite(end[1]) ? end[1] : 0, above = last.map(v => v > top), n = above.filter(v => v).length, quiet = last.length - n, mark = t[t.length - 1] - (t[t.length - 1] - t[0]) / 4;
  const i = Math.min(t.findIndex(v => v >= mark), t.length - 2), noise = quiet && top ? ` ${quiet} lie${quiet === 1 ? "s" : ""} within the noise.` : "", since = `since step ${t[i]}`;
  if (!n) return `All ${last.length} directions lie within the noise.`;
  const change = last.map((v, j) => sigma[i][j] > 0 ? v / sigma[i][j] - 1 : Infinity).filter((_, j) => above[j]), settled = change.filter(c => Math.abs(c) < 0.05).length;
  if (settled === n) return `Settled: the ${n > 1 ? `${n} directions` : "direction"} above the noise changed by less than 5 % ${since}.${noise}`;
  const first = Number.isFinite(change[0]) ? `σ1 ${change[0] > 0 ? "grew" : "shrank"} by ${num(100 * Math.abs(change[0]), 2)} % ${since}` : `σ1 appeared ${since}`;
  return `${first}; ${settled} of ${n} direction${n > 1 ? "s" : ""} above the noise ${settled === 1 ? "has" : "have"} settled.${noise}`;
}
function render({ model, el }) {
  const { root, body, subline } = card(el, { title: "Has it converged?", cls: "course" }), read = h("p", { class: "read" });
  let t = [], sigma = [], band = [];
  const nearestStep = at => { let best = 0; t.forEach((v, i) => { if (Math.abs(v - at) < Math.abs(t[best] - at)) best = i; }); return best; };
  const clamp = (v, n) => Math.min(Math.max(v, 0), n - 1);
  const plot = chart(216, "Singular values by step", {
    near: (x, y, ax) => {
      if (!t.length) return;
      const j = nearestStep((x - ax.x0) / (ax.x1 - ax.x0) * ax.xlim[1]), far = sigma[j].map(v => Math.abs(ax.y(v) - y));
      return { i: far.indexOf(least(far)), step: t[j] };
    },
    move: (p, dx, dy) => t.length ? p ? { i: clamp(p.i + dy, sigma[0].length), step: t[clamp(nearestStep(p.step) + dx, t.length)] } : { i: 0, step: t[t.length - 1] } : undefined,
    read: (p, ax) => {
      if (!t.length) return;
      const j = nearestStep(p.step), i = Math.min(p.i, sigma[j].length - 1), x = ax.x(t[j]), v = sigma[j][i];
      return { x, text: `σ${i + 1} = ${num(v)} at step ${count(t[j])}`, marks: [s("path", { d: line(ax, i), fill: "none", stroke: "var(--ink)", "stroke-width": 1.6 }), s("circle", { fill: "var(--accent)", cx: x, cy: ax.y(v), r: 5 })] };
    } });
  const line = (ax, i) => path(t.map((o, j) => [ax.x(o), sigma[j][i]]).filter(p => p[1] > 0).map(([x, v]) => [x, ax.y(v)]));
  body.append(plot.root, h("div", { class: "reading" }, read));
  function draw(st, m) {
    t = st.steps; sigma = t.map((_, j) => spectrumOf(st, m, j)); band = t.map((_, j) => bandOf(st, m, j));
    const W = plot.width(), H = 216, r = sigma.length ? sigma[0].length : 0, last = Math.max(1, t[t.length - 1] || 0), name = m < 0 ? "" : st.modules[m].name;
    const ax = axes(W, H, [0, last], sigmaRange([...sigma.flat(), ...band.flat()]), { top: 10, right: 26, bottom: 40 });
    const known = band.map((b, j) => j).filter(j => band[j][0] > 0 && band[j][1] > 0), end = band[band.length - 1], top = end && end[0] > 0 && end[1] > 0 ? end[1] : 0;
    const edge = k => known.map(j => [ax.x(t[j]), ax.y(band[j][k])]), reading = courseReading(t, sigma, band), lines = [], names = [], used = [];
    for (let i = r - 1; i >= 0; i--) {
      const quiet = sigma[sigma.length - 1][i] <= top, d = line(ax, i);
      if (d) lines.push(s("path", { class: quiet ? "quiet" : "stem", "data-i": i + 1, d, fill: "none", "stroke-width": quiet ? 1 : i < 5 ? 2 : 1.2, "stroke-opacity": quiet ? 0.6 : Math.max(0.4, 1 - 0.13 * i) }));
    }
    for (let i = 0; i < r; i++) {
      const v = sigma[sigma.length - 1][i], y = ax.y(v);
      if (v > top && used.every(u => Math.abs(u - y) >= 11)) { names.push(label(ax.x1 + 4, y + 4, `σ${i + 1}`)); used.push(y); }
    }
    fill(subline, "Step by step · ", h("span", { class: "mono" }, name || "no module"));
    plot.draw(ax, `Singular values of ${name || "one update"} by step. ${reading}`, ax.grid(t.length ? linTicks(last, 3) : [], 26),
      known.length && [s("path", { class: "noise", d: path([...edge(1), ...edge(0).reverse()]) + "Z" }), ...noiseKey(ax.x0, H - 5)], lines, names, !lines.length && label(W / 2, H / 2, "no spectrum yet", { class: "empty", "text-anchor": "middle" }));
    tell(read, reading);
  }
  return follow(model, [], root, draw);
}
export default { render };
