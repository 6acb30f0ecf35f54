// What the loss sees: one row as tokens, those that are learned marked.
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

function render({ model, el }) {
  const { root, body } = card(el, { title: "Data", sub: "What does the loss see?", cls: "rows" });
  const data = pick(model, "data", "datasets", { label: "Data: petit/TASK, a file, a folder or a name on the Hub" });
  const box = h("div", { class: "tokens mono", tabindex: 0, role: "group" }), share = h("span", { class: "share", title: "Share of the tokens of all rows that the loss counts" }), place = h("span");
  const go = by => { const at = model.get("row") + by; if (at >= 0 && at < model.get("total")) give(model, { row: at }); };
  const prev = h("button", { type: "button", "aria-label": "Previous row", onclick: () => go(-1) }, "‹"), next = h("button", { type: "button", "aria-label": "Next row", onclick: () => go(1) }, "›");
  const keys = { ArrowLeft: -1, ArrowRight: 1 };
  box.addEventListener("keydown", e => { if (keys[e.key]) { e.preventDefault(); go(keys[e.key]); } });
  const checks = h("div", { class: "chips checks", role: "list", "aria-label": "Checks" }), wrong = complaint(model, [data.box]);
  body.append(data.root, box, h("div", { class: "row tiny foot" }, share, h("span", { class: "turn" }, place, prev, next)), checks, wrong.root);

  let shown;
  function draw() {
    const tokens = model.get("tokens") || [], total = model.get("total"), row = model.get("row"), learned = model.get("learned");
    data.draw(total ? count(total) : "");
    if (tokens !== shown) { shown = tokens; drawTokens(tokens); }
    fill(share, h("b", {}, tokens.length ? `${num(100 * learned, 2)} %` : "–"), h("span", { class: "wide" }, " of tokens"), " learned");
    if (total) fill(place, h("span", { class: "mid" }, "row "), `${count(row + 1)} of ${total < 1e5 ? count(total) : human(total)}`); else place.textContent = "no rows"; place.title = total ? `of ${count(total)}` : "";
    prev.disabled = !(total && row > 0); next.disabled = !(total && row + 1 < total);
    fill(checks, (model.get("checks") || []).map(([ok, text]) => h("span", { class: `chip ${ok ? "ok" : "bad"}`, role: "listitem", title: text }, h("span", { class: "cut" }, `${ok ? "✓" : "✗"} ${text}`))));
    wrong.draw();
  }
  function drawTokens(tokens) {
    const text = tokens.slice(0, MOST).map(t => t[0]).join("");
    box.dir = 2 * (text.match(RTL) || []).length > (text.match(LETTER) || []).length ? "rtl" : "ltr";
    box.scrollTop = 0;
    box.setAttribute("aria-label", tokens.length ? `${count(tokens.length)} tokens of the row, ${count(tokens.filter(t => t[1].endsWith("learned")).length)} of them learned. Left and right change the row.` : "No row yet");
    const spans = tokens.slice(0, MOST).flatMap(([text, kind]) => [h("span", { class: `token ${kind}`, title: kind.replace("-", ", ") }, text === "" ? h("i", { class: "ws" }, "∅") : letters(text)), text.endsWith("\n") ? h("br") : " "]);
    fill(box, tokens.length ? spans : h("span", { class: "tiny" }, "The tokens of a row show here, those that are learned in green."), tokens.length > MOST && h("p", { class: "tiny" }, `and ${count(tokens.length - MOST)} more`));
  }
  return redraw(model, ["data", "datasets", "total", "row", "tokens", "learned", "checks", "message"], root, draw);
}
export default { render };
