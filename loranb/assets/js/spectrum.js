const GLYPHS = { k90: (x, y) => `M${x - 4} ${y + 4}h8l-4 -7z`, k99: (x, y) => `M${x - 4} ${y + 4}h8l-4 -7z`, rank: (x, y, a) => `M${x} ${y - a}l${a} ${a}l${-a} ${a}l${-a} ${-a}z` };
GLYPHS.aware = GLYPHS.rank;
const glyph = (kind, x, y, a = 4) => s("path", { class: `glyph ${kind}`, d: GLYPHS[kind](x, y, a) });
const NAMES = ["worst", "expected", "measured", "energy", "module", "adapter"].map(figure => sentence(`spectrum.figure_${figure}`));
function render({ model, el }) {
  const H = 246, { root, body, subline, at: when } = asks(el, model, sentence("spectrum.question"), "spectrum"), read = h("p", { class: "read" });
  let sigma = [], f = {};
  const plot = chart(H, sentence("spectrum.chart"), {
    near: (x, _, ax) => Math.min(Math.max(Math.round((x - ax.x0) / (ax.x1 - ax.x0) * sigma.length + 0.5), 1), sigma.length),
    move: (i, dx) => Math.min(Math.max((i ?? (dx > 0 ? 0 : sigma.length + 1)) + dx, 1), sigma.length),
    read: (i, ax) => {
      const v = sigma[i - 1];
      if (v === undefined || !f.norm) return;
      return { x: ax.x(i), text: sentence("spectrum.value", { i, value: num(v), percent: num(100 * trimFigures(sigma, i).share) }), marks: [s("circle", { fill: "var(--accent)", cx: ax.x(i), cy: ax.y(v), r: 6 })] };
    } });
  const range = h("input", { type: "range", min: 1, step: 1, "aria-label": sentence("spectrum.slider"), oninput: e => set(model, "k", +e.target.value) }), words = h("b", {});
  const back = h("button", { type: "button", class: "small", title: sentence("spectrum.back_help"), onclick: () => set(model, "k", 0) }, "99 %");
  const figs = NAMES.map(n => ({ name: h("div", { class: "k" }, n), value: h("div", { class: "v" }) }));
  body.append(plot.root, range, h("div", { class: "row tiny cutrow" }, words, back), h("div", { class: "figs cutfigs" }, figs.map(o => h("div", {}, o.name, o.value))), h("div", { class: "reading" }, read));
  function draw(st, m, t) {
    const band = bandOf(st, m, t), name = named(st, m), W = plot.width(), all = spectrumOf(st, m, t), aware = measured(st, "aware", m, t), asked = Math.min(model.get("k") || 0, all.length);
    sigma = all.map(v => Number.isFinite(v) ? v : 0); f = figures(all, band);
    let seen = 0; for (const v of aware ? aware.values : []) seen += v * v;
    const scaled = seen > 0 ? aware.values.map(v => v * f.norm / Math.sqrt(seen)) : [];
    const n = Math.max(sigma.length, 1), known = f.noise !== null, ax = axes(W, H, [0.5, n + 0.5], sigmaRange([...sigma, ...scaled, ...(known ? band : [])]), { top: 22, bottom: 70 }), gap = ax.x(2) - ax.x(1);
    const ticks = [], part = Math.max(1, Math.ceil((n - 1) / (W / 40))), k = asked || f.k99 || 1;
    for (let i = 1; i <= sigma.length; i += part) ticks.push(i);
    const reading = sigma.length ? spectrumReading(all, band, aware && aware.values, asked) : sentence("spectrum.none"), at = ax.x(k + 0.5), left = k > n / 2;
    const marks = [["k90", f.k90, `90 %: ${f.k90}`], ["k99", f.k99, `99 %: ${f.k99}`], ["rank", f.entropy_rank, `${sentence("metric.entropy_rank")} ${num(f.entropy_rank)}`]];
    fill(subline, `${sentence("spectrum.sub")} · `, h("span", { class: "mono" }, name || sentence("common.no_module")));
    when(st, t);
    plot.draw(ax, sentence("spectrum.picture", { name: name || sentence("common.one_update"), reading }), ax.grid(ticks, 44),
      known && [s("rect", { class: "noise", x: ax.x0, width: ax.x1 - ax.x0, y: ax.y(band[1]), height: ax.y(band[0]) - ax.y(band[1]) }), ...noiseKey(2, H - 24)],
      sigma.flatMap((v, i) => {
        if (!(v > 0)) return [];
        const x = ax.x(i + 1), y = ax.y(v), c = v <= band[1] ? "quiet" : "stem";
        return [s("line", { class: c, x1: x, x2: x, y1: ax.y0, y2: y, "stroke-width": Math.min(3, gap * 0.4) }), s("circle", { class: c, cx: x, cy: y, r: Math.min(4.5, gap * 0.4) })];
      }),
      scaled.flatMap((v, i) => v > 0 ? [glyph("aware", ax.x(i + 1), ax.y(v), Math.min(4, gap * 0.4))] : []), scaled.length > 0 && [glyph("aware", 160, H - 28), label(169, H - 24, sentence("spectrum.aware"))],
      f.norm > 0 && [...marks.flatMap(([kind, v, text], i) => [glyph(kind, ax.x(v + 0.5), ax.y0 + 7), glyph(kind, 8 + 67 * i, H - 9), label(17 + 67 * i, H - 5, text)]),
        s("line", { class: "cut", x1: at, x2: at, y1: 6, y2: ax.y0 }), label(at + (left ? -6 : 6), 14, sentence(k === f.k99 ? "spectrum.cut_here_99" : "spectrum.cut_here", { k }), { class: "cut", "text-anchor": left ? "end" : "start" })],
      !sigma.length && label(W / 2, H / 2, sentence("common.no_spectrum"), { class: "empty", "text-anchor": "middle" }));
    tell(read, reading);
    drawCut(st, m, t, k, ax, aware);
  }
  function drawCut(st, m, t, k, ax, aware) {
    const any = f.norm > 0, o = st.modules[m], cut = trimFigures(sigma, k, aware && aware.values), size = model.get("itemsize"), found = ((model.get("errors") || {})[named(st, m)] || {})[k];
    const ranks = any ? equalRanks(st, t, cut.share) : [], whole = o ? o.r * (o.m + o.n) * size : 0, total = adapterSize(st.modules, st.modules.map(o => o.r), size);
    range.max = Math.max(sigma.length, 2); range.disabled = !any || sigma.length < 2; slide(range, k);
    range.style.marginLeft = `${ax.x(1) - 7.5}px`; range.style.width = `${ax.x(Math.max(sigma.length, 2)) - ax.x(1) + 15}px`;
    range.setAttribute("aria-valuetext", any ? sentence("spectrum.slider_at", { k, r: sigma.length, percent: num(100 * cut.share) }) : sentence("common.no_cut"));
    say(words, any ? sentence("spectrum.cut_to", { k, r: sigma.length }) : sentence("common.no_cut_yet")); back.disabled = !any || k === f.k99;
    say(figs[1].name, aware && aware.step !== st.steps[t] ? sentence("spectrum.figure_expected_at", { step: count(aware.step) }) : NAMES[1]);
    say(figs[4].name, any ? sentence("spectrum.figure_module_of", { size: bytes(whole) }) : NAMES[4]); say(figs[5].name, any ? sentence("spectrum.figure_adapter_of", { size: bytes(total) }) : NAMES[5]);
    const values = any ? [cut.worst ? `${num(cut.worst)}·‖x‖` : "0", cut.expected !== null && percent(cut.expected), found !== undefined && percent(found), `${num(100 * cut.share)} %`,
      bytes(k * (o.m + o.n) * size), bytes(adapterSize(st.modules, ranks, size))] : [];
    const missing = any ? { 1: sentence("spectrum.not_known"), 2: sentence("common.not_measured") } : {};
    figs.forEach((fig, i) => { tell(fig.value, values[i] || missing[i] || "–"); fig.value.classList.toggle("none", !values[i]); });
    figs[1].value.title = sentence("spectrum.figure_expected_help"); figs[5].value.title = sentence("spectrum.figure_adapter_help");
  }
  return follow(model, ["k", "itemsize", "errors"], root, draw);
}
export default { render };
