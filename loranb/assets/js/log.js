// What a run printed when it was started by a button: folded away, newest line last.
function render({ model, el }) {
  const lines = h("pre", { style: "max-height:180px;white-space:pre-wrap" }), count = h("span", {});
  const box = h("details", {}, h("summary", {}, sentence("log.title"), count), lines);
  const root = h("section", { class: "lrb", "aria-label": sentence("log.title") }, box);
  root.addEventListener("keydown", e => e.stopPropagation());
  el.append(root);
  return redraw(model, ["lines"], root, () => {
    const all = model.get("lines");
    count.textContent = ` · ${all.length ? sentence("log.lines", { n: all.length }) : sentence("log.empty")}`;
    lines.textContent = all.join("\n"); lines.scrollTop = lines.scrollHeight;
  });
}
export default { render };
