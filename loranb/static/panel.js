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
const set = (model, name, value) => { model.set(name, value); model.save_changes(); };
const num = (v, digits = 3) => v === null || v === undefined || Number.isNaN(v) ? "–" : Math.abs(v) >= 1000 ? Math.round(v).toLocaleString("en") : String(+v.toPrecision(digits));
const logTicks = (lo, hi) => { const out = []; for (let e = Math.floor(Math.log10(lo)); e <= Math.ceil(Math.log10(hi)); e++) for (const m of [1, 3]) { const t = m * 10 ** e; if (t >= lo && t <= hi) out.push(t); } return out; };
