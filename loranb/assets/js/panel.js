// Shared by every panel: making elements, following the front end's theme, drawing at most once a frame.
const NS = "http://www.w3.org/2000/svg";
function put(node, attrs, kids) {
  for (const [k, v] of Object.entries(attrs || {})) {
    if (v === undefined || v === null || v === false) continue;
    if (k.startsWith("on")) node.addEventListener(k.slice(2), v);
    else node.setAttribute(k, v === true ? "" : v);
  }
  node.append(...kids.flat().filter(o => o !== undefined && o !== null && o !== false));
  return node;
}
const h = (tag, attrs, ...kids) => put(document.createElement(tag), attrs, kids);      // an HTML element
const s = (tag, attrs, ...kids) => put(document.createElementNS(NS, tag), attrs, kids); // an SVG element
const fill = (node, ...kids) => { node.replaceChildren(...kids.flat().filter(o => o !== undefined && o !== null && o !== false)); return node; };

// Light or dark, as the front end has it: JupyterLab and Notebook, Colab, VS Code, else the system.
function isDark() {
  const b = document.body, lab = b.dataset.jpThemeLight;
  if (lab !== undefined) return lab === "false";
  if (document.documentElement.getAttribute("theme")) return document.documentElement.getAttribute("theme") === "dark";
  if (b.className.includes("vscode-")) return b.classList.contains("vscode-dark") || b.classList.contains("vscode-high-contrast");
  return matchMedia("(prefers-color-scheme: dark)").matches;
}
function followTheme(root) {
  const set = () => { root.dataset.theme = isDark() ? "dark" : "light"; };
  const seen = new MutationObserver(set), os = matchMedia("(prefers-color-scheme: dark)");
  seen.observe(document.body, { attributes: true }); seen.observe(document.documentElement, { attributes: true });
  os.addEventListener("change", set); set();
  return () => { seen.disconnect(); os.removeEventListener("change", set); };
}
// A card with a title, the question that it answers, and a body. Keys stay in the card: the notebook's shortcuts would take them.
function card(el, { title, sub, cls = "", extra }) {
  const subline = h("p", { class: "sub" }, sub || ""), body = h("div", {});
  const head = extra ? h("div", { class: "row" }, h("div", {}, h("h3", {}, title), subline), extra) : h("div", {}, h("h3", {}, title), subline);
  const root = h("section", { class: `lrb card ${cls}`, "aria-label": title }, head, body);
  root.addEventListener("keydown", e => e.stopPropagation());
  el.append(root);
  return { root, body, subline };
}
// Call `draw` now, on every change of the named traits and on resize, at most once a frame. Returns the clean-up.
function redraw(model, names, root, draw) {
  let asked = 0;
  const ask = () => { if (!asked) asked = requestAnimationFrame(() => { asked = 0; draw(); }); };
  for (const n of names) model.on(`change:${n}`, ask);
  const size = new ResizeObserver(ask); size.observe(root);
  const unfollow = followTheme(root);
  draw();
  return Object.assign(() => { cancelAnimationFrame(asked); for (const n of names) model.off(`change:${n}`, ask); size.disconnect(); unfollow(); }, { ask });
}
// A sentence of assets/texts, as `sentence` of loranb/core/texts.py makes it; Python puts the TEXTS of this panel before its script.
const sentence = (name, values = {}) => TEXTS[name].replace(/\{(\w+)(?:\|([^|}]*)\|([^}]*))?\}/g, (_, value, one, other) => one === undefined ? values[value] : values[value] === 1 ? one : other);
const set = (model, name, value) => { model.set(name, value); model.save_changes(); };
// Several traits in one message. What a person did anew takes back the complaint about what they did before.
const give = (model, values) => { for (const [k, v] of Object.entries(values)) model.set(k, v); if (model.get("message")) model.set("message", ""); model.save_changes(); };
const num = (v, digits = 3) => v === null || v === undefined || Number.isNaN(v) ? "–" : Math.abs(v) >= 1000 ? Math.round(v).toLocaleString("en") : String(+v.toPrecision(digits));
const human = n => { for (const [size, letter] of [[1e9, " B"], [1e6, " M"], [1e3, " k"]]) if (Math.abs(n) >= size) return +(n / size).toPrecision(3) + letter; return String(n); };
const count = n => Math.round(n).toLocaleString("en");
const id = name => `lrb-${name}-${Math.random().toString(36).slice(2, 10)}`;  // every panel is a module of its own, so no counter is shared
// A text box bound to a trait: Enter or leaving commits, Escape takes back, a change from elsewhere never writes over what is being typed.
function typed(model, name, attrs, { show = v => String(v ?? ""), read = t => t, commit = v => give(model, { [name]: v }) } = {}) {
  const box = h("input", { type: "text", autocomplete: "off", spellcheck: "false", "data-trait": name, ...attrs });
  let dirty = false;
  // A new value in a box whose whole text is selected is selected too: what is typed next replaces it.
  const back = () => {
    dirty = false;
    const text = show(model.get(name)), all = box.getRootNode().activeElement === box && box.selectionEnd - box.selectionStart === box.value.length;
    if (box.value === text) return;
    box.value = text;
    if (all) box.select();
  };
  const done = () => {
    if (!dirty) return;
    const text = box.value.trim(), value = read(text), same = text === show(model.get(name));
    dirty = false;
    if (value === undefined) set(model, "message", sentence("common.no_number", { name, text: text.slice(0, 40) }));
    else if (!same) commit(value);
    back();
  };
  box.addEventListener("input", e => { dirty = true; if (!e.inputType || e.inputType === "insertReplacementText") done(); });
  box.addEventListener("change", done);
  box.addEventListener("keydown", e => { if (e.key === "Enter") done(); else if (e.key === "Escape") back(); });
  return { box, draw: () => { if (!dirty) back(); } };
}
const readNumber = t => { const v = Number(t.replace(/[,_\s]/g, "")); return t && Number.isFinite(v) ? v : undefined; };
// The text box of a name, with suggestions, a word before it and a figure after it.
function pick(model, name, choices, { label, before }) {
  const list = h("datalist", { id: id(name) }), after = h("span", { class: "after" });
  const field = typed(model, name, { "aria-label": label, list: list.id });
  const root = h("div", { class: "field" }, before && h("span", { class: "before", "aria-hidden": "true" }, before), field.box, after, list);
  return { root, box: field.box, draw: text => {
    field.draw(); field.box.title = field.box.value; after.textContent = text;
    fill(list, (model.get(choices) || []).map(v => h("option", { value: v })));
  } };
}
// The line for what is wrong, and the mark on the box that it speaks of: the one named first, or the only one.
function complaint(model, boxes) {
  const root = h("p", { class: "error", id: id("error"), "aria-live": "polite" });
  return { root, draw: () => {
    const text = model.get("message") || "";
    if (root.textContent !== text) root.textContent = text;
    for (const box of boxes) {
      const wrong = text && (boxes.length === 1 || text.startsWith(box.dataset.trait + " "));
      if (wrong) { box.setAttribute("aria-invalid", "true"); box.setAttribute("aria-describedby", root.id); } else { box.removeAttribute("aria-invalid"); box.removeAttribute("aria-describedby"); }
    }
  } };
}
// Put a range input at a value; the part behind the knob is filled.
const slide = (range, v) => { range.value = v; range.style.setProperty("--at", `${100 * (range.value - range.min) / (range.max - range.min)}%`); };
// A switch and its words.
function check(model, name, words, title) {
  const box = h("input", { type: "checkbox", onchange: e => give(model, { [name]: e.target.checked }) });
  return { root: h("label", { class: "check", title }, box, h("span", {}, words)), box, draw: () => { box.checked = !!model.get(name); } };
}
