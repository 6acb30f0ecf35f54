// What a row is: the data set, the format that was recognized, and columns to roles with the first rows beside them.
function render({ model, el }) {
  const { root, body } = card(el, { title: sentence("columns.title"), sub: sentence("columns.question"), cls: "columns" });
  const data = pick(model, "data", "datasets", { label: sentence("columns.data") });
  const format = h("span", { class: "chip format" }, ""), back = h("button", { type: "button", class: "link", onclick: () => give(model, { columns: {} }) }, sentence("columns.as_recognized"));
  const list = h("div", { class: "list", role: "list", tabindex: 0, "aria-label": sentence("columns.list") }), place = h("span");
  const turn = by => { at = Math.min(Math.max(at + by, 0), (model.get("examples") || []).length - 1); draw(); };
  const prev = h("button", { type: "button", "aria-label": sentence("columns.previous"), onclick: () => turn(-1) }, "‹"), next = h("button", { type: "button", "aria-label": sentence("columns.next"), onclick: () => turn(1) }, "›");
  const note = h("p", { class: "tiny note" }), wrong = complaint(model, [data.box]);
  body.className = "body";
  body.append(data.root, h("div", { class: "row tiny head" }, h("span", { class: "cut" }, format), h("span", { class: "turn" }, place, prev, next)), list, h("div", { class: "row tiny" }, note, back), wrong.root);
  let at = 0, shown = "";

  // The recipe says it from role to column, or to several that are joined; here it stands from column to role.
  const told = () => Object.keys(model.get("columns") || {}).length > 0;
  const byColumn = () => Object.fromEntries(Object.entries((told() ? model.get("columns") : model.get("taken")) || {}).flatMap(([role, cs]) => [cs].flat().map(c => [c, role])));
  const choose = (name, role) => {
    const now = { ...byColumn(), [name]: role }, columns = {};
    for (const c of model.get("names")) if (now[c]) columns[now[c]] = columns[now[c]] ? [columns[now[c]], c].flat() : c;
    give(model, { columns });
  };
  function row(name, roles) {
    const options = [["", sentence("columns.not_used")], ...roles].map(([role, words]) => h("option", { value: role }, words));
    const select = h("select", { "aria-label": sentence("columns.role", { name }), onchange: e => choose(name, e.target.value) }, options);
    return h("div", { class: "col", role: "listitem" }, h("label", {}, h("span", { class: "mono name cut", title: name }, name), select), h("div", { class: "value" }));
  }
  function draw() {
    const names = model.get("names") || [], mapping = byColumn(), roles = model.get("roles") || [], examples = model.get("examples") || [], total = model.get("total");
    data.draw(total ? count(total) : "");
    at = Math.min(at, Math.max(0, examples.length - 1));
    format.textContent = model.get("format") || sentence("common.no_rows"); format.title = format.textContent;
    format.className = `chip format ${model.get("sound") ? "ok" : names.length ? "bad" : ""}`;
    place.textContent = examples.length ? sentence("columns.place", { at: at + 1, n: examples.length }) : ""; prev.disabled = at <= 0; next.disabled = at + 1 >= examples.length;
    const key = JSON.stringify([names, roles]);
    if (key !== shown) {
      shown = key;
      fill(list, names.map(name => row(name, roles)));
    }
    names.forEach((name, i) => {
      const row = list.children[i], value = examples[at]?.[i] ?? "";
      row.querySelector("select").value = mapping[name] || ""; row.classList.toggle("used", !!mapping[name]);
      const box = row.querySelector(".value");
      if (box.textContent !== value) box.textContent = value;
      box.title = value;
    });
    if (note.textContent !== (model.get("note") || "")) note.textContent = model.get("note") || "";
    back.hidden = !told(); wrong.draw();
  }
  return redraw(model, ["data", "datasets", "total", "format", "sound", "names", "roles", "columns", "taken", "examples", "note", "message"], root, draw);
}
export default { render };
