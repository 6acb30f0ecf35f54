// What the loss sees: one row as tokens, and all rows as lengths and shares.
const MOST = 4096, SEEN = { " ": "·", "\u00a0": "⍽", "\t": "→", "\n": "↵", "\r": "␍" };
const HIDDEN = /[ \u00a0\t\n\r]|[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/gu;
const RTL = /[\p{Script=Arabic}\p{Script=Hebrew}\p{Script=Syriac}\p{Script=Thaana}\p{Script=Nko}]/gu, LETTER = /\p{L}/gu;
// White space as faint marks, characters that nobody would see as their code points; all else as it is, alone in its direction.
function letters(text) {
  const out = [];
  let from = 0;
  for (const m of text.matchAll(HIDDEN)) {
    if (m[0] === "\u200d" && m.index && m.index + 1 < text.length) continue;  // the joiner inside an emoji
    if (m.index > from) out.push(h("bdi", {}, text.slice(from, m.index)));
    out.push(h("i", { class: "ws" }, SEEN[m[0]] || `U+${m[0].codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`));
    from = m.index + m[0].length;
  }
  if (from < text.length) out.push(h("bdi", {}, text.slice(from)));
  return out;
}

const SHARES = ["learned", "context", "truncated", "padding"], TRAIN_ON = ["assistant", "last", "all"];
const told = kind => sentence(`rows.kind_${kind}`);

function render({ model, el }) {
  const { root, body } = card(el, { title: sentence("rows.title"), sub: sentence("rows.question"), cls: "rows" });
  const box = h("div", { class: "tokens mono", tabindex: 0, role: "group" }), detail = h("div", { class: "tiny detail cut", "aria-live": "polite" });
  const learn = h("select", { "aria-label": sentence("rows.train_on"), onchange: e => give(model, { train_on: e.target.value }) }, TRAIN_ON.map(k => h("option", { value: k }, sentence(`rows.on_${k}`))));
  const packing = check(model, "packing", sentence("rows.packing"), sentence("rows.packing_help"));
  const grouped = check(model, "group_by_length", sentence("rows.by_length"), sentence("rows.by_length_help"));
  const order = h("select", { "aria-label": sentence("rows.order"), onchange: e => give(model, { order: e.target.value, place: 0 }) });
  const go = by => { const at = model.get("place") + by; if (at >= 0 && at < model.get("places")) give(model, { place: at }); };
  const prev = h("button", { type: "button", "aria-label": sentence("rows.previous"), onclick: () => go(-1) }, "‹"), next = h("button", { type: "button", "aria-label": sentence("rows.next"), onclick: () => go(1) }, "›");
  const number = typed(model, "row", { inputmode: "numeric", "aria-label": sentence("rows.number") }, { show: v => v ? count(v) : "", read: readNumber, commit: v => { give(model, {}); model.send({ kind: "row", row: Math.round(v) }); } });
  const place = h("span"), picture = h("div", { class: "lengths" }), shares = h("div", { class: "shares tiny" }), read = h("p", { class: "read" }), wrong = complaint(model, [number.box]);
  body.append(h("div", { class: "row tiny foot" }, h("label", { class: "turn" }, `${sentence("rows.learn")} `, learn), packing.root, grouped.root), h("div", { class: "row tiny foot" }, order, h("label", { class: "turn" }, h("span", { class: "mid" }, sentence("rows.row")), number.box, place, prev, next)), box, detail, shares, picture, h("div", { class: "reading" }, read), wrong.root);

  // The token under the pointer, or under the arrow keys.
  let shown, marked, spans = [];
  const mark = (span, scroll) => {
    marked?.classList.remove("at"); marked = span; span?.classList.add("at");
    if (scroll && span) { const a = span.offsetTop; if (a < box.scrollTop || a + span.offsetHeight > box.scrollTop + box.clientHeight) box.scrollTop = a - box.clientHeight / 2; }
    detail.textContent = span ? span.title : spans.length ? sentence("rows.point") : "";
  };
  box.addEventListener("pointerover", e => { const span = e.target.closest(".token"); if (span) mark(span); });
  box.addEventListener("pointerleave", () => mark());
  box.addEventListener("keydown", e => {
    const by = { ArrowUp: -1, ArrowDown: 1 }[e.key], turn = { ArrowLeft: -1, ArrowRight: 1 }[e.key];
    if (turn) go(turn); else if (by) mark(spans[Math.min(Math.max(spans.indexOf(marked) + by, 0), spans.length - 1)], true); else return;
    e.preventDefault();
  });

  function draw() {
    const tokens = model.get("tokens") || [], total = model.get("total"), at = model.get("place"), places = model.get("places"), by = model.get("order"), s = model.get("shares") || {};
    const orders = [["", sentence("rows.as_they_come")], ...Object.entries(model.get("orders") || {})];
    if (order.children.length !== orders.length) fill(order, orders.map(([k, words]) => h("option", { value: k }, words)));
    order.value = by; order.disabled = !total;
    if (tokens !== shown) { shown = tokens; drawTokens(tokens); }
    learn.value = model.get("train_on"); packing.draw(); grouped.draw(); grouped.box.disabled = !!model.get("packing");
    number.draw(); number.box.disabled = !total; place.title = total ? sentence("rows.of", { total: count(total) }) : "";
    place.textContent = !total ? sentence("rows.no_rows") : sentence("rows.of", { total: total < 1e5 ? count(total) : human(total) });
    prev.disabled = at <= 0; next.disabled = at + 1 >= places;
    fill(shares, SHARES.map(k => h("span", {}, h("i", { class: `token ${k}`, "aria-hidden": "true" }, "a"), " ", h("b", {}, s[k] === undefined ? "–" : `${num(100 * s[k], 2)} %`), ` ${told(k)}`)));
    const reading = (model.get("reading") || "").replaceAll(" %", "\u00a0%");
    if (read.textContent !== reading) read.textContent = reading;
    fill(picture, lengthsPicture(model.get("lengths") || {}, Math.max(160, body.clientWidth))); wrong.draw();
  }
  function drawTokens(tokens) {
    const text = tokens.slice(0, MOST).map(t => t[0]).join("");
    box.dir = 2 * (text.match(RTL) || []).length > (text.match(LETTER) || []).length ? "rtl" : "ltr";
    box.scrollTop = 0;
    const n = kind => count(tokens.filter(t => t[1].endsWith(kind)).length);
    const all = { n: count(tokens.length), learned: n("learned"), cut: n("truncated") };
    box.setAttribute("aria-label", tokens.length ? sentence("rows.picture", all) : sentence("rows.none"));
    spans = [];
    const drawn = tokens.slice(0, MOST).flatMap(([text, kind, id, times], i) => {
      const title = sentence(times ? "rows.token_of_many" : "rows.token", { place: count(i), id: id ?? "–", kind: told(kind), times: times && count(times) });
      const span = h("span", { class: `token ${kind}`, title }, text === "" ? h("i", { class: "ws" }, "∅") : letters(text), times && ` ×${count(times)}`);
      spans.push(span);
      return [span, text.endsWith("\n") ? h("br") : " "];
    });
    fill(box, tokens.length ? drawn : h("span", { class: "tiny" }, sentence("rows.no_tokens")), tokens.length > MOST && h("p", { class: "tiny" }, sentence("rows.more", { n: count(tokens.length - MOST) })));
    mark();
  }
  return redraw(model, ["train_on", "packing", "group_by_length", "total", "row", "place", "places", "order", "tokens", "shares", "lengths", "reading", "message"], root, draw);
}
export default { render };
