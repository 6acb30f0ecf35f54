// How many bits for each frozen weight: the base, its quantization, and the levels over one layer's weights.
const size = n => n >= 1e9 ? [1e9, "GB"] : n >= 1e6 ? [1e6, "MB"] : [1e3, "kB"];
const beside = (small, large) => { const [unit, name] = size(large), f = v => (v / unit).toFixed(v < 99.95 * unit ? 1 : 0); return small === large ? `${f(large)} ${name}` : sentence("quantize.beside", { small: f(small), large: `${f(large)} ${name}` }); };
function caption(quant, levels, density) {
  if (quant === "none") return sentence("quantize.no_levels");
  if (quant === "int8") return sentence("quantize.even_levels");
  return sentence(density.length ? "quantize.levels_over" : "quantize.levels", { n: levels.length });
}

function render({ model, el }) {
  const { root, body } = card(el, { title: sentence("quantize.title"), sub: sentence("quantize.question"), cls: "quantize" });
  const base = pick(model, "model", "models", { label: sentence("quantize.base_model"), before: sentence("quantize.base") });
  const group = id("quant"), quants = Object.keys(model.get("choices")), radios = quants.map(q => h("input", { type: "radio", name: group, value: q, onchange: () => give(model, { quant: q }) }));
  const seg = h("fieldset", { class: "seg" }, h("legend", { class: "hide" }, sentence("quantize.choice")), radios.map((radio, i) => h("label", {}, radio, h("span", {}, quants[i]))));
  const picture = h("div", { class: "levels" });
  const double = check(model, "bnb_4bit_use_double_quant", sentence("quantize.double"), sentence("quantize.double_help"));
  const bits = h("span", { class: "nobr" }), layer = h("span", { class: "cut" }), error = h("b"), bytes = h("b"), wrong = complaint(model, [base.box]);
  body.append(base.root, seg, picture, h("div", { class: "row tiny" }, bits, double.root), h("div", { class: "row tiny figure" }, layer, error), h("div", { class: "row tiny figure" }, h("span", {}, sentence("quantize.frozen")), bytes), wrong.root);

  function draw() {
    const q = model.get("quant"), c = (model.get("choices") || {})[q] || {}, full = (model.get("choices") || {}).none || {}, four = (c.levels || []).length > 0, both = four && model.get("bnb_4bit_use_double_quant");
    base.draw(model.get("params") ? human(model.get("params")) : "");
    for (const radio of radios) radio.checked = radio.value === q;
    double.draw(); double.box.disabled = !four;
    fill(bits, sentence("quantize.bits", { bits: num(both ? c.bits_double : c.bits) }), h("span", { class: "wide" }, ` ${sentence("quantize.a_weight")}`));
    const at = model.get("layer"), lost = both && c.error_double !== undefined ? c.error_double : c.error;
    layer.textContent = at ? sentence("quantize.error_of", { layer: at }) : sentence("quantize.error"); layer.title = at;
    error.textContent = lost === null || lost === undefined ? "–" : `${num(100 * lost, 2)} %`;
    const own = both ? c.bytes_double : c.bytes;
    bytes.textContent = own ? beside(own, full.bytes || own) : "–";
    wrong.draw(); sketch(q, c.levels || [], model.get("histogram") || []);
  }
  function sketch(q, levels, density) {
    const w = Math.max(120, body.clientWidth), foot = 86, top = 6, x = v => 1 + (v + 1) / 2 * (w - 2), most = Math.max(...density, 1e-9);
    const layer = model.get("layer"), words = caption(q, levels, density);
    const spoken = sentence(layer ? "quantize.picture_of" : "quantize.picture", { levels: words, layer });
    const svg = s("svg", { viewBox: `0 0 ${w} 104`, height: 104, role: "img", "aria-label": spoken });
    if (density.length) {
      const bin = (w - 2) / density.length, points = density.map((d, i) => `${(1 + (i + .5) * bin).toFixed(1)} ${(foot - (foot - top) * d / most).toFixed(1)}`);
      svg.append(s("path", { class: "weights", d: `M1 ${foot}L1 ${points[0].split(" ")[1]}L${points.join("L")}L${w - 1} ${points.at(-1).split(" ")[1]}L${w - 1} ${foot}Z` }));
    }
    if (q === "int8") svg.append(s("rect", { class: "comb", x: 1, width: w - 2, y: foot - 1, height: 5 }));
    for (const v of levels) svg.append(s("line", { class: "level", x1: x(v), x2: x(v), y1: top, y2: foot + 4 }));
    svg.append(s("line", { class: "axis", x1: 1, x2: w - 1, y1: foot, y2: foot }), s("text", { x: 0, y: 102 }, "−1"), s("text", { x: w / 2, y: 102, "text-anchor": "middle" }, words), s("text", { x: w, y: 102, "text-anchor": "end" }, "1"));
    fill(picture, svg);
  }
  return redraw(model, ["model", "models", "params", "quant", "bnb_4bit_use_double_quant", "layer", "histogram", "choices", "message"], root, draw);
}
export default { render };
