"""Panels on a static page in Chromium with a pretended model: what their ES modules do without a kernel"""
import base64, json

MODEL = """
const bytes = text => new DataView(Uint8Array.from(atob(text), c => c.charCodeAt(0)).buffer);
const revive = state => { for (const k in state) if (state[k] && state[k].$bytes !== undefined) state[k] = bytes(state[k].$bytes); return state; };
class Model {
  constructor(state) { this.state = revive(state); this.handlers = {}; this.sent = []; this.waiting = {}; }
  get(name) { return this.state[name]; }
  set(name, value) {
    if (JSON.stringify(this.state[name]) === JSON.stringify(value)) return;
    this.state[name] = this.waiting[name] = value;
    for (const f of [...(this.handlers["change:" + name] || [])]) f();
  }
  save_changes() { this.sent.push(this.waiting); this.waiting = {}; }
  send(content) { this.sent.push(content); }
  receive(state) { Object.assign(this.state, revive(state)); for (const k in state) for (const f of [...(this.handlers["change:" + k] || [])]) f(); }
  message(content, buffers) { for (const f of [...(this.handlers["msg:custom"] || [])]) f(content, buffers.map(bytes)); }
  on(name, f) { (this.handlers[name] ||= []).push(f); }
  off(name, f) { this.handlers[name] = (this.handlers[name] || []).filter(g => g !== f); }
}
window.models = []; window.stops = [];
window.show = async (esm, state, css) => {
  const style = document.createElement("style"), el = document.createElement("div");
  style.textContent = css; document.head.append(style); document.querySelector("main").append(el);
  const panel = (await import(URL.createObjectURL(new Blob([esm], {type: "text/javascript"})))).default;
  const model = new Model(state);
  models.push(model); stops.push(panel.render({model, el}));
};
"""
OWN = {"layout", "comm", "tabbable", "tooltip"}


def state(widget):
    "The synced traits of a widget as the browser has them"
    return {k: plain(v) for k, v in widget.get_state().items() if k[0] != "_" and k not in OWN}


def plain(value):
    "A trait as JSON; bytes become a DataView in the browser, as Jupyter does it"
    return {"$bytes": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


def receive(page, i, **traits):
    "Change traits of the panel `i` as Python would"
    page.evaluate("([i, state]) => models[i].receive(state)",
        [i, json.loads(json.dumps({k: plain(v) for k, v in traits.items()}))])


def message(page, i, content, buffers=()):
    "Send the panel `i` what Python's `send` would send"
    page.evaluate("([i, content, buffers]) => models[i].message(content, buffers)",
        [i, content, [base64.b64encode(b).decode() for b in buffers]])


def panel_page(browser, *widgets, width=282, columns=1, theme="light", **kw):
    "A page with these panels beside each other, each `width` wide; `page.errors` lists what went wrong"
    page = browser.new_page(viewport=dict(width=columns*(width + 12) + 16, height=700), color_scheme=theme, **kw)
    page.errors = []
    page.on("pageerror", lambda e: page.errors.append(str(e)))
    page.on("console", lambda m: m.type == "error" and page.errors.append(m.text))
    page.set_content(f'<!doctype html><meta charset="utf-8"><body style="margin:14px;background:{"#fff" if theme == "light" else "#111417"}">'
                     f'<main style="display:grid;gap:12px;grid-template-columns:repeat({columns},{width}px)"></main><script>{MODEL}</script></body>')
    for w in widgets:
        page.evaluate("([esm, state, css]) => show(esm, state, css)",
            [w._esm, json.loads(json.dumps(state(w))), w._css])
    return page
