function render({ model, el }) {
  const { root, body } = card(el, { title: sentence("samples.title"), sub: sentence("samples.about"), cls: "samples" });
  const table = h("table", {}), scroll = h("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": sentence("samples.table") }, table), chips = h("div", { class: "chips" });
  const where = h("span", { class: "mono" }), said = h("span", { class: "unseen", role: "status" });
  const copy = h("button", { onclick: async () => {
    const text = model.get("path");
    try { await navigator.clipboard.writeText(text); }
    catch { const box = h("textarea", { class: "unseen" }, text); root.append(box); box.select(); document.execCommand("copy"); box.remove(); copy.focus(); }
    copy.textContent = sentence("common.copied"); said.textContent = sentence("samples.path_copied");
    setTimeout(() => { copy.textContent = sentence("common.copy"); said.textContent = ""; }, 1500);
  } }, sentence("common.copy"));
  const path = h("div", { class: "row path" }, where, copy, said), marks = { true: ["good", "✓", sentence("samples.right")], false: ["bad", "✗", sentence("samples.wrong")] };
  body.append(scroll, chips, path);
  const answer = (text, ok, head) => {
    const [cls, sign, words] = marks[ok] || ["", "", ""];
    return h("td", { class: cls, "data-head": head }, text ?? "–", sign && ["\u00a0", h("span", { role: "img", "aria-label": words }, sign)]);
  };
  function draw() {
    const rows = model.get("rows") || [], checks = model.get("checks") || [], heads = [sentence("samples.prompt"), sentence("samples.base"), sentence("samples.with_adapter")];
    fill(table, h("thead", {}, h("tr", {}, heads.map(o => h("th", { scope: "col" }, o)))), h("tbody", {}, rows.map(r => h("tr", {},
      h("td", { "data-head": heads[0] }, r.prompt, r.target && r.before_ok !== null && r.after_ok !== true && h("div", { class: "tiny wanted" }, sentence("samples.wanted_is", { target: r.target }))),
      answer(r.before, r.before_ok, heads[1]), answer(r.after, r.after_ok, heads[2])))),
      !rows.length && h("tbody", {}, h("tr", {}, h("td", { colspan: 3, class: "none" }, sentence("samples.none")))));
    fill(chips, checks.map(([ok, text]) => h("span", { class: `chip ${ok ? "ok" : "bad"}` }, h("span", { role: "img", "aria-label": sentence(ok ? "samples.holds" : "samples.fails") }, ok ? "✓" : "✗"), text)));
    where.textContent = where.title = model.get("path") || sentence("samples.not_saved"); copy.hidden = !model.get("path");
  }
  return redraw(model, ["rows", "checks", "path"], root, draw);
}
export default { render };
