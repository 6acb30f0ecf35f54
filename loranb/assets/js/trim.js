function trimReading(curves, rule, at, total, itemsize, found) {
  const rows = curves[rule] || [];
  if (!rows.length) return sentence("trim.none");
  const [kept, error] = rows[at], other = (curves.uniform || []).filter(o => o[0] <= kept).map(o => o[1]), kl = found.find(o => o[0] === rule && o[1] === kept);
  const said = [sentence("trim.kept", { share: percent(kept / total), bytes: bytes(kept * itemsize), total: bytes(total * itemsize), error: percent(error) })];
  if (rule !== "uniform" && other.length) said.push(sentence("trim.uniform", { error: percent(least(other)) }));
  said.push(kl ? sentence("trim.measured", { kl: num(kl[2]) }) : sentence("trim.unmeasured"));
  return said.join(" ");
}
function render({ model, el }) {
  const H = 284, { root, body, subline } = asks(el, model, sentence("trim.question"), "trim"), read = h("p", { class: "read" });
  const state = () => {
    const curves = model.get("curves") || {}, rule = model.get("rule"), rows = curves[rule] || [], measured = model.get("measured") || [];
    return { curves, rule, rows, measured, at: Math.min(Math.max(model.get("point"), 0), rows.length - 1), total: model.get("total"), itemsize: model.get("itemsize") };
  };
  const plot = chart(H, sentence("trim.chart"), {
    near: (x, _, ax) => { const far = state().rows.map(o => Math.abs(ax.x(100 * o[0] / state().total) - x)); return far.length ? far.indexOf(least(far)) : undefined; },
    move: (i, dx) => { const n = state().rows.length; return n ? Math.min(Math.max((i ?? state().at) + dx, 0), n - 1) : undefined; },
    read: (i, ax) => {
      const { rows, total } = state(), o = rows[i];
      return o && { x: ax.x(100 * o[0] / total), text: sentence("trim.value", { share: percent(o[0] / total), error: percent(o[1]) }), marks: [s("circle", { fill: "var(--accent)", cx: ax.x(100 * o[0] / total), cy: ax.y(100 * o[1]), r: 5 })] };
    } });
  const rules = h("select", { "aria-label": sentence("trim.rule"), onchange: e => { model.set("point", nearest(e.target.value)); set(model, "rule", e.target.value); } }), names = h("b", {});
  // Another rule has other points: the one that keeps about as much.
  const nearest = rule => { const { curves, rows, at } = state(), want = (rows[at] || [0])[0], far = (curves[rule] || []).map(o => Math.abs(o[0] - want)); return Math.max(0, far.indexOf(least(far))); };
  const range = h("input", { type: "range", min: 0, step: 1, "aria-label": sentence("trim.slider"), oninput: e => set(model, "point", +e.target.value) }), line = h("pre", { tabindex: 0, "aria-label": sentence("trim.line") });
  const copy = h("button", { type: "button", class: "small", onclick: async () => {
    try { await navigator.clipboard.writeText(line.textContent); say(copy, sentence("common.copied")); }
    catch { getSelection().selectAllChildren(line); say(copy, sentence("common.press_keys")); }
    setTimeout(() => say(copy, sentence("common.copy")), 1500);
  } }, sentence("common.copy"));
  body.append(plot.root, range, h("div", { class: "row tiny cutrow" }, names, rules), h("div", { class: "reading" }, read), h("div", { class: "line" }, line, copy));
  say(subline, sentence("trim.sub"));
  let drawn = "";
  function draw() {
    const { curves, rule, rows, measured, at, total, itemsize } = state(), W = plot.width(), side = { left: 48, right: 22 }, pct = o => [100 * o[0] / total, 100 * o[1]];
    const ax = axes(W, H, [0, 100], sigmaRange(Object.values(curves).flat().map(o => pct(o)[1])), { ...side, top: 20, bottom: H - 150 }), low = axes(W, H, [0, 100], sigmaRange(measured.map(o => o[2])), { ...side, top: 214, bottom: 26 });
    const rank = n => (n === rule ? 2 : 0) + (n === "uniform" ? 1 : 0), reading = trimReading(curves, rule, at, total, itemsize, measured), keys = Object.keys(curves).filter(n => n !== "uniform" || n === rule);
    if (drawn !== keys.join()) { drawn = keys.join(); fill(rules, keys.map(n => h("option", { value: n }, n))); }
    rules.value = rule; rules.disabled = keys.length < 2; range.max = Math.max(1, rows.length - 1); range.disabled = rows.length < 2; slide(range, Math.max(at, 0));
    const here = rows[at], place = here && pct(here);
    plot.draw(ax, sentence("trim.picture", { reading }), ax.grid([]), [0, 25, 50, 75, 100].map(v => label(ax.x(v), 166, `${v} %`, { "text-anchor": "middle" })), label(2, 10, sentence("trim.error")), label(2, 206, sentence("trim.distance")),
      Object.keys(curves).sort((a, b) => rank(a) - rank(b)).map(n => s("path", { class: n === rule ? "own" : n === "uniform" ? "reference" : "other", d: path(curves[n].map(pct).filter(o => o[1] > 0).map(o => [ax.x(o[0]), ax.y(o[1])])), fill: "none" })),
      measured.length ? low.grid([]) : label(ax.x(50), 238, sentence("common.not_measured"), { "text-anchor": "middle" }),
      [...measured].sort((a, b) => (a[0] === rule) - (b[0] === rule)).map(o => s("circle", { class: o[0] === rule ? "dot held" : "dot other", cx: low.x(100 * o[1] / total), cy: low.y(o[2]), r: 4 })),
      here && [s("line", { class: "cut", x1: ax.x(place[0]), x2: ax.x(place[0]), y1: ax.y1, y2: H - 24 }), s("circle", { class: "ring", cx: ax.x(place[0]), cy: ax.y(place[1]), r: 5.5 })],
      here && [s("line", { class: "own", x1: 2, x2: 18, y1: H - 9, y2: H - 9 }), label(24, H - 5, rule)], curves.uniform && rule !== "uniform" && [s("line", { class: "reference", x1: 84, x2: 100, y1: H - 9, y2: H - 9 }), label(106, H - 5, sentence("trim.same_rank"))],
      !here && label(W / 2, 90, sentence("trim.no_cut"), { class: "empty", "text-anchor": "middle" }));
    range.setAttribute("aria-valuetext", here ? sentence("trim.slider_at", { share: percent(here[0] / total) }) : sentence("common.no_cut")); tell(names, here ? sentence("trim.keep", { share: percent(here[0] / total) }) : sentence("common.no_cut_yet")); tell(read, reading);
    say(line, here ? model.get("code").replaceAll("{parameters}", String(here[0])).replaceAll("{rule}", rule) : ""); copy.disabled = !here;
  }
  return redraw(model, ["curves", "rule", "point", "measured", "total", "itemsize", "code"], root, draw);
}
export default { render };
