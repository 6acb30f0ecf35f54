// What would go wrong: findings with their rows and remedies. An error stands in the way of training until it is acknowledged.
const SIGNS = { error: ["✗", "error"], warning: ["!", "warning"], note: ["i", "note"] };
function render({ model, el }) {
  const state = h("span", { class: "chip state", role: "status" }), { root, body } = card(el, { title: "Doctor", sub: "What would go wrong?", cls: "doctor", extra: state });
  const list = h("div", { class: "list", role: "list", tabindex: 0, "aria-label": "Findings" }), seen = h("span", { class: "tiny" });
  const all = h("button", { type: "button", class: "link", onclick: () => { all.disabled = true; model.send({ kind: "all" }); } }, "look at all"), wrong = complaint(model, []);
  body.className = "body";
  body.append(list, h("div", { class: "row tiny foot" }, seen, all), wrong.root);
  let shown = "";

  const acknowledge = (code, on) => { const now = (model.get("acknowledged") || []).filter(c => c !== code); give(model, { acknowledged: on ? [...now, code] : now }); };
  function item(f, taken) {
    const [sign, words] = SIGNS[f.severity] || SIGNS.note, open = f.severity === "error" && !taken;
    const rows = (f.rows || []).slice(0, 3).map(i => h("button", { type: "button", class: "link", title: "Show this row", onclick: () => model.send({ kind: "row", row: i }) }, `row ${count(i)}`));
    return h("div", { class: `finding sev-${f.severity} ${taken ? "taken" : ""}`, role: "listitem", "data-code": f.code },
      h("span", { class: "sign", role: "img", "aria-label": words, title: words }, sign),
      h("div", { class: "what" }, h("div", {}, h("b", {}, f.words || f.code), f.count ? [" ", h("span", { class: "tiny many" }, `· ${count(f.count)} ${f.count === 1 ? "row" : "rows"}${rows.length ? ":" : ""}`)] : null, rows.flatMap(b => [" ", b])),
        f.detail ? h("div", { class: "tiny remedy" }, `${f.detail}.`) : null,
        h("div", { class: "tiny remedy" }, f.remedy || "", " ", h("span", { class: "code mono" }, f.code)),
        f.severity === "error" ? h("label", { class: "check" }, h("input", { type: "checkbox", checked: taken, onchange: e => acknowledge(f.code, e.target.checked) }), h("span", {}, open ? "train in spite of it" : "acknowledged: it will be trained in spite of it")) : null));
  }
  function draw() {
    const findings = model.get("findings") || [], taken = new Set(model.get("acknowledged") || []), looked = model.get("looked"), total = model.get("total");
    const errors = findings.filter(f => f.severity === "error" && !taken.has(f.code)).length, warnings = findings.filter(f => f.severity === "warning").length;
    state.textContent = !looked ? "no rows yet" : errors ? `✗ ${errors} ${errors === 1 ? "error" : "errors"}: Train waits` : warnings ? `${warnings} ${warnings === 1 ? "warning" : "warnings"}` : "✓ nothing in the way";
    state.className = `chip state ${errors ? "bad" : looked ? "ok" : ""}`;
    const key = JSON.stringify([findings, [...taken]]);
    if (key !== shown) {
      shown = key;
      const focused = root.getRootNode().activeElement, code = focused?.closest?.(".finding")?.dataset.code, kind = focused?.tagName;
      fill(list, findings.map(f => item(f, taken.has(f.code))), !findings.length && h("p", { class: "tiny none" }, looked ? "Nothing found: every row has something to learn, ends are learned, and nothing else of what the doctor knows is wrong." : "Findings show here once there are rows."));
      if (code) [...list.children].find(o => o.dataset.code === code)?.querySelector(kind)?.focus();
    }
    seen.textContent = !looked ? "" : looked < total ? `the first ${count(looked)} of ${count(total)} rows` : `all ${count(total)} rows`;
    all.hidden = !looked || looked >= total; all.disabled = !!model.get("busy"); all.textContent = model.get("busy") || "look at all"; wrong.draw();
  }
  return redraw(model, ["findings", "acknowledged", "looked", "total", "busy", "message"], root, draw);
}
export default { render };
