// What would go wrong: findings with their rows and remedies. An error stands in the way of training until it is acknowledged.
const SIGNS = { error: "✗", warning: "!", note: "i" };
function render({ model, el }) {
  const state = h("span", { class: "chip state", role: "status" }), { root, body } = card(el, { title: sentence("doctor.title"), sub: sentence("doctor.question"), cls: "doctor", extra: state });
  const list = h("div", { class: "list", role: "list", tabindex: 0, "aria-label": sentence("doctor.list") }), seen = h("span", { class: "tiny" });
  const all = h("button", { type: "button", class: "link", onclick: () => { all.disabled = true; model.send({ kind: "all" }); } }, sentence("doctor.look_at_all")), wrong = complaint(model, []);
  body.className = "body";
  body.append(list, h("div", { class: "row tiny foot" }, seen, all), wrong.root);
  let shown = "";

  const acknowledge = (code, on) => { const now = (model.get("acknowledged") || []).filter(c => c !== code); give(model, { acknowledged: on ? [...now, code] : now }); };
  function item(f, taken) {
    const kind = SIGNS[f.severity] ? f.severity : "note", words = sentence(`doctor.sign_${kind}`), sign = SIGNS[kind];
    const rows = (f.rows || []).slice(0, 3).map(i => h("button", { type: "button", class: "link", title: sentence("doctor.show_row"), onclick: () => model.send({ kind: "row", row: i }) }, sentence("doctor.row", { row: count(i) })));
    const many = sentence(rows.length ? "doctor.rows_such_as" : "doctor.rows", { n: f.count, rows: count(f.count) });
    const box = h("input", { type: "checkbox", checked: taken, onchange: e => acknowledge(f.code, e.target.checked) });
    return h("div", { class: `finding sev-${f.severity} ${taken ? "taken" : ""}`, role: "listitem", "data-code": f.code },
      h("span", { class: "sign", role: "img", "aria-label": words, title: words }, sign),
      h("div", { class: "what" }, h("div", {}, h("b", {}, f.words || f.code), f.count ? [" ", h("span", { class: "tiny many" }, `· ${many}`)] : null, rows.flatMap(b => [" ", b])),
        f.detail ? h("div", { class: "tiny remedy" }, `${f.detail}.`) : null,
        h("div", { class: "tiny remedy" }, f.remedy || "", " ", h("span", { class: "code mono" }, f.code)),
        f.severity === "error" ? h("label", { class: "check" }, box, h("span", {}, sentence(taken ? "doctor.taken" : "doctor.take"))) : null));
  }
  function draw() {
    const findings = model.get("findings") || [], taken = new Set(model.get("acknowledged") || []), looked = model.get("looked"), total = model.get("total");
    const errors = findings.filter(f => f.severity === "error" && !taken.has(f.code)).length, warnings = findings.filter(f => f.severity === "warning").length;
    if (!looked) state.textContent = sentence("common.no_rows");
    else if (errors) state.textContent = `✗ ${sentence("doctor.errors", { errors })}`;
    else if (warnings) state.textContent = sentence("doctor.warnings", { warnings });
    else state.textContent = `✓ ${sentence("doctor.sound")}`;
    state.className = `chip state ${errors ? "bad" : looked ? "ok" : ""}`;
    const key = JSON.stringify([findings, [...taken]]);
    if (key !== shown) {
      shown = key;
      const focused = root.getRootNode().activeElement, code = focused?.closest?.(".finding")?.dataset.code, kind = focused?.tagName;
      fill(list, findings.map(f => item(f, taken.has(f.code))), !findings.length && h("p", { class: "tiny none" }, sentence(looked ? "doctor.nothing" : "doctor.none")));
      if (code) [...list.children].find(o => o.dataset.code === code)?.querySelector(kind)?.focus();
    }
    seen.textContent = !looked ? "" : sentence(looked < total ? "doctor.seen_first" : "doctor.seen_all", { looked: count(looked), total: count(total) });
    all.hidden = !looked || looked >= total; all.disabled = !!model.get("busy"); all.textContent = model.get("busy") || sentence("doctor.look_at_all"); wrong.draw();
  }
  return redraw(model, ["findings", "acknowledged", "looked", "total", "busy", "message"], root, draw);
}
export default { render };
