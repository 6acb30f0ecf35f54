function render({ model, el }) {
  const { root, body, subline } = card(el, { title: sentence("now.title"), cls: "now" });
  const figures = h("div", { class: "figs" }), read = h("p", { class: "read" }), cells = [];
  body.append(figures, h("div", { class: "reading" }, read));
  function draw() {
    const rows = model.get("figures") || [];
    say(subline, model.get("subtitle") || "");
    while (cells.length > rows.length) cells.pop().box.remove();
    rows.forEach(([words, value], i) => {
      if (!cells[i]) { const k = h("div", { class: "k" }), v = h("div", { class: "v" }), box = h("div", {}, k, v); figures.append(box); cells[i] = { k, v, box }; }
      say(cells[i].k, words); say(cells[i].v, value);
    });
    tell(read, model.get("reading") || "");
  }
  return redraw(model, ["figures", "reading", "subtitle"], root, draw);
}
export default { render };
