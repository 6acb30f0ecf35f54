function render({ model, el }) {
  const { root, body } = card(el, { title: "Keep", sub: "The same prompts, before and after", cls: "samples" });
  const table = h("table", {}), scroll = h("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": "Samples" }, table), chips = h("div", { class: "chips" });
  const where = h("span", { class: "mono" }), said = h("span", { class: "unseen", role: "status" });
  const copy = h("button", { onclick: async () => {
    const text = model.get("path");
    try { await navigator.clipboard.writeText(text); }
    catch { const box = h("textarea", { class: "unseen" }, text); root.append(box); box.select(); document.execCommand("copy"); box.remove(); copy.focus(); }
    copy.textContent = "copied"; said.textContent = "Path copied";
    setTimeout(() => { copy.textContent = "copy"; said.textContent = ""; }, 1500);
  } }, "copy");
  const path = h("div", { class: "row path" }, where, copy, said), marks = { true: ["good", "✓", "right"], false: ["bad", "✗", "wrong"] };
  body.append(scroll, chips, path);
  const answer = (text, ok, head) => {
    const [cls, sign, words] = marks[ok] || ["", "", ""];
    return h("td", { class: cls, "data-head": head }, text ?? "–", sign && ["\u00a0", h("span", { role: "img", "aria-label": words }, sign)]);
  };
  function draw() {
    const rows = model.get("rows") || [], checks = model.get("checks") || [];
    fill(table, h("thead", {}, h("tr", {}, ["prompt", "base", "with adapter"].map(o => h("th", { scope: "col" }, o)))), h("tbody", {}, rows.map(r => h("tr", {},
      h("td", { "data-head": "prompt" }, r.prompt, r.target && r.before_ok !== null && r.after_ok !== true && h("div", { class: "tiny wanted" }, "wanted: ", r.target)),
      answer(r.before, r.before_ok, "base"), answer(r.after, r.after_ok, "with adapter")))),
      !rows.length && h("tbody", {}, h("tr", {}, h("td", { colspan: 3, class: "none" }, "No samples yet. They are taken before the first step and after the last."))));
    fill(chips, checks.map(([ok, text]) => h("span", { class: `chip ${ok ? "ok" : "bad"}` }, h("span", { role: "img", "aria-label": ok ? "holds" : "does not hold" }, ok ? "✓" : "✗"), text)));
    where.textContent = where.title = model.get("path") || "not saved yet"; copy.hidden = !model.get("path");
  }
  return redraw(model, ["rows", "checks", "path"], root, draw);
}
export default { render };
