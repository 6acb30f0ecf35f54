// How much each matrix may change: the rank, its scale, the layers, and B and A beside W.
const POWERS = [1, 2, 4, 8, 16, 32, 64, 128, 256], TALL = 84;
const natural = v => Number.isInteger(v) && v >= 1;

function render({ model, el }) {
  const { root, body } = card(el, { title: sentence("rank.title"), sub: sentence("rank.question"), cls: "rank" });
  // Another r keeps alpha/r, so that the size of the update does not change with the rank.
  const setRank = r => {
    const alpha = model.get("lora_alpha"), old = model.get("r"), follows = model.get("keep_ratio") && natural(r) && natural(old) && alpha > 0;
    give(model, follows ? { r, lora_alpha: +(alpha / old * r).toPrecision(12) } : { r });
  };
  const step = by => { const e = Math.log2(model.get("r")); setRank(2 ** Math.min(8, Math.max(0, by > 0 ? Math.floor(e + 1e-9) + 1 : Math.ceil(e - 1e-9) - 1))); };
  const keys = { ArrowRight: () => step(1), ArrowUp: () => step(1), PageUp: () => step(1), ArrowLeft: () => step(-1), ArrowDown: () => step(-1), PageDown: () => step(-1), Home: () => setRank(1), End: () => setRank(256) };
  const range = h("input", { type: "range", min: 0, max: 8, step: "any", "aria-label": sentence("rank.r"),
    oninput: e => setRank(2 ** Math.round(e.target.value)), onkeydown: e => { if (keys[e.key]) { e.preventDefault(); keys[e.key](); } } });
  const ticks = POWERS.map((p, i) => h("span", { style: `--i:${i}` }, String(p)));
  const r = typed(model, "r", { inputmode: "numeric", "aria-label": sentence("rank.r") }, { read: readNumber, commit: setRank });
  const alpha = typed(model, "lora_alpha", { inputmode: "decimal", "aria-label": "lora_alpha" }, { read: readNumber });
  const scale = h("span", { class: "scale" });
  const keep = check(model, "keep_ratio", sentence("rank.follows"), sentence("rank.follows_help")), rs = check(model, "use_rslora", "rsLoRA", sentence("rank.rslora_help"));
  const dora = check(model, "use_dora", sentence("rank.dora"), sentence("rank.dora_help"));
  const picture = h("div", { class: "scaled" }), chips = h("fieldset", { class: "targets" }), total = h("b"), more = h("span", { class: "wide" }, ` ${sentence("rank.parameters")}`), wrong = complaint(model, [r.box, alpha.box]);
  body.append(range, h("div", { class: "ticks", "aria-hidden": "true" }, ticks),
    h("div", { class: "row numbers" }, h("span", {}, h("span", { class: "mark" }, "r"), r.box), h("span", {}, h("span", { class: "mark" }, "α"), alpha.box), scale),
    h("div", { class: "row switches" }, keep.root, rs.root, dora.root), picture, chips, h("div", { class: "row tiny sum" }, h("span", { class: "cut" }, sentence("rank.trained"), more), total), wrong.root);

  const targets = () => model.get("targets") || [];
  function isOn(t) { const m = model.get("target_modules"); return m === "all-linear" || (Array.isArray(m) && m.includes(t.name)); }
  function toggle(name) {
    const on = targets().filter(t => isOn(t) !== (t.name === name));
    if (!on.length) set(model, "message", sentence("rank.one_target"));
    else give(model, { target_modules: on.length === targets().length ? "all-linear" : on.map(t => t.name) });
  }
  let shown = "", buttons = [];
  function drawTargets() {
    const key = JSON.stringify(targets().map(t => [t.name, t.short]));
    if (key !== shown) {
      shown = key;
      buttons = targets().map(t => h("button", { type: "button", class: "toggle", title: t.name, onclick: () => toggle(t.name) }, t.short || t.name));
      fill(chips, h("legend", { class: "label" }, sentence("rank.targets")), h("div", { class: "chips" }, buttons.length ? buttons : h("span", { class: "tiny" }, sentence("rank.no_targets"))));
    }
    targets().forEach((t, i) => { buttons[i].setAttribute("aria-pressed", String(isOn(t))); buttons[i].title = sentence("rank.target", { name: t.name, n: count(t.count), shape: `${count(t.m)} × ${count(t.n)}` }); });
  }
  function draw() {
    const v = model.get("r"), a = model.get("lora_alpha"), root2 = model.get("use_rslora"), m = model.get("target_modules"), free = typeof m === "string" && m !== "all-linear";
    if (natural(v)) { slide(range, Math.log2(v)); range.setAttribute("aria-valuetext", `r = ${v}`); }
    ticks.forEach((t, i) => t.classList.toggle("at", POWERS[i] === v));
    r.draw(); alpha.draw(); keep.draw(); rs.draw(); dora.draw(); wrong.draw(); drawTargets();
    fill(scale, root2 ? "α/√r = " : "α/r = ", h("b", {}, num(a / (root2 ? Math.sqrt(v) : v))));
    const on = targets().filter(isOn), sum = on.reduce((n, t) => n + t.count * v * (t.m + t.n), 0), params = model.get("params");
    total.textContent = !sum ? "–" : (sum < 1e9 ? count(sum) : human(sum)) + (params ? ` · ${num(100 * sum / params, sum < params / 100 ? 2 : 3)} %` : "");
    more.hidden = total.textContent.length > 17;
    total.title = free ? sentence("rank.pattern", { pattern: m }) : "";
    sketch((on.length ? on : targets()).reduce((big, t) => !big || t.m * t.n > big.m * big.n ? t : big, null), natural(v) ? v : 1);
  }
  // W, B and A with one scale; the rank must pass a quarter of W's smaller side before the others give way.
  function sketch(t, r) {
    const w = Math.max(200, body.clientWidth);
    if (!t) return fill(picture, h("p", { class: "tiny" }, sentence("rank.no_base")));
    const wide = Math.max(r, Math.min(t.m, t.n) / 4), k = Math.min(TALL / Math.max(t.m, r), (w - 144) / (2 * t.n + wide)), thin = v => Math.max(1.5, v * k), W = t.n * k, H = t.m * k;
    const b = W + 22, a = b + thin(r) + 8, words = a + W + 16;
    const drawn = shape => r * k < 1.5 ? sentence("rank.thicker", { shape }) : shape;
    const spoken = sentence("rank.picture", { name: t.name, m: count(t.m), n: count(t.n), r });
    const box = (name, x, bw, bh, words) => s("rect", { class: name, x, y: 1, width: bw, height: bh }, s("title", {}, words));
    fill(picture, s("svg", { viewBox: `0 0 ${w} ${TALL + 18}`, height: TALL + 18, role: "img", "aria-label": spoken },
      box("W", .5, W, H, sentence("rank.frozen", { shape: `W: ${count(t.m)} × ${count(t.n)}` })), s("text", { x: W + 11, y: Math.min(H / 2, TALL / 2) + 5, "text-anchor": "middle" }, "+"),
      box("B", b, thin(r), H, drawn(`B: ${count(t.m)} × ${r}`)), box("A", a, W, thin(r), drawn(`A: ${r} × ${count(t.n)}`)),
      s("text", { x: W / 2, y: TALL + 16, "text-anchor": "middle" }, "W"), s("text", { x: b + thin(r) / 2, y: TALL + 16, "text-anchor": "middle" }, "B"), s("text", { x: a + W / 2, y: TALL + 16, "text-anchor": "middle" }, "A"),
      s("text", { x: words, y: 30 }, `${count(t.m)} × ${count(t.n)}`), s("text", { x: words, y: 45 }, sentence("rank.to_scale"))));
  }
  return redraw(model, ["r", "lora_alpha", "use_rslora", "use_dora", "keep_ratio", "target_modules", "targets", "params", "message"], root, draw);
}
export default { render };
