function directionsReading(sigma, effect, m) {
  const all = sigma.flatMap((s, i) => s.map((v, j) => [v, effect[i][j]])), use = all.map(([v, e]) => v > 0 && e >= 0), total = use.filter(o => o).length;
  if (!total) return sentence("directions.unmeasured");
  const n = Math.max(1, Math.floor(total / 10)), first = k => new Set(all.map((_, i) => i).sort((a, b) => (use[b] ? all[b][k] : -1) - (use[a] ? all[a][k] : -1)).slice(0, n)), large = first(0), both = [...first(1)].filter(i => large.has(i)).length;
  const text = sentence("directions.overlap", { n, both }), own = m < 0 ? [] : sigma[m].map((v, j) => v > 0 && effect[m][j] >= 0 ? effect[m][j] : -1), best = own.length ? own.indexOf(most(own)) : -1;
  return best < 0 || own[best] < 0 ? text : `${text} ${sentence(best ? "directions.own" : "directions.own_largest", { i: best + 1 })}`;
}
const middle = a => { const b = [...a].sort((x, y) => x - y), i = b.length >> 1; return b.length % 2 ? b[i] : (b[i - 1] + b[i]) / 2; };
function render({ model, el }) {
  const H = 246, { root, body, subline, at: when } = asks(el, model, sentence("directions.question"), "directions"), read = h("p", { class: "read" });
  let own = [];
  const plot = chart(H, sentence("directions.chart"), {
    near: (x, y) => { const far = own.map(o => o && Math.hypot(o.x - x, o.y - y)); return own.length ? far.indexOf(least(far)) : undefined; },
    move: (i, dx, dy) => own.length ? Math.min(Math.max((i ?? -1) + (dx || dy), 0), own.length - 1) : undefined,
    read: i => own[i] && { x: own[i].x, text: sentence("directions.value", { i: own[i].i, size: num(own[i].s), effect: num(own[i].e) }), marks: [s("circle", { fill: "var(--accent)", cx: own[i].x, cy: own[i].y, r: 6.5 })] } });
  body.append(plot.root, h("div", { class: "reading" }, read));
  function draw(st, m, t) {
    // Each module's effects beside its singular values at the step at which they were measured.
    const found = st.modules.map((_, i) => measured(st, "effect", i, t)), effect = found.map((f, i) => f ? f.values : spectrumOf(st, i, t).map(() => NaN)), sigma = found.map((f, i) => spectrumOf(st, i, f ? shown(st, f.step) : t));
    const pts = sigma.map((row, i) => row.map((v, j) => ({ s: v, e: effect[i][j], i: j + 1 })).filter(o => o.s > 0 && o.e > 0)), all = pts.flat(), name = named(st, m);
    const xlim = sigmaRange(all.map(o => o.s)), ylim = sigmaRange(all.map(o => o.e)), lg = Math.log10, W = plot.width(), ax = axes(W, H, xlim.map(lg), ylim, { left: 48, bottom: 44 });
    const x = v => ax.x(lg(Math.min(Math.max(v, xlim[0]), xlim[1]))), g = all.length ? middle(all.map(o => o.e / o.s)) : 0, ends = xlim.map(v => Math.min(Math.max(v, ylim[0] / g), ylim[1] / g));
    const reading = directionsReading(sigma, effect, m), from = Math.max(-1, ...found.filter(f => f).map(f => f.step));
    own = m < 0 ? [] : pts[m].map(o => ({ ...o, x: x(o.s), y: ax.y(o.e) }));
    fill(subline, `${sentence("directions.sub")} `, h("span", { class: "mono" }, name || sentence("common.no_module"))); when(st, t);
    const measuredAt = from >= 0 && from !== st.steps[t] ? `, ${sentence("common.step", { step: count(from) })}` : "";
    plot.draw(ax, sentence("directions.picture", { n: all.length, reading }), ax.grid([]), logTicks(...xlim).map(v => label(ax.x(lg(v)), H - 28, num(v), { "text-anchor": "middle" })),
      label(ax.x1, H - 10, sentence("directions.size"), { "text-anchor": "end" }), label(2, 8, sentence("directions.effect") + measuredAt),
      all.length > 0 && [s("line", { class: "reference", x1: x(ends[0]), y1: ax.y(g * ends[0]), x2: x(ends[1]), y2: ax.y(g * ends[1]) }), s("line", { class: "reference", x1: 2, x2: 18, y1: H - 14, y2: H - 14 }), label(24, H - 10, sentence("directions.only_size"))],
      s("path", { class: "others", d: all.map(o => `M${x(o.s).toFixed(1)} ${ax.y(o.e).toFixed(1)}h0`).join("") }), own.map(o => s("circle", { class: "stem", cx: o.x, cy: o.y, r: 4.5 })),
      !all.length && label(W / 2, H / 2, sentence("directions.none"), { class: "empty", "text-anchor": "middle" }));
    tell(read, reading);
  }
  return follow(model, [], root, draw);
}
export default { render };
