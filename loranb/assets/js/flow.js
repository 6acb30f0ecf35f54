// The whole way in one strip: the state of the run, and one line for each part.
const DONE = ["done", "saved"], BAD = ["failed", "error"], QUIET = ["ready", "stopped", "paused", ""];

function render({ model, el }) {
  const state = h("span", { "aria-live": "polite" }), detail = h("span"), dot = h("i", { class: "dot", "aria-hidden": "true" }), strip = h("ol", { class: "strip" });
  const root = h("section", { class: "lrb flow", "aria-label": "loranb" }, h("header", {}, h("b", {}, "loranb"), h("span", { class: "chip" }, dot, h("span", { class: "cut" }, state, detail))), strip);
  el.append(root);
  function draw() {
    const now = model.get("now"), word = model.get("state");
    if (state.textContent !== word) state.textContent = word;
    detail.textContent = model.get("detail") ? ` · ${model.get("detail")}` : "";
    dot.className = `dot ${BAD.includes(word) ? "bad" : QUIET.includes(word) ? "quiet" : DONE.includes(word) ? "done" : "busy"}`;
    fill(strip, (model.get("items") || []).map(([key, value], i) => h("li", { class: i === now ? "now" : "", "aria-current": i === now ? "step" : undefined }, h("div", { class: "k" }, key), h("div", { class: "v cut", title: value }, value))));
  }
  return redraw(model, ["state", "detail", "items", "now"], root, draw);
}
export default { render };
