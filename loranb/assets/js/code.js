// What the Studio does, as text to keep: a Python script and a YAML recipe.
const KINDS = ["python", "yaml"];
const WORDS = { python: /("(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')|(#.*)|(\b(?:from|import|as|def|for|in|if|else|return|True|False|None)\b)|((?<![\w.])-?\d[\d_.]*(?:e[-+]?\d+)?)/g,
  yaml: /("(?:[^"\\\n]|\\.)*"|'(?:[^'\n]|'')*')|(#.*)|(^[ ]*[\w-]+(?=:))|((?<=[:\-] )-?\d[\d_.]*(?:e[-+]?\d+)?$)/gm };
function coloured(text, kind) {
  const out = [];
  let from = 0;
  for (const m of text.matchAll(WORDS[kind])) {
    out.push(text.slice(from, m.index), h("span", { class: m[1] ? "str" : m[2] ? "rem" : m[3] ? "key" : "num" }, m[0]));
    from = m.index + m[0].length;
  }
  return [...out, text.slice(from)];
}
// The clipboard of the browser needs a secure page and leave; an old-fashioned copy of a hidden text box needs neither.
async function copy(text, near) {
  try { await navigator.clipboard.writeText(text); return true; } catch {}
  const box = h("textarea", { style: "position:fixed;opacity:0", "aria-hidden": "true" }), had = near.getRootNode().activeElement;
  box.value = text; near.append(box); box.select();
  let done = false;
  try { done = document.execCommand("copy"); } catch {}
  box.remove(); if (had) had.focus();
  return done;
}

function render({ model, el }) {
  let kind = KINDS[0], timer;
  const name = id("code"), pre = h("pre", { role: "tabpanel", id: name, tabindex: 0 });
  const choose = k => { kind = k; draw(); pre.scrollTop = 0; };
  const tabs = KINDS.map((k, i) => h("button", { type: "button", role: "tab", id: `${name}-${k}`, "aria-controls": name, onclick: () => choose(k),
    onkeydown: e => { if (e.key === "ArrowRight" || e.key === "ArrowLeft") { e.preventDefault(); choose(KINDS[1 - i]); tabs[1 - i].focus(); } } }, k));
  const said = h("span", { class: "said", "aria-live": "polite" });
  const button = h("button", { type: "button", class: "copy", onclick: async () => {
    const copied = await copy(model.get(kind), root);
    said.textContent = sentence(copied ? "common.copied" : "common.press_keys");
    if (!copied) getSelection().selectAllChildren(pre);
    clearTimeout(timer); timer = setTimeout(() => { said.textContent = ""; }, 2000);
  } }, sentence("common.copy"));
  const tools = h("div", { class: "tools" }, said, h("div", { role: "tablist", "aria-label": sentence("code.language"), class: "tabs" }, tabs), button);
  const { root, body } = card(el, { title: sentence("code.title"), sub: sentence("code.about"), cls: "code", extra: tools });
  body.className = "body"; body.append(pre);
  function draw() {
    for (const t of tabs) { const on = t.textContent === kind; t.setAttribute("aria-selected", String(on)); t.tabIndex = on ? 0 : -1; }
    pre.setAttribute("aria-labelledby", `${name}-${kind}`);
    const text = model.get(kind) || "";
    button.disabled = !text;
    fill(pre, text ? coloured(text, kind) : h("span", { class: "rem" }, sentence("code.none")));
  }
  const stop = redraw(model, KINDS, root, draw);
  return () => { clearTimeout(timer); stop(); };
}
export default { render };
