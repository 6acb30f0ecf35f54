// Will it fit? The bill as bars on one scale with the cards as lines, the cards that it fits, and the ladder of what to change.
const size = n => { for (const [unit, name] of [[1e9, "GB"], [1e6, "MB"], [1e3, "kB"]]) if (Math.abs(n) >= unit) return `${num(n / unit)} ${name}`; return `${num(n)} B`; };
const total = parts => parts.reduce((sum, p) => sum + p[1], 0);
const BAR = 17, ROW = 37;

function render({ model, el }) {
  const { root, body } = card(el, { title: sentence("bill.title"), sub: sentence("bill.question"), cls: "bill" });
  const picture = h("div", { class: "bars" }), parts = h("ul", { class: "parts" }), read = h("p", { class: "read", "aria-live": "polite" }), notes = h("dl", { class: "notes" });
  const other = pick(model, "gpu", "names", { label: sentence("bill.card_to_fit"), before: sentence("bill.card") }), chips = h("fieldset", { class: "cards" });
  const ladder = h("ol", { class: "ladder", tabindex: 0, "aria-label": sentence("bill.ladder") }), wrong = complaint(model, [other.box]);
  body.append(h("div", { class: "sides" }, h("div", {}, picture, parts, notes), h("div", {}, h("div", { class: "which" }, other.root, chips), read, ladder, wrong.root)));

  const fitWords = g => g.over <= 0 ? sentence("bill.fits") : sentence("bill.short", { size: size(g.over) });
  let shown = "", buttons = [];
  function drawCards() {
    const gpus = model.get("cards") || [], key = JSON.stringify(gpus.map(g => g.name));
    if (key !== shown) {
      shown = key;
      buttons = gpus.map(g => h("button", { type: "button", class: "chip", onclick: () => give(model, { gpu: g.name }) }));
      fill(chips, h("legend", { class: "hide" }, sentence("bill.cards")), h("div", { class: "chips" }, buttons));
    }
    gpus.forEach((g, i) => {
      const fits = g.over <= 0;
      fill(buttons[i], h("span", { "aria-hidden": "true" }, fits ? "✓" : "✗"), `${g.name} ${num(g.usable / 1e9)}`);
      buttons[i].className = `chip ${fits ? "on" : "off"}`; buttons[i].title = sentence("bill.room_and_fit", { name: g.name, size: size(g.usable), words: fitWords(g) });
      buttons[i].setAttribute("aria-pressed", String(g.name === model.get("gpu"))); buttons[i].setAttribute("aria-label", buttons[i].title);
    });
    const at = gpus.find(g => g.name === model.get("gpu"));
    other.draw(at ? fitWords(at) : "");
  }
  function rung(o, i) {
    const take = h("button", { type: "button", "aria-label": sentence("bill.change_this", { words: o.words }), onclick: () => model.send({ kind: "take", step: i }) }, sentence("bill.change"));
    const saves = sentence(o.fits ? "bill.saves_and_fits" : "bill.saves", { saved: size(o.saves), peak: size(o.peak) });
    const price = sentence("bill.price", { time: o.time, quality: o.quality, source: o.source });
    return h("li", {}, take, h("div", {}, h("code", {}, o.words), h("div", { class: "tiny" }, saves), h("div", { class: "tiny why", title: o.source }, price)));
  }
  let rungs;
  function drawLadder() {
    const steps = model.get("rungs") || [], key = JSON.stringify(steps);
    if (key === rungs) return;
    rungs = key;
    fill(ladder, steps.map(rung));
    if (!steps.length) fill(ladder, h("li", {}, h("span", { class: "tiny" }, sentence("bill.no_rung"))));
  }
  function draw() {
    const sides = model.get("sides") || [], yours = sides.find(o => o.yours) || { parts: [] };
    fill(parts, yours.parts.map(([name, bytes]) => h("li", {}, h("i", { class: `swatch p-${name}`, "aria-hidden": "true" }), h("span", { class: "cut" }, name), h("b", {}, size(bytes)))));
    fill(notes, (model.get("notes") || []).map(([k, v]) => h("div", {}, h("dt", {}, k), h("dd", {}, v))));
    if (read.textContent !== model.get("verdict")) read.textContent = model.get("verdict");
    drawCards(); drawLadder(); wrong.draw(); sketch(sides);
  }
  function sketch(sides) {
    const w = Math.max(200, picture.clientWidth), foot = sides.length * ROW + 4, gpus = (model.get("cards") || []).filter(g => g.name), at = gpus.find(g => g.name === model.get("gpu"));
    const largest = Math.max(1, ...sides.map(o => total(o.parts))), most = Math.max(largest, at && at.usable < 40 * largest ? at.usable : 0) * 1.03, x = v => v / most * w;
    const nodes = [];
    sides.forEach((o, i) => {
      const y = i * ROW, g = s("g", { class: o.yours ? "chosen" : "beside" });
      let left = 0;
      g.append(s("text", { x: 0, y: y + 12, class: o.yours ? "strong" : "" }, o.yours ? sentence("bill.yours", { name: o.name }) : o.name), s("text", { x: w, y: y + 12, "text-anchor": "end", class: o.yours ? "strong" : "" }, size(total(o.parts))));
      for (const [name, bytes] of o.parts) {
        const width = x(bytes);
        if (width > .2) g.append(s("rect", { class: `p-${name}`, x: left, y: y + 17, width: Math.max(width - .7, .3), height: BAR }, s("title", {}, `${name}: ${size(bytes)}`)));
        left += width;
      }
      nodes.push(g);
    });
    let end = -1e9;
    for (const g of [...gpus].sort((a, b) => a.usable - b.usable)) {
      if (g.usable > most) continue;
      const px = x(g.usable), own = g === at;
      nodes.push(s("path", { class: own ? "room chosen" : "room", d: sides.map((o, i) => `M${px} ${i * ROW + 15}v${BAR + 4}`).join("") + `M${px} ${foot - 2}v3` }, s("title", {}, sentence("bill.room", { name: g.name, size: size(g.usable) }))));
      const room = 7 * g.name.length / 2, middle = Math.min(Math.max(px, room), w - room);
      if (middle - room > end || own) { nodes.push(s("text", { class: own ? "strong" : "", x: middle, y: foot + 13, "text-anchor": "middle" }, g.name)); end = middle + room; }
    }
    const peaks = sides.map(o => `${o.name} ${size(total(o.parts))}`).join(", ");
    fill(picture, s("svg", { viewBox: `0 0 ${w} ${foot + 18}`, height: foot + 18, role: "img", "aria-label": sentence("bill.picture", { peaks }) }, nodes));
  }
  const stop = redraw(model, ["sides", "cards", "gpu", "names", "rungs", "verdict", "notes", "message"], root, draw), seen = new ResizeObserver(stop.ask);
  seen.observe(picture);
  return () => { seen.disconnect(); stop(); };
}
export default { render };
